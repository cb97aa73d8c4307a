"""Direct preference optimisation (DPO): pairs of a better and a worse answer, their batches, and the loss on them.

The loop is that of tuning (why not TRL's DPOTrainer: docs/decisions.md; the tests hold it against that one). What is
here takes the place of the cross-entropy.

Source: arXiv 2305.18290, equation 7.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rinsho.chat import Message
from rinsho.chat_template import Renderer
from rinsho.device import in_bfloat16
from rinsho.errors import UserError
from rinsho.files import write_atomic
from rinsho.finetune import Recipe
from rinsho.finetune.data import Learned, document_keys, sources_of
from rinsho.finetune.loop import Done, filled
from rinsho.finetune.memory import rows_at_once
from rinsho.generate.batches import by_length, shorten
from rinsho.instructions import Pair, read_pairs
from rinsho.packing import Ints, permutation
from rinsho.run import Stage
from rinsho.tokens import IGNORED, Batch, pad_examples

Row = tuple[Ints, int]  # ids of a conversation, and where in them its last answer begins

REFERENCE = "reference.safetensors"
SAVE_EVERY_BATCHES = 20  # of reference log-probabilities


class Preferences:
    """The objective of DPO. Made before the first step: it computes what the starting model says of all answers."""

    def __init__(self, recipe: Recipe, model: Any, feed: PairFeed, stage: Stage) -> None:
        self.recipe, self.model, self.feed = recipe, model, feed
        self.low_precision = in_bfloat16(recipe.dtype, next(model.parameters()).device)
        self.reference = reference_logps(model, feed, stage.partial / REFERENCE, stage, self.low_precision)

    def backward(self, step: int) -> Done:
        """The gradient of the mean loss of a step's pairs, in parts of `micro_batch_rows`."""
        batch, recipe = self.feed.batch(step), self.recipe
        loss, figures = dpo_step(
            self.model, batch, self.reference, recipe.dpo_beta, recipe.micro_batch_rows, self.low_precision
        )
        return Done(loss, filled(batch.rows), batch.rows.targets, figures)


@dataclass(frozen=True)
class PairBatch:
    """Some pairs, ready to compute.

    Attributes:
        rows: the n conversations with the chosen answers, then the n with the rejected ones, one in a row. Padding is
            on the right, where causal attention hides it from the conversation; labels are the last answer's alone.
        numbers: (n,) place of each pair in its feed.
    """

    rows: Batch
    numbers: Ints

    def __len__(self) -> int:
        return len(self.numbers)

    def part(self, start: int, stop: int) -> PairBatch:
        """Some of the pairs, each with both of its rows."""
        places = np.arange(len(self))[start:stop]
        both = np.concatenate([places, places + len(self)])
        return PairBatch(Batch(*(array[both] for array in self.rows)), self.numbers[start:stop])


