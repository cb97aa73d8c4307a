"""A chat endpoint on the loopback address that answers by rule, well or badly, and remembers what it was asked."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Endpoint:
    """Use as a context manager. `reply(text, attempt)` gives the answer's text or a dictionary that says what to do:

    `status`, `headers`, `content`, `message`, `finish_reason`, `body` (raw bytes), `cut` (promise more bytes than are
    sent), `close` (say nothing), `wait` (seconds before the answer).
    """

    def __init__(self, reply: Callable[[str, int], Any], delay: float = 0.0) -> None:
        self.reply, self.delay = reply, delay
        self.asked: Counter[str] = Counter()  # last turn's text -> requests
        self.answered: Counter[str] = Counter()  # last turn's text -> good answers sent
        self.bodies: list[dict[str, Any]] = []
        self.keys: set[str | None] = set()
        self.times: list[float] = []
        self.under_way = self.most_under_way = 0
        self._lock = threading.Lock()

    def __enter__(self) -> Endpoint:
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/v1"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    def take(self, body: dict[str, Any], key: str | None) -> tuple[str, Any]:
        text = body["messages"][-1]["content"]
        with self._lock:
            self.asked[text] += 1
            attempt = self.asked[text]
            self.bodies.append(body)
            self.keys.add(key)
            self.times.append(time.monotonic())
            self.under_way += 1
            self.most_under_way = max(self.most_under_way, self.under_way)
        said = self.reply(text, attempt)
        time.sleep(self.delay + (said.get("wait", 0) if isinstance(said, dict) else 0))
        with self._lock:  # before the answer goes out: its receiver may ask again at once
            self.under_way -= 1
        return text, said

    def done(self, text: str, good: bool) -> None:
        with self._lock:
            self.answered[text] += good


def chat(content: Any, finish_reason: str = "stop", **message: Any) -> bytes:
    """The body of a good answer."""
    choice = {"message": {"role": "assistant", "content": content, **message}, "finish_reason": finish_reason}
    return json.dumps({"choices": [choice], "usage": {"prompt_tokens": 11, "completion_tokens": 2}}).encode()


def _handler(endpoint: Endpoint) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            text, said = endpoint.take(body, self.headers.get("Authorization"))
            good = False
            try:
                good = self._answer(said if isinstance(said, dict) else {"content": said})
            except OSError:  # the client has gone
                self.close_connection = True
            finally:
                endpoint.done(text, good)

        def _answer(self, said: dict[str, Any]) -> bool:
            if said.get("close"):
                self.close_connection = True
                return False
            body = said.get("body") or chat(
                said.get("content"), said.get("finish_reason", "stop"), **said.get("message", {})
            )
            self.send_response(said.get("status", 200))
            for name, value in said.get("headers", {}).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body) + (100 if said.get("cut") else 0)))
            self.end_headers()
            self.wfile.write(body)
            self.wfile.flush()
            self.close_connection = bool(said.get("cut"))
            return said.get("status", 200) == 200 and not said.get("cut") and not said.get("body")

        def log_message(self, *_: Any) -> None:
            pass

    return Handler
