"""Rows of the benchmark-shaped tables, and their collection without a document standing on both sides."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from rinsho.samples.passage import document_key


@dataclass(frozen=True)
class Row:
    """One question: its pool, tag, full question text, options, answer, passage and the hard cases it belongs to."""

    pool: str
    tag: str
    question: str
    options: tuple[str, ...]
    answer: str
    passage: str
    cases: tuple[str, ...] = ()


def letter(index: int) -> str:
    """The option letter of an index: 0 is A."""
    return "ABCDEFGH"[index]


def choice(  # noqa: PLR0917
    pool: str, tag: str, question: str, options: Sequence[str], answer: int, passage: str, cases: Iterable[str] = ()
) -> Row:
    """A row whose answer is an option letter."""
    return Row(pool, tag, question, tuple(options), letter(answer), passage, tuple(dict.fromkeys(cases)))


def quoted(question: str, passage: str) -> str:
    """The benchmark's form: the question on the first line, then the passage in quotation marks."""
    return f"{question}\n\u300c{passage}\u300d"


def unseen_cases(term: bool, pattern: bool) -> list[str]:
    """The names of the cases for held-out terms and patterns."""
    return ["unseen_term"] * term + ["unseen_pattern"] * pattern


class Fresh:
    """Lets every document pass once: keys of passages seen so far."""

    def __init__(self, keys: Iterable[str] = ()) -> None:
        self.keys = set(keys)

    def take(self, passage: str) -> bool:
        """True, and remembered, when the passage is new after normalisation."""
        key = document_key(passage)
        if key in self.keys:
            return False
        self.keys.add(key)
        return True


def first(rows: Iterator[Row | None], count: int) -> list[Row]:
    """The first `count` rows; None stands for a candidate that was not taken."""
    out: list[Row] = []
    if count <= 0:
        return out
    for row in rows:
        if row is not None:
            out.append(row)
            if len(out) == count:
                break
    return out
