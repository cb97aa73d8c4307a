"""Bits per character of an interpolated character n-gram, beside a model trained on the same text.

    python benchmarks/character_ngram.py TEXT... --encoded FOLDER [--run FOLDER] [--orders 6] [--points 8] [--out FILE]

TEXT are the corpora that `rinsho tokenizer encode` was given, FOLDER what it made of them: the choice of held-out
documents and the tokens of each document come from there, and its counts prove that both read the same text. With
--run (a finished `rinsho pretrain` folder) the model's held-out curve stands beside the n-gram's at equal text.

The model is modified Kneser-Ney smoothing with interpolation at every order (Chen and Goodman, "An empirical study of
smoothing techniques for language modeling", TR-10-98, section 3 and eq. 26; interpolation of the unigrams with a
uniform distribution as in Heafield et al., "Scalable modified Kneser-Ney language model estimation", ACL 2013, section
3; KenLM's lmplz gives the same probabilities). For an n-gram of context h and next character w, with h' the context
without its first character,

    p(w|h) = (a(hw) - D(a(hw))) / sum_v a(hv)  +  g(h) p(w|h'),      g(h) = sum_v D(a(hv)) / sum_v a(hv)

a is the count at the highest order and at every n-gram that begins a document, elsewhere the number of different
characters seen before the n-gram. D is 0, D1, D2 or D3 for a of 0, 1, 2, 3 and more, from the counts of counts n_j of
that order: Y = n1/(n1 + 2 n2), Dj = j - (j+1) Y n_(j+1)/n_j. Below the unigrams stands 1/1,112,065: every Unicode
scalar value and the end mark, so any text has a probability.

A document is begin mark, characters, end mark. The begin mark is context only; the characters and the end mark are
predicted, as the model predicts its tokens and its end mark; the sum is divided by the number of characters. The
n-gram always sees the characters before, also where the model's rows cut a document.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

BEGIN, END = 0x110000, 0x110001  # behind the last code point
OUTCOMES = 0x110000 - 0x800 + 1  # Unicode scalar values and the end mark
FALLBACK = (0.5, 1.0, 1.5)  # discounts where the counts of counts give none (KenLM's --discount_fallback)


class Level(NamedTuple):
    """The n-grams of one order.

    Attributes:
        of: (places,) number of the n-gram that ends there; -1 where it would reach beyond the document's begin.
        context: (n-grams,) number of the n-gram one shorter that it begins with.
        suffix: (n-grams,) number of the n-gram one shorter that it ends with.
        begins: (n-grams,) whether it starts with a begin mark.
    """

    of: Ints
    context: Ints
    suffix: Ints
    begins: NDArray[np.bool_]


class Text(NamedTuple):
    """Documents one after another, numbered n-grams of every order.

    Attributes:
        depth: (places,) characters since the document's begin mark, which has 0.
        starts: (documents + 1,) places of the begin marks, and the end.
        levels: order 1 first.
    """

    depth: Ints
    starts: Ints
    levels: list[Level]


def number_ngrams(texts: Sequence[str], orders: int) -> Text:
    """All n-grams of the texts up to this order, those of the held-out texts among them."""
    sizes = np.array([len(text) + 2 for text in texts], np.int64)
    starts = np.concatenate([np.zeros(1, np.int64), sizes.cumsum()])
    symbols = np.full(starts[-1], END, np.int64)
    for text, start in zip(texts, starts[:-1], strict=True):
        symbols[start] = BEGIN
        symbols[start + 1 : start + 1 + len(text)] = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")
    depth = np.arange(len(symbols)) - np.repeat(starts[:-1], sizes)
    alphabet, symbol = np.unique(symbols, return_inverse=True)
    nothing = np.zeros(len(alphabet), np.int64)
    levels = [Level(symbol, nothing, nothing, alphabet == BEGIN)]
    for order in range(2, orders + 1):
        shorter = levels[-1]
        ends = np.flatnonzero(depth >= order - 1)
        keys = shorter.of[ends - 1] * len(alphabet) + symbol[ends]
        _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
        of = np.full(len(symbols), -1, np.int64)
        of[ends] = inverse
        one = ends[first]
        levels.append(Level(of, shorter.of[one - 1], shorter.of[one], depth[one] == order - 1))
    return Text(depth, starts, levels)


def discounts(counts: Ints) -> Floats:
    """Discount of a count of 0, 1, 2, 3 and more (Chen and Goodman, eq. 26)."""
    n = np.bincount(np.minimum(counts, 5), minlength=6).astype(float)
    found = [0.0]
    for j in (1, 2, 3):
        rate = n[1] / (n[1] + 2 * n[2]) if n[1] and n[2] else math.nan
        found.append(j - (j + 1) * rate * n[j + 1] / n[j] if n[j] else math.nan)
    if not all(0 <= value <= j for j, value in enumerate(found)):  # not a number, too
        return np.array([0.0, *FALLBACK])
    return np.array(found)


def log_probabilities(text: Text, train: slice, test: slice, outcomes: int = OUTCOMES) -> Floats:
    """(orders, places) ln p of every place of the documents `test` after those of `train`; 0 at begin marks.

    Row k - 1 is the model of order k. `train` and `test` are slices of document numbers.
    """
    seen = slice(text.starts[train.start], text.starts[train.stop])
    asked = slice(text.starts[test.start], text.starts[test.stop])
    depth, reach = text.depth[asked], text.depth[seen]
    raw = [_counts(level, reach, seen, order) for order, level in enumerate(text.levels, 1)]
    below = np.full(len(depth), 1 / outcomes)
    rows = []
    for order, level in enumerate(text.levels, 1):
        places = np.flatnonzero(depth >= max(order - 1, 1))
        grams = level.of[asked][places]
        highest = below.copy()
        highest[places] = _interpolate(level, raw[order - 1], grams, below[places])
        rows.append(np.where(depth > 0, np.log(highest), 0.0))
        if order < len(text.levels):
            longer = text.levels[order]
            kinds = np.bincount(longer.suffix[raw[order] > 0], minlength=len(level.context))
            kinds = np.where(level.begins, raw[order - 1], kinds)
            below[places] = _interpolate(level, kinds, grams, below[places])
    return np.array(rows)


def _counts(level: Level, reach: Ints, seen: slice, order: int) -> Ints:
    """How often each n-gram stands in the training text; the begin mark alone is never an event."""
    return np.bincount(level.of[seen][reach >= max(order - 1, 1)], minlength=len(level.context))


def _interpolate(level: Level, counts: Ints, grams: Ints, below: Floats) -> Floats:
    """Probabilities of n-grams, given those of their suffixes."""
    discount = discounts(counts)[np.minimum(counts, 3)]
    contexts = int(level.context.max()) + 1
    total = np.bincount(level.context, counts, contexts)[level.context[grams]]
    freed = np.bincount(level.context, discount, contexts)[level.context[grams]]
    known = total > 0
    total = np.where(known, total, 1.0)
    return np.where(known, (counts[grams] - discount[grams] + freed * below) / total, below)


def bits_per_character(text: Text, train: slice, test: slice) -> Floats:
    """Bits per character of the orders 1, 2, … on the documents `test`, end marks predicted too."""
    characters = int(text.starts[test.stop] - text.starts[test.start]) - 2 * (test.stop - test.start)
    return -log_probabilities(text, train, test).sum(1) / math.log(2) / max(1, characters)


class Documents(NamedTuple):
    """What both models read: training documents in a drawn order, then the held-out ones."""

    texts: list[str]
    sources: list[str]
    tokens: Ints  # (training documents,) tokens the model predicts of each
    training: int


def read(corpora: Sequence[Path], encoded: Path) -> Documents:
    """The documents of an encoded corpus, split as it was split.

    Raises:
        ValueError: the counts in the token folders are not those of this text.
    """
    from rinsho.document import read_documents, shard_paths, training_folder
    from rinsho.packing import permutation
    from rinsho.token_pieces import Selection

    made = {part: json.loads((encoded / part / "tokens.json").read_text()) for part in ("train", "validation")}
    chosen = made["validation"]["selection"]
    held_out = Selection(**chosen) if chosen else None
    own = [corpus / "validation" for corpus in corpora if (corpus / "validation").is_dir()] if not chosen else []
    parts: dict[str, list[tuple[str, str]]] = {"train": [], "validation": []}
    for folder in (*map(training_folder, corpora), *own):
        for path in shard_paths([folder]):
            aside = any(place in path.parents for place in own)
            if aside and folder not in own:
                continue
            for document in read_documents(path, on_broken=lambda _: None):
                inside = aside or bool(held_out and held_out(document))
                source = str(document.meta.get("source") or "")
                parts["validation" if inside else "train"].append((document.text, source))
    for part, rows in parts.items():
        wanted = (made[part]["documents"], made[part]["characters"])
        found = (len(rows), sum(len(text) for text, _ in rows))
        if found != wanted:
            raise ValueError(f"{part}: (documents, characters) are {found} here and {wanted} in {encoded}")
    order = permutation(len(parts["train"]), "character n-gram")
    tokens = np.diff(np.load(encoded / "train" / "documents.npy"))[order] - 1
    rows = [parts["train"][number] for number in order] + parts["validation"]
    texts, sources = zip(*rows, strict=True)
    return Documents(list(texts), list(sources), tokens, len(order))


def curve(text: Text, documents: Documents, at: Sequence[int]) -> Iterator[tuple[int, int, Floats]]:
    """Documents, their tokens and the orders' bits per character after (about) each of these numbers of tokens."""
    ends = np.concatenate([np.zeros(1, np.int64), documents.tokens.cumsum()])
    held_out = slice(documents.training, len(documents.texts))
    for tokens in at:
        count = max(1, int(np.abs(ends - tokens).argmin()))
        yield count, int(ends[count]), bits_per_character(text, slice(0, count), held_out)


