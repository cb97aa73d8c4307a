"""Ids of an answer become text as soon as its characters are whole; stop strings end it and are never shown."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rinsho.generate.jobs import UNTOLD, Token


@dataclass(frozen=True, slots=True)
class Told:
    """One id of an answer.

    Attributes:
        index: the id.
        start: where its text begins in the answer, in characters.
        token: its log-probability and the likeliest ids, where they are asked for.
    """

    index: int
    start: int
    token: Token


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of text that may be shown; where they were asked for, the ids whose text begins in it or before."""

    text: str
    told: tuple[Told, ...] = ()


class Writer:
    """Takes an answer's ids, gives its text piece by piece.

    A byte that begins no character is written as U+FFFD. What may be the beginning of a stop string is held back until
    it is none.

    Args:
        vocabulary: what each id writes; None for special tokens (`rinsho.generate.spans.piece_bytes`).
        stops: texts that end the answer.
        tokenizer: some leave the space out that the first piece begins with; None: it stays.
    """

    def __init__(self, vocabulary: Sequence[bytes | None], stops: Sequence[str] = (), tokenizer: Any = None) -> None:
        self.stopped = False
        self.count = 0
        self._vocabulary, self._stops, self._tokenizer = vocabulary, tuple(stops), tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held, self._shown = "", 0
        self._told: list[Told] = []

    def push(self, index: int, token: Token = UNTOLD) -> Piece | None:
        """Takes the next id; what can be shown now, if anything. Afterwards `stopped` says whether the answer ends."""
        data = (self._vocabulary[index] if index < len(self._vocabulary) else None) or b""
        if self.count == 0 and data.startswith(b" ") and self._drops_space(index):
            data = data[1:]
        self.count += 1
        if token is not UNTOLD:
            self._told.append(Told(index, self._shown + len(self._held), token))
        self._held += self._decoder.decode(data)
        return self._release(final=False)

    def close(self) -> Piece | None:
        """What is left when the answer ends."""
        if self.stopped:
            return None
        self._held += self._decoder.decode(b"", final=True)
        return self._release(final=True)

    def _drops_space(self, index: int) -> bool:
        if self._tokenizer is None:
            return False
        return not str(self._tokenizer.decode([index], skip_special_tokens=True)).startswith(" ")

    def _release(self, final: bool) -> Piece | None:
        places = [place for place in (self._held.find(stop) for stop in self._stops) if place >= 0]
        if places:
            self.stopped = True
            text, self._held = self._held[: min(places)], ""
        else:
            kept = 0 if final else self._kept()
            text, self._held = self._held[: len(self._held) - kept], self._held[len(self._held) - kept :]
        self._shown += len(text)
        everything = final and not self.stopped
        told = tuple(one for one in self._told if everything or one.start < self._shown)
        self._told = self._told[len(told) :]
        return Piece(text, told) if text or (told and final) else None

    def _kept(self) -> int:
        """How many of the last characters may be the beginning of a stop string."""
        longest = max((len(stop) for stop in self._stops), default=1) - 1
        for size in range(min(longest, len(self._held)), 0, -1):
            end = self._held[-size:]
            if any(stop.startswith(end) for stop in self._stops):
                return size
        return 0


def joined(pieces: Sequence[Piece]) -> Piece:
    """Several pieces as one."""
    if len(pieces) == 1:
        return pieces[0]
    return Piece("".join(piece.text for piece in pieces), tuple(told for piece in pieces for told in piece.told))