class PairFeed:
    """Batches of pairs without end, epoch after epoch; a batch is a function of its step alone.

    Attributes:
        pairs: (chosen, rejected) rows of every pair.
        steps: steps of the whole tuning.
        shortened: how many prompts lost their middle.
        left_out: ids of the pairs that are too long.
        documents: hashes of the users' turns, sorted.
        sources: what the pairs are from (`rinsho.finetune.data.sources_of`).
    """

    def __init__(
        self, recipe: Recipe, pairs: Sequence[tuple[Row, Row]], pad_id: int,
        *, shortened: int = 0, left_out: Sequence[str] = (), documents: Sequence[str] = (),
        sources: Sequence[dict[str, Any]] = (),
    ) -> None:  # fmt: skip
        self.recipe, self.pairs, self.pad_id = recipe, list(pairs), pad_id
        self.shortened, self.left_out, self.documents = shortened, list(left_out), list(documents)
        self.sources = list(sources)
        self.pairs_per_step = max(1, recipe.batch_tokens // (2 * recipe.sequence_length))
        if recipe.max_tokens is not None:
            self.steps = max(1, recipe.max_tokens // (2 * self.pairs_per_step * recipe.sequence_length))
        else:
            self.steps = max(1, round(len(self.pairs) * recipe.epochs / self.pairs_per_step))
        self._order: tuple[int, Ints] = (-1, np.empty(0, np.int64))

    def __len__(self) -> int:
        return len(self.pairs)

    def batch(self, step: int) -> PairBatch:
        """The pairs of a step, counted from 0."""
        first = step * self.pairs_per_step
        return self.take([self._number(position) for position in range(first, first + self.pairs_per_step)])

    def take(self, numbers: Sequence[int]) -> PairBatch:
        """The pairs of these numbers, padded to the longest of them."""
        rows = [self.pairs[number][side] for side in (0, 1) for number in numbers]
        masked = [(ids.tolist(), [0] * start + [1] * (len(ids) - start)) for ids, start in rows]
        return PairBatch(pad_examples(masked, pad_id=self.pad_id), np.array(numbers, np.int64))

    @cached_property
    def digest(self) -> str:
        """A hash of all pairs, as ids."""
        found = hashlib.blake2b(digest_size=16)
        for ids, start in (row for pair in self.pairs for row in pair):
            found.update(f"{len(ids)} {start} ".encode() + ids.tobytes())
        return found.hexdigest()

    def _number(self, position: int) -> int:
        epoch, at = divmod(position, len(self.pairs))
        if self._order[0] != epoch:
            self._order = epoch, permutation(len(self.pairs), f"{self.recipe.seed}:pairs:{epoch}")
        return int(self._order[1][at])


def read_feed(recipe: Recipe, files: Sequence[Path], render: Renderer) -> PairFeed:
    """The pairs of these files as conversations in ids.

    Raises:
        UserError: a file is wrong, a pair is too long where `too_long` is `refuse`, or no pair is left.
    """
    return make_feed(recipe, [pair for file in files for pair in read_pairs(file)], render)


def make_feed(recipe: Recipe, pairs: Sequence[Pair], render: Renderer) -> PairFeed:
    """The pairs as conversations in ids, both prompts of a pair cut alike.

    A prompt that leaves too little room for the longer answer is treated as `too_long` says; where that answer alone
    fills a row, the pair is left out.

    Raises:
        UserError: a pair is too long and `too_long` is `refuse`, or no pair is left.
    """
    kept: list[tuple[Row, Row]] = []
    learned: list[Learned] = []
    left_out: list[str] = []
    documents: set[str] = set()
    shortened = 0
    for pair in pairs:
        rows = [_row([*pair.messages, Message("assistant", answer)], render) for answer in (pair.chosen, pair.rejected)]
        longest = max(len(ids) for ids, _ in rows)
        room = recipe.sequence_length + 1 - max(len(ids) - start for ids, start in rows)  # a row predicts one fewer
        too_long = longest > recipe.sequence_length + 1
        if too_long and recipe.too_long == "refuse":
            raise UserError(
                f"pair {pair.id} has {longest} tokens", where=pair.source,
                expected=f"at most {recipe.sequence_length + 1}",
                todo="take a longer sequence_length, or too_long: shorten or leave_out",
            )  # fmt: skip
        if room < 2 or (too_long and recipe.too_long == "leave_out") or any(start == len(ids) for ids, start in rows):
            left_out.append(pair.id)
            continue
        shortened += too_long
        chosen, rejected = (_cut(ids, start, room) for ids, start in rows)
        kept.append((chosen, rejected))
        learned.append((pair.source, pair.license, pair.writer, len(chosen[0]) + len(rejected[0])))
        asked = (message.content for message in pair.messages if message.role == "user")
        documents.update(name for text in asked for name in document_keys(text))
    if not kept:
        raise UserError(
            "no pair of answers to learn from", where=", ".join(sorted({pair.source for pair in pairs})),
            expected="prompts with a chosen and a rejected answer", todo="check the files and sequence_length",
        )  # fmt: skip
    return PairFeed(
        recipe, kept, render.pad_id, shortened=shortened, left_out=left_out, documents=sorted(documents),
        sources=sources_of(learned),
    )  # fmt: skip


def sequence_logps(model: Any, batch: PairBatch, low_precision: bool = False) -> Tensor:
    """Summed log-probability in nats of each row's answer, (rows,) float32; logits only at places with a label."""
    device = next(model.parameters()).device
    ids, positions, labels = (torch.from_numpy(array).to(device) for array in batch.rows)
    wanted = labels != IGNORED
    # As in rinsho.finetune.models.loss: the head, whichever it is, sees only the places that have a label.
    narrowing = model.get_output_embeddings().register_forward_pre_hook(lambda _, inputs: (inputs[0][wanted][None],))
    try:
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=low_precision):
            logits = model(input_ids=ids, position_ids=positions, use_cache=False).logits[0]
    finally:
        narrowing.remove()
    found = -torch.nn.functional.cross_entropy(logits.float(), labels[wanted], reduction="none")
    return torch.stack([row.sum() for row in torch.split(found, wanted.sum(1).tolist())])


def dpo_loss(policy: Tensor, reference: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    """Losses (pairs,) and rewards (pairs, 2) of log-probabilities (pairs, 2), chosen and rejected.

    A reward is beta · (log p - log p of the reference); the loss is -log sigmoid(reward chosen - reward rejected).
    """
    rewards = beta * (policy - reference)
    return -torch.nn.functional.logsigmoid(rewards[:, 0] - rewards[:, 1]), rewards.detach()


def dpo_step(  # noqa: PLR0917
    model: Any, batch: PairBatch, reference: Tensor, beta: float, micro_batch_rows: int, low_precision: bool = False
) -> tuple[float, dict[str, float]]:
    """Mean loss of a step's pairs and figures for the metrics; adds the gradient of that mean to the parameters.

    So many pairs are computed at a time as `micro_batch_rows` rows hold, at least one. The mean over pairs is a sum of
    parts and no pair is torn, so its gradient is the sum of the parts' gradients: only rounding changes.

    Args:
        model: in training mode, on its device.
        batch: of the feed.
        reference: (pairs of the feed, 2), from `reference_logps`.
        beta: `dpo_beta`.
        micro_batch_rows: as in the recipe.
        low_precision: matrices in bfloat16.
    """
    total, rewards = 0.0, []
    size = max(1, micro_batch_rows // 2)
    for start in range(0, len(batch), size):
        part = batch.part(start, start + size)
        policy = sequence_logps(model, part, low_precision).view(2, -1).T
        losses, found = dpo_loss(policy, reference[torch.from_numpy(part.numbers)].to(policy), beta)
        loss = losses.sum() / len(batch)
        loss.backward()  # type: ignore[no-untyped-call]
        total += float(loss.detach())
        rewards.append(found)
    return total, figures(torch.cat(rewards))


def figures(rewards: Tensor) -> dict[str, float]:
    """What the metrics keep of rewards (pairs, 2): means, their margin, and the share of pairs with a positive one."""
    margins = rewards[:, 0] - rewards[:, 1]
    return {
        "reward_chosen": float(rewards[:, 0].mean()),
        "reward_rejected": float(rewards[:, 1].mean()),
        "reward_margin": float(margins.mean()),
        "reward_accuracy": float((margins > 0).float().mean()),
    }


def reference_logps(model: Any, feed: PairFeed, path: Path, stage: Stage, low_precision: bool = False) -> Tensor:
    """Log-probabilities (pairs, 2) float32 of all answers under the model that tuning starts from, on the CPU.

    The model is taken as it stands, without dropout or noise: call this before the first step and before a checkpoint
    is loaded. A fresh adapter stays on. Most begin as no change at all; PiSSA and OLoRA move a part of the base into
    the adapter, so with the adapter off the model would be another one.

    `path` keeps what is done (safetensors, NaN where nothing is yet). A killed run continues there, and a complete
    file is only read.

    Raises:
        UserError: the model gives an answer no finite log-probability.
    """
    logps = _kept(path, feed)
    size = max(1, rows_at_once(feed.recipe) // 2)
    lengths = [max(len(ids) for ids, _ in pair) for pair in feed.pairs]
    groups = by_length(lengths, size, size * max(lengths))  # the longest first: too little memory fails at once
    groups = [group for group in groups if bool(logps[group].isnan().any())]
    if not groups:
        return logps
    training = model.training
    model.eval()
    done = len(feed) - sum(map(len, groups))
    with torch.no_grad(), stage.progress("reference", len(feed), "pairs", done=done) as progress:
        for number, group in enumerate(groups, 1):
            found = sequence_logps(model, feed.take(group), low_precision).view(2, -1).T.cpu()
            if not bool(found.isfinite().all()):
                raise UserError(
                    "the starting model gives an answer no finite log-probability", where=stage.out,
                    expected="finite numbers", todo="check the model, or take dtype fp32",
                )  # fmt: skip
            logps[group] = found
            if number % SAVE_EVERY_BATCHES == 0 or number == len(groups):
                _keep(path, feed, logps)
            progress.update(len(group))
    model.train(training)
    return logps


def _kept(path: Path, feed: PairFeed) -> Tensor:
    from safetensors import safe_open

    empty = torch.full((len(feed), 2), torch.nan)
    if not path.is_file():
        return empty
    with safe_open(path, "pt") as file:
        same = (file.metadata() or {}).get("pairs") == feed.digest
        return file.get_tensor("logps") if same else empty


def _keep(path: Path, feed: PairFeed, logps: Tensor) -> None:
    from safetensors.torch import save

    write_atomic(path, save({"logps": logps}, metadata={"pairs": feed.digest}))


def _row(messages: Sequence[Message], render: Renderer) -> tuple[list[int], int]:
    """A conversation up to the end of its last answer, and where that begins."""
    ids, mask = render(messages)
    end = len(mask) - mask[::-1].index(1) if 1 in mask else 0  # what a template puts behind the answer is not learned
    start = end
    while start and mask[start - 1]:
        start -= 1
    return ids[:end], start


def _cut(ids: list[int], start: int, room: int) -> Row:
    prompt = shorten(ids[:start], room)
    return np.array([*prompt, *ids[start:]], np.int64), len(prompt)
