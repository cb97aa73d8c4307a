"""zstd JSON lines of our own: read line by line, written to one file or to shards of fixed length, atomically."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

import zstandard

from rinsho.document import WRITE_BYTES, WRITE_EVERY, Document
from rinsho.run import atomic_file


def read_lines(path: Path) -> Iterator[bytes]:
    """The lines of a file that a `LineWriter` wrote, not parsed, each with its line feed."""
    with path.open("rb") as file:
        stream = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True)
        yield from io.BufferedReader(stream)


class LineWriter:
    """Documents into one zstd file, batched; use as a context manager. `path` appears when the block ends well."""

    def __init__(self, path: Path, level: int = 3) -> None:
        self._path, self._level = path, level
        self._stack = ExitStack()
        self._batch: list[bytes] = []
        self._waiting_bytes = 0

    def __enter__(self) -> LineWriter:
        file = self._stack.enter_context(atomic_file(self._path))
        compressor = zstandard.ZstdCompressor(level=self._level, write_checksum=True)
        self._stream = self._stack.enter_context(compressor.stream_writer(file, closefd=False))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._flush()
        self._stack.__exit__(kind, error, trace)

    def write(self, document: Document) -> None:
        """Adds one document."""
        self.write_line(document.to_line())

    def write_line(self, line: bytes) -> None:
        """Adds one ready JSON line with its line feed."""
        self._batch.append(line)
        self._waiting_bytes += len(line)
        if len(self._batch) == WRITE_EVERY or self._waiting_bytes > WRITE_BYTES:
            self._flush()

    def _flush(self) -> None:
        self._stream.write(b"".join(self._batch))
        self._batch.clear()
        self._waiting_bytes = 0


class ShardWriter:
    """Lines into `folder/<prefix>000.jsonl.zst`, `001…`, each of `documents` lines; nothing written, no folder."""

    def __init__(self, folder: Path, documents: int, prefix: str = "") -> None:
        self.folder, self.documents, self.prefix = folder, documents, prefix
        self.written = 0
        self._open: LineWriter | None = None

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._open is not None:
            self._open.__exit__(kind, error, trace)

    def write_line(self, line: bytes) -> None:
        """Adds one ready JSON line with its line feed."""
        if self._open is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._open = LineWriter(
                self.folder / f"{self.prefix}{self.written // self.documents:03d}.jsonl.zst"
            ).__enter__()
        self._open.write_line(line)
        self.written += 1
        if self.written % self.documents == 0:
            self._open.__exit__(None, None, None)
            self._open = None
