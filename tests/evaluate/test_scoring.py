"""Stored answers -> rows: readings, spelling of spans, cases, baselines, and the time it takes."""

from __future__ import annotations

import json
import random
import time
from dataclasses import replace
from pathlib import Path

import pytest

from rinsho.evaluate import harness_utils
from rinsho.evaluate.inputs import read_answers
from rinsho.evaluate.scoring import Baselines, Scoring, judge
from rinsho.tasks import Item, prompts, score
from rinsho.tasks.item import document_key, rotated
from rinsho.tasks.score import own_spelling

CRADE = Item(
    "crade/0",
    "crade",
    "choice",
    "disease",
    prompts.CHOICE,
    "",
    ("無関係", "低い", "おそらく", "確実"),
    ("B",),
    "",
    "d",
    ordered=True,
)
NRNER = Item(
    "nrner/0", "nrner", "entities", "m-val", prompts.ENTITIES, "", (), ("５ｍｇ",), "甲錠５ｍｇを内服。発熱なし。", "e"
)


def answer(text: str, form: str = "letter", mode: str = "free") -> dict:
    return {"answer": text, "form": form, "mode": mode}


def test_text_then_letter_is_read_from_the_last_line() -> None:
    rows = [answer("ADEの可能性は低い\nB", "text_letter")]
    judged = judge([CRADE], rows, "free", 10, 1)
    assert judged.values == (1.0,)
    assert judged.also["accuracy_official"] == 0.0
    letter_only = judge([CRADE], [answer("ADEの可能性は低い\nB")], "free", 10, 1)
    assert letter_only.values == (0.0,)
    assert letter_only.also["accuracy_strict"] == 1.0


def test_each_answer_is_read_by_its_own_form() -> None:
    asked = replace(CRADE, task="smdis", options=("発熱あり", "ADE"), ordered=False)
    rows = [answer("ADE\nB", "text_letter"), answer("Bだと思います")]
    for order in (rows, rows[::-1], [{}, *rows]):
        judged = judge([asked] * len(order), order, "free", 0, 1)
        assert judged.given == tuple("B" if row else "None" for row in order)
    assert judge([asked], [answer("ADE\nB")], "free", 0, 1).given == ("A",)


def test_only_the_benchmark_is_read_by_its_first_letter() -> None:
    asked = replace(CRADE, id="usmle/step1/00001", task="usmle", ordered=False)
    said = {"Answer: B": "B", "Based on age": "None", "The answer is (B)": "B", "ADE": "None", "低い": "B", "B": "B"}
    for text, letter in said.items():
        assert judge([asked], [answer(text)], "free", 0, 1).given == (letter,)
    assert judge([CRADE], [answer("Answer: B")], "free", 0, 1).given == ("A",)  # the benchmark's own rule
    also = judge([asked], [answer("B")], "free", 0, 1).also
    assert "accuracy_official" not in also and "accuracy_strict" in also


def test_the_harness_reads_free_answers_as_we_do() -> None:
    draw = random.Random(7)
    pieces = ["Answer:", "答え", "：", "は", "The answer is", " ", "\n", "A", "Ｂ", "(C)", "D", "E", "a", "b", ",", "、", "と",
              " and ", "ではない", "Based on", "**", "低い", "確実", "。", ". ", "ADE", "選択肢", "です", "A,C",
              "AとC", "x" * 17_000]  # fmt: skip
    upper = replace(CRADE, task="triage", ordered=False)
    lower = replace(upper, wording=replace(prompts.CHOICE, first_letter="a"), gold=("b",))
    several = replace(upper, gold=("A", "C"))
    same = replace(upper, options=("低い", "低い", "確実", "A"))
    read = set()
    for asked in (upper, lower, several, same):
        letters = prompts.CHOICE.letters(4) if asked is not lower else tuple("abcd")
        doc = {"accepted": [",".join(asked.gold)], "letters": list(letters), "options": list(asked.options),
               "always_right": False}  # fmt: skip
        for _ in range(2_000):
            text = "".join(
                draw.choice(pieces[: -1 if draw.random() < 0.97 else None]) for _ in range(draw.randint(0, 6))
            )
            ours = judge([asked], [answer(text)], "free", 0, 1)
            theirs = harness_utils.free_choice(doc, [text])
            assert (theirs["kappa"][1], theirs["acc"]) == (ours.given[0], ours.values[0]), ascii(text)
            read.add(ours.given[0])
    assert len(read) >= 10
    jmed = {"accepted": ["B"], "letters": [*"ABCD"], "options": [], "always_right": False}
    assert harness_utils.free_choice(jmed, ["Answer: B"])["kappa"] == ("B", "A")
    assert harness_utils._CUED.pattern == score._CUED.pattern
    assert harness_utils._LETTER_ALONE.pattern == score._LETTER_ALONE.pattern


