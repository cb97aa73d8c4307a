"""Instructions round by round: each round is asked whole, as the next one's prompts show what it brought (M-7)."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from rinsho.client import Answer
from rinsho.synthesize.calls import Call
from rinsho.synthesize.instructions import Grown, Growth, Refused, as_row, wanted_requests
from rinsho.synthesize.judging import PROMPT_TOO_LONG, TOO_LONG
from rinsho.synthesize.product import FAILED, KEPT, SET_ASIDE, Product

if TYPE_CHECKING:
    from rinsho.synthesize import Recipe
    from rinsho.synthesize.prompts import Prompts
    from rinsho.synthesize.running import Teachers


@dataclass
class Rounds:
    """What the rounds brought.

    Attributes:
        growth: accepted and refused instructions.
        requests: every call with its answer, without prompts and texts, in the order in which they were asked.
        table: a row for each round.
    """

    growth: Growth
    requests: list[tuple[Call, Answer]] = field(default_factory=list)
    table: list[dict[str, int]] = field(default_factory=list)

    def write(self, product: Product) -> None:
        """Writes instructions, what is set aside, and a line for each request."""
        accepted: defaultdict[str, list[Grown]] = defaultdict(list)
        refused: defaultdict[str, list[Refused]] = defaultdict(list)
        for new in self.growth.accepted:
            accepted[new.call.id].append(new)
        for other in self.growth.refused:
            refused[other.call.id].append(other)
        for call, answer in self.requests:
            if answer.error:
                product.request(call, answer, FAILED, answer.error)
                continue
            for new in accepted[call.id]:
                product.instruction(new.id, as_row(new.task), call, answer)
            for other in refused[call.id]:
                product.aside(other.id, other.text, (other.reason, other.value), call, answer)
            if accepted[call.id]:
                product.request(call, answer, KEPT)
            else:
                reasons = Counter(other.reason for other in refused[call.id])
                reason = max(reasons, key=lambda name: reasons[name], default="empty")
                too_long = answer.finish_reason == TOO_LONG
                product.request(call, answer, SET_ASIDE, PROMPT_TOO_LONG if too_long else reason)

    def numbers(self) -> dict[str, Any]:
        """For report.json. `refused` counts instructions, not answers."""
        wanted, growth = self.growth.recipe.instructions, self.growth
        stopped = (
            f"instructions: stopped at {len(growth.accepted):,} of {wanted:,}, as rounds gave nearly nothing new"
            if growth.ended == "exhausted" else ""
        )  # fmt: skip
        refused = Counter(other.reason for other in growth.refused)
        return {
            "wanted": wanted,
            "accepted": len(growth.accepted),
            "seeds": len(growth.seeds),
            "refused": dict(sorted(refused.items(), key=lambda row: (-row[1], row[0]))),
            "rounds": self.table,
            "stopped": stopped,
        }


def grow(recipe: Recipe, prompts: Prompts, teachers: Teachers) -> Rounds:
    """Asks round after round until there are enough instructions, or rounds bring nearly nothing.

    Requests that fail in a settled round are not asked again: later prompts, which were paid for, depend on it.

    Raises:
        UserError: a teacher gave up, or too many requests failed.
    """
    rounds = Rounds(Growth(recipe, prompts))
    growth, failed = rounds.growth, 0
    while not growth.done:
        calls = growth.next_calls()
        whole = max(wanted_requests(recipe), len(rounds.requests) + len(calls))
        allowed = recipe.max_failed_fraction * whole - failed
        teachers.ask_once(f"instructions-{growth.rounds:04d}", lambda calls=calls: calls, len(calls), allowed)  # type: ignore[misc]
        replies = [(call, teachers.answer(call)) for call in calls]
        before = len(growth.accepted), len(growth.refused)
        growth.take(replies)
        failed += sum(bool(answer.error) for _, answer in replies)
        new, refused = len(growth.accepted) - before[0], len(growth.refused) - before[1]
        rounds.table.append({"requests": len(calls), "read": new + refused, "new": new, "all": len(growth.accepted)})
        rounds.requests += [(replace(call, messages=()), replace(answer, text="")) for call, answer in replies]
    return rounds
