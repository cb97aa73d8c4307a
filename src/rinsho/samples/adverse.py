"""Case reports that tell how surely a drug brought an event about (CRADE)."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from rinsho.samples.bank import Bank, Drug
from rinsho.samples.passage import UNSEEN_PATTERN, Passage, dose_text, numbered
from rinsho.samples.rows import Fresh, Row, choice, quoted, unseen_cases

KINDS = ("B", "C", "D", "other", "plain")
TRAINING = ("B", "C", "D", "other", "C", "B", "D", "plain", "C", "B")  # evens out the grades


class AdverseCase:
    """A case report and the grades of the expressions that may be asked: (tag, expression, grade, cases)."""

    def __init__(self, bank: Bank, rng: Random, test: bool, kind: str) -> None:
        self.kind = kind
        self.passage = passage = Passage(bank, rng, test)
        self.asked: list[tuple[str, str, str, list[str]]] = []
        values = self._values(bank, rng, passage)
        other_cause = False
        passage.say("crade", "open", values)
        if kind == "other" or rng.random() < 0.5:
            passage.say("crade", "more")
            self.asked += [("disease", values["d2"], "A", [])] if values["d2"] in passage.text else []
        elif rng.random() < 0.7:
            passage.say("crade", "background")
            self.asked.append(("disease", values["d2"], "A", []))
        if kind in ("B", "C", "D"):
            sentence = passage.say("crade", kind)
            other_cause = kind == "B" and values["o"] in sentence
            cases = ["other_cause"] if other_cause else []
            self.asked += [("disease", values["e1"], kind, cases), ("medicine", values["m1"], kind, cases)]
            if values["m2"] in passage.text:
                self.asked.append(("medicine", values["m2"], "A", []))
        elif kind == "other":
            passage.say("crade", "other")
            self.asked += [
                ("disease", values["e2"], "D", []),
                ("medicine", values["m2"], "D", []),
                ("medicine", values["m1"], "A", ["other_cause"]),
            ]
        else:
            self.asked.append(("medicine", values["m1"], "A", []))
        self.asked.append(("disease", values["d1"], "A", []))
        passage.say("crade", "after")

    def _values(self, bank: Bank, rng: Random, passage: Passage) -> dict[str, str]:
        drug = bank.drug_of[passage.choose("m")[0]]
        values = {"m1": drug.name, "v1": dose_text(bank, drug, rng), "m2": passage.choose("m")[0]}
        for key in ("e1", "e2"):
            values[key] = self._event(bank, rng, passage, drug)
        values["d1"] = self._treated(bank, rng, passage, drug)
        values["d2"] = passage.choose("d")[0]
        unseen = passage.test and rng.random() < UNSEEN_PATTERN
        values["o"] = bank.choose("crade", "o", rng, unseen).text
        return values

    def _event(self, bank: Bank, rng: Random, passage: Passage, drug: Drug) -> str:
        if rng.random() < 0.3:
            name = rng.choice(bank.classes[drug.drug_class].adverse)
            if not any(name in other or other in name for other in passage.taken):
                return passage.reserve(name)
        return passage.choose("r")[0]

    def _treated(self, bank: Bank, rng: Random, passage: Passage, drug: Drug) -> str:
        names = [d.name for d in bank.seen_diseases if d.treatment == drug.drug_class and passage.fits_sex(d.name)]
        names = [n for n in names if not any(n in other or other in n for other in passage.taken)]
        return passage.reserve(rng.choice(names)) if names and rng.random() < 0.9 else passage.choose("d")[0]

    @property
    def text(self) -> str:
        """One sentence a line."""
        return "\n".join(self.passage.sentences)

    def row(self, tag: str, expression: str, grade: str, cases: list[str]) -> Row:
        """The question about one expression."""
        cases = cases + unseen_cases(self.passage.names_unseen(), self.passage.unseen_pattern)
        form = self.passage.bank.forms["crade"][tag]
        text = quoted(form["question"].format(x=expression), self.text)
        return choice("CRADE", tag, text, form["options"], "ABCD".index(grade), self.text, cases)


def test_rows(bank: Bank, seed: int, fresh: Fresh) -> Iterator[Row | None]:
    """Test rows, one per case report: the four grades and the two tags in turn."""
    number = 0
    while True:
        rng = numbered(seed, f"crade-test-{number}")
        grade, tag = "ABCD"[number % 4], ("disease", "medicine")[(number // 4) % 2]
        number += 1
        while True:
            kind = rng.choice(KINDS) if grade == "A" else rng.choice(("D", "D", "other")) if grade == "D" else grade
            case = AdverseCase(bank, rng, test=True, kind=kind)
            fitting = [asked for asked in case.asked if asked[0] == tag and asked[2] == grade]
            if fitting and fresh.take(case.text):
                break
        yield case.row(*rng.choice(fitting))


def train_rows(bank: Bank, seed: int, fresh: Fresh) -> Iterator[Row | None]:
    """Training rows: the graded expressions of a report and one or two unrelated ones."""
    number = 0
    while True:
        rng = numbered(seed, f"crade-train-{number}")
        case = AdverseCase(bank, rng, test=False, kind=TRAINING[number % len(TRAINING)])
        number += 1
        if not fresh.take(case.text):
            continue
        graded = [asked for asked in case.asked if asked[2] != "A"]
        unrelated = [asked for asked in case.asked if asked[2] == "A"]
        rng.shuffle(unrelated)
        unrelated.sort(key=lambda asked: "other_cause" not in asked[3])
        for asked in graded + unrelated[: 2 if number % 4 == 0 else 1]:
            yield case.row(*asked)
