"""The extraction room: texts in, their diseases, medicines and values with places and probabilities out.

    rinsho extract MODEL DATA... --out FOLDER

MODEL is a model or adapter folder or a GGUF file. DATA are text files, tables (.csv, .tsv), JSON lines and Parquet, or
folders of them. The run folder holds

* `entities.jsonl` and `entities.csv` (for Excel): a row for each place of each entity: `id` of the text, `kind`,
  `text`, `start` and `end` (code points of the raw text), `probability` (empty for what a rule found), `unsure`,
  `source`;
* `documents.jsonl`: a row for each text: `id`, `characters`, `passages`, `cut` (the answer about a passage was cut
  off: entities may be missing), `entities`, `unsure`.

The texts themselves are not copied, but entities are pieces of them: protect the folder like the texts. See
docs/extract.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

from pydantic import Field

from rinsho.clinical.entities import MAX_NEW_TOKENS, THRESHOLD, VALUE
from rinsho.clinical.questions import COMMAS, QUESTIONS, own_question
from rinsho.clinical.reading import find_data
from rinsho.clinical.work import check_chat, check_model
from rinsho.errors import UserError
from rinsho.recipe import Settings, unknown
from rinsho.run import Report, Stage, perform
from rinsho.tasks.own import table_paths

__all__ = ["Recipe", "check", "run"]


class Recipe(Settings):
    """Settings of an extraction."""

    kinds: tuple[str, ...] | None = Field(
        None, description="disease, medicine, finding, value; null: disease, medicine and value (N3-2, neither 1)"
    )
    tasks: tuple[Path, ...] = Field((), description="YAML files of kind entities: kinds of one's own (docs/tasks.md)")
    threshold: float = Field(THRESHOLD, ge=0, le=1, description="entities below it are unsure (neither 1)")
    column: str = Field("text", description="where the text is, in tables and JSON lines")
    id_column: str | None = Field(None, description="where the id is; null: id, where there is such a column")
    encoding: str | None = Field(
        None, description="of .txt, .csv and .tsv files: cp932, euc-jp, utf-16, ...; null: UTF-8"
    )
    max_new_tokens: int = Field(
        MAX_NEW_TOKENS, ge=1, description="room for the answer about a passage, in tokens; what is longer is left out"
    )
    form: Literal["float32", "bfloat16", "int8", "int4"] | None = Field(
        None, description="number form of a folder's weights; null: what this machine is fast in (M-6)"
    )
    base: Path | None = Field(None, description="base of an adapter, where it is not the recorded one")
    slots: int = Field(4, ge=1, le=256, description="passages that are read at once")
    window: int | None = Field(None, ge=16, description="tokens of a passage with its answer; null: the model's own")


def run(recipe: Recipe, inputs: Sequence[Path], out: Path) -> Report:
    """The entities of all texts in DATA, as a run folder; an interrupted run goes on to the same bytes.

    Raises:
        UserError: what `check` finds, a base model, or a model that does not fit this machine.

    Source: SPEC "neither 1".
    """
    for problem in check(recipe, inputs):
        raise problem
    model, *data = map(Path, inputs)

    def work(stage: Stage) -> Report:
        from rinsho.extract.work import extract

        return extract(recipe, model, data, stage)

    further = [*recipe.tasks, *(table for path in recipe.tasks for table in table_paths(path))]
    further += [recipe.base] if recipe.base else []
    return perform("extract", recipe, [model, *data, *further], out, work)


def check(recipe: Recipe, inputs: Sequence[Path]) -> list[UserError]:
    """Everything that can be known before the model is loaded: missing or broken files, unknown kinds, a base model."""
    if len(inputs) < 2:
        return [UserError("too few inputs", where="extract", expected="MODEL DATA...: a model and texts")]
    model, *data = map(Path, inputs)
    problems = check_model(model)
    looks: list[Callable[[], object]] = [
        lambda: find_data(data, recipe.column, recipe.id_column, recipe.encoding).count(),
        *(partial(own_question, path, "entities") for path in recipe.tasks),
    ]
    if not problems and (recipe.kinds is None or recipe.tasks or set(recipe.kinds) & set(QUESTIONS)):
        looks.append(lambda: check_chat(model, recipe.base, ", or ask it for values alone: --kinds value"))
    for look in looks:
        try:
            look()
        except UserError as problem:
            problems.append(problem)
    known = (*QUESTIONS, VALUE)
    if any(COMMAS & set(kind) for kind in recipe.kinds or ()):
        return [*problems, UserError(
            "a comma in the name of a kind", where="extract.kinds", expected="one of " + ", ".join(known),
            todo="separate several by spaces: --kinds disease value",
        )]  # fmt: skip
    problems += [
        unknown(kind, known, "extract.kinds", "kind of entity") for kind in recipe.kinds or () if kind not in known
    ]
    if recipe.kinds == () and not recipe.tasks:
        problems.append(UserError("no kind of entity", where="extract.kinds", expected="one of " + ", ".join(known)))
    return problems
