"""Long texts cut into passages that a model's window holds, and places in cleaned text found again in the raw text."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence

from rinsho.errors import UserError
from rinsho.text import clean, clean_aligned, sentences

LONGEST_CHARACTER = 8  # raw characters tried as the source of one clean character before all of them are taken
PAUSES = frozenset("、，,;；:： 　\t")

Span = tuple[int, int]


def cut(text: str, fits: Callable[[str], bool]) -> list[Span]:
    """Ranges that together are the whole text, each of which fits: halved between sentences until they do.

    Where a single sentence is too long it is cut at a comma or a space, else anywhere. Each cut is the one nearest to
    the middle, so that all passages are of like length.

    Raises:
        UserError: not even one character fits.

    >>> cut("発熱あり。咳あり。痰なし。", lambda part: len(part) <= 8)
    [(0, 5), (5, 13)]
    """
    whole = (0, len(text))
    if fits(text):
        return [whole]
    places = [starts_of_sentences(text), [place + 1 for place, char in enumerate(text) if char in PAUSES]]
    return _halves(text, whole, fits, places)


def starts_of_sentences(text: str) -> list[int]:
    """Where in a raw text its sentences begin, ascending; sentences are those of the cleaned text."""
    cleaned, origins = clean_aligned(text)
    starts, at = [], 0
    for sentence in sentences(cleaned):
        at = cleaned.index(sentence, at)
        starts.append(origins[at])
        at += len(sentence)
    return starts


def _halves(text: str, span: Span, fits: Callable[[str], bool], places: Sequence[Sequence[int]]) -> list[Span]:
    start, end = span
    if fits(text[start:end]):
        return [span]
    if end - start < 2:
        raise UserError(
            "the question alone fills the model's window", where="passage", expected="room for a text and its answer",
            todo="give a model with a larger window, or lower max_new_tokens",
        )  # fmt: skip
    middle = (start + end) // 2
    for known in places:
        inside = known[bisect_right(known, start) : bisect_left(known, end)]
        if inside:
            middle = min(inside, key=lambda place: abs(place - middle))
            break
    return [*_halves(text, (start, middle), fits, places), *_halves(text, (middle, end), fits, places)]


class Sight:
    """A raw passage and what the model sees of it.

    Attributes:
        seen: cleaned for our tokenizers, which clean what they encode; else the raw text.
    """

    def __init__(self, raw: str, cleans: bool) -> None:
        self.raw = raw
        self.seen, self._origins = clean_aligned(raw) if cleans else (raw, list(range(len(raw) + 1)))

    def raw_span(self, start: int, end: int) -> Span:
        """The range of the raw passage that `seen[start:end]` came from.

        A raw character that became several (㎎) belongs to it whole; what cleaning took away behind it does not.
        """
        last, after = self._origins[end - 1], end
        while self._origins[after] == last:  # within what one raw character became
            after += 1
        stop = self._origins[after]
        if stop > last + 1 and not self.seen[end - 1].isspace():
            character = self.seen[end - 1]
            for place in range(last + 1, min(stop, last + LONGEST_CHARACTER) + 1):
                if clean(self.raw[last:place]).endswith(character):
                    stop = place
                    break
        return self._origins[start], stop
