"""IgakuQA: the problems of the national medical licensing examinations as items (N3-1)."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rinsho.errors import UserError
from rinsho.tasks import prompts
from rinsho.tasks.item import OR, Item, document_key

OTHER_FILES = ("_metadata", "_translate")  # stand beside the problem files
MAX_CHOICES = 10
FIRST_EXAMINATION = 1906  # the 112th examination was in 2018
FIRST_BYTES = 1 << 20  # of a file that are read to tell what it is

_EXAMINATION = re.compile(r"([0-9]{2,3})[A-Z]")
_DIGIT = re.compile(r"[0-9０-９]")


def is_layout(folder: Path) -> bool:
    """Whether this folder looks like IgakuQA: `data/<year>/*.jsonl`."""
    return any(_year_folders(folder))


def is_problems(path: Path) -> bool:
    """Whether this is a file of problems in IgakuQA's form, by its first line."""
    return not path.stem.endswith(OTHER_FILES) and {"problem_id", "problem_text"} <= first_row(path).keys()


def years_in(folder: Path) -> list[int]:
    """The years of the problems in a folder of IgakuQA's layout."""
    return [year for year, _ in _year_folders(folder)]


def read_igakuqa(folder: Path, years: Sequence[int] | None = None) -> list[Item]:
    """The problems of the given years (all when None), in the order of the files.

    Problems with choices have kind `choice` with as many gold letters as are asked for; calculations have kind
    `number`. `points` may be 0 (withdrawn). Metadata beside the problems gives `tag` (category) and `forbidden`.

    Raises:
        UserError: a year is missing, a line is not JSON, a field is missing or a label does not exist.
    """
    found = dict(_year_folders(folder))
    wanted = sorted(found) if years is None else list(years)
    for year in wanted:
        if year not in found:
            raise UserError(
                f"no problems of {year}", where=folder / "data", expected="one of " + ", ".join(map(str, sorted(found)))
            )
    items: list[Item] = []
    for year in wanted:
        for path in sorted(found[year].glob("*.jsonl")):
            if not path.stem.endswith(OTHER_FILES):
                items += read_problems(path, year)
    if not items:
        raise UserError("no problems in here", where=folder / "data", expected="data/<year>/<exam>-<section>.jsonl")
    return items


def read_problems(path: Path, year: int | None = None) -> list[Item]:
    """The problems of one file (see `read_igakuqa`); a year not given is told by the problem id (119A1: 2025).

    Source: N3-1; later years come as single files.
    """
    metadata = _metadata(path.with_name(f"{path.stem}_metadata.jsonl"))
    items, seen = [], set()
    for where, row in read_json_lines(path):
        item = _item(row, where, year, metadata)
        if item.id in seen:
            raise UserError("this problem_id stands twice", where=where, expected="one line a problem")
        seen.add(item.id)
        items.append(item)
    return items


def read_json_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """`(file:line, object)` of a JSON-lines file.

    Raises:
        UserError: a line is not UTF-8, not JSON or not an object.
    """
    if not path.is_file():
        raise UserError("not there", where=path, expected="a JSON-lines file", todo="check the path")
    for number, line in enumerate(path.read_bytes().split(b"\n"), 1):
        where = f"{path}:{number}"
        if not line.strip():
            continue
        try:
            row = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
        except UnicodeDecodeError:
            raise UserError("not UTF-8", where=where, expected="a UTF-8 file") from None
        except (ValueError, RecursionError):
            raise UserError("not JSON", where=where, expected="one JSON object a line") from None
        if not isinstance(row, dict):
            raise UserError("not a JSON object", where=where, expected="one JSON object a line")
        yield where, row


