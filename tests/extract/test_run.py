"""Whole runs of both rooms on a tiny random model: products, kills, GGUF, what is refused."""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from generate_many.toy_gguf import export, our_folder
from rinsho import classify, extract
from rinsho.clinical import find_values
from rinsho.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
TEXTS = [
    "７６歳男性。胃癌術後。ﾌﾟﾚﾄﾞﾆﾝ５㎎内服中、３８．５℃の発熱を認め、ＣＴで肺炎像あり。",
    "腹痛なし。血圧 142/88、CRP 3.1。",
    "",
    "頭痛と嘔気を訴えた。\n胃癌の既往。",
]
FAST = extract.Recipe(max_new_tokens=12, slots=3, form="float32")
PRODUCTS = ("entities.jsonl", "entities.csv", "documents.jsonl")
# Dies when the second piece is about to be written, or (-1) when the first product is.
DYING = """
import os, signal, sys
from pathlib import Path
from rinsho import extract
from rinsho.clinical import work
name, real = sys.argv[1], {"write_atomic": work.write_atomic, "atomic_file": work.atomic_file}
left = [int(sys.argv[2])]
def dying(*given):
    left[0] -= 1
    if left[0] < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return real[name](*given)
setattr(work, name, dying)
recipe = extract.Recipe(max_new_tokens=12, slots=3)
extract.run(recipe, [Path(path) for path in sys.argv[3:5]], Path(sys.argv[5]))
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return our_folder(tmp_path_factory.mktemp("toy") / "model", window=1024)


@pytest.fixture(scope="module")
def notes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("notes") / "notes.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["id", "text"])
        table.writerows([f"p{number:03d}", TEXTS[number % 4]] for number in range(36))
    return path


@pytest.fixture(scope="module")
def whole(model: Path, notes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "extract"
    extract.run(FAST, [model, notes], out)
    return out


@pytest.fixture(scope="module")
def quick(model: Path) -> Path:
    """The GGUF form where llama.cpp is installed, since that starts in a third of the time."""
    return export(model, model.parent / "gguf") if importlib.util.find_spec("llama_cpp") else model


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_entities_stand_in_the_texts(whole: Path, notes: Path) -> None:
    with notes.open(encoding="utf-8", newline="") as file:
        texts = {row["id"]: row["text"] for row in csv.DictReader(file)}
    found = lines(whole / "entities.jsonl")
    assert found and {"model", "rule"} == {row["source"] for row in found}
    for row in found:
        assert texts[row["id"]][row["start"] : row["end"]] == row["text"]
        assert row["unsure"] == (row["probability"] is not None and row["probability"] < 0.5)
    values = [(row["id"], row["start"], row["end"]) for row in found if row["kind"] == "value"]
    assert values == [(name, *span) for name, text in texts.items() for span in find_values(text)]
    documents = lines(whole / "documents.jsonl")
    assert [(row["id"], row["characters"]) for row in documents] == [(name, len(text)) for name, text in texts.items()]
    assert sum(row["entities"] for row in documents) == len(found)
    with (whole / "entities.csv").open(encoding="utf-8-sig", newline="") as file:
        table = list(csv.DictReader(file))
    assert [(row["id"], int(row["start"]), row["text"]) for row in table] == [
        (row["id"], row["start"], row["text"]) for row in found
    ]
    numbers = json.loads((whole / "report.json").read_text())["numbers"]
    assert numbers["cut"] == sum(row["cut"] for row in documents) > 0  # random weights do not end in twelve tokens
    assert not any(row["cut"] for row in documents if not row["characters"])
    assert numbers["texts"] == 36 and sum(row["entities"] for row in numbers["by_kind"].values()) == len(found)


def test_no_text_but_that_of_the_entities_is_kept(whole: Path) -> None:
    for path in whole.iterdir():
        if path.is_file() and path.name not in ("entities.jsonl", "entities.csv"):
            content = path.read_text(encoding="utf-8")
            assert not any(part in content for part in ("胃癌", "血圧", "頭痛")), path.name


@pytest.mark.parametrize(("where", "times"), [("write_atomic", 1), ("atomic_file", 1)])
def test_a_kill_changes_nothing(where: str, times: int, quick: Path, notes: Path, tmp_path: Path) -> None:
    recipe, out, whole = FAST.model_copy(update={"form": None}), tmp_path / "killed", tmp_path / "whole"
    extract.run(recipe, [quick, notes], whole)
    words = [sys.executable, "-c", DYING, where, str(times), str(quick), str(notes), str(out)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    process = subprocess.run(words, env=environment, capture_output=True, timeout=300, check=False)
    assert process.returncode == -signal.SIGKILL, process.stderr[-2000:]
    pieces = sorted((out / "partial/pieces").glob("*.jsonl"))
    assert len(pieces) == (1 if where == "write_atomic" else 3) and not (out / "DONE").exists()
    before = [path.stat().st_mtime_ns for path in pieces]
    made: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        from rinsho.clinical import work

        real = work.write_atomic
        patch.setattr(work, "write_atomic", lambda *given: (made.append(1), real(*given))[1])
        extract.run(recipe, [quick, notes], out)
    assert len(made) == 3 - len(before)
    assert [(out / name).read_bytes() for name in PRODUCTS] == [(whole / name).read_bytes() for name in PRODUCTS]


def test_unchanged_is_skipped_and_another_threshold_refused(
    model: Path, notes: Path, whole: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    extract.run(FAST, [model, notes], whole)
    assert "unchanged, skipped" in capsys.readouterr().err
    with pytest.raises(UserError, match="threshold"):
        extract.run(FAST.model_copy(update={"threshold": 0.2}), [model, notes], whole)


def test_a_gguf_file_extracts_too(quick: Path, notes: Path, whole: Path, tmp_path: Path) -> None:
    pytest.importorskip("llama_cpp")
    recipe = FAST.model_copy(update={"form": None})
    numbers = extract.run(recipe, [quick, notes], tmp_path / "out").numbers
    assert numbers["runtime"] == "llama.cpp" and numbers["texts"] == 36
    one, other = ({(row["id"], row["start"], row["end"], row["kind"]) for row in lines(folder / "entities.jsonl")}
                  for folder in (tmp_path / "out", whole))  # fmt: skip
    assert len(one & other) >= 0.9 * len(one | other)  # keys and values are float16 there


def test_values_alone_are_found_with_a_base_model(notes: Path, tmp_path: Path) -> None:
    base = our_folder(tmp_path / "base", chat=False)
    values = FAST.model_copy(update={"kinds": ("value",)})
    numbers = extract.run(values, [base, notes], tmp_path / "out").numbers
    assert numbers["kinds"] == ["value"] and numbers["by_kind"]["value"]["entities"] == 36
    for kinds in (None, ("disease",)):
        (problem,) = extract.check(FAST.model_copy(update={"kinds": kinds}), [base, notes])
        assert "base model" in str(problem) and "--kinds value" in str(problem)
    (problem,) = classify.check(classify.Recipe(options=("a", "b")), [base, notes])
    assert "base model" in str(problem) and "--kinds" not in str(problem)


def test_a_window_without_room_for_a_text_is_refused(model: Path, notes: Path, tmp_path: Path) -> None:
    small = {"window": 64}
    with pytest.raises(UserError, match=r"window of 64 tokens.*at least 32; raise extract\.window"):
        extract.run(FAST.model_copy(update=small), [model, notes], tmp_path / "extract")
    with pytest.raises(UserError, match=r"window of 64 tokens.*at least 32; raise classify\.window"):
        classify.run(classify.Recipe(options=("a", "b"), form="float32", window=64), [model, notes], tmp_path / "out")


def test_commas_and_encodings(model: Path, notes: Path) -> None:
    (problem,) = extract.check(FAST.model_copy(update={"kinds": ("disease,value",)}), [model, notes])
    assert "by spaces: --kinds disease value" in str(problem)
    recipe = classify.Recipe(options=("a", "b"), encoding="utf-32")
    (problem,) = classify.check(recipe, [model, notes])
    assert "notes.csv" in str(problem) and "--set classify.encoding=cp932" in str(problem)


def test_classes(model: Path, notes: Path, tmp_path: Path) -> None:
    recipe = classify.Recipe(options=("感染症", "腫瘍", "その他"), slots=3, form="float32")
    numbers = classify.run(recipe, [model, notes], tmp_path / "out").numbers
    rows = lines(tmp_path / "out/classes.jsonl")
    assert len(rows) == numbers["texts"] == 36 and sum(numbers["options"].values()) == 36
    for row in rows:
        assert sum(row["probabilities"].values()) == pytest.approx(1, abs=2e-4)
        assert row["probability"] == max(row["probabilities"].values()) == row["probabilities"][row["option"]]
    assert [rows[place] | {"id": ""} for place in range(4)] == [rows[place] | {"id": ""} for place in range(32, 36)]
    with (tmp_path / "out/classes.csv").open(encoding="utf-8-sig", newline="") as file:
        table = list(csv.DictReader(file))
    assert [float(row["probability: 腫瘍"]) for row in table] == [row["probabilities"]["腫瘍"] for row in rows]


def test_everything_wrong_is_told_before_a_model_is_loaded(model: Path, notes: Path, tmp_path: Path) -> None:
    def told(problems: list[UserError]) -> str:
        return " | ".join(map(str, problems))

    recipe = extract.Recipe(kinds=("diseases",), column="note", tasks=(tmp_path / "no.yaml",))
    found = told(extract.check(recipe, [tmp_path / "missing", notes]))
    for wrong in (
        "missing: not there",
        "no column 'note'",
        "no.yaml: the recipe file is not there",
        "did you mean 'disease'",
    ):
        assert wrong in found
    assert "no model" in told(extract.check(FAST, [notes.parent, notes]))
    assert "MODEL DATA" in told(extract.check(FAST, [model]))
    assert "0 options" in told(classify.check(classify.Recipe(), [model, notes]))
    assert extract.check(FAST, [model, notes]) == []
    with pytest.raises(ValueError, match="leave out the others"):
        classify.Recipe(options=("a", "b"), task=tmp_path / "no.yaml")


def test_the_command(quick: Path, notes: Path, tmp_path: Path) -> None:
    words = ["extract", quick, notes, "--kinds", "value", "--out", tmp_path / "out"]
    process = subprocess.run(
        [sys.executable, "-m", "rinsho", *map(str, words)], env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    assert "| value | 36 | 0 |" in process.stdout and "texts/s" in process.stderr and "memory: " in process.stderr


def test_a_gguf_file_needs_no_torch(quick: Path, notes: Path, tmp_path: Path) -> None:
    pytest.importorskip("llama_cpp")
    code = (
        "import sys; from pathlib import Path; from rinsho import extract\n"
        "extract.run(extract.Recipe(max_new_tokens=4), [Path(word) for word in sys.argv[1:3]], Path(sys.argv[3]))\n"
        "assert 'torch' not in sys.modules"
    )
    words = [sys.executable, "-c", code, str(quick), str(notes), str(tmp_path / "out")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    process = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert process.returncode == 0, process.stderr


def test_the_page_names_every_setting() -> None:
    page = (ROOT / "docs/extract.md").read_text(encoding="utf-8")
    settings = page[page.index("## Settings") :]
    for room in (extract, classify):
        for name, field in room.Recipe.model_fields.items():
            assert f"`{name}`" in settings, name
            if isinstance(field.default, int | float):
                assert f"| `{name}` | `{field.default}` |" in settings, name
