"""Points of the examinations: published figures from stored answers, exceptions, tolerant reading."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from real_data import real_data
from rinsho.evaluate.igakuqa import num_forbidden, num_right, passes, points, read_answer, total_points, written
from rinsho.evaluate.scoring import Baselines, Scoring
from rinsho.tasks import Item, prompts, read_igakuqa

PUBLISHED = {
    "gpt4": (382, 385, 387, 398),
    "chatgpt": (266, 250, 266, 297),
    "gpt3": (209, 210, 208, 203),
    "student-majority": (472, 470, 471, 477),
}
TRIMMED = {"gpt4": (1, 2, 5, 0), "chatgpt": (4, 2, 5, 2), "gpt3": (2, 0, 1, 1)}
YEARS = (2018, 2019, 2020, 2021)
ITEM = Item(
    "igakuqa/999A1", "igakuqa", "choice", "", prompts.EXAM, "", tuple("肝腎肺心脳"), ("a", "c"), "", "", points=3
)


def stored(folder: Path, year: int, model: str) -> dict[str, str]:
    rows = [
        json.loads(line)
        for path in sorted((folder / "baseline_results" / str(year)).glob(f"*_{model}.jsonl"))
        for line in path.read_text(encoding="utf-8").splitlines()
    ]
    return {row["problem_id"]: row["prediction"] for row in rows}


@pytest.mark.parametrize("model", PUBLISHED)
@pytest.mark.parametrize("year", YEARS)
def test_stored_answers_score_as_published(year: int, model: str) -> None:
    folder = real_data("igakuqa")
    items, answers = read_igakuqa(folder, [year]), stored(folder, year, model)
    assert points(items, answers) == PUBLISHED[model][YEARS.index(year)]
    if model in TRIMMED:
        assert points(items, answers, trim=True) - points(items, answers) == TRIMMED[model][YEARS.index(year)]


@pytest.mark.parametrize(("year", "total"), zip(YEARS, (499, 496, 496, 500), strict=True))
def test_totals_are_points_not_problems(year: int, total: int) -> None:
    folder = real_data("igakuqa")
    items = read_igakuqa(folder, [year])
    rows = [
        json.loads(line)
        for path in sorted((folder / "data" / str(year)).glob("???-?.jsonl"))
        for line in path.read_text(encoding="utf-8").splitlines()
    ]
    answers = stored(folder, year, "gpt4")
    assert len(items) == len(rows) == 400
    assert total_points(items) == total_points(rows) == total
    assert points(rows, answers) == points(items, answers)


@pytest.mark.parametrize(
    ("gold", "answer", "right"),
    [
        (["a", "c"], "a,c", True),
        (["a", "c"], "c,a", True),
        (["a", "c"], "a, c", False),
        (["a", "c"], "a", False),
        (["a"], "a,a", False),
        (["a"], "A", False),
        (["a"], "ａ", False),
        (["a"], " a", False),
        (["a"], "a\n", False),
        (["a"], "", False),
        (["26"], "26", True),
    ],
)
def test_all_or_nothing_without_trimming(gold: list[str], answer: str, right: bool) -> None:
    assert points([{"problem_id": "x", "answer": gold, "points": "3"}], {"x": answer}) == 3 * right


def test_exceptions() -> None:
    either = {"problem_id": "112B30", "answer": ["a or d"], "points": "3"}
    assert [points([either], {"112B30": answer}) for answer in ("a", "d", "b", "a,d")] == [3, 3, 0, 0]
    withdrawn = {"problem_id": "116A71", "answer": ["a"], "points": "1"}
    assert points([withdrawn], {"116A71": "b"}) == points([withdrawn], {}) == 1


def test_missing_answers_are_wrong_and_other_years_work() -> None:
    later = [{"problem_id": "121A1", "answer": ["b"], "points": "1"}, {"problem_id": "121A2", "answer": ["c"]}]
    assert points(later, {"121A1": "b", "121A2": "c"}) == 2
    assert points(later, {}) == 0
    assert num_right([ITEM], {"999A1": "a,c"}) == 1 and points([ITEM], {"999A1": "a,c"}) == 3


def test_rows_of_later_years_come_in_near_forms() -> None:
    rows = [
        {"problem_id": "121A1", "answer": ["b"], "points": 3},
        {"problem_id": "121A2", "answer": ["a", "c"]},
        {"problem_id": "121A3", "answer": "a,d", "points": None},
        {"problem_id": "121A4", "answer": ["7.20"], "points": "0"},
        {"problem_id": "121A5", "answer": ["b or e"], "points": "1"},
    ]
    answers = {
        "121A1": "b",
        "121A2": ["c", "a"],
        "121A3": "d,a",
        "121A4": "7.20",
        "121A5": "e",
        "112A1": "a",
        "x": None,
    }
    assert points(rows, answers) == 3 + 1 + 1 + 0 + 1 and num_right(rows, answers) == 5
    assert total_points(rows) == 6
    assert points(rows, dict.fromkeys(answers)) == 0
    assert points([], answers) == total_points([]) == 0


def test_pass_line() -> None:
    assert passes((380.0, 420.0), 499) is True and passes((300.0, 370.0), 499) is False
    assert passes((360.0, 390.0), 499) is None and passes(None, 499) is None


def test_stored_answers_in_the_tables() -> None:
    """The points of the tables with their interval: GPT-4 passed in 2018, ChatGPT did not."""
    folder = real_data("igakuqa")
    items = read_igakuqa(folder, [2018])
    for model, told in (("gpt4", None), ("student-majority", True), ("chatgpt", False)):
        rows = {(f"igakuqa/{name}", "free", 0): {"answer": said} for name, said in stored(folder, 2018, model).items()}
        tables = Scoring(rows, Baselines(), 300, 1).tables(items, ["free"])
        row, also = tables["scores"][0], tables["scores"][0]["also"]
        assert (also["points"], also["points_total"]) == (PUBLISHED[model][0], 499)
        assert also["points_interval"][0] < also["points"] < also["points_interval"][1] and also["passes"] is told
        assert also["points_text_only_total"] == 362 and also["points_figures_total"] == 137
        assert also["points_text_only"] + also["points_figures"] == also["points"]
        assert round(row["score"] * 400) == round(also["accuracy_text_only"] * 286 + also["accuracy_figures"] * 114)
        assert [line["label"] for line in tables["classes"]][:5] == [*"abcde"] and not tables["tags"]


@pytest.mark.parametrize("said", ["a,c", "c,a", "A,C", "ａ，ｃ", "a, c", " a,c", "a,c\n", "答え: a,c", ""])
def test_points_of_an_evaluation_are_those_of_the_answer_as_the_authors_keep_it(said: str) -> None:
    rows = {(ITEM.id, "free", 0): {"answer": said, "form": "letter"}}
    also = Scoring(rows, Baselines(), 0, 1).tables([ITEM], ["free"])["scores"][0]["also"]
    assert also["points"] == also["points_official"] == points([ITEM], {"999A1": written(said)})
    assert also["points_tolerant"] == (3 if said else 0)
    assert (also["points_squared"], also["points_interval"], also["passes"]) == (9, None, None)


def test_reading_of_answers() -> None:
    assert written("Ａ,Ｃ ") == "a,c "
    assert read_answer(ITEM, "A、 C") == "a,c"
    assert read_answer(ITEM, "肝\n肺\na,c") == "a,c"
    assert read_answer(ITEM, "答え: A、Ｃ") == read_answer(ITEM, "Answer: a, c") == "a,c"
    assert read_answer(ITEM, "わかりません") == ""
    assert read_answer(replace(ITEM, kind="number", options=()), "２６ Torr") == "26"
    number = replace(ITEM, kind="number", options=())
    assert read_answer(number, "5×4=20\n20.0 mg") == "20.0" and read_answer(number, "5か20") == ""
    assert read_answer(ITEM, "説明。" * 1000 + "\na,c") == "a,c"
    assert num_forbidden([replace(ITEM, forbidden=("e",))], {"999A1": "a,e"}) == 1
