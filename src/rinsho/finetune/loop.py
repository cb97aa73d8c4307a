"""The tuning loop: batches in, a tuned model out; what a kill interrupts, the next call continues bit for bit.

Why not TRL's SFTTrainer here: see docs/decisions.md (imports, checkpoints without pickle, exact continuation).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rinsho.checkpoint import load_checkpoint, save_checkpoint
from rinsho.device import choose_device, in_bfloat16
from rinsho.errors import UserError
from rinsho.finetune import Recipe
from rinsho.finetune.models import loss as loss_of
from rinsho.optim import make_optimizer, rate_factor
from rinsho.packing import number_of
from rinsho.run import Stage
from rinsho.tokens import Batch

Batches = Callable[[int], Batch]  # step, counted from 0 -> its rows


@dataclass
class Position:
    """How far tuning has come; all that a checkpoint holds beside tensors."""

    step: int = 0
    seen_tokens: int = 0  # without padding
    learned_tokens: int = 0  # of the assistant's part
    loss: float | None = None  # of the last step, nats a learned token


class Trainer:
    """A model, its optimizer, its batches and a folder to continue from."""

    def __init__(self, recipe: Recipe, model: Any, batches: Batches, steps: int, stage: Stage) -> None:
        self.recipe, self.batches, self.steps, self.stage = recipe, batches, steps, stage
        self.device = choose_device(recipe.device, "finetune.device")
        self.model = model.to(self.device).train()
        self.optimizer = make_optimizer(
            self.model.named_parameters(),
            recipe.optimizer,
            learning_rate=recipe.learning_rate,
            muon_learning_rate=recipe.muon_learning_rate,
            betas=recipe.betas,
            eps=recipe.adam_eps,
            weight_decay=recipe.weight_decay,
        )
        self.at = Position()
        self.low_precision = in_bfloat16(recipe.dtype, self.device)
        self.noise = EmbeddingNoise(self.model, recipe.neftune_alpha) if recipe.neftune_alpha > 0 else None

    def train(self) -> Position:
        """Tunes to the last step and returns where it stands.

        Raises:
            UserError: the loss is not finite.
        """
        self._resume()
        self.stage.rewind_metrics(last=self.at.step)
        size, clock, since = self.recipe.batch_tokens, time.monotonic(), self.at.seen_tokens
        with self.stage.progress("tuning", self.steps * size, "tokens", done=self.at.step * size) as progress:
            while self.at.step < self.steps:
                rate = self.recipe.learning_rate * self._factor()
                self.step()
                progress.update(size, loss=self.at.loss)
                last = self.at.step == self.steps
                if last or self.at.step % self.recipe.log_every_steps == 0:
                    speed = (self.at.seen_tokens - since) / max(time.monotonic() - clock, 1e-9)
                    figures = asdict(self.at) | {"learning_rate": rate, "tokens_per_second": round(speed, 1)}
                    self.stage.metric(**figures)
                    clock, since = time.monotonic(), self.at.seen_tokens
                if last or self.at.step % self.recipe.save_every_steps == 0:
                    self._save()
        if self.noise is not None:
            self.noise.remove()
        return self.at

    def step(self) -> None:
        """One update on the next batch. Its random numbers depend on seed and step alone."""
        torch.manual_seed(number_of(f"{self.recipe.seed}:{self.at.step}"))
        batch = self.batches(self.at.step)
        targets = max(1, batch.targets)
        total = 0.0
        for start in range(0, len(batch.input_ids), self.recipe.micro_batch_rows):
            part = self._loss(batch.part(start, start + self.recipe.micro_batch_rows)) / targets
            part.backward()  # type: ignore[no-untyped-call]
            total += float(part.detach())
        if not math.isfinite(total):
            raise UserError(
                f"the loss of step {self.at.step + 1} is not finite", where=self.stage.out, expected="a number",
                todo="choose another --out and a lower learning_rate, more warmup_steps or dtype fp32",
            )  # fmt: skip
        torch.nn.utils.clip_grad_norm_(self.optimizer.parameters, self.recipe.grad_clip)
        self.optimizer.step(self._factor())
        self.at.step += 1
        self.at.seen_tokens += filled(batch)
        self.at.learned_tokens += batch.targets
        self.at.loss = total

    def _loss(self, batch: Batch) -> Tensor:
        ids, positions, labels = (torch.from_numpy(array).to(self.device) for array in batch)
        if self.noise is not None:
            self.noise.lengths = torch.from_numpy(_lengths(batch)).to(self.device)
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.low_precision):
            return loss_of(self.model, ids, positions, labels)

    def _factor(self) -> float:
        recipe = self.recipe
        return rate_factor(
            self.at.step,
            self.steps,
            warmup_steps=recipe.warmup_steps,
            schedule=recipe.schedule,
            decay_fraction=recipe.decay_fraction,
        )

    def _save(self) -> None:
        parts = {"model": dict(self.model.named_parameters()), "optimizer": self.optimizer.state_tensors()}
        save_checkpoint(self.stage.partial / "checkpoints", self.at.step, parts, asdict(self.at))

    def _resume(self) -> None:
        found = load_checkpoint(self.stage.partial / "checkpoints")
        if found is None:
            return
        saved = found.part("model")
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                parameter.copy_(saved[name])
        self.optimizer.load_state_tensors(found.part("optimizer"))
        self.at = Position(**found.state)
        self.stage.log(f"continues after step {self.at.step} of {self.steps}")


class EmbeddingNoise:
    """NEFTune: uniform noise of size alpha / sqrt(tokens x width) on the embeddings while training.

    `lengths` holds for every place the number of tokens of its conversation, so packing does not change the noise.
    Source: N2.4-2; arXiv 2310.05914, algorithm 1.
    """

    def __init__(self, model: Any, alpha: float) -> None:
        self.alpha = alpha
        self.lengths: Tensor | None = None
        self._handle = model.get_input_embeddings().register_forward_hook(self._hook)

    def remove(self) -> None:
        """Takes the noise off the model."""
        self._handle.remove()

    def _hook(self, module: Any, _: Any, output: Tensor) -> Tensor:
        if not module.training or self.lengths is None:
            return output
        size = self.alpha / torch.sqrt(self.lengths * output.shape[-1])
        return output + torch.empty_like(output).uniform_(-1, 1) * size[..., None].to(output)


def filled(batch: Batch) -> int:
    """Inputs that belong to a conversation: padding follows the last label of a row."""
    learned = batch.shift_labels != -100
    return int((learned.shape[1] - learned[:, ::-1].argmax(1))[learned.any(1)].sum())


def _lengths(batch: Batch) -> np.ndarray[Any, np.dtype[np.float32]]:
    """For every place the number of places of its conversation, (rows, time) float32."""
    starts = batch.position_ids == 0
    number = starts.cumsum(1) - 1
    result = np.empty(starts.shape, np.float32)
    for row, numbers in enumerate(number):
        result[row] = np.bincount(numbers)[numbers]
    return result
