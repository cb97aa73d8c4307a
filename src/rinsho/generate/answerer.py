"""Whatever `rinsho.generate.opening` opens, asked as evaluation and chat ask a model folder."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from rinsho.errors import UserError
from rinsho.generate.batcher import Batcher
from rinsho.generate.jobs import Token, choice_job, span_job, text_job
from rinsho.generate.opening import Opened
from rinsho.generate.sampling import Sampling
from rinsho.generate.spans import Pieces
from rinsho.generate.speaking import Speaking

BROKEN = "\ufffd"  # what decoding shows for a character whose bytes are not all there yet


class Answerer(Speaking):
    """An opened model as a `rinsho.tasks.asking.Answering`.

    Prompts of one call are answered together, and what they begin with alike is read once. Nothing is kept from call
    to call: the same call gives the same answers whatever was asked before, so that an interrupted evaluation goes on
    to the same bytes. Which prompts share a call may change the last bits of a logit, and an answer at a tie. Only
    `stream` keeps what it read, for the next turn of a conversation.
    """

    def __init__(self, opened: Opened) -> None:
        self.opened = opened
        self.tokenizer: Any = opened.tokenizer
        self.window = opened.window
        self.where: Path = opened.where
        self._talk: Batcher | None = None  # of the last `stream`

    @cached_property
    def pieces(self) -> Pieces:
        """The vocabulary as bytes."""
        return self.opened.pieces

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        max_new_tokens: int,
        stop_ids: Sequence[int] | None = None,
        temperature: float = 0.0,
        seed: int = 1,
    ) -> list[list[int]]:
        """The ids that follow each prompt, without the stop id that ended them; arguments as `Generator.generate`."""
        stops = [self.end_id] if stop_ids is None else stop_ids
        self._check(prompts)
        return self._run(
            [
                text_job(prompt, max_new_tokens, stops, Sampling(temperature, seed=_seed(seed, row)))
                for row, prompt in enumerate(prompts)
            ]
        )

    def choose(self, prompts: Sequence[Sequence[int]], options: Sequence[Sequence[Sequence[int]]]) -> list[list[float]]:
        """The summed log-probability of each option after its prompt."""
        self._check(prompts)
        return self._run([choice_job(prompt, group) for prompt, group in zip(prompts, options, strict=True)])

    def spans(self, prompts: Sequence[Sequence[int]], passages: Sequence[str], max_new_tokens: int) -> list[list[str]]:
        """For each prompt a list of spans of its (cleaned) passage, without exact repeats."""
        self._check(prompts)
        found = self._run(
            [
                span_job(prompt, passage, self.pieces, max_new_tokens)
                for prompt, passage in zip(prompts, passages, strict=True)
            ]
        )
        return [[item for item, _ in spans.items] for spans in found]

    def stream(
        self,
        prompt: Sequence[int],
        max_new_tokens: int,
        stop_ids: Sequence[int] | None = None,
        temperature: float = 0.0,
        seed: int = 1,
    ) -> Iterator[str]:
        """The answer to one prompt as pieces of text, each as soon as it is whole."""
        self._check([prompt])
        stops = [self.end_id] if stop_ids is None else stop_ids
        ids: list[int] = []

        def heard(index: int, _: Token) -> bool:
            ids.append(index)
            return True

        job = text_job(
            prompt, max_new_tokens, stops, Sampling(temperature, seed=_seed(seed, 0)),
            on_token=heard,
        )  # fmt: skip
        errors: list[BaseException | None] = []
        batcher, self._talk = self._talk or Batcher(self.opened.decoder), None
        ticket = batcher.add(job, lambda _, error: errors.append(error))
        shown, seen = "", 0
        try:
            while batcher.step():
                if len(ids) == seen:
                    continue
                seen = len(ids)
                text = self.tokenizer.decode(ids, skip_special_tokens=True)
                if text.startswith(shown) and not text.endswith(BROKEN) and len(text) > len(shown):
                    yield text[len(shown) :]
                    shown = text
            self._talk = batcher  # not where a step was interrupted: what it has read is not known then
        finally:
            batcher.cancel(ticket)
        for error in filter(None, errors):
            raise error
        if rest := self.tokenizer.decode(ids, skip_special_tokens=True)[len(shown) :]:
            yield rest

    def _run(self, jobs: list[Any]) -> list[Any]:
        self._talk = None
        return Batcher(self.opened.decoder).run(jobs)

    def _check(self, prompts: Sequence[Sequence[int]]) -> None:
        for number, prompt in enumerate(prompts):
            if not 0 < len(prompt) <= self.window:
                raise UserError(
                    f"a prompt of {len(prompt)} tokens", where=f"prompt {number}",
                    expected=f"1 to {self.window} tokens (the model's window)",
                    todo="shorten it (rinsho.generate.shorten)",
                )  # fmt: skip


def _seed(seed: int, row: int) -> int:
    return int.from_bytes(hashlib.blake2b(f"{seed}:{row}".encode(), digest_size=7).digest(), "big")
