"""Boards: ours among the published scores, modes never mixed, other questions set apart."""

import json

import pytest

from evaluate import toy_numbers
from evaluate.toy_numbers import CHOICE, choice, entities, numbers, row
from rinsho.evaluate.boards import boards
from rinsho.evaluate.report import markdown
from rinsho.score_figures import board as picture
from rinsho.tasks.intervals import wilson

YEARS = (2018, 2019, 2020, 2021, 2022)


def exam(year, points=100, mode="free", total=None, n=400, squared=None):
    """A year whose problems are worth 1 or 3 points."""
    scored = toy_numbers.exam(year, points, mode, total, n)
    threefold = (scored["also"]["points_total"] - n) // 2
    scored["also"]["points_squared"] = n + 8 * threefold if squared is None else squared
    return scored


def only(found):
    (board,) = found
    return board


def named(board, name):
    (found,) = [line for line in board["rows"] if line["name"] == name]
    return found


def names(board):
    return [line["name"] for line in board["rows"] if not line["apart"]]


def test_examinations_have_points_share_sum_chance_and_pass_line():
    board = only(boards([numbers([exam(year, 100) for year in YEARS])], published=True))
    assert board["columns"] == ["2018", "2019", "2020", "2021", "2022", "sum"]
    assert named(board, "GPT-4")["cells"] == [
        "382 (76.6%)", "385 (77.6%)", "387 (78.0%)", "398 (79.6%)", "392 (79.4%)", "1944 (78.2%)",
    ]  # fmt: skip
    ours = named(board, "ours-1b")
    assert ours["cells"][0] == "100 (20.0%)"
    assert ours["cells"][-1] == "500 (20.1%)"
    assert ours["ours"]
    assert named(board, "chance")["cells"][-1] == "464.7 (18.7%)"
    assert named(board, "pass line, about")["cells"][0] == "374 (75%)"
    assert board["pass_line"] == 0.75
    order = names(board)
    assert order.index("GPT-4") < order.index("ours-1b") < order.index("NCVC-slm-1-instruct (seen 20B tokens)")
    assert order.index("ours-1b") < order.index("chance")
    json.dumps(board)


def test_problems_of_three_points_widen_the_interval():
    board = only(boards([numbers([exam(2018, 100)])], published=True))
    low, high = named(board, "ours-1b")["intervals"][0]
    alone = wilson(80, 400)
    assert low < alone[0]
    assert high > alone[1]
    plain = only(boards([numbers([exam(2025, 80, total=400)])], published=True))
    assert named(plain, "ours-1b")["intervals"][0] == pytest.approx(alone)


def test_intervals_come_from_the_squared_points_not_from_a_guess():
    scored = exam(2018, 100, total=140, n=150, squared=180)  # 20 of the 150 were withdrawn
    board = only(boards([numbers([scored])], published=True))
    effective = 140**2 / 180
    assert named(board, "ours-1b")["intervals"][0] == pytest.approx(wilson(100 / 140 * effective, effective))
    years = [exam(year, 100, total=500, squared=900) for year in YEARS]
    board = only(boards([numbers(years)], published=True))
    assert named(board, "ours-1b")["intervals"][-1] == pytest.approx(wilson(0.2 * 2500**2 / 4500, 2500**2 / 4500))
    older = toy_numbers.exam(2018, 100)  # numbers that an earlier version wrote
    assert named(only(boards([numbers([older])], published=True)), "ours-1b")["intervals"][0] is None


def test_interval_of_the_scoring_is_taken_where_there_is_one():
    scored = exam(2018, 100)
    scored["also"]["points_interval"] = [80.0, 120.0]
    board = only(boards([numbers([scored])], published=False))
    assert named(board, "ours-1b")["intervals"][0] == [80 / 499, 120 / 499]


def test_sum_needs_all_five_years_and_the_figure_then_shows_what_ours_were_asked():
    board = only(boards([numbers([exam(2018), exam(2019)])], published=True))
    assert named(board, "ours-1b")["cells"][-1] == ""
    assert [board["columns"][place] for place in board["panels"]] == ["2018", "2019"]


