"""Word counts to a Unigram vocabulary, and that to a backend of Hugging Face `tokenizers`."""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rinsho.chat import BEGIN, END
from rinsho.errors import UserError
from rinsho.segmentation import SPACE, alone_characters

if TYPE_CHECKING:
    from tokenizers import Tokenizer

UNKNOWN = "<unk>"
CONTROLS = (UNKNOWN, BEGIN, END, "\n")  # ids 0, 1, 2, 3
WORD_CHARS = 64  # longer runs are cut: they are noise, and sentencepiece refuses very long lines
# Characters beside ASCII may take this share of the free pieces, and more where the words cannot fill the rest.
CHARACTER_SHARES = (0.5, 0.75, 1.0)
MAX_SEEDS = 1_000_000


@dataclass(frozen=True)
class Training:
    """The settings of one Unigram training; see `rinsho.tokenizer.Recipe` for each."""

    vocab_size: int
    byte_fallback: bool
    shrinking_factor: float
    sub_iterations: int
    max_piece_chars: int
    min_count: int
    character_coverage: float
    split_digits: bool

    @property
    def fixed(self) -> list[str]:
        """The pieces that do not come from training, in id order: controls, bytes, characters that stand alone."""
        bytes_ = [f"<0x{byte:02X}>" for byte in range(256)] if self.byte_fallback else []
        return [*CONTROLS, *bytes_, *alone_characters(self.split_digits)]


def train(words: Mapping[str, int], training: Training, scratch: Path) -> list[tuple[str, float]]:
    """The vocabulary as (piece, log-probability) in id order, exactly `vocab_size` long; equal counts, equal result.

    Stock trainers take candidates from the list of distinct words, so a word that occurs in one form only is never
    a candidate however frequent; ours are all substrings of the word table, weighted by count and length.

    Raises:
        UserError: the text is too small or the vocabulary too small; the message says the possible size.

    Source: N2.2-4.
    """
    whole = _parts(words, training.split_digits)
    if not whole:
        raise UserError("no words to train on", where="tokenizer", expected="documents with Japanese text")
    room = training.vocab_size - len(training.fixed) - len(_ascii(training))
    possible = 0
    for share in CHARACTER_SHARES:
        characters, capped = _characters(whole, training, int(share * room))
        parts = _within(whole, characters)
        used = {char for part in parts for char in part}
        unseen = [char for char in _ascii(training) if char not in used]
        seeds = _seeds(parts, training)
        wanted = training.vocab_size - len(training.fixed) - len(unseen)
        pieces = _sentencepiece(parts, seeds, training, wanted, scratch)
        if len(pieces) == wanted:
            ordered = sorted(pieces, key=lambda row: (-row[1], row[0]))
            rare = ordered[-1][1] - 1
            return [(piece, 0.0) for piece in training.fixed] + ordered + [(char, rare) for char in unseen]
        possible = len(pieces) + len(training.fixed) + len(unseen)
        if not capped:
            break
    raise UserError(
        f"the text gives fewer than {training.vocab_size} pieces",
        where="tokenizer.vocab_size",
        expected=f"at most {possible} with this text",
        todo="lower vocab_size or train on more text",
    )


