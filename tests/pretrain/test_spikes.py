"""Spikes: found when they are there, not seen where training is only lively, and written down with their documents."""

import json
import math
import random
from dataclasses import asdict

import pytest

from rinsho.pretrain.spikes import SMALLEST_DEVIATION, Spike, SpikeWatch, too_many, write_spikes


def curve(seed, steps, *, noise, norm_noise=0.15, restart=None, rise=0.1, rise_steps=20):
    """(loss, gradient norm) of every step: a power law with noise; at `restart` the rate rises again, and the loss."""
    draw = random.Random(seed)
    values = []
    for step in range(steps):
        loss = 2.5 + 8 * (step + 1) ** -0.35
        norm = 0.2 + 3 * (step + 1) ** -0.5
        if restart is not None and step >= restart:
            risen = min(1.0, (step - restart + 1) / rise_steps) * math.exp(-max(0, step - restart - rise_steps) / 300)
            loss, norm = loss * (1 + rise * risen), norm * (1 + risen)
        values.append((loss * draw.gauss(1, noise), norm * draw.lognormvariate(0, norm_noise)))
    return values


def alarms(values, watch=None):
    watch = watch or SpikeWatch(128, 6.0)
    found = []
    for step, (loss, norm) in enumerate(values):
        spike = watch.judge(loss, norm)
        if spike is not None:
            found.append((step, spike[0]))
    return found


@pytest.mark.parametrize("noise", [0.0, 0.003, 0.03])  # none, that of batches of millions of tokens, of thousands
def test_a_falling_loss_and_a_restarted_rate_raise_no_alarm(noise):
    for seed in range(3):
        assert alarms(curve(seed, 1000, noise=noise)) == []
        assert alarms(curve(seed, 900, noise=noise, restart=500)) == []
        assert alarms(curve(seed, 900, noise=noise, norm_noise=0.01, restart=500)) == []


@pytest.mark.parametrize(("noise", "factor"), [(0.003, 1.08), (0.03, 1.3)])
def test_a_jump_of_loss_or_gradient_is_found_and_no_other_step(noise, factor):
    for seed in range(3):
        values = curve(seed, 700, noise=noise)
        values[500] = (values[500][0] * factor, values[500][1])
        values[510] = (values[510][0], values[510][1] * 4)
        values[600] = (values[600][0] * 3, values[600][1] * 9)
        assert alarms(values) == [(500, "loss"), (510, "grad_norm"), (600, "loss")]


def test_a_flat_curve_needs_more_than_a_trifle():
    watch = SpikeWatch(10, 6.0)
    for _ in range(10):
        assert watch.judge(2.0, 0.5) is None
    assert watch.limit("loss") == pytest.approx(2.0 * (1 + 6 * SMALLEST_DEVIATION["loss"])) == pytest.approx(2.12)
    assert watch.limit("grad_norm") == pytest.approx(1.5)
    assert watch.judge(2.13, 0.5)[0] == "loss"
    assert watch.judge(2.0, 1.51)[0] == "grad_norm"
    assert watch.judge(2.11, 1.49) is None


def test_the_limit_is_mean_and_deviations_of_the_steps_before():
    watch = SpikeWatch(4, 2.0)
    for loss in (9.0, 1.0, 2.0, 3.0, 4.0):  # the first one has left the window
        watch.judge(loss, 1.0)
    limit = 2.5 + 2 * math.sqrt(1.25)
    assert watch.limit("loss") == pytest.approx(limit)
    assert watch.judge(limit * 1.001, 1.0) == ("loss", watch.limit("loss"))
    assert watch.judge(limit * 0.999, 1.0) is None


@pytest.mark.parametrize("values", [(math.nan, 1.0), (1.0, math.inf), (-math.inf, math.nan)])
@pytest.mark.parametrize("sigmas", [6.0, None])
def test_what_is_not_finite_is_always_found_and_never_learnt_from(values, sigmas):
    watch = SpikeWatch(8, sigmas)
    assert watch.judge(*values) == ("not_finite", None)
    assert watch.state() == {"loss": [], "grad_norm": []}


