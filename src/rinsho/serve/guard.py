"""What every request passes: whether it may, how long it may take, and one line and one count when it has ended."""

from __future__ import annotations

import asyncio
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rinsho.serve.errors import BUSY_SECONDS, ApiError
from rinsho.serve.protocol import CONNECTIONS, STALL_SECONDS, TASK
from rinsho.serve.security import CHALLENGE, HEADERS, Key, Names, same_site
from rinsho.serve.service import Service, Usage, json_response

MOST_CONNECTIONS = 512  # fewer than the files that a process may usually have open
GONE = 499  # a client that went away before its answer: nothing is sent, but counted
METHODS = ("GET", "HEAD", "POST", "OPTIONS", "PUT", "DELETE", "PATCH")


class Guard:
    """Stands before the routes.

    Args:
        app: the routes.
        here: what they answer for.
        key: that every request must have.
        names: in Host headers that are ours.
        route_of: path -> the name of its route, so that no line and no count holds what a client wrote.
        say: takes the line of each request; None: standard error.
    """

    def __init__(  # noqa: PLR0917
        self,
        app: ASGIApp,
        here: Service,
        key: Key,
        names: Names,
        route_of: Callable[[str], str],
        say: Callable[[str], None] | None = None,
    ) -> None:
        self.app, self.here, self.key, self.names, self.route_of = app, here, key, names, route_of
        self.say = say or _to_stderr

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        if scope["type"] != "http":
            return
        loop, start = asyncio.get_running_loop(), time.perf_counter()
        end = loop.time() + self.here.options.max_seconds
        state = scope.setdefault("state", {})
        state.update({"start": start, "deadline": end, TASK: asyncio.current_task(), "usage": Usage()})
        state["service"], scope["app"] = self.here, self
        sent = _Sent(send, lambda: self.here.engine.stopping)
        status: int | None = None
        try:
            async with asyncio.timeout_at(end + STALL_SECONDS):
                await self._answer(scope, receive, sent)
        except asyncio.CancelledError:
            status = GONE
        except Exception as error:  # an error of ours: its place is told, not its words, which may quote a text
            status = 500
            self.say(f"error {type(error).__name__} at {_place(error)}")
            if sent.status is not None:
                raise UnfinishedError from None
            await _refuse(ApiError(500, "The server made a mistake.", "internal_error"), scope, receive, sent)
        finally:
            self._note(scope, status or sent.status or GONE, time.perf_counter() - start, state["usage"])

    def malformed(self) -> tuple[bytes, dict[str, str]]:
        """Body and headers of the answer (400) to what is no HTTP; it is noted."""
        error = ApiError(400, "This is no HTTP request, or its head is too long.", "invalid_request")
        response = json_response(error.body, headers={**HEADERS, "connection": "close"})
        self._note({"method": "", "path": ""}, 400, 0.0, Usage())
        return bytes(response.body), dict(response.headers)

    async def _answer(self, scope: Scope, receive: Receive, sent: _Sent) -> None:
        refusal = _crowded(scope) or self._refusal(Headers(scope=scope))
        try:
            if refusal is None:
                await self.app(scope, receive, sent)
        except HTTPException as error:
            refusal = _of_routes(error)
        except ApiError as error:
            if sent.status is not None:
                raise
            refusal = error
        if refusal is not None:
            await _refuse(refusal, scope, receive, sent)

    def _refusal(self, headers: Headers) -> ApiError | None:
        hosts = headers.getlist("host")
        if len(hosts) != 1 or not self.names.own(hosts[0]):
            return ApiError(421, "This server is not called that (--allow-host NAME).", "wrong_host")
        if not self.key.opens(headers.get("authorization")):
            return ApiError(
                401, "An API key is needed (Authorization: Bearer KEY).", "invalid_api_key",
                headers={"www-authenticate": CHALLENGE},
            )  # fmt: skip
        if not same_site(headers.get("origin"), hosts[0]):
            return ApiError(403, "Pages of other sites may not ask this server.", "wrong_origin")
        return None

    def _note(self, scope: Mapping[str, Any], status: int, seconds: float, used: Usage) -> None:
        method = scope["method"] if scope["method"] in METHODS else "OTHER"
        route = self.route_of(scope["path"])
        self.here.metrics.request(route, status, seconds, used.prompt, used.completion)
        tokens = f" {used.prompt}+{used.completion} tokens" if used.prompt else ""
        self.say(f"{method} {route} {status}{tokens} {seconds:.3f} s")


class UnfinishedError(Exception):
    """Tells uvicorn to close a connection whose answer cannot be finished."""


class _Sent:
    """`send` with the headers that every response has; remembers the status."""

    def __init__(self, send: Send, stopping: Callable[[], bool]) -> None:
        self.send, self.stopping = send, stopping
        self.status: int | None = None

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(raw=list(message.get("headers", [])))
            for name, value in HEADERS.items():
                headers.setdefault(name, value)
            if self.stopping():
                headers["connection"] = "close"
            message = {**message, "headers": headers.raw}
        await self.send(message)


def _crowded(scope: Scope) -> ApiError | None:
    if len(scope["state"].get(CONNECTIONS, ())) <= MOST_CONNECTIONS:
        return None
    headers = {"retry-after": str(BUSY_SECONDS), "connection": "close"}
    return ApiError(503, "The server has too many connections. Try again later.", "too_many_connections", None, headers)


def _of_routes(error: HTTPException) -> ApiError:
    words = {404: ("There is no such route.", "not_found"), 405: ("This route has other methods.", "wrong_method")}
    message, code = words.get(error.status_code, ("The request cannot be answered.", "invalid_request"))
    return ApiError(error.status_code, message, code, headers=error.headers)


async def _refuse(error: ApiError, scope: Scope, receive: Receive, send: Any) -> None:
    await json_response(error.body, error.status, error.headers)(scope, receive, send)


def _place(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    return f"{frames[-1].name}:{frames[-1].lineno}" if frames else "?"


def _to_stderr(line: str) -> None:
    print(f"{datetime.now().isoformat(timespec='milliseconds')} {line}", file=sys.stderr, flush=True)
