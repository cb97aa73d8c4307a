"""Intervals against scipy, chance levels, and what the bootstrap has to respect."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binomtest

from rinsho.tasks import Item, prompts
from rinsho.tasks.intervals import bootstrap_kappa, bootstrap_mean, chance_level, chance_points, wilson
from rinsho.tasks.score import kappa

CHOICE = Item("smdis/0", "smdis", "choice", "", prompts.CHOICE, "", ("はい", "いいえ"), ("A",), "", "d")


def test_wilson_equals_scipy() -> None:
    for total in (1, 2, 7, 100, 1999):
        for hits in sorted({0, 1, total // 3, total - 1, total}):
            expected = binomtest(hits, total).proportion_ci(0.95, method="wilson")
            assert wilson(hits, total) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert wilson(0, 0) is None


def test_bootstrap_mean_is_deterministic_and_about_right() -> None:
    values = [float(number % 2) for number in range(400)]
    documents = [str(number) for number in range(400)]
    interval = bootstrap_mean(values, documents, 2000, seed=1)
    assert interval == bootstrap_mean(values, documents, 2000, seed=1)
    assert interval is not None
    assert interval == pytest.approx(wilson(200, 400), abs=0.01)
    assert bootstrap_mean([], [], 10, 1) is None


def test_weighted_bootstrap_equals_a_plain_loop() -> None:
    draw = random.Random(4)
    right, worth = [float(draw.random() < 0.6) for _ in range(50)], [draw.choice([0, 1, 1, 3]) for _ in range(50)]
    loop = []
    for row in np.random.default_rng(7).integers(0, 50, size=(200, 50)):
        loop.append(sum(right[n] * worth[n] for n in row) / sum(worth[n] for n in row))
    found = bootstrap_mean(right, [str(n) for n in range(50)], 200, 7, weights=worth)
    assert found == pytest.approx(tuple(np.quantile(loop, [0.025, 0.975])), abs=1e-12)
    plain = bootstrap_mean(right, [str(n) for n in range(50)], 200, 7)
    assert plain == bootstrap_mean(right, [str(n) for n in range(50)], 200, 7, weights=[1] * 50)
    assert bootstrap_mean(right, [str(n) for n in range(50)], 20, 7, weights=[0] * 50) is None


def test_many_documents_are_drawn_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    values, documents = [float(n % 3) for n in range(90)], [str(n // 2) for n in range(90)]
    whole = bootstrap_mean(values, documents, 100, 1)
    monkeypatch.setattr("rinsho.tasks.intervals.CHUNK", 45 * 7)
    chunked = bootstrap_mean(values, documents, 100, 1)
    assert whole and chunked and chunked == pytest.approx(whole)


def test_questions_of_one_document_are_drawn_together() -> None:
    values = [float(number < 50) for number in range(100)]
    one_each = bootstrap_mean(values, [str(n) for n in range(100)], 1000, 1)
    ten_each = bootstrap_mean(values, [str(n // 10) for n in range(100)], 1000, 1)
    assert one_each and ten_each
    assert ten_each[1] - ten_each[0] > 2 * (one_each[1] - one_each[0])


@pytest.mark.parametrize("weights", [None, "linear"])
def test_bootstrap_kappa_equals_a_plain_loop(weights) -> None:
    draw = random.Random(1)
    gold = [draw.choice("ABCD") for _ in range(60)]
    given = [label if draw.random() < 0.7 else draw.choice("ABCD") for label in gold]
    documents = [str(n % 25) for n in range(60)]
    places = {name: [n for n in range(60) if documents[n] == name] for name in dict.fromkeys(documents)}
    names = list(places)
    rng = np.random.default_rng(5)
    loop = []
    for row in rng.integers(0, 25, size=(200, 25)):
        drawn = [n for place in row for n in places[names[place]]]
        loop.append(kappa([gold[n] for n in drawn], [given[n] for n in drawn], weights))
    expected = np.quantile(loop, [0.025, 0.975])
    found = bootstrap_kappa(gold, given, documents, 200, 5, weights=weights)
    assert found == pytest.approx(tuple(expected), abs=1e-12)


def test_bootstrap_kappa_without_any_defined_draw() -> None:
    assert bootstrap_kappa(["A"] * 4, ["A"] * 4, list("abcd"), 50, 1) is None


def test_chance_levels() -> None:
    four = replace(CHOICE, options=("一", "二", "三", "四"))
    assert chance_level([CHOICE, four])[0] == pytest.approx((1 / 2 + 1 / 4) / 2)
    two_of_five = replace(CHOICE, task="igakuqa", options=tuple("あいうえお"), gold=("a", "c"), points=3)
    either = replace(two_of_five, gold=("a or d",))
    number = replace(CHOICE, kind="number", options=(), gold=("26",))
    assert chance_level([two_of_five])[0] == pytest.approx(1 / 10)
    assert chance_level([either])[0] == pytest.approx(2 / 5)
    withdrawn = replace(two_of_five, id="igakuqa/116A71", year=2022)
    assert chance_level([withdrawn])[0] == 1 and chance_points([withdrawn, two_of_five]) == pytest.approx(3.3)
    assert chance_level([number])[0] == 0
    assert chance_points([two_of_five, number]) == pytest.approx(0.3)
    assert chance_level([replace(CHOICE, kind="entities")]) == (0.0, "an empty list")


def test_no_samples_no_interval() -> None:
    assert bootstrap_mean([1.0, 0.0], ["a", "b"], 0, 1) is None
    assert bootstrap_kappa(["A", "B"], ["A", "A"], ["a", "b"], 0, 1) is None
