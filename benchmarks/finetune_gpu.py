"""Memory and speed of LoRA on a model of LLaMA-7B's shape on one card: 16 bit, LLM.int8 and NF4, in one bounded run.

    python benchmarks/finetune_gpu.py --out FOLDER [--minutes 8.5] [--only NAME ...]
    python benchmarks/finetune_gpu.py --out FOLDER --dry      # a tiny shape on a processor: does it run to the end?

Needs torch, transformers, peft, bitsandbytes, safetensors, pydantic and 14 GB on the disk (--scratch); no data. The
model (32 layers, width 4,096, feed-forward 11,008, 32 heads, 32,000 pieces) has random weights, written once in
bfloat16; the rows are random tokens, all of them learned. Settings are M-3's: rank 8, alpha 16, dropout 0.1 on q_proj
and v_proj, rows of 256 tokens. Every case is a process of its own with a time box and goes through the room's own
loading (`rinsho.finetune.models.load`) and loop, with deterministic kernels as there; where a kernel has no
deterministic form the case runs without and says so. A case that fails or takes too long is noted, and the others go
on. `results.jsonl` has a line a case as soon as it is done, `report.md` the table beside the figures of
the MedAlpaca authors.

Memory is the peak of what torch allocated and reserved while training, in GB of 10^9 bytes; a tool that looks from
outside adds the driver's context to the reserved figure. How the authors measured, and with how many rows at a time,
they do not say.
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

from pretrain_gpu import note, results


class Shape(NamedTuple):
    layers: int
    hidden: int
    feed_forward: int
    heads: int
    vocab: int


class Case(NamedTuple):
    """What is measured; `rows` computed at a time, `authors`: their memory in GB."""

    name: str
    quantization: str = "none"
    rows: int = 2
    checkpointing: bool = False
    adapter: bool = True
    optimizer: str = "adamw"
    authors: float | None = None


LLAMA_7B, TINY = Shape(32, 4096, 11_008, 32, 32_000), Shape(2, 64, 160, 4, 320)
LENGTH, BATCH_ROWS, TIMED_STEPS = 256, 64, 8
CASES = (
    Case("LoRA 16 bit", authors=18.8),
    Case("LoRA int8, checkpointing", "int8", checkpointing=True, authors=8.9),
    Case("LoRA int8", "int8", authors=8.9),
    Case("LoRA nf4, checkpointing", "nf4", checkpointing=True),
    Case("LoRA 16 bit, 32 rows", rows=32),
    Case("LoRA int8, 32 rows", "int8", rows=32),
    Case("LoRA nf4, 32 rows", "nf4", rows=32),
    Case("LoRA 16 bit, checkpointing", checkpointing=True),
    Case("LoRA int8, 64 rows, checkpointing", "int8", 64, checkpointing=True),
    Case("LoRA 16 bit, 64 rows, checkpointing", rows=64, checkpointing=True),
    Case("full in 32 bit, 8-bit AdamW, checkpointing", "none", 32, True, False, "adamw_8bit"),
)
CASE_SECONDS, TIMED_SECONDS = 110.0, 15.0


# ---- the process that starts and watches; it loads no torch


def watch(given: argparse.Namespace) -> None:
    """Builds the model, lets each case run in a process of its own, and writes the report."""
    deadline = time.monotonic() + 60 * given.minutes
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / "results.jsonl").unlink(missing_ok=True)
    wanted = [case.name for case in CASES if not given.only or case.name in given.only]
    with tempfile.TemporaryDirectory(dir=given.scratch) as folder:
        for name in ["build", *wanted]:
            left = deadline - time.monotonic()
            if left < 5:
                break
            failed = start(given, name, Path(folder), min(CASE_SECONDS, left))
            if failed and name not in {row["name"] for row in results(given.out)}:
                note(given.out, {"name": name, "error": failed})
            row = next((row for row in results(given.out) if row["name"] == name), {})
            print(f"{name}: {row.get('error') or row.get('said', 'done')}", flush=True)
            if name == "build" and "error" in row:
                break
    lines = report(results(given.out), wanted)
    (given.out / "report.md").write_text(lines, encoding="utf-8")
    print(lines)


def start(given: argparse.Namespace, name: str, folder: Path, seconds: float) -> str | None:
    """Runs a case; why it gave no result, if it gave none."""
    command = [sys.executable, __file__, "--out", str(given.out), "--case", name, "--model", str(folder)]
    worker = subprocess.Popen([*command, *(["--dry"] if given.dry else [])], start_new_session=True)
    try:
        status = worker.wait(seconds)
    except subprocess.TimeoutExpired:
        worker.send_signal(signal.SIGKILL)
        worker.wait()
        return f"longer than {seconds:.0f} s"
    return f"the process ended with {status}" if status else None


def report(rows: list[dict[str, Any]], wanted: list[str]) -> str:
    """The table, and which of the wanted cases have no figures."""
    first = next((row for row in rows if "about" in row), {})
    lines = [
        ", ".join(f"{key} {value}" for key, value in first.get("about", {}).items()),
        "",
        first.get("said", ""),
        "",
    ]
    header = ["case", "rows at a time", "trained", "GB predicted", "GB allocated", "GB reserved", "GB, the authors"]
    header += ["GB after loading", "tokens/s", "s a step", "s to load", "loss, first / last", "deterministic"]
    lines += ["| " + " | ".join(header) + " |", "| --- |" + " ---: |" * (len(header) - 1)]
    for row in rows:
        if "tokens_per_second" in row:
            predicted, authors = row["predicted_gb"], row["authors"]
            cells = [row["name"], str(row["rows"]), f"{row['trained']:,}", f"{predicted:.1f}" if predicted else "-"]
            cells += [f"{row['allocated_gb']:.1f}", f"{row['reserved_gb']:.1f}", str(authors) if authors else ""]
            cells += [f"{row['loaded_gb']:.1f}", f"{row['tokens_per_second']:,.0f}", f"{row['step_seconds']:.2f}"]
            cells += [f"{row['load_seconds']:.0f}", f"{row['losses'][0]:.4f} / {row['losses'][-1]:.4f}"]
            lines.append("| " + " | ".join([*cells, "yes" if row["deterministic"] else "no"]) + " |")
    failed = [f"- {row['name']}: {row['error']}" for row in rows if "error" in row]
    failed += [f"- {name}: not reached" for name in wanted if name not in {row["name"] for row in rows}]
    return "\n".join(lines + (["", "Not measured:", "", *failed] if failed else [])) + "\n"


# ---- one case


def work(given: argparse.Namespace) -> None:
    """Builds the model, or runs the case; whatever happens becomes a line of results.jsonl."""
    begun = time.monotonic()
    try:
        if given.case == "build":
            row = build(given.model, TINY if given.dry else LLAMA_7B, "cpu" if given.dry else "cuda")
        else:
            row = run(next(case for case in CASES if case.name == given.case), given.model, given.dry)
    except Exception as error:  # one failure is a result, too
        first = str(error).splitlines() or [""]
        row = {"error": f"{type(error).__name__}: {first[0][:300]}"}
    note(given.out, {"name": given.case, **row, "seconds": round(time.monotonic() - begun, 1)})


def build(folder: Path, shape: Shape, device: str) -> dict[str, Any]:
    """Writes the model layer by layer, so that it never stands in memory whole, and a tokenizer of numbers."""
    import torch
    import transformers
    from safetensors.torch import save_file

    begun = time.monotonic()
    torch.manual_seed(1)
    hidden, inner = shape.hidden, shape.feed_forward
    blocks: dict[str, tuple[int, ...]] = {f"self_attn.{name}_proj": (hidden, hidden) for name in "qkvo"}
    blocks |= {"mlp.gate_proj": (inner, hidden), "mlp.up_proj": (inner, hidden), "mlp.down_proj": (hidden, inner)}
    parts: list[dict[str, tuple[int, ...]]] = [
        {f"model.layers.{number}.{name}": size for name, size in blocks.items()}
        | {f"model.layers.{number}.{name}": (hidden,) for name in ("input_layernorm", "post_attention_layernorm")}
        for number in range(shape.layers)
    ]
    ends: dict[str, tuple[int, ...]] = {
        "model.embed_tokens": (shape.vocab, hidden),
        "model.norm": (hidden,),
        "lm_head": (shape.vocab, hidden),
    }
    places, numbers = {}, 0
    for number, part in enumerate([ends, *parts]):
        file = f"model-{number:05d}-of-{len(parts):05d}.safetensors"
        tensors = {}
        for name, size in part.items():
            one = torch.ones(size, device=device) if len(size) == 1 else torch.randn(size, device=device) * 0.02
            tensors[f"{name}.weight"] = one.bfloat16().cpu()
            places[f"{name}.weight"], numbers = file, numbers + one.numel()
        save_file(tensors, folder / file, metadata={"format": "pt"})
    index = {"metadata": {"total_size": 2 * numbers}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    config = transformers.LlamaConfig(
        vocab_size=shape.vocab, hidden_size=hidden, intermediate_size=inner, num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads, max_position_embeddings=2048, architectures=["LlamaForCausalLM"],
        dtype="bfloat16", bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    config.save_pretrained(folder)
    write_tokenizer(folder, shape.vocab)
    said = f"{numbers:,} parameters built in {time.monotonic() - begun:.0f} s"
    return {"about": machine(device), "said": said}


def write_tokenizer(folder: Path, vocab: int) -> None:
    """A word for every id; nothing here is written in words, the room only wants one that fits."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = {"<unk>": 0, "<s>": 1, "</s>": 2} | {f"w{number}": number for number in range(3, vocab)}
    marks = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel(words, "<unk>")), **marks).save_pretrained(
        folder
    )


