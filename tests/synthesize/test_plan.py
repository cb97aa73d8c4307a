"""The plan: every (topic, sample) once, of teachers by their shares, and the same when topics or teachers are added."""

from __future__ import annotations

from collections import Counter

import pytest

from rinsho.synthesize import Recipe, Teacher
from rinsho.synthesize.calls import Call, Topic
from rinsho.synthesize.plan import assigned, count, topic_calls
from rinsho.synthesize.prompts import load

TOPICS = [Topic(f"id{number}", f"病{number}", "disease" if number % 3 else "drug_product", "") for number in range(60)]


def recipe(**settings) -> Recipe:
    shares = settings.pop("shares", {"one": 1.0, "two": 3.0})
    teachers = {
        name: Teacher(base_url="http://127.0.0.1:1/v1", model=name, share=share) for name, share in shares.items()
    }
    return Recipe(teachers=teachers, **settings)


def planned(settings: Recipe, topics=TOPICS) -> list[Call]:
    return list(topic_calls(settings, topics, load()))


@pytest.mark.parametrize("assign", ["share", "all"])
def test_every_topic_and_sample_is_asked_once_in_a_fixed_order(assign: str) -> None:
    settings = recipe(
        kinds=("pharmacist_exam", "reading", "textbook", "instructions"), assign=assign, textbook_samples=2
    )
    calls = planned(settings)
    pairs = Counter((call.kind, call.subject, call.sample) for call in calls)
    each = 2 if assign == "all" else 1
    assert set(pairs.values()) == {each} and len(pairs) == 60 * (5 + 2)
    assert len(calls) == count(settings, TOPICS) == len({call.id for call in calls})
    assert [call.kind for call in calls] == ["pharmacist_exam"] * 300 * each + ["textbook"] * 120 * each
    assert calls == planned(settings)
    told = [(kind, topic.id, sample, teacher) for kind, topic, sample, teacher in assigned(settings, TOPICS)]
    assert told == [(call.kind, call.subject, call.sample, call.teacher) for call in calls]


def test_all_teachers_are_asked_the_same_with_seeds_of_their_own() -> None:
    calls = planned(recipe(assign="all", kinds=("physician_exam",)))
    for one, two in zip(calls[::2], calls[1::2], strict=True):
        assert (one.subject, one.sample, one.messages) == (two.subject, two.sample, two.messages)
        assert one.seed != two.seed
    assert all(0 <= call.seed < 2**31 for call in calls) and len({call.seed for call in calls}) == len(calls)


def test_samples_of_a_topic_are_asked_differently() -> None:
    calls = planned(recipe(kinds=("physician_exam",)))
    for start in range(0, len(calls), 5):
        assert len({call.messages for call in calls[start : start + 5]}) == 5


def test_a_call_tells_what_the_product_should_say() -> None:
    calls = planned(recipe(kinds=("textbook",)), [Topic("id1", "アムロジピン", "drug_ingredient", "あむろじぴん")])
    assert len(calls) == 1
    call = calls[0]
    assert call.about["topic"] == "アムロジピン" and call.about["topic_kind"] == "drug_ingredient"
    assert call.about["drawn"].startswith("aspect: ") and "; reader: " in call.about["drawn"]
    assert call.prompt == load().templates["textbook.drug"].hash
    asked = call.messages[1].content
    assert "「アムロジピン」（医薬品の成分）" in asked and "読み: あむろじぴん" in asked
    assert all(entry.partition(": ")[2] in asked for entry in call.about["drawn"].split("; "))


def test_shares_are_kept() -> None:
    topics = [Topic(f"t{number}", "x", "term") for number in range(2000)]
    settings = recipe(shares={"a": 1, "b": 2, "c": 5}, kinds=("textbook",))
    found = Counter(teacher for _, _, _, teacher in assigned(settings, topics))
    for name, share in (("a", 1 / 8), ("b", 2 / 8), ("c", 5 / 8)):
        assert abs(found[name] / 2000 - share) < 4 * (share * (1 - share) / 2000) ** 0.5


def test_paid_calls_stay_of_use_when_topics_or_teachers_are_added_or_named_in_another_order() -> None:
    before = {call.id: call for call in planned(recipe())}
    fewer = planned(recipe(), TOPICS[::-2])
    assert {call.id: call for call in fewer}.items() <= before.items()
    assert {call.id for call in planned(recipe(shares={"two": 3.0, "one": 1.0}))} == set(before)
    more = {call.id for call in planned(recipe(shares={"one": 1.0, "two": 3.0, "new": 1.0}))}
    moved = more - set(before)
    assert all("/new/" in call for call in moved) and 0.1 < len(moved) / len(before) < 0.3
    assert {call.seed for call in planned(recipe(seed=2))}.isdisjoint(call.seed for call in before.values())
