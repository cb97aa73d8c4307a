"""Characters per token as a picture: one bar a tokenizer in each text set, its 95 % interval across the end.

SVG by hand, as for the corpus report: no extra is needed, and inside the page it takes the page's colours.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Mapping
from html import escape
from typing import Any

WIDTH = 760
LABEL = 190  # pixels for names
VALUE = 150  # pixels for the numbers behind the bars
LABEL_COLUMNS = 27  # a kanji takes two
ROW, HEAD, GAP = 24, 30, 14
HUES = 6  # colours of tokenizers, c0 to c5; later ones take them again

_STYLE = """<style>
svg { background: #fff; font: 12px system-ui, "Noto Sans CJK JP", "Hiragino Sans", "Yu Gothic", sans-serif; }
.name, .value, .head { fill: #222; } .name { text-anchor: end; } .head { font-weight: 600; }
.soft, .tick { fill: #6b7075; }
.tick { font-size: 11px; text-anchor: middle; } .grid { stroke: #e3e3e0; } .whisker { stroke: #222; stroke-width: 1.5; }
.c0 { fill: #1f6f8b; } .c1 { fill: #d9894a; } .c2 { fill: #7a9a4e; } .c3 { fill: #9b6fa8; } .c4 { fill: #b8a03a; }
.c5 { fill: #7d8790; }
@media (prefers-color-scheme: dark) {
svg { background: #17191b; } .name, .value, .head { fill: #e4e4e0; } .soft, .tick { fill: #9aa0a6; }
.grid { stroke: #33373a; } .whisker { stroke: #e4e4e0; } .c0 { fill: #58a9c6; }
}
</style>"""


def characters_per_token(numbers: Mapping[str, Any]) -> str:
    """The picture as an SVG element without colours of its own: the page or `standalone` gives its classes some."""
    labels = list(numbers["tokenizers"])
    fits = numbers["fit"]
    ends = [_end(row) for rows in fits.values() for row in rows.values()]
    step = nice(max(ends, default=1.0))
    most = step * max(1, math.ceil(max(ends, default=1.0) / step - 1e-9))
    scale = (WIDTH - LABEL - VALUE) / most
    top, parts = 0, []
    for name, rows in fits.items():
        text = numbers["texts"][name]
        amount = f"{text['documents']:,} documents, {text['bytes'] / 1e6:.1f} MB"
        parts.append(
            f'<text class="head" x="{LABEL}" y="{top + 18}">{escape(clipped(name, 40))}'
            f'<tspan class="soft" font-weight="400" dx="10">{amount}</tspan></text>'
        )
        top += HEAD
        for place, label in enumerate(labels):
            parts += _bar(label, rows[label], place, top, scale)
            top += ROW
        top += GAP
    count = round(most / step)
    grid = [
        f'<line class="grid" x1="{LABEL + tick * step * scale:.1f}" x2="{LABEL + tick * step * scale:.1f}" '
        f'y1="{HEAD - 4}" y2="{top - 8}"/>'
        f'<text class="tick" x="{LABEL + tick * step * scale:.1f}" y="{top + 8}">{tick * step:g}</text>'
        for tick in range(count + 1)
    ]
    middle = LABEL + most * scale / 2
    axis = f'<text class="tick" x="{middle:.1f}" y="{top + 26}">characters per token</text>'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top + 34}" role="img" '
        'aria-label="characters per token of each tokenizer in each text set">\n'
        + "\n".join([*grid, *parts, axis])
        + "\n</svg>"
    )


def standalone(svg: str) -> str:
    """The picture as a file of its own, with colours for light and dark."""
    opening, closing, rest = svg.partition(">\n")
    return f"{opening}{closing}{_STYLE}\n{rest}\n"


def clipped(name: str, columns: int = LABEL_COLUMNS) -> str:
    """A name cut at its beginning, where paths differ least, to so many columns; a kanji takes two.

    >>> clipped("a/very/long/path/of/a/tokenizer", 16), clipped("患者", 4)
    ('…/of/a/tokenizer', '患者')
    """
    shown = "".join(char if char.isprintable() else "\ufffd" for char in name)
    width = 0
    for place in range(len(shown) - 1, -1, -1):
        width += 2 if unicodedata.east_asian_width(shown[place]) in "WF" else 1
        if width > columns:
            return "…" + shown[place + 2 :]
    return shown


def nice(most: float) -> float:
    """A round distance between ticks that gives two to five of them.

    >>> [nice(most) for most in (0.8, 1.7, 2.4, 3.9, 12.0)]
    [0.2, 0.5, 1.0, 1.0, 5.0]
    """
    power = 10.0 ** math.floor(math.log10(max(most, 1e-9) / 2))
    return next(step for step in (power, 2 * power, 5 * power, 10 * power) if most / step <= 5)


def _end(row: Mapping[str, Any]) -> float:
    interval = row["characters_per_token_interval"]
    return float(interval[1] if interval else row["characters_per_token"] or 0.0)


def _bar(label: str, row: Mapping[str, Any], place: int, top: int, scale: float) -> list[str]:
    value, interval = row["characters_per_token"] or 0.0, row["characters_per_token_interval"]
    middle, end = top + 8, LABEL + value * scale
    told = f"{value:.3f}" + (f" [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else "")
    title = escape(f"{label}: {told} characters per token")
    parts = [
        f'<text class="name" x="{LABEL - 10}" y="{middle + 4}">{escape(clipped(label))}</text>',
        f'<rect class="c{place % HUES}" x="{LABEL}" y="{top}" width="{value * scale:.1f}" height="16" rx="2">'
        f"<title>{title}</title></rect>",
    ]
    right = end
    if interval:
        low, high = (LABEL + bound * scale for bound in interval)
        right = max(end, high)
        parts.append(
            f'<path class="whisker" fill="none" d="M{low:.1f} {middle}H{high:.1f}M{low:.1f} {middle - 4}v8'
            f'M{high:.1f} {middle - 4}v8"/>'
        )
    parts.append(f'<text class="value" x="{right + 8:.1f}" y="{middle + 4}">{told}</text>')
    return parts
