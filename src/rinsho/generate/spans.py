"""Answers of the form ['肺癌', '発熱'] whose every item is a span of a passage, decoded token by token.

The passage is taken as UTF-8 bytes, so that byte-fallback and byte-level pieces follow the same rule as pieces of
characters. While an item is being written, the set of all places in the passage where it may stand is kept; a
piece may follow when it continues at one of them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

MAX_ITEMS = 20  # the benchmark's longest gold answer has 19 (data map, 1.1)
NEWLINE, BACKSLASH = ord("\n"), ord("\\")

Ids = npt.NDArray[np.int64]

Trie = dict[Any, Any]  # byte -> deeper trie; None -> ids of the pieces that end here


class Pieces:
    """The vocabulary as bytes in a trie, special tokens left out."""

    def __init__(self, pieces: Sequence[bytes | None]) -> None:
        self.bytes = list(pieces)
        self.trie: Trie = {}
        for index, piece in enumerate(pieces):
            if not piece:
                continue
            node = self.trie
            for byte in piece:
                node = node.setdefault(byte, {})
            node.setdefault(None, []).append(index)

    def continuing(self, data: bytes, start: int, limit: int) -> list[tuple[int, int]]:
        """(id, end) of every piece that equals `data[start:end]` with `end <= limit`."""
        found: list[tuple[int, int]] = []
        node = self.trie
        for position in range(start, limit):
            deeper = node.get(data[position])
            if deeper is None:
                break
            node = deeper
            found += [(index, position + 1) for index in node.get(None, ())]
        return found


class Passage:
    """A cleaned passage and which pieces continue where in it, worked out once for each place.

    It is kept as it would be written in the answer: with a backslash before every quote and backslash.
    """

    def __init__(self, text: str, pieces: Pieces) -> None:
        escaped = text.replace("\\", "\\\\").replace("'", "\\'")
        self.data = escaped.encode("utf-8", "surrogatepass")
        self.pieces = pieces
        self._at: dict[int, list[tuple[int, int]]] = {}
        self._limits = self._line_ends()
        self._starts = self._unit_starts()
        self.anywhere = self.after(sorted(self._starts))

    def after(self, positions: Sequence[int]) -> dict[int, list[int]]:
        """Maps ids to the ends of the pieces that may follow at the positions."""
        ends: dict[int, list[int]] = {}
        for position in positions:
            if position not in self._at:
                self._at[position] = self.pieces.continuing(self.data, position, self._limits[position])
            for index, end in self._at[position]:
                ends.setdefault(index, []).append(end)
        return ends

    def may_end(self, positions: Sequence[int]) -> bool:
        """Whether an item that reaches these places is whole: not inside a character or after a lone backslash."""
        return any(position in self._starts or position == len(self.data) for position in positions)

    def _unit_starts(self) -> set[int]:
        starts: set[int] = set()
        position = 0
        while position < len(self.data):
            starts.add(position)
            position += 2 if self.data[position] == BACKSLASH else 1
            while position < len(self.data) and (self.data[position] & 0xC0) == 0x80:
                position += 1
        return starts

    def _line_ends(self) -> list[int]:
        """For each byte where its line ends: an item does not go beyond it."""
        nearest = len(self.data)
        limits = [nearest] * (len(self.data) + 1)
        for position in range(len(self.data) - 1, -1, -1):
            if self.data[position] == NEWLINE:
                nearest = position
            limits[position] = nearest
        return limits


class SpanAnswer:
    """The state of one answer being written: which ids are legal next, and the items so far.

    Attributes:
        items: the finished items; every one is a substring of the passage.
        done: the closing bracket is written.
    """

    def __init__(self, passage: Passage, max_items: int = MAX_ITEMS) -> None:
        self.passage, self.max_items = passage, max_items
        self.items: list[str] = []
        self.done = False
        self._item: bytes | None = None  # what is written of the present item; None between items
        self._ends: list[int] = []  # where in the passage it may have come to
        self._continuing: dict[int, list[int]] = {}  # ids that continue it, with where they come to
        self._syntax = [b"['", b"[]"] if passage.anywhere else [b"[]"]  # what may be written between items

    def allowed(self) -> Ids:
        """The legal next ids, ascending, `(n,) int64`; empty when done."""
        if self.done:
            return np.empty(0, np.int64)
        ids = set(self._continuing)
        for rest in self._continuations():
            ids.update(index for index, _ in self.passage.pieces.continuing(rest, 0, len(rest)))
        return np.array(sorted(ids), np.int64)

    def advance(self, index: int) -> None:
        """Takes one legal id."""
        piece = self.passage.pieces.bytes[index] or b""
        rests = [rest[len(piece) :] for rest in self._continuations() if rest.startswith(piece)]
        if not rests:
            self._ends = self._continuing[index]
            self._item = (self._item or b"") + piece
            self._continuing = self.passage.after(self._ends)
            return
        if self._item is not None:
            self.items.append(_unescaped(self._item))
            self._item, self._continuing = None, {}
        if rests != [b""]:
            self._syntax = rests
        elif piece.endswith(b"]"):
            self.done = True
        else:
            self._item, self._continuing = b"", self.passage.anywhere

    def closes(self, index: int) -> bool:
        """Whether this legal id ends the item that is being written."""
        return bool(self._item) and index not in self._continuing

    def _continuations(self) -> list[bytes]:
        """What may be written now outside an item, up to the next opening quote or the end."""
        if self._item is None:
            return self._syntax
        if not self._item or not self.passage.may_end(self._ends):
            return []
        return [b"', '", b"']"] if len(self.items) + 1 < self.max_items else [b"']"]


def _unescaped(item: bytes) -> str:
    return re.sub(rb"\\(.)", rb"\1", item).decode("utf-8", "surrogatepass")


def unique(items: Sequence[str]) -> list[str]:
    """The items without exact repeats, in the order of their first occurrence."""
    return list(dict.fromkeys(items))


def piece_bytes(tokenizer: Any) -> list[bytes | None]:
    """What each id of a Hugging Face tokenizer writes, as bytes; None for special tokens.

    Pieces with `▁` for a space and `<0xE8>` for a byte (Unigram, Llama) and byte-level pieces (GPT-2, Qwen) are known.
    """
    special = set(tokenizer.all_special_ids) | {
        index for index, token in getattr(tokenizer, "added_tokens_decoder", {}).items() if token.special
    }
    names = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    byte_level = _byte_level(tokenizer)
    return [None if index in special or name is None else _one(name, byte_level) for index, name in enumerate(names)]


def _one(name: str, byte_level: dict[str, int] | None) -> bytes | None:
    if byte_level is not None:
        return bytes(byte_level[char] for char in name) if all(char in byte_level for char in name) else name.encode()
    if len(name) == 6 and name.startswith("<0x") and name.endswith(">"):
        return bytes([int(name[3:5], 16)])
    return name.replace("▁", " ").encode("utf-8", "surrogatepass")


def _byte_level(tokenizer: Any) -> dict[str, int] | None:
    """Character -> byte for byte-level vocabularies (GPT-2's table), None for the others."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or "ByteLevel" not in repr(getattr(backend, "decoder", None)):
        return None
    plain = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAC + 1), *range(0xAE, 0xFF + 1)]
    others = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(256 + place): byte for place, byte in enumerate(others)}
