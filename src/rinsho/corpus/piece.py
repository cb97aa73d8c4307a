"""A group of input files cleaned and filtered into a piece: kept and dropped documents, their index, the counts."""

from __future__ import annotations

import json
import os
import secrets
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from rinsho.corpus import Recipe
from rinsho.corpus.executors import stop_if_orphan
from rinsho.corpus.filters import Drop, Filter, from_recipe
from rinsho.corpus.index import IndexWriter
from rinsho.corpus.sample import Sample
from rinsho.corpus.sources import SourceFile, read
from rinsho.corpus.writing import LineWriter
from rinsho.document import MODEL, SYNTHETIC, Broken, Document, byte_length, is_synthetic, printable_name
from rinsho.errors import UserError
from rinsho.files import sync_files
from rinsho.text import clean_counted
from rinsho.text.cleaning import KINDS

if TYPE_CHECKING:
    from rinsho.contamination import Index

ALIVE_EVERY = 64  # documents between two looks whether the run that started us still lives
ALL_KINDS = (*KINDS, "postal_code")
EXAMPLES = 5  # ids a reason in the report
LENGTH_EDGES = (0, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 1_000_000)
PIECE_FILES = 10_000


@dataclass(frozen=True)
class Task:
    """What a worker has to do: `files` into the folder `product`, which must not exist yet."""

    recipe: Recipe
    files: tuple[SourceFile, ...]
    product: Path
    size_bytes: int
    sample: Sample | None


@dataclass
class Counts:
    """What happened to the documents of one or more pieces; pieces add up."""

    read: int = 0
    read_bytes: int = 0
    not_sampled: int = 0
    contaminated: int = 0
    synthetic_read: int = 0
    first_broken: str | None = None
    broken: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    dropped_bytes: Counter[str] = field(default_factory=Counter)
    cleaning: Counter[str] = field(default_factory=Counter)
    sources_read: Counter[str] = field(default_factory=Counter)
    sources_read_bytes: Counter[str] = field(default_factory=Counter)
    lengths: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[Any]] = field(default_factory=dict)

    def add(self, other: Counts) -> None:
        """Adds another piece's counts."""
        for name, value in vars(other).items():
            if name == "first_broken":
                self.first_broken = self.first_broken or value
            elif name == "examples":
                for reason, rows in value.items():
                    self.examples[reason] = [*self.examples.get(reason, []), *rows][:EXAMPLES]
            elif isinstance(value, Counter):
                getattr(self, name).update(value)
            else:
                setattr(self, name, getattr(self, name) + value)

    def drop(self, document: Document, drop: Drop, raw_bytes: int) -> None:
        """Counts a dropped document."""
        self.dropped[drop.reason] += 1
        self.dropped_bytes[drop.reason] += raw_bytes
        add_example(self.examples, drop.reason, document.id, drop.value)

    def to_json(self) -> str:
        """As JSON, for the piece's folder."""
        return json.dumps(vars(self), sort_keys=True)

    @classmethod
    def read_json(cls, path: Path) -> Counts:
        """What `to_json` wrote."""
        raw: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        counts = cls()
        for name, value in raw.items():
            setattr(counts, name, Counter(value) if isinstance(getattr(counts, name), Counter) else value)
        return counts


def grouped(files: Sequence[SourceFile], piece_mb: float) -> list[tuple[SourceFile, ...]]:
    """The files in their order, small neighbours together: one group is one task."""
    groups: list[list[SourceFile]] = []
    size = 0
    for file in files:
        if not groups or size + file.size_bytes > piece_mb * 1e6 or len(groups[-1]) == PIECE_FILES:
            groups.append([])
            size = 0
        groups[-1].append(file)
        size += file.size_bytes
    return [tuple(group) for group in groups]


def make_piece(task: Task) -> None:
    """Cleans and filters a group of files into `task.product`, which appears whole or not at all.

    The folder is written under a name of this process: a worker that outlived its killed run must not write into
    the files of the run that follows it.
    """
    aside = aside_folder(task.product)
    counts = Counts()
    with (
        LineWriter(aside / "kept.jsonl.zst", level=1) as kept,
        LineWriter(aside / "dropped.jsonl.zst", level=1) as dropped,
        IndexWriter(aside, task.recipe) as index,
        (aside / "broken.jsonl").open("w", encoding="utf-8") as broken,
        (aside / "contamination.jsonl").open("w", encoding="utf-8") as found,
    ):
        contaminated = _contamination(task.recipe, counts, found)
        for document, source, raw_bytes, synthetic, verdict in _documents(task, counts, broken):
            drop = verdict or contaminated(document)
            if drop is None:
                kept.write(document)
                index.add(
                    document.text, document.id, source, raw_bytes, byte_length(document.text), synthetic=synthetic
                )
            else:
                dropped.write(dropped_document(document, drop))
                counts.drop(document, drop, raw_bytes)
    (aside / "counts.json").write_text(counts.to_json(), encoding="utf-8")
    stop_if_orphan()
    sync_files(aside)
    aside.rename(task.product)


