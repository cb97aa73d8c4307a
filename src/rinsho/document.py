"""Documents, and the shards they travel in: zstd/gzip JSON lines, Parquet and plain text, streamed."""

from __future__ import annotations

import codecs
import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import orjson
import zstandard

from rinsho.errors import UserError

SUFFIXES = (".jsonl", ".jsonl.zst", ".jsonl.gz", ".parquet", ".txt")
SYNTHETIC = "synthetic"  # the field that says that a model wrote a document (`rinsho synthesize`)
MODEL = "model"  # the field that says which
MODEL_CHARACTERS = 100  # of its name that are kept
ASIDE_FOLDERS = ("dropped", "set_aside", "partial")  # of corpus runs, of synthesis, of a run that is not done
WRITE_EVERY = 256  # documents per write: single small writes halve the rate,
WRITE_BYTES = 1 << 18  # and long documents do not have to wait
READ_BYTES = 1 << 17
MAX_WINDOW_BYTES = 1 << 31  # `zstd --long=31`, which published crawls use; the library alone stops at 128 MiB


@dataclass(frozen=True, slots=True)
class Document:
    """One text with a stable id; `meta` holds whatever else its line held (source, licence, …)."""

    text: str
    id: str
    meta: dict[str, Any] = field(default_factory=dict)

    def to_line(self) -> bytes:
        """The document as one JSON line, keys in fixed order, with its line feed."""
        row = {"id": self.id, "text": self.text, **self.meta}
        row["id"], row["text"] = self.id, self.text  # other fields of these names give way
        if _plain(row):
            try:
                return orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE)
            except TypeError:  # a lone surrogate, an integer beyond 64 bits, a key that is no string
                pass
        try:
            return json.dumps(row, ensure_ascii=False, separators=(",", ":"), default=_as_json).encode() + b"\n"
        except UnicodeEncodeError:  # a lone surrogate, which UTF-8 cannot hold, travels as its JSON escape
            return json.dumps(row, separators=(",", ":"), default=_as_json).encode() + b"\n"


@dataclass(frozen=True, slots=True)
class Broken:
    """A single record that could not be read: where it lies and why, never its content."""

    where: str
    reason: str  # short snake-case id: invalid_utf8, invalid_json, no_text


def is_synthetic(meta: Mapping[str, Any]) -> bool:
    """Whether a document says that a model wrote it: its field `synthetic` is true, in the spelling of its file.

    >>> is_synthetic({"synthetic": True}), is_synthetic({"synthetic": "TRUE"}), is_synthetic({"synthetic": False})
    (True, True, False)
    """
    return str(meta.get(SYNTHETIC, "")).strip().lower() in ("true", "1", "1.0", "yes")


def writer_of(meta: Mapping[str, Any]) -> str | None:
    """The language model that wrote a document, "" where it names none; None for one that does not say it is synthetic.

    >>> writer_of({"synthetic": True, "model": "some-70b"}), writer_of({"synthetic": True}), writer_of({"model": "x"})
    ('some-70b', '', None)
    """
    if not is_synthetic(meta):
        return None
    named = meta.get(MODEL)
    return printable_name(named.strip()[:MODEL_CHARACTERS]) if isinstance(named, str) else ""


def shard_paths(
    inputs: Iterable[Path],
    known: Callable[[str], bool] = lambda name: name.endswith(SUFFIXES),
    expected: str = "files ending in " + ", ".join(SUFFIXES),
) -> list[Path]:
    """All document files below the inputs, sorted; without hidden files, logs and folders of what was left out.

    Args:
        inputs: files and folders.
        known: says by its name whether a file holds documents.
        expected: those names in words, for the error.

    Raises:
        UserError: an input is missing, or holds no file of a known form.
    """
    found: list[Path] = []
    for given in inputs:
        if not given.exists():
            raise UserError("not there", where=given, expected="a file or folder with documents", todo="check the path")
        files = [given] if given.is_file() else sorted(path for path in given.rglob("*") if path.is_file())
        files = [path for path in files if known(path.name) and not _aside(path, given)]
        if not files:
            raise UserError("no documents in here", where=given, expected=expected, todo="check the folder")
        found += files
    return found


