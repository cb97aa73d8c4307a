"""Word lists as they are published: known by their header, read row by row with line numbers."""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from rinsho.errors import UserError
from rinsho.text import clean
from rinsho.tokenizer.lexicon import LexiconSettings
from rinsho.tokenizer.lexicon.drugs import ingredient_forms, product_forms

HEADER_ROWS = 10  # a spreadsheet may have a title above its header
RELIABILITY = "SABCDEF"  # of Manbyo: S standard names, A to C coded by people, D to F by machine
OURS = {"surface", "reading", "kind", "source"}  # the header of terms.tsv
SPREADSHEETS = (".xlsx", ".xls", ".ods")

Cells = Callable[[str], str]


@dataclass(frozen=True, slots=True)
class Name:
    """One term as a list gives it, not yet cleaned."""

    surface: str
    reading: str = ""
    kind: str = ""
    source: str = ""


@dataclass(slots=True)
class Row:
    """One row of a list: why it is refused, why it is left out, or its names, the row's own first."""

    line: int
    names: list[Name] = field(default_factory=list)
    refused: str = ""
    left_out: str = ""


@dataclass(frozen=True)
class List:
    """An opened list: its form, its encoding, and its rows."""

    path: Path
    form: str
    encoding: str
    rows: Callable[[], Iterator[Row]]


def open_list(path: Path, settings: LexiconSettings) -> List:
    """The list with its form recognised; nothing but its head has been looked at for columns.

    Raises:
        UserError: not there, not readable, or neither a known header nor the named columns.
    """
    text, encoding = _decode(path)
    if not text.strip():
        raise UserError("the word list is empty", where=path, expected="a header and a row for every term")
    if path.suffix.lower() == ".ttl":
        return List(path, "nando", encoding, partial(_nando_turtle, text))
    first_line = text.lstrip("\r\n").partition("\n")[0]
    delimiter = "\t" if "\t" in first_line else ","
    head = [row for row, _ in _head(_table(path, text, delimiter))]
    for place, cells in enumerate(head):
        reader = _recognised([_title(cell) for cell in cells], settings, path)
        if reader is not None:
            form, read = reader
            return List(path, form, encoding, partial(_rows, path, text, delimiter, place, read))
    if path.suffix.lower() == ".txt" and not settings.surface_column:
        return List(path, "one term a line", encoding, partial(_plain, text))
    if settings.surface_column:
        raise UserError(
            f"the word list has no column {settings.surface_column}",
            where=path,
            expected="it in the header line",
            todo="correct tokenizer.lexicon.surface_column (lexicon.surface_column for rinsho tokenizer lexicon)",
        )
    raise UserError(
        "the columns of this word list are not known",
        where=path,
        expected="a header with surface, or that of Manbyo (出現形), NANDO (nando_id, ja) or the price list (品名)",
        todo="name the column of the terms: --set tokenizer.lexicon.surface_column=… (lexicon.surface_column=… for "
        "rinsho tokenizer lexicon, whose terms.tsv every command reads); columns end at commas or tabs",
    )


def problem(raw: str) -> str:
    r"""Why a cell cannot be a dictionary entry, or nothing.

    >>> problem("肺炎"), problem(" "), problem("1，25-ビタミン"), problem("肺\x07炎"), problem('"肺炎')
    ('', 'empty', 'comma', 'control_character', 'quote')
    """
    if not raw.strip():
        return "empty"
    if any(unicodedata.category(char) in ("Cc", "Cs", "Cn") for char in raw):
        return "control_character"
    plain = unicodedata.normalize("NFKC", raw)
    return "comma" if "," in plain else "quote" if '"' in plain else ""


Read = Callable[[int, Cells], Row]


def _recognised(header: Sequence[str], settings: LexiconSettings, path: Path) -> tuple[str, Read] | None:
    """The form that a header line tells, and what makes a row of its cells; the named columns come first."""
    surface, reading, kind = map(_title, (settings.surface_column, settings.reading_column, settings.kind_column))
    if not surface or surface not in header or set(header) >= OURS:  # our own tables need no column names
        return _known(set(header), header, settings, path)
    for name in (reading, kind):
        if name and name not in header:
            raise UserError(f"the word list has no column {name}", where=path, todo="check the names of the columns")
    return "named columns", lambda line, cell: _mapped(line, cell, [surface, reading, kind, ""], _stem(path))


