"""Several models: each in a run folder of its own, then side by side from the stored answers (N3-1, N3-4, N3-5).

The run folder holds one finished evaluation per model (`<name>/`), `scores.json`, `scores.csv` (one row per model, task
and mode), `over_tokens.csv` where models say how many tokens they have seen, and the report. The report's numbers
(equal to `scores.json`):

* `models`: `name`, `folder` (inside the run folder) and `numbers`, those of the model's own report.
* `boards`: all models in the layout of the reports' tables, among published scores (`rinsho.evaluate.boards`).
* `paired`: one row per task, mode and pair of models on the questions that both answered: `model`, `against` (given
  earlier), `metric`, `n`, `of` (questions that either was asked), `score`, `score_against`, `difference` (`model` less
  `against`), `interval` (95 %), `p_value`, `p_holm`, `test`. Every model is compared with the first one, up to four
  models each with each. `metric` is accuracy or exact_f1, and in rows of their own kappa and overlap_f1. `p_holm` is
  corrected by Holm's rule for all comparisons of the same mode, those two apart from these two. The task `igakuqa` is
  all years together.
* `lengths`: per task and model `n`, mean `tokens` and `chars` of a free answer, and `tokens_ratio`, `chars_ratio` to
  the first model's on the questions that both answered.
* `over_tokens`: null, or one row per model, task and mode: `run`, `model`, `seen_tokens`, `metric`, `n`, `score`,
  `interval`, `chance`; see `over_tokens`.
* `notes`: what makes scores of different models not comparable.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from rinsho.errors import UserError
from rinsho.evaluate import Recipe, endpoint, further, igakuqa
from rinsho.evaluate.ask import MODES, by_task
from rinsho.evaluate.boards import boards
from rinsho.evaluate.inputs import ANSWERS_FILE, Inputs, Key, Subject, read_answers
from rinsho.evaluate.questions import read_tests, setting, touched
from rinsho.evaluate.scoring import judge
from rinsho.evaluate.several_report import markdown, scores_csv, tokens_csv
from rinsho.evaluate.work import Material, evaluate, write_metrics
from rinsho.run import NOT_PRODUCT, Report, Stage, perform, write_atomic
from rinsho.tasks import Item
from rinsho.tasks.baselines import label
from rinsho.tasks.intervals import chance_points
from rinsho.tasks.paired import compare, holm
from rinsho.tasks.score import kappa

ALL_PAIRS = 4  # models at most that are compared each with each; more are compared with the first one only
EXAMS = "igakuqa"
HEADLINE = ("accuracy", "exact_f1")
OWN_FILES = NOT_PRODUCT | {"partial", "scores.json", "scores.csv", "over_tokens.csv"}  # taken in the run folder
_STEP = re.compile(r"step-\d+\Z")
_UNSAFE = re.compile(r"[^\w.-]+")

Values = dict[tuple[str, str, str], dict[str, Any]]  # (task, mode, metric) -> item id -> value; the label for kappa
Row = dict[str, Any]


@dataclass(frozen=True)
class Evaluated:
    """One model's finished evaluation.

    Attributes:
        origin: the folder of the run it is a checkpoint of, else its own.
        items: the questions it was asked.
        values: of the questions it answered.
    """

    name: str
    origin: Path
    numbers: Row
    items: Sequence[Item]
    answers: Mapping[Key, Mapping[str, Any]]
    values: Values


def evaluate_several(recipe: Recipe, given: Inputs, stage: Stage) -> Report:
    """The report on all models under test. A finished one is skipped on a rerun, an interrupted one continues.

    Raises:
        UserError: a model is given twice, or one of the evaluations cannot be made.
    """
    named = names(_places(given.subjects))
    # What the first models answered must outlive an error about a later one (`rinsho.run` forgets empty runs).
    write_atomic(stage.partial / "models.json", json.dumps(named) + "\n")
    models: list[Evaluated] = []
    asked: dict[Any, list[Item]] = {}
    known: dict[Any, Material] = {}
    for number, (name, subject) in enumerate(zip(named, given.subjects, strict=True), 1):
        stage.log(f"model {number} of {len(named)}: {name}")
        single = replace(given, subjects=(subject,))
        inputs, also = [subject.path, *given.data, *given.lexicon, *further(recipe), *subject.beside], []
        if subject.kind == "endpoint":
            inputs, also = inputs[1:], [endpoint.identity(endpoint.read_settings(subject.path))]
        work = partial(_one, recipe, single, known)
        report = perform("evaluate", recipe, inputs, stage.out / name, work, also=also)
        models.append(_evaluated(recipe, given, subject, name, report.numbers, stage.out / name, asked))
    told = [{"name": model.name, "folder": model.name, "numbers": model.numbers} for model in models]
    numbers = {
        "models": told,
        "boards": boards(told, recipe.published),
        "paired": paired(models, recipe.bootstrap_samples, recipe.seed),
        "lengths": lengths(models),
        "over_tokens": over_tokens(models, recipe.bootstrap_samples, recipe.seed),
        "notes": notes(models),
    }
    numbers = json.loads(json.dumps(numbers))  # tuples become lists, as a reader of scores.json sees them
    _write(numbers, stage, recipe.plot)
    return Report(numbers, markdown(numbers))


def _one(recipe: Recipe, given: Inputs, known: dict[Any, Material], stage: Stage) -> Report:
    return evaluate(recipe, given, stage, known=known)


def names(places: Sequence[Path]) -> list[str]:
    """The shortest ends of the paths that tell them apart, as names of folders; upper and lower case are the same.

    >>> names([Path("runs/row/finetune"), Path("runs/document/finetune"), Path("models/GPT 4")])
    ['row-finetune', 'document-finetune', 'GPT_4']

    Raises:
        UserError: a path stands twice.
    """
    paths = [place.resolve() for place in places]
    for path in paths:
        if paths.count(path) > 1:
            raise UserError("given twice", where=path, expected="each model once", todo="leave one of them out")
    longest = max(len(path.parts) for path in paths)
    ends = [[_end(path, depth) for depth in range(1, longest + 1)] for path in paths]
    found: list[str] = []
    for own in ends:
        others = [other for other in ends if other is not own]
        clear = (end for depth, end in enumerate(own) if all(end.lower() != other[depth].lower() for other in others))
        name = next(clear, own[0])
        name = f"model-{name}" if name.lower() in {file.lower() for file in OWN_FILES} else name
        taken = {earlier.lower() for earlier in found}
        found.append(next(n for n in (name, *(f"{name}-{k}" for k in range(2, 10_000))) if n.lower() not in taken))
    return found


def paired(models: Sequence[Evaluated], samples: int, seed: int) -> list[Row]:
    """The rows of `paired` (see the top of this file): modes as in the recipe, tasks in the order of the data."""
    some = list(combinations(models, 2)) if len(models) <= ALL_PAIRS else [(models[0], other) for other in models[1:]]
    rows: list[Row] = []
    for against, model in some:
        items = {item.id: item for one in (against, model) for item in one.items}
        for (task, mode, metric), first in against.values.items():
            second = model.values.get((task, mode, metric), {})
            common = [identifier for identifier in first if identifier in second]
            if not common or _is_one_year(task, [items[identifier] for identifier in common]):
                continue
            ours, theirs = ([side[identifier] for identifier in common] for side in (second, first))
            group = [items[identifier] for identifier in common]
            asked = [i for i in items.values() if task in {_task(i), i.task} and mode in MODES[i.kind]]
            rows.append({
                "task": task, "mode": mode, "model": model.name, "against": against.name, "metric": metric,
                "of": len(asked), "score": _score(metric, group, ours), "score_against": _score(metric, group, theirs),
                **compare(metric, group, ours, theirs, samples, seed),
            })  # fmt: skip
    for family in {(row["mode"], row["metric"] in HEADLINE) for row in rows}:
        own = [row for row in rows if (row["mode"], row["metric"] in HEADLINE) == family]
        for row, corrected in zip(own, holm([_certain(row["p_value"]) for row in own]), strict=True):
            row["p_holm"] = None if row["p_value"] is None else corrected
    return rows


def lengths(models: Sequence[Evaluated]) -> list[Row]:
    """The rows of `lengths`: were answers shorter after tuning? (N3-5). Tokens of other tokenizers are other units."""
    rows: list[Row] = []
    for task in dict.fromkeys(_task(item) for model in models for item in model.items):
        first = _sizes(models[0], task)
        for model in models:
            own = _sizes(model, task)
            row: Row = {"task": task, "model": model.name, "n": len(own)}
            for place, unit in enumerate(("tokens", "chars")):
                known = [count for size in own.values() if (count := size[place]) is not None]
                row[unit] = sum(known) / len(known) if known else None
                both = [(own[i][place], first[i][place]) for i in own if i in first]
                sums = [sum(pair[side] or 0 for pair in both if None not in pair) for side in (0, 1)]
                row[f"{unit}_ratio"] = sums[0] / sums[1] if sums[1] else None
            if own:
                rows.append(row)
    return rows


def over_tokens(models: Sequence[Evaluated], samples: int, seed: int) -> list[Row] | None:
    """Scores of models that say how many tokens they have seen, by run and seen tokens; None for less than two.

    Checkpoints of one run folder are one `run`, in the order of their tokens; any other model is a run of its own.
    The task `igakuqa` is the report's Figure 6: the mean over the years of the share of points, with a bootstrap
    interval over the problems of each year; years that not all models were asked are left out. The other tasks have
    score and interval of their own rows.

    Source: N3-1.
    """
    known = [model for model in models if model.numbers.get("seen_tokens") is not None]
    if len({model.numbers["seen_tokens"] for model in known}) < 2:
        return None
    origins = list(dict.fromkeys(model.origin for model in known))
    runs = dict(zip(origins, names(origins), strict=True))
    years = set.intersection(*({item.year for item in model.items if item.task == EXAMS} for model in known)) - {None}
    rows: list[Row] = []
    for model in sorted(known, key=lambda one: (origins.index(one.origin), one.numbers["seen_tokens"])):
        about = {"run": runs[model.origin], "model": model.name, "seen_tokens": model.numbers["seen_tokens"]}
        for mode in dict.fromkeys(row["mode"] for row in model.numbers["scores"]):
            exams = [item for item in model.items if item.task == EXAMS and item.year in years]
            if exams:
                rows.append(about | _exam_average(exams, model.answers, mode, samples, seed))
            for row in model.numbers["scores"]:
                if row["mode"] == mode:
                    kept = ("task", "mode", "metric", "n", "score", "interval", "interval_kind", "chance")
                    rows.append(about | {name: row[name] for name in kept})
    return rows


def notes(models: Sequence[Evaluated]) -> list[str]:
    """What differs between the models and makes their scores not comparable."""
    told = []
    for name, why in (
        ("prompt_form", "scores under different prompts are not comparable"),
        ("few_shot", "scores with and without solved examples are not comparable"),
        ("few_shot_from", "other solved examples stood before the questions"),
        ("test_part", "compare only the paired rows, which are on common questions"),
        ("answer_form", "free answers were read by different rules"),
    ):
        groups: dict[str, list[str]] = {}
        for model in models:
            groups.setdefault(str(model.numbers.get(name)), []).append(model.name)
        if len(groups) > 1:
            parts = "; ".join(f"{value}: {', '.join(found)}" for value, found in groups.items())
            told.append(f"`{name}` differs ({parts}): {why}")
    everyone = set.union(*({item.id for item in model.items} for model in models))
    for model in models:
        missing = everyone.difference(item.id for item in model.items)
        if missing:
            told.append(f"{model.name} was not asked {len(missing)} of the {len(everyone)} questions of all")
        unanswered = sum(len(asked) for asked in _unanswered(model).values())
        if unanswered:
            told.append(f"{model.name} left {unanswered} answers out: wrong in its scores, not in the paired rows")
    return told


def _evaluated(  # noqa: PLR0917
    recipe: Recipe, given: Inputs, subject: Subject, name: str, numbers: Row, folder: Path, asked: dict[Any, list[Item]]
) -> Evaluated:
    """A finished run with its stored answers, judged once more; `asked` remembers questions read for other models."""
    own = Subject(folder / ANSWERS_FILE, "answers")
    how = setting(recipe, own)
    if how.questions not in asked:
        asked[how.questions] = read_tests(given, how)
    answers = read_answers(own.path)
    items, _ = touched(asked[how.questions], answers, own)
    place = _place(subject)
    origin = place
    if _STEP.match(place.name):
        origin = place.parent.parent if place.parent.name == "checkpoints" else place.parent
    modes = [mode for mode in how.recipe.modes if any(key[1] == mode for key in answers)]
    return Evaluated(name, origin, numbers, items, answers, _values(items, answers, modes))


def _values(items: Sequence[Item], answers: Mapping[Key, Mapping[str, Any]], modes: Sequence[str]) -> Values:
    """What the answered questions scored, in the options' printed order; examinations by year and all together."""
    found: Values = {}
    for mode in modes:
        for task, group in by_task(items):
            rows = [answers.get((item.id, mode, 0), {}) for item in group]
            if any(rows):
                judged = judge(group, rows, mode, 0, 0)
                measured: dict[str, Sequence[Any]] = {judged.metric: judged.values, "overlap_f1": judged.overlap}
                measured["kappa"] = judged.given if "kappa" in judged.also else ()
                for metric, values in measured.items():
                    own = {item.id: v for item, row, v in zip(group, rows, values, strict=bool(values)) if row}
                    for name in {task, group[0].task} if own else ():
                        found[name, mode, metric] = found.get((name, mode, metric), {}) | own
    return found


