"""How many tokens each source of a finished corpus run has, by a tokenizer that was trained later.

Counted shard by shard in processes; what is counted stays in `.token_counts.jsonl`, so an interrupted count continues
and another tokenizer costs nothing twice. Products and DONE are not touched.

Source: SPEC N2.1-7.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rinsho.corpus.report import FinishedRun, read_run, save
from rinsho.corpus.sample import hash64
from rinsho.document import byte_length, is_synthetic, read_documents
from rinsho.errors import UserError
from rinsho.progress import Progress
from rinsho.run import Report

if TYPE_CHECKING:
    from rinsho.tokenization import RinshoTokenizer

COUNTS = ".token_counts.jsonl"  # hidden, so that no room takes it for documents
SMALL_BYTES = 2_000_000  # compressed; less is not worth starting processes for
ALIVE_EVERY = 64
KEYS = ("documents", "bytes", "characters", "tokens", "synthetic_tokens")
COUNTED = 2  # raised when another number is counted: what an older version counted is counted again


@dataclass(frozen=True)
class Job:
    """One shard to count. `fractions`: the share of a source's documents that is counted; all without an entry."""

    name: str
    hash: str
    shard: Path
    tokenizer: Path
    source_field: str
    fractions: Mapping[str, float]
    parent: int


def with_tokens(run: Path, tokenizer: Path, *, max_documents_per_source: int | None = None, workers: int = 0) -> Report:
    """The report of a finished run with the tokens of each source, written anew as report.json, .md and .html.

    Tokens are those of the text alone, without begin and end marks.

    Args:
        run: the folder of a finished `rinsho corpus`.
        tokenizer: a tokenizer or model folder.
        max_documents_per_source: count about as many documents of a source, chosen by id, and scale up by its bytes.
        workers: processes; 0 is one a core.

    Raises:
        UserError: not a finished corpus run, a product is missing or changed, or no tokenizer of ours.
    """
    from rinsho import tokenization

    found = read_run(run)
    loaded = tokenization.load(tokenizer)
    fingerprint = tokenization.fingerprint(loaded)
    kept = {name: row.get("documents_kept", 0) for name, row in found.numbers.get("sources", {}).items()}
    most = max_documents_per_source
    fractions = {} if most is None else {name: most / count for name, count in kept.items() if count > most}
    jobs = _jobs(found, tokenizer, fractions)
    key = f"{fingerprint}:{most if fractions else 'all'}:{COUNTED}"
    counted = _read(found.folder / COUNTS, key)
    missing = [job for job in jobs if job.hash not in counted]
    sizes = {job.hash: job.shard.stat().st_size for job in jobs}
    done = sum(sizes.values()) - sum(sizes[job.hash] for job in missing)
    with Progress("corpus: counting tokens", sum(sizes.values()), "bytes", done) as progress:
        for job, sources in _finished(missing, workers):
            _append(found.folder / COUNTS, {"key": key, "shard": job.hash, "sources": sources})
            counted[job.hash] = sources
            progress.update(sizes[job.hash])
    tokens = {
        "tokenizer": tokenizer.resolve().name,
        "fingerprint": fingerprint,
        "vocab_size": len(loaded),
        **_added_up([counted[job.hash] for job in jobs], found.numbers, fractions),
    }
    return save(found, found.numbers | {"tokens": tokens})


def count_shard(job: Job) -> dict[str, list[int]]:
    """Per source of one shard: documents, UTF-8 bytes, characters, tokens, and tokens of synthetic documents."""
    tokenizer = _tokenizer(str(job.tokenizer))
    sources: dict[str, list[int]] = {}
    for number, document in enumerate(read_documents(job.shard)):
        if number % ALIVE_EVERY == 0 and os.getpid() != job.parent and os.getppid() != job.parent:
            raise UserError("the run that started this worker has ended", where=job.shard)
        source = str(document.meta.get("source") or document.meta.get(job.source_field) or "")
        if hash64(f"tokens:{document.id}") >= job.fractions.get(source, 1.0) * 2**64:
            continue
        size_bytes = byte_length(document.text)
        tokens = len(tokenizer.encode_text(document.text))
        row = (1, size_bytes, len(document.text), tokens, tokens * is_synthetic(document.meta))
        before = sources.get(source, [0] * len(KEYS))
        sources[source] = [total + value for total, value in zip(before, row, strict=True)]
    return sources


