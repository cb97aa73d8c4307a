"""Mixtures of sources: which source falls under which pattern of a recipe, and how many rows of each are trained on.

    mixture: {"hospital/*": {weight: 0.75}, "*": {weight: 0.25}}    # a quarter of the training replays the other text
    mixture: {"guidelines": {epochs: 3}, "crawl*": 1}               # three passes; the rest of max_tokens is crawled

The rows' order is that of `rinsho.tokens.MixedOrder`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from pydantic import Field, model_validator

from rinsho.errors import UserError
from rinsho.recipe import Settings

if TYPE_CHECKING:
    from rinsho.token_files import SourceRow

WHERE = "pretrain.mixture"
LISTED = 20  # sources named in an error or a report


class SourceShare(Settings):
    """How much of some sources is trained on; a plain number is a weight, 0 leaves them out."""

    weight: float | None = Field(
        None, ge=0, description="share of the training, beside the other weights, in rows (N2.4-1)"
    )
    epochs: float | None = Field(None, ge=0, description="passes over these sources (N2.4-1)")

    @model_validator(mode="before")
    @classmethod
    def _plain_number(cls, given: Any) -> Any:
        return {"weight": given} if isinstance(given, int | float) else given

    @model_validator(mode="after")
    def _one_of_two(self) -> SourceShare:
        if (self.weight is None) == (self.epochs is None):
            raise ValueError("give weight or epochs, one of the two")
        return self

    @property
    def left_out(self) -> bool:
        """Whether these sources are not trained on."""
        return not (self.weight or self.epochs)


Mixture = Mapping[str, SourceShare]


def problems(mixture: Mixture, max_tokens: int | None) -> list[UserError]:
    """What does not go together, as far as it can be known without the text."""
    weighted = any(share.weight for share in mixture.values())
    if mixture and all(share.left_out for share in mixture.values()):
        return [UserError("every source is left out", where=WHERE, expected="a weight or epochs above 0")]
    if weighted and max_tokens is None:
        return [
            UserError(
                "weights share out max_tokens, which is not given",
                where=WHERE,
                expected="pretrain.max_tokens, or epochs for every source",
            )
        ]
    if mixture and not weighted and max_tokens is not None:
        return [
            UserError(
                "max_tokens is given, and epochs for every source",
                where=WHERE,
                expected="max_tokens with a weight for some source, or epochs alone",
                todo="remove pretrain.max_tokens or give a weight",
            )
        ]
    return []


def labels(sources: Sequence[SourceRow]) -> list[str]:
    """What each source is called in reports: its name, after that of its corpus when there are several."""
    several = len({row.corpus for row in sources}) > 1
    return ["/".join(filter(None, (row.corpus if several or not row.name else "", row.name))) for row in sources]


def groups_of(mixture: Mixture, sources: Sequence[SourceRow]) -> list[int]:
    """Of each source the place of the first pattern it falls under; -1 when that leaves it out.

    A pattern (`*`, `?`, `[…]`) is compared with the source's name, and with that name after `<corpus folder>/` or
    `<encoded folder>/`.

    Raises:
        UserError: no pattern for a source, no source for a pattern; it lists the names.
    """
    patterns = list(mixture)
    found = [next((place for place, one in enumerate(patterns) if _fits(one, row)), None) for row in sources]
    missed = [row for row, place in zip(sources, found, strict=True) if place is None]
    if missed:
        raise UserError(
            f"no pattern for {_listed(missed)}",
            where=WHERE,
            expected='a pattern for every source; "*" is all the others, weight: 0 leaves them out',
        )
    for place, pattern in enumerate(patterns):
        if place not in found:
            raise UserError(
                f"nothing is left for the pattern {pattern!r}",
                where=WHERE,
                expected=f"a name or pattern among {_listed(sources)}; the first pattern that fits takes a source",
            )
    return [-1 if mixture[patterns[place]].left_out else place for place in found if place is not None]


def draws(mixture: Mixture, rows: Sequence[int], total: int | None) -> list[int]:
    """How many rows of each pattern's sources one run draws; `rows` are those it has, `total` those to be drawn.

    A pattern with `epochs` gives that many times its rows; the weighted ones share the rest of `total`.

    Raises:
        UserError: a pattern that shall be trained on has no row; `total` leaves nothing for the weighted ones.
    """
    for (pattern, share), count in zip(mixture.items(), rows, strict=True):
        if not (count or share.left_out):
            raise UserError(f"the text of {pattern!r} does not fill one row", where=WHERE, expected="more text")
    drawn = [
        max(1, round(share.epochs * count)) if share.epochs else 0
        for share, count in zip(mixture.values(), rows, strict=True)
    ]
    weights = [Fraction(share.weight or 0) for share in mixture.values()]
    if not any(weights):
        return drawn
    rest = (total or 0) - sum(drawn)
    if rest <= 0:
        raise UserError(
            f"the sources with epochs alone are {sum(drawn)} rows, max_tokens gives {total}",
            where=WHERE,
            expected="some rows for the weighted sources",
            todo="raise max_tokens or lower the epochs",
        )
    exact = [rest * weight / sum(weights) for weight in weights]
    shared = [int(share) for share in exact]
    largest = sorted(range(len(exact)), key=lambda place: (shared[place] - exact[place], place))
    for place in largest[: rest - sum(shared)]:
        shared[place] += 1
    return [before + more for before, more in zip(drawn, shared, strict=True)]


def _fits(pattern: str, row: SourceRow) -> bool:
    names = {row.name, *(f"{folder}/{row.name}" for folder in (row.corpus, row.folder) if folder)}
    if not row.name:
        names |= {row.corpus, row.folder}
    return any(fnmatchcase(name, pattern) for name in names)


def _listed(rows: Sequence[SourceRow]) -> str:
    names = sorted({f"{row.folder or row.corpus}/{row.name}" for row in rows})
    more = f" and {len(names) - LISTED} others" if len(names) > LISTED else ""
    return ", ".join(map(repr, names[:LISTED])) + more
