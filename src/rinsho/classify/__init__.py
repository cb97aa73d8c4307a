"""The classification room: texts and options in, the probability of each option for each text out.

    rinsho classify MODEL DATA... --options A B C --out FOLDER

MODEL and DATA are as for `rinsho extract`. The run folder holds `classes.jsonl` and `classes.csv` (for Excel): a row
for each text with its `id`, the likeliest `option`, its `probability`, the probability of every option, and
`shortened` (the middle of the text was left out because the window is full). See docs/extract.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from rinsho.clinical.questions import any_class, own_question
from rinsho.clinical.reading import find_data
from rinsho.clinical.work import check_chat, check_model
from rinsho.errors import UserError
from rinsho.recipe import Settings
from rinsho.run import Report, Stage, perform
from rinsho.tasks.own import table_paths

__all__ = ["Recipe", "check", "run"]


class Recipe(Settings):
    """Settings of a classification."""

    options: tuple[str, ...] = Field((), description="what a text may belong to, 2 to 26 texts (neither 1)")
    question: str | None = Field(None, description="what is asked about each text; null: which option fits best")
    task: Path | None = Field(
        None, description="YAML file of kind classification, in place of options and question (docs/tasks.md)"
    )
    column: str = Field("text", description="where the text is, in tables and JSON lines")
    id_column: str | None = Field(None, description="where the id is; null: id, where there is such a column")
    encoding: str | None = Field(
        None, description="of .txt, .csv and .tsv files: cp932, euc-jp, utf-16, ...; null: UTF-8"
    )
    form: Literal["float32", "bfloat16", "int8", "int4"] | None = Field(
        None, description="number form of a folder's weights; null: what this machine is fast in (M-6)"
    )
    base: Path | None = Field(None, description="base of an adapter, where it is not the recorded one")
    slots: int = Field(4, ge=1, le=256, description="texts that are read at once")
    window: int | None = Field(None, ge=16, description="tokens of a text with its answer; null: the model's own")

    @model_validator(mode="after")
    def _one_question(self) -> Recipe:
        if self.task is not None and (self.options or self.question):
            raise ValueError("task: it has a question and options; leave out the others")
        return self


def run(recipe: Recipe, inputs: Sequence[Path], out: Path) -> Report:
    """The probability of each option for all texts in DATA, as a run folder; an interrupted run goes on.

    Raises:
        UserError: what `check` finds, a base model, or a model that does not fit this machine.

    Source: SPEC "neither 1".
    """
    for problem in check(recipe, inputs):
        raise problem
    model, *data = map(Path, inputs)

    def work(stage: Stage) -> Report:
        from rinsho.classify.work import classify

        return classify(recipe, model, data, stage)

    further = [path for path in (recipe.task, recipe.base) if path is not None]
    further += table_paths(recipe.task) if recipe.task else []
    return perform("classify", recipe, [model, *data, *further], out, work)


def check(recipe: Recipe, inputs: Sequence[Path]) -> list[UserError]:
    """Everything that can be known before the model is loaded: missing or broken files, wrong options, a base model."""
    if len(inputs) < 2:
        return [UserError("too few inputs", where="classify", expected="MODEL DATA...: a model and texts")]
    model, *data = map(Path, inputs)
    problems = check_model(model)
    looks: list[Callable[[], object]] = [
        lambda: find_data(data, recipe.column, recipe.id_column, recipe.encoding, "classify.encoding").count(),
        lambda: any_class(recipe.options) if recipe.task is None else own_question(recipe.task, "classification"),
    ]
    if not problems:
        looks.append(lambda: check_chat(model, recipe.base))
    for look in looks:
        try:
            look()
        except UserError as problem:
            problems.append(problem)
    return problems
