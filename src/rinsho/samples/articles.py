"""Encyclopaedia-like articles on diseases, drugs, drug classes and basic facts, all from one table of knowledge.

What the examination questions ask is stated here, in several wordings.
"""

from __future__ import annotations

from random import Random

from rinsho.samples.bank import Bank, Disease, Drug, DrugClass, Fact
from rinsho.samples.pattern import fill


class Writer:
    """Sentences from the article patterns, filled from one set of values."""

    def __init__(self, bank: Bank, rng: Random, values: dict[str, str]) -> None:
        self.bank, self.rng, self.values = bank, rng, values
        self.lines: list[str] = []

    def say(self, *sections: str) -> Writer:
        """Adds one sentence of each section, as one paragraph."""
        sentences = []
        for section in sections:
            pattern = self.bank.choose("articles", section, self.rng)
            sentences.append(fill(pattern, self.rng, self.values.__getitem__))
        self.lines.append("".join(sentences))
        return self

    @property
    def text(self) -> str:
        """The paragraphs, one a line."""
        return "\n".join(self.lines)


def article(bank: Bank, rng: Random, number: int) -> str:
    """The article of this number: subjects in turn (diseases, drugs, classes, facts), each time in other words."""
    diseases, drugs = bank.seen_diseases, bank.seen_drugs
    classes = [group for group in bank.classes.values() if bank.members[group.name]]
    relations = sorted({fact.relation for fact in bank.facts})
    total = len(diseases) + len(drugs) + len(classes) + 3 * len(relations)
    place = number * next(step for step in (7, 11, 13) if total % step) % total  # spreads the kinds over the shards
    if place < len(diseases):
        return _disease(bank, rng, diseases[place])
    place -= len(diseases)
    if place < len(drugs):
        return _drug(bank, rng, drugs[place])
    place -= len(drugs)
    if place < len(classes):
        return _class(bank, rng, classes[place])
    relation = relations[(place - len(classes)) % len(relations)]
    return _facts(bank, rng, [fact for fact in bank.facts if fact.relation == relation])


def _disease(bank: Bank, rng: Random, disease: Disease) -> str:
    near = [d for d in bank.seen_diseases if d.field == disease.field and d is not disease]
    other = rng.choice(near)
    medicines = bank.members.get(disease.treatment, ())
    a, b = disease.symptoms if rng.random() < 0.5 else disease.symptoms[::-1]
    writer = Writer(bank, rng, {
        "x": disease.name, "reading": disease.reading, "field": disease.field, "a": a, "b": b, "test": disease.test,
        "treat": disease.treatment, "drug": rng.choice(medicines).name if medicines else "",
        "other": other.name, "oa": other.symptoms[0], "otest": other.test, "otreat": other.treatment,
    })  # fmt: skip
    treat = "disease.drug" if medicines else "disease.procedure"
    order = ["disease.symptom", "disease.test", treat]
    writer.say("disease.define")
    if rng.random() < 0.3:
        rng.shuffle(order)
    if rng.random() < 0.35:
        for section, question in zip(("disease.symptom", "disease.test", treat), range(3), strict=True):
            ask = bank.patterns["articles"]["faq.q"][question]
            writer.lines.append(fill(ask, rng, writer.values.__getitem__))
            writer.say(section)
    else:
        writer.say(*order)
    if rng.random() < 0.6:
        writer.say("disease.compare")
    writer.say(*["disease.advice"] * rng.randint(1, 2))
    facts = [fact for fact in bank.facts if fact.subject == disease.name]
    for fact in facts:
        writer.lines.append(_fact(bank, rng, fact))
    if rng.random() < 0.4:
        writer.say("disease.symptom", treat)
    return writer.text


def _drug(bank: Bank, rng: Random, drug: Drug) -> str:
    group = bank.classes[drug.drug_class]
    peers = [d.name for d in bank.members[group.name] if d is not drug]
    rng.shuffle(peers)
    a, b = group.adverse if rng.random() < 0.5 else group.adverse[::-1]
    uses = [d.name for d in bank.seen_diseases if d.treatment == group.name]
    writer = Writer(bank, rng, {
        "x": drug.name, "class": group.name, "mech": group.mechanism, "a": a, "b": b,
        "dose": rng.choice(drug.doses) + drug.unit, "d": rng.choice(uses) if uses else "",
        "p": peers[0] if peers else "", "q": peers[-1] if peers else "",
    })  # fmt: skip
    writer.say("drug.define", "drug.mech")
    if uses:
        writer.say("drug.use", "drug.dose")
    writer.say("drug.adverse")
    if len(peers) > 1:
        writer.say("drug.peer")
    writer.say(*["drug.advice"] * rng.randint(1, 2))
    if rng.random() < 0.4:
        writer.say("drug.define", "drug.adverse")
    return writer.text


def _class(bank: Bank, rng: Random, group: DrugClass) -> str:
    names = [drug.name for drug in bank.members[group.name]]
    uses = [d.name for d in bank.seen_diseases if d.treatment == group.name]
    rng.shuffle(names)
    rng.shuffle(uses)
    values = {"class": group.name, "mech": group.mechanism, "a": group.adverse[0], "b": group.adverse[1]}
    writer = Writer(bank, rng, values | {"p": names[0], "q": names[-1], "d": ""})
    writer.say("class.article")
    for disease in uses[:4]:
        writer.values["d"] = disease
        writer.say("class.use")
    for name in names[:4]:
        writer.values["x"] = name
        writer.say("drug.define")
    return writer.text


def _facts(bank: Bank, rng: Random, facts: list[Fact]) -> str:
    some = rng.sample(facts, min(len(facts), rng.randint(7, 12)))
    return "\n".join(_fact(bank, rng, fact) for fact in some)


def _fact(bank: Bank, rng: Random, fact: Fact) -> str:
    values = {"x": fact.subject, "y": fact.object}
    return fill(bank.choose("articles", f"fact.{fact.relation}", rng), rng, values.__getitem__)
