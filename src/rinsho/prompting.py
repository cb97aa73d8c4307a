"""Prompt templates, which turn a row of instructions into the text of a user's turn: data, one JSON file each.

Fields: `name`, `description`, `with_input` (holds {instruction} and {input}), `without_input` (holds {instruction})
and, if there is one, `system`. Ours lie in `rinsho/templates`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from rinsho.chat import Message
from rinsho.errors import UserError

_PLACEHOLDER = re.compile(r"\{(instruction|input)\}")
_NEEDED = {"with_input": ("instruction", "input"), "without_input": ("instruction",)}
_FIELDS = ("name", "description", "system", *_NEEDED)


@dataclass(frozen=True, slots=True)
class PromptTemplate:
    """How an instruction is put to a model.

    Attributes:
        name: one of `template_names()`, or the name in the file.
        text: the fields of its file, as a model folder keeps them.
    """

    name: str
    text: Mapping[str, str]

    def fill(self, instruction: str, input: str | None = None) -> str:
        r"""The text of the user's turn. What is filled in is never looked at: its braces stay.

        >>> read_template("context_question").fill("熱はあるか。", "体温 38.5 {input}")
        'Context: 体温 38.5 {input}\n\nQuestion: 熱はあるか。\n\nAnswer:'
        """
        values = {"instruction": instruction, "input": input or ""}
        form = self.text["with_input" if input else "without_input"]
        return _PLACEHOLDER.sub(lambda found: values[found[1]], form)

    def turns(self, instruction: str, input: str | None = None) -> tuple[Message, ...]:
        """The turns before the answer: the template's system turn, if it has one, and the user's."""
        system = self.text.get("system")
        start = (Message("system", system),) if system else ()
        return (*start, Message("user", self.fill(instruction, input)))


def template_names() -> list[str]:
    """The names of our templates.

    >>> template_names()
    ['alpaca', 'alpaca_ja', 'context_question', 'none']
    """
    found = resources.files("rinsho").joinpath("templates").iterdir()
    return sorted(file.name.removesuffix(".json") for file in found if file.name.endswith(".json"))


def read_template(name: str) -> PromptTemplate:
    """One of our templates by name, or that of a file whose name ends in .json.

    Raises:
        UserError: no such name or file, or the file is no template.

    Source: M-2.
    """
    file: Any = Path(name)
    if not name.endswith(".json"):
        if name not in template_names():
            raise UserError(
                f"unknown prompt template {name}",
                where="prompt_template",
                expected="one of " + ", ".join(template_names()) + ", or a file FILE.json",
            )
        file = resources.files("rinsho").joinpath("templates", f"{name}.json")
    try:
        text = json.loads(file.read_text(encoding="utf-8-sig"))
    except OSError:
        raise UserError("no such prompt template", where=name, expected="a JSON file", todo="check the path") from None
    except UnicodeDecodeError:
        raise UserError("not UTF-8", where=name, expected="a JSON file in UTF-8", todo="convert the file") from None
    except ValueError as error:
        raise UserError(f"not JSON ({error})", where=name, expected="a prompt template in JSON") from None
    return template_of(text, name)


def template_of(text: Any, where: object) -> PromptTemplate:
    """The template of fields that a file or a model folder holds.

    Raises:
        UserError: a field or a placeholder is missing, or there is one that no template has.
    """
    if not isinstance(text, dict) or not all(isinstance(value, str) for value in text.values()):
        raise UserError(
            "not a prompt template", where=where, expected="one JSON object of texts: " + ", ".join(_FIELDS)
        )
    unknown = [field for field in text if field not in _FIELDS]
    missing = [field for field in ("name", *_NEEDED) if field not in text]
    if unknown or missing:
        problem = f"unknown field {unknown[0]}" if unknown else f"no field {missing[0]}"
        raise UserError(problem, where=where, expected="the fields " + ", ".join(_FIELDS))
    for field, placeholders in _NEEDED.items():
        found = _PLACEHOLDER.findall(text[field])
        for placeholder in placeholders:
            if placeholder not in found:
                raise UserError(
                    f"{field} has no {{{placeholder}}}", where=where, expected="the place of the " + placeholder
                )
        if extra := set(found) - set(placeholders):
            raise UserError(f"{field} has {{{extra.pop()}}}", where=where, expected="no place for what is not there")
    return PromptTemplate(text["name"], text)
