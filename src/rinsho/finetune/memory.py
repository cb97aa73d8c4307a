"""What tuning will take, told before the first step: trained parameters, and memory by its parts.

Weights, gradients and optimizer are counted on the model that stands there. What the forward pass keeps depends on
the architecture, the kind of adapter, the quantisation and the arithmetic, so it is not put into a formula but
measured on short rows: B rows of T tokens keep

    a + B · (b·T + c·T²)    bytes;

a: weights cast to another number form; b: activations; c: the mask of packed rows (with eager attention, scores too).
Three lengths of row give a, b and c. Added are the logits: 12 bytes for each of N · V numbers when the backward pass
begins (log-probabilities, their gradient, the gradient of the logits), N the labels (at most B·T), V the vocabulary.
With activation checkpointing the same is measured again, and one block's share of the difference is computed anew.

On a processor the C library keeps freed room. Beside the large tensors an adapter makes small ones, which stand in the
way of using that room again: twice the activations were measured, and 0.2 GiB of scratch room in every case. Told
divided by measured (Linux, glibc, 18 and 22 million parameters, rows of 1,024 and 4,096 tokens at a time; full, LoRA,
int8, nf4, checkpointing, bf16): 0.80 to 1.22.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rinsho.device import in_bfloat16
from rinsho.finetune import Recipe, optimizer_kind
from rinsho.finetune.models import Loaded, compute_twice
from rinsho.modeling import RinshoForCausalLM, default_chunk_tokens
from rinsho.optim import BLOCK_NUMBERS, LEAST_8BIT_NUMBERS

FLOAT32 = 4
LENGTHS = (16, 32, 48)  # of the rows that are measured; each is two documents
GIB = 2**30
SCRATCH = GIB // 5  # on a processor


@dataclass(frozen=True)
class Memory:
    """Bytes at the peak of a step, and numbers of parameters.

    Left out is what the program itself takes before it has a model (0.3 to 1 GiB).

    Attributes:
        weights: as they lie there, with the scales of quantised ones and of buffers.
        gradients: of what is trained, float32.
        optimizer: the moments.
        activations: what exists only within a step: what the forward pass keeps, logits, or the optimizer's scratch
            room; on a processor with what the C library holds back.
        trainable: parameters that are trained.
        frozen: parameters that are not.
    """

    weights: int
    gradients: int
    optimizer: int
    activations: int
    trainable: int
    frozen: int

    @property
    def total(self) -> int:
        """Bytes of all parts."""
        return self.weights + self.gradients + self.optimizer + self.activations

    def line(self) -> str:
        """One line for people.

        >>> Memory(9_650_176, 147_456, 294_912, 322_122_547, 36_864, 2_375_680).line()
        'trained 36,864 of 2,412,544 parameters (1.5 %); memory about 0.31 GiB: weights 0.01, gradients 0.00, \
optimizer 0.00, activations 0.30'
        """
        names = ("weights", "gradients", "optimizer", "activations")
        parts = ", ".join(f"{name} {getattr(self, name) / GIB:.2f}" for name in names)
        whole = self.trainable + self.frozen
        return (
            f"trained {self.trainable:,} of {whole:,} parameters ({100 * self.trainable / whole:.1f} %); "
            f"memory about {self.total / GIB:.2f} GiB: {parts}"
        )


def predict(loaded: Loaded, recipe: Recipe) -> Memory:
    """The memory that tuning this model with this recipe takes.

    Runs a few tokens forward; changes neither the model nor torch's random state.
    """
    model = loaded.model
    whole = sum(_numbers(parameter) for parameter in model.parameters())
    trainable = sum(parameter.numel() for parameter in loaded.trained.values())
    optimizer, scratch = _optimizer(loaded, recipe)
    return Memory(
        weights=_weights(model),
        gradients=FLOAT32 * trainable,
        optimizer=optimizer,
        activations=max(_activations(loaded, recipe), scratch),
        trainable=trainable,
        frozen=whole - trainable,
    )


def _weights(model: Any) -> int:
    """Bytes of parameters, buffers and bitsandbytes' scales; what is shared counts once."""
    found: dict[int, int] = {}

    def count(value: Any) -> None:
        if isinstance(value, Tensor) and value.device.type != "meta":
            storage = value.untyped_storage()
            found[storage.data_ptr()] = storage.nbytes()

    for parameter in model.parameters():
        count(parameter.data)
        count(getattr(parameter, "SCB", None))
        state = getattr(parameter, "quant_state", None)
        for part in (state, getattr(state, "state2", None)):
            for value in vars(part).values() if part is not None else ():
                count(value)
    for module in model.modules():
        count(getattr(getattr(module, "state", None), "SCB", None))
    for buffer in model.buffers():
        count(buffer)
    return sum(found.values())


