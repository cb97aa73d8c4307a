"""Training by several processes: who they are, what they tell each other, and how a model is spread over them.

One process needs none of this: every function here is then the identity, and torch.distributed is not touched.

What stands where, for N processes, P parameters (float32), m micro-batches a step (traffic counted on torch 2.13):

| setting | parameters | gradients | optimizer state | gathered and reduced in a step |
| --- | --- | --- | --- | --- |
| ddp | whole | whole | whole | all-reduce of P, in the last backward pass |
| zero2 | whole from the first forward to the last backward | 1/N | 1/N | gather P once, reduce-scatter m·P |
| zero3 | 1/N, one layer and the root whole at a time | 1/N | 1/N | gather m·(2·P - root), reduce-scatter m·P |

The root group is embedding, last norm and head. Under bfloat16 autocast every layer keeps bfloat16 copies of its
matrices for its backward pass, whatever the setting (2 bytes a parameter; none with activation checkpointing).

Gradients are SUMS over the processes (torch's default is the mean): the caller divides the loss by the labels of all.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from rinsho.errors import UserError
from rinsho.modeling import LossModule, RinshoForCausalLM
from rinsho.sizing import Parallelism

GRAPHS = 32  # a layer is compiled for masks or none, training or not, full and last batches: torch would stop at 8


@dataclass(frozen=True)
class World:
    """Which process this is (`rank` of `size`), and which card of its machine it takes (`local_rank`)."""

    rank: int
    size: int
    local_rank: int

    @property
    def main(self) -> bool:
        """Whether this is the process that writes, logs and prints."""
        return self.rank == 0


def world() -> World:
    """The place torchrun gave this process; (0, 1, 0) without torchrun."""
    given = os.environ
    return World(int(given.get("RANK", 0)), int(given.get("WORLD_SIZE", 1)), int(given.get("LOCAL_RANK", 0)))


@contextmanager
def joined(world: World, device_type: str) -> Iterator[None]:
    """Connects the processes for the block: gloo on a CPU, NCCL on GPUs, one GPU a process.

    Waits up to a day for each other: the first process may prepare data meanwhile.
    """
    if world.size == 1:
        yield
        return
    device = None
    if device_type == "cuda":
        device = torch.device("cuda", world.local_rank)
        torch.cuda.set_device(device)
    backend = "nccl" if device_type == "cuda" else "gloo"
    dist.init_process_group(
        backend, rank=world.rank, world_size=world.size, timeout=timedelta(days=1), device_id=device
    )
    yield
    # Not after an error: NCCL would wait here for processes that wait for this one, which torchrun ends instead.
    dist.destroy_process_group()


def sum_over_ranks(tensor: Tensor) -> Tensor:
    """The sum over all processes, as a new tensor on the same device; use float64 for losses and counts."""
    if not dist.is_initialized():
        return tensor.clone()
    total = tensor.detach().to(_meeting_place(), copy=True)
    dist.all_reduce(total)
    return total.to(tensor.device)


def tell_all(value: int) -> int:
    """What the first process passed, on every process; all have to call it."""
    if not dist.is_initialized():
        return value
    told = torch.tensor(value, dtype=torch.int64, device=_meeting_place())
    dist.broadcast(told, src=0)
    return int(told)


def _meeting_place() -> torch.device:
    """Where the backend can add tensors up."""
    return torch.device("cuda" if dist.get_backend() == "nccl" else "cpu")


def parallelise(
    model: RinshoForCausalLM,
    device: torch.device,
    *,
    parallelism: Parallelism = "ddp",
    compile: bool = False,
    activation_checkpointing: bool = False,
    fp8: bool = False,
    chunk_tokens: int | None = None,
) -> LossModule | DistributedDataParallel:
    """The module to call with (input_ids, position_ids, shift_labels): summed loss, ready for backward.

    `model` is changed in place and stays the object whose `named_parameters()` the optimizer takes and a checkpoint
    holds (same names in every layout); make the optimizer after this call. Weights stay float32, autocast computes
    lower.

    Layers are compiled one by one: documents are found from `position_ids` by a look at their values which is left out
    when a whole model is traced, and then they would see each other. The mask is made outside the compiled part.

    Raises:
        UserError: fp8 without torchao, or on a GPU that cannot multiply in it.
    """
    torch.nn.Module.to(model, device)
    if fp8:
        from rinsho.fp8 import to_fp8

        to_fp8(model, device)
    for layer in model.model.layers:
        if compile:
            torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, GRAPHS)
            layer.forward = torch.compile(layer.forward)
        if activation_checkpointing:
            # Outside the compiled part; saves and repeats the random state, so dropout is the same both times.
            layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)
    module = LossModule(model, chunk_tokens, compile_loss=compile and device.type == "cuda")
    if not dist.is_initialized():
        return module
    return _replicated(module) if parallelism == "ddp" else _sharded(module, device, parallelism)


def _replicated(module: LossModule) -> DistributedDataParallel:
    """The whole model in every process; gradients are added up in buckets while the backward pass goes on."""
    replicated = DistributedDataParallel(module, gradient_as_bucket_view=True)
    replicated.broadcast_buffers = False  # rotary frequencies never change (as an argument deprecated since torch 2.13)
    replicated.register_comm_hook(None, _add_up)
    return replicated


def _add_up(_, bucket):  # type: ignore[no-untyped-def]  # torch compares the annotations with classes, not strings
    future = dist.all_reduce(bucket.buffer(), async_op=True).get_future()
    return future.then(lambda done: done.value()[0])


def _sharded(module: LossModule, device: torch.device, parallelism: Parallelism) -> LossModule:
    """The rows of every matrix spread over the processes (FSDP2), one group a layer and one for all else.

    A group's parameters are gathered by its forward; zero3 frees a layer's right after it and gathers again before its
    backward pass, zero2 keeps them. The root's (embedding, last norm, head) stay in both: the loss comes last in
    forward and first in backward. Backward frees each group and reduce-scatters its gradients, which add up in pieces
    over micro-batches; in zero2 `last_part` puts the freeing off to the step's last micro-batch. Without gradients
    (validation) nothing calls backward, so a hook frees all after each call, or a checkpoint would meet whole
    parameters.
    """
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    for layer in module.model.model.layers:
        fully_shard(layer, mesh=mesh, reshard_after_forward=parallelism == "zero3")
    fully_shard(module, mesh=mesh, reshard_after_forward=False)
    for part in _fsdp_parts(module):
        part.set_gradient_divide_factor(1.0)
        part.set_force_sum_reduction_for_comms(True)  # gloo has no scaled sum, and a factor of 1 needs none

    def free(*_: Any) -> None:
        if not torch.is_grad_enabled():
            for part in _fsdp_parts(module):
                part.reshard()

    module.register_forward_hook(free)
    module.keeps_whole = parallelism == "zero2"
    return module


def _fsdp_parts(module: torch.nn.Module) -> list[FSDPModule]:
    return [part for part in module.modules() if isinstance(part, FSDPModule)]


@contextmanager
def last_part(module: torch.nn.Module, is_last: bool) -> Iterator[None]:
    """For the forward AND the backward of one micro-batch of a step; `is_last` ends the step.

    ddp: gradients stay in each process until the last one, which adds them up (one all-reduce of P a step). zero2:
    every micro-batch reduce-scatters its gradients, so only pieces are held; parameters are gathered by the first and
    freed by the last. zero3: every micro-batch does all of it.
    """
    if isinstance(module, DistributedDataParallel) and not is_last:
        with module.no_sync():
            yield
        return
    if isinstance(module, FSDPModule) and getattr(module, "keeps_whole", False):
        module.set_reshard_after_backward(is_last)
    yield


def whole(tensor: Tensor) -> Tensor:
    """The unsharded tensor; every process has to call it, in the same order. A plain tensor comes back as it is."""
    return tensor.full_tensor().detach() if isinstance(tensor, DTensor) else tensor


def local(tensor: Tensor) -> Tensor:
    """This process's part (sharing memory); a plain tensor comes back as it is."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def like(value: Tensor, target: Tensor) -> Tensor:
    """A copy of a whole tensor on `target`'s device, sharded as `target` is if it has its shape."""
    if not isinstance(target, DTensor) or value.shape != target.shape:
        return value.to(target.device, copy=True)
    made = torch.empty_like(target.detach(), dtype=value.dtype)
    assign(made, value)
    return made


@torch.no_grad()
def assign(target: Tensor, value: Tensor) -> None:
    """Copies a whole tensor into a (possibly sharded) parameter or state tensor; nothing is sent, each process has it.

    Raises:
        UserError: the shapes differ.
    """
    if target.shape != value.shape:
        raise UserError(
            f"a saved tensor has shape {tuple(value.shape)}",
            expected=str(tuple(target.shape)),
            todo="continue with the recipe of the checkpoint, or choose another --out",
        )
    if isinstance(target, DTensor):
        mesh, placements = target.device_mesh, target.placements
        value = local(distribute_tensor(value.to(target.device), mesh, placements, src_data_rank=None))
    local(target).copy_(value)
