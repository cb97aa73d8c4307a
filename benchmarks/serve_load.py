"""Many clients at once, good and bad, on a server of our own: is every well-formed request answered, and nothing kept?

    python benchmarks/serve.py --part load --model TUNED --out FOLDER

`hold` starts the server, lets the clients of `serve_clients.py` loose, and looks at what is left: memory, open files,
counts, and the log, in which no text may stand. Answers are compared with what the same prompt was answered alone, so
one that belongs to another client would show.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from pathlib import Path
from typing import Any

from serve_clients import (
    BEHAVIOURS,
    BODY_BYTES,
    MARK,
    PROMPTS,
    REFUSED,
    ROUTES,
    Connection,
    Crowd,
    answer_of,
    asked,
    fault,
    stops_sending,
)  # fmt: skip
from serve_engines import memory
from serve_process import Server

SLOTS, WAITING, WINDOW = 4, 24, 512
HANG_SECONDS = 120.0
PATIENCE = 20.0  # seconds that the server waits for the rest of a body
WARM_SHARE = 0.2  # of the seconds: the same load before memory is first looked at


async def client(crowd: Crowd, draw: random.Random, end: float) -> None:
    """Does one thing after another until the time is over."""
    while time.monotonic() < end:
        (act,) = draw.choices(list(BEHAVIOURS), list(BEHAVIOURS.values()))
        if act is stops_sending and end - time.monotonic() < PATIENCE:
            continue
        name = act.__name__.replace("_", " ")
        try:
            async with asyncio.timeout(HANG_SECONDS):
                ended = await act(crowd, draw)
        except Exception as error:  # whatever it is: a client that was not answered
            ended = fault(crowd, f"{name}: {type(error).__name__}")
        crowd.ends.setdefault(name, Counter())[ended] += 1
        await asyncio.sleep(draw.uniform(0, 0.3) if ended in map(str, REFUSED) else 0)


async def crowded(crowd: Crowd, seconds: float, clients: int, seed: int) -> None:
    """So many clients for so many seconds; those that wait for an answer then are answered."""
    end = time.monotonic() + seconds
    await asyncio.gather(*(client(crowd, random.Random(1000 * seed + number), end) for number in range(clients)))


async def learn(crowd: Crowd) -> None:
    """What each prompt is answered when it is alone."""
    for kind in ROUTES:
        for number in range(crowd.prompts):
            async with Connection(crowd.port) as line:
                await line.send(asked(kind, number, crowd.mark()))
                crowd.known[kind, number] = answer_of(await line.reply())[0]


def hold(  # noqa: PLR0917
    model: Path,
    log: Path,
    seconds: float,
    clients: int,
    seed: int = 1,
    threads: int = 2,
    window: int = WINDOW,
    prompts: int = PROMPTS,
) -> dict[str, Any]:
    """Serves the model to the clients for so long; what they met, and what was left behind.

    Returns:
        `ends` (what clients did -> how often it ended how), `faults`, memory and open files `before` (after a fifth of
        the load) and `after`, `exit` (the server's exit code), `metrics` against `answered`, `said` (texts in the log).
    """
    options = {"--slots": SLOTS, "--max-waiting": WAITING, "--max-body-bytes": BODY_BYTES, "--window": window}
    words = [str(word) for option in options.items() for word in option]
    with Server(model, log, *words, threads=threads) as server:
        crowd = Crowd(server.port, prompts)
        asyncio.run(learn(crowd))
        asyncio.run(crowded(crowd, WARM_SHARE * seconds, clients, seed + 1))
        quiet(server)
        before, opened = memory(server.pid), open_files(server.pid)
        asyncio.run(crowded(crowd, seconds, clients, seed))
        idle = quiet(server)
        after = memory(server.pid)
        known = dict(crowd.known)
        asyncio.run(learn(crowd))
        if crowd.known != known:
            fault(crowd, "afterwards the same prompts are answered otherwise")
        metrics = server.get("/metrics")
        open_now = open_files(server.pid)
        exit_code = server.stop()
    written = log.read_text(encoding="utf-8", errors="replace")
    return {
        "ends": {kind: dict(ends) for kind, ends in crowd.ends.items()}, "faults": crowd.faults, "idle": idle,
        "before": before, "after": after, "open": [opened, open_now], "exit": exit_code, "sent": crowd.sent,
        "uncounted": uncounted(crowd, metrics), "said": said(crowd, written), "lines": written.count("\n"),
    }  # fmt: skip


def quiet(server: Server, seconds: float = 90) -> bool:
    """Waits until nothing runs or waits any more; False when something always does."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        state = json.loads(server.get("/health"))
        if not state["running"] and not state["waiting"]:
            time.sleep(0.5)
            return True
        time.sleep(0.2)
    return False


def open_files(pid: int) -> int:
    """Files and connections that a process has open."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def uncounted(crowd: Crowd, metrics: str) -> list[str]:
    """Answers that clients have had and the server has not counted."""
    missing = []
    for (route, status), count in crowd.answered.items():
        line = f'rinsho_requests_total{{route="{route}",status="{status}"}} '
        counted = next((float(row.removeprefix(line)) for row in metrics.splitlines() if row.startswith(line)), 0)
        if counted < count:
            missing.append(f"{route} {status}: {counted:.0f} of {count}")
    return missing


def said(crowd: Crowd, log: str) -> list[str]:
    """What the log holds of what was sent and answered, and errors: kinds, not texts."""
    words = {"mark": MARK.partition("{")[0], "prompt": "肺炎を疑う", "error": "error ", "traceback": "Traceback"}
    found = [name for name, word in words.items() if word in log or word.encode().hex() in log]
    answers = {answer.strip() for answer in crowd.known.values() if isinstance(answer, str)}
    return found + ["answer"] * any(len(text) > 5 and text[:12] in log for text in answers)
