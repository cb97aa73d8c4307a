"""Muon: momentum whose matrices are made nearly orthogonal before they are applied (Jordan et al., 2024).

Torch's own `torch.optim.Muon` does the same in bfloat16 whatever the processor; where that is emulated, one step took
40 times as long as the gradients themselves. Here the arithmetic follows the hardware, and equal shapes are computed in
one batch.

On sharded parameters (N processes, P numbers in these matrices) the momentum is sharded, too, and each process makes
every N-th matrix of a shape orthogonal: it gets that matrix's rows from the others and sends the result's back, 2·P/N
numbers a step (gathering all would take P). The iterations are 50 TFLOP a step for ncvc-slm-1, 0.7 % of the gradients
of a million tokens: each process computes all of it on whole parameters (DDP), an N-th of it on sharded ones.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from rinsho.distributed import local

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # quintic iteration of the Muon article; not a fit of ours
ITERATIONS = 5


class Muon(torch.optim.Optimizer):
    """Muon for two-dimensional parameters, updates scaled to the size of AdamW's (arXiv 2502.16982, section 2.2).

    Args:
        params: matrices only.
        lr: of the size of an AdamW rate.
        weight_decay: decoupled, times the rate.
        momentum: of the running gradient, Nesterov form.
        dtype: arithmetic of the iteration; bfloat16 only where the hardware multiplies in it.
    """

    def __init__(
        self, params: Iterable[nn.Parameter], lr: float, weight_decay: float = 0.1, momentum: float = 0.95,
        dtype: torch.dtype = torch.float32,
    ) -> None:  # fmt: skip
        super().__init__(list(params), {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})
        self.dtype = dtype

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # noqa: ARG002
        """One update of every parameter that has a gradient."""
        for group in self.param_groups:
            shapes: dict[tuple[int, ...], list[nn.Parameter]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    shapes.setdefault(tuple(parameter.shape), []).append(parameter)
            for shape, parameters in shapes.items():
                updates = [self._momentum(parameter, group["momentum"]) for parameter in parameters]
                size = 0.2 * max(shape) ** 0.5
                for parameter, update in zip(parameters, self._orthogonal(updates, parameters[0]), strict=True):
                    mine = local(parameter)
                    mine.mul_(1 - group["lr"] * group["weight_decay"])
                    mine.add_(update, alpha=-group["lr"] * size)

    def _momentum(self, parameter: nn.Parameter, momentum: float) -> Tensor:
        assert parameter.grad is not None
        state = self.state[parameter]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        buffer, grad = local(state["momentum_buffer"]), local(parameter.grad)
        buffer.lerp_(grad, 1 - momentum)
        return grad.lerp(buffer, momentum)

    def _orthogonal(self, updates: list[Tensor], parameter: Any) -> Iterable[Tensor]:
        """The updates of parameters like `parameter`, orthogonal; of sharded ones the rows this process holds."""
        if hasattr(parameter, "device_mesh"):
            return orthogonal_rows(updates, len(parameter), parameter.device_mesh.get_group(), self.dtype)
        return orthogonal(torch.stack(updates), self.dtype)


def orthogonal_rows(parts: list[Tensor], rows: int, group: Any, dtype: torch.dtype) -> list[Tensor]:
    """This process's rows of each matrix made orthogonal; every process has to call it.

    `parts` are the (own rows, columns) of matrices with `rows` rows in all, cut as torch.chunk cuts.
    """
    size, me, columns = group.size(), group.rank(), parts[0].shape[1]
    heights = [len(cut) for cut in torch.arange(rows).chunk(size)]
    heights += [0] * (size - len(heights))
    counts = [len(parts[owner::size]) for owner in range(size)]  # matrices each process computes
    order = [place for owner in range(size) for place in range(owner, len(parts), size)]
    to_owners = [count * heights[me] * columns for count in counts]
    from_all = [counts[me] * height * columns for height in heights]

    def exchange(data: Tensor, sent: list[int], received: list[int]) -> Tensor:
        result = data.new_empty(sum(received))
        torch.distributed.all_to_all_single(result, data, received, sent, group=group)
        return result

    pieces = exchange(torch.stack([parts[place] for place in order]).flatten(), to_owners, from_all)
    by_process = zip(torch.split(pieces, from_all), heights, strict=True)
    own = torch.cat([piece.view(counts[me], height, columns) for piece, height in by_process], dim=1)
    if counts[me]:
        own = orthogonal(own, dtype)
    data = torch.cat([piece.flatten() for piece in torch.split(own, heights, dim=1)])
    done = exchange(data, from_all, to_owners).view(len(parts), heights[me], columns)
    return [tensor for _, tensor in sorted(zip(order, done, strict=True), key=lambda pair: pair[0])]


def orthogonal(matrices: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Each of the (N, rows, columns) matrices with its singular values pushed to about 1 (0.7 to 1.2)."""
    wide = matrices if matrices.shape[-2] <= matrices.shape[-1] else matrices.mT
    x = wide.to(dtype)
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    a, b, c = COEFFICIENTS
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x if wide is matrices else x.mT).to(matrices.dtype)
