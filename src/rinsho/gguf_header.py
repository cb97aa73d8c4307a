"""What stands at the beginning of a GGUF file: read before llama.cpp sees it, which ends the process over some of them.

Reads no weights, needs no package.
"""

from __future__ import annotations

import math
import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rinsho.errors import UserError

MAGIC = b"GGUF"
VERSIONS = (2, 3)
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
TEXT, ARRAY = 8, 9
DIMENSIONS = 4  # of a tensor, at most
# entries of the architecture that are whole numbers; those of a layer may be lists, with one for each
COUNTS = ("block_count", "context_length", "embedding_length", "attention.key_length", "attention.value_length")
LAYER_COUNTS = ("feed_forward_length", "attention.head_count", "attention.head_count_kv")
# type -> numbers a block, bytes a block; a file may hold others, whose size is then not checked
BLOCKS = {0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 10: (256, 84),
          11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210), 30: (1, 2), 34: (256, 54),
          35: (256, 66)}  # fmt: skip
# general.file_type, the type of most matrices
FILE_TYPES = {0: "f32", 1: "f16", 2: "q4_0", 3: "q4_1", 7: "q8_0", 8: "q5_0", 9: "q5_1", 10: "q2_k", 11: "q3_k_s",
              12: "q3_k_m", 13: "q3_k_l", 14: "q4_k_s", 15: "q4_k_m", 16: "q5_k_s", 17: "q5_k_m", 18: "q6_k",
              32: "bf16"}  # fmt: skip


@dataclass(frozen=True)
class Header:
    """The header of a GGUF file.

    Attributes:
        metadata: its entries by key; arrays are lists. `COUNTS`, `LAYER_COUNTS` and split.count are whole numbers where
            they are there.
        shapes: of its tensors by name, the fastest dimension first.
        size_bytes: of the whole file.
    """

    metadata: dict[str, Any]
    shapes: dict[str, tuple[int, ...]]
    size_bytes: int

    @property
    def architecture(self) -> str:
        """`general.architecture`; empty where the file has none."""
        value = self.metadata.get("general.architecture")
        return value if isinstance(value, str) else ""

    @property
    def file_type(self) -> str:
        """The type of most matrices: f16, q8_0, q4_0, q4_k_m ..."""
        number = self.metadata.get("general.file_type")
        return FILE_TYPES.get(number, f"type {number}") if isinstance(number, int) else "unknown"

    def of(self, key: str, default: Any = None) -> Any:
        """An entry of the architecture: `of("context_length")`."""
        return self.metadata.get(f"{self.architecture}.{key}", default)


def read_header(path: Path) -> Header:
    """The header of a GGUF file.

    Raises:
        UserError: there is no such file, it is none, it is cut off or damaged, or of a version that is not known.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            if file.read(4) != MAGIC:
                raise UserError(
                    "not a GGUF file", where=path, expected="a file that begins with GGUF",
                    todo="make one: rinsho export MODEL --to gguf",
                )  # fmt: skip
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _header(_Reader(data, path), size)
    except OSError as error:
        raise UserError(
            "cannot be read" if path.exists() else "no such file", where=path, expected="a GGUF file",
            todo="check the path",
        ) from error  # fmt: skip


class _Reader:
    """Numbers and texts, one after another."""

    def __init__(self, data: mmap.mmap, path: Path) -> None:
        self.data, self.path, self.at = data, path, len(MAGIC)

    def numbers(self, form: str, count: int = 1) -> tuple[Any, ...]:
        end = self.at + struct.calcsize("<" + form) * count
        if end > len(self.data):
            raise cut_off(self.path)
        found = struct.unpack_from(f"<{count}{form}", self.data, self.at)
        self.at = end
        return found

    def number(self, form: str) -> Any:
        return self.numbers(form)[0]

    def text(self) -> str:
        size = self.number("Q")
        if self.at + size > len(self.data):
            raise cut_off(self.path)
        self.at += size
        return self.data[self.at - size : self.at].decode("utf-8", "backslashreplace")  # what differs stays so

    def value(self, kind: int) -> Any:
        if kind == TEXT:
            return self.text()
        if kind == ARRAY:
            inner, count = self.number("I"), self.number("Q")
            if count > len(self.data):
                raise cut_off(self.path)
            if inner == ARRAY:  # llama.cpp does not read them either
                raise damaged(self.path, "an array of arrays")
            if inner in SCALARS:
                return list(self.numbers(SCALARS[inner], count))
            return [self.value(inner) for _ in range(count)]
        if kind not in SCALARS:
            raise damaged(self.path, "an entry of no known type")
        return self.number(SCALARS[kind])


def _header(reader: _Reader, size: int) -> Header:
    version = reader.number("I")
    if version not in VERSIONS:
        raise UserError(
            f"GGUF version {version}", where=reader.path, expected=f"version {VERSIONS[-1]}",
            todo="a newer rinsho and llama-cpp-python may read it",
        )  # fmt: skip
    tensors, entries = reader.number("Q"), reader.number("Q")
    if max(tensors, entries) > size:
        raise cut_off(reader.path)
    metadata = {}
    for _ in range(entries):
        key = reader.text()
        metadata[key] = reader.value(reader.number("I"))
    shapes, end = {}, 0
    for _ in range(tensors):
        name = reader.text()
        dimensions = reader.number("I")
        if dimensions > DIMENSIONS:
            raise damaged(reader.path, f"a tensor of {dimensions} dimensions")
        shape = reader.numbers("Q", dimensions)
        kind, offset = reader.number("I"), reader.number("Q")
        shapes[name] = shape
        numbers, block = BLOCKS.get(kind, (1, 0))
        end = max(end, offset + math.prod(shape) // numbers * block)
    alignment = metadata.get("general.alignment", 32)
    if not isinstance(alignment, int) or alignment < 1 or -(-reader.at // alignment) * alignment + end > size:
        raise cut_off(reader.path)
    header = Header(metadata, shapes, size)
    _check_counts(header, reader.path)
    return header


def _check_counts(header: Header, path: Path) -> None:
    told = {key: header.of(key, 0) for key in (*COUNTS, *LAYER_COUNTS)}
    told["split.count"] = header.metadata.get("split.count", 0)
    for key, value in told.items():
        values = value if key in LAYER_COUNTS and isinstance(value, list) else [value]
        if not all(type(one) is int and one >= 0 for one in values):
            raise damaged(path, f"{key} is no whole number")


def damaged(path: Path, what: str) -> UserError:
    """The error of a file with an entry that cannot be right."""
    return UserError(
        f"damaged: {what}", where=path, expected="a whole GGUF file",
        todo="make it again (rinsho export) or fetch it again",
    )  # fmt: skip


def cut_off(path: Path) -> UserError:
    """The error of a file that ends too early."""
    return UserError(
        "the file is cut off or damaged", where=path, expected="a whole GGUF file",
        todo="make it again (rinsho export) or copy it again",
    )  # fmt: skip
