"""Model folders opened without a network, with errors that say what is wrong with the folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rinsho.errors import UserError


def load_tokenizer(folder: Path) -> Any:
    """The folder's tokenizer, ours or any other.

    Raises:
        UserError: there is none, or it cannot be opened.
    """
    import transformers

    from rinsho import tokenization

    _check_folder(folder)
    if _is_ours(folder):
        return tokenization.load(folder)
    try:
        return transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _unusable(folder, "the tokenizer cannot be opened", error) from error


def load_model(folder: Path, dtype: str = "float32") -> Any:
    """The folder's causal language model in evaluation mode, on the GPU when there is one.

    Raises:
        UserError: there is none, or its weights are damaged.
    """
    import safetensors
    import torch
    import transformers

    _check_folder(folder)
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        model: Any = transformers.AutoModelForCausalLM.from_pretrained(
            folder, dtype=getattr(torch, dtype), local_files_only=True
        )
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        RuntimeError,
        safetensors.SafetensorError,
    ) as error:
        raise _unusable(folder, "the model cannot be opened", error) from error
    return model.to("cuda" if torch.cuda.is_available() else "cpu").eval()


def _is_ours(folder: Path) -> bool:
    try:
        config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and bool(config.get("tokenizer_class") == "RinshoTokenizer")


def _check_folder(folder: Path) -> None:
    if not (folder / "config.json").is_file():
        raise UserError(
            "not a model folder",
            where=folder,
            expected="config.json, model.safetensors and a tokenizer",
            todo="give the folder of a finished pretrain or finetune run, or of a Hugging Face model",
        )


def _unusable(folder: Path, what: str, error: Exception) -> UserError:
    first_line = (str(error).splitlines() or [""])[0][:200]
    return UserError(
        f"{what} ({type(error).__name__}: {first_line})",
        where=folder,
        expected="a complete model folder",
        todo="copy it again, or run the stage that made it again",
    )
