"""Rows packed from token files or conversations: documents side by side, each with positions of its own.

A row is `sequence_length` inputs; documents in it are told apart by positions that restart at 0 (see
`rinsho.modeling.next_token_loss`). The order of rows depends on the seed alone, so the position of the loader is one
integer: the number of rows consumed. The token files themselves are those of `rinsho.token_files`.

Labels are shifted already: the label at t follows input t. So a document of n tokens takes n-1 inputs, every token but
its first is predicted exactly once, also across a cut, and nothing is predicted across a document's end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple, Protocol

import numpy as np

from rinsho.errors import UserError
from rinsho.packing import Ints, best_fit, cut, permutation
from rinsho.token_files import TokenArray, TokenFile

IGNORED = -100  # label of a place that is not trained on, as in torch and transformers


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
class Rows:
    """Rows of fixed length over a token file: row r is made of pieces first[r] to first[r+1].

    Attributes:
        starts: (pieces,) place in the token file of a piece's first input.
        lengths: (pieces,) inputs.
        bounded: documents do not see each other.
    """

    tokens: TokenArray
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


def _blank(rows: int, size: int, pad_id: int) -> Batch:
    ids = np.full((rows, size), pad_id, np.int64)
    return Batch(ids, np.zeros((rows, size), np.int64), np.full((rows, size), IGNORED, np.int64))
