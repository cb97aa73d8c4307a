"""Tasks of one's own: a YAML file beside a table describes a benchmark, without code (docs/tasks.md).

name: triage
kind: classification
test: triage_test.csv
question: note
answer: level
options: [経過観察, 当日受診, 救急要請]
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from string import Formatter
from typing import Any, Literal

import yaml
from pydantic import Field, field_validator, model_validator

from rinsho.errors import UserError
from rinsho.overlap import near_duplicates
from rinsho.recipe import Settings, load, read_yaml, settings
from rinsho.tasks import jmed, multiple_choice, prompts
from rinsho.tasks.igakuqa import read_json_lines
from rinsho.tasks.item import Item, Split, document_key, passages
from rinsho.tasks.prompts import Wording
from rinsho.tasks.score import parse_list
from rinsho.tasks.splits import without_test_rows

TABLES = (".csv", ".tsv", ".jsonl")
RESERVED = (*jmed.TASKS, "igakuqa", multiple_choice.TASK, "all", "own", "example")  # others' names, and parts of ids
MAX_OPTIONS = multiple_choice.MAX_OPTIONS
MAX_BYTES = 1 << 20  # of a YAML file
TELLING = frozenset(("name", "kind", "test"))  # two of these keys tell a task's file from other YAML files

PLACES = {"prompt": ("question", "options", "letters", "count"), "option": ("letter", "text")}
NEEDED = {"prompt": ("question",), "option": ("letter", "text")}


class TaskFile(Settings):
    """The keys of a task's YAML file; columns are named as in the table's header, or as the keys of JSON lines."""

    name: str = Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*$", description="name of the task in reports and ids (N3-2)")
    kind: Literal["choice", "classification", "similarity", "entities"] = Field(
        description="options of each row, the same options, the same options as steps of a scale, or a list (N3-2)"
    )
    test: str = Field(description="table of the questions: .csv, .tsv or .jsonl, at or below this file's folder")
    train: str | None = Field(None, description="table of the training part: baselines and solved examples (N3-2)")
    question: str = Field("question", description="column of the question; of the first text of a pair")
    second: str | None = Field(None, description="column of the second text of a pair (similarity)")
    answer: str = Field("answer", description="column of the right answer")
    tag: str | None = Field(None, description="column of a sub-task, scored apart as well")
    passage: str | None = Field(None, description="column of the text that is judged; else the whole question")
    document: str | None = Field(None, description="column that names the document or patient a row is from")
    options: tuple[str, ...] | None = Field(None, description="texts of the options; of a scale in their order")
    option_columns: tuple[str, ...] | None = Field(
        None, description="columns of the options (choice); of JSON lines also one that holds a list"
    )
    labels: tuple[str, ...] | None = Field(None, description="what the answer column says for each of the options")
    gold: Literal["auto", "letter", "text"] = Field("auto", description="what the answer column holds")
    system: str | None = Field(None, description="the system turn; null: the benchmarks' own sense")
    prompt: str | None = Field(None, description="the user turn, with {question}, {options}, {letters}, {count}")
    option: str | None = Field(None, description="one line of {options}, with {letter} and {text}")
    cue: str | None = Field(None, description="ends the prompt of a base model")
    gap: str | None = Field(None, description="stands between cue and answer of a base model: a space in English")

    @field_validator("labels", mode="before")
    @classmethod
    def _as_text(cls, value: Any) -> Any:
        """Numbers of a scale are written without quotes."""
        if not isinstance(value, list):
            return value
        return [str(one) if isinstance(one, int | float) and not isinstance(one, bool) else one for one in value]

    @model_validator(mode="after")
    def _fits(self) -> TaskFile:
        for problem in (*self._options_problems(), *self._pattern_problems()):
            raise ValueError(problem)
        return self

    def _options_problems(self) -> Iterator[str]:
        if self.name.lower() in (name.lower() for name in RESERVED):
            yield f"name: {self.name} is the name of a known benchmark; another one is expected"
        fixed = self.kind in ("classification", "similarity")
        if fixed and self.options is None:
            yield f"options are missing: a task of kind {self.kind} has the same ones in every row"
        if not fixed and self.options is not None:
            yield f"options: not for kind {self.kind}" + (", which has option_columns" if self.kind == "choice" else "")
        if self.kind == "choice" and not self.option_columns:
            yield "option_columns are missing: a task of kind choice has options of its own in every row"
        if self.kind != "choice" and self.option_columns is not None:
            yield f"option_columns: not for kind {self.kind}"
        if self.options is not None and not 2 <= len(self.options) <= MAX_OPTIONS:
            yield f"options: {len(self.options)} are given, 2 to {MAX_OPTIONS} expected"
        if self.options is not None and len({" ".join(one.split()) for one in self.options} - {""}) < len(self.options):
            yield "options: one is empty, or two are the same"
        if self.labels is not None and (self.options is None or len(self.labels) != len(self.options)):
            yield "labels: as many as there are options are expected"
        if self.labels is not None and len({one.strip() for one in self.labels}) < len(self.labels):
            yield "labels: two are the same"
        if self.labels is not None and self.gold != "auto":
            yield "gold: the labels say already what the answer column holds"
        if self.gold != "auto" and self.kind == "entities":
            yield "gold: not for kind entities"
        if self.second is not None and (self.kind != "similarity" or self.passage is not None):
            yield "second: only for kind similarity, and without passage"

    def _pattern_problems(self) -> Iterator[str]:
        for key, places in PLACES.items():
            pattern = getattr(self, key)
            if pattern is None:
                continue
            if self.kind == "entities" and key == "option":
                yield "option: not for kind entities"
            known = ("question",) if self.kind == "entities" else places
            found = _places(pattern)
            if found is None or not set(found) <= set(known):
                shown = ", ".join(f"{{{name}}}" for name in known)
                yield f"{key}: only the places {shown} are known (a brace itself is doubled)"
            elif not set(NEEDED[key]) <= set(found):
                yield f"{key}: " + " and ".join(f"{{{name}}}" for name in NEEDED[key]) + " must stand in it"
        for key in ("system", "cue"):
            if re.search(r"\{(question|options|letters|count|letter|text)\}", getattr(self, key) or ""):
                yield f"{key}: it has no places to fill; those of the question stand in prompt"
        if (self.gap or "").strip(" ") or (self.gap and self.kind == "entities"):
            yield "gap: only spaces, and not for kind entities, whose answers begin with their bracket"


def is_task(path: Path) -> bool:
    """Whether a YAML file found in a folder describes a task; other YAML files may lie beside it.

    One that cannot be read as YAML is meant as a task when it has a line `kind:` and a line `test:`.
    """
    if path.stat().st_size > MAX_BYTES:
        return False
    content = path.read_bytes()
    try:
        raw = read_yaml(content.decode("utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError):
        return all(re.search(rb"^%s[ \t]*:" % key, content, re.MULTILINE) for key in (b"kind", b"test"))
    return isinstance(raw, dict) and len(TELLING & raw.keys()) >= 2


def read_task(path: Path) -> TaskFile:
    """The description of a task, checked; its tables are looked for, not read.

    Raises:
        UserError: unknown keys, missing or wrong values, a table that is not there or not below the file's folder.
    """
    raw = load(path)
    try:
        task = settings(TaskFile, {str(key): value for key, value in raw.items()}, str(path))
    except UserError as problem:
        raise UserError(
            problem.what, where=_line(path, problem.what), expected="a task's description",
            todo="docs/tasks.md has an example",
        ) from None  # fmt: skip
    tables = [_table(path, key, name) for key, name in (("test", task.test), ("train", task.train)) if name is not None]
    if len({table.resolve() for table in tables}) < len(tables):
        raise UserError("test and train are one file", where=_line(path, "train"), expected="two tables")
    return task


def table_paths(path: Path) -> list[Path]:
    """The tables of a task."""
    task = read_task(path)
    return [_table(path, "test", task.test), *([_table(path, "train", task.train)] if task.train else [])]


def read_tests(path: Path) -> list[Item]:
    """The test items `NAME/00000`, ... of the task that a YAML file describes.

    Raises:
        UserError: what `read_task` finds, or a wrong row, by file and line.
    """
    task = read_task(path)
    return _read(task, _table(path, "test", task.test), task.name)


def read_train(path: Path, split: Split = "document") -> list[Item]:
    """The training items `all/NAME/00000`, ... of a task; none where it has no training table.

    Rows that ask what a test row asks are left out; unless the split is `row`, also those with a passage equal or near
    to a test passage, or of a document that the test part names too.
    """
    task = read_task(path)
    if task.train is None:
        return []
    tests = read_tests(path)
    rows = _read(task, _table(path, "train", task.train), f"all/{task.name}")
    rows, _ = without_test_rows(rows, tests)
    if split == "row":
        return rows
    asked = {item.document for item in tests}
    rows = [row for row in rows if row.document not in asked]
    texts = [(number, text) for number, row in enumerate(rows) for text in passages(row)]
    near = near_duplicates([text for _, text in texts], [text for item in tests for text in passages(item)])
    gone = {number for (number, _), place in zip(texts, near, strict=True) if place is not None}
    return [row for number, row in enumerate(rows) if number not in gone]


def _read(task: TaskFile, path: Path, prefix: str) -> list[Item]:
    wording = _wording(task)
    items = [
        _item(task, row, where, f"{prefix}/{number:05d}", wording)
        for number, (where, row) in enumerate(_rows(task, path))
    ]
    if not items:
        raise UserError("no row in here", where=path, expected="a question a row")
    return items


def _rows(task: TaskFile, path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if path.suffix == ".jsonl":
        yield from read_json_lines(path)
        return
    columns = [task.question, task.answer, *(task.option_columns or ())]
    columns += [column for column in (task.second, task.tag, task.passage, task.document) if column is not None]
    for row in jmed.read_rows(path, columns, "\t" if path.suffix == ".tsv" else ","):
        yield row.where, row.cells


def _item(task: TaskFile, row: Mapping[str, Any], where: str, identifier: str, wording: Wording) -> Item:
    question = _cell(row, task.question, where)
    if task.second is not None:
        pair = (" ".join(text.split()) for text in (question, _cell(row, task.second, where)))
        question = "\n".join(f"S{number}: {text}" for number, text in enumerate(pair, 1))
    passage = question
    if task.passage is not None:
        passage = _cell(row, task.passage, where)
        if passage.strip() not in question:  # as in the benchmarks: the question, then the passage in brackets
            question = f"{question}\n「{passage.strip()}」"
    options = _options(task, row, where)
    gold = _entities(row, task.answer, where) if task.kind == "entities" else (_gold(task, row, options, where),)
    named = passage if task.document is None else f"{task.name}: {_cell(row, task.document, where)}"
    return Item(
        id=identifier, task=task.name, kind="entities" if task.kind == "entities" else "choice",
        tag="" if task.tag is None else _cell(row, task.tag, where, may_be_empty=True).strip(), wording=wording,
        question=question, options=options, gold=gold, passage=passage, document=document_key(named),
        ordered=task.kind == "similarity",
    )  # fmt: skip


def _cell(row: Mapping[str, Any], column: str, where: str, may_be_empty: bool = False) -> str:
    value = row.get(column)
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = str(value)
    if value is None and may_be_empty:
        return ""
    if not isinstance(value, str) or not (value.strip() or may_be_empty):
        raise UserError(f"{column} is missing, empty or not text", where=where, expected=f"text in column {column}")
    return value


def _options(task: TaskFile, row: Mapping[str, Any], where: str) -> tuple[str, ...]:
    """The options of a row; empty cells may only stand at the end."""
    if task.kind != "choice":
        return task.options or ()
    columns = task.option_columns or ()
    if len(columns) == 1 and isinstance(row.get(columns[0]), list):
        cells = [_cell({"": value}, "", where, may_be_empty=True) for value in row[columns[0]]]
    else:
        cells = [_cell(row, column, where, may_be_empty=True) for column in columns]
    options = tuple(cell.strip() for cell in cells if cell.strip())
    if not 2 <= len(options) <= MAX_OPTIONS or not all(cell.strip() for cell in cells[: len(options)]):
        raise UserError(
            f"{len(options)} options, or an empty one before a filled one", where=where,
            expected=f"2 to {MAX_OPTIONS}, filled in order",
        )  # fmt: skip
    return options


def _gold(task: TaskFile, row: Mapping[str, Any], options: Sequence[str], where: str) -> str:
    letters = Wording("").letters(len(options))
    said = unicodedata.normalize("NFKC", _cell(row, task.answer, where)).strip()
    texts = [unicodedata.normalize("NFKC", option) for option in options]
    if task.labels is not None:
        names = [unicodedata.normalize("NFKC", label).strip() for label in task.labels]
        place, expected = names.index(said) if said in names else None, "one of the labels"
    elif task.gold == "letter":
        place, expected = letters.index(said) if said in letters else None, "one of " + ", ".join(letters)
    elif task.gold == "text":
        place, expected = multiple_choice.place_of(said, texts, ()), "the text of one option"
    else:
        place, expected = multiple_choice.place_of(said, texts, letters), "a letter, or the text of one option"
    if place is None:
        told = task.labels is not None or task.gold != "auto"
        raise UserError(
            f"the answer names no option, or more than one ({len(said)} characters)", where=where, expected=expected,
            todo=None if told else "set gold: letter or gold: text where it could be either",
        )  # fmt: skip
    return letters[place]


def _entities(row: Mapping[str, Any], column: str, where: str) -> tuple[str, ...]:
    value = row.get(column)
    found: Any = value
    if isinstance(value, str):
        found = parse_list(value)
        if found is None and value.strip().startswith("["):
            try:
                found = json.loads(value)
            except (ValueError, RecursionError):
                found = None
    if not isinstance(found, list) or not all(isinstance(entity, str) and entity for entity in found):
        raise UserError("the answer is not a list of strings", where=where, expected="a list such as ['発熱', '咳']")
    return tuple(found)


def _wording(task: TaskFile) -> Wording:
    usual = prompts.ENTITIES if task.kind == "entities" else prompts.CHOICE if task.second is None else prompts.PAIR
    given = {key: getattr(task, key) for key in ("system", "prompt", "option", "cue", "gap")}
    return replace(usual, **{key: value for key, value in given.items() if value is not None})


def _places(pattern: str) -> list[str] | None:
    """The names of the places of a pattern; None where it is no pattern, or a place is more than a name."""
    try:
        parts = list(Formatter().parse(pattern))
    except ValueError:
        return None
    if any(name is not None and (spec or conversion) for _, name, spec, conversion in parts):
        return None
    return [name for _, name, _, _ in parts if name is not None]


def _table(path: Path, key: str, name: str) -> Path:
    folder = path.parent.resolve()
    try:
        table = (folder / name).resolve()
        there = table.suffix in TABLES and table.is_file()
    except (OSError, ValueError):  # no name that a file can have
        table, there = folder, False
    if not table.is_relative_to(folder):
        raise UserError(
            f"{key} leads out of the folder of this file", where=_line(path, key), expected="a table at or below it"
        )
    if not there:
        raise UserError(
            f"{key} is not there, or no table", where=_line(path, key), expected="a file ending in " + ", ".join(TABLES)
        )
    return path.parent / name


def _line(path: Path, what: str) -> str:
    """`file:line` of the key that a problem begins with (`options: ...`, `unknown key 'optoins' ...`)."""
    key = re.match(r"(?:unknown key ')?(\w+)", what)
    try:
        node = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return str(path)
    for name, _ in node.value if isinstance(node, yaml.MappingNode) else ():
        if key and name.value == key.group(1):
            return f"{path}:{name.start_mark.line + 1}"
    return str(path)
