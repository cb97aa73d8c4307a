"""The work of an evaluation: read, ask, score, look for leaks, report."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from rinsho.chat_template import has_chat, renderer
from rinsho.errors import UserError
from rinsho.evaluate import Recipe, endpoint
from rinsho.evaluate.ask import MODES, answer_all, by_task
from rinsho.evaluate.asked import Asked, left_out
from rinsho.evaluate.boards import boards
from rinsho.evaluate.facts import Facts, write_facts
from rinsho.evaluate.inputs import ANSWERS_FILE, Inputs, Key, Subject, read_answers
from rinsho.evaluate.leakage import UNKNOWN, Leak, Values, in_corpora, parts, table, tuned
from rinsho.evaluate.questions import Setting, read_tests, setting, touched
from rinsho.evaluate.report import markdown
from rinsho.evaluate.scoring import Baselines, Scoring, baselines, judge
from rinsho.run import Report, Stage, read_metrics, write_atomic
from rinsho.tasks import AnswerForm, Item, Splitting, documents, examples, read_train
from rinsho.tasks.asking import Answering, Asking
from rinsho.tasks.baselines import read_lexicon
from rinsho.tasks.read import read_left_out

MAX_TOKENS = 10**9  # of an answer; files of answers made elsewhere may say anything


@dataclass(frozen=True)
class Material:
    """What one evaluation asks and compares with; nothing of it depends on the answers.

    Attributes:
        items: the questions, in the order of the files.
        train: the training part under the splitting; empty where the data hold none.
        own_train: that under the model's own splitting, which may be another one; empty where it is not known.
        manifests: of the splits, one of each folder.
        notes: what is missing, for people.
    """

    items: list[Item]
    train: list[Item]
    own_train: list[Item]
    manifests: list[dict[str, Any]]
    base: Baselines
    notes: list[str]


def evaluate(recipe: Recipe, given: Inputs, stage: Stage, known: dict[Any, Material] | None = None) -> Report:
    """The report on the one model under test; `known` remembers questions and baselines for further models."""
    (subject,) = given.subjects
    how = setting(recipe, subject)
    notes = left_out(recipe, how.asked)
    model = _open(subject.path, recipe) if subject.kind == "folder" else None  # first: what is wrong shows at once
    known = {} if known is None else known
    kind = (how.questions, how.facts.splitting, how.facts.test_hashes, how.facts.documents is None)
    if kind not in known:
        known[kind] = prepare(given, how)
    material = known[kind]
    answers = read_answers(_answers(how, given, stage, material, model))
    items, missing = touched(material.items, answers, subject)
    leaks = _leaks(how, material, items, stage)
    told = _asked(how, subject, leaks)
    write_facts(how.facts, stage.out, (key for item in items for key in documents(item)), told.row())
    modes = [mode for mode in how.recipe.modes if any(key[1] == mode for key in answers)]
    if not modes:
        raise UserError(
            "no answer in any of the modes", where=subject.path, expected="one of " + ", ".join(how.recipe.modes),
            todo="set evaluate.modes to those of the answers",
        )  # fmt: skip
    numbers: dict[str, Any] = {
        **_about(how, told), "answer_form": _form_of(items, answers),
        **_tables(how.recipe, material, items, answers, modes, leaks),
        "training": material.manifests, "training_note": "; ".join(material.notes) or None,
        "left_out": read_left_out(given.data, how.recipe.tasks), "notes": notes + missing,
        "samples": _samples(items, answers, modes, how.recipe),
        "answers": _answer_figures(items, answers, modes, how.recipe.few_shot),
    }  # fmt: skip
    numbers["boards"] = boards([numbers], recipe.published)
    write_metrics(stage, numbers["scores"])
    numbers = json.loads(json.dumps(numbers))  # tuples become lists, as a reader of scores.json sees them
    write_atomic(stage.out / "scores.json", json.dumps(numbers, ensure_ascii=True, indent=1) + "\n")
    if recipe.plot:
        from rinsho.evaluate.page import write

        write(numbers, stage.out / "report.html")
    return Report(numbers, markdown(numbers))


def write_metrics(stage: Stage, scores: Sequence[Mapping[str, Any]]) -> None:
    """One line a score in metrics.jsonl, once: a run that continues after a kill writes them anew."""
    names = ("model", "task", "mode", "n", "score")
    kept = [row for row in read_metrics(stage.out) if "score" not in row]
    kept += [{name: row[name] for name in names if name in row} for row in scores]
    write_atomic(stage.out / "metrics.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in kept))


def prepare(given: Inputs, how: Setting) -> Material:
    """Questions, training parts and baselines of an evaluation."""
    facts, splitting = how.facts, how.splitting
    items = read_tests(given, how)
    train, manifests, note = _training(given, splitting, facts)
    notes = [note] if note else []
    if facts.years:
        notes.append(f"IgakuQA {', '.join(map(str, facts.years))} not asked: the model was tuned on it")
    base = baselines(train, items, read_lexicon(given.lexicon, how.recipe.lexicon_column))
    known = splitting == facts.splitting or (facts.splitting is None and facts.documents is not None)
    own = train if known else _own_training(given, facts)
    return Material(items, train, own, manifests, base, notes)


def _about(how: Setting, told: Asked) -> dict[str, Any]:
    facts, recipe, splitting = how.facts, how.recipe, how.splitting
    return {
        "model": facts.name, "how": told.how, "seen_tokens": facts.seen_tokens, "prompt_form": facts.prompt_form,
        "few_shot": recipe.few_shot, "few_shot_from": recipe.few_shot_from if recipe.few_shot else None,
        "split": splitting.split, "test_part": splitting.test_part, "split_seed": splitting.seed, "seed": recipe.seed,
        "max_items": recipe.max_items, "draw_seed": how.draw_seed, "tasks": recipe.tasks, "years": recipe.years,
    }  # fmt: skip


def _tables(  # noqa: PLR0917
    recipe: Recipe, material: Material, items: Sequence[Item], answers: Mapping[Key, Mapping[str, Any]],
    modes: Sequence[str], leaks: Sequence[Leak],
) -> dict[str, Any]:  # fmt: skip
    """The rows of scores, with those of seen and other questions beside them, and of leakage."""
    tables: dict[str, Any] = dict(
        Scoring(answers, material.base, recipe.bootstrap_samples, recipe.seed).tables(items, modes)
    )
    values = _values(items, answers, modes) if leaks else {}
    for row in tables["scores"]:
        row.update(parts(values.get((row["task"], row["mode"]), {}), leaks))
    source = "; ".join(leak.source for leak in leaks) or UNKNOWN
    return {**tables, "leakage": table(items, leaks, values), "leakage_source": source}


def _answers(how: Setting, given: Inputs, stage: Stage, material: Material, model: Answering | None) -> Path:
    """The file of raw answers: asked, or copied where they were given."""
    (subject,) = given.subjects
    recipe, facts = how.recipe, how.facts
    if subject.kind == "answers":
        return _copy_answers(subject.path, stage)
    shown = examples.choose(
        material.items, material.train, recipe.few_shot, recipe.few_shot_from, given.data, recipe.seed
    )
    if subject.kind == "endpoint":
        return endpoint.answer_all(
            stage, endpoint.read_settings(subject.path), material.items, examples=shown,
            max_new_tokens=recipe.max_new_tokens, prompt_form=facts.prompt_form, rotations=recipe.rotations,
        )  # fmt: skip
    assert model is not None
    asking = Asking(
        model, _form(recipe, facts), recipe.max_new_tokens, recipe.max_new_tokens_choice,
        recipe.max_batch_tokens, facts.prompt_form, shown,
    )  # fmt: skip
    return answer_all(stage, asking, material.items, recipe.modes, recipe.rotations)


def _form(recipe: Recipe, facts: Facts) -> AnswerForm:
    return recipe.answer_form if recipe.answer_form != "auto" else facts.form or "letter"


def _open(folder: Path, recipe: Recipe) -> Answering:
    from rinsho.generate.opening import is_gguf, open_model

    model: Answering
    if is_gguf(folder):
        from rinsho.generate.answerer import Answerer

        model = Answerer(open_model(folder, threads=recipe.threads))
    else:
        from rinsho.generate.engine import Generator

        model = Generator(folder, threads=recipe.threads)
    if has_chat(model.tokenizer):
        renderer(model.tokenizer, folder)  # a template that fails is told with the folder's name
    return model


def _copy_answers(given: Path, stage: Stage) -> Path:
    """The given answers as this run's product, checked."""
    read_answers(given)
    path = stage.out / ANSWERS_FILE
    write_atomic(path, given.read_bytes())
    return path


