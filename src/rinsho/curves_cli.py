"""`rinsho curves RUN...`: training runs as a page, a picture, a table, or for TensorBoard and Weights & Biases.

All of them only read metrics.jsonl, so it does not matter whether a run goes on, has ended or was stopped.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

from rinsho.curves import draw_page, draw_png, headline
from rinsho.errors import UserError
from rinsho.files import atomic_folder, write_atomic
from rinsho.metrics import Run, State, csv_text, find_runs, read_runs, state_of, tagged

RELOAD_SECONDS = 30
_Look = tuple[Path, int, int, State]
# Offline alone still writes down host, user, command line, packages and load of the machine, and would report errors.
SILENT_SETTINGS = {
    "mode": "offline", "silent": True, "console": "off", "save_code": False, "disable_code": True, "disable_git": True,
    "disable_job_creation": True, "host": "", "username": "", "email": "", "program": "", "x_disable_meta": True,
    "x_disable_stats": True, "x_disable_machine_info": True, "x_disable_viewer": True, "x_save_requirements": False,
}  # fmt: skip


def curves(
    runs: Sequence[Path],
    out: Path | None = None,
    to: str = "page",
    follow: bool = False,
    every_seconds: float = 5.0,
) -> str:
    """What was written, a path a line; with `follow` it writes again at every change until no run goes on.

    A run counts as stopped when at two looks nobody held its lock and nothing was new.

    Raises:
        UserError: no training metrics, an output folder inside a run, or a package that is not installed.
    """
    write, written = WRITERS[to], []
    looks: list[_Look] = []
    before: tuple[list[_Look], bool] | None = None
    while True:
        folders = find_runs(runs, wait=follow)
        _refuse_inside(out, folders)
        earlier, looks = looks, [_look(folder) for folder in folders]
        states = {state for *_, state in looks}
        ended = states == {"finished"} or (states and looks == earlier and "going on" not in states)
        going_on = follow and not ended
        found = read_runs(folders) if (looks, going_on) != before else []
        if found and not (going_on and to == "wandb"):  # nobody reads a file for Weights & Biases while it grows
            written = write(found, out or _beside(folders), going_on)
            before = looks, going_on
            for run in found if follow else ():
                _say(": ".join(headline([run])))
        if not going_on:
            if follow and "stopped" in states:
                _say("no run goes on any more, and some did not finish: no longer followed")
            return "\n".join(map(str, written))
        time.sleep(every_seconds)


def _say(words: str) -> None:
    print("curves:", words, file=sys.stderr, flush=True)


def _look(folder: Path) -> _Look:
    """Differs when there are new lines, or the run has ended, stopped or begun again."""
    state, now = state_of(folder), (folder / "metrics.jsonl").stat()
    return folder, now.st_mtime_ns, now.st_size, state


def _page(runs: Sequence[Run], out: Path, going_on: bool) -> list[Path]:
    write_atomic(out / "curves.html", draw_page(runs, RELOAD_SECONDS if going_on else None))
    return [out / "curves.html", *_csv(runs, out, going_on)]


def _png(runs: Sequence[Run], out: Path, going_on: bool) -> list[Path]:
    try:
        drawn = draw_png(runs, out / "loss.png")
    except ModuleNotFoundError as error:
        raise _missing("matplotlib", "report") from error
    return [*([out / "loss.png"] if drawn else []), *_csv(runs, out, going_on)]


def _csv(runs: Sequence[Run], out: Path, _going_on: bool) -> list[Path]:
    write_atomic(out / "curves.csv", csv_text(runs))
    return [out / "curves.csv"]


def _tensorboard(runs: Sequence[Run], out: Path, _going_on: bool) -> list[Path]:
    """One event file a run. Step and wall time are the step, so the same numbers give the same bytes."""
    try:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.record_writer import RecordWriter
    except ModuleNotFoundError as error:
        raise _missing("tensorboard", "tensorboard") from error
    for run in runs:
        buffer = io.BytesIO()
        writer = RecordWriter(buffer)
        writer.write(Event(wall_time=0.0, file_version="brain.Event:2").SerializeToString())
        for step, tag, _, value in tagged(run):
            summary = Summary(value=[Summary.Value(tag=tag, simple_value=value)])
            writer.write(Event(wall_time=float(step), step=step, summary=summary).SerializeToString())
        _extend(out / "tensorboard" / run.name / "events.out.tfevents.0.rinsho", buffer.getvalue())
    return [out / "tensorboard"]


def _extend(path: Path, data: bytes) -> None:
    """Appends what is new, so that an open TensorBoard goes on reading; otherwise the file is replaced."""
    known = path.read_bytes() if path.exists() else None
    if known is None or not data.startswith(known):
        write_atomic(path, data)
    elif len(data) > len(known):
        with path.open("ab") as file:
            file.write(data[len(known) :])


def _wandb(runs: Sequence[Run], out: Path, _going_on: bool) -> list[Path]:
    """One offline run each, which `wandb sync` can upload; nothing is sent from here."""
    try:
        import wandb
    except ModuleNotFoundError as error:
        raise _missing("wandb", "wandb") from error
    written = []
    for run in runs:
        key = blake2b(f"{run.name} {_identity(run)}".encode(), digest_size=4).hexdigest()
        with tempfile.TemporaryDirectory() as scratch:
            os.environ |= {f"WANDB_{name}_DIR": scratch for name in ("CACHE", "CONFIG", "DATA")}
            os.environ["WANDB_ERROR_REPORTING"] = "false"
            settings = wandb.Settings(**SILENT_SETTINGS)
            log = wandb.init(project="rinsho", name=run.name, id=key, dir=scratch, settings=settings)
            for step, values in _by_step(run).items():
                log.log(values, step=step)
            log.finish()
            wandb.teardown()
            made = sorted(Path(scratch).glob(f"wandb/offline-run-*/run-{key}.wandb"))
            target = out / "wandb" / f"offline-run-20000101_000000-{key}"  # the form that `wandb sync` looks for
            target.parent.mkdir(parents=True, exist_ok=True)
            with atomic_folder(target) as aside:
                shutil.copy(made[-1], aside)
        written.append(target)
    return written


def _by_step(run: Run) -> dict[int, dict[str, Any]]:
    found: dict[int, dict[str, Any]] = {}
    for step, tag, seen, value in tagged(run):
        found.setdefault(step, {"seen_tokens": seen} if seen is not None else {})[tag] = value
    return found


def _identity(run: Run) -> str:
    """The hash of recipe and inputs, so that runs of the same name stay apart."""
    try:
        return str(json.loads((run.folder / "manifest.json").read_text(encoding="utf-8"))["identity"])
    except (OSError, ValueError, KeyError):
        return ""


def _beside(folders: Sequence[Path]) -> Path:
    """`curves` beside the run folders: inside one of them it could be taken for a product."""
    return Path(os.path.commonpath([folder.resolve().parent for folder in folders])) / "curves"


def _refuse_inside(out: Path | None, folders: Sequence[Path]) -> None:
    for folder in folders if out else ():
        assert out
        if folder.resolve() in (out.resolve(), *out.resolve().parents):
            raise UserError(
                "the output folder lies inside a run folder",
                where=out,
                expected="a folder of its own: what is written there would become a product of the run",
                todo="choose another --out",
            )


def _missing(package: str, extra: str) -> UserError:
    return UserError(
        f"the package {package} is not installed",
        where="rinsho curves",
        expected=f"an installation with the extra {extra}",
        todo=f"pip install 'rinsho[{extra}]', or choose another --to",
    )


WRITERS: dict[str, Callable[[Sequence[Run], Path, bool], list[Path]]] = {
    "page": _page,
    "png": _png,
    "csv": _csv,
    "tensorboard": _tensorboard,
    "wandb": _wandb,
}
