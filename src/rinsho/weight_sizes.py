"""Bytes that a model's weights take in a number form, by the headers of its files. Loads no weights and no torch."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from rinsho.bases import ADAPTER_WEIGHTS
from rinsho.errors import UserError

Part = Literal["vector", "matrix", "embedding", "head", "packed"]

# Bytes a number in NF4: 64 numbers share a scale of a byte, 256 of these one of 4 bytes.
NF4 = 0.5 + 1 / 64 + 4 / (64 * 256)
# Bytes a number in the matrices of the blocks, in the embedding and in the head. Q4_0 has these in eight bits, Q4_K_M
# some of the matrices in six.
GGUF_BYTES: Mapping[str, tuple[float, float, float]] = {
    "f16": (2, 2, 2),
    "q8_0": (34 / 32, 34 / 32, 34 / 32),
    "q4_k_m": (0.61, 0.5625, 0.8203),
    "q4_0": (18 / 32, 34 / 32, 34 / 32),
}
NARROW_Q4_K_M = (0.7, 22 / 32, 34 / 32)  # where rows are no whole blocks of 256, as llama.cpp has it
# A number of a matrix of zeros: TQ2_0 where its rows are whole blocks of 256, else q4_0.
ZERO_BYTES = (66 / 256, 18 / 32)


class Stored(NamedTuple):
    """Where a tensor lies: file, place and number of its bytes, shape, and the name of its number form."""

    file: Path
    start: int
    bytes: int
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class Tensor:
    """One tensor of a model's files.

    Attributes:
        bytes: in the file.
        part: what it is in the model; "packed" is quantised already.
    """

    name: str
    shape: tuple[int, ...]
    bytes: int
    part: Part

    @property
    def numbers(self) -> int:
        """How many numbers it has."""
        return math.prod(self.shape)


def read_tensors(folder: Path) -> list[Tensor]:
    """What the weight files of a model folder hold.

    Raises:
        UserError: there are no safetensors, or they are damaged.
    """
    files = sorted(path for path in folder.glob("*.safetensors") if path.name != ADAPTER_WEIGHTS)
    if not files:
        raise UserError(
            "no weights in here", where=folder, expected="a model folder with *.safetensors, or a GGUF file",
            todo="check the path",
        )  # fmt: skip
    return [tensor for path in files for tensor in _header(path)]


def torch_bytes(tensors: Sequence[Tensor], form: str, number: int) -> int:
    """Bytes in memory of weights that transformers opens.

    Args:
        tensors: of the model.
        form: float32, bfloat16, int8 (LLM.int8) or int4 (NF4).
        number: bytes a number of what is not quantised: vectors, embedding, head.
    """

    def size(tensor: Tensor) -> float:
        if tensor.part == "packed":
            return tensor.bytes
        if tensor.part == "matrix" and form == "int8":
            return tensor.numbers + 4 * tensor.shape[0]  # a scale a row
        return tensor.numbers * (NF4 if tensor.part == "matrix" and form == "int4" else number)

    return round(sum(map(size, tensors)))


def converted_bytes(tensors: Sequence[Tensor], number: int) -> int:
    """Bytes of the weights that are put into another number form when they are read.

    transformers 5 does so for several at a time, before they are quantised: all of them may be there at once.
    """
    return sum(
        tensor.numbers * number
        for tensor in tensors
        if tensor.part != "packed" and tensor.bytes != tensor.numbers * number
    )


def largest_matrix(tensors: Sequence[Tensor]) -> int:
    """Numbers of the largest matrix of a block."""
    return max((tensor.numbers for tensor in tensors if tensor.part == "matrix"), default=0)


def exported_bytes(tensors: Sequence[Tensor], form: str) -> int:
    """Bytes of the GGUF file that `rinsho export` would write, without the tokenizer inside (25 bytes a token).

    >>> exported_bytes([Tensor("model.layers.0.mlp.up_proj.weight", (1024, 256), 4 * 1024 * 256, "matrix")], "q8_0")
    346112
    """

    def each(tensor: Tensor) -> float:
        narrow = form == "q4_k_m" and tensor.shape[-1] % 256 > 0
        matrix, embedding, head = NARROW_Q4_K_M if narrow else GGUF_BYTES[form]
        return {"vector": 4, "matrix": matrix, "embedding": embedding, "head": head, "packed": 2}[tensor.part]

    names = {tensor.name for tensor in tensors}
    # llama.cpp's Llama has a gate: a block without one gets a matrix of zeros beside its own
    zeros = sum(
        tensor.numbers * (2 if form == "f16" else ZERO_BYTES[tensor.shape[-1] % 256 > 0])
        for tensor in tensors
        if tensor.name.endswith("up_proj.weight") and tensor.name.replace("up_proj", "gate_proj") not in names
    )
    return round(sum(tensor.numbers * each(tensor) for tensor in tensors) + zeros)


def _header(path: Path) -> list[Tensor]:
    return [
        Tensor(name, row.shape, row.bytes, _part(name, row.shape, row.dtype))
        for name, row in stored_tensors(path).items()
    ]


def stored_tensors(path: Path) -> dict[str, Stored]:
    """Where each tensor of a safetensors file lies, by its name; of the weights nothing is read.

    Raises:
        UserError: the file is cut off or no safetensors file.
    """
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > path.stat().st_size:
                raise ValueError
            header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        return {
            name: Stored(path, 8 + length + start, end - start, tuple(about["shape"]), about["dtype"])
            for name, about in header.items()
            for start, end in [about["data_offsets"]]
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError, struct.error):
        raise UserError(
            "the weights cannot be read", where=path, expected="a whole safetensors file", todo="copy it again"
        ) from None


def _part(name: str, shape: Sequence[int], dtype: str) -> Part:
    if dtype not in ("F64", "F32", "F16", "BF16"):
        return "packed"
    if len(shape) < 2:
        return "vector"
    layer = name.removesuffix(".weight").rpartition(".")[2]
    if layer in ("lm_head", "embed_out", "output"):
        return "head"
    return "embedding" if "embed" in layer or layer in ("wte", "wpe") else "matrix"
