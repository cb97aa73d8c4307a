"""Prompts read by a model, with keys and values to go on from: written in place, what prompts share read once.

transformers' own cache grows by concatenation: each token copies all keys and values of the batch, which took three
quarters of the time of a 15M model (24 rows of 500 tokens). Here they stand in tensors with room for the answer.

Shapes: B rows, H heads, D numbers a head, P ids of the prefix that all prompts share, V vocabulary. Columns of a batch:
prefix, padding, the rest of the prompts (ending in the same column), answers.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

# Positions that a processor reads at once: two cores read 7,300 tokens of a 15M model's prompts a second in parts of
# 2,000, 6,000 in parts of 4,000 and 2,600 in one of 12,000, which leaves the processor's cache.
READ_TOKENS = 2_048
# Ids that a batch's prompts must share, and positions that this must save (ids times further prompts), for them to be
# read once: on a 15M model sharing costs a call of the model, as much as reading 50 to 65 positions. With 4 prompts
# 16 ids gained nothing, 32 ids 12 %, 64 ids a third and more (benchmarks/evaluate.py --part prefix).
SHARED_TOKENS, SAVED_TOKENS = 16, 100
GROWTH = 1_024  # columns of room at first, and more where they are used up: few answers are as long as they may be

WASTED_COLUMNS = 128  # columns that no row sees, at most: they are read for nothing, but moving the rest has its price


class Room(DynamicLayer):  # type: ignore[no-untyped-call]
    """Keys and values of one layer in tensors (B, H, columns, D) that are made once; the model sees a part of them."""

    def __init__(self, rows: int, columns: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.rows, self.columns = rows, columns
        self.buffers: list[torch.Tensor] = []
        self.seen, self.length = slice(0, rows), 0

    def see(self, rows: slice, length: int) -> None:
        """Lets the model see these rows and that many columns; what it reads next is written behind them."""
        self.seen, self.length = rows, length
        if self.buffers:
            self.keys, self.values = (buffer[rows, :, :length] for buffer in self.buffers)

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Makes the tensors in the form of these."""
        self.dtype, self.device = key_states.dtype, key_states.device
        for states in (key_states, value_states):
            _, heads, _, size = states.shape
            self.buffers.append(states.new_empty(self.rows, heads, self.columns, size))
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_args: Any, **_kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Writes what was read; returns all that is seen."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        end = self.length + key_states.shape[-2]
        if end > self.columns:
            more, self.columns = end + GROWTH - self.columns, end + GROWTH
            self.buffers = [torch.nn.functional.pad(buffer, (0, 0, 0, more)) for buffer in self.buffers]
        for buffer, states in zip(self.buffers, (key_states, value_states), strict=True):
            buffer[self.seen, :, self.length : end] = states
        self.see(self.seen, end)
        assert self.keys is not None and self.values is not None
        return self.keys, self.values

    def align(self, rows: slice, start: int, width: int, end: int) -> None:
        """Moves `width` columns at `start` so that they end at `end`; the columns between are padding.

        Padding is never looked at, but must be numbers: what was in the memory may be infinite.
        """
        for buffer in self.buffers:
            if start + width < end:
                part = buffer[rows, :, start : start + width].clone()
                buffer[rows, :, start + width : end] = 0
                buffer[rows, :, end - width : end] = part

    def close_up(self, places: Sequence[torch.Tensor], width: int) -> None:
        """Keeps these columns of each row, moved so that they end at `width`."""
        for row, kept in enumerate(places):
            for buffer in self.buffers:
                buffer[row, :, width - len(kept) : width] = buffer[row][:, kept]
        self.see(slice(0, len(places)), width)

    def reorder_cache(self, beam_idx: torch.Tensor) -> None:
        """Row n becomes what row `beam_idx[n]` was. Where no row moves back, only the moved ones are copied."""
        places, length = beam_idx.tolist(), self.length
        if all(place >= row for row, place in enumerate(places)):
            for row, place in enumerate(places):
                if row != place:
                    for buffer in self.buffers:
                        buffer[row, :, :length] = buffer[place, :, :length]
        else:
            self.rows, old = len(places), self.buffers
            self.buffers = [buffer.new_empty(len(places), *buffer.shape[1:]) for buffer in old]
            for row, place in enumerate(places):
                for buffer, before in zip(self.buffers, old, strict=True):
                    buffer[row, :, :length] = before[place, :, :length]
        self.see(slice(0, len(places)), length)


