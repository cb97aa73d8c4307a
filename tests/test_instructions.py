"""rinsho.instructions: every form as it is found, and every mistake named by file and line without its text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from real_data import real_data
from rinsho.chat import Message
from rinsho.errors import UserError
from rinsho.instructions import instruction_files, read_instructions, read_pairs, texts
from rinsho.prompting import read_template

NONE = read_template("none")
ALPACA = {"instruction": "薬を挙げよ。", "input": "アスピリンを開始", "output": "アスピリン"}
SECRET = "秘密の所見"  # in every wrong row: no message may show it


def written(path: Path, rows: Any, lines: bool = True) -> Path:
    text = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows) if lines else json.dumps(rows)
    path.write_text(text + "\n", encoding="utf-8")
    return path


def user(content: str) -> Message:
    return Message("user", content)


def assistant(content: str) -> Message:
    return Message("assistant", content)


def test_alpaca_as_a_list_and_as_lines(tmp_path: Path) -> None:
    rows = [ALPACA, ALPACA | {"input": ""}, {"instruction": "熱は？", "output": "38度\n"}]
    expected = [
        (user("薬を挙げよ。\n\nアスピリンを開始"), assistant("アスピリン")),
        (user("薬を挙げよ。"), assistant("アスピリン")),
        (user("熱は？"), assistant("38度\n")),
    ]
    for path in (written(tmp_path / "a.jsonl", rows), written(tmp_path / "a.json", rows, lines=False),
                 written(tmp_path / "lines.json", rows)):  # fmt: skip
        found = read_instructions(path, NONE)
        assert [conversation.messages for conversation in found] == expected
        assert [conversation.id for conversation in found] == [f"{path.stem}/0000{row}" for row in range(3)]
        assert [texts(conversation) for conversation in found] == [
            ("アスピリンを開始",),
            ("薬を挙げよ。",),
            ("熱は？",),
        ]
    filled = read_instructions(path, read_template("alpaca"))[0]
    assert filled.messages[0].content.endswith("### Input:\nアスピリンを開始\n\n### Response:")
    assert texts(filled) == ("アスピリンを開始",)  # a document is itself, not its template


def test_chat_in_both_spellings(tmp_path: Path) -> None:
    talk = [("system", "医師"), ("user", "熱は？"), ("assistant", "38度"), ("user", "咳は？"), ("assistant", "なし")]
    names = {"user": "human", "assistant": "gpt"}
    path = written(tmp_path / "chat.jsonl", [
        {"messages": [{"role": role, "content": content} for role, content in talk]},
        {"id": "x", "conversations": [{"from": names.get(role, role), "value": content} for role, content in talk]},
    ])  # fmt: skip
    first, second = read_instructions(path, read_template("alpaca"))
    assert first.messages == second.messages == tuple(Message(role, content) for role, content in talk)  # type: ignore[arg-type]
    assert texts(first) == ("熱は？", "咳は？")


@pytest.mark.parametrize(
    ("row", "asked", "said"),
    [
        ({"question": "熱は？", "answer": "38度"}, "熱は？", "38度"),
        ({"question": "どれか。", "options": ["肺炎", "肺癌"], "answer": "B"}, "どれか。\nA. 肺炎\nB. 肺癌", "肺癌\nB"),
        ({"question": "どれか。", "options": ["肺炎", "肺癌"], "answer": "肺炎"}, "どれか。\nA. 肺炎\nB. 肺癌", "肺炎\nA"),
        ({"question": "Which?", "options": {"a": "A, B", "b": "C"}, "answer": "A, B"}, "Which?\na. A, B\nb. C", "A, B\na"),
        ({"question": "二つ選べ。", "options": ["熱", "咳", "痛"], "answer": "a,c"}, "二つ選べ。\nA. 熱\nB. 咳\nC. 痛", "熱\n痛\nA,C"),
        (
            {"question": "どれか。", "options": ["肺炎", "肺癌"], "answer": ["A"], "explanation": "熱がある。"},
            "どれか。\nA. 肺炎\nB. 肺癌",
            "肺炎\nA\n\n熱がある。",
        ),
    ],
)  # fmt: skip
def test_exercises(row: dict[str, Any], asked: str, said: str, tmp_path: Path) -> None:
    (found,) = read_instructions(written(tmp_path / "exercises.jsonl", [row]), NONE)
    assert found.messages == (user(asked), assistant(said))
    assert texts(found) == (row["question"],)


def test_forms_may_be_mixed_and_blank_lines_stand_between(tmp_path: Path) -> None:
    path = tmp_path / "mixed.jsonl"
    lines = [json.dumps(ALPACA), "", json.dumps({"question": "熱は？", "answer": "38度"}), "  "]
    path.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode())
    assert [found.id for found in read_instructions(path, NONE)] == ["mixed/00000", "mixed/00001"]


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"text": SECRET, SECRET: SECRET}, r"no known form \(its fields: text\); expected instruction and output"),
        ({SECRET: 1}, "no known form; expected"),
        (ALPACA | {"output": "　"}, "output is empty"),
        (ALPACA | {"output": None}, "output is not text"),
        (ALPACA | {"instruction": ""}, "instruction is empty"),
        (ALPACA | {"input": [SECRET]}, "input is not text"),
        ({"messages": SECRET}, "messages is no list of messages"),
        ({"messages": []}, "messages is no list of messages"),
        ({"messages": [SECRET]}, "message 1 of messages has an unknown role"),
        ({"messages": [{"role": "tool", "content": SECRET}]}, "message 1 of messages has an unknown role"),
        ({"messages": [{"role": "user", "content": SECRET}, {"role": "assistant", "content": " "}]}, "message 2 .* no text"),
        ({"messages": [{"role": "user", "content": SECRET}]}, "the last turn is not the assistant's"),
        ({"messages": [{"role": "assistant", "content": SECRET}]}, "no user's turn before the answer"),
        (
            {"messages": [{"role": role, "content": SECRET} for role in ("user", "system", "assistant")]},
            "a system turn after the first",
        ),
        ({"question": SECRET, "answer": ""}, "answer is empty"),
        ({"question": "", "answer": SECRET}, "question is empty"),
        ({"question": "x", "options": ["a", "b"], "answer": SECRET}, "the answer is none of the options"),
        ({"question": "x", "options": ["a", "b"], "answer": 1}, "the answer is none of the options"),
        ({"question": "x", "options": ["a", "b"], "answer": []}, "answer is empty"),
        ({"question": "x", "options": ["a", ""], "answer": "A"}, "options that are no texts"),
        ({"question": "x", "options": SECRET, "answer": "A"}, "options that are no texts"),
        ([SECRET], "not a JSON object"),
    ],
)  # fmt: skip
def test_a_wrong_row_is_named(row: Any, problem: str, tmp_path: Path) -> None:
    for lines, place in ((True, ":2: "), (False, ", row 2: ")):
        path = written(tmp_path / "x.json", [ALPACA, row], lines)
        with pytest.raises(UserError, match=problem) as error:
            read_instructions(path, NONE)
        assert str(error.value).startswith(f"{path}{place}") and SECRET not in str(error.value)


@pytest.mark.parametrize("ending", ["json", "jsonl"])
def test_other_encodings_are_named_by_line(ending: str, tmp_path: Path) -> None:
    good, bad = (
        json.dumps(ALPACA | {"output": SECRET}, ensure_ascii=False).encode(code) for code in ("utf-8", "cp932")
    )
    ascii_only = json.dumps(ALPACA).encode()
    path = tmp_path / f"x.{ending}"
    for rows, line, problem in (
        ([bad, bad], 1, "not UTF-8"),
        ([ascii_only, bad], 2, "not UTF-8"),
        ([good, good, bad, good], 3, "mixed encodings"),
        ([json.dumps(ALPACA).encode("utf-16")], 1, "not UTF-8"),
    ):
        path.write_bytes(b"[" + b",\n".join(rows) + b"]" if ending == "json" else b"\n".join(rows))
        with pytest.raises(UserError, match=rf"x\.{ending}:{line}: {problem}.*iconv -f CP932 -t UTF-8") as error:
            read_instructions(path, NONE)
        assert SECRET not in str(error.value)


def test_files_that_are_not_json(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    for content, problem in (
        ("", "no row in here; expected instruction"),
        ("[]", "no row in here"),
        ("\n \n", "no row in here"),
        (f'{json.dumps(ALPACA)}\n{{"{SECRET}', r"x\.jsonl:2: not JSON"),
        (f'[{json.dumps(ALPACA)},\n{{"{SECRET}', r"x\.jsonl:2: not JSON"),
        (json.dumps(ALPACA, indent=2), r"x\.jsonl:1: not JSON; expected one JSON object a line, or one JSON list"),
    ):
        path.write_text(content, encoding="utf-8")
        with pytest.raises(UserError, match=problem) as error:
            read_instructions(path, NONE)
        assert SECRET not in str(error.value)


def test_which_files_are_taken(tmp_path: Path) -> None:
    for name in ("b.jsonl", "a.json", "notes.txt"):
        (tmp_path / name).write_text("{}", encoding="utf-8")
    (tmp_path / "below").mkdir()
    written(tmp_path / "below" / "c.jsonl", [ALPACA])
    assert instruction_files(tmp_path) == [tmp_path / "a.json", tmp_path / "b.jsonl"]
    assert instruction_files(tmp_path / "a.json") == [tmp_path / "a.json"]
    for name, problem in (("notes.txt", "no file of instructions"), ("no.json", "not there")):
        with pytest.raises(UserError, match=problem):
            instruction_files(tmp_path / name)
    with pytest.raises(UserError, match="not there"):
        read_instructions(tmp_path / "no.json", NONE)


def test_lines_are_read_one_by_one(tmp_path: Path) -> None:
    import tracemalloc

    path = tmp_path / "long.jsonl"
    line = json.dumps({"question": "熱は？", "answer": "38度", "source": "x" * 100_000}) + "\n"
    path.write_text(line * 200, encoding="utf-8")
    tracemalloc.start()
    assert len(read_instructions(path, NONE)) == 200
    assert tracemalloc.get_traced_memory()[1] < 4_000_000  # of 20 MB
    tracemalloc.stop()


def test_medical_meadow_as_it_is() -> None:
    path = real_data("medalpaca") / "medical_meadow_small.json"
    found = read_instructions(path, read_template("alpaca"))
    assert len(found) == 5_942
    row = json.loads(path.read_text(encoding="utf-8"))[-1]
    assert found[-1].id == "medical_meadow_small/05941"
    assert found[-1].messages[-1].content == row["output"] and texts(found[-1]) == (row["input"],)
    assert row["input"] in found[-1].messages[0].content


# ---------------------------------------------------------------------- preference pairs

ASKED, BETTER, WORSE = (
    {"role": "user", "content": "熱は？"},
    {"role": "assistant", "content": "38度"},
    {"role": "assistant", "content": "不明"},
)
BEFORE = [{"role": "system", "content": "医師"}, ASKED]


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "熱は？", "chosen": "38度", "rejected": "不明"},
        {"prompt": [ASKED], "chosen": [BETTER], "rejected": [WORSE]},
        {"prompt": [ASKED], "chosen": "38度", "rejected": "不明"},
        {"chosen": [ASKED, BETTER], "rejected": [ASKED, WORSE]},
        {"prompt": "熱は？", "chosen": [ASKED, BETTER], "rejected": [ASKED, WORSE]},
        {"prompt": [ASKED], "chosen": [ASKED, BETTER], "rejected": [ASKED, WORSE]},
    ],
)
def test_pairs(row: dict[str, Any], tmp_path: Path) -> None:
    for lines in (True, False):
        (pair,) = read_pairs(written(tmp_path / "pairs.json", [row], lines))
        assert (pair.id, pair.source) == ("pairs/00000", "pairs")
        assert (pair.messages, pair.chosen, pair.rejected) == ((user("熱は？"),), "38度", "不明")
        assert pair.writer is None
    (pair,) = read_pairs(written(tmp_path / "pairs.json", [row | {"synthetic": True, "model": "some-70b"}]))
    assert pair.writer == "some-70b"


def test_pairs_with_a_system_turn(tmp_path: Path) -> None:
    rows = [
        {"prompt": BEFORE, "chosen": [BETTER], "rejected": [WORSE]},
        {"prompt": "熱は？", "chosen": [*BEFORE, BETTER], "rejected": [*BEFORE, WORSE]},
    ]
    for pair in read_pairs(written(tmp_path / "pairs.jsonl", rows)):
        assert pair.messages == (Message("system", "医師"), user("熱は？"))


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"prompt": SECRET, "chosen": "x"}, r"no preference pair \(its fields: prompt, chosen\)"),
        ({"prompt": SECRET, "chosen": "x", "rejected": "x"}, "the same"),
        ({"prompt": SECRET, "chosen": "x", "rejected": ""}, "rejected is empty"),
        ({"chosen": SECRET, "rejected": "y"}, "chosen: no user's turn"),
        ({"prompt": [ASKED, BETTER], "chosen": [ASKED, BETTER], "rejected": [ASKED, WORSE]}, "the prompt is not what"),
        ({"prompt": SECRET, "chosen": [ASKED, BETTER], "rejected": [ASKED, WORSE]}, "the prompt is not what"),
        ({"chosen": [ASKED, BETTER], "rejected": [*BEFORE, WORSE]}, "different turns"),
        ({"prompt": [ASKED], "chosen": [ASKED], "rejected": [WORSE]}, "chosen: the last turn is not the assistant's"),
        ({"prompt": {"content": SECRET}, "chosen": "x", "rejected": "y"}, "prompt is no list of messages"),
    ],
)
def test_a_wrong_pair_is_named(row: dict[str, Any], problem: str, tmp_path: Path) -> None:
    good = {"prompt": "熱は？", "chosen": "38度", "rejected": "不明"}
    path = written(tmp_path / "pairs.jsonl", [good, row])
    with pytest.raises(UserError, match=problem) as error:
        read_pairs(path)
    assert str(error.value).startswith(f"{path}:2") and SECRET not in str(error.value)


# ---------------------------------------------------------------------- the benchmark's CSV files


@pytest.mark.parametrize("codes", [("utf-8", "cp932"), ("cp932", "utf-8"), ("utf-8", "euc-jp")])
def test_a_csv_of_mixed_encodings_is_named_by_line(codes: tuple[str, str], tmp_path: Path) -> None:
    from rinsho.tasks.jmed import read_rows

    path = tmp_path / "x.csv"
    rows = [f"発熱,{SECRET}\n".encode(code) for code in codes]
    path.write_bytes(b"question,answer\n" + b"".join(rows))
    line = 2 + (codes[0] == "utf-8")
    with pytest.raises(UserError, match=rf"x\.csv:{line}: .*UTF-8") as error:
        list(read_rows(path, ["question", "answer"]))
    assert SECRET not in str(error.value)
