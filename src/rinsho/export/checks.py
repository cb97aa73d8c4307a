"""What can be wrong with an export before it starts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import get_args

from rinsho import adapters
from rinsho.errors import UserError
from rinsho.export import Recipe
from rinsho.export.forms import refuse_llama
from rinsho.export.gguf_file import need, refuse
from rinsho.export.gguf_types import Type
from rinsho.export.probes import MAX_LINES
from rinsho.export.provenance import SCORES, scores_in
from rinsho.export.weights import open_weights


def problems(recipe: Recipe, inputs: Sequence[Path]) -> list[UserError]:
    """All problems that can be known without reading weights."""
    if not inputs:
        return [UserError("inputs are missing", where="export", expected="MODEL [EVALUATION...]")]
    model, *evaluations = map(Path, inputs)
    found = _settings(recipe)
    for folder in evaluations:
        found += _raised(partial(_evaluation, folder))
    for test in (lambda: _texts(recipe), lambda: _packages(recipe), lambda: _form(recipe, model)):
        found += _raised(test)
    return found


def _settings(recipe: Recipe) -> list[UserError]:
    """What contradicts itself. A setting of another form may have its default: resolved recipes name all."""
    found = []
    if not recipe.types:
        found.append(
            UserError("no type is given", where="export.types", expected=f"some of {', '.join(get_args(Type))}")
        )
    if len(set(recipe.types)) < len(recipe.types):
        found.append(UserError("a type stands twice", where="export.types", expected="different types"))
    gguf, fields = recipe.to == "gguf", type(recipe).model_fields
    for name in ("dtype",) if gguf else ("flavour", "types"):
        if getattr(recipe, name) != fields[name].default:
            found.append(
                UserError(
                    f"{name} is not for {recipe.to}", where=f"export.{name}",
                    expected=f"{name} with --to {'hf or llama' if gguf else 'gguf'} alone",
                    todo="leave it out, or export another form",
                )
            )  # fmt: skip
    return found


def _evaluation(folder: Path) -> None:
    if not (folder / SCORES).is_file():
        raise UserError(
            "no evaluation in here", where=folder, expected="a folder of rinsho evaluate, with scores.json",
            todo="the model comes first, evaluations follow it",
        )  # fmt: skip
    scores_in(folder)


def _texts(recipe: Recipe) -> None:
    if recipe.probe_texts is None:
        return
    path = Path(recipe.probe_texts)
    if not path.is_file():
        raise UserError("not there", where=path, expected="a file with a text a line", todo="check the path")
    try:
        lines = sum(1 for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
    except (OSError, UnicodeDecodeError):
        lines = 0
    if not 0 < lines <= MAX_LINES:
        raise UserError(
            f"{lines} texts to compare on", where=path, expected=f"1 to {MAX_LINES} lines of UTF-8 text, one a line"
        )


def _packages(recipe: Recipe) -> None:
    for package in ("gguf", "llama_cpp") if recipe.to == "gguf" else ():
        need(package)


def _form(recipe: Recipe, model: Path) -> None:
    """Whether the model, or an adapter's base, can have the wanted form."""
    if not model.exists():
        raise UserError("not there", where=model, expected="a model or adapter folder", todo="check the path")
    base = Path(recipe.base) if recipe.base else None
    if base is not None and not adapters.is_adapter(model):
        raise UserError("a base is given for a model that is no adapter", where="export.base", expected="an adapter")
    weights = open_weights(adapters.find_base(model, base) if adapters.is_adapter(model) else model)
    if recipe.to == "gguf":
        refuse(weights, recipe.flavour)
    elif recipe.to == "llama":
        refuse_llama(weights)


def _raised(test: Callable[[], None]) -> list[UserError]:
    try:
        test()
    except UserError as error:
        return [error]
    return []
