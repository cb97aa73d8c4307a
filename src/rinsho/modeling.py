"""The training form of the model, and its loss.

Transformers' Arcee block with `hidden_act="silu"` is exactly the report's; added here are the scaled embedding, the
residual dropout, the initialisation, and a cross-entropy that never holds the logits of a whole batch.

Shapes: B rows, T tokens a row, N = B·T, D hidden size, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import ArceeConfig, ArceeForCausalLM

from rinsho.attention import VARLEN, document_starts
from rinsho.packing import number_of
from rinsho.sizing import CHUNK_TOKENS


class RinshoConfig(ArceeConfig):  # type: ignore
    """Arcee's settings and those it lacks; only ever held in memory, published folders are plain `arcee`."""

    model_type = "rinsho_training"
    embedding_scale: float = 1.0
    residual_dropout: float = 0.0
    residual_bf16: bool = False


class ScaledEmbedding(nn.Embedding):
    """Token embeddings times a constant. Weight decay and updates see the unscaled matrix. Source: N2.3-3.

    With `residual_bf16` their output takes autocast's number form, and with it everything that is added to them: half
    the bytes of every elementwise kernel on a GPU, at the price of rounding each sum of the residual stream to 8 bits.
    """

    residual_bf16 = False

    def __init__(self, num_embeddings: int, embedding_dim: int, scale: float) -> None:
        # No padding index: <|end_of_text|> is also the padding, and its row must learn.
        super().__init__(num_embeddings, embedding_dim)
        self.scale = scale

    def forward(self, input: Tensor) -> Tensor:
        """(B, T) int64 to (B, T, D)."""
        output = super().forward(input) * self.scale
        return output.to(_matrix_dtype(output)) if self.residual_bf16 else output


class RinshoForCausalLM(ArceeForCausalLM):  # type: ignore
    """Arcee with a scaled embedding and dropout on the residual branches."""

    config_class = RinshoConfig

    def __init__(self, config: RinshoConfig) -> None:
        super().__init__(config)
        self.model.embed_tokens = ScaledEmbedding(config.vocab_size, config.hidden_size, config.embedding_scale)
        self.model.embed_tokens.residual_bf16 = config.residual_bf16
        if config.tie_word_embeddings:
            self.lm_head.weight = self.model.embed_tokens.weight
        if config.residual_dropout > 0:
            for layer in self.model.layers:
                # On the branches, not on their last matrices: FP8 and adapters put other modules in those places.
                for branch in (layer.self_attn, layer.mlp):
                    branch.register_forward_hook(_dropout_hook(config.residual_dropout))


def _dropout_hook(probability: float) -> Any:
    def hook(module: nn.Module, _inputs: Any, output: Any) -> Any:
        if isinstance(output, tuple):  # attention gives its weights, too
            return nn.functional.dropout(output[0], probability, training=module.training), *output[1:]
        return nn.functional.dropout(output, probability, training=module.training)

    return hook


def initial_std(name: str, config: ArceeConfig) -> float | None:
    """Standard deviation a parameter starts with; None for norm gains, which start at 1. Source: N2.3-3."""
    sigma = math.sqrt(2 / (5 * config.hidden_size))
    if name.endswith(("o_proj.weight", "down_proj.weight")):
        return sigma / math.sqrt(2 * config.num_hidden_layers)
    if name == "lm_head.weight":
        return math.sqrt(2 / (config.hidden_size + config.vocab_size))
    return None if "norm" in name else sigma


@torch.no_grad()
def initialise(model: RinshoForCausalLM, seed: int) -> None:
    """Draws every parameter from a generator of its own; torch's global random state is not touched."""
    for name, parameter in model.named_parameters():  # a tied head appears once, as the embedding
        std = initial_std(name, model.config)
        if std is None:
            parameter.fill_(1.0)
        else:
            parameter.normal_(0.0, std, generator=_generator(seed, name))


