"""Reasons to drop a document: plain functions `Document -> Drop | None` that the recipe switches on.

Each maker below returns such a function. A reason is a short stable id, since it becomes a column of the report; the
value beside it is what the rule measured. All look at the whole clean text, take any `str` and linear time.

Source: SPEC N2.1-2; thresholds are our choice, see docs/corpus.md.
"""

from __future__ import annotations

import importlib
import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rinsho.corpus.filters import shares
from rinsho.corpus.filters.wordlists import WordLists, built_in, read_words
from rinsho.document import Document
from rinsho.errors import UserError
from rinsho.overlap.codes import codes

if TYPE_CHECKING:
    from rinsho.corpus import Recipe

POST_CHARS = 140  # a single line up to here is a post or a heading: too little to judge by its punctuation
NOTE_LINE_CHARS = 40  # a line of this length without full stop, a fifth of it hiragana, is a note and no menu
MANY_KANJI = 200  # as many kanji without kana are Chinese
FEW_KANJI = 20  # below this the kanji say nothing
WINDOW_CHARS = 16  # of repetition
FEW_WINDOWS = 1000  # sorting these is quicker than a table
FACTORS = tuple(
    np.uint32(factor) for factor in (0x9E3779B1, 0x85EBCA6B, 0xC2B2AE35, 0x27D4EB2F)
)  # odd, without structure

# Every branch begins with a literal character: so `re` looks for these first, which is twenty times as fast.
COPYRIGHT = re.compile(
    r"a(?i:ll rights? reserved)|A(?i:ll rights? reserved)"
    r"|c(?i:opyright[ :]{0,2}(?:©|\(c\)|[12][0-9]{3}|by ))|C(?i:opyright[ :]{0,2}(?:©|\(c\)|[12][0-9]{3}|by ))"
    r"|\((?i:c\) ?(?:copyright|[12][0-9]{3}))|© ?\w"
    r"|無断(?:で|での|の)?(?:転載|転用|複製|複写|使用|引用|掲載|配布|利用)[^。\n]{0,20}(?:禁|断り|できません|遠慮)"
    r"|転載[^。\n]{0,10}(?:を禁|禁止|厳禁|お断り|ご遠慮)|禁無断転載|不許複製"
    r"|本(?:サイト|ホームページ|ブログ|ページ)[^。\n]{0,30}著作権は|当(?:サイト|ホームページ|ブログ|ページ)[^。\n]{0,30}著作権は"
)
COPYRIGHT_MARKS = (  # a text without any of them has no notice
    "rights reserved", "right reserved", "copyright", "©", "(c)1", "(c)2", "(c) 1", "(c) 2", "(c) copyright",
    "(c)copyright", "無断", "転載", "不許複製", "著作権は",
)  # fmt: skip
_POINT = re.compile(r"(?<=[ぁ-ヿ々一-鿿)」])\.(?![0-9A-Za-z])")
_HIRAGANA = re.compile("[ぁ-ゖ]+")
_CUT = re.compile(r"(?:続きを読む|もっと見る|続きは会員|会員登録が|以下、?省略|(?i:read more))[^\n。]{0,12}\Z")


@dataclass(frozen=True, slots=True)
class Drop:
    """Why a document goes: a stable reason and what was measured."""

    reason: str
    value: float | int | str


Filter = Callable[[Document], Drop | None]


def from_recipe(recipe: Recipe, *, trusted: bool = False) -> list[Filter]:
    """The filters that the recipe switches on, cheap and general ones first; the first that drops gives the reason.

    For a `trusted` source, such as hospital notes, only length and the user's own filters: the others know web pages.

    Raises:
        UserError: a word list cannot be read, or an own filter cannot be imported.
    """
    made: list[Filter] = [length(recipe.min_chars, recipe.max_chars)]
    if trusted:
        return [*made, *map(from_path, recipe.filters)]
    if recipe.min_japanese_fraction > 0:
        made.append(japanese(recipe.min_japanese_fraction))
    if recipe.max_symbol_fraction < 1:
        made.append(symbols(recipe.max_symbol_fraction))
    made += _word_filters(recipe)
    if recipe.max_repetition_fraction < 1:
        made.append(repetition(recipe.max_repetition_fraction))
    if recipe.drop_incomplete_sentences:
        made.append(incomplete(recipe.min_complete_fraction))
    made.extend(map(from_path, recipe.filters))
    return made


