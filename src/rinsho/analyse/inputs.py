"""The inputs of an analysis, told apart: the model, training runs, evaluations, word lists, documents."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rinsho.adapters import find_base, is_adapter
from rinsho.document import shard_paths
from rinsho.errors import UserError
from rinsho.files import quick_hash
from rinsho.memory import gguf_files
from rinsho.metrics import STAGES, find_runs
from rinsho.run import digest, read_done

WORD_LISTS = (".csv", ".tsv")
TERMS = "terms.tsv"  # of a folder of `rinsho tokenizer lexicon`
SCORES = "scores.json"  # of a folder of `rinsho evaluate`
METRICS = "metrics.jsonl"
_STEP = re.compile(r"step-\d+\Z")


@dataclass(frozen=True)
class Inputs:
    """What is looked at, in the given order.

    Attributes:
        model: its folder.
        runs: folders with metrics of training: that of the model's base, the model's own, then the given ones.
        evaluations: folders with scores.
        words: tables of words, and folders with `terms.tsv`.
        documents: files and folders with documents.
    """

    model: Path
    runs: tuple[Path, ...]
    evaluations: tuple[Path, ...]
    words: tuple[Path, ...]
    documents: tuple[Path, ...]

    def hashed(self) -> list[Path]:
        """What the manifest of the analysis names with hashes; of a run that has not ended only `state` counts."""
        runs = [run for run in self.runs if run != self.model and read_done(run) is not None]
        return [self.model, *runs, *self.evaluations, *self.words, *self.documents]

    def state(self) -> list[str]:
        """A hash of the metrics of every run: they are no product, and those of a run that goes on grow."""
        return [quick_hash(run / METRICS) for run in self.runs]


def sort_inputs(inputs: Sequence[Path]) -> Inputs:
    """The inputs by what they are; the first one is the model.

    Raises:
        UserError: no model, one in a form that cannot be looked into, or an input of no known kind.
    """
    if not inputs:
        raise UserError("no model", where="analyse", expected="MODEL [RUN...] [EVALUATION...] [WORDS...] [CORPUS...]")
    model, *others = map(Path, inputs)
    check_model(model)
    runs, evaluations, words, documents = own_runs(model), [], [], []
    for path in others:
        if (path.suffix.lower() in WORD_LISTS and path.is_file()) or (path / TERMS).is_file():
            words.append(path)
        elif (path / SCORES).is_file():
            evaluations.append(path)
        elif found := _runs_in(path):
            runs += found
        elif is_model(path):
            raise UserError(
                "a second model", where=path, expected="one model, and training runs with a metrics.jsonl",
                todo="make a report for each model",
            )  # fmt: skip
        else:
            shard_paths([path])
            documents.append(path)
    return Inputs(model, tuple(_once(runs)), tuple(_once(evaluations)), tuple(words), tuple(documents))


def is_model(path: Path) -> bool:
    """Whether a path is a model or adapter folder."""
    return (path / "config.json").is_file() or is_adapter(path)


def name_of(model: Path) -> str:
    """What to call a model: the end of its path, with what is above where that end is a stage or a checkpoint.

    >>> name_of(Path("runs/small/pretrain")), name_of(Path("models/ncvc"))
    ('small/pretrain', 'ncvc')
    >>> name_of(Path("w/checkpoints/step-00000020"))
    'w/step-00000020'
    """
    model = model.resolve()
    if (run := _origin(model)) != model:
        return f"{name_of(run)}/{model.name}"
    return "/".join(model.parts[-2 if model.name in STAGES else -1 :])


def config_of(model: Path) -> dict[str, Any]:
    """config.json of a model, of an adapter's base; empty where it cannot be read."""
    try:
        found = read_json((find_base(model) if is_adapter(model) else model) / "config.json")
    except UserError:  # the base is not there: told by what needs it
        return {}
    inner = found.get("text_config")
    return {**found, **inner} if isinstance(inner, dict) else found


def own_runs(model: Path) -> list[Path]:
    """The runs that made a model, as far as they are still there: those of its bases, the first one first, its own.

    A manifest names the base as it was given; it counts while its content is the same, there or beside the run.
    """
    found: list[Path] = []
    folder: Path | None = _origin(model)
    while folder is not None and folder not in found:
        found.insert(0, folder)
        folder = _base_run(folder)
    return [folder for folder in found if folder in _runs_in(folder)]


def _origin(model: Path) -> Path:
    """The run folder of a checkpoint; any other model's own folder."""
    if not _STEP.match(model.name):
        return model
    return model.parent.parent if model.parent.name == "checkpoints" else model.parent


def _base_run(folder: Path) -> Path | None:
    manifest = read_json(folder / "manifest.json")
    rows = manifest.get("inputs")
    if manifest.get("stage") != "finetune" or not isinstance(rows, list) or not rows:
        return None
    named = Path(str(rows[0].get("path", "")))
    for path in (named, folder.parent / named.name):
        try:
            if is_model(path) and digest(path) == rows[0].get("hash"):
                return _origin(path)
        except UserError:
            continue
    return None


def _runs_in(path: Path) -> list[Path]:
    try:
        return find_runs([path])
    except UserError:
        return []


def check_model(model: Path) -> None:
    """Refuses what is no folder of a model or an adapter.

    Raises:
        UserError: with what is there instead.
    """
    if gguf_files(model):
        raise UserError(
            "a GGUF file has no weights that can be looked into", where=model, expected="a model folder",
            todo="give the folder that it was exported from",
        )  # fmt: skip
    if not is_model(model):
        raise UserError(
            "no model" if model.exists() else "not there", where=model,
            expected="MODEL [RUN...] ...: a model or adapter folder comes first", todo="check the path",
        )  # fmt: skip


def _once(paths: Sequence[Path]) -> list[Path]:
    return list({path.resolve(): path for path in reversed(paths)}.values())[::-1]


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object in a file; empty where there is none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
