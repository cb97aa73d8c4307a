"""A model's tensors under llama.cpp's names, in the `llama` and the `mimo2` flavour.

Our block has no gate: `down(silu(up(x)))`. llama.cpp's `arcee` computes squared ReLU there, whatever the file says, and
its converter takes our folders without a word: that name is never written. Two others compute our block:

* `llama`: gate = our up matrix, up = 0 with bias 1. Every program that reads Llama files reads it.
* `mimo2`: its gate is optional; without one it applies SiLU to up. One matrix less, so it is smaller and faster.

Source: neither 4; llama.cpp, src/models/llama.cpp and src/models/mimo2.cpp.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from rinsho.errors import UserError
from rinsho.export.weights import Weights

if TYPE_CHECKING:
    from torch import Tensor

Flavour = Literal["llama", "mimo2"]
LAYER = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}  # fmt: skip
TOP = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"


@dataclass(frozen=True)
class Planned:
    """One tensor of the file: name, shape (outermost first), and what makes it, in float32."""

    name: str
    shape: tuple[int, ...]
    make: Callable[[], Tensor]
    zero: bool = False


def plan(weights: Weights, flavour: Flavour) -> list[Planned]:
    """All tensors of the file, in its order.

    Raises:
        UserError: a tensor that the flavour has no place for.
    """
    planned = [row for name in weights.shapes for row in _of(weights, name, flavour)]
    if flavour == "mimo2" and HEAD not in weights.shapes:  # tied, and mimo2 must have a head
        planned.append(Planned("output.weight", weights.shapes[EMBEDDING], lambda: weights[EMBEDDING]))
    if flavour == "llama" and (factors := rope_factors(weights)) is not None:
        planned.append(Planned("rope_freqs.weight", tuple(factors.shape), lambda: factors))
    return planned


def is_ours(weights: Weights) -> bool:
    """Whether the model has our block: Arcee's, with SiLU."""
    return bool(weights.config.get("model_type") == "arcee" and weights.config.get("hidden_act") == "silu")


def head_dim(weights: Weights) -> int:
    """Width of an attention head."""
    config = weights.config
    return int(config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"])


def rope_factors(weights: Weights) -> Tensor | None:
    """What each rotation's frequency is divided by, (head_dim / 2,), of models with Llama 3's scaling; else None.

    Source: transformers, modeling_rope_utils.py; llama.cpp, conversion/llama.py.
    """
    rope = rope_of(weights)
    if rope["rope_type"] != "llama3":
        return None
    import math

    import torch

    factor, low, high = (float(rope[key]) for key in ("factor", "low_freq_factor", "high_freq_factor"))
    context = float(rope["original_max_position_embeddings"])
    width = head_dim(weights)
    lengths = 2 * math.pi * float(rope["rope_theta"]) ** (torch.arange(0, width, 2, dtype=torch.float64) / width)
    smooth = (context / lengths - low) / (high - low)
    between = 1 / ((1 - smooth) / factor + smooth)
    scaled = torch.where(lengths > context / low, torch.full_like(lengths, factor), between)
    return torch.where(lengths < context / high, torch.ones_like(lengths), scaled).float()


def rope_of(weights: Weights) -> dict[str, Any]:
    """Settings of the rotary embedding, with `rope_type` and `rope_theta`, of old and new configurations."""
    config = weights.config
    found = {**(config.get("rope_scaling") or {}), **(config.get("rope_parameters") or {})}
    found["rope_type"] = found.get("rope_type") or found.get("type") or "default"
    found.setdefault("rope_theta", config.get("rope_theta") or 10000.0)
    return found


def _of(weights: Weights, name: str, flavour: Flavour) -> Iterator[Planned]:
    """What one tensor of the folder becomes."""
    shape = weights.shapes[name]
    part, _, kind = name.rpartition(".")
    if part in TOP:
        yield Planned(f"{TOP[part]}.{kind}", shape, lambda: weights[name])
        return
    _, _, rest = part.partition("model.layers.")
    number, _, inner = rest.partition(".")
    if inner not in LAYER or kind not in {"weight", "bias"}:
        raise UserError(
            f"no place for the tensor {name}", where=weights.folder, expected="the tensors of a Llama or a rinsho model"
        )
    target = f"blk.{number}.{LAYER[inner]}.{kind}"
    if flavour == "llama" and inner in {"self_attn.q_proj", "self_attn.k_proj"}:
        yield Planned(target, shape, lambda: interleaved(weights[name], head_dim(weights)))
    elif flavour == "llama" and inner == "mlp.up_proj" and is_ours(weights):
        yield from _without_gate(weights, name, number, shape)
    else:
        yield Planned(target, shape, lambda: weights[name])


def _without_gate(weights: Weights, name: str, number: str, shape: tuple[int, ...]) -> Iterator[Planned]:
    """Our up matrix as the gate of a Llama block whose up branch is 1 everywhere."""
    import torch

    yield Planned(f"blk.{number}.ffn_gate.weight", shape, lambda: weights[name])
    yield Planned(f"blk.{number}.ffn_up.weight", shape, lambda: torch.zeros(shape), zero=True)
    yield Planned(f"blk.{number}.ffn_up.bias", shape[:1], lambda: torch.ones(shape[0]))


def interleaved(tensor: Tensor, width: int) -> Tensor:
    """Rows of a query or key matrix in llama.cpp's order: it rotates neighbours, transformers halves of a head."""
    heads = tensor.shape[0] // width
    return tensor.reshape(heads, 2, width // 2, *tensor.shape[1:]).transpose(1, 2).reshape(tensor.shape)
