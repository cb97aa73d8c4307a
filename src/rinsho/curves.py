"""The curves of training runs: a picture to look at while a run goes on, and a page that opens offline.

What is drawn comes from `rinsho.metrics`; see docs/watching.md.
"""

from __future__ import annotations

import io
import json
import re
import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

from rinsho.files import atomic_file
from rinsho.fonts import fonts
from rinsho.metrics import Point, Run, as_run, highest_shown, read_runs, running_mean, thin
from rinsho.progress import amount

COLORS = ("#1f6f8b", "#c05621", "#5b8c3e", "#8a4f9e", "#b8860b", "#3d5fa8", "#d0557a", "#5f6b6d")
MARKERS = "s^D*PX<>"  # of sources; a circle is held-out text together, a triangle that points down a spike
INK, FAINT, ALARM = "#222222", "#9aa0a6", "#b3261e"
DRAWN_SOURCES = len(MARKERS)  # largest first, of all runs together; the tables have all of them
DRAWN_SPIKES = 200


class Panel(NamedTuple):
    """One pair of axes: a training figure, a held-out figure, or both."""

    title: str
    train: str | None
    held_out: str | None  # `loss` stands for validation/loss and validation/<source>/loss
    log: bool = False
    from_zero: bool = False


PANELS = (
    Panel("loss, nats a token", "train/loss", "loss"),
    Panel("held-out text, bits a character", None, "bits_per_character"),
    Panel("gradient norm before clipping", "train/grad_norm", None, log=True),
    Panel("learning rate", "train/learning_rate", None, from_zero=True),
    Panel("tokens a second", "train/tokens_per_second", None, from_zero=True),
    Panel("MFU, share of the hardware's dense peak", "train/mfu", None, from_zero=True),
    Panel("peak memory, GiB", "train/memory_gib", None, from_zero=True),
)
SMOOTHED = ("train/loss", "train/grad_norm")  # with a running mean, and with marks for spikes


def loss_png(run_folders: Sequence[Path], path: Path) -> bool:
    """Writes the curves of these run folders as a picture; False, and no file, while there is nothing to draw.

    Raises:
        ModuleNotFoundError: matplotlib (the extra `report`) is not installed.
    """
    return draw_png(read_runs(run_folders), path)


def page(run_folders: Sequence[Path]) -> str:
    """One page that opens offline: all curves over each other, hover values, zoom, and tables of last values."""
    return draw_page(read_runs(run_folders))


