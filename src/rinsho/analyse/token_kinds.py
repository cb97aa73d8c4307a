"""What kind of token each one is, and how far tokens of a kind lie together."""

from __future__ import annotations

import csv
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rinsho.analyse.embeddings import Embeddings
from rinsho.errors import UserError
from rinsho.segmentation import tagger
from rinsho.text import clean

SPECIAL, FUNCTION, BYTE, SYMBOL, OTHER = "special", "function word", "byte", "symbol, number", "other"
MORE_TERMS = "other term"
OWN = (SPECIAL, FUNCTION, BYTE, SYMBOL, OTHER, MORE_TERMS)
TERM_KINDS = 5  # of word lists that have a colour of their own

TERM_COLUMNS = ("surface", "topic", "term", "name", "word", "出現形", "病名", "標準病名", "用語", "名称")
KIND_COLUMNS = ("kind", "種類", "分類")

# Of MeCab's ipadic: particles, auxiliaries, conjunctions, adnominals, and verbs and adjectives that only assist others.
FUNCTION_CLASSES = ("助詞", "助動詞", "接続詞", "連体詞")
ASSISTING = (("動詞", "非自立"), ("動詞", "接尾"), ("形容詞", "非自立"))
ANALYSES = 10  # of a token in hiragana that are looked at: alone, ない is an adjective first, ました a verb
HIRAGANA, KATAKANA = re.compile(r"[ぁ-ん]+"), re.compile(r"[ァ-ヶー]+")
NUMERALS = frozenset("〇一二三四五六七八九十百千万億")


@dataclass(frozen=True)
class Kinds:
    """The kinds in the order of a legend, and the place of each token's kind among them (-1: no token)."""

    names: tuple[str, ...]
    of: NDArray[np.int16]

    def counts(self) -> dict[str, int]:
        """How many tokens each kind has."""
        return {name: int((self.of == place).sum()) for place, name in enumerate(self.names)}


def read_words(paths: Sequence[Path]) -> dict[str, str]:
    """The terms of word lists with their kinds; the earliest list decides.

    Args:
        paths: folders with a `terms.tsv` (of `rinsho tokenizer lexicon`), or .csv and .tsv files whose header has a
            column for the term (`TERM_COLUMNS`) and perhaps one for the kind; without it the file's name is the kind.

    Raises:
        UserError: a list that cannot be read or has no such column.
    """
    found: dict[str, str] = {}
    for path in paths:
        file = path / "terms.tsv" if path.is_dir() else path
        try:
            with file.open(encoding="utf-8-sig", newline="") as lines:
                tabs = (line.rstrip("\r\n").split("\t") for line in lines)
                _take(tabs if file.suffix.lower() == ".tsv" else csv.reader(lines), file, found)
        except (OSError, UnicodeDecodeError, csv.Error):
            raise UserError(
                "the word list cannot be read", where=file, expected="a UTF-8 table, or a folder with terms.tsv",
                todo="make one with rinsho tokenizer lexicon",
            ) from None  # fmt: skip
    return found


def _take(rows: Any, file: Path, found: dict[str, str]) -> None:
    header = [name.strip().lower() for name in next(rows, [])]
    at = next((header.index(name) for name in TERM_COLUMNS if name in header), None)
    if at is None:
        raise UserError(
            "no column with terms", where=f"{file}:1", expected=f"a header with one of {', '.join(TERM_COLUMNS)}",
            todo="make a table with rinsho tokenizer lexicon",
        )  # fmt: skip
    kind_at = next((header.index(name) for name in KIND_COLUMNS if name in header), None)
    for row in rows:
        term = clean(row[at]) if at < len(row) else ""
        if term:
            kind = row[kind_at].strip() if kind_at is not None and kind_at < len(row) else ""
            found.setdefault(term, kind or file.stem)


def kinds_of(embeddings: Embeddings, words: Mapping[str, str]) -> Kinds:
    """The kind of every token: special, byte, a kind of the word lists, function word, symbol or number, other.

    A token is a term when it is the whole term, and a function word by its part of speech as a word of its own.

    Source: NA-1.
    """
    labels = [
        _kind(token, form, words) if form != "unused" else None
        for token, form in zip(embeddings.tokens, embeddings.forms, strict=True)
    ]
    terms = Counter(label[0] for label in labels if isinstance(label, tuple)).most_common()
    shown = [kind for kind, _ in sorted(terms, key=lambda item: (-item[1], item[0]))[:TERM_KINDS]]
    names = {kind: kind if kind not in OWN else f"{kind} (list)" for kind in shown}
    final = [names.get(label[0], MORE_TERMS) if isinstance(label, tuple) else label for label in labels]
    order = [SPECIAL, FUNCTION, *names.values(), MORE_TERMS, BYTE, SYMBOL, OTHER]
    kept = tuple(name for name in order if name in set(final))
    place = {name: number for number, name in enumerate(kept)}
    return Kinds(kept, np.array([-1 if name is None else place[name] for name in final], np.int16))


def _kind(token: str, form: str, words: Mapping[str, str]) -> str | tuple[str]:
    """A kind of `OWN`, or a word list's kind as a tuple of one."""
    if form in ("special", "byte"):
        return SPECIAL if form == "special" else BYTE
    word = token.strip()
    if word and (kind := words.get(word) or words.get(clean(word))):
        return (kind,)
    if is_symbol(word):
        return SYMBOL
    return FUNCTION if is_function_word(word) else OTHER


