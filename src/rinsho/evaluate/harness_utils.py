"""Questions and scores of the exported tasks, inside lm-evaluation-harness.

`rinsho.evaluate.harness` copies this file beside them as utils.py. It imports nothing of rinsho, so that the folder
works where rinsho is not installed, and runs nothing that a model wrote. The rules are those of `rinsho.tasks.score`
and `rinsho.evaluate.igakuqa` (N3-1, N3-2; tested to be equal).
"""

from __future__ import annotations

import ast
import json
import re
import unicodedata
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

MAX_ANSWER_CHARS = 16_384
NO_ANSWER = "None"

# "Answer: (B)", "答えはA,C", "**B**": what leads to the letters of an answer, the letters, and what may close it
_AROUND = r"[\s:「『(\[\"'*]*"
_CUE = rf"(?:答え|回答|解答|正解|正答|(?<![A-Za-z])(?i:answers?))\s*(?:は|:|(?i:is|are)\b){_AROUND}"
_CUE += rf"(?:(?:選択肢|(?i:option|choice)){_AROUND})?"
_LETTERS = r"([A-Za-z](?:(?:[ ]?[,、][ ]?|と| and )[A-Za-z])*)"
_LETTER_ALONE = re.compile(rf"{_AROUND}(?:(?i:(?:(?:the|my|final|correct) )*){_CUE})?{_LETTERS}[\s」』)\]\"'*.。:]*\Z")
# no word ("ADE"), no article ("a beta blocker"), nothing that is denied ("Aではない")
_CUED = re.compile(rf"{_CUE}{_LETTERS}(?![A-Za-z0-9])(?<!a(?= [a-z]))(?!では(?:な|あり)|でな)")
_LETTER_FIRST = re.compile(r"([A-Za-z])\s?[.:)、]\s*")

Doc = dict[str, Any]
Pair = tuple[str, str]


def questions(file: str, **_: Any) -> dict[str, Any]:
    """The questions that lie beside this file, wherever that is; nothing is copied into the cache of `datasets`."""
    from datasets import Dataset

    lines = Path(__file__).with_name(file).read_text(encoding="utf-8").split("\n")
    return {"test": Dataset.from_list([json.loads(line) for line in lines if line])}


# ---------------------------------------------------------------------- one question: (doc, results) -> its figures


def choice(doc: Doc, results: Sequence[Sequence[float]]) -> dict[str, Any]:
    """The likeliest choice; of equal ones the first."""
    given, norm = _likeliest(doc, results)
    return {"acc": _right(doc, given), "acc_norm": _right(doc, norm), "kappa": (doc["accepted"][0], given)}


def exam(doc: Doc, results: Sequence[Sequence[float]]) -> dict[str, Any]:
    """The same with the points of an examination."""
    given, norm = _likeliest(doc, results)
    right = _right(doc, given)
    return {"acc": right, "acc_norm": _right(doc, norm), "points": right * doc["points"]}


def free_choice(doc: Doc, results: Sequence[str]) -> dict[str, Any]:
    """JMED-LLM's rule: the first capital A to F anywhere. Other tasks give `options`, and what is said is read."""
    if doc.get("options"):
        said = _said(results[0], doc["options"], "a" if doc["letters"][0].islower() else "A")
        one = len(doc["accepted"][0].split(",")) == 1
        given = ",".join(said) if said and (len(said) == 1 or not one) else NO_ANSWER
    else:
        found = re.search("[A-F]", results[0])
        given = found.group() if found else NO_ANSWER
    return {"acc": _right(doc, given), "kappa": (doc["accepted"][0], given)}


def free_exam(doc: Doc, results: Sequence[str]) -> dict[str, Any]:
    """A free answer as IgakuQA's authors score it: half width and lower case, split at commas, nothing trimmed."""
    right = _right(doc, ",".join(sorted(_written(results[0]).split(","))))
    return {"acc": right, "points": right * doc["points"]}


def number(doc: Doc, results: Sequence[str]) -> dict[str, Any]:
    """The same for a calculation; `acc_tolerant` takes the only number of the answer or of its last line."""
    plain = _written(results[0])
    numbers = [re.findall(r"\d+(?:\.\d+)?", part) for part in (plain, plain.strip().rsplit("\n", 1)[-1])]
    alone = next((found[0] for found in numbers if len(found) == 1), "")
    return free_exam(doc, results) | {"acc_tolerant": _right(doc, alone)}


