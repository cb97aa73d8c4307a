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
from typing import Any

from rinsho.chat import Message
from rinsho.client.answers import Answers
from rinsho.client.settings import Answer, ClientSettings, Counts, Request, check, describe

__all__ = ["Answer", "Client", "ClientSettings", "Counts", "Request", "check", "conversation", "describe"]


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

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self._answers.close()

    def ask(self, requests: Iterable[Request]) -> Iterator[Answer]:
        """The answers in the order of the requests, which are drawn as they are needed.

        A request that fails in all its attempts comes back with `error` and is asked again by the next run.

        Raises:
            UserError: the endpoint refuses (wrong key, model or address), or request after request fails. What was
                answered until then is kept.
        """
        from rinsho.client.asking import Work

        out: queue.Queue[Any] = queue.Queue()
        work = Work(self.settings, self._answers, self.counts, out, self._too_long_is_answer)
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
