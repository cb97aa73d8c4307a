"""Files of instructions and of preference pairs as conversations, read with every mistake named by file and line.

A file is a JSON list or JSON lines, in UTF-8. Its rows may have these forms, also mixed:

- Alpaca: `{"instruction": …, "input": … (optional), "output": …}` (M-2; Medical Meadow as it is)
- chat: `{"messages": [{"role": …, "content": …}, …]}`, or ShareGPT's `{"conversations": [{"from": …, "value": …}, …]}`
- exercises: `{"question": …, "options": […] or {"A": …} (optional), "answer": …, "explanation": … (optional)}`

Preference pairs are `{"prompt": text or messages, "chosen": text or messages, "rejected": text or messages}`; the turns
before the answer may also stand in `chosen` and `rejected`, as TRL allows. A row of any form may name its `license`,
and say by `synthetic: true` that a language model wrote it, and by `model` which: kept for the model card.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from rinsho.chat import Message, Role
from rinsho.document import writer_of
from rinsho.errors import UserError
from rinsho.prompting import PromptTemplate

ENDINGS = (".json", ".jsonl")
FORMS = "instruction and output (Alpaca), messages or conversations (chat), or question and answer (exercises)"
PAIR_FORM = "prompt, chosen and rejected, each a text or a list of messages"
LICENSE_CHARACTERS = 100  # of a row's licence that are kept
ROLES: dict[str, Role] = {
    "system": "system", "user": "user", "human": "user", "assistant": "assistant", "gpt": "assistant",
}  # fmt: skip

Row = tuple[str, int, dict[str, Any]]  # where it stands, its number from 0, its fields


@dataclass(frozen=True, slots=True)
class Conversation:
    """One conversation to learn from.

    Attributes:
        id: `source/00012`, the row of the file from 0.
        source: the file's name without its ending.
        messages: the turns; the last one is the assistant's.
        documents: what of the row counts as documents, before any template; see `texts`.
        license: what the row names as its licence; empty for none.
        writer: the language model that wrote the row (`rinsho.document.writer_of`).
    """

    id: str
    source: str
    messages: tuple[Message, ...]
    documents: tuple[str, ...] = ()
    license: str = ""
    writer: str | None = None


@dataclass(frozen=True, slots=True)
class Pair:
    """A better and a worse answer to the same turns.

    Attributes:
        id, source: as in `Conversation`.
        messages: the turns before the answer.
        chosen, rejected: the answers.
        license, writer: as in `Conversation`.
    """

    id: str
    source: str
    messages: tuple[Message, ...]
    chosen: str
    rejected: str
    license: str = ""
    writer: str | None = None


def instruction_files(path: Path) -> list[Path]:
    """A .json or .jsonl file itself, or those at the top of a folder, in the order of their names.

    Raises:
        UserError: it is not there, or a file of another kind.
    """
    if path.is_dir():
        return sorted(file for file in path.iterdir() if file.suffix in ENDINGS and file.is_file())
    if not path.is_file() or path.suffix not in ENDINGS:
        raise UserError(
            "no file of instructions" if path.exists() else "not there",
            where=path,
            expected="a file ending in .json or .jsonl, or a folder of them",
            todo="check the path",
        )
    return [path]


def read_instructions(path: Path, template: PromptTemplate) -> list[Conversation]:
    """The conversations of a file; rows in Alpaca's form go through the template.

    Raises:
        UserError: the file is not UTF-8 or not JSON, or a row has no known form, lacks a text or has no answer.

    Source: M-2, N2.4-3.
    """
    found = []
    for where, number, row in _rows(path, FORMS):
        documents: tuple[str, ...]
        if "messages" in row or "conversations" in row:
            messages = _messages(row.get("messages", row.get("conversations")), where, "messages")
            _check_turns(messages, where)
            documents = tuple(message.content for message in messages if message.role == "user")
        elif "instruction" in row and "output" in row:
            instruction, given = _text(row, "instruction", where), _optional(row, "input", where)
            messages = (*template.turns(instruction, given), Message("assistant", _text(row, "output", where)))
            documents = (given or instruction,)  # the instruction beside an input is often the same in all rows
        elif "question" in row and "answer" in row:
            messages = _exercise(row, where)
            documents = (row["question"],)
        else:
            todo = "for pairs of answers take finetune.objective=dpo" if "chosen" in row else ""
            raise UserError("a row of no known form" + _fields(row), where=where, expected=FORMS, todo=todo)
        name = f"{path.stem}/{number:05d}"
        found.append(Conversation(name, path.stem, messages, documents, _license(row), writer_of(row)))
    return found


def read_pairs(path: Path) -> list[Pair]:
    """The preference pairs of a file.

    Raises:
        UserError: as `read_instructions`, or the turns before the two answers differ, or the answers do not.
    """
    found = []
    for where, number, row in _rows(path, PAIR_FORM):
        if "chosen" not in row or "rejected" not in row:
            raise UserError("no preference pair" + _fields(row), where=where, expected=PAIR_FORM)
        prompt = _turns(row, "prompt", where, "user") if "prompt" in row else ()
        better, worse = (_turns(row, field, where, "assistant") for field in ("chosen", "rejected"))
        before = _before(prompt, better[:-1], where)
        if before != _before(prompt, worse[:-1], where):
            raise UserError("chosen and rejected follow different turns", where=where, expected="the same turns")
        for field, turns in (("chosen", better), ("rejected", worse)):
            _check_turns((*before, turns[-1]), f"{where}, {field}")
        if better[-1] == worse[-1]:
            raise UserError("chosen and rejected are the same", where=where, expected="a better and a worse answer")
        name, answers = f"{path.stem}/{number:05d}", (better[-1].content, worse[-1].content)
        found.append(Pair(name, path.stem, before, *answers, _license(row), writer_of(row)))
    return found


def texts(conversation: Conversation) -> tuple[str, ...]:
    """The texts of a conversation that count as documents: a row's input, or its instruction without one; its question;
    the turns of a user."""
    users = tuple(message.content for message in conversation.messages if message.role == "user")
    return conversation.documents or users


# ---------------------------------------------------------------------- rows of a file


def _rows(path: Path, forms: str) -> Iterator[Row]:
    """The objects of a JSON list, or of JSON lines read one by one."""
    number = -1
    try:
        with path.open("rb") as file:
            start = file.read(4096)
            file.seek(0)
            if start.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"[":
                rows = _list(path, file.read())
            else:
                rows = _lines(path, file)
            for number, (where, row) in enumerate(rows):
                if not isinstance(row, dict):
                    raise UserError("not a JSON object", where=where, expected=forms)
                yield where, number, row
    except FileNotFoundError:
        raise UserError("not there", where=path, expected="a .json or .jsonl file", todo="check the path") from None
    if number < 0:
        raise UserError("no row in here", where=path, expected=forms)


def _lines(path: Path, file: Any) -> Iterator[tuple[str, Any]]:
    wide = False  # whether a line before had other characters than ASCII
    for number, line in enumerate(file, 1):
        where = f"{path}:{number}"
        raw = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
        if not raw.strip():
            continue
        _check_utf8(raw, where, wide)
        wide = wide or not raw.isascii()
        try:
            row = orjson.loads(raw)
        except orjson.JSONDecodeError:
            raise UserError("not JSON", where=where, expected="one JSON object a line, or one JSON list") from None
        yield where, row


def _list(path: Path, raw: bytes) -> Iterator[tuple[str, Any]]:
    raw = raw.removeprefix(b"\xef\xbb\xbf")
    _check_utf8(raw, path)
    try:
        rows = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise UserError("not JSON", where=f"{path}:{error.lineno}", expected="one JSON list of objects") from None
    for number, row in enumerate(rows, 1):
        yield f"{path}, row {number}", row


def _check_utf8(raw: bytes, where: Path | str, wide: bool = False) -> None:
    """Refuses bytes that are not UTF-8; `wide`: other than ASCII was read before them."""
    try:
        raw.decode()
    except UnicodeDecodeError as error:
        if isinstance(where, Path):
            line = raw.count(b"\n", 0, error.start) + 1
            where = f"{where}:{line}"
        mixed = wide or not raw[: error.start].isascii()
        raise UserError(
            "mixed encodings: UTF-8 before, something else here" if mixed else "not UTF-8",
            where=where,
            expected="a file in UTF-8 throughout",
            todo="convert the part that is not (if it is Shift_JIS: iconv -f CP932 -t UTF-8 FILE > NEW)",
        ) from None


# ---------------------------------------------------------------------- turns of a row


def _messages(value: Any, where: str, field: str) -> tuple[Message, ...]:
    """Messages of `role` and `content`, or of ShareGPT's `from` and `value`."""
    if not isinstance(value, list) or not value:
        raise UserError(f"{field} is no list of messages", where=where, expected='[{"role": …, "content": …}, …]')
    found = []
    for number, each in enumerate(value, 1):
        row = each if isinstance(each, dict) else {}
        role = ROLES.get(str(row.get("role", row.get("from"))))
        content = row.get("content", row.get("value"))
        if role is None or not isinstance(content, str) or not content.strip():
            problem = "an unknown role" if role is None else "no text"
            raise UserError(
                f"message {number} of {field} has {problem}",
                where=where,
                expected="role " + ", ".join(dict.fromkeys(ROLES.values())) + " and content that is not empty",
            )
        found.append(Message(role, content))
    return tuple(found)


