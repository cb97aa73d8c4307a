"""datatrove's executors for this machine and for Ray, in a process of its own: the driver.

A process and not a thread, because datatrove's executors cannot be stopped half-way, wait for ever on a worker that was
killed, and change the logging and the environment of the process they run in.
"""

from __future__ import annotations

import os
import pickle
import signal
import socket
import tempfile
from collections.abc import Callable, Generator
from contextlib import suppress
from pathlib import Path
from shutil import rmtree
from typing import Any, Literal

from rinsho.corpus.executors import HasProduct, Step, appearing, follow, need, worker_killed
from rinsho.errors import UserError

LOOK_SECONDS = 0.05  # between two looks for products on this machine
DRIVER_END_SECONDS = 10  # what datatrove may take to end once all products are there
SHORT = 24  # characters: the names of the sockets in the scratch folder are limited to 107 bytes, and Ray's are long
OBJECT_STORE_BYTES = 100_000_000  # Ray's shared memory; our tasks hand over files, not objects


def run_driven(
    function: Callable[[Any], object],
    tasks: list[HasProduct],
    *,
    executor: Literal["local", "ray"],
    workers: int,
    logs: Path,
) -> Generator[int, None, None]:
    """The number of each task as its product appears; the driver and all its workers end with this generator.

    Raises:
        UserError: of a task; a worker was killed; the driver ended early; datatrove or Ray is missing.
    """
    need("datatrove", *(["ray"] if executor == "ray" else []))
    from multiprocessing import get_context

    base = tempfile.gettempdir()
    scratch = tempfile.mkdtemp("", "rinsho-", base if len(base) <= SHORT else "/tmp")  # noqa: S108 (a new folder of our own in it)
    running = logs / "running"
    driver = get_context("spawn").Process(
        target=_drive,
        args=(executor, pickle.dumps((function, tasks)), len(tasks)),
        kwargs={"workers": workers, "logs": logs, "parent": os.getpid(), "scratch": scratch},
    )

    def problem(_: bool) -> UserError | None:
        if _killed_worker(running):
            return worker_killed()
        if driver.is_alive():
            return None
        return UserError(
            f"the {executor} executor ended before its tasks",
            where=logs / "driver.log",
            todo="look there for the reason and run the same command again: finished work is taken over",
        )

    try:
        driver.start()
        yield from appearing(tasks, LOOK_SECONDS, problem)
        driver.join(DRIVER_END_SECONDS)
    finally:
        if driver.pid:
            with suppress(ProcessLookupError):
                os.killpg(driver.pid, signal.SIGKILL)  # the driver may be gone, but not yet its workers
            driver.kill()
            driver.join()
        rmtree(scratch, ignore_errors=True)


def _drive(executor: str, work: bytes, tasks: int, *, workers: int, logs: Path, parent: int, scratch: str) -> None:
    """The driver process: a group of its own, so that all its workers can be ended with it; it writes to a log only."""
    os.setsid()
    with (logs / "driver.log").open("ab") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    follow(parent, scratch)
    os.environ["LOGURU_DIAGNOSE"] = "NO"  # else the log shows the values of variables, which may be documents
    os.environ["TMPDIR"] = tempfile.tempdir = scratch
    running = logs / "running"
    if executor == "local":
        from datatrove.executor.local import LocalPipelineExecutor

        step = Step(work, running, parent=os.getpid())
        LocalPipelineExecutor([step], tasks, workers, str(logs), start_method="spawn").run()
        return
    _start_ray(workers, scratch)
    from datatrove.executor.ray import RayPipelineExecutor

    RayPipelineExecutor([Step(work, running)], tasks, workers, logging_dir=str(logs), mem_per_cpu_gb=0).run()
    import ray

    ray.shutdown()


def _start_ray(workers: int, scratch: str) -> None:
    """Joins the cluster of RAY_ADDRESS, or starts a Ray for this run that listens on the loopback only."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if not os.environ.get("RAY_ADDRESS"):
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # the one switch that makes Ray take 127.0.0.1
        options |= {
            "address": "local",
            "num_cpus": workers,
            "include_dashboard": False,
            "object_store_memory": OBJECT_STORE_BYTES,
            "_temp_dir": scratch,
        }
    import ray

    ray.init(**options)


def _killed_worker(running: Path) -> bool:
    """Whether a worker of this machine is gone that had begun a task: datatrove would wait for it for ever."""
    for marker in running.glob("*") if running.exists() else ():
        with suppress(OSError, ValueError):
            process, host = marker.read_text().split()
            if host != socket.gethostname():
                continue
            try:
                os.kill(int(process), 0)
            except ProcessLookupError:
                if marker.exists():
                    return True
    return False
