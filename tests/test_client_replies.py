"""What replies mean, odd ones too: an answer that was paid is kept, and nothing but text becomes a text."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from quality.toy_endpoint import Endpoint
from rinsho.client import Client, ClientSettings, Request, conversation, describe
from rinsho.client.answers import Answers
from rinsho.client.asking import request_key
from rinsho.client.replies import Problem, read_answer

LOOPBACK = [pytest.mark.enable_socket, pytest.mark.allow_hosts(["127.0.0.1"])]


def body(content: Any = "よい答え。", usage: str = "null", **fields: Any) -> bytes:
    choices = [{"message": {"content": content}, "finish_reason": "stop"}]
    return (json.dumps({"choices": choices, **fields})[:-1] + f', "usage": {usage}}}').encode()


@pytest.mark.parametrize(
    "count", ["1e999", "-5", "9" * 400, "9" * 5000, '"x"', "NaN", "[1]", "true", "1.5", "1000000001", "null", "{}"]
)
def test_odd_counts_are_none_and_cost_no_answer(count: str) -> None:
    row = read_answer(body(usage=f'{{"prompt_tokens": {count}, "completion_tokens": 7}}'))
    assert (row["text"], row["prompt_tokens"], row["completion_tokens"]) == ("よい答え。", 0, 7)
    assert read_answer(body(usage=count))["text"] == "よい答え。"


@pytest.mark.parametrize(
    "content", [42, True, 0, {"text": "x"}, ["x"], [{"type": "text", "text": 3}], [{"type": "text"}]]
)
def test_what_is_no_text_is_no_answer(content: Any) -> None:
    with pytest.raises(Problem, match="broken_body"):
        read_answer(body(content))


def test_parts_are_joined() -> None:
    parts = [{"type": "thinking", "thinking": "考える"}, {"type": "text", "text": "肺炎は"}, {"text": "感染症。"}]
    assert read_answer(body(parts))["text"] == "肺炎は感染症。"


@pytest.mark.parametrize(
    ("said", "kept"), [("m-70b", "m-70b"), ("m" * 101, ""), ("a\nb", ""), (7, ""), (None, ""), ({"text": "患者"}, "")]
)
def test_of_names_nothing_but_a_short_one_is_kept(said: Any, kept: str) -> None:
    assert read_answer(body(model=said))["model"] == kept


def test_long_answers_are_read_in_few_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    def pread(file: int, size: int, place: int) -> bytes:
        sizes.append(size)
        return real(file, size, place)

    real = os.pread
    monkeypatch.setattr(os, "pread", pread)
    rows = {
        f"k{size}": {
            "text": "x" * size,
            "finish_reason": "",
            "prompt_tokens": 1,
            "completion_tokens": 2,
            "seconds": 0.1,
        }
        for size in (1, 3_990, 4_096, 3_000_000)
    }
    answers = Answers(tmp_path / "a.jsonl")
    for key, row in rows.items():
        answers.put(key, row)
    assert {key: answers.get(key) for key in rows} == {key: {"key": key, **row} for key, row in rows.items()}
    answers.close()
    assert len(sizes) < 20


@pytest.mark.parametrize("count", ["1e999", "-3", "9" * 400, '"x"'])
def test_odd_counts_of_old_files_are_none(count: str, tmp_path: Path) -> None:
    given = ClientSettings(base_url="http://127.0.0.1:9/v1", model="m")
    request = Request("r", conversation("問い。"))
    row = {"key": request_key(given, request), "text": "答え。", "finish_reason": "stop", "seconds": 0.1}
    line = json.dumps(row)[:-1] + f', "prompt_tokens": {count}, "completion_tokens": 4}}\n'
    (tmp_path / "a.jsonl").write_text(line, encoding="utf-8")
    with Client(given, tmp_path / "a.jsonl") as client:
        kept = client.kept(request)
    assert kept is not None
    assert (kept.text, kept.prompt_tokens, kept.completion_tokens, kept.model) == ("答え。", 0, 4, "")


class TestAsked:
    pytestmark = LOOPBACK

    def test_the_model_that_answered_is_told_and_kept(self, tmp_path: Path) -> None:
        with Endpoint(lambda *_: {"body": body(model="other")}) as endpoint:
            given = ClientSettings(base_url=endpoint.url, model="m")
            for _ in range(2):
                with Client(given, tmp_path / "a.jsonl") as client:
                    (answer,) = client.ask([Request("r", conversation("問い。"))])
                assert (answer.text, answer.model) == ("よい答え。", "other")

    @pytest.mark.parametrize("in_order", [True, False])
    def test_looking_long_for_the_next_request_holds_up_no_answer(self, in_order: bool) -> None:
        """The second request is found once the first is answered, which takes longer than its time-out."""
        answered = threading.Event()

        def requests() -> Iterator[Request]:
            yield Request("first", conversation("第一。"))
            assert answered.wait(timeout=4)
            yield Request("second", conversation("第二。"))

        with Endpoint(lambda *_: {"content": "答え。", "wait": 0.2}) as endpoint:
            given = ClientSettings(base_url=endpoint.url, model="m", timeout_seconds=1)
            with Client(given, None) as client:
                found = []
                for answer in client.ask(requests(), in_order=in_order):
                    found.append(answer.id)
                    answered.set()
        assert found == ["first", "second"] and client.counts.attempts == 2


def test_what_is_sent_is_told() -> None:
    far = ClientSettings(base_url="https://api.example.com/v1", model="m")
    said = "PROMPTS ABOUT TOPICS: LEAVES THIS MACHINE, sent to api.example.com (a public address), encrypted"
    assert describe(far, "prompts about topics") == said and describe(far).startswith("DOCUMENT TEXT: LEAVES")
