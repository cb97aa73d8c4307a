"""Token files, and rows packed from them: documents side by side, each with positions of its own.

A token folder holds `tokens.bin` (uint16 or uint32, all documents one after another), `documents.npy` (int64 offsets,
one more than documents) and `manifest.json`. A row is `sequence_length` inputs; documents in it are told apart by
positions that restart at 0 (see `rinsho.modeling.next_token_loss`). The order of rows depends on the seed alone, so the
position of the loader is one integer: the number of rows consumed.

Labels are shifted already: the label at t follows input t. So a document of n tokens takes n-1 inputs, every token but
its first is predicted exactly once, also across a cut, and nothing is predicted across a document's end.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from rinsho.document import Broken, Document, read_documents
from rinsho.errors import UserError
from rinsho.files import atomic_folder
from rinsho.packing import Ints, best_fit, cut, permutation, share

IGNORED = -100  # label of a place that is not trained on, as in torch and transformers
BATCH_DOCUMENTS = 256  # documents handed to the tokenizer at a time

# Copying warm-up (docs/pretrain.md): in our first probe entity extraction was learned only by models
# that could copy. After a share of the documents stand COPIES times: line break, this word, a verbatim span.
COPY_MARKER = "再掲"
COPIES = 3
COPY_TOKENS = (4, 16)  # length of a span


class TextTokenizer(Protocol):
    """What is needed of a tokenizer; `rinsho.tokenization.RinshoTokenizer` has it."""

    bos_token_id: int
    eos_token_id: int
    newline_id: int

    def encode_text(self, text: str) -> list[int]:
        """The ids of an ordinary text, without begin and end marks."""
        ...

    def encode_batch_text(self, texts: list[str]) -> list[list[int]]:
        """`encode_text` of every text."""
        ...

    def __len__(self) -> int: ...


class Batch(NamedTuple):
    """Rows to train on; all arrays (rows, sequence_length) int64."""

    input_ids: Ints
    position_ids: Ints
    shift_labels: Ints

    @property
    def targets(self) -> int:
        """Number of labels that count."""
        return int((self.shift_labels != IGNORED).sum())

    def part(self, start: int, stop: int) -> Batch:
        """Some of the rows."""
        return Batch(*(array[start:stop] for array in self))


class RowSource(Protocol):
    """Anything that gives numbered rows: `Rows` from a token file, `Examples` from memory."""

    def __len__(self) -> int: ...
    def batch(self, numbers: Sequence[int] | Ints) -> Batch:
        """The rows of these numbers."""
        ...


@dataclass(frozen=True)
class TokenFile:
    """An opened token folder."""

    tokens: NDArray[Any]  # memory-mapped, (tokens,)
    offsets: Ints  # (documents + 1,)
    manifest: dict[str, Any]


@dataclass(frozen=True)
class Selection:
    """Which documents of the shards are taken: those whose id falls into, or outside, a share of all ids."""

    fraction: float
    inside: bool
    seed: int

    def __call__(self, document: Document) -> bool:
        """Whether the document is taken."""
        return (share(f"{self.seed}:validation:{document.id}") < self.fraction) == self.inside


def write_tokens(
    shards: Sequence[Path],
    tokenizer: TextTokenizer,
    folder: Path,
    *,
    scratch: Path,
    tokenizer_hash: str = "",
    seed: int = 1,
    copy_fraction: float = 0.0,
    copy_window: int = 256,
    selection: Selection | None = None,
    on_documents: Callable[[int], object] | None = None,
) -> TokenFile:
    """The token folder of the shards: begin mark, text and end mark of every document, in the order of the shards.

    Each shard is encoded into `scratch` first and skipped when it is already there, so an interrupted run continues.
    `copy_fraction` of the documents (chosen by seed and id) are followed by copies of spans of themselves; the spans
    come from the last `copy_window` tokens, so that they share a row with their copy. `on_documents` is called with
    the number of documents just encoded.
    """
    if (folder / "manifest.json").exists():
        return open_tokens(folder)
    dtype = np.uint16 if len(tokenizer) <= 1 << 16 else np.uint32
    pieces = []
    for number, shard in enumerate(shards):
        piece = scratch / f"{number:05d}"
        if not piece.exists():
            copies = _Copies(tokenizer, seed, copy_fraction, copy_window)
            _write_piece(piece, shard, tokenizer, dtype, copies, selection, on_documents)
        pieces.append(piece)
    about = {"tokenizer": tokenizer_hash, "vocab_size": len(tokenizer), "copy_fraction": copy_fraction}
    _join(pieces, folder, dtype, about)
    return open_tokens(folder)


def open_tokens(folder: Path) -> TokenFile:
    """An existing token folder, memory-mapped."""
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    offsets = np.load(folder / "documents.npy")
    dtype = np.dtype(manifest["dtype"])
    empty = (folder / "tokens.bin").stat().st_size == 0
    tokens = np.empty(0, dtype) if empty else np.memmap(folder / "tokens.bin", dtype=dtype, mode="r")
    return TokenFile(tokens, offsets, manifest)


@dataclass(frozen=True)
class Rows:
    """Rows of fixed length over a token file: row r is made of pieces first[r] to first[r+1].

    Attributes:
        starts: (pieces,) place in the token file of a piece's first input.
        lengths: (pieces,) inputs.
        bounded: documents do not see each other.
    """

    tokens: NDArray[Any]
    starts: Ints
    lengths: Ints
    first: Ints
    sequence_length: int
    bounded: bool
    pad_id: int

    def __len__(self) -> int:
        return len(self.first) - 1

    @cached_property
    def inputs(self) -> int:
        """Inputs in all rows, padding not counted."""
        return int(self.lengths.sum())

    def batch(self, numbers: Sequence[int] | Ints) -> Batch:
        """The rows of these numbers."""
        batch = _blank(len(numbers), self.sequence_length, self.pad_id)
        for place, number in enumerate(numbers):
            self._fill(int(number), *(array[place] for array in batch))
        return batch

    def _fill(self, number: int, ids: Ints, positions: Ints, labels: Ints) -> None:
        at = 0
        for piece in range(self.first[number], self.first[number + 1]):
            start, length = self.starts[piece], self.lengths[piece]
            text = self.tokens[start : start + length + 1]
            ids[at : at + length] = text[:length]
            if self.bounded:
                labels[at : at + length] = text[1:]
                positions[at : at + length] = np.arange(length)
            at += length
        if self.bounded:
            positions[at:] = np.arange(self.sequence_length - at)
        else:
            after = self.tokens[self.starts[self.first[number + 1]]]
            positions[:] = np.arange(self.sequence_length)
            labels[:-1], labels[-1] = ids[1:], after


def pack(
    source: TokenFile,
    sequence_length: int,
    *,
    how: Literal["cut", "best_fit"] = "best_fit",
    document_bounds: bool = True,
    seed: int = 1,
    pad_id: int = 0,
) -> Rows:
    """Rows over all documents of a token file.

    `cut` joins the documents in an order drawn from the seed and cuts every `sequence_length` tokens (the report);
    `best_fit` cuts only documents longer than a row and puts each piece into the fullest row that still has room
    (best-fit decreasing, arXiv 2404.10830). Without `document_bounds` (only with `cut`) the rows are one stream:
    positions run through and a document's end predicts the next one's start, as in the report.

    Source: N2.4-1.
    """
    if how == "best_fit" and not document_bounds:
        raise UserError(
            "pack best_fit needs document_bounds",
            expected="pack: cut when documents shall see each other",
            todo="change one of the two",
        )
    order = permutation(len(source.offsets) - 1, f"{seed}:documents")
    starts = source.offsets[:-1][order]
    lengths = np.diff(source.offsets)[order] - (1 if document_bounds else 0)
    starts, lengths = starts[lengths > 0], lengths[lengths > 0]
    if how == "cut":
        starts, lengths, first = cut(starts, lengths, sequence_length)
        if not document_bounds:  # the last, unfilled row has no next token: it is left out
            first = first[:-1]
    else:
        starts, lengths, first = best_fit(starts, lengths, sequence_length)
    return Rows(source.tokens, starts, lengths, first, sequence_length, document_bounds, pad_id)


@dataclass(frozen=True)
class Examples:
    """Packed conversations in memory, and how many of them were longer than a row (their end was kept)."""

    rows: Batch
    cut: int

    def __len__(self) -> int:
        return len(self.rows.input_ids)

    def batch(self, numbers: Sequence[int] | Ints) -> Batch:
        """The rows of these numbers."""
        return Batch(*(array[np.asarray(numbers)] for array in self.rows))


def pack_examples(
    examples: Sequence[tuple[Sequence[int], Sequence[int]]], sequence_length: int, *, pad_id: int
) -> Examples:
    """Conversations packed by best fit into rows; only tokens whose loss mask is 1 become labels.

    Each example is (ids, loss mask), as `rinsho.chat.render` gives them. `pad_id` fills the rows; padding is never
    seen by a conversation and never a label.
    """
    kept = [(list(ids)[-sequence_length - 1 :], list(mask)[-sequence_length - 1 :]) for ids, mask in examples]
    kept = [(ids, mask) for ids, mask in kept if len(ids) > 1]
    too_long = sum(len(ids) > sequence_length + 1 for ids, _ in examples)
    lengths = np.array([len(ids) - 1 for ids, _ in kept], np.int64)
    members, _, first = best_fit(np.arange(len(kept), dtype=np.int64), lengths, sequence_length)
    batch = _blank(len(first) - 1, sequence_length, pad_id)
    for row in range(len(first) - 1):
        at = 0
        for member in members[first[row] : first[row + 1]]:
            ids, mask = kept[member]
            place = slice(at, at + len(ids) - 1)
            batch.input_ids[row, place] = ids[:-1]
            batch.shift_labels[row, place] = np.where(np.array(mask[1:]) == 1, ids[1:], IGNORED)
            batch.position_ids[row, place] = np.arange(len(ids) - 1)
            at += len(ids) - 1
        batch.position_ids[row, at:] = np.arange(sequence_length - at)
    return Examples(batch, too_long)


class RowOrder:
    """Which rows come next: every epoch is a permutation drawn from the seed and the epoch's number."""

    def __init__(self, rows: int, seed: int) -> None:
        self.rows, self.seed = rows, seed
        self._epoch, self._order = -1, np.empty(0, np.int64)

    def take(self, position: int, count: int) -> Ints:
        """The numbers of the `count` rows after `position` consumed ones; runs on into further epochs."""
        found = np.empty(count, np.int64)
        filled = 0
        while filled < count:
            epoch, at = divmod(position + filled, self.rows)
            if epoch != self._epoch:
                self._epoch, self._order = epoch, permutation(self.rows, f"{self.seed}:rows:{epoch}")
            some = self._order[at : at + count - filled]
            found[filled : filled + len(some)] = some
            filled += len(some)
        return found