def test_later_examinations_have_a_board_of_their_own():
    both = boards([numbers([exam(2018), exam(2026, 160, total=500)])], published=True)
    assert [board["id"] for board in both] == ["igakuqa", "igakuqa_later"]
    assert named(both[1], "Qwen3.5-0.8B (no-think)")["cells"] == ["160 (32.0%)"]
    assert "Gemini-2.5-Pro" not in names(both[1])  # of 2025, which was not asked


def test_years_that_nobody_published_stand_alone():
    board = only(boards([numbers([exam(2901, 30, total=140, n=100)])], published=True))
    assert board["title"] == "Examinations"
    assert names(board) == ["ours-1b", "chance"]


def test_withdrawn_problems_alone_are_no_score():
    assert boards([numbers([exam(2018, 0, total=0, n=1)])], published=False)[0]["rows"] == []


def test_choice_tasks_have_kappa_and_accuracy_with_the_interval_of_kappa():
    board = only(boards([numbers([choice(task) for task in CHOICE])], published=True))
    assert board["columns"] == ["JMMLU-Med", "CRADE", "RRTNM", "SMDIS", "JCSTS"]
    ours = named(board, "ours-1b")
    assert ours["cells"] == ["0.40 (0.50)"] * 5
    assert ours["intervals"][0] == pytest.approx([0.3, 0.5])
    assert named(board, "NCVC-slm-1-instruct (seen 20B tokens)")["cells"][1] == "0.61 (0.67)"
    assert named(board, "chance")["cells"][0] == "0.00 (0.25)"
    assert named(board, "n-gram Bayes")["cells"][0] == "(0.60)"
    assert named(board, "Kimi K2.6 (thinking)")["apart"]
    assert named(board, "NCVC-slm-1-instruct (seen 20B tokens)")["leaked"]
    assert len(names(board)) == len(set(names(board)))  # rows that two tables have stand once


def test_modes_are_rows_of_their_own():
    board = only(
        boards([numbers([choice("crade", "free", 0.1), choice("crade", "constrained", 0.3)])], published=False)
    )
    assert [(line["name"], line["mode"]) for line in board["rows"] if line["ours"]] == [
        ("ours-1b (constrained)", "constrained"), ("ours-1b", "free"),
    ]  # fmt: skip


def test_answers_that_the_official_rule_reads_otherwise_have_both_figures():
    scored = choice("crade", kappa=0.6, score=0.7)
    scored["also"] |= {"accuracy_official": 0.3, "kappa_official": 0.05}
    board = only(boards([numbers([scored])], published=False))
    official, own = named(board, "ours-1b"), named(board, "ours-1b, read by the last line")
    assert official["cells"][1] == "0.05 (0.30)"
    assert official["intervals"][1] is None  # the interval is of the other reading
    assert own["cells"][1] == "0.60 (0.70)"
    assert own["intervals"][1] is not None


def test_entity_tasks_have_official_figures_and_ours_beside_them():
    board = only(boards([numbers([entities("nrner", exact=0.4, official=0.3)])], published=True))
    ours = named(board, "ours-1b")
    assert ours["cells"][2] == "0.80 (0.30)"
    assert ours["cells"][5] == "0.40, 0.45"
    assert ours["intervals"][2] is None
    assert ours["intervals"][5] is not None
    assert named(board, "GPT-4o-2024-08-06")["cells"][2:] == ["0.39 (0.20)", "", "", ""]
    assert named(board, "copy the lexicon")["cells"][2] == "(0.35)"


def test_steps_of_usmle_are_compared_where_the_questions_are_the_same():
    def asked(sizes):
        tags = [row("usmle", n=n, score=0.3, group=step) for step, n in sizes.items()]
        return numbers([row("usmle", n=sum(sizes.values()), score=0.3)], tags=tags)

    medqa = only(boards([asked({"step1": 679, "step2&3": 594})], published=True))
    assert medqa["columns"] == ["Step 1", "Step 2", "Step 3", "Steps 2 and 3", "all"]
    assert named(medqa, "MedAlpaca 13b")["apart"] == "other questions"
    assert not named(medqa, "MedPsy-1.7B")["apart"]
    own = only(boards([asked({"step1": 119, "step2": 120, "step3": 135})], published=True))
    assert not named(own, "MedAlpaca 13b")["apart"]
    assert named(own, "MedPsy-1.7B")["apart"] == "other questions"
    assert named(own, "ours-1b")["cells"][:3] == ["0.300"] * 3


