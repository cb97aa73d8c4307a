"""The corpus room against its peers in one run on one core: cleaning, near duplicates, the whole chain.

Usage: python benchmarks/corpus.py TEXT_FOLDER [--mb 40] [--chain-only]

TEXT_FOLDER holds .jsonl.zst files; those named raw-* are the noisy slice. Printed are MB of UTF-8 input per second of
CPU time (one core), best of two; only ratios within one run are solid on a busy machine. Peers (hojichar,
neologdn) are measured when installed. Near duplicates have a script of their own, near_duplicates.py.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cleaning import naive_chain, rate

from rinsho.document import read_documents, shard_paths, write_documents
from rinsho.text import clean, clean_counted
from rinsho.text.rules import RULES, one_by_one

STOCK = (
    "DocumentNormalizer", "AcceptJapanese", "DocumentLengthFilter", "DiscardAdultContentJa", "DiscardAds",
    "DiscardBBSComments", "DiscardRareKuten", "DiscardTooManyEndingEllipsis", "CharRepetitionRatioFilter",
    "HeaderFooterTagsRemover", "MaskPersonalInformation",
)  # fmt: skip


def hojichar_stock() -> Callable[[str], object]:
    """HojiChar's own filters one after another, as its users chain them."""
    from hojichar import Compose, document_filters

    return Compose([getattr(document_filters, name)() for name in STOCK])


def hojichar_same_rules() -> Callable[[str], object]:
    """Our rules, each as a HojiChar filter."""
    from hojichar import Compose, Document, Filter

    class Rule(Filter):
        def __init__(self, rule: Callable[[str], str]) -> None:
            super().__init__()
            self.rule = rule

        def apply(self, document: Document) -> Document:
            document.text = self.rule(document.text)
            return document

    return Compose([Rule(rule) for rule in RULES])


def neologdn() -> Callable[[str], object]:
    """Neologdn's normaliser: width and repeats only, a fraction of the rules."""
    from neologdn import normalize

    return normalize


CLEANERS: dict[str, Callable[[], Callable[[str], object]]] = {
    "rinsho clean": lambda: clean,
    "rinsho clean_counted": lambda: clean_counted,
    "naive chain of the same compiled rules": naive_chain,
    "the rules one by one": lambda: one_by_one,
    "HojiChar, the same rules as filters": hojichar_same_rules,
    "HojiChar, stock chain": hojichar_stock,
    "neologdn": neologdn,
}


def cleaners(folder: Path, limit_mb: float) -> None:
    """Prints the table of cleaning rates for the text and for the noisy slice."""
    parts = {
        "text": [path for path in shard_paths([folder]) if not path.name.startswith("raw")],
        "raw slice": [path for path in shard_paths([folder]) if path.name.startswith("raw")],
    }
    print("| cleaner | " + " | ".join(f"{name}, MB/s" for name in parts) + " | ours : this |\n|---|" + "---:|" * 3)
    loaded = {name: sample(paths, limit_mb) for name, paths in parts.items()}
    first: dict[str, float] = {}
    for label, make in CLEANERS.items():
        try:
            function = make()
        except ImportError as error:
            print(f"| {label} | not installed ({error.name}) | | |")
            continue
        rates = {name: rate(function, texts, mb) for name, (texts, mb) in loaded.items()}
        first = first or rates
        ratios = " and ".join(f"{first[name] / value:.1f}" for name, value in rates.items())
        print(f"| {label} | " + " | ".join(f"{value:.2f}" for value in rates.values()) + f" | {ratios} |", flush=True)
    print()


def equality(folder: Path) -> None:
    """Compares the fast cleaner with the naive chain on every document."""
    naive = naive_chain()
    documents = unequal = 0
    for path in shard_paths([folder]):
        for document in read_documents(path):
            documents += 1
            unequal += clean(document.text) != naive(document.text)
    print(f"{unequal} of all {documents:,} documents come out differently from the naive chain\n", flush=True)


def sample(paths: list[Path], limit_mb: float) -> tuple[list[str], float]:
    """Texts from all files in turn, up to `limit_mb` in all, and their size in MB."""
    texts: list[str] = []
    total = 0.0
    for path in paths:
        size = 0.0
        for document in read_documents(path):
            if size >= limit_mb / len(paths):
                break
            texts.append(document.text)
            size += len(document.text.encode("utf-8", "surrogatepass")) / 1e6
        total += size
    return texts, total


def whole_chain(paths: list[Path], label: str, scratch: Path) -> None:
    """Prints a row for read, clean, filter, three deduplications and write: one process, its CPU time and memory."""
    source, out = scratch / "in", scratch / "out"
    source.mkdir()
    for path in paths:
        (source / path.name).symlink_to(path.resolve())
    command = [sys.executable, "-m", "rinsho", "corpus", str(source), "--set", "corpus.workers=1", "--out", str(out)]
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    own_mib = peak_own_mib(process)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    after, seconds = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic() - started
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    numbers: dict[str, Any] = json.loads((out / "report.json").read_text(encoding="utf-8"))["numbers"]
    mb, near = numbers["bytes_read"] / 1e6, numbers["near"]
    print(
        f"| {label} | {mb:.0f} | {numbers['documents_read']:,} | {numbers['documents_kept']:,} | {cpu:.1f} | "
        f"{mb / cpu:.1f} | {mb / seconds:.1f} | {own_mib:.0f} | "
        f"{near['index_memory_bytes_per_document']} / {near['index_disk_bytes_per_document']} |",
        flush=True,
    )
    shutil.rmtree(source)
    shutil.rmtree(out)


def peak_own_mib(process: subprocess.Popen[bytes]) -> float:
    """The most memory of its own the process had until it ended, MiB; pages of memory-mapped files are not counted."""
    peak = 0
    while process.poll() is None:
        try:
            for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
                if line.startswith("RssAnon:"):
                    peak = max(peak, int(line.split()[1]))
        except OSError:
            pass
        time.sleep(0.02)
    return peak / 1024


def chain(folder: Path) -> None:
    """Prints the table of the whole chain for growing input."""
    print(
        "| input | MB | documents | kept | CPU s | MB/s of CPU | MB/s of wall clock | peak MiB, own | "
        "index bytes a document, memory / disk |\n|---|" + "---:|" * 8
    )
    paths = shard_paths([folder])
    raw = [path for path in paths if path.name.startswith("raw")]
    text = [path for path in paths if path not in raw]
    with tempfile.TemporaryDirectory() as scratch:
        tenth = Path(scratch) / "tenth.jsonl.zst"
        with tenth.open("wb") as file:
            every = (document for path in paths for document in read_documents(path))
            write_documents(file, (document for number, document in enumerate(every) if number % 10 == 0))
        whole_chain([tenth], "every tenth document of all text and the raw slice", Path(scratch))
        whole_chain(raw, "the raw slice alone", Path(scratch))
        whole_chain(text, "all text", Path(scratch))
        whole_chain(paths, "all text and the raw slice", Path(scratch))


def main() -> None:
    """Prints all tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--mb", type=float, default=40.0, help="text a cleaner is timed on, for each of the two parts")
    parser.add_argument("--chain-only", action="store_true", help="leave out the cleaners")
    options = parser.parse_args()
    versions = []
    for package in ("hojichar", "neologdn", "zstandard", "orjson", "ahocorasick_rs"):
        try:
            versions.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    print(f"Python {platform.python_version()}, {', '.join(versions)}; load {os.getloadavg()[0]:.1f}\n")
    if not options.chain_only:
        cleaners(options.folder, options.mb)
        equality(options.folder)
    chain(options.folder)


if __name__ == "__main__":
    main()