def model_curve(run: Path) -> list[tuple[int, float]]:
    """(seen tokens, held-out bits per character) of a pre-training run."""
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    rows = [(line["seen_tokens"], line.get("validation_bits_per_character")) for line in lines]
    return [(tokens, bits) for tokens, bits in rows if bits is not None]


def by_document(text: Text, documents: Documents) -> tuple[Floats, Ints]:
    """(orders, held-out documents) bits, and characters of each, after all of the training text."""
    held_out = slice(documents.training, len(documents.texts))
    bits = -log_probabilities(text, slice(0, documents.training), held_out) / math.log(2)
    starts = text.starts[documents.training :] - text.starts[documents.training]
    return np.add.reduceat(bits, starts[:-1], axis=1), np.diff(starts) - 2


def interval(bits: Floats, characters: Ints) -> tuple[float, float]:
    """95 % bootstrap interval of bits per character over documents."""
    draw = np.random.default_rng(1).integers(0, len(bits), (1000, len(bits)))
    low, high = np.quantile(bits[draw].sum(1) / characters[draw].sum(1), (0.025, 0.975))
    return float(low), float(high)


def _tables(text: Text, documents: Documents, points: int, run: Path | None) -> Iterator[str]:
    bits, characters = by_document(text, documents)
    sources = np.array(documents.sources[documents.training :])
    yield "| order | held-out bits per character (95 % interval over documents) |"
    yield "| ---: | ---: |"
    for order, row in enumerate(bits, 1):
        low, high = interval(row, characters)
        yield f"| {order} | {row.sum() / characters.sum():.4f} ({low:.3f}–{high:.3f}) |"
    yield ""
    orders = " | ".join(f"order {order}" for order in range(1, len(bits) + 1))
    yield f"| source | documents | characters | {orders} |"
    yield "| --- |" + " ---: |" * (len(bits) + 2)
    for source in sorted(set(sources), key=lambda name: -int(characters[sources == name].sum())):
        mine = sources == source
        row = " | ".join(f"{each[mine].sum() / characters[mine].sum():.4f}" for each in bits)
        yield f"| {source or '(none)'} | {mine.sum():,} | {characters[mine].sum():,} | {row} |"
    yield ""
    total = int(documents.tokens.sum())
    model = model_curve(run) if run else [(round(total * (part + 1) / points), math.nan) for part in range(points)]
    yield f"| tokens | documents | {orders} | model |"
    yield "| ---: |" + " ---: |" * (len(bits) + 2)
    for (seen, theirs), (count, _, row) in zip(
        model, curve(text, documents, [min(seen, total) for seen, _ in model]), strict=True
    ):
        mine = " | ".join(f"{value:.4f}" for value in row)
        yield f"| {seen:,} | {count:,} | {mine} | {'-' if math.isnan(theirs) else f'{theirs:.4f}'} |"


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", type=Path, nargs="+")
    parser.add_argument("--encoded", type=Path, required=True)
    parser.add_argument("--run", type=Path)
    parser.add_argument("--orders", type=int, default=6)
    parser.add_argument("--points", type=int, default=8, help="of the curve, where no run gives them")
    parser.add_argument("--out", type=Path)
    given: Any = parser.parse_args()
    started = time.monotonic()
    documents = read(given.text, given.encoded)
    text = number_ngrams(documents.texts, given.orders)
    held_out = slice(documents.training, len(documents.texts))
    size, total = (len("".join(documents.texts[part])) for part in (held_out, slice(None)))
    lines = [
        f"{documents.training:,} training documents ({total - size:,} characters, {documents.tokens.sum():,} predicted "
        f"tokens), {len(documents.texts) - documents.training:,} held out ({size:,} characters).",
        "",
    ]
    lines += _tables(text, documents, given.points, given.run)
    lines += ["", f"{time.monotonic() - started:.0f} s, numpy {np.__version__}."]
    print("\n".join(lines))
    if given.out:
        given.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
