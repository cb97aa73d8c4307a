"""What requests may hold. Fields that are not known are refused; known ones that do nothing here only in their neutral
values, so that no client believes that something was done which was not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from rinsho.chat import Message, Role
from rinsho.serve.errors import ApiError

MOST_STOPS = 16
LONGEST_STOP = 256
MOST_OPTIONS = 26
MOST_MESSAGES = 2048  # and parts of one
MOST_FIELDS = 64  # of one object: more than there are
MOST_KINDS = 16
MOST_ROWS = 256
MOST_ENTITIES = 2000  # of a row
LONGEST_TEXT = 50_000  # characters: far more than a report has; whole folders are for `rinsho extract`
LONGEST_ROWS = 5 * LONGEST_TEXT
LONGEST_NAME = 64  # of a field that is named in an error

# OpenAI's fields (and vLLM's) that this server has no use for -> values under which they mean nothing
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "n": (1, None),
    "best_of": (1, None),
    "presence_penalty": (0, None),
    "frequency_penalty": (0, None),
    "repetition_penalty": (1, None),
    "min_p": (0, None),
    "logit_bias": ({}, None),
    "service_tier": ("auto", "default", None),
    "store": (False, None),
    "metadata": ({}, None),
    "echo": (False, None),
    "suffix": ("", None),
    "response_format": ({"type": "text"}, None),
    "tools": ([], None),
    "tool_choice": ("none", "auto", None),
    "parallel_tool_calls": (True, False, None),
    "functions": ([], None),
    "function_call": ("none", "auto", None),
    "modalities": (["text"], None),
    "audio": (None,),
    "prediction": (None,),
    "reasoning_effort": ("none", None),
    "verbosity": (None,),
    "web_search_options": (None,),
}
IGNORED = ("user", "safety_identifier", "prompt_cache_key")  # names for the provider's own books: there are none here
# of a message, as OpenAI's clients write an answer back into the conversation
NEUTRAL_IN_MESSAGES: dict[str, tuple[Any, ...]] = {
    "refusal": (None,),
    "audio": (None,),
    "annotations": ([], None),
    "function_call": (None,),
    "tool_calls": ([], None),
    "name": (None,),
}
ROLES: dict[str, Role] = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}

Count = Annotated[int, Field(ge=1)]
Text = Annotated[str, Field(min_length=1)]
Report = Annotated[str, Field(max_length=LONGEST_TEXT)]
Kind = Annotated[str, Field(min_length=1, max_length=LONGEST_NAME)]
# Lists end at the first wrong item: a million of them are not worth a million errors.
Ids = Annotated[list[int], Field(fail_fast=True)]
Stop = Annotated[str, Field(min_length=1, max_length=LONGEST_STOP)]


class _Fields(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _few(cls, data: Any) -> Any:
        if isinstance(data, dict) and len(data) > MOST_FIELDS:
            raise ApiError(400, f"An object has more than {MOST_FIELDS} fields.", "unknown_parameter")
        return data


class StreamOptions(_Fields):
    """How a stream is written."""

    include_usage: bool = False
    include_obfuscation: bool = False  # no padding is sent, asked for or not


class TextPart(_Fields):
    """One part of a message's content."""

    type: Literal["text"]
    text: str


class ChatMessage(_Fields):
    """One turn."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | Annotated[list[TextPart], Field(max_length=MOST_MESSAGES, fail_fast=True)]

    @model_validator(mode="before")
    @classmethod
    def _known(cls, data: Any) -> Any:
        return _without_neutral(data, NEUTRAL_IN_MESSAGES) if isinstance(data, dict) else data

    def message(self) -> Message:
        """The turn in our own form."""
        content = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        return Message(ROLES[self.role], content)


class TextRequest(_Fields):
    """What both ways of asking for text have."""

    model: str | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    max_tokens: Count | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=0)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: Annotated[list[Stop], Field(max_length=MOST_STOPS, fail_fast=True)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _known(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        known = {key: value for key, value in _without_neutral(data, NEUTRAL).items() if key not in IGNORED}
        return known | {"stop": [known["stop"]]} if isinstance(known.get("stop"), str) else known

    @property
    def stops(self) -> tuple[str, ...]:
        """The stop strings."""
        return tuple(self.stop or ())

    @property
    def most_tokens(self) -> int | None:
        """Length of the answer that is asked for."""
        return self.max_tokens

    @property
    def top(self) -> int | None:
        """None: no log-probabilities; else how many of the likeliest beside the id's own."""
        raise NotImplementedError


