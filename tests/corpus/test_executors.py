import multiprocessing
import os
import pickle
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from corpus.toy_tasks import FAST, make, toys, work
from rinsho.corpus import driver, executors
from rinsho.corpus.executors import Slurm, run_tasks
from rinsho.corpus.slurm import write_slurm_script
from rinsho.errors import UserError
from rinsho.recipe import settings

COUNT = 4
EXECUTORS = [
    "pool",
    pytest.param("local", marks=pytest.mark.skipif(not executors.find_spec("datatrove"), reason="needs datatrove")),
]
needs_datatrove = pytest.mark.skipif(
    not executors.find_spec("datatrove"), reason="needs the extra `cluster` (datatrove)"
)


def products(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def logs(folder: Path) -> str:
    return "".join(path.read_text(errors="replace") for path in (folder / "jobs").rglob("*") if path.is_file())


@pytest.fixture
def whole(tmp_path: Path) -> dict[str, bytes]:
    """The products of toys that nothing disturbed."""
    work(tmp_path / "whole", "pool", toys(tmp_path / "whole" / "out", COUNT), 1)
    return products(tmp_path / "whole" / "out")


@pytest.mark.parametrize("executor", EXECUTORS)
def test_all_products_and_only_missing_ones_again(tmp_path, whole, executor, capfd):
    tasks = toys(tmp_path / "out", COUNT)
    assert sorted(work(tmp_path, executor, tasks)) == list(range(COUNT))
    assert products(tmp_path / "out") == whole
    for number in (1, 3):
        (tmp_path / "out" / f"{number:03d}" / "text").unlink()
        (tmp_path / "out" / f"{number:03d}").rmdir()
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    again = work(tmp_path, executor, tasks)
    assert sorted(again) == list(range(COUNT)) and set(again[-2:]) == {1, 3}
    assert products(tmp_path / "out") == whole
    assert before.items() <= {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}.items()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("executor", EXECUTORS)
def test_largest_first(tmp_path, executor):
    (tmp_path / "pids").mkdir()
    sizes = [3, 9, 1, 9, 5]
    tasks = [
        toys(tmp_path / "out", 5, size_bytes=size, pids=tmp_path / "pids")[number] for number, size in enumerate(sizes)
    ]
    work(tmp_path, executor, tasks, 1)
    assert (tmp_path / "pids" / "order").read_text().split() == ["1", "3", "4", "0", "2"]


@pytest.mark.parametrize(
    ("executor", "workers"), [("pool", 1), ("pool", 2), pytest.param("local", 2, marks=needs_datatrove)]
)
def test_an_error_of_a_task_is_the_user_s(tmp_path, whole, executor, workers):
    tasks = toys(tmp_path / "out", COUNT)
    broken = [*tasks[:2], *toys(tmp_path / "out", 3, error="user")[2:], *tasks[3:]]
    with pytest.raises(UserError) as error:
        work(tmp_path, executor, broken, workers)
    assert str(error.value) == "toy 2: the toy is broken; expected a whole toy; mend it"
    assert error.value.where == "toy 2"
    assert not (tmp_path / "out" / "002").exists()
    work(tmp_path, executor, tasks, workers)
    assert products(tmp_path / "out") == whole


def test_an_unforeseen_error_goes_through_the_pool(tmp_path):
    with pytest.raises(ValueError, match="患者の本文"):
        work(tmp_path, "pool", toys(tmp_path / "out", 3, error="other"))


@needs_datatrove
def test_an_unforeseen_error_is_told_without_text(tmp_path):
    with pytest.raises(UserError, match=r"^00\d: failed with ValueError at toy_tasks\.py:\d+; run it again") as error:
        work(tmp_path, "local", toys(tmp_path / "out", 3, error="other"))
    told = str(error.value) + logs(tmp_path) + "".join(path.read_text() for path in (tmp_path / "out").glob("*.json"))
    assert "患者" not in told


@needs_datatrove
def test_the_traceback_that_datatrove_logs_holds_no_text(tmp_path):
    """The driver alone, which nobody ends before it has written its log."""
    (tmp_path / "jobs").mkdir()
    scratch = tempfile.mkdtemp(prefix="t", dir="/tmp")
    tasks = toys(tmp_path / "out", 3, error="other")
    process = multiprocessing.get_context("spawn").Process(
        target=driver._drive,
        args=("local", pickle.dumps((make, tasks)), len(tasks)),
        kwargs={"workers": 2, "logs": tmp_path / "jobs", "parent": os.getpid(), "scratch": scratch},
    )
    process.start()
    process.join(60)
    shutil.rmtree(scratch, ignore_errors=True)
    assert process.exitcode == 1
    assert "Traceback" in logs(tmp_path)
    assert "患者" not in logs(tmp_path)


@pytest.mark.parametrize("executor", EXECUTORS)
def test_a_killed_worker(tmp_path, executor):
    tasks = toys(tmp_path / "out", 3, seconds=0.2)
    with pytest.raises(UserError, match="ended from outside"):
        work(tmp_path, executor, [*tasks[:1], *toys(tmp_path / "out", 2, error="killed")[1:], *tasks[2:]])


@pytest.mark.parametrize(
    ("executor", "error"), [("pool", RuntimeError), pytest.param("local", UserError, marks=needs_datatrove)]
)
def test_a_task_without_its_product(tmp_path, executor, error):
    with pytest.raises(error, match=r"RuntimeError|ended without 000"):
        work(tmp_path, executor, toys(tmp_path / "out", 1, error="nothing"))


@pytest.mark.parametrize("executor", EXECUTORS)
def test_killed_run_leaves_no_workers_and_continues(tmp_path, executor):
    work(tmp_path / "whole", "pool", toys(tmp_path / "whole" / "out", 12), 1)
    (tmp_path / "pids").mkdir()
    code = (
        f"from pathlib import Path; from corpus.toy_tasks import toys, work; folder = Path({str(tmp_path)!r}); "
        f"work(folder, {executor!r}, toys(folder / 'out', 12, seconds=0.3, pids=folder / 'pids'))"
    )
    scratch = Path(tempfile.mkdtemp(prefix="t", dir="/tmp"))  # short, as the executor wants it
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "TMPDIR": str(scratch)}
    run = subprocess.Popen([sys.executable, "-c", code], env=environment)
    wait(lambda: (tmp_path / "out").exists() and len(whole_products(tmp_path / "out")) >= 1)
    run.kill()
    run.wait()
    done = whole_products(tmp_path / "out")
    assert 1 <= len(done) < 6
    wait(lambda: not any(running(int(path.name)) for path in (tmp_path / "pids").glob("[0-9]*")))
    assert list(scratch.iterdir()) == []
    scratch.rmdir()
    assert len(whole_products(tmp_path / "out")) <= len(done) + 2  # those that ended within the moment of the kill
    again = work(tmp_path, executor, toys(tmp_path / "out", 12))
    assert sorted(again) == list(range(12))
    assert products(tmp_path / "out") == products(tmp_path / "whole" / "out")
    assert whole_products(tmp_path / "out") == sorted(path.name for path in (tmp_path / "out").iterdir())


