"""Invented texts with planted copies: equal, and with a share of their characters changed."""

from __future__ import annotations

import unicodedata
from itertools import islice
from random import Random

from rinsho.overlap import char_ngrams, jaccard
from rinsho.samples import bank
from rinsho.samples.rows import Fresh
from rinsho.samples.running import documents

LETTERS = "あいうえおかきくけこ発熱咳痰肺炎胸部患者投与症例"


def texts(count: int, seed: int = 1) -> list[str]:
    """Invented running text in pieces of 40 to 2,400 characters, as cleaning leaves them."""
    rng = Random(seed)
    made = documents(bank.load(), seed, Fresh(), frozenset())
    found = []
    for one in islice(made, count):
        text = unicodedata.normalize("NFKC", one.document.text)
        found.append(text[: rng.choice((40, 80, 150, 300, 600, 1200, 2400))])
    return found


def edited(text: str, share: float, rng: Random) -> str:
    """The text with this share of its characters replaced, doubled with another, or left out."""
    made = []
    for letter in text:
        if rng.random() >= share:
            made.append(letter)
        else:
            made.append(rng.choice((rng.choice(LETTERS), letter + rng.choice(LETTERS), "")))
    return "".join(made)


def with_copies(originals: list[str], seed: int = 2) -> list[str]:
    """The originals, and of every second one copies with 0, 1, 3 and 5 % of the characters changed; shuffled."""
    rng = Random(seed)
    found = list(originals)
    for text in originals[::2]:
        found += [edited(text, share, rng) for share in (0.0, 0.01, 0.03, 0.05)]
    rng.shuffle(found)
    return found


def near_pairs(given: list[str], threshold: float, size: int = 5) -> dict[tuple[int, int], float]:
    """All pairs of texts whose Jaccard index reaches the threshold, by brute force."""
    grams = [char_ngrams(text, size) for text in given]
    found = {}
    for one, first in enumerate(grams):
        for other in range(one):
            second = grams[other]
            if min(len(first), len(second)) >= threshold * max(len(first), len(second)):
                index = jaccard(first, second)
                if index >= threshold:
                    found[other, one] = index
    return found
