"""What the boards of `rinsho.evaluate.boards` are made of: cells, our rows, chance and baselines, published rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from rinsho.evaluate.published import Score
from rinsho.score_page import BASELINES, BESIDE, MODES, few_shot

Row = dict[str, Any]

NAMES = {
    "jmmlu_med": "JMMLU-Med", "crade": "CRADE", "rrtnm": "RRTNM", "smdis": "SMDIS", "jcsts": "JCSTS",
    "mrner_disease": "MRNER-disease", "mrner_medicine": "MRNER-medicine", "nrner": "NRNER",
    "step1": "Step 1", "step2": "Step 2", "step3": "Step 3", "step2&3": "Steps 2 and 3",
}  # fmt: skip
OTHER_QUESTIONS = "other questions"
SEEN = "†: the model may have seen the test."


class Cell(NamedTuple):
    """One number of a board: as text, as drawn, its interval, and how many questions or points stand behind it."""

    text: str
    value: float | None
    interval: Sequence[float] | None = None
    items: int | None = None


Cells = dict[str, Cell]  # by column
CellsOf = Callable[[Row], Cells]
Reading = Callable[[Row, str], Cells]  # of a row of scores, "official" or as the model answers ("own")
BaselineOf = Callable[[Row, str], Cell | None]


@dataclass
class Board:
    """A board that is being put together; `columns` are keys here and get their names last."""

    id: str
    title: str
    columns: list[str]
    axis: str
    percent: bool = False
    pass_line: float | None = None
    drawn: Sequence[str] | None = None  # columns of the figure; those of ours when None
    note: str = ""
    rows: list[Row] = field(default_factory=list)

    def add(self, name: str, how: str, cells: Cells, **more: Any) -> None:
        """Adds a row unless it is empty."""
        if cells:
            plain: Row = {"ours": False, "mode": None, "source": "", "remark": "", "apart": None, "leaked": False}
            self.rows.append({"name": name, "how": how, "cells": cells, **plain, **more})


def incomparable(numbers: Mapping[str, Any]) -> str | None:
    """Why an evaluation cannot be compared with published scores, if so."""
    reasons = []
    if numbers.get("test_part") == "own":
        reasons.append("own test part")
    # Of answers made elsewhere nobody knows the prompts.
    if numbers.get("how") != "unknown" and (numbers.get("prompt_form") or "benchmark") != "benchmark":
        reasons.append(f"{numbers['prompt_form']} prompts")
    return ", ".join(reasons) or None


def own_rows(
    board: Board, models: Sequence[Row], tasks: Sequence[str], cell: Reading, differs: tuple[str, str] | None
) -> None:
    """One row a model and mode; answers that the official rule reads otherwise than we do get a second one.

    Args:
        board: gets the rows.
        models: numbers of evaluations.
        tasks: of the board.
        cell: the cells of a row of scores.
        differs: two names in `also` or in the row of scores; where they differ the official rule reads otherwise.
    """
    for numbers in models:
        rows = rows_of(numbers["scores"], tasks)
        for mode in MODES:
            own = [row for row in rows if row["mode"] == mode]
            name = numbers["model"] if mode == "free" else f"{numbers['model']} ({mode})"
            shots = few_shot(numbers) if numbers.get("few_shot") else ""
            about = {
                "ours": True, "mode": mode, "source": "this evaluation", "remark": shots,
                "apart": incomparable(numbers),
                "squared": [row["also"].get("points_squared") for row in own if "also" in row],
            }  # fmt: skip
            how = numbers.get("how", "unknown")
            board.add(name, how, _joined(cell(row, "official") for row in own), **about)
            figures = [{**row.get("also", {}), **row} for row in own]
            if differs and any(differs[0] in row and row[differs[0]] != row[differs[1]] for row in figures):
                board.add(f"{name}, read by the last line", how, _joined(cell(row, "own") for row in own), **about)


def beside(  # noqa: PLR0917
    board: Board, models: Sequence[Row], tasks: Sequence[str], chance: CellsOf, baseline: BaselineOf,
    column: Callable[[Row], str] = lambda row: str(row["task"]),
) -> None:  # fmt: skip
    """Chance once for each set of questions, trivial baselines once for each split; neither depends on prompts."""
    guessed: dict[Any, Cells] = {}
    trivial: dict[Any, dict[str, Cells]] = {}
    for numbers in models:
        own = "own test part" if numbers.get("test_part") == "own" else None
        part = (own, numbers.get("split_seed") if own else None)
        rows = rows_of(numbers["scores"], tasks)
        guessed[part] = _joined(map(chance, rows)) | guessed.get(part, {})
        by_name = trivial.setdefault((*part, numbers.get("split")), {})
        for name in BASELINES:
            cells = {column(row): found for row in rows if (found := baseline(row, name)) is not None}
            by_name[name] = cells | by_name.get(name, {})
    for (apart, _), cells in guessed.items():
        board.add("chance", "chance", cells, apart=apart)
    several = len({split for *_, split in trivial}) > 1
    for (apart, _, split), by_name in trivial.items():
        for name, label in BASELINES.items():
            told = f"{label} (split {split})" if several else label
            board.add(told, "baseline", by_name[name], apart=apart, source="this evaluation")


def add_published(board: Board, score: Score, cells: Cells) -> None:
    """Adds a published row, unless it says again what another table said."""
    if score.same_as is None:
        board.add(
            score.model, score.how, cells, source=score.source, remark="; ".join(score.notes), apart=score.apart,
            leaked=score.leaked is not None,
        )  # fmt: skip


def published_cells(columns: Sequence[str], score: Score, drawn: int, form: str = ".2f") -> Cells:
    """The cells of a published row; of pairs the number at `drawn` is the one of the figure."""
    found: Cells = {}
    for column, cell, items in zip(columns, score.cells, score.items, strict=True):
        if isinstance(cell, tuple):
            found[column] = Cell(pair(*cell), cell[drawn], None, items)
        elif cell is not None:
            found[column] = Cell(format(cell, form), cell, None, items)
    return found


def finished(board: Board) -> Row:
    """The board as plain values: rows sorted, other questions set apart, columns named."""
    ours = [row for row in board.rows if row["ours"]]
    reference: dict[str, int | None] = {}
    for row in [row for row in ours if not row["apart"]]:
        for column, cell in row["cells"].items():
            reference.setdefault(column, cell.items)
    for row in board.rows:
        if not row["ours"] and not row["apart"] and row["how"] not in BESIDE:
            common = [column for column in row["cells"] if column in reference]
            if any(row["cells"][column].items not in (None, reference[column]) for column in common):
                row["apart"] = OTHER_QUESTIONS
    asked = [column for column in board.columns if any(column in row["cells"] for row in ours)]
    drawn = [column for column in (board.drawn or asked) if column in asked]
    reasons = {row["apart"] for row in ours}
    rows = sorted(board.rows, key=lambda row: (bool(row["apart"]), row["apart"] not in reasons, *_place(row, drawn)))
    note = " ".join([board.note, *([SEEN] if any(row["leaked"] for row in rows) else [])])
    empty, marks, told = Cell("", None), dict[str, int](), []
    for row in rows:
        row["marks"] = sorted({marks.setdefault(text, len(marks) + 1) for text in _remarks(row)})
        cells = [row["cells"].get(column, empty) for column in board.columns]
        intervals = [None if cell.interval is None else list(cell.interval) for cell in cells]
        told.append({**{key: value for key, value in row.items() if key != "squared"}, "intervals": intervals,
                     "cells": [cell.text for cell in cells], "values": [cell.value for cell in cells],
                     "counts": [cell.items for cell in cells]})  # fmt: skip
    return {
        "id": board.id, "benchmark": board.id.removeprefix("task_"), "title": board.title,
        "columns": [_column(column) for column in board.columns], "rows": told, "note": note.strip(),
        "axis": board.axis, "percent": board.percent, "pass_line": board.pass_line,
        "marks": list(marks), "panels": [board.columns.index(column) for column in drawn],
    }  # fmt: skip


def _remarks(row: Row) -> list[str]:
    """What stands below the board about a row, in one piece each."""
    texts = [row["apart"], *row["remark"].split("; "), row["source"]] if not row["ours"] else [row["remark"]]
    if row["ours"] and row["apart"]:
        texts.append(row["apart"])
    return [text for text in texts if text and text != "this evaluation"]


def _place(row: Row, columns: Sequence[str]) -> tuple[bool, float, bool]:
    """By the mean over what ours were asked; rows without any of it last."""
    cells = [row["cells"].get(column) for column in columns]
    values = [cell.value for cell in cells if cell is not None and cell.value is not None]
    mean = sum(values) / len(values) if values else 0.0
    return not values, -mean, not row["ours"]


def _column(column: str) -> str:
    task, _, own = column.partition("/")
    return f"{NAMES.get(task, task)}, own spelling: exact F1, overlap F1" if own else NAMES.get(task, task)


def named(model: Mapping[str, Any]) -> Row:
    """The numbers of an evaluation, under the name that it has among several."""
    numbers = {**model["numbers"], "model": model["name"]} if "numbers" in model else dict(model)
    return {"tags": [], "scores": [], **numbers}


def rows_of(rows: Iterable[Row], tasks: Sequence[str]) -> list[Row]:
    """The rows on these tasks."""
    return [row for row in rows if row["task"] in tasks]


def _joined(found: Iterable[Cells]) -> Cells:
    return {column: cell for cells in found for column, cell in cells.items()}


def pair(first: float | None, second: float | None) -> str:
    """Two numbers as the reports print them.

    >>> pair(0.61, 0.67), pair(None, 0.67), pair(-0.001, 0.16)
    ('0.61 (0.67)', '(0.67)', '0.00 (0.16)')
    """
    both = [None if number is None else f"{number:.2f}".replace("-0.00", "0.00") for number in (first, second)]
    return " ".join(part for part in (both[0], f"({both[1]})" if both[1] else None) if part)
