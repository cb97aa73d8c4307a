"""The event loop that asks: concurrency, rate and retries."""

from __future__ import annotations

import asyncio
import json
import queue
import random
import re
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import urlsplit

from rinsho.client.answers import KEPT, Answers
from rinsho.client.replies import Problem, asked_wait, is_too_long, no_answer, read_answer, refusal
from rinsho.client.settings import Answer, ClientSettings, Counts, FailuresInARowError, Request, key_of, place_of
from rinsho.errors import UserError

if TYPE_CHECKING:
    import httpx

RETRIED = {408, 409, 425, 429}  # and everything from 500
FIRST_WAIT_SECONDS, LAST_WAIT_SECONDS = 0.5, 60.0  # back-off: doubles from the first to the last
MAX_ASKED_WAIT_SECONDS = 900.0  # a server that asks for more has a daily limit: the run stops instead of waiting
GRACE_SECONDS = 10.0  # for attempts under way when the caller stops
MAX_BODY_BYTES = 64 << 20

Outcome = dict[str, Any] | str  # the row of an answer, or the kind of problem for which a request was given up
_Begun: TypeAlias = "tuple[Request, bool, asyncio.Task[Outcome]]"  # with whether its answer was known or on its way


class _Stopped(Exception):  # noqa: N818
    """The run is ending: no further attempts."""


