"""The exported tasks: files, prompts, scores equal to ours, and (slow) lm-evaluation-harness itself on a toy model."""

from __future__ import annotations

import importlib.util
import json
import random
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from rinsho.errors import UserError
from rinsho.evaluate import harness, harness_utils
from rinsho.evaluate.scoring import judge
from rinsho.tasks import read_data
from rinsho.tasks.asking import Asking
from tasks.toy_jmed import toy_jmed

ROOT = Path(__file__).resolve().parents[2]
EXAM = [
    {"problem_id": "999A1", "problem_text": "二つ選べ。", "choices": ["肝", "腎", "肺"], "answer": ["a", "c"], "points": "3"},
    {"problem_id": "999A2", "problem_text": "どちらか。", "choices": ["肝", "腎"], "answer": ["a or b"], "points": "1"},
    {"problem_id": "116A71", "problem_text": "除外。", "choices": ["肝", "腎"], "answer": ["a"], "points": "1"},
    {"problem_id": "999A3", "problem_text": "計算せよ。", "choices": [], "answer": ["26"], "points": "1"},
]  # fmt: skip
HOSTILE = [
    "", "A", "わからない", "ADEの可能性は低い", "['発熱', '発熱']", "['発熱', ['咳']]", "['発熱'", "[1, '発熱']",
    "__import__('os').system('false')", "[]", "(1)", "\ud800[", "[" * 9000, "['発熱']\n質問", "a,c", "c,a", "ａ，Ｃ", " a",
    "26", "約26です", "2６", "26 27", "a,b,c", "Z", "x" * 20_000 + "A",
]  # fmt: skip


def data(folder: Path) -> Path:
    toy_jmed(folder / "jmed_llm")
    exam = folder / "igakuqa/data/2030/999-A.jsonl"
    exam.parent.mkdir(parents=True)
    exam.write_text("".join(json.dumps(row | {"text_only": True}) + "\n" for row in EXAM), encoding="utf-8")
    return folder


def config(path: Path) -> dict:
    """A task's YAML, its functions by name."""

    class Loader(yaml.SafeLoader):
        pass

    Loader.add_constructor("!function", lambda loader, node: node.value)
    return yaml.load(path.read_text(encoding="utf-8"), Loader)


def module(path: Path) -> Any:
    """A file as a module: `evaluate` is another package where lm_eval is installed."""
    spec = importlib.util.spec_from_file_location(f"{path.stem}_as_file", path)
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_every_task_names_functions_and_files_that_are_there(tmp_path: Path) -> None:
    told = harness.write([data(tmp_path / "data")], tmp_path / "out", rotations=1)
    assert told.endswith("rinsho_jmed,rinsho_igakuqa,rinsho_smdis_rotation1,rinsho_jcsts_rotation1,"
                         "rinsho_igakuqa_2030_choice_rotation1")  # fmt: skip
    files = {path.stem: config(path) for path in (tmp_path / "out").glob("*.yaml")}
    names = {row.get("task") for row in files.values() if "group" not in row}
    for stem, row in files.items():
        if "group" in row:
            assert stem == row["group"] + "_group" and set(row["task"]) <= names
            continue
        assert stem == row["task"]
        functions = [row["custom_dataset"], row["process_results"], *(m["aggregation"] for m in row["metric_list"])]
        for name in functions:
            assert name == "mean" or callable(getattr(harness_utils, name.removeprefix("utils.")))
        docs = rows(tmp_path / "out" / row["dataset_kwargs"]["file"])
        columns = {
            row["doc_to_text"],
            row["doc_to_target"],
            *({row[k] for k in ("description", "doc_to_choice") if k in row}),
        }
        assert docs and columns <= docs[0].keys()
    assert {"rinsho_smdis", "rinsho_smdis_chat", "rinsho_smdis_free", "rinsho_nrner", "rinsho_nrner_free"} <= names
    assert "rinsho_nrner_chat" not in names and "rinsho_igakuqa_2030_number_chat" not in names
    assert files["rinsho_jcsts"]["metric_list"][-1]["aggregation"] == "utils.linear_kappa"
    assert not [name for name in files if name.startswith("rinsho_jmed") and "aggregate_metric_list" in files[name]]


