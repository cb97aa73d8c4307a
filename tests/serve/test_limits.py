"""What a server takes and for how long: sizes, forms, slow and vanished clients, queues; proper statuses throughout."""

from __future__ import annotations

import concurrent.futures
import json
import socket
import struct
import time
from typing import Any

import pytest
from uvicorn.protocols.http import h11_impl

from rinsho.generate.speaking import Speaking
from rinsho.serve import body, guard, process, protocol
from serve.toy_server import Inside, head, question, scripted, until

pytestmark = [pytest.mark.enable_socket, pytest.mark.allow_hosts(["127.0.0.1"])]
CHAT = "/v1/chat/completions"


def everything(connection: socket.socket) -> bytes:
    """What the server sends until it closes, or until an answer of JSON is whole."""
    data = b""
    while part := connection.recv(65536):
        data += part
        if b"content-length" in data and data.endswith(b"}"):
            break
    return data


def status(data: bytes) -> int:
    return int(data.split()[1])


def error_of(answer: Any) -> str:
    found = answer.json()["error"]
    assert set(found) == {"message", "type", "code", "param"}
    return str(found["code"])


@pytest.fixture(scope="module")
def server():
    with Inside(scripted(), max_body_bytes=2000, max_new_tokens=50) as running:
        yield running


def test_bodies_that_are_too_large(server: Inside) -> None:
    answer = server.http.post(CHAT, json=question("あ" * 2000))
    assert answer.status_code == 413 and error_of(answer) == "request_too_large"
    chunks = server.http.post(
        CHAT, content=(b"x" * 500 for _ in range(9)), headers={"content-type": "application/json"}
    )
    assert chunks.status_code == 413
    assert server.http.post(CHAT, json=question("肺" * 100)).status_code == 200
    with server.connect() as connection:  # the answer comes before the body does, and reaches its sender
        connection.sendall(head(CHAT, length=10**9))
        assert status(everything(connection)) == 413
    with server.connect() as connection:
        connection.sendall(head(CHAT, length=10**6) + b"x" * 300_000)
        assert status(everything(connection)) == 413


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"nonsense", b'{"messages": [}', b'\xff\xfe{"a": 1}', b'{"a": NaN}', b"[" * 1900, b'{"a": "\\ud800"}',
     b"[]", b"null", b'"text"'],
)  # fmt: skip
def test_bodies_that_are_no_json(server: Inside, content: bytes) -> None:
    answer = server.http.post(CHAT, content=content, headers={"content-type": "application/json"})
    assert answer.status_code == 400 and error_of(answer) == "invalid_json"


def test_compressed_bodies_are_refused(server: Inside) -> None:
    headers = {"content-type": "application/json", "content-encoding": "gzip"}
    assert server.http.post(CHAT, content=b"x", headers=headers).status_code == 415


def test_heads_that_are_no_http_or_too_long(server: Inside) -> None:
    for sent in (b"nonsense\r\n\r\n", b"GET / HTTP/1.1\r\nhost: localhost\r\nx: " + b"y" * 20_000):
        with server.connect() as connection:
            connection.sendall(sent)
            answer = everything(connection)
            assert status(answer) == 400 and b"nosniff" in answer
            assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == "invalid_request"
    told = ["OTHER other 400 0.000"] * 2  # a line comes after its answer
    assert until(lambda: [line.rpartition(" ")[0] for line in server.lines[-2:]] == told), server.lines[-2:]
    assert 'rinsho_requests_total{route="other",status="400"}' in server.http.get("/metrics").text
    with server.connect() as connection:  # two lengths are no length: a proxy may have taken the other
        connection.sendall(head(CHAT, length=2, more="content-length: 3\r\n") + b"{}x")
        assert status(everything(connection)) == 400


def test_too_many_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "MOST_CONNECTIONS", 2)
    with Inside() as server:
        connections = [server.connect() for _ in range(2)]
        answer = server.http.get("/health")
        assert answer.status_code == 503 and error_of(answer) == "too_many_connections"
        assert answer.headers["connection"] == "close" and answer.headers["x-content-type-options"] == "nosniff"
        assert until(lambda: any("GET /health 503" in line for line in server.lines))
        connections[0].close()
        assert until(lambda: server.http.get("/health").status_code == 200)
        connections[1].close()


