"""Which conversations a step trains on: epochs with quotas, packed rows, steps; all a function of the seed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import floor

import numpy as np

from rinsho.chat_template import Renderer
from rinsho.finetune import Recipe
from rinsho.finetune.data import Data, Example, Group, copying
from rinsho.packing import Ints, best_fit, permutation
from rinsho.tokens import Batch, pack_examples


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
        self._packed: tuple[int, list[Ints]] | None = None  # the last epoch asked for, and its rows

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
            count = len(self._pack(len(self._ends)))
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
            parts += [self._row(self._pack(epoch)[number]) for number in numbers]
            position += len(numbers)
            count -= len(numbers)
        return Batch(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))

    def _pack(self, epoch: int) -> list[Ints]:
        """The examples of each row of an epoch, the longest of a row first."""
        if self._packed is None or self._packed[0] != epoch:
            members = np.array(self.epoch(epoch), np.int64)
            first = np.arange(len(members) + 1)
            if self.recipe.pack:
                lengths = np.array([len(self.examples[index].ids) - 1 for index in members.tolist()], np.int64)
                places, _, first = best_fit(np.arange(len(members)), lengths, self.recipe.sequence_length)
                members = members[places]
            self._packed = (epoch, [members[begin:end] for begin, end in pairwise(first.tolist())])
        return self._packed[1]

    def _row(self, members: Ints) -> Batch:
        pairs = [(self.examples[index].ids.tolist(), self.examples[index].mask.tolist()) for index in members.tolist()]
        return pack_examples(pairs, self.recipe.sequence_length, pad_id=self.pad_id).rows


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


@dataclass
class Plan:
    """Which batch belongs to which step: first the copying warm-up, then the tasks."""

    copying: Feed | None
    tasks: Feed
    copy_steps: int
    steps: int
    rows_per_step: int

    def __call__(self, step: int) -> Batch:
        """The rows of a step, counted from 0."""
        if self.copying is not None and step < self.copy_steps:
            return self.copying.batch(step * self.rows_per_step, self.rows_per_step)
        return self.tasks.batch((step - self.copy_steps) * self.rows_per_step, self.rows_per_step)


def make_plan(recipe: Recipe, data: Data, render: Renderer) -> Plan:
    """Steps and batches of the whole run."""
    per_step = recipe.batch_tokens // recipe.sequence_length
    pad_id = render.pad_id
    feed = Feed(data.examples, quotas(data.examples, recipe), recipe, pad_id)
    exercises = copying(data.texts, recipe, render)
    copy_feed = None
    if exercises:
        copy_feed = Feed(exercises, {exercises[0].group: float(len(exercises))}, recipe, pad_id)
    copy_steps = -(-copy_feed.rows(1) // per_step) if copy_feed else 0
    if recipe.max_tokens is not None:
        copy_steps = min(copy_steps, recipe.copy_tokens // recipe.batch_tokens)
        steps = max(copy_steps + 1, recipe.max_tokens // recipe.batch_tokens)
    else:
        steps = copy_steps + max(1, round(feed.rows(recipe.epochs) / per_step))
    return Plan(copy_feed, feed, copy_steps, steps, per_step)
