"""Which folders can be measured, and what they are called: known without opening anything."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rinsho.errors import UserError

FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "vocab.json", "*.model")


def folder_problem(folder: Path) -> UserError | None:
    """Why a folder cannot be a tokenizer's, or None when it may be."""
    if not folder.is_dir():
        return UserError("not there", where=folder, expected="a tokenizer or model folder", todo="check the path")
    if not any(path.is_file() for pattern in FILES for path in folder.glob(pattern)):
        return UserError(
            "no tokenizer in here", where=folder, expected="one of " + ", ".join(FILES), todo="check the folder"
        )
    return None


def labels(folders: Sequence[Path]) -> list[str]:
    """Short names for the folders: as many of the last parts of each path as are needed to tell them apart.

    >>> labels([Path("runs/a/tokenizer"), Path("runs/b/tokenizer"), Path("bert")])
    ['a/tokenizer', 'b/tokenizer', 'bert']
    >>> labels([Path("runs/a"), Path("runs/a/plain")])
    ['a', 'a/plain']
    """
    parts = [folder.resolve().parts for folder in folders]
    wanted = [2 if part[-1] in ("plain", "tokenizer") else 1 for part in parts]
    if len(parts) == 1:
        wanted = [1]
    longest = max(map(len, parts), default=1)
    for _ in range(longest):
        names = ["/".join(part[-count:]) for part, count in zip(parts, wanted, strict=True)]
        doubled = [names.count(name) > 1 for name in names]
        if not any(doubled):
            return names
        wanted = [count + twice for count, twice in zip(wanted, doubled, strict=True)]
    raise UserError("a tokenizer is named twice", where=", ".join(sorted({str(path) for path in folders})))
