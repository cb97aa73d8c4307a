"""Passages of documents, and the calls for exercises about them."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rinsho.document import Document
from rinsho.instructions import read_instructions
from rinsho.prompting import read_template
from rinsho.synthesize import Recipe, Teacher, prompts
from rinsho.synthesize.exercises import Exercise, as_row, as_text, parse
from rinsho.synthesize.passages import PASSAGE, count, passages, reading_calls, with_passage
from rinsho.text import clean

INSERT = """レンショール錠5mg　添付文書（架空）
【禁忌】
本剤の成分に対し過敏症の既往歴のある患者には投与しないこと。重い腎機能障害のある患者には投与しないこと。
【用法及び用量】
通常、成人には１回５ｍｇを１日２回、朝食後と夕食後に経口投与する。年齢、症状により適宜増減するが、１日量は２０ｍｇを超えないこと。
【使用上の注意】
(1)高齢者では生理機能が低下しているので、少量から開始すること。
(2)本剤の投与中は、自動車の運転など危険を伴う機械の操作に従事させないよう注意すること。「ふらつく。」という訴えがあれば減量する。
問い合わせ先　電話 03-1234-5678
【副作用】
主な副作用は眠気（３．２％）、めまい（１．１％）であった。まれに肝機能障害が現れることがあるので、定期的に検査を行うこと。
"""


def recipe_of(names=("one",), **settings):
    teachers = {name: Teacher(base_url="http://127.0.0.1:9/v1", model=name) for name in names}
    return Recipe(teachers=teachers, kinds=("reading",), **settings)


def test_a_package_insert_is_cut_at_sentences_with_its_headings():
    found = passages(Document(INSERT, "rensho", {"license": " CC0-1.0 "}), 220)
    assert len(found) > 1
    assert all(100 <= len(passage.text) <= 220 for passage in found)
    for passage in found:
        assert passage.text[-1] in "。8" and not passage.text.startswith(("。", "」"))
        assert not passage.text.split("\n")[-1].startswith("【")
        assert (passage.document, passage.license) == ("rensho", "CC0-1.0")
    assert [passage.number for passage in found] == list(range(len(found)))
    whole = "\n".join(passage.text for passage in found)
    assert "03-1234" not in whole  # contact data is cleaned away,
    assert "1回5mg" in whole and "3.2%" in whole  # and forms are those of all our texts
    assert "「ふらつく。」という訴えがあれば減量する。" in whole
    assert passages(Document(INSERT, "rensho"), 5000)[0].text.count("【") == 4


def test_a_heading_goes_with_what_follows_even_where_that_begins_a_passage():
    one, two = "本剤は食後に服用する。" * 13, "飲み忘れたときは" + "気づいた時点で、" * 15 + "服用する。"
    found = passages(Document(f"{one}\n【用法】\n飲み忘れ\n{two}", "any"), 160)
    assert [passage.text for passage in found] == [one, f"【用法】\n飲み忘れ\n{two}"]
    found = passages(Document(f"{one}\n" + "見出し\n" * 9 + two, "any"), 160)  # more headings than have room
    assert [passage.text for passage in found] == [one, two]


def test_the_id_is_of_the_text_alone():
    one, two = (passages(Document(INSERT, name), 5000)[0] for name in ("a", "b"))
    assert one.id == two.id and re.fullmatch("[0-9a-f]{16}", one.id)
    assert passages(Document(INSERT + "終わり。", "a"), 5000)[0].id != one.id


def test_what_cannot_be_asked_about_gives_no_passage():
    assert passages(Document("", "empty"), 500) == []
    assert passages(Document("短い。", "short"), 500) == []
    assert passages(Document("All in English, without any sentence in Japanese. " * 20, "english"), 5000) == []
    table = "値 " * 2000 + "\n" + "本剤は食後に服用する。" * 20
    assert [passage.text[:3] for passage in passages(Document(table, "table"), 500)] == ["本剤は"]


sentence = st.text("発熱と咳「」（）(【】ア1", min_size=1, max_size=60).map(lambda text: text + "。")
lines = st.one_of(sentence, st.lists(sentence, max_size=5).map("".join), st.sampled_from(["【用法】", "概要", ""]))


@given(st.lists(lines, max_size=25).map("\n".join), st.integers(100, 400))
def test_passages_keep_to_their_size_and_lose_no_order(text, chars):
    found = passages(Document(text, "any"), chars)
    assert all(min(100, chars // 2) <= len(passage.text) <= chars for passage in found)
    rest = iter("".join(clean(text).split()))
    assert all(character in rest for character in "".join("".join(passage.text.split()) for passage in found))
    assert passages(Document(text, "any"), chars) == found


@pytest.fixture
def documents(tmp_path):
    rows = [
        {
            "id": f"guide-{number}",
            "text": f"第{number}章の説明。" + INSERT.replace("5mg", f"{number}mg"),
            "license": "CC0-1.0",
        }
        for number in range(6)
    ]
    rows.append({**rows[0], "id": "again"})
    file = tmp_path / "guides.jsonl"
    file.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n{broken\n", encoding="utf-8")
    return [file]


def test_a_call_for_each_different_passage_and_sample(documents):
    recipe = recipe_of(passage_chars=600, reading_samples=2)
    calls = list(reading_calls(recipe, documents, prompts.load()))
    assert count(recipe, documents) == len(calls) == 12  # the seventh document repeats the first
    assert len({call.id for call in calls}) == len({call.seed for call in calls}) == 12
    assert [call.about["document"] for call in calls[::2]] == [f"guide-{number}" for number in range(6)]
    for call in calls:
        assert call.about["license"] == "CC0-1.0"
        assert call.about[PASSAGE] in call.messages[-1].content and call.id.startswith(f"reading/{call.subject}/one/")
    assert calls[0].messages != calls[1].messages  # the samples of a passage ask for different things
    assert list(reading_calls(recipe, documents, prompts.load())) == calls


def test_a_sample_of_passages_does_not_depend_on_their_order(documents, tmp_path):
    recipe = recipe_of(passage_chars=600, max_passages=3)
    calls = list(reading_calls(recipe, documents, prompts.load()))
    assert len(calls) == count(recipe, documents) == 3
    turned = tmp_path / "turned.jsonl"
    turned.write_text("\n".join(documents[0].read_text(encoding="utf-8").split("\n")[:6][::-1]), encoding="utf-8")
    assert {call.id for call in reading_calls(recipe, [turned], prompts.load())} == {call.id for call in calls}
    other = recipe.model_copy(update={"seed": 2})
    assert {call.subject for call in reading_calls(other, documents, prompts.load())} != {
        call.subject for call in calls
    }
    assert count(recipe_of(passage_chars=600, max_passages=99), documents) == 6


def test_all_teachers_are_asked_the_same(documents):
    recipe = recipe_of(("one", "two"), passage_chars=600, assign="all")
    calls = list(reading_calls(recipe, documents, prompts.load()))
    assert len(calls) == count(recipe, documents) == 12
    assert calls[0].messages == calls[1].messages and [call.teacher for call in calls[:2]] == ["one", "two"]


def test_an_exercise_with_its_passage_can_be_read_again_and_learned_from(tmp_path):
    exercise = Exercise(
        "眠気の頻度はどれか。1つ選べ。", {label: f"{place}.2%" for place, label in enumerate("abcde", 1)}, ("c",),
        "文章に眠気は3.2%とあり、cが正しい。",
    )  # fmt: skip
    passage = passages(Document(INSERT, "rensho"), 600)[0].text
    whole = with_passage(exercise, passage)
    assert (
        passage in whole.question and whole.question.endswith(exercise.question) and whole.options == exercise.options
    )
    again = parse(as_text(whole))
    assert isinstance(again, Exercise) and again.answer == ("c",) and again.options == exercise.options
    file = tmp_path / "reading.jsonl"
    file.write_text(json.dumps(as_row(whole), ensure_ascii=False), encoding="utf-8")
    user, assistant = read_instructions(file, read_template("alpaca"))[0].messages
    assert passage in user.content and assistant.content.startswith("3.2%\nc")
