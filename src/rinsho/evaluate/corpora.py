"""The texts behind a path: a corpus, or what a training run was trained on."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rinsho.errors import UserError
from rinsho.recipe import load
from rinsho.run import digest

MANIFEST = "manifest.json"
TRAININGS = ("pretrain", "finetune", "tokens")  # stages whose product is no text
OPTION = "name the corpora themselves in evaluate.leakage_corpus"


def corpora_of(path: Path) -> list[Path]:
    """The corpora that a path stands for.

    A training run (its folder, its manifest.json, or the folder of a whole chain) stands for the corpora among its
    inputs, and for those of the model that it went on from. Token files stand for the corpora that were encoded. What
    a tuning was tuned on is not among them: the model folder says it. Anything else stands for itself.

    Raises:
        UserError: the path, or a corpus that a run names, is not there, or a run names none.
    """
    found = list(dict.fromkeys(_follow(Path(path))))
    if not found:
        raise UserError("this run names no corpus", where=path, expected="a run trained on text", todo=OPTION)
    return found


def _follow(path: Path) -> Iterator[Path]:
    if not path.exists():
        raise UserError("not there", where=path, expected="a corpus or a training run", todo="check the path")
    run = _run_folder(path)
    about = _read(run / MANIFEST) if run is not None else None
    if run is None or about is None:
        yield path
    elif about["stage"] not in TRAININGS:
        yield run
    else:
        start, *corpora = about["inputs"]
        if about["stage"] != "finetune":
            for row in corpora:
                yield from _follow(_input(row, run))
        if _goes_on(about, run):
            model = _input(start, run)
            before = _read(model / MANIFEST)
            if before is not None and before["stage"] in TRAININGS:
                yield from _follow(model)


def _run_folder(path: Path) -> Path | None:
    """The folder whose manifest tells of a path; None for a folder or file that is no run."""
    if path.is_file():
        return path.parent if path.name == MANIFEST else None
    if (path / "tokens.json").is_file() and not (path / MANIFEST).is_file():
        if not (path.parent / MANIFEST).is_file():
            raise UserError("token files hold no text", where=path, expected="a corpus", todo=OPTION)
        return path.parent
    chain = path / "pretrain"  # of `rinsho all`
    return next((folder for folder in (path, chain) if (folder / MANIFEST).is_file()), None)


def _read(manifest: Path) -> dict[str, Any] | None:
    """What a run's manifest says; None where there is none, or one of something else.

    Raises:
        UserError: a training run's manifest does not list its inputs.
    """
    try:
        about = json.loads(manifest.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(about, dict) or not isinstance(about.get("stage"), str):
        return None
    rows = about.get("inputs")
    listed = isinstance(rows, list) and all(isinstance(row, dict) and isinstance(row.get("path"), str) for row in rows)
    if about["stage"] in TRAININGS and not (rows and listed):
        raise UserError("the inputs are not listed", where=manifest, expected="the manifest of a run", todo=OPTION)
    return about


def _goes_on(about: Mapping[str, Any], run: Path) -> bool:
    """Whether the first input is a model that was trained on, not only a tokenizer."""
    settings = run / "recipe.resolved.yaml"
    if about["stage"] == "pretrain":
        return settings.is_file() and load(settings).get("init_from") == "model"
    return bool(about["stage"] == "finetune")


def _input(row: Mapping[str, Any], run: Path) -> Path:
    """Where an input of a run is: at its recorded path, or beside the run where both were moved together."""
    path = Path(row["path"])
    if path.exists():
        return path
    moved = run.resolve().parent / path.name
    if moved.exists() and digest(moved) == row.get("hash"):
        return moved
    raise UserError(
        f"what the run in {run} was trained on is not there", where=path, expected="the folder or file named in"
        f" {run / MANIFEST}", todo=f"put it there, or {OPTION}",
    )  # fmt: skip
