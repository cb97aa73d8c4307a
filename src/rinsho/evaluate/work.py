"""The work of an evaluation: read, ask, score, report."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

from rinsho.errors import UserError
from rinsho.evaluate import Recipe
from rinsho.evaluate.ask import MODES, answer_all, by_task
from rinsho.evaluate.facts import Facts, facts_of_answers, read_facts, write_facts
from rinsho.evaluate.inputs import Inputs, read_answers, sort_inputs
from rinsho.evaluate.report import markdown
from rinsho.evaluate.scoring import Scoring, baselines, judge
from rinsho.run import Report, Stage, write_atomic
from rinsho.tasks import Item, Splitting, documents, read_data, read_train
from rinsho.tasks.asking import Answering, Asking
from rinsho.tasks.baselines import read_lexicon


def evaluate(recipe: Recipe, inputs: Sequence[Path], stage: Stage, model: Answering | None = None) -> Report:
    """The report of one evaluation; `model` stands in for the model folder in tests."""
    given = sort_inputs(inputs)
    facts = facts_of(given)
    splitting = chosen(recipe, facts)
    items = read_tests(recipe, given, splitting, facts.years)
    train, manifests, note = _training(given, splitting, facts)
    if facts.years:
        told = f"IgakuQA {', '.join(map(str, facts.years))} not asked: the model was tuned on it"
        note = f"{note}; {told}" if note else told
    form = recipe.answer_form if recipe.answer_form != "auto" else facts.form or "letter"
    if given.model:
        asking = Asking(
            model or _open(given.model, recipe), form, recipe.max_new_tokens, recipe.max_new_tokens_choice,
            recipe.batch_tokens, facts.prompt_form,
        )  # fmt: skip
        path = answer_all(stage, asking, items, recipe.modes)
    else:
        path = _copy_answers(given, stage)
    write_facts(facts, stage.out, (key for item in items for key in documents(item)))
    answers = read_answers(path)
    known = facts.documents
    if known is None and facts.splitting == splitting:
        known = frozenset(key for item in train for key in documents(item))
    base = baselines(train, items, read_lexicon(given.lexicon, recipe.lexicon_column))
    leaked = None if known is None else frozenset(item.id for item in items if known.intersection(documents(item)))
    modes = [mode for mode in recipe.modes if any(key[1] == mode for key in answers)]
    numbers: dict[str, Any] = {
        "model": facts.name, "answer_form": form, "prompt_form": facts.prompt_form, "split": splitting.split,
        "test_part": splitting.test_part, "split_seed": splitting.seed, "seed": recipe.seed,
        **Scoring(answers, base, recipe.bootstrap_samples, recipe.seed, leaked).tables(items, modes),
        "leakage": _leakage(items, leaked), "leakage_source": _source(facts, known, splitting),
        "training": manifests, "training_note": note,
        "samples": _samples(items, answers, modes, recipe), "answers": _answer_figures(items, answers),
    }  # fmt: skip
    for row in numbers["scores"]:
        stage.metric(task=row["task"], mode=row["mode"], n=row["n"], score=row["score"])
    numbers = json.loads(json.dumps(numbers))  # tuples become lists, as a reader of scores.json sees them
    write_atomic(stage.out / "scores.json", json.dumps(numbers, ensure_ascii=True, indent=1) + "\n")
    return Report(numbers, markdown(numbers))


def facts_of(given: Inputs) -> Facts:
    """The facts of the model folder, or of the model that gave the answers."""
    if given.model:
        return read_facts(given.model)
    return facts_of_answers(given.answers) if given.answers else Facts("unknown")


def chosen(recipe: Recipe, facts: Facts) -> Splitting:
    """The recipe's splitting; what it leaves open as the model was tuned, else as is usual."""
    usual = facts.splitting or Splitting()
    return Splitting(
        usual.split if recipe.split == "auto" else recipe.split,
        usual.test_part if recipe.test_part == "auto" else recipe.test_part,
        usual.seed if recipe.split_seed is None else recipe.split_seed,
    )