def machine(device: str) -> dict[str, str]:
    import torch

    from finetune import commit, version

    card = torch.cuda.get_device_name() if device == "cuda" else "no card"
    names = ("transformers", "peft", "bitsandbytes")
    python = {"commit": commit(), "Python": platform.python_version(), "torch": torch.__version__}
    return {"card": card, **python, **{name: version(name) for name in names}}


def make_recipe(case: Case, dry: bool) -> Any:
    from rinsho.finetune import Recipe

    adapter = {"method": "lora", "rank": 8, "alpha": 16, "dropout": 0.1, "target_modules": ["q_proj", "v_proj"]}
    rows = max(case.rows, 4 if dry else BATCH_ROWS)
    return Recipe.model_validate({
        "adapter": adapter if case.adapter else None,
        "quantization": case.quantization,
        "base_dtype": "bfloat16" if case.adapter and not dry else "float32",
        "activation_checkpointing": case.checkpointing,
        "sequence_length": LENGTH if not dry else 32,
        "batch_tokens": rows * (LENGTH if not dry else 32),
        "micro_batch_rows": case.rows,
        "learn": "all",
        "optimizer": case.optimizer,
        "learning_rate": 2e-5,
        "warmup_steps": 100,
        "schedule": "cosine",
        "dtype": "fp32" if dry else "bf16",
        "device": "cpu" if dry else "cuda",
    })  # fmt: skip


