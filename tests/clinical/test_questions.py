"""Classes with shares, tasks of one's own, tokens, training rows."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from clinical.toy_opened import SHORT, opened, prompt_of
from rinsho.chat import messages_from
from rinsho.clinical import Classification, Extraction, own_question, tokens, training_row, training_rows
from rinsho.clinical.questions import ANY_CLASS, any_class
from rinsho.errors import UserError
from rinsho.generate.jobs import Spans
from rinsho.instructions import read_instructions
from rinsho.prompting import read_template
from rinsho.tasks.asking import Asking
from rinsho.tasks.own import read_tests
from rinsho.text import clean
from tasks.toy_jmed import write_csv
from toy_models import toy_tokenizer

OPTIONS = ["感染症", "腫瘍", "その他"]


def own(folder: Path, text: str, rows: list[list[str]]) -> Path:
    write_csv(folder / "rows.csv", ["note", "passage", "answer"], rows)
    path = folder / "task.yaml"
    path.write_text("test: rows.csv\nquestion: note\nanswer: answer\n" + text, encoding="utf-8")
    return path


def test_classes_have_the_shares_that_the_engine_gives(model: Path) -> None:
    from rinsho.generate.batcher import Batcher
    from rinsho.generate.engine import Generator
    from rinsho.generate.opening import open_model

    found, engine = open_model(model, slots=2, form="float32"), Generator(model)
    asked = [Classification(found, text, OPTIONS) for text in ("発熱と咳嗽あり。", "胃癌。")]
    results = Batcher(found.decoder).run([one.job for one in asked])
    shares = [one.shares(result) for one, result in zip(asked, results, strict=True)]
    for text, given in zip(("発熱と咳嗽あり。", "胃癌。"), shares, strict=True):
        asking = Asking(engine, "letter")
        item = class_item(text)
        weights = [math.exp(value) for value in engine.choose([asking.prompt(item)], [asking.options(item)])[0]]
        assert given == pytest.approx([weight / sum(weights) for weight in weights], abs=1e-4)
        assert sum(given) == pytest.approx(1)
    found.decoder.close()


def class_item(text: str) -> Any:
    return any_class(OPTIONS).item(text, gold=("A",))


def test_a_text_that_is_too_long_loses_its_middle(tokenizer: Any) -> None:
    asked = Classification(opened(tokenizer, window=400), "発熱あり。" * 400, OPTIONS)
    assert asked.shortened and len(prompt_of(asked.job)) <= 400
    with pytest.raises(UserError, match=r"window of 300 tokens: \d+ are left for a text; expected at least 32"):
        Classification(opened(tokenizer, window=300), "発熱あり。" * 400, OPTIONS)
    assert not Classification(opened(tokenizer), "発熱あり。", OPTIONS).shortened


def test_only_the_text_is_shortened(tokenizer: Any) -> None:
    found, text = opened(tokenizer, window=1024), "発熱あり。" * 50 + "胃癌術後。" * 400 + "肺炎像。" * 50
    options = [f"第{number}群の疾患である" for number in range(26)]
    read = found.tokenizer.decode(prompt_of(Classification(found, text, options).job))
    assert all(option in read for option in options) and clean(ANY_CLASS) in read
    assert "発熱あり" in read and "肺炎像" in read and "胃癌" not in read
    with pytest.raises(UserError, match="question and options fill the model's window") as told:
        Classification(opened(tokenizer, window=200), text, options)
    assert "疾患" not in str(told.value)
    with pytest.raises(UserError, match="fill the model's window"):
        Classification(opened(tokenizer, window=8), "", options)


@pytest.mark.parametrize("options", [["感染症"], ["a", "a"], ["a", " "], [str(n) for n in range(27)]])
def test_wrong_options(tokenizer: Any, options: list[str]) -> None:
    with pytest.raises(UserError, match="options: "):
        Classification(opened(tokenizer), "発熱", options)


def test_commas_between_options(tokenizer: Any) -> None:
    for given in ("感染症,腫瘍", "感染症、腫瘍"):
        with pytest.raises(UserError, match=r"1 options.*separate them by spaces"):
            Classification(opened(tokenizer), "発熱", [given])
    Classification(opened(tokenizer), "発熱", ["発熱、咳嗽", "腫瘍"])


def test_a_question_without_tuning_has_a_note(tokenizer: Any) -> None:
    found = opened(tokenizer, SHORT)
    assert "names no tuning on this question" in (Classification(found, "発熱", OPTIONS).note or "")
    question = replace(any_class(OPTIONS), task="nrner")
    assert Classification(found, "発熱", question=question).note is None


def test_twenty_six_options(tokenizer: Any) -> None:
    asked = Classification(opened(tokenizer), "発熱", [f"群{n}" for n in range(26)])
    assert asked.shares([-1.0] * 25 + [0.0])[-1] == pytest.approx(1 / (1 + 25 * math.exp(-1)))


def test_a_task_of_ones_own_is_asked_of_other_texts(tokenizer: Any, tmp_path: Path) -> None:
    text = "name: side\nkind: entities\npassage: passage\nsystem: 副作用を挙げてください。\n"
    path = own(tmp_path, text, [["副作用は？", "発疹あり。", "['発疹']"], ["副作用は？", "嘔気。", "['嘔気']"]])
    question, found = own_question(path, "entities"), opened(tokenizer)
    asking = Asking(found, "letter")
    for item in read_tests(path):
        (job,) = Extraction(found, item.passage, [question]).jobs
        assert prompt_of(job) == asking.fit(item)[0]
    (entity,) = Extraction(found, "嘔気", [question]).entities([Spans([("嘔気", 0.5)], True)])
    assert entity.kind == "side"
    with pytest.raises(UserError, match="a task of kind entities"):
        own_question(path, "classification")


def test_a_classification_of_ones_own(tokenizer: Any, tmp_path: Path) -> None:
    text = 'name: triage\nkind: classification\noptions: [経過観察, 救急要請]\nprompt: "相談: {question}\\n{options}"\n'
    path = own(tmp_path, text, [["胸痛あり。", "", "B"], ["鼻水。", "", "A"]])
    found = opened(tokenizer, SHORT)
    question = own_question(path, "classification")
    for item in read_tests(path):
        asked = Classification(found, item.question, question=question)
        assert asked.options == ("経過観察", "救急要請")
        assert prompt_of(asked.job) == Asking(found, "letter", prompt_form="short").fit(item)[0]


def test_a_question_that_differs_from_row_to_row_is_refused(tokenizer: Any, tmp_path: Path) -> None:
    text = "name: side\nkind: entities\npassage: passage\n"
    path = own(tmp_path, text, [["副作用は？", "発疹あり。", "['発疹']"], ["薬は？", "嘔気。", "['嘔気']"]])
    with pytest.raises(UserError, match="not the same in every row"):
        own_question(path, "entities")


def test_the_place_of_the_passage_is_the_one_that_all_rows_have(tokenizer: Any, tmp_path: Path) -> None:
    text = "name: side\nkind: entities\npassage: passage\n"
    cough = ["咳の有無は？\n「咳」", "咳", "[]"]
    path = own(tmp_path, text, [cough, ["咳の有無は？\n「発熱と咳嗽」", "発熱と咳嗽", "[]"]])
    question = own_question(path, "entities")
    assert (question.before, question.after) == ("咳の有無は？\n「", "」")
    with pytest.raises(UserError, match="more than once"):
        own_question(own(tmp_path, text, [cough]), "entities")


@pytest.mark.parametrize("ours", [True, False])
def test_tokens_have_their_places(tokenizer: Any, ours: bool) -> None:
    text = "ﾌﾟﾚﾄﾞﾆﾝ５㎎😭\n鼻漏" if ours else "肺癌、発熱 鼻"
    found = opened(tokenizer if ours else toy_tokenizer())
    rows = tokens(found, text)
    assert [row["id"] for row in rows] == found.encode(text)
    assert all(0 <= row["start"] < row["end"] <= len(text) and row["piece"] for row in rows)
    spelt = "".join(row["piece"] for row in rows)
    assert "プ" in spelt and "<0x" in spelt if ours else spelt.startswith("肺癌、発熱 <0xE9><0xBC><0xBB>")


@pytest.mark.parametrize("manifest", [{}, SHORT], ids=["benchmark", "short"])
def test_training_rows_ask_what_extraction_asks(tokenizer: Any, tmp_path: Path, manifest: dict[str, Any]) -> None:
    found = opened(tokenizer, manifest)
    text = "７６歳男性．\n「胃癌」術後，ﾌﾟﾚﾄﾞﾆﾝ５㎎．it's"
    row = training_row(found, text, "medicine", ["ﾌﾟﾚﾄﾞﾆﾝ", "it's", "ﾌﾟﾚﾄﾞﾆﾝ"])
    assert row["messages"][-1] == {"role": "assistant", "content": "['ﾌﾟﾚﾄﾞﾆﾝ', 'it\\'s']"}
    (job,) = Extraction(found, text, ["medicine"]).jobs
    assert prompt_of(job) == found.render(messages_from(row["messages"])[:-1], add_generation_prompt=True)[0]
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row, ensure_ascii=False) + "\n", encoding="utf-8")
    (read,) = read_instructions(path, read_template("none"))
    assert list(read.messages) == messages_from(row["messages"])
    with pytest.raises(UserError, match="kind: unknown kind of entity; expected one of disease"):
        training_row(found, text, "value", ["5mg"])


def test_training_rows_teach_no_words_that_are_not_in_the_text(tokenizer: Any) -> None:
    found = opened(tokenizer, SHORT)
    for make in (training_row, training_rows):
        with pytest.raises(UserError, match=r"^entities\[1\] is not in the text") as caught:
            make(found, "肺癌の疑い。", "disease", ["肺癌", "胃癌"])
        assert "癌" not in str(caught.value)  # of a document nothing is said


def test_a_long_text_gives_a_row_for_each_passage(tokenizer: Any) -> None:
    found = opened(tokenizer, SHORT, window=1024)
    text = "発熱あり。" * 200 + "胃癌。"
    rows = training_rows(found, text, "disease", ["胃癌", "発熱"])
    asked = Extraction(found, text, ["disease"])
    prompts = [found.render(messages_from(row["messages"])[:-1], add_generation_prompt=True)[0] for row in rows]
    assert prompts == [prompt_of(job) for job in asked.jobs] and len(rows) > 1
    answers = [row["messages"][-1]["content"] for row in rows]
    assert answers == ["['発熱']"] * (len(rows) - 1) + ["['胃癌', '発熱']"]
