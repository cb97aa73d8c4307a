"""Case reports, reading reports and nursing records with gold spans (CRNER, RRNER, NRNER).

Gold are the diseases, symptoms and findings that the patient really has; negated, only suspected and family ones
stand beside them and are not gold. Drugs and their doses are always gold; values of tests never are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from random import Random

from rinsho.samples.bank import Bank
from rinsho.samples.passage import Passage, numbered
from rinsho.samples.rows import Fresh, Row, quoted, unseen_cases

LETTERS = {"d": "dsfilb", "m-key": "m", "m-val": "v"}
WIDE = 0.08  # share of passages in full-width letters and figures


def case_report(bank: Bank, rng: Random, test: bool, medicine: bool = True) -> Passage:
    """A case report of five to nine sentences."""
    passage = Passage(bank, rng, test)
    plan = ["open"]
    plan.append(rng.choice(("history", "history_none", "family", "now", "now")))
    plan.append(rng.choice(("now_none", "exam", "exam", "exam_none", "family")))
    plan.append(rng.choice(("suspect", "suspect", "excluded", "exam_none", "now_none")))
    if rng.random() < 0.8:
        plan.append("diagnosis")
    if medicine:
        plan.append("treat")
    if rng.random() < 0.5:
        plan.append("course")
    if rng.random() < 0.25:
        plan.append("end")
    for section in plan:
        passage.say("cases", section)
    return passage


def reading_report(bank: Bank, rng: Random, test: bool, medicine: bool = False) -> Passage:
    """A reading report with findings that are there, absent or only considered; `medicine` has no meaning here."""
    del medicine
    passage = Passage(bank, rng, test)
    if rng.random() < 0.5:
        passage.say("radiology", "open")
    plan = ["pos"] * rng.randint(1, 3) + ["neg"] * rng.randint(1, 3) + ["sus"] * (rng.random() < 0.6)
    rng.shuffle(plan)
    for section in plan:
        passage.say("radiology", section)
    if rng.random() < 0.3:
        passage.say("radiology", "end")
    return passage


def nursing_record(bank: Bank, rng: Random, test: bool, medicine: bool = True) -> Passage:
    """A nursing record: words of the patient, observation, medicine, assessment, plan."""
    passage = Passage(bank, rng, test)
    if rng.random() < 0.4:
        passage.say("nursing", "say")
    passage.say("nursing", "observe")
    if medicine:
        passage.say("nursing", "medicine")
    passage.say("nursing", rng.choice(("none", "none", "observe", "assess", "family", "family")))
    if rng.random() < 0.6:
        passage.say("nursing", "assess")
    if rng.random() < 0.7:
        passage.say("nursing", "plan")
    return passage


MAKERS: dict[str, Callable[[Bank, Random, bool, bool], Passage]] = {
    "CRNER": case_report,
    "RRNER": reading_report,
    "NRNER": nursing_record,
}


def entity_row(pool: str, tag: str, passage: Passage) -> Row | None:
    """The question about one kind of entity; None when the passage holds none of it."""
    gold = passage.gold(LETTERS[tag])
    if not gold:
        return None
    statuses = passage.statuses(LETTERS[tag])
    cases: list[str] = [status for status in ("negated", "suspected", "family") if status in statuses]
    unseen = any(m.unseen and m.status == "affirmed" for m in passage.mentions if m.letter in LETTERS[tag])
    cases += unseen_cases(unseen, passage.unseen_pattern)
    text = "\n".join(passage.sentences)
    form = passage.bank.forms["entities"]
    question = form["questions"][tag].format(source=form["sources"][pool])
    return Row(pool, tag, quoted(question, text), (), repr(gold), text, tuple(cases))


def write_passage(bank: Bank, rng: Random, pool: str, test: bool, medicine: bool) -> Passage:
    """A passage for this pool, now and then in full width."""
    passage = MAKERS[pool](bank, rng, test, medicine)
    if rng.random() < WIDE:
        passage.widen()
    return passage


def test_rows(bank: Bank, seed: int, fresh: Fresh, *, pool: str, tags: tuple[str, ...]) -> Iterator[Row | None]:
    """Test rows of one pool, one per passage, the tags in turn."""
    name = f"{pool.lower()}-{tags[0]}"
    number = 0
    while True:
        rng = numbered(seed, f"{name}-test-{number}")
        tag = tags[number % len(tags)]
        number += 1
        passage = write_passage(bank, rng, pool, test=True, medicine=tag != "d" or rng.random() < 0.5)
        row = entity_row(pool, tag, passage)
        yield row if row and fresh.take(row.passage) else None


def train_rows(bank: Bank, seed: int, fresh: Fresh, *, pool: str, tags: tuple[str, ...]) -> Iterator[Row | None]:
    """Training rows: for each passage one or two questions."""
    number = 0
    while True:
        rng = numbered(seed, f"{pool.lower()}-train-{number}")
        passage = write_passage(bank, rng, pool, test=False, medicine=len(tags) > 1 and rng.random() < 0.7)
        number += 1
        rows = [row for tag in tags if (row := entity_row(pool, tag, passage))]
        if not rows or not fresh.take(rows[0].passage):
            continue
        if len(rows) > 2:
            rows.pop(rng.randrange(1, len(rows)))
        yield from rows