def aside_folder(product: Path) -> Path:
    """A new folder beside `product` that no other process writes into."""
    aside = product.with_name(f".{product.name}.{os.getpid()}-{secrets.token_hex(4)}.aside")
    aside.mkdir(parents=True)
    return aside


def dropped_document(document: Document, drop: Drop) -> Document:
    """The document as it stands in `dropped/`, with reason and value."""
    return Document(document.text, document.id, document.meta | {"reason": drop.reason, "value": drop.value})


def add_example(examples: dict[str, list[Any]], reason: str, name: str, value: Any) -> None:
    """Remembers id and value of the first documents of a reason."""
    rows = examples.setdefault(reason, [])
    if len(rows) < EXAMPLES:
        rows.append([name, value])


def length_bin(chars: int) -> str:
    """The lower edge of the histogram's bin of that many characters."""
    return str(LENGTH_EDGES[bisect_right(LENGTH_EDGES, chars) - 1])


def source_of(document: Document, file: SourceFile) -> str:
    """The source a document counts for: the name given to its files, its field, or the name of its file."""
    given = file.settings.name or document.meta.get(file.settings.source_field or "")
    return printable_name(str(given or file.path.name.split(".")[0]))


def _documents(task: Task, counts: Counts, broken: TextIO) -> Iterator[tuple[Document, str, int, bool, Drop | None]]:
    """Each wanted document cleaned, with source, bytes before cleaning, whether a model wrote it, and the verdict."""
    recipe = task.recipe
    filters, for_trusted = from_recipe(recipe), from_recipe(recipe, trusted=True)

    def on_broken(record: Broken) -> None:
        path, _, line = record.where.rpartition(":")
        where = f"{Path(path).name}:{line}" if path else Path(record.where).name
        broken.write(json.dumps({"where": printable_name(where), "reason": record.reason}, ensure_ascii=False) + "\n")
        counts.broken[record.reason] += 1
        counts.first_broken = counts.first_broken or f"{record.where} ({record.reason})"

    raw = ((file, document) for file in task.files for document in read(file, on_broken))
    for number, (file, document) in enumerate(raw):
        if number % ALIVE_EVERY == 0:
            stop_if_orphan()
        raw_bytes, source = byte_length(document.text), source_of(document, file)
        if task.sample is not None and not task.sample.takes(document.id, source):
            counts.not_sampled += 1
            continue
        counts.read += 1
        counts.read_bytes += raw_bytes
        counts.sources_read[source] += 1
        counts.sources_read_bytes[source] += raw_bytes
        text, changed = clean_counted(
            document.text, personal=recipe.personal, kinds=ALL_KINDS, literal_numbers=recipe.literal_numbers
        )
        counts.cleaning.update(changed)
        meta, synthetic = document.meta, is_synthetic(document.meta)
        if recipe.meta_fields is not None:  # that a model wrote it, and which, always travels along, as the source does
            meta = {name: meta[name] for name in recipe.meta_fields if name in meta}
            if synthetic:
                meta |= {SYNTHETIC: True} | {name: document.meta[name] for name in (MODEL,) if name in document.meta}
        counts.synthetic_read += synthetic
        cleaned = Document(text.strip("\n"), document.id, meta | {"source": source})
        counts.lengths[length_bin(len(cleaned.text))] += 1
        rules = for_trusted if source in recipe.trusted_sources else filters
        yield cleaned, source, raw_bytes, synthetic, _verdict(cleaned, rules)


def _contamination(recipe: Recipe, counts: Counts, found: TextIO) -> Filter:
    """A filter that lists documents with benchmark passages in `found` and, when the recipe says so, drops them."""
    if not recipe.decontaminate:
        return lambda _: None
    index = _benchmarks(recipe.decontaminate, recipe.decontamination_chars)

    def rule(document: Document) -> Drop | None:
        chars, items = index.covered(document.text)
        if not chars:
            return None
        counts.contaminated += 1
        found.write(json.dumps({"id": document.id, "chars": chars, "items": items}, ensure_ascii=False) + "\n")
        if recipe.decontamination == "remove":
            return Drop("contaminated", chars)
        add_example(counts.examples, "contaminated", document.id, chars)
        return None

    return rule


@lru_cache(maxsize=1)
def _benchmarks(paths: tuple[Path, ...], chars: int) -> Index:
    """The passages of the benchmark files, read once a process."""
    from rinsho.contamination import Index

    return Index.from_files(paths, chars)


def _sound(drop: object) -> bool:
    """Whether a filter gave a Drop that can be counted and written."""
    return (
        isinstance(drop, Drop)
        and isinstance(drop.reason, str)
        and bool(drop.reason)
        and isinstance(drop.value, int | float | str)
    )


def _verdict(document: Document, filters: list[Filter]) -> Drop | None:
    for rule in filters:
        try:
            drop = rule(document)
            if drop is not None and not _sound(drop):
                raise TypeError
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
