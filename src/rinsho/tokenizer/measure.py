"""How well a tokenizer fits: characters per token, whole clinical terms, fallback, exact round trips."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from rinsho.text import clean
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
    """The fit on (id, raw text) pairs; a round trip is exact when `decode(encode(x)) == clean(x)`."""
    byte_ids = {id_ for piece, id_ in tokenizer.get_vocab().items() if piece.startswith("<0x") and len(piece) == 6}
    unknown = tokenizer.unk_token_id
    documents = characters = tokens = fallback = unknowns = 0
    failed = []
    for document_id, text in texts:
        cleaned = clean(text)
        ids = tokenizer.encode_text(cleaned)
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
        characters_per_token=_ratio(characters, tokens),
        byte_fallback_fraction=_ratio(fallback, tokens),
        unknown_fraction=_ratio(unknowns, tokens),
        round_trip_failures=len(failed),
        failed_ids=tuple(failed[:10]),
    )


def single_piece_fraction(tokenizer: RinshoTokenizer, words: Sequence[str]) -> float | None:
    """The share of words that are one token each; None without words."""
    return _ratio(sum(len(tokenizer.encode_text(word)) == 1 for word in words), len(words))


def table(numbers: dict[str, Any]) -> str:
    """The report's figures as a Markdown table."""
    labels = {
        "vocab_size": "pieces in the vocabulary",
        "train_documents": "training documents",
        "train_mb": "training text, MB",
        "distinct_words": "distinct words",
        "lexicon_terms": "terms in the word lists",
        "user_dictionary_entries": "terms entered in the user dictionary",
        "characters_per_token": "characters per token, held-out text",
        "byte_fallback_fraction": "tokens that are bytes, held-out text",
        "unknown_fraction": "unknown tokens, held-out text",
        "round_trip_failures": "held-out documents that do not come back exactly",
        "frequent_words_single_fraction": "most frequent words that are one token",
        "lexicon_single_fraction": "word-list terms that are one token",
    }
    rows = [f"| {label} | {_shown(key, numbers.get(key))} |" for key, label in labels.items()]
    return "\n".join(["| figure | value |", "| --- | ---: |", *rows]) + "\n"


def _shown(key: str, value: Any) -> str:
    if value is None:
        return "–"
    if key.endswith("_fraction"):
        return f"{100 * value:.2f} %"
    return f"{value:,.3f}" if isinstance(value, float) else f"{value:,}"


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None
