"""The tasks of the corpus room as an array job of a Slurm cluster: script, submission, and waiting for the products."""

from __future__ import annotations

import json
import math
import pickle
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from rinsho.corpus.executors import SLURM_JOBS, HasProduct, Slurm, Step, appearing, need, new_folder
from rinsho.errors import UserError
from rinsho.files import write_atomic

CANCEL_SECONDS = 120  # what Slurm may take to end an earlier job
END_SECONDS = 30  # how long to wait for the job to leave the queue when its products are there: it still writes logs
ARRAY_TASKS = 1000  # Slurm's own limit of tasks in one array (MaxArraySize) is 1001 unless set otherwise


def write_slurm_script(
    function: Callable[[Any], object], tasks: Sequence[HasProduct], *, slurm: Slurm, folder: Path, label: str
) -> Path:
    """The script of an array job with one array task for each of `tasks`, in a new folder below `folder`.

    Beside it lies what its tasks load: datatrove's executor with the function and the tasks, pickled. It is the one
    pickle of the corpus room. It is written and read by the same user in the same run folder and never read from
    elsewhere: whoever may write into the run folder may run code as its user, as with every shared script.
    """
    need("datatrove")
    import dill
    from loguru import logger

    logger.disable("datatrove")
    from datatrove.executor.slurm import SlurmPipelineExecutor

    logs = new_folder(folder, label)
    environment = ["export LOGURU_DIAGNOSE=NO", *slurm.environment.strip().splitlines()]
    job = SlurmPipelineExecutor(
        [Step(pickle.dumps((function, list(tasks))), logs / "running")],
        tasks=len(tasks),
        time=slurm.time,
        partition=slurm.partition,
        cpus_per_task=slurm.cpus_per_task,
        mem_per_cpu_gb=slurm.memory_gb_per_cpu,
        workers=slurm.max_jobs or -1,
        job_name=f"rinsho-{logs.name}",
        qos=slurm.options.get("qos", ""),  # datatrove's own default is a name that few clusters know
        env_command=("\n" + 8 * " ").join(environment),  # as deep as datatrove's template, which it then dedents
        sbatch_args=slurm.options,
        max_array_size=ARRAY_TASKS,
        logging_dir=str(logs),
    )
    python = "python" if slurm.environment else shlex.quote(sys.executable)
    pickled = shlex.quote(str(logs / "executor.pik"))
    options = {
        key: shlex.quote(str(value)) if value else ""
        for key, value in job.get_sbatch_args(min(len(tasks), ARRAY_TASKS)).items()
        if value or key in {"requeue", *slurm.options}
    }
    text = job.get_launch_file_contents(
        options, f"srun -n 1 {python} -m datatrove.tools.launch_pickled_pipeline {pickled}"
    )
    write_atomic(logs / "executor.pik", dill.dumps(job))
    write_atomic(logs / "ranks_to_run.json", json.dumps(list(range(len(tasks)))))
    write_atomic(logs / "launch_script.slurm", text)
    return logs / "launch_script.slurm"


def run_slurm(
    function: Callable[[Any], object], tasks: Sequence[HasProduct], *, slurm: Slurm, folder: Path, label: str
) -> Generator[int, None, None]:
    """The number of each task as its product appears: submits an array job and waits; an interrupt leaves the job.

    Raises:
        UserError: of a task (the job is then cancelled), no sbatch here, a refused job, or one that is gone.
    """
    noted = folder / SLURM_JOBS
    script = write_slurm_script(function, tasks, slurm=slurm, folder=folder, label=label)
    jobs = _submit(script, math.ceil(len(tasks) / ARRAY_TASKS), noted)
    print(f"{label}: Slurm array job {', '.join(jobs)}, {len(tasks)} tasks, logs in {script.parent}", file=sys.stderr)
    last = time.monotonic()

    def problem(new: bool) -> UserError | None:
        nonlocal last
        if new:
            last = time.monotonic()
        if time.monotonic() - last < 60 * slurm.stall_minutes:
            return None
        if _in_queue(jobs):
            last = time.monotonic()
            return None
        return UserError(
            f"the Slurm job {', '.join(jobs)} is gone without all its products",
            where=script.parent / "slurm_logs",
            expected="array tasks that end within their time and memory",
            todo="look there for the reason, perhaps raise corpus.slurm.time or memory_gb_per_cpu, and run the same "
            "command again: only what is missing is submitted",
        )

    try:
        yield from appearing(tasks, slurm.wait_seconds, problem)
    except UserError:
        _command("scancel", *jobs)
        raise
    except KeyboardInterrupt:
        print(
            f"{label}: the job {', '.join(jobs)} goes on; `scancel {' '.join(jobs)}` ends it, and the same command "
            "takes over what it has finished",
            file=sys.stderr,
        )
        raise
    until = time.monotonic() + END_SECONDS
    while _in_queue(jobs) and time.monotonic() < until:
        time.sleep(min(1, slurm.wait_seconds))
    noted.unlink(missing_ok=True)


def _submit(script: Path, arrays: int, noted: Path) -> list[str]:
    """The ids of the jobs, also written to `noted`; several when there are more tasks than an array may have."""
    jobs: list[str] = []
    for offset in range(arrays):
        after = [f"--dependency=afterany:{jobs[-1]}"] if jobs else []
        try:
            code, out, told = _command("sbatch", "--parsable", f"--export=ALL,RUN_OFFSET={offset}", *after, str(script))
        except FileNotFoundError:
            _not_here(script, arrays)
        if code:
            _command("scancel", *jobs) if jobs else None
            raise UserError(
                f"sbatch refused the job ({(told.strip() or out.strip() or f'status {code}').splitlines()[-1]})",
                where=script,
                expected="settings that the cluster allows",
                todo="correct corpus.slurm and run the same command again",
            )
        jobs.append(out.strip().splitlines()[-1].split(";")[0])
        write_atomic(noted, json.dumps(jobs))
    return jobs


def _not_here(script: Path, arrays: int) -> NoReturn:
    command = f"sbatch {shlex.quote(str(script))}"
    if arrays > 1:
        offsets = " ".join(map(str, range(arrays)))
        command = f"for k in {offsets}; do sbatch --export=ALL,RUN_OFFSET=$k {shlex.quote(str(script))}; done"
    raise UserError(
        "sbatch is not on this machine",
        where="corpus.executor",
        expected="a machine of the cluster that submits jobs",
        todo=f"submit the written job there by hand, `{command}`, and when it has ended run the same command again",
    )


def cancel_earlier(noted: Path) -> None:
    """Ends the job of a run that was interrupted: two jobs would do the same work, and its half-made files are gone."""
    try:
        jobs = json.loads(noted.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return
    with suppress(FileNotFoundError):
        until = time.monotonic() + CANCEL_SECONDS
        if _in_queue(jobs):
            _command("scancel", *jobs)
        while _in_queue(jobs):
            if time.monotonic() > until:
                raise UserError(
                    "the Slurm job of an earlier run does not end",
                    where=", ".join(jobs),
                    expected="a job that scancel ends",
                    todo="wait until squeue no longer shows it and run the same command again",
                )
            time.sleep(1)
    noted.unlink(missing_ok=True)


def _in_queue(jobs: Sequence[str]) -> bool:
    """Whether Slurm still has one of the jobs, or cannot say at the moment."""
    code, out, told = _command("squeue", "--noheader", "--format=%i", f"--jobs={','.join(jobs)}")
    return bool(out.strip()) if code == 0 else "Invalid job id" not in told


def _command(*words: str) -> tuple[int, str, str]:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr
