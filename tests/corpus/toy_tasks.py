"""Small tasks for the executors: importable by name, as every worker needs them."""

import os
import secrets
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from rinsho.corpus.executors import Slurm, run_tasks, stop_if_orphan
from rinsho.errors import UserError
from rinsho.run import _remove_asides

FAST = Slurm(wait_seconds=0.1, stall_minutes=0.01)


@dataclass(frozen=True)
class Toy:
    product: Path
    number: int
    seconds: float = 0.0
    size_bytes: int = 0
    pids: Path | None = None  # where each worker leaves its process id
    error: str = ""


def make(task: Toy) -> None:
    """A folder with one file; what it holds depends on the task alone."""
    if task.pids:
        (task.pids / str(os.getpid())).touch()
        with (task.pids / "order").open("a") as file:
            file.write(f"{task.number}\n")
    aside = task.product.with_name(f".{task.product.name}.{os.getpid()}-{secrets.token_hex(4)}.aside")
    aside.mkdir(parents=True)
    (aside / "text").write_text(f"症例{task.number}\n" * 1000)
    time.sleep(task.seconds)
    if task.error == "user":
        raise UserError("the toy is broken", where=f"toy {task.number}", expected="a whole toy", todo="mend it")
    if task.error == "other":
        raise ValueError("患者の本文")
    if task.error == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if task.error == "nothing":
        return
    stop_if_orphan()
    aside.rename(task.product)


def toys(folder: Path, count: int, **changes: object) -> list[Toy]:
    return [Toy(folder / f"{number:03d}", number, **changes) for number in range(count)]


def work(folder: Path, executor: str, tasks: list[Toy], workers: int = 2) -> list[int]:
    """As a stage does it: half-made files of a killed run go first."""
    folder.mkdir(parents=True, exist_ok=True)
    _remove_asides(folder)
    return list(
        run_tasks(make, tasks, executor=executor, workers=workers, slurm=FAST, folder=folder / "jobs", label="toys")
    )
