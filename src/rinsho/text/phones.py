"""The pattern of Japanese phone numbers, in normalised text (half width, one kind of hyphen)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache

# between the groups of a number
_S = r"(?: ?--? ?| ?-? ?\( ?| ?\) ?-? ?|[ .・一])"  # 一: a dash that was read as kanji
_ENDS = r"(?![0-9])(?!-[0-9])(?!\.[0-9])"
_LIKE = r"(?=[1-9][0-9]{0,3}(?:[ ().・一-]|[0-9]{5})|00(?:0-|-0))"  # after the first 0: most numbers are told by this
_NOT_HEX = "(?![a-f](?!ax))"

# the groups after the first 0
_MOBILE = rf"[5-9]0{_S}?[0-9]{{4}}{_S}?[0-9]{{4}}"  # 050 too
_SERVICE = (
    rf"(?:120|570|990){_S}?(?:[0-9]{{3}}{_S}?[0-9]{{3}}|[0-9]{{2}}{_S}[0-9]{{4}}|[0-9]{{4}}{_S}[0-9]{{2}}"
    rf"|[0-9]{_S}[0-9]{{5}})",
    rf"800{_S}?[0-9]{{3}}{_S}?[0-9]{{4}}",
)
_FIXED = (  # by length of the area code
    rf"[346]{_S}[0-9]{{4}}{_S}?[0-9]{{4}}",
    rf"[1-9][1-9]{_S}[0-9]{{3}}{_S}?[0-9]{{4}}",
    rf"[1-9][0-9]{{2}}{_S}[0-9]{{2}}{_S}?[0-9]{{4}}",
    rf"[1-9][0-9]{{3}}{_S}[0-9]{_S}?[0-9]{{4}}",
    r"[36](?:-|\()[0-9]{3}(?:-|\) ?)[0-9]{4}",  # Tokyo and Osaka before 1991 and 1999
    "00(?:0-[0-9]{2}|-0000)-[0-9]{4}",  # made-up numbers in samples and forms
)
_CLOSED = r" ?\) ?-? ?"  # after an area code in brackets
_IN_BRACKETS = "|".join(
    (
        rf"[346]{_CLOSED}[0-9]{{4}}{_S}?[0-9]{{4}}",
        rf"[1-9][1-9]{_CLOSED}[0-9]{{3}}{_S}?[0-9]{{4}}",
        rf"[1-9][0-9]{{2}}{_CLOSED}[0-9]{{2,3}}{_S}?[0-9]{{3,4}}",
        rf"[1-9][0-9]{{3}}{_CLOSED}[0-9]{_S}?[0-9]{{4}}",
        rf"[5-9]0{_CLOSED}[0-9]{{4}}{_S}?[0-9]{{4}}",
    )
)
_ABROAD = (  # after +81: separators anywhere or nowhere
    rf"(?:[5-9]{_S}?0(?:{_S}?[0-9]){{8}}|800(?:{_S}?[0-9]){{7}}|[1-9](?:{_S}?[0-9]){{8}})"
)
_INSIDE = r"(?:内線|\(内線?\)|[eE][xX][tT]\.?)(?:番号)?[: .]{0,2}[0-9]{1,6}"  # extension
_MORE = rf"(?:~[0-9]{{1,4}}(?![0-9:.時]))?(?: ?\( ?{_INSIDE} ?\)| ?[-、,/]? ?{_INSIDE}(?![0-9]))?"

# words before a number that say what it is: then ten digits in a row are a phone number, and letters may touch it
_CALL = ("電話", "電話番号", "携帯", "携帯番号", "連絡先", "ファックス", "ファクス", "ファクシミリ", "フリーダイヤル",
         "フリーコール", "ケータイ", "スマホ", "自宅", "実家", "職場", "勤務先", "問い合わせ", "問合せ", "問合わせ",
         "TEL", "Tel", "tel", "FAX", "Fax", "fax", "PHONE", "Phone", "phone", "Mobile", "mobile",
         "℡", "☎", "☏", "📞", "📱")  # fmt: skip
_MARKS = ("", " ", ":", ": ", " : ", ".", ". ", ".:", "は", "は、", "は:", "が", "の", "へ", "に", "、", "(", " (", "/",
          "-", "=", "→", "・", "】", "】 ", "]", "] ", ")", ") ", "):", "): ", "先", "先:", "先: ", "先は", "先 ",
          "番号", "番号:", "番号: ", "番号は", "番号 ", "/FAX", "/FAX:", "/FAX: ", "/FAX ")  # fmt: skip

# words that say it is another number
_CODES = ("第", "No.", "No. ", "No", "no.", "ID", "ID ", "ID:", "ID: ", "Lot", "Lot ", "Lot. ", "LOT ", "ロット",
          "ロット ", "ISBN", "ISBN ", "ISSN ", "JAN ", "CAS ", "NDC ", "コード", "コード:")  # fmt: skip
_NUMBERED = ("検体", "受付", "受診", "症例", "登録", "製造", "患者", "管理", "整理", "識別", "会員", "商品", "注文",
             "伝票", "承認", "認証", "口座", "証券", "保険者", "カルテ", "診察券", "ロット", "問診")  # fmt: skip


def pattern() -> re.Pattern[str]:
    """Phone numbers with their extension; dates, doses, laboratory values and codes do not have these groups."""
    plain, called = _plain()
    return re.compile(
        rf"0{_LIKE}(?:{plain}{_ENDS}{_NOT_HEX}|(?=[0-9]{{9}}{_ENDS}{_NOT_HEX}){called}){_MORE}"
        rf"|\(0(?:{_IN_BRACKETS}){_ENDS}{_MORE}"
        rf"|(?:\(\+81\)|\+(?<![0-9]\+)81){_S}?(?:\(0\){_S}?|0)?{_ABROAD}{_ENDS}{_MORE}"
    )


def anchors() -> tuple[str | re.Pattern[str], ...]:
    """What is quick to look for and lies in every phone number: these start with a plain character."""
    plain, called = _plain()
    return "+81", re.compile(rf"0{_LIKE}(?:{plain}|(?=[0-9]{{9}}){called}|(?<=\(0)(?:{_IN_BRACKETS}))")


@cache
def _plain() -> tuple[str, str]:
    """After the first 0: a number with its usual groups, and nine digits where the words before say what they are."""
    called = _after(word + mark for word in _CALL for mark in _MARKS)
    touching = _after(word + mark for word in _CALL if word.isascii() for mark in ("", "-"))
    # not inside a longer number or code: a letter before only when it says "phone", a point only after a list number
    free = (
        r"(?:(?<![0-9A-Za-z]0)(?<![0-9A-Za-z]-0)"
        r"(?:(?<![0-9]\.0)|(?=[0-9]{1,4}-[0-9]{1,4}-[0-9])(?<![0-9]{3}\.0)(?<!\.[0-9]\.0)(?<!\.[0-9]{2}\.0))"
        rf"|(?:(?<=[A-Za-z]0)|(?<=[A-Za-z]-0))(?:{touching}))"
    )
    codes = _after(
        [*_CODES, *(word + mark for word in _NUMBERED for mark in ("番号", "番号:", "番号 ", "番号: ", "番号は"))]
    )
    return f"(?!{codes}){free}(?:{'|'.join((_MOBILE, *_SERVICE, *_FIXED))})", f"(?:{called})[0-9]{{9}}"


def _after(words: Iterable[str]) -> str:
    """Lookbehinds: the 0 just read stands after one of the words (one lookbehind takes words of one length only)."""
    by_length: dict[int, list[str]] = {}
    for word in words:
        by_length.setdefault(len(word), []).append(re.escape(word))
    return "|".join(f"(?<=(?:{'|'.join(group)})0)" for group in by_length.values())
