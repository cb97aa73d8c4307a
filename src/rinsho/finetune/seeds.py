"""One tuning per seed, each in a run folder of its own; the best one is the product."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from rinsho.adapters import is_adapter, move_home
from rinsho.files import publish_folder
from rinsho.finetune import Recipe, run
from rinsho.run import Report, Stage, read_done


def several(recipe: Recipe, inputs: Sequence[Path], stage: Stage) -> Report:
    """Tunes with every seed of `recipe.seeds` in `seed-<n>/`; publishes the one that validates best, else the first.

    A finished seed is skipped when the command runs again, an interrupted one continues.
    """
    rows = []
    for seed in recipe.seeds:
        single = recipe.model_copy(update={"seed": seed, "seeds": ()})
        numbers = run(single, inputs, stage.out / f"seed-{seed}").numbers
        scores = [look["score"] for look in numbers["validation"]]
        rows.append({"seed": seed, "loss": numbers["loss"], "score": max(scores, default=None), "numbers": numbers})
    best = max(rows, key=lambda row: float("-inf") if row["score"] is None else row["score"])
    _publish(stage.out / f"seed-{best['seed']}", inputs[0], stage)
    loss, score = _spread([row["loss"] for row in rows]), _spread([row["score"] for row in rows])
    numbers = {**best["numbers"], "published_seed": best["seed"], "loss_mean_sd": loss, "score_mean_sd": score}
    numbers["seeds"] = [{key: row[key] for key in ("seed", "loss", "score")} for row in rows]
    return Report(numbers, _markdown(numbers))


def _publish(folder: Path, base: Path, stage: Stage) -> None:
    """The files of a finished run's model at the top of the run folder, without a second copy on the disk."""
    done = read_done(folder)
    assert done is not None
    aside = stage.partial / "published"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    for name in done["products"]:
        if not name.startswith("last/"):
            (aside / name).parent.mkdir(parents=True, exist_ok=True)
            _link(folder / name, aside / name)
    if is_adapter(aside):
        move_home(aside, base, stage.out)
    publish_folder(aside, stage.out)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without links
        shutil.copy2(source, target)


def _spread(values: Sequence[float | None]) -> list[float] | None:
    """Mean and sample standard deviation; None where a value is missing."""
    known = [value for value in values if value is not None]
    if not known or len(known) < len(values):
        return None
    return [mean(known), stdev(known) if len(known) > 1 else 0.0]


def _markdown(numbers: dict[str, Any]) -> str:
    lines = ["# Fine-tuning with several seeds", ""]
    lines += ["| seed | last loss | best validation score |", "| ---: | ---: | ---: |"]
    for row in numbers["seeds"]:
        lines.append(f"| {row['seed']} | {_number(row['loss'])} | {_number(row['score'])} |")
    spreads = (numbers["loss_mean_sd"], numbers["score_mean_sd"])
    cells = ("-" if spread is None else f"{spread[0]:.4f} ± {spread[1]:.4f}" for spread in spreads)
    lines.append("| mean ± standard deviation | " + " | ".join(cells) + " |")
    why = "the best by its validation score" if numbers["score_mean_sd"] else "the first: nothing was held out"
    lines += ["", f"Published: seed {numbers['published_seed']}, {why}. Every seed's own run lies in `seed-<n>/`."]
    return "\n".join(lines) + "\n"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