def read_tests(recipe: Recipe, given: Inputs, splitting: Splitting, trained: Sequence[int] = ()) -> list[Item]:
    """The test questions of the recipe, at most `max_items` of each task and year, in the order of the files.

    Examinations of the years that the model was `trained` on are never asked (N3-1).

    Raises:
        UserError: the recipe names such a year, or a file is wrong.
    """
    for year in set(recipe.years or ()).intersection(trained):
        raise UserError(
            f"the model was tuned on the examination of {year}", where="evaluate.years", expected="other years"
        )
    items = read_data(given.data, "test", splitting, recipe.tasks, recipe.years)
    items = [item for item in items if item.year is None or item.year not in trained]
    if recipe.max_items is None:
        return items
    kept: set[str] = set()
    for _, group in by_task(items):
        drawn = sorted(group, key=lambda item: blake2b(f"{recipe.seed}:{item.id}".encode(), digest_size=8).digest())
        kept.update(item.id for item in drawn[: recipe.max_items])
    return [item for item in items if item.id in kept]


def _open(folder: Path, recipe: Recipe) -> Answering:
    from rinsho.generate import Generator

    return Generator(folder, threads=recipe.threads)


def _copy_answers(given: Inputs, stage: Stage) -> Path:
    """The given answers as this run's product, checked."""
    file = _answers_file(given)
    read_answers(file)
    path = stage.out / "answers.jsonl"
    write_atomic(path, file.read_bytes())
    return path


def _answers_file(given: Inputs) -> Path:
    assert given.answers is not None
    return given.answers


def _training(given: Inputs, splitting: Splitting, facts: Facts) -> tuple[list[Item], list[dict[str, Any]], str | None]:
    """(training items, split manifests, a note on them) of the data folders; evaluation works without pools.

    Raises:
        UserError: the own test part is another one than that of the model.
    """
    try:
        train, manifests = read_train(given.data, splitting)
    except UserError as problem:
        return [], [], f"no baselines from a training part: {problem.what}"
    if splitting.test_part == "published":
        return train, manifests, None if train else "no baselines from a training part: the data hold none"
    if splitting == facts.splitting and not {row["test_hash"] for row in manifests} <= set(facts.test_hashes):
        raise UserError(
            "another test part is drawn from these data than the model was tuned beside: it may hold training rows",
            where=", ".join(map(str, given.data)), expected=f"test part {', '.join(facts.test_hashes) or 'unknown'}",
            todo="give the data that the model was tuned on, or set evaluate.test_part: published",
        )  # fmt: skip
    return train, manifests, None


def _source(facts: Facts, known: frozenset[str] | None, splitting: Splitting) -> str:
    if facts.documents is not None:
        return "documents listed in the model folder"
    if known is not None:
        return f"training part of the data under the model's split ({splitting.split})"
    return "unknown: the model folder does not say what it was trained on"


def _leakage(items: Sequence[Item], leaked: frozenset[str] | None) -> list[dict[str, Any]]:
    if leaked is None:
        return []
    rows = []
    for task, group in by_task(items):
        known = sum(item.id in leaked for item in group)
        rows.append({"task": task, "passages": len(group), "known": known, "share": known / len(group)})
    return rows


def _samples(
    items: Sequence[Item], answers: Mapping[tuple[str, str], Mapping[str, Any]], modes: Sequence[str], recipe: Recipe
) -> list[dict[str, Any]]:
    """A few answers per task and mode, evenly spread over the task."""
    rows = []
    for _, group in by_task(items):
        count = min(recipe.sample_answers, len(group))
        for item in [group[place * len(group) // count] for place in range(count)]:
            for mode in modes:
                answer = answers.get((item.id, mode))
                if answer is None or mode not in MODES[item.kind]:
                    continue
                value = judge([item], [answer], mode, 1, recipe.seed).values[0]
                rows.append({"id": item.id, "mode": mode, "prompt": item.prompt, "gold": list(item.gold),
                             "answer": answer["answer"][:500], "value": value})  # fmt: skip
    return rows


def _answer_figures(items: Sequence[Item], answers: Mapping[tuple[str, str], Mapping[str, Any]]) -> dict[str, Any]:
    lengths: dict[str, float] = {}
    for task, group in by_task(items):
        tokens = [answers[item.id, "free"].get("tokens") for item in group if (item.id, "free") in answers]
        counted = [count for count in tokens if isinstance(count, int)]
        if counted:
            lengths[task] = sum(counted) / len(counted)
    asked = {item.id for item in items}
    return {
        "count": sum(key[0] in asked for key in answers),
        "of_unknown_questions": sum(key[0] not in asked for key in answers),
        "shortened_prompts": sum(bool(row.get("shortened")) for row in answers.values()),
        "mean_free_tokens": lengths,
    }
