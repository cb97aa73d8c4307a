"""A tuned model as a folder and as GGUF files: the same questions, answers, scores, facts and leakage."""

import json
import multiprocessing
import os
import shutil
import signal

import pytest

from finetune.conftest import base, data  # noqa: F401
from generate_many.toy_gguf import export
from rinsho import finetune
from rinsho.errors import UserError
from rinsho.evaluate import Recipe, ask, check, run
from rinsho.evaluate.facts import read_facts
from rinsho.evaluate.inputs import Subject, sort_inputs
from rinsho.evaluate.questions import facts_of

pytest.importorskip("llama_cpp")

RECIPE = Recipe(modes=("free", "constrained", "likelihood"), bootstrap_samples=50, plot=False, threads=1, rotations=1)


@pytest.fixture(scope="module")
def tuned(base, data, tmp_path_factory):  # noqa: F811
    recipe = finetune.Recipe(
        max_tokens=40 * 512, sequence_length=128, batch_tokens=512, dtype="fp32", threads=1, warmup_steps=2,
        learning_rate=3e-3, prompt_form="short", split="row",
    )  # fmt: skip
    out = tmp_path_factory.mktemp("tuned") / "tuned"
    finetune.run(recipe, [base, data], out)
    return out


@pytest.fixture(scope="module")
def exported(tuned):
    return export(tuned, tuned.parent / "exported", "f16", "q8_0")


def answers(folder):
    rows = [json.loads(line) for line in (folder / "answers.jsonl").read_text(encoding="utf-8").splitlines()]
    return {(row["id"], row["mode"], row["rotation"]): row for row in rows}


def test_answers_and_scores_are_those_of_the_folder(tuned, exported, data, tmp_path):  # noqa: F811
    report = run(RECIPE, [tuned, exported, data], tmp_path / "out")  # a folder of files is all of them
    names = [model["name"] for model in report.numbers["models"]]
    assert names == ["tuned", "model-f16", "model-q8_0"]
    wanted, exact, rounded = (answers(tmp_path / "out" / name) for name in names)
    assert exact.keys() == rounded.keys() == wanted.keys() and len(wanted) > 25
    assert len({row["answer"] for row in wanted.values()}) > 4  # the model does say different things
    for key, row in wanted.items():
        assert exact[key]["answer"] == row["answer"], key
        if row["logprobs"]:
            assert exact[key]["logprobs"] == pytest.approx(row["logprobs"], abs=0.01)
            assert rounded[key]["logprobs"] == pytest.approx(row["logprobs"], abs=0.3)
    assert sum(rounded[key]["answer"] == row["answer"] for key, row in wanted.items()) >= 0.9 * len(wanted)
    scores = [
        {(row["task"], row["mode"]): row["score"] for row in model["numbers"]["scores"]}
        for model in report.numbers["models"]
    ]
    assert scores[0] == scores[1]
    told = [
        {name: model["numbers"][name] for name in ("how", "seen_tokens", "prompt_form", "split", "leakage_source")}
        for model in report.numbers["models"]
    ]
    assert told[0] == told[1] == told[2] and told[0]["how"] == "fine-tuned"
    leaks = [
        [{name: row[name] for name in ("task", "questions", "exact", "near")} for row in model["numbers"]["leakage"]]
        for model in report.numbers["models"]
    ]
    assert leaks[0] == leaks[1] == leaks[2] and leaks[0]


def test_facts_are_those_beside_the_file(tuned, exported, tmp_path):
    file = exported / "model-f16.gguf"
    facts, wanted = facts_of(Subject(file, "folder")), read_facts(tuned)
    assert facts.name == "exported/model-f16"
    assert (facts.splitting, facts.documents, facts.form) == (wanted.splitting, wanted.documents, wanted.form)
    assert facts.documents and facts.tuned and facts.prompt_form == "short"
    alone = shutil.copy(file, tmp_path / "alone.gguf")
    assert facts_of(Subject(alone, "folder")).splitting is None and Subject(alone, "folder").beside == []


def test_files_and_folders_of_files_are_models(exported, data, tmp_path):  # noqa: F811
    files = [exported / "model-f16.gguf", exported / "model-q8_0.gguf"]
    assert [subject.path for subject in sort_inputs([exported, data]).subjects] == files
    assert [subject.path for subject in sort_inputs([files[1], data]).subjects] == files[1:]
    assert {file.name for file in sort_inputs([files[1], data]).subjects[0].beside} >= {"rinsho.json", "tokenizer.json"}
    assert not check(RECIPE, [files[0], data])
    assert "not there" in str(check(RECIPE, [tmp_path / "none.gguf", data])[0])
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF")
    with pytest.raises(UserError, match="cut off"):
        run(RECIPE, [broken, data], tmp_path / "out")
    assert not (tmp_path / "out/manifest.json").exists()  # free for another try


def test_what_lies_beside_a_file_decides_too(exported, data, tmp_path):  # noqa: F811
    folder = shutil.copytree(exported, tmp_path / "exported")
    one = RECIPE.model_copy(update={"tasks": ("smdis",), "modes": ("constrained",), "rotations": 0})
    run(one, [folder / "model-f16.gguf", data], tmp_path / "out")
    run(one, [folder / "model-f16.gguf", data], tmp_path / "out")  # skipped
    about = json.loads((folder / "rinsho.json").read_text())
    about["finetune"]["prompt_form"] = "benchmark"
    (folder / "rinsho.json").write_text(json.dumps(about))
    with pytest.raises(UserError, match="other inputs"):
        run(one, [folder / "model-f16.gguf", data], tmp_path / "out")


SMALL = RECIPE.model_copy(update={"max_batch_tokens": 300})


def _run_until_killed(inputs, out):
    whole, calls = ask._answer, []

    def killed_at_the_fourth(*given):
        calls.append(given)
        if len(calls) == 4:
            os.kill(os.getpid(), signal.SIGKILL)
        return whole(*given)

    ask._answer = killed_at_the_fourth
    run(SMALL, inputs, out)


def test_an_interrupted_evaluation_goes_on_to_the_same_answers(exported, data, tmp_path):  # noqa: F811
    inputs = [exported / "model-q8_0.gguf", data]
    run(SMALL, inputs, tmp_path / "whole")
    process = multiprocessing.get_context("fork").Process(target=_run_until_killed, args=(inputs, tmp_path / "cut"))
    process.start()
    process.join(timeout=120)
    assert process.exitcode == -signal.SIGKILL and len(list((tmp_path / "cut/partial").rglob("*.jsonl"))) == 3
    run(SMALL, inputs, tmp_path / "cut")
    assert (tmp_path / "cut/answers.jsonl").read_bytes() == (tmp_path / "whole/answers.jsonl").read_bytes()
