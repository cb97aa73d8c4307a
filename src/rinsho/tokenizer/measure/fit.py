"""What training reports about its own tokenizer: characters per token, whole clinical terms, exact round trips."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rinsho.tokenization import RinshoTokenizer


@dataclass(frozen=True)
class TextFit:
    """What a tokenizer makes of a text sample. Fractions are of all tokens."""

    documents: int
    characters: int
    tokens: int
    characters_per_token: float | None
    byte_fallback_fraction: float | None
    unknown_fraction: float | None
    round_trip_failures: int
    failed_ids: tuple[str, ...]  # ids of the first ten documents that do not come back exactly


def measure_texts(tokenizer: RinshoTokenizer, texts: Iterable[tuple[str, str]]) -> TextFit:
    """The fit on (id, raw text) pairs; a round trip is exact when `decode(encode(x)) == clean(x)`.

    Source: N2.2-5.
    """
    from rinsho.text import clean

    byte_ids = {id_ for piece, id_ in tokenizer.get_vocab().items() if is_byte_piece(piece)}
    unknown = tokenizer.unk_token_id
    documents = characters = tokens = fallback = unknowns = 0
    failed = []
    for document_id, text in texts:
        cleaned = clean(text)
        ids = tokenizer.encode_text(text)
        documents += 1
        characters += len(cleaned)
        tokens += len(ids)
        fallback += sum(id_ in byte_ids for id_ in ids)
        unknowns += ids.count(unknown)
        if tokenizer.decode(ids) != cleaned:
            failed.append(document_id)
    return TextFit(
        documents=documents,
        characters=characters,
        tokens=tokens,
        characters_per_token=ratio(characters, tokens),
        byte_fallback_fraction=ratio(fallback, tokens),
        unknown_fraction=ratio(unknowns, tokens),
        round_trip_failures=len(failed),
        failed_ids=tuple(failed[:10]),
    )


def single_piece_fraction(tokenizer: RinshoTokenizer, words: Sequence[str]) -> float | None:
    """The share of words that are one token each; None without words."""
    return ratio(sum(len(tokenizer.encode_text(word)) == 1 for word in words), len(words))


def table(numbers: dict[str, Any]) -> str:
    """The report's figures as a Markdown table."""
    labels = {
        "vocab_size": "pieces in the vocabulary",
        "train_documents": "training documents",
        "train_mb": "training text, MB",
        "distinct_words": "distinct words",
        "heldout_documents": "held-out documents measured on",
        "lexicon_terms": "terms in the word lists",
        "user_dictionary_entries": "terms entered in the user dictionary",
        "characters_per_token": "characters per token, held-out text",
        "plain_characters_per_token": "characters per token, held-out text, plain form",
        "byte_fallback_fraction": "tokens that are bytes, held-out text",
        "unknown_fraction": "unknown tokens, held-out text",
        "round_trip_failures": "held-out documents that do not come back exactly",
        "plain_round_trip_failures": "held-out documents that do not come back exactly, plain form",
        "frequent_words_single_fraction": "most frequent words that are one piece",
        "frequent_words_without_digits_single_fraction": "the same, without words that hold a digit or a mark",
        "lexicon_single_fraction": "word-list terms that are one piece, however rare",
    }
    rows = [f"| {label} | {_shown(key, numbers[key])} |" for key, label in labels.items() if key in numbers]
    return "\n".join(["| figure | value |", "| --- | ---: |", *rows]) + "\n"


def is_byte_piece(piece: str) -> bool:
    """Whether a piece is one byte of a character, as byte fallback spells it.

    >>> is_byte_piece("<0xE3>"), is_byte_piece("<unk>")
    (True, False)
    """
    return piece.startswith("<0x") and piece.endswith(">") and len(piece) == 6


def ratio(part: float, whole: float) -> float | None:
    """A share; None of nothing."""
    return part / whole if whole else None


def _shown(key: str, value: Any) -> str:
    if value is None:
        return "–"
    if key.endswith("_fraction"):
        return f"{100 * value:.2f} %"
    return f"{value:,.3f}" if isinstance(value, float) else f"{value:,}"
