"""Rows packed from token files or conversations: documents side by side, each with positions of its own.

A row is `sequence_length` inputs; documents in it are told apart by positions that restart at 0 (see
`rinsho.modeling.next_token_loss`). The order of rows depends on the seed alone, so the position of the loader is one
integer: the number of rows consumed. The token files themselves are those of `rinsho.token_files`.

Labels are shifted already: the label at t follows input t. So a document of n tokens takes n-1 inputs, every token but
its first is predicted exactly once, also across a cut, and nothing is predicted across a document's end.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple, Protocol

import numpy as np

from rinsho.errors import UserError
from rinsho.packing import Ints, best_fit, cut, fair_counts, permutation
from rinsho.token_files import TokenFile

BLOCK_ROWS = 256  # of a mixture; a step of the report has 512
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
    """Rows of fixed length over a token file: row r is made of pieces first[r] to stop[r].

    Attributes:
        source: the token file.
        starts: (pieces,) place in the token file of a piece's first input.
        lengths: (pieces,) inputs.
        first: (rows,) the first piece of a row.
        stop: (rows,) the piece after its last one.
        groups: (groups + 1,) rows at which each group of documents that was packed apart begins, and the end.
        bounded: documents do not see each other.
    """

    source: TokenFile
    starts: Ints
    lengths: Ints
    first: Ints
    stop: Ints
    groups: Ints
    sequence_length: int
    bounded: bool
    pad_id: int

    def __len__(self) -> int:
        return len(self.first)

    @cached_property
    def filled(self) -> Ints:
        """(rows,) inputs of every row, padding not counted."""
        ends = np.concatenate([np.zeros(1, np.int64), self.lengths.cumsum()])
        inputs: Ints = ends[self.stop] - ends[self.first]
        return inputs

    @property
    def inputs(self) -> int:
        """Inputs in all rows, padding not counted."""
        return int(self.filled.sum())

    def batch(self, numbers: Sequence[int] | Ints) -> Batch:
        """The rows of these numbers."""
        rows, size = np.asarray(numbers, np.int64), self.sequence_length
        tokens, ramp = self.source.tokens, np.arange(size)
        pad = np.full(size, self.pad_id, tokens[0:0].dtype)
        ids, labels, positions = [pad[:0]], [pad[:0]], [ramp[:0]]
        for row in rows.tolist():
            room = size
            pieces = slice(self.first[row], self.stop[row])
            for start, length in zip(self.starts[pieces].tolist(), self.lengths[pieces].tolist(), strict=True):
                text = tokens[start : start + length + self.bounded]
                ids.append(text[:length])
                labels.append(text[1:])
                positions.append(ramp[:length])
                room -= length
            for padded, filler in ((ids, pad), (labels, pad), (positions, ramp)):
                padded.append(filler[:room])
        shape = len(rows), size
        input_ids = np.concatenate(ids, dtype=np.int64).reshape(shape)
        if not self.bounded:  # one stream: the row after begins with the last label
            after = [int(tokens[start]) for start in self.starts[self.stop[rows]].tolist()]
            stream = np.concatenate([input_ids, np.array(after, np.int64)[:, None]], axis=1)
            return Batch(input_ids, np.broadcast_to(ramp, shape).copy(), stream[:, 1:].copy())
        shift_labels = np.concatenate(labels, dtype=np.int64).reshape(shape)
        for place in np.flatnonzero(self.filled[rows] < size):
            shift_labels[place, self.filled[rows[place]] :] = IGNORED
        return Batch(input_ids, np.concatenate(positions).reshape(shape), shift_labels)

    def documents_of(self, numbers: Sequence[int] | Ints) -> Ints:
        """The numbers of the documents in these rows, each once, rising; their ids: `source.ids`."""
        rows = np.asarray(numbers, np.int64)
        pieces = [np.arange(self.first[row], self.stop[row]) for row in rows]
        starts = self.starts[np.concatenate([np.empty(0, np.int64), *pieces])]
        return np.unique(np.searchsorted(self.source.offsets, starts, side="right") - 1)

    def ids(self, numbers: Iterable[int]) -> list[str]:
        """The ids of documents; see `TokenFile.ids`."""
        return self.source.ids(numbers)


def pack(
    source: TokenFile,
    sequence_length: int,
    *,
    how: Literal["cut", "best_fit"] = "best_fit",
    document_bounds: bool = True,
    seed: int = 1,
    pad_id: int = 0,
    group_of: Ints | None = None,
    groups: int = 1,
) -> Rows:
    """Rows over all documents of a token file.

    `cut` joins the documents in an order drawn from the seed and cuts every `sequence_length` tokens (the report);
    `best_fit` cuts only documents longer than a row and puts each piece into the fullest row that still has room
    (best-fit decreasing, arXiv 2404.10830). Without `document_bounds` (only with `cut`) the rows are one stream:
    positions run through and a document's end predicts the next one's start, as in the report.

    With `group_of`, (documents,), the documents of each group 0 to `groups` - 1 are packed apart, as if each were a
    text by itself; documents with a negative number are left out. `Rows.groups` tells where each group's rows lie.

    Source: N2.4-1.
    """
    if how == "best_fit" and not document_bounds:
        raise UserError(
            "pack best_fit needs document_bounds",
            expected="pack: cut when documents shall see each other",
            todo="change one of the two",
        )
    order = permutation(len(source.offsets) - 1, f"{seed}:documents")
    lengths = np.diff(source.offsets) - (1 if document_bounds else 0)
    order = order[lengths[order] > 0]
    fill = cut if how == "cut" else best_fit
    parts, pieces = [], 0
    for group in range(groups):
        mine = order if group_of is None else order[group_of[order] == group]
        starts, inputs, borders = fill(source.offsets[mine], lengths[mine], sequence_length)
        # In one stream the last, unfilled row has no next token: it is left out, its piece stays as what comes next.
        borders = (borders if document_bounds else borders[:-1]) + pieces
        parts.append((starts, inputs, borders[:-1], borders[1:]))
        pieces += len(starts)
    starts, inputs, first, stop = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    sizes = np.cumsum([0, *(len(part[2]) for part in parts)], dtype=np.int64)
    return Rows(source, starts, inputs, first, stop, sizes, sequence_length, document_bounds, pad_id)


@dataclass(frozen=True)
class Examples:
    """Packed conversations in memory, and how many of them were longer than a row (their end was kept)."""

    rows: Batch
    cut: int


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


def pad_examples(examples: Sequence[tuple[Sequence[int], Sequence[int]]], *, pad_id: int) -> Batch:
    """Conversations one a row, filled up on the right, where nothing that counts sees it; labels as `pack_examples`."""
    batch = _blank(len(examples), max(len(ids) for ids, _ in examples) - 1, pad_id)
    for row, (ids, mask) in enumerate(examples):
        batch.input_ids[row, : len(ids) - 1] = ids[:-1]
        batch.shift_labels[row, : len(ids) - 1] = np.where(np.array(mask[1:]) == 1, ids[1:], IGNORED)
    batch.position_ids[:] = np.arange(batch.position_ids.shape[1])
    return batch


class RowOrder:
    """Which rows come next: every pass is a permutation drawn from the seed and the pass's number."""

    def __init__(self, rows: int, seed: int | str) -> None:
        self.rows_per_pass, self.seed = rows, seed
        self._pass, self._order = -1, np.empty(0, np.int64)

    def take(self, position: int, count: int) -> Ints:
        """The numbers of the `count` rows after `position` consumed ones; runs on into further passes."""
        found = np.empty(count, np.int64)
        filled = 0
        while filled < count:
            number, at = divmod(position + filled, self.rows_per_pass)
            if number != self._pass:
                self._pass, self._order = number, permutation(self.rows_per_pass, f"{self.seed}:rows:{number}")
            some = self._order[at : at + count - filled]
            found[filled : filled + len(some)] = some
            filled += len(some)
        return found


