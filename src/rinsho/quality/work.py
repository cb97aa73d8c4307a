"""The steps of a quality run: sample, labels, vectors, forest, then a preview or the full pass."""

from __future__ import annotations

import csv
import io
import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rinsho.document import shard_paths
from rinsho.errors import UserError
from rinsho.files import atomic_folder, write_atomic
from rinsho.quality import Recipe, describe, forest, labels, passing, report
from rinsho.quality.features import Features, about, open_features, train_floret, vectors_in_chunks
from rinsho.quality.labels import LOW, Labels
from rinsho.quality.sample import Corpus, Sampled, draw
from rinsho.run import Report, Stage

Vectors = npt.NDArray[np.float32]
TIMED_DOCUMENTS = 256  # on which a preview measures the rate


class Previewed(Exception):  # noqa: N818
    """The preview is written; the folder stays unfinished, so that the full run continues in it."""

    def __init__(self, report: Report) -> None:
        super().__init__("preview")
        self.report = report


class Clock:
    """Seconds a step took, over all runs of this folder; a step that a kill ended is not counted for that run."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.seconds: dict[str, float] = json.loads(path.read_text()) if path.exists() else {}

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Times the block."""
        started = time.monotonic()
        try:
            yield
        finally:
            self.seconds[name] = round(self.seconds.get(name, 0.0) + time.monotonic() - started, 3)
            write_atomic(self._path, json.dumps(self.seconds))


@dataclass(frozen=True)
class Labelled:
    """The corpus's sample, the documents of it that were to be labelled, and what became of them."""

    corpus: Corpus
    chosen: list[Sampled]
    given: Labels

    @property
    def places(self) -> list[int]:
        """Places in `chosen` of the documents with a label."""
        return sorted(self.given.given)


def work(recipe: Recipe, inputs: Sequence[Path], stage: Stage) -> Report:
    """Runs or continues the stage.

    Raises:
        Previewed: with `preview`, once its report is written.
        UserError: nothing to judge, labels of one kind only, or nothing left.
    """
    if outward := describe(recipe, inputs):
        stage.log(outward)
    clock = Clock(stage.partial / "seconds.json")
    files = shard_paths(inputs)
    labels_of = labels.read_label_file(Path(recipe.labels)) if recipe.labels else {}
    with clock.step("sample"):
        corpus = draw(recipe, files, labels_of.keys(), stage)
    if not corpus.documents:
        raise UserError("no documents", where=", ".join(str(path) for path in inputs), expected="a corpus")
    with clock.step("labels"):
        labelled = _labelled(recipe, corpus, labels_of, stage)
    if recipe.preview:
        _preview(recipe, labelled, clock, stage)
    folder = stage.out / "classifier"
    if not (folder / "classifier.json").exists():
        _classifier(recipe, labelled, clock, stage)
    figures = json.loads((folder / "classifier.json").read_text(encoding="utf-8"))["figures"]
    with clock.step("pass"):
        counts = passing.judge_all(recipe, inputs, files, corpus.documents, stage)
    if not counts.kept:
        raise UserError(
            f"all {counts.dropped} documents were dropped",
            where="quality.max_low_probability",
            expected="documents of good quality",
            todo="raise it in a run of its own, or look at the labels in classifier/labels.csv",
        )
    return report.full(recipe, labelled.given, figures, counts, clock.seconds)


def _labelled(recipe: Recipe, corpus: Corpus, labels_of: dict[str, str], stage: Stage) -> Labelled:
    """The documents of the label file, or the first of the random order as the endpoint labels them."""
    if recipe.labels:
        if not corpus.wanted:
            raise UserError("none of its ids is in the corpus", where=recipe.labels, expected="ids of this corpus")
        return Labelled(corpus, corpus.wanted, labels.from_file(labels_of, corpus.wanted))
    most = min(recipe.label_documents, recipe.preview_documents if recipe.preview else recipe.label_documents)
    chosen = corpus.random[:most]
    saved = stage.partial / f"labels-{len(chosen)}.json"
    if not saved.exists():
        cache = Path(recipe.cache) if recipe.cache else stage.out.resolve().parent / "answers"
        found = labels.ask(recipe, chosen, cache / "quality.jsonl", stage)
        write_atomic(saved, json.dumps(vars(found)))
    row = json.loads(saved.read_text(encoding="utf-8"))
    row["given"] = {int(place): label for place, label in row["given"].items()}
    return Labelled(corpus, chosen, Labels(**{**row, "failed": Counter(row["failed"])}))


def _features(recipe: Recipe, corpus: Corpus, stage: Stage) -> Features:
    folder = stage.partial / "floret"
    if not recipe.model and not folder.exists():
        stage.log("learning floret vectors")
        train_floret(recipe, (row.text for row in corpus.random[: recipe.vector_documents]), folder)
    return open_features(recipe, folder)


def _vectors(features: Features, rows: Sequence[Sampled], name: str, stage: Stage) -> Vectors:
    return vectors_in_chunks(features, [row.text for row in rows], stage.partial / f"vectors-{name}", stage)


