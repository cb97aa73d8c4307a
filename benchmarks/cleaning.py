"""How fast text is cleaned: our scan, the same rules one by one, and the whole corpus chain, in one run on one core.

Usage: python benchmarks/cleaning.py TEXT_FOLDER [MB per group]

Groups are the files of the folder by the part of their name before the first "-". Printed are MB of UTF-8 input per
second of CPU time, best of two; only ratios within one run are solid on a busy machine.
"""

from __future__ import annotations

import os
import platform
import re
import sys
import tempfile
import time
import unicodedata
from collections.abc import Callable
from pathlib import Path

from rinsho.corpus import Recipe
from rinsho.corpus.shard import Task, make_piece
from rinsho.document import Document, read_documents, shard_paths, write_documents
from rinsho.text import characters, clean, clean_aligned, clean_counted
from rinsho.text.cleaning import KINDS
from rinsho.text.rules import CONTEXT, PREPARATION, REPETITION, ROUNDS, TIDY, one_by_one, others, removal


def naive_chain() -> Callable[[str], str]:
    """The same rules as one compiled `re.sub` after another over the whole text, without tests beforehand."""
    tables = [
        (re.compile("[" + "".join(map(re.escape, table)) + "]"), table)
        for table in (characters.BEFORE, characters.HYPHENS, characters.TILDES, characters.SYMBOLS,
                      characters.LINE_BREAKS, characters.SPACES)
    ]  # fmt: skip

    def chain(text: str) -> str:
        for step in PREPARATION:
            text = step.pattern.sub(step.replacement, text)
        text = tables[0][0].sub(lambda match: tables[0][1][match[0]], text)
        text = unicodedata.normalize("NFKC", text)
        for pattern, table in tables[1:]:
            text = pattern.sub(lambda match, table=table: table[match[0]], text)
        text = others().sub("", text)
        for step in (*CONTEXT, *TIDY, REPETITION):
            text = step.pattern.sub(step.replacement, text)
        for _ in range(ROUNDS):
            before = text
            for step in removal("remove", KINDS):
                text = step.pattern.sub(step.replacement, text)
            if text == before:
                break
            for step in TIDY:
                text = step.pattern.sub(step.replacement, text)
        return text

    return chain


def rate(function: Callable[[str], object], texts: list[str], size_mb: float) -> float:
    """MB per second of CPU time, best of two."""
    best = float("inf")
    for _ in range(2):
        started = time.process_time()
        for text in texts:
            function(text)
        best = min(best, time.process_time() - started)
    return size_mb / best


def whole_chain(texts: list[str], size_mb: float) -> float:
    """MB/s of read, clean, filter, key and write, from one zstd file into a piece."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "in.jsonl.zst"
        with path.open("wb") as file:
            write_documents(file, (Document(text, str(number)) for number, text in enumerate(texts)))
        started = time.process_time()
        make_piece(Task(Recipe(), path, 0, Path(folder) / "piece", os.getpid(), None))
        return size_mb / (time.process_time() - started)


def main() -> None:
    """Prints the table."""
    folder, limit = Path(sys.argv[1]), float(sys.argv[2]) * 1e6 if len(sys.argv) > 2 else 20e6
    print(f"python {platform.python_version()}, {platform.machine()}, load {os.getloadavg()[0]:.1f}\n")
    print(
        "| group | MB | clean | counted | aligned | naive chain | one_by_one | clean : naive | whole chain | unequal |"
    )
    print("|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|")
    naive = naive_chain()
    groups: dict[str, list[Path]] = {}
    for path in shard_paths([folder]):
        groups.setdefault(path.name.split("-")[0].split(".")[0], []).append(path)
    for group, paths in groups.items():
        texts, size = [], 0
        for path in paths:
            for document in read_documents(path):
                if size < limit:
                    texts.append(document.text)
                    size += len(document.text.encode("utf-8", "surrogatepass"))
        unequal = sum(not clean(text) == naive(text) == one_by_one(text) for text in texts)
        mb = size / 1e6
        rates = [rate(function, texts, mb) for function in (clean, clean_counted, clean_aligned, naive, one_by_one)]
        cells = " | ".join(f"{value:.1f}" for value in rates)
        ratio, chain = rates[0] / rates[3], whole_chain(texts, mb)
        print(f"| {group} | {mb:.1f} | {cells} | {ratio:.1f} | {chain:.1f} | {unequal} of {len(texts)} |", flush=True)


if __name__ == "__main__":
    main()
