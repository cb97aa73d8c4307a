"""How digits and units are best cut: trains one vocabulary for each way on the same text and compares them.

    python benchmarks/tokenizer_digits.py --train GENERAL MEDICAL --measure general=GENERAL medical=MEDICAL

Prints a Markdown table. Documents of a folder that is trained on are measured only where their id keeps them out.
"""

from __future__ import annotations

import argparse
import re
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rinsho.document import Document, byte_length, read_documents, shard_paths
from rinsho.segmentation import SPACE, separated
from rinsho.text import clean
from rinsho.tokenization.backend import to_backend
from rinsho.tokenizer.selection import Selection
from rinsho.tokenizer.unigram import Training, train

HELDOUT_FRACTION = 0.05
MEASURED_MB = 3.0
ALL = Selection(1, (), 1.0, HELDOUT_FRACTION)

# Invented values: number and unit as they are written in Japanese charts.
VALUES = [
    *[(number, "℃") for number in ("36.5", "38.5", "40.1")],
    *[(number, "mmHg") for number in ("120/80", "98/56", "184/102")],
    *[(number, "mg/dL") for number in ("0.82", "1645.6", "95", "126", "12.4")],
    *[(number, "g/dL") for number in ("10.2", "3.1", "14.8")],
    *[(number, "×10^3/μL") for number in ("8.2", "12.5", "345")],
    *[(number, "/μL") for number in ("4500", "12300", "250000")],
    *[(number, "万/μL") for number in ("12.3", "4.5")],
    *[(number, "μg/mL") for number in ("5", "15.2", "0.6")],
    *[(number, "ng/mL") for number in ("3.45", "1250")],
    *[(number, "pg/mL") for number in ("345.6", "18.4")],
    *[(number, "mEq/L") for number in ("138", "4.2", "102")],
    *[(number, "mmol/L") for number in ("7.8", "1.2")],
    *[(number, "U/L") for number in ("24", "1034", "215")],
    *[(number, "IU/L") for number in ("31", "498")],
    *[(number, "mg") for number in ("0.5", "25", "500")],
    *[(number, "mg/日") for number in ("0.25", "60", "1500")],
    *[(number, "mg/kg") for number in ("2", "7.5")],
    *[(number, "mL/h") for number in ("40", "83.3")],
    *[(number, "mL/min/1.73m2") for number in ("45.2", "88")],
    *[(number, "%") for number in ("98", "7.2", "55.5")],
    *[(number, "回/分") for number in ("18", "72", "104")],
    *[(number, "L/分") for number in ("2", "10")],
    *[(number, "歳") for number in ("68", "7", "102")],
    *[(number, "日") for number in ("2023年4月1", "2019年12月31")],
    *[(number, "cm") for number in ("162.5", "3.2")],
    *[(number, "kg/m2") for number in ("22.4", "31.9")],
]
UNITS = sorted({unit for _, unit in VALUES})
CONTEXTS = [
    "{}",
    "入院時は{}であった。",
    "検査値 {} を認めた",
    "({})、",
    "前回{}→今回",
    "CRP{}と上昇、",
    "値は{}(基準内)",
    "合計:{}\n以上",
]


@dataclass(frozen=True)
class Way:
    """One way to cut: what becomes of the separated words before they are counted or spelt."""

    name: str
    digits_alone: bool
    change: Callable[[str], str]


def groups_from_right(run: str) -> str:
    """1645 -> 1 645"""
    first = len(run) % 3
    return " ".join(([run[:first]] if first else []) + [run[at : at + 3] for at in range(first, len(run), 3)])


def groups_from_left(run: str) -> str:
    """1645 -> 164 5"""
    return " ".join(run[at : at + 3] for at in range(0, len(run), 3))


def cut_digits(groups: Callable[[str], str]) -> Callable[[str], str]:
    """A change that sets runs of digits apart, in groups."""
    return lambda words: re.sub(r"(?<= )(?=[0-9])|[0-9]+", lambda found: f" {groups(found[0])} ", words)


def join_units(words: str) -> str:
    """Units of more than one character in one piece (mg / dL -> mg/dL), as a user dictionary with them would do."""
    return _JOIN.sub(lambda found: " " + found[0].replace(" ", "") + " ", words)


_LONG_UNITS = sorted((unit for unit in UNITS if len(unit) > 1), key=len, reverse=True)
_JOIN = re.compile("(?<= )(?:" + "|".join(" ?".join(map(re.escape, unit)) for unit in _LONG_UNITS) + ")(?= |$)")

WAYS = [
    Way("every digit alone", True, str),
    Way("groups of three from the right", False, cut_digits(groups_from_right)),
    Way("groups of three from the left", False, cut_digits(groups_from_left)),
    Way("free", False, str),
    Way("every digit alone, units whole", True, join_units),
]


def read(folders: Sequence[Path], part: str | None, limit_mb: float) -> Iterator[Document]:
    """Documents of the part (None: all), an equal share of the limit from every file."""
    shards = shard_paths(folders)
    for path in shards:
        left = limit_mb * 1e6 / len(shards)
        for document in read_documents(path, on_broken=lambda _: None):
            if left <= 0:
                break
            if part is None or ALL.part(document) == part:
                left -= byte_length(document.text)
                yield document


