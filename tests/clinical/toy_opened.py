"""A model that is asked nothing: our tokenizer with a decoder that has a size only; and first feeds of jobs."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from rinsho.generate.opening import Opened
from rinsho.tokenization import add_chat_tokens, wrap
from tokenization.samples import vocabulary

SHORT = {"finetune": {"prompt_form": "short", "answer_form": "letter", "tasks": ["mrner_disease", "nrner"]}}


def our_tokenizer(chat: bool = True) -> Any:
    tokenizer = wrap(vocabulary(), segment="plain")
    if chat:
        add_chat_tokens(tokenizer)
    return tokenizer


def opened(tokenizer: Any, manifest: dict[str, Any] | None = None, window: int = 4096) -> Opened:
    decoder: Any = SimpleNamespace(slots=2, window=window, vocab_size=len(tokenizer), batch_tokens=64)
    return Opened(decoder, tokenizer, Path("toy"), "transformers", manifest or {}, "toy", "float32")


def prompt_of(job: Any) -> list[int]:
    """The ids that a job reads first."""
    ids = list(next(job).ids)
    job.close()
    return ids
