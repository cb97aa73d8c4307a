"""Hostile answers and hostile data through the command line: scores, or one line that names the place; nothing runs."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from rinsho.cli import main
from tasks.toy_jmed import entity, smdis, write_csv

SECRET = "ヒミツの記録"  # stands in every hostile file, and never in what is printed
TASK = "name: triage\nkind: classification\ntest: t.csv\nquestion: q\nanswer: a\noptions: [あ, い]\n"
TABLE = f"q,a\n{SECRET},あ\n"


@pytest.fixture(autouse=True)
def usual_fields() -> Iterator[None]:
    """The csv module's limit is one for the process, and reading a corpus before raises it."""
    before = csv.field_size_limit(131_072)
    yield
    csv.field_size_limit(before)


def line(answer: object = "A", identifier: object = "smdis/00000", **rest: object) -> str:
    return json.dumps({"id": identifier, "answer": answer, "note": SECRET, **rest}) + "\n"


def evaluate(folder: Path, answers: str | bytes, data: Path | None = None) -> int:
    """The exit code of `rinsho evaluate answers.jsonl DATA`."""
    file = folder / "answers.jsonl"
    file.write_bytes(answers if isinstance(answers, bytes) else answers.encode())
    small = [part for name in ("bootstrap_samples=2", "plot=false") for part in ("--set", f"evaluate.{name}")]
    return main(["evaluate", str(file), str(data or folder / "data"), "--out", str(folder / "out"), *small])


def told(capsys: pytest.CaptureFixture[str]) -> str:
    """What was said on stderr: one line, without the content of the files."""
    said = capsys.readouterr()
    (problem,) = [row for row in said.err.splitlines() if not row.startswith("evaluate: ")]
    assert SECRET not in said.err + said.out
    assert problem.isprintable() and len(problem) < 1000
    return problem


def questions(folder: Path, choices: int = 1, lists: int = 0) -> Path:
    columns = ["tag", "question", "optionA", "optionB", "answer"]
    rows = [smdis("熱", f"{number}日前から熱がある。", "B") for number in range(choices)]
    write_csv(folder / "data/datasets/smdis.csv", columns, rows)
    if lists:
        rows = [entity("d", f"{number}日目に発熱あり。", "['発熱']") for number in range(lists)]
        write_csv(folder / "data/datasets/nrner.csv", ["tag", "question", "answer"], rows)
    return folder


def test_hostile_answers_are_wrong_and_nothing_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trap = tmp_path / "trap"
    choices = [
        "A" * 10_000_000, "", "\x00\x1b[2J\x07", "\ud800\udfff", " " * 16_000 + "A", "A,A," * 4000, "A 、 " * 4000 + "!",
        "\ufdfa" * 300_000, "<script>alert(1)</script>", "|a|\n# A", "None", "\u202eA", "「" * 16_000, "9" * 16_000, "ａ",
    ]  # fmt: skip
    lists = [
        f"__import__('pathlib').Path({str(trap)!r}).touch()", f"[open({str(trap)!r}, 'w')]", "[f'{().__class__}']",
        f"[x for x in [open({str(trap)!r}, 'w')]]", "[9**9**9**9]", "[" * 10_000_000, "[" * 16_000, "(" * 16_000,
        "[" + "-" * 16_000 + "1]", "[" + "9" * 16_000 + "]", "[" + "'発熱'," * 200_000 + "]", "['発熱', ['発熱']]",
        "[{'発熱': 1}, {2}]", "[b'a', 1j, ..., None, (1, [2])]", "['" + "発" * 16_000 + "']", "['発熱\x00']", "['\\ud800']",
        "[\ud800]", str([f"{number}" for number in range(2000)]), "発熱", "['発熱'", "lambda: ['発熱']", "['発' * 10**9]",
    ]  # fmt: skip
    questions(tmp_path, len(choices), len(lists))
    rows = [line(said, f"smdis/{number:05d}") for number, said in enumerate(choices)]
    rows += [line(said, f"nrner/{number:05d}") for number, said in enumerate(lists)]
    rows += [line("B", "../../etc/passwd"), line("B", "\ud800"), line("B", "x" * 100_000), line("B", "a\n| b |")]
    assert evaluate(tmp_path, "".join(rows)) == 0
    numbers = json.loads((tmp_path / "out/scores.json").read_text(encoding="utf-8"))
    assert {row["task"]: row["score"] for row in numbers["scores"]} == {"smdis": 0, "nrner": 0}
    assert numbers["answers"]["of_unknown_questions"] == 4
    assert not trap.exists()
    said = capsys.readouterr()
    assert "<script>" not in said.out + said.err and "\x1b" not in said.out + said.err


