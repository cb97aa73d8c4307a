"""The steps of a synthesis: ask for everything, judge what came, write what is kept and what became of the rest."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from rinsho import client
from rinsho.run import Report, Stage
from rinsho.synthesize import judging, passages, plan, prompts, report, topics
from rinsho.synthesize.agreement import Agreement, answer_calls, answerers, letters
from rinsho.synthesize.calls import Call
from rinsho.synthesize.exercises import as_row
from rinsho.synthesize.judging import Verdict, Writing
from rinsho.synthesize.product import FAILED, KEPT, SET_ASIDE, Product
from rinsho.synthesize.rounds import grow
from rinsho.synthesize.running import Teachers, cache_folder

if TYPE_CHECKING:
    from rinsho.synthesize import Recipe


class Wanted:
    """The calls about topics and passages, made as they are needed; always the same ones in the same order."""

    def __init__(self, recipe: Recipe, inputs: list[Path]) -> None:
        lists, self.documents = topics.sort_inputs(inputs)
        self.recipe, self.prompts = recipe, prompts.load(recipe.prompts)
        about = lists and plan.kinds_of(recipe)
        self.topics = topics.read_topics(lists, recipe.topic_kinds, recipe.max_topics, recipe.seed) if about else []
        self.reading = bool(self.documents) and "reading" in recipe.kinds
        self.count = plan.count(recipe, self.topics)
        if self.reading:
            self.count += passages.count(recipe, self.documents)

    def unused(self) -> list[str]:
        """What of the templates of one's own no call takes."""
        return prompts.unused(self.prompts, plan.kinds_of(self.recipe), {topic.kind for topic in self.topics})

    def sent(self, name: str) -> str:
        """What a teacher is sent, for people."""
        writes = {kind for kind in self.recipe.kinds if name in plan.writers(self.recipe, kind)}
        answers = self.recipe.agreement > 0  # exercises with their passages
        parts = ["documents"] if self.reading and ("reading" in writes or answers) else []
        parts += ["prompts about topics"] if self.topics and writes & {*plan.kinds_of(self.recipe)} else []
        parts += ["seed tasks"] if "instructions" in writes else []
        return ", ".join(parts) or "exercises"

    def calls(self) -> Iterator[Call]:
        """All of them."""
        yield from plan.topic_calls(self.recipe, self.topics, self.prompts)
        if self.reading:
            yield from passages.reading_calls(self.recipe, self.documents, self.prompts)


def synthesize(recipe: Recipe, inputs: list[Path], stage: Stage) -> Report:
    """Runs or continues the stage.

    Raises:
        UserError: a teacher gave up, or too many requests failed; what was answered is kept.
    """
    wanted = Wanted(recipe, inputs)
    for name, teacher in recipe.teachers.items():
        here = f"a model on this machine ({Path(teacher.folder).name})"
        stage.log(f"{name}: {here if teacher.folder else client.describe(teacher, wanted.sent(name))}")
    for line in wanted.unused():
        stage.log(f"WARNING: {line}")
    agreement: Agreement | None = None
    with Teachers(recipe, cache_folder(recipe, stage.out), stage) as teachers:
        teachers.ask_once("texts", wanted.calls, wanted.count, recipe.max_failed_fraction * wanted.count)
        rounds = grow(recipe, wanted.prompts, teachers) if "instructions" in recipe.kinds else None
        found = judging.verdicts(recipe, wanted.calls, wanted.count, teachers, stage)
        before = found
        if recipe.agreement:
            found, agreement = _agreement(recipe, wanted, before, teachers)
        with Product(recipe, stage.out) as product:
            _write(wanted, found, teachers, product, stage)
            if rounds is not None:
                rounds.write(product)
            if agreement is not None:
                _write_answers(recipe, wanted, before, teachers, product)
    return report.make(recipe, product.figures, rounds, agreement, stage)


def _agreement(
    recipe: Recipe, wanted: Wanted, found: list[Verdict], teachers: Teachers
) -> tuple[list[Verdict], Agreement]:
    """Asks other teachers for the answers of the exercises that were kept so far."""

    def asked() -> Iterator[Call]:
        kept = (one for _, one in judging.kept_exercises(wanted.calls, found, teachers))
        return answer_calls(kept, recipe, wanted.prompts)

    kept = judging.kept_exercises(wanted.calls, found, teachers)
    count = sum(len(answerers(recipe, one.id, one.teacher)) for _, one in kept)
    teachers.ask_once("answers", asked, count, recipe.max_failed_fraction * count)
    return judging.disagree(recipe, wanted.calls, asked, found, teachers)


def _write(wanted: Wanted, found: list[Verdict], teachers: Teachers, product: Product, stage: Stage) -> None:
    with stage.progress("writing", wanted.count, "texts") as progress:
        for call, verdict in zip(wanted.calls(), found, strict=True):
            answer = teachers.answer(call)
            if answer.error:
                product.request(call, answer, FAILED, answer.error)
            elif verdict is not None:
                product.aside(call.id, answer.text, verdict, call, answer)
                product.request(call, answer, SET_ASIDE, verdict[0])
            else:
                writing = judging.written(call, answer)
                assert isinstance(writing, Writing)
                product.text(call, answer, writing.text)
                if writing.exercise is not None:
                    product.exercise(call, answer, as_row(writing.exercise))
                product.request(call, answer, KEPT)
            progress.update()


def _write_answers(recipe: Recipe, wanted: Wanted, before: list[Verdict], teachers: Teachers, product: Product) -> None:
    """The requests in which others answered exercises; what they wrote is no product."""
    kept, again = itertools.tee(one for _, one in judging.kept_exercises(wanted.calls, before, teachers))
    asked = answer_calls(again, recipe, wanted.prompts)
    for one in kept:
        for _ in answerers(recipe, one.id, one.teacher):
            call = next(asked)
            answer = teachers.answer(call)
            readable = letters(answer.text, one.exercise.options, len(one.exercise.answer)) is not None
            if answer.error:
                product.request(call, answer, FAILED, answer.error)
            elif readable:
                product.request(call, answer, KEPT)
            else:
                why = judging.PROMPT_TOO_LONG if answer.finish_reason == judging.TOO_LONG else "unreadable"
                product.aside(call.id, answer.text, (why, ""), call, answer)
                product.request(call, answer, SET_ASIDE, why)
