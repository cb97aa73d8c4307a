"""Raw text to clean text in one scan; the same result as the rules of `rinsho.text.rules` one after another.

Most characters of Japanese text need nothing. The scan therefore looks only at runs of characters that are not
already fine, and takes what a run becomes from a bounded cache; the rules that look at neighbours come after, each
behind a cheap test whether it can apply.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from functools import cache
from typing import Literal

from rinsho.text import characters, rules
from rinsho.text.rules import Step

Personal = Literal["remove", "placeholder", "keep"]
KINDS = ("url", "email", "account", "phone")  # what cleaning removes; `personal` knows more
CACHED_RUNS = 100_000
CACHED_CHARS = 32  # longer runs are rare and would fill the cache


def clean(text: str, *, personal: Personal = "remove", kinds: tuple[str, ...] = KINDS) -> str:
    """The clean form of any string: normalised, unified, without personal data, web notation and odd characters.

    Idempotent, never raises, takes linear time. Line feeds stay; other white space is one plain space. `personal`
    says what becomes of phone numbers, addresses and accounts ("keep" leaves hashtags too), `kinds` which kinds of
    `rinsho.text.personal` are meant.

    Source: SPEC N2.2-1, N2.2-2.

    >>> clean("#1　ＣＯＰＤ．ﾌﾟﾚﾄﾞﾆﾝ０．４ｍｇ／ｋｇ＠朝食後、体温３８．５℃………")
    '#1 COPD。プレドニン0.4mg/kg@朝食後、体温38.5℃…'
    >>> clean("つらい😭😭 #頭痛 @hanako_01 ｈｔｔｐ：／／ｅｘａｍｐｌｅ．ｊｐ／ａ")
    'つらい'
    """
    return _clean(text, None, personal, kinds)


def clean_counted(
    text: str, *, personal: Personal = "remove", kinds: tuple[str, ...] = KINDS
) -> tuple[str, dict[str, int]]:
    """The clean text, and how many places each rule changed (rules that changed nothing are left out).

    >>> clean_counted("咳，痰．電話090-1234-5678")
    ('咳、痰。電話', {'periods': 2, 'phone': 1, 'white_space': 1})
    """
    trace = _Trace({}, None)
    result = _clean(text, trace, personal, kinds)
    return result, {rule: count for rule, count in sorted(trace.counts.items()) if count}


def clean_aligned(text: str, *, personal: Personal = "remove", kinds: tuple[str, ...] = KINDS) -> tuple[str, list[int]]:
    """The clean text, and for each of its characters the index in `text` it came from, then `len(text)`.

    `text[places[i]:places[j]]` is the raw form of `clean[i:j]`; the indices never fall.

    >>> cleaned, places = clean_aligned("　ﾌﾟﾚﾄﾞﾆﾝ５ｍｇ")
    >>> cleaned[:5], "　ﾌﾟﾚﾄﾞﾆﾝ５ｍｇ"[places[0] : places[5]]
    ('プレドニン', 'ﾌﾟﾚﾄﾞﾆﾝ')
    """
    trace = _Trace({}, list(range(len(text))))
    result = _clean(text, trace, personal, kinds)
    assert trace.places is not None
    return result, [*trace.places, len(text)]


class _Trace:
    """What `clean_counted` and `clean_aligned` want to know: counts by rule, the raw index of each character."""

    def __init__(self, counts: dict[str, int], places: list[int] | None) -> None:
        self.counts, self.places = counts, places

    def add(self, rule: str, count: int) -> None:
        self.counts[rule] = self.counts.get(rule, 0) + count


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
    """A combining character; runs without and with them; a character with what NFKC may join to it."""
    fine, joining = characters.fine(), characters.combining()
    return (
        re.compile(f"[{characters.combining_basic()}]"),
        re.compile(f"([^{fine}]+)"),
        re.compile(f"((?:[{fine}](?=[{joining}]))?[^{fine}]+)"),
        re.compile(f"(?s:.)[{joining}]*"),
    )


@cache
def _before() -> dict[int, str]:
    return {ord(key): value for key, value in characters.BEFORE.items()}


@cache
def _after() -> dict[int, str]:
    return {ord(key): value for key, value in characters.AFTER.items()}


def _clean(text: str, trace: _Trace | None, personal: Personal, kinds: tuple[str, ...]) -> str:
    if rules.PREPARE.search(text):
        text = _apply(rules.PREPARATION, text, trace)
    text = _characters(text, trace)
    text = _apply((*rules.CONTEXT, *rules.TIDY, rules.REPETITION), text, trace)
    return text if personal == "keep" else _remove(text, trace, rules.removal(personal, kinds))


def _apply(steps: Iterable[Step], text: str, trace: _Trace | None) -> str:
    for step in steps:
        if not step.applies(text):
            continue
        if trace is None:
            text = step.pattern.sub(step.replacement, text)
        elif trace.places is None:
            text, count = step.pattern.subn(step.replacement, text)
            trace.add(step.name, count)
        else:
            text = _apply_aligned(step, text, trace)
    return text


def _apply_aligned(step: Step, text: str, trace: _Trace) -> str:
    """One rule with its replacements placed at the start of what they replace."""
    assert trace.places is not None
    parts: list[str] = []
    places: list[int] = []
    position = 0
    for match in step.pattern.finditer(text):
        new = match.expand(step.replacement) if isinstance(step.replacement, str) else step.replacement(match)
        parts += [text[position : match.start()], new]
        places += trace.places[position : match.start()]
        old = trace.places[match.start() : match.end() + (match.start() == match.end())]
        places += old[: len(new)] + old[-1:] * (len(new) - len(old))
        position = match.end()
    places += trace.places[position:]
    trace.places = places
    return "".join([*parts, text[position:]])


def _characters(text: str, trace: _Trace | None) -> str:
    """All rules that look at one character and what is joined to it: width, unification, deletion."""
    combining, plain, joined, whole = _patterns()
    parts = (joined if combining.search(text) else plain).split(text)
    if len(parts) == 1:
        return text
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
    return rules.others().sub("", unicodedata.normalize("NFKC", run.translate(_before())).translate(_after()))


def _tally(runs: list[str], trace: _Trace) -> None:
    for run in runs:
        for rule, count in _run_counts(run) if len(run) > CACHED_CHARS else _cached_run_counts(run):
            trace.counts[rule] = trace.counts.get(rule, 0) + count


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
            add("not_allowed", int(rules.others().match(character) is not None))
    return tuple(counts.items())


_cached_run_counts = cache(_run_counts)
_TABLES = (
    ("hyphens", characters.HYPHENS),
    ("tildes", characters.TILDES),
    ("symbols", characters.SYMBOLS),
    ("line_breaks", characters.LINE_BREAKS),
    ("white_space", characters.SPACES),
)


def _remove(text: str, trace: _Trace | None, steps: tuple[Step, ...]) -> str:
    for _ in range(rules.ROUNDS):
        before = text
        text = _apply(steps, text, trace)
        if text == before:
            return text
        text = _apply(rules.TIDY, text, trace)
    return _apply((rules.LAST_RESORT, rules.REPETITION, *rules.TIDY), text, trace)
