"""The model to tune: ours with its embedding scale taken out, or any causal language model; and how it is saved."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from rinsho.chat import BEGIN, CHAT_TOKENS, END, TEMPLATE
from rinsho.errors import UserError
from rinsho.files import write_atomic
from rinsho.finetune import Recipe
from rinsho.generate.loading import load_model, load_tokenizer
from rinsho.model_folder import MANIFEST, load_unfolded, read_manifest, save_folded
from rinsho.modeling import RinshoForCausalLM, grow_vocabulary, next_token_loss
from rinsho.tokenization import RinshoTokenizer, add_chat_tokens


class ForeignTokenizer:
    """A tokenizer that is not ours behind the two methods that `rinsho.chat.render` needs."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.eos_token_id: int = tokenizer.eos_token_id
        self._ends = {BEGIN: tokenizer.bos_token or tokenizer.eos_token, END: tokenizer.eos_token}

    def encode_text(self, text: str) -> list[int]:
        """Ordinary text as ids, without special ones."""
        return list(self.tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True))

    def convert_tokens_to_ids(self, token: str) -> Any:
        """The id of a token; our begin and end marks are the tokenizer's own."""
        return self.tokenizer.convert_tokens_to_ids(self._ends.get(token, token))


def load(folder: Path, recipe: Recipe) -> tuple[Any, Any, Any]:
    """(model in float32 with rows for the chat tokens, its tokenizer, what renders conversations with it).

    Our folders come back with the embedding scale in the forward pass (N2.4-5). New rows start at the mean of the
    old ones plus the noise of the initialisation, so that no chat token is an outlier at the first step.

    Raises:
        UserError: the folder cannot be opened, or its tokenizer has no end-of-text token.
    """
    tokenizer = load_tokenizer(folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if isinstance(tokenizer, RinshoTokenizer):
        add_chat_tokens(tokenizer)
        if config.get("model_type") == "arcee" and config.get("hidden_act") == "silu":
            model = load_unfolded(folder, attention_dropout=0.0, residual_dropout=recipe.residual_dropout)
            _grow_ours(model, len(tokenizer), recipe.seed)
            return model, tokenizer, tokenizer
        encoder: Any = tokenizer
    else:
        encoder = _with_chat_tokens(tokenizer, folder)
    model = load_model(folder).cpu()
    if model.get_input_embeddings().weight.shape[0] < len(tokenizer):
        torch.manual_seed(recipe.seed)
        model.resize_token_embeddings(len(tokenizer), mean_resizing=True)
    model.config.use_cache = False
    return model, tokenizer, encoder


def loss(model: Any, input_ids: Tensor, position_ids: Tensor, shift_labels: Tensor) -> Tensor:
    """Summed cross-entropy in nats of all labels that are not -100, float32 scalar.

    Conversations in a row are told apart by positions that restart: no mask is passed and the cache is off, any other
    combination lets them see each other. Models that are not ours go through their own head,
    which may cap or scale its logits.
    """
    if isinstance(model, RinshoForCausalLM):
        return next_token_loss(model, input_ids, position_ids, shift_labels)
    logits = model(input_ids=input_ids, position_ids=position_ids, use_cache=False).logits
    wanted = shift_labels != -100
    return torch.nn.functional.cross_entropy(logits[wanted].float(), shift_labels[wanted], reduction="sum")


def save(
    model: Any, tokenizer: Any, folder: Path, extra: Mapping[str, Any], dtype: Literal["float32", "bfloat16"]
) -> None:
    """Writes a folder that stock transformers opens; ours with the scale folded in, `rinsho.json` beside it."""
    if isinstance(model, RinshoForCausalLM):
        save_folded(model, tokenizer, folder, extra, dtype)
        return
    folder.mkdir(parents=True, exist_ok=True)
    model.config.use_cache = True
    model.to(getattr(torch, dtype)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    manifest = {"form": model.config.model_type, "embedding_scale": 1.0, "parameters": parameters, **extra}
    write_atomic(folder / MANIFEST, json.dumps(manifest, ensure_ascii=False, indent=2) + "\n")


def base_facts(folder: Path) -> dict[str, Any]:
    """What the product keeps of the model it came from: steps, seen tokens, parameters; no paths."""
    manifest = read_manifest(folder)
    kept = ("stage", "steps", "seen_tokens", "parameters", "tokenizer")
    return {key: manifest[key] for key in kept if key in manifest}


@torch.no_grad()
def _grow_ours(model: RinshoForCausalLM, vocab_size: int, seed: int) -> None:
    old = model.config.vocab_size
    if vocab_size == old:
        return
    grow_vocabulary(model, vocab_size, seed)
    matrices = {module.weight.data_ptr(): module.weight for module in (model.model.embed_tokens, model.lm_head)}
    for weight in matrices.values():  # a tied head is the same matrix
        weight[old:] += weight[:old].mean(0)


def _with_chat_tokens(tokenizer: Any, folder: Path) -> ForeignTokenizer:
    if tokenizer.eos_token is None:
        raise UserError("the tokenizer has no end-of-text token", where=folder, expected="an eos_token")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    encoder = ForeignTokenizer(tokenizer)
    missing = [token for token in CHAT_TOKENS if token not in tokenizer.get_added_vocab()]
    tokenizer.add_tokens(missing, special_tokens=True)
    begin = tokenizer.bos_token or tokenizer.eos_token
    tokenizer.chat_template = TEMPLATE.replace(BEGIN, begin).replace(END, tokenizer.eos_token)
    return encoder
