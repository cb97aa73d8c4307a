"""Task items -> conversations as ids -> packed rows, in an order that the seed alone decides."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import floor
from pathlib import Path
from typing import Any

import numpy as np

from rinsho.chat import Message, render
from rinsho.errors import UserError
from rinsho.finetune import Recipe
from rinsho.generate.batches import shorten
from rinsho.packing import Ints, best_fit, permutation
from rinsho.tasks import Item, answer_text, documents, passages, read_train
from rinsho.tasks.asking import turns
from rinsho.tasks.item import list_text
from rinsho.tokens import Batch, Examples, pack_examples

Group = tuple[str, str, str]  # task, tag, answer

COPY_QUESTION = "次の文章の【】で囲まれた部分をすべて書き写してください。\n「{passage}」"
COPY_SPANS = 3  # marked in one passage, at most
COPY_CHARACTERS = (2, 12)  # length of a marked span
COPY_PASSAGE_CHARACTERS = 200  # longer passages are copied from in pieces


@dataclass(frozen=True)
class Example:
    """One conversation, ready to train on.

    Attributes:
        ids, mask: `(tokens,) int32` and `(tokens,) int8`; the mask is 1 where a token is learned.
        group: rows of one group stand for each other when answers are balanced.
    """

    ids: Ints
    mask: Ints
    group: Group


@dataclass(frozen=True)
class Data:
    """All training examples and where they came from."""

    examples: list[Example]
    documents: list[str]  # hashes of every passage trained on, sorted
    splits: list[dict[str, Any]]
    shortened: int  # conversations whose question lost its middle
    left_out: int  # conversations whose answer alone is longer than a row
    texts: list[str]  # passages, for the copying warm-up


def read(recipe: Recipe, folders: Sequence[Path], tokenizer: Any) -> Data:
    """The training part of the data folders as conversations.

    Raises:
        UserError: nothing to train on is left, or a file in the folders is wrong.
    """
    items, splits = read_train(folders, recipe.split, recipe.tasks, recipe.igakuqa_years)
    items = [item for item in items if recipe.task_weights.get(item.task, 1.0) > 0]
    examples: list[Example] = []
    kept: list[Item] = []
    shortened = 0
    for item in items:
        example, cut = _example(item, recipe, tokenizer)
        shortened += cut
        if example is not None:
            examples.append(example)
            kept.append(item)
    if not examples:
        raise UserError(
            "no conversation to train on",
            where=", ".join(map(str, folders)),
            expected="training rows",
            todo="check tasks, split, task_weights and sequence_length",
        )
    texts = {text: None for item in kept for text in passages(item)}
    keys = sorted({key for item in kept for key in (item.document, *documents(item))})
    return Data(examples, keys, splits, shortened, len(items) - len(kept), list(texts))


def conversation(
    before: Sequence[Message], answer: str, tokenizer: Any, sequence_length: int
) -> tuple[list[int], list[int], bool] | None:
    """Ids and loss mask of a question with its answer, and whether the question was shortened to fit.

    None when the answer alone does not fit into a row.
    """
    ids, mask = render([*before, Message("assistant", answer)], tokenizer)
    start = mask.index(1)
    room = sequence_length + 1 - (len(ids) - start)  # a row predicts one token fewer than a conversation has
    if room < 2:
        return None
    question = shorten(ids[:start], room)
    return [*question, *ids[start:]], [0] * len(question) + mask[start:], len(question) < start


def copying(texts: Sequence[str], recipe: Recipe, tokenizer: Any) -> list[Example]:
    """Exercises that ask to copy marked spans of real passages, enough of them for `copy_tokens`.

    Extraction is copying: models that could copy learned it, others did not (docs/decisions.md).
    """
    found: list[Example] = []
    tokens = 0
    for number in range(recipe.copy_tokens):  # each gives tokens, or none when a row is too short for its answer
        if tokens >= recipe.copy_tokens:
            break
        draw = random.Random(f"{recipe.seed}:copy:{number}")
        made = conversation(*_exercise(draw.choice(texts), draw), tokenizer, recipe.sequence_length)
        if made is not None:
            ids, mask, _ = made
            found.append(Example(np.array(ids, np.int32), np.array(mask, np.int8), ("copy", "", "")))
            tokens += len(ids)
    return found


class Feed:
    """Packed rows without end: epoch after epoch, each in an order of its own.

    In an epoch every group has its quota of rows; its rows come in turn, so that over epochs all of them are seen.
    A batch is a function of its position alone, so the place of training is one number.
    """

    def __init__(self, examples: Sequence[Example], quotas: dict[Group, float], recipe: Recipe, pad_id: int) -> None:
        self.examples, self.quotas, self.recipe, self.pad_id = list(examples), quotas, recipe, pad_id
        self._members: dict[Group, list[int]] = {}
        for index, example in enumerate(examples):
            self._members.setdefault(example.group, []).append(index)
        self._ends: list[int] = []  # rows up to the end of each epoch looked at so far
        self._packed: tuple[int, Examples] | None = None

    def epoch(self, number: int) -> list[int]:
        """Indices of the examples of an epoch."""
        chosen: list[int] = []
        for group, members in self._members.items():
            first, last = floor(number * self.quotas[group]), floor((number + 1) * self.quotas[group])
            for turn in range(first // len(members), -(-last // len(members))):
                order = permutation(len(members), f"{self.recipe.seed}:{group}:{turn}")
                begin, end = first - turn * len(members), last - turn * len(members)
                chosen += [members[at] for at in order[max(0, begin) : end]]
        return chosen

    def rows(self, epochs: int) -> int:
        """Number of rows in so many epochs."""
        while len(self._ends) < epochs:
            lengths = np.array([len(self.examples[index].ids) - 1 for index in self.epoch(len(self._ends))], np.int64)
            size = self.recipe.sequence_length
            count = len(best_fit(lengths, lengths, size)[2]) - 1 if self.recipe.pack else len(lengths)
            self._ends.append((self._ends[-1] if self._ends else 0) + count)
        return self._ends[epochs - 1] if epochs else 0

    def batch(self, position: int, count: int) -> Batch:
        """The `count` rows after `position` rows."""
        parts = []
        while count:
            epoch = 0
            while self.rows(epoch + 1) <= position:
                epoch += 1
            at = position - self.rows(epoch)
            order = permutation(self.rows(epoch + 1) - self.rows(epoch), f"{self.recipe.seed}:finetune rows:{epoch}")
            numbers = order[at : at + count]
            parts.append(self._pack(epoch).batch(numbers))
            position += len(numbers)
            count -= len(numbers)
        return Batch(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))

    def _pack(self, epoch: int) -> Examples:
        if self._packed is None or self._packed[0] != epoch:
            chosen = [self.examples[index] for index in self.epoch(epoch)]
            pairs = [(example.ids.tolist(), example.mask.tolist()) for example in chosen]
            size = self.recipe.sequence_length
            if self.recipe.pack:
                packed = pack_examples(pairs, size, pad_id=self.pad_id)
            else:
                single = [pack_examples([pair], size, pad_id=self.pad_id).rows for pair in pairs]
                packed = Examples(Batch(*(np.concatenate(arrays) for arrays in zip(*single, strict=True))), 0)
            self._packed = (epoch, packed)
        return self._packed[1]


def quotas(examples: Sequence[Example], recipe: Recipe) -> dict[Group, float]:
    """Rows of each group in one epoch: the task's rows (capped, weighted), its tags as they come, answers balanced."""
    groups = Counter(example.group for example in examples)
    tasks = Counter(example.group[0] for example in examples)
    tags = Counter(example.group[:2] for example in examples)
    shares = {group: count ** (1 - recipe.class_balance) for group, count in groups.items()}
    sums: dict[tuple[str, str], float] = {}
    for group, part in shares.items():
        sums[group[:2]] = sums.get(group[:2], 0.0) + part
    result = {}
    for group, part in shares.items():
        cap = min(tasks[group[0]], recipe.max_rows_per_task or tasks[group[0]])
        rows = cap * recipe.task_weights.get(group[0], 1.0)
        result[group] = rows * tags[group[:2]] / tasks[group[0]] * part / sums[group[:2]]
    return result


