"""Scores as pictures, inline SVG of matplotlib: boards, scores with intervals, scores over seen tokens.

Text in a figure is what the numbers name (models, tasks), in the page's own font. Colours are names that the page may
set (`--ink`, `--accent`, ...), so that a figure follows it into dark mode and print; alone it has those of `COLORS`.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from rinsho.curves import svg
from rinsho.progress import amount

INK, SOFT, LINE, ACCENT, WARM, PAPER = "#222223", "#6b7075", "#e3e3e0", "#1f6f8b", "#c05621", "#fffffe"
COLORS = {"ink": INK, "soft": SOFT, "line": LINE, "accent": ACCENT, "warm": WARM, "paper": PAPER}
SERIES = ("#1f6f8c", "#c05622", "#5b8c3e", "#8a4f9e", "#b8860b", "#3d5fa8", "#d0557a", "#5f6b6d")
NAME_LETTERS = 46  # of a row's name that are shown
PASS_SHARE = 0.75  # of the points of IgakuQA, about
PASSES = "pass line, about 75 %"
MARKS = {  # how a model was asked -> marker and whether it is filled
    "zero-shot": ("o", False), "few-shot": ("s", False), "pre-trained": ("^", False), "fine-tuned": ("o", True),
    "people": ("*", True), "baseline": ("x", True), "unknown": ("D", False),
}  # fmt: skip
OWN_MARKS = {"free": "o", "constrained": "D", "likelihood": "s"}

Key = tuple[str, dict[str, Any]]  # words of a legend, and the look of its line


def board(found: Mapping[str, Any]) -> str:
    """A board of `rinsho.evaluate.boards`: one line a row, ours with intervals, published ones by how they were asked.

    Chance and the pass line are lines; rows on other questions stand below a rule. Empty where nothing can be drawn.
    """
    drawn = list(found["panels"])[:6]
    rows = [row for row in found["rows"] if row["how"] not in ("chance", "pass")]
    rows = [row for row in rows if any(row["values"][place] is not None for place in drawn)]
    if not rows:
        return ""
    at = _heights(rows)
    figure, axes = panels(2.9 + max(4.1, 1.55 * len(drawn)), 1.15 + 0.2 * (at[0] + 1), len(drawn), "x")
    chance = [row for row in found["rows"] if row["how"] == "chance" and not row["apart"]]
    every = [row["values"][place] for row in rows for place in drawn if row["values"][place] is not None]
    low = min([0.0, *every, *(i[0] for row in rows for p in drawn if (i := row["intervals"][p]))])
    for side, place in zip(axes, drawn, strict=True):
        for height, row in zip(at, rows, strict=True):
            _dot(side, row, row["values"][place], row["intervals"][place], height)
        for row in chance:
            if row["values"][place] is not None:
                side.axvline(row["values"][place], color=WARM, linestyle="--", linewidth=1)
        if found["pass_line"] is not None:
            side.axvline(found["pass_line"], color=ACCENT, linestyle=":", linewidth=1.2)
        if at[0] == len(rows):
            side.axhline(sum(bool(row["apart"]) for row in rows), color=SOFT, linewidth=0.8)
        if side is not axes[0]:
            side.tick_params(left=False)
        side.set_xlim(low - 0.03, 1.03)
        if len(drawn) > 1:
            side.set_title(_plain(found["columns"][place], 22), fontsize=8.5, color=INK, parse_math=False)
        if found["percent"]:
            side.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        side.set_xticks([0, 0.25, 0.5, 0.75, 1], [0, "", 0.5, "", 1] if len(drawn) > 1 else None)
        if found["percent"] and len(drawn) > 1:
            side.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "", "50%", "", "100%"])
    _names(axes[0], rows, at)
    axes[len(axes) // 2].set_xlabel(found["axis"], fontsize=8, color=INK, parse_math=False)
    legend(figure, _keys(rows, bool(chance), found["pass_line"] is not None))
    return _finished(figure)


def scores(rows: Sequence[Mapping[str, Any]], title: str) -> str:
    """One line a score: the dot, its 95 % interval, the chance level as a tick and the best baseline as a cross."""
    if not rows:
        return ""
    figure, (axes,) = panels(6.4, 0.8 + 0.24 * len(rows), 1, "x")
    for place, row in enumerate(reversed(rows)):
        low, high = row["interval"] or (row["score"], row["score"])
        axes.plot([low, high], [place, place], color=ACCENT, linewidth=2, solid_capstyle="butt")
        axes.plot(row["score"], place, "o", color=ACCENT, markersize=5)
        axes.plot(row["chance"], place, "|", color=WARM, markersize=10, markeredgewidth=2)
        best = max((value for value in row["baselines"].values() if value is not None), default=None)
        if best is not None:
            axes.plot(best, place, "x", color=SOFT, markersize=6)
    axes.set_yticks(range(len(rows)), [_plain(row["label"]) for row in reversed(rows)], fontsize=8)
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.set_xlim(0, 1)
    axes.set_title(title, fontsize=9, loc="left", color=INK, parse_math=False)
    axes.set_xlabel("dot: score, line: 95 % interval, bar: chance, cross: best baseline", fontsize=7.5, color=INK)
    return _finished(figure)


def over_tokens(rows: Sequence[Mapping[str, Any]], title: str = "") -> str:
    """`draw_over_tokens` as an element; empty where nothing can be drawn."""
    rows = [row for row in rows if row["score"] is not None and row["seen_tokens"] is not None]
    return _finished(draw_over_tokens(rows, title)) if rows else ""


def draw_over_tokens(rows: Sequence[Mapping[str, Any]], title: str) -> Any:
    """The report's Figure 6: score over seen tokens, its 95 % interval as a band, chance and pass line (NA-4, N3-1).

    Args:
        rows: `run`, `mode`, `seen_tokens`, `score`, `interval`, `chance` of one task, one row or more; a series is a
            run in one mode.
        title: above the figure.
    """
    series: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        mode = "" if row.get("mode", "free") == "free" else f" ({row['mode']})"
        series.setdefault(f"{row.get('run', '')}{mode}", []).append(row)
    figure, (axes,) = panels(6.9, 3.4 + 0.17 * len(series), 1)
    keys: list[Key] = []
    for number, (name, own) in enumerate(series.items()):
        points = sorted(own, key=lambda row: row["seen_tokens"])
        color, places = SERIES[number % len(SERIES)], [row["seen_tokens"] for row in points]
        bands = [row["interval"] or (row["score"], row["score"]) for row in points]
        axes.fill_between(places, [b[0] for b in bands], [b[1] for b in bands], color=color, alpha=0.18, linewidth=0)
        look: dict[str, Any] = {"color": color, "marker": "o", "markersize": 4, "linewidth": 1.4}
        axes.plot(places, [row["score"] for row in points], **look)
        if len(points) == 1:  # a band of one point would not be seen
            axes.plot(places * 2, bands[0], color=color, linewidth=1.4)
        keys.append((name, look))
    if chance := sorted({round(row["chance"], 6) for row in rows if row.get("chance") is not None}):
        for value in chance:
            axes.axhline(value, color=WARM, linestyle="--", linewidth=1)
        keys.append(("chance", {"color": WARM, "linestyle": "--"}))
    if any(str(row.get("task", "")).startswith("igakuqa") for row in rows):
        axes.axhline(PASS_SHARE, color=ACCENT, linestyle=":", linewidth=1.2)
        keys.append((PASSES, {"color": ACCENT, "linestyle": ":"}))
    metric = str(rows[0].get("metric", "score")).replace("_f1", " F1").replace("_", " ")
    axes.set_xlabel("seen tokens", fontsize=8, color=INK)
    axes.set_ylabel(f"{metric}, band: 95 %", fontsize=8, color=INK, parse_math=False)
    axes.xaxis.set_major_formatter(lambda value, _: amount(value) if value > 0 else "0")
    axes.set_ylim(bottom=0)
    axes.set_xlim(left=0)
    axes.set_title(title, fontsize=9, loc="left", color=INK, parse_math=False)
    legend(figure, keys)
    return figure


def _dot(axes: Any, row: Mapping[str, Any], value: float | None, interval: Sequence[float] | None, at: int) -> None:
    if value is None:
        return
    if interval is not None:
        axes.plot(interval, [at, at], color=ACCENT, linewidth=2.2, solid_capstyle="butt")
    axes.plot(value, at, **_look(row))


def _look(row: Mapping[str, Any]) -> dict[str, Any]:
    """How a row's dot is drawn."""
    if row["ours"]:
        mark = OWN_MARKS.get(row["mode"], "o")
        return {"marker": mark, "color": ACCENT, "markersize": 6.5 if mark == "o" else 5.5, "linestyle": ""}
    mark, filled = MARKS.get(row["how"], MARKS["unknown"])
    size = {"*": 7, "D": 3.6, "x": 5}.get(mark, 4.6)
    return {"marker": mark, "markersize": size, "linestyle": "", "color": SOFT, "markeredgewidth": 1.1,
            "markerfacecolor": SOFT if filled else PAPER}  # fmt: skip


