"""Steps out of the ordinary: a loss or gradient that is not finite, or far above those of the steps before it.

A step is judged on figures that are the same on every process, before its update; so all processes take the same
decision. Source: N2.4-4.
"""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rinsho.errors import UserError
from rinsho.files import write_atomic

# A spike is measured in standard deviations of the steps before it; these are the smallest that are believed, as
# shares of the mean. Large batches leave a loss that moves by a few thousandths, and then ordinary drift (harder text,
# a rate that rises again) is many deviations. What is skipped is never learnt from, so an alarm at such a drift would
# be followed by one at every step. At six deviations a loss has to rise by 6 % and a gradient norm threefold (below
# that, clipping is enough); in simulations a rate that rises again did not do so, a loss that rose 10 % in 20 steps
# included.
SMALLEST_DEVIATION = {"loss": 0.01, "grad_norm": 1 / 3}


@dataclass
class Spike:
    """A step out of the ordinary, as it stands in spikes.jsonl; numbers that are not finite become None.

    Attributes:
        step: counted from 1.
        rows: position of its first row in the order of rows.
        count: its rows.
        loss: nats a token.
        grad_norm: before clipping.
        reason: "not_finite", "loss" or "grad_norm".
        limit: what loss or grad_norm was above; None for "not_finite".
        action: "skip", "rollback" or "record".
    """

    step: int
    rows: int
    count: int
    loss: float | None
    grad_norm: float | None
    reason: str
    limit: float | None
    action: str

    def __post_init__(self) -> None:
        self.loss, self.grad_norm = _finite(self.loss), _finite(self.grad_norm)

    def line(self) -> str:
        """One line for the log."""
        done = {"skip": "batch skipped", "rollback": "back to the last checkpoint", "record": "used all the same"}
        if self.reason == "not_finite":
            what = "the loss or the gradient is not finite"
        else:
            value = self.loss if self.reason == "loss" else self.grad_norm
            what = f"the {_NAMES[self.reason]} is {value:.4g}, above {self.limit:.4g}"
        return f"step {self.step}: {what}; {done[self.action]} (rows {self.rows} to {self.rows + self.count - 1})"


class SpikeWatch:
    """Knows the last `window` steps that were trained on and tells whether another one is out of the ordinary.

    A finite value is one when it is above mean + `sigmas` x standard deviation of those steps (with a smallest
    deviation, see SMALLEST_DEVIATION), and only once `window` steps are known. While the loss falls, the trend itself
    makes the deviation large, so the start of a run raises no alarm. A loss above `ceiling` always is one: that catches
    a run that goes astray before. `sigmas=None`: only what is not finite.

    Source: N2.4-4; the rule is that of OLMo's SkipStepOptimizer (128 steps, 6 deviations), the floor is ours.
    """

    def __init__(self, window: int = 128, sigmas: float | None = 6.0, ceiling: float = math.inf) -> None:
        self.sigmas, self.ceiling = sigmas, ceiling
        self._known: dict[str, deque[float]] = {name: deque(maxlen=window) for name in SMALLEST_DEVIATION}

    def judge(self, loss: float, grad_norm: float) -> tuple[str, float | None] | None:
        """(reason, limit) of a spike; None for an ordinary step, which from now on is one of those known."""
        values = {"loss": loss, "grad_norm": grad_norm}
        if not all(map(math.isfinite, values.values())):
            return "not_finite", None
        for name, value in values.items():
            limit = self.limit(name)
            if limit is not None and value > limit:
                return name, limit
        self.accept(loss, grad_norm)
        return None

    def accept(self, loss: float, grad_norm: float) -> None:
        """Counts a step among those known; for a spike that was trained on all the same."""
        self._known["loss"].append(loss)
        self._known["grad_norm"].append(grad_norm)

    def limit(self, name: str) -> float | None:
        """Above what "loss" or "grad_norm" is a spike; None as long as too few steps are known."""
        known = self._known[name]
        if self.sigmas is None:
            return None
        ceiling = self.ceiling if name == "loss" and self.ceiling < math.inf else None
        if len(known) < (known.maxlen or 0):
            return ceiling
        mean = math.fsum(known) / len(known)
        deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in known) / len(known))
        limit = mean + self.sigmas * max(deviation, SMALLEST_DEVIATION[name] * mean)
        return limit if ceiling is None else min(limit, ceiling)

    def state(self) -> dict[str, list[float]]:
        """What `load` needs, in plain JSON values that come back bit for bit."""
        return {name: list(known) for name, known in self._known.items()}

    def load(self, state: Mapping[str, Sequence[float]]) -> None:
        """Goes back to what `state` gave; of a longer window the last steps stay."""
        for name, known in self._known.items():
            known.clear()
            known.extend(state[name])


def write_spikes(path: Path, spikes: Sequence[Mapping[str, Any]], ids_of: Callable[[int, int], Sequence[str]]) -> None:
    """Writes spikes.jsonl anew: a line for each spike, with the ids of all documents in its rows.

    `spikes` are as `dataclasses.asdict` makes them of `Spike`; `ids_of` gets the position of the first row and the
    number of rows.
    """
    lines = []
    for spike in spikes:
        ids = list(ids_of(spike["rows"], spike["count"]))
        row = {**spike, "documents": len(ids), "ids": ids}
        lines.append(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")
    write_atomic(path, "".join(lines))


def too_many(spike: Spike, found: int, allowed: int, where: Path) -> UserError:
    """The error that ends a run after more spikes than the recipe allows."""
    kind = (
        "loss or gradient that is not finite" if spike.reason == "not_finite" else f"jump of the {_NAMES[spike.reason]}"
    )
    return UserError(
        f"{found} steps were not trained on, the last one (step {spike.step}) for a {kind}",
        where=where,
        expected=f"at most {allowed} (pretrain.max_skipped_steps)",
        todo="spikes.jsonl names the documents in each; choose another --out and a lower learning_rate, more"
        " warmup_steps or dtype fp32, or allow more with max_skipped_steps",
    )


_NAMES = {"loss": "loss", "grad_norm": "gradient norm"}


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
