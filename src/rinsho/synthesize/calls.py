"""What is asked for: topics and calls, plain values that every part of the room uses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from rinsho.chat import Message

__all__ = ["ANSWER", "EXERCISES", "KINDS", "Call", "Kind", "Topic"]

Kind = Literal["textbook", "physician_exam", "pharmacist_exam", "instructions", "reading"]
KINDS: tuple[Kind, ...] = ("textbook", "physician_exam", "pharmacist_exam", "instructions", "reading")
EXERCISES = ("physician_exam", "pharmacist_exam", "reading")
ANSWER = "answer"  # the kind of a call in which another teacher answers an exercise


@dataclass(frozen=True, slots=True)
class Topic:
    """What a text is about. The id comes from name and kind alone: it stays when a list grows or is sorted anew."""

    id: str
    name: str
    kind: str  # disease, drug, examination, ... as the list says
    reading: str = ""


@dataclass(frozen=True, slots=True)
class Call:
    """One text that is asked for.

    Attributes:
        kind: a `Kind`, or `answer`: another teacher answers an exercise.
        subject: id of the topic, the passage, the round or the exercise.
        teacher: its name in the recipe.
        sample: from 0.
        messages: what is sent.
        prompt: 16 hex digits, hash of the template (both turns).
        seed: below 2**31, from the recipe's seed and the id.
        about: what the product should tell: topic and topic_kind, or document and its license, ...
    """

    kind: str
    subject: str
    teacher: str
    sample: int
    messages: tuple[Message, ...]
    prompt: str
    seed: int
    about: Mapping[str, str]

    @property
    def id(self) -> str:
        """`kind/subject/teacher/sample`: one text of the run."""
        return f"{self.kind}/{self.subject}/{self.teacher}/{self.sample}"
