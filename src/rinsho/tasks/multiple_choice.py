"""English multiple choice in JSON lines (MedQA as given, and near forms) as items (M-5)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rinsho.errors import UserError
from rinsho.tasks import prompts
from rinsho.tasks.igakuqa import first_row, read_json_lines
from rinsho.tasks.item import Item, document_key

TASK = "usmle"
MAX_OPTIONS = 10
OPTION_FIELDS = ("options", "choices")
TAG_FIELDS = ("step", "meta_info", "subject")
IMAGE_FIELDS = ("image", "img", "has_image")
NO_IMAGE = ("", "false", "no", "none", "null", "0")


def is_questions(path: Path) -> bool:
    """Whether this is a file of such questions, by its first line."""
    row = first_row(path)
    return "question" in row and any(field in row for field in OPTION_FIELDS)


def read_questions(path: Path) -> tuple[list[Item], int]:
    """(the questions of a file, how many were left out because they need an image).

    A line has `question`; `options` or `choices` (2 to 10, a list or an object with the keys A, B, ...); the right one
    as `answer_idx` (its letter) or `answer` (its letter, its text, or its place from 0), or both; and optionally a
    label of the step: `step`, `meta_info` or `subject`, else the file's name. A line whose `image`, `img` or
    `has_image` is true or names a file is left out, as the published scores do.

    Raises:
        UserError: a line is not JSON, a field is missing, or the answer is no option or not told without doubt.

    Source: M-5.
    """
    items: list[Item] = []
    left_out = 0
    for where, row in read_json_lines(path):
        if any(map(_is_image, map(row.get, IMAGE_FIELDS))):
            left_out += 1
        else:
            items.append(_item(row, where, path.stem))
    if not items and not left_out:
        raise UserError("no question in here", where=path, expected="one JSON object a line")
    return items, left_out


def place_of(answer: str, options: Sequence[str], letters: Sequence[str]) -> int | None:
    """The place of the option that a letter or an option's text names; None where none or more than one is meant.

    >>> options = ["肺炎", "肺癌"]
    >>> place_of("B", options, "AB"), place_of(" 肺癌", options, "AB"), place_of("B", ["B", "A"], "AB")
    (1, 1, None)
    """
    plain = " ".join(answer.split())
    found = {place for place, option in enumerate(options) if " ".join(option.split()) == plain}
    found |= {place for place, letter in enumerate(letters) if letter == plain}
    return found.pop() if len(found) == 1 else None


def _item(row: Mapping[str, Any], where: str, stem: str) -> Item:
    question = row.get("question")
    if not isinstance(question, str) or not question.strip():
        raise UserError("question is missing or not text", where=where, expected='"question": "..."')
    options = _options(row, where)
    line = int(where.rpartition(":")[2]) - 1
    return Item(
        id=f"{TASK}/{stem}/{line:05d}", task=TASK, kind="choice", tag=_tag(row, where) or stem, wording=prompts.USMLE,
        question=question, options=options, gold=(_gold(row, options, where),), passage=question,
        document=document_key(question),
    )  # fmt: skip


def _options(row: Mapping[str, Any], where: str) -> tuple[str, ...]:
    found = next((row[field] for field in OPTION_FIELDS if row.get(field) is not None), None)
    if isinstance(found, dict):
        names = sorted(found)
        if tuple(names) != prompts.USMLE.letters(len(names)):
            raise UserError("the options' keys are no letters in a row", where=where, expected="A, B, C, ...")
        found = [found[name] for name in names]
    if not isinstance(found, list) or not all(isinstance(option, str) and option.strip() for option in found):
        raise UserError(
            "options are missing, or not all are text", where=where, expected='"options": {"A": "...", "B": "..."}'
        )
    if not 2 <= len(found) <= MAX_OPTIONS:
        raise UserError(f"{len(found)} options", where=where, expected=f"2 to {MAX_OPTIONS}")
    return tuple(option.strip() for option in found)


def _gold(row: Mapping[str, Any], options: Sequence[str], where: str) -> str:
    """The letter that `answer_idx` and `answer` name, which must agree where both are there."""
    letters = prompts.USMLE.letters(len(options))
    named = row.get("answer_idx")
    if named is None or named == "":
        place = _place(row.get("answer"), options, letters)
    elif isinstance(named, str):
        place = letters.index(named.strip()) if named.strip() in letters else None
        text = row.get("answer")
        if place is not None and isinstance(text, str) and text.strip():
            said = " ".join(text.split())
            if said not in (letters[place], " ".join(options[place].split())):
                raise UserError("answer and answer_idx name different options", where=where, expected="the same one")
    else:
        place = _place(named, options, letters)
    if place is None:
        raise UserError(
            "the answer names no option, or more than one", where=where,
            expected=f'"answer_idx": one of {", ".join(letters)}; or "answer": the text of one option',
        )  # fmt: skip
    return letters[place]


def _place(answer: object, options: Sequence[str], letters: Sequence[str]) -> int | None:
    if isinstance(answer, int) and not isinstance(answer, bool):
        return answer if 0 <= answer < len(options) else None
    return place_of(answer, options, letters) if isinstance(answer, str) and answer.strip() else None


def _tag(row: Mapping[str, Any], where: str) -> str:
    """The label of the row's step: `step1` of "step1", and of 1."""
    for field in TAG_FIELDS:
        value = row.get(field)
        if value is None or value == "":
            continue
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise UserError(f"{field} is no label", where=where, expected=f'"{field}": "step1"')
        label = str(value).strip()
        return f"step{label}" if field == "step" and label.isascii() and label.isdigit() else label
    return ""


def _is_image(value: object) -> bool:
    return bool(value) and (not isinstance(value, str) or value.strip().lower() not in NO_IMAGE)