@lru_cache(maxsize=1)
def _tokenizer(folder: str) -> RinshoTokenizer:
    from rinsho import tokenization

    return tokenization.load(folder)


def _jobs(run: FinishedRun, tokenizer: Path, fractions: Mapping[str, float]) -> list[Job]:
    field = str(run.settings.get("source_field") or "source")
    paths = {path.relative_to(run.folder).as_posix(): path for path in (*run.files("shards"), *run.files("validation"))}
    return [
        Job(name, run.products[name]["hash"], path, Path(tokenizer), field, fractions, os.getpid())
        for name, path in paths.items()
    ]


def _finished(jobs: Sequence[Job], workers: int) -> Iterator[tuple[Job, dict[str, list[int]]]]:
    """The jobs with their counts as they get ready, in any order."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    small = sum(job.shard.stat().st_size for job in jobs) < SMALL_BYTES
    workers = min(workers or (1 if small else cores), len(jobs))
    if workers <= 1:
        yield from ((job, count_shard(job)) for job in jobs)
        return
    from concurrent.futures import ProcessPoolExecutor, as_completed
    from concurrent.futures.process import BrokenProcessPool
    from multiprocessing import get_context

    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        try:
            futures = {pool.submit(count_shard, job): job for job in jobs}
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BrokenProcessPool:
            raise UserError(
                "a worker process was ended from outside, perhaps for want of memory",
                where="rinsho corpus report",
                todo="run the same command again: counted shards are taken over",
            ) from None
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _added_up(
    shards: Sequence[Mapping[str, Sequence[int]]], numbers: Mapping[str, Any], fractions: Mapping[str, float]
) -> dict[str, Any]:
    """The counts of all shards by source, scaled up to all bytes of a source where only some were counted."""
    known = numbers.get("sources", {})
    totals: dict[str, list[int]] = {}
    for shard in shards:
        for source, row in shard.items():
            totals[source] = [a + b for a, b in zip(totals.get(source, [0] * len(KEYS)), row, strict=True)]
    if "" in totals:  # documents that do not name their source: clear where there is but one
        totals[next(iter(known)) if len(known) == len(totals) == 1 else "(no source named)"] = totals.pop("")
    sources = {}
    for source, (_, size_bytes, _, tokens, synthetic) in sorted(totals.items()):
        estimated = source in fractions
        scale = known[source]["bytes_kept"] / max(1, size_bytes) if estimated else 1
        sources[source] = {
            "tokens": round(tokens * scale) if estimated else tokens,
            "synthetic_tokens": round(synthetic * scale) if estimated else synthetic,
            "estimated": estimated,
            **{f"counted_{key}": value for key, value in zip(KEYS, totals[source], strict=True)},
        }
    counted = [sum(column) for column in zip(*totals.values(), strict=True)] if totals else [0] * len(KEYS)
    return {
        "tokens": sum(row["tokens"] for row in sources.values()),
        "synthetic_tokens": sum(row["synthetic_tokens"] for row in sources.values()),
        "estimated": any(row["estimated"] for row in sources.values()),
        "characters_per_token": round(counted[2] / max(1, counted[3]), 4),
        "sources": sources,
    }


def _read(path: Path, key: str) -> dict[str, dict[str, list[int]]]:
    """What is counted already: shard hash -> counts. A last line that a kill cut off is left out."""
    counted = {}
    if path.exists():
        for line in path.read_bytes().splitlines():
            try:
                row = json.loads(line)
            except ValueError:
                continue
            if row["key"] == key:
                counted[row["shard"]] = row["sources"]
    return counted


def _append(path: Path, row: Mapping[str, Any]) -> None:
    """One line more, on a line of its own even after a line that was cut off."""
    with path.open("ab+") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.write(b"\n")
        file.write(json.dumps(row, ensure_ascii=True).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())
