"""Whether two texts are the same or nearly the same: keys, windows, character n-grams, near-duplicates.

Used for the document split of the tasks, for leakage figures and for exact deduplication, so that all of them mean
the same by "the same text": NFKC, without white space.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from hashlib import blake2b

SHARE_PREFIX = 0.8  # both tests below need this share of the given text's n-grams at least


def normalised(text: str) -> str:
    """The text as comparisons see it: NFKC, without any white space.

    >>> normalised("発熱　３８．５ ℃")
    '発熱38.5°C'
    """
    return "".join(unicodedata.normalize("NFKC", text).split())


def key(text: str, *, clean: bool = False) -> str:
    """32 hex digits that are equal for texts equal up to width and white space.

    `clean` says that the text comes from `rinsho.text.clean`, which has normalised it: not done again (keys of clean
    texts compare among themselves).

    >>> key("肺炎 ＣＴ") == key("肺炎CT"), key("肺炎") == key("肺癌")
    (True, False)
    """
    plain = "".join(text.split()) if clean else normalised(text)
    return blake2b(plain.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def windows(text: str, size: int = 24, step: int | None = None) -> Iterator[str]:
    """The normalised windows of `size` characters; disjoint by default, sliding with `step=1`.

    A text shorter than a window gives none: it is too short to be recognised.

    >>> list(windows("あいうえおかき", size=3)), len(list(windows("あいうえおかき", size=3, step=1)))
    (['あいう', 'えおか'], 5)
    """
    plain = normalised(text)
    for start in range(0, len(plain) - size + 1, step or size):
        yield plain[start : start + size]


def char_ngrams(text: str, size: int = 5) -> set[str]:
    """The distinct character n-grams of the normalised text; a shorter text is its own only n-gram.

    >>> sorted(char_ngrams("発熱と咳嗽", size=3)), char_ngrams("咳", size=3), char_ngrams("")
    (['と咳嗽', '熱と咳', '発熱と'], {'咳'}, set())
    """
    plain = normalised(text)
    if len(plain) <= size:
        return {plain} if plain else set()
    return {plain[i : i + size] for i in range(len(plain) - size + 1)}


def jaccard(one: set[str], other: set[str]) -> float:
    """Shared over all n-grams, 0..1; two empty sets give 0.

    >>> jaccard({"ab", "bc"}, {"bc", "cd"})
    0.3333333333333333
    """
    shared = len(one & other)
    return shared / (len(one) + len(other) - shared) if shared else 0.0


def near_duplicates(
    texts: Sequence[str],
    given: Sequence[str],
    *,
    threshold: float = 0.8,
    containment: float = 0.9,
    size: int = 5,
) -> list[int | None]:
    """For each text the position in `given` of the first text it is near to, or None.

    Near means: Jaccard of character n-grams above `threshold`, or `containment` of the n-grams of the shorter one
    in the other. Exact, not sampled: an inverted index only leaves out pairs that cannot pass.

    Raises:
        ValueError: `threshold` or `containment` below 0.8, for which the index would miss pairs.

    >>> near_duplicates(["患者は発熱と咳嗽を主訴に来院した。", "腹痛で受診。"], ["患者は発熱と咳嗽を主訴に来院した"])
    [0, None]
    """
    if min(threshold, containment) < SHARE_PREFIX:
        raise ValueError(f"threshold and containment must be at least {SHARE_PREFIX}")
    grams = [char_ngrams(text, size) for text in given]
    index = _Index(grams)
    return [index.near(char_ngrams(text, size), threshold, containment) for text in texts]


def near_pairs(texts: Sequence[str], *, threshold: float = 0.8, size: int = 5) -> Iterator[tuple[int, int]]:
    """The positions (earlier, later) of every two texts whose n-grams have a Jaccard similarity above `threshold`.

    Exact, and fast enough for all pools of the tasks together: two such texts share one of the rarest fifth of
    their n-grams, when both are ordered alike (prefix filtering).

    Raises:
        ValueError: `threshold` below 0.8, for which the index would miss pairs.

    >>> list(near_pairs(["患者は発熱と咳嗽を主訴に来院した。", "腹痛で受診。", "患者は発熱と咳嗽を主訴に来院した"]))
    [(0, 2)]
    """
    if threshold < SHARE_PREFIX:
        raise ValueError(f"threshold must be at least {SHARE_PREFIX}")
    grams = [char_ngrams(text, size) for text in texts]
    frequency = Counter(gram for items in grams for gram in items)
    seen: dict[str, list[int]] = {}
    for number, items in enumerate(grams):
        rare = sorted(items, key=lambda gram: (frequency[gram], gram))[: len(items) // 5 + 1]
        for other in sorted({found for gram in rare for found in seen.get(gram, ())}):
            lengths = sorted((len(items), len(grams[other])))
            if lengths[0] > threshold * lengths[1] and jaccard(items, grams[other]) > threshold:
                yield other, number
        for gram in rare:
            seen.setdefault(gram, []).append(number)


class _Index:
    """n-gram -> given texts: of all n-grams, and of the rarest fifth of each text.

    A text that shares 0.8 of the n-grams of a given one shares at least one of any 0.2 of them, so looking up the
    rarest ones finds every candidate without touching the long lists of common n-grams. The full index serves the
    other direction, a short text inside a long given one, and is asked only when nearly all its n-grams are known.
    """

    def __init__(self, grams: list[set[str]]) -> None:
        self.grams = grams
        self.all: dict[str, list[int]] = {}
        for number, items in enumerate(grams):
            for item in items:
                self.all.setdefault(item, []).append(number)
        self.rare: dict[str, list[int]] = {}
        for number, items in enumerate(grams):
            count = len(items) // 5 + 1  # one more than may be missing
            for item in sorted(items, key=lambda item: (len(self.all[item]), item))[:count]:
                self.rare.setdefault(item, []).append(number)
        self.all_keys, self.rare_keys = frozenset(self.all), frozenset(self.rare)

    def near(self, items: set[str], threshold: float, containment: float) -> int | None:
        candidates = {number for item in items & self.rare_keys for number in self.rare[item]}
        known = items & self.all_keys
        if known and len(known) >= SHARE_PREFIX * len(items):
            shared = Counter(number for item in known for number in self.all[item])
            candidates.update(number for number, count in shared.items() if count >= SHARE_PREFIX * len(items))
        for number in sorted(candidates):
            shared_count = len(items & self.grams[number])
            shorter = min(len(items), len(self.grams[number]))
            union = len(items) + len(self.grams[number]) - shared_count
            if shared_count > threshold * union or shared_count >= containment * shorter:
                return number
        return None
