"""Readers on invented files: prompts, passages, and one clear line for every mistake."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rinsho.errors import UserError
from rinsho.tasks import Splitting, answer_text, documents, labels, read_data, read_igakuqa, read_jmed
from rinsho.tasks.item import document_key, legal_choices, short_options
from rinsho.tasks.jmed import read_pools
from tasks.toy_jmed import smdis, toy_jmed, write_csv

PROBLEM = {"problem_id": "999A1", "problem_text": "正しいのはどれか。", "choices": ["肝", "腎", "肺", "心", "脳"],
           "text_only": True, "answer": ["a", "c"], "points": "1"}  # fmt: skip


def exam(folder: Path, *rows: object, year: int = 2030) -> Path:
    path = folder / "data" / str(year) / "999-A.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def test_choice_item(tmp_path: Path) -> None:
    first, second = read_jmed(toy_jmed(tmp_path), "test", tasks=["smdis"])
    assert first.id == "smdis/00000"
    assert first.prompt == (
        "質問: SNSの投稿者に熱はありますか？\n「昨日から熱がある。」\n選択肢:\nA. 熱がある\nB. 熱がない\n"
    )
    assert (first.kind, first.tag, first.gold, first.passage) == ("choice", "熱", ("A",), "昨日から熱がある。")
    assert first.document == document_key("昨日から 熱がある。")
    assert second.cases == ("negated", "other")
    assert labels(first) == ("A", "B")
    assert answer_text(first) == "A"
    assert answer_text(first, "text_letter") == "熱がある\nA"


def test_entity_item(tmp_path: Path) -> None:
    (item,) = read_jmed(toy_jmed(tmp_path), "test", tasks=["nrner"])
    assert item.prompt == item.question
    assert item.passage == "夜間に３８．５℃の発熱あり。"
    assert answer_text(item) == "['発熱']"


def test_sentence_pairs_have_two_documents_and_short_options(tmp_path: Path) -> None:
    (item,) = read_jmed(toy_jmed(tmp_path), "test", tasks=["jcsts"])
    assert documents(item) == (document_key("甲は軽快した。"), document_key("甲は治癒した。"))
    assert short_options(item)[0] == "同等である。"
    assert answer_text(item, "text_letter") == "ほぼ同等\nB"


def test_the_sentence_sheet_stands_in_for_the_missing_pool(tmp_path: Path) -> None:
    folder = toy_jmed(tmp_path)
    test = read_jmed(folder, "test", tasks=["jcsts"])[0]
    pool = [item for item in read_pools(folder) if item.task == "jcsts"]
    assert [item.gold for item in pool] == [("B",), ("F",), ("C",)]
    assert (pool[0].question, pool[0].options) == (test.question, test.options)


def test_quotes_inside_a_passage_stay(tmp_path: Path) -> None:
    rows = [["d", "所見は？\n「「痛い」と言う。\n疼痛あり」", "['疼痛']"]]
    write_csv(tmp_path / "datasets/nrner.csv", ["tag", "question", "answer"], rows)
    assert read_jmed(tmp_path, "test")[0].passage == "「痛い」と言う。\n疼痛あり"


CHOICE = ["tag", "question", "optionA", "optionB", "answer"]


@pytest.mark.parametrize(
    ("header", "rows", "line", "message"),
    [
        (["tag", "question", "optionA", "answer"], [], 1, "missing column optionB"),
        (CHOICE, [smdis("熱", "あ", "A"), smdis("熱", "い\nう", "C")], 4, "no label of this row"),
        (CHOICE, [smdis("熱", "あ", "A"), ["熱", "い", "a", "b"]], 4, "4 cells"),
        (CHOICE, [["熱", " ", "a", "b", "A"]], 2, "an empty cell"),
        (CHOICE, [["熱", "あ", "", "b", "A"]], 2, "fewer than two options"),
    ],
)
def test_wrong_rows_are_named_by_line(tmp_path: Path, header, rows, line: int, message: str) -> None:
    write_csv(tmp_path / "datasets/smdis.csv", header, rows)
    with pytest.raises(UserError, match=f"smdis.csv:{line}: .*{message}"):
        read_jmed(tmp_path, "test")


@pytest.mark.parametrize("answer", ["発熱", "['発熱'", "[1]", "['']", "[]", "__import__('os')"])
def test_wrong_entity_lists(tmp_path: Path, answer: str) -> None:
    write_csv(tmp_path / "datasets/nrner.csv", ["tag", "question", "answer"], [["d", "あ\n「い」", answer]])
    with pytest.raises(UserError, match=r"nrner.csv:2: the answer is not a list"):
        read_jmed(tmp_path, "test")


def test_files_that_are_no_csv(tmp_path: Path) -> None:
    path = tmp_path / "datasets/smdis.csv"
    path.parent.mkdir()
    path.write_bytes(",".join(CHOICE).encode() + "\n熱,あ,い,う,A\n熱,".encode() + "あ".encode("cp932") + b",b,c,A\n")
    with pytest.raises(UserError, match=r"smdis.csv:3: mixed encodings: UTF-8 before this line.*iconv -f CP932"):
        read_jmed(tmp_path, "test")
    path.write_text(",".join(CHOICE) + '\n熱,"あ,い,う,A\n', encoding="utf-8")
    with pytest.raises(UserError, match=r"smdis.csv:\d: not readable as CSV"):
        read_jmed(tmp_path, "test")
    path.write_text("", encoding="utf-8")
    with pytest.raises(UserError, match="missing column"):
        read_jmed(tmp_path, "test")


def test_errors_hold_no_text(tmp_path: Path) -> None:
    write_csv(tmp_path / "datasets/smdis.csv", CHOICE, [smdis("秘密", "秘密の投稿", "秘密")])
    with pytest.raises(UserError) as caught:
        read_jmed(tmp_path, "test")
    assert "秘密" not in str(caught.value)


def test_byte_order_mark_and_final_blank_line(tmp_path: Path) -> None:
    path = tmp_path / "datasets/smdis.csv"
    write_csv(path, CHOICE, [smdis("熱", "あ\u2028い", "A")])
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes() + b"\n")
    assert read_jmed(tmp_path, "test")[0].passage == "あ\u2028い"


def test_exam_problem(tmp_path: Path) -> None:
    number = {**PROBLEM, "problem_id": "999A2", "choices": [], "answer": ["26"], "points": "3"}
    figure = {**PROBLEM, "problem_id": "999A3", "answer": ["a or d"], "text_only": False}
    folder = exam(tmp_path, PROBLEM, number, figure)
    about = {"problem_id": "999A1", "category": "産科", "kinki": ["e"]}
    (folder / "data/2030/999-A_metadata.jsonl").write_text(json.dumps(about) + "\n", encoding="utf-8")
    first, second, third = read_igakuqa(folder)
    assert first.prompt.endswith(
        "a: 肝\nb: 腎\nc: 肺\nd: 心\ne: 脳\n必ずa,b,c,d,eの中からちょうど2個選んでください。\n答え:"
    )
    assert (first.id, first.tag, first.forbidden, first.year) == ("igakuqa/999A1", "産科", ("e",), 2030)
    assert (answer_text(first), answer_text(first, "text_letter")) == ("a,c", "肝\n肺\na,c")
    assert len(legal_choices(first)) == 10
    assert (second.kind, second.points, answer_text(second)) == ("number", 3, "26")
    assert third.figure and answer_text(third) == "a"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("{", r"999-A.jsonl:2: not JSON"),
        ("[1]", r"999-A.jsonl:2: not a JSON object"),
        ("[" * 100_000, r"999-A.jsonl:2: not JSON"),
        ({**PROBLEM, "problem_id": "x", "answer": ["z"]}, r"999-A.jsonl:2: the answer names no choice"),
        ({**PROBLEM, "problem_id": "x", "answer": ["a or z"]}, r"999-A.jsonl:2: the answer names no choice"),
        ({**PROBLEM, "problem_id": "x", "answer": ["a", "a"]}, r"999-A.jsonl:2: the answer names a choice twice"),
        ({**PROBLEM, "problem_id": "x", "choices": ["肝"]}, r"999-A.jsonl:2: 1 choices; expected 2 to 10"),
        ({**PROBLEM, "problem_id": "x", "choices": ["肝"] * 11}, r"999-A.jsonl:2: 11 choices"),
        ({**PROBLEM, "problem_id": "x", "choices": []}, r"999-A.jsonl:2: the answer is not one number"),
        ({**PROBLEM, "problem_id": "x", "answer": "a"}, r"999-A.jsonl:2: answer is missing or not a list"),
        ({**PROBLEM, "problem_id": "x", "points": "many"}, r"999-A.jsonl:2: points is not a number"),
        ({"problem_id": "x"}, r"999-A.jsonl:2: problem_text is missing"),
        (PROBLEM, r"999-A.jsonl:2: this problem_id stands twice"),
    ],
)
def test_wrong_problems_are_named_by_line(tmp_path: Path, row: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_igakuqa(exam(tmp_path, PROBLEM, row))


def test_files_of_later_years(tmp_path: Path) -> None:
    ten = {**PROBLEM, "problem_id": "119A2", "choices": list("あいうえおかきくけこ"), "answer": ["j", "b or i"]}
    path = (
        exam(tmp_path, {**PROBLEM, "problem_id": "119A1"}, ten, {**PROBLEM, "problem_id": "X3"})
        / "data/2030/999-A.jsonl"
    )
    metadata = json.dumps({"problem_id": "119A2", "kinki": ["ｂ", " de"]}) + "\n"
    path.with_name("999-A_metadata.jsonl").write_text(metadata, encoding="utf-8")
    alone = tmp_path / "119-A.jsonl"
    alone.write_bytes(path.read_bytes())
    assert [item.year for item in read_data([alone], "test")] == [2025, 2025, None]
    assert read_data([tmp_path / "data" / "2030"], "test")[1].forbidden == ("b", "d", "e")
    assert [item.id for item in read_data([alone], "test", years=[2025])] == ["igakuqa/119A1", "igakuqa/119A2"]
    assert {item.year for item in read_data([path], "test", tasks=["igakuqa"])} == {2025, None}
    with pytest.raises(UserError, match=r"no problems of 2024; expected one of 2025"):
        read_data([alone], "test", years=[2024])
    with pytest.raises(UserError, match="no file of questions"):
        read_data([path.with_name("999-A_metadata.jsonl")], "test")
    with pytest.raises(UserError, match="stands in two"):
        read_data([alone, path], "test")
    alone.write_text("{", encoding="utf-8")
    with pytest.raises(UserError, match=r"119-A.jsonl:1: not JSON"):
        read_data([alone], "test")


def test_layouts_are_found_at_the_top_and_one_level_below(tmp_path: Path) -> None:
    toy_jmed(tmp_path / "jmed_llm")
    exam(tmp_path / "igakuqa", PROBLEM)
    tests = read_data([tmp_path], "test")
    assert {item.task for item in tests} == {"smdis", "jcsts", "mrner_disease", "mrner_medicine", "nrner", "igakuqa"}
    assert read_data([tmp_path / "jmed_llm", tmp_path / "igakuqa"], "test") == tests
    assert {item.task for item in read_data([tmp_path], "test", tasks=["igakuqa"], years=[2030])} == {"igakuqa"}
    assert "igakuqa" not in {item.task for item in read_data([tmp_path], "train", Splitting("row"))}
    assert "igakuqa" in {item.task for item in read_data([tmp_path], "train", Splitting("row"), years=[2030])}
    only = read_data([tmp_path], "train", Splitting("row"), tasks=["smdis"], years=[2030])
    assert {item.task for item in only} == {"smdis"}


def test_data_folders_that_hold_nothing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="neither JMED-LLM nor IgakuQA"):
        read_data([tmp_path], "test")
    with pytest.raises(UserError, match="not there"):
        read_data([tmp_path / "no"], "test")
    with pytest.raises(UserError, match="unknown task smids"):  # no data could bring it
        read_data([tmp_path], "test", tasks=["smids"])
    toy_jmed(tmp_path / "a")
    with pytest.raises(UserError, match="unknown task smids"):
        read_data([tmp_path], "test", tasks=["smids"])
    with pytest.raises(UserError, match=r"crade.csv: the test file is not there"):
        read_data([tmp_path], "test", tasks=["crade"])
    toy_jmed(tmp_path / "b")
    with pytest.raises(UserError, match="stands in two"):
        read_data([tmp_path], "test")
    with pytest.raises(UserError, match="no problems of 1999"):
        read_igakuqa(exam(tmp_path / "c", PROBLEM), [1999])
