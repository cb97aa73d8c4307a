"""The texts tokenizer.py works on: nested training samples, held-out documents, medical texts; segmented once."""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from glob import glob
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from rinsho.document import SUFFIXES, byte_length, read_documents, shard_paths
from rinsho.segmentation import separated
from rinsho.text import clean

HELDOUT_FRACTION = 0.02
HELDOUT_MEDICAL_FRACTION = 0.2  # of files named medical*: there are few
TEXT_COLUMNS = ("text", "question", "sentence1", "sentence2")


@dataclass
class Texts:
    """Held-out documents as word numbers with counts, ready for any tokenizer that works word by word."""

    name: str
    words: list[str]
    numbers: np.ndarray  # word number per row
    counts: np.ndarray
    starts: np.ndarray  # first row of each document
    characters: np.ndarray  # per document, of cleaned text
    cleaned: list[str]

    def tokens(self, lengths: np.ndarray) -> np.ndarray:
        """Tokens per document, given the tokens per word."""
        return np.add.reduceat(lengths[self.numbers] * self.counts, self.starts)


def draw(document_id: str) -> float:
    """A number from 0 to 1 that depends on the id alone."""
    digest = hashlib.blake2b(f"benchmark:{document_id}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest) / 2**64


def clean_paths(folder: Path) -> list[Path]:
    """The files of the folder without the noisy slice."""
    return [path for path in shard_paths([folder]) if not path.name.startswith("raw")]


def is_medical(path: Path) -> bool:
    """Whether a file holds medical text, by its name."""
    return path.name.startswith("medical")


def medical_texts(given: str) -> Iterator[str]:
    """Texts of a folder, file or glob of CSV or document files; of CSV files every distinct line once.

    Question templates and the cases several questions ask about are repeated in every row.
    """
    roots = [Path(name) for name in sorted(glob(given, recursive=True))]  # noqa: PTH207 (may be absolute)
    roots = roots or [Path(given)]
    files = [path for root in roots for path in (sorted(root.rglob("*")) if root.is_dir() else [root])]
    seen: set[str] = set()
    for path in files:
        if path.suffix == ".csv":
            with path.open(encoding="utf-8-sig", newline="") as file:
                for row in csv.DictReader(file):
                    text = "\n".join(row[column] for column in TEXT_COLUMNS if row.get(column))
                    new = [line for line in dict.fromkeys(text.split("\n")) if line not in seen]
                    seen.update(new)
                    if new:
                        yield "\n".join(new)
        elif path.name.endswith(SUFFIXES):
            yield from (document.text for document in read_documents(path))


def sample(paths: Iterable[Path], limit_mb: float, skip_mb: float = 0.0) -> list[str]:
    """Texts from all files in turn, up to `limit_mb` in all, after the first `skip_mb`."""
    paths, texts = list(paths), []
    for path in paths:
        size = -skip_mb / len(paths)
        for document in read_documents(path):
            if size >= limit_mb / len(paths):
                break
            if size >= 0:
                texts.append(document.text)
            size += byte_length(document.text) / 1e6
    return texts


def segment_file(job: tuple[Path, tuple[float, ...], Path | None, Path]) -> tuple[list[int], list[int]]:
    """Writes the segmented sentences of one file by the smallest sample they belong to, and the held-out documents.

    Returns bytes of raw text and documents per sample.
    """
    path, fractions, dictionary, target = job
    heldout_fraction = HELDOUT_MEDICAL_FRACTION if is_medical(path) else HELDOUT_FRACTION
    files = [Path(f"{target}-{level}.txt").open("w", encoding="utf-8") for level in range(len(fractions))]  # noqa: SIM115
    sizes, documents, heldout = [0] * len(fractions), [0] * len(fractions), []
    for document in read_documents(path):
        place = draw(document.id)
        if place < heldout_fraction:
            cleaned = clean(document.text)
            heldout.append([len(cleaned), separated(cleaned, dictionary)])
            continue
        place = (place - heldout_fraction) / (1 - heldout_fraction)
        level = next((number for number, fraction in enumerate(fractions) if place < fraction), None)
        if level is not None:
            words = separated(clean(document.text), dictionary).replace("。 ", "。\n").split("\n")
            files[level].write("".join(line.strip(" ") + "\n" for line in words if line.strip(" ")))
            sizes[level] += byte_length(document.text)
            documents[level] += 1
    for file in files:
        file.close()
    Path(f"{target}-heldout.json").write_text(json.dumps(heldout), encoding="utf-8")
    return sizes, documents


@dataclass
class Prepared:
    """Segmented files and size of each training sample, and the held-out texts."""

    files: list[list[str]]
    mb: list[float]
    documents: list[int]
    heldout: list[Texts]


def prepare(options: argparse.Namespace, dictionary: Path | None, scratch: Path) -> Prepared:
    """Cleans and segments all documents once; samples are nested, chosen by hash of the id."""
    paths = clean_paths(options.folder)
    total = 0.0
    for path in paths:
        part = 1 - (HELDOUT_MEDICAL_FRACTION if is_medical(path) else HELDOUT_FRACTION)
        total += part * sum(byte_length(document.text) for document in read_documents(path)) / 1e6
    fractions = tuple(min(1.0, size / total) for size in options.sizes)
    scratch.mkdir(parents=True, exist_ok=True)
    jobs = [(path, fractions, dictionary, scratch / f"{number:03d}") for number, path in enumerate(paths)]
    with ProcessPoolExecutor(options.workers, get_context("spawn")) as pool:
        figures = list(pool.map(segment_file, jobs))
    levels = range(len(fractions))
    files = [[f"{job[3]}-{lower}.txt" for job in jobs for lower in range(level + 1)] for level in levels]
    mb = [sum(sum(size[: level + 1]) for size, _ in figures) / 1e6 for level in levels]
    documents = [sum(sum(count[: level + 1]) for _, count in figures) for level in levels]
    rows: dict[bool, list[Any]] = {False: [], True: []}
    for path, _, _, target in jobs:
        rows[is_medical(path)] += json.loads(Path(f"{target}-heldout.json").read_text(encoding="utf-8"))
    heldout = [numbered("general", rows[False]), numbered("medical", rows[True])]
    if options.medical:
        cleaned = (clean(text) for text in medical_texts(options.medical))
        heldout.append(numbered("other medical", [[len(text), separated(text, dictionary)] for text in cleaned]))
    return Prepared(files, mb, documents, [text for text in heldout if text is not None])


def numbered(name: str, rows: Sequence[tuple[int, str]]) -> Texts | None:
    """Segmented documents as word numbers; None without documents."""
    known: dict[str, int] = {}
    numbers, counts, starts, characters, cleaned = [], [], [], [], []
    for length, words in rows:
        own: dict[int, int] = {}
        for word in words.split(" "):
            if word:
                number = known.setdefault(word, len(known))
                own[number] = own.get(number, 0) + 1
        if own:
            starts.append(len(numbers))
            numbers += own.keys()
            counts += own.values()
            characters.append(length)
            cleaned.append(words.replace(" ", "").replace("▁", " "))
    if not starts:
        return None
    columns = [np.asarray(column) for column in (numbers, counts, starts, characters)]
    return Texts(name, list(known), columns[0], columns[1], columns[2], columns[3], cleaned)


def user_dictionary(options: argparse.Namespace, folder: Path) -> Path | None:
    """The MeCab user dictionary of the word list, as the stage makes it."""
    if options.lexicon is None:
        return None
    from rinsho.tokenizer.lexicon import LexiconSettings, build

    target = folder / "lexicon"
    target.mkdir(parents=True, exist_ok=True)
    settings = LexiconSettings()
    return build([options.lexicon], settings, target, sample(clean_paths(options.folder), settings.check_mb)).dictionary
