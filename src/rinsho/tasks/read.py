"""Items from whatever data folders a user gives: finds both layouts, at the top or one level below."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rinsho.errors import UserError
from rinsho.tasks import igakuqa, jmed
from rinsho.tasks.item import Item, Part
from rinsho.tasks.splits import DEFAULT, Splitting, own_tests, train_part

ALL_TASKS = (*jmed.TASKS, "igakuqa")


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
    folders: Sequence[Path], splitting: Splitting = DEFAULT, tasks: Sequence[str] | None = None,
    years: Sequence[int] = (),
) -> tuple[list[Item], list[dict[str, Any]]]:  # fmt: skip
    """(training items, split manifests) of all JMED-LLM folders, plus IgakuQA problems of `years` when asked for."""
    check_tasks(tasks)
    items: list[Item] = []
    manifests = []
    jmed_folders, exam_folders = find_layouts(folders)
    for folder in jmed_folders:
        if tasks is None or set(tasks) & set(jmed.TASKS):
            found, manifest = train_part(folder, splitting, tasks)
            items += found
            manifests.append(manifest)
    for folder in exam_folders if years and (tasks is None or "igakuqa" in tasks) else []:
        items += igakuqa.read_igakuqa(folder, years)
    return _unique(items), manifests


def read_data(
    folders: Sequence[Path], part: Part, splitting: Splitting = DEFAULT, tasks: Sequence[str] | None = None,
    years: Sequence[int] | None = None,
) -> list[Item]:  # fmt: skip
    """All items of a part from all layouts in the folders.

    `tasks` None means all that are there (`igakuqa` is one of them); `years` None means all IgakuQA years for the test
    part and none for the training part.

    Raises:
        UserError: nothing that looks like a benchmark is in the folders, or a file in them is wrong.
    """
    if part == "train":
        return read_train(folders, splitting, tasks, years or ())[0]
    check_tasks(tasks)
    jmed_folders, exam_folders = find_layouts(folders)
    items: list[Item] = []
    for folder in jmed_folders:
        wanted = None if tasks is None else [task for task in tasks if task in jmed.TASKS]
        if wanted is None or wanted:
            items += read_jmed(folder, "test", splitting, wanted)
    for folder in exam_folders if tasks is None or "igakuqa" in tasks else []:
        items += igakuqa.read_igakuqa(folder, years)
    if not items:
        raise UserError(
            "no question of the asked-for tasks is in the data", where=", ".join(map(str, folders)),
            expected=", ".join(tasks or ALL_TASKS),
        )  # fmt: skip
    return _unique(items)


def holds_benchmark(folder: Path) -> bool:
    """Whether JMED-LLM or IgakuQA is in this folder, at its top or one level below."""
    places = [folder, *(path for path in folder.iterdir() if path.is_dir())]
    return any(jmed.is_layout(place) or igakuqa.is_layout(place) for place in places)


def find_layouts(folders: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """(JMED-LLM folders, IgakuQA folders) among the given folders and the folders directly in them.

    Raises:
        UserError: a folder is missing or holds neither.
    """
    jmed_folders: list[Path] = []
    exam_folders: list[Path] = []
    for folder in map(Path, folders):
        if not folder.is_dir():
            raise UserError("not there, or not a folder", where=folder, expected="a data folder", todo="check the path")
        places = [folder, *sorted(path for path in folder.iterdir() if path.is_dir())]
        in_jmed = [place for place in places if jmed.is_layout(place)]
        in_exam = [place for place in places if igakuqa.is_layout(place)]
        if not in_jmed and not in_exam:
            raise UserError(
                "neither JMED-LLM nor IgakuQA is in here", where=folder,
                expected="datasets/*.csv or data/<year>/*.jsonl, at the top or one below", todo="check the folder",
            )  # fmt: skip
        jmed_folders += in_jmed
        exam_folders += in_exam
    return jmed_folders, exam_folders


def check_tasks(tasks: Sequence[str] | None) -> None:
    """Raises a UserError for a task name that does not exist."""
    for task in tasks or ():
        if task not in ALL_TASKS:
            raise UserError(f"unknown task {task}", where="tasks", expected="some of " + ", ".join(ALL_TASKS))


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
