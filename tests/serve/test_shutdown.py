"""The end of a server: what was accepted is finished, nothing new is taken, the exit code is 0."""

from __future__ import annotations

import concurrent.futures
import gc
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest

from rinsho.errors import UserError
from rinsho.serve import ServeOptions, process
from rinsho.serve.process import run
from serve.toy_server import Inside, Process, head, question, scripted, until

pytestmark = [pytest.mark.enable_socket, pytest.mark.allow_hosts(["127.0.0.1"])]
CHAT = "/v1/chat/completions"


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_accepted_requests_are_finished(number: int) -> None:
    with Process({"slots": 2, "endless": True, "delay": 0.01, "window": 999}, max_new_tokens=150) as server:
        http = httpx.Client(base_url=server.url or "", timeout=60, trust_env=False)
        assert http.get("/health").json() == {"status": "ok", "running": 0, "waiting": 0}
        prompt = {"prompt": [5, 6, 7]}
        with concurrent.futures.ThreadPoolExecutor(3) as pool:
            sent = [pool.submit(http.post, "/v1/completions", json=prompt) for _ in range(3)]
            assert until(lambda: http.get("/health").json()["running"] == 2)
            server.signal(number)
            assert until(lambda: http.get("/health").status_code == 503)
            late = http.post("/v1/completions", json=prompt)
            assert late.status_code == 503 and late.json()["error"]["code"] == "server_stopping"
            assert late.headers["connection"] == "close" and int(late.headers["retry-after"]) >= 1
            answers = [one.result() for one in sent]
        assert [answer.status_code for answer in answers] == [200] * 3
        assert [answer.json()["usage"]["completion_tokens"] for answer in answers] == [150] * 3
        assert server.wait() == 0
        assert until(lambda: any("accepted requests are finished" in line for line in server.lines))
        assert not any("Traceback" in line for line in server.lines), server.lines


def test_a_server_without_requests_ends_at_once_and_frees_its_port() -> None:
    with Process({}) as server:
        port = int((server.url or "").rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port)):  # a connection that only stands open holds nothing up
            start = time.monotonic()
            server.signal()
            assert server.wait() == 0 and time.monotonic() - start < 8
        with socket.socket() as again:
            again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            again.bind(("127.0.0.1", port))


def test_a_second_signal_ends_at_once() -> None:
    with Process({"endless": True, "delay": 0.01, "window": 9999}, max_new_tokens=4000) as server:
        connection = socket.create_connection(("127.0.0.1", int((server.url or "").rpartition(":")[2])))
        data = json.dumps(question(stream=True)).encode()
        connection.sendall(head(CHAT, length=len(data)) + data)
        assert connection.recv(100)
        server.signal()
        assert until(lambda: any("stopping" in line for line in server.lines))
        server.signal()
        assert server.wait(10) == -signal.SIGTERM
        connection.close()


def test_what_is_not_done_in_time_is_ended() -> None:
    with Inside(scripted(slots=1, endless=True, delay=0.01), max_new_tokens=100_000, stop_seconds=0.3) as server:
        with concurrent.futures.ThreadPoolExecutor(3) as pool:
            whole = pool.submit(server.http.post, CHAT, json=question())
            assert until(lambda: server.engine.running == 1)
            queued = pool.submit(server.http.post, CHAT, json=question())
            assert until(lambda: server.engine.waiting == 1)
            server.stop()
            assert whole.result().status_code == queued.result().status_code == 503
        server._thread.join(10)
        assert not server._thread.is_alive() and server.opened.decoder.closed


def test_a_stream_that_is_not_done_in_time_says_so() -> None:
    with Inside(scripted(slots=1, endless=True, delay=0.01), max_new_tokens=100_000, stop_seconds=0.3) as server:
        with server.http.stream("POST", CHAT, json=question(stream=True)) as answer:
            lines = answer.iter_lines()
            assert "assistant" in next(lines)
            server.stop()
            events = [line for line in lines if line]
        assert json.loads(events[-1][6:])["error"]["code"] == "server_stopping"