def test_a_prompt_that_is_far_too_long_costs_nothing(server: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is refused before its tokens are made."""
    with Inside() as wide:
        monkeypatch.delattr(Speaking, "encode")
        monkeypatch.delattr(Speaking, "prompt")
        for path, data in ((CHAT, question("あ" * 5000)), ("/v1/completions", {"prompt": "あ" * 5000})):
            answer = wide.http.post(path, json=data)
            assert answer.status_code == 400 and error_of(answer) == "context_length_exceeded"


def test_prompts_and_answers_that_are_too_long(server: Inside) -> None:
    answer = server.http.post(CHAT, json=question("発熱" * 300))
    assert answer.status_code == 400 and error_of(answer) == "context_length_exceeded"
    answer = server.http.post(CHAT, json=question(max_tokens=51))
    assert answer.status_code == 400 and error_of(answer) == "max_tokens_too_large"
    with Inside(scripted(endless=True, window=20), max_new_tokens=50) as small:
        answer = small.http.post("/v1/completions", json={"prompt": [5] * 17})
        assert answer.json()["usage"] == {"prompt_tokens": 17, "completion_tokens": 4, "total_tokens": 21}
        assert answer.json()["choices"][0]["finish_reason"] == "length"
        assert small.http.post("/v1/completions", json={"prompt": [5] * 20}).json()["usage"]["completion_tokens"] == 1
        assert small.http.post("/v1/completions", json={"prompt": [5] * 21}).status_code == 400


def test_routes_and_methods_that_are_not_there(server: Inside) -> None:
    assert error_of(server.http.get("/v2")) == "not_found"
    assert error_of(server.http.get(CHAT)) == "wrong_method"
    assert error_of(server.http.post("/health")) == "wrong_method"
    assert error_of(server.http.post(CHAT, json=question(model="gpt-9"))) == "model_not_found"


def test_a_full_queue(server: Inside) -> None:
    """So many as may wait wait, more are refused at once; nobody who was taken goes without an answer."""
    with Inside(scripted(slots=1, delay=0.02), max_waiting=2) as small:
        with concurrent.futures.ThreadPoolExecutor(12) as pool:
            start = time.monotonic()
            sent = [pool.submit(small.http.post, CHAT, json=question("発熱")) for _ in range(12)]
            answers = [one.result() for one in sent]
        assert time.monotonic() - start < 15
        statuses = sorted(answer.status_code for answer in answers)
        assert set(statuses) == {200, 429} and statuses.count(200) >= 3
        for answer in answers:
            if answer.status_code == 429:
                assert error_of(answer) == "server_busy" and 1 <= int(answer.headers["retry-after"]) <= 60
            else:
                assert answer.json()["choices"][0]["message"]["content"] == "肺癌発熱咳嗽急性"
        assert small.idle() and small.http.post(CHAT, json=question()).status_code == 200


def test_answers_are_written_together() -> None:
    with Inside(scripted(slots=4, delay=0.01)) as server:
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(lambda _: server.http.post(CHAT, json=question()), range(4)))
        assert {answer.json()["choices"][0]["message"]["content"] for answer in answers} == {"肺癌発熱咳嗽急性"}
        assert server.opened.decoder.most_parts > 1


def test_a_client_that_goes_away_costs_nothing_more() -> None:
    """Whether it waited for a stream, for an answer, or in the queue."""
    with Inside(scripted(slots=1, endless=True, delay=0.01), max_new_tokens=100_000, max_waiting=5) as server:
        for stream in (True, False):
            lines = len(server.lines)
            connections = [server.connect() for _ in range(3)]
            for connection in connections:
                data = json.dumps(question("発熱", stream=stream)).encode()
                connection.sendall(head(CHAT, length=len(data)) + data)
            assert until(lambda: server.engine.running == 1 and server.engine.waiting == 2)
            for connection in connections[1:]:  # those in the queue first
                connection.close()
            assert until(lambda: server.engine.waiting == 0) and server.engine.running == 1
            connections[0].close()
            assert server.idle()
            steps = server.opened.decoder.steps
            time.sleep(0.1)
            assert server.opened.decoder.steps == steps
            assert until(lambda: len(server.lines) == lines + 3)  # noqa: B023
            assert all(" 499 " in line or (stream and " 200 " in line) for line in server.lines[lines:])


@pytest.mark.parametrize("more", ["", "connection: close\r\n"])
def test_a_client_that_goes_away_after_a_large_body(more: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading stops when much of a body has come at once; it must go on when all of it is there."""
    monkeypatch.setattr(h11_impl, "HIGH_WATER_LIMIT", 0)  # as if each part were much
    with Inside(scripted(slots=1, endless=True, delay=0.01, window=99_999), max_new_tokens=100_000) as server:
        with server.connect() as connection:
            data = json.dumps(question()).encode() + b" " * 200_000
            connection.sendall(head(CHAT, length=len(data), more=more))
            time.sleep(0.1)
            connection.sendall(data)
            assert until(lambda: server.engine.running == 1)
        assert server.idle()


def test_a_client_that_resets_its_connection() -> None:
    with Inside(scripted(endless=True, delay=0.005), max_new_tokens=100_000) as server:
        connection = server.connect()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        data = json.dumps(question(stream=True)).encode()
        connection.sendall(head(CHAT, length=len(data)) + data)
        connection.recv(100)
        connection.close()
        assert server.idle()


def test_bodies_that_are_too_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body, "BODY_SECONDS", 0.2)
    monkeypatch.setattr(protocol, "REQUEST_SECONDS", 0.6)
    with Inside() as server:
        start = time.monotonic()
        with server.connect() as connection:
            connection.sendall(head(CHAT, length=100) + b"{")
            assert status(everything(connection)) == 408
        with server.connect() as connection:  # a head that never ends
            connection.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nhost: local")
            assert connection.recv(100) == b""
        with server.connect() as connection:  # nothing at all
            assert connection.recv(100) == b""
        with server.connect() as connection:  # a body that goes on after it was refused
            connection.sendall(head(CHAT, length=10**9))
            assert status(everything(connection)) == 413
            with pytest.raises(OSError):
                while time.monotonic() - start < 8:
                    connection.sendall(b"x" * 1000)
                    time.sleep(0.01)
        assert time.monotonic() - start < 6


