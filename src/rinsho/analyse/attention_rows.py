"""Rows of documents to look at attention with: each document with its begin and end mark, one after another.

Unlike rows of pre-training with document bounds, which only predict end marks (`rinsho.tokens`), these hold them: the
same ids are read with and without bounds, and the marks are what is ticked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from rinsho.document import Broken, Document, printable_name, read_documents, shard_paths, training_folder
from rinsho.errors import UserError
from rinsho.packing import Ints, number_of, permutation
from rinsho.token_files import is_encoded

SHARDS, SHARD_DOCUMENTS = 8, 500  # of a corpus that are drawn from at one time: enough for rows of several sources
DOCUMENT_CHARS = 40_000  # of a document that are kept while drawing
TOKEN_CHARS = 8  # more than a token has on average: longer documents need not be encoded to be known as long


@dataclass(frozen=True)
class Row:
    """Documents side by side.

    Attributes:
        ids: (T,) tokens; the row begins with a document, its last one may be cut.
        starts: (documents,) place of each document's first token.
        ends: (documents or one fewer,) place of each end mark.
        names: (documents,) their ids.
    """

    ids: Ints
    starts: Ints
    ends: Ints
    names: tuple[str, ...]

    @cached_property
    def owner(self) -> Ints:
        """(T,) number of the document that each token belongs to, from 0."""
        places = np.searchsorted(self.starts, np.arange(len(self.ids)), side="right")
        return places.astype(np.int64) - 1

    def positions(self, bounded: bool) -> Ints:
        """(T,) position ids: with bounds they restart with every document, which is what tells documents apart."""
        ramp = np.arange(len(self.ids), dtype=np.int64)
        return ramp - self.starts[self.owner] if bounded else ramp


def rows_of(
    documents: Iterable[tuple[str, Sequence[int]]], size: int, rows: int, marks: tuple[int | None, int]
) -> list[Row]:
    """Rows of `size` tokens, at most `rows`; a single shorter one where there are not enough documents for a whole one.

    Args:
        documents: ids of documents and their tokens without marks; no more are taken than are needed.
        size: tokens of a row.
        rows: how many.
        marks: begin mark (None: there is none) and end mark.

    Raises:
        UserError: fewer than two documents in every row.
    """
    begin, end = marks
    lead = [] if begin is None else [begin]
    found: list[Row] = []
    ids: list[int] = []
    starts: list[int] = []
    ends: list[int] = []
    names: list[str] = []
    for name, tokens in documents:
        names.append(name)
        starts.append(len(ids))
        ids += [*lead, *tokens, end]
        ends.append(len(ids) - 1)
        if len(ids) >= size:
            found.append(_row(ids[:size], starts, [place for place in ends if place < size], names))
            ids, starts, ends, names = [], [], [], []
            if len(found) == rows:
                break
    if not found and ids:
        found.append(_row(ids, starts, ends, names))
    if all(len(row.starts) < 2 for row in found):
        raise UserError(
            "too few documents to look at attention across them", where="attention", expected="two or more",
            todo="give a corpus with more documents, or none: invented ones are taken then",
        )  # fmt: skip
    return found


def corpus_documents(corpora: Sequence[Path], seed: int) -> Iterator[Document]:
    """Documents of corpora in an order drawn from the seed, from several shards at a time; broken records are skipped.

    Only the first SHARD_DOCUMENTS of a shard are drawn from, and of each the first DOCUMENT_CHARS: no corpus is read
    whole.

    Raises:
        UserError: a corpus is not there, holds no documents, or is one of token files.
    """
    for corpus in corpora:
        if is_encoded(corpus):
            raise UserError("token files, not texts", where=corpus, expected="the corpus that they were made from")
    shards = shard_paths([training_folder(corpus) for corpus in corpora])
    order = [shards[place] for place in permutation(len(shards), f"{seed}:attention")]
    for first in range(0, len(order), SHARDS):
        some = [document for path in order[first : first + SHARDS] for document in _first_of(path)]
        yield from sorted(some, key=lambda document: number_of(f"{seed}:attention:{printable_name(document.id)}"))


def invented_documents(seed: int) -> Iterator[Document]:
    """The running text of `rinsho samples`, without end."""
    from rinsho.samples.bank import load
    from rinsho.samples.rows import Fresh
    from rinsho.samples.running import documents

    for made in documents(load(), seed, Fresh(), frozenset()):
        if made.counts:
            yield made.document


def encoded(documents: Iterable[Document], tokenizer: Any, room: int) -> Iterator[tuple[str, list[int]]]:
    """The ids and tokens, without marks, of the documents that have at most `room`; after them the longer ones, cut."""
    encode: Callable[[str], list[int]] = getattr(
        tokenizer, "encode_text", lambda text: tokenizer(text, add_special_tokens=False)["input_ids"]
    )
    longer: list[Document] = []
    for document in documents:
        tokens = list(encode(document.text)) if len(document.text) <= TOKEN_CHARS * room else None
        if tokens is None or len(tokens) > room:
            longer.append(document)
        elif tokens:
            yield document.id, tokens
    for document in longer:
        yield document.id, list(encode(document.text[: TOKEN_CHARS * room]))[:room]


def _row(ids: Sequence[int], starts: Sequence[int], ends: Sequence[int], names: Sequence[str]) -> Row:
    return Row(np.array(ids, np.int64), np.array(starts, np.int64), np.array(ends, np.int64), tuple(names))


def _first_of(path: Path) -> list[Document]:
    def skip(_broken: Broken) -> None:
        pass

    some = islice(read_documents(path, on_broken=skip), SHARD_DOCUMENTS)
    return [Document(document.text[:DOCUMENT_CHARS], document.id) for document in some]
