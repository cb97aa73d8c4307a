"""A decoder without a model: its logits are a fixed function of the ids that a slot holds."""

import zlib

import numpy as np


class ToyDecoder:
    """Refuses what the batcher must not do, and keeps what it was asked; when it fails it may have read all of it."""

    def __init__(self, slots=3, window=64, vocab_size=40, batch_tokens=16):
        self.slots, self.window, self.vocab_size, self.batch_tokens = slots, window, vocab_size, batch_tokens
        self.held = [[] for _ in range(slots)]
        self.calls = []
        self.fails_at = None

    def feed(self, parts):
        self.calls.append(list(parts))
        assert parts and len({part.slot for part in parts}) == len(parts)
        assert sum(len(part.ids) for part in parts) <= self.batch_tokens
        read = [self._read(part) for part in parts]
        if len(self.calls) == self.fails_at:
            raise RuntimeError("the model broke")
        return read

    def _read(self, part):
        held = self.held[part.slot]
        assert part.ids and part.start == len(held)
        rows = []
        for index in part.ids:
            held.append(int(index))
            rows.append(logits_after(held, self.vocab_size))
        assert len(held) <= self.window
        return {"none": None, "last": np.stack(rows[-1:]), "every": np.stack(rows)}[part.wanted]

    def forget(self, slot, start):
        assert start >= 0
        del self.held[slot][start:]

    def close(self):
        pass


def logits_after(ids, vocab_size=40):
    """(V,) float32, alike for the same ids in the same order."""
    seed = zlib.crc32(np.array(ids, np.int32).tobytes())
    return np.random.default_rng(seed).normal(size=vocab_size, scale=2).astype(np.float32)


def answer_of(prompt, count, stops=(), vocab_size=40):
    """What a greedy answer must be."""
    ids = list(prompt)
    for _ in range(count):
        index = int(logits_after(ids, vocab_size).argmax())
        if index in stops:
            break
        ids.append(index)
    return ids[len(prompt) :]