class Spelling:
    """Pieces of texts under one way and its vocabulary."""

    def __init__(self, way: Way, vocabulary: list[tuple[str, float]]) -> None:
        self._way = way
        self._backend = to_backend(vocabulary, byte_fallback=True, split_digits=way.digits_alone)

    def words(self, words: Sequence[str]) -> list[int]:
        """Tokens of each separated word."""
        lines = [" ".join(self._way.change(f" {word} ").split()) for word in words]
        return [len(encoding) for encoding in self._backend.encode_batch(lines, add_special_tokens=False)]

    def pieces(self, text: str) -> list[str]:
        """The pieces of a raw text."""
        words = self._way.change(" " + separated(clean(text)) + " ")
        return list(self._backend.encode(" ".join(words.split(" ")), add_special_tokens=False).tokens)

    def inside(self, context: str, before: str, value: str) -> tuple[str, ...] | None:
        """The pieces of `value` in `context`, where `before` and `value` fill the gap; None where one reaches out."""
        start = clean(context.format(before + value)).index(before + value) + len(before)
        found, at = [], 0
        for piece in self.pieces(context.format(before + value)):
            if piece == "\n":
                continue
            begin, at = at, at + len(piece)
            if begin < start + len(value) and at > start:
                found.append(piece)
                if begin < start or at > start + len(value):
                    return None
        return tuple(found)


def consistency(spelling: Spelling) -> dict[str, float]:
    """Tokens a value, and how often number and unit have their most usual pieces, over all contexts."""
    numbers: dict[str, Counter[tuple[str, ...] | None]] = {}
    units: dict[str, Counter[tuple[str, ...] | None]] = {}
    lengths = []
    for number, unit in VALUES:
        lengths.append(len(spelling.pieces(number + unit)))
        for context in CONTEXTS:
            numbers.setdefault(number, Counter())[spelling.inside(context, "", number)] += 1
            units.setdefault(unit, Counter())[spelling.inside(context, number, unit)] += 1

    def usual(table: dict[str, Counter[tuple[str, ...] | None]]) -> float:
        best = sum(max((n for pieces, n in row.items() if pieces is not None), default=0) for row in table.values())
        return best / sum(row.total() for row in table.values())

    tokens = [len(row.most_common(1)[0][0] or ()) for row in units.values()]
    return {
        "value": statistics.mean(lengths),
        "unit": statistics.mean(tokens),
        "numbers": usual(numbers),
        "units": usual(units),
    }


def count(documents: Iterator[Document]) -> tuple[Counter[str], int]:
    """Words of the documents, and UTF-8 bytes of their text."""
    words: Counter[str] = Counter()
    size_bytes = 0
    for document in documents:
        size_bytes += byte_length(document.text)
        words.update(separated(clean(document.text)).split(" "))
    del words[""], words["\n"]
    return words, size_bytes


def table_of(words: Counter[str], way: Way) -> Counter[str]:
    """The word table as the way sees it."""
    table: Counter[str] = Counter()
    for word, times in words.items():
        for part in way.change(f" {word} ").split():
            table[part] += times
    return table


def joined(documents: Iterator[Document]) -> tuple[Counter[str], int]:
    """As `count`, with whole units, which only the running text shows."""
    words: Counter[str] = Counter()
    size_bytes = 0
    for document in documents:
        size_bytes += byte_length(document.text)
        words.update(join_units(" " + separated(clean(document.text)) + " ").split())
    return words, size_bytes


def main() -> None:
    """Trains and measures every way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", nargs="+", type=Path, required=True)
    parser.add_argument("--measure", nargs="+", required=True, metavar="NAME=FOLDER")
    parser.add_argument("--limit-mb", type=float, default=20.0)
    parser.add_argument("--vocab-size", type=int, default=32_768)
    options = parser.parse_args()
    named = [(name, Path(folder)) for name, _, folder in (pair.partition("=") for pair in options.measure)]
    trained = {folder.resolve() for folder in options.train}
    started = time.monotonic()
    rows = []
    size_bytes = 0
    for counting in (count, joined):
        ways = [way for way in WAYS if (way.change is join_units) == (counting is joined)]
        words, size_bytes = counting(read(options.train, "train", options.limit_mb))
        measured = {
            name: counting(read([folder], "heldout" if folder.resolve() in trained else None, MEASURED_MB))[0]
            for name, folder in named
        }
        for way in ways:
            training = Training(options.vocab_size, True, 0.75, 8, 16, 2, 0.9999, way.digits_alone)
            with tempfile.TemporaryDirectory() as scratch:
                vocabulary = train(table_of(words, way), training, Path(scratch))
            spelling = Spelling(way, vocabulary)
            figures = []
            for table in measured.values():
                tokens = sum(n * times for n, times in zip(spelling.words(list(table)), table.values(), strict=True))
                figures.append(f"{sum(len(word) * times for word, times in table.items()) / tokens:.3f}")
            same = consistency(spelling)
            digits = sum(any("0" <= char <= "9" for char in piece) for piece, _ in vocabulary[260:])
            figures += [f"{same['value']:.2f}", f"{same['unit']:.2f}"]
            figures += [f"{100 * same['numbers']:.1f} %", f"{100 * same['units']:.1f} %", f"{digits:,}"]
            rows.append([way.name, *figures])
    heads = [f"characters a token, {name}" for name, _ in named]
    heads += ["tokens a value", "tokens a unit", "numbers alike", "units alike", "pieces with digits"]
    print(f"{size_bytes / 1e6:.1f} MB, {options.vocab_size} pieces, {len(VALUES)} values in {len(CONTEXTS)} contexts\n")
    print("| digits | " + " | ".join(heads) + " |\n| --- |" + " ---: |" * len(heads))
    for row in rows:
        print("| " + " | ".join(row) + " |")
    print(f"\n{time.monotonic() - started:.0f} s; a space is written {SPACE} and stands alone in all of them")


if __name__ == "__main__":
    main()
