"""`rinsho chat MODEL`: talk to a model folder or a GGUF file in the terminal, or pipe lines through it."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from rinsho.chat import Message
from rinsho.chat_template import has_chat
from rinsho.conversation import asked, tuned_template
from rinsho.errors import UserError
from rinsho.model_folder import MANIFEST, read_manifest
from rinsho.prompting import PromptTemplate

if TYPE_CHECKING:
    from rinsho.generate.answerer import Answerer
    from rinsho.generate.engine import Generator

    Answering = Answerer | Generator

NOTICE = (
    "Research model, no medical device: never use its answers for diagnosis or treatment. /exit ends. "
    "研究用モデルです。医療機器ではなく、診断・治療には使えません。"
)
EXIT = "/exit"
SWITCH = "/adapter"
COMMAND = re.compile(r"(/[a-z]+)(?:\s|$)")
FIRST, GIVEN = "default", "given"  # PEFT's name of the adapter a model is opened with; ours of one called like it
ANSWER_FRACTION = 0.5  # of the window, at most, that is kept free for the answer


def chat(
    model: Path,
    max_new_tokens: int = 200,
    temperature: float = 0.0,
    *,
    base: Path | None = None,
    adapters: Mapping[str, Path] | None = None,
    form: str | None = None,
    seed: int = 1,
    stdin: TextIO | None = None,
    stdout: TextIO | None = None,
) -> None:
    """Reads a line, streams the answer, until /exit or the end of the input. Nothing is written to disk.

    Each question is put into the prompt template that the model was tuned with, as `rinsho.json` has it.
    Turns that no longer fit into the model's window are forgotten, oldest first. With several adapters,
    `/adapter NAME` lets another one answer from then on; the conversation goes on.

    Args:
        model: a model folder, a GGUF file or a folder with one, an adapter's folder, or the base of `adapters`.
        max_new_tokens: room for an answer, at most half of the window.
        temperature: 0 takes the likeliest token each time.
        base: of an adapter; None takes the recorded one.
        adapters: name -> folder; the first one answers first.
        form: number form of the weights (`rinsho.generate.loading.load_form`); None: what this machine is fast in, an
            adapter's base as it was in training.
        seed: of the draws.
        stdin: another stream than the process's own.
        stdout: likewise.

    Raises:
        UserError: not a model folder, a base model, or an adapter of another base.
    """
    lines, target = stdin or _standard_input(), stdout or sys.stdout
    voices = Voices(model, base, adapters or {}, form)
    for said in (NOTICE, *voices.notes, voices.about_template):
        if said:
            print(said, file=sys.stderr, flush=True)
    generator = voices.generator
    room = min(max_new_tokens, int(generator.window * ANSWER_FRACTION))
    history: list[Message] = []
    while True:
        if lines.isatty():
            print("> ", end="", file=target, flush=True)
        line = _line(lines)
        text = line.strip()
        if not line or text == EXIT:
            return
        if not text:
            continue
        if command := COMMAND.match(text):
            known = command[1] == SWITCH
            said = voices.switch(text[len(SWITCH) :].strip()) if known else f"no such command; {EXIT}, {SWITCH} NAME"
            print(said, file=sys.stderr, flush=True)
            generator = voices.generator
            continue
        question = Message("user", text)
        prompt, said = _fitting(generator, history, question, generator.window - room, voices.template)
        if said:
            print(said, file=sys.stderr, flush=True)
        answer = ""
        try:
            for piece in generator.stream(prompt, room, temperature=temperature, seed=seed + len(history)):
                print(piece, end="", file=target, flush=True)
                answer += piece
        except KeyboardInterrupt:
            pass  # stops this answer, not the conversation
        print(file=target, flush=True)
        history += [Message("user", text), Message("assistant", answer)]


class Voices:
    """What answers: one model folder, or several adapters that share the weights of one base.

    Raises:
        UserError: as `chat`.
    """

    def __init__(self, model: Path, base: Path | None, adapters: Mapping[str, Path], form: str | None = None) -> None:
        from rinsho.adapters import is_adapter

        if base is not None and not is_adapter(model):
            raise UserError("--base is for adapters", where=model, expected="an adapter's folder", todo="leave it out")
        if adapters and form is not None:
            raise UserError(
                "--form is not for several adapters", where=model, expected="their base as it was in training",
                todo="leave --form out",
            )  # fmt: skip
        self.peft_names: dict[str, str] = {}
        self.notes: list[str] = []
        self._adapted: Any = None  # the model that several adapters share
        self._generators: Mapping[str, Answering]
        self._generators = self._open(model, base, adapters) if adapters else {"": _open_one(model, base, form)}
        for generator in self._generators.values():
            _check_chat(generator)
        self._templates = {
            name: tuned_template(read_manifest(folder), folder / MANIFEST)
            for name, folder in ((name, _folder(Path(given.where))) for name, given in self._generators.items())
        }
        self.name = next(iter(self._generators))
        if self._adapted is not None:
            self._adapted.set_adapter(self.peft_names[self.name])

    @property
    def generator(self) -> Answering:
        """The one that answers now."""
        return self._generators[self.name]

    @property
    def template(self) -> PromptTemplate | None:
        """What questions to it are put into; None: as they are."""
        return self._templates[self.name]

    @property
    def about_template(self) -> str:
        """What to tell the user of the template; empty without one."""
        if self.template is None:
            return ""
        return f"questions are put into the prompt template {self.template.name}, as in its tuning"

    def switch(self, name: str) -> str:
        """Lets the adapter of this name answer from now on; returns what to tell the user."""
        if not self.peft_names:
            return "no adapters here: rinsho chat BASE --adapter NAME=FOLDER --adapter NAME=FOLDER"
        if name not in self.peft_names:
            unknown = f"no adapter {name}; " if name else ""
            return f"{unknown}adapters: {', '.join(self.peft_names)}; now {self.name}"
        self.name = name
        self._adapted.set_adapter(self.peft_names[name])
        return f"now {name}" + (f"; {self.about_template}" if self.template else "")

    def _open(self, model: Path, base: Path | None, adapters: Mapping[str, Path]) -> dict[str, Generator]:
        from rinsho.adapters import add_adapters, find_base, is_adapter, new_rows
        from rinsho.generate.engine import Generator
        from rinsho.generate.loading import load_adapter, load_tokenizer
        from rinsho.generate.opening import is_gguf

        if is_gguf(model):
            raise UserError(
                "a GGUF file takes no adapters", where=model, expected="the base model's folder",
                todo="give that, or merge the adapter: rinsho export ADAPTER --to gguf",
            )  # fmt: skip
        if is_adapter(model):
            folders, base = {FIRST: model, **adapters}, find_base(model, base)
        else:
            folders, base = dict(adapters), model
        opened = max(folders, key=lambda name: new_rows(folders[name]))  # the others find its rows there
        shared = load_adapter(folders[opened], base)
        self.peft_names = {name: FIRST if name == opened else GIVEN if name == FIRST else name for name in folders}
        add_adapters(shared, {self.peft_names[name]: folders[name] for name in folders if name != opened})
        self._adapted = shared
        self.notes = _other_forms(shared, {name: folders[name] for name in folders if name != opened})
        return {
            name: Generator.of(shared, load_tokenizer(folder, base), where=folder) for name, folder in folders.items()
        }


def _open_one(model: Path, base: Path | None, form: str | None) -> Answering:
    """The one model or adapter that answers; what it needs and what the machine has is said first (M-6)."""
    from rinsho.generate.opening import gguf_file, is_gguf, open_model
    from rinsho.memory import settle

    if is_gguf(model):
        from rinsho.generate.answerer import Answerer

        model = gguf_file(model)
        if model.is_file():
            print(settle(model, form), file=sys.stderr, flush=True)
        return Answerer(open_model(model, slots=1, form=form))
    from rinsho.generate.engine import Generator
    from rinsho.generate.loading import load_form, load_tokenizer

    tokenizer = load_tokenizer(model, base)  # first: what is wrong with the folder shows at once
    print(settle(model, form, base=base), file=sys.stderr, flush=True)
    return Generator.of(load_form(model, form, base), tokenizer, where=model)


def _folder(where: Path) -> Path:
    """The folder of a model, whose `rinsho.json` tells of its tuning."""
    return where.parent if where.is_file() else where


def _other_forms(model: Any, folders: Mapping[str, Path]) -> list[str]:
    """A line for each adapter that was trained on another form of the base than the one that is open."""
    from rinsho.bases import number_form

    here = number_form(model)
    lines = []
    for name, folder in folders.items():
        manifest = read_manifest(folder)
        trained = manifest.get("quantization", "none"), manifest.get("base_dtype", here[1])
        if trained != here:
            same = trained[0] == here[0] != "none"
            forms = [f"{bits} with {dtype}" if same else dtype if bits == "none" else bits
                     for bits, dtype in (trained, here)]  # fmt: skip
            lines.append(f"{name} was trained on {forms[0]}, answers here on {forms[1]}")
    return lines


def _check_chat(generator: Answering) -> None:
    if not has_chat(generator.tokenizer):  # said before the first question
        raise UserError(
            "this is a base model, which continues texts and answers no questions",
            where=generator.where,
            expected="a folder of rinsho finetune, or another instruct model",
            todo=f"finetune it first: rinsho finetune {generator.where} DATA --out FOLDER",
        )
    generator.prompt([Message("user", "")])


def _fitting(
    generator: Answering, history: list[Message], question: Message, size: int, template: PromptTemplate | None = None
) -> tuple[list[int], str]:
    """The prompt of the question with as much history as fits, and what to tell the user of what did not.

    A question that is too long by itself loses its middle.
    """
    from rinsho.generate.batches import shorten

    turns = len(history) // 2
    while True:
        prompt = generator.prompt(asked([*history, question], template))
        if len(prompt) <= size or not history:
            break
        del history[:2]
    said = (
        [f"forgotten: {turns - len(history) // 2} earlier turns, which no longer fit"]
        if len(history) < 2 * turns
        else []
    )
    if len(prompt) > size:
        said.append(f"too long: the question has {len(prompt):,} tokens, {size:,} fit; its middle is left out")
    return shorten(prompt, size), "; ".join(said)


def _line(lines: TextIO) -> str:
    """The next line; empty at the end of the input, and when Ctrl-C is pressed at the prompt."""
    try:
        return lines.readline()
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return ""


def _standard_input() -> TextIO:
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(encoding="utf-8", errors="replace")
    return sys.stdin
