"""The inputs of an evaluation, told apart: model or answers, data folders, word lists."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rinsho.adapters import is_adapter
from rinsho.errors import UserError
from rinsho.tasks.igakuqa import read_json_lines

WORD_LISTS = (".csv", ".tsv")


@dataclass(frozen=True)
class Inputs:
    """`model` is a folder to be asked, or `answers` a file to be scored; the other one is None."""

    model: Path | None
    answers: Path | None
    data: tuple[Path, ...]
    lexicon: tuple[Path, ...]


def sort_inputs(inputs: Sequence[Path]) -> Inputs:
    """The inputs by what they are.

    Raises:
        UserError: too few inputs, or the first one is neither a model folder nor a file of answers.
    """
    lexicon = tuple(path for path in inputs[1:] if path.suffix in WORD_LISTS)
    data = tuple(path for path in inputs[1:] if path.suffix not in WORD_LISTS)
    if not inputs or not data:
        raise UserError(
            "too few inputs", where="evaluate", expected="MODEL DATA...", todo="give a model folder and a data folder"
        )
    first = inputs[0]
    if first.is_file() and first.suffix == ".jsonl":
        return Inputs(None, first, data, lexicon)
    if not (first / "config.json").is_file() and not is_adapter(first):
        raise UserError(
            "neither a model folder nor a file of answers", where=first,
            expected="a folder with config.json or adapter_config.json, or answers.jsonl",
            todo="give the model first, then the data",
        )  # fmt: skip
    for path in lexicon:
        if not path.is_file():
            raise UserError("not there", where=path, expected="a word list", todo="check the path")
    return Inputs(first, None, data, lexicon)


def read_answers(path: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """(item id, mode) -> answer line.

    Raises:
        UserError: a line is not JSON, has no `id` or no textual `answer`, or answers a question twice.
    """
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for where, row in read_json_lines(path):
        identifier, answer, mode = row.get("id"), row.get("answer"), row.get("mode", "free")
        if not isinstance(identifier, str) or not isinstance(answer, str):
            raise UserError(
                "no id or no answer in this line", where=where, expected='{"id": "smdis/00001", "answer": "A"}'
            )
        if mode not in ("free", "constrained", "likelihood"):
            raise UserError("unknown mode", where=where, expected="free, constrained or likelihood")
        if (identifier, mode) in found:
            raise UserError(f"{identifier} is answered twice", where=where, expected="one answer a question and mode")
        found[identifier, mode] = {"id": identifier, "mode": mode, "form": row.get("form"), **row}
    return found
