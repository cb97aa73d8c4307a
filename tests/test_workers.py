"""Jobs on own processes: results, counts, errors, and workers that never outlive their run."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

import toy_jobs
from rinsho.errors import UserError
from rinsho.workers import run_jobs


def until(true, seconds=20):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def running(number):
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("workers", [1, 2])
def test_results_and_counts_do_not_depend_on_the_workers(workers):
    counted = [0, 0]

    def count(first, second):
        counted[0] += first
        counted[1] += second

    found = dict(run_jobs(toy_jobs.square, [5, 3, 2], workers, count, where="w"))
    assert found == {0: 25, 1: 9, 2: 4}
    assert counted == [10, 100]


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_of_a_job_arrives_as_it_was(workers):
    with pytest.raises(UserError) as caught:
        list(run_jobs(toy_jobs.trouble, [3, 1], workers, lambda *_: None, where="w"))
    assert str(caught.value) == "file:3: broken; expected a whole one; repair it"
    assert caught.value.todo == "repair it"


def test_a_worker_that_is_ended_from_outside_is_a_user_error():
    with pytest.raises(UserError, match=r"^encode.workers: a worker process was ended"):
        list(run_jobs(toy_jobs.trouble, [4, 1], 2, lambda *_: None, where="encode.workers"))


def test_no_worker_outlives_a_run_that_is_killed_or_gives_up(tmp_path):
    code = f"import toy_jobs; list(toy_jobs.sleep_all({str(tmp_path)!r}, 30))"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    run = subprocess.Popen([sys.executable, "-c", code], env=environment)
    until(lambda: len(list(tmp_path.glob("*.pid"))) == 2)
    run.kill()
    run.wait()
    until(lambda: not any(running(path.stem) for path in tmp_path.glob("*.pid")))
    assert not list(tmp_path.glob("*.product"))

    other = tmp_path / "other"
    other.mkdir()
    jobs = [(str(other), 0, 0), (str(other), 1, 30)]
    found = run_jobs(toy_jobs.sleep, jobs, 2, lambda *_: None, where="w")
    assert next(found)[0] == 0
    started = time.monotonic()
    found.close()
    assert time.monotonic() - started < 10
    assert not any(running(path.stem) for path in other.glob("*.pid"))
    assert [path.name for path in other.glob("*.product")] == ["0.product"]
