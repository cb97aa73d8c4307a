"""The loop against a plain one, in parts, stopped and continued, and with numbers that are not finite."""

import json
import math
import os
import signal
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from rinsho.device import reproducible
from rinsho.errors import UserError
from rinsho.model import build
from rinsho.modeling import next_token_loss
from rinsho.pretrain import Recipe
from rinsho.pretrain.data import HeldOut, HeldOutSource, total_steps
from rinsho.pretrain.loop import Trainer
from rinsho.run import Stage, read_metrics
from rinsho.token_files import TokenFile
from rinsho.tokens import IGNORED, Batch, RowOrder, pack

VOCAB = 64
MODEL = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "max_position_embeddings": 64}
SETTINGS = {
    "sequence_length": 32,
    "batch_tokens": 128,
    "max_tokens": 128 * 8,
    "learning_rate": 1e-2,
    "warmup_steps": 2,
    "save_every_steps": 3,
    "log_every_steps": 1,
    "validation_every_steps": 4,
    "threads": 1,
    "dtype": "fp32",
    "device": "cpu",
    "plot": False,
}


def recipe_of(**changes):
    model = {**MODEL, **changes.pop("model", {})}
    return Recipe.model_validate({**SETTINGS, "model": model, **changes})


def rows_of(recipe):
    lengths = np.random.default_rng(0).integers(5, 60, 40)
    offsets = np.cumsum([0, *lengths]).astype(np.int64)
    tokens = (np.random.default_rng(1).zipf(1.5, offsets[-1]) % (VOCAB - 3) + 3).astype(np.uint16)
    tokens[offsets[:-1]], tokens[offsets[1:] - 1] = 1, 2
    how, bounds = recipe.pack, recipe.document_bounds
    return pack(TokenFile(tokens, offsets, {}), recipe.sequence_length, how=how, document_bounds=bounds, pad_id=2)


def data_of(recipe, **parts):
    rows = parts.get("rows") or rows_of(recipe)
    half = len(rows) // 2
    sources = [
        HeldOutSource("a", list(range(half)), 100, 150),
        HeldOutSource("b", list(range(half, len(rows))), 300, 200),
    ]
    held_out = HeldOut(rows, sources) if parts.get("held_out", True) else None
    return SimpleNamespace(rows=rows, order=RowOrder(len(rows), recipe.seed), held_out=held_out)


def trainer_of(folder, recipe, **parts):
    stage = Stage("pretrain", folder)
    stage.partial.mkdir(parents=True, exist_ok=True)
    return Trainer(recipe, build(recipe.model, VOCAB, recipe.seed), data_of(recipe, **parts), stage)


def train(folder, recipe, **parts):
    with reproducible(recipe.threads):
        trainer = trainer_of(folder, recipe, **parts)
        trainer.train()
    return trainer


def losses(folder):
    return [row["loss"] for row in read_metrics(folder) if "loss" in row]


def weights(trainer):
    return {name: parameter.detach().clone() for name, parameter in trainer.model.named_parameters()}


def assert_same(first, second):
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name


