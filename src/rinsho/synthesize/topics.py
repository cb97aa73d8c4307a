"""Topics of a synthesis from word lists: what texts and exercises are written about."""

from __future__ import annotations

import csv
import io
import unicodedata
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from pathlib import Path

from rinsho import recipe
from rinsho.document import SUFFIXES
from rinsho.errors import UserError
from rinsho.packing import number_of
from rinsho.synthesize.calls import Topic
from rinsho.text import clean

LISTS = (".csv", ".tsv")
MAX_NAME_CHARS = 100
HEADER = "a header with a column topic or surface, and perhaps kind and reading"

# Columns that hold topics, the first that a table has, and the kind of their rows where no column says it.
COLUMNS = {
    "topic": "term", "surface": "term", "トピック": "term",
    "出現形": "disease", "標準病名": "disease", "病名": "disease", "疾患名": "disease", "ja": "disease",
    "薬剤名": "drug", "医薬品名": "drug", "一般名": "drug", "検査名": "examination",
}  # fmt: skip
KIND_COLUMNS = ("kind", "topic_kind", "種類", "種別")
READING_COLUMNS = ("reading", "よみ", "読み", "しゅつげんけい", "出現形よみ", "ja_hira")

FAMILIES = {
    "disease": ("disease", "diseases", "疾患", "疾病", "病名"),
    "drug": ("drug", "drugs", "drug_ingredient", "drug_product", "medicine", "薬", "薬剤", "医薬品"),
    "examination": ("examination", "examinations", "test", "tests", "検査"),
    "unit": ("unit", "units", "単位"),  # of the lexicon: no topics
}
NAMES = {
    "disease": "疾患", "drug": "医薬品", "drug_ingredient": "医薬品の成分", "examination": "検査", "test": "検査",
    "finding": "所見", "symptom": "症状", "procedure": "手技", "term": "",
}  # fmt: skip

_FAMILY_OF = {kind: family for family, kinds in FAMILIES.items() for kind in kinds}


