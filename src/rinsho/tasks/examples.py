"""Solved examples that stand before a question: for base models, which know no chat (N3-1, few-shot).

Examinations get invented ones, or problems drawn from a year or a file that is not asked; other tasks get rows drawn
from their training part, so that no test row (nor, as the split says, a test passage) is ever shown solved.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from rinsho.errors import UserError
from rinsho.overlap import key
from rinsho.tasks import igakuqa, multiple_choice
from rinsho.tasks.item import OR, Item, documents
from rinsho.tasks.read import read_data, read_questions_of

EXAMS = ("igakuqa", multiple_choice.TASK)  # tasks without a training part
WHERE = "evaluate.few_shot"

Group = tuple[str, str]  # (task, tag)


def group(item: Item) -> str:
    """Which examples a question gets: those of its task and tag; all problems of an examination get the same."""
    return item.task if item.task in EXAMS or not item.tag else f"{item.task}/{item.tag}"


def year_of(few_shot_from: str | None) -> int | None:
    """The year of examinations that gives the examples, and must not be asked; None where none does.

    >>> year_of("2018"), year_of("solved.jsonl"), year_of(None)
    (2018, None, None)
    """
    plain = (few_shot_from or "").strip()
    return int(plain) if plain.isascii() and plain.isdigit() else None


def choose(  # noqa: PLR0917
    items: Sequence[Item], train: Sequence[Item], few_shot: int, few_shot_from: str | None = None,
    data: Sequence[Path] = (), seed: int = 1,
) -> dict[str, list[Item]]:  # fmt: skip
    """So many solved examples for each group of the items; the same whatever the order of items and training part.

    Args:
        items: the questions that are asked.
        train: the training part under the split, own tasks included (`read_train` with `own_tasks`).
        few_shot: examples before a question; 0 gives none at all.
        few_shot_from: a year of the examinations in `data`, or a file of solved problems (IgakuQA's form, or English
            multiple choice); None: three invented ones for examinations. Other tasks draw from `train` in any case.
        data: the data of the evaluation.
        seed: draws.

    Raises:
        UserError: there are not so many examples, a task has no training part, or the year is among the questions.

    Source: N3-1 (the authors' form: three solved problems, of several kinds).
    """
    if few_shot == 0:
        return {}
    given = _given(few_shot_from, data, items)
    rows: dict[Group, list[Item]] = {}
    asked = {(item.task, item.question, item.options) for item in items}
    for row in train:
        if (row.task, row.question, row.options) not in asked:
            rows.setdefault((row.task, row.tag), []).append(row)
    chosen: dict[str, list[Item]] = {}
    for item in sorted(items, key=group):
        name = group(item)
        if name in chosen:
            continue
        if item.task not in EXAMS:
            chosen[name] = _of_train(rows, (item.task, item.tag), few_shot, seed)
        elif item.task in {row.task for row in given}:
            chosen[name] = _enough(_draw([row for row in given if row.task == item.task], few_shot, seed), few_shot,
                                   name, "give a source with more solved problems")  # fmt: skip
        else:
            todo = "set evaluate.few_shot_from to a year of the data or a file of solved problems to have more"
            chosen[name] = _enough(invented(item.task)[:few_shot], few_shot, name, todo)
    return chosen


def invented(task: str) -> list[Item]:
    """The solved problems of the package for an examination, `example/igakuqa/1` and so on: ours, of no real one."""
    if task == "igakuqa":
        items = igakuqa.read_problems(Path(__file__).with_name("exam_examples.jsonl"))
    else:
        items = multiple_choice.read_questions(Path(__file__).with_name("usmle_examples.jsonl"))[0]
    return [replace(item, id=f"example/{task}/{number}") for number, item in enumerate(items, 1)]


def _given(few_shot_from: str | None, data: Sequence[Path], items: Iterable[Item]) -> list[Item]:
    """The solved problems of the year or file; without figures, without withdrawn ones, and none that is asked."""
    if few_shot_from is None:
        return []
    where = "evaluate.few_shot_from"
    year = year_of(few_shot_from)
    if year is None:
        if not Path(few_shot_from).is_file():
            raise UserError(
                "neither a year nor a file", where=where, expected="for instance 2018, or a .jsonl of solved problems"
            )
        found = read_questions_of(Path(few_shot_from))
    else:
        if any(item.year == year for item in items):
            raise UserError(
                f"the examination of {year} is asked itself", where=where, expected="a year that is not asked",
                todo="leave it out of evaluate.years",
            )  # fmt: skip
        found = read_data(data, "test", tasks=["igakuqa"], years=[year])
    asked = {name for item in items for name in (item.id, item.document)}
    return [
        row for row in found
        if row.points and not row.figure and OR not in "".join(row.gold) and not asked & {row.id, row.document}
    ]  # fmt: skip


def _of_train(rows: Mapping[Group, list[Item]], wanted: Group, count: int, seed: int) -> list[Item]:
    """Rows of the task and tag; where these are too few, then of the task's other tags."""
    task, tag = wanted
    found = _draw(rows.get(wanted, ()), count, seed)
    if len(found) < count:
        other = [row for group, part in rows.items() if group[0] == task and group != wanted for row in part]
        found += _draw(other, count - len(found), seed)
    todo = f"give its training part, leave {task} out of evaluate.tasks, or set evaluate.few_shot: 0"
    return _enough(found, count, f"{task} ({tag})" if tag else task, todo)


def _draw(rows: Iterable[Item], count: int, seed: int) -> list[Item]:
    """Rows drawn by the seed: the answers take turns, and no document gives two while there are others."""
    place = _order(seed)
    classes: dict[str, list[Item]] = {}
    for row in rows:
        classes.setdefault(row.gold[0] if row.kind == "choice" else row.kind, []).append(row)
    for found in classes.values():
        found.sort(key=lambda row: place(row.id))
    turns = sorted(classes, key=lambda name: (name == "number", place(name)))  # few problems ask for a number
    longest = max(map(len, classes.values()), default=0)
    in_turns = (classes[name][turn] for turn in range(longest) for name in turns if turn < len(classes[name]))
    first: list[Item] = []
    again: list[Item] = []
    seen: set[str] = set()
    for row in in_turns:
        known = not seen.isdisjoint((row.document, *documents(row)))
        (again if known else first).append(row)
        seen.update((row.document, *documents(row)))
        if len(first) == count:
            break
    return sorted([*first, *again][:count], key=lambda row: place(f"shown {row.id}"))


def _order(seed: int) -> Callable[[str], str]:
    return lambda name: key(f"{seed}:{name}") + name


def _enough(found: list[Item], count: int, name: str, todo: str) -> list[Item]:
    if len(found) < count:
        raise UserError(
            f"{len(found)} solved examples for {name}", where=WHERE, expected=f"{count}, as few_shot says", todo=todo
        )
    return found
