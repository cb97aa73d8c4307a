"""What kinds of characters a text is made of, from one table look-up: the ground of several filters.

A text is looked at as UTF-16 code units (`rinsho.overlap.codes`). A character beyond the basic plane is two units: the
first says what it is, the second is of the class SECOND, which no share counts.
"""

from __future__ import annotations

from functools import cache, lru_cache

import numpy as np

from rinsho.overlap.codes import codes

# Classes, uint8. OTHER: letters of other scripts, digits. UNUSUAL: kanji that Japanese encodings (JIS X 0208) lack.
# PUNCTUATION: the common marks of running text; SYMBOL: everything else.
OTHER, HIRAGANA, KATAKANA, KANJI, UNUSUAL, SPACE, LINE_FEED, STOP, POINT, QUOTE, PUNCTUATION, SYMBOL, SECOND = range(13)
CLASSES = 13
MARKS = {STOP: "。!?", POINT: ".", QUOTE: "」』", PUNCTUATION: "、,・「『():;/%~-…", LINE_FEED: "\n"}
RARE_KANJI = range(0x3400, 0x4DC0)  # extension A
KANJI_FIRST_UNITS = range(0xD840, 0xD8C0)  # of the planes 2 and 3
SECOND_UNITS = range(0xDC00, 0xE000)


@lru_cache(maxsize=1)
def classes(text: str) -> np.ndarray:
    """The class of every UTF-16 code unit of the text, uint8; kept for the last text.

    >>> classes("咳、🤧").tolist() == [KANJI, PUNCTUATION, SYMBOL, SECOND]
    True
    """
    found: np.ndarray = _table().take(codes(text))
    return found


@lru_cache(maxsize=1)
def counts(text: str) -> list[int]:
    """How many code units of the text are of each class; kept for the last text.

    >>> counts("発熱と咳。")[KANJI], counts("発熱と咳。")[HIRAGANA], counts("発熱と咳。")[STOP]
    (3, 1, 1)
    """
    made: list[int] = np.bincount(classes(text), minlength=CLASSES).tolist()
    return made


@cache
def _table() -> np.ndarray:
    """Code unit -> class, uint8 (65536,)."""
    table = np.full(1 << 16, SYMBOL, np.uint8)
    for point in range(1 << 16):
        character = chr(point)
        if character.isalnum() or character == "_":
            table[point] = OTHER
        elif character.isspace():
            table[point] = SPACE
    table[ord("ぁ") : ord("ゖ") + 1] = HIRAGANA
    table[ord("ァ") : ord("ヺ") + 1] = KATAKANA
    table[ord("ㇰ") : ord("ㇿ") + 1] = KATAKANA
    table[ord("ｦ") : ord("ﾝ") + 1] = KATAKANA
    table[[ord(character) for character in "ーヽヾ"]] = KATAKANA
    table[[ord(character) for character in "ゝゞ"]] = HIRAGANA
    table[ord("一") : ord("鿿") + 1] = UNUSUAL
    table[RARE_KANJI.start : RARE_KANJI.stop] = UNUSUAL
    table[[ord(character) for character in _usual_kanji()]] = KANJI
    for kind, marks in MARKS.items():
        table[[ord(character) for character in marks]] = kind
    table[KANJI_FIRST_UNITS.start : KANJI_FIRST_UNITS.stop] = UNUSUAL
    table[SECOND_UNITS.start : SECOND_UNITS.stop] = SECOND
    return table


def _usual_kanji() -> str:
    """The kanji that Shift_JIS can write, 々 and 〆."""
    rows = (*range(0x88, 0xA0), *range(0xE0, 0xFD))
    pairs = bytes(byte for row in rows for cell in range(0x40, 0xFD) if cell != 0x7F for byte in (row, cell))
    return "々〆" + "".join(
        c for c in pairs.decode("cp932", "ignore") if "一" <= c <= "鿿" or c in "﨎﨑﨔﨟﨡﨣﨤﨧﨨﨩"
    )
