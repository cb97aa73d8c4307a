"""What becomes of each answer: kept, or set aside with the first reason that applies.

The answers are read one after the other and not held; what is held of each is its verdict.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from rinsho.client import Answer
from rinsho.run import Stage
from rinsho.synthesize.agreement import Agreement, Written, agreed, answerers
from rinsho.synthesize.calls import EXERCISES, Call
from rinsho.synthesize.exercises import Exercise, as_text, parse
from rinsho.synthesize.passages import PASSAGE, with_passage
from rinsho.synthesize.product import FAILED
from rinsho.synthesize.repeats import exercise_text, repeats
from rinsho.synthesize.trust import Limits, benchmark_items, echo, problem, tidy

if TYPE_CHECKING:
    from rinsho.contamination import Index
    from rinsho.synthesize import Recipe
    from rinsho.synthesize.running import Teachers

Verdict: TypeAlias = tuple[str, "float | str"] | None  # reason and value; None: kept
TOO_LONG, PROMPT_TOO_LONG = "too_long", "prompt_too_long"  # a finish_reason, and our reason for it
EXERCISE_PROBLEMS = {"empty", "refused", "garbled", "not_japanese", "repetitive"}  # say more than why it cannot be read
Calls = Callable[[], Iterable[Call]]


@dataclass(frozen=True, slots=True)
class Writing:
    """What a teacher wrote.

    Attributes:
        text: for pre-training, without what stood around it; of an exercise of reading with its passage.
        exercise: when it is one; of reading with its passage in the question.
        bare: the exercise as it was written.
    """

    text: str
    exercise: Exercise | None = None
    bare: Exercise | None = None


def written(call: Call, answer: Answer) -> Writing | str:
    """The writing of an answer, or the reason why there is no exercise in it."""
    text = tidy(answer.text)
    if call.kind not in EXERCISES:
        return Writing(text)
    found = parse(text)
    if not isinstance(found, Exercise):
        return found
    whole = with_passage(found, call.about[PASSAGE]) if PASSAGE in call.about else found
    return Writing(as_text(whole), whole, found)


def verdicts(recipe: Recipe, calls: Calls, count: int, teachers: Teachers, stage: Stage) -> list[Verdict]:
    """A verdict for each call, in order: by the answer alone, by benchmarks, and by what was written before."""
    from rinsho.contamination import Index

    index = None
    if recipe.decontaminate:
        index = Index.from_files(recipe.decontaminate, recipe.decontamination_chars, section="synthesize")
    found: list[Verdict] = []
    aside = 0
    compared = stage.partial / "compared.jsonl"  # what repeats are found by; one line a call
    with compared.open("w", encoding="utf-8") as file, stage.progress("judging", count, "texts") as progress:
        for call in calls():
            verdict, text = _alone(recipe, call, teachers.answer(call), index)
            found.append(verdict)
            file.write(json.dumps("" if verdict else text) + "\n")
            aside += verdict is not None
            progress.update(set_aside=aside)
    for place, first in repeats(lambda: _lines(compared), recipe.near_threshold, stage.partial).items():
        found[place] = ("repeats", str(first))
    compared.unlink()
    names = _ids(calls, {int(verdict[1]) for verdict in found if verdict and verdict[0] == "repeats"})
    return [("repeats", names[int(one[1])]) if one and one[0] == "repeats" else one for one in found]


def kept_exercises(calls: Calls, found: list[Verdict], teachers: Teachers) -> Iterator[tuple[int, Written]]:
    """Place and exercise of each call whose exercise was kept so far."""
    for place, (call, verdict) in enumerate(zip(calls(), found, strict=True)):
        if verdict is None and call.kind in EXERCISES:
            writing = written(call, teachers.answer(call))
            assert isinstance(writing, Writing) and writing.exercise is not None
            yield place, Written(call.id, call.teacher, writing.exercise)


def disagree(
    recipe: Recipe, calls: Calls, answer_calls: Callable[[], Iterator[Call]], found: list[Verdict], teachers: Teachers
) -> tuple[list[Verdict], Agreement]:
    """The verdicts with exercises set aside whose answer too few of the others gave, and how often teachers agree.

    Where every request about an exercise failed nothing is known against it: it stays. Where answers came and none can
    be read it is set aside as `unconfirmed`.
    """
    result, told = list(found), Agreement()
    asked = answer_calls()
    for place, one in kept_exercises(calls, found, teachers):
        texts = []
        for _ in answerers(recipe, one.id, one.teacher):
            call = next(asked)
            answer = teachers.answer(call)
            if not answer.error:
                texts.append(answer.text)
                told.add(one, call.teacher, answer.text)
        share = agreed(one.exercise, texts)
        if texts and share is None and recipe.min_agreement_fraction:
            result[place] = ("unconfirmed", len(texts))
        elif share is not None and share < recipe.min_agreement_fraction:
            result[place] = ("disagreed", round(share, 3))
    return result, told


def _alone(recipe: Recipe, call: Call, answer: Answer, index: Index | None) -> tuple[Verdict, str]:
    """The verdict by this answer alone, and what it is compared by."""
    if answer.error:
        return (FAILED, answer.error), ""
    if answer.finish_reason == TOO_LONG:
        return (PROMPT_TOO_LONG, ""), ""
    exercise = call.kind in EXERCISES
    limits = Limits(
        recipe.min_chars // 2 if exercise else recipe.min_chars,
        recipe.max_repeated_fraction,
        recipe.min_japanese_fraction,
    )
    writing = written(call, answer)
    if isinstance(writing, str):
        found = problem(tidy(answer.text), answer.finish_reason, limits)
        cut = found is not None and answer.finish_reason == "length"
        return (found if found and (cut or found[0] in EXERCISE_PROBLEMS) else (writing, "")), ""
    bare, whole = writing.bare, writing.exercise
    found = problem(writing.text if bare is None else as_text(bare), answer.finish_reason, limits)
    found = found or echo(tidy(answer.text), "\n".join(message.content for message in call.messages))
    if found or bare is None or whole is None:
        return found, "" if found else writing.text
    if index is not None:
        asked = "\n".join([whole.question, *whole.options.values()])
        if items := benchmark_items(asked, index, bare.question):
            return ("contaminated", items), ""
    return None, exercise_text(bare.question, bare.options.values())  # of several about one passage each counts


def _lines(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)


def _ids(calls: Calls, places: set[int]) -> dict[int, str]:
    """The ids of the calls at these places."""
    return {place: call.id for place, call in enumerate(calls()) if place in places} if places else {}
