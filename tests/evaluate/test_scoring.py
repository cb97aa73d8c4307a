"""Stored answers -> rows: readings, spelling of spans, cases, baselines, and the time it takes."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from rinsho.evaluate.scoring import Baselines, Scoring, judge
from rinsho.tasks import Item
from rinsho.tasks.item import document_key
from rinsho.tasks.score import own_spelling

CRADE = Item(
    "crade/0", "crade", "choice", "disease", "", "", "", ("無関係", "低い", "おそらく", "確実"), ("B",), "", "d"
)
NRNER = Item("nrner/0", "nrner", "entities", "m-val", "", "", "", (), ("５ｍｇ",), "甲錠５ｍｇを内服。発熱なし。", "e")


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


def test_rows_carry_chance_interval_baselines_cases_and_leaks() -> None:
    items = [replace(CRADE, id=f"crade/{n}", cases=("negated",) if n < 4 else (), document=str(n)) for n in range(20)]
    answers = {(item.id, "free"): answer("B" if n >= 4 else "A") for n, item in enumerate(items)}
    base = Baselines({i.id: "B" for i in items}, {i.id: "A" for i in items})
    scoring = Scoring(answers, base, 200, 1, frozenset(item.id for item in items[:4]))
    tables = scoring.tables(items, ["free", "constrained"])
    row = tables["scores"][0]
    assert (row["n"], row["score"], row["chance"], row["above_chance"]) == (20, 0.8, 0.25, True)
    assert row["interval"][0] < 0.8 < row["interval"][1]
    assert row["baselines"] == {"majority": 1.0, "naive_bayes": 0.0}
    assert (row["leaked"], row["clean"]) == ({"n": 4, "score": 0.0}, {"n": 16, "score": 1.0})
    (case,) = [row for row in tables["cases"] if row["mode"] == "free"]
    assert (case["group"], case["n"], case["score"], case["above_chance"]) == ("negated", 4, 0.0, False)
    (tag,) = [row for row in tables["tags"] if row["mode"] == "free"]
    assert (tag["group"], tag["n"]) == ("disease", 20)
    assert tables["scores"][1]["mode"] == "constrained" and tables["scores"][1]["score"] == 0


def test_undefined_kappa_is_null_in_the_tables() -> None:
    item = replace(CRADE, gold=("A",))
    row = Scoring({(item.id, "free"): answer("A")}, Baselines(), 10, 1).tables([item], ["free"])["scores"][0]
    assert row["also"]["kappa"] is None and row["kappa_interval"] is None and row["leaked"] is None


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


@pytest.mark.parametrize(
    "text", ["[" * 5000, "あ" * 10_000_000, "['\ud800']", "['a\x00']", "[1, 2.0, None, ('x',)]", ""]
)
def test_hostile_answers_score_zero(text: str) -> None:
    assert judge([NRNER], [answer(text)], "free", 1, 1).values == (0.0,)
    assert judge([CRADE], [answer(text)], "free", 1, 1).values == (0.0,)
