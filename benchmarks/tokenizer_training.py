"""Part `train` of tokenizer.py: every trainer at every size, what it costs and how well its vocabulary fits."""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tokenizer_texts import Prepared, Texts, prepare, user_dictionary

from rinsho.segmentation import alone_characters

SHRINKING_FACTOR, MAX_PIECE_CHARS, SUB_ITERATIONS = 0.75, 16, 8
FREQUENT_WORDS, FREQUENT_COUNT = 20_000, 50
RESAMPLES = 1000
SMALL_MB = 50.0  # some rows are left out beyond this, for their time
WANTED_GAIN = 1.08
HOW = f"""
Every trainer gets the same segmented lines and vocabulary size, shrinking {SHRINKING_FACTOR}, pieces of up to
{MAX_PIECE_CHARS} characters, {SUB_ITERATIONS} sub-iterations. In all rows but that of raw lines, U+2581 and `<` are
split off before training and encoding; "digits split" splits off every digit as well. Rows other than "ours, default"
have no byte fallback, keep all characters of the training text and bring no frequent words back after pruning
(`whole_words_fraction` 0), as Hugging Face's trainer does. Sentencepiece runs without normalisation, dummy prefix and
splits by script and number; it gives fewer pieces when it finds no more. Raw lines are at sentencepiece's defaults
and encoded without segmentation, so pieces cross words: that row is not comparable. Intervals: bootstrap over
documents, {RESAMPLES} samples. Seconds run from reading the lines to the vocabulary, the counting of words included;
where a second training is compared, both ran at the same time. Two vocabularies are the same when pieces, order and
all digits of the scores are."""
HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Row:
    """One training: the label in the table, the trainer, its settings, and the row it is to be compared with."""

    label: str
    trainer: str
    split_digits: bool = True
    byte_fallback: bool = False
    whole_words_fraction: float = 0.0  # Unigram alone
    character_coverage: float = 1.0  # all characters, as Hugging Face's trainer has it
    peer: str = ""
    largest_mb: float = float("inf")
    limit_seconds: float = 900.0


SPLIT, FREE = "Hugging Face, digits split", "Hugging Face, digits free"
DEFAULT = Row(
    "ours, default (digits split, bytes, whole words)",
    "ours",
    byte_fallback=True,
    whole_words_fraction=0.75,
    character_coverage=0.9999,
    peer=SPLIT,
)
ROWS = (
    DEFAULT,
    Row("**ours, settings of Hugging Face, digits split**", "ours", peer=SPLIT),
    Row(SPLIT, "hugging_face"),
    Row("ours, settings of Hugging Face, digits free", "ours", split_digits=False, peer=FREE, largest_mb=SMALL_MB),
    Row(FREE, "hugging_face", split_digits=False, largest_mb=SMALL_MB),
    Row("sentencepiece, word/count table, its own seeds", "piece_table", peer=SPLIT),
    Row("sentencepiece, lines with `pretokenization_delimiter`", "piece_lines", peer=SPLIT, largest_mb=SMALL_MB),
    Row("sentencepiece, raw lines, defaults", "piece_raw", largest_mb=SMALL_MB, limit_seconds=60),
)


@dataclass
class Trained:
    """What a training left, or why there is nothing; tokens are per held-out text and document."""

    figures: dict[str, float]
    vocabulary: list[tuple[str, float]]
    digest: str = ""
    problem: str = ""
    tokens: list[np.ndarray] = field(default_factory=list)
    unknown: list[int] = field(default_factory=list)
    single: list[float] = field(default_factory=list)  # shares of the frequent words


