"""Our tokenizer as llama.cpp knows one: as exact as it can be there, without MeCab.

It is written as a Unigram of the kind `t5`, which spells as ours does, ties included, but for one thing: a character
without a piece becomes `<unk>` instead of its bytes, so it is lost. (`plamo2`, the other Unigram of llama.cpp, spells
bytes, but settles ties from the other end of the text: measured in docs/export.md.) What the tokenizer inside makes of
texts is measured at every export.

Source: neither 4; llama.cpp, src/llama-vocab.cpp.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rinsho.segmentation import alone_characters

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)  # gguf.TokenType
NEVER = -10_000.0  # a score that no spelling takes
_BYTE = re.compile(r"<0x[0-9A-F]{2}>")
_GENERATION = re.compile(r"\{%-?\s*(?:end)?generation\s*-?%\}")


@dataclass(frozen=True)
class Vocabulary:
    """Pieces, scores and kinds (`gguf.TokenType`) of all ids of a model."""

    pieces: list[str]
    scores: list[float]
    kinds: list[int]


def vocabulary(folder: Path, rows: int) -> Vocabulary:
    """The vocabulary of our tokenizer in a folder, filled up to the rows of the model's embedding.

    Special tokens are control tokens: their characters in a text stay text unless a program asks for the contrary. A
    line feed is user-defined: cut out first, as ours does.
    """
    content: dict[str, Any] = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    alone = set(alone_characters(bool(settings.get("split_digits", False)))) | {"\n"}
    made = Vocabulary([], [], [])
    for piece, score in content["model"]["vocab"]:
        byte = bool(_BYTE.fullmatch(piece))
        crosses = len(piece) > 1 and not byte and not alone.isdisjoint(piece)  # ours cuts before it looks
        made.pieces.append(piece)
        made.scores.append(NEVER if crosses else float(score))
        made.kinds.append(BYTE if byte else UNUSED if crosses else NORMAL)
    for token in sorted(content["added_tokens"], key=lambda row: row["id"]):
        if token["id"] >= len(made.pieces):
            _fill(made, token["id"] + 1)
        made.pieces[token["id"]] = token["content"]
        made.scores[token["id"]] = 0.0
        made.kinds[token["id"]] = CONTROL if token["special"] else USER_DEFINED
    made.kinds[content["model"]["unk_id"]] = UNKNOWN
    _fill(made, rows)
    return made


def plain_template(template: str) -> str:
    """A chat template without the marks of the learned part, which only transformers knows; it renders the same.

    >>> plain_template("{% generation %}{{ answer }}{% endgeneration %}")
    '{{ answer }}'
    """
    return _GENERATION.sub("", template)


def _fill(made: Vocabulary, rows: int) -> None:
    """Names for ids that have none; llama.cpp wants each to be another."""
    for number in range(len(made.pieces), rows):
        made.pieces.append(f"<|unused_{number}|>")
        made.scores.append(NEVER)
        made.kinds.append(UNUSED)