class MixedOrder:
    """Which rows come next when groups of rows are mixed: `draws` says how many of each group one pass has.

    At the end of every block of BLOCK_ROWS rows each group has had its share to within one row; inside the block
    the groups are shuffled. Every row of a group is seen once before any is seen twice. It depends on `groups`
    (`Rows.groups`), `draws` and the seed alone.
    """

    def __init__(self, groups: Ints, draws: Sequence[int], seed: int) -> None:
        self.rows_per_pass, self.seed, self.draws = sum(draws), seed, list(draws)
        self._begins = groups[:-1].tolist()
        self._orders = [RowOrder(rows, f"{seed}:{group}") for group, rows in enumerate(np.diff(groups).tolist())]
        self._drawn = fair_counts(draws, BLOCK_ROWS)

    def take(self, position: int, count: int) -> Ints:
        """The numbers of the `count` rows after `position` consumed ones; runs on into further passes."""
        found = [np.empty(0, np.int64)]
        while count:
            number, at = divmod(position, self.rows_per_pass)
            block, inside = divmod(at, BLOCK_ROWS)
            found.append(self._block(number, block)[inside : inside + count])
            position, count = position + len(found[-1]), count - len(found[-1])
        return np.concatenate(found)

    def _block(self, number: int, block: int) -> Ints:
        """The rows of a block in the pass of this number: the groups in shuffled places, each in its own order."""
        before, after = self._drawn[block : block + 2].tolist()
        rows = [
            begin + order.take(number * draws + start, stop - start)
            for begin, order, draws, start, stop in zip(
                self._begins, self._orders, self.draws, before, after, strict=True
            )
        ]
        groups = np.repeat(np.arange(len(rows)), list(map(len, rows)))
        groups = groups[permutation(len(groups), f"{self.seed}:mixed:{number}:{block}")]
        found = np.empty(len(groups), np.int64)
        found[np.argsort(groups, kind="stable")] = np.concatenate(rows)
        return found


def _blank(rows: int, size: int, pad_id: int) -> Batch:
    ids = np.full((rows, size), pad_id, np.int64)
    return Batch(ids, np.zeros((rows, size), np.int64), np.full((rows, size), IGNORED, np.int64))
