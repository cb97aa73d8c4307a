"""Training state on disk, without pickle: tensors as safetensors, the rest as JSON; whole or not at all.

A checkpoint is a folder `step-00000100` with `state.safetensors` and `state.json`; the JSON carries the hash of the
tensors. Used by pre-training and fine-tuning.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rinsho.files import atomic_folder, file_hash

if TYPE_CHECKING:
    from torch import Tensor

TENSORS, STATE = "state.safetensors", "state.json"


@dataclass(frozen=True)
class Checkpoint:
    """A saved moment of training."""

    step: int
    tensors: dict[str, Tensor]
    state: dict[str, Any]

    def part(self, prefix: str) -> dict[str, Tensor]:
        """The tensors whose name starts with `prefix/`, without it."""
        head = prefix + "/"
        return {name.removeprefix(head): tensor for name, tensor in self.tensors.items() if name.startswith(head)}


def save_checkpoint(
    root: Path, step: int, parts: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any], keep: int = 2
) -> Path:
    """Writes the checkpoint of `step` atomically, then deletes all but the newest `keep`.

    `parts` are groups of named tensors, for instance {"model": …, "optimizer": …, "random": random_state()}; `state`
    is whatever else is needed, in plain JSON values.
    """
    import torch
    from safetensors.torch import save_file

    tensors: dict[str, Tensor] = {}
    seen: set[int] = set()
    for part, named in parts.items():
        for name, tensor in named.items():
            flat = tensor.detach().cpu().contiguous()
            # safetensors refuses tensors that share memory (a tied head): they are written twice.
            tensors[f"{part}/{name}"] = flat.clone() if flat.data_ptr() in seen else flat
            seen.add(flat.data_ptr())
    folder = root / f"step-{step:08d}"
    with atomic_folder(folder) as aside:
        save_file(tensors, aside / TENSORS)
        record = {"step": step, "torch": torch.__version__, "hash": file_hash(aside / TENSORS), "state": dict(state)}
        (aside / STATE).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    for old in _folders(root)[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    return folder


def load_checkpoint(root: Path) -> Checkpoint | None:
    """The newest checkpoint below `root` whose tensors still have their hash; None when there is none.

    A damaged one is passed over: continuing from an older one gives the same result, only later.
    """
    from safetensors.torch import load_file

    for folder in reversed(_folders(root)):
        try:
            record = json.loads((folder / STATE).read_text(encoding="utf-8"))
            if record["hash"] == file_hash(folder / TENSORS):
                return Checkpoint(record["step"], load_file(folder / TENSORS), record["state"])
        except (OSError, ValueError, KeyError):
            continue
    return None


def random_state() -> dict[str, Tensor]:
    """Torch's random state on the CPU and on every GPU, as tensors."""
    import torch

    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states |= {f"cuda{index}": state for index, state in enumerate(torch.cuda.get_rng_state_all())}
    return states


def restore_random_state(states: Mapping[str, Tensor]) -> None:
    """Puts back what `random_state` gave."""
    import torch

    torch.set_rng_state(states["cpu"])
    for name, state in states.items():
        if name.startswith("cuda") and torch.cuda.is_available():
            torch.cuda.set_rng_state(state, int(name.removeprefix("cuda")))


def _folders(root: Path) -> list[Path]:
    return sorted(path for path in root.glob("step-*") if path.is_dir()) if root.is_dir() else []
