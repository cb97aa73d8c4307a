"""Radiology reports of lung cancer with T, N and M (RRTNM)."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from rinsho.samples.bank import Bank
from rinsho.samples.passage import UNSEEN_PATTERN, Passage, numbered
from rinsho.samples.rows import Fresh, Row, choice, quoted, unseen_cases

GRADES = {"T": "ABCDE", "N": "ABCD", "M": "AB"}
DISTRACTION = 0.4


class TnmReport:
    """A report with its three grades and, per letter, whether it holds a distraction."""

    def __init__(self, bank: Bank, rng: Random, test: bool, grades: dict[str, str] | None = None) -> None:
        self.grades = {key: rng.choice(some) for key, some in GRADES.items()} | (grades or {})
        self.distracted: set[str] = set()
        self.unseen: set[str] = set()  # the letters that a held-out pattern tells
        self.passage = Passage(bank, rng, test)
        parts = list("TNM")
        if rng.random() < 0.4:
            self.passage.say("radiology", "open")
        if rng.random() < 0.2:
            rng.shuffle(parts)
        for part in parts:
            before = rng.random() < 0.35
            distract = rng.random() < DISTRACTION
            if distract and before:
                self._distract(part)
            self._grade(part)
            if distract and not before:
                self._distract(part)
        if rng.random() < 0.3:
            self.passage.say("radiology", "end")

    def _grade(self, part: str) -> None:
        passage = self.passage
        unseen = passage.test and passage.rng.random() < UNSEEN_PATTERN
        pattern = passage.bank.choose("radiology", f"{part}.{self.grades[part]}", passage.rng, unseen)
        passage.use(pattern)
        if pattern.unseen:
            self.unseen.add(part)

    def _distract(self, part: str) -> None:
        if part == "N" and self.grades["N"] == "D":  # "the other side is free" would contradict N3
            return
        self.passage.say("radiology", f"distract.{part}")
        self.distracted.add(part)

    @property
    def text(self) -> str:
        """One sentence a line, as reports are written."""
        return "\n".join(self.passage.sentences)

    def row(self, tag: str) -> Row:
        """The question about T, N or M."""
        cases = ["distractor"] * (tag in self.distracted) + unseen_cases(False, tag in self.unseen)
        answer = "ABCDE".index(self.grades[tag])
        form = self.passage.bank.forms["rrtnm"][tag]
        text = quoted(form["question"], self.text)
        return choice("RRTNM", tag, text, form["options"], answer, self.text, cases)


def test_rows(bank: Bank, seed: int, fresh: Fresh) -> Iterator[Row | None]:
    """Test rows, one per report: T, N, M in turn, each grade equally often."""
    number = 0
    while True:
        rng = numbered(seed, f"rrtnm-test-{number}")
        tag = "TNM"[number % 3]
        grade = GRADES[tag][(number // 3) % len(GRADES[tag])]
        number += 1
        while True:
            report = TnmReport(bank, rng, test=True, grades={tag: grade})
            if fresh.take(report.text):
                break
        yield report.row(tag)


def train_rows(bank: Bank, seed: int, fresh: Fresh) -> Iterator[Row | None]:
    """Training rows, three per report."""
    number = 0
    while True:
        report = TnmReport(bank, numbered(seed, f"rrtnm-train-{number}"), test=False)
        number += 1
        if fresh.take(report.text):
            for tag in "TNM":
                yield report.row(tag)
