"""Sentence patterns: one line of a data file, with slots and variation, parsed once and filled many times.

`{name}` is a slot, `<a|b>` one of several wordings, `~x~` a minor detail that may be left out, `^a|b^` the affirmed
and the negated form. A line that begins with `*` is held out: it occurs in test documents only.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

MARKS = re.compile(r"(\{[^{}]+\}|<[^<>]*>|~[^~]*~|\^[^^]*\^)")

Part = tuple[str, object]  # ("text", str), ("slot", str), ("one" | "either", list of parts), ("minor", parts)


@dataclass(frozen=True)
class Pattern:
    """One sentence pattern; `unseen` ones are kept for test documents."""

    text: str
    unseen: bool
    parts: tuple[Part, ...]

    @property
    def slots(self) -> tuple[str, ...]:
        """The names of its slots, in order of appearance, repeated ones once."""
        return tuple(dict.fromkeys(re.findall(r"\{([^{}]+)\}", self.text)))

    @property
    def firm_slots(self) -> tuple[str, ...]:
        """Those outside the minor details: they stand in every filled sentence."""
        return tuple(dict.fromkeys(re.findall(r"\{([^{}]+)\}", re.sub("~[^~]*~", "", self.text))))


def parse(line: str) -> Pattern:
    """The pattern that one line of a pattern file describes.

    >>> parse("*{x}は<ある|いる>。").slots
    ('x',)
    """
    unseen = line.startswith("*")
    text = line[1:] if unseen else line
    return Pattern(text, unseen, tuple(_parts(text)))


def fill(
    pattern: Pattern, rng: Random, slot: Callable[[str], str], *, minor: bool = True, negated: bool = False
) -> str:
    """The pattern with its slots filled from left to right.

    `slot` gives the text of a slot by its name and is called once per occurrence, in reading order; `minor` keeps the
    minor details; `negated` takes the second form of every `^a|b^`.
    """
    out: list[str] = []
    _fill(pattern.parts, rng, slot, (minor, negated), out)
    return "".join(out)


def _parts(text: str) -> list[Part]:
    parts: list[Part] = []
    for piece in MARKS.split(text):
        if not piece:
            continue
        mark, inner = piece[0], piece[1:-1]
        if mark == "{":
            parts.append(("slot", inner))
        elif mark == "<" and len(piece) > 1:
            parts.append(("one", [_parts(option) for option in inner.split("|")]))
        elif mark == "^" and len(piece) > 1:
            parts.append(("either", [_parts(option) for option in inner.split("|")]))
        elif mark == "~" and len(piece) > 1:
            parts.append(("minor", _parts(inner)))
        else:
            parts.append(("text", piece))
    return parts


def _fill(parts: object, rng: Random, slot: Callable[[str], str], choice: tuple[bool, bool], out: list[str]) -> None:
    minor, negated = choice
    for kind, value in parts:  # type: ignore[attr-defined]
        if kind == "text":
            out.append(value)
        elif kind == "slot":
            out.append(slot(value))
        elif kind == "one":
            _fill(rng.choice(value), rng, slot, choice, out)
        elif kind == "either":
            _fill(value[1 if negated else 0], rng, slot, choice, out)
        elif minor:
            _fill(value, rng, slot, choice, out)
