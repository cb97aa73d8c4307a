"""Pure scorers: the benchmark's own rules, restated and safe, and corrected ones beside them.

Nothing a model wrote is ever executed; hostile answers (huge, nested, not text) count as wrong, quickly. scikit-learn
defines the same accuracy and kappa (tested to 1e-12); scipy is used inside one function for the best matching.
"""

from __future__ import annotations

import ast
import re
import unicodedata
import warnings
from collections.abc import Hashable, Sequence
from functools import lru_cache
from typing import Literal

import numpy as np
import numpy.typing as npt

from rinsho.tasks.item import NO_ANSWER
from rinsho.text import clean, clean_aligned

MAX_ANSWER_CHARS = 16_384  # a benchmark answer has at most 512 tokens of at most 16 characters
MAX_PAIRS = 20_000  # of gold and given entities whose overlap is looked at, per answer

# "Answer: (B)", "答えはA,C", "**B**": what leads to the letters of an answer, the letters, and what may close it
_AROUND = r"[\s:「『(\[\"'*]*"
_CUE = rf"(?:答え|回答|解答|正解|正答|(?<![A-Za-z])(?i:answers?))\s*(?:は|:|(?i:is|are)\b){_AROUND}"
_CUE += rf"(?:(?:選択肢|(?i:option|choice)){_AROUND})?"
_LETTERS = r"([A-Za-z](?:(?:[ ]?[,、][ ]?|と| and )[A-Za-z])*)"
_LETTER_ALONE = re.compile(rf"{_AROUND}(?:(?i:(?:(?:the|my|final|correct) )*){_CUE})?{_LETTERS}[\s」』)\]\"'*.。:]*\Z")
# no word ("ADE"), no article ("a beta blocker"), nothing that is denied ("Aではない")
_CUED = re.compile(rf"{_CUE}{_LETTERS}(?![A-Za-z0-9])(?<!a(?= [a-z]))(?!では(?:な|あり)|でな)")
_LETTER_FIRST = re.compile(r"([A-Za-z])\s?[.:)、]\s*")

Floats = npt.NDArray[np.float64]


def first_letter(answer: str) -> str:
    """JMED-LLM's reading of a choice: the first capital A to F anywhere, else "None".

    >>> first_letter("ADEの可能性は低い"), first_letter("わかりません")
    ('A', 'None')

    Source: N3-2.
    """
    found = re.search("[A-F]", answer)
    return found.group() if found else NO_ANSWER


def strict_letters(answer: str, legal: Sequence[str], texts: Sequence[str] = ()) -> tuple[str, ...]:
    r"""The letters an answer gives and nothing else gives; () where it gives none that is legal.

    Read are: the letter(s) alone, also after `答え:` or `Answer:`, a last line of that kind (the text-then-letter
    form), and `letter. text of that option`. Width does not matter.

    >>> strict_letters("ADEの可能性は低い\nB", "ABCD"), strict_letters("ADEの可能性", "ABCD")
    (('B',), ())
    >>> strict_letters("回答：Ｂ", "ABCD"), strict_letters("Answer: A, C", "ABCD")
    (('B',), ('A', 'C'))
    """
    if len(answer) > MAX_ANSWER_CHARS:
        return ()
    text = unicodedata.normalize("NFKC", answer).strip()
    alone = _LETTER_ALONE.match(text.rsplit("\n", 1)[-1])
    if alone:
        return _legal(alone.group(1), legal)
    first = _LETTER_FIRST.match(text)
    known = dict(zip(legal, texts, strict=False)).get(first.group(1)) if first else None
    return (first.group(1),) if first and known is not None and _bare(text[first.end() :]) == _bare(known) else ()


