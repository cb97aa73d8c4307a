"""A run folder as one page: `report.html` opens offline and shows what happened in every stage.

What was dropped and why, loss over seen tokens, scores among the published ones with chance and interval, hard cases
apart, sample answers, sizes and times.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rinsho.errors import UserError
from rinsho.run import read_done, read_metrics
from rinsho.score_page import BASELINES, interval, pictures, render, score, view

STAGES = (
    "samples", "synthesize", "corpus", "quality", "tokenizer", "pretrain", "finetune", "evaluate", "analyse", "export",
)  # fmt: skip


def write_report(run: Path) -> Path:
    """Writes `report.html` into the run folder and returns its path.

    Raises:
        UserError: no stage in the folder has finished, or it is the folder of one stage.
    """
    stages = read_stages(run)
    if not stages and (run / "manifest.json").is_file():
        raise UserError(
            "this is the folder of one stage",
            where=run,
            expected=f"the folder that holds the stages by name ({', '.join(STAGES)})",
            todo=f"give the folder above it; for one training run: rinsho curves {run}",
        )
    if not stages:
        raise UserError(
            "no finished stage in here", where=run, expected="a run folder of rinsho all", todo="check the path"
        )
    from rinsho.curves import loss_svg

    curves = [loss_svg(read_metrics(run / name), f"{name}: loss over seen tokens") for name in ("pretrain", "finetune")]
    found = evaluation(stages)
    return render(
        __name__, run / "report.html",
        name=run.resolve().name,
        stages=stages,
        seconds=sum(stage["seconds"] or 0 for stage in stages),
        corpus=next((stage["numbers"] for stage in stages if stage["name"] == "corpus"), None),
        curves=[curve for curve in curves if curve],
        evaluation=view(found) if found else None,
        pictures=pictures(found),
    )  # fmt: skip


def terminal_table(run: Path) -> str:
    """The scores as a table for the terminal, the hard cases below them."""
    found = evaluation(read_stages(run))
    lines = _table(found.get("scores", []), "task", lambda row: str(row["task"]))
    if found.get("cases"):
        lines += ["", *_table(found["cases"], "hard case", lambda row: f"{row['task']}: {row['group']}")]
    return "\n".join(lines)


def read_stages(run: Path) -> list[dict[str, Any]]:
    """Name, times, sizes, numbers and report text of every finished stage, in running order."""
    stages = []
    for name in STAGES:
        folder = run / name
        done = read_done(folder)
        if done is None:
            continue
        try:
            manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
            report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            raise UserError(
                "a finished stage without its manifest or report",
                where=folder,
                expected="manifest.json and report.json beside DONE",
                todo="copy the whole folder, or run the stage again",
            ) from None
        stages.append(
            {
                "name": name,
                "seconds": manifest.get("seconds"),
                "continued": manifest.get("continued", False),
                "memory": manifest.get("peak_memory_gib"),
                "files": len(done["products"]),
                "size_bytes": sum(row["size_bytes"] for row in done["products"].values()),
                "numbers": report["numbers"],
                "markdown": report["markdown"],
                "manifest": manifest,
            }
        )
    return stages


def evaluation(stages: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The numbers of the evaluation, or nothing when the run has none."""
    return next((stage["numbers"] for stage in stages if stage["name"] == "evaluate"), {})


def _table(rows: Sequence[dict[str, Any]], title: str, label: Callable[[dict[str, Any]], str]) -> list[str]:
    known = {name: label for name, label in BASELINES.items() if any(name in row["baselines"] for row in rows)}
    header = [title, "mode", "n", "metric", "score", "95 % interval", "chance", *known.values(), ""]
    lines = [header]
    for row in rows:
        baselines = [score(row["baselines"].get(name)) for name in known]
        figures = [row["metric"], score(row["score"]), interval(row["interval"]), score(row["chance"]), *baselines]
        lines.append([label(row), row["mode"], str(row["n"]), *figures, "above chance" if row["above_chance"] else ""])
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
