"""Room 8, export: a model folder in, the same model in a form that other programs run out, compared with the original.

    rinsho export MODEL [EVALUATION...] --to hf|llama|gguf

EVALUATION: folders of `rinsho evaluate`, whose scores stand in the model card. See docs/export.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field

from rinsho.errors import UserError
from rinsho.export.gguf_tensors import Flavour
from rinsho.export.gguf_types import Type
from rinsho.recipe import Settings
from rinsho.run import Report, Stage, perform


class Recipe(Settings):
    """Settings of an export."""

    to: Literal["hf", "llama", "gguf"] = Field(
        "gguf",
        description="hf: safetensors for transformers; llama: the same as a Llama, for programs that know only that;"
        " gguf: for llama.cpp (M-6, neither 4)",
    )
    dtype: Literal["float32", "bfloat16", "float16"] = Field(
        "bfloat16",
        description="number form of hf and llama; bfloat16: half the size, and what graphics cards compute in",
    )
    flavour: Flavour = Field(
        "llama", description="of gguf: llama runs wherever llama.cpp does, mimo2 is smaller and faster (docs/export.md)"
    )
    types: tuple[Type, ...] = Field(("q8_0",), description="number forms of gguf, a file each: f16, q8_0, q4_0, q4_k_m")
    base: str | None = Field(None, description="an adapter's base, where it is not the recorded one")
    probe_texts: str | None = Field(
        None, description="a file with a text a line: the export is compared on them too, beside the built-in texts"
    )
    title: str | None = Field(
        None, description="name of the model in card and file; default: of its size, as rinsho-15M-chat"
    )
    license: str | None = Field(
        None, description="licence of the model in card and file, for instance apache-2.0; default: from its data"
    )


def run(recipe: Recipe, inputs: Sequence[Path], out: Path) -> Report:
    """Exports a model into `out`; nothing appears when its answers are not those of the original.

    Args:
        recipe: settings.
        inputs: the model's or adapter's folder, then folders of evaluations.
        out: the run folder; the model lies at its top.
    """
    for problem in check(recipe, inputs):
        raise problem

    def work(stage: Stage) -> Report:
        from rinsho.export.work import work

        return work(recipe, [Path(path) for path in inputs], stage)

    texts = [Path(recipe.probe_texts)] if recipe.probe_texts else []  # their content decides what is compared
    return perform("export", recipe, [*inputs, *texts], out, work)


def check(recipe: Recipe, inputs: Sequence[Path]) -> list[UserError]:
    """All problems that can be known before starting: settings, paths, packages, architecture."""
    from rinsho.export.checks import problems

    return problems(recipe, inputs)
