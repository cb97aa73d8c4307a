"""Duplicates: against brute force on all pairs, whatever the order of the pieces, within bounds of work and memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpus import planted
from rinsho.errors import UserError
from rinsho.overlap import near
from rinsho.overlap.near import GramFiles, Groups, exact, greedy, groups, write_grams
from rinsho.overlap.sketch import gram_set, sketch

BANDS = {0.6: (30, 4), 0.7: (24, 5), 0.8: (20, 6)}  # all 120 values


@pytest.fixture(scope="module")
def texts() -> list[str]:
    return planted.with_copies(planted.texts(120))


def detect(texts: list[str], threshold: float, order: np.ndarray) -> tuple[Groups, near.Verdict]:
    bands, rows = BANDS[threshold]
    made = sketch(texts, size=5, bands=bands, rows=rows, min_chars=15)
    found = groups([made.signatures[:100], made.signatures[100:]], np.ones(len(texts), bool))
    return found, greedy(found, order, lambda position: gram_set(texts[position], 5), threshold)


def orders(count: int, seed: int = 5) -> np.ndarray:
    return np.random.default_rng(seed).permutation(count).astype(np.uint64)


@pytest.mark.parametrize("threshold", [0.6, 0.7, 0.8])
def test_recall_and_precision_against_brute_force(texts: list[str], threshold: float) -> None:
    truth = planted.near_pairs(texts, threshold)
    order = orders(len(texts))
    found, verdict = detect(texts, threshold, order)
    met = {pair for start, end in zip(found.bounds[:-1], found.bounds[1:], strict=True)
           for pair in pairs(found.members[start:end].tolist())}  # fmt: skip
    assert len(truth) > 200
    assert len(met & truth.keys()) >= 0.95 * len(truth)
    wanted: set[int] = set()
    for one in np.argsort(order).tolist():
        before = (other for other in range(len(texts)) if order[other] < order[one] and other not in wanted)
        if any((min(one, other), max(one, other)) in truth for other in before):
            wanted.add(one)
    right = len(verdict.dropped.keys() & wanted)
    assert right >= 0.95 * len(wanted)
    assert right >= 0.95 * len(verdict.dropped)
    for gone, kept in verdict.dropped.items():
        assert (min(gone, kept), max(gone, kept)) in truth
        assert kept not in verdict.dropped
        assert order[kept] < order[gone]
    for one, other in met & truth.keys():
        assert one in verdict.dropped or other in verdict.dropped
    assert verdict.capped == 0


def pairs(members: list[int]) -> set[tuple[int, int]]:
    return {(one, other) for number, one in enumerate(members) for other in members[number + 1 :]}


def test_the_result_does_not_depend_on_where_documents_lie(texts: list[str]) -> None:
    order = orders(len(texts))
    _, wanted = detect(texts, 0.7, order)
    by_order = {int(order[gone]): int(order[kept]) for gone, kept in wanted.dropped.items()}
    for seed in (1, 2):
        shuffled = list(range(len(texts)))
        Random(seed).shuffle(shuffled)
        _, got = detect([texts[number] for number in shuffled], 0.7, order[shuffled])
        assert {
            int(order[shuffled[gone]]): int(order[shuffled[kept]]) for gone, kept in got.dropped.items()
        } == by_order
        assert got.compared == wanted.compared


def test_documents_that_are_gone_take_no_part(texts: list[str]) -> None:
    made = sketch(texts, size=5, bands=24, rows=5, min_chars=15).signatures
    alive = np.arange(len(texts)) % 3 > 0
    found = groups([made[:50], made[50:50], made[50:]], alive)
    assert alive[found.documents].all()
    places = np.flatnonzero(alive)
    alone = groups([made[alive]], np.ones(len(places), bool))
    assert places[alone.members].tolist() == found.members.tolist()
    assert alone.bounds.tolist() == found.bounds.tolist()
    assert np.diff(found.bounds).min() >= 2


def test_equal_groups_of_many_bands_are_one() -> None:
    keys = np.array([[1, 5, 9], [1, 5, 8], [2, 5, 7], [3, 6, 6]], np.uint64)
    found = groups([keys], np.ones(4, bool))
    assert found.members.tolist() == [0, 1, 0, 1, 2]
    assert found.bounds.tolist() == [0, 2, 5]
    assert groups([keys[:2]], np.ones(2, bool)).weights.tolist() == [2]
    assert len(groups([], np.ones(0, bool)).documents) == 0


def test_thousands_of_equal_documents_are_each_compared_once() -> None:
    count = 5000
    found = groups([np.ones((count, 24), np.uint64)], np.ones(count, bool))
    verdict = greedy(found, orders(count), lambda _: np.arange(50, dtype=np.uint32), 0.7)
    assert len(verdict.dropped) == verdict.compared == count - 1
    assert verdict.capped == 0


def test_a_group_of_very_many_different_documents_is_bounded_and_counted() -> None:
    count = 700
    found = groups([np.ones((count, 1), np.uint64)], np.ones(count, bool))
    verdict = greedy(found, orders(count), lambda n: np.arange(n * 50, n * 50 + 50, dtype=np.uint32), 0.7)
    assert verdict.dropped == {}
    assert verdict.compared <= count * near.MAX_COMPARED
    assert verdict.capped == count - near.MAX_KEPT - 1


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2), st.integers(0, 5)), max_size=30))
def test_exact_keeps_the_smallest_order(rows: list[tuple[int, int, int]]) -> None:
    keys = np.array([row[:2] for row in rows], np.uint64).reshape(-1, 2)
    order = np.array([row[2] for row in rows], np.uint64)
    wanted = [
        min((other for other in range(len(rows)) if rows[other][:2] == row[:2]), key=lambda n: (rows[n][2], n))
        for row in rows
    ]
    assert exact(keys, order).tolist() == wanted


@settings(max_examples=30)
@given(st.lists(st.text(alphabet="発熱咳痰。\n ", max_size=40), max_size=8))
def test_gram_files_give_back_the_sets(texts: list[str]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / name for name in ("one", "other")]
        write_grams(((3 * n, text) for n, text in enumerate(texts)), 3, paths[0])
        write_grams(((3 * n + 1, text + "胸部") for n, text in enumerate(texts)), 3, paths[1])
        files = GramFiles(paths)
        for number, text in enumerate(texts):
            assert files(3 * number).tolist() == gram_set(text, 3).tolist()
            assert files(3 * number + 1).tolist() == gram_set(text + "胸部", 3).tolist()
        with pytest.raises(KeyError):
            files(2)


@pytest.mark.parametrize("damage", [lambda data: data[:-9], lambda data: b"", lambda data: data[:4]])
def test_a_damaged_gram_file_is_named(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    write_grams([(0, "発熱と咳嗽を主訴に来院した。")], 5, tmp_path / "grams")
    (tmp_path / "grams").write_bytes(damage((tmp_path / "grams").read_bytes()))
    with pytest.raises(UserError, match="not a whole file"):
        GramFiles([tmp_path / "grams"])


def test_empty_documents_are_near_to_nothing() -> None:
    found = groups([np.ones((3, 2), np.uint64)], np.ones(3, bool))
    assert greedy(found, orders(3), lambda _: np.zeros(0, np.uint32), 0.7).dropped == {}
