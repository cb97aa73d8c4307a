"""Many answers at once: whoever is answered next shares the calls of one model (continuous batching).

A job is a generator. It yields what it wants read (`Feed`), is sent the logits of it, and returns its result; it knows
nothing of other jobs. The `Batcher` gives each running job a slot of the decoder and puts what they all want next into
one call of the model.

Shapes: n ids of a feed, V vocabulary.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, Protocol, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from rinsho.errors import UserError

SHARED_IDS = 16  # a common beginning shorter than this is no reason to prefer a slot
# Ids of prompts read in one call while others answer: they wait that long for their next id. A prompt read in parts of
# this size takes little longer than in parts of 512.
PROMPT_IDS_BESIDE = 128

Logits = NDArray[np.float32]
Wanted = Literal["none", "last", "every"]
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Feed:
    """What a job wants read next.

    Attributes:
        ids: one at least.
        at: position of the first id; None: behind what was read. Smaller: what stood from there on is forgotten.
        every: logits after every id, else after the last alone.
    """

    ids: Sequence[int]
    at: int | None = None
    every: bool = False


Job: TypeAlias = Generator[Feed, Logits, Result]
"""Yields feeds, is sent (n, V) logits for each (n is 1 where only the last are wanted), returns its result."""

Done = Callable[[Any, BaseException | None], None]
"""Called with a job's result, or with what it raised; must not raise."""


@dataclass(frozen=True, slots=True)
class Part:
    """Ids that one call of the model reads into a slot, from position `start` on, and whose logits are wanted."""

    slot: int
    start: int
    ids: Sequence[int]
    wanted: Wanted


class Decoder(Protocol):
    """A model with so many slots, each with keys and values of one text.

    Attributes:
        slots: how many texts it holds at once.
        window: positions of each.
        vocab_size: V.
        batch_tokens: ids that one call may read.
    """

    slots: int
    window: int
    vocab_size: int
    batch_tokens: int

    def feed(self, parts: Sequence[Part]) -> list[Logits | None]:
        """Reads the parts in one call, at most one a slot; (1, V) or (n, V) float32 logits of each, None if unwanted.

        A part starts where its slot ends.
        """
        ...

    def forget(self, slot: int, start: int) -> None:
        """Forgets what the slot holds from this position on."""
        ...

    def close(self) -> None:
        """Gives the memory back."""
        ...


class NoRoomError(UserError):
    """A text would be longer than the window. It is thrown into the job, which may end well with what it has."""


@dataclass(slots=True, eq=False)
class Ticket:
    """A job that was added; what `Batcher.cancel` wants."""

    job: Job[Any]
    done: Done
    feed: Feed | None = None
    slot: int = -1
    read: int = 0  # ids of the feed that were read
    logits: list[Logits] = field(default_factory=list)
    over: bool = False


