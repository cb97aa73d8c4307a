"""The same packed tuning by rinsho's loop and by TRL's SFTTrainer with PEFT; started by `finetune.py --part peer`.

Needs `pip install trl accelerate datasets`. Both sides get the same model with the same LoRA (made by PEFT; equal
starting values), the same packed rows of real conversations in the same order, fused AdamW with the same groups and
rates, float32 or bf16 alike. Every measurement is a process of its own, the sides take turns (AB BA AB ...), and the
result is the median ratio of the pairs with its range. SFTTrainer gets the best fair settings: rows are prepared and in
memory, nothing is saved, logged or evaluated in the timed steps. Its losses are those that it logs afterwards.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from finetune import QUERY_VALUE, commit, table, version

SIDES = ("rinsho", "trl")
LENGTH, ROWS, UNTIMED = 512, 4, 3


def make_recipe(given: argparse.Namespace) -> Any:
    from rinsho.finetune import Recipe

    values: dict[str, Any] = {
        "optimizer": "adamw",
        "learning_rate": given.rate if given.full else given.adapter_rate,
        "sequence_length": LENGTH,
        "batch_tokens": ROWS * LENGTH,
        "max_tokens": ROWS * LENGTH * given.steps,
        "prompt_template": "alpaca" if given.meadow else "none",
        "prompt_form": "short",
        "answer_form": "letter",
        "dtype": given.dtype,
        "device": given.device,
        "seed": given.seed,
        "warmup_steps": min(20, given.steps // 2),
    }
    return Recipe.model_validate(values | ({} if given.full else {"adapter": QUERY_VALUE}))


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """One side in this process: seconds of the steps after the first ones, and all losses."""
    import torch

    from rinsho.device import choose_device, reproducible
    from rinsho.finetune import models
    from rinsho.finetune.data import read
    from rinsho.finetune.feed import make_plan
    from rinsho.finetune.loop import filled

    recipe = make_recipe(given)
    device = choose_device(recipe.device, "finetune.device")
    loaded = models.load(given.model, recipe, device)
    data = read(recipe, [given.meadow] if given.meadow else given.data, loaded.render)
    plan = make_plan(recipe, data, loaded.render)
    batches = [plan(step) for step in range(given.steps)]
    if given.side == "rinsho":
        with tempfile.TemporaryDirectory() as folder, reproducible(given.threads):
            row = ours(recipe, loaded, batches, Path(folder))
    else:
        torch.set_num_threads(given.threads or torch.get_num_threads())
        row = theirs(recipe, loaded, batches, device)
    tokens = sum(filled(batch) for batch in batches[UNTIMED:])
    wall, processor = (after - before for before, after in zip(row.pop("begin"), row.pop("end"), strict=True))
    rates = {"tokens_per_second": tokens / wall, "tokens_per_processor_second": tokens / processor}
    trained = sum(parameter.numel() for parameter in loaded.model.parameters() if parameter.requires_grad)
    learned = sum(batch.targets for batch in batches) / (len(batches) * ROWS * LENGTH)
    return {"side": given.side, **rates, "trained": trained, "learned_share": learned, **row}


def clock() -> tuple[float, float]:
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.monotonic(), time.process_time()


def ours(recipe: Any, loaded: Any, batches: list[Any], folder: Path) -> dict[str, Any]:
    """The loop of rinsho over these rows; everything this script knows about its inside stands here."""
    from rinsho.finetune.loop import Supervised, Trainer
    from rinsho.run import Stage

    objective = Supervised(recipe, loaded.model, lambda step: batches[step])
    trainer = Trainer(recipe, loaded, objective, len(batches), Stage("finetune", folder))
    losses, begin = [], clock()
    for number in range(len(batches)):
        if number == UNTIMED:
            begin = clock()
        trainer.step()
        losses.append(float(trainer.at.loss or 0.0))
    return {"begin": begin, "end": clock(), "losses": losses, "checkpoint": "safetensors and JSON, atomic"}


def theirs(recipe: Any, loaded: Any, batches: list[Any], device: Any) -> dict[str, Any]:
    """SFTTrainer over these rows."""
    import torch
    import transformers
    from datasets import Dataset
    from torch.utils.data import SequentialSampler
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    from rinsho.device import in_bfloat16
    from rinsho.optim import make_optimizer, rate_factor

    names = ("input_ids", "position_ids", "shift_labels")
    rows = [dict(zip(names, row, strict=True)) for batch in batches for row in zip(*batch, strict=True)]
    table_of_rows = Dataset.from_list([{"labels": row["shift_labels"], **row} for row in rows])
    marks: list[tuple[float, float]] = []
    losses: list[torch.Tensor] = []

    class Peer(SFTTrainer):
        def _get_train_sampler(self, *_args: Any, **_rest: Any) -> Any:
            return SequentialSampler(table_of_rows)

        def training_step(self, *args: Any, **rest: Any) -> torch.Tensor:
            loss: torch.Tensor = super().training_step(*args, **rest)
            losses.append(loss.detach())
            return loss

    class Clock(transformers.TrainerCallback):
        def on_step_end(self, *_args: Any, **_rest: Any) -> None:
            marks.append(clock())

    named = [(name, p) for name, p in loaded.model.named_parameters() if p.requires_grad]
    made = make_optimizer(
        named, "adamw", learning_rate=recipe.learning_rate, betas=recipe.betas, eps=recipe.adam_eps,
        weight_decay=recipe.weight_decay, rates=loaded.rates,
    )  # fmt: skip
    steps, warmup = len(batches), recipe.warmup_steps
    schedule = torch.optim.lr_scheduler.LambdaLR(
        made.parts[0], lambda step: rate_factor(step, steps, warmup_steps=warmup, schedule=recipe.schedule)
    )
    with tempfile.TemporaryDirectory() as folder:
        arguments = SFTConfig(
            output_dir=folder, max_steps=steps, per_device_train_batch_size=ROWS, max_grad_norm=recipe.grad_clip,
            bf16=in_bfloat16(recipe.dtype, device), use_cpu=device.type == "cpu", gradient_checkpointing=False,
            report_to="none", logging_strategy="no", save_strategy="steps", save_steps=steps, disable_tqdm=True,
            remove_unused_columns=False, dataset_kwargs={"skip_prepare_dataset": True}, dataloader_pin_memory=False,
        )  # fmt: skip
        peer = Peer(
            model=loaded.model, args=arguments, train_dataset=table_of_rows, processing_class=loaded.tokenizer,
            data_collator=lambda rows: {key: torch.tensor([row[key] for row in rows]) for key in rows[0]},
            optimizers=(made.parts[0], schedule), callbacks=[Clock()],
        )  # fmt: skip
        peer.train()
        files = sorted(path.name for path in next(Path(folder).glob("checkpoint-*")).iterdir())
    pickles = ", ".join(name for name in files if Path(name).suffix in {".pt", ".pth", ".bin"})
    return {
        "begin": marks[UNTIMED - 1],
        "end": marks[-1],
        "losses": [float(loss) for loss in losses],
        "checkpoint": f"not atomic; with pickle: {pickles}",
    }


def child(given: argparse.Namespace, side: str) -> dict[str, Any]:
    """One side in a fresh process."""
    command = [sys.executable, str(Path(__file__).with_name("finetune.py")), "--part", "peer", "--side", side]
    for key in ("model", "out", "steps", "rate", "adapter_rate", "dtype", "device", "seed", "meadow", "threads"):
        if getattr(given, key) is not None:
            command += [f"--{key.replace('_', '-')}", str(getattr(given, key))]
    command += ["--data", *map(str, given.data)] if given.data else []
    command += ["--full"] if given.full else []
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    row: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(f"{side}: {row['tokens_per_second']:,.0f} tokens/s", file=sys.stderr, flush=True)
    return row


def compare(given: argparse.Namespace) -> str:
    """All pairs, kept in OUT/peer.json, and their table."""
    pairs = []
    for number in range(given.pairs):
        order = SIDES if number % 2 == 0 else SIDES[::-1]
        found = {side: child(given, side) for side in order}
        pairs.append(found)
        (given.out / "peer.json").write_text(json.dumps(pairs, indent=1) + "\n", encoding="utf-8")
    keys = {"tokens_per_second": "tokens/s", "tokens_per_processor_second": "tokens a processor second"}
    cells = []
    for key, name in keys.items():
        ratios = sorted(pair["rinsho"][key] / pair["trl"][key] for pair in pairs)
        speeds = [f"{statistics.median(pair[side][key] for pair in pairs):,.0f}" for side in SIDES]
        cells.append([name, *speeds, f"{statistics.median(ratios):.3f} ({ratios[0]:.3f}–{ratios[-1]:.3f})"])
    losses = {side: pairs[0][side]["losses"] for side in SIDES}
    apart = max(abs(a - b) for a, b in zip(*losses.values(), strict=True))
    shown = sorted({0, 9, given.steps // 2 - 1, given.steps - 1} & set(range(given.steps)))
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "peft", "trl", "accelerate"))
    threads = given.threads or "all"
    about = f"Commit {commit()}, {platform.platform()}, {packages}; {threads} threads, dtype {given.dtype}."
    row = pairs[0]["rinsho"]
    method = "The whole model" if given.full else "LoRA q, v"
    work = f"{method}, {row['trained']:,} trained numbers; {given.steps} steps of {ROWS} rows of {LENGTH}, "
    work += f"{row['learned_share']:.0%} of the places learned; {given.pairs} pairs."
    steps = [[str(step + 1), *(f"{losses[side][step]:.5f}" for side in SIDES)] for step in shown]
    lines = [about, work, "", *table(["", "rinsho", "SFTTrainer", "ratio, median (range)"], cells), ""]
    lines += table(["loss of step", "rinsho", "SFTTrainer"], steps)
    lines += ["", f"Largest distance of the losses of a step: {apart:.1e} nats.", ""]
    return "\n".join([*lines, *(f"- checkpoint of {side}: {pairs[0][side]['checkpoint']}" for side in SIDES)]) + "\n"
