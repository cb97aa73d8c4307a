"""Reasons to drop a document: plain functions `Document -> Drop | None` that the recipe switches on.

Each maker below returns such a function. A reason is a short stable id, since it becomes a column of the report; the
value beside it is what the rule measured. Shares are measured on at most SAMPLE_CHARS characters of a document.

Source: SPEC N2.1-2; thresholds are our choice, see docs/corpus.md.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rinsho.document import Document
from rinsho.errors import UserError

if TYPE_CHECKING:
    from rinsho.corpus import Recipe

SAMPLE_CHARS = 20_000
SAMPLE_PIECES = 10
POST_CHARS = 140  # a single line up to here is a post or a heading: too little to judge by its punctuation
REPEATED_CHARS = 8  # shorter lines and sentences repeat by nature

AD_WORDS = (
    "送料無料", "今すぐクリック", "無料相談はこちら", "会員登録はこちら", "資料請求はこちら",
    "お問い合わせはこちら", "キャンペーン実施中", "公式サイト限定", "初回限定", "期間限定価格", "ポイントアップ",
    "ポイント還元", "カートに入れる", "お買い物かご", "この商品を買った人", "この商品を見た人", "あわせて読みたい",
    "広告の表示", "スポンサーリンク", "アフィリエイト", "メルマガ登録", "即日融資", "激安", "最安値", "前の記事",
    "次の記事", "人気記事ランキング", "カテゴリー:", "文字サイズ", "プライバシーポリシー", "利用規約",
    "サイトマップ", "ページの先頭へ", "新規登録", "シェアする", "フォローしてください", "いいね!",
)  # fmt: skip
ADULT_WORDS = (
    "アダルト動画", "アダルトビデオ", "無修正", "出会い系", "デリヘル", "風俗嬢", "セフレ", "エロ動画", "人妻",
    "素人娘", "18禁", "AV女優",
)  # fmt: skip
COPYRIGHT_MARKS = ("opyright", "OPYRIGHT", "eserved", "ESERVED", "©", "(c)", "(C)", "無断")
COPYRIGHT = re.compile(
    r"(?i:all rights? reserved|copyright ?(?:©|\(c\)|[12][0-9]{3}))|© ?[12][0-9]{3}|\(c\) ?[12][0-9]{3}"
    r"|無断で?(?:転載|転用|複製|複写|使用|引用)[^。\n]{0,20}(?:禁|断り|できません)"
)
_KANA = re.compile("[ぁ-ゖァ-ヺー]+")
_KANJI = re.compile("[々〆一-鿿㐀-䶿]+")
_PLAIN = re.compile(r"[\w\s、。,.「」()・:/%~-]+")
_CUT = re.compile(r"(?:続きを読む|もっと見る|続きは会員|会員登録が|以下、?省略|(?i:read more))[^\n。]{0,12}\Z")


@dataclass(frozen=True, slots=True)
class Drop:
    """Why a document goes: a stable reason and what was measured."""

    reason: str
    value: float | int | str


Filter = Callable[[Document], Drop | None]


def from_recipe(recipe: Recipe) -> list[Filter]:
    """The filters that the recipe switches on, cheap ones first; the first that drops a document gives its reason."""
    made = [
        length(recipe.min_chars, recipe.max_chars),
        words("adult", recipe.adult_words, recipe.max_adult_words),
        words("advert", recipe.ad_words, recipe.max_ad_words),
    ]
    if recipe.drop_copyright:
        made.append(copyright_notice)
    made.append(japanese(recipe.min_japanese_fraction))
    made.append(symbols(recipe.max_symbol_fraction))
    made.append(repetition(recipe.max_repetition_fraction))
    if recipe.drop_incomplete_sentences:
        made.append(incomplete(recipe.min_complete_fraction))
    made.extend(map(from_path, recipe.filters))
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

    A text beyond 1,000 characters may have `most` of them for every 1,000.

    >>> words("advert", ["送料無料", "激安"], 1)(Document("送料無料！激安サプリ", "a"))
    Drop(reason='advert', value=2)
    """
    looked_up = tuple(dict.fromkeys(listed))

    def rule(document: Document) -> Drop | None:
        text = document.text
        count = sum(word in text for word in looked_up)
        return Drop(reason, count) if count > most * max(1, len(text) / 1000) else None

    return rule


