"""A model behind an OpenAI-compatible endpoint under test: described in YAML, asked freely, never paid twice.

The file's keys are those of `rinsho.client.ClientSettings`:

    base_url: http://127.0.0.1:8000/v1
    model: some-model
    api_key_variable: SOME_KEY    # the name of the variable, never the key

Every question has the recipe's `max_new_tokens` as its room, choices too: models behind endpoints explain or think
before they answer. A `max_tokens` in the file goes before it.

Nobody but the endpoint knows how long its window is. A question that it refuses as too long is asked again without
its first solved example, without the second and so on, then without its middle.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from rinsho import recipe
from rinsho.chat import Message
from rinsho.client import Answer, Client, ClientSettings, Request, describe
from rinsho.errors import UserError
from rinsho.evaluate.ask import lines, spoken, tell_unfinished
from rinsho.run import Stage, write_atomic
from rinsho.tasks import Item
from rinsho.tasks.asking import PromptForm, orders, turns
from rinsho.tasks.examples import group
from rinsho.tasks.item import rotated

KEPT_FILE = "endpoint.jsonl"  # in the run's scratch: every answer as it came
FILTERED = ("content_filter", "refusal")
TOO_LONG = "too_long"
PARTS = (0.5, 0.25, 0.125)  # of a question's characters: what is asked of one that is too long even without examples
HEAD_FRACTION = 0.25  # that of `rinsho.generate.batches`, which loads torch
ANSWER_SETTINGS = ("model", "max_tokens", "temperature", "seed", "extra")


class Try(NamedTuple):
    """How a question is asked: behind how many of its solved examples, and how much of its text."""

    examples: int
    part: float = 1.0


class Question(NamedTuple):
    """A question in one order of its options, with its solved examples."""

    item: Item
    rotation: int
    examples: Sequence[Item]
    form: PromptForm

    @property
    def tries(self) -> list[Try]:
        """The ways in which it is asked, one after the other until it fits."""
        return [*map(Try, range(len(self.examples), -1, -1)), *(Try(0, part) for part in PARTS)]

    def messages(self, how: Try) -> tuple[Message, ...]:
        """The conversation."""
        shown = self.examples[len(self.examples) - how.examples :]
        *before, last = turns(rotated(self.item, self.rotation), self.form, shown)
        return (*before, replace(last, content=without_middle(last.content, how.part)))


def without_middle(text: str, part: float) -> str:
    """This part of a text's characters: as of a local model's prompt a quarter of them from its start.

    >>> without_middle("発熱、咳嗽、頭痛", 0.5), without_middle("発熱", 1.0)
    ('発、頭痛', '発熱')
    """
    size = int(part * len(text))
    head = int(size * HEAD_FRACTION)
    return text if size == len(text) else text[:head] + text[len(text) - (size - head) :]


def read_settings(path: Path) -> ClientSettings:
    """The endpoint that a YAML file describes; nothing is sent.

    Raises:
        UserError: the file is no YAML mapping, has an unknown key or a wrong value, or lacks `base_url` or `model`.

    Source: N3-2.
    """
    raw = recipe.load(path)
    expected = "the settings of an endpoint: " + ", ".join(ClientSettings.model_fields)
    try:
        settings = recipe.settings(ClientSettings, raw, str(path))
    except UserError as problem:
        raise UserError(problem.what, where=path, expected=expected, todo="see docs/evaluation.md") from None
    missing = [name for name in ("base_url", "model") if not getattr(settings, name)]
    if missing:
        raise UserError(
            f"{' and '.join(missing)} missing",
            where=path,
            expected="base_url: http://127.0.0.1:8000/v1 and model: NAME",
        )
    return settings


def identity(settings: ClientSettings) -> str:
    """What changes the answers of an endpoint, as JSON in a fixed order.

    Address, key, concurrency, rate, time-outs and retries are not part of it: they may change when a run goes on, and
    the answers kept until then are found again.

    >>> identity(ClientSettings(base_url="http://a/v1", model="x", max_retries=3))
    '{"extra": {}, "max_tokens": null, "model": "x", "seed": null, "temperature": 0.0}'
    """
    kept = settings.model_dump(mode="json", include=set(ANSWER_SETTINGS))
    if "max_tokens" not in settings.model_fields_set:
        kept["max_tokens"] = None  # the recipe says it
    return json.dumps(kept, sort_keys=True)


def answer_all(
    stage: Stage,
    settings: ClientSettings,
    items: Sequence[Item],
    *,
    examples: Mapping[str, Sequence[Item]],
    max_new_tokens: int,
    prompt_form: PromptForm = "benchmark",
    rotations: int = 0,
) -> Path:
    """Writes `answers.jsonl` into the run folder, in the order of the items, and returns its path.

    Free answers only: an endpoint tells no probabilities of answers that it did not give. Each answer is kept as it
    comes, so that an interrupted run asks only what is missing. Lines are those of `rinsho.evaluate.ask`, with the
    endpoint's own `finish_reason`; `tokens` are those that it counted. A question that does not fit the endpoint's
    window however it is shortened has no answer and the `finish_reason` `too_long`.

    Raises:
        UserError: the endpoint refuses or is gone, or single requests failed for good: these are no wrong answers,
            and running again asks them alone.

    Source: N3-1, N3-2.
    """
    path = stage.out / "answers.jsonl"
    if path.is_file():
        return path
    if "max_tokens" not in settings.model_fields_set:
        settings = settings.model_copy(update={"max_tokens": max_new_tokens})
    stage.log(describe(settings))
    stage.log(f"model {settings.model}, at most {settings.max_tokens} tokens an answer, choices too")
    questions = [
        Question(item, rotation, examples.get(group(item), ()), prompt_form)
        for item in items
        for rotation in orders(item, rotations, prompt_form)
    ]
    rows = []
    answers = _ask(stage, settings, questions)
    for question, (how, answer) in zip(questions, answers, strict=True):
        row = {"id": question.item.id, "mode": "free", "rotation": question.rotation, "form": "letter"}
        row |= {**spoken(answer.text), "logprobs": None, "tokens": answer.completion_tokens}
        row |= {"shortened": how.part < 1, "finish_reason": answer.finish_reason}
        rows.append(row | {"examples": how.examples} if examples else row)
    write_atomic(path, lines(rows))
    _tell(stage, rows, settings)
    return path


def _ask(stage: Stage, settings: ClientSettings, questions: Sequence[Question]) -> list[tuple[Try, Answer]]:
    """How each question was asked at last, and its answer; an error only after every question had its turn."""
    file, total = stage.partial / KEPT_FILE, len(questions)
    known = _settled(file, total)
    found: dict[int, tuple[Try, Answer]] = {}
    failed: Counter[str] = Counter()
    cached, tried, places = 0, 0, list(range(total))
    with (
        Client(settings, file, too_long_is_answer=True) as client,
        stage.progress("answers", total, "questions", done=known) as progress,
    ):
        while places:
            tries = {place: questions[place].tries[tried] for place in places}
            requests = (Request(str(place), questions[place].messages(how)) for place, how in tries.items())
            again = []
            for place, answer in zip(places, client.ask(requests), strict=True):
                found[place] = tries[place], answer
                too_long = answer.finish_reason == TOO_LONG
                if too_long and tried + 1 < len(questions[place].tries):
                    again.append(place)
                    continue
                failed[answer.error] += bool(answer.error)
                cached += answer.cached
                fresh = not (answer.cached and known) or too_long
                known -= not fresh
                progress.update(fresh, failed=failed.total(), retries=client.counts.retries)
            places, tried = again, tried + 1
        counts = client.counts
    stage.log(
        f"{total} questions: {cached} known, {counts.attempts} requests ({counts.retries} again), "
        f"{counts.prompt_tokens} tokens of prompts and {counts.completion_tokens} of answers"
    )
    if failed.total():
        kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(failed.items()) if count)
        raise UserError(
            f"{failed.total()} of {total} questions have no answer after {settings.max_retries + 1} attempts each"
            f" ({kinds})",
            where=settings.base_url, expected="an answer to each, be it a wrong one",
            todo="run the same command again: it asks these alone",
        )  # fmt: skip
    return [found[place] for place in range(total)]


def _settled(file: Path, total: int) -> int:
    """How many questions an interrupted run has answered; what was refused as too long is asked again, shorter."""
    if not file.is_file():
        return 0
    content = file.read_bytes()
    return min(total, content.count(b"\n") - content.count(f'"finish_reason":"{TOO_LONG}"'.encode()))


def _tell(stage: Stage, rows: Sequence[Mapping[str, Any]], settings: ClientSettings) -> None:
    """Says how many answers are not what the model would have said with more room or without a filter."""
    reasons, of = Counter(row["finish_reason"] for row in rows), f"of {len(rows)}"
    if reasons["length"]:
        stage.log(f"{reasons['length']} {of} answers ended at {settings.max_tokens} tokens")
    if filtered := sum(reasons[reason] for reason in FILTERED):
        stage.log(f"{filtered} {of} questions were refused by the endpoint: they count as answered wrongly")
    if shortened := sum(row["shortened"] for row in rows) - reasons[TOO_LONG]:
        stage.log(f"{shortened} {of} questions were longer than the model's window and lost their middle")
    if reasons[TOO_LONG]:
        stage.log(
            f"{reasons[TOO_LONG]} {of} questions do not fit the model's window even without their middle: they count as"
            f" not answered; {settings.max_tokens} tokens of it are kept for an answer"
        )
    tell_unfinished(stage, rows, "evaluate.max_new_tokens or max_tokens in the endpoint's file")
