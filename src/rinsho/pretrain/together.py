"""Pre-training by the processes of torchrun: the first one owns the run folder, the others compute with it."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rinsho.device import choose_device
from rinsho.distributed import World, joined, tell_all, world
from rinsho.pretrain import Recipe
from rinsho.progress import Progress
from rinsho.run import Report, Stage, perform

STOP, START = 0, 1


class SilentStage(Stage):
    """The stage as the other processes see it: the same folders, nothing written and nothing said."""

    def log(self, message: str) -> None:
        """Says nothing."""

    def metric(self, **figures: Any) -> None:
        """Writes nothing."""

    def rewind_metrics(self, last: int, step_key: str = "step") -> None:
        """Changes nothing."""

    def progress(self, label: str, total: int | None, unit: str, done: int = 0) -> Progress:
        """A progress line that nobody sees."""
        return Progress(label, total, unit, done, stream=io.StringIO())


def run_together(recipe: Recipe, inputs: Sequence[Path], out: Path) -> Report:
    """The report, on the first process; an empty one on the others.

    The others wait until the first has the data ready, and go home when there is nothing to do: the run is finished
    already, or its folder is refused.
    """
    me = world()
    with joined(me, choose_device(recipe.device, "pretrain.device").type):
        return _lead(recipe, inputs, out, me) if me.main else _follow(recipe, inputs, out, me)


def _lead(recipe: Recipe, inputs: Sequence[Path], out: Path, me: World) -> Report:
    from rinsho.pretrain.work import work

    told = False

    def ready() -> None:
        nonlocal told
        told = True
        tell_all(START)

    try:
        return perform("pretrain", recipe, inputs, out, lambda stage: work(recipe, inputs, stage, me, ready))
    finally:
        if not told:
            tell_all(STOP)


def _follow(recipe: Recipe, inputs: Sequence[Path], out: Path, me: World) -> Report:
    from rinsho.pretrain.work import work

    if tell_all(STOP) == STOP:
        return Report({}, "")
    return work(recipe, inputs, SilentStage("pretrain", Path(out)), me)
