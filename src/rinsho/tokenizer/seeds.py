"""Candidate pieces of the Unigram model: all characters and all frequent substrings of a word table.

Substrings are counted one length after another, over the places where they begin. A place is looked at for length n
only when both substrings of length n - 1 in it are frequent, so memory is a few numbers for each character of the
table, however long a piece may be.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

MAX_SEEDS = 1_000_000
BUCKET_PLACES = 1_000_000  # sorted at a time

Found = tuple[NDArray[np.int32], NDArray[np.int64]]  # first place and count of every substring of one length


def seed_pieces(
    parts: Mapping[str, int], max_piece_chars: int, min_count: int, max_seeds: int = MAX_SEEDS
) -> Iterator[tuple[str, int]]:
    """Candidate pieces with their weights (count times length): all characters, then substrings, heaviest first.

    The counts are exact, overlapping occurrences included. Equal weights stand in the order of the pieces, so
    nothing depends on the order of the words.

    Args:
        parts: words with their counts; their sum must stay below 2**53.
        max_piece_chars: longest substring.
        min_count: occurrences below which a substring is no candidate; a character always is.
        max_seeds: the lightest substrings beyond this number are left out.

    >>> list(seed_pieces({"肺炎": 3, "肺癌": 2, "間質性肺炎": 1}, max_piece_chars=16, min_count=2))
    [('肺', 6), ('炎', 4), ('癌', 2), ('性', 1), ('質', 1), ('間', 1), ('肺炎', 8), ('肺癌', 4)]

    Source: N2.2-4.
    """
    words = [word for word in parts if word]
    text = "\0".join([*words, ""])
    characters, *longer = _substrings(words, text, [parts[word] for word in words], max_piece_chars, min_count)
    first, totals = characters
    single = [(text[place], count) for place, count in zip(first.tolist(), totals.tolist(), strict=True)]
    yield from sorted(single, key=lambda row: (-row[1], row[0]))
    yield from _heaviest(text, longer, max_seeds - len(single))


def _substrings(
    words: Sequence[str], text: str, counts: Sequence[int], max_chars: int, min_count: int
) -> Iterator[Found]:
    """For each length from 1 on its substrings, by number: all characters, then those seen `min_count` times."""
    lengths = np.fromiter(map(len, words), np.int64, len(words)) + 1
    weights, word = np.array(counts, np.int64), np.repeat(np.arange(len(words), dtype=np.int32), lengths)
    inside = np.ones(len(text), bool)
    inside[np.cumsum(lengths) - 1] = False
    starts = np.flatnonzero(inside).astype(np.int32)
    left = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.int32)[starts]
    right = np.zeros(len(starts), np.int32)
    for length in range(1, max_chars + 1):
        # The number of the frequent substring that begins at each place, -1 for none. One more place than characters
        # is never needed: the last place of `text` belongs to no word.
        numbers = np.full(len(text), -1, np.int32)
        firsts, totals, named = [], [], 0
        buckets = len(starts) // BUCKET_PLACES + 1
        for bucket in range(buckets):
            chosen = np.flatnonzero(left % buckets == bucket) if buckets > 1 else slice(None)
            places = starts[chosen]
            keys = left[chosen].astype(np.int64) << 32 | right[chosen]
            _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
            total = np.bincount(inverse, weights[word[places]], len(first)).astype(np.int64)
            frequent = total >= min_count
            numbers[places] = np.where(frequent, np.cumsum(frequent) - 1 + named, -1)[inverse]
            named += int(frequent.sum())
            firsts.append(places[first if length == 1 else first[frequent]])
            totals.append(total if length == 1 else total[frequent])
        yield np.concatenate(firsts), np.concatenate(totals)
        starts = starts[(numbers[starts] >= 0) & (numbers[starts + 1] >= 0)]
        left, right = numbers[starts], numbers[starts + 1]
        if not len(starts):
            return


def _heaviest(text: str, found: Sequence[Found], room: int) -> Iterator[tuple[str, int]]:
    first = np.concatenate([np.empty(0, np.int64), *(places for places, _ in found)])
    kinds = [np.full(len(places), length, np.int64) for length, (places, _) in enumerate(found, 2)]
    lengths = np.concatenate([first[:0], *kinds])
    weights = np.concatenate([first[:0], *(counts for _, counts in found)]) * lengths
    order = np.argsort(-weights, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(weights[order])) + 1, len(order))
    begin = 0
    for end in ends.tolist():  # equal weights together: only their text decides, so no more than that is made
        if begin >= room:
            return
        run = order[begin:end]
        spans = zip(first[run].tolist(), (first[run] + lengths[run]).tolist(), strict=True)
        pieces = sorted(text[start:stop] for start, stop in spans)
        weight = int(weights[run[0]]) if len(run) else 0
        for piece in pieces[: room - begin]:
            yield piece, weight
        begin = end
