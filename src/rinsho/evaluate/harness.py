"""The same tasks for lm-evaluation-harness: other groups run them on their models with their own tools (issue 7, 10).

A folder of YAML files and questions in JSON lines, which works wherever it is moved to and without rinsho:

    lm_eval --model hf --model_args pretrained=MODEL,dtype=float32 --include_path FOLDER --tasks rinsho_jmed

Three forms of each task: `rinsho_smdis` puts the plain prompt of a base model and takes the likeliest letter (our
`constrained`), `rinsho_smdis_chat` does so with system and user turn (`--apply_chat_template`), `rinsho_smdis_free`
reads free text by the benchmark's own rule, for chat models, also behind an API. See docs/harness.md.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import rinsho
from rinsho.errors import UserError
from rinsho.evaluate import harness_utils, igakuqa
from rinsho.evaluate.ask import by_task
from rinsho.files import atomic_folder
from rinsho.tasks import AnswerForm, Item, Splitting, jmed, read_data
from rinsho.tasks.asking import Asking
from rinsho.tasks.item import OR, choice_text, legal_choices, rotated
from rinsho.tasks.multiple_choice import TASK as USMLE
from rinsho.tasks.splits import DEFAULT

UTILS = "utils.py"
MARK = "rinsho-tasks.json"  # tells a folder of ours, which may be replaced, from any other
FORMS = ("", "_chat", "_free")  # endings of the three forms' names
MAX_NEW_TOKENS = {"choice": 64, "number": 64, "entities": 512}


def write(
    paths: Sequence[Path],
    out: Path,
    splitting: Splitting = DEFAULT,
    *,
    tasks: Sequence[str] | None = None,
    years: Sequence[int] | None = None,
    form: AnswerForm = "letter",
    rotations: int = 0,
) -> str:
    """What was written to the folder `out`, as a line for the user; an older export there is replaced.

    Args:
        paths: benchmark data, as `rinsho evaluate` takes them.
        out: the new folder.
        splitting: which test part (`rinsho.tasks.read_data`).
        tasks: only these, named as `rinsho evaluate` names them; None means all that are there.
        years: of examinations; None means all.
        form: how choices are answered; `text_letter` for models that were tuned so.
        rotations: further orders of the options, each as tasks of their own (`rinsho_smdis_rotation1`).

    Raises:
        UserError: the data are wrong, or `out` is something else than an older export.
    """
    out = Path(out)
    if out.exists() and not _is_export(out):
        raise UserError(
            "something else is there", where=out, expected="a new folder, or an older export and nothing beside it",
            todo="choose another --out",
        )  # fmt: skip
    items = read_data([Path(path) for path in paths], "test", splitting, tasks, years)
    questions, names, tops = 0, [], []
    with atomic_folder(out) as folder:
        groups: dict[str, list[tuple[str, Item]]] = {}
        for task, order, group in _orders(items, rotations):
            kinds = dict.fromkeys(item.kind for item in group)
            for kind in kinds:
                part = [item for item in group if item.kind == kind]
                name = _name(f"{task}_{kind}" if len(kinds) > 1 or _is_exam(part[0]) else task) + order
                if name in names:
                    raise UserError(f"two tasks get the name {name}", where="data", expected="names that differ")
                _write_task(folder, name, part, form)
                names.append(name)
                questions += len(part)
                parents = [] if order else _parents(part[0], task)
                tops.append((parents or [name])[-1])
                for parent in parents:
                    groups.setdefault(parent, []).append((name, part[0]))
        for parent, members in groups.items():
            _write_groups(folder, parent, members)
        (folder / UTILS).write_bytes(Path(harness_utils.__file__).read_bytes())
        files = sorted(path.name for path in folder.iterdir())
        about = {"rinsho": rinsho.__version__, "tasks": names, "files": files, "form": form, "split": splitting.split,
                 "test_part": splitting.test_part, "split_seed": splitting.seed}  # fmt: skip
        (folder / MARK).write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    asked = ",".join(dict.fromkeys(tops))
    return f"{len(names)} tasks with {questions} questions: lm_eval --include_path {out} --tasks {asked}"


def _is_export(folder: Path) -> bool:
    """Whether a folder holds an older export and no file that somebody put beside it."""
    try:
        known = json.loads((folder / MARK).read_text(encoding="utf-8"))["files"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return {path.name for path in folder.iterdir()} <= {MARK, "__pycache__", *known}


def _orders(items: Sequence[Item], rotations: int) -> list[tuple[str, str, list[Item]]]:
    """(task, ending of its name, questions): all questions, then the choices in every order that is a new one."""
    found = [(task, "", group) for task, group in _by_name(items)]
    for rotation in range(1, rotations + 1):
        turned = [rotated(item, rotation) for item in items if item.kind == "choice" and rotation < len(item.options)]
        found += [(task, f"_rotation{rotation}", group) for task, group in _by_name(turned)]
    return found


def _by_name(items: Sequence[Item]) -> list[tuple[str, list[Item]]]:
    """Questions by the name of their task: examinations by year, USMLE by the step as the file labels it (M-5)."""
    found: dict[str, list[Item]] = {}
    for task, group in by_task(items):
        for item in group:
            found.setdefault(f"{task}-{item.tag}" if task == USMLE else task, []).append(item)
    return list(found.items())


def _name(task: str) -> str:
    return "rinsho_" + re.sub(r"\W", "_", task)


def _is_exam(item: Item) -> bool:
    """Whether the examination's own rules count its points."""
    return item.year is not None or item.task == "igakuqa" or item.kind == "number"


