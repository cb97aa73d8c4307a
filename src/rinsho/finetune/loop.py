"""The tuning loop: batches in, a tuned model out; what a kill interrupts, the next call continues bit for bit.

Why not TRL's SFTTrainer here: see docs/decisions.md (imports, checkpoints without pickle, exact continuation).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from rinsho.checkpoint import load_checkpoint, save_checkpoint
from rinsho.device import in_bfloat16
from rinsho.errors import UserError
from rinsho.finetune import Recipe, methods, optimizer_kind
from rinsho.finetune.models import Loaded
from rinsho.finetune.models import loss as loss_of
from rinsho.finetune.noise import Noise
from rinsho.finetune.validation import Validation, verdict
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
    loss: float | None = None  # of the last step, nats a learned token; of DPO, nats a pair
    figures: dict[str, float] = field(default_factory=dict)  # further ones of the last step
    scores: list[dict[str, Any]] = field(default_factory=list)  # of every look at the validation part


@dataclass(frozen=True)
class Done:
    """What the gradients of a step were made of."""

    loss: float
    seen_tokens: int
    learned_tokens: int
    figures: dict[str, float] = field(default_factory=dict)


class Objective(Protocol):
    """What is learned: fills the gradients of step `step` (counted from 0)."""

    def backward(self, step: int) -> Done:
        """Gradients of one step, and what they were made of."""
        ...


class Keeper(Protocol):
    """Whole folders of the best models."""

    def keep(self, at: Position) -> None:
        """Keeps the model as it is now, as that of its step."""
        ...

    def forget_others(self, step: int) -> None:
        """Drops all kept models but that of `step`."""
        ...


class Supervised:
    """Next-token cross-entropy of the learned tokens of packed conversations."""

    def __init__(self, recipe: Recipe, model: Any, batches: Batches) -> None:
        self.recipe, self.model, self.batches = recipe, model, batches
        self.device = next(model.parameters()).device
        self.low_precision = in_bfloat16(recipe.dtype, self.device)
        self.noise = Noise(model, recipe.noise, recipe.neftune_alpha) if recipe.neftune_alpha > 0 else None

    def backward(self, step: int) -> Done:
        """The gradient of the mean over the learned tokens of the whole batch, in parts of `micro_batch_rows`."""
        batch = self.batches(step)
        targets = max(1, batch.targets)
        total = 0.0
        for start in range(0, len(batch.input_ids), self.recipe.micro_batch_rows):
            part = self._loss(batch.part(start, start + self.recipe.micro_batch_rows)) / targets
            part.backward()  # type: ignore[no-untyped-call]
            total += float(part.detach())
        return Done(total, filled(batch), batch.targets)

    def _loss(self, batch: Batch) -> Tensor:
        copies = 1
        if self.noise is not None:
            batch, copies = self.noise.prepare(batch), self.noise.copies
        ids, positions, labels = (torch.from_numpy(array).to(self.device) for array in batch)
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.low_precision):
            return loss_of(self.model, ids, positions, labels) / copies


class Trainer:
    """A model, its optimizer, what it learns and a folder to continue from.

    Args:
        steps: of the whole run; the learning rate falls to zero over them.
        keeper: of the best model so far, where a validation part tells which that is.
    """

    def __init__(
        self, recipe: Recipe, loaded: Loaded, objective: Objective, steps: int, stage: Stage, *,
        validation: Validation | None = None, keeper: Keeper | None = None,
    ) -> None:  # fmt: skip
        self.recipe, self.objective, self.steps, self.stage = recipe, objective, steps, stage
        self.model = loaded.model
        self.validation, self.keeper = validation, keeper
        self.trained = loaded.trained
        self.optimizer = make_optimizer(
            self.trained.items(),
            optimizer_kind(recipe),
            learning_rate=recipe.learning_rate,
            muon_learning_rate=recipe.muon_learning_rate,
            betas=recipe.betas,
            eps=recipe.adam_eps,
            weight_decay=recipe.weight_decay,
            rates=loaded.rates,
        )
        self.at = Position()
        self.seconds_per_step: float | None = None

    def train(self) -> Position:
        """Tunes to the last step, or until the validation score has stopped rising; returns where it stands.

        Raises:
            UserError: the loss or the gradient is not finite.
        """
        self._resume()
        self.stage.rewind_metrics(last=self.at.step)
        size, begin, first = self.recipe.batch_tokens, time.monotonic(), self.at.step
        clock, since, validating = begin, self.at.seen_tokens, 0.0
        with self.stage.progress("tuning", self.steps * size, "tokens", done=self.at.step * size) as progress:
            while self.at.step < self.steps and not self._stopped():
                rate = self.recipe.learning_rate * self._factor()
                self.step()
                progress.update(size, loss=self.at.loss)
                last = self.at.step == self.steps
                paused = self._validate(last)
                validating += paused
                clock += paused
                last |= self._stopped()
                if last or self.at.step % self.recipe.log_every_steps == 0:
                    speed = (self.at.seen_tokens - since) / max(time.monotonic() - clock, 1e-9)
                    self._log(rate, speed)
                    clock, since = time.monotonic(), self.at.seen_tokens
                if last or self.at.step % self.recipe.save_every_steps == 0:
                    self._save()
        if self.at.step > first:
            self.seconds_per_step = (time.monotonic() - begin - validating) / (self.at.step - first)
        return self.at

    def step(self) -> None:
        """One update on the next batch. Its random numbers depend on seed and step alone."""
        torch.manual_seed(number_of(f"{self.recipe.seed}:{self.at.step}"))
        done = self.objective.backward(self.at.step)
        penalty = methods.penalty(self.model)
        if penalty is not None:  # of the adapter's own method, once a step
            penalty.backward()
        norm = self.optimizer.clip(self.recipe.grad_clip)
        for what, value in (("loss", done.loss), ("gradient", norm)):
            if not math.isfinite(value):
                raise UserError(
                    f"the {what} of step {self.at.step + 1} is not finite", where=self.stage.out, expected="a number",
                    todo="choose another --out and a lower learning_rate, more warmup_steps or dtype fp32",
                )  # fmt: skip
        self.optimizer.step(self._factor())
        self.at.step += 1
        self.at.seen_tokens += done.seen_tokens
        self.at.learned_tokens += done.learned_tokens
        self.at.loss, self.at.figures = done.loss, done.figures

    @property
    def best_step(self) -> int | None:
        """The step with the best validation score so far; None without a validation part."""
        best = max(self.at.scores, key=lambda look: (look["value"], -look["step"]), default=None)
        return None if best is None else int(best["step"])

    def _validate(self, last: bool) -> float:
        """Looks at the validation part when it is time to; returns the seconds that took."""
        if self.validation is None or not (last or self.at.step % self.recipe.validate_every_steps == 0):
            return 0.0
        begin = time.monotonic()
        score = self.validation.score(self.model)
        self.at.scores.append({"step": self.at.step, "value": score.value, "by_task": score.by_task})
        tasks = {f"validation_{task}": row["score"] for task, row in score.by_task.items()}
        self.stage.metric(step=self.at.step, seen_tokens=self.at.seen_tokens, validation_score=score.value, **tasks)
        if self.keeper is not None and self.best_step == self.at.step:
            self.keeper.keep(self.at)
        return time.monotonic() - begin

    def _stopped(self) -> bool:
        return verdict([look["value"] for look in self.at.scores], self.recipe.patience).stop

    def _log(self, rate: float, speed: float) -> None:
        place = asdict(self.at)
        place.pop("scores")
        figures = place.pop("figures")
        self.stage.metric(**place, **figures, learning_rate=rate, tokens_per_second=round(speed, 1))

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
        parts: dict[str, Mapping[str, Tensor]] = {"model": self.trained, "optimizer": self.optimizer.state_tensors()}
        save_checkpoint(self.stage.partial / "checkpoints", self.at.step, parts, asdict(self.at))
        if self.keeper is not None and self.best_step is not None:
            self.keeper.forget_others(self.best_step)  # only now does the checkpoint say that it is the best

    def _resume(self) -> None:
        found = load_checkpoint(self.stage.partial / "checkpoints")
        if found is None:
            return
        saved = found.part("model")
        with torch.no_grad():
            for name, parameter in self.trained.items():
                parameter.copy_(saved[name])
        self.optimizer.load_state_tensors(found.part("optimizer"))
        self.at = Position(**found.state)
        self.stage.log(f"continues after step {self.at.step} of {self.steps}")


def filled(batch: Batch) -> int:
    """Inputs that belong to a conversation: padding follows the last label of a row."""
    learned = batch.shift_labels != -100
    return int((learned.shape[1] - learned[:, ::-1].argmax(1))[learned.any(1)].sum())
