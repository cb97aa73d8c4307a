"""How documents fill rows of fixed length, and draws that depend on a key alone: arrays in, arrays out."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from rinsho.errors import UserError

Ints = NDArray[np.int64]


def whole_rows(batch_tokens: int, sequence_length: int, where: str) -> list[UserError]:
    """The problem of a batch that is no whole number of rows, if there is one; `where` names the recipe key."""
    if batch_tokens % sequence_length == 0:
        return []
    return [
        UserError(
            f"batch_tokens {batch_tokens} is no multiple of sequence_length {sequence_length}",
            where=where,
            expected="whole rows",
            todo=f"take {max(1, batch_tokens // sequence_length) * sequence_length}",
        )
    ]


def cut(starts: Ints, lengths: Ints, size: int) -> tuple[Ints, Ints, Ints]:
    """Documents (place, length) as one stream cut every `size`: pieces' places, lengths, and where each row begins."""
    ends = lengths.cumsum()
    total = int(ends[-1]) if len(ends) else 0
    borders = np.union1d(ends, np.arange(0, total, size, dtype=np.int64))  # sorted; every piece begins at one
    begins = borders[borders < total]
    owner = np.searchsorted(ends, begins, side="right")
    pieces = starts[owner] + begins - (ends - lengths)[owner]
    rows = np.append(np.searchsorted(begins, np.arange(0, total, size, dtype=np.int64)), len(begins))
    return pieces, np.diff(np.append(begins, total)), rows.astype(np.int64)


def best_fit(starts: Ints, lengths: Ints, size: int) -> tuple[Ints, Ints, Ints]:
    """Documents cut to at most `size` and put into the fullest row with room; the same three arrays."""
    counts = -(-lengths // size)
    owner = np.repeat(np.arange(len(lengths)), counts)
    part = np.arange(len(owner)) - np.repeat(counts.cumsum() - counts, counts)
    starts, lengths = starts[owner] + part * size, np.minimum(size, lengths[owner] - part * size)
    order = np.argsort(-lengths, kind="stable")
    starts, lengths = starts[order], lengths[order]
    row_of, rows = array("q"), 0
    with_room: list[list[int]] = [[] for _ in range(size + 1)]  # rows by free room
    rooms = 0  # bit r is set when some row has r free
    for begin in range(0, len(lengths), 1 << 16):  # as Python numbers not all at once
        for length in lengths[begin : begin + (1 << 16)].tolist():
            fitting = rooms >> length
            if fitting:
                room = length + (fitting & -fitting).bit_length() - 1
                row = with_room[room].pop()
                if not with_room[room]:
                    rooms ^= 1 << room
            else:
                room, row, rows = size, rows, rows + 1
            row_of.append(row)
            if room > length:
                with_room[room - length].append(row)
                rooms |= 1 << (room - length)
    placed = np.frombuffer(row_of, np.int64) if rows else np.empty(0, np.int64)
    order = np.argsort(placed, kind="stable")
    first = np.cumsum(np.append(0, np.bincount(placed, minlength=rows)), dtype=np.int64)
    return starts[order], lengths[order], first


def permutation(count: int, key: str) -> Ints:
    """The numbers below `count` in an order drawn from the key."""
    number = int.from_bytes(blake2b(key.encode(), digest_size=16).digest(), "big")
    return np.random.Generator(np.random.Philox(number)).permutation(count).astype(np.int64)


def fair_counts(counts: Sequence[int], block: int) -> Ints:
    """How many of each kind come before every `block` places of a mixed order, (blocks + 1, kinds).

    An entry differs from its fair share, places · count / total, by less than one, rows sum to the places, and columns
    never fall. Whoever comes due first is taken first, which always works out.

    Source: Baruah, Cohen, Plaxton and Varvel 1996, Proportionate Progress (one processor).
    """
    total = sum(counts)
    found = [[0] * len(counts)]
    for places in (*range(block, total, block), total):
        now = [max(before, places * count // total) for before, count in zip(found[-1], counts, strict=True)]
        begun = [kind for kind, count in enumerate(counts) if now[kind] * total < places * count]
        begun.sort(key=lambda kind: (-(-(now[kind] + 1) * total // counts[kind]), kind))
        for kind in begun[: places - sum(now)]:
            now[kind] += 1
        found.append(now)
    return np.array(found, np.int64)


def share(key: str) -> float:
    """A number in [0, 1) that depends on the key alone."""
    return number_of(key) / 2**56


def number_of(key: str) -> int:
    """A number below 2**56 that depends on the key alone: a seed for what is drawn by it."""
    return int.from_bytes(blake2b(key.encode(), digest_size=7).digest(), "big")
