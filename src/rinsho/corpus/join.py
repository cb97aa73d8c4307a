"""What is decided over all pieces together: exact duplicates, near duplicates, frequent sentences.

Every step holds a few numbers a document in memory; texts are read again for near candidates only. The decisions
stand in one small file a piece, which the last step carries out.

Source: SPEC N2.1-3.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rinsho.corpus import Recipe, boilerplate
from rinsho.corpus.executors import stop_if_orphan
from rinsho.corpus.index import Index
from rinsho.corpus.writing import read_lines
from rinsho.files import atomic_file, write_atomic
from rinsho.overlap import near
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


@dataclass
class State:
    """All kept documents of all pieces as arrays over the corpus; `verdicts` and `partners` fill step by step.

    Attributes:
        starts: int64, the position of each piece's first document, and the end.
        order: uint64 (n,): of like documents the one with the smallest order stays.
        verdicts: uint8 (n,): KEEP or why a document goes.
        partners: int64 (n,): the document that stays for it; itself when it stays.
    """

    recipe: Recipe
    stage: Stage
    indexes: list[Index]
    starts: np.ndarray
    order: np.ndarray
    verdicts: np.ndarray
    partners: np.ndarray

    def part(self, number: int) -> slice:
        """The documents of one piece."""
        return slice(self.starts[number], self.starts[number + 1])

    def column(self, name: str) -> np.ndarray:
        """A column of all pieces."""
        return _column(self.indexes, name)


def join(recipe: Recipe, pieces: Sequence[Path], stage: Stage, run_tasks: RunTasks) -> dict[str, Any]:
    """Writes `partial/decisions/` and returns the figures of the near and the sentence step."""
    done = stage.partial / "joined.json"
    if done.exists():
        figures: dict[str, Any] = json.loads(done.read_text(encoding="utf-8"))
        return figures
    indexes = [Index(piece) for piece in pieces]
    order = _column(indexes, "order")
    none, itself = np.zeros(len(order), np.uint8), np.arange(len(order))
    state = State(recipe, stage, indexes, np.cumsum([0, *map(len, indexes)]), order, none, itself)
    if recipe.deduplicate:
        keys = np.column_stack([state.column("key_high"), state.column("key_low")])
        state.partners = near.exact(keys, order)
        state.verdicts[state.partners != itself] = DUPLICATE
        stage.log(f"{int((state.verdicts == DUPLICATE).sum()):,} of {len(order):,} documents are exact duplicates")
    figures = {"near": _near(state, run_tasks) if recipe.near_duplicates else {}}
    frequent = _sentences(state)
    figures["sentences"] = {"frequent": len(frequent)}
    state.partners = state.partners[state.partners]  # the copy of a document that was itself dropped as nearly another
    _write_decisions(state, frequent)
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
                break
            if number == place:
                stop_if_orphan()
                yield task.first + number, json.loads(line)["text"]
                place = next(places, None)
        stop_if_orphan()  # right before the file gets its name

    near.write_grams(texts(), task.ngram_chars, task.product)


def _near(state: State, run_tasks: RunTasks) -> dict[str, Any]:
    """Marks near duplicates; returns the figures of the step."""
    recipe, order = state.recipe, state.order
    groups = near.groups([index.bands() for index in state.indexes], state.verdicts == KEEP)
    documents = groups.documents
    state.stage.log(f"{len(documents):,} of {len(order):,} documents share a MinHash band with another")
    files = _grams(state, documents, run_tasks)
    verdict = near.greedy(groups, order, near.GramFiles(files), recipe.near_threshold)
    for position, kept in verdict.dropped.items():
        state.verdicts[position] = NEAR_DUPLICATE
        state.partners[position] = kept
    # two keys, the order, the partners, one band and its sorting; the groups and their transpose
    held = order.nbytes * 6 + state.verdicts.nbytes
    held += 3 * groups.members.nbytes + groups.bounds.nbytes + groups.weights.nbytes
    disk = sum(index.size_bytes() for index in state.indexes) + sum(file.stat().st_size for file in files)
    return {
        "threshold": recipe.near_threshold,
        "candidates": len(documents),
        "compared": verdict.compared,
        "capped": verdict.capped,
        "near_duplicates": len(verdict.dropped),
        "index_memory_bytes_per_document": round(held / max(1, len(order)), 1),
        "index_disk_bytes_per_document": round(disk / max(1, len(order)), 1),
    }


def _grams(state: State, documents: np.ndarray, run_tasks: RunTasks) -> list[Path]:
    """The n-gram files of all pieces with candidates, made in parallel."""
    folder = state.stage.partial / "grams"
    folder.mkdir(exist_ok=True)
    tasks = []
    for number, index in enumerate(state.indexes):
        start = int(state.starts[number])
        first, last = np.searchsorted(documents, state.starts[number : number + 2])
        if first == last:
            continue
        wanted = folder / f"{number:05d}.wanted.npy"
        with atomic_file(wanted) as file:
            np.save(file, documents[first:last] - start, allow_pickle=False)
        size = int(index.column("size_bytes").sum())
        product = folder / f"{number:05d}.grams"
        tasks.append(GramsTask(index.folder, wanted, start, state.recipe.near_ngram_chars, product, size))
    with state.stage.progress("reading near candidates", len(tasks), "pieces") as progress:
        for _ in run_tasks(make_grams, tasks, "grams"):
            progress.update()
    return [task.product for task in tasks]


def _sentences(state: State) -> boilerplate.Frequent:
    """The sentences in too many of the documents that are left; counted after deduplication, so copies do not count."""
    most = state.recipe.sentence_documents
    if not most:
        return boilerplate.Frequent(np.zeros(0, np.uint64), np.zeros(0, np.uint64))
    files = []
    for number, index in enumerate(state.indexes):
        part = state.part(number)
        files.append(boilerplate.SentenceFile(*index.sentences(), state.verdicts[part] == KEEP, state.order[part]))
    frequent = boilerplate.frequent(files, most)
    state.stage.log(f"{len(frequent):,} sentences stand in more than {most} documents")
    return frequent


def _write_decisions(state: State, frequent: boilerplate.Frequent) -> None:
    folder = state.stage.partial / "decisions"
    folder.mkdir(exist_ok=True)
    frequent.save(folder / "frequent.npy")
    dropped = state.verdicts != KEEP
    names = _ids_at(state.indexes, state.starts, np.unique(state.partners[dropped]))
    for number, index in enumerate(state.indexes):
        part = state.part(number)
        touched = boilerplate.touched(*index.sentences(), frequent) & ~dropped[part]
        partners = state.partners[part]
        kept = {int(place): names[int(partners[place])] for place in np.flatnonzero(dropped[part])}
        with atomic_file(folder / f"{number:05d}.npz") as file:
            np.savez(file, verdicts=state.verdicts[part], touched=touched)
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