class Work:
    """One `ask`: an event loop in a thread of its own, so that connections live on while the caller is busy."""

    def __init__(  # noqa: PLR0917
        self,
        settings: ClientSettings,
        answers: Answers,
        counts: Counts,
        out: queue.Queue[Any],
        too_long_is_answer: bool = False,
        in_order: bool = True,
    ) -> None:
        self.settings, self.answers, self.counts, self.out = settings, answers, counts, out
        self.too_long_is_answer, self.in_order = too_long_is_answer, in_order
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
        self.places, self.room = asyncio.Semaphore(limit), asyncio.Semaphore(self.window)
        async with httpx.AsyncClient(
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=self.settings.timeout_seconds,
            limits=httpx.Limits(max_connections=limit, max_keepalive_connections=limit),
            trust_env=not near,  # no detour over a proxy to an endpoint of one's own
        ) as http:
            self.http = http
            try:
                await self._all(requests)
            except BaseException:
                await self._let_end(list(self.under_way.values()))
                raise

    # ------------------------------------------------------------------ order

    async def _all(self, requests: Iterator[Request]) -> None:
        """Hands out all answers while requests are drawn."""
        ready: asyncio.Queue[_Begun | None] = asyncio.Queue()  # None: look whether that was all
        drawing = asyncio.create_task(self._draw(requests, ready))
        drawing.add_done_callback(lambda _: ready.put_nowait(None))
        handed_out = 0
        while not drawing.done() or handed_out < drawing.result():
            begun = await self._next(ready)
            if begun is not None:
                await self._hand_out(*begun)
                handed_out += 1
                self.room.release()

    async def _draw(self, requests: Iterator[Request], ready: asyncio.Queue[_Begun | None]) -> int:
        """Begins all requests and returns their number.

        They are drawn in a thread: one that looks long for the next must not keep the others' answers waiting.
        """
        drawn = 0
        while (request := await asyncio.to_thread(next, requests, None)) is not None:
            await self.room.acquire()
            if self.stopping.is_set():
                break
            begun = self._begin(request)
            drawn += 1
            if self.in_order:
                ready.put_nowait(begun)
            else:
                begun[2].add_done_callback(lambda _, begun=begun: ready.put_nowait(begun))  # type: ignore[misc]
        return drawn

    async def _next(self, ready: asyncio.Queue[_Begun | None]) -> _Begun | None:
        while not self.stopping.is_set():
            with suppress(TimeoutError):
                return await asyncio.wait_for(ready.get(), 0.1)
        raise _Stopped

    def _begin(self, request: Request) -> _Begun:
        self.counts.requests += 1
        key = request_key(self.settings, request)
        known = key in self.under_way or key in self.answers
        return request, known, self._task(key, request)

    def _task(self, key: str, request: Request) -> asyncio.Task[Outcome]:
        """The task of this key: equal requests under way share one."""
        task = self.under_way.get(key)
        if task is None:
            task = asyncio.create_task(self._answer(key, request))
            self.under_way[key] = task
            task.add_done_callback(lambda task: self._over(key, task))
        return task

    def _over(self, key: str, task: asyncio.Task[Outcome]) -> None:
        self.under_way.pop(key, None)
        if not task.cancelled():
            task.exception()  # seen, so that asyncio does not complain

    async def _hand_out(self, request: Request, known: bool, task: asyncio.Task[Outcome]) -> None:
        while not task.done() and not self.stopping.is_set():  # a caller that stops does not wait for a slow answer
            await asyncio.wait([task], timeout=0.1)
        if self.stopping.is_set():
            raise _Stopped
        outcome = task.result()
        while self.out.qsize() >= self.window and not self.stopping.is_set():
            await asyncio.sleep(0.01)
        if self.stopping.is_set():
            raise _Stopped
        if isinstance(outcome, str):
            self.out.put(Answer(request.id, error=outcome))
            return
        self.counts.cached += known
        self.out.put(answer_of(request, outcome, cached=known))

    async def _let_end(self, tasks: list[asyncio.Task[Outcome]]) -> None:
        """Attempts under way are paid for: their answers are kept. Nothing new is started."""
        self.stop()
        if tasks:
            grace = GRACE_SECONDS if self.fatal is None else self.settings.timeout_seconds
            await asyncio.wait(tasks, timeout=grace)
        self.answers.sync()

    # ------------------------------------------------------------------ one request

    async def _answer(self, key: str, request: Request) -> Outcome:
        kept = self.answers.get(key)
        if kept is not None:
            return kept
        try:
            async with self.places:
                return await self._try(key, json.dumps(body(self.settings, request)).encode())
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
            except Problem as problem:
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
            raise FailuresInARowError(self.failed_in_a_row, kind, self.url)
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
            raise Problem("timeout") from None
        except (httpx.TransportError, httpx.DecodingError) as error:  # refused, closed, or cut off within the body
            raise Problem(re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(error).__name__).lower()) from None
        if status in RETRIED or status >= 500:
            raise Problem(f"http_{status}", asked_wait(headers.get("retry-after")))
        if status == 200:
            row = read_answer(content)
        elif status == 400 and self.too_long_is_answer and is_too_long(content):
            row = no_answer("too_long")
        else:
            row = refusal(status, content, self.settings, self.url)
        return {**row, "seconds": round(time.monotonic() - started, 3), "time": now()}

    async def _post(self, body: bytes) -> tuple[int, httpx.Headers, bytes]:
        content = bytearray()
        headers = {"Content-Type": "application/json"}
        async with self.http.stream("POST", self.url, content=body, headers=headers) as response:
            async for part in response.aiter_bytes():
                content += part
                if len(content) > MAX_BODY_BYTES:
                    raise Problem("too_long_body")
        return response.status_code, response.headers, bytes(content)


def body(settings: ClientSettings, request: Request) -> dict[str, Any]:
    """What is sent."""
    fields: dict[str, Any] = {
        "model": settings.model,
        "messages": [asdict(message) for message in request.messages],
        "max_tokens": settings.max_tokens,
        "temperature": settings.temperature,
        **settings.extra,
    }
    seed = settings.seed if request.seed is None else request.seed
    return fields if seed is None else {**fields, "seed": seed}


def request_key(settings: ClientSettings, request: Request) -> str:
    """What was asked of whom, as a hash: everything in the body, but not the address, which may change."""
    return blake2b(json.dumps(body(settings, request), sort_keys=True).encode(), digest_size=16).hexdigest()


def answer_of(request: Request, row: dict[str, Any], cached: bool = True) -> Answer:
    """A kept row as the answer to the request."""
    when, model = (str(row.get(name, "")) for name in ("time", "model"))  # not in old files
    return Answer(request.id, cached=cached, time=when, model=model, **{name: row[name] for name in KEPT})


def now() -> str:
    """The time as answers tell it: UTC, whole seconds."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
