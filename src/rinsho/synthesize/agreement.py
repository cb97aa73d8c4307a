"""Whether other teachers give the answer that an exercise's author says is right: who is asked, how answers are read.

An exercise whose marked answer nobody else finds is wrong, unclear or very hard. Agreement is no proof: teachers share
their errors. So it stands beside what two would agree on by chance.

Source: SPEC N2.1-6; Cohen 1960.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rinsho.packing import number_of
from rinsho.synthesize.calls import ANSWER, Call
from rinsho.synthesize.exercise_answers import core, cores, read_answer
from rinsho.synthesize.exercise_lines import said_answer
from rinsho.synthesize.plan import call_seed
from rinsho.synthesize.trust import tidy
from rinsho.tasks.intervals import wilson

if TYPE_CHECKING:
    from rinsho.synthesize import Recipe
    from rinsho.synthesize.exercises import Exercise
    from rinsho.synthesize.prompts import Prompts

Letters = tuple[str, ...]
_DENIED = re.compile("誤|違|不適|×|ない|なく|以外")


@dataclass(frozen=True, slots=True)
class Written:
    """An exercise that was kept so far; `id` is its call's, `teacher` its author."""

    id: str
    teacher: str
    exercise: Exercise


def answer_calls(written: Iterable[Written], recipe: Recipe, prompts: Prompts) -> Iterator[Call]:
    """The calls that ask `recipe.agreement` times for the answer of each exercise, exercise by exercise.

    Others than the author are asked, in an order drawn by seed and exercise. Where there are fewer of them than wanted
    they are asked again with another seed (those of temperature 0 once, as they would say the same). A recipe with one
    teacher asks the author itself, which shows no more than whether it says the same twice.

    Source: SPEC N2.1-6.
    """
    for one in written:
        exercise = one.exercise
        shown = "\n".join(f"{label}. {option}" for label, option in exercise.options.items())
        messages, prompt = prompts.messages(
            ANSWER, question=exercise.question, options=shown, count=str(len(exercise.answer))
        )
        for teacher, sample in answerers(recipe, one.id, one.teacher):
            seed = call_seed(recipe.seed, f"{ANSWER}/{one.id}/{teacher}/{sample}")
            about = {"exercise": one.id, "author": one.teacher}
            yield Call(ANSWER, one.id, teacher, sample, messages, prompt, seed, about)


def answerers(recipe: Recipe, exercise: str, author: str) -> list[tuple[str, int]]:
    """(teacher, sample) of everyone who is asked about an exercise, at most `recipe.agreement`."""
    names = [name for name in recipe.teachers if name != author] or list(recipe.teachers)
    names.sort(key=lambda name: (number_of(f"{recipe.seed}/{ANSWER}/{exercise}/{name}"), name))
    again = [name for name in names if recipe.teachers[name].temperature > 0]
    asked = [(name, 0) for name in names]
    for sample in range(1, recipe.agreement if again else 1):
        asked += [(name, sample) for name in again]
    return asked[: recipe.agreement]


def letters(text: str, options: Mapping[str, str], asked: int = 1) -> Letters | None:
    r"""The labels that an answer names, in the order of the options; None when it cannot be told for certain.

    It is read as exercises are (`exercise_lines`, `exercise_answers`): labels alone (`c`, `（ｃ）`, `a, c`, `ac`), a
    label with that option's own text, or an option's text, behind a heading (`正解:`, `【正解】`, `答えは`) or in the
    first line. Lines that name different options are read where these are as many as are `asked` for; a label in prose
    is not.

    >>> options = {"a": "肺炎", "b": "喘息", "c": "気胸"}
    >>> letters("正解：Ｃ", options), letters("a、c", options), letters("**b. 喘息**", options)
    (('c',), ('a', 'c'), ('b',))
    >>> letters("正解: a\n正解: b", options), letters("aではなくbと考える。", options), letters("d", options)
    (None, None, None)
    """
    known = {label.lower(): text for label, text in cores(options).items()}
    headed, lines = said_answer(tidy(text))
    named = [read_answer([line], known, asked) for line in lines]
    if headed:
        named = [found for found in named if found != "no_answer"]
    elif named:
        rest = [found for found in named[1:] if not isinstance(found, str)]  # lines of prose say nothing
        denied = any(_denied(line, found, known) for line, found in zip(lines, named, strict=True))
        named = [] if denied else [named[0], *rest]
    chosen = {label for found in named for label in found if not isinstance(found, str)}
    if not chosen or any(isinstance(found, str) for found in named):
        return None
    whole = tuple(label for label in known if label in chosen)
    certain = len(whole) == asked or all(found == whole for found in named)
    return tuple(label for label in options if label.lower() in chosen) if certain else None


