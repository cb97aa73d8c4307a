"""Losses of several runs over each other, scores over seen tokens, the numbers behind them."""

import csv
import io
import json
import sys

import pytest

from analyse.made_runs import made_checkpoints, made_evaluation, made_run, score_row
from rinsho.analyse.curves import curves, read_scores
from rinsho.errors import UserError
from rinsho.metrics import read_runs


def lines_of(axes):
    return [line for line in axes.get_lines() if len(line.get_xdata()) > 2]


def test_two_runs_share_axes_of_tokens_and_steps(tmp_path):
    pytest.importorskip("matplotlib")
    from rinsho.analyse.curve_figures import losses

    runs = read_runs([made_run(tmp_path / "a"), made_run(tmp_path / "b", start=8.0)])
    figure = losses(runs, "train/loss", "validation/loss", "nats", "Pre-training: loss")
    (axes,) = figure.axes
    assert len(lines_of(axes)) == 2 * 3  # each step, the mean, held out
    assert lines_of(axes)[0].get_xdata()[-1] == 60 * 4096
    assert axes.get_xlabel() == "seen tokens" and axes.get_ylabel() == "nats"
    (steps,) = axes.child_axes
    figure.savefig(io.BytesIO())
    assert steps.get_xlabel() == "steps"
    assert steps.get_xlim()[1] == pytest.approx(axes.get_xlim()[1] / 4096)
    colors = {line.get_color() for line in lines_of(axes)}
    assert len(colors) == 2


def test_runs_of_other_batches_get_a_panel_of_steps(tmp_path):
    pytest.importorskip("matplotlib")
    from rinsho.analyse.curve_figures import losses

    runs = read_runs([made_run(tmp_path / "a"), made_run(tmp_path / "b", tokens=1024)])
    tokens, steps = losses(runs, "train/loss", "validation/loss", "nats", "").axes
    assert {line.get_xdata()[-1] for line in lines_of(tokens)} == {60 * 4096, 60 * 1024}
    assert {line.get_xdata()[-1] for line in lines_of(steps)} == {60}
    assert losses(runs, "train/no", "validation/none", "", "") is None


def test_the_chapter_has_figures_files_and_every_number(tmp_path):
    pytest.importorskip("matplotlib")
    base = made_run(tmp_path / "x" / "pretrain")
    tuned = made_run(tmp_path / "x" / "finetune", "finetune", steps=45)
    evaluation = made_checkpoints(tmp_path / "ev", "ck", [(100, 0.2), (200, 0.3)])
    out = tmp_path / "out"
    out.mkdir()
    part = curves([base, tuned], [evaluation], out)
    assert {"pretrain_loss.svg", "pretrain_loss.png", "finetune_loss.png", "pretrain_bits.svg"} <= set(part.files)
    assert {"scores_igakuqa-2018.svg", "curves.html", "curves.csv", "scores.csv"} <= set(part.files)
    assert sorted(part.files) == sorted(path.name for path in out.iterdir())
    assert part.html.count("<svg") == part.html.count("min-width: ") == 5
    assert all((out / name).read_bytes().startswith(b"\xef\xbb\xbf") for name in ("curves.csv", "scores.csv"))
    assert "var(--ink" in part.html
    with (out / "curves.csv").open(encoding="utf-8-sig") as file:
        rows = [row for row in csv.DictReader(file) if row["tag"] == "train/loss"]
    assert len(rows) == 60 + 45
    assert [run["run"] for run in part.numbers["runs"]] == ["x/pretrain", "x/finetune"]
    assert "x/finetune" in part.markdown and "0.300" in part.markdown
    json.dumps(part.numbers)


@pytest.mark.slow
def test_the_same_numbers_give_the_same_bytes(tmp_path):
    pytest.importorskip("matplotlib")
    run = made_run(tmp_path / "run")
    written = []
    for name in ("one", "two"):
        folder = tmp_path / name
        folder.mkdir()
        curves([run], [], folder)
        written.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert written[0] == written[1]


def test_scores_have_their_band_and_chance(tmp_path):
    pytest.importorskip("matplotlib")
    from rinsho.score_figures import draw_over_tokens

    rows = read_scores([made_checkpoints(tmp_path / "ev", "ck", [(200, 0.3), (100, 0.2)])])
    (axes,) = draw_over_tokens([row for row in rows if row["seen_tokens"]], "igakuqa").axes
    (band,) = axes.collections
    points = {tuple(point.round(6)) for point in band.get_paths()[0].vertices}
    assert {(100, 0.15), (100, 0.25), (200, 0.25), (200, 0.35)} <= points
    levels = {line.get_ydata()[0] for line in axes.get_lines() if line.get_ydata()[0] == line.get_ydata()[1]}
    assert {0.2, 0.75} <= levels


def test_single_evaluations_are_points_of_one_run_unless_they_have_seen_as_much(tmp_path):
    early = made_evaluation(tmp_path / "run" / "a", "step-1", 100, [score_row(score=0.2)])
    late = made_evaluation(tmp_path / "run" / "b", "step-2", 200, [score_row(score=0.3)])
    rows = read_scores([late, early])
    assert [(row["run"], row["seen_tokens"], row["score"]) for row in rows] == [("run", 100, 0.2), ("run", 200, 0.3)]
    other = made_evaluation(tmp_path / "run" / "c", "other", 200, [score_row(score=0.4)])
    assert {row["run"] for row in read_scores([early, late, other])} == {"run/step-1", "run/step-2", "run/other"}


def test_the_table_tells_the_model_that_saw_most(tmp_path):
    folders = [made_evaluation(tmp_path / "run" / str(n), f"step-{n}", n, [score_row()]) for n in (100, 200)]
    out = tmp_path / "out"
    out.mkdir()
    part = curves([], folders, out)
    assert "step-200" in part.markdown and "step-100" not in part.markdown
    assert "step-100" in (out / "scores.csv").read_text()


def test_nothing_to_draw_is_told(tmp_path):
    with pytest.raises(UserError, match="no training run and no evaluation"):
        curves([], [], tmp_path)
    broken = tmp_path / "ev"
    broken.mkdir()
    (broken / "scores.json").write_text('{"scores": 5}')
    with pytest.raises(UserError, match=r"scores\.json: no scores"):
        curves([], [broken], tmp_path)


def test_names_are_escaped(tmp_path):
    run = made_run(tmp_path / "<b>x")
    out = tmp_path / "out"
    out.mkdir()
    part = curves([run], [], out)
    assert "<b>x" not in part.html


def test_without_matplotlib_there_are_tables_and_the_page(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    part = curves([made_run(tmp_path / "run")], [], tmp_path)
    assert part.files == ("curves.html", "curves.csv")
    assert "matplotlib is not installed" in part.html and "matplotlib is not installed" in part.markdown


@pytest.mark.slow
def test_without_a_japanese_font_there_are_no_boxes(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    monkeypatch.setattr("rinsho.analyse.curve_figures.japanese_font", lambda: None)
    part = curves([made_run(tmp_path / "実験", stage="")], [], tmp_path)
    assert [name for name in part.files if "loss" in name] == ["loss.svg"]
    assert "fonts-noto-cjk" in part.markdown and "実験" in (tmp_path / "loss.svg").read_text()
