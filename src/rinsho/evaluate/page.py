"""`report.html` of one evaluation or of several: boards with figures, scores, leakage, comparisons, sample answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rinsho import score_figures, score_page
from rinsho.evaluate.several_report import PAIRED_NOTE


def write(numbers: Mapping[str, Any], path: Path) -> Path:
    """Writes the page and returns its path; figures need matplotlib, without it the page says so.

    Args:
        numbers: those of an evaluation (`rinsho.evaluate`) or of several (`rinsho.evaluate.several`).
        path: the file.
    """
    if "models" not in numbers:
        view, drawn = score_page.view(numbers), score_page.pictures(numbers)
        return score_page.render(__package__, path, title=view["model"], view=view, pictures=drawn)
    models, boards = numbers["models"], numbers.get("boards", [])
    names = [model["name"] for model in models]
    drawn = score_page.pictures({"boards": boards})
    told = dict.fromkeys(score_page.sample(model["numbers"]) for model in models)
    return score_page.render(
        __package__, path, title=f"{len(models)} models", view=None, pictures=drawn, models=models,
        beside=[score_page.beside(board, names) for board in boards], samples=[line for line in told if line],
        published=[board for board in boards if score_page.has_published(board)], paired_note=PAIRED_NOTE,
        paired=numbers.get("paired") or [], lengths=numbers.get("lengths") or [],
        notes=numbers.get("notes") or [], over_tokens=[] if drawn["note"] else _figures(numbers.get("over_tokens")),
        views=[score_page.view({**model["numbers"], "model": model["name"]}) for model in models],
    )  # fmt: skip


def _figures(rows: Sequence[Mapping[str, Any]] | None) -> list[str]:
    """One figure a task, the examinations first, as in the report's Figure 6."""
    tasks: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows or ():
        tasks.setdefault(row.get("task", ""), []).append(row)
    order = sorted(tasks, key=lambda task: not task.startswith("igakuqa"))
    return [score_figures.over_tokens(tasks[task], f"{task}: score over seen tokens") for task in order]
