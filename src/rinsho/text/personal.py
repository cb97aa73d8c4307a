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

from rinsho.text import phones
from rinsho.text.characters import HYPHENS, TILDES, WIDE

PLACEHOLDERS = {
    "url": "[URL]",
    "email": "[メールアドレス]",
    "postal_code": "[郵便番号]",
    "account": "[アカウント]",
    "phone": "[電話番号]",
}

# An address goes on while ASCII does; brackets belong to it in pairs, punctuation only when more follows.
_WORD = r"#-&+\-/0-9=@A-Z_a-z"
_MARKS = r"!'*,.:;?|~"
_KANA_KANJI = "ぁ-ゖァ-ヺー一-鿿々"
_BODY = (
    rf"(?:[{_WORD}]|[{_MARKS}]++(?=[{_WORD}])|\([{_WORD}{_MARKS}]*+\)|\[[{_WORD}{_MARKS}]*+\]|\{{[{_WORD}{_MARKS}]*+\}}"
    # Japanese parts with more of the address behind, and names of an encyclopedia's articles; other Japanese text is
    # the sentence that goes on
    rf"|[{_KANA_KANJI}](?<=[/=_-].)[{_KANA_KANJI}]*+(?=[/&?#][A-Za-z0-9%]|\.[a-z]{{3,4}}(?![a-z]))"
    r"|[ァ-ヶー一-鿿々](?<=/wiki/.)[ァ-ヶー一-鿿々]*+)++"
)
_HOST = rf"(?:[{_KANA_KANJI}A-Za-z0-9-]{{1,40}}\.(?=[a-z]))?"  # a Japanese one
_SCHEMES = (
    r"(?<=[hH])(?:[tT]{2}|[xX]{2}|\*\*)[pP][sS]?|(?<=[tT])[tT][pP][sS]?|(?<=[fF])[tT][pP][sS]?|(?<=[sS])[fF][tT][pP]"
    r"|(?<=[fF])ile|(?<=[wW])[sS]{1,2}|(?<=s)(?:sh|vn|mb)|(?<=g)it|(?<=l)daps?|(?<=r)tsp|(?<=i)rc"
)
# where a name with a path is an address (`example.jp/a`) and not a member of something (`Math.PI/180`, `Node.js/npm`)
DOMAINS = "com|net|org|jp|info|biz|edu|gov|io|dev|ly|gl|gle|be|tv|ms|co|eu|uk|us|de|fr|cn|kr|tw"
_URL = (  # cheap tests first: every letter of a line with an address is a candidate
    rf"[A-Za-z0-9](?:(?<=[hHtTfFsSwWglri])(?=[A-Za-z*]{{1,5}}+:)(?:{_SCHEMES})://{_HOST}{_BODY}"
    rf"|(?<=[wW])(?:ww|WW)(?<![A-Za-z0-9.-]...)[0-9]?\.[A-Za-z0-9-]++\.{_BODY}"
    # a name with a path, and a scheme with a user
    rf"|(?<![A-Za-z0-9@._/%+-].)(?:[A-Za-z0-9-]*+\.(?:[A-Za-z0-9-]++\.)*?(?:{DOMAINS})(?::[0-9]{{1,5}})?/(?:{_BODY})?"
    rf"|[A-Za-z0-9+.-]*+://[A-Za-z0-9._~%+:-]++@{_BODY}))"
)
_LOCAL = "A-Za-z0-9._%+-"
_FILES = "png|jpe?g|gif|svg|webp|bmp|ico|js|css|html?"  # image@2x.png
_AT = "(?:at|AT|あっと|アット|アットマーク)"
_EMAIL = (
    # the start of the part before the @: quotation marks, a full stop or a hyphen before it stay
    rf"[A-Za-z0-9_%+.@-](?:(?<=[A-Za-z0-9_%+])(?:(?<![{_LOCAL}].)|(?<=[.-].)(?<![{_LOCAL}]..))(?<![{_LOCAL}]'.)"
    rf"|(?<=[.-])(?=[.-])(?<![{_LOCAL}].)|(?<=@)(?=[A-Za-z0-9_]++@))"
    rf"(?:(?<=[mM])(?:ailto|AILTO):[{_LOCAL}]++|[{_LOCAL}]*+(?:'[{_LOCAL}]++)*+)"
    rf"(?: @ |@| ?[(\[【<]{_AT}[)\]】>] ?)"
    r"(?:[A-Za-z0-9_-]++(?:\.|\(dot\)|\[dot\]))+"
    rf"(?!(?:{_FILES})(?![A-Za-z0-9]))(?:xn--[A-Za-z0-9-]++|[A-Za-z]{{2,}}+)(?![A-Za-z0-9]|[_-][A-Za-z0-9])"
    rf"(?:\?(?:subject|body|cc|bcc)={_BODY})?"
)
# `@` in dosing (3T@毎食後, 5mg@1日1回, O2 3L@NC) is followed by a digit, a Japanese letter or few letters. Written like
# accounts, too: code (`@Component(`, `@angular/core`, `@@iterator`, the words below) and where oxygen is given (@room).
_NO_ACCOUNT = (
    "abstract[a-z]+|annotation|apply|author|bidi_dir|brief|case|charset|classmethod|click|code|color-profile|"
    "component|contentchild[a-z]*|container|counter-style|dataclass|default|defer|deprecated|directive|document|"
    "each|else|empty|error|example|extends?|font-[a-z-]+|forward|function|home|hostbinding|hostlistener|"
    "implementation|import|include|inheritdoc|inject|injectable|input|interface|iterator|keyframes|layer|link|"
    "loading|mask|media|method|mixin|module|namespace|nasal|nextlink|ngmodule|operator|option|optional|ornaments|"
    "output|override|page|param|pipe|placeholder|position-try|property|protocol|returns?|role|room|scope|selector|"
    "service|since|source|starting-style|staticmethod|styleset|stylistic|supports|swash|switch|tailwind|test|"
    "throws|title|todo|type|typedef|version|viewchild[a-z]*|view-transition|viewport|ward|while"
)
_ACCOUNT = (
    rf"@(?<![A-Za-z0-9_%+@`{{-]@)(?<![A-Za-z0-9]\.@)(?!(?i:{_NO_ACCOUNT})(?![A-Za-z0-9_]))"
    r"""[A-Za-z_][A-Za-z0-9_]{3,}+(?:[.-][A-Za-z0-9_]++)*+(?!/[A-Za-z]|\((?:[)'"{\[\n]|\Z))"""
)
_PLACE = (  # how an address goes on after its postal code
    "(?:東京都|北海道|京都府|大阪府|[一-龠]{2,3}県|[一-龠々ヶケ]{1,5}[市区郡町村]|(?:さいたま|つくば|いわき|ひたちなか|"
    "つくばみらい|かすみがうら|みどり|ふじみ野|みよし|あま|いなべ|たつの|うるま|えびの|にかほ|むつ|つがる|"
    "南アルプス|北アルプス|あきる野|あわら|おいらせ)[市町])"
)
_CODE = "[0-9]{3}-[0-9]{4}(?![0-9A-Za-z-])"
_POSTAL = (
    r"〒[ :]{0,2}[0-9]{3}(?: ?-? ?(?:[0-9]{4}|[0-9]{2}))?(?![0-9])"
    rf"|(?<![0-9A-Za-z.-]){_CODE}(?=[ 、,]?{_PLACE})"
    "|(?:(?<=郵便番号)|(?<=郵便番号[ :は(])|(?<=郵便番号: )|(?<=郵便番号は、))[0-9]{3} ?-? ?[0-9]{4}(?![0-9])"
)
POSTAL_BEFORE_LINE = re.compile(
    rf"(?:〒[ :]{{0,2}}|(?<![0-9A-Za-z.-])){_CODE}(?= ?\n ?{_PLACE})"
)  # the address on the next line
_CODE_BEFORE_LINE = re.compile("-(?<=[0-9]{3}-)[0-9]{4} ?\n")


