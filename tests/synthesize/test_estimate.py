"""What is said before the start, against what then happens."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import pytest

from quality.toy_endpoint import Endpoint, chat
from rinsho import synthesize
from rinsho.cli import main
from rinsho.errors import UserError
from rinsho.synthesize import Recipe
from rinsho.synthesize.estimate import expected
from synthesize.hostile_endpoint import topics, written

pytestmark = [pytest.mark.enable_socket, pytest.mark.allow_hosts(["127.0.0.1"])]


def recipe(url: str, **changes: Any) -> Recipe:
    teachers = {
        "a": {"base_url": url, "model": "a", "max_requests_per_minute": 6000, "max_tokens": 300},
        "b": {"base_url": url, "model": "b", "share": 3, "max_concurrent_requests": 2},
    }
    return Recipe.model_validate({"teachers": teachers, "kinds": ["textbook"], "max_failed_fraction": 0, **changes})


def word_list(folder: Path, count: int) -> list[Path]:
    (folder / "topics.csv").write_text(topics(count), encoding="utf-8")
    return [folder / "topics.csv"]


def test_before_the_first_answer(tmp_path: Path) -> None:
    wanted = recipe("http://127.0.0.1:9/v1")
    found = expected(wanted, word_list(tmp_path, 400))
    a, b = (found[name].numbers(wanted.teachers[name]) for name in ("a", "b"))
    assert a["requests"] + b["requests"] == 400 and 60 < a["requests"] < 140
    assert a["completion_tokens"] == 300 * a["requests"] and b["completion_tokens"] == 1024 * b["requests"]
    assert a["hours"] == pytest.approx(a["requests"] / 6000 / 60, abs=1e-4) and b["hours"] is None
    assert a["prompt_tokens"] == round(found["a"].kinds["textbook"].chars / 1.5) > 100 * a["requests"]
    said = synthesize.describe(wanted, word_list(tmp_path, 400))
    assert "sent to http://127.0.0.1:9/v1, on this machine" in said and "in all: 400 requests, 0 paid before" in said
    assert "1.5 characters a token" in said and "300 an answer, at most" in said
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "textbook.txt").write_text("「{topic}」を説明する。", encoding="utf-8")
    said = synthesize.describe(wanted.model_copy(update={"prompts": str(tmp_path / "own")}), word_list(tmp_path, 3))
    assert said.startswith("WARNING: your textbook.txt is not taken for topics of kind disease")
    far = recipe("http://teacher.example/v1")
    assert "LEAVES THIS MACHINE" in synthesize.describe(far, word_list(tmp_path, 3))


def test_after_some_answers(tmp_path: Path) -> None:
    """Tokens are those that kept answers took; what was paid is known without the endpoint."""

    def reply(text: str, attempt: int) -> Any:
        body = json.loads(chat("肺の感染症で、発熱と咳嗽を認める。"))
        body["usage"] = {"prompt_tokens": 100, "completion_tokens": 40}
        return {"body": json.dumps(body).encode(), "wait": 0.02}

    with Endpoint(reply) as endpoint:
        wanted = recipe(endpoint.url)
        synthesize.run(wanted, word_list(tmp_path, 20), tmp_path / "run")
    more = recipe("http://127.0.0.1:9/v1", textbook_samples=2)  # elsewhere: paid is paid
    found = expected(more, word_list(tmp_path, 20), tmp_path / "run")
    rows = {name: found[name].numbers(more.teachers[name]) for name in "ab"}
    assert sum(row["paid"] for row in rows.values()) == 20 and sum(row["left"] for row in rows.values()) == 20
    for name, row in rows.items():
        assert row["completion_tokens"] == 40 * row["left"]
        assert row["prompt_tokens"] == pytest.approx(100 * row["left"], rel=0.2)
        assert row["measured_answers"] == row["paid"] and row["hours"] is not None, name
    assert f"{rows['b']['paid']} of them paid before" in synthesize.describe(
        more, word_list(tmp_path, 20), tmp_path / "run"
    )
    assert "0 paid before" in synthesize.describe(more, word_list(tmp_path, 20))  # where the answers are is not known


TOKENS = {"textbook": 70, "physician_exam": 40, "instructions": 90, "answer": 3}  # of each answer


class Metered(Endpoint):
    """Writes what is asked for and counts tokens: a prompt's by its length, an answer's by its kind."""

    def __init__(self) -> None:
        super().__init__(self.write)
        self.kinds, self.most = Counter[str](), 10**9

    def take(self, body: dict[str, Any], key: str | None) -> tuple[str, Any]:
        whole = "\n".join(message["content"] for message in body["messages"])
        body["messages"][-1]["content"] = f"{body['model']}#{body['seed']}#{whole}"
        return super().take(body, key)

    def write(self, text: str, attempt: int) -> Any:
        """The answer to a request; a refusal after so many."""
        if self.kinds.total() == self.most:
            return {"status": 500}
        draw, whole = Random(text), text.partition("#")[2].partition("#")[2]
        if "### 指示" in text:
            kind, said = "instructions", "\n".join(
                f"### 指示 {n}\n{written('', draw)[:90]}これを説明する。\n### 入力\n（なし）\n### 出力\n{written('', draw)}" for n in range(2)
            )  # fmt: skip
        elif "解説" in text:
            kind, said = "physician_exam", written(text, draw)
        elif "正解" in text:
            kind, said = "answer", "正解: a"
        else:
            kind, said = "textbook", written("", draw)
        self.kinds[kind] += 1
        body = json.loads(chat(said))
        body["usage"] = {"prompt_tokens": round(len(whole) / 1.5), "completion_tokens": TOKENS[kind]}
        return {"body": json.dumps(body).encode()}


ALL: dict[str, Any] = {
    "kinds": ["textbook", "physician_exam", "instructions"], "agreement": 1, "min_agreement_fraction": 0.0,
    "instructions": 10, "round_requests": 2, "exercise_samples": 2,
}  # fmt: skip


def left(found: Any, kind: str) -> int:
    return sum(row.kinds[kind].left for row in found.values())


def test_what_is_paid_is_followed_through_rounds_and_answers(tmp_path: Path) -> None:
    """A run that was interrupted and one that is done; tokens are those of the same kind of text."""
    given, run = word_list(tmp_path, 20), tmp_path / "run"
    with Metered() as endpoint:
        teachers = {name: {"base_url": endpoint.url, "model": name, "max_retries": 0} for name in "ab"}
        wanted = recipe("", **ALL, teachers=teachers)
        before = expected(wanted, given, run)
        stops = []
        for endpoint.most in (40, 63, 75):  # within the 60 texts, a round of instructions, the answers
            with pytest.raises(UserError, match=r"requests in a row failed|requests failed"):
                synthesize.run(wanted, given, run)
            stops.append((expected(wanted, given, run), endpoint.kinds.copy()))
        endpoint.most = 10**9
        report = synthesize.run(wanted, given, run)
    for (found, answered), total in zip(stops, (40, 63, 75), strict=True):
        asked = endpoint.kinds - answered
        assert sum(row.paid for row in found.values()) == answered.total() == total
        assert all(left(found, kind) == asked[kind] for kind in ("textbook", "physician_exam"))
        assert left(found, "answer") == asked["answer"] and left(found, "instructions") <= asked["instructions"]
        assert (left(found, "instructions") > 0) == (total < 75)
    guess = sum(row.numbers(wanted.teachers[name])["prompt_tokens"] for name, row in before.items())
    assert guess == pytest.approx(report.numbers["total"]["prompt_tokens"], rel=0.2)

    assert synthesize.describe(wanted, given, run) == f"done and unchanged, nothing is left to ask ({run})"
    other = expected(wanted, given, tmp_path / "other")  # the same answers for another run folder
    assert sum(row.left for row in other.values()) == 0
    assert sum(row.paid for row in other.values()) == endpoint.kinds.total()
    assert "nothing left to ask" in synthesize.describe(wanted, given, tmp_path / "other")

    more = wanted.model_copy(update={"textbook_samples": 3, "exercise_samples": 3, "instructions": 60})
    for name, row in expected(more, given, tmp_path / "other").items():
        numbers = row.numbers(more.teachers[name])
        assert numbers["completion_tokens"] == sum(TOKENS[kind] * of.left for kind, of in row.kinds.items()) > 0
        assert numbers["unmeasured"] == 0
    new = wanted.model_copy(update={"kinds": ("textbook", "pharmacist_exam"), "textbook_samples": 2, "agreement": 0})
    numbers = expected(new, given, tmp_path / "other")["a"].numbers(new.teachers["a"])
    unknown = numbers["unmeasured"]
    assert numbers["completion_tokens"] == 1024 * unknown + 70 * (numbers["left"] - unknown) and unknown > 10
    assert f"1,024 an answer for {unknown}, at most" in synthesize.describe(new, given, tmp_path / "other")


def test_a_dry_run_tells_problems_before_it_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (given,) = word_list(tmp_path, 3)
    words = ["synthesize", str(given), "--out", str(tmp_path / "run"), "--dry-run"]
    assert main(words) == 2
    assert "problem: synthesize.teachers: no teacher" in capsys.readouterr().err
    words += ["--set", "synthesize.teachers.a={base_url: 'http://127.0.0.1:9/v1', model: m, kinds: [textbook]}"]
    assert main(words) == 2
    said = capsys.readouterr()
    assert "no teacher writes physician_exam" in said.err and "in all" not in said.out
    assert main([*words, "--set", "synthesize.kinds=[textbook]"]) == 0
    assert "in all: 3 requests" in capsys.readouterr().out
    assert not (tmp_path / "run").exists()


def test_what_depends_on_answers(tmp_path: Path) -> None:
    kinds = ["textbook", "physician_exam", "instructions"]
    wanted = recipe("http://127.0.0.1:9/v1", kinds=kinds, agreement=2, instructions=100, exercise_samples=3)
    found = expected(wanted, word_list(tmp_path, 40))
    rows = {name: found[name].numbers(wanted.teachers[name]) for name in "ab"}
    assert rows["a"]["requests"] + rows["b"]["requests"] == 40 * 4
    assert rows["a"]["instructions_at_least"] + rows["b"]["instructions_at_least"] == 20  # five at once
    assert rows["a"]["answers_at_most"] + rows["b"]["answers_at_most"] == 2 * 40 * 3
    assert "at most" in synthesize.describe(wanted, word_list(tmp_path, 40))
