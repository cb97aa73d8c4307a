"""rinsho.serve.schemas: nothing that is asked for is silently not done."""

from __future__ import annotations

import time
from typing import Any

import pytest

from rinsho.chat import Message
from rinsho.serve.errors import ApiError
from rinsho.serve.schemas import (
    ChatRequest,
    ClassifyRequest,
    CompletionRequest,
    ExtractRequest,
    RowsRequest,
    TokensRequest,
    parsed,
)

SECRET = "秘密の患者"
USER = {"role": "user", "content": "発熱"}


def chat(**fields: Any) -> ChatRequest:
    return parsed(ChatRequest, {"messages": [USER], **fields})


def refused(form: Any, data: Any) -> ApiError:
    with pytest.raises(ApiError) as caught:
        parsed(form, data)
    assert SECRET not in str(caught.value.body)
    return caught.value


@pytest.mark.parametrize(
    "fields",
    [
        {"n": 1}, {"n": None}, {"presence_penalty": 0.0}, {"frequency_penalty": 0}, {"logit_bias": {}}, {"tools": []},
        {"tool_choice": "none"}, {"response_format": {"type": "text"}}, {"user": SECRET}, {"store": False},
        {"stream_options": {"include_usage": True, "include_obfuscation": False}}, {"service_tier": "auto"},
        {"seed": None, "stop": None, "temperature": None, "max_tokens": None, "logprobs": None},
        {"parallel_tool_calls": True}, {"modalities": ["text"]}, {"repetition_penalty": 1.0}, {"top_k": 5},
    ],
)  # fmt: skip
def test_what_means_nothing_is_taken(fields: dict[str, Any]) -> None:
    assert chat(**fields).messages[0].message() == Message("user", "発熱")


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({"n": 2}, "unsupported_value", "n"),
        ({"n": True}, "unsupported_value", "n"),
        ({"presence_penalty": 0.5}, "unsupported_value", "presence_penalty"),
        ({"tools": [{"type": "function"}]}, "unsupported_value", "tools"),
        ({"response_format": {"type": "json_object"}}, "unsupported_value", "response_format"),
        ({"logit_bias": {"1": 2}}, "unsupported_value", "logit_bias"),
        ({"temprature": 1}, "unknown_parameter", "temprature"),
        ({"guided_json": SECRET}, "unknown_parameter", "guided_json"),
        ({"temperature": 2.1}, "invalid_value", "temperature"),
        ({"temperature": "1"}, "invalid_value", "temperature"),
        ({"temperature": True}, "invalid_value", "temperature"),
        ({"top_p": 0}, "invalid_value", "top_p"),
        ({"max_tokens": 0}, "invalid_value", "max_tokens"),
        ({"max_tokens": 1.5}, "invalid_value", "max_tokens"),
        ({"stop": ""}, "invalid_value", "stop[0]"),
        ({"stop": ["a"] * 17}, "invalid_value", "stop"),
        ({"stop": [SECRET * 90]}, "invalid_value", "stop[0]"),
        ({"stream": "yes"}, "invalid_value", "stream"),
        ({"messages": []}, "invalid_value", "messages"),
        ({"messages": SECRET}, "invalid_value", "messages"),
        ({"messages": [SECRET]}, "invalid_value", "messages[0]"),
        ({"messages": [{"role": SECRET, "content": ""}]}, "invalid_value", "messages[0].role"),
        ({"messages": [{"role": "tool", "content": ""}]}, "invalid_value", "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "missing_required_parameter", "messages[0].content"),
        ({"messages": [USER | {"name": SECRET}]}, "unsupported_value", "name"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": SECRET}}]}]},
         "invalid_value", "messages[0].content"),
        ({"seed": 2**63}, "invalid_value", "seed"),
    ],
)  # fmt: skip
def test_what_is_not_done_is_refused(fields: dict[str, Any], code: str, param: str) -> None:
    error = refused(ChatRequest, {"messages": [USER], **fields})
    assert (error.status, error.code) == (400, code) and (error.param or "").startswith(param)
    assert error.body["error"]["type"] == "invalid_request_error"


def test_messages_in_all_their_forms() -> None:
    given = chat(
        messages=[
            {"role": "developer", "content": "短く。"},
            {"role": "user", "content": [{"type": "text", "text": "発熱"}, {"type": "text", "text": "と咳"}]},
            {
                "role": "assistant",
                "content": "はい",
                "refusal": None,
                "tool_calls": None,
                "annotations": [],
                "audio": None,
            },
            USER,
        ]
    )
    assert [message.message() for message in given.messages] == [
        Message("system", "短く。"), Message("user", "発熱と咳"), Message("assistant", "はい"), Message("user", "発熱"),
    ]  # fmt: skip


