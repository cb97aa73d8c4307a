"""A model behind an endpoint under test: its file, what is sent, what is kept, and requests that fail for good."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from quality.toy_endpoint import Endpoint
from rinsho.client import ClientSettings, asking
from rinsho.errors import UserError
from rinsho.evaluate.endpoint import answer_all, identity, read_settings
from rinsho.evaluate.inputs import read_answers
from rinsho.run import Stage
from rinsho.tasks import Item
from rinsho.tasks.examples import group
from rinsho.tasks.prompts import CHOICE, ENTITIES

pytestmark = [pytest.mark.enable_socket, pytest.mark.allow_hosts(["127.0.0.1"])]
SECRET = "熱が三日つづく"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "FIRST_WAIT_SECONDS", 0.01)


def items(count: int = 6) -> list[Item]:
    found = [
        Item(f"smdis/{n}", "smdis", "choice", "熱", CHOICE, f"第{n}例、{SECRET}。", ("はい", "いいえ"), ("A",), "", "")
        for n in range(count)
    ]
    return [*found, Item("nrner/0", "nrner", "entities", "d", ENTITIES, "所見は？「発熱」", (), ("発熱",), "発熱", "")]


def settings(endpoint: Endpoint, **changes: Any) -> ClientSettings:
    return ClientSettings.model_validate({"base_url": endpoint.url, "model": "toy", "timeout_seconds": 5, **changes})


def answers(folder: Path, given: ClientSettings, asked: list[Item], **how: Any) -> list[dict[str, Any]]:
    stage = Stage("evaluate", folder)
    stage.partial.mkdir(parents=True, exist_ok=True)
    path = answer_all(stage, given, asked, **{"examples": {}, "max_new_tokens": 77, **how})
    assert len(read_answers(path)) == len(path.read_bytes().splitlines())
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def number(text: str) -> int:
    return int(text.partition("第")[2].partition("例")[0] or -1)


def test_what_is_sent_and_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def reply(text: str, attempt: int) -> Any:
        if number(text) == 1:
            return {"content": "<think>Bか。</think>\n\nA"}
        if number(text) == 2:
            return {"content": "<think>Bか", "finish_reason": "length"}
        return {"content": "" if number(text) == 3 else "['発熱']" if "所見" in text else " A "}

    solved = replace(items()[0], id="x", question="例題。", gold=("B",))
    with Endpoint(reply) as endpoint:
        given = settings(endpoint, max_concurrent_requests=1)
        rows = answers(tmp_path, given, items(), examples={group(solved): [solved]}, rotations=1)
    assert [(row["id"], row["rotation"]) for row in rows] == [
        (item.id, rotation) for item in items() for rotation in range(2 if item.options else 1)
    ]
    assert [row["answer"] for row in rows[::2]] == [" A ", "A", "", "", " A ", " A ", "['発熱']"]  # raw: not trimmed
    assert [row.get("reasoning_chars") for row in rows[2:6:2]] == [10, 9]
    assert rows[4]["finish_reason"] == "length" and {row["tokens"] for row in rows} == {2}
    assert [row["examples"] for row in rows] == [1] * 12 + [0]
    assert {(row["mode"], row["form"]) for row in rows} == {("free", "letter")}
    body = endpoint.bodies[1]
    assert (body["max_tokens"], body["temperature"]) == (77, 0.0)
    assert body["messages"] == [
        {"role": "system", "content": CHOICE.system},
        {"role": "user", "content": "質問: 例題。\n選択肢:\nA. はい\nB. いいえ\n"}, {"role": "assistant", "content": "B"},
        {"role": "user", "content": f"質問: 第0例、{SECRET}。\n選択肢:\nA. いいえ\nB. はい\n"},
    ]  # fmt: skip
    log = (tmp_path / "log.txt").read_text(encoding="utf-8")
    assert "on this machine" in log.splitlines()[0]  # before anything is sent
    assert "2 of 13 answers ended at 77 tokens" in log and "still thinking" in log
    assert SECRET not in log + "".join(capsys.readouterr())


HOSTILE: list[Any] = [
    {"status": 429, "headers": {"Retry-After": "0"}},
    {"status": 500},
    {"cut": True, "content": "B"},
    {"close": True},
    {"body": b'{"choices": []}'},
]


def test_a_hostile_endpoint_gives_the_same_file(tmp_path: Path) -> None:
    def hostile(text: str, attempt: int) -> Any:
        return "A" if attempt > 2 else HOSTILE[(number(text) + attempt) % len(HOSTILE)]

    with Endpoint(lambda *_: "A") as endpoint:
        answers(tmp_path / "good", settings(endpoint), items(20))
    with Endpoint(hostile) as endpoint:
        answers(tmp_path / "bad", settings(endpoint), items(20))
        assert max(endpoint.answered.values()) == 1
    assert (tmp_path / "bad/answers.jsonl").read_bytes() == (tmp_path / "good/answers.jsonl").read_bytes()


def test_a_request_that_fails_for_good_is_no_wrong_answer(tmp_path: Path) -> None:
    def reply(text: str, attempt: int) -> Any:
        return {"status": 500 + number(text)} if number(text) in (0, 3) else "A"

    with Endpoint(reply) as endpoint:
        given = settings(endpoint, max_retries=1)
        with pytest.raises(
            UserError, match=r"2 of 9 questions .* 2 attempts each \(http_500 1, http_503 1\)"
        ) as caught:
            answers(tmp_path, given, items(8))
        assert SECRET not in str(caught.value) and not (tmp_path / "answers.jsonl").exists()
        assert len(endpoint.answered) == 9 and sum(endpoint.asked.values()) == 7 + 2 * 2
        endpoint.reply = lambda *_: "A"
        rows = answers(tmp_path, given, items(8))
        assert sum(endpoint.asked.values()) == 7 + 2 * 2 + 2  # these alone
        assert answers(tmp_path, given, items(8)) == rows and sum(endpoint.asked.values()) == 13
    assert [row["answer"] for row in rows] == ["A"] * 9


def test_an_interrupted_run_pays_nothing_twice(tmp_path: Path) -> None:
    def reply(text: str, attempt: int) -> Any:
        return {"status": 401} if number(text) == 4 and attempt == 1 else "A"

    with Endpoint(reply) as endpoint:
        given = settings(endpoint, max_concurrent_requests=1)
        with pytest.raises(UserError, match="refused with 401"):
            answers(tmp_path, given, items(8))
        assert len(endpoint.answered) == 5
        answers(tmp_path, given, items(8))
    assert sum(endpoint.asked.values()) == 9 + 1


def test_a_room_in_the_file_goes_before_the_recipes(tmp_path: Path) -> None:
    with Endpoint(lambda *_: {"status": 400, "body": b'{"error": {"code": "content_filter"}}'}) as endpoint:
        rows = answers(tmp_path, settings(endpoint, max_tokens=9), items(1))
    assert endpoint.bodies[0]["max_tokens"] == 9
    assert [row["finish_reason"] for row in rows] == ["content_filter"] * 2
    assert "2 of 2 questions were refused" in (tmp_path / "log.txt").read_text(encoding="utf-8")


TOO_LONG = [
    {"error": {"code": "context_length_exceeded", "message": SECRET}},
    {"error": {"code": 400, "type": "exceed_context_size_error", "message": "the request exceeds the size"}},
    {"object": "error", "message": "This model's maximum context length is 60 tokens.", "type": "BadRequestError", "code": 400},
    {"error": {"code": 400, "type": "BadRequestError", "message": "This model's maximum context length is 60 tokens."}},
]  # fmt: skip


class Narrow:
    """An endpoint whose window ends at so many characters of all turns, and which refuses one question with 401."""

    def __init__(self, window: int, error: Any, stop_at: int = -1) -> None:
        self.window, self.error, self.stop_at = window, error, stop_at
        self.endpoint = Endpoint(self.reply)

    def reply(self, text: str, attempt: int) -> Any:
        if number(text) == self.stop_at:
            return {"status": 401}
        if sum(len(turn["content"]) for turn in self.endpoint.bodies[-1]["messages"]) > self.window:
            return {"status": 400, "body": json.dumps(self.error).encode()}
        return "A"


def long_items() -> list[Item]:
    """One that fits as it is, one only without its middle, one however short; the first examples go first."""
    texts = ["短い。", "始" + "中" * 200 + "終", "長" * 10_000]
    return [replace(items()[0], id=f"smdis/{n}", question=f"第{n}例、{text}") for n, text in enumerate(texts)]


@pytest.mark.parametrize("error", TOO_LONG, ids=["openai", "llama.cpp", "vllm-old", "vllm"])
def test_what_is_too_long_loses_examples_then_its_middle_then_its_answer(tmp_path: Path, error: Any) -> None:
    solved = [replace(items()[0], id=f"x{n}", question=f"例題{n}{'。' * 20}") for n in range(3)]
    narrow = Narrow(270, error)
    with narrow.endpoint as endpoint:
        given = settings(endpoint, max_concurrent_requests=1)
        rows = answers(tmp_path, given, long_items(), examples={group(solved[0]): solved})
    assert [(row["examples"], row["shortened"], row["answer"]) for row in rows] == [
        (3, False, "A"), (0, True, "A"), (0, True, ""),
    ]  # fmt: skip
    assert [row["finish_reason"] for row in rows] == ["stop", "stop", "too_long"]
    asked = [[turn["content"] for turn in body["messages"]] for body in endpoint.bodies]
    second = [turns for turns in asked if "第1例" in turns[-1]]
    assert [len(turns) // 2 - 1 for turns in second] == [3, 2, 1, 0, 0]
    assert second[1][1] == f"質問: {solved[1].question}\n選択肢:\nA. はい\nB. いいえ\n"  # the first one has gone
    whole, cut = second[-2][-1], second[-1][-1]
    size = len(whole) // 2
    assert cut == whole[: size // 4] + whole[-(size - size // 4) :]
    assert cut.endswith("終\n選択肢:\nA. はい\nB. いいえ\n")
    assert sum("長" in turns[-1] for turns in asked) == 4 + 3
    log = (tmp_path / "log.txt").read_text(encoding="utf-8")
    assert "1 of 3 questions were longer than the model's window" in log
    assert "1 of 3 questions do not fit" in log and SECRET not in log


def test_nothing_of_what_is_too_long_is_asked_twice(tmp_path: Path) -> None:
    asked = [*long_items(), replace(items()[0], id="smdis/9", question=f"第9例、{'長' * 300}")]
    whole = Narrow(270, TOO_LONG[0])
    with whole.endpoint as endpoint:
        expected = answers(tmp_path / "whole", settings(endpoint, max_concurrent_requests=1), asked)
    stopped = Narrow(270, TOO_LONG[0], stop_at=9)
    with stopped.endpoint as endpoint:
        given = settings(endpoint, max_concurrent_requests=1)
        with pytest.raises(UserError, match="refused with 401"):
            answers(tmp_path / "stopped", given, asked)
        stopped.stop_at = -1
        assert answers(tmp_path / "stopped", given, asked) == expected
    assert sum(stopped.endpoint.asked.values()) == sum(whole.endpoint.asked.values()) + 1


def test_an_endpoint_may_move_and_be_asked_otherwise_while_a_run_goes_on(tmp_path: Path) -> None:
    def reply(text: str, attempt: int) -> Any:
        return {"status": 401} if number(text) == 4 else "A"

    with Endpoint(reply) as endpoint:
        first = settings(endpoint, max_concurrent_requests=1)
        with pytest.raises(UserError, match="refused with 401"):
            answers(tmp_path, first, items(8))
    with Endpoint(lambda *_: "A") as endpoint:
        second = settings(
            endpoint, max_concurrent_requests=3, max_requests_per_minute=60_000, timeout_seconds=9, max_retries=1,
            max_failures_in_a_row=2,
        )  # fmt: skip
        answers(tmp_path, second, items(8))
        assert sum(endpoint.asked.values()) == 9 - 4 and second != first
    assert identity(first) == identity(second)
    changes: list[dict[str, Any]] = [
        {"model": "x"}, {"max_tokens": 512}, {"temperature": 0.5}, {"seed": 1}, {"extra": {"top_p": 0.9}}
    ]  # fmt: skip
    others = {identity(settings(endpoint, **change)) for change in changes}
    assert len(others | {identity(first)}) == 6  # 512 tokens in the file are not the recipe's room


def test_the_file_of_an_endpoint(tmp_path: Path) -> None:
    path = tmp_path / "model.yaml"
    path.write_text("base_url: http://127.0.0.1:8000/v1/\nmodel: 某\nextra: {top_p: 0.9}\n", encoding="utf-8")
    found = read_settings(path)
    assert (found.base_url, found.model, found.temperature) == ("http://127.0.0.1:8000/v1", "某", 0)
    for text, message in {
        "base_url: http://a/v1\nmodle: x\n": r"unknown key 'modle' \(did you mean 'model'\?\).*api_key_variable",
        "base_url: http://a/v1\n": "model missing",
        "base_url: ''\n": "base_url and model missing",
        "base_url: ftp://a\nmodel: x\n": "not an address",
        "base_url: http://a/v1\nmodel: x\napi_key: abc\n": "unknown key 'api_key'",
        "- base_url\n": "not a mapping",
        "base_url: [\n": "not valid YAML",
    }.items():
        path.write_text(text, encoding="utf-8")
        with pytest.raises(UserError, match=message) as caught:
            read_settings(path)
        assert str(path) in str(caught.value) and "abc" not in str(caught.value)
