"""Training state on disk, without pickle: tensors as safetensors, the rest as JSON; whole or not at all.

A checkpoint is a folder `step-00000100`. In it are the files of a model folder, where the caller publishes one, and
`resume/` with `state.safetensors` (every tensor whole, whatever the number of processes) and `state.json` (the step,
what else training needs, and a hash of each tensor and of the JSON itself). Pre-training and fine-tuning use it.

A tied head has one name among a module's parameters and is written once; a tensor under two names is written twice.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rinsho.errors import UserError
from rinsho.files import atomic_folder

if TYPE_CHECKING:
    from torch import Tensor

RESUME, TENSORS, STATE = "resume", "state.safetensors", "state.json"

Parts = Mapping[str, Mapping[str, "Tensor"]]
Publish = Callable[[Mapping[str, "Tensor"], Path], None]


class Saver:
    """Writes checkpoints below `root`, one after the other, and keeps the newest `keep`.

    Without `background`, tensors go to the file one at a time: nothing of the state is held twice but the weights that
    are published. With it, `save`
    copies them to the CPU's memory and returns, and one thread writes; what goes wrong there is raised by the next
    `save` or `wait`. A kill at any moment leaves the last whole checkpoint.

    With `writes` false (the other processes of a run), `save` only takes part in gathering.
    """

    def __init__(self, root: Path, keep: int = 2, background: bool = False, *, writes: bool = True) -> None:
        self.root, self.keep, self.writes = root, keep, writes
        self._thread = ThreadPoolExecutor(1, "checkpoint") if background and writes else None
        self._pending: Future[None] | None = None

    def save(
        self,
        step: int,
        parts: Parts,
        state: Mapping[str, Any],
        publish: Publish | None = None,
        *,
        whole: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        """Writes the checkpoint of `step`, after the one before it is done.

        Args:
            step: its number; a folder of the same step is replaced.
            parts: groups of named tensors, for instance {"model": …, "optimizer": …}.
            state: whatever else is needed, in plain JSON values (no NaN).
            publish: called with the tensors of part "model" (read from the file one at a time) and the folder to
                write model files into; from the thread when in the background, so it must not draw random numbers.
            whole: makes a whole tensor of a sharded one; called once for each, in the same order by every process.
        """
        self.wait()
        given = {f"{part}/{name}": tensor.detach() for part, named in parts.items() for name, tensor in named.items()}
        # Wide numbers first, as safetensors does: each tensor then starts at a multiple of its number's size.
        tensors = dict(sorted(given.items(), key=lambda item: -item[1].element_size()))
        if whole is not None and not self.writes:
            for tensor in tensors.values():
                whole(tensor)
        if not self.writes:
            return
        record = {"step": step, "state": json.loads(json.dumps(dict(state), allow_nan=False))}
        if self._thread is None:
            self._write(record, tensors, whole, publish)
            return
        copies = {name: (whole(t) if whole else t).to("cpu", copy=True) for name, t in tensors.items()}
        self._pending = self._thread.submit(self._write, record, copies, None, publish)

    def wait(self) -> None:
        """Returns when nothing is being written any more; raises what went wrong in the background."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def _write(
        self,
        record: dict[str, Any],
        tensors: dict[str, Tensor],
        whole: Callable[[Tensor], Tensor] | None,
        publish: Publish | None,
    ) -> None:
        import torch

        folder = step_folder(self.root, record["step"])
        with atomic_folder(folder) as aside:
            (aside / RESUME).mkdir()
            hashes = _write_tensors(aside / RESUME / TENSORS, tensors, whole)
            record = {**record, "torch": torch.__version__, "tensors": hashes}
            sealed = {"hash": _seal(record), **record}
            (aside / RESUME / STATE).write_text(json.dumps(sealed, indent=1) + "\n", encoding="utf-8")
            if publish is not None:
                publish(open_checkpoint(aside, verify=False).part("model"), aside)
        _prune(self.root, folder, self.keep)


def save_checkpoint(root: Path, step: int, parts: Parts, state: Mapping[str, Any], keep: int = 2) -> Path:
    """Writes the checkpoint of `step` atomically, then deletes all but the newest `keep`."""
    Saver(root, keep).save(step, parts, state)
    return step_folder(root, step)


@dataclass(frozen=True)
class Checkpoint:
    """A saved moment of training; tensors stay on the disk until they are asked for."""

    folder: Path
    step: int
    state: dict[str, Any]
    _file: Any = field(repr=False)
    passed_over: tuple[Path, ...] = ()  # newer ones that are damaged

    def part(self, prefix: str) -> Mapping[str, Tensor]:
        """The tensors whose name starts with `prefix/`, without it; each is read (whole, on the CPU) when taken."""
        head, names = prefix + "/", self._file.keys()
        return _Part(self._file, head, [name.removeprefix(head) for name in names if name.startswith(head)])


