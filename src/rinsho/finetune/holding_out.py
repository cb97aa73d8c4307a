"""The validation part: whole documents that tuning does not see, drawn from the training part by the seed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rinsho.instructions import Conversation, texts
from rinsho.overlap import key, normalised
from rinsho.packing import number_of
from rinsho.tasks import Item, Split, documents
from rinsho.tasks.grouping import Groups, join_cases, near_groups

Row = Item | Conversation
Rows = tuple[list[Item], list[Conversation]]
Task = tuple[str, str]  # ("task", "smdis") or ("source", file stem): a file may have a task's name

TURN_CHARACTERS = 40  # a shorter turn ("thank you") stands in many conversations by chance


def hold_out(
    items: Sequence[Item], conversations: Sequence[Conversation], fraction: float, seed: int, split: Split = "document"
) -> tuple[Rows, Rows]:
    """((items, conversations) to train on, (items, conversations) held out), each in the given order.

    What is drawn is documents: rows that share a passage, also of different tasks, go together, and so do conversations
    that share a text of 40 characters or more, or all their texts. `split` says what else does, as for the test part:
    with `document` near passages, with `case` also the reports of one case, where that can be told.

    Each task and each file of conversations gives about `fraction` of its documents, at least one where it has two, but
    never the last row of an answer. A document (or documents that go together) much larger than that share stays.

    The draw depends on seed and documents alone, not on the order of rows or tasks.
    """
    if not fraction:
        return (list(items), list(conversations)), ([], [])
    rows: list[Row] = [*items, *conversations]
    keys = list(map(_keys, rows))
    groups = Groups() if split == "row" else near_groups(items)
    if split == "case":
        join_cases(groups, items)
    for names in keys:
        groups.join(names)
    together: dict[str, list[int]] = {}
    for number, names in enumerate(keys):
        together.setdefault(groups.of(names[0]), []).append(number)
    order = sorted(together, key=lambda name: number_of(f"{seed}:hold out:{name}"))
    draw = _Draw([[(rows[number], keys[number]) for number in together[name]] for name in order], fraction)
    held = {number for place in draw.held for number in together[order[place]]}
    parts: tuple[Rows, Rows] = (([], []), ([], []))
    for number, item in enumerate(items):
        parts[number in held][0].append(item)
    for number, conversation in enumerate(conversations, len(items)):
        parts[number in held][1].append(conversation)
    return parts


class _Draw:
    """Goes through the groups of rows once for the shares, and again for tasks that gave nothing.

    Attributes:
        held: places of the groups that are held out.
    """

    def __init__(self, groups: Sequence[Sequence[tuple[Row, Sequence[str]]]], fraction: float) -> None:
        self.sizes = [
            Counter(task for task, _ in {(_task(row), name) for row, names in group for name in names})
            for group in groups
        ]
        self.answers = [Counter(_answer(row) for row, _ in group) for group in groups]
        self.left = sum(self.answers, Counter[tuple[Task, str]]())  # rows of each answer still trained on
        self.taken: Counter[Task] = Counter()
        self.held: set[int] = set()
        total = sum(self.sizes, Counter[Task]())
        self.wanted = {task: max(1.0, fraction * size) for task, size in total.items()}
        for place, sizes in enumerate(self.sizes):
            if all(self._has_room(task, size) for task, size in sizes.items()):
                self._take(place)
        for task in sorted(total):
            if not self.taken[task]:  # its documents are large: the smallest will do, up to half of all
                self.wanted[task] = max(1.0, total[task] / 4)
                mine = sorted((sizes[task], place) for place, sizes in enumerate(self.sizes) if task in sizes)
                fitting = (p for _, p in mine if all(self._has_room(t, n) for t, n in self.sizes[p].items()))
                next(filter(self._take, fitting), None)

    def _has_room(self, task: Task, size: int) -> bool:
        return self.taken[task] + size / 2 <= self.wanted[task]

    def _take(self, place: int) -> bool:
        if any(self.left[answer] <= count for answer, count in self.answers[place].items()):
            return False
        self.left -= self.answers[place]
        self.taken += self.sizes[place]
        self.held.add(place)
        return True


def _keys(row: Row) -> tuple[str, ...]:
    if isinstance(row, Item):
        return documents(row) or (row.document,)
    long = [text for text in texts(row) if len(normalised(text)) >= TURN_CHARACTERS]
    return tuple(map(key, long or ["\n".join(texts(row))]))


def _task(row: Row) -> Task:
    return ("task", row.task) if isinstance(row, Item) else ("source", row.source)


def _answer(row: Row) -> tuple[Task, str]:
    """What must not die out in the training part: an answer of a choice task, or else the task."""
    return _task(row), ",".join(row.gold) if isinstance(row, Item) and row.kind == "choice" else ""