def run_trainer(row: Row, files: Sequence[str], folder: Path, options: argparse.Namespace) -> Trained:
    """One training in a child process."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    from rinsho.tokenization.backend import CONTROLS

    job = {
        "controls": list(CONTROLS),
        "trainer": row.trainer,
        "files": list(files),
        "vocab_size": options.vocab_size,
        "shrinking_factor": SHRINKING_FACTOR,
        "max_piece_chars": MAX_PIECE_CHARS,
        "sub_iterations": SUB_ITERATIONS,
        "split_digits": row.split_digits,
        "byte_fallback": row.byte_fallback,
        "whole_words_fraction": row.whole_words_fraction,
        "character_coverage": row.character_coverage,
    }
    (folder / "job.json").write_text(json.dumps(job), encoding="utf-8")
    command = [sys.executable, str(HERE / "tokenizer_trainers.py"), str(folder / "job.json")]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=row.limit_seconds, check=False)
    except subprocess.TimeoutExpired:
        return Trained({}, [], problem=f"stopped after {row.limit_seconds:.0f} s")
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [""])[-1]
        return Trained({}, [], problem=f"ended with {done.returncode}: {reason[:150]}")
    content = (folder / "vocabulary.json").read_bytes()
    figures = json.loads(done.stdout.splitlines()[-1])
    return Trained(figures, json.loads(content), hashlib.blake2b(content, digest_size=8).hexdigest())


def run_repeatedly(row: Row, files: Sequence[str], work: Path, options: argparse.Namespace, times: int) -> Trained:
    """The first of trainings that run at the same time, with what the comparison of their vocabularies says."""
    with ThreadPoolExecutor(times) as pool:
        jobs = [pool.submit(run_trainer, row, files, work / f"training-{n}", options) for n in range(times)]
        first, *others = [job.result() for job in jobs]
    for other in others:
        first.digest += "; same" if other.digest == first.digest else "; **differs**"
    return first


def per_word(row: Row, vocabulary: Sequence[tuple[str, float]], words: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Tokens, and unknown tokens, of each word."""
    from rinsho.tokenization.backend import to_backend

    backend = to_backend([(piece, score) for piece, score in vocabulary], row.byte_fallback, row.split_digits)
    backend.encode_special_tokens = True
    encoded = [each.ids for each in backend.encode_batch_fast(list(words), add_special_tokens=False)]
    return np.asarray([len(ids) for ids in encoded]), np.asarray([ids.count(0) for ids in encoded])


def measure(row: Row, made: Trained, texts: Sequence[Texts], frequent: Sequence[Sequence[str]], folder: Path) -> None:
    """Adds to a training how its vocabulary fits."""
    if row.trainer == "piece_raw":  # it does not know words: its own encoder, on text without segmentation
        import sentencepiece

        encode = sentencepiece.SentencePieceProcessor(model_file=str(folder / "raw.model")).encode
        made.tokens = [np.asarray([len(encode(each)) for each in text.cleaned]) for text in texts]
        made.unknown = [sum(encode(each).count(0) for each in text.cleaned) for text in texts]
        return
    for text in texts:
        lengths, unknown = per_word(row, made.vocabulary, text.words)
        made.tokens.append(text.tokens(lengths))
        made.unknown.append(int(text.tokens(unknown).sum()))
    made.single = [float((per_word(row, made.vocabulary, words)[0] == 1).mean()) for words in frequent if words]


def train(options: argparse.Namespace, note: Callable[..., None], work: Path) -> None:
    """Prints the tables of all trainers at all sizes."""
    started = time.monotonic()
    dictionary = user_dictionary(options, work)
    prepared = prepare(options, dictionary, work / "segmented")
    note(f"## Training\n\nText cleaned and segmented in {time.monotonic() - started:.0f} s. Held out:\n")
    for text in prepared.heldout:
        note(f"- {text.name}: {len(text.starts):,} documents, {text.characters.sum():,} characters")
    note(HOW)
    verdicts = []
    for level, files in enumerate(prepared.files):
        note(f"\n### {prepared.mb[level]:.0f} MB, {prepared.documents[level]:,} documents\n")
        rows = [row for row in ROWS if prepared.mb[level] <= row.largest_mb]
        rows = [row for row in rows if not options.only or any(part in row.label for part in options.only)]
        ranked = frequent_words(files)
        frequent = [
            [word for word, _ in ranked[:FREQUENT_WORDS]],
            [word for word, count in ranked if count >= FREQUENT_COUNT],
        ]
        note(
            "| trainer | seconds | CPU seconds | peak MiB (at the start) | pieces | "
            f"{len(frequent[0]):,} most frequent words, one piece | "
            f"{len(frequent[1]):,} words seen {FREQUENT_COUNT} times, one piece | vocabulary; again |\n"
            "|---|" + "---:|" * 6 + "---|"
        )
        trained = {}
        for row in rows:
            again = row.trainer != "piece_raw" and prepared.mb[level] <= options.repeat_mb
            made = trained[row.label] = run_repeatedly(row, files, work, options, 2 if again else 1)
            if made.problem:
                note(f"| {row.label} | {made.problem} | | | | | | |")
                continue
            measure(row, made, prepared.heldout, frequent, work / "training-0")
            shares = [f"{100 * share:.1f} %" for share in made.single] or ["", ""]
            note(f"| {row.label} | {' | '.join([*figures_of(made), *shares, made.digest])} |")
        verdicts += fit_table(rows, trained, prepared, level, note)
    note(f"\n### Characters per token, ours : Hugging Face's with the same settings; wanted: {WANTED_GAIN}\n")
    note("| MB | digits | text | ratio (95 % interval) | holds |\n|---:|---|---|---:|---|")
    note("\n".join(verdicts) + "\n")


