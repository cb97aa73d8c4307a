"""What can be known before pre-training starts: settings that do not go together, inputs, memory."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rinsho.document import shard_paths, training_folder
from rinsho.errors import UserError
from rinsho.packing import whole_rows
from rinsho.pretrain import Recipe
from rinsho.pretrain.mixture import groups_of
from rinsho.pretrain.mixture import problems as mixture_problems
from rinsho.sizing import recipe_memory
from rinsho.token_files import is_encoded, open_encoded, open_tokens, token_folders


def check(recipe: Recipe, inputs: Sequence[Path]) -> list[UserError]:
    """All problems that can be known before starting."""
    found = _settings_problems(recipe)
    if len(inputs) < 2:
        expected = "MODEL CORPUS..." if recipe.init_from == "model" else "TOKENIZER CORPUS..."
        return [*found, UserError("inputs are missing", where="pretrain", expected=expected)]
    tokenizer, *corpora = inputs
    if not (tokenizer / "tokenizer.json").is_file():
        found.append(UserError("no tokenizer in here", where=tokenizer, expected="a folder with tokenizer.json"))
    found += _start_problems(recipe, tokenizer)
    encoded = [path for path in corpora if is_encoded(path)]
    if encoded and len(encoded) < len(corpora):
        found.append(
            UserError(
                "corpora and token files are given together",
                where=encoded[0],
                expected="one or the other",
                todo="encode the corpora too: rinsho tokenizer encode",
            )
        )
    elif encoded:
        found += _token_problems(recipe, encoded, None if found else tokenizer)
    for corpus in corpora if not encoded else ():
        try:
            shard_paths([training_folder(corpus)])
        except UserError as problem:
            found.append(problem)
    return found or _device_problems(recipe) or _memory_problems(recipe, tokenizer)


def copy_problems(recipe: Recipe, encoded: Sequence[Path]) -> list[UserError]:
    """Encoded corpora whose documents are not followed by the copies that the recipe wants."""
    found = []
    for path in encoded:
        manifest = open_tokens(token_folders(path)[0]).manifest
        copying = manifest["copying"] or {"fraction": 0.0, "window": 0}
        if copying["fraction"] != recipe.copy_fraction:
            found.append(
                UserError(
                    f"the token files were made with copy_fraction {copying['fraction']}",
                    where=path,
                    expected=f"{recipe.copy_fraction}, as in pretrain.copy_fraction",
                    todo="change pretrain.copy_fraction, or encode the corpus again",
                )
            )
        elif copying["window"] > recipe.sequence_length // 2:
            found.append(
                UserError(
                    f"the copies in the token files reach back {copying['window']} tokens",
                    where=path,
                    expected=f"at most {recipe.sequence_length // 2}, half of pretrain.sequence_length",
                    todo="encode the corpus again with that copy_window",
                )
            )
    return found


def _token_problems(recipe: Recipe, encoded: Sequence[Path], tokenizer: Path | None) -> list[UserError]:
    if recipe.keep_tokens:
        expected = "keep_tokens: false with encoded corpora: the token files stay where they are"
        return [UserError("there are no token files to keep", where="pretrain.keep_tokens", expected=expected)]
    try:
        fingerprint = None
        if tokenizer is not None:
            from rinsho.tokenization import fingerprint as fingerprint_of

            fingerprint = fingerprint_of(tokenizer)
        sources = open_encoded(encoded, fingerprint).training.sources
        if recipe.mixture:
            groups_of(recipe.mixture, sources)
        return copy_problems(recipe, encoded)
    except UserError as problem:
        return [problem]


def _start_problems(recipe: Recipe, folder: Path) -> list[UserError]:
    """What is wrong with the folder that training starts from, if it starts from one."""
    if recipe.init_from == "nothing":
        return []
    found = []
    if "model" in recipe.model_fields_set:
        found.append(
            UserError(
                "sizes are given for a model that exists",
                where="pretrain.model",
                expected="no pretrain.model with init_from: model",
                todo="remove it: the sizes are those of the folder",
            )
        )
    try:
        config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        expected = "a model folder: config.json, model.safetensors and the tokenizer's files"
        return [*found, UserError("no model in here", where=folder, expected=expected, todo="check the path")]
    if recipe.sequence_length > config.get("max_position_embeddings", recipe.sequence_length):
        found.append(_too_long(recipe.sequence_length, config["max_position_embeddings"]))
    return found


def _device_problems(recipe: Recipe) -> list[UserError]:
    """What this machine cannot do; torch is loaded only to answer what the recipe asks for."""
    if not (recipe.device == "cuda" or recipe.fp8 or recipe.attn_implementation == "varlen"):
        return []
    from rinsho.device import choose_device

    try:
        device = choose_device(recipe.device, "pretrain.device")
        if recipe.fp8:
            from rinsho.fp8 import must_be_hopper

            must_be_hopper(device)
    except UserError as problem:
        return [problem]
    if recipe.attn_implementation == "varlen" and device.type != "cuda":
        expected = "sdpa on a machine without a graphics card"
        return [UserError("varlen runs on CUDA only", where="pretrain.attn_implementation", expected=expected)]
    return []


def _memory_problems(recipe: Recipe, tokenizer: Path) -> list[UserError]:
    """Weights, gradients and optimizer in float32 against this machine's memory; a graphics card has its own."""
    on_card = recipe.device != "cpu" and (recipe.device == "cuda" or Path("/proc/driver/nvidia").exists())
    if on_card or recipe.init_from == "model":
        return []
    try:
        vocab_size = len(json.loads((tokenizer / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"])
        whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (KeyError, TypeError, ValueError, OSError):
        return []
    needed = recipe_memory(recipe, recipe.model, vocab_size, device="cpu").total
    if needed < whole:
        return []
    what = f"training needs about {needed / 2**30:.1f} GiB, this machine has {whole / 2**30:.1f}"
    return [
        UserError(
            what,
            where="pretrain.model",
            expected="a smaller model",
            todo="or fewer micro_batch_rows, or activation_checkpointing",
        )
    ]


def _settings_problems(recipe: Recipe) -> list[UserError]:
    found = whole_rows(recipe.batch_tokens, recipe.sequence_length, "pretrain.batch_tokens")
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    rows = recipe.batch_tokens // recipe.sequence_length
    if rows % processes:
        found.append(
            UserError(
                f"{rows} rows a step cannot be shared by {processes} processes",
                where="pretrain.batch_tokens",
                expected=f"a multiple of {recipe.sequence_length * processes} tokens",
                todo="change batch_tokens or the number of processes",
            )
        )
    if recipe.init_from == "nothing" and recipe.sequence_length > recipe.model.max_position_embeddings:
        found.append(_too_long(recipe.sequence_length, recipe.model.max_position_embeddings))
    if recipe.fp8 and recipe.sequence_length % 16:
        expected = "a multiple of 16 with fp8, which multiplies in blocks of so many tokens"
        found.append(UserError("rows do not fit", where="pretrain.sequence_length", expected=expected))
    if recipe.attn_implementation == "varlen" and (recipe.dtype == "fp32" or recipe.device == "cpu"):
        expected = "dtype: bf16 and a graphics card with varlen, or another kernel"
        found.append(UserError("varlen cannot run so", where="pretrain.attn_implementation", expected=expected))
    if recipe.pack == "best_fit" and not recipe.document_bounds:
        found.append(
            UserError("best_fit needs document_bounds", where="pretrain.pack", expected="pack: cut, or document_bounds")
        )
    return found + mixture_problems(recipe.mixture, recipe.max_tokens)


def _too_long(sequence_length: int, positions: int) -> UserError:
    return UserError(
        f"{sequence_length} is beyond the model's {positions} positions",
        where="pretrain.sequence_length",
        expected="at most model.max_position_embeddings",
    )
