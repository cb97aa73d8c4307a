"""Whole runs against a teacher on the loopback address: what stands in the run folder, and what is refused."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import pytest

from quality.toy_endpoint import Endpoint
from rinsho import synthesize
from rinsho.client import asking
from rinsho.document import read_documents
from rinsho.errors import UserError
from rinsho.instructions import read_instructions
from rinsho.prompting import read_template
from rinsho.synthesize import Recipe, check
from rinsho.synthesize.prompts import write_templates
from synthesize.hostile_endpoint import topics, written

pytestmark = [pytest.mark.enable_socket, pytest.mark.allow_hosts(["127.0.0.1"])]
DOCUMENTS = [
    {"id": f"添付文書{n}", "license": "CC BY 4.0", "text": "".join(
        f"本剤{n}の第{m}項では、成人には通常一日{m + n}回まで食後に服用し、体重や腎機能に応じて適宜増減する。" for m in range(12)
    )}
    for n in range(3)
]  # fmt: skip


class Teacher(Endpoint):
    """Writes what it is asked for, by the request alone; `right` answers exercises as their author did."""

    def __init__(self, right: bool = True) -> None:
        super().__init__(self.write)
        self.right, self.broken = right, set[str]()
        self.marked: dict[str, str] = {}

    def take(self, body: dict[str, Any], key: str | None) -> tuple[str, Any]:
        said = body["messages"][-1]["content"]
        body["messages"][-1]["content"] = f"{body['model']}#{body['seed']}#{said}"
        return super().take(body, key)

    def write(self, text: str, attempt: int) -> Any:
        """The answer to a request."""
        if any(name in text for name in self.broken):
            return {"status": 500}
        draw = Random(text)
        if "### 指示" in text:
            tasks = [f"### 指示 {n}\n{written('', draw)[:90]}これを説明してください。" for n in range(1, 6)]
            return "\n".join(f"{task}\n### 入力\n（なし）\n### 出力\n{written('', draw)}" for task in tasks)
        if "解説" in text and "正解" in text:
            made = written(text, draw)
            self.marked[made.split("\n")[1]] = re.findall(r"正解: (.)", made)[0]
            return made
        shown = next((line for line in text.split("\n") if line.startswith("a. ")), "")
        if shown:
            return self.marked[shown] if self.right else "abcde"["abcde".index(self.marked[shown]) - 1]
        return written("", draw)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "FIRST_WAIT_SECONDS", 0.01)


def recipe(endpoints: dict[str, str], **changes: Any) -> Recipe:
    teachers = {
        name: {"base_url": url, "model": f"{name}-72B", "max_retries": 1, "license": f"{name} licence"}
        for name, url in endpoints.items()
    }
    return Recipe.model_validate({"teachers": teachers, **changes})


def inputs(folder: Path, count: int = 4) -> list[Path]:
    (folder / "topics.csv").write_text(topics(count), encoding="utf-8")
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in DOCUMENTS)
    (folder / "inserts.jsonl").write_text(lines, encoding="utf-8")
    return [folder / "topics.csv", folder / "inserts.jsonl"]


def rows(out: Path) -> list[dict[str, str]]:
    with (out / "requests.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


ALL = {
    "kinds": ["textbook", "physician_exam", "pharmacist_exam", "instructions", "reading"], "exercise_samples": 1,
    "instructions": 10, "round_requests": 2, "passage_chars": 300,
}  # fmt: skip


def products(out: Path) -> dict[str, bytes]:
    names = ("texts", "exercises", "instructions", "set_aside")
    files = [path for name in names for path in (out / name).rglob("*")] + [out / "requests.csv"]
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in files}


def test_a_run_of_all_kinds(tmp_path: Path) -> None:
    """Every call stands there once; texts are documents, exercises and instructions are data of finetune."""
    given = inputs(tmp_path)
    with Teacher() as a, Teacher() as b:
        wanted = recipe({"a": a.url, "b": b.url}, **ALL)
        report = synthesize.run(wanted, given, tmp_path / "run")
        asked = sum(a.asked.values()) + sum(b.asked.values())
        synthesize.run(wanted, given, tmp_path / "again")  # from the answers that are kept
        assert sum(a.asked.values()) + sum(b.asked.values()) == asked
    found = rows(tmp_path / "run")
    assert len(found) == len({row["id"] for row in found}) == asked == report.numbers["total"]["asked"]
    kinds = Counter(row["kind"] for row in found)
    assert kinds["textbook"] == 4 and kinds["physician_exam"] == kinds["pharmacist_exam"] == 4 and kinds["reading"] > 3
    assert {row["state"] for row in found} == {"kept"}
    assert products(tmp_path / "run") == products(tmp_path / "again")

    document = next(read_documents(tmp_path / "run/texts/synthetic_textbook.jsonl.zst"))
    teacher = document.meta["teacher"]
    assert document.meta == {
        "synthetic": True, "kind": "textbook", "topic": "架空第0症候群", "topic_kind": "disease", "teacher": teacher,
        "model": f"{teacher}-72B", "temperature": 0.8, "max_tokens": 1024, "license": f"{teacher} licence",
        **{name: document.meta[name] for name in ("prompt", "seed", "time", "drawn") if name in document.meta},
    }  # fmt: skip
    assert re.fullmatch("[0-9a-f]{16}", document.meta["prompt"]) and document.meta["time"].endswith("Z")
    assert document.id == found[0]["id"] and len(document.text) > 100

    for name in ("exercises/physician_exam", "exercises/reading", "instructions/instructions"):
        read = read_instructions(tmp_path / f"run/{name}.jsonl", read_template("none"))
        assert read and all("licence" in one.license for one in read)
    reading = json.loads((tmp_path / "run/exercises/reading.jsonl").read_text().split("\n")[0])
    assert reading["question"].startswith("次の文章を読み") and "食後に服用" in reading["question"]
    assert reading["document"] == "添付文書0" and reading["license"].endswith(" licence; CC BY 4.0")
    assert "passage" not in reading
    grown = (tmp_path / "run/instructions/instructions.jsonl").read_text().splitlines()
    assert len(grown) == report.numbers["instructions"]["accepted"] >= 10
    page = (tmp_path / "run/report.html").read_text()
    assert "exercises, pharmacists" in page and "http://" not in page and "src=" not in page
    assert not (tmp_path / "run/set_aside").exists() and not (tmp_path / "run/failed.jsonl").exists()


def test_exercises_that_others_answer_differently_are_set_aside(tmp_path: Path) -> None:
    given = inputs(tmp_path)[:1]
    shares = {"kinds": ["physician_exam"], "exercise_samples": 3, "agreement": 1}
    with Teacher() as a, Teacher(right=False) as b:
        a.marked = b.marked  # what one wrote the other must answer
        report = synthesize.run(recipe({"a": a.url, "b": b.url}, **shares), given, tmp_path / "run")
    found = rows(tmp_path / "run")
    written_by = {row["id"]: row for row in found if row["kind"] == "physician_exam"}
    assert {row["state"] for row in written_by.values() if row["teacher"] == "b"} == {"kept"}  # a answered them
    assert {row["reason"] for row in written_by.values() if row["teacher"] == "a"} == {"disagreed"}
    answers = [row for row in found if row["kind"] == "answer"]
    assert len(answers) == len(written_by) == 12 and all(row["id"].count("/") == 6 for row in answers)
    pairs = {(row["author"], row["teacher"]): row["agreed"] for row in report.numbers["agreement"]["pairs"]}
    assert pairs == {("a", "b"): 0.0, ("b", "a"): 1.0}
    kept = (tmp_path / "run/exercises/physician_exam.jsonl").read_text().splitlines()
    assert len(kept) == sum(row["teacher"] == "b" for row in written_by.values())
    aside = list(read_documents(tmp_path / "run/set_aside/physician_exam.jsonl.zst"))
    assert {(row.meta["reason"], row.meta["value"]) for row in aside} == {("disagreed", 0.0)}


def test_too_many_failures_end_the_run_and_the_next_one_asks_only_those(tmp_path: Path) -> None:
    given = inputs(tmp_path, 20)[:1]
    with Teacher() as a:
        wanted = recipe({"a": a.url}, kinds=["textbook"])
        a.broken = {"第7症候群", "第9症候群"}
        with pytest.raises(UserError, match="2 of 20 requests failed"):
            synthesize.run(wanted, given, tmp_path / "run")
        a.broken, before = set(), sum(a.asked.values())
        report = synthesize.run(wanted, given, tmp_path / "run")
        assert sum(a.asked.values()) == before + 2
    assert report.numbers["total"]["kept"] == 20 and report.numbers["total"]["failed"] == 0


def test_failures_within_the_limit_are_listed(tmp_path: Path) -> None:
    given = inputs(tmp_path, 20)[:1]
    with Teacher() as a:
        a.broken = {"第7症候群", "第9症候群"}
        wanted = recipe({"a": a.url}, kinds=["textbook"], max_failed_fraction=0.1)
        report = synthesize.run(wanted, given, tmp_path / "run")
    listed = [json.loads(line) for line in (tmp_path / "run/failed.jsonl").read_text().splitlines()]
    states = {row["id"]: row["state"] for row in rows(tmp_path / "run")}
    assert [row["reason"] for row in listed] == ["http_500"] * 2
    assert {name for name, state in states.items() if state == "failed"} == {row["id"] for row in listed}
    assert report.numbers["total"]["failed"] == 2 and "2 requests failed" in report.markdown


def test_the_same_text_again_is_set_aside_with_the_first_ones_name(tmp_path: Path) -> None:
    given = inputs(tmp_path)[:1]
    with Endpoint(lambda *_: written("", Random(1))) as a:
        synthesize.run(recipe({"a": a.url}, kinds=["textbook"]), given, tmp_path / "run")
    found = rows(tmp_path / "run")
    assert [row["reason"] for row in found] == ["", "repeats", "repeats", "repeats"]
    aside = list(read_documents(tmp_path / "run/set_aside/textbook.jsonl.zst"))
    assert {row.meta["value"] for row in aside} == {found[0]["id"]}


def test_exercises_that_share_a_passage_with_a_benchmark_are_set_aside(tmp_path: Path) -> None:
    given = inputs(tmp_path)[:1]
    with Teacher() as a:
        wanted = recipe({"a": a.url}, kinds=["physician_exam"], exercise_samples=1)
        synthesize.run(wanted, given, tmp_path / "run")
        first = json.loads((tmp_path / "run/exercises/physician_exam.jsonl").read_text().split("\n")[0])
        (tmp_path / "exam.jsonl").write_text(json.dumps({"id": "問1", "text": "序文。" + first["question"]}) + "\n")
        stricter = wanted.model_copy(update={"decontaminate": (tmp_path / "exam.jsonl",)})
        synthesize.run(stricter, given, tmp_path / "strict")
    found = {row["id"]: row["reason"] for row in rows(tmp_path / "strict")}
    assert found.pop(first["id"]) == "contaminated" and set(found.values()) == {""}
    (aside,) = read_documents(tmp_path / "strict/set_aside/physician_exam.jsonl.zst")
    assert "問1" in aside.meta["value"]


def test_where_and_how_fast_is_asked_may_change_within_a_run(tmp_path: Path) -> None:
    given = inputs(tmp_path)[:1]
    with Teacher() as a:
        wanted = recipe({"a": a.url}, kinds=["textbook"])
        synthesize.run(wanted, given, tmp_path / "run")
        moved = wanted.teachers["a"].model_copy(update={"base_url": "http://127.0.0.1:9/v1", "timeout_seconds": 1.0})
        same = wanted.model_copy(update={"teachers": {"a": moved}, "max_failed_fraction": 0.5})
        synthesize.run(same, given, tmp_path / "run")  # skipped
        hotter = wanted.teachers["a"].model_copy(update={"temperature": 1.0})
        with pytest.raises(UserError, match=r"another recipe \(teachers.a.temperature: 0.8 there, 1.0 here\)"):
            synthesize.run(same.model_copy(update={"teachers": {"a": hotter}}), given, tmp_path / "run")


def test_a_template_that_no_text_takes_may_change_within_a_run(tmp_path: Path) -> None:
    given, own = inputs(tmp_path)[:1], tmp_path / "own"
    with Teacher() as a:
        wanted = recipe({"a": a.url}, kinds=["textbook"])
        synthesize.run(wanted, given, tmp_path / "run")
        asked = sum(a.asked.values())
        write_templates(own)
        (own / "answer.txt").write_text("{question}\n{options}", encoding="utf-8")
        (own / "textbook.drug.txt").write_text("{topic}の用法は。", encoding="utf-8")
        edited = wanted.model_copy(update={"prompts": str(own)})
        synthesize.run(edited, given, tmp_path / "run")  # skipped
        assert sum(a.asked.values()) == asked
        (own / "textbook.disease.txt").write_text("{topic}とは。", encoding="utf-8")
        with pytest.raises(UserError, match=r"other inputs.*perhaps a template changed: textbook\.disease\.txt"):
            synthesize.run(edited, given, tmp_path / "run")


URL = "http://127.0.0.1:9/v1"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"teachers": {}}, "no teacher"),
        ({"teachers": {"a/b": {"base_url": URL, "model": "m"}}}, "no name for a teacher"),
        ({"teachers": {"a": {"base_url": URL, "model": "m", "temperature": 0}}}, "temperature 0.*physician_exam"),
        ({"teachers": {"a": {"model": "m"}}}, "teachers.a.base_url: is empty"),
        ({"teachers": {"a": {"folder": "nowhere"}}}, "not there .nowhere."),
        ({"teachers": {"a": {"folder": ".", "model": "m"}}}, "a folder and an endpoint"),
        ({"teachers": {"a": {"folder": ".", "extra": {"min_p": 0.1}}}}, "no setting min_p"),
        ({"kinds": []}, "no kind of text"),
        ({"kinds": ["reading"]}, "reading: there is nothing to write about"),
        ({"kinds": ["instructions"]}, "word lists.*are given"),
        ({"decontaminate": ["nowhere.jsonl"]}, "nowhere.jsonl: not there"),
        ({"prompts": "nowhere"}, "nowhere: not there"),
        ({"topic_kinds": ["drug"]}, "topic_kinds: unknown kind of topics 'drug'.*one of disease"),
    ],
)
def test_what_is_known_before_the_start(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    given = {"teachers": {"a": {"base_url": URL, "model": "m"}}, **changes}
    problems = check(Recipe.model_validate(given), inputs(tmp_path)[:1])
    assert any(re.search(message, str(problem)) for problem in problems), [str(problem) for problem in problems]


def test_a_sound_recipe_has_no_problems(tmp_path: Path) -> None:
    one = {"base_url": URL, "model": "m", "temperature": 0}
    wanted = Recipe.model_validate({"teachers": {"a": one}, "exercise_samples": 1})
    assert check(wanted, inputs(tmp_path)[:1]) == []
