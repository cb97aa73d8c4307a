"""The other side of the pre-training comparisons: transformers' `Trainer` on the same model, rows and schedule.

Needs `pip install accelerate`. The Trainer is given its best fair settings: rows are tensors in memory already, nothing
is logged, saved, evaluated or checked for nan in the timed part, the optimizer is torch's fused AdamW with the same
groups, the learning rates are the same numbers, and the loss is summed over the labels of the whole step
(`num_items_in_batch`). `position_ids` are given, so that documents in a row do not see each other on either side.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch

BETAS, EPS, WEIGHT_DECAY, CLIP = (0.9, 0.95), 1e-8, 0.1, 1.0


class Mark(NamedTuple):
    """The end of a step.

    Attributes:
        wall: seconds since the start, by the clock.
        processor: the same of this process's processors.
        loss: nats a token.
        update: seconds of the optimizer, where they were measured.
    """

    wall: float
    processor: float
    loss: float
    update: float = 0.0


class Rows:
    """Packed rows in memory, taken one after another and again from the beginning.

    It stands in for the row source and the row order of rinsho's loop, and is the Trainer's data set.
    """

    def __init__(self, batch: Any) -> None:
        self.arrays = tuple(np.ascontiguousarray(array) for array in batch)
        self.tensors = tuple(torch.from_numpy(array) for array in self.arrays)

    def __len__(self) -> int:
        return len(self.arrays[0])

    rows_per_pass = property(__len__)

    def take(self, position: int, count: int) -> np.ndarray:
        return np.arange(position, position + count) % len(self)

    def batch(self, numbers: Any) -> Any:
        from rinsho.tokens import Batch

        return Batch(*(array[np.asarray(numbers)] for array in self.arrays))

    def __getitem__(self, number: int) -> dict[str, torch.Tensor]:
        ids, positions, labels = (tensor[number] for tensor in self.tensors)
        return {"input_ids": ids, "position_ids": positions, "labels": labels, "shift_labels": labels}


def synthetic_rows(rows: int, length: int, vocab_size: int, *, bounded: bool = True, seed: int = 1) -> Rows:
    """Random tokens, frequent ones more often (Zipf), in documents of lengths as in real text, cut into rows.

    Lengths are log-normal with a median of 200 and a mean of 700 tokens. Every place is predicted; with `bounded`
    positions begin anew with every document.
    """
    draw = np.random.default_rng(seed)
    size = rows * length
    lengths = np.clip(draw.lognormal(np.log(200), 1.58, size // 4), 8, 20_000).astype(np.int64)
    begins = np.zeros(size + 1, bool)
    ends = lengths.cumsum()
    begins[np.concatenate([np.zeros(1, np.int64), ends[ends < size]])] = True
    ids = np.minimum(np.exp(draw.random(size + 1) * np.log(vocab_size)), vocab_size - 1).astype(np.int64)
    # The last token of a document is predicted and never an input: the one that follows in the stream is another's.
    last = np.minimum(np.exp(draw.random(size) * np.log(vocab_size)), vocab_size - 1).astype(np.int64)
    labels = np.where(begins[1:], last, ids[1:]) if bounded else ids[1:]
    begins[:-1][::length] = True
    places = np.arange(size)
    starts = np.maximum.accumulate(np.where(begins[:-1], places, 0)) if bounded else places // length * length
    return Rows(array.reshape(rows, length) for array in (ids[:-1], places - starts, labels))


def trainer_steps(
    model: Any,
    rows: Rows,
    *,
    part: int,
    parts: int,
    device: str,
    bf16: bool,
    learning_rate: float,
    factor: Callable[[int], float],
    stop: Callable[[list[Mark]], bool],
    workers: int = 0,
    compile: bool = False,
) -> list[Mark]:
    """The steps of the Trainer, each of `parts` parts of `part` rows, until `stop` says so."""
    import transformers
    from torch.utils.data import SequentialSampler

    transformers.logging.set_verbosity_error()
    marks: list[Mark] = []
    losses: list[torch.Tensor] = []
    start, updating, update = (0.0, 0.0), 0.0, 0.0

    def wait() -> float:
        if device == "cuda":
            torch.cuda.synchronize()
        return time.monotonic()

    class Peer(transformers.Trainer):
        def _get_train_sampler(self, *_args: Any, **_rest: Any) -> Any:
            return SequentialSampler(rows)  # type: ignore[arg-type]

        def training_step(self, *args: Any, **rest: Any) -> torch.Tensor:
            loss = super().training_step(*args, **rest)
            losses.append(loss.detach())
            return loss

    class Clock(transformers.TrainerCallback):
        def on_train_begin(self, *_args: Any, **_rest: Any) -> None:
            nonlocal start
            start = (time.monotonic(), time.process_time())

        def on_pre_optimizer_step(self, *_args: Any, **_rest: Any) -> None:
            nonlocal updating
            updating = wait()

        def on_optimizer_step(self, *_args: Any, **_rest: Any) -> None:
            nonlocal update
            update = wait() - updating

        def on_step_end(self, _args: Any, _state: Any, control: Any, **_rest: Any) -> None:
            loss = float(sum(losses))
            losses.clear()
            marks.append(Mark(wait() - start[0], time.process_time() - start[1], loss, update))
            control.should_training_stop = stop(marks)

    matrices = [parameter for parameter in model.parameters() if parameter.ndim >= 2]
    gains = [parameter for parameter in model.parameters() if parameter.ndim < 2]
    groups = [{"params": matrices, "weight_decay": WEIGHT_DECAY}, {"params": gains, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=learning_rate, betas=BETAS, eps=EPS, fused=True)
    with tempfile.TemporaryDirectory() as folder:
        arguments = transformers.TrainingArguments(
            output_dir=folder,
            max_steps=10**6,
            per_device_train_batch_size=part,
            gradient_accumulation_steps=parts,
            max_grad_norm=CLIP,
            bf16=bf16,
            use_cpu=device == "cpu",
            torch_compile=compile,
            logging_strategy="no",
            logging_nan_inf_filter=False,
            save_strategy="no",
            eval_strategy="no",
            report_to="none",
            disable_tqdm=True,
            remove_unused_columns=False,
            dataloader_num_workers=workers,
            dataloader_pin_memory=device == "cuda",
            dataloader_drop_last=True,
        )
        peer = Peer(
            model=model,
            args=arguments,
            train_dataset=rows,
            data_collator=lambda items: {key: torch.stack([item[key] for item in items]) for key in items[0]},
            optimizers=(optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, factor)),
            callbacks=[Clock()],
        )
        peer.remove_callback(transformers.PrinterCallback)
        peer.train()
    return marks
