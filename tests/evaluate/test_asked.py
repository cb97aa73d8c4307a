"""Earlier answers scored again are what they were asked as; files from elsewhere are not blamed for what is missing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from evaluate.test_run import inputs, say, use
from evaluate.toy_oracle import Oracle
from rinsho.errors import UserError
from rinsho.evaluate import Recipe, check, endpoint, run, work
from rinsho.evaluate.asked import read_asked
from rinsho.run import read_metrics
from rinsho.tasks import Splitting, document_key, read_train
from tasks.toy_pools import toy_pools

PLAIN = Recipe(plot=False, bootstrap_samples=20, published=False)
ONE = PLAIN.model_copy(update={"modes": ("free",), "tasks": ("smdis", "igakuqa")})


def changed(recipe: Recipe, **changes: Any) -> Recipe:
    return recipe.model_copy(update=changes)


def told(numbers: dict[str, Any]) -> tuple[Any, ...]:
    names = ("how", "few_shot", "test_part", "split", "answer_form", "leakage", "scores")
    return (*(numbers[name] for name in names), numbers["answers"]["count"])


@pytest.mark.parametrize(
    "how",
    [
        {"few_shot": 1, "split": "row"}, {"max_items": 1, "seed": 5}, {"tasks": ("smdis",)}, {"modes": ("likelihood",)},
        {"years": (2030,), "rotations": 1}, {"answer_form": "text_letter"},
    ],
    ids="-".join,
)  # fmt: skip
def test_what_the_recipe_leaves_open_is_as_it_was_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: dict[str, Any]
) -> None:
    use(monkeypatch, Oracle(say))
    given = inputs(tmp_path)
    first = run(changed(ONE, **how), given, tmp_path / "first").numbers
    again = run(PLAIN, [tmp_path / "first", *given[1:]], tmp_path / "again").numbers
    assert told(again) == told(first)
    assert again["answers"]["of_unknown_questions"] == 0 and again["answers"]["unanswered"] == {}
    third = run(PLAIN, [tmp_path / "again", *given[1:]], tmp_path / "third").numbers
    assert told(third) == told(first)


def test_an_own_test_part_stays_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, Oracle(say))
    given = [*inputs(tmp_path)[:1], toy_pools(tmp_path / "pools/jmed_llm").parent]
    recipe = changed(ONE, tasks=("smdis",), test_part="own", split_seed=2)
    first = run(recipe, given, tmp_path / "first").numbers
    again = run(PLAIN, [tmp_path / "first", given[1]], tmp_path / "again").numbers
    assert told(again) == told(first) and again["split_seed"] == 2
    with pytest.raises(UserError, match=r"asked with split_seed: 2, not 3"):
        run(changed(PLAIN, split_seed=3), [tmp_path / "first", given[1]], tmp_path / "other")


def test_contradictions_are_refused_and_less_is_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, Oracle(say))
    given = inputs(tmp_path)
    run(changed(ONE, few_shot=1, split="row"), given, tmp_path / "first")
    again = [tmp_path / "first", *given[1:]]
    for change in (
        {"few_shot": 3}, {"few_shot": 0}, {"few_shot_from": "2030"}, {"rotations": 1}, {"modes": ("free", "likelihood")},
        {"answer_form": "text_letter"}, {"test_part": "own"}, {"tasks": ("nrner",)},
    ):  # fmt: skip
        (problem,) = check(changed(PLAIN, **change), again)
        assert f"evaluate.{next(iter(change))}" in str(problem) and "leave it out" in str(problem)
    less = changed(PLAIN, tasks=("smdis", "nrner"), max_items=1, split="document", modes=("free",))
    numbers = run(less, again, tmp_path / "less").numbers
    assert [(row["task"], row["n"]) for row in numbers["scores"]] == [("smdis", 1)]
    assert numbers["notes"] == ["not asked, so not scored: nrner"] and numbers["few_shot"] == 1
    (tmp_path / "first/asked.json").write_text('{"asked": {"split": 1}}', encoding="utf-8")
    with pytest.raises(UserError, match="not the file that an evaluation wrote"):
        read_asked(tmp_path / "first/answers.jsonl")


def test_several_see_how_each_was_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, Oracle(say))
    given = inputs(tmp_path)
    run(changed(ONE, few_shot=1, split="row"), given, tmp_path / "few")
    run(changed(ONE, split="row"), given, tmp_path / "zero")
    folders = [tmp_path / "zero", tmp_path / "few"]
    numbers = run(PLAIN, [*folders, *given[1:]], tmp_path / "both").numbers
    assert [model["numbers"]["few_shot"] for model in numbers["models"]] == [0, 1]
    assert any("`few_shot` differs" in note for note in numbers["notes"])


def test_how_a_model_came_to_its_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, Oracle(say))
    given = inputs(tmp_path)
    assert run(ONE, given, tmp_path / "foreign").numbers["how"] == "unknown"
    few = changed(ONE, few_shot=1, split="row")
    assert run(few, given, tmp_path / "few").numbers["how"] == "few-shot"
    file = tmp_path / "theirs.jsonl"
    file.write_text('{"id": "smdis/00000", "answer": "A"}\n', encoding="utf-8")
    numbers = run(changed(few, answer_form="text_letter"), [file, *given[1:]], tmp_path / "theirs").numbers
    assert (numbers["how"], numbers["answer_form"]) == ("unknown", "letter")
    (given[0] / "rinsho.json").write_text(json.dumps({"stage": "pretrain"}), encoding="utf-8")
    assert run(ONE, given, tmp_path / "base").numbers["how"] == "pre-trained"


def test_tasks_that_a_file_does_not_touch_are_left_out(tmp_path: Path) -> None:
    given = inputs(tmp_path)[1:]
    file = tmp_path / "theirs.jsonl"
    file.write_text('{"id": "smdis/00000", "answer": "A"}\n', encoding="utf-8")
    numbers = run(ONE, [file, *given], tmp_path / "out").numbers
    assert [(row["task"], row["n"], row["score"]) for row in numbers["scores"]] == [("smdis", 2, 0.5)]
    assert numbers["notes"] == ["not in the file of answers: igakuqa-2030"]
    assert numbers["answers"]["unanswered"] == {"smdis": 1}
    with pytest.raises(UserError, match="none of these answers"):
        run(changed(ONE, tasks=("igakuqa",)), [file, *given], tmp_path / "other")
    with pytest.raises(UserError, match="no answer in any of the modes"):
        run(changed(ONE, modes=("likelihood",)), [file, *given], tmp_path / "mode")


def test_near_leaks_outlive_the_answers_and_another_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = toy_pools(tmp_path / "data/jmed_llm").parent
    train, _ = read_train([data], Splitting("row"))
    test = data / "jmed_llm/datasets/smdis.csv"
    row = next(item for item in train if item.task == "smdis")
    near = row.passage[:-1] + "熱"
    test.write_text(test.read_text(encoding="utf-8").replace(row.passage, near), encoding="utf-8")
    with test.open("a", encoding="utf-8") as file:
        file.write(f'{row.tag},"「{near}」",{",".join(row.options)},{row.gold[0]}\n')
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}", encoding="utf-8")
    (model / "rinsho.json").write_text(json.dumps({"stage": "finetune", "finetune": {"split": "row"}}), "utf-8")
    (model / "train_documents.txt").write_text(document_key(row.passage) + "\n", encoding="utf-8")
    use(monkeypatch, Oracle(say))
    recipe = changed(PLAIN, modes=("free",), tasks=("smdis",))
    first = run(recipe, [model, data], tmp_path / "first").numbers["leakage"]
    assert first[0]["near"] == 1 and first[0]["scores"]["free"]["leaked"]["n"] >= 1
    assert run(changed(recipe, split="document"), [model, data], tmp_path / "split").numbers["leakage"] == first
    assert run(recipe, [tmp_path / "first", data], tmp_path / "again").numbers["leakage"] == first


def test_no_question_is_left(tmp_path: Path) -> None:
    given = inputs(tmp_path)
    (problem,) = check(changed(ONE, tasks=("igakuqa",), few_shot=1, few_shot_from="2030"), given)
    assert "no question is left, because the examination of 2030 gives the solved examples" in str(problem)
    (given[0] / "rinsho.json").write_text(json.dumps({"finetune": {"igakuqa_years": [2030]}}), encoding="utf-8")
    (problem,) = check(changed(ONE, tasks=("igakuqa",)), given)
    assert "because the model was tuned on the examination of 2030" in str(problem)
    with pytest.raises(ValueError, match="at least 1 item"):
        Recipe(modes=())


def test_tests_are_read_once_for_models_that_are_asked_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rinsho.evaluate import questions

    given = inputs(tmp_path)
    others = []
    for number in range(3):
        others.append(tmp_path / f"other{number}")
        others[-1].mkdir()
        (others[-1] / "config.json").write_text("{}", encoding="utf-8")
    reads: list[Any] = []
    read = questions.read_data
    monkeypatch.setattr(questions, "read_data", lambda *how: reads.append(how) or read(*how))
    assert check(ONE, [*others, *given]) == [] and len(reads) == 1


@pytest.mark.parametrize("text", ["[]", "{", '{"models": 3}', '{"models": [{"folder": 3}]}', "\ud800"])
def test_a_foreign_scores_file_is_told(tmp_path: Path, text: str) -> None:
    given = inputs(tmp_path)
    (tmp_path / "old").mkdir()
    (tmp_path / "old/scores.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    (problem,) = check(ONE, [tmp_path / "old", *given])
    assert "not the scores that an evaluation wrote" in str(problem)


def test_questions_after_a_blank_line_are_no_answers(tmp_path: Path) -> None:
    given = inputs(tmp_path)
    (tmp_path / "q.jsonl").write_text(
        '\n{"question": "x", "options": {"A": "1", "B": "2"}, "answer": "A", "answer_idx": "A"}\n', encoding="utf-8"
    )
    assert check(changed(ONE, tasks=("usmle",)), [given[0], tmp_path / "q.jsonl"]) == []


def test_score_lines_stand_once_in_the_metrics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, Oracle(say))
    given = inputs(tmp_path)
    run(ONE, given, tmp_path / "out")
    rows = read_metrics(tmp_path / "out")
    (tmp_path / "out/DONE").unlink()
    run(ONE, given, tmp_path / "out")
    assert read_metrics(tmp_path / "out") == rows and len(rows) == 2


def test_dropped_examples_are_counted(tmp_path: Path) -> None:
    given = inputs(tmp_path)[1:]
    file = tmp_path / "theirs.jsonl"
    rows = [{"id": f"smdis/0000{n}", "answer": "A", "examples": count} for n, count in enumerate((3, 1))]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    numbers = run(changed(ONE, few_shot=3), [file, *given], tmp_path / "out").numbers["answers"]
    assert [numbers[f"few_shot_{name}"] for name in ("mean", "fewest")] == [2, 1] and numbers["dropped_examples"] == 1


def test_the_pace_of_an_endpoint_is_no_other_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = inputs(tmp_path)[1:]
    file = tmp_path / "gpt.yaml"
    text = "base_url: http://127.0.0.1:1/v1\nmodel: toy\n"
    asked = []

    def answer_all(stage: Any, settings: Any, items: Any, **how: Any) -> Path:
        asked.append(settings)
        rows = [{"id": item.id, "mode": "free", "form": "letter", "answer": "A"} for item in items]
        (stage.out / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return stage.out / "answers.jsonl"

    monkeypatch.setattr(work.endpoint, "answer_all", answer_all)
    for more in ("", "max_concurrent_requests: 1\nmax_retries: 1\n"):
        file.write_text(text + more, encoding="utf-8")
        assert run(ONE, [file, *given], tmp_path / "out").numbers["how"] == "zero-shot"
    assert len(asked) == 1
    file.write_text(text.replace("toy", "other"), encoding="utf-8")
    with pytest.raises(UserError, match="other inputs"):
        run(ONE, [file, *given], tmp_path / "out")
    with pytest.raises(UserError, match="asked for letters"):
        run(changed(ONE, answer_form="text_letter"), [file, *given], tmp_path / "form")
    assert endpoint.read_settings(file).model == "other"
