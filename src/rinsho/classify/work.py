"""The work of a classification: read, ask, write, report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rinsho.classify import Recipe
from rinsho.clinical.classifying import MORE_ROOM, Classification
from rinsho.clinical.questions import any_class, asking_of, check_room, own_question, untuned
from rinsho.clinical.reading import find_data
from rinsho.clinical.work import Asked, answer_all, open_for, rows_of, write_json_lines, write_table
from rinsho.document import Document
from rinsho.run import Report, Stage

UNSURE = 0.5  # texts whose likeliest option has less are counted in the report


def classify(recipe: Recipe, model: Path, inputs: Sequence[Path], stage: Stage) -> Report:
    """The report on the classes of all texts, which are written into the run folder."""
    if recipe.task is None:
        question = any_class(recipe.options, recipe.question)
    else:
        question = own_question(recipe.task, "classification")
    opened = open_for(model, recipe.slots, recipe.form, recipe.window, recipe.base)
    try:
        check_room(asking_of(opened, 1), question, "raise classify.window" if recipe.window else MORE_ROOM)
        note = untuned(opened, question)
        if note:
            stage.log(note)

        def ask(document: Document) -> Asked[list[float]]:
            made = Classification(opened, document.text, question=question)

            def row(results: Sequence[list[float]]) -> Mapping[str, Any]:
                shares = [round(share, 4) for share in made.shares(results[0])]
                best = max(range(len(shares)), key=shares.__getitem__)
                return {"id": document.id, "option": made.options[best], "probability": shares[best],
                        "probabilities": dict(zip(made.options, shares, strict=True)),
                        "shortened": made.shortened}  # fmt: skip

            return Asked([made.job], row)

        data = find_data(inputs, recipe.column, recipe.id_column, recipe.encoding, "classify.encoding")
        files = answer_all(stage, opened, data, ask)
        about = {"model": opened.name, "runtime": opened.runtime, "form": opened.form, "notes": [note] if note else []}
    finally:
        opened.decoder.close()
    write_json_lines(stage.out / "classes.jsonl", rows_of(files))
    columns = ["id", "option", "probability", *map(_column, question.options), "shortened"]
    write_table(stage.out / "classes.csv", columns, _flat(files))
    counts = Counter(row["option"] for row in rows_of(files))
    numbers = {
        **about, "texts": counts.total(), "options": {option: counts[option] for option in question.options},
        "unsure": sum(row["probability"] < UNSURE for row in rows_of(files)),
        "shortened": sum(row["shortened"] for row in rows_of(files)),
    }  # fmt: skip
    return Report(numbers, markdown(numbers))


def markdown(numbers: Mapping[str, Any]) -> str:
    """The figures for people; no text of any document."""
    lines = [
        "# Classification", "", "| | |", "| --- | --- |", f"| model | {numbers['model']} ({numbers['form']}) |",
        f"| texts | {numbers['texts']:,} |", f"| likeliest option below {UNSURE:g} | {numbers['unsure']:,} |",
        f"| texts whose middle was left out | {numbers['shortened']:,} |", "",
        "| option | texts |", "| --- | ---: |",
        *(f"| {option} | {count:,} |" for option, count in numbers["options"].items()), "",
        "By a research model: no medical device; check the classes before they are used.",
    ]  # fmt: skip
    return "\n".join([*lines, *(f"- {note}" for note in numbers["notes"])]) + "\n"


def _column(option: str) -> str:
    return f"probability: {option}"


def _flat(files: Sequence[Path]) -> Iterator[dict[str, Any]]:
    for row in rows_of(files):
        yield {**row, **{_column(option): share for option, share in row["probabilities"].items()}}
