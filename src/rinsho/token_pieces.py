"""Shards to pieces of a token folder, each by a worker process that makes it whole or not at all.

See `rinsho.token_writing`, which joins them.
"""

from __future__ import annotations

import json
import random
import time
from array import array
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import orjson
from numpy.typing import NDArray

from rinsho.document import Broken, Document, byte_length, printable_name, read_documents, writer_of
from rinsho.files import atomic_folder, file_hash
from rinsho.packing import share
from rinsho.progress import Progress
from rinsho.workers import Count, cores, peak_memory_bytes, run_jobs, stop_if_orphan

COUNT_CHARACTERS = 200_000  # a worker tells what it read about this often: some ten times a second
LISTED_BROKEN = 100  # broken records listed of each shard; the others are only counted
WORKER_BYTES = 4 << 20  # of shard files, some 3 s of work, for which a further process (1 s to start) is worth while
READ_SHARE = 0.04  # time for a document that is read and not taken, as a share of one that is encoded

# Copying warm-up (docs/pretrain.md): in our first probe entity extraction was learned only by models
# that could copy. After a share of the documents stand COPIES times: line break, this word, a verbatim span.
COPY_MARKER = "再掲"
COPIES = 3
COPY_TOKENS = (4, 16)  # length of a span

Ids = NDArray[np.unsignedinteger[Any]]


class TextTokenizer(Protocol):
    """What is needed of a tokenizer; `rinsho.tokenization.RinshoTokenizer` has it.

    Where it also has `encode_batch_arrays`, the same ids of many texts as arrays, that is used.
    """

    bos_token_id: int
    eos_token_id: int

    @property
    def newline_id(self) -> int:
        """The id of a line feed."""
        ...

    def encode_text(self, text: str) -> list[int]:
        """The ids of an ordinary text, without begin and end marks."""
        ...

    def __len__(self) -> int: ...


@dataclass(frozen=True)
class Selection:
    """Which documents of the shards are taken: those whose id falls into, or outside, a share of all ids."""

    fraction: float
    inside: bool
    seed: int

    def __call__(self, document: Document) -> bool:
        """Whether the document is taken."""
        return (share(f"{self.seed}:validation:{printable_name(document.id)}") < self.fraction) == self.inside


@dataclass(frozen=True)
class Copying:
    """Which share of the documents is followed by spans of their last `window` tokens. See COPY_MARKER."""

    fraction: float
    window: int
    seed: int


NO_COPIES = Copying(0.0, 0, 0)


@dataclass(frozen=True)
class Job:
    """A shard and the folder its ids go to; picklable when the tokenizer is given as its folder."""

    shard: Path
    piece: Path
    tokenizer: TextTokenizer | Path
    copying: Copying
    selection: Selection | None


@dataclass
class Tally:
    """What this run itself encoded, without what an interrupted one left: for the speed in a report."""

    text_bytes: int = 0
    seconds: float = 0.0
    peak_memory_bytes: int = 0  # of the largest process


def token_dtype(vocab_size: int) -> np.dtype[Any]:
    """The smallest form that holds every id."""
    return np.dtype(np.uint16 if vocab_size <= 1 << 16 else np.uint32)


class Encoded(NamedTuple):
    """What a worker tells of a shard that it encoded, beyond what stands in the piece."""

    text_bytes: int  # UTF-8, of the documents taken
    characters_read: int
    peak_memory_bytes: int


