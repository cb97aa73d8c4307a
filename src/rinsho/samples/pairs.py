"""Pairs of clinical sentences whose grade of similarity follows from how they were made (JCSTS).

A: same meaning. B: a minor detail differs. C: one number or one drug (or another single term) differs. D: affirmed
against negated, or most of the details differ. E: same topic. F: unrelated.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random

from rinsho.samples.bank import Bank, Drug
from rinsho.samples.passage import UNSEEN_PATTERN, Passage, holds_unseen, numbered
from rinsho.samples.pattern import Pattern, fill
from rinsho.samples.rows import Fresh, Row, choice, unseen_cases

GRADES = "ABCDEF"
STOP, COMMA, WIDE_COMMA = "\u3002", "\u3001", "\uff0c"
DRUG, NUMBER = ("m", "m2"), ("v", "n", "x")
SAME_WORDING = 0.4  # share of pairs of one meaning that use one pattern twice


@dataclass
class Filling:
    """Values of the slots of a sentence."""

    passage: Passage
    drug: Drug
    values: dict[str, str]

    @classmethod
    def new(cls, bank: Bank, rng: Random, test: bool) -> Filling:
        """Values for every slot that a pair can have."""
        passage = Passage(bank, rng, test)
        drug = bank.drug_of[passage.choose("m")[0]]
        surgery = bank.words["surgery_ending"]
        lab = rng.choice([term for term in bank.terms if term.kind == "test" and "/" not in term.cells[1]])
        values = {
            "m": drug.name, "m2": passage.choose("m")[0], "v": _dose(drug, rng), "d": passage.choose("d")[0],
            "s": passage.choose("s")[0], "s2": passage.choose("s")[0], "f": passage.choose("i")[0],
            "n": str(rng.randint(2, 9)), "t": lab.name, "x": rng.choice(lab.cells[1].split(",")), "u": lab.cells[0],
            "op": rng.choice(sorted({d.treatment for d in bank.seen_diseases if d.treatment.endswith(surgery)})),
            "rel": rng.choice(bank.words["relatives"]),
        }  # fmt: skip
        return cls(passage, drug, values)

    def changed(self, name: str, bank: Bank, rng: Random) -> Filling:
        """The same values but one."""
        values = dict(self.values)
        if name == "v":
            values["v"] = _other_dose(self.drug, values["v"], rng)
        elif name == "x":
            lab = next(term for term in bank.terms if term.kind == "test" and term.name == values["t"])
            values["x"] = rng.choice([value for value in lab.cells[1].split(",") if value != values["x"]])
        elif name == "t":  # another test comes with its own unit and value
            while values["t"] == self.values["t"]:
                other = Filling.new(bank, rng, self.passage.test).values
                values |= {key: other[key] for key in ("t", "x", "u")}
        else:
            while values[name] == self.values[name]:
                fresh = Filling.new(bank, rng, self.passage.test)
                values[name] = fresh.values[name]
        return Filling(self.passage, self.drug, values)


class Pair:
    """Two sentences of one grade."""

    def __init__(self, bank: Bank, rng: Random, test: bool, grade: str, hard: str = "") -> None:
        self.bank, self.rng, self.test, self.grade = bank, rng, test, grade
        self.cases: list[str] = [hard] if hard else []
        self.filling = Filling.new(bank, rng, test)
        self.used: list[Pattern] = []
        self.sentences = {"A": self._same, "B": self._detail, "C": self._one, "D": self._some, "E": self._topic,
                          "F": self._unrelated}[grade](hard)  # fmt: skip
        if self.sentences[0] == self.sentences[1]:
            self.sentences = (self.sentences[0].rstrip(STOP), self.sentences[1])
        if rng.random() < 0.5:
            self.sentences = (self.sentences[1], self.sentences[0])

    def _same(self, _: str) -> tuple[str, str]:
        first, second = self._wordings(self._section())
        minor = first is second and self.rng.random() < 0.5
        negated = self.rng.random() < 0.3
        one = self._fill(first, self.filling, minor, negated)
        return one, _touch(self._fill(second, self.filling, minor, negated), self.rng)

    def _detail(self, _: str) -> tuple[str, str]:
        first, second = self._wordings(self._section())
        negated = self.rng.random() < 0.3
        both = first is not second and self.rng.random() < 0.3
        one = self._fill(first, self.filling, True, negated)
        return one, _touch(self._fill(second, self.filling, both, negated), self.rng)

    def _one(self, hard: str) -> tuple[str, str]:
        wanted = DRUG if hard == "one_drug" else NUMBER if hard == "one_number" else ()
        section = self._section(wanted)
        first, second = self._wordings(section)
        firm = [slot for slot in first.firm_slots if slot != "u"]
        slots = [slot for slot in firm if (slot in wanted if wanted else slot not in (*DRUG, *NUMBER, "t"))]
        other = self.filling.changed(self.rng.choice(slots or firm), self.bank, self.rng)
        return self._two(first, second, other)

    def _some(self, hard: str) -> tuple[str, str]:
        first, second = self._wordings(self._section(two=not hard))
        negated = self.rng.random() < 0.5
        if hard:
            one = self._fill(first, self.filling, False, negated)
            return one, _touch(self._fill(second, self.filling, False, not negated), self.rng)
        other = self.filling
        slots = [slot for slot in first.firm_slots if slot not in ("x", "u")]
        self.rng.shuffle(slots)
        for slot in slots[: max(1, len(slots) - 1)]:
            other = other.changed(slot, self.bank, self.rng)
        flip = len(slots) < 3
        one = self._fill(first, self.filling, False, negated)
        return one, self._fill(second, other, False, negated != flip)

    def _topic(self, _: str) -> tuple[str, str]:
        section = self._section()
        topic = section.partition("/")[0]
        others = [s for s in self.bank.patterns["pairs"] if s.startswith(topic + "/") and s != section]
        first, second = self._wordings(section)[0], self._wordings(self.rng.choice(others))[0]
        other = Filling.new(self.bank, self.rng, self.test)
        for key in ("m", "d"):
            other.values[key] = self.filling.values[key]
        return self._loose(first, self.filling), self._loose(second, other)

    def _unrelated(self, _: str) -> tuple[str, str]:
        section = self._section()
        topic = section.partition("/")[0]
        others = [s for s in self.bank.patterns["pairs"] if not s.startswith(topic + "/")]
        first, second = self._wordings(section)[0], self._wordings(self.rng.choice(others))[0]
        other = Filling.new(self.bank, self.rng, self.test)
        return self._loose(first, self.filling), self._loose(second, other)

    def _two(self, first: Pattern, second: Pattern, other: Filling) -> tuple[str, str]:
        negated = self.rng.random() < 0.3
        minor = first is second and self.rng.random() < 0.5
        one = self._fill(first, self.filling, minor, negated)
        return one, _touch(self._fill(second, other, minor, negated), self.rng)

    def _loose(self, pattern: Pattern, filling: Filling) -> str:
        return self._fill(pattern, filling, self.rng.random() < 0.5, self.rng.random() < 0.3)

    def _section(self, wanted: tuple[str, ...] = (), two: bool = False) -> str:
        sections = [
            name
            for name, patterns in self.bank.patterns["pairs"].items()
            if (not wanted or _firm(patterns) & set(wanted)) and (not two or len(_firm(patterns)) > 1)
        ]
        return self.rng.choice(sections)

    def _wordings(self, section: str) -> tuple[Pattern, Pattern]:
        patterns = self.bank.patterns["pairs"][section]
        some = [p for p in patterns if not p.unseen]
        first = second = self.rng.choice(some)
        if self.rng.random() >= SAME_WORDING:
            second = self.rng.choice([p for p in some if p is not first])
        if self.test and self.rng.random() < UNSEEN_PATTERN:
            second = self.rng.choice([p for p in patterns if p.unseen])
        return first, second

    def _fill(self, pattern: Pattern, filling: Filling, minor: bool, negated: bool) -> str:
        self.used.append(pattern)
        return fill(pattern, self.rng, filling.values.__getitem__, minor=minor, negated=negated)

    def row(self) -> Row:
        """The question about this pair."""
        unseen_term = holds_unseen(self.bank, "".join(self.sentences))
        cases = self.cases + unseen_cases(unseen_term, any(p.unseen for p in self.used))
        question = f"{self.bank.forms['jcsts']['question']}\nS1: {self.sentences[0]}\nS2: {self.sentences[1]}"
        return choice("JCSTS", "", question, options(self.bank), GRADES.index(self.grade), question, cases)


def _firm(patterns: Sequence[Pattern]) -> set[str]:
    """The slots that every wording of a meaning has."""
    return set.intersection(*(set(pattern.firm_slots) for pattern in patterns))


def options(bank: Bank) -> tuple[str, ...]:
    """The six options, each with a short example pair."""
    pairs = [pattern.text.split(" | ") for pattern in bank.patterns["examples"][""]]
    texts = bank.forms["jcsts"]["options"]
    return tuple(f"{text}\nS1: {one}\nS2: {two}" for text, (one, two) in zip(texts, pairs, strict=True))


def test_rows(bank: Bank, seed: int, fresh: Fresh) -> Iterator[Row | None]:
    """Test rows, the grades in turn; C is one number or one drug, D every other time a negation."""
    number = 0
    while True:
        rng = numbered(seed, f"jcsts-test-{number}")
        grade, turn = GRADES[number % 6], number // 6 % 2
        hard = {"C": ("one_drug", "one_number")[turn], "D": ("negation_differs", "")[turn]}.get(grade, "")
        number += 1
        yield _taken(Pair(bank, rng, True, grade, hard), fresh)


def train_rows(bank: Bank, seed: int, fresh: Fresh) -> Iterator[Row | None]:
    """Training rows, grades and kinds drawn evenly."""
    number = 0
    while True:
        rng = numbered(seed, f"jcsts-train-{number}")
        grade = GRADES[number % 6]
        number += 1
        kinds = {"C": ("one_drug", "one_number", "one_drug", "one_number", ""), "D": ("negation_differs", "")}
        yield _taken(Pair(bank, rng, False, grade, rng.choice(kinds.get(grade, ("",)))), fresh)


def _taken(pair: Pair, fresh: Fresh) -> Row | None:
    row = pair.row()
    return row if fresh.take(row.passage) else None


def _touch(sentence: str, rng: Random) -> str:
    """The sentence as another hand writes it: a comma or the full stop left out or in full width."""
    kind = rng.randrange(4)
    if kind == 0:
        return sentence.rstrip(STOP)
    if kind == 1:
        return sentence.replace(COMMA, WIDE_COMMA)
    return sentence.replace(COMMA, "", 1) if kind == 2 else sentence


def _dose(drug: Drug, rng: Random) -> str:
    return f"{rng.choice(drug.doses)}{drug.unit}"


def _other_dose(drug: Drug, dose: str, rng: Random) -> str:
    doses = [f"{amount}{drug.unit}" for amount in (*drug.doses, f"{float(drug.doses[-1]) * 2:g}")]
    return rng.choice([other for other in doses if other != dose])
