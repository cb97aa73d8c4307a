"""A stand-in tokenizer, a small corpus and settings; run as a script it is one `pretrain.run` that gets killed.

    python toy_pretraining.py FOLDER OUT KILL_AT...

KILL_AT is `encode`, `step:N` (just after step N), `save:N` (while checkpoint N is being written) or `publish`.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
from pathlib import Path
from typing import Any

from rinsho.document import Document, write_documents
from rinsho.pretrain import Recipe

MODEL = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "max_position_embeddings": 64}
SETTINGS: dict[str, Any] = {
    "model": {**MODEL, "residual_dropout": 0.1},
    "sequence_length": 32,
    "batch_tokens": 128,
    "micro_batch_rows": 2,
    "max_tokens": 128 * 12,
    "learning_rate": 1e-2,
    "optimizer": "muon",
    "warmup_steps": 2,
    "save_every_steps": 3,
    "log_every_steps": 1,
    "validation_every_steps": 5,
    "validation_fraction": 0.1,
    "copy_fraction": 0.3,
    "keep_tokens": True,
    "threads": 1,
    "workers": 1,
    "dtype": "fp32",
    "device": "cpu",
    "plot": False,
}


class Letters:
    """One id a character; saves itself as a file."""

    bos_token_id, eos_token_id, newline_id = 1, 2, 3

    def __len__(self) -> int:
        return 64

    def encode_text(self, text: str) -> list[int]:
        return [4 + ord(letter) % 60 for letter in text]

    def save_pretrained(self, folder: Path) -> None:
        (Path(folder) / "tokenizer.json").write_text("{}")


def toy_inputs(folder: Path) -> list[Path]:
    """A tokenizer folder and a corpus folder of two shards."""
    tokenizer, corpus = folder / "tokenizer", folder / "corpus"
    if not corpus.exists():
        tokenizer.mkdir(parents=True)
        (tokenizer / "tokenizer.json").write_text("{}")
        (corpus / "shards").mkdir(parents=True)
        draw = random.Random(0)
        for number in range(2):
            words = ["発熱", "咳嗽", "なし", "あり", "肺癌の疑い", "。", "患者は"]
            texts = ["".join(draw.choices(words, k=draw.randint(2, 20))) for _ in range(60)]
            with (corpus / "shards" / f"{number}.jsonl.zst").open("wb") as file:
                write_documents(file, [Document(text, f"{number}-{place}") for place, text in enumerate(texts)])
    return [tokenizer, corpus]


def stand_in() -> None:
    """From here on the stage uses the stand-in tokenizer."""
    import rinsho.pretrain.work as stage

    stage.load_tokenizer = lambda folder: (Letters(), "letters")  # type: ignore[assignment]


def kill_at(moment: str) -> None:
    """Arranges that this process kills itself at a named moment."""
    import rinsho.checkpoint
    import rinsho.token_pieces
    from rinsho.pretrain import loop, work

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    name, _, number = moment.partition(":")
    if name == "encode":
        real_shard = rinsho.token_pieces.encode_shard

        def shard(job: Any, count: Any) -> Any:
            if job.piece.name == "00001":
                job.piece.with_name(f".{job.piece.name}.aside").mkdir()
                die()
            return real_shard(job, count)

        rinsho.token_pieces.encode_shard = shard
    elif name == "step":
        real_step = loop.Trainer.step

        def step(trainer: Any) -> float:
            norm = real_step(trainer)
            if trainer.at.step == int(number):
                die()
            return norm

        loop.Trainer.step = step  # type: ignore[method-assign]
    elif name == "save":
        real_seal = rinsho.checkpoint._seal
        rinsho.checkpoint._seal = lambda record: die() if record["step"] == int(number) else real_seal(record)  # type: ignore
    else:
        work.publish_folder = lambda *_: die()  # type: ignore[assignment]


def run_once(folder: Path, out: Path, **changes: Any) -> dict[str, str]:
    """The products' hashes of one run, or of what is left of an interrupted one."""
    from rinsho.pretrain import run
    from rinsho.run import read_done

    run(Recipe.model_validate({**SETTINGS, **changes}), toy_inputs(folder), out)
    done = read_done(out)
    return {name: row["hash"] for name, row in done["products"].items()} if done else {}


def train(folder: str, out: str, kill: str = "", **changes: Any) -> dict[str, str]:
    """One run, which may be one of several processes (see tests/two_processes.py); the products as `run_once`."""
    from rinsho.distributed import world

    stand_in()
    if kill and world().main:
        kill_at(kill)
    return run_once(Path(folder), Path(out), **changes)


def main(folder: Path, out: Path, moments: list[str]) -> None:
    """The same run again and again, killed at each moment in turn, then to its end."""
    stand_in()
    for moment in moments:
        child = os.fork()  # nothing has run here yet, so there are no threads to lose
        if child == 0:
            kill_at(moment)
            run_once(folder, out)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status), f"was not killed at {moment}"
    print(json.dumps(run_once(folder, out)))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
