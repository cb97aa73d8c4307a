"""Room 5, fine-tuning: a model folder and task data in, an instruct model folder or an adapter out.

    rinsho finetune MODEL DATA...

DATA is any mix of JMED-LLM and IgakuQA folders and of files of instructions (.json, .jsonl). See docs/finetune.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from rinsho.errors import UserError
from rinsho.recipe import Settings
from rinsho.run import Report, Stage, perform

Method = Literal[
    "lora", "rslora", "dora", "pissa", "olora", "kasa", "miss", "randlora", "vera", "ia3", "adaption_prompt"
]


class Adapter(Settings):
    """An adapter on a frozen base, by PEFT."""

    method: Method = Field("lora", description="PEFT's name of the kind of adapter (M-3)")
    rank: int = Field(8, ge=1, description="rank of the added matrices (M-3)")
    alpha: float = Field(16, gt=0, description="LoRA's alpha: the update is scaled by alpha / rank (M-3)")
    dropout: float = Field(0.0, ge=0, lt=1, description="dropout before the adapter; M-3 has 0.1")
    target_modules: Literal["all-linear"] | tuple[str, ...] = Field(
        "all-linear", description="layers that get one, by the end of their names; M-3: [q_proj, v_proj]"
    )
    options: dict[str, Any] = Field({}, description="further fields of the method's PEFT configuration")


class Recipe(Settings):
    """Settings of fine-tuning. The defaults are what a model of a few million parameters learns from in minutes."""

    tasks: tuple[str, ...] | None = Field(None, description="tasks to tune on; default: all in the data (N2.4-2)")
    split: Literal["row", "document", "case"] = Field(
        "document", description="training rows: pools minus test rows, minus near passages, minus cases (N2.4-2)"
    )
    test_part: Literal["published", "own"] = Field(
        "published", description="the benchmark's test rows, or a part of the pools drawn anew by document or case"
    )
    split_seed: int = Field(1, description="draws the own test part")
    igakuqa_years: tuple[int, ...] = Field((), description="IgakuQA years to train on; none by default (N3-1)")
    answer_form: Literal["letter", "text_letter"] = Field(
        "text_letter", description="choices are answered with the letter, or with the option's text, then the letter"
    )
    prompt_form: Literal["benchmark", "short"] = Field(
        "benchmark", description="questions as the benchmark puts them (N3-2), or the question alone (docs/finetune.md)"
    )
    chat: str = Field(
        "auto", description="auto | rinsho | own | plain | FILE.jinja: how turns are marked (docs/finetune.md; M-1)"
    )
    prompt_template: str = Field(
        "none", description="none | alpaca | alpaca_ja | context_question | FILE.json: rows of instructions (M-2)"
    )
    learn: Literal["answer", "all"] = Field("answer", description="tokens that are learned; M-3 has all")
    too_long: Literal["shorten", "leave_out", "refuse"] = Field(
        "shorten", description="a question longer than a row loses its middle, is left out, or ends the run"
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
    sequence_length: int = Field(512, ge=16, description="tokens in a row (too_long says what becomes of longer ones)")
    batch_tokens: int = Field(2048, ge=16, description="tokens in a step, a multiple of sequence_length (N2.4-2)")
    micro_batch_rows: int = Field(
        64, ge=1, description="rows computed at a time; changes memory, and with dropout or noise the random numbers"
    )
    pack: bool = Field(True, description="several conversations in a row, which do not see each other")
    adapter: Adapter | None = Field(None, description="train an adapter instead of the model (M-3)")
    quantization: Literal["none", "int8", "nf4"] = Field(
        "none", description="the frozen base under an adapter in LLM.int8 or NF4 (M-3)"
    )
    base_dtype: Literal["float32", "bfloat16"] = Field(
        "float32", description="number form of the frozen base under an adapter"
    )
    activation_checkpointing: bool = Field(False, description="compute activations twice instead of keeping them")
    objective: Literal["sft", "dpo"] = Field("sft", description="dpo: learn from pairs of a better and a worse answer")
    dpo_beta: float = Field(0.1, gt=0, description="how closely DPO keeps to the model it started from")
    optimizer: Literal["auto", "adamw", "adamw_8bit", "muon"] = Field(
        "auto",
        description="adamw_8bit: block-wise 8-bit states (M-3); muon: for the blocks' matrices only; auto: muon, adamw"
        " for adapters",
    )
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
    neftune_alpha: float = Field(0.0, ge=0, description="size of the noise on embeddings; the report: 5 (N2.4-2)")
    noise: Literal["neftune", "symnoise"] = Field("neftune", description="kind of that noise (N2.4-2)")
    residual_dropout: float = Field(0.0, ge=0, lt=1, description="dropout on residual branches of our models (N2.3-4)")
    validation_fraction: float = Field(
        0.0, ge=0, le=0.5, description="share of the training documents held out to choose the best step"
    )
    validate_every_steps: int = Field(100, ge=1, description="steps between two looks at the validation part")
    validation_rows_per_task: int = Field(64, ge=1, description="held-out rows asked per task, at most")
    patience: int | None = Field(None, ge=1, description="stop after so many looks without a better score")
    dtype: Literal["auto", "bf16", "fp32"] = Field(
        "auto", description="arithmetic of the matrices; auto: bf16 where the processor has it"
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: the graphics card if there is one")
    threads: int | None = Field(None, ge=1, description="processor threads; default: all")
    save_every_steps: int = Field(200, ge=1, description="a checkpoint to continue from every so many steps")
    log_every_steps: int = Field(10, ge=1, description="a line in metrics.jsonl every so many steps (NA-4)")
    save_dtype: Literal["float32", "bfloat16"] = Field("float32", description="number form of the published weights")
    seed: int = Field(1, description="decides order, noise, new rows and every other random choice")
    seeds: tuple[int, ...] = Field(
        (), description="tune once with each, publish the best by validation; mean and spread stand in the report"
    )


def run(recipe: Recipe, inputs: Sequence[Path], out: Path) -> Report:
    """Tunes a model into `out`.

    Args:
        recipe: settings.
        inputs: the model's folder (ours or any Hugging Face causal language model), then data folders and files.
        out: the run folder; the model's or adapter's files lie at its top.
    """
    for problem in check(recipe, inputs):
        raise problem

    def work(stage: Stage) -> Report:
        from rinsho.finetune.work import work

        return work(recipe, [Path(path) for path in inputs], stage)

    # templates of the user's own decide the product as the data do
    files = [Path(name) for name in (recipe.chat, recipe.prompt_template) if Path(name).suffix and Path(name).is_file()]
    return perform("finetune", recipe, [*inputs, *files], out, work)


def check(recipe: Recipe, inputs: Sequence[Path]) -> list[UserError]:
    """All problems that can be known before starting: settings that do not go together, model, data and templates."""
    from rinsho.finetune.checks import problems

    return problems(recipe, inputs)


def optimizer_kind(recipe: Recipe) -> Literal["adamw", "adamw_8bit", "muon"]:
    """The optimizer of a recipe. Muon makes matrices orthogonal, which is not for an adapter's thin ones."""
    if recipe.optimizer == "auto":
        return "muon" if recipe.adapter is None else "adamw"
    return recipe.optimizer
