"""Any causal language model of transformers, answering in slots: keys and values of each slot stay where they are.

A batch of transformers has one length; its rows begin and end together. Here every slot has a length of its own: an
answer may begin while others are being written, and goes on from whatever part of its beginning is still there.

Shapes: S slots, H heads, W columns (the window), D numbers a head, V vocabulary. Column = position in the slot's text.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

from rinsho import memory
from rinsho.errors import UserError
from rinsho.generate.cache import grows_only

if TYPE_CHECKING:
    from rinsho.generate.batcher import Part

BATCH_TOKENS = 512  # ids of a call: while a prompt is read, the running answers wait


class SlotLayer(DynamicLayer):
    """Keys and values of one layer in two tensors (S, H, W, D), of which a call of the model sees some rows."""

    def __init__(self, slots: int, window: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.shape = (slots, window)
        self.buffers: list[torch.Tensor] = []
        self.rows, self.starts = slice(0, 1), [0]

    def see(self, rows: slice, starts: list[int]) -> None:
        """The next call is on these rows, and writes behind this many columns of each."""
        self.rows, self.starts = rows, starts

    def get_seq_length(self) -> int:
        """Columns before those of this call, in the longest row; of the others some are masked."""
        return max(self.starts)

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_args: Any, **_kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Writes what was read; returns all that is seen."""
        if not self.buffers:
            slots, window = self.shape
            for states in (key_states, value_states):
                self.buffers.append(_zeros((slots, states.shape[1], window, states.shape[3]), states))
            self.is_initialized = True
        count, longest = key_states.shape[2], max(self.starts)
        for buffer, states in zip(self.buffers, (key_states, value_states), strict=True):
            if len(self.starts) == 1:
                buffer[self.rows, :, longest : longest + count] = states
            else:  # one id a row, each in the column of its own
                buffer[torch.arange(len(self.starts)), :, torch.tensor(self.starts)] = states[:, :, 0]
        keys, values = (buffer[self.rows, :, : longest + count] for buffer in self.buffers)
        return keys, values

    def swap(self, one: int, other: int, length: int) -> None:
        """Exchanges the first `length` columns of two rows."""
        for buffer in self.buffers:
            kept = buffer[one, :, :length].clone()
            buffer[one, :, :length] = buffer[other, :, :length]
            buffer[other, :, :length] = kept


class TorchDecoder:
    """The decoder of `rinsho.generate.batcher` on a model in memory, on its device and as it stands.

    Parts of one id are one call of the model, a row a slot; each longer part is a call. No slot's logits depend on
    other slots, but for the last digits (float32: 1e-4; bfloat16: as much as its rounding).

    Args:
        model: in evaluation mode.
        slots: texts at a time.
        window: ids of a text, at most; None: as many as the model has positions, at most 8,192.

    Attributes:
        form: what the weights are in: float32, bfloat16, int8, int4.

    Raises:
        UserError: a model that keeps something else than keys and values of each token, or has no room for the window.

    Source: M-6.
    """

    batch_tokens = BATCH_TOKENS

    def __init__(self, model: Any, slots: int = 4, window: int | None = None) -> None:
        self.model, self.slots = model, slots
        self.form = str(model.dtype).removeprefix("torch.")
        self.window = _window(model, window)
        _check(model, self.window)
        self.cache: Any = DynamicCache(config=model.config)
        self.layers = [SlotLayer(slots, self.window) for _ in self.cache.layers]
        self.cache.layers = list(self.layers)
        whole = model.get_base_model() if hasattr(model, "get_base_model") else model
        self._last_only = "logits_to_keep" in inspect.signature(whole.forward).parameters
        self._lengths = [0] * slots
        self._row_of = list(range(slots))  # slot -> row; running answers are kept in the first rows
        # makes the tensors, so that memory that is not there is missed now and not at the first question
        self.vocab_size = int(self._call([0], [[0]], [0], 1).shape[-1])
        self._lengths[0] = 0

    def feed(self, parts: Sequence[Part]) -> list[NDArray[np.float32] | None]:
        """Reads the parts, at most one a slot; of each the logits that it wants: (n, V), (1, V) or None.

        A part that starts before the end of its slot's text replaces what stood from there on.
        """
        result: list[NDArray[np.float32] | None] = [None] * len(parts)
        single = [place for place, part in enumerate(parts) if len(part.ids) == 1]
        calls = [single] if single else []
        calls += [[place] for place, part in enumerate(parts) if len(part.ids) > 1]
        for places in calls:
            chosen = [parts[place] for place in places]
            keep = len(chosen[0].ids) if chosen[0].wanted == "every" else 1
            logits = self._call([p.slot for p in chosen], [p.ids for p in chosen], [p.start for p in chosen], keep)
            for place, part, rows in zip(places, chosen, logits, strict=True):
                result[place] = None if part.wanted == "none" else rows
        return result

    def forget(self, slot: int, start: int) -> None:
        """What stands in the slot from this position on is not seen any more."""
        self._lengths[slot] = min(self._lengths[slot], start)

    def close(self) -> None:
        """Gives the memory of the model and of the slots back."""
        self.model = self.cache = None
        self.layers = []

    @torch.inference_mode()
    def _call(
        self, slots: Sequence[int], ids: Sequence[Sequence[int]], starts: Sequence[int], keep: int
    ) -> NDArray[np.float32]:
        """Logits (slots, keep, V) of the last `keep` ids; of several slots each has one id."""
        for slot, row, start in zip(slots, ids, starts, strict=True):
            assert 0 <= start <= self._lengths[slot], "ids that come behind what the slot holds"
            assert 0 < len(row) <= self.window - start, "more ids than the window has room for"
            self._lengths[slot] = start + len(row)
        self._bring_together(slots)
        order = sorted(range(len(slots)), key=lambda place: self._row_of[slots[place]])
        begin, count, device = self._row_of[slots[order[0]]], len(ids[0]), self.model.device
        lengths = [starts[place] for place in order]
        for layer in self.layers:
            layer.see(slice(begin, begin + len(slots)), lengths)
        ends = torch.tensor(lengths, device=device)[:, None]
        output = self.model(
            input_ids=torch.tensor([list(ids[place]) for place in order], device=device),
            # all rows end in the column of the longest one; the columns that a shorter one lacks are masked
            attention_mask=(torch.arange(max(lengths) + count, device=device) < ends + count).long(),
            position_ids=ends + torch.arange(count, device=device),
            past_key_values=self.cache,
            use_cache=True,
            **({"logits_to_keep": keep} if self._last_only else {}),
        )
        logits: NDArray[np.float32] = output.logits[:, -keep:].float().cpu().numpy()
        found = np.empty_like(logits)
        found[order] = logits
        return found

    def _bring_together(self, slots: Sequence[int]) -> None:
        """Lets several slots lie in the first rows, which the model sees without a copy; a few rows change places."""
        if len(slots) == 1:
            return
        asked = {self._row_of[slot] for slot in slots}
        for row in sorted(asked):
            if row >= len(slots):
                free = next(place for place in range(len(slots)) if place not in asked)
                here, there = self._row_of.index(row), self._row_of.index(free)
                length = max(self._lengths[here], self._lengths[there])
                for layer in self.layers:
                    layer.swap(row, free, length)
                self._row_of[here], self._row_of[there] = free, row
                asked.add(free)


