"""The measurements of `pretrain_gpu.py`, one function a kind; everything here runs in its worker."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from pretrain_gpu import REPORT_ROWS, REPORT_TOKENS, Case
from pretrain_gpu_kernels import breakdown, kernel_times, peak, wait
from pretrain_peer import BETAS, CLIP, EPS, WEIGHT_DECAY, Rows, synthetic_rows, trainer_steps
from torch import Tensor

PARTS = 4  # micro-batches a step
RATE = 1e-4


@dataclass(frozen=True)
class Sizes:
    """What is trained, and for how long it is timed."""

    device: torch.device
    model: dict[str, Any]
    vocab: int
    length: int
    most_rows: int
    seconds: float
    square: int  # side of the matrices whose product is the measured peak


def whole() -> Sizes:
    """The report's model on the card.

    Raises:
        SystemExit: there is none.
    """
    if not torch.cuda.is_available():
        raise SystemExit("torch sees no graphics card; --dry runs toy sizes on a processor")
    return Sizes(torch.device("cuda", 0), {"preset": "ncvc-slm-1"}, 32_768, 2_048, 64, 6.0, 8_192)


def toy() -> Sizes:
    """Sizes that a processor does in seconds; torch.compile is switched off, since it would take minutes."""
    os.environ["TORCHDYNAMO_DISABLE"] = "1"
    torch._dynamo.config.disable = True
    small = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    return Sizes(torch.device("cpu"), small, 512, 64, 4, 0.3, 256)


def run(case: Case, sizes: Sizes) -> dict[str, Any]:
    """The figures of one case."""
    kinds: dict[str, Callable[[Case, Sizes], dict[str, Any]]] = {
        "peak": lambda case, sizes: peak(settings_of(case, sizes), sizes),
        "rinsho": ours,
        "trainer": theirs,
        "profile": profile,
    }
    return kinds[case.kind](case, sizes)


def clear() -> None:
    """Gives memory back, and forgets compiled code, so that no case sees the shapes of another."""
    torch._dynamo.reset()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def settings_of(case: Case, sizes: Sizes) -> Any:
    from rinsho.model import ModelSettings

    return ModelSettings.model_validate(
        {**sizes.model, "attention_dropout": case.dropout, "residual_dropout": case.dropout}
    )


def new_model(case: Case, sizes: Sizes) -> Any:
    """The model, its weights drawn on the device: a second instead of a minute. They are the same in every case."""
    from rinsho.attention import use_attention
    from rinsho.model import build
    from rinsho.modeling import RinshoForCausalLM, initial_std

    config = build(settings_of(case, sizes), sizes.vocab, 1, device="meta").config
    config.residual_bf16 = case.residual_bf16
    with sizes.device:
        model = RinshoForCausalLM(config)
    draw = torch.Generator(sizes.device).manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            std = initial_std(name, config)
            _ = parameter.fill_(1.0) if std is None else parameter.normal_(0.0, std, generator=draw)
    use_attention(model, case.attention, sizes.device)
    return model.train()


def rows_of(case: Case, sizes: Sizes) -> Rows:
    return synthetic_rows(max(2 * PARTS * case.part, 64), sizes.length, sizes.vocab, bounded=case.bounded)


def low_precision(sizes: Sizes) -> bool:
    from rinsho.device import has_fast_bfloat16

    return has_fast_bfloat16(sizes.device.type)


class Step(NamedTuple):
    """Seconds of a step's forward and backward passes and of its update, and its loss in nats a token."""

    passes: float
    update: float
    loss: float


class Loop:
    """The steps of `rinsho.pretrain.loop`, without checkpoints, metrics and the watch over spikes."""

    def __init__(self, case: Case, sizes: Sizes) -> None:
        from rinsho.distributed import parallelise
        from rinsho.optim import make_optimizer

        model = new_model(case, sizes)
        self.module = parallelise(
            model,
            sizes.device,
            parallelism="ddp",
            compile=case.compile,
            activation_checkpointing=case.checkpointing,
            fp8=case.fp8,
            chunk_tokens=case.chunk_tokens,
        )
        self.optimizer = make_optimizer(
            model.named_parameters(),
            case.optimizer,  # type: ignore[arg-type]
            learning_rate=RATE,
            betas=BETAS,
            eps=EPS,
            weight_decay=WEIGHT_DECAY,
        )
        self.case, self.device, self.rows = case, sizes.device, rows_of(case, sizes)
        self.low = low_precision(sizes)
        self.at = 0

    def step(self) -> Step:
        started = time.perf_counter()
        count = PARTS * self.case.part
        arrays = [tensor[self.rows.take(self.at, count)] for tensor in self.rows.tensors]
        self.at += count
        targets = arrays[2].numel()
        total = torch.zeros((), device=self.device)
        for start in range(0, count, self.case.part):
            with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.low):
                batch = (array[start : start + self.case.part].to(self.device, non_blocking=True) for array in arrays)
                loss: Tensor = self.module(*batch) / targets
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        mean = float(total)  # waits for the card, as the loop does
        between = time.perf_counter()
        self.optimizer.clip(CLIP)
        self.optimizer.step(1.0)
        wait(self.device)
        return Step(between - started, time.perf_counter() - between, mean)


