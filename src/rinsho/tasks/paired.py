"""Is one model better than another? Both answered the same questions, so the comparison is paired.

Differences are the first model's value less the second's. Right-or-wrong answers are compared by McNemar's exact test,
F1 and kappa by a permutation test that swaps the two models' answers to whole documents: were they equally good, each
swap would be as likely. Intervals are those of a bootstrap that draws documents, both models' answers together.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from rinsho.tasks.baselines import label
from rinsho.tasks.intervals import CHUNK, Floats, Interval, clusters, document_tables, draws, percentiles
from rinsho.tasks.item import Item
from rinsho.tasks.score import kappa, kappas

MCNEMAR = "McNemar, exact"
PERMUTATION = "sign-flip permutation over documents"
ENUMERATED = 12  # documents whose 4,096 ways to swap are all looked at; of more, `samples` are drawn
EQUAL = 1e-12  # differences nearer to each other than this are the same but for rounding


@dataclass(frozen=True, slots=True)
class Paired:
    """The difference of two scores, its 95 % interval and its two-sided p-value, None where not defined.

    There is no interval where every draw of documents has the same difference (one document, or all alike): an
    interval without width would say that the difference is sure.
    """

    difference: float | None
    interval: Interval | None
    p_value: float | None


def compare(  # noqa: PLR0917
    metric: str, items: Sequence[Item], values_a: Sequence[Any], values_b: Sequence[Any], samples: int, seed: int
) -> dict[str, Any]:
    """`n`, `difference` (first less second), `interval`, `p_value` and `test` of two models on the same items.

    `metric` is `kappa`, or the name of anything that is a mean over items (accuracy, exact_f1, overlap_f1). There is
    one value an item: for kappa the label that the model gave (`A`, `A,C`, `None`: `Judged.given`), else a number.
    Numbers that are all 0 or 1 get McNemar's test, others the permutation test: with few documents its p cannot be
    small (2 / 2^documents at least). The interval is the bootstrap's in every case.

    Raises:
        ValueError: not one value an item.
    """
    if not len(items) == len(values_a) == len(values_b):
        raise ValueError(f"{len(items)} items, {len(values_a)} and {len(values_b)} values")
    documents = [item.document for item in items]
    test = PERMUTATION
    if not items:
        found = Paired(None, None, None)
    elif metric == "kappa":
        weights: Literal["linear"] | None = "linear" if items[0].ordered else None
        gold = [label(item) for item in items]
        found = paired_kappa(gold, values_a, values_b, documents, samples=samples, seed=seed, weights=weights)
    else:
        found = paired_mean(values_a, values_b, documents, samples, seed)
        if {*values_a, *values_b} <= {0, 1}:
            test, found = MCNEMAR, Paired(found.difference, found.interval, mcnemar(values_a, values_b))
    return {
        "n": len(items), "difference": found.difference, "interval": found.interval, "p_value": found.p_value,
        "test": test,
    }  # fmt: skip


def mcnemar(right_a: Sequence[float], right_b: Sequence[float]) -> float:
    """The exact two-sided p-value of McNemar's test: a binomial test of the questions only one model got right.

    1 where both are right on the same questions. Equals scipy's binomtest.

    >>> mcnemar([1, 1, 1, 1, 1, 1, 0], [0, 0, 0, 0, 0, 0, 0])
    0.03125
    """
    first = sum(bool(a) and not b for a, b in zip(right_a, right_b, strict=True))
    second = sum(bool(b) and not a for a, b in zip(right_a, right_b, strict=True))
    number = first + second
    ways: int = 1
    term: int = 1  # whole numbers: exact, however small the p-value
    for hits in range(min(first, second)):
        term = term * (number - hits) // (hits + 1)
        ways += term
    return min(1.0, 2 * ways / (1 << number))


def paired_mean(
    values_a: Sequence[float], values_b: Sequence[float], documents: Sequence[str], samples: int, seed: int
) -> Paired:
    """The difference of two means over documents: both models' values of a document are drawn and swapped together."""
    place, number = clusters(documents)
    apart = np.asarray(values_a, dtype=np.float64) - np.asarray(values_b, dtype=np.float64)
    sums = np.bincount(place, weights=apart, minlength=number)
    counts = np.bincount(place, minlength=number).astype(np.float64)
    drawn = [(times @ sums) / (times @ counts) for times in draws(number, samples, seed)]
    moved = sums[np.abs(sums) > EQUAL]  # swapping equal answers changes nothing
    swapped = (np.abs(signs @ moved) / len(apart) for signs in _swaps(len(moved), samples, seed))
    p_value = _p_value(abs(float(moved.sum())) / len(apart), swapped)
    return _paired(math.fsum(apart) / len(apart), np.concatenate(drawn), p_value)


