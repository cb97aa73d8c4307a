"""How sure a score is, and what guessing would score: Wilson and bootstrap intervals, chance levels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from math import comb
from statistics import NormalDist
from typing import Literal

import numpy as np
import numpy.typing as npt

from rinsho.tasks.item import Item
from rinsho.tasks.score import kappas

Interval = tuple[float, float]
Floats = npt.NDArray[np.float64]
CHUNK = 2_000_000  # resampling weights held at once


def wilson(hits: int, total: int, confidence: float = 0.95) -> Interval | None:
    """Wilson's score interval of a share, 0 to 1; None without observations. Equals scipy's.

    >>> [round(bound, 3) for bound in wilson(58, 100)]
    [0.482, 0.672]
    """
    if total == 0:
        return None
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share, z2 = hits / total, z * z
    middle = (share + z2 / (2 * total)) / (1 + z2 / total)
    half = z / (1 + z2 / total) * math.sqrt(share * (1 - share) / total + z2 / (4 * total * total))
    return (0.0 if hits == 0 else middle - half, 1.0 if hits == total else middle + half)


def bootstrap_mean(
    values: Sequence[float], documents: Sequence[str], samples: int, seed: int, confidence: float = 0.95
) -> Interval | None:
    """Percentile interval of the mean of `values` when whole documents are drawn again with replacement.

    Questions about one passage are not independent; drawing documents keeps them together.
    """
    if not values:
        return None
    place, number = _clusters(documents)
    sums = np.bincount(place, weights=np.asarray(values, dtype=np.float64), minlength=number)
    counts = np.bincount(place, minlength=number).astype(np.float64)
    drawn = [(weights @ sums) / (weights @ counts) for weights in _weights(number, samples, seed)]
    return _percentiles(np.concatenate(drawn), confidence)


def bootstrap_kappa(
    gold: Sequence[str], given: Sequence[str], documents: Sequence[str], samples: int, seed: int, *,
    weights: Literal["linear"] | None = None, confidence: float = 0.95,
) -> Interval | None:  # fmt: skip
    """Percentile interval of Cohen's kappa over documents; labels that a draw lacks keep their place on the scale.

    None where no draw defines kappa.
    """
    if not gold:
        return None
    names = sorted({*gold, *given})
    place, number = _clusters(documents)
    tables = np.zeros((number, len(names), len(names)))
    index = {name: position for position, name in enumerate(names)}
    np.add.at(tables, (place, np.array([index[a] for a in gold]), np.array([index[b] for b in given])), 1.0)
    flat = tables.reshape(number, -1)
    drawn = [
        kappas((chosen @ flat).reshape(-1, len(names), len(names)), weights)
        for chosen in _weights(number, samples, seed)
    ]
    return _percentiles(np.concatenate(drawn), confidence)


def chance_level(items: Sequence[Item]) -> tuple[float, str]:
    """(expected score of guessing, how it is meant): the exact chance line of accuracy or exact F1 for these items."""
    if not items:
        return 0.0, "no items"
    if all(item.kind == "entities" for item in items):
        return 0.0, "an empty list"
    return sum(map(_guess, items)) / len(items), "uniform choice among the legal answers"


def chance_points(items: Sequence[Item]) -> float:
    """Expected points of guessing (IgakuQA)."""
    return sum(_guess(item) * item.points for item in items)


def _guess(item: Item) -> float:
    if item.kind != "choice":
        return 0.0
    either = sum(1 + gold.count(" or ") for gold in item.gold) / len(item.gold)
    return either / comb(len(item.options), len(item.gold))


def _clusters(documents: Sequence[str]) -> tuple[npt.NDArray[np.int64], int]:
    index: dict[str, int] = {}
    place = np.array([index.setdefault(document, len(index)) for document in documents], dtype=np.int64)
    return place, len(index)


def _weights(number: int, samples: int, seed: int) -> list[Floats]:
    """How often each cluster is drawn: float64 (samples, clusters) in chunks that fit the memory."""
    rng = np.random.default_rng(seed)
    rows = max(1, CHUNK // number)
    chunks = []
    for start in range(0, samples, rows):
        size = min(rows, samples - start)
        drawn = rng.integers(0, number, size=(size, number)) + (np.arange(size) * number)[:, None]
        chunks.append(np.bincount(drawn.ravel(), minlength=size * number).reshape(size, number).astype(np.float64))
    return chunks


def _percentiles(values: Floats, confidence: float) -> Interval | None:
    known = values[~np.isnan(values)]
    if known.size == 0:
        return None
    low, high = np.quantile(known, [0.5 - confidence / 2, 0.5 + confidence / 2])
    return float(low), float(high)