def is_symbol(word: str) -> bool:
    """Whether a token has no letter, or is a number in Chinese characters.

    >>> [is_symbol(word) for word in ("、", "38.5", "十二", "mg", "")]
    [True, True, True, False, True]
    """
    return all(char in NUMERALS or unicodedata.category(char)[0] != "L" for char in word)


def is_function_word(word: str) -> bool:
    """Whether MeCab takes the token alone for particles, auxiliaries, conjunctions or adnominals.

    >>> [is_function_word(word) for word in ("を", "ない", "において", "ていた", "肺炎", "する")]
    [True, True, True, True, False, False]
    """
    if not word or KATAKANA.fullmatch(word):  # sentence-final ネ and ワ, which as tokens are parts of names
        return False
    mecab = tagger(None, 0, "")
    best, *_ = [*_analyses(mecab.parse(word)), []]
    if best and all(_is_function(features) for features in best):
        return True
    if not HIRAGANA.fullmatch(word):
        return False
    return any(
        (len(analysis) == 1 and analysis[0][0] in FUNCTION_CLASSES[:2])
        or all(
            features[0] == "助動詞" and features[4].startswith("特殊") for features in analysis
        )  # not of the old tongue
        for analysis in _analyses(mecab.nbest(word, ANALYSES))
    )


def _is_function(features: Sequence[str]) -> bool:
    return features[0] in FUNCTION_CLASSES or tuple(features[:2]) in ASSISTING


def _analyses(text: str) -> list[list[list[str]]]:
    """MeCab's lines as analyses of morphemes of features."""
    found: list[list[list[str]]] = [[]]
    for line in text.split("\n"):
        if line == "EOS":
            found.append([])
        elif "\t" in line:
            found[-1].append(line.split("\t", 1)[1].split(","))
    return [analysis for analysis in found if analysis]


def asked(labels: NDArray[np.int16], most: int, seed: int) -> NDArray[np.int64]:
    """The places of the tokens whose neighbours are looked up, ascending: all; of more than `most` a drawn part.

    Small kinds are asked whole, and of each larger one as many as there is room for.

    Args:
        labels: (tokens,) the kind of each.
        most: so many at most.
        seed: of the draw.

    >>> asked(np.array([0, 1, 1, 1, 1, 1, 2, 2], np.int16), 5, 1)[[0, -2, -1]]
    array([0, 6, 7])
    """
    if len(labels) <= most:
        return np.arange(len(labels))
    each = np.minimum(np.bincount(labels)[:, None], np.arange(most + 1)).sum(0)
    room = int(np.flatnonzero(each <= most)[-1])
    order = np.random.default_rng([seed, 2]).permutation(len(labels))
    return np.sort(np.concatenate([order[labels[order] == kind][:room] for kind in np.unique(labels)]))


def together(  # noqa: PLR0917
    kinds: Kinds, places: NDArray[np.int32], tokens: NDArray[np.int64], permutations: int, seed: int,
    of: NDArray[np.int64] | None = None,
) -> list[dict[str, Any]]:  # fmt: skip
    """For each kind the share of the nearest neighbours that are of the same kind, beside what chance gives.

    Args:
        kinds: of all tokens.
        places: (asked, count) nearest neighbours of the asked tokens, as places among `tokens`.
        tokens: ids of the tokens that are neighbours.
        permutations: shuffles of the kinds over the tokens.
        seed: of the shuffles.
        of: places of the asked tokens among `tokens`; None: all of them.

    Returns:
        `kind`, `tokens`, `share`, `chance` (exact mean over all shuffles), `chance_interval` (95 % of the shuffles),
        `p_value` (one-sided) of each kind with at least two tokens.

    Source: NA-1.
    """
    labels = kinds.of[tokens]
    of = np.arange(len(tokens)) if of is None else of
    counts = np.bincount(labels, minlength=len(kinds.names))
    observed = _shares(labels, places, of, len(counts))
    draw = np.random.default_rng([seed, 1])
    by_chance = np.array([_shares(draw.permutation(labels), places, of, len(counts)) for _ in range(permutations)])
    rows = []
    for place, name in enumerate(kinds.names):
        if counts[place] < 2:
            continue
        shuffled = by_chance[:, place]
        low, high = np.quantile(shuffled, [0.025, 0.975])
        rows.append(
            {
                "kind": name,
                "tokens": int(counts[place]),
                "share": float(observed[place]),
                "chance": float((counts[place] - 1) / (len(labels) - 1)),
                "chance_interval": [float(low), float(high)],
                "p_value": float((1 + (shuffled >= observed[place]).sum()) / (1 + permutations)),
            }
        )
    return rows


def _shares(
    labels: NDArray[np.int16], places: NDArray[np.int32], of: NDArray[np.int64], kinds: int
) -> NDArray[np.float64]:
    own = labels[of]
    same = (labels[places] == own[:, None]).mean(1)
    return np.bincount(own, weights=same, minlength=kinds) / np.maximum(np.bincount(own, minlength=kinds), 1)