def sort_inputs(inputs: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """The inputs that are word lists, and those that hold documents.

    A table, a folder of `rinsho tokenizer lexicon` (its terms.tsv) and a folder of tables alone are word lists.

    Raises:
        UserError: an input is missing, or a file is neither.
    """
    lists: list[Path] = []
    documents: list[Path] = []
    for given in inputs:
        if not given.exists():
            raise UserError("not there", where=given, expected="a word list or documents", todo="check the path")
        if given.is_file() and not given.name.endswith((*LISTS, *SUFFIXES)):
            raise UserError(
                "neither a word list nor documents",
                where=given,
                expected=", ".join((*LISTS, *SUFFIXES)) + " or a folder",
            )
        found = _lists(given)
        lists += found
        if not found:
            documents.append(given)
    return lists, documents


def read_topics(paths: Sequence[Path], kinds: Sequence[str] | None, max_topics: int | None, seed: int) -> list[Topic]:
    """The topics of word lists in their order, names cleaned as running text is, each name once.

    The first list decides what kind a name has; a later one may add its reading. Units are no topics.

    Args:
        paths: tables, or folders with a terms.tsv.
        kinds: kinds to take, by their own name or that of their family (`drug` takes drug_ingredient too); None: all.
        max_topics: a sample drawn by the seed; it changes little when lists grow.
        seed: of the recipe.

    Raises:
        UserError: a table is not readable, has no known header, a row has no topic, or no topic is of a kind to take.

    Source: SPEC N2.1-5.
    """
    found: dict[str, Topic] = {}
    for path in (table for given in paths for table in (_lists(given) or [given])):
        for name, kind, reading in _rows(path):
            known = found.get(name)
            if known is None:
                found[name] = Topic(_id(name, kind), name, kind, reading)
            elif reading and not known.reading:
                found[name] = Topic(known.id, name, known.kind, reading)
    there = {topic.kind for topic in found.values()}
    there |= set(map(family, there))
    for kind in kinds or ():
        if kind not in there:
            raise recipe.unknown(kind, sorted(there), "synthesize.topic_kinds", "kind of topics")
    topics = [topic for topic in found.values() if _wanted(topic.kind, kinds)]
    if max_topics is None or max_topics >= len(topics):
        return topics
    drawn = sorted(range(len(topics)), key=lambda place: number_of(f"{seed}/topic/{topics[place].id}"))
    return [topics[place] for place in sorted(drawn[:max_topics])]


def family(kind: str) -> str:
    """The kind that stands for several: drug, disease, examination, unit; any other stands for itself.

    >>> family("drug_product"), family("検査"), family("finding")
    ('drug', 'examination', 'finding')
    """
    return _FAMILY_OF.get(kind, kind)


def in_japanese(kind: str) -> str:
    """The kind as a prompt says it; nothing for one that tells nothing.

    >>> in_japanese("drug_product"), in_japanese("看護技術"), in_japanese("term")
    ('医薬品', '看護技術', '')
    """
    return NAMES.get(kind, NAMES.get(family(kind), kind))


def _wanted(kind: str, kinds: Sequence[str] | None) -> bool:
    if kinds is None:
        return family(kind) != "unit"
    return kind in kinds or family(kind) in kinds


def _id(name: str, kind: str) -> str:
    return blake2b(f"{kind}\n{name}".encode(), digest_size=8).hexdigest()


def _lists(given: Path) -> list[Path]:
    """The tables that an input is or holds; none where it holds documents."""
    if given.is_file():
        return [given] if given.name.endswith(LISTS) else []
    if (given / "terms.tsv").is_file():
        return [given / "terms.tsv"]
    names = sorted(path for path in given.iterdir() if path.is_file() and not path.name.startswith("."))
    return [] if any(path.name.endswith(SUFFIXES) for path in names) else [p for p in names if p.name.endswith(LISTS)]


def _rows(path: Path) -> Iterator[tuple[str, str, str]]:
    """Name, kind and reading of every row."""
    rows = _cells(path, _decode(path))
    line, header = next(rows, (1, []))
    titles = {unicodedata.normalize("NFKC", cell).strip(): place for place, cell in reversed(list(enumerate(header)))}
    column = next((name for name in COLUMNS if name in titles), "")
    if not column:
        raise UserError(
            "the columns of this word list are not known",
            where=f"{path}:{line}",
            expected=HEADER,
            todo="name a column topic, or make one table of published lists: rinsho tokenizer lexicon",
        )
    place, kind_place, reading_place = titles[column], _place(titles, KIND_COLUMNS), _place(titles, READING_COLUMNS)
    kinds = {"": COLUMNS[column]}
    number = 0
    for number, (line, cells) in enumerate(rows, 1):  # noqa: B007
        name = " ".join(clean(cells[place]).split()) if place < len(cells) else ""
        if not name or len(name) > MAX_NAME_CHARS:
            problem = f"a topic of {len(name)} characters" if name else "a row without a topic"
            expected = f"a name of at most {MAX_NAME_CHARS} characters in column {column}"
            raise UserError(problem, where=f"{path}:{line}", expected=expected, todo="correct or delete this row")
        kind = cells[kind_place] if 0 <= kind_place < len(cells) else ""
        if kind not in kinds:
            kinds[kind] = "_".join(clean(kind).replace("/", " ").split()) or COLUMNS[column]
        reading = cells[reading_place] if 0 <= reading_place < len(cells) else ""
        yield name, kinds[kind], " ".join(unicodedata.normalize("NFKC", reading.partition(";")[0]).split())
    if not number:
        raise UserError("the word list is empty", where=path, expected="a row for every topic")


def _place(titles: dict[str, int], names: Sequence[str]) -> int:
    return next((titles[name] for name in names if name in titles), -1)


def _cells(path: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    """Rows with their first line, empty ones left out; a tab-separated list has no quotation."""
    tabs = "\t" in text.lstrip("\r\n").partition("\n")[0]
    lines = io.StringIO(text, newline="")
    if tabs:
        reader = csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE, strict=True)
    else:
        reader = csv.reader(lines, strict=True)
    line = 1
    try:
        for cells in reader:
            if "".join(cells).strip():
                yield line, cells
            line = reader.line_num + 1
    except csv.Error:
        raise UserError(
            "not readable as a table",
            where=f"{path}:{line}",
            expected="CSV or TSV; a quotation mark that opens a cell also closes it",
            todo="correct this line",
        ) from None


def _decode(path: Path) -> str:
    """The text of a table in UTF-8, UTF-16 with its mark, or CP932 (hospital exports)."""
    if not path.is_file():
        raise UserError("not there", where=path, expected="a word list (.csv, .tsv)", todo="check the path")
    data, line = path.read_bytes(), 0
    for encoding in ("utf-16",) if data[:2] in (b"\xff\xfe", b"\xfe\xff") else ("utf-8-sig", "cp932"):
        try:
            return data.decode(encoding)
        except UnicodeDecodeError as error:
            line = line or data[: error.start].count(b"\n") + 1
    raise UserError("neither UTF-8 nor CP932", where=f"{path}:{line}", expected="a text table", todo="save it as UTF-8")
