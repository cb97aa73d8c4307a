"""Clinical terms of the word lists: alone, and where they stand in the measured text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rinsho.tokenizer.measure.sample import Places, boundaries, trimmed


@dataclass(frozen=True)
class Occurrences:
    """Pieces of the terms where they stand in running text."""

    occurrences: int = 0
    pieces: int = 0
    single: int = 0

    def __add__(self, other: Occurrences) -> Occurrences:
        return Occurrences(self.occurrences + other.occurrences, self.pieces + other.pieces, self.single + other.single)


class Finder:
    """Finds the terms in a text: at each place the longest, none inside another."""

    def __init__(self, terms: Sequence[str]) -> None:
        self._automaton: Any = None
        if terms:
            from ahocorasick_rs import AhoCorasick, MatchKind

            self._automaton = AhoCorasick(list(terms), matchkind=MatchKind.LeftmostLongest)

    def find(self, text: str) -> Places:
        """Where terms stand, int64 (n, 2), characters; rising."""
        if self._automaton is None:
            return np.zeros((0, 2), dtype=np.int64)
        found = self._automaton.find_matches_as_indexes(text)
        return np.array([(start, end) for _, start, end in found], dtype=np.int64).reshape(-1, 2)


@dataclass(frozen=True)
class Yardsticks:
    """What the tokens of every tokenizer are held against: the words of one segmentation, and the terms."""

    user_dictionary: Path | None
    finder: Finder

    def words(self, cleaned: str) -> Places:
        """Boundaries of words inside a cleaned text."""
        return boundaries(cleaned, self.user_dictionary)

    def terms(self, cleaned: str) -> Places:
        """Where terms stand in a cleaned text."""
        return self.finder.find(cleaned)


def read(paths: Sequence[Path]) -> list[str]:
    """The cleaned, distinct surfaces of word lists, sorted.

    Raises:
        UserError: a file is missing or is no word list.
    """
    from rinsho.tokenizer.lexicon import LexiconSettings
    from rinsho.tokenizer.lexicon.table import read_table

    return [term.surface for term in read_table(paths, LexiconSettings.model_validate({})).terms]


def in_text(found: Places, spans: Places, known: npt.NDArray[np.bool_], text: str) -> Occurrences:
    """How many tokens touch each term in the text, and how many terms are exactly one token.

    Args:
        found: places of the terms.
        spans: places of the tokens, rising.
        known: tokens that are not `<unk>`.
        text: the cleaned text.
    """
    if not len(found):
        return Occurrences()
    ends = np.maximum.accumulate(spans[:, 1])
    first = np.searchsorted(ends, found[:, 0], "right")
    last = np.searchsorted(spans[:, 0], found[:, 1], "left")
    pieces = np.maximum(last - first, 0)
    tidy = trimmed(spans, text)
    place = np.minimum(first, len(spans) - 1)
    exact = (pieces == 1) & known[place] & (tidy[place] == found).all(axis=1)
    return Occurrences(len(found), int(pieces.sum()), int(exact.sum()))
