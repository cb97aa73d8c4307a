"""Curves of training runs, and scores over seen tokens."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rinsho.analyse.inputs import SCORES
from rinsho.analyse.page import fragment
from rinsho.analyse.part import BOM, Part, write_csv
from rinsho.curves import draw_page, headline
from rinsho.errors import UnsuitedError, UserError
from rinsho.files import write_atomic
from rinsho.metrics import Run, csv_text, read_runs
from rinsho.progress import amount
from rinsho.score_page import NO_FIGURES, interval, score

Row = dict[str, Any]
COLUMNS = ("run", "model", "seen_tokens", "task", "mode", "metric", "n", "score", "low", "high", "chance")
DRAWN = {  # tag of training, tag of held-out text, name of the axis, name of the file
    "loss": ("train/loss", "validation/loss", "cross entropy, nats a token"),
    "bits": ("", "validation/bits_per_character", "held-out text, bits a character"),
    "score": ("", "validation/score", "score on held-out rows"),
}
STAGES = {"pretrain": "Pre-training", "finetune": "Tuning", "": "Training"}


def curves(runs: Sequence[Path], evaluations: Sequence[Path], folder: Path) -> Part:
    """The chapter on how training went: losses and held-out text of all runs over each other, scores over seen tokens.

    Files: `curves.html` (every figure of the runs, with values under the pointer), `curves.csv` (every number of the
    runs), `scores.csv`, and each figure as SVG and PNG.

    Args:
        runs: folders with metrics.jsonl.
        evaluations: folders with scores.json.
        folder: for the files.

    Raises:
        UserError: there are neither runs nor evaluations, or scores that cannot be read.

    Source: NA-4; report Figures 3, 6 and 7.
    """
    found = [run for run in read_runs(runs) if run.series]
    rows = read_scores(evaluations)
    if not found and not rows:
        raise UnsuitedError(
            "no training run and no evaluation", where="analyse.curves",
            expected="a model folder with its metrics.jsonl, or RUN and EVALUATION folders among the inputs",
            todo="give them, or leave curves out of analyse.parts",
        )  # fmt: skip
    files: list[str] = []
    if found:
        write_atomic(folder / "curves.html", draw_page(found))
        write_atomic(folder / "curves.csv", BOM + csv_text(found))
        files += ["curves.html", "curves.csv"]
    if rows:
        files.append(write_csv(folder / "scores.csv", COLUMNS, map(_cells, rows)))
    figures, drawn, note = _figures(found, rows, folder)
    told = [_told(run) for run in found]
    last = [row for row in rows if row["seen_tokens"] is None or row["seen_tokens"] == _most(rows, row)]
    html = fragment(
        "curves.html.j2", figures=figures, runs=told, scores=last, note=note, page="curves.html" if found else ""
    )
    numbers = {"runs": told, "scores": rows}
    return Part("curves", "Curves", html, numbers, _markdown(told, last, note), (*files, *drawn))


def read_scores(evaluations: Sequence[Path]) -> list[Row]:
    """One row per run, model, task and mode of these evaluations, in the order of seen tokens within a run.

    Those of several models that `rinsho evaluate` put over seen tokens are taken as they are (the mean over
    examinations among them); a single evaluation is a point of the run that its folder's neighbours belong to.

    Raises:
        UserError: a scores.json that is none.
    """
    rows: list[Row] = []
    for place in evaluations:
        try:
            numbers = json.loads((place / SCORES).read_text(encoding="utf-8"))
            rows += _over_tokens(numbers, place) if "models" in numbers else _rows_of(numbers, place, place.parent.name)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            raise UserError(
                "no scores of an evaluation", where=place / SCORES, expected="a run folder of rinsho evaluate",
                todo="make the evaluation again",
            ) from None  # fmt: skip
    names = ("run", "model", "seen_tokens", "task", "mode", "metric")
    once = list({tuple(row[name] for name in names): row for row in rows}.values())
    return sorted(_apart(once), key=lambda row: (row["run"], row["task"], row["mode"], row["seen_tokens"] or 0))


def _apart(rows: Sequence[Row]) -> list[Row]:
    """Models that have seen equally many tokens are no checkpoints of one run: each of those is a run of its own."""
    seen: dict[Any, set[str]] = {}
    for row in rows:
        seen.setdefault((row["run"], row["seen_tokens"]), set()).add(row["model"])
    mixed = {run for (run, _), models in seen.items() if len(models) > 1}
    return [{**row, "run": f"{row['run']}/{row['model']}"} if row["run"] in mixed else row for row in rows]


def _cells(row: Row) -> list[Any]:
    low, high = row["interval"] or (None, None)
    return [{**row, "low": low, "high": high}[name] for name in COLUMNS]


def _over_tokens(numbers: Row, place: Path) -> list[Row]:
    known = [_row(row, row["run"], row["model"], row["seen_tokens"]) for row in numbers.get("over_tokens") or ()]
    there = {row["model"] for row in known}
    single = [model for model in numbers["models"] if model["name"] not in there]
    return known + [
        row for model in single for row in _rows_of({**model["numbers"], "model": model["name"]}, place, place.name)
    ]


def _rows_of(numbers: Row, place: Path, run: str) -> list[Row]:
    seen = numbers.get("seen_tokens")
    model = str(numbers.get("model") or place.name)
    return [_row(row, run, model, seen) for row in numbers["scores"]]


def _row(row: Row, run: str, model: str, seen: int | None) -> Row:
    kept = {name: row.get(name) for name in ("task", "mode", "metric", "n", "score", "interval", "chance")}
    return {"run": run, "model": model, "seen_tokens": seen, **kept}


def _most(rows: Sequence[Row], of: Row) -> int:
    """The most tokens of the rows with the same run, task and mode."""
    same = [row for row in rows if all(row[name] == of[name] for name in ("run", "task", "mode"))]
    return max(row["seen_tokens"] or 0 for row in same)


def _figures(runs: Sequence[Run], rows: Sequence[Row], folder: Path) -> tuple[list[Row], list[str], str]:
    """Title and `<svg>` of each figure, the files, and a note where there are none."""
    try:
        import matplotlib  # noqa: F401
    except ModuleNotFoundError:
        return [], [], NO_FIGURES
    from rinsho.analyse.curve_figures import figure_rem, losses, save
    from rinsho.fonts import HOW, fonts
    from rinsho.score_figures import draw_over_tokens

    figures: list[Row] = []
    files: list[str] = []
    made: list[tuple[str, str, Any]] = []
    with fonts():
        for stage in dict.fromkeys(_stage(run) for run in runs):
            own = [run for run in runs if _stage(run) == stage]
            for name, about in DRAWN.items():
                title = f"{STAGES[stage]}: {'held-out text' if name == 'bits' else name}"
                made.append((title, "_".join(filter(None, (stage, name))), losses(own, *about, title)))
        for task in dict.fromkeys(row["task"] for row in rows):
            points = [row for row in rows if row["task"] == task and None not in (row["score"], row["seen_tokens"])]
            if len({row["seen_tokens"] for row in points}) > 1:
                name, title = "scores_" + re.sub(r"[^\w.-]+", "_", task), f"{task}: score over seen tokens"
                made.append((title, name, draw_over_tokens(points, title)))
        for title, name, figure in made:
            if figure is not None:
                drawn, names = save(figure, folder, name)
                figures.append({"title": title, "svg": drawn, "rem": figure_rem(figure)})
                files += names
    whole = len(files) == 2 * len(figures)
    return figures, files, "" if whole else f"Some figures are SVG alone: no font has their Japanese names ({HOW})."


def _stage(run: Run) -> str:
    """`pretrain` or `finetune`, as the run's manifest says; else empty."""
    try:
        stage = json.loads((run.folder / "manifest.json").read_text(encoding="utf-8"))["stage"]
    except (OSError, ValueError, KeyError, TypeError):
        stage = ""
    return stage if stage in STAGES else ""


