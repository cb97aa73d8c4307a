"""The test list: what it holds, how it is read, and what hits, chance and permuted vocabularies come to."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from analyse.toy_space import toy_embeddings, toy_space
from rinsho.analyse.analogy_scores import Row, ask, evaluate, is_list, read_list
from rinsho.analyse.analogy_space import Space, neighbours, space
from rinsho.analyse.embeddings import Embeddings
from rinsho.errors import UserError
from rinsho.packing import permutation
from rinsho.tasks.paired import holm
from rinsho.text import clean

HOLDS = [
    Row("肺", "肺癌", "心", ("心筋梗塞",), "organ"),
    Row("心", "心筋梗塞", "肺", ("肺癌",), "organ"),
    Row("肺", "肺癌", "咳", ("咳嗽",), "sign"),
    Row("肺", "肺癌", "熱", ("発熱", "高熱"), "sign"),
]


def test_the_built_in_list_is_large_and_agrees_with_itself() -> None:
    rows = read_list()
    relations = {row.relation for row in rows}
    assert len(rows) >= 150
    assert len(relations) >= 8
    assert len({(row.relation, row.a, row.c) for row in rows}) == len(rows)
    answers: dict[tuple[str, str], set[tuple[str, ...]]] = defaultdict(set)
    for row in rows:
        answers[row.relation, row.c].add(row.answers)
    for row in rows:
        assert len(answers[row.relation, row.c]) == 1
        (accepted,) = answers[row.relation, row.a]  # the pair that is shown is right by the list itself
        assert row.b in accepted
        assert not {row.a, row.b, row.c} & set(row.answers)
        for word in (row.a, row.b, row.c, *row.answers):
            assert clean(word) == word.strip() == word


def test_a_list_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_text("\ufeffrelation,a,b,c,answers\n対,肺,肺癌,胃,胃癌 | 胃がん\n", encoding="utf-8")
    assert is_list(path)
    assert read_list(path) == [Row("肺", "肺癌", "胃", ("胃癌", "胃がん"), "対")]
    path.write_text('"a","b","c","answers"\r\n"肺","肺癌","胃","胃癌"\r\n', encoding="utf-8")
    assert is_list(path)
    assert read_list(path) == [Row("肺", "肺癌", "胃", ("胃癌",), "")]
    path = tmp_path / "list.tsv"
    path.write_text("a\tb\tc\tanswers\n肺\t肺癌\t胃\t胃癌\n", encoding="utf-8")
    assert is_list(path)
    assert read_list(path)[0].relation == ""
    for text in ("", "\n", "肺癌 - 肺 + 胃\n", "a\tb\tc\n"):
        path.write_text(text, encoding="utf-8")
        assert not is_list(path)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a\tb\tc\n肺\t肺癌\t胃\n", ":1: the column answers is missing"),
        ("a\tb\tc\tanswers\n肺\t肺癌\t胃\t胃癌\n肺\t\t胃\t胃癌\n", ":3: the cell b is empty"),
        ("a\tb\tc\tanswers\n肺\t肺癌\t胃\t肺癌\n", ":2: an answer is a word of the question"),
        ("a\tb\tc\tanswers\n肺\t肺癌\t胃\t|\n", ":2: no answer"),
        ("a\tb\tc\tanswers\n肺\t肺癌\n", ":2: the cell c is empty"),
        ("a\tb\tc\tanswers\n", "no analogies in here"),
        ("", ":1: the column a is missing"),
    ],
)
def test_a_broken_list_is_told_with_its_line(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "list.tsv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as error:
        read_list(path)
    assert told in str(error.value)


def test_a_list_that_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "list.tsv"
    path.write_bytes("肺".encode("cp932"))
    with pytest.raises(UserError, match="not UTF-8"):
        is_list(path)
    with pytest.raises(UserError, match="not there"):
        read_list(tmp_path / "no.tsv")


def test_planted_analogies_are_all_hit_and_not_by_the_simpler_rules() -> None:
    results, summaries = evaluate(toy_space(), HOLDS, 50, 1)
    assert [result.found for result in results] == ["心筋梗塞", "肺癌", "咳嗽", "発熱"]
    assert [result.rank for result in results] == [1] * 4
    every, organ, sign = summaries
    assert [summary["relation"] for summary in summaries] == ["all", "organ", "sign"]
    assert (every["rows"], every["answerable"], organ["answerable"], sign["answerable"]) == (4, 4, 2, 2)
    assert every["top1"] == every["top5"] == every["mrr"] == 1.0
    assert every["whole_top1"] == 1.0
    assert every["interval_top1"][0] == pytest.approx(0.51, abs=0.01)  # Wilson's of 4 of 4
    assert every["interval_top1"][1] == 1.0
    assert every["permuted_top1"] < 0.2
    assert every["difference_mrr"] == pytest.approx(1 - every["alone_mrr"])
    assert every["p"] is None  # of four observations


def test_what_c_alone_finds_as_well_is_no_evidence() -> None:
    """However far above permuted vocabularies: 肺癌 is the nearest to 肺 itself."""
    holds = {"肺": "肺癌", "心": "心筋梗塞", "咳": "咳嗽", "熱": "発熱", "急": "急性"}
    rows = [Row(a, holds[a], c, (holds[c],), f"of {a}") for a in holds for c in holds if a != c]
    every = evaluate(toy_space(), rows, 20, 1)[1][0]
    assert every["independent"] == 20
    assert every["top1"] == every["alone_top1"] == 1.0 > 4 * every["permuted_top1"]
    assert (every["difference_mrr"], every["p"]) == (0.0, 1.0)


def pairs_and_decoys(count: int) -> Space:
    """c0, c1, ... with x0 = c0 + a direction that all share, and n0, a decoy nearer to c0 than x0 is."""
    axes = np.eye(2 * count + 1, dtype=np.float32)
    made = {f"c{place}": axes[place] for place in range(count)}
    made |= {f"x{place}": axes[place] + axes[-1] for place in range(count)}
    made |= {f"n{place}": axes[place] + 0.5 * axes[count + place] for place in range(count)}
    return space(Embeddings(np.stack([*made.values()]), tuple(made), ("text",) * len(made)), None, centred=False)


@pytest.mark.parametrize(("kind", "better"), [("x", True), ("n", False)])
def test_p_is_small_where_the_sum_and_its_third_word_differ(kind: str, better: bool) -> None:
    there = pairs_and_decoys(12)
    rows = [
        Row(
            f"c{(place + step) % 12}",
            f"x{(place + step) % 12}",
            f"c{place}",
            (f"{kind}{place}",),
            f"r{place % 12 < 10}",
        )
        for place in range(12)
        for step in (1, 2)
    ]
    every, many, few = evaluate(there, rows, 0, 1)[1]
    assert [row["independent"] for row in (every, many, few)] == [12, 10, 2]
    assert (every["difference_mrr"] > 0) is better
    low, high = every["interval_difference_mrr"] or (every["difference_mrr"],) * 2
    assert (low > 0) is (high > 0) is better
    assert every["p"] == 2 / 2**12  # rows of one question change their signs together
    assert many["p"] == many["p_holm"] == 2 / 2**10
    assert few["p"] is few["p_holm"] is every["p_holm"] is None


def test_p_of_relations_is_corrected_for_their_number() -> None:
    there = pairs_and_decoys(20)
    rows = [
        Row(
            f"c{(place + 1) % 20}",
            f"x{(place + 1) % 20}",
            f"c{place}",
            (f"{'xn'[place % 3 == 2]}{place}",),
            f"r{place < 10}",
        )
        for place in range(20)
    ]
    _, *relations = evaluate(there, rows, 0, 1)[1]
    found = [row["p"] for row in relations]
    assert 0.05 < found[0] < 1
    assert [row["p_holm"] for row in relations] == holm(found) != found


def test_rows_of_one_question_count_once_in_the_interval() -> None:
    twice = [*HOLDS, *(row._replace(a="急", b="急性") for row in HOLDS)]
    summary = evaluate(toy_space(), twice, 0, 1)[1][0]
    assert (summary["answerable"], summary["independent"]) == (8, 4)
    assert summary["interval_top1"] == evaluate(toy_space(), HOLDS, 0, 1)[1][0]["interval_top1"]
    assert summary["permuted_top1"] is None


def test_permuted_vocabularies_hit_as_often_as_chance_says() -> None:
    """By symmetry, an answer that is not left out is nearest in 1 of the candidates left: a check of both."""
    there = toy_space()
    row = HOLDS[3]._replace(answers=("発熱", "急性"))
    results, summaries = evaluate(there, [row], 3000, 7)
    left = len(there.candidates) - 3
    assert results[0].chance == pytest.approx((2 / left, 1 - (left - 5) * (left - 6) / left / (left - 1)))
    for name in ("top1", "top5"):
        chance = summaries[0][f"chance_{name}"]
        deviation = np.sqrt(chance * (1 - chance) / 3000)
        assert abs(summaries[0][f"permuted_{name}"] - chance) < 4 * deviation


@pytest.mark.parametrize(("unit_length", "centred"), [(True, True), (True, False), (False, True), (False, False)])
def test_a_permuted_vocabulary_is_the_space_with_rows_moved(unit_length: bool, centred: bool) -> None:
    there = toy_space(unit_length=unit_length, centred=centred)
    rows = [*HOLDS, Row("急性咳嗽", "肺癌", "心", ("文章",), "")]  # words of several tokens move too
    moved = np.arange(len(there.tokens))
    moved[there.candidates] = there.candidates[permutation(len(there.candidates), "analogies/1/0")]
    made = toy_embeddings()
    rebuilt = space(
        replace(made, vectors=made.vectors[moved]), there.tokenizer, unit_length=unit_length, centred=centred
    )
    expected = evaluate(rebuilt, rows, 0, 1)[1][0]["mrr"]
    assert evaluate(there, rows, 1, 1)[1][0]["permuted_mrr"] == pytest.approx(expected)


def test_permutations_come_from_the_seed() -> None:
    first, again, other = (evaluate(toy_space(), HOLDS, 20, seed)[1][0]["permuted_mrr"] for seed in (1, 1, 2))
    assert first == again != other


def test_a_rank_is_the_place_among_the_neighbours() -> None:
    there = toy_space()
    rows = [Row("肺", "心", "筋", ("文章", "認め"), ""), Row("咳", "急性", "熱", ("患者",), ""), *HOLDS]
    for result in ask(there, rows):
        row = result.row
        near = [each.token for each in neighbours(there, f"{row.b} - {row.a} + {row.c}", 1000).rows]
        assert result.rank == min(near.index(word) + 1 for word in row.answers if word in near)
        assert result.found == near[0]
        alone = [each.token for each in neighbours(there, row.c, 1000).rows if each.token not in {row.a, row.b}]
        if "患者" in row.answers:  # planted words stand at equal cosines from c alone
            assert result.rank_alone == alone.index("患者") + 1


def test_rows_that_cannot_be_answered_say_why_and_do_not_count() -> None:
    rows = [
        *HOLDS,
        Row("𠮷", "肺癌", "心", ("心筋梗塞",), "organ"),
        Row("肺", "肺癌", "心", ("急性咳嗽",), "organ"),
        Row("急性咳嗽", "肺癌", "心", ("急性",), "none"),  # its answer is a piece of a, and left out
    ]
    results, summaries = evaluate(toy_space(), rows, 3, 1)
    assert [result.problem for result in results[4:]] == [
        "not representable: 𠮷", "no accepted answer is one token", "no accepted answer is one token",
    ]  # fmt: skip
    assert (summaries[0]["rows"], summaries[0]["answerable"], summaries[0]["top1"]) == (7, 4, 1.0)
    empty = summaries[-1]
    assert (empty["relation"], empty["answerable"], empty["top1"], empty["interval_top1"]) == ("none", 0, None, None)


def test_a_space_without_differences_hits_nothing() -> None:
    made = toy_embeddings()
    flat = space(replace(made, vectors=np.ones_like(made.vectors)), toy_space().tokenizer)
    results, summaries = evaluate(flat, HOLDS, 5, 1)
    assert summaries[0]["top5"] == 0.0
    assert all(result.rank > 5 for result in results)
    assert summaries[0]["difference_mrr"] == 0.0