def _unanswered(model: Evaluated) -> dict[str, list[str]]:
    """Per mode the questions that were asked and not answered; nothing for a mode that was not used."""
    return {
        mode: [i.id for i in model.items if mode in MODES[i.kind] and (i.id, mode, 0) not in model.answers]
        for mode in dict.fromkeys(key[1] for key in model.values)
    }


def _sizes(model: Evaluated, task: str) -> dict[str, tuple[int | None, int]]:
    """Item id -> (tokens, characters) of the free answer."""
    found = {}
    for item in model.items:
        row = model.answers.get((item.id, "free", 0)) if _task(item) == task else None
        if row is not None:
            tokens = row.get("tokens")
            found[item.id] = (tokens if isinstance(tokens, int) else None, len(row["answer"]))
    return found


def _exam_average(
    items: Sequence[Item], answers: Mapping[Key, Mapping[str, Any]], mode: str, samples: int, seed: int
) -> Row:
    """The mean over the years of the share of points. Each year's problems are drawn again for themselves: the years
    are given, their problems are a sample."""
    shares, guesses, draws = [], [], np.zeros(samples)
    groups = by_task(items)
    rng = np.random.default_rng(seed)
    for _, group in groups:
        judged = judge(group, [answers.get((item.id, mode, 0), {}) for item in group], mode, 0, 0)
        worth = np.array([float(item.points) for item in group])
        right = worth * np.array(judged.values)
        total = max(1.0, float(igakuqa.total_points(group)))
        shares.append(float(right.sum()) / total)
        guesses.append(chance_points(group) / total)
        drawn = rng.integers(0, len(group), size=(samples, len(group)))
        draws += right[drawn].sum(axis=1) / np.maximum(worth[drawn].sum(axis=1), 1.0)
    low, high = np.quantile(draws / len(groups), [0.025, 0.975])
    return {
        "task": EXAMS, "mode": mode, "metric": "share_of_points", "n": len(items), "score": sum(shares) / len(shares),
        "interval": [float(low), float(high)], "interval_kind": "bootstrap over problems within each year",
        "chance": sum(guesses) / len(guesses),
    }  # fmt: skip


