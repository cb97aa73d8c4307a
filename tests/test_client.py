"""The client against good and hostile endpoints on the loopback address: nothing lost, nothing paid twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from quality.toy_endpoint import Endpoint
from rinsho.chat import Message
from rinsho.client import Client, ClientSettings, Request, asking, check, conversation, describe
from rinsho.errors import UserError

pytestmark = [pytest.mark.enable_socket, pytest.mark.allow_hosts(["127.0.0.1"])]
KEY = "sk-geheim-4711-abcdef"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "FIRST_WAIT_SECONDS", 0.01)
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nobody listens: an endpoint of one's own needs no proxy


def settings(endpoint: Endpoint | None = None, **changes: Any) -> ClientSettings:
    given = {"base_url": endpoint.url if endpoint else "http://127.0.0.1:1/v1", "model": "toy", "timeout_seconds": 5}
    return ClientSettings.model_validate({**given, **changes})


def requests(count: int, start: int = 0) -> list[Request]:
    return [Request(f"r{n}", conversation(f"第{n}文。")) for n in range(start, start + count)]


def echo(text: str, attempt: int) -> str:
    return f"答え：{text}"


def ask(given: ClientSettings, wanted: list[Request], answers: Path | None = None) -> tuple[list[Any], Any]:
    with Client(given, answers) as client:
        return list(client.ask(wanted)), client.counts


def test_answers_in_order_and_at_once() -> None:
    four = threading.Barrier(4)

    def reply(text: str, attempt: int) -> Any:
        if int(text[1:-2]) < 4:  # the first four are answered when all four have come
            four.wait(timeout=4)
        return {"content": f"答え：{text}", "wait": 0.1 if text == "第0文。" else 0.005}

    with Endpoint(reply) as endpoint:
        found, counts = ask(settings(endpoint, max_concurrent_requests=4), requests(30))
    assert [answer.id for answer in found] == [f"r{n}" for n in range(30)]
    assert [answer.text for answer in found] == [f"答え：第{n}文。" for n in range(30)]
    assert endpoint.most_under_way == 4
    assert (counts.requests, counts.attempts, counts.cached, counts.retries) == (30, 30, 0, 0)
    assert (counts.prompt_tokens, counts.completion_tokens) == (330, 60)
    assert found[0].finish_reason == "stop" and found[0].seconds >= 0.1 and not found[0].cached


def test_what_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOY_KEY", f" {KEY}\n")
    given = {"api_key_variable": "TOY_KEY", "seed": 7, "temperature": 0.5, "max_tokens": 3, "extra": {"top_p": 0.9}}
    with Endpoint(echo) as endpoint:
        ask(settings(endpoint, **given), [Request("a", conversation("本文。", system="指示。"))])
        ask(settings(endpoint), requests(1))
    assert endpoint.bodies[0] == {
        "model": "toy", "temperature": 0.5, "max_tokens": 3, "seed": 7, "top_p": 0.9,
        "messages": [{"role": "system", "content": "指示。"}, {"role": "user", "content": "本文。"}],
    }  # fmt: skip
    assert "seed" not in endpoint.bodies[1]
    assert endpoint.keys == {f"Bearer {KEY}", None}


HOSTILE: list[Any] = [
    {"status": 429, "headers": {"Retry-After": "0"}},
    {"status": 500, "body": b"<html>oops</html>"},
    {"status": 503},
    {"cut": True, "content": "半分"},
    {"close": True},
    {"body": b'{"choices": [{"message": {"content": "'},
    {"body": b'{"choices": []}'},
    {"body": b"[]"},
    {"status": 408},
    {"wait": 3, "content": "遅い"},
]


def test_a_hostile_endpoint_loses_nothing(tmp_path: Path) -> None:
    """Each request first meets one or two of the troubles above; all are answered, once each, in order."""

    def reply(text: str, attempt: int) -> Any:
        number = int(text[1:-2])
        return echo(text, attempt) if attempt > 1 + number % 2 else HOSTILE[(number + attempt) % len(HOSTILE)]

    with Endpoint(reply) as endpoint:
        given = settings(endpoint, timeout_seconds=1.5)
        found, counts = ask(given, requests(40), tmp_path / "answers.jsonl")
        again, again_counts = ask(given, requests(40), tmp_path / "answers.jsonl")
    assert [(answer.id, answer.text) for answer in found] == [(f"r{n}", f"答え：第{n}文。") for n in range(40)]
    assert counts.attempts == 40 + counts.retries and counts.retries == 60 and counts.failures == 0
    kinds = {"http_429", "http_500", "http_503", "http_408", "remote_protocol_error", "broken_body", "timeout"}
    assert set(counts.problems) == kinds
    assert again_counts.attempts == 0 and again_counts.cached == 40
    assert [answer.text for answer in again] == [answer.text for answer in found]


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_retry_after_is_kept_to_by_all_requests(form: str) -> None:
    def reply(text: str, attempt: int) -> Any:
        if text == "第0文。" and attempt == 1:
            when = datetime.now(UTC) + timedelta(seconds=2)  # a date has whole seconds
            value = "0.6" if form == "seconds" else format_datetime(when, usegmt=True)
            return {"status": 429, "headers": {"Retry-After": value}}
        return echo(text, attempt)

    with Endpoint(reply) as endpoint:
        found, _ = ask(settings(endpoint, max_concurrent_requests=1), requests(3))
    assert all(answer.text for answer in found)
    assert endpoint.times[1] - endpoint.times[0] >= 0.6
    assert len(endpoint.times) == 4


def test_a_daily_limit_ends_the_run() -> None:
    message = r"asks to wait 86400 seconds.*what was answered is kept"
    late = {"status": 429, "headers": {"Retry-After": "86400"}}
    with Endpoint(lambda *_: late) as endpoint, pytest.raises(UserError, match=message):
        ask(settings(endpoint), requests(3))
    assert sum(endpoint.asked.values()) == 3


def test_requests_per_minute() -> None:
    with Endpoint(echo) as endpoint:
        ask(settings(endpoint, max_requests_per_minute=1200), requests(8))
    gaps = [b - a for a, b in zip(endpoint.times, endpoint.times[1:], strict=False)]
    assert endpoint.times[-1] - endpoint.times[0] >= 7 * 0.05 - 0.02
    assert max(gaps) < 2


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (400, r"refused with 400 \(context_length_exceeded\).*longer than the model's window"),
        (401, "refused with 401.*check the key in TOY_KEY"),
        (403, "refused with 403.*rights of the key in TOY_KEY"),
        (404, "refused with 404.*base_url.*model name 'toy'"),
        (302, "refused with 302.*other addresses are not followed"),
    ],
)
def test_refusals_are_not_repeated(status: int, message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TOY_KEY", KEY)
    error = {"error": {"message": f"第1文。 was refused, key {KEY}", "code": "context_length_exceeded"}}

    def reply(text: str, attempt: int) -> Any:
        said = {"status": status, "body": json.dumps(error).encode(), "headers": {"Location": "http://127.0.0.1:9/"}}
        return said if text == "第1文。" else echo(text, attempt)

    with Endpoint(reply) as endpoint:
        given = settings(endpoint, api_key_variable="TOY_KEY", max_concurrent_requests=1)
        with pytest.raises(UserError, match=message) as caught:
            ask(given, requests(5), tmp_path / "answers.jsonl")
        assert endpoint.url in str(caught.value)
        assert "文" not in str(caught.value) and KEY not in str(caught.value)
        assert endpoint.asked["第1文。"] == 1 and sum(endpoint.asked.values()) == 2
        endpoint.reply = echo
        found, counts = ask(given, requests(5), tmp_path / "answers.jsonl")
    assert counts.cached == 1 and all(answer.text for answer in found)
    assert all(KEY not in path.read_text() for path in tmp_path.iterdir())


def test_an_endpoints_own_filter_and_refusals_are_answers(tmp_path: Path) -> None:
    replies = {
        "第0文。": {"status": 400, "body": b'{"error": {"code": "content_filter", "message": "no"}}'},
        "第1文。": {"content": None, "message": {"refusal": "できません。"}},
        "第2文。": {"content": "途中", "finish_reason": "length"},
        "第3文。": {"content": None},
    }
    with Endpoint(lambda text, attempt: replies[text]) as endpoint:
        found, _ = ask(settings(endpoint), requests(4), tmp_path / "answers.jsonl")
        again, counts = ask(settings(endpoint), requests(4), tmp_path / "answers.jsonl")
    expected = [("", "content_filter"), ("できません。", "refusal"), ("途中", "length"), ("", "stop")]
    assert [(answer.text, answer.finish_reason) for answer in found] == expected
    assert counts.attempts == 0 and [answer.text for answer in again] == [text for text, _ in expected]


def test_a_request_given_up_is_said_and_asked_again_next_time(tmp_path: Path) -> None:
    def reply(text: str, attempt: int) -> Any:
        return {"status": 500} if text == "第2文。" else echo(text, attempt)

    with Endpoint(reply) as endpoint:
        given = settings(endpoint, max_retries=2)
        found, counts = ask(given, requests(6), tmp_path / "answers.jsonl")
        assert [answer.error for answer in found] == ["", "", "http_500", "", "", ""]
        assert counts.failures == 1 and endpoint.asked["第2文。"] == 3
        endpoint.reply = echo
        found, counts = ask(given, requests(6), tmp_path / "answers.jsonl")
    assert counts.attempts == 1 and found[2].text == "答え：第2文。"


def test_an_endpoint_that_is_gone_ends_the_run_and_keeps_what_was_answered(tmp_path: Path) -> None:
    def reply(text: str, attempt: int) -> Any:
        return echo(text, attempt) if int(text[1:-2]) < 10 else {"close": True}

    with Endpoint(reply) as endpoint:
        given = settings(endpoint, max_retries=1, max_failures_in_a_row=3, max_concurrent_requests=2)
        with pytest.raises(UserError, match="3 requests in a row failed, the last with remote_protocol_error"):
            ask(given, requests(1000), tmp_path / "answers.jsonl")
        assert sum(endpoint.asked.values()) < 30
        endpoint.reply = echo
        _, counts = ask(given, requests(20), tmp_path / "answers.jsonl")
    assert (counts.cached, counts.attempts) == (10, 10)
    assert max(endpoint.answered.values()) == 1


def test_nobody_listens() -> None:
    with pytest.raises(UserError, match="in a row failed, the last with connect_error"):
        ask(settings(max_retries=1, max_failures_in_a_row=2), requests(9))


def test_equal_requests_are_asked_once() -> None:
    with Endpoint(echo, delay=0.02) as endpoint:
        found, counts = ask(settings(endpoint), [Request(f"r{n}", conversation("同じ文。")) for n in range(12)])
    assert endpoint.asked["同じ文。"] == 1 and counts.cached == 11
    assert [answer.id for answer in found] == [f"r{n}" for n in range(12)]
    assert counts.prompt_tokens == 11


@pytest.mark.parametrize("name", ["answers.jsonl", None])
def test_the_same_question_later_in_a_run_is_not_asked_again(name: str | None, tmp_path: Path) -> None:
    with Endpoint(echo) as endpoint, Client(settings(endpoint), tmp_path / name if name else None) as client:
        first, again = list(client.ask(requests(3))), list(client.ask(requests(3)))
        assert client.counts.attempts == 3 == sum(endpoint.asked.values())
    assert [answer.text for answer in again] == [answer.text for answer in first]
    assert all(answer.cached for answer in again)


def test_other_settings_are_other_questions_but_not_another_address(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    with Endpoint(echo) as first:
        ask(settings(first), requests(2), path)
        for change in ({"temperature": 1}, {"model": "b"}, {"max_tokens": 9}, {"seed": 3}, {"extra": {"top_k": 1}}):
            _, counts = ask(settings(first, **change), requests(2), path)
            assert counts.cached == 0
    with Endpoint(echo) as second:
        _, counts = ask(settings(second, timeout_seconds=9), requests(2), path)
    assert counts.cached == 2


def test_half_lines_and_strange_lines_are_ignored(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    with Endpoint(echo) as endpoint:
        ask(settings(endpoint), requests(3), path)
        assert path.stat().st_mode & 0o077 == 0
        lines = path.read_bytes().splitlines(keepends=True)
        path.write_bytes(lines[0] + b"\xff\n[1]\n{}\n" + lines[1] + lines[2][:-9])
        found, counts = ask(settings(endpoint), requests(4), path)
        assert (counts.cached, counts.attempts) == (2, 2)
        assert [answer.text for answer in found] == [f"答え：第{n}文。" for n in range(4)]
        _, counts = ask(settings(endpoint), requests(4), path)
    assert counts.cached == 4


def test_long_answers_and_strange_characters_come_back(tmp_path: Path) -> None:
    long = "長い答え。\n\u2028\x00\U0001f600" * 3000
    with Endpoint(lambda *_: {"content": long}) as endpoint:
        given = [Request("a", (Message("user", "孤立\ud800"),))]
        ask(settings(endpoint), given, tmp_path / "answers.jsonl")
        found, counts = ask(settings(endpoint), given, tmp_path / "answers.jsonl")
    assert counts.cached == 1 and found[0].text == long


def test_one_process_a_file(tmp_path: Path) -> None:
    with Client(settings(), tmp_path / "answers.jsonl"), pytest.raises(UserError, match="another rinsho process"):
        Client(settings(), tmp_path / "answers.jsonl")
    Client(settings(), tmp_path / "answers.jsonl").__exit__()


def test_a_caller_that_stops_early_leaves_no_thread_and_keeps_what_was_under_way(tmp_path: Path) -> None:
    with Endpoint(echo, delay=0.03) as endpoint:
        with Client(settings(endpoint, max_concurrent_requests=2), tmp_path / "answers.jsonl") as client:
            answers = client.ask(requests(500))
            next(answers)
            answers.close()
        asked = sum(endpoint.asked.values())
        assert asked < 100
        assert not [thread for thread in threading.enumerate() if thread.name == "rinsho-client"]
        _, counts = ask(settings(endpoint), requests(120), tmp_path / "answers.jsonl")
    assert counts.cached == asked and max(endpoint.asked.values()) == 1


def test_requests_that_cannot_be_made_reach_the_caller() -> None:
    def broken() -> Any:
        yield requests(1)[0]
        raise UserError("no document", where="a.jsonl")

    with (
        Endpoint(echo) as endpoint,
        Client(settings(endpoint), None) as client,
        pytest.raises(UserError, match="no document"),
    ):
        list(client.ask(broken()))


CHILD = """
import sys
from pathlib import Path
from rinsho.client import Client, ClientSettings, Request, conversation
given = ClientSettings(base_url=sys.argv[1], model="toy", max_concurrent_requests=4, api_key_variable="TOY_KEY")
with Client(given, Path(sys.argv[2])) as client:
    for answer in client.ask(Request(f"r{n}", conversation(f"第{n}文。")) for n in range(int(sys.argv[3]))):
        print(answer.id, answer.text, flush=True)
