"""The full pass: every document judged, file by file; finished files outlive an interruption."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path

from rinsho.document import Document, byte_length, read_documents, write_documents
from rinsho.errors import UserError
from rinsho.files import atomic_file, sync_files
from rinsho.quality import Recipe
from rinsho.quality.features import CHUNK_DOCUMENTS, Features, open_features
from rinsho.quality.forest import Forest
from rinsho.run import Stage

BINS = 20  # of the probability of 低 in the report
EXAMPLES = 5
SMALL_DOCUMENTS = 5_000  # fewer are not worth starting processes for


@dataclass(frozen=True)
class Task:
    """What a worker has to do: judge `path` by the classifier in `folder` into the folder `piece`."""

    recipe: Recipe
    path: Path
    piece: Path
    folder: Path
    parent: int


@dataclass
class Judged:
    """What happened to the documents of one or more files; bytes are UTF-8 text."""

    kept: int = 0
    kept_bytes: int = 0
    dropped: int = 0
    dropped_bytes: int = 0
    validation: int = 0
    by_probability: list[int] = field(default_factory=lambda: [0] * BINS)
    examples: list[tuple[str, float]] = field(default_factory=list)

    def add(self, other: Judged) -> None:
        """Adds another file's counts."""
        for name in ("kept", "kept_bytes", "dropped", "dropped_bytes", "validation"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.by_probability = [a + b for a, b in zip(self.by_probability, other.by_probability, strict=True)]
        self.examples = sorted([*self.examples, *other.examples], key=lambda row: (-row[1], row[0]))[:EXAMPLES]


def judge_all(recipe: Recipe, inputs: Sequence[Path], files: list[Path], documents: int, stage: Stage) -> Judged:
    """Judges every file and publishes shards/, validation/ and dropped/; one output file for an input file."""
    pieces = [stage.partial / "pieces" / f"{number:05d}" for number in range(len(files))]
    folder = stage.out / "classifier"
    tasks = [
        Task(recipe, path, piece, folder, os.getpid()) for path, piece in zip(files, pieces, strict=True)
        if not piece.exists()
    ]  # fmt: skip
    done = sum(_count(piece) for piece in pieces if piece.exists())
    (stage.partial / "pieces").mkdir(exist_ok=True)
    with stage.progress("judging", documents, "documents", done) as progress:
        _run(recipe, tasks, documents - done, progress.update)
    total = Judged()
    numbers = {"shards": 0, "validation": 0}
    for path, piece in zip(files, pieces, strict=True):
        counts = _read_counts(piece)
        group = _group(path, inputs)
        counts.validation = counts.kept if group == "validation" else 0
        total.add(counts)
        name = f"{numbers[group]:05d}.jsonl.zst"
        numbers[group] += 1
        if counts.kept:
            _publish(piece / "kept.jsonl.zst", stage.out / group / name)
        if counts.dropped:
            _publish(piece / "dropped.jsonl.zst", stage.out / "dropped" / f"{piece.name}.jsonl.zst")
    return total


def judge_file(task: Task, features: Features | None = None, on_chunk: Callable[[int], object] | None = None) -> int:
    """Judges one file into `task.piece`, which appears whole or not at all; returns its number of documents.

    The folder is written under a name with our process id: a worker that outlived its killed run must not write
    into the files of the run that follows it.
    """
    features = features or open_features(task.recipe, task.folder)
    forest = Forest.load(task.folder / "forest.npz")
    aside = task.piece.with_name(f".{task.piece.name}.{os.getpid()}.aside")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    counts, dropped = Judged(), []

    def kept() -> Iterator[Document]:
        for document, probability in _judged(task, features, forest, on_chunk):
            size = byte_length(document.text)
            counts.by_probability[max(0, math.ceil(probability * BINS) - 1)] += 1
            if probability <= task.recipe.max_low_probability:
                counts.kept, counts.kept_bytes = counts.kept + 1, counts.kept_bytes + size
                yield document
            else:
                counts.dropped, counts.dropped_bytes = counts.dropped + 1, counts.dropped_bytes + size
                counts.examples.append((document.id, round(probability, 4)))
                meta = document.meta | {"reason": "low_quality", "value": round(probability, 4)}
                dropped.append(Document(document.text, document.id, meta))

    with (aside / "kept.jsonl.zst").open("wb") as file:
        write_documents(file, kept())
    with (aside / "dropped.jsonl.zst").open("wb") as file:
        write_documents(file, dropped)
    counts.examples = sorted(counts.examples, key=lambda row: (-row[1], row[0]))[:EXAMPLES]
    (aside / "counts.json").write_text(json.dumps(asdict(counts), ensure_ascii=True), encoding="utf-8")
    _stop_if_orphan(task)
    sync_files(aside)
    aside.rename(task.piece)
    return counts.kept + counts.dropped


def _judged(
    task: Task, features: Features, forest: Forest, on_chunk: Callable[[int], object] | None
) -> Iterator[tuple[Document, float]]:
    """Each document with its probability of 低. Chunks are counted from the file's start, whatever was interrupted."""
    documents = read_documents(task.path)
    while chunk := list(islice(documents, CHUNK_DOCUMENTS)):
        _stop_if_orphan(task)
        found = forest.low_probability(features.vectors([document.text for document in chunk]))
        yield from zip(chunk, found.tolist(), strict=True)
        if on_chunk:
            on_chunk(len(chunk))


def processes(recipe: Recipe, files: int) -> int:
    """How many judge at once: a model works alone, floret in one process a file."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return 1 if recipe.model else min(recipe.workers or cores, files)


def _run(recipe: Recipe, tasks: list[Task], documents: int, update: Callable[[int], object]) -> None:
    workers = processes(recipe, len(tasks))
    if workers <= 1 or documents < SMALL_DOCUMENTS:
        features = open_features(recipe, tasks[0].folder) if tasks else None
        for task in tasks:
            judge_file(task, features, update)
        return
    from concurrent.futures import ProcessPoolExecutor, as_completed
    from concurrent.futures.process import BrokenProcessPool
    from multiprocessing import get_context

    largest_first = sorted(tasks, key=lambda task: (-task.path.stat().st_size, task.piece))
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        try:
            for future in as_completed([pool.submit(judge_file, task) for task in largest_first]):
                update(future.result())
        except BrokenProcessPool:
            raise UserError(
                "a worker process was ended from outside, perhaps for want of memory",
                where="quality.workers",
                expected="memory for a classifier in every worker",
                todo="run the same command again: finished files are taken over",
            ) from None
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _group(path: Path, inputs: Sequence[Path]) -> str:
    """`validation` for files in a folder of that name inside an input (or that is one), `shards` for others."""
    for given in inputs:
        if path == given or given in path.parents:
            inside = (given.name, *path.relative_to(given).parts[:-1])
            return "validation" if "validation" in inside else "shards"
    return "shards"


def _publish(source: Path, target: Path) -> None:
    """The file under its final name; a link where the disk can, so that nothing is written twice."""
    target.parent.mkdir(exist_ok=True)
    if target.exists() and target.samefile(source):
        return
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        with atomic_file(target) as file, source.open("rb") as piece:
            shutil.copyfileobj(piece, file)


def _read_counts(piece: Path) -> Judged:
    row = json.loads((piece / "counts.json").read_text(encoding="utf-8"))
    return Judged(**{**row, "examples": [(name, value) for name, value in row["examples"]]})


def _count(piece: Path) -> int:
    counts = _read_counts(piece)
    return counts.kept + counts.dropped


def _stop_if_orphan(task: Task) -> None:
    if os.getpid() != task.parent and os.getppid() != task.parent:
        raise UserError("the run that started this worker has ended", where=task.path)
