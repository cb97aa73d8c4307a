"""The labels that an answer names: the same for the author of an exercise and for those who are asked about it."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence

MAX_PARTS = 10  # no question has more options
MAX_LABEL_CHARS = 200  # of an answer line that is looked at as a list of labels

_LEAD = re.compile(r"(?:選択肢の?|記号は?|番号は?)[\s:]*")
_TAIL = re.compile(r"(?:番|である|です|が正しい|が正解|だ|となる)*[。.]?")
_COUNT = re.compile(r"[\s、]*\((?:以上|計)?\s*[1-5一二三四五](?:つ|個|肢)\)[。.]?$")  # a, c（2つ）
_BETWEEN = re.compile(r"[\s,、，・/／&＆+;と]|および|及び|ならびに|並びに|and")
_JOINED = re.compile(r"[a-j]{2,5}|\d{2,5}")
_LABEL = re.compile(r"[(\[「]?([a-j](?![a-z])|\d{1,2}|[ア-コ](?![ァ-ヺー]))[)\]」.]?")
_BESIDE = re.compile(r"(?:^|[,、・と\s])[(\[「]?([a-jA-J]|\d|[ア-コ])\s*(?:[.)\]:、,の]+|(?=[(「])|\s)\s*")
_DENIED = re.compile("ではな|以外|ではありません")
_SO_IT_IS = re.compile("(?:です|である)[。.]?$")
_MARKS = "*`# \t✅✓✔☑"


def cores(options: Mapping[str, str]) -> dict[str, str]:
    """Label -> the option's text as answers are compared with it; made once for all that is read."""
    return {label: core(text) for label, text in options.items()}


def read_answer(
    parts: Sequence[str], known: Mapping[str, str], asked: int | None = None
) -> tuple[str, ...] | str:  # a reason of `exercises.REASONS`
    """The labels that an answer names, in the order of the options; else why there are none.

    Read are labels alone, a label with its option's text, or an option's whole text.

    Args:
        parts: the lines or list entries of the answer.
        known: of `cores`.
        asked: how many right options the question asks for; None: it does not say. So many digits may stand together.

    >>> known = cores({"a": "肺炎", "b": "喘息", "c": "気胸"})
    >>> read_answer(["ａ、ｃ（2つ）"], known), read_answer(["b. 喘息"], known), read_answer(["気胸"], known)
    (('a', 'c'), ('b',), ('c',))
    >>> read_answer(["b. 気胸"], known), read_answer(["aまたはb"], known)
    ('answer_contradicts', 'answer_not_an_option')
    """
    if len(parts) > MAX_PARTS:
        return "answer_not_an_option"
    chosen: set[str] = set()
    for part in parts:
        read = _labels(part, known, asked)
        if isinstance(read, str):
            return read
        chosen.update(read)
    return tuple(label for label in known if label in chosen) or "no_answer"


def core(text: str) -> str:
    """An option without what may stand around it."""
    bare = plain(text)
    return bare.strip("「」『』()[]<>\"' ") or bare


def plain(text: str) -> str:
    """An option for comparison: normal forms, no white space, no stop at its end."""
    return "".join(unicodedata.normalize("NFKC", text).lower().split()).rstrip("。.、,;")


def _labels(part: str, known: Mapping[str, str], asked: int | None) -> list[str] | str:
    text = unicodedata.normalize("NFKC", part).strip().strip(_MARKS)
    if not text.strip("()。.、,:：-「」『』【】[]<> "):
        return []
    if count := _COUNT.search(text, max(0, len(text) - 16)):
        text = text[: count.start()]
    beside = _beside(text, known)
    if isinstance(beside, list):
        return beside
    if text.lower().strip("「」() ") not in known:
        said = {core(text), core(_SO_IT_IS.sub("", text))}
        whole = [label for label, option in known.items() if option in said]
        if len(whole) == 1:
            return whole
    return (_alone(text.lower().strip("「『【[<"), known, asked) if len(text) <= MAX_LABEL_CHARS else None) or beside


def _alone(text: str, known: Mapping[str, str], asked: int | None) -> list[str] | None:
    """Labels and what may stand around and between them, nothing else; else None."""
    lead = _LEAD.match(text)
    rest = text[lead.end() :] if lead else text
    joined = rest.rstrip("。.")
    if joined not in known and _JOINED.fullmatch(joined):
        ascending = list(joined) == sorted(set(joined))  # `ac`, not the word `bad`
        fits = joined[0].isalpha() or len(joined) == asked  # 13 may be a number
        return list(joined) if ascending and fits and all(label in known for label in joined) else None
    labels, place = [], 0
    while place < len(rest):
        if between := _BETWEEN.match(rest, place):
            place = between.end()
            continue
        label = _LABEL.match(rest, place)
        if label is None:
            break
        labels.append(label[1])
        place = label.end()
    whole = labels and all(label in known for label in labels) and _TAIL.fullmatch(rest, place)
    return labels if whole else None


def _beside(text: str, known: Mapping[str, str]) -> list[str] | str:
    """Labels each followed by the text of its option: `c. メトホルミン`, `a（…）、c（…）`; else why it is not that."""
    found: list[str] = []
    marks = [mark for mark in _BESIDE.finditer(text) if mark[1].lower() in known]
    if not marks or marks[0].start() > 0:
        return "answer_not_an_option"
    place = 0
    while place < len(marks):
        label = marks[place][1].lower()
        for last in range(place + 1, min(place + 4, len(marks)) + 1):  # the option's own text may look like a label
            end = marks[last].start() if last < len(marks) else len(text)
            if _same(core(text[marks[place].end() : end]), label, known):
                found.append(label)
                place = last
                break
        else:
            return "answer_contradicts"
    return found


def _same(said: str, label: str, known: Mapping[str, str]) -> bool:
    """Whether what stands beside a label is its option, whole, cut short or with words behind it."""
    option = known[label]
    if said == option or not said or said in known.values():
        return bool(said) and said == option
    more = said.startswith(option) and not _DENIED.search(said, len(option))
    return more or (len(said) >= 4 and option.startswith(said))