def _example(item: Item, recipe: Recipe, tokenizer: Any) -> tuple[Example | None, bool]:
    answer = answer_text(item, recipe.answer_form)
    made = conversation(turns(item, recipe.prompt_form), answer, tokenizer, recipe.sequence_length)
    if made is None:
        return None, False
    ids, mask, cut = made
    group = (item.task, item.tag, ",".join(item.gold) if item.kind == "choice" else "")
    return Example(np.array(ids, np.int32), np.array(mask, np.int8), group), cut


def _exercise(text: str, draw: random.Random) -> tuple[list[Message], str]:
    """A passage with marked spans, and those spans as the answer."""
    start = draw.randrange(max(1, len(text) - COPY_PASSAGE_CHARACTERS + 1))
    text = text[start : start + COPY_PASSAGE_CHARACTERS]
    spans: list[tuple[int, int]] = []
    for _ in range(draw.randint(1, COPY_SPANS)):
        length = min(draw.randint(*COPY_CHARACTERS), len(text))
        at = draw.randrange(len(text) - length + 1)
        free = all(at >= end or at + length <= begin for begin, end in spans)
        if length and free and "\n" not in text[at : at + length]:
            spans.append((at, at + length))
    marked, last = "", 0
    for begin, end in sorted(spans):
        marked += f"{text[last:begin]}【{text[begin:end]}】"
        last = end
    passage = marked + text[last:]
    return [Message("user", COPY_QUESTION.format(passage=passage))], list_text(text[a:b] for a, b in sorted(spans))
