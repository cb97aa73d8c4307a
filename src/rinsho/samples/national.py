"""A national examination in IgakuQA's JSON lines: five choices, some with two answers, a few calculations."""

from __future__ import annotations

import json
from dataclasses import dataclass
from random import Random

from rinsho.samples.bank import Bank
from rinsho.samples.exams import Problem, options, problems, stem
from rinsho.samples.passage import numbered
from rinsho.samples.pattern import fill
from rinsho.samples.rows import Fresh

SHARES = {"A": 75, "B": 50, "C": 75, "D": 75, "E": 50, "F": 75}  # of 400, as in the real examination
EXAMS = {"2901": "901", "2902": "902"}  # invented years, so that nobody takes them for real ones
NOBODY_SAT_IT = {"kinki": [], "reason": "", "human_accuracy": "", "breakdown": []}
PHARMACOLOGY = ("class", "member", "mechanism", "adverse")


@dataclass(frozen=True)
class Paper:
    """One section of one year: file stem and its problems with their categories."""

    year: str
    name: str  # 901-A
    problems: tuple[dict[str, object], ...]
    categories: tuple[str, ...]

    def lines(self) -> str:
        """The problems as JSON lines."""
        return "".join(json.dumps(problem, ensure_ascii=False) + "\n" for problem in self.problems)

    def metadata(self) -> str:
        """The companion file: category of each problem; the shares of answers stay empty."""
        rows = (
            {"problem_id": p["problem_id"], "category": c, **NOBODY_SAT_IT}
            for p, c in zip(self.problems, self.categories, strict=True)
        )
        return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def papers(bank: Bank, seed: int, per_year: int, fresh: Fresh) -> list[Paper]:
    """All sections of all years, `per_year` problems a year; no question stands in another table."""
    pool = [problem for problem in problems(bank) if problem.for_test]
    out: list[Paper] = []
    for year, exam in EXAMS.items():
        for section, share in SHARES.items():
            count = max(4, round(per_year * share / 400))
            made: list[dict[str, object]] = []
            categories: list[str] = []
            for number in range(1, count + 1):
                rng = numbered(seed, f"igakuqa-{exam}{section}{number}")
                heavy = section in "BE" and number > count // 2
                problem, category = _problem(bank, rng, pool, fresh, calculation=section in "CDF" and number == count)
                made.append({"problem_id": f"{exam}{section}{number}", **problem, "points": "3" if heavy else "1"})
                categories.append(category)
            out.append(Paper(year, f"{exam}-{section}", tuple(made), tuple(categories)))
    return out


def _problem(
    bank: Bank, rng: Random, pool: list[Problem], fresh: Fresh, *, calculation: bool
) -> tuple[dict[str, object], str]:
    while True:
        if calculation:
            text, answer = _calculation(bank, rng)
            if fresh.take(text):
                row = {"problem_text": text, "choices": [], "text_only": True, "answer": [answer]}
                return row, bank.words["calculation"][0]
            continue
        problem = rng.choice(pool)
        two = len(problem.right) == 2 and rng.random() < 0.6
        made = options(problem, rng, 5, 2 if two else 1)
        pattern = rng.choice(bank.patterns["exams"][problem.section])
        text = stem(bank, problem, pattern, rng)
        if made is None or (two and problem.negated):
            continue
        if two:
            text = _choose_two(bank, text)
        pictured = problem.section.startswith("vignette") and rng.random() < 0.3
        if pictured:
            text += bank.words["pictured"][0]
        if not fresh.take(text):
            continue
        names, answers = made
        row = {
            "problem_text": text, "choices": names, "text_only": not pictured, "answer": ["abcde"[i] for i in answers],
        }  # fmt: skip
        about_drugs = problem.section.removesuffix(".not") in PHARMACOLOGY
        return row, bank.words["pharmacology"][0] if about_drugs else problem.tag


def _calculation(bank: Bank, rng: Random) -> tuple[str, str]:
    kind = rng.choice(("dose", "drip", "pack", "stay"))
    w, k = rng.randrange(10, 70, 5), rng.randint(2, 12)
    hours = rng.choice((4, 5, 8, 10))
    values = {"w": str(w), "k": str(k), "h": str(hours), "a": str(hours * rng.randrange(20, 125, 5))}
    text = fill(bank.choose("exams", f"calc.{kind}", rng), rng, values.__getitem__)
    answer = int(values["a"]) // hours if kind == "drip" else w * k
    mark, boxes = bank.words["answer_mark"][0], bank.words["answer_boxes"][0]
    return text.replace(mark, mark + boxes[: len(str(answer))]), str(answer)


def _choose_two(bank: Bank, text: str) -> str:
    one, two = bank.words["choose_two"]
    return text.removesuffix(one) + two