def paired_kappa(
    gold: Sequence[str], given_a: Sequence[str], given_b: Sequence[str], documents: Sequence[str], *, samples: int,
    seed: int, weights: Literal["linear"] | None = None,
) -> Paired:  # fmt: skip
    """The difference of two kappas over documents; each kappa is over the labels that occur with that model.

    The permutation test compares kappas over the labels that occur with either, as swaps carry labels across.
    """
    place, number = clusters(documents)
    sides = []
    for given in (given_a, given_b):
        names = sorted({*gold, *given})
        sides.append((len(names), document_tables(gold, given, names, place, number)))
    drawn = []
    for times in draws(number, samples, seed):
        first, second = (kappas((times @ flat).reshape(-1, size, size), weights) for size, flat in sides)
        drawn.append(first - second)
    names = sorted({*gold, *given_a, *given_b})
    first, second = (document_tables(gold, given, names, place, number) for given in (given_a, given_b))
    both, apart = (first + second).sum(axis=0), first - second
    apart = apart[np.abs(apart).any(axis=1)]

    def differences(signs: Floats) -> Floats:
        shape, moved = (-1, len(names), len(names)), signs @ apart
        sides = [kappas(((both + side) / 2).reshape(shape), weights) for side in (moved, -moved)]
        return np.abs(sides[0] - sides[1])

    observed = float(differences(np.ones((1, len(apart))))[0])
    p_value = _p_value(observed, map(differences, _swaps(len(apart), samples, seed, len(both))))
    return _paired(kappa(gold, given_a, weights) - kappa(gold, given_b, weights), np.concatenate(drawn), p_value)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values, in the given order: for a family of comparisons that is read as a whole.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    adjusted, largest = [1.0] * len(p_values), 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = largest
    return adjusted


def _swaps(number: int, samples: int, seed: int, width: int = 1) -> Iterator[Floats]:
    """Signs of the documents, -1 where the two models' answers are swapped: float64 (ways, documents), in chunks.

    All ways for up to ENUMERATED documents; of more `samples` ways by the seed, and first the one without a swap: what
    was observed is one of the ways, so that no p is 0. `width` numbers a way are held at once.
    """
    rows = max(1, CHUNK // max(number, width))
    if number <= ENUMERATED:
        for start in range(0, 2**number, rows):
            ways = np.arange(start, min(start + rows, 2**number))
            yield (1 - 2 * ((ways[:, None] >> np.arange(number)) & 1)).astype(np.float64)
        return
    rng = np.random.default_rng(seed)
    yield np.ones((1, number))
    for start in range(0, samples, rows):
        yield rng.choice([-1.0, 1.0], size=(min(rows, samples - start), number))


def _p_value(observed: float, swapped: Iterable[Floats]) -> float:
    """The share of the ways whose difference is as large as the observed one; undefined ones (nan) count as that."""
    hits = total = 0
    for differences in swapped:
        hits += int((~(differences < observed - EQUAL)).sum())
        total += len(differences)
    return hits / total


def _paired(difference: float, drawn: Floats, p_value: float) -> Paired:
    known = drawn[~np.isnan(drawn)]
    if math.isnan(difference) or known.size == 0:
        return Paired(None, None, None)
    return Paired(difference, percentiles(known) if np.ptp(known) > EQUAL else None, p_value)