@torch.no_grad()
def grow_vocabulary(model: RinshoForCausalLM, vocab_size: int, seed: int) -> None:
    """Adds rows at the end of embedding and head (chat tokens); old rows keep their values. Source: N2.4-2."""
    config = model.config
    old, added = config.vocab_size, vocab_size - config.vocab_size
    if added < 0:
        raise ValueError(f"the vocabulary can only grow: {old} to {vocab_size}")
    config.vocab_size = model.vocab_size = model.model.vocab_size = vocab_size
    for name, module in (("model.embed_tokens.weight", model.model.embed_tokens), ("lm_head.weight", model.lm_head)):
        if module.weight.shape[0] == vocab_size:
            continue
        rows = torch.empty(added, config.hidden_size)
        rows.normal_(0.0, initial_std(name, config) or 0.0, generator=_generator(seed, f"{name}:{old}"))
        module.weight = nn.Parameter(torch.cat([module.weight, rows.to(module.weight)]))
    model.model.embed_tokens.num_embeddings = model.lm_head.out_features = vocab_size
    if config.tie_word_embeddings:
        model.lm_head.weight = model.model.embed_tokens.weight


def unfold(folded: Tensor, scale: float) -> Tensor:
    """A matrix that times `scale` gives `folded` again, bit for bit wherever such a matrix exists."""
    best = folded / scale
    for candidate in (
        torch.nextafter(best, best.new_tensor(math.inf)),
        torch.nextafter(best, best.new_tensor(-math.inf)),
    ):
        best = torch.where((best * scale != folded) & (candidate * scale == folded), candidate, best)
    return best


class LossModule(nn.Module):
    """The model and its loss as one module: what is wrapped for several processes, whose hooks run around its forward.

    `model` stays the same object and is reached as `.model`; `chunk_tokens` as in `next_token_loss`.
    """

    keeps_whole = False  # zero2, see rinsho.distributed.last_part

    def __init__(self, model: Any, chunk_tokens: int | None = None, compile_loss: bool = False) -> None:
        super().__init__()
        self.model: Any = model
        self.chunk_tokens = chunk_tokens
        # The rows of the last chunk differ from batch to batch: one kernel for all numbers of them.
        self._part = torch.compile(_loss_of_part, dynamic=True) if compile_loss else _loss_of_part

    def forward(self, input_ids: Tensor, position_ids: Tensor, shift_labels: Tensor) -> Tensor:
        """The summed loss of `next_token_loss`."""
        return next_token_loss(self.model, input_ids, position_ids, shift_labels, self.chunk_tokens, self._part)


def default_chunk_tokens(device_type: str) -> int:
    """Tokens whose logits are held at one time: 8,192 on a GPU, 1,024 elsewhere.

    Every chunk rewrites the head's gradient, V·D numbers of 12 bytes moved (product written and read in bf16, sum read
    and written in float32), against 12 (compiled) to 34 (eager) for each of its chunk·V logits. With D = 2048 that is
    twice the logits' own traffic for 1,024 tokens and a quarter of it for 8,192, whose logits take 0.5 GiB (compiled,
    bf16, V = 32,768) to 2.5 GiB (eager). A processor keeps 1,024: there the products decide, and memory is what counts.
    """
    return CHUNK_TOKENS.get(device_type, CHUNK_TOKENS["cpu"])


