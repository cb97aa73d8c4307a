"""What the fine-tuning stage does, from its inputs to its report."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rinsho.device import reproducible
from rinsho.files import publish_folder, write_atomic
from rinsho.finetune import Recipe, models
from rinsho.finetune.data import Data, Feed, copying, quotas, read
from rinsho.finetune.loop import Position, Trainer
from rinsho.run import Report, Stage
from rinsho.tokens import Batch

DOCUMENTS = "train_documents.txt"


@dataclass
class Plan:
    """Which batch belongs to which step: first the copying warm-up, then the tasks."""

    copying: Feed | None
    tasks: Feed
    copy_steps: int
    steps: int
    rows_per_step: int

    def __call__(self, step: int) -> Batch:
        """The rows of a step, counted from 0."""
        if self.copying is not None and step < self.copy_steps:
            return self.copying.batch(step * self.rows_per_step, self.rows_per_step)
        return self.tasks.batch((step - self.copy_steps) * self.rows_per_step, self.rows_per_step)


def work(recipe: Recipe, inputs: Sequence[Path], stage: Stage) -> Report:
    """Conversations, tuning, the published folder and the report."""
    model, tokenizer, encoder = models.load(inputs[0], recipe)
    data = read(recipe, inputs[1:], encoder)
    for split in data.splits:
        for warning in split["warnings"]:
            stage.log(f"warning: {warning}")
    plan = make_plan(recipe, data, encoder)
    stage.log(f"{len(data.examples)} conversations, {plan.steps} steps, {plan.copy_steps} of them copying")
    with reproducible(recipe.threads):
        trainer = Trainer(recipe, model, plan, plan.steps, stage)
        end = trainer.train()
    numbers = _numbers(recipe, data, plan, end, model)
    extra = {"stage": "finetune", "base": models.base_facts(inputs[0]), "finetune": _tuned(recipe, data, end)}
    _publish(recipe, (model, tokenizer), data, extra, stage)
    return Report(numbers, _markdown(numbers))


def make_plan(recipe: Recipe, data: Data, encoder: Any) -> Plan:
    """Steps and batches of the whole run."""
    per_step = recipe.batch_tokens // recipe.sequence_length
    pad_id = encoder.eos_token_id
    feed = Feed(data.examples, quotas(data.examples, recipe), recipe, pad_id)
    exercises = copying(data.texts, recipe, encoder)
    copy_feed = None
    if exercises:
        copy_feed = Feed(exercises, {exercises[0].group: float(len(exercises))}, recipe, pad_id)
    copy_steps = -(-copy_feed.rows(1) // per_step) if copy_feed else 0
    if recipe.max_tokens is not None:
        copy_steps = min(copy_steps, recipe.copy_tokens // recipe.batch_tokens)
        steps = max(copy_steps + 1, recipe.max_tokens // recipe.batch_tokens)
    else:
        steps = copy_steps + max(1, round(feed.rows(recipe.epochs) / per_step))
    return Plan(copy_feed, feed, copy_steps, steps, per_step)


def _publish(recipe: Recipe, product: tuple[Any, Any], data: Data, extra: dict[str, Any], stage: Stage) -> None:
    """Writes the model folder aside, then moves its files into the run folder (DONE comes after them)."""
    aside = stage.partial / "published"
    shutil.rmtree(aside, ignore_errors=True)
    models.save(*product, aside, extra, recipe.save_dtype)
    write_atomic(aside / DOCUMENTS, "".join(f"{key}\n" for key in data.documents))
    publish_folder(aside, stage.out)


def _tuned(recipe: Recipe, data: Data, end: Position) -> dict[str, Any]:
    """What evaluation and people need to know of the tuning, for `rinsho.json`."""
    return {
        "answer_form": recipe.answer_form,
        "prompt_form": recipe.prompt_form,
        "split": recipe.split,
        "splits": data.splits,
        "tasks": sorted({example.group[0] for example in data.examples}),
        "igakuqa_years": list(recipe.igakuqa_years),
        "rows": len(data.examples),
        "train_documents": DOCUMENTS,
        "steps": end.step,
        "seen_tokens": end.seen_tokens,
        "sequence_length": recipe.sequence_length,
        "seed": recipe.seed,
    }


def _numbers(recipe: Recipe, data: Data, plan: Plan, end: Position, model: Any) -> dict[str, Any]:
    first_epoch = Counter(plan.tasks.examples[index].group[0] for index in plan.tasks.epoch(0))
    by_task: dict[str, dict[str, int]] = {}
    for example in data.examples:
        row = by_task.setdefault(example.group[0], {"rows": 0, "tokens": 0, "learned_tokens": 0, "longest": 0})
        row["rows"] += 1
        row["tokens"] += len(example.ids)
        row["learned_tokens"] += int(example.mask.sum())
        row["longest"] = max(row["longest"], len(example.ids))
    for task, row in by_task.items():
        row["rows_per_epoch"] = first_epoch[task]
    task_rows = (plan.steps - plan.copy_steps) * plan.rows_per_step
    return {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "steps": end.step,
        "copy_steps": plan.copy_steps,
        "epochs": round(task_rows / max(1, plan.tasks.rows(1)), 2),
        "seen_tokens": end.seen_tokens,
        "learned_tokens": end.learned_tokens,
        "loss": end.loss,
        "answer_form": recipe.answer_form,
        "prompt_form": recipe.prompt_form,
        "split": recipe.split,
        "tasks": by_task,
        "train_documents": len(data.documents),
        "shortened": data.shortened,
        "left_out": data.left_out,
        "warnings": [warning for split in data.splits for warning in split["warnings"]],
    }


def _markdown(numbers: dict[str, Any]) -> str:
    facts = [
        ("parameters", f"{numbers['parameters']:,}"),
        ("steps (copying)", f"{numbers['steps']:,} ({numbers['copy_steps']:,})"),
        ("epochs over the tasks", str(numbers["epochs"])),
        ("seen / learned tokens", f"{numbers['seen_tokens']:,} / {numbers['learned_tokens']:,}"),
        ("last loss", "-" if numbers["loss"] is None else f"{numbers['loss']:.4f} nats/token"),
        ("prompts, answers", f"{numbers['prompt_form']}, {numbers['answer_form']}"),
        ("split", numbers["split"]),
        ("training documents", f"{numbers['train_documents']:,}"),
        ("questions shortened / left out", f"{numbers['shortened']:,} / {numbers['left_out']:,}"),
    ]
    lines = ["# Fine-tuning", "", "| | |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in facts), ""]
    lines += ["| task | rows | rows an epoch | tokens | learned | longest |", "| --- " + "| ---: " * 5 + "|"]
    for task, row in sorted(numbers["tasks"].items()):
        cells = (row["rows"], row["rows_per_epoch"], row["tokens"], row["learned_tokens"], row["longest"])
        lines.append(f"| {task} | " + " | ".join(f"{cell:,}" for cell in cells) + " |")
    lines += ["", *(f"- {warning}" for warning in numbers["warnings"])]
    return "\n".join(lines).rstrip() + "\n"
