"""Losses of several runs over training steps and seen tokens, and how a figure of the room becomes files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rinsho.files import atomic_file, write_atomic
from rinsho.fonts import fonts, japanese_font
from rinsho.metrics import Point, Run, highest_shown, running_mean, thin
from rinsho.progress import amount
from rinsho.score_figures import INK, SERIES, SOFT, Key, element, in_page_colors, legend, panels

DPI = 150
SAME = 1.02  # tokens a step of two runs that differ by less share an axis of steps


def save(figure: Any, folder: Path, name: str) -> tuple[str, list[str]]:
    """The figure as an `<svg>` that follows the page's colours, and the names of the files it was written into.

    The picture (PNG, 150 dots an inch) is left out where a name is Japanese and there is no font to draw it with.
    """
    text = element(figure)
    write_atomic(folder / f"{name}.svg", text)
    files = [f"{name}.svg"]
    if text.isascii() or _drawable(text):
        with fonts(), atomic_file(folder / f"{name}.png") as file:
            figure.savefig(file, format="png", dpi=DPI, facecolor="white", metadata={"Software": None})
        files.append(f"{name}.png")
    return in_page_colors(text), files


def figure_rem(figure: Any) -> float:
    """The width on a page below which letters would be too small: a narrow page scrolls the figure instead."""
    return round(float(figure.get_figwidth()) * 72 / 16, 1)  # a point of the figure is a pixel


def _drawable(text: str) -> bool:
    return japanese_font() is not None or all(ord(char) < 0x2E80 for char in text)


def losses(runs: Sequence[Run], tag: str, held_out: str, axis: str, title: str) -> Any:
    """A figure of one value of several runs over seen tokens, with an axis of steps; None where no run has it.

    Training is a line (its running mean, where there is one, over the thin line of all points), held-out text a dashed
    line with dots. Where tokens a step differ between the runs, steps have a panel of their own.
    """
    runs = [run for run in runs if tag in run.series or held_out in run.series]
    if not runs:
        return None
    rates = [_rate(run) for run in runs]
    counted = None not in rates
    shared = counted and max(rates) <= SAME * min(rates)  # type: ignore[type-var, operator]
    overs = ["tokens"] if shared else ["tokens", "steps"] if counted else ["steps"]
    figure, sides = panels(6.9 if len(overs) == 1 else 10.4, 3.6 + 0.17 * len(runs), len(overs))
    for axes, over in zip(sides, overs, strict=True):
        for number, run in enumerate(runs):
            _draw_run(axes, run, tag, held_out, SERIES[number % len(SERIES)], over == "tokens")
        _frame(axes, runs, tag, held_out, axis)
        axes.set_xlabel("seen tokens" if over == "tokens" else "steps", fontsize=8, color=INK)
        axes.xaxis.set_major_formatter(lambda value, _: amount(value) if value > 0 else "0")
        axes.set_xlim(left=0)
        if shared:
            _steps_axis(axes, float(rates[0]))  # type: ignore[arg-type]
    figure.suptitle(title, fontsize=9.5, x=0.01, ha="left", color=INK)
    legend(figure, _keys(runs, tag, held_out))
    return figure


def _draw_run(axes: Any, run: Run, tag: str, held_out: str, color: str, by_tokens: bool) -> None:  # noqa: PLR0917
    def draw(points: Sequence[Point], **look: Any) -> None:
        drawn = thin(points)
        axes.plot(
            [p.seen_tokens if by_tokens else p.step for p in drawn], [p.value for p in drawn], color=color, **look
        )

    training, mean = run.series.get(tag, []), running_mean(run, tag)
    if training:
        draw(training, linewidth=0.6 if mean else 1.3, alpha=0.4 if mean else 1.0)
    if mean:
        draw(mean, linewidth=1.5)
    if points := run.series.get(held_out):
        draw(points, linewidth=1.2, linestyle="--", marker="o", markersize=3.5, markevery=max(1, len(points) // 30))


def _frame(axes: Any, runs: Sequence[Run], tag: str, held_out: str, axis: str) -> None:
    """Names the axis, and cuts what would flatten the rest: the first steps, and runs that diverged."""
    lines = [(run.diverged(), run.series[name]) for run in runs for name in (tag, held_out) if name in run.series]
    calm, wild = ([points for bad, points in lines if bad is kind] for kind in (False, True))
    top = highest_shown(calm, wild)
    axes.set_ylabel(axis, fontsize=8, color=INK)
    if top is not None:
        values = [point.value for _, points in lines for point in points]
        axes.set_ylim(min(values) - 0.06 * (top - min(values)), top)
        cut = f"above {top:.3g} not shown; highest {max(values):.3g}"
        axes.annotate(cut, (0.99, 0.97), xycoords="axes fraction", ha="right", va="top", fontsize=7.5, color=SOFT)


def _steps_axis(axes: Any, tokens_a_step: float) -> None:
    above = axes.secondary_xaxis("top", functions=(lambda x: x / tokens_a_step, lambda x: x * tokens_a_step))
    above.set_xlabel("steps", fontsize=8, color=INK)
    above.xaxis.set_major_formatter(lambda value, _: amount(value) if value > 0 else "0")
    above.tick_params(labelsize=8, colors=INK)
    above.spines["top"].set_color(SOFT)


def _rate(run: Run) -> float | None:
    """Seen tokens a step; None where the run does not count them."""
    end = run.end()
    return end.seen_tokens / end.step if end.seen_tokens and end.step else None


def _keys(runs: Sequence[Run], tag: str, held_out: str) -> list[Key]:
    """One line a run, then what the kinds of lines mean."""
    keys: list[Key] = [
        (run.name, {"color": SERIES[number % len(SERIES)], "linewidth": 1.8}) for number, run in enumerate(runs)
    ]
    if any(tag in run.series for run in runs):
        mean = any(running_mean(run, tag) for run in runs)
        keys.append(("training" + (" (thin: each logged step)" if mean else ""), {"color": SOFT, "linewidth": 1.5}))
    if any(held_out in run.series for run in runs):
        look = {"color": SOFT, "linestyle": "--", "linewidth": 1.2, "marker": "o", "markersize": 3.5}
        keys.append(("held-out text", look))
    return keys
