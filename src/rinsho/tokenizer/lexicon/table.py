"""Rows of word lists to one table of terms: cleaned as running text is, deduplicated, sorted."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rinsho.errors import UserError
from rinsho.files import write_atomic
from rinsho.text import clean
from rinsho.tokenizer.lexicon import UNITS, LexiconSettings, Term
from rinsho.tokenizer.lexicon.readers import Name, Row, open_list, problem

MAX_TERM_CHARS = 64
TOO_MANY_REFUSED_FRACTION = 0.05
MARKS = " ▁<>。、「」『』\n"  # a space or a mark in a term ends words: MeCab never sees the term whole

_TO_HIRAGANA = {code: code - 0x60 for code in range(ord("ァ"), ord("ヶ") + 1)}
_KANA = re.compile(r"[ぁ-ゖァ-ヶー・゛゜]+")


@dataclass
class Counts:
    """What became of one list: rows read, terms it was the first to give, and the rows that gave none, by reason."""

    name: str
    form: str
    encoding: str
    rows: int = 0
    terms: int = 0
    entries: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)


@dataclass
class Table:
    """All terms, sorted; the list each came from first; every row that gave no term as (file, line, reason)."""

    terms: list[Term]
    first_list: dict[str, int]
    lists: list[Counts]
    rows_left_out: list[tuple[str, int, str]]


def read_table(paths: Sequence[Path], settings: LexiconSettings) -> Table:
    """The terms of all lists: the earliest list decides the kind, later ones fill in a missing reading.

    Raises:
        UserError: a list is not readable, or more than 5 % of its rows are refused.
    """
    terms: dict[str, Term] = {}
    table = Table([], {}, [], [])
    for path in paths:
        opened = open_list(path, LexiconSettings.model_validate({}) if path == UNITS else settings)
        counts = Counts(path.name, opened.form, opened.encoding)
        table.lists.append(counts)
        refused_lines = []
        for row in opened.rows():
            counts.rows += 1
            if row.refused:
                counts.refused[row.refused] += 1
                refused_lines.append(f"{path}:{row.line} ({row.refused})")
                table.rows_left_out.append((path.name, row.line, row.refused))
                continue
            new, reason = _enter(row, terms, settings, path)
            for surface in new:
                table.first_list[surface] = len(table.lists) - 1
            counts.terms += len(new)
            if not new:
                counts.left_out[reason] += 1
                table.rows_left_out.append((path.name, row.line, reason))
        if not counts.rows:
            raise UserError("the word list is empty", where=path, expected="a row for every term")
        _check_refused(counts, refused_lines)
    table.terms = [terms[surface] for surface in sorted(terms)]
    return table


def normalised_reading(raw: str) -> str:
    r"""A reading in hiragana, without white space; nothing when it holds what cannot stand in a table.

    >>> normalised_reading("ｼﾝｷﾝ ｺｳｿｸ"), normalised_reading("ヴィトロ"), normalised_reading("a\tb")
    ('しんきんこうそく', 'ゔぃとろ', '')
    """
    if problem(raw):
        return ""
    return re.sub(r"\s", "", unicodedata.normalize("NFKC", raw)).translate(_TO_HIRAGANA)


def write_terms(terms: Sequence[Term], path: Path) -> None:
    """terms.tsv: surface, reading, kind, source; a line a term, which `read_table` reads again as it is."""
    lines = [f"{term.surface}\t{term.reading}\t{term.kind}\t{term.source}\n" for term in terms]
    write_atomic(path, "surface\treading\tkind\tsource\n" + "".join(lines))


def write_left_out(table: Table, not_entered: dict[str, str], path: Path) -> None:
    """left_out.tsv: file, line, left_out_of, reason; no text. Terms without an entry are lines of terms.tsv."""
    rows = [f"{name}\t{line}\tterms.tsv\t{reason}\n" for name, line, reason in table.rows_left_out]
    for line, term in enumerate(table.terms, 2):
        if reason := not_entered.get(term.surface):
            rows.append(f"terms.tsv\t{line}\tuser.dic\t{reason}\n")
    write_atomic(path, "file\tline\tleft_out_of\treason\n" + "".join(rows))


def _enter(row: Row, terms: dict[str, Term], settings: LexiconSettings, path: Path) -> tuple[list[str], str]:
    """Puts the names of a row into the table; the new surfaces, and the reason when there is none."""
    new, reason = [], row.left_out
    for name in row.names:
        surface = "" if problem(name.surface) else clean(name.surface).strip()
        why = problem(name.surface) or _useless(surface)
        if not why:
            term = _term(surface, name, settings, path)
            known = terms.get(surface)
            terms[surface] = term if known is None else _merged(known, term)
            if known is None:
                new.append(surface)
            why = "repeated"
        reason = reason or why
    return new, reason


def _term(surface: str, name: Name, settings: LexiconSettings, path: Path) -> Term:
    reading = normalised_reading(name.reading)
    if not reading and _KANA.fullmatch(surface):
        reading = normalised_reading(surface)
    return Term(surface, reading, _label(name.kind) or settings.kind, _label(name.source) or path.stem)


def _merged(known: Term, term: Term) -> Term:
    sources = dict.fromkeys([*known.source.split(";"), *term.source.split(";")])
    return Term(known.surface, known.reading or term.reading, known.kind, ";".join(sources))


def _label(raw: str) -> str:
    """A kind or source fit for the table."""
    return "" if problem(raw) else re.sub(r"\s+", "_", raw.strip())


def _useless(surface: str) -> str:
    """Why a clean surface is no term at all, or nothing."""
    if not surface:
        return "nothing_left"
    if problem(surface):
        return "mark"
    if len(surface) > MAX_TERM_CHARS:
        return "too_long"
    if re.fullmatch(r"[\d.:/%+-]+", surface) or surface.isnumeric():
        return "digits_only"
    if len(surface) == 1 and not "㐀" <= surface <= "鿿":
        return "too_short"
    return ""


def _check_refused(counts: Counts, lines: Sequence[str]) -> None:
    if len(lines) > TOO_MANY_REFUSED_FRACTION * max(counts.rows, 1):
        raise UserError(
            f"{len(lines)} of {counts.rows} rows cannot be dictionary entries",
            where=", ".join(lines[:5]),
            expected="terms without commas, quotation marks and control characters",
            todo="correct or delete these rows",
        )