def entities(doc: Doc, results: Sequence[str]) -> dict[str, Any]:
    """F1 on the sets of entities, exactly as said: `official_exact_f1` of `rinsho evaluate`."""
    right, found = set(doc["gold"]), _listed(results[0])
    hits = len(right & found)
    return {"official_exact_f1": 2 * hits / (len(right) + len(found)) if right or found else 1.0}


# ---------------------------------------------------------------------- one task: figures of its questions -> a number


def kappa(pairs: Sequence[Pair]) -> float:
    """Cohen's kappa of (gold, given) letters over those that occur; "None" is one of them. nan where undefined."""
    return _kappa(pairs, lambda step: float(step > 0))


def linear_kappa(pairs: Sequence[Pair]) -> float:
    """The same, weighted linearly: for options that are the steps of a scale."""
    return _kappa(pairs, float)


def total(values: Sequence[float]) -> float:
    """The sum."""
    return float(sum(values))


def _said(answer: str, options: Sequence[str], first: str) -> list[str]:
    """The letters that a free answer comes to: `rinsho.tasks.score.said_letters`."""
    if len(answer) > MAX_ANSWER_CHARS:
        return []
    text, legal = unicodedata.normalize("NFKC", answer).strip(), [chr(ord(first) + n) for n in range(len(options))]
    cued = [] if _LETTER_ALONE.fullmatch(text) else _CUED.findall(text)
    if cued:
        return _legal(cued[-1], legal)
    alone, begins = _LETTER_ALONE.match(text.rsplit("\n", 1)[-1]), _LETTER_FIRST.match(text)
    if alone:
        letters = _legal(alone.group(1), legal)
        if letters:
            return letters
    texts = dict(zip(legal, map(_bare, options), strict=True))
    if not alone and begins and texts.get(begins.group(1)) == _bare(text[begins.end() :]):
        return [begins.group(1)]
    same = [letter for letter, option in texts.items() if option == _bare(text) != ""]
    return same if len(same) == 1 else []


def _legal(said: str, legal: Sequence[str]) -> list[str]:
    letters = sorted({part.strip() for part in re.split("[,、と]| and ", said)})
    return letters if set(letters) <= set(legal) else []


def _bare(text: str) -> str:
    return "".join(unicodedata.normalize("NFKC", text).split()).rstrip("。.")


def _likeliest(doc: Doc, results: Sequence[Sequence[float]]) -> list[str]:
    """(letters of the choice with the largest sum, with the largest mean over characters); of equal ones the first."""
    sums = [row[0] for row in results]
    means = [value / len(text) for value, text in zip(sums, doc["choices"], strict=True)]
    return [doc["letters"][max(range(len(row)), key=row.__getitem__)] for row in (sums, means)]


def _right(doc: Doc, given: str) -> float:
    return float(doc["always_right"] or given in doc["accepted"])


def _kappa(pairs: Sequence[Pair], cost: Callable[[int], float]) -> float:
    names = sorted({letter for pair in pairs for letter in pair})
    places = [tuple(map(names.index, pair)) for pair in pairs]
    gold, given = ([row.count(place) for place in range(len(names))] for row in zip(*places, strict=True))
    seen = sum(cost(abs(first - second)) for first, second in places)
    by_chance = sum(
        cost(abs(first - second)) * gold[first] * given[second]
        for first in range(len(names)) for second in range(len(names))
    )  # fmt: skip
    return 1.0 - seen * len(pairs) / by_chance if by_chance else float("nan")


def _written(answer: str) -> str:
    return unicodedata.normalize("NFKC", answer[: MAX_ANSWER_CHARS + 1]).lower()


def _listed(answer: str) -> set[Any]:
    """The values of the Python list literal that an answer is; none where it is no such list."""
    if len(answer) > MAX_ANSWER_CHARS or "[" not in answer:
        return set()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "\d" in a text is a warning, and none of the reader's business
            value = ast.literal_eval(answer)
        return set(value) if isinstance(value, list) else set()
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return set()
