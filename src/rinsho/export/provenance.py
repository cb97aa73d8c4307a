"""Where a model comes from, read from the folders that made it: data and licences, stages, tuning, scores.

What is not recorded stays None. A folder that a manifest names is followed only while it is still what it was (its
hash is compared), so that a card never tells of another model.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from rinsho.adapters import is_adapter
from rinsho.errors import UserError
from rinsho.export.cells import cell
from rinsho.export.licensing import AS_PUBLISHED
from rinsho.learned_from import learned_from
from rinsho.model_folder import read_manifest
from rinsho.recipe import read_yaml
from rinsho.run import digest
from rinsho.tasks.licenses import PUBLISHED

RUN_MANIFEST, RESOLVED, REPORT = "manifest.json", "recipe.resolved.yaml", "report.json"
SCORES, ASKED = "scores.json", "asked.json"
ABOVE = 3  # folders between a model (seed-1, last, checkpoints/step-…) and the run that made it
STAGES = 20  # of a chain; manifests that name each other in a circle end there
OTHERS = "(others)"
# What a card says of each row of an evaluation, beside what it can leave out.
NEEDED = {"scores": {"task", "mode", "n", "metric", "score"}, "leakage": {"task", "questions"}}


@dataclass(frozen=True)
class Stage:
    """One stage that made or changed the weights, as far as its folder says.

    Attributes:
        kind: `pretrain`, `finetune`, or `unknown` for a foreign model.
        about: its `rinsho.json`.
        run: `manifest.json` of the run: versions, inputs; empty where the run folder is gone.
        recipe, numbers: of the run: settings with every default, and `report.json`.
        adapter: the folder holds an adapter.
    """

    kind: str
    about: dict[str, Any]
    run: dict[str, Any] = field(default_factory=dict)
    recipe: dict[str, Any] = field(default_factory=dict)
    numbers: dict[str, Any] = field(default_factory=dict)
    adapter: bool = False


@dataclass(frozen=True)
class Evaluation:
    """One evaluation of this model.

    Attributes:
        scores: the numbers of `scores.json`.
        asked: `asked.json`.
        same_files: its manifest has the hash of the model's files; else steps, tokens and test part are the same.
        asked_as: the export that was asked, and in what it ran; None for the model itself, or where it is not known.
    """

    scores: dict[str, Any]
    asked: dict[str, Any]
    same_files: bool
    asked_as: str | None = None


@dataclass(frozen=True)
class Provenance:
    """Everything a model card says about where a model comes from.

    Attributes:
        manifest: the model's `rinsho.json`; empty for a foreign one.
        config: `config.json` of the model (of an adapter: of its base).
        tokenizer: `tokenizer_config.json`.
        data: what the weights have learned from, a row a stage (`rinsho.learned_from`).
        stages: the stages that are still there, first to last.
        tokenizer_numbers: `report.json` of the tokenizer's run.
        evaluations: of this model.
    """

    manifest: dict[str, Any]
    config: dict[str, Any]
    tokenizer: dict[str, Any]
    data: list[dict[str, Any]]
    stages: list[Stage]
    tokenizer_numbers: dict[str, Any]
    evaluations: list[Evaluation]

    @property
    def tuned(self) -> dict[str, Any]:
        """The `finetune` part of `rinsho.json`; empty for a base model."""
        found: dict[str, Any] = self.manifest.get("finetune") or {}
        return found

    @property
    def ours(self) -> bool:
        """Whether the model has rinsho's block, Arcee's with SiLU."""
        return self.config.get("model_type") == "arcee" and self.config.get("hidden_act") == "silu"

    @property
    def our_tokenizer(self) -> bool:
        """Whether the tokenizer is rinsho's."""
        return self.tokenizer.get("tokenizer_class") == "RinshoTokenizer"


def read(model: Path, base: Path | None, evaluations: Sequence[Path]) -> Provenance:
    """All that the run folders of a model, those it was made from and its evaluations say.

    Args:
        model: a model or adapter folder.
        base: that of an adapter, where it does not lie where its manifest says.
        evaluations: finished `evaluate` folders of this model; of several models, it is found among them.

    Raises:
        UserError: an evaluation is not readable or of another model.
    """
    stages, data, tokenizer_numbers = _chain(model, base, STAGES)
    adapter = is_adapter(model)
    home = base if adapter and base is not None else model
    if adapter and base is None:
        home = model / str((read_manifest(model).get("base") or {}).get("relative", "."))
    found = [each for path in evaluations for each in _evaluations(Path(path), model)]
    return Provenance(
        read_manifest(model), _json(home / "config.json"), _json(model / "tokenizer_config.json"), data, stages,
        tokenizer_numbers, found,
    )  # fmt: skip