READABLE = [
    b"\xef\xbb\xbf" + line("B").encode(), line("B").replace("\n", "\r\n"), line("B").strip(), "\n\n" + line("B") + " \n",
    line("B", mode="free", form="x"), line("B", form=["letter"], logprobs="x", shortened="yes", tokens=[1]),
    line("B", tokens=1).replace('"tokens": 1', '"tokens": NaN, "logprobs": [NaN, -Infinity], "reasoning_chars": 1e999'),
    line("B", id="smdis/00000").replace('"answer"', '"answer": "A", "answer"'),
]  # fmt: skip


@pytest.mark.parametrize("answers", READABLE, ids=range(len(READABLE)))
def test_files_that_are_read_all_the_same(tmp_path: Path, answers: str | bytes) -> None:
    questions(tmp_path)
    assert evaluate(tmp_path, answers) == 0
    numbers = json.loads((tmp_path / "out/scores.json").read_text(encoding="utf-8"))
    assert numbers["scores"][0]["score"] == 1


GOOD = line("B")


WRONG = [
    (line(["A"]), 1), (line(5), 1), (line(None), 1), (line(True), 1), (line({"a": 1}), 1),
    (line("A", 5), 1), (line("A", None), 1), (line("A", ["smdis/00000"]), 1),
    (GOOD + line(mode="freee"), 2), (GOOD + line(mode=["free"]), 2), (GOOD + line(mode={"a": 1}), 2),
    (GOOD + line(mode=None), 2), (GOOD + line(rotation=-1), 2), (GOOD + line(rotation=1.5), 2),
    (GOOD + line(rotation="1"), 2), (GOOD + line(rotation=None), 2), (GOOD + GOOD, 2),
    (GOOD + '{"id": "smdis/00001", "ans', 2), (GOOD + "\x00\x00\n", 2), (GOOD + "[1]\n", 2), (GOOD + "NaN\n", 2),
    (GOOD + '{"id": "x", "answer": ' + "[" * 100_000 + "]" * 100_000 + "}\n", 2),
    (GOOD + '{"id": "x", "answer": "A", "tokens": ' + "9" * 5000 + "}\n", 2),
    (GOOD + '{"id": "smdis/00001", "answer": "\x01"}\n', 2), (GOOD.replace("\n", "\r") * 2, 1),
    (b"\xef\xbb\xbf" * 2 + GOOD.encode(), 1), (bytes(range(256)), 1), (GOOD.encode("utf-16"), 1),
    (GOOD.encode() + '{"id": "x", "answer": "発熱"}\n'.encode("cp932"), 2),
    (GOOD.encode() + b'{"id": "x", "answer": "\xed\xa0\x80"}\n', 2),
]  # fmt: skip


@pytest.mark.parametrize(("answers", "place"), WRONG, ids=range(len(WRONG)))
def test_wrong_lines_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], answers: str | bytes, place: int
) -> None:
    questions(tmp_path)
    assert evaluate(tmp_path, answers) == 2
    assert f"answers.jsonl:{place}: " in told(capsys)


@pytest.mark.parametrize("row", ["[1]\n", '"A"\n', "null\n", "NaN\n"])
def test_files_that_are_neither_answers_nor_questions(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], row: str
) -> None:
    questions(tmp_path)
    assert evaluate(tmp_path, row) == 2
    assert told(capsys).startswith("rinsho: ")


def task(folder: Path, text: str | bytes, table: str | bytes = TABLE, name: str = "t.csv") -> Path:
    """A task's YAML file with its table, and where it lies."""
    data = folder / "data"
    data.mkdir(parents=True)
    (data / "t.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    (data / name).write_bytes(table if isinstance(table, bytes) else table.encode())
    return data / "t.yaml"


TASKS = [
    (TASK + "system: !!python/object/apply:os.mkdir [{trap}]\n", 7), ("!!python/object/apply:os.mkdir [{trap}]\n", 1),
    (TASK + "system: !!python/name:os.system\n", 7), (TASK + "system: !function utils.x\n", 7),
    (TASK.replace("t.csv", "../answers.jsonl"), 3), (TASK.replace("t.csv", "/etc/passwd"), 3),
    (TASK.replace("t.csv", '"t\\0.csv"'), 3), (TASK.replace("t.csv", '""'), 3), (TASK.replace("t.csv", "."), 3),
    (TASK.replace("t.csv", "/dev/zero"), 3), (TASK.replace("t.csv", "link.csv"), 3), (TASK + "options: [", 7),
    (TASK + "\tx: 1\n", 7), (TASK + "train: ./t.csv\n", 7), ("name: &a [*a]\nkind: classification\ntest: t.csv\n", 1),
    (TASK + "prompt: '{question.__class__.__mro__}{options}'\n", 7), (TASK + "prompt: '{question[0]}{options}'\n", 7),
    (TASK + "prompt: '{question:>999999999}{options}'\n", 7), (TASK + "option: '{letter:>99999999}{text}'\n", 7),
    (TASK + "prompt: '{question:{options}}'\n", 7), (TASK.replace("triage", "../x"), 1), (TASK.replace("triage", "smdis"), 1),
]  # fmt: skip


@pytest.mark.parametrize(("text", "place"), TASKS, ids=range(len(TASKS)))
def test_hostile_tasks_are_told_by_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, place: int
) -> None:
    file = task(tmp_path, text.replace("{trap}", str(tmp_path / "trap")))
    file.with_name("link.csv").symlink_to("/etc/passwd")
    assert evaluate(tmp_path, GOOD, file) == 2
    assert f"t.yaml:{place}: " in told(capsys)
    assert not (tmp_path / "trap").exists()