@contextmanager
def as_wanted(case: Case) -> Iterator[None]:
    from rinsho.device import reproducible

    if case.deterministic:
        with reproducible(None):
            yield
    else:
        yield


def ours(case: Case, sizes: Sizes) -> dict[str, Any]:
    with as_wanted(case):
        loop = Loop(case, sizes)
        started = time.perf_counter()
        first = loop.step()
        loop.step()
        compiled = time.perf_counter() - started
        steps: list[Step] = []
        while len(steps) < 2 or sum(step.passes + step.update for step in steps) < sizes.seconds:
            steps.append(loop.step())
    passes, update = (sum(column) / len(steps) for column in list(zip(*steps, strict=True))[:2])
    # The two steps that compile take the time of a step, too.
    return figures(case, sizes, Step(passes, update, first.loss), max(0.0, compiled - 2 * (passes + update)))


def theirs(case: Case, sizes: Sizes) -> dict[str, Any]:
    rows, started = rows_of(case, sizes), time.perf_counter()
    marks = trainer_steps(
        new_model(case, sizes),
        rows,
        part=case.part,
        parts=PARTS,
        device=sizes.device.type,
        bf16=low_precision(sizes),
        learning_rate=RATE,
        factor=lambda _: 1.0,
        stop=lambda marks: len(marks) >= 4 and marks[-1].wall - marks[1].wall >= sizes.seconds,
        compile=case.compile and sizes.device.type == "cuda",
    )
    step = (marks[-1].wall - marks[1].wall) / (len(marks) - 2)
    update = sum(mark.update for mark in marks[2:]) / (len(marks) - 2)
    compiled = max(0.0, time.perf_counter() - started - len(marks) * step)
    return figures(case, sizes, Step(step - update, update, marks[0].loss), compiled)


def figures(case: Case, sizes: Sizes, step: Step, compile_seconds: float) -> dict[str, Any]:
    """Speeds from the mean seconds of a step of PARTS parts; its loss is that of the first step."""
    from rinsho.hardware import peak_flops
    from rinsho.sizing import flops_per_token

    on_card = sizes.device.type == "cuda"
    rate = PARTS * case.part * sizes.length / (step.passes + step.update)
    part = step.passes / PARTS
    report_rate = REPORT_ROWS * sizes.length / (REPORT_ROWS / case.part * part + step.update)
    top = peak_flops(torch.cuda.get_device_name(sizes.device) if on_card else "cpu")
    flops = flops_per_token(settings_of(case, sizes), sizes.vocab, sizes.length)
    return {
        "tokens_per_second": rate,
        "report_rate": report_rate,
        "mfu": report_rate * flops.total / top if top else None,
        "mfu_causal": report_rate * flops.causal / top if top else None,
        "peak_gib": torch.cuda.max_memory_allocated() / 2**30 if on_card else 0.0,
        "days": REPORT_TOKENS / report_rate / 86_400,
        "part_seconds": part,
        "update_seconds": step.update,
        "first_loss": step.loss,
        "compile_seconds": compile_seconds,
    }


def profile(case: Case, sizes: Sizes) -> dict[str, Any]:
    """Kernel times of one step by part and by kernel."""
    from rinsho.sizing import flops_per_token

    loop = Loop(case, sizes)
    for _ in range(3):
        loop.step()
    on_card = sizes.device.type == "cuda"
    kind = torch.profiler.ProfilerActivity.CUDA if on_card else torch.profiler.ProfilerActivity.CPU
    plain = loop.step()
    with torch.profiler.profile(activities=[kind]) as profiler:
        loop.step()
    tokens = PARTS * case.part * sizes.length
    flops = tokens * flops_per_token(settings_of(case, sizes), sizes.vocab, sizes.length).matrices
    return breakdown(kernel_times(profiler, on_card), plain.passes + plain.update, flops)
