"""Invented sample data: running text, a lexicon and tasks in the forms of JMED-LLM and IgakuQA.

A fresh machine has no data and real records cannot be shipped, so all of it is made from term lists and sentence
patterns, deterministically by the seed. Some terms and patterns stand in test documents only.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from rinsho.recipe import Settings

if TYPE_CHECKING:
    from rinsho.run import Report, Stage

__all__ = ["Recipe", "run", "write"]


class Recipe(Settings):
    """Sizes of the invented data."""

    seed: int = Field(1, description="chooses everything; the same seed gives the same files")
    text_size_mb: float = Field(5.5, gt=0, le=2000, description="running text, MB of UTF-8; the mess comes on top")
    shards: int = Field(4, ge=1, le=1000, description="files the running text is spread over")
    test_rows: int = Field(240, ge=8, le=2000, description="rows of each test file; sentence pairs half as many more")
    smdis_rows: int = Field(4000, ge=0, description="training rows about social-media posts")
    rrtnm_rows: int = Field(3000, ge=0, description="training rows about T, N and M, three a report")
    crade_rows: int = Field(2000, ge=0, description="training rows about adverse drug events")
    jcsts_rows: int = Field(2500, ge=0, description="training sentence pairs")
    crner_rows: int = Field(1500, ge=0, description="training rows about entities in case reports")
    rrner_rows: int = Field(700, ge=0, description="training rows about findings in reading reports")
    nrner_rows: int = Field(1500, ge=0, description="training rows about entities in nursing records")
    jmmlu_rows: int = Field(800, ge=0, description="training examination questions")
    igakuqa_problems: int = Field(100, ge=24, le=400, description="problems of each of two invented examinations")


def run(recipe: Recipe, inputs: Sequence[Path], out: Path) -> Report:
    """Writes the sample data into the run folder `out` and reports what was made; takes no inputs."""
    from rinsho.run import perform

    return perform("samples", recipe, inputs, out, lambda stage: _work(recipe, stage))


def write(recipe: Recipe, folder: Path) -> dict[str, int]:
    """Writes the sample data into a folder; gives the counts of rows and documents and the bytes of text."""
    from rinsho.samples.product import write as write_product

    return write_product(recipe, folder)


def _work(recipe: Recipe, stage: Stage) -> Report:
    from rinsho.run import Report

    numbers = write(recipe, stage.out)
    stage.log(f"{numbers['documents']} documents, {numbers['text_bytes']} bytes of text")
    lines = ["| made | count |", "|---|---:|", *(f"| {name} | {number:,} |" for name, number in numbers.items())]
    return Report(numbers, "\n".join(["Invented data (no real patients, no copied text).", "", *lines, ""]))
