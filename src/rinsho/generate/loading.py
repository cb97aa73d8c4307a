"""Model and adapter folders opened without a network, with errors that say what is wrong with the folder."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from rinsho import adapters, bases, memory
from rinsho.errors import UserError
from rinsho.machine import give_back


def load_tokenizer(folder: Path, base: Path | None = None) -> Any:
    """The tokenizer of a model or adapter folder, ours or any other; an adapter without one takes its base's.

    Raises:
        UserError: there is none, or it cannot be opened.
    """
    _check_folder(folder)
    if adapters.is_adapter(folder) and not (folder / "tokenizer_config.json").is_file():
        folder = adapters.find_base(folder, base)
    return open_tokenizer(folder)


def open_tokenizer(folder: Path) -> Any:
    """The tokenizer in a folder, ours or any other, whatever else the folder holds.

    Raises:
        UserError: it cannot be opened.
    """
    import transformers

    from rinsho import tokenization

    if _is_ours(folder):
        return tokenization.load(folder)
    with bases.readable(folder, "the tokenizer cannot be opened", "a complete model folder"):
        return transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


def load_model(folder: Path, dtype: str | None = None, base: Path | None = None) -> Any:
    """The causal language model of a folder in evaluation mode, on the GPU when there is one.

    Of an adapter folder it is the adapter on its base: the recorded one, or `base`.

    Args:
        folder: of the model or the adapter.
        dtype: number form. None: float32; under an adapter the base as it was in training, 8-bit and 4-bit ones too,
            where this machine can (`rinsho.adapters.trained_form`).
        base: the adapter's base, where it is not the recorded one.

    Raises:
        UserError: there is none, its weights are damaged, or the base is missing or another one.
    """
    import torch

    _check_folder(folder)
    if adapters.is_adapter(folder) and dtype is None:
        return load_adapter(folder, base)
    if adapters.is_adapter(folder):
        model: Any = adapters.open_adapter(folder, base, str(dtype))
    else:
        model = bases.quantized_base(folder, "none", dtype or "float32")
    return model.to("cuda" if torch.cuda.is_available() else "cpu")


def load_form(folder: Path, form: str | None = None, base: Path | None = None) -> Any:
    """The causal language model of a model or adapter folder in the form that memory allows; in evaluation mode.

    Args:
        folder: of the model or the adapter.
        form: "float32", "bfloat16", "int8" (LLM.int8) or "int4" (NF4); None: `rinsho.memory.usual_form`.
        base: the adapter's base, where it is not the recorded one.

    Raises:
        UserError: as `load_model`, or there is no such form.

    Source: M-6.
    """
    import torch

    _check_folder(folder)
    adapted = adapters.is_adapter(folder)
    if adapted and form is None:
        return load_adapter(folder, base)
    quantization, dtype = memory.numbers(form or memory.usual_form(folder))
    if adapted:
        model: Any = adapters.open_adapter(folder, base, dtype, quantization)
    else:
        model = bases.quantized_base(folder, quantization, dtype)
    give_back()
    if quantization != "none":  # it lies where it was quantised
        return model
    return model.to("cuda" if torch.cuda.is_available() else "cpu")


def load_adapter(folder: Path, base: Path | None = None) -> Any:
    """An adapter on its base as that was in training, where this machine can; in evaluation mode, on the GPU if any.

    Says so in a line on stderr where the base is not simply float32.

    Raises:
        UserError: no adapter, or the base is missing or another one.
    """
    import torch

    quantization, dtype, missing = adapters.trained_form(folder)
    model: Any = adapters.open_adapter(folder, base, dtype, quantization)
    form = dtype if quantization == "none" else f"{quantization}, {dtype}"
    if missing is not None or form != "float32":
        how = "as it was trained" if missing is None else f"not as it was trained: {missing}"
        print(f"adapter {folder}: on a base in {form}, {how}", file=sys.stderr, flush=True)
    if quantization != "none":  # it lies where it was quantised
        return model
    return model.to("cuda" if torch.cuda.is_available() else "cpu")


def _is_ours(folder: Path) -> bool:
    try:
        config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and bool(config.get("tokenizer_class") == "RinshoTokenizer")


def _check_folder(folder: Path) -> None:
    if not (folder / "config.json").is_file() and not adapters.is_adapter(folder):
        raise UserError(
            "not a model folder",
            where=folder,
            expected="config.json, model.safetensors and a tokenizer",
            todo="give the folder of a finished pretrain or finetune run, or of a Hugging Face model",
        )
