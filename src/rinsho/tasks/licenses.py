"""Under what terms the data of a benchmark are published, as far as its authors say.

Data of another origin in the same form say it in `licenses.csv` beside `datasets/` or `data/` (`task,license`; `*` is
every task in there).
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from rinsho.tasks import igakuqa, jmed

LICENSES_FILE = "licenses.csv"
# The table in JMED-LLM's README (2024-09). IgakuQA names no licence; its questions are the ministry's.
PUBLISHED = {
    "jmmlu_med": "CC-BY-SA-4.0", "crade": "CC-BY-4.0", "rrtnm": "CC-BY-4.0", "smdis": "CC-BY-4.0",
    "jcsts": "CC-BY-NC-SA-4.0", "mrner_disease": "CC-BY-4.0", "mrner_medicine": "CC-BY-4.0",
    "nrner": "CC-BY-NC-SA-4.0", "igakuqa": "",
}  # fmt: skip


def licenses_of(inputs: Iterable[Path]) -> dict[str, str]:
    """Task -> licence of the data in these folders, "" where none is told; files among the inputs are passed over.

    Raises:
        UserError: a `licenses.csv` is not readable or lacks a column.
    """
    found = dict(PUBLISHED)
    for folder in (path for path in map(Path, inputs) if path.is_dir()):
        for place in [folder, *sorted(path for path in folder.iterdir() if path.is_dir())]:
            if not (place / LICENSES_FILE).is_file():
                continue
            for row in jmed.read_rows(place / LICENSES_FILE, ["task", "license"]):
                task, said = row.cells["task"], row.cells["license"].strip()
                found |= dict.fromkeys(_tasks_in(place), said) if task == "*" else {task: said}
    return found


def _tasks_in(place: Path) -> list[str]:
    """The benchmark tasks that lie here; all of them for a folder above their layouts."""
    here = list(jmed.TASKS) if jmed.is_layout(place) else []
    here += ["igakuqa"] if igakuqa.is_layout(place) else []
    return here or list(PUBLISHED)
