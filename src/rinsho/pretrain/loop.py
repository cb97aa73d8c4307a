"""The training loop: rows in, a trained model out; what a kill interrupts, the next call continues bit for bit."""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rinsho.checkpoint import load_checkpoint, random_state, restore_random_state, save_checkpoint
from rinsho.device import choose_device, in_bfloat16
from rinsho.errors import UserError
from rinsho.modeling import RinshoForCausalLM, next_token_loss
from rinsho.optim import Optimizer, make_optimizer, rate_factor
from rinsho.pretrain import Recipe
from rinsho.run import Stage
from rinsho.tokens import Batch, RowOrder, RowSource


@dataclass
class Position:
    """How far training has come; all that a checkpoint holds beside tensors."""

    step: int = 0
    rows: int = 0
    seen_tokens: int = 0
    skipped_steps: int = 0
    loss: float = math.nan  # of the last step, nats a token
    validation_loss: float | None = None


def total_steps(recipe: Recipe, rows: int) -> int:
    """Steps of the whole run, from max_tokens or epochs."""
    tokens = recipe.max_tokens if recipe.max_tokens is not None else recipe.epochs * rows * recipe.sequence_length
    return max(1, round(tokens / recipe.batch_tokens))


class Trainer:
    """A model, its optimizer, its rows and a folder to continue from."""

    def __init__(
        self, recipe: Recipe, model: RinshoForCausalLM, rows: RowSource, validation: RowSource | None, stage: Stage
    ) -> None:
        self.recipe, self.rows, self.validation, self.stage = recipe, rows, validation, stage
        self.device = choose_device(recipe.device, "pretrain.device")
        self.model: Any = nn.Module.to(model, self.device).train()
        self.optimizer: Optimizer = make_optimizer(
            self.model.named_parameters(),
            recipe.optimizer,
            learning_rate=recipe.learning_rate,
            muon_learning_rate=recipe.muon_learning_rate,
            betas=recipe.betas,
            eps=recipe.adam_eps,
            weight_decay=recipe.weight_decay,
        )
        self.steps = total_steps(recipe, len(rows))
        self.at = Position()
        self._order = RowOrder(len(rows), recipe.seed)
        self.low_precision = in_bfloat16(recipe.dtype, self.device)

    def train(self, tokens_per_character: float = math.nan) -> Position:
        """Trains to the last step and returns where it stands.

        `tokens_per_character` of the validation text makes bits per character out of nats per token.

        Raises:
            UserError: more than max_skipped_steps steps had a non-finite loss.
        """
        torch.manual_seed(self.recipe.seed)
        self._resume()
        self.stage.rewind_metrics(last=self.at.step)
        size, clock, since = self.recipe.batch_tokens, time.monotonic(), self.at.seen_tokens
        with self.stage.progress("training", self.steps * size, "tokens", done=self.at.step * size) as progress:
            while self.at.step < self.steps:
                rate = self.rate()
                norm = self.step()
                progress.update(size, loss=self.at.loss)
                last = self.at.step == self.steps
                if last or self.at.step % self.recipe.log_every_steps == 0:
                    speed = (self.at.seen_tokens - since) / max(time.monotonic() - clock, 1e-9)
                    figures = {"grad_norm": norm, "learning_rate": rate, "tokens_per_second": round(speed, 1)}
                    self._metric(loss=self.at.loss, **figures)
                if last or self.at.step % self.recipe.validation_every_steps == 0:
                    self._validate(tokens_per_character)
                if last or self.at.step % self.recipe.save_every_steps == 0:
                    self._save()
                if last or self.at.step % self.recipe.log_every_steps == 0:
                    clock, since = time.monotonic(), self.at.seen_tokens
        return self.at

    def rate(self) -> float:
        """AdamW's learning rate of the next step."""
        return self.recipe.learning_rate * self._factor()

    def step(self) -> float:
        """One update on the next rows; returns the gradient norm before clipping."""
        count = self.recipe.batch_tokens // self.recipe.sequence_length
        numbers = self._order.take(self.at.rows, count)
        batch = self.rows.batch(numbers)
        loss = self._backward(batch)
        norm = float(torch.nn.utils.clip_grad_norm_(self.optimizer.parameters, self.recipe.grad_clip))
        finite = math.isfinite(loss) and math.isfinite(norm)
        if finite:
            self.optimizer.step(self._factor())
        else:
            self.optimizer.zero_grad()
        self.at.loss = loss
        self.at.step += 1
        self.at.rows += count
        self.at.seen_tokens += batch.targets
        if not finite:
            self._skipped(numbers.tolist())
        return norm

    @torch.no_grad()
    def held_out_loss(self) -> float:
        """Mean loss in nats a token on the first validation rows."""
        if self.validation is None:
            return math.nan
        limit = max(1, self.recipe.validation_tokens // self.recipe.sequence_length)
        numbers = list(range(min(limit, len(self.validation))))
        self.model.eval()
        total, targets = 0.0, 0
        for start in range(0, len(numbers), self.recipe.micro_batch_rows):
            batch = self.validation.batch(numbers[start : start + self.recipe.micro_batch_rows])
            total += float(self._loss(batch))
            targets += batch.targets
        self.model.train()
        return total / max(1, targets)

    def _backward(self, batch: Batch) -> float:
        """Gradients of the mean loss over the whole batch, added up over its parts; returns that loss."""
        targets = max(1, batch.targets)
        total = torch.zeros((), device=self.device)
        for start in range(0, len(batch.input_ids), self.recipe.micro_batch_rows):
            loss = self._loss(batch.part(start, start + self.recipe.micro_batch_rows)) / targets
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        return float(total)

    def _loss(self, batch: Batch) -> Tensor:
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.low_precision):
            ids, positions, labels = (torch.from_numpy(array).to(self.device) for array in batch)
            return next_token_loss(self.model, ids, positions, labels)

    def _factor(self) -> float:
        recipe = self.recipe
        return rate_factor(
            self.at.step,
            self.steps,
            warmup_steps=recipe.warmup_steps,
            warmup=recipe.warmup,
            schedule=recipe.schedule,
            decay_fraction=recipe.decay_fraction,
        )

    def _skipped(self, numbers: list[int]) -> None:
        self.at.skipped_steps += 1
        self.stage.log(f"step {self.at.step}: the loss is not finite, batch skipped (rows {numbers[0]}…)")
        self._metric(skipped_steps=self.at.skipped_steps)
        if self.at.skipped_steps > self.recipe.max_skipped_steps:
            raise UserError(
                f"{self.at.skipped_steps} steps had a loss that is not finite (last: step {self.at.step})",
                where=self.stage.out,
                expected=f"at most {self.recipe.max_skipped_steps} (max_skipped_steps)",
                todo="choose another --out and a lower learning_rate, more warmup_steps or dtype fp32",
            )

    def _validate(self, tokens_per_character: float) -> None:
        loss = self.held_out_loss()
        if math.isfinite(loss):
            self.at.validation_loss = loss
            bits = loss * tokens_per_character / math.log(2)
            self._metric(validation_loss=loss, validation_bits_per_character=bits)

    def _metric(self, **figures: float | int) -> None:
        known = {key: value if math.isfinite(value) else None for key, value in figures.items()}
        self.stage.metric(step=self.at.step, seen_tokens=self.at.seen_tokens, **known)

    def _save(self) -> None:
        parts = {
            "model": dict(self.model.named_parameters()),
            "optimizer": self.optimizer.state_tensors(),
            "random": random_state(),
        }
        state = asdict(self.at) | {"loss": self.at.loss if math.isfinite(self.at.loss) else None}
        save_checkpoint(self.stage.partial / "checkpoints", self.at.step, parts, state, self.recipe.keep_checkpoints)

    def _resume(self) -> None:
        found = load_checkpoint(self.stage.partial / "checkpoints")
        if found is None:
            return
        with torch.no_grad():
            saved = found.part("model")
            for name, parameter in self.model.named_parameters():
                parameter.copy_(saved[name])
        self.optimizer.load_state_tensors(found.part("optimizer"))
        restore_random_state(found.part("random"))
        self.at = Position(**{**found.state, "loss": math.nan if found.state["loss"] is None else found.state["loss"]})
        self.stage.log(f"continues after step {self.at.step} of {self.steps}")
