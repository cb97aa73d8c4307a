"""Word counts to a Unigram vocabulary, and which frequent words did not become one piece of it."""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from heapq import nsmallest
from pathlib import Path

from rinsho.errors import UserError
from rinsho.segmentation import alone_characters
from rinsho.tokenization.backend import CONTROLS, SCORE_UNIT, exact_score
from rinsho.tokenizer.seeds import MAX_SEEDS, seed_pieces

WORD_CHARS = 64  # longer runs are cut: they are noise, and sentencepiece refuses very long lines
# Characters beside ASCII may take this share of the free pieces, and more where the words cannot fill the rest.
CHARACTER_SHARES = (0.5, 0.75, 1.0)
# More candidates take longer and end no better: on 360 MB 31 a piece took three times as long (64 s of processor time
# instead of 22) for 1.6645 instead of 1.6639 characters a token of held-out text.
SEEDS_PER_PIECE = 5
# What clinical notes write values and findings with has a piece wherever it occurs at all.
CLINICAL_MARKS = "±×÷≦≧≒°℃‰μΩαβγδφ♂♀→←↑↓↔■□●○◎◇△▲▽▼※★☆"
TRAINER_THREADS = 8  # another number gives other scores, so it is the same on every machine


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
    whole_words_fraction: float = 0.75  # 0 is the bare algorithm

    @property
    def fixed(self) -> list[str]:
        """The pieces that do not come from training, in id order: controls, bytes, characters that stand alone."""
        bytes_ = [f"<0x{byte:02X}>" for byte in range(256)] if self.byte_fallback else []
        return [*CONTROLS, *bytes_, *alone_characters(self.split_digits)]


def train(
    words: Mapping[str, int], training: Training, scratch: Path, always: Collection[str] = ()
) -> list[tuple[str, float]]:
    """The vocabulary as (piece, log-probability) in id order, exactly `vocab_size` long; equal counts, equal result.

    Log-probabilities are multiples of SCORE_UNIT, as the backend keeps them. Words in `always` become single pieces
    like the most frequent ones, however rare they are (not with a `whole_words_fraction` of 0).

    Stock trainers take candidates from the list of distinct words, so a word that occurs in one form only is never
    a candidate however frequent; ours are all substrings of the word table, weighted by count and length.

    Raises:
        UserError: the text is too small or the vocabulary too small; the message says the possible size.

    Source: N2.2-4.
    """
    _check(training)
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
        wanted = training.vocab_size - len(training.fixed) - len(unseen)
        pieces = _most_pieces(parts, training, wanted, scratch)
        if len(pieces) == wanted:
            ordered = _with_whole_words(pieces, words, training, always)
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


def _check(training: Training) -> None:
    """What sentencepiece refuses with an internal error."""
    for name, least, most in (("shrinking_factor", 0.5, 0.95), ("sub_iterations", 1, 10)):
        value = getattr(training, name)
        if not least <= value <= most:
            raise UserError(f"it is {value}", where=f"tokenizer.{name}", expected=f"from {least} to {most}")


def _with_whole_words(
    pieces: list[tuple[str, float]], words: Mapping[str, int], training: Training, always: Collection[str] = ()
) -> list[tuple[str, float]]:
    """The pieces, likeliest first, with the most frequent words among them in place of the least likely pieces.

    Pruning drops a word that its parts explain as well (ので: の, で), which costs a token each time it occurs. It
    comes back with the sum of its parts as score and one unit more, so it wins over just this spelling of itself, and
    what other text is spelt with stays as likely as it was. There are as many such words as `whole_words_fraction`
    of the pieces longer than a character, so there is a place for each.
    """
    scores = dict(sorted(pieces, key=lambda row: (-row[1], row[0])))
    most = int(training.whole_words_fraction * sum(len(piece) > 1 for piece in scores))
    chosen = [*always, *most_frequent(words, most)][:most]
    frequent = {
        word for word in chosen if len(word) <= training.max_piece_chars and all(char in scores for char in word)
    }
    least = iter([piece for piece in reversed(scores) if len(piece) > 1 and piece not in frequent])
    for word in sorted(frequent, key=lambda word: (len(word), word)):  # shorter ones may be parts of longer ones
        parts = _spelt(word, scores, training.max_piece_chars)
        if len(parts) > 1:
            score = sum(scores[part] for part in parts) + SCORE_UNIT
            del scores[word if word in scores else next(least)]
            scores[word] = score
    return sorted(scores.items(), key=lambda row: (-row[1], row[0]))