def _word_filters(recipe: Recipe) -> list[Filter]:
    """One filter a list, and copyright notices; all of them share one scan of the text."""
    lists: dict[str, tuple[str, ...]] = {
        "adult": built_in("adult") if recipe.adult_words is None else tuple(recipe.adult_words),
        "advert": built_in("advert") if recipe.ad_words is None else tuple(recipe.ad_words),
    }
    most = {"adult": recipe.max_adult_words, "advert": recipe.max_ad_words}
    for reason, path in recipe.word_lists.items():
        lists[reason] = lists.get(reason, ()) + read_words(Path(path))
        most.setdefault(reason, recipe.max_listed_words)
    lists = {reason: listed for reason, listed in lists.items() if listed}
    marks = {"": COPYRIGHT_MARKS} if recipe.drop_copyright else {}  # no reason is called ""
    if not lists and not marks:
        return []
    found = WordLists({**lists, **marks}, anywhere=("",))
    made = [_counted(found, reason, most[reason]) for reason in lists]
    if recipe.drop_copyright:
        made.append(lambda document: copyright_notice(document) if found.count(document.text)[""] else None)
    return made


def length(min_chars: int, max_chars: int) -> Filter:
    """`too_short` or `too_long` in characters.

    >>> length(5, 10)(Document("発熱。", "a")), length(1, 10)(Document("発熱。", "a"))
    (Drop(reason='too_short', value=3), None)
    """

    def rule(document: Document) -> Drop | None:
        count = len(document.text)
        if count < min_chars:
            return Drop("too_short", count)
        return Drop("too_long", count) if count > max_chars else None

    return rule


def words(reason: str, listed: Iterable[str], most: int) -> Filter:
    """`reason` when more than `most` different listed words stand in the text; the value is their number.

    A text beyond 1,000 characters may have more, with the square root of its length: twice as many in 4,000.

    >>> words("advert", ["送料無料", "激安"], 1)(Document("送料無料！激安サプリ", "a"))
    Drop(reason='advert', value=2)
    """
    return _counted(WordLists({reason: listed}), reason, most)


def _counted(found: WordLists, reason: str, most: int) -> Filter:
    def rule(document: Document) -> Drop | None:
        count = found.count(document.text)[reason]
        if not count or count <= most * math.sqrt(max(1, len(document.text) / 1000)):
            return None
        return Drop(reason, count)

    return rule


def copyright_notice(document: Document) -> Drop | None:
    r"""`copyright` when the text holds a copyright notice; the value is where it stands, 0 (start) to 1 (end).

    >>> copyright_notice(Document("本文。\n© 2024 見本クリニック 無断転載を禁じます。", "a"))
    Drop(reason='copyright', value=0.138)
    """
    match = COPYRIGHT.search(document.text)
    return Drop("copyright", round(match.start() / len(document.text), 3)) if match else None


def japanese(min_fraction: float) -> Filter:
    """`not_japanese` when kana and kanji are less than `min_fraction` of the text without white space.

    Also, with the share of kana as the value, when kanji without kana make the text Chinese, or when many of them are
    kanji that Japanese encodings lack: Chinese again, or a text that was decoded wrongly.

    >>> japanese(0.3)(Document("Fever and cough.", "a")), japanese(0.3)(Document("発熱と咳", "a"))
    (Drop(reason='not_japanese', value=0.0), None)
    >>> japanese(0.3)(Document("患者发热咳嗽三天，没有头痛，也没有其他疾病。建议进一步检查。", "a"))
    Drop(reason='not_japanese', value=0.0)
    """

    def rule(document: Document) -> Drop | None:
        count = shares.counts(document.text)
        kana, unusual = count[shares.HIRAGANA] + count[shares.KATAKANA], count[shares.UNUSUAL]
        kanji = count[shares.KANJI] + unusual
        seen = sum(count) - count[shares.SPACE] - count[shares.LINE_FEED] - count[shares.SECOND]
        share = (kana + kanji) / max(1, seen)
        if share < min_fraction:
            return Drop("not_japanese", round(share, 3))
        no_kana = kana * 20 < kanji and (kanji >= MANY_KANJI or unusual * 20 > kanji or (unusual and not kana))
        if kanji >= FEW_KANJI and (no_kana or unusual * 10 > kanji):
            return Drop("not_japanese", round(kana / (kana + kanji), 3))
        return None

    return rule


def symbols(max_fraction: float) -> Filter:
    """`symbols` when more than `max_fraction` of the text is neither letter, digit, white space nor common punctuation.

    >>> symbols(0.25)(Document("★★★☆☆ → ■■ 痛", "a"))
    Drop(reason='symbols', value=0.667)
    """

    def rule(document: Document) -> Drop | None:
        count = shares.counts(document.text)
        share = count[shares.SYMBOL] / max(1, sum(count) - count[shares.SECOND])
        return Drop("symbols", round(share, 3)) if share > max_fraction else None

    return rule