def first_row(path: Path) -> dict[str, Any]:
    """The first object of a JSON-lines file, as far as its first megabyte tells; empty where there is none."""
    with path.open("rb") as file:
        lines = file.read(FIRST_BYTES).split(b"\n")
    line = next((line for line in lines if line.strip().removeprefix(b"\xef\xbb\xbf")), b"")
    try:
        row = json.loads(line.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return {}
    return row if isinstance(row, dict) else {}


def _item(row: dict[str, Any], where: str, year: int | None, metadata: dict[str, dict[str, Any]]) -> Item:
    identifier, text = _text(row, "problem_id", where), _text(row, "problem_text", where)
    choices = _texts(row, "choices", where, may_be_empty=True)
    gold = _texts(row, "answer", where)
    if len(choices) == 1 or len(choices) > MAX_CHOICES:
        raise UserError(
            f"{len(choices)} choices", where=where, expected=f"2 to {MAX_CHOICES}, or none where a number is asked for"
        )
    _check_gold(gold, len(choices), where)
    points = str(row.get("points", "1"))
    if not (points.isascii() and points.isdigit()):
        raise UserError("points is not a number", where=where, expected="0, 1 or 3")
    about = metadata.get(identifier, {})
    return Item(
        id=f"igakuqa/{identifier}", task="igakuqa", kind="choice" if choices else "number",
        tag=str(about.get("category", "")),
        wording=prompts.EXAM if choices else prompts.EXAM_NUMBER, question=text, options=choices, gold=gold,
        passage=text, document=document_key(text), points=int(points), year=_year(identifier) if year is None else year,
        figure=row.get("text_only") is False, forbidden=_forbidden(about.get("kinki")),
    )  # fmt: skip


def _check_gold(gold: Sequence[str], num_choices: int, where: str) -> None:
    """Letters of choices, each once ("a or d": either is right), or one number where there are no choices."""
    if not num_choices:
        if len(gold) != 1 or not _DIGIT.search(gold[0]):
            raise UserError("the answer is not one number", where=where, expected='digits, for instance ["7.20"]')
        return
    legal = prompts.EXAM.letters(num_choices)
    letters = [letter for answer in gold for letter in answer.split(OR)]
    if not set(letters) <= set(legal):
        raise UserError(
            "the answer names no choice of this problem", where=where, expected="letters a, b, ... by position"
        )
    if len(set(letters)) < len(letters):
        raise UserError("the answer names a choice twice", where=where, expected="each letter once")


def _forbidden(kinki: object) -> tuple[str, ...]:
    """The letters of the metadata's list; the authors' files hold `de`, ` e` and full-width letters, too.

    >>> _forbidden(["de", " e", "ｂ"])
    ('b', 'd', 'e')
    """
    plain = unicodedata.normalize("NFKC", "".join(map(str, kinki)) if isinstance(kinki, list | str) else "").lower()
    return tuple(sorted({letter for letter in plain if letter in prompts.EXAM.letters(MAX_CHOICES)}))


def _year(identifier: str) -> int | None:
    """The year of an examination by its number.

    >>> _year("119A1"), _year("A1")
    (2025, None)
    """
    found = _EXAMINATION.match(identifier)
    return int(found.group(1)) + FIRST_EXAMINATION if found else None


def _metadata(path: Path) -> dict[str, dict[str, Any]]:
    if not path.is_file():
        return {}
    return {_text(row, "problem_id", where): row for where, row in read_json_lines(path)}


def _text(row: dict[str, Any], field: str, where: str) -> str:
    value = row.get(field)
    if not isinstance(value, str) or not value.strip():
        raise UserError(f"{field} is missing or not text", where=where, expected=f'"{field}": "..."')
    return value


def _texts(row: dict[str, Any], field: str, where: str, may_be_empty: bool = False) -> tuple[str, ...]:
    value = row.get(field)
    if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value) or not (value or may_be_empty):
        raise UserError(f"{field} is missing or not a list of texts", where=where, expected=f'"{field}": ["...", ...]')
    return tuple(value)


def _year_folders(folder: Path) -> Iterator[tuple[int, Path]]:
    base = folder / "data"
    if base.is_dir():
        for path in sorted(base.iterdir()):
            if path.is_dir() and path.name.isdigit():
                yield int(path.name), path