class ChatRequest(TextRequest):
    """POST /v1/chat/completions."""

    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=MOST_MESSAGES, fail_fast=True)]
    max_completion_tokens: Count | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None

    @property
    def most_tokens(self) -> int | None:
        """`max_completion_tokens`, or the older `max_tokens`."""
        return self.max_completion_tokens or self.max_tokens

    @property
    def top(self) -> int | None:
        """None: no log-probabilities."""
        if not self.logprobs:
            if self.top_logprobs:
                raise ApiError(400, "top_logprobs needs logprobs: true.", "invalid_value", "top_logprobs")
            return None
        return self.top_logprobs or 0


class CompletionRequest(TextRequest):
    """POST /v1/completions."""

    prompt: str | Ids | Annotated[list[str | Ids], Field(min_length=1, max_length=1, fail_fast=True)]
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None

    @property
    def top(self) -> int | None:
        """None: no log-probabilities."""
        return self.logprobs


class ExtractRequest(_Fields):
    """POST /v1/extract."""

    model: str | None = None
    text: Report
    kinds: Annotated[list[Kind], Field(min_length=1, max_length=MOST_KINDS, fail_fast=True)] | None = None
    threshold: Annotated[float, Field(ge=0, le=1)] = 0.5


class ClassifyRequest(_Fields):
    """POST /v1/classify."""

    model: str | None = None
    text: Annotated[str, Field(min_length=1, max_length=LONGEST_TEXT)]
    options: Annotated[list[Text], Field(min_length=2, max_length=MOST_OPTIONS, fail_fast=True)]
    question: Text | None = None


class TokensRequest(_Fields):
    """POST /v1/tokens."""

    model: str | None = None
    text: Report


class Row(_Fields):
    """A corrected text."""

    text: Annotated[str, Field(min_length=1, max_length=LONGEST_TEXT)]
    kind: Kind
    entities: Annotated[list[Text], Field(max_length=MOST_ENTITIES, fail_fast=True)]


class RowsRequest(_Fields):
    """POST /v1/training-rows."""

    model: str | None = None
    rows: Annotated[list[Row], Field(min_length=1, max_length=MOST_ROWS, fail_fast=True)]

    @model_validator(mode="after")
    def _not_too_long(self) -> RowsRequest:
        if sum(len(row.text) for row in self.rows) > LONGEST_ROWS:
            raise ApiError(400, f"The rows have more than {LONGEST_ROWS} characters.", "invalid_value", "rows")
        return self


Request = TypeVar("Request", bound=_Fields)


def parsed(form: type[Request], data: Any) -> Request:
    """The request in its form.

    Raises:
        ApiError: it is none; the first field that is wrong is named, what it holds is not.
    """
    if not isinstance(data, dict):
        raise ApiError(400, "The body must be a JSON object.", "invalid_json")
    try:
        return form.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        param = _name(first["loc"])
        if first["type"] == "extra_forbidden":
            raise ApiError(400, f"The field {param} is not known here.", "unknown_parameter", param) from None
        if first["type"] == "missing":
            raise ApiError(400, f"The field {param} is missing.", "missing_required_parameter", param) from None
        raise ApiError(400, f"{param}: {first['msg']}.", "invalid_value", param) from None


def _without_neutral(data: Mapping[str, Any], neutral: Mapping[str, tuple[Any, ...]]) -> dict[str, Any]:
    for key in neutral.keys() & data.keys():
        if not any(type(data[key]) is type(value) and data[key] == value for value in _typed(neutral[key])):
            raise ApiError(400, f"The field {key} is not supported here with this value.", "unsupported_value", key)
    return {key: value for key, value in data.items() if key not in neutral}


def _typed(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """Numbers as JSON may write them: 1 and 1.0."""
    return (*values, *(float(value) for value in values if type(value) is int))


def _name(place: tuple[int | str, ...]) -> str:
    """`messages[0].content`; the alternatives that pydantic tried are no part of it."""
    name = ""
    for part in place:
        if isinstance(part, int):
            name += f"[{part}]"
        elif not any(mark in part for mark in "[(") and part not in ("str", "int"):
            name += f".{part}" if name else part
    return name[:LONGEST_NAME] or "the body"
