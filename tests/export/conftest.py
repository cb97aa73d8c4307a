"""Small models to export: ours with our tokenizer in both forms, and a Llama with a foreign one."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import pytest
import torch

import toy_models
from rinsho import bases
from rinsho.export.probes import TEXTS
from rinsho.model import ModelSettings, build
from rinsho.model_folder import save_folded
from rinsho.segmentation import SPACE, alone_characters
from rinsho.text import clean
from rinsho.tokenization import add_chat_tokens, wrap
from rinsho.tokenization.backend import CONTROLS


def vocabulary() -> list[tuple[str, float]]:
    """Characters and pairs of the probes, with their frequencies; the last probe's rare characters have no piece."""
    alone = alone_characters(True) + "\n"
    lines = [clean(text).replace(" ", SPACE) for text in TEXTS[:-1]]
    counts = Counter(line[at : at + size] for line in lines for size in (1, 2) for at in range(len(line) + 1 - size))
    pieces = [(piece, math.log(count / 9999)) for piece, count in sorted(counts.items()) if not set(piece) & set(alone)]
    fixed = [*CONTROLS, *(f"<0x{byte:02X}>" for byte in range(256)), *alone[:-1]]
    return [(piece, 0.0) for piece in fixed] + pieces


def our_model(folder: Path, segment: str = "plain", hidden_size: int = 64, steps: int = 60) -> Path:
    """A small model of ours that has learned the probes, so that its answers are more than chance."""
    tokenizer = wrap(vocabulary(), segment=segment)  # type: ignore[arg-type]
    add_chat_tokens(tokenizer)
    settings = ModelSettings(
        hidden_size=hidden_size, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=128,
    )  # fmt: skip
    ids = {name: tokenizer.convert_tokens_to_ids(tokenizer.eos_token) for name in ("eos_token_id", "pad_token_id")}
    model = build(settings, len(tokenizer), seed=3, bos_token_id=tokenizer.bos_token_id, **ids)
    stream = torch.tensor([number for text in TEXTS for number in (1, *tokenizer.encode_text(text))])
    rows = stream[: len(stream) // 64 * 64].view(-1, 64)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(steps):
        loss = model(input_ids=rows, labels=rows).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    save_folded(model, tokenizer, folder, {"stage": "finetune"})
    return folder


@pytest.fixture(scope="session")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ours, plain form."""
    return our_model(tmp_path_factory.mktemp("export") / "ours")


@pytest.fixture(scope="session")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ours, with MeCab in front."""
    return our_model(tmp_path_factory.mktemp("export") / "strict", "strict")


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama with a gate and a tokenizer that is not ours."""
    folder = tmp_path_factory.mktemp("export") / "llama"
    with bases.quiet():
        return toy_models.toy_folder(folder, window=128)
