"""Names and figures from someone's data as cells of a Markdown table."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

NOT_RECORDED = "not recorded"
MOST_CHARACTERS = 160  # of a name or licence from someone's data
LISTED = 12  # names in a sentence


def cell(value: object) -> str:
    r"""A name from someone's data as one line of Markdown that is only text.

    >>> print(cell("a|b\n<script>"))
    a\|b &lt;script&gt;
    """
    line = " ".join(str(value).split())
    if line.startswith("/"):  # a source may be called after a path: the card names none
        line = line.rstrip("/").rsplit("/", 1)[-1]
    if len(line) > MOST_CHARACTERS:
        line = line[: MOST_CHARACTERS - 1] + "…"
    line = html.escape(line, quote=False)
    for mark in "\\|`[]*":
        line = line.replace(mark, "\\" + mark)
    return line


def listed(names: Sequence[str]) -> str:
    """Names in a sentence, each once; the first ones of many."""
    names = list(dict.fromkeys(cell(name) for name in names))
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more


def plain(value: object) -> bool:
    """Whether a value is a figure or a word."""
    return isinstance(value, (int, float, str))


def figure(value: Any) -> str:
    """A figure or word as a cell."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else cell(value)
