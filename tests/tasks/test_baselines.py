"""Trivial baselines: they learn what a shortcut can learn, from the training part only."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from real_data import real_data
from rinsho.errors import UserError
from rinsho.evaluate.scoring import baselines
from rinsho.tasks import Item, Splitting, prompts, read_data
from rinsho.tasks.baselines import copy_lexicon, majority, naive_bayes, read_lexicon, same_document
from rinsho.tasks.score import accuracy, kappa
from tasks.toy_jmed import write_csv

BASE = Item("x", "smdis", "choice", "熱", prompts.CHOICE, "", ("ある", "ない"), ("A",), "", "")


def post(text: str, answer: str, tag: str = "熱") -> Item:
    return replace(BASE, question=text, gold=(answer,), tag=tag)


def test_majority_is_per_tag_with_a_fallback() -> None:
    train = [post("あ", "B"), post("い", "B"), post("う", "A"), post("え", "A", "咳"), post("お", "A", "痛")]
    assert majority(train, [post("?", "A"), post("?", "A", "咳"), post("?", "A", "鼻")]) == ["B", "A", "A"]
    assert majority([], [post("?", "B")]) == ["A"]


def test_naive_bayes_learns_a_word_and_not_the_text_around_it() -> None:
    train = [post(f"今日は{w}だ。", a) for w, a in [("高熱", "A"), ("発熱", "A"), ("平穏", "B"), ("元気", "B")]]
    assert naive_bayes(train, [post("明日は高熱かも", "A"), post("元気いっぱい", "B")]) == ["A", "B"]
    assert naive_bayes(train[:2], [post("元気", "B")]) == ["A"]  # one label only: nothing to learn


def test_several_right_letters_are_one_label() -> None:
    three = replace(BASE, options=("ある", "ない", "不明"))
    train = [replace(three, question=text, gold=gold) for text, gold in [("高熱", ("A", "C")), ("平熱", ("B",))]]
    train += [replace(three, question="発熱", gold=("C", "A"))]
    tests = [replace(three, question="高熱", gold=("A", "B")), replace(three, question="平熱", gold=("C",))]
    assert majority(train, tests) == ["A,C", "B"]  # as many letters as are asked for
    assert naive_bayes(train, tests) == ["A,C", "B"]
    assert majority([], tests) == ["A,B", "A"]


def test_same_document_takes_what_the_document_says_elsewhere() -> None:
    one, other = replace(BASE, document="1"), replace(BASE, document="2")
    train = [replace(one, gold=("B",)), replace(one, gold=("B",), tag="咳"), replace(other, gold=("A",), tag="咳")]
    train += [replace(other, gold=("A",), tag="熱", document=str(number)) for number in range(3, 9)]
    train += [replace(other, task="crade", gold=("B",))]  # another task's labels mean other things
    tests = [replace(one, gold=("A",)), other, replace(BASE, document="9"), replace(one, options=("ある",))]
    assert same_document(train, tests) == ["B", "A", "A", "A"]


def test_baselines_are_left_out_where_nothing_can_be_learned() -> None:
    train = [replace(BASE, id="all/smdis/0", document="1")]
    own = replace(BASE, task="triage", options=("赤", "黄", "緑"), gold=("C",))
    tests = [replace(BASE, document="1"), replace(own, id="triage/0"), replace(BASE, id="usmle/0", task="usmle")]
    tests += [replace(BASE, id="igakuqa/0", task="igakuqa", year=2018)]
    base = baselines([*train, replace(own, id="all/triage/0", document="2")], tests, {})
    assert base.majority == base.naive_bayes == {"x": "A", "triage/0": "C"}
    assert base.same_document == {"x": "A"} and base.copy_lexicon == {}
    listed = replace(BASE, id="nrner/0", task="nrner", kind="entities", tag="d", passage="発熱あり。")
    assert baselines([], [listed], {}).copy_lexicon == {}
    assert baselines([], [listed], {"disease": ["発熱"]}).copy_lexicon == {"nrner/0": ["発熱"]}


def test_copy_lexicon_takes_the_longest_known_word_of_the_tag() -> None:
    base = replace(BASE, task="nrner", kind="entities", tag="d", options=())
    train = [replace(base, gold=("肺癌", "熱")), replace(base, tag="m-key", gold=("薬剤",))]
    tests = [
        replace(base, passage="右肺癌疑い。小細胞肺癌と高熱、薬剤。"),
        replace(base, tag="m-key", passage="薬剤甲錠"),
    ]
    assert copy_lexicon(train, tests, {"disease": ["小細胞肺癌"], "drug": ["甲錠"]}) == [
        ["肺癌", "小細胞肺癌"],
        ["薬剤", "甲錠"],
    ]


def test_read_lexicon(tmp_path: Path) -> None:
    write_csv(
        tmp_path / "terms.csv", ["surface", "reading", "kind"], [["肺癌", "ハイガン", "disease"], ["甲錠", "", "drug"]]
    )
    assert read_lexicon([tmp_path / "terms.csv"]) == {"disease": ["肺癌"], "drug": ["甲錠"]}
    write_csv(tmp_path / "bad.csv", ["word"], [["肺癌"]])
    with pytest.raises(UserError, match=r"bad.csv:1: no column that holds the terms; expected surface or 出現形"):
        read_lexicon([tmp_path / "bad.csv"])
    assert read_lexicon([tmp_path / "bad.csv"], "word") == {"disease": ["肺癌"]}
    (tmp_path / "manbyo.tsv").write_text("出現形\tICDコード\n肺癌\tC34\n", encoding="utf-8")
    assert read_lexicon([tmp_path / "manbyo.tsv"]) == {"disease": ["肺癌"]}


@pytest.fixture(scope="module")
def row_split() -> tuple[list[Item], list[Item]]:
    """(training items, test items) of two real tasks under the report's split."""
    folder, tasks = real_data("jmed_llm"), ["crade", "smdis"]
    return read_data([folder], "train", Splitting("row"), tasks=tasks), read_data([folder], "test", tasks=tasks)


def test_real_crade_is_answered_by_what_its_documents_say_elsewhere(row_split) -> None:
    """More than half of the published test is right without reading the question (chance 25)."""
    train, tests = ([item for item in part if item.task == "crade"] for part in row_split)
    given = same_document(train, tests)
    assert sum(label == item.gold[0] for label, item in zip(given, tests, strict=True)) == 56


@pytest.mark.slow
def test_real_crade_under_the_document_split_has_no_such_documents() -> None:
    folder = real_data("jmed_llm")
    tests = read_data([folder], "test", tasks=["crade"])
    base = baselines(read_data([folder], "train", Splitting("document"), tasks=["crade"]), tests, {})
    assert not base.same_document and len(base.majority) == 100


def test_real_smdis_yields_to_naive_bayes(row_split) -> None:
    train, tests = ([item for item in part if item.task == "smdis"] for part in row_split)
    gold, given = [item.gold[0] for item in tests], naive_bayes(train, tests)
    assert accuracy(gold, given) > 0.9 and kappa(gold, given) > 0.8
    assert accuracy(gold, majority(train, tests)) == 0.5