def _told(run: Run) -> Row:
    """Where a run stands, for the table."""
    end = run.end()
    return {
        "run": run.name, "stage": _stage(run), "state": run.state, "steps": end.step, "seen_tokens": end.seen_tokens,
        "loss": run.last("train/loss"), "held_out": run.last("validation/loss"),
        "bits_per_character": run.last("validation/bits_per_character"), "spikes": len(run.spikes),
        "headline": headline([run])[1],
    }  # fmt: skip


def _markdown(runs: Sequence[Row], rows: Sequence[Row], note: str) -> str:
    lines = []
    if runs:
        lines += _table("| run | steps | seen tokens | loss | held out | bits a character | spikes |", [
            [f"{run['run']} ({run['state']})", f"{run['steps']:,}", _amount(run["seen_tokens"]), score(run["loss"]),
             score(run["held_out"]), score(run["bits_per_character"]), str(run["spikes"])]
            for run in runs
        ])  # fmt: skip
    if rows:
        lines += _table("| run | model | seen tokens | task | mode | n | score | 95 % | chance |", [
            [row["run"], row["model"], _amount(row["seen_tokens"]), row["task"], row["mode"], str(row["n"]),
             score(row["score"]), interval(row["interval"]), score(row["chance"])]
            for row in rows
        ])  # fmt: skip
    return "\n".join([*lines, note]).strip() + "\n"


def _table(header: str, lines: Sequence[Sequence[str]]) -> list[str]:
    rule = "| --- " * (header.count("|") - 1) + "|"
    return [header, rule, *("| " + " | ".join(line) + " |" for line in lines), ""]


def _amount(value: int | None) -> str:
    return "-" if value is None else amount(value)
