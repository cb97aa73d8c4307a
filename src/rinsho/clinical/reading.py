"""Texts to be extracted from or classified: text files, tables and shards, streamed, each text with an id."""

from __future__ import annotations

import codecs
import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import NoReturn

from rinsho.document import SUFFIXES, Broken, Document, printable_name, read_documents, shard_paths
from rinsho.errors import UserError

TABLES = {".csv": ",", ".tsv": "\t"}
ENDINGS = (*SUFFIXES, *TABLES)
UTF8 = "utf-8-sig"  # with or without byte order mark
MAX_FIELD_CHARS = 1 << 24  # of a cell: what a quotation mark without its partner can swallow


@dataclass(frozen=True)
class Source:
    """A file with texts, and the name that it has in ids."""

    path: Path
    name: str


@dataclass(frozen=True)
class Data:
    """The texts of all inputs, in a fixed order.

    Attributes:
        sources: their files.
        column: where the text is in tables and JSON lines.
        id_column: where the id is; None: `id` where there is such a column.
        encoding: of text files and tables; None: UTF-8. A byte order mark says more than either.
        setting: what `encoding` is called on the command line, for errors.
    """

    sources: tuple[Source, ...]
    column: str = "text"
    id_column: str | None = None
    encoding: str | None = None
    setting: str = "extract.encoding"

    def documents(self) -> Iterator[Document]:
        """Every text with its id, one after another.

        A text file's id is its path below the given folder; a row without an id is named after its file and line.

        Raises:
            UserError: a file that is not in its encoding, damaged, or without such a column, by file and line.
        """
        return (document for _, document in self._located())

    def count(self) -> int:
        """How many texts there are; every file is read to its end, so that what is wrong is told at once.

        Raises:
            UserError: as `documents`, no text at all, or two texts with one id.
        """
        seen: set[bytes] = set()
        for number, (where, document) in enumerate(self._located()):
            seen.add(blake2b(document.id.encode(), digest_size=8).digest())
            if len(seen) == number:  # ids may be patients': the places are told
                first = next(place for place, known in self._located() if known.id == document.id)
                raise UserError(
                    f"the same id as {first}", where=where, expected="an id of its own for each text",
                    todo="name another column of ids (--id-column NAME), or change one of the two",
                )  # fmt: skip
        if not seen:
            raise UserError("no text in here", where=str(self.sources[0].path), expected="at least one")
        return len(seen)

    def _located(self) -> Iterator[tuple[str, Document]]:
        """Every text behind its place: file, or file and line."""
        for source in self.sources:
            ending = source.path.suffix.lower()
            if ending in TABLES:
                yield from self._table(source, TABLES[ending])
            elif ending == ".txt":
                yield str(source.path), Document(self._text(source.path), printable_name(source.name))
            else:
                yield from self._records(source)

    def _text(self, path: Path) -> str:
        encoding = _encoding(path, self.encoding)
        try:
            return path.read_bytes().decode(encoding)
        except UnicodeError:
            self._undecodable(path, encoding)

    def _records(self, source: Source) -> Iterator[tuple[str, Document]]:
        def broken(record: Broken) -> None:
            if record.reason == "no_text":
                raise UserError(
                    f"no text in {self.column!r}", where=record.where, expected="a text in each record",
                    todo="name the field of the text: --column NAME",
                )  # fmt: skip
            raise UserError(
                "not UTF-8" if record.reason == "invalid_utf8" else "not JSON", where=record.where,
                expected="one JSON object per line in UTF-8",
            )  # fmt: skip

        # Asked for the id in a field that there is not, it names every record after its place.
        for record in read_documents(source.path, text_field=self.column, id_field="\0", on_broken=broken):
            line = record.id.removeprefix(f"{source.path.name}:")
            name = str(record.meta.get(self.id_column or "id") or f"{source.name}:{line}")
            yield f"{source.path}:{line}", Document(record.text, printable_name(name))

    def _table(self, source: Source, delimiter: str) -> Iterator[tuple[str, Document]]:
        rows = self._rows(source.path, delimiter)
        try:
            line, header = next(rows)
        except StopIteration:
            return
        for column, what in ((self.column, "text: --column NAME"), (self.id_column, "ids: --id-column NAME")):
            if column is not None and header.count(column) != 1:
                raise UserError(
                    f"no column {column!r}" if column not in header else f"two columns {column!r}",
                    where=f"{source.path}:{line}", expected="one of " + ", ".join(header)[:200],
                    todo=f"name the column of the {what}",
                )  # fmt: skip
        named = self.id_column or ("id" if header.count("id") == 1 and self.column != "id" else None)
        for line, cells in rows:
            where = f"{source.path}:{line}"
            if len(cells) != len(header):
                raise UserError(f"{len(cells)} cells", where=where, expected=f"{len(header)} as in the header")
            row = dict(zip(header, cells, strict=True))
            identifier = row[named].strip() if named else ""
            yield where, Document(row[self.column], printable_name(identifier or f"{source.name}:{line}"))

    def _rows(self, path: Path, delimiter: str) -> Iterator[tuple[int, list[str]]]:
        """The records of a table with the line each begins in; empty lines are left out."""
        csv.field_size_limit(MAX_FIELD_CHARS)
        encoding, line = _encoding(path, self.encoding), 1
        try:
            with path.open(encoding=encoding, newline="") as file:
                reader = csv.reader(file, delimiter=delimiter, strict=True)
                for cells in reader:
                    if cells:
                        yield line, cells
                    line = reader.line_num + 1
        except csv.Error as error:
            raise UserError(
                f"not readable as a table ({error})",
                where=f"{path}:{line}",
                expected="quoted cells, delimiters between",
            ) from None
        except UnicodeError:
            self._undecodable(path, encoding)

    def _undecodable(self, path: Path, encoding: str) -> NoReturn:
        """The error for a file in another encoding, with the first line that shows it; nothing of the line is told."""
        try:
            with path.open(encoding=encoding, errors="replace") as file:
                where = next((f"{path}:{line}" for line, text in enumerate(file, 1) if "\ufffd" in text), str(path))
        except UnicodeError:  # UTF-16 without its mark
            where = str(path)
        name = "UTF-8" if encoding == UTF8 else encoding
        raise UserError(
            f"not {name}", where=where, expected=f"all text files and tables in {name}",
            todo=f"name their encoding, for instance --set {self.setting}=cp932 (or euc-jp, utf-16)",
        ) from None  # fmt: skip