def draw_png(runs: Sequence[Run], path: Path) -> bool:
    """`loss_png` of runs that are read already."""
    runs = [run for run in runs if any(_drawn(panel, [run]) for panel in PANELS[:5])]
    if not runs:
        return False
    from matplotlib.figure import Figure

    panels = [panel for panel in PANELS[1:5] if _drawn(panel, runs)]
    figure = Figure(figsize=(10.5, 1), dpi=100, facecolor="white")
    names, words = headline(runs, states=False)  # pre-training draws before it has ended
    with fonts():
        loss = figure.add_axes((0.055, 0, 0.9, 1))
        top = 4.75 + 0.17 * _draw(loss, PANELS[0], runs)  # inches above the small panels
        lines = -(-len(panels) // 2)
        total = top + 2.4 * lines
        figure.set_figheight(total)
        loss.set_position((0.055, 1 - 4 / total, 0.9, 3.15 / total))
        grid = figure.add_gridspec(
            max(lines, 1), 2, hspace=0.7 / 1.7, wspace=0.19,
            left=0.055, right=0.955, top=1 - top / total, bottom=0.7 / total if lines else 0,
        )  # fmt: skip
        for number, panel in enumerate(panels):
            alone = number == len(panels) - 1 and number % 2 == 0
            _draw(figure.add_subplot(grid[number // 2, slice(None) if alone else number % 2]), panel, runs)
        line: dict[str, Any] = {"color": INK, "va": "center", "parse_math": False}
        figure.text(0.055, 1 - 0.24 / total, textwrap.shorten(names, 110, placeholder=" …"), fontsize=11, **line)
        figure.text(0.055, 1 - 0.45 / total, words, fontsize=9, **line)
        with atomic_file(path) as file:
            figure.savefig(file, format="png", metadata={"Software": None})
    return True


def loss_svg(rows: Sequence[Mapping[str, Any]], title: str) -> str:
    """The loss of these metric lines as a small <svg> element, sources together; an empty string if there is none."""
    run = as_run([{**row, "validation": None} for row in rows], title)
    if "train/loss" not in run.series:
        return ""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.4, 3.1), layout="constrained")
    axes = figure.subplots()
    _draw(axes, PANELS[0]._replace(title=title), [run])
    axes.set_ylabel("nats a token", fontsize=8, color=INK)
    return svg(figure)


def svg(figure: Any) -> str:
    """A matplotlib figure as an <svg> element with real text, the same bytes for the same numbers."""
    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "rinsho", "font.family": "sans-serif"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return re.sub(r"^.*?(?=<svg)", "", buffer.getvalue(), flags=re.DOTALL)


def draw_page(runs: Sequence[Run], reload_seconds: int | None = None) -> str:
    """`page` of runs that are read already; with `reload_seconds` an open page reads its file again so often."""
    import jinja2

    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters |= {"amount": amount, "figure": _figure}
    template = resources.files("rinsho").joinpath("curves.html.j2").read_text(encoding="utf-8")
    return environment.from_string(template).render(
        runs=runs,
        colors=[COLORS[number % len(COLORS)] for number in range(len(runs))],
        means=[mean[-1].value if (mean := running_mean(run, "train/loss")) else None for run in runs],
        has_means=any(running_mean(run, tag) for run in runs for tag in SMOOTHED),
        headline=headline(runs),
        spikes_in_words=spikes_in_words,
        reload_seconds=reload_seconds,
        data=json.dumps(_page_data(runs), ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c"),
    )


def headline(runs: Sequence[Run], states: bool = True) -> tuple[str, str]:
    """The names of the runs, and where they stand; without `states` nothing is said of who goes on."""
    names = ", ".join(run.name for run in runs)
    if len(runs) != 1:
        counts = Counter(run.state for run in runs) if states else {}
        return names, ", ".join([f"{len(runs)} runs", *(f"{count} {state}" for state, count in sorted(counts.items()))])
    run, end = runs[0], runs[0].end()
    loss, held_out = run.last("train/loss"), run.last("validation/loss")
    bits, speed, mfu = (
        run.last("validation/bits_per_character"),
        run.last("train/tokens_per_second"),
        run.last("train/mfu"),
    )
    said = [
        f"{run.state} at step {end.step:,}" if states else f"step {end.step:,}",
        end.seen_tokens and f"{amount(end.seen_tokens)} tokens",
        loss is not None and f"loss {loss:.3f}",
        held_out is not None and f"held out {held_out:.3f}",
        bits is not None and f"{bits:.3f} bits a character",
        speed is not None and f"{amount(speed)} tokens/s",
        mfu is not None and f"MFU {mfu:.1%}",
    ]
    return names, ", ".join(part for part in said if part)


def _draw(axes: Any, panel: Panel, runs: Sequence[Run]) -> int:
    """One panel: with one run each held-out source has its colour, with several each run. Gives the legend's lines."""
    from matplotlib.ticker import FuncFormatter

    values = [point.value for line in _drawn(panel, runs) for point in line]
    top = _top(panel, runs)
    entries = [entry for number in range(len(runs)) for entry in _draw_run(axes, panel, runs, number)]
    cut = "" if top is None else f"  (above {_tick(top, digits=3)} not shown; highest {_tick(max(values), digits=3)})"
    axes.set_title(panel.title + cut, fontsize=9, loc="left", color=INK, parse_math=False)
    axes.set_xlabel("seen tokens" if _by_tokens(runs) else "steps", fontsize=8, color=INK, labelpad=2)
    axes.xaxis.set_major_formatter(FuncFormatter(_tick))
    axes.yaxis.set_major_formatter(FuncFormatter(_tick))
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT)
    axes.tick_params(labelsize=8, colors=INK)
    axes.grid(color="#e9e9e7", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.margins(x=0.018)  # room for the marks at the last step
    if panel.log and values and min(values) > 0:
        axes.set_yscale("log")
        if top is not None:  # the bottom, too: its margin is a share of what is cut off
            axes.set_ylim(min(values) / 1.15, top)
        _few_ticks(axes, min(max(values), top or max(values)) / min(values))
    elif panel.from_zero:
        axes.set_ylim(0, top)
    elif top is not None:
        axes.set_ylim(min(values) - 0.06 * (top - min(values)), top)
    if panel.train == "train/tokens_per_second":
        _share_of_peak(axes, runs)
    if panel.train == "train/loss" and (len(runs) > 1 or len(entries) > 1):
        return _legend(axes, entries)
    return 0


def _draw_run(axes: Any, panel: Panel, runs: Sequence[Run], number: int) -> Iterator[tuple[bool, dict[str, Any], str]]:
    """Draws a run and gives what the legend may say of it: whether a run is named, the look, the words."""
    run, color = runs[number], COLORS[number % len(COLORS)]
    alone, by_tokens = len(runs) == 1, _by_tokens(runs)

    def line(points: Sequence[Point], **look: Any) -> dict[str, Any]:
        drawn = thin(points)
        look |= {"markevery": max(1, len(drawn) // 30)}
        if len(drawn) == 1:  # a line of one point would not be seen
            look = {"marker": "o", "markersize": 4} | look
        axes.plot([_x(p, by_tokens) for p in drawn], [p.value for p in drawn], **look)
        return look if alone else look | {"color": INK}

    training = run.series.get(panel.train or "", [])
    mean = running_mean(run, panel.train) if panel.train in SMOOTHED else []
    if training:
        look = line(training, color=color, linewidth=0.6 if mean else 1.3, alpha=0.4 if mean else 1.0)
        look = line(mean, color=color, linewidth=1.5) if mean else look
        words = "training" + (" (thin: each logged step)" if mean else "")
        yield True, look | {"color": color}, words if alone else run.name
    if panel.held_out and (total := run.series.get(f"validation/{panel.held_out}")):
        shade = COLORS[1] if alone else color
        look = {"color": shade, "linestyle": "-" if alone else "--", "linewidth": 1.2, "marker": "o", "markersize": 3.5}
        yield False, line(total, **look), "held out"
    for place, source in enumerate(drawn_sources(runs) if panel.held_out else ()):
        if points := run.series.get(f"validation/{source}/{panel.held_out}"):
            shade = COLORS[(place + 2) % len(COLORS)] if alone else color
            look = {"color": shade, "linestyle": ":", "linewidth": 0.8, "marker": MARKERS[place], "markersize": 4.5}
            yield False, line(points, **look), source
    if run.spikes and panel.train in SMOOTHED:
        mark = _draw_spikes(axes, run, ALARM if alone else color, by_tokens)
        yield False, mark if alone else mark | {"color": INK}, spikes_in_words(run) if alone else "spike"


def _draw_spikes(axes: Any, run: Run, color: str, by_tokens: bool) -> dict[str, Any]:
    """A triangle where a spike is, with their number where there are several (a batch that fails after rollbacks)."""
    places, over = Counter(_x(spike, by_tokens) for spike in run.spikes[-DRAWN_SPIKES:]), axes.get_xaxis_transform()
    axes.vlines(list(places), 0, 1, transform=over, color=color, linewidth=0.6, alpha=0.3)
    mark = {"color": color, "linestyle": "", "marker": "v", "markersize": 5.5}
    axes.plot(list(places), [1.0] * len(places), transform=over, clip_on=False, **mark)
    beside: dict[str, Any] = {"xycoords": over, "xytext": (4, -4), "textcoords": "offset points"}
    for place, count in places.items():
        if count > 1:
            axes.annotate(f"×{count}", (place, 1.0), fontsize=7, color=color, va="center", **beside)
    return mark


def drawn_sources(runs: Sequence[Run]) -> list[str]:
    """The largest held-out sources of all runs; the place in this list is the mark of a source in every run."""
    tokens: dict[str, float] = {}
    for run in runs:
        for name in run.sources():
            tokens[name] = max(tokens.get(name, 0), run.last(f"validation/{name}/tokens") or 0)
    return sorted(tokens, key=lambda name: (-tokens[name], name))[:DRAWN_SOURCES]


def spikes_in_words(run: Run) -> str:
    """How many spikes, and what was done about them."""
    actions = [spike.action for spike in run.spikes]
    counts = ", ".join(f"{actions.count(action)} {action}" for action in sorted(set(actions)))
    return f"{len(actions)} spike{'s' * (len(actions) > 1)} ({counts})"


def _legend(axes: Any, entries: Sequence[tuple[bool, dict[str, Any], str]]) -> int:
    """Below the axes, where it covers nothing: runs, then what the kinds of lines mean, each once. Gives its lines."""
    from matplotlib.lines import Line2D

    once = {words: look for _, look, words in sorted(entries, key=lambda entry: not entry[0])}
    shown = list(once.items())[:32]
    handles = [Line2D([], [], **{key: value for key, value in look.items() if key != "markevery"}) for _, look in shown]
    names = [f" {textwrap.shorten(words, 60, placeholder=' …')}" for words, _ in shown]  # _ at the begin would hide it
    inches = 0.65 + 0.068 * max(map(len, names))
    columns = min(len(names), max(1, int(0.9 * axes.figure.get_figwidth() / inches)))
    legend = axes.legend(
        handles, names, fontsize=8, loc="upper left", bbox_to_anchor=(0, 0), borderaxespad=4, borderpad=0,
        ncols=columns, labelspacing=0.4, frameon=False,
    )  # fmt: skip
    for text in legend.get_texts():
        text.set_parse_math(False)
    return -(-len(names) // columns)


def _share_of_peak(axes: Any, runs: Sequence[Run]) -> None:
    """An axis at the right in MFU, where one factor leads from tokens a second to it."""
    pairs = [(run.last("train/mfu"), run.last("train/tokens_per_second")) for run in runs]
    factors = [100 * mfu / speed for mfu, speed in pairs if mfu and speed]
    if len(factors) != len(runs) or max(factors) > 1.02 * min(factors):
        return
    factor = factors[0]
    side = axes.secondary_yaxis("right", functions=(lambda value: value * factor, lambda value: value / factor))
    side.tick_params(labelsize=8, colors=INK)
    side.spines["right"].set_color(FAINT)
    axes.set_title("MFU, %", fontsize=9, loc="right", color=INK)


def _few_ticks(axes: Any, span: float) -> None:
    """A logarithmic axis of less than two decades gets numbers between the powers of ten."""
    from matplotlib.ticker import LogLocator, MaxNLocator

    between = MaxNLocator(5) if span < 10 else LogLocator(subs=(1.0,) if span > 100 else (1.0, 2.0, 5.0))
    axes.yaxis.set_major_locator(between)
    axes.yaxis.set_major_formatter(_tick)
    axes.minorticks_off()


def _tick(value: float, _: int | None = None, digits: int = 4) -> str:
    if abs(value) >= 1e12 or 0 < abs(value) < 1e-3:
        return re.sub(r"(\.?0+)?e\+?(-?)0*", r"e\2", f"{value:.2e}")
    for size, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.{digits}g}{suffix}"
    return f"{value:.{digits}g}"


def _drawn(panel: Panel, runs: Sequence[Run]) -> list[list[Point]]:
    tags = [panel.train]
    if panel.held_out:
        tags += [f"validation/{name}{panel.held_out}" for name in ("", *(f"{name}/" for name in drawn_sources(runs)))]
    return [run.series[tag] for run in runs for tag in tags if tag in run.series]


def _top(panel: Panel, runs: Sequence[Run]) -> float | None:
    """Where the panel's axis ends; None: nothing has to be cut. A logarithmic one is cut for diverged runs only."""
    wild = _drawn(panel, [run for run in runs if run.diverged()])
    calm = _drawn(panel, [run for run in runs if not run.diverged()])
    if not panel.log:
        return highest_shown(calm, wild)
    highest, reached = (max((p.value for line in each for p in line), default=0.0) for each in (calm, wild))
    return 3 * highest if 0 < 10 * highest < reached else None


def _by_tokens(runs: Sequence[Run]) -> bool:
    return all(p.seen_tokens is not None for run in runs for points in run.series.values() for p in points[-1:])


def _x(point: Any, by_tokens: bool) -> int:
    found = point.seen_tokens if by_tokens else point.step
    return 0 if found is None else int(found)


def _page_data(runs: Sequence[Run]) -> dict[str, Any]:
    """What the page's script draws, as JSON."""
    rows, sources = [], drawn_sources(runs)
    for run in runs:
        wanted = {tag for panel in PANELS for tag in run.series if tag == panel.train or panel.held_out}
        means = {tag: running_mean(run, tag) for tag in SMOOTHED}
        rows.append(
            {
                "name": run.name,
                "sources": [name for name in sources if name in run.sources()],
                "series": {tag: _columns(points) for tag, points in run.series.items() if tag in wanted},
                "means": {tag: _columns(points) for tag, points in means.items() if points},
                "spikes": [list(spike) for spike in run.spikes[-DRAWN_SPIKES:]],
            }
        )
    panels = [panel._asdict() | {"top": _top(panel, runs)} for panel in PANELS if _drawn(panel, runs)]
    return {"runs": rows, "panels": panels, "sources": sources, "colors": COLORS, "by_tokens": _by_tokens(runs)}


def _columns(points: Sequence[Point]) -> list[list[Any]]:
    drawn = thin(points)
    return [
        [p.step for p in drawn],
        [p.seen_tokens for p in drawn],
        [float(f"{p.value:.6g}") for p in drawn],
    ]


def _figure(value: float | None, form: str = ".4g") -> str:
    return "-" if value is None else format(value, form)
