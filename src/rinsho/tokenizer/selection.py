"""Which documents a tokenizer is trained on, how often each counts, and which are held out to measure on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rinsho.document import Document, byte_length, printable_name, read_documents


@dataclass(frozen=True)
class Selection:
    """Which documents are counted, how often, which are held out for measuring, and which are left alone.

    Attributes:
        weights: how often the words of a source count; 1 for sources not named, 0 leaves a source out.
    """

    seed: int
    sources: tuple[str, ...]
    keep_fraction: float
    heldout_fraction: float
    weights: Mapping[str, float] = field(default_factory=dict)

    def part(self, document: Document) -> str | None:
        """`train`, `heldout` or None, by seed and document id: the same in any shard and any order."""
        if self.sources and source_name(document) not in self.sources:
            return None
        if self.weights and self.weight(document) == 0:
            return None
        draw = _draw(self.seed, document.id)
        if draw < self.heldout_fraction:
            return "heldout"
        return "train" if draw < self.heldout_fraction + (1 - self.heldout_fraction) * self.keep_fraction else None

    def weight(self, document: Document) -> float:
        """How often the words of this document count."""
        return self.weights.get(source_name(document), 1.0)

    @property
    def kinds(self) -> list[float]:
        """The weights that occur, rising; documents of one weight are counted together."""
        return sorted({1.0, *map(float, self.weights.values())} - {0.0})


def source_name(document: Document) -> str:
    """The source of a document as recipes name it."""
    return printable_name(str(document.meta.get("source")))


def text_bytes(shards: Sequence[Path], selection: Selection) -> int:
    """UTF-8 bytes of the text that would be counted, read without cleaning or segmenting."""
    return sum(
        byte_length(document.text)
        for path in shards
        for document in read_documents(path, on_broken=lambda _: None)
        if selection.part(document) == "train"
    )


def heldout_documents(shards: Sequence[Path], selection: Selection, limit_mb: float) -> Iterator[Document]:
    """Held-out documents, an equal share of the limit from every shard."""
    for path in shards:
        left = limit_mb * 1e6 / len(shards)
        for document in read_documents(path, on_broken=lambda _: None):
            if left <= 0:
                break
            if selection.part(document) == "heldout":
                left -= byte_length(document.text)
                yield document


def _draw(seed: int, document_id: str) -> float:
    digest = hashlib.blake2b(f"{seed}:{document_id}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest) / 2**64