def _training(given: Inputs, splitting: Splitting, facts: Facts) -> tuple[list[Item], list[dict[str, Any]], str | None]:
    """(training items, split manifests, a note on them) of the data folders; evaluation works without pools.

    Raises:
        UserError: the own test part is another one than that of the model.
    """
    try:
        train, manifests = read_train(given.data, splitting, own_tasks=True)
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


def _own_training(given: Inputs, facts: Facts) -> list[Item]:
    """The training part under the model's own splitting; nothing where it is unknown or these are other data."""
    if facts.splitting is None:
        return []
    try:
        train, manifests = read_train(given.data, facts.splitting, own_tasks=True)
    except UserError:
        return []
    same = facts.splitting.test_part == "published" or {row["test_hash"] for row in manifests} <= set(facts.test_hashes)
    return train if same or facts.documents is not None else []


def _asked(how: Setting, subject: Subject, leaks: Sequence[Leak]) -> Asked:
    """What is kept of how was asked."""
    recipe, told = how.recipe, how.splitting
    return Asked(
        split=told.split, test_part=told.test_part, split_seed=told.seed, modes=recipe.modes, few_shot=recipe.few_shot,
        few_shot_from=recipe.few_shot_from, rotations=recipe.rotations, tasks=recipe.tasks, years=recipe.years,
        max_items=recipe.max_items, seed=how.draw_seed, how=how.asked.how if how.asked else _how(how, subject),
        answer_form="letter" if subject.kind == "endpoint" else _form(recipe, how.facts), leaks=tuple(leaks),
    )  # fmt: skip


