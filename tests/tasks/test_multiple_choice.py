"""English multiple choice in JSON lines: MedQA as given, near forms, and one clear line for every mistake."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from real_data import real_data
from rinsho.errors import UserError
from rinsho.tasks import labels, read_data
from rinsho.tasks.multiple_choice import is_questions, read_questions
from rinsho.tasks.read import read_left_out

ROW = {"question": "Which organ makes bile?", "options": {"A": "Heart", "B": "Liver", "C": "Lung", "D": "Spleen"},
       "answer": "Liver", "answer_idx": "B", "meta_info": "step1"}  # fmt: skip


def file(path: Path, *rows: object) -> Path:
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_medqa_row(tmp_path: Path) -> None:
    (item,), left_out = read_questions(file(tmp_path / "test.jsonl", ROW))
    assert (item.id, item.task, item.tag, item.gold, left_out) == ("usmle/test/00000", "usmle", "step1", ("B",), 0)
    assert item.prompt == "Question: Which organ makes bile?\nOptions:\nA. Heart\nB. Liver\nC. Lung\nD. Spleen\n"
    assert (labels(item), item.wording.cue) == (("A", "B", "C", "D"), "\nAnswer:")
    assert not any("぀" <= letter <= "鿿" for letter in item.system + item.prompt)


@pytest.mark.parametrize(
    ("row", "tag", "gold"),
    [
        ({"answer_idx": None}, "step1", "B"),
        ({"answer": None}, "step1", "B"),
        ({"answer": "B", "answer_idx": ""}, "step1", "B"),
        ({"answer": " Liver "}, "step1", "B"),
        ({"options": None, "choices": ["Liver", "Lung"], "answer_idx": None, "answer": 1}, "step1", "B"),
        ({"meta_info": None, "step": 3}, "step3", "B"),
        ({"meta_info": None, "step": "step2"}, "step2", "B"),
        ({"meta_info": None, "subject": "anatomy"}, "anatomy", "B"),
        ({"meta_info": None}, "step1x", "B"),
        ({"options": [str(n) for n in range(10)], "answer": None, "answer_idx": "J"}, "step1", "J"),
        ({"image": "", "img": None, "has_image": False, "question": "The image is lost. What now?"}, "step1", "B"),
    ],
)
def test_near_forms(tmp_path: Path, row: dict, tag: str, gold: str) -> None:
    (item,), _ = read_questions(file(tmp_path / "step1x.jsonl", {**ROW, **row}))
    assert (item.tag, item.gold) == (tag, (gold,))


def test_questions_that_need_an_image_are_counted_and_ids_stay(tmp_path: Path) -> None:
    images = [{**ROW, "image": "p1.png"}, {**ROW, "has_image": True}, {**ROW, "img": {"bytes": "x"}}, {"image": "x"}]
    path = file(tmp_path / "step2.jsonl", *images, {**ROW, "has_image": "false"})
    items, left_out = read_questions(path)
    assert ([item.id for item in items], left_out) == (["usmle/step2/00004"], 4)
    assert read_left_out([tmp_path]) == read_left_out([path], ["usmle"]) == {"usmle": 4}
    assert read_left_out([path], ["igakuqa"]) == {}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("{", "not JSON"),
        ({**ROW, "question": " "}, "question is missing or not text"),
        ({**ROW, "options": {"A": "Liver", "C": "Lung"}}, "keys are no letters in a row"),
        ({**ROW, "options": ["Liver"]}, "1 options; expected 2 to 10"),
        ({**ROW, "options": ["Liver"] * 11}, "11 options"),
        ({**ROW, "options": ["Liver", 3]}, "options are missing, or not all are text"),
        ({**ROW, "answer": "Heart"}, "name different options"),
        ({**ROW, "answer_idx": "E"}, "names no option, or more than one"),
        ({**ROW, "answer_idx": None, "answer": "Brain"}, "names no option, or more than one"),
        ({**ROW, "answer_idx": None, "answer": 4}, "names no option, or more than one"),
        ({**ROW, "answer_idx": None, "answer": True}, "names no option, or more than one"),
        ({**ROW, "options": ["B", "A"], "answer": "A", "answer_idx": None}, "names no option, or more than one"),
        ({**ROW, "meta_info": ["step1"]}, "meta_info is no label"),
    ],
)
def test_wrong_rows_are_named_by_line_without_their_text(tmp_path: Path, row: object, message: str) -> None:
    path = file(tmp_path / "a.jsonl", ROW, row)
    with pytest.raises(UserError, match=rf"a.jsonl:2: .*{message}") as caught:
        read_questions(path)
    assert "bile" not in str(caught.value) and "Liver" not in str(caught.value)


def test_files_are_found_and_asked_beside_others(tmp_path: Path) -> None:
    one, two = file(tmp_path / "step1.jsonl", ROW), file(tmp_path / "step2.jsonl", {**ROW, "meta_info": None})
    file(tmp_path / "notes.jsonl", {"text": "no question"})
    assert is_questions(one) and not is_questions(tmp_path / "notes.jsonl")
    items = read_data([tmp_path], "test")
    assert [(item.id, item.tag) for item in items] == [("usmle/step1/00000", "step1"), ("usmle/step2/00000", "step2")]
    assert read_data([one, two], "test", tasks=["usmle"]) == items
    with pytest.raises(UserError, match=r"notes.jsonl: no file of questions"):
        read_data([tmp_path / "notes.jsonl"], "test")
    with pytest.raises(UserError, match="no question of the asked-for tasks"):
        read_data([tmp_path], "test", tasks=["igakuqa"])


def test_training_and_development_files_of_a_folder_are_left_out(tmp_path: Path) -> None:
    names = ["phrases_no_exclude_train", "phrases_no_exclude_dev", "Valid", "step1-VALIDATION-2", "devices", "trained",
             "phrases_no_exclude_test", "medtrain"]  # fmt: skip
    (tmp_path / "us").mkdir()
    for name in names:
        file(tmp_path / "us" / f"{name}.jsonl", ROW)
    problem = {"problem_id": "119A1", "problem_text": "肺炎は？", "choices": ["肺", "肝"], "answer": ["a"]}
    file(tmp_path / "119-A.jsonl", problem)
    file(tmp_path / "119_dev.jsonl", {**problem, "problem_id": "119A2"})
    found = [item.id.split("/")[1] for item in read_data([tmp_path], "test")]
    assert found == ["119A1", "devices", "medtrain", "phrases_no_exclude_test", "trained"]
    train = tmp_path / "us/phrases_no_exclude_train.jsonl"
    assert [item.id for item in read_data([train], "test")] == ["usmle/phrases_no_exclude_train/00000"]
    (tmp_path / "alone").mkdir()
    file(tmp_path / "alone/train.jsonl", ROW)
    with pytest.raises(UserError, match=r"only training or development questions are in here.*give the file itself"):
        read_data([tmp_path / "alone"], "test")


def test_real_medqa_folder() -> None:
    assert len(read_data([real_data("medqa")], "test", tasks=["usmle"])) == 1273


def test_real_medqa() -> None:
    items, left_out = read_questions(real_data("medqa") / "phrases_no_exclude_test.jsonl")
    assert (len(items), left_out) == (1273, 0)
    assert Counter(item.tag for item in items) == {"step1": 679, "step2&3": 594}
    assert Counter(item.gold[0] for item in items) == {"A": 353, "B": 309, "C": 346, "D": 265}
