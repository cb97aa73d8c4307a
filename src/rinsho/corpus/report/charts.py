"""The two pictures of the corpus report as inline SVG: shares of the sources, and lengths.

Written by hand instead of by matplotlib: a corpus run needs no extra for its report, and the colours are those of
the page, in dark mode and in print too (`page.html.j2` defines the classes).

Source: SPEC N2.1-7 (Figure 1 of the report; bars, since slices of a few per cent are not readable in a pie).
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from html import escape

from rinsho.corpus.report.view import SourceRow, percent

WIDTH = 720
BARS = 12  # sources with a bar of their own
LABEL = 200  # pixels for names
LABEL_COLUMNS = 28  # a kanji takes two
ROW = 26


def shares(rows: Sequence[SourceRow]) -> str:
    """One bar a source over the whole width = all text, a second one for tokens; the small sources are one bar."""
    bars = [(row.name, row.share_of_bytes, row.share_of_tokens) for row in rows if row.bytes_kept or row.tokens]
    if not bars:
        return ""
    if len(bars) > BARS:
        rest = bars[BARS - 1 :]
        tokens = [share for *_, share in rest if share is not None]
        joined = sum(share for _, share, _ in rest), sum(tokens) if tokens else None
        bars = [*bars[: BARS - 1], ("all others", *joined)]
    both = any(tokens is not None for *_, tokens in bars)
    track = WIDTH - LABEL - 70
    parts = []
    for place, (name, of_bytes, of_tokens) in enumerate(bars):
        top = place * ROW + 4
        parts.append(f'<text class="label" x="{LABEL - 10}" y="{top + 13}">{escape(_clipped(name))}</text>')
        values = [("kept", of_bytes, "of the bytes")]
        if both and of_tokens is not None:
            values.append(("tokens", of_tokens, "of the tokens"))
        height = 16 if len(values) == 1 else 8
        for line, (kind, share, what) in enumerate(values):
            y, title = top + line * height, escape(f"{name}: {percent(share)} {what}")
            parts.append(f'<rect class="track" x="{LABEL}" y="{y}" width="{track}" height="{height - 1}"/>')
            parts.append(
                f'<rect class="{kind}" x="{LABEL}" y="{y}" width="{_width(share, track)}" height="{height - 1}">'
                f"<title>{title}</title></rect>"
            )
        parts.append(f'<text class="value" x="{LABEL + track + 8}" y="{top + 13}">{escape(percent(of_bytes))}</text>')
    return _svg(len(bars) * ROW + 4, parts, "share of each source")


def histogram(rows: Sequence[tuple[int, int | None, int, int]]) -> str:
    """Documents by length in characters: pale what was read, coloured what is kept."""
    if not rows:
        return ""
    left, bottom, top, height = 64, 190, 12, 230
    most = max(max(read, kept) for *_, read, kept in rows)
    step = _nice(most)
    scale = (bottom - top) / (step * math.ceil(most / step))
    column = min(90.0, (WIDTH - left - 10) / len(rows))
    parts = []
    for tick in range(0, step * math.ceil(most / step) + 1, step):
        y = bottom - tick * scale
        parts.append(f'<line class="grid" x1="{left}" x2="{left + column * len(rows):.1f}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick end" x="{left - 6}" y="{y + 4:.1f}">{tick:,}</text>')
    for place, (start, end, read, kept) in enumerate(rows):
        x = left + place * column
        title = escape(f"{_range(start, end)} characters: {read:,} read, {kept:,} kept")
        for kind, count, margin in (("read", read, 0.08), ("kept", kept, 0.24)):
            y, wide = bottom - count * scale, column * (1 - 2 * margin)
            parts.append(
                f'<rect class="{kind}" x="{x + column * margin:.1f}" y="{y:.1f}" width="{wide:.1f}" '
                f'height="{bottom - y:.1f}"><title>{title}</title></rect>'
            )
        parts.append(f'<text class="tick" x="{x:.1f}" y="{bottom + 16}">{_short(start)}</text>')
    last = "more" if rows[-1][1] is None else _short(rows[-1][1])
    parts.append(f'<text class="tick" x="{left + column * len(rows):.1f}" y="{bottom + 16}">{last}</text>')
    parts.append(f'<text class="tick" x="{left + column * len(rows) / 2:.1f}" y="{bottom + 34}">characters</text>')
    return _svg(height, parts, "documents by length")


def _svg(height: int, parts: Sequence[str], title: str) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{title}">'
        + "\n".join(parts)
        + "</svg>"
    )


def _width(share: float, track: int) -> str:
    return f"{max(1.0, min(1.0, share) * track) if share > 0 else 0:.1f}"


def _clipped(name: str) -> str:
    columns = 0
    for place, character in enumerate(name):
        columns += 2 if unicodedata.east_asian_width(character) in "WF" else 1
        if columns > LABEL_COLUMNS:
            return name[:place] + "…"
    return name


def _nice(most: int) -> int:
    """A round distance between ticks that gives two to five of them.

    >>> [_nice(most) for most in (0, 3, 84, 12_345)]
    [1, 1, 20, 5000]
    """
    if most <= 4:
        return 1
    power: int = 10 ** int(math.log10(most / 2))
    return next(step for step in (power, 2 * power, 5 * power, 10 * power) if most / step <= 5)


def _short(number: int) -> str:
    return f"{number // 1_000_000}M" if number >= 1_000_000 else f"{number // 1000}k" if number >= 1000 else str(number)


def _range(start: int, end: int | None) -> str:
    return f"{start:,} and more" if end is None else f"{start:,} to {end - 1:,}"
