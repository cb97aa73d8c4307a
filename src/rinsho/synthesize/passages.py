"""Passages of given documents (guidelines, package inserts), and the exercises of reading that are asked about them.

The exercise carries its passage in the question, so that it can be answered from it: what a model learns is to read.

Source: SPEC M-7's neighbour in the report, reading comprehension: Cheng et al. 2024 (AdaptLLM).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from heapq import heappush, heappushpop
from pathlib import Path
from typing import TYPE_CHECKING

from rinsho.document import Document, printable_name, read_documents, shard_paths
from rinsho.packing import number_of
from rinsho.synthesize.calls import Call
from rinsho.synthesize.exercises import Exercise
from rinsho.synthesize.plan import call_seed, teachers_of, times_written
from rinsho.synthesize.prompts import Prompts
from rinsho.text import clean, sentences

if TYPE_CHECKING:
    from rinsho.synthesize import Recipe

__all__ = ["Passage", "count", "passages", "reading_calls", "with_passage"]

PASSAGE = "passage"  # where a call's `about` has the passage itself
MIN_CHARS = 100  # a shorter passage has too little to ask about
HEADING_CHARS = 40
LICENSE_FIELDS = ("license", "licence", "rights")
LICENSE_CHARS = 200

_JAPANESE = re.compile("[ぁ-ゖァ-ヺ一-鿿]")
_SENTENCE = re.compile(r"[。！？!?.．)」』、,]\Z")
_BRACKETED = re.compile(r"[(【〔\[][^)】〕\]]*[)】〕\]]\Z")


@dataclass(frozen=True, slots=True)
class Passage:
    """Some sentences of a document.

    Attributes:
        id: 16 hex digits of the text alone: equal passages are one, and stay the same when documents are added.
        text: clean, at most `chars` characters.
        document: the document's id.
        number: its place among the document's passages, from 0.
        license: the document's licence note; may be empty.
    """

    id: str
    text: str
    document: str
    number: int
    license: str = ""


def passages(document: Document, chars: int) -> list[Passage]:
    """The passages of a document: of at most `chars` characters and about equal length, each ends with a sentence.

    Texts are cleaned first, which takes personal contact data out. A heading stays with what follows it. A "sentence"
    longer than a passage is no prose and is left out, as is what is shorter than 100 characters
    (or half a passage).

    >>> text = "本剤は食後に服用する。飲み忘れたときは気づいた時点で服用する。" * 5
    >>> [len(passage.text) for passage in passages(Document(text, "insert"), 100)]
    [93, 62]
    """
    lines = [[part for part in sentences(line) if len(part) <= chars] for line in clean(document.text).split("\n")]
    parts = [(part, place == 0) for line in lines for place, part in enumerate(line)]  # (text, begins a line)
    total = sum(len(part) + begins for part, begins in parts)
    if not total:
        return []
    license_note = next((value for name in LICENSE_FIELDS if isinstance(value := document.meta.get(name), str)), "")
    texts = [_joined(group) for group in _groups(parts, total / -(-total // chars), chars)]
    texts = [text for text in texts if len(text) >= min(MIN_CHARS, chars // 2) and _JAPANESE.search(text)]
    name, note = printable_name(document.id), license_note.strip()[:LICENSE_CHARS]
    return [Passage(_id(text), text, name, number, note) for number, text in enumerate(texts)]


def reading_calls(recipe: Recipe, documents: Sequence[Path], prompts: Prompts) -> Iterator[Call]:
    """The calls for exercises of reading, passage by passage, sample by sample, in the order of the documents.

    `about` names the document, its licence and, as `passage`, the passage itself for `with_passage`; it belongs in
    no row of the product, as the question has it.

    Raises:
        UserError: a file that cannot be read.
    """
    template = prompts.of("reading")
    for passage in _chosen(recipe, documents):
        about = {"document": passage.document, "document_part": str(passage.number), PASSAGE: passage.text}
        about |= {"license": passage.license} if passage.license else {}
        for sample in range(recipe.reading_samples):
            drawn = template.choices("", f"{recipe.seed}/reading/{passage.id}", sample)
            messages = template.messages(text=passage.text, document=passage.document, **drawn)
            for teacher in teachers_of(recipe, "reading", f"{passage.id}/{sample}"):
                seed = call_seed(recipe.seed, f"reading/{passage.id}/{teacher}/{sample}")
                yield Call("reading", passage.id, teacher, sample, messages, template.hash, seed, about)


def count(recipe: Recipe, documents: Sequence[Path]) -> int:
    """How many calls `reading_calls` makes: reads the documents once."""
    number = sum(1 for _ in _different(recipe, documents))
    number = number if recipe.max_passages is None else min(number, recipe.max_passages)
    return number * recipe.reading_samples * times_written(recipe, "reading")


def with_passage(exercise: Exercise, passage: str) -> Exercise:
    r"""The exercise with the passage before its question, so that it can be answered from it.

    >>> exercise = Exercise("いつ服用するか。", {"a": "食後", "b": "食前"}, ("a",), "…")
    >>> with_passage(exercise, "本剤は食後に服用する。").question
    '次の文章を読み、問いに答えよ。\n\n本剤は食後に服用する。\n\n問い: いつ服用するか。'
    """
    return replace(exercise, question=f"次の文章を読み、問いに答えよ。\n\n{passage}\n\n問い: {exercise.question}")


# ---------------------------------------------------------------------- which passages


def _different(recipe: Recipe, documents: Sequence[Path]) -> Iterator[Passage]:
    """The passages of all documents, equal ones once; of a broken record only the file knows."""
    seen: set[int] = set()
    for path in shard_paths(documents):
        for document in read_documents(path, on_broken=lambda _: None):
            for passage in passages(document, recipe.passage_chars):
                key = int(passage.id, 16)
                if key not in seen:
                    seen.add(key)
                    yield passage


def _chosen(recipe: Recipe, documents: Sequence[Path]) -> Iterator[Passage]:
    """The passages, or the sample of `max_passages` that the seed draws, in the order of the documents."""
    if recipe.max_passages is None:
        yield from _different(recipe, documents)
        return
    heap: list[tuple[int, str]] = []
    for passage in _different(recipe, documents):
        entry = (-number_of(f"{recipe.seed}/passage/{passage.id}"), passage.id)
        if len(heap) < recipe.max_passages:
            heappush(heap, entry)
        else:
            heappushpop(heap, entry)
    wanted = {name for _, name in heap}
    yield from (passage for passage in _different(recipe, documents) if passage.id in wanted)


# ---------------------------------------------------------------------- how a document is cut


def _groups(parts: Sequence[tuple[str, bool]], wanted: float, chars: int) -> Iterator[list[tuple[str, bool]]]:
    """Parts in groups of about `wanted` characters and never more than `chars`; headings go with what follows."""
    group: list[tuple[str, bool]] = []
    size = 0
    for number, (part, begins) in enumerate(parts):
        length = len(part) + begins
        if group and size + length > chars:
            group, kept = _without_headings(group)
            yield group
            size = sum(len(text) + first for text, first in kept)
            group, size = (kept, size) if size + length <= chars else ([], 0)
        group.append((part, begins))
        size += length
        if size >= wanted and not _heading(parts[number]):
            yield group
            group, size = [], 0
    if group:
        yield group


def _without_headings(group: list[tuple[str, bool]]) -> tuple[list[tuple[str, bool]], list[tuple[str, bool]]]:
    """The group, and the headings at its end."""
    end = len(group)
    while end > 1 and _heading(group[end - 1]):
        end -= 1
    return group[:end], group[end:]


def _heading(part: tuple[str, bool]) -> bool:
    text, begins = part
    return begins and len(text) <= HEADING_CHARS and (bool(_BRACKETED.match(text)) or not _SENTENCE.search(text))


def _joined(group: Sequence[tuple[str, bool]]) -> str:
    return "".join(("\n" if begins and place else "") + part for place, (part, begins) in enumerate(group))


def _id(text: str) -> str:
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
