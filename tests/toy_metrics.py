"""Invented metrics.jsonl of the form that pre-training writes: two sources, one of them Japanese, and a spike."""

import fcntl
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def lines(steps: int = 120, every: int = 2) -> list[dict]:
    made: list[dict] = []
    for step in range(every, steps + 1, every):
        at = {"step": step, "seen_tokens": step * 2048}
        loss = 2 + 7 * math.exp(-step / 9)
        figures = {"grad_norm": 0.5 + 1 / step, "learning_rate": 1e-3 * (1 - step / steps), "tokens_per_second": 3000.5}
        made.append({**at, "loss": loss, **figures, "mfu": None if step < 9 else 0.41, "memory_gib": 1.25})
        if step == 60:
            made.append({**at, "spike": "grad_norm", "action": "skip", "documents": 7})
        if step % 20 == 0:
            parts = {
                name: {"loss": loss + add, "bits_per_character": (loss + add) * 0.8, "tokens": 900 + step}
                for name, add in (("web", -0.1), ("病院<記録>", 0.2))
            }
            made.append(
                {**at, "validation_loss": loss, "validation_bits_per_character": loss * 0.8, "validation": parts}
            )
    return made


LINES = lines()


def write_run(folder: Path, rows: list, done: bool = False) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    if done:
        finish(folder)
    return folder


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """As a run does while it works in its folder."""
    with (folder / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


def finish(folder: Path) -> None:
    (folder / "DONE").write_text(json.dumps({"identity": "x", "products": {}}))
