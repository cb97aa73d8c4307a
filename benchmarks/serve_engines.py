"""What `serve.py` sets beside the server, each in a process of its own that reads and writes ids on command.

    python benchmarks/serve_engines.py llama|rinsho|transformers MODEL --threads 2

`llama`: llama.cpp's own rate, through its C interface and nothing else, as its `llama-bench` reads it (random ids, no
sampling, one call a step). `rinsho`: the same model in `rinsho.generate` (decoder, batcher, greedy choice), without a
server. `transformers`: a folder in bfloat16, its usual cache. A command is a line of JSON on standard input, its answer
one on standard output: {"do": "read", "count": 512}, {"do": "write", "count": 64, "streams": 4, "depth": 16},
{"do": "memory"}. Seconds of `read` are those until the first logits, of `write` those of the steps alone.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

READ_AT_ONCE = 512
SPINS = "10000"  # as the `rinsho` command sets it
LOWEST_ID = 300  # the first ids are special tokens and bytes


class Engine:
    """A child process; `ask` gives its answers. `environment`: what is set in it, None: what is not."""

    def __init__(  # noqa: PLR0917
        self,
        kind: str,
        model: Path,
        threads: int,
        slots: int = 1,
        window: int = 1024,
        environment: Mapping[str, str | None] | None = None,
    ) -> None:
        words = [kind, str(model), "--threads", str(threads), "--slots", str(slots), "--window", str(window)]
        spins = {"GOMP_SPINCOUNT": None if kind == "llama" else SPINS}  # llama.cpp as it comes
        given = {**os.environ, "OMP_NUM_THREADS": str(threads), **(spins if environment is None else environment)}
        self.process = subprocess.Popen(
            [sys.executable, __file__, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={name: value for name, value in given.items() if value is not None},
        )  # fmt: skip
        self._line()  # it is ready

    def ask(self, do: str, **how: int) -> dict[str, Any]:
        """Lets it work."""
        assert self.process.stdin
        self.process.stdin.write(json.dumps({"do": do, **how}) + "\n")
        self.process.stdin.flush()
        return self._line()

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.communicate()

    def _line(self) -> dict[str, Any]:
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit("an engine ended; see above")
        return dict(json.loads(line))


def memory(process: int | str = "self") -> dict[str, float]:
    """Resident memory of a process now and at most, its own and that of mapped files, in MiB."""
    names = {"VmRSS": "now", "VmHWM": "most", "RssAnon": "own", "RssFile": "files"}
    rows = (line.split() for line in Path(f"/proc/{process}/status").read_text().splitlines())
    return {names[row[0][:-1]]: int(row[1]) / 1024 for row in rows if row and row[0][:-1] in names}


def random_ids(count: int, vocab_size: int) -> list[int]:
    """Ids of ordinary pieces; no two calls begin alike, so nothing that was kept helps."""
    return [random.randrange(LOWEST_ID, vocab_size) for _ in range(count)]


# ---- llama.cpp alone


class Llama:
    """llama.cpp as `llama-bench` calls it: a context a test, warmed up first."""

    def __init__(self, given: argparse.Namespace) -> None:
        import llama_cpp

        self.library, self.threads = llama_cpp, given.threads
        self.silent = llama_cpp.llama_log_callback(lambda *_: None)
        llama_cpp.llama_log_set(self.silent, ctypes.c_void_p(0))
        llama_cpp.llama_backend_init()
        settings = llama_cpp.llama_model_default_params()
        self.model = llama_cpp.llama_model_load_from_file(os.fsencode(given.model), settings)
        self.vocab_size = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self.model))
        self.batch = llama_cpp.llama_batch_init(READ_AT_ONCE, 0, 1)

    def read(self, count: int) -> dict[str, float]:
        self._open(1, count)
        self._call([(0, index) for index in random_ids(min(count, READ_AT_ONCE), self.vocab_size)], 0)
        self._clear()
        start = time.perf_counter()
        self._prompt(count, 0)
        return self._closed({"seconds": time.perf_counter() - start})

    def write(self, count: int, streams: int, depth: int) -> dict[str, float]:
        self._open(streams, depth + count + 1)
        for stream in range(streams):
            self._prompt(depth, stream)
        self._call(list(enumerate(random_ids(streams, self.vocab_size))), depth)
        start = time.perf_counter()
        for step in range(count):
            self._call(list(enumerate(random_ids(streams, self.vocab_size))), depth + 1 + step)
        return self._closed({"seconds": time.perf_counter() - start, "tokens": count * streams})

    def _prompt(self, count: int, stream: int) -> None:
        for first in range(0, count, READ_AT_ONCE):
            ids = random_ids(min(READ_AT_ONCE, count - first), self.vocab_size)
            self._call([(stream, index) for index in ids], first, along=True)

    def _call(self, ids: Sequence[tuple[int, int]], position: int, along: bool = False) -> None:
        """One call: (stream, id) at one position, or one stream's ids along the positions, logits after the last."""
        batch = self.batch
        batch.n_tokens = len(ids)
        for place, (stream, index) in enumerate(ids):
            batch.token[place], batch.n_seq_id[place], batch.seq_id[place][0] = index, 1, stream
            batch.pos[place] = position + place if along else position
            batch.logits[place] = not along or place == len(ids) - 1
        if code := self.library.llama_decode(self.context, batch):
            raise SystemExit(f"llama_decode: {code}")
        self.library.llama_synchronize(self.context)

    def _open(self, streams: int, positions: int) -> None:
        settings = self.library.llama_context_default_params()
        settings.n_ctx = streams * -(-positions // 256) * 256
        settings.n_batch = settings.n_ubatch = READ_AT_ONCE
        settings.n_seq_max, settings.kv_unified = streams, False
        settings.n_threads = settings.n_threads_batch = self.threads
        self.context = self.library.llama_init_from_model(self.model, settings)

    def _clear(self) -> None:
        self.library.llama_memory_clear(self.library.llama_get_memory(self.context), True)

    def _closed(self, found: dict[str, float]) -> dict[str, float]:
        self.library.llama_free(self.context)
        return found


# ---- rinsho without a server


class Rinsho:
    """Jobs in a `Batcher` on an opened model."""

    def __init__(self, given: argparse.Namespace) -> None:
        from rinsho.generate.batcher import Batcher
        from rinsho.generate.opening import open_model

        self.opened = open_model(given.model, given.slots, given.window, given.threads)
        self.batcher = Batcher(self.opened.decoder)
        self.vocab_size = min(self.opened.decoder.vocab_size, len(self.opened.pieces.bytes))

    def read(self, count: int) -> dict[str, float]:
        stamps = self._stamps(1, count, 1)
        return {"seconds": stamps[0][1] - stamps[0][0]}

    def write(self, count: int, streams: int, depth: int) -> dict[str, float]:
        """From the moment when all streams have begun to the last id."""
        stamps = self._stamps(streams, depth, count + 2)
        return after_all_began([row[1:] for row in stamps])

    def text(self, texts: Sequence[str], count: int) -> dict[str, Any]:
        """Seconds of each text from characters to the last id, as the server's tokenizer and model take them."""
        from rinsho.generate.jobs import text_job

        seconds = []
        for text in texts:
            start = time.perf_counter()
            self.batcher.run([text_job(self.opened.encode(text), count, ())])
            seconds.append(time.perf_counter() - start)
        return {"seconds": seconds}

    def _stamps(self, streams: int, depth: int, count: int) -> list[list[float]]:
        """When each stream was asked for, and when each of its ids was there."""
        from rinsho.generate.jobs import text_job

        start = time.perf_counter()
        stamps: list[list[float]] = [[start] for _ in range(streams)]

        def job(row: list[float]) -> Any:
            def heard(_index: int, _token: Any) -> bool:
                row.append(time.perf_counter())
                return True

            return text_job(random_ids(depth, self.vocab_size), count, (), on_token=heard)

        self.batcher.run([job(row) for row in stamps])
        return stamps


def after_all_began(stamps: Sequence[Sequence[float]]) -> dict[str, float]:
    """Ids and seconds after every stream had its first."""
    begun = max(row[0] for row in stamps)
    last = max(row[-1] for row in stamps)
    return {"seconds": last - begun, "tokens": sum(stamp > begun for row in stamps for stamp in row)}


# ---- transformers


class Transformers:
    """A folder in bfloat16, the greedy loop of `generate` on its usual cache."""

    def __init__(self, given: argparse.Namespace) -> None:
        import torch
        from transformers import AutoModelForCausalLM

        torch.set_num_threads(given.threads)
        self.torch = torch
        self.model: Any = AutoModelForCausalLM.from_pretrained(given.model, dtype=torch.bfloat16).eval()
        self.vocab_size = self.model.config.vocab_size
        self.read(16)

    def read(self, count: int) -> dict[str, float]:
        return {"seconds": self._run(1, count, 0)[0]}

    def write(self, count: int, streams: int, depth: int) -> dict[str, float]:
        return {"seconds": self._run(streams, depth, count)[1], "tokens": count * streams}

    def _run(self, streams: int, depth: int, count: int) -> tuple[float, float]:
        from transformers import DynamicCache

        cache = DynamicCache(config=self.model.config)
        ids = self.torch.tensor([random_ids(depth, self.vocab_size) for _ in range(streams)])
        stamps = [time.perf_counter()]
        with self.torch.inference_mode():
            for _ in range(count + 2):  # the prompt, one step that does not count, the steps
                logits = self.model(ids, past_key_values=cache, use_cache=True, logits_to_keep=1).logits
                ids = logits[:, -1].argmax(-1, keepdim=True)
                stamps.append(time.perf_counter())
        return stamps[1] - stamps[0], stamps[-1] - stamps[2]


def main() -> None:
    """Answers commands until there are none."""
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=("llama", "rinsho", "transformers"))
    parser.add_argument("model", type=Path)
    for name in ("threads", "slots", "window"):
        parser.add_argument(f"--{name}", type=int, required=True)
    given = parser.parse_args()
    engine: Any = {"llama": Llama, "rinsho": Rinsho, "transformers": Transformers}[given.kind](given)
    print("{}", flush=True)
    for line in sys.stdin:
        how = json.loads(line)
        do = how.pop("do")
        print(json.dumps(memory() if do == "memory" else getattr(engine, do)(**how)), flush=True)


if __name__ == "__main__":
    main()
