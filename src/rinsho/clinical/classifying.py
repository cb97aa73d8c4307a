"""Which of some options a clinical text belongs to, with the model's probability of each."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from rinsho.clinical.questions import Question, any_class, asking_of, check_room, untuned

if TYPE_CHECKING:
    from rinsho.generate.batcher import Job
    from rinsho.generate.opening import Opened

MORE_ROOM = "give fewer or shorter options, a shorter question, or a model with a larger window"
HEAD_FRACTION = 0.25  # of a text that is shortened: its end says more of what came out


class Classification:
    """One text and the options it may belong to: a job for the model, and what becomes of its result.

    Args:
        opened: the model.
        text: the raw text. Where the window does not hold it, its middle is left out.
        options: 2 to 26 texts; not with a question of one's own, which has them.
        question: what is asked; None: which option fits best. Or a task of one's own (`own_question`).

    Attributes:
        job: what the model is to be asked (`rinsho.generate.batcher.Batcher`).
        options: as they are asked.
        shortened: the middle of the text was left out.
        prompt_tokens: of the job.
        note: that the model was not tuned on this question, as far as its folder says; else None.

    Raises:
        UserError: wrong options, a base model, or a question that leaves no room for a text.

    Source: SPEC "neither 1", N3-2.
    """

    def __init__(
        self, opened: Opened, text: str, options: Sequence[str] = (), question: str | Question | None = None
    ) -> None:
        from rinsho.generate.jobs import choice_job

        asked = question if isinstance(question, Question) else any_class(options, question)
        asking = asking_of(opened, 1)
        self.options, self.note = asked.options, untuned(opened, asked)
        answers = asking.options(asked.item(text, gold=("A",)))

        def prompt(part: str) -> list[int]:
            return asking.prompt(asked.item(part, gold=("A",)))

        room = opened.window - max(map(len, answers))
        if len(prompt(text)) > room:
            check_room(asking, asked, MORE_ROOM)
        asked_text = _shortened(text, lambda part: len(prompt(part)) <= room)
        self.shortened = len(asked_text) < len(text)
        ids = prompt(asked_text)
        self.prompt_tokens = len(ids)
        self.job: Job[list[float]] = choice_job(ids, answers)

    def shares(self, result: Sequence[float]) -> list[float]:
        """The probability of each option among them all, from the job's result."""
        return shares(result)


def shares(logprobs: Sequence[float]) -> list[float]:
    """Log-probabilities as shares of one.

    >>> shares([math.log(0.3), math.log(0.1)])
    [0.75, 0.25]
    """
    most = max(logprobs)
    weights = [math.exp(value - most) for value in logprobs]
    total = sum(weights)
    return [round(weight / total, 12) for weight in weights]


def _shortened(text: str, fits: Callable[[str], bool]) -> str:
    """As much of a text as fits, its middle left out; what stands around it in the prompt is never touched.

    >>> _shortened("12345678", lambda part: len(part) <= 4)
    '1678'
    """
    if fits(text):
        return text

    def part(size: int) -> str:
        head = int(size * HEAD_FRACTION)
        return text[:head] + text[len(text) - (size - head) :]

    return part(bisect_left(range(len(text)), True, lo=1, key=lambda size: not fits(part(size))) - 1)
