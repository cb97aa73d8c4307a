"""What is decided over all pieces together: exact duplicates, near duplicates, frequent sentences.

Every step holds a few numbers a document in memory; texts are read again for near candidates only. The decisions
stand in one small file a piece, which the last step carries out.

Source: SPEC N2.1-3.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rinsho.corpus import Recipe
from rinsho.corpus.dedup import boilerplate, near
from rinsho.corpus.index import Index
from rinsho.corpus.piece import stop_if_orphan
from rinsho.corpus.writing import read_lines
from rinsho.files import atomic_file, write_atomic
from rinsho.run import Stage

KEEP, DUPLICATE, NEAR_DUPLICATE = 0, 1, 2
REASONS = {DUPLICATE: "duplicate", NEAR_DUPLICATE: "near_duplicate"}
RunTasks = Callable[[Callable[[Any], None], Sequence[Any], str], Iterable[int]]


@dataclass(frozen=True)
class GramsTask:
    """The n-gram sets of some documents of a piece, for the exact comparison of near candidates."""

    piece: Path
    wanted: Path  # int64 positions within the piece
    first: int  # position of the piece's first document in the corpus
    ngram_chars: int
    product: Path
    size_bytes: int
    parent: int


def join(recipe: Recipe, pieces: Sequence[Path], stage: Stage, run_tasks: RunTasks) -> dict[str, Any]:
    """Writes `partial/decisions/` and returns the figures of the near and the sentence step."""
    done = stage.partial / "joined.json"
    if done.exists():
        figures: dict[str, Any] = json.loads(done.read_text(encoding="utf-8"))
        return figures
    indexes = [Index(piece) for piece in pieces]
    starts = np.cumsum([0, *map(len, indexes)])
    order = _column(indexes, "order")
    verdicts = np.zeros(len(order), np.uint8)
    partners = np.arange(len(order))
    if recipe.deduplicate:
        keys = np.column_stack([_column(indexes, "key_high"), _column(indexes, "key_low")])
        partners = near.exact(keys, order)
        verdicts[partners != np.arange(len(order))] = DUPLICATE
        stage.log(f"{int((verdicts == DUPLICATE).sum()):,} of {len(order):,} documents are exact duplicates")
    figures = {"near": _near(recipe, indexes, starts, order, verdicts, partners, stage, run_tasks)}
    frequent = _sentences(recipe, indexes, starts, order, verdicts, stage)
    figures["sentences"] = {"frequent": len(frequent)}
    partners = partners[partners]  # the copy of a document that was itself dropped as nearly another
    _write_decisions(indexes, starts, verdicts, partners, frequent, stage)
    write_atomic(done, json.dumps(figures))
    return figures


def make_grams(task: GramsTask) -> None:
    """Writes the n-gram sets of the wanted documents of a piece."""
    wanted = np.load(task.wanted, allow_pickle=False)

    def texts() -> Iterator[tuple[int, str]]:
        places = iter(wanted.tolist())
        place = next(places, None)
        for number, line in enumerate(read_lines(task.piece / "kept.jsonl.zst")):
            if place is None:
                return
            if number == place:
                stop_if_orphan(task.parent, task.product)
                yield task.first + number, json.loads(line)["text"]
                place = next(places, None)

    near.write_grams(texts(), task.ngram_chars, task.product)


def _near(
    recipe: Recipe, indexes: Sequence[Index], starts: np.ndarray, order: np.ndarray, verdicts: np.ndarray,
    partners: np.ndarray, stage: Stage, run_tasks: RunTasks,
) -> dict[str, Any]:  # fmt: skip
    """Marks near duplicates in `verdicts` and `partners`; returns the figures of the step."""
    if not recipe.near_duplicates:
        return {}
    groups = near.groups([index.bands() for index in indexes], verdicts == KEEP)
    documents = groups.documents
    stage.log(f"{len(documents):,} of {len(order):,} documents share a MinHash band with another")
    files = _grams(recipe, indexes, starts, documents, stage, run_tasks)
    verdict = near.greedy(groups, order, near.GramFiles(files), recipe.near_threshold)
    for position, kept in verdict.dropped.items():
        verdicts[position] = NEAR_DUPLICATE
        partners[position] = kept
    # two keys, the order, the partners, one band and its sorting; the groups and their transpose
    held = order.nbytes * 6 + verdicts.nbytes + 3 * groups.members.nbytes + groups.bounds.nbytes + groups.weights.nbytes
    disk = sum(index.size_bytes() for index in indexes) + sum(file.stat().st_size for file in files)
    n = max(1, len(order))
    return {
        "threshold": recipe.near_threshold,
        "candidates": len(documents),
        "compared": verdict.compared,
        "capped": verdict.capped,
        "near_duplicates": len(verdict.dropped),
        "index_memory_bytes_per_document": round(held / n, 1),
        "index_disk_bytes_per_document": round(disk / n, 1),
    }


def _grams(
    recipe: Recipe, indexes: Sequence[Index], starts: np.ndarray, documents: np.ndarray, stage: Stage,
    run_tasks: RunTasks,
) -> list[Path]:  # fmt: skip
    """The n-gram files of all pieces with candidates, made in parallel."""
    folder = stage.partial / "grams"
    folder.mkdir(exist_ok=True)
    tasks = []
    for number, index in enumerate(indexes):
        first, last = np.searchsorted(documents, starts[number : number + 2])
        if first == last:
            continue
        wanted = folder / f"{number:05d}.wanted.npy"
        with atomic_file(wanted) as file:
            np.save(file, documents[first:last] - starts[number], allow_pickle=False)
        size = int(index.column("size_bytes").sum())
        parent = os.getpid() if recipe.executor == "pool" else 0
        product = folder / f"{number:05d}.grams"
        tasks.append(
            GramsTask(index.folder, wanted, int(starts[number]), recipe.near_ngram_chars, product, size, parent)
        )
    with stage.progress("reading near candidates", len(tasks), "pieces") as progress:
        for _ in run_tasks(make_grams, tasks, "grams"):
            progress.update()
    return [task.product for task in tasks]


def _sentences(
    recipe: Recipe, indexes: Sequence[Index], starts: np.ndarray, order: np.ndarray, verdicts: np.ndarray, stage: Stage
) -> boilerplate.Frequent:
    """The sentences in too many of the documents that are left; counted after deduplication, so copies do not count."""
    if not recipe.sentence_documents:
        return boilerplate.Frequent(np.zeros(0, np.uint64), np.zeros(0, np.uint64))
    files = []
    for number, index in enumerate(indexes):
        hashes, counts = index.sentences()
        part = slice(starts[number], starts[number + 1])
        files.append(boilerplate.SentenceFile(hashes, counts, verdicts[part] == KEEP, order[part]))
    frequent = boilerplate.frequent(files, recipe.sentence_documents)
    stage.log(f"{len(frequent):,} sentences stand in more than {recipe.sentence_documents} documents")
    return frequent


def _write_decisions(
    indexes: Sequence[Index], starts: np.ndarray, verdicts: np.ndarray, partners: np.ndarray,
    frequent: boilerplate.Frequent, stage: Stage,
) -> None:  # fmt: skip
    folder = stage.partial / "decisions"
    folder.mkdir(exist_ok=True)
    frequent.save(folder / "frequent.npy")
    names = _ids_at(indexes, starts, np.unique(partners[verdicts != KEEP]))
    for number, index in enumerate(indexes):
        part = slice(starts[number], starts[number + 1])
        hashes, counts = index.sentences()
        touched = boilerplate.touched(hashes, counts, frequent) & (verdicts[part] == KEEP)
        kept = {
            int(position): names[int(partners[starts[number] + position])]
            for position in np.flatnonzero(verdicts[part] != KEEP)
        }
        with atomic_file(folder / f"{number:05d}.npz") as file:
            np.savez(file, verdicts=verdicts[part], touched=touched)
        write_atomic(folder / f"{number:05d}.json", json.dumps(kept))


def _ids_at(indexes: Sequence[Index], starts: np.ndarray, positions: np.ndarray) -> dict[int, str]:
    """The ids of the documents at these sorted positions of the corpus."""
    found: dict[int, str] = {}
    for number, index in enumerate(indexes):
        first, last = np.searchsorted(positions, starts[number : number + 2])
        wanted = set((positions[first:last] - starts[number]).tolist())
        if wanted:
            start = int(starts[number])
            found |= {start + place: name for place, name in enumerate(index.ids()) if place in wanted}
    return found


def _column(indexes: Sequence[Index], name: str) -> np.ndarray:
    return np.concatenate([index.column(name) for index in indexes]) if indexes else np.zeros(0, np.uint64)
