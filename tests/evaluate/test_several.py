"""Several models in one command: folders, interruption, added models, paired rows, lengths, seen tokens, tables."""

from __future__ import annotations

import csv
import json
import multiprocessing
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from evaluate.test_run import EXAM, say
from evaluate.toy_oracle import Oracle
from rinsho.errors import UserError
from rinsho.evaluate import Recipe, run, work
from rinsho.evaluate.inputs import Subject
from rinsho.evaluate.several import Evaluated, _places, lengths, names, notes, over_tokens, paired
from rinsho.evaluate.several_report import markdown, scores_csv
from rinsho.tasks import Item, prompts
from tasks.toy_jmed import toy_jmed

RECIPE = Recipe(tasks=("smdis", "nrner"), modes=("free", "constrained"), bootstrap_samples=50, plot=False)
PRODUCTS = ("scores.json", "scores.csv", "report.md")
CRADE = Item(
    "crade/0", "crade", "choice", "disease", prompts.CHOICE, "", ("無関係", "低い", "高い", "確実"), ("B",), "", "d",
    ordered=True,
)  # fmt: skip
PROBLEM = Item("igakuqa/1", "igakuqa", "choice", "", prompts.EXAM, "", tuple("肝腎肺心脳"), ("a",), "", "")


def models(tmp_path: Path, *folders: str) -> list[Path]:
    for name in folders:
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "config.json").write_text(json.dumps({"name": name}), encoding="utf-8")
    if not (tmp_path / "data").exists():
        toy_jmed(tmp_path / "data/jmed_llm")
    return [*(tmp_path / name for name in folders), tmp_path / "data"]


def use(monkeypatch: pytest.MonkeyPatch, **oracles: Oracle) -> dict[str, Oracle]:
    """The stand-ins by the name of the model folder."""
    monkeypatch.setattr(work, "_open", lambda folder, recipe: oracles[folder.name])
    return oracles


def short(prompt: str) -> str:
    return "['発熱']" if "リスト形式" in prompt else "B"


