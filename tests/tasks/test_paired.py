"""Two models on the same questions: scipy's binomial test, plain loops for the others, and what a test must not do."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binomtest, permutation_test

from rinsho.tasks import Item, prompts
from rinsho.tasks.paired import MCNEMAR, PERMUTATION, compare, holm, mcnemar, paired_kappa, paired_mean
from rinsho.tasks.score import kappa

CHOICE = Item("crade/0", "crade", "choice", "", prompts.CHOICE, "", tuple("一二三四"), ("A",), "", "d", ordered=True)


def questions(golds: list[str], per_document: int = 1) -> list[Item]:
    return [
        replace(CHOICE, id=f"crade/{number}", gold=(gold,), document=str(number // per_document))
        for number, gold in enumerate(golds)
    ]


def test_mcnemar_equals_scipy() -> None:
    for first in (0, 1, 2, 7, 30, 400):
        for second in (0, 1, 3, 8, 30, 431):
            right_a = [1.0] * first + [0.0] * second + [1.0] * 5 + [0.0] * 3
            right_b = [0.0] * first + [1.0] * second + [1.0] * 5 + [0.0] * 3
            expected = binomtest(first, first + second).pvalue if first + second else 1.0
            assert mcnemar(right_a, right_b) == pytest.approx(expected, abs=1e-12)
            assert mcnemar(right_a, right_b) == mcnemar(right_b, right_a)


def test_the_bootstrap_of_means_equals_a_plain_loop() -> None:
    draw = random.Random(1)
    values_a, values_b = ([draw.random() for _ in range(60)] for _ in range(2))
    documents = [str(number % 25) for number in range(60)]
    rng = np.random.default_rng(5)
    loop = []
    for row in rng.integers(0, 25, size=(200, 25)):
        drawn = [number for place in row for number in range(60) if number % 25 == place]
        loop.append(np.mean([values_a[n] for n in drawn]) - np.mean([values_b[n] for n in drawn]))
    found = paired_mean(values_a, values_b, documents, 200, 5)
    assert found.difference == pytest.approx(np.mean(values_a) - np.mean(values_b), abs=1e-12)
    assert found.interval == pytest.approx(tuple(np.quantile(loop, [0.025, 0.975])), abs=1e-12)


@pytest.mark.parametrize("weights", [None, "linear"])
def test_the_bootstrap_of_kappas_equals_a_plain_loop(weights) -> None:
    draw = random.Random(2)
    gold = [draw.choice("ABCD") for _ in range(60)]
    first = [label if draw.random() < 0.8 else draw.choice("ABCD") for label in gold]
    second = [label if draw.random() < 0.4 else draw.choice("ABCD") for label in gold]
    rng = np.random.default_rng(5)
    loop = []
    for row in rng.integers(0, 20, size=(200, 20)):
        drawn = [number for place in row for number in range(place * 3, place * 3 + 3)]
        asked = [gold[n] for n in drawn]
        loop.append(
            kappa(asked, [first[n] for n in drawn], weights) - kappa(asked, [second[n] for n in drawn], weights)
        )
    documents = [str(number // 3) for number in range(60)]
    found = paired_kappa(gold, first, second, documents, samples=200, seed=5, weights=weights)
    assert found.difference == pytest.approx(kappa(gold, first, weights) - kappa(gold, second, weights), abs=1e-12)
    assert found.interval == pytest.approx(tuple(np.quantile(loop, [0.025, 0.975])), abs=1e-12)
    assert found.p_value is not None and found.p_value < 0.05


def test_few_documents_are_enumerated_as_scipy_does() -> None:
    draw = random.Random(4)
    for number in (3, 5, 9, 12):
        values_a, values_b = ([draw.random() for _ in range(number)] for _ in range(2))
        expected = permutation_test(
            (np.array(values_a), np.array(values_b)), lambda a, b, axis: np.mean(a - b, axis=axis),
            permutation_type="samples", n_resamples=np.inf, vectorized=True,
        )  # fmt: skip
        found = paired_mean(values_a, values_b, [str(n) for n in range(number)], 50, 1)
        assert found.p_value == pytest.approx(expected.pvalue, abs=1e-12)
    three = compare("exact_f1", questions(["A"] * 3), [0.6, 0.5, 0.7], [0.5, 0.45, 0.65], 1000, 1)
    assert three["p_value"] == 0.25  # 3 documents cannot say more, however many draws there are


def test_more_documents_are_drawn_and_no_p_is_0() -> None:
    far = paired_mean([0.9] * 40, [0.1 + n / 1000 for n in range(40)], [str(n) for n in range(40)], 999, 1)
    assert far.p_value == 1 / 1000
    draw = random.Random(5)
    values = [draw.gauss(0.1, 0.3) for _ in range(13)]
    signs = 1 - 2 * ((np.arange(2**13)[:, None] >> np.arange(13)) & 1)
    exact = float((abs(signs @ values) >= abs(sum(values)) - 1e-12).mean())
    drawn = paired_mean(values, [0.0] * 13, [str(n) for n in range(13)], 20_000, 1)
    assert 0.01 < exact < 0.99 and drawn.p_value == pytest.approx(exact, abs=0.02)
    assert paired_mean([0.3] * 20, [0.3] * 20, [str(n) for n in range(20)], 99, 1).p_value == 1.0


@pytest.mark.parametrize("weights", [None, "linear"])
def test_kappas_are_compared_by_swapping_the_answers_to_documents(weights) -> None:
    draw = random.Random(6)
    gold, first, second = ([draw.choice("ABC") for _ in range(12)] for _ in range(3))
    first = [label if draw.random() < 0.7 else given for label, given in zip(gold, first, strict=True)]
    documents = [str(n // 2) for n in range(12)]
    differences = []
    for way in range(2**6):
        swap = [way >> (n // 2) & 1 for n in range(12)]
        one = [b if turned else a for a, b, turned in zip(first, second, swap, strict=True)]
        other = [a if turned else b for a, b, turned in zip(first, second, swap, strict=True)]
        differences.append(kappa(gold, one, weights) - kappa(gold, other, weights))
    expected = np.mean([abs(difference) >= abs(differences[0]) - 1e-12 for difference in differences])
    found = paired_kappa(gold, first, second, documents, samples=10, seed=1, weights=weights)
    assert found.difference == pytest.approx(differences[0]) and found.p_value == pytest.approx(expected, abs=1e-12)


def test_no_interval_where_all_documents_differ_alike() -> None:
    assert compare("exact_f1", questions(["A"] * 3), [0.6] * 3, [0.5] * 3, 100, 1)["interval"] is None
    one = compare("exact_f1", questions(["A"] * 3, per_document=3), [0.6, 0.5, 0.9], [0.5] * 3, 100, 1)
    assert one["interval"] is None and one["p_value"] == 1.0 and one["difference"] > 0
    golds = [*"ABAB"]
    opposite = compare("kappa", questions(golds), golds, [*"BABA"], 100, 1)
    assert opposite["difference"] == 2.0 and opposite["p_value"] == 2 / 2**4


def test_compare_picks_the_test() -> None:
    items = questions(["A"] * 20)
    right, wrong = [1.0] * 20, [0.0] * 20
    told = compare("accuracy", items, right, wrong, 100, 1)
    assert told == {"n": 20, "difference": 1.0, "interval": None, "p_value": 2 / 2**20, "test": MCNEMAR}
    assert compare("accuracy", items, wrong, right, 100, 1)["difference"] == -1.0
    half = [0.5] * 20
    assert compare("exact_f1", items, half, wrong, 100, 1)["test"] == PERMUTATION
    assert compare("overlap_f1", items, half, half, 100, 1)["p_value"] == 1.0
    assert compare("accuracy", [], [], [], 100, 1)["difference"] is None
    with pytest.raises(ValueError, match="20 items, 20 and 1 values"):
        compare("accuracy", items, right, [1.0], 100, 1)


def test_compare_kappa_takes_labels_and_the_scale_of_the_options() -> None:
    golds = [*"ABCD"] * 10
    near = ["B" if gold == "A" else gold for gold in golds]
    far = ["D" if gold == "A" else gold for gold in golds]
    told = compare("kappa", questions(golds), near, far, 300, 1)
    assert told["difference"] > 0.1 and told["interval"][0] > 0 and told["test"] == PERMUTATION
    flat = [replace(item, ordered=False) for item in questions(golds)]
    assert compare("kappa", flat, near, far, 300, 1)["difference"] == pytest.approx(0, abs=1e-12)
    same = questions(["A"] * 5)  # one label only: no kappa, no difference
    assert compare("kappa", same, ["A"] * 5, ["A"] * 5, 50, 1)["p_value"] is None


def test_questions_on_one_document_are_one_observation() -> None:
    values_a, values_b = [0.9] * 50 + [0.1] * 50, [0.5] * 50 + [0.4] * 50
    apart = compare("exact_f1", questions(["A"] * 100), values_a, values_b, 1000, 1)
    together = compare("exact_f1", questions(["A"] * 100, per_document=10), values_a, values_b, 1000, 1)
    assert apart["difference"] == together["difference"] == pytest.approx(0.05)
    assert together["p_value"] > apart["p_value"]
    assert together == compare("exact_f1", questions(["A"] * 100, per_document=10), values_a, values_b, 1000, 1)


def test_equal_models_are_rarely_told_apart() -> None:
    draw = random.Random(3)
    items, below = questions(["A"] * 60), {MCNEMAR: 0, PERMUTATION: 0}
    for seed in range(200):
        sides = [[float(draw.random() < 0.6) for _ in items] for _ in range(2)]
        below[MCNEMAR] += compare("accuracy", items, *sides, 2, seed)["p_value"] < 0.05
        sides = [[draw.random() for _ in items] for _ in range(2)]
        below[PERMUTATION] += compare("exact_f1", items, *sides, 400, seed)["p_value"] < 0.05
    assert below[MCNEMAR] <= 12 and 2 <= below[PERMUTATION] <= 20  # 10 expected; the exact test is cautious


def test_holm() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0] and holm([]) == []
