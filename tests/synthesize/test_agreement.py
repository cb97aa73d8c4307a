"""Who is asked about an exercise, how answers are read, and the table of agreement."""

from __future__ import annotations

import time
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rinsho.synthesize import Recipe
from rinsho.synthesize.agreement import Agreement, Written, agreed, answer_calls, answerers, letters
from rinsho.synthesize.exercises import Exercise
from rinsho.synthesize.prompts import load
from rinsho.tasks.score import kappas

OPTIONS = {"a": "急性虫垂炎", "b": "胆石症", "c": "尿管結石", "d": "腸閉塞", "e": "急性膵炎"}
ONE = Exercise("右下腹部痛と発熱がみられる。考えられるのはどれか。1つ選べ。", OPTIONS, ("a",), "典型的な経過である。")
TWO = Exercise("腹部CTで診断するのはどれか。2つ選べ。", OPTIONS, ("d", "a"), "いずれもCTで診断する。")


def recipe(agreement: int, **temperatures: float) -> Recipe:
    teachers = {
        name: {"base_url": "http://127.0.0.1:9/v1", "model": name, "temperature": t} for name, t in temperatures.items()
    }
    return Recipe.model_validate({"teachers": teachers, "agreement": agreement})


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a", "a"), ("正解: c", "c"), ("正解：Ｃ", "c"), ("**正解: d**", "d"), ("答えは b です。", "b"), ("（ｅ）", "e"),
        ("正解: a, c", "ac"), ("c、a", "ac"), ("a と d", "ad"), ("ae", "ae"), ("正解: a\nd", "a"), ("a\nc", "ac"),
        ("b. 胆石症", "b"), ("正解: c. 尿管結石", "c"), ("ｂ．胆石症。", "b"), ("はい、承知しました。\n正解: e", "e"),
        ("<think>aかbか。</think>\n正解: b", "b"), ("正解: d\n解説: 腸閉塞であるため。", "d"), ("c\n\n尿管結石の痛みである。", "c"),
        ("正解: a\n正解: b", None), ("正解: f", None), ("", None), ("わからない。", None), ("b. 尿管結石", None),
        ("aではなくbと考える。", None), ("すべて正しい。", None), ("正解: a, a", "a"), ("正解: aまたはb", None),
        ("a. 急性虫垂炎\nb. 胆石症", None), ("正解: 胆石症", "b"), ("胆石症", "b"), ("正解は「胆石症」です。", "b"),
        ("【正解】a", "a"), ("【正解】\na", "a"), ("正解:\na", "a"), ("正解\na", "a"), ("正解 a", "a"), ("答えは\na\nです。", "a"),
        ("### 正解\n**a. 急性虫垂炎**", "a"), ("正解の選択肢はaです。", "a"), ("この問題の正解はaです。", "a"), ("The answer is a.", "a"),
        ("最も適切な選択肢は a です。", "a"), ("$\\boxed{a}$", "a"), ("正解：$\\boxed{\\text{a}}$", "a"), ("正解: ✅ a", "a"),
        ("正解: a. 急性虫垂炎\nc. 尿管結石", "ac"), ("正解: a. 急性虫垂炎, c. 尿管結石", "ac"), ("正解: a, c（2つ）", "ac"),
        ("bad", None), ("正解: bed", None), ("正解: a?", None), ("正解: aの急性虫垂炎ではなくb", None),
        ("a. 急性虫垂炎は誤り。\n正しいのはcである。", None), ("a. 急性虫垂炎: 正しい。\nb. 胆石症: 誤り。", None),
        (f"問題: {ONE.question}\na. 急性虫垂炎\nb. 胆石症\n正解: b", "b"), (f"問題: {ONE.question}\na. 急性虫垂炎", None),
    ],
)  # fmt: skip
def test_answers_are_read_strictly(text: str, found: str | None) -> None:
    assert letters(text, OPTIONS, len(found or "a")) == (tuple(found) if found else None)


def test_labels_of_other_kinds() -> None:
    numbers = {str(n): option for n, option in enumerate(OPTIONS.values(), 1)}
    kana = dict(zip("アイウエオ", OPTIONS.values(), strict=True))
    assert letters("正解は３番です。", numbers) == ("3",)
    assert letters("正解: 1、4", numbers) == ("1", "4")
    assert letters("正解: 13", numbers) is None
    assert letters("正解: 13", numbers, 2) == ("1", "3")
    assert letters("イ. 胆石症", kana) == ("イ",)
    assert letters("A", {"A": "肺炎", "B": "胃炎"}) == ("A",)


@given(st.text(max_size=60))
def test_any_text_is_read_or_not(text: str) -> None:
    found = letters(text, OPTIONS)
    assert found is None or (found and set(found) <= OPTIONS.keys() and list(found) == sorted(set(found)))


