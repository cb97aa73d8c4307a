"""Sums and differences of words in a model's embedding space, and which tokens lie nearest to them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rinsho.analyse.embeddings import Embeddings
from rinsho.errors import UnsuitedError, UserError
from rinsho.text import clean

Candidates = Literal["words", "all"]
Floats = NDArray[np.float32]

SIGNS = {"+": 1, "＋": 1, "-": -1, "－": -1, "−": -1}  # ー and ‐ (U+2010) belong to words
LEFT = 1e-5  # of the longest vector: what is shorter is rounding
AN_EXPRESSION = "words with + and - between them, for instance 脳出血 - 脳 + 消化管"


class Term(NamedTuple):
    """A word of an expression and its sign, 1 or -1."""

    sign: int
    word: str


@dataclass(frozen=True)
class Word:
    """How a word came to its vector.

    Attributes:
        text: the word as given.
        ids: its tokens.
        tokens: what they stand for.
        problem: why the vocabulary cannot represent it; empty where it can.
    """

    text: str
    ids: tuple[int, ...]
    tokens: tuple[str, ...]
    problem: str = ""

    @property
    def how(self) -> str:
        """In words: one token, the mean of its tokens (which), or not representable (why)."""
        if self.problem:
            return f"not representable: {self.problem}"
        return "one token" if len(self.ids) == 1 else f"mean of its tokens {'|'.join(self.tokens)}"


class Neighbour(NamedTuple):
    """A token near the sum."""

    token: str
    id: int
    cosine: float


@dataclass(frozen=True)
class Answer:
    """What an expression leads to.

    Attributes:
        expression: as it was understood, signs between spaces.
        words: its words in order.
        rows: the nearest tokens first; none where a word is not representable or nothing is left of the sum.
        left_out: tokens of the words themselves, which are no answers.
        problem: why there are no rows.
        median: of the cosines between the sum and everything that can be an answer.
        high: their 95 % quantile. A neighbour says something only as far as it lies above.
    """

    expression: str
    words: tuple[Word, ...]
    rows: tuple[Neighbour, ...]
    left_out: tuple[str, ...]
    problem: str = ""
    median: float = 0.0
    high: float = 0.0


@dataclass(frozen=True)
class Space:
    """An embedding space that is ready for questions; made by `space`.

    Attributes:
        tokenizer: cuts words that are no token.
        tokens: what each id stands for.
        known: whether an id stands for text.
        vectors: (ids, width) float32, as the model has them, or centred.
        scale: (ids,) 1 / length of each vector, 0 for a zero vector.
        candidates: ids that can be answers, one for each spelling.
        by_text: id of the token that is a word.
        place: of each id among the candidates, -1 where it is none.
        unit_length: whether every word counts alike in a sum.
        keep_own: whether tokens of the words themselves can be answers.
    """

    tokenizer: Any
    tokens: tuple[str, ...]
    known: NDArray[np.bool_]
    vectors: Floats
    scale: Floats
    candidates: NDArray[np.int64]
    by_text: dict[str, int]
    place: NDArray[np.int64]
    unit_length: bool
    keep_own: bool


def parse(expression: str, where: object = None) -> tuple[Term, ...]:
    """The words of an expression with their signs; full-width signs too.

    A sign stands at the start, after white space, or between two Japanese characters; elsewhere it belongs to a word.

    Args:
        expression: the text.
        where: what an error names as its place; else the expression.

    Raises:
        UserError: a sign without a word, or nothing at all.

    >>> parse("脳出血 - 脳 + 消化管") == parse("脳出血－脳＋消化管")
    True
    >>> [tuple(term) for term in parse("IL-6 + CA19-9 - β-遮断薬")]
    [(1, 'IL-6'), (1, 'CA19-9'), (-1, 'β-遮断薬')]
    """
    parts: list[tuple[int, str]] = []
    sign, begin = 1, 0
    for place, char in enumerate(expression):
        if char in SIGNS and _is_operator(expression, place):
            parts.append((sign, expression[begin:place]))
            sign, begin = SIGNS[char], place + 1
    parts.append((sign, expression[begin:]))
    if len(parts) > 1 and not parts[0][1].strip():  # a sign at the start
        del parts[0]
    terms = [Term(sign, word.strip()) for sign, word in parts]
    if not all(term.word for term in terms):
        raise UserError(
            "a sign without a word" if expression.strip() else "the expression is empty",
            where=where or repr(expression), expected=AN_EXPRESSION,
        )  # fmt: skip
    return tuple(terms)


def space(
    embeddings: Embeddings,
    tokenizer: Any,
    *,
    unit_length: bool = True,
    centred: bool = True,
    keep_own: bool = False,
    candidates: Candidates = "words",
) -> Space:
    """The space of a model's embeddings.

    Args:
        embeddings: see `rinsho.analyse.embeddings.read`.
        tokenizer: the model's.
        unit_length: every token's vector is brought to length 1 before sums and means.
        centred: the mean of all candidates is taken from every vector, so that what they share counts for nothing:
            else tokens that were hardly trained, which lie together, are near to many sums.
        keep_own: tokens of the words in a question can be its answer.
        candidates: `words`: tokens with a letter or a digit; `all`: every token of text. Special and byte tokens never.
    """
    known = np.array([form == "text" for form in embeddings.forms], dtype=np.bool_)
    by_text: dict[str, int] = {}
    for spaced in (False, True):  # with a space before it a word is another token: the one without goes first
        for id_ in np.flatnonzero(known).tolist():
            text = embeddings.tokens[id_]
            if text.strip() and text.startswith(" ") == spaced:
                by_text.setdefault(text.strip(), id_)
    ids = np.array(
        sorted(id_ for text, id_ in by_text.items() if candidates == "all" or any(map(str.isalnum, text))),
        dtype=np.int64,
    )
    if len(ids) == 0:
        raise UnsuitedError("no token of this vocabulary is a word", expected="a model with a vocabulary of text")
    place = np.full(len(embeddings), -1, dtype=np.int64)
    place[ids] = np.arange(len(ids))
    vectors, scale = embeddings.vectors, _scale(embeddings.vectors, 0.0)
    if centred:
        vectors = vectors * scale[:, None] if unit_length else vectors.copy()
        longest = float(np.linalg.norm(vectors, axis=1).max())
        vectors -= vectors.mean(axis=0, dtype=np.float64, where=(place >= 0)[:, None]).astype(np.float32)
        scale = np.where(scale > 0, _scale(vectors, LEFT * longest), np.float32(0))
    return Space(tokenizer, embeddings.tokens, known, vectors, scale, ids, by_text, place, unit_length, keep_own)


def find(where: Space, text: str) -> Word:
    """How the vocabulary represents a word: as one token, else by the tokens that the tokenizer cuts it into.

    A word that is a token is that token even where the tokenizer would cut it (MeCab cuts before the vocabulary is
    asked). A word with a piece that is no text (unknown, or bytes of a character that the vocabulary lacks) is not
    representable: the mean of such pieces says nothing.
    """
    cleaned = clean(text) if getattr(where.tokenizer, "cleans", False) else text.strip()
    one = where.by_text.get(cleaned.strip())
    if one is not None:
        return Word(text, (one,), (where.tokens[one].strip(),))
    ids = [id_ for id_ in _encode(where.tokenizer, text) if id_ >= len(where.tokens) or where.tokens[id_].strip()]
    if not ids:
        return Word(text, (), (), "nothing is left of it after cleaning")
    lacking = sum(id_ >= len(where.tokens) or not where.known[id_] for id_ in ids)
    if lacking:
        return Word(text, tuple(ids), (), f"{lacking} of its {len(ids)} tokens are bytes or unknown")
    return Word(text, tuple(ids), tuple(where.tokens[id_].strip() for id_ in ids))


def vector(where: Space, ids: Sequence[int]) -> Floats:
    """The mean of some tokens' vectors; of length 1, like each of them before, where the space is of unit length."""
    rows = where.vectors[list(ids)]
    if not where.unit_length:
        return np.asarray(rows.mean(axis=0), dtype=np.float32)
    mean = (rows * where.scale[list(ids), None]).mean(axis=0)
    return unit(np.asarray(mean, dtype=np.float32))


