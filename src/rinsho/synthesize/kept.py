"""The answers that a run finds before it asks: read without a lock and without the models or endpoints."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from rinsho.client import Answer, Request
from rinsho.client.answers import Answers
from rinsho.client.asking import answer_of, request_key
from rinsho.synthesize.calls import Call
from rinsho.synthesize.local import local_key, model_hash
from rinsho.synthesize.running import answer_file, cache_folder

if TYPE_CHECKING:
    from rinsho.synthesize import Recipe, Teacher


class Kept:
    """What came back for calls in this run, or in others with the same answer files; use as a context manager.

    Args:
        recipe: with the teachers.
        out: the run folder; without it, and without a cache in the recipe, nothing is known.
    """

    def __init__(self, recipe: Recipe, out: Path | None) -> None:
        folder = cache_folder(recipe, out) if out or recipe.cache else None
        self._files: dict[str, tuple[Answers, Callable[[Request], str]]] = {}
        self._failed: dict[str, str] = {}
        for name, teacher in recipe.teachers.items():
            if folder is not None and (file := answer_file(folder, name)).exists():
                self._files[name] = Answers(file, read_only=True), _key_of(teacher)
        for settled in sorted((out / "partial").glob("asked-*.json")) if out else ():
            self._failed |= json.loads(settled.read_text(encoding="utf-8"))

    def __enter__(self) -> Kept:
        return self

    def __exit__(self, *_: object) -> None:
        for answers, _key in self._files.values():
            answers.close()

    def answer(self, call: Call) -> Answer | None:
        """The answer to a call; with `error` where this run has given it up; None where it is to be asked."""
        if call.id in self._failed:
            return Answer(call.id, error=self._failed[call.id])
        if call.teacher not in self._files:
            return None
        answers, key = self._files[call.teacher]
        request = Request(call.id, call.messages, call.seed)
        row = answers.get(key(request))
        return None if row is None else answer_of(request, row)


def _key_of(teacher: Teacher) -> Callable[[Request], str]:
    """What the answer to a request is kept under."""
    if not teacher.folder:
        return lambda request: request_key(teacher, request)
    model = model_hash(teacher)
    return lambda request: local_key(teacher, model, request)