def agreed(exercise: Exercise, answers: Sequence[str]) -> float | None:
    """The share of the answers that name exactly the exercise's answer; those that cannot be read do not count.

    None where no answer can be read: nobody confirmed the exercise, and nobody contradicted it. `answers` are texts; a
    request that failed is left out by the caller.
    """
    asked = len(exercise.answer)
    read = [found for text in answers if (found := letters(text, exercise.options, asked)) is not None]
    right = _in_order(exercise.answer, exercise.options)
    return sum(found == right for found in read) / len(read) if read else None


@dataclass
class Agreement:
    """How often teachers agree, pair by pair; filled with `add` and told by `numbers`.

    Attributes:
        pairs: (author, who answered) -> how often (the author's letters, the other's, options) came.
        unreadable: teacher -> answers that could not be read.
    """

    pairs: dict[tuple[str, str], Counter[tuple[str, str, int]]] = field(default_factory=dict)
    unreadable: Counter[str] = field(default_factory=Counter)

    def add(self, written: Written, teacher: str, text: str) -> None:
        """Counts one answer of a teacher to an exercise."""
        exercise = written.exercise
        found = letters(text, exercise.options, len(exercise.answer))
        if found is None:
            self.unreadable[teacher] += 1
            return
        right = _in_order(exercise.answer, exercise.options)
        row = _places(right, exercise.options), _places(found, exercise.options), len(exercise.options)
        self.pairs.setdefault((written.teacher, teacher), Counter())[row] += 1

    def numbers(self) -> dict[str, Any]:
        """For report.json: a row a pair and one for all of them.

        `agreed` is a share with its 95 % interval (Wilson), `guessing` what equally likely letters would
        reach, `chance` what two with these habits (which letters they like) would reach, `kappa` Cohen's (agreed -
        chance) / (1 - chance); null where one letter is all that came.
        """
        rows = [
            {"author": author, "teacher": teacher, "itself": author == teacher, **_figures(counts)}
            for (author, teacher), counts in sorted(self.pairs.items())
        ]
        total: Counter[tuple[str, str, int]] = sum(self.pairs.values(), Counter())
        return {"pairs": rows, "all": _figures(total), "unreadable": dict(sorted(self.unreadable.items()))}


def _denied(line: str, found: Letters | str, known: Mapping[str, str]) -> bool:
    """Whether a line names labels and says something against them: `a. 肺炎は誤り`."""
    rest = core(line)
    for label in found if not isinstance(found, str) else ():
        rest = rest.replace(known[label], "", 1)
    return not isinstance(found, str) and _DENIED.search(rest) is not None


def _in_order(answer: Iterable[str], options: Mapping[str, str]) -> Letters:
    chosen = set(answer)
    return tuple(label for label in options if label in chosen)


def _places(chosen: Letters, options: Mapping[str, str]) -> str:
    """Labels by their places, so that a-e and 1-5 count as one: `0`, `0,2`."""
    return ",".join(str(place) for place, label in enumerate(options) if label in chosen)


def _figures(counts: Counter[tuple[str, str, int]]) -> dict[str, Any]:
    total = counts.total()
    if not total:
        return {"answers": 0}
    same = sum(count for (one, other, _), count in counts.items() if one == other)
    guessing = sum(count / math.comb(size, one.count(",") + 1) for (one, _, size), count in counts.items()) / total
    ones, others = Counter[str](), Counter[str]()
    for (one, other, _), count in counts.items():
        ones[one] += count
        others[other] += count
    chance = sum(ones[name] * others[name] for name in ones) / total**2
    low, high = wilson(same, total) or (0.0, 1.0)
    return {
        "answers": total,
        "agreed": round(same / total, 4),
        "interval": [round(low, 4), round(high, 4)],
        "guessing": round(guessing, 4),
        "chance": round(chance, 4),
        "kappa": round((same / total - chance) / (1 - chance), 4) if chance < 1 else None,
    }
