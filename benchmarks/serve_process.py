"""`rinsho serve` as a process of its own, and questions to it whose ids are timed as they come."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

START_SECONDS = 120
_URL = re.compile(r"answers at http://127\.0\.0\.1:(\d+)")


class Server:
    """A running server; use as a context manager, `stop` gives its exit code.

    Args:
        model: a model folder or a GGUF file.
        log: what the server writes is kept there.
        options: of `rinsho serve`, beside the port.
        threads: of the model.
    """

    def __init__(self, model: Path, log: Path, *options: str, threads: int = 2) -> None:
        self.log = log
        words = [sys.executable, "-m", "rinsho", "serve", str(model), "--port", "0", *options]
        with log.open("wb") as out:
            self.process = subprocess.Popen(
                words, stdout=out, stderr=subprocess.STDOUT, env={**os.environ, "OMP_NUM_THREADS": str(threads)}
            )
        self.port = self._wait()

    @property
    def pid(self) -> int:
        return self.process.pid

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self, seconds: float = 60) -> int:
        """Tells it to stop, as a service manager does; the exit code."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise

    def get(self, route: str) -> str:
        """The body of a GET."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{route}", timeout=60) as reply:
            return str(reply.read().decode())

    def _wait(self) -> int:
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end and self.process.poll() is None:
            if found := _URL.search(self.log.read_text(encoding="utf-8", errors="replace")):
                return int(found[1])
            time.sleep(0.05)
        self.process.kill()
        raise RuntimeError(f"the server did not start: {self.log.read_text(encoding='utf-8', errors='replace')[-500:]}")


@dataclass(frozen=True)
class Timed:
    """A streamed answer: when it was asked for, when pieces of it came, tokens of prompt and answer."""

    asked: float
    stamps: list[float]
    prompt: int
    tokens: int

    @property
    def first(self) -> float:
        """Seconds to the first piece."""
        return self.stamps[0] - self.asked

    @property
    def seconds(self) -> float:
        """Seconds to the last."""
        return self.stamps[-1] - self.asked

    @property
    def rate(self) -> float:
        """Tokens a second behind the first piece, which is taken as one token."""
        return (self.tokens - 1) / (self.stamps[-1] - self.stamps[0])


class Client:
    """One connection that is kept, as a client program has it."""

    def __init__(self, port: int) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)

    def answer(self, prompt: str | Sequence[int], count: int) -> dict[str, Any]:
        """An answer in one piece."""
        reply = self._ask({"prompt": prompt, "max_tokens": count, "temperature": 0})
        return dict(json.loads(reply.read()))

    def stream(self, prompt: str | Sequence[int], count: int) -> Timed:
        """A streamed answer; its events are read while it is written and looked at afterwards."""
        asked = time.perf_counter()
        wanted = {"stream": True, "stream_options": {"include_usage": True}}
        reply = self._ask({"prompt": prompt, "max_tokens": count, "temperature": 0, **wanted})
        lines = []
        while line := reply.readline():
            lines.append((time.perf_counter(), line))
        events = [(when, json.loads(line[6:])) for when, line in lines if line.startswith(b"data: {")]
        stamps = [when for when, event in events if any(choice["text"] for choice in event["choices"])]
        usage = next(event["usage"] for _, event in reversed(events) if event.get("usage"))
        return Timed(asked, stamps, usage["prompt_tokens"], usage["completion_tokens"])

    def _ask(self, body: dict[str, Any]) -> http.client.HTTPResponse:
        headers = {"Content-Type": "application/json"}
        self.connection.request("POST", "/v1/completions", json.dumps(body), headers)
        reply = self.connection.getresponse()
        if reply.status != 200:
            raise RuntimeError(f"status {reply.status}: {reply.read()[:300]!r}")
        return reply
