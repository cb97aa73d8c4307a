"""Items and instructions -> conversations as ids -> packed rows, in an order that the seed alone decides."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from rinsho.chat import Message
from rinsho.chat_template import Renderer
from rinsho.errors import UserError
from rinsho.finetune import Recipe
from rinsho.finetune.holding_out import hold_out
from rinsho.finetune.inputs import sort_data
from rinsho.generate.batches import shorten
from rinsho.instructions import Conversation, read_instructions, texts
from rinsho.learned_from import shortened as listed
from rinsho.overlap import key, near_duplicates, normalised
from rinsho.packing import Ints
from rinsho.prompting import read_template
from rinsho.tasks import Item, Splitting, answer_text, documents, passages, read_data, read_train
from rinsho.tasks.asking import turns
from rinsho.tasks.item import list_text
from rinsho.tasks.licenses import licenses_of

Group = tuple[str, str, str]  # task, tag, answer
Learned = tuple[str, str, str | None, int]  # of a row: source, licence, language model that wrote it, tokens

LISTED_SOURCES = 50  # of a tuning in `rinsho.json`
MANY_SHORTENED = 0.1  # of a task's rows: told as a warning
QUOTED_CHARACTERS = 10  # shorter pieces of a conversation name no document
QUOTED = re.compile("「([^「」]+)」")
LABEL = re.compile(r"^\s*(?:S\d|質問|問題)\s*[:：]\s*")
COPY_QUESTION = "次の文章の【】で囲まれた部分をすべて書き写してください。\n「{passage}」"
COPY_SPANS = 3  # marked in one passage, at most
COPY_CHARACTERS = (2, 12)  # length of a marked span
COPY_PASSAGE_CHARACTERS = 200  # longer passages are copied from in pieces


@dataclass(frozen=True)
class Example:
    """One conversation, ready to train on.

    Attributes:
        ids, mask: `(tokens,) int32` and `(tokens,) int8`; the mask is 1 where a token is learned.
        group: rows of one group stand for each other when answers are balanced.
        id: of the row it was made of.
    """

    ids: Ints
    mask: Ints
    group: Group
    id: str = ""


@dataclass(frozen=True)
class Source:
    """What the data folders and files hold: a training part, and what was held out of it."""

    items: list[Item]
    conversations: list[Conversation]
    held: tuple[list[Item], list[Conversation]]
    splits: list[dict[str, Any]]


@dataclass(frozen=True)
class Data:
    """All training examples and where they came from."""

    examples: list[Example]
    documents: list[str]  # hashes of every passage trained on, sorted
    splits: list[dict[str, Any]]
    shortened: int  # conversations whose question lost its middle
    left_out: list[str]  # ids of the conversations that are too long
    texts: list[str]  # passages, for the copying warm-up
    held: tuple[list[Item], list[Conversation]] = ((), ())  # type: ignore[assignment]
    warnings: list[str] = field(default_factory=list)  # beside those of the splits
    sources: list[dict[str, Any]] = field(default_factory=list)  # see `sources_of`


def gather(recipe: Recipe, inputs: Sequence[Path]) -> Source:
    """Items and conversations of the data inputs under the recipe's split, weights of 0 left out.

    Raises:
        UserError: a file is wrong, or holds neither benchmark nor instructions.
    """
    folders, files = sort_data(inputs)
    items: list[Item] = []
    splits: list[dict[str, Any]] = []
    if folders:
        splitting = Splitting(recipe.split, recipe.test_part, recipe.split_seed)
        items, splits = read_train(folders, splitting, recipe.tasks, recipe.igakuqa_years)
    template = read_template(recipe.prompt_template)
    conversations = [row for file in files for row in read_instructions(file, template)]
    items, conversations = _without_test_texts(recipe, folders, items, conversations, splits)
    items = [item for item in items if recipe.task_weights.get(item.task, 1.0) > 0]
    conversations = [row for row in conversations if recipe.task_weights.get(row.source, 1.0) > 0]
    (items, conversations), held = hold_out(
        items, conversations, recipe.validation_fraction, recipe.split_seed, recipe.split
    )
    return Source(items, conversations, held, splits)


def _without_test_texts(
    recipe: Recipe, folders: Sequence[Path], items: list[Item], conversations: list[Conversation],
    splits: Sequence[dict[str, Any]],
) -> tuple[list[Item], list[Conversation]]:  # fmt: skip
    """Examinations and conversations that quote no test passage; those left out are counted in the warnings.

    The splits have compared the pools with the test passages already; without a pool in the data there is no test.
    """
    exams = [item for item in items if item.task == "igakuqa"]
    if not splits or not (exams or conversations):
        return items, conversations
    splitting = Splitting(recipe.split, recipe.test_part, recipe.split_seed)
    tests = [item for item in read_data(folders, "test", splitting) if item.task != "igakuqa"]
    asked = [text for item in tests for text in passages(item) if len(normalised(text)) >= QUOTED_CHARACTERS]
    rows = [("igakuqa", item.id, item.question) for item in exams]
    rows += [(row.source, row.id, text) for row in conversations for text in texts(row)]
    rows = [row for row in rows if len(normalised(row[2])) >= QUOTED_CHARACTERS]
    near = near_duplicates([text for _, _, text in rows], asked)
    gone = {name: source for (source, name, _), place in zip(rows, near, strict=True) if place is not None}
    for source, count in sorted(Counter(gone.values()).items()):
        splits[0]["warnings"].append(f"{source}: {count} rows hold a test passage, or nearly one: left out")
    return [item for item in items if item.id not in gone], [row for row in conversations if row.id not in gone]


def document_keys(text: str) -> set[str]:
    r"""Keys by which the text, a passage that it quotes or a line of it is known again (`rinsho.overlap.key`).

    >>> key("3日前から発熱と咳嗽があり受診。") in document_keys("発熱は？\n「３日前から発熱と咳嗽があり受診。」")
    True
    """
    first, last = text.find("「"), text.rfind("」")
    parts = [text, text[first + 1 : last] if 0 <= first < last else "", *QUOTED.findall(text)]
    parts += [LABEL.sub("", line) for line in text.splitlines()]
    return {key(part) for part in parts if part is text or len(part) >= QUOTED_CHARACTERS}


def read(recipe: Recipe, inputs: Sequence[Path], render: Renderer) -> Data:
    """The training part of the data inputs as conversations.

    Raises:
        UserError: nothing to train on is left, a conversation is too long (`too_long: refuse`), or a file is wrong.
    """
    source = gather(recipe, inputs)
    rows: list[tuple[str, Group, Sequence[Message], str]] = []
    licenses = licenses_of(inputs)
    told: dict[str, tuple[str, str | None]] = {item.id: (licenses.get(item.task, ""), None) for item in source.items}
    told |= {row.id: (row.license, row.writer) for row in source.conversations}
    for item in source.items:
        group = (item.task, item.tag, ",".join(item.gold) if item.kind == "choice" else "")
        rows.append((item.id, group, turns(item, recipe.prompt_form), answer_text(item, recipe.answer_form)))
    for row in source.conversations:
        rows.append((row.id, (row.source, "", ""), row.messages[:-1], row.messages[-1].content))
    examples: list[Example] = []
    shortened, left_out = Counter[str](), []
    for name, group, before, answer in rows:
        ids, mask = render([*before, Message("assistant", answer)])
        fitted, cut = _fit(name, ids, mask, recipe)
        if fitted is None:
            left_out.append(name)
            continue
        shortened[group[0]] += cut
        examples.append(Example(*fitted, group, name))
    if not examples:
        raise UserError(
            "no conversation to train on",
            where=", ".join(map(str, inputs)),
            expected="training rows",
            todo="check tasks, split, task_weights, too_long and sequence_length; IgakuQA is trained on only for the"
            " years in igakuqa_years",
        )
    gone = set(left_out)
    kept = [item for item in source.items if item.id not in gone]
    talks = [row for row in source.conversations if row.id not in gone]
    keys = {name for item in kept for name in (item.document, *documents(item))}
    keys |= {name for row in talks for text in texts(row) for name in document_keys(text)}
    whole = dict.fromkeys([text for item in kept for text in passages(item)] + [t for row in talks for t in texts(row)])
    total = sum(shortened.values())
    warnings = _cut_warnings(Counter(group[0] for _, group, _, _ in rows), shortened, recipe)
    learned = sources_of((example.group[0], *told[example.id], len(example.ids)) for example in examples)
    return Data(examples, sorted(keys), source.splits, total, left_out, list(whole), source.held, warnings, learned)


def sources_of(rows: Iterable[Learned]) -> list[dict[str, Any]]:
    """What rows are from, for `rinsho.json`; see `rinsho.learned_from`."""
    found: dict[str, dict[str, Any]] = {}
    for source, license_, writer, tokens in rows:
        row = found.setdefault(
            source,
            {"source": source, "documents": 0, "tokens": 0, "licenses": {}, "synthetic": {}, "synthetic_tokens": 0},
        )
        row["documents"] += 1
        row["tokens"] += tokens
        row["licenses"][license_] = row["licenses"].get(license_, 0) + 1
        if writer is not None:
            row["synthetic"][writer] = row["synthetic"].get(writer, 0) + 1
            row["synthetic_tokens"] += tokens
    return listed([found[source] for source in sorted(found)], LISTED_SOURCES)


def conversation(
    before: Sequence[Message], answer: str, render: Renderer, sequence_length: int
) -> tuple[list[int], list[int], bool] | None:
    """Ids and loss mask of a question with its answer, and whether the question was shortened to fit.

    None when the answer alone does not fit into a row.
    """
    return _cut(*render([*before, Message("assistant", answer)]), sequence_length)


def _cut(ids: list[int], mask: list[int], sequence_length: int) -> tuple[list[int], list[int], bool] | None:
    """The same of a rendered conversation."""
    size = sequence_length + 1  # a row predicts one token fewer than a conversation has
    if len(ids) <= size:
        return ids, mask, False
    start = mask.index(1)
    room = size - (len(ids) - start)
    if room < 2:
        return None
    question = shorten(ids[:start], room)
    return [*question, *ids[start:]], [0] * len(question) + mask[start:], True


def _cut_warnings(rows: Counter[str], shortened: Counter[str], recipe: Recipe) -> list[str]:
    """Tasks of which many questions lose their middle, which may be what was asked about."""
    return [
        f"{task}: {shortened[task]} of {count} questions lose their middle; finetune.sequence_length is"
        f" {recipe.sequence_length}"
        for task, count in sorted(rows.items())
        if shortened[task] > MANY_SHORTENED * count
    ]


def _fit(name: str, ids: list[int], mask: list[int], recipe: Recipe) -> tuple[tuple[Ints, Ints] | None, bool]:
    """The conversation as arrays, and whether it was shortened; None when the recipe leaves it out."""
    long = len(ids) > recipe.sequence_length + 1
    if long and recipe.too_long == "refuse":
        raise UserError(
            f"a conversation has {len(ids)} tokens", where=name, expected=f"at most {recipe.sequence_length + 1}",
            todo="raise finetune.sequence_length, or take too_long: shorten or leave_out",
        )  # fmt: skip
    found = None if long and recipe.too_long == "leave_out" else _cut(ids, mask, recipe.sequence_length)
    if found is None:
        return None, False
    ids, mask, cut = found
    if recipe.learn == "all":
        mask = [1] * len(ids)
    return (np.array(ids, np.int32), np.array(mask, np.int8)), cut


def copying(texts: Sequence[str], recipe: Recipe, render: Renderer) -> list[Example]:
    """Exercises that ask to copy marked spans of real passages, enough of them for `copy_tokens`.

    Extraction is copying: models that could copy learned it, others did not (docs/decisions.md).
    """
    found: list[Example] = []
    tokens = 0
    for number in range(recipe.copy_tokens):  # each gives tokens, or none when a row is too short for its answer
        if tokens >= recipe.copy_tokens:
            break
        draw = random.Random(f"{recipe.seed}:copy:{number}")
        made = conversation(*_exercise(draw.choice(texts), draw), render, recipe.sequence_length)
        if made is not None:
            ids, mask, _ = made
            found.append(Example(np.array(ids, np.int32), np.array(mask, np.int8), ("copy", "", "")))
            tokens += len(ids)
    return found


def _exercise(text: str, draw: random.Random) -> tuple[list[Message], str]:
    """A passage with marked spans, and those spans as the answer."""
    start = draw.randrange(max(1, len(text) - COPY_PASSAGE_CHARACTERS + 1))
    text = text[start : start + COPY_PASSAGE_CHARACTERS]
    spans: list[tuple[int, int]] = []
    for _ in range(draw.randint(1, COPY_SPANS)):
        length = min(draw.randint(*COPY_CHARACTERS), len(text))
        at = draw.randrange(len(text) - length + 1)
        free = all(at >= end or at + length <= begin for begin, end in spans)
        if length and free and "\n" not in text[at : at + length]:
            spans.append((at, at + length))
    marked, last = "", 0
    for begin, end in sorted(spans):
        marked += f"{text[last:begin]}【{text[begin:end]}】"
        last = end
    passage = marked + text[last:]
    return [Message("user", COPY_QUESTION.format(passage=passage))], list_text(text[a:b] for a, b in sorted(spans))