def _keys(rows: Sequence[Mapping[str, Any]], chance: bool, passing: bool) -> list[Key]:
    """What the legend says: ours by mode, published ones by how they were asked, the lines."""
    found: dict[str, dict[str, Any]] = {}
    for mode in OWN_MARKS:
        for row in rows:
            if row["ours"] and row["mode"] == mode:
                words = "this evaluation, 95 % interval" if mode == "free" else f"this evaluation, {mode}"
                found[words] = {**_look(row), "linestyle": "-", "linewidth": 2.2}
    for how in MARKS:
        for row in rows:
            if not row["ours"] and row["how"] == how:
                found["trivial baseline" if how == "baseline" else f"published, {how}"] = _look(row)
    if chance:
        found["chance"] = {"color": WARM, "linestyle": "--"}
    if passing:
        found[PASSES] = {"color": ACCENT, "linestyle": ":"}
    return list(found.items())


def _heights(rows: Sequence[Mapping[str, Any]]) -> list[int]:
    """Where each row is drawn, the first one uppermost; one line is left free above those that stand apart."""
    apart = sum(bool(row["apart"]) for row in rows)
    gap = 0 < apart < len(rows)
    return [len(rows) - 1 - place + (gap and place < len(rows) - apart) for place in range(len(rows))]