class _Part(Mapping[str, "Tensor"]):
    def __init__(self, file: Any, head: str, names: list[str]) -> None:
        self._file, self._head, self._names = file, head, dict.fromkeys(names)

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._names:
            raise KeyError(name)
        tensor: Tensor = self._file.get_tensor(self._head + name)
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def load_checkpoint(root: Path) -> Checkpoint | None:
    """The newest checkpoint below `root` that is whole: every tensor has its hash. None when there is none at all.

    Damaged ones are passed over (`Checkpoint.passed_over` names them): continuing from an older one gives the same
    result, only later.

    Raises:
        UserError: there are checkpoints, and all are damaged. A kill does not do that, a failing disk does.
    """
    passed_over: list[Path] = []
    problem: UserError | None = None
    for folder in reversed(_folders(root)):
        try:
            return replace(open_checkpoint(folder), passed_over=tuple(passed_over))
        except UserError as error:
            problem = problem or error
            passed_over.append(folder)
    if problem is not None:
        raise problem
    return None


def open_checkpoint(folder: Path, verify: bool = True) -> Checkpoint:
    """The checkpoint in `folder`; without `verify` its tensors are taken as they are.

    Raises:
        UserError: it is damaged or half there.
    """
    from safetensors import SafetensorError, safe_open

    try:
        record = json.loads((folder / RESUME / STATE).read_text(encoding="utf-8"))
        told = record.pop("hash")
        # Pages of the file are read when a tensor is used and can be dropped again: no second copy in memory.
        file: Any = safe_open(folder / RESUME / TENSORS, "pt")
        whole = told == _seal(record) and set(file.keys()) == set(record["tensors"])
        if whole and verify:
            with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
                hashes = pool.map(lambda name: _hash(file.get_tensor(name)), record["tensors"])
                whole = list(hashes) == list(record["tensors"].values())
        if whole:
            return Checkpoint(folder, record["step"], record["state"], file)
        what = "the content does not have the hash it was written with"
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        what = f"cannot be read ({type(error).__name__})"
    raise UserError(what, where=folder, expected="a whole checkpoint", todo="delete it, training then starts before it")


def publish_checkpoint(checkpoint: Path, target: Path) -> None:
    """Makes the folder `target` appear whole, with the model files of a checkpoint (not what is in `resume/`).

    They are hard links, which take no space and outlive the checkpoint, or copies where the file system has none.
    """
    with atomic_folder(target) as aside:
        for path in sorted(checkpoint.iterdir()):
            if path.is_file():
                try:
                    os.link(path, aside / path.name)
                except OSError:
                    shutil.copy2(path, aside / path.name)


def step_folder(root: Path, step: int) -> Path:
    """Where below `root` the checkpoint of a step is."""
    return root / f"step-{step:08d}"


def _folders(root: Path) -> list[Path]:
    return sorted(path for path in root.glob("step-*") if path.is_dir()) if root.is_dir() else []


def _prune(root: Path, newest: Path, keep: int) -> None:
    """Leaves the last `keep` up to `newest`.

    Later ones go, too: they were damaged, or training was rolled back behind them.
    """
    folders = _folders(root)
    kept = [folder for folder in folders if folder <= newest][-keep:]
    for old in folders:
        if old not in kept:  # renamed first: what is half deleted must not look like a checkpoint
            gone = root / f".{old.name}.aside"
            shutil.rmtree(gone, ignore_errors=True)
            old.rename(gone)
    for torn in root.glob(".step-*.aside"):  # also what a killed process left half written
        shutil.rmtree(torn, ignore_errors=True)


_DTYPES = {
    "float64": "F64", "float32": "F32", "bfloat16": "BF16", "float16": "F16", "int64": "I64", "int32": "I32",
    "int16": "I16", "int8": "I8", "uint8": "U8", "bool": "BOOL",
}  # fmt: skip


def _write_tensors(
    path: Path, tensors: Mapping[str, Tensor], whole: Callable[[Tensor], Tensor] | None
) -> dict[str, str]:
    """Writes a safetensors file tensor by tensor and returns their hashes.

    The safetensors library wants all of them in memory at once, and a second pass over the file for the hashes.
    """
    header: dict[str, Any] = {}
    end = 0
    for name, tensor in tensors.items():
        begin, end = end, end + math.prod(tensor.shape) * tensor.element_size()
        dtype = _DTYPES[str(tensor.dtype).removeprefix("torch.")]
        header[name] = {"dtype": dtype, "shape": list(tensor.shape), "data_offsets": [begin, end]}
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    hashes: dict[str, str] = {}
    with path.open("wb") as file, ThreadPoolExecutor(1) as beside:
        file.write(len(head).to_bytes(8, "little") + head)
        for name, part in tensors.items():
            tensor = (whole(part) if whole else part).cpu().contiguous()
            hashing = beside.submit(_hash, tensor)
            file.write(_bytes(tensor))
            hashes[name] = hashing.result()
    return hashes


def _bytes(tensor: Tensor) -> Any:
    import torch

    return tensor.reshape(-1).view(torch.uint8).numpy()


def _hash(tensor: Tensor) -> str:
    digest = hashlib.blake2b(f"{tensor.dtype} {list(tensor.shape)}".encode(), digest_size=16)
    digest.update(_bytes(tensor))
    return digest.hexdigest()


def _seal(record: Mapping[str, Any]) -> str:
    return hashlib.blake2b(json.dumps(record).encode(), digest_size=16).hexdigest()