@pytest.mark.parametrize("changes", [{}, {"pack": "cut", "document_bounds": False}])
def test_our_loss_curve_equals_a_plain_loop(tmp_path, changes):
    recipe = recipe_of(warmup="log", **changes)
    trainer = train(tmp_path, recipe)
    rows = rows_of(recipe)
    model = build(recipe.model, VOCAB, recipe.seed)
    decayed = [parameter for parameter in model.parameters() if parameter.ndim == 2]
    others = [parameter for parameter in model.parameters() if parameter.ndim != 2]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-2, betas=(0.9, 0.95), eps=1e-8)
    expected = []
    for step in range(8):
        numbers = trainer.order.take(4 * step, 4)
        ids, positions, labels = map(torch.from_numpy, rows.batch(numbers))
        logits = model(input_ids=ids, position_ids=positions, use_cache=False).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED)
        rate = math.log(step + 2) / math.log(3) if step < 2 else 0.5 * (1 + math.cos(math.pi * (step - 2) / 6))
        for group in optimizer.param_groups:
            group["lr"] = 1e-2 * rate
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        expected.append(loss.item())
    assert losses(tmp_path) == pytest.approx(expected, rel=1e-4)
    assert expected[-1] < expected[0]


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_four_times_two_rows_equal_one_times_eight(tmp_path, optimizer, monkeypatch):
    monkeypatch.setattr("rinsho.device.has_fast_bfloat16", lambda _: False)  # in bf16 the order of sums shows
    settings = {"batch_tokens": 256, "max_tokens": 256 * 4, "optimizer": optimizer}
    parts = train(tmp_path / "a", recipe_of(micro_batch_rows=2, **settings))
    whole = train(tmp_path / "b", recipe_of(micro_batch_rows=8, **settings))
    assert losses(tmp_path / "a") == pytest.approx(losses(tmp_path / "b"), rel=1e-5)
    for name, tensor in weights(whole).items():
        torch.testing.assert_close(weights(parts)[name], tensor, rtol=1e-3, atol=1e-4, msg=name)


def interrupt(trainer, after):
    """Trains until the step after so many steps, which is never taken."""
    real, done = trainer.step, 0

    def step():
        nonlocal done
        done += 1
        if done > after:
            raise KeyboardInterrupt
        return real()

    trainer.step = step
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    trainer.saver.wait()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_step_saves_and_costs_no_bit(tmp_path, number):
    recipe = recipe_of(model={"residual_dropout": 0.1})
    whole = train(tmp_path / "whole", recipe)
    trainer = trainer_of(tmp_path / "stopped", recipe)
    real = trainer._backward

    def backward(*given):
        if trainer.at.step == 4:
            os.kill(os.getpid(), number)
        return real(*given)

    trainer._backward = backward
    handler = signal.getsignal(number)
    with reproducible(1), pytest.raises(KeyboardInterrupt):
        trainer.train()
    assert signal.getsignal(number) is handler
    assert trainer.at.step == 6  # the processes agree on it at the begin of the next step
    again = trainer_of(tmp_path / "stopped", recipe)
    with reproducible(1):
        again.train()
    assert again.seen_before == trainer.at.seen_tokens
    assert_same(weights(whole), weights(again))


def test_a_loss_worse_than_guessing_is_a_spike_from_the_first_step(tmp_path):
    with pytest.raises(UserError, match="jump of the loss"):
        train(tmp_path, recipe_of(learning_rate=20.0, warmup_steps=0, max_tokens=128 * 40, max_skipped_steps=3))
    assert {spike["reason"] for spike in spikes(tmp_path)} == {"loss"}
    assert spikes(tmp_path)[0]["limit"] == pytest.approx(2 * math.log(VOCAB))


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_stopped_and_continued_equals_uninterrupted_bit_for_bit(tmp_path, optimizer):
    recipe = recipe_of(optimizer=optimizer, model={"residual_dropout": 0.1, "attention_dropout": 0.1})
    whole = train(tmp_path / "whole", recipe)
    with reproducible(1):
        interrupt(trainer_of(tmp_path / "stopped", recipe), after=5)
    torch.manual_seed(99)  # the random state is nothing that has to be saved
    again = train(tmp_path / "stopped", recipe)
    assert_same(weights(whole), weights(again))
    assert_same(whole.optimizer.state_tensors(), again.optimizer.state_tensors())
    assert losses(tmp_path / "stopped") == losses(tmp_path / "whole")
    assert [row["step"] for row in read_metrics(tmp_path / "stopped") if "loss" in row] == list(range(1, 9))


