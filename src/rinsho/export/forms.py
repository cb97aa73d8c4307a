"""The `hf` and `llama` forms: safetensors, configuration and tokenizer as transformers alone opens them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rinsho.errors import UserError
from rinsho.export.gguf_tensors import is_ours
from rinsho.export.weights import Weights, write_safetensors
from rinsho.files import atomic_file, write_atomic
from rinsho.model_folder import DOCUMENTS, WEIGHTS

if TYPE_CHECKING:
    from torch import Tensor

    Row = tuple[str, tuple[int, ...], Callable[[], Tensor]]

TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "tokenizer.model", "spiece.model", "special_tokens_map.json",
    "added_tokens.json", "vocab.json", "vocab.txt", "merges.txt", "chat_template.jinja", "chat_template.json",
    "user.dic", "tokenization_rinsho.py",
)  # fmt: skip
HERE_ALONE = ("_name_or_path", "torch_dtype", "transformers_version")  # of a configuration: not of the model


def write_hf(weights: Weights, folder: Path, dtype: str) -> None:
    """The model as it is, in another number form: configuration and weights.

    Source: M-6, N2.4-5 (our folders have the embedding scale folded in already).
    """
    rows = [(name, shape, _reader(weights, name)) for name, shape in weights.shapes.items()]
    _write(weights, folder, rows, weights.config, dtype)


def write_llama(weights: Weights, folder: Path, dtype: str) -> None:
    """The model as a Llama with the same logits.

    Our block `down(silu(up(x)))` is a Llama's whose gate is our up matrix and whose up branch is 1 everywhere: weight
    0, bias 1. A model that is a Llama already is written as it is.

    Raises:
        UserError: another architecture.

    Source: neither 4.
    """
    refuse_llama(weights)
    if not is_ours(weights):
        write_hf(weights, folder, dtype)
        return
    rows = [row for name in weights.shapes for row in _as_llama(weights, name)]
    config = {
        **weights.config, "architectures": ["LlamaForCausalLM"], "model_type": "llama", "mlp_bias": True,
    }  # fmt: skip
    _write(weights, folder, rows, config, dtype)


def refuse_llama(weights: Weights) -> None:
    """Raises the error for a model that has no Llama form.

    Raises:
        UserError: neither ours nor a Llama.
    """
    if not is_ours(weights) and weights.config.get("model_type") != "llama":
        kind, act = weights.config.get("model_type"), weights.config.get("hidden_act")
        raise UserError(
            f"no Llama form of the architecture {kind} ({act})", where=weights.folder,
            expected="a rinsho model (arcee with hidden_act silu) or a Llama", todo="export it --to hf",
        )  # fmt: skip


def copy_beside(source: Path, folder: Path, *more: str) -> None:
    """Copies the tokenizer's files, the list of tuning passages, and `more`, where they are there."""
    for name in (*TOKENIZER_FILES, DOCUMENTS, *more):
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)


def _as_llama(weights: Weights, name: str) -> Iterator[Row]:
    """One tensor as those of a Llama with biases in its MLP."""
    import torch

    shape = weights.shapes[name]
    before, kind, _ = name.partition("mlp.")
    if not kind:
        yield name, shape, _reader(weights, name)
    elif name.endswith("mlp.down_proj.weight"):
        yield name, shape, _reader(weights, name)
        yield f"{before}mlp.down_proj.bias", shape[:1], lambda: torch.zeros(shape[0])
    elif name.endswith("mlp.up_proj.weight"):
        yield f"{before}mlp.gate_proj.weight", shape, _reader(weights, name)
        yield f"{before}mlp.gate_proj.bias", shape[:1], lambda: torch.zeros(shape[0])
        yield f"{before}mlp.up_proj.weight", shape, lambda: torch.zeros(shape)
        yield f"{before}mlp.up_proj.bias", shape[:1], lambda: torch.ones(shape[0])
    else:
        raise UserError(
            f"no place for the tensor {name}", where=weights.folder, expected="the tensors of a rinsho model"
        )


def _reader(weights: Weights, name: str) -> Callable[[], Tensor]:
    return lambda: weights[name]


def _write(weights: Weights, folder: Path, rows: list[Row], config: dict[str, Any], dtype: str) -> None:
    """Weights last: a folder that has them is whole."""
    config = {key: value for key, value in config.items() if key not in HERE_ALONE} | {"dtype": dtype}
    write_atomic(folder / "config.json", json.dumps(dict(sorted(config.items())), ensure_ascii=False, indent=2) + "\n")
    generation = weights.folder / "generation_config.json"
    if generation.is_file():
        shutil.copyfile(generation, folder / generation.name)
    with atomic_file(folder / WEIGHTS) as file:
        write_safetensors(file, rows, dtype)
