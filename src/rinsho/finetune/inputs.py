"""The data inputs of a tuning, told apart, and what a base model was tuned on before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rinsho.errors import UserError
from rinsho.instructions import instruction_files
from rinsho.model_folder import DOCUMENTS, read_manifest
from rinsho.tasks.read import holds_benchmark


def sort_data(inputs: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """(folders of benchmarks, files of instructions) among the data inputs.

    Raises:
        UserError: an input is missing, or two files have one name.
    """
    folders: list[Path] = []
    files: list[Path] = []
    for path in inputs:
        found = instruction_files(path)
        if path.is_dir() and (holds_benchmark(path) or not found):
            folders.append(path)
        for file in found:
            twin = next((other for other in files if other.stem == file.stem), None)
            if twin is not None:
                raise UserError(
                    "two files of one name", where=file, expected=f"another name than that of {twin}",
                    todo="rename one: a file's name is the name of its task",
                )  # fmt: skip
            files.append(file)
    return folders, files


@dataclass(frozen=True)
class Earlier:
    """What the base was tuned on before; empty for a base that was not.

    Attributes:
        about: the `finetune` part of its `rinsho.json`.
        documents: keys of the documents it was tuned on.
    """

    about: Mapping[str, Any]
    documents: frozenset[str]


def read_earlier(base: Path) -> Earlier:
    """What a model folder says of its own tuning, so that the next one does not forget it."""
    listed = base / DOCUMENTS
    documents = listed.read_text(encoding="utf-8").split() if listed.is_file() else ()
    return Earlier(read_manifest(base).get("finetune") or {}, frozenset(documents))