def said_letters(answer: str, legal: Sequence[str], texts: Sequence[str]) -> tuple[str, ...]:
    r"""The letters that a free answer comes to, for questions without a rule of their own (USMLE, tasks in YAML).

    The letter(s) alone; else those after the last `答え:`, `正解は`, `The answer is` and the like; else what
    `strict_letters` reads; else the option whose text the answer is. () where there is none, or one that is not legal.

    >>> options = ["Aspirin", "Based on age", "なし", "発熱"]
    >>> said_letters("Based on this, the answer is (B).", "ABCD", options), said_letters("発熱。", "ABCD", options)
    (('B',), ('D',))
    >>> said_letters("答えはAではない", "ABCD", options), said_letters("Based on this", "ABCD", options)
    ((), ())

    Source: N3-2.
    """
    if len(answer) > MAX_ANSWER_CHARS:
        return ()
    text = unicodedata.normalize("NFKC", answer).strip()
    cued = [] if _LETTER_ALONE.fullmatch(text) else _CUED.findall(text)
    if cued:
        return _legal(cued[-1], legal)
    same = [letter for letter, option in zip(legal, texts, strict=False) if _bare(option) == _bare(text) != ""]
    return strict_letters(answer, legal, texts) or (tuple(same) if len(same) == 1 else ())


def parse_list(answer: str) -> list[Hashable] | None:
    """The list that a Python list literal describes, or None where the answer is none.

    The benchmark evaluates the answer as code; this accepts the same literals and runs nothing. What becomes a list
    only by running (`['a'] + ['b']`, `list('ab')`, an f-string inside) is no answer: the one deliberate difference.
    Lists that hold unhashable values (the original stops with an error there) are no answer either, nor is what is
    longer than MAX_ANSWER_CHARS.

    >>> parse_list("['肺癌', '発熱']"), parse_list("__import__('os')"), parse_list("肺癌")
    (['肺癌', '発熱'], None, None)
    """
    if len(answer) > MAX_ANSWER_CHARS or "[" not in answer:
        return None
    try:
        with warnings.catch_warnings():  # "\d" or 1if is a warning, and none of the reader's business
            warnings.simplefilter("ignore")
            value = ast.literal_eval(answer)
        return value if isinstance(value, list) and all(_is_hashable(entry) for entry in value) else None
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None


def accuracy(gold: Sequence[str], given: Sequence[str]) -> float:
    """Share of equal labels, 0 to 1."""
    return sum(map(str.__eq__, gold, given)) / len(gold)


def kappa(gold: Sequence[str], given: Sequence[str], weights: Literal["linear"] | None = None) -> float:
    """Cohen's kappa over the labels that occur, sorted; "None" is one of them, as in the benchmark.

    nan where it is not defined (one label only, on both sides).
    """
    names = sorted({*gold, *given})
    return float(kappas(confusion(gold, given, names)[None], weights)[0])


def confusion(gold: Sequence[str], given: Sequence[str], names: Sequence[str]) -> Floats:
    """Counts, (labels, labels) float64: rows gold, columns given."""
    place = {name: number for number, name in enumerate(names)}
    flat = np.array([place[a] * len(names) + place[b] for a, b in zip(gold, given, strict=True)], dtype=np.int64)
    return np.bincount(flat, minlength=len(names) ** 2).reshape(len(names), -1).astype(np.float64)


def kappas(counts: Floats, weights: Literal["linear"] | None = None) -> Floats:
    """Cohen's kappa of many confusion matrices: (samples, labels, labels) -> (samples,), nan where undefined."""
    size = counts.shape[1]
    steps = np.abs(np.subtract.outer(np.arange(size), np.arange(size))).astype(np.float64)
    cost = steps if weights == "linear" else (steps > 0).astype(np.float64)
    expected = counts.sum(axis=2)[:, :, None] * counts.sum(axis=1)[:, None, :]
    total = counts.sum(axis=(1, 2))
    with np.errstate(divide="ignore", invalid="ignore"):
        disagreement = (expected * cost).sum(axis=(1, 2)) / total
        result: Floats = 1.0 - (counts * cost).sum(axis=(1, 2)) / disagreement
    result[disagreement == 0] = np.nan
    return result


def exact_f1(gold: Sequence[Hashable], given: Sequence[Hashable]) -> float:
    """F1 of one row on sets; the benchmark's score is the mean over rows."""
    right, found = set(gold), set(given)
    return _f1(len(right & found), len(right), len(found))