class Context:
    """Prompts that were read, and what was read after them.

    Attributes:
        logits: after each prompt, (B, V).
    """

    def __init__(self, model: Any, logits: torch.Tensor, mask: torch.Tensor, columns: int, cache: Any) -> None:
        self.model, self.logits, self.cache = model, logits, cache
        self.mask, self.columns = mask, columns  # the mask goes on over the room
        self.positions = mask[:, :columns].sum(1, keepdim=True)

    def advance(self, ids: torch.Tensor, lengths: torch.Tensor | None = None) -> torch.Tensor:
        """Logits (B, n, V) after each of n further ids a row, of which the first `lengths` (B, 1) count, else all."""
        count = ids.shape[1]
        ids = ids.to(self.mask.device)
        steps = torch.arange(count, device=ids.device)
        if lengths is not None:  # what does not count must not have a place beyond the window either
            steps = torch.minimum(steps, lengths.to(ids.device) - 1)
        self.columns += count
        output = self.model(
            input_ids=ids,
            attention_mask=self.mask[:, : self.columns],
            position_ids=self.positions + steps,
            past_key_values=self.cache,
            use_cache=True,
        )
        self.positions = self.positions + count
        return output.logits  # type: ignore[no-any-return]

    def keep(self, counts: Sequence[int], count: int) -> None:
        """Of the last `count` ids of each row only the first `counts` were right; the others are not seen any more."""
        kept = torch.tensor(counts, device=self.mask.device)[:, None]
        self.mask[:, self.columns - count : self.columns] = torch.arange(count, device=self.mask.device) < kept
        self.positions = self.positions + kept - count
        if self.columns - int(self.positions.max()) > WASTED_COLUMNS:
            self._close_up()

    def _close_up(self) -> None:
        """Moves what is seen of each row together, to the last columns in use."""
        seen = [row.nonzero()[:, 0] for row in self.mask[:, : self.columns]]
        width = max(map(len, seen))
        for layer in self.cache.layers:
            layer.close_up(seen, width)
        self.columns = width
        self.mask[:] = 1
        for row, places in enumerate(seen):
            self.mask[row, : width - len(places)] = 0

    def select(self, places: Sequence[int]) -> None:
        """Goes on with these rows, in this order; a row may stand in it more than once."""
        indices = torch.tensor(places, device=self.mask.device)
        self.cache.reorder_cache(indices)  # `batch_select_indices` forgets the states of recurrent layers
        self.mask, self.positions = self.mask[indices], self.positions[indices]


