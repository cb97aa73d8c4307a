"""Attention over the documents of packed rows as sequences of their own: no mask, and no work between documents.

Transformers' `sdpa` bounds documents by a mask of (B, 1, T, T), which costs the products of the whole triangle and
keeps torch's fastest kernel out. On a GPU that kernel also takes the documents' starts; `use_varlen` makes it known to
transformers under the name VARLEN. It needs float16 or bfloat16 and, unlike a mask, works with attention dropout.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from rinsho.errors import UserError

VARLEN = "varlen"


def use_attention(model: Any, name: str, device: torch.device) -> None:
    """Sets how the model computes attention: a name of transformers (sdpa, eager, flex_attention), or VARLEN.

    Raises:
        UserError: VARLEN on something other than a CUDA GPU.
    """
    if name == VARLEN:
        if device.type != "cuda":
            raise UserError("varlen attention runs on CUDA only", expected="sdpa on this machine")
        register_varlen()
    model.set_attn_implementation(name)


def register_varlen() -> None:
    """Makes VARLEN known to transformers; it makes no mask for it."""
    from transformers import AttentionInterface

    AttentionInterface.register(VARLEN, varlen_attention)


def document_starts(position_ids: Tensor) -> Tensor:
    """Starts of all documents in the flattened rows, and their end: (documents + 1,) int32.

    A document begins wherever `position_ids` (B, T) do not count on, and with every row.

    >>> document_starts(torch.tensor([[0, 1, 2, 0, 1], [0, 1, 0, 0, 1]])).tolist()
    [0, 3, 5, 7, 8, 10]
    """
    first = torch.ones_like(position_ids, dtype=torch.bool)
    first[:, 1:] = position_ids[:, 1:] != position_ids[:, :-1] + 1
    starts = first.flatten().nonzero()[:, 0]
    starts = torch.nn.functional.pad(starts, (0, 1), value=position_ids.numel()).int()
    torch._dynamo.maybe_mark_dynamic(starts, 0)  # batches differ in their documents: one compiled form for all
    return starts


def varlen_attention(
    _module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    _mask: None,
    scaling: float | None = None,
    dropout: float = 0.0,
    *,
    document_starts: Tensor,
    **_: Any,
) -> tuple[Tensor, None]:
    """Causal attention inside each document, in the form transformers asks for.

    query (B, heads, T, head size), key and value (B, key/value heads, T, head size); gives (B, T, heads, head size).
    """
    batch, _heads, time, _size = query.shape
    # Rotary positions leave float32 behind; autocast does not know this kernel.
    flat = [x.transpose(1, 2).flatten(0, 1).to(value.dtype) for x in (query, key, value)]
    # The row length bounds the longest document: no waiting for a number from the GPU, and no compiling again.
    output = _flash(*flat, document_starts, document_starts, time, time, dropout, True, False, scale=scaling)[0]
    return output.view(batch, time, *output.shape[1:]), None


def _flash(*inputs: Any, scale: float | None) -> tuple[Tensor, ...]:
    # torch.nn.attention.varlen, its public form, lacks dropout, and its arguments changed from release to release.
    result: tuple[Tensor, ...] = torch.ops.aten._flash_attention_forward(*inputs, scale=scale)
    return result
