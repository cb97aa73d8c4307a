"""Our scores among the published ones, in the layout of the reports' tables (N3-1, N3-2, N3-3, M-5).

A board: `id`, `benchmark`, `title`, `columns`, `rows`, `note`, and for the figure `axis` (what `values` are), `percent`
(they are shares), `panels` (the columns to draw), `pass_line`. Its rows, best first:

* `name`, `cells` (text as in the reports: `382 (76.6%)`, `0.61 (0.67)`), `values` and `intervals` (95 %) of the figure;
* `ours`, `mode` (of ours), `how` (zero-shot, few-shot, fine-tuned, pre-trained, unknown, people, baseline, chance,
  pass), `source`, `remark`;
* `apart`: why it cannot be compared with the others, or null; such rows come last. `leaked`: the model may have seen
  the test. `marks`: places from 1 in the board's `marks`, the remarks and sources below it.

Free answers, read by the benchmark's rule, are `NAME`; other modes are rows of their own, `NAME (constrained)`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rinsho.evaluate.board_parts import (
    Board,
    Cell,
    Cells,
    Row,
    add_published,
    beside,
    finished,
    named,
    own_rows,
    pair,
    published_cells,
    rows_of,
)
from rinsho.evaluate.igakuqa import PASS_SHARE as PASS
from rinsho.evaluate.published import read
from rinsho.tasks.intervals import wilson
from rinsho.tasks.jmed import CHOICE_TASKS, ENTITY_TASKS

EXAM = "igakuqa-"
EXAM_YEARS = ("2018", "2019", "2020", "2021", "2022")
NOTES = {
    "igakuqa": "Points (share of all points). Intervals: bootstrap over problems for a year, Wilson's for the sum, "
    "with the effective number of problems (Kish) as they are not worth the same. Everybody is asked all problems, "
    "those with figures without the figure. The NCVC-slm-1 report's \"total number of problems\" are points; an "
    "examination has 400 problems.",
    "jmed_choice": "κ (accuracy), κ with linear weights for CRADE and JCSTS, answers read by the benchmark's rule; "
    "intervals are those of κ.",
    "jmed_entities": "The benchmark's partial F1 (exact F1), on answers as they were said. Its partial F1 is no "
    "proportion: it counts every gold entity once any is right and passes 1. Ours beside it: exact F1 after entities "
    "are put back into the passage's own spelling, and overlap F1. Intervals and the figure are of exact F1.",
    "usmle": "Accuracy. The self-assessment questions of MedAlpaca's table may not be given away; a row is compared "
    "with ours where the number of questions is the same.",
}  # fmt: skip


def boards(models: Sequence[Mapping[str, Any]], published: bool) -> list[Row]:
    """The boards of all benchmarks that the models were asked.

    Args:
        models: numbers of evaluations (`rinsho.evaluate`), or rows with `name` and `numbers`.
        published: with the published scores.
    """
    given = [named(model) for model in models]
    tasks = list(dict.fromkeys(row["task"] for numbers in given for row in numbers["scores"]))
    years = [task.removeprefix(EXAM) for task in tasks if task.startswith(EXAM)]
    found = []
    if any(year in EXAM_YEARS for year in years):
        found.append(_exams(given, "igakuqa", list(EXAM_YEARS), published))
    if later := [year for year in years if year not in EXAM_YEARS]:
        found.append(_exams(given, "igakuqa_later", later, published))
    if any(task in CHOICE_TASKS for task in tasks):
        found.append(_choice(given, published))
    if any(task in ENTITY_TASKS for task in tasks):
        found.append(_entities(given, published))
    for task in tasks:
        if task == "usmle":
            found.append(_steps(given, published))
        elif not task.startswith(EXAM) and task not in CHOICE_TASKS + ENTITY_TASKS:
            found.append(_other(given, task, published))
    return [finished(board) for board in found]


def _exams(models: Sequence[Row], name: str, years: list[str], published: bool) -> Board:
    columns = [*years, "sum"] if years == list(EXAM_YEARS) else years
    known = set(years).intersection(read(name).columns)
    title = read(name).title if known else "Examinations"  # invented ones, or years that nobody has published
    board = Board(name, title, columns, "share of points", percent=True, pass_line=PASS)
    board.note = NOTES["igakuqa"]
    listed = read(name)
    places = {column: place for place, column in enumerate(listed.columns)}
    full = dict(zip(listed.columns, listed.items, strict=True))

    def cell(row: Row, reading: str) -> Cells:
        also = row["also"]
        if not also["points_total"]:  # only withdrawn problems were drawn
            return {}
        said = also.get("points_official", also["points"]) if reading == "official" else also["points"]
        bounds = also.get("points_interval") if said == also["points"] else None
        squared = also.get("points_squared")
        year, total = row["task"].removeprefix(EXAM), also["points_total"]
        return {year: _points(said, total, squared, bounds, whole=total == full.get(year))}

    def chance(row: Row) -> Cells:
        guessed, total = row["also"]["points_chance"], row["also"]["points_total"]
        share = guessed / total if total else 0.0
        text = f"{guessed:.1f} ({share:.1%})"
        return {row["task"].removeprefix(EXAM): Cell(text, share, None, total)} if total else {}

    tasks = [EXAM + year for year in years]
    differs = ("points_official", "points")
    own_rows(board, models, tasks, cell, differs)
    beside(board, models, tasks, chance, lambda _row, _name: None)
    if published:
        for score in listed.scores:
            cells = {
                year: _points(score.cells[places[year]], score.items[places[year]])
                for year in years
                if year in places and score.cells[places[year]] is not None
            }
            if score.share is not None:
                cells["sum"] = Cell(f"({score.share:.1%})", score.share)
            add_published(board, score, cells)
        board.add("pass line, about", "pass", _passing(board, {year: full[year] for year in years if full.get(year)}))
    if "sum" in columns:
        for row in board.rows:
            _sum(row, years)
        if any(row["ours"] and "sum" in row["cells"] for row in board.rows):
            board.drawn = ["sum"]
    return board


def _passing(board: Board, full: Mapping[str, int | None]) -> Cells:
    """The pass line of each year, of the points that ours were asked."""
    found: Cells = {}
    for year, total in full.items():
        asked = {row["cells"][year].items for row in board.rows if row["ours"] and year in row["cells"]}
        if len(asked) > 1:  # ours were asked different questions
            found[year] = Cell(f"({PASS:.0%})", PASS, None, total)
            continue
        points = asked.pop() if asked else total
        part = "" if points == total else f" of {points}"
        found[year] = Cell(f"{PASS * (points or 0):.0f}{part} ({PASS:.0%})", PASS, None, points)
    return found


def _sum(row: Row, years: Sequence[str]) -> None:
    """All years together, where all are there."""
    cells: Cells = row["cells"]
    if not all(year in cells for year in years):
        return
    total = sum(cells[year].items or 0 for year in years)
    if not total:
        return
    share = sum((cells[year].value or 0.0) * (cells[year].items or 0) for year in years) / total
    squared = row.get("squared") or [None]
    interval = None if None in squared else _share_interval(share, total, sum(squared))
    percent = f"{share:.0%}" if row["how"] == "pass" else f"{share:.1%}"
    partial = any(" of " in cells[year].text for year in years)
    form = ".1f" if row["how"] == "chance" else ".0f"
    text = f"{share * total:{form}}{f' of {total}' if partial and row['how'] != 'pass' else ''} ({percent})"
    cells["sum"] = Cell(f"({percent})" if partial and row["how"] == "pass" else text, share, interval, total)


def _choice(models: Sequence[Row], published: bool) -> Board:
    board = Board("jmed_choice", "JMED-LLM, choice tasks: κ (accuracy)", list(CHOICE_TASKS), "Cohen's kappa")
    board.note = NOTES["jmed_choice"]

    def cell(row: Row, reading: str) -> Cells:
        also = row["also"]
        suffix = "_official" if reading == "official" else ""
        value, right = also[f"kappa{suffix}"], also[f"accuracy{suffix}"] if suffix else row["score"]
        same = value == also["kappa"]
        return {row["task"]: Cell(pair(value, right), value, row["kappa_interval"] if same else None, row["n"])}

    def baseline(row: Row, name: str) -> Cell | None:
        right = row["baselines"].get(name)
        value = (row.get("baseline_kappa") or {}).get(name)
        return None if right is None else Cell(pair(value, right), value, None, row["n"])

    own_rows(board, models, CHOICE_TASKS, cell, ("accuracy_official", "score"))
    beside(
        board, models, CHOICE_TASKS, lambda row: {row["task"]: Cell(pair(0.0, row["chance"]), 0.0, None, row["n"])},
        baseline,
    )  # fmt: skip
    return _with_published(board, 0) if published else board


def _entities(models: Sequence[Row], published: bool) -> Board:
    own = [f"{task}/own" for task in ENTITY_TASKS]
    title = "JMED-LLM, entity tasks: official partial F1 (exact F1)"
    board = Board("jmed_entities", title, [*ENTITY_TASKS, *own], "exact F1", drawn=ENTITY_TASKS)
    board.note = NOTES["jmed_entities"]

    def cell(row: Row, _reading: str) -> Cells:
        also = row["also"]
        exact = also["official_exact_f1"]
        interval = row["interval"] if abs(exact - row["score"]) < 1e-12 else also.get("official_exact_f1_interval")
        official = Cell(pair(also["official_partial_f1"], exact), exact, interval, row["n"])
        corrected = Cell(f"{row['score']:.2f}, {also['overlap_f1']:.2f}", row["score"], row["interval"], row["n"])
        return {row["task"]: official, f"{row['task']}/own": corrected}

    def baseline(row: Row, name: str) -> Cell | None:
        exact = row["baselines"].get(name)
        return None if exact is None else Cell(pair(None, exact), exact, None, row["n"])

    own_rows(board, models, ENTITY_TASKS, cell, None)
    beside(board, models, ENTITY_TASKS, lambda _row: {}, baseline)
    return _with_published(board, 1) if published else board


def _with_published(board: Board, drawn: int) -> Board:
    """The board with the published rows of its name; of each cell's two figures the one at `drawn` is drawn."""
    listed = read(board.id)
    for score in listed.scores:
        add_published(board, score, published_cells(listed.columns, score, drawn))
    return board


