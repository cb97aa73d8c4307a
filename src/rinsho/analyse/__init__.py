"""The analysis room: what a trained model has learned, looked at from five sides, on one page.

    rinsho analyse MODEL [RUN...] [EVALUATION...] [WORDS...] [CORPUS...] --out FOLDER

MODEL is a model or adapter folder, ours or any Hugging Face causal language model. RUN are further training runs (the
model's own and its base's are found), EVALUATION folders of `rinsho evaluate`, WORDS word lists that colour the maps,
CORPUS documents whose attention is looked at. The run folder holds `report.html`, which opens offline, and a folder for
each part: `embeddings`, `analogies`, `attention`, `curves`, `samples`, with its figures as files and the numbers behind
them as CSV. A part that the model or the inputs have nothing for is told in the report; one that failed is told there,
too, the others are made, and the run ends with an error: the same command makes what is left. See docs/analyse.md.

Samples and maps show what the model learned its texts from: protect the folder like them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, get_args

from pydantic import Field

from rinsho.analyse.analogy import AnalogySettings, check_expressions
from rinsho.analyse.analogy_scores import read_list
from rinsho.analyse.attention import AttentionSettings
from rinsho.analyse.attention import check as check_attention
from rinsho.analyse.embeddings import EmbeddingSettings
from rinsho.analyse.inputs import sort_inputs
from rinsho.analyse.projection import TITLES, missing
from rinsho.analyse.samples import SampleSettings, read_prompts
from rinsho.errors import UserError
from rinsho.recipe import Settings
from rinsho.run import Report, Stage, perform

__all__ = ["Recipe", "check", "describe", "run"]

PartId = Literal["embeddings", "analogies", "attention", "curves", "samples"]
PARTS: tuple[PartId, ...] = get_args(PartId)
PACKAGES = {"embeddings": "fugashi", "analogies": "transformers", "attention": "torch", "samples": "torch"}


class Recipe(Settings):
    """Settings of an analysis."""

    parts: tuple[PartId, ...] = Field(PARTS, description="chapters of the report, in this order (NA-1 to NA-5)")
    embeddings: EmbeddingSettings = Field(
        default_factory=lambda: EmbeddingSettings.model_validate({}), description="maps of the token embedding (NA-1)"
    )
    analogies: AnalogySettings = Field(
        default_factory=lambda: AnalogySettings.model_validate({}), description="a - b + c, and a test list (NA-2)"
    )
    attention: AttentionSettings = Field(
        default_factory=lambda: AttentionSettings.model_validate({}), description="attention over packed rows (NA-3)"
    )
    samples: SampleSettings = Field(
        default_factory=lambda: SampleSettings.model_validate({}), description="prompts and answers (NA-5)"
    )
    seed: int = Field(1, description="of projections, permutations, rows and drawn answers")


def run(recipe: Recipe, inputs: Sequence[Path], out: Path) -> Report:
    """The analysis of a model as a run folder with `report.html`; an interrupted run goes on with the parts left.

    Raises:
        UserError: what `check` finds, a part failed, or none could be made.

    Source: NA-1 to NA-5.
    """
    for problem in check(recipe, inputs):
        raise problem
    given = sort_inputs(inputs)

    def work(stage: Stage) -> Report:
        from rinsho.analyse.work import analyse

        return analyse(recipe, given, stage)

    files = [path for path in (recipe.analogies.file, recipe.samples.prompts) if path]
    return perform("analyse", recipe, [*given.hashed(), *files], out, work, also=given.state())


def check(recipe: Recipe, inputs: Sequence[Path]) -> list[UserError]:
    """Everything that can be known before a model is opened: inputs of no known kind, files that cannot be read,
    layers that the model does not have, packages without which a part cannot be made.
    """
    from rinsho.analyse.token_kinds import read_words

    looks: list[Callable[[], object]] = [lambda: read_words(sort_inputs(inputs).words)]
    if "analogies" in recipe.parts:
        looks.append(lambda: read_list(recipe.analogies.file))
        looks += [partial(check_expressions, [expression]) for expression in recipe.analogies.expressions]
    if "samples" in recipe.parts:
        looks.append(lambda: read_prompts(recipe.samples.prompts))
    if "attention" in recipe.parts and inputs:
        looks.append(lambda: check_attention(Path(inputs[0]), recipe.attention))
    problems = _packages(recipe)
    if not recipe.parts:
        problems.append(UserError("no part", where="analyse.parts", expected="one or more of " + ", ".join(PARTS)))
    for look in looks:
        try:
            look()
        except UserError as problem:
            problems.append(problem)
    return problems


def describe(recipe: Recipe, inputs: Sequence[Path], out: Path | None = None) -> str:  # noqa: ARG001
    """What the report will lack on this machine, a line each; empty when it lacks nothing."""
    lines = [f"no {TITLES[one]}: not installed ({how})" for one, how in _projections(recipe).items()]
    if find_spec("matplotlib") is None:
        lines.append("no figures: matplotlib is not installed (pip install 'rinsho[report]')")
    return "\n".join(lines)


def _projections(recipe: Recipe) -> dict[str, str]:
    """The maps that cannot be made here, and what to install."""
    wanted = recipe.embeddings.projections if "embeddings" in recipe.parts else ()
    return {one: how for one in dict.fromkeys(wanted) if (how := missing(one)) is not None}


def _packages(recipe: Recipe) -> list[UserError]:
    """A problem for each package that a part needs; a map is left out unless it was asked for by name."""
    problems = [
        UserError(
            f"the part {part} needs {PACKAGES[part]}", where="analyse.parts", expected="pip install 'rinsho[analyse]'",
            todo="or leave the part out",
        )
        for part in dict.fromkeys(recipe.parts) if part in PACKAGES and find_spec(PACKAGES[part]) is None
    ]  # fmt: skip
    if "projections" in recipe.embeddings.model_fields_set:
        problems += [
            UserError(f"{TITLES[one]} is not installed", where="analyse.embeddings.projections", expected=how)
            for one, how in _projections(recipe).items()
        ]
    return problems
