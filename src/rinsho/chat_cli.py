"""`rinsho chat MODEL`: talk to a model folder in the terminal, or pipe lines through it."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import TextIO

from rinsho.chat import Message
from rinsho.errors import UserError

NOTICE = (
    "Research model, no medical device: never use its answers for diagnosis or treatment. /exit ends. "
    "研究用モデルです。医療機器ではなく、診断・治療には使えません。"
)
EXIT = "/exit"
ANSWER_FRACTION = 0.5  # of the window, at most, that is kept free for the answer


def chat(
    model: Path,
    max_new_tokens: int = 200,
    temperature: float = 0.0,
    *,
    seed: int = 1,
    stdin: TextIO | None = None,
    stdout: TextIO | None = None,
) -> None:
    """Reads a line, streams the answer, until /exit or the end of the input. Nothing is written to disk.

    Turns that no longer fit into the model's window are forgotten, oldest first.

    Raises:
        UserError: not a model folder, or a base model.
    """
    from rinsho.generate import Generator

    lines, target = stdin or _standard_input(), stdout or sys.stdout
    generator = Generator(model)
    try:
        generator.prompt([Message("user", "")])  # a base model has no chat tokens: said before the first question
    except UserError:
        raise UserError(
            "this is a base model, which continues texts and answers no questions",
            where=model,
            expected="a folder of rinsho finetune, or another instruct model",
            todo=f"finetune it first: rinsho finetune {model} DATA --out FOLDER",
        ) from None
    print(NOTICE, file=sys.stderr, flush=True)
    room = min(max_new_tokens, int(generator.window * ANSWER_FRACTION))
    history: list[Message] = []
    while True:
        if lines.isatty():
            print("> ", end="", file=target, flush=True)
        line = lines.readline()
        text = line.strip()
        if not line or text == EXIT:
            return
        if not text:
            continue
        prompt = _fitting(generator, history, Message("user", text), generator.window - room)
        answer = ""
        try:
            for piece in generator.stream(prompt, room, temperature=temperature, seed=seed + len(history)):
                print(piece, end="", file=target, flush=True)
                answer += piece
        except KeyboardInterrupt:
            pass  # stops this answer, not the conversation
        print(file=target, flush=True)
        history += [Message("user", text), Message("assistant", answer)]


def _fitting(generator: object, history: list[Message], question: Message, size: int) -> list[int]:
    """The prompt of the question with as much history as fits; a question that is too long loses its middle."""
    from rinsho.generate import Generator, shorten

    assert isinstance(generator, Generator)
    while True:
        prompt = generator.prompt([*history, question])
        if len(prompt) <= size or not history:
            return shorten(prompt, size)
        del history[:2]


def _standard_input() -> TextIO:
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(encoding="utf-8", errors="replace")
    return sys.stdin
