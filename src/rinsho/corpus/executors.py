"""Many tasks, each with one product on disk: on own processes, or through datatrove on this machine, Ray or Slurm.

A task counts as done when its product is there, whatever ran it. So a rerun does what is missing, under any executor.

```
pool           this process ─▶ worker processes
local, ray     this process ─▶ driver (a process that holds datatrove) ─▶ its workers, or Ray's
slurm          this process ─▶ script ─▶ sbatch ─▶ array tasks on the nodes;   this process looks for products
```
"""

from __future__ import annotations

import json
import os
import pickle
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, suppress
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from shutil import rmtree
from typing import Any, Literal, Protocol

from pydantic import Field, field_validator

from rinsho.errors import UserError, from_os_error
from rinsho.files import write_atomic
from rinsho.recipe import Settings

__all__ = ["Executor", "Slurm", "run_tasks", "stop_if_orphan"]

Executor = Literal["pool", "local", "ray", "slurm"]
SLURM_JOBS = "slurm_jobs.json"  # in the scratch folder, while a job is under way
LOOK_SHARE = 20  # a look at very many products is followed by a pause this many times as long
FOLLOW_SECONDS = 0.2  # between two looks whether the process that started us still lives


class HasProduct(Protocol):
    """A task: picklable, with the file or folder that appears whole when it is done (and perhaps `size_bytes`)."""

    @property
    def product(self) -> Path: ...


class Slurm(Settings):
    """What an array job on a Slurm cluster is given. Run folder, inputs and environment must be seen by all nodes."""

    partition: str = Field("", description="Partition of the cluster; empty is its default.")
    time: str = Field("04:00:00", pattern=r"^(\d+-)?\d+:[0-5]\d:[0-5]\d$", description="Time limit of one task.")
    memory_gb_per_cpu: int = Field(4, ge=1, description="Memory of a task in GB for each of its CPUs.")
    cpus_per_task: int = Field(1, ge=1, description="CPUs of a task; one task uses one, more only bring memory.")
    max_jobs: int = Field(64, ge=0, description="Array tasks that run at the same time; 0 sets no limit.")
    environment: str = Field("", description="Shell lines before the work, e.g. source /home/me/venv/bin/activate.")
    options: dict[str, str] = Field({}, description="Further options of sbatch, e.g. account: clinic.")
    wait_seconds: float = Field(10, gt=0, description="Time between two looks for finished tasks.")
    stall_minutes: float = Field(10, gt=0, description="Time without a finished task after which squeue is asked.")

    @field_validator("time", mode="before")
    @classmethod
    def _from_seconds(cls, value: object) -> object:
        """YAML reads an unquoted 24:00:00 as a number of seconds."""
        if isinstance(value, int):
            return f"{value // 3600:02d}:{value // 60 % 60:02d}:{value % 60:02d}"
        return value


def run_tasks(
    function: Callable[[Any], object],
    tasks: Sequence[HasProduct],
    *,
    executor: Executor,
    workers: int,
    slurm: Slurm,
    folder: Path,
    label: str,
) -> Iterator[int]:
    """The position of each task once its product is there: those of an earlier run first, the others as they appear.

    Args:
        function: makes `task.product`, whole or not at all; importable by its name, as the tasks' class is.
        tasks: those with a `size_bytes` are begun in falling order of it.
        executor: `pool` are our own processes; the others need the extra `cluster`.
        workers: processes, or CPUs of a Ray that is started here; 0 is one a core. Slurm has `max_jobs` instead.
        slurm: what an array job is given; for the executor `slurm` only.
        folder: scratch for job scripts and logs; for Slurm seen by all nodes.
        label: names the job.

    Raises:
        UserError: the first one of a task (in words: a task's own; of other errors only kind and place); a worker was
            killed; datatrove or Ray is missing; sbatch is missing or refuses; a Slurm job is gone without its products.
    """
    if (folder / SLURM_JOBS).exists():  # of a run that was interrupted; perhaps this one uses another executor
        from rinsho.corpus.slurm import cancel_earlier

        cancel_earlier(folder / SLURM_JOBS)
    sizes = [getattr(task, "size_bytes", 0) for task in tasks]
    missing = []
    for position in sorted(range(len(tasks)), key=lambda position: (-sizes[position], position)):
        if tasks[position].product.exists():
            yield position
        else:
            missing.append(position)
            _error_path(tasks[position]).unlink(missing_ok=True)
    if not missing:
        return
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    wanted = [tasks[position] for position in missing]
    if executor == "pool":
        found = _pool(function, wanted, min(workers or cores, len(wanted)))
    elif executor == "slurm":
        from rinsho.corpus.slurm import run_slurm

        found = run_slurm(function, wanted, slurm=slurm, folder=folder, label=label)
    else:
        from rinsho.corpus.driver import run_driven

        workers = min(workers or cores, len(wanted))
        found = run_driven(function, wanted, executor=executor, workers=workers, logs=new_folder(folder, label))
    with closing(found):
        for number in found:
            yield missing[number]


# Own processes


def _pool(function: Callable[[Any], object], tasks: list[HasProduct], workers: int) -> Generator[int, None, None]:
    if workers <= 1:
        for number, task in enumerate(tasks):
            _make(function, task)
            yield number
        return
    from concurrent.futures import ProcessPoolExecutor, as_completed
    from concurrent.futures.process import BrokenProcessPool
    from multiprocessing import get_context

    context = get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=follow, initargs=(os.getpid(),)) as pool:
        try:
            futures = {pool.submit(_make, function, task): number for number, task in enumerate(tasks)}
            for future in as_completed(futures):
                future.result()
                yield futures[future]
        except BrokenProcessPool:
            raise worker_killed() from None
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _make(function: Callable[[Any], object], task: HasProduct) -> None:
    function(task)
    if not task.product.exists():
        raise RuntimeError(f"{function.__qualname__} ended without {task.product.name}")


