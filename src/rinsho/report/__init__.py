"""A run folder as one page: `report.html` opens offline and shows what happened in every stage.

What was dropped and why, loss over seen tokens, scores with chance and interval, hard cases apart, sample answers,
sizes and times.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from rinsho.errors import UserError
from rinsho.progress import amount, duration
from rinsho.run import read_done, read_metrics, write_atomic

BASELINES = {"majority": "majority", "naive_bayes": "n-gram NB", "copy_lexicon": "copy lexicon"}
STAGES = ("samples", "corpus", "quality", "tokenizer", "pretrain", "finetune", "evaluate")


def write_report(run: Path) -> Path:
    """Writes `report.html` into the run folder and returns its path.

    Raises:
        UserError: no stage in the folder has finished, or it is the folder of one stage.
    """
    import jinja2

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
    from rinsho.report import figures

    curves = [loss_svg(read_metrics(run / name), f"{name}: loss over seen tokens") for name in ("pretrain", "finetune")]
    found = evaluation(stages)
    rows = [{**row, "label": f"{row['task']} ({row['mode']})"} for row in found.get("scores", [])]
    hard = [{**row, "label": f"{row['group']}: {row['task']} ({row['mode']})"} for row in found.get("cases", [])]
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters |= {"amount": amount, "duration": duration, "score": score, "interval": interval}
    page = environment.from_string(resources.files(__name__).joinpath("page.html.j2").read_text(encoding="utf-8"))
    html = page.render(
        name=run.resolve().name,
        stages=stages,
        seconds=sum(stage["seconds"] or 0 for stage in stages),
        corpus=next((stage["numbers"] for stage in stages if stage["name"] == "corpus"), None),
        curves=[curve for curve in curves if curve],
        evaluation=found,
        pictures=[figures.scores(rows, "scores"), figures.scores(hard, "cases that a shortcut gets wrong")],
    )
    write_atomic(run / "report.html", html)
    return run / "report.html"


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


def score(value: float | None) -> str:
    """A score with three decimals, or a dash."""
    return "-" if value is None else f"{value:.3f}"


def interval(pair: Sequence[float] | None) -> str:
    """A 95 % interval with three decimals, or a dash."""
    return "-" if not pair else f"{pair[0]:.3f}-{pair[1]:.3f}"


def _table(rows: Sequence[dict[str, Any]], title: str, label: Callable[[dict[str, Any]], str]) -> list[str]:
    header = [title, "mode", "n", "metric", "score", "95 % interval", "chance", *BASELINES.values(), ""]
    lines = [header]
    for row in rows:
        baselines = [score(row["baselines"].get(name)) for name in BASELINES]
        figures = [row["metric"], score(row["score"]), interval(row["interval"]), score(row["chance"]), *baselines]
        lines.append([label(row), row["mode"], str(row["n"]), *figures, "above chance" if row["above_chance"] else ""])
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