def _write(numbers: Row, stage: Stage, plot: bool) -> None:
    scores = [row | {"model": model["name"]} for model in numbers["models"] for row in model["numbers"]["scores"]]
    write_metrics(stage, scores)
    write_atomic(stage.out / "scores.csv", scores_csv(numbers["models"]))
    if numbers["over_tokens"]:
        write_atomic(stage.out / "over_tokens.csv", tokens_csv(numbers["over_tokens"]))
    write_atomic(stage.out / "scores.json", json.dumps(numbers, ensure_ascii=True, indent=1) + "\n")
    if plot:
        from rinsho.evaluate.page import write

        write(numbers, stage.out / "report.html")


def _places(subjects: Sequence[Subject]) -> list[Path]:
    """What the models are called after: their folders; of files the name without suffix where that is clear."""
    found = [_place(subject) for subject in subjects]
    return [s.path if found.count(place) > 1 else place for s, place in zip(subjects, found, strict=True)]


def _place(subject: Subject) -> Path:
    path = subject.path.resolve()
    if subject.kind == "folder":
        return path.with_suffix("") if subject.beside else path
    return path.parent if path.name == ANSWERS_FILE else path.with_suffix("")


def _end(path: Path, depth: int) -> str:
    """The last parts of a path as one name that every file system takes."""
    parts = [part for part in path.parts[-depth:] if part != path.anchor]
    return _UNSAFE.sub("_", "-".join(parts)).lstrip(".-")[-60:] or "model"


def _score(metric: str, items: Sequence[Item], values: Sequence[Any]) -> float | None:
    """The score of one model on these items; None where kappa is not defined."""
    if metric != "kappa":
        return float(sum(values)) / len(values)
    agreement = kappa([label(item) for item in items], values, "linear" if items[0].ordered else None)
    return None if math.isnan(agreement) else agreement


def _certain(p_value: float | None) -> float:
    """A p value that is not defined tells nothing, but counts among the comparisons."""
    return 1.0 if p_value is None else p_value


def _is_one_year(task: str, items: Sequence[Item]) -> bool:
    """Whether these are one examination under the name of all of them: it has a row of its own."""
    return all(item.year is not None and item.task == task for item in items) and len({i.year for i in items}) == 1


def _task(item: Item) -> str:
    return item.task if item.year is None else f"{item.task}-{item.year}"
