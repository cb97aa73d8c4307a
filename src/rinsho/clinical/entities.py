"""Entities of a clinical text with their places in the raw text: what a model lists, and values found by rule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from rinsho.chat_template import has_chat
from rinsho.clinical.passages import Sight, Span, cut
from rinsho.clinical.questions import QUESTIONS, Question, asking_of, tuned_tasks
from rinsho.clinical.values import find_values
from rinsho.errors import UserError
from rinsho.tasks.asking import Asking

if TYPE_CHECKING:
    from rinsho.generate.batcher import Job
    from rinsho.generate.jobs import Spans
    from rinsho.generate.opening import Opened

VALUE = "value"
USUAL = ("disease", "medicine", VALUE)
THRESHOLD = 0.5  # below it an entity is unsure
MAX_NEW_TOKENS = 256  # the longest answer has 20 items
LONGEST_PASSAGE = 1202  # code points: of the benchmark's longest, so that no answer is much longer than tuning saw


@dataclass(frozen=True, slots=True)
class Entity:
    """One place of one entity.

    Attributes:
        kind: disease, medicine, finding, value, or the name of a task of one's own.
        text: as it stands in the raw text.
        start, end: half-open range of code points of the raw text.
        probability: what the model gave this item among all legal answers (`rinsho.generate.jobs.span_job`), the same
            at each of its places; None for what a rule found.
        source: who found it.
    """

    kind: str
    text: str
    start: int
    end: int
    probability: float | None
    source: Literal["model", "rule"]

    def unsure(self, threshold: float = THRESHOLD) -> bool:
        """Whether it should be shown as a guess; what a rule found never is."""
        return self.probability is not None and self.probability < threshold

    def row(self, threshold: float = THRESHOLD) -> dict[str, Any]:
        """The entity as a JSON object, as files and the server have it."""
        return {
            "kind": self.kind, "text": self.text, "start": self.start, "end": self.end,
            "probability": None if self.probability is None else round(self.probability, 4),
            "unsure": self.unsure(threshold), "source": self.source,
        }  # fmt: skip


def kinds_of(opened: Opened) -> tuple[str, ...]:
    """The kinds of entities that can be asked of a model: findings where it was tuned on them, values alone of a base
    model."""
    if not has_chat(opened.tokenizer):
        return (VALUE,)
    tuned = tuned_tasks(opened) or ()
    return tuple(name for name in (*QUESTIONS, VALUE) if name != "finding" or QUESTIONS[name].task in tuned)


@dataclass(frozen=True, slots=True)
class _Asked:
    """A question about one passage: where the passage begins in the raw text, and what the model saw of it."""

    kind: str
    start: int
    sight: Sight


class Extraction:
    """The entities of one text: jobs for the model, and what becomes of their results.

    A text that is longer than the benchmark's, or does not fit the window, is cut into passages, each asked by itself.
    `jobs` are run with `rinsho.generate.batcher.Batcher`; their results, in the same order, are given to `entities`.

    Args:
        opened: the model.
        text: the raw text.
        kinds: names of `kinds_of(opened)`, or questions of one's own (`own_question`); None: those that are usual.
        max_new_tokens: room for the answer about a passage; items beyond it are left out.

    Attributes:
        jobs: what the model is to be asked; empty where only rules are needed.
        passages: how many passages were made for the kind that needed most.
        prompt_tokens: of all jobs together.
        cut: the answer about a passage was cut off, so that entities may be missing; known once `entities` was called.

    Raises:
        UserError: an unknown kind, or a base model that is asked for other kinds than values.

    Source: SPEC "neither 1", N3-2.
    """

    def __init__(
        self,
        opened: Opened,
        text: str,
        kinds: Sequence[str | Question] | None = None,
        max_new_tokens: int = MAX_NEW_TOKENS,
    ) -> None:
        self.text = text
        known = kinds_of(opened)
        wanted = [kind for kind in USUAL if kind in known] if kinds is None else list(dict.fromkeys(kinds))
        for kind in wanted:
            if isinstance(kind, str) and kind not in known and (has_chat(opened.tokenizer) or kind not in QUESTIONS):
                # a name that came over the network is not told again
                raise UserError("unknown kind of entity", where="kinds", expected="one of " + ", ".join(known))
        self.kinds = [kind if isinstance(kind, str) else kind.name for kind in wanted]
        self.jobs: list[Job[Spans]] = []
        self._asked: list[_Asked] = []
        self.passages, self.prompt_tokens, self.cut = 1, 0, False
        for kind in wanted:
            question = QUESTIONS.get(kind) if isinstance(kind, str) else kind
            if question is not None:
                self._ask(opened, question, max_new_tokens)

    def _ask(self, opened: Opened, question: Question, max_new_tokens: int) -> None:
        from rinsho.generate.jobs import span_job

        asking = asking_of(opened, max_new_tokens)
        spans = passages(asking, question, self.text)
        self.passages = max(self.passages, len(spans))
        for start, end in spans:
            sight = Sight(self.text[start:end], asking.ours)
            if not sight.seen.strip():
                continue
            prompt = asking.prompt(question.item(sight.raw))
            self.prompt_tokens += len(prompt)
            self.jobs.append(span_job(prompt, sight.seen, opened.pieces, max_new_tokens))
            self._asked.append(_Asked(question.name, start, sight))

    def entities(self, results: Sequence[Spans]) -> list[Entity]:
        """Every place of everything that was found, by place; those of one kind do not lie inside each other."""
        found: list[Entity] = []
        self.cut = not all(result.whole for result in results)
        for asked, result in zip(self._asked, results, strict=True):
            for (start, end), probability in places(asked.sight, result.items).items():
                span = asked.start + start, asked.start + end
                found.append(Entity(asked.kind, self.text[slice(*span)], *span, probability, "model"))
        if VALUE in self.kinds:
            found += [Entity(VALUE, self.text[start:end], start, end, None, "rule")
                      for start, end in find_values(self.text)]  # fmt: skip
        return sorted(found, key=lambda entity: (entity.start, -entity.end, self.kinds.index(entity.kind)))


def passages(asking: Asking, question: Question, text: str) -> list[Span]:
    """The ranges of a text in which this question is asked: all of it, where it is no longer than the benchmark's.

    Each leaves room for its answer in the window.
    """
    room = asking.prompt_room(question.item(""))

    def fits(part: str) -> bool:
        return len(part) <= LONGEST_PASSAGE and len(asking.prompt(question.item(part))) <= room

    return cut(text, fits)


def places(sight: Sight, items: Sequence[tuple[str, float]]) -> dict[Span, float]:
    """Where in a raw passage the items stand, with their probabilities; inside a longer item none is told again.

    In Latin letters and figures whole words are preferred: CT is not found in CTR, unless it stands nowhere else.

    >>> places(Sight("ＣＴＲ拡大，ＣＴで肺炎．肺炎後の肺．", True), [("CT", 0.5), ("肺炎", 0.9), ("肺", 0.2)])
    {(6, 8): 0.5, (9, 11): 0.9, (12, 14): 0.9, (16, 17): 0.2}
    """
    found: dict[Span, float] = {}
    for item, probability in sorted(items, key=lambda row: -len(row[0].strip())):
        for start, end in _occurrences(sight.seen, item.strip()):
            span = sight.raw_span(start, end)
            if not any(first <= span[0] and span[1] <= last for first, last in found):
                found[span] = probability
    return dict(sorted(found.items()))


def _occurrences(text: str, item: str) -> list[Span]:
    """Every place of an item that says something, without overlaps."""
    spans: list[Span] = []
    start = text.find(item) if any(char.isalnum() for char in item) else -1
    while start >= 0:
        spans.append((start, start + len(item)))
        start = text.find(item, start + len(item))
    return [span for span in spans if _whole(text, *span)] or spans


def _whole(text: str, start: int, end: int) -> bool:
    """Whether no Latin word or number goes on over the ends of this place."""
    before, after = text[max(0, start - 1) : start + 1], text[end - 1 : end + 1]
    return not any(len(pair) == 2 and pair.isascii() and pair.isalnum() for pair in (before, after))
