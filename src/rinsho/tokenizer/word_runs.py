"""Word counts as sorted runs on disk, merged as a stream: memory holds one line of each run.

A run is a text file of the lines `word TAB order TAB kind TAB count`, sorted by their bytes. `order` says where in
the corpus the word was first seen, `kind` which documents the count is of.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from rinsho.files import atomic_file

OPEN_FILES = 64  # runs merged at a time; a system may allow no more than 256 open files

Word = tuple[bytes, int, dict[int, int]]  # the word in UTF-8, its first order, its count for every kind


def write_run(path: Path, rows: Iterable[tuple[str, int, int, int]]) -> None:
    """Sorts rows of (word, order, kind, count) into a run; words hold no tab and no line feed."""
    lines = [f"{word}\t{order}\t{kind}\t{count}\n".encode() for word, order, kind, count in rows]
    lines.sort()
    with atomic_file(path) as file:
        file.writelines(lines)


def merged(runs: Sequence[Path]) -> Iterator[Word]:
    """Every word of the runs once, in the order of its bytes, with the smallest order and the sums of its counts."""
    with ExitStack() as stack:
        files = [stack.enter_context(path.open("rb")) for path in runs]
        word, first, counts = b"", 0, dict[int, int]()
        for line in heapq.merge(*files):
            name, order, kind, count = line.split(b"\t")
            if name != word:
                if counts:
                    yield word, first, counts
                word, first, counts = name, int(order), {int(kind): int(count)}
            else:
                first = min(first, int(order))
                counts[int(kind)] = counts.get(int(kind), 0) + int(count)
        if counts:
            yield word, first, counts


def merge_runs(runs: Sequence[Path], target: Path) -> None:
    """The runs as one, for when there are too many to be open at the same time."""
    with atomic_file(target) as file:
        for word, order, counts in merged(runs):
            for kind, count in sorted(counts.items()):
                file.write(b"%b\t%d\t%d\t%d\n" % (word, order, kind, count))
