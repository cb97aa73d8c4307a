"""Instructions in the labelled form that teachers read and write: ### 指示 / ### 入力 / ### 出力.

`as_examples` writes the form, `parse_tasks` reads it and the other spellings of real models. Source: SPEC M-7.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rinsho.document import parse

NO_INPUT = "（なし）"  # stands where a task has no input
LABEL_CHARS = 60  # a label ends before; longer lines are looked at no further
WORDS = {
    "指示": "instruction", "指示文": "instruction", "命令": "instruction", "instruction": "instruction",
    "入力": "input", "入力文": "input", "input": "input",
    "出力": "output", "出力文": "output", "回答": "output", "応答": "output", "output": "output", "response": "output",
}  # fmt: skip
_LABEL = re.compile(
    r"(?P<before>\d{1,4} ?[.．、)）:：])? ?(?P<mark>[#＃]{1,6}(?: ?\*\*)?|\*\*|[【\[■●◆・-])? ?"
    r"(?P<number>\d{1,4} ?[.．、)）:：]?)? ?(?P<word>" + "|".join(sorted(WORDS, key=len, reverse=True)) + r")"
    r"(?P<after> ?[（(]?\d{1,4}[)）]?)? ?(?:\*\*|[】\]])? ?(?P<colon>[:：])? ?(?:\*\*)?(?P<rest>.*)",
    re.IGNORECASE,
)
_NOTHING = re.compile(
    r"[（(「\[<]?(?:入力は?)?(?:なし|無し|ありません|該当なし|不要|空欄|no ?input|none|n/?a|null|[-—–ー]+)?"
    r"[)）」\]>]?[。.]?",
    re.IGNORECASE,
)
_BETWEEN = re.compile(  # a line that only stands between two tasks
    r"[-=*_#＃]{2,}|[#＃*]* ?(?:タスク|課題|例|問題|指示|task) ?\d{0,4} ?[.．:：]?[#＃*]*"
    r"|[#＃*]{1,6} ?\d{1,4} ?[.．)）:：]?\**|\d{1,4} ?[.．)）:：]",
    re.IGNORECASE,
)
_TITLE = re.compile(r"[#＃*]{1,6} ?(?:タスク|課題|例題|task) ?\d{1,4} ?[.．:：(（「-].{0,60}", re.IGNORECASE)
_REMARK = re.compile(r"(?:以上|これら|上記)(?:[がはのを、]|で)?.{0,60}(?:タスク|指示|課題|例題|セット).{0,60}")
_DIGITS = re.compile(r"\d{1,4}")
_FENCE = re.compile(r"```[a-z]{0,8}\n(.*)\n```", re.DOTALL | re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Task:
    """An instruction with its answer; `input` may be empty."""

    instruction: str
    input: str
    output: str


@dataclass(frozen=True, slots=True)
class Unread:
    """A part of an answer that is no task: why (a short id), and the part."""

    reason: str  # no_task, no_instruction, no_output, unclear
    text: str


def as_examples(tasks: Sequence[Task]) -> str:
    """The tasks as a prompt shows them, numbered from 1.

    >>> print(as_examples([Task("略語を説明してください。", "SpO2", "経皮的動脈血酸素飽和度です。")]))
    ### 指示 1
    略語を説明してください。
    ### 入力 1
    SpO2
    ### 出力 1
    経皮的動脈血酸素飽和度です。
    """
    return "\n\n".join(
        f"### 指示 {number}\n{task.instruction}\n### 入力 {number}\n{task.input or NO_INPUT}\n"
        f"### 出力 {number}\n{task.output}"
        for number, task in enumerate(tasks, 1)
    )


def parse_tasks(text: str) -> list[Task | Unread]:
    r"""The tasks of a teacher's answer, in order; total on any text, in linear time.

    The labels of a text look like its first one: where that is `### 指示`, a line `指示：安静` belongs to an answer,
    but `**指示 2**` begins the second task when a whole task follows; else the first is `unclear`.
    A list of JSON objects with such keys is read too. What stands before the first task and remarks after the last
    are left out.

    >>> parse_tasks("### 指示 1\n略語を説明してください。\n### 入力 1\n（なし）\n### 出力 1\nはい。")
    [Task(instruction='略語を説明してください。', input='', output='はい。')]
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n").strip()
    rows = _json_rows(text)
    found = [_from_row(row) for row in rows] if rows else list(_labelled(text.split("\n")))
    return found or [Unread("no_task", text)]


# ---------------------------------------------------------------------- labels


@dataclass(slots=True)
class _Part:
    """A label and the lines below it; it may be none when its look does not tell it from a line of an answer."""

    kind: str
    sure: bool
    lines: list[str]


