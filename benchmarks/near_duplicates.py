"""Near-duplicates of real documents with planted copies: ours, datasketch, rensa and datatrove against brute force.

Usage: python benchmarks/near_duplicates.py TEXT_FOLDER [documents, 3000] [threshold, 0.7]

Documents come evenly from the groups of files (the part of a file's name before the first "-"), cleaned, cut after
10,000 characters; of each of them one copy is planted with 0, 1, 3 or 5 % of its characters replaced, inserted or left
out. Truth is the Jaccard index of the sets of character 5-grams (without white space) of all pairs, by a sparse matrix
product over exact n-grams. All detectors see the same texts in the same order, use 5-grams and 120 hash values, and run
on one core; times are CPU seconds. A document should go when brute force, taking documents in order, finds an earlier
kept one at the threshold. Recall: how many of these go. Precision: how many of those that go are at the threshold to
some other document. Ours verifies each pair; rensa checks its own estimate; datasketch and datatrove take candidates.
"""

from __future__ import annotations

import os
import platform
import sys
import tempfile
import time
from array import array
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np

from rinsho.document import read_documents, shard_paths
from rinsho.overlap.near import GramFiles, greedy, groups, write_grams
from rinsho.overlap.sketch import sketch
from rinsho.text import clean

SIZE, VALUES, MAX_CHARS = 5, 120, 10_000
BANDS = {0.6: 30, 0.7: 24, 0.8: 20}
RATES = (0.0, 0.01, 0.03, 0.05)
CLASSES = ((20, 100), (100, 300), (300, 1000), (1000, 3000), (3000, MAX_CHARS + 1000))


@dataclass
class Given:
    """The texts, which rate each was edited at (None for originals), and what brute force says."""

    texts: list[str]
    rates: list[float | None]
    near: dict[int, set[int]]
    wanted: set[int]


@dataclass
class Found:
    """Documents that went; CPU seconds of the signatures alone and of everything; candidate pairs, if known."""

    gone: set[int]
    signature_seconds: float
    seconds: float
    met: set[tuple[int, int]] | None = None


def originals(folder: Path, count: int) -> list[str]:
    """Cleaned documents, evenly from the groups of files."""
    paths: dict[str, list[Path]] = defaultdict(list)
    for path in shard_paths([folder]):
        paths[path.name.split("-")[0].split(".")[0]].append(path)
    streams = [(document for path in group for document in read_documents(path)) for group in paths.values()]
    texts: dict[str, None] = {}
    while streams and len(texts) < count:
        for stream in list(streams):
            document = next(stream, None)
            if document is None:
                streams.remove(stream)
                continue
            text = clean(document.text[:MAX_CHARS])
            if len(text) >= CLASSES[0][0]:
                texts[text] = None
    return list(texts)[:count]


def edited(text: str, rate: float, rng: Random, letters: str) -> str:
    """The text with this share of its characters replaced, put in twice with another, or left out."""
    made = list(text)
    for place in range(len(made)):
        if rng.random() < rate:
            made[place] = rng.choice((rng.choice(letters), made[place] + rng.choice(letters), ""))
    return "".join(made)


def plant(texts: Sequence[str], threshold: float) -> Given:
    """The texts and one edited copy of each, shuffled, with the truth."""
    rng = Random(1)
    letters = "".join(rng.choices("".join(texts[:200]), k=5000)).replace("\n", "").replace(" ", "")
    rows: list[tuple[str, float | None]] = [(text, None) for text in texts]
    rows += [(edited(text, RATES[n % 4], rng, letters), RATES[n % 4]) for n, text in enumerate(texts)]
    rng.shuffle(rows)
    near = brute_force([text for text, _ in rows], threshold)
    wanted: set[int] = set()
    for number in range(len(rows)):
        if any(other < number and other not in wanted for other in near[number]):
            wanted.add(number)
    return Given([text for text, _ in rows], [rate for _, rate in rows], near, wanted)


def grams(text: str) -> set[str]:
    """The character 5-grams of a clean text without white space."""
    plain = "".join(text.split())
    return {plain[i : i + SIZE] for i in range(max(len(plain) - SIZE + 1, 1))}


