"""Word lists to a MeCab user dictionary, so that clinical terms stay whole words."""

from __future__ import annotations

import csv
import subprocess
import sys
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from rinsho.errors import UserError
from rinsho.segmentation import tagger
from rinsho.text import clean

CONTEXT_ID = 1285  # general noun of ipadic; its pip package lacks the files from which MeCab would look it up
COST_LIMIT = 32767  # costs are 16 bit
MAX_TERM_CHARS = 64
TOO_MANY_BAD_FRACTION = 0.05
_BUILD = "import sys, fugashi; fugashi.build_dictionary(sys.argv[1])"


@dataclass
class Terms:
    """Usable terms, sorted and without repetition, and what was refused or left out."""

    surfaces: list[str] = field(default_factory=list)
    rows: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    refused_lines: list[str] = field(default_factory=list)  # "terms.csv:17 (comma)", the first twenty
    left_out: Counter[str] = field(default_factory=Counter)


def read_terms(paths: Iterable[Path], column: str = "surface") -> Terms:
    """The terms in one column of CSV or TSV word lists, cleaned as running text is.

    Rows that would break a dictionary (empty, a comma, a control character) are refused by line number; rows that
    make no useful word (too long, containing a space, digits only, repeated) are left out; both are counted.

    Raises:
        UserError: a file is not readable, has no such column, or has more than 5 % bad rows.

    Source: N2.2-3.
    """
    terms, seen = Terms(), set()
    for path in paths:
        for line, raw in _surfaces(path, column):
            terms.rows += 1
            problem = _problem(raw)
            if problem is not None:
                terms.refused[problem] += 1
                if len(terms.refused_lines) < 20:
                    terms.refused_lines.append(f"{path.name}:{line} ({problem})")
                continue
            surface = clean(raw).strip()
            reason = "repeated" if surface in seen else _useless(surface)
            if reason is not None:
                terms.left_out[reason] += 1
                continue
            seen.add(surface)
    if terms.refused.total() > TOO_MANY_BAD_FRACTION * max(terms.rows, 1):
        raise UserError(
            f"{terms.refused.total()} of {terms.rows} rows cannot be dictionary entries",
            where=", ".join(terms.refused_lines[:5]),
            expected=f"terms without commas and control characters in the column {column}",
            todo="correct or delete these rows",
        )
    terms.surfaces = sorted(seen)
    return terms


def build_user_dictionary(surfaces: Iterable[str], target: Path, discount: int) -> int:
    """Compiles the terms into the MeCab user dictionary `target`; returns the number of entries.

    Terms that MeCab already knows as one word are not entered. A term's cost is the cost of its own best path less
    `discount`: enough to win where the term stands, not enough for a short one to tear ordinary words.

    Raises:
        UserError: MeCab could not build it. It runs in a child process because it ends its process on an error.
    """
    rows = []
    for surface in surfaces:
        cost, words = _path(surface)
        if words > 1:
            cost = max(-COST_LIMIT, min(COST_LIMIT, cost - discount))
            rows.append(f"{surface},{CONTEXT_ID},{CONTEXT_ID},{cost},名詞,一般,*,*,*,*,*,*,*\n")
    if not rows:
        return 0
    source = target.with_suffix(".csv")
    source.write_text("".join(rows), encoding="utf-8")
    _compile(source, target)
    source.unlink()
    return len(rows)


def _compile(source: Path, target: Path) -> None:
    import ipadic

    target.unlink(missing_ok=True)
    arguments = f'x -f utf8 -t utf8 -d "{ipadic.DICDIR}" -u "{target.name}" "{source.name}"'
    child = subprocess.run(
        [sys.executable, "-c", _BUILD, arguments], cwd=source.parent, capture_output=True, check=False, timeout=600
    )
    if child.returncode != 0 or not target.is_file():
        raise UserError(
            f"MeCab could not build the user dictionary (exit status {child.returncode})",
            where=source,
            expected="rows that MeCab accepts",
            todo="halve the word list to find the row it refuses",
        )


def _path(surface: str) -> tuple[int, int]:
    """Cost of the best path through a term with MeCab's own dictionary, and its number of words."""
    answer = tagger(form="-F. -E%pc").parse(surface)  # a dot a word, then the cost at the end
    return int(answer.lstrip(".")), answer.count(".")


def _surfaces(path: Path, column: str) -> Iterator[tuple[int, str]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, delimiter="\t" if path.suffix == ".tsv" else ",")
        try:
            header = next(reader, [])
            if column not in header:
                raise UserError(
                    f"the word list has no column {column}",
                    where=path,
                    expected="a header line with surface, for instance surface,reading,kind",
                    todo="name the column that holds the terms in tokenizer.lexicon_column",
                )
            place = header.index(column)
            for row in reader:
                if row:
                    yield reader.line_num, row[place] if place < len(row) else ""
        except (UnicodeDecodeError, csv.Error):
            raise UserError(
                "not readable as a table", where=f"{path}:{reader.line_num + 1}", expected="UTF-8 CSV or TSV"
            ) from None


def _problem(raw: str) -> str | None:
    if not raw.strip():
        return "empty"
    if any(unicodedata.category(char) in ("Cc", "Cs", "Cn") for char in raw):
        return "control_character"
    if "," in unicodedata.normalize("NFKC", raw) or '"' in raw:
        return "comma"
    return None


def _useless(surface: str) -> str | None:
    if len(surface) < 2:
        return "too_short"
    if len(surface) > MAX_TERM_CHARS:
        return "too_long"
    if any(char in " \n▁<," for char in surface):
        return "space_or_mark"
    if surface.isnumeric():
        return "digits_only"
    return None
