"""Which test passages a model may have seen: in what it was tuned on, and in whole corpora.

Exactly: the passage stands in the training data whole (NFKC, as clean text, without white space), also as a part of a
longer text; the other way round, a trained sentence that stands in a test passage is no leak. Nearly:

* in what a model was tuned on, a passage whose character 5-grams have a Jaccard similarity above 0.8, as the `document`
  split means it;
* in a corpus, a document that at least 80 % of the passage's characters are shared with, in runs of `chars` characters
  or more. One document must hold them: pieces scattered over a corpus are no leak.

A passage of fewer than `chars` characters is looked for whole, down to 12 characters; a shorter one stands somewhere
by chance and cannot be told (in what a model was tuned on it counts where it is a whole text there). A sentence pair
has leaked when either sentence has.

All runs count, the wording of templates too. Decontamination leaves out what stands in more than two questions, since
there one shared run drops a document. Here such wording alone is never four fifths of a passage (in JMED-LLM and
IgakuQA no passage is made of it), and leaving it out would hide the texts that several questions are about.

Source: SPEC P-2; 24 characters, 80 % and 12 characters are our choice.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np

from rinsho.document import Broken, byte_length, read_documents, shard_paths, training_folder
from rinsho.errors import UserError
from rinsho.evaluate.ask import by_task
from rinsho.evaluate.corpora import corpora_of
from rinsho.evaluate.facts import name_of
from rinsho.files import write_atomic
from rinsho.overlap import near_duplicates
from rinsho.overlap.codes import compact
from rinsho.overlap.passages import Passages
from rinsho.progress import Progress
from rinsho.run import Stage
from rinsho.tasks import Item, documents, passages
from rinsho.text import clean
from rinsho.workers import Count, cores, run_jobs

NEAR_SHARE = 0.8
SHORT_CHARS = 12
NO_CONTAINMENT = 1.1  # a trained sentence that stands inside a test passage does not make this a leak
UNKNOWN = "unknown: the model folder does not say what it was trained on"
TELL_DOCUMENTS = 200  # documents between two counts
UNPACKED = {".zst": 5, ".gz": 4, ".parquet": 3}  # text bytes a byte on the disk, for the progress line only
ALONE_BYTES = 32 << 20  # files together smaller than this are not worth starting processes for


Values = Mapping[tuple[str, str], Mapping[str, float]]  # (task, mode) -> item id -> headline value


@dataclass(frozen=True)
class Leak:
    """The test items whose passage, or one of whose two sentences, stands in some training data.

    Attributes:
        source: which data, in words.
        exact: ids of items with a passage that stands there whole.
        near: ids of further items with a passage that nearly stands there.
        too_short: ids of further items with a passage too short to be told.
    """

    source: str
    exact: frozenset[str]
    near: frozenset[str]
    too_short: frozenset[str] = frozenset()


def tuned(
    items: Sequence[Item], known: frozenset[str] | None, train: Sequence[Item], split: str | None = None
) -> Leak | None:
    """The test items that a model was tuned on; None when nothing is known of its tuning.

    Args:
        items: the test items.
        known: keys of the documents that the model folder lists; None when it lists none.
        train: the training part as it can be computed again, or nothing. Of the passages in it only the `known` ones
            are compared where the folder lists them.
        split: how that part was made, for `source`.
    """
    texts = {key: text for item in train for key, text in zip(documents(item), passages(item), strict=True)}
    source = "documents listed in the model folder"
    if known is None:
        if not train:
            return None
        source = "training part of the data under the model's split" + (f" ({split})" if split else "")
        known = frozenset(texts)
    exact = frozenset(item.id for item in items if known.intersection(documents(item)))
    exact |= _inside([item for item in items if item.id not in exact], [t for key, t in texts.items() if key in known])
    rest = {text: None for item in items if item.id not in exact for text in passages(item)}
    given = [text for key, text in texts.items() if key in known]
    found = near_duplicates(list(rest), given, containment=NO_CONTAINMENT)
    similar = {text for text, other in zip(rest, found, strict=True) if other is not None}
    near = frozenset(item.id for item in items if item.id not in exact and similar.intersection(passages(item)))
    return Leak(source, exact, near)


def _inside(items: Sequence[Item], texts: Sequence[str]) -> frozenset[str]:
    """The items with a passage of at least 12 characters that stands whole in one of the texts."""
    wanted = _Wanted.of(items, SHORT_CHARS)
    whole = np.zeros(len(wanted.texts), bool)
    for index, numbers in _indexes(wanted.texts, SHORT_CHARS) if texts else ():
        for text in map(compact, map(clean, texts)):
            _mark_whole(index, numbers, text, *index.covered(text), whole)
    return wanted.owners(whole)


def in_corpora(items: Sequence[Item], paths: Sequence[Path], chars: int, stage: Stage) -> Leak:
    """The test items whose passages stand in corpora.

    Finished files are kept in the partial folder of the stage, so that a killed run does not read them again. Memory
    grows with the test passages and the longest document, not with the corpora.

    Args:
        items: the test items.
        paths: corpora in any form that `rinsho.document` reads, or training runs (see `corpora_of`).
        chars: length of the shared runs that count, in characters without white space.
        stage: of the evaluation.

    Raises:
        UserError: a path or a corpus that a run names is not there, or holds no text.
    """
    wanted = _Wanted.of(items, chars)
    corpora = list(dict.fromkeys(corpus for path in paths for corpus in corpora_of(Path(path))))
    files = list(dict.fromkeys(file.resolve() for file in shard_paths(map(training_folder, corpora))))
    best, whole = _search(wanted, files, stage)
    lengths = np.array([len(text) // 2 for text in wanted.texts])
    near = (best > 0) & (best >= NEAR_SHARE * lengths - 1e-9)
    exact_ids = wanted.owners(whole)
    near_ids = wanted.owners(near) - exact_ids
    too_short = wanted.owners(lengths < min(SHORT_CHARS, chars)) - exact_ids - near_ids
    return Leak("text of " + ", ".join(map(name_of, corpora)), exact_ids, near_ids, too_short)


def table(items: Sequence[Item], leaks: Sequence[Leak], values: Values | None = None) -> list[dict[str, Any]]:
    """One row per task (IgakuQA by year) and source.

    `questions`, of which `exact`, `near` and `too_short`; distinct `passages`, of which `passages_leaked`, exactly or
    nearly, and their `share`; `scores` by mode of the seen and of the other questions (`parts`). A sentence pair counts
    as one passage. `too_short` ones, which cannot be told, have not leaked.
    """
    rows = []
    for task, group in by_task(items):
        ids = {item.id for item in group}
        distinct = {documents(item) for item in group}
        for leak in leaks:
            seen = {documents(item) for item in group if item.id in leak.exact | leak.near}
            rows.append({
                "task": task, "source": leak.source, "questions": len(ids), "exact": len(ids & leak.exact),
                "near": len(ids & leak.near), "too_short": len(ids & leak.too_short), "passages": len(distinct),
                "passages_leaked": len(seen), "share": len(seen) / len(distinct),
                "scores": {mode: parts(of, [leak]) for (name, mode), of in (values or {}).items() if name == task},
            })  # fmt: skip
    return rows


def parts(values: Mapping[str, float], leaks: Sequence[Leak]) -> dict[str, dict[str, Any] | None]:
    """`leaked` and `clean`: number and mean of the values, by item id, of items seen by any source, or clean by all.

    An item that is too short for a source to tell, and not seen by another one, is in neither. Both are None where
    there is no source.
    """
    if not leaks:
        return {"leaked": None, "clean": None}
    seen = frozenset().union(*(leak.exact | leak.near for leak in leaks))
    untold = frozenset().union(*(leak.too_short for leak in leaks)) - seen
    sides = {
        "leaked": [value for name, value in values.items() if name in seen],
        "clean": [value for name, value in values.items() if name not in seen | untold],
    }
    return {side: {"n": len(of), "score": sum(of) / len(of) if of else None} for side, of in sides.items()}


@dataclass(frozen=True)
class _Wanted:
    """The different test passages (UTF-16 of clean text without white space) and the items that they are of."""

    texts: tuple[bytes, ...]
    items: tuple[tuple[str, ...], ...]
    chars: int

    @classmethod
    def of(cls, items: Sequence[Item], chars: int) -> _Wanted:
        found: dict[bytes, list[str]] = {}
        for item in items:
            for text in passages(item):
                found.setdefault(compact(clean(text)).tobytes(), []).append(item.id)
        return cls(tuple(found), tuple(map(tuple, found.values())), chars)

    def owners(self, chosen: np.ndarray) -> frozenset[str]:
        """The items of the chosen passages, bool (passages,)."""
        return frozenset(name for number in np.flatnonzero(chosen).tolist() for name in self.items[number])

    def digest(self) -> str:
        """Tells these passages, and what is looked for, from others."""
        hashed = blake2b(f"{self.chars} {SHORT_CHARS}".encode(), digest_size=8)
        for text in self.texts:
            hashed.update(len(text).to_bytes(8, "little") + text)
        return hashed.hexdigest()


@dataclass(frozen=True)
class _Job:
    """A file to look through for passages."""

    texts: tuple[bytes, ...]
    chars: int
    path: Path


def _search(wanted: _Wanted, files: Sequence[Path], stage: Stage) -> tuple[np.ndarray, np.ndarray]:
    """Per passage (characters shared with its best document int64, whether it stands in one whole bool)."""
    folder, digest = stage.partial / "leakage", wanted.digest()
    folder.mkdir(parents=True, exist_ok=True)
    kept = {path: folder / f"{_name(path, digest)}.json" for path in files}
    todo = [path for path in files if not kept[path].is_file()]
    sizes = {path: path.stat().st_size for path in files}
    done = sum(sizes.values()) - sum(sizes[path] for path in todo)
    jobs = [_Job(wanted.texts, wanted.chars, path) for path in todo]
    workers = cores() if sum(sizes[path] for path in todo) > ALONE_BYTES else 1
    started = monotonic()
    with stage.progress("leakage", sum(sizes.values()), "bytes", done) as progress:
        told = _telling(progress)
        for number, row in run_jobs(_look, jobs, workers, told, where="evaluate.leakage_corpus"):
            write_atomic(kept[todo[number]], json.dumps(row) + "\n")
    rows = [json.loads(kept[path].read_text(encoding="utf-8")) for path in files]
    _tell(stage, rows, [json.loads(kept[path].read_text(encoding="utf-8")) for path in todo], monotonic() - started)
    best, whole = np.zeros(len(wanted.texts), np.int64), np.zeros(len(wanted.texts), bool)
    for row in rows:
        for number, shared, stands in row["found"]:
            best[number] = max(best[number], shared)
            whole[number] |= stands
    if not any(row["documents"] for row in rows):
        raise UserError(
            "no text in the corpora", where=", ".join(map(str, files[:3])), expected="documents with a field text",
            todo="check evaluate.leakage_corpus",
        )  # fmt: skip
    return best, whole


def _telling(progress: Progress) -> Count:
    """Feeds a progress line in bytes; the documents stand behind the rate."""
    total = 0

    def told(documents: int, size_bytes: int) -> None:
        nonlocal total
        total += documents
        progress.update(size_bytes, documents=total)

    return told


def _tell(stage: Stage, rows: Sequence[Mapping[str, Any]], read: Sequence[Mapping[str, Any]], seconds: float) -> None:
    """One line on what was looked through, and a warning where records could not be read."""
    documents, text_mb = (sum(row[name] for row in rows) for name in ("documents", "text_bytes"))
    rate = sum(row["text_bytes"] for row in read) / 1e6 / max(seconds, 1e-9)
    told = f", {rate:.1f} MB/s" if read else ""
    stage.log(f"leakage: {documents:,} documents, {text_mb / 1e6:,.1f} MB of text looked through{told}")
    broken = sum(row["broken"] for row in rows)
    if broken:
        stage.log(f"warning: {broken:,} records of the corpora hold no readable text and were left out")


def _name(path: Path, digest: str) -> str:
    """Tells a file and what is looked for in it from others, also from the same file before it changed."""
    about = path.stat()
    told = f"{digest} {path} {about.st_size} {about.st_mtime_ns}"
    return blake2b(told.encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()


def _look(job: _Job, count: Count) -> dict[str, Any]:
    """What one file holds: `found` rows of [passage, characters shared with its best document, stands whole]."""
    parts = _indexes(job.texts, job.chars)
    best, whole = np.zeros(len(job.texts), np.int64), np.zeros(len(job.texts), bool)
    told = _Told(job.path, count)
    for document in read_documents(job.path, on_broken=told.broken_record):
        told.document(document.text)
        text = compact(clean(document.text))
        for index, numbers in parts:
            found, shared = index.covered(text)
            _mark_whole(index, numbers, text, found, shared, whole)
            if index.chars == job.chars:  # a short passage counts whole or not at all
                np.maximum.at(best, numbers[found], shared)
    told.end()
    some = np.flatnonzero(whole | (best > 0)).tolist()
    rows = [[number, int(best[number]), bool(whole[number])] for number in some]
    return {"documents": told.documents, "broken": told.broken, "text_bytes": told.text_bytes, "found": rows}


def _mark_whole(  # noqa: PLR0917
    index: Passages, numbers: np.ndarray, text: np.ndarray, found: np.ndarray, shared: np.ndarray, whole: np.ndarray
) -> None:
    """Sets `whole`, by number, for the passages that stand in the text; `found` and `shared` are its `covered`."""
    for place in found[(shared == index.lengths[found]) & ~whole[numbers[found]]].tolist():
        whole[numbers[place]] = index.stands(place, text)


class _Told:
    """Counts what is read of a file and tells it on, in bytes on the disk as far as they can be guessed."""

    def __init__(self, path: Path, count: Count) -> None:
        self.documents = self.broken = self.text_bytes = 0
        self._count, self._size = count, path.stat().st_size
        self._factor = UNPACKED.get(path.suffix, 1)
        self._documents_told = self._bytes_told = 0

    def broken_record(self, _: Broken) -> None:
        self.broken += 1

    def document(self, text: str) -> None:
        self.documents += 1
        self.text_bytes += byte_length(text)
        if self.documents % TELL_DOCUMENTS == 0:
            self._tell(min(self.text_bytes // self._factor, self._size))

    def end(self) -> None:
        self._tell(self._size)

    def _tell(self, size_bytes: int) -> None:
        self._count(self.documents - self._documents_told, size_bytes - self._bytes_told)
        self._documents_told, self._bytes_told = self.documents, size_bytes


@lru_cache(maxsize=1)
def _indexes(texts: tuple[bytes, ...], chars: int) -> list[tuple[Passages, np.ndarray]]:
    """(index, its passages' numbers in `texts`) of the long passages and of the short ones."""
    lengths = np.array([len(text) // 2 for text in texts])
    parts = [(chars, lengths >= chars), (SHORT_CHARS, (lengths >= SHORT_CHARS) & (lengths < chars))]
    found = []
    for size, chosen in parts:
        numbers = np.flatnonzero(chosen)
        if len(numbers):
            given = [np.frombuffer(texts[number], np.uint16) for number in numbers]
            found.append((Passages.of(given, size), numbers))
    return found