def _turns(row: Mapping[str, Any], field: str, where: str, role: Role) -> tuple[Message, ...]:
    """The messages of a field, which may also be the text of one."""
    if isinstance(row[field], str):
        return (Message(role, _text(row, field, where)),)
    return _messages(row[field], where, field)


def _before(prompt: tuple[Message, ...], inside: tuple[Message, ...], where: str) -> tuple[Message, ...]:
    """The turns before an answer, which may stand in the prompt, beside the answer, or in both."""
    if not prompt or not inside or prompt == inside:
        return prompt or inside
    if len(prompt) == 1 and prompt[0] == inside[-1]:  # the prompt as a text, the whole conversation beside it
        return inside
    raise UserError("the prompt is not what stands before the answer", where=where, expected="the same turns in both")


def _check_turns(messages: Sequence[Message], where: str) -> None:
    roles = [message.role for message in messages]
    if roles[-1] != "assistant":
        raise UserError("the last turn is not the assistant's", where=where, expected="a conversation with its answer")
    if "system" in roles[1:]:
        raise UserError("a system turn after the first", where=where, expected="system only as the first turn")
    if "user" not in roles[: roles.index("assistant")]:
        raise UserError("no user's turn before the answer", where=where, expected="a question before each answer")


def _exercise(row: Mapping[str, Any], where: str) -> tuple[Message, ...]:
    """The question with its options as lines `A. …`; the answer as option text, then letter, then the explanation."""
    question, explanation = _text(row, "question", where), _optional(row, "explanation", where)
    options = _options(row.get("options"), where)
    answer = _letters(row["answer"], options, where) if options else _text(row, "answer", where)
    asked = "\n".join([question, *(f"{label}. {text}" for label, text in options.items())])
    said = "\n\n".join([answer, explanation] if explanation else [answer])
    return Message("user", asked), Message("assistant", said)