def _numbers(parameter: Any) -> int:
    """Numbers of a parameter; NF4 packs two into a byte."""
    state = getattr(parameter, "quant_state", None)
    shape: tuple[int, ...] = state.shape if state is not None else parameter.shape
    return math.prod(shape)


def _optimizer(loaded: Loaded, recipe: Recipe) -> tuple[int, int]:
    """Bytes of the moments, and of what Muon makes of all matrices of one shape at a time."""
    moments, shapes = 0, Counter[tuple[int, ...]]()
    for name, parameter in loaded.trained.items():
        count = parameter.numel()
        if optimizer_kind(recipe) == "muon" and "layers." in name and parameter.ndim == 2 and name not in loaded.rates:
            moments += FLOAT32 * count
            shapes[tuple(parameter.shape)] += count
        elif optimizer_kind(recipe) == "adamw_8bit" and count >= LEAST_8BIT_NUMBERS:
            moments += 2 * (count + FLOAT32 * -(-count // BLOCK_NUMBERS))
        else:
            moments += 2 * FLOAT32 * count
    low = in_bfloat16("auto", loaded.model.device)
    return moments, (14 if low else 18) * max(shapes.values(), default=0)  # as in rinsho.sizing


def _activations(loaded: Loaded, recipe: Recipe) -> int:
    model = loaded.model
    kept = _measured(loaded, recipe)
    if recipe.activation_checkpointing:
        compute_twice(model, False)
        whole = _measured(loaded, recipe)
        compute_twice(model, True)
        kept += max(0, whole - kept) // model.config.get_text_config().num_hidden_layers
    tokens = _copies(recipe) * rows_at_once(recipe) * recipe.sequence_length
    vocabulary = model.get_output_embeddings().weight.shape[0]
    if isinstance(model, RinshoForCausalLM):  # a chunk of them; gradients of head and hidden states made with them
        width, chunk = model.config.hidden_size, min(tokens, default_chunk_tokens(model.device.type))
        logits = chunk * vocabulary * 10 + vocabulary * width * 2 * FLOAT32 + tokens * width * 2 * FLOAT32
    else:
        logits = tokens * vocabulary * 3 * FLOAT32
    if model.device.type != "cpu":
        return int(kept + logits)
    return int((2 if loaded.kind == "adapter" else 1) * (kept + logits) + SCRATCH)


def rows_at_once(recipe: Recipe) -> int:
    """Rows that a step computes at a time, without SymNoise's copies; no other part of a tuning computes more.

    >>> rows_at_once(Recipe(batch_tokens=2048, sequence_length=512)), rows_at_once(Recipe(micro_batch_rows=3))
    (4, 3)
    """
    return max(1, min(recipe.micro_batch_rows, recipe.batch_tokens // recipe.sequence_length))


def _copies(recipe: Recipe) -> int:
    """How often each row is computed."""
    return 2 if recipe.neftune_alpha and recipe.noise == "symnoise" else 1


def _measured(loaded: Loaded, recipe: Recipe) -> int:
    """Bytes that autograd keeps of a micro-batch, without its logits."""
    rows, length = _copies(recipe) * rows_at_once(recipe), recipe.sequence_length
    first, second, third = (_kept(loaded, recipe, size) for size in LENGTHS)  # of one row each
    step = LENGTHS[1] - LENGTHS[0]
    square = (third - 2 * second + first) / (2 * step**2)
    slope = (second - first) / step - square * (LENGTHS[0] + LENGTHS[1])
    constant = first - slope * LENGTHS[0] - square * LENGTHS[0] ** 2
    return int(max(0, constant) + rows * (slope * length + max(0, square) * length**2))


def _kept(loaded: Loaded, recipe: Recipe, length: int) -> int:
    """Bytes that autograd keeps of one row in the blocks; parameters left out."""
    model = loaded.model
    own = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    found: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            found[storage.data_ptr()] = storage.nbytes()
        return tensor

    device = model.device
    half = length // 2 if recipe.pack else length
    positions = (torch.arange(length, device=device) % half)[None]
    ids = torch.zeros_like(positions)
    whole = model.get_base_model() if hasattr(model, "get_base_model") else model
    with (
        torch.random.fork_rng([device] if device.type == "cuda" else []),
        torch.autocast(device.type, torch.bfloat16, in_bfloat16(recipe.dtype, device)),
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
    ):
        result = whole.get_decoder()(input_ids=ids, position_ids=positions, use_cache=False)
    del result  # held up to here everything that was counted
    return sum(found.values())
