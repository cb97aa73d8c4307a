"""What is told of a run while it trains: metrics.jsonl, the share of the hardware's peak, memory, loss.png."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

import torch

from rinsho.distributed import World
from rinsho.hardware import peak_flops
from rinsho.pretrain import Recipe
from rinsho.pretrain.spikes import Spike
from rinsho.run import Stage
from rinsho.sizing import flops_per_token, settings_of
from rinsho.workers import peak_memory_bytes

if TYPE_CHECKING:
    from rinsho.pretrain.loop import Position

DRAW_EVERY_SECONDS = 60.0


class Watch:
    """Times the steps of one process and writes down the figures of all.

    Attributes:
        peak: dense FLOP/s of all cards together, in fp8 with that and in bf16 else; None on unknown hardware.
        flops: floating-point operations a token, forward and backward.
    """

    def __init__(self, recipe: Recipe, config: Any, device: torch.device, stage: Stage, me: World) -> None:
        self.recipe, self.device, self.stage, self.me = recipe, device, stage, me
        self.flops = flops_per_token(settings_of(config), config.vocab_size, recipe.sequence_length)
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
        one = peak_flops(name, "fp8" if recipe.fp8 else "bf16")
        self.peak = one * me.size if one else None
        peak = f"{self.peak / 1e12:,.0f} TFLOP/s" if self.peak else f"unknown for {name}"
        self.formula = f"MFU = tokens/s x {self.flops.total / 1e9:.3f} GFLOP / peak ({peak})"
        self._drawn = self._clock = time.monotonic()
        self._since = 0

    def begin(self, at: Position) -> None:
        """The clock starts; what an earlier run wrote of later steps goes, since they come again."""
        self.stage.rewind_metrics(last=at.step)
        self._clock, self._since = time.monotonic(), at.seen_tokens

    def log(self, at: Position, norm: float, rate: float) -> None:
        """The figures of a training step; speed is that since the last such line."""
        speed = (at.seen_tokens - self._since) / max(time.monotonic() - self._clock, 1e-9)
        self.stage.metric(
            step=at.step,
            seen_tokens=at.seen_tokens,
            loss=at.loss,
            grad_norm=norm if math.isfinite(norm) else None,
            learning_rate=rate,
            tokens_per_second=round(speed, 1),
            mfu=self.mfu(speed),
            memory_gib=round(self.memory_bytes() / 2**30, 3),
        )
        self._clock, self._since = time.monotonic(), at.seen_tokens

    def validated(self, at: Position, bits_per_character: float | None) -> None:
        """The held-out figures; the time they took is no training time."""
        figures = {"validation_loss": at.validation_loss, "validation_bits_per_character": bits_per_character}
        self.stage.metric(step=at.step, seen_tokens=at.seen_tokens, **figures, validation=at.validation)
        self._clock, self._since = time.monotonic(), at.seen_tokens

    def spike(self, at: Position, spike: Spike, documents: int) -> None:
        """A step that was out of the ordinary; after a rollback `at` is the checkpoint's."""
        self.stage.log(spike.line())
        about = {"spike_step": spike.step, "action": spike.action, "documents": documents}
        self.stage.metric(step=at.step, seen_tokens=at.seen_tokens, spike=spike.reason, **about)

    def mfu(self, tokens_per_second: float) -> float | None:
        """Share of the hardware's dense peak; None on unknown hardware."""
        return round(tokens_per_second * self.flops.total / self.peak, 4) if self.peak else None

    def memory_bytes(self) -> int:
        """Peak memory of this process: of its card, or on a processor all of it."""
        return torch.cuda.max_memory_allocated(self.device) if self.device.type == "cuda" else peak_memory_bytes()

    def draw(self, last: bool = False) -> None:
        """loss.png, at most once a minute and at the end; without matplotlib there is none."""
        if not self.me.main or not self.recipe.plot:
            return
        if not last and time.monotonic() - self._drawn < DRAW_EVERY_SECONDS:
            return
        self._drawn = time.monotonic()
        try:
            from rinsho.curves import loss_png

            loss_png([self.stage.out], self.stage.out / "loss.png")
        except ModuleNotFoundError:
            if last:
                self.stage.log("no loss.png without matplotlib: pip install 'rinsho[report]'")
        except Exception as error:  # a picture must not end a run of days
            self.stage.log(f"no loss.png ({type(error).__name__})")
