"""Runs a function of a test module in several processes that reach each other as under torchrun.

    results = run(__file__, "train_a_little", steps=4)     # one result a rank

One child loads the module and forks into the ranks, so it is loaded once. They meet at a store that this process
holds, on a port the system chose, so no other program can take it in between.
"""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent


def run(module: str | Path, function: str, *, ranks: int = 2, seconds: float = 240, **arguments: Any) -> list[Any]:
    """What `function(**arguments)` of the file `module` gives in each of `ranks` processes; all of it plain JSON."""
    from torch.distributed import TCPStore

    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    places = [str(HERE.parent / "src"), str(HERE), os.environ.get("PYTHONPATH", "")]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(places),
        "OMP_NUM_THREADS": "1",
        "GLOO_SOCKET_IFNAME": "lo" if sys.platform == "linux" else "lo0",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(store.port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",  # the store is here, as torchrun's is with its agent
        "WORLD_SIZE": str(ranks),
    }
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, str(module), function, json.dumps(arguments), folder]
        child = subprocess.Popen(command, env=environment, start_new_session=True)
        try:
            assert child.wait(seconds) == 0, "a process failed; see its output"
        finally:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
        return [json.loads((Path(folder) / str(rank)).read_text()) for rank in range(ranks)]


def main(module: str, function: str, arguments: str, folder: str) -> None:
    """Loads the module, becomes the ranks, and ends them all when one fails."""
    spec = importlib.util.spec_from_file_location("two_processes_module", module)
    assert spec and spec.loader
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = loaded
    spec.loader.exec_module(loaded)
    ranks = []
    for rank in range(int(os.environ["WORLD_SIZE"])):
        child = os.fork()  # nothing has run here yet, so there are no threads to lose
        if child == 0:
            os._exit(be_rank(rank, getattr(loaded, function), json.loads(arguments), Path(folder)))
        ranks.append(child)
    for _ in ranks:
        _, status = os.wait()
        if status != 0:
            os.killpg(0, signal.SIGKILL)


def be_rank(rank: int, function: Any, arguments: dict[str, Any], folder: Path) -> int:
    """Exit status of one rank, whose result is then in the folder."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
    try:
        (folder / str(rank)).write_text(json.dumps(function(**arguments)))
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    main(*sys.argv[1:])
