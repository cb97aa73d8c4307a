"""The file that keeps answers, so that nothing is paid twice."""

from __future__ import annotations

import fcntl
import json
import os
import time
from errno import ENOSPC
from pathlib import Path
from typing import Any

from rinsho.errors import UserError

KEPT = ("text", "finish_reason", "prompt_tokens", "completion_tokens", "seconds")
COUNTS = ("prompt_tokens", "completion_tokens")
MAX_TOKENS = 10**9  # told for one answer; what says more, or is no number, counts as nothing
FIRST_READ_BYTES = 1 << 12
SYNC_EVERY_SECONDS = 1.0  # between two fsyncs; a killed process loses nothing even without


class Answers:
    """Answers by the hash of what was asked: JSON lines, each appended by one write; a cut last line is ignored.

    Only places in the file are held in memory. The file is readable by its owner only, as answers may quote texts.
    With `read_only` there is no lock, nothing can be put and the file may be missing: another process may be writing.

    Raises:
        UserError: another process uses the file.
    """

    def __init__(self, path: Path | None, read_only: bool = False) -> None:
        self._places: dict[str, int] = {}
        self._memory: list[bytes] = []
        self._file: int | None = None
        self._size = 0
        self._synced = time.monotonic()
        if path is None or (read_only and not path.exists()):
            return
        if read_only:
            self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            self._index(path)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            raise UserError(
                "another rinsho process uses these answers",
                where=path,
                expected="one process at a time",
                todo="wait for it, or name another cache",
            ) from None
        self._file = file
        if not self._index(path):  # killed within a write: the next line must not be glued to the rest
            self._append(b"\n")

    def _index(self, path: Path) -> bool:
        """Whether the last line is whole."""
        whole = True
        with path.open("rb") as lines:
            for line in lines:
                whole = line.endswith(b"\n")
                row = _read(line) if whole else None
                if row is not None:
                    self._places[row["key"]] = self._size
                self._size += len(line)
        return whole

    def __contains__(self, key: str) -> bool:
        return key in self._places

    def get(self, key: str) -> dict[str, Any] | None:
        """What was kept under the key, or None."""
        place = self._places.get(key)
        if place is None:
            return None
        if self._file is None:
            return _read(self._memory[place])
        line, size = bytearray(), FIRST_READ_BYTES
        while part := os.pread(self._file, size, place + len(line)):
            whole, end, _ = part.partition(b"\n")
            line += whole
            if end:
                break
            size *= 2
        return _read(bytes(line))

    def put(self, key: str, row: dict[str, Any]) -> None:
        """Keeps a row; it outlives this process from here on, and a power cut from the next sync on."""
        line = json.dumps({"key": key, **row}, separators=(",", ":")).encode() + b"\n"
        if self._file is None:
            self._places[key] = len(self._memory)
            self._memory.append(line)
            return
        place = self._size
        self._append(line)
        self._places[key] = place
        if time.monotonic() - self._synced > SYNC_EVERY_SECONDS:
            self.sync()

    def _append(self, line: bytes) -> None:
        written = os.write(self._file or 0, line)
        self._size += written
        if written != len(line):
            raise OSError(ENOSPC, os.strerror(ENOSPC))

    def sync(self) -> None:
        """Everything is on the disk afterwards."""
        if self._file is not None:
            os.fsync(self._file)
        self._synced = time.monotonic()

    def close(self) -> None:
        """Syncs and lets the file go."""
        if self._file is not None:
            self.sync()
            os.close(self._file)
            self._file = None
        self._places.clear()


def _read(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    if not isinstance(row, dict) or not {"key", *KEPT} <= row.keys():
        return None
    return {**row, **{name: tokens(row[name]) for name in COUNTS}}


def tokens(told: object) -> int:
    """Tokens as an endpoint tells them; 0 where that is no number of tokens."""
    return told if type(told) is int and 0 <= told <= MAX_TOKENS else 0
