"""A sample of the input of a given size that depends on ids only, not on order, files or number of workers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING

from rinsho.corpus.sources import SourceFile, read
from rinsho.document import byte_length
from rinsho.errors import UserError
from rinsho.run import Stage, write_atomic

if TYPE_CHECKING:
    from rinsho.corpus import Recipe


@dataclass(frozen=True)
class Sample:
    """Takes the documents whose place in a fixed shuffled order is at most `last`; preferred sources stand in front."""

    seed: int
    first: tuple[str, ...]
    last: tuple[int, int]

    def takes(self, name: str, source: str) -> bool:
        """Whether the document with this id and source belongs to the sample."""
        return place(self.seed, self.first, name, source) <= self.last


def place(seed: int, first: tuple[str, ...], name: str, source: str) -> tuple[int, int]:
    """Where a document stands in the shuffled order: preferred sources, then all others, each by hash."""
    return (0 if source in first else 1, hash64(f"{seed}:sample:{name}"))


def hash64(text: str) -> int:
    """A number of 64 bits, the same on every machine and in every run."""
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")


def choose(recipe: Recipe, files: Sequence[SourceFile], stage: Stage) -> Sample | None:
    """The sample of at most `max_size_mb` of text, or None when all of it is wanted. Reads all ids and sizes once."""
    if recipe.max_size_mb is None:
        return None
    saved = stage.partial / "sample.json"
    if saved.exists():
        first, last = json.loads(saved.read_text())
        return Sample(recipe.seed, recipe.sources_first, (first, last))
    rows: list[tuple[tuple[int, int], int]] = []
    with stage.progress("choosing a sample", len(files), "files") as progress:
        for file in files:
            rows += _places(recipe, file)
            progress.update()
    last_place = _last(rows, recipe.max_size_mb * 1e6)
    write_atomic(saved, json.dumps(last_place))
    return Sample(recipe.seed, recipe.sources_first, last_place)


def _last(rows: list[tuple[tuple[int, int], int]], limit_bytes: float) -> tuple[int, int]:
    """The last place that is taken: documents of one id stand at one place, and are all taken or none."""
    sizes: dict[tuple[int, int], int] = {}
    for where, size in rows:
        sizes[where] = sizes.get(where, 0) + size
    total, last = 0, (-1, -1)
    for where in sorted(sizes):
        total += sizes[where]
        if total > limit_bytes:
            break
        last = where
    if sizes and last == (-1, -1):
        raise UserError(
            "not even one document fits into max_size_mb",
            where="corpus.max_size_mb",
            expected=f"at least {sizes[min(sizes)] / 1e6:.6f}",
            todo="raise the limit or choose another seed",
        )
    return last


def _places(recipe: Recipe, file: SourceFile) -> list[tuple[tuple[int, int], int]]:
    from rinsho.corpus.piece import source_of

    rows = []
    for document in read(file, lambda _: None):
        source = source_of(document, file)
        rows.append((place(recipe.seed, recipe.sources_first, document.id, source), byte_length(document.text)))
    return rows
