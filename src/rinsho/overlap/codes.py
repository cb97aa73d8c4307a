"""The UTF-16 code units of texts, and hashes of runs of them: fixed functions, the same on every machine."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

SPACE, LINE_FEED = 0x20, 0x0A
BASE64 = 0x9E3779B97F4A7C15  # an odd multiplier without structure
MIN_BITS = 17  # tables of powers have at least 2**17 entries: texts of like lengths share one


@lru_cache(maxsize=1)
def codes(text: str) -> np.ndarray:
    """The UTF-16 code units of the text, uint16, read-only; a character beyond the basic plane is two of them.

    >>> codes("咳。").tolist()
    [21683, 12290]
    """
    return np.frombuffer(text.encode("utf-16-le", "surrogatepass"), dtype=np.uint16)


def compact(text: str) -> np.ndarray:
    r"""The code units of a clean text without its white space (`rinsho.text.clean` leaves spaces and line feeds).

    >>> compact("咳 。\n").tolist()
    [21683, 12290]
    """
    units: np.ndarray = codes(text)
    units = units[(units != SPACE) & (units != LINE_FEED)]
    return units


def window_hashes(units: np.ndarray, size: int) -> np.ndarray:
    """The polynomial hash, uint64, of every run of `size` units.

    >>> len(window_hashes(codes("発熱と咳嗽あり"), 3))
    5
    """
    count = max(len(units) - size + 1, 0)
    factors, inverses = powers(len(units))
    sums = np.zeros(len(units) + 1, np.uint64)
    np.cumsum(units * factors[: len(units)], out=sums[1:])
    return mix64((sums[size : size + count] - sums[:count]) * inverses[:count])


def powers(count: int) -> tuple[np.ndarray, np.ndarray]:
    """At least `count` powers, uint64, of the base of the hashes, and of its inverse, modulo 2**64."""
    return _powers(max(MIN_BITS, (count - 1).bit_length()))


def mix64(values: np.ndarray) -> np.ndarray:
    """The uint64 values with every bit of the input in every bit of the output (splitmix64), one to one."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: np.ndarray = values ^ (values >> np.uint64(31))
    return mixed


@lru_cache(maxsize=4)
def constants(count: int) -> np.ndarray:
    """`count` fixed random uint64 (the sequence of splitmix64)."""
    return mix64(np.arange(1, count + 1, dtype=np.uint64) * np.uint64(BASE64))


@lru_cache(maxsize=4)
def _powers(bits: int) -> tuple[np.ndarray, np.ndarray]:
    tables, count = [], 1 << bits
    for base in (BASE64, pow(BASE64, -1, 1 << 64)):
        factors = np.full(count, base, np.uint64)
        factors[0] = 1
        tables.append(np.multiply.accumulate(factors))
    return tables[0], tables[1]