def encode_shard(job: Job, count: Count) -> Encoded:
    """Makes the piece of a shard, whole or not at all.

    `count` is told documents and characters read, taken or not. The piece is a folder with `tokens.bin`, `ids.txt`,
    `lengths.npy` (int64), `sources.npy` (int32 places in the sources of piece.json) and `piece.json`.
    """
    tokenizer = _loaded(job.tokenizer) if isinstance(job.tokenizer, Path) else job.tokenizer
    encoded = _Encoder(tokenizer, job.copying)
    rows: list[dict[str, str]] = []
    lengths, sources = array("q"), _Sources()
    totals = {"characters": 0, "text_bytes": 0, "broken_records": 0}
    read, characters_read = [0, 0], 0

    def on_broken(record: Broken) -> None:
        totals["broken_records"] += 1
        if len(rows) < LISTED_BROKEN:
            line = record.where.removeprefix(str(job.shard))  # ":<line>", or nothing for a whole file
            rows.append({"where": printable_name(job.shard.name) + line, "reason": record.reason})

    def chosen() -> Iterator[Document]:
        nonlocal characters_read
        for document in read_documents(job.shard, on_broken=on_broken):
            read[0] += 1
            read[1] += len(document.text)
            characters_read += len(document.text)
            if read[1] > COUNT_CHARACTERS:
                count(*read)
                read[:] = 0, 0
            if job.selection is None or job.selection(document):
                yield document

    with atomic_folder(job.piece) as aside:
        with (aside / "tokens.bin").open("wb", 1 << 20) as file, (aside / "ids.txt").open("wb", 1 << 20) as names:
            for document, ids in encoded(chosen()):
                file.write(ids.data)
                names.write(orjson.dumps(printable_name(document.id), option=orjson.OPT_APPEND_NEWLINE))
                lengths.append(len(ids))
                totals["characters"] += len(document.text)
                totals["text_bytes"] += byte_length(document.text)
                sources.add(document, len(ids))
        count(*read)
        about = {"shard": printable_name(job.shard.name), "hash": file_hash(job.shard), "documents": len(lengths)}
        record = {**about, "tokens": sum(lengths), **totals, "sources": sources.rows, "broken": rows}
        stop_if_orphan()
        np.save(aside / "sources.npy", np.array(sources.of, np.int32))
        np.save(aside / "lengths.npy", np.array(lengths, np.int64))
        (aside / "piece.json").write_text(json.dumps(record, ensure_ascii=False), encoding="utf-8")
        stop_if_orphan()
    return Encoded(totals["text_bytes"], characters_read, peak_memory_bytes())


class _Sources:
    """The sources of a shard in the order they appear: [name, documents, tokens, characters, licences, models, tokens].

    Licences are counted by documents, under "" those of which none is told; so are the language models that wrote some
    of them, and the tokens at the end are of these documents.
    """

    def __init__(self) -> None:
        self.of = array("i")  # of every document
        self.rows: list[list[Any]] = []
        self._places: dict[str, int] = {}

    def add(self, document: Document, tokens: int) -> None:
        name = printable_name(str(document.meta.get("source") or ""))
        place = self._places.setdefault(name, len(self.rows))
        if place == len(self.rows):
            self.rows.append([name, 0, 0, 0, {}, {}, 0])
        row = self.rows[place]
        row[1:4] = row[1] + 1, row[2] + tokens, row[3] + len(document.text)
        license_ = printable_name(str(document.meta.get("license") or ""))
        row[4][license_] = row[4].get(license_, 0) + 1
        writer = writer_of(document.meta)
        if writer is not None:
            row[5][writer] = row[5].get(writer, 0) + 1
            row[6] += tokens
        self.of.append(place)


