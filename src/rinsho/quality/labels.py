"""Labels 高 and 低 of documents: read from a file, or asked of a language model and read strictly."""

from __future__ import annotations

import csv
import json
import re
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rinsho.client import Answer, Client, Request, conversation
from rinsho.errors import UserError
from rinsho.quality.sample import Sampled
from rinsho.run import Stage

if TYPE_CHECKING:
    from rinsho.quality import Recipe

HIGH, LOW = "高", "低"
_SPELLINGS = {"高": HIGH, "低": LOW, "high": HIGH, "low": LOW}
_AROUND = " \t\r\n\u3000'\"‘’“”「」『』【】()（）[]*`。．."  # the prompt itself puts the two words into quotes
_REFUSED = re.compile(r"申し訳|お答えでき|回答でき|判断でき|できません|[Ss]orry|[Cc]annot|[Cc]an't|[Uu]nable")
_JAPANESE = re.compile(r"[ぁ-ヿ㐀-鿿]")


@dataclass
class Labels:
    """What became of the documents that were to be labelled."""

    given: dict[int, str] = field(default_factory=dict)  # place in the list of documents -> 高 or 低
    failed: Counter[str] = field(default_factory=Counter)  # kind -> answers that are no label
    requests: int = 0
    cached: int = 0
    attempts: int = 0
    retries: int = 0
    prompt_tokens: int = 0  # of all answers, those from the cache too
    completion_tokens: int = 0
    fresh_seconds: float = 0.0  # from the first to the last fresh answer
    answer_seconds: float = 0.0  # sum over all answers

    @property
    def low(self) -> int:
        """How many were labelled 低."""
        return sum(label == LOW for label in self.given.values())

    @property
    def lost(self) -> int:
        """Requests that were given up; the others were answered, if not with a label."""
        return sum(count for kind, count in self.failed.items() if kind.startswith("request_"))

    @property
    def answered(self) -> int:
        """Requests that came back with an answer."""
        return self.requests - self.lost

    def requests_per_second(self, at_once: int) -> float | None:
        """The measured rate; from the answers' own times when most came from the cache. None without answers."""
        fresh = self.requests - self.cached
        if fresh >= self.cached and self.fresh_seconds > 0:
            return fresh / self.fresh_seconds
        return at_once * self.answered / self.answer_seconds if self.answer_seconds > 0 else None


def parse(text: str, finish_reason: str = "") -> str:
    """高 or 低, or why an answer is neither: `empty`, `refused`, `cut_off`, `not_japanese`, `other`.

    >>> parse("「高」"), parse("低。"), parse("高いと思います。"), parse("High"), parse("申し訳ありません。")
    ('高', '低', 'other', 'not_japanese', 'refused')
    """
    bare = text.strip(_AROUND)
    if bare in (HIGH, LOW):
        return bare
    if finish_reason in ("content_filter", "refusal") or _REFUSED.search(text):
        return "refused"
    if not bare:
        return "cut_off" if finish_reason == "length" else "empty"
    if not _JAPANESE.search(text):
        return "not_japanese"
    return "cut_off" if finish_reason == "length" else "other"


def ask(recipe: Recipe, documents: Sequence[Sampled], answers: Path, stage: Stage) -> Labels:
    """The labels of the documents from the endpoint. Answers that are already there cost nothing.

    Raises:
        UserError: the endpoint refuses, or more requests failed for good than `max_failed_fraction` allows.
    """
    prompt, labels = read_prompt(recipe.prompt), Labels()

    def requests() -> Iterator[Request]:
        for place, document in enumerate(documents):
            yield Request(str(place), _messages(prompt, document.text[: recipe.max_prompt_chars]))

    started, last = time.monotonic(), 0.0
    with (
        Client(recipe.endpoint, answers) as client,
        stage.progress("labels", len(documents), "documents") as progress,
    ):
        for place, answer in enumerate(client.ask(requests())):
            _take(labels, place, answer)
            if not answer.cached:
                last = time.monotonic() - started
            progress.update(low=labels.low, failed=sum(labels.failed.values()), retries=client.counts.retries)
        labels.attempts, labels.retries = client.counts.attempts, client.counts.retries
        labels.fresh_seconds = last
        problems = ", ".join(f"{kind} {count}" for kind, count in client.counts.problems.most_common())
    if labels.lost > recipe.max_failed_fraction * len(documents):
        raise UserError(
            f"{labels.lost} of {len(documents)} label requests failed ({problems})",
            where="quality.max_failed_fraction",
            expected=f"at most {recipe.max_failed_fraction:.1%}",
            todo="run the same command again: only what was not answered is asked",
        )
    return labels


def from_file(labels_of: dict[str, str], documents: Sequence[Sampled]) -> Labels:
    """The labels of a file for the documents that were found; the others count as `not_in_corpus`."""
    labels = Labels({place: labels_of[document.id] for place, document in enumerate(documents)})
    missing = len(labels_of.keys() - {document.id for document in documents})
    if missing:
        labels.failed["not_in_corpus"] = missing
    return labels


def read_label_file(path: Path) -> dict[str, str]:
    """Id -> 高 or 低 from a CSV file with the columns id and label, or JSON lines with these fields.

    Raises:
        UserError: not there, another label, or two labels for one id; with the line.
    """
    if not path.is_file():
        raise UserError("not there", where=path, expected="a label file (.csv or .jsonl)", todo="check quality.labels")
    labels: dict[str, str] = {}
    for line, row in _rows(path):
        where = f"{path}:{line}"
        name, label = str(row.get("id") or ""), _SPELLINGS.get(str(row.get("label") or "").strip().lower())
        if not name or label is None:
            raise UserError("no id, or no label that is known", where=where, expected="id, and label 高 or 低")
        if labels.setdefault(name, label) != label:
            raise UserError("a second, different label for the same id", where=where, expected="one label a document")
    if not labels:
        raise UserError("no labels in here", where=path, expected="lines with id and label")
    return labels


def read_prompt(path: str) -> str:
    """The labeller's prompt: the file's, or the report's own.

    Raises:
        UserError: the file is not there, is empty or is not UTF-8.
    """
    try:
        source = Path(path) if path else resources.files("rinsho.quality").joinpath("prompt.txt")
        prompt = source.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        prompt = ""
    if not prompt:
        raise UserError("no prompt in here", where=path, expected="a text file in UTF-8", todo="check quality.prompt")
    return prompt


def _messages(prompt: str, text: str) -> Any:
    if "{text}" in prompt:
        return conversation(prompt.replace("{text}", text))
    return conversation(text, system=prompt)


def _take(labels: Labels, place: int, answer: Answer) -> None:
    labels.requests += 1
    labels.cached += answer.cached
    labels.prompt_tokens += answer.prompt_tokens
    labels.completion_tokens += answer.completion_tokens
    labels.answer_seconds += answer.seconds
    found = f"request_{answer.error}" if answer.error else parse(answer.text, answer.finish_reason)
    if found in (HIGH, LOW):
        labels.given[place] = found
    else:
        labels.failed[found] += 1


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            if path.suffix == ".csv":
                for row in (reader := csv.DictReader(file)):
                    yield reader.line_num, row
                return
            for number, line in enumerate(file, 1):
                if line.strip():
                    row = json.loads(line)
                    yield number, row if isinstance(row, dict) else {}
    except (UnicodeDecodeError, ValueError, csv.Error):
        raise UserError("cannot be read", where=path, expected="CSV or JSON lines in UTF-8") from None
