"""Exercises with options out of what a teacher wrote: read strictly where it decides, tolerantly in how it is spelt.

The form that the prompts ask for; JSON objects and the many spellings of real models are read as well:

    問題: …どれか。1つ選べ。
    a. …
    b. …
    正解: c
    解説: …
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rinsho.synthesize import exercise_faults as faults
from rinsho.synthesize.exercise_answers import cores, plain, read_answer
from rinsho.synthesize.exercise_fields import Fields
from rinsho.synthesize.exercise_json import read_json
from rinsho.synthesize.exercise_lines import read_lines

__all__ = ["REASONS", "Exercise", "Reason", "as_row", "as_text", "parse"]

Reason = str  # one of these
REASONS = {
    "no_question": "no question, or one of a few characters",
    "few_options": "fewer than four options",
    "options_out_of_order": "labels of options are left out or stand twice",
    "empty_option": "an option without text",
    "same_options": "two options say the same",
    "no_answer": "nothing says which option is right",
    "answer_not_an_option": "the answer is none of the options",
    "answer_contradicts": "label and text of the answer, or answer and explanation, name different options",
    "wrong_number": "more or fewer right options than the question asks for, or all of them",
    "no_explanation": "no explanation, or one of a few characters",
    "several_exercises": "a second exercise follows",
    "needs_figure": "the question shows a figure that is not there",
    "marked_option": "an option says itself whether it is right",
}

MIN_OPTIONS = 4
MIN_QUESTION_CHARS = 6
MIN_EXPLANATION_CHARS = 8


@dataclass(frozen=True, slots=True)
class Exercise:
    """A question with options.

    Attributes:
        question: its text, without the options.
        options: label -> text, in order; the labels are all letters (a …), all numbers (1 …) or all kana (ア …).
        answer: labels of the right options, in their order.
        explanation: why.
    """

    question: str
    options: Mapping[str, str]
    answer: tuple[str, ...]
    explanation: str


def parse(text: str) -> Exercise | Reason:
    r"""The exercise that a text holds, or why it holds none (a short id). Total on any text, in linear time.

    The number of right options must be the one that the question asks for, and what stands beside the label of the
    right answer must be that option: an answer that contradicts itself is no exercise.

    >>> text = "【問題】徐脈になるのは？\nA) 怒り\nB) 粘液水腫\nC) 貧血\nD) 熱\n**正解：B**\n解説：代謝の低下のため。"
    >>> parse(text).answer
    ('b',)
    >>> parse("徐脈となるのはどれか。\na. 敗血症\nb. 発熱\n正解: a\n解説: 代謝が落ちるためである。")
    'few_options'
    """
    fields = read_json(text)
    if fields is None:
        fields = read_lines(text)
    return fields if isinstance(fields, str) else _exercise(fields)


def as_text(exercise: Exercise) -> str:
    """The exercise as text to read, which `parse` reads again (N2.1-6: pre-training)."""
    options = [f"{label}. {text}" for label, text in exercise.options.items()]
    return "\n".join(
        [f"問題: {exercise.question}", *options, f"正解: {', '.join(exercise.answer)}", f"解説: {exercise.explanation}"]
    )


def as_row(exercise: Exercise) -> dict[str, Any]:
    """The exercise as `rinsho.instructions` reads it: `answer` is a list of labels."""
    return {
        "question": exercise.question,
        "options": dict(exercise.options),
        "answer": list(exercise.answer),
        "explanation": exercise.explanation,
    }


def _exercise(fields: Fields) -> Exercise | Reason:
    if reason := _unfit(fields):
        return reason
    question, explanation = (unicodedata.normalize("NFKC", text) for text in (fields.question, fields.explanation))
    asked, known = faults.asked_number(question), cores(fields.options)
    answer = read_answer(fields.answer, known, asked)
    if isinstance(answer, str):
        return answer
    problems = {
        "wrong_number": len(answer) == len(known) or asked not in (None, len(answer)),
        "no_explanation": len(explanation.strip()) < MIN_EXPLANATION_CHARS,
        "answer_contradicts": faults.contradicts(question, explanation, known, answer),
        "marked_option": faults.marked(fields.options, answer),
    }
    reason = next((reason for reason, found in problems.items() if found), "")
    return reason or Exercise(fields.question.strip(), dict(fields.options), answer, fields.explanation.strip())


def _unfit(fields: Fields) -> Reason:
    """What is missing apart from the answer, or too much."""
    options = [plain(text) for text in fields.options.values()]
    problems = {
        "no_question": len(fields.question.strip()) < MIN_QUESTION_CHARS,
        "few_options": len(options) < MIN_OPTIONS,
        "empty_option": not all(options),
        "same_options": len(set(options)) < len(options),
        "needs_figure": faults.needs_figure(unicodedata.normalize("NFKC", fields.question)),
        "marked_option": faults.marked(fields.options),
    }
    return next((reason for reason, found in problems.items() if found), "")