def _parents(item: Item, task: str) -> list[str]:
    """The groups that a task belongs to: its benchmark, and the year of an examination."""
    if _is_exam(item):
        return list(dict.fromkeys([_name(task), _name(item.task)]))
    return ["rinsho_jmed"] if item.task in jmed.TASKS else [_name(item.task)] if item.task == USMLE else []


def _write_task(folder: Path, name: str, items: Sequence[Item], form: AnswerForm) -> None:
    """Questions and the YAML files of the forms that this kind has."""
    lines = [json.dumps(_row(item, form), ensure_ascii=False, allow_nan=False) for item in items]
    try:
        (folder / f"{name}.jsonl").write_bytes(("\n".join(lines) + "\n").encode())
    except UnicodeEncodeError:
        raise UserError("a question holds half a character", where=name, expected="text that UTF-8 can hold") from None
    for ending in FORMS if items[0].kind == "choice" else FORMS[::2]:
        (folder / f"{name}{ending}.yaml").write_text(_task_yaml(name, ending, items[0]), encoding="utf-8")


def _row(item: Item, form: AnswerForm) -> dict[str, Any]:
    """One question as the harness gets it; the same columns for every kind."""
    legal = legal_choices(item) if item.kind == "choice" else []
    letters = [",".join(choice) for choice in legal]
    # 112B30 accepts "a or d"
    accepted = [",".join(sorted(gold)) for gold in product(*(gold.split(OR) for gold in item.gold))]
    return {
        "id": item.id, "prompt": plain(item), "system": item.system, "user": item.prompt,
        "choices": [choice_text(item, choice, form) for choice in legal], "letters": letters,
        "target": letters.index(accepted[0]) if letters else 0,
        "gold": list(item.gold), "accepted": accepted if item.kind != "entities" else [],
        "always_right": _is_exam(item) and igakuqa.num_right([item], {}) == 1, "points": item.points,
        "options": [] if item.task in jmed.TASKS else list(item.options),
    }  # fmt: skip


class _Characters:
    """A base model's tokenizer with a character for an id, so that a prompt can be read back as text."""

    bos_token_id = None

    def encode_text(self, text: str) -> list[int]:
        return list(map(ord, text))

    def convert_tokens_to_ids(self, token: str) -> None:
        """It knows no chat tokens."""


class _Reader:
    tokenizer = _Characters()


def plain(item: Item) -> str:
    """The plain prompt that `Asking.prompt` gives a base model, as text."""
    return "".join(map(chr, Asking(_Reader(), "letter").prompt(item)))  # type: ignore[arg-type]


def _task_yaml(name: str, ending: str, item: Item) -> str:
    """One task in one form."""
    chosen = item.kind == "choice" and ending != "_free"
    gap = "" if ending else item.wording.gap  # a chat template stands between question and answer
    score: str = item.kind
    if item.kind == "choice":
        score = f"{'' if chosen else 'free_'}{'exam' if _is_exam(item) else 'choice'}"
    lines = [
        f"task: {name}{ending}", "custom_dataset: !function utils.questions",
        f"dataset_kwargs: {{file: {name}.jsonl}}", "test_split: test", "num_fewshot: 0",
        f"output_type: {'multiple_choice' if chosen else 'generate_until'}",
        f"doc_to_text: {'user' if ending else 'prompt'}", "doc_to_target: target",
        f"target_delimiter: {json.dumps(gap)}",
        *(["description: system"] if ending else []),
        *(["doc_to_choice: choices"] if chosen else _generation(item, ending)),
        f"process_results: !function utils.{score}", "metric_list:", *_metrics(item, chosen),
        f'metadata: {{version: 1.0, rinsho: "{rinsho.__version__}"}}',
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _generation(item: Item, ending: str) -> list[str]:
    """Greedy text; a base model's first line is its answer, a chat model ends its answer itself."""
    stops = "[]" if ending else '["\\n"]'
    limit = MAX_NEW_TOKENS[item.kind]
    return [f"generation_kwargs: {{until: {stops}, do_sample: false, temperature: 0.0, max_gen_toks: {limit}}}"]


def _metrics(item: Item, chosen: bool) -> list[str]:
    """The metrics of a task: the harness's own names where it has them."""
    if item.kind == "entities":
        return [_metric("official_exact_f1", "mean")]
    rows = [_metric("acc", "mean")]
    if chosen:
        rows.append(_metric("acc_norm", "mean"))
    if item.kind == "number":
        rows.append(_metric("acc_tolerant", "mean"))
    if _is_exam(item):
        return [*rows, _metric("points", "!function utils.total")]
    return [*rows, _metric("kappa", f"!function utils.{'linear_kappa' if item.ordered else 'kappa'}")]


def _metric(name: str, aggregation: str) -> str:
    return f"  - metric: {name}\n    aggregation: {aggregation}\n    higher_is_better: true"


def _write_groups(folder: Path, parent: str, members: Sequence[tuple[str, Item]]) -> None:
    """A group in each form, with the accuracy over all questions where it has no lists among them."""
    for ending in FORMS:
        names = [f"{name}{ending}" for name, item in members if item.kind == "choice" or ending != "_chat"]
        if not names:
            continue
        lines = [f"group: {parent}{ending}", "task:", *(f"  - {name}" for name in names)]
        if all(item.kind != "entities" for _, item in members):
            lines += ["aggregate_metric_list:", "  - {metric: acc, aggregation: mean, weight_by_size: true}"]
        lines.append("metadata: {version: 1.0}")
        (folder / f"{parent}{ending}_group.yaml").write_text("\n".join(lines) + "\n", encoding="utf-8")
