"""Where the real benchmark files are: $RINSHO_DATA or ../shared/data; tests skip without them."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def real_data(name: str) -> Path:
    """The folder `name` (jmed_llm, igakuqa, ...) of the real data; skips the calling test where it is absent."""
    base = Path(os.environ.get("RINSHO_DATA") or ROOT.parent / "shared" / "data")
    if not (base / name).is_dir():
        pytest.skip(f"real data {name} is not here: set RINSHO_DATA to the folder that holds it")
    return base / name