def test_no_connection_stays_open_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "REQUEST_SECONDS", 0.5)
    monkeypatch.setattr(process, "KEEP_ALIVE_SECONDS", 1)
    get, rest = b"GET /health HTTP/1.1\r\nhost: localhost\r\n", b"content-length: 9\r\n\r\n"
    with Inside() as server:
        for sent, then in (
            (get + b"\r\n" + get + rest, b"x"),  # a second request with the first, whose body is never whole
            (get + b"\r\n" + get[:20], b"T"),  # or its head
            (get + rest, b"x" * 9),  # a body that is whole after the answer, and nothing more
        ):
            with server.connect() as connection:
                connection.settimeout(4)
                connection.sendall(sent)
                time.sleep(0.2)
                connection.sendall(then)
                start = time.monotonic()
                while connection.recv(65536):
                    pass
                assert time.monotonic() - start < 3


def test_bodies_that_never_come_take_little_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not whole yet is counted for all senders together; it is free again when they go."""
    monkeypatch.setattr(body, "MOST_HELD", 2)
    with Inside(max_body_bytes=10_000) as server:
        connections = [server.connect() for _ in range(4)]
        for connection in connections[:3]:
            connection.sendall(head(CHAT, length=9000) + b"x" * 6000)
        assert until(lambda: server.service.held.bytes >= 12_000)
        connections[3].sendall(head(CHAT, length=9000) + b"x" * 8900)
        refused = [connection for connection in connections if _said(connection)]
        assert refused and all(b" 429 " in _said(connection) for connection in refused)
        for connection in connections:
            connection.close()
        assert until(lambda: server.service.held.bytes == 0)
        assert server.http.post(CHAT, json=question()).status_code == 200


def _said(connection: socket.socket) -> bytes:
    connection.settimeout(0.3)
    try:
        return connection.recv(1000, socket.MSG_PEEK)
    except TimeoutError:
        return b""


def test_requests_that_take_too_long() -> None:
    with Inside(scripted(slots=1, endless=True, delay=0.02), max_seconds=0.5, max_new_tokens=100_000) as server:
        start = time.monotonic()
        answer = server.http.post(CHAT, json=question())
        assert answer.status_code == 504 and error_of(answer) == "timeout" and 0.4 < time.monotonic() - start < 3
        assert server.idle()
        answer = server.http.post(CHAT, json=question(stream=True, stream_options={"include_usage": True}))
        events = [line[6:] for line in answer.text.split("\n\n") if line]
        assert answer.status_code == 200 and events[-1] == "[DONE]"
        assert json.loads(events[-3])["choices"][0]["finish_reason"] == "length"
        assert 5 < json.loads(events[-2])["usage"]["completion_tokens"] < 100
        assert server.idle()
    with Inside(scripted(slots=1, delay=2.0), max_seconds=0.3) as server:  # before the first word: no stream yet
        assert server.http.post(CHAT, json=question(stream=True)).status_code == 504


def test_a_reader_that_takes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its answer is written and kept, others have its place meanwhile; after a while it is cut off."""
    monkeypatch.setattr(protocol, "STALL_SECONDS", 2.5)
    with Inside(scripted(slots=1, endless=True, window=30_000), max_new_tokens=20_000, max_waiting=0) as server:
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        connection.connect(("127.0.0.1", server.port))
        data = json.dumps(question(stream=True, logprobs=True, top_logprobs=20, max_tokens=4000)).encode()
        connection.sendall(head(CHAT, length=len(data)) + data)
        assert until(lambda: server.engine.running == 1) and server.idle(20)
        assert not server.lines  # it is still being answered, but the model is free
        assert server.http.post(CHAT, json=question(max_tokens=4)).status_code == 200
        assert until(lambda: any(" 499 " in line for line in server.lines), 20), server.lines
        connection.close()


def test_memory_returns_after_many_requests() -> None:
    """Nothing of a request stays: futures, places, orders, bodies."""
    with Inside(scripted(slots=2)) as server:
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda n: server.http.post(CHAT, json=question("発熱" * (n % 5))), range(60)))
        assert {answer.status_code for answer in answers} <= {200, 429}
        assert server.idle() and not server.engine._orders and server.engine._places == 0
        assert server.service.held.bytes == 0 and until(server.engine._commands.empty)
