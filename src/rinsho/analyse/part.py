"""One chapter of an analysis, as each part gives it to the report."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rinsho.files import write_atomic

BOM = "\ufeff"  # without it spreadsheets take Japanese for Latin letters


@dataclass(frozen=True)
class Part:
    """One chapter of the report.

    Attributes:
        id: embeddings, analogies, attention, curves or samples.
        title: its heading.
        html: a fragment, already escaped (made by a template of the part with autoescape); figures inline as `<svg>`
            or `<img src="data:image/png;base64,...">`.
        numbers: JSON-able.
        markdown: a few lines or a table for report.md and the terminal.
        files: names it wrote into the folder.
    """

    id: str
    title: str
    html: str
    numbers: dict[str, Any]
    markdown: str
    files: tuple[str, ...]


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Writes a table that spreadsheets open as it is; returns the file's name."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    write_atomic(path, BOM + text.getvalue())
    return path.name