def _names(axes: Any, rows: Sequence[Mapping[str, Any]], at: Sequence[int]) -> None:
    """The rows' names at the left, ours bold; in the free line what those below it are."""
    axes.set_ylim(-0.7, at[0] + 0.7)
    names = [_plain(row["name"]) for row in rows]
    free = [height for height in range(at[0]) if height not in at]
    axes.set_yticks([*at, *free], [*names, *("not comparable:" for _ in free)], fontsize=8)
    for label, row in zip(axes.get_yticklabels(), [*rows, *({"ours": False} for _ in free)], strict=True):
        if row["ours"]:
            label.set(fontweight="bold", color=ACCENT)
    for label in axes.get_yticklabels()[len(rows) :]:
        label.set(fontstyle="italic", color=SOFT)


def legend(figure: Any, keys: Sequence[Key]) -> None:
    """What lines and marks mean, below the figure, in as many columns as there is room for."""
    from matplotlib.lines import Line2D

    names = [f" {_plain(words)}" for words, _ in keys]  # a name with _ at its begin would not be shown
    columns = max(1, min(len(names), int(figure.get_figwidth() / (0.65 + 0.068 * max(map(len, names))))))
    lines = [Line2D([], [], **look) for _, look in keys]
    found = figure.legend(lines, names, loc="outside lower center", fontsize=7.5, frameon=False, ncols=columns)
    for text in found.get_texts():
        text.set(color=INK, parse_math=False)


def panels(width: float, height: float, count: int, grid: Literal["both", "x", "y"] = "both") -> tuple[Any, list[Any]]:
    """A figure of so many inches without a background, and its axes side by side with one scale upwards."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained", facecolor="none")
    found = list(figure.subplots(1, count, sharey=True, squeeze=False)[0])
    for axes in found:
        axes.set_facecolor("none")
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(SOFT)
        axes.tick_params(labelsize=8, colors=INK)
        axes.grid(axis=grid, color=LINE, linewidth=0.6)
        axes.set_axisbelow(True)
    return figure, found


def element(figure: Any) -> str:
    """The figure as an `<svg>` element without outside names, the same bytes for the same numbers."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # the browser has the font
        return re.sub(r"<metadata>.*?</metadata>", "", svg(figure), flags=re.DOTALL)


def in_page_colors(text: str) -> str:
    """An element whose colours are those of the page that it stands in."""
    for name, color in (COLORS | {f"series-{number}": color for number, color in enumerate(SERIES)}).items():
        text = text.replace(color, f"var(--{name}, {color})")
    return text


def _finished(figure: Any) -> str:
    for axes in figure.axes:
        for label in [*axes.get_yticklabels(), *axes.get_xticklabels()]:
            label.set_parse_math(False)
    return in_page_colors(element(figure))


def _plain(name: object, letters: int = NAME_LETTERS) -> str:
    """A name as one printable line, its middle left out where it is long: its end may tell the mode."""
    shown = "".join(char if char.isprintable() else "\ufffd" for char in str(name))
    if len(shown) <= letters:
        return shown
    half = (letters - 1) // 2
    return f"{shown[:half]}…{shown[-half:]}"
