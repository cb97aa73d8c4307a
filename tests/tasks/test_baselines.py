"""Trivial baselines: they learn what a shortcut can learn, from the training part only."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from real_data import real_data
from rinsho.errors import UserError
from rinsho.tasks import Item, Splitting, read_data
from rinsho.tasks.baselines import copy_lexicon, majority, naive_bayes, read_lexicon
from rinsho.tasks.score import accuracy, kappa
from tasks.toy_jmed import write_csv

BASE = Item("x", "smdis", "choice", "熱", "", "", "", ("ある", "ない"), ("A",), "", "")


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
    with pytest.raises(UserError, match=r"bad.csv:1: missing column surface"):
        read_lexicon([tmp_path / "bad.csv"])


def test_real_smdis_yields_to_naive_bayes() -> None:
    folder = real_data("jmed_llm")
    tests = read_data([folder], "test", tasks=["smdis"])
    train = read_data([folder], "train", Splitting("row"), tasks=["smdis"])
    gold, given = [item.gold[0] for item in tests], naive_bayes(train, tests)
    assert accuracy(gold, given) > 0.9 and kappa(gold, given) > 0.8
    assert accuracy(gold, majority(train, tests)) == 0.5
