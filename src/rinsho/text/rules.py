"""The cleaning rules one by one, in their order, each a plain `text -> text`.

This is what cleaning means; `rinsho.text.cleaning` does the same in one fast scan, and a test compares the two.
Use `one_by_one` to see what a single rule does, `clean` for work.

Source: SPEC N2.2-1; deviations from the report's literal rules (numbers are protected) in docs/corpus.md.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from functools import cache, partial

from rinsho.text import characters
from rinsho.text.steps import (
    CONTEXT,
    LAST_RESORT,
    LITERAL_PREPARATION,
    PREPARATION,
    REPETITION,
    ROUNDS,
    TIDY,
    Step,
    across_lines,
    removal,
)


def prepare(text: str, literal_numbers: bool = False) -> str:
    """Doses, laboratory values, powers, list numbers and addresses kept from the rules for full-width text.

    >>> prepare("０．４ｍｇ、１２，３００／μＬ。"), prepare("投与した．次に，")
    ('０.４ｍｇ、１２,３００／μＬ。', '投与した．次に，')
    >>> prepare("１．発熱"), prepare("＃２．咳")
    ('１.発熱', '＃２.咳')
    >>> prepare("１５×10⁴、2½錠、ｔａｒｏ＠ｅｘａｍｐｌｅ．ｊｐ")
    '１５×10^⁴、2 ½錠、ｔａｒｏ＠ｅｘａｍｐｌｅ.ｊｐ'
    >>> japanese_periods(prepare("０．４ｍｇ、１２，３００", literal_numbers=True))  # the report's rule
    '０。４ｍｇ、１２、３００'
    """
    for step in LITERAL_PREPARATION if literal_numbers else PREPARATION:
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
    return characters.others().sub("", text)


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

    Line by line: what hostile text does in one line stays there.

    >>> remove_personal("詳細は https://example.jp/a か taro@example.jp、03-1234-5678へ #頭痛")
    '詳細は か 、 へ'
    >>> remove_personal("#1 高血圧 アムロジピン5mg @1日1回")
    '#1 高血圧 アムロジピン5mg @1日1回'
    """
    for _ in range(ROUNDS):
        before = text
        for step in across_lines(mode, kinds):
            text = step(text)
        text = tidy_white_space("\n".join(_remove_from_line(line, removal(mode, kinds)) for line in text.split("\n")))
        if text == before:
            return text
    return tidy_white_space(reduce_repetition(LAST_RESORT(text)))


def _remove_from_line(line: str, steps: tuple[Step, ...]) -> str:
    for _ in range(ROUNDS):
        before = line
        for step in steps:
            line = step(line)
        if line == before:
            return line
        line = tidy_white_space(line)
    return tidy_white_space(reduce_repetition(LAST_RESORT(line)))


def set_space(text: str, space: str = " ") -> str:
    """White space as the tokenizer wants it: each space becomes `space`; line feeds stay.

    >>> set_space("主訴 発熱", "\u2581")
    '主訴▁発熱'
    """
    return text.replace(" ", space)


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
    set_space,
)


def one_by_one(
    text: str,
    *,
    personal: str = "remove",
    kinds: tuple[str, ...] = ("url", "email", "account", "phone"),
    literal_numbers: bool = False,
    space: str = " ",
) -> str:
    """What `clean` gives, by the plain chain of the rules: the reference for tests and benchmarks.

    >>> one_by_one("体温は３８．５℃．#1 肺炎　電話０９０－１２３４－５６７８")
    '体温は38.5℃。#1 肺炎 電話'
    """
    settings: dict[Callable[[str], str], Callable[[str], str]] = {
        prepare: partial(prepare, literal_numbers=literal_numbers),
        remove_personal: partial(remove_personal, mode=personal, kinds=kinds),
        set_space: partial(set_space, space=space),
    }
    for rule in RULES:
        if rule is not remove_personal or personal != "keep":
            text = settings.get(rule, rule)(text)
    return text


def _context(name: str, text: str) -> str:
    for step in CONTEXT:
        if step.name == name:
            text = step(text)
    return text


@cache
def _table(name: str) -> dict[int, str]:
    table: dict[str, str] = getattr(characters, name)
    return {ord(key): value for key, value in table.items()}
