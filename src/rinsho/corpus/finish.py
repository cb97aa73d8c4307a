"""The last step, piece by piece: kept documents into shards/ and validation/, the others into dropped/."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from rinsho.corpus import Recipe, boilerplate
from rinsho.corpus.executors import stop_if_orphan
from rinsho.corpus.filters import Drop
from rinsho.corpus.index import Index
from rinsho.corpus.join import KEEP, REASONS
from rinsho.corpus.piece import add_example, aside_folder, dropped_document, length_bin
from rinsho.corpus.sample import hash64
from rinsho.corpus.writing import ShardWriter, read_lines
from rinsho.document import Document, byte_length
from rinsho.files import sync_files, write_atomic

ALIVE_EVERY = 256


@dataclass(frozen=True)
class FinishTask:
    """What a worker has to do: the documents of `piece` as `decisions` says, into the folders of `out`."""

    recipe: Recipe
    number: int
    piece: Path
    decisions: Path
    out: Path
    product: Path  # the figures, written last
    size_bytes: int


@dataclass
class Kept:
    """What is kept of one or more pieces, and what went in this step; pieces add up."""

    documents: int = 0
    bytes: int = 0
    characters: int = 0
    validation: int = 0
    sentences_removed: int = 0
    sentences_bytes: int = 0
    documents_changed: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    dropped_bytes: Counter[str] = field(default_factory=Counter)
    sources: Counter[str] = field(default_factory=Counter)
    sources_bytes: Counter[str] = field(default_factory=Counter)
    synthetic_characters: int = 0  # of documents that a model wrote
    synthetic_validation: int = 0
    synthetic: Counter[str] = field(default_factory=Counter)  # documents by source
    synthetic_bytes: Counter[str] = field(default_factory=Counter)
    lengths: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[Any]] = field(default_factory=dict)

    def add_json(self, raw: dict[str, Any]) -> None:
        """Adds what a task wrote."""
        for name, value in raw.items():
            if name == "examples":
                for reason, rows in value.items():
                    for row in rows:
                        add_example(self.examples, reason, *row)
            elif isinstance(value, dict):
                getattr(self, name).update(value)
            else:
                setattr(self, name, getattr(self, name) + value)


def finish_piece(task: FinishTask) -> None:
    """Writes the shards of one piece, named after it, and then its figures."""
    aside = aside_folder(task.product)
    kept, size, prefix = Kept(), task.recipe.shard_documents, f"{task.number:05d}-"
    with (
        ShardWriter(aside / "shards", size, prefix) as shards,
        ShardWriter(aside / "validation", size, prefix) as validation,
        ShardWriter(aside / "dropped", size, prefix) as dropped,
    ):
        for line in read_lines(task.piece / "dropped.jsonl.zst"):
            dropped.write_line(line)
        by_model = Index(task.piece).synthetic().tolist()
        for decided, synthetic in zip(_decided(task, kept), by_model, strict=True):
            name, source, document_line, document_bytes, chars, drop, raw_bytes = decided
            if drop is not None:
                dropped.write_line(document_line)
                kept.dropped[drop.reason] += 1
                kept.dropped_bytes[drop.reason] += raw_bytes
                add_example(kept.examples, drop.reason, name, drop.value)
                continue
            held_out = hash64(f"{task.recipe.seed}:validation:{name}") < task.recipe.validation_fraction * 2**64
            (validation if held_out else shards).write_line(document_line)
            kept.documents += 1
            kept.bytes += document_bytes
            kept.characters += chars
            kept.validation += held_out
            kept.sources[source] += 1
            kept.sources_bytes[source] += document_bytes
            kept.lengths[length_bin(chars)] += 1
            if synthetic:
                kept.synthetic[source] += 1
                kept.synthetic_bytes[source] += document_bytes
                kept.synthetic_characters += chars
                kept.synthetic_validation += held_out
    _publish(task, aside)
    write_atomic(task.product, json.dumps(vars(kept), sort_keys=True))


def _decided(task: FinishTask, kept: Kept) -> Iterator[tuple[str, str, bytes, int, int, Drop | None, int]]:
    """Each document of the piece: id, source, line, bytes, characters, why it goes if it goes, bytes as it was read."""
    index = Index(task.piece)
    decisions = np.load(task.decisions / f"{task.number:05d}.npz", allow_pickle=False)
    partners = json.loads((task.decisions / f"{task.number:05d}.json").read_text(encoding="utf-8"))
    frequent = boilerplate.Frequent.load(task.decisions / "frequent.npy")
    verdicts, touched_ones = decisions["verdicts"], decisions["touched"]
    rows = zip(read_lines(task.piece / "kept.jsonl.zst"), index.ids(), index.sources(), index.figures(), strict=True)
    for place, (line, name, source, (order, raw_bytes, size_bytes, chars)) in enumerate(rows):
        verdict, touched = int(verdicts[place]), bool(touched_ones[place])
        if place % ALIVE_EVERY == 0:
            stop_if_orphan()
        if verdict != KEEP:
            drop = Drop(REASONS[verdict], partners[str(place)])
            yield name, source, dropped_document(_document(line), drop).to_line(), 0, 0, drop, raw_bytes
        elif not touched:
            yield name, source, line, size_bytes, chars, None, raw_bytes
        else:
            yield name, source, *_stripped(task.recipe, line, order, frequent, kept), raw_bytes


def _stripped(
    recipe: Recipe, line: bytes, order: int, frequent: boilerplate.Frequent, kept: Kept
) -> tuple[bytes, int, int, Drop | None]:
    """A document without its frequent sentences: line, bytes, characters, and a drop when too little is left."""
    document = _document(line)
    text, removed, _ = boilerplate.strip(document.text, frequent, order, recipe.sentence_min_chars)
    if not removed:
        return line, byte_length(text), len(text), None
    if len(text) < max(1, recipe.min_chars):
        drop = Drop("boilerplate", removed)
        return dropped_document(document, drop).to_line(), 0, 0, drop
    size_bytes = byte_length(text)
    kept.sentences_removed += removed
    kept.sentences_bytes += byte_length(document.text) - size_bytes
    kept.documents_changed += 1
    return Document(text, document.id, document.meta).to_line(), size_bytes, len(text), None


def _publish(task: FinishTask, aside: Path) -> None:
    """Moves the written files into the product; a rerun after a kill moves the same bytes to the same names."""
    stop_if_orphan()
    sync_files(aside)
    for file in sorted(aside.rglob("*.jsonl.zst")):
        target = task.out / file.relative_to(aside)
        target.parent.mkdir(parents=True, exist_ok=True)
        file.replace(target)
    for folder in sorted(aside.iterdir()):
        folder.rmdir()
    aside.rmdir()


def _document(line: bytes) -> Document:
    row = json.loads(line)
    return Document(row.pop("text"), row.pop("id"), row)
