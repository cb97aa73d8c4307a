"""Which questions a model is asked, or was asked: the recipe, what the model says of itself, and what was kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from rinsho.errors import UserError
from rinsho.evaluate import Recipe, endpoint
from rinsho.evaluate.ask import by_task
from rinsho.evaluate.asked import Asked, read_asked, settle
from rinsho.evaluate.facts import Facts, facts_of_answers, read_facts
from rinsho.evaluate.inputs import Inputs, Key, Subject
from rinsho.tasks import Item, Splitting, examples, read_data


@dataclass(frozen=True)
class Setting:
    """A model, and the recipe under which its answers are scored: how it was `asked` before decides what is open."""

    recipe: Recipe
    facts: Facts
    splitting: Splitting
    asked: Asked | None

    @property
    def draw_seed(self) -> int:
        """Of the draw of `max_items`: answers to an earlier draw are of no use under another one."""
        return self.asked.seed if self.asked and self.asked.max_items is not None else self.recipe.seed

    @property
    def shown(self) -> int | None:
        """The year of examinations that gives the solved examples."""
        return examples.year_of(self.recipe.few_shot_from) if self.recipe.few_shot else None

    @property
    def questions(self) -> tuple[Any, ...]:
        """All that the choice of the questions depends on, beside the data."""
        one = self.recipe
        return self.splitting, self.facts.years, one.tasks, one.years, one.max_items, self.draw_seed, self.shown


def setting(recipe: Recipe, subject: Subject) -> Setting:
    """Who is asked, or was asked, and how.

    Raises:
        UserError: the recipe sets something else than the questions of these answers were asked with.
    """
    facts = facts_of(subject)
    asked = read_asked(subject.path) if subject.kind == "answers" else None
    if asked is not None:
        recipe = settle(recipe, asked, subject.path)
    return Setting(recipe, facts, chosen(recipe, facts), asked)


def facts_of(subject: Subject) -> Facts:
    """The facts of a model folder, of the model that gave the answers, or the name of an endpoint's model."""
    if subject.kind == "folder":
        file, folder = subject.path, subject.folder.resolve()  # several files of a model have one folder
        return read_facts(folder, None if file == subject.folder else f"{folder.name}/{file.stem}")
    if subject.kind == "endpoint":
        return Facts(endpoint.read_settings(subject.path).model)
    return facts_of_answers(subject.path)


def chosen(recipe: Recipe, facts: Facts) -> Splitting:
    """The recipe's splitting; what it leaves open as the model was tuned, else as is usual."""
    usual = facts.splitting or Splitting()
    return Splitting(
        usual.split if recipe.split == "auto" else recipe.split,
        usual.test_part if recipe.test_part == "auto" else recipe.test_part,
        usual.seed if recipe.split_seed is None else recipe.split_seed,
    )


def read_tests(given: Inputs, how: Setting) -> list[Item]:
    """The test questions of the recipe, at most `max_items` of each task and year, in the order of the files.

    Examinations of the years that the model was trained on, or that give the solved examples, are never asked (N3-1).

    Raises:
        UserError: the recipe names such a year, no question is left, or a file is wrong.
    """
    recipe, trained = how.recipe, how.facts.years
    for year in set(recipe.years or ()).intersection(trained):
        raise UserError(
            f"the model was tuned on the examination of {year}", where="evaluate.years", expected="other years"
        )
    found = read_data(given.data, "test", how.splitting, recipe.tasks, recipe.years)
    items = [item for item in found if item.year is None or item.year not in (*trained, how.shown)]
    if not items:
        raise UserError(
            f"no question is left, because {_why_none(found, how)}", where=", ".join(map(str, given.data)),
            expected="questions that may be asked", todo="give other data, or other evaluate.tasks and evaluate.years",
        )  # fmt: skip
    if recipe.max_items is None:
        return items
    kept: set[str] = set()
    for _, group in by_task(items):
        drawn = sorted(group, key=lambda item: blake2b(f"{how.draw_seed}:{item.id}".encode(), digest_size=8).digest())
        kept.update(item.id for item in drawn[: recipe.max_items])
    return [item for item in items if item.id in kept]


def touched(
    items: Sequence[Item], answers: Mapping[Key, Mapping[str, Any]], subject: Subject
) -> tuple[list[Item], list[str]]:
    """(the questions that are scored, a note on the others): those of the tasks and years that a file answers at all.

    A question that is not answered in such a task counts as wrong; a task that was never asked says nothing.

    Raises:
        UserError: the file answers none of the questions.
    """
    if subject.kind != "answers":
        return list(items), []
    named = {key[0] for key in answers}
    groups = by_task(items)
    kept = {task for task, group in groups if any(item.id in named for item in group)}
    if not kept:
        raise UserError(
            "none of these answers is to a question of the data", where=subject.path,
            expected="ids as in smdis/00001, igakuqa/112A1", todo="give the data, tasks and years that were asked",
        )  # fmt: skip
    away = [task for task, _ in groups if task not in kept]
    ids = {item.id for task, group in groups if task in kept for item in group}
    note = f"not in the file of answers: {', '.join(away)}"
    return [item for item in items if item.id in ids], [note] if away else []


def _why_none(found: Sequence[Item], how: Setting) -> str:
    years = {item.year for item in found} - {None}
    why = [f"the model was tuned on the examination of {year}" for year in how.facts.years if year in years]
    if how.shown in years:
        why.append(f"the examination of {how.shown} gives the solved examples (evaluate.few_shot_from)")
    return " and ".join(why) or "the data hold none of these tasks and years"
