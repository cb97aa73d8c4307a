"""One thread steps the model; requests wait for what they asked of it without holding one another up."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from rinsho.errors import UserError
from rinsho.generate.batcher import Batcher, Job, Ticket
from rinsho.generate.jobs import Token, text_job
from rinsho.generate.sampling import Sampling
from rinsho.serve.errors import from_user_error, full, stopping
from rinsho.serve.writing import Piece, Writer, joined

if TYPE_CHECKING:
    from rinsho.generate.opening import Opened

LONGEST_RETRY_SECONDS = 60
RECENT = 0.2  # weight of the latest request in the mean of their seconds


@dataclass(frozen=True, slots=True)
class Ask:
    """A text that is wanted: `prompt` as ids, and how to go on."""

    prompt: list[int]
    max_new_tokens: int
    stop_ids: frozenset[int]
    sampling: Sampling = field(default_factory=Sampling)
    stops: tuple[str, ...] = ()
    top_logprobs: int | None = None


@dataclass(slots=True, eq=False)
class _Order:
    job: Job[Any]
    future: asyncio.Future[Any]
    ticket: Ticket | None = None


class Place:
    """A request's place, which ends with its `with` block or when it leaves, whichever is first."""

    def __init__(self, left: Callable[[float], None]) -> None:
        self._left, self._start = left, time.monotonic()
        self._here = True

    def leave(self) -> None:
        """Makes room for another request."""
        if self._here:
            self._here = False
            self._left(time.monotonic() - self._start)

    def __enter__(self) -> Place:
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()


class Engine:
    """Runs jobs of the asyncio side on the model's own thread.

    Args:
        opened: the model; the engine has its decoder for itself and closes it.
        max_waiting: requests beyond the decoder's slots that may wait.
        failed: is called, on the asyncio side, when the thread cannot go on.
    """

    def __init__(self, opened: Opened, max_waiting: int, failed: Callable[[], None] = lambda: None) -> None:
        self.opened, self.stopping, self.broken = opened, False, ""
        self._vocabulary = opened.pieces.bytes
        self._batcher = Batcher(opened.decoder)
        self._limit = opened.decoder.slots + max_waiting
        self._failed = failed
        self._commands: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._news: list[Callable[[], None]] = []  # of the thread, for the asyncio side
        self._orders: set[_Order] = set()
        self._ended: Exception | None = None  # what every job hears from the end on
        self._places, self._seconds = 0, 1.0
        self._empty = asyncio.Event()
        self._empty.set()
        self._thread = threading.Thread(target=self._work, name="model", daemon=True)

    def start(self) -> None:
        """Begins to work; called where the asyncio loop runs."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    # ------------------------------------------------------------------ for requests

    @property
    def running(self) -> int:
        """Jobs that the model works on."""
        return self._batcher.running

    @property
    def waiting(self) -> int:
        """Jobs that wait for a slot."""
        return max(0, len(self._orders) - self._batcher.running)

    def place(self) -> Place:
        """A request's place among those that are answered or wait; use it as a context manager.

        Raises:
            ApiError: there is none (429), or no more are taken (503).
        """
        if self.broken or self.stopping:
            raise stopping(self.broken) if self.broken else stopping()
        if self._places >= self._limit:
            raise full(self._retry_after())
        self._places += 1
        self._empty.clear()
        return Place(self._left)

    async def run(self, job: Job[Any]) -> Any:
        """The result of a job; it is cancelled when the awaiting task is.

        Raises:
            ApiError: the model cannot be asked this (400), or the server stopped first (503).
        """
        try:
            return await self._submit(job)
        except UserError as error:
            raise from_user_error(error) from None

    def text(self, ask: Ask, place: Place) -> Answer:
        """An answer, whose pieces come as they are written; when the last one is, the place is free.

        Its reader may be slower: what is written is kept for it, `max_new_tokens` ids at most.
        """
        return Answer(self, ask, self._vocabulary, place)

    # ------------------------------------------------------------------ start and end

    async def stop(self, seconds: float) -> None:
        """Takes no more requests; those that have a place are given these seconds to end."""
        self.stopping = True
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._empty.wait(), seconds)
        self._end_all(stopping())

    def close(self) -> None:
        """Ends the thread and gives the model's memory back."""
        self.stopping = True
        self._end_all(stopping())
        self._commands.put(None)
        if self._thread.is_alive():
            self._thread.join()
        self.opened.decoder.close()

    # ------------------------------------------------------------------ between both sides

    def _submit(self, job: Job[Any]) -> asyncio.Future[Any]:
        order = _Order(job, self._loop.create_future())
        order.future.add_done_callback(lambda _: self._over(order))
        self._orders.add(order)
        if self._ended is not None:
            order.future.set_exception(self._ended)
        self._commands.put(partial(self._add, order))
        return order.future

    def _over(self, order: _Order) -> None:
        self._orders.discard(order)
        if not order.future.cancelled():
            order.future.exception()  # seen: asyncio would print it where nobody waits any more
        self._commands.put(partial(self._cancel, order))  # nothing for a job that has ended

    def _end_all(self, error: Exception) -> None:
        self._ended = self._ended or error
        for order in list(self._orders):
            if not order.future.done():
                order.future.set_exception(error)

    def _left(self, seconds: float) -> None:
        self._places -= 1
        self._seconds += RECENT * (seconds - self._seconds)
        if not self._places:
            self._empty.set()

    def _retry_after(self) -> int:
        rounds = max(1.0, (self._places - self.opened.decoder.slots) / self.opened.decoder.slots)
        return max(1, min(LONGEST_RETRY_SECONDS, round(rounds * self._seconds)))

    # ------------------------------------------------------------------ on the model's thread

    def tell(self, news: Callable[[], None]) -> None:
        """From the model's thread: has this called on the asyncio side after the present step."""
        self._news.append(news)

    def _work(self) -> None:
        try:
            busy = True
            while True:
                with contextlib.suppress(queue.Empty):
                    command = self._commands.get(block=not busy)
                    if command is None:
                        return
                    command()
                    busy = True
                    continue
                busy = self._batcher.step()
                self._flush()
        except BaseException as error:  # whatever it is: everyone who waits must hear of it
            kind = type(error).__name__
            self.tell(partial(self._break, f"The model stopped working ({kind})."))
            self._flush()

    def _flush(self) -> None:
        if self._news:
            news, self._news = self._news, []
            with contextlib.suppress(RuntimeError):  # the loop is closed already
                self._loop.call_soon_threadsafe(_call_all, news)

    def _add(self, order: _Order) -> None:
        if not order.future.done():
            order.ticket = self._batcher.add(order.job, lambda result, error: self._settle(order, result, error))

    def _cancel(self, order: _Order) -> None:
        if order.ticket is None:
            order.job.close()
        else:
            self._batcher.cancel(order.ticket)

    def _settle(self, order: _Order, result: Any, error: BaseException | None) -> None:
        self.tell(partial(_set, order.future, result, error))

    def _break(self, message: str) -> None:
        self.broken = message
        self._end_all(stopping(message))
        self._failed()


