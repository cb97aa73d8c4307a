"""Room 4, pre-training: a tokenizer and clean text in, a base model folder out.

    rinsho pretrain TOKENIZER CORPUS...
    torchrun --nproc-per-node 4 -m rinsho pretrain TOKENIZER CORPUS...

In place of corpora it takes what `rinsho tokenizer encode` made of them, in place of the tokenizer a model folder.

The product opens with `AutoModelForCausalLM.from_pretrained(<run folder>)`. See docs/pretrain.md.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field

from rinsho.errors import UserError
from rinsho.model import ModelSettings
from rinsho.pretrain.mixture import SourceShare
from rinsho.recipe import Settings
from rinsho.run import Report, perform


class Recipe(Settings):
    """Settings of pre-training."""

    model: ModelSettings = Field(
        default_factory=lambda: ModelSettings.model_validate({}),
        description="sizes and switches, or `preset: NAME` and what differs (N2.3)",
    )
    init_from: Literal["nothing", "model"] = Field(
        "nothing", description="model: the first input is a model folder whose weights are trained on (N2.4-5)"
    )
    sequence_length: int = Field(512, ge=8, description="tokens in a row (N2.4-1)")
    batch_tokens: int = Field(8192, ge=8, description="tokens in a step, a multiple of sequence_length (N2.4-1)")
    micro_batch_rows: int = Field(
        16, ge=1, description="rows a process computes at a time: memory, and with dropout the random numbers"
    )
    max_tokens: int | None = Field(None, ge=1, description="tokens to train on; overrides epochs (N2.4-1)")
    epochs: float = Field(1.0, gt=0, description="passes over the text when max_tokens is not given (N2.4-1)")
    mixture: dict[str, SourceShare] = Field(
        default_factory=dict,
        description="sources by pattern with weight or epochs: {'hospital/*': 0.75, '*': 0.25}; empty: as it is",
    )
    pack: Literal["cut", "best_fit"] = Field(
        "best_fit", description="rows cut from one stream (the report), or documents put where they fit (N2.4-1)"
    )
    document_bounds: bool = Field(True, description="documents in a row do not see each other (false: the report)")
    copy_fraction: float = Field(
        0.0, ge=0, le=1, description="share of documents followed by copies of spans of themselves (docs/pretrain.md)"
    )
    optimizer: Literal["adamw", "muon"] = Field("adamw", description="muon: for the blocks' matrices only (N2.4-1)")
    learning_rate: float = Field(1e-3, gt=0, description="peak rate of AdamW (N2.4-1)")
    muon_learning_rate: float | None = Field(
        None, gt=0, description="peak rate of Muon, of AdamW's size; default: learning_rate"
    )
    betas: tuple[float, float] = Field((0.9, 0.95), description="AdamW's betas (N2.4-1)")
    adam_eps: float = Field(1e-8, gt=0, description="AdamW's epsilon (N2.3-5)")
    weight_decay: float = Field(0.1, ge=0, description="on all matrices, not on norm gains (N2.3-5, N2.4-1)")
    grad_clip: float = Field(1.0, gt=0, description="largest norm of the gradient (N2.3-5)")
    warmup_steps: int = Field(50, ge=0, description="steps to the peak rate (N2.4-1)")
    warmup: Literal["linear", "log"] = Field("linear", description="form of the warm-up; log: the report's (N2.4-1)")
    schedule: Literal["cosine", "warmup_stable_decay", "linear", "constant"] = Field(
        "cosine", description="learning rate after the warm-up, to zero (N2.4-1)"
    )
    decay_fraction: float = Field(0.2, gt=0, le=1, description="share of the steps warmup_stable_decay falls in")
    dtype: Literal["auto", "bf16", "fp32"] = Field(
        "auto", description="arithmetic of the matrices; auto: bf16 where the processor has it (N2.4-1)"
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: the graphics card if there is one")
    threads: int | None = Field(None, ge=1, description="processor threads; default: all")
    parallelism: Literal["ddp", "zero2", "zero3"] = Field(
        "ddp",
        description="what torchrun's processes share: rows; with gradients and optimizer; with weights (N2.4-1)",
    )
    attn_implementation: Literal["sdpa", "eager", "flex_attention", "varlen"] = Field(
        "sdpa", description="attention kernel, by transformers' name; varlen: without masks, on a graphics card in bf16"
    )
    compile: Literal["auto"] | bool = Field("auto", description="torch.compile of the layers; auto: on a graphics card")
    activation_checkpointing: bool = Field(False, description="compute activations twice instead of keeping them")
    fp8: bool = Field(False, description="the blocks' matrices in 8 bit (torchao; Hopper cards and newer)")
    loss_chunk_tokens: int | None = Field(
        None, ge=1, description="tokens whose logits are held at a time; default: 1,024, on a graphics card 8,192"
    )
    deterministic: bool = Field(True, description="the same bits every time; a graphics card may be faster without")
    save_every_steps: int = Field(100, ge=1, description="a checkpoint to continue from every so many steps (N2.4-1)")
    keep_checkpoints: int = Field(2, ge=1, description="newest checkpoints kept while training")
    keep_every_steps: int | None = Field(
        None, ge=1, description="model folders of these steps stay in checkpoints/ for good (N2.4-1: 3,200)"
    )
    background_checkpoints: Literal["auto"] | bool = Field(
        "auto", description="write them while training goes on; auto: on a graphics card"
    )
    log_every_steps: int = Field(10, ge=1, description="a line in metrics.jsonl every so many steps (NA-4)")
    plot: bool = Field(True, description="draw loss.png while training, at most once a minute, and at the end (NA-4)")
    validation_every_steps: int = Field(100, ge=1, description="held-out loss every so many steps, and at the end")
    validation_tokens: int = Field(100_000, ge=1, description="held-out tokens the loss is measured on, at most")
    validation_fraction: float = Field(
        0.01, ge=0, lt=1, description="share of documents held out of a corpus that has no validation folder"
    )
    on_spike: Literal["skip", "rollback", "record"] = Field(
        "skip", description="a step whose loss or gradient jumps: drop it, go back to a checkpoint, or note it (N2.4-4)"
    )
    spike_sigmas: float | None = Field(
        6.0,
        gt=0,
        description="standard deviations above the last spike_window steps (when there are so many) that are a jump, or"
        " twice ln(vocabulary) at any time; null: only what is not finite",
    )
    spike_window: int = Field(128, ge=8, description="steps a jump is measured against")
    max_skipped_steps: int = Field(10, ge=0, description="spikes skipped or rolled back before the run stops (N2.4-4)")
    max_broken_fraction: float = Field(0.01, ge=0, le=1, description="share of unreadable documents that is tolerated")
    save_dtype: Literal["float32", "bfloat16"] = Field("float32", description="number form of the published weights")
    workers: int = Field(0, ge=0, description="processes that encode the text, which change no result; 0 is one a core")
    keep_tokens: bool = Field(False, description="leave the token files (the training text) in the model folder")
    seed: int = Field(1, description="decides initialisation, order and every other random choice")


def run(recipe: Recipe, inputs: Sequence[Path], out: Path) -> Report:
    """Trains a base model into `out`; under torchrun every process calls it, and the first one alone writes.

    `inputs` are the tokenizer's folder, or with init_from a model folder, then one or more corpora (run folders of the
    corpus room, or any folders with documents), or encoded corpora.

    Raises:
        UserError: what `check` finds, damaged inputs, or too many spikes.
    """
    for problem in check(recipe, inputs):
        raise problem
    if recipe.init_from == "model":
        recipe = recipe.model_copy(update={"model": _sizes(inputs[0])})
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        from rinsho.pretrain.together import run_together

        return run_together(recipe, inputs, out)

    def work(stage):  # type: ignore[no-untyped-def]
        from rinsho.pretrain.work import work

        return work(recipe, inputs, stage)

    return perform("pretrain", recipe, inputs, out, work)


def _sizes(folder: Path) -> ModelSettings:
    """The sizes of a model folder, for the recipe that the run folder keeps."""
    from rinsho.sizing import settings_of

    return settings_of(json.loads((folder / "config.json").read_text(encoding="utf-8")))


def check(recipe: Recipe, inputs: Sequence[Path]) -> list[UserError]:
    """All problems that can be known before starting: settings that do not go together, inputs, memory."""
    from rinsho.pretrain.checks import check

    return check(recipe, inputs)