def to_backend(vocabulary: list[tuple[str, float]], byte_fallback: bool, split_digits: bool) -> Tokenizer:
    """The tokenizer backend: words separated by U+0020 in, ids out, readable text back."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

    backend = Tokenizer(models.Unigram(vocabulary, unk_id=0, byte_fallback=byte_fallback))
    alone = Regex(f"[{alone_characters(split_digits)}]")
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split(alone, behavior="isolated")]
    )
    backend.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Replace(SPACE, " "), decoders.Fuse()])
    backend.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in CONTROLS[:3]])
    # Not special: decoding with skip_special_tokens=True would delete every line break.
    backend.add_tokens([AddedToken("\n", normalized=False, special=False)])
    return backend


def _parts(words: Mapping[str, int], split_digits: bool) -> Counter[str]:
    alone = alone_characters(split_digits)
    find = re.compile(rf"[^{alone}]{{1,{WORD_CHARS}}}").findall
    parts: Counter[str] = Counter()
    for word, count in words.items():
        for part in find(word):
            parts[part] += count
    return parts


def _ascii(training: Training) -> list[str]:
    return [chr(code) for code in range(0x21, 0x7F) if chr(code) not in training.fixed]


def _characters(parts: Mapping[str, int], training: Training, limit: int) -> tuple[set[str], bool]:
    """The characters that get a piece, and whether the limit kept some out that the coverage asks for.

    All of ASCII, and of the others the most frequent. With byte fallback a rare character is better spelt in bytes
    than paid for with a word.
    """
    counts: Counter[str] = Counter()
    for part, count in parts.items():
        for char in part:
            counts[char] += count
    ascii_ = set(_ascii(training))
    others = sorted(((char, n) for char, n in counts.items() if char not in ascii_), key=lambda row: (-row[1], row[0]))
    goal, seen, kept = training.character_coverage * sum(count for _, count in others), 0, []
    for char, count in others:
        if seen >= goal:
            break
        kept.append(char)
        seen += count
    return {*ascii_, *kept[: max(limit, 0)]}, len(kept) > limit


def _within(parts: Mapping[str, int], kept: set[str]) -> Counter[str]:
    """The same words, cut at characters that have no piece."""
    result: Counter[str] = Counter()
    for part, count in parts.items():
        if kept.issuperset(part):
            result[part] += count
            continue
        run = "".join(char if char in kept else " " for char in part)
        for piece in run.split():
            result[piece] += count
    return Counter(dict(sorted(result.items(), key=lambda row: (-row[1], row[0]))))


def _seeds(parts: Mapping[str, int], training: Training) -> list[tuple[str, int]]:
    """Candidate pieces with their weights: all characters, then substrings seen often enough, heaviest first."""
    single: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    for part, count in parts.items():
        for start, char in enumerate(part):
            single[char] += count
            for end in range(start + 2, min(len(part), start + training.max_piece_chars) + 1):
                counts[part[start:end]] += count
    longer = [(piece, count * len(piece)) for piece, count in counts.items() if count >= training.min_count]
    seeds = sorted(single.items(), key=lambda row: (-row[1], row[0]))
    longer.sort(key=lambda row: (-row[1], row[0]))
    return seeds + longer[: MAX_SEEDS - len(seeds)]


def _sentencepiece(
    parts: Mapping[str, int], seeds: list[tuple[str, int]], training: Training, wanted: int, scratch: Path
) -> list[tuple[str, float]]:
    """`wanted` pieces with their log-probabilities; fewer, and only their number means anything, when it cannot."""
    import sentencepiece

    table, seed_file, model = scratch / "words.tsv", scratch / "seeds.tsv", io.BytesIO()
    _write(table, parts.items())
    _write(seed_file, seeds)
    try:
        sentencepiece.SentencePieceTrainer.train(
            input=str(table),
            input_format="tsv",
            seed_sentencepieces_file=str(seed_file),
            model_writer=model,
            model_type="unigram",
            vocab_size=wanted + 1,  # and its <unk>
            character_coverage=1.0,
            shrinking_factor=training.shrinking_factor,
            num_sub_iterations=training.sub_iterations,
            max_sentencepiece_length=training.max_piece_chars,
            num_threads=1,  # another number gives other scores
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
        )
    except RuntimeError as error:
        possible = re.search(r"too high .*<= (\d+)", str(error))
        if possible is not None:
            return [("", 0.0)] * (int(possible.group(1)) - 1)
        if "required_chars" in str(error):
            raise UserError(
                f"{training.vocab_size} pieces are fewer than the characters of the text need",
                where="tokenizer.vocab_size",
                expected=f"more than {training.vocab_size - wanted + len(set().union(*map(set, parts)))}",
                todo="raise vocab_size or lower character_coverage",
            ) from None
        raise
    processor = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    return [(processor.id_to_piece(i), round(processor.get_score(i), 6)) for i in range(1, len(processor))]


def _write(path: Path, rows: Iterable[tuple[str, int]]) -> None:
    path.write_text("".join(f"{piece}\t{weight}\n" for piece, weight in rows), encoding="utf-8")
