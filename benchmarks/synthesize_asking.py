"""The part `asking` of `synthesize.py`: an endpoint that answers at once, and three clients that ask it.

The endpoint and each client are processes of their own. The texts are invented, of random words, and mean nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import shutil
import statistics
import time
import urllib.request
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from functools import cache
from hashlib import blake2b
from importlib.util import find_spec
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random
from typing import Any

from synthesize_trust import Found, apart

from finetune import rinsho, table, version

LATENCY_SECONDS, AT_ONCE, ROUNDS = 0.02, 32, 3
REQUESTS = 3_000
NOWHERE = "http://127.0.0.1:9/v1"  # of teachers whose answers are all kept
KANJI = (
    "心肝腎肺胃腸脳骨筋血管膜弁節核膵脾胆頸胸腹背腰炎症熱痛腫傷"
    "梗塞虚障害全亢進低高圧流量値率常変性線維石壊死萎縮肥大拡張狭窄閉孔潰"
)
VERBS = (
    "を示す", "を認める", "が続く", "を来す", "に及ぶ", "を伴う",
    "が進む", "を防ぐ", "に乏しい", "を確かめる", "が残る", "を除く",
)  # fmt: skip

Asked = dict[str, Any]  # seconds, cpu, answers, digest


# ---- texts that look like answers


def word(draw: Random) -> str:
    return "".join(draw.sample(KANJI, 3))


@cache
def sentences() -> list[str]:
    """Invented sentences of about 45 characters that mean nothing."""
    draw = Random(0)
    return [
        f"{word(draw)}の{word(draw)}では{word(draw)}{draw.choice(VERBS)}ため、"
        f"{word(draw)}から{word(draw)}{draw.choice(VERBS)}ことが多いとされている。"
        for _ in range(10_000)
    ]


def page(seed: int, repeated: bool = False) -> str:
    """A textbook page of about 800 characters; a repeated one differs in one sentence from that of its seed."""
    parts = Random(seed).sample(sentences(), 19)
    return "".join([*parts[:-2], parts[-1] if repeated else parts[-2]])


def exercise(seed: int, repeated: bool = False) -> str:
    """An exercise; a repeated one differs in its explanation."""
    draw = Random(seed)
    stem = "".join(draw.sample(sentences(), 4))
    options = "".join(f"{label}. {word(draw)}{word(draw)}\n" for label in "abcde")
    answer, explanation = draw.choice("abcde"), draw.sample(sentences(), 6)
    shown = "".join(explanation[3:] if repeated else explanation[:3])
    return f"問題: {stem}正しいのはどれか。1つ選べ。\n{options}正解: {answer}\n解説: {shown}"


# ---- the endpoint


class Endpoint(asyncio.Protocol):
    """HTTP/1.1 with as little work as it takes; the same answer to the same seed."""

    def connection_made(self, transport: Any) -> None:
        self.transport, self.data = transport, b""

    def data_received(self, data: bytes) -> None:
        self.data += data
        while True:
            head, end, rest = self.data.partition(b"\r\n\r\n")
            length = re.search(rb"content-length: *(\d+)", head, re.IGNORECASE)
            size = int(length[1]) if length else 0
            if not end or len(rest) < size:
                return
            self.data = rest[size:]
            if head.startswith(b"GET"):
                self.send({"cpu": time.process_time()})
            else:
                asyncio.get_running_loop().call_later(LATENCY_SECONDS, self.answer, rest[:size])

    def answer(self, body: bytes) -> None:
        message = {"role": "assistant", "content": page(json.loads(body)["seed"])}
        self.send({
            "id": "chatcmpl-0", "object": "chat.completion", "created": 0, "model": "page",
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 400, "completion_tokens": 500, "total_tokens": 900},
        })  # fmt: skip

    def send(self, body: Any) -> None:
        data = json.dumps(body, ensure_ascii=False).encode()
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
        if not self.transport.is_closing():
            self.transport.write(head.encode() + data)


def serve(port: Connection) -> None:
    async def forever() -> None:
        sentences()
        server = await asyncio.get_running_loop().create_server(Endpoint, "127.0.0.1", 0)
        port.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(forever())


@contextmanager
def endpoint() -> Iterator[str]:
    """The address of the endpoint in a process of its own."""
    context = get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=serve, args=(there,), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{here.recv()}/v1"
    finally:
        process.terminate()
        process.join()


def cpu_of(url: str) -> float:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    return float(json.load(opener.open(url))["cpu"])


# ---- clients


def settings(url: str, kinds: Sequence[str], **more: Any) -> dict[str, Any]:
    """The section of a recipe; an exercise a topic."""
    teacher = {"base_url": url, "model": "page", "max_concurrent_requests": AT_ONCE}
    return {"teachers": {"page": teacher}, "kinds": list(kinds), "exercise_samples": 1, **more}


def write_topics(path: Path, count: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("surface,kind\n" + "".join(f"架空第{n}症候群,disease\n" for n in range(count)), encoding="utf-8")
    return path


def digest(texts: Sequence[str]) -> str:
    """Of the texts in any order."""
    return blake2b("\n".join(sorted(texts)).encode(), digest_size=8).hexdigest()


def by_rinsho(url: str, topics: Path, out: Path) -> dict[str, Asked]:
    """The asking phase with its answer file, and once more when all answers are kept."""
    import httpx  # noqa: F401  # before the clock, as for the others

    from rinsho.run import Stage
    from rinsho.synthesize import Recipe
    from rinsho.synthesize.running import Teachers, answer_file
    from rinsho.synthesize.work import Wanted

    recipe, stage = Recipe.model_validate(settings(url, ["textbook"])), Stage("synthesize", out)
    stage.partial.mkdir(parents=True)
    wanted, found = Wanted(recipe, [topics]), {}
    with (out / "log").open("w") as log, redirect_stderr(log):
        for name in ("rinsho", "rinsho, all answers kept"):
            (stage.partial / "asked-texts.json").unlink(missing_ok=True)
            began = clock()
            with Teachers(recipe, out / "answers", stage) as teachers:
                teachers.ask_once("texts", wanted.calls, wanted.count, 0)
            found[name] = since(began)
    kept = answer_file(out / "answers", "page").read_bytes().splitlines()
    texts = [json.loads(line)["text"] for line in kept]
    return {name: {**row, "answers": len(texts), "digest": digest(texts)} for name, row in found.items()}


def bodies(topics: Path) -> list[dict[str, Any]]:
    """What rinsho sends, ready to be sent."""
    from rinsho.client import Request
    from rinsho.client.asking import body
    from rinsho.synthesize import Recipe
    from rinsho.synthesize.work import Wanted

    recipe = Recipe.model_validate(settings(NOWHERE, ["textbook"]))
    calls = Wanted(recipe, [topics]).calls()
    return [body(recipe.teachers[call.teacher], Request(call.id, call.messages, call.seed)) for call in calls]


def clock() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def since(began: tuple[float, float]) -> Asked:
    seconds, cpu = (now - then for now, then in zip(clock(), began, strict=True))
    return {"seconds": seconds, "cpu": cpu}


async def all_of(
    began: tuple[float, float], asked: Sequence[dict[str, Any]], ask: Callable[[dict[str, Any]], Awaitable[str]]
) -> Asked:
    """Asks for everything, so many at once."""
    places = asyncio.Semaphore(AT_ONCE)

    async def one(body: dict[str, Any]) -> str:
        async with places:
            return await ask(body)

    texts = await asyncio.gather(*map(one, asked))
    return {**since(began), "answers": len(texts), "digest": digest(texts)}


def by_openai(url: str, topics: Path, _: Path) -> dict[str, Asked]:
    from openai import AsyncOpenAI

    os.environ["NO_PROXY"] = "127.0.0.1"
    asked = bodies(topics)

    async def run() -> Asked:
        began = clock()
        async with AsyncOpenAI(base_url=url, api_key="none") as client:

            async def ask(body: dict[str, Any]) -> str:
                return str((await client.chat.completions.create(**body)).choices[0].message.content)

            return await all_of(began, asked, ask)

    return {f"openai {version('openai')}": asyncio.run(run())}


def by_httpx(url: str, topics: Path, _: Path) -> dict[str, Asked]:
    import httpx

    asked = bodies(topics)

    async def run() -> Asked:
        began = clock()
        async with httpx.AsyncClient(trust_env=False, timeout=300) as client:

            async def ask(body: dict[str, Any]) -> str:
                reply = await client.post(f"{url}/chat/completions", json=body)
                return str(reply.raise_for_status().json()["choices"][0]["message"]["content"])

            return await all_of(began, asked, ask)

    return {f"httpx {version('httpx')}": asyncio.run(run())}


# ---- asking


def asking(given: argparse.Namespace) -> Found:
    folder, count = given.out / "asking", int(REQUESTS * given.size)
    shutil.rmtree(folder, ignore_errors=True)
    topics = write_topics(folder / "topics.csv", count)
    clients = [by_rinsho, *([by_openai] if find_spec("openai") else []), by_httpx]
    rounds: list[dict[str, Asked]] = []
    with endpoint() as url:
        for number in range(ROUNDS):
            rounds.append({})
            for client in clients[number % len(clients) :] + clients[: number % len(clients)]:
                before = cpu_of(url)
                found = apart(client, url, topics, folder / f"{client.__name__}-{number}")
                for row in found.values():
                    row["endpoint"] = cpu_of(url) - before
                rounds[-1] |= found
        whole = command(url, topics, folder)
    rows = {name: {key: statistics.median(one[name][key] for one in rounds) for key in ("seconds", "cpu", "endpoint")}
            for name in rounds[0]}  # fmt: skip
    same = {row["digest"] for one in rounds for row in one.values()}
    rate = {name: count / row["seconds"] for name, row in rows.items()}
    cells = []
    for name in sorted(rows, key=lambda name: not name.startswith("rinsho")):
        kept, again = name.startswith("rinsho"), "kept" in name
        ratios = [[one[name][key] / one["rinsho"][key] for one in rounds] for key in ("seconds", "cpu")]
        cells.append([name, "yes" if kept else "no", f"{rate[name]:,.0f}", f"{rows[name]['cpu']:.2f}",
                      f"{rows[name]['cpu'] / count * 1e3:.2f}", "" if again else f"{rows[name]['endpoint']:.2f}",
                      *("" if kept else f"{statistics.median(values):.2f}×" for values in ratios)])  # fmt: skip
    cells.append(["`rinsho synthesize`, the whole command", "yes", f"{count / whole['seconds']:,.0f}",
                  f"{whole['cpu']:.2f}", f"{whole['cpu'] / count * 1e3:.2f}", "", "", ""])  # fmt: skip
    header = ["client", "keeps answers", "requests/s", "CPU s", "CPU ms a request", "endpoint's CPU s",
              "its time / rinsho's", "its CPU / rinsho's"]  # fmt: skip
    lines = [f"{count:,} textbook pages, {AT_ONCE} at once, answers after {LATENCY_SECONDS * 1e3:.0f} ms (at most "
             f"{AT_ONCE / LATENCY_SECONDS:,.0f}/s); medians of {ROUNDS} rounds, ratios: of the rounds' ratios. rinsho "
             "makes the prompts, hashes them, keeps each answer in a file and looks at its text; the peers get the "
             "requests ready and keep nothing: what is killed is paid again."]  # fmt: skip
    lines += ["", *table(header, cells, text_columns=2), "", f"All got the same answers: {len(same) == 1}."]
    if by_openai not in clients:
        lines.append("The peer openai is not installed.")
    return {"requests": count, "rounds": rounds, "whole": whole, "same": len(same) == 1}, lines


def command(url: str, topics: Path, folder: Path) -> dict[str, float]:
    """`rinsho synthesize` from its start to its report."""
    recipe = folder / "recipe.yaml"
    recipe.write_text(json.dumps({"synthesize": settings(url, ["textbook"])}), encoding="utf-8")  # JSON is YAML
    started, before = time.perf_counter(), os.times()
    rinsho("synthesize", topics, "--recipe", recipe, "--out", folder / "whole" / "run", log=folder / "log.txt")
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return {"seconds": time.perf_counter() - started, "cpu": cpu}
