"""How fast text is cleaned: our scan and the same rules one by one, in one run on one core.

Usage: python benchmarks/cleaning.py TEXT_FOLDER [MB per group]

Groups are the files of the folder by the part of their name before the first "-". Printed are MB of UTF-8 input per
second of CPU time, best of two (ns per byte for the counted form); only ratios within one run are solid on a busy
machine. `unequal` counts the documents on which the four forms and the naive chain do not all give the same text.
"""

from __future__ import annotations

import os
import platform
import re
import sys
import time
import unicodedata
from collections.abc import Callable
from pathlib import Path

from rinsho.document import read_documents, shard_paths
from rinsho.text import characters, clean, clean_aligned, clean_counted
from rinsho.text.cleaning import KINDS
from rinsho.text.rules import one_by_one
from rinsho.text.steps import CONTEXT, PREPARATION, REPETITION, ROUNDS, TIDY, removal


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
        text = characters.others().sub("", text)
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


def main() -> None:
    """Prints the table."""
    folder, limit = Path(sys.argv[1]), float(sys.argv[2]) * 1e6 if len(sys.argv) > 2 else 20e6
    print(f"python {platform.python_version()}, {platform.machine()}, load {os.getloadavg()[0]:.1f}\n")
    columns = ("MB", "clean", "counted", "aligned", "naive chain", "one_by_one", "clean : naive", "counted ns/byte")
    print(f"| group | {' | '.join(columns)} | unequal |\n|---|{'---:|' * 9}")
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
        unequal = sum(
            len({clean(text), clean_counted(text)[0], clean_aligned(text)[0], naive(text), one_by_one(text)}) > 1
            for text in texts
        )
        mb = size / 1e6
        rates = [rate(function, texts, mb) for function in (clean, clean_counted, clean_aligned, naive, one_by_one)]
        cells = " | ".join(f"{value:.1f}" for value in rates)
        ratio = rates[0] / rates[3]
        print(
            f"| {group} | {mb:.1f} | {cells} | {ratio:.1f} | {1e3 / rates[1]:.1f} | {unequal} of {len(texts)} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
