"""Japanese text to sentences, without cutting inside brackets and quotations."""

from __future__ import annotations

import re

_OPEN, _CLOSE = "「『（(【〈《[〔", "」』）)】〉》]〕"
_MARK = re.compile(r"(?:[。！？]|[!?](?![A-Za-z0-9=/&]))(?:[。！？!?])*|[「『（(【〈《\[〔」』）)】〉》\]〕]")
_FLAT = re.compile(r"(?<=[。！？])(?![。！？!?」』）)】〉》\]〕])|(?<=[!?])(?![A-Za-z0-9=/&。！？!?」』）)】〉》\]〕])")


def sentences(text: str) -> list[str]:
    r"""The sentences of a text, without line feeds and outer spaces; nothing else is lost.

    A sentence ends at 。！？!? outside brackets, or at the end of a line. In a line whose brackets do not match,
    every 。！？!? ends a sentence.

    >>> sentences("「痛い。もう帰る。」と言った。SpO2は96%。")
    ['「痛い。もう帰る。」と言った。', 'SpO2は96%。']
    >>> sentences("発熱あり（38℃。咳あり。\n経過良好！？次回")
    ['発熱あり（38℃。', '咳あり。', '経過良好！？', '次回']
    """
    found: list[str] = []
    for line in text.split("\n"):
        for sentence in _split(line):
            if stripped := sentence.strip():
                found.append(stripped)
    return found


def _split(line: str) -> list[str]:
    depth, start = 0, 0
    parts = []
    for match in _MARK.finditer(line):
        mark = match[0]
        if mark in _OPEN:
            depth += 1
        elif mark in _CLOSE:
            depth -= 1
            if depth < 0:
                return _FLAT.split(line)
        elif depth == 0:
            parts.append(line[start : match.end()])
            start = match.end()
    if depth:
        return _FLAT.split(line)
    return [*parts, line[start:]]
