"""Text by OpenAI's interface: /v1/chat/completions, /v1/completions, /v1/models; at once or as a stream."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from rinsho.conversation import asked
from rinsho.generate.sampling import Sampling
from rinsho.serve.engine import Answer, Ask
from rinsho.serve.errors import ApiError, too_late
from rinsho.serve.forms import ChatForm, CompletionForm
from rinsho.serve.schemas import ChatRequest, CompletionRequest, TextRequest
from rinsho.serve.service import Service, Usage, deadline, json_response, service, take, usage
from rinsho.serve.writing import Piece, joined

Pieces = AsyncGenerator[Piece, None]
MOST_CHARACTERS = 16  # of a prompt, for each token of the window: no language has so many in a token
DONE = b"data: [DONE]\n\n"


async def models(request: Request) -> Response:
    """GET /v1/models: the one that is served."""
    return json_response({"object": "list", "data": [_model(service(request))]})


async def model(request: Request) -> Response:
    """GET /v1/models/NAME."""
    here = service(request)
    if request.path_params["name"] != here.name:
        raise ApiError(404, "There is no such model here.", "model_not_found", "model")
    return json_response(_model(here))


async def chat(request: Request) -> Response:
    """POST /v1/chat/completions."""
    here, given = service(request), await take(request, ChatRequest)
    if not here.chat:
        message = "This is a base model, which continues texts and answers no questions: use /v1/completions."
        raise ApiError(400, message, "no_chat", "model")
    if given.messages[-1].role != "user":
        raise ApiError(400, "The last message must be the user's.", "invalid_value", "messages")
    turns = asked([message.message() for message in given.messages], here.template)
    _check_length(here, sum(len(turn.content) for turn in turns))
    name = f"chatcmpl-{secrets.token_hex(12)}"
    form = ChatForm(name, int(time.time()), here.name, here.opened, given.top is not None)
    return await _respond(request, given, form, lambda: here.opened.prompt(turns))


async def completion(request: Request) -> Response:
    """POST /v1/completions."""
    here, given = service(request), await take(request, CompletionRequest)
    prompt = given.prompt
    if isinstance(prompt, list) and not (prompt and isinstance(prompt[0], int)):
        prompt = prompt[0] if prompt else ""  # type: ignore[assignment]
    if isinstance(prompt, str):
        _check_length(here, len(prompt))
    name = f"cmpl-{secrets.token_hex(12)}"
    form = CompletionForm(name, int(time.time()), here.name, here.opened, given.top is not None)
    return await _respond(request, given, form, lambda: _ids(here, prompt))


def _check_length(here: Service, characters: int) -> None:
    """Refuses a text that is far too long before time goes into its tokens."""
    window = here.opened.window
    if characters > MOST_CHARACTERS * window:
        message = f"The prompt has {characters} characters, far too many for the model's window of {window} tokens."
        raise ApiError(400, message, "context_length_exceeded", "messages")


def _ids(here: Service, prompt: Any) -> list[int]:
    """A text as the model met texts in training: behind the begin mark, if it has one. Ids stay as they are."""
    if not isinstance(prompt, str):
        size = here.opened.decoder.vocab_size
        if not prompt or not all(type(index) is int and 0 <= index < size for index in prompt):
            raise ApiError(400, f"prompt: ids must be whole numbers from 0 to {size - 1}.", "invalid_value", "prompt")
        return list(prompt)
    begin = here.opened.tokenizer.bos_token_id
    ids = ([] if begin is None else [int(begin)]) + here.opened.encode(prompt)
    if not ids:
        raise ApiError(400, "The prompt is empty.", "invalid_value", "prompt")
    return ids


def _model(here: Service) -> dict[str, Any]:
    return {"id": here.name, "object": "model", "created": here.created, "owned_by": "rinsho"}


async def _respond(
    request: Request, given: TextRequest, form: ChatForm | CompletionForm, encode: Callable[[], list[int]]
) -> Response:
    outcome = _Outcome(usage(request))
    pieces = _pieces(request, given, encode, outcome)
    if given.stream:
        with_usage = given.stream_options is not None and given.stream_options.include_usage
        stream = _stream(pieces, form, outcome, deadline(request), with_usage)
        return EventStream(stream, await _first(stream, request))
    found: list[Piece] = []
    try:
        async with asyncio.timeout_at(deadline(request)), aclosing(pieces):
            async for piece in pieces:
                found.append(piece)
    except TimeoutError:
        raise too_late(service(request).options.max_seconds) from None
    whole = joined(found) if found else Piece("")
    return json_response(form.whole(whole, outcome.finish) | {"usage": outcome.usage.json()})


class _Outcome:
    """How an answer ended: known when its last piece has come."""

    def __init__(self, tokens: Usage) -> None:
        self.usage, self.finish = tokens, "length"
        self.answer: Answer | None = None

    def settle(self) -> None:
        if self.answer is not None:
            self.usage.completion, self.finish = self.answer.count, self.answer.finish


async def _pieces(request: Request, given: TextRequest, encode: Callable[[], list[int]], outcome: _Outcome) -> Pieces:
    """The answer's pieces; while they come the request has its place."""
    here = service(request)
    if given.most_tokens is not None and given.most_tokens > here.options.max_new_tokens:
        message = f"An answer has at most {here.options.max_new_tokens} tokens here (--max-new-tokens)."
        raise ApiError(400, message, "max_tokens_too_large", "max_tokens")
    with here.engine.place() as place:
        ask = _ask(here, given, await here.aside(request, encode))
        outcome.usage.prompt = len(ask.prompt)
        outcome.answer = here.engine.text(ask, place)
        started = False
        try:
            async with aclosing(aiter(outcome.answer)) as pieces:
                async for piece in pieces:
                    if not started:
                        started = True
                        here.metrics.first_token.observe(time.perf_counter() - request.scope["state"]["start"])
                    yield piece
        finally:
            outcome.settle()


