"""An export against its source: both are fed the same ids, and their logits are compared.

Source: M-6, neither 4.
"""

from __future__ import annotations

import difflib
import json
import math
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rinsho.errors import UserError

SCRIPT = Path(__file__).with_name("runtime_check.py")
ROWS = 256  # positions compared at a time
Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Agreement:
    """How far the logits of an export are from its source's, over all positions of all prompts."""

    positions: int
    top1: float  # share with the same most probable token
    mean_kl: float  # Kullback-Leibler divergence of the next token from the source's, nats
    largest_kl: float
    largest_difference: float  # of a logit

    def __str__(self) -> str:
        return (
            f"first choice equal {self.top1:.2%}, KL mean {self.mean_kl:.1e} largest {self.largest_kl:.1e}, logits"
            f" differ by {self.largest_difference:.1e} at most"
        )

    @property
    def rounded(self) -> dict[str, float]:
        """The figures for files: as many digits as mean something, so that they come out the same again."""
        return {"positions": self.positions, "top1": round(self.top1, 4)} | {
            key: float(f"{value:.2g}") for key, value in asdict(self).items() if key not in {"positions", "top1"}
        }


@dataclass(frozen=True)
class Bound:
    """What an export has to hold."""

    top1: float  # at least
    mean_kl: float  # at most

    def holds(self, found: Agreement) -> bool:
        """Whether it does; figures that are no numbers do not."""
        return found.top1 >= self.top1 and found.mean_kl <= self.mean_kl


# Measured on trained models (docs/export.md), with room of ten times and more in KL; first choices have more, because
# those of a model that has hardly learned anything are close together. A block that is computed wrongly has a mean KL
# of 0.5 and more in a trained model, and first choices that mostly differ in any.
BOUNDS = {
    "float32": Bound(0.99, 1e-6), "bfloat16": Bound(0.90, 2e-3), "float16": Bound(0.97, 2e-5),
    "f16": Bound(0.97, 2e-5), "q8_0": Bound(0.85, 2e-3), "q4_k_m": Bound(0.70, 0.04), "q4_0": Bound(0.60, 0.07),
}  # fmt: skip


def write_logits(model: Any, ids: Iterable[Sequence[int]], path: Path) -> None:
    """The source's logits of every prompt one after another, float32, as `runtime_check` writes the export's."""
    import torch

    with path.open("wb") as file, torch.no_grad():
        for row in ids:
            given = torch.tensor([row], device=model.device)
            model(input_ids=given, use_cache=False).logits[0].float().cpu().numpy().tofile(file)


def in_runtime(request: dict[str, Any], where: Path) -> dict[str, Any]:
    """The reply of `runtime_check` in a fresh interpreter that cannot see this one.

    Raises:
        UserError: the runtime does not open the export, or its process ended.
    """
    done = subprocess.run(
        [sys.executable, "-P", str(SCRIPT)], input=json.dumps(request), capture_output=True, text=True, check=False,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"},
    )  # fmt: skip
    try:
        if done.returncode:
            raise ValueError
        reply: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except (ValueError, IndexError):
        said = [line for line in done.stderr.splitlines() if line.strip()]
        ended = f"signal {-done.returncode}" if done.returncode < 0 else f"exit code {done.returncode}"
        raise UserError(
            f"{request['runtime']} does not run the export ({ended}): {said[-1][:200] if said else 'no message'}",
            where=where.name, expected="a file that its runtime opens", todo="report this with the model's config.json",
        ) from None  # fmt: skip
    return reply


def agreement(source: Path, export: Path, width: int) -> Agreement:
    """Two files of logits compared.

    Args:
        source: float32, the source's.
        export: the same positions.
        width: logits of a position.
    """
    if source.stat().st_size != export.stat().st_size:
        return Agreement(0, 0.0, math.inf, math.inf, math.inf)
    positions, same, total, largest, apart = 0, 0, 0.0, 0.0, 0.0
    for wanted, found in zip(_parts(source, width), _parts(export, width), strict=True):
        if not np.isfinite(found).all():
            return Agreement(0, 0.0, math.inf, math.inf, math.inf)
        ours, theirs = _log_shares(wanted), _log_shares(found)
        divergence = (np.exp(ours) * (ours - theirs)).sum(1)
        same += int((wanted.argmax(1) == found.argmax(1)).sum())
        total += float(divergence.sum())
        largest = max(largest, float(divergence.max()))
        apart = max(apart, float(np.abs(wanted - found).max()))
        positions += len(wanted)
    return Agreement(positions, same / positions, max(total / positions, 0.0), largest, apart)


def must_hold(found: Agreement, form: str, where: str) -> None:
    """Refuses an export outside its bound.

    Raises:
        UserError: with the figures.
    """
    bound = BOUNDS[form]
    if not bound.holds(found):
        raise UserError(
            f"the export does not answer as the model: {found}", where=where,
            expected=f"first choice equal in {bound.top1:.1%} or more, mean KL {bound.mean_kl:g} or less ({form})",
            todo="take a type with more bits; where f16 or float32 fails, report it",
        )  # fmt: skip


@dataclass(frozen=True)
class Spelling:
    """What the tokenizer inside a GGUF makes of texts, against ours."""

    texts: int
    identical: float  # share of texts with the same ids
    equal_ids: float  # share of our ids that stand there too, in order


def spelling(ours: Sequence[Sequence[int]], theirs: Sequence[Sequence[int]]) -> Spelling:
    """Ids of the same texts from two tokenizers compared.

    >>> spelling([[5, 6], [7, 8]], [[5, 6], [7, 9, 9]])
    Spelling(texts=2, identical=0.5, equal_ids=0.75)
    """
    pairs = list(zip(ours, theirs, strict=True))
    same = sum(list(a) == list(b) for a, b in pairs)
    blocks = (difflib.SequenceMatcher(None, a, b, autojunk=False).get_matching_blocks() for a, b in pairs)
    kept = sum(block.size for found in blocks for block in found)
    return Spelling(len(pairs), same / max(len(pairs), 1), kept / max(sum(map(len, ours)), 1))


def _parts(path: Path, width: int) -> Iterator[NDArray[np.float32]]:
    rows = np.memmap(path, np.float32, "r").reshape(-1, width)
    for start in range(0, len(rows), ROWS):
        yield np.asarray(rows[start : start + ROWS])


def _log_shares(logits: NDArray[np.float32]) -> Floats:
    """Logarithm of the softmax of every row, in float64."""
    exact: Floats = logits.astype(np.float64)
    exact -= exact.max(1, keepdims=True)
    exact -= np.log(np.exp(exact).sum(1, keepdims=True))
    return exact
