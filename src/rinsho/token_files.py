"""Token folders: text as ids, encoded once, opened as one array; the manifest says which tokenizer made them.

    tokens.bin      all documents one after another, each with its begin and end mark (uint16 or uint32)
    documents.npy   int64 offsets into it, one more than documents
    sources.npy     int32, of every document the place of its source in sources.json
    sources.json    the sources in the order they appear: corpus, source, documents, tokens, characters, licenses,
                    synthetic, synthetic_tokens
    ids.txt         the documents' ids as JSON strings, a line each
    tokens.json     the manifest: tokenizer, settings, counts, sizes and hashes of the other files

An encoded corpus is a folder of two of them: `train/` and, where something is held out, `validation/`. They are
written by `rinsho.token_writing`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import orjson
from numpy.typing import NDArray

from rinsho.errors import UserError
from rinsho.files import file_hash
from rinsho.packing import Ints
from rinsho.run import read_done

FORMAT = 2
TOKENS, DOCUMENTS, MANIFEST = "tokens.bin", "documents.npy", "tokens.json"
SOURCE_OF, SOURCES, IDS = "sources.npy", "sources.json", "ids.txt"
FILES = (TOKENS, DOCUMENTS, SOURCE_OF, SOURCES, IDS)
TRAIN, VALIDATION = "train", "validation"
SUMS = ("documents", "tokens", "characters", "text_bytes", "broken_records")  # counts of a manifest that add up
KEYS = {*SUMS, "tokenizer", "vocab_size", "dtype", "copying", "selection", "files", "shards", "broken"}


class TokenArray(Protocol):
    """Ids: one memory-mapped array, or several one after another."""

    def __len__(self) -> int: ...
    def __getitem__(self, place: Any) -> Any: ...


class SourceRow(NamedTuple):
    """What a corpus has of a source.

    `folder` names the encoded corpus it was opened from, if it was one. `licenses` are those that its documents name,
    with the number of documents ("" names none); None in token files made before they were recorded. `synthetic` are
    the language models that wrote some of its documents, in the same form, `synthetic_tokens` the tokens of these.
    """

    name: str
    documents: int
    tokens: int
    characters: int
    corpus: str = ""
    folder: str = ""
    licenses: tuple[tuple[str, int], ...] | None = None
    synthetic: tuple[tuple[str, int], ...] | None = None
    synthetic_tokens: int = 0


@dataclass(frozen=True)
class TokenFile:
    """An opened token folder, or several as one.

    Attributes:
        tokens: (tokens,) uint16 or uint32, memory-mapped.
        offsets: (documents + 1,) where each document begins, and the end.
        manifest: what tokens.json holds; for several folders the first's, with the sums of all.
        source_of: (documents,) int32, the place of each document's source in `sources`.
        sources: in the order they appear in the text.
        folders: the token folders, each with its number of documents.
    """

    tokens: TokenArray
    offsets: Ints
    manifest: dict[str, Any]
    source_of: NDArray[np.int32] = field(default_factory=lambda: np.empty(0, np.int32))
    sources: Sequence[SourceRow] = ()
    folders: tuple[tuple[Path, int], ...] = ()

    def ids(self, numbers: Iterable[int]) -> list[str]:
        """The ids of documents by their numbers (from 0), each once, by rising number.

        They are read from the disk, a second or two for ten million documents. Without a folder it is the numbers.
        """
        wanted = sorted({int(number) for number in numbers})
        if not self.folders:
            return list(map(str, wanted))
        found: list[str] = []
        begin = 0
        for folder, documents in self.folders:
            inside = [number - begin for number in wanted if begin <= number < begin + documents]
            found += _lines(folder / IDS, inside)
            begin += documents
        return found


class Parts(NamedTuple):
    """An encoded corpus."""

    training: TokenFile
    validation: TokenFile | None


def open_tokens(folder: Path, fingerprint: str | None = None) -> TokenFile:
    """A token folder, memory-mapped; sizes are compared with its manifest, not the content (see `verify_tokens`).

    With `fingerprint`, the ids must come from the tokenizer that has it.

    Raises:
        UserError: no or an unreadable manifest, files cut off or changed in size, or another tokenizer.
    """
    manifest = _read_manifest(folder)
    if fingerprint is not None and manifest["tokenizer"] != fingerprint:
        raise UserError(
            f"the token files were made with the tokenizer {manifest['tokenizer'] or '(unknown)'}",
            where=folder,
            expected=f"{fingerprint}, the fingerprint of the given tokenizer",
            todo="give the tokenizer they were made with, or encode the corpus again",
        )
    _check_sizes(folder, manifest)
    documents, count = int(manifest["documents"]), int(manifest["tokens"])
    offsets = _mapped(folder, DOCUMENTS, np.int64, documents + 1)
    if (offsets[0], offsets[-1]) != (0, count):
        raise _damaged(folder, f"{DOCUMENTS} does not fit {MANIFEST}")
    dtype = np.dtype(manifest["dtype"])
    tokens = np.asarray(np.memmap(folder / TOKENS, dtype, "r")) if count else np.empty(0, dtype)
    if len(tokens) != count:
        raise _damaged(folder, f"{TOKENS} does not fit {MANIFEST}")
    source_of = _mapped(folder, SOURCE_OF, np.int32, documents)
    return TokenFile(tokens, offsets, manifest, source_of, _read_sources(folder), ((folder, documents),))


def verify_tokens(folder: Path) -> None:
    """Compares the content of a token folder with the hashes in its manifest; reads all of it (some 0.8 GB/s).

    Raises:
        UserError: as `open_tokens`; a file was changed.
    """
    manifest = open_tokens(folder).manifest
    for name, about in manifest["files"].items():
        if file_hash(folder / name) != about["hash"]:
            raise _damaged(folder, f"{name} was changed: its hash is not the one in {MANIFEST}")


def is_encoded(path: Path) -> bool:
    """Whether a path is an encoded corpus, or one token folder, and not a corpus."""
    return any((folder / MANIFEST).is_file() for folder in (path, path / TRAIN)) or bool(_products(path))


def _products(path: Path) -> list[str]:
    """What the run that encoded a corpus left, by its DONE; nothing of any other folder."""
    done = read_done(path)
    return list(done["products"]) if done and f"{TRAIN}/{MANIFEST}" in done["products"] else []


def token_folders(path: Path) -> list[Path]:
    """The token folders of an encoded corpus: for training and, if there is one, for validation.

    Raises:
        UserError: a file is missing.
    """
    for name in _products(path):
        if not (path / name).is_file():
            raise UserError(
                f"{name} is missing from the token files",
                where=path,
                expected="everything that rinsho tokenizer encode wrote",
                todo="copy the whole folder again, or encode the corpus again",
            )
    if (path / MANIFEST).is_file():
        return [path]
    return [path / TRAIN] + ([path / VALIDATION] if (path / VALIDATION / MANIFEST).is_file() else [])


def open_encoded(paths: Sequence[Path], fingerprint: str | None = None) -> Parts:
    """Encoded corpora as one: their documents in the given order.

    Raises:
        UserError: as `open_tokens`; they were made with different tokenizers or number forms.
    """
    opened = {folder: open_tokens(folder, fingerprint) for path in paths for folder in token_folders(path)}
    first, *others = opened
    for other in others:
        for key, what in (("tokenizer", "tokenizers"), ("dtype", "number forms")):
            mine, wanted = opened[other].manifest[key], opened[first].manifest[key]
            if mine != wanted:
                raise UserError(
                    f"token files of different {what} were given ({mine} here, {wanted} in {first})",
                    where=other,
                    expected="the same tokenizer folder for all of them",
                    todo="encode the corpora again with one tokenizer",
                )
    training = [_named(opened[token_folders(path)[0]], path) for path in paths]
    validation = [_named(opened[folder], path) for path in paths for folder in token_folders(path)[1:]]
    return Parts(_chained(training), _chained(validation) if validation else None)


def check_broken(made: TokenFile, max_broken_fraction: float, where: object) -> None:
    """Raises a `UserError` when too many records of the text could not be read."""
    broken, whole = made.manifest["broken_records"], made.manifest["documents"]
    if broken > max_broken_fraction * (broken + whole):
        first = made.manifest["broken"][0]
        raise UserError(
            f"{broken} of {broken + whole} documents cannot be read (first: {first['where']}, {first['reason']})",
            where=where,
            expected=f"at most {max_broken_fraction:.1%} (max_broken_fraction)",
            todo="repair the files or raise the limit",
        )


class _Chain:
    """Several arrays as one; a slice may not cross from one into the next (no document does)."""

    def __init__(self, arrays: Sequence[TokenArray]) -> None:
        self.arrays = arrays
        self.starts = np.cumsum([0, *map(len, arrays)])

    def __len__(self) -> int:
        return int(self.starts[-1])

    def __getitem__(self, place: Any) -> Any:
        first = place.start if isinstance(place, slice) else place
        which = int(np.searchsorted(self.starts, first, side="right")) - 1
        start = self.starts[which]
        if isinstance(place, slice):
            return self.arrays[which][place.start - start : place.stop - start]
        return self.arrays[which][place - start]


def _named(file: TokenFile, path: Path) -> TokenFile:
    """The token file with the name of the encoded corpus it was opened from at its sources."""
    return replace(file, sources=[row._replace(folder=path.absolute().name) for row in file.sources])


def _chained(files: Sequence[TokenFile]) -> TokenFile:
    if len(files) == 1:
        return files[0]
    tokens = _Chain([file.tokens for file in files])
    offsets = [file.offsets[1:] + start for file, start in zip(files, tokens.starts[:-1], strict=True)]
    sources: list[SourceRow] = []
    source_of = []
    for file in files:
        source_of.append(file.source_of + np.int32(len(sources)))
        sources += file.sources
    sums = {key: sum(file.manifest[key] for file in files) for key in SUMS}
    broken = [row for file in files for row in file.manifest["broken"]]
    manifest = {**files[0].manifest, **sums, "broken": broken}
    folders = tuple(folder for file in files for folder in file.folders)
    starts = np.concatenate([np.zeros(1, np.int64), *offsets])
    return TokenFile(tokens, starts, manifest, np.concatenate(source_of), sources, folders)


def _lines(path: Path, numbers: Sequence[int]) -> list[str]:
    """Lines of a file by rising number, without reading the others into memory."""
    found = []
    at = 0
    if numbers:
        with path.open("rb", buffering=1 << 20) as file:
            for number in numbers:
                found.append(str(orjson.loads(next(islice(file, number - at, None)))))
                at = number + 1
    return found


def _read_manifest(folder: Path) -> dict[str, Any]:
    expected = f"a folder with {MANIFEST}, {TOKENS} and {DOCUMENTS}, written by rinsho tokenizer encode"
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except OSError:
        raise UserError("no token files in here", where=folder, expected=expected, todo="check the path") from None
    except ValueError:
        raise _damaged(folder, f"{MANIFEST} is not readable") from None
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise UserError(
            "token files of another form",
            where=folder,
            expected=f"format {FORMAT} in {MANIFEST}",
            todo="encode the corpus again",
        )
    if not manifest.keys() >= KEYS or manifest["dtype"] not in ("uint16", "uint32"):
        raise _damaged(folder, f"{MANIFEST} is not whole")
    return manifest


def _check_sizes(folder: Path, manifest: dict[str, Any]) -> None:
    for name in FILES:
        wanted = manifest["files"].get(name, {}).get("bytes")
        try:
            size_bytes = (folder / name).stat().st_size
        except OSError:
            raise _damaged(folder, f"{name} is missing") from None
        if size_bytes != wanted:
            raise _damaged(folder, f"{name} has {size_bytes} bytes instead of {wanted}")


def _mapped(folder: Path, name: str, dtype: Any, length: int) -> NDArray[Any]:
    """An array file as a plain array: slices of a memmap take five times as long to make."""
    try:
        found = np.lib.format.open_memmap(folder / name, mode="r") if length else np.load(folder / name)
    except (OSError, ValueError):
        raise _damaged(folder, f"{name} is not readable") from None
    if found.dtype != dtype or found.shape != (length,):
        raise _damaged(folder, f"{name} does not fit {MANIFEST}")
    return np.asarray(found)


def _read_sources(folder: Path) -> list[SourceRow]:
    try:
        rows = orjson.loads((folder / SOURCES).read_bytes())
        return [
            SourceRow(
                row["source"],
                row["documents"],
                row["tokens"],
                row["characters"],
                row["corpus"],
                licenses=_counts(row.get("licenses")),
                synthetic=_counts(row.get("synthetic")),
                synthetic_tokens=row.get("synthetic_tokens", 0),
            )
            for row in rows
        ]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise _damaged(folder, f"{SOURCES} is not readable") from None


def _counts(table: dict[str, int] | None) -> tuple[tuple[str, int], ...] | None:
    return None if table is None else tuple(table.items())


def _damaged(folder: Path, what: str) -> UserError:
    return UserError(
        what, where=folder, expected="the files as they were written", todo="copy the folder again or encode it anew"
    )
