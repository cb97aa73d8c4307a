"""The page: a text with its tokens coloured, the tokenizers side by side, and the figures below. One offline file."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

import numpy as np

from rinsho.text import clean_aligned
from rinsho.tokenizer.measure import report
from rinsho.tokenizer.measure.others import Opened, piece_text
from rinsho.tokenizer.measure.sample import Places, Shown, crossing, trimmed
from rinsho.tokenizer.measure.terms import Yardsticks

LONG_LINE = 100  # characters; longer ones would not stand side by side any more
COLOURS = 5  # backgrounds that follow one another
_SENTENCE = re.compile(r"[^。\n]*。[」』）)]*|[^。\n]+\n?")
MARKS = {" ": "␣", "\n": "⏎"}


@dataclass(frozen=True)
class Part:
    """Characters of one token in one line; `kind` is plain, term or mark (white space made visible)."""

    text: str
    kind: str


@dataclass(frozen=True)
class Token:
    """One token as drawn in one line: CSS classes, what hovering tells, and its characters."""

    classes: str
    tip: str
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Cell:
    """One line of the text in one tokenizer's column."""

    tokens: tuple[Token, ...]
    count: int  # tokens that begin here


@dataclass(frozen=True)
class Text:
    """One shown text: the rows of cells, and tokens and characters per token of each column."""

    name: str
    characters: int
    rows: list[list[Cell]]
    tokens: list[int]


def render(
    numbers: Mapping[str, Any],
    picture: str,
    shown: Sequence[Shown],
    tokenizers: Sequence[Opened],
    yardsticks: Yardsticks,
) -> str:
    """The page as HTML; speeds are left out, so that equal inputs give equal bytes."""
    import jinja2

    texts = [drawn(row, tokenizers, yardsticks) for row in shown]
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters |= {
        "percent": report.percent,
        "figure": report.figure,
        "interval": report.with_interval,
        "change": report.change,
        "exact": report.exact,
        "plain": _name,
    }
    source = resources.files(__package__).joinpath("page.html.j2").read_text(encoding="utf-8")
    return environment.from_string(source).render(
        numbers=numbers,
        picture=picture,
        texts=texts,
        tokenizers=tokenizers,
        totals=[sum(text.tokens[column] for text in texts) for column in range(len(tokenizers))],
        characters=sum(text.characters for text in texts),
        colours=COLOURS,
    )


def drawn(shown: Shown, tokenizers: Sequence[Opened], yardsticks: Yardsticks) -> Text:
    """One text as rows of cells: a row a line of the cleaned text or a sentence of a long one, a cell a tokenizer."""
    cleaned, places = clean_aligned(shown.raw)
    marked = np.zeros(len(cleaned) + 1, dtype=np.int64)
    for number, (start, end) in enumerate(yardsticks.terms(cleaned), 1):
        marked[start:end] = number
    source = _Source(shown.raw, cleaned, places, marked, yardsticks.words(cleaned), list(_lines(cleaned)))
    columns = [_Column(each, source).cells() for each in tokenizers]
    return Text(
        name=shown.name,
        characters=len(cleaned),
        rows=[list(cells) for cells in zip(*columns, strict=True)],
        tokens=[sum(cell.count for cell in cells) for cells in columns],
    )


@dataclass(frozen=True)
class _Source:
    """A text with all that is known of it whatever the tokenizer."""

    raw: str
    cleaned: str
    places: Sequence[int]  # of each cleaned character, and of the end, in the raw text
    marked: Places  # which term a cleaned character belongs to, 0 for none
    words: Places
    lines: Sequence[tuple[int, int]]

    def parts(self, start: int, end: int) -> Iterator[Part]:
        """The characters in runs of one kind; two terms side by side stay two runs."""
        begin = start
        for place in range(start, end):
            char = self.cleaned[place]
            if char in MARKS:
                yield Part(MARKS[char], "mark")
                begin = place + 1
            elif place + 1 == end or self.cleaned[place + 1] in MARKS or self.marked[place + 1] != self.marked[place]:
                yield Part(self.cleaned[begin : place + 1], "term" if self.marked[place] else "plain")
                begin = place + 1

    def written(self, start: int, end: int) -> tuple[int, int]:
        """The range of raw characters behind cleaned ones; one raw character that became several stands whole."""
        first, last = self.places[start], self.places[end]
        while end > start and last == first and end < len(self.places) - 1:
            end += 1
            last = self.places[end]
        return first, last


