"""Passages built sentence by sentence, with a record of every disease, finding, drug and dose and how it is meant."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from random import Random

from rinsho.samples.bank import Bank, Drug
from rinsho.samples.pattern import Pattern, fill

STATUS = {"+": "affirmed", "-": "negated", "?": "suspected", "@": "family"}
UNSEEN_TERM = 0.22  # chance of a held-out term at each choice in a test document
UNSEEN_DRUG = 0.4  # drugs more often: their names are told by their form and place, not only by knowing them
UNSEEN_PATTERN = 0.25  # the same for the pattern of a single sentence
UNSEEN_SENTENCE = 0.12  # and for each sentence of a passage of several
FULL_WIDTH = str.maketrans({chr(code): chr(code + 0xFEE0) for code in range(0x21, 0x7F)})
SIZES = {"T1": (6, 29), "T2": (31, 49), "T3": (51, 69), "T4": (71, 118), "old": (3, 68), "mm": (4, 28)}


def normalised(text: str) -> str:
    """NFKC without white space: two passages that are equal in this form are one document."""
    return "".join(unicodedata.normalize("NFKC", text).split())


def document_key(text: str) -> str:
    """A short hash of the normalised passage."""
    return blake2b(normalised(text).encode(), digest_size=12).hexdigest()


def numbered(seed: int, name: str) -> Random:
    """The random source of one document: it depends on the seed and the document's name only."""
    return Random(f"{seed}:{name}")


@dataclass(frozen=True)
class Mention:
    """A term as it stands in the passage: slot letter (d s f i b r m v), status and whether it is held out."""

    surface: str
    letter: str
    status: str
    unseen: bool


@dataclass
class Passage:
    """A passage under construction."""

    bank: Bank
    rng: Random
    test: bool
    values: dict[str, str] = field(default_factory=dict)
    sentences: list[str] = field(default_factory=list)
    mentions: list[Mention] = field(default_factory=list)
    unseen_pattern: bool = False
    drug: Drug | None = None
    taken: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.female = self.rng.random() < 0.5
        self.side = self.rng.choice(self.bank.words["sides"])

    def say(self, file: str, section: str, extra: Mapping[str, str] | None = None) -> str:
        """Adds one sentence from a section of patterns and returns it."""
        unseen = self.test and self.rng.random() < UNSEEN_SENTENCE
        pattern = self.bank.choose(file, section, self.rng, unseen)
        return self.use(pattern, extra)

    def use(self, pattern: Pattern, extra: Mapping[str, str] | None = None) -> str:
        """Adds one sentence made from this pattern and returns it."""
        self.unseen_pattern |= pattern.unseen
        if extra:
            self.values.update(extra)
        sentence = fill(pattern, self.rng, self._slot)
        self.sentences.append(sentence)
        return sentence

    def reserve(self, name: str) -> str:
        """Marks a name as used, so that no other mention contradicts it."""
        self.taken.append(name)
        return name

    def pick(self, letter: str, status: str = "affirmed") -> str:
        """A name of this kind that is not yet in the passage, nor part of one that is; its mention is recorded."""
        name, unseen = self.choose(letter, status)
        self.mentions.append(Mention(name, letter, status, unseen))
        if letter == "m":
            self.drug = self.bank.drug_of[name]
        return name

    def choose(self, letter: str, status: str = "affirmed") -> tuple[str, bool]:
        """Like `pick` without recording; says whether the name is held out."""
        seen, held = self.bank.names[letter]
        unseen = self.test and bool(held) and self.rng.random() < (UNSEEN_DRUG if letter == "m" else UNSEEN_TERM)
        for _ in range(200):
            name = self.rng.choice(held if unseen else seen)
            if status != "family" and not self.fits_sex(name):
                continue
            if not any(name in other or other in name for other in self.taken):
                break
        self.taken.append(name)
        return name, unseen

    def fits_sex(self, name: str) -> bool:
        """Whether a patient of this passage can have it."""
        barred = self.bank.words["male_only" if self.female else "female_only"]
        return not any(part in name for part in barred)

    def gold(self, letters: str) -> list[str]:
        """The affirmed surfaces of these kinds, in order of first appearance in the text."""
        found = dict.fromkeys(m.surface for m in self.mentions if m.letter in letters and m.status == "affirmed")
        text = self.text
        return sorted(found, key=text.index)

    @property
    def text(self) -> str:
        """The sentences, one after the other."""
        return "".join(self.sentences)

    def names_unseen(self) -> bool:
        """Whether a held-out term stands in the text."""
        return holds_unseen(self.bank, self.text)

    def statuses(self, letters: str) -> set[str]:
        """How the mentions of these kinds are meant."""
        return {mention.status for mention in self.mentions if mention.letter in letters}

    def widen(self) -> None:
        """Turns letters, figures and signs into full width, in the text and in the mentions."""
        self.sentences = [sentence.translate(FULL_WIDTH) for sentence in self.sentences]
        self.mentions = [Mention(m.surface.translate(FULL_WIDTH), m.letter, m.status, m.unseen) for m in self.mentions]

    def _slot(self, name: str) -> str:
        if name in self.values:
            return self.values[name]
        if name in SLOTS:
            return SLOTS[name](self)
        if name in SIZES:
            return _size(self.rng, *SIZES[name], plain=name == "mm")
        if name == "v":
            dose = dose_text(self.bank, self.drug or self.bank.drugs[0], self.rng)
            self.mentions.append(Mention(dose, "v", "affirmed", False))
            return dose
        return self.pick(name[0], STATUS[name[1]] if len(name) > 1 else "affirmed")


