"""What an endpoint is, what is asked of it and what comes back; nothing here opens a connection."""

from __future__ import annotations

import ipaddress
import os
import re
from collections import Counter
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from pydantic import Field, JsonValue, field_validator

from rinsho.chat import Message
from rinsho.errors import UserError
from rinsho.recipe import Settings

EXTRA_FIELDS = (
    "top_p",
    "top_k",
    "min_p",
    "repetition_penalty",
    "presence_penalty",
    "frequency_penalty",
    "stop",
    "response_format",
    "reasoning_effort",
    "chat_template_kwargs",
)


class ClientSettings(Settings):
    """An OpenAI-compatible endpoint and how to ask it. The key itself never stands in a recipe."""

    base_url: str = Field("", description="address up to /v1, for instance http://127.0.0.1:8000/v1")
    model: str = Field("", description="model name as the endpoint knows it")
    api_key_variable: str = Field("", description="environment variable that holds the key; empty: no key is sent")
    max_concurrent_requests: int = Field(8, ge=1, description="requests under way at once")
    max_requests_per_minute: float | None = Field(None, gt=0, description="retries count too; null: no limit")
    timeout_seconds: float = Field(120.0, gt=0, description="an answer must be whole after so long")
    max_retries: int = Field(6, ge=0, description="further attempts after a failure that may pass")
    max_failures_in_a_row: int = Field(5, ge=1, description="requests given up one after the other that end the run")
    max_tokens: int = Field(512, ge=1, description="room for an answer, in tokens")
    temperature: float = Field(0.0, ge=0, description="0 takes the likeliest token each time")
    seed: int | None = Field(None, description="passed on to endpoints that know it")
    extra: dict[str, JsonValue] = Field({}, description="further fields of a request: " + ", ".join(EXTRA_FIELDS))

    @field_validator("extra")
    @classmethod
    def _known(cls, extra: dict[str, JsonValue]) -> dict[str, JsonValue]:
        for name in extra:
            if name not in EXTRA_FIELDS:
                raise ValueError(f"no field {name!r}; there are {', '.join(EXTRA_FIELDS)}")
        return extra

    @field_validator("base_url")
    @classmethod
    def _plain(cls, url: str) -> str:
        parts = urlsplit(url)
        if url and (parts.scheme not in ("http", "https") or not parts.hostname):
            raise ValueError("not an address like https://host/v1")
        if parts.username or parts.password or parts.query or parts.fragment:  # where a key could stand
            raise ValueError("an address has no user, password, ? or #; name the key's variable in api_key_variable")
        return url.rstrip("/")


@dataclass(frozen=True, slots=True)
class Request:
    """One conversation to be continued; `id` is the caller's and comes back with the answer."""

    id: str
    messages: tuple[Message, ...]
    seed: int | None = None  # of this request alone; None: that of the settings


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back. `error` is empty, or why the request was given up (`timeout`, `http_503`, …)."""

    id: str
    text: str = ""
    finish_reason: str = ""  # as the endpoint says it; content_filter or refusal when it would not answer, too_long
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0  # of the attempt that was answered
    cached: bool = False
    error: str = ""
    time: str = ""  # UTC, when it came; empty where it was kept before times were
    model: str = ""  # that answered, as the endpoint says it; empty where it says none


class FailuresInARowError(UserError):
    """Request after request was given up; `kind` is the last one's."""

    def __init__(self, count: int, kind: str, url: str) -> None:
        self.kind = kind
        super().__init__(
            f"{count} requests in a row failed, the last with {kind}",
            where=url,
            expected="an endpoint that answers",
            todo="look whether it runs, then run the same command again: what was answered is kept",
        )


@dataclass
class Counts:
    """What a client did so far. Tokens are those of fresh answers, as the endpoint counts them."""

    requests: int = 0
    cached: int = 0
    attempts: int = 0
    retries: int = 0
    failures: int = 0  # requests given up
    prompt_tokens: int = 0
    completion_tokens: int = 0
    problems: Counter[str] = field(default_factory=Counter)  # kind of every attempt that went wrong


def describe(settings: ClientSettings, what: str = "document text") -> str:
    """One line for people, to be shown before anything is sent: what goes where."""
    parts = urlsplit(settings.base_url)
    place = place_of(parts.hostname or "")
    if place == "this machine":
        return f"{what}: sent to {settings.base_url}, on this machine"
    secure = "encrypted" if parts.scheme == "https" else "NOT encrypted (http)"
    return f"{what.upper()}: LEAVES THIS MACHINE, sent to {parts.hostname} ({place}), {secure}"


def check(settings: ClientSettings, where: str) -> list[UserError]:
    """What is missing before the first request; nothing is sent. `where` is the recipe section."""
    problems = []
    for name, example in (("base_url", "an address such as http://127.0.0.1:8000/v1"), ("model", "the model's name")):
        if not getattr(settings, name):
            problems.append(UserError("is empty", where=f"{where}.{name}", expected=example))
    variable = settings.api_key_variable
    if variable and not re.fullmatch(r"[\x21-\x7e]+", key_of(settings)):
        problems.append(
            UserError(
                f"the environment variable {variable} holds no key that can be sent",
                where=f"{where}.api_key_variable",
                expected="the endpoint's key, ASCII without spaces",
                todo=f"set {variable} before the command, or leave api_key_variable empty",
            )
        )
    return problems


def key_of(settings: ClientSettings) -> str:
    """The key, read from the environment at the moment it is needed; empty when there is none."""
    return os.environ.get(settings.api_key_variable, "").strip() if settings.api_key_variable else ""


def place_of(host: str) -> str:
    """Where a host is, by its name or number alone: this machine, the local network or a public address."""
    if host == "localhost" or host.endswith(".localhost"):
        return "this machine"
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return "a public address"  # a name may mean anything
    if address.is_loopback:
        return "this machine"
    return "the local network" if address.is_private else "a public address"
