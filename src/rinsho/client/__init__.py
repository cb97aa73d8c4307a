"""OpenAI-compatible chat endpoints: requests in, answers out in the same order; nothing is paid twice.

The one place in the package that opens a connection. Answers are kept in a file, so a run that was killed asks only
what was not answered. Neither the key nor a document's text stands in a log, an error or a recipe.
Importing this loads no network code; the first request does.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rinsho.chat import Message
from rinsho.client.answers import Answers
from rinsho.client.settings import Answer, ClientSettings, Counts, FailuresInARowError, Request, check, describe

if TYPE_CHECKING:
    from rinsho.client.asking import Work

__all__ = [
    "Answer", "Client", "ClientSettings", "Counts", "FailuresInARowError", "Request", "check", "conversation",
    "describe",
]  # fmt: skip


class Client:
    """Asks one endpoint; use as a context manager. One process uses an answer file at a time.

    Attributes:
        counts: what was asked and paid so far.

    Args:
        settings: the endpoint.
        answers: file that keeps the answers (made when missing); None keeps them for this object's life only.
        too_long_is_answer: a conversation longer than the model's window comes back without text and with the
            finish_reason `too_long`, for a caller that can shorten it; else it ends the run as every refusal does.

    Raises:
        UserError: address or model is missing, the key's variable is empty, or another process uses the answer file.
    """

    def __init__(self, settings: ClientSettings, answers: Path | None, too_long_is_answer: bool = False) -> None:
        for problem in check(settings, "endpoint"):
            raise problem
        self.settings = settings
        self.counts = Counts()
        self._answers = Answers(answers)
        self._too_long_is_answer = too_long_is_answer
        self._work: Work | None = None

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self._answers.close()

    def kept(self, request: Request) -> Answer | None:
        """The answer that is kept, if there is one; not while `ask` is under way in another thread."""
        from rinsho.client.asking import answer_of, request_key

        row = self._answers.get(request_key(self.settings, request))
        return None if row is None else answer_of(request, row)

    def is_kept(self, request: Request) -> bool:
        """Whether an answer is kept; reads no file."""
        from rinsho.client.asking import request_key

        return request_key(self.settings, request) in self._answers

    def stop(self) -> None:
        """Ends an `ask` that another thread waits for: nothing new is sent, what is under way may end."""
        if self._work is not None:
            self._work.stop()

    def ask(self, requests: Iterable[Request], in_order: bool = True) -> Iterator[Answer]:
        """The answers in the order of the requests, which are drawn as they are needed.

        A request that fails in all its attempts comes back with `error` and is asked again by the next run.

        Args:
            requests: what is asked.
            in_order: False gives the answers as they come: one that is tried for minutes holds up no other.

        Raises:
            UserError: the endpoint refuses (wrong key, model or address), or request after request fails. What was
                answered until then is kept.
        """
        from rinsho.client.asking import Work

        out: queue.Queue[Any] = queue.Queue()
        work = Work(self.settings, self._answers, self.counts, out, self._too_long_is_answer, in_order)
        self._work = work
        thread = threading.Thread(target=work.run, args=(iter(requests),), daemon=True, name="rinsho-client")
        thread.start()
        try:
            while (item := out.get()) is not None:
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            work.stop()
            thread.join()


def conversation(user: str, system: str = "") -> tuple[Message, ...]:
    """One question as a conversation, behind a system turn when there is one."""
    turns = (Message("user", user),)
    return (Message("system", system), *turns) if system else turns