def _classifier(recipe: Recipe, labelled: Labelled, clock: Clock, stage: Stage) -> None:
    """Cross-validates and trains the forest and writes `classifier/`."""
    low = _low(recipe, labelled)
    with clock.step("vectors"):
        features = _features(recipe, labelled.corpus, stage)
        name = "wanted" if recipe.labels else "random"
        vectors = _vectors(features, labelled.chosen, name, stage)[labelled.places]
    with clock.step("forest"):
        stage.log(f"training {recipe.trees} trees on {len(low)} documents, {recipe.folds + 1} times")
        unseen = forest.cross_validate(recipe, vectors, low)
        figures = forest.figures(low, unseen, recipe.max_low_probability, recipe.seed)
        trained = forest.train(recipe, vectors, low)
    about_it = {
        "features": about(recipe),
        "max_low_probability": recipe.max_low_probability,
        "labelled_high": int((~low).sum()),
        "labelled_low": int(low.sum()),
        "figures": figures,
    }
    with atomic_folder(stage.out / "classifier") as aside:
        trained.save(aside / "forest.npz")
        if not recipe.model:
            (aside / "floret.bin").write_bytes((stage.partial / "floret" / "floret.bin").read_bytes())
        (aside / "labels.csv").write_text(_label_lines(labelled), encoding="utf-8")
        (aside / "classifier.json").write_text(json.dumps(about_it, ensure_ascii=False, indent=2), encoding="utf-8")


def _low(recipe: Recipe, labelled: Labelled) -> npt.NDArray[np.bool_]:
    """Whether each labelled document is 低, in the order of their places.

    Raises:
        UserError: too few documents of one label to learn from.
    """
    low = np.array([labelled.given.given[place] == LOW for place in labelled.places], dtype=bool)
    if min(int(low.sum()), int((~low).sum())) < recipe.folds:
        raise UserError(
            f"{low.sum()} documents are labelled 低 and {(~low).sum()} 高",
            where="quality labels",
            expected=f"at least {recipe.folds} of each",
            todo="label more documents; where nearly all are alike there is nothing that a classifier could drop",
        )
    return low


def _label_lines(labelled: Labelled) -> str:
    """A label file as this room reads it."""
    lines = io.StringIO()
    writer = csv.writer(lines, lineterminator="\n")
    writer.writerow(["id", "label"])
    writer.writerows((labelled.chosen[place].id, labelled.given.given[place]) for place in labelled.places)
    return lines.getvalue().encode("utf-8", "replace").decode()


def _preview(recipe: Recipe, labelled: Labelled, clock: Clock, stage: Stage) -> None:
    """Measures rates on a few documents, and the yield where a forest can be trained; writes the report and ends."""
    corpus, rows = labelled.corpus, labelled.corpus.random[: 4 * recipe.preview_documents]
    with clock.step("preview"):
        features = _features(recipe, corpus, stage)
        measured: dict[str, Any] = {"seconds_per_document": _rate(features, rows)}
        try:
            low = _low(recipe, labelled)
        except UserError as problem:
            measured["no_forest"] = problem.what
        else:
            measured |= _yield(recipe, labelled, low, features, stage)
            measured["seconds_per_document"] += measured.pop("forest_seconds_per_document")
    found = report.preview(recipe, corpus, labelled.given, measured, clock.seconds)
    write_atomic(stage.out / "report.json", json.dumps(vars(found), ensure_ascii=False, indent=2))
    write_atomic(stage.out / "report.md", found.markdown)
    stage.log(f"preview done, nothing was dropped; the full run: the same command without preview ({stage.out})")
    raise Previewed(found)


def _yield(
    recipe: Recipe, labelled: Labelled, low: npt.NDArray[np.bool_], features: Features, stage: Stage
) -> dict[str, Any]:
    """What a forest of the preview's labels would drop of a random sample; none is judged by a forest that saw it."""
    rows, places = labelled.corpus.random[: 4 * recipe.preview_documents], labelled.places
    vectors = _vectors(features, rows, "random", stage)
    seen = _vectors(features, labelled.chosen, "wanted", stage)[places] if recipe.labels else vectors[places]
    started = time.monotonic()
    unseen = forest.cross_validate(recipe, seen, low)
    trained = forest.train(recipe, seen, low)
    trained_after = time.monotonic()
    probability = trained.low_probability(vectors)
    judged_after = time.monotonic()
    known = {labelled.chosen[place].id: value for place, value in zip(places, unseen.tolist(), strict=True)}
    probability = np.array([known.get(row.id, value) for row, value in zip(rows, probability, strict=True)])
    return {
        "forest_seconds": trained_after - started,
        "forest_seconds_per_document": (judged_after - trained_after) / len(rows),
        "figures": forest.figures(low, unseen, recipe.max_low_probability, recipe.seed),
        "dropped": report.expected(
            probability > recipe.max_low_probability, np.array([row.size_bytes for row in rows]), recipe.seed
        ),
    }


def _rate(features: Features, rows: Sequence[Sampled]) -> float:
    """Seconds a document takes to become a vector, one process, after a short warm-up."""
    texts = [row.text for row in rows[:TIMED_DOCUMENTS]]
    features.vectors(texts[:8])
    started = time.monotonic()
    features.vectors(texts)
    return (time.monotonic() - started) / len(texts)