def test_a_draw_of_the_questions_is_not_compared_with_published_scores():
    board = only(boards([numbers([choice("crade", n=20)])], published=True))
    assert set(names(board)) <= {"ours-1b", "chance", "majority", "n-gram Bayes"}


@pytest.mark.parametrize(
    ("setting", "why"), [({"test_part": "own"}, "own test part"), ({"prompt_form": "short"}, "short prompts")]
)
def test_own_part_and_short_prompts_are_apart(setting, why):
    board = only(boards([numbers([choice("crade")], **setting)], published=True))
    assert named(board, "ours-1b")["apart"] == why
    assert named(board, "n-gram Bayes")["apart"] == (why if "test_part" in setting else None)  # it has no prompts
    assert "GPT-4o-2024-08-06" in names(board)


def test_several_models_stand_on_one_board_with_the_baselines_of_each_split():
    models = [numbers([choice("crade")], model="a", split="row"), numbers([choice("crade", kappa=0.2)], model="b")]
    board = only(boards(models, published=False))
    assert names(board) == [
        "a", "b", "chance", "majority (split row)", "n-gram Bayes (split row)", "majority (split document)",
        "n-gram Bayes (split document)",
    ]  # fmt: skip
    assert boards([{"name": "c", "numbers": models[0]}], published=False)[0]["rows"][0]["name"] == "c"


def test_a_task_without_published_scores_has_a_board_too():
    board = only(boards([numbers([row("ward_rounds", baselines={"majority": 0.4})])], published=True))
    assert board["benchmark"] == "ward_rounds"
    assert [line["name"] for line in board["rows"]] == ["ours-1b", "majority", "chance"]


def test_markdown_has_the_scores_first_and_boards_and_samples_last():
    told = numbers([exam(2018), choice("crade", n=100)], samples=[
        {"id": "x", "mode": "free", "prompt": "a|b", "gold": ["A"], "answer": "\ud800`|", "value": 0.0}
    ])  # fmt: skip
    text = markdown(told | {"boards": boards([told], published=True)})
    headings = [line for line in text.splitlines() if line.startswith("## ")]
    assert headings[0] == "## Scores"
    assert headings[-2:] == ["## Among published scores", "## Sample answers"]
    assert "| **ours-1b** | fine-tuned | 100 (20.0%) [16-25%] |" in text
    text.encode()


def test_markdown_shows_rotation_leakage_classes_lengths_and_questions_left_out():
    scored = choice("crade", rotation={"orders": 4, "mean": 0.45, "lowest": 0.4, "same_answer": 0.8},
                    leaked={"n": 10, "score": 0.9}, clean={"n": 90, "score": 0.3})  # fmt: skip
    told = numbers(
        [scored], few_shot=3, left_out={"usmle": 7},
        leakage=[{"task": "crade", "source": "tuned on", "questions": 100, "passages": 54, "passages_leaked": 13, "exact": 4,
                  "near": 9, "too_short": 1, "share": 13 / 54}],
        classes=[{"task": "crade", "mode": "free", "label": "A", "gold": 25, "given": 30, "precision": 0.5,
                  "recall": 0.6, "f1": 0.545}],
    )  # fmt: skip
    told["answers"]["mean_free_tokens"] = {"crade": 3.25}
    text = markdown(told)
    assert "3 solved examples (seed 1) before each question" in text
    assert "| crade | free | 4 | 0.500 | 0.450 | 0.400 | 0.800 |" in text
    told_leaks = "| crade | tuned on | free | 100 | 4 | 9 | 1 | 54 | 13 | 24% | 0.900 [0.596, 0.982] (n 10) |"
    assert told_leaks in text
    assert "0.300 [0.215, 0.401] (n 90) |" in text
    assert "| crade | free | A | 25 | 30 | 0.500 | 0.600 | 0.545 |" in text
    assert "usmle: 7 questions that need an image were left out" in text
    assert "| crade | 3.2 |  |" in text


