"""What clients do to a server in `serve_load.py`: ask for answers, go away, send too much, nonsense, or slowly.

Each does one thing over a connection of its own, and says how it ended. A fault is noted and ends the thing as FAULT.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import socket
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

PROMPTS, ANSWER = 16, 24  # prompts of each kind, whose answers are known; tokens of an answer
BODY_BYTES = 65_536  # that the server takes
MARK = "合言葉{}号"  # in every text that is sent: must not come back in the log
ROUTES = {
    "chat": "/v1/chat/completions", "completion": "/v1/completions",
    "extract": "/v1/extract", "classify": "/v1/classify",
}  # fmt: skip
CLINICAL = ("extract", "classify")
REFUSED = (429, 503)


class GoneError(Exception):
    """The server closed the connection before it had answered."""


@dataclass
class Reply:
    """An answer as it came."""

    status: int
    headers: dict[str, str]
    body: bytes = b""

    @property
    def events(self) -> list[str]:
        """Of a stream."""
        lines = self.body.decode("utf-8").split("\n\n")
        return [line.removeprefix("data: ") for line in lines if line]


@dataclass
class Crowd:
    """What clients share."""

    port: int
    prompts: int = PROMPTS
    known: dict[tuple[str, int], Any] = field(
        default_factory=dict
    )  # kind and number of a prompt -> what it is answered
    ends: dict[str, Counter[str]] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    answered: Counter[tuple[str, int]] = field(default_factory=Counter)  # by route and status
    sent: int = 0

    def mark(self) -> str:
        """A text that no other request has."""
        self.sent += 1
        return MARK.format(self.sent)


# ---- one exchange over a connection of its own


class Connection:
    """HTTP by hand: a client that can misbehave. `slow`: hardly any buffer, read in small pieces."""

    def __init__(self, port: int, slow: bool = False) -> None:
        self.port, self.slow = port, slow

    async def __aenter__(self) -> Connection:
        made = socket.socket()
        if self.slow:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        made.setblocking(False)
        await asyncio.get_running_loop().sock_connect(made, ("127.0.0.1", self.port))
        self.reader, self.writer = await asyncio.open_connection(sock=made, limit=1024 if self.slow else 1 << 16)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.transport.abort()

    async def send(self, data: bytes, pieces: int = 1, seconds: float = 0.0) -> None:
        """Sends it, in pieces over some seconds."""
        step = -(-len(data) // pieces)
        for start in range(0, len(data), step):
            self.writer.write(data[start : start + step])
            await self.writer.drain()
            if seconds:
                await asyncio.sleep(seconds / pieces)

    async def reply(self, most: int | None = None) -> Reply:
        """The answer; with `most` no more than so many bytes of its body."""
        try:
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            reply = Reply(int(head[0].split()[1]), {})
            for line in head[1:-2]:
                name, _, value = line.partition(":")
                reply.headers[name.lower()] = value.strip()
            if reply.headers.get("transfer-encoding") == "chunked":
                await self._chunks(reply, most)
            elif "content-length" in reply.headers:
                reply.body = await self._exactly(int(reply.headers["content-length"]))
            else:
                reply.body = await self.reader.read(1 << 16)
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise GoneError from error
        return reply

    async def _chunks(self, reply: Reply, most: int | None) -> None:
        while most is None or len(reply.body) < most:
            size = int((await self.reader.readline()).strip() or b"-1", 16)
            if size < 0:
                raise GoneError
            reply.body += (await self._exactly(size + 2))[:-2]
            if size == 0:
                return

    async def _exactly(self, count: int) -> bytes:
        if not self.slow:
            return await self.reader.readexactly(count)
        data = b""
        while len(data) < count:
            data += await self.reader.readexactly(min(256, count - len(data)))
            await asyncio.sleep(0.01)
        return data


def request(route: str, body: bytes, *, length: int | None = None, kind: str = "application/json") -> bytes:
    """A POST as it goes over the line."""
    size = len(body) if length is None else length
    head = f"POST {route} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {kind}\r\nContent-Length: {size}\r\n\r\n"
    return head.encode() + body


def asked(kind: str, number: int, mark: str, *, stream: bool = False, tokens: int = ANSWER, **more: Any) -> bytes:
    """A well-formed question; the same kind and number are the same prompt."""
    text = f"症例{number}。{number * 37 % 90}歳。発熱と咳嗽を認め、肺炎を疑う。体温{36 + number % 5}.2℃。"
    if kind in CLINICAL:
        more = {"options": ["肺炎", "骨折", f"第{number}度熱傷"]} if kind == "classify" else {}
        return request(ROUTES[kind], json.dumps({"text": text, **more}).encode())
    body: dict[str, Any] = {"max_tokens": tokens, "temperature": 0, "user": mark, **more}
    body |= {"messages": [{"role": "user", "content": text}]} if kind == "chat" else {"prompt": text}
    if stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    return request(ROUTES[kind], json.dumps(body).encode())


def answer_of(reply: Reply) -> tuple[Any, bool]:
    """What a reply says, and whether it is whole: an answer may only end where the model or its length ends it."""
    if reply.headers["content-type"].startswith("application/json"):
        body = json.loads(reply.body)
        if body["object"] == "extraction":
            return [(row["kind"], row["text"], row["start"], row["end"]) for row in body["entities"]], True
        if body["object"] == "classification":
            return [row["option"] for row in body["options"]] + [body["best"]], True
        choice, count = body["choices"][0], body["usage"]["completion_tokens"]
        text = choice["message"]["content"] if "message" in choice else choice["text"]
        return text, choice["finish_reason"] == "stop" or count == ANSWER
    events = reply.events
    if events[-1] != "[DONE]":
        raise ValueError("a stream without its end")
    rows = [json.loads(event) for event in events[:-1]]
    choices = [choice for row in rows for choice in row["choices"]]
    text = "".join(c["delta"].get("content", "") if "delta" in c else c["text"] for c in choices)
    (finish,) = [c["finish_reason"] for c in choices if c["finish_reason"]]
    return text, finish == "stop" or rows[-1]["usage"]["completion_tokens"] == ANSWER


# ---- what clients do; each returns how it ended, and raises or notes a fault


async def well(crowd: Crowd, draw: random.Random, *, slow_read: bool = False, slow_send: bool = False) -> str:
    """A proper request: complete as it would be alone, or refused in the proper form."""
    kind = draw.choice(("chat", "completion") if slow_read else ("chat", "chat", "completion", *CLINICAL))
    number = draw.randrange(crowd.prompts)
    data = asked(kind, number, crowd.mark(), stream=slow_read or draw.random() < 0.5)
    async with Connection(crowd.port, slow_read) as line:
        await line.send(data, *((8, draw.uniform(0.5, 2)) if slow_send else ()))
        reply = await line.reply()
    crowd.answered[ROUTES[kind], reply.status] += 1
    if reply.status in REFUSED:
        proper = json.loads(reply.body)["error"]["message"] and int(reply.headers["retry-after"]) > 0
        return str(reply.status) if proper else fault(crowd, "a refusal without its form")
    if reply.status != 200:
        return fault(crowd, f"{kind}: status {reply.status}")
    found, whole = answer_of(reply)
    if not whole:
        return fault(crowd, f"{kind}: cut off")
    if found == crowd.known[kind, number]:
        return "complete"
    if any(found == other for (of, _), other in crowd.known.items() if of == kind):
        return fault(crowd, f"{kind}: the answer to another prompt")
    return "complete, other words"  # rounding differs with what is read beside it


async def slow_reader(crowd: Crowd, draw: random.Random) -> str:
    return await well(crowd, draw, slow_read=True)


async def slow_sender(crowd: Crowd, draw: random.Random) -> str:
    return await well(crowd, draw, slow_send=True)


async def leaves(crowd: Crowd, draw: random.Random) -> str:
    """Goes away: within the head, within the body, while waiting, or within the answer."""
    data = asked("chat", draw.randrange(crowd.prompts), crowd.mark(), stream=True, tokens=100)
    place = draw.choice(("head", "body", "waiting", "answer"))
    async with Connection(crowd.port) as line:
        if place in {"head", "body"}:
            head = data.index(b"\r\n\r\n") + 4
            await line.send(
                data[: draw.randrange(1, head)] if place == "head" else data[: draw.randrange(head, len(data))]
            )
            await asyncio.sleep(draw.uniform(0, 0.2))
            return f"left in the {place}"
        await line.send(data)
        if place == "waiting":
            await asyncio.sleep(draw.uniform(0, 0.3))
            return "left waiting"
        reply = await line.reply(most=draw.randrange(1, 1500))
        return "left in the answer" if reply.status == 200 else str(reply.status)


async def reads_nothing(crowd: Crowd, draw: random.Random) -> str:
    """Asks for much and takes none of it, then goes away."""
    more = {"logprobs": True, "top_logprobs": 20}
    data = asked("chat", draw.randrange(crowd.prompts), crowd.mark(), stream=True, tokens=150, **more)
    async with Connection(crowd.port, slow=True) as line:
        await line.send(data)
        await asyncio.sleep(draw.uniform(1, 4))
    return "left without reading"


async def too_large(crowd: Crowd, draw: random.Random) -> str:
    """A body over the limit: announced and sent, announced alone, or sent in chunks without a word of its size."""
    text = crowd.mark() * (2 * BODY_BYTES // 15)
    body = json.dumps({"prompt": text}, ensure_ascii=False).encode()
    way = draw.choice(("sent", "announced", "chunks"))
    async with Connection(crowd.port) as line:
        with contextlib.suppress(ConnectionError):  # it may be answered before it has sent everything
            if way == "sent":
                await line.send(request("/v1/completions", body))
            elif way == "announced":
                await line.send(request("/v1/completions", b"", length=10**10))
            else:
                head = request("/v1/completions", b"").replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
                await line.send(head)
                for start in range(0, len(body), 8192):
                    part = body[start : start + 8192]
                    await line.send(f"{len(part):x}\r\n".encode() + part + b"\r\n")
                await line.send(b"0\r\n\r\n")
        return await expect(crowd, line, 413)


async def nonsense(crowd: Crowd, draw: random.Random) -> str:
    """Bodies that are no JSON, or no request; a wrong kind of body, route, or host; a prompt that is too long."""
    mark = crowd.mark()
    good = {"prompt": mark, "max_tokens": 4}
    long = json.dumps({"prompt": mark * 2000}, ensure_ascii=False).encode()
    cases: list[tuple[bytes, int]] = [
        (request("/v1/completions", f'{{"prompt": "{mark}'.encode()), 400),
        (request("/v1/completions", mark.encode("utf-16")), 400),
        (request("/v1/completions", b"[" * 50_000), 400),
        (request("/v1/completions", json.dumps({**good, mark: 1}).encode()), 400),
        (request("/v1/completions", json.dumps({**good, "max_tokens": mark}).encode()), 400),
        (request("/v1/chat/completions", json.dumps({"messages": [{"role": mark, "content": 1}]}).encode()), 400),
        (request("/v1/completions", long), 400),
        (request("/v1/completions", json.dumps(good).encode(), kind="text/plain"), 415),
        (request(f"/v1/{mark.encode().hex()}", json.dumps(good).encode()), 404),
        (request("/v1/completions", json.dumps(good).encode()).replace(b"Host: 127.0.0.1", b"Host: evil.example"), 421),
    ]
    data, status = draw.choice(cases)
    async with Connection(crowd.port) as line:
        await line.send(data)
        return await expect(crowd, line, status, *REFUSED * (data is cases[6][0]))  # its tokens are counted in its turn


async def stops_sending(crowd: Crowd, draw: random.Random) -> str:
    """Sends half of a request, then nothing: told so, not kept for ever."""
    data = asked("chat", draw.randrange(crowd.prompts), crowd.mark())
    async with Connection(crowd.port) as line:
        await line.send(data[: len(data) - draw.randrange(1, 20)])
        return await expect(crowd, line, 408)


async def no_http(crowd: Crowd, draw: random.Random) -> str:
    """Bytes that are no HTTP: refused or cut off."""
    async with Connection(crowd.port) as line:
        await line.send(draw.randbytes(300) + b"\r\n\r\n" + crowd.mark().encode())
        try:
            reply = await line.reply()
        except GoneError:
            return "cut off"
    return "400" if reply.status == 400 else fault(crowd, f"bytes that are no HTTP had status {reply.status}")


async def looks(crowd: Crowd, draw: random.Random) -> str:
    """What a monitor asks."""
    route = draw.choice(("/health", "/metrics", "/v1/models"))
    async with Connection(crowd.port) as line:
        await line.send(f"GET {route} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
        return await expect(crowd, line, 200)


async def expect(crowd: Crowd, line: Connection, *statuses: int) -> str:
    reply = await line.reply()
    if reply.status not in statuses:
        return fault(crowd, f"status {reply.status} for {statuses[0]}")
    if reply.status >= 400 and not json.loads(reply.body)["error"]["message"]:
        return fault(crowd, f"status {reply.status} without its form")
    return str(reply.status)


def fault(crowd: Crowd, what: str) -> str:
    crowd.faults.append(what)
    return "FAULT"


BEHAVIOURS: dict[Callable[[Crowd, random.Random], Awaitable[str]], int] = {  # and how often they do it
    well: 40, slow_reader: 8, slow_sender: 8, leaves: 20, reads_nothing: 3, too_large: 7, nonsense: 9, no_http: 2,
    looks: 3, stops_sending: 1,
}  # fmt: skip
