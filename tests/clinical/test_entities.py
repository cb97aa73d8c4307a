"""Extraction: asked as in tuning and evaluation, places in the raw text, long texts in passages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clinical.toy_opened import SHORT, opened, prompt_of
from rinsho.clinical import Extraction, kinds_of
from rinsho.clinical.entities import LONGEST_PASSAGE, MAX_NEW_TOKENS, places
from rinsho.clinical.passages import Sight, cut
from rinsho.errors import UserError
from rinsho.generate.jobs import Spans
from rinsho.tasks.asking import Asking
from rinsho.tasks.jmed import read_test
from rinsho.text import clean
from tasks.toy_jmed import write_csv
from toy_models import toy_tokenizer

NOTE = "７６歳男性．胃癌術後．　ﾌﾟﾚﾄﾞﾆﾝ５㎎内服中，３８．５℃の発熱😭を認め，ＣＴで肺炎像あり．連絡先 090-1234-5678 肺炎の疑い．"
QUESTION = "以下の症例報告において、患者に実際に認められた病変や症状の存在を示す異常などの所見を表す表現は？"


@pytest.mark.parametrize("manifest", [{}, SHORT], ids=["benchmark", "short"])
def test_it_asks_as_evaluation_does(tokenizer: Any, tmp_path: Path, manifest: dict[str, Any]) -> None:
    rows = [
        ["d", f"{QUESTION}\n「{NOTE}」", "['発熱']"],
        ["m-key", "以下の症例報告において、薬品名は？\n「ﾌﾟﾚﾄﾞﾆﾝ」", "['a']"],
    ]
    columns = ["tag", "question", "answer"]
    write_csv(tmp_path / "datasets/mrner_disease.csv", columns, rows[:1])
    write_csv(tmp_path / "datasets/mrner_medicine.csv", columns, rows[1:])
    found = opened(tokenizer, manifest)
    asking = Asking(found, "letter", prompt_form="short" if manifest else "benchmark")
    for item, kind in zip(read_test(tmp_path), ("disease", "medicine"), strict=True):
        asked = Extraction(found, item.passage, [kind])
        assert [prompt_of(job) for job in asked.jobs] == [asking.fit(item)[0]]
        assert asked.prompt_tokens == len(asking.fit(item)[0]) and asked.passages == 1


def test_places_are_those_of_the_raw_text(tokenizer: Any) -> None:
    asked = Extraction(opened(tokenizer), NOTE, ["disease", "medicine", "value"])
    disease = [("胃癌", 0.9), ("発熱", 0.8), ("肺炎", 0.4), ("肺", 0.3), ("。", 0.2)]
    found = asked.entities([Spans(disease, True), Spans([("プレドニン5mg", 0.7), ("mg", 0.1)], True)])
    assert [(entity.kind, entity.text, entity.probability, entity.source) for entity in found] == [
        ("disease", "胃癌", 0.9, "model"), ("medicine", "ﾌﾟﾚﾄﾞﾆﾝ５㎎", 0.7, "model"), ("value", "５㎎", None, "rule"),
        ("value", "３８．５℃", None, "rule"), ("disease", "発熱", 0.8, "model"), ("disease", "肺炎", 0.4, "model"),
        ("disease", "肺炎", 0.4, "model"),
    ]  # fmt: skip
    assert all(NOTE[entity.start : entity.end] == entity.text for entity in found)
    assert [entity.unsure() for entity in found] == [False] * 5 + [True] * 2
    assert found[-1].row(0.3) == {
        "kind": "disease", "text": "肺炎", "start": NOTE.rindex("肺炎"), "end": NOTE.rindex("肺炎") + 2,
        "probability": 0.4, "unsure": False, "source": "model",
    }  # fmt: skip


def test_every_part_of_the_clean_text_is_found_in_the_raw_one() -> None:
    sight = Sight(NOTE, True)
    for start in range(len(sight.seen)):
        for end in range(start + 1, len(sight.seen) + 1):
            first, last = sight.raw_span(start, end)
            seen, part = sight.seen[start:end], clean(NOTE[first:last])
            if "連絡先" not in seen:  # a number is personal data only where a word says so
                # a full-width period is that of a number only between figures
                assert seen.strip().replace(".", "。") in part.replace(".", "。") and len(part) <= len(seen) + 3
    assert Sight("発熱😭", True).raw_span(0, 2) == (0, 2) and Sight("㎎", True).raw_span(1, 2) == (0, 1)


def test_models_of_others_see_the_raw_text() -> None:
    tokenizer = toy_tokenizer()
    tokenizer.chat_template = (
        "{% for message in messages %}{{ message['role'] + ':' + message['content'] + eos_token }}{% endfor %}"
    )
    asked = Extraction(opened(tokenizer), "発熱　あり。CT。", ["disease"])
    found = asked.entities([Spans([("発熱　あり", 0.5), ("CT", 0.5)], True)])
    assert [entity.text for entity in found] == ["発熱　あり", "CT"]


def test_whole_words_are_preferred() -> None:
    sight = Sight("CTRはCTで測る。SpO2", False)
    assert list(places(sight, [("CT", 1.0), ("S", 1.0)])) == [(4, 6), (10, 11)]


@given(st.text(alphabet="あ。、 \nﾌﾟ５㎎", max_size=80), st.integers(1, 20))
def test_cuts_lose_nothing(text: str, size: int) -> None:
    parts = cut(text, lambda part: len(part) <= size)
    assert "".join(text[start:end] for start, end in parts) == text
    assert all(end - start <= size for start, end in parts)


def test_cuts_are_between_sentences_where_they_can_be() -> None:
    text = "発熱「あり。」と言う．咳、痰あり．胸水なし．" * 5
    starts = [start for start, _ in cut(text, lambda part: len(part) <= 30)]
    assert len(starts) > 3 and all(start == 0 or text[start - 1] == "．" for start in starts)
    sentence = "あ" * 9 + "、" + "い" * 12
    assert cut(sentence, lambda part: len(part) <= 12) == [(0, 10), (10, 22)]


def test_a_long_text_is_asked_in_passages_that_fit(tokenizer: Any) -> None:
    found = opened(tokenizer, SHORT, window=1024)
    text = NOTE * 40
    asked = Extraction(found, text, ["disease"])
    assert asked.passages == len(asked.jobs) > 2
    assert all(len(prompt_of(job)) + MAX_NEW_TOKENS <= 1024 for job in asked.jobs)
    entities = asked.entities([Spans([("胃癌", 0.5)], True)] * len(asked.jobs))
    starts = [place for place in range(len(text)) if text.startswith("胃癌", place)]
    assert [entity.start for entity in entities] == starts


def test_no_passage_is_longer_than_those_of_the_benchmark(tokenizer: Any) -> None:
    found = opened(tokenizer, SHORT, window=1 << 16)
    sentence = "発熱あり。"
    whole = sentence * (LONGEST_PASSAGE // len(sentence))
    assert Extraction(found, whole, ["disease"]).passages == 1
    asked = Extraction(found, whole + "咳嗽あり。" * 3, ["disease"])
    assert asked.passages == len(asked.jobs) == 2
    last = asked.entities([Spans([], True), Spans([("咳嗽", 0.5)], True)])
    assert [entity.start for entity in last] == [len(whole), len(whole) + 5, len(whole) + 10]


def test_an_answer_that_was_cut_off_is_told(model: Path) -> None:
    from rinsho.generate.batcher import Batcher
    from rinsho.generate.opening import open_model

    found = open_model(model, slots=2, form="float32")
    asked = Extraction(found, "発熱あり。", ["disease"], max_new_tokens=1)
    asked.entities(Batcher(found.decoder).run(asked.jobs))
    assert asked.cut
    found.decoder.close()


def test_one_cut_answer_of_several_is_enough(tokenizer: Any) -> None:
    asked = Extraction(opened(tokenizer), "発熱", ["disease", "medicine"])
    for wholes in ((True, True), (True, False), (False, True)):
        asked.entities([Spans([], whole) for whole in wholes])
        assert asked.cut != all(wholes)


def test_kinds(tokenizer: Any, base: Any) -> None:
    assert kinds_of(opened(tokenizer)) == ("disease", "medicine", "value")
    assert kinds_of(opened(tokenizer, SHORT)) == ("disease", "medicine", "finding", "value")
    assert kinds_of(base) == ("value",)
    assert [entity.text for entity in Extraction(base, "CRP 3.1").entities([])] == ["CRP 3.1"]
    assert Extraction(opened(tokenizer), " \n").jobs == []
    with pytest.raises(UserError, match="unknown kind of entity; expected one of disease, ") as told:
        Extraction(opened(tokenizer, SHORT), "発熱", ["田中花子"])
    assert "田中" not in str(told.value)
    with pytest.raises(UserError, match="expected one of disease, medicine, value"):
        Extraction(opened(tokenizer), "発熱", ["finding"])
    with pytest.raises(UserError, match="base model"):
        Extraction(base, "発熱", ["disease"])
    with pytest.raises(UserError, match="fills the model's window"):
        Extraction(opened(tokenizer, window=64), "発熱あり。", ["disease"])
    with pytest.raises(UserError, match="unknown answer_form or prompt_form"):
        Extraction(opened(tokenizer, {"finetune": {"prompt_form": "long"}}), "発熱")
