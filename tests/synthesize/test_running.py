"""Several teachers at once: nothing lost, nothing paid twice, none waits for another."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from quality.toy_endpoint import Endpoint, chat
from rinsho.client import Answer, Counts, asking, conversation
from rinsho.errors import UserError
from rinsho.progress import Progress
from rinsho.run import Stage, read_metrics
from rinsho.synthesize import Recipe
from rinsho.synthesize.calls import Call
from rinsho.synthesize.running import Teachers, _Told

pytestmark = [pytest.mark.enable_socket, pytest.mark.allow_hosts(["127.0.0.1"])]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "FIRST_WAIT_SECONDS", 0.01)


def recipe(**teachers: Endpoint) -> Recipe:
    given = {
        name: {"base_url": endpoint.url, "model": name, "timeout_seconds": 5, "max_retries": 2}
        for name, endpoint in teachers.items()
    }
    return Recipe.model_validate({"teachers": given})


def calls(count: int, *teachers: str) -> list[Call]:
    return [
        Call("textbook", f"t{n}", teacher, 0, conversation(f"{teacher}{n}"), "0" * 16, n, {})
        for n in range(count)
        for teacher in teachers
    ]


def stage(folder: Path) -> Stage:
    made = Stage("synthesize", folder)
    made.partial.mkdir(parents=True, exist_ok=True)
    return made


def good(text: str, attempt: int) -> str:
    return f"{text}は肺の感染症で、発熱と咳嗽を認める。"


def test_teachers_work_side_by_side_and_each_answers_its_own(tmp_path: Path) -> None:
    both = threading.Barrier(2)

    def reply(text: str, attempt: int) -> str:
        if text in ("a0", "b0"):  # each waits until the other teacher was asked
            both.wait(timeout=4)
        return good(text, attempt)

    wanted = calls(20, "a", "b")
    with Endpoint(reply) as a, Endpoint(reply) as b, Teachers(recipe(a=a, b=b), tmp_path, stage(tmp_path)) as teachers:
        assert teachers.ask(lambda: wanted, len(wanted)) == {}
        answers = [teachers.answer(call) for call in wanted]
        assert teachers.ask(lambda: wanted, len(wanted)) == {}
    assert [answer.text for answer in answers] == [good(call.messages[0].content, 1) for call in wanted]
    assert [answer.id for answer in answers] == [call.id for call in wanted]
    assert all(answer.time.endswith("Z") for answer in answers)
    assert set(a.asked) == {f"a{n}" for n in range(20)} and set(a.asked.values()) | set(b.asked.values()) == {1}
    assert [body["seed"] for body in sorted(a.bodies, key=lambda body: body["seed"])] == list(range(20))
    told = read_metrics(tmp_path)[-1]
    assert told["done"] == {"a": 20, "b": 20} and told["failed"] == 0 and told["tokens"] == 40 * 13


def test_one_that_gives_up_stops_no_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wanted = calls(30, "a", "b")
    with Endpoint(good, delay=0.01) as a, Endpoint(lambda *_: {"status": 401}) as b:
        given = recipe(a=a, b=b)
        with Teachers(given, tmp_path, stage(tmp_path)) as teachers, pytest.raises(UserError, match=r"401.*teacher b"):
            teachers.ask(lambda: wanted, len(wanted))
        assert sum(a.answered.values()) == 30 and "b gave up" in capsys.readouterr().err
        b.reply = good
        with Teachers(given, tmp_path, stage(tmp_path)) as teachers:
            assert teachers.ask(lambda: wanted, len(wanted)) == {}
    assert sum(a.answered.values()) == 30 and sum(b.answered.values()) == 30


def test_what_was_given_up_is_asked_again_last_and_then_settled(tmp_path: Path) -> None:
    """Ten requests that no attempt answers stand first: a second run must not take them for a teacher that is gone."""
    dead = {f"a{n}" for n in range(10)}

    def reply(text: str, attempt: int) -> Any:
        return {"status": 500} if text in dead else {"content": good(text, attempt), "wait": 0.01}

    wanted = calls(60, "a")
    order = [*wanted[10:20], *(call for pair in zip(wanted[:10], wanted[20:30], strict=True) for call in pair)]
    order += wanted[30:]
    with Endpoint(reply) as a:
        given = recipe(a=a)
        message = r"10 of 60 requests failed.*http_500 10.*run the same command again"
        with Teachers(given, tmp_path, stage(tmp_path)) as teachers, pytest.raises(UserError, match=message):
            teachers.ask_once("texts", lambda: order, 60, allowed=3)
        before, a.asked = sum(a.answered.values()), Counter()
        with Teachers(given, tmp_path, stage(tmp_path)) as teachers:
            teachers.ask_once("texts", lambda: wanted, 60, allowed=10)
            assert set(teachers.failed.values()) == {"http_500"} and len(teachers.failed) == 10
        assert set(a.asked) <= dead and before == sum(a.answered.values()) == 50
        a.asked = Counter()
        with Teachers(given, tmp_path, stage(tmp_path)) as teachers:  # settled: asked no more
            teachers.ask_once("texts", lambda: wanted, 60, allowed=10)
            found = [teachers.answer(call) for call in wanted]
    assert not a.asked and sum(bool(answer.error) for answer in found) == 10


def test_a_slow_request_holds_up_no_other(tmp_path: Path) -> None:
    def reply(text: str, attempt: int) -> Any:
        end = time.monotonic() + 4
        while text == "a0" and sum(a.answered.values()) < 150 and time.monotonic() < end:
            time.sleep(0.01)
        before.append(sum(a.answered.values()) if text == "a0" else 0)
        return good(text, attempt)

    before: list[int] = []
    wanted = calls(200, "a")
    with Endpoint(reply) as a, Teachers(recipe(a=a), tmp_path, stage(tmp_path)) as teachers:
        teachers.ask(lambda: wanted, len(wanted))
    assert max(before) >= 150


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Python's own handler: a suite that runs in the background begins with this signal ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_a_caller_that_is_interrupted_leaves_no_thread(tmp_path: Path, ctrl_c: None) -> None:
    def broken() -> Iterator[Call]:
        if threading.current_thread() is not threading.main_thread():
            signal.raise_signal(signal.SIGINT)
        yield from calls(1000, "a")

    with Endpoint(good, delay=0.02) as a, Teachers(recipe(a=a), tmp_path, stage(tmp_path)) as teachers:
        with pytest.raises(KeyboardInterrupt):
            teachers.ask(broken, 1000)
        assert not [one for one in threading.enumerate() if one.name.startswith(("rinsho-client", "synthesize-"))]
    assert sum(a.asked.values()) < 100


def test_an_answer_that_is_gone_is_told(tmp_path: Path) -> None:
    wanted = calls(3, "a")
    with Endpoint(good) as a:
        with Teachers(recipe(a=a), tmp_path, stage(tmp_path)) as teachers:
            teachers.ask_once("texts", lambda: wanted, 3, 0)
        (tmp_path / "synthesize.a.jsonl").unlink()
        with Teachers(recipe(a=a), tmp_path, stage(tmp_path)) as teachers:
            teachers.ask_once("texts", lambda: wanted, 3, 0)
            with pytest.raises(UserError, match="the answer to textbook/t0/a/0 is gone"):
                teachers.answer(wanted[0])


def test_a_refusal_on_a_rerun_is_told_as_what_it_is(tmp_path: Path) -> None:
    """Requests that an earlier run gave up meet a wrong key, then an endpoint where nobody listens any more."""
    dead = {"a1", "a4", "a7"}
    wanted = calls(9, "a")
    with Endpoint(lambda text, attempt: {"status": 503} if text in dead else good(text, attempt)) as a:
        given = recipe(a=a)
        once = {"max_failures_in_a_row": 3, "max_retries": 0, "max_concurrent_requests": 1}
        given.teachers["a"] = given.teachers["a"].model_copy(update=once)
        with (
            Teachers(given, tmp_path, stage(tmp_path)) as teachers,
            pytest.raises(UserError, match="3 of 9 requests failed"),
        ):
            teachers.ask_once("texts", lambda: wanted, 9, allowed=1)
        a.reply = lambda *_: {"status": 401}
        with Teachers(given, tmp_path, stage(tmp_path)) as teachers, pytest.raises(UserError, match="refused with 401"):
            teachers.ask_once("texts", lambda: wanted, 9, allowed=9)
    with Teachers(given, tmp_path, stage(tmp_path)) as teachers, pytest.raises(UserError, match="connect_error"):
        teachers.ask_once("texts", lambda: wanted, 9, allowed=9)
    assert not (stage(tmp_path).partial / "asked-texts.json").exists()


def test_only_what_is_missing_is_looked_for(tmp_path: Path) -> None:
    """The thread of a teacher makes no call behind its last one without an answer."""
    wanted, seen = calls(50, "a"), Counter[bool]()

    def made() -> Iterator[Call]:
        for call in wanted:
            seen[threading.current_thread() is threading.main_thread()] += 1
            yield call

    with Endpoint(good) as a:
        with Teachers(recipe(a=a), tmp_path, stage(tmp_path)) as teachers:
            teachers.ask(lambda: wanted[:5] + wanted[8:], 47)
        with Teachers(recipe(a=a), tmp_path, stage(tmp_path)) as teachers:
            teachers.ask(made, 50)
    assert seen == {True: 50, False: 9} and max(a.asked.values()) == 1 and len(a.asked) == 50


def test_another_model_is_told_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def reply(text: str, attempt: int) -> Any:
        return {"body": json.dumps({**json.loads(chat(good(text, attempt))), "model": "a-small"}).encode()}

    wanted = calls(4, "a")
    with Endpoint(reply) as a, Teachers(recipe(a=a), tmp_path, stage(tmp_path)) as teachers:
        teachers.ask(lambda: wanted, 4)
        assert {teachers.answer(call).model for call in wanted} == {"a-small"}
    assert capsys.readouterr().err.count("WARNING: a answers as model 'a-small', not 'a'") == 1


def test_the_line_tells_who_has_not_answered_and_one_time_alone(tmp_path: Path) -> None:
    counts = {"a": Counts(), "b": Counts(retries=3)}
    progress = Progress("texts", 20, "texts", stream=StringIO())
    told = _Told(progress, Counter(a=10, b=10), counts, stage(tmp_path), "texts")
    counts["b"].retries += 24
    told.look()
    assert progress.line().endswith("retries 24, set_aside 0.0%, a: no answer yet, b: no answer yet, 24 retries")
    told.started -= 10
    for _ in range(5):
        told.take("a", Answer("x", text="肺炎"), bad=False)
    told.take("b", Answer("y", error="timeout"), bad=False)
    assert progress.line().endswith("slowest a 10 s left, b: no answer yet, 24 retries")
    told.take("b", Answer("y", text="肺炎"), bad=False)
    assert progress.line().endswith("slowest b 40 s left") and progress.line().count("left") == 1
    told.gone("b")
    assert progress.line().endswith("slowest a 10 s left")
    told.gone("a")
    assert "left" not in progress.line()
