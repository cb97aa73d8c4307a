"""The training loop: rows in, a trained model out; what a kill interrupts, the next call continues bit for bit.

Under torchrun every process runs this loop on its share of each step's rows and sees the same losses, so all take the
same decisions; the first one alone writes.
"""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rinsho.attention import use_attention
from rinsho.checkpoint import Saver, load_checkpoint, open_checkpoint, publish_checkpoint, step_folder
from rinsho.device import choose_device, in_bfloat16
from rinsho.distributed import World, assign, last_part, parallelise, sum_over_ranks, tell_all, whole
from rinsho.modeling import RinshoForCausalLM
from rinsho.optim import Optimizer, make_optimizer, rate_factor
from rinsho.packing import number_of
from rinsho.pretrain import Recipe
from rinsho.pretrain.data import Data, total_steps
from rinsho.pretrain.spikes import Spike, SpikeWatch, too_many, write_spikes
from rinsho.pretrain.watch import Watch
from rinsho.run import Stage
from rinsho.tokens import IGNORED, Batch

Publish = Callable[[dict[str, Any], Mapping[str, Tensor], Path], None]  # facts, weights -> a model folder
SAME_SIGNAL_SECONDS = 2.0  # a terminal and torchrun both pass a Ctrl-C on
ALONE = World(rank=0, size=1, local_rank=0)


@dataclass
class Position:
    """How far training has come; with the watch over spikes all that a checkpoint holds beside tensors."""

    step: int = 0
    rows: int = 0
    seen_tokens: int = 0
    skipped_steps: int = 0
    loss: float | None = None  # of the last step, nats a token; None: not finite
    validation_loss: float | None = None
    validation: dict[str, dict[str, float | None]] = field(default_factory=dict)
    spikes: list[dict[str, Any]] = field(default_factory=list)


def facts(at: Position) -> dict[str, Any]:
    """What a model folder tells of its training."""
    names = ("seen_tokens", "skipped_steps", "validation_loss")
    return {"steps": at.step} | {name: getattr(at, name) for name in names}