class Answer:
    """The answer to an `Ask`: iterate over its pieces; afterwards `finish` and `count` are right.

    Attributes:
        finish: "stop" (the model or a stop string ended it) or "length".
        count: ids of the answer, so far.
    """

    def __init__(self, engine: Engine, ask: Ask, vocabulary: list[bytes | None], place: Place) -> None:
        self.finish, self.count = "length", 0
        self._engine, self._ask, self._place = engine, ask, place
        self._writer = Writer(vocabulary, ask.stops, engine.opened.tokenizer)
        self._pieces: list[Piece] = []
        self._news = asyncio.Event()

    async def __aiter__(self) -> AsyncGenerator[Piece, None]:
        """Pieces, as they come; several that came meanwhile are one. Leaving it early ends the answer at once."""
        ask = self._ask
        job = text_job(
            ask.prompt, ask.max_new_tokens, ask.stop_ids, ask.sampling, self._on_token, ask.top_logprobs
        )  # fmt: skip
        future = self._engine._submit(job)
        future.add_done_callback(self._ended)
        try:
            while not future.done():
                await self._news.wait()
                self._news.clear()
                if pieces := self._take():
                    yield pieces
            try:
                ids = future.result()
            except UserError as error:
                raise from_user_error(error) from None
            self.count = len(ids)
            self.finish = "stop" if self._writer.stopped or len(ids) < ask.max_new_tokens else "length"
            if last := self._writer.close():
                self._pieces.append(last)
            if pieces := self._take():
                yield pieces
        finally:
            future.cancel()

    def _ended(self, _: object) -> None:
        self._place.leave()
        self._news.set()

    def _take(self) -> Piece | None:
        pieces, self._pieces = self._pieces, []
        return joined(pieces) if pieces else None

    def _on_token(self, index: int, token: Token) -> bool:
        """On the model's thread."""
        piece = self._writer.push(index, token)
        self._engine.tell(partial(self._hear, self._writer.count, piece))
        return not self._writer.stopped

    def _hear(self, count: int, piece: Piece | None) -> None:
        self.count = count
        if piece is not None:
            self._pieces.append(piece)
            self._news.set()


def _call_all(news: list[Callable[[], None]]) -> None:
    for one in news:
        one()


def _set(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if future.done():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(result)
