"""The pictures of attention: a map for each chosen layer, and shares over all layers. Needs matplotlib.

An inline figure takes its colours from the page, as those of `rinsho.score_figures`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rinsho.analyse.attention_measure import FORMS, Floats, MapKey, Measured
from rinsho.analyse.attention_rows import Row
from rinsho.files import atomic_file, write_atomic
from rinsho.fonts import fonts
from rinsho.score_figures import ACCENT, INK, LINE, SOFT, WARM, element, in_page_colors

IN_WORDS = {"stream": "without document bounds", "bounded": "with document bounds"}
LOWEST = 1e-4  # share that has the darkest colour of a logarithmic map; less has the same
CLOSEST = 0.035  # of an axis: labels of end marks that are nearer to the one before are left out


def draw_map(measured: Measured, layer: int, row: Row, scale: str, folder: Path) -> tuple[str, tuple[str, ...]]:
    """The maps of a layer, heads below each other and the two forms side by side: inline SVG, names of the files."""
    from matplotlib.colors import LogNorm, Normalize
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    heads = sorted({key.head for key in measured.maps if key.layer == layer})
    norm = LogNorm(LOWEST, 1) if scale == "log" else Normalize(0, 1)
    size, layout = (10.4, 0.75 + 4.75 * len(heads)), ConstrainedLayoutEngine(h_pad=0.1)  # inches around each line
    figure = Figure(figsize=size, layout=layout, facecolor="none")
    grid = figure.subplots(len(heads), 2, squeeze=False)
    images = []
    with fonts():
        for line, head in zip(grid, heads, strict=True):
            for axes, form in zip(line, FORMS, strict=True):
                values = measured.maps[MapKey(form, layer, head)]
                images.append(_map(axes, values, row, norm))
                which = f"head {head}" if head else "mean of all heads"
                axes.set_title(f"layer {layer}, {which}, {IN_WORDS[form]}", fontsize=9, color=INK, pad=6)
        bar = figure.colorbar(images[0], ax=grid, shrink=min(1.0, 0.8 / len(heads) + 0.2), aspect=34, pad=0.015)
        bar.set_label(
            "share of a query's attention" + (" (blank: exactly 0)" if scale == "log" else ""), fontsize=8, color=INK
        )
        bar.ax.tick_params(labelsize=8, colors=INK)
        bar.outline.set_edgecolor(SOFT)
        return _saved(figure, folder, f"attention_layer_{layer:02d}", images)


def draw_shares(measured: Measured, folder: Path) -> tuple[str, tuple[str, ...]]:
    """Shares over all layers: what crosses documents, and what goes to first tokens; inline SVG, names of the files."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(10.4, 3.9), layout="constrained", facecolor="none")
    left, right = figure.subplots(1, 2)
    stream, bounded = (measured.shares[form] for form in FORMS)
    with fonts():
        layers = np.arange(1, len(stream) + 1)
        _line(left, layers, stream[:, :, 0], WARM, "o", "without bounds: to other documents")
        _line(left, layers, stream[:, :, 2], SOFT, "^", "without bounds: across the borders of another row", ":")
        _line(left, layers, bounded[:, :, 0], ACCENT, "s", "with bounds: to other documents")
        left.axhline(measured.even, color=INK, linestyle="--", linewidth=1, label="even attention to all tokens before")
        left.set_title("share of attention that crosses documents", fontsize=9, loc="left", color=INK)
        _line(right, layers, stream[:, :, 3], WARM, "o", "without bounds: first token of the row")
        _line(right, layers, stream[:, :, 4], SOFT, "^", "without bounds: first token of its own document", ":")
        _line(right, layers, bounded[:, :, 4], ACCENT, "s", "with bounds: first token of its own document")
        right.set_title("share of attention on first tokens (sinks)", fontsize=9, loc="left", color=INK)
        for axes in (left, right):
            axes.set_facecolor("none")
            axes.set_xlabel("layer", fontsize=8, color=INK)
            axes.set_ylabel("share of a query's attention", fontsize=8, color=INK)
            axes.set_ylim(-0.03, 1.03)
            axes.set_xlim(0.6, len(stream) + 0.4)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=12, min_n_ticks=1))
            axes.spines[["top", "right"]].set_visible(False)
            axes.spines[["left", "bottom"]].set_color(SOFT)
            axes.tick_params(labelsize=8, colors=INK)
            axes.grid(color=LINE, linewidth=0.6)
            axes.set_axisbelow(True)
            axes.legend(
                fontsize=7.5,
                frameon=False,
                labelcolor=INK,
                loc="upper left",
                bbox_to_anchor=(0, -0.17),
                borderaxespad=0,
            )
        return _saved(figure, folder, "attention_shares", [])


def _map(axes: Any, values: Floats, row: Row, norm: Any) -> Any:
    """One map; ticks at the left and at the top are end marks, those at the bottom positions."""
    size = len(row.ids)
    drawn = np.ma.masked_equal(values, 0)
    image = axes.imshow(drawn, norm=norm, cmap="viridis", extent=(0, size, size, 0), aspect="equal")
    places = [int(place) for place in row.ends]
    shown = _spaced(places, size)
    axes.set_facecolor("none")
    axes.set_yticks([place + 0.5 for place in places], [str(place) if place in shown else "" for place in places])
    axes.set_xlabel("key: position in the row", fontsize=8, color=INK)
    axes.set_ylabel("query: positions of <|end_of_text|>", fontsize=8, color=INK, parse_math=False)
    axes.spines[:].set_color(SOFT)
    axes.tick_params(labelsize=7.5, colors=INK)
    top = axes.secondary_xaxis("top")
    top.set_xticks(
        [place + 0.5 for place in places],
        [f"{number + 1}" if place in shown else "" for number, place in enumerate(places)],
    )
    top.set_xlabel("<|end_of_text|> of document", fontsize=7.5, color=INK, parse_math=False, labelpad=3)
    top.tick_params(labelsize=7.5, colors=INK)
    top.spines[:].set_color(SOFT)
    return image


def _spaced(places: Sequence[int], size: int) -> set[int]:
    """Those end marks whose labels do not touch the one before."""
    shown: list[int] = []
    for place in places:
        if not shown or place - shown[-1] >= CLOSEST * size:
            shown.append(place)
    return set(shown)


def _line(  # noqa: PLR0917
    axes: Any, layers: Any, values: Floats, color: str, marker: str, label: str, style: str = "-"
) -> None:
    """The mean over heads with its marks, and a band from the lowest to the highest head."""
    axes.fill_between(layers, values.min(1), values.max(1), color=color, alpha=0.15, linewidth=0)
    if len(layers) == 1:  # a band of one layer would not be seen
        axes.vlines(layers, values.min(1), values.max(1), color=color, linewidth=1)
    axes.plot(
        layers, values.mean(1), color=color, marker=marker, markersize=4, linewidth=1.4, linestyle=style, label=label
    )


def _saved(figure: Any, folder: Path, name: str, images: Sequence[Any]) -> tuple[str, tuple[str, ...]]:
    """Writes PNG and SVG; gives the SVG with the page's colours, and the names."""
    with atomic_file(folder / f"{name}.png") as file:
        figure.savefig(file, format="png", dpi=150, facecolor="white", metadata={"Software": None})
    for image in images:
        image.set_interpolation("none")  # an SVG holds the cells themselves instead of a picture of them
    text = element(figure)
    write_atomic(folder / f"{name}.svg", text)
    return in_page_colors(text), (f"{name}.png", f"{name}.svg")