def test_without_deviations_or_with_too_few_steps_a_jump_is_ordinary():
    assert alarms([(2.0, 1.0)] * 50 + [(99.0, 99.0)], SpikeWatch(8, None)) == []
    assert alarms([(2.0, 1.0)] * 7 + [(99.0, 99.0)], SpikeWatch(8, 6.0)) == []
    assert alarms([(2.0, 1.0)] * 8 + [(99.0, 99.0)], SpikeWatch(8, 6.0)) == [(8, "loss")]


def test_a_skipped_spike_does_not_raise_the_limit_and_one_that_was_trained_on_does():
    watch = SpikeWatch(8, 6.0)
    assert alarms([(2.0, 1.0)] * 8 + [(9.0, 1.0)] * 3, watch) == [(8, "loss"), (9, "loss"), (10, "loss")]
    watch.accept(9.0, 1.0)
    assert watch.judge(9.0, 1.0) is None


def test_the_state_comes_back_bit_for_bit_through_json():
    values = curve(1, 300, noise=0.02)
    first, again = SpikeWatch(64, 6.0), SpikeWatch(64, 6.0)
    alarms(values[:200], first)
    again.judge(5.0, 5.0)
    again.load(json.loads(json.dumps(first.state(), allow_nan=False)))
    assert again.state() == first.state()
    for loss, norm in values[200:]:
        assert again.limit("loss") == first.limit("loss")
        assert again.limit("grad_norm") == first.limit("grad_norm")
        assert again.judge(loss, norm) == first.judge(loss, norm)
    shorter = SpikeWatch(16, 6.0)
    shorter.load(first.state())
    assert shorter.state()["loss"] == first.state()["loss"][-16:]


def test_spikes_are_written_with_all_documents_and_without_nan(tmp_path):
    spikes = [
        asdict(Spike(7, 48, 8, math.nan, math.inf, "not_finite", None, "skip")),
        asdict(Spike(9, 64, 8, 9.5, 1.0, "loss", 4.25, "rollback")),
    ]
    write_spikes(tmp_path / "spikes.jsonl", spikes[:1], lambda _row, _count: ["old"])
    write_spikes(tmp_path / "spikes.jsonl", spikes, lambda row, count: [f"文書{row}", f"b{row + count}"])
    lines = [json.loads(line) for line in (tmp_path / "spikes.jsonl").read_text(encoding="utf-8").splitlines()]
    assert lines[0] == {
        "step": 7, "rows": 48, "count": 8, "loss": None, "grad_norm": None, "reason": "not_finite", "limit": None,
        "action": "skip", "documents": 2, "ids": ["文書48", "b56"],
    }  # fmt: skip
    assert (lines[1]["loss"], lines[1]["limit"], lines[1]["documents"]) == (9.5, 4.25, 2)
    assert [path.name for path in tmp_path.iterdir()] == ["spikes.jsonl"]
    assert Spike(**{key: lines[1][key] for key in spikes[1]}) == Spike(**spikes[1])


def test_the_messages_say_what_happened_and_what_to_do(tmp_path):
    jump = Spike(9, 64, 8, 9.5, 1.0, "grad_norm", 0.4, "rollback")
    assert jump.line() == "step 9: the gradient norm is 1, above 0.4; back to the last checkpoint (rows 64 to 71)"
    broken = Spike(9, 64, 8, math.nan, 1.0, "not_finite", None, "skip")
    assert "is not finite; batch skipped" in broken.line()
    for spike, reason in ((jump, "jump of the gradient norm"), (broken, "not finite")):
        message = str(too_many(spike, 3, 2, tmp_path))
        assert message.startswith(f"{tmp_path}: 3 steps were not trained on")
        assert reason in message
        assert "at most 2 (pretrain.max_skipped_steps)" in message
        assert "spikes.jsonl" in message
