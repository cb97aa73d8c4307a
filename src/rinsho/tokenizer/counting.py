"""Word counts of a corpus: what the Unigram model is trained on. Memory grows with the words, not with the text."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path

from rinsho.document import Document, byte_length, read_documents
from rinsho.errors import UserError
from rinsho.run import Stage, write_atomic
from rinsho.segmentation import separated
from rinsho.text import clean


@dataclass(frozen=True)
class Selection:
    """Which documents are counted, which are held out for measuring, and which are left alone."""

    seed: int
    sources: tuple[str, ...]
    keep_fraction: float
    heldout_fraction: float

    def part(self, document: Document) -> str | None:
        """`train`, `heldout` or None, by seed and document id: the same in any shard and any order."""
        if self.sources and document.meta.get("source") not in self.sources:
            return None
        draw = _draw(self.seed, document.id)
        if draw < self.heldout_fraction:
            return "heldout"
        return "train" if draw < self.heldout_fraction + (1 - self.heldout_fraction) * self.keep_fraction else None


@dataclass
class Counts:
    """Words of the training part with their counts, and how much text they come from."""

    words: Counter[str] = field(default_factory=Counter)
    documents: int = 0
    text_bytes: int = 0
    broken: int = 0
    sources: Counter[str] = field(default_factory=Counter)


def count_corpus(
    shards: Sequence[Path], selection: Selection, user_dictionary: Path | None, workers: int, stage: Stage
) -> Counts:
    """The counts over all shards; each shard's piece is kept in `stage.partial`, so an interrupted count continues.

    Raises:
        UserError: a shard is damaged.
    """
    jobs = [
        (path, stage.partial / f"counts-{number:05d}.json", selection, user_dictionary)
        for number, path in enumerate(shards)
    ]
    missing = [job for job in jobs if not job[1].exists()]
    with stage.progress("count words", len(jobs), "shards", len(jobs) - len(missing)) as progress:
        if workers == 1 or len(missing) < 2:
            for job in missing:
                _count_shard(*job)
                progress.update()
        else:
            # MeCab holds the GIL: processes, and spawned ones, because the caller may have threads.
            with ProcessPoolExecutor(min(workers, len(missing)), get_context("spawn")) as pool:
                for done in as_completed([pool.submit(_count_shard, *job) for job in missing]):
                    done.result()
                    progress.update()
    total = Counts()
    for _, piece, _, _ in jobs:
        row = json.loads(piece.read_text(encoding="utf-8"))
        for word, count in row["words"]:
            total.words[word] += count
        total.sources.update(row["sources"])
        total.documents += row["documents"]
        total.text_bytes += row["text_bytes"]
        total.broken += row["broken"]
    return total


def text_bytes(shards: Sequence[Path], selection: Selection) -> int:
    """UTF-8 bytes of the text that would be counted, read without cleaning or segmenting."""
    return sum(
        byte_length(document.text)
        for path in shards
        for document in read_documents(path, on_broken=lambda _: None)
        if selection.part(document) == "train"
    )


def heldout_texts(shards: Sequence[Path], selection: Selection, limit_mb: float) -> Iterator[tuple[str, str]]:
    """(id, text) of held-out documents, an equal share of the limit from every shard."""
    for path in shards:
        left = limit_mb * 1e6 / len(shards)
        for document in read_documents(path, on_broken=lambda _: None):
            if left <= 0:
                break
            if selection.part(document) == "heldout":
                left -= byte_length(document.text)
                yield document.id, document.text


def _count_shard(path: Path, piece: Path, selection: Selection, user_dictionary: Path | None) -> None:
    words: Counter[str] = Counter()
    sources: Counter[str] = Counter()
    documents = size = broken = 0

    def on_broken(_: object) -> None:
        nonlocal broken
        broken += 1

    for document in read_documents(path, on_broken=on_broken):
        sources[str(document.meta.get("source"))] += 1
        if selection.part(document) == "train":
            cleaned = clean(document.text)
            words.update(separated(cleaned, user_dictionary).split(" "))
            documents += 1
            size += len(cleaned.encode("utf-8"))
    for separator in ("", "\n"):
        words.pop(separator, None)
    row = {
        "documents": documents,
        "text_bytes": size,
        "broken": broken,
        "sources": dict(sorted(sources.items())),
        "words": sorted(words.items()),
    }
    write_atomic(piece, json.dumps(row, ensure_ascii=False))


def check_sources(counts: Counts, sources: Sequence[str]) -> None:
    """Raises a `UserError` when a wanted source is nowhere in the corpus."""
    absent = [source for source in sources if not counts.sources[source]]
    if absent:
        raise UserError(
            f"no document has the source {', '.join(absent)}",
            where="tokenizer.sources",
            expected="some of " + ", ".join(sorted(counts.sources)[:20]),
            todo="correct the recipe or leave sources empty for all",
        )


def _draw(seed: int, document_id: str) -> float:
    digest = hashlib.blake2b(f"{seed}:{document_id}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest) / 2**64
