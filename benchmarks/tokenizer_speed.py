"""Part `speed` of tokenizer.py: text to ids on one core, ours against MeCab alone and the peers, in one run."""

from __future__ import annotations

import argparse
import gc
import io
import json
import os
import pickle
import re
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tokenizer_texts import clean_paths, draw, is_medical, medical_texts, sample

from rinsho.document import byte_length
from rinsho.text import clean

SENTENCES = re.compile(r"[^。\n]{1,512}。?|。")
MECAB, BERT = "MeCab alone (fugashi -Owakati, cleaned sentences)", "BertJapaneseTokenizer, MeCab + wordpiece"
OURS = "**ours, raw text to ids** (`encode_batch_text`)"
COLD = """
import json, sys, time
started = time.perf_counter()
from pathlib import Path
from rinsho.tokenization import load
texts = json.loads(Path(sys.argv[2]).read_text(encoding="utf-8"))
imported = time.perf_counter()
tokenizer = load(sys.argv[1])
marks = [imported - started, time.perf_counter() - imported]
for part in (texts[0][:1], texts[0][1:], texts[1]):
    before = time.process_time()
    for text in part:
        tokenizer.encode_text(text)
    marks.append(time.process_time() - before)
print(json.dumps(marks))
"""


@dataclass
class Material:
    """One slice of text in the forms the peers take."""

    raw: list[str]
    cleaned: list[str]
    lines: list[str]
    sentences: list[str]
    segmented: list[str]
    mb: float


def material(raw: list[str], dictionary: Path | None) -> Material:
    """The forms of these texts."""
    from rinsho.segmentation import separated

    cleaned = [clean(text) for text in raw]
    lines = [line for text in cleaned for line in text.split("\n") if line]
    sentences = [sentence for line in lines for sentence in SENTENCES.findall(line.replace(" ", "▁"))]
    segmented = [
        line.strip(" ") for text in cleaned for line in separated(text, dictionary).replace("。 ", "。\n").split("\n")
    ]
    return Material(raw, cleaned, lines, sentences, segmented, sum(map(byte_length, raw)) / 1e6)


def slices(texts: list[str], mb: float, count: int) -> list[list[str]]:
    """As many slices of this size, in an order that depends on the texts alone; smaller ones when there is less."""
    mb = min(mb, sum(map(byte_length, texts)) / 1e6 / count)
    found: list[list[str]] = [[] for _ in range(count)]
    size = 0.0
    for text in sorted(texts, key=draw):
        place = int(size / mb)
        if place >= count:
            break
        found[place].append(text)
        size += byte_length(text) / 1e6
    return [each for each in found if each]


def kinds_of_text(options: argparse.Namespace) -> dict[str, list[list[str]]]:
    """By kind of text, a slice a round."""
    paths = clean_paths(options.folder)
    medical = [path for path in paths if is_medical(path)]
    prose = [path for path in paths if path.name.startswith("aozora")] or [p for p in paths if not is_medical(p)]
    wanted_mb = options.mb * options.rounds
    kinds = {"prose": sample(prose, wanted_mb + 2)}
    if options.medical:
        kinds = {"short medical texts": list(medical_texts(options.medical)), **kinds}
    if medical:
        kinds = {"medical": sample(medical, 2 * wanted_mb), **kinds}
    return {kind: slices(texts, options.mb, options.rounds) for kind, texts in kinds.items()}


def plain_folder(folder: Path) -> Path:
    """Where the plain form of a tokenizer lies."""
    return folder / "plain"


def warmed(tokenizer: Any, warm: Sequence[str]) -> Any:
    """A copy of its own whose word cache has seen the warm texts."""
    copy = pickle.loads(pickle.dumps(tokenizer))
    for text in warm:
        copy.encode_text(text)
    return copy


