"""Optimizers and learning-rate schedules shared by pre-training and fine-tuning.

One object holds every parameter: AdamW for all (its state in 32 bits, or block-wise in 8), or Muon for the matrices of
the blocks and AdamW for the rest. Its state is a flat dictionary of named tensors, so a checkpoint needs no pickle.
Schedules are pure functions of the step, so nothing of them has to be saved.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal

from rinsho.errors import UserError

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

Kind = Literal["adamw", "adamw_8bit", "muon"]
Schedule = Literal["cosine", "warmup_stable_decay", "linear", "constant"]
Warmup = Literal["linear", "log"]

LEAST_8BIT_NUMBERS, BLOCK_NUMBERS = 4096, 256  # smaller tensors keep 32 bits; numbers that share a scale


def rate_factor(
    step: int,
    total_steps: int,
    *,
    warmup_steps: int = 0,
    warmup: Warmup = "linear",
    schedule: Schedule = "cosine",
    decay_fraction: float = 0.2,
) -> float:
    """Share of the peak learning rate for step `step` (counted from 0), in 0..1.

    The last step of the warm-up has factor 1; the curve after it reaches 0 only past the last step, so no step is
    lost to a rate of zero. `log` is DeepSpeed's default warm-up, log(step+1)/log(warmup_steps), counted from one step
    later because DeepSpeed's own first rate is 0. `warmup_stable_decay` falls linearly to zero in the last
    `decay_fraction` of all steps.

    Source: N2.4-1.

    >>> [round(rate_factor(step, 10, warmup_steps=2), 3) for step in range(4)]
    [0.5, 1.0, 1.0, 0.962]
    """
    if step < warmup_steps:
        if warmup == "log":
            return math.log(step + 2) / math.log(warmup_steps + 1)
        return (step + 1) / warmup_steps
    if schedule == "constant":
        return 1.0
    if schedule == "warmup_stable_decay":
        decay_steps = max(1, round(decay_fraction * total_steps))
        return min(1.0, max(0, total_steps - step) / decay_steps)
    done = min(1.0, (step - warmup_steps) / max(1, total_steps - warmup_steps))
    return 1.0 - done if schedule == "linear" else 0.5 * (1 + math.cos(math.pi * done))


class Optimizer:
    """AdamW, or Muon and AdamW, over named parameters; built by `make_optimizer`.

    Attributes:
        parts: the torch optimizers inside.
    """

    def __init__(self, named: Mapping[str, nn.Parameter], parts: list[torch.optim.Optimizer]) -> None:
        self._named = dict(named)
        self.parts = parts
        self._peaks = [[float(group["lr"]) for group in part.param_groups] for part in parts]
        self._home = {id(p): part for part in parts for group in part.param_groups for p in group["params"]}

    @property
    def parameters(self) -> list[nn.Parameter]:
        """All trained parameters."""
        return list(self._named.values())

    def clip(self, max_norm: float) -> float:
        """Scales all gradients down to a global norm of at most `max_norm`; returns the norm before.

        Of sharded gradients every process gets the norm of the whole and has to make this call.
        """
        import torch

        from rinsho.distributed import whole

        gradients = [parameter.grad for parameter in self._named.values() if parameter.grad is not None]
        norm = whole(torch.nn.utils.get_total_norm(gradients))
        torch.nn.utils.clip_grads_with_norm_(self.parameters, max_norm, norm)
        return float(norm)

    def step(self, factor: float) -> None:
        """One update at `factor` times the peak learning rates, then gradients are dropped."""
        for part, peaks in zip(self.parts, self._peaks, strict=True):
            for group, peak in zip(part.param_groups, peaks, strict=True):
                group["lr"] = peak * factor
            part.step()
        self.zero_grad()

    def zero_grad(self) -> None:
        """Drops all gradients."""
        for parameter in self._named.values():
            parameter.grad = None

    def state_tensors(self) -> dict[str, Tensor]:
        """The whole state as `<parameter name>/<key>` -> tensor; the tensors are the live ones, not copies.

        State of sharded parameters is sharded alike (`rinsho.distributed.whole`).
        """
        import torch

        # bitsandbytes counts its steps in a plain number.
        return {
            f"{name}/{key}": torch.tensor(value) if isinstance(value, int) else value
            for name, parameter in self._named.items()
            for key, value in self._home[id(parameter)].state.get(parameter, {}).items()
        }

    def load_state_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Takes over a state that `state_tensors` gave, made whole; parameters without state start fresh.

        The parameters' own sharding decides how it is held, so it may come from another number of processes.

        Raises:
            UserError: state for a parameter that is not trained here.
        """
        from rinsho.distributed import like

        for part in self.parts:
            part.state.clear()
        for key, value in tensors.items():
            name, _, entry = key.rpartition("/")
            parameter = self._named.get(name)
            if parameter is None:
                raise UserError(
                    f"the checkpoint has state for {name!r}, which is not trained here",
                    expected="a checkpoint of the same recipe",
                    todo="choose another --out",
                )
            # AdamW's fused kernel wants its step counter (a float) beside the parameter, too.
            number = not value.ndim and not value.is_floating_point()
            self._home[id(parameter)].state[parameter][entry] = int(value) if number else like(value, parameter)


