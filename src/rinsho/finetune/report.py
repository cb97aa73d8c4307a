"""What a tuning tells afterwards: to evaluation in `rinsho.json`, to people in the report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rinsho.finetune import Recipe, optimizer_kind
from rinsho.finetune.checks import UNUSED
from rinsho.finetune.inputs import Earlier
from rinsho.model_folder import DOCUMENTS
from rinsho.prompting import read_template

if TYPE_CHECKING:
    from rinsho.finetune.data import Data
    from rinsho.finetune.feed import Plan
    from rinsho.finetune.loop import Position, Trainer
    from rinsho.finetune.memory import Memory
    from rinsho.finetune.models import Loaded

GIB = 2**30
SHOWN_IDS = 5  # of the conversations left out
ASKED_WITH = ("answer_form", "prompt_form", "split", "test_part", "split_seed")


def tuned(recipe: Recipe, data: Data, loaded: Loaded, at: Position, earlier: Earlier) -> dict[str, Any]:
    """What evaluation and people need to know of the tuning, for `rinsho.json`.

    What an earlier tuning of the base was trained on counts on: its years, its test parts, and, where this one has no
    benchmark in its data, its split and the forms in which it is asked.
    """
    before = earlier.about
    facts: dict[str, Any] = {
        "objective": recipe.objective,
        "answer_form": recipe.answer_form,
        "prompt_form": recipe.prompt_form,
        "chat": loaded.render.form,
        "prompt_template": read_template(recipe.prompt_template).text,
        "split": recipe.split,
        "test_part": recipe.test_part,
        "split_seed": recipe.split_seed,
        "splits": [*before.get("splits", ()), *data.splits],
        "tasks": sorted({*before.get("tasks", ()), *(example.group[0] for example in data.examples)}),
        "igakuqa_years": sorted({*before.get("igakuqa_years", ()), *recipe.igakuqa_years}),
        "rows": len(data.examples),
        "train_documents": DOCUMENTS,
        "steps": at.step,
        "seen_tokens": at.seen_tokens,
        "sequence_length": recipe.sequence_length,
        "seed": recipe.seed,
    }
    if not data.splits:
        facts |= {key: before[key] for key in ASKED_WITH if key in before}
    if recipe.adapter is not None:
        facts["adapter"] = recipe.adapter.model_dump(mode="json")
        facts["quantization"], facts["base_dtype"] = recipe.quantization, recipe.base_dtype
    if at.scores:
        facts["validation"] = at.scores[-1]
    return facts


def all_warnings(data: Data) -> list[str]:
    """What the split leaves impossible, and what else should be known of the data."""
    return [*(warning for split in data.splits for warning in split["warnings"]), *data.warnings]


def settings_line(recipe: Recipe) -> str:
    """One line with the settings that people compare runs by."""
    kind = optimizer_kind(recipe)
    rate = f"{recipe.learning_rate:g}"
    if kind == "muon":
        rate = f"{recipe.muon_learning_rate or recipe.learning_rate:g} (AdamW's part {rate})"
    parts = [f"{recipe.objective}, {kind} {rate}, {recipe.schedule}, warm-up {recipe.warmup_steps}"]
    parts.append(f"{recipe.batch_tokens} tokens a step in rows of {recipe.sequence_length}")
    parts.append(f"learned: {'the whole text' if recipe.learn == 'all' else 'answers'}")
    if recipe.prompt_template != "none":
        parts.append(f"template {Path(recipe.prompt_template).name}")
    if recipe.adapter is not None:
        adapter = recipe.adapter
        places = adapter.target_modules if adapter.target_modules == "all-linear" else ", ".join(adapter.target_modules)
        told = {"rank": f"rank {adapter.rank}", "alpha": f"alpha {adapter.alpha:g}", "target_modules": f"on {places}"}
        unused = UNUSED.get(adapter.method, set())
        parts.append(", ".join([adapter.method, *(text for name, text in told.items() if name not in unused)]))
    return "; ".join(parts)


def rate_warnings(recipe: Recipe, kind: str) -> list[str]:
    """A line for runs at the default rates where these are likely to do harm."""
    if "learning_rate" in recipe.model_fields_set or not (recipe.objective == "dpo" or kind == "other"):
        return []
    return [
        f"warning: the default learning rate {recipe.learning_rate:g} is for small models of ours; a published model"
        " takes 1e-5 to 1e-4, dpo about 1e-6 (finetune.learning_rate)"
    ]


def numbers_of(
    recipe: Recipe, loaded: Loaded, trainer: Trainer, memory: Memory, *, data: Data, plan: Plan | None, base: str
) -> dict[str, Any]:
    """The report's numbers."""
    end = trainer.at
    numbers: dict[str, Any] = {
        "parameters": memory.trainable + memory.frozen,
        "trained_parameters": memory.trainable,
        "objective": recipe.objective,
        "method": "full" if recipe.adapter is None else recipe.adapter.method,
        "quantization": recipe.quantization,
        "steps": end.step,
        "planned_steps": trainer.steps,
        "seen_tokens": end.seen_tokens,
        "learned_tokens": end.learned_tokens,
        "loss": end.loss,
        **end.figures,
        "seconds_per_step": trainer.seconds_per_step,
        "predicted_memory_gib": round(memory.total / GIB, 3),
        "measured_memory_gib": measured_memory_gib(loaded),
        "answer_form": recipe.answer_form,
        "prompt_form": recipe.prompt_form,
        "chat": loaded.render.form,
        "split": recipe.split,
        "test_part": recipe.test_part,
        "has_split": bool(data.splits),
        "tasks": {},
        "train_documents": len(data.documents),
        "shortened": data.shortened,
        "left_out": len(data.left_out),
        "left_out_ids": data.left_out[:SHOWN_IDS],
        "validation": [{"step": look["step"], "score": look["value"]} for look in end.scores],
        "best_step": trainer.best_step,
        "warnings": all_warnings(data),
        "base": base,
        "settings": settings_line(recipe),
    }
    if plan is not None:
        task_rows = (plan.steps - plan.copy_steps) * plan.rows_per_step
        numbers["copy_steps"] = plan.copy_steps
        numbers["epochs"] = round(task_rows / max(1, plan.tasks.rows(1)), 2)
        numbers["tasks"] = rows_by_task(data, plan)
    return numbers


