"""Which documents go as duplicates: equal ones by key, near ones by signature and then by exact Jaccard index.

Documents are positions 0..n-1 over all pieces. Who stays is decided by `order` alone (a fixed number a document), so
the result does not depend on which files the documents lie in. Candidates come from equal signature keys; a document
goes only when its n-gram sets were compared and were near.

Source: SPEC N2.1-3.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from rinsho.errors import UserError
from rinsho.files import atomic_file
from rinsho.overlap.codes import mix64
from rinsho.overlap.sketch import gram_set

MAX_KEPT = 128  # kept documents a group remembers: a group of very many different ones is a template
MAX_COMPARED = 128  # kept documents that one document is compared with
MAGIC = b"rinshogr"


@dataclass(frozen=True)
class Groups:
    """Documents that share a signature key, as lists of positions one after the other.

    Attributes:
        members: int64, the documents of group 0, of group 1, ...; ascending in a group; a group has at least two.
        bounds: int64 (groups + 1,): group g is `members[bounds[g]:bounds[g + 1]]`.
        weights: int64 (groups,): how many bands gave exactly this group.
    """

    members: np.ndarray
    bounds: np.ndarray
    weights: np.ndarray

    @property
    def documents(self) -> np.ndarray:
        """The sorted positions of all documents that are in a group, int64."""
        return np.unique(self.members)


class Verdict(NamedTuple):
    """What `greedy` found.

    Attributes:
        dropped: position of each document that goes -> of the kept document it is near to.
        compared: pairs whose n-gram sets were compared.
        capped: documents kept although not all kept documents of their groups were compared (see MAX_KEPT).
    """

    dropped: dict[int, int]
    compared: int
    capped: int


def exact(keys: np.ndarray, order: np.ndarray) -> np.ndarray:
    """For each document the position of the one that stays for it, int64 (n,); itself when it stays.

    Of documents with equal `keys`, uint64 (n, 2), the one of the smallest `order`, uint64 (n,), stays; of equal
    orders the first.

    >>> exact(np.array([[1, 2], [3, 4], [1, 2]], np.uint64), np.array([9, 5, 7], np.uint64)).tolist()
    [2, 1, 2]
    """
    stays = np.arange(len(order))
    places = np.argsort(keys[:, 0])
    shared = _in_runs(keys[:, 0][places])
    places = places[shared]
    if not len(places):
        return stays
    one, other = keys[places, 0], keys[places, 1]
    sort = np.lexsort((places, order[places], other, one))
    places, one, other = places[sort], one[sort], other[sort]
    new = np.append(True, (one[1:] != one[:-1]) | (other[1:] != other[:-1]))
    stays[places] = places[new][np.cumsum(new) - 1]
    return stays


def groups(bands: Sequence[np.ndarray], alive: np.ndarray) -> Groups:
    """The documents that share a key of the same band with another living one.

    `bands` has one array a piece, uint64 (documents, bands), memory-mapped or not; `alive` is bool over all documents.
    One band is taken at a time, so memory is about 50 bytes a living document, and the groups. (An array in Fortran
    order, `np.asfortranarray`, lets a memory map read one band without touching the others.)

    >>> found = groups([np.array([[1, 7], [2, 8], [1, 9]], np.uint64)], np.ones(3, bool))
    >>> found.members.tolist(), found.documents.tolist()
    ([0, 2], [0, 2])
    """
    living = np.flatnonzero(alive)
    ends = np.cumsum([len(piece) for piece in bands], dtype=np.int64)
    marks, weights = np.zeros(0, np.uint64), np.zeros(0, np.int64)
    members, lengths = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for band in range(bands[0].shape[1] if len(bands) else 0):
        keys = [piece[alive[end - len(piece) : end], band] for piece, end in zip(bands, ends, strict=True)]
        found, sizes = _band_groups(np.concatenate(keys), living)
        if not len(sizes):
            continue
        each = mix64(found.astype(np.uint64) + np.uint64(1))  # the first document must not count as nothing
        made = mix64(np.add.reduceat(each, np.cumsum(sizes) - sizes))  # one number a set of members
        sort = np.argsort(marks)
        place = np.append(sort, 0)[marks.searchsorted(made, sorter=sort)]
        new = marks[place] != made if len(marks) else np.ones(len(made), bool)
        weights[place[~new]] += 1
        marks, weights = np.append(marks, made[new]), np.append(weights, np.ones(np.count_nonzero(new), np.int64))
        members.append(found[np.repeat(new, sizes)])
        lengths.append(sizes[new])
    bounds = np.append(0, np.cumsum(np.concatenate(lengths))).astype(np.int64)
    return Groups(np.concatenate(members), bounds, weights)


def greedy(groups: Groups, order: np.ndarray, grams: Callable[[int], np.ndarray], threshold: float) -> Verdict:
    """Decides in ascending `order` which candidates go: those near to a document of their groups that was kept.

    Near is a Jaccard index of at least `threshold` of the sets that `grams` gives for a position (sorted uint32, as
    `sketch.gram_set`). The kept documents that share most bands are compared first. The work is bounded:
    a group remembers its first MAX_KEPT kept documents and a document is compared with MAX_COMPARED; where that left
    something out it is counted.
    """
    documents = groups.documents
    sort = np.argsort(groups.members, kind="stable")
    owners = np.repeat(np.arange(len(groups.weights)), np.diff(groups.bounds))[sort]
    firsts = np.append(groups.members[sort].searchsorted(documents), len(sort))
    kept = _Kept(groups)
    dropped: dict[int, int] = {}
    compared = capped = 0
    for number in np.lexsort((documents, order[documents])).tolist():
        position, own = int(documents[number]), owners[firsts[number] : firsts[number + 1]].tolist()
        votes = kept.votes(own)
        ranked = sorted(votes, key=lambda other: (-votes[other], int(order[other]), other))
        other, count = _first_near(grams, position, ranked[:MAX_COMPARED], threshold)
        compared += count
        if other is not None:
            dropped[position] = other
        else:
            capped += len(ranked) > MAX_COMPARED or any(map(kept.full.__contains__, own))
            kept.add(position, own)
    return Verdict(dropped, compared, capped)


class _Kept:
    """The first kept documents of each group; they are written over the list of its members, so memory is flat."""

    def __init__(self, groups: Groups) -> None:
        self.places = np.empty_like(groups.members)
        self.starts = groups.bounds
        self.counts = np.zeros(len(groups.weights), np.int16)
        self.weights = groups.weights
        self.full: set[int] = set()

    def votes(self, own: list[int]) -> dict[int, int]:
        """In how many bands each kept document met these groups."""
        found: dict[int, int] = {}
        for group in own:
            if count := self.counts[group]:
                start, weight = self.starts[group], int(self.weights[group])
                for other in self.places[start : start + count].tolist():
                    found[other] = found.get(other, 0) + weight
        return found

    def add(self, position: int, own: list[int]) -> None:
        """Remembers a kept document in its groups."""
        for group in own:
            if self.counts[group] < MAX_KEPT:
                self.places[self.starts[group] + self.counts[group]] = position
                self.counts[group] += 1
            else:
                self.full.add(group)


def _first_near(
    grams: Callable[[int], np.ndarray], position: int, others: list[int], threshold: float
) -> tuple[int | None, int]:
    """(the first of the others that is near, or None; how many were compared)."""
    own = grams(position) if others else np.zeros(0, np.uint32)
    if not len(own):
        return None, 0
    shift = np.uint32(max(32 - (16 * len(own)).bit_length(), 4))  # a table about 16 times as large as the set
    table = np.zeros(1 << (32 - int(shift)), bool)
    table[own >> shift] = True
    compared = 0
    for other in others:
        given = grams(other)
        total = len(own) + len(given)
        needed = threshold * total / (1 + threshold)  # shared n-grams from which the index reaches the threshold
        if min(len(own), len(given)) < needed - 1:
            continue
        compared += 1
        maybe = given[table[given >> shift]]
        if len(maybe) < needed - 1:
            continue
        shared = np.count_nonzero(own[np.minimum(own.searchsorted(maybe), len(own) - 1)] == maybe)
        if shared and shared >= threshold * (total - shared):
            return other, compared
    return None, compared


def _band_groups(keys: np.ndarray, living: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(documents of each run of equal keys, ascending in a run; the lengths of the runs)."""
    places = np.argsort(keys)
    places = places[_in_runs(keys[places])]
    if not len(places):
        return places, places
    keys = keys[places]
    sort = np.lexsort((places, keys))
    keys = keys[sort]
    starts = np.flatnonzero(np.append(True, keys[1:] != keys[:-1]))
    return living[places[sort]], np.diff(np.append(starts, len(keys)))


