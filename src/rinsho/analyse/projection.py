"""Points in many dimensions laid out on a plane, by t-SNE and by UMAP, from one graph of exact neighbours."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rinsho.errors import UserError

Name = Literal["tsne", "umap"]
TITLES = {"tsne": "t-SNE", "umap": "UMAP"}
PACKAGES = {"tsne": ("sklearn", "analyse"), "umap": ("umap", "umap")}  # module, and the extra that brings it
BLOCK = 1 << 25  # distances that stand in memory at once

Points = NDArray[np.float32]


class Graph(NamedTuple):
    """The nearest other points of each point, the nearest first: places (points, count) int32, distances float32."""

    places: NDArray[np.int32]
    distances: NDArray[np.float32]


def missing(name: Name) -> str | None:
    """What to install for a projection; None where it is there."""
    module, extra = PACKAGES[name]
    return None if importlib.util.find_spec(module) else f"pip install 'rinsho[{extra}]'"


def expected_seconds(name: Name, points: int) -> float:
    """About how long a map takes on one core; measured on 1,000 to 16,384 points with the default settings."""
    return 0.0006 * points**1.3 if name == "tsne" else 5 + 0.001 * points


def unit_rows(vectors: Points) -> Points:
    """The rows at length 1, so that Euclidean distances order points as cosines do; rows of zeros stay."""
    lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))[:, None]  # without a second matrix of this size
    return np.asarray(vectors / np.where(lengths > 0, lengths, 1), np.float32)


def neighbours(
    points: Points, count: int, tell: Callable[[int], Any] | None = None, of: NDArray[np.int64] | None = None
) -> Graph:
    """The exact nearest neighbours of each point by Euclidean distance, itself left out; of equal ones the first.

    Args:
        points: (points, width) float32.
        count: neighbours of each; fewer where there are not so many points.
        tell: called with how many points were done.
        of: places of the points whose neighbours are looked up among all; None: all of them.
    """
    total = len(points)
    count = min(count, total - 1)
    of = np.arange(total) if of is None else of
    squares = np.einsum("ij,ij->i", points, points)
    places, distances = np.empty((len(of), count), np.int32), np.empty((len(of), count), np.float32)
    step = max(1, BLOCK // total)
    for start in range(0, len(of), step):
        rows, done = of[start : start + step], slice(start, start + step)
        block = squares[rows, None] + squares[None, :] - 2 * (points[rows] @ points.T)
        np.maximum(block, 0, out=block)
        block[np.arange(len(rows)), rows] = np.inf
        near = np.sort(np.argpartition(block, count - 1, axis=1)[:, :count], axis=1)
        found = np.take_along_axis(block, near, axis=1)
        order = np.argsort(found, axis=1, kind="stable")
        places[done] = np.take_along_axis(near, order, axis=1)
        distances[done] = np.sqrt(np.take_along_axis(found, order, axis=1))
        if tell is not None:
            tell(len(rows))
    return Graph(places, distances)


def graph_size(perplexity: float, count: int) -> int:
    """How many neighbours the graph needs for both projections."""
    return max(int(3 * perplexity) + 1, count)


def project(  # noqa: PLR0917
    name: Name, points: Points, graph: Graph, perplexity: float, count: int, seed: int
) -> Points:
    """The points on a plane, (points, 2) float32; the same for the same points and seed.

    Args:
        name: tsne or umap.
        points: what the graph was made of; their two principal components are where t-SNE begins.
        graph: with `graph_size` neighbours, or all there are.
        perplexity: of t-SNE; lowered where there are not three times as many points.
        count: neighbours of UMAP, a point itself among them.
        seed: random state.

    Raises:
        UserError: a package is missing (`missing`), or there are fewer than five points.

    Source: NA-1; van der Maaten and Hinton 2008; McInnes et al. 2018.
    """
    if (how := missing(name)) is not None:
        raise UserError(f"{TITLES[name]} is not installed", where="analyse.embeddings.projections", todo=how)
    if len(points) < 5:
        raise UserError("too few tokens for a map", where="analyse.embeddings.max_tokens", expected="five or more")
    seed %= 2**31
    if name == "tsne":
        return _tsne(points, graph, perplexity, seed)
    return _umap(points, graph, count, seed)


def _tsne(points: Points, graph: Graph, perplexity: float, seed: int) -> Points:
    from scipy.sparse import csr_matrix
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    total = len(points)
    perplexity = min(perplexity, (total - 2) / 3)
    count = min(int(3 * perplexity) + 1, total - 1)
    places, distances = _with_self(graph, count + 1)
    ends = np.arange(total + 1) * (count + 1)
    near = csr_matrix((distances.ravel(), places.ravel(), ends), shape=(total, total))
    start = principal(points)
    start *= 1e-4 / max(float(start[:, 0].std()), 1e-12)  # as scikit-learn's own init="pca"
    model = TSNE(metric="precomputed", perplexity=perplexity, init=start, random_state=seed, learning_rate="auto")
    # One thread: sums of several come in any order, and small differences grow to another map.
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return np.asarray(model.fit_transform(near), np.float32)


def _umap(points: Points, graph: Graph, count: int, seed: int) -> Points:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from umap import UMAP

        count = min(count, len(points) - 1)
        places, distances = _with_self(graph, count)
        model = UMAP(
            n_neighbors=count,
            precomputed_knn=(places, distances),
            force_approximation_algorithm=True,  # below 4,096 points it would find the neighbours again
            random_state=seed,
            n_jobs=1,
        )
        return np.asarray(model.fit_transform(points), np.float32)


def _with_self(graph: Graph, count: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """`count` neighbours of which the first is the point itself, as both libraries count them."""
    own = np.arange(len(graph.places), dtype=np.int32)[:, None]
    places = np.hstack([own, graph.places[:, : count - 1]])
    return places, np.hstack([np.zeros_like(own, np.float32), graph.distances[:, : count - 1]])


def principal(points: Points) -> Points:
    """The two principal components of the points, (points, 2) float32; the largest entry of an axis is positive."""
    centred = points.astype(np.float64) - points.mean(0, dtype=np.float64)
    _, axes = np.linalg.eigh(centred.T @ centred)
    axes = axes[:, [-1, -2]] if axes.shape[1] > 1 else np.hstack([axes, 0 * axes])
    axes *= np.where(axes[np.abs(axes).argmax(0), [0, 1]] < 0, -1, 1)
    return np.ascontiguousarray(centred @ axes, np.float32)


def kept_neighbours(near: NDArray[Any], plane: Points, of: NDArray[np.int64] | None = None) -> float:
    """The share of the nearest neighbours that are among as many nearest ones on the plane, 0 to 1.

    How far a map can be trusted; by chance it is their number / (all points - 1).

    Args:
        near: (points, count) the nearest in the whole space, as places on the plane; -1 for one that is not on it.
        plane: the map.
        of: places of these points on the plane; None: they are all points of it.
    """
    from sklearn.neighbors import NearestNeighbors

    count = min(near.shape[1], len(plane) - 1)
    shown = NearestNeighbors(n_neighbors=count).fit(plane).kneighbors(return_distance=False)
    shown = shown if of is None else shown[of]
    return float((shown[:, :, None] == near[:, None, :]).sum() / near.size)
