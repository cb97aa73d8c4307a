"""Servers for tests: one inside the test's process with a model whose every word is known, one as a real process."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from rinsho.chat import END, TEMPLATE
from rinsho.generate.opening import Opened
from rinsho.serve import ServeOptions
from rinsho.serve.app import make_app
from rinsho.serve.process import _Server, make_config, make_service
from rinsho.serve.security import Key, Names
from toy_models import toy_tokenizer

ROOT = Path(__file__).resolve().parents[2]
WORDS = ("肺癌", "発熱", "咳嗽", "急性")  # each is followed by the next one, whatever else by the first


class ScriptedDecoder:
    """Says 肺癌発熱咳嗽急性, then ends; or says it for ever. Counts what it is asked and can be slow or fail."""

    def __init__(self, slots: int = 2, window: int = 256, delay: float = 0.0, endless: bool = False) -> None:
        self.tokenizer = toy_tokenizer()
        self.tokenizer.chat_template = TEMPLATE
        self.slots, self.window, self.batch_tokens, self.vocab_size = slots, window, 64, len(self.tokenizer)
        self.delay, self.steps, self.most_parts, self.closed = delay, 0, 0, False
        self.fail: BaseException | None = None
        ids = [self.tokenizer.convert_tokens_to_ids(word) for word in WORDS]
        end = ids[0] if endless else self.tokenizer.convert_tokens_to_ids(END)
        self.next = dict(zip(ids, [*ids[1:], end], strict=True))
        self.first = ids[0]

    def feed(self, parts: Sequence[Any]) -> list[Any]:
        self.steps += 1
        self.most_parts = max(self.most_parts, len(parts))
        time.sleep(self.delay)
        if self.fail is not None:
            raise self.fail
        return [None if part.wanted == "none" else self._logits(part) for part in parts]

    def _logits(self, part: Any) -> np.ndarray:
        ids = part.ids if part.wanted == "every" else part.ids[-1:]
        table = np.zeros((len(ids), self.vocab_size), np.float32)
        for row, index in enumerate(ids):
            table[row, self.next.get(index, self.first)] = 20.0
        return table

    def forget(self, slot: int, start: int) -> None:
        pass

    def close(self) -> None:
        self.closed = True


def scripted(**settings: Any) -> Opened:
    decoder = ScriptedDecoder(**settings)
    return Opened(decoder, decoder.tokenizer, Path("toy"), "transformers", {}, "toy", "float32")


class Inside:
    """A server in a thread of this process; use as a context manager. `lines` are what it would log."""

    def __init__(self, opened: Opened | None = None, key: str | None = None, names: Sequence[str] = (), **options: Any):
        self.opened = opened or scripted()
        self.options = ServeOptions(**options)
        self.lines: list[str] = []
        self._key, self._names = Key(key), Names(names, loopback=True)
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)
        self._ready = threading.Event()

    async def _serve(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._end = asyncio.Event()
        self.service = make_service(self.opened, self.options, failed=self._end.set)
        self.engine = self.service.engine
        self.engine.start()
        server = _Server(make_config(make_app(self.service, self._key, self._names, self.lines.append), self.options))
        with socket.socket(proto=socket.IPPROTO_TCP) as listener:  # else asyncio leaves Nagle on
            listener.bind(("127.0.0.1", 0))
            self.port = listener.getsockname()[1]
            self.url = f"http://127.0.0.1:{self.port}"
            serving = asyncio.create_task(server.serve([listener]))
            while not server.started:
                await asyncio.sleep(0.002)
            self._ready.set()
            await self._end.wait()
            await self.engine.stop(0 if self.engine.broken else self.options.stop_seconds)
            server.should_exit = True
            await serving
        self.engine.close()
        self.service.close()

    def __enter__(self) -> Inside:
        self._thread.start()
        assert self._ready.wait(20)
        self.http = httpx.Client(base_url=self.url, timeout=20, trust_env=False)
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()
        self.stop()
        self._thread.join(20)
        assert not self._thread.is_alive()

    def stop(self) -> None:
        with contextlib.suppress(RuntimeError):  # it has ended already
            self.loop.call_soon_threadsafe(self._end.set)

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=10)

    def idle(self, seconds: float = 5.0) -> bool:
        """Whether soon nothing runs or waits."""
        return until(lambda: not self.engine.running and not self.engine.waiting, seconds)


class Process:
    """`rinsho serve` in a process of its own: of a model folder, or of a scripted model with these settings."""

    def __init__(self, model: Path | dict[str, Any], environment: dict[str, str] | None = None, **options: Any) -> None:
        given = {"port": 0, **options}
        lines = ["import sys; from pathlib import Path, PosixPath; from rinsho.errors import UserError"]
        if isinstance(model, dict):
            lines += [
                "import rinsho.serve.process as process; from serve.toy_server import scripted",
                f"process.open_model = lambda *_, **__: scripted(**{model!r}); process.settle = lambda *_: str()",
            ]
        lines += [
            "from rinsho.serve import ServeOptions, serve",
            f"try: serve(Path({str(model)!r}), ServeOptions(**{given!r}))",
            "except UserError as error: sys.exit(f'rinsho: {error}')",
        ]
        code = "\n".join(lines)
        paths = os.environ | {"PYTHONPATH": f"{ROOT}/src:{ROOT}/tests", "OMP_NUM_THREADS": "1"} | (environment or {})
        self.process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True, env=paths)
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        self.lines += iter(self.process.stderr.readline, "")  # as they come

    def __enter__(self) -> Process:
        assert until(lambda: self.url is not None or self.process.poll() is not None, 60), self.lines
        assert self.process.poll() is None, self.lines
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.wait()

    @property
    def url(self) -> str | None:
        found = [re.search(r"answers at (\S+);", line) for line in list(self.lines)]
        return next((match[1] for match in found if match), None)

    def signal(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    def wait(self, seconds: float = 30) -> int:
        code = self.process.wait(seconds)
        self._reader.join(10)
        return code


def until(happened: Any, seconds: float = 5.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if happened():
            return True
        time.sleep(0.005)
    return bool(happened())


def question(text: str = "発熱", **fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], **fields}


def head(path: str, *, length: int | None = None, more: str = "") -> bytes:
    """The head of a raw POST."""
    size = "" if length is None else f"content-length: {length}\r\n"
    return f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n{size}{more}\r\n".encode()
