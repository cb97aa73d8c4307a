"""The report's pictures as inline SVG: curves of the loss, and scores with their intervals."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

INK, FAINT, ACCENT, WARM = "#222222", "#9aa0a6", "#1f6f8b", "#c05621"


def loss_curve(rows: Sequence[Mapping[str, Any]], title: str) -> str:
    """Loss over seen tokens (NA-4), the held-out loss as dots; an empty string where there is nothing to draw."""
    points = [
        (row["seen_tokens"], row["loss"]) for row in rows if row.get("loss") is not None and row.get("seen_tokens")
    ]
    held_out = [
        (row["seen_tokens"], row["validation_loss"])
        for row in rows
        if row.get("validation_loss") is not None and row.get("seen_tokens")
    ]
    if not points:
        return ""
    figure, axes = _figure(5.2, 2.9)
    axes.plot(*zip(*points, strict=True), color=ACCENT, linewidth=1.2, label="training")
    if held_out:
        axes.plot(*zip(*held_out, strict=True), "o-", color=WARM, linewidth=0.8, markersize=3, label="held out")
        axes.legend(frameon=False, fontsize=8)
    axes.set_xlabel("seen tokens", fontsize=8)
    axes.set_ylabel("loss (nats a token)", fontsize=8)
    axes.set_title(title, fontsize=9, loc="left")
    return _svg(figure)


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
    return _svg(figure)


def _figure(width: float, height: float) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8, colors=INK)
    axes.grid(axis="x", color="#e6e6e6", linewidth=0.6)
    return figure, axes


def _svg(figure: Any) -> str:
    """The figure as an <svg> element with real text, the same bytes for the same numbers."""
    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "rinsho", "font.family": "sans-serif"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return re.sub(r"^.*?(?=<svg)", "", buffer.getvalue(), flags=re.DOTALL)
