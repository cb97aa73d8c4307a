"""What an endpoint's replies mean: answers, refusals, and failures that may pass."""

from __future__ import annotations

import json
import math
import re
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from rinsho.client.answers import tokens
from rinsho.client.settings import ClientSettings
from rinsho.errors import UserError

FILTERED = {"content_filter", "content_policy_violation"}  # error codes of a 400 that is about this text alone
TOO_LONG = {"context_length_exceeded", "exceed_context_size_error"}  # those of a 400 about the model's window
TOO_LONG_SAID = re.compile(r"maximum context length|context (size|window)|\bn_ctx")  # vLLM and others have no such code
MAX_NAME_CHARS = 100


class Problem(Exception):  # noqa: N818
    """An attempt that may be made again: its kind, and the wait that the server asks for."""

    def __init__(self, kind: str, wait_seconds: float | None = None) -> None:
        super().__init__(kind)
        self.kind, self.wait_seconds = kind, wait_seconds


def read_answer(content: bytes) -> dict[str, Any]:
    """The answer of a 200. A refusal in a field of its own becomes the text, with `refusal` as the reason.

    Only the text must be there: what else cannot be read counts as not told, as the answer is paid.

    Raises:
        Problem: there is no text to be read.
    """
    try:
        body = json.loads(content, parse_int=_int)
        choice = body["choices"][0]
        text, refused = _text(choice["message"].get("content")), choice["message"].get("refusal")
        told, reason = body.get("usage"), choice.get("finish_reason")
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
        raise Problem("broken_body") from None
    usage = told if isinstance(told, dict) else {}
    if not text and refused and isinstance(refused, str):
        text, reason = refused, "refusal"
    return {
        "text": text,
        "finish_reason": _name(reason),
        "prompt_tokens": tokens(usage.get("prompt_tokens")),
        "completion_tokens": tokens(usage.get("completion_tokens")),
        "model": _name(body.get("model")),
    }


def _text(content: object) -> str:
    """A message's text, which may stand in parts beside pictures and thoughts.

    Raises:
        ValueError: it is something else.
    """
    if content is None or isinstance(content, str):
        return content or ""
    if not isinstance(content, list) or not all(isinstance(part, dict) for part in content):
        raise ValueError("neither text nor parts")
    texts = [part["text"] for part in content if part.get("type", "text") == "text"]
    return "".join(texts)  # a TypeError where one is no text


def _name(said: object) -> str:
    """A name as the endpoint says it; empty where it is none, as what is kept may be shown."""
    return said if isinstance(said, str) and len(said) <= MAX_NAME_CHARS and said.isprintable() else ""


def _int(digits: str) -> int:
    """A number of a reply; Python refuses to read thousands of digits, and an answer must not be lost by that."""
    return int(digits) if len(digits) < 20 else -1


def no_answer(reason: str) -> dict[str, Any]:
    """The row of an answer without text."""
    return {"text": "", "finish_reason": reason, "prompt_tokens": 0, "completion_tokens": 0}


def _error(content: bytes) -> tuple[str, str]:
    """(code, message) of an error's body; the code is empty where there is neither code nor type."""
    with suppress(ValueError, KeyError, AttributeError, TypeError, RecursionError):
        body = json.loads(content)
        error = body.get("error", body)  # some servers have no object around it
        code, kind = error.get("code"), error.get("type")  # some repeat the status as the code
        return str(code if isinstance(code, str) and code else kind or code or ""), str(error.get("message") or "")
    return "", ""


def is_too_long(content: bytes) -> bool:
    """Whether the body of a 400 says that the conversation is longer than the model's window."""
    code, message = _error(content)
    return code in TOO_LONG or TOO_LONG_SAID.search(message) is not None


def refusal(status: int, content: bytes, settings: ClientSettings, url: str) -> dict[str, Any]:
    """An empty answer when the endpoint's own filter refused this one text; everything else ends the run.

    Raises:
        UserError: with the status and what to do; never with the endpoint's message, which may quote the text.
    """
    code, _ = _error(content)
    if status == 400 and code in FILTERED:
        return no_answer("content_filter")
    said = f" ({code})" if re.fullmatch(r"[a-z_]{1,40}", code) else ""
    variable = settings.api_key_variable
    todo = {
        400: "check model, max_tokens and extra; a text may also be longer than the model's window",
        401: f"check the key in {variable}" if variable else "name the variable with the key in api_key_variable",
        403: "check the rights of the key" + (f" in {variable}" if variable else ""),
        404: f"check base_url (it usually ends in /v1) and the model name {settings.model!r}",
    }.get(status, "check base_url: other addresses are not followed" if status < 400 else "check the settings")
    raise UserError(f"the endpoint refused with {status}{said}", where=url, expected="an answer", todo=todo)


def asked_wait(value: str | None) -> float | None:
    """Seconds of a Retry-After header, which is a number or a date; None when there is none that can be read."""
    if value is None:
        return None
    with suppress(ValueError):
        seconds = float(value)
        return max(0.0, seconds) if math.isfinite(seconds) else None
    with suppress(ValueError, TypeError, OverflowError):
        when = parsedate_to_datetime(value)
        when = when if when.tzinfo else when.replace(tzinfo=UTC)
        return max(0.0, (when - datetime.now(UTC)).total_seconds())
    return None
