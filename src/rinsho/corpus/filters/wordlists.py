"""Word lists, and which of their words stand in a text: one Aho-Corasick scan for all lists together.

A word counts wherever it stands, also inside another listed word (人妻 in 美人妻), with one exception: it must not
begin or end in the middle of a run of katakana or of Latin letters and digits, so ローン is not found in クローン病,
nor jav in JavaScript. Capital and small Latin letters are the same.

Source: SPEC N2.1-2.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from functools import cache
from importlib import resources
from pathlib import Path

from rinsho.errors import UserError
from rinsho.text import clean

MAX_TABLE_BYTES = 50_000  # of all words together: beyond it the fastest automaton takes too much memory
LATIN, KATAKANA = 1, 2
_LATIN = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789")
_FIRST, _LAST, _MIDDLE_DOT = "ァ".encode(), "ヿ".encode(), "・".encode()


class WordLists:
    """Finds the words of several lists in clean texts; the answer for the last text is kept.

    The words of the lists named in `anywhere` may begin and end in the middle of a run.

    >>> WordLists({"shop": ["送料無料", "ＳＡＬＥ"], "loan": ["ローン"]}).count("Sale、送料無料。クローン病")
    {'shop': 2, 'loan': 0}
    """

    def __init__(self, lists: Mapping[str, Iterable[str]], *, anywhere: Collection[str] = ()) -> None:
        from ahocorasick_rs import BytesAhoCorasick, Implementation

        words = [(name, word) for name, listed in lists.items() for word in _prepared(listed)]
        fast = sum(len(word) for _, word in words) <= MAX_TABLE_BYTES
        kind = Implementation.DFA if fast else Implementation.ContiguousNFA
        self._automaton = BytesAhoCorasick([word for _, word in words], implementation=kind)
        self._list_of = [name for name, _ in words]
        self._edges = [
            (0, 0) if name in anywhere else (_kind_after(word, 0), _kind_before(word, len(word)))
            for name, word in words
        ]
        self._none = dict.fromkeys(lists, 0)
        self._last: tuple[str, dict[str, int]] = ("", self._none)

    def count(self, text: str) -> dict[str, int]:
        """How many different words of each list stand in the text; takes linear time and any `str`."""
        if text is not self._last[0]:
            self._last = (text, self._count(text.encode("utf-8", "surrogatepass").lower()))
        return self._last[1]

    def _count(self, text: bytes) -> dict[str, int]:
        found: set[int] = set()
        for word, start, end in self._automaton.find_matches_as_indexes(text, overlapping=True):
            if word in found:
                continue
            first, last = self._edges[word]
            if (first and _kind_before(text, start) == first) or (last and _kind_after(text, end) == last):
                continue
            found.add(word)
        if not found:
            return self._none
        counts = dict(self._none)
        for word in found:
            counts[self._list_of[word]] += 1
        return counts


@cache
def built_in(name: str) -> tuple[str, ...]:
    """The words of a list that comes with the package: "adult" or "advert".

    >>> "送料無料" in built_in("advert"), "セックス" in built_in("adult")
    (True, False)
    """
    text = resources.files("rinsho.corpus.filters").joinpath("words", f"{name}.txt").read_text(encoding="utf-8")
    return tuple(_lines(text))


def read_words(path: Path) -> tuple[str, ...]:
    """The words of a user's file: UTF-8, one a line; empty lines and lines that begin with # are left out.

    Raises:
        UserError: the file cannot be read, is not UTF-8, or holds no word.
    """
    problem = UserError(
        "not a word list", where=path, expected="UTF-8 text with one word a line", todo="check corpus.word_lists"
    )
    try:
        words = tuple(_lines(path.read_text(encoding="utf-8-sig")))
    except (OSError, UnicodeDecodeError):
        raise problem from None
    if not _prepared(words):
        raise problem
    return words


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.split("\n") if line.strip() and not line.startswith("#")]


def _prepared(words: Iterable[str]) -> list[bytes]:
    """The words as they stand in clean text, small letters, each once; one of which nothing is left goes."""
    cleaned = (clean(word, personal="keep").strip().encode("utf-8", "surrogatepass").lower() for word in words)
    return list(dict.fromkeys(word for word in cleaned if word))


def _kind_before(text: bytes, place: int) -> int:
    """LATIN, KATAKANA or 0: of which kind the character before `place` is."""
    if place > 0 and text[place - 1] in _LATIN:
        return LATIN
    return KATAKANA if _is_katakana(text[max(0, place - 3) : place]) else 0


def _kind_after(text: bytes, place: int) -> int:
    """LATIN, KATAKANA or 0: of which kind the character at `place` is."""
    if place < len(text) and text[place] in _LATIN:
        return LATIN
    return KATAKANA if _is_katakana(text[place : place + 3]) else 0


def _is_katakana(character: bytes) -> bool:
    return _FIRST <= character <= _LAST and character != _MIDDLE_DOT
