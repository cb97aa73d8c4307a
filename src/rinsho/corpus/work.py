"""The corpus run: pieces (one a file, in parallel), then exact deduplication, then shards."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rinsho.corpus import Recipe
from rinsho.corpus.filters import Drop
from rinsho.corpus.report import make_report
from rinsho.corpus.sample import choose, hash64
from rinsho.corpus.shard import Counts, Task, dropped_document, make_piece
from rinsho.corpus.writing import ShardWriter, read_lines
from rinsho.document import Document, shard_paths
from rinsho.errors import UserError
from rinsho.run import Report, Stage, write_atomic

SMALL_BYTES = 4_000_000  # less input than this is not worth starting processes for


@dataclass
class Kept:
    """What is kept in the end, and the duplicates that went."""

    documents: int = 0
    bytes: int = 0
    characters: int = 0
    validation: int = 0
    duplicates: int = 0
    duplicate_bytes: int = 0
    sources: Counter[str] = field(default_factory=Counter)
    sources_bytes: Counter[str] = field(default_factory=Counter)


def work(recipe: Recipe, inputs: Sequence[Path], stage: Stage) -> Report:
    """Runs or continues the stage; everything finished before an interruption is taken over."""
    shards = shard_paths([Path(path) for path in inputs])
    pieces = [stage.partial / f"{number:05d}" for number in range(len(shards))]
    _make_pieces(recipe, shards, pieces, stage)
    counts = Counts()
    for piece in pieces:
        counts.add(Counts.read_json(piece / "counts.json"))
    _limit_broken(recipe, counts)
    kept = _write_shards(recipe, pieces, stage)
    if not kept.documents:
        reasons = ", ".join(f"{reason} {count}" for reason, count in counts.dropped.most_common())
        raise UserError(
            f"no document passed the filters (of {counts.read}: {reasons or 'none read'})",
            where=", ".join(str(path) for path in inputs),
            expected="Japanese text",
            todo=f"look into {stage.out / 'dropped'}, and check the text field and the limits",
        )
    return make_report(recipe, counts, kept)


def _make_pieces(recipe: Recipe, shards: list[Path], pieces: list[Path], stage: Stage) -> None:
    sizes = [path.stat().st_size for path in shards]
    missing = [number for number, piece in enumerate(pieces) if not piece.exists()]
    if not missing:
        return
    sample = choose(recipe, shards, stage)
    tasks = [Task(recipe, shards[number], number, pieces[number], os.getpid(), sample) for number in missing]
    size_of = {task.piece.name: sizes[task.number] for task in tasks}
    done = sum(sizes) - sum(size_of.values())
    with stage.progress("cleaning", sum(sizes), "bytes", done) as progress:
        for name in _finished(tasks, _workers(recipe, list(size_of.values()))):
            progress.update(size_of[name])


def _workers(recipe: Recipe, sizes: list[int]) -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    wanted = recipe.workers or (cores if sum(sizes) > SMALL_BYTES else 1)
    return min(wanted, len(sizes))


def _finished(tasks: list[Task], workers: int) -> Iterator[str]:
    """The names of the pieces as they get ready, in any order."""
    if workers <= 1:
        yield from map(make_piece, tasks)
        return
    from concurrent.futures import ProcessPoolExecutor, as_completed
    from concurrent.futures.process import BrokenProcessPool
    from multiprocessing import get_context

    largest_first = sorted(tasks, key=lambda task: (-task.path.stat().st_size, task.number))
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        try:
            for future in as_completed([pool.submit(make_piece, task) for task in largest_first]):
                yield future.result()
        except BrokenProcessPool:
            raise UserError(
                "a worker process was ended from outside, perhaps for want of memory",
                where="corpus.workers",
                expected="memory for the largest document in every worker",
                todo="run the same command again: finished files are taken over",
            ) from None
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _limit_broken(recipe: Recipe, counts: Counts) -> None:
    broken = sum(counts.broken.values())
    records = broken + counts.read + counts.not_sampled
    share = broken / max(1, records)
    if share > recipe.max_broken_fraction:
        raise UserError(
            f"{broken} of {records} records are broken, the first: {counts.first_broken}",
            where="corpus.max_broken_fraction",
            expected=f"at most {recipe.max_broken_fraction:.2%}",
            todo=f"check the text field ({recipe.text_field!r}) and the file, or raise the limit",
        )


def _write_shards(recipe: Recipe, pieces: list[Path], stage: Stage) -> Kept:
    """Kept documents into shards/ and validation/, the others into dropped/, all in the order of the input."""
    chosen = _chosen(pieces) if recipe.deduplicate else {}
    kept = Kept()
    broken = b"".join((piece / "broken.jsonl").read_bytes() for piece in pieces)
    with (
        stage.progress("writing", len(pieces), "files") as progress,
        ShardWriter(stage.out / "shards", recipe.shard_documents) as shards,
        ShardWriter(stage.out / "validation", recipe.shard_documents) as validation,
        ShardWriter(stage.out / "dropped", recipe.shard_documents) as dropped,
    ):
        for number, piece in enumerate(pieces):
            for line in read_lines(piece / "dropped.jsonl.zst"):
                dropped.write_line(line)
            rows = enumerate(_rows(piece))
            for line, (position, row) in zip(read_lines(piece / "kept.jsonl.zst"), rows, strict=True):
                digest, name, source, raw_size, size, characters = row
                if recipe.deduplicate and chosen[digest][2:] != (number, position):
                    dropped.write_line(_duplicate(line, chosen[digest][0]))
                    kept.duplicates += 1
                    kept.duplicate_bytes += raw_size
                    continue
                held_out = hash64(f"{recipe.seed}:validation:{name}") < recipe.validation_fraction * 2**64
                (validation if held_out else shards).write_line(line)
                _count(kept, source, size, characters, held_out)
            progress.update(kept=kept.documents, dropped=dropped.written)
    if broken:
        write_atomic(stage.out / "dropped" / "broken.jsonl", broken)
    return kept


def _chosen(pieces: list[Path]) -> dict[str, tuple[str, str, int, int]]:
    """Per key the document that stays: the smallest id, whatever the order of files. This is what memory grows with."""
    chosen: dict[str, tuple[str, str, int, int]] = {}
    for number, piece in enumerate(pieces):
        for position, (digest, name, source, *_) in enumerate(_rows(piece)):
            candidate = (name, source, number, position)
            if digest not in chosen or candidate < chosen[digest]:
                chosen[digest] = candidate
    return chosen


def _duplicate(line: bytes, kept_id: str) -> bytes:
    """The line of a duplicate as it stands in dropped/: the value is the id of the document that was kept."""
    row = json.loads(line)
    document = Document(row.pop("text"), row.pop("id"), row)
    return dropped_document(document, Drop("duplicate", kept_id)).to_line()


def _rows(piece: Path) -> Iterator[list[Any]]:
    with (piece / "keys.jsonl").open(encoding="utf-8") as file:
        yield from map(json.loads, file)


def _count(kept: Kept, source: str, size: int, characters: int, held_out: bool) -> None:
    kept.documents += 1
    kept.bytes += size
    kept.characters += characters
    kept.validation += held_out
    kept.sources[source] += 1
    kept.sources_bytes[source] += size
