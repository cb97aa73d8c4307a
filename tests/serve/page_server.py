"""A stand-in for the server behind the page: the same routes and forms, with answers that a test chooses.

The page's files are the real ones, under the same content security policy and stricter. Used where a real model would
have to be made to say something: known or hostile answers, errors, a stream that never ends.
"""

from __future__ import annotations

import json
import mimetypes
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

PAGE = Path(__file__).resolve().parents[2] / "src" / "rinsho" / "serve" / "page"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
)
ABOUT = {
    "name": "toy", "runtime": "transformers", "form": "float32", "window": 2048, "chat": True, "parameters": 15_000_000,
    "kinds": ["disease", "medicine", "value"], "notice": "",
}  # fmt: skip


class PageServer:
    """Use as a context manager. `answers`: route -> what to do with the body of a request.

    The value is a function of the body; what it gives is sent as JSON, `(status, headers, object)` with that status,
    and an iterator as an event stream, one object an event.
    """

    def __init__(
        self, answers: dict[str, Callable[[dict[str, Any]], Any]], about: dict[str, Any] | None = None
    ) -> None:
        self.answers, self.about = answers, ABOUT | (about or {})
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.left = threading.Event()  # a reader of a stream has gone

    def __enter__(self) -> PageServer:
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()


def spoken(pieces: Iterable[str], finish: str = "stop", pause: float = 0.0) -> Iterator[dict[str, Any]]:
    """The events of a streamed answer."""
    yield {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}]}
    count = 0
    for piece in pieces:
        time.sleep(pause)
        count += 1
        yield {"choices": [{"index": 0, "delta": {"content": piece}, "finish_reason": None}]}
    yield {"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]}
    yield {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": count, "total_tokens": 9 + count}}


def found(text: str, *entities: tuple[str, str, float | None]) -> dict[str, Any]:
    """An extraction: `(kind, words, probability)` at every place of the words, in code points."""
    rows = []
    for kind, words, probability in entities:
        start = text.find(words)
        while start >= 0:
            rows.append(
                {"kind": kind, "text": words, "start": start, "end": start + len(words), "probability": probability,
                 "unsure": probability is not None and probability < 0.5, "source": "rule" if probability is None else "model"}
            )  # fmt: skip
            start = text.find(words, start + len(words))
    rows.sort(key=lambda row: row["start"])
    return {"object": "extraction", "model": "toy", "threshold": 0.5, "entities": rows}


def refused(status: int, message: str, code: str | None = None, **headers: str) -> tuple[int, dict[str, str], Any]:
    """An error in the form of all routes."""
    return status, headers, {"error": {"message": message, "type": "error", "code": code, "param": None}}


def _handler(toy: PageServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/v1/about":
                return self.answer(200, {}, toy.about)
            name = "index.html" if self.path == "/" else self.path.removeprefix("/static/")
            path = PAGE / name
            if not path.is_file():
                return self.answer(*refused(404, "no such page"))
            headers = {"Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff"}
            return self.send(200, headers | {"Content-Type": mimetypes.guess_type(name)[0] or ""}, path.read_bytes())

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            route = self.path.removeprefix("/v1/")
            toy.asked.append((route, body))
            said = toy.answers[route](body) if route in toy.answers else refused(404, "no such route")
            if isinstance(said, tuple):
                return self.answer(*said)
            return self.answer(200, {}, said) if isinstance(said, dict) else self.stream(said)

        def answer(self, status: int, headers: dict[str, str], body: Any) -> None:
            self.send(status, headers | {"Content-Type": "application/json"}, json.dumps(body).encode())

        def send(self, status: int, headers: dict[str, str], body: bytes) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body)), "Cache-Control": "no-store"}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def stream(self, events: Iterator[dict[str, Any]]) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.end_headers()
            try:
                for event in events:
                    data = f"data: {json.dumps(event, ensure_ascii=False)}\n\n".encode()
                    self.wfile.write(data[: len(data) // 2])  # the network may cut anywhere, within a character too
                    self.wfile.flush()
                    self.wfile.write(data[len(data) // 2 :])
                    self.wfile.flush()
                self.wfile.write(b"data: [DONE]\n\n")
            except OSError:
                toy.left.set()

        def log_message(self, *_: object) -> None:
            pass

    return Handler
