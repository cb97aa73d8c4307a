"""Rows of a file, whatever its form: JSON lines, CSV, Parquet, text files and WikiExtractor's text form."""

from __future__ import annotations

import csv
import html
import io
import re
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from rinsho.corpus.sources import encodings
from rinsho.document import Document, open_unpacked, parse, read_rows
from rinsho.errors import UserError

if TYPE_CHECKING:
    from rinsho.corpus.sources import SourceFile

Broke = Callable[[str, str], None]  # where, reason
Rows = Iterable[tuple[int, Any]]  # line or record number, record
MAX_FIELD_CHARS = 1 << 24  # of CSV: what a quotation mark without its partner can swallow
READ_BYTES = 1 << 20
DOC = re.compile(r"<doc (.*)>\s*")
DOC_FIELDS = {
    "id": re.compile(r'\bid="([^"]*)"'),
    "url": re.compile(r'\burl="([^"]*)"'),
    "title": re.compile(r'\btitle="(.*)"'),
}


def json_rows(file: SourceFile, broken: Broke, exact: bool = True) -> Rows:
    """The JSON values of the lines. With `exact` false an integer beyond 64 bits becomes a float."""
    setting = file.settings.encoding
    if setting in ("auto", "utf-8"):
        return read_rows(file.path, broken, exact)
    return _decoded_json_rows(file, encodings.codec(setting), broken)


def first_json_row(file: SourceFile) -> Any:
    """The value of the first line, None when it is not JSON."""
    with open_unpacked(file.path) as raw:
        try:
            return parse(raw.readline(), exact=False)
        except (ValueError, RecursionError):
            return None


def _decoded_json_rows(file: SourceFile, codec: encodings.Codec, broken: Broke) -> Rows:
    with open_unpacked(file.path) as raw:
        for number, line in enumerate(raw, 1):
            try:
                text = line.decode(codec.name, codec.strict)
                if text.strip():
                    yield number, parse(text)
            except UnicodeDecodeError:
                broken(f"{file.path}:{number}", _invalid(codec))
            except (ValueError, RecursionError):
                broken(f"{file.path}:{number}", "invalid_json")


def parquet_rows(file: SourceFile) -> Rows:
    """The records of a Parquet file as dictionaries."""
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.ParquetFile(file.path)
    except (pyarrow.ArrowInvalid, OSError):
        raise UserError(
            "not a complete Parquet file", where=file.path, expected="Parquet", todo="copy it again"
        ) from None
    names = table.schema_arrow.names
    wanted = [name.partition(".")[0] if name not in names else name for name in file.settings.text_field]
    absent = tuple(name for name in wanted if name not in names)
    if absent and file.settings.layout in ("auto", "plain"):
        raise no_field(file, names, absent)
    number = 0
    try:
        for batch in table.iter_batches(batch_size=256):
            for row in batch.to_pylist():
                number += 1
                yield number, row
    except (pyarrow.ArrowInvalid, OSError):
        raise UserError(
            f"damaged after record {number}", where=file.path, expected="a complete Parquet file", todo="copy it again"
        ) from None


def csv_rows(file: SourceFile, broken: Broke) -> Rows:
    """The records of a CSV file, each with the line it starts in; none when it holds nothing but white space.

    Reasons of broken ones: nul_byte, wrong_field_count, invalid_csv, invalid_<encoding>, and open_quotation, once for
    each line that a quotation mark without its partner swallowed.
    """
    codec = _codec(file)
    csv.field_size_limit(MAX_FIELD_CHARS)
    with open_unpacked(file.path) as raw:
        text = io.TextIOWrapper(raw, codec.name, codec.escape, newline="")
        skipped, first = _header_line(text)
        if not first[0]:
            return
        delimiter = _delimiter(file, first)
        rows = csv.reader(_chained(first, text), delimiter=delimiter, strict=True)
        header = _header(file, rows)
        while True:
            line = skipped + rows.line_num + 1
            where = f"{file.path}:{line}"
            try:
                row = next(rows)
            except StopIteration:
                return
            except csv.Error as error:
                if "unexpected end" in str(error) or "field larger" in str(error):
                    for lost in range(
                        line, skipped + rows.line_num + 1
                    ):  # each of them, so that the share of broken ones tells
                        broken(f"{file.path}:{lost}", "open_quotation")
                else:
                    broken(where, "invalid_csv")
                continue
            if not row:
                continue
            if any("\0" in field for field in row):
                broken(where, "nul_byte")
            elif any(_escaped(field) for field in row):
                broken(where, _invalid(codec))
            elif len(row) != len(header):
                broken(where, "wrong_field_count")
            else:
                yield line, dict(zip(header, row, strict=True))


def _header_line(text: io.TextIOWrapper) -> tuple[int, list[str]]:
    """The number of blank lines at the start, and the header's, which may have line feeds within quotation marks."""
    skipped, lines = 0, [text.readline()]
    while lines[0] and not lines[0].strip():
        skipped, lines = skipped + 1, [text.readline()]
    while sum(line.count('"') for line in lines) % 2 and len(lines) < 100 and lines[-1]:
        lines.append(text.readline())
    return skipped, lines