def bert(tokenizer: Any, folder: Path, form: str) -> Any:
    """BertJapaneseTokenizer with our pieces as its vocabulary and the same MeCab dictionaries."""
    from transformers import BertJapaneseTokenizer

    pieces = [piece for piece in tokenizer.get_vocab() if piece.strip() and not piece.startswith("<")]
    single = [piece for piece in pieces if len(piece) == 1]
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *pieces, *("##" + char for char in single)]
    path = folder / f"vocab-{form}.txt"
    path.write_text("".join(token + "\n" for token in dict.fromkeys(tokens)), encoding="utf-8")
    option = f'-u "{tokenizer.user_dictionary}"' if tokenizer.user_dictionary else None
    made = BertJapaneseTokenizer(
        str(path),
        word_tokenizer_type="mecab",
        subword_tokenizer_type=form,
        mecab_kwargs={"mecab_dic": "ipadic", "mecab_option": option},
        model_max_length=int(1e30),
    )
    return made


def mecab(tokenizer: Any) -> Callable[[str], str]:
    """MeCab with the tokenizer's dictionaries."""
    import fugashi
    import ipadic

    own = f' -u "{tokenizer.user_dictionary}"' if tokenizer.user_dictionary else ""
    parse: Callable[[str], str] = fugashi.GenericTagger(f"{ipadic.MECAB_ARGS} -Owakati{own}").parse
    return parse


