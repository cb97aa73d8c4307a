"""Published scores of other models, one YAML file a benchmark, each row with its source (N3-3, M-5).

A file has `benchmark` (its name), `title`, `measure`, `columns`, `items` (how many questions, or points for
examinations, stand behind each column), `sources` by id (`title`, `place` in it, `paper` and `repository` where there
are such, `date`, `items` where they are others than the file's) and `rows`:

* `model`, and `parameters` where they are stated;
* `how`: zero-shot, few-shot (with `shots` where stated), fine-tuned (on training data of this benchmark),
  pre-trained (a model that was not taught to follow instructions), people, or unknown;
* `cells`: one a column, null where nothing was published: a number, or a pair of numbers as in the benchmark's tables;
* `share`: for examinations where only the share of all years was published;
* `source`: an id of `sources`; `same_as`: the row of another table that says the same of the same model;
* `apart`: why the row cannot be compared with the others (other questions); `leaked`: why the model may have seen the
  test; `remark`: what else a reader should know.

To add a row, write a line and its source; the tests say what is missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

FILES = ("igakuqa", "igakuqa_later", "jmed_choice", "jmed_entities", "jmedqa", "usmle")
HOW = ("zero-shot", "few-shot", "fine-tuned", "pre-trained", "people", "unknown")

Cell = float | tuple[float, float] | None


@dataclass(frozen=True)
class Score:
    """What one source says of one model; the fields are those of a row, see the top of this file.

    Attributes:
        items: behind each column.
        source: of the row, in words.
    """

    model: str
    how: str
    cells: tuple[Cell, ...]
    items: tuple[int | None, ...]
    source: str
    parameters: str | None = None
    shots: int | None = None
    share: float | None = None
    same_as: str | None = None
    apart: str | None = None
    leaked: str | None = None
    remark: str | None = None

    @property
    def notes(self) -> list[str]:
        """What a reader should know beside the numbers."""
        shots = f"{self.shots} solved examples" if self.shots else None
        return [text for text in (shots, self.apart, self.leaked, self.remark) if text]


@dataclass(frozen=True)
class Benchmark:
    """The published scores of a benchmark."""

    name: str
    title: str
    measure: str
    columns: tuple[str, ...]
    items: tuple[int | None, ...]
    scores: tuple[Score, ...]


@cache
def read(name: str) -> Benchmark:
    """The file of a benchmark.

    >>> read("igakuqa").scores[0].model, read("igakuqa").scores[0].cells[0]
    ('GPT-4', 382)

    Raises:
        ValueError: a row's `how` is none of `HOW`.
    """
    import yaml

    text = resources.files(__name__).joinpath(f"{name}.yaml").read_text(encoding="utf-8")
    found: dict[str, Any] = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506
    scores = []
    for row in found["rows"]:
        source = found["sources"][row["source"]]
        cells = tuple(tuple(cell) if isinstance(cell, list) else cell for cell in row["cells"])
        items = tuple(source.get("items", found["items"]))
        if row["how"] not in HOW:
            raise ValueError(f"{name}.yaml, {row['model']}: how is {row['how']!r}, not one of {', '.join(HOW)}")
        scores.append(Score(**{**row, "cells": cells, "items": items, "source": words(source)}))
    return Benchmark(
        found["benchmark"], found["title"], found["measure"], tuple(found["columns"]), tuple(found["items"]),
        tuple(scores),
    )  # fmt: skip


def words(source: dict[str, Any]) -> str:
    """A source in one line: title, place, paper or repository, date."""
    parts: Sequence[str | None] = [source.get(name) for name in ("title", "place", "paper", "repository", "date")]
    return ", ".join(part for part in parts if part)
