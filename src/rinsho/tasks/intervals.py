"""How sure a score is, and what guessing would score: Wilson and bootstrap intervals, chance levels."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
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
ALWAYS_RIGHT = "116A71"  # of IgakuQA: withdrawn after the examination, every answer counts


def wilson(hits: float, total: float, confidence: float = 0.95) -> Interval | None:
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
    values: Sequence[float], documents: Sequence[str], samples: int, seed: int, *,
    weights: Sequence[float] | None = None, confidence: float = 0.95,
) -> Interval | None:  # fmt: skip
    """Percentile interval of the mean of `values` when whole documents are drawn again with replacement.

    Questions about one passage are not independent; drawing documents keeps them together. With `weights` the mean is
    the weighted one: the share of an examination's points. None without observations or samples, or where all weigh
    nothing.
    """
    if not values or samples < 1:
        return None
    place, number = clusters(documents)
    weight = np.ones(len(values)) if weights is None else np.asarray(weights, dtype=np.float64)
    sums = np.bincount(place, weights=weight * np.asarray(values, dtype=np.float64), minlength=number)
    counts = np.bincount(place, weights=weight, minlength=number)
    with np.errstate(invalid="ignore"):  # a draw that weighs nothing has no mean
        drawn = [(times @ sums) / (times @ counts) for times in draws(number, samples, seed)]
    return percentiles(np.concatenate(drawn), confidence)


def bootstrap_kappa(
    gold: Sequence[str], given: Sequence[str], documents: Sequence[str], samples: int, seed: int, *,
    weights: Literal["linear"] | None = None, confidence: float = 0.95,
) -> Interval | None:  # fmt: skip
    """Percentile interval of Cohen's kappa over documents; labels that a draw lacks keep their place on the scale.

    None where no draw defines kappa, and without samples.
    """
    if not gold or samples < 1:
        return None
    names = sorted({*gold, *given})
    place, number = clusters(documents)
    flat = document_tables(gold, given, names, place, number)
    drawn = [
        kappas((times @ flat).reshape(-1, len(names), len(names)), weights) for times in draws(number, samples, seed)
    ]
    return percentiles(np.concatenate(drawn), confidence)


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
    if (item.year is not None or item.task == "igakuqa") and item.id.rsplit("/", 1)[-1] == ALWAYS_RIGHT:
        return 1.0
    if item.kind != "choice":
        return 0.0
    either = sum(1 + gold.count(" or ") for gold in item.gold) / len(item.gold)
    return either / comb(len(item.options), len(item.gold))


def clusters(documents: Sequence[str]) -> tuple[npt.NDArray[np.int64], int]:
    """(number of the document of each question, number of documents)."""
    index: dict[str, int] = {}
    place = np.array([index.setdefault(document, len(index)) for document in documents], dtype=np.int64)
    return place, len(index)


def document_tables(
    gold: Sequence[str], given: Sequence[str], names: Sequence[str], place: npt.NDArray[np.int64], number: int
) -> Floats:
    """The confusion table of each document, one a row: (documents, labels x labels) float64."""
    index = {name: position for position, name in enumerate(names)}
    tables = np.zeros((number, len(names), len(names)))
    np.add.at(tables, (place, np.array([index[a] for a in gold]), np.array([index[b] for b in given])), 1.0)
    return tables.reshape(number, -1)


def draws(number: int, samples: int, seed: int) -> Iterator[Floats]:
    """How often each of `number` documents is drawn: float64 (samples, documents), in chunks that fit the memory."""
    rng = np.random.default_rng(seed)
    rows = max(1, CHUNK // number)
    for start in range(0, samples, rows):
        size = min(rows, samples - start)
        drawn = rng.integers(0, number, size=(size, number)) + (np.arange(size) * number)[:, None]
        yield np.bincount(drawn.ravel(), minlength=size * number).reshape(size, number).astype(np.float64)


def percentiles(values: Floats, confidence: float = 0.95) -> Interval | None:
    """The middle part of the values; those that are not defined (nan) are left out, None where all are."""
    known = values[~np.isnan(values)]
    if known.size == 0:
        return None
    low, high = np.quantile(known, [0.5 - confidence / 2, 0.5 + confidence / 2])
    return float(low), float(high)
