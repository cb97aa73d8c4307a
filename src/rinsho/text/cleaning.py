"""Raw text to clean text in one scan; the same result as the rules of `rinsho.text.rules` one after another.

Most characters of Japanese text need nothing. The scan therefore looks only at runs of characters that are not
already fine, and takes what a run becomes from a bounded cache; the rules that look at neighbours come after, each
behind a cheap test whether it can apply, those for personal data in the lines only where they can.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from functools import cache, lru_cache
from typing import Literal

from rinsho.text import characters, steps
from rinsho.text.personal import Anchor
from rinsho.text.steps import Step, Trace, apply

Personal = Literal["remove", "placeholder", "keep"]
KINDS = ("url", "email", "account", "phone")  # what cleaning removes; `personal` knows more
SPACES = (" ", "\u2581")
CACHED_RUNS = 100_000
CACHED_CHARS = 32  # longer runs are rare and would fill the cache


def clean(
    text: str,
    *,
    personal: Personal = "remove",
    kinds: tuple[str, ...] = KINDS,
    literal_numbers: bool = False,
    space: str = " ",
) -> str:
    r"""The clean form of any string: normalised, unified, without personal data, web notation and odd characters.

    Idempotent, never raises on any text, takes linear time. Line feeds stay; other white space is one `space`: a
    plain one, or U+2581 as the tokenizer sees it. `personal` says what becomes of phone numbers, addresses and
    accounts ("keep" leaves hashtags too), `kinds` which kinds of `rinsho.text.personal` are meant.
    `literal_numbers` makes every full-width period and comma Japanese, in numbers too (０．４ｍｇ becomes 0。4mg):
    the report's rule to the letter, which harms clinical text.

    Source: SPEC N2.2-1, N2.2-2.

    >>> clean("#1　ＣＯＰＤ．ﾌﾟﾚﾄﾞﾆﾝ０．４ｍｇ／ｋｇ＠朝食後、体温３８．５℃………")
    '#1 COPD。プレドニン0.4mg/kg@朝食後、体温38.5℃…'
    >>> clean("つらい😭😭 #頭痛 @hanako_01 ｈｔｔｐ：／／ｅｘａｍｐｌｅ．ｊｐ／ａ")
    'つらい'
    >>> clean("０．４ｍｇ　朝", literal_numbers=True, space="\u2581")
    '0。4mg▁朝'
    """
    return _clean(text, None, personal, kinds, literal_numbers, space)


def clean_counted(
    text: str,
    *,
    personal: Personal = "remove",
    kinds: tuple[str, ...] = KINDS,
    literal_numbers: bool = False,
    space: str = " ",
) -> tuple[str, dict[str, int]]:
    """The clean text, and how many places each rule changed (rules that changed nothing are left out).

    >>> clean_counted("咳，痰．電話090-1234-5678")
    ('咳、痰。電話', {'periods': 2, 'phone': 1, 'white_space': 1})
    """
    trace = Trace({}, None)
    result = _clean(text, trace, personal, kinds, literal_numbers, space)
    return result, {rule: count for rule, count in sorted(trace.counts.items()) if count}


def clean_aligned(
    text: str,
    *,
    personal: Personal = "remove",
    kinds: tuple[str, ...] = KINDS,
    literal_numbers: bool = False,
    space: str = " ",
) -> tuple[str, list[int]]:
    """The clean text, and for each of its characters the index in `text` it came from, then `len(text)`.

    `text[places[i]:places[j]]` is the raw form of `clean[i:j]`; the indices never fall.

    >>> cleaned, places = clean_aligned("　ﾌﾟﾚﾄﾞﾆﾝ５ｍｇ")
    >>> cleaned[:5], "　ﾌﾟﾚﾄﾞﾆﾝ５ｍｇ"[places[0] : places[5]]
    ('プレドニン', 'ﾌﾟﾚﾄﾞﾆﾝ')
    """
    trace = Trace({}, list(range(len(text))))
    result = _clean(text, trace, personal, kinds, literal_numbers, space)
    assert trace.places is not None
    return result, [*trace.places, len(text)]


class _Runs(dict[str, str]):
    """Run of not yet fine characters -> what it becomes; forgets everything when it is full."""

    def __missing__(self, run: str) -> str:
        result = _run(run)
        if len(run) <= CACHED_CHARS:
            if len(self) >= CACHED_RUNS:
                self.clear()
            self[run] = result
        return result


@cache
def _runs() -> _Runs:
    return _Runs()


@cache
def _patterns() -> tuple[re.Pattern[str], re.Pattern[str], re.Pattern[str], re.Pattern[str]]:
    """A combining character, to search and to match; a run of characters; a character and what NFKC may join to it."""
    fine, joining = characters.fine(), characters.combining()
    return (
        re.compile(f"[{characters.combining_basic()}]"),
        re.compile(f"[{joining}]"),
        re.compile(f"([^{fine}][^{fine}]*+)"),  # not [...]+: a set first is what the search can skip to
        re.compile(f"(?s:.)[{joining}]*"),
    )


@cache
def _before() -> dict[int, str]:
    return {ord(key): value for key, value in characters.BEFORE.items()}


@cache
def _after() -> dict[int, str]:
    return {ord(key): value for key, value in characters.AFTER.items()}


def _clean(  # noqa: PLR0917
    text: str, trace: Trace | None, personal: Personal, kinds: tuple[str, ...], literal: bool, space: str
) -> str:
    if space not in SPACES:
        raise ValueError(f"space is {space!a}; it can be one plain space or U+2581")
    text = _characters(text, trace, steps.LITERAL_PREPARATION if literal else steps.PREPARATION)
    text = apply((*steps.CONTEXT, *steps.TIDY, steps.REPETITION), text, trace)
    if personal != "keep":
        text = _remove(text, trace, steps.across_lines(personal, kinds), steps.removal(personal, kinds))
    return text if space == " " else text.replace(" ", space)


def _characters(text: str, trace: Trace | None, preparation: tuple[Step, ...]) -> str:
    """All rules that look at one character and what is joined to it: width, unification, deletion.

    What would have to be prepared or joined first lies in the runs, so the text itself is looked through once.
    """
    combining, joining, plain, whole = _patterns()
    parts = plain.split(text)
    if len(parts) == 1:
        return text
    unfine = "".join(parts[1::2])
    if steps.PREPARE.search(unfine):
        raw = text
        text = apply((step for step in preparation if step.is_needed(unfine)), text, trace)
        if text != raw:
            parts = plain.split(text)
    if combining.search(unfine):
        for place in range(1, len(parts), 2):  # what a run is joined to belongs to it
            if joining.match(parts[place]):
                parts[place] = parts[place - 1][-1:] + parts[place]
                parts[place - 1] = parts[place - 1][:-1]
    if trace is not None and trace.places is not None:
        places: list[int] = []
        position = 0
        for number, part in enumerate(parts):
            if number % 2 == 0:
                places += trace.places[position : position + len(part)]
                position += len(part)
                continue
            for piece in whole.findall(part):
                places += [trace.places[position]] * len(_runs()[piece])
                position += len(piece)
        trace.places = places
    elif trace is not None:
        _tally(parts[1::2], trace)
    parts[1::2] = map(_runs().__getitem__, parts[1::2])
    return "".join(parts)


def _run(run: str) -> str:
    return characters.others().sub("", unicodedata.normalize("NFKC", run.translate(_before())).translate(_after()))


def _tally(runs: list[str], trace: Trace) -> None:
    for run, times in Counter(runs).items():
        for rule, count in _run_counts(run) if len(run) > CACHED_CHARS else _cached_run_counts(run):
            trace.add(rule, count * times)


def _run_counts(run: str) -> tuple[tuple[str, int], ...]:
    """What each rule changes in one run."""
    counts: dict[str, int] = {}

    def add(rule: str, count: int) -> None:
        if count:
            counts[rule] = counts.get(rule, 0) + count

    before = run.translate(_before())
    add("periods", sum(character in characters.PERIODS for character in run))
    add("enumerators", sum(character in characters.ENUMERATORS for character in run))
    add("width", sum(unicodedata.normalize("NFKC", c) != c for c in before if c not in characters.SPACES))
    for character in unicodedata.normalize("NFKC", before):
        for rule, table in _TABLES:
            if character in table:
                add(rule, 1)
                break
        else:
            add("not_allowed", int(characters.others().match(character) is not None))
    return tuple(counts.items())


_cached_run_counts = lru_cache(CACHED_RUNS)(_run_counts)
_TABLES = (
    ("hyphens", characters.HYPHENS),
    ("tildes", characters.TILDES),
    ("symbols", characters.SYMBOLS),
    ("line_breaks", characters.LINE_BREAKS),
    ("white_space", characters.SPACES),
)


def _remove(text: str, trace: Trace | None, across: tuple[Step, ...], removal: tuple[Step, ...]) -> str:
    """Personal data and web notation removed from the lines that can hold any."""
    for _ in range(steps.ROUNDS):
        before = text
        text = apply(across, text, trace)
        text = _remove_from_lines(text, trace, removal)
        if text == before:
            return text
        text = apply(steps.TIDY, text, trace)
        if not any(step.applies(text) for step in across):  # every line has come to its end
            return text
    return apply((steps.LAST_RESORT, steps.REPETITION, *steps.TIDY), text, trace)


def _remove_from_lines(text: str, trace: Trace | None, removal: tuple[Step, ...]) -> str:
    parts: list[str] = []
    places: list[int] = []
    done = 0
    for start, end in _lines(text, removal):
        line = text[start:end]
        if trace is None or trace.places is None:
            new = _remove_from_line(line, trace, removal)
        else:
            inner = Trace(trace.counts, trace.places[start:end])
            new = _remove_from_line(line, inner, removal)
            assert inner.places is not None
            places += trace.places[done:start] + inner.places
        parts += [text[done:start], new]
        done = end
    if not parts:
        return text
    if trace is not None and trace.places is not None:
        trace.places = places + trace.places[done:]
    return "".join([*parts, text[done:]])


def _remove_from_line(line: str, trace: Trace | None, removal: tuple[Step, ...]) -> str:
    for _ in range(steps.ROUNDS):
        before = line
        line = apply(removal, line, trace)
        if line == before:
            return line
        line = apply(steps.TIDY, line, trace)
    return apply((steps.LAST_RESORT, steps.REPETITION, *steps.TIDY), line, trace)


def _lines(text: str, removal: tuple[Step, ...]) -> list[tuple[int, int]]:
    """Start and end of the lines in which one of the rules may find something."""
    found: dict[int, int] = {}
    for step in removal:
        if not step.is_needed(text):
            continue
        for anchor in step.anchors:
            position = _place(text, anchor, 0)
            while position >= 0:
                start = text.rfind("\n", 0, position) + 1
                end = text.find("\n", position)
                found[start] = end = len(text) if end < 0 else end
                position = _place(text, anchor, end)
    return sorted(found.items())


def _place(text: str, anchor: Anchor, start: int) -> int:
    if isinstance(anchor, str):
        return text.find(anchor, start)
    match = anchor.search(text, start)
    return match.start() if match else -1
