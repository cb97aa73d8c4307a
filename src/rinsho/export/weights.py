"""Weights read and written one tensor at a time, so that a model needs no more memory than its largest matrix.

Importing this file loads no torch.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from rinsho.bases import ADAPTER_WEIGHTS, readable
from rinsho.errors import UserError
from rinsho.model_folder import read_manifest

if TYPE_CHECKING:
    from torch import Tensor

ALIGNMENT = 8  # bytes; readers map the file and want numbers at even places
CODES = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}


@dataclass(frozen=True)
class Weights:
    """The tensors of a model folder; none is read before it is asked for.

    Attributes:
        folder: the model's.
        config: its `config.json`.
        shapes: of every tensor, in the order of the files and of their headers.
        files: where each lies.
    """

    folder: Path
    config: dict[str, Any]
    shapes: dict[str, tuple[int, ...]]
    files: dict[str, Path]

    def __getitem__(self, name: str) -> Tensor:
        """One tensor, in float32."""
        from safetensors import safe_open

        where = self.files[name]
        with readable(where, "the weights cannot be read", "complete"), safe_open(where, framework="pt") as file:
            tensor: Tensor = file.get_tensor(name).float()
        return tensor

    @property
    def parameters(self) -> int:
        """How many numbers there are."""
        import math

        return sum(math.prod(shape) for shape in self.shapes.values())


def open_weights(folder: Path) -> Weights:
    """The weights of a folder, headers read.

    Raises:
        UserError: no `config.json`, no safetensors, or damaged ones.
    """
    config = _config(folder)
    names = sorted(path for path in folder.glob("*.safetensors") if path.name != ADAPTER_WEIGHTS)
    if not names:
        raise UserError(
            "no weights as safetensors in here", where=folder, expected="config.json and *.safetensors",
            todo="check the path; other forms of weights are not read",
        )  # fmt: skip
    shapes: dict[str, tuple[int, ...]] = {}
    files: dict[str, Path] = {}
    for path in names:
        for name, shape in _header(path).items():
            shapes[name], files[name] = shape, path
    return Weights(folder, config, shapes, files)


def parameters_of(weights: Weights) -> int:
    """How many numbers a model has learned, as its folder says; of a foreign one all that it has."""
    return int(read_manifest(weights.folder).get("parameters") or weights.parameters)


def write_safetensors(
    file: IO[bytes], tensors: Sequence[tuple[str, tuple[int, ...], Callable[[], Tensor]]], dtype: str
) -> None:
    """Writes a safetensors file; each tensor is made when its turn comes and forgotten again.

    Args:
        file: open for writing.
        tensors: name, shape, and what makes the tensor, in the order of the file.
        dtype: float32, bfloat16 or float16.
    """
    import math

    import torch

    number = getattr(torch, dtype)
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, shape, _ in tensors:
        size = math.prod(shape) * number.itemsize
        header[name] = {"dtype": CODES[dtype], "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    file.write(struct.pack("<Q", len(text)) + text)
    for name, shape, make in tensors:
        tensor = make()
        if tuple(tensor.shape) != tuple(shape):
            raise ValueError(f"{name} has another shape than announced")
        file.write(tensor.to(number).contiguous().flatten().view(torch.uint8).numpy().data)


def _config(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        config = None
    if not isinstance(config, dict):
        raise UserError(
            "no model in here", where=folder, expected="a folder with config.json and *.safetensors",
            todo="give the folder of a finished pretrain or finetune run, or of a Hugging Face model",
        )  # fmt: skip
    return config


def _header(path: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes, in the order of the data; refuses a file that was cut off."""
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            rows = json.loads(file.read(min(length, size)))
        rows.pop("__metadata__", None)
        ends = [row["data_offsets"][1] for row in rows.values()]
        if max(ends, default=0) + 8 + length != size:
            raise ValueError("cut off")
        placed = sorted(rows.items(), key=lambda item: (item[1]["data_offsets"][0], item[0]))
        return {name: tuple(row["shape"]) for name, row in placed}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, struct.error):
        raise UserError(
            "the weights are damaged", where=path, expected="a complete safetensors file",
            todo="copy it again, or run the stage that made it again",
        ) from None  # fmt: skip
