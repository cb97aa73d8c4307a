"""The numbers of several models as tables: Markdown for people, CSV for spreadsheets and statistics programs."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rinsho import score_page
from rinsho.evaluate.report_tables import board, board_table, interval, number, table, text

Row = Mapping[str, Any]

ABOUT = (
    "how", "seen_tokens", "answer_form", "prompt_form", "few_shot", "split", "test_part", "split_seed", "seed",
)  # fmt: skip
PLAIN = ("n", "metric", "score", "interval_kind", "chance", "chance_kind", "above_chance")
PAIRED_NOTE = """\
Differences are those of the model's score less that of the model it is compared with, on the questions that both \
answered, in the options' printed order, with 95 % intervals of a bootstrap over documents. p (Holm) is corrected \
within a family: all comparisons of the same mode, κ and overlap F1 apart from accuracy and exact F1. Marked: p (Holm) \
below .05. A row that is not marked does not show that two models are equal. Right or wrong answers have McNemar's \
test, the others a permutation test, whose p cannot be small with few documents.
"""
SIDE_NOTE = """\
Ours are **bold**, with 95 % intervals; n: questions asked. Compare two models by their paired rows, not by whether \
their intervals overlap.
"""
LENGTHS_NOTE = """\
Mean tokens / characters of a free answer, and its characters as a multiple of the first model's on the same \
questions. Tokens of models with different tokenizers are different units; characters are not.
"""
TOKENS_NOTE = """\
95 % intervals in brackets. The column igakuqa is the mean over the examinations of the share of points; its interval \
is a bootstrap over the problems of each. Checkpoints of one run are not independent of each other, and neighbouring \
intervals are those of single scores: compare two checkpoints by their paired rows.
"""


def markdown(numbers: Row) -> str:
    """The report: models and what makes them not comparable, their scores side by side (Tables 5 to 7 of the NCVC
    report), paired comparisons, lengths of answers, scores over seen tokens, all of them among published scores."""
    models = [model["name"] for model in numbers["models"]]
    parts = [
        f"# Evaluation of {len(models)} models\n",
        *_samples(numbers["models"]),
        "Each model's own report lies in the folder of its name. `scores.csv` holds every score as a table.\n",
        _models(numbers["models"]),
        _notes(numbers["notes"]),
        f"## Side by side\n\n{SIDE_NOTE}",
        *(_side_by_side(found, models) for found in numbers["boards"]),
        _paired(numbers["paired"]),
        _lengths(numbers["lengths"], models),
        _over_tokens(numbers["over_tokens"] or []),
        *_published(numbers["boards"]),
    ]
    return "\n".join(part for part in parts if part)


def scores_csv(models: Sequence[Row]) -> str:
    """One line per model, task and mode with everything that its row of scores says."""
    pairs = [(model, row) for model in models for row in model["numbers"]["scores"]]
    trivial = list(dict.fromkeys(name for _, row in pairs for name in row["baselines"]))
    further = list(dict.fromkeys(name for _, row in pairs for name in row["also"]))
    orders = list(dict.fromkeys(name for _, row in pairs for name in row.get("rotation") or ()))
    header = ["model", "folder", *ABOUT, "task", "mode", *PLAIN[:3], "low", "high", *PLAIN[3:]]
    bounds = [name for name in further if name.endswith("_interval")]
    further = [name for name in further if name not in bounds]
    header += [f"baseline_{name}" for name in trivial] + further + ["kappa_low", "kappa_high"]
    header += [name.replace("_interval", end) for name in bounds for end in ("_low", "_high")]
    header += [f"rotation_{name}" for name in orders]
    header += [f"{part}_{name}" for part in ("leaked", "clean") for name in ("n", "score")]
    lines = []
    for model, row in pairs:
        about = model["numbers"]
        line = [model["name"], model["folder"], *(about.get(name) for name in ABOUT), row["task"], row["mode"]]
        line += [row[name] for name in PLAIN[:3]] + _bounds(row["interval"]) + [row[name] for name in PLAIN[3:]]
        line += [row["baselines"].get(name) for name in trivial] + [row["also"].get(name) for name in further]
        line += _bounds(row["kappa_interval"])
        line += [bound for name in bounds for bound in _bounds(row["also"].get(name))]
        line += [(row.get("rotation") or {}).get(name) for name in orders]
        line += [(row[part] or {}).get(name) for part in ("leaked", "clean") for name in ("n", "score")]
        lines.append(line)
    return _csv(header, lines)


def tokens_csv(rows: Sequence[Row]) -> str:
    """The rows of `over_tokens` as a table."""
    names = ("run", "model", "seen_tokens", "task", "mode", "metric", "n", "score")
    lines = [[*(row[name] for name in names), *_bounds(row["interval"]), row["chance"]] for row in rows]
    return _csv([*names, "low", "high", "chance"], lines)


def _models(models: Sequence[Row]) -> str:
    header = ["model", "how", "seen tokens", "prompt form", "answer form", "solved examples", "test part", "answers"]
    cells = []
    for model in models:
        about = model["numbers"]
        seen = about.get("seen_tokens")
        prompts = "unknown" if about.get("how") == "unknown" else text(about.get("prompt_form"))
        shown = score_page.few_shot(about) if about.get("few_shot") else "0"
        cells.append([
            model["name"], text(about.get("how")), "" if seen is None else f"{seen:,}", prompts,
            text(about["answer_form"]), shown, text(about["test_part"]), text(about["answers"]["count"]),
        ])  # fmt: skip
    return table(header, cells)


def _notes(notes: Sequence[str]) -> str:
    return "".join(f"- **Beware**: {note}.\n" for note in notes)


def _samples(models: Sequence[Row]) -> list[str]:
    told = dict.fromkeys(score_page.sample(model["numbers"]) for model in models)
    return [f"**{line}.**\n" for line in told if line]


def _side_by_side(found: Row, models: Sequence[str]) -> str:
    own = score_page.beside(found, models)
    return f"### {found['title']}\n\n" + board_table(own, own["rows"], marks=False)


def _published(boards: Sequence[Row]) -> list[str]:
    """The whole boards, best first; nothing where no published row is in them."""
    parts = [board(found) for found in boards if score_page.has_published(found)]
    return ["## Among published scores\n", *parts] if parts else []


def _paired(rows: Sequence[Row]) -> str:
    if not rows:
        return "## Paired comparisons\n\nNo two models answered the same questions.\n"
    header = ["task", "mode", "metric", "model", "compared with", "questions", "scores", "difference", "95 %", "p"]
    header += ["p (Holm)", "test"]
    cells = []
    for row in rows:
        n = str(row["n"]) if row["n"] == row["of"] else f"{row['n']} of {row['of']}"
        sure = row["p_holm"] is not None and row["p_holm"] < 0.05
        corrected = f"**{_p(row['p_holm'])}**" if sure else _p(row["p_holm"])
        scores = f"{number(row['score'])} / {number(row['score_against'])}"
        difference = "" if row["difference"] is None else f"{row['difference']:+.3f}"
        cells.append([row["task"], row["mode"], row["metric"], row["model"], row["against"], n, scores, difference,
                      interval(row["interval"], "+.3f"), _p(row["p_value"]), corrected, row["test"]])  # fmt: skip
    return f"## Paired comparisons\n\n{PAIRED_NOTE}\n" + table(header, cells)


def _lengths(rows: Sequence[Row], models: Sequence[str]) -> str:
    if not rows:
        return ""
    found = {(row["task"], row["model"]): row for row in rows}
    cells = []
    for task in dict.fromkeys(row["task"] for row in rows):
        line = [task]
        for place, model in enumerate(models):
            row = found.get((task, model))
            if row is None:
                line.append("")
                continue
            tokens = "-" if row["tokens"] is None else f"{row['tokens']:.1f}"
            ratio = f" (×{row['chars_ratio']:.2f})" if place and row["chars_ratio"] is not None else ""
            line.append(f"{tokens} / {row['chars']:.1f}{ratio}")
        cells.append(line)
    return f"## Length of free answers\n\n{LENGTHS_NOTE}\n" + table(["task", *models], cells)


def _over_tokens(rows: Sequence[Row]) -> str:
    """One table per mode: a line per checkpoint, a column per task."""
    parts = [f"## Scores over seen tokens\n\n{TOKENS_NOTE}"] if rows else []
    for mode in dict.fromkeys(row["mode"] for row in rows):
        own = [row for row in rows if row["mode"] == mode]
        tasks = list(dict.fromkeys(row["task"] for row in own))
        found = {(row["run"], row["model"], row["task"]): row for row in own}
        cells = []
        for run, model, seen in dict.fromkeys((row["run"], row["model"], row["seen_tokens"]) for row in own):
            scores = [found.get((run, model, task)) for task in tasks]
            told = ["" if s is None else f"{number(s['score'])} {interval(s['interval'])}" for s in scores]
            cells.append([run, f"{seen:,}", *told])
        chances = ["", *(number(next(row["chance"] for row in own if row["task"] == task)) for task in tasks)]
        parts.append(f"{mode}:\n\n" + table(["run", "seen tokens", *tasks], [*cells, ["chance", *chances]]))
    return "\n".join(parts)


def _csv(header: Sequence[str], lines: Iterable[Sequence[Any]]) -> str:
    held = io.StringIO()
    writer = csv.writer(held, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(lines)
    return held.getvalue()


def _bounds(pair: Sequence[float] | None) -> list[Any]:
    return list(pair) if pair else [None, None]


def _p(value: float | None) -> str:
    if value is None:
        return ""
    return "< .001" if value < 0.001 else f"{value:.3f}"