def own(where: Space, words: Iterable[Word]) -> list[int]:
    """Places among the candidates of the tokens that the words are made of; none where they may be answers."""
    if where.keep_own:
        return []
    texts = {where.tokens[id_].strip() for word in words if not word.problem for id_ in word.ids}
    places = (int(where.place[where.by_text[text]]) for text in texts)
    return sorted(place for place in places if place >= 0)


def neighbours(where: Space, expression: str, count: int = 10) -> Answer:
    """The tokens nearest to an expression, by the cosine between their vectors and the sum.

    The tokens of its words are left out, as usual with analogies: the sum stays nearest to its own words.

    Raises:
        UserError: not an expression.

    Source: NA-2.
    """
    terms = parse(expression)
    words = tuple(find(where, term.word) for term in terms)
    understood = written(terms)
    unknown = [word.text for word in words if word.problem]
    if unknown:
        return Answer(understood, words, (), (), f"not representable: {', '.join(unknown)}")
    total = added(where, [term.sign for term in terms], [word.ids for word in words])
    if not total.any():
        return Answer(understood, words, (), (), "nothing is left of the sum")
    left_out = own(where, words)
    cosines = similarities(where, total[None])[0]
    median, high = np.quantile(cosines, [0.5, 0.95]).tolist()
    order = np.argsort(-cosines, kind="stable")[: count + len(left_out)].tolist()
    rows = [place for place in order if place not in left_out][:count]
    return Answer(
        understood,
        words,
        tuple(neighbour(where, place, float(cosines[place])) for place in rows),
        tuple(neighbour(where, place, 0.0).token for place in left_out),
        median=median,
        high=high,
    )