def test_a_missing_answer_is_wrong() -> None:
    judged = judge([CRADE, replace(CRADE, id="crade/1")], [{}, answer("B")], "free", 10, 1)
    assert judged.values == (0.0, 1.0)
    assert judged.also["answer_rate"] == 0.5


def test_spans_go_back_to_the_passages_own_spelling() -> None:
    judged = judge([NRNER], [answer("['5mg']")], "free", 10, 1)
    assert judged.values == (1.0,)
    assert judged.also["official_exact_f1"] == 0.0
    assert judge([NRNER], [answer("['５ｍｇ']")], "free", 10, 1).values == (1.0,)
    assert own_spelling(NRNER.passage, ["発熱", "肺炎", "", 5]) == ["発熱", "肺炎", "", 5]


def test_rows_carry_chance_interval_baselines_and_cases() -> None:
    items = [replace(CRADE, id=f"crade/{n}", cases=("negated",) if n < 4 else (), document=str(n)) for n in range(20)]
    answers = {(item.id, "free", 0): answer("B" if n >= 4 else "A") for n, item in enumerate(items)}
    base = Baselines({i.id: "B" for i in items}, {i.id: "A" for i in items})
    scoring = Scoring(answers, base, 200, 1)
    tables = scoring.tables(items, ["free", "constrained"])
    row = tables["scores"][0]
    assert (row["n"], row["score"], row["chance"], row["above_chance"]) == (20, 0.8, 0.25, True)
    assert row["interval"][0] < 0.8 < row["interval"][1]
    assert row["baselines"] == {"majority": 1.0, "naive_bayes": 0.0}
    (case,) = [row for row in tables["cases"] if row["mode"] == "free"]
    assert (case["group"], case["n"], case["score"], case["above_chance"]) == ("negated", 4, 0.0, False)
    (tag,) = [row for row in tables["tags"] if row["mode"] == "free"]
    assert (tag["group"], tag["n"]) == ("disease", 20)
    assert tables["scores"][1]["mode"] == "constrained" and tables["scores"][1]["score"] == 0


def test_several_right_letters_are_all_or_nothing() -> None:
    asked = replace(CRADE, task="triage", ordered=False, gold=("A", "C"))
    items = [replace(asked, id=f"triage/{n}") for n in range(4)]
    said = ["C, A", "説明\nA,C", "A", "A,B,C"]
    answers = {(item.id, "free", 0): answer(text) for item, text in zip(items, said, strict=True)}
    tables = Scoring(answers, Baselines({i.id: "A,C" for i in items}), 10, 1).tables(items, ["free"])
    row = tables["scores"][0]
    assert (row["score"], row["chance"], row["baselines"]) == (0.5, 1 / 6, {"majority": 1.0})
    by_label = {line["label"]: line for line in tables["classes"]}
    assert [by_label[name]["given"] for name in "ABCD"] == [4, 1, 3, 0]
    assert (by_label["C"]["recall"], by_label["B"]["precision"], by_label["B"]["recall"]) == (0.75, 0.0, None)


def test_more_than_six_options() -> None:
    asked = replace(CRADE, task="triage", options=tuple("一二三四五六七八"), gold=("H",))
    assert judge([asked], [answer("H")], "free", 10, 1).values == (1.0,)
    assert judge([CRADE], [answer("GHB")], "free", 10, 1).values == (1.0,)  # six or fewer: A to F, as the original


