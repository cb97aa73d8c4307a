"""Which characters clean text may hold, and what the others become.

Sets and tables only; `rinsho.text.rules` says what is done with them. Everything is built at first use.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from functools import cache

# What may stand in clean text (besides, each must be stable under NFKC, except RESTORED).
ALLOWED = (
    "\n -~"  # ASCII
    "£¢¥€§¶©®°±×÷À-ÖØ-öø-ſ"  # Sjögren, Ménière, Waldenström
    "Ά-ΏΑ-ΡΣ-Ϋά-ώ"  # β-blocker, μg
    "ぁ-ゖゝゞァ-ヺ・ーヽヾㇰ-ㇿ々〆〇㐀-䶿一-鿿"
    "﨎﨏﨑﨓﨔﨟﨡﨣﨤﨧﨨﨩"  # the twelve kanji among the compatibility characters (﨑)
    "\U00020000-\U0002f7ff\U00030000-\U000323af"  # rare kanji (𠮷)
    "、。「」『』【】〈〉《》〒〃※…‰†‡"
    "→←↑↓↔○●◎△▲▽▼□■◇◆☆★✓♂♀"
    "∞√∫∑∂∇≠≡≦≧≒∈∩∪⊂⊃∧∨¬∀∃∝∠⊥∥"
)
RESTORED = "…℃℉"  # NFKC takes them apart, a rule puts them together again

# Before NFKC. U+FFFD stands for nothing: it is not allowed, so a later rule deletes it.
PERIODS = {"．": "。", "，": "、"}
ENUMERATORS = {
    **{chr(0x2460 + i): f"({i + 1})" for i in range(20)},  # ①: NFKC makes ①５ｍｇ a dose of 15mg
    **{chr(0x2776 + i): f"({i + 1})" for i in range(10)},  # ❶
    **{chr(0x24EB + i): f"({i + 11})" for i in range(10)},  # ⓫
    **{chr(0x24F5 + i): f"({i + 1})" for i in range(10)},  # ⓵
    **{chr(0x3251 + i): f"({i + 21})" for i in range(15)},  # ㉑
    "⓪": "(0)",
}
SPACING_MARKS = {**dict.fromkeys("゛゜´¨¯¸˘˙˛˜˝‾￣", "\ufffd"), "˚": "°"}  # NFKC makes them a space and a loose accent
BEFORE = {**PERIODS, **ENUMERATORS, **SPACING_MARKS}

# After NFKC, one character to one.
HYPHENS = dict.fromkeys("‐‒–—―−⁃─━➖⸺⸻˗", "-")
TILDES = dict.fromkeys("∼∾〜〰⁓", "~")
LINE_BREAKS = dict.fromkeys("\r\v\f\x1c\x1d\x1e\x85\u2028\u2029", "\n")
SPACES = dict.fromkeys("\t\x1f\u1680\u2581", " ")
SYMBOLS = {
    **dict.fromkeys("“”„‟〝〞〟❝❞", '"'),
    **dict.fromkeys("‘’‚‛′‵❛❜", "'"),
    **dict.fromkeys("•∙⋅·‧◦▪‣⦁", "・"),
    **dict.fromkeys("⋯⋮", "…"),
    **dict.fromkeys("⟨‹❮", "〈"),
    **dict.fromkeys("⟩›❯", "〉"),
    **dict.fromkeys("≪«⟪", "《"),
    **dict.fromkeys("≫»⟫", "》"),
    **dict.fromkeys("〔❲〘", "["),
    **dict.fromkeys("〕❳〙", "]"),
    **dict.fromkeys("〖", "【"),
    **dict.fromkeys("〗", "】"),
    **dict.fromkeys("✕✖╳⨯❌", "×"),
    **dict.fromkeys("⇒➡⟶➔➜➝➞⇨►▶", "→"),
    **dict.fromkeys("⇐⬅⟵⇦◀", "←"),
    **dict.fromkeys("⇑⬆⇧", "↑"),
    **dict.fromkeys("⇓⬇⇩", "↓"),
    **dict.fromkeys("⇔⟷⇄⇆", "↔"),
    **dict.fromkeys("◯⚪⭕", "○"),
    **dict.fromkeys("⚫⬤", "●"),
    **dict.fromkeys("☐▢◻⬜", "□"),
    **dict.fromkeys("☑✅✔☒", "✓"),
    **dict.fromkeys("◼⬛", "■"),
    **dict.fromkeys("≤⩽", "≦"),
    **dict.fromkeys("≥⩾", "≧"),
    **dict.fromkeys("≈≃≅", "≒"),
    "∆": "Δ", "⁄": "/", "∕": "/", "゠": "=", "∗": "*", "∶": ":", "∅": "φ", "‖": "∥", "ˆ": "^", "ˋ": "'",
    # radicals that PDF extraction leaves in place of the kanji
    "⻑": "長", "⻘": "青", "⻝": "食", "⻤": "鬼", "⻨": "麦", "⻩": "黄", "⻫": "斉", "⻭": "歯", "⻯": "竜",
    "⻲": "亀", "⻁": "虎", "⻄": "西", "⻆": "角", "⻣": "骨", "⺠": "民",
}  # fmt: skip
WIDE = {code: code + 0xFEE0 for code in range(0x21, 0x7F)}  # ASCII to full width
AFTER = {**HYPHENS, **TILDES, **LINE_BREAKS, **SPACES, **SYMBOLS}

SUPERSCRIPTS = "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻"
FRACTIONS = "¼½¾⅐⅑⅒⅓⅔⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞"


@cache
def combining() -> str:
    """The inside of a character class: every character that NFKC may join to the one before it."""
    return as_class(_joining())


@cache
def combining_basic() -> str:
    """The same for the basic plane only: searching with it is 25 times as fast."""
    return as_class(point for point in _joining() if point < 0x10000)


@cache
def fine() -> str:
    """The inside of a character class: allowed characters that no rule before the contextual ones changes."""
    joining, changed = set(_joining()), set(BEFORE) | set(AFTER)
    restored = set(RESTORED)
    return as_class(
        point
        for point in _points(ALLOWED + RESTORED)
        if point not in joining
        and (character := chr(point)) not in changed
        and (point > 0x1FFFF or character in restored or unicodedata.normalize("NFKC", character) == character)
    )


@cache
def others() -> re.Pattern[str]:
    """One character that clean text may not hold."""
    return re.compile(f"[^{fine()}]")


def as_class(points: Iterable[int]) -> str:
    """Code points as the inside of a regular-expression character class."""
    ordered = sorted(points)
    parts: list[str] = []
    start = previous = ordered[0]
    for point in [*ordered[1:], -1]:
        if point == previous + 1:
            previous = point
            continue
        first, last = re.escape(chr(start)), re.escape(chr(previous))
        parts.append(first if start == previous else f"{first}-{last}")
        start = previous = point
    return "".join(parts)


def _points(ranges: str) -> list[int]:
    """The code points of a string in which `a-b` stands for a range, as inside a character class."""
    points: list[int] = []
    position = 0
    while position < len(ranges):
        if position + 2 < len(ranges) and ranges[position + 1] == "-":
            points += range(ord(ranges[position]), ord(ranges[position + 2]) + 1)
            position += 3
        else:
            points.append(ord(ranges[position]))
            position += 1
    return points


# where such characters lie (a test compares with all of Unicode): reading all of it would take half a second
JOINING_BLOCKS = ((0x300, 0x3400), (0xA000, 0xAC00), (0xD7B0, 0xD800), (0xF900, 0x12000), (0x16000, 0x17000))
JOINING_BLOCKS_FAR = ((0x1B000, 0x1C000), (0x1D000, 0x1EA00))


@cache
def _joining() -> tuple[int, ...]:
    """Non-starters, and starters that are the second part of a canonical composition (Hangul vowels, か゚)."""
    points = [point for first, end in JOINING_BLOCKS + JOINING_BLOCKS_FAR for point in range(first, end)]
    seconds: set[str] = {chr(point) for point in [*range(0x1161, 0x1176), *range(0x11A8, 0x11C3)]}
    for point in points:
        parts = unicodedata.decomposition(chr(point)).split()
        if len(parts) == 2 and not parts[0].startswith("<"):
            seconds.add(chr(int(parts[1], 16)))
    firsts = ((point, unicodedata.normalize("NFKD", chr(point))[0]) for point in points)
    return tuple(point for point, first in firsts if unicodedata.combining(first) or first in seconds)
