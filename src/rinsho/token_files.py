"""Token folders: text as ids, encoded once, opened as one array; the manifest says which tokenizer made them.

    tokens.bin      all documents one after another, each with its begin and end mark (uint16 or uint32)
    documents.npy   int64 offsets into it, one more than documents
    tokens.json     the manifest: tokenizer, settings, counts, hashes

An encoded corpus is a folder of two of them: `train/` and, where something is held out, `validation/`.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple, Protocol, cast

import numpy as np

from rinsho.document import shard_paths, training_folder
from rinsho.errors import UserError
from rinsho.files import atomic_folder, file_hash
from rinsho.packing import Ints
from rinsho.run import read_done
from rinsho.token_pieces import (
    NO_COPIES,
    Copying,
    Job,
    Selection,
    Tally,
    TextTokenizer,
    load_tokenizer,
    make_pieces,
    token_dtype,
)

FORMAT = 1
TOKENS, DOCUMENTS, MANIFEST = "tokens.bin", "documents.npy", "tokens.json"
TRAIN, VALIDATION = "train", "validation"
SUMS = ("documents", "tokens", "characters", "text_bytes", "broken_records")  # counts of a manifest that add up
KEYS = {*SUMS, "tokenizer", "vocab_size", "dtype", "copying", "selection", "hashes", "sources", "shards", "broken"}
LISTED_SOURCES = 100  # in the manifest, by their tokens; the others are one row
LISTED_BROKEN = 1000
COPY_BYTES = 4 << 20


class TokenArray(Protocol):
    """Ids: one memory-mapped array, or several one after another."""

    def __len__(self) -> int: ...
    def __getitem__(self, place: Any) -> Any: ...


@dataclass(frozen=True)
class TokenFile:
    """An opened token folder, or several as one.

    Attributes:
        tokens: (tokens,) uint16 or uint32, memory-mapped.
        offsets: (documents + 1,) where each document begins, and the end.
        manifest: what tokens.json holds; for several folders the first's, with the sums of all.
    """

    tokens: TokenArray
    offsets: Ints
    manifest: dict[str, Any]


class Parts(NamedTuple):
    """An encoded corpus."""

    training: TokenFile
    validation: TokenFile | None


def encode_corpora(
    corpora: Sequence[Path],
    tokenizer: TextTokenizer | Path,
    folder: Path,
    *,
    scratch: Path,
    fingerprint: str = "",
    validation_fraction: float = 0.0,
    copying: Copying,
    workers: int = 1,
    label: str = "tokens",
    tally: Tally | None = None,
) -> Parts:
    """The token folders `train` and `validation` of corpora, in `folder`.

    Held out are the `validation` folders of the corpora; where none has one, a share of the documents, chosen by seed
    (that of `copying`) and id. Held-out text is never followed by copies.

    Raises:
        UserError: as `write_tokens`; a corpus is not there or holds no documents.
    """
    own = [corpus / VALIDATION for corpus in corpora if _holds_files(corpus / VALIDATION)]
    fraction = 0.0 if own else validation_fraction
    shards = shard_paths([training_folder(corpus) for corpus in corpora])
    shards = [path for path in shards if not any(aside in path.parents for aside in own)]

    def part(name: str, shards: Sequence[Path], copies: Copying) -> TokenFile:
        return write_tokens(
            shards,
            tokenizer,
            folder / name,
            scratch=scratch / name,
            workers=workers,
            fingerprint=fingerprint,
            copying=copies,
            selection=Selection(fraction, name == VALIDATION, copying.seed) if fraction else None,
            label=f"{label} ({name})",
            tally=tally,
        )

    training = part(TRAIN, shards, copying)
    if not (own or fraction):
        return Parts(training, None)
    return Parts(training, part(VALIDATION, shard_paths(own) if own else shards, NO_COPIES))


def write_tokens(
    shards: Sequence[Path],
    tokenizer: TextTokenizer | Path,
    folder: Path,
    *,
    scratch: Path,
    workers: int = 1,
    fingerprint: str = "",
    copying: Copying = NO_COPIES,
    selection: Selection | None = None,
    label: str = "tokens",
    tally: Tally | None = None,
) -> TokenFile:
    """The token folder of the shards: begin mark, text and end mark of every document, in the order of the shards.

    Each shard is encoded into a piece in `scratch` and skipped when it is already there, so an interrupted run
    continues; the bytes are the same for any number of workers. The pieces go when the folder is there: until then the
    ids are on the disk twice.

    `tokenizer` is a tokenizer folder, or a tokenizer, which works in this process whatever `workers` says (processes; 0
    is one a core). Of a folder the `fingerprint` (`rinsho.tokenization.fingerprint`) is found when it is not given.
    `label` begins the progress line, `tally` is told what this run itself encoded.

    Raises:
        UserError: a shard is damaged; a worker was ended; `folder` holds tokens made in another way.
    """
    ready = load_tokenizer(tokenizer) if isinstance(tokenizer, Path) else tokenizer
    if isinstance(tokenizer, Path) and not fingerprint:
        from rinsho.tokenization import fingerprint as fingerprint_of

        fingerprint = fingerprint_of(cast(Any, ready))
    about = _settings(fingerprint, len(ready), copying, selection)
    # The name keeps apart pieces that an interrupted run made with another tokenizer or in another way.
    made_with = blake2b(json.dumps(about, sort_keys=True).encode(), digest_size=8).hexdigest()
    own = scratch / made_with
    pieces = [own / f"{number:05d}" for number in range(len(shards))]
    if not (folder / MANIFEST).exists():
        jobs = [Job(shard, piece, tokenizer, copying, selection) for shard, piece in zip(shards, pieces, strict=True)]
        make_pieces(jobs, ready, workers, label, tally or Tally())
        _join(pieces, folder, about)
    made = open_tokens(folder)
    if any(made.manifest[key] != value for key, value in about.items()):
        raise UserError(
            "the token files in here were made in another way",
            where=folder,
            expected="the same tokenizer and settings",
            todo="delete the folder to make it anew",
        )
    shutil.rmtree(own, ignore_errors=True)
    with suppress(OSError):  # not there, or it holds other things, which are not ours to delete
        scratch.rmdir()
    return made


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
    dtype, count = np.dtype(manifest["dtype"]), int(manifest["tokens"])
    try:
        offsets = np.lib.format.open_memmap(folder / DOCUMENTS, mode="r")
        size_bytes = (folder / TOKENS).stat().st_size
    except (OSError, ValueError):
        raise _damaged(folder, "a file is missing or cut off") from None
    if size_bytes != count * dtype.itemsize:
        raise _damaged(folder, f"{TOKENS} has {size_bytes} bytes instead of {count * dtype.itemsize}")
    fits = offsets.dtype == np.int64 and offsets.shape == (manifest["documents"] + 1,)
    if not fits or (offsets[0], offsets[-1]) != (0, count):
        raise _damaged(folder, f"{DOCUMENTS} does not fit {MANIFEST}")
    tokens = np.memmap(folder / TOKENS, dtype, "r") if count else np.empty(0, dtype)
    return TokenFile(tokens, offsets, manifest)


def verify_tokens(folder: Path) -> None:
    """Compares the content of a token folder with the hashes in its manifest; reads all of it (some 0.8 GB/s).

    Raises:
        UserError: as `open_tokens`; a file was changed.
    """
    manifest = open_tokens(folder).manifest
    for name, wanted in manifest["hashes"].items():
        if file_hash(folder / name) != wanted:
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
    training = [opened[token_folders(path)[0]] for path in paths]
    validation = [opened[folder] for path in paths for folder in token_folders(path)[1:]]
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


def _chained(files: Sequence[TokenFile]) -> TokenFile:
    if len(files) == 1:
        return files[0]
    tokens = _Chain([file.tokens for file in files])
    offsets = [file.offsets[1:] + start for file, start in zip(files, tokens.starts[:-1], strict=True)]
    sums = {key: sum(file.manifest[key] for file in files) for key in SUMS}
    broken = [row for file in files for row in file.manifest["broken"]]
    manifest = {**files[0].manifest, **sums, "broken": broken}
    return TokenFile(tokens, np.concatenate([np.zeros(1, np.int64), *offsets]), manifest)


def _settings(fingerprint: str, vocab_size: int, copying: Copying, selection: Selection | None) -> dict[str, Any]:
    """What decides the ids of given shards, as the manifest has it."""
    return {
        "format": FORMAT,
        "tokenizer": fingerprint,
        "vocab_size": vocab_size,
        "dtype": token_dtype(vocab_size).name,
        "copying": vars(copying) if copying.fraction else None,
        "selection": vars(selection) if selection else None,
    }


def _join(pieces: Sequence[Path], folder: Path, about: Mapping[str, Any]) -> None:
    """Makes the folder; memory holds the offsets, and the names of the sources of all shards."""
    records = [json.loads((piece / "piece.json").read_text(encoding="utf-8")) for piece in pieces]
    sums = {key: sum(record[key] for record in records) for key in SUMS}
    offsets = np.zeros(sums["documents"] + 1, np.int64)
    sources: dict[str, list[int]] = {}
    broken: list[dict[str, str]] = []
    digest = blake2b(digest_size=16)
    with atomic_folder(folder) as aside:
        filled = 1
        with (aside / TOKENS).open("wb") as target:
            for piece, record in zip(pieces, records, strict=True):
                offsets[filled : filled + record["documents"]] = np.load(piece / "lengths.npy")
                filled += record["documents"]
                with (piece / "tokens.bin").open("rb") as file:
                    while block := file.read(COPY_BYTES):
                        target.write(block)
                        digest.update(block)
                broken += record.pop("broken")
                for name, (documents, tokens) in record.pop("sources").items():
                    before = sources.get(name, [0, 0])
                    sources[name] = [before[0] + documents, before[1] + tokens]
        np.save(aside / DOCUMENTS, np.cumsum(offsets, out=offsets))
        manifest = {
            **about,
            **sums,
            "hashes": {TOKENS: digest.hexdigest(), DOCUMENTS: file_hash(aside / DOCUMENTS)},
            "sources": _source_rows(sources),
            "shards": records,
            "broken": broken[:LISTED_BROKEN],
        }
        text = json.dumps(manifest, ensure_ascii=False, indent=1)
        (aside / MANIFEST).write_text(text + "\n", encoding="utf-8")


def _source_rows(sources: Mapping[str, list[int]]) -> list[dict[str, Any]]:
    """The sources by falling number of tokens; a text may have as many sources as documents, so only the first ones."""
    ranked = sorted(sources.items(), key=lambda row: (-row[1][1], row[0]))
    rows = [{"source": name, "documents": each[0], "tokens": each[1]} for name, each in ranked[:LISTED_SOURCES]]
    rest = [each for _, each in ranked[LISTED_SOURCES:]]
    if rest:
        counts = {"documents": sum(each[0] for each in rest), "tokens": sum(each[1] for each in rest)}
        rows.append({"source": f"({len(rest)} others)", **counts})
    return rows


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


def _damaged(folder: Path, what: str) -> UserError:
    return UserError(
        what, where=folder, expected="the files as they were written", todo="copy the folder again or encode it anew"
    )


def _holds_files(folder: Path) -> bool:
    return folder.is_dir() and any(folder.iterdir())
