"""Corpora to token folders: shards encoded into pieces, pieces joined; the form is that of `rinsho.token_files`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import Any, cast

import numpy as np
import orjson

from rinsho.document import printable_name, shard_paths, training_folder
from rinsho.errors import UserError
from rinsho.files import atomic_folder, file_hash
from rinsho.learned_from import added
from rinsho.token_files import (
    DOCUMENTS,
    FILES,
    FORMAT,
    IDS,
    MANIFEST,
    SOURCE_OF,
    SOURCES,
    SUMS,
    TOKENS,
    TRAIN,
    VALIDATION,
    Parts,
    TokenFile,
    open_tokens,
)
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

LISTED_BROKEN = 1000
COPY_BYTES = 4 << 20


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
    shards = [each for corpus in corpora for each in _shards(training_folder(corpus), corpus)]
    shards = [(path, name) for path, name in shards if not any(aside in path.parents for aside in own)]

    def part(name: str, shards: Sequence[tuple[Path, str]], copies: Copying) -> TokenFile:
        return write_tokens(
            [path for path, _ in shards],
            tokenizer,
            folder / name,
            corpora=[corpus for _, corpus in shards],
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
    held_out = [each for folder in own for each in _shards(folder, folder.parent)] if own else shards
    return Parts(training, part(VALIDATION, held_out, NO_COPIES))


def write_tokens(
    shards: Sequence[Path],
    tokenizer: TextTokenizer | Path,
    folder: Path,
    *,
    scratch: Path,
    corpora: Sequence[str] | None = None,
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
    `corpora` names the corpus of every shard. `label` begins the progress line, `tally` is told what this run itself
    encoded.

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
        _join(pieces, corpora or [""] * len(pieces), folder, about)
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


def _shards(folder: Path, corpus: Path) -> list[tuple[Path, str]]:
    """The shards of a corpus below a folder, each with the name of the corpus."""
    return [(path, printable_name(corpus.absolute().name)) for path in shard_paths([folder])]


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


def _join(pieces: Sequence[Path], corpora: Sequence[str], folder: Path, about: Mapping[str, Any]) -> None:
    """Makes the folder; memory holds the offsets and sources of all documents, and the names of all sources."""
    records = [json.loads((piece / "piece.json").read_text(encoding="utf-8")) for piece in pieces]
    sums = {key: sum(record[key] for record in records) for key in SUMS}
    offsets = np.zeros(sums["documents"] + 1, np.int64)
    source_of = np.empty(sums["documents"], np.int32)
    sources: dict[tuple[str, str], list[Any]] = {}
    broken: list[dict[str, str]] = []
    filled = 0
    with atomic_folder(folder) as aside:
        for piece, corpus, record in zip(pieces, corpora, records, strict=True):
            here = slice(filled, filled + record["documents"])
            offsets[1:][here] = np.load(piece / "lengths.npy")
            source_of[here] = _merge(sources, corpus, record.pop("sources"))[np.load(piece / "sources.npy")]
            filled = here.stop
            broken += record.pop("broken")
        np.save(aside / DOCUMENTS, np.cumsum(offsets, out=offsets))
        np.save(aside / SOURCE_OF, source_of)
        (aside / SOURCES).write_bytes(_source_lines(sources))
        hashes = {name: _concatenate([piece / name for piece in pieces], aside / name) for name in (TOKENS, IDS)}
        hashes |= {name: file_hash(aside / name) for name in (DOCUMENTS, SOURCE_OF, SOURCES)}
        files = {name: {"bytes": (aside / name).stat().st_size, "hash": hashes[name]} for name in FILES}
        manifest = {**about, **sums, "files": files, "shards": records, "broken": broken[:LISTED_BROKEN]}
        text = json.dumps(manifest, ensure_ascii=False, indent=1)
        (aside / MANIFEST).write_text(text + "\n", encoding="utf-8")


def _merge(sources: dict[tuple[str, str], list[Any]], corpus: str, rows: Sequence[Sequence[Any]]) -> Any:
    """Adds a piece's sources to those of all and returns the place of each among them, (rows,) int32."""
    places = np.empty(len(rows), np.int32)
    for row, (name, documents, tokens, characters, *told) in enumerate(rows):
        known = sources.setdefault((corpus, name), [len(sources), 0, 0, 0, {}, {}, 0])
        known[1:4] = known[1] + documents, known[2] + tokens, known[3] + characters
        # a piece of an earlier version, which an interrupted run left, tells no licence, or not what models wrote
        earlier: tuple[Any, ...] = ({"": documents}, None, 0)
        licenses, synthetic, synthetic_tokens = *told, *earlier[len(told) :]
        known[4] = added([known[4], licenses])
        known[5] = None if known[5] is None or synthetic is None else added([known[5], synthetic])
        known[6] += synthetic_tokens
        places[row] = known[0]
    return places


def _source_lines(sources: Mapping[tuple[str, str], Sequence[Any]]) -> bytes:
    keys = ("corpus", "source", "documents", "tokens", "characters", "licenses", "synthetic", "synthetic_tokens")
    lines = [
        orjson.dumps(dict(zip(keys, (corpus, name, *counts), strict=True)))
        for (corpus, name), (_, *counts) in sources.items()
    ]
    return b"[\n" + b",\n".join(lines) + b"\n]\n"


def _concatenate(parts: Sequence[Path], path: Path) -> str:
    """Writes the files one after another and returns the hash of the whole, as `file_hash` gives it."""
    digest = blake2b(digest_size=16)
    with path.open("wb") as target:
        for part in parts:
            with part.open("rb") as file:
                while block := file.read(COPY_BYTES):
                    target.write(block)
                    digest.update(block)
    return digest.hexdigest()


def _holds_files(folder: Path) -> bool:
    return folder.is_dir() and any(folder.iterdir())
