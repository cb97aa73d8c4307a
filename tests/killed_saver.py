"""Prints for each moment of being killed which checkpoint was left; run as a script: `killed_saver.py FOLDER`."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rinsho.checkpoint import Saver, load_checkpoint

WATCHED = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.chmod", "os.listdir", "os.scandir"}


def tensors_of(step: int) -> dict[str, Tensor]:
    """What the checkpoint of a step holds."""
    return {"a": torch.full((300, 70), float(step)), "b": torch.tensor(step)}


def publish(weights: Mapping[str, Tensor], folder: Path) -> None:
    """A model file."""
    (folder / "model.bin").write_bytes(weights["a"].numpy().tobytes())


def save_two(root: Path, kill_at: int) -> None:
    """Dies at the given file operation below the folder, whatever thread it is in."""
    seen = 0

    def watch(event: str, args: tuple[Any, ...]) -> None:
        nonlocal seen
        if event in WATCHED and str(root) in str(args[0]):
            seen += 1
            if seen == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
    os.fsync = lambda _: None  # type: ignore[assignment,misc]  # a kill loses nothing that a power cut might
    saver = Saver(root, keep=1, background=True)
    for step in (1, 2):
        saver.save(step, {"model": tensors_of(step)}, {"rows": step}, publish)
    saver.wait()


def main(folder: Path) -> None:
    """A fresh folder and a fresh child for every moment, until a child lives to its end."""
    left: list[int | None] = []
    for moment in range(1, 1000):
        root = folder / str(moment)
        root.mkdir()
        child = os.fork()
        if child == 0:
            save_two(root, moment)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        found = load_checkpoint(root)
        if found is None:
            left.append(None)
        else:
            assert found.passed_over == ()
            assert found.state == {"rows": found.step}
            wanted = tensors_of(found.step)
            assert all(torch.equal(found.part("model")[name], tensor) for name, tensor in wanted.items())
            assert (found.folder / "model.bin").read_bytes() == wanted["a"].numpy().tobytes()
            left.append(found.step)
        if not os.WIFSIGNALED(status):
            assert os.WEXITSTATUS(status) == 0
            assert sorted(path.name for path in root.iterdir()) == ["step-00000002"]
            break
    print(json.dumps(left))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
