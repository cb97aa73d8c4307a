"""What deduplication keeps of a document: the hashes of its character n-grams, its MinHash signature, its sentences.

Everything is counted on UTF-16 code units without spaces, so documents equal up to spacing have equal sketches; a
character beyond the basic plane is two units. All hashes are fixed functions of the text: the same on every machine.
`sketch` handles many documents in one go, since for short ones the numpy calls cost more than the work.

Signature: MinHash of one permutation. An n-gram hash belongs to one of `bands * rows` bins by its low bits, and a bin
takes the smallest hash in it; a bin that stays empty takes the smallest of all hashes under a permutation of its own.
Both are equal in two documents with the probability of their Jaccard index, so texts of any length meet on equal terms.

Source: SPEC N2.1-3; Broder 1997; Li, Owen and Zhang 2012 (One Permutation Hashing).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from rinsho.overlap.codes import BASE64, LINE_FEED, SPACE, codes, constants, mix64, powers

NONE = np.uint32(0xFFFFFFFF)  # no n-gram
BATCH_UNITS = 1 << 16  # code units handled together: the arrays stay in the processor's cache
SAMPLED = 64  # n-grams a bin that are looked at in a long text; all of them if that leaves a bin empty
FEW = 4096  # beyond this many n-grams a bin is empty only when they are mostly the same
MARKS, CLOSERS = "。！？!?", "」』）)】〉》]〕"
CLOSER_KIND, MARK_KIND, LINE_KIND = 1, 2, 3
BASE32 = 0x9E3779B1  # odd multipliers without structure
LENGTH64 = 0xD6E8FEB86659FD93


@dataclass(frozen=True)
class Sketches:
    """What `sketch` gives for n documents.

    Attributes:
        signatures: uint64 (n, bands): two documents with an equal key in any column are candidates.
        sentences: uint64, the hashes of the distinct sentences of each document, one document after the other.
        counts: uint32 (n,): how many of `sentences` belong to each document.
    """

    signatures: np.ndarray
    sentences: np.ndarray
    counts: np.ndarray


def sketch(texts: Sequence[str], *, size: int, bands: int, rows: int, min_chars: int) -> Sketches:
    """Signatures and sentence hashes of many documents, equal to those of `signature` and `sentence_hashes`.

    >>> made = sketch(["発熱と咳を認めた。", "咳。"], size=5, bands=4, rows=2, min_chars=3)
    >>> made.signatures.shape, made.counts.tolist()
    ((2, 4), [1, 0])
    """
    signatures, sentences, counts = (
        [np.zeros((0, bands), np.uint64)],
        [np.zeros(0, np.uint64)],
        [np.zeros(0, np.uint32)],
    )
    for units, bounds in _batches(texts):
        found, number = _sentence_hashes(units, bounds, min_chars)
        sentences.append(found)
        counts.append(number)
        signatures.append(_signatures(*_without(units, bounds, LINE_FEED), size, bands, rows))
    return Sketches(np.concatenate(signatures), np.concatenate(sentences), np.concatenate(counts))


def signature(text: str, *, size: int, bands: int, rows: int) -> np.ndarray:
    """One key a band, uint64 (bands,): documents that are near share at least one of them, most probably.

    A pair of Jaccard index j shares a key with probability 1 - (1 - j**rows)**bands.

    >>> one, other = (signature(text, size=3, bands=8, rows=2) for text in ("右下葉に浸潤影。", "右下葉 に浸潤影。"))
    >>> bool((one == other).all())
    True
    """
    units, bounds = _without(*_joined([text]), LINE_FEED)
    made: np.ndarray = _signatures(units, bounds, size, bands, rows)[0]
    return made


def gram_hashes(text: str, size: int) -> np.ndarray:
    """The hash of every character n-gram of the text without spaces and line feeds, uint32; in order, with repeats.

    A shorter text is its own only n-gram, as in `rinsho.overlap.char_ngrams`.

    >>> len(gram_hashes("発熱と 咳嗽", 3)), len(gram_hashes("咳", 3)), len(gram_hashes(" ", 3))
    (3, 1, 0)
    """
    units = codes(text)
    units = units[(units != SPACE) & (units != LINE_FEED)]
    return _mix32(_rolling(units, min(size, len(units)))) if len(units) else np.zeros(0, np.uint32)


def gram_set(text: str, size: int) -> np.ndarray:
    """The distinct hashes of `gram_hashes`, sorted, uint32.

    >>> len(gram_set("ああああああ", 3))
    1
    """
    return distinct(gram_hashes(text, size))


def sentence_hashes(text: str, min_chars: int) -> np.ndarray:
    r"""The hashes of the distinct sentences of at least `min_chars` characters (without spaces), uint64, in order.

    A sentence ends after 。！？!? with the closing brackets that follow, and at a line feed.

    >>> len(sentence_hashes("無断転載を禁じます。「またですか！？」咳\n無断転載を 禁じます。", 5))
    2
    """
    return _sentence_hashes(*_joined([text]), min_chars)[0]


def segments(units: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The sentences of code units without spaces that end with a line feed: (starts, ends), int64.

    They follow one another without gaps; the line feed belongs to the sentence that it ends.
    """
    kinds = _kinds().take(units)
    special = np.flatnonzero(kinds != 0)
    kinds = kinds[special]
    new_run = np.ones(len(special), bool)  # 。」 and ！？ are one end
    line = kinds == LINE_KIND
    new_run[1:] = (np.diff(special) != 1) | line[1:] | line[:-1]
    runs = np.flatnonzero(new_run)
    last = np.append(runs[1:], len(special)) - 1
    ends = special[last[np.maximum.reduceat(kinds, runs) >= MARK_KIND]] + 1
    return np.concatenate(([0], ends[:-1])), ends


