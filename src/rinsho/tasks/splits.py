"""Which rows of a JMED-LLM folder may train, and which are asked.

The test part is the benchmark's own (`published`) or drawn anew from the pools (`own`, see `rinsho.tasks.own_part`).
What may train beside it:

* `row`: the pools minus the test rows of all tasks. A row of the CRNER pool that is a test row of mrner_medicine must
  not train mrner_disease either.
* `document`: also without rows on a passage near a test passage of any task (for sentence pairs: either sentence), by
  character 5-grams, Jaccard similarity over 0.8, after NFKC and without white space; equal passages included.
* `case`: also without rows on a passage of the case of a test passage, where that can be told (`rinsho.tasks.cases`).

See docs/evaluation.md.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import compress
from operator import not_
from pathlib import Path
from typing import Any

from rinsho.errors import UserError
from rinsho.tasks import cases, jmed, own_part
from rinsho.tasks.grouping import NEAR, Groups, join_cases, near_groups, row_groups
from rinsho.tasks.item import Item, Split, TestPart, documents

OFFER = "take test_part: own (finetune.test_part) to draw a test part of its own"


@dataclass(frozen=True, slots=True)
class Splitting:
    """How training and test part are told apart; `seed` draws an own test part and is not used otherwise."""

    split: Split = "document"
    test_part: TestPart = "published"
    seed: int = 1


DEFAULT = Splitting()


@dataclass(frozen=True)
class _Parts:
    """The rows of a folder: `tests` are asked, `left` may train; the pools' other rows are in `gone`, by the reason."""

    tests: list[Item]
    pools: list[Item]
    left: list[Item]
    gone: dict[str, list[Item]]  # test_rows, near_documents, same_case


def train_part(
    folder: Path, splitting: Splitting = DEFAULT, tasks: Sequence[str] | None = None
) -> tuple[list[Item], dict[str, Any]]:
    """(training items, manifest of the split) of a JMED-LLM folder.

    The manifest is JSON-able: `split`, `test_part`, `seed` (null for the published test part), `near_threshold`,
    `test_hash` (of the test part of all tasks), `pools` and `warnings` on what cannot be trained. A pool has its
    numbers of `rows`, `test_rows`, `near_documents`, `same_case` (rows of neither part) and `left`, the `answers` of
    its training rows, the `test_answers`, and under `case` how cases were told (`cases`).

    Raises:
        UserError: no training row of the tasks is left, or a file is wrong.
    """
    parts = _parts(folder, splitting)
    manifest = _manifest(splitting, parts, tasks)
    left = _of(tasks, parts.left)
    if not left:
        raise UserError(
            "no training row is left", where=folder, expected="pools with other documents than the tests",
            todo="take split: row, test_part: own, or more data",
        )  # fmt: skip
    return left, manifest


def own_tests(folder: Path, splitting: Splitting, tasks: Sequence[str] | None = None) -> list[Item]:
    """The test items that a splitting with `test_part: own` draws from the pools of a JMED-LLM folder."""
    return _of(tasks, _parts(folder, splitting).tests)


def hash_of_tests(tests: Sequence[Item]) -> str:
    """16 hex digits that tell a test part from others, by its ids and passages."""
    lines = sorted(f"{item.id} {item.document}\n" for item in tests)
    return blake2b("".join(lines).encode(), digest_size=8).hexdigest()


def without_test_rows(pools: Sequence[Item], tests: Sequence[Item]) -> tuple[list[Item], list[Item]]:
    """(rows that stay, rows that are test rows): cell for cell equal in tag, question, options and answer.

    Rows that ask exactly the same but give another answer are test questions too and go as well.
    """
    asked = {(item.tag, item.question, item.options) for item in tests}
    return _divide(pools, [(item.tag, item.question, item.options) in asked for item in pools])


