"""Room 5, fine-tuning: a model folder and task data in, an instruct model folder out.

    rinsho finetune MODEL DATA...

The product opens with `AutoModelForCausalLM.from_pretrained(<run folder>)`. See docs/finetune.md.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field

from rinsho.errors import UserError
from rinsho.packing import whole_rows
from rinsho.recipe import Settings
from rinsho.run import Report, Stage, perform
from rinsho.tasks.read import check_tasks, find_layouts


class Recipe(Settings):
    """Settings of fine-tuning. The defaults are what a model of a few million parameters learns from in minutes."""

    tasks: tuple[str, ...] | None = Field(None, description="tasks to tune on; default: all in the data (N2.4-2)")
    split: Literal["row", "document"] = Field(
        "document", description="training rows: pools minus test rows, or also minus near test passages (N2.4-2)"
    )
    igakuqa_years: tuple[int, ...] = Field((), description="IgakuQA years to train on; none by default (N3-1)")
    answer_form: Literal["letter", "text_letter"] = Field(
        "text_letter", description="choices are answered with the letter, or with the option's text, then the letter"
    )
    prompt_form: Literal["benchmark", "short"] = Field(
        "benchmark", description="questions as the benchmark puts them (N3-2), or the question alone (docs/finetune.md)"
    )
    max_rows_per_task: int | None = Field(None, ge=1, description="rows of a task in one epoch, at most")
    task_weights: dict[str, float] = Field(
        {}, description="factor on a task's rows in an epoch, for instance smdis: 0.2; 0 leaves the task out"
    )
    class_balance: float = Field(
        1.0, ge=0, le=1, description="0 keeps how often each answer occurs, 1 makes a tag's answers equally frequent"
    )
    epochs: int = Field(3, ge=1, description="passes over the data when max_tokens is not given")
    max_tokens: int | None = Field(
        None, ge=1, description="tokens to train on, padding and copying counted; overrides epochs"
    )
    copy_tokens: int = Field(
        0, ge=0, description="tokens of a warm-up in which marked spans of passages are copied (docs/finetune.md)"
    )
    sequence_length: int = Field(512, ge=16, description="tokens in a row; longer questions lose their middle")
    batch_tokens: int = Field(2048, ge=16, description="tokens in a step, a multiple of sequence_length (N2.4-2)")
    micro_batch_rows: int = Field(64, ge=1, description="rows computed at a time; changes memory, not the result")
    pack: bool = Field(True, description="several conversations in a row, which do not see each other")
    optimizer: Literal["adamw", "muon"] = Field("muon", description="muon: for the blocks' matrices only")
    learning_rate: float = Field(2e-3, gt=0, description="peak rate of AdamW (N2.4-2: 1e-4 for the 1.2B model)")
    muon_learning_rate: float | None = Field(
        4e-3, gt=0, description="peak rate of Muon, of AdamW's size; null: learning_rate"
    )
    betas: tuple[float, float] = Field((0.9, 0.95), description="AdamW's betas (N2.4-2)")
    adam_eps: float = Field(1e-8, gt=0, description="AdamW's epsilon (N2.3-5)")
    weight_decay: float = Field(0.01, ge=0, description="on all matrices, not on norm gains (N2.4-2)")
    grad_clip: float = Field(1.0, gt=0, description="largest norm of the gradient (N2.3-5)")
    warmup_steps: int = Field(20, ge=0, description="steps to the peak rate (N2.4-2 has 50)")
    schedule: Literal["cosine", "warmup_stable_decay", "linear", "constant"] = Field(
        "linear", description="learning rate after the warm-up, to zero (N2.4-2 has cosine)"
    )
    decay_fraction: float = Field(0.2, gt=0, le=1, description="share of the steps warmup_stable_decay falls in")
    neftune_alpha: float = Field(0.0, ge=0, description="size of NEFTune's noise on embeddings; the report: 5 (N2.4-2)")
    residual_dropout: float = Field(0.0, ge=0, lt=1, description="dropout on residual branches of our models (N2.3-4)")
    dtype: Literal["auto", "bf16", "fp32"] = Field(
        "auto", description="arithmetic of the matrices; auto: bf16 where the processor has it"
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: the graphics card if there is one")
    threads: int | None = Field(None, ge=1, description="processor threads; default: all")
    save_every_steps: int = Field(200, ge=1, description="a checkpoint to continue from every so many steps")
    log_every_steps: int = Field(10, ge=1, description="a line in metrics.jsonl every so many steps (NA-4)")
    save_dtype: Literal["float32", "bfloat16"] = Field("float32", description="number form of the published weights")
    seed: int = Field(1, description="decides order, noise, new rows and every other random choice")


def run(recipe: Recipe, inputs: Sequence[Path], out: Path) -> Report:
    """Tunes a model into `out`.

    Args:
        recipe: settings.
        inputs: the model's folder (ours or any Hugging Face causal language model), then one or more data folders.
        out: the run folder; the model's files lie at its top.
    """
    for problem in check(recipe, inputs):
        raise problem

    def work(stage: Stage) -> Report:
        from rinsho.finetune.work import work

        return work(recipe, inputs, stage)

    return perform("finetune", recipe, inputs, out, work)


def check(recipe: Recipe, inputs: Sequence[Path]) -> list[UserError]:
    """All problems that can be known before starting: settings that do not go together, model and data folders."""
    found = _settings_problems(recipe)
    if len(inputs) < 2:
        return [*found, UserError("inputs are missing", where="finetune", expected="MODEL DATA...")]
    model, *data = inputs
    found += _model_problems(recipe, model)
    try:
        check_tasks([*(recipe.tasks or ()), *recipe.task_weights])
        find_layouts(data)
    except UserError as problem:
        found.append(problem)
    return found


def _settings_problems(recipe: Recipe) -> list[UserError]:
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
    return found


def _model_problems(recipe: Recipe, model: Path) -> list[UserError]:
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
