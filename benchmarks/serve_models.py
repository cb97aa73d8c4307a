"""What `serve.py` serves: a model with random weights in a preset's size, and its GGUF files.

The files come from the writers of `rinsho export`, without the check against the original, which random weights cannot
pass (their logits are too close to one another to survive 4 bits).
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

TOKENIZER = ("tokenizer*.json", "tokenization_rinsho.py", "*.jinja", "user.dic")
CHAT_TOKENS = 3  # rows that tuning adds
VOCABULARY = {"ncvc-slm-1": 32_768, "350m": 32_768, "125m": 32_768}  # with which the presets have their size


def random_folder(folder: Path, preset: str, tuned: Path, seed: int = 1) -> Path:
    """A model folder in bfloat16 with the tokenizer of `tuned`; one that is there is kept.

    Rows of the head that write no text of their own (special tokens, bytes, ids beyond the tokenizer's) are zero: with
    random weights they are never the likeliest, so that a greedy answer never ends early and every id is a character
    at least.
    """
    import torch

    from rinsho.generate.loading import open_tokenizer
    from rinsho.generate.spans import piece_bytes
    from rinsho.model import ModelSettings, build
    from rinsho.model_folder import HEAD, publish
    from rinsho.modeling import initial_std

    if (folder / "rinsho.json").is_file():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    for form in TOKENIZER:
        for path in tuned.glob(form):
            shutil.copy(path, folder / path.name)
    tokenizer = open_tokenizer(folder)
    pieces = piece_bytes(tokenizer)
    rows = max(len(pieces), VOCABULARY.get(preset, len(pieces) - CHAT_TOKENS) + CHAT_TOKENS)
    ends = tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id
    model: Any = build(
        ModelSettings.model_validate({"preset": preset, "tie_word_embeddings": False}), rows, seed,
        bos_token_id=ends[0], eos_token_id=ends[1], pad_token_id=ends[2], device="meta",
    )  # fmt: skip
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name, parameter in model.named_parameters():
        std = initial_std(name, model.config)
        tensor = torch.empty(parameter.shape, dtype=torch.bfloat16)
        weights[name] = tensor.fill_(1.0) if std is None else tensor.normal_(0.0, std, generator=generator)
    mute = [index for index, piece in enumerate(pieces) if not _is_text(piece)]
    weights[HEAD][mute] = 0
    weights[HEAD][len(pieces) :] = 0
    publish(model.config, weights, None, folder, {"stage": "pretrain"}, dtype="bfloat16")
    return folder


def _is_text(piece: bytes | None) -> bool:
    """Whether a piece is whole characters that can be seen."""
    try:
        return bool(piece and piece.decode("utf-8").strip().isprintable() and piece.strip())
    except UnicodeDecodeError:
        return False


def gguf_file(folder: Path, flavour: str, type_: str) -> Path:
    """The GGUF file of a model folder, in a folder of its own with the tokenizer beside; one that is there is kept."""
    from rinsho.export.gguf_file import About, write_gguf
    from rinsho.export.gguf_tokenizer import vocabulary
    from rinsho.export.weights import open_weights

    target = folder.parent / f"{folder.name}-gguf"
    target.mkdir(exist_ok=True)
    for form in (*TOKENIZER, "rinsho.json"):
        for path in folder.glob(form):
            shutil.copy(path, target / path.name)
    file = target / f"model-{flavour}-{type_}.gguf"
    if not file.is_file():
        weights = open_weights(folder)
        about = About("random", vocabulary=vocabulary(folder, weights.config["vocab_size"]), special={"eos": 2})
        unfinished = file.with_suffix(".partial")
        write_gguf(weights, unfinished, flavour, type_, about)
        unfinished.rename(file)
    return file
