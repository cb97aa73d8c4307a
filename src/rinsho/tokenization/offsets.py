"""Tokens with their places in the raw text, and encodings of `tokenizers` made from them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from tokenizers import Encoding

from rinsho.segmentation import SPACE
from rinsho.text import clean as clean_text
from rinsho.text import clean_aligned
from rinsho.tokenization.words import Words

LONGEST_CHARACTER = 8  # raw characters tried as the source of one clean character before all of them are taken


@dataclass
class Aligned:
    """The tokens of a text, with the number of the word each lies in and its half-open range in the raw text."""

    ids: list[int] = field(default_factory=list)
    pieces: list[str] = field(default_factory=list)
    words: list[int] = field(default_factory=list)
    ranges: list[tuple[int, int]] = field(default_factory=list)


def align(text: str, words: Words, separated: Callable[[str], str] | None, clean: bool, segment: bool) -> Aligned:
    """The tokens of a raw text.

    Args:
        text: the raw text.
        words: the model.
        separated: cleaned text to MeCab's words with U+0020 between them; None: a word is what stands between spaces,
            digits and line feeds.
        clean: clean the text first.
        segment: False for words that are separated by U+0020 already.
    """
    cleaned, starts = clean_aligned(text) if clean else (text, list(range(len(text) + 1)))
    ends = _ends(text, cleaned, starts)
    if segment:
        cleaned = cleaned.replace(" ", SPACE)
    if segment and separated is None:
        rows = [(run.group(), run.start()) for run in words.runs.finditer(cleaned)]
    else:
        rows, at = [], 0
        for word in (separated(cleaned) if segment and separated is not None else text).split(" "):
            if word:
                at = cleaned.index(word, at)  # MeCab leaves out white space that cleaning would have unified
                rows.append((word, at))
                at += len(word)
    result = Aligned()
    for number, (word, at) in enumerate(rows):
        for id_, piece, start, end in words.spelt(word):
            result.ids.append(id_)
            result.pieces.append(piece)
            result.words.append(number)
            result.ranges.append((starts[at + start], ends[at + end - 1]))
    return result


def to_encoding(parts: Sequence[Aligned], word_numbers: bool) -> Encoding:
    """An encoding of one sequence; with `word_numbers` every part is one word, and its ranges lie in that word."""
    ids = [id_ for part in parts for id_ in part.ids]
    numbers = [number if word_numbers else word for number, part in enumerate(parts) for word in part.words]
    state: dict[str, Any] = {
        "ids": ids,
        "type_ids": [0] * len(ids),
        "tokens": [piece for part in parts for piece in part.pieces],
        "words": numbers,
        "offsets": [range_ for part in parts for range_ in part.ranges],
        "special_tokens_mask": [0] * len(ids),
        "attention_mask": [1] * len(ids),
        "overflowing": [],
        "sequence_ranges": {},
    }
    encoding = Encoding()
    encoding.__setstate__(json.dumps(state).encode())  # the one door there is: what a pickle of an encoding holds
    return encoding


def _ends(text: str, cleaned: str, starts: Sequence[int]) -> list[int]:
    """For each clean character the end of the raw characters it came from.

    Where one raw character became several, each of them stands for all of it. Raw characters that cleaning took away
    behind a character do not belong to it: a removed telephone number is part of no token.
    """
    ends = list(starts[1:])
    for place in range(len(ends) - 1, -1, -1):
        start = starts[place]
        if ends[place] == start and place + 1 < len(ends):
            ends[place] = ends[place + 1]
        elif ends[place] > start + 1:
            ends[place] = _tight(text, cleaned[place], start, ends[place])
    return ends


def _tight(text: str, char: str, start: int, end: int) -> int:
    if char.isspace():  # a run of white space
        return end
    for stop in range(start + 1, min(end, start + LONGEST_CHARACTER) + 1):
        if clean_text(text[start:stop]).endswith(char):
            return stop
    return end