def _options(value: Any, where: str) -> dict[str, str]:
    if not value:
        return {}
    if isinstance(value, list):
        value = {chr(ord("A") + place): text for place, text in enumerate(value)}
    if not isinstance(value, dict) or not all(isinstance(text, str) and text.strip() for text in value.values()):
        raise UserError("options that are no texts", where=where, expected='["…", "…"] or {"A": "…", "B": "…"}')
    return {label: text.strip() for label, text in value.items()}


def _letters(answer: Any, options: Mapping[str, str], where: str) -> str:
    """The answer's option texts, then its letters, from letters or texts."""
    given = answer if isinstance(answer, list) else [answer]
    if isinstance(answer, str) and answer.strip() not in options.values():
        given = answer.split(",")
    labels = {**{text: label for label, text in options.items()}, **{label.upper(): label for label in options}}
    found = []
    for part in given:
        text = part.strip() if isinstance(part, str) else ""
        label = labels.get(text) or labels.get(text.upper())
        if label is None:
            raise UserError("the answer is none of the options", where=where, expected="letters or texts of options")
        found.append(label)
    if not found:
        raise UserError("answer is empty", where=where, expected="letters or texts of options")
    return "\n".join([*(options[label] for label in found), ",".join(found)])


def _text(row: Mapping[str, Any], field: str, where: str) -> str:
    value = row.get(field)
    if not isinstance(value, str) or not value.strip():
        problem = "is empty" if isinstance(value, str) else "is not text"
        raise UserError(f"{field} {problem}", where=where, expected=f'"{field}": "…"')
    return value


def _optional(row: Mapping[str, Any], field: str, where: str) -> str | None:
    value = row.get(field)
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    return _text(row, field, where)


def _license(row: Mapping[str, Any]) -> str:
    value = row.get("license")
    return value.strip()[:LICENSE_CHARACTERS] if isinstance(value, str) else ""


def _fields(row: Mapping[str, Any]) -> str:
    """The names of a row's fields, as far as they look like names: a file without such names has texts there."""
    names = [name for name in row if name.isascii() and name.isidentifier() and len(name) <= 20]
    return f" (its fields: {', '.join(names[:8])})" if names else ""