class Reader:
    """Reads prompts with a model, those of a batch that begin alike with their beginning read once.

    The last beginning is kept for the next batch with the same one. Models whose attention sees a window only, that
    have other states than keys and values, or whose positions depend on the length read every prompt whole.
    """

    def __init__(self, model: Any, pad_id: int) -> None:
        self.model, self.pad_id = model, pad_id
        self.in_place = grows_only(model)
        self.prefix: tuple[list[int], Any] | None = None

    def read(self, prompts: Sequence[Sequence[int]], room: int) -> Context:
        """The prompts, in good order when the longest stands first, with `room` columns for what follows them."""
        if self.in_place:
            return self._read_in_place(prompts, room)
        ids, mask = self._padded(prompts)
        output = self._call(ids, mask, None)
        whole = torch.cat([mask, mask.new_ones(len(prompts), room)], 1)
        return Context(self.model, output.logits[:, -1], whole, ids.shape[1], output.past_key_values)

    def _read_in_place(self, prompts: Sequence[Sequence[int]], room: int) -> Context:
        shared = self._shared(prompts)
        rests = [prompt[shared:] for prompt in prompts]
        width = shared + max(map(len, rests))
        cache = DynamicCache(config=self.model.config)
        layers = [Room(len(prompts), width + min(room, GROWTH)) for _ in cache.layers]
        cache.layers = list(layers)
        if shared:
            for layer, known in zip(layers, self._read_prefix(prompts[0][:shared]), strict=True):
                layer.update(known.keys, known.values)
        mask = torch.ones(len(prompts), width + room, dtype=torch.long, device=self.model.device)
        logits = []
        for rows in self._parts(rests):
            for layer in layers:
                layer.see(rows, shared)
            ids, part = self._padded(rests[rows])
            logits.append(self._call(ids, torch.cat([part.new_ones(len(ids), shared), part], 1), cache).logits[:, -1])
            mask[rows, shared : width - ids.shape[1]] = 0
            mask[rows, width - ids.shape[1] : width] = part
            for layer in layers:
                layer.align(rows, shared, ids.shape[1], width)
        for layer in layers:
            layer.see(slice(0, len(prompts)), width)
        return Context(self.model, torch.cat(logits), mask, width, cache)

    def _parts(self, rests: Sequence[Sequence[int]]) -> Iterator[slice]:
        """Rows that are read at once: on a processor a few thousand positions, else all."""
        start, longest = 0, 0
        for row, rest in enumerate(rests):
            longest = max(longest, len(rest))
            if row > start and (row + 1 - start) * longest > READ_TOKENS and self.model.device.type == "cpu":
                yield slice(start, row)
                start, longest = row, len(rest)
        yield slice(start, len(rests))

    def _shared(self, prompts: Sequence[Sequence[int]]) -> int:
        """How many ids are read once: 0 where that is not worth it. One id of each prompt is always left to read."""
        first, last = min(map(list, prompts)), max(map(list, prompts))  # what the outermost two share, all share
        shared = 0
        for one, other in zip(first, last, strict=False):
            if one != other:
                break
            shared += 1
        shared = min(shared, min(map(len, prompts)) - 1)
        return shared if shared >= SHARED_TOKENS and shared * (len(prompts) - 1) >= SAVED_TOKENS else 0

    def _read_prefix(self, ids: Sequence[int]) -> Any:
        """Layers with keys and values (1, H, P, D) of the ids."""
        if self.prefix is None or self.prefix[0] != list(ids):
            row, mask = self._padded([ids])
            cache = DynamicCache(config=self.model.config)
            self._call(row, mask, cache)
            self.prefix = (list(ids), cache.layers)
        return self.prefix[1]

    def _padded(self, prompts: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Ids and mask with padding on the left."""
        width = max(map(len, prompts))
        device = self.model.device
        ids = torch.tensor([[self.pad_id] * (width - len(prompt)) + list(prompt) for prompt in prompts], device=device)
        mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=device)
        return ids, mask

    def _call(self, ids: torch.Tensor, mask: torch.Tensor, cache: Any) -> Any:
        """The model on ids that end where the mask does; padding gets a position that no token has to share."""
        positions = (mask.cumsum(-1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        return self.model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )


def grows_only(model: Any, window: int | None = None) -> bool:
    """Whether all that a model keeps of a text is keys and values of each token, that no later token changes.

    Not so for sliding windows (but for texts of at most `window` ids that none of them cuts), recurrent layers, and
    positions that are stretched with the length of the text.
    """

    def grows(layer: Any) -> bool:
        if type(layer) is DynamicSlidingWindowLayer:
            return window is not None and window <= layer.sliding_window
        return type(layer) is DynamicLayer

    whole = model.get_base_model() if hasattr(model, "get_base_model") else model
    config = whole.config.get_text_config(decoder=True)
    accepted = inspect.signature(whole.forward).parameters
    return (
        {"past_key_values", "position_ids"} <= accepted.keys()
        and getattr(config, "_attn_implementation", None) in ("sdpa", "eager")
        and all(map(grows, DynamicCache(config=whole.config).layers))
        and not any(kind in str(getattr(config, "rope_parameters", "")) for kind in ("dynamic", "longrope"))
    )
