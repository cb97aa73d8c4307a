"""What a synthesis tells afterwards: report.json, report.md and a page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rinsho import score_page
from rinsho.progress import amount, duration
from rinsho.run import Report, Stage
from rinsho.synthesize.calls import ANSWER
from rinsho.synthesize.exercises import REASONS as OF_EXERCISES
from rinsho.synthesize.instructions import REASONS as OF_INSTRUCTIONS
from rinsho.synthesize.product import Figures, model_name
from rinsho.synthesize.trust import REASONS as OF_TEXTS

if TYPE_CHECKING:
    from rinsho.synthesize import Recipe
    from rinsho.synthesize.agreement import Agreement
    from rinsho.synthesize.rounds import Rounds

REASONS = {
    **OF_INSTRUCTIONS,
    **OF_EXERCISES,
    **OF_TEXTS,
    "prompt_too_long": "the prompt is longer than the model's window",
    "repeats": "says what an earlier text of this run says",
    "disagreed": "too few of the others give its answer",
    "unconfirmed": "no answer of the others can be read",
    "unreadable": "the answer to an exercise names no option for certain",
}
MANY = 10  # answers, of which a share tells something
TEXTS = {
    "textbook": "textbook passages", "physician_exam": "exercises, physicians", "instructions": "instructions",
    "pharmacist_exam": "exercises, pharmacists", "reading": "exercises of reading", ANSWER: "answers to exercises",
}  # fmt: skip


def make(
    recipe: Recipe,
    figures: Mapping[tuple[str, str], Figures],
    rounds: Rounds | None,
    agreement: Agreement | None,
    stage: Stage,
) -> Report:
    """The report of a run; also writes its page and logs what should be seen first."""
    rows = [
        {"kind": kind, "teacher": teacher, **found.numbers()}
        for (kind, teacher), found in sorted(figures.items(), key=lambda row: _place(recipe, *row[0]))
    ]
    numbers: dict[str, Any] = {
        "teachers": {
            name: {"model": model_name(teacher), "license": teacher.license, "temperature": teacher.temperature}
            for name, teacher in recipe.teachers.items()
        },
        "rows": rows,
        "total": _total(rows),
        "agreement": agreement.numbers() if agreement is not None else None,
        "instructions": rounds.numbers() if rounds is not None else None,
    }
    numbers["warnings"] = _warnings(recipe, numbers)
    for warning in numbers["warnings"]:
        stage.log(f"WARNING: {warning}")
    score_page.render(
        "rinsho.synthesize", stage.out / "report.html", numbers=numbers, reasons=REASONS, kinds=TEXTS,
        counted_reasons=_reasons(rows),
    )  # fmt: skip
    return Report(numbers, _markdown(numbers))


def _place(recipe: Recipe, kind: str, teacher: str) -> tuple[int, int]:
    kinds, names = (*recipe.kinds, ANSWER), list(recipe.teachers)
    return kinds.index(kind), names.index(teacher)


def _total(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Sums over all kinds and teachers."""
    names = ("asked", "kept", "failed", "texts", "characters", "prompt_tokens", "completion_tokens")
    total: dict[str, Any] = {name: sum(row[name] for row in rows) for name in names}
    total["set_aside"] = sum(sum(row["set_aside"].values()) for row in rows)
    total["seconds"] = round(sum(row["seconds"] for row in rows), 3)
    return total