def test_classes_have_every_label_and_none() -> None:
    items = [replace(CRADE, id=f"crade/{n}", gold=(gold,)) for n, gold in enumerate("AABBC")]
    said = ["A", "B", "B", "わからない", "F"]
    answers = {(item.id, "free", 0): answer(text) for item, text in zip(items, said, strict=True)}
    rows = Scoring(answers, Baselines(), 10, 1).tables([*items, NRNER], ["free"])["classes"]
    assert [row["label"] for row in rows] == ["A", "B", "C", "D", "F", "None"]
    assert {row["task"] for row in rows} == {"crade"} and {row["mode"] for row in rows} == {"free"}
    first, last = rows[0], rows[-1]
    assert (first["gold"], first["given"], first["precision"], first["recall"]) == (2, 1, 1.0, 0.5)
    assert first["f1"] == pytest.approx(2 / 3)
    assert (last["gold"], last["given"], last["precision"], last["recall"], last["f1"]) == (0, 1, 0.0, None, 0.0)
    assert (rows[3]["gold"], rows[3]["given"], rows[3]["f1"]) == (0, 0, None)


def test_steps_and_tags_with_odd_names_are_rows() -> None:
    tags = ["step1", "step2&3", "<b>|"]
    items = [replace(CRADE, id=f"usmle/{n}", task="usmle", tag=tags[n % 3], ordered=False) for n in range(9)]
    answers = {(item.id, "free", 0): answer("B" if n < 5 else "A") for n, item in enumerate(items)}
    rows = Scoring(answers, Baselines(), 10, 1).tables(items, ["free"])["tags"]
    assert {row["group"]: (row["n"], row["score"]) for row in rows} == {
        "step1": (3, 2 / 3), "step2&3": (3, 2 / 3), "<b>|": (3, 1 / 3)
    }  # fmt: skip


def test_tags_of_entities_have_the_overlap() -> None:
    tables = Scoring({(NRNER.id, "free", 0): answer("['５ｍ']")}, Baselines(), 10, 1).tables([NRNER], ["free"])
    (row,) = tables["tags"]
    assert (row["score"], row["overlap_f1"]) == (0.0, 0.8) and tables["scores"][0]["also"]["overlap_f1"] == 0.8
    assert tables["scores"][0]["rotation"] is None


def test_rotation_tells_what_is_chosen_from_where_it_stands() -> None:
    items = [replace(CRADE, id=f"crade/{n}", gold=("ABCD"[n % 4],)) for n in range(8)]
    turns = range(4)
    stubborn = {(i.id, "free", turn): answer("A") | {"rotation": turn} for i in items for turn in turns}
    knowing = {
        (i.id, "free", turn): answer(rotated(i, turn).gold[0]) | {"rotation": turn} for i in items for turn in turns
    }
    silent = {key: answer("?") | {"rotation": key[2]} for key in stubborn}
    for answers, mean, lowest, same in ((stubborn, 0.25, 0.25, 0.0), (knowing, 1.0, 1.0, 1.0), (silent, 0.0, 0.0, 0.0)):
        found = Scoring(answers, Baselines(), 10, 1).tables(items, ["free"])["scores"][0]["rotation"]
        assert found == {"orders": 4, "mean": mean, "lowest": lowest, "same_answer": same}
    tuned = {key: row | {"form": "text_letter", "answer": f"おそらく\n{row['answer']}"} for key, row in knowing.items()}
    assert Scoring(tuned, Baselines(), 10, 1).tables(items, ["free"])["scores"][0]["rotation"]["mean"] == 1.0


def test_rotation_where_questions_have_fewer_options_or_none() -> None:
    """An order that a question is too short for is one it was asked in already; a calculation keeps its answer."""
    two = replace(
        CRADE, id="igakuqa/1", task="igakuqa", wording=prompts.EXAM, options=("左", "右"), gold=("a",), year=2018
    )
    three = replace(two, id="igakuqa/2", options=("左", "右", "無"), gold=("a", "c"))
    number = replace(two, id="igakuqa/3", kind="number", wording=prompts.EXAM_NUMBER, options=(), gold=("26",))
    answers = {(number.id, "free", 0): answer("26")}
    for asked, turns in ((two, 2), (three, 3)):
        for turn in range(turns):
            said = ",".join(rotated(asked, turn).gold) if (asked, turn) != (two, 1) else "a"  # wrong in that order
            answers[asked.id, "free", turn] = answer(said) | {"rotation": turn}
    row = Scoring(answers, Baselines(), 10, 1).tables([two, three, number], ["free"])["scores"][0]
    assert row["score"] == 1.0
    assert row["rotation"] == {
        "orders": 3,
        "mean": pytest.approx(8 / 9),
        "lowest": pytest.approx(2 / 3),
        "same_answer": 0.5,
    }


