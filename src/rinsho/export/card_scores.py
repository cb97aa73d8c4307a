"""The part of a model card on scores: every one with its interval, chance, the best trivial method, and leakage."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rinsho.export.cells import NOT_RECORDED, cell, listed
from rinsho.export.provenance import Evaluation

METRICS = {"exact_f1": "exact F1", "overlap_f1": "overlap F1"}


def view(each: Evaluation) -> dict[str, Any]:
    """What the template shows of an evaluation."""
    numbers = each.scores
    told = [f"questions in the form `{numbers.get('prompt_form')}`", f"answers as `{numbers.get('answer_form')}`"]
    told += [f"{numbers['few_shot']} solved examples shown"] if numbers.get("few_shot") else ["no solved example shown"]
    told += [f"test part: {numbers.get('test_part')}", f"split: {numbers.get('split')}"]
    return {
        "name": cell(numbers.get("model", "")),
        "told": ", ".join(told),
        "sample": numbers.get("max_items"),
        "same_files": each.same_files,
        "asked_as": each.asked_as,
        "rows": [_score(row) for row in numbers.get("scores", ())],
        "leakage": [_leak(row) for row in numbers.get("leakage") or ()],
        "leakage_source": cell(numbers.get("leakage_source") or ""),
        "notes": [cell(note) for note in numbers.get("notes") or ()],
    }


def _score(row: Mapping[str, Any]) -> list[str]:
    metric = METRICS.get(row["metric"], str(row["metric"]))
    trivial = max((row.get("baselines") or {}).items(), key=lambda pair: pair[1], default=None)
    chance = "-" if row.get("chance") is None else f"{row['chance']:.3f}"
    return [
        cell(row["task"]), str(row["mode"]), f"{row['n']:,}", metric, f"{row['score']:.3f}",
        _interval(row.get("interval")), chance, "-" if trivial is None else f"{trivial[1]:.3f} ({cell(trivial[0])})",
        "yes" if row.get("above_chance") else "**no**" if row.get("above_chance") is False else "-", _also(row),
    ]  # fmt: skip


def _also(row: Mapping[str, Any]) -> str:
    also, parts = row.get("also") or {}, []
    if "kappa" in also:
        parts.append(f"κ {also['kappa']:.3f} {_interval(row.get('kappa_interval'))}".rstrip(" -"))
    if "overlap_f1" in also:
        parts.append(f"overlap F1 {also['overlap_f1']:.3f}")
    if "official_partial_f1" in also:
        parts.append(f"the benchmark's own partial F1 {also['official_partial_f1']:.3f} (no proportion)")
    if "points" in also:
        parts.append(f"{also['points']:,} of {also['points_total']:,} points, chance {also['points_chance']:.1f}")
    return "; ".join(parts) or "-"


def _interval(interval: Sequence[float] | None) -> str:
    return "-" if not interval else f"[{interval[0]:.3f}, {interval[1]:.3f}]"


def _leak(row: Mapping[str, Any]) -> list[str]:
    cells = [cell(row["task"]), f"{row['questions']:,}"]
    cells += [
        f"{row[key]:,}" if isinstance(row.get(key), int) else NOT_RECORDED for key in ("exact", "near", "too_short")
    ]
    scores = row.get("scores") or {}
    said = [
        f"{mode}: seen {_part(parts.get('leaked'))}, unseen {_part(parts.get('clean'))}"
        for mode, parts in scores.items()
    ]
    return [*cells, "; ".join(said) or "-"]


def _part(part: Mapping[str, Any] | None) -> str:
    return "-" if not part or part.get("score") is None else f"{part['score']:.3f} (n {part['n']:,})"


def poor(evaluations: Iterable[Evaluation]) -> dict[str, str]:
    """The tasks (and how they were asked) where nothing shows that it is better than chance, or a trivial method."""
    rows = [row for each in evaluations for row in each.scores.get("scores", ())]
    chance = [row for row in rows if row.get("above_chance") is False]
    trivial = [row for row in rows if row["score"] <= max((row.get("baselines") or {"": -1.0}).values())]
    named = {"chance": chance, "trivial": trivial}
    return {key: listed([f"{row['task']} ({row['mode']})" for row in found]) for key, found in named.items()}
