"""The inputs of an evaluation, told apart: models under test, benchmark data, word lists."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rinsho.adapters import is_adapter
from rinsho.errors import UserError
from rinsho.generate.opening import GGUF, is_gguf
from rinsho.model_folder import DOCUMENTS, MANIFEST
from rinsho.tasks.igakuqa import first_row, read_json_lines

WORD_LISTS = (".csv", ".tsv")
SETTINGS = (".yaml", ".yml")
ASKED_FILE = "asked.json"  # beside answers.jsonl: the facts of the model that gave the answers
ANSWERS_FILE = "answers.jsonl"
SCORES_FILE = "scores.json"
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "user.dic", "chat_template.jinja")
MAX_ROTATIONS = 1000
MAX_SHOWN = 60  # characters of an id in a message

Key = tuple[str, str, int]  # item id, mode, rotation of the options


@dataclass(frozen=True)
class Subject:
    """One model under test.

    Attributes:
        path: a model or adapter folder, or a GGUF file, that is asked (`folder`), a YAML file that describes an
            OpenAI-compatible endpoint that is asked (`endpoint`), or a file of answers that are only scored
            (`answers`).
    """

    path: Path
    kind: Literal["folder", "endpoint", "answers"]

    @property
    def folder(self) -> Path:
        """Where the model's `rinsho.json` lies: the folder itself, or that of a GGUF file."""
        return self.path.parent if self.path.suffix == GGUF and not self.path.is_dir() else self.path

    @property
    def beside(self) -> list[Path]:
        """The files beside a GGUF file that its answers and their scores depend on."""
        names = [] if self.folder == self.path or self.kind != "folder" else [MANIFEST, DOCUMENTS, *TOKENIZER]
        return [self.folder / name for name in names if (self.folder / name).is_file()]


@dataclass(frozen=True)
class Inputs:
    """Models under test in the given order, benchmark folders and files, and word lists."""

    subjects: tuple[Subject, ...]
    data: tuple[Path, ...]
    lexicon: tuple[Path, ...]


def sort_inputs(inputs: Sequence[Path], coming: Sequence[Path] = ()) -> Inputs:
    """The inputs by what they are. A folder of checkpoints (`step-*`), or of GGUF files, stands for all of them.

    Args:
        inputs: models, data and word lists, in any order.
        coming: those of them that are not there yet and cannot be looked at; the first input is a model then.

    Raises:
        UserError: there is no model or no data among them.
    """
    subjects: list[Subject] = []
    data: list[Path] = []
    lexicon: list[Path] = []
    for path in map(Path, inputs):
        if path.suffix in WORD_LISTS and not path.is_dir():
            lexicon.append(path)
        elif path in coming and path == Path(inputs[0]):
            subjects.append(Subject(path, "folder"))
        elif found := _subjects(path):
            subjects += found
        else:
            data.append(path)
    if not subjects or not data:
        raise UserError(
            f"no {'benchmark data' if subjects else 'model'} among the inputs", where="evaluate",
            expected="MODEL... DATA...: a folder with config.json or adapter_config.json, a GGUF file, an endpoint's"
            " YAML file or answers.jsonl; and a folder or file of questions",
            todo="give the models first, then the data",
        )  # fmt: skip
    return Inputs(tuple(subjects), tuple(data), tuple(lexicon))


def _subjects(path: Path) -> list[Subject]:
    """The models that a path stands for; none for data."""
    if path.is_dir():
        return _in_folder(path)
    if is_gguf(path):
        return [Subject(path, "folder")] if path.is_file() else []
    if path.suffix == ".jsonl" and path.is_file():
        # questions have answers, too; what is broken the reader of answers tells
        return [] if {"options", "choices"} & first_row(path).keys() else [Subject(path, "answers")]
    if path.suffix in SETTINGS and path.is_file():
        text = path.read_text(encoding="utf-8", errors="replace")
        return [Subject(path, "endpoint")] if re.search(r"^[\"']?base_url[\"']?\s*:", text, re.MULTILINE) else []
    return []


def _in_folder(path: Path) -> list[Subject]:
    if is_gguf(path):
        return [Subject(file, "folder") for file in sorted(path.glob("*" + GGUF))]
    if (path / "config.json").is_file() or is_adapter(path):
        return [Subject(path, "folder")]
    if (path / ANSWERS_FILE).is_file() and (path / ASKED_FILE).is_file():  # an earlier evaluation
        return [Subject(path / ANSWERS_FILE, "answers")]
    if (path / SCORES_FILE).is_file():  # an earlier evaluation of several models
        return [Subject(path / folder / ANSWERS_FILE, "answers") for folder in _models_of(path / SCORES_FILE)]
    steps = sorted(step for step in path.glob("step-*") if (step / "config.json").is_file())
    return [Subject(step, "folder") for step in steps]


def _models_of(scores: Path) -> list[str]:
    """The folders of the models in the numbers of an evaluation of several; none in those of one model.

    Raises:
        UserError: no evaluation wrote this file.
    """
    try:
        numbers = json.loads(scores.read_text(encoding="utf-8"))
        folders = [row["folder"] for row in numbers.get("models", [])]
        if all(isinstance(folder, str) for folder in folders):
            return folders
    except (ValueError, RecursionError, AttributeError, TypeError, KeyError):
        pass
    raise UserError(
        "not the scores that an evaluation wrote", where=scores, expected="the folder of a finished evaluation",
        todo="run that evaluation again, or delete this file to give the folder as data",
    )  # fmt: skip


def read_answers(path: Path) -> dict[Key, dict[str, Any]]:
    """(item id, mode, rotation) -> answer line.

    Raises:
        UserError: a line is not JSON, has no `id` or no textual `answer`, or answers a question twice.
    """
    found: dict[Key, dict[str, Any]] = {}
    for where, row in read_json_lines(path):
        identifier, answer, mode = row.get("id"), row.get("answer"), row.get("mode", "free")
        rotation = row.get("rotation", 0)
        if not isinstance(identifier, str) or not isinstance(answer, str):
            raise UserError(
                f"{'answer' if isinstance(identifier, str) else 'id'} is missing or not text", where=where,
                expected='{"id": "smdis/00001", "answer": "A"}',
            )  # fmt: skip
        if mode not in ("free", "constrained", "likelihood"):
            raise UserError("unknown mode", where=where, expected="free, constrained or likelihood")
        if type(rotation) is not int or not 0 <= rotation < MAX_ROTATIONS:
            raise UserError("rotation is not a number of places", where=where, expected="0, 1, 2, ...")
        if (identifier, mode, rotation) in found:
            raise UserError(
                f"{identifier[:MAX_SHOWN]!a} is answered twice", where=where,
                expected="one answer a question and mode",
            )  # fmt: skip
        found[identifier, mode, rotation] = {
            **row, "id": identifier, "mode": mode, "rotation": rotation, "form": row.get("form"),
        }  # fmt: skip
    if not found:
        raise UserError("no answers in here", where=path, expected='lines like {"id": "smdis/00001", "answer": "A"}')
    return found
