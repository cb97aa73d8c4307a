"""The training part of JMED-LLM: pools minus test rows (`row`), or minus everything near a test passage (`document`).

Test rows are subtracted across tasks: a row of the CRNER pool that is a test row of mrner_medicine must not train
mrner_disease either. Under `document` a training row goes when any of its passages (for sentence pairs: either
sentence) has a character 5-gram Jaccard similarity over 0.8 with any test passage of any task, after NFKC and without
white space; equal passages included. See docs/evaluation.md.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rinsho.errors import UserError
from rinsho.overlap import near_duplicates
from rinsho.tasks import jmed
from rinsho.tasks.item import Item, Split, document_key, documents, passages

NEAR = 0.8
NEVER = 2.0  # containment is not looked at: a short sentence inside a long report does not make them one document


def train_part(
    folder: Path, split: Split = "document", tasks: Sequence[str] | None = None
) -> tuple[list[Item], dict[str, Any]]:
    """(training items, manifest of the split) of a JMED-LLM folder.

    The manifest is JSON-able: `split`, `pools` (rows, test_rows, near_documents, left, answers per pool),
    `near_threshold`, and `warnings` on tasks that cannot be trained (no row or one answer only is left).
    """
    tests, pools = jmed.read_test(folder), jmed.read_pools(folder)
    if tasks is not None:
        pools = [item for item in pools if item.task in tasks]
    kept, removed = without_test_rows(pools, tests)
    dropped: list[Item] = []
    if split == "document":
        asked = (text for item in tests for text in passages(item))
        near = near_documents((text for item in kept for text in passages(item)), asked)
        dropped = [item for item in kept if near.intersection(documents(item))]
        gone = {item.id for item in dropped}
        kept = [item for item in kept if item.id not in gone]
    if not kept:
        raise UserError(
            "no training row is left", where=folder, expected="pools with other documents than the tests",
            todo="take split: row, or more data",
        )  # fmt: skip
    parts = {"rows": pools, "test_rows": removed, "near_documents": dropped, "left": kept}
    return kept, _manifest(split, parts, tests)


def without_test_rows(pools: Sequence[Item], tests: Sequence[Item]) -> tuple[list[Item], list[Item]]:
    """(rows that stay, rows that are test rows): cell for cell equal in tag, question, options and answer.

    Rows that ask exactly the same but give another answer are test questions too and go as well.
    """
    asked = {(item.tag, item.question, item.options) for item in tests}
    kept: list[Item] = []
    removed: list[Item] = []
    for item in pools:
        (removed if (item.tag, item.question, item.options) in asked else kept).append(item)
    return kept, removed


def near_documents(texts: Iterable[str], tests: Iterable[str]) -> set[str]:
    """The `document_key` of every text that is equal or near to a test text."""
    distinct = {document_key(text): text for text in texts}
    asked = {document_key(text): text for text in tests}
    found = near_duplicates(list(distinct.values()), list(asked.values()), threshold=NEAR, containment=NEVER)
    return {name for name, place in zip(distinct, found, strict=True) if place is not None or name in asked}


def _manifest(split: Split, parts: Mapping[str, Sequence[Item]], tests: Sequence[Item]) -> dict[str, Any]:
    counts = {name: Counter(map(jmed.pool_of, part)) for name, part in parts.items()}
    kept = parts["left"]
    rows: dict[str, Any] = {}
    for pool in sorted(counts["rows"]):
        rows[pool] = {name: count[pool] for name, count in counts.items()}
        answers = Counter(item.gold[0] for item in kept if jmed.pool_of(item) == pool and item.kind == "choice")
        rows[pool]["answers"] = dict(sorted(answers.items()))
    return {
        "split": split,
        "near_threshold": NEAR if split == "document" else None,
        "pools": rows,
        "warnings": _warnings(kept, tests),
    }


def _warnings(kept: Sequence[Item], tests: Sequence[Item]) -> list[str]:
    by_task: dict[str, list[Item]] = {}
    for item in kept:
        by_task.setdefault(item.task, []).append(item)
    found = []
    for task in sorted({item.task for item in tests}):
        rows = by_task.get(task, [])
        labels = sorted({item.gold for item in rows})
        if not rows:
            found.append(f"{task}: no training row is left")
        elif rows[0].kind == "choice" and len(labels) == 1:
            found.append(f"{task}: all {len(rows)} training rows have the answer {labels[0][0]}: it cannot be learned")
        missing = {item.tag for item in tests if item.task == task} - {item.tag for item in rows}
        found += [f"{task}: no training row has the tag {tag}" for tag in sorted(missing if rows else ())]
    return found
