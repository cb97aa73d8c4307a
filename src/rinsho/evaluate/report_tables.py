"""Markdown of tables, boards and text from outside, for the reports of one evaluation and of several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rinsho import score_page

Row = Mapping[str, Any]


def board(found: Mapping[str, Any]) -> str:
    """A board of `rinsho.evaluate.boards`: title, table, those on other questions apart, remarks and sources."""
    together = [row for row in found["rows"] if not row["apart"]]
    apart = [row for row in found["rows"] if row["apart"]]
    parts = [f"### {found['title']}\n", board_table(found, together)]
    if apart:
        parts += ["Not comparable with these:\n" if together else "Not comparable with published scores:\n"]
        parts += [board_table(found, apart)]
    if found["note"]:
        parts.append(found["note"] + "\n")
    if found["marks"]:
        parts.append("\n".join(f"{place}. {mark}" for place, mark in enumerate(found["marks"], 1)) + "\n")
    return "\n".join(part for part in parts if part)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; bars and line breaks inside a cell cannot end it."""
    lines = [header, ["---"] * len(header), *rows]
    return "".join("| " + " | ".join(map(_cell, line)) + " |\n" for line in lines)


def block(text: str) -> str:
    """Text from outside as a block of code."""
    return "".join(f"    {line}\n" for line in score_page.writable(text).splitlines() or [""])


def inline(text: str) -> str:
    """Text from outside inside a line."""
    return "`" + score_page.writable(text).replace("`", "'").replace("\n", " ") + "`"


def number(value: float | None) -> str:
    """Three decimals; nothing for None."""
    return "" if value is None else f"{value:.3f}"


def interval(pair: Sequence[float] | None, form: str = ".3f") -> str:
    """An interval in brackets; a dash for None, and where it has no width only that."""
    if pair is None:
        return "-"
    return f"[{pair[0]:{form}}, {pair[1]:{form}}]" if score_page.has_spread(pair) else score_page.NO_SPREAD


def text(value: object) -> str:
    """Anything as a cell; nothing for None."""
    return "" if value is None else str(value)


def board_table(found: Row, rows: Sequence[Row], marks: bool = True) -> str:
    """Rows of a board as a table; without `marks` the reason why a row stands apart is told beside how it was asked."""
    # A column that nobody here has (our own figures when none of ours is among them) would only widen the table.
    places = [place for place in range(len(found["columns"])) if any(row["cells"][place] for row in rows)]
    cells = []
    for row in rows:
        name = row["name"] + (" †" if row["leaked"] else "")
        how = [] if row["how"] in score_page.BESIDE else [row["how"]]
        told = [_board_cell(row["cells"][place], row["intervals"][place], found["percent"]) for place in places]
        if marks:
            last = [", ".join(map(str, row["marks"]))]
        else:
            how, last = how + ([f"({row['apart']}: not comparable)"] if row["apart"] else []), []
        cells.append([f"**{name}**" if row["ours"] else name, " ".join(how), *told, *last])
    names = score_page.counted(found)
    return table(["model", "how", *(names[place] for place in places), *(["see"] if marks else [])], cells)


def _board_cell(cell: str, bounds: Sequence[float] | None, percent: bool) -> str:
    if not bounds:
        return cell
    shown = score_page.interval(bounds, percent, ".2f")
    return f"{cell} {shown}" if shown == score_page.NO_SPREAD else f"{cell} [{shown}]"


def _cell(text: str) -> str:
    return " ".join(score_page.writable(text).split()).replace("|", "\\|")