def neighbour(where: Space, place: int, value: float) -> Neighbour:
    """A candidate as an answer with this cosine."""
    id_ = int(where.candidates[place])
    return Neighbour(where.tokens[id_].strip(), id_, value)


def added(where: Space, signs: Sequence[int], parts: Sequence[Sequence[int]]) -> Floats:
    """The sum of words given by their ids, of length 1; zero where nothing is left of it."""
    vectors = [sign * vector(where, ids) for sign, ids in zip(signs, parts, strict=True)]
    total: Floats = np.sum(np.stack(vectors), axis=0, dtype=np.float32)
    longest = max(float(np.linalg.norm(each)) for each in vectors)
    return unit(total) if np.linalg.norm(total) > LEFT * longest else np.zeros_like(total)


def similarities(where: Space, sums: Floats) -> Floats:
    """(sums, candidates) cosines of sums of length 1."""
    return np.asarray((sums @ where.vectors.T)[:, where.candidates] * where.scale[where.candidates], dtype=np.float32)


def unit(vector: Floats) -> Floats:
    """A vector with length 1; zero stays zero."""
    length = float(np.linalg.norm(vector))
    return vector / np.float32(length) if length > 0 else vector


def _scale(vectors: Floats, least: float) -> Floats:
    """1 / length of each vector, 0 for one that is no longer than `least`."""
    lengths = np.linalg.norm(vectors, axis=1)
    return np.asarray(np.divide(1.0, lengths, out=np.zeros_like(lengths), where=lengths > least), dtype=np.float32)


def written(terms: Sequence[Term]) -> str:
    """An expression as text.

    >>> written(parse("脳出血－脳"))
    '脳出血 - 脳'
    """
    text = " ".join(f"{'+' if term.sign > 0 else '-'} {term.word}" for term in terms)
    return text.removeprefix("+ ")


def _is_operator(text: str, place: int) -> bool:
    before, after = text[:place].rstrip(), text[place + 1 :].lstrip()
    if not before or text[place - 1].isspace():
        return True
    return bool(after) and _is_japanese(before[-1]) and _is_japanese(after[0])


def _is_japanese(char: str) -> bool:
    return "\u3005" <= char <= "\u30ff" or "\u3400" <= char <= "\u9fff" or "\uf900" <= char <= "\ufaff"


def _encode(tokenizer: Any, text: str) -> list[int]:
    if hasattr(tokenizer, "encode_text"):
        return list(tokenizer.encode_text(text))
    return list(tokenizer.encode(text, add_special_tokens=False))