def training_folder(corpus: Path) -> Path:
    """Where a corpus keeps its training documents: `shards` of a corpus run folder, otherwise the folder itself."""
    return corpus / "shards" if (corpus / "shards").is_dir() else corpus


def read_documents(
    path: Path,
    *,
    text_field: str = "text",
    id_field: str = "id",
    on_broken: Callable[[Broken], None] | None = None,
) -> Iterator[Document]:
    """The documents of one file, streamed: memory does not grow with the file.

    A document without an id gets `<file name>:<line>`. A single broken record goes to `on_broken` and reading
    goes on; without `on_broken` it is a `UserError`. A file that is cut off gives the documents before the cut first.

    Raises:
        UserError: the file is cut off or not of the form its name says, or a Parquet file has no such column.
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


@contextmanager
def open_unpacked(path: Path) -> Iterator[io.BufferedReader]:
    """The bytes of a file, unpacked when its name ends in .zst or .gz, streamed.

    Raises:
        UserError: the file is cut off or damaged; it is told when reading comes to that place.
    """
    try:
        with _open(path) as file:
            yield file
    except (zstandard.ZstdError, zlib.error, EOFError, gzip.BadGzipFile) as error:
        raise UserError(
            "the file is cut off or damaged",
            where=path,
            expected="a complete compressed file",
            todo="copy or download it again, or take it out of the folder",
        ) from error


def read_rows(path: Path, broken: Callable[[str, str], None], exact: bool = True) -> Iterator[tuple[int, Any]]:
    """The JSON values of a file of JSON lines with their line numbers; empty lines are left out.

    Lines that are no JSON or no UTF-8 go to `broken` as (file:line, reason). Raises as `open_unpacked`.
    """
    with open_unpacked(path) as file:
        for number, line in enumerate(file, 1):
            if number == 1:
                line = line.removeprefix(codecs.BOM_UTF8)  # noqa: PLW2901
            if line.isspace() or not line:
                continue
            try:
                value = parse(line, exact)
            except UnicodeDecodeError:
                broken(f"{path}:{number}", "invalid_utf8")
            except (ValueError, RecursionError):
                broken(f"{path}:{number}", "invalid_json")
            else:
                yield number, value


def parse(line: bytes | str, exact: bool = True) -> Any:
    """The JSON value of a line as `json.loads` gives it, in half the time or less.

    With `exact` false an integer beyond 64 bits becomes a float, which saves looking at every value.

    Raises:
        UnicodeDecodeError: not UTF-8. ValueError: not JSON. RecursionError: nested too deeply.
    """
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError:  # it also refuses what json knows: a lone surrogate, NaN, 1e400
        return json.loads(line if isinstance(line, str) else line.decode())
    return json.loads(line) if exact and not _exact(value) else value


def byte_length(text: str) -> int:
    """Size in UTF-8; lone surrogates count too."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def printable_name(text: str) -> str:
    r"""An id, source or file name that every file can hold: lone surrogates stand as escapes.

    >>> printable_name("患者\ud800")
    '患者\\ud800'
    """
    return text.encode("utf-8", "backslashreplace").decode()


def compress(documents: Iterable[Document]) -> bytes:
    """The documents as one zstd-compressed block of JSON lines; equal documents give equal bytes."""
    buffer = io.BytesIO()
    write_documents(buffer, documents)
    return buffer.getvalue()


def write_documents(target: IO[bytes], documents: Iterable[Document]) -> tuple[int, int]:
    """Writes zstd JSON lines into an open binary file, batched. Returns (documents, uncompressed bytes)."""
    count, size_bytes, written_bytes = 0, 0, 0
    batch: list[bytes] = []
    with zstandard.ZstdCompressor(level=3, write_checksum=True).stream_writer(target, closefd=False) as stream:
        for document in documents:
            line = document.to_line()
            batch.append(line)
            count += 1
            size_bytes += len(line)
            if len(batch) == WRITE_EVERY or size_bytes - written_bytes > WRITE_BYTES:
                stream.write(b"".join(batch))
                batch.clear()
                written_bytes = size_bytes
        stream.write(b"".join(batch))
    return count, size_bytes