def _in_runs(ordered: np.ndarray) -> np.ndarray:
    """Which of the sorted values stand there more than once, bool."""
    again = np.zeros(len(ordered) + 1, bool)
    np.equal(ordered[1:], ordered[:-1], out=again[1:-1])
    return again[1:] | again[:-1]


def write_grams(texts: Iterable[tuple[int, str]], size: int, path: Path) -> None:
    """Writes the n-gram sets of documents, given as (position, clean text), into one file for `GramFiles`.

    The file: all sets (uint32), padded to 8 bytes; positions (int64); where each set starts, and the end (int64, in
    n-grams); number of sets (int64) and 8 bytes that mark the file's end.
    """
    positions, starts, total = [], [0], 0
    with atomic_file(path) as file:
        for position, text in texts:
            grams = gram_set(text, size)
            file.write(grams.astype("<u4").tobytes())
            total += len(grams)
            positions.append(position)
            starts.append(total)
        file.write(bytes(total % 2 * 4))
        file.write(np.array([*positions, *starts, len(positions)], "<i8").tobytes() + MAGIC)


class GramFiles:
    """The n-gram sets of several files by position, read from a memory map: `files(position)` is sorted uint32."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._sets: list[np.ndarray] = []
        positions, spans = [np.zeros(0, np.int64)], [np.zeros((0, 3), np.int64)]
        for number, path in enumerate(paths):
            sets, found, starts = _open_grams(path)
            self._sets.append(sets)
            positions.append(found)
            spans.append(np.stack([np.full(len(found), number), starts[:-1], starts[1:]], axis=1))
        all_positions = np.concatenate(positions)
        sort = np.argsort(all_positions, kind="stable")
        self._positions, self._spans = all_positions[sort], np.concatenate(spans)[sort]

    def __call__(self, position: int) -> np.ndarray:
        """The set of one document.

        Raises:
            KeyError: no file has it.
        """
        place = int(self._positions.searchsorted(position))
        if place == len(self._positions) or self._positions[place] != position:
            raise KeyError(position)
        file, start, end = self._spans[place].tolist()
        grams: np.ndarray = self._sets[file][start:end]
        return grams


def _open_grams(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(all sets one after the other, positions, starts) of a file of `write_grams`."""
    with path.open("rb") as file:
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if path.stat().st_size else b""
    words = np.frombuffer(data, "<i8", len(data) // 8)
    count = int(words[-2]) if len(words) >= 3 and bytes(data[-8:]) == MAGIC else -1
    tail = 2 * count + 3
    if count < 0 or tail > len(words) or words[-3] > 2 * (len(words) - tail):
        raise UserError("not a whole file of n-gram sets", where=path, expected="what the corpus run wrote",
                        todo="delete it and run the same command again")  # fmt: skip
    sets = np.frombuffer(data, "<u4", int(words[-3]))
    return sets, words[-tail : -tail + count].copy(), words[-tail + count : -2].copy()
