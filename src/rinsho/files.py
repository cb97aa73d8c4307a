"""Files that appear whole or not at all, and hashes that tell whether an input changed."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

WHOLE_BYTES = 1 << 30  # larger files are told apart by their size and three samples
SAMPLE_BYTES = 64 << 20


@contextmanager
def atomic_file(path: Path) -> Iterator[IO[bytes]]:
    """An open binary file that takes the name `path` when the block ends well; a crash leaves `path` as it was."""
    aside = path.with_name(f".{path.name}.aside")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with aside.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
        _sync_folder(path.parent)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


def write_atomic(path: Path, data: bytes | str) -> None:
    """Writes the file whole or not at all (text as UTF-8)."""
    with atomic_file(path) as file:
        file.write(data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """An empty folder to fill, renamed to `path` when the block ends well; an older `path` is replaced."""
    aside = path.with_name(f".{path.name}.aside")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        yield aside
        sync_files(aside)
        if path.exists():
            shutil.rmtree(path)
        aside.replace(path)
        _sync_folder(path.parent)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise


def sync_files(folder: Path) -> None:
    """Makes sure that every file below the folder is on the disk, not only in the system's memory."""
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            _sync_file(file)


def publish_folder(aside: Path, out: Path) -> None:
    """Moves every file below `aside` to its place below `out`, each synced first; one of the same name is replaced."""
    for file in sorted(aside.rglob("*")):
        if file.is_file():
            target = out / file.relative_to(aside)
            target.parent.mkdir(parents=True, exist_ok=True)
            _sync_file(file)
            file.replace(target)
    for folder in (path for path in aside.rglob("*") if path.is_dir()):
        _sync_folder(out / folder.relative_to(aside))
    _sync_folder(out)


def file_hash(path: Path) -> str:
    """BLAKE2b of the content as 32 hex digits."""
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def quick_hash(path: Path) -> str:
    """Like `file_hash`; beyond 1 GiB the size and 64 MiB from the start, the middle and the end stand for the rest."""
    size = path.stat().st_size
    if size <= WHOLE_BYTES:
        return file_hash(path)
    digest = hashlib.blake2b(str(size).encode(), digest_size=16)
    with path.open("rb") as file:
        for start in (0, (size - SAMPLE_BYTES) // 2, size - SAMPLE_BYTES):
            file.seek(start)
            digest.update(file.read(SAMPLE_BYTES))
    return digest.hexdigest()


def _sync_file(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sync_folder(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
