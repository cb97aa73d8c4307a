"""Solved examples before a question: invented, drawn from an examination, or from the training part."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from rinsho.errors import UserError
from rinsho.tasks import Item, Splitting, answer_text, documents, prompts, read_data, read_train
from rinsho.tasks.examples import choose, group, invented, year_of
from tasks.test_multiple_choice import ROW, file
from tasks.test_readers import PROBLEM, exam
from tasks.toy_jmed import toy_jmed


def row(number: int, gold: str, tag: str = "熱", prefix: str = "all/") -> Item:
    text = f"{prefix}{number}番目の投稿。"
    return Item(
        f"{prefix}smdis/{number:05d}", "smdis", "choice", tag, prompts.CHOICE, text, ("ある", "ない", "不明"), (gold,),
        text, text,
    )  # fmt: skip


TEST = row(1, "A", prefix="")
TRAIN = [row(number, "AAAAAAAAABBC"[number % 12]) for number in range(48)]
TRAIN += [row(number, "B", "咳") for number in range(90, 92)]


def test_invented_problems_are_of_three_kinds() -> None:
    one, two, number = invented("igakuqa")
    assert [item.id for item in (one, two, number)] == [f"example/igakuqa/{n}" for n in (1, 2, 3)]
    assert [answer_text(item) for item in (one, two, number)] == ["d", "a,c", "25"]
    assert round(64 / 1.6**2) == 25
    assert [item.gold for item in invented("usmle")] == [("B",), ("D",), ("A",)]
    asked = [Item("igakuqa/999A1", "igakuqa", "choice", "産科", prompts.EXAM, "どれか。", ("肝", "腎"), ("a",), "", "")]
    assert group(asked[0]) == "igakuqa"
    assert choose(asked, [], 2) == {"igakuqa": [one, two]}
    assert choose(asked, [], 0) == {}
    with pytest.raises(UserError, match=r"3 solved examples for igakuqa; expected 4.*evaluate.few_shot_from to a year"):
        choose(asked, [], 4)


def test_rows_are_drawn_by_the_seed_whatever_their_order() -> None:
    asked = [TEST, row(2, "B", "咳", prefix="")]
    drawn = choose(asked, TRAIN, 3, seed=5)
    assert {*drawn} == {"smdis/熱", "smdis/咳"}
    mixed = random.Random(3).sample(TRAIN, len(TRAIN))
    assert choose(asked[::-1], mixed, 3, seed=5) == drawn
    assert any(choose(asked, TRAIN, 3, seed=seed) != drawn for seed in range(3))
    for seed in range(5):
        assert sorted(item.gold[0] for item in choose([TEST], TRAIN, 3, seed=seed)["smdis/熱"]) == ["A", "B", "C"]
    assert [item.tag for item in drawn["smdis/咳"]].count("咳") == 2  # all there are, then of another tag


def test_a_document_gives_one_example_while_there_are_others() -> None:
    same = [Item(f"all/x/{n}", "x", "choice", "", prompts.CHOICE, f"問{n}", ("一", "二"), ("AB"[n % 2],), "同じ", "d")
            for n in range(6)]  # fmt: skip
    other = Item("all/x/9", "x", "choice", "", prompts.CHOICE, "問9", ("一", "二"), ("A",), "別", "e")
    asked = [Item("x/0", "x", "choice", "", prompts.CHOICE, "問い", ("一", "二"), ("A",), "", "")]
    for seed in range(4):
        assert {item.document for item in choose(asked, [*same, other], 2, seed=seed)["x"]} == {"d", "e"}
    assert len(choose(asked, [*same, other], 7)["x"]) == 7


def test_no_test_row_and_no_test_passage_is_shown(tmp_path: Path) -> None:
    folder = toy_jmed(tmp_path)
    tests = read_data([folder], "test", tasks=["smdis", "nrner"])
    for split in ("row", "document"):
        train = read_train([folder], Splitting(split), own_tasks=True)[0]
        shown = [item for rows in choose(tests, train, 1).values() for item in rows]
        asked = {(item.question, item.options) for item in tests}
        assert shown and not asked & {(item.question, item.options) for item in shown}
        keys = {key for item in tests for key in documents(item)}
        assert split == "row" or not keys & {key for item in shown for key in documents(item)}
    assert choose([TEST], [TEST, row(3, "B")], 1)["smdis/熱"] == [row(3, "B")]
    with pytest.raises(UserError, match=r"0 solved examples for smdis \(熱\); expected 2.*evaluate.few_shot: 0"):
        choose([TEST], [], 2)


def problems(year: int) -> list[dict]:
    number = {**PROBLEM, "problem_id": f"{year}A20", "choices": [], "answer": ["26"], "problem_text": f"数は？{year}"}
    rows = [
        {
            **PROBLEM,
            "problem_id": f"{year}A{n}",
            "problem_text": f"{year}年の{n}番はどれか。",
            "answer": ["abcde"[n % 5]],
        }
        for n in range(8)
    ]
    rows[3]["text_only"] = False
    rows[4]["points"] = "0"
    rows[5]["answer"] = ["a or d"]
    return [*rows, number]


def test_a_year_of_the_data_gives_examples_and_is_not_asked(tmp_path: Path) -> None:
    for year in (2030, 2031):
        exam(tmp_path, *problems(year), year=year)
    asked = read_data([tmp_path], "test", years=[2030])
    year = year_of("2031")
    found = choose(asked, [], 5, "2031", [tmp_path], 2)["igakuqa"]
    assert {item.year for item in found} == {year} and len({item.id for item in found}) == 5
    assert (
        not {item.id[-1] for item in found} & {"3", "4", "5"}
        and found == choose(asked, [], 5, "2031", [tmp_path], 2)["igakuqa"]
    )
    assert sum(item.kind == "number" for item in choose(asked, [], 3, "2031", [tmp_path])["igakuqa"]) == 0
    with pytest.raises(UserError, match="6 solved examples for igakuqa; expected 7"):
        choose(asked, [], 7, "2031", [tmp_path])
    with pytest.raises(UserError, match="the examination of 2030 is asked itself"):
        choose(asked, [], 1, "2030", [tmp_path])
    with pytest.raises(UserError, match="no problems of 1999"):
        choose(asked, [], 1, "1999", [tmp_path])


def test_a_file_of_solved_problems(tmp_path: Path) -> None:
    exam(tmp_path / "exam", *problems(2030), year=2030)
    asked = read_data([tmp_path / "exam"], "test")
    path = tmp_path / "solved.jsonl"
    rows = [*problems(2040), problems(2030)[0]]  # the last one is asked
    path.write_text("\n".join(json.dumps(line, ensure_ascii=False) for line in rows), encoding="utf-8")
    found = choose(asked, [], 6, str(path))["igakuqa"]
    assert all(item.id.startswith("igakuqa/2040A") for item in found)
    with pytest.raises(UserError, match="expected 7"):
        choose(asked, [], 7, str(path))
    english = file(tmp_path / "step9.jsonl", *[{**ROW, "question": f"Question {n}?"} for n in range(4)])
    usmle = read_data([file(tmp_path / "step1.jsonl", ROW)], "test")
    both = choose([*asked, *usmle], [], 3, str(english))
    assert [item.id[:7] for item in both["igakuqa"]] == ["example"] * 3
    assert all(item.id.startswith("usmle/step9/") for item in both["usmle"])
    with pytest.raises(UserError, match="neither a year nor a file"):
        choose(asked, [], 1, str(tmp_path / "none.jsonl"))