def disturbed(folder, recipe, factors):
    """A trainer whose loss is multiplied by a factor where the rows at some position of the order are used."""
    trainer = trainer_of(folder, recipe, held_out=False)
    real_take, real_loss = trainer.order.take, trainer._loss
    now = {"factor": 1.0}

    def take(position, count):
        now["factor"] = factors.get(position // count, 1.0)
        return real_take(position, count)

    trainer.order.take = take
    trainer._loss = lambda batch: real_loss(batch) * now["factor"]
    return trainer


def spikes(folder):
    return [json.loads(line) for line in (folder / "spikes.jsonl").read_text().splitlines()]


def test_a_step_that_is_not_finite_is_skipped_and_recorded_with_its_documents(tmp_path):
    recipe = recipe_of()
    trainer = disturbed(tmp_path, recipe, {2: math.inf, 4: math.nan})
    end = trainer.train()
    assert (end.step, end.skipped_steps) == (8, 2)
    assert all(torch.isfinite(tensor).all() for tensor in weights(trainer).values())
    first, second = spikes(tmp_path)
    assert (first["step"], first["reason"], first["action"], first["loss"]) == (3, "not_finite", "skip", None)
    assert second["step"] == 5
    rows = rows_of(recipe)
    expected = rows.documents_of(RowOrder(len(rows), recipe.seed).take(8, 4))
    assert first["ids"] == [str(number) for number in expected]
    assert first["documents"] == len(expected) > 0
    assert [row["step"] for row in read_metrics(tmp_path) if "spike" in row] == [3, 5]


def test_too_many_of_them_stop_the_run(tmp_path):
    trainer = disturbed(tmp_path, recipe_of(max_skipped_steps=1), {1: math.inf, 2: math.inf})
    with pytest.raises(UserError, match="not finite"):
        trainer.train()
    assert [spike["step"] for spike in spikes(tmp_path)] == [2, 3]


JUMPY = {"max_tokens": 128 * 20, "spike_window": 8, "spike_sigmas": 4.0, "schedule": "constant"}


def test_a_jump_of_a_finite_loss_is_skipped_like_a_step_without_gradient(tmp_path):
    recipe = recipe_of(**JUMPY)
    calm = train(tmp_path / "calm", recipe, held_out=False)
    jumpy = disturbed(tmp_path / "jumpy", recipe, {12: 50.0})
    end = jumpy.train()
    assert [(spike["step"], spike["reason"]) for spike in spikes(tmp_path / "jumpy")] == [(13, "loss")]
    assert end.skipped_steps == 1
    assert losses(tmp_path / "jumpy")[:12] == losses(tmp_path / "calm")[:12]
    assert losses(tmp_path / "jumpy")[13] != losses(tmp_path / "calm")[13]
    assert calm.at.skipped_steps == 0


def test_a_recorded_jump_changes_nothing(tmp_path):
    recipe = recipe_of(**JUMPY, on_spike="record", grad_clip=1e9)
    end = disturbed(tmp_path, recipe, {12: 3.0}).train()
    assert end.skipped_steps == 0
    assert [spike["action"] for spike in spikes(tmp_path)] == ["record"]


def test_a_rollback_goes_back_to_the_checkpoint_and_on_behind_the_spike(tmp_path):
    recipe = recipe_of(**JUMPY, on_spike="rollback", save_every_steps=5)
    trainer = disturbed(tmp_path, recipe, {12: 50.0})
    trained, real = [], trainer.optimizer.step
    trainer.optimizer.step = lambda factor: (trained.append((trainer.at.step, trainer.at.rows // 4)), real(factor))
    end = trainer.train()
    assert (end.step, end.skipped_steps, end.rows) == (20, 1, 4 * 23)
    # steps 0..11 on batches 0..11; batch 12 jumps; back to step 10, on with batch 13
    assert trained == [(step, step) for step in range(12)] + [(step, step + 3) for step in range(10, 20)]
    steps = [row["step"] for row in read_metrics(tmp_path) if "loss" in row]
    assert steps == list(range(1, 21))


def test_before_the_first_checkpoint_a_rollback_is_a_skip(tmp_path):
    end = disturbed(tmp_path, recipe_of(on_spike="rollback"), {1: math.inf}).train()
    assert (end.step, end.skipped_steps, end.rows) == (8, 1, 32)
    assert [spike["action"] for spike in spikes(tmp_path)] == ["skip"]


def test_a_kill_after_a_rollback_ends_with_the_same_bits(tmp_path):
    recipe = recipe_of(**JUMPY, on_spike="rollback", save_every_steps=5)
    whole = disturbed(tmp_path / "whole", recipe, {12: 50.0})
    whole.train()
    stopped = disturbed(tmp_path / "stopped", recipe, {12: 50.0})
    interrupt(stopped, after=14)
    again = disturbed(tmp_path / "stopped", recipe, {12: 50.0})
    again.train()
    assert_same(weights(whole), weights(again))
    assert losses(tmp_path / "whole") == losses(tmp_path / "stopped")
    assert (tmp_path / "whole/spikes.jsonl").read_bytes() == (tmp_path / "stopped/spikes.jsonl").read_bytes()
    noted = [[row for row in read_metrics(tmp_path / name) if "spike" in row] for name in ("whole", "stopped")]
    assert noted[0] == noted[1]
    assert len(noted[0]) == 1


def test_one_batch_can_be_learned_by_heart(tmp_path):
    recipe = recipe_of(max_tokens=128 * 60, schedule="constant", weight_decay=0.0)
    rows = rows_of(recipe)

    class Same:
        def __len__(self):
            return 4

        def batch(self, numbers):
            return rows.batch([0, 1, 2, 3][: len(numbers)])

    end = train(tmp_path, recipe, rows=Same(), held_out=False).at
    assert end.loss < 0.1


def test_bf16_stays_close_to_fp32(tmp_path):
    low, full = train(tmp_path / "low", recipe_of(dtype="bf16")), train(tmp_path / "full", recipe_of())
    assert low.low_precision
    assert not full.low_precision
    assert losses(tmp_path / "low") == pytest.approx(losses(tmp_path / "full"), rel=0.02)
    assert all(tensor.dtype == torch.float32 for tensor in weights(low).values())


def test_held_out_loss_of_every_source_and_of_all(tmp_path):
    trainer = trainer_of(tmp_path, recipe_of(micro_batch_rows=3))
    trainer.validate()
    rows, sources = trainer.held_out.rows, trainer.held_out.sources
    expected = {}
    for source in sources:
        batch = rows.batch(source.rows)
        with torch.no_grad():
            nats = next_token_loss(trainer.model.eval(), *map(torch.from_numpy, batch)).item()
        expected[source.name] = nats / batch.targets
    found = trainer.at.validation
    assert {name: row["loss"] for name, row in found.items()} == pytest.approx(expected, rel=1e-5)
    assert found["a"]["bits_per_character"] == pytest.approx(expected["a"] * 100 / 150 / math.log(2))
    assert trainer.at.validation_loss == pytest.approx((100 * expected["a"] + 300 * expected["b"]) / 400)
    (line,) = read_metrics(tmp_path)
    assert line["validation"] == found
    assert line["validation_bits_per_character"] == pytest.approx(trainer.at.validation_loss * 400 / 350 / math.log(2))


def test_the_log_line_has_speed_memory_and_an_unknown_share_of_an_unknown_peak(tmp_path):
    trainer = train(tmp_path, recipe_of())
    line = next(row for row in read_metrics(tmp_path) if "loss" in row)
    assert line["mfu"] is None
    assert "unknown" in trainer.watch.formula
    assert line["memory_gib"] > 0.05
    assert line["tokens_per_second"] > 0
    trainer.watch.peak = 1e12
    assert trainer.watch.mfu(100.0) == pytest.approx(100 * trainer.watch.flops.total / 1e12, abs=1e-4)


def test_steps_come_from_tokens_or_epochs():
    assert total_steps(recipe_of(), 1000) == 8
    assert total_steps(recipe_of(max_tokens=None, epochs=2.5), 16) == 10
    assert total_steps(recipe_of(max_tokens=1), 16) == 1


def test_a_batch_knows_its_targets():
    labels = np.array([[1, IGNORED], [IGNORED, 2]])
    assert Batch(labels, labels, labels).targets == 2