class Batcher:
    """Runs jobs on a decoder: a call reads one more id of each running answer and fills up with parts of prompts.

    For one thread. A slot keeps what it read; a new job takes the free slot with the longest common beginning (16 ids
    at least) and reads only the rest.

    Args:
        decoder: the model; the batcher has it for itself.
        keep_prefixes: False forgets what was read when a job ends, so that no answer depends on earlier ones, even in
            the last bits.
    """

    def __init__(self, decoder: Decoder, keep_prefixes: bool = True) -> None:
        self.decoder, self.keep_prefixes = decoder, keep_prefixes
        self._queue: deque[Ticket] = deque()
        self._running: list[Ticket] = []  # in the order in which they began
        self._free = list(range(decoder.slots))  # least recently used first
        self._held: list[list[int]] = [[] for _ in range(decoder.slots)]
        for slot in range(decoder.slots):
            decoder.forget(slot, 0)

    @property
    def running(self) -> int:
        """Jobs that have a slot."""
        return len(self._running)

    @property
    def waiting(self) -> int:
        """Jobs that wait for one."""
        return len(self._queue)

    def add(self, job: Job[Any], done: Done) -> Ticket:
        """Takes a job, which waits for a free slot behind those added before; `done` hears how it ended."""
        ticket = Ticket(job, done)
        self._queue.append(ticket)
        return ticket

    def cancel(self, ticket: Ticket) -> None:
        """Ends a job at once; its `done` is not called any more. Nothing for one that is over."""
        if ticket.over:
            return
        ticket.over = True
        if ticket.slot >= 0:
            self._leave(ticket)
        else:
            self._queue.remove(ticket)
        ticket.job.close()

    def step(self) -> bool:
        """One call of the decoder; False when there is nothing to do.

        An error of the decoder ends the jobs whose ids it was to read, no others.
        """
        self._admit()
        if not self._running:
            return False
        fed, parts = self._parts()
        try:
            logits = self.decoder.feed(parts)
        except Exception as error:
            for part in parts:
                self._held[part.slot] = []
                self.decoder.forget(part.slot, 0)
            for ticket in fed:
                self._end(ticket, None, error)
            return True
        for part in parts:
            self._held[part.slot].extend(part.ids)
        for ticket, part, found in zip(fed, parts, logits, strict=True):
            if not ticket.over:  # a job's end may have cancelled others
                self._take(ticket, part, found)
        return True

    def run(self, jobs: Sequence[Job[Any]]) -> list[Any]:
        """All of these jobs: their results, in order. The first error ends the others and is raised."""
        results: list[Any] = [None] * len(jobs)
        errors: list[BaseException] = []
        left = len(jobs)

        def ended(place: int, result: Any, error: BaseException | None) -> None:
            nonlocal left
            left -= 1
            results[place] = result
            if error is not None:
                errors.append(error)

        tickets = [self.add(job, partial(ended, place)) for place, job in enumerate(jobs)]
        try:
            while left and not errors:
                self.step()
        finally:
            for ticket in tickets:
                self.cancel(ticket)
        if errors:
            raise errors[0]
        return results

    # ------------------------------------------------------------------ slots

    def _admit(self) -> None:
        """Starts waiting jobs while there are free slots."""
        while self._queue and self._free:
            ticket = self._queue.popleft()
            if not self._advance(ticket, None):
                continue
            feed = ticket.feed
            assert feed is not None
            slot, shared = self._best(feed)
            self._free.remove(slot)
            self._running.append(ticket)
            ticket.slot, ticket.read = slot, shared
            self._forget(slot, shared)
            self._check_room(ticket)

    def _best(self, feed: Feed) -> tuple[int, int]:
        """The free slot for a job with this first feed, and how many of its ids are there already."""
        limit = 0 if feed.every else len(feed.ids) - 1  # logits need one id to be read
        ids = list(feed.ids[:limit])
        best, longest = -1, SHARED_IDS - 1
        for slot in self._free:
            shared = _shared(self._held[slot], ids)
            if shared > longest:
                best, longest = slot, shared
        if best >= 0:
            return best, longest
        # Beside a running one, because llama.cpp reads neighbouring slots together; then an empty one, then the one
        # that was not used for longest.
        busy = {ticket.slot + step for ticket in self._running for step in (-1, 1)}
        return min(self._free, key=lambda slot: (bool(busy) and slot not in busy, bool(self._held[slot]))), 0

    def _forget(self, slot: int, start: int) -> None:
        held = self._held[slot]
        if start < len(held):
            del held[start:]
            self.decoder.forget(slot, start)

    def _leave(self, ticket: Ticket) -> None:
        self._running.remove(ticket)
        self._free.append(ticket.slot)
        if not self.keep_prefixes:
            self._forget(ticket.slot, 0)
        ticket.slot = -1

    # ------------------------------------------------------------------ one step

    def _parts(self) -> tuple[list[Ticket], list[Part]]:
        """What the next call reads: the single ids of all answers, then parts of longer feeds, oldest job first."""
        fed: list[Ticket] = []
        parts: list[Part] = []
        longer: list[Ticket] = []
        for ticket in self._running:
            feed = ticket.feed
            assert feed is not None
            if len(feed.ids) - ticket.read > 1:
                longer.append(ticket)
                continue
            fed.append(ticket)
            ids = feed.ids if ticket.read == 0 else feed.ids[ticket.read :]
            parts.append(Part(ticket.slot, len(self._held[ticket.slot]), ids, "every" if feed.every else "last"))
        room = self.decoder.batch_tokens - len(parts)
        if parts:
            room = min(room, PROMPT_IDS_BESIDE)
        for ticket in longer:
            feed = ticket.feed
            assert feed is not None
            if room <= 0:
                break
            ids = feed.ids[ticket.read : ticket.read + room]
            whole = ticket.read + len(ids) == len(feed.ids)
            wanted: Wanted = "every" if feed.every else "last" if whole else "none"
            fed.append(ticket)
            parts.append(Part(ticket.slot, len(self._held[ticket.slot]), ids, wanted))
            room -= len(ids)
        return fed, parts

    def _take(self, ticket: Ticket, part: Part, logits: Logits | None) -> None:
        """What was read of a job's feed; when that is all, the job goes on."""
        feed = ticket.feed
        assert feed is not None
        ticket.read += len(part.ids)
        whole = ticket.read == len(feed.ids)
        if logits is not None and (ticket.logits or not whole):
            ticket.logits.append(logits)
            logits = np.concatenate(ticket.logits) if whole else None
        if whole and self._advance(ticket, logits):
            self._check_room(ticket)

    def _advance(self, ticket: Ticket, logits: Logits | None, error: BaseException | None = None) -> bool:
        """Lets a job work until its next feed; False when it is over."""
        try:
            if error is not None:
                ticket.feed = ticket.job.throw(error)
            else:
                ticket.feed = next(ticket.job) if logits is None else ticket.job.send(logits)
            if not len(ticket.feed.ids):
                raise ValueError("a feed of no ids")
        except StopIteration as end:
            self._end(ticket, end.value, None)
            return False
        except Exception as problem:
            self._end(ticket, None, problem)
            return False
        if ticket.over:  # cancelled by its own doing
            return False
        ticket.read = 0
        if ticket.logits:
            ticket.logits = []
        return True

    def _check_room(self, ticket: Ticket) -> None:
        """Moves to where the feed begins; a job whose feed has no room in the window is told so."""
        while True:
            feed, held = ticket.feed, self._held[ticket.slot]
            assert feed is not None
            if feed.at is not None and ticket.read == 0:
                if not 0 <= feed.at <= len(held):
                    self._end(ticket, None, ValueError(f"a feed at {feed.at}, where {len(held)} ids were read"))
                    return
                self._forget(ticket.slot, feed.at)
            size = len(held) + len(feed.ids) - ticket.read
            if size <= self.decoder.window:
                return
            if not self._advance(ticket, None, _no_room(size, self.decoder.window)):
                return

    def _end(self, ticket: Ticket, result: Any, error: BaseException | None) -> None:
        if ticket.over:
            return
        ticket.over = True
        if ticket.slot >= 0:
            self._leave(ticket)
        ticket.done(result, error)


def _no_room(size: int, window: int) -> NoRoomError:
    return NoRoomError(
        f"a text of {size} tokens", where="the model", expected=f"at most {window} tokens (its window)",
        todo="shorten the prompt, or open the model with a larger window if it was trained with one",
    )  # fmt: skip


def _shared(held: Sequence[int], ids: Sequence[int]) -> int:
    """How many ids both begin with."""
    limit = min(len(held), len(ids))
    if held[:limit] == ids[:limit]:
        return limit
    return next(place for place in range(limit) if held[place] != ids[place])