def levels(*keys: str) -> str:
    """Anchors of which each stands nine times in the next: a few hundred bytes that unfold to billions of values."""
    names = "abcdefghijkl"
    rows = [f"{name}: &{name} [{', '.join(['*' + before] * 9)}]" for before, name in pairwise(names)]
    return "\n".join(["a: &a [x, x]", *rows, *keys]) + "\n"


@pytest.mark.parametrize(
    "text",
    [
        levels() + TASK.replace("[あ, い]", "*l"), levels() + TASK.replace("triage", "*l"), levels() + TASK + "system: *l\n",
        levels().replace("[x, x]", "{x: 1}").replace("[", "{<<: [").replace("]", "]}") + TASK,
    ],
    ids=["options", "name", "system", "merge"],
)  # fmt: skip
def test_anchors_that_unfold_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str) -> None:
    assert evaluate(tmp_path, GOOD, task(tmp_path, text)) == 2
    assert "t.yaml" in told(capsys)


@pytest.mark.parametrize(
    "text",
    [TASK + "system: " + "[" * 1000 + "]" * 1000 + "\n", "{" * 1000, TASK + f"labels: [1, {'9' * 5000}]\n"],
    ids=["deep", "open", "digits"],
)
def test_yaml_beyond_the_readers_limits(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str) -> None:
    assert evaluate(tmp_path, GOOD, task(tmp_path, text)) == 2
    assert "t.yaml" in told(capsys)


TABLES = [
    ('q,a\n"' + SECRET + ",あ\n" + "x,y\n" * 100_000, "t.csv", r"\d+"), (f"q,a\n{SECRET}{'x' * 500_000},あ\n", "t.csv", "2"),
    (f"q,a\n{SECRET},う\n", "t.csv", "2"), (f"q,a\n{SECRET},あ,い\n", "t.csv", "2"), ("a\nあ\n", "t.csv", "1"),
    (f"q,a\n{SECRET},あ\n".encode("cp932"), "t.csv", "2"), ('{"q": "' + SECRET + '", "a": ["あ"]}\n', "t.jsonl", "1"),
    ('{"q": ' + "[" * 100_000 + "]" * 100_000 + ', "a": "あ"}\n', "t.jsonl", "1"), ('{"q": {}, "a": "あ"}\n', "t.jsonl", "1"),
    ('{"q": ' + "9" * 5000 + ', "a": "あ"}\n', "t.jsonl", "1"), ('{"q": "x", "a"', "t.jsonl", "1"), ("", "t.csv", "1"),
]  # fmt: skip


@pytest.mark.parametrize(("table", "name", "place"), TABLES, ids=range(len(TABLES)))
def test_hostile_tables_are_told_by_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], table: str | bytes, name: str, place: str
) -> None:
    file = task(tmp_path, TASK.replace("t.csv", name), table, name)
    assert evaluate(tmp_path, GOOD, file) == 2
    assert re.search(rf"{name}:{place}: ", told(capsys))


def test_absurd_counts_are_no_reason_to_stop(tmp_path: Path) -> None:
    questions(tmp_path)
    assert evaluate(tmp_path, line("B").replace("}", ', "tokens": ' + "9" * 4000 + "}")) == 0


@pytest.mark.parametrize("identifier", ["x" * 100_000, "\x1b[2Jsmdis\x07", "\ud800"])
def test_a_repeated_id_is_shown_harmlessly(tmp_path: Path, capsys: pytest.CaptureFixture[str], identifier: str) -> None:
    questions(tmp_path)
    assert evaluate(tmp_path, line("A", identifier) * 2) == 2
    assert "answers.jsonl:2: " in told(capsys)


@pytest.mark.parametrize("answers", ["", "\n \n"])
def test_an_empty_file_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str], answers: str) -> None:
    questions(tmp_path)
    assert evaluate(tmp_path, answers) == 2
    assert "answers.jsonl" in told(capsys)


def test_answers_may_stand_beside_their_questions(tmp_path: Path) -> None:
    questions(tmp_path)
    assert evaluate(tmp_path, line("B", question="熱がありますか？")) == 0
