"""Exact neighbours, and planes that keep them."""

from __future__ import annotations

import numpy as np
import pytest

from rinsho.analyse import projection
from rinsho.analyse.projection import graph_size, kept_neighbours, neighbours, principal, project, unit_rows
from rinsho.errors import UserError

pytest.importorskip("sklearn")


def clusters(points: int = 240, groups: int = 6, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Unit rows in twelve dimensions around a few centres, and the number of the centre of each."""
    draw = np.random.default_rng(seed)
    label = np.arange(points) % groups
    return unit_rows((draw.normal(size=(groups, 12))[label] * 3 + draw.normal(size=(points, 12))).astype("f4")), label


@pytest.mark.parametrize("block", [7 * 60, 1 << 25])
def test_neighbours_are_those_of_a_full_sort(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(projection, "BLOCK", block)
    points, _ = clusters(60)
    told: list[int] = []
    graph = neighbours(points, 9, told.append)
    far = np.linalg.norm(points[:, None].astype(float) - points[None], axis=2)
    np.fill_diagonal(far, np.inf)
    assert sum(told) == 60
    assert np.array_equal(graph.places, np.argsort(far, axis=1, kind="stable")[:, :9])
    assert np.allclose(graph.distances, np.sort(far, axis=1)[:, :9], atol=1e-3)


def test_neighbours_of_some_points_are_looked_up_among_all(monkeypatch: pytest.MonkeyPatch) -> None:
    points, _ = clusters(60)
    whole, of = neighbours(points, 9), np.array([3, 4, 20, 59])
    monkeypatch.setattr(projection, "BLOCK", 3 * 60)
    graph = neighbours(points, 9, of=of)
    assert np.array_equal(graph.places, whole.places[of]) and np.allclose(graph.distances, whole.distances[of])


def test_neighbours_that_are_not_on_the_plane_are_not_kept() -> None:
    plane = np.arange(10, dtype="f4")[:, None] * np.ones((1, 2), "f4")
    near = np.array([[1, 2], [4, -1], [0, 9]], np.int32)
    assert kept_neighbours(near, plane, np.array([0, 3, 5])) == pytest.approx((2 + 1 + 0) / 6)


def test_neighbours_of_few_and_of_equal_points() -> None:
    assert neighbours(np.zeros((4, 3), "f4"), 9).places.tolist() == [[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]]


def test_unit_rows_turn_cosine_into_distance_and_leave_zeros() -> None:
    rows = unit_rows(np.array([[3, 4], [30, 40], [0, 0]], "f4"))
    assert np.allclose(rows, [[0.6, 0.8], [0.6, 0.8], [0, 0]])


def test_principal_components_are_those_of_scikit_learn() -> None:
    from sklearn.decomposition import PCA

    points, _ = clusters()
    wanted = PCA(2, svd_solver="full").fit_transform(points)
    found = principal(points)
    assert np.allclose(np.abs(found), np.abs(wanted), atol=1e-4)
    assert principal(points[:, :1]).shape == (len(points), 2)


@pytest.mark.parametrize("name", ["tsne", pytest.param("umap", marks=pytest.mark.slow)])
def test_a_plane_keeps_clusters_apart_and_is_the_same_again(name: projection.Name) -> None:
    if projection.missing(name):
        pytest.skip(f"{name} is not installed")
    points, label = clusters(150)
    graph = neighbours(points, graph_size(15, 15))
    plane = project(name, points, graph, 15, 15, 1)
    assert plane.shape == (150, 2) and plane.dtype == np.float32 and np.isfinite(plane).all()
    assert np.array_equal(plane, project(name, points, graph, 15, 15, 1))
    near = neighbours(plane, 5).places
    assert (label[near] == label[:, None]).mean() > 0.9  # a sixth by chance
    chance = 15 / 149
    assert kept_neighbours(graph.places[:, :15], plane) > 3 * chance
    shuffled = plane[np.random.default_rng(1).permutation(150)]
    assert kept_neighbours(graph.places[:, :15], shuffled) < 2 * chance


@pytest.mark.slow
def test_tsne_is_scikit_learns_own_of_the_same_points() -> None:
    """The graph that is handed over must mean what t-SNE's own search of neighbours means."""
    from sklearn.manifold import TSNE

    points, _ = clusters(120)
    graph = neighbours(points, graph_size(10, 10))
    start = principal(points)
    start *= 1e-4 / start[:, 0].std()
    own = TSNE(perplexity=10, init=start, random_state=1, metric="euclidean").fit(points)
    plane = project("tsne", points, graph, 10, 10, 1)
    far = [np.linalg.norm(each[:, None] - each[None], axis=2).ravel() for each in (own.embedding_, plane)]
    assert np.corrcoef(*far)[0, 1] > 0.95


def test_perplexity_is_lowered_for_few_points() -> None:
    points, _ = clusters(12)
    assert project("tsne", points, neighbours(points, 46), 15, 15, 1).shape == (12, 2)
    with pytest.raises(UserError, match="too few"):
        project("tsne", points[:4], neighbours(points[:4], 46), 15, 15, 1)


def test_a_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(projection.PACKAGES, "umap", ("no_such_package", "umap"))
    points, _ = clusters(20)
    assert projection.missing("umap") == "pip install 'rinsho[umap]'"
    with pytest.raises(UserError, match=r"UMAP is not installed.*rinsho\[umap\]"):
        project("umap", points, neighbours(points, 5), 5, 5, 1)
