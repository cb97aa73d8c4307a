"""Instructions grown from seed tasks, round by round, as Self-Instruct and Alpaca did it.

A request shows a teacher some seed tasks and some of the instructions accepted so far, and asks for new ones. What
comes back is accepted when it is an instruction with an answer, can be done in text alone, is near to nothing known
(ROUGE-L, see `novelty`) and passes the looks of `trust`. Everything follows from recipe, seeds and answers.

Source: SPEC M-7; Wang et al. 2022 (Self-Instruct, arXiv 2212.10560); Taori et al. 2023 (Alpaca).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rinsho.client import Answer
from rinsho.document import read_rows
from rinsho.errors import UserError
from rinsho.overlap.codes import mix64
from rinsho.packing import number_of
from rinsho.synthesize.calls import Call
from rinsho.synthesize.judging import PROMPT_TOO_LONG, TOO_LONG
from rinsho.synthesize.novelty import Novelty
from rinsho.synthesize.plan import call_seed, teachers_of, times_written
from rinsho.synthesize.prompts import Prompts
from rinsho.synthesize.task_form import Task, as_examples, parse_tasks
from rinsho.synthesize.trust import Limits, problem, tidy

if TYPE_CHECKING:
    from rinsho.synthesize import Recipe

__all__ = ["Grown", "Growth", "Refused", "as_row", "read_seed_tasks", "wanted_requests"]

BUILT_IN = Path(__file__).parent / "seed_tasks.jsonl"
SEED_FORM = '{"instruction": …, "input": … (may be empty), "output": …} a line'
MIN_CHARS, MAX_CHARS = 6, 400  # of an instruction
MAX_SHOWN_CHARS = 1000  # longer accepted tasks are not shown in prompts: they would fill them
TASK_JAPANESE = 1 / 3  # of the share of Japanese that other texts must have: a translation has less
POOR = 0.05  # a round that gives a smaller share of what it asked for gives nearly nothing;
POOR_ROUNDS = 2  # so many of them, one after the other, end the growth

REASONS = {
    "no_task": "nothing in the answer has the form of a task",
    "no_instruction": "an answer without an instruction",
    "no_output": "an instruction without an answer",
    "unclear": "the answer may hold what was taken for the next task",
    "cut_off": "the last task of an answer that used up its room",
    "short_instruction": f"fewer than {MIN_CHARS} characters",
    "long_instruction": f"more than {MAX_CHARS} characters",
    "not_japanese": "an instruction that is not Japanese",
    "needs_more_than_text": "about a picture, a sound, a file, a link or a search",
    "same_as_input": "the answer is the instruction or its input again",
    "similar": "too near to a known instruction",
}  # and those of `trust.REASONS`

_KANA = re.compile("[ぁ-ゖァ-ヺ]")
_SHOWN = (
    r"(?:画像|写真|図面?|図表|グラフ|イラスト|動画|映像|音声|録音|ファイル|PDF|スライド|リンク|URL|心電図|X線像|波形)"
)
_MORE_THAN_TEXT = re.compile(
    r"(?:https?://|www\.)"
    rf"|添付(?:の|した|された|し(?:て|た)){_SHOWN}?"
    rf"|(?:次|以下|上|下|下記|上記|この|提示した|示した)の?{_SHOWN}(?:を|から|に写|に示|を見)"
    rf"|(?:画像|写真|図|グラフ|イラスト|動画|スライド)を(?:描|作成|生成|見て|撮|編集|示し)"
    r"|(?:ファイル|リンク|URL|ウェブサイト|ホームページ)(?:を|に)(?:開|読み込|アクセス|ダウンロード|参照|保存|送)"
    r"|(?:音声|録音|動画)を(?:聞|聴|再生|文字起こし|書き起こ)"
    r"|(?:インターネット|ウェブ|ネット|Web|Google)(?:で|を使って|上で)?(?:検索|調べ)",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Grown:
    """An accepted instruction; `call` (without messages) and `answer` (without text) say where it comes from."""

    id: str  # the call's id and the place in its answer, from 0
    task: Task
    call: Call
    answer: Answer


@dataclass(frozen=True, slots=True)
class Refused:
    """A task, or a whole answer, that is not used: a reason of `REASONS` or of `trust.REASONS`, and what was measured.

    Of a similar one the value is the similarity and the name of the known one.
    """

    id: str
    reason: str
    text: str
    value: float | str
    call: Call
    answer: Answer


class Growth:
    """The rounds of a run: `next_calls`, ask them, `take` the replies, until `done`.

    A prompt's examples are drawn by hashes of what is drawn for and of what is drawn, so a task that is accepted or not
    changes only the prompts that show it: answers that were paid for stay of use.

    Attributes:
        seeds: the seed tasks.
        accepted: new instructions, in the order in which they came.
        refused: what was not used.
        ended: why it is done: `enough`, or `exhausted` (rounds in a row that gave nearly nothing); empty before.
        rounds: how many were taken.

    Raises:
        UserError: the seed tasks cannot be read.
    """

    def __init__(self, recipe: Recipe, prompts: Prompts) -> None:
        self.recipe, self.prompts = recipe, prompts
        self.seeds = read_seed_tasks(recipe.seed_tasks)
        self.accepted: list[Grown] = []
        self.refused: list[Refused] = []
        self.ended = ""
        self.rounds = 0
        self._poor_rounds = self._requests = 0
        japanese = recipe.min_japanese_fraction * TASK_JAPANESE
        self._limits = Limits(0, recipe.max_repeated_fraction, japanese, may_not_know=True)
        self._known = Novelty(recipe.max_instruction_similarity)
        for number, seed in enumerate(self.seeds):
            self._known.add(f"seed {number + 1}", seed.instruction)
        self._seed_keys = _keys([f"seed/{seed.instruction}" for seed in self.seeds])
        self._shown: list[Task] = []  # accepted ones that may be shown
        self._shown_keys: list[int] = []
        self._asked: dict[str, Call] = {}

    @property
    def done(self) -> bool:
        """Whether there is nothing more to ask."""
        return bool(self.ended)

    def next_calls(self) -> list[Call]:
        """The calls of the next round, in order; the same ones until `take`. None when it is done."""
        if self.done:
            return []
        shown = np.array(self._shown_keys, np.uint64)
        self._asked = {call.id: call for number in range(self._size()) for call in self._calls(number, shown)}
        return list(self._asked.values())

    def take(self, replies: Sequence[tuple[Call, Answer]]) -> None:
        """Judges the replies to `next_calls`, in their order; one with an error gives nothing.

        Raises:
            ValueError: these are not the replies to the calls of this round.
        """
        if [call.id for call, _ in replies] != list(self._asked):
            raise ValueError("replies to other calls than those of this round")
        before, asked = len(self.accepted), 0
        for call, answer in replies:
            if not answer.error:
                asked += self.recipe.instructions_per_request
                self._take(replace(call, messages=()), answer)
        new = len(self.accepted) - before
        self._requests += len({call.sample for call, _ in replies})
        self._poor_rounds = self._poor_rounds + 1 if new < POOR * asked or not asked else 0
        self.rounds += 1
        if len(self.accepted) >= self.recipe.instructions:
            self.ended = "enough"
        elif self._poor_rounds == POOR_ROUNDS:
            self.ended = "exhausted"
        self._asked = {}

    # ------------------------------------------------------------------ asking

    def _size(self) -> int:
        """Requests of the next round: no more than what is missing takes, at the rate so far."""
        missing = self.recipe.instructions - len(self.accepted)
        rate = len(self.accepted) / self._requests if self.accepted else self.recipe.instructions_per_request
        return min(self.recipe.round_requests, math.ceil(missing / rate))

    def _calls(self, number: int, shown: np.ndarray) -> Iterator[Call]:
        subject = f"round-{self.rounds:04d}"
        examples = as_examples(self._examples(f"{self.recipe.seed}/{subject}/{number}", shown))
        messages, template = self.prompts.messages(
            "instructions", examples=examples, count=str(self.recipe.instructions_per_request)
        )
        for teacher in teachers_of(self.recipe, "instructions", f"{subject}/{number}"):
            seed = call_seed(self.recipe.seed, f"instructions/{subject}/{teacher}/{number}")
            yield Call("instructions", subject, teacher, number, messages, template, seed, {})

    def _examples(self, key: str, shown: np.ndarray) -> list[Task]:
        """Seeds and accepted tasks drawn by the key, mixed; seeds stand in for accepted ones that are not there yet."""
        grown = min(self.recipe.grown_examples, len(self._shown))
        seeds = self.recipe.instructions_examples + self.recipe.grown_examples - grown
        drawn = [(score, self.seeds[place]) for score, place in _drawn(self._seed_keys, key, seeds)]
        drawn += [(score, self._shown[place]) for score, place in _drawn(shown, key, grown)]
        return [task for _, task in sorted(drawn, key=lambda row: row[0])]

    # ------------------------------------------------------------------ judging

    def _take(self, call: Call, answer: Answer) -> None:
        about = replace(answer, text="")
        if answer.finish_reason == TOO_LONG:  # the examples do not fit this teacher's window
            self.refused.append(Refused(f"{call.id}/0", PROMPT_TOO_LONG, "", "", call, about))
            return
        text = tidy(answer.text)
        items = parse_tasks(text)
        for number, item in enumerate(items):
            name = f"{call.id}/{number}"
            cut = answer.finish_reason == "length" and number == len(items) - 1
            if cut:
                found: tuple[str, float | str] | None = ("cut_off", "length")
            elif isinstance(item, Task):
                found = self._problem(item)
            else:
                whole = problem(text, answer.finish_reason, self._limits) if item.reason == "no_task" else None
                found = whole or (item.reason, "")
            if found is None:
                assert isinstance(item, Task)
                self._accept(Grown(name, item, call, about))
            else:
                said = "\n".join(as_row(item).values()) if isinstance(item, Task) else item.text
                self.refused.append(Refused(name, found[0], said, found[1], call, about))

    def _problem(self, task: Task) -> tuple[str, float | str] | None:
        """Why a task is not used, cheap looks first."""
        instruction, whole = task.instruction, "\n".join(part for part in as_row(task).values() if part)
        if not MIN_CHARS <= len(instruction) <= MAX_CHARS:
            return "short_instruction" if len(instruction) < MIN_CHARS else "long_instruction", len(instruction)
        if not _KANA.search(instruction):
            return "not_japanese", "instruction"
        if _MORE_THAN_TEXT.search(f"{instruction}\n{task.input}"):
            return "needs_more_than_text", ""
        if task.output in (task.instruction, task.input):
            return "same_as_input", ""
        for text in (task.output, whole):
            found = problem(text, "stop", self._limits)
            if found and found[0] not in (("cut_off", "not_japanese") if text == task.output else ("cut_off",)):
                return found  # an answer may be English or a number, and ends before the next label
        near = self._known.near(instruction)
        return ("similar", f"{near[0]:.3f} {near[1]}") if near else None

    def _accept(self, grown: Grown) -> None:
        self.accepted.append(grown)
        self._known.add(grown.id, grown.task.instruction)
        if sum(map(len, as_row(grown.task).values())) <= MAX_SHOWN_CHARS:
            self._shown.append(grown.task)
            self._shown_keys.append(number_of(grown.id))


def as_row(task: Task) -> dict[str, str]:
    """The task in Alpaca's form, as `rinsho.instructions` reads it."""
    return {"instruction": task.instruction, "input": task.input, "output": task.output}