def _known(titles: set[str], header: Sequence[str], settings: LexiconSettings, path: Path) -> tuple[str, Read] | None:
    if "surface" in titles:
        return "terms", lambda line, cell: _mapped(line, cell, ["surface", "reading", "kind", "source"], _stem(path))
    if {"nando_id", "ja"} <= titles:
        return "nando", _nando
    if {"成分名", "品名"} <= titles:
        return "drug_price_list", _drug
    if "出現形" in titles:
        reading = next((title for title in header if re.match(r"出現形よみ|しゅつげんけい", title)), "")
        level = next((title for title in header if title.startswith("信頼度")), "")
        lowest = RELIABILITY.index(settings.lowest_reliability)
        return "manbyo", lambda line, cell: _manbyo(line, cell, reading, level, lowest)
    return None


def _mapped(line: int, cell: Cells, columns: Sequence[str], stem: str) -> Row:
    surface, reading, kind, source = (cell(name) if name else "" for name in columns)
    return _row(line, Name(surface, reading, kind, source or stem))


def _manbyo(line: int, cell: Cells, reading_column: str, level_column: str, lowest: int) -> Row:
    """Older editions give reading and reliability in one cell: しゅつげんけい;icd=…;lv=A/freq=…;標準病名."""
    reading, _, rest = cell(reading_column).partition(";")
    mark = re.search(r"\blv=([SA-F])", rest)
    level = cell(level_column).strip() or (mark.group(1) if mark else "")
    row = _row(line, Name(cell("出現形"), reading, "disease", "manbyo"))
    if not row.refused and level in RELIABILITY and level and RELIABILITY.index(level) > lowest:
        return Row(line, left_out="reliability")
    return row


def _nando(line: int, cell: Cells) -> Row:
    synonyms = [name for name in cell("ja_synonyms").split("|") if name.strip()]
    return _disease(line, cell("ja"), cell("ja_hira"), synonyms)


def _disease(line: int, label: str, reading: str, synonyms: Sequence[str]) -> Row:
    """A label, what stands before a bracket at its end (ハンター症候群（軽症型）), and synonyms with theirs."""
    row = _row(line, Name(label, reading, "disease", "nando"))
    for surface, spoken in ((label, reading), *((synonym, "") for synonym in synonyms)):
        bare = re.sub(r"\s*[（(][^（()）]*[)）]\s*$", "", surface)
        bare_reading = re.sub(r"\s*[（(][^（()）]*[)）]\s*$", "", spoken)
        row.names.append(Name(surface, spoken, "disease", "nando"))
        row.names.append(Name(bare, bare_reading, "disease", "nando"))
    return row


def _drug(line: int, cell: Cells) -> Row:
    product, ingredient = cell("品名"), cell("成分名")
    bad = problem(product)
    if bad and bad not in ("comma", "quote"):  # those two go with the strength, or with the name below
        return Row(line, refused=bad)
    names = [Name(form, "", "drug_ingredient", "drug_price_list") for form in ingredient_forms(clean(ingredient))]
    names += [Name(form, "", "drug_product", "drug_price_list") for form in product_forms(clean(product))]
    names = [name for name in names if not problem(name.surface)]
    return Row(line, names, left_out="" if names else "no_name")


def _row(line: int, name: Name) -> Row:
    bad = problem(name.surface)
    return Row(line, refused=bad) if bad else Row(line, [name])


def _plain(text: str) -> Iterator[Row]:
    for number, line in enumerate(re.split(r"\r\n|\r|\n", text), 1):
        if line.strip():
            yield _row(number, Name(line))


_LITERAL = re.compile(r'"((?:[^"\\]|\\.)*)"@([A-Za-z-]+)')


