"""The synthesis room measured: asking beside other clients, judging, false alarms, near-copies, benchmarks, novelty.

    python benchmarks/synthesize.py --out FOLDER [--data FOLDER]              # everything, under 12 minutes
    python benchmarks/synthesize.py --part PART --out FOLDER [--data FOLDER] [--size 0.1]

`asking` (peer: pip install openai), in `synthesize_asking.py`: textbook pages from an endpoint process on this machine
that answers after 20 ms, 32 requests at once, by the room's asking phase and by the plain asyncio clients of openai and
httpx, in turns; then the whole command. `judging`: answers that are already kept are judged and written, with and
without a look for near repeats, and how memory grows. On real data, in `synthesize_trust.py`: `trust`, false alarms on
what people wrote; `near`, planted near-copies; `contamination`, chance hits between years of an examination; `novelty`,
instructions against many known ones. Real data: folders `text` and `igakuqa` in --data or RINSHO_DATA; without them
these parts say so. --size makes everything smaller, for a try. Wall seconds need an idle machine of two cores; ratios
within one run stand more. The tables go to the terminal and to OUT/synthesize.md, all figures to OUT/synthesize.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

from synthesize_asking import NOWHERE, asking, exercise, page, settings, write_topics
from synthesize_trust import Found, apart, contamination, near, novelty, trust

from finetune import commit, table, version

ANSWERS, THRESHOLDS = (10_000, 30_000), (0.8, 0.0)
KINDS = ("textbook", "physician_exam")
REPEAT_EVERY = 20  # an answer that says what the one before it says


# ---- judging


def judging(given: argparse.Namespace) -> Found:
    folder, counts = given.out / "judging", [int(count * given.size) for count in ANSWERS]
    shutil.rmtree(folder, ignore_errors=True)
    for count in counts:
        apart(keep, folder / str(count), count)
    rows = [apart(judge, folder / str(count), threshold) for threshold in THRESHOLDS for count in counts]
    cells = []
    for row in rows:
        phases = row["phases"]
        alone, count = phases["verdicts"] - phases["repeats"], row["asked"]
        cells.append([
            f"{row['threshold']:g}", f"{count:,}", f"{row['kept']:,}", f"{row['repeated']:,}",
            *(f"{value:.1f}" for value in (phases["ask_once"], alone, phases["repeats"], phases["_write"])),
            f"{row['seconds']:.1f}", f"{row['cpu']:.1f}", f"{count / row['seconds']:,.0f}", f"{row['mib']:.0f}",
        ])  # fmt: skip
    header = ["near_threshold", "answers", "kept", "repeats", "what is missing, s", "each alone, s", "repeats, s",
              "writing, s", "all, s", "CPU s", "texts/s", "MiB at most"]  # fmt: skip
    lines = [f"Half pages, half exercises, all answers kept before; every {REPEAT_EVERY}th answer repeats the one "
             "before it, pages nearly, exercises in question and options."]  # fmt: skip
    lines += ["", *table(header, cells, text_columns=0), ""]
    for threshold in THRESHOLDS:
        small, large = (row for row in rows if row["threshold"] == threshold)
        grown = (large["mib"] - small["mib"]) * 2**20 / (large["asked"] - small["asked"])
        lines.append(f"near_threshold {threshold:g}: {grown:,.0f} bytes more for each further answer.")
    return {"rows": rows}, lines


def keep(folder: Path, count: int) -> None:
    """Topics, and an answer file as the client writes it."""
    from rinsho.client import Request
    from rinsho.client.answers import Answers
    from rinsho.client.asking import request_key
    from rinsho.synthesize import Recipe
    from rinsho.synthesize.running import answer_file
    from rinsho.synthesize.work import Wanted

    recipe = Recipe.model_validate(settings(NOWHERE, KINDS))
    answers = Answers(answer_file(folder / "answers", "page"))
    for place, call in enumerate(Wanted(recipe, [write_topics(folder / "topics.csv", count // 2)]).calls()):
        repeated = place % REPEAT_EVERY == REPEAT_EVERY - 1
        text = (page if call.kind == "textbook" else exercise)(place - repeated, repeated)
        row = {"text": text, "finish_reason": "stop", "prompt_tokens": 400, "completion_tokens": 500, "seconds": 1.0}
        key = request_key(recipe.teachers[call.teacher], Request(call.id, call.messages, call.seed))
        answers.put(key, {**row, "time": "2026-11-01T00:00:00Z"})
    answers.close()


def judge(folder: Path, threshold: float) -> dict[str, Any]:
    """A run without a request: judging and writing. Its phases are timed by wrapping what the room calls."""
    from rinsho import synthesize
    from rinsho.synthesize import judging, running, work

    phases: dict[str, float] = {}
    owners = ((running.Teachers, "ask_once"), (judging, "verdicts"), (judging, "repeats"), (work, "_write"))
    for owner, name in owners:
        setattr(owner, name, timed(getattr(owner, name), name, phases))
    more = {"near_threshold": threshold, "cache": str(folder / "answers")}
    recipe = synthesize.Recipe.model_validate(settings(NOWHERE, KINDS, **more))
    out = folder / f"run-{threshold:g}"
    with (folder / "log").open("a") as log, redirect_stderr(log):
        started, cpu = time.perf_counter(), time.process_time()
        numbers = synthesize.run(recipe, [folder / "topics.csv"], out).numbers
        seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    mib = json.loads((out / "manifest.json").read_text(encoding="utf-8"))["peak_memory_gib"] * 1024
    repeated = sum(row["set_aside"].get("repeats", 0) for row in numbers["rows"])
    total = {name: numbers["total"][name] for name in ("asked", "kept", "set_aside")}
    return {"threshold": threshold, **total, "repeated": repeated, "phases": phases, "seconds": seconds, "cpu": cpu,
            "mib": mib}  # fmt: skip


def timed(inner: Callable[..., Any], name: str, into: dict[str, float]) -> Callable[..., Any]:
    def outer(*values: Any, **named: Any) -> Any:
        started = time.perf_counter()
        try:
            return inner(*values, **named)
        finally:
            into[name] = into.get(name, 0.0) + time.perf_counter() - started

    return outer


# ---- command line

PARTS: dict[str, Callable[[argparse.Namespace], Found]] = {
    "asking": asking, "judging": judging, "trust": trust, "near": near, "contamination": contamination,
    "novelty": novelty,
}  # fmt: skip


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=("all", *PARTS), default="all")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", type=Path, default=os.environ.get("RINSHO_DATA"), help="folder of real data")
    parser.add_argument("--size", type=float, default=1.0, help="share of the sizes above, for a try (1)")
    return parser.parse_args()


def main() -> None:
    """Prints the tables."""
    given = parse()
    given.out.mkdir(parents=True, exist_ok=True)
    about = f"Commit {commit()}, Python {platform.python_version()}, numpy {version('numpy')}, {platform.machine()}"
    lines = [f"{about}, size {given.size:g}. Load of the machine at the start: {os.getloadavg()[0]:.2f}.", ""]
    figures: dict[str, Any] = {"load": os.getloadavg(), "size": given.size}
    for name in PARTS if given.part == "all" else (given.part,):
        started = time.perf_counter()
        figures[name], part = PARTS[name](given)
        print(f"{name}: {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)
        lines += [f"## {name}", "", *part, ""]
        (given.out / "synthesize.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
        (given.out / "synthesize.md").write_text("\n".join(lines), encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
