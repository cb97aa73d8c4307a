"""The numbers of an evaluation as tables for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]

BASELINES = (("majority", "majority"), ("naive_bayes", "n-gram Bayes"), ("copy_lexicon", "copy lexicon"))
FURTHER = (
    "accuracy_official", "kappa_official", "accuracy_strict", "kappa_strict", "overlap_f1", "official_exact_f1",
    "official_partial_f1", "answer_rate", "entities_per_answer",
)  # fmt: skip
FOOTNOTE = """\
Scores: accuracy for choices, exact F1 for entities (mean over rows). Intervals are 95 %: Wilson for accuracy, \
bootstrap over documents for F1 and κ. **Bold**: the whole interval is above chance. Free answers are read by the \
benchmark's rule (first letter A to F), or by their last line for a model tuned to say text, then letter. \
Entities found in the cleaned text that the model sees are put back into the passage's own spelling before they \
are compared. "constrained": \
the likeliest legal answer, or spans of the passage only; "likelihood": the option text with the highest mean \
log-probability per token. These modes are different measurements and not to be mixed."""


PROMPTS = {
    "benchmark": "prompts word for word the benchmark's",
    "short": "short prompts, without options that never change: not comparable with published scores",
}
OWN_PART = "**Own test part, not the published one: not comparable with published scores.**"


def markdown(numbers: Row) -> str:
    """The report: scores, hard cases, tags, examinations, leakage, further figures, sample answers."""
    parts = [
        f"# Evaluation of {numbers['model']}\n",
        f"{numbers['answers']['count']} answers; split of baselines and leakage: {numbers['split']}; "
        f"answer form: {numbers['answer_form']}; {PROMPTS[numbers['prompt_form']]}.\n",
        *([OWN_PART + "\n"] if numbers.get("test_part") == "own" else []),
        _scores(numbers["scores"]),
        FOOTNOTE + "\n",
        _groups("Hard cases", "case", numbers["cases"]),
        _leakage(numbers),
        _exams(numbers["scores"]),
        _further(numbers["scores"]),
        _groups("By tag", "tag", numbers["tags"]),
        _notes(numbers),
        _samples(numbers["samples"]),
    ]
    return "\n".join(part for part in parts if part)


def _scores(rows: Sequence[Row]) -> str:
    header = ["task", "mode", "n", "score", "95 %", "chance", *(label for _, label in BASELINES), "κ (95 %)"]
    return _table(header, [[*_score_cells(row, [row["task"], row["mode"]]), _kappa(row)] for row in rows])


def _groups(title: str, column: str, rows: Sequence[Row]) -> str:
    if not rows:
        return ""
    header = ["task", column, "mode", "n", "score", "95 %", "chance", *(label for _, label in BASELINES)]
    return f"## {title}\n\n" + _table(header, [_score_cells(r, [r["task"], r["group"], r["mode"]]) for r in rows])


def _score_cells(row: Row, first: list[str]) -> list[str]:
    score = f"**{_number(row['score'])}**" if row["above_chance"] else _number(row["score"])
    trivial = [_number(row["baselines"].get(name)) for name, _ in BASELINES]
    return [*first, str(row["n"]), score, _interval(row["interval"]), _number(row["chance"]), *trivial]


def _kappa(row: Row) -> str:
    value = row["also"].get("kappa")
    return "" if value is None else f"{_number(value)} {_interval(row['kappa_interval'])}"


def _leakage(numbers: Row) -> str:
    title = f"## Leakage\n\nSource: {numbers['leakage_source']}.\n"
    if not numbers["leakage"]:
        return title
    scores: dict[str, Row] = {}
    for row in numbers["scores"]:
        scores.setdefault(row["task"], row)  # the first mode of each task stands for it
    cells = []
    for row in numbers["leakage"]:
        score = scores.get(row["task"], {})
        parts = [_number((score.get(name) or {}).get("score")) for name in ("leaked", "clean")]
        cells.append([row["task"], f"{row['known']} of {row['passages']} ({row['share']:.0%})", *parts])
    return title + "\n" + _table(["task", "test passages trained on", "score on these", "score on the others"], cells)


def _exams(rows: Sequence[Row]) -> str:
    exams = [row for row in rows if "points" in row["also"]]
    if not exams:
        return ""
    header = ["examination", "mode", "points", "of", "chance", "tolerant reading", "text only", "forbidden choices"]
    cells = []
    for row in exams:
        also = row["also"]
        text_only = f"{also['points_text_only']} of {also['points_text_only_total']}"
        points = [str(also["points"]), str(also["points_total"]), f"{also['points_chance']:.1f}"]
        cells.append(
            [row["task"], row["mode"], *points, str(also["points_tolerant"]), text_only, str(also["forbidden_chosen"])]
        )
    return "## Examinations\n\nThe pass line is at about 75 %.\n\n" + _table(header, cells)


def _further(rows: Sequence[Row]) -> str:
    cells = [
        [row["task"], row["mode"], *(_number(row["also"].get(name)) for name in FURTHER)]
        for row in rows
        if "points" not in row["also"]
    ]
    if not cells:
        return ""
    note = (
        "\n`official_*` are the benchmark's own rules on the answer as it was said. `official_partial_f1` is no "
        "proportion and passes 1; `overlap_f1` is what its name promises.\n"
    )
    return "## Further figures\n\n" + _table(["task", "mode", *FURTHER], cells) + note


def _notes(numbers: Row) -> str:
    notes = [numbers["training_note"]] if numbers["training_note"] else []
    notes += [warning for manifest in numbers["training"] for warning in manifest["warnings"]]
    if numbers["answers"]["shortened_prompts"]:
        count = numbers["answers"]["shortened_prompts"]
        notes.append(f"{count} prompts were longer than the window and lost their middle")
    lengths = numbers["answers"]["mean_free_tokens"]
    if lengths:
        notes.append("mean tokens of a free answer: " + ", ".join(f"{t} {mean:.1f}" for t, mean in lengths.items()))
    return "## Notes\n\n" + "\n".join(f"- {note}" for note in notes) + "\n" if notes else ""


def _samples(rows: Sequence[Row]) -> str:
    if not rows:
        return ""
    parts = ["## Sample answers\n"]
    for row in rows:
        parts.append(f"### {row['id']} ({row['mode']}), value {_number(row['value'])}\n")
        parts.append(
            _block(row["prompt"]) + f"\nGold: {_inline(', '.join(row['gold']))}\n\nAnswer:\n\n" + _block(row["answer"])
        )
    return "\n".join(parts)


def _block(text: str) -> str:
    return "".join(f"    {line}\n" for line in text.splitlines() or [""])


def _inline(text: str) -> str:
    return "`" + text.replace("`", "'").replace("\n", " ") + "`"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _interval(interval: Sequence[float] | None) -> str:
    return "" if interval is None else f"[{interval[0]:.3f}, {interval[1]:.3f}]"
