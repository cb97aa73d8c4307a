"""Many texts through a model, piece by piece, so that a kill loses one piece and changes nothing of the rest."""

from __future__ import annotations

import csv
import io
import json
import re
import sys
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from rinsho.clinical.questions import base_model
from rinsho.clinical.reading import Data
from rinsho.document import Document
from rinsho.errors import UserError
from rinsho.files import atomic_file, write_atomic
from rinsho.run import Stage

if TYPE_CHECKING:
    from rinsho.generate.batcher import Job
    from rinsho.generate.opening import Opened

# A piece is what a kill costs and what shares the model's slots. Sixteen notes keep four slots busy for all but the
# last moments; a 1.2B model on a laptop reads and answers them in some minutes.
PIECE_DOCUMENTS = 16
PIECE_CHARACTERS = 20_000

FORMULA, SIGNED = re.compile(r"[=@\t\r+-]"), re.compile(r"[+-][0-9.]+")

Result = TypeVar("Result")
Rows = Iterable[Mapping[str, Any]]


@dataclass(frozen=True)
class Asked(Generic[Result]):
    """A text with its jobs, and what makes a line of the results of these jobs."""

    jobs: Sequence[Job[Result]]
    row: Callable[[Sequence[Result]], Mapping[str, Any]]


def open_for(model: Path, slots: int, form: str | None, window: int | None, base: Path | None) -> Opened:
    """The model, after saying what it needs and what the machine has (M-6).

    Raises:
        UserError: it does not fit, or cannot be opened.
    """
    from rinsho.generate.opening import open_model
    from rinsho.memory import settle

    print(settle(model, form, slots, window, base=base), file=sys.stderr, flush=True)
    return open_model(model, slots=slots, form=form, window=window, base=base)


def check_model(model: Path) -> list[UserError]:
    """What is wrong with the path of a model, as far as that can be seen without opening it."""
    if not model.exists():
        return [UserError("not there", where=model, expected="a model folder or a GGUF file", todo="check the path")]
    known = ("config.json", "adapter_config.json", "*.gguf")
    if model.is_dir() and not any(any(model.glob(name)) for name in known):
        return [UserError(
            "no model", where=model, expected="MODEL DATA...: a model or adapter folder, or a GGUF file, comes first",
        )]  # fmt: skip
    return []


def check_chat(model: Path, base: Path | None, otherwise: str = "") -> None:
    """Nothing, where the model answers questions; only its tokenizer is read.

    Raises:
        UserError: a base model, with what else can be done (`otherwise`), or a tokenizer that cannot be opened.
    """
    from rinsho.chat_template import has_chat
    from rinsho.generate.loading import load_tokenizer
    from rinsho.generate.opening import gguf_file, is_gguf, load_gguf_tokenizer

    found = load_gguf_tokenizer(gguf_file(model)) if is_gguf(model) else load_tokenizer(model, base)
    if not has_chat(found):
        raise base_model(model, otherwise)


def answer_all(stage: Stage, opened: Opened, data: Data, ask: Callable[[Document], Asked[Any]]) -> list[Path]:
    """Files with a JSON line for each text, in order: one file a piece, made again only where it is missing.

    A piece has the same texts in every run and shares the model with no other, so that a run that goes on after a kill
    gives the same bytes.
    """
    from rinsho.generate.batcher import Batcher

    folder = stage.partial / "pieces"
    folder.mkdir(parents=True, exist_ok=True)
    total = data.count()
    files: list[Path] = []
    known = sum(file.read_bytes().count(b"\n") for file in sorted(folder.glob("*.jsonl")))
    with stage.progress("texts", total, "texts", known) as progress:
        for number, piece in enumerate(pieces(data.documents())):
            files.append(folder / f"{number:06d}.jsonl")
            if files[-1].is_file():
                continue
            asked = [ask(document) for document in piece]
            jobs = [job for one in asked for job in _told(one.jobs, progress.update)]
            results = iter(Batcher(opened.decoder).run(jobs))  # a new one: nothing is kept of the piece before
            rows = [one.row([next(results) for _ in one.jobs]) for one in asked]
            write_atomic(files[-1], json_lines(rows))
            progress.update(sum(not one.jobs for one in asked))
    return files


def pieces(documents: Iterable[Document]) -> Iterator[list[Document]]:
    """The texts in groups, whatever was done with them before."""
    piece: list[Document] = []
    size = 0
    for document in documents:
        if piece and (len(piece) == PIECE_DOCUMENTS or size + len(document.text) > PIECE_CHARACTERS):
            yield piece
            piece, size = [], 0
        piece.append(document)
        size += len(document.text)
    if piece:
        yield piece


def rows_of(files: Iterable[Path]) -> Iterator[dict[str, Any]]:
    """The lines of the pieces, in order."""
    for file in files:
        with file.open(encoding="utf-8") as lines:
            for line in lines:
                yield json.loads(line)


def write_json_lines(path: Path, rows: Rows) -> None:
    """A file of JSON lines, whole or not at all."""
    with atomic_file(path) as file:
        for row in rows:
            file.write(json_lines([row]))


def write_table(path: Path, columns: Sequence[str], rows: Rows) -> None:
    """A CSV file, whole or not at all: UTF-8 with byte order mark, without which Excel garbles Japanese.

    Words that a spreadsheet would run as a formula get an apostrophe in front, as in the page's table.
    """
    with atomic_file(path) as file:
        text = io.TextIOWrapper(file, "utf-8-sig", "backslashreplace", newline="")
        table = csv.writer(text, lineterminator="\r\n")
        table.writerow(columns)
        table.writerows([_cell(row.get(column)) for column in columns] for row in rows)
        text.flush()
        text.detach()


def json_lines(rows: Rows) -> bytes:
    """The rows as JSON lines in UTF-8; a lone surrogate, which UTF-8 cannot hold, becomes its JSON escape."""
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    return text.encode("utf-8", "backslashreplace")


def _cell(value: Any) -> Any:
    if value is None:
        return ""
    if isinstance(value, str) and FORMULA.match(value) and not SIGNED.fullmatch(value):
        return f"'{value}"
    return str(value).lower() if isinstance(value, bool) else value


def _told(jobs: Sequence[Job[Result]], update: Callable[[], None]) -> list[Job[Result]]:
    """The jobs of a text; when the last of them is done, `update` is called."""
    left = len(jobs)

    def told(job: Job[Result]) -> Generator[Any, Any, Result]:
        nonlocal left
        result = yield from job
        left -= 1
        if not left:
            update()
        return result

    return [told(job) for job in jobs]
