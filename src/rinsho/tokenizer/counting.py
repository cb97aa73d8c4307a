"""Word counts of a corpus: what the Unigram model is trained on. Memory grows with the words, not with the text.

Worker processes count a shard each and leave sorted runs of words on disk; the runs are merged as a stream, so that
only the final table is ever held, and of that no more than `max_words`.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import zip_longest
from math import lcm
from pathlib import Path

import rinsho
from rinsho.document import Broken, byte_length, read_documents
from rinsho.errors import UserError
from rinsho.files import file_hash
from rinsho.run import Stage, write_atomic
from rinsho.segmentation import dictionary_version, separated
from rinsho.text import clean
from rinsho.tokenizer.selection import Selection, source_name
from rinsho.tokenizer.word_runs import OPEN_FILES, merge_runs, merged, write_run
from rinsho.workers import Count, run_jobs, stop_if_orphan

MAX_WORDS = 4_000_000
SPILL_WORDS = 1_000_000  # a worker writes its words down when it holds so many
FLUSH_CHARS = 1_000_000  # text whose repeated lines are segmented once
PART_BYTES = 128 << 20  # larger shards (as they lie on disk) are counted by several workers
MAX_PARTS = 8  # each of which reads the whole shard
# The growth of the vocabulary is noted after 128 KiB, 256 KiB, 512 KiB, ... of each shard, and after its end.
GRAIN_BYTES = 1 << 17
SLOTS = 64
POINT_RATIO = 1.05  # points inside a shard lie at least this far from the last


@dataclass
class Counts:
    """Words of the training part with their counts, and how much text they come from.

    Attributes:
        words: the words with their weighted counts, in the order of their bytes.
        text_bytes: UTF-8 bytes of the cleaned text, every document once.
        total_words: sum of the weighted counts, words left out included.
        distinct_words: words with a count of 1 or more, words left out included.
        left_out_words: words that `max_words` left out: all those seen fewer than `least_count` times.
        growth: (MB of raw text read, distinct words in it), in the order of the shards.
    """

    words: dict[str, int] = field(default_factory=dict)
    documents: int = 0
    text_bytes: int = 0
    broken: int = 0
    broken_first: list[str] = field(default_factory=list)  # where and why, the first of each shard
    sources: Counter[str] = field(default_factory=Counter)
    total_words: int = 0
    distinct_words: int = 0
    left_out_words: int = 0
    least_count: int = 1
    growth: list[tuple[float, int]] = field(default_factory=list)


@dataclass(frozen=True)
class Job:
    """Documents of one shard: those whose number leaves `part` when divided by `parts`."""

    path: Path
    piece: Path  # appears last and names the runs
    selection: Selection
    user_dictionary: Path | None
    shard: int
    part: int
    parts: int


def count_corpus(
    shards: Sequence[Path],
    selection: Selection,
    user_dictionary: Path | None,
    workers: int,
    stage: Stage,
    *,
    max_words: int = MAX_WORDS,
) -> Counts:
    """The counts over all shards; each shard's piece is kept in `stage.partial`, so an interrupted count continues.

    The result is the same for any number of workers, and but for `growth` for any order of the shards. Of more than
    `max_words` words the rarest are left out, those of equal count together.

    Raises:
        UserError: a shard is damaged.
    """
    folder = stage.partial / f"counts-{_segmentation(user_dictionary)}"
    folder.mkdir(exist_ok=True)
    jobs = _jobs(shards, folder, selection, user_dictionary)
    missing = [job for job in jobs if not job.piece.exists()]
    missing.sort(key=lambda job: (-job.path.stat().st_size // job.parts, job.shard, job.part))
    size_bytes = 0
    with stage.progress("count words", len(jobs), "shards", len(jobs) - len(missing)) as progress:

        def count(_: int, more_bytes: int) -> None:
            nonlocal size_bytes
            size_bytes += more_bytes
            progress.update(0, mb=round(size_bytes / 1e6))

        for _ in run_jobs(_count_shard, missing, workers, count, where="tokenizer.workers"):
            progress.update()
    pieces = [json.loads(job.piece.read_text(encoding="utf-8")) for job in jobs]
    runs = [folder / name for piece in pieces for name in piece["runs"]]
    total = Counts()
    for piece in pieces:
        total.sources.update(piece["sources"])
        total.documents += piece["documents"]
        total.text_bytes += piece["text_bytes"]
        total.broken += piece["broken"]
        total.broken_first += piece["broken_first"]
    stage.log(f"merging {len(runs)} runs of words")
    news = _load(_few(runs, folder, workers), selection.kinds, max_words, total)
    ends = {order: end for job, piece in zip(jobs, pieces, strict=True) if not job.part for order, end in piece["ends"]}
    total.growth = _growth(ends, news)
    return total


def check_sources(counts: Counts, sources: Iterable[str], setting: str) -> None:
    """Raises a `UserError` when a source that a setting names is nowhere in the corpus."""
    absent = [source for source in sources if not counts.sources[source]]
    if absent:
        raise UserError(
            f"no document has the source {', '.join(absent)}",
            where=f"tokenizer.{setting}",
            expected="some of " + ", ".join(sorted(counts.sources)[:20]) + " (None: documents without a source)",
            todo="correct the recipe or leave the setting empty",
        )


def _segmentation(user_dictionary: Path | None) -> str:
    """What decides the words of a text: counts of an interrupted run that were made with another are not taken over."""
    own = file_hash(user_dictionary) if user_dictionary else ""
    parts = f"{rinsho.__version__} {dictionary_version()} {own}"
    return hashlib.blake2b(parts.encode(), digest_size=8).hexdigest()


def _jobs(shards: Sequence[Path], folder: Path, selection: Selection, user_dictionary: Path | None) -> list[Job]:
    jobs = []
    for number, path in enumerate(shards):
        # By size alone: what an interrupted run has counted must fit whatever the number of workers is now.
        parts = 1 if path.name.endswith(".txt") else min(MAX_PARTS, path.stat().st_size // PART_BYTES + 1)
        for part in range(parts):
            piece = folder / f"{number:05d}-{part}.json"
            jobs.append(Job(path, piece, selection, user_dictionary, number, part, parts))
    return jobs


def _count_shard(job: Job, count: Count) -> None:
    tally = _Tally(job)

    def on_broken(record: Broken) -> None:
        tally.broken += 1
        tally.broken_first = tally.broken_first or [f"{Path(record.where).name} ({record.reason})"]

    for number, document in enumerate(read_documents(job.path, on_broken=on_broken)):
        mine = number % job.parts == job.part
        if mine:
            tally.sources[source_name(document)] += 1
        if job.selection.part(document) == "train":
            before = tally.position
            tally.move(byte_length(document.text))
            if mine:
                tally.add(clean(document.text), job.selection.weight(document))
                count(1, tally.position - before)
    tally.finish()


class _Tally:
    """The words of a shard so far, and the runs already on disk.

    Words stand in the order in which they were first seen, so it is enough to note how many there were at the end of
    every stretch of text to know later in which stretch (`order`) each is new.
    """

    def __init__(self, job: Job) -> None:
        self.job, self.kinds = job, job.selection.kinds
        self.position = self.documents = self.text_bytes = self.broken = 0
        self.broken_first: list[str] = []
        self.sources: Counter[str] = Counter()
        self._order = job.shard * SLOTS
        self._ends: dict[int, int] = {}
        self._runs: list[str] = []
        self._lines: list[Counter[str]] = [Counter() for _ in self.kinds]
        self._chars = 0
        self._forget()

    def move(self, size_bytes: int) -> None:
        """A document of the training part comes, this worker's or another's."""
        order = self.job.shard * SLOTS + (self.position // GRAIN_BYTES).bit_length()
        if order != self._order:
            self._flush()
            self._order = order
        self.position += size_bytes
        self._ends[order] = self.position

    def add(self, text: str, weight: float) -> None:
        """Takes in a cleaned document."""
        self.documents += 1
        self.text_bytes += byte_length(text)
        self._lines[self.kinds.index(float(weight))].update(text.split("\n"))
        self._chars += len(text)
        if self._chars >= FLUSH_CHARS:
            self._flush()

    def finish(self) -> None:
        """Writes down what is left; the piece itself comes last."""
        self._flush()
        self._spill()
        row = {
            "documents": self.documents,
            "text_bytes": self.text_bytes,
            "broken": 0 if self.job.part else self.broken,
            "broken_first": [] if self.job.part else self.broken_first,
            "sources": dict(sorted(self.sources.items())),
            "ends": sorted(self._ends.items()),
            "runs": self._runs,
        }
        stop_if_orphan()
        write_atomic(self.job.piece, json.dumps(row, ensure_ascii=False))

    def _flush(self) -> None:
        for kind, lines in enumerate(self._lines):
            words = self._words[kind]
            by_times: dict[int, list[str]] = {}
            for line, times in lines.items():
                by_times.setdefault(times, []).append(line)
            for times, repeated in by_times.items():
                found = separated("\n".join(repeated), self.job.user_dictionary).split(" ")
                if times == 1:
                    words.update(found)
                else:
                    for word, number in Counter(found).items():
                        words[word] += times * number
            lines.clear()
            for separator in ("", "\n"):
                words.pop(separator, None)
            self._news[kind].append((len(words), self._order))
        self._chars = 0
        if sum(map(len, self._words)) >= SPILL_WORDS:
            self._spill()

    def _spill(self) -> None:
        path = self.job.piece.with_suffix(f".{len(self._runs):03d}.tsv")
        write_run(path, self._rows())
        self._runs.append(path.name)
        self._forget()

    def _rows(self) -> Iterator[tuple[str, int, int, int]]:
        for kind, words in enumerate(self._words):
            ends = iter(self._news[kind])
            end, order = 0, 0
            for number, (word, times) in enumerate(words.items()):
                while number >= end:
                    end, order = next(ends)
                yield word, order, kind, times

    def _forget(self) -> None:
        self._words: list[Counter[str]] = [Counter() for _ in self.kinds]
        self._news: list[list[tuple[int, int]]] = [[] for _ in self.kinds]


def _few(runs: list[Path], folder: Path, workers: int) -> list[Path]:
    """The same words in no more runs than may be open at a time."""
    level = 0
    while len(runs) > OPEN_FILES:
        groups = [runs[start : start + OPEN_FILES] for start in range(0, len(runs), OPEN_FILES)]
        targets = [folder / f"merged-{level}-{number:05d}.tsv" for number in range(len(groups))]
        jobs = [job for job in zip(groups, targets, strict=True) if not job[1].exists()]
        for _ in run_jobs(_merge_group, jobs, workers, lambda *_: None, where="tokenizer.workers"):
            pass
        runs, level = targets, level + 1
    return runs


def _merge_group(job: tuple[list[Path], Path], _: Count) -> None:
    merge_runs(*job)


def _load(runs: Sequence[Path], kinds: Sequence[float], max_words: int, total: Counts) -> Counter[int]:
    """Fills in words and sums. Returns how many words are new in each stretch of the corpus, by order."""
    exact = [Fraction(str(weight)) for weight in kinds]
    divisor = lcm(*(weight.denominator for weight in exact))
    factors = [int(weight * divisor) for weight in exact]
    news: Counter[int] = Counter()
    with_count: Counter[int] = Counter()
    for word, order, counts in merged(runs):
        news[order] += 1
        # The sum is exact and rounded once, half up: the same in any order.
        count = (2 * sum(factors[kind] * number for kind, number in counts.items()) + divisor) // (2 * divisor)
        total.total_words += count
        with_count[count] += 1
        if count >= total.least_count:
            total.words[word.decode()] = count
        if len(total.words) > max_words + max_words // 8:
            _trim(total, with_count, max_words)
    _trim(total, with_count, max_words)
    total.distinct_words = with_count.total() - with_count[0]
    total.left_out_words = total.distinct_words - len(total.words)
    return news


def _trim(total: Counts, with_count: Mapping[int, int], max_words: int) -> None:
    """Leaves out the words below the smallest count that fits for the words so far; more words can only raise it."""
    kept = 0
    for count in sorted(with_count, reverse=True):
        kept += with_count[count]
        if kept > max_words:
            total.least_count = count + 1
            break
    if len(total.words) > max_words:
        total.words = {word: count for word, count in total.words.items() if count >= total.least_count}


def _growth(ends: Mapping[int, int], news: Mapping[int, int]) -> list[tuple[float, int]]:
    """Points of (MB, distinct words): the end of every shard, and inside shards where the last point is far."""
    points: list[tuple[float, int]] = []
    read = words = done = 0
    orders = sorted(ends)
    for order, following in zip_longest(orders, orders[1:], fillvalue=-1):
        read, words = done + ends[order], words + news.get(order, 0)
        shard_ends = following // SLOTS != order // SLOTS
        if shard_ends or not points or read > POINT_RATIO * 1e6 * points[-1][0]:
            points.append((round(read / 1e6, 6), words))
        if shard_ends:
            done = read
    return points
