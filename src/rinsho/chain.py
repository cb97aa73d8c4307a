"""The chain: a recipe's sections become stages with inputs, run one after the other into one run folder."""

from __future__ import annotations

import importlib
import re
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from rinsho.errors import UserError
from rinsho.progress import duration
from rinsho.recipe import Settings, load, settings, to_yaml, unknown, with_overrides
from rinsho.run import read_done

TOP_KEYS = ("name", "seed")


@dataclass(frozen=True)
class Plan:
    """One stage of a recipe: its room, its settings, and its inputs as the recipe names them."""

    stage: str
    room: ModuleType
    recipe: Settings
    named_inputs: tuple[str, ...]
    where: str  # recipe file and section, for errors

    def given_names(self) -> list[str]:
        """The names in braces among the inputs."""
        return [match[1] for text in self.named_inputs if (match := re.match(r"\{(\w+)\}", text))]

    def inputs(self, run: Path, given: Mapping[str, Path]) -> list[Path]:
        """The input paths: `{name}` is a folder given on the command line, everything else lies in the run folder.

        Raises:
            UserError: a `{name}` was not given.
        """
        return [self._input(text, run, given) for text in self.named_inputs]

    def _input(self, text: str, run: Path, given: Mapping[str, Path]) -> Path:
        match = re.fullmatch(r"\{(\w+)\}/?(.*)", text)
        if not match:
            return run / text
        name, rest = match.groups()
        if name not in given:
            raise UserError(
                f"the input {text} was not given",
                where=self.where,
                expected=f"{name}=FOLDER on the command line",
                todo=f"add {name}=FOLDER",
            )
        folder = given[name].joinpath(str(rest))
        return folder


def resolve(path: Path | None, overrides: Sequence[str], rooms: Mapping[str, str]) -> tuple[dict[str, Plan], str]:
    """The stages of a recipe in the order of `rooms` (stage -> module), and the recipe's name.

    Without a file every stage has its defaults.

    Raises:
        UserError: unreadable file, unknown stage or setting, wrong type.
    """
    source = str(path) if path else "(no recipe)"
    raw = with_overrides(load(path) if path else {stage: {} for stage in rooms}, overrides)
    for key in raw:
        if key not in rooms and key not in TOP_KEYS:
            raise unknown(key, [*rooms, *TOP_KEYS], source, "section")
    name = raw.get("name", path.stem if path else "default")
    if not isinstance(name, str) or not re.fullmatch(r"\w[\w.-]*", name):
        raise UserError(f"name is {name!r}", where=source, expected="letters, digits, '.', '_' and '-'")
    plans = {stage: _plan(stage, raw, rooms[stage], source) for stage in rooms if stage in raw}
    if not plans:
        raise UserError("no stage in this recipe", where=source, expected="a section named " + ", ".join(rooms))
    return plans, name


def run_all(plans: Mapping[str, Plan], inputs: Mapping[str, Sequence[Path]], run: Path) -> Path:
    """Runs the stages in order into `run`, then writes and returns its report.html."""
    raise_all(problems(plans, inputs, run))
    started = time.monotonic()
    for number, (stage, plan) in enumerate(plans.items(), 1):
        print(f"[{number}/{len(plans)}] {stage}", file=sys.stderr, flush=True)
        plan.room.run(plan.recipe, inputs[stage], run / stage)
    print(f"all stages: {duration(time.monotonic() - started)}", file=sys.stderr)
    from rinsho.report import write_report

    return write_report(run)


def problems(plans: Mapping[str, Plan], inputs: Mapping[str, Sequence[Path]], run: Path) -> list[UserError]:
    """Everything that can be known before starting: missing inputs and what each room's `check` finds."""
    return [problem for found in problems_of_stages(plans, inputs, run).values() for problem in found]


def problems_of_stages(
    plans: Mapping[str, Plan], inputs: Mapping[str, Sequence[Path]], run: Path
) -> dict[str, list[UserError]]:
    """The same, by stage."""
    result: dict[str, list[UserError]] = {}
    coming = {run / stage for stage in plans if read_done(run / stage) is None}
    for stage, plan in plans.items():
        made_later = [path for path in inputs[stage] if coming & {path, *path.parents}]
        missing = [path for path in inputs[stage] if path not in made_later and not path.exists()]
        found = [
            UserError("not there", where=path, expected=f"an input of {stage}", todo="check the path")
            for path in missing
        ]
        if not missing and hasattr(plan.room, "check"):
            checked = plan.room.check(plan.recipe, inputs[stage])
            found += [problem for problem in checked if not _about(problem, made_later)]
        result[stage] = found
    return result


def describe(plans: Mapping[str, Plan], inputs: Mapping[str, Sequence[Path]]) -> str:
    """The resolved recipe as YAML, inputs included: what `--dry-run` prints."""
    parts = []
    for stage, plan in plans.items():
        lines = [f"  {line}" for line in to_yaml(plan.recipe).splitlines()]
        parts.append("\n".join([f"{stage}:", f"  inputs: {[str(path) for path in inputs[stage]]}", *lines]))
    return "\n".join(parts)


def given_folders(words: Sequence[str]) -> dict[str, Path]:
    """`NAME=FOLDER` words of the command line as a mapping.

    >>> given_folders(["text=/data/text"])
    {'text': PosixPath('/data/text')}
    """
    folders: dict[str, Path] = {}
    for word in words:
        name, equals, folder = word.partition("=")
        if not equals or not name.isidentifier() or not folder:
            raise UserError("cannot be read", where=word, expected="NAME=FOLDER, for instance text=data/text")
        if name in folders:
            raise UserError("the name is given twice", where=word, expected="a name of its own for every folder")
        folders[name] = Path(folder)
    return folders


def raise_all(found: Sequence[UserError]) -> None:
    """Raises one `UserError` that names all problems, if there are any."""
    if len(found) == 1:
        raise found[0]
    if found:
        raise UserError(f"{len(found)} problems: " + " | ".join(str(problem) for problem in found))


def _plan(stage: str, raw: Mapping[str, Any], module: str, source: str) -> Plan:
    section = raw[stage] if raw[stage] is not None else {}
    where = f"{source} {stage}"
    if not isinstance(section, Mapping):
        raise UserError("the section is a single value", where=where, expected="`key: value` lines")
    room = importlib.import_module(module)
    drawn = "seed" in raw and "seed" in room.Recipe.model_fields
    values = {"seed": raw["seed"], **section} if drawn else dict(section)
    named = values.pop("inputs", [])
    if not isinstance(named, list) or not all(isinstance(text, str) for text in named):
        raise UserError("inputs is not a list of paths", where=where, expected="inputs: [stage/folder, '{given}']")
    return Plan(stage, room, settings(room.Recipe, values, where), tuple(named), where)


def _about(problem: UserError, paths: Sequence[Path]) -> bool:
    """Whether a problem is only that something is not there yet which an earlier stage will make."""
    return any((problem.where or "").startswith(str(path)) for path in paths)