def _parts(folder: Path, splitting: Splitting) -> _Parts:
    pools = jmed.read_pools(folder)
    near: list[Item] = []
    same_case: list[Item] = []
    if splitting.test_part == "own":
        left, tests, near = own_part.draw(pools, splitting.split, splitting.seed)
        removed = tests
        if splitting.split == "case":
            group = dict(zip((item.id for item in pools), row_groups(pools, "document"), strict=True))
            tested = {group[item.id.removeprefix(own_part.PREFIX)] for item in tests}
            same_case, near = _divide(near, [group[item.id] in tested for item in near])
    else:
        tests = jmed.read_test(folder)
        left, removed = without_test_rows(pools, tests)
        if splitting.split != "row":
            groups = near_groups([*pools, *tests])
            left, near = _without(left, tests, groups)
        if splitting.split == "case":
            join_cases(groups, [*pools, *tests])
            left, same_case = _without(left, tests, groups)
    return _Parts(tests, pools, left, {"test_rows": removed, "near_documents": near, "same_case": same_case})


def _without(rows: Sequence[Item], tests: Sequence[Item], groups: Groups) -> tuple[list[Item], list[Item]]:
    """(rows no passage of which is of the group of a test passage, the others)."""
    asked = {groups.of(key) for item in tests for key in documents(item)}
    return _divide(rows, [any(groups.of(key) in asked for key in documents(item)) for item in rows])


def _divide(rows: Sequence[Item], out: Sequence[bool]) -> tuple[list[Item], list[Item]]:
    return list(compress(rows, map(not_, out))), list(compress(rows, out))


def _of(tasks: Sequence[str] | None, items: Sequence[Item]) -> list[Item]:
    return [item for item in items if tasks is None or item.task in tasks]


def _manifest(splitting: Splitting, parts: _Parts, tasks: Sequence[str] | None) -> dict[str, Any]:
    by_name = {"rows": parts.pools, **parts.gone, "left": parts.left}
    sorted_rows: dict[str, dict[str, list[Item]]] = {}  # pool -> name -> rows
    for name, items in by_name.items():
        for item in _of(tasks, items):
            sorted_rows.setdefault(jmed.pool_of(item), {part: [] for part in by_name})[name].append(item)
    pools: dict[str, Any] = {}
    for pool, found in sorted(sorted_rows.items()):
        pools[pool] = {name: len(items) for name, items in found.items()}
        pools[pool]["answers"] = _answers(found["left"])
        pools[pool]["test_answers"] = _answers(found["test_rows"])
        if splitting.split == "case":
            pools[pool]["cases"] = cases.how_told(pool, found["rows"])
    return {
        "split": splitting.split,
        "test_part": splitting.test_part,
        "seed": splitting.seed if splitting.test_part == "own" else None,
        "near_threshold": NEAR if splitting.split != "row" else None,
        "test_hash": hash_of_tests(parts.tests),
        "pools": pools,
        "warnings": _warnings(_of(tasks, parts.left), _of(tasks, parts.tests), splitting),
    }


def _answers(items: Sequence[Item]) -> dict[str, int]:
    return dict(sorted(Counter(item.gold[0] for item in items if item.kind == "choice").items()))


def _warnings(left: Sequence[Item], tests: Sequence[Item], splitting: Splitting) -> list[str]:
    """What cannot be learned, what an own test part does not ask, and the way out."""
    found: list[str] = []
    for task in sorted({item.task for item in tests}):
        rows, asked = ([item for item in part if item.task == task] for part in (left, tests))
        answers = {item.gold[0] for item in rows if item.kind == "choice"}
        if not rows:
            found.append(f"{task}: no training row is left")
        elif len(answers) == 1:
            found.append(f"{task}: all {len(rows)} training rows have the answer {min(answers)}: it cannot be learned")
        if rows:
            found += [f"{task}: no training row has {what}" for what in _missing(asked, rows, len(answers) > 1)]
        if splitting.test_part == "own":
            found += [f"{task}: no test row has {what}" for what in _missing(rows, asked, len(answers) > 1)]
    return [*found, OFFER] if found and splitting.test_part == "published" else found


def _missing(known: Sequence[Item], rows: Sequence[Item], answers: bool) -> list[str]:
    """The tags of the known rows, and the answers of each tag, that none of the other rows has."""
    tags = {item.tag for item in rows}
    found = [f"the tag {tag}" for tag in sorted({item.tag for item in known} - tags)]
    if answers:
        pairs = {(item.tag, item.gold[0]) for item in known if item.tag in tags}
        for tag, answer in sorted(pairs - {(item.tag, item.gold[0]) for item in rows}):
            found.append(f"the tag {tag} and the answer {answer}" if tag else f"the answer {answer}")
    return found
