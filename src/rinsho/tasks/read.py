"""Items from whatever data a user gives: folders of both layouts, files of questions, tasks described in YAML.

A folder is looked at, and the folders directly in it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rinsho.errors import UserError
from rinsho.tasks import igakuqa, jmed, multiple_choice, own
from rinsho.tasks.item import Item, Part
from rinsho.tasks.splits import DEFAULT, Splitting, own_tests, train_part

ALL_TASKS = (*jmed.TASKS, "igakuqa")
ASKED_TASKS = (*ALL_TASKS, multiple_choice.TASK)  # with those that are only asked, never tuned on
YAML = (".yaml", ".yml")
NEITHER = "neither JMED-LLM nor IgakuQA is in here"

_NOT_ASKED = re.compile(r"(?<![^\W\d_])(train|dev|valid|validation)(?![^\W\d_])", re.IGNORECASE)  # names of parts


@dataclass(frozen=True)
class Sources:
    """Where questions stand: folders of the two layouts, single files, and YAML files that describe tasks."""

    jmed_folders: list[Path] = field(default_factory=list)
    exam_folders: list[Path] = field(default_factory=list)
    exam_files: list[Path] = field(default_factory=list)
    question_files: list[Path] = field(default_factory=list)  # of English multiple choice
    task_files: list[Path] = field(default_factory=list)


def read_jmed(
    folder: Path, part: Part, splitting: Splitting = DEFAULT, tasks: Sequence[str] | None = None
) -> list[Item]:
    """The test items, or the training items, under a splitting (see `rinsho.tasks.splits`), of a JMED-LLM folder."""
    if part == "train":
        return train_part(Path(folder), splitting, tasks)[0]
    if splitting.test_part == "own":
        return own_tests(Path(folder), splitting, tasks)
    return jmed.read_test(Path(folder), tasks)


def read_train(
    paths: Sequence[Path], splitting: Splitting = DEFAULT, tasks: Sequence[str] | None = None,
    years: Sequence[int] = (), own_tasks: bool = False,
) -> tuple[list[Item], list[dict[str, Any]]]:  # fmt: skip
    """(training items, split manifests) of all JMED-LLM folders, plus IgakuQA problems of `years` when asked for.

    With `own_tasks`, for evaluation: the data may be everything that `read_data` reads, JMED-LLM need not have pools,
    and the training tables of tasks described in YAML are read. Nothing is tuned on those, so they are left alone else.
    """
    if own_tasks:
        sources = find_sources(paths)
        sources = replace(sources, jmed_folders=[folder for folder in sources.jmed_folders if _has_pools(folder)])
    else:
        sources = Sources(*find_layouts(paths))
    names = {path: own.read_task(path).name for path in sources.task_files}
    check_tasks(tasks, (*ALL_TASKS, *((multiple_choice.TASK, *names.values()) if own_tasks else ())))
    items: list[Item] = []
    manifests = []
    for folder in sources.jmed_folders:
        if tasks is None or set(tasks) & set(jmed.TASKS):
            found, manifest = train_part(folder, splitting, tasks)
            items += found
            manifests.append(manifest)
    for folder in sources.exam_folders if years and (tasks is None or "igakuqa" in tasks) else []:
        items += igakuqa.read_igakuqa(folder, years)
    for path, name in names.items():
        if tasks is None or name in tasks:
            items += own.read_train(path, splitting.split)
    return _unique(items), manifests


def read_data(
    paths: Sequence[Path], part: Part, splitting: Splitting = DEFAULT, tasks: Sequence[str] | None = None,
    years: Sequence[int] | None = None,
) -> list[Item]:  # fmt: skip
    """All items of a part from all layouts, files of questions and described tasks in the data.

    `tasks` None means all that are there (`igakuqa`, `usmle` and the names of own tasks are such); `years` None means
    all IgakuQA years for the test part and none for the training part. Questions that need an image are left out
    (`read_left_out` counts them). The training part is that of `read_train`, of folders alone.

    Raises:
        UserError: nothing that looks like a benchmark is in the data, or a file in them is wrong.
    """
    if part == "train":
        return read_train(paths, splitting, tasks, years or ())[0]
    if not any(path.suffix in YAML for path in _files(paths)):
        check_tasks(tasks, ASKED_TASKS)  # whatever else is wrong with the data, they bring no further names
    sources = find_sources(paths)
    names = {path: own.read_task(path).name for path in sources.task_files}
    check_tasks(tasks, (*ASKED_TASKS, *names.values()))
    items: list[Item] = []
    for folder in sources.jmed_folders:
        wanted = None if tasks is None else [task for task in tasks if task in jmed.TASKS]
        if wanted is None or wanted:
            items += read_jmed(folder, "test", splitting, wanted)
    if tasks is None or "igakuqa" in tasks:
        items += _exams(sources, years)
    for path in sources.question_files if tasks is None or multiple_choice.TASK in tasks else []:
        items += multiple_choice.read_questions(path)[0]
    for path, name in names.items():
        if tasks is None or name in tasks:
            items += own.read_tests(path)
    if not items:
        raise UserError(
            "no question of the asked-for tasks is in the data", where=", ".join(map(str, paths)),
            expected=", ".join(tasks or (*ASKED_TASKS, *names.values())),
        )  # fmt: skip
    return _unique(items)


def read_left_out(paths: Sequence[Path], tasks: Sequence[str] | None = None) -> dict[str, int]:
    """How many questions `read_data` leaves out because they need an image, by task; empty where there is none.

    Source: M-5.
    """
    if tasks is not None and multiple_choice.TASK not in tasks:
        return {}
    count = sum(multiple_choice.read_questions(path)[1] for path in find_sources(paths).question_files)
    return {multiple_choice.TASK: count} if count else {}


def read_questions_of(path: Path) -> list[Item]:
    """The questions of one JSON-lines file, in IgakuQA's form or that of English multiple choice.

    Raises:
        UserError: it has neither form, or a line is wrong.
    """
    if path.is_file() and igakuqa.is_problems(path):
        return igakuqa.read_problems(path)
    if path.is_file() and multiple_choice.is_questions(path):
        return multiple_choice.read_questions(path)[0]
    next(igakuqa.read_json_lines(path), None)  # names the mistake where there is no JSON
    raise UserError(
        "no file of questions", where=path,
        expected='lines with "question" and "options", or with "problem_id", "problem_text", "choices"',
        todo="docs/tasks.md shows what can be read",
    )  # fmt: skip


def find_sources(paths: Sequence[Path]) -> Sources:
    """What the given files are, and what the given folders and those directly in them hold.

    Of folders, files of questions that are named as training or development part are left out (MedQA's
    `phrases_no_exclude_train.jsonl`): such a file is asked when it is given itself.

    Raises:
        UserError: a path is missing, a file has no known form, or a folder holds nothing that can be asked.
    """
    sources = Sources()
    for path in dict.fromkeys(map(Path, paths)):
        if path.is_dir():
            _look_into(path, sources)
        elif path.suffix in YAML and path.is_file():
            sources.task_files.append(path)
        elif path.suffix == ".jsonl" and path.is_file():
            if not _sort_file(path, sources):
                read_questions_of(path)  # says what is wrong
        else:
            raise UserError(
                "no data" if path.exists() else "not there, or not a folder", where=path,
                expected="a data folder, a .jsonl file of questions or a task's .yaml file", todo="check the path",
            )  # fmt: skip
    return sources


def _look_into(folder: Path, sources: Sources) -> None:
    found = _add_layouts(folder, sources)
    files = list(_files([folder]))
    tasks = [path for path in files if path.suffix in YAML and own.is_task(path)]
    tables = {table.resolve() for path in tasks for table in own.table_paths(path)}
    others = [path for path in files if path.suffix == ".jsonl" and path.resolve() not in tables]
    asked = [path for path in others if not _is_training_part(path) and _sort_file(path, sources)]
    if not (found or tasks or asked):
        left = any(_is_training_part(path) and _sort_file(path, Sources()) for path in others)
        what = "only training or development questions are in here" if left else f"{NEITHER}, nor other questions"
        raise UserError(
            what, where=folder,
            expected="datasets/*.csv, data/<year>/*.jsonl, *.jsonl of questions or a task's *.yaml, at the top or one"
            " below", todo="give the file itself to have it asked" if left else "check the folder",
        )  # fmt: skip
    sources.task_files.extend(tasks)


def _places(folder: Path) -> list[Path]:
    """The folder and those directly in it: where data are looked for."""
    return [folder, *sorted(path for path in folder.iterdir() if path.is_dir())]


def _files(paths: Sequence[Path]) -> Iterator[Path]:
    """The given files, and those of the given folders and the folders directly in them."""
    for path in map(Path, paths):
        if path.is_dir():
            yield from (file for place in _places(path) for file in sorted(place.iterdir()) if file.is_file())
        else:
            yield path


def _add_layouts(folder: Path, sources: Sources) -> bool:
    """Puts the folders of the two layouts in here where they belong; whether there is one."""
    in_jmed = [place for place in _places(folder) if jmed.is_layout(place)]
    in_exam = [place for place in _places(folder) if igakuqa.is_layout(place)]
    sources.jmed_folders.extend(in_jmed)
    sources.exam_folders.extend(in_exam)
    return bool(in_jmed or in_exam)


def _is_training_part(path: Path) -> bool:
    """Whether a file of questions is named as one that is not for tests.

    >>> [_is_training_part(Path(name)) for name in ("phrases_TRAIN.jsonl", "dev2.jsonl", "trained.jsonl", "肺.jsonl")]
    [True, True, False, False]
    """
    return _NOT_ASKED.search(path.stem) is not None


def _sort_file(path: Path, sources: Sources) -> bool:
    """Puts a JSON-lines file of questions where it belongs; whether it is one."""
    for is_form, files in ((igakuqa.is_problems, sources.exam_files),
                           (multiple_choice.is_questions, sources.question_files)):  # fmt: skip
        if is_form(path):
            files.append(path)
            return True
    return False


def _exams(sources: Sources, years: Sequence[int] | None) -> list[Item]:
    """The problems of the given years (all when None) in all folders and files; each year must be in one of them."""
    items: list[Item] = []
    found: set[int] = set()
    for folder in sources.exam_folders:
        there = igakuqa.years_in(folder)
        found.update(there)
        wanted = None if years is None else [year for year in years if year in there]
        if wanted is None or wanted:
            items += igakuqa.read_igakuqa(folder, wanted)
    for path in sources.exam_files:
        problems = igakuqa.read_problems(path)
        found.update(item.year for item in problems if item.year is not None)
        items += [item for item in problems if years is None or item.year in years]
    missing = sorted(set(years or ()) - found)
    if missing and (sources.exam_folders or sources.exam_files):
        raise UserError(
            "no problems of " + ", ".join(map(str, missing)),
            where=", ".join(map(str, [*sources.exam_folders, *sources.exam_files])),
            expected="one of " + ", ".join(map(str, sorted(found))),
        )  # fmt: skip
    return items


def holds_benchmark(folder: Path) -> bool:
    """Whether JMED-LLM or IgakuQA is in this folder, at its top or one level below."""
    return _add_layouts(folder, Sources())


def find_layouts(folders: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """(JMED-LLM folders, IgakuQA folders) among the given folders and the folders directly in them.

    Raises:
        UserError: a folder is missing or holds neither.
    """
    sources = Sources()
    for folder in map(Path, folders):
        if not folder.is_dir():
            raise UserError("not there, or not a folder", where=folder, expected="a data folder", todo="check the path")
        if not _add_layouts(folder, sources):
            raise UserError(
                NEITHER, where=folder, expected="datasets/*.csv or data/<year>/*.jsonl, at the top or one below",
                todo="check the folder",
            )  # fmt: skip
    return sources.jmed_folders, sources.exam_folders


def check_tasks(tasks: Sequence[str] | None, known: Sequence[str] = ALL_TASKS) -> None:
    """Raises a UserError for a task name that is not among the known ones."""
    for task in tasks or ():
        if task not in known:
            raise UserError(f"unknown task {task}", where="tasks", expected="some of " + ", ".join(known))


def _has_pools(folder: Path) -> bool:
    return (folder / "datasets" / "all").is_dir() or (folder / jmed.STS_SOURCE).is_file()


def _unique(items: list[Item]) -> list[Item]:
    seen: set[str] = set()
    for item in items:
        if item.id in seen:
            raise UserError(
                f"{item.id} stands in two of the data folders", where="data folders", expected="each benchmark once",
                todo="give one folder of it",
            )  # fmt: skip
        seen.add(item.id)
    return items