class Trainer:
    """A model, its optimizer, its rows and a folder to continue from.

    `publish` writes the model folder that every checkpoint is; without it a checkpoint holds the state alone.
    """

    def __init__(
        self,
        recipe: Recipe,
        model: RinshoForCausalLM,
        data: Data,
        stage: Stage,
        *,
        me: World = ALONE,
        publish: Publish | None = None,
    ) -> None:
        self.recipe, self.stage, self.me = recipe, stage, me
        self.rows, self.order, self.held_out = data.rows, data.order, data.held_out
        self.device = choose_device(recipe.device, "pretrain.device", me.local_rank)
        self.model: Any = model
        self.publish = publish
        self.low_precision = in_bfloat16(recipe.dtype, self.device)
        on_card = self.device.type == "cuda"
        use_attention(model, recipe.attn_implementation, self.device)
        self.module: Any = parallelise(
            model.train(),
            self.device,
            parallelism=recipe.parallelism,
            compile=on_card if recipe.compile == "auto" else recipe.compile,
            activation_checkpointing=recipe.activation_checkpointing,
            fp8=recipe.fp8,
            chunk_tokens=recipe.loss_chunk_tokens,
        )
        self.optimizer: Optimizer = make_optimizer(
            model.named_parameters(),
            recipe.optimizer,
            learning_rate=recipe.learning_rate,
            muon_learning_rate=recipe.muon_learning_rate,
            betas=recipe.betas,
            eps=recipe.adam_eps,
            weight_decay=recipe.weight_decay,
        )
        self.steps = total_steps(recipe, self.order.rows_per_pass)
        self.rows_per_step = recipe.batch_tokens // recipe.sequence_length
        self.at = Position()
        self._asked_to_stop = self._stopping = False  # this process; all of them
        self.seen_before = 0  # tokens that an earlier, interrupted run has seen
        self._known_ids: dict[int, list[str]] = {}  # of documents in spikes, by the first row
        # Guessing every piece alike costs ln(V) nats: twice that is worse than knowing nothing.
        self.spikes = SpikeWatch(recipe.spike_window, recipe.spike_sigmas, 2 * math.log(model.config.vocab_size))
        self.watch = Watch(recipe, model.config, self.device, stage, me)
        background = on_card if recipe.background_checkpoints == "auto" else recipe.background_checkpoints
        self.checkpoints = stage.partial / "checkpoints"
        self.saver = Saver(self.checkpoints, recipe.keep_checkpoints, background, writes=me.main)

    def train(self) -> Position:
        """Trains to the last step and returns where it stands.

        Raises:
            UserError: more than max_skipped_steps spikes.
        """
        if self._restore():
            self.stage.log(f"continues after step {self.at.step} of {self.steps}")
        self.seen_before = self.at.seen_tokens
        self._keep_model()
        self._write_spikes()
        self.stage.rewind_metrics(self.at.step, "spike_step")  # rollbacks of later steps come again
        self.watch.begin(self.at)
        if self.at.step == 0 and self.recipe.init_from == "model":
            self.validate()  # what was known before: later figures tell what was learned, and what forgotten
        size = self.recipe.batch_tokens
        progress = self.stage.progress("training", self.steps * size, "tokens", done=self.at.step * size)
        with self._signals(), progress:
            while self.at.step < self.steps:
                rate, before = self.rate(), self.at.step
                norm = self.step()
                progress.update(self.at.step * size - progress.done, loss=self.at.loss)
                if self.at.step <= before:  # rolled back: what is due at that step was done
                    continue
                if self._due(self.recipe.log_every_steps):
                    self.watch.log(self.at, norm, rate)
                if self._due(self.recipe.validation_every_steps):
                    self.validate()
                # A rollback goes to a checkpoint, which must not depend on interruptions.
                last_words = self._stopping and self.recipe.on_spike != "rollback"
                if last_words or self._due(self.recipe.save_every_steps, self.recipe.keep_every_steps):
                    self._save()
                if self._stopping and self.at.step < self.steps:
                    self.saver.wait()
                    self.stage.log(f"interrupted after step {self.at.step}")
                    raise KeyboardInterrupt
        self.saver.wait()
        self.watch.draw(last=True)
        return self.at

    def rate(self) -> float:
        """AdamW's learning rate of the next step."""
        return self.recipe.learning_rate * self._factor()

    def step(self) -> float:
        """One update on the next rows; returns the gradient norm before clipping.

        Its random numbers depend on seed, step and process alone, so no random state has to be saved.
        """
        torch.manual_seed(number_of(f"{self.recipe.seed}:{self.at.step}:{self.me.rank}"))
        numbers = self.order.take(self.at.rows, self.rows_per_step)
        share = self.rows_per_step // self.me.size
        batch = self.rows.batch(numbers[self.me.rank * share : (self.me.rank + 1) * share])
        told = torch.tensor([batch.targets, self._asked_to_stop], dtype=torch.float64, device=self.device)
        targets, stopping = map(int, sum_over_ranks(told).tolist())
        self._stopping = stopping > 0  # all processes stop after the same step
        loss = self._backward(batch, max(1, targets))
        norm = self.optimizer.clip(self.recipe.grad_clip)
        found = self.spikes.judge(loss, norm)
        action = self._action(found[0]) if found else ""
        if action in ("skip", "rollback"):
            self.optimizer.zero_grad()
        else:
            self.optimizer.step(self._factor())
        first_row = self.at.rows
        self.at.loss = _finite(loss)
        self.at.step += 1
        self.at.rows += self.rows_per_step
        self.at.seen_tokens += targets
        if found is not None:
            self._spike(Spike(self.at.step, first_row, self.rows_per_step, loss, norm, *found, action))
        return norm

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Ctrl-C, or what batch systems send before they kill: the step is ended and saved; a second ends at once."""

        first = math.inf

        def ask(*_: Any) -> None:
            nonlocal first
            if time.monotonic() - first > SAME_SIGNAL_SECONDS:
                raise KeyboardInterrupt
            first = min(first, time.monotonic())
            self._asked_to_stop = True

        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def validate(self) -> None:
        """Held-out loss of every source and of all, into the metrics."""
        if self.held_out is None:
            return
        sums = self._held_out_sums()
        losses = {name: nats / max(1.0, tokens) for name, (nats, tokens) in sums.items()}
        mean = self.held_out.mean(losses)
        self.at.validation_loss = _finite(mean)
        self.at.validation = {
            source.name: {
                "loss": _finite(losses[source.name]),
                "bits_per_character": _finite(source.bits_per_character(*sums[source.name])),
                "tokens": int(sums[source.name][1]),
            }
            for source in self.held_out.sources
        }
        self.watch.validated(self.at, _finite(self.held_out.bits_per_character(mean)))

    @torch.no_grad()
    def _held_out_sums(self) -> dict[str, tuple[float, float]]:
        """Nats and tokens of each source, over the first rows of each; every process takes its part of them."""
        assert self.held_out is not None
        self.model.eval()
        sums = {}
        for source in self.held_out.sources:
            total = torch.zeros(2, dtype=torch.float64, device=self.device)
            numbers = source.rows[: self.held_out.limit(source, self.recipe.validation_tokens)]
            mine, size = list(numbers[self.me.rank :: self.me.size]), self.recipe.micro_batch_rows
            # As many calls on every process, whatever its part: the calls of sharded models wait for each other.
            for start in range(0, -(-len(numbers) // self.me.size), size):
                batch = self._some_rows(mine[start : start + size])
                total += torch.tensor([float(self._loss(batch)), batch.targets], dtype=total.dtype, device=self.device)
            nats, tokens = sum_over_ranks(total).tolist()
            sums[source.name] = (nats, tokens)
        self.model.train()
        return sums

    def _some_rows(self, numbers: list[int]) -> Batch:
        assert self.held_out is not None
        if numbers:
            return self.held_out.batch(numbers)
        blank = self.held_out.batch([0])
        blank.shift_labels[:] = IGNORED
        return blank

    def _backward(self, batch: Batch, targets: int) -> float:
        """Gradients of the mean loss over all rows of the step, added up over its parts; returns that loss."""
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        size = self.recipe.micro_batch_rows
        for start in range(0, len(batch.input_ids), size):
            with last_part(self.module, start + size >= len(batch.input_ids)):
                loss = self._loss(batch.part(start, start + size)) / targets
                loss.backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        return float(sum_over_ranks(total))

    def _loss(self, batch: Batch) -> Tensor:
        # Without the cache, which would keep a copy of every matrix until the end: each is used once.
        low = torch.autocast(self.device.type, torch.bfloat16, enabled=self.low_precision, cache_enabled=False)
        with low:
            tensors = (torch.from_numpy(array).to(self.device, non_blocking=True) for array in batch)
            loss: Tensor = self.module(*tensors)
        return loss

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

    def _due(self, *every: int | None) -> bool:
        return self.at.step == self.steps or any(steps and self.at.step % steps == 0 for steps in every)

    def _action(self, reason: str) -> str:
        wanted = self.recipe.on_spike
        return "skip" if wanted == "record" and reason == "not_finite" else wanted

    def _spike(self, spike: Spike) -> None:
        """Notes a spike, goes back to the last checkpoint if the recipe wants it, and stops after too many."""
        known, skipped = self.at.spikes, self.at.skipped_steps + (spike.action != "record")
        next_row = self.at.rows
        if spike.action == "record" and spike.loss is not None and spike.grad_norm is not None:
            self.spikes.accept(spike.loss, spike.grad_norm)
        if spike.action == "rollback":
            self.saver.wait()
            if self._restore():
                self.at.rows = next_row  # the data between the checkpoint and the spike are not seen again
                self.watch.begin(self.at)
            else:
                spike.action = "skip"  # nothing to go back to yet
        self.at.spikes, self.at.skipped_steps = [*known, asdict(spike)], skipped
        if self.me.main:
            self.watch.spike(self.at, spike, len(self._ids(spike.rows, spike.count)))
        self._write_spikes()
        if skipped > self.recipe.max_skipped_steps:
            raise too_many(spike, skipped, self.recipe.max_skipped_steps, self.stage.out)

    def _write_spikes(self) -> None:
        """spikes.jsonl as the position has it: a run that was killed may have written of later ones."""
        path = self.stage.out / "spikes.jsonl"
        if self.me.main and (self.at.spikes or path.exists()):
            write_spikes(path, self.at.spikes, self._ids)

    def _documents(self, first_row: int, count: int) -> list[int]:
        return self.rows.documents_of(self.order.take(first_row, count)).tolist()  # type: ignore[no-any-return]

    def _ids(self, first_row: int, count: int) -> list[str]:
        known = self._known_ids.get(first_row)
        if known is None:
            known = self._known_ids[first_row] = self.rows.ids(self._documents(first_row, count))
        return known

    def _save(self) -> None:
        model: dict[str, Tensor] = dict(self.model.named_parameters())
        parts = {"model": model, "optimizer": self.optimizer.state_tensors()}
        state = asdict(self.at) | {"spike_watch": self.spikes.state()}
        publish = partial(self.publish, facts(self.at)) if self.publish else None
        self.saver.save(self.at.step, parts, state, publish, whole=whole)
        self._keep_model(again=True)  # a rollback past a damaged checkpoint may have left one of this step
        self.watch.draw()

    def _keep_model(self, again: bool = False) -> None:
        """The model folder of the present step among those that stay, if it is one of them and not there (`again`)."""
        every = self.recipe.keep_every_steps
        if self.me.main and every and self.publish and self.at.step and self.at.step % every == 0:
            kept = step_folder(self.stage.out / "checkpoints", self.at.step)
            if again or not kept.exists():
                self.saver.wait()
                publish_checkpoint(step_folder(self.checkpoints, self.at.step), kept)

    def _restore(self) -> bool:
        """Takes over the newest whole checkpoint; False when there is none."""
        found = load_checkpoint(self.checkpoints) if self.me.main else None
        step = tell_all(found.step if found else -1)  # the first process chooses: all read the same one
        if step < 0:
            return False
        found = found or open_checkpoint(step_folder(self.checkpoints, step), verify=False)
        for folder in found.passed_over:
            self.stage.log(f"{folder.name} is damaged and is passed over")
        with torch.no_grad():
            saved = found.part("model")
            for name, parameter in self.model.named_parameters():
                assign(parameter, saved[name])
        self.optimizer.load_state_tensors(found.part("optimizer"))
        state = dict(found.state)
        self.spikes.load(state.pop("spike_watch"))
        self.at = Position(**state)
        return True


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
