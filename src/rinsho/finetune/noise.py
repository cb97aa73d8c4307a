"""Noise on embeddings while tuning: NEFTune and SymNoise."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from rinsho.tokens import Batch


class Noise:
    """Noise of size alpha / sqrt(tokens x width) on a model's embeddings while it is in training mode.

    `tokens` is the length of the conversation that a token stands in, so packing and padding do not change the size.
    Works on anything with `get_input_embeddings`: our models, others, and PEFT's, whose wrapper around the embedding
    (`trainable_token_indices`) is then the module that is hooked. Numbers come from torch's global generator.

    - `neftune`: independent uniform numbers in (-1, 1) times that size.
    - `symnoise`: e is +1 or -1 with equal probability, times that size; the batch is computed as x + e and as x - e,
      one below the other, and the loss is the mean over both. The paper's length is that of the whole sequence.

    Attributes:
        copies: how often each row of a batch is computed; losses are divided by targets x copies.
        lengths: (rows, time) tokens of the conversation at each place, copies included; None: no noise.

    Source: N2.4-2; arXiv 2310.05914, algorithm 1 (neftune); arXiv 2312.01523 (symnoise).
    """

    def __init__(self, model: Any, kind: Literal["neftune", "symnoise"], alpha: float) -> None:
        self.kind, self.alpha = kind, alpha
        self.copies = 2 if kind == "symnoise" else 1
        self.lengths: Tensor | None = None
        self._handle = model.get_input_embeddings().register_forward_hook(self._hook)

    def prepare(self, batch: Batch) -> Batch:
        """The rows as often as they are computed; takes their lengths for the next forward pass."""
        if self.copies > 1:
            batch = Batch(*(np.concatenate([array] * self.copies) for array in batch))
        self.lengths = torch.from_numpy(conversation_lengths(batch.position_ids))
        return batch

    def remove(self) -> None:
        """Takes the noise off the model."""
        self._handle.remove()

    def _hook(self, module: Any, _: Any, output: Tensor) -> Tensor:
        if not module.training or self.lengths is None:
            return output
        size = self.alpha / torch.sqrt(self.lengths.to(output.device) * output.shape[-1])
        if self.kind == "neftune":
            drawn = torch.empty_like(output).uniform_(-1, 1)
        else:
            signs = torch.empty_like(output[: len(output) // 2]).bernoulli_(0.5) * 2 - 1
            drawn = torch.cat([signs, -signs])
        return output + drawn * size[..., None].to(output)


def conversation_lengths(position_ids: np.ndarray[Any, Any]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """For every place the number of places of its conversation, (rows, time) float32; each begins at position 0."""
    number = (position_ids == 0).cumsum(1) - 1
    result = np.empty(number.shape, np.float32)
    for row, numbers in enumerate(number):
        result[row] = np.bincount(numbers)[numbers]
    return result