def _nando_turtle(text: str) -> Iterator[Row]:
    """Rows of nando.ttl as it is published: a block a class, a predicate a line."""
    label, reading, start = "", "", 0
    synonyms: list[str] = []
    obsolete, known = False, False
    for number, line in enumerate(text.split("\n"), 1):
        predicate = line.strip().partition(" ")[0]
        if line.startswith("<"):
            known = "/NANDO_" in line  # not the properties, which have labels too
            label, reading, synonyms, obsolete, start = "", "", [], False, number
        if predicate in ("rdfs:label", "skos:prefLabel", "skos:altLabel"):
            for literal, language in _LITERAL.findall(line):
                value = _unescaped(literal)
                if language == "ja" and predicate == "skos:altLabel":
                    synonyms += value.split("|")
                elif language == "ja":
                    label = label or value
                elif language == "ja-Hira" and predicate == "rdfs:label":
                    reading = reading or value
        obsolete = obsolete or predicate == "owl:deprecated"
        if line.rstrip().endswith(" .") and label and known and not obsolete:
            yield _disease(start, label, reading, synonyms)
            label = ""


def _unescaped(literal: str) -> str:
    return re.sub(r"\\(.)", lambda match: {"t": "\t", "n": "\n"}.get(match.group(1), match.group(1)), literal)


def _rows(path: Path, text: str, delimiter: str, header: int, read: Read) -> Iterator[Row]:
    titles: dict[str, int] = {}
    for number, (cells, line) in enumerate(_table(path, text, delimiter)):
        if number == header:
            titles = {_title(cell): place for place, cell in reversed(list(enumerate(cells)))}
        elif number > header and any(cell.strip() for cell in cells):
            yield read(line, partial(_cell, cells, titles))


def _cell(cells: Sequence[str], titles: Mapping[str, int], name: str) -> str:
    place = titles.get(name, len(cells))
    return cells[place] if place < len(cells) else ""


def _table(path: Path, text: str, delimiter: str) -> Iterator[tuple[list[str], int]]:
    """Cells and line number of every row; a tab-separated list has no quotation, as published ones have none."""
    lines = io.StringIO(text, newline="")
    if delimiter == "\t":
        reader = csv.reader(lines, delimiter=delimiter, quoting=csv.QUOTE_NONE, strict=True)
    else:
        reader = csv.reader(lines, delimiter=delimiter, strict=True)
    line = 1
    try:
        for cells in reader:
            if cells:
                yield cells, reader.line_num
            line = reader.line_num + 1
    except csv.Error:
        raise UserError(
            "not readable as a table",
            where=f"{path}:{line}",
            expected="CSV or TSV; a quotation mark that opens a cell also closes it",
            todo="correct this line",
        ) from None


def _head(table: Iterator[tuple[list[str], int]]) -> Iterator[tuple[list[str], int]]:
    for _, row in zip(range(HEADER_ROWS), table, strict=False):
        yield row


def _title(cell: str) -> str:
    return re.sub(r"\s", "", unicodedata.normalize("NFKC", cell))


def _stem(path: Path) -> str:
    return re.sub(r"[\s;,\"]|[^\w.-]", "_", path.stem)


def _decode(path: Path) -> tuple[str, str]:
    """The text of a file and the encoding that was found: UTF-8, UTF-16 with its mark, or CP932 (hospital exports)."""
    if path.suffix.lower() in SPREADSHEETS:
        raise UserError(
            "a spreadsheet", where=path, expected="a text table", todo="save it as CSV (UTF-8) and give that file"
        )
    if not path.is_file():
        raise UserError("not there", where=path, expected="a word list", todo="check the path")
    data = path.read_bytes()
    guesses = ["utf-16"] if data[:2] in (b"\xff\xfe", b"\xfe\xff") else ["utf-8-sig", "cp932"]
    for encoding in guesses:
        try:
            return data.decode(encoding), encoding.removesuffix("-sig")
        except UnicodeDecodeError as error:
            line = data[: error.start].count(b"\n") + 1
    raise UserError(
        "neither UTF-8 nor CP932", where=f"{path}:{line}", expected="a text table", todo="save it as CSV (UTF-8)"
    )