# ---------------------------------------------------------------------- stages


def _chain(
    model: Path, base: Path | None, left: int
) -> tuple[list[Stage], list[dict[str, Any]], dict[str, Any]]:  # fmt: skip
    """(stages, what they learned from, the tokenizer's numbers) of a model and of everything below it."""
    about = read_manifest(model)
    run_folder = _run_of(model)
    run, recipe, numbers = _read_run(run_folder)
    stage = Stage(str(about.get("stage", "unknown")), about, run, recipe, numbers, is_adapter(model))
    first = _first_input(run_folder, run)
    going_on = stage.kind == "finetune" or recipe.get("init_from") == "model"
    below = base or (first if going_on else None)
    if below is None and stage.adapter:
        below = model / str((about.get("base") or {}).get("relative", ""))
    recorded = about.get("data") if isinstance(about.get("data"), list) else None
    stages: list[Stage] = []
    tokenizer: dict[str, Any] = {}
    if below is not None and (below / "config.json").is_file() and left:
        stages, data, tokenizer = _chain(below, None, left - 1)
    else:
        data = list(recorded[:-1]) if recorded else _of_base(about)
        if stage.kind == "pretrain" and first is not None and not going_on:
            tokenizer = _read_run(first)[2]
    own = recorded[-1] if recorded else _told_by_report(stage) or learned_from(model)[-1]
    return [*stages, stage], [*data, own], tokenizer


def _of_base(about: Mapping[str, Any]) -> list[dict[str, Any]]:
    """That there was a base, where it is gone and nothing else is known of it."""
    if not isinstance(about.get("base"), dict):
        return []
    return [{"stage": about["base"].get("stage", "unknown"), "sources": None}]


def _told_by_report(stage: Stage) -> dict[str, Any] | None:
    """The sources as the report of an earlier version has them, which named no licence; None without a report."""
    numbers = stage.numbers
    if stage.kind == "pretrain" and numbers.get("sources"):
        rows = [row for row in numbers["sources"] if row.get("passes", 1)]
        keys = ("source", "documents", "tokens", "share")
        sources = [{key: row.get(key) for key in keys} | {"licenses": None} for row in rows]
        listed = sum(row["documents"] for row in numbers["sources"])
        if numbers.get("documents", listed) > listed:
            counts = {key: numbers[key] - sum(row[key] for row in numbers["sources"]) for key in keys[1:3]}
            sources.append({"source": OTHERS, **counts, "share": None, "licenses": None})
        return {"stage": stage.kind, "sources": sources}
    if stage.kind == "finetune" and numbers.get("tasks"):
        sources = [
            {
                "source": task,
                "documents": row["rows"],
                "tokens": row["tokens"],
                "licenses": _as_published(task, row["rows"]),
            }
            for task, row in sorted(numbers["tasks"].items())
        ]
        return {"stage": stage.kind, "sources": sources}
    return None


def _as_published(task: str, rows: int) -> dict[str, int] | None:
    """The licence of a benchmark under this name: its terms are carried over where the run did not look at licences."""
    known = PUBLISHED.get(task)
    return {f"{known}{AS_PUBLISHED}": rows} if known else None


def _run_of(model: Path) -> Path | None:
    """The run folder that a model lies in; None for one that was copied out of it."""
    model = model.resolve()
    for folder in [model, *model.parents[:ABOVE]]:
        if (folder / RUN_MANIFEST).is_file() and (folder / RESOLVED).is_file():
            return folder
    return None


