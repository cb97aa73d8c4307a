"""A random forest that is trained by scikit-learn, kept as plain arrays, and read by numpy alone; and its figures.

Shapes: N documents, D numbers of a vector, T trees, M nodes of all trees.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from rinsho.errors import UserError
from rinsho.files import atomic_file
from rinsho.tasks.intervals import wilson

if TYPE_CHECKING:
    from rinsho.quality import Recipe

Array = npt.NDArray[Any]
ROWS = 256  # documents that walk down the trees together
DRAWS = 500  # bootstrap draws behind intervals


@dataclass(frozen=True)
class Forest:
    """All nodes of all trees. At a leaf both ways lead to itself, and `low` is the probability of 低.

    Attributes:
        feature: (M,) int32, the number that a node asks about.
        threshold: (M,) float64; at most this goes left.
        left, right: (M,) int32, the nodes that follow.
        low: (M,) float64.
        roots: (T,) int32.
        depth: steps that lead to a leaf from every root.
        size: numbers of a vector.
    """

    feature: Array
    threshold: Array
    left: Array
    right: Array
    low: Array
    roots: Array
    depth: int
    size: int

    def low_probability(self, vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """The probability of 低 of every document, (N,): the mean over the trees, as scikit-learn computes it."""
        if vectors.shape[1:] != (self.size,):
            raise ValueError(f"vectors of {vectors.shape[1:]} numbers for a forest of {self.size}")
        vectors = np.ascontiguousarray(vectors, np.float32)
        result = np.empty(len(vectors))
        for start in range(0, len(vectors), ROWS):
            part = vectors[start : start + ROWS]
            rows = np.arange(len(part))[:, None]
            at = np.broadcast_to(self.roots, (len(part), len(self.roots)))
            for _ in range(self.depth):
                at = np.where(part[rows, self.feature[at]] <= self.threshold[at], self.left[at], self.right[at])
            result[start : start + ROWS] = self.low[at].mean(1)
        return result

    def save(self, path: Path) -> None:
        """Writes an .npz file of plain arrays (no pickle); the same forest gives the same bytes."""
        with atomic_file(path) as file:
            np.savez(
                file, allow_pickle=False, **{each.name: np.asarray(getattr(self, each.name)) for each in fields(self)}
            )

    @classmethod
    def load(cls, path: Path) -> Forest:
        """What `save` wrote.

        Raises:
            UserError: the file is damaged or not ours.
        """
        try:
            with np.load(path, allow_pickle=False) as arrays:
                forest = cls(**{each.name: arrays[each.name] for each in fields(cls)})
        except (OSError, ValueError, KeyError, EOFError, BadZipFile):
            raise UserError("no classifier in here", where=path, expected="forest.npz of a quality run") from None
        nodes = len(forest.feature)
        links = np.concatenate([forest.left, forest.right, forest.roots])
        same = all(len(getattr(forest, name)) == nodes for name in ("threshold", "left", "right", "low"))
        if not same or not len(links) or links.min() < 0 or links.max() >= nodes:
            raise UserError("the classifier is damaged", where=path, expected="forest.npz of a quality run")
        return cls(**{**vars(forest), "depth": int(forest.depth), "size": int(forest.size)})


def train(recipe: Recipe, vectors: npt.NDArray[np.float32], low: npt.NDArray[np.bool_]) -> Forest:
    """A forest that learned which documents are labelled 低; the same for any number of processors."""
    return from_sklearn(_fit(recipe, vectors, low))


def from_sklearn(model: Any) -> Forest:
    """The arrays of a fitted scikit-learn forest with the classes False and True (低)."""
    parts: dict[str, list[Array]] = {name: [] for name in ("feature", "threshold", "left", "right", "low")}
    roots, start = [], 0
    for estimator in model.estimators_:
        tree = estimator.tree_
        here = np.arange(tree.node_count)
        leaf = tree.children_left == -1
        weight = tree.value[:, 0, :]
        parts["feature"].append(np.where(leaf, 0, tree.feature).astype(np.int32))
        parts["threshold"].append(np.where(leaf, 0.0, tree.threshold))
        for name, children in (("left", tree.children_left), ("right", tree.children_right)):
            parts[name].append((np.where(leaf, here, children) + start).astype(np.int32))
        parts["low"].append(weight[:, 1] / weight.sum(1))
        roots.append(start)
        start += tree.node_count
    joined = {name: np.concatenate(arrays) for name, arrays in parts.items()}
    depth = max(estimator.tree_.max_depth for estimator in model.estimators_)
    return Forest(**joined, roots=np.array(roots, np.int32), depth=int(depth), size=int(model.n_features_in_))


def cross_validate(
    recipe: Recipe, vectors: npt.NDArray[np.float32], low: npt.NDArray[np.bool_]
) -> npt.NDArray[np.float64]:
    """The probability of 低 of every document (N,), by a forest that did not see it.

    Raises:
        UserError: a label has fewer documents than there are folds.
    """
    from sklearn.model_selection import StratifiedKFold

    found = np.empty(len(low))
    folds = StratifiedKFold(recipe.folds, shuffle=True, random_state=_seed(recipe))
    for seen, unseen in folds.split(vectors, low):
        found[unseen] = train(recipe, vectors[seen], low[seen]).low_probability(vectors[unseen])
    return found


def figures(
    low: npt.NDArray[np.bool_], probability: npt.NDArray[np.float64], threshold: float, seed: int
) -> dict[str, Any]:
    """Out-of-fold figures with 95 % intervals, and what always saying the more frequent label would score.

    Intervals: Wilson for shares, bootstrap over documents for balanced accuracy and the area under the ROC curve.
    """
    said = probability > threshold
    hits, n = int((said == low).sum()), len(low)
    both = int((said & low).sum())
    share = max(low.mean(), 1 - low.mean())
    balanced, area = _drawn(low, said, probability, seed)
    one = np.ones(n)
    return {
        "documents": n,
        "low": int(low.sum()),
        "threshold": threshold,
        "accuracy": _with(hits / n, wilson(hits, n)),
        "majority_accuracy": float(share),
        "balanced_accuracy": _with(float(_balanced(low, said, one)), balanced),
        "majority_balanced_accuracy": 0.5,
        "auc": _with(float(_area(low, probability, one)), area),
        "precision_low": _with(both / said.sum() if said.any() else None, wilson(both, int(said.sum()))),
        "recall_low": _with(both / low.sum(), wilson(both, int(low.sum()))),
        "called_low": _with(float(said.mean()), wilson(int(said.sum()), n)),
    }


def _fit(recipe: Recipe, vectors: npt.NDArray[np.float32], low: npt.NDArray[np.bool_]) -> Any:
    from sklearn.ensemble import RandomForestClassifier

    return RandomForestClassifier(
        n_estimators=recipe.trees,
        min_samples_leaf=recipe.min_leaf_documents,
        class_weight=None if recipe.class_weight == "none" else recipe.class_weight,
        random_state=_seed(recipe),
        n_jobs=recipe.workers or -1,
    ).fit(vectors, low)


def _seed(recipe: Recipe) -> int:
    return recipe.seed % 2**32  # what scikit-learn takes


def _with(value: float | None, interval: tuple[float, float] | None) -> dict[str, Any]:
    return {"value": None if value is None else float(value), "interval": list(interval) if interval else None}


def _balanced(low: Array, said: Array, weight: Array) -> Any:
    """Mean of the recalls of both labels; `weight` (N,) or (draws, N)."""
    right = weight * (said == low)
    return 0.5 * sum((right @ part) / (weight @ part) for part in (low.astype(float), 1.0 - low))


def _area(low: Array, probability: Array, weight: Array) -> float:
    """Area under the ROC curve: the chance that a document labelled 低 stands above another; ties count half."""
    _, place = np.unique(probability, return_inverse=True)
    lows, highs = np.bincount(place, weight * low), np.bincount(place, weight * ~low)
    below = np.cumsum(highs) - highs
    return float((lows * (below + highs / 2)).sum() / (lows.sum() * highs.sum()))


def _drawn(low: Array, said: Array, probability: Array, seed: int) -> list[tuple[float, float] | None]:
    """Percentile intervals of balanced accuracy and area from documents drawn again, each label by itself."""
    draw = np.random.default_rng(seed)
    groups = [np.flatnonzero(low), np.flatnonzero(~low)]
    found = []
    for _ in range(DRAWS):
        weight = np.zeros(len(low))
        for group in groups:
            weight[group] = np.bincount(draw.integers(len(group), size=len(group)), minlength=len(group))
        found.append((float(_balanced(low, said, weight)), _area(low, probability, weight)))
    return [(float(a), float(b)) for a, b in np.percentile(np.array(found), [2.5, 97.5], axis=0).T]
