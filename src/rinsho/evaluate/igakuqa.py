"""Points of the national medical licensing examination as IgakuQA's authors count them (N3-1; data map, 2)."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rinsho.tasks import Item, labels
from rinsho.tasks.intervals import ALWAYS_RIGHT
from rinsho.tasks.item import OR
from rinsho.tasks.score import MAX_ANSWER_CHARS, strict_letters

PASS_SHARE = 0.75  # of the points; the ministry's line moves a little from year to year (N3-1)

_NUMBER = re.compile(r"\d+(?:\.\d+)?")

Answer = str | Sequence[str] | None


@dataclass(frozen=True, slots=True)
class Problem:
    """What scoring needs of a problem."""

    id: str
    gold: tuple[str, ...]
    points: int


def points(problems: Iterable[Item | Mapping[str, Any]], answers: Mapping[str, Answer], trim: bool = False) -> int:
    """The sum of points of the right answers, by the rule of the authors' scoring script: exact strings.

    Nothing is folded or trimmed: "A", "ａ" and "a, c" are wrong. (The authors' stored answers are already half width
    and lower case.)

    Args:
        problems: items of `rinsho.tasks.read_igakuqa`, or rows of the original files (`problem_id`, `answer`,
            `points`; 1 where it is missing); any selection of any year.
        answers: problem id (`112A1`) -> answer string, labels joined by commas, or a list of labels. A missing answer
            is wrong; answers to other problems do not count.
        trim: also accept white space around a label. The published figures do not.

    >>> points([{"problem_id": "112A1", "answer": ["a", "c"], "points": "1"}], {"112A1": "c,a"})
    1

    Source: N3-1.
    """
    return sum(p.points for p in map(problem_of, problems) if is_right(p, answers.get(p.id), trim))


def total_points(problems: Iterable[Item | Mapping[str, Any]]) -> int:
    """The sum of points to be had (499 for 2018)."""
    return sum(problem_of(problem).points for problem in problems)


def num_right(problems: Iterable[Item | Mapping[str, Any]], answers: Mapping[str, Answer], trim: bool = False) -> int:
    """The number of problems answered rightly, withdrawn ones (0 points) included, as the authors' accuracy counts."""
    return sum(is_right(p, answers.get(p.id), trim) for p in map(problem_of, problems))


def is_right(problem: Problem, answer: Answer, trim: bool = False) -> bool:
    """All or nothing: the answer split at commas and sorted equals the sorted gold labels.

    Where the gold label is "a or d" (112B30), either is right.
    """
    if problem.id == ALWAYS_RIGHT:
        return True
    if answer is None:
        return False
    parts = answer.split(",") if isinstance(answer, str) else map(str, answer)
    given = sorted(part.strip() if trim else part for part in parts)
    if len(given) == len(problem.gold) == 1 and given[0] in problem.gold[0].split(OR):
        return True
    return given == sorted(problem.gold)


def passes(interval: Sequence[float] | None, total: int) -> bool | None:
    """Whether points pass: the whole interval above the pass line, or below it; None where it holds the line."""
    if interval is None:
        return None
    low, high = interval
    line = PASS_SHARE * total
    return True if low >= line else False if high < line else None


def problem_id(item: Item) -> str:
    """`112A1` of the item `igakuqa/112A1`."""
    return item.id.rsplit("/", 1)[-1]


def written(answer: str) -> str:
    """The answer in half width and lower case, nothing trimmed, as the authors keep it before they count `points`.

    >>> written("Ａ,Ｃ")
    'a,c'
    """
    return unicodedata.normalize("NFKC", answer[: MAX_ANSWER_CHARS + 1]).lower()


def read_answer(item: Item, answer: str) -> str:
    """The tolerant reading: letters alone, after `答え:` or on the last line, in any case, width and separator.

    Of a calculation: the only number of the answer, or of its last line.
    """
    plain = written(answer)
    if item.kind == "number":
        for part in (plain, plain.strip().rsplit("\n", 1)[-1]):
            numbers = _NUMBER.findall(part)
            if len(numbers) == 1:
                return str(numbers[0])
        return ""
    return ",".join(strict_letters(plain, labels(item), tuple(option.lower() for option in item.options)))


def num_forbidden(items: Sequence[Item], answers: Mapping[str, str]) -> int:
    """How many problems were answered with a forbidden choice (kinki); a few of these fail an examinee."""
    return sum(
        any(letter in item.forbidden for letter in answers.get(problem_id(item), "").split(",")) for item in items
    )


def problem_of(problem: Item | Mapping[str, Any]) -> Problem:
    """What scoring needs of an item, or of a row of a problem file."""
    if isinstance(problem, Item):
        return Problem(problem_id(problem), problem.gold, problem.points)
    gold, worth = problem["answer"], problem.get("points")
    gold = gold.split(",") if isinstance(gold, str) else gold
    return Problem(str(problem["problem_id"]), tuple(map(str, gold)), 1 if worth in (None, "") else int(worth))
