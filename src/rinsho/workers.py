"""Jobs on processes of their own: spawned, ended with the process that started them, counted while they work."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from rinsho.errors import UserError

LOOK_SECONDS = 0.2  # between two looks: of a worker at its run, of the run at its workers' counts

Job = TypeVar("Job")
Result = TypeVar("Result")
Count = Callable[[int, int], object]  # is told two amounts that grew, for instance documents and characters


def cores() -> int:
    """Processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_jobs(
    function: Callable[[Job, Count], Result], jobs: Sequence[Job], workers: int, count: Count, *, where: str
) -> Iterator[tuple[int, Result]]:
    """(place in `jobs`, result) of every job as it ends; they are begun in order.

    With one worker the jobs run in this process. With more they run in spawned processes (MeCab holds the GIL), so
    `function` must be importable by its name, and jobs and results go through a pickle. Workers end within moments
    when this process is killed, fails or gives up the iterator; a job makes its product whole or not at all.

    `function` is given a job and a `count` to call with what was done since its last call; the sums of all jobs go to
    the `count` given here, in this process. `where` names the setting that limits memory, for the error.

    Raises:
        UserError: a worker was ended from outside. Whatever a job raises is raised here.
    """
    if min(workers, len(jobs)) <= 1:
        for number, job in enumerate(jobs):
            yield number, function(job, count)
        return
    from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
    from concurrent.futures.process import BrokenProcessPool
    from multiprocessing import get_context, sharedctypes

    context = get_context("spawn")
    amounts = sharedctypes.RawArray("q", 2 * len(jobs))  # each job writes into its own two, so nobody waits
    stop = sharedctypes.RawValue("b", 0)
    told = [0, 0]

    def tell() -> None:
        now = [sum(amounts[::2]), sum(amounts[1::2])]
        count(now[0] - told[0], now[1] - told[1])
        told[:] = now

    arguments = (os.getpid(), amounts, stop)
    with ProcessPoolExecutor(min(workers, len(jobs)), context, initializer=_begin, initargs=arguments) as pool:
        try:
            futures = {pool.submit(_run, function, job, number): number for number, job in enumerate(jobs)}
            waiting = set(futures)
            while waiting:
                ended, waiting = wait(waiting, LOOK_SECONDS, FIRST_COMPLETED)
                tell()
                for future in ended:
                    yield futures[future], future.result()
        except BrokenProcessPool:
            raise UserError(
                "a worker process was ended from outside, perhaps for want of memory",
                where=where,
                expected="memory for the largest document in every worker",
                todo="run the same command again, perhaps with fewer workers: finished work is taken over",
            ) from None
        except BaseException:
            stop.value = 1
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def peak_memory_bytes() -> int:
    """Largest resident memory of this process so far; 0 where the system does not say (not Linux)."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM:")), 0)


def stop_if_orphan() -> None:
    """Raises in a worker whose run was killed: to be called right before a product gets its name.

    Workers also end by themselves, but only after a moment, in which the next run may have begun.
    """
    if _parent is not None and os.getppid() != _parent:
        raise UserError("the run that started this worker has ended", where=f"process {os.getpid()}")


_parent: int | None = None  # of a worker: the process whose end is its own
_amounts: Any = None


def _begin(parent: int, amounts: Any, stop: Any) -> None:
    """First thing in a worker. An interrupt from the keyboard reaches the whole group: the run tells its workers."""
    global _parent, _amounts
    _parent, _amounts = parent, amounts
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_run, args=(stop,), daemon=True).start()


def _end_with_run(stop: Any) -> None:
    while os.getppid() == _parent and not stop.value:
        time.sleep(LOOK_SECONDS)
    os._exit(1)


def _run(function: Callable[[Job, Count], Result], job: Job, number: int) -> Result:
    def count(first: int, second: int) -> None:
        _amounts[2 * number] += first
        _amounts[2 * number + 1] += second

    return function(job, count)