@needs_datatrove
def test_a_run_that_is_given_up_ends_its_workers(tmp_path):
    (tmp_path / "pids").mkdir()
    tasks = toys(tmp_path / "out", 6, seconds=0.2, pids=tmp_path / "pids")
    found = run_tasks(make, tasks, executor="local", workers=2, slurm=FAST, folder=tmp_path / "jobs", label="toys")
    next(found)
    found.close()
    wait(lambda: not any(running(int(path.name)) for path in (tmp_path / "pids").glob("[0-9]*")), 2)
    assert len(whole_products(tmp_path / "out")) < 6


@pytest.mark.parametrize(("executor", "package"), [("local", "datatrove"), ("ray", "ray"), ("slurm", "datatrove")])
def test_a_missing_package_names_the_extra(tmp_path, monkeypatch, executor, package):
    find_spec = executors.find_spec
    monkeypatch.setattr(executors, "find_spec", lambda name: None if name == package else find_spec(name) or True)
    with pytest.raises(UserError, match=rf"{package} is not installed; .*rinsho\[cluster\]"):
        work(tmp_path, executor, toys(tmp_path / "out", 2))


def wait(condition, seconds=30):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


def whole_products(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def running(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


# Slurm: the commands are scripts that run the array tasks on this machine

SBATCH = """
import os, re, subprocess, sys, time
from pathlib import Path
home = Path(__file__).parent
with (home / "calls").open("a") as file: file.write(" ".join(sys.argv[1:]) + "\\n")
if (home / "refuse").exists(): sys.exit("sbatch: error: invalid partition specified: none")
script = Path(sys.argv[-1])
job = str(len((home / "calls").read_text().splitlines()) + 100)
options = dict(re.findall(r"^#SBATCH --([a-z-]+)=(.*)$", script.read_text(), re.M))
first, last, most = map(int, re.fullmatch(r"(\\d+)-(\\d+)%(\\d+)", options["array"]).groups())
offset = dict(x.split("=") for x in next(w for w in sys.argv if "--export" in w).split(",")[1:])["RUN_OFFSET"]
runner = home / f"runner{job}.py"
runner.write_text(f'''
import os, subprocess
from concurrent.futures import ThreadPoolExecutor
def task(number):
    out = {options["output"]!r}.replace("%A", "{job}").replace("%a", str(number))
    env = os.environ | dict(SLURM_ARRAY_TASK_ID=str(number), SLURM_JOB_ID="{job}", SLURM_NODELIST="node1", RUN_OFFSET="{offset}")
    with open(out, "wb") as file: subprocess.run(["bash", {str(script)!r}], env=env, stdout=file, stderr=file)
with ThreadPoolExecutor({most}) as pool: list(pool.map(task, range({first}, {last} + 1)))
os.unlink({str(home)!r} + "/job{job}")
''')
process = subprocess.Popen([sys.executable, runner], start_new_session=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
(home / f"job{job}").write_text(str(process.pid))
print(f"{job};cluster1")
"""
SQUEUE = """
import sys
from pathlib import Path
jobs = next(w for w in sys.argv if w.startswith("--jobs=")).removeprefix("--jobs=").split(",")
alive = [job for job in jobs if (Path(__file__).parent / f"job{job}").exists()]
if not alive: sys.exit("slurm_load_jobs error: Invalid job id specified")
print("\\n".join(alive))
"""
SCANCEL = """
import os, signal, sys
from pathlib import Path
with (Path(__file__).parent / "cancelled").open("a") as file: file.write(" ".join(sys.argv[1:]) + "\\n")
for job in sys.argv[1:]:
    path = Path(__file__).parent / f"job{job}"
    if path.exists():
        try: os.killpg(int(path.read_text()), signal.SIGKILL)
        except ProcessLookupError: pass
        path.unlink(missing_ok=True)
"""
SRUN = """
import os, sys
assert sys.argv[1:3] == ["-n", "1"]
os.execvp(sys.argv[3], sys.argv[3:])
"""
SCONTROL = "import sys\nprint(sys.argv[-1])\n"


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """A folder with sbatch and its like on PATH."""
    home = tmp_path / "cluster"
    home.mkdir()
    for name, code in {
        "sbatch": SBATCH,
        "squeue": SQUEUE,
        "scancel": SCANCEL,
        "srun": SRUN,
        "scontrol": SCONTROL,
    }.items():
        (home / name).write_text(f"#!{sys.executable}\n{code}")
        (home / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{home}:{Path(sys.executable).parent}:/usr/bin:/bin")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    yield home
    for path in home.glob("job*"):
        os.killpg(int(path.read_text()), signal.SIGKILL)


@needs_datatrove
def test_slurm_script_line_by_line(tmp_path):
    slurm = Slurm(
        partition="cpu", time="01:30:00", memory_gb_per_cpu=6, cpus_per_task=2, max_jobs=5,
        environment="module load python\nsource venv/bin/activate", options={"account": "clinic", "exclusive": ""},
    )  # fmt: skip
    script = write_slurm_script(make, toys(tmp_path / "out", 12), slurm=slurm, folder=tmp_path / "jobs", label="pieces")
    folder = tmp_path / "jobs" / "pieces-1"
    assert script == folder / "launch_script.slurm"
    assert script.read_text().splitlines() == [
        "#!/bin/bash",
        "#SBATCH --cpus-per-task=2",
        "#SBATCH --mem-per-cpu=6G",
        "#SBATCH --nodes=1",
        "#SBATCH --partition=cpu",
        "#SBATCH --job-name=rinsho-pieces-1",
        "#SBATCH --time=01:30:00",
        f"#SBATCH --output={folder}/slurm_logs/%A_%a.out",
        f"#SBATCH --error={folder}/slurm_logs/%A_%a.out",
        "#SBATCH --array=0-11%5",
        "#SBATCH --account=clinic",
        "#SBATCH --exclusive",
        "#SBATCH --requeue",
        'echo "Starting data processing job rinsho-pieces-1"',
        "export LOGURU_DIAGNOSE=NO",
        "module load python",
        "source venv/bin/activate",
        "set -xe",
        "export PYTHONUNBUFFERED=TRUE",
        f"srun -n 1 python -m datatrove.tools.launch_pickled_pipeline {folder}/executor.pik",
    ]


@needs_datatrove
def test_slurm_script_of_the_defaults(tmp_path):
    lines = (
        write_slurm_script(make, toys(tmp_path, 2), slurm=Slurm(max_jobs=0), folder=tmp_path, label="x")
        .read_text()
        .splitlines()
    )
    assert "#SBATCH --array=0-1" in lines
    assert not any("partition" in line or "qos" in line or "mail" in line for line in lines)
    assert lines[-1].startswith(f"srun -n 1 {sys.executable} -m ")


def test_slurm_settings():
    assert settings(Slurm, {"time": 86400}, "corpus slurm").time == "24:00:00"  # what YAML makes of 24:00:00
    assert Slurm(time="2-00:00:00").time == "2-00:00:00"
    with pytest.raises(UserError, match="time is 'a day'"):
        settings(Slurm, {"time": "a day"}, "corpus slurm")


@pytest.mark.slow
@needs_datatrove
def test_slurm_from_end_to_end(tmp_path, whole, cluster, capfd, monkeypatch):
    tasks = toys(tmp_path / "out", COUNT)
    assert sorted(work(tmp_path, "slurm", tasks[:1])) == [0]
    assert "toys: Slurm array job 101, 1 tasks, logs in " in capfd.readouterr().err
    monkeypatch.setattr("rinsho.corpus.slurm.ARRAY_TASKS", 2)  # three are missing: more than an array may have
    assert sorted(work(tmp_path, "slurm", tasks)) == list(range(COUNT))
    assert products(tmp_path / "out") == whole
    assert "#SBATCH --array=0-1%64" in (tmp_path / "jobs" / "toys-2" / "launch_script.slurm").read_text()
    assert [call.split()[:-1] for call in (cluster / "calls").read_text().splitlines()] == [
        ["--parsable", "--export=ALL,RUN_OFFSET=0"],
        ["--parsable", "--export=ALL,RUN_OFFSET=0"],
        ["--parsable", "--export=ALL,RUN_OFFSET=1", "--dependency=afterany:102"],
    ]
    work(tmp_path, "slurm", tasks)
    assert len((cluster / "calls").read_text().splitlines()) == 3
    assert not (tmp_path / "jobs" / "slurm_jobs.json").exists()


@needs_datatrove
def test_slurm_error_of_a_task_ends_the_job(tmp_path, cluster):
    tasks = [*toys(tmp_path / "out", 1, error="user"), *toys(tmp_path / "out", 3, seconds=20)[1:]]
    with pytest.raises(UserError, match=r"^toy 0: the toy is broken; expected a whole toy; mend it$"):
        work(tmp_path, "slurm", tasks)
    assert (cluster / "cancelled").read_text() == "101\n"


@needs_datatrove
def test_slurm_job_that_is_gone(tmp_path, cluster):
    with pytest.raises(UserError, match=r"slurm_logs: the Slurm job 101 is gone without all its products"):
        work(tmp_path, "slurm", toys(tmp_path / "out", 2, error="killed"))


@needs_datatrove
def test_slurm_job_of_a_killed_run_is_ended_first(tmp_path, whole, cluster):
    code = (
        f"from pathlib import Path; from corpus.toy_tasks import toys, work; folder = Path({str(tmp_path)!r}); "
        f"work(folder, 'slurm', toys(folder / 'out', {COUNT}, seconds=20))"
    )
    run = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    wait((tmp_path / "jobs" / "slurm_jobs.json").exists)
    run.kill()
    run.wait()
    assert (cluster / "job101").exists()
    work(tmp_path, "pool", toys(tmp_path / "out", COUNT))  # whatever the next run uses
    assert (cluster / "cancelled").read_text() == "101\n"
    assert products(tmp_path / "out") == whole


@needs_datatrove
def test_slurm_without_sbatch(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(UserError, match=r"sbatch is not on this machine; .* by hand, `sbatch (\S+)`") as error:
        work(tmp_path, "slurm", toys(tmp_path / "out", 2))
    script = str(error.value).split("`")[1].split()[1]
    assert Path(script).stat().st_mode & stat.S_IRUSR


@needs_datatrove
def test_slurm_refuses(tmp_path, cluster):
    (cluster / "refuse").touch()
    with pytest.raises(UserError, match=r"sbatch refused the job \(sbatch: error: invalid partition"):
        work(tmp_path, "slurm", toys(tmp_path / "out", 2))
