"""The model to tune: ours with its embedding scale taken out, any causal language model, or an adapter on either."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from rinsho.adapters import save_adapter
from rinsho.bases import base_digest, grow, quantized_base, quiet, token_count
from rinsho.chat_template import Renderer, set_form
from rinsho.errors import UserError
from rinsho.files import write_atomic
from rinsho.finetune import Recipe, methods
from rinsho.generate.loading import load_model, load_tokenizer
from rinsho.model_folder import MANIFEST, load_unfolded, read_manifest, save_folded
from rinsho.modeling import RinshoForCausalLM, grow_vocabulary, next_token_loss
from rinsho.tokenization import RinshoTokenizer

NO_WINDOW = 1 << 20  # of models that name none
PROBE_TOKENS = 8  # of each of two documents in a row
LEAST_SHARE = 1e-5  # of what moves the first document's logits; rounding moves the second one's less


@dataclass
class Loaded:
    """A model ready to train, and what belongs to it.

    Attributes:
        model: on its device, in training mode; weights that are trained are float32.
        tokenizer: with the tokens and the template of the chat form.
        render: conversations to ids and loss mask.
        window: longest row in tokens.
        kind: ours (trained unfolded), other (any causal language model), or an adapter on either.
        rates: parameter name -> factor on its learning rate, where that is not 1 (`rinsho.optim.make_optimizer`).
        base_digest: of the weights under an adapter, before they were opened.
    """

    model: Any
    tokenizer: Any
    render: Renderer
    window: int
    kind: Literal["ours", "other", "adapter"]
    rates: dict[str, float] = field(default_factory=dict)
    base_digest: str | None = None

    @property
    def trained(self) -> dict[str, torch.nn.Parameter]:
        """Name -> parameter of all that is trained; what a checkpoint holds."""
        return {name: parameter for name, parameter in self.model.named_parameters() if parameter.requires_grad}


@dataclass(frozen=True)
class Opened:
    """A tokenizer in the recipe's chat form; data can be read with it before the model is loaded.

    Attributes:
        known: number of its tokens before the chat form added any.
    """

    tokenizer: Any
    render: Renderer
    known: int


def open_tokenizer(folder: Path, recipe: Recipe) -> Opened:
    """The tokenizer of a model folder, in the recipe's chat form.

    Raises:
        UserError: there is none, or it cannot have that form.
    """
    tokenizer = load_tokenizer(folder)
    known = token_count(tokenizer)
    return Opened(tokenizer, set_form(tokenizer, recipe.chat, folder), known)


def load(folder: Path, recipe: Recipe, device: torch.device, opened: Opened | None = None) -> Loaded:
    """The folder's model as the recipe trains it: the same base and recipe give the same bits.

    Our folders come back with the embedding scale in the forward pass (N2.4-5), under an adapter as they were
    published. Where the chat form brings tokens, their rows start at or near the mean of the old ones, so that none is
    an outlier at the first step; under an adapter they are the only rows of the embedding that are trained.

    Raises:
        UserError: the folder cannot be opened, the adapter does not fit the model, or conversations are to be packed
            and the model cannot keep them apart.
    """
    opened = opened or open_tokenizer(folder, recipe)
    tokenizer, known = opened.tokenizer, opened.known
    rates: dict[str, float] = {}
    kind: Literal["ours", "other", "adapter"] = "other"
    digest = None if recipe.adapter is None else base_digest(folder)
    if recipe.adapter is not None:
        model, kind = _base(folder, recipe, device), "adapter"
        _check_packing(model, recipe)
        grow(model, token_count(tokenizer), known)
        ours = isinstance(tokenizer, RinshoTokenizer)
        todo = "tune it fully first" if ours else "tune it fully first, or take chat: plain"
        new = range(known, token_count(tokenizer))
        model = methods.adapt(model, recipe.adapter, new, recipe.seed, todo)
        rates = _rates(model, folder)
    elif isinstance(tokenizer, RinshoTokenizer) and _is_our_block(folder):
        model = load_unfolded(folder, attention_dropout=0.0, residual_dropout=recipe.residual_dropout)
        kind = "ours"
        _grow_ours(model, len(tokenizer), recipe.seed)
    else:
        model = load_model(folder)
        _check_packing(model, recipe)
        grow(model, token_count(tokenizer), known)
    if recipe.activation_checkpointing:
        compute_twice(model, True)
    if kind != "adapter":
        model.to(device)
    window = getattr(model.config.get_text_config(), "max_position_embeddings", None) or NO_WINDOW
    return Loaded(model.train(), tokenizer, opened.render, int(window), kind, rates, digest)


def _base(folder: Path, recipe: Recipe, device: torch.device) -> Any:
    """The base of an adapter, on its device."""
    model = quantized_base(folder, recipe.quantization, recipe.base_dtype)
    if recipe.quantization == "none":
        return model.to(device)
    if model.device.type != device.type:
        raise UserError("a quantised base goes to the graphics card", where="device", expected="auto or cuda")
    return model


def _check_packing(model: Any, recipe: Recipe) -> None:
    """Refuses a model to which positions that restart are no border between documents."""
    if recipe.pack and recipe.objective == "sft" and not keeps_apart(model):
        raise UserError(
            f"conversations in one row would see each other in models of type {model.config.model_type}",
            where="finetune.pack", expected="a model whose attention ends where positions restart",
            todo="take finetune.pack: false",
        )  # fmt: skip


@torch.no_grad()
def keeps_apart(model: Any) -> bool:
    """Whether documents in one row do not see each other when positions restart (a few tokens forward).

    Two rows differ in their first document only: where that is a border, the second one's logits are the same. Not by
    all models: some take no positions, some bound attention by a mask alone, and recurrent ones know no borders.

    Args:
        model: in evaluation mode.
    """
    device = model.get_input_embeddings().weight.device
    draw = torch.Generator().manual_seed(1)
    ids = torch.randint(model.get_input_embeddings().weight.shape[0], (2, 2 * PROBE_TOKENS), generator=draw)
    ids[1, PROBE_TOKENS:] = ids[0, PROBE_TOKENS:]
    positions = torch.arange(PROBE_TOKENS).repeat(2).expand(2, -1)
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        logits = model(input_ids=ids.to(device), position_ids=positions.to(device), use_cache=False).logits
    moved = (logits[0] - logits[1]).abs().float()
    least = max(LEAST_SHARE, 4 * torch.finfo(logits.dtype).eps)
    return not bool(moved[PROBE_TOKENS:].max() > least * moved[:PROBE_TOKENS].max())


def compute_twice(model: Any, on: bool) -> None:
    """Switches activation checkpointing: blocks keep their inputs and are computed again in the backward pass."""
    word = "activation" if hasattr(model, "activation_checkpointing_enable") else "gradient"  # its older name
    if on:
        getattr(model, f"{word}_checkpointing_enable")(**{f"{word}_checkpointing_kwargs": {"use_reentrant": False}})
    else:
        getattr(model, f"{word}_checkpointing_disable")()


def loss(model: Any, input_ids: Tensor, position_ids: Tensor, shift_labels: Tensor) -> Tensor:
    """Summed cross-entropy in nats of all labels that are not -100, float32 scalar.

    Conversations in a row are told apart by positions that restart: no mask is passed and the cache is off, any other
    combination lets them see each other. Models that are not ours go through their own head, which may cap or scale
    its logits; it sees only the places that have a label.
    """
    if isinstance(model, RinshoForCausalLM):
        return next_token_loss(model, input_ids, position_ids, shift_labels)
    wanted = shift_labels != -100
    # transformers' logits_to_keep takes the same places of every row, and some models lack it.
    narrowing = model.get_output_embeddings().register_forward_pre_hook(lambda _, inputs: (inputs[0][wanted][None],))
    try:
        logits = model(input_ids=input_ids, position_ids=position_ids, use_cache=False).logits[0]
    finally:
        narrowing.remove()
    return torch.nn.functional.cross_entropy(logits.float(), shift_labels[wanted], reduction="sum")


def save(  # noqa: PLR0917
    loaded: Loaded, folder: Path, base: Path, extra: Mapping[str, Any], dtype: Literal["float32", "bfloat16"],
    home: Path | None = None,
) -> None:  # fmt: skip
    """Writes a folder that stock transformers (an adapter: PEFT, on its base) opens, with `rinsho.json`.

    The model in memory stays as it is, so training may go on. Ours gets the scale folded in. An adapter is float32
    whatever `dtype` says: it is small.

    Args:
        loaded: what was trained.
        folder: made if it is not there.
        base: the folder it was loaded from.
        extra: more entries for `rinsho.json`.
        dtype: number form of a whole model's weights.
        home: where the folder will lie in the end, if not here.
    """
    model, tokenizer = loaded.model, loaded.tokenizer
    if loaded.kind == "adapter":
        save_adapter(model, tokenizer, folder, base, extra, home, loaded.base_digest)
        return
    if loaded.kind == "ours":
        save_folded(model, tokenizer, folder, extra, dtype)
        return
    number = getattr(torch, dtype)
    casts: dict[int, Tensor] = {}  # tied matrices stay one
    for tensor in model.state_dict().values():
        casts[tensor.data_ptr()] = tensor.to("cpu", number)
    weights = {name: casts[tensor.data_ptr()] for name, tensor in model.state_dict().items()}
    with quiet():
        model.save_pretrained(folder, state_dict=weights)
    mode = (folder / "config.json").stat().st_mode
    for file in folder.glob("*.safetensors"):
        file.chmod(mode)  # safetensors makes files that nobody else may read
    config = copy.deepcopy(model.config)
    config.dtype = number
    config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    manifest = {"form": model.config.model_type, "embedding_scale": 1.0, "parameters": parameters, **extra}
    write_atomic(folder / MANIFEST, json.dumps(manifest, ensure_ascii=False, indent=2) + "\n")


def base_facts(folder: Path) -> dict[str, Any]:
    """What the product keeps of the model it came from: steps, seen tokens, parameters; no paths."""
    manifest = read_manifest(folder)
    kept = ("stage", "steps", "seen_tokens", "parameters", "tokenizer")
    return {key: manifest[key] for key in kept if key in manifest}


def _rates(model: Any, folder: Path) -> dict[str, float]:
    """Rows of tokens hold embedding_scale times what full tuning trains: a step on them is as much longer."""
    scale = float(read_manifest(folder).get("embedding_scale", 1.0))
    rows = [name for name, _ in model.named_parameters() if ".trainable_tokens_delta." in name]
    return dict.fromkeys(rows, scale) if scale != 1.0 else {}


def _is_our_block(folder: Path) -> bool:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return bool(config.get("model_type") == "arcee" and config.get("hidden_act") == "silu")


@torch.no_grad()
def _grow_ours(model: RinshoForCausalLM, vocab_size: int, seed: int) -> None:
    old = model.config.vocab_size
    if vocab_size <= old:
        return
    grow_vocabulary(model, vocab_size, seed)
    matrices = {module.weight.data_ptr(): module.weight for module in (model.model.embed_tokens, model.lm_head)}
    for weight in matrices.values():  # a tied head is the same matrix
        weight[old:] += weight[:old].mean(0)
