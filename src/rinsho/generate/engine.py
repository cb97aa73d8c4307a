"""A model folder that answers: free text, log-probabilities of options, and lists of spans, in batches.

Shapes: B rows of a batch, T prompt positions with padding on the left, V vocabulary.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from rinsho.errors import UserError
from rinsho.generate.batches import by_length, closed_up
from rinsho.generate.cache import WASTED_COLUMNS, Reader
from rinsho.generate.loading import load_model, load_tokenizer
from rinsho.generate.repeats import MAX_GUESSES, Repeats, width_of
from rinsho.generate.spans import Passage, Pieces, SpanAnswer, piece_bytes, unique
from rinsho.generate.speaking import Speaking

MAX_ROWS = 64
BATCH_TOKENS = 24_576  # positions of a batch with the answer's room; bounds the memory of the key/value cache
CHOICE_TOKENS = 6_144  # positions of a batch that is only read: a third faster, as it stays in the processor's cache
BROKEN = "\ufffd"  # what decoding shows for a character whose bytes are not all there yet

Pick = Callable[[torch.Tensor, list[int]], list[int | None]]  # (B, V) logits and row numbers -> next id or None to stop


class Generator(Speaking):
    """A model folder, ours or any Hugging Face causal language model, ready to answer.

    Everything is float32 unless asked otherwise, and no answer depends on which prompts share its batch. An adapter
    answers on its base as that was in training; in LLM.int8 and bfloat16 answers may depend on the batch.

    Args:
        folder: a folder with `config.json`, weights and a tokenizer.
        threads: torch threads; None leaves the setting of the process.
        dtype: "float32" or "bfloat16" (half the memory; answers may then depend on the batch). None: float32, the base
            of an adapter as it was trained.

    Raises:
        UserError: the folder is missing or cannot be opened.
    """

    def __init__(
        self, folder: Path | str, threads: int | None = None, dtype: str | None = None, max_rows: int = MAX_ROWS
    ) -> None:
        if threads:
            torch.set_num_threads(threads)
        folder = Path(folder)
        tokenizer = load_tokenizer(folder)
        self._take(load_model(folder, dtype), tokenizer, folder, max_rows)
        self._keeps_prefix = True

    @classmethod
    def of(
        cls, model: Any, tokenizer: Any, where: Path | str = "the model in memory", max_rows: int = MAX_ROWS
    ) -> Generator:
        """A generator of a model in memory, on its device and as it stands: put it into evaluation mode first."""
        self = cls.__new__(cls)
        self._take(model, tokenizer, where, max_rows)
        return self

    def _take(self, model: Any, tokenizer: Any, where: Path | str, max_rows: int) -> None:
        self.model, self.tokenizer, self.where, self.max_rows = model, tokenizer, where, max_rows
        self.window: int = getattr(self.model.config, "max_position_embeddings", None) or 1 << 20
        self._pieces: Pieces | None = None
        self._keeps_prefix = False  # a model in memory may be another one at the next call: it is tuned, or switched

    @cached_property
    def _reader(self) -> Reader:
        return Reader(self.model, self.end_id)

    # ------------------------------------------------------------------ answers

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        max_new_tokens: int,
        stop_ids: Sequence[int] | None = None,
        temperature: float = 0.0,
        seed: int = 1,
    ) -> list[list[int]]:
        """The ids that follow each prompt, without the stop id that ended them.

        Args:
            prompts: ids of each prompt.
            max_new_tokens: length of an answer, at most.
            stop_ids: ids that end an answer; None means the end-of-text id.
            temperature: 0 takes the likeliest id; above 0 draws, alike for the same seed and place in `prompts`.
            seed: of the draws.

        Raises:
            UserError: a prompt leaves no room in the model's window.
        """
        stops = {self.end_id} if stop_ids is None else set(stop_ids)
        if temperature == 0 and max_new_tokens > 0 and self._reader.in_place:
            return self._greedy(prompts, max_new_tokens, stops)
        draws = {}
        if temperature > 0:
            draws = {row: torch.Generator().manual_seed(_seed(seed, row)) for row in range(len(prompts))}

        def pick(logits: torch.Tensor, rows: list[int]) -> list[int | None]:
            if temperature > 0:
                shares = torch.softmax(logits.float().cpu() / temperature, -1)
                found = [int(torch.multinomial(shares[i], 1, generator=draws[row])) for i, row in enumerate(rows)]
            else:
                found = logits.argmax(-1).tolist()
            return [None if index in stops else index for index in found]

        return self._decode(prompts, max_new_tokens, pick)

    def stream(
        self,
        prompt: Sequence[int],
        max_new_tokens: int,
        stop_ids: Sequence[int] | None = None,
        temperature: float = 0.0,
        seed: int = 1,
    ) -> Iterator[str]:
        """The answer to one prompt as pieces of text, each as soon as it is whole."""
        stops = {self.end_id} if stop_ids is None else set(stop_ids)
        draw = torch.Generator().manual_seed(_seed(seed, 0))
        ids: list[int] = []
        shown = ""
        for logits in self._steps(prompt, max_new_tokens, ids):
            if temperature > 0:
                index = int(torch.multinomial(torch.softmax(logits.float().cpu() / temperature, -1), 1, generator=draw))
            else:
                index = int(logits.argmax())
            if index in stops:
                break
            ids.append(index)
            text = self.tokenizer.decode(ids, skip_special_tokens=True)
            if text.startswith(shown) and not text.endswith(BROKEN) and len(text) > len(shown):
                yield text[len(shown) :]
                shown = text
        rest = self.tokenizer.decode(ids, skip_special_tokens=True)[len(shown) :]
        if rest:
            yield rest

    def choose(self, prompts: Sequence[Sequence[int]], options: Sequence[Sequence[Sequence[int]]]) -> list[list[float]]:
        """The summed log-probability of every option after its prompt; the prompt is computed once for all of them.

        Args:
            prompts: ids of each prompt.
            options: for each prompt its options as ids (at least one id each).
        """
        result: list[list[float]] = [[] for _ in prompts]
        longest = [max(map(len, group)) for group in options]
        costs = [
            (len(prompt) + most) * (len(group) if most > 1 else 1)
            for prompt, group, most in zip(prompts, options, longest, strict=True)
        ]
        self._check_room(prompts, [most - 1 for most in longest])
        self._begin()
        for group in by_length(costs, self.max_rows, CHOICE_TOKENS):
            rows = sorted(group, key=lambda row: -len(prompts[row]))
            for row, sums in zip(
                rows, self._choose_batch([prompts[r] for r in rows], [options[r] for r in rows]), strict=True
            ):
                result[row] = sums
        return result

    def spans(self, prompts: Sequence[Sequence[int]], passages: Sequence[str], max_new_tokens: int) -> list[list[str]]:
        """For each prompt a list of spans of its passage, without exact repeats.

        The answer has the form of `rinsho.tasks.answer_text` (['肺癌', '発熱']); at every step the likeliest legal
        id is taken. Passages are cleaned text; every returned item is a substring of its passage. An item that
        `max_new_tokens` cuts off is left out.
        """
        answers = [SpanAnswer(Passage(passage, self.pieces)) for passage in passages]

        def pick(logits: torch.Tensor, rows: list[int]) -> list[int | None]:
            table = logits.float().cpu().numpy()
            found: list[int | None] = []
            for line, row in zip(table, rows, strict=True):
                legal = answers[row].allowed()
                if not len(legal):
                    found.append(None)
                    continue
                index = int(legal[line[legal].argmax()])
                answers[row].advance(index)
                found.append(index)
            return found

        self._decode(prompts, max_new_tokens, pick)
        return [unique(answer.items) for answer in answers]

    @property
    def pieces(self) -> Pieces:
        """The vocabulary as bytes, made at its first use."""
        if self._pieces is None:
            size = self.model.get_output_embeddings().weight.shape[0]
            self._pieces = Pieces(piece_bytes(self.tokenizer)[:size])
        return self._pieces

    # ------------------------------------------------------------------ the model's steps

    def _begin(self) -> None:
        """What was kept of another call's prompts goes, where the model may have changed since."""
        if not self._keeps_prefix:
            self._reader.prefix = None

    @torch.inference_mode()
    def _decode(self, prompts: Sequence[Sequence[int]], max_new_tokens: int, pick: Pick) -> list[list[int]]:
        answers: list[list[int]] = [[] for _ in prompts]
        self._check_room(prompts, [0] * len(prompts))
        self._begin()
        for group in by_length([len(prompt) + max_new_tokens for prompt in prompts], self.max_rows, BATCH_TOKENS):
            rows = group
            context = self._reader.read([prompts[row] for row in rows], max_new_tokens)
            logits = context.logits
            for left in range(max_new_tokens, 0, -1):
                found = pick(logits, rows)
                going = []
                for place, (row, index) in enumerate(zip(rows, found, strict=True)):
                    if index is not None:
                        answers[row].append(index)
                        if len(prompts[row]) + len(answers[row]) <= self.window:
                            going.append(place)
                if not going or left == 1:
                    break
                if len(going) < len(rows):  # finished answers cost nothing more
                    going = closed_up(going)
                    context.select(going)
                    rows = [rows[place] for place in going]
                logits = context.advance(torch.tensor([answers[row][-1:] for row in rows]))[:, -1]
        return answers

    @torch.inference_mode()
    def _greedy(self, prompts: Sequence[Sequence[int]], max_new_tokens: int, stops: set[int]) -> list[list[int]]:
        """The likeliest ids, one after another; where answers repeat themselves several are checked in one step.

        Every id is the likeliest one after those before it, as if they were computed one by one.
        """
        answers = [Repeats() for _ in prompts]
        self._check_room(prompts, [0] * len(prompts))
        self._begin()
        for group in by_length([len(prompt) + max_new_tokens for prompt in prompts], self.max_rows, BATCH_TOKENS):
            rows = group
            limits = {row: min(max_new_tokens, self.window + 1 - len(prompts[row])) for row in rows}
            room = max_new_tokens + WASTED_COLUMNS + MAX_GUESSES + 1
            context = self._reader.read([prompts[row] for row in rows], room)
            likeliest = context.logits.argmax(-1)[:, None].tolist()
            guesses: list[list[int]] = [[] for _ in rows]
            while True:
                taken = [
                    _take(answers[row], found, guess, limits[row], stops)
                    for row, found, guess in zip(rows, likeliest, guesses, strict=True)
                ]
                going = [place for place, count in enumerate(taken) if count]
                if not going:
                    break
                if len(likeliest[0]) > 1:
                    context.keep([max(1, count) for count in taken], len(likeliest[0]))
                if len(going) < len(rows):  # finished answers cost nothing more
                    going = closed_up(going)
                    context.select(going)
                    rows = [rows[place] for place in going]
                width = width_of(sum(answers[row].repeats for row in rows), len(rows))
                guesses = [answers[row].guess(min(width, limits[row] - len(answers[row].ids) - 1)) for row in rows]
                width = max(map(len, guesses))
                ids = [[answers[row].ids[-1], *guess, *[self.end_id] * (width - len(guess))]
                       for row, guess in zip(rows, guesses, strict=True)]  # fmt: skip
                lengths = torch.tensor([[1 + len(guess)] for guess in guesses]) if width else None
                likeliest = context.advance(torch.tensor(ids), lengths).argmax(-1).tolist()
        return [answer.ids for answer in answers]

    @torch.inference_mode()
    def _steps(self, prompt: Sequence[int], max_new_tokens: int, ids: list[int]) -> Iterator[torch.Tensor]:
        """Logits (V,) for one prompt, step by step; the caller appends the id it took to `ids`."""
        self._check_room([prompt], [0])
        steps = min(max_new_tokens, self.window - len(prompt) + 1)
        context = self._reader.read([prompt], steps)
        logits = context.logits
        for _ in range(steps):
            yield logits[0]
            logits = context.advance(torch.tensor([ids[-1:]]))[:, -1]

    @torch.inference_mode()
    def _choose_batch(
        self, prompts: Sequence[Sequence[int]], options: Sequence[Sequence[Sequence[int]]]
    ) -> list[list[float]]:
        longer = [
            (row, place) for row, group in enumerate(options) for place, option in enumerate(group) if len(option) > 1
        ]
        width = max((len(options[row][place]) for row, place in longer), default=1) - 1
        context = self._reader.read(prompts, width)
        first = torch.log_softmax(context.logits.float(), -1).cpu()
        sums = [[float(first[row, option[0]]) for option in group] for row, group in enumerate(options)]
        if not longer:
            return sums
        inputs = torch.full((len(longer), width), self.end_id)
        targets = torch.full((len(longer), width), -1)
        for line, (row, place) in enumerate(longer):
            option = torch.tensor(options[row][place])
            inputs[line, : len(option) - 1], targets[line, : len(option) - 1] = option[:-1], option[1:]
        context.select([row for row, _ in longer])
        logits = context.advance(inputs)
        targets = targets.to(logits.device)
        found = logits.gather(-1, targets.clamp(min=0)[..., None])[..., 0].float() - logits.float().logsumexp(-1)
        for (row, place), value in zip(longer, found.masked_fill(targets < 0, 0.0).sum(-1).tolist(), strict=True):
            sums[row][place] += value
        return sums

    def _check_room(self, prompts: Sequence[Sequence[int]], extra: Sequence[int]) -> None:
        for number, (prompt, more) in enumerate(zip(prompts, extra, strict=True)):
            if not prompt or len(prompt) + more > self.window:
                raise UserError(
                    f"a prompt of {len(prompt)} tokens and {more} of the answer",
                    where=f"prompt {number}",
                    expected=f"1 to {self.window} tokens (the model's window)",
                    todo="shorten it (rinsho.generate.shorten)",
                )


def _take(answer: Repeats, found: Sequence[int], guess: Sequence[int], limit: int, stops: set[int]) -> int:
    """Appends the ids that were found, up to the first that was not guessed; returns their number, 0 at the end."""
    for count, index in enumerate(found[: len(guess) + 1], 1):
        if index in stops:
            return 0
        answer.append(index)
        if len(answer.ids) == limit:
            return 0
        if count > len(guess) or index != guess[count - 1]:
            return count
    raise AssertionError("there is one more id than guesses")


def _seed(seed: int, row: int) -> int:
    return int.from_bytes(hashlib.blake2b(f"{seed}:{row}".encode(), digest_size=7).digest(), "big")
