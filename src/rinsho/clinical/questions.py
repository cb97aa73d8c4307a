"""What is asked of a model about a clinical text: the questions it was tuned on, and those of one's own tasks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from rinsho.chat_template import has_chat
from rinsho.errors import UserError
from rinsho.tasks import AnswerForm, Item, document_key
from rinsho.tasks.asking import Asking, PromptForm
from rinsho.tasks.own import read_task, read_tests
from rinsho.tasks.prompts import CHOICE, ENTITIES, Wording

if TYPE_CHECKING:
    from rinsho.generate.opening import Opened

SIGNS = "患者に実際に認められた病変や症状の存在を示す異常などの所見を表す表現は？"
ANY_CLASS = "以下の文章に最もよく当てはまるものは？"
MAX_OPTIONS = 26  # letters A to Z
MIN_TEXT_TOKENS = 32  # less of a text than this says nothing about it
COMMAS = frozenset(",、，")


@dataclass(frozen=True)
class Question:
    """A question that can be put to any text.

    Attributes:
        name: kind of the entities, or name of the task.
        task: the benchmark task whose words these are; the same as `name` for a task of one's own.
        before, after: what stands around the text.
        wording: system turn and the like.
        options: of a classification.
    """

    name: str
    task: str
    before: str
    after: str
    wording: Wording
    options: tuple[str, ...] = ()

    def item(self, text: str, gold: Sequence[str] = ()) -> Item:
        """The question about this text, as tuning and evaluation have it; `gold` where the answer is known."""
        return Item(
            id=self.name, task=self.task, kind="choice" if self.options else "entities", tag="", wording=self.wording,
            question=f"{self.before}{text}{self.after}", options=self.options, gold=tuple(gold), passage=text,
            document=document_key(text),
        )  # fmt: skip


def _entities(name: str, task: str, question: str) -> Question:
    return Question(name, task, f"{question}\n「", "」", ENTITIES)


# Kinds that a model finds, in the words of JMED-LLM's questions about case reports and nursing records (N3-2).
QUESTIONS = {
    question.name: question
    for question in (
        _entities("disease", "mrner_disease", f"以下の症例報告において、{SIGNS}"),
        _entities("medicine", "mrner_medicine", "以下の症例報告において、薬品名は？"),
        _entities("finding", "nrner", f"以下の看護記録において、{SIGNS}"),
    )
}


def any_class(options: Sequence[str], question: str | None = None) -> Question:
    """The question which of the options a text belongs to.

    Raises:
        UserError: fewer than 2 or more than 26 options, an empty one, or two that are the same.
    """
    found = tuple(option.strip() for option in options)
    if not 2 <= len(found) <= MAX_OPTIONS:
        todo = "separate them by spaces" if len(found) == 1 and COMMAS & set(found[0]) else None
        raise UserError(f"{len(found)} options", where="options", expected=f"2 to {MAX_OPTIONS}", todo=todo)
    if len({" ".join(option.split()) for option in found} - {""}) < len(found):
        raise UserError("one is empty, or two are the same", where="options", expected="different texts")
    return Question("class", "class", f"{question or ANY_CLASS}\n「", "」", CHOICE, found)


def own_question(path: Path, kind: Literal["entities", "classification"]) -> Question:
    """The question of a task of one's own (docs/tasks.md), to be put to other texts than those of its tables.

    Raises:
        UserError: no task, one of another kind, or one whose question is not the same in every row.
    """
    task = read_task(path)
    if task.kind != kind:
        raise UserError(
            f"a task of kind {task.kind}", where=path, expected=f"kind: {kind}",
            todo="rinsho extract takes entities, rinsho classify a classification",
        )  # fmt: skip
    items = read_tests(path)
    around = set.intersection(*map(_around, items))
    if not around:
        raise UserError(
            "the question is not the same in every row, so that it cannot be put to other texts", where=path,
            expected="the same words around each passage", todo="write them into prompt, and name the text as question",
        )  # fmt: skip
    if len(around) > 1:
        raise UserError(
            "the passage of every row stands in its question more than once, so that its place is not known",
            where=path, expected="a row whose passage stands there once",
        )  # fmt: skip
    before, after = around.pop()
    return Question(task.name, task.name, before, after, items[0].wording, items[0].options)


def _around(item: Item) -> set[tuple[str, str]]:
    """What stands around the passage in its question: for each place where the passage's words stand there."""
    question, passage = item.question, item.passage.strip()
    places = [place for place in range(len(question)) if passage and question.startswith(passage, place)]
    return {(question[:place], question[place + len(passage) :]) for place in places}


def asking_of(opened: Opened, max_new_tokens: int) -> Asking:
    """How questions are put to this model: in the form in which it was tuned.

    Raises:
        UserError: a base model, or its `rinsho.json` names a form that does not exist.

    Source: N3-2, SPEC "neither 1".
    """
    if not has_chat(opened.tokenizer):
        raise base_model(opened.where)
    about = _tuning(opened)
    form, prompt_form = about.get("answer_form") or "letter", about.get("prompt_form") or "benchmark"
    if form not in get_args(AnswerForm) or prompt_form not in get_args(PromptForm):
        raise UserError(
            "unknown answer_form or prompt_form", where=opened.where,
            expected="a rinsho.json of this version of rinsho", todo="make the model folder again",
        )  # fmt: skip
    return Asking(opened, form, max_new_tokens, prompt_form=prompt_form)  # type: ignore[arg-type]


def base_model(where: Path, otherwise: str = "") -> UserError:
    """The error for a base model that is to answer; `otherwise`: what else can be done."""
    return UserError(
        "this is a base model, which continues texts and answers no questions", where=where,
        expected="an instruct model", todo=f"finetune it first: rinsho finetune MODEL DATA --out FOLDER{otherwise}",
    )  # fmt: skip


def check_room(asking: Asking, question: Question, todo: str) -> None:
    """Nothing, where the window has room for this question, its answer and some of a text.

    Raises:
        UserError: it has not; `todo` is what helps.
    """
    item = question.item("", gold=("A",) if question.options else ())
    answer = max(map(len, asking.options(item))) if question.options else 0
    room = asking.model.window - answer if question.options else asking.prompt_room(item)
    left = max(0, room - len(asking.prompt(item)))
    if left < MIN_TEXT_TOKENS:
        what = "question and options fill" if question.options else "the question alone fills"
        raise UserError(
            f"{what} the model's window of {asking.model.window:,} tokens: {left} are left for a text",
            where="options" if question.options else "window", expected=f"at least {MIN_TEXT_TOKENS}", todo=todo,
        )  # fmt: skip


def untuned(opened: Opened, question: Question) -> str | None:
    """A sentence about a question that the model's folder names no tuning on; None where it does."""
    if question.task in (tuned_tasks(opened) or ()):
        return None
    return "the model's folder names no tuning on this question; its probabilities may say little"


def tuned_tasks(opened: Opened) -> tuple[str, ...] | None:
    """The benchmark tasks that the model was tuned on; None where its folder does not say."""
    about = _tuning(opened)
    return tuple(map(str, about.get("tasks") or ())) if about else None


def _tuning(opened: Opened) -> dict[str, Any]:
    about = opened.manifest.get("finetune")
    return about if isinstance(about, dict) else {}
