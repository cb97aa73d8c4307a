"""A vocabulary as a backend of Hugging Face `tokenizers`, in two forms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from rinsho.chat import BEGIN, END
from rinsho.segmentation import SPACE, alone_characters

UNKNOWN = "<unk>"
CONTROLS = (UNKNOWN, BEGIN, END, "\n")  # ids 0, 1, 2, 3
SCORE_UNIT = 2.0**-14  # as fine as the reader of `tokenizer.json` keeps exact (16 digits, below 2**53)

Form = Literal["strict", "plain"]


def to_backend(
    vocabulary: Sequence[tuple[str, float]], byte_fallback: bool, split_digits: bool, segment: Form = "strict"
) -> Tokenizer:
    """The tokenizer backend: ids out, readable text back.

    `strict` takes words separated by U+0020 (spaces as U+2581), which only rinsho can prepare. `plain` takes cleaned
    text as it is, so its file is complete by itself for any program that reads `tokenizer.json`.

    Scores are rounded to multiples of SCORE_UNIT. So their sums are exact (scores of real pieces lie above -90),
    and of two equally good ways to spell a text the same one wins wherever the text stands: a word alone and within
    a line has the same pieces.

    Source: N2.2-4.
    """
    exact = [(piece, exact_score(score)) for piece, score in vocabulary]
    backend = Tokenizer(models.Unigram(exact, unk_id=0, byte_fallback=byte_fallback))
    alone = pre_tokenizers.Split(Regex(f"[{alone_characters(split_digits)}]"), behavior="isolated")
    if segment == "plain":
        backend.normalizer = normalizers.Replace(" ", SPACE)
        backend.pre_tokenizer = alone
    else:
        backend.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(" ", behavior="removed"), alone])
    backend.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Replace(SPACE, " "), decoders.Fuse()])
    backend.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in CONTROLS[:3]])
    # Not special: decoding with skip_special_tokens=True would delete every line break.
    backend.add_tokens([AddedToken("\n", normalized=False, special=False)])
    return backend


def exact_score(score: float) -> float:
    """The nearest multiple of SCORE_UNIT, with which sums are exact."""
    return round(score / SCORE_UNIT) * SCORE_UNIT
