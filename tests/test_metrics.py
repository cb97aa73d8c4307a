"""metrics.jsonl as series: what is read, what is left out, names, thinning, means, and parity of the table."""

import csv
import io
import math

import pytest

from rinsho.errors import UserError
from rinsho.metrics import Point, as_run, csv_text, find_runs, highest_shown, read_runs, running_mean, state_of, thin
from toy_metrics import LINES, finish, lock, write_run


def test_table_holds_every_number_of_the_file(tmp_path):
    run = write_run(tmp_path / "base", LINES)
    rows = list(csv.DictReader(io.StringIO(csv_text(read_runs([run])))))
    assert {row["run"] for row in rows} == {"base"}
    table = {(int(row["step"]), row["tag"]): row for row in rows}
    wanted = {}
    for line in LINES:
        step, seen = line["step"], line["seen_tokens"]
        if "spike" in line:
            wanted[step, f"spike/{line['spike']}/{line['action']}"] = (seen, line["documents"])
            continue
        for key, value in line.items():
            if key == "validation":
                for source, figures in value.items():
                    wanted |= {(step, f"validation/{source}/{name}"): (seen, v) for name, v in figures.items()}
            elif key not in ("step", "seen_tokens") and value is not None:
                tag = key.replace("validation_", "validation/") if "validation" in key else f"train/{key}"
                wanted[step, tag] = (seen, value)
    assert {key: (int(row["seen_tokens"]), float(row["value"])) for key, row in table.items()} == wanted
    assert len(rows) == len(wanted)


def test_values_that_are_no_numbers_are_left_out(tmp_path):
    lines = [
        {"step": 1, "seen_tokens": 10, "loss": 2.0, "grad_norm": None, "mfu": None, "note": "x", "flag": True},
        {"step": 2, "seen_tokens": 20, "loss": math.nan, "grad_norm": math.inf},
        {"task": "x", "score": 1.0}, 5, ["step"],
    ]  # fmt: skip
    folder = write_run(tmp_path, lines)
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "lo')  # a line that is being written
    (run,) = read_runs([folder])
    assert run.series == {"train/loss": [Point(1, 10, 2.0)]}
    assert run.state == "stopped"


def test_a_run_is_finished_goes_on_or_was_stopped(tmp_path):
    folder = write_run(tmp_path, LINES)
    assert state_of(folder) == "stopped"  # no lock file at all
    with lock(folder):
        assert state_of(folder) == state_of(folder) == "going on"
        finish(folder)
        assert state_of(folder) == "finished"
    (folder / "DONE").unlink()
    assert state_of(folder) == "stopped"
    with lock(folder):  # looking does not keep a run from starting
        pass


def test_a_step_that_comes_again_replaces_what_stood_after_it():
    lines = [{"step": n, "seen_tokens": n * 10, "loss": float(n)} for n in (1, 2, 3, 4)]
    lines += [{"step": 3, "seen_tokens": 31, "loss": 30.0}]
    assert as_run(lines, "x").series["train/loss"] == [Point(1, 10, 1.0), Point(2, 20, 2.0), Point(3, 31, 30.0)]


def test_spikes_of_new_and_old_lines_and_tokens_that_a_line_lacks():
    lines = [
        {"step": 10, "seen_tokens": 1000, "loss": 2.0},
        {"step": 15, "spike": "loss", "action": "rollback"},
        {"step": 20, "seen_tokens": 2000, "skipped_steps": 1},
    ]
    first, second = as_run(lines, "x").spikes
    assert first == (15, 1500, "loss", "rollback", None)
    assert second == (20, 2000, "not_finite", "skip", None)


def test_a_spike_stands_where_it_happened_and_not_where_training_went_back_to():
    lines = [{"step": n, "seen_tokens": n * 100, "loss": 2.0} for n in range(1, 51)]
    back = {"step": 5, "seen_tokens": 500, "spike": "loss", "spike_step": 9, "action": "rollback", "documents": 3}
    run = as_run([*lines[:5], back, back, *lines[5:]], "x")
    assert run.spikes == [(9, 900, "loss", "rollback", 3)] * 2
    assert set(run.series) == {"train/loss"}
    assert len(running_mean(run, "train/loss")) == 50  # step 9 was trained anew, from other data


