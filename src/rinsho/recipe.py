"""Recipes: a YAML file and `--set` become frozen, typed settings; unknown keys are refused."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from rinsho.errors import UserError


class Settings(BaseModel):
    """Base of every `Recipe`: frozen, typed, no unknown keys.

    Each field has a type, a default, its unit in the name and one sentence of description with the SPEC id.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


AnySettings = TypeVar("AnySettings", bound=Settings)


def load(path: Path) -> dict[str, Any]:
    """The recipe file as plain nested dictionaries.

    Raises:
        UserError: the file is missing, is not YAML or is not a mapping at its top.
    """
    try:
        raw = read_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(
            "the recipe file is not there", where=path, expected="a YAML file", todo="check the path"
        ) from None
    except OSError as error:
        problem = (error.strerror or type(error).__name__).lower()
        raise UserError(f"the recipe cannot be read ({problem})", where=path, expected="a YAML file") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f"{path}:{mark.line + 1}" if mark else str(path)
        problem = getattr(error, "problem", None) or "not readable as UTF-8 YAML"
        raise UserError(f"not valid YAML ({problem})", where=line, expected="`key: value` lines") from None
    if raw is None:
        return {}
    if not isinstance(raw, dict):
        raise UserError("the recipe is not a mapping", where=path, expected="`key: value` lines at the top level")
    return raw


def read_yaml(text: str) -> Any:
    """Plain YAML as Python values. A file of a few lines must not stand for gigabytes: aliases are not taken.

    Raises:
        yaml.YAMLError: not YAML, an alias, brackets too deep or a number too long.

    >>> read_yaml("a: [1, 2]")
    {'a': [1, 2]}
    """
    try:
        for event in yaml.parse(text, yaml.SafeLoader):
            if isinstance(event, yaml.AliasEvent):
                mark: Any = event.start_mark
                raise yaml.composer.ComposerError(None, None, "aliases (*) are not taken", mark)
        return yaml.safe_load(text)
    except (RecursionError, ValueError) as error:
        raise yaml.YAMLError(type(error).__name__) from None


def with_overrides(raw: Mapping[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """A copy of `raw` with every `stage.key=value` of `--set` put in; values are read as YAML.

    >>> with_overrides({"corpus": {"min_chars": 5}}, ["corpus.min_chars=20", "corpus.languages=[ja]"])
    {'corpus': {'min_chars': 20, 'languages': ['ja']}}
    """
    result: dict[str, Any] = _copy(raw)
    for override in overrides:
        path, equals, text = override.partition("=")
        keys = path.strip().split(".")
        if not equals or not all(keys):
            raise UserError(
                "cannot be read",
                where=f"--set {override}",
                expected="stage.key=value, for instance corpus.min_chars=200",
            )
        try:
            value = read_yaml(text)
        except yaml.YAMLError:
            raise UserError(
                "the value is not valid YAML", where=f"--set {override}", expected="stage.key=value"
            ) from None
        node = result
        for key in keys[:-1]:
            child = node.setdefault(key, {})
            if child is None:  # a section that the recipe leaves empty
                child = node[key] = {}
            if not isinstance(child, dict):
                raise UserError(f"{key} is a single value, not a section", where=f"--set {override}")
            node = child
        node[keys[-1]] = value
    return result


def settings(cls: type[AnySettings], raw: Mapping[str, Any] | None, where: str) -> AnySettings:
    """The typed settings of one section.

    Args:
        cls: the room's `Recipe`.
        raw: the section as read.
        where: recipe file and section, used in the error.

    Raises:
        UserError: unknown key (with the nearest right one), wrong type or value out of range; all problems at once.
    """
    try:
        return cls.model_validate(dict(raw or {}))
    except ValidationError as error:
        raise UserError(
            "; ".join(_problem(cls, detail) for detail in error.errors()),
            where=where,
            todo=f"settings and their meaning: rinsho {where.rpartition(' ')[2]} --help",
        ) from None


def to_yaml(recipe: Settings) -> str:
    """The resolved settings as YAML, every default written out."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), allow_unicode=True, sort_keys=False)


def unknown(name: object, known: Iterable[str], where: str, kind: str = "key") -> UserError:
    """The error for a name that is not among the known ones, with the nearest one."""
    choices = list(known)
    return UserError(
        f"unknown {kind} {name!r}{_nearest(str(name), choices)}", where=where, expected="one of " + ", ".join(choices)
    )


def _copy(node: Any) -> Any:
    return {key: _copy(value) for key, value in node.items()} if isinstance(node, Mapping) else node


def _nearest(name: str, choices: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, choices, n=1, cutoff=0.5)
    return f" (did you mean {near[0]!r}?)" if near else ""


def _problem(cls: type[BaseModel], detail: Any) -> str:
    path = ".".join(str(part) for part in detail["loc"])
    if detail["type"] == "extra_forbidden":
        return f"unknown key {path!r}{_nearest(str(detail['loc'][-1]), _fields_at(cls, detail['loc'][:-1]))}"
    if detail["type"] == "missing":
        return f"{path} is missing"
    if detail["type"] == "value_error":  # a rule over several keys: its message says it, the input is the whole section
        return f"{path}: {detail['msg'].removeprefix('Value error, ')}".removeprefix(": ")
    if detail["type"] == "tuple_type":
        return f"{path} is {detail['input']!r}: a list is expected, for instance [notes]"
    return f"{path} is {detail['input']!r}: {detail['msg'][0].lower()}{detail['msg'][1:]}"


def _fields_at(cls: type[BaseModel], path: Sequence[int | str]) -> list[str]:
    for part in path:
        if isinstance(part, int):  # the place in a tuple[Settings, ...]
            continue
        annotation = getattr(cls.model_fields.get(part), "annotation", None)
        for inner in (annotation, *get_args(annotation)):
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                cls = inner
                break
    return list(cls.model_fields)
