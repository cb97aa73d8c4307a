"""Groups of passages, and of rows, that must not be divided between a training part and a test part."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rinsho.overlap import near_pairs
from rinsho.tasks.cases import told_cases
from rinsho.tasks.item import Item, Split, documents, passages

NEAR = 0.8


class Groups:
    """Names joined into groups (union-find); a name never seen is a group of its own."""

    def __init__(self) -> None:
        self._above: dict[str, str] = {}

    def of(self, name: str) -> str:
        """The name that stands for the group: its smallest."""
        while (above := self._above.get(name, name)) != name:
            self._above[name] = self._above.get(above, above)
            name = above
        return name

    def join(self, names: Iterable[str]) -> None:
        """Puts all these names into one group."""
        tops = {self.of(name) for name in names}
        for top in tops:
            self._above[top] = min(tops)


def near_groups(items: Sequence[Item]) -> Groups:
    """The passages of items (by `document_key`), near ones together (5-gram Jaccard > 0.8), near ones of these too."""
    texts = {key: text for item in items for key, text in zip(documents(item), passages(item), strict=True)}
    keys, groups = list(texts), Groups()
    for one, other in near_pairs(list(texts.values()), threshold=NEAR):
        groups.join((keys[one], keys[other]))
    return groups


def join_cases(groups: Groups, items: Iterable[Item]) -> None:
    """Puts the passages of one case into one group, where cases can be told."""
    for case in told_cases(items):
        groups.join(case)


def row_groups(items: Sequence[Item], split: Split) -> list[str]:
    """The group of each row: rows of one group stand on one side of a split.

    `row`: rows that ask the same; else rows with passages of one group (a sentence pair joins its two).
    """
    if split == "row":
        groups = Groups()
        names: Sequence[tuple[str, ...]] = [("\0".join((item.tag, item.question, *item.options)),) for item in items]
    else:
        groups = near_groups(items)
        if split == "case":
            join_cases(groups, items)
        names = [documents(item) for item in items]
    for row in names:
        groups.join(row)
    return [groups.of(row[0]) for row in names]