def test_prompts_and_choices_are_those_we_ask(tmp_path: Path) -> None:
    folder = data(tmp_path / "data")
    harness.write([folder], tmp_path / "out")
    docs = {row["id"]: row for path in (tmp_path / "out").glob("*.jsonl") for row in rows(path)}
    oracle = module(Path(__file__).with_name("toy_oracle.py")).Oracle(chat=False)
    asking = Asking(oracle, "letter")
    items = read_data([folder], "test")
    assert docs.keys() == {item.id for item in items}
    for item in items:
        doc, decode = docs[item.id], oracle.tokenizer.decode
        assert doc["prompt"] == decode(asking.prompt(item))
        assert (doc["system"], doc["user"], doc["gold"]) == (item.system, item.prompt, list(item.gold))
        if item.kind == "choice":
            assert doc["choices"] == doc["letters"] == [decode(ids) for ids in asking.options(item)]
            assert doc["letters"][doc["target"]] == doc["accepted"][0]
    assert docs["igakuqa/999A1"]["letters"] == ["a,b", "a,c", "b,c"] and docs["igakuqa/999A1"]["target"] == 1
    assert docs["igakuqa/999A2"]["accepted"] == ["a", "b"]
    assert docs["igakuqa/116A71"]["always_right"] and not docs["igakuqa/999A1"]["always_right"]