def may_hold_code_before_line(text: str) -> bool:
    """False when `POSTAL_BEFORE_LINE` surely finds nothing (cheap)."""
    return _CODE_BEFORE_LINE.search(text) is not None


@dataclass(frozen=True, slots=True)
class Span:
    """Personal data at `text[start:end]`; `kind` is a key of PLACEHOLDERS."""

    start: int
    end: int
    kind: str


Anchor = str | re.Pattern[str]


@dataclass(frozen=True, slots=True)
class Form:
    """How a kind of personal data is found in normalised text, and quickly known to be absent."""

    pattern: re.Pattern[str]
    anchors: tuple[Anchor, ...]  # quick to look for; one lies in every line that has some
    needs: tuple[str, ...]  # a text without any of these strings has none

    def may_be_in(self, text: str) -> bool:
        """False when the text surely has none."""
        for anchor in self.anchors:  # noqa: SIM110 - runs for every sentence, and generators are slow to start
            if anchor in text if isinstance(anchor, str) else anchor.search(text):
                return True
        return False


@cache
def forms() -> dict[str, Form]:
    """Kind -> its form, in the order to use: what was found by one is gone for the next."""
    domain, code = re.compile(rf"\.(?:{DOMAINS})[:/]"), re.compile("-(?<=[0-9]{3}-)[0-9]{4}")
    written_out = ("(at)", "(AT)", "[at]", "[AT]", "【at】", "【AT】", "<at>", "アット", "あっと")
    return {
        "url": Form(re.compile(_URL), ("://", "www", "WWW", "Www", domain), (".", "://")),
        "email": Form(re.compile(_EMAIL), ("@", *written_out), (".", "dot")),
        "postal_code": Form(re.compile(_POSTAL), ("〒", "郵便番号", code), ("〒", "-", "郵便番号")),
        "account": Form(re.compile(_ACCOUNT), ("@",), ("@",)),
        "phone": Form(phones.pattern(), phones.anchors(), ("0", "+81")),
    }


def find(text: str) -> list[Span]:
    """All spans in the raw text, in order, not overlapping.

    >>> [(span.kind, span.start, span.end) for span in find("電話０３－１２３４－５６７８、体温３８．５℃")]
    [('phone', 2, 14)]
    >>> find("2024-03-12 アムロジピン5mg @1日1回 WBC 12,300 ICD I10")
    []
    """
    spans: list[Span] = []
    view = _view(text)
    for kind, form in forms().items():
        if not form.may_be_in(view):
            continue
        found = [Span(match.start(), match.end(), kind) for match in form.pattern.finditer(view)]
        if kind == "postal_code" and may_hold_code_before_line(view):
            view = "".join(_blanked(view, found))
            found += [Span(match.start(), match.end(), kind) for match in POSTAL_BEFORE_LINE.finditer(view)]
            found.sort(key=lambda span: span.start)
        if found:
            spans += found
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
    table = {wide: chr(code) for code, wide in WIDE.items()} | {0x3000: " ", 0xA0: " ", ord("，"): "、"}
    table |= {ord(mark): "~" for mark in TILDES} | {ord(mark): "・" for mark in "･·•∙⋅‧"}
    return table | {ord(mark): "-" for mark in (*HYPHENS, *"‑﹣﹘⁻₋")}


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
