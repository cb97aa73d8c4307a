"""The corpus run: pieces (a group of files each, in parallel), decisions over all of them, then shards, in parallel."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from rinsho.corpus import Recipe, report, sources
from rinsho.corpus.executors import run_tasks
from rinsho.corpus.finish import FinishTask, Kept, finish_piece
from rinsho.corpus.join import join
from rinsho.corpus.piece import Counts, Task, grouped, make_piece
from rinsho.corpus.report.numbers import report_numbers
from rinsho.corpus.sample import choose
from rinsho.corpus.sources import SourceFile
from rinsho.errors import UserError
from rinsho.run import Report, Stage, write_atomic

HINTS = {  # what helps against the most frequent kind of broken record
    "no_text": "set text_field for these files",
    "invalid_utf8": "set encoding for these files in corpus.sources",
    "unknown_encoding": "set encoding for these files in corpus.sources",
    "wrong_field_count": "look at that row: a separator too many or too few, or set delimiter",
    "open_quotation": "look for the quotation mark without its partner",
}
SMALL_BYTES = 4_000_000  # less input than this is not worth starting processes for


def work(recipe: Recipe, inputs: Sequence[Path], stage: Stage) -> Report:
    """Runs or continues the stage; everything finished before an interruption is taken over."""
    files = _files(recipe, inputs, stage)
    size_bytes = sum(file.size_bytes for file in files)
    workers = _workers(recipe, size_bytes)

    def run(function: Callable[[Any], None], tasks: Sequence[Any], label: str) -> Iterable[int]:
        folder = stage.partial / "jobs"
        return run_tasks(
            function, tasks, executor=recipe.executor, workers=workers, slurm=recipe.slurm, folder=folder, label=label
        )

    pieces = _make_pieces(recipe, files, stage, run)
    counts = Counts()
    for piece in pieces:
        counts.add(Counts.read_json(piece / "counts.json"))
    _limit_broken(recipe, counts)
    if not counts.read:
        raise UserError(
            "no document was found",
            where=", ".join(str(path) for path in inputs),
            expected="records with text: of FHIR, resources that have one of the paths of text_field",
            todo="check text_field and layout for these files in corpus.sources",
        )
    figures = join(recipe, pieces, stage, run)
    kept = _finish(recipe, pieces, stage, run)
    if not kept.documents:
        reasons = ", ".join(f"{reason} {count}" for reason, count in (counts.dropped + kept.dropped).most_common())
        raise UserError(
            f"no document passed the filters (of {counts.read}: {reasons or 'none read'})",
            where=", ".join(str(path) for path in inputs),
            expected="Japanese text",
            todo=f"look into {stage.out / 'dropped'} (zstdcat), check the limits, and begin with another --out",
        )
    _warn_unknown_sources(recipe, counts, stage)
    numbers = report_numbers(recipe, counts, kept, figures)
    for warning in report.view.warnings(recipe.model_dump(mode="json"), numbers):
        stage.log(f"WARNING: {warning}")
    write_atomic(stage.out / "report.html", report.page(recipe, numbers, title=report.title_of(stage.out)))
    return report.make_report(recipe, numbers)


def _files(recipe: Recipe, inputs: Sequence[Path], stage: Stage) -> list[SourceFile]:
    found = sources.files(recipe, [Path(path) for path in inputs]) if inputs else []
    for number, settings in enumerate(recipe.huggingface):
        folder = sources.fetch(settings, stage.partial / "huggingface" / f"{number:02d}", stage)
        found += sources.fetched(recipe, settings, folder)
    return found


def _workers(recipe: Recipe, size_bytes: int) -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return recipe.workers or (cores if size_bytes > SMALL_BYTES else 1)


def _make_pieces(recipe: Recipe, files: Sequence[SourceFile], stage: Stage, run: Any) -> list[Path]:
    """The folders of all pieces, in the order of the files."""
    groups = grouped(files, recipe.piece_mb)
    folder = stage.partial / "pieces"
    folder.mkdir(exist_ok=True)
    pieces = [folder / f"{number:05d}" for number in range(len(groups))]
    sizes = [max(1, sum(file.size_bytes for file in group)) for group in groups]
    missing = [number for number, piece in enumerate(pieces) if not piece.exists()]
    if not missing:
        return pieces
    sample = choose(recipe, files, stage)
    tasks = [Task(recipe, groups[number], pieces[number], sizes[number], sample) for number in missing]
    done = sum(sizes) - sum(task.size_bytes for task in tasks)
    with stage.progress("cleaning", sum(sizes), "bytes", done) as progress:
        for position in run(make_piece, tasks, "pieces"):
            progress.update(tasks[position].size_bytes)
    return pieces


def _limit_broken(recipe: Recipe, counts: Counts) -> None:
    broken = sum(counts.broken.values())
    records = broken + counts.read + counts.not_sampled
    share = broken / max(1, records)
    if share > recipe.max_broken_fraction:
        raise UserError(
            f"{broken} of {records} records are broken, the first: {counts.first_broken}"
            + ("" if len(counts.broken) == 1 else "; " + ", ".join(f"{r} {n}" for r, n in counts.broken.most_common())),
            where="corpus.max_broken_fraction",
            expected=f"at most {recipe.max_broken_fraction:.2%}",
            todo=f"{HINTS.get(counts.broken.most_common(1)[0][0], 'look at that record')}, or raise the limit",
        )


def _warn_unknown_sources(recipe: Recipe, counts: Counts, stage: Stage) -> None:
    """A misspelt source would otherwise be passed over without a word."""
    known = ", ".join(sorted(counts.sources_read)[:20])
    for key in ("sources_first", "trusted_sources", "sentence_keep_sources"):
        for name in getattr(recipe, key):
            if name not in counts.sources_read:
                stage.log(
                    f"WARNING: corpus.{key} names {name!r}, but no document is of that source (there are: {known})"
                )


def _finish(recipe: Recipe, pieces: Sequence[Path], stage: Stage, run: Any) -> Kept:
    """Writes shards/, validation/ and dropped/, and adds up what is kept."""
    folder = stage.partial / "finished"
    folder.mkdir(exist_ok=True)
    tasks = [
        FinishTask(
            recipe, number, piece, stage.partial / "decisions", stage.out, folder / f"{number:05d}.json",
            (piece / "kept.jsonl.zst").stat().st_size,
        )
        for number, piece in enumerate(pieces)
    ]  # fmt: skip
    with stage.progress("writing", len(tasks), "pieces") as progress:
        for _ in run(finish_piece, tasks, "finish"):
            progress.update()
    kept = Kept()
    for task in tasks:
        kept.add_json(json.loads(task.product.read_text(encoding="utf-8")))
    for name in ("broken", "contamination"):
        lines = b"".join((piece / f"{name}.jsonl").read_bytes() for piece in pieces)
        if lines:
            write_atomic(stage.out / "dropped" / f"{name}.jsonl", lines)
    return kept
