"""The report's own picture as inline SVG: scores with their intervals (curves come from `rinsho.curves`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rinsho.curves import svg

INK, FAINT, ACCENT, WARM = "#222222", "#9aa0a6", "#1f6f8b", "#c05621"


def scores(rows: Sequence[Mapping[str, Any]], title: str) -> str:
    """One line a score: the dot, its 95 % interval, the chance level as a tick and the best baseline as a cross."""
    if not rows:
        return ""
    figure, axes = _figure(6.4, 0.6 + 0.28 * len(rows))
    for place, row in enumerate(reversed(rows)):
        low, high = row["interval"] or (row["score"], row["score"])
        axes.plot([low, high], [place, place], color=ACCENT, linewidth=2, solid_capstyle="butt")
        axes.plot(row["score"], place, "o", color=ACCENT, markersize=5)
        axes.plot(row["chance"], place, "|", color=WARM, markersize=11, markeredgewidth=2)
        best = max(row["baselines"].values(), default=None)
        if best is not None:
            axes.plot(best, place, "x", color=FAINT, markersize=6)
    axes.set_yticks(range(len(rows)), [row["label"] for row in reversed(rows)], fontsize=8)
    axes.set_xlim(0, 1)
    axes.set_title(title, fontsize=9, loc="left")
    axes.set_xlabel("dot: score, line: 95 % interval, bar: chance, cross: best trivial baseline", fontsize=7)
    return svg(figure)


def _figure(width: float, height: float) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8, colors=INK)
    axes.grid(axis="x", color="#e6e6e6", linewidth=0.6)
    return figure, axes