def _read_run(folder: Path | None) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """(manifest, recipe, numbers) of a run folder; what cannot be read is empty."""
    if folder is None:
        return {}, {}, {}
    try:
        recipe = read_yaml((folder / RESOLVED).read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        recipe = {}
    numbers = _json(folder / REPORT).get("numbers", {})
    return _json(folder / RUN_MANIFEST), recipe if isinstance(recipe, dict) else {}, numbers


def _first_input(folder: Path | None, run: Mapping[str, Any]) -> Path | None:
    """The first input of a run, if it is still there and still the same."""
    inputs = run.get("inputs") or []
    if folder is None or not inputs:
        return None
    told, wanted = Path(str(inputs[0].get("path"))), inputs[0].get("hash")
    for place in [told] if told.is_absolute() else [Path.cwd() / told, *(above / told for above in folder.parents)]:
        try:
            if place.is_dir() and digest(place) == wanted:
                return place
        except (UserError, OSError):
            continue
    return None


# ---------------------------------------------------------------------- evaluations


def scores_in(folder: Path) -> list[Path]:
    """The folders with the scores of one model each in an evaluation, which may be of several.

    Raises:
        UserError: no scores, or without what a card says of them, as earlier versions wrote them.
    """
    scores = _json(folder / SCORES)
    if not scores:
        raise UserError(
            "no scores in here", where=folder, expected="the folder of a finished evaluation of this model",
            todo="run rinsho evaluate, or leave it out",
        )  # fmt: skip
    names = [row.get("folder") for row in scores.get("models", []) if isinstance(row, dict)]
    places = [folder / name for name in names if isinstance(name, str)] or [folder]
    for place in places:
        told = _json(place / SCORES)
        for key, needed in NEEDED.items():
            if not all(isinstance(row, dict) and needed <= row.keys() for row in told.get(key) or ()):
                raise UserError(
                    f"this evaluation was written by an older rinsho: its {key} lack what a card says", where=place,
                    expected=", ".join(sorted(needed)), todo="evaluate again, or leave it out",
                )  # fmt: skip
    return places


def _evaluations(folder: Path, model: Path) -> list[Evaluation]:
    """The evaluations of the model in a folder, which may be one of several models.

    Raises:
        UserError: nothing of the model, or no finished evaluation.
    """
    found = [each for place in scores_in(folder) if (each := _evaluation(place, model)) is not None]
    exact = [each for each in found if each.same_files]
    if not found:
        raise UserError(
            "this evaluation is of another model", where=folder,
            expected="the hash of this model's files, or its steps, tokens and test part, in asked.json",
            todo="evaluate this model, or leave it out",
        )  # fmt: skip
    return exact or found


def _evaluation(folder: Path, model: Path) -> Evaluation | None:
    scores, asked, run = _json(folder / SCORES), _json(folder / ASKED), _json(folder / RUN_MANIFEST)
    hashes = {row.get("hash") for row in run.get("inputs", []) if isinstance(row, dict)}
    try:
        same = digest(model) in hashes
    except UserError:
        same = False
    if not same and not _same_facts(asked, model):
        return None
    return Evaluation(scores, asked, same, None if same else _asked_as(folder, run))


def _asked_as(folder: Path, run: Mapping[str, Any]) -> str | None:
    """Which export an evaluation asked, by its first input's name or the `rinsho.json` there; None for no export."""
    inputs = run.get("inputs") or [{}]
    name = Path(str(inputs[0].get("path"))).name
    if name.endswith(".gguf"):
        return f"`{cell(name)}` in llama.cpp"
    place = _first_input(folder, run)
    told = (read_manifest(place).get("export") if place else None) or {}
    if told.get("to") == "gguf":
        return f"`{cell(told['files'][0]['name'])}` in llama.cpp"
    return f"the form `{cell(told['to'])}` in {cell(told.get('dtype'))}, in transformers" if told.get("to") else None


def _same_facts(asked: Mapping[str, Any], model: Path) -> bool:
    """Whether what an evaluation was told by its model is what this one says of itself."""
    manifest = read_manifest(model)
    tuned = manifest.get("finetune") or {}
    base = manifest.get("base") if isinstance(manifest.get("base"), dict) else {}
    counts = [part["seen_tokens"] for part in (manifest, base or {}) if isinstance(part.get("seen_tokens"), int)]
    ours = {
        "stage": manifest.get("stage"),
        "steps": (tuned or manifest).get("steps"),
        "seen_tokens": sum(counts) if counts else None,
        "test_hashes": [split["test_hash"] for split in tuned.get("splits", ()) if "test_hash" in split],
    }
    return ours["steps"] is not None and all(asked.get(key) == value for key, value in ours.items())


def _json(path: Path) -> dict[str, Any]:
    """A JSON object; empty where there is none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