def test_board_is_drawn_with_every_name_and_no_outside_reference():
    board = only(boards([numbers([choice(task) for task in CHOICE], model="ours <b>$x$")], published=True))
    drawn = picture(board)
    assert drawn.startswith("<svg")
    assert "ours &lt;b&gt;$x$" in drawn
    assert drawn.count("GPT-4o-mini-2024-07-18") >= 1
    assert "<b>" not in drawn
    assert "metadata" not in drawn
    assert "var(--accent, " in drawn


def test_nothing_to_draw_is_an_empty_string():
    assert picture({"panels": [], "rows": []}) == ""


def test_a_sample_says_so_first_and_has_points_out_of_those_asked():
    scored = exam(2018, 4, total=12, n=10)
    scored["also"] |= {"points_interval": [11.0, 12.0], "passes": True, "points_chance": 2.3}
    told = numbers([scored], max_items=10)
    told |= {"boards": boards([told], published=True)}
    board = only(told["boards"])
    assert named(board, "ours-1b")["cells"][0] == "4 of 12 (33.3%)"
    assert named(board, "pass line, about")["cells"][:2] == ["9 of 12 (75%)", "372 (75%)"]
    assert named(board, "chance")["cells"][0] == "2.3 (19.2%)"
    assert named(board, "GPT-4")["cells"][0] == "382 (76.6%)"
    text = markdown(told)
    assert text.splitlines()[2] == "**SAMPLE: at most 10 questions a task (seed 1), not the benchmark's score.**"
    assert "| 4 | [11, 12] | 12 | undecided | 2.3 |" in text
    assert "| 4 | [11, 12] | 12 | yes | 2.3 |" in markdown(told | {"max_items": None})


def test_an_interval_without_width_is_not_shown_as_one():
    scored = choice("crade", score=0.5) | {"interval": [0.5, 0.5], "kappa_interval": [0.0, 0.0], "above_chance": True}
    told = numbers([scored])
    text = markdown(told | {"boards": boards([told], published=True)})
    assert "| crade | free | 100 | 0.500 | (no spread) | 0.250 | 0.250 | 0.600 | 0.400 (no spread) |" in text
    assert "0.40 (0.50) (no spread)" in text
    assert "**0.500**" not in text
    assert "| 0.500 | - |" in markdown(numbers([scored | {"interval": None}]))


def test_chance_and_baselines_stand_once_whatever_the_prompts():
    models = [
        numbers([choice("crade")], model=name, prompt_form=form) for name, form in (("a", "benchmark"), ("b", "short"))
    ]
    rows = only(boards(models, published=False))["rows"]
    assert [line["name"] for line in rows if not line["ours"]].count("chance") == 1
    assert [line["name"] for line in rows if line["how"] == "baseline"] == ["majority", "n-gram Bayes"]
    assert {line["apart"] for line in rows if not line["ours"]} == {None}


def test_answers_made_elsewhere_have_no_prompts_and_own_tasks_no_published_scores():
    told = numbers([row("ward_rounds")], how="unknown", prompt_form="short")
    told |= {"boards": boards([told], published=True)}
    text = markdown(told)
    assert "prompts" not in text
    assert "Among published scores" not in text
    assert told["boards"][0]["rows"][0]["apart"] is None


def test_notes_are_on_tasks_that_were_asked_and_samples_on_one_line():
    training = [{"warnings": ["crade: all rows are alike", "rrtnm: no row", "take another part"]}]
    told = numbers([choice("crade")], training=training, notes=["smdis has no answer"], samples=[
        {"id": "x", "mode": "free", "prompt": "p", "gold": ["A"], "answer": "\n" * 250, "value": 0.0}
    ])  # fmt: skip
    told["answers"] |= {"shortened_prompts": 7, "shortened_by_task": {"crade": 7}, "unanswered": {"crade": 2}}
    text = markdown(told)
    assert "- crade: all rows are alike\n- take another part\n- 7 prompts" in text
    assert "rrtnm" not in text
    assert "**smdis has no answer.**\n\n**crade: 2 answers are missing and count as wrong.**" in text
    assert "| κ (95 %) | shortened prompts |" in text
    assert text.endswith("    " + "\\n" * 200 + " … (50 characters more)\n")