def copyright_notice(document: Document) -> Drop | None:
    r"""`copyright` when the text holds a copyright notice; the value is where it stands, 0 (start) to 1 (end).

    >>> copyright_notice(Document("本文。\n© 2024 見本クリニック 無断転載を禁じます。", "a"))
    Drop(reason='copyright', value=0.138)
    """
    if not any(mark in document.text for mark in COPYRIGHT_MARKS):
        return None
    match = COPYRIGHT.search(document.text)
    return Drop("copyright", round(match.start() / len(document.text), 3)) if match else None


def incomplete(min_fraction: float) -> Filter:
    r"""`incomplete` when less than `min_fraction` of the text lies in complete sentences, or its end was cut off.

    >>> incomplete(0.3)(Document("ホーム\n病気を調べる\nランキング", "a"))
    Drop(reason='incomplete', value=0.0)
    >>> incomplete(0.3)(Document("症状は二つある。\n続きを読む", "a"))
    Drop(reason='incomplete', value='cut')
    """

    def rule(document: Document) -> Drop | None:
        if _CUT.search(document.text, max(0, len(document.text) - 60)):
            return Drop("incomplete", "cut")
        text = _sample(document.text)
        if len(text) <= POST_CHARS and "\n" not in text:
            return None
        ends = text.replace("!", "。").replace("?", "。").split("\n")
        share = sum(line.rfind("。") + 1 for line in ends) / max(1, len(text) - len(ends) + 1)
        return Drop("incomplete", round(share, 3)) if share < min_fraction else None

    return rule


def repetition(max_fraction: float) -> Filter:
    """`repetition` when more than `max_fraction` of the text are lines and sentences that stood before.

    >>> repetition(0.5)(Document("今日も一日頑張ります。" * 4, "a"))
    Drop(reason='repetition', value=0.75)
    """

    def rule(document: Document) -> Drop | None:
        parts = [part for part in document.text.replace("。", "\n").split("\n") if len(part) >= REPEATED_CHARS]
        if max_fraction >= 1 or len(parts) < 2:
            return None
        total = sum(map(len, parts))
        share = (total - sum(map(len, set(parts)))) / total
        return Drop("repetition", round(share, 3)) if share > max_fraction else None

    return rule


def japanese(min_fraction: float) -> Filter:
    """`not_japanese` when kana and kanji are less than `min_fraction` of the text; kanji without kana are Chinese.

    >>> japanese(0.3)(Document("Fever and cough.", "a")), japanese(0.3)(Document("発熱と咳", "a"))
    (Drop(reason='not_japanese', value=0.0), None)
    """

    def rule(document: Document) -> Drop | None:
        if min_fraction <= 0:
            return None
        text = _sample(document.text)
        kana, kanji = sum(map(len, _KANA.findall(text))), sum(map(len, _KANJI.findall(text)))
        if kanji >= 200 and kana < kanji / 20:
            return Drop("not_japanese", round(kana / (kana + kanji), 3))
        share = (kana + kanji) / max(1, len(text) - text.count(" ") - text.count("\n"))
        return Drop("not_japanese", round(share, 3)) if share < min_fraction else None

    return rule


def symbols(max_fraction: float) -> Filter:
    """`symbols` when more than `max_fraction` of the text is neither letter, digit, white space nor common punctuation.

    >>> symbols(0.25)(Document("★★★☆☆ → ■■ 痛", "a"))
    Drop(reason='symbols', value=0.667)
    """

    def rule(document: Document) -> Drop | None:
        if max_fraction >= 1:
            return None
        text = _sample(document.text)
        share = 1 - sum(map(len, _PLAIN.findall(text))) / max(1, len(text))
        return Drop("symbols", round(share, 3)) if share > max_fraction else None

    return rule


def from_path(name: str) -> Filter:
    """A user's own filter, named `package.module:function`.

    Raises:
        UserError: it cannot be imported.
    """
    module, _, function = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError):
        found = None
    if not callable(found):
        raise UserError(
            f"no filter {name!r}",
            where="corpus.filters",
            expected="package.module:function that takes a Document and returns a Drop or None",
            todo="check the name, and that the package is installed",
        )
    return found  # type: ignore[no-any-return]


def _sample(text: str) -> str:
    """The text, or evenly spread pieces of a long one."""
    if len(text) <= SAMPLE_CHARS:
        return text
    step, size = len(text) // SAMPLE_PIECES, SAMPLE_CHARS // SAMPLE_PIECES
    return "".join(text[start : start + size] for start in range(0, step * SAMPLE_PIECES, step))
