"""The cleaning rules one by one, in their order, each a plain `text -> text`.

This is what cleaning means; `rinsho.text.cleaning` does the same in one fast scan, and a test compares the two.
Use `one_by_one` to see what a single rule does, `clean` for work.

Source: SPEC N2.2-1; deviations from the report's literal rules (numbers are protected) in docs/corpus.md.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from rinsho.text import characters, personal

Replacement = str | Callable[[re.Match[str]], str]


@dataclass(frozen=True)
class Step:
    """One contextual rule: `pattern` is replaced where the text holds one of `guards` (always, when there are none)."""

    name: str
    pattern: re.Pattern[str]
    replacement: Replacement
    guards: tuple[str, ...] = ()
    ends: bool = False  # a space at either end is a guard too
    test: Callable[[str], bool] | None = None  # a cheap test in place of guards; True when in doubt

    def __call__(self, text: str) -> str:
        """The text with this rule applied."""
        return self.pattern.sub(self.replacement, text) if self.applies(text) else text

    def applies(self, text: str) -> bool:
        """False when the rule surely changes nothing (cheap)."""
        if self.test is not None:
            return self.test(text)
        if not self.guards or (self.ends and (text[:1] == " " or text[-1:] == " ")):
            return True
        return any(guard in text for guard in self.guards)


_WIDE = r"A-Za-z0-9Ａ-Ｚａ-ｚ０-９_＿\-－‐"  # letters of an address in either width
_DIGIT = "0-9０-９"
_POWER = characters.SUPERSCRIPTS


def _half_width_periods(match: re.Match[str]) -> str:
    rest = match[0].lstrip("．")  # a full stop before the address is a full stop
    return "．" * (len(match[0]) - len(rest)) + rest.replace("．", ".")


def _may_hold_address(text: str) -> bool:
    return "．" in text and any(mark in text for mark in ("@", "＠", "//", "／／", "www", "ｗｗｗ", "WWW", "ＷＷＷ"))


# Before normalisation: what it would destroy. `PREPARE` has to hold every character that one of these changes.
PREPARE = re.compile("[\r．，" + characters.SUPERSCRIPTS + characters.FRACTIONS + "]")
PREPARATION = (
    Step("line_breaks", re.compile("\r\n"), "\n", ("\r",)),
    Step("powers", re.compile(rf"[{_POWER}](?<=[{_DIGIT}].)(?:(?<![⁺⁻])|(?=[⁰¹²³⁴-⁹]))"), r"^\g<0>"),
    Step("fractions", re.compile(rf"[{characters.FRACTIONS}](?<=[{_DIGIT}].)"), r" \g<0>"),
    Step(
        "addresses",
        re.compile(
            rf"(?<![{_WIDE}+%.．])[{_WIDE}+%.．]*+[@＠][{_WIDE}]++(?:[.．][{_WIDE}]++)*+"
            r"|(?i:[hｈ]?[tｔ]{2}[pｐ][sｓ]?)[:：][/／]{2}[!-~！-～]++|(?i:[wｗ]{3})[.．][!-~！-～]++"
        ),
        _half_width_periods,
        test=_may_hold_address,
    ),
    Step(
        "list_numbers",
        re.compile(rf"(?m:．(?:(?<=^[{_DIGIT}]．)|(?<=^[{_DIGIT}]{{2}}．)|(?<=[#＃][{_DIGIT}]．)))"),
        ".",
        ("．",),
    ),
    Step("decimal_points", re.compile(rf"．(?<=[{_DIGIT}]．)(?=[{_DIGIT}])"), ".", ("．",)),
    Step("thousands_commas", re.compile(rf"，(?<=[{_DIGIT}]，)(?=[{_DIGIT}])"), ",", ("，",)),
)


def _may_repeat(text: str) -> bool:
    """False when no character stands five times in a row.

    The text as one large number, compared with itself one character further on: four equal neighbours are eight zero
    bytes. Eight times as fast as looking with the pattern.
    """
    units = text.encode("utf-16-le", "surrogatepass")
    if len(units) != 2 * len(text):  # characters of two units
        return True
    number = int.from_bytes(units, "little")
    return bytes(8) in (number ^ (number >> 16)).to_bytes(len(units), "little")


# After normalisation.
CONTEXT = (
    Step("ellipsis", re.compile("・{3,}"), "…", ("・・・",)),
    Step("ellipsis", re.compile(r"\.\.\.[.…]*"), "…", ("...",)),
    Step("ellipsis", re.compile(r"\.\.?…"), "…", (".…",)),
    Step("ellipsis", re.compile("…[.…]+"), "…", ("……", "….")),
    Step("degrees", re.compile("°C"), "℃", ("°C",)),
    Step("degrees", re.compile("°F"), "℉", ("°F",)),
    Step("choonpu", re.compile("ー(?<=[0-9A-Za-z)]ー)(?=[0-9A-Za-z(])"), "-", ("ー",)),
)
TIDY = (
    Step("white_space", re.compile("  +"), " ", ("  ",)),
    Step("white_space", re.compile("(?m: (?:(?<=^ )|$))"), "", (" \n", "\n "), ends=True),
    Step("white_space", re.compile("\n{3,}"), "\n\n", ("\n\n\n",)),
)
REPETITION = Step("repetition", re.compile(r"([^0-9\s])\1{4,}"), r"\1\1\1", test=_may_repeat)
ROUNDS = 8  # removing something may bring together another address; hostile text could do so without end
TAG = Step("tag", re.compile(r"#(?<![A-Za-z0-9&/#]#)(?=[^\W\d_])\w++"), " ", ("#",))
LAST_RESORT = Step("last_resort", re.compile("[^ぁ-ゖァ-ヺ㐀-䶿一-鿿。、\n]+"), "")


@cache
def removal(mode: str, kinds: tuple[str, ...]) -> tuple[Step, ...]:
    """The rules that take out personal data and web notation; `mode` is "remove" or "placeholder"."""
    steps = [
        Step(kind, pattern, " " if mode == "remove" else personal.PLACEHOLDERS[kind], guards)
        for kind, (guards, pattern) in personal.patterns().items()
        if kind in kinds
    ]
    return (*steps, TAG)


def prepare(text: str) -> str:
    """Doses, laboratory values, powers, list numbers and addresses kept from the rules for full-width text.

    >>> prepare("０．４ｍｇ、１２，３００／μＬ。"), prepare("投与した．次に，")
    ('０.４ｍｇ、１２,３００／μＬ。', '投与した．次に，')
    >>> prepare("１．発熱"), prepare("＃２．咳")
    ('１.発熱', '＃２.咳')
    >>> prepare("１５×10⁴、2½錠、ｔａｒｏ＠ｅｘａｍｐｌｅ．ｊｐ")
    '１５×10^⁴、2 ½錠、ｔａｒｏ＠ｅｘａｍｐｌｅ.ｊｐ'
    """
    for step in PREPARATION:
        text = step(text)
    return text


def japanese_periods(text: str) -> str:
    """Full-width period and comma become the Japanese ones, before normalisation would make them ASCII.

    >>> japanese_periods("発熱あり．咳嗽，喀痰なし．")
    '発熱あり。咳嗽、喀痰なし。'
    """
    return text.translate(_table("PERIODS"))


def mark_enumerators(text: str) -> str:
    """Circled numbers become (1): plain normalisation would make a dose of 15 mg out of ①５ｍｇ. Loose accents go.

    >>> mark_enumerators("①５ｍｇ ②１０ｍｇ")
    '(1)５ｍｇ (2)１０ｍｇ'
    """
    return text.translate(_table("ENUMERATORS")).translate(_table("SPACING_MARKS"))


def normalise(text: str) -> str:
    """NFKC.

    >>> normalise("ＣＲＰ ㎎ ｲﾝﾌﾙｴﾝｻﾞ Ⅲ期")
    'CRP mg インフルエンザ III期'
    """
    return unicodedata.normalize("NFKC", text)


def unify_hyphens(text: str) -> str:
    """All hyphens and dashes become `-`.

    >>> unify_hyphens("ギラン‐バレー、Ｇ−ＣＳＦ、5–10")
    'ギラン-バレー、Ｇ-ＣＳＦ、5-10'
    """
    return text.translate(_table("HYPHENS"))


def unify_tildes(text: str) -> str:
    """All tildes become `~`, as normalisation writes the full-width one.

    >>> unify_tildes("5〜10mg")
    '5~10mg'
    """
    return text.translate(_table("TILDES"))


def unify_symbols(text: str) -> str:
    """Symbols of similar meaning become one: quotation marks, bullets, arrows, comparison signs.

    >>> unify_symbols("“軽快” ⇒ SpO₂ ≤ 90 • 咳")
    '"軽快" → SpO₂ ≦ 90 ・ 咳'
    """
    return text.translate(_table("SYMBOLS"))


def unify_white_space(text: str) -> str:
    r"""All line breaks become line feeds, all other white space (U+2581 too) plain spaces.

    >>> unify_white_space("主訴\t発熱\x0c経過▁良好")
    '主訴 発熱\n経過 良好'
    """
    return text.translate(_table("LINE_BREAKS")).translate(_table("SPACES"))


def delete_others(text: str) -> str:
    r"""Every character outside the allowed set is deleted: emoji, other scripts, controls, lone surrogates.

    >>> delete_others("頭痛😭がする\u200b♪Привет"), delete_others("𠮷田さん\ud800")
    ('頭痛がする', '𠮷田さん')
    """
    return others().sub("", text)


def unify_choonpu(text: str) -> str:
    """A long-vowel mark between letters or digits is a hyphen.

    >>> unify_choonpu("０３ー１２３４"), unify_choonpu("Bー1とビタミン")
    ('０３ー１２３４', 'B-1とビタミン')
    """
    return _context("choonpu", text)


def restore_ellipsis(text: str) -> str:
    """Three and more dots become one ellipsis again.

    >>> restore_ellipsis("痛い......あ・・・", )
    '痛い…あ…'
    """
    return _context("ellipsis", text)


def restore_degrees(text: str) -> str:
    """°C and °F become one character again.

    >>> restore_degrees("38.5°C")
    '38.5℃'
    """
    return _context("degrees", text)


def reduce_repetition(text: str) -> str:
    """Five and more of one character become three; digits stay.

    >>> reduce_repetition("痛いーーーーーーー！！！！！ 1000000個")
    '痛いーーー！！！ 1000000個'
    """
    return REPETITION(text)


def tidy_white_space(text: str) -> str:
    r"""One space at most, none at the ends of a line, one empty line at most.

    >>> tidy_white_space("  主訴   発熱 \n\n\n\n 経過 ")
    '主訴 発熱\n\n経過'
    """
    for step in TIDY:
        text = step(text)
    return text


def remove_personal(
    text: str, mode: str = "remove", kinds: tuple[str, ...] = ("url", "email", "account", "phone")
) -> str:
    """Phone numbers, e-mail addresses, URLs, accounts and tags go, each leaving a space so that nothing is joined.

    >>> remove_personal("詳細は https://example.jp/a か taro@example.jp、03-1234-5678へ #頭痛")
    '詳細は か 、 へ'
    >>> remove_personal("#1 高血圧 アムロジピン5mg @1日1回")
    '#1 高血圧 アムロジピン5mg @1日1回'
    """
    for _ in range(ROUNDS):
        before = text
        for step in removal(mode, kinds):
            text = step(text)
        if text == before:
            return text
        text = tidy_white_space(text)
    return tidy_white_space(reduce_repetition(LAST_RESORT(text)))


RULES: tuple[Callable[[str], str], ...] = (
    prepare,
    japanese_periods,
    mark_enumerators,
    normalise,
    unify_hyphens,
    unify_tildes,
    unify_symbols,
    unify_white_space,
    delete_others,
    restore_ellipsis,
    restore_degrees,
    unify_choonpu,
    tidy_white_space,
    reduce_repetition,
    remove_personal,
)


def one_by_one(text: str) -> str:
    """What `clean` gives, by the plain chain of the rules: the reference for tests and benchmarks.

    >>> one_by_one("体温は３８．５℃．#1 肺炎　電話０９０－１２３４－５６７８")
    '体温は38.5℃。#1 肺炎 電話'
    """
    for rule in RULES:
        text = rule(text)
    return text


def _context(name: str, text: str) -> str:
    for step in CONTEXT:
        if step.name == name:
            text = step(text)
    return text


@cache
def others() -> re.Pattern[str]:
    """One character that clean text may not hold."""
    return re.compile(f"[^{characters.fine()}]")


@cache
def _table(name: str) -> dict[int, str]:
    table: dict[str, str] = getattr(characters, name)
    return {ord(key): value for key, value in table.items()}
