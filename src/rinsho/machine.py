"""What this machine has: free memory, a graphics card, units for bfloat16. Importing this file loads no torch."""

from __future__ import annotations

import contextlib
import ctypes
import gc
from importlib import util
from pathlib import Path


def available_bytes(root: Path = Path("/")) -> int | None:
    """Memory that a new process may take, the limits of its control groups included; None where it cannot be told.

    What files take of a group's memory is not counted as used: it is given up when it is needed.

    Args:
        root: of the file system; another one in tests.
    """
    found: list[int] = []
    try:
        for line in (root / "proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                found.append(int(line.split()[1]) * 1024)
        name = next(
            (line[3:] for line in (root / "proc/self/cgroup").read_text().splitlines() if line[:3] == "0::"), "/"
        )
    except (OSError, ValueError):
        name = "/"
    top = root / "sys/fs/cgroup"
    group = top / name.strip("/")
    for folder in (group, *group.parents):
        if folder == top.parent:
            break
        limit = _group_limit(folder)
        found += [] if limit is None else [limit]
    return min(found) if found else None


def _group_limit(folder: Path) -> int | None:
    try:
        limit = (folder / "memory.max").read_text().strip()
        if limit == "max":
            return None
        used = int((folder / "memory.current").read_text())
        lines = (line.split() for line in (folder / "memory.stat").read_text().splitlines())
        used -= sum(int(number) for name, number in lines if name in ("active_file", "inactive_file"))
        return max(0, int(limit) - used)
    except (OSError, ValueError):
        return None


def card_bytes() -> int | None:
    """Free memory of the first graphics card; None without one, or without torch."""
    if util.find_spec("torch") is None:
        return None
    import torch

    return torch.cuda.mem_get_info()[0] if torch.cuda.is_available() else None


def bfloat16_units(root: Path = Path("/")) -> str:
    """What of this processor multiplies bfloat16 fast: "AMX", "AVX-512", or "" for nothing known."""
    try:
        lines = (root / "proc/cpuinfo").read_text().splitlines()
        flags = next(line for line in lines if line.startswith("flags")).split()
    except (OSError, StopIteration):
        return ""
    return "AMX" if "amx_bf16" in flags else "AVX-512" if "avx512_bf16" in flags else ""


def give_back() -> None:
    """Gives memory that this process took and freed back to the machine, where the C library can.

    Quantising a model of 100M parameters leaves 180 MiB of it.
    """
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # another C library than glibc
        ctypes.CDLL(None).malloc_trim(0)