def frequent_words(files: Sequence[str]) -> list[tuple[str, int]]:
    """The words of a training sample, most frequent first; without those with a character that always stands alone."""
    words: Counter[str] = Counter()
    for name in files:
        with Path(name).open(encoding="utf-8", newline="\n") as file:
            for line in file:
                words.update(line[:-1].split(" "))
    alone = set(alone_characters(True))
    ranked = [row for row in words.items() if alone.isdisjoint(row[0])]
    return sorted(ranked, key=lambda row: (-row[1], row[0]))


def figures_of(made: Trained) -> list[str]:
    """The first cells of a training's row."""
    figures = made.figures
    return [
        f"{figures['seconds']:.1f}",
        f"{figures['cpu']:.1f}",
        f"{figures['peak_mib']:.0f} ({figures['start_mib']:.0f})",
        f"{len(made.vocabulary):,}",
    ]


def fit_table(
    rows: Sequence[Row], trained: dict[str, Trained], prepared: Prepared, level: int, note: Callable[..., None]
) -> list[str]:
    """Prints characters per token with intervals over documents; returns the rows of the acceptance table."""
    texts = prepared.heldout
    columns = " | ".join(f"{text.name} | x its peer" for text in texts)
    note(f"\n| characters per token | {columns} | unknown tokens |\n|---|" + "---:|" * (2 * len(texts) + 1))
    weights = [resampled(len(text.starts)) for text in texts]
    verdicts = []
    for row in rows:
        made, peer = trained[row.label], trained.get(row.peer)
        if made.problem:
            continue
        cells = []
        for number, text in enumerate(texts):
            tokens, draws = made.tokens[number], weights[number]
            rate = text.characters.sum() / tokens.sum()
            cells += [f"{rate:.3f} ({interval((draws @ text.characters) / (draws @ tokens))})", ""]
            if peer is None or peer.problem:
                continue
            ratio = peer.tokens[number].sum() / tokens.sum()
            cells[-1] = f"{ratio:.3f}"
            if row.trainer == "ours" and not row.byte_fallback:
                spread = interval((draws @ peer.tokens[number]) / (draws @ tokens))
                holds = "yes" if ratio >= WANTED_GAIN else "**no**"
                digits = "split" if row.split_digits else "free"
                verdicts.append(
                    f"| {prepared.mb[level]:.0f} | {digits} | {text.name} | {ratio:.3f} ({spread}) | {holds} |"
                )
        unknown = sum(made.unknown) / sum(int(tokens.sum()) for tokens in made.tokens)
        note(f"| {row.label} | {' | '.join(cells)} | {100 * unknown:.3f} % |")
    return verdicts


def resampled(documents: int) -> np.ndarray:
    """How often each document is in each of the bootstrap samples."""
    return np.random.default_rng(1).multinomial(documents, np.full(documents, 1 / documents), RESAMPLES)


def interval(values: np.ndarray) -> str:
    """The 95 % interval of bootstrap values."""
    low, high = np.percentile(values, [2.5, 97.5])
    return f"{low:.3f}–{high:.3f}"