def _reasons(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Reasons over all rows, most frequent first, with examples."""
    counts: Counter[str] = Counter()
    examples: dict[str, list[str]] = {}
    for row in rows:
        counts.update(row["set_aside"])
        for reason, ids in row["examples"].items():
            counts[reason] += 0
            examples.setdefault(reason, []).extend(ids)
    order = sorted(counts, key=lambda reason: (-counts[reason], reason))
    return [{"reason": reason, "answers": counts[reason], "examples": examples.get(reason, [])[:5]} for reason in order]


def _warnings(recipe: Recipe, numbers: dict[str, Any]) -> list[str]:
    """What a reader should not miss."""
    found = [] if numbers["total"]["texts"] else ["nothing was kept"]
    for row in numbers["rows"]:
        aside = sum(row["set_aside"].values())
        answered = row["asked"] - row["failed"]
        if answered >= MANY and aside > answered / 2:
            reason, times = max(row["set_aside"].items(), key=lambda item: item[1])
            found.append(
                f"{aside:,} of {answered:,} answers of {row['teacher']} ({TEXTS[row['kind']]}) were set aside"
                f": {reason} {times:,}"
            )
    for name, teacher in recipe.teachers.items():
        others: Counter[str] = Counter()
        for row in numbers["rows"]:
            others.update(row["other_models"] if row["teacher"] == name else {})
        if others:
            named = ", ".join(f"{model} {times:,}" for model, times in others.most_common(3))
            found.append(f"{others.total():,} answers of {name} are not from {teacher.model}, but from: {named}")
    if numbers["total"]["failed"]:
        found.append(f"{numbers['total']['failed']:,} requests failed; see failed.jsonl")
    nameless = [name for name, teacher in recipe.teachers.items() if not teacher.license]
    if nameless:
        found.append(f"no licence note for what {', '.join(nameless)} wrote (teachers.NAME.license)")
    if numbers["instructions"] and (why := numbers["instructions"].get("stopped")):
        found.append(str(why))
    return found


def _markdown(numbers: dict[str, Any]) -> str:
    total = numbers["total"]
    lines = [
        "# Synthesis", "",
        f"{total['texts']:,} texts with {amount(total['characters'])} characters from {total['asked']:,} requests;"
        f" {total['set_aside']:,} answers set aside, {total['failed']:,} requests failed.", "",
        *(f"- **{warning}**" for warning in numbers["warnings"]), *([""] if numbers["warnings"] else []),
        "| kind | teacher | asked | kept | set aside | failed | texts | characters | tokens written |"
        " seconds an answer |",
        "| --- | --- " + "| ---: " * 8 + "|",
    ]  # fmt: skip
    for row in numbers["rows"]:
        answered = max(row["asked"] - row["failed"], 1)
        lines.append(
            f"| {TEXTS[row['kind']]} | {row['teacher']} | {row['asked']:,} | {row['kept']:,}"
            f" | {sum(row['set_aside'].values()):,} | {row['failed']:,} | {row['texts']:,} | {row['characters']:,}"
            f" | {row['completion_tokens']:,} | {row['seconds'] / answered:.2f} |"
        )
    reasons = _reasons(numbers["rows"])
    if reasons:
        lines += ["", "| set aside because | | answers | for example |", "| --- | --- | ---: | --- |"]
        for row in reasons:
            said, ids = REASONS.get(row["reason"], ""), ", ".join(row["examples"])
            lines.append(f"| {row['reason']} | {said} | {row['answers']:,} | {ids} |")
    if grown := numbers["instructions"]:
        refused = ", ".join(f"{reason} {count:,}" for reason, count in grown["refused"].items()) or "none"
        taken = f"Instructions: {grown['accepted']:,} new ones, {grown['wanted']:,} were wanted."
        lines += ["", f"{taken} Tasks in the answers that were not taken: {refused}."]
    if numbers["agreement"]:
        lines += _agreement(numbers["agreement"])
    lines += ["", f"All answers one after the other: {duration(total['seconds'])}."]
    return "\n".join(lines) + "\n"


def _agreement(found: dict[str, Any]) -> list[str]:
    rows = [*found["pairs"], {"author": "all", "teacher": "", **found["all"]}]
    lines = [
        "", "| author | answered by | answers | agreed | 95 % interval | by guessing | by habit | kappa |",
        "| --- | --- " + "| ---: " * 6 + "|",
    ]  # fmt: skip
    for row in rows:
        if row["answers"]:
            low, high = row["interval"]
            kappa = "-" if row["kappa"] is None else f"{row['kappa']:.2f}"
            lines.append(
                f"| {row['author']} | {row['teacher']} | {row['answers']:,} | {row['agreed']:.1%} |"
                f" {low:.1%} – {high:.1%} | {row['guessing']:.1%} | {row['chance']:.1%} | {kappa} |"
            )
    return lines
