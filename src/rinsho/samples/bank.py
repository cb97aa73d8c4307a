"""The invented world: terms, what is true of them, and sentence patterns, read from the data files of this package.

A stable part of the terms and of the patterns is held out (`unseen`): it stands in test documents only.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from hashlib import blake2b
from importlib import resources
from random import Random
from typing import Any

from rinsho.samples.pattern import Pattern, parse

# One in so many is held out, of the terms that stand in no other cell, term or pattern; few symptoms are so rare.
HELD_OUT_ONE_IN = {"diseases": 6, "drugs": 6, "findings": 5, "symptoms": 2, "reactions": 4}


@dataclass(frozen=True)
class Disease:
    """A disease and the facts that articles state and examinations ask."""

    name: str
    reading: str
    field: str
    symptoms: tuple[str, str]
    test: str
    treatment: str  # a drug class or a procedure
    unseen: bool


@dataclass(frozen=True)
class Drug:
    """A drug with its class and daily doses."""

    name: str
    drug_class: str
    doses: tuple[str, ...]
    unit: str
    unseen: bool


@dataclass(frozen=True)
class DrugClass:
    """A class of drugs: how it works and two typical adverse effects."""

    name: str
    mechanism: str
    adverse: tuple[str, str]


@dataclass(frozen=True)
class Term:
    """A finding, symptom, event or test."""

    name: str
    reading: str
    kind: str
    unseen: bool
    cells: tuple[str, ...] = ()


@dataclass(frozen=True)
class Fact:
    """A statement of anatomy, genetics or physiology: subject, relation, object."""

    tag: str
    relation: str
    subject: str
    object: str


@dataclass(frozen=True)
class Phrase:
    """One form of a complaint in a social-media post."""

    tag: str
    form: str
    text: str
    unseen: bool


@dataclass(frozen=True)
class Bank:
    """Everything the generators draw from."""

    diseases: tuple[Disease, ...]
    drugs: tuple[Drug, ...]
    drug_of: dict[str, Drug]
    classes: dict[str, DrugClass]
    terms: tuple[Term, ...]  # findings (image, body, sign, lab), symptoms, reactions, tests
    facts: tuple[Fact, ...]
    phrases: tuple[Phrase, ...]
    patterns: dict[str, dict[str, tuple[Pattern, ...]]]  # file -> section -> patterns
    words: dict[str, tuple[str, ...]]  # small word lists
    forms: dict[str, Any]  # the fixed wording of the benchmark, see terms/forms.json
    members: dict[str, tuple[Drug, ...]]  # the seen drugs of each class
    seen_diseases: tuple[Disease, ...]  # those that running text and training rows may name
    seen_drugs: tuple[Drug, ...]
    names: dict[str, tuple[tuple[str, ...], tuple[str, ...]]]  # slot letter -> (seen, unseen) names

    def choose(self, file: str, section: str, rng: Random, unseen: bool = False) -> Pattern:
        """One pattern of a section; a held-out one if asked for and there is one."""
        patterns = self.patterns[file][section]
        some = [pattern for pattern in patterns if pattern.unseen == unseen]
        return rng.choice(some or [pattern for pattern in patterns if not pattern.unseen])


def load() -> Bank:
    """The bank, read from `terms/` and `patterns/` (about 20 ms)."""
    tables = {name: _table(f"terms/{name}.txt") for name in TABLES}
    raw = {name: _read(f"patterns/{name}.txt") for name in PATTERNS}
    everything = "\n".join([*(_read(f"terms/{name}.txt") for name in TABLES), *raw.values()])

    def unseen(table: str, name: str) -> bool:
        return stable_number(name) % HELD_OUT_ONE_IN[table] == 0 and everything.count(name) == 1

    diseases = tuple(
        Disease(name, reading, field, _two(symptoms), test, treatment, unseen("diseases", name))
        for name, reading, field, symptoms, test, treatment in tables["diseases"]
    )
    drugs = tuple(
        Drug(name, group, tuple(doses.split(",")), unit, unseen("drugs", name))
        for name, group, doses, unit in tables["drugs"]
    )
    classes = {name: DrugClass(name, how, _two(adverse)) for name, how, adverse in tables["classes"]}
    terms = (
        *(Term(name, reading, kind, unseen("findings", name)) for name, reading, kind in tables["findings"]),
        *(
            Term(name, reading, "symptom", unseen("symptoms", name), (says,))
            for name, reading, says in tables["symptoms"]
        ),
        *(Term(name, reading, "reaction", unseen("reactions", name)) for name, reading in tables["reactions"]),
        *(Term(name, reading, "test", False, (unit, values)) for name, reading, unit, values in tables["tests"]),
    )
    facts = tuple(Fact(*row) for row in tables["facts"])
    phrases = tuple(Phrase(row[0].lstrip("*"), row[1], row[2], row[0].startswith("*")) for row in tables["posts"])
    patterns = {name: _sections(text) for name, text in raw.items()}
    seen = tuple(drug for drug in drugs if not drug.unseen)
    return Bank(
        diseases=diseases, drugs=drugs, drug_of={drug.name: drug for drug in drugs}, classes=classes, terms=terms,
        facts=facts, phrases=phrases, patterns=patterns, names=_names(diseases, drugs, terms),
        words={key: tuple(words.split(",")) for key, words in tables["words"]},
        forms=json.loads(_read("terms/forms.json")),
        members={name: tuple(drug for drug in seen if drug.drug_class == name) for name in classes},
        seen_diseases=tuple(disease for disease in diseases if not disease.unseen), seen_drugs=seen,
    )  # fmt: skip


BETWEEN = "\u30fb"  # stands between two entries of a cell
TABLES = ("diseases", "drugs", "classes", "findings", "symptoms", "reactions", "tests", "facts", "posts", "words")
PATTERNS = ("articles", "cases", "crade", "examples", "exams", "nursing", "pairs", "posts", "radiology", "web")


def stable_number(text: str) -> int:
    """A number that depends on the text only, the same on every machine."""
    return int.from_bytes(blake2b(text.encode(), digest_size=4).digest(), "big")


def _names(
    diseases: tuple[Disease, ...], drugs: tuple[Drug, ...], terms: tuple[Term, ...]
) -> dict[str, tuple[tuple[str, ...], tuple[str, ...]]]:
    groups: dict[str, list[Disease | Drug | Term]] = {
        "d": list(diseases),
        "m": list(drugs),
        "s": [term for term in terms if term.kind == "symptom"],
        "f": [term for term in terms if term.kind in ("sign", "lab")],
        "i": [term for term in terms if term.kind in ("image", "focal")],
        "l": [term for term in terms if term.kind == "focal"],
        "b": [term for term in terms if term.kind == "body"],
        "r": [term for term in terms if term.kind == "reaction"],
    }
    return {
        letter: (tuple(t.name for t in some if not t.unseen), tuple(t.name for t in some if t.unseen))
        for letter, some in groups.items()
    }


def _read(name: str) -> str:
    return resources.files("rinsho.samples").joinpath(name).read_text(encoding="utf-8")


def _lines(text: str) -> list[str]:
    return [line for line in text.split("\n") if line and not line.startswith("#")]


def _table(name: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.split("|")] for line in _lines(_read(name))]


def _sections(text: str) -> dict[str, tuple[Pattern, ...]]:
    sections: dict[str, list[Pattern]] = {}
    section: list[Pattern] = sections.setdefault("", [])
    for line in _lines(text):
        if line.startswith("[") and line.endswith("]"):
            section = sections.setdefault(line[1:-1], [])
        else:
            section.append(parse(line))
    return {name: tuple(patterns) for name, patterns in sections.items() if patterns}


def _two(cell: str) -> tuple[str, str]:
    first, second = cell.split(BETWEEN)
    return first, second
