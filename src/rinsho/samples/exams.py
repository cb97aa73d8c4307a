"""Examination questions that the articles of the running text answer (JMMLU-Med form), from one table of facts.

Facts are split: those asked in test questions are never asked in a training question, only told in articles.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from rinsho.samples.bank import Bank, Disease, Fact, stable_number
from rinsho.samples.passage import UNSEEN_PATTERN, numbered
from rinsho.samples.pattern import Pattern, fill
from rinsho.samples.rows import Fresh, Row, choice

STOP = "\u3002"
RELATION = {"vignette2": "treatment"}  # questions that ask the same fact in another way
TAGS = ("professional_medicine", "medical_genetics", "clinical_knowledge", "anatomy", "college_medicine")


@dataclass(frozen=True)
class Problem:
    """What is asked: a section of stems, the subject, right answers and pools of wrong ones.

    Attributes:
        right: the right answers; a negated problem has one (the thing that does not belong).
        wrong: candidates for the wrong options; for a negated problem the things that do belong.
    """

    section: str
    tag: str
    subject: str
    right: tuple[str, ...]
    wrong: tuple[str, ...]
    values: tuple[tuple[str, str], ...] = ()

    @property
    def negated(self) -> bool:
        """Whether the stem asks for what is wrong."""
        return self.section.endswith(".not")

    @property
    def for_test(self) -> bool:
        """Whether this fact is asked in test questions only (stable: every third fact by its hash)."""
        relation = self.section.removeprefix("inverse.").removesuffix(".not")
        subject = self.right[0] if self.section.startswith("inverse.") else self.subject
        if relation == "member":
            relation, subject = "class", self.right[0]
        return stable_number(f"{RELATION.get(relation, relation)}|{subject}") % 3 == 0


Asked = tuple[Problem, Pattern]


def problems(bank: Bank) -> list[Problem]:
    """Every problem about seen terms, in a fixed order."""
    out: list[Problem] = []
    for disease in bank.seen_diseases:
        out += _of_disease(bank, disease)
    out += _of_drugs(bank)
    for fact in bank.facts:
        out += _of_fact(bank, fact)
    return out


def options(problem: Problem, rng: Random, count: int, right: int = 1) -> tuple[list[str], list[int]] | None:
    """Shuffled options and the positions of the right ones; None when there are too few wrong candidates."""
    wrong = [name for name in dict.fromkeys(problem.wrong) if name not in problem.right]
    if len(wrong) < count - right or len(problem.right) < right:
        return None
    answers = rng.sample(list(problem.right), right)
    mixed = [(name, True) for name in answers] + [(name, False) for name in rng.sample(wrong, count - right)]
    rng.shuffle(mixed)
    return [name for name, _ in mixed], [place for place, (_, good) in enumerate(mixed) if good]


def stem(bank: Bank, problem: Problem, pattern: Pattern, rng: Random) -> str:
    """The question sentence; a patient in it has the sex that the disease demands."""
    values = {"x": problem.subject, "y": problem.subject, **dict(problem.values)}
    if "age" in pattern.slots:
        named = problem.right[0] + problem.values[-1][1]
        female = any(part in named for part in bank.words["female_only"])
        male = any(part in named for part in bank.words["male_only"]) or (not female and rng.random() < 0.5)
        low, high, unit = rng.choice(bank.words["spans"][:3]).split()
        values |= {"age": str(rng.randint(20, 84)), "sex": bank.words["sexes"][male]}
        values |= {"ago": f"{rng.randint(int(low), int(high))}{unit}"}
    return fill(pattern, rng, values.__getitem__)


def test_rows(bank: Bank, seed: int, fresh: Fresh) -> Iterator[Row | None]:
    """Test rows: the tags and the answer letters in turn, about a fifth with a negated stem."""
    queues = _queues(bank, seed, "test")
    number = 0
    while any(queues.values()):
        tag = TAGS[number % len(TAGS)]
        rng = numbered(seed, f"jmmlu-test-{number}")
        number += 1
        queue = queues[tag] or max(queues.values(), key=len)
        problem, pattern = queue.pop()
        held = [p for p in bank.patterns["exams"][problem.section] if p.unseen]
        if held and rng.random() < UNSEEN_PATTERN:
            pattern = rng.choice(held)
        yield _row(bank, (problem, pattern), rng, number % 4, fresh)


def train_rows(bank: Bank, seed: int, fresh: Fresh) -> Iterator[Row | None]:
    """Training rows about the other facts, as many of each tag as there are, answer letters in turn."""
    queues = _queues(bank, seed, "train")
    number = 0
    while any(queues.values()):
        tag = TAGS[number % len(TAGS)]
        rng = numbered(seed, f"jmmlu-train-{number}")
        number += 1
        if queues[tag]:
            yield _row(bank, queues[tag].pop(), rng, number % 4, fresh)


def _row(bank: Bank, asked: Asked, rng: Random, place: int, fresh: Fresh) -> Row | None:
    problem, pattern = asked
    made = options(problem, rng, 4)
    question = stem(bank, problem, pattern, rng)
    if made is None or not fresh.take(question):
        return None
    names, answers = made
    names.insert(place, names.pop(answers[0]))
    cases = ["negated_stem"] * problem.negated + ["unseen_pattern"] * pattern.unseen
    return choice("JMMLU-Med", problem.tag, question, tuple(names), place, question, cases)


def _queues(bank: Bank, seed: int, part: str) -> dict[str, list[Asked]]:
    queues: dict[str, list[Asked]] = {tag: [] for tag in TAGS}
    for problem in problems(bank):
        if problem.for_test == (part == "test"):
            queues[problem.tag] += [
                (problem, pattern) for pattern in bank.patterns["exams"][problem.section] if not pattern.unseen
            ]
    for tag, queue in queues.items():
        numbered(seed, f"jmmlu-{part}-{tag}").shuffle(queue)
        negated = [pair for pair in queue if pair[0].negated]
        plain = [pair for pair in queue if not pair[0].negated]
        queues[tag] = _interleave(plain, negated)
    return queues


def _interleave(many: list[Asked], few: list[Asked]) -> list[Asked]:
    """Two of `many`, then one of `few`, when popped from the end."""
    out: list[Asked] = []
    many, few = list(many), list(few)
    while many or few:
        out += [many.pop() for _ in range(min(2, len(many)))]
        if few:
            out.append(few.pop())
    out.reverse()
    return out


def _of_disease(bank: Bank, disease: Disease) -> list[Problem]:
    others = [other for other in bank.seen_diseases if not set(other.symptoms) & set(disease.symptoms)]
    near = [other for other in others if other.field != disease.field]
    symptoms = tuple(s for other in near for s in other.symptoms if s not in disease.symptoms)
    drugs = disease.treatment in bank.classes
    treatments = tuple(o.treatment for o in others if (o.treatment in bank.classes) == drugs)
    tests = tuple(other.test for other in others)
    fields = tuple(other.field for other in bank.seen_diseases)
    x, tag = disease.name, "clinical_knowledge"
    case = (("a", disease.symptoms[0]), ("b", disease.symptoms[1]), ("test", disease.test))
    named = tuple(o.name for o in others if o.test != disease.test)
    made = [
        Problem("treatment", tag, x, (disease.treatment,), treatments),
        Problem("test", "college_medicine", x, (disease.test,), tests),
        Problem("symptom", tag, x, disease.symptoms, symptoms),
        Problem("vignette", "professional_medicine", x, (x,), named, case),
        Problem("vignette2", "professional_medicine", x, (disease.treatment,), treatments, (*case, ("name", x))),
    ]
    told = {"symptom": disease.symptoms, "test": (disease.test,), "treatment": (disease.treatment,)}
    made += _statements(
        bank, f"disease {x}", told | {"field": (disease.field,)},
        {"symptom": symptoms, "test": tests, "treatment": treatments, "field": fields},
    )  # fmt: skip
    return [*made, Problem("field", "college_medicine", x, (disease.field,), fields)]


def _of_drugs(bank: Bank) -> list[Problem]:
    out: list[Problem] = []
    tag = "clinical_knowledge"
    names = tuple(bank.classes)
    mechanisms = tuple(c.mechanism + STOP for c in bank.classes.values())
    for drug in bank.seen_drugs:
        group = bank.classes[drug.drug_class]
        foreign = tuple(a for c in bank.classes.values() for a in c.adverse if a not in group.adverse)
        others = tuple(d.name for d in bank.seen_drugs if d.drug_class != drug.drug_class)
        out += [
            Problem("class", tag, drug.name, (group.name,), names),
            Problem("mechanism", "college_medicine", drug.name, (group.mechanism + STOP,), mechanisms),
            Problem("adverse", tag, drug.name, group.adverse, foreign),
            Problem("member", tag, group.name, (drug.name,), others),
        ]
        told = {"class": (group.name,), "adverse": group.adverse, "mechanism": (group.mechanism,)}
        wrong = {"class": names, "adverse": foreign, "mechanism": tuple(c.mechanism for c in bank.classes.values())}
        out += _statements(bank, f"drug {drug.name}", told, wrong)
    for group in bank.classes.values():
        members = tuple(drug.name for drug in bank.members[group.name])
        others = tuple(d.name for d in bank.seen_drugs if d.drug_class != group.name)
        if len(members) >= 3:
            for place in range(0, len(others), 40):
                out.append(Problem("member.not", tag, group.name, (others[place],), members))
    return out


def _statements(
    bank: Bank, of: str, told: dict[str, tuple[str, ...]], foreign: dict[str, tuple[str, ...]]
) -> list[Problem]:
    """Which statement about the subject is right, and which is wrong."""
    kind, _, subject = of.partition(" ")
    tag = {"disease": "clinical_knowledge", "drug": "college_medicine"}[kind]
    rng = numbered(0, f"statements-{subject}")

    def say(relation: str, what: str) -> str:
        return bank.patterns["exams"][f"say.{relation}"][0].text.replace("{o}", what)

    true = tuple(say(relation, what) for relation, some in told.items() for what in some)
    wrong = {r: [what for what in dict.fromkeys(some) if what not in told[r]] for r, some in foreign.items()}
    false = tuple(say(relation, what) for relation, some in wrong.items() for what in rng.sample(some, 2))
    return [
        Problem(f"{kind}.not", tag, subject, (rng.choice(false),), true),
        Problem(f"{kind}.true", tag, subject, true, false),
    ]


def _of_fact(bank: Bank, fact: Fact) -> list[Problem]:
    same = [other for other in bank.facts if other.relation == fact.relation]
    made = [Problem(fact.relation, fact.tag, fact.subject, (fact.object,), tuple(o.object for o in same))]
    subjects = tuple(o.subject for o in same if o.object != fact.object)
    inverse = f"inverse.{fact.relation}"
    if inverse in bank.patterns["exams"]:
        made.append(Problem(inverse, fact.tag, fact.object, (fact.subject,), subjects))
    return made