def test_stops_lengths_and_logprobs() -> None:
    assert chat(stop="。").stops == ("。",) and chat(stop=["。", "\n"]).stops == ("。", "\n") and chat().stops == ()
    assert chat(max_tokens=3, max_completion_tokens=5).most_tokens == 5 and chat(max_tokens=3).most_tokens == 3
    assert chat().top is None and chat(logprobs=True).top == 0 and chat(logprobs=True, top_logprobs=3).top == 3
    assert parsed(CompletionRequest, {"prompt": "発熱", "logprobs": 2}).top == 2
    with pytest.raises(ApiError, match="needs logprobs"):
        _ = chat(top_logprobs=3).top


@pytest.mark.parametrize("prompt", ["発熱", [5, 6], ["発熱"], [[5, 6]]])
def test_prompts(prompt: Any) -> None:
    assert parsed(CompletionRequest, {"prompt": prompt}).prompt == prompt


@pytest.mark.parametrize("prompt", [None, 5, ["a", "b"], [True], [[1.5]], {"text": SECRET}])
def test_no_prompts(prompt: Any) -> None:
    error = refused(CompletionRequest, {"prompt": prompt})
    assert (error.param or "").startswith("prompt")


def test_our_own_routes() -> None:
    assert parsed(ExtractRequest, {"text": "発熱"}).threshold == 0.5
    assert refused(ExtractRequest, {"text": SECRET, "threshold": 2}).param == "threshold"
    assert refused(ClassifyRequest, {"text": SECRET, "options": ["一つ"]}).param == "options"
    assert refused(ClassifyRequest, {"text": SECRET, "options": ["a"] * 27}).param == "options"
    assert (
        refused(RowsRequest, {"rows": [{"text": SECRET, "kind": "disease", "entities": [1]}]}).param
        == "rows[0].entities[0]"
    )


def test_texts_of_our_own_routes_are_reports_not_corpora() -> None:
    for form, more in ((ExtractRequest, {}), (TokensRequest, {}), (ClassifyRequest, {"options": ["a", "b"]})):
        assert parsed(form, {"text": "あ" * 50_000, **more})  # type: ignore[type-var]
        assert refused(form, {"text": "あ" * 50_001, **more}).param == "text"
    row = {"text": "あ" * 50_000, "kind": "disease", "entities": []}
    assert parsed(RowsRequest, {"rows": [row] * 5})
    assert refused(RowsRequest, {"rows": [row] * 6}).param == "rows"


MANY = 300_000


@pytest.mark.parametrize(
    ("form", "data"),
    [
        (ChatRequest, {"messages": [{}] * MANY}),
        (ChatRequest, {"messages": [USER] * MANY}),
        (ChatRequest, {"messages": [{"role": "user", "content": [{}] * MANY}]}),
        (ChatRequest, {"messages": [{"role": "user", "content": [{}] * 200}] * 2000}),
        (ChatRequest, {"messages": [USER], "stop": [0] * MANY}),
        (ChatRequest, {"messages": [USER], **{f"field {n}": 0 for n in range(MANY)}}),
        (ChatRequest, {"messages": [USER | {f"field {n}": 0 for n in range(MANY)}]}),
        (CompletionRequest, {"prompt": [[]] * MANY}),
        (CompletionRequest, {"prompt": [[""] * MANY]}),
        (ExtractRequest, {"text": "a", "kinds": [0] * MANY}),
        (ExtractRequest, {"text": "a", "kinds": ["a"] * MANY}),
        (ExtractRequest, {"text": "a", "kinds": ["a" * 65]}),
        (ClassifyRequest, {"text": "a", "options": [0] * MANY}),
        (RowsRequest, {"rows": [{}] * MANY}),
        (RowsRequest, {"rows": [{"text": "a", "kind": "a", "entities": []}] * 257}),
        (RowsRequest, {"rows": [{"text": "a", "kind": "a", "entities": ["a"] * MANY}]}),
        (RowsRequest, {"rows": [{"text": "a", "kind": "a", "entities": [0] * 2000}] * 200}),
    ],
)
def test_long_lists_are_refused_at_once(form: Any, data: Any) -> None:
    start = time.process_time()
    assert refused(form, data).status == 400
    assert time.process_time() - start < 0.25


@pytest.mark.parametrize("body", [None, [], 5, "text"])
def test_a_body_is_an_object(body: Any) -> None:
    assert refused(ChatRequest, body).code == "invalid_json"
