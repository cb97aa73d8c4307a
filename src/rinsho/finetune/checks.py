"""What can be wrong with a tuning before it starts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from rinsho.chat_template import FORMS
from rinsho.errors import UserError
from rinsho.finetune import Recipe
from rinsho.finetune.inputs import sort_data
from rinsho.packing import whole_rows
from rinsho.prompting import read_template
from rinsho.recipe import unknown
from rinsho.tasks.read import ALL_TASKS, check_tasks, find_layouts

UNUSED: dict[str, set[str]] = {
    "ia3": {"rank", "alpha", "dropout"},
    "adaption_prompt": {"rank", "alpha", "dropout", "target_modules"},
    "vera": {"alpha"},
    "miss": {"alpha"},
}


def problems(recipe: Recipe, inputs: Sequence[Path]) -> list[UserError]:
    """All problems that can be known without opening a model: settings, the model's window, data, templates."""
    found = _combinations(recipe) + _adapter_problems(recipe) + _sizes(recipe) + _forms(recipe)
    if len(inputs) < 2:
        return [*found, UserError("inputs are missing", where="finetune", expected="MODEL DATA...")]
    model, *data = map(Path, inputs)
    return found + _model_problems(recipe, model) + _data_problems(recipe, data)


def _sizes(recipe: Recipe) -> list[UserError]:
    found = whole_rows(recipe.batch_tokens, recipe.sequence_length, "finetune.batch_tokens")
    if recipe.max_tokens is not None and recipe.copy_tokens + recipe.batch_tokens > recipe.max_tokens:
        found.append(
            UserError(
                f"copy_tokens {recipe.copy_tokens} leaves nothing of max_tokens {recipe.max_tokens}",
                where="finetune.copy_tokens",
                expected="a part of max_tokens",
            )
        )
    if any(weight < 0 for weight in recipe.task_weights.values()):
        found.append(UserError("a weight is negative", where="finetune.task_weights", expected="0 or more"))
    if len(set(recipe.seeds)) < len(recipe.seeds):
        found.append(UserError("a seed stands twice", where="finetune.seeds", expected="different seeds"))
    return found


def _combinations(recipe: Recipe) -> list[UserError]:
    """Settings that do not go together: (is wrong, what, where, expected)."""
    adapter, dpo = recipe.adapter is not None, recipe.objective == "dpo"
    rules = [
        (
            not adapter and recipe.quantization != "none",
            f"quantization {recipe.quantization} without an adapter", "finetune.quantization",
            "finetune.adapter, for instance {method: lora}: the rounded weights themselves cannot be trained",
        ),
        (
            not adapter and recipe.base_dtype != "float32",
            "base_dtype bfloat16 without an adapter", "finetune.base_dtype", "float32: the weights are trained",
        ),
        (
            adapter and recipe.optimizer == "muon",
            "optimizer muon with an adapter", "finetune.optimizer", "adamw or adamw_8bit",
        ),
        (
            adapter and recipe.residual_dropout > 0,
            "residual_dropout with an adapter", "finetune.residual_dropout", "0; adapter.dropout is the adapter's own",
        ),
        (
            recipe.patience is not None and not recipe.validation_fraction,
            "patience without a validation part", "finetune.patience", "finetune.validation_fraction above 0",
        ),
        (
            dpo and recipe.validation_fraction > 0,
            "a validation part with objective dpo", "finetune.validation_fraction",
            "0: evaluate the tuned model instead",
        ),
        (
            dpo and recipe.batch_tokens % (2 * recipe.sequence_length) != 0,
            f"batch_tokens {recipe.batch_tokens} holds no whole pairs", "finetune.batch_tokens",
            f"a multiple of {2 * recipe.sequence_length}, two rows of sequence_length",
        ),
        (
            dpo and bool(recipe.task_weights or recipe.max_rows_per_task or recipe.tasks),
            "tasks, task_weights or max_rows_per_task with objective dpo", "finetune.objective",
            "files of pairs, all of them used alike",
        ),
        (
            dpo and bool(not recipe.pack or recipe.igakuqa_years or recipe.prompt_template != "none"),
            "pack, igakuqa_years or prompt_template with objective dpo", "finetune.objective",
            "none of them: pairs stand alone in their rows and carry their own prompts",
        ),
        (
            adapter and recipe.save_dtype != "float32",
            "save_dtype bfloat16 with an adapter", "finetune.save_dtype", "float32: adapters are small",
        ),
        (
            recipe.noise == "symnoise" and not recipe.neftune_alpha,
            "noise symnoise of size 0", "finetune.noise", "finetune.neftune_alpha above 0",
        ),
        (dpo and recipe.copy_tokens > 0, "copy_tokens with objective dpo", "finetune.copy_tokens", "0"),
        (dpo and recipe.learn == "all", "learn: all with objective dpo", "finetune.learn", "answer"),
        (
            dpo and recipe.neftune_alpha > 0,
            "noise on embeddings with objective dpo", "finetune.neftune_alpha", "0",
        ),
    ]  # fmt: skip
    return [UserError(what, where=where, expected=expected) for wrong, what, where, expected in rules if wrong]


