"""A random sample that depends on the documents' ids only, and documents that are wanted by id; one pass."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from heapq import heappush, heappushpop
from pathlib import Path
from typing import TYPE_CHECKING

from rinsho.document import Document, byte_length, read_documents
from rinsho.files import atomic_file, write_atomic
from rinsho.run import Stage

if TYPE_CHECKING:
    from rinsho.quality import Recipe


@dataclass(frozen=True, slots=True)
class Sampled:
    """A document of the sample: the start of its text, and its whole size in UTF-8."""

    id: str
    text: str
    size_bytes: int


@dataclass
class Corpus:
    """What one pass over the corpus found."""

    documents: int = 0
    size_bytes: int = 0
    random: list[Sampled] = field(default_factory=list)  # in the order of a hash of seed and id
    wanted: list[Sampled] = field(default_factory=list)  # those of a label file, in the order of their ids


def draw(recipe: Recipe, files: Sequence[Path], wanted: Collection[str], stage: Stage) -> Corpus:
    """The sample, drawn once and then read from `partial/sample/`; equal for any order of files."""
    folder = stage.partial / "sample"
    if not (folder / "totals.json").exists():
        _save(folder, _draw(recipe, files, wanted, stage))
    documents, size_bytes = json.loads((folder / "totals.json").read_text(encoding="utf-8"))
    return Corpus(documents, size_bytes, _load(folder / "random.jsonl"), _load(folder / "wanted.jsonl"))


def _draw(recipe: Recipe, files: Sequence[Path], wanted: Collection[str], stage: Stage) -> Corpus:
    size = max(recipe.label_documents, 4 * recipe.preview_documents, 0 if recipe.model else recipe.vector_documents)
    chars = max(recipe.max_prompt_chars, recipe.max_feature_chars)
    found, heap = Corpus(), []  # type: ignore[var-annotated]
    with stage.progress("choosing a sample", len(files), "files") as progress:
        for path in files:
            for document in read_documents(path):
                place = -_hash64(f"{recipe.seed}:quality:{document.id}")
                found.documents += 1
                length = byte_length(document.text)
                found.size_bytes += length
                near = len(heap) < size or place >= heap[0][0]
                if not near and document.id not in wanted:
                    continue
                row = Sampled(document.id, document.text[:chars], length)
                if near:  # the text decides between documents of one id, so that the order of files does not
                    entry = (place, row.id, row.text, row.size_bytes)
                    heappush(heap, entry) if len(heap) < size else heappushpop(heap, entry)
                if row.id in wanted:
                    found.wanted.append(row)
            progress.update()
    found.random = [Sampled(*entry[1:]) for entry in sorted(heap, reverse=True)]
    found.wanted.sort(key=lambda row: (row.id, row.text, row.size_bytes))
    return found


def _save(folder: Path, corpus: Corpus) -> None:
    for name in ("random", "wanted"):
        with atomic_file(folder / f"{name}.jsonl") as file:
            for row in getattr(corpus, name):
                file.write(Document(row.text, row.id, {"size_bytes": row.size_bytes}).to_line())
    write_atomic(folder / "totals.json", json.dumps([corpus.documents, corpus.size_bytes]))


def _load(path: Path) -> list[Sampled]:
    return [Sampled(row.id, row.text, row.meta["size_bytes"]) for row in read_documents(path)]


def _hash64(text: str) -> int:
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")
