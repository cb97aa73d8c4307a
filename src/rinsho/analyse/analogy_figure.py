"""The figure of a test list's accuracy: each relation with its interval, and simpler rules. Needs matplotlib."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rinsho.analyse.curve_figures import figure_rem, save
from rinsho.fonts import fonts
from rinsho.score_figures import ACCENT, INK, SOFT, WARM, Key, legend, panels

NAME = "relations"
ROOM = 1.25  # of the largest mark, up to where the axis goes: small models have theirs at the left of 0 to 1
APART = 0.24  # of a row's height, that marks at one place do not hide each other
LEAST = 0.02  # end of the axis where nothing is hit
REAL = {"color": ACCENT, "marker": "o", "markersize": 5}
ALONE = {"color": WARM, "marker": "D", "markersize": 5.5, "mfc": "none", "linestyle": ""}
PERMUTED = {"color": SOFT, "marker": "x", "markersize": 5, "linestyle": ""}


def draw(summaries: Sequence[Mapping[str, Any]], folder: Path) -> tuple[str, float, list[str]]:
    """The figure as an `<svg>` element, the width it needs on a page (rem) and the names of its files.

    All are empty where no row can be answered.
    """
    rows = [row for row in summaries if row["answerable"]]
    if not rows:
        return "", 0.0, []
    with fonts():
        figure, (axes,) = panels(8, 1.6 + 0.3 * len(rows), 1)
        end = _end(rows)
        beyond = False
        for place, row in enumerate(rows):
            low, high = row["interval_top5"]
            axes.plot([low, min(high, end)], [place, place], color=ACCENT, linewidth=1.5, solid_capstyle="butt")
            if high > end:
                axes.plot(end, place, ">", color=ACCENT, markersize=5, clip_on=False)
                beyond = True
        places = range(len(rows))
        axes.plot([row["top5"] for row in rows], places, **REAL, linestyle="")
        axes.plot([row["alone_top5"] for row in rows], [place + APART for place in places], **ALONE)
        keys: list[Key] = [
            ("b - a + c, with 95 % interval" + (" (>: goes on)" if beyond else ""), {**REAL, "linewidth": 1.5}),
            ("c alone", ALONE),
        ]
        if rows[0]["permuted_top5"] is not None:
            axes.plot([row["permuted_top5"] for row in rows], [place - APART for place in places], **PERMUTED)
            keys.append(("permuted vocabulary, mean", PERMUTED))
        names = [f"{row['relation'] or '-'} ({row['answerable']})" for row in rows]
        axes.set_yticks(list(places), names, fontsize=8, parse_math=False)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlim(-0.02 * end, end)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:.3g}")
        axes.set_xlabel("share of rows with an accepted answer among the nearest five", fontsize=8, color=INK)
        axes.set_ylabel("relation (rows that can be answered)", fontsize=8, color=INK)
        legend(figure, keys)
        element, files = save(figure, folder, NAME)
    return element, figure_rem(figure), files


def _end(rows: Sequence[Mapping[str, Any]]) -> float:
    """Of the axis: above every mark and the interval of all rows; those of few rows may go on."""
    marks: list[float] = [row[name] or 0.0 for row in rows for name in ("top5", "alone_top5", "permuted_top5")]
    return min(1.02, max(LEAST, ROOM * max(marks), 1.05 * float(rows[0]["interval_top5"][1])))
