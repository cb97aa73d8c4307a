"""What can be asked of a model through the `Batcher`: text, the likelihood of options, spans of a passage.

Shapes: V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rinsho.generate.batcher import Feed, Job, Logits, NoRoomError
from rinsho.generate.sampling import Sampling, likeliest, log_sum, sample
from rinsho.generate.spans import Passage, Pieces, SpanAnswer

GREEDY = Sampling()


@dataclass(frozen=True, slots=True)
class Token:
    """What is told of an id that was taken.

    Attributes:
        logprob: its log-probability under the model, whatever the sampling; None where none are asked for.
        top: (id, log-probability) of the likeliest ids, the likeliest first.
    """

    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()


UNTOLD = Token()


@dataclass(frozen=True, slots=True)
class Spans:
    """What a model listed of a passage.

    Attributes:
        items: (span, probability), without exact repeats.
        whole: the answer ended by itself. False: the limit of ids, the window or `MAX_ITEMS` ended it, and there may be
            more.
    """

    items: list[tuple[str, float]]
    whole: bool


def text_job(  # noqa: PLR0917
    prompt: Sequence[int],
    max_new_tokens: int,
    stop_ids: Collection[int],
    sampling: Sampling = GREEDY,
    on_token: Callable[[int, Token], bool] | None = None,
    top_logprobs: int | None = None,
) -> Job[list[int]]:
    """The ids that follow a prompt, without the stop id that ended them; where the window is full they end.

    Args:
        prompt: one id at least.
        max_new_tokens: length of the answer, at most.
        stop_ids: ids that end it.
        sampling: how an id is taken.
        on_token: hears of each id as soon as it is taken, stop ids excepted; False ends the answer behind it.
        top_logprobs: None: `on_token` is told no log-probabilities. Else that of the id, and so many of the likeliest.

    Raises:
        UserError: the prompt is longer than the window.
    """
    stops = frozenset(stop_ids)
    rng = np.random.default_rng(sampling.seed)
    greedy = sampling.temperature <= 0
    ids: list[int] = []
    if max_new_tokens <= 0:
        return ids
    logits = yield Feed(prompt)
    while True:
        row = logits[-1]
        index = int(row.argmax()) if greedy else sample(row, sampling, rng)
        if index in stops:
            return ids
        ids.append(index)
        if on_token is not None:
            told = UNTOLD if top_logprobs is None else _told(row, index, top_logprobs)
            if on_token(index, told) is False:
                return ids
        if len(ids) == max_new_tokens:
            return ids
        try:
            logits = yield Feed((index,))
        except NoRoomError:
            return ids


def choice_job(prompt: Sequence[int], options: Sequence[Sequence[int]]) -> Job[list[float]]:
    """The summed log-probability of each option after the prompt; beginnings that options share are read once.

    Args:
        prompt: one id at least.
        options: one id at least each.

    Raises:
        UserError: the prompt and an option are longer than the window.
    """
    logits = yield Feed(prompt)
    rows = [logits[-1]]  # after the prompt, and after each id of `path`
    totals = [log_sum(logits[-1])]
    path: list[int] = []
    sums = [0.0] * len(options)
    for place in sorted(range(len(options)), key=lambda place: list(options[place])):
        option = list(options[place])
        shared = 0
        while shared < min(len(path), len(option) - 1) and path[shared] == option[shared]:
            shared += 1
        rest = option[shared:-1]
        if rest:
            logits = yield Feed(rest, at=len(prompt) + shared, every=True)
            path[shared:] = rest
            rows[shared + 1 :] = list(logits)
            totals[shared + 1 :] = [log_sum(row) for row in logits]
        sums[place] = sum(float(rows[depth][index]) - totals[depth] for depth, index in enumerate(option))
    return sums


def span_job(prompt: Sequence[int], passage: str, pieces: Pieces, max_new_tokens: int) -> Job[Spans]:
    """Spans of the passage that the model lists (['肺癌', '発熱']), without exact repeats, each with its probability.

    At every step the likeliest legal id is taken. The probability of an item is the product, over its ids, of the share
    of what was taken among the legal ids: from the decision to write a further item, over its text, to the decision to
    end it there. An id that ends an item and begins the next counts for both with what it decides of each. An item that
    `max_new_tokens` or the window cuts off is left out.

    Args:
        prompt: one id at least.
        passage: cleaned text; every item is a substring of it.
        pieces: the vocabulary.
        max_new_tokens: ids of the answer, at most.

    Raises:
        UserError: the prompt is longer than the window.
    """
    answer = SpanAnswer(Passage(passage, pieces))
    found: dict[str, float] = {}
    logits = yield Feed(prompt)
    unread: list[int] = []  # the only legal ones: taken without asking the model
    chance = 1.0  # of the item that is being written, so far
    for _ in range(max_new_tokens):
        legal = answer.allowed()
        if not len(legal):
            break
        share = closing = 1.0
        index = int(legal[0])
        if len(legal) > 1:
            if unread:
                try:
                    logits = yield Feed(tuple(unread))
                except NoRoomError:
                    break
                unread = []
            shares = _shares(logits[-1][legal])
            place = int(logits[-1][legal].argmax())
            index, share = int(legal[place]), float(shares[place])
            if answer.closes(index):
                closing = float(sum(shares[at] for at, other in enumerate(legal) if answer.closes(int(other))))
        written = len(answer.items)
        answer.advance(index)
        unread.append(index)
        if len(answer.items) > written:
            found.setdefault(answer.items[-1], chance * closing)
            chance = share / closing
        else:
            chance *= share
    return Spans(list(found.items()), answer.done and len(answer.items) < answer.max_items)


def _told(row: Logits, index: int, count: int) -> Token:
    total = log_sum(row)
    top = tuple((other, float(row[other]) - total) for other in likeliest(row, count)) if count else ()
    return Token(float(row[index]) - total, top)


def _shares(logits: Logits) -> NDArray[np.float64]:
    weights: NDArray[np.float64] = np.exp(logits.astype(np.float64) - float(logits.max()))
    weights /= weights.sum()
    return weights
