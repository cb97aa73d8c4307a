"""Where and how training computes: card or processor, bfloat16 or float32, and the same bits every time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch

from rinsho.errors import UserError


def choose_device(wanted: Literal["auto", "cpu", "cuda"], where: str, local_rank: int | None = None) -> torch.device:
    """The device of a recipe's `device` setting; `local_rank` picks the card of a machine with several.

    Raises:
        UserError: a card is wanted and torch sees none; `where` names the recipe key.
    """
    if wanted == "cuda" and not torch.cuda.is_available():
        raise UserError("torch sees no graphics card", where=where, expected="auto or cpu on this machine")
    if wanted == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda") if local_rank is None else torch.device("cuda", local_rank)


def in_bfloat16(dtype: Literal["auto", "bf16", "fp32"], device: torch.device) -> bool:
    """Whether a recipe's `dtype` setting means bfloat16 matrix products on this device."""
    return has_fast_bfloat16(device.type) if dtype == "auto" else dtype == "bf16"


def has_fast_bfloat16(device: str) -> bool:
    """Whether the device multiplies bfloat16 matrices faster than float32 ones.

    On processors without AVX512-BF16 or AMX, bfloat16 is emulated and was 10 to 50 times slower (measured, AVX2).
    """
    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


@contextmanager
def reproducible(threads: int | None, deterministic: bool = True) -> Iterator[None]:
    """Deterministic kernels and a fixed number of threads for the block; what was set before comes back.

    With a graphics card the strict mode is set: in the one that only warns, torch's attention kernels stay free.
    """
    before, was_on = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    only_warned = torch.is_deterministic_algorithms_warn_only_enabled()
    memory: Any = torch.utils.deterministic
    fills = memory.fill_uninitialized_memory
    try:
        if deterministic:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS asks for it, and reads it once
        torch.use_deterministic_algorithms(deterministic, warn_only=not torch.cuda.is_available())
        memory.fill_uninitialized_memory = False  # it writes every tensor twice; nothing here reads before writing
        if threads is not None:
            torch.set_num_threads(threads)
        yield
    finally:
        torch.use_deterministic_algorithms(was_on, warn_only=only_warned)
        memory.fill_uninitialized_memory = fills
        torch.set_num_threads(before)
