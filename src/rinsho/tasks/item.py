"""One question of a benchmark, the same for every task, and the answer an assistant should give to it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Literal

from rinsho.overlap import key as document_key
from rinsho.tasks.prompts import Wording

__all__ = [
    "NO_ANSWER", "AnswerForm", "Item", "Kind", "Part", "Split", "TestPart", "answer_text", "choice_text",
    "document_key", "documents", "gold_letters", "labels", "legal_choices", "list_text", "passages", "rotated",
    "short_options", "unrotated_letter",
]  # fmt: skip

Kind = Literal["choice", "entities", "number"]
Part = Literal["test", "train"]
Split = Literal["row", "document", "case"]
TestPart = Literal["published", "own"]
AnswerForm = Literal["letter", "text_letter"]

_PAIR = re.compile(r"S1:[^\n]*\nS2:[^\n]*\Z")  # how a task of one's own puts two sentences
OR = " or "  # between gold letters of which either is right (112B30)

NO_ANSWER = "None"  # the benchmark's own word for "no letter found"; a further class in its kappa


@dataclass(frozen=True, slots=True)
class Item:
    """One question with its gold answer.

    Attributes:
        id: `smdis/00012` (row of the test file), `all/SMDIS/00012` (row of the pool), `own/all/SMDIS/00012` (row of
            the pool in a test part of one's own), `igakuqa/112A1`, `usmle/step1/00012` (line of step1.jsonl),
            `triage/00012` and `all/triage/00012` (rows of a task described in YAML).
        task: name of the test task (`smdis`, `igakuqa`, `usmle`, or the name that its YAML file gives it); pool rows
            carry the name of the test task they train.
        kind: `choice` (one or more letters), `entities` (a list of strings), `number` (a string of digits).
        tag: sub-task inside the task (`fever`, `d`, `m-key`, ...); empty where there is none.
        wording: the words around the question (`system` and `prompt` are what the model is asked, word for word).
        question: the question cell alone, without the options.
        options: option texts in order; letters follow from the position (see `labels`).
        gold: letters for `choice`, entity strings for `entities`, the digits for `number`.
        passage: the text that is judged (between 「 and 」, the sentence pair, or the whole question).
        document: hash of the passage in NFKC without white space (`rinsho.overlap.key`), or of the name of the
            document it is from, where a task of one's own names it.
        cases: names of the hard cases this question belongs to.
        points: what a right answer is worth (IgakuQA), otherwise 1.
        year: year of the examination (IgakuQA), otherwise None.
        figure: the printed question shows a figure that is not in the data (IgakuQA).
        forbidden: letters whose choice is forbidden, kinki (IgakuQA).
        ordered: the options are the steps of a scale; kappa is weighted linearly.
    """

    id: str
    task: str
    kind: Kind
    tag: str
    wording: Wording
    question: str
    options: tuple[str, ...]
    gold: tuple[str, ...]
    passage: str
    document: str
    cases: tuple[str, ...] = ()
    points: int = 1
    year: int | None = None
    figure: bool = False
    forbidden: tuple[str, ...] = ()
    ordered: bool = False

    @property
    def system(self) -> str:
        """The system turn."""
        return self.wording.system

    @property
    def prompt(self) -> str:
        """The user turn."""
        return self.wording.user(self.question, self.options, len(self.gold))


def labels(item: Item) -> tuple[str, ...]:
    """The letters of the options: A, B, ... (JMED-LLM) or a, b, ... (IgakuQA)."""
    return item.wording.letters(len(item.options))


def passages(item: Item) -> tuple[str, ...]:
    """The texts of an item that count as documents: both sentences of a pair, otherwise the passage.

    A sentence pair has no document of its own: training on one of its sentences is already a leak.
    """
    if item.task != "jcsts" and not (item.ordered and _PAIR.match(item.passage)):
        return (item.passage,)
    return tuple(line.split(":", 1)[-1].strip() for line in item.passage.split("\n") if line.strip())


def documents(item: Item) -> tuple[str, ...]:
    """The keys of `passages(item)`."""
    return tuple(document_key(text) for text in passages(item))


def short_options(item: Item) -> tuple[str, ...]:
    """The first line of each option where these differ (JCSTS and RRTNM go on with examples), else the whole texts."""
    first = tuple(option.strip().split("\n", 1)[0].strip() for option in item.options)
    return first if len(set(first)) == len(first) else tuple(option.strip() for option in item.options)


def answer_text(item: Item, form: AnswerForm = "letter") -> str:
    """The gold answer as the assistant says it: `A`, `a,c`, `['肺癌', '発熱']`, `26`.

    With `text_letter` a choice is answered with the option's text, then the letter on a line of its own; small
    models learn letters alone badly (docs/decisions.md).
    """
    if item.kind == "entities":
        return list_text(item.gold)
    if item.kind == "number":
        return item.gold[0]
    return choice_text(item, gold_letters(item), form)


def choice_text(item: Item, letters: Iterable[str], form: AnswerForm) -> str:
    """The answer that chooses these letters, in the given form."""
    chosen = sorted(letters)
    if form == "letter":
        return ",".join(chosen)
    texts = dict(zip(labels(item), short_options(item), strict=True))
    return "\n".join([*(texts[letter] for letter in chosen), ",".join(chosen)])


def gold_letters(item: Item) -> tuple[str, ...]:
    """The gold letters; of "a or d" (112B30, either is right) the first."""
    return tuple(gold.split(OR)[0] for gold in item.gold)


def legal_choices(item: Item) -> list[tuple[str, ...]]:
    """All answers a choice item allows: every single letter, or every set of as many letters as are asked for."""
    return list(combinations(labels(item), len(item.gold)))


def rotated(item: Item, rotation: int) -> Item:
    """The same question with its options rolled: printed position p shows the original option (p + rotation) % n.

    Gold and forbidden letters follow their options; the id stays. Lists, numbers and whole rolls stay as they are.

    Source: N3-2 (robustness to the order of the options).
    """
    number = len(item.options)
    if item.kind != "choice" or not number or rotation % number == 0:
        return item
    shift = rotation % number
    return replace(
        item,
        options=item.options[shift:] + item.options[:shift],
        gold=tuple(OR.join(_moved(item, part, -shift) for part in gold.split(OR)) for gold in item.gold),
        forbidden=tuple(_moved(item, letter, -shift) for letter in item.forbidden),
    )


def unrotated_letter(item: Item, letter: str, rotation: int) -> str:
    """The letter of the original question for one said about the question that `rotated(item, rotation)` printed.

    What is no letter of the question ("None", for instance) stays as it is.
    """
    return _moved(item, letter, rotation) if item.kind == "choice" else letter


def _moved(item: Item, letter: str, steps: int) -> str:
    legal = labels(item)
    return legal[(legal.index(letter) + steps) % len(legal)] if letter in legal else letter


def list_text(entities: Iterable[str]) -> str:
    r"""A Python list literal of strings that only escapes what has to be escaped.

    >>> list_text(["肺癌", "it's"])
    "['肺癌', 'it\\'s']"
    """
    quoted = (entity.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n") for entity in entities)
    return "[" + ", ".join(f"'{text}'" for text in quoted) + "]"
