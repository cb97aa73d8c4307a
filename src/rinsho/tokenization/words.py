"""Text already cleaned to ids: cut into words, each word looked up in a cache that asks the model once."""

from __future__ import annotations

import re
import sys
from array import array
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rinsho.chat import CHAT_TOKENS
from rinsho.segmentation import SPACE, alone_characters

if TYPE_CHECKING:
    from rinsho.tokenization.tokenizer import RinshoTokenizer

CACHED_CHARS = 64  # longer words do not come back
CACHED_WORDS = 200_000  # some 40 MB; a few ten thousand words cover nearly everything
_HASH_BITS = 20
_UTF32 = "utf-32-le" if sys.byteorder == "little" else "utf-32-be"
_FIRST, _SECOND = np.uint32(2_654_435_761), np.uint32(2_246_822_519)


class Words(dict[str, bytes]):
    """Word -> its ids as bytes of `dtype`, filled on first sight.

    The bytes of many words joined are the array of a text's ids; joining bytes is faster than chaining tuples.
    """

    def __init__(self, tokenizer: RinshoTokenizer) -> None:
        super().__init__()
        model = tokenizer.backend_tokenizer.model
        alone = alone_characters(tokenizer.split_digits) + "\n"
        self.dtype: np.dtype[Any] = token_dtype(tokenizer)
        self.separate: Callable[[str], str] | None = None
        if tokenizer.segment_form == "plain":
            self.separate = Cuts(tokenizer.get_vocab(), alone)
        self.runs = re.compile(f"[{alone}]|[^{alone}]+")
        self._newline = tokenizer.newline_id
        self._tokenize = model.tokenize
        self._code = "H" if self.dtype == np.uint16 else "I"
        self._spelt: dict[str, list[tuple[int, str, int, int]]] = {}

    def __missing__(self, word: str) -> bytes:
        ids: list[int] = []
        for run in self.runs.findall(word):
            ids += [self._newline] if run == "\n" else [token.id for token in self._tokenize(run)]
        found = array(self._code, ids).tobytes()
        if len(word) <= CACHED_CHARS:
            if len(self) >= CACHED_WORDS:
                self.clear()
            self[word] = found
        return found

    def encode(self, separated: str) -> NDArray[Any]:
        """The ids of words with U+0020 between them, as a read-only array."""
        return np.frombuffer(b"".join(map(self.__getitem__, separated.split(" "))), self.dtype)

    def spelt(self, word: str) -> list[tuple[int, str, int, int]]:
        """The tokens of a word as (id, piece, start, end): where in the word they stand, in characters.

        Each byte token of a character stands for the whole character.
        """
        found = self._spelt.get(word)
        if found is None:
            found = []
            for run in self.runs.finditer(word):
                found += self._spelt_run(run.group(), run.start())
            if len(self._spelt) >= CACHED_WORDS:
                self._spelt.clear()
            if len(word) <= CACHED_CHARS:
                self._spelt[word] = found
        return found

    def _spelt_run(self, run: str, start: int) -> list[tuple[int, str, int, int]]:
        if run == "\n":
            return [(self._newline, run, start, start + 1)]
        rows, at, bytes_left = [], 0, 0
        for token in self._tokenize(run):
            piece = token.value
            if len(piece) == 6 and piece.startswith("<0x"):  # never text: `<` stands alone there
                bytes_left = bytes_left or len(run[at].encode())
                bytes_left -= 1
                rows.append((token.id, piece, start + at, start + at + 1))
                at += bytes_left == 0
            else:  # what is unknown comes as one token with its characters
                rows.append((token.id, piece, start + at, start + at + len(piece)))
                at += len(piece)
        return rows


class Cuts:
    """Cleaned text with U+0020 wherever no piece of the vocabulary can cross: there the best spelling falls apart.

    A piece that crosses the border between two characters contains them side by side. So where the two stand side by
    side in no piece, the text on the left and on the right can be spelt apart, and is short enough to be cached
    (about 1.2 tokens). Pairs are kept as a hashed bitmap; a wrong hit only leaves two chunks together. Runs of
    unknown characters are not cut, because they become one token.
    """

    def __init__(self, pieces: Iterable[str], alone: str) -> None:
        apart = re.compile(f"[{alone}]")
        self._known = np.zeros(0x110000, bool)
        firsts, seconds = [], []
        for piece in pieces:
            if len(piece) == 1:
                self._known[ord(piece)] = True
            elif not apart.search(piece):
                firsts.append(piece[:-1])
                seconds.append(piece[1:])
        self._known[ord("\n")] = True
        self._joined = np.zeros(1 << _HASH_BITS, bool)
        self._joined[_pairs(_codes("".join(firsts)), _codes("".join(seconds)))] = True

    def __call__(self, text: str) -> str:
        """The text with U+0020 between chunks, its own spaces as U+2581."""
        codes = _codes(text.replace(" ", SPACE))
        if len(codes) < 2:
            return text.replace(" ", SPACE)
        cut = ~self._joined[_pairs(codes[:-1], codes[1:])]
        known = self._known[codes]
        if not known.all():
            cut &= known[:-1] | known[1:]
        places = np.arange(len(codes))
        places[1:] += np.cumsum(cut)
        spread = np.full(int(places[-1]) + 1, ord(" "), np.uint32)
        spread[places] = codes
        return spread.tobytes().decode(_UTF32, "surrogatepass")


def token_dtype(tokenizer: RinshoTokenizer) -> np.dtype[Any]:
    """uint16 where every id fits, those of the chat tokens included, else uint32."""
    ids = max(tokenizer.vocab_size, tokenizer.newline_id + 1) + len(CHAT_TOKENS)
    return np.dtype(np.uint16 if ids <= 1 << 16 else np.uint32)


def _codes(text: str) -> NDArray[np.uint32]:
    return np.frombuffer(text.encode(_UTF32, "surrogatepass"), np.uint32)


def _pairs(first: NDArray[np.uint32], second: NDArray[np.uint32]) -> NDArray[np.uint32]:
    hashed: NDArray[np.uint32] = ((first * _FIRST) ^ (second * _SECOND)) >> np.uint32(32 - _HASH_BITS)
    return hashed