def wanted_requests(recipe: Recipe) -> int:
    """Requests that the wanted instructions take when every new one is accepted; it will be more."""
    teachers = times_written(recipe, "instructions")
    return math.ceil(recipe.instructions / recipe.instructions_per_request / teachers) * teachers


def read_seed_tasks(path: str = "") -> list[Task]:
    """The seed tasks of a file of JSON lines; empty: those that come with rinsho, invented for Japanese medicine.

    Self-Instruct's own form, with `instances` instead of input and output, is read too: its first instance counts.

    Raises:
        UserError: the file is missing or holds no tasks, or a line is not such an object (file and line).

    Source: SPEC M-7.
    """
    file = Path(path) if path else BUILT_IN
    if not file.is_file():
        raise UserError("not there", where=file, expected="JSON lines", todo="check synthesize.seed_tasks")

    def broken(where: str, reason: str) -> None:
        raise UserError(f"broken line ({reason})", where=where, expected=SEED_FORM)

    found = [_seed(row, f"{file}:{number}") for number, row in read_rows(file, broken)]
    if not found:
        raise UserError("no seed task in here", where=file, expected=SEED_FORM)
    return found


def _seed(row: Any, where: str) -> Task:
    fields = dict(row) if isinstance(row, dict) else {}
    instances = fields.get("instances")
    if isinstance(instances, list) and instances and isinstance(instances[0], dict):
        fields |= instances[0]
    texts = [fields.get(name, "") for name in ("instruction", "input", "output")]
    if not all(isinstance(text, str) for text in texts) or not texts[0].strip() or not texts[2].strip():
        raise UserError("no seed task", where=where, expected=SEED_FORM)
    return Task(*(text.strip() for text in texts))


def _keys(names: Sequence[str]) -> np.ndarray:
    return np.array([number_of(name) for name in names], np.uint64)


def _drawn(keys: np.ndarray, key: str, count: int) -> list[tuple[int, int]]:
    """(score, place) of the `count` lowest scores, each drawn from the key and one of `keys` alone."""
    scores = mix64(keys ^ mix64(_keys([key])))
    count = min(count, len(scores))
    places = np.argpartition(scores, count - 1)[:count] if count else np.zeros(0, np.int64)
    return sorted((int(scores[place]), int(place)) for place in places)
