"""What an exercise consists of before it is judged, and what its options look like: for lines and JSON alike."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass

LETTERS, DIGITS, KANA = "abcdefghij", "123456789", "アイウエオカキクケコ"

# Patterns look at lines in which the full-width forms of ASCII are narrow: one character for one.
NARROW = {0xFF01 + place: 0x21 + place for place in range(94)} | {0x3000: 0x20}
_OPTION = re.compile(
    r"[(\[【〈<]?\s*(?:選択肢\s*)?(?:([a-j]|\d|[ア-コ])(?:\s*[)\]】〉>.:、,]+\s*|\s+)|([①-⑨])[.:]?\s*)", re.I
)
_VALUE = re.compile(r"[0-9][.,][0-9]")  # 1.5mg; behind a full-width mark it is a label and its text


@dataclass(frozen=True, slots=True)
class Fields:
    """What stands where, not yet judged; the answer as the lines or list entries that name it."""

    question: str
    options: Mapping[str, str]
    answer: tuple[str, ...]
    explanation: str


@dataclass(frozen=True, slots=True)
class Option:
    """A line that looks like an option: its label, the label's style and place from 0, and its text."""

    label: str
    style: str
    place: int
    text: str


def option_of(line: str) -> Option | None:
    """The option that a line is, if it looks like one.

    >>> option_of("(Ｂ) 肺炎"), option_of("1.5mgを投与"), option_of("③喘息").place
    (Option(label='b', style='letter', place=1, text='肺炎'), None, 2)
    """
    match = _OPTION.match(line.translate(NARROW))
    if match is None or _VALUE.match(line):
        return None
    label, text = unicodedata.normalize("NFKC", match[1] or match[2]).lower(), line[match.end() :].strip()
    for style, labels in (("letter", LETTERS), ("kana", KANA), ("circle" if match[2] else "digit", DIGITS)):
        if (place := labels.find(label)) >= 0:
            return Option(label, style, place, text)
    return None