def pieces(words: Counter[str], folder: Path) -> Any:
    """A sentencepiece model of these words, 32,768 pieces at most."""
    import sentencepiece

    path, model = folder / "speed.tsv", io.BytesIO()
    path.write_text("".join(f"{word}\t{n}\n" for word, n in sorted(words.items()) if len(word) < 64), encoding="utf-8")
    sentencepiece.SentencePieceTrainer.train(
        input=str(path),
        input_format="tsv",
        model_writer=model,
        vocab_size=32_768,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    return sentencepiece.SentencePieceProcessor(model_proto=model.getvalue(), num_threads=1)


def each(function: Callable[[str], object]) -> Callable[[Sequence[str]], object]:
    """The function on every text, results kept."""
    return lambda texts: [function(text) for text in texts]


def arrays(tokenizer: Any) -> Callable[[Sequence[str]], object]:
    """The ids of many texts as arrays."""
    return lambda texts: list(tokenizer.encode_batch_arrays(texts))


def contestants(strict: Any, plain: Any, words: Counter[str], warm: Sequence[str], work: Path) -> dict[str, Any]:
    """By label: the function that is timed, and the attribute of `Material` it is given."""
    backend = warmed(strict, []).backend_tokenizer
    model = pieces(words, work)
    return {
        MECAB: (each(mecab(strict)), "sentences"),
        "clean alone": (each(clean), "raw"),
        OURS: (warmed(strict, warm).encode_batch_text, "raw"),
        "ours, as token files are made (`encode_batch_arrays`)": (arrays(warmed(strict, warm)), "raw"),
        "ours, a text a call (`encode_text`)": (each(warmed(strict, warm).encode_text), "raw"),
        "ours, cleaned text to ids": (partial(warmed(strict, warm).encode_batch_text, clean=False), "cleaned"),
        "ours, plain form, raw text to ids": (warmed(plain, warm).encode_batch_text, "raw"),
        "ours, the call of transformers, raw text": (warmed(strict, []), "raw"),
        BERT: (bert(strict, work, "wordpiece"), "lines"),
        "BertJapaneseTokenizer, MeCab + character": (bert(strict, work, "character"), "lines"),
        "Hugging Face `encode_batch_fast`, already segmented": (backend.encode_batch_fast, "segmented"),
        "Hugging Face `encode_batch`, already segmented": (backend.encode_batch, "segmented"),
        "sentencepiece, already segmented": (each(model.encode), "segmented"),
        "sentencepiece, cleaned lines": (each(model.encode), "lines"),
    }


def speed(options: argparse.Namespace, note: Callable[..., None], folder: Path, work: Path) -> None:
    """Prints the tables of speeds, measured on one core."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    try:
        on_one_core(options, note, folder, work)
    finally:
        os.sched_setaffinity(0, cores)
        del os.environ["TOKENIZERS_PARALLELISM"]


def on_one_core(options: argparse.Namespace, note: Callable[..., None], folder: Path, work: Path) -> None:
    """Prints the table of speeds and of a fresh process."""
    from rinsho.tokenization import load

    strict, plain = load(folder), load(plain_folder(folder))
    kinds = kinds_of_text(options)
    timed = {text for parts in kinds.values() for part in parts for text in part}
    warm = [text for text in sample(clean_paths(options.folder), options.warm_mb) if text not in timed]
    texts = {kind: [material(part, strict.user_dictionary) for part in parts] for kind, parts in kinds.items()}
    words = Counter(word for parts in texts.values() for line in parts[0].segmented for word in line.split(" ") if word)
    found = contestants(strict, plain, words, warm, work)
    seconds: dict[tuple[str, str], list[float]] = {}
    for turn in range(-1, options.rounds):  # the turn before the first is not counted: it wakes everybody up
        for kind, parts in texts.items():
            for label, (function, form) in found.items():
                given = getattr(parts[max(turn, 0)], form) if turn >= 0 else getattr(parts[-1], form)[:50]
                gc.collect()
                started = time.process_time()
                function(given)
                if turn >= 0:
                    seconds.setdefault((label, kind), []).append(time.process_time() - started)
    speed_tables(texts, seconds, sum(map(byte_length, warm)) / 1e6, note)
    cold(folder, kinds, note, work)


def speed_tables(
    texts: dict[str, list[Material]],
    seconds: dict[tuple[str, str], list[float]],
    warm_mb: float,
    note: Callable[..., None],
) -> None:
    """Prints the speeds and what was wanted."""
    rounds = len(next(iter(seconds.values())))
    sizes = ", ".join(
        f"{kind} {sum(part.mb for part in parts):.1f} MB in {sum(len(part.raw) for part in parts):,} documents"
        for kind, parts in texts.items()
    )
    note(
        f"## Speed\n\nOne process on one core, CPU time, median of {rounds} rounds, each on a slice of its own; "
        f"MB are of raw text for all rows: {sizes}. Our word caches have seen {warm_mb:.0f} MB of other text. "
        "BertJapaneseTokenizer gets cleaned lines, our pieces as its vocabulary and the same MeCab dictionaries.\n"
    )
    heads = "".join(f" {kind}, MB/s | : MeCab |" for kind in texts)
    note(f"| text to ids |{heads}\n|---|" + "---:|---:|" * len(texts))

    def ratio(label: str, other: str, kind: str) -> float:
        return statistics.median(b / a for a, b in zip(seconds[label, kind], seconds[other, kind], strict=True))

    for label in dict.fromkeys(label for label, _ in seconds):
        cells = ""
        for kind, parts in texts.items():
            rates = [part.mb / spent for part, spent in zip(parts, seconds[label, kind], strict=True)]
            cells += f" {statistics.median(rates):.2f} | {ratio(label, MECAB, kind):.2f} |"
        note(f"| {label} |{cells}")
    note("\n| ours, raw text to ids, against | wanted |" + "".join(f" {kind} |" for kind in texts) + " holds |")
    note("|---|---:|" + "---:|" * len(texts) + "---|")
    for label, wanted in ((BERT, 5.0), (MECAB, 0.5), (MECAB, 0.7)):
        ratios = [ratio(OURS, label, kind) for kind in texts]
        cells = "".join(f" {value:.2f} |" for value in ratios)
        note(f"| {label} | {wanted} |{cells} {'yes' if min(ratios) >= wanted else '**no**'} |")


def cold(folder: Path, kinds: dict[str, list[list[str]]], note: Callable[..., None], work: Path) -> None:
    """Prints what the first text costs in a fresh process."""
    note(
        "\n| fresh process | import, s | load, s | first document (opens MeCab), s | first MB, MB/s of CPU | "
        "second MB |\n|---|" + "---:|" * 5
    )
    for kind, given in kinds.items():
        parts = slices([text for part in given for text in part], 1.0, 2)
        sizes = [sum(map(byte_length, part)) / 1e6 for part in parts]
        path = work / "cold.json"
        path.write_text(json.dumps(parts), encoding="utf-8")
        command = [sys.executable, "-c", COLD, str(folder), str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        imported, loaded, first, rest, second = json.loads(done.stdout)
        rates = [
            f"{size / seconds:.1f}" if seconds else ""
            for size, seconds in ((sizes[0] - byte_length(parts[0][0]) / 1e6, rest), (sizes[1], second))
        ]
        note(f"| {kind} | {imported:.2f} | {loaded:.2f} | {first:.3f} | {rates[0]} | {rates[1]} |")
    note()
