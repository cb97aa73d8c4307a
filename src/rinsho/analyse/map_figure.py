"""A map of tokens as a picture, as a page to move about in, and as a table."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rinsho.analyse.embeddings import readable
from rinsho.analyse.part import write_csv
from rinsho.analyse.token_kinds import BYTE, FUNCTION, MORE_TERMS, OTHER, SPECIAL, SYMBOL, Kinds
from rinsho.curves import INK, svg
from rinsho.files import atomic_file, write_atomic
from rinsho.fonts import fonts, japanese_font
from rinsho.score_page import writable

DPI = 150
LABEL_LETTERS = 20
CANDIDATES = 80  # tokens of a kind that are tried as labels
GRID = 20_000  # steps of a coordinate on the page
JAPANESE = 0x2E80  # from here on characters need a font that not every machine has


class Look(NamedTuple):
    """How the tokens of a kind are drawn: mark (matplotlib's letter), colour on white, on black, labels."""

    mark: str
    light: str
    dark: str
    labels: int


# After Okabe and Ito, whose colours also readers with colour blindness tell apart; marks differ, too.
LOOKS = {
    SPECIAL: Look("*", "#111111", "#ffffff", 10),
    FUNCTION: Look("^", "#d55e00", "#ff8a4c", 16),
    MORE_TERMS: Look("X", "#7f3c8d", "#c792d8", 6),
    BYTE: Look("x", "#8a5a2b", "#c99a66", 4),
    SYMBOL: Look("+", "#8f8200", "#ded14b", 8),
    OTHER: Look(".", "#c3c8cd", "#51585f", 18),
}
TERM_LOOKS = (
    Look("o", "#0072b2", "#4aa8e0", 14), Look("s", "#009e73", "#2ecc9a", 12), Look("D", "#cc79a7", "#e3a1c6", 12),
    Look("P", "#e69f00", "#f0b53c", 12), Look("v", "#56b4e9", "#86d0f5", 12),
)  # fmt: skip


@dataclass(frozen=True)
class Map:
    """Tokens on a plane.

    Attributes:
        name: of its files: map_tsne, map_umap.
        title: of the projection.
        model: the model's name.
        ids: token ids, (points,).
        tokens: what they stand for, (points,).
        kinds: of all tokens of the model.
        plane: (points, 2) float32.
        central: places of the points, those first that are deepest among their kind.
    """

    name: str
    title: str
    model: str
    ids: NDArray[np.int64]
    tokens: Sequence[str]
    kinds: Kinds
    plane: NDArray[np.float32]
    central: NDArray[np.int64]

    def looks(self) -> list[Look]:
        """How each kind is drawn, in the order of `kinds.names`."""
        own = iter(TERM_LOOKS)
        return [LOOKS[name] if name in LOOKS else next(own) for name in self.kinds.names]


# ---------------------------------------------------------------------- numbers and page


def write_table(found: Map, folder: Path) -> str:
    """Writes id, token, kind and place of every point; returns the file's name."""
    rows = (
        [id_, readable(token), found.kinds.names[found.kinds.of[id_]], f"{x:.4f}", f"{y:.4f}"]
        for id_, token, (x, y) in zip(found.ids, found.tokens, found.plane, strict=True)
    )
    return write_csv(folder / f"{found.name}.csv", ("id", "token", "kind", "x", "y"), rows)


def write_page(found: Map, folder: Path) -> str:
    """Writes the map as one page that opens offline; returns the file's name."""
    import jinja2

    low = found.plane.min(0)
    steps = GRID / max(float((found.plane.max(0) - low).max()), 1e-9)
    at = np.rint((found.plane - low) * steps).astype(int)
    labels, counts = found.kinds.of[found.ids], found.kinds.counts()
    data = {
        "kinds": [
            {"name": name, "mark": look.mark, "light": look.light, "dark": look.dark, "back": name == OTHER}
            for name, look in zip(counts, found.looks(), strict=True)
        ],
        "ids": found.ids.tolist(),
        "tokens": [readable(token) for token in found.tokens],
        "kind": labels.tolist(),
        "x": at[:, 0].tolist(),
        "y": (at[:, 1].max() - at[:, 1]).tolist(),  # as in the picture: upwards
    }
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    template = resources.files("rinsho.analyse").joinpath("map.html.j2").read_text(encoding="utf-8")
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    page = environment.from_string(template).render(title=found.title, model=found.model, data=text)
    write_atomic(folder / f"{found.name}.html", writable(page))
    return f"{found.name}.html"


# ---------------------------------------------------------------------- picture


def write_picture(found: Map, folder: Path) -> list[str]:
    """Writes the map as PNG and SVG, with labels as far as this machine's fonts have them; returns the files' names.

    Raises:
        ModuleNotFoundError: matplotlib (the extra `report`) is not installed.
    """
    from matplotlib.figure import Figure

    figure, drawable = Figure(figsize=(9.8, 7.6), dpi=DPI, facecolor="white"), _drawable()
    with fonts(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        axes = figure.add_axes((0.06, 0.06, 0.7, 0.885))
        _set_limits(axes, found.plane)
        _draw_points(axes, found, drawable)
        axes.set_xlabel(f"{found.title} 1 (no unit)", fontsize=8, color=INK)
        axes.set_ylabel(f"{found.title} 2 (no unit)", fontsize=8, color=INK)
        axes.tick_params(labelsize=7, colors=INK)
        axes.spines[["top", "right"]].set_visible(False)
        name = f": {found.model[:60]}" if drawable(found.model[:60]) else ""
        axes.set_title(
            f"{found.title} of {len(found.ids):,} token embeddings{name}",
            fontsize=10, loc="left", color=INK, parse_math=False,
        )  # fmt: skip
        _draw_legend(axes)
        _draw_labels(figure, axes, found, drawable)
        write_atomic(folder / f"{found.name}.svg", svg(figure) + "\n")
        with atomic_file(folder / f"{found.name}.png") as file:
            figure.savefig(file, format="png", metadata={"Software": None})
    return [f"{found.name}.png", f"{found.name}.svg"]


def _draw_legend(axes: Any) -> None:
    """Beside the map, all marks of one size, in the order of the page's legend."""
    handles, names = axes.get_legend_handles_labels()
    legend = axes.legend(
        handles[::-1], names[::-1], loc="upper left", bbox_to_anchor=(1.01, 1), fontsize=8, frameon=False,
        title="kind of token (how many)", title_fontsize=8, alignment="left",
    )  # fmt: skip
    for text, handle in zip(legend.get_texts(), legend.legend_handles, strict=True):
        text.set_parse_math(False)
        handle.set_sizes([36])


def _set_limits(axes: Any, plane: NDArray[np.float32]) -> None:
    """Limits with a margin and one scale for both axes; set, not found when drawing, as labels are placed by them."""
    low, high = plane.min(0).astype(float), plane.max(0).astype(float)
    box = axes.get_window_extent()
    sides = np.array([box.width, box.height])
    scale = max(float(((high - low) / sides).max()), 1e-9)
    middle, half = (low + high) / 2, 0.53 * scale * sides
    axes.set(xlim=(middle[0] - half[0], middle[0] + half[0]), ylim=(middle[1] - half[1], middle[1] + half[1]))


def _draw_points(axes: Any, found: Map, drawable: Callable[[str], bool]) -> None:
    """All kinds, words without one below the others; as an image in the SVG, which would have megabytes of marks."""
    labels = found.kinds.of[found.ids]
    size = float(np.clip(90_000 / max(len(labels), 1), 6, 18))
    looks = found.looks()
    order = sorted(range(len(looks)), key=lambda place: (found.kinds.names[place] != OTHER, -place))
    for place in order:
        chosen, look = labels == place, looks[place]
        if not chosen.any():
            continue
        scale = {".": 0.8, "*": 9.0, "x": 1.2, "+": 2.0}.get(look.mark, 1.3)
        kind = found.kinds.names[place].lstrip("_")  # a name with that sign in front would not be shown
        name = f"{kind if drawable(kind) else f'kind {place + 1}'} ({int(chosen.sum()):,})"
        axes.scatter(
            *found.plane[chosen].T, s=size * scale, c=look.light, marker=look.mark, label=name,
            linewidths=0.8 if look.mark in "x+" else 0, alpha=0.6 if look.mark == "." else 0.85, rasterized=True,
            zorder=2 if look.mark == "." else 3,
        )  # fmt: skip


def _draw_labels(figure: Any, axes: Any, found: Map, drawable: Callable[[str], bool]) -> None:
    """Labels of the most central tokens of each kind, where they hide no other label and a font has them."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    behind = {"facecolor": "white", "alpha": 0.65, "linewidth": 0, "pad": 0.3}
    canvas: Any = FigureCanvasAgg(figure)
    renderer = canvas.get_renderer()
    frame = axes.get_window_extent(renderer)
    taken: list[Any] = []
    for place, look in enumerate(found.looks()):
        other = found.kinds.names[place] == OTHER  # words of no kind have no centre: frequent ones, all over the map
        order = np.argsort(found.ids) if other else found.central
        own = order[found.kinds.of[found.ids[order]] == place][: CANDIDATES * (1 + 4 * other)]
        drawn = 0
        for point in own:
            if drawn == look.labels:
                break
            token = readable(found.tokens[point])
            if not drawable(token):
                continue
            color = look.light if look.mark != "." else "#5d646b"
            text = axes.annotate(
                token if len(token) <= LABEL_LETTERS else token[: LABEL_LETTERS - 1] + "…", found.plane[point],
                xytext=(3, 2), textcoords="offset points", fontsize=7, color=color, parse_math=False, zorder=4,
                bbox=behind,
            )  # fmt: skip
            if _placed(text, renderer, frame, taken, 40 * other):
                drawn += 1
            else:
                text.remove()


def _placed(text: Any, renderer: Any, frame: Any, taken: list[Any], gap: float) -> bool:
    """Whether the label found a place beside its point, `gap` pixels from all others, which it then has."""
    for across, up, side in ((3, 2, "left"), (-3, 2, "right"), (3, -8, "left"), (-3, -8, "right")):
        text.set_position((across, up))
        text.set_horizontalalignment(side)
        box = text.get_window_extent(renderer)
        inside = frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1
        if inside and not any(box.padded(gap).overlaps(other) for other in taken):
            taken.append(box)
            return True
    return False


def _drawable() -> Callable[[str], bool]:
    """Tells whether this machine's fonts have every character of a text."""
    from matplotlib.font_manager import findfont, get_font

    names = ["DejaVu Sans", *filter(None, [japanese_font()])]
    known: set[int] = set().union(*(get_font(findfont(name)).get_charmap() for name in names))
    return lambda text: all(ord(char) in known for char in text)


def needs_japanese(tokens: Iterable[str]) -> bool:
    """Whether any token has characters for which a figure needs a Japanese font."""
    return any(ord(char) >= JAPANESE for token in tokens for char in token)
