"""What deduplication needs to know of the kept documents of one piece, as arrays in files that are memory-mapped."""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np

from rinsho.corpus.sample import hash64
from rinsho.overlap import key
from rinsho.overlap.sketch import sketch

if TYPE_CHECKING:
    from rinsho.corpus import Recipe

COLUMNS = ("key_high", "key_low", "order", "raw_bytes", "size_bytes", "chars")
WAITING_CHARS = 200_000
BLOCK = 4096  # rows turned into Python numbers at once
LONGEST = (1 << 20) - 1  # beyond a million characters length no longer decides which document stays


def order_key(name: str, chars: int, preferred: bool) -> int:
    """Which of several like documents stays: the one with the smallest key, whatever file it came from.

    A preferred source comes first, then the longer text, then a hash of `name`, which is the id and the text's key. 64
    bits.
    """
    return (not preferred) << 63 | (LONGEST - min(chars, LONGEST)) << 43 | hash64(name) >> 21


class IndexWriter:
    """Collects the rows of a piece, some 250 bytes a document, and saves them; use as a context manager."""

    def __init__(self, folder: Path, recipe: Recipe) -> None:
        self.folder, self.recipe = folder, recipe
        self.sources: dict[str, int] = {}
        self._rows, self._bands, self._sentences = array("Q"), array("Q"), array("Q")
        self._counts, self._places = array("I"), array("I")
        self._synthetic = array("B")
        self._texts: list[str] = []  # wait until there are enough for one call of `sketch`
        self._with_sentences: list[bool] = []
        self._waiting = 0

    def __enter__(self) -> IndexWriter:
        self._ids = (self.folder / "ids.jsonl").open("w", encoding="utf-8")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ids.close()
        if kind is not None:
            return
        self._flush()
        n = len(self._places)
        if self.recipe.near_duplicates:
            bands = np.frombuffer(self._bands, np.uint64).reshape(n, self.recipe.near_bands)
            _save(self.folder / "bands.npy", np.asfortranarray(bands))  # a band is read at a time
        _save(self.folder / "rows.npy", np.frombuffer(self._rows, np.uint64).reshape(n, len(COLUMNS)))
        _save(self.folder / "places.npy", np.frombuffer(self._places, np.uint32))
        _save(self.folder / "synthetic.npy", np.frombuffer(self._synthetic, np.uint8))
        _save(self.folder / "sentences.npy", np.frombuffer(self._sentences, np.uint64))
        _save(self.folder / "sentence_counts.npy", np.frombuffer(self._counts, np.uint32))
        (self.folder / "sources.json").write_text(json.dumps(list(self.sources)), encoding="utf-8")

    def add(self, text: str, name: str, source: str, raw_bytes: int, size_bytes: int, *, synthetic: bool) -> None:
        """Adds a kept document (clean text)."""
        recipe = self.recipe
        digest = key(text, clean=True)
        order = order_key(f"{name}\0{digest}", len(text), source in recipe.sources_first)
        self._rows.extend((int(digest[:16], 16), int(digest[16:], 16), order, raw_bytes, size_bytes, len(text)))
        self._places.append(self.sources.setdefault(source, len(self.sources)))
        self._synthetic.append(synthetic)
        self._ids.write(json.dumps(name) + "\n")
        self._texts.append(text)
        self._with_sentences.append(recipe.sentence_documents > 0 and source not in recipe.sentence_keep_sources)
        self._waiting += len(text)
        if self._waiting > WAITING_CHARS:
            self._flush()

    def _flush(self) -> None:
        """Sketches the waiting texts, unless neither near duplicates nor sentences are wanted of them."""
        recipe, wanted = self.recipe, np.array(self._with_sentences, bool)
        if recipe.near_duplicates or wanted.any():
            self._sketch(wanted)
        else:
            self._counts.extend([0] * len(wanted))
        self._texts.clear()
        self._with_sentences.clear()
        self._waiting = 0

    def _sketch(self, wanted: np.ndarray) -> None:
        recipe = self.recipe
        made = sketch(
            self._texts, size=recipe.near_ngram_chars, bands=recipe.near_bands, rows=recipe.near_rows,
            min_chars=recipe.sentence_min_chars,
        )  # fmt: skip
        if recipe.near_duplicates:
            self._bands.frombytes(made.signatures.tobytes())
        self._sentences.frombytes(made.sentences[np.repeat(wanted, made.counts)].tobytes())
        self._counts.frombytes(np.where(wanted, made.counts, 0).astype(np.uint32).tobytes())


class Index:
    """The saved rows of a piece of `len(index)` documents, read by memory map."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rows = _load(folder / "rows.npy")

    def __len__(self) -> int:
        return len(self.rows)

    def column(self, name: str) -> np.ndarray:
        """One of COLUMNS, uint64 (n,)."""
        return self.rows[:, COLUMNS.index(name)]

    def bands(self) -> np.ndarray:
        """MinHash band keys, uint64 (n, bands)."""
        return _load(self.folder / "bands.npy")

    def sentences(self) -> tuple[np.ndarray, np.ndarray]:
        """The hashes of all documents' sentences, uint64 flat, and how many each document has, uint32 (n,)."""
        return _load(self.folder / "sentences.npy"), _load(self.folder / "sentence_counts.npy")

    def sources(self) -> Iterator[str]:
        """The source of every document."""
        names = json.loads((self.folder / "sources.json").read_text(encoding="utf-8"))
        return (names[place] for place in _load(self.folder / "places.npy"))

    def synthetic(self) -> np.ndarray:
        """Which documents a model wrote, uint8 (n,); none in a piece of a version that did not ask."""
        path = self.folder / "synthetic.npy"
        return _load(path) if path.exists() else np.zeros(len(self), np.uint8)

    def figures(self) -> Iterator[list[int]]:
        """Order key, bytes as read, bytes and characters of every document, a block at a time."""
        for start in range(0, len(self.rows), BLOCK):
            yield from self.rows[start : start + BLOCK, 2:].tolist()

    def ids(self) -> Iterator[str]:
        """The ids of the documents, streamed."""
        with (self.folder / "ids.jsonl").open(encoding="utf-8") as file:
            yield from map(json.loads, file)

    def size_bytes(self) -> int:
        """What the index takes on the disk."""
        return sum(path.stat().st_size for path in [*self.folder.glob("*.npy"), self.folder / "ids.jsonl"])


def _save(path: Path, values: np.ndarray) -> None:
    np.save(path, values, allow_pickle=False)


def _load(path: Path) -> np.ndarray:
    """By memory map, which an empty array does not allow."""
    try:
        values: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    except ValueError:
        values = np.load(path, allow_pickle=False)
    return values
