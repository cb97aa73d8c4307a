"""What the pre-training stage does, from its inputs to its report."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rinsho.device import reproducible
from rinsho.files import publish_folder
from rinsho.model import build, parameters_by_part, save_folded
from rinsho.pretrain import Recipe
from rinsho.pretrain.data import Data, load_tokenizer, prepare
from rinsho.pretrain.loop import Position, Trainer
from rinsho.run import Report, Stage


def work(recipe: Recipe, inputs: Sequence[Path], stage: Stage) -> Report:
    """Token files, training, the published folder and the report."""
    tokenizer, fingerprint = load_tokenizer(inputs[0])
    data = prepare(recipe, inputs, tokenizer, fingerprint, stage)
    with reproducible(recipe.threads):
        model = build(
            recipe.model,
            len(tokenizer),
            recipe.seed,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.eos_token_id,
        )
        trainer = Trainer(recipe, model, data.training, data.validation, stage)
        started, before = time.monotonic(), load_position(trainer)
        end = trainer.train(data.tokens_per_character)
        speed = (end.seen_tokens - before) / max(time.monotonic() - started, 1e-9)
    numbers = _numbers(recipe, len(tokenizer), trainer, data, end)
    _publish(recipe, trainer, tokenizer, data, stage)
    return Report(numbers | {"tokens_per_second": round(speed, 1)}, _markdown(numbers, speed))


def load_position(trainer: Trainer) -> int:
    """Tokens that an earlier, interrupted run has already seen."""
    from rinsho.checkpoint import load_checkpoint

    found = load_checkpoint(trainer.stage.partial / "checkpoints")
    return int(found.state["seen_tokens"]) if found else 0


def _publish(recipe: Recipe, trainer: Trainer, tokenizer: Any, data: Data, stage: Stage) -> None:
    """Writes the model folder aside, then moves its files into the run folder (DONE comes after them)."""
    aside = stage.partial / "published"
    shutil.rmtree(aside, ignore_errors=True)
    extra = {
        "stage": "pretrain",
        "steps": trainer.at.step,
        "seen_tokens": trainer.at.seen_tokens,
        "skipped_steps": trainer.at.skipped_steps,
        "sequence_length": recipe.sequence_length,
        "validation_loss": trainer.at.validation_loss,
        "tokenizer": data.tokens.manifest["tokenizer"],
    }
    save_folded(trainer.model, tokenizer, aside, extra, recipe.save_dtype)
    publish_folder(aside, stage.out)


def _numbers(recipe: Recipe, vocab_size: int, trainer: Trainer, data: Data, end: Position) -> dict[str, Any]:
    parts = parameters_by_part(recipe.model, vocab_size)
    held_out = end.validation_loss
    bits = held_out * data.tokens_per_character / math.log(2) if held_out is not None else None
    return {
        "parameters": sum(parts.values()),
        "parameters_by_part": parts,
        "vocab_size": vocab_size,
        "steps": end.step,
        "seen_tokens": end.seen_tokens,
        "epochs": round(end.rows / len(trainer.rows), 3),
        "skipped_steps": end.skipped_steps,
        "loss": end.loss if math.isfinite(end.loss) else None,
        "validation_loss": held_out,
        "validation_bits_per_character": bits,
        "low_precision": trainer.low_precision,
        "device": trainer.device.type,
        **data.figures(),
    }


def _markdown(numbers: dict[str, Any], speed: float) -> str:
    held_out = numbers["validation_loss"]
    rows = [
        ("parameters", f"{numbers['parameters']:,}"),
        ("documents / tokens", f"{numbers['documents']:,} / {numbers['tokens']:,}"),
        ("rows (filled)", f"{numbers['rows']:,} ({numbers['filled_fraction']:.1%})"),
        ("steps, epochs", f"{numbers['steps']:,}, {numbers['epochs']}"),
        ("seen tokens", f"{numbers['seen_tokens']:,}"),
        ("tokens/s", f"{speed:,.0f}"),
        ("last training loss", "-" if numbers["loss"] is None else f"{numbers['loss']:.4f} nats/token"),
        ("held-out loss", "-" if held_out is None else f"{held_out:.4f} nats/token"),
        (
            "held-out loss",
            "-" if held_out is None else f"{numbers['validation_bits_per_character']:.4f} bits/character",
        ),
        ("steps skipped", str(numbers["skipped_steps"])),
    ]
    return "\n".join(["# Pre-training", "", "| | |", "| --- | --- |", *(f"| {a} | {b} |" for a, b in rows), ""])
