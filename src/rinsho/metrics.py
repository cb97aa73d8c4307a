"""The metrics.jsonl of training runs as series of numbers, and as one table. See docs/watching.md.

Series are named by tags: `train/loss`, `train/grad_norm`, `validation/loss`, `validation/<source>/loss` and so on.
A reader of files: it works on a run in progress, and no training needs it.
"""

from __future__ import annotations

import csv
import fcntl
import io
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from rinsho.errors import UserError
from rinsho.run import read_done, read_metrics

DRAWN_POINTS = 2000  # of a series: more than a screen has columns
GUESSING = 13.0  # nats a token: what picking blindly among 440,000 entries costs; a run above that has diverged
STAGES = ("pretrain", "finetune")  # folders of these names are called by the folder above, too
State = Literal["finished", "going on", "stopped"]


class Point(NamedTuple):
    """One value of a series; `seen_tokens` is None where the run does not count tokens."""

    step: int
    seen_tokens: int | None
    value: float


class Spike(NamedTuple):
    """A step that was out of the ordinary; in old lines `step` is, after a rollback, the one training went back to."""

    step: int
    seen_tokens: int | None
    reason: str
    action: str
    documents: int | None


@dataclass(frozen=True)
class Run:
    """What one metrics.jsonl says: points by tag, in the order of steps, and spikes."""

    name: str
    folder: Path
    state: State
    series: dict[str, list[Point]]
    spikes: list[Spike]

    def sources(self) -> list[str]:
        """Held-out sources, most tokens first; none where there is only one, which is the total."""
        found = {
            tag.removeprefix("validation/").rpartition("/")[0]
            for tag in self.series
            if tag.startswith("validation/") and tag.count("/") > 1
        }
        tokens = {name: self.last(f"validation/{name}/tokens") or 0 for name in found}
        return sorted(found, key=lambda name: (-tokens[name], name)) if len(found) > 1 else []

    def last(self, tag: str) -> float | None:
        """The last value of a series, or None."""
        points = self.series.get(tag)
        return points[-1].value if points else None

    def diverged(self) -> bool:
        """Whether the loss went above that of guessing after the first twentieth of the run."""
        lines = (self.series.get(tag) for tag in ("train/loss", "validation/loss"))
        return any(reach.usual > GUESSING for points in lines if points and (reach := _reach(points)))

    def end(self) -> Point:
        """The last point of all series (step 0 where there is none)."""
        return max((points[-1] for points in self.series.values()), default=Point(0, None, 0.0), key=lambda p: p.step)


def find_runs(folders: Sequence[Path], *, wait: bool = False) -> list[Path]:
    """The folders with a metrics.jsonl of training at the given ones or at most two levels below.

    With `wait`, a folder may still be without any.

    Raises:
        UserError: a folder is missing, or there are no training metrics in it.
    """
    found: dict[Path, None] = {}
    for folder in folders:
        if not folder.is_dir():
            raise UserError("not a folder", where=folder, expected="a run folder", todo="check the path")
        paths = [path for level in ("", "*/", "*/*/") for path in sorted(folder.glob(f"{level}metrics.jsonl"))]
        runs = sorted((path.parent for path in paths if _trains(path.parent)), key=_order)
        if not runs and not wait:
            raise UserError(
                "no training metrics in here",
                where=folder,
                expected="a run folder of pretrain or finetune with a metrics.jsonl, or a folder above some",
                todo="check the path; a run writes its first line after log_every_steps steps",
            )
        found |= dict.fromkeys(runs)
    return list(found)


def read_runs(folders: Sequence[Path]) -> list[Run]:
    """The runs in these folders, each with a name of its own: as much of the end of its path as tells them apart."""
    paths = [folder.resolve() for folder in folders]
    names = ["/".join(path.parts[-2 if path.name in STAGES else -1 :]) for path in paths]
    for depth in range(2, max((len(path.parts) for path in paths), default=0) + 1):
        if len(set(names)) == len(names):
            break
        names = ["/".join(path.parts[-depth:]) for path in paths]
    states = [state_of(folder) for folder in folders]  # first: a run may end while its lines are read
    rows = [read_metrics(folder) for folder in folders]
    return [as_run(*each) for each in zip(rows, names, folders, states, strict=True)]


def state_of(folder: Path) -> State:
    """`finished` (DONE is there), `going on` (a process holds the folder's lock) or `stopped`."""
    held = _held(folder / ".lock")  # before DONE, which is written while the lock is held
    if read_done(folder) is not None:
        return "finished"
    return "going on" if held else "stopped"


def as_run(rows: Iterable[Any], name: str, folder: Path = Path(), state: State = "finished") -> Run:
    """Metric lines as series. Values that are no finite numbers are left out.

    A step that comes again (a run went on from an earlier checkpoint) replaces what stood there and after it.
    """
    series: dict[str, list[Point]] = {}
    spikes: list[Spike] = []
    known: Point | None = None
    for row in rows:
        if not isinstance(row, dict) or not isinstance(row.get("step"), int):
            continue
        step, seen = row["step"], row.get("seen_tokens")
        if seen is None:
            seen = _tokens_at(step, known)
        known = Point(step, seen, 0.0)
        if "spike" in row or "skipped_steps" in row:
            reason, action = str(row.get("spike", "not_finite")), str(row.get("action", "skip"))
            spikes.append(Spike(row.get("spike_step") or step, seen, reason, action, row.get("documents")))
        for tag, value in _figures(row):
            points = series.setdefault(tag, [])
            while points and points[-1].step >= step:
                points.pop()
            points.append(Point(step, seen, value))
    # The line of a rollback has the tokens of the checkpoint; those of the spike's step follow from the last line.
    spikes = [s._replace(seen_tokens=_tokens_at(s.step, known)) if s.action == "rollback" else s for s in spikes]
    return Run(name, folder, state, series, spikes)