"""


def test_kill_and_run_again_asks_nothing_twice(tmp_path: Path) -> None:
    """After each kill -9, what stood in the file is not asked again; at most what was under way was paid for."""
    path, total, kills = tmp_path / "answers.jsonl", 90, 2
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "TOY_KEY": KEY}
    with Endpoint(echo, delay=0.01) as endpoint:
        command = [sys.executable, "-c", CHILD, endpoint.url, str(path), str(total)]
        for kill in range(1, kills + 1):
            child = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
            while sum(endpoint.answered.values()) < kill * 25:
                assert child.poll() is None
                time.sleep(0.002)
            child.send_signal(signal.SIGKILL)
            child.wait()
            time.sleep(0.05)
        kept = {json.loads(line)["text"] for line in path.read_bytes().splitlines(keepends=True) if line[-1:] == b"\n"}
        before = dict(endpoint.asked)
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        assert all(endpoint.asked[text.removeprefix("答え：")] == before[text.removeprefix("答え：")] for text in kept)
    assert len(kept) >= kills * 25 - kills * 4
    assert done.stdout.splitlines() == [f"r{n} 答え：第{n}文。" for n in range(total)]
    assert sum(endpoint.asked.values()) <= total + kills * 4
    assert KEY not in path.read_text() + done.stdout + done.stderr


def test_describe_says_where_text_goes() -> None:
    def place(url: str) -> str:
        return describe(settings(base_url=url))

    assert "on this machine" in place("http://127.0.0.1:8000/v1") and "LEAVES" not in place("http://[::1]:8000/v1")
    assert "on this machine" in place("http://localhost:8000/v1")
    assert "LEAVES THIS MACHINE" in place("http://192.168.1.5:8000/v1")
    assert "local network" in place("http://192.168.1.5:8000/v1") and "NOT encrypted" in place("http://10.0.0.2/v1")
    assert "api.example.com (a public address), encrypted" in place("https://api.example.com/v1")
    assert "public" in place("http://127.0.0.1.example.com/v1")


def test_check_and_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TOY_KEY", raising=False)
    problems = check(ClientSettings.model_validate({"api_key_variable": "TOY_KEY"}), "quality.endpoint")
    assert [problem.where for problem in problems] == [
        "quality.endpoint.base_url", "quality.endpoint.model", "quality.endpoint.api_key_variable"
    ]  # fmt: skip
    monkeypatch.setenv("TOY_KEY", "鍵 " + KEY)
    (problem,) = check(settings(api_key_variable="TOY_KEY"), "e")
    assert KEY not in str(problem)
    with pytest.raises(UserError, match="TOY_KEY"):
        Client(settings(api_key_variable="TOY_KEY"), None)
    for bad in (
        {"base_url": "ftp://host/v1"},
        {"base_url": "http://user:secret@host/v1"},
        {"base_url": "http://host/v1?key=secret"},
        {"extra": {"messages": []}},
        {"extra": {"user": "x"}},
    ):
        with pytest.raises(ValidationError):
            settings(**bad)


def test_each_request_may_have_its_own_seed(tmp_path: Path) -> None:
    same = [Request(f"r{seed}", conversation("同じ問い。"), seed=seed) for seed in (1, 2, 1, None)]
    with Endpoint(echo) as endpoint:
        _, counts = ask(settings(endpoint, seed=7), same, tmp_path / "answers.jsonl")
        assert sorted(body["seed"] for body in endpoint.bodies) == [1, 2, 7]
        _, again = ask(settings(endpoint, seed=7), same, tmp_path / "answers.jsonl")
    assert counts.attempts == 3 and again.attempts == 0


def test_answers_tell_when_they_came_and_files_from_before_are_read(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    with Endpoint(echo) as endpoint:
        (fresh,), _ = ask(settings(endpoint), requests(1), path)
        (kept,), _ = ask(settings(endpoint), requests(1), path)
        row = json.loads(path.read_text())
        row.pop("time")
        path.write_text(json.dumps(row) + "\n")
        (old,), counts = ask(settings(endpoint), requests(1), path)
    came = datetime.strptime(fresh.time, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    assert abs(datetime.now(UTC) - came) < timedelta(minutes=1) and kept.time == fresh.time
    assert old.time == "" and old.text == fresh.text and counts.attempts == 0


def test_kept_answers_without_asking(tmp_path: Path) -> None:
    one, other = requests(2)
    with Endpoint(echo) as endpoint, Client(settings(endpoint), tmp_path / "answers.jsonl") as client:
        (answer,) = client.ask([one])
        assert client.is_kept(one) and not client.is_kept(other) and client.kept(other) is None
        kept = client.kept(one)
    assert kept is not None and (kept.text, kept.time, kept.cached) == (answer.text, answer.time, True)


def test_answers_as_they_come_are_held_up_by_none(tmp_path: Path) -> None:
    """The first request is tried again and again while a hundred others, more than the window holds, come back."""
    come: list[str] = []

    def reply(text: str, attempt: int) -> Any:
        end = time.monotonic() + 4
        while text == "第0文。" and len(come) < 100 and time.monotonic() < end:
            time.sleep(0.005)
        return echo(text, attempt)

    with (
        Endpoint(reply) as endpoint,
        Client(settings(endpoint, max_concurrent_requests=3), tmp_path / "a.jsonl") as client,
    ):
        for answer in client.ask(requests(120), in_order=False):
            come.append(answer.id)
    assert sorted(come) == sorted(f"r{n}" for n in range(120)) and come.index("r0") >= 100
    assert max(endpoint.asked.values()) == 1 and client.counts.requests == 120


def test_as_they_come_hostile_ends_and_failures_are_told(tmp_path: Path) -> None:
    def reply(text: str, attempt: int) -> Any:
        number = int(text[1:-2])
        if number % 10 == 9:
            return {"status": 500}
        return echo(text, attempt) if attempt > 1 else HOSTILE[number % 7]

    with Endpoint(reply) as endpoint:
        given = settings(endpoint, max_retries=2, max_failures_in_a_row=50)
        with Client(given, tmp_path / "answers.jsonl") as client:
            found = {answer.id: answer for answer in client.ask(requests(40), in_order=False)}
        endpoint.reply = lambda *_: {"status": 401}
        with Client(given, tmp_path / "answers.jsonl") as client, pytest.raises(UserError, match="401"):
            list(client.ask(requests(50), in_order=False))
    assert {name for name, answer in found.items() if answer.error} == {f"r{n}" for n in range(9, 40, 10)}
    assert len(found) == 40 and {answer.error for answer in found.values()} == {"", "http_500"}


def test_stop_from_another_thread_does_not_wait_for_a_slow_answer(tmp_path: Path) -> None:
    with Endpoint(lambda *_: {"content": "遅い", "wait": 1.5}) as endpoint:
        with Client(settings(endpoint, max_concurrent_requests=2), tmp_path / "answers.jsonl") as client:
            threading.Timer(0.3, client.stop).start()
            assert list(client.ask(requests(50))) == []
        assert sum(endpoint.asked.values()) == 2
        with Client(settings(endpoint), tmp_path / "answers.jsonl") as client:
            assert [client.is_kept(request) for request in requests(3)] == [True, True, False]  # paid, so kept
