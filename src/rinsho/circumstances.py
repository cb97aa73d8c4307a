"""What a run ran on: code, packages, machine, memory; for manifests."""

from __future__ import annotations

import os
import platform
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

import rinsho

PACKAGES = (
    "torch", "transformers", "tokenizers", "sentencepiece", "fugashi", "ipadic", "numpy", "scikit-learn",
    "safetensors", "orjson", "zstandard", "datasets", "datatrove", "floret", "httpx", "peft",
    "bitsandbytes",
)  # fmt: skip


def circumstances() -> dict[str, Any]:
    """Code, packages and machine, for the manifest; neither user nor host name."""
    packages = {}
    for package in PACKAGES:
        try:
            packages[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    machine = {"system": platform.platform(), "cores": os.cpu_count(), "python": platform.python_version()}
    return {"rinsho": rinsho.__version__, "commit": _commit(), "packages": packages, "machine": machine}


def _commit() -> str | None:
    """The commit of the checkout this code runs from, read without calling git."""
    git = Path(__file__).resolve().parents[2] / ".git"
    try:
        head = (git / "HEAD").read_text().strip()
        if not head.startswith("ref: "):
            return head
        reference = head.removeprefix("ref: ")
        if (git / reference).exists():
            return (git / reference).read_text().strip()
        packed = (git / "packed-refs").read_text().splitlines()
        return next((line.split()[0] for line in packed if line.endswith(" " + reference)), None)
    except OSError:
        return None


def reset_peak_memory() -> None:
    """Lets `peak_memory_gib` begin anew, where the system allows."""
    with suppress(OSError):  # not Linux or not allowed: the peak of the whole process is reported instead
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory_gib() -> float:
    """This process's largest memory so far, GiB: since the stage began where the system allows to start anew."""
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return round(int(line.split()[1]) / 2**20, 3)
    except OSError:
        pass
    import resource

    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 3)
