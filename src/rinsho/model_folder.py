"""A model as a folder that stock transformers opens, and back.

While training, token embeddings are multiplied by the scale in the forward pass (`rinsho.modeling`). A published
folder has the scale multiplied into the matrix (folded) and is plain `arcee`; `rinsho.json` in it keeps the scale.

Importing this file loads no torch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rinsho.errors import UserError
from rinsho.files import write_atomic
from rinsho.model import no_stock_init

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from rinsho.modeling import RinshoForCausalLM

MANIFEST, WEIGHTS = "rinsho.json", "model.safetensors"
DOCUMENTS = "train_documents.txt"  # of a tuned model: a key (`rinsho.overlap`) a line of what it was tuned on
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"


def save_folded(
    model: RinshoForCausalLM,
    tokenizer: PreTrainedTokenizerBase | None,
    folder: Path,
    extra: Mapping[str, Any] | None = None,
    dtype: Literal["float32", "bfloat16"] = "float32",
) -> None:
    """`publish` of a model in memory."""
    publish(model.config, dict(model.named_parameters()), tokenizer, folder, extra, dtype)


def publish(  # noqa: PLR0917
    config: Any,
    weights: Mapping[str, Tensor],
    tokenizer: PreTrainedTokenizerBase | None,
    folder: Path,
    extra: Mapping[str, Any] | None = None,
    dtype: Literal["float32", "bfloat16"] = "float32",
) -> None:
    """Writes a folder that stock transformers opens as `arcee`, with the same logits (bitwise in float32).

    The scale goes into the embedding matrix, a tied head is written out as a matrix of its own. `rinsho.json` keeps
    what `load_unfolded` needs, and `extra`. Existing files of the same names are replaced. No model is built and no
    random number drawn, so a thread may call this while training goes on.

    Args:
        config: of the training model.
        weights: its parameters under their names (a tied head has none of its own), whole, float32.
        tokenizer: saved beside the model.
        folder: made if it is not there.
        extra: more entries for `rinsho.json`.
        dtype: number form of the published weights.
    """
    import torch
    from safetensors.torch import save_file
    from transformers import ArceeConfig, GenerationConfig

    stock = ArceeConfig(
        **{key: getattr(config, key) for key in _PUBLISHED},
        hidden_act="silu",
        attention_dropout=0.0,
        tie_word_embeddings=False,
        use_cache=True,
        architectures=["ArceeForCausalLM"],
        dtype=getattr(torch, dtype),
    )
    published = _published(config, weights, stock.dtype)
    tied = published[HEAD].numel() if config.tie_word_embeddings else 0
    folder.mkdir(parents=True, exist_ok=True)
    stock.save_pretrained(folder)
    GenerationConfig(  # type: ignore[no-untyped-call]
        bos_token_id=config.bos_token_id, eos_token_id=config.eos_token_id, pad_token_id=config.pad_token_id
    ).save_pretrained(folder)
    save_file(published, folder / WEIGHTS, metadata={"format": "pt"})
    # safetensors makes files that nobody else may read
    (folder / WEIGHTS).chmod((folder / "config.json").stat().st_mode)
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)
    manifest = {
        "form": "arcee with the embedding scale folded in",
        "embedding_scale": config.embedding_scale,
        "tied_while_training": bool(config.tie_word_embeddings),
        "attention_dropout_while_training": config.attention_dropout,
        "residual_dropout_while_training": config.residual_dropout,
        "parameters": sum(tensor.numel() for tensor in published.values()) - tied,
        **(extra or {}),
    }
    write_atomic(folder / MANIFEST, json.dumps(manifest, ensure_ascii=False, indent=2) + "\n")


def _published(config: Any, weights: Mapping[str, Tensor], dtype: Any) -> dict[str, Tensor]:
    """The tensors of the stock model: the scale folded in, a tied head as a matrix of its own."""
    import torch

    published: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        given = tensor.detach().to("cpu", torch.float32)
        folded = given * config.embedding_scale if name == EMBEDDING else given
        published[name] = folded.to(dtype).contiguous()
        if name == EMBEDDING and config.tie_word_embeddings:
            published[HEAD] = given.to(dtype).contiguous()
    if published.keys() != _stock_names(config.num_hidden_layers):
        raise ValueError("these are not the parameters of this model")
    return published


def load_folded(folder: Path) -> PreTrainedModel:
    """The published model as stock transformers opens it, in the folder's dtype, in evaluation mode."""
    from transformers import AutoModelForCausalLM
    from transformers.utils.logging import disable_progress_bar

    _must_be_model(folder)
    disable_progress_bar()  # type: ignore[no-untyped-call]
    model: Any = AutoModelForCausalLM.from_pretrained(
        folder, local_files_only=True, trust_remote_code=False, dtype="auto"
    )
    return model.eval()  # type: ignore[no-any-return]


