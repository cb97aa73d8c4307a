"""Passages found in documents, exactly, at the cost of one look at every few characters.

Texts are compared as `rinsho.text.clean` gives them, without white space (clean text is NFKC but for … and ℃, which
both sides have), as UTF-16 code units. A run of `chars` characters that a document shares with a passage holds a seed,
a shorter run, that starts at a multiple of a step; so only the seeds of a document at these places are looked up among
all seeds of the passages, and what is found is compared character by character.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from rinsho.overlap.codes import constants, window_hashes

PAIRS = 20_000  # places compared together
MIN_CHARS = 8
WORD = 4  # code units in 64 bits
PASSAGE_END, TEXT_END = 0xFFFF, 0xFFFE  # equal to nothing
KNOWN_BITS = 24  # 16 MB; a few per cent of it are set for a million seeds

# (hashes of all windows in the order of the passages, the passage of each) -> which of them do not count
Uncounted = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Passages:
    """Passages of at least `chars` characters, ready to be found in documents; can be pickled.

    Attributes:
        chars: length of the shared runs that count, in characters without white space.
        units: uint16, the code units of all passages, PASSAGE_END before, between and after them.
        starts, lengths: int64 (passages,): where each passage lies in `units`.
        counts: bool like `units`: a window of `chars` that starts here counts and lies inside one passage.
        seeds, places: uint64 and int64 (n,): the sorted hashes of all seeds, and where they start in `units`.
        known: bool, whether any seed's hash begins with these bits.
    """

    chars: int
    units: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray
    counts: np.ndarray
    seeds: np.ndarray
    places: np.ndarray
    known: np.ndarray

    @classmethod
    def of(cls, texts: Sequence[np.ndarray], chars: int, uncounted: Uncounted | None = None) -> Passages:
        """The index of texts (`rinsho.overlap.codes.compact`).

        Raises:
            ValueError: `chars` is below 8, or a text is shorter than `chars`.
        """
        if chars < MIN_CHARS or any(len(text) < chars for text in texts):
            raise ValueError(f"runs of at least {MIN_CHARS} characters, in texts that are no shorter than a run")
        end = np.full(chars, PASSAGE_END, np.uint16)
        units = np.concatenate([end, *(part for text in texts for part in (text, end))])
        lengths = np.array([len(text) for text in texts], np.int64)
        starts = np.cumsum(np.append(chars, lengths + chars))[:-1]
        windows, owners = _runs(starts, lengths - chars + 1)
        counts = np.zeros(len(units), bool)
        counts[windows] = True
        if uncounted is not None:
            counts[windows] = ~uncounted(window_hashes(units, chars)[windows], owners)
        size = _seed_chars(chars)
        places, _ = _runs(starts, lengths - size + 1)
        before = np.append(0, np.cumsum(counts))
        places = places[before[places + 1] > before[places - (chars - size)]]  # those in a window that counts
        seeds = _seed_hashes(units, size, 1)[places]
        sort = np.argsort(seeds, kind="stable")
        known = np.zeros(1 << KNOWN_BITS, bool)
        known[seeds >> np.uint64(64 - KNOWN_BITS)] = True
        return cls(chars, units, starts, lengths, counts, seeds[sort], places[sort], known)

    def __len__(self) -> int:
        return len(self.starts)

    def shared(self, text: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(starts in the text, starts in `units`) of the windows that are equal and count, in parts; some repeat.

        >>> from rinsho.overlap.codes import compact
        >>> known = Passages.of([compact("62歳の男性。発熱と咳嗽を主訴に来院した。")], 10)
        >>> sorted(int(at[0]) for at, _ in known.shared(compact("昨日、62歳の男性。発熱と咳嗽があった。")))
        [3, 4, 5]
        """
        at, first, number = self._seeds_in(text)
        if len(at):
            yield from self._equal(self._padded(text), at, first, number)

    def covered(self, text: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(passages that the text shares a window with, how many characters of each are in such windows), int64.

        >>> from rinsho.overlap.codes import compact
        >>> known = Passages.of([compact("腹痛と嘔吐があり受診した。"), compact("発熱と咳嗽を主訴に来院した。")], 8)
        >>> [found.tolist() for found in known.covered(compact("昨日、発熱と咳嗽を主訴に受診した。"))]
        [[1], [9]]
        """
        at, first, number = self._seeds_in(text)
        if not len(at):
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        padded = self._padded(text)
        if number.sum() > PAIRS:  # the same again and again: once is enough
            different = self._different(padded, at)
            at, first, number = at[different], first[different], number[different]
        places = np.unique(np.concatenate([[-1], *(there for _, there in self._equal(padded, at, first, number))]))[1:]
        owners = self.starts.searchsorted(places, side="right") - 1
        # windows of two passages are further apart than they are long
        added = np.minimum(np.diff(places, append=len(self.units)), self.chars)
        sums = np.bincount(owners, weights=added).astype(np.int64)
        found = np.flatnonzero(sums)
        return found, sums[found]

    def stands(self, number: int, text: np.ndarray) -> bool:
        """Whether passage `number` stands in the text in one piece."""
        start = self.starts[number]
        passage, data = self.units[start : start + self.lengths[number]].tobytes(), text.tobytes()
        at = data.find(passage)
        while at >= 0 and at % 2:  # between two code units
            at = data.find(passage, at + 1)
        return at >= 0

    def _seeds_in(self, text: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(places in the text where a seed may stand, its first candidate in `seeds`, how many there are)."""
        size = _seed_chars(self.chars)
        step = self.chars - size + 1
        nothing = np.zeros(0, np.int64)
        if len(text) < self.chars or not len(self.seeds):
            return nothing, nothing, nothing
        hashes = _seed_hashes(text, size, step)
        some = self.known.take((hashes >> np.uint64(64 - KNOWN_BITS)).view(np.int64))
        if not np.count_nonzero(some):
            return nothing, nothing, nothing
        at = np.flatnonzero(some)
        first = self.seeds.searchsorted(hashes[at])
        number = self.seeds.searchsorted(hashes[at], side="right") - first
        true = number > 0
        return at[true] * step, first[true], number[true]

    def _padded(self, text: np.ndarray) -> np.ndarray:
        end = np.full(self.chars, TEXT_END, np.uint16)
        return np.concatenate([end, text, end])

    def _equal(
        self, padded: np.ndarray, at: np.ndarray, first: np.ndarray, number: np.ndarray
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Like `shared`, for seeds at the places `at` of a text that have `number` candidates from `first` on."""
        ends = np.cumsum(number)
        for start in range(0, int(ends[-1]), PAIRS):
            pairs = np.arange(start, min(start + PAIRS, int(ends[-1])))
            owner = ends.searchsorted(pairs, side="right")
            places = self.places[first[owner] + pairs - (ends - number)[owner]]
            for here, there in self._windows(padded, at[owner] + self.chars, places):
                yield here - self.chars, there

    def _windows(
        self, padded: np.ndarray, at: np.ndarray, places: np.ndarray
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(starts in the padded text, starts in `units`) of the equal windows that count and hold these seeds."""
        size, around = _seed_chars(self.chars), self._around()
        equal = padded[at[:, None] + around] == self.units[places[:, None] + around]
        same = np.zeros((len(at), len(around) + 1), np.int32)
        np.cumsum(equal, axis=1, out=same[:, 1:])
        for offset in range(size - self.chars, 1):
            column = offset + self.chars - size
            good = (same[:, column + self.chars] - same[:, column] == self.chars) & self.counts[places + offset]
            if good.any():
                yield at[good] + offset, places[good] + offset

    def _different(self, padded: np.ndarray, at: np.ndarray) -> np.ndarray:
        """Positions in `at` of seeds with different surroundings; some repeat when there are very many."""
        kept = []
        for start in range(0, len(at), PAIRS):
            rows = padded[at[start : start + PAIRS, None] + (self._around() + self.chars)]
            kept.append(start + np.unique(rows, axis=0, return_index=True)[1])
        return np.concatenate(kept)

    def _around(self) -> np.ndarray:
        """The places, from its start, that all windows with a seed lie in."""
        return np.arange(_seed_chars(self.chars) - self.chars, self.chars)


def _runs(starts: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(start, start + 1, ... for each start, as many as its length; which start each belongs to)."""
    owners = np.repeat(np.arange(len(starts)), lengths)
    return np.arange(len(owners)) + (starts - np.cumsum(lengths) + lengths)[owners], owners


def _seed_chars(chars: int) -> int:
    """Length of the seeds: a multiple of a word, about two thirds of the runs that count."""
    return 2 * chars // 3 // WORD * WORD


def _seed_hashes(units: np.ndarray, size: int, step: int) -> np.ndarray:
    """A hash, uint64, of the `size` units from positions 0, `step`, 2 * `step`, ... on, read four units at a time."""
    count = max(len(units) - size + step, 0) // step
    words = np.ndarray((count, size // WORD), "<u8", np.ascontiguousarray(units), strides=(2 * step, 2 * WORD))
    hashes: np.ndarray = words @ (constants(size // WORD) | np.uint64(1))
    return hashes