def test_an_english_answer_stands_behind_a_space(tmp_path: Path) -> None:
    """Prompt, delimiter and choice together are what we ask a base model; a chat form needs no space."""
    row = {"question": "Which organ makes bile?", "options": ["Heart", "Liver"], "answer": "Liver"}
    (tmp_path / "step1.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    harness.write([tmp_path / "step1.jsonl", data(tmp_path / "data")], tmp_path / "out")
    delimiters = {path.stem: config(path).get("target_delimiter") for path in (tmp_path / "out").glob("*.yaml")}
    name = "rinsho_usmle_step1"
    assert [delimiters[f"{name}{ending}"] for ending in ("", "_chat", "_free")] == [" ", "", ""]
    assert delimiters["rinsho_smdis"] == ""
    (doc,) = rows(tmp_path / f"out/{name}.jsonl")
    (item,) = read_data([tmp_path / "step1.jsonl"], "test")
    oracle = module(Path(__file__).with_name("toy_oracle.py")).Oracle(chat=False)
    asking, decode = Asking(oracle, "letter"), oracle.tokenizer.decode
    assert [doc["prompt"] + " " + choice for choice in doc["choices"]] == [
        decode(asking.prompt(item) + option) for option in asking.options(item)
    ]


def test_other_orders_and_the_text_form(tmp_path: Path) -> None:
    harness.write(
        [data(tmp_path / "data")], tmp_path / "out", tasks=["smdis", "igakuqa"], form="text_letter", rotations=9
    )
    assert not (tmp_path / "out/rinsho_smdis_rotation2.yaml").exists()  # two options have two orders
    first, second = (rows(tmp_path / f"out/rinsho_smdis{end}.jsonl")[0] for end in ("", "_rotation1"))
    assert first["choices"] == ["熱がある\nA", "熱がない\nB"] and second["choices"] == ["熱がない\nA", "熱がある\nB"]
    assert (first["accepted"], second["accepted"]) == (["A"], ["B"])
    turned = {row["id"]: row for row in rows(tmp_path / "out/rinsho_igakuqa_2030_choice_rotation2.jsonl")}
    assert turned["igakuqa/999A1"]["accepted"] == ["a,b"]  # c and a, two places back
    assert "igakuqa/999A2" not in turned


def test_scores_are_ours_on_any_answer(tmp_path: Path) -> None:
    """Free answers, hostile ones among them, score as in `rinsho evaluate`; kappa, points and F1 too."""
    folder = data(tmp_path / "data")
    harness.write([folder], tmp_path / "out")
    docs = {row["id"]: row for path in (tmp_path / "out").glob("*.jsonl") for row in rows(path)}
    draw = random.Random(1)
    for task in ("smdis", "jcsts", "nrner", "igakuqa"):
        items = read_data([folder], "test", tasks=[task])
        reader = {"nrner": harness_utils.entities}.get(task, harness_utils.free_choice)
        for _ in range(60):
            said = [draw.choice(HOSTILE) for _ in items]
            readers = [{"choice": harness_utils.free_exam, "number": harness_utils.number}[item.kind] if item.year
                       else reader for item in items]  # fmt: skip
            figures = [read(docs[i.id], [answer]) for read, i, answer in zip(readers, items, said, strict=True)]
            judged = judge(items, [{"answer": answer} for answer in said], "free", 1, 1)
            if task == "nrner":
                mean = sum(row["official_exact_f1"] for row in figures) / len(figures)
                assert mean == pytest.approx(judged.also["official_exact_f1"], abs=1e-12)
                continue
            assert tuple(row["acc"] for row in figures) == judged.values
            if task == "igakuqa":
                assert sum(row["points"] for row in figures) == judged.also["points"]
            else:
                kappa = harness_utils.linear_kappa if items[0].ordered else harness_utils.kappa
                expected = judged.also["kappa"]
                assert kappa([row["kappa"] for row in figures]) == pytest.approx(expected, abs=1e-12, nan_ok=True)


def test_kappa_is_that_of_the_room() -> None:
    from rinsho.tasks.score import kappa

    draw = random.Random(2)
    for size in (1, 2, 5, 60):
        for _ in range(50):
            pairs = [(draw.choice("ABCDEF"), draw.choice(["A", "B", "C", "F", "None"])) for _ in range(size)]
            gold, given = zip(*pairs, strict=True)
            for ours, weights in ((harness_utils.kappa, None), (harness_utils.linear_kappa, "linear")):
                assert ours(pairs) == pytest.approx(kappa(gold, given, weights), abs=1e-12, nan_ok=True)


def test_the_likeliest_choice_and_the_first_of_equal_ones() -> None:
    doc = {"choices": ["A", "B"], "letters": ["A", "B"], "accepted": ["B"], "always_right": False, "points": 3}
    assert harness_utils.choice(doc, [(-2.0, False), (-1.0, False)])["acc"] == 1
    assert harness_utils.choice(doc, [(-1.0, False), (-1.0, False)]) == {"acc": 0, "acc_norm": 0, "kappa": ("B", "A")}
    assert harness_utils.exam(doc, [(-2.0, False), (-1.0, False)])["points"] == 3


def test_the_folder_works_wherever_it_lies_and_without_rinsho(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in = SimpleNamespace(Dataset=SimpleNamespace(from_list=list))  # datasets takes seconds to import
    monkeypatch.setitem(sys.modules, "datasets", stand_in)
    harness.write([data(tmp_path / "data")], tmp_path / "out", tasks=["smdis"])
    shutil.move(tmp_path / "out", tmp_path / "elsewhere")
    path = tmp_path / "elsewhere/utils.py"
    assert "import rinsho" not in path.read_text(encoding="utf-8")
    found = module(path).questions(file="rinsho_smdis.jsonl", pretrained="MODEL")["test"]
    assert len(found) == 2 and found[0]["letters"] == ["A", "B"]


def test_only_an_older_export_is_replaced(tmp_path: Path) -> None:
    folder = data(tmp_path / "data")
    harness.write([folder], tmp_path / "out", tasks=["smdis"])
    harness.write([folder], tmp_path / "out", tasks=["nrner"])
    assert not (tmp_path / "out/rinsho_smdis.yaml").exists()
    (tmp_path / "mine").mkdir()
    with pytest.raises(UserError, match="something else is there"):
        harness.write([folder], tmp_path / "mine")
    with pytest.raises(UserError, match="unknown task smids"):
        harness.write([folder], tmp_path / "new", tasks=["smids"])
    path = folder / "igakuqa/data/2030/999-A.jsonl"
    path.write_text(json.dumps(EXAM[0] | {"problem_text": "\ud800"}) + "\n", encoding="utf-8")
    with pytest.raises(UserError, match="half a character") as error:
        harness.write([folder], tmp_path / "new", tasks=["igakuqa"])
    assert not (tmp_path / "new").exists() and "二つ" not in str(error.value)


@pytest.mark.slow
def test_lm_eval_gives_the_same_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Needs `pip install lm_eval`: every question of the toy data is answered alike by a random model."""
    if importlib.util.find_spec("lm_eval") is None:
        pytest.skip("lm_eval is not installed: pip install lm_eval in an environment of its own")
    from toy_models import toy_folder

    compare = module(ROOT / "benchmarks/evaluate_harness.py")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    model = toy_folder(tmp_path / "toy", window=2048)
    found = compare.compare(model, [data(tmp_path / "data")], None, None)
    assert len(found) == 6 and not [row["id"] for row in found if row["differs"] or row["largest"] > 1e-3]
    assert compare.table(found).count("\n") == 4


def test_an_older_export_is_replaced_and_nothing_else(tmp_path: Path) -> None:
    folder = data(tmp_path / "data")
    harness.write([folder], tmp_path / "out")
    harness.write([folder], tmp_path / "out", tasks=["smdis"])
    assert not (tmp_path / "out/rinsho_crade.yaml").exists()
    (tmp_path / "out/notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(UserError, match="something else is there"):
        harness.write([folder], tmp_path / "out")
    assert (tmp_path / "out/notes.txt").exists()
