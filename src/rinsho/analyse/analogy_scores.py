"""A list of analogies with accepted answers, put to a model: hits, and what chance and simpler rules would hit.

A row (a, b, c, answers) asks: b is to a as what is to c? The vector b - a + c is compared with every candidate.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib import resources
from math import comb
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rinsho.analyse.analogy_space import Space, Word, added, find, neighbour, own, similarities
from rinsho.errors import UserError
from rinsho.packing import permutation
from rinsho.tasks.intervals import wilson
from rinsho.tasks.paired import holm, paired_mean

BUILT_IN = "analogies.tsv"
COLUMNS = ("a", "b", "c", "answers")
TOP = (1, 5)
SIGNS = (-1, 1, 1)  # of a, b and c
MEASURES: dict[str, Callable[[int], float]] = {
    "top1": lambda rank: float(rank <= 1),
    "top5": lambda rank: float(rank <= 5),
    "mrr": lambda rank: 1 / rank,
}
FEWEST = 10  # groups of rows that a test needs: fewer cannot tell, whatever they say
SAMPLES = 10_000  # of the test and of the interval beside it
ROWS_AT_ONCE = 128  # bounds the table of similarities


class Row(NamedTuple):
    """One analogy of a list."""

    a: str
    b: str
    c: str
    answers: tuple[str, ...]
    relation: str


@dataclass(frozen=True)
class Result:
    """What a model makes of one row.

    Attributes:
        row: the row.
        problem: why it cannot be answered with this vocabulary; empty where it can, only then the others count.
        whole: whether a, b and c are one token each.
        found: the nearest token, its cosine.
        rank: of the best accepted answer, from 1.
        rank_alone: its rank among the neighbours of c alone.
        chance: probability that a random answer is right, and that one of five different ones is.
    """

    row: Row
    problem: str = ""
    whole: bool = False
    found: str = ""
    cosine: float = 0.0
    rank: int = 0
    rank_alone: int = 0
    chance: tuple[float, ...] = ()


class Question(NamedTuple):
    """A row that can be answered: words, and places of accepted and of left out tokens among the candidates."""

    words: tuple[Word, Word, Word]
    accepted: tuple[int, ...]
    left_out: tuple[int, ...]


def is_list(path: Path) -> bool:
    """Whether a file has the columns of a test list, told by its first line."""
    return set(COLUMNS) <= set(next(csv.reader(io.StringIO(_text(path)), delimiter=_delimiter(path)), ()))


def read_list(path: Path | None = None) -> list[Row]:
    """The rows of a test list: a tab-separated (or .csv) file with the columns a, b, c, answers (by |) and relation.

    Without a path the built-in one, on Japanese medicine.

    Raises:
        UserError: a column is missing, a cell is empty, an answer is a word of the question, or there are no rows.
    """
    built_in = resources.files("rinsho.analyse").joinpath(BUILT_IN)
    text = built_in.read_text(encoding="utf-8") if path is None else _text(path)
    where = BUILT_IN if path is None else path
    reader = csv.DictReader(io.StringIO(text), delimiter="\t" if path is None else _delimiter(path))
    missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
    if missing:
        raise UserError(
            f"the column {missing[0]} is missing", where=f"{where}:1",
            expected="a line with the names a, b, c, answers and perhaps relation",
        )  # fmt: skip
    rows = [_row(cells, f"{where}:{reader.line_num}") for cells in reader]
    if not rows:
        raise UserError("no analogies in here", where=where, expected="a row for each analogy")
    return rows


def ask(where: Space, rows: Sequence[Row]) -> list[Result]:
    """Every row put to the space, in order."""
    return _results(where, rows, *_questions(where, rows))


def evaluate(
    where: Space, rows: Sequence[Row], permutations: int, seed: int
) -> tuple[list[Result], list[dict[str, Any]]]:
    """Every row's result, and a summary of all rows and of each relation, ready for JSON.

    `top1`, `top5` are shares of hits, `mrr` is the mean of 1 / rank, which tells more where hits are few. Of each there
    are `alone_…` (the neighbours of c, without a and b) and `permuted_…` (the mean under vocabularies in which each
    candidate has the vector of another one). Rows of the same c and answers are one observation, an `independent` one:
    so Wilson's 95 % intervals count them, and so does the paired comparison of b - a + c with c alone in 1 / rank:
    `difference_mrr`, its bootstrap interval, `p` (two-sided, of a permutation that changes signs; None below FEWEST
    observations) and `p_holm` (corrected for all relations; None for all rows together, which are no relation).
    """
    questions, problems = _questions(where, rows)
    results = _results(where, rows, questions, problems)
    places, asked = list(questions), list(questions.values())
    drawn = [
        _ranks(where, asked, SIGNS, permutation(len(where.candidates), f"analogies/{seed}/{number}"))[0]
        for number in range(permutations)
    ]
    permuted = np.array(drawn, dtype=np.int64).reshape(permutations, len(places))
    summaries = [_summary("all", range(len(rows)), results, places, permuted, seed)]
    for relation in dict.fromkeys(row.relation for row in rows):
        chosen = [place for place, row in enumerate(rows) if row.relation == relation]
        summaries.append(_summary(relation, chosen, results, places, permuted, seed))
    tested = [summary for summary in summaries[1:] if summary["p"] is not None]
    for summary, value in zip(tested, holm([summary["p"] for summary in tested]), strict=True):
        summary["p_holm"] = value
    return results, summaries


def _results(
    where: Space, rows: Sequence[Row], questions: dict[int, Question], problems: dict[int, str]
) -> list[Result]:
    asked = list(questions.values())
    ranks, nearest, cosines = _ranks(where, asked, SIGNS)
    alone, _, _ = _ranks(where, asked, (1,))
    results = {place: Result(rows[place], problem) for place, problem in problems.items()}
    for number, (place, question) in enumerate(questions.items()):
        results[place] = Result(
            rows[place],
            whole=all(len(word.ids) == 1 for word in question.words),
            found=neighbour(where, nearest[number], 0.0).token,
            cosine=cosines[number],
            rank=ranks[number],
            rank_alone=alone[number],
            chance=tuple(_chance(len(where.candidates), question, top) for top in TOP),
        )
    return [results[place] for place in range(len(rows))]


def _summary(  # noqa: PLR0917
    name: str, chosen: Iterable[int], results: Sequence[Result], places: Sequence[int], permuted: NDArray[np.int64],
    seed: int,
) -> dict[str, Any]:  # fmt: skip
    rows = list(chosen)
    done = [results[place] for place in rows if not results[place].problem]
    inside = set(rows)
    columns = [number for number, place in enumerate(places) if place in inside]
    # Rows with the same c and answers are no independent observations: each such group counts as one.
    of = [repr((result.row.relation, result.row.c, result.row.answers)) for result in done]
    groups = len(set(of))
    summary: dict[str, Any] = {
        "relation": name,
        "rows": len(rows),
        "answerable": len(done),
        "independent": groups,
        "whole": sum(result.whole for result in done),
    }
    ranks = {"": [result.rank for result in done], "alone_": [result.rank_alone for result in done]}
    for measure, value in MEASURES.items():
        means = {f"{kind}{measure}": _mean([value(rank) for rank in found]) for kind, found in ranks.items()}
        draws = [_mean([value(rank) for rank in row]) for row in permuted[:, columns].tolist()] if done else []
        summary |= {**means, f"permuted_{measure}": _mean(draws)}
    real, alone = ([1 / rank for rank in found] for found in ranks.values())
    paired = paired_mean(real, alone, of, SAMPLES, seed) if done else None
    summary |= {
        "difference_mrr": paired and paired.difference,
        "interval_difference_mrr": paired and paired.interval,
        "p": paired.p_value if paired and groups >= FEWEST else None,
        "p_holm": None,
    }
    for number, top in enumerate(TOP):
        share = summary[f"top{top}"]
        summary |= {
            f"interval_top{top}": wilson(share * groups, groups) if done else None,
            f"whole_top{top}": _mean([result.rank <= top for result in done if result.whole]),
            f"chance_top{top}": _mean([result.chance[number] for result in done]),
        }
    return summary


def _mean(values: Sequence[float]) -> Any:
    return sum(values) / len(values) if values else None


def _questions(where: Space, rows: Sequence[Row]) -> tuple[dict[int, Question], dict[int, str]]:
    """The rows that this vocabulary can answer, and why the others cannot be; by the row's place."""
    texts = {text for row in rows for text in (row.a, row.b, row.c, *row.answers)}
    words = {text: find(where, text) for text in sorted(texts)}
    questions, problems = {}, {}
    for number, row in enumerate(rows):
        asked = (words[row.a], words[row.b], words[row.c])
        unknown = [word.text for word in asked if word.problem]
        left_out = tuple(own(where, asked))
        answers = [words[text] for text in row.answers if len(words[text].ids) == 1 and not words[text].problem]
        accepted = {int(where.place[word.ids[0]]) for word in answers} - {-1, *left_out}
        if unknown:
            problems[number] = f"not representable: {', '.join(unknown)}"
        elif not accepted:
            problems[number] = "no accepted answer is one token"
        else:
            questions[number] = Question(asked, tuple(sorted(accepted)), left_out)
    return questions, problems