def _labelled(lines: Iterable[str]) -> Iterator[Task | Unread]:
    task: dict[str, list[str]] = {}
    tasks, sure = [], []
    for part in _parts(lines):
        if part.kind == "instruction":
            task = {}
            tasks.append(task)
            sure.append(part.sure)
        task[part.kind] = part.lines
    made = [_made(task, last=place == len(tasks) - 1) for place, task in enumerate(tasks)]
    for place, item in enumerate(made):
        after = made[place + 1] if place + 1 < len(made) else None
        if isinstance(item, Task) and isinstance(after, Unread) and not sure[place + 1]:
            yield Unread("unclear", item.instruction)  # its answer may have held the line that was taken for a label
        else:
            yield item


def _parts(lines: Iterable[str]) -> list[_Part]:
    """The labelled parts in order. With the next number an instruction may be marked otherwise than those before."""
    parts: list[_Part] = []
    style: tuple[str, bool] | None = None
    has: set[str] = set()
    count = 0
    for line in lines:
        label = _label(line)
        if label is not None:
            kind, mark, number, rest = label
            numbered = number is not None
            if style is None and kind == "instruction":
                style = (mark, numbered)
            known = style is not None and mark == style[0] and (kind != "instruction" or numbered == style[1])
            other = not known and kind == "instruction" and "output" in has and number == count + 1
            if (known and (kind == "instruction" or (kind not in has and "output" not in has))) or other:
                has = {kind} if kind == "instruction" else has | {kind}
                if kind == "instruction":
                    style, count = (mark, numbered), count + 1 if number is None else number
                parts.append(_Part(kind, style != ("", False) and not other, [rest] if rest else []))
                continue
        if parts:
            parts[-1].lines.append(line)
    return parts


def _label(line: str) -> tuple[str, str, int | None, str] | None:
    """(kind, mark, number, what follows) of a line that begins with a label."""
    line = " ".join(line.split())
    match = _LABEL.match(line[:LABEL_CHARS])
    if match is None:
        return None
    rest = (match["rest"] + line[LABEL_CHARS:]).strip()
    if not match["colon"] and rest and not _NOTHING.fullmatch(rest[:LABEL_CHARS]):
        return None
    digits = _DIGITS.search("".join(match[name] or "" for name in ("after", "number", "before")))
    number = int(digits[0]) if digits else None
    return WORDS[match["word"].lower()], (match["mark"] or "")[:1].replace("＃", "#"), number, rest


def _made(task: dict[str, list[str]], last: bool) -> Task | Unread:
    instruction = _content(task.get("instruction", []))
    output = _content(task.get("output", []), last)
    if not instruction or not output:
        return Unread("no_output" if instruction else "no_instruction", instruction or output)
    return Task(instruction, _given(_content(task.get("input", []))), output)


def _content(lines: Sequence[str], last: bool = False) -> str:
    """The lines as one text, without what stands between tasks and, in the last one, a remark on them all."""
    kept = list(lines)
    while kept and (not kept[-1].strip() or (len(kept) > 1 and _stands_between(kept[-1], last))):
        kept.pop()
    text = "\n".join(kept).strip()
    fenced = _FENCE.fullmatch(text)
    return fenced[1].strip() if fenced and "```" not in fenced[1] else text


def _stands_between(line: str, last: bool) -> bool:
    line = line.strip()
    other = _REMARK if last else _TITLE
    return len(line) < 4 * LABEL_CHARS and bool(_BETWEEN.fullmatch(line) or other.fullmatch(line))


def _given(text: str) -> str:
    return "" if len(text) < LABEL_CHARS and _NOTHING.fullmatch(text) else text


# ---------------------------------------------------------------------- JSON


def _json_rows(text: str) -> list[dict[str, Any]]:
    """The objects of a JSON list, of one object, or of JSON lines, also inside a code fence; else none."""
    start, end = text.find("```"), text.rfind("```")
    inner = text[start:end].partition("\n")[2].strip() if 0 <= start < end else text
    if inner[:1] not in ("[", "{"):
        return []
    for parts in ([inner], [line for line in inner.split("\n") if line.strip()]):
        try:
            values = [parse(part) for part in parts]
        except (ValueError, RecursionError):
            continue
        flat = values[0] if len(values) == 1 and isinstance(values[0], list) else values
        if len(flat) == 1 and isinstance(flat[0], dict) and not _fields(flat[0]):  # {"tasks": [...]}
            flat = next((value for value in flat[0].values() if isinstance(value, list)), [])
        return [row for row in flat if isinstance(row, dict)]
    return []


def _fields(row: dict[str, Any]) -> dict[str, str]:
    """instruction, input and output of an object, as text; the first of several keys for one counts."""
    found: dict[str, str] = {}
    for name, value in row.items():
        kind = WORDS.get(name.strip().lower())
        if kind and kind not in found and isinstance(value, str | int | float):
            found[kind] = str(value).strip()
    return found


def _from_row(row: dict[str, Any]) -> Task | Unread:
    fields = _fields(row)
    instruction, output = fields.get("instruction", ""), fields.get("output", "")
    if not instruction or not output:
        return Unread("no_output" if instruction else "no_instruction", instruction or output)
    return Task(instruction, _given(fields.get("input", "")), output)