def next_token_loss(  # noqa: PLR0917
    model: Any,
    input_ids: Tensor,
    position_ids: Tensor,
    shift_labels: Tensor,
    chunk_tokens: int | None = None,
    part: Callable[..., tuple[Tensor, Tensor | None]] | None = None,
) -> Tensor:
    """Summed cross-entropy in nats (float32 scalar) of every label that is not -100.

    Documents inside a row are told apart by `position_ids` that restart. No attention mask is passed and the cache is
    off: any other combination silently lets documents see each other.

    All three inputs are (B, T) int64; the label at t is the token that follows input t (already shifted). Logits of
    `chunk_tokens` tokens (default: `default_chunk_tokens`) are held at one time; `part` is a compiled
    `_loss_of_part`.
    """
    decoder, known = model.get_decoder(), {}
    if decoder.config._attn_implementation == VARLEN:
        known = {"document_starts": document_starts(position_ids)}
    hidden = decoder(input_ids=input_ids, position_ids=position_ids, use_cache=False, **known).last_hidden_state
    labels = shift_labels.flatten()
    hidden = hidden.flatten(0, 1)
    wanted = labels != -100
    if not bool(wanted.all()):
        hidden, labels = hidden[wanted], labels[wanted]
    weight = model.get_output_embeddings().weight
    if not torch.is_grad_enabled():  # `_ChunkedCrossEntropy` cannot see that, and would fill a gradient nobody wants
        weight = weight.detach()
    chunk = chunk_tokens or default_chunk_tokens(hidden.device.type)
    loss: Tensor = _ChunkedCrossEntropy.apply(  # type: ignore[no-untyped-call]
        hidden, weight, labels, chunk, _matrix_dtype(hidden), part or _loss_of_part
    )
    return loss


def _matrix_dtype(tensor: Tensor) -> torch.dtype:
    """The number form in which matrices are multiplied: autocast's, or the tensor's own."""
    if torch.is_autocast_enabled(tensor.device.type):
        return torch.get_autocast_dtype(tensor.device.type)
    return tensor.dtype


def _loss_of_part(hidden: Tensor, matrix: Tensor, labels: Tensor, with_gradient: bool) -> tuple[Tensor, Tensor | None]:
    """Summed loss of one chunk (float32 scalar), and its gradient by the logits (chunk, V) in the products' dtype."""
    target = labels[:, None]
    log_p = torch.log_softmax((hidden @ matrix.T).float(), dim=-1)
    loss = -log_p.gather(1, target).sum()
    if not with_gradient:
        return loss, None
    if torch.compiler.is_compiling():  # fuses with the softmax; never stands in memory
        hit = torch.arange(len(matrix), device=target.device) == target
        return loss, (log_p.exp() - hit.to(log_p.dtype)).to(hidden.dtype)
    grad = log_p.exp_()
    grad.scatter_add_(1, target, grad.new_full((1, 1), -1.0).expand_as(target))
    return loss, grad.to(hidden.dtype)


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Sum of -log softmax(hidden · weightᵀ)[labels]; gradients are made in the forward pass, chunk by chunk.

    Like Liger's fused linear cross-entropy (arXiv 2410.10989, section 3.2), in plain torch. The weight is needed in
    the forward pass alone, where a sharded one stands whole: its gradient goes the way of any other parameter's.
    """

    @staticmethod
    def forward(  # noqa: PLR0917  (torch passes them by position)
        ctx: Any, hidden: Tensor, weight: Tensor, labels: Tensor, chunk: int, dtype: torch.dtype, part: Any
    ) -> Tensor:
        need = ctx.needs_input_grad[0] or ctx.needs_input_grad[1]
        low, matrix = hidden.to(dtype), weight.to(dtype)
        total = hidden.new_zeros((), dtype=torch.float32)
        hidden_grad = torch.empty_like(hidden) if need else None
        weight_grad = torch.zeros_like(weight) if need else None
        for start in range(0, len(labels), chunk):
            rows = slice(start, start + chunk)
            loss, grad = part(low[rows], matrix, labels[rows], need)
            total += loss
            if hidden_grad is not None and weight_grad is not None:
                hidden_grad[rows] = grad @ matrix
                weight_grad += grad.T @ low[rows]
        if hidden_grad is not None and weight_grad is not None:
            ctx.save_for_backward(hidden_grad, weight_grad)
        return total

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor, Tensor, None, None, None, None]:
        hidden_grad, weight_grad = ctx.saved_tensors
        return hidden_grad * outer[0], weight_grad * outer[0], None, None, None, None


def _generator(seed: int, name: str) -> torch.Generator:
    return torch.Generator().manual_seed(number_of(f"{seed}:{name}"))
