"""Room 4, pre-training: a tokenizer and clean text in, a base model folder out.

    rinsho pretrain TOKENIZER CORPUS...

In place of corpora it takes what `rinsho tokenizer encode` made of them.

The product opens with `AutoModelForCausalLM.from_pretrained(<run folder>)`. See docs/pretrain.md.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field

from rinsho.document import shard_paths, training_folder
from rinsho.errors import UserError
from rinsho.model import ModelSettings, count_parameters
from rinsho.packing import whole_rows
from rinsho.recipe import Settings
from rinsho.run import Report, perform
from rinsho.token_files import is_encoded, open_encoded, open_tokens, token_folders


class Recipe(Settings):
    """Settings of pre-training."""

    model: ModelSettings = Field(
        default_factory=lambda: ModelSettings.model_validate({}),
        description="sizes and switches, or `preset: NAME` and what differs (N2.3)",
    )
    sequence_length: int = Field(512, ge=8, description="tokens in a row (N2.4-1)")
    batch_tokens: int = Field(8192, ge=8, description="tokens in a step, a multiple of sequence_length (N2.4-1)")
    micro_batch_rows: int = Field(16, ge=1, description="rows computed at a time; changes memory, not the result")
    max_tokens: int | None = Field(None, ge=1, description="tokens to train on; overrides epochs (N2.4-1)")
    epochs: float = Field(1.0, gt=0, description="passes over the text when max_tokens is not given (N2.4-1)")
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
    save_every_steps: int = Field(100, ge=1, description="a checkpoint to continue from every so many steps (N2.4-1)")
    keep_checkpoints: int = Field(2, ge=1, description="newest checkpoints kept while training")
    log_every_steps: int = Field(10, ge=1, description="a line in metrics.jsonl every so many steps (NA-4)")
    validation_every_steps: int = Field(100, ge=1, description="held-out loss every so many steps, and at the end")
    validation_tokens: int = Field(100_000, ge=1, description="held-out tokens the loss is measured on, at most")
    validation_fraction: float = Field(
        0.01, ge=0, lt=1, description="share of documents held out of a corpus that has no validation folder"
    )
    max_skipped_steps: int = Field(10, ge=0, description="steps with a non-finite loss before the run stops (N2.4-4)")
    max_broken_fraction: float = Field(0.01, ge=0, le=1, description="share of unreadable documents that is tolerated")
    save_dtype: Literal["float32", "bfloat16"] = Field("float32", description="number form of the published weights")
    workers: int = Field(0, ge=0, description="processes that encode the text, which change no result; 0 is one a core")
    keep_tokens: bool = Field(False, description="leave the token files (the training text) in the model folder")
    seed: int = Field(1, description="decides initialisation, order and every other random choice")


def run(recipe: Recipe, inputs: Sequence[Path], out: Path) -> Report:
    """Trains a base model into `out`.

    `inputs` are the tokenizer's folder, then one or more corpora (run folders of the corpus room, or any folders with
    documents), or encoded corpora.
    """
    for problem in check(recipe, inputs):
        raise problem

    def work(stage):  # type: ignore[no-untyped-def]
        from rinsho.pretrain.work import work

        return work(recipe, inputs, stage)

    return perform("pretrain", recipe, inputs, out, work)


def check(recipe: Recipe, inputs: Sequence[Path]) -> list[UserError]:
    """All problems that can be known before starting: settings that do not go together, inputs, memory."""
    found = _settings_problems(recipe)
    if len(inputs) < 2:
        found.append(UserError("inputs are missing", where="pretrain", expected="TOKENIZER CORPUS..."))
        return found
    tokenizer, *corpora = inputs
    if not (tokenizer / "tokenizer.json").is_file():
        found.append(UserError("no tokenizer in here", where=tokenizer, expected="a folder with tokenizer.json"))
    encoded = [path for path in corpora if is_encoded(path)]
    if encoded and len(encoded) < len(corpora):
        found.append(
            UserError(
                "corpora and token files are given together",
                where=encoded[0],
                expected="one or the other",
                todo="encode the corpora too: rinsho tokenizer encode",
            )
        )
    elif encoded:
        found += _token_problems(recipe, encoded, None if found else tokenizer)
    for corpus in corpora if not encoded else ():
        try:
            shard_paths([training_folder(corpus)])
        except UserError as problem:
            found.append(problem)
    return found or _memory_problems(recipe, tokenizer)


def copy_problems(recipe: Recipe, encoded: Sequence[Path]) -> list[UserError]:
    """Encoded corpora whose documents are not followed by the copies that the recipe wants."""
    found = []
    for path in encoded:
        manifest = open_tokens(token_folders(path)[0]).manifest
        copying = manifest["copying"] or {"fraction": 0.0, "window": 0}
        if copying["fraction"] != recipe.copy_fraction:
            found.append(
                UserError(
                    f"the token files were made with copy_fraction {copying['fraction']}",
                    where=path,
                    expected=f"{recipe.copy_fraction}, as in pretrain.copy_fraction",
                    todo="change pretrain.copy_fraction, or encode the corpus again",
                )
            )
        elif copying["window"] > recipe.sequence_length // 2:
            found.append(
                UserError(
                    f"the copies in the token files reach back {copying['window']} tokens",
                    where=path,
                    expected=f"at most {recipe.sequence_length // 2}, half of pretrain.sequence_length",
                    todo="encode the corpus again with that copy_window",
                )
            )
    return found


def _token_problems(recipe: Recipe, encoded: Sequence[Path], tokenizer: Path | None) -> list[UserError]:
    try:
        fingerprint = None
        if tokenizer is not None:
            from rinsho.tokenization import fingerprint as fingerprint_of

            fingerprint = fingerprint_of(tokenizer)
        open_encoded(encoded, fingerprint)
        return copy_problems(recipe, encoded)
    except UserError as problem:
        return [problem]


def _memory_problems(recipe: Recipe, tokenizer: Path) -> list[UserError]:
    """Weights, gradients and optimizer in float32 against this machine's memory; a graphics card has its own."""
    if recipe.device == "cuda" or Path("/proc/driver/nvidia").exists():
        return []
    try:
        vocab_size = len(json.loads((tokenizer / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"])
        whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (KeyError, TypeError, ValueError, OSError):
        return []
    needed = 16 * count_parameters(recipe.model, vocab_size)
    if needed < whole:
        return []
    what = f"weights, gradients and optimizer need {needed / 2**30:.1f} GiB, this machine has {whole / 2**30:.1f}"
    return [UserError(what, where="pretrain.model", expected="a smaller model", todo="for instance model: 60m")]


def _settings_problems(recipe: Recipe) -> list[UserError]:
    found = whole_rows(recipe.batch_tokens, recipe.sequence_length, "pretrain.batch_tokens")
    if recipe.sequence_length > recipe.model.max_position_embeddings:
        found.append(
            UserError(
                f"{recipe.sequence_length} is beyond the model's {recipe.model.max_position_embeddings} positions",
                where="pretrain.sequence_length",
                expected="at most model.max_position_embeddings",
            )
        )
    if recipe.pack == "best_fit" and not recipe.document_bounds:
        found.append(
            UserError("best_fit needs document_bounds", where="pretrain.pack", expected="pack: cut, or document_bounds")
        )
    return found