def make_optimizer(
    named_parameters: Iterable[tuple[str, nn.Parameter]],
    kind: Kind = "adamw",
    *,
    learning_rate: float,
    muon_learning_rate: float | None = None,
    betas: tuple[float, float] = (0.9, 0.95),
    eps: float = 1e-8,
    weight_decay: float = 0.1,
    rates: Mapping[str, float] | None = None,
) -> Optimizer:
    """The optimizer over every parameter that requires a gradient.

    Weight decay is on all matrices and on no norm gain (N2.3-5). `muon` takes the two-dimensional parameters inside
    the blocks, with updates scaled to AdamW's size, so `muon_learning_rate` is of the size of an AdamW rate;
    embeddings, head and norms stay with AdamW. `adamw_8bit` keeps both moments of tensors from 4,096 numbers on in 8
    bits, with a scale for every 256 numbers; it is bitsandbytes' (arXiv 2110.02861).

    Args:
        named_parameters: what to train, those without gradient left out.
        kind: see above.
        learning_rate: peak rate of AdamW.
        muon_learning_rate: peak rate of Muon; default: `learning_rate`.
        betas: AdamW's.
        eps: AdamW's.
        weight_decay: decoupled; a step takes the rate times this off a matrix.
        rates: parameter name -> factor s on its rate, for a parameter that is s times the one that is meant: an
            AdamW step on s·E is then s times the step on E, and it decays as E does. Those stay with AdamW.
    """
    import torch

    rates = rates or {}
    named = {name: parameter for name, parameter in named_parameters if parameter.requires_grad}
    blocks = {name: p for name, p in named.items() if kind == "muon" and "layers." in name and p.ndim == 2}
    hidden = {name: parameter for name, parameter in blocks.items() if name not in rates}
    groups: dict[tuple[bool, float], list[nn.Parameter]] = {}
    for name, parameter in named.items():
        if name not in hidden:
            groups.setdefault((parameter.ndim >= 2, rates.get(name, 1.0)), []).append(parameter)
    listed = [
        {"params": found, "lr": learning_rate * factor, "weight_decay": weight_decay / factor if decays else 0.0}
        for (decays, factor), found in sorted(groups.items(), key=lambda group: group[0], reverse=True)
    ]
    parts: list[torch.optim.Optimizer] = []
    if listed and kind == "adamw_8bit":
        from rinsho.bases import need

        need("bitsandbytes")
        import bitsandbytes

        library: Any = bitsandbytes.optim
        parts.append(library.AdamW8bit(listed, learning_rate, betas, eps, min_8bit_size=LEAST_8BIT_NUMBERS))
    elif listed:
        parts.append(torch.optim.AdamW(listed, lr=learning_rate, betas=betas, eps=eps, fused=True))
    if hidden:
        from rinsho.device import has_fast_bfloat16
        from rinsho.muon import Muon

        matrices = list(hidden.values())
        low = has_fast_bfloat16(matrices[0].device.type)
        rate = muon_learning_rate if muon_learning_rate is not None else learning_rate
        parts.append(Muon(matrices, rate, weight_decay, dtype=torch.bfloat16 if low else torch.float32))
    return Optimizer(named, parts)