def rows_by_task(data: Data, plan: Plan) -> dict[str, dict[str, int]]:
    """Rows, tokens and lengths of every task."""
    quotas: dict[str, float] = {}
    for group, rows in plan.tasks.quotas.items():
        quotas[group[0]] = quotas.get(group[0], 0.0) + rows
    by_task: dict[str, dict[str, int]] = {}
    for example in data.examples:
        row = by_task.setdefault(example.group[0], {"rows": 0, "tokens": 0, "learned_tokens": 0, "longest": 0})
        row["rows"] += 1
        row["tokens"] += len(example.ids)
        row["learned_tokens"] += int(example.mask[1:].sum())  # nothing predicts the first token
        row["longest"] = max(row["longest"], len(example.ids))
    for task, row in by_task.items():
        row["rows_per_epoch"] = round(quotas[task])
    return by_task


def measured_memory_gib(loaded: Loaded) -> float:
    """The card's peak since the model was loaded, or this process's peak, GiB."""
    import torch

    from rinsho.circumstances import peak_memory_gib

    if next(loaded.model.parameters()).device.type == "cuda":
        return round(torch.cuda.max_memory_allocated() / GIB, 3)
    return peak_memory_gib()


def markdown(numbers: dict[str, Any]) -> str:
    """The report of one tuning."""
    seconds = numbers["seconds_per_step"]
    share = numbers["trained_parameters"] / max(1, numbers["parameters"])
    facts = [
        ("method, base", f"{numbers['method']} on {numbers['base']}, quantization {numbers['quantization']}"),
        ("settings", numbers["settings"]),
        ("parameters", f"{numbers['parameters']:,}, of them trained {numbers['trained_parameters']:,} ({share:.1%})"),
        ("steps", _steps(numbers)),
        ("seconds a step", "-" if seconds is None else f"{seconds:.3f}"),
        (
            "memory, predicted / measured",
            f"{numbers['predicted_memory_gib']} / {numbers['measured_memory_gib']} GiB"
            " (the process itself is in the measured figure only)",
        ),
        ("seen / learned tokens", f"{numbers['seen_tokens']:,} / {numbers['learned_tokens']:,}"),
        ("last loss", "-" if numbers["loss"] is None else f"{numbers['loss']:.4g} nats"),
        ("chat form", numbers["chat"]),
        ("training documents", f"{numbers['train_documents']:,}"),
        ("questions shortened / left out", f"{numbers['shortened']:,} / {_left_out(numbers)}"),
    ]
    if numbers["has_split"]:
        facts.append(("prompts, answers", f"{numbers['prompt_form']}, {numbers['answer_form']}"))
        facts.append(("split, test part", f"{numbers['split']}, {numbers['test_part']}"))
    if numbers["best_step"] is not None:
        best = max(look["score"] for look in numbers["validation"])
        facts.append(("best validation score", f"{best:.4f} at step {numbers['best_step']:,}"))
    if "reward_accuracy" in numbers:
        facts.append(("pairs told apart in the last step", f"{numbers['reward_accuracy']:.3f}"))
    lines = ["# Fine-tuning", "", "| | |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in facts), ""]
    if numbers["tasks"]:
        lines += ["| task | rows | rows an epoch | tokens | learned | longest |", "| --- " + "| ---: " * 5 + "|"]
    for task, row in sorted(numbers["tasks"].items()):
        cells = (row["rows"], row["rows_per_epoch"], row["tokens"], row["learned_tokens"], row["longest"])
        lines.append(f"| {task} | " + " | ".join(f"{cell:,}" for cell in cells) + " |")
    lines += ["", *(f"- {warning}" for warning in numbers["warnings"])]
    return "\n".join(lines).rstrip() + "\n"


def _steps(numbers: dict[str, Any]) -> str:
    said = f"{numbers['steps']:,}"
    if numbers["steps"] < numbers["planned_steps"]:
        said += f" of {numbers['planned_steps']:,} (stopped early)"
    if numbers.get("copy_steps"):
        said += f", {numbers['copy_steps']:,} of them copying"
    return said + (f"; {numbers['epochs']} epochs over the tasks" if "epochs" in numbers else "")


def _left_out(numbers: dict[str, Any]) -> str:
    if not numbers["left_out"]:
        return "0"
    more = ", …" if numbers["left_out"] > len(numbers["left_out_ids"]) else ""
    return f"{numbers['left_out']:,} ({', '.join(numbers['left_out_ids'])}{more})"