def given_answers(path: Path, answers: dict[str, str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = (json.dumps({"id": identifier, "answer": answer}) + "\n" for identifier, answer in answers.items())
    path.write_text("".join(lines), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (["a/x", "b/y"], ["x", "y"]),
        (["runs/row/finetune", "runs/document/finetune", "base"], ["row-finetune", "document-finetune", "base"]),
        (["a/Model", "b/model"], ["a-Model", "b-model"]),
        (["partial", "DONE", "Scores.csv"], ["model-partial", "model-DONE", "model-Scores.csv"]),
        (["m/日本 語/../モデル:7B", ".hidden"], ["モデル_7B", "hidden"]),
        (["a b/m", "a_b/m"], ["m", "m-2"]),
        (["c/step-00003200", "c/step-00006400"], ["step-00003200", "step-00006400"]),
    ],
)
def test_names_are_the_shortest_ends_that_differ(tmp_path: Path, paths: list[str], expected: list[str]) -> None:
    assert names([tmp_path / path for path in paths]) == expected


def test_files_lend_their_folder_or_stem() -> None:
    files = ["eval/one/answers.jsonl", "eval/two/answers.jsonl", "theirs.jsonl", "gpt.yaml", "gpt.jsonl"]
    subjects = [Subject(Path(file), "answers") for file in files]
    assert names(_places(subjects)) == ["one", "two", "theirs", "gpt.yaml", "gpt.jsonl"]
    with pytest.raises(UserError, match="given twice"):
        names(_places([subjects[0], subjects[0]]))


def test_every_model_has_its_own_run_and_is_asked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = models(tmp_path, "row/tuned", "base")
    oracles = use(monkeypatch, tuned=Oracle(say), base=Oracle(short))
    report = run(RECIPE, given, tmp_path / "out")
    numbers = report.numbers
    assert [model["name"] for model in numbers["models"]] == ["tuned", "base"]
    for model in numbers["models"]:
        own = json.loads((tmp_path / "out" / model["folder"] / "report.json").read_text(encoding="utf-8"))
        assert own["numbers"] == model["numbers"]
    assert numbers == json.loads((tmp_path / "out/scores.json").read_text(encoding="utf-8"))
    done = json.loads((tmp_path / "out/DONE").read_text(encoding="utf-8"))["products"]
    assert set(done) == {"scores.json", "scores.csv"}
    accuracy, kappa = (row for row in numbers["paired"] if (row["task"], row["mode"]) == ("smdis", "free"))
    assert (kappa["metric"], kappa["score"], kappa["score_against"]) == ("kappa", 0, 1)
    row = accuracy
    assert (row["model"], row["against"], row["n"], row["of"]) == ("base", "tuned", 2, 2)
    assert (row["score"], row["score_against"], row["difference"]) == (0.5, 1.0, -0.5)
    entities = {row["metric"]: row for row in numbers["paired"] if (row["task"], row["mode"]) == ("nrner", "free")}
    assert set(entities) == {"exact_f1", "overlap_f1"}
    assert entities["exact_f1"]["difference"] == pytest.approx(1 - 2 / 3)
    length = {(row["task"], row["model"]): row for row in numbers["lengths"]}
    assert length["nrner", "base"]["chars"] == len("['発熱']") and length["nrner", "tuned"]["chars_ratio"] == 1
    assert numbers["over_tokens"] is None and numbers["notes"] == []
    assert "| smdis | free | accuracy | base | tuned | 2 | 0.500 / 1.000 | -0.500 |" in report.markdown
    calls = [oracle.calls for oracle in oracles.values()]
    (tmp_path / "out/DONE").unlink()
    assert run(RECIPE, given, tmp_path / "out").numbers == numbers
    assert [oracle.calls for oracle in oracles.values()] == calls


def test_a_kill_between_or_within_models_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = models(tmp_path, "a", "b")
    whole = use(monkeypatch, a=Oracle(say), b=Oracle(short))
    run(RECIPE, given, tmp_path / "whole")
    expected = [(tmp_path / "whole" / name).read_bytes() for name in PRODUCTS]
    for stop in (0, 2):
        out = tmp_path / f"killed-{stop}"
        killed = Oracle(short, stop_after=stop, on_stop=lambda: os.kill(os.getpid(), signal.SIGKILL))
        use(monkeypatch, a=Oracle(say), b=killed)
        process = multiprocessing.get_context("fork").Process(target=run, args=(RECIPE, given, out))
        process.start()
        process.join(60)
        assert process.exitcode == -signal.SIGKILL
        rest = use(monkeypatch, a=Oracle(say), b=Oracle(short))
        run(RECIPE, given, out)
        assert (rest["a"].calls, rest["b"].calls) == (0, whole["b"].calls - stop)
        assert [(out / name).read_bytes() for name in PRODUCTS] == expected


def test_an_error_about_the_second_model_keeps_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = models(tmp_path, "a", "b")

    def fail() -> None:
        raise UserError("out of memory", where="b")

    use(monkeypatch, a=Oracle(say), b=Oracle(short, stop_after=0, on_stop=fail))
    with pytest.raises(UserError, match="out of memory"):
        run(RECIPE, given, tmp_path / "out")
    rest = use(monkeypatch, a=Oracle(say), b=Oracle(short))
    run(RECIPE, given, tmp_path / "out")
    assert rest["a"].calls == 0 and rest["b"].calls > 0


def test_a_model_is_added_by_giving_the_finished_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    *two, data = models(tmp_path, "a", "b")
    third = models(tmp_path, "c")[0]
    use(monkeypatch, a=Oracle(say), b=Oracle(short))
    first = run(RECIPE, [*two, data], tmp_path / "out").numbers
    rest = use(monkeypatch, a=Oracle(say), b=Oracle(short), c=Oracle(say))
    with pytest.raises(UserError, match="other inputs"):
        run(RECIPE, [*two, third, data], tmp_path / "out")
    more = run(RECIPE, [tmp_path / "out/a", tmp_path / "out/b", third, data], tmp_path / "more").numbers
    assert [rest[name].calls > 0 for name in "abc"] == [False, False, True]
    assert [model["name"] for model in more["models"]] == ["a", "b", "c"]
    for before, after in zip(first["models"], more["models"], strict=False):
        assert before["numbers"]["scores"] == after["numbers"]["scores"]
    pairs = {(row["model"], row["against"]) for row in more["paired"]}
    assert pairs == {("b", "a"), ("c", "a"), ("c", "b")}
    # the folder of both stands for them
    whole = run(RECIPE, [tmp_path / "out", third, data], tmp_path / "whole").numbers
    assert whole["paired"] == more["paired"]


def test_answers_made_elsewhere_are_compared(tmp_path: Path) -> None:
    data = models(tmp_path)[-1]
    right = {"smdis/00000": "A", "smdis/00001": "B"}
    files = [given_answers(tmp_path / "one.jsonl", right), given_answers(tmp_path / "two.jsonl", {"smdis/00000": "B"})]
    recipe = RECIPE.model_copy(update={"tasks": ("smdis",)})
    report = run(recipe, [*files, data], tmp_path / "out")
    row, _ = report.numbers["paired"]
    assert (row["model"], row["n"], row["of"], row["difference"]) == ("two", 1, 2, -1.0)
    assert any("two left 1 answers out" in note for note in report.numbers["notes"])
    assert "1 of 2" in report.markdown


def evaluated(name: str, items: list[Item], answers: list[str], **numbers: Any) -> Evaluated:
    """A model whose right answers are those equal to the gold one."""
    rows = {(item.id, "free", 0): {"answer": a, "tokens": 2 * len(a)} for item, a in zip(items, answers, strict=True)}
    values: dict[tuple[str, str, str], dict[str, Any]] = {}
    for item, answer in zip(items, answers, strict=True):
        task = item.task if item.year is None else f"{item.task}-{item.year}"
        for key in {task, item.task}:
            values.setdefault((key, "free", "accuracy"), {})[item.id] = float(answer == item.gold[0])
    scores = [{"task": task, "mode": mode, "metric": "accuracy", "n": len(found), "score": 0.5, "interval": [0.4, 0.6],
               "interval_kind": "Wilson", "chance": 0.2}
              for (task, mode, _), found in values.items() if task != "igakuqa"]  # fmt: skip
    about = {"prompt_form": "benchmark", "few_shot": 0, "test_part": "published", "answer_form": "letter"}
    origin = numbers.pop("origin", Path("/models") / name)
    return Evaluated(name, origin, {"scores": scores, **about, **numbers}, items, rows, values)


def test_paired_rows_on_constructed_answers() -> None:
    items = [replace(CRADE, id=f"crade/{n}", document=str(n)) for n in range(20)]
    good, bad = ["B"] * 20, ["B"] * 8 + ["A"] * 12
    rows = paired([evaluated("good", items, good), evaluated("bad", items, bad), evaluated("same", items, bad)], 200, 1)
    first, second, third = rows
    assert [(row["model"], row["against"]) for row in rows] == [("bad", "good"), ("same", "good"), ("same", "bad")]
    assert first["difference"] == pytest.approx(-0.6) and first["interval"][0] < -0.6 < first["interval"][1] < 0
    assert first["p_value"] == pytest.approx(2 * 0.5**12) and first["test"].startswith("McNemar")
    assert first["p_holm"] == pytest.approx(3 * first["p_value"])  # three comparisons of one mode
    assert (third["difference"], third["p_value"], third["p_holm"]) == (0, 1, 1)
    assert second["p_holm"] == pytest.approx(3 * first["p_value"])


def test_many_models_are_compared_with_the_first_one_only() -> None:
    items = [replace(CRADE, id=f"crade/{n}", document=str(n)) for n in range(4)]
    rows = paired([evaluated(f"m{n}", items, ["B"] * 4) for n in range(6)], 20, 1)
    assert [(row["model"], row["against"]) for row in rows] == [(f"m{n}", "m0") for n in range(1, 6)]


def test_common_questions_of_different_parts_and_years_are_compared() -> None:
    exams = [replace(PROBLEM, id=f"igakuqa/{n}", document=str(n), year=2018 + n // 5) for n in range(15)]
    one = evaluated("one", exams, ["a"] * 15)
    two = evaluated("two", exams[5:], ["b"] * 10, test_part="own", prompt_form="short")
    rows = {row["task"]: row for row in paired([one, two], 20, 1)}
    assert set(rows) == {"igakuqa-2019", "igakuqa-2020", "igakuqa"}
    assert (rows["igakuqa"]["n"], rows["igakuqa"]["of"], rows["igakuqa"]["difference"]) == (10, 15, -1)
    assert [rows["igakuqa-2019"][name] for name in ("n", "of")] == [5, 5]
    told = "\n".join(notes([one, two]))
    assert "two was not asked 5 of the 15 questions" in told
    assert "`prompt_form` differs (benchmark: one; short: two)" in told and "`test_part` differs" in told
    assert {row["task"] for row in paired([one, evaluated("x", exams[:5], ["a"] * 5)], 20, 1)} == {"igakuqa-2018"}


def test_questions_that_a_mode_cannot_answer_are_not_missing() -> None:
    items = [PROBLEM, replace(PROBLEM, id="igakuqa/2", kind="number", options=(), gold=("26",))]
    one = evaluated("one", items, ["a", "26"])
    values = {("igakuqa", "constrained", "accuracy"): {PROBLEM.id: 1.0}}
    (row,) = paired([replace(one, values=values), replace(one, name="two", values=values)], 20, 1)
    assert (row["n"], row["of"]) == (1, 1)


def test_lengths_are_compared_on_common_questions() -> None:
    items = [replace(CRADE, id=f"crade/{n}", document=str(n)) for n in range(3)]
    before, after = evaluated("before", items, ["AAAA", "AA", "AAAAAA"]), evaluated("after", items[:2], ["A", "AA"])
    rows = {row["model"]: row for row in lengths([before, after])}
    assert (rows["before"]["chars"], rows["before"]["tokens"], rows["before"]["chars_ratio"]) == (4, 8, 1)
    assert (rows["after"]["n"], rows["after"]["chars"], rows["after"]["chars_ratio"]) == (2, 1.5, 0.5)
    row = after.answers["crade/0", "free", 0]
    row["tokens"] = None  # type: ignore[index]
    rows = {row["model"]: row for row in lengths([before, after])}
    assert (rows["after"]["tokens"], rows["after"]["tokens_ratio"]) == (4, 1)


def test_checkpoints_are_series_in_the_order_of_their_tokens() -> None:
    points = [1, 3, 1, 1, 0]
    exams = [
        replace(PROBLEM, id=f"igakuqa/{year}-{n}", document=f"{year}{n}", year=year, points=points[n])
        for year in (2018, 2019)
        for n in range(5)
    ]
    answers = ["b", "a", "b", "b", "a", "a", "a", "a", "b", "b"]  # 3 of 6 points, then 5 of 6
    run_a, run_b = Path("/runs/a"), Path("/runs/b")
    some = [
        evaluated("a-2", exams, answers, seen_tokens=200, origin=run_a),
        evaluated("b-1", exams, ["a"] * 10, seen_tokens=150, origin=run_b),
        evaluated("a-1", exams, ["b"] * 10, seen_tokens=100, origin=run_a),
        evaluated("other", exams, ["b"] * 10),
    ]
    rows = over_tokens(some, 200, 1)
    assert rows is not None
    mean = [row for row in rows if row["task"] == "igakuqa"]
    assert [(row["run"], row["model"], row["seen_tokens"]) for row in mean] == [
        ("a", "a-1", 100), ("a", "a-2", 200), ("b", "b-1", 150)
    ]  # fmt: skip
    assert [row["score"] for row in mean] == [0, pytest.approx((3 / 6 + 5 / 6) / 2), 1]
    assert mean[1]["interval"][0] < mean[1]["score"] < mean[1]["interval"][1]
    assert mean[2]["interval"] == [1, 1] and mean[0]["chance"] == pytest.approx(0.2) and mean[0]["n"] == 10
    assert {row["task"] for row in rows} == {"igakuqa", "igakuqa-2018", "igakuqa-2019"}
    assert over_tokens(some[2:], 200, 1) is None
    later = [some[2], evaluated("a-3", exams[5:], ["a"] * 5, seen_tokens=300, origin=run_a)]
    assert [row["n"] for row in over_tokens(later, 200, 1) or () if row["task"] == "igakuqa"] == [5, 5]


def test_a_folder_of_checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = [f"pretrain/checkpoints/step-{step:08d}" for step in (100, 200)]
    data = models(tmp_path, *steps)[-1]
    exam = data / "igakuqa/data/2030/999-A.jsonl"
    exam.parent.mkdir(parents=True)
    exam.write_text(json.dumps(EXAM) + "\n", encoding="utf-8")
    for number, step in enumerate(steps, 1):
        about = {"stage": "pretrain", "steps": number * 100, "seen_tokens": number * 1000}
        (tmp_path / step / "rinsho.json").write_text(json.dumps(about), encoding="utf-8")
    use(monkeypatch, **{"step-00000100": Oracle(short, chat=False), "step-00000200": Oracle(say, chat=False)})
    recipe = Recipe(tasks=("igakuqa",), modes=("free",), bootstrap_samples=20, plot=False)
    report = run(recipe, [tmp_path / "pretrain/checkpoints", data], tmp_path / "out")
    told = [(row["run"], row["seen_tokens"], row["score"]) for row in report.numbers["over_tokens"]]
    assert ("pretrain", 1000, 0) in told and ("pretrain", 2000, 1) in told
    with (tmp_path / "out/over_tokens.csv").open(encoding="utf-8", newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["seen_tokens"] for row in table if row["task"] == "igakuqa"] == ["1000", "2000"]
    assert "## Scores over seen tokens" in report.markdown


def test_the_table_holds_every_score(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = models(tmp_path, "a", "b")
    use(monkeypatch, a=Oracle(say), b=Oracle(short))
    numbers = run(RECIPE, given, tmp_path / "out").numbers
    with (tmp_path / "out/scores.csv").open(encoding="utf-8", newline="") as file:
        table = list(csv.DictReader(file))
    rows = [(model["name"], row) for model in numbers["models"] for row in model["numbers"]["scores"]]
    assert len(table) == len(rows)
    for line, (name, row) in zip(table, rows, strict=True):
        assert (line["model"], line["task"], line["mode"], int(line["n"])) == (name, row["task"], row["mode"], row["n"])
        assert [float(line[key]) for key in ("score", "low", "high", "chance")] == [
            row["score"], *row["interval"], row["chance"]
        ]  # fmt: skip
        also = {key: value for key, value in row["also"].items() if not key.endswith("_interval")}
        assert {key: line[key] for key in also} == {
            key: "" if value is None else str(value) for key, value in also.items()
        }
        assert line["prompt_form"] == "benchmark"
    assert {"baseline_majority", "baseline_copy_lexicon", "kappa_low", "leaked_score", "clean_n"} <= table[0].keys()
    assert scores_csv([]).count("\n") == 1 and markdown(numbers).startswith("# Evaluation of 2 models")