def _steps(models: Sequence[Row], published: bool) -> Board:
    """USMLE: the accuracy of each step as the file labels it, and of all questions."""
    listed = read("usmle")
    board = Board("usmle", listed.title, [], "accuracy")
    board.note = NOTES["usmle"]

    def cell(row: Row, _reading: str) -> Cells:
        if "group" not in row:
            return {"all": Cell(f"{row['score']:.3f}", row["score"], row["interval"], row["n"])}
        step = "".join(row["group"].lower().split())
        return {step: Cell(f"{row['score']:.3f}", row["score"], row["interval"], row["n"])}

    both = [{**numbers, "scores": [*rows_of(numbers["tags"], ["usmle"]), *numbers["scores"]]} for numbers in models]
    own_rows(board, both, ["usmle"], cell, None)

    def baseline(row: Row, name: str) -> Cell | None:
        value = row["baselines"].get(name)
        return None if value is None else Cell(f"{value:.3f}", value, None, row["n"])

    def chance(row: Row) -> Cells:
        return cell({**row, "score": row["chance"], "interval": None}, "")

    beside(board, both, ["usmle"], chance, baseline, lambda row: next(iter(cell(row, ""))))
    if published:
        for score in listed.scores:
            add_published(board, score, published_cells(listed.columns, score, 0, ".3f"))
    there = dict.fromkeys(column for row in board.rows for column in row["cells"])
    board.columns = [column for column in listed.columns if column in there and column != "all"]
    board.columns += [column for column in there if column not in listed.columns]
    if "all" in there:
        board.columns.append("all")
    return board


