"""The work of an analysis: each part once, each on its own, then the report."""

from __future__ import annotations

import dataclasses
import json
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rinsho.analyse import Recipe, page
from rinsho.analyse.inputs import Inputs, name_of
from rinsho.analyse.part import Part
from rinsho.errors import UnsuitedError, UserError, from_os_error
from rinsho.files import atomic_folder, write_atomic
from rinsho.machine import give_back
from rinsho.progress import duration
from rinsho.run import Report, Stage

TITLES = {
    "embeddings": "Map of the token embedding",
    "analogies": "Analogies",
    "attention": "Attention over packed documents",
    "curves": "Curves",
    "samples": "Samples",
}
OPENING = ("attention", "samples")  # parts that open the model
AGAIN = "mended, the same command makes it; other settings need another --out"
Make = Callable[[Path], Part]


def analyse(recipe: Recipe, given: Inputs, stage: Stage) -> Report:
    """The report on a model; every part is made once, also when the run is interrupted between two.

    A part that the model or the inputs have nothing for is told in the report, and the run is done without it. One
    that failed stands in the report with why, too, but the run ends with an error: begun again, it makes what is left.

    Raises:
        UserError: a part failed, no part could be made, or the disk is full.
    """
    made = makers(recipe, given)
    chapters: list[dict[str, Any]] = []
    for id_ in dict.fromkeys(recipe.parts):
        part, problem, failed = _made(id_, made[id_], stage)
        title = part.title if part else TITLES[id_]
        chapters.append({"id": id_, "title": title, "part": part, "problem": problem, "failed": failed})
    if not any(chapter["part"] for chapter in chapters):
        first = chapters[0]
        raise UserError(f"no part could be made; {first['id']}: {first['problem']}", where=given.model)
    name, facts = name_of(given.model), page.facts_of(given.model)
    page.write(stage.out / "report.html", name, facts, chapters)
    if left := [chapter["id"] for chapter in chapters if chapter["failed"]]:
        raise UserError(
            f"not made: {', '.join(left)}", where=stage.out, expected="every part; the others are in report.html",
            todo="mend what the lines above say and run the same command again, which makes these alone",
        )  # fmt: skip
    numbers = {
        "model": name,
        "facts": dict(facts),
        "parts": {chapter["id"]: part.numbers for chapter in chapters if (part := chapter["part"])},
        "files": {chapter["id"]: list(part.files) for chapter in chapters if (part := chapter["part"])},
        "not_made": {chapter["id"]: chapter["problem"] for chapter in chapters if chapter["problem"]},
    }
    return Report(json.loads(json.dumps(numbers)), page.markdown(name, facts, chapters))


def makers(recipe: Recipe, given: Inputs) -> dict[str, Make]:
    """What makes each part, told the folder for its files; nothing heavy is imported before it is called."""
    model, seed = given.model, recipe.seed

    def of_embeddings(folder: Path) -> Part:
        from rinsho.analyse.embeddings import embeddings

        return embeddings(model, given.words, folder, recipe.embeddings, seed)

    def of_analogies(folder: Path) -> Part:
        from rinsho.analyse.analogy import analogies

        return analogies(model, folder, recipe.analogies, seed)

    def of_attention(folder: Path) -> Part:
        from rinsho.analyse.attention import attention

        return attention(model, given.documents, folder, recipe.attention, seed)

    def of_curves(folder: Path) -> Part:
        from rinsho.analyse.curves import curves

        return curves(given.runs, given.evaluations, folder)

    def of_samples(folder: Path) -> Part:
        from rinsho.analyse.samples import samples

        return samples(model, folder, recipe.samples, seed)

    return {
        "embeddings": of_embeddings, "analogies": of_analogies, "attention": of_attention, "curves": of_curves,
        "samples": of_samples,
    }  # fmt: skip


def _made(name: str, make: Make, stage: Stage) -> tuple[Part | None, str, bool]:
    """A part, or None and why it was not made and whether it failed; one that an interrupted run made is read."""
    kept = stage.partial / f"{name}.json"
    if kept.is_file() and (stage.out / name).is_dir():
        row = json.loads(kept.read_text(encoding="utf-8"))
        return Part(**{**row, "files": tuple(row["files"])}), "", False
    stage.log(f"{name}: begins")
    start = time.monotonic()
    try:
        with atomic_folder(stage.out / name) as folder:
            part = make(folder)
    except Exception as error:
        problem = _problem(error, stage)
        stage.log(f"{name}: not made: {problem}")
        return None, problem, not isinstance(error, UnsuitedError)
    finally:
        if name in OPENING:
            give_back()
    write_atomic(kept, json.dumps(dataclasses.asdict(part), ensure_ascii=False))
    seconds = time.monotonic() - start
    stage.log(f"{name}: made in {duration(seconds)}, {len(part.files)} files")
    stage.metric(part=name, seconds=round(seconds, 1), files=len(part.files))
    return part, "", False


def _problem(error: Exception, stage: Stage) -> str:
    """Why a part was not made, in words that hold no text of a document or a model.

    Raises:
        Exception: what concerns the whole run: a full disk, no permission, our own mistake in the form of an assertion.
    """
    if isinstance(error, UserError):
        return f"{error}" if isinstance(error, UnsuitedError) else f"{error}; {AGAIN}"
    if isinstance(error, ModuleNotFoundError) and not str(error.name).startswith("rinsho"):
        return f"the package {error.name} is not installed; pip install 'rinsho[all]'; {AGAIN}"
    if isinstance(error, AssertionError | ImportError) or from_os_error(error) is not None:
        raise error
    # What a foreign model's code raises may hold anything: its place is told, not its words.
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames[1:] if "rinsho" in Path(frame.filename).parts] or frames
    place = f"{Path(ours[-1].filename).name}:{ours[-1].lineno}"
    stage.log("; ".join(f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in frames[-8:]))
    return f"{type(error).__name__} at {place}, with this form of model; {AGAIN}"