def make_pieces(jobs: Sequence[Job], ready: TextTokenizer, workers: int, label: str, tally: Tally) -> None:
    """The missing pieces, the largest shards first."""
    sizes = [job.shard.stat().st_size for job in jobs]
    order = sorted(range(len(jobs)), key=lambda number: (-sizes[number], number))
    missing = [number for number in order if not jobs[number].piece.exists()]
    left = sum(sizes[number] for number in missing)
    workers = min(workers or cores(), len(missing), 1 + int(left * _effort(jobs)) // WORKER_BYTES)
    wanted = [jobs[number] for number in missing]
    if workers <= 1 or not isinstance(jobs[0].tokenizer, Path):
        workers, wanted = 1, [replace(job, tokenizer=ready) for job in wanted]
    started = time.monotonic()
    with Progress(label, sum(sizes), "bytes", sum(sizes) - left) as progress:
        meter = _Meter(progress, left)
        for number, made in run_jobs(encode_shard, wanted, workers, meter.count, where="workers"):
            meter.ended(sizes[missing[number]], made.characters_read)
            tally.text_bytes += made.text_bytes
            tally.peak_memory_bytes = max(tally.peak_memory_bytes, made.peak_memory_bytes)
    tally.seconds += time.monotonic() - started


def _effort(jobs: Sequence[Job]) -> float:
    """Time for these jobs as a share of that for encoding every document."""
    selection = jobs[0].selection if jobs else None
    if selection is None:
        return 1.0
    return max(READ_SHARE, selection.fraction if selection.inside else 1 - selection.fraction)


class _Meter:
    """Progress in bytes of shard files: of the finished ones, and of the others what their characters suggest."""

    def __init__(self, progress: Progress, left: int) -> None:
        self.progress, self.left, self.first = progress, left, progress.done
        self.documents = self.characters = 0  # read by all workers
        self.ended_bytes = self.ended_characters = 0  # of finished shards

    def count(self, documents: int, characters: int) -> None:
        self.documents += documents
        self.characters += characters
        bytes_a_character = self.ended_bytes / self.ended_characters if self.ended_characters else 1.0
        guess = min(bytes_a_character * self.characters, 0.99 * self.left)
        self._show(max(self.ended_bytes, int(guess)))

    def ended(self, size: int, characters: int) -> None:
        self.ended_bytes += size
        self.ended_characters += characters
        self._show(self.ended_bytes)

    def _show(self, done: int) -> None:
        self.progress.update(max(0, self.first + done - self.progress.done), documents=self.documents)


def load_tokenizer(folder: Path) -> TextTokenizer:
    """The tokenizer of a folder."""
    from rinsho.tokenization import load

    return load(folder)


_loaded = lru_cache(maxsize=1)(load_tokenizer)  # once in the life of a worker


class _Encoder:
    """Documents -> begin mark, ids, perhaps copies, end mark of each."""

    def __init__(self, tokenizer: TextTokenizer, copying: Copying) -> None:
        self.tokenizer, self.copying = tokenizer, copying
        self.encode = getattr(tokenizer, "encode_batch_arrays", partial(map, tokenizer.encode_text))
        self.dtype = token_dtype(len(tokenizer))
        self.lead = self._array([])
        if copying.fraction > 0:
            self.lead = self._array([tokenizer.newline_id, *tokenizer.encode_text(COPY_MARKER)])

    def __call__(self, documents: Iterable[Document]) -> Iterator[tuple[Document, Ids]]:
        """Every document with its ids."""
        waiting: deque[Document] = deque()

        def texts() -> Iterator[str]:
            for document in documents:
                waiting.append(document)
                yield document.text

        for ids in self.encode(texts()):
            document = waiting.popleft()
            yield document, self._whole(document, self._array(ids))

    def _whole(self, document: Document, ids: Ids) -> Ids:
        key = f"{self.copying.seed}:copy:{printable_name(document.id)}"
        copies: list[Ids] = []
        if len(self.lead) and len(ids) > COPY_TOKENS[1] and share(key) < self.copying.fraction:
            draw = random.Random(key)
            for _ in range(COPIES):
                length = draw.randint(*COPY_TOKENS)
                start = draw.randint(max(0, len(ids) - self.copying.window), len(ids) - length)
                copies += [self.lead, ids[start : start + length]]
        begin, end = self._array([self.tokenizer.bos_token_id]), self._array([self.tokenizer.eos_token_id])
        return np.concatenate([begin, ids, *copies, end])

    def _array(self, ids: Any) -> Ids:
        return np.asarray(ids, self.dtype)
