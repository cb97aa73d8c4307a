"""The numbers of an evaluation as tables for people: what a reader needs first, published scores and samples last."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rinsho.evaluate.report_tables import block, board, inline, interval, number, table, text
from rinsho.score_page import (
    asked,
    baselines,
    exams,
    has_published,
    is_sure,
    leaks,
    lengths,
    notes,
    one_line,
    shortened,
    warnings,
)

Row = Mapping[str, Any]

FURTHER = (
    "accuracy_official", "kappa_official", "accuracy_strict", "kappa_strict", "overlap_f1", "official_exact_f1",
    "official_partial_f1", "answer_rate", "entities_per_answer",
)  # fmt: skip
FOOTNOTE = """\
Scores: accuracy for choices, exact F1 for entities (mean over rows). Intervals are 95 %: Wilson for accuracy, \
bootstrap over documents for F1 and κ. **Bold**: the whole interval is above chance. Free answers are read by the \
benchmark's rule (first letter A to F), or by their last line for a model tuned to say text, then letter. \
Entities found in the cleaned text that the model sees are put back into the passage's own spelling before they \
are compared. "constrained": \
the likeliest legal answer, or spans of the passage only; "likelihood": the option text with the highest mean \
log-probability per token. These modes are different measurements and not to be mixed."""
ROTATED = (
    '"other orders": every choice asked again with its options in another order; "same answer": the share of '
    "questions whose answer stays the same in every order."
)
CLASS_ROWS = 100  # a longer table of classes is left to report.html


def markdown(numbers: Row) -> str:
    """The report: what changes the meaning of the scores, the scores, notes, hard cases, leakage, other orders of
    options, examinations, tags, classes, further figures, lengths; at the end published scores and sample answers."""
    parts = [
        f"# Evaluation of {numbers['model']}\n",
        *(f"**{line}.**\n" for line in warnings(numbers)),
        f"{asked(numbers)}.\n",
        _scores(numbers),
        _notes(numbers),
        _groups("Hard cases", "case", numbers["cases"]),
        _leakage(numbers),
        _rotation(numbers["scores"]),
        _exams(numbers),
        _groups("By tag", "tag", numbers["tags"]),
        _classes(numbers.get("classes", [])),
        _further(numbers["scores"]),
        _lengths(numbers),
        boards(numbers.get("boards", [])),
        _samples(numbers["samples"]),
    ]
    return "\n".join(part for part in parts if part)


def boards(found: Sequence[Row]) -> str:
    """Ours among published scores, one table a benchmark that has such (N3-3)."""
    found = [one for one in found if has_published(one)]
    if not found:
        return ""
    note = "Ours are **bold**, with 95 % intervals; the others are as published. Numbers in the last column: see below."
    return "\n".join(["## Among published scores\n", note + "\n", *map(board, found)])


def _scores(numbers: Row) -> str:
    rows, lost = numbers["scores"], shortened(numbers)
    known = baselines(rows)
    header = ["task", "mode", "n", "score", "95 %", "chance", *(label for _, label in known), "κ (95 %)"]
    header += ["shortened prompts"] if lost else []
    cells = []
    for row in rows:
        more = [str(lost.get(row["task"], 0))] if lost else []
        cells.append([*_score_cells(row, known, [row["task"], row["mode"]]), _kappa(row), *more])
    return "\n".join(["## Scores\n", table(header, cells), FOOTNOTE + "\n"])


def _rotation(rows: Sequence[Row]) -> str:
    cells = []
    for row in rows:
        if turned := row.get("rotation"):
            figures = [number(value) for value in (row["score"], *map(turned.get, ("mean", "lowest", "same_answer")))]
            cells.append([row["task"], row["mode"], str(turned.get("orders", "")), *figures])
    if not cells:
        return ""
    header = ["task", "mode", "orders", "as printed", "other orders: mean", "lowest", "same answer"]
    return f"## Options in other orders\n\n{ROTATED}\n\n" + table(header, cells)


def _groups(title: str, column: str, rows: Sequence[Row]) -> str:
    if not rows:
        return ""
    known = baselines(rows)
    header = ["task", column, "mode", "n", "score", "95 %", "chance", *(label for _, label in known)]
    cells = [_score_cells(row, known, [row["task"], row["group"], row["mode"]]) for row in rows]
    return f"## {title}\n\n" + table(header, cells)


def _score_cells(row: Row, known: Sequence[tuple[str, str]], first: list[str]) -> list[str]:
    score = f"**{number(row['score'])}**" if is_sure(row) else number(row["score"])
    trivial = [number(row["baselines"].get(name)) for name, _ in known]
    return [*first, str(row["n"]), score, interval(row["interval"]), number(row["chance"]), *trivial]


def _kappa(row: Row) -> str:
    value = row["also"].get("kappa")
    return "" if value is None else f"{number(value)} {interval(row['kappa_interval'])}"


def _leakage(numbers: Row) -> str:
    title = f"## Leakage\n\nSource: {numbers['leakage_source']}.\n"
    rows = leaks(numbers)
    if not rows:
        return title
    header = ["task", "source", "mode", "questions", "exact", "near", "too short", "test passages", "leaked", "share"]
    header += ["score on seen ones", "on the others"]
    counts = ("questions", "exact", "near", "too_short", "passages", "passages_leaked")
    cells = [
        [row["task"], row["source"], row["mode"], *(text(row[name]) for name in counts),
         "-" if row["share"] is None else f"{row['share']:.0%}", _part(row["leaked"]), _part(row["clean"])]
        for row in rows
    ]  # fmt: skip
    note = "Exact, near and too short (to tell) count questions. Intervals are Wilson's; n: questions.\n"
    return "\n".join([title, table(header, cells), note])


def _part(part: Row) -> str:
    if part["score"] is None:
        return "-" if part["n"] is None else f"- (n {part['n']})"
    bounds = f" {interval(part['interval'])}" if part["interval"] else ""
    return f"{number(part['score'])}{bounds} (n {part['n']})"


def _exams(numbers: Row) -> str:
    rows = exams(numbers)
    if not rows:
        return ""
    header = [
        "examination", "mode", "points", "95 %", "of", "passes", "chance", "tolerant reading", "text only",
        "forbidden choices",
    ]  # fmt: skip
    cells = []
    for row in rows:
        also = row["also"]
        text_only = f"{also['points_text_only']} of {also['points_text_only_total']}"
        points = [str(also["points"]), interval(also.get("points_interval"), ".0f"), str(also["points_total"])]
        points += [row["verdict"], f"{also['points_chance']:.1f}"]
        cells.append(
            [row["task"], row["mode"], *points, str(also["points_tolerant"]), text_only, str(also["forbidden_chosen"])]
        )
    note = "The pass line is at about 75 %; decided on a whole examination whose whole interval is beyond it."
    return f"## Examinations\n\n{note}\n\n" + table(header, cells)


def _further(rows: Sequence[Row]) -> str:
    cells = [
        [row["task"], row["mode"], *(number(row["also"].get(name)) for name in FURTHER)]
        for row in rows
        if "points" not in row["also"]
    ]
    if not cells:
        return ""
    note = (
        "\n`official_*` are the benchmark's own rules on the answer as it was said. `official_partial_f1` is no "
        "proportion and passes 1; `overlap_f1` is what its name promises.\n"
    )
    return "## Further figures\n\n" + table(["task", "mode", *FURTHER], cells) + note


def _classes(rows: Sequence[Row]) -> str:
    if not rows:
        return ""
    if len(rows) > CLASS_ROWS:
        return f"## By class\n\n{len(rows)} rows, in scores.json and report.html.\n"
    header = ["task", "mode", "class", "gold", "given", "precision", "recall", "F1"]
    cells = [
        [row["task"], row["mode"], row["label"], str(row["gold"]), str(row["given"]),
         *(number(row[name]) for name in ("precision", "recall", "f1"))]
        for row in rows
    ]  # fmt: skip
    return "## By class\n\n" + table(header, cells)


def _lengths(numbers: Row) -> str:
    rows = [[task, *("" if mean is None else f"{mean:.1f}" for mean in means)] for task, *means in lengths(numbers)]
    return "## Length of free answers\n\n" + table(["task", "mean tokens", "mean characters"], rows) if rows else ""


def _notes(numbers: Row) -> str:
    found = notes(numbers)
    return "## Notes\n\n" + "\n".join(f"- {note}" for note in found) + "\n" if found else ""


def _samples(rows: Sequence[Row]) -> str:
    if not rows:
        return ""
    parts = ["## Sample answers\n"]
    for row in rows:
        parts.append(f"### {row['id']} ({row['mode']}), value {number(row['value'])}\n")
        parts.append(
            block(row["prompt"])
            + f"\nGold: {inline(', '.join(row['gold']))}\n\nAnswer:\n\n"
            + block(one_line(row["answer"]))
        )
    return "\n".join(parts)