def load_unfolded(
    folder: Path, *, attention_dropout: float | None = None, residual_dropout: float | None = None
) -> RinshoForCausalLM:
    """The training model of a published folder, in float32, with the scale taken out of its embedding again.

    Folding it again gives the same bits. Dropouts default to those the folder was trained with; a folder without
    `rinsho.json` is taken as a plain Arcee model (scale 1, no residual dropout).

    Raises:
        UserError: no model folder, or not an Arcee model with the SiLU block.

    Source: N2.4-5.
    """
    import torch

    from rinsho.modeling import RinshoConfig, RinshoForCausalLM, unfold

    stock: Any = load_folded(folder).float()  # type: ignore[no-untyped-call]
    if stock.config.model_type != "arcee" or stock.config.hidden_act != "silu":
        raise UserError(
            f"the model is of type {stock.config.model_type}", where=folder, expected="arcee with hidden_act silu"
        )
    manifest = read_manifest(folder)
    weights = {name: tensor.detach() for name, tensor in stock.state_dict().items()}
    scale = float(manifest.get("embedding_scale", 1.0))
    tied = bool(manifest.get("tied_while_training", stock.config.tie_word_embeddings))
    folded, head = weights[EMBEDDING], weights[HEAD]
    # A tied head is the unscaled matrix itself: the exact values come from there.
    if tied and torch.equal(head * scale, folded):
        weights[EMBEDDING] = head
    else:
        tied = tied and scale == 1.0
        weights[EMBEDDING] = unfold(folded, scale)
    dropouts = (attention_dropout, residual_dropout)
    attention, residual = (
        given if given is not None else float(manifest.get(f"{name}_dropout_while_training", 0.0))
        for given, name in zip(dropouts, ("attention", "residual"), strict=True)
    )
    config = RinshoConfig(
        **{key: getattr(stock.config, key) for key in _PUBLISHED},
        hidden_act="silu",
        attention_dropout=attention,
        residual_dropout=residual,
        embedding_scale=scale,
        tie_word_embeddings=tied,
        use_cache=False,
    )
    with no_stock_init():
        model = RinshoForCausalLM(config)
    model.load_state_dict(weights)
    return model


def read_manifest(folder: Path) -> dict[str, Any]:
    """`rinsho.json` of a model folder; empty for a folder that is not ours."""
    try:
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError:
        raise UserError("not valid JSON", where=folder / MANIFEST, todo="make the model folder again") from None
    return manifest


_PUBLISHED = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "max_position_embeddings",
    "rope_parameters",
    "rms_norm_eps",
    "initializer_range",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
)


def _stock_names(layers: int) -> set[str]:
    """Names of all weights of an Arcee model."""
    of_a_layer = [f"self_attn.{part}_proj" for part in "qkvo"] + ["mlp.up_proj", "mlp.down_proj"]
    of_a_layer += ["input_layernorm", "post_attention_layernorm"]
    names = {f"model.layers.{layer}.{name}.weight" for layer in range(layers) for name in of_a_layer}
    return names | {EMBEDDING, HEAD, "model.norm.weight"}


def _must_be_model(folder: Path) -> None:
    if not (folder / "config.json").is_file():
        raise UserError(
            "no model in here",
            where=folder,
            expected="a folder with config.json and model.safetensors",
            todo="check the path",
        )
