"""The work of an extraction: read, ask, write, report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rinsho.clinical.entities import USUAL, Extraction
from rinsho.clinical.questions import QUESTIONS, Question, asking_of, check_room, own_question, untuned
from rinsho.clinical.reading import find_data
from rinsho.clinical.work import Asked, answer_all, open_for, rows_of, write_json_lines, write_table
from rinsho.document import Document
from rinsho.extract import Recipe
from rinsho.run import Report, Stage

if TYPE_CHECKING:
    from rinsho.generate.jobs import Spans
    from rinsho.generate.opening import Opened

COLUMNS = ("id", "start", "end", "kind", "text", "probability", "unsure", "source")


def extract(recipe: Recipe, model: Path, inputs: Sequence[Path], stage: Stage) -> Report:
    """The report on the entities of all texts, which are written into the run folder."""
    own = [own_question(path, "entities") for path in recipe.tasks]
    opened = open_for(model, recipe.slots, recipe.form, recipe.window, recipe.base)
    try:
        kinds: list[str | Question] = [*(USUAL if recipe.kinds is None else recipe.kinds), *own]
        _check_room(recipe, opened, kinds)
        for line in _doubts(opened, kinds):
            stage.log(line)

        def ask(document: Document) -> Asked[Spans]:
            extraction = Extraction(opened, document.text, kinds, recipe.max_new_tokens)

            def row(results: Sequence[Spans]) -> Mapping[str, Any]:
                found = [entity.row(recipe.threshold) for entity in extraction.entities(results)]
                return {"id": document.id, "characters": len(document.text), "passages": extraction.passages,
                        "cut": extraction.cut, "entities": found}  # fmt: skip

            return Asked(extraction.jobs, row)

        files = answer_all(stage, opened, find_data(inputs, recipe.column, recipe.id_column, recipe.encoding), ask)
        about = {"model": opened.name, "runtime": opened.runtime, "form": opened.form, "threshold": recipe.threshold}
    finally:
        opened.decoder.close()
    write_json_lines(stage.out / "documents.jsonl", map(_document, rows_of(files)))
    write_json_lines(stage.out / "entities.jsonl", _entities(files))
    write_table(stage.out / "entities.csv", COLUMNS, _entities(files))
    names = [kind if isinstance(kind, str) else kind.name for kind in kinds]
    numbers = {**about, "kinds": names, "notes": _doubts(opened, kinds), **_figures(files, names)}
    return Report(numbers, markdown(numbers))


def markdown(numbers: Mapping[str, Any]) -> str:
    """The figures for people; no text of any document."""
    lines = [
        "# Extraction", "", "| | |", "| --- | --- |", f"| model | {numbers['model']} ({numbers['form']}) |",
        f"| texts, characters | {numbers['texts']:,}, {numbers['characters']:,} |",
        f"| passages | {numbers['passages']:,} |", f"| texts without any entity | {numbers['empty']:,} |",
        f"| texts with an answer that was cut off: some entities may be missing | {numbers['cut']:,} |", "",
        f"| kind | entities | below {numbers['threshold']:g}: unsure |", "| --- | ---: | ---: |",
        *(f"| {kind} | {row['entities']:,} | {row['unsure']:,} |" for kind, row in numbers["by_kind"].items()), "",
        "Found by a research model and by rules: no medical device; check every entity before it is used.",
    ]  # fmt: skip
    return "\n".join([*lines, *(f"- {note}" for note in numbers["notes"])]) + "\n"


def _questions(kinds: Sequence[str | Question]) -> list[Question]:
    """What the model is asked; values are found by rule."""
    found = [QUESTIONS.get(kind) if isinstance(kind, str) else kind for kind in kinds]
    return [question for question in found if question is not None]


def _check_room(recipe: Recipe, opened: Opened, kinds: Sequence[str | Question]) -> None:
    todo = "raise extract.window" if recipe.window else "give a model with a larger window"
    for question in _questions(kinds):
        check_room(asking_of(opened, recipe.max_new_tokens), question, f"{todo}, or lower extract.max_new_tokens")


def _doubts(opened: Opened, kinds: Sequence[str | Question]) -> list[str]:
    """What the model is asked without having been tuned on it."""
    notes = [(question.name, untuned(opened, question)) for question in _questions(kinds)]
    return [f"{name}: {note}" for name, note in notes if note]


def _document(row: Mapping[str, Any]) -> dict[str, Any]:
    found = row["entities"]
    return {**row, "entities": len(found), "unsure": sum(entity["unsure"] for entity in found)}


def _entities(files: Sequence[Path]) -> Iterator[dict[str, Any]]:
    for row in rows_of(files):
        for entity in row["entities"]:
            yield {"id": row["id"], **entity}


def _figures(files: Sequence[Path], kinds: Sequence[str]) -> dict[str, Any]:
    totals: Counter[str] = Counter()
    found: Counter[tuple[str, bool]] = Counter()
    for row in rows_of(files):
        totals.update(texts=1, characters=row["characters"], passages=row["passages"])
        totals.update(empty=not row["entities"], cut=row["cut"])
        found.update((entity["kind"], entity["unsure"]) for entity in row["entities"])
    by_kind = {
        kind: {"entities": found[kind, False] + found[kind, True], "unsure": found[kind, True]} for kind in kinds
    }
    return {**{name: totals[name] for name in ("texts", "characters", "passages", "empty", "cut")}, "by_kind": by_kind}