def brute_force(texts: Sequence[str], threshold: float) -> dict[int, set[int]]:
    """For each text all others whose Jaccard index reaches the threshold."""
    from scipy.sparse import csr_matrix

    numbers: dict[str, int] = {}
    columns, ends = array("q"), [0]
    for text in texts:
        columns.extend(numbers.setdefault(gram, len(numbers)) for gram in grams(text))
        ends.append(len(columns))
    shape = (len(texts), len(numbers))
    matrix = csr_matrix((np.ones(len(columns), np.int32), np.asarray(columns), np.asarray(ends)), shape=shape)
    frequency = np.bincount(matrix.indices, minlength=shape[1])
    matrix = matrix[:, frequency > 1]
    sizes, turned = np.diff(ends), matrix.T.tocsr()
    near: dict[int, set[int]] = {number: set() for number in range(len(texts))}
    for start in range(0, len(texts), 200):
        shared = (matrix[start : start + 200] @ turned).tocoo()
        one, other, count = shared.row + start, shared.col, shared.data
        good = (count >= threshold * (sizes[one] + sizes[other] - count)) & (one != other)
        for first, second in zip(one[good].tolist(), other[good].tolist(), strict=True):
            near[first].add(second)
    return near


def ours(texts: Sequence[str], threshold: float) -> Found:
    """Sketches of 256 documents at a time (with the sentence hashes), candidates, n-gram files, greedy."""
    bands = BANDS[threshold]
    started = time.process_time()
    signatures = np.concatenate([
        sketch(texts[n : n + 256], size=SIZE, bands=bands, rows=VALUES // bands, min_chars=15).signatures
        for n in range(0, len(texts), 256)
    ])  # fmt: skip
    signed = time.process_time()
    candidates = groups([signatures], np.ones(len(texts), bool))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "grams"
        write_grams(((number, texts[number]) for number in candidates.documents.tolist()), SIZE, path)
        files = GramFiles([path])
        verdict = greedy(candidates, np.arange(len(texts), dtype=np.uint64), files, threshold)
    seconds = time.process_time() - started
    met = set()
    for start, end in zip(candidates.bounds[:-1], candidates.bounds[1:], strict=True):
        members = candidates.members[start:end].tolist()
        met |= {(one, other) for n, one in enumerate(members) for other in members[n + 1 :]}
    print(f"ours: {len(candidates.documents)} candidates, {verdict.compared} pairs compared, {verdict.capped} capped")
    return Found(set(verdict.dropped), signed - started, seconds, met)


def with_datasketch(texts: Sequence[str], threshold: float) -> Found:
    """MinHash and MinHashLSH; a document goes when an earlier kept one is a candidate."""
    from datasketch import MinHash, MinHashLSH

    started = time.process_time()
    hashes = []
    for text in texts:
        made = MinHash(num_perm=VALUES, seed=1)
        made.update_batch([gram.encode("utf-8", "surrogatepass") for gram in grams(text)])
        hashes.append(made)
    signed = time.process_time()
    index, gone = MinHashLSH(threshold=threshold, num_perm=VALUES), set()
    for number, made in enumerate(hashes):
        if index.query(made):
            gone.add(number)
        else:
            index.insert(number, made)
    return Found(gone, signed - started, time.process_time() - started)


def with_rensa(texts: Sequence[str], threshold: float) -> Found:
    """RMinHash and RMinHashLSH; a document goes when a candidate's estimated index reaches the threshold."""
    from rensa import RMinHash, RMinHashLSH

    started = time.process_time()
    hashes = []
    for text in texts:
        made = RMinHash(num_perm=VALUES, seed=1)
        made.update(list(grams(text)))
        hashes.append(made)
    signed = time.process_time()
    index, gone = RMinHashLSH(threshold=threshold, num_perm=VALUES, num_bands=BANDS[threshold]), set()
    for number, made in enumerate(hashes):
        if any(made.jaccard(hashes[other]) >= threshold for other in index.query(made)):
            gone.add(number)
        else:
            index.insert(number, made)
    return Found(gone, signed - started, time.process_time() - started)


def with_datatrove(texts: Sequence[str], threshold: float) -> Found:
    """Its four steps in one process, with characters as words; all but one of a cluster go."""
    from datatrove.data import Document
    from datatrove.pipeline.dedup import minhash
    from datatrove.utils.text import TextNormConfig

    class Characters:
        def word_tokenize(self, text: str) -> list[str]:
            return [letter for letter in text if not letter.isspace()]

    minhash.load_word_tokenizer = lambda _: Characters()
    plain = TextNormConfig(**dict.fromkeys(TextNormConfig.__dataclass_fields__, False))
    bands = BANDS[threshold]
    config = minhash.MinhashConfig(
        n_grams=SIZE, num_buckets=bands, hashes_per_bucket=VALUES // bands, norm_config=plain
    )
    with tempfile.TemporaryDirectory() as folder:
        places = [f"{folder}/{name}" for name in ("signatures", "buckets", "removed")]

        def documents() -> Iterator[Document]:
            return (Document(text=text, id=str(number)) for number, text in enumerate(texts))

        started = time.process_time()
        step = minhash.MinhashDedupSignature(places[0], config=config)
        step._hash_func = lambda gram, hashed=step._hash_func: hashed(gram.encode("utf-8", "surrogatepass"))
        step.run(documents())
        signed = time.process_time()
        for bucket in range(bands):
            minhash.MinhashDedupBuckets(places[0], places[1], config=config).run(None, bucket, bands)
        minhash.MinhashDedupCluster(places[1], places[2], config=config).run(None, 0, 1)
        kept = {int(document.id) for document in minhash.MinhashDedupFilter(places[2]).run(documents(), 0, 1)}
        return Found(set(range(len(texts))) - kept, signed - started, time.process_time() - started)


def share(part: int, whole: int) -> str:
    """A fraction with three digits and its base."""
    return f"{part / whole:.3f} of {whole}" if whole else "none"


def details(given: Given, found: Found) -> None:
    """Recall and precision of one detector per edit rate and per length class."""
    print("\n| part | documents that should go: recall | of those that went: precision | pairs: found as candidates |")
    print("|---|---:|---:|---:|")
    parts: list[tuple[str, Callable[[int], bool]]] = [
        (f"copies, {rate:.0%} edited", lambda n, rate=rate: given.rates[n] == rate) for rate in RATES
    ]
    parts.append(("originals", lambda n: given.rates[n] is None))
    parts += [
        (f"{low} to {high - 1} characters", lambda n, low=low, high=high: low <= len(given.texts[n]) < high)
        for low, high in CLASSES
    ]
    parts.append(("all", lambda _: True))
    for name, inside in parts:
        wanted = {n for n in given.wanted if inside(n)}
        gone = {n for n in found.gone if inside(n)}
        pairs = {(min(n, m), max(n, m)) for n, others in given.near.items() if inside(n) for m in others}
        met = share(len(pairs & (found.met or set())), len(pairs))
        right = sum(bool(given.near[n]) for n in gone)
        print(f"| {name} | {share(len(gone & wanted), len(wanted))} | {share(right, len(gone))} | {met} |")


def main() -> None:
    """Prints both tables."""
    folder, count = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 3000
    threshold = float(sys.argv[3]) if len(sys.argv) > 3 else 0.7
    given = plant(originals(folder, count), threshold)
    size = sum(len(text.encode("utf-8", "surrogatepass")) for text in given.texts)
    print(
        f"python {platform.python_version()}, {platform.machine()}, load {os.getloadavg()[0]:.1f}, from {threshold} on"
    )
    pairs = sum(map(len, given.near.values())) // 2
    print(f"{len(given.texts)} documents, {size / 1e6:.1f} MB, {pairs} near pairs, {len(given.wanted)} should go\n")
    rows, own = [], None
    detectors = (("ours", ours), ("datasketch", with_datasketch), ("rensa", with_rensa), ("datatrove", with_datatrove))
    for name, detector in detectors:
        try:
            found = detector(given.texts, threshold)
        except ModuleNotFoundError as error:
            rows.append(f"| {name} | not installed ({error.name}) | | | | | | |")
            continue
        own = own or found
        right = sum(bool(given.near[n]) for n in found.gone)
        cells = [share(len(found.gone & given.wanted), len(given.wanted)), share(right, len(found.gone))]
        cells += [f"{seconds / size * 1e9:.1f}" for seconds in (found.signature_seconds, found.seconds)]
        cells += [f"{size / 1e6 / seconds:.1f}" for seconds in (found.signature_seconds, found.seconds)]
        rows.append(f"| {name} | {' | '.join(cells)} | {len(given.texts) / found.seconds:,.0f} |")
    print(
        "\n| detector | recall | precision | signature ns/byte | whole ns/byte | signature MB/s | whole MB/s | docs/s |"
    )
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    print("\n".join(rows))
    if own:
        print("\nOurs (its signature column includes the sentence hashes):")
        details(given, own)


if __name__ == "__main__":
    main()
