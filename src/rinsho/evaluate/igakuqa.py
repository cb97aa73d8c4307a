"""Points of the national medical licensing examination as IgakuQA's authors count them (N3-1; data map, 2)."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rinsho.tasks import Item, labels
from rinsho.tasks.score import strict_letters

ALWAYS_RIGHT = "116A71"  # withdrawn after the examination: every answer counts
EITHER = {"112B30": ("a", "d")}  # two answers were accepted; its gold string is "a or d"


@dataclass(frozen=True, slots=True)
class Problem:
    """What scoring needs of a problem."""

    id: str
    gold: tuple[str, ...]
    points: int


def points(problems: Iterable[Item | Mapping[str, Any]], answers: Mapping[str, str], trim: bool = False) -> int:
    """The sum of points of the right answers.

    Args:
        problems: items of `rinsho.tasks.read_igakuqa`, or rows of the original files (`problem_id`, `answer`,
            `points`); any selection of any year.
        answers: problem id (`112A1`) -> answer string, labels joined by commas. A missing answer is wrong.
        trim: also accept white space around a label. The published figures do not.

    >>> points([{"problem_id": "112A1", "answer": ["a", "c"], "points": "1"}], {"112A1": "c,a"})
    1
    """
    return sum(p.points for p in map(_problem, problems) if is_right(p, answers.get(p.id), trim))


def total_points(problems: Iterable[Item | Mapping[str, Any]]) -> int:
    """The sum of points to be had (499 for 2018)."""
    return sum(_problem(problem).points for problem in problems)


def num_right(problems: Iterable[Item | Mapping[str, Any]], answers: Mapping[str, str], trim: bool = False) -> int:
    """The number of problems answered rightly, withdrawn ones (0 points) included, as the authors' accuracy counts."""
    return sum(is_right(p, answers.get(p.id), trim) for p in map(_problem, problems))


def is_right(problem: Problem, answer: str | None, trim: bool = False) -> bool:
    """All or nothing: the answer split at commas and sorted equals the sorted gold labels."""
    if problem.id == ALWAYS_RIGHT:
        return True
    if answer is None:
        return False
    given = sorted(part.strip() if trim else part for part in answer.split(","))
    if len(given) == 1 and given[0] in EITHER.get(problem.id, ()):
        return True
    return given == sorted(problem.gold)


def problem_id(item: Item) -> str:
    """`112A1` of the item `igakuqa/112A1`."""
    return item.id.rsplit("/", 1)[-1]


def written(answer: str) -> str:
    """The answer as the authors kept it: half width, lower case, nothing trimmed.

    >>> written("Ａ,Ｃ")
    'a,c'
    """
    return unicodedata.normalize("NFKC", answer[:1000]).lower()


def read_answer(item: Item, answer: str) -> str:
    """The tolerant reading: letters alone or on the last line, in any case, with any separator; digits for a number."""
    plain = written(answer)
    if item.kind == "number":
        digits = "".join(character for character in plain if character.isdigit() or character == ".")
        return digits.strip(".")
    return ",".join(strict_letters(plain, labels(item), tuple(option.lower() for option in item.options)))


def num_forbidden(items: Sequence[Item], answers: Mapping[str, str]) -> int:
    """How many problems were answered with a forbidden choice (kinki); a few of these fail an examinee."""
    return sum(
        any(letter in item.forbidden for letter in answers.get(problem_id(item), "").split(",")) for item in items
    )


def _problem(problem: Item | Mapping[str, Any]) -> Problem:
    if isinstance(problem, Item):
        return Problem(problem_id(problem), problem.gold, problem.points)
    return Problem(str(problem["problem_id"]), tuple(problem["answer"]), int(problem.get("points", 1)))
