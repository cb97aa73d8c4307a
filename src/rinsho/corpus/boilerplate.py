"""Sentences that stand in many documents (notices, menus, licences): found over the corpus, left in one of them only.

A sentence is known by the hash of `sketch.sentence_hashes`. Counting is exact and takes bounded memory:
the hashes are looked at in partitions of their range; in a first pass each falls into one of many small counters,
which tells the few that can be frequent at all, and only those are counted one by one.

Source: SPEC N2.1-3.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from rinsho.files import atomic_file
from rinsho.overlap.codes import LINE_FEED, SPACE, codes
from rinsho.overlap.sketch import segment_hashes, segments

COUNTER_BYTES = 2
BLOCK = 1 << 15  # hashes counted between two looks whether a counter is full
FULL = 1 << 14  # a counter stops about here: FULL + BLOCK still fits
ENTRY_BYTES = 64  # of memory while a hash is counted one by one


@dataclass(frozen=True)
class SentenceFile:
    """The sentence hashes of one piece of the corpus, memory-mapped or not.

    Attributes:
        hashes: uint64, the distinct sentences of the first document, of the second, ...
        counts: uint32 (documents,): how many of them belong to each document.
        alive: bool (documents,): False for documents that were dropped; their sentences do not count.
        order: uint64 (documents,): the document of the smallest order keeps a frequent sentence.
    """

    hashes: np.ndarray
    counts: np.ndarray
    alive: np.ndarray
    order: np.ndarray


@dataclass(frozen=True)
class Frequent:
    """The frequent sentences: `hashes` uint64, sorted, and `keepers` uint64, the order of the document that keeps each.

    >>> found = Frequent(np.array([3, 9], np.uint64), np.array([1, 1], np.uint64))
    >>> found.among(np.array([9, 4], np.uint64)).tolist()
    [True, False]
    """

    hashes: np.ndarray
    keepers: np.ndarray
    _bits: tuple[np.uint64, np.ndarray] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        bits = min(max((16 * len(self.hashes)).bit_length(), 12), 26)
        shift, table = np.uint64(64 - bits), np.zeros(1 << bits, bool)
        table[self.hashes >> shift] = True
        object.__setattr__(self, "_bits", (shift, table))

    def __len__(self) -> int:
        return len(self.hashes)

    def among(self, hashes: np.ndarray) -> np.ndarray:
        """Which of the given hashes are frequent sentences, bool."""
        shift, table = self._bits
        found: np.ndarray = table[hashes >> shift]
        places = np.flatnonzero(found)
        found[places] = self.hashes[self.place(hashes[places])] == hashes[places] if len(places) else False
        return found

    def place(self, hashes: np.ndarray) -> np.ndarray:
        """Where hashes known to be frequent stand in `hashes`."""
        return np.minimum(self.hashes.searchsorted(hashes), max(len(self.hashes) - 1, 0))

    def save(self, path: Path) -> None:
        """Writes both arrays into one npy file, uint64 (2, n)."""
        with atomic_file(path) as file:
            np.save(file, np.stack([self.hashes, self.keepers]), allow_pickle=False)

    @classmethod
    def load(cls, path: Path) -> Frequent:
        """What `save` wrote, from a memory map."""
        both = np.load(path, mmap_mode="r", allow_pickle=False)
        return cls(both[0], both[1])


def frequent(pieces: Sequence[SentenceFile], min_documents: int, memory_bytes: int = 256 << 20) -> Frequent:
    """The sentences that stand in more than `min_documents` living documents, and who keeps each.

    Exact, for any order of the pieces. Memory stays near `memory_bytes` whatever the size of the corpus, apart from the
    result (16 bytes a frequent sentence); less memory means more passes over the hashes.
    """
    total = sum(int(piece.counts[piece.alive].sum(dtype=np.int64)) for piece in pieces)
    counter_bits = (memory_bytes // 2 // COUNTER_BYTES).bit_length() - 1
    counter_bits = min(counter_bits, max((8 * total // max(min_documents, 4)).bit_length(), 10))
    load = max(min_documents, 4) / 4 * (1 << counter_bits)  # hashes that the counters still tell apart well
    partitions = 1 << max(0, int(np.ceil(total / load)) - 1).bit_length()
    plan = _Plan(
        partitions.bit_length() - 1,
        counter_bits,
        memory_bytes // 4 // ENTRY_BYTES,
        min(max(memory_bytes >> 8, BLOCK), 8 * BLOCK),
    )
    found = [_partition(pieces, min_documents, part, plan) for part in range(partitions)]
    return Frequent(np.concatenate([hashes for hashes, _ in found]), np.concatenate([orders for _, orders in found]))


def touched(hashes: np.ndarray, counts: np.ndarray, frequent: Frequent) -> np.ndarray:
    """Which documents of a piece hold any frequent sentence, bool (documents,)."""
    before = np.append(0, np.cumsum(frequent.among(hashes)))
    ends = np.cumsum(counts, dtype=np.int64)
    some: np.ndarray = before[ends] > before[ends - counts]
    return some


def strip(text: str, frequent: Frequent, order: int, min_chars: int) -> tuple[str, int, int]:
    r"""(the text without the frequent sentences, sentences removed, characters removed).

    A sentence stays where this document's `order` is the one that keeps it. A line that became empty goes with its
    line feed, and of several empty lines one is left; a text without frequent sentences comes back as it is.

    >>> from rinsho.overlap.sketch import sentence_hashes
    >>> known = Frequent(sentence_hashes("無断転載を禁じます。", 5), np.array([7], np.uint64))
    >>> strip("咳が続く。無断転載を禁じます。\n無断転載を禁じます。\n受診した。", known, 8, 5)
    ('咳が続く。\n受診した。', 2, 21)
    >>> strip("無断転載を禁じます。", known, 7, 5)
    ('無断転載を禁じます。', 0, 0)
    """
    raw = np.append(codes(text), np.uint16(LINE_FEED))
    solid = np.flatnonzero(raw != SPACE)
    units = raw[solid]
    starts, ends = segments(units)
    hashes, lengths = segment_hashes(units, starts, ends)
    going = frequent.among(hashes) & (lengths >= max(min_chars, 1))
    going[going] = frequent.keepers[frequent.place(hashes[going])] != np.uint64(order)
    if not going.any():
        return text, 0, 0
    keep = np.ones(len(raw), bool)
    stops = solid[np.minimum(starts[going] + lengths[going], len(solid) - 1)]  # so the spaces after it go too
    for start, stop in zip(solid[starts[going]].tolist(), stops.tolist(), strict=True):
        keep[start:stop] = False
    left = raw[keep].astype("<u2").tobytes().decode("utf-16-le", "surrogatepass")[:-1]
    stripped = _tidy(text, left)
    return stripped, int(np.count_nonzero(going)), len(text) - len(stripped)


def _tidy(text: str, left: str) -> str:
    """Takes out the lines that became empty, spaces at the ends of changed lines, and empty lines after another."""
    lines: list[str] = []
    for before, after in zip(text.split("\n"), left.split("\n"), strict=True):
        line = after if before == after else after.strip(" ")
        if line or (not before.strip(" ") and lines and lines[-1]):
            lines.append(line)
    return "\n".join(lines).rstrip("\n")


@dataclass(frozen=True)
class _Plan:
    """The range of hashes is cut into `2**part_bits` parts; each has `2**counter_bits` counters.

    `block` hashes are read at a time, `batch` are counted one by one before they join the table.
    """

    part_bits: int
    counter_bits: int
    batch: int
    block: int


def _partition(
    pieces: Sequence[SentenceFile], min_documents: int, part: int, plan: _Plan
) -> tuple[np.ndarray, np.ndarray]:
    """(hashes, orders of their keepers) of the frequent sentences of one part of the range of hashes."""
    shift = np.uint64(64 - plan.part_bits - plan.counter_bits)
    mask = np.uint64((1 << plan.counter_bits) - 1)
    counters = np.zeros(1 << plan.counter_bits, np.uint16)
    for hashes, _ in _blocks(pieces, part, plan):
        for start in range(0, len(hashes), BLOCK):
            places = (hashes[start : start + BLOCK] >> shift) & mask
            places = places[counters[places] < FULL]
            np.add.at(counters, places.astype(np.int64), np.uint16(1))
    possible = counters > min(min_documents, FULL - 1)
    table = _Table(plan.batch)
    for hashes, orders in _blocks(pieces, part, plan):
        some = possible[(hashes >> shift) & mask]
        table.add(hashes[some], orders[some])
    table.merge()
    enough = table.counts > min_documents
    return table.hashes[enough], table.orders[enough]


class _Table:
    """Hash -> (documents, smallest order), gathered in batches."""

    def __init__(self, batch: int) -> None:
        self.batch, self.waiting = batch, 0
        self.hashes, self.orders = np.zeros(0, np.uint64), np.zeros(0, np.uint64)
        self.counts = np.zeros(0, np.int64)
        self.parts: list[tuple[np.ndarray, np.ndarray]] = []

    def add(self, hashes: np.ndarray, orders: np.ndarray) -> None:
        """Counts one document for each hash."""
        self.parts.append((hashes, orders))
        self.waiting += len(hashes)
        if self.waiting > max(self.batch, len(self.hashes)):
            self.merge()

    def merge(self) -> None:
        """Brings what waits into the table."""
        hashes = np.concatenate([self.hashes, *(part[0] for part in self.parts)])
        orders = np.concatenate([self.orders, *(part[1] for part in self.parts)])
        counts = np.concatenate([self.counts, np.ones(self.waiting, np.int64)])
        self.parts, self.waiting = [], 0
        sort = np.argsort(hashes)
        hashes, orders, counts = hashes[sort], orders[sort], counts[sort]
        starts = np.flatnonzero(np.append(True, hashes[1:] != hashes[:-1])) if len(hashes) else np.zeros(0, np.int64)
        self.hashes = hashes[starts]
        self.orders = np.minimum.reduceat(orders, starts) if len(starts) else orders
        self.counts = np.add.reduceat(counts, starts) if len(starts) else counts


def _blocks(pieces: Sequence[SentenceFile], part: int, plan: _Plan) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(hashes, order of each one's document) of the living documents, a bounded number at a time, of one part."""
    for piece in pieces:
        ends = np.cumsum(piece.counts, dtype=np.int64)
        first = 0
        while first < len(ends):
            start = int(ends[first - 1]) if first else 0
            last = max(first + 1, int(ends.searchsorted(start + plan.block, side="right")))
            counts = piece.counts[first:last]
            wanted = np.repeat(np.asarray(piece.alive[first:last], bool), counts)
            hashes = np.asarray(piece.hashes[start : int(ends[last - 1])])
            if plan.part_bits:
                wanted &= hashes >> np.uint64(64 - plan.part_bits) == np.uint64(part)
            yield hashes[wanted], np.repeat(piece.order[first:last], counts)[wanted]
            first = last
