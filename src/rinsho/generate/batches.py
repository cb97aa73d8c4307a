"""Prompts -> batches of like length, and prompts cut to a window."""

from __future__ import annotations

from collections.abc import Sequence

HEAD_FRACTION = 0.25  # of a prompt that is cut: question and instructions stand at its start and its end


def by_length(costs: Sequence[int], max_rows: int, max_cost: int) -> list[list[int]]:
    """Indices grouped so that rows of like cost lie together: no group has more than `max_rows` rows, nor a
    number of rows times its largest cost above `max_cost` (a single row may).

    >>> by_length([5, 90, 6, 80], max_rows=8, max_cost=100)
    [[1], [3], [2, 0]]
    """
    groups: list[list[int]] = []
    for index in sorted(range(len(costs)), key=lambda index: (-costs[index], index)):
        group = groups[-1] if groups else None
        if group is not None and len(group) < max_rows and (len(group) + 1) * costs[group[0]] <= max_cost:
            group.append(index)
        else:
            groups.append([index])
    return groups


def closed_up(places: Sequence[int]) -> list[int]:
    """The places in an order in which few of them move: the last ones fill the gaps before them.

    >>> closed_up([0, 2, 3, 5])
    [0, 5, 2, 3]
    """
    rest = list(places)
    kept = set(rest)
    return [place if place in kept else rest.pop() for place in range(len(rest))]


def shorten(ids: Sequence[int], size: int) -> list[int]:
    """At most `size` of the ids: the middle is left out, so the question at the start and the options at the end stay.

    >>> shorten([1, 2, 3, 4, 5, 6, 7, 8], 4)
    [1, 6, 7, 8]
    """
    if len(ids) <= size:
        return list(ids)
    if size <= 0:
        return []
    head = int(size * HEAD_FRACTION)
    return [*ids[:head], *ids[len(ids) - (size - head) :]]
