"""Mixtures: which pattern takes which source, how many rows each gives, and what does not go together."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rinsho.errors import UserError
from rinsho.pretrain import Recipe
from rinsho.pretrain.mixture import SourceShare, draws, groups_of, labels, problems
from rinsho.recipe import settings
from rinsho.token_files import SourceRow

SOURCES = [
    SourceRow("notes", 10, 100, 50, "hospital", "hospital-tokens"),
    SourceRow("", 5, 50, 25, "hospital", "hospital-tokens"),
    SourceRow("wiki", 10, 100, 50, "general", "general-tokens"),
    SourceRow("web/ja", 10, 100, 50, "general", "general-tokens"),
]


def mixture(**shares):
    return {name: SourceShare.model_validate(share) for name, share in shares.items()}


@pytest.mark.parametrize(
    ("patterns", "wanted"),
    [
        (["*"], [0, 0, 0, 0]),
        (["hospital/*", "*"], [0, 0, 1, 1]),
        (["hospital-tokens/*", "general-tokens/*"], [0, 0, 1, 1]),
        (["wiki", "hospital", "*"], [2, 1, 0, 2]),  # text without a source goes by its corpus's name
        (["general/web/*", "web/*", "*"], None),  # the second has nothing left
        (["[nw]*", "hospital*"], [0, 1, 0, 0]),
        (["Notes", "*"], None),  # capitals count
        (["hospital/*", "wiki"], None),
    ],
)
def test_the_first_pattern_that_fits_takes_a_source(patterns, wanted):
    given = mixture(**dict.fromkeys(patterns, 1))
    if wanted is not None:
        assert groups_of(given, SOURCES) == wanted
        return
    with pytest.raises(UserError, match=r"nothing is left for the pattern|no pattern for 'general-tokens/web/ja'") as e:
        groups_of(given, SOURCES)
    assert "general-tokens/web/ja" in str(e.value)


def test_weight_or_epochs_0_leave_out():
    assert groups_of(mixture(**{"wiki": 0, "hospital/*": {"epochs": 0}, "*": 1}), SOURCES) == [-1, -1, 0 - 1, 2]


def test_many_names_are_listed_in_part():
    rows = [SourceRow(f"s{number:02d}", 1, 1, 1, "c") for number in range(30)]
    with pytest.raises(UserError, match=r"'c/s19' and 10 others"):
        groups_of(mixture(x=1), rows)


def test_names_in_reports_have_the_corpus_where_there_are_several():
    assert labels(SOURCES) == ["hospital/notes", "hospital", "general/wiki", "general/web/ja"]
    assert labels(SOURCES[:2]) == ["notes", "hospital"]


def test_epochs_are_exact_and_weights_share_the_rest():
    given = mixture(a={"epochs": 3}, b={"weight": 3}, c=1, d={"epochs": 0.5})
    assert draws(given, [10, 100, 7, 21], 100) == [30, 45, 15, 10]
    assert draws(mixture(a={"epochs": 3}, b={"epochs": 1}), [10, 7], None) == [30, 7]
    assert draws(mixture(a=0.75, b=0.25, c=0), [5, 5, 5], 10) == [8, 2, 0]


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=8).filter(any), st.integers(1, 10**9))
def test_weighted_rows_sum_to_all_and_differ_from_their_share_by_less_than_one(weights, total):
    given = {str(place): SourceShare(weight=weight) for place, weight in enumerate(weights)}
    found = draws(given, [1] * len(weights), total)
    assert sum(found) == total
    for count, weight in zip(found, weights, strict=True):
        assert abs(count - total * (weight / sum(weights))) < 1 + 1e-6 * total


def test_what_does_not_go_together():
    assert problems({}, None) == problems({}, 100) == problems(mixture(a=1), 100) == []
    assert problems(mixture(a={"epochs": 2}, b=0), None) == []
    for shares, tokens, text in (
        (mixture(a=1), None, "weights share out max_tokens"),
        (mixture(a={"epochs": 1}), 100, "max_tokens is given, and epochs"),
        (mixture(a=0, b={"epochs": 0}), 100, "every source is left out"),
    ):
        assert [text in str(problem) for problem in problems(shares, tokens)] == [True]
    with pytest.raises(UserError, match="alone are 40 rows, max_tokens gives 40"):
        draws(mixture(a={"epochs": 4}, b=1), [10, 10], 40)
    with pytest.raises(UserError, match="the text of 'b' does not fill one row"):
        draws(mixture(a=1, b=1), [10, 0], 40)
    assert draws(mixture(a=1, b=0), [10, 0], 40) == [40, 0]


def test_a_share_is_read_from_a_recipe():
    made = settings(Recipe, {"mixture": {"a": 0.5, "b": {"epochs": 2}}}, "recipe.yaml pretrain")
    assert made.mixture == {"a": SourceShare(weight=0.5), "b": SourceShare(epochs=2)}
    assert settings(Recipe, made.model_dump(mode="json"), "again") == made
    for share in ({}, {"weight": 1, "epochs": 1}):
        with pytest.raises(UserError, match=r"mixture.a: give weight or epochs, one of the two"):
            settings(Recipe, {"mixture": {"a": share}}, "recipe.yaml pretrain")
    for share in (-1, {"wieght": 1}, "much"):
        with pytest.raises(UserError, match=r"mixture.a"):
            settings(Recipe, {"mixture": {"a": share}}, "recipe.yaml pretrain")


def test_mixtures_open_without_numpy():
    code = "import sys, rinsho.pretrain.mixture; print('numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
