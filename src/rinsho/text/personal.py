"""Personal data with a fixed form: phone numbers, e-mail addresses, URLs, accounts, postal codes.

`find` gives spans, `replace` placeholders or nothing. Names, patient numbers and dates have no form that a pattern
could know: a later room finds them and returns the same `Span`. The patterns are written for normalised text (half
width, hyphens unified); `find` looks at a view of the raw text that has the same length, so its spans fit the raw
text. Every pattern takes linear time: it starts at a literal or at the start of a run, and runs are possessive.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Literal

from rinsho.text.characters import HYPHENS

PLACEHOLDERS = {
    "url": "[URL]",
    "email": "[メールアドレス]",
    "postal_code": "[郵便番号]",
    "account": "[アカウント]",
    "phone": "[電話番号]",
}

_URL_PART = r"[!#-'*-;=?-~]"  # printable ASCII without space, quotation mark, parentheses and angle brackets
_URL = (  # the first letter is a plain set, so that the search jumps from one to the next
    r"[hHtTfFsSwW](?:(?:(?<=[hH])[tT]{2}[pP][sS]?|(?<=[tT])[tT][pP][sS]?|(?<=[fF])[tT][pP][sS]?|(?<=[sS])[fF][tT][pP])"
    rf"://(?:{_URL_PART}++|\({_URL_PART}*+\))*+"
    rf"|(?<=[wW])(?<![A-Za-z0-9.-].)[wW]{{2}}\.[A-Za-z0-9-]++\.{_URL_PART}++)"
)
_LOCAL = "A-Za-z0-9._%+'-"
_EMAIL = (
    rf"[{_LOCAL}](?<![{_LOCAL}].)(?:(?<=m)ailto:[{_LOCAL}]++|[{_LOCAL}]*+)(?:@|\(at\)|\[at\])"
    r"(?:[A-Za-z0-9_-]++\.)+[A-Za-z]{2,}+(?![A-Za-z0-9_-])"
)
# `@` in dosing (3T@毎食後, 5mg@1日1回, O2 3L@NC) is followed by a digit, a Japanese letter or few letters
_ACCOUNT = r"@(?<![A-Za-z0-9._%+-]@)[A-Za-z_][A-Za-z0-9_]{3,}+(?:\.[A-Za-z0-9_]++)*+"
_POSTAL = (
    r"〒 ?[0-9]{3} ?-? ?[0-9]{4}(?![0-9])"
    r"|(?<![0-9A-Za-z.-])[0-9]{3}-[0-9]{4}(?= ?(?:東京都|北海道|京都府|大阪府|[一-龠]{2,3}県))"
)

_S = r"(?: ?- ?| ?\(|\) ?|[ .])"  # between the groups of a number
_ENDS = r"(?![0-9])(?!-[0-9])(?!\.[0-9])"
_CALL = ("電話", "電話番号", "携帯", "携帯番号", "携帯電話", "連絡先", "ファックス", "ファクス", "フリーダイヤル",
         "TEL", "Tel", "tel", "FAX", "Fax", "fax")  # fmt: skip
_LAST_SEVEN = rf"{_S}?[0-9]{{4}}{_S}?[0-9]{{4}}"  # of a mobile number: 4 and 4
_FIXED = (  # the groups after the first 0 of a ten-digit number, by length of the area code
    rf"[346]{_S}[0-9]{{4}}{_S}?[0-9]{{4}}",
    rf"[1-9][1-9]{_S}[0-9]{{3}}{_S}?[0-9]{{4}}",
    rf"[1-9][0-9]{{2}}{_S}[0-9]{{2}}{_S}?[0-9]{{4}}",
    rf"[1-9][0-9]{{3}}{_S}[0-9]{_S}[0-9]{{4}}",
    "000-[0-9]{2}-[0-9]{4}",  # made-up numbers in samples and forms
)
_SERVICE = (
    rf"(?:120|570|990){_S}?(?:[0-9]{{3}}{_S}?[0-9]{{3}}|[0-9]{{2}}{_S}?[0-9]{{4}})",
    rf"800{_S}?[0-9]{{3}}{_S}?[0-9]{{4}}",
)
_MOBILE = rf"[5-9]0{_LAST_SEVEN}"


def _phone() -> str:
    """The pattern of Japanese phone numbers; dates, doses, laboratory values and codes do not have these groups."""
    marks = ("", ":", " ", ": ", ".", "は", "(", "/", "-")
    named = "|".join(f"(?<={re.escape(word + mark)}0)" for word in _CALL for mark in marks)
    letters = "|".join(f"(?<={re.escape(word + mark)}0)" for word in _CALL if word.isascii() for mark in ("", "-"))
    # not inside a longer number or code; letters only when they say "phone"
    free = (
        r"(?=[1-9]|000-)(?:(?<![0-9A-Za-z]0)(?<![0-9][-./,]0)(?<![A-Za-z]-0)"
        rf"|(?:(?<=[A-Za-z]0)|(?<=[A-Za-z]-0))(?:{letters}))"
    )
    plain = "|".join((_MOBILE, *_SERVICE, *_FIXED))
    brackets = (
        rf"[346]\) ?[0-9]{{4}}{_S}?[0-9]{{4}}",
        rf"[1-9][1-9]\) ?[0-9]{{3}}{_S}?[0-9]{{4}}",
        rf"[1-9][0-9]{{2}}\) ?[0-9]{{2,3}}{_S}?[0-9]{{3,4}}",
        rf"[1-9][0-9]{{3}}\) ?[0-9]{_S}?[0-9]{{4}}",
        rf"[5-9]0\) ?[0-9]{{4}}{_S}?[0-9]{{4}}",
    )
    abroad = "|".join((*_SERVICE, _MOBILE, *(group.replace(_S, f"{_S}?") for group in _FIXED)))
    return (
        rf"0{free}(?:{plain}){_ENDS}"
        rf"|0(?=[1-9][0-9]{{8}}{_ENDS})(?:{named})[0-9]{{9}}"  # ten digits in a row: only where the words before say so
        rf"|\(0(?:{'|'.join(brackets)}){_ENDS}"
        rf"|\+(?<![0-9]\+)81{_S}?(?:\(0\){_S}?|0)?(?:{abroad}){_ENDS}"
    )


@dataclass(frozen=True, slots=True)
class Span:
    """Personal data at `text[start:end]`; `kind` is a key of PLACEHOLDERS."""

    start: int
    end: int
    kind: str


@cache
def patterns() -> dict[str, tuple[tuple[str, ...], re.Pattern[str]]]:
    """Kind -> (a text without any of these strings has none, pattern for normalised text), in the order to use."""
    return {
        "url": (("://", "www.", "WWW.", "Www."), re.compile(_URL)),
        "email": (("@", "(at)", "[at]"), re.compile(_EMAIL)),
        "postal_code": (("〒", "県", "都", "道", "府"), re.compile(_POSTAL)),
        "account": (("@",), re.compile(_ACCOUNT)),
        "phone": (("0", "+81"), re.compile(_phone())),
    }


def find(text: str) -> list[Span]:
    """All spans in the raw text, in order, not overlapping.

    >>> [(span.kind, span.start, span.end) for span in find("電話０３－１２３４－５６７８、体温３８．５℃")]
    [('phone', 2, 14)]
    >>> find("2024-03-12 アムロジピン5mg @1日1回 WBC 12,300 ICD I10")
    []
    """
    spans = []
    view = _view(text)
    for kind, (guards, pattern) in patterns().items():
        if not any(guard in view for guard in guards):
            continue
        found = [Span(match.start(), match.end(), kind) for match in pattern.finditer(view)]
        spans += found
        if found:
            view = "".join(_blanked(view, found))
    return sorted(spans, key=lambda span: span.start)


def replace(text: str, mode: Literal["placeholder", "remove"] = "placeholder") -> tuple[str, dict[str, int]]:
    """The text with marked placeholders (or nothing) for personal data, and how many of each kind.

    >>> replace("連絡は taro@example.jp か 090-1234-5678 へ")
    ('連絡は [メールアドレス] か [電話番号] へ', {'email': 1, 'phone': 1})
    >>> replace("〒100-0001 東京都、03(1234)5678", "remove")[0]
    ' 東京都、'
    """
    parts, position = [], 0
    spans = find(text)
    for span in spans:
        parts += [text[position : span.start], PLACEHOLDERS[span.kind] if mode == "placeholder" else ""]
        position = span.end
    return "".join([*parts, text[position:]]), dict(sorted(Counter(span.kind for span in spans).items()))


@cache
def _view_table() -> dict[int, str]:
    table = {code: chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)} | {0x3000: " ", 0xA0: " "}
    return table | {ord(mark): "-" for mark in (*HYPHENS, "‑")}


def _view(text: str) -> str:
    """The raw text in half width with unified hyphens, character for character."""
    view = text if text.isascii() else text.translate(_view_table())
    return re.sub(r"[ーｰ](?<=[0-9)][ーｰ])(?=[0-9(])", "-", view)


def _blanked(view: str, spans: list[Span]) -> Iterator[str]:
    position = 0
    for span in spans:
        yield view[position : span.start] + "\n" * (span.end - span.start)
        position = span.end
    yield view[position:]
