"""Documents, and the shards they travel in: zstd/gzip JSON lines, Parquet and plain text, streamed."""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import zstandard

from rinsho.errors import UserError

SUFFIXES = (".jsonl", ".jsonl.zst", ".jsonl.gz", ".parquet", ".txt")
WRITE_EVERY = 256  # documents per write: single small writes halve the rate


@dataclass(frozen=True, slots=True)
class Document:
    """One text with a stable id; `meta` holds whatever else its line held (source, licence, …)."""

    text: str
    id: str
    meta: dict[str, Any] = field(default_factory=dict)

    def to_line(self) -> bytes:
        """The document as one JSON line, keys in fixed order, with its line feed."""
        row = {"id": self.id, "text": self.text, **self.meta}
        try:
            return json.dumps(row, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
        except UnicodeEncodeError:  # a lone surrogate, which UTF-8 cannot hold, travels as its JSON escape
            return json.dumps(row, separators=(",", ":")).encode() + b"\n"


@dataclass(frozen=True, slots=True)
class Broken:
    """A single record that could not be read: where it lies and why, never its content."""

    where: str
    reason: str  # short snake-case id: invalid_utf8, invalid_json, no_text


def shard_paths(inputs: Iterable[Path]) -> list[Path]:
    """All document files below the inputs, sorted; hidden files, logs and sub-folders named `dropped` left out.

    Raises:
        UserError: an input is missing, or holds no file of a known form.
    """
    found: list[Path] = []
    for given in inputs:
        if not given.exists():
            raise UserError("not there", where=given, expected="a file or folder with documents", todo="check the path")
        files = [given] if given.is_file() else sorted(path for path in given.rglob("*") if path.is_file())
        files = [path for path in files if path.name.endswith(SUFFIXES) and not _aside(path, given)]
        if not files:
            raise UserError(
                "no documents in here",
                where=given,
                expected="files ending in " + ", ".join(SUFFIXES),
                todo="check the folder",
            )
        found += files
    return found


def read_documents(
    path: Path,
    *,
    text_field: str = "text",
    id_field: str = "id",
    on_broken: Callable[[Broken], None] | None = None,
) -> Iterator[Document]:
    """The documents of one file, streamed: memory does not grow with the file.

    A document without an id gets `<file name>:<line>`. A single broken record goes to `on_broken` and reading
    goes on; without `on_broken` it is a `UserError`.

    Raises:
        UserError: the file is cut off or not of the form its name says, or no record has the text field.
    """

    def broken(where: str, reason: str) -> None:
        if on_broken is None:
            raise UserError(f"broken record ({reason})", where=where, expected="one JSON object per line in UTF-8")
        on_broken(Broken(where, reason))

    if path.name.endswith(".txt"):
        yield from _read_text(path, broken)
    elif path.name.endswith(".parquet"):
        yield from _read_parquet(path, text_field, id_field, broken)
    else:
        yield from _read_json_lines(path, text_field, id_field, broken)


def compress(documents: Iterable[Document]) -> bytes:
    """The documents as one zstd-compressed block of JSON lines; equal documents give equal bytes."""
    buffer = io.BytesIO()
    write_documents(buffer, documents)
    return buffer.getvalue()


def write_documents(target: IO[bytes], documents: Iterable[Document]) -> tuple[int, int]:
    """Writes zstd JSON lines into an open binary file, batched. Returns (documents, uncompressed bytes)."""
    count, size_bytes, batch = 0, 0, []
    with zstandard.ZstdCompressor(level=3, write_checksum=True).stream_writer(target, closefd=False) as stream:
        for document in documents:
            line = document.to_line()
            batch.append(line)
            count += 1
            size_bytes += len(line)
            if len(batch) == WRITE_EVERY:
                stream.write(b"".join(batch))
                batch.clear()
        stream.write(b"".join(batch))
    return count, size_bytes


def _aside(path: Path, root: Path) -> bool:
    relative = path.relative_to(root) if path != root else Path(path.name)
    return any(part.startswith(".") or part in ("dropped", "partial") for part in relative.parts) or path.name in (
        "metrics.jsonl",
        "log.txt",
    )


def _open(path: Path) -> IO[bytes]:
    if path.name.endswith(".zst"):
        return io.BufferedReader(zstandard.ZstdDecompressor().stream_reader(path.open("rb"), read_across_frames=True))
    if path.name.endswith(".gz"):
        return io.BufferedReader(gzip.open(path, "rb"))
    return path.open("rb")


def _whole_zstd(path: Path) -> bool:
    """False when the last zstd frame is cut off (the reader itself stops there without a word)."""
    engine = zstandard.ZstdDecompressor().decompressobj()
    finished = False
    with path.open("rb") as file:
        data = file.read(1 << 20)
        while data:
            engine.decompress(data)
            finished = engine.eof
            if engine.eof:
                data = engine.unused_data
                engine = zstandard.ZstdDecompressor().decompressobj()
                data = data or file.read(1 << 20)
                if data:
                    finished = False
            else:
                data = file.read(1 << 20)
    return finished


def _lines(path: Path) -> Iterator[bytes]:
    cut = UserError(
        "the file is cut off or damaged",
        where=path,
        expected="a complete compressed file",
        todo="copy or download it again, or take it out of the folder",
    )
    try:
        with _open(path) as file:
            yield from file
    except (zstandard.ZstdError, zlib.error, EOFError, gzip.BadGzipFile) as error:
        raise cut from error


def _read_json_lines(
    path: Path, text_field: str, id_field: str, broken: Callable[[str, str], None]
) -> Iterator[Document]:
    if path.name.endswith(".zst"):
        _check_zstd(path)
    for number, line in enumerate(_lines(path), 1):
        where = f"{path}:{number}"
        if not line.strip():
            continue
        try:
            row = json.loads(line.decode("utf-8"))
        except UnicodeDecodeError:
            broken(where, "invalid_utf8")
            continue
        except (ValueError, RecursionError):
            broken(where, "invalid_json")
            continue
        text = row.get(text_field) if isinstance(row, dict) else None
        if not isinstance(text, str):
            broken(where, "no_text")
            continue
        meta = {key: value for key, value in row.items() if key not in (text_field, id_field)}
        yield Document(text, str(row.get(id_field) or f"{path.name}:{number}"), meta)


def _check_zstd(path: Path) -> None:
    try:
        whole = _whole_zstd(path)
    except zstandard.ZstdError:
        whole = False
    if not whole:
        raise UserError(
            "the file is cut off or damaged",
            where=path,
            expected="a complete zstd file",
            todo="copy or download it again, or take it out of the folder",
        )


def _read_text(path: Path, broken: Callable[[str, str], None]) -> Iterator[Document]:
    try:
        yield Document(path.read_bytes().decode("utf-8-sig"), path.name)
    except UnicodeDecodeError:
        broken(str(path), "invalid_utf8")


def _read_parquet(path: Path, text_field: str, id_field: str, broken: Callable[[str, str], None]) -> Iterator[Document]:
    import pyarrow
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(path)
    except pyarrow.ArrowInvalid:
        raise UserError("not a complete Parquet file", where=path, expected="Parquet", todo="copy it again") from None
    if text_field not in file.schema_arrow.names:
        raise UserError(
            f"no column {text_field!r}", where=path, expected="one of " + ", ".join(file.schema_arrow.names)
        )
    number = 0
    try:
        for batch in file.iter_batches(batch_size=1024):
            for row in batch.to_pylist():
                number += 1
                text = row.pop(text_field)
                if not isinstance(text, str):
                    broken(f"{path}:{number}", "no_text")
                    continue
                yield Document(text, str(row.pop(id_field, None) or f"{path.name}:{number}"), row)
    except (pyarrow.ArrowInvalid, OSError):
        raise UserError(
            f"damaged after record {number}", where=path, expected="a complete Parquet file", todo="copy it again"
        ) from None
