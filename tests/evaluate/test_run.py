"""The whole room with a stand-in model: products, modes, interruption, re-scoring, bad input."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import signal
from pathlib import Path

import pytest

from evaluate.toy_oracle import Oracle
from rinsho.chat import ASSISTANT, BEGIN, SYSTEM, USER
from rinsho.errors import UserError
from rinsho.evaluate import Recipe, check, run, work
from rinsho.tasks import document_key
from tasks.toy_jmed import toy_jmed, write_csv

SMALL = Recipe(bootstrap_samples=50, max_batch_tokens=400, modes=("free", "constrained", "likelihood"), plot=False)
PRODUCTS = ("answers.jsonl", "asked.json", "scores.json")
EXAM = {"problem_id": "999A1", "problem_text": "二つ選べ。", "choices": ["肝", "腎", "肺"], "text_only": True,
        "answer": ["a", "c"], "points": "3"}  # fmt: skip
NUMBER = {
    "problem_id": "999A2",
    "problem_text": "計算せよ。",
    "choices": [],
    "text_only": True,
    "answer": ["26"],
    "points": "1",
}


def inputs(tmp_path: Path, about: dict | None = None) -> list[Path]:
    model, data = tmp_path / "model", tmp_path / "data"
    if not model.exists():
        model.mkdir()
        (model / "config.json").write_text("{}", encoding="utf-8")
        if about:
            (model / "rinsho.json").write_text(json.dumps({"finetune": about}), encoding="utf-8")
        toy_jmed(data / "jmed_llm")
        exam = data / "igakuqa/data/2030/999-A.jsonl"
        exam.parent.mkdir(parents=True)
        exam.write_text("".join(json.dumps(row) + "\n" for row in (EXAM, NUMBER)), encoding="utf-8")
        write_csv(data.parent / "terms.csv", ["surface", "kind"], [["発熱", "finding"]])
    return [model, data, tmp_path / "terms.csv"]


def use(monkeypatch: pytest.MonkeyPatch, oracle: Oracle) -> Oracle:
    monkeypatch.setattr(work, "_open", lambda folder, recipe: oracle)
    return oracle


def say(prompt: str) -> str:
    if "リスト形式" in prompt:
        return "['発熱', '咳嗽']"
    if "問題: " in prompt:
        return "26" if "数値" in prompt else "a,c"
    return "A" if "昨日" in prompt else "B"


def answers(out: Path) -> dict[tuple[str, str], dict]:
    rows = [json.loads(line) for line in (out / "answers.jsonl").read_text(encoding="utf-8").splitlines()]
    return {(row["id"], row["mode"]): row for row in rows}


def test_scores_products_and_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, Oracle(say))
    report = run(SMALL, inputs(tmp_path), tmp_path / "out")
    scores = {(row["task"], row["mode"]): row for row in report.numbers["scores"]}
    assert scores["smdis", "free"]["score"] == 1.0
    assert scores["smdis", "free"]["baselines"]["majority"] == 0.5
    assert scores["igakuqa-2030", "free"]["also"]["points"] == 4
    assert scores["igakuqa-2030", "free"]["also"]["points_total"] == 4
    assert scores["nrner", "constrained"]["score"] == 1.0
    assert scores["nrner", "free"]["score"] == pytest.approx(2 / 3)
    assert scores["nrner", "constrained"]["baselines"]["copy_lexicon"] == 1.0
    assert ("nrner", "likelihood") not in scores
    assert report.numbers == json.loads((tmp_path / "out/scores.json").read_text(encoding="utf-8"))
    assert "| smdis | free | 2 | 1.000 |" in report.markdown
    assert {row["group"] for row in report.numbers["cases"]} == {"negated", "other"}
    assert "## Sample answers" in report.markdown
    assert "昨日から" not in (tmp_path / "out/log.txt").read_text(encoding="utf-8")
    assert "昨日から" not in (tmp_path / "out/metrics.jsonl").read_text(encoding="utf-8")


def test_prompts_are_the_benchmarks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    oracle = use(monkeypatch, Oracle(say))
    run(SMALL.model_copy(update={"tasks": ("smdis",), "modes": ("free",)}), inputs(tmp_path), tmp_path / "out")
    prompt = next(text for text in oracle.prompts if "昨日" in text)
    assert prompt.startswith(BEGIN + SYSTEM)
    assert prompt.endswith("「昨日から熱がある。」\n選択肢:\nA. 熱がある\nB. 熱がない\n" + ASSISTANT)
    assert USER + "質問: " in prompt
    assert oracle.stops == [None]


def test_base_models_are_asked_in_plain_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    oracle = use(monkeypatch, Oracle(say, chat=False))
    run(SMALL.model_copy(update={"modes": ("free",)}), inputs(tmp_path), tmp_path / "out")
    assert all(
        text.startswith(BEGIN + ("質問", "問題", "以下")[0][:0]) and text.endswith("\n答え:") for text in oracle.prompts
    )
    assert not any(SYSTEM in text or re.search("答え:\n答え:", text) for text in oracle.prompts)
    assert oracle.stops[0] == [oracle.tokenizer.eos_token_id, oracle.tokenizer.newline_id]


def test_chosen_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    likes = {"a,c": -1.0, "熱がない\nB": -2.0, "肝": -1.0, "肺": -1.5}
    use(monkeypatch, Oracle(say, likes=lambda prompt, text: likes.get(text, -9.0)))
    about = {"answer_form": "text_letter", "split": "row"}
    recipe = SMALL.model_copy(update={"tasks": ("smdis", "igakuqa"), "modes": ("constrained", "likelihood")})
    report = run(recipe, inputs(tmp_path, about), tmp_path / "out")
    given = answers(tmp_path / "out")
    assert given["smdis/00000", "constrained"]["answer"] == "B"
    assert given["smdis/00000", "constrained"]["form"] == "text_letter"
    assert len(given["igakuqa/999A1", "constrained"]["logprobs"]) == 3
    assert given["igakuqa/999A1", "likelihood"]["answer"] == "a,c"
    assert ("igakuqa/999A2", "constrained") not in given
    exam = next(
        row for row in report.numbers["scores"] if row["task"] == "igakuqa-2030" and row["mode"] == "likelihood"
    )
    assert (exam["n"], exam["also"]["points"]) == (2, 3)  # the calculation stays unanswered and counts
    assert report.numbers["split"] == "row" and report.numbers["answer_form"] == "text_letter"


def test_leakage_by_the_models_own_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = inputs(tmp_path, {"split": "document"})
    (given[0] / "train_documents.txt").write_text(document_key("昨日から熱が ある。") + "\n", encoding="utf-8")
    use(monkeypatch, Oracle(say))
    numbers = run(SMALL, given, tmp_path / "out").numbers
    (smdis,) = [row for row in numbers["leakage"] if row["task"] == "smdis"]
    assert (smdis["exact"], smdis["passages"], smdis["share"]) == (1, 2, 0.5)
    assert numbers["leakage_source"] == "documents listed in the model folder"


def test_leakage_by_split_or_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, Oracle(say))
    numbers = run(SMALL, inputs(tmp_path, {"split": "row"}), tmp_path / "row").numbers
    assert {row["task"]: row["exact"] for row in numbers["leakage"]}["smdis"] == 1
    (tmp_path / "model/rinsho.json").unlink()
    numbers = run(SMALL, inputs(tmp_path), tmp_path / "unknown").numbers
    assert numbers["leakage"] == [] and numbers["leakage_source"].startswith("unknown")


def test_a_kill_at_any_piece_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = inputs(tmp_path)
    whole = use(monkeypatch, Oracle(say))
    run(SMALL, given, tmp_path / "whole")
    expected = [(tmp_path / "whole" / name).read_bytes() for name in PRODUCTS]
    asked = 0
    for stop in range(0, whole.calls, 4):
        out = tmp_path / f"killed{stop}"
        oracle = Oracle(say, stop_after=stop, on_stop=lambda: os.kill(os.getpid(), signal.SIGKILL))
        use(monkeypatch, oracle)
        process = multiprocessing.get_context("fork").Process(target=run, args=(SMALL, given, out))
        process.start()
        process.join(60)
        assert process.exitcode == -signal.SIGKILL
        rest = use(monkeypatch, Oracle(say))
        run(SMALL, given, out)
        assert rest.calls == whole.calls - stop
        assert [(out / name).read_bytes() for name in PRODUCTS] == expected
        asked += 1
    assert asked > 2


def test_scores_do_not_depend_on_the_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, Oracle(say))
    small = run(SMALL, inputs(tmp_path), tmp_path / "small").numbers
    large = run(SMALL.model_copy(update={"max_batch_tokens": 100_000}), inputs(tmp_path), tmp_path / "large").numbers
    assert small == large
    assert (tmp_path / "small/answers.jsonl").read_bytes() == (tmp_path / "large/answers.jsonl").read_bytes()


def test_scoring_again_asks_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, Oracle(say))
    given = inputs(tmp_path, {"split": "row", "answer_form": "letter"})
    (given[0] / "train_documents.txt").write_text(document_key("昨日から熱がある。") + "\nother\n", encoding="utf-8")
    first = run(SMALL, given, tmp_path / "first").numbers
    oracle = use(monkeypatch, Oracle(say))
    recipe = SMALL.model_copy(update={"bootstrap_samples": 77})
    again = run(recipe, [tmp_path / "first/answers.jsonl", *given[1:]], tmp_path / "again").numbers
    assert oracle.calls == 0
    assert [row["score"] for row in again["scores"]] == [row["score"] for row in first["scores"]]
    assert [again[name] for name in ("model", "split", "leakage")] == [
        first[name] for name in ("model", "split", "leakage")
    ]
    assert first["leakage"][0]["exact"] == 1
    assert (tmp_path / "again/answers.jsonl").read_bytes() == (tmp_path / "first/answers.jsonl").read_bytes()


def test_answers_from_elsewhere(tmp_path: Path) -> None:
    given = inputs(tmp_path)
    file = tmp_path / "theirs.jsonl"
    rows = [{"id": "smdis/00000", "answer": "A\ud800"}, {"id": "other/1", "answer": "B"}]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    recipe = SMALL.model_copy(update={"tasks": ("smdis",)})
    numbers = run(recipe, [file, *given[1:]], tmp_path / "out").numbers
    assert numbers["scores"][0]["score"] == 0.5  # the question without an answer counts as wrong
    assert numbers["answers"]["of_unknown_questions"] == 1
    file.write_text('{"id": "smdis/00000"}\n', encoding="utf-8")
    with pytest.raises(UserError, match=r"theirs.jsonl:1: (id|answer) is missing or not text"):
        run(recipe, [file, *given[1:]], tmp_path / "bad")


def test_max_items_draws_by_the_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, Oracle(say))
    numbers = run(SMALL.model_copy(update={"max_items": 1}), inputs(tmp_path), tmp_path / "out").numbers
    assert {row["n"] for row in numbers["scores"]} == {1}


def test_text_then_letter_always_has_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, Oracle(lambda prompt: "熱がある\nA"))
    recipe = SMALL.model_copy(update={"tasks": ("smdis",), "modes": ("free",), "max_new_tokens_choice": 1})
    numbers = run(recipe, inputs(tmp_path, {"answer_form": "text_letter"}), tmp_path / "out").numbers
    assert numbers["scores"][0]["score"] == 0.5 and numbers["scores"][0]["also"]["answer_rate"] == 1


def test_long_prompts_lose_their_middle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    oracle = use(monkeypatch, Oracle(say))
    oracle.window = 160
    recipe = SMALL.model_copy(update={"tasks": ("smdis",), "modes": ("free",)})
    numbers = run(recipe, inputs(tmp_path), tmp_path / "out").numbers
    assert numbers["answers"]["shortened_prompts"] == 2
    assert all(text.endswith("\n" + ASSISTANT) for text in oracle.prompts)


def test_without_pools_there_are_no_baselines_and_a_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = inputs(tmp_path)
    for path in (given[1] / "jmed_llm/datasets/all").glob("*.csv"):
        path.unlink()
    (given[1] / "jmed_llm/jcsts_source/japanese_clinical_sts_pairs.csv").unlink()
    use(monkeypatch, Oracle(say))
    report = run(SMALL, given, tmp_path / "out")
    assert report.numbers["scores"][0]["baselines"] == {}
    assert "no baselines" in report.numbers["training_note"] and "no baselines" in report.markdown


def empty(folder: Path) -> Path:
    folder.mkdir()
    return folder


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda paths: paths[:1], "no benchmark data among the inputs"),
        (lambda paths: [paths[1], paths[1]], "no model among the inputs"),
        (lambda paths: [paths[0], empty(paths[0].parent / "empty")], "neither"),
        (lambda paths: [paths[0], paths[1], paths[1] / "no.csv"], "not there"),
    ],
)
def test_check_finds_wrong_inputs(tmp_path: Path, change, message: str) -> None:
    (problem,) = check(SMALL, change(inputs(tmp_path)))
    assert re.search(message, str(problem))


def test_a_stage_that_is_not_finished_is_told_of_and_the_data_are_looked_at(tmp_path: Path) -> None:
    """`rinsho all`, killed while it tuned, checks the evaluation before it goes on: the model is half there."""
    half = tmp_path / "finetune"
    half.mkdir()
    (half / "manifest.json").write_text("{}", encoding="utf-8")
    given = [half, *inputs(tmp_path)[1:]]
    (problem,) = check(SMALL, given)
    assert str(problem).startswith(f"{half}: this stage has not finished")
    found = check(SMALL.model_copy(update={"tasks": ("smids",)}), given)
    assert ["unknown task smids" in str(problem) for problem in found] == [False, True]


def test_check_finds_unknown_tasks_and_passes_good_ones(tmp_path: Path) -> None:
    assert check(SMALL, inputs(tmp_path)) == []
    (problem,) = check(SMALL.model_copy(update={"tasks": ("smids",)}), inputs(tmp_path))
    assert "unknown task smids" in str(problem)


def test_with_a_real_generator(tmp_path: Path) -> None:
    """A tiny random model: answers in all modes are legal, and do not depend on the batch."""
    pytest.importorskip("torch")
    from toy_models import toy_folder

    folder = toy_folder(tmp_path / "toy", window=2048)
    data = inputs(tmp_path)[1:]
    recipe = SMALL.model_copy(update={"max_new_tokens": 16, "max_new_tokens_choice": 8})
    run(recipe, [folder, *data], tmp_path / "small")
    run(recipe.model_copy(update={"max_batch_tokens": 50_000}), [folder, *data], tmp_path / "large")
    small, large = answers(tmp_path / "small"), answers(tmp_path / "large")
    assert {key: row["answer"] for key, row in small.items()} == {key: row["answer"] for key, row in large.items()}
    assert small["smdis/00000", "constrained"]["answer"] in ("A", "B")
    assert all(value < 0 for row in small.values() for value in row["logprobs"] or ())


def test_examinations_of_trained_years_are_never_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = inputs(tmp_path, {"igakuqa_years": [2030]})
    (given[1] / "igakuqa/data/2031").mkdir()
    later = given[1] / "igakuqa/data/2031/1000-A.jsonl"
    later.write_text(json.dumps(EXAM | {"problem_id": "1000A1"}) + "\n", encoding="utf-8")
    use(monkeypatch, Oracle(say))
    recipe = SMALL.model_copy(update={"tasks": ("igakuqa",)})
    report = run(recipe, given, tmp_path / "out")
    assert {row["task"] for row in report.numbers["scores"]} == {"igakuqa-2031"}
    assert "IgakuQA 2030 not asked" in report.markdown
    named = recipe.model_copy(update={"years": (2030,)})
    assert "tuned on the examination of 2030" in str(check(named, given)[0])