def tagged(run: Run) -> list[tuple[int, str, int | None, float]]:
    """Step, tag, seen tokens and value of everything in a run, in that order.

    Spikes have the tag `spike/<reason>/<action>` and their documents as value, or 1 where these are not known.
    """
    found = [(p.step, tag, p.seen_tokens, p.value) for tag, points in run.series.items() for p in points]
    found += [(s.step, f"spike/{s.reason}/{s.action}", s.seen_tokens, s.documents or 1) for s in run.spikes]
    return sorted(found, key=lambda row: row[:2])


def csv_text(runs: Sequence[Run]) -> str:
    """Every number behind the figures as a table: run, step, seen_tokens, tag, value."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("run", "step", "seen_tokens", "tag", "value"))
    for run in runs:
        writer.writerows((run.name, step, seen, tag, value) for step, tag, seen, value in tagged(run))
    return text.getvalue()


def running_mean(run: Run, tag: str) -> list[Point]:
    """The mean of the points around each one (a fortieth of them, at most 101); nothing for fewer than 40 points.

    Steps with a spike are left out, but not those trained anew after a rollback. At the begin, where a loss falls
    fast, as many points count before as after.
    """
    import numpy as np

    spikes = {spike.step for spike in run.spikes if spike.action != "rollback"}
    points = [point for point in run.series.get(tag, []) if point.step not in spikes]
    half = min((len(points) + 40) // 80, 50)
    if not half:
        return []
    sums = np.concatenate(([0.0], np.cumsum([point.value for point in points], dtype=np.float64)))
    place = np.arange(len(points))
    reach = np.minimum(place, half)
    first, end = place - reach, np.minimum(place + reach + 1, len(points))
    means = ((sums[end] - sums[first]) / (end - first)).tolist()
    return [point._replace(value=value) for point, value in zip(points, means, strict=True)]


def thin(points: Sequence[Point], most: int = DRAWN_POINTS) -> list[Point]:
    """At most about `most` points that draw the same line: the lowest and the highest of each group, and the last."""
    if len(points) <= most:
        return list(points)
    size = -(-2 * len(points) // most)
    kept: list[Point] = []
    for start in range(0, len(points), size):
        group = points[start : start + size]
        kept += sorted({min(group, key=lambda p: p.value), max(group, key=lambda p: p.value)})
    return kept if kept[-1] == points[-1] else [*kept, points[-1]]


def highest_shown(series: Iterable[Sequence[Point]], diverged: Iterable[Sequence[Point]] = ()) -> float | None:
    """Where an axis ends so that the first steps and spikes do not flatten the rest; None: nothing has to be cut.

    The measure is the 99th percentile after the first twentieth of each run. Those of diverged runs count only up to
    three times the others, or where there are no others.
    """
    calm, wild = ([reach for points in each if (reach := _reach(points))] for each in (series, diverged))
    most = 3 * max((reach.usual for reach in calm), default=math.inf)
    counted = calm + [reach for reach in wild if reach.usual <= most]
    if not counted:
        return None
    lowest, top = min(reach.lowest for reach in counted), max(reach.usual for reach in counted)
    shown = top + 0.1 * (top - lowest)
    highest = max(reach.highest for reach in calm + wild)
    return shown if highest > shown + 0.25 * (shown - lowest) else None


class _Reach(NamedTuple):
    """Lowest value and 99th percentile after the first twentieth, and the highest of all."""

    lowest: float
    usual: float
    highest: float


def _reach(points: Sequence[Point]) -> _Reach | None:
    later = sorted(point.value for point in points if point.step > points[-1].step / 20)
    if not later:
        return None
    return _Reach(later[0], later[math.ceil(0.99 * len(later)) - 1], max(point.value for point in points))


def _tokens_at(step: int, known: Point | None) -> int | None:
    return round(known.seen_tokens * step / known.step) if known and known.step and known.seen_tokens else None


def _held(lock: Path) -> bool:
    try:
        with lock.open() as file:  # a shared lock, given back at once: reading must not keep a run from starting
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # no lock file
        return False
    return False


def _trains(folder: Path) -> bool:
    with (folder / "metrics.jsonl").open(encoding="utf-8", errors="replace") as file:
        return any(re.search(r'"step": ?\d', line) for line in file)


def _order(folder: Path) -> tuple[Path, int, str]:
    """Folders below the same one together, pretrain before finetune."""
    rank = STAGES.index(folder.name) if folder.name in STAGES else len(STAGES)
    return folder.parent, rank, folder.name


def _figures(row: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    for key, value in row.items():
        if key == "validation" and isinstance(value, dict):
            for source, figures in value.items():
                found = figures.items() if isinstance(figures, dict) else ()
                yield from ((f"validation/{source}/{name}", figure) for name, figure in found if _number(figure))
        elif key not in ("step", "seen_tokens", "spike_step", "documents") and _number(value):
            name = f"validation/{key.removeprefix('validation_')}" if key.startswith("validation_") else f"train/{key}"
            yield name, value


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