def _ranks(
    where: Space, questions: Sequence[Question], signs: Sequence[int], order: NDArray[np.int64] | None = None
) -> tuple[list[int], list[int], list[float]]:
    """Rank of the best accepted answer of each question, place and cosine of the nearest candidate.

    Args:
        where: the space.
        questions: the questions.
        signs: of the last words of each question.
        order: each candidate has the vector of the candidate at this place.
    """
    moved = np.arange(len(where.tokens))
    if order is not None:
        moved[where.candidates] = where.candidates[order]
    ranks: list[int] = []
    nearest: list[int] = []
    cosines: list[float] = []
    for begin in range(0, len(questions), ROWS_AT_ONCE):
        some = questions[begin : begin + ROWS_AT_ONCE]
        words = [question.words[-len(signs) :] for question in some]
        sums = [added(where, signs, [moved[list(word.ids)].tolist() for word in each]) for each in words]
        table = similarities(where, np.stack(sums))
        if order is not None:
            table = table[:, order]
        for row, question in zip(table, some, strict=True):
            row[list(question.left_out)] = -np.inf
            wanted = row[list(question.accepted)].max()
            nearest.append(int(row.argmax()))
            cosines.append(float(row.max()))
            row[list(question.accepted)] = -np.inf
            ranks.append(1 + int((row >= wanted).sum()))  # a tie is no hit
    return ranks, nearest, cosines


