"""rinsho.prompting: the templates as they are published, filling that looks at no text, files with mistakes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rinsho.chat import Message
from rinsho.errors import UserError
from rinsho.prompting import read_template, template_names, template_of

GOOD = {"name": "own", "description": "", "with_input": "{instruction}|{input}", "without_input": "{instruction}"}


def test_alpaca_word_for_word() -> None:
    template = read_template("alpaca")
    assert template.fill("List the drugs.", "Aspirin.") == (
        "Below is an instruction that describes a task, paired with an input that provides further context. "
        "Write a response that appropriately completes the request.\n\n"
        "### Instruction:\nList the drugs.\n\n### Input:\nAspirin.\n\n### Response:"
    )
    assert template.fill("List the drugs.") == (
        "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
        "### Instruction:\nList the drugs.\n\n### Response:"
    )


def test_the_other_templates() -> None:
    assert read_template("none").fill("薬を挙げよ。", "アスピリン") == "薬を挙げよ。\n\nアスピリン"
    assert read_template("none").fill("薬を挙げよ。", "") == "薬を挙げよ。"
    assert read_template("context_question").fill("熱は？") == "Question: 熱は？\n\nAnswer:"
    filled = read_template("alpaca_ja").fill("薬を挙げよ。", "アスピリン")
    assert filled.endswith("### 指示:\n薬を挙げよ。\n\n### 入力:\nアスピリン\n\n### 応答:")


@pytest.mark.parametrize("name", template_names())
def test_what_is_filled_in_stays_as_it_is(name: str) -> None:
    wild = "{input} {instruction} {0} {x!r} %s \\1 {{"
    filled = read_template(name).fill(wild, "{instruction}")
    assert filled.count(wild) == 1 and filled.replace(wild, "").count("{instruction}") == 1


def test_a_file_with_a_system_turn(tmp_path: Path) -> None:
    path = tmp_path / "own.json"
    path.write_text(json.dumps(GOOD | {"system": "医師"}), encoding="utf-8-sig")
    template = read_template(str(path))
    assert template.name == "own" and template_of(dict(template.text), "rinsho.json") == template
    assert template.turns("熱は？", "38度") == (Message("system", "医師"), Message("user", "熱は？|38度"))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (GOOD | {"with_input": "{instruction}"}, r"own\.json: with_input has no \{input\}"),
        (GOOD | {"without_input": "x"}, r"own\.json: without_input has no \{instruction\}"),
        (GOOD | {"without_input": "{instruction}{input}"}, r"without_input has \{input\}"),
        ({key: GOOD[key] for key in GOOD if key != "with_input"}, "no field with_input"),
        (GOOD | {"response_split": "x"}, "unknown field response_split"),
        (GOOD | {"name": 1}, "not a prompt template"),
        ([GOOD], "not a prompt template"),
    ],
)
def test_a_wrong_file_says_what_is_wrong(text: object, problem: str, tmp_path: Path) -> None:
    path = tmp_path / "own.json"
    path.write_text(json.dumps(text), encoding="utf-8")
    with pytest.raises(UserError, match=problem):
        read_template(str(path))


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"unknown prompt template vicuna; expected one of alpaca, alpaca_ja"):
        read_template("vicuna")
    path = tmp_path / "own.json"
    for content, problem in ((None, "no such"), ("指示".encode("cp932"), "not UTF-8"), (b"{", "not JSON")):
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(UserError, match=problem):
            read_template(str(path))
