"""Number forms of GGUF files: which tensor is written in which, and what a zero matrix costs least in."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from gguf import GGMLQuantizationType
    from torch import Tensor

Type = Literal["f16", "q8_0", "q4_0", "q4_k_m"]
TYPES: tuple[Type, ...] = ("f16", "q8_0", "q4_0", "q4_k_m")
FILE_TYPES = {"f16": 1, "q4_0": 2, "q8_0": 7, "q4_k_m": 15}  # llama.cpp's llama_ftype
ROWS_BYTES = 64 << 20  # float32 read at a time where a matrix is put into another form
BLOCKS = {"f16": 1, "q8_0": 32, "q4_0": 32, "tq2_0": 256}  # numbers that share a scale


def form_of(name: str, shape: tuple[int, ...], type_: Type, zero: bool = False) -> GGMLQuantizationType:
    """The number form of one tensor in a file of a type.

    Vectors stay in float32. A row that is not a whole number of blocks is written in float16, as llama.cpp does. In
    q4_0 files embedding and head are q8_0, which halves what the answers lose (docs/export.md). A zero matrix has the
    form that is read fastest: TQ2_0 where it fits.

    Args:
        name: GGUF's.
        shape: outermost first.
        type_: of the file.
        zero: nothing but zeros.
    """
    from gguf import GGMLQuantizationType

    if len(shape) < 2:
        return GGMLQuantizationType.F32
    form: str = type_
    if zero and type_ != "f16":
        form = "tq2_0" if shape[-1] % BLOCKS["tq2_0"] == 0 else "q4_0"
    elif type_ == "q4_0" and name in {"token_embd.weight", "output.weight"}:
        form = "q8_0"
    if shape[-1] % BLOCKS[form]:
        form = "f16"
    return GGMLQuantizationType[form.upper()]


def size_of(shape: tuple[int, ...], form: GGMLQuantizationType) -> int:
    """Bytes of a tensor in that form."""
    from gguf.constants import GGML_QUANT_SIZES

    block, size = GGML_QUANT_SIZES[form]
    return math.prod(shape) // block * size


def in_form(tensor: Tensor, form: GGMLQuantizationType) -> Iterator[NDArray[np.generic]]:
    """The tensor's bytes in that form, some rows at a time."""
    from gguf.quants import quantize

    rows = tensor if tensor.dim() > 1 else tensor[None]
    step = max(1, ROWS_BYTES // (4 * rows.shape[-1]))
    for start in range(0, len(rows), step):
        yield quantize(rows[start : start + step].numpy(), form)
