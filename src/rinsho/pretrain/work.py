"""What the pre-training stage does, from its inputs to its report."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from rinsho.checkpoint import publish_checkpoint, step_folder
from rinsho.device import reproducible
from rinsho.distributed import World
from rinsho.files import publish_folder
from rinsho.learned_from import learned_from
from rinsho.model import build, parameters_by_part
from rinsho.model_folder import load_unfolded, publish, read_manifest
from rinsho.modeling import RinshoForCausalLM
from rinsho.pretrain import Recipe
from rinsho.pretrain.data import Data, load_tokenizer, prepare
from rinsho.pretrain.loop import ALONE, Position, Trainer
from rinsho.run import Report, Stage
from rinsho.sizing import settings_of


def work(
    recipe: Recipe, inputs: Sequence[Path], stage: Stage, me: World = ALONE, ready: Callable[[], None] = lambda: None
) -> Report:
    """Token files, training, the published folder and the report.

    Under torchrun every process calls it; `ready` is called when the first one has the data prepared, and the others
    come only then.
    """
    tokenizer, fingerprint = load_tokenizer(inputs[0])
    data = prepare(recipe, inputs, tokenizer, fingerprint, stage)
    ready()
    with reproducible(recipe.threads, recipe.deterministic):
        model = _model(recipe, inputs[0], tokenizer)
        config = model.config
        before = learned_from(inputs[0]) if recipe.init_from == "model" else []

        def to_folder(facts: dict[str, Any], weights: Mapping[str, Tensor], folder: Path) -> None:
            extra = {
                "stage": "pretrain",
                **facts,
                "sequence_length": recipe.sequence_length,
                "tokenizer": fingerprint,
                **_base(recipe, inputs[0]),
                "data": [*before, {"stage": "pretrain", "sources": data.learned_from()}],
            }
            publish(config, weights, tokenizer, folder, extra, recipe.save_dtype)

        trainer = Trainer(recipe, model, data, stage, me=me, publish=to_folder)
        crew = f"{me.size} processes ({recipe.parallelism}), " if me.size > 1 else ""
        stage.log(f"{crew}{trainer.steps} steps; {trainer.watch.formula}")
        started = time.monotonic()
        end = trainer.train()
        speed = (end.seen_tokens - trainer.seen_before) / max(time.monotonic() - started, 1e-9)
    numbers = _numbers(trainer, data, end)
    if me.main:
        _finish(trainer, stage)
    speeds = {"tokens_per_second": round(speed, 1), "mfu": trainer.watch.mfu(speed)}
    return Report(numbers | speeds, _markdown(numbers | speeds))


def _model(recipe: Recipe, folder: Path, tokenizer: Any) -> RinshoForCausalLM:
    """The model to train: fresh, or that of a published folder with the embedding scale taken out (N2.4-5)."""
    if recipe.init_from == "model":
        return load_unfolded(folder)
    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    return build(recipe.model, len(tokenizer), recipe.seed, **ids, pad_token_id=tokenizer.eos_token_id)


def _base(recipe: Recipe, folder: Path) -> dict[str, Any]:
    """What the product keeps of the model it came from."""
    if recipe.init_from == "nothing":
        return {}
    manifest = read_manifest(folder)
    kept = ("stage", "steps", "seen_tokens", "tokenizer")
    return {"base": {key: manifest[key] for key in kept if key in manifest}}


def _finish(trainer: Trainer, stage: Stage) -> None:
    """The last checkpoint's model files become those of the run folder (DONE comes after them)."""
    aside = stage.partial / "published"
    shutil.rmtree(aside, ignore_errors=True)
    publish_checkpoint(step_folder(trainer.checkpoints, trainer.at.step), aside)
    publish_folder(aside, stage.out)


def _numbers(trainer: Trainer, data: Data, end: Position) -> dict[str, Any]:
    held_out = end.validation_loss
    bits = data.held_out.bits_per_character(held_out) if data.held_out and held_out is not None else None
    config = trainer.model.config
    parts = parameters_by_part(settings_of(config), config.vocab_size)
    return {
        "parameters": sum(parts.values()),
        "parameters_by_part": parts,
        "vocab_size": config.vocab_size,
        "flops_per_token": trainer.watch.flops.total,
        "steps": end.step,
        "seen_tokens": end.seen_tokens,
        "epochs": round(end.rows / len(trainer.rows), 3),
        "skipped_steps": end.skipped_steps,
        "spikes": len(end.spikes),
        "loss": end.loss,
        "validation_loss": held_out,
        "validation_bits_per_character": bits,
        "validation": end.validation,
        "low_precision": trainer.low_precision,
        "device": trainer.device.type,
        "processes": trainer.me.size,
        **data.figures(),
    }


def _markdown(numbers: dict[str, Any]) -> str:
    held_out = numbers["validation_loss"]
    mfu = numbers["mfu"]
    rows = [
        ("parameters", f"{numbers['parameters']:,}"),
        ("documents / tokens", f"{numbers['documents']:,} / {numbers['tokens']:,}"),
        ("rows (filled)", f"{numbers['rows']:,} ({numbers['filled_fraction']:.1%})"),
        ("steps", f"{numbers['steps']:,}"),
        ("passes over the rows", f"{numbers['epochs']}"),
        ("seen tokens", f"{numbers['seen_tokens']:,}"),
        ("tokens/s, validation and saving included", f"{numbers['tokens_per_second']:,.0f}"),
        ("share of the hardware's peak (MFU)", "unknown" if mfu is None else f"{mfu:.1%}"),
        ("last training loss", "-" if numbers["loss"] is None else f"{numbers['loss']:.4f} nats/token"),
        ("held-out loss", "-" if held_out is None else f"{held_out:.4f} nats/token"),
        ("the same", "-" if held_out is None else f"{numbers['validation_bits_per_character']:.4f} bits/character"),
        ("spikes / steps skipped", f"{numbers['spikes']} / {numbers['skipped_steps']}"),
    ]
    lines = ["# Pre-training", "", "| | |", "| --- | --- |", *(f"| {a} | {b} |" for a, b in rows), ""]
    if len(numbers["sources"]) > 1:
        lines += ["| source | documents | tokens | passes | share |", "| --- | ---: | ---: | ---: | ---: |"]
        for row in numbers["sources"]:
            cells = f"{row['documents']:,} | {row['tokens']:,} | {row['passes']:.3g} | {row['share']:.1%}"
            lines.append(f"| {row['source'] or '-'} | {cells} |")
        lines.append("")
    if numbers["validation"]:
        lines += ["| source, held out | tokens | nats/token | bits/character |", "| --- | ---: | ---: | ---: |"]
        for name, row in numbers["validation"].items():
            loss, bits = ("-" if row[key] is None else f"{row[key]:.4f}" for key in ("loss", "bits_per_character"))
            lines.append(f"| {name or '-'} | {row['tokens']:,} | {loss} | {bits} |")
        lines.append("")
    return "\n".join(lines)
