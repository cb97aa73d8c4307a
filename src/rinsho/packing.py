"""How documents fill rows of fixed length, and draws that depend on a key alone: arrays in, arrays out."""

from __future__ import annotations

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
    rows: list[list[int]] = []
    with_room: list[list[int]] = [[] for _ in range(size + 1)]  # rows by free room
    rooms = 0  # bit r is set when some row has r free
    for piece in np.argsort(-lengths, kind="stable").tolist():
        length = int(lengths[piece])
        fitting = rooms >> length
        if fitting:
            room = length + (fitting & -fitting).bit_length() - 1
            row = with_room[room].pop()
            if not with_room[room]:
                rooms ^= 1 << room
            rows[row].append(piece)
        else:
            room, row = size, len(rows)
            rows.append([piece])
        if room > length:
            with_room[room - length].append(row)
            rooms |= 1 << (room - length)
    first = np.cumsum([0, *(len(row) for row in rows)], dtype=np.int64)
    order = np.array([piece for row in rows for piece in row], np.int64)
    return starts[order], lengths[order], first


def permutation(count: int, key: str) -> Ints:
    """The numbers below `count` in an order drawn from the key."""
    number = int.from_bytes(blake2b(key.encode(), digest_size=16).digest(), "big")
    return np.random.Generator(np.random.Philox(number)).permutation(count).astype(np.int64)


def share(key: str) -> float:
    """A number in [0, 1) that depends on the key alone."""
    return int.from_bytes(blake2b(key.encode(), digest_size=7).digest(), "big") / 2**56