def repetition(max_fraction: float) -> Filter:
    """`repetition` when more than `max_fraction` of the text's windows of 16 characters stood in it before.

    So sentences and lines that come again count, and templates that are filled in again and again; names and terms that
    recur are too short for it. In long texts distinct windows are counted by hash (linear counting), to about 1 %.

    >>> repetition(0.5)(Document("今日も一日頑張ります。" * 4, "a"))
    Drop(reason='repetition', value=0.621)

    Source: Whang, Vander-Zanden and Taylor 1990 (linear counting); the measure after Rae et al. 2021 (Gopher).
    """

    def rule(document: Document) -> Drop | None:
        units = codes(document.text)
        if len(units) <= WINDOW_CHARS:
            return None
        hashes = _windows(units)
        share = 1 - _distinct(hashes) / len(hashes)
        return Drop("repetition", round(share, 3)) if share > max_fraction else None

    return rule


def _windows(units: np.ndarray) -> np.ndarray:
    """The hash of every run of WINDOW_CHARS code units, uint32 (units - WINDOW_CHARS + 1,)."""
    hashes = units.astype(np.uint32)
    for width, factor in zip((1, 2, 4, 8), FACTORS, strict=True):  # of runs of 2, 4, 8 and 16
        longer = hashes[:-width] * factor
        longer += hashes[width:]
        hashes = longer
    hashes *= FACTORS[0]  # spreads what differs into the high bits
    return hashes


def _distinct(hashes: np.ndarray) -> int:
    """How many different values there are; beyond FEW_WINDOWS about, from the cells of a table that stay empty."""
    if len(hashes) <= FEW_WINDOWS:
        hashes.sort()
        return 1 + int(np.count_nonzero(hashes[1:] != hashes[:-1]))
    bits = min(28, (4 * len(hashes)).bit_length())
    seen = np.zeros(1 << bits, np.bool_)
    seen[hashes >> np.uint32(32 - bits)] = True
    filled = int(np.count_nonzero(seen)) / len(seen)
    return min(len(hashes), round(-len(seen) * math.log1p(-filled)))


def incomplete(min_fraction: float) -> Filter:
    r"""`incomplete` when less than `min_fraction` of the text lies in complete sentences, or its end was cut off.

    A sentence ends in 。 ! ? or in a point after a Japanese character, dialogue in 」 at the end of its line. Where
    these are too few, notes without full stop count as well: NOTE_LINE_CHARS characters, a fifth of them hiragana.

    >>> incomplete(0.3)(Document("ホーム\n病気を調べる\nランキング", "a"))
    Drop(reason='incomplete', value=0.0)
    >>> incomplete(0.3)(Document("症状は二つある。\n続きを読む", "a"))
    Drop(reason='incomplete', value='cut')
    """

    def rule(document: Document) -> Drop | None:
        text = document.text
        if _CUT.search(text, max(0, len(text) - 60)):
            return Drop("incomplete", "cut")
        if len(text) <= POST_CHARS and "\n" not in text:
            return None
        lines = text.replace("!", "。").replace("?", "。").split("\n")
        total = max(1, len(text) - len(lines) + 1)
        if sum(line.rfind("。") + 1 for line in lines) >= min_fraction * total:
            return None
        share = sum(map(_complete_chars, filter(None, lines))) / total
        return Drop("incomplete", round(share, 3)) if share < min_fraction else None

    return rule


def _complete_chars(line: str) -> int:
    """How many characters of a line belong to complete sentences or to a note; ! and ? have become 。 before."""
    if line.endswith("」"):
        return len(line)
    done = line.rfind("。") + 1
    if "." in line:
        done = max([done, *(match.end() for match in _POINT.finditer(line, done))])
    left = line[done:]
    is_note = len(left) >= NOTE_LINE_CHARS and sum(map(len, _HIRAGANA.findall(left))) * 5 >= len(left)
    return len(line) if is_note else done


def from_path(name: str) -> Filter:
    """A user's own filter, named `package.module:function`.

    Raises:
        UserError: it cannot be imported.
    """
    module, _, function = name.partition(":")
    problem = ""
    try:
        found = getattr(importlib.import_module(module), function, None)
    except Exception as error:  # whatever the user's module does; its message may hold anything
        found, problem = None, f" ({type(error).__name__})"
        if isinstance(error, ModuleNotFoundError) and error.name:
            problem = f" (no module {error.name})"
    if not callable(found):
        raise UserError(
            f"no filter {name!r}{problem}",
            where="corpus.filters",
            expected="package.module:function that takes a Document and returns a Drop or None",
            todo="check the name, and that the package is installed",
        )
    return found  # type: ignore[no-any-return]
