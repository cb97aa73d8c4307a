"""How the vocabulary of words grows with the text: the curve, Heaps' law, and what it says about larger corpora."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

Point = tuple[float, int]  # MB of text read, distinct words in it

WIDTH, HEIGHT = 720, 360
LEFT, RIGHT, TOP, BOTTOM = 70, 36, 28, 48
AHEAD_MB = (1e3, 1e4, 1e5)
FIT_FROM = 0.05  # the law holds for much text: points below this share of the whole are left out where others remain
# Peak memory of counting and training, by distinct word: 2.2 GiB for 4 million, of which the table takes 0.5 GiB.
BYTES_A_WORD = 580


def heaps(points: Sequence[Point]) -> tuple[float, float]:
    """(k, beta) of Heaps' law, words = k * MB ** beta, by least squares over the logarithms.

    Fewer than two usable points give the line through the last one with beta 0.

    >>> k, beta = heaps([(1.0, 1000), (4.0, 2000), (16.0, 4000)])
    >>> round(k, 6), round(beta, 6)
    (1000.0, 0.5)
    """
    usable = [(megabytes, words) for megabytes, words in points if megabytes > 0 and words > 0]
    late = [point for point in usable if point[0] >= FIT_FROM * usable[-1][0]]
    rows = [(math.log(megabytes), math.log(words)) for megabytes, words in (late if len(late) > 2 else usable)]
    if not rows:
        return 0.0, 0.0
    x, y = (sum(column) / len(rows) for column in zip(*rows, strict=True))
    spread = sum((row[0] - x) ** 2 for row in rows)
    beta = sum((row[0] - x) * (row[1] - y) for row in rows) / spread if spread else 0.0
    return math.exp(y - beta * x), beta


def ahead(points: Sequence[Point], sizes_mb: Sequence[float] = AHEAD_MB) -> list[tuple[float, int, float]]:
    """(MB, distinct words, MiB that training on all of them would take) for larger corpora by Heaps' law."""
    k, beta = heaps(points)
    rows = [(size, round(k * size**beta)) for size in sizes_mb]
    return [(size, words, round(words * BYTES_A_WORD / 2**20, 1)) for size, words in rows]


def growth_svg(points: Sequence[Point], sizes_mb: Sequence[float] = AHEAD_MB) -> str:
    """The curve with its Heaps line as an SVG picture, both axes logarithmic; an empty string without points.

    It needs no other file, and is readable on white and on black paper.
    """
    points = [point for point in points if point[0] > 0 and point[1] > 0]
    if not points:
        return ""
    k, beta = heaps(points)
    far = [size for size in sizes_mb if size > points[-1][0]]
    end = max([points[-1][0], *far])
    most = max([points[-1][1], k * end**beta])
    x = _Axis(points[0][0], end, LEFT, WIDTH - RIGHT)
    y = _Axis(min(points[0][1], k * points[0][0] ** beta), most, HEIGHT - BOTTOM, TOP)
    parts = [*_grid(x, y)]
    line = " ".join(f"{x.at(size):.1f},{y.at(k * size**beta):.1f}" for size in (points[0][0], end))
    parts.append(f'<polyline points="{line}" fill="none" stroke="#888" stroke-dasharray="5 4"/>')
    curve = " ".join(f"{x.at(size):.1f},{y.at(words):.1f}" for size, words in points)
    parts.append(f'<polyline points="{curve}" fill="none" stroke="#2a78d6" stroke-width="2"/>')
    for size, words in points:
        parts.append(_dot(x.at(size), y.at(words), 2.5, "#2a78d6", f"{size:,.1f} MB: {words:,} distinct words"))
    for size in far:
        words = k * size**beta
        parts.append(_dot(x.at(size), y.at(words), 4, "#888", f"{size:,.0f} MB: about {_short(words)} distinct words"))
        parts.append(_text(x.at(size) - 6, y.at(words) - 8, f"{_short(words)}", "end"))
    parts.append(_text(LEFT + 10, TOP + 14, f"dashed: {_short(k)} · MB^{beta:.2f} (Heaps' law)", "start"))
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, "text read", "middle"))
    parts.append(
        f'<text transform="translate(14 {(TOP + HEIGHT - BOTTOM) / 2:.0f}) rotate(-90)" text-anchor="middle">'
        "distinct words</text>"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        'role="img" aria-label="distinct words by amount of text" font-family="sans-serif" font-size="12" '
        'fill="#777">\n' + "\n".join(parts) + "\n</svg>\n"
    )


class _Axis:
    """A logarithmic axis from `low` to `high`, drawn between two pixels."""

    def __init__(self, low: float, high: float, first: float, last: float) -> None:
        self.low, self.high = math.log10(low), math.log10(max(high, low * 1.01))
        self.first, self.last = first, last

    def at(self, value: float) -> float:
        return self.first + (math.log10(value) - self.low) / (self.high - self.low) * (self.last - self.first)

    def ticks(self) -> Iterator[float]:
        """Powers of ten inside the axis; where there are fewer than two, their doubles and fivefold too."""
        powers = range(math.floor(self.low), math.ceil(self.high) + 1)
        inside = [p for p in powers if self.low <= p <= self.high]
        for power in powers:
            for times in (1,) if len(inside) > 1 else (1, 2, 5):
                value = times * 10.0**power
                if self.low <= math.log10(value) <= self.high:
                    yield value


def _grid(x: _Axis, y: _Axis) -> Iterator[str]:
    for value in y.ticks():
        at = y.at(value)
        yield f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}" stroke="#888" stroke-opacity="0.3"/>'
        yield _text(LEFT - 6, at + 4, _short(value), "end")
    for value in x.ticks():
        at = x.at(value)
        ends = f'x1="{at:.1f}" x2="{at:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"'
        yield f'<line {ends} stroke="#888" stroke-opacity="0.3"/>'
        yield _text(at, HEIGHT - BOTTOM + 16, f"{value / 1e3:g} GB" if value >= 1e3 else f"{value:g} MB", "middle")


def _dot(x: float, y: float, radius: float, colour: str, title: str) -> str:
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" fill="{colour}"><title>{title}</title></circle>'


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{text}</text>'


def _short(number: float) -> str:
    """A count in three digits.

    >>> [_short(number) for number in (7, 1234, 45_678, 2_345_678)]
    ['7', '1.23k', '45.7k', '2.35M']
    """
    for size, unit in ((1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return f"{number:.3g}"