def open_torch(  # noqa: PLR0917
    path: Path,
    slots: int = 4,
    window: int | None = None,
    threads: int | None = None,
    form: str | None = None,
    base: Path | None = None,
) -> TorchDecoder:
    """The decoder of a model or adapter folder.

    Args:
        path: of the folder.
        slots: texts at a time.
        window: ids of a text, at most.
        threads: of torch; None leaves the setting of the process.
        form: "float32", "bfloat16", "int8" (LLM.int8) or "int4" (NF4); None: `rinsho.memory.usual_form`.
        base: of an adapter, where it is not the recorded one.

    Raises:
        UserError: no such form, see `rinsho.generate.loading.load_model`, or see `TorchDecoder`.
    """
    from rinsho.generate.loading import load_form

    if threads:
        torch.set_num_threads(threads)
    decoder = TorchDecoder(load_form(path, form, base), slots, window)
    decoder.form = form or memory.usual_form(path)
    return decoder


def _window(model: Any, window: int | None) -> int:
    config = model.config.get_text_config(decoder=True)
    positions = getattr(config, "max_position_embeddings", None)
    if window is not None and not 1 <= window <= (positions or window):
        raise UserError(
            f"a window of {window} tokens", where=_name(model), expected=f"1 to {positions}, the model's positions"
        )
    return memory.text_window({"max_position_embeddings": positions}, window)


def _check(model: Any, window: int) -> None:
    """Refuses a model whose rows cannot be cut off and gone on from anywhere."""
    settings = getattr(model, "active_peft_config", None)
    if settings is not None and settings.is_prompt_learning:
        raise UserError(
            f"adapters of the kind {settings.peft_type.value} cannot answer several at once", where=_name(model),
            expected="an adapter that changes matrices (LoRA and its kin)", todo="rinsho chat answers with it",
        )  # fmt: skip
    sliding = [layer.sliding_window for layer in DynamicCache(config=model.config).layers
               if type(layer) is DynamicSlidingWindowLayer]  # fmt: skip
    if grows_only(model, window):
        return
    raise UserError(
        "the model keeps something else of a text than keys and values of each token", where=_name(model),
        expected="full attention in all layers",
        todo=f"--window {min(sliding)} is short enough for it" if sliding else "rinsho chat answers with it",
    )  # fmt: skip


def _name(model: Any) -> str:
    return str(getattr(model, "name_or_path", "") or type(model).__name__)


def _zeros(shape: tuple[int, ...], like: torch.Tensor) -> torch.Tensor:
    """Zeros in the form of a tensor; on a processor they take memory only where something is written to them.

    They must be numbers: what a row does not see is multiplied by 0, and 0 times what was in the memory may be no
    number.
    """
    if like.device.type != "cpu":
        return torch.zeros(shape, dtype=like.dtype, device=like.device)
    whole = {2: np.int16, 4: np.int32}[like.dtype.itemsize]
    return torch.from_numpy(np.zeros(shape, whole)).view(like.dtype)