def _how(how: Setting, subject: Subject) -> str:
    """In which of the ways that published scores are marked with the model came to its answers.

    Whether a model that others made was tuned on such questions is not known, nor how answers from elsewhere were made.
    """
    if how.facts.tuned:
        return "fine-tuned"
    if subject.kind == "answers" and how.facts.stage is None:
        return "unknown"
    if how.recipe.few_shot:
        return "few-shot"
    if how.facts.stage == "pretrain":
        return "pre-trained"
    return "zero-shot" if subject.kind == "endpoint" else "unknown"


def _leaks(how: Setting, material: Material, items: Sequence[Item], stage: Stage) -> list[Leak]:
    """What of the test passages the model has seen, by where that is known from; none where nothing is known.

    What was found when the questions were asked is kept, since not all that it was found from is.
    """
    facts, recipe = how.facts, how.recipe
    split = facts.splitting.split if facts.splitting else None
    if how.asked is not None:
        found = list(how.asked.leaks)
    else:
        leak = tuned(items, facts.documents, material.own_train, split)
        found = [] if leak is None else [leak]
    if recipe.leakage_corpus:
        new = in_corpora(items, recipe.leakage_corpus, recipe.leakage_chars, stage)
        found = [leak for leak in found if leak.source != new.source] + [new]
    return found


def _values(items: Sequence[Item], answers: Mapping[Key, Mapping[str, Any]], modes: Sequence[str]) -> Values:
    """The headline value of each question by task and mode."""
    found: dict[tuple[str, str], dict[str, float]] = {}
    for task, group in by_task(items):
        for mode in modes:
            if any(mode in MODES[item.kind] for item in group):
                judged = judge(group, [answers.get((item.id, mode, 0), {}) for item in group], mode, 0, 0)
                found[task, mode] = dict(zip([item.id for item in group], judged.values, strict=True))
    return found


def _form_of(items: Sequence[Item], answers: Mapping[Key, Mapping[str, Any]]) -> str:
    """The form in which choices were answered; answers from elsewhere that do not say are read as letters."""
    choices = {item.id for item in items if item.kind == "choice"}
    forms = [row.get("form") or "letter" for key, row in answers.items() if key[0] in choices]
    return ", ".join(form for form in get_args(AnswerForm) if form in forms) or "letter"


def _samples(
    items: Sequence[Item], answers: Mapping[Key, Mapping[str, Any]], modes: Sequence[str], recipe: Recipe
) -> list[dict[str, Any]]:
    """A few answers per task and mode, evenly spread over the task."""
    rows = []
    for _, group in by_task(items):
        count = min(recipe.sample_answers, len(group))
        for item in [group[place * len(group) // count] for place in range(count)]:
            for mode in modes:
                answer = answers.get((item.id, mode, 0))
                if answer is None or mode not in MODES[item.kind]:
                    continue
                value = judge([item], [answer], mode, 0, recipe.seed).values[0]
                rows.append({"id": item.id, "mode": mode, "prompt": item.prompt, "gold": list(item.gold),
                             "answer": answer["answer"][:500], "value": value})  # fmt: skip
    return rows


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < MAX_TOKENS


def _answer_figures(
    items: Sequence[Item], answers: Mapping[Key, Mapping[str, Any]], modes: Sequence[str], few_shot: int
) -> dict[str, Any]:
    """How many answers there are, how long the free ones (N3-5), what is missing, and how many examples were shown."""
    tokens: dict[str, float] = {}
    chars: dict[str, float] = {}
    unanswered: dict[str, int] = {}
    for task, group in by_task(items):
        free = [answers[item.id, "free", 0] for item in group if (item.id, "free", 0) in answers]
        counted = [row["tokens"] for row in free if _is_count(row.get("tokens"))]
        if counted:
            tokens[task] = sum(counted) / len(counted)
        if free:
            chars[task] = sum(len(row["answer"]) for row in free) / len(free)
        wanted = [(item.id, mode, 0) for item in group for mode in modes if mode in MODES[item.kind]]
        unanswered[task] = sum(key not in answers for key in wanted)
    asked = {item.id for item in items}
    shortened = {key[0] for key, row in answers.items() if row.get("shortened")}
    fewest: dict[str, int] = {}
    for (name, _, _), row in answers.items():
        if name in asked and _is_count(row.get("examples")):
            fewest[name] = min(row["examples"], fewest.get(name, MAX_TOKENS))
    return {
        "count": sum(key[0] in asked for key in answers),
        "of_unknown_questions": sum(key[0] not in asked for key in answers),
        "unanswered": {task: count for task, count in unanswered.items() if count},
        "shortened_prompts": sum(bool(row.get("shortened")) for row in answers.values()),
        "shortened_by_task": {task: len(shortened & {item.id for item in group}) for task, group in by_task(items)},
        "mean_free_tokens": tokens,
        "mean_free_chars": chars,
        "few_shot_mean": sum(fewest.values()) / len(fewest) if fewest else None,
        "few_shot_fewest": min(fewest.values(), default=None),
        "dropped_examples": sum(count < few_shot for count in fewest.values()),
    }