def test_the_share_that_agrees() -> None:
    assert agreed(ONE, ["正解: a", "正解: b", "a", "どれでもない。"]) == pytest.approx(2 / 3)
    assert agreed(TWO, ["a, d", "d、a", "a"]) == pytest.approx(2 / 3)
    assert agreed(ONE, ["正解: b"]) == 0.0
    assert agreed(ONE, []) is agreed(ONE, ["わからない。"]) is None  # nobody speaks for or against it


@pytest.mark.parametrize("piece", ["*", " * ", " ", "　", "$", "\\boxed{", "a\n", "a. ", "正解: a\n", "肺"])
def test_time_grows_with_the_length_of_an_answer_alone(piece: str) -> None:
    def seconds(length: int) -> float:
        middle = piece * (length // len(piece))
        started = time.process_time()
        for text in (f"答え: {middle}{'肺' * 250}", f"a{middle}x", f"正解: a\n{middle}"):
            letters(text, OPTIONS)
        return time.process_time() - started

    seconds(500)
    assert min(seconds(20_000) for _ in range(2)) < 30 * min(seconds(2_000) for _ in range(3)) + 0.05


def test_others_are_asked_in_an_order_drawn_for_each_exercise() -> None:
    three = recipe(2, elyza=0.8, stablelm=0.8, phi=0.8, calm=0.8)
    firsts = Counter()
    for number in range(300):
        asked = answerers(three, f"physician_exam/t{number}/elyza/0", "elyza")
        assert asked == answerers(three, f"physician_exam/t{number}/elyza/0", "elyza")
        assert [sample for _, sample in asked] == [0, 0]
        assert "elyza" not in dict(asked)
        firsts[asked[0][0]] += 1
    assert min(firsts[name] for name in ("stablelm", "phi", "calm")) > 60


def test_too_few_others_are_asked_again_and_one_teacher_asks_itself() -> None:
    assert sorted(answerers(recipe(3, a=0.8, b=0.8), "x", "a")) == [("b", 0), ("b", 1), ("b", 2)]
    assert sorted(answerers(recipe(3, a=0.8, b=0.0, c=0.5), "x", "a")) == [("b", 0), ("c", 0), ("c", 1)]
    assert answerers(recipe(3, a=0.8, b=0.0), "x", "a") == [("b", 0)]
    assert answerers(recipe(2, a=0.8), "x", "a") == [("a", 0), ("a", 1)]
    assert answerers(recipe(0, a=0.8, b=0.8), "x", "a") == []


def test_calls_show_the_question_and_not_the_answer() -> None:
    settings = recipe(2, a=0.8, b=0.8)
    calls = list(answer_calls([Written("physician_exam/t1/a/0", "a", TWO)], settings, load()))
    assert [call.id for call in calls] == [f"answer/physician_exam/t1/a/0/b/{n}" for n in (0, 1)]
    assert len({call.seed for call in calls}) == 2
    assert len({call.prompt for call in calls}) == 1
    shown = calls[0].messages[-1].content
    assert TWO.question in shown
    assert "a. 急性虫垂炎\nb. 胆石症" in shown
    assert TWO.explanation not in shown
    assert calls[0].about == {"exercise": "physician_exam/t1/a/0", "author": "a"}


def test_the_table_says_agreement_chance_and_kappa() -> None:
    table = Agreement()
    gold, said = "aaaabbccde", "aaabbbcdde"
    for number, (right, answer) in enumerate(zip(gold, said, strict=True)):
        exercise = Exercise(ONE.question, OPTIONS, (right,), "解説である。")
        table.add(Written(f"e{number}", "elyza", exercise), "phi", f"正解: {answer}")
    table.add(Written("e", "elyza", ONE), "phi", "わからない。")
    numbers = table.numbers()
    (row,) = numbers["pairs"]
    assert (row["author"], row["teacher"], row["itself"]) == ("elyza", "phi", False)
    assert row["answers"] == 10
    assert row["agreed"] == 0.8
    assert row["interval"] == [0.4902, 0.9433]
    assert row["guessing"] == 0.2
    assert row["chance"] == pytest.approx((4 * 3 + 2 * 3 + 2 * 1 + 1 * 2 + 1 * 1) / 100)
    assert numbers["unreadable"] == {"phi": 1}
    assert numbers["all"]["answers"] == 10
    counts = np.zeros((1, 5, 5))
    for right, answer in zip(gold, said, strict=True):
        counts[0, "abcde".index(right), "abcde".index(answer)] += 1
    assert row["kappa"] == pytest.approx(float(kappas(counts)[0]), abs=1e-4)


def test_chance_of_two_out_of_five_and_of_one_letter_alone() -> None:
    table = Agreement()
    table.add(Written("e", "elyza", TWO), "elyza", "正解: a, d")
    (row,) = table.numbers()["pairs"]
    assert row["guessing"] == 0.1
    assert row["itself"] is True
    assert (row["agreed"], row["chance"], row["kappa"]) == (1.0, 1.0, None)
    assert Agreement().numbers() == {"pairs": [], "all": {"answers": 0}, "unreadable": {}}
