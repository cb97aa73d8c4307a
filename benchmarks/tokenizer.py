"""The tokenizer against its peers: training, memory, speed, exactness. Each part can be run alone.

Usage: python benchmarks/tokenizer.py TEXT_FOLDER [--medical FOLDER_OR_GLOB] [--lexicon FILE] [--part PART ...]
           [--sizes 40,130,375] [--tokenizer FOLDER] [--workers 2] [--work FOLDER] [--out NOTE.md]

Needs the extra `tokenizer`; all peers come with it.

TEXT_FOLDER holds .jsonl.zst files: raw-* are the noisy slice (used by `exact` only), medical-* medical, aozora-* prose.
--medical: other medical texts, never trained on (CSV with a column text, question or sentence1/2, or documents).
--lexicon: a word list for the MeCab user dictionary, the same for all.

train  The same MeCab words to each trainer at each size (MB of raw text, documents by hash of the id, nested): seconds,
       memory of the training process, pieces, frequent words that are one piece, characters per token on documents held
       out. All vocabularies are run by the same code, a Unigram model over MeCab words.
curve  `rinsho tokenizer` as a whole at each size with one and with more workers: time, memory of all processes, bytes.
speed  Raw text to ids against MeCab alone, BertJapaneseTokenizer, encode_batch and sentencepiece on one core.
exact  Every document, the noisy slice too: decode(encode(x)) == clean(x), and the ids of the word cache are those
       of the backend in tokenizer.json, which knows nothing of the cache, of the call and of `encode_aligned`.

`speed` and `exact` use --tokenizer, else the largest that `curve` made, else one trained on the smallest size.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import resource
import shlex
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import lru_cache
from importlib import metadata
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from tokenizer_speed import plain_folder, speed
from tokenizer_texts import clean_paths
from tokenizer_training import train

from rinsho.document import read_documents, shard_paths
from rinsho.text import clean

PARTS = ("train", "curve", "speed", "exact")
PACKAGES = ("tokenizers", "transformers", "sentencepiece", "fugashi", "ipadic", "numpy")
ALIGNED_EVERY = 16  # `encode_aligned` is slow: every 16th document
STRIPES = 4  # pieces a file is checked in, so that one large file does not hold up the end


class Note:
    """Prints, and appends to the note when one is given."""

    def __init__(self, path: Path | None) -> None:
        self.path = path

    def __call__(self, text: str = "") -> None:
        print(text, flush=True)
        if self.path is not None:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(text + "\n")


def tree(process_id: int) -> list[int]:
    """A process and all its descendants."""
    try:
        tasks = list(Path(f"/proc/{process_id}/task").iterdir())
        children = [int(child) for task in tasks for child in (task / "children").read_text().split()]
    except OSError:
        return [process_id]
    return [process_id, *(each for child in children for each in tree(child))]


def own_mib(process_id: int) -> float:
    """Memory of its own a process has now, MiB; pages of memory-mapped files are not counted."""
    try:
        status = Path(f"/proc/{process_id}/status").read_text(encoding="utf-8")
    except OSError:
        return 0.0
    return int(status.split("RssAnon:")[1].split()[0]) / 1024 if "RssAnon:" in status else 0.0


def run_stage(options: argparse.Namespace, size_mb: float, workers: int, out: Path) -> dict[str, Any]:
    """One run of `rinsho tokenizer`: its numbers, seconds, CPU seconds, peak MiB of the largest process and of all."""
    values = {"workers": workers, "max_train_mb": size_mb, "vocab_size": options.vocab_size}
    lists = [str(options.lexicon)] if options.lexicon else []
    settings = [f"tokenizer.{name}={value}" for name, value in values.items()]
    command = [sys.executable, "-m", "rinsho", "tokenizer", *map(str, clean_paths(options.folder)), *lists]
    command += [word for setting in settings for word in ("--set", setting)] + ["--out", str(out)]
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    log = out.with_suffix(".log")
    with log.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file)
        largest = together = 0.0
        while process.poll() is None:
            now = [own_mib(each) for each in tree(process.pid)]
            largest, together = max(largest, *now), max(together, sum(now))
            time.sleep(0.05)
    if process.returncode:
        raise SystemExit(f"{shlex.join(command)} ended with {process.returncode}: see {log}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "seconds": time.monotonic() - started,
        "cpu": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "largest": largest,
        "together": together,
        **json.loads((out / "report.json").read_text(encoding="utf-8"))["numbers"],
    }


def curve(options: argparse.Namespace, note: Note, work: Path) -> Path:
    """Prints time, memory and words of whole runs at all sizes; the folder of the largest."""
    note(
        "## The whole run: `rinsho tokenizer`\n\nMemory is anonymous memory, sampled every 50 ms; the files are those "
        "of the tokenizer folder.\n\n| wanted MB | MB trained on | workers | seconds | CPU seconds | "
        "peak MiB, largest process | peak MiB, all processes | words | distinct words | pieces | files |\n|---:|"
        + "---:|" * 9
        + "---|"
    )
    out = work
    for size in options.sizes:
        digests: list[str] = []
        for workers in dict.fromkeys((1, options.workers)):
            out = work / f"run-{size:g}-{workers}"
            numbers = run_stage(options, size, workers, out)
            digests.append(folder_hash(out))
            verdict = digests[0] if workers == 1 else ("the same" if digests[0] == digests[-1] else "**differ**")
            note(
                f"| {size:g} | {numbers['train_mb']:.1f} | {workers} | {numbers['seconds']:.0f} | "
                f"{numbers['cpu']:.0f} | "
                f"{numbers['largest']:.0f} | {numbers['together']:.0f} | {numbers['words']:,} | "
                f"{numbers['distinct_words']:,} | {numbers['vocab_size']:,} | {verdict} |"
            )
    note()
    return out


def folder_hash(folder: Path) -> str:
    """A hash over the tokenizer files of a run folder, the plain form included."""
    digest = hashlib.blake2b(digest_size=8)
    names = (
        "tokenizer.json",
        "tokenizer_config.json",
        "user.dic",
        "plain/tokenizer.json",
        "plain/tokenizer_config.json",
    )
    for name in names:
        if (folder / name).is_file():
            digest.update(name.encode() + (folder / name).read_bytes())
    return digest.hexdigest()


@lru_cache(maxsize=1)
def both_forms(folder: Path) -> dict[str, tuple[Any, Any]]:
    """The strict and the plain tokenizer, and for each the backend in its file, which knows nothing of the cache."""
    from tokenizers import Tokenizer

    from rinsho.tokenization import load

    forms = {}
    for form, place in (("strict", folder), ("plain", plain_folder(folder))):
        backend = Tokenizer.from_file(str(place / "tokenizer.json"))
        backend.encode_special_tokens = True
        forms[form] = load(place), backend
    return forms


def check_stripe(path: Path, stripe: int, stripes: int, folder: Path) -> tuple[int, int, int, Counter[str], list[str]]:
    """Documents, characters, tokens, checks done in a part of a file, and what failed: `form:check:id`, never text."""
    from rinsho.segmentation import separated

    forms = both_forms(folder)
    dictionary = forms["strict"][0].user_dictionary
    documents = characters = tokens = 0
    done: Counter[str] = Counter()
    failed = []
    for number, document in enumerate(read_documents(path)):
        if number % stripes != stripe:
            continue
        cleaned = clean(document.text)
        documents += 1
        characters += len(cleaned)
        for form, (tokenizer, backend) in forms.items():
            ids = tokenizer.encode_text(document.text)
            tokens += len(ids)
            given = separated(cleaned, dictionary) if form == "strict" else cleaned
            checks = {
                "round_trip": tokenizer.decode(ids) == cleaned,
                "backend": backend.encode_batch_fast([given], add_special_tokens=False)[0].ids == ids,
                "call": tokenizer(document.text, add_special_tokens=False)["input_ids"] == ids,
            }
            if number // stripes % ALIGNED_EVERY == 0:
                checks["aligned"] = tokenizer.encode_aligned(document.text)[0] == ids
            done.update(f"{form}:{check}" for check in checks)
            failed += [f"{form}:{check}:{document.id}" for check, good in checks.items() if not good]
    return documents, characters, tokens, done, failed


def exact(options: argparse.Namespace, note: Note, folder: Path) -> None:
    """Checks every document of the folder."""
    started = time.monotonic()
    paths = sorted(shard_paths([options.folder]), key=lambda path: -path.stat().st_size)
    documents = characters = tokens = 0
    done: Counter[str] = Counter()
    failed: list[str] = []
    with ProcessPoolExecutor(options.workers, get_context("spawn")) as pool:
        jobs = [pool.submit(check_stripe, path, k, STRIPES, folder) for path in paths for k in range(STRIPES)]
        for job in as_completed(jobs):
            counts = job.result()
            documents, characters, tokens = documents + counts[0], characters + counts[1], tokens + counts[2]
            done += counts[3]
            failed += counts[4]
    note("## Exactness\n\n| check | form | documents | failures |\n|---|---|---:|---:|")
    labels = {
        "round_trip": "decode(encode(x)) == clean(x)",
        "backend": "ids of `encode_text` == ids of the backend of `tokenizer.json` on the whole document",
        "call": "ids of `encode_text` == ids of calling the tokenizer",
        "aligned": "ids of `encode_text` == ids of `encode_aligned`",
    }
    for check, label in labels.items():
        for form in ("strict", "plain"):
            count = sum(line.startswith(f"{form}:{check}:") for line in failed)
            note(f"| {label} | {form} | {done[f'{form}:{check}']:,} | {count} |")
    note(
        f"\n{characters:,} characters of cleaned text, {tokens:,} tokens of both forms, "
        f"{time.monotonic() - started:.0f} s with {options.workers} processes."
    )
    if failed:
        note("Failures: " + ", ".join(sorted(failed)[:100]))
    note()


def header(options: argparse.Namespace) -> str:
    """Command, machine, versions, commit."""
    try:
        name = next(line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name"))
    except (OSError, StopIteration):
        name = platform.machine()
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    here = Path(__file__).resolve().parent
    git = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=here, capture_output=True, text=True, check=False)
    changed = subprocess.run(["git", "status", "--short"], cwd=here, capture_output=True, text=True, check=False).stdout
    size = sum(path.stat().st_size for path in shard_paths([options.folder]))
    versions = ", ".join(f"{package} {metadata.version(package)}" for package in PACKAGES)
    lexicon = options.lexicon.name if options.lexicon else "none"
    return (
        f"# Tokenizer, {time.strftime('%Y-%m-%d')}: {', '.join(options.part)}\n\n"
        f"{os.cpu_count()} cores, {name.partition(':')[2].strip()}, {memory_gib:.0f} GiB, "
        f"load {os.getloadavg()[0]:.1f}; Python {platform.python_version()}, {versions}; "
        f"commit {git.stdout.strip() or 'unknown'}"
        f"{' with uncommitted changes' if changed else ''}; text {size / 1e6:.0f} MB compressed, word list {lexicon}.\n"
    )


def smallest_run(options: argparse.Namespace, work: Path) -> Path:
    """A tokenizer trained on the smallest size."""
    out = work / f"run-{options.sizes[0]:g}-{options.workers}"
    run_stage(options, options.sizes[0], options.workers, out)
    return out


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--medical", help="folder, file or glob of other medical texts")
    parser.add_argument("--lexicon", type=Path, help="word list for the MeCab user dictionary")
    parser.add_argument("--part", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--sizes", default="40,130,375", help="MB of raw training text")
    parser.add_argument("--tokenizer", type=Path, help="tokenizer folder for `speed` and `exact`")
    parser.add_argument("--vocab-size", type=int, default=32_768, help="`train` and `curve`; less for small samples")
    parser.add_argument("--workers", type=int, default=2, help="processes, where the measure is not of one")
    parser.add_argument(
        "--repeat-mb", type=float, default=150.0, help="largest sample trained on twice to compare bytes"
    )
    parser.add_argument("--only", nargs="*", help="`train`: only rows whose label holds one of these")
    parser.add_argument("--mb", type=float, default=2.0, help="`speed`: text of each kind in a round")
    parser.add_argument("--warm-mb", type=float, default=20.0, help="`speed`: other text our caches have seen")
    parser.add_argument("--rounds", type=int, default=3, help="`speed`: interleaved rounds")
    parser.add_argument("--work", type=Path, help="scratch folder that is kept")
    parser.add_argument("--out", type=Path, help="file the tables are appended to")
    options = parser.parse_args()
    options.sizes = sorted(float(size) for size in options.sizes.split(","))
    return options


def main() -> None:
    """Prints the tables of the parts asked for."""
    options = arguments()
    note = Note(options.out)
    started = time.monotonic()
    note(header(options))
    with tempfile.TemporaryDirectory() as scratch:
        work = (options.work or Path(scratch)).resolve()
        work.mkdir(parents=True, exist_ok=True)
        parts: Sequence[tuple[str, Callable[[Path], object]]] = (
            ("speed", lambda folder: speed(options, note, folder, work)),
            ("exact", lambda folder: exact(options, note, folder)),
        )
        if "train" in options.part:
            train(options, note, work)
        made = curve(options, note, work) if "curve" in options.part else None
        if {"speed", "exact"} & set(options.part):
            folder = (options.tokenizer or made or smallest_run(options, work)).resolve()
            for name, part in parts:
                if name in options.part:
                    part(folder)
    note(f"All in {(time.monotonic() - started) / 60:.1f} minutes.\n")


if __name__ == "__main__":
    main()
