"""Which generated texts say what an earlier one said: equal ones by key, near ones by MinHash and an exact comparison.

A teacher that is asked five times about one topic often writes the same page again. The first in the order of the
calls stays, so the outcome depends on the answers alone. Memory is about 250 bytes a text; the texts are read twice.

Source: SPEC N2.1-3, N2.1-6.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import blake2b
from pathlib import Path

import numpy as np

from rinsho.overlap import near, normalised
from rinsho.overlap.sketch import sketch

NGRAM_CHARS = 5
BANDS = 24
MIN_FOUND = 0.99  # of the pairs at the threshold
WAITING_CHARS = 200_000  # texts are sketched together: for short ones numpy's calls cost more than the work

Texts = Callable[[], Iterable[str]]


def repeats(texts: Texts, threshold: float, folder: Path) -> dict[int, int]:
    """Position of each text that goes -> of the earlier one that stays for it.

    Equal are texts that differ only in width and white space (such a text always goes, empty ones excepted); near ones
    have a Jaccard similarity of their character n-grams of at least `threshold`. 0: near ones stay.

    Args:
        texts: gives all texts in the order of the calls, each time it is called the same; it is called twice at most.
        threshold: 0 to 1.
        folder: for a file with the n-grams of the candidates, deleted at the end (some 4 bytes a character of theirs).

    >>> import tempfile
    >>> page = "肺炎は肺の感染症で、発熱と咳嗽を認める。"
    >>> pages = [page, "胃炎は胃の炎症である。", page + "治療をする。", page.replace("で、", "で、 ")]
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     repeats(lambda: pages, 0.7, Path(folder))
    {3: 0, 2: 0}
    """
    keys, bands = _sketched(texts(), threshold)
    places = np.arange(len(keys))
    order = places.astype(np.uint64)
    stays = near.exact(keys, order)
    stays = np.where(keys.any(axis=1), stays, places)  # a text without characters repeats nothing
    gone = {int(place): int(stays[place]) for place in np.flatnonzero(stays != places)}
    if not threshold:
        return gone
    groups = near.groups([bands], (stays == places) & keys.any(axis=1))
    if not len(groups.documents):
        return gone
    file = Path(folder) / "repeats.grams"
    try:
        near.write_grams(_at(texts(), groups.documents), NGRAM_CHARS, file)
        nearly = near.greedy(groups, order, near.GramFiles([file]), threshold).dropped
    finally:
        file.unlink(missing_ok=True)
    gone = {place: nearly.get(kept, kept) for place, kept in gone.items()}
    return gone | nearly


def exercise_text(question: str, options: Iterable[str]) -> str:
    """What is compared of an exercise: the question and its options in a fixed order; answer and explanation are not.

    So an exercise with its options shuffled, or with another explanation, is the same one.

    >>> exercise_text("正しいのはどれか。", ["肺炎", "胃炎"]) == exercise_text("正しいのはどれか。", ["胃炎", "肺炎"])
    True
    """
    return "\n".join([question.strip(), *sorted(option.strip() for option in options)])


def rows_for(threshold: float) -> int:
    """MinHash values a band, 5 at most: as many as still find 99 % of the pairs at the threshold.

    >>> [rows_for(threshold) for threshold in (0.9, 0.8, 0.7, 0.5, 0.2)]
    [5, 5, 4, 2, 1]
    """
    return next((rows for rows in range(5, 1, -1) if 1 - (1 - threshold**rows) ** BANDS >= MIN_FOUND), 1)


def _sketched(texts: Iterable[str], threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """(uint64 (n, 2) keys of the normalised texts, all zero for an empty one; uint64 (n, bands) signatures)."""
    keys, bands = array("Q"), array("Q")
    for some in _batches(map(normalised, texts)):
        for text in some:
            keys.extend(_key(text))
        if threshold:
            made = sketch(some, size=NGRAM_CHARS, bands=BANDS, rows=rows_for(threshold), min_chars=1 << 30)
            bands.frombytes(made.signatures.tobytes())
    return np.frombuffer(keys, np.uint64).reshape(-1, 2), np.frombuffer(bands, np.uint64).reshape(-1, BANDS)


def _key(text: str) -> tuple[int, int]:
    if not text:
        return 0, 0
    digest = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
    return int.from_bytes(digest[:8], "big"), int.from_bytes(digest[8:], "big")


def _batches(texts: Iterable[str]) -> Iterator[Sequence[str]]:
    batch: list[str] = []
    chars = 0
    for text in texts:
        batch.append(text)
        chars += len(text)
        if chars > WAITING_CHARS:
            yield batch
            batch, chars = [], 0
    if batch:
        yield batch


def _at(texts: Iterable[str], positions: np.ndarray) -> Iterator[tuple[int, str]]:
    """The normalised texts at the sorted positions."""
    wanted = iter(positions.tolist())
    place = next(wanted, None)
    for number, text in enumerate(texts):
        if place is None:
            return
        if number == place:
            yield number, normalised(text)
            place = next(wanted, None)