def _ask(here: Service, given: TextRequest, prompt: list[int]) -> Ask:
    window = here.opened.window
    if len(prompt) > window:
        message = f"The prompt has {len(prompt)} tokens; the model's window has {window}."
        raise ApiError(400, message, "context_length_exceeded", "messages")
    stops = {here.opened.end_id, here.opened.tokenizer.eos_token_id} - {None}
    sampling = Sampling(
        temperature=given.temperature or 0.0,
        top_p=1.0 if given.top_p is None else given.top_p,
        top_k=given.top_k or 0,
        seed=secrets.randbits(63) if given.seed is None else abs(given.seed),
    )
    return Ask(
        prompt,
        min(given.most_tokens or here.options.max_new_tokens, window - len(prompt) + 1),
        frozenset(int(index) for index in stops),
        sampling,
        given.stops,
        given.top,
    )


# ---------------------------------------------------------------------- streams


async def _stream(
    pieces: Pieces,
    form: ChatForm | CompletionForm,
    outcome: _Outcome,
    end: float,
    with_usage: bool,
) -> AsyncGenerator[bytes, None]:
    """The events of a stream, beginning when the answer does; a stream that takes too long ends with `length`."""
    nothing = {"usage": None} if with_usage else {}
    head, begun = form.first(), False
    try:
        async with aclosing(pieces):
            while True:
                async with asyncio.timeout_at(end):
                    piece = await anext(pieces, None)
                if head is not None and not begun:
                    yield _event(head | nothing)
                begun = True
                if piece is None:
                    break
                yield _event(form.chunk(piece) | nothing)
    except TimeoutError:
        if not begun:
            raise
        outcome.finish = "length"
    except ApiError as error:  # the server stops: what has been sent cannot be taken back
        if not begun:
            raise
        yield _event(error.body)
        return
    yield _event(form.last(outcome.finish) | nothing)
    if with_usage:
        yield _event(form.usage() | {"usage": outcome.usage.json()})
    yield DONE


async def _first(stream: AsyncGenerator[bytes, None], request: Request) -> bytes:
    """The first event: until it is there the answer may still be an error with its own status."""
    try:
        return await anext(stream)
    except TimeoutError:
        raise too_late(service(request).options.max_seconds) from None


def _event(data: dict[str, Any]) -> bytes:
    return b"data: " + orjson.dumps(data) + b"\n\n"


class EventStream(Response):
    """Server-sent events, sent as fast as the client takes them; leaving early closes what makes them."""

    media_type = "text/event-stream"

    def __init__(self, events: AsyncGenerator[bytes, None], first: bytes) -> None:
        self.status_code, self.background, self.body = 200, None, b""
        self.init_headers({"x-accel-buffering": "no"})
        del self.headers["content-length"]
        self._events, self._beginning = events, first

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """Sends them all."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async with aclosing(self._events) as events:
            await send({"type": "http.response.body", "body": self._beginning, "more_body": True})
            async for event in events:
                await send({"type": "http.response.body", "body": event, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