class _Copies:
    """Appends copied spans to a share of the documents. See COPY_MARKER."""

    def __init__(self, tokenizer: TextTokenizer, seed: int, fraction: float, window: int) -> None:
        self.seed, self.fraction, self.window = seed, fraction, window
        self.lead = [tokenizer.newline_id, *tokenizer.encode_text(COPY_MARKER)] if fraction > 0 else []

    def __call__(self, document_id: str, ids: list[int]) -> list[int]:
        key = f"{self.seed}:copy:{document_id}"
        if not self.lead or len(ids) <= COPY_TOKENS[1] or share(key) >= self.fraction:
            return ids
        draw = random.Random(key)
        result = list(ids)
        for _ in range(COPIES):
            length = draw.randint(*COPY_TOKENS)
            start = draw.randint(max(0, len(ids) - self.window), len(ids) - length)
            result += [*self.lead, *ids[start : start + length]]
        return result


def _write_piece(  # noqa: PLR0917
    piece: Path,
    shard: Path,
    tokenizer: TextTokenizer,
    dtype: type[np.unsignedinteger[Any]],
    copies: _Copies,
    selection: Selection | None,
    on_documents: Callable[[int], object] | None,
) -> None:
    broken: list[Broken] = []
    lengths: list[int] = []
    characters = 0
    documents: Iterable[Document] = read_documents(shard, on_broken=broken.append)
    if selection is not None:
        documents = filter(selection, documents)
    with atomic_folder(piece) as aside:
        with (aside / "tokens.bin").open("wb") as file:
            for batch in _batched(documents, BATCH_DOCUMENTS):
                encoded = tokenizer.encode_batch_text([document.text for document in batch])
                for document, ids in zip(batch, encoded, strict=True):
                    whole = [tokenizer.bos_token_id, *copies(document.id, ids), tokenizer.eos_token_id]
                    file.write(np.asarray(whole, dtype).tobytes())
                    lengths.append(len(whole))
                    characters += len(document.text)
                if on_documents is not None:
                    on_documents(len(batch))
        np.save(aside / "lengths.npy", np.asarray(lengths, np.int64))
        rows = [{"where": f"{shard.name}:{row.where.rpartition(':')[2]}", "reason": row.reason} for row in broken]
        record = {"shard": shard.name, "documents": len(lengths), "characters": characters, "broken": rows}
        (aside / "piece.json").write_text(json.dumps(record, ensure_ascii=False), encoding="utf-8")


