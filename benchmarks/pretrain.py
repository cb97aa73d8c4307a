"""Tokens a second of rinsho's pre-training loop and of transformers' Trainer, on the same model in one run.

    pip install accelerate
    python benchmarks/pretrain.py [--model 15m] [--seconds 60] [--pairs 5] [--threads N] [--out FILE.json]

Both sides train the same weights on the same packed rows (sequence 512, 16,384 pieces, 8 rows a step) with the same
learning rates, fused AdamW, clipping at 1 and the same arithmetic (bf16 where the processor has it). Every measurement
is a process of its own that runs for --seconds after the warm-up steps; the sides take turns (AB BA AB ...), and the
result is the median ratio of the pairs with its spread. Ours runs as the stage runs it, with deterministic kernels;
the Trainer gets the best settings found for it (see `pretrain_peer.py`; processor seconds of its loader's processes are
not counted). The losses of the first steps are compared, so that both have done the same work.
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
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from pretrain_peer import BETAS, CLIP, EPS, WEIGHT_DECAY, Mark, Rows, synthetic_rows, trainer_steps

VOCAB, LENGTH, ROWS, PART = 16_384, 512, 8, 8
RATE, SCHEDULE_STEPS, WARMUP_STEPS = 2e-3, 10_000, 20
UNTIMED, COMPARED = 5, 10  # first steps left out of the timing; first steps whose losses are compared
TOLERANCE = {"bf16": 2e-2, "fp32": 1e-4}  # of a loss, in nats a token
SIDES = ("rinsho", "Trainer")


def our_loop(model: Any, rows: Rows, given: argparse.Namespace, folder: Path) -> Any:
    """The loop of rinsho over these rows; everything this script knows about its inside stands here."""
    from rinsho.pretrain import Recipe
    from rinsho.pretrain.loop import Trainer
    from rinsho.run import Stage

    recipe = Recipe(
        model=given.model,
        sequence_length=LENGTH,
        batch_tokens=ROWS * LENGTH,
        micro_batch_rows=given.part,
        max_tokens=SCHEDULE_STEPS * ROWS * LENGTH,
        learning_rate=RATE,
        betas=BETAS,
        adam_eps=EPS,
        weight_decay=WEIGHT_DECAY,
        grad_clip=CLIP,
        warmup_steps=WARMUP_STEPS,
        threads=given.threads,
        plot=False,
    )
    feed: Any = SimpleNamespace(rows=rows, order=rows, held_out=None)
    return Trainer(recipe, model, feed, Stage("pretrain", folder))


def ours(given: argparse.Namespace, model: Any, rows: Rows) -> list[Mark]:
    from rinsho.device import reproducible

    marks: list[Mark] = []
    with tempfile.TemporaryDirectory() as folder, reproducible(given.threads):
        loop = our_loop(model, rows, given, Path(folder))
        start = time.monotonic(), time.process_time()
        while not enough(marks, given.seconds):
            loop.step()
            loss = loop.at.loss
            marks.append(Mark(time.monotonic() - start[0], time.process_time() - start[1], float(loss)))
    return marks


def theirs(given: argparse.Namespace, model: Any, rows: Rows) -> list[Mark]:
    from rinsho.optim import rate_factor

    return trainer_steps(
        model,
        rows,
        part=given.part,
        parts=ROWS // given.part,
        device="cpu",
        bf16=low_precision(),
        learning_rate=RATE,
        factor=lambda step: rate_factor(step, SCHEDULE_STEPS, warmup_steps=WARMUP_STEPS),
        stop=lambda marks: enough(marks, given.seconds),
        workers=given.loader_workers,
    )


def low_precision() -> bool:
    from rinsho.device import has_fast_bfloat16

    return has_fast_bfloat16("cpu")


def enough(marks: list[Mark], seconds: float) -> bool:
    return len(marks) > max(UNTIMED, COMPARED) and marks[-1].wall - marks[UNTIMED - 1].wall >= seconds


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """One side in this process."""
    import torch

    from rinsho.model import ModelSettings, build

    torch.set_num_threads(given.threads)
    # No row comes twice while the losses are compared; a whole number of steps, so that both sides begin anew alike.
    rows = synthetic_rows(ROWS * 64, LENGTH, VOCAB)
    model = build(ModelSettings.model_validate(given.model), VOCAB, 1)
    marks = (ours if given.side == SIDES[0] else theirs)(given, model, rows)
    first, last = marks[UNTIMED - 1], marks[-1]
    tokens = (len(marks) - UNTIMED) * ROWS * LENGTH
    walls = [after.wall - before.wall for before, after in zip(marks[UNTIMED - 1 :], marks[UNTIMED:], strict=False)]
    return {
        "side": given.side,
        "steps": len(marks) - UNTIMED,
        "tokens_per_second": tokens / (last.wall - first.wall),
        "tokens_per_processor_second": tokens / (last.processor - first.processor),
        "median_step_seconds": statistics.median(walls),
        "losses": [mark.loss for mark in marks[:COMPARED]],
    }


def child(given: argparse.Namespace, side: str, seconds: float, workers: int = 0) -> dict[str, Any]:
    """One side in a fresh process."""
    command = [sys.executable, __file__, "--side", side, "--seconds", str(seconds), "--model", given.model]
    command += ["--threads", str(given.threads), "--part", str(given.part), "--loader-workers", str(workers)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    row: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    speed, processor = row["tokens_per_second"], row["tokens_per_processor_second"]
    print(f"{side}: {speed:,.0f} tokens/s, {processor:,.0f} a processor second, {row['steps']} steps", flush=True)
    return row


def compare(given: argparse.Namespace) -> dict[str, Any]:
    """All measurements and the ratios of the pairs."""
    import torch

    probes = {workers: child(given, "Trainer", given.seconds / 3, workers) for workers in given.try_workers}
    workers = max(probes, key=lambda number: probes[number]["tokens_per_second"])
    pairs = []
    for number in range(given.pairs):
        order = SIDES if number % 2 == 0 else SIDES[::-1]
        found = {side: child(given, side, given.seconds, workers if side == "Trainer" else 0) for side in order}
        pairs.append([found[side] for side in SIDES])
    apart = max(abs(a - b) for pair in pairs for a, b in zip(*(row["losses"] for row in pair), strict=True))
    keys = ("tokens_per_second", "tokens_per_processor_second")
    return {
        "model": given.model,
        "threads": given.threads,
        "dtype": "bf16" if low_precision() else "fp32",
        "machine": f"{platform.machine()}, {platform.python_version()}, torch {torch.__version__}, "
        + ", ".join(f"{name} {metadata.version(name)}" for name in ("transformers", "accelerate")),
        "loader_workers": {str(number): row["tokens_per_second"] for number, row in probes.items()},
        "losses_apart": apart,
        "ratios": {key: sorted(pair[0][key] / pair[1][key] for pair in pairs) for key in keys},
        "pairs": pairs,
    }


def markdown(found: dict[str, Any]) -> str:
    lines = [
        f"{found['model']}, {found['dtype']}, {found['threads']} threads; {found['machine']}. Trainer, loader workers: "
        + ", ".join(f"{number}: {speed:,.0f} tokens/s" for number, speed in found["loader_workers"].items())
        + f". Losses of the first {COMPARED} steps at most {found['losses_apart']:.1e} nats apart.",
        "",
        "| pair | rinsho tokens/s | Trainer tokens/s | ratio | ratio by processor seconds |",
        "| ---: | ---: | ---: | ---: | ---: |",
    ]
    speed, processor = "tokens_per_second", "tokens_per_processor_second"
    for number, (a, b) in enumerate(found["pairs"], 1):
        ratios = f"{a[speed] / b[speed]:.3f} | {a[processor] / b[processor]:.3f}"
        lines.append(f"| {number} | {a[speed]:,.0f} | {b[speed]:,.0f} | {ratios} |")
    shown = (
        f"{statistics.median(ratios):.3f} ({ratios[0]:.3f}–{ratios[-1]:.3f})" for ratios in found["ratios"].values()
    )
    lines.append(f"| median (range) | | | {' | '.join(shown)} |")
    return "\n".join(lines)


def main() -> None:
    """Prints the table."""
    import os

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="15m")
    parser.add_argument("--seconds", type=float, default=60.0, help="timed, of every measurement")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--part", type=int, default=PART, help="rows computed at a time, on both sides")
    parser.add_argument(
        "--try-workers", type=int, nargs="+", default=[0, 2], help="loader workers tried for the Trainer"
    )
    parser.add_argument("--out", type=Path)
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--loader-workers", type=int, default=0, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.side:
        print(json.dumps(measure(given)))
        return
    found = compare(given)
    print("\n" + markdown(found))
    if given.out:
        given.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    if found["losses_apart"] > TOLERANCE[found["dtype"]]:
        sys.exit("the losses differ: the two sides did not do the same work")


if __name__ == "__main__":
    main()
