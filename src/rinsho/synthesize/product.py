"""The files of a run, all at once and in the order of the calls; each appears whole or not at all."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import zstandard

from rinsho.client import Answer
from rinsho.document import Document
from rinsho.files import atomic_file
from rinsho.synthesize.calls import Call
from rinsho.synthesize.passages import PASSAGE

if TYPE_CHECKING:
    from rinsho.synthesize import Recipe, Teacher

COLUMNS = ("id", "kind", "teacher", "sample", "state", "reason", "prompt_tokens", "completion_tokens", "seconds")
OTHER_MODELS = 20  # names that are counted each by itself
EXAMPLES = 5  # ids of each reason that the report shows
KEPT, SET_ASIDE, FAILED = "kept", "set_aside", "failed"


@dataclass
class Figures:
    """What became of the requests of one kind to one teacher."""

    asked: int = 0
    kept: int = 0
    failed: int = 0
    set_aside: Counter[str] = field(default_factory=Counter)  # reason -> answers
    other_models: Counter[str] = field(default_factory=Counter)  # that answered instead of the one that was asked
    errors: Counter[str] = field(default_factory=Counter)  # why requests failed
    texts: int = 0  # more than `kept` where an answer holds several
    characters: int = 0  # of these texts
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0  # of all answers, one after the other
    examples: dict[str, list[str]] = field(default_factory=dict)  # reason -> ids

    def numbers(self) -> dict[str, Any]:
        """For report.json."""
        counters = {name: _sorted(getattr(self, name)) for name in ("set_aside", "errors", "other_models")}
        return {**vars(self), "seconds": round(self.seconds, 3), **counters}


class Product:
    """Files below `out`, open until `close`; use as a context manager. A file without a row is not made.

    Attributes:
        figures: (kind, teacher) -> what became of the requests.
    """

    def __init__(self, recipe: Recipe, out: Path) -> None:
        self.recipe, self.out = recipe, out
        self.figures: dict[tuple[str, str], Figures] = {}
        self._stack = ExitStack()
        self._files: dict[str, IO[bytes]] = {}

    def __enter__(self) -> Product:
        self._line("requests.csv", _csv(COLUMNS))
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        self._stack.__exit__(kind, error, trace)  # an error leaves no file

    def text(self, call: Call, answer: Answer, text: str) -> None:
        """A document for pre-training."""
        self.figure(call).texts += 1
        self.figure(call).characters += len(text)
        row = Document(text, call.id, provenance(self.recipe.teachers[call.teacher], call, answer))
        self._line(f"texts/synthetic_{call.kind}.jsonl.zst", row.to_line())

    def exercise(self, call: Call, answer: Answer, row: dict[str, Any]) -> None:
        """The same exercise for tuning."""
        self._row(f"exercises/{call.kind}.jsonl", call.id, row, call, answer)

    def instruction(self, id_: str, row: dict[str, Any], call: Call, answer: Answer) -> None:
        """A new instruction in Alpaca's form; `id_` is its own, as an answer may hold several."""
        self.figure(call).texts += 1
        self.figure(call).characters += sum(len(str(part)) for part in row.values())
        self._row("instructions/instructions.jsonl", id_, row, call, answer)

    def aside(self, id_: str, text: str, why: tuple[str, float | str], call: Call, answer: Answer) -> None:
        """An answer, or a part of one, that is not used; `why` is reason and value."""
        row = provenance(self.recipe.teachers[call.teacher], call, answer)
        line = Document(text, id_, {**row, "reason": why[0], "value": why[1]}).to_line()
        self._line(f"set_aside/{call.kind}.jsonl.zst", line)
        self._note(call, why[0], id_)

    def _note(self, call: Call, reason: str, id_: str) -> None:
        shown = self.figure(call).examples.setdefault(reason, [])
        if len(shown) < EXAMPLES:
            shown.append(id_)

    def request(self, call: Call, answer: Answer, state: str, reason: str = "") -> None:
        """The one line of a request in requests.csv, and in failed.jsonl when it failed."""
        found = self.figure(call)
        found.asked += 1
        found.prompt_tokens += answer.prompt_tokens
        found.completion_tokens += answer.completion_tokens
        found.seconds += answer.seconds
        found.kept += state == KEPT
        found.failed += state == FAILED
        if answer.model not in ("", self.recipe.teachers[call.teacher].model):
            known = answer.model in found.other_models or len(found.other_models) < OTHER_MODELS
            found.other_models[answer.model if known else "others"] += 1
        if state == SET_ASIDE:
            found.set_aside[reason] += 1
        if state == FAILED:
            found.errors[reason] += 1
            row = {"id": call.id, "kind": call.kind, "teacher": call.teacher, "sample": call.sample, "reason": reason}
            self._line("failed.jsonl", json_line(row))
        self._line("requests.csv", _csv((
            call.id, call.kind, call.teacher, call.sample, state, reason, answer.prompt_tokens,
            answer.completion_tokens, answer.seconds,
        )))  # fmt: skip

    def figure(self, call: Call) -> Figures:
        """The figures that the call belongs to."""
        return self.figures.setdefault((call.kind, call.teacher), Figures())

    def _row(self, name: str, id_: str, row: dict[str, Any], call: Call, answer: Answer) -> None:
        from_where = provenance(self.recipe.teachers[call.teacher], call, answer)
        whole = {"id": id_, **row, **{key: value for key, value in from_where.items() if key not in row}}
        self._line(name, json_line(whole))

    def _line(self, name: str, line: bytes) -> None:
        if name not in self._files:
            file: Any = self._stack.enter_context(atomic_file(self.out / name))
            if name.endswith(".zst"):
                packed = zstandard.ZstdCompressor(level=3, write_checksum=True).stream_writer(file, closefd=False)
                file = self._stack.enter_context(packed)
            self._files[name] = file
        self._files[name].write(line)


def provenance(teacher: Teacher, call: Call, answer: Answer) -> dict[str, Any]:
    """Where a text comes from: what stands in every row of a product.

    `license` is the teacher's note, and behind it that of the document that a text was made from.

    Source: SPEC N2.1-5, N2.1-6.
    """
    about = dict(call.about)
    about.pop(PASSAGE, None)  # stands in the text itself
    origin = about.pop("license", "")
    row = {
        "synthetic": True,
        "kind": call.kind,
        **about,
        "teacher": call.teacher,
        "model": model_name(teacher),
        "prompt": call.prompt,
        "temperature": teacher.temperature,
        "max_tokens": teacher.max_tokens,
        **({"sampling": dict(teacher.extra)} if teacher.extra else {}),
        "seed": call.seed,
        "time": answer.time,
        "license": "; ".join(note for note in (teacher.license, origin) if note),
    }
    return {**row, "document_license": origin} if origin else row


def model_name(teacher: Teacher) -> str:
    """The model as the endpoint knows it, or the name of a local one's file or folder."""
    return Path(teacher.folder).resolve().name if teacher.folder else teacher.model


def json_line(row: dict[str, Any]) -> bytes:
    """A row as one JSON line."""

    try:
        return json.dumps(row, ensure_ascii=False).encode() + b"\n"
    except UnicodeEncodeError:  # a lone surrogate travels as its JSON escape
        return json.dumps(row).encode() + b"\n"


def _csv(cells: Any) -> bytes:
    lines = io.StringIO()
    csv.writer(lines, lineterminator="\n").writerow(cells)
    return lines.getvalue().encode("utf-8", "backslashreplace")


def _sorted(counter: Counter[str]) -> dict[str, int]:
    return dict(sorted(counter.items(), key=lambda row: (-row[1], row[0])))