def _aside(path: Path, root: Path) -> bool:
    relative = path.relative_to(root) if path != root else Path(path.name)
    left_out = any(part.startswith(".") or part in ASIDE_FOLDERS for part in relative.parts)
    return left_out or path.name in ("metrics.jsonl", "log.txt")


def _as_json(value: Any) -> Any:
    """A value of a Parquet column that JSON has no form for: numbers of numpy, dates, bytes."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return value.item() if hasattr(value, "item") else str(value)


def _plain(value: Any) -> bool:
    """True when orjson writes the value with the same bytes as json."""
    kind = type(value)
    if kind is str or kind is int or kind is bool or value is None:
        return True
    if kind is float:
        text = repr(value)
        return "e" not in text and "n" not in text  # 1e-07 is written 1e-7, and nan and inf as null
    if kind is dict:
        return all(map(_plain, value.values()))
    return kind in (list, tuple) and all(map(_plain, value))


def _exact(value: Any) -> bool:
    """False when a number in it may be an integer that orjson, having 64 bits, read as a float."""
    kind = type(value)
    if kind is float:
        return bool(-(2.0**63) < value < 2.0**64)
    if kind is dict:
        return all(map(_exact, value.values()))
    return kind is not list or all(map(_exact, value))


def _open(path: Path) -> io.BufferedReader:
    if path.name.lower().endswith(".zst"):
        frames: Any = _Frames(path.open("rb"))
        engine = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW_BYTES)
        reader: Any = engine.stream_reader(frames, read_size=READ_BYTES, read_across_frames=True)
        return io.BufferedReader(reader, READ_BYTES)
    if path.name.lower().endswith(".gz"):
        unpacked: Any = gzip.GzipFile(path)
        return io.BufferedReader(unpacked, READ_BYTES)
    return io.BufferedReader(path.open("rb", buffering=0), READ_BYTES)


class _Frames:
    """A zstd file on its way to the decompressor, which stops at a cut without a word: the end raises EOFError.

    It follows the sizes in frame and block headers (RFC 8878), so nothing is unpacked twice.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._held = b""  # the start of a header whose other bytes come with the next read
        self._skip = 0  # bytes to the next header
        self._in_frame = self._checksum = False

    def read(self, size: int) -> bytes:
        data = self._file.read(size)
        if data:
            self._follow(data)
        elif self._skip or self._held or self._in_frame:
            raise EOFError("the last frame is not complete")
        return data

    def close(self) -> None:
        self._file.close()

    def _follow(self, data: bytes) -> None:
        if self._skip >= len(data):
            self._skip -= len(data)
            return
        data = self._held + data[self._skip :]
        position = 0
        while position < len(data):
            step = self._header(data[position : position + 18])
            if not step:
                break
            position += step
        self._held = data[position:]
        self._skip = max(0, position - len(data))

    def _header(self, data: bytes) -> int:
        """Bytes from the header at the start of `data` to the next header; 0 when too little of it is there."""
        if self._in_frame:
            if len(data) < 3:
                return 0
            number = int.from_bytes(data[:3], "little")
            last, kind, size = number & 1, number >> 1 & 3, number >> 3
            self._in_frame = not last
            return 3 + (1 if kind == 1 else size) + (4 if last and self._checksum else 0)
        if len(data) < 8 and (len(data) < 5 or data[1:4] == b"\x2a\x4d\x18"):
            return 0
        if data[1:4] == b"\x2a\x4d\x18" and data[0] >> 4 == 5:  # a frame to be skipped
            return 8 + int.from_bytes(data[4:8], "little")
        self._in_frame, self._checksum = True, bool(data[4] & 4)
        return int(zstandard.frame_header_size(data))


def _read_json_lines(
    path: Path, text_field: str, id_field: str, broken: Callable[[str, str], None]
) -> Iterator[Document]:
    for number, row in read_rows(path, broken):
        text = row.pop(text_field, None) if isinstance(row, dict) else None
        if isinstance(text, str):
            yield Document(text, str(row.pop(id_field, None) or f"{path.name}:{number}"), row)
        else:
            broken(f"{path}:{number}", "no_text")


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
