"""How the questions of an evaluation were asked, kept beside its answers: scoring these again must not tell otherwise.

The part `asked` of `asked.json`. What the recipe of a later run leaves open is as it was; what it sets otherwise than
was asked is an error; it may look at fewer tasks, years, modes and questions.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ConfigDict

from rinsho.errors import UserError
from rinsho.evaluate import Mode, Recipe
from rinsho.evaluate.inputs import ASKED_FILE
from rinsho.evaluate.leakage import Leak
from rinsho.recipe import Settings
from rinsho.tasks import Split, TestPart
from rinsho.tasks.examples import year_of

Value = TypeVar("Value")

SAME = ("few_shot", "few_shot_from", "test_part", "answer_form")  # set otherwise, they contradict what was asked
OF_OWN_PART = ("split", "split_seed")  # these decide which questions an own test part holds
TODO = "leave it out to score these answers as they were asked, or give the model itself to ask it anew"


class Asked(Settings):
    """The settings that decide what answers mean (as in `Recipe`), `how` the model came to them, and its leaks.

    `seed` is that of the draw of `max_items`. `leaks` are those found when the questions were asked: later the data may
    be others, and of the documents of a model only the asked ones are kept.
    """

    model_config = ConfigDict(extra="ignore")

    split: Split
    test_part: TestPart
    split_seed: int
    modes: tuple[Mode, ...]
    few_shot: int
    few_shot_from: str | None
    rotations: int
    tasks: tuple[str, ...] | None
    years: tuple[int, ...] | None
    max_items: int | None
    seed: int
    answer_form: str
    how: str
    leaks: tuple[Leak, ...]

    def row(self) -> dict[str, Any]:
        """As it is kept in JSON, always in the same order."""
        row = self.model_dump()
        for leak in row["leaks"]:
            leak |= {name: sorted(ids) for name, ids in leak.items() if name != "source"}
        return row


def read_asked(answers: Path) -> Asked | None:
    """What was kept beside a file of answers; None for answers from elsewhere.

    Raises:
        UserError: the file is there and is not what an evaluation writes.
    """
    path = answers.with_name(ASKED_FILE)
    if not path.is_file():
        return None
    try:
        row = json.loads(path.read_text(encoding="utf-8")).get("asked")
        return None if row is None else Asked.model_validate(row)
    except (ValueError, AttributeError, RecursionError):
        raise UserError(
            "not the file that an evaluation wrote", where=path, expected="how the questions were asked",
            todo="give answers.jsonl in a folder of its own to score it as a file from elsewhere",
        ) from None  # fmt: skip


def settle(recipe: Recipe, asked: Asked, answers: Path) -> Recipe:
    """The recipe under which these answers are scored: what it leaves open is as it was asked.

    Raises:
        UserError: it sets something that was asked otherwise, or none of its tasks, years or modes was asked.
    """
    told = {name for name in recipe.model_fields_set if getattr(recipe, name) not in (None, "auto")}
    new = {name: getattr(recipe, name) for name in told}
    was = {name: getattr(asked, name) for name in Asked.model_fields.keys() & Recipe.model_fields.keys()}
    same = (*SAME, *OF_OWN_PART) if asked.test_part == "own" else SAME
    wrong = [name for name in same if name in told and _plain(new[name]) != _plain(was[name])]
    wrong += ["rotations"] if new.get("rotations", 0) > asked.rotations else []
    wrong += ["modes"] if set(new.get("modes", ())) - set(asked.modes) else []
    if asked.few_shot == 0 and "few_shot" not in wrong and "few_shot_from" in wrong:
        wrong.remove("few_shot_from")  # no example is shown
    parts = {name: _both(new.get(name), was[name]) for name in ("tasks", "years")}
    wrong += [name for name, left in parts.items() if left == ()]
    for name in wrong:
        raise UserError(
            f"these questions were asked with {name}: {_shown(was[name])}, not {_shown(new[name])}",
            where=f"evaluate.{name}", expected=f"what {answers.with_name(ASKED_FILE)} says", todo=TODO,
        )  # fmt: skip
    counts = [count for count in (new.get("max_items"), asked.max_items) if count is not None]
    open_ = {name: value for name, value in was.items() if name not in told}
    return recipe.model_copy(update=open_ | parts | {"max_items": min(counts, default=None)})


def left_out(recipe: Recipe, asked: Asked | None) -> list[str]:
    """A note on tasks and years that the recipe names and that were not asked."""
    if asked is None:
        return []
    pairs = ((recipe.tasks, asked.tasks), (recipe.years, asked.years))
    missing = [str(name) for new, was in pairs if new and was is not None for name in new if name not in was]
    return [f"not asked, so not scored: {', '.join(missing)}"] if missing else []


def _both(new: tuple[Value, ...] | None, was: Collection[Value] | None) -> tuple[Value, ...] | None:
    """The new names among those that were asked; None for all."""
    if new is None or was is None:
        return new if was is None else tuple(was)
    return tuple(name for name in new if name in was)


def _plain(value: object) -> object:
    """A year or the name of a file, wherever it lies, and anything else as it is."""
    return value if not isinstance(value, str) else year_of(value) or Path(value).name


def _shown(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
