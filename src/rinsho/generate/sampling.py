"""The next id drawn from logits, with numpy alone.

Shapes: V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LIKELY = 256  # ids that are looked at first for `top_p`: sorting all of a vocabulary costs as much as a small model

Logits = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next id is taken.

    Attributes:
        temperature: 0 takes the likeliest id; above 0 logits are divided by it before an id is drawn.
        top_p: only the likeliest ids that together have this share are drawn from; 1 means all.
        top_k: only so many of the likeliest ids are drawn from; 0 means all.
        seed: of the draws: the same seed and the same logits give the same ids.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int = 1


def sample(logits: Logits, sampling: Sampling, rng: np.random.Generator) -> int:
    """One id; `top_k` limits before `top_p`, whose shares are among what `top_k` left.

    Args:
        logits: (V,).
        sampling: how.
        rng: gives one number for each draw, none at temperature 0.
    """
    if sampling.temperature <= 0 or sampling.top_k == 1:
        return int(logits.argmax())
    # The highest is taken off first: divided by a very small temperature, it would be infinite.
    below = logits.astype(np.float64) - float(logits.max())
    with np.errstate(over="ignore"):
        weights = np.exp(below / sampling.temperature)
    drawn = float(rng.random())
    if 0 < sampling.top_k < len(weights):
        ids = _likeliest(weights, sampling.top_k)
        total = float(weights[ids].sum())
    elif sampling.top_p < 1:
        ids, total = np.empty(0, np.int64), float(weights.sum())
    else:
        return _draw(weights, drawn)
    if sampling.top_p < 1:
        ids = _enough(weights, ids, sampling.top_p * total)
    return int(ids[_draw(weights[ids], drawn)])


def log_sum(logits: Logits) -> float:
    """The logarithm of the sum of the exponentials of (V,) logits, summed in float64.

    >>> round(log_sum(np.zeros(8, np.float32)), 4)
    2.0794
    """
    highest = logits.max()
    return float(highest) + float(np.log(np.exp(logits - highest).sum(dtype=np.float64)))


def likeliest(logits: Logits, count: int) -> list[int]:
    """So many ids with the highest logits, the highest first; of equal ones the lower id first."""
    return [int(index) for index in _likeliest(logits, min(count, len(logits)))]


def _likeliest(values: NDArray[np.floating], count: int) -> NDArray[np.int64]:
    found = np.argpartition(values, len(values) - count)[len(values) - count :] if count < len(values) else None
    found = np.arange(len(values)) if found is None else found
    return found[np.lexsort((found, -values[found]))]


def _enough(weights: NDArray[np.float64], ids: NDArray[np.int64], share: float) -> NDArray[np.int64]:
    """The fewest of the likeliest ids (of `ids`, sorted, if any) whose weights reach `share`."""
    count = len(ids) or LIKELY
    while True:
        ids = ids if len(ids) else _likeliest(weights, min(count, len(weights)))
        sums = weights[ids].cumsum()
        if sums[-1] >= share or count >= len(weights) or len(ids) < count:
            return ids[: int(np.searchsorted(sums, share)) + 1]
        count, ids = count * 8, ids[:0]


def _draw(weights: NDArray[np.float64], drawn: float) -> int:
    sums = weights.cumsum()
    return min(int(np.searchsorted(sums, drawn * sums[-1], side="right")), len(weights) - 1)
