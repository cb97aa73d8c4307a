"""One input file cleaned and filtered into a piece: kept and dropped documents, their keys, and what was counted."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from rinsho.corpus import Recipe
from rinsho.corpus.filters import Drop, Filter, from_recipe
from rinsho.corpus.sample import Sample
from rinsho.corpus.writing import LineWriter
from rinsho.document import Broken, Document, read_documents
from rinsho.errors import UserError
from rinsho.files import sync_files
from rinsho.overlap import key
from rinsho.text import clean_counted
from rinsho.text.cleaning import KINDS

ALIVE_EVERY = 64  # documents between two looks whether the run that started us still lives
ALL_KINDS = (*KINDS, "postal_code")


@dataclass(frozen=True)
class Task:
    """What a worker has to do: `path` into the folder `piece`, which must not exist yet."""

    recipe: Recipe
    path: Path
    number: int
    piece: Path
    parent: int
    sample: Sample | None


@dataclass
class Counts:
    """What happened to the documents of one or more files; pieces add up."""

    read: int = 0
    read_bytes: int = 0
    not_sampled: int = 0
    first_broken: str | None = None
    broken: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    dropped_bytes: Counter[str] = field(default_factory=Counter)
    cleaning: Counter[str] = field(default_factory=Counter)
    sources_read: Counter[str] = field(default_factory=Counter)
    sources_read_bytes: Counter[str] = field(default_factory=Counter)

    def add(self, other: Counts) -> None:
        """Adds another file's counts."""
        for name, value in vars(other).items():
            if name == "first_broken":
                self.first_broken = self.first_broken or value
            elif isinstance(value, Counter):
                getattr(self, name).update(value)
            else:
                setattr(self, name, getattr(self, name) + value)

    def to_json(self) -> str:
        """As JSON, for the piece's folder."""
        return json.dumps(vars(self), ensure_ascii=False, sort_keys=True)

    @classmethod
    def read_json(cls, path: Path) -> Counts:
        """What `to_json` wrote."""
        raw: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        counts = cls()
        for name, value in raw.items():
            setattr(counts, name, Counter(value) if isinstance(value, dict) else value)
        return counts


def make_piece(task: Task) -> str:
    """Cleans and filters one file into `task.piece`, which appears whole or not at all; returns the piece's name.

    The folder is written under a name with our process id: a worker that outlived its killed run must not write
    into the files of the run that follows it.
    """
    aside = task.piece.with_name(f".{task.piece.name}.{os.getpid()}.aside")
    aside.mkdir(parents=True)
    counts = Counts()
    with (
        LineWriter(aside / "kept.jsonl.zst") as kept,
        LineWriter(aside / "dropped.jsonl.zst") as dropped,
        (aside / "keys.jsonl").open("w", encoding="utf-8") as keys,
        (aside / "broken.jsonl").open("w", encoding="utf-8") as broken,
    ):
        for document, size, drop in _documents(task, counts, broken):
            if drop is None:
                kept.write(document)
                keys.write(json.dumps(_row(document, source_of(document, task.recipe, task.path), size)) + "\n")
            else:
                dropped.write(dropped_document(document, drop))
                counts.dropped[drop.reason] += 1
                counts.dropped_bytes[drop.reason] += size
    (aside / "counts.json").write_text(counts.to_json(), encoding="utf-8")
    _stop_if_orphan(task)
    sync_files(aside)
    aside.rename(task.piece)
    return task.piece.name


def dropped_document(document: Document, drop: Drop) -> Document:
    """The document as it stands in `dropped/`, with reason and value."""
    return Document(document.text, document.id, document.meta | {"reason": drop.reason, "value": drop.value})


def _documents(task: Task, counts: Counts, broken: TextIO) -> Iterator[tuple[Document, int, Drop | None]]:
    """Each wanted document cleaned, with its size before cleaning in bytes and the filters' verdict."""
    recipe = task.recipe
    filters = from_recipe(recipe)

    def on_broken(record: Broken) -> None:
        path, _, line = record.where.rpartition(":")
        where = f"{Path(path).name}:{line}" if path else Path(record.where).name
        broken.write(json.dumps({"where": where, "reason": record.reason}, ensure_ascii=False) + "\n")
        counts.broken[record.reason] += 1
        counts.first_broken = counts.first_broken or f"{record.where} ({record.reason})"

    raw = read_documents(task.path, text_field=recipe.text_field, id_field=recipe.id_field, on_broken=on_broken)
    for number, document in enumerate(raw):
        if number % ALIVE_EVERY == 0:
            _stop_if_orphan(task)
        size, source = byte_length(document.text), source_of(document, recipe, task.path)
        if task.sample is not None and not task.sample.takes(document.id, source):
            counts.not_sampled += 1
            continue
        counts.read += 1
        counts.read_bytes += size
        counts.sources_read[source] += 1
        counts.sources_read_bytes[source] += size
        text, changed = clean_counted(document.text, personal=recipe.personal, kinds=ALL_KINDS)
        counts.cleaning.update(changed)
        cleaned = Document(text.strip("\n"), document.id, document.meta)
        yield cleaned, size, _verdict(cleaned, filters)


def _row(document: Document, source: str, raw_size: int) -> list[str | int]:
    """What deduplication and the report need to know of a kept document: key, id, source, sizes, characters."""
    text = document.text
    return [key(text, clean=True), document.id, source, raw_size, byte_length(text), len(text)]


def _verdict(document: Document, filters: list[Filter]) -> Drop | None:
    for rule in filters:
        try:
            drop = rule(document)
        except Exception as error:  # a filter of the user's own; its message may hold text, so only its kind is told
            raise UserError(
                f"the filter {getattr(rule, '__qualname__', rule)!s} failed with {type(error).__name__}",
                where=document.id,
                expected="a function that takes a Document and gives a Drop or None",
                todo="correct the filter and run the same command again",
            ) from None
        if drop is not None:
            return drop
    return None


def source_of(document: Document, recipe: Recipe, path: Path) -> str:
    """The source a document counts for: its field, or the name of its file."""
    return str(document.meta.get(recipe.source_field) or path.name.split(".")[0])


def byte_length(text: str) -> int:
    """Size in UTF-8; lone surrogates count too."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def _stop_if_orphan(task: Task) -> None:
    if os.getpid() != task.parent and os.getppid() != task.parent:
        raise UserError("the run that started this worker has ended", where=task.path)
