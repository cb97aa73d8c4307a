"""The event loop that asks: concurrency, rate, retries, and what an endpoint's replies mean."""

from __future__ import annotations

import asyncio
import json
import math
import queue
import random
import re
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from hashlib import blake2b
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from rinsho.client.answers import KEPT, Answers
from rinsho.client.settings import Answer, ClientSettings, Counts, Request, key_of, place_of
from rinsho.errors import UserError

if TYPE_CHECKING:
    import httpx

RETRIED = {408, 409, 425, 429}  # and everything from 500
FILTERED = {"content_filter", "content_policy_violation"}  # error codes of a 400 that is about this text alone
TOO_LONG = {"context_length_exceeded", "exceed_context_size_error"}  # those of a 400 about the model's window
TOO_LONG_SAID = re.compile(r"maximum context length|context (size|window)|\bn_ctx")  # vLLM and others have no such code
FIRST_WAIT_SECONDS, LAST_WAIT_SECONDS = 0.5, 60.0  # back-off: doubles from the first to the last
MAX_ASKED_WAIT_SECONDS = 900.0  # a server that asks for more has a daily limit: the run stops instead of waiting
GRACE_SECONDS = 10.0  # for attempts under way when the caller stops
MAX_BODY_BYTES = 64 << 20

Outcome = dict[str, Any] | str  # the row of an answer, or the kind of problem for which a request was given up


class _Problem(Exception):  # noqa: N818
    """An attempt that may be made again: its kind, and the wait that the server asks for."""

    def __init__(self, kind: str, wait_seconds: float | None = None) -> None:
        super().__init__(kind)
        self.kind, self.wait_seconds = kind, wait_seconds


class _Stopped(Exception):  # noqa: N818
    """The run is ending: no further attempts."""