class _Column:
    """Draws one tokenizer's tokens: each stands once, at the first characters that no token before it has."""

    def __init__(self, tokenizer: Opened, source: _Source) -> None:
        self._tokenizer, self._source = tokenizer, source
        self._ids, spans = tokenizer.aligned(source.cleaned)
        self._pieces = tokenizer.pieces(self._ids)
        self._torn = np.zeros(len(self._ids), dtype=bool)
        if spans is None:
            spans = _found(self._pieces, tokenizer.unknown[self._ids].tolist(), source.cleaned)
        else:
            self._torn = crossing(trimmed(spans, source.cleaned), source.words)
        self._spans = spans
        self._line = 0
        self._rows: list[list[Token]] = [[] for _ in source.lines]
        self._counts = [0] * len(source.lines)

    def cells(self) -> list[Cell]:
        """One cell a line; what no token has is drawn as lost."""
        cursor = 0
        for place, (start, end) in enumerate(self._spans.tolist()):
            self._draw(cursor, start, "lost", "in no token")
            self._draw_token(place, max(start, cursor), end)
            cursor = max(cursor, end)
        self._draw(cursor, len(self._source.cleaned), "lost", "in no token")
        return [Cell(tuple(tokens), count) for tokens, count in zip(self._rows, self._counts, strict=True)]

    def _draw_token(self, place: int, begin: int, end: int) -> None:
        id_, piece, tokenizer = int(self._ids[place]), self._pieces[place], self._tokenizer
        self._go_to(begin)
        self._counts[self._line] += 1
        classes = _classes(tokenizer, id_, place, bool(self._torn[place]))
        tip = self._tip(place)
        if begin < end:
            code = (Part(piece[3:5], "mark"),) if tokenizer.fallback[id_] else ()
            self._draw(begin, end, classes, tip, code)
        else:
            self._rows[self._line].append(Token(f"{classes} chip", tip, (Part(_chip(tokenizer, piece, id_), "plain"),)))

    def _draw(self, start: int, end: int, classes: str, tip: str, code: tuple[Part, ...] = ()) -> None:
        """The characters from `start` to `end`, cut at the ends of lines."""
        self._go_to(start)
        more = ""
        while start < end:
            self._go_to(start)
            stop = min(end, self._source.lines[self._line][1])
            parts = (*self._source.parts(start, stop), *code)
            self._rows[self._line].append(Token(classes + more, tip, parts))
            start, more = stop, " more"

    def _go_to(self, place: int) -> None:
        while place >= self._source.lines[self._line][1] and self._line < len(self._source.lines) - 1:
            self._line += 1

    def _tip(self, place: int) -> str:
        """Piece, id and range of raw characters, and these where they look different."""
        piece, (start, end) = self._pieces[place], self._spans[place].tolist()
        first, last = self._source.written(start, end)
        text = piece_text(piece, self._tokenizer.byte_level)
        shown = _printable(text) if text == piece else f"{_printable(text)} ({piece})"
        tip = f"{shown}   id {self._ids[place]}   raw {first}–{last}"
        written = self._source.raw[first:last]
        return tip if written in (text, "") else f"{tip} {_printable(written)}"


def _classes(tokenizer: Opened, id_: int, place: int, torn: bool) -> str:
    names = [f"k{place % COLOURS}"]
    if tokenizer.unknown[id_]:
        names.append("unknown")
    if tokenizer.partial[id_]:
        names.append("byte")
    if torn:
        names.append("torn")
    return " ".join(names)


def _chip(tokenizer: Opened, piece: str, id_: int) -> str:
    """What stands for a token whose characters another one shows already."""
    if tokenizer.fallback[id_]:
        return piece[3:5]
    return "·" if tokenizer.byte_level and tokenizer.partial[id_] else _printable(piece)


def _found(pieces: Sequence[str], unknown: Sequence[bool], cleaned: str) -> Places:
    """Places for the pieces of a tokenizer that tells none: each looked for behind the one before.

    What lies between two found pieces is the unknown ones'; a piece that is not found stands empty.
    """
    lower = cleaned.lower()
    text = lower if len(lower) == len(cleaned) else cleaned
    spans: list[tuple[int, int]] = []
    cursor = open_since = 0  # open_since: first of the unknown pieces behind the last found one
    for number, (piece, lost) in enumerate(zip(pieces, unknown, strict=True)):
        surface = "" if lost else piece.removeprefix("##").replace("▁", " ").strip()
        skipped = number - open_since
        room = len(surface) + 4 + 16 * skipped
        places = (text.find(each, cursor + skipped, cursor + room) for each in (surface, surface.lower()) if each)
        place = next((each for each in places if each >= 0), -1)
        if place < 0:
            spans.append((cursor, cursor))
            open_since += not lost
            continue
        if skipped:
            spans[open_since] = (cursor, place)
        spans.append((place, place + len(surface)))
        cursor, open_since = place + len(surface), number + 1
    if open_since < len(spans):
        spans[open_since] = (cursor, len(cleaned))
    return np.array(spans, dtype=np.int64).reshape(-1, 2)


def _lines(text: str) -> Iterator[tuple[int, int]]:
    r"""Half-open ranges of the rows: lines with their line feed, long ones cut behind their sentences.

    >>> list(_lines("患者は\n発熱。\n")), list(_lines("")), len(list(_lines("患者は発熱と咳嗽を訴えた。" * 20)))
    ([(0, 4), (4, 8)], [(0, 0)], 20)
    """
    start = 0
    for line in text.split("\n"):
        end = min(start + len(line) + 1, len(text))
        cuts = [found.end() for found in _SENTENCE.finditer(text, start, end)] if len(line) > LONG_LINE else []
        for cut in [*cuts[:-1], end]:
            if cut > start or not text:
                yield start, cut
            start = cut


def _name(text: str) -> str:
    """A name from outside, on one line."""
    return _printable(" ".join(text.split())).replace(MARKS[" "], " ")


def _printable(text: str, most: int = 200) -> str:
    """Text without characters that disturb a page: white space visible, control and direction characters replaced."""
    shown = "".join(MARKS.get(char, char if char.isprintable() else "\ufffd") for char in text[: most + 1])
    return shown if len(shown) <= most else shown[:most] + "…"
