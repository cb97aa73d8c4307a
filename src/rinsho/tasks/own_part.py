"""A test part of one's own: all pools, test rows included, divided anew so that every task can be trained and tested.

Rows of one group (see `rinsho.tasks.grouping`) never stand on both sides. A group that gives a test row leaves the
training part with all its rows, of every task; those not asked stand in neither part.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from rinsho.overlap import key
from rinsho.tasks.grouping import row_groups
from rinsho.tasks.item import Item, Split
from rinsho.tasks.jmed import pool_of

PREFIX = "own/"  # of the ids, so that nobody takes them for published rows
TEST_ROWS = 100  # of a task, as in the published tests
POOL_SHARE = 3  # at most one group in so many of a pool is tested
STRATUM_SHARE = 2  # and one in so many of those that hold a tag and answer

Stratum = tuple[str, ...]  # task, pool, tag, answer: what should stand in both parts


def draw(pools: Sequence[Item], split: Split, seed: int) -> tuple[list[Item], list[Item], list[Item]]:
    """(training rows, test rows, rows of tested groups that are not asked), each in the order of the pools.

    Answers and tags take turns, the rarest first, each time with a row of a group drawn by the seed: so they are as
    equally frequent among the test rows as the published tests have them. A new group is preferred to one drawn
    before. Test rows have ids of their own, `own/all/CRADE/00012`.
    """
    groups = row_groups(pools, split)
    drawn, tested = _Draw(pools, groups, seed).rows()
    kept = [item for item, group in zip(pools, groups, strict=True) if group not in tested]
    asked = [replace(pools[number], id=PREFIX + pools[number].id) for number in sorted(drawn)]
    other = [number for number, group in enumerate(groups) if group in tested and number not in drawn]
    return kept, asked, [pools[number] for number in other]


class _Draw:
    """The state of a draw: rows and groups taken so far, and how many more groups each pool and stratum can give."""

    def __init__(self, pools: Sequence[Item], groups: Sequence[str], seed: int) -> None:
        self.groups = groups
        self.tasks = [item.task for item in pools]
        self.strata: dict[Stratum, list[int]] = {}
        self.touched: dict[str, set[Stratum]] = {}  # what a group is a part of
        for number, item in enumerate(pools):
            self.strata.setdefault(_stratum(item), []).append(number)
            self.touched.setdefault(groups[number], set()).update({(pool_of(item),), _stratum(item)})
        # by groups first: otherwise large groups would be drawn more often and empty the training part
        order = [(key(f"{seed}:{group}"), key(f"{seed}:{item.id}")) for group, item in zip(groups, pools, strict=True)]
        for rows in self.strata.values():
            rows.sort(key=order.__getitem__)
        sizes = Counter(part for parts in self.touched.values() for part in parts)
        self.room = {part: _room(part, size) for part, size in sizes.items()}
        self.turns = sorted(self.strata, key=lambda stratum: (sizes[stratum], stratum))

    def rows(self) -> tuple[set[int], set[str]]:
        """(positions of the test rows, groups they are of)."""
        drawn: set[int] = set()
        tested: set[str] = set()
        count: Counter[str] = Counter()
        before = -1
        while before < len(drawn):
            before = len(drawn)
            for stratum in self.turns:
                row = self._next(stratum, drawn, tested) if count[stratum[0]] < TEST_ROWS else None
                if row is not None:
                    drawn.add(row)
                    count[stratum[0]] += 1
                    self._take(self.groups[row], tested)
        return drawn, tested

    def _next(self, stratum: Stratum, drawn: set[int], tested: set[str]) -> int | None:
        """The next row of a new group that can be spared, else of a group that is tested already."""
        second = None
        for row in self.strata[stratum]:
            group = self.groups[row]
            if group not in tested:
                if all(self.room[part] for part in self.touched[group]):
                    return row
            elif second is None and row not in drawn:
                second = row
        return second

    def _take(self, group: str, tested: set[str]) -> None:
        if group not in tested:
            tested.add(group)
            for part in self.touched[group]:
                self.room[part] -= 1


def _stratum(item: Item) -> Stratum:
    return (item.task, pool_of(item), item.tag, item.gold[0] if item.kind == "choice" else "")


def _room(part: Stratum, size: int) -> int:
    """How many of its groups a pool (or stratum) can give to the test part; one of two, none of one."""
    return size and min(size - 1, max(1, size // (POOL_SHARE if len(part) == 1 else STRATUM_SHARE)))