class Work:
    """One `ask`: an event loop in a thread of its own, so that connections live on while the caller is busy."""

    def __init__(
        self,
        settings: ClientSettings,
        answers: Answers,
        counts: Counts,
        out: queue.Queue[Any],
        too_long_is_answer: bool = False,
    ) -> None:
        self.settings, self.answers, self.counts, self.out = settings, answers, counts, out
        self.too_long_is_answer = too_long_is_answer
        self.url = f"{settings.base_url}/chat/completions"
        self.window = 8 * settings.max_concurrent_requests  # answers that may wait for an earlier one
        self.failed_in_a_row = 0
        self.next_start = 0.0
        self.fatal: BaseException | None = None
        self.stopping = threading.Event()
        self.under_way: dict[str, asyncio.Task[Outcome]] = {}

    def stop(self) -> None:
        """No further attempts; those under way may end."""
        self.stopping.set()

    def run(self, requests: Iterator[Request]) -> None:
        """Puts every answer and then None into the queue, or the exception that ended the work."""
        end: BaseException | None = None
        try:
            asyncio.run(self._run(requests))
            self.answers.sync()
        except _Stopped:
            end = self.fatal
        except BaseException as error:  # whatever it is, the caller must see it rather than wait for ever
            end = error
        self.out.put(end)

    async def _run(self, requests: Iterator[Request]) -> None:
        import httpx

        key, limit = key_of(self.settings), self.settings.max_concurrent_requests
        near = place_of(urlsplit(self.url).hostname or "") != "a public address"
        self.places = asyncio.Semaphore(limit)
        async with httpx.AsyncClient(
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=self.settings.timeout_seconds,
            limits=httpx.Limits(max_connections=limit, max_keepalive_connections=limit),
            trust_env=not near,  # no detour over a proxy to an endpoint of one's own
        ) as http:
            self.http = http
            waiting: deque[tuple[Request, bool, asyncio.Task[Outcome]]] = deque()
            try:
                await self._in_order(requests, waiting)
            except BaseException:
                await self._let_end([task for _, _, task in waiting])
                raise

    # ------------------------------------------------------------------ order

    async def _in_order(self, requests: Iterator[Request], waiting: deque[Any]) -> None:
        for request in requests:
            self.counts.requests += 1
            key = _key(self.settings, request)
            known = key in self.under_way or self.answers.get(key) is not None
            waiting.append((request, known, self._task(key, request)))
            while waiting and (waiting[0][2].done() or len(waiting) >= self.window):
                await self._hand_out(*waiting.popleft())
            await asyncio.sleep(0)
        while waiting:
            await self._hand_out(*waiting.popleft())

    def _task(self, key: str, request: Request) -> asyncio.Task[Outcome]:
        """The task of this key: equal requests under way share one."""
        task = self.under_way.get(key)
        if task is None:
            task = asyncio.create_task(self._answer(key, request))
            self.under_way[key] = task
            task.add_done_callback(lambda _: self.under_way.pop(key, None))
        return task

    async def _hand_out(self, request: Request, known: bool, task: asyncio.Task[Outcome]) -> None:
        outcome = await task
        while self.out.qsize() >= self.window and not self.stopping.is_set():
            await asyncio.sleep(0.01)
        if self.stopping.is_set():
            raise _Stopped
        if isinstance(outcome, str):
            self.out.put(Answer(request.id, error=outcome))
            return
        self.counts.cached += known
        self.out.put(Answer(request.id, cached=known, **{name: outcome[name] for name in KEPT}))

    async def _let_end(self, tasks: list[asyncio.Task[Outcome]]) -> None:
        """Attempts under way are paid for: their answers are kept. Nothing new is started."""
        self.stop()
        if tasks:
            grace = GRACE_SECONDS if self.fatal is None else self.settings.timeout_seconds
            done, _ = await asyncio.wait(tasks, timeout=grace)
            for task in done:
                task.exception()  # seen, so that asyncio does not complain
        self.answers.sync()

    # ------------------------------------------------------------------ one request

    async def _answer(self, key: str, request: Request) -> Outcome:
        kept = self.answers.get(key)
        if kept is not None:
            return kept
        try:
            async with self.places:
                return await self._try(key, json.dumps(_body(self.settings, request)).encode())
        except (UserError, OSError) as error:
            self.fatal = self.fatal or error
            self.stop()
            raise _Stopped from None

    async def _try(self, key: str, body: bytes) -> Outcome:
        kind = ""
        for attempt in range(self.settings.max_retries + 1):
            await self._wait_for_turn()
            self.counts.attempts += 1
            self.counts.retries += attempt > 0
            try:
                row = await self._attempt(body)
            except _Problem as problem:
                kind = problem.kind
                self.counts.problems[kind] += 1
                if attempt < self.settings.max_retries:
                    await self._back_off(attempt, problem.wait_seconds)
                continue
            self.answers.put(key, row)
            self.failed_in_a_row = 0
            self.counts.prompt_tokens += row["prompt_tokens"]
            self.counts.completion_tokens += row["completion_tokens"]
            return row
        self.counts.failures += 1
        self.failed_in_a_row += 1
        if self.failed_in_a_row >= self.settings.max_failures_in_a_row:
            raise UserError(
                f"{self.failed_in_a_row} requests in a row failed, the last with {kind}",
                where=self.url,
                expected="an endpoint that answers",
                todo="look whether it runs, then run the same command again: what was answered is kept",
            )
        return kind

    async def _wait_for_turn(self) -> None:
        """Waits for this attempt's place in the rate, or for the end of a pause that the server asked for."""
        if self.stopping.is_set():
            raise _Stopped
        while (wait := self.next_start - time.monotonic()) > 0:
            await self._sleep(wait)
        if self.settings.max_requests_per_minute is not None:
            self.next_start = max(self.next_start, time.monotonic()) + 60 / self.settings.max_requests_per_minute

    async def _back_off(self, attempt: int, asked_seconds: float | None) -> None:
        if asked_seconds is not None:
            if asked_seconds > MAX_ASKED_WAIT_SECONDS:
                raise UserError(
                    f"the endpoint asks to wait {asked_seconds:.0f} seconds",
                    where=self.url,
                    expected="room in its quota",
                    todo="run the same command again then: what was answered is kept",
                )
            self.next_start = max(self.next_start, time.monotonic() + asked_seconds)  # for all requests
        longest = min(FIRST_WAIT_SECONDS * 2**attempt, LAST_WAIT_SECONDS)
        await self._sleep(longest * random.uniform(0.5, 1.0))

    async def _sleep(self, seconds: float) -> None:
        """Sleeps, but not on when the run is ending."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if self.stopping.is_set():
                raise _Stopped
            await asyncio.sleep(min(left, 0.1))

    async def _attempt(self, body: bytes) -> dict[str, Any]:
        import httpx

        started = time.monotonic()
        try:
            async with asyncio.timeout(self.settings.timeout_seconds):
                status, headers, content = await self._post(body)
        except (TimeoutError, httpx.TimeoutException):
            raise _Problem("timeout") from None
        except (httpx.TransportError, httpx.DecodingError) as error:  # refused, closed, or cut off within the body
            raise _Problem(re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(error).__name__).lower()) from None
        if status in RETRIED or status >= 500:
            raise _Problem(f"http_{status}", _asked_wait(headers.get("retry-after")))
        if status == 200:
            row = _read_answer(content)
        elif status == 400 and self.too_long_is_answer and _is_too_long(content):
            row = _no_answer("too_long")
        else:
            row = _refusal(status, content, self.settings, self.url)
        return {**row, "seconds": round(time.monotonic() - started, 3)}

    async def _post(self, body: bytes) -> tuple[int, httpx.Headers, bytes]:
        content = bytearray()
        headers = {"Content-Type": "application/json"}
        async with self.http.stream("POST", self.url, content=body, headers=headers) as response:
            async for part in response.aiter_bytes():
                content += part
                if len(content) > MAX_BODY_BYTES:
                    raise _Problem("too_long_body")
        return response.status_code, response.headers, bytes(content)


def _body(settings: ClientSettings, request: Request) -> dict[str, Any]:
    body: dict[str, Any] = {
        "model": settings.model,
        "messages": [asdict(message) for message in request.messages],
        "max_tokens": settings.max_tokens,
        "temperature": settings.temperature,
        **settings.extra,
    }
    return body if settings.seed is None else {**body, "seed": settings.seed}


def _key(settings: ClientSettings, request: Request) -> str:
    """What was asked of whom, as a hash: everything in the body, but not the address, which may change."""
    return blake2b(json.dumps(_body(settings, request), sort_keys=True).encode(), digest_size=16).hexdigest()


def _read_answer(content: bytes) -> dict[str, Any]:
    """The answer of a 200. A refusal in a field of its own becomes the text, with `refusal` as the reason."""
    try:
        body = json.loads(content)
        choice = body["choices"][0]
        text, refusal = choice["message"].get("content"), choice["message"].get("refusal")
        usage = body.get("usage") or {}
        reason = "refusal" if refusal and not text else choice.get("finish_reason")
        return {
            "text": str(text or refusal or ""),
            "finish_reason": str(reason or ""),
            "prompt_tokens": int(usage.get("prompt_tokens") or 0),
            "completion_tokens": int(usage.get("completion_tokens") or 0),
        }
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
        raise _Problem("broken_body") from None


def _no_answer(reason: str) -> dict[str, Any]:
    return {"text": "", "finish_reason": reason, "prompt_tokens": 0, "completion_tokens": 0}


def _error(content: bytes) -> tuple[str, str]:
    """(code, message) of an error's body; the code is empty where there is neither code nor type."""
    with suppress(ValueError, KeyError, AttributeError, TypeError, RecursionError):
        body = json.loads(content)
        error = body.get("error", body)  # some servers have no object around it
        code, kind = error.get("code"), error.get("type")  # some repeat the status as the code
        return str(code if isinstance(code, str) and code else kind or code or ""), str(error.get("message") or "")
    return "", ""


def _is_too_long(content: bytes) -> bool:
    code, message = _error(content)
    return code in TOO_LONG or TOO_LONG_SAID.search(message) is not None


def _refusal(status: int, content: bytes, settings: ClientSettings, url: str) -> dict[str, Any]:
    """An empty answer when the endpoint's own filter refused this one text; everything else ends the run.

    Raises:
        UserError: with the status and what to do; never with the endpoint's message, which may quote the text.
    """
    code, _ = _error(content)
    if status == 400 and code in FILTERED:
        return _no_answer("content_filter")
    said = f" ({code})" if re.fullmatch(r"[a-z_]{1,40}", code) else ""
    variable = settings.api_key_variable
    todo = {
        400: "check model, max_tokens and extra; a text may also be longer than the model's window",
        401: f"check the key in {variable}" if variable else "name the variable with the key in api_key_variable",
        403: "check the rights of the key" + (f" in {variable}" if variable else ""),
        404: f"check base_url (it usually ends in /v1) and the model name {settings.model!r}",
    }.get(status, "check base_url: other addresses are not followed" if status < 400 else "check the settings")
    raise UserError(f"the endpoint refused with {status}{said}", where=url, expected="an answer", todo=todo)


def _asked_wait(value: str | None) -> float | None:
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