def _chained(first: list[str], rest: Iterable[str]) -> Iterator[str]:
    yield from first
    yield from rest


def _delimiter(file: SourceFile, first: list[str]) -> str:
    if file.settings.delimiter:
        return file.settings.delimiter

    def fit(delimiter: str) -> tuple[int, int]:
        try:
            names = next(csv.reader(first, delimiter=delimiter), [])
        except csv.Error:
            return 0, 0
        return sum(name.strip() in wanted(file) for name in names), len(names)

    return max(",\t;", key=fit)


def wanted(file: SourceFile) -> tuple[str, ...]:
    """The text fields, which the recipe may leave to the default."""
    return file.settings.text_field or ("text",)


def _header(file: SourceFile, rows: Iterator[list[str]]) -> list[str]:
    try:
        header = [name.strip() for name in next(rows, [])]
    except csv.Error:
        raise UserError("the header is not CSV", where=file.path, expected="column names in the first line") from None
    if any(header.count(name) != 1 for name in wanted(file)):
        # its cells are not told: a first row that is no header is a patient's data
        raise UserError(
            f"no single column {' and '.join(map(repr, wanted(file)))}",
            where=file.path,
            expected=f"column names in the first line, which has {len(header)} fields",
            todo="set text_field (and delimiter, encoding) for these files in corpus.sources",
        )
    return header


def _codec(file: SourceFile) -> encodings.Codec:
    setting = file.settings.encoding
    return encodings.codec(setting) if setting != "auto" else encodings.detect(lambda: _blocks(file), file.path)


def _blocks(file: SourceFile) -> Iterator[bytes]:
    with open_unpacked(file.path) as raw:
        while data := raw.read(READ_BYTES):
            yield data


def starts_with(file: SourceFile, start: bytes) -> bool:
    """Whether the file, unpacked and without byte order mark, starts so."""
    with open_unpacked(file.path) as raw:
        return raw.read(len(start) + 3).removeprefix(b"\xef\xbb\xbf").startswith(start)


def text_documents(file: SourceFile, broken: Broke) -> Iterator[Document]:
    """The one document of a text file; nothing when its encoding cannot be told (unknown_encoding)."""
    data, setting = b"".join(_blocks(file)), file.settings.encoding
    try:
        codec = encodings.codec(setting) if setting != "auto" else encodings.detect(lambda: iter((data,)), file.path)
    except UserError:
        broken(str(file.path), "unknown_encoding")
        return
    try:
        text = data.decode(codec.name, codec.strict)
    except UnicodeDecodeError:
        broken(str(file.path), _invalid(codec))
        return
    yield Document(text, file.name, {"license": file.settings.license} if file.settings.license else {})


def extract_rows(file: SourceFile, broken: Broke) -> Rows:
    """WikiExtractor's text form, an article between `<doc id= url= title=>` and `</doc>`, as records."""
    start, head, lines = 0, "", list[str]()
    with open_unpacked(file.path) as raw:
        for number, line in enumerate(io.TextIOWrapper(raw, "utf-8-sig", "surrogateescape"), 1):
            opening = DOC.fullmatch(line)
            if opening or line.rstrip() == "</doc>":
                if opening and head:
                    broken(f"{file.path}:{start}", "open_article")
                elif head and any(map(_escaped, (head, *lines))):
                    broken(f"{file.path}:{start}", "invalid_utf8")
                elif head:
                    fields = {key: pattern.search(head) for key, pattern in DOC_FIELDS.items()}
                    row: dict[str, Any] = {key: html.unescape(match[1]) for key, match in fields.items() if match}
                    yield start, row | {wanted(file)[0]: "".join(lines)}
                start, head, lines = number, opening[1] if opening else "", []
            elif head:
                lines.append(line)
    if head:
        broken(f"{file.path}:{start}", "open_article")


def _escaped(text: str) -> bool:
    """True when the text holds bytes that were not valid in its encoding, as lone surrogates."""
    try:
        return not text.isascii() and not text.encode()
    except UnicodeEncodeError:
        return True


def _invalid(codec: encodings.Codec) -> str:
    return "invalid_" + codec.setting.replace("utf-", "utf").replace("-", "_")


def no_field(file: SourceFile, names: list[str], fields: tuple[str, ...] = ()) -> UserError:
    """The error for a file whose records have other fields than these (default: the text fields), or no text there."""
    fields = fields or wanted(file)
    there = [field for field in fields if field in names or field.partition(".")[0] in names]
    return UserError(
        f"the field {' or '.join(there)!r} holds no text (numbers or nothing) in any record"
        if there
        else f"no record has the text field {' or '.join(fields)!r}",
        where=file.path,
        expected="one of the fields " + ", ".join(name[:40] for name in names[:20]),
        todo="set text_field, in corpus or for these files in corpus.sources",
    )