def _chance(candidates: int, question: Question, top: int) -> float:
    """Probability that `top` different random candidates hold an accepted answer."""
    open_ = candidates - len(question.left_out)
    drawn = min(top, open_)
    return 1.0 - comb(open_ - len(question.accepted), drawn) / comb(open_, drawn)


def _row(cells: dict[str, Any], where: str) -> Row:
    for name in COLUMNS:
        if not (cells.get(name) or "").strip():
            raise UserError(f"the cell {name} is empty", where=where, expected="a, b, c and answers in every row")
    a, b, c = (cells[name].strip() for name in COLUMNS[:3])
    answers = tuple(text.strip() for text in cells["answers"].split("|") if text.strip())
    if not answers or {a, b, c} & set(answers):
        raise UserError(
            "an answer is a word of the question" if answers else "no answer", where=where,
            expected="answers (separated by |) that are none of a, b and c: those are left out of the neighbours",
        )  # fmt: skip
    return Row(a, b, c, answers, (cells.get("relation") or "").strip())


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UserError("the file is not there", where=path, expected="a list of analogies") from None
    except UnicodeDecodeError:
        raise UserError("not UTF-8", where=path, expected="text in UTF-8", todo="save it as UTF-8") from None


def _delimiter(path: Path) -> str:
    return "," if path.suffix.lower() == ".csv" else "\t"