def holds_unseen(bank: Bank, text: str) -> bool:
    """Whether a held-out term stands in this text."""
    return any(name in text for _, unseen in bank.names.values() for name in unseen)


def dose_text(bank: Bank, drug: Drug, rng: Random) -> str:
    """A dose as records write it: an amount, often with a rhythm, or a number of tablets."""
    words = bank.words
    times = str(rng.randint(2, 4))
    if drug.unit in words["tablet_unit"] and rng.random() < 0.15:
        return rng.choice(words["tablets"]).replace("{k}", times)
    amount = float(rng.choice(drug.doses)) * float(rng.choice(words["dose_shares"]))
    return rng.choice(words["dose_forms"]).replace("{a}", f"{amount:g}{drug.unit}").replace("{k}", times)


def lab_text(bank: Bank, rng: Random) -> str:
    """A test with a value, which is not a dose: CRP 5.8mg/dL."""
    test = rng.choice([term for term in bank.terms if term.kind == "test"])
    unit, values = test.cells
    space = " " if test.name[-1].isascii() else rng.choice(("", " "))  # not KL-61420
    return f"{test.name}{space}{rng.choice(values.split(','))}{unit}"


def _date(passage: Passage) -> str:
    rng, words = passage.rng, passage.bank.words
    values = {"y": rng.choice(words["years"]), "m": rng.randint(1, 12), "d": rng.randint(1, 28)}
    return rng.choice(words["dates"]).format(**values)


def _ago(passage: Passage) -> str:
    low, high, unit = passage.rng.choice(passage.bank.words["spans"]).split()
    return f"{passage.rng.randint(int(low), int(high))}{unit}"


def _word(key: str) -> Callable[[Passage], str]:
    return lambda passage: passage.rng.choice(passage.bank.words[key])


def _size(rng: Random, low: int, high: int, *, plain: bool) -> str:
    size = rng.randint(low, high)
    if plain:
        return str(size)
    return f"{size}mm" if rng.random() < 0.65 else f"{size / 10:g}cm"


def _said(passage: Passage) -> str:
    term = passage.rng.choice([t for t in passage.bank.terms if t.kind == "symptom" and not t.unseen])
    while term.cells[0] == "-":
        term = passage.rng.choice([t for t in passage.bank.terms if t.kind == "symptom" and not t.unseen])
    passage.reserve(term.name)
    return term.cells[0]


SLOTS: dict[str, Callable[[Passage], str]] = {
    "age": lambda p: str(p.rng.randint(18, 92)),
    "sex": lambda p: p.bank.words["sexes"][0 if p.female else 1],
    "date": _date,
    "ago": _ago,
    "days": lambda p: str(p.rng.randint(2, 28)),
    "rel": _word("relatives"),
    "time": lambda p: p.rng.choice(p.bank.words["times"]).format(h=p.rng.randint(0, 23)),
    "dept": _word("departments"),
    "lab": lambda p: lab_text(p.bank, p.rng),
    "say": _said,
    "side": lambda p: p.side,
    "other": lambda p: next(side for side in p.bank.words["sides"] if side != p.side),
    "lobe": _word("lobes"),
    "seg": lambda p: f"S{p.rng.randint(1, 10)}",
}