def worker_killed() -> UserError:
    return UserError(
        "a worker process was ended from outside, perhaps for want of memory",
        where="corpus.workers",
        expected="memory for the largest document in every worker",
        todo="run the same command again: finished work is taken over",
    )


_parent: int | None = None  # the process whose end is ours; none in the process that started the run


def follow(parent: int, scratch: str | None = None) -> None:
    """Lets this process end within moments of `parent`, which may have been killed; a driver with group and scratch."""
    global _parent
    first, _parent = _parent is None, parent
    if first:
        threading.Thread(target=_end_with_parent, args=(scratch,), daemon=True).start()


def _end_with_parent(scratch: str | None) -> None:
    while os.getppid() == _parent:
        time.sleep(FOLLOW_SECONDS)
    if scratch:
        rmtree(scratch, ignore_errors=True)
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


def stop_if_orphan() -> None:
    """Raises in a worker whose run was killed: to be called right before a product gets its name.

    Workers also end by themselves, but only after a moment, in which the next run may have begun.
    """
    if _parent is not None and os.getppid() != _parent:
        raise UserError("the run that started this worker has ended", where=f"process {os.getpid()}")


# One step of a datatrove pipeline, and what it tells the run that waits


class Step:
    """What datatrove calls for each rank; picklable, and small when it is sent again for every task.

    Args:
        work: the pickled function and tasks. Bytes are copied, where datatrove would walk through a thousand objects
            for each of a thousand tasks.
        running: folder of marks, one for each task that was begun and has not ended.
        parent: the process whose end is the worker's; without it the one that starts the worker.
    """

    def __init__(self, work: bytes, running: Path, parent: int | None = None) -> None:
        self.work, self.running, self.parent = work, running, parent
        self.cwd, self.path = Path.cwd(), list(sys.path)  # Ray's workers start elsewhere, and lack a user's own filters

    def __repr__(self) -> str:  # datatrove logs it
        return "rinsho corpus task"

    def __call__(self, data: object, rank: int, world_size: int) -> None:  # noqa: ARG002 - as datatrove calls
        """Makes the product of task `rank` unless it is there; an error is written beside the product."""
        if self.parent != os.getpid():
            follow(self.parent or os.getppid())
        os.chdir(self.cwd)
        sys.path += [path for path in self.path if path not in sys.path]
        function, tasks = _loaded(self.work)
        task = tasks[rank]
        if task.product.exists():  # a job that Slurm or Ray began again
            return
        marker = self.running / f"{rank:05d}"
        marker.parent.mkdir(parents=True, exist_ok=True)
        marker.write_text(f"{os.getpid()} {socket.gethostname()}")
        problem = None
        try:
            _make(function, task)
        except Exception as error:
            problem = _told(error, task)
        if problem is not None:
            write_atomic(_error_path(task), json.dumps(vars(problem), ensure_ascii=False))
        marker.unlink(missing_ok=True)
        if problem is not None:  # only here: datatrove logs the traceback, which must not lead to a document
            raise problem


@lru_cache(maxsize=1)
def _loaded(work: bytes) -> Any:
    return pickle.loads(work)  # noqa: S301 - of our own making, from memory or the run's own folder


def _told(error: Exception, task: HasProduct) -> UserError:
    """The error as it may be written down: that of a user as it is, of another its kind and place only."""
    known = error if isinstance(error, UserError) else from_os_error(error)
    if known is not None:
        return UserError(known.what, where=known.where, expected=known.expected, todo=known.todo)
    trace, line = error.__traceback__, "unknown place"
    while trace is not None:
        line = f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}"
        trace = trace.tb_next
    return UserError(
        f"failed with {type(error).__name__} at {line}",
        where=task.product.name,
        todo="run it again with corpus.executor=pool to see the whole error",
    )


def _error_path(task: HasProduct) -> Path:
    return task.product.with_name(task.product.name + ".error.json")


def appearing(
    tasks: Sequence[HasProduct], seconds: float, problem: Callable[[bool], UserError | None]
) -> Iterator[int]:
    """The numbers of the tasks as their products appear.

    Raises the first error of a task, or what `problem` tells, which is asked before each look and told whether the
    last look found something.
    """
    waiting, new = dict(enumerate(tasks)), True
    while waiting:
        begun = time.monotonic()
        over = problem(new)  # asked before the look, so that what was made until the end is still seen
        ready = [number for number, task in waiting.items() if task.product.exists()]
        for number in ready:
            del waiting[number]
            yield number
        for task in waiting.values():
            with suppress(FileNotFoundError):
                told = json.loads(_error_path(task).read_text(encoding="utf-8"))
                raise UserError(told["what"], where=told["where"], expected=told["expected"], todo=told["todo"])
        if over is not None and waiting and not ready:
            raise over
        new = bool(ready)
        if waiting and not ready:
            time.sleep(max(seconds, LOOK_SHARE * (time.monotonic() - begun)))


def need(*packages: str) -> None:
    for package in packages:
        if find_spec(package) is None:
            raise UserError(
                f"{package} is not installed",
                where="corpus.executor",
                expected="datatrove, and ray for Ray",
                todo="pip install 'rinsho[cluster]', or set corpus.executor to pool",
            )


def new_folder(folder: Path, label: str) -> Path:
    """A folder of this run alone: datatrove's marks of finished ranks must not be read by a run of other tasks."""
    name, number = re.sub(r"[^A-Za-z0-9_-]+", "-", label), 1
    while True:
        path = folder.resolve() / f"{name}-{number}"
        with suppress(FileExistsError):
            path.mkdir(parents=True)
            return path
        number += 1
