"""What the answers of others do to an exercise."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from rinsho.client import Answer
from rinsho.synthesize import Recipe
from rinsho.synthesize.agreement import answer_calls
from rinsho.synthesize.calls import Call
from rinsho.synthesize.judging import disagree, kept_exercises
from rinsho.synthesize.prompts import load

TEXT = """問題: 右下腹部痛と発熱がみられる。考えられるのはどれか。1つ選べ。
a. 急性虫垂炎
b. 胆石症
c. 尿管結石
d. 腸閉塞
正解: a
解説: 典型的な経過である。"""


class Said:
    """Teachers of whom one wrote the exercise and the other says always the same."""

    def __init__(self, said: str) -> None:
        self.said = said

    def answer(self, call: Call) -> Answer:
        return Answer(call.id, TEXT if call.kind == "physician_exam" else self.said, "stop")


@pytest.mark.parametrize(
    ("said", "least", "verdict"),
    [
        ("【正解】\na", 0.5, None), ("正解: b", 0.5, ("disagreed", 0.0)), ("わかりません。", 0.5, ("unconfirmed", 1)),
        ("わかりません。", 0.0, None),
    ],
)  # fmt: skip
def test_an_exercise_stays_where_the_others_give_its_answer(said: str, least: float, verdict: tuple | None) -> None:
    teachers = {name: {"base_url": "http://127.0.0.1:9/v1", "model": name} for name in "ab"}
    recipe = Recipe.model_validate({"teachers": teachers, "agreement": 1, "min_agreement_fraction": least})
    call, told = Call("physician_exam", "t1", "a", 0, (), "", 1, {}), Said(said)

    def asked() -> Iterator[Call]:
        return answer_calls((one for _, one in kept_exercises(lambda: [call], [None], told)), recipe, load())

    found, table = disagree(recipe, lambda: [call], asked, [None], told)
    assert found == [verdict]
    assert table.numbers()["unreadable"] == ({"b": 1} if "わか" in said else {})