def test_a_step_that_fails_ends_its_requests_alone() -> None:
    opened = scripted()
    with Inside(opened) as server:
        opened.decoder.fail = RuntimeError("secret words")
        answer = server.http.post(CHAT, json=question())
        assert answer.status_code == 500 and "secret" not in answer.text + "".join(server.lines)
        opened.decoder.fail = None
        assert server.http.post(CHAT, json=question()).status_code == 200


def test_errors_that_nobody_waits_for_tell_no_words(capfd: pytest.CaptureFixture[str]) -> None:
    opened = scripted(slots=1, delay=0.2)
    with Inside(opened) as server:
        connection = server.connect()
        data = json.dumps(question()).encode()
        connection.sendall(head(CHAT, length=len(data)) + data)
        assert until(lambda: server.engine.running == 1)
        opened.decoder.fail = KeyError("secret words")
        connection.close()
        assert server.idle()
    gc.collect()
    assert "secret" not in capfd.readouterr().err


def test_a_model_that_cannot_go_on_ends_the_server() -> None:
    opened = scripted(delay=0.05)
    with Inside(opened) as server:
        opened.decoder.fail = SystemExit("whatever ends a thread")
        assert server.http.post(CHAT, json=question()).status_code == 503
        server._thread.join(10)
        assert not server._thread.is_alive() and server.engine.broken


def test_what_is_wrong_is_said_before_the_model_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RINSHO_API_KEY", raising=False)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(UserError, match="cannot listen there"):
            run(tmp_path / "none", ServeOptions(port=taken.getsockname()[1]))
    for options, words in (
        (ServeOptions(port=0, slots=0), "--slots: must be more than 0"),
        (ServeOptions(port=0, max_seconds=float("nan")), "--max-seconds: must be more than 0"),
        (ServeOptions(port=0, max_waiting=-1), "--max-waiting: must not be negative"),
        (ServeOptions(port=0, stop_seconds=float("nan")), "--stop-seconds: must not be negative"),
        (ServeOptions(port=70_000), "--port: no such port"),
        (ServeOptions(port=-1), "--port: no such port"),
        (ServeOptions(port=0, tls_cert=tmp_path / "no", tls_key=tmp_path / "no"), "--tls-key: they cannot be used"),
        (ServeOptions(port=0, tls_cert=Path(__file__), tls_key=Path(__file__)), "--tls-key: they cannot be used"),
        (ServeOptions(port=0, tls_cert=tmp_path), "--tls-cert, --tls-key: one of two"),
        (ServeOptions(port=0), "none: "),
    ):
        with pytest.raises(UserError, match=words):
            run(tmp_path / "none", options)


@pytest.mark.parametrize("method", ["startup", "main_loop"])
def test_a_server_that_cannot_listen_ends(method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = scripted()
    monkeypatch.setattr(process, "open_model", lambda *_, **__: opened)
    monkeypatch.setattr(process, "settle", lambda *_: "")

    async def fails(*_: object, **__: object) -> None:
        raise OSError(98, "Address already in use")

    monkeypatch.setattr(process._Server, method, fails)
    with pytest.raises(UserError, match="cannot listen there"):
        run(tmp_path, ServeOptions(port=0))
    assert opened.decoder.closed


def test_a_request_whose_tokens_are_made_when_the_server_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """It comes to the model after all others were ended: it is ended too."""
    with Inside(scripted(endless=True, delay=0.01), max_new_tokens=100_000, stop_seconds=0.1) as server:
        begun = threading.Event()
        monkeypatch.setattr(type(server.opened), "encode", lambda *_: [begun.set(), time.sleep(0.6), 5][2:])
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            sent = pool.submit(server.http.post, "/v1/completions", json={"prompt": "発熱"})
            assert begun.wait(5)
            server.stop()
            assert sent.result().status_code == 503
        assert server.opened.decoder.steps == 0


def test_serving_is_only_imported_when_it_is_wanted() -> None:
    code = (
        "import sys, rinsho.serve; print(*(name for name in ('uvicorn', 'starlette', 'torch') if name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