def run(case: Case, folder: Path, dry: bool) -> dict[str, Any]:
    """Loading and some steps of a case; without deterministic kernels where there are none."""
    import torch

    from rinsho.device import reproducible

    row: dict[str, Any] = {}
    for deterministic in (True, False):
        try:
            with reproducible(None, deterministic):
                row = steps(case, folder, dry)
        except RuntimeError as error:
            if not deterministic or "deterministic" not in str(error):
                raise
            why = str(error).splitlines()[0][:200]
        else:
            return {**row, "deterministic": deterministic, **({} if deterministic else {"not_deterministic": why})}
        gc.collect()  # the first try's model is still in the error's frames
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    return row


def steps(case: Case, folder: Path, dry: bool) -> dict[str, Any]:
    """The room's loading and loop."""
    import numpy as np
    import torch

    from rinsho.device import choose_device
    from rinsho.finetune import models
    from rinsho.finetune.loop import Supervised, Trainer
    from rinsho.finetune.memory import predict
    from rinsho.run import Stage
    from rinsho.tokens import Batch

    recipe = make_recipe(case, dry)
    device = choose_device(recipe.device, "finetune.device")
    begun = time.monotonic()
    loaded = models.load(folder, recipe, device)
    row: dict[str, Any] = {"rows": case.rows, "authors": case.authors, "load_seconds": time.monotonic() - begun}
    try:
        row["predicted_gb"] = predict(loaded, recipe).total / 1e9
    except Exception as error:  # the measurement goes on without it
        row |= {"predicted_gb": None, "prediction": f"{type(error).__name__}: {error}"[:200]}
    length, count = recipe.sequence_length, recipe.batch_tokens // recipe.sequence_length
    draw = np.random.default_rng(1)
    ids = draw.integers(3, loaded.model.config.vocab_size, (count, length + 1))
    places = np.broadcast_to(np.arange(length), (count, length)).copy()
    batch = Batch(ids[:, :-1].copy(), places, ids[:, 1:].copy())
    objective = Supervised(recipe, loaded.model, lambda _step: batch)
    with tempfile.TemporaryDirectory() as scratch:
        trainer = Trainer(recipe, loaded, objective, 1000, Stage("finetune", Path(scratch)))
    row["trained"] = sum(parameter.numel() for parameter in trainer.trained.values())
    row["loaded_gb"] = torch.cuda.memory_allocated() / 1e9 if device.type == "cuda" else 0.0
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    losses: list[float] = []
    seconds: list[float] = []
    while len(seconds) <= (2 if dry else TIMED_STEPS) and (len(seconds) < 3 or sum(seconds[1:]) < TIMED_SECONDS):
        before = time.monotonic()
        trainer.step()  # reads the loss, and so waits for the card
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.monotonic() - before)
        losses.append(float(trainer.at.loss or 0.0))
    step = statistics.median(seconds[1:])  # the first one warms up
    cuda = device.type == "cuda"
    return {
        **row, "losses": losses, "step_seconds": step, "tokens_per_second": recipe.batch_tokens / step,
        "allocated_gb": torch.cuda.max_memory_allocated() / 1e9 if cuda else 0.0,
        "reserved_gb": torch.cuda.max_memory_reserved() / 1e9 if cuda else 0.0,
        "said": f"{recipe.batch_tokens / step:,.0f} tokens/s",
    }  # fmt: skip


def main() -> None:
    """Watches, or works."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=8.5)
    parser.add_argument("--only", nargs="+", choices=[case.name for case in CASES], metavar="NAME", default=[])
    parser.add_argument("--scratch", type=Path, help="where the model is written (default: the system's)")
    parser.add_argument("--dry", action="store_true")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    parser.add_argument("--model", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    (work if given.case else watch)(given)


if __name__ == "__main__":
    main()