def segment_hashes(units: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(hash uint64, length int64) of each sentence of `segments`, both without the line feed."""
    factors, inverses = powers(len(units))
    sums = np.add.reduceat(units * factors[: len(units)], starts)
    line = units[ends - 1] == LINE_FEED
    sums -= line * factors[ends - 1] * np.uint64(LINE_FEED)
    lengths = ends - starts - line
    return mix64(sums * inverses[starts] + lengths.astype(np.uint64) * np.uint64(LENGTH64)), lengths


def distinct(values: np.ndarray) -> np.ndarray:
    """The different values, sorted (several times as fast as `np.unique`).

    >>> distinct(np.array([3, 1, 3])).tolist()
    [1, 3]
    """
    values = np.sort(values)
    new = np.ones(len(values), bool)
    np.not_equal(values[1:], values[:-1], out=new[1:])
    return values[new]


def _batches(texts: Sequence[str]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    batch: list[str] = []
    size = 0
    for text in texts:
        if batch and size + len(text) > BATCH_UNITS:
            yield _joined(batch)
            batch, size = [], 0
        batch.append(text)
        size += len(text)
    if batch:
        yield _joined(batch)


def _joined(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """(code units without spaces of all texts, each with a line feed after it; where each starts, and the end)."""
    parts = [text.encode("utf-16-le", "surrogatepass") + b"\n\0" for text in texts]
    bounds = np.zeros(len(parts) + 1, np.int64)
    np.cumsum([len(part) // 2 for part in parts], out=bounds[1:])
    return _without(np.frombuffer(b"".join(parts), dtype="<u2"), bounds, SPACE)


def _without(units: np.ndarray, bounds: np.ndarray, unit: int) -> tuple[np.ndarray, np.ndarray]:
    keep = units != unit
    gone = np.flatnonzero(~keep)
    return units[keep], bounds - gone.searchsorted(bounds)


def _rolling(units: np.ndarray, size: int) -> np.ndarray:
    """The polynomial hash, uint32, of every run of `size` units: put together from runs of 1, 2, 4, ... units."""
    part, width = units.astype(np.uint32), 1
    total, done = part[:0], 0
    while True:
        factor = np.uint32(pow(BASE32, width, 1 << 32))
        if size & width:
            if done:
                total = total[: len(units) - done - width + 1] * factor
                total += part[done:]
            else:
                total = part
            done += width
        if done == size:
            return total
        longer = part[:-width] * factor
        longer += part[width:]
        part, width = longer, 2 * width


def _mix32(values: np.ndarray) -> np.ndarray:
    """The values with every bit of the input in every bit of the output (lowbias32)."""
    mixed = values >> np.uint32(16)
    mixed ^= values
    spare = np.empty_like(mixed)
    for factor, shift in ((0x7FEB352D, 15), (0x846CA68B, 16)):
        mixed *= np.uint32(factor)
        np.right_shift(mixed, np.uint32(shift), out=spare)
        mixed ^= spare
    return mixed


def _signatures(units: np.ndarray, bounds: np.ndarray, size: int, bands: int, rows: int) -> np.ndarray:
    minima = _minima(units, bounds, size, bands * rows)
    weights = constants(rows) | np.uint64(1)
    return mix64(minima.astype(np.uint64).reshape(-1, bands, rows) @ weights)


def _minima(units: np.ndarray, bounds: np.ndarray, size: int, bins: int) -> np.ndarray:
    """The MinHash values of each document, uint32 (documents, bins)."""
    starts, lengths = bounds[:-1], np.diff(bounds)
    hashes = _placed_grams(units, bounds, size)
    owners = (np.arange(len(starts)) * bins).repeat(lengths) if len(starts) > 1 else np.zeros(1, np.int64)
    long = lengths > 2 * SAMPLED * bins  # their minima are small: other hashes need not be looked at
    values = hashes
    if long.any():
        limits = np.where(long, SAMPLED * bins / np.maximum(lengths, 1) * 2**32, float(NONE)).astype(np.uint32)
        some = np.flatnonzero(hashes < (limits.repeat(lengths) if len(starts) > 1 else limits))
        values = hashes[some]
        owners = owners[some] if len(starts) > 1 else owners
    table = np.full((len(starts), bins), NONE)
    np.minimum.at(table.reshape(-1), _bins(values, bins) + owners, values)
    grams = lengths - size + 1
    grams = starts + np.where(grams > 0, grams, np.minimum(lengths, 1))  # where the n-grams of each document end
    for number in np.flatnonzero(long & (table == NONE).any(axis=1)):
        own = hashes[starts[number] : grams[number]]
        np.minimum.at(table[number], _bins(own, bins), own)
    _fill(table, hashes, starts, grams)
    return table


def _fill(table: np.ndarray, hashes: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> None:
    """Gives the bins that are still empty their value: the smallest hash under the bin's own permutation."""
    holes = np.flatnonzero(table == NONE)
    if not len(holes):
        return
    bins = table.shape[1]
    factors = ((constants(bins) >> np.uint64(32)).astype(np.uint32) | np.uint32(1))[holes % bins, None]
    values = np.full(len(holes), NONE)
    firsts = holes.searchsorted(np.arange(len(table) + 1) * bins).tolist()
    for number, (start, end) in enumerate(zip(starts.tolist(), ends.tolist(), strict=True)):
        first, last = firsts[number], firsts[number + 1]
        if first < last and start < end:
            own = hashes[start:end]
            if len(own) > FEW:
                own = distinct(own)
            np.minimum.reduce(factors[first:last] * own, axis=1, out=values[first:last])
    table.reshape(-1)[holes] = values


def _placed_grams(units: np.ndarray, bounds: np.ndarray, size: int) -> np.ndarray:
    """The n-gram hashes, each where its n-gram starts; NONE where one would run into the next document."""
    hashes = np.full(len(units), NONE)
    if len(units) >= size:
        hashes[: len(units) - size + 1] = _mix32(_rolling(units, size))
    across = bounds[1:, None] - np.arange(1, size)
    hashes[across[across >= bounds[:-1, None]]] = NONE
    lengths = np.diff(bounds)
    for number in np.flatnonzero((lengths < size) & (lengths > 0)):
        own = units[bounds[number] : bounds[number + 1]]
        hashes[bounds[number]] = _mix32(_rolling(own, len(own)))[0]
    return hashes


def _bins(hashes: np.ndarray, bins: int) -> np.ndarray:
    return (((hashes & np.uint32(0xFFFF)) * np.uint32(bins)) >> np.uint32(16)).astype(np.int64)


def _sentence_hashes(units: np.ndarray, bounds: np.ndarray, min_chars: int) -> tuple[np.ndarray, np.ndarray]:
    """(distinct sentence hashes of each document in order, their number uint32 a document)."""
    starts, ends = segments(units)
    hashes, lengths = segment_hashes(units, starts, ends)
    owners = np.arange(len(bounds) - 1).repeat(np.diff(ends.searchsorted(bounds, side="right")))
    enough = lengths >= max(min_chars, 1)
    hashes, owners = hashes[enough], owners[enough]
    keys = hashes + owners.astype(np.uint64) * np.uint64(BASE64)
    _, first = np.unique(keys, return_index=True)
    first.sort()
    return hashes[first], np.bincount(owners[first], minlength=len(bounds) - 1).astype(np.uint32)


@lru_cache(maxsize=1)
def _kinds() -> np.ndarray:
    kinds = np.zeros(1 << 16, np.uint8)
    kinds[LINE_FEED] = LINE_KIND
    kinds[list(map(ord, MARKS))] = MARK_KIND
    kinds[list(map(ord, CLOSERS))] = CLOSER_KIND
    return kinds
