"""Social-media posts that decide whether somebody has one of eight complaints (SMDIS)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from rinsho.samples.bank import Bank
from rinsho.samples.forms import SMDIS_TAGS as TAGS
from rinsho.samples.passage import UNSEEN_PATTERN, UNSEEN_TERM, numbered
from rinsho.samples.pattern import fill
from rinsho.samples.rows import Fresh, Row, choice, quoted, unseen_cases

# complaints that a post about the first one leaves open: asking for them has no answer
OPEN = {
    "influenza": {"fever", "cough", "headache", "cold", "runnynose"},
    "cold": {"fever", "cough", "headache", "runnynose"},
    "hayfever": {"runnynose", "cold"},
    "runnynose": {"hayfever", "cold"},
    "cough": {"cold"},
    "fever": {"cold"},
}
ABSENT = ("past", "hypo", "neg", "meta", "past", "hypo", "contrast", "news")
KINDS = (*["now"] * 9, *["both"] * 2, *["contrast"] * 3, *["past", "hypo", "neg"] * 2, "meta", "news", "none")
ODDS = {"cold": 5.0, "runnynose": 1.5, "diarrhea": 0.5}  # evens out how often each complaint is asked in vain


@dataclass(frozen=True)
class Post:
    """A post, what it says of the complaints it names (True: somebody has it now), and its kind."""

    text: str
    kind: str
    says: dict[str, bool]
    unseen_term: bool
    unseen_pattern: bool

    def answer(self, tag: str) -> bool | None:
        """Whether somebody has this complaint; None when the post leaves it open."""
        if tag in self.says:
            return self.says[tag]
        return None if any(tag in OPEN.get(named, ()) for named in self.says) else False

    def row(self, bank: Bank, tag: str) -> Row:
        """The question about this post and this complaint."""
        form = bank.forms["smdis"]
        answer = 0 if self.answer(tag) else 1
        cases = unseen_cases(self.unseen_term, self.unseen_pattern)
        if answer and any(self.says.values()) and tag not in self.says:
            cases.insert(0, "other_symptom")
        elif answer and tag in self.says:
            cases.insert(0, "not_now")  # past, hypothetical, metaphor, news or denied
        text = quoted(form["question"] + form["tags"][tag]["asks"], self.text)
        return choice("SMDIS", tag, text, form["tags"][tag]["options"], answer, self.text, cases)


def write_post(bank: Bank, rng: Random, kind: str, about: tuple[str, str], *, test: bool) -> Post:
    """One post of this kind about one or two complaints."""
    first, second = about
    pattern = bank.choose("posts", kind, rng, test and rng.random() < UNSEEN_PATTERN)
    unseen_term = False
    values: dict[str, str] = {"who": rng.choice(bank.words["who"])}

    def slot(name: str) -> str:
        nonlocal unseen_term
        if name not in values:
            tag = second if name.endswith("2") else first
            some = [p for p in bank.phrases if p.tag == tag and p.form == name.rstrip("2")]
            held = [p for p in some if p.unseen]
            use_held = test and bool(held) and rng.random() < UNSEEN_TERM
            values[name] = rng.choice(held if use_held else [p for p in some if not p.unseen]).text
            unseen_term |= use_held
        return values[name]

    text = fill(pattern, rng, slot)
    says = {
        "now": {first: True},
        "both": {first: True, second: True},
        "contrast": {first: False, second: True},
        "none": {},
    }.get(kind, {first: False})
    return Post(text, kind, says, unseen_term, pattern.unseen)


def test_rows(bank: Bank, seed: int, fresh: Fresh) -> Iterator[Row | None]:
    """Balanced test rows, one per post: half yes; noes are other complaints and complaints not there now."""
    number = 0
    while True:
        rng = numbered(seed, f"smdis-test-{number}")
        tag = TAGS[number % len(TAGS)]
        turn = number // len(TAGS)
        number += 1
        if turn % 2 == 0:
            kind = rng.choice(("now", "now", "now", "both", "contrast"))
            yield _asked(bank, rng, kind, tag, fresh)
        elif turn % 4 == 1:
            yield _other(bank, rng, tag, fresh)
        else:
            kind = ABSENT[turn // 4 % len(ABSENT)]
            post = write_post(bank, rng, kind, (tag, _partner(rng, tag)), test=True)
            yield post.row(bank, tag) if fresh.take(post.text) else None


def train_rows(bank: Bank, seed: int, fresh: Fresh) -> Iterator[Row | None]:
    """Training rows: what the post says of each complaint it names, and for a real complaint one it does not name."""
    number = 0
    while True:
        rng = numbered(seed, f"smdis-train-{number}")
        number += 1
        kind, tag = rng.choice(KINDS), rng.choice(TAGS)
        post = write_post(bank, rng, kind, (tag, _partner(rng, tag)), test=False)
        if not fresh.take(post.text):
            continue
        asked = list(post.says)
        others = [other for other in TAGS if other not in post.says and post.answer(other) is False]
        if kind in ("now", "both", "none") and others:
            asked.append(rng.choices(others, [ODDS.get(other, 1.0) for other in others])[0])
        for one in asked:
            yield post.row(bank, one)


def _asked(bank: Bank, rng: Random, kind: str, tag: str, fresh: Fresh) -> Row | None:
    partner = _partner(rng, tag)
    first, second = (partner, tag) if kind == "contrast" else (tag, partner)
    post = write_post(bank, rng, kind, (first, second), test=True)
    return post.row(bank, tag) if fresh.take(post.text) else None


def _other(bank: Bank, rng: Random, tag: str, fresh: Fresh) -> Row | None:
    other = _partner(rng, tag)
    post = write_post(bank, rng, rng.choice(("now", "now", "both")), (other, _partner(rng, other)), test=True)
    if post.answer(tag) is not False or tag in post.says:
        return None
    return post.row(bank, tag) if fresh.take(post.text) else None


def _partner(rng: Random, tag: str) -> str:
    """Another complaint that neither implies nor is implied by this one."""
    near = OPEN.get(tag, set()) | {other for other in TAGS if tag in OPEN.get(other, ())}
    return rng.choice([other for other in TAGS if other != tag and other not in near] or [t for t in TAGS if t != tag])