def _other(models: Sequence[Row], task: str, published: bool) -> Board:
    metric = next(row["metric"] for numbers in models for row in numbers["scores"] if row["task"] == task)
    label = "accuracy" if metric == "accuracy" else metric.replace("_f1", " F1").replace("_", " ")
    board = Board(f"task_{task}", f"{task}: {label}", ["all"], label)

    def cell(row: Row, _reading: str) -> Cells:
        return {"all": Cell(f"{row['score']:.3f}", row["score"], row["interval"], row["n"])}

    def baseline(row: Row, name: str) -> Cell | None:
        value = row["baselines"].get(name)
        return None if value is None else Cell(f"{value:.3f}", value, None, row["n"])

    own_rows(board, models, [task], cell, None)
    beside(
        board, models, [task], lambda row: {"all": Cell(f"{row['chance']:.3f}", row["chance"], None, row["n"])},
        baseline, lambda _row: "all",
    )  # fmt: skip
    if published and task == "jmedqa":
        listed = read(task)
        for score in listed.scores:
            add_published(board, score, {"all": published_cells(listed.columns, score, 0, ".3f")["all"]})
    return board


def _points(
    points: Any,
    total: int | None,
    squared: int | None = None,
    bounds: Sequence[float] | None = None,
    whole: bool = True,
) -> Cell:
    """Points as a cell; with the points that were asked where that was not the whole examination."""
    assert total
    share = float(points) / total
    interval: Any = _share_interval(share, total, squared) if squared else None
    if bounds is not None:
        interval = [bound / total for bound in bounds]
    return Cell(f"{points}{'' if whole else f' of {total}'} ({share:.1%})", share, interval, total)


def _share_interval(share: float, total: int, squared: int) -> tuple[float, float] | None:
    """Wilson's interval of a share of points; `squared` is the sum of the problems' squared points. Fewer problems
    stand behind the share than there are, as they are not worth the same: Kish's effective number."""
    effective = total**2 / squared
    return wilson(share * effective, effective)