def test_runs_are_found_below_a_folder_in_order_and_named_apart(tmp_path):
    for name in ("b/finetune", "b/pretrain", "a/pretrain", "a/deep/pretrain/too-deep"):
        write_run(tmp_path / name, LINES)
    write_run(tmp_path / "b/evaluate", [{"task": "x", "score": 0.5}])
    found = find_runs([tmp_path, tmp_path / "b/pretrain"])
    assert [folder.relative_to(tmp_path).as_posix() for folder in found] == ["a/pretrain", "b/pretrain", "b/finetune"]
    assert [run.name for run in read_runs(found)] == ["a/pretrain", "b/pretrain", "b/finetune"]
    for name in ("x/one", "y/one"):
        write_run(tmp_path / name, LINES)
    assert [run.name for run in read_runs([tmp_path / "x/one", tmp_path / "y/one"])] == ["x/one", "y/one"]


def test_a_folder_without_training_metrics_is_a_user_error_unless_one_waits(tmp_path):
    with pytest.raises(UserError, match="not a folder"):
        find_runs([tmp_path / "no"])
    write_run(tmp_path, [{"task": "x", "score": 0.5}])
    with pytest.raises(UserError, match="no training metrics"):
        find_runs([tmp_path])
    assert find_runs([tmp_path], wait=True) == []


def test_sources_are_those_of_several_largest_first():
    figures = {"loss": 1.0, "bits_per_character": 1.0}
    both = {"a/b": figures | {"tokens": 5}, "病院": figures | {"tokens": 9}}
    assert as_run([{"step": 1, "validation_loss": 1.0, "validation": both}], "x").sources() == ["病院", "a/b"]
    assert as_run([{"step": 1, "validation": {"all": figures}}], "x").sources() == []


def test_running_mean_is_the_mean_of_what_is_around_and_skips_spikes():
    lines = [{"step": n, "seen_tokens": n, "loss": float(n % 2)} for n in range(1, 401)]
    lines[200]["loss"] = 1e6
    spike = {"step": 201, "seen_tokens": 201, "spike": "loss", "action": "skip"}
    means = running_mean(as_run([*lines, spike], "x"), "train/loss")
    assert len(means) == 399
    assert all(0.4 <= point.value <= 0.6 for point in means[5:])
    assert means[100].value == pytest.approx(sum(n % 2 for n in range(96, 107)) / 11)
    assert means[0].value == 1.0
    assert running_mean(as_run(lines[:39], "x"), "train/loss") == []


def test_thinning_keeps_extremes_order_and_the_end():
    points = [Point(n, n, math.sin(n)) for n in range(9000)]
    points[777] = Point(777, 777, 50.0)
    thinned = thin(points, most=500)
    assert len(thinned) <= 501
    assert points[777] in thinned
    assert thinned[-1] == points[-1]
    assert [point.step for point in thinned] == sorted({point.step for point in thinned})
    assert thin(points[:500], most=500) == points[:500]


def test_axis_ends_below_a_high_begin_and_below_spikes_only():
    falling = [Point(n, n, 2 + 9 * math.exp(-n / 20)) for n in range(1, 1001)]
    top = highest_shown([falling])
    assert top is not None and 2.2 < top < 4
    even = [Point(n, n, 3 - n / 1000) for n in range(1, 1001)]
    assert highest_shown([even]) is None
    spiked = [*even[:600], Point(601, 601, 40.0), *even[601:]]
    top = highest_shown([spiked])
    assert top is not None and top < 3.5
    wild = [Point(n, n, 3.0 if n < 100 else 1400.0) for n in range(1, 1001)]
    top = highest_shown([spiked], [wild])
    assert top is not None and top < 3.5
    assert highest_shown([], [wild]) is None and highest_shown([wild]) is None
    worse = [Point(n, n, 5.0) for n in range(1, 1001)]
    assert highest_shown([even], [worse]) is None  # near enough to be seen whole
    assert [as_run([{"step": p.step, "loss": p.value} for p in line], "x").diverged() for line in (spiked, wild)] == [
        False, True,
    ]  # fmt: skip
    assert highest_shown([]) is None
    assert highest_shown([[Point(0, 0, 3.0)]]) is None
    assert highest_shown([[Point(n, n, 3.0) for n in range(50)]]) is None
