"""Training speed and memory of `ncvc-slm-1` on one card, in one run of at most --minutes; the Trainer as baseline.

    python benchmarks/pretrain_gpu.py --out FOLDER [--minutes 8.5] [--only NAME ...]
    python benchmarks/pretrain_gpu.py --out FOLDER --dry          # toy sizes on a processor: does it run to the end?

Needs torch, transformers, numpy, pydantic, pyyaml, and accelerate for the Trainer; no tokenizer and no text: tokens are
drawn at random, in documents of realistic lengths. FP8 needs torchao.

Every case is a step of 4 parts ("micro-batches") of rows of 2,048 tokens with gradient accumulation, clipping and the
optimizer, as the loop does it: through `rinsho.distributed.parallelise` and `rinsho.optim`. The most valuable cases
come first; those after the sweep run at its best number of rows. Each case has a time box; a case that fails, runs out
of memory or takes the process down is noted as such, and the others go on. `results.jsonl` has a line a case as soon
as it is done, `report.md` the tables.

MFU is tokens/s x FLOPs a token / the card's dense bf16 peak (FP8 cases, too), at the speed of 1,024 rows a step: that
many rows of forward and backward, and one update. PaLM: 6 (N - input embedding) + 12 L H E T (PaLM, arXiv 2204.02311,
appendix B); causal: half of the attention. Days are for the report's 50.33 B tokens in such steps.
The Trainer's clipping counts as backward.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple


class Case(NamedTuple):
    """What is measured; `part` rows at a time, 0 for the best of the sweep."""

    name: str
    kind: str = "rinsho"  # rinsho | trainer | peak | profile
    part: int = 0
    dropout: float = 0.0
    compile: bool = True
    attention: str = "sdpa"
    bounded: bool = False
    residual_bf16: bool = False
    fp8: bool = False
    checkpointing: bool = False
    deterministic: bool = False
    chunk_tokens: int | None = None
    optimizer: str = "adamw"


BOUNDED = {"bounded": True, "attention": "varlen"}
CASES = (
    Case("matrix products alone", "peak"),
    Case("16 rows", part=16),
    Case("32 rows", part=32),
    Case("8 rows", part=8),
    Case("documents bounded (varlen)", **BOUNDED),
    Case("dropout 0.1 (the report)", dropout=0.1),
    Case("Trainer, 8 rows", "trainer", part=8, compile=False),
    Case("kernels of one step", "profile"),
    Case("residual stream in bf16", residual_bf16=True),
    Case("not compiled", compile=False),
    Case("Trainer, 8 rows, torch_compile", "trainer", part=8),
    Case("FP8", fp8=True),
    Case("documents bounded (mask)", bounded=True),
    Case("activation checkpointing", checkpointing=True),
    Case("Muon", optimizer="muon"),
    Case("loss in chunks of 2,048 tokens", chunk_tokens=2048),
    Case("loss in chunks of 32,768 tokens", chunk_tokens=32_768),
    Case("deterministic kernels", deterministic=True),
    Case("dropout 0.1, documents bounded (varlen)", dropout=0.1, **BOUNDED),
    Case("residual in bf16, FP8", residual_bf16=True, fp8=True),
    Case("documents bounded (flex_attention)", bounded=True, attention="flex_attention"),
    Case("Trainer, 8 rows, dropout 0.1", "trainer", part=8, compile=False, dropout=0.1),
    Case("Trainer, 16 rows", "trainer", part=16, compile=False),
    Case("Trainer, 8 rows, documents bounded", "trainer", part=8, compile=False, bounded=True),
    Case("64 rows", part=64),
    Case("4 rows", part=4),
    Case("kernels of one step, residual stream in bf16", "profile", residual_bf16=True),
)
SWEPT = [case for case in CASES if case.name == f"{case.part} rows"]
REPORT_TOKENS, REPORT_ROWS = 24_000 * 1_024 * 2_048, 1_024
CASE_SECONDS, START_SECONDS = 120.0, 120.0


# ---- the process that starts and watches; it loads no torch


def watch(given: argparse.Namespace) -> None:
    """Lets a worker run the cases, and starts another one after a case that hung or took the worker down."""
    deadline = time.monotonic() + 60 * given.minutes
    given.out.mkdir(parents=True, exist_ok=True)
    for name in ("results.jsonl", "now.json"):
        (given.out / name).unlink(missing_ok=True)
    while time.monotonic() < deadline:
        command = [sys.executable, __file__, "--out", str(given.out), "--worker", *(["--dry"] if given.dry else [])]
        command += ["--only", *given.only] if given.only else []
        worker = subprocess.Popen(command, start_new_session=True)
        reason = _follow(worker, given.out, deadline)
        if worker.poll() is None:
            os.killpg(worker.pid, signal.SIGKILL)
        worker.wait()
        if reason == "done":
            break
        at = _now(given.out)
        if at is None:
            print(f"the worker ended before its first case: {reason}", file=sys.stderr)
            break
        if at not in {row["name"] for row in results(given.out)}:
            note(given.out, {"name": at, "error": reason})
    lines = report(results(given.out), given.only or [case.name for case in CASES])
    (given.out / "report.md").write_text(lines, encoding="utf-8")
    print(lines)


def _follow(worker: subprocess.Popen[bytes], out: Path, deadline: float) -> str:
    """Why watching ends: done, the worker died, its case took too long, or all the time is used."""
    seen, since = _now(out), time.monotonic()
    first = True
    while worker.poll() is None:
        time.sleep(0.2)
        now = _now(out)
        if now != seen:
            seen, since, first = now, time.monotonic(), False
        if time.monotonic() > deadline:
            return "no time was left"
        if time.monotonic() - since > (START_SECONDS if first else CASE_SECONDS):
            return f"longer than {CASE_SECONDS:.0f} s"
    return "done" if worker.returncode == 0 else f"the process ended with {worker.returncode}"


def _now(out: Path) -> str | None:
    try:
        return str(json.loads((out / "now.json").read_text())["name"])
    except (OSError, ValueError):
        return None


def results(out: Path) -> list[dict[str, Any]]:
    try:
        return [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    except OSError:
        return []


def note(out: Path, row: dict[str, Any]) -> None:
    with (out / "results.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")


def best_part(rows: list[dict[str, Any]]) -> int:
    """Rows at a time of the fastest case of the sweep so far; 8 where none worked."""
    swept = [row for row in rows if row["name"] in {case.name for case in SWEPT} and "tokens_per_second" in row]
    return max(swept, key=lambda row: row["report_rate"])["part"] if swept else 8


def report(rows: list[dict[str, Any]], wanted: list[str]) -> str:
    """The tables, and which of the wanted cases have no figures."""
    about = next((row["about"] for row in rows if "about" in row), {})
    lines = [", ".join(f"{key} {value}" for key, value in about.items()), ""]
    lines += ["| case | rows | tokens/s | at 1,024 rows a step | MFU PaLM | causal | peak GiB | days | s to compile |"]
    lines += ["| --- |" + " ---: |" * 8]
    for row in rows:
        if "tokens_per_second" in row:
            mfu, causal = (f"{row[key]:.1%}" if row[key] else "unknown" for key in ("mfu", "mfu_causal"))
            rates = f"{row['tokens_per_second']:,.0f} | {row['report_rate']:,.0f} | {mfu} | {causal}"
            rest = f"{row['peak_gib']:.1f} | {row['days']:.2f} | {row['compile_seconds']:.0f}"
            lines.append(f"| {row['name']} | {row['part']} | {rates} | {rest} |")
    lines += ["", "| case | update (clip and optimizer), ms | forward and backward of a row, ms | first loss |"]
    lines += ["| --- | ---: | ---: | ---: |"]
    for row in rows:
        if "tokens_per_second" in row:
            update, per_row = 1e3 * row["update_seconds"], 1e3 * row["part_seconds"] / row["part"]
            lines.append(f"| {row['name']} | {update:.1f} | {per_row:.2f} | {row['first_loss']:.4f} |")
    for row in rows:
        if "table" in row:
            lines += ["", f"{row['name']}:", "", *row["table"]]
    failed = [f"- {row['name']}: {row['error']}" for row in rows if "error" in row]
    failed += [f"- {name}: not reached" for name in wanted if name not in {row["name"] for row in rows}]
    if failed:
        lines += ["", "Not measured:", "", *failed]
    return "\n".join(lines) + "\n"


# ---- the worker


def work(given: argparse.Namespace) -> None:
    """Runs the cases that have no result yet, each noted at once."""
    import pretrain_gpu_cases as cases

    sizes = cases.toy() if given.dry else cases.whole()
    wanted = [case for case in CASES if not given.only or case.name in given.only]
    for case in wanted:
        done = results(given.out)
        if case.name in {row["name"] for row in done}:
            continue
        (given.out / "now.json").write_text(json.dumps({"name": case.name}))
        part = min(case.part or best_part(done), sizes.most_rows)
        started = time.monotonic()
        try:
            row = cases.run(case._replace(part=part), sizes)
        except Exception as error:  # one failure is a result, too
            row = {"error": f"{type(error).__name__}: {str(error).splitlines()[0][:200] if str(error) else ''}"}
        row = {"name": case.name, "part": part, **row, "seconds": round(time.monotonic() - started, 1)}
        note(given.out, row)
        rate = f"{row['tokens_per_second']:,.0f} tokens/s" if "tokens_per_second" in row else row.get("error", "done")
        print(f"{case.name}: {rate} ({row['seconds']} s)", flush=True)
        cases.clear()


def main() -> None:
    """Watches, or works."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=8.5)
    parser.add_argument("--only", nargs="+", choices=[case.name for case in CASES], metavar="NAME", default=[])
    parser.add_argument("--dry", action="store_true")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        work(given)
    else:
        watch(given)


if __name__ == "__main__":
    main()
