"""The score of a model on the rows held out of its training: what chooses the best step and ends tuning early."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeVar

import torch

from rinsho.device import in_bfloat16
from rinsho.errors import UserError
from rinsho.finetune import Recipe
from rinsho.finetune.data import conversation
from rinsho.finetune.memory import rows_at_once
from rinsho.finetune.models import Loaded, loss
from rinsho.generate.batches import by_length, shorten
from rinsho.generate.engine import Generator
from rinsho.instructions import Conversation
from rinsho.packing import number_of
from rinsho.tasks import Item
from rinsho.tasks.asking import Asking
from rinsho.tasks.intervals import chance_level
from rinsho.tasks.item import legal_choices
from rinsho.tasks.score import exact_f1, kappa, own_spelling
from rinsho.tokens import pad_examples

Row = TypeVar("Row", Item, Conversation)


@dataclass(frozen=True)
class Score:
    """How good a model is on the validation part.

    Attributes:
        value: mean over the tasks' scores; higher is better. Where there are tasks, instructions do not count in it.
            Where there are none, minus the mean over the instruction files' losses.
        by_task: task or instruction file -> `metric` (kappa, linear_kappa, accuracy, exact_f1; loss in nats a learned
            token), `score`, `n` (rows) and, but for losses, `chance`.
    """

    value: float
    by_task: dict[str, dict[str, Any]]


class Verdict(NamedTuple):
    """What the latest score means: it is `best` of all so far, and it is time to `stop`."""

    best: bool
    stop: bool


def verdict(values: Sequence[float], patience: int | None) -> Verdict:
    """Judges the last of the scores; of equal ones the first is the best. No patience means no stop.

    >>> verdict([0.2, 0.5, 0.5], patience=1), verdict([0.2, 0.5, 0.5], patience=2)
    (Verdict(best=False, stop=True), Verdict(best=False, stop=False))
    """
    if not values:
        return Verdict(False, False)
    known = [-math.inf if math.isnan(value) else value for value in values]
    since = len(known) - 1 - known.index(max(known))
    return Verdict(since == 0, patience is not None and since >= patience)


class Validation:
    """Held-out rows, ready to be asked again and again: at most `validation_rows_per_task` of a task or file.

    Questions are asked as `rinsho evaluate` asks them in its constrained mode, with the same prompts, legal answers,
    limits and readings. Calculations have no legal answers and are left out. The loss of instructions is that of the
    assistant's tokens, also with `learn: all`, in a row of `sequence_length`. Rows are drawn by `split_seed`, so that
    tunings with several seeds answer the same ones.

    Raises:
        UserError: nothing that was held out can be asked.
    """

    def __init__(
        self, loaded: Loaded, items: Sequence[Item], conversations: Sequence[Conversation], recipe: Recipe
    ) -> None:
        self.recipe, self.device, self.pad_id = recipe, loaded.model.device, loaded.render.pad_id
        self.generator = Generator.of(loaded.model, loaded.tokenizer, "the model to tune")
        self.generator.window = loaded.window
        self.generator.max_rows = min(self.generator.max_rows, rows_at_once(recipe))
        self.asking = Asking(self.generator, recipe.answer_form, prompt_form=recipe.prompt_form)
        asked = [item for item in items if item.kind != "number"]
        self.tasks = self._drawn((item.task, item) for item in asked)
        self.prompts = {item.id: self._prompt(item) for group in self.tasks.values() for item in group}
        self.options = {
            item.id: self.asking.options(item)
            for group in self.tasks.values()
            for item in group
            if item.kind == "choice"
        }
        size = min(recipe.sequence_length, loaded.window)
        self.talks: dict[str, list[tuple[list[int], list[int]]]] = {}
        for source, rows in self._drawn((row.source, row) for row in conversations).items():
            made = [conversation(row.messages[:-1], row.messages[-1].content, loaded.render, size) for row in rows]
            if any(made):
                self.talks[source] = [found[:2] for found in made if found is not None]
        if not self.tasks and not self.talks:
            raise UserError(
                "nothing that was held out can be asked", where="finetune.validation_fraction",
                expected="questions with legal answers, or answers that fit into a row",
                todo="raise it, or take more data or validation_fraction 0",
            )  # fmt: skip

    def score(self, model: Any) -> Score:
        """The score of the model as it stands.

        The same weights give the same score, whatever was done before. The training mode is afterwards what it was; no
        random number is drawn and no gradient is made.
        """
        with self._looking_at(model):
            tasks = {task: self._score(group) for task, group in self.tasks.items()}
            talks = {f"instructions/{source}": self._loss(model, rows) for source, rows in self.talks.items()}
        scores = [row["score"] for row in tasks.values()] or [-row["score"] for row in talks.values()]
        return Score(sum(scores) / len(scores), tasks | talks)

    @contextmanager
    def _looking_at(self, model: Any) -> Iterator[None]:
        was_training = model.training
        self.generator.model = model.eval()
        try:
            low_precision = in_bfloat16(self.recipe.dtype, self.device)
            with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=low_precision):
                yield
        finally:
            model.train(was_training)

    def _score(self, items: Sequence[Item]) -> dict[str, Any]:
        prompts = [self.prompts[item.id] for item in items]
        if items[0].kind == "entities":
            room = max(map(self.asking.new_tokens, items))
            found = self.generator.spans(prompts, list(map(self.asking.passage, items)), room)
            values = [
                exact_f1(item.gold, own_spelling(item.passage, spans)) for item, spans in zip(items, found, strict=True)
            ]
            return _row("exact_f1", sum(values) / len(values), len(items), 0.0)
        sums = self.generator.choose(prompts, [self.options[item.id] for item in items])
        given = [legal_choices(item)[row.index(max(row))] for item, row in zip(items, sums, strict=True)]
        gold = [item.gold[0] for item in items]
        if items[0].task == "igakuqa" or len(set(gold)) == 1:  # one class only: no kappa is defined for a right model
            right = sum(map(_is_right, items, given))
            return _row("accuracy", right / len(items), len(items), chance_level(items)[0])
        weights: Literal["linear"] | None = "linear" if items[0].ordered else None
        score = kappa(gold, [letters[0] for letters in given], weights)
        return _row("linear_kappa" if weights else "kappa", score, len(items), 0.0)

    @torch.no_grad()
    def _loss(self, model: Any, rows: Sequence[tuple[list[int], list[int]]]) -> dict[str, Any]:
        total, learned = 0.0, 0
        most, lengths = rows_at_once(self.recipe), [len(ids) - 1 for ids, _ in rows]
        for group in by_length(lengths, most, most * self.recipe.sequence_length):
            batch = pad_examples([rows[number] for number in group], pad_id=self.pad_id)
            total += float(loss(model, *(torch.from_numpy(array).to(self.device) for array in batch)))
            learned += batch.targets
        return {"metric": "loss", "score": total / learned, "n": len(rows)}

    def _prompt(self, item: Item) -> list[int]:
        return shorten(self.asking.prompt(item), self.asking.prompt_room(item))

    def _drawn(self, rows: Iterable[tuple[str, Row]]) -> dict[str, list[Row]]:
        groups: dict[str, list[Row]] = {}
        for name, row in rows:
            groups.setdefault(name, []).append(row)
        seed, most = self.recipe.split_seed, self.recipe.validation_rows_per_task
        return {
            name: sorted(group, key=lambda row: number_of(f"{seed}:validation:{row.id}"))[:most]
            for name, group in sorted(groups.items())
        }


def _row(metric: str, score: float, n: int, chance: float) -> dict[str, Any]:
    return {"metric": metric, "score": score, "n": n, "chance": chance}


def _is_right(item: Item, letters: Sequence[str]) -> bool:
    """All gold letters and no other; of "a or d" (112B30) either."""
    either = item.gold[0].split(" or ") if len(item.gold) == 1 else ()
    return letters[0] in either or sorted(letters) == sorted(item.gold)
