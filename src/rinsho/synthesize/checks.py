"""What can be known before a synthesis starts, and what makes two runs the same."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rinsho import client
from rinsho.document import shard_paths
from rinsho.errors import UserError
from rinsho.synthesize import plan, prompts, topics
from rinsho.synthesize.calls import ANSWER
from rinsho.synthesize.local import EXTRA

if TYPE_CHECKING:
    from rinsho.synthesize import Recipe, Teacher

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")  # a part of file names and of ids
HOW = ("max_concurrent_requests", "max_requests_per_minute", "timeout_seconds", "max_retries", "max_failures_in_a_row",
       "base_url", "api_key_variable", "slots")  # fmt: skip  # where and how fast a teacher is asked, not what


def given(recipe: Recipe, inputs: Sequence[Path]) -> list[Path]:
    """Everything whose content decides the product: inputs, seed tasks, benchmarks, local models."""
    further = [recipe.seed_tasks, *(teacher.folder for teacher in recipe.teachers.values())]
    return [*map(Path, inputs), *(Path(path) for path in further if path), *recipe.decontaminate]


def identity(recipe: Recipe) -> Recipe:
    """The settings that decide the product; files and folders count by content (`given`, `templates`)."""
    return recipe.model_copy(update={
        "teachers": {name: _asked(teacher) for name, teacher in recipe.teachers.items()},
        "cache": "", "max_failed_fraction": 0.0, "decontaminate": tuple(Path("given") for _ in recipe.decontaminate),
        "prompts": "", "seed_tasks": "given" if recipe.seed_tasks else "",
    })  # fmt: skip


def templates(recipe: Recipe, inputs: Sequence[Path]) -> tuple[str, list[str]]:
    """Digest and names of the templates that the run takes; the built-in ones may change with the version."""
    found, topic_kinds = prompts.load(recipe.prompts), set[str]()
    if plan.kinds_of(recipe):
        lists, _ = topics.sort_inputs([Path(path) for path in inputs])
        known = topics.read_topics(lists, recipe.topic_kinds, recipe.max_topics, recipe.seed)
        topic_kinds = {topic.kind for topic in known}
    names = found.taken([*recipe.kinds, *([ANSWER] if recipe.agreement else [])], topic_kinds)
    return found.digest(names), names


def check(recipe: Recipe, inputs: Sequence[Path]) -> list[UserError]:
    """Everything that can be known before the first request: teachers, keys, inputs, templates, files, packages."""
    problems = [problem for name, teacher in recipe.teachers.items() for problem in _teacher(recipe, name, teacher)]
    if not recipe.teachers:
        problems.append(UserError(
            "no teacher", where="synthesize.teachers", expected="at least one, with base_url and model or with folder",
            todo="for instance --set synthesize.teachers.local.folder=MODEL",
        ))  # fmt: skip
    for kind in recipe.kinds if recipe.teachers else ():
        if not plan.writers(recipe, kind):
            problems.append(UserError(
                f"no teacher writes {kind}", where="synthesize.kinds", expected="it among the kinds of a teacher",
            ))  # fmt: skip
    if not recipe.kinds:
        problems.append(UserError("no kind of text", where="synthesize.kinds", expected="for instance [textbook]"))
    problems += _inputs(recipe, inputs)
    problems += _said(lambda: prompts.load(recipe.prompts)) + _said(lambda: _seeds(recipe))
    problems += [
        UserError("not there", where=path, expected="a benchmark file", todo="check synthesize.decontaminate")
        for path in recipe.decontaminate
        if not path.exists()
    ]
    return problems


def _teacher(recipe: Recipe, name: str, teacher: Teacher) -> Iterator[UserError]:
    where = f"synthesize.teachers.{name}"
    if not NAME.fullmatch(name):
        yield UserError("no name for a teacher", where=where, expected="letters, digits, - _ . (64 at most)")
    if teacher.temperature == 0 and (kind := _several(recipe)):
        yield UserError(
            f"temperature 0 writes the same text each time, and there are several samples of {kind}",
            where=f"{where}.temperature", expected="above 0", todo="raise it, or ask for one sample",
        )  # fmt: skip
    if not teacher.folder:
        yield from client.check(teacher, where)
        if importlib.util.find_spec("httpx") is None:
            yield UserError("the package httpx is not installed", where=where, todo="pip install 'rinsho[client]'")
        return
    if teacher.base_url or teacher.model:
        yield UserError("a folder and an endpoint", where=where, expected="folder, or base_url and model")
    strange = [name for name in teacher.extra if name not in EXTRA]
    if strange:
        yield UserError(
            f"a local model has no setting {strange[0]}", where=f"{where}.extra", expected=" and ".join(EXTRA)
        )
    yield from _model(Path(teacher.folder), where)


def _model(folder: Path, where: str) -> list[UserError]:
    known = ("config.json", "adapter_config.json", "*.gguf")
    file = folder.is_file() and folder.suffix == ".gguf"
    if not file and not (folder.is_dir() and any(any(folder.glob(name)) for name in known)):
        what = "no model in here" if folder.exists() else "not there"
        return [UserError(f"{what} ({folder})", where=f"{where}.folder", expected="a model or adapter folder, or GGUF")]
    if importlib.util.find_spec("transformers") is None:
        return []  # told when the model is opened
    return _said(lambda: _check_chat(folder, where))


def _check_chat(folder: Path, where: str) -> None:
    """Nothing, where the model answers what it is asked; only its tokenizer is read."""
    from rinsho.chat_template import has_chat
    from rinsho.generate.loading import load_tokenizer
    from rinsho.generate.opening import gguf_file, is_gguf, load_gguf_tokenizer

    if not has_chat(load_gguf_tokenizer(gguf_file(folder)) if is_gguf(folder) else load_tokenizer(folder)):
        raise UserError(
            f"this is a base model, which continues texts and answers no requests ({folder})", where=f"{where}.folder",
            expected="an instruct model", todo="finetune it first: rinsho finetune MODEL DATA --out FOLDER",
        )  # fmt: skip


def _several(recipe: Recipe) -> str:
    """A kind of which there are several samples, so that one conversation would be asked again and again."""
    samples: dict[str, int] = {kind: plan.samples_of(recipe, kind) for kind in plan.kinds_of(recipe)}
    if "reading" in recipe.kinds:
        samples["reading"] = recipe.reading_samples
    return next((kind for kind, count in samples.items() if count > 1), "")


def _inputs(recipe: Recipe, inputs: Sequence[Path]) -> list[UserError]:
    """Inputs that are missing, that cannot be read, or that nothing is to be written about."""
    try:
        lists, documents = topics.sort_inputs([Path(path) for path in inputs])
    except UserError as problem:
        return [problem]
    problems = []
    for kinds, found, what, expected in (
        (plan.kinds_of(recipe), lists, "word lists (.csv, .tsv) of topics", "textbook or an exercise"),
        ([kind for kind in recipe.kinds if kind == "reading"], documents, "documents", "reading"),
    ):
        if kinds and not found:
            problems.append(
                UserError(f"{kinds[0]}: there is nothing to write about", where="synthesize", expected=what)
            )
        if found and not kinds:
            problems.append(UserError(
                f"{what} are given, but nothing is to be written about them", where=found[0],
                expected=f"{expected} among synthesize.kinds",
            ))  # fmt: skip
    if lists:
        problems += _said(lambda: topics.read_topics(lists, recipe.topic_kinds, recipe.max_topics, recipe.seed))
    return problems + (_said(lambda: shard_paths(documents)) if documents else [])


def _seeds(recipe: Recipe) -> None:
    if "instructions" in recipe.kinds:
        from rinsho.synthesize.instructions import read_seed_tasks

        read_seed_tasks(recipe.seed_tasks)


def _asked(teacher: Teacher) -> Teacher:
    plain = {name: type(teacher).model_fields[name].default for name in HOW}
    return teacher.model_copy(update={**plain, "folder": "given" if teacher.folder else ""})


def _said(look: Callable[[], object]) -> list[UserError]:
    try:
        look()
    except UserError as problem:
        return [problem]
    return []
