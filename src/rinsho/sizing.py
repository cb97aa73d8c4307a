"""What a model costs, by arithmetic alone: FLOPs a token, memory of a training step, the key/value cache.

Names in the formulas: N parameters, L layers, D hidden size, I MLP size, H query heads and K key/value heads of E
numbers each, V vocabulary, T tokens a row, B rows computed at a time. Importing this file loads no torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from rinsho.model import ModelSettings, count_parameters, parameters_by_part

FLOAT32 = 4
CHUNK_TOKENS = {"cpu": 1024, "cuda": 8192}  # what `loss_chunk_tokens: null` means
Parallelism = Literal["ddp", "zero2", "zero3"]


@dataclass(frozen=True)
class Flops:
    """Floating-point operations of one token, forward and backward; a multiplication with its addition counts two.

    Attributes:
        matrices: 6 · (N − input embedding); a tied head multiplies and counts.
        attention: 12 · L · H · E · T, as if every token saw the whole row.
    """

    matrices: int
    attention: int

    @property
    def total(self) -> int:
        """What published MFU figures divide by the peak. Source: PaLM, arXiv 2204.02311, appendix B."""
        return self.matrices + self.attention

    @property
    def causal(self) -> int:
        """With half the attention: what a causal kernel computes when a row is one document."""
        return self.matrices + self.attention // 2


def settings_of(config: Any) -> ModelSettings:
    """The sizes of a transformers configuration of the Arcee block, given as the object or as the JSON of its file.

    Raises:
        ValueError: heads that do not divide the hidden size, which our settings cannot say.
    """
    values: Mapping[str, Any] = config if isinstance(config, Mapping) else config.to_dict()
    scale = float(values.get("embedding_scale", 1.0))
    width = int(values["hidden_size"])
    heads = int(values["num_attention_heads"])
    settings = ModelSettings.model_validate(
        {
            "hidden_size": width,
            "intermediate_size": values["intermediate_size"],
            "num_hidden_layers": values["num_hidden_layers"],
            "num_attention_heads": heads,
            "num_key_value_heads": values.get("num_key_value_heads") or heads,
            "max_position_embeddings": values["max_position_embeddings"],
            "attention_dropout": values.get("attention_dropout", 0.0),
            "residual_dropout": values.get("residual_dropout", 0.0),
            "embedding_scale": "sqrt_d" if math.isclose(scale, math.sqrt(width)) else "none",
            "tie_word_embeddings": bool(values.get("tie_word_embeddings", False)),
        }
    )
    if settings.head_dim != (values.get("head_dim") or settings.head_dim):
        raise ValueError(f"heads of {values['head_dim']} numbers, hidden_size / num_attention_heads is another size")
    return settings


def flops_per_token(settings: ModelSettings, vocab_size: int, sequence_length: int) -> Flops:
    """FLOPs to train on one token.

    Source: PaLM, arXiv 2204.02311, appendix B.

    >>> flops = flops_per_token(ModelSettings.model_validate("ncvc-slm-1"), 32_768, 2048)
    >>> [f"{count:.2e}" for count in (flops.matrices, flops.total, flops.causal)]
    ['6.75e+09', '7.95e+09', '7.35e+09']
    """
    parts = parameters_by_part(settings, vocab_size)
    multiplied = parts["attention"] + parts["mlp"] + parts["norms"] + vocab_size * settings.hidden_size
    width = settings.num_attention_heads * settings.head_dim
    return Flops(6 * multiplied, 12 * settings.num_hidden_layers * width * sequence_length)


def kv_cache_bytes_per_token(settings: ModelSettings, bytes_per_number: float = 2) -> int:
    """Bytes that a generated or read token keeps in the key/value cache: 2 · L · K · E numbers.

    >>> kv_cache_bytes_per_token(ModelSettings.model_validate("ncvc-slm-1")) // 1024
    48
    """
    width = settings.num_key_value_heads * settings.head_dim
    return int(2 * settings.num_hidden_layers * width * bytes_per_number)


@dataclass(frozen=True)
class Memory:
    """Bytes on one device at the peak of a step from the second on (the optimizer's state exists by then).

    Attributes:
        weights: float32, with what ZeRO gathers.
        gradients: float32, with what is on its way to the other processes.
        optimizer: AdamW's two moments; one momentum where Muon is at work.
        casts: weights of the blocks in bfloat16, kept from the forward to the backward pass.
        activations: what the forward pass keeps for the backward pass; with checkpointing the blocks' inputs.
        recomputed: with checkpointing, one block's activations, when the loss's memory is free again.
        loss: logits of one chunk, and the gradients of head and last hidden states, made in the forward pass.
        update: room that the optimizer's step takes, when activations and loss are gone already.
    """

    weights: int
    gradients: int
    optimizer: int
    casts: int
    activations: int
    recomputed: int
    loss: int
    update: int

    @property
    def total(self) -> int:
        """The larger of two moments: the end of the forward pass, and the optimizer's step."""
        return self.weights + self.gradients + self.optimizer + max(self.passes, self.update)

    @property
    def passes(self) -> int:
        """What exists only between the begin of the forward and the end of the backward pass."""
        return self.casts + self.activations + max(self.loss, self.recomputed)

    @property
    def largest(self) -> str:
        """The part that dominates."""
        names = ("weights", "gradients", "optimizer", "casts", "activations", "recomputed", "loss")
        counted = names if self.passes >= self.update else (*names[:3], "update")
        return max(counted, key=lambda name: int(getattr(self, name)))


def training_memory(
    settings: ModelSettings,
    vocab_size: int,
    *,
    sequence_length: int,
    micro_batch_rows: int,
    parallelism: Parallelism = "ddp",
    processes: int = 1,
    optimizer: Literal["adamw", "muon"] = "adamw",
    bf16: bool = True,
    activation_checkpointing: bool = False,
    document_bounds: bool = True,
    compiled: bool = False,
    attention: str = "sdpa",
    chunk_tokens: int | None = None,
    device: Literal["cuda", "cpu"] = "cuda",
) -> Memory:
    """What one device holds while it trains, as `rinsho.pretrain` does it: float32 weights and gradients.

    Left out: the context of the driver (about 0.5 GB), fragments of the allocator, the buffers of the network.

    Args:
        settings: the model.
        vocab_size: rows of the embedding.
        sequence_length: T.
        micro_batch_rows: B, rows computed at a time.
        parallelism: who holds what: everything everywhere (ddp), gradients and moments shared out (zero2), weights
            too (zero3, gathered layer by layer).
        processes: devices that share.
        optimizer: muon keeps one moment instead of two for the matrices of the blocks.
        bf16: matrix products in bfloat16.
        activation_checkpointing: keep only each block's input, and compute the block again.
        document_bounds: documents in a row do not see each other; costs a B · T · T mask under `sdpa`.
        compiled: blocks went through torch.compile, which keeps less.
        attention: its kernel; `eager` keeps score matrices, `sdpa` needs a mask for document bounds.
        chunk_tokens: tokens whose logits exist at one time; default as in `rinsho.modeling`.
        device: `cpu` keeps dropout masks in full width, and score matrices with attention dropout.
    """
    weights, gradients = _weights_and_gradients(settings, vocab_size, parallelism, processes)
    shares = 1 if parallelism == "ddp" else processes
    moments, update = _optimizer(settings, vocab_size, optimizer, shares=shares, bf16=bf16)
    layer = layer_activation_bytes(
        settings, micro_batch_rows, sequence_length, bf16=bf16, document_bounds=document_bounds, compiled=compiled,
        attention=attention, device=device,
    )  # fmt: skip
    tokens = micro_batch_rows * sequence_length
    kept = tokens * FLOAT32 * settings.hidden_size if activation_checkpointing else layer
    # Beside the blocks: a mask of one byte a pair of tokens, which each block turns into its own number form.
    mask = tokens * sequence_length if document_bounds and attention == "sdpa" else 0
    chunk = min(chunk_tokens or CHUNK_TOKENS[device], tokens)
    return Memory(
        weights=weights,
        gradients=gradients,
        optimizer=moments,
        casts=cast_bytes(settings, one_layer=activation_checkpointing and compiled) if bf16 else 0,
        activations=settings.num_hidden_layers * kept + mask + tokens * outer_activation_bytes(settings),
        recomputed=layer if activation_checkpointing else 0,
        loss=_loss(settings, vocab_size, tokens, chunk, bf16=bf16, compiled=compiled and device == "cuda"),
        update=update,
    )


def recipe_memory(
    recipe: Any,
    settings: ModelSettings,
    vocab_size: int,
    *,
    processes: int = 1,
    device: Literal["cuda", "cpu"] = "cuda",
    **changes: Any,
) -> Memory:
    """`training_memory` of a recipe of `rinsho.pretrain`; `changes` are arguments that shall differ from it.

    `dtype: auto` counts as bf16 on a graphics card and as float32, the larger one, on a processor.
    """
    on_card = device == "cuda"
    arguments = {
        "sequence_length": recipe.sequence_length,
        "micro_batch_rows": recipe.micro_batch_rows,
        "parallelism": recipe.parallelism,
        "optimizer": recipe.optimizer,
        "bf16": recipe.dtype == "bf16" or (recipe.dtype == "auto" and on_card),
        "activation_checkpointing": recipe.activation_checkpointing,
        "document_bounds": recipe.document_bounds,
        "compiled": on_card if recipe.compile == "auto" else recipe.compile,
        "attention": recipe.attn_implementation,
        "chunk_tokens": recipe.loss_chunk_tokens,
    }
    return training_memory(settings, vocab_size, processes=processes, device=device, **(arguments | changes))


def layer_activation_bytes(
    settings: ModelSettings,
    micro_batch_rows: int,
    sequence_length: int,
    *,
    bf16: bool = True,
    document_bounds: bool = True,
    compiled: bool = False,
    attention: str = "sdpa",
    device: Literal["cuda", "cpu"] = "cuda",
) -> int:
    """Bytes that autograd keeps of one block, its own weights left out.

    The residual stream and the norms are float32 in either arithmetic. With b bytes a number in matrix products, a
    token keeps

        norms       16·D + 8            two inputs, two normalised rows, two roots
        inputs       8·D                of q, k, v (a bfloat16 copy for each) and of the first MLP matrix
        attention   b·(2·H·E + 2·K·E) + 4·H     q, k, v, output, sums; K = H and b·T more under a mask
        MLP          2·b·I              before and after SiLU
        dropout      2·D                one byte a number and branch (b on a processor)

    torch.compile makes norms and the output of the attention's last matrix anew: 4·D + 8 and 4·b·D in place of
    16·D + 8, 8·D and b·H·E. Measured: tests/test_sizing.py.
    """
    d, b = settings.hidden_size, 2 if bf16 else FLOAT32
    tokens, width = micro_batch_rows * sequence_length, settings.num_attention_heads * settings.head_dim
    kept = 4 * d + 8 + 3 * b * d if compiled else 24 * d + 8
    kept += 2 * b * settings.intermediate_size
    if settings.residual_dropout:
        kept += 2 * d * (b if device == "cpu" and not compiled else 1)
    noise = (1 if device == "cuda" else FLOAT32) if settings.attention_dropout else 0
    scores = settings.num_attention_heads * sequence_length
    if attention == "eager":
        kept += 4 * b * width + scores * (FLOAT32 + noise + (b if bf16 or noise else 0))
    elif attention == "sdpa" and device == "cpu" and noise:
        kept += (3 * FLOAT32 + b) * width + 3 * FLOAT32 * scores
    else:
        masked = attention == "sdpa" and document_bounds
        key_value = width if masked else settings.num_key_value_heads * settings.head_dim
        kept += b * (2 * width + 2 * key_value) + FLOAT32 * settings.num_attention_heads
        kept += b * sequence_length if masked else 0
    return tokens * kept


def outer_activation_bytes(settings: ModelSettings) -> int:
    """Bytes a token keeps outside the blocks: ids, the rotary angles' sines and cosines, the last norm."""
    return 8 + 2 * FLOAT32 * settings.head_dim + 8 * settings.hidden_size + 4


def cast_bytes(settings: ModelSettings, one_layer: bool = False) -> int:
    """Bytes of the blocks' matrices in bfloat16; autograd keeps them for the backward pass."""
    parts = parameters_by_part(settings, 0)
    whole = 2 * (parts["attention"] + parts["mlp"])
    return whole // settings.num_hidden_layers if one_layer else whole


def _loss(settings: ModelSettings, vocab_size: int, tokens: int, chunk: int, *, bf16: bool, compiled: bool) -> int:
    """`rinsho.modeling`'s cross-entropy: logits and log-probabilities of a chunk, the gradient of the one before."""
    b, head = 2 if bf16 else FLOAT32, vocab_size * settings.hidden_size
    logits = chunk * vocab_size * (3 * b if compiled else 2 * FLOAT32 + b)
    low = b if bf16 else 0  # copies of head and hidden states in bfloat16
    return logits + head * (FLOAT32 + b + low) + tokens * settings.hidden_size * (2 * FLOAT32 + low)


def _weights_and_gradients(
    settings: ModelSettings, vocab_size: int, parallelism: Parallelism, processes: int
) -> tuple[int, int]:
    whole = FLOAT32 * count_parameters(settings, vocab_size)
    if processes == 1:
        return whole, whole
    if parallelism == "ddp":
        return whole, whole  # gradients live in the buckets that are sent
    parts = parameters_by_part(settings, vocab_size)
    root = FLOAT32 * (parts["embedding"] + parts["head"] + settings.hidden_size)
    layer = (whole - root) // settings.num_hidden_layers
    share = -(-whole // processes)
    gathered = whole if parallelism == "zero2" else root + 2 * layer  # one layer at work, the next one on its way
    # The gradients of embedding and head are whole until they are sent: as they are, and laid out to be sent.
    return share + gathered, share + 2 * max(root, layer)


def _optimizer(settings: ModelSettings, vocab_size: int, optimizer: str, *, shares: int, bf16: bool) -> tuple[int, int]:
    """Bytes of the moments, and of the copies that Muon makes of all matrices of one shape."""
    parts = parameters_by_part(settings, vocab_size)
    moments, update = 2 * FLOAT32 * sum(parts.values()), 0
    if optimizer == "muon":
        moments -= FLOAT32 * (parts["attention"] + parts["mlp"])
        most = settings.num_hidden_layers * settings.hidden_size
        most *= max(2 * settings.hidden_size, settings.intermediate_size)
        update = most * (14 if bf16 else 18)  # updates, stack, iterate and its product, result
    return -(-moments // shares), -(-update // shares)