def missing_words(
    words: Mapping[str, int], vocabulary: Sequence[tuple[str, float]], training: Training, most: int = 20_000
) -> list[tuple[str, int, str]]:
    """(word, count, reason) for those of the `most` frequent words that are not one piece, most frequent first.

    The reason is one of `stands alone: 3 8` (characters in the word that never join others), `longer than 16
    characters`, `no piece for: 彁`, and `pieces: ので す`: rarer or dearer than the pieces it is spelt with.

    Source: N2.2-4.
    """
    alone = set(alone_characters(training.split_digits))
    fixed = set(training.fixed)
    scores = {piece: score for piece, score in vocabulary if piece not in fixed}
    longest = max(map(len, scores), default=1)
    missing = []
    for word in most_frequent(words, most):
        apart = sorted(alone.intersection(word))
        if apart and len(word) > 1:
            missing.append((word, words[word], "stands alone: " + " ".join(apart)))
        elif len(word) > training.max_piece_chars:
            missing.append((word, words[word], f"longer than {training.max_piece_chars} characters"))
        elif not apart and (unknown := sorted({char for char in word if char not in scores})):
            missing.append((word, words[word], "no piece for: " + " ".join(unknown)))
        elif not apart and len(pieces := _spelt(word, scores, longest)) > 1:
            missing.append((word, words[word], "pieces: " + " ".join(pieces)))
    return missing


def most_frequent(words: Mapping[str, int], most: int) -> list[str]:
    """The most frequent words, equally frequent ones in the order of their characters."""
    return nsmallest(most, words, key=lambda word: (-words[word], word))


def _spelt(word: str, scores: Mapping[str, float], longest: int) -> list[str]:
    """The likeliest pieces of a word all of whose characters are pieces."""
    best: list[tuple[float, int]] = [(0.0, 0)]
    for end in range(1, len(word) + 1):
        best.append(
            max(
                (best[start][0] + scores[word[start:end]], start)
                for start in range(max(0, end - longest), end)
                if word[start:end] in scores
            )
        )
    pieces = []
    end = len(word)
    while end:
        start = best[end][1]
        pieces.append(word[start:end])
        end = start
    return pieces[::-1]


def _parts(words: Mapping[str, int], split_digits: bool) -> dict[str, int]:
    """The words without the characters that stand alone, and in lengths that the trainer takes."""
    alone = alone_characters(split_digits)
    cut = re.compile(rf"[{alone}]|.{{{WORD_CHARS + 1}}}", re.DOTALL).search
    find = re.compile(rf"[^{alone}]{{1,{WORD_CHARS}}}").findall
    parts: dict[str, int] = {}
    for word, count in words.items():
        for part in find(word) if cut(word) else (word,):  # mostly the word itself, so that it is held once
            parts[part] = parts.get(part, 0) + count
    return parts


def _ascii(training: Training) -> list[str]:
    return [chr(code) for code in range(0x21, 0x7F) if chr(code) not in training.fixed]


def _characters(parts: Mapping[str, int], training: Training, limit: int) -> tuple[set[str], bool]:
    """The characters that get a piece, and whether the limit kept some out that the coverage asks for.

    All of ASCII, clinical marks, and of the others the most frequent. With byte fallback a rare character is better
    spelt in bytes than paid for with a word.
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
    marks = [char for char in CLINICAL_MARKS if counts[char]]
    return {*ascii_, *marks, *kept[: max(limit, 0)]}, len(kept) > limit


def _within(parts: Mapping[str, int], kept: set[str]) -> dict[str, int]:
    """The same words, cut at characters that have no piece, most frequent first."""
    result: dict[str, int] = {}
    for part, count in parts.items():
        if kept.issuperset(part):
            result[part] = result.get(part, 0) + count
            continue
        run = "".join(char if char in kept else " " for char in part)
        for piece in run.split():
            result[piece] = result.get(piece, 0) + count
    return dict(sorted(result.items(), key=lambda row: (-row[1], row[0])))


def _most_pieces(parts: Mapping[str, int], training: Training, wanted: int, scratch: Path) -> list[tuple[str, float]]:
    """As `_sentencepiece`, from few candidates, and from all where few do not suffice."""
    table, seed_file = scratch / "words.tsv", scratch / "seeds.tsv"
    _write(table, parts.items())
    characters = len(set().union(*parts))
    pieces: list[tuple[str, float]] = []
    for limit in (SEEDS_PER_PIECE * wanted, MAX_SEEDS):
        seeds = seed_pieces(parts, training.max_piece_chars, training.min_count, limit)
        number = _write(seed_file, seeds)
        pieces = _sentencepiece(table, seed_file, training, wanted, characters)
        if len(pieces) == wanted or number < limit:
            break
    return pieces


def _sentencepiece(
    table: Path, seed_file: Path, training: Training, wanted: int, characters: int
) -> list[tuple[str, float]]:
    """`wanted` pieces with their log-probabilities; fewer, and only their number means anything, when it cannot."""
    import sentencepiece

    model = io.BytesIO()
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
            num_threads=TRAINER_THREADS,
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
                expected=f"more than {training.vocab_size - wanted + characters}",
                todo="raise vocab_size or lower character_coverage",
            ) from None
        raise
    processor = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    return [(processor.id_to_piece(i), exact_score(processor.get_score(i))) for i in range(1, len(processor))]


def _write(path: Path, rows: Iterable[tuple[str, int]]) -> int:
    """Writes the rows and returns their number."""
    number = 0
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for number, (piece, weight) in enumerate(rows, 1):  # noqa: B007
            file.write(f"{piece}\t{weight}\n")
    return number
