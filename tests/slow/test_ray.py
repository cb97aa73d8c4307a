"""The tasks of the corpus room on a real Ray that is started here, on the loopback (a minute)."""

import hashlib
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

from corpus.toy_tasks import toys, work
from rinsho import samples
from rinsho.corpus import Recipe, run
from rinsho.errors import UserError

pytestmark = [
    pytest.mark.slow,
    pytest.mark.enable_socket,
    pytest.mark.skipif(
        not (find_spec("ray") and find_spec("datatrove")),
        reason="needs ray and datatrove: pip install 'rinsho[cluster]'",
    ),
]


def products(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def ray_processes() -> list[str]:
    """The name of every process of a Ray on this machine."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if "raylet" in command or "gcs_server" in command or command.startswith("ray::"):
            found.append(command[:60])
    return found


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch):
    """A Ray of the test's own, not the one the user may have, which must be gone afterwards."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    before = ray_processes()
    yield
    until = time.monotonic() + 20  # Ray's workers end by themselves when the rest of it was killed
    while sorted(ray_processes()) != sorted(before):
        assert time.monotonic() < until
        time.sleep(0.1)


def test_toys(tmp_path, capfd):
    work(tmp_path / "whole", "pool", toys(tmp_path / "whole" / "out", 6), 1)
    tasks = toys(tmp_path / "out", 6)
    assert sorted(work(tmp_path, "ray", tasks[:3])) == [0, 1, 2]
    assert sorted(work(tmp_path, "ray", tasks)) == list(range(6))
    assert products(tmp_path / "out") == products(tmp_path / "whole" / "out")
    assert capfd.readouterr() == ("", "")
    assert len(list((tmp_path / "jobs" / "toys-2" / "logs").iterdir())) == 3


def test_an_error_of_a_task_is_the_user_s(tmp_path):
    with pytest.raises(UserError) as error:
        work(tmp_path, "ray", [*toys(tmp_path / "out", 1, error="user"), *toys(tmp_path / "out", 3)[1:]])
    assert str(error.value) == "toy 0: the toy is broken; expected a whole toy; mend it"


def test_a_killed_worker(tmp_path):
    with pytest.raises(UserError, match="ended from outside"):
        work(tmp_path, "ray", toys(tmp_path / "out", 2, error="killed"))


@pytest.mark.parametrize("executor", ["local", "ray"])
def test_the_whole_room(tmp_path, executor):
    """Every product of the corpus room is that of the pool, byte for byte."""
    samples.write(samples.Recipe(text_size_mb=0.5, test_rows=8, shards=4), tmp_path / "samples")
    recipe = Recipe(piece_mb=0.02, validation_fraction=0.1, workers=2)
    run(recipe, [tmp_path / "samples" / "text"], tmp_path / "pool")
    run(recipe.model_copy(update={"executor": executor}), [tmp_path / "samples" / "text"], tmp_path / executor)
    for part in ("shards", "validation", "dropped"):
        assert products(tmp_path / executor / part) == products(tmp_path / "pool" / part)
    assert len(products(tmp_path / "pool" / "shards")) > 1
    assert not (tmp_path / executor / "partial").exists()
