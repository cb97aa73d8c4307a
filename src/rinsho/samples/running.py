"""Running text: documents of many kinds in a fixed cycle, each determined by the seed and its own number."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random

from rinsho.document import Document
from rinsho.samples import web
from rinsho.samples.articles import article
from rinsho.samples.bank import Bank
from rinsho.samples.entities import case_report, nursing_record, reading_report
from rinsho.samples.exams import options, problems, stem
from rinsho.samples.forms import SMDIS_TAGS
from rinsho.samples.passage import Passage, document_key, numbered
from rinsho.samples.posts import write_post
from rinsho.samples.rows import Fresh, letter
from rinsho.samples.tnm import TnmReport

CYCLE = (
    "article", "case", "article", "summary", "article", "radiology", "article", "nursing", "article", "posts",
    "article", "exam", "article", "web", "article", "case", "article", "tnm", "article", "radiology",
)  # fmt: skip
JUNK_EVERY, COPY_EVERY, NEAR_EVERY = 40, 50, 60
KINDS = ("now", "past", "hypo", "meta", "news", "neg", "contrast", "both", "none")


@dataclass(frozen=True)
class Made:
    """A document and how it counts: `copy` and `junk` do not count towards the asked-for size."""

    document: Document
    counts: bool


def documents(bank: Bank, seed: int, fresh: Fresh, forbidden: frozenset[str]) -> Iterator[Made]:
    """Documents without end; no text twice except the marked copies, and none that is or holds a test passage.

    `fresh` knows the texts so far, `forbidden` the test passages, which no post or question in a document may be.
    """
    makers = _makers(bank, forbidden)
    last: Document | None = None
    number = 0
    while True:
        kind = CYCLE[number % len(CYCLE)]
        name = f"sample-{kind}-{number:06d}"
        text = makers[kind](numbered(seed, name), number)
        if fresh.take(text):
            last = _document(name, kind, text)
            yield Made(last, kind != "web")
        if last is not None:
            yield from _mess(bank, seed, number, last)
        number += 1


def _mess(bank: Bank, seed: int, number: int, last: Document) -> Iterator[Made]:
    if number % JUNK_EVERY == 7:
        name = f"sample-junk-{number:06d}"
        yield Made(_document(name, "junk", web.junk(bank, numbered(seed, name))), False)
    if number % COPY_EVERY == 11:
        yield Made(_document(f"sample-copy-{number:06d}", "copy", last.text, last.id), False)
    if number % NEAR_EVERY == 23:
        name = f"sample-near-{number:06d}"
        yield Made(_document(name, "near", web.nearly(bank, numbered(seed, name), last.text), last.id), False)


def _document(name: str, kind: str, text: str, copy_of: str | None = None) -> Document:
    meta = {"source": f"rinsho samples ({kind})", "license": "invented"}
    return Document(text, name, meta | ({"copy_of": copy_of} if copy_of else {}))


def _ordinal(number: int) -> int:
    """How many articles come before the document of this number."""
    turns, rest = divmod(number, len(CYCLE))
    return turns * CYCLE.count("article") + CYCLE[:rest].count("article")


def _filled(bank: Bank, section: str, mark: str, text: str) -> str:
    return bank.patterns["exams"][section][0].text.replace("{l}", mark.lower()).replace("{x}", text)


def _makers(bank: Bank, forbidden: frozenset[str]) -> dict[str, Callable[[Random, int], str]]:
    asked = [problem for problem in problems(bank) if not problem.for_test]

    def exam(rng: Random, _: int) -> str:
        parts: list[str] = []
        while len(parts) < 4:
            problem = rng.choice(asked)
            pattern = bank.choose("exams", problem.section, rng)
            question, made = stem(bank, problem, pattern, rng), options(problem, rng, 5)
            if made and document_key(question) not in forbidden:
                names, answers = made
                lines = [_filled(bank, "option", letter(i), name) for i, name in enumerate(names)]
                lines.append(_filled(bank, "solution", letter(answers[0]), names[answers[0]]))
                parts.append("\n".join([question, *lines]))
        return "\n\n".join(parts)

    def posts(rng: Random, _: int) -> str:
        lines = []
        for _number in range(rng.randint(6, 12)):
            first, second = rng.sample(SMDIS_TAGS, 2)
            post = write_post(bank, rng, rng.choice(KINDS), (first, second), test=False)
            if document_key(post.text) not in forbidden:
                lines.append(post.text)
        return "\n".join(lines)

    def passages(maker: Callable[..., Passage], low: int, high: int) -> Callable[[Random, int], str]:
        def make(rng: Random, _: int) -> str:
            some = [maker(bank, rng, False).sentences for _number in range(rng.randint(low, high))]
            return "\n\n".join("".join(sentences) for sentences in some)

        return make

    def summary(rng: Random, _: int) -> str:
        passage = Passage(bank, rng, test=False)
        for section in ("summary_head", "history", "now", "exam", "exam_none", "diagnosis", "treat", "course"):
            passage.say("cases", section)
        passage.say("cases", "summary_plan")
        passage.say("cases", "summary_plan")
        return "\n".join(passage.sentences)

    def page(rng: Random, _: int) -> str:
        body = article(bank, rng, rng.randrange(10_000)) if rng.random() < 0.7 else summary(rng, 0)
        return web.letter(bank, rng, body) if rng.random() < 0.15 else web.messy(bank, rng, body)

    return {
        "article": lambda rng, number: article(bank, rng, _ordinal(number)),
        "case": passages(case_report, 1, 2), "summary": summary, "radiology": passages(reading_report, 1, 2),
        "nursing": passages(nursing_record, 2, 4), "posts": posts, "exam": exam, "web": page,
        "tnm": lambda rng, _: "\n\n".join(TnmReport(bank, rng, False).text for _number in range(2)),
    }  # fmt: skip