def test_undefined_kappa_is_null_in_the_tables() -> None:
    item = replace(CRADE, gold=("A",))
    row = Scoring({(item.id, "free", 0): answer("A")}, Baselines(), 10, 1).tables([item], ["free"])["scores"][0]
    assert row["also"]["kappa"] is None and row["kappa_interval"] is None


def test_a_hundred_thousand_answers_take_seconds() -> None:
    passage = "右肺癌に対して甲錠５ｍｇを内服中の患者。咳嗽と発熱を認め、胸水と胸膜肥厚がある。" * 10
    gold = ("右肺癌", "咳嗽", "発熱", "胸水", "胸膜肥厚")
    said = ["['肺癌', '咳嗽', '発熱', '胸膜肥厚', '患者']", "['右肺癌', '高熱']", "肺癌", "['咳嗽' '発熱']"]
    lists = [
        replace(NRNER, id=f"nrner/{n}", gold=gold, passage=passage, document=document_key(str(n % 500)))
        for n in range(50_000)
    ]
    choices = [replace(CRADE, id=f"crade/{n}", document=str(n % 500)) for n in range(50_000)]
    started = time.process_time()
    judge(lists, [answer(said[n % 4]) for n in range(50_000)], "free", 1, 1)
    judge(choices, [answer("B" if n % 3 else "確実\nD") for n in range(50_000)], "free", 1, 1)
    seconds = time.process_time() - started
    print(f"scoring 100,000 answers: {seconds:.1f} s")
    assert seconds < 10  # of one core


HOSTILE = {
    "10 MB without a letter": "あ" * 3_400_000,
    "10 MB with a wrong letter": "A" + "あ" * 3_400_000,
    "10 MB of commas": "," * 10_000_000,
    "10 MB of lines": "\n" * 10_000_000,
    "nested lists": "[" * 100_000,
    "nested lists that close": "[" * 100_000 + "]" * 100_000,
    "nested lists that could be short enough": "[" * 8_000 + "]" * 8_000,
    "code": "__import__('pathlib').Path(OWNED).touch()",
    "code in a list": "[__import__('pathlib').Path(OWNED).touch()]",
    "code in a format string": "[f'{__import__(\"pathlib\").Path(OWNED).touch()}']",
    "a bomb": "['x' * 10**10, 9**9**9]",
    "control characters": "\x01\x02\x1b[2J['a']\x7f",
    "lone surrogate": "['\ud800']",
    "lone surrogate alone": "\udfff",
    "null": "['a\x00']",
    "right to left": "\u202e]'A'[\u2066",
    "escaped surrogates": "['\\ud800', '\\udfff\\ud800']",
    "numbers": "[1, 2.0, None, ('x',), ..., b'x', 1e999, -0.0]",
    "many entities": "[" + ",".join(f"'肺{number}'" for number in range(2_000)) + "]",
    "one long entity": "['" + "発熱なし" * 4_000 + "']",
    "nothing": "",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_answers_are_wrong_quickly_and_run_nothing(name: str, tmp_path: Path) -> None:
    """From the file of answers to the tables: an answer takes its time from no other, and nothing in it is run."""
    owned = tmp_path / "owned"
    text = HOSTILE[name].replace("OWNED", repr(str(owned)))
    exam = replace(CRADE, id="igakuqa/112A1", task="igakuqa", wording=prompts.EXAM, gold=("b",), year=2018)
    number = replace(exam, id="igakuqa/112A2", kind="number", wording=prompts.EXAM_NUMBER, options=(), gold=("26",))
    items = [CRADE, replace(CRADE, id="triage/0", task="triage", gold=("A", "C")), NRNER, exam, number]
    path = tmp_path / "answers.jsonl"
    path.write_text(json.dumps({"id": CRADE.id, "answer": text}) + "\n", encoding="utf-8")
    row = read_answers(path)[CRADE.id, "free", 0]
    for item in items:
        started = time.process_time()
        tables = Scoring({(item.id, "free", 0): row}, Baselines(), 10, 1).tables([item], ["free"])
        assert time.process_time() - started < 1
        assert tables["scores"][0]["score"] == 0
        json.dumps(tables)
    assert not owned.exists()


def test_the_official_rule_reads_the_first_letter_of_ten_megabytes() -> None:
    assert judge([CRADE], [answer("あ" * 3_400_000 + "B")], "free", 1, 1).values == (1.0,)