def _adapter_problems(recipe: Recipe) -> list[UserError]:
    """Settings that are given for a method which has no such thing."""
    if recipe.adapter is None:
        return []
    given = sorted(recipe.adapter.model_fields_set & UNUSED.get(recipe.adapter.method, set()))
    if not given:
        return []
    what = f"{recipe.adapter.method} has no {', '.join(given)}"
    return [UserError(what, where="finetune.adapter", expected="the method's own settings", todo="leave them out")]


def _forms(recipe: Recipe) -> list[UserError]:
    found = []
    if recipe.chat not in FORMS and not (recipe.chat.endswith(".jinja") and Path(recipe.chat).is_file()):
        what = "no such chat template" if recipe.chat.endswith(".jinja") else "unknown chat form"
        expected = ", ".join(FORMS) + " or a file .jinja with a chat template"
        found.append(UserError(f"{what}: {recipe.chat}", where="finetune.chat", expected=expected))
    try:
        read_template(recipe.prompt_template)
    except UserError as problem:
        found.append(problem)
    return found


def _data_problems(recipe: Recipe, data: Sequence[Path]) -> list[UserError]:
    try:
        folders, files = sort_data(data)
        check_tasks(recipe.tasks)
        names = [*ALL_TASKS, *(file.stem for file in files)]
        for name in recipe.task_weights:
            if name not in names:
                raise unknown(name, names, "finetune.task_weights", "task")
        if recipe.objective == "dpo" and (folders or not files):
            raise UserError(
                "objective dpo learns from pairs of answers", where=(folders or data)[0],
                expected='.jsonl files with "prompt", "chosen", "rejected"',
            )  # fmt: skip
        if folders:
            find_layouts(folders)
        elif recipe.objective == "sft" and (recipe.tasks or recipe.igakuqa_years):
            raise UserError(
                "tasks or igakuqa_years without a benchmark in the data", where="finetune.tasks",
                expected="a folder with JMED-LLM or IgakuQA", todo="files are chosen by task_weights (NAME: 0)",
            )  # fmt: skip
    except UserError as problem:
        return [problem]
    return []


def _model_problems(recipe: Recipe, model: Path) -> list[UserError]:
    if (model / "adapter_config.json").is_file():
        todo = f"merge it first: rinsho adapter merge {model} --out FOLDER"
        return [UserError("this is an adapter, not a model", where=model, expected="a model folder", todo=todo)]
    try:
        config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        expected = "a folder with config.json and weights"
        return [UserError("no model in here", where=model, expected=expected, todo="check the path")]
    if not isinstance(config, dict):
        return [UserError("config.json is not a JSON object", where=model, expected="a model's configuration")]
    window = config.get("max_position_embeddings")
    if isinstance(window, int) and recipe.sequence_length > window:
        return [
            UserError(
                f"sequence_length {recipe.sequence_length} is longer than the model's window of {window}",
                where="finetune.sequence_length",
                expected=f"at most {window}",
            )
        ]
    return []