def find_data(
    inputs: Sequence[Path],
    column: str = "text",
    id_column: str | None = None,
    encoding: str | None = None,
    setting: str = "extract.encoding",
) -> Data:
    """The files of texts among the inputs: files, and everything below folders.

    Raises:
        UserError: none are given, one is not there, or holds no file of a known form; or an unknown encoding.
    """
    if not inputs:
        raise UserError("no texts among the inputs", where="inputs", expected="MODEL DATA...: files or folders")
    if encoding is not None:
        try:
            "".encode(encoding)
        except (LookupError, ValueError):
            raise UserError(
                f"unknown encoding {encoding!r}", where=setting, expected="utf-8, cp932, euc-jp, utf-16 or the like"
            ) from None
    expected = "files ending in " + ", ".join(ENDINGS)
    sources: list[Source] = []
    for given in map(Path, inputs):
        for path in shard_paths([given], lambda name: name.lower().endswith(ENDINGS), expected):
            name = path.relative_to(given).as_posix() if given.is_dir() else path.name
            sources.append(Source(path, name))
    return Data(tuple(sources), column, id_column, encoding, setting)


def _encoding(path: Path, given: str | None) -> str:
    """What a file is to be read as: what its byte order mark says, else what is given, else UTF-8."""
    with path.open("rb") as file:
        start = file.read(3)
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    return UTF8 if given is None or start == codecs.BOM_UTF8 else given
