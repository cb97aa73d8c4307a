"""What a run says of itself: who answered, and what was sent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rinsho.client import Answer, conversation
from rinsho.run import Stage
from rinsho.synthesize import Recipe, report
from rinsho.synthesize.calls import Call
from rinsho.synthesize.product import KEPT, OTHER_MODELS, Product
from rinsho.synthesize.work import Wanted


def recipe(**changes: Any) -> Recipe:
    teachers = {name: {"base_url": "http://127.0.0.1:9/v1", "model": f"{name}-70b", "license": "x"} for name in "ab"}
    return Recipe.model_validate({"teachers": teachers, **changes})


def test_answers_of_other_models_are_counted_and_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = recipe(kinds=["textbook"])
    answered = ["", "a-70b", "a-7b", "a-7b", *(f"m{n}" for n in range(OTHER_MODELS + 5))]
    with Product(given, tmp_path) as product:
        for name in "ab":
            for n, model in enumerate(answered if name == "a" else ["b-70b"]):
                call = Call("textbook", f"t{n}", name, 0, conversation("説明する。"), "0" * 16, n, {})
                product.request(call, Answer(call.id, text="肺炎", model=model), KEPT)
    found = report.make(given, product.figures, None, None, Stage("synthesize", tmp_path))
    a, b = found.numbers["rows"]
    assert a["other_models"] == {"others": 6, "a-7b": 2, **{f"m{n}": 1 for n in range(OTHER_MODELS - 1)}}
    assert b["other_models"] == {}
    said = "27 answers of a are not from a-70b, but from: others 6, a-7b 2, m0 1"
    assert said in found.numbers["warnings"] and f"WARNING: {said}" in capsys.readouterr().err


def test_what_each_teacher_is_sent(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("topic,kind\n肺炎,disease\n", encoding="utf-8")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("肺炎は感染症であり、抗菌薬で治療する。" * 40, encoding="utf-8")
    topics, both = [tmp_path / "t.csv"], [tmp_path / "t.csv", tmp_path / "notes"]
    given = recipe(kinds=["textbook", "reading", "instructions"])
    given.teachers["b"] = given.teachers["b"].model_copy(update={"kinds": ("textbook",)})
    assert Wanted(given, topics).sent("a") == "prompts about topics, seed tasks"
    assert Wanted(given, both).sent("a") == "documents, prompts about topics, seed tasks"
    assert Wanted(given, both).sent("b") == "prompts about topics"
    asked = given.model_copy(update={"agreement": 1})
    assert Wanted(asked, both).sent("b") == "documents, prompts about topics"
