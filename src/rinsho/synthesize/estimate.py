"""What a run will ask, take and send, before it starts; nothing is sent for it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rinsho import client
from rinsho.client import Answer
from rinsho.progress import amount, duration
from rinsho.run import unchanged
from rinsho.synthesize import checks
from rinsho.synthesize.agreement import Written, answer_calls, answerers
from rinsho.synthesize.calls import ANSWER, EXERCISES, Call
from rinsho.synthesize.instructions import Growth, wanted_requests
from rinsho.synthesize.judging import Writing, written
from rinsho.synthesize.kept import Kept
from rinsho.synthesize.passages import PASSAGE
from rinsho.synthesize.plan import writers
from rinsho.synthesize.work import Wanted

if TYPE_CHECKING:
    from rinsho.synthesize import Recipe, Teacher

CHARS_A_TOKEN = 1.5  # of Japanese text in most vocabularies; used where a teacher has answered nothing yet
EXERCISE_CHARS = 330  # question and options in the national examination, where no exercise is known yet
INSTRUCTIONS = "instructions"


@dataclass
class OfKind:
    """The calls of one kind to one teacher.

    Attributes:
        asked, kept: all of them, and those that were answered before.
        given_up: those that failed for good in this run.
        chars: of the prompts that are left.
        kept_chars, prompt_tokens, completion_tokens, seconds: sums over the answers that are kept.
    """

    asked: int = 0
    kept: int = 0
    given_up: int = 0
    chars: float = 0.0
    kept_chars: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0

    @property
    def left(self) -> int:
        """Requests to be paid."""
        return self.asked - self.kept - self.given_up

    def take(self, call: Call, answer: Answer | None) -> None:
        """Counts a call, and its answer if it has one."""
        chars = sum(len(message.content) for message in call.messages)
        if answer is None:
            self.more(1, chars)
            return
        self.asked += 1
        if answer.error:
            self.given_up += 1
            return
        self.kept += 1
        self.kept_chars += chars
        self.prompt_tokens += answer.prompt_tokens
        self.completion_tokens += answer.completion_tokens
        self.seconds += answer.seconds

    def more(self, count: int, chars: float) -> None:
        """Counts calls that nothing is known of but the mean length of their prompts."""
        self.asked += count
        self.chars += count * chars


@dataclass
class Expected:
    """What one teacher is asked, by kind. Of instructions it is at least this, of answers to exercises at most."""

    kinds: defaultdict[str, OfKind] = field(default_factory=lambda: defaultdict(OfKind))

    @property
    def left(self) -> int:
        """Requests to be paid."""
        return sum(row.left for row in self.kinds.values())

    @property
    def paid(self) -> int:
        """Requests that were answered before."""
        return sum(row.kept for row in self.kinds.values())

    def numbers(self, teacher: Teacher) -> dict[str, Any]:
        """Requests, tokens and hours: by what kept answers of the same kind took where there are any, else at most."""
        rows, paid = self.kinds.values(), self.paid
        about = [row for kind, row in self.kinds.items() if kind not in (INSTRUCTIONS, ANSWER)]
        read, chars = sum(row.prompt_tokens for row in rows), sum(row.kept_chars for row in rows)
        a_char = read / chars if read else 1 / CHARS_A_TOKEN
        seconds = sum(map(self._seconds, rows, [teacher.max_tokens] * len(rows))) if paid else 0.0
        seconds /= teacher.slots if teacher.folder else teacher.max_concurrent_requests
        if teacher.max_requests_per_minute and not teacher.folder:
            seconds = max(seconds, self.left * 60 / teacher.max_requests_per_minute)
        return {
            "requests": sum(row.asked for row in about),
            "requests_paid": sum(row.kept for row in about),
            "instructions_at_least": self.kinds[INSTRUCTIONS].left,
            "instructions_paid": self.kinds[INSTRUCTIONS].kept,
            "answers_at_most": self.kinds[ANSWER].left,
            "answers_paid": self.kinds[ANSWER].kept,
            "left": self.left,
            "paid": paid,
            "prompt_tokens": round(sum(row.chars for row in rows) * a_char),
            "completion_tokens": round(sum(row.left * _tokens(row, teacher.max_tokens) for row in rows)),
            "measured_answers": sum(row.kept for row in rows if row.left and row.completion_tokens),
            "unmeasured": sum(row.left for row in rows if not row.completion_tokens),
            "hours": round(seconds / 3600, 4) if seconds else None,
        }

    def _seconds(self, row: OfKind, max_tokens: int) -> float:
        """Of the requests of a kind that are left, one after the other; of one without answers by their tokens."""
        if row.kept:
            return row.left * row.seconds / row.kept
        tokens = sum(other.completion_tokens for other in self.kinds.values())
        seconds = sum(other.seconds for other in self.kinds.values())
        return row.left * (seconds / tokens * max_tokens if tokens else seconds / self.paid)


def describe(recipe: Recipe, inputs: Sequence[Path], out: Path | None = None) -> str:
    """Lines for people: where texts go, and per teacher requests, tokens, hours and what is already paid.

    Args:
        recipe: of the run.
        inputs: word lists and documents.
        out: the run folder, beside which answers are kept where the recipe names no `cache`.

    Raises:
        UserError: an input cannot be read.
    """
    if out is not None:
        digest, _ = checks.templates(recipe, inputs)
        if unchanged("synthesize", checks.identity(recipe), checks.given(recipe, inputs), out, [digest]):
            return f"done and unchanged, nothing is left to ask ({out})"
    wanted = Wanted(recipe, [Path(path) for path in inputs])
    lines = [f"WARNING: {line}" for line in wanted.unused()]
    found = _expected(recipe, wanted, out)
    for name, teacher in recipe.teachers.items():
        here = f"a model on this machine ({teacher.folder})"
        place = here if teacher.folder else client.describe(teacher, wanted.sent(name))
        lines += [f"teacher {name}: {place}", f"  {_line(found[name].numbers(teacher), teacher)}"]
    rows = found.values()
    lines.append(f"in all: {sum(row.left for row in rows):,} requests, {sum(row.paid for row in rows):,} paid before")
    return "\n".join(lines)


def expected(recipe: Recipe, inputs: Sequence[Path], out: Path | None = None) -> dict[str, Expected]:
    """What each teacher is asked, by its name."""
    return _expected(recipe, Wanted(recipe, [Path(path) for path in inputs]), out)


def _expected(recipe: Recipe, wanted: Wanted, out: Path | None) -> dict[str, Expected]:
    """Goes through the run as far as answers are kept, as later requests depend on them."""
    found = {name: Expected() for name in recipe.teachers}
    authors: defaultdict[str, OfKind] = defaultdict(OfKind)  # of exercises to come: what others must read of them
    with Kept(recipe, out) as kept:

        def take(call: Call) -> Answer | None:
            answer = kept.answer(call)
            found[call.teacher].kinds[call.kind].take(call, answer)
            return answer

        for call in wanted.calls():
            answer = take(call)
            if not recipe.agreement or call.kind not in EXERCISES:
                continue
            if answer is None:
                authors[call.teacher].more(1, len(call.about.get(PASSAGE, "")))
            elif isinstance(writing := written(call, answer), Writing) and writing.exercise is not None:
                for asked in answer_calls([Written(call.id, call.teacher, writing.exercise)], recipe, wanted.prompts):
                    take(asked)
        _answers_to_come(recipe, wanted, found, authors)
        if INSTRUCTIONS in recipe.kinds:
            _rounds(recipe, wanted, kept, found)
    return found


def _answers_to_come(recipe: Recipe, wanted: Wanted, found: dict[str, Expected], authors: dict[str, OfKind]) -> None:
    """Answers to exercises that nobody has written yet, as long as the known ones, spread over the others."""
    template = wanted.prompts.of(ANSWER)
    chars = len(template.system) + len(template.user) + EXERCISE_CHARS
    for author, coming in authors.items():
        others = [name for name in found if name != author] or [author]
        for name in others:
            count = round(coming.asked * len(answerers(recipe, "", author)) / len(others))
            found[name].kinds[ANSWER].more(count, chars + coming.chars / coming.asked)


def _rounds(recipe: Recipe, wanted: Wanted, kept: Kept, found: dict[str, Expected]) -> None:
    """The rounds that are answered, the first one that is not, and what is missing behind it when all are accepted."""
    growth = Growth(recipe, wanted.prompts)
    calls: list[Call] = []
    while not growth.done:
        calls = growth.next_calls()
        replies = [(call, kept.answer(call)) for call in calls]
        for call, answer in replies:
            found[call.teacher].kinds[call.kind].take(call, answer)
        answered = [(call, answer) for call, answer in replies if answer is not None]
        if len(answered) < len(replies):
            break
        growth.take(answered)
    missing = recipe.model_copy(update={"instructions": recipe.instructions - len(growth.accepted)})
    further = 0 if growth.done else wanted_requests(missing) - len(calls)
    chars = sum(len(message.content) for call in calls for message in call.messages) / max(len(calls), 1)
    shares = {name: recipe.teachers[name].share for name in writers(recipe, INSTRUCTIONS)}
    for name, share in shares.items() if further > 0 else ():
        part = 1 / len(shares) if recipe.assign == "all" else share / sum(shares.values())
        found[name].kinds[INSTRUCTIONS].more(round(further * part), chars)


def _tokens(row: OfKind, most: int) -> float:
    """Of an answer: as those that are kept, else the most."""
    return row.completion_tokens / row.kept if row.completion_tokens else most


def _line(row: dict[str, Any], teacher: Teacher) -> str:
    parts = [f"{row['requests']:,} requests about topics and passages"]
    if row["requests_paid"]:
        parts.append(f"{row['requests_paid']:,} of them paid before")
    for left, paid, most, what in (
        (row["instructions_at_least"], row["instructions_paid"], "at least", "for instructions"),
        (row["answers_at_most"], row["answers_paid"], "at most", "to answer exercises"),
    ):
        if left or paid:
            before = f" ({paid:,} more are paid before)" if paid else ""
            parts.append(f"{most} {left:,} {what}{before}" if left else f"none left {what}{before}")
    if not row["left"]:
        return ", ".join([*parts, "nothing left to ask"])
    guessed = "" if row["paid"] else f", {CHARS_A_TOKEN} characters a token"
    parts.append(f"{amount(row['prompt_tokens'])} tokens to read{guessed}")
    source = []
    if row["measured_answers"]:
        source.append(f"as the {row['measured_answers']:,} answers of these kinds that are kept")
    if row["unmeasured"]:
        of_some = f" for {row['unmeasured']:,}" if source else ""
        source.append(f"{teacher.max_tokens:,} an answer{of_some}, at most")
    parts.append(f"{amount(row['completion_tokens'])} to write ({'; '.join(source)})")
    if row["hours"] is not None:
        parts.append(f"about {duration(row['hours'] * 3600)}")
    else:
        parts.append("time not known before the first answers: there is no rate limit")
    return ", ".join(parts)
