"""Jobs for test_workers.py; importable by name, as spawned processes need them."""

import os
import time
from pathlib import Path

from rinsho.errors import UserError
from rinsho.workers import run_jobs, stop_if_orphan


def square(number, count):
    for _ in range(number):
        count(1, 10)
    return number * number


def trouble(number, count):
    if number == 3:
        raise UserError("broken", where="file:3", expected="a whole one", todo="repair it")
    if number == 4:
        os._exit(9)
    return number


def sleep(job, count):
    """Leaves the id of its process, then sleeps, then leaves a product unless its run is gone."""
    folder, number, seconds = job
    (Path(folder) / f"{os.getpid()}.pid").touch()
    time.sleep(seconds)
    stop_if_orphan()
    (Path(folder) / f"{number}.product").touch()


def sleep_all(folder, seconds, jobs=4):
    return run_jobs(sleep, [(folder, number, seconds) for number in range(jobs)], 2, lambda *_: None, where="w")
