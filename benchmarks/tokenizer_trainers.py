"""One Unigram training in a process of its own: ours, Hugging Face's or sentencepiece's. Started by tokenizer.py.

Usage: python benchmarks/tokenizer_trainers.py JOB.json

The job names the trainer, its settings and files of segmented text (one sentence a line, words separated by U+0020,
spaces as U+2581). Every trainer starts from these files, so ours counts words within its time. Printed is a JSON line:
seconds, CPU seconds and peak memory (VmHWM, which unlike ru_maxrss holds nothing of the parent). The vocabulary is
written beside the job as (piece, score) in id order.
"""

from __future__ import annotations

import importlib
import io
import json
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rinsho.segmentation import SPACE, alone_characters

Vocabulary = list[tuple[str, float]]
MAX_LINE_BYTES = 1 << 16  # sentencepiece's own limit of 4,192 would leave lines out


def lines(job: dict[str, Any]) -> Iterator[str]:
    """The segmented sentences."""
    for path in job["files"]:
        with Path(path).open(encoding="utf-8", newline="\n") as file:
            for line in file:
                yield line[:-1]


def word_counts(job: dict[str, Any]) -> Counter[str]:
    """Words with their counts."""
    words: Counter[str] = Counter()
    for line in lines(job):
        words.update(line.split(" "))
    return words


def ours(job: dict[str, Any], scratch: Path) -> Vocabulary:
    """rinsho.tokenizer.unigram.train on word counts."""
    from rinsho.tokenizer.unigram import Training, train

    training = Training(
        vocab_size=job["vocab_size"],
        byte_fallback=job["byte_fallback"],
        shrinking_factor=job["shrinking_factor"],
        sub_iterations=job["sub_iterations"],
        max_piece_chars=job["max_piece_chars"],
        min_count=2,
        character_coverage=job["character_coverage"],
        split_digits=job["split_digits"],
        whole_words_fraction=job["whole_words_fraction"],
    )
    return train(word_counts(job), training, scratch)


def hugging_face(job: dict[str, Any], scratch: Path) -> Vocabulary:  # noqa: ARG001
    """UnigramTrainer on segmented lines, which it splits at white space and at the characters that stand alone."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.Unigram())
    alone = Regex(f"[{alone_characters(job['split_digits'])}]")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split(alone, behavior="isolated")]
    )
    trainer = trainers.UnigramTrainer(
        vocab_size=job["vocab_size"],
        show_progress=False,
        special_tokens=job["controls"],
        unk_token=job["controls"][0],
        shrinking_factor=job["shrinking_factor"],
        max_piece_length=job["max_piece_chars"],
        n_sub_iterations=job["sub_iterations"],
    )
    tokenizer.train_from_iterator(lines(job), trainer)
    return [(piece, score) for piece, score in json.loads(tokenizer.to_str())["model"]["vocab"]]


def piece_table(job: dict[str, Any], scratch: Path) -> Vocabulary:
    """Sentencepiece on a word/count table, its own seeds; the characters that stand alone are added afterwards."""
    find = re.compile(f"[^{alone_characters(job['split_digits'])}]{{1,64}}").findall
    parts: Counter[str] = Counter()
    for word, count in word_counts(job).items():
        for part in find(word):
            parts[part] += count
    path = scratch / "words.tsv"
    rows = sorted(parts.items(), key=lambda row: (-row[1], row[0]))
    path.write_text("".join(f"{part}\t{count}\n" for part, count in rows), encoding="utf-8")
    fixed = [*job["controls"], *alone_characters(job["split_digits"])]
    pieces = sentencepiece(job, input=str(path), input_format="tsv", vocab_size=job["vocab_size"] - len(fixed) + 1)
    return [(piece, 0.0) for piece in fixed] + [row for row in pieces if row[0] not in fixed]


def piece_lines(job: dict[str, Any], scratch: Path) -> Vocabulary:
    """Sentencepiece on segmented lines, told where the words end by `pretokenization_delimiter`."""
    alone = re.compile(f"([{alone_characters(job['split_digits'])}])")
    path = scratch / "lines.txt"
    with path.open("w", encoding="utf-8") as file:
        for line in lines(job):
            file.write(re.sub(" +", "\t", alone.sub(r" \1 ", line).strip(" ")) + "\n")
    size = job["vocab_size"] - len(job["controls"]) + 1
    pieces = sentencepiece(job, input=str(path), pretokenization_delimiter="\t", vocab_size=size)
    have = {piece for piece, _ in pieces}
    return (
        [(piece, 0.0) for piece in job["controls"]]
        + pieces
        + [(char, 0.0) for char in alone_characters(job["split_digits"]) if char not in have]
    )


def piece_raw(job: dict[str, Any], scratch: Path) -> Vocabulary:
    """Sentencepiece on lines without any segmentation, everything else at its defaults; leaves `raw.model`."""
    import sentencepiece as package

    path = scratch / "raw.txt"
    with path.open("w", encoding="utf-8") as file:
        for line in lines(job):
            file.write(line.replace(" ", "").replace(SPACE, " ") + "\n")
    package.SentencePieceTrainer.train(
        input=str(path), model_prefix=str(scratch / "raw"), vocab_size=job["vocab_size"], minloglevel=2
    )
    processor = package.SentencePieceProcessor(model_file=str(scratch / "raw.model"))
    return [(processor.id_to_piece(i), processor.get_score(i)) for i in range(len(processor))]


def sentencepiece(job: dict[str, Any], **special: Any) -> Vocabulary:
    """The pieces of a training with our settings, as many as it finds up to `vocab_size`."""
    import sentencepiece as package

    model = io.BytesIO()
    package.SentencePieceTrainer.train(
        model_writer=model,
        model_type="unigram",
        hard_vocab_limit=False,
        character_coverage=job["character_coverage"],
        shrinking_factor=job["shrinking_factor"],
        num_sub_iterations=job["sub_iterations"],
        max_sentencepiece_length=job["max_piece_chars"],
        max_sentence_length=MAX_LINE_BYTES,
        normalization_rule_name="identity",
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        split_by_unicode_script=False,
        split_by_number=False,
        unk_id=0,
        bos_id=-1,
        eos_id=-1,
        pad_id=-1,
        minloglevel=2,
        **special,
    )
    processor = package.SentencePieceProcessor(model_proto=model.getvalue())
    return [(processor.id_to_piece(i), processor.get_score(i)) for i in range(1, len(processor))]


TRAINERS: dict[str, Callable[[dict[str, Any], Path], Vocabulary]] = {
    "ours": ours,
    "hugging_face": hugging_face,
    "piece_table": piece_table,
    "piece_lines": piece_lines,
    "piece_raw": piece_raw,
}


MODULES = {"ours": ("sentencepiece", "rinsho.tokenizer.unigram"), "hugging_face": ("tokenizers",)}


def peak_mib() -> float:
    """The most memory this process had resident, MiB."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def main() -> None:
    """Runs one job and prints its figures."""
    path = Path(sys.argv[1])
    job = json.loads(path.read_text(encoding="utf-8"))
    for module in MODULES.get(job["trainer"], ("sentencepiece",)):  # before the clock starts
        importlib.import_module(module)
    at_start = peak_mib()
    started, cpu = time.monotonic(), time.process_time()
    vocabulary = TRAINERS[job["trainer"]](job, path.parent)
    figures = {"seconds": time.monotonic() - started, "cpu": time.process_time() - cpu, "peak_mib": peak_mib()} | {
        "start_mib": at_start
    }
    (path.parent / "vocabulary.json").write_text(json.dumps(vocabulary, ensure_ascii=False), encoding="utf-8")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