def _join(pieces: Sequence[Path], folder: Path, dtype: type[np.unsignedinteger[Any]], about: dict[str, Any]) -> None:
    records = [json.loads((piece / "piece.json").read_text(encoding="utf-8")) for piece in pieces]
    lengths = [np.load(piece / "lengths.npy") for piece in pieces]
    offsets = np.concatenate([np.zeros(1, np.int64), *lengths]).cumsum()
    with atomic_folder(folder) as aside:
        with (aside / "tokens.bin").open("wb") as target:
            for piece in pieces:
                with (piece / "tokens.bin").open("rb") as file:
                    while block := file.read(1 << 22):
                        target.write(block)
        np.save(aside / "documents.npy", offsets)
        broken = [row for record in records for row in record.pop("broken")]
        manifest = {
            **about,
            "dtype": np.dtype(dtype).name,
            "documents": len(offsets) - 1,
            "tokens": int(offsets[-1]),
            "characters": sum(record["characters"] for record in records),
            "shards": records,
            "broken": broken,
        }
        text = json.dumps(manifest, ensure_ascii=False, indent=1)
        (aside / "manifest.json").write_text(text + "\n", encoding="utf-8")


def _blank(rows: int, size: int, pad_id: int) -> Batch:
    ids = np.full((rows, size), pad_id, np.int64)
    return Batch(ids, np.zeros((rows, size), np.int64), np.full((rows, size), IGNORED, np.int64))


def _batched(items: Iterable[Document], size: int) -> Iterator[list[Document]]:
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