def own_spelling(passage: str, found: Sequence[Hashable]) -> list[Hashable]:
    """The entities of an answer in the passage's own spelling, as the gold ones are: models may see it cleaned.

    What stands in the passage as it was said stays as it is, whatever other spelling stands before it.

    >>> own_spelling("夜間に３８．５℃の発熱あり。", ["38.5°C", "肺炎"])
    ['３８．５℃', '肺炎']
    """
    cleaned, places = _aligned(passage) if found else ("", ())
    return [
        _raw(entity, passage, cleaned, places) if isinstance(entity, str) and entity not in passage else entity
        for entity in found
    ]


def official_partial_f1(gold: Sequence[Hashable], given: Sequence[Hashable]) -> float:
    """What the benchmark calls partial F1, for one row. Not a proportion: it passes 1.

    As soon as any given entity equals any gold entity, every gold entity counts as found. Kept to compare with
    published figures only; `overlap_f1` is what the name promises.

    >>> gold = ["肺癌", "発熱", "咳嗽", "血痰"]
    >>> official_partial_f1(gold, ["肺癌"]), overlap_f1(gold, ["肺癌"])
    (1.6, 0.4)
    """
    right, found = set(gold), set(given)
    return _f1(len(right) if right & found else 0, len(right), len(found))


def overlap_f1(gold: Sequence[Hashable], given: Sequence[Hashable]) -> float:
    """F1 of one row with partial credit: entities are matched one to one, 0 to 1.

    The credit of a pair is the Dice coefficient of its longest common substring: 2 x length / (sum of lengths).
    The matching is the best there is. Values that are not text overlap with nothing.
    """
    right, found = set(gold), set(given)
    if not right or not found:
        return float(right == found)
    credit = float(len(right & found))
    rest = [sorted(str(e) for e in side if isinstance(e, str)) for side in (right - found, found - right)]
    if len(rest[0]) * len(rest[1]) <= MAX_PAIRS:
        credit += _matching([[_dice(a, b) for b in rest[1]] for a in rest[0]])
    return 2.0 * credit / (len(right) + len(found))


@lru_cache(maxsize=1024)
def _aligned(passage: str) -> tuple[str, Sequence[int]]:
    return clean_aligned(passage)


def _raw(entity: str, passage: str, cleaned: str, places: Sequence[int]) -> str:
    for form in (entity, clean(entity)):
        start = cleaned.find(form) if form else -1  # the first place where it stands counts
        if start >= 0:
            return passage[places[start] : places[start + len(form)]].strip()
    return entity


def _f1(hits: int, gold: int, given: int) -> float:
    if gold == 0:
        return float(given == 0)
    recall, precision = hits / gold, hits / given if given else 0
    return (2 * recall * precision) / (recall + precision) if recall + precision else 0.0


def _dice(first: str, second: str) -> float:
    if set(first).isdisjoint(second):
        return 0.0
    best = 0
    for start in range(len(first)):
        while start + best < len(first) and first[start : start + best + 1] in second:
            best += 1
    return 2.0 * best / (len(first) + len(second))


def _matching(credit: list[list[float]]) -> float:
    """The largest sum of credits that a one-to-one matching reaches."""
    if not credit or not credit[0]:
        return 0.0
    best = [max(range(len(row)), key=row.__getitem__) for row in credit]
    wanted = [place for place, row in zip(best, credit, strict=True) if row[place] > 0]
    if len(set(wanted)) == len(wanted):  # no two want the same: each takes its best
        return sum(max(row) for row in credit)
    from scipy.optimize import linear_sum_assignment

    matrix = np.array(credit)
    rows, columns = linear_sum_assignment(matrix, maximize=True)
    return float(matrix[rows, columns].sum())


def _legal(said: str, legal: Sequence[str]) -> tuple[str, ...]:
    letters = tuple(sorted({part.strip() for part in re.split("[,、と]| and ", said)}))
    return letters if set(letters) <= set(legal) else ()


def _bare(text: str) -> str:
    """A text to compare: half width, without white space and the full stop."""
    return "".join(unicodedata.normalize("NFKC", text).split()).rstrip("。.")


def _is_hashable(value: object) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True
