"""Serving measured: the server beside llama.cpp's own rate, streams, overhead, memory, and a minute of bad clients.

    python benchmarks/serve.py --model TUNED --out FOLDER                     # everything, under 15 minutes
    python benchmarks/serve.py --part raw|server|overhead|memory|load|busy --model TUNED --out FOLDER

Served is a model in the size of `--preset` with random weights and TUNED's tokenizer, whose files are made once in
OUT/models (7 GB); `overhead` and `load` take a small one of the same kind.

`raw`: reading and writing of each GGUF flavour and type by llama.cpp alone, by `rinsho.generate` without a server and
through the server, in turns on loaded models, so that what else the machine does meets all three; transformers in
bfloat16 beside them. `server`: rate and latency with 1, 4 and 16 clients at once, llama.cpp's own rate for as many
texts beside it. `overhead`: what a request costs over the same work without HTTP. `memory`: resident memory of the
server. `load`: `serve_load.py`. `busy`, only by its name: ways in which threads wait, beside another program. Wall
seconds need an idle machine; ratios within one run stand more. The tables go to the terminal and to OUT/serve.md, all
figures to OUT/serve.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from serve_engines import SPINS, Engine, memory, random_ids
from serve_models import gguf_file, random_folder
from serve_process import Client, Server, Timed

from finetune import commit, table, version

FLAVOURS, TYPES = ("llama", "mimo2"), ("q4_0", "q8_0")
READ, WRITE, DEPTH = 256, 64, 16  # ids of a prompt that is timed, steps that are timed, ids before them
STREAMS = (1, 4, 16)
STREAM_PROMPT, STREAM_ANSWER, STREAM_WINDOW = 128, 64, 512
TEXT = "72歳男性。労作時の呼吸困難を主訴に来院した。聴診で両下肺野に断続性ラ音を聴取した。"  # of `overhead`
SMALL = "15m"  # of `overhead` and `load`
CACHE_BYTES = 2 * 2  # keys and values, float16

Part = Callable[[argparse.Namespace], tuple[dict[str, Any], list[str]]]


def files(given: argparse.Namespace) -> dict[tuple[str, str], Path]:
    """The GGUF files of the random model; those that are there are kept."""
    folder = random_folder(given.out / "models" / given.preset, given.preset, given.model, given.seed)
    return {(flavour, type_): gguf_file(folder, flavour, type_) for flavour in FLAVOURS for type_ in TYPES}


def serve(given: argparse.Namespace, model: Path, *options: str) -> Server:
    return Server(model, given.out / "server.log", *options, threads=given.threads)


def rate(found: dict[str, float]) -> float:
    return found["tokens"] / found["seconds"]


def middle(values: Sequence[float]) -> float:
    return statistics.median(values)


# ---- raw: one text at a time


def raw(given: argparse.Namespace) -> tuple[dict[str, Any], list[str]]:
    rows = []
    for (flavour, type_), path in files(given).items():
        with (
            Engine("llama", path, given.threads) as llama,
            Engine("rinsho", path, given.threads) as rinsho,
            serve(given, path, "--slots", "1", "--window", str(2 * READ)) as server,
        ):
            row = in_turns(given, llama, rinsho, Client(server.port))
        rows.append({"flavour": flavour, "type": type_, "bytes": path.stat().st_size, **row})
        say(f"{flavour} {type_}: {middle(row['llama']['write']):.1f}, server {middle(row['server']['write']):.1f}")
    folder = given.out / "models" / given.preset
    with Engine("transformers", folder, given.threads) as engine:
        peer = [(READ / engine.ask("read", count=READ)["seconds"], rate(write(engine, WRITE // 4))) for _ in range(2)]
        resident = engine.ask("memory")["most"]
    peer_row = {"read": [one for one, _ in peer], "write": [two for _, two in peer], "resident": resident}
    header = [
        "file", "MB", "write: llama.cpp, tokens/s", "without server", "through the server", "server / llama.cpp",
        "read: llama.cpp, tokens/s", "without server", "through the server",
    ]  # fmt: skip
    cells = [raw_cells(row) for row in rows]
    size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    cells.append(["transformers, bfloat16", f"{size / 1e6:.0f}", f"{max(peer_row['write']):.1f}", "", "", "",
                  f"{max(peer_row['read']):.0f}", "", ""])  # fmt: skip
    about = (
        f"{given.preset}, {given.threads} threads, medians of {given.rounds} rounds (ratio: of the rounds' ratios); "
        f"{WRITE} steps behind {DEPTH} ids, prompts of {READ} ids; transformers: the better of two."
    )
    return {"rows": rows, "transformers": peer_row}, [about, "", *table(header, cells)]


def in_turns(given: argparse.Namespace, llama: Engine, rinsho: Engine, client: Client) -> dict[str, Any]:
    """Rates of reading and writing, a value a round."""
    found: dict[str, Any] = {name: {"read": [], "write": []} for name in ("llama", "rinsho", "server")}
    highest = vocabulary(given)
    client.stream(random_ids(DEPTH, highest), 4)
    for _ in range(given.rounds):
        for name, engine in (("llama", llama), ("rinsho", rinsho)):
            found[name]["write"].append(rate(write(engine, WRITE)))
        found["server"]["write"].append(client.stream(random_ids(DEPTH, highest), WRITE + 1).rate)
        for name, engine in (("llama", llama), ("rinsho", rinsho)):
            found[name]["read"].append(READ / engine.ask("read", count=READ)["seconds"])
        found["server"]["read"].append(READ / client.stream(random_ids(READ, highest), 1).first)
    return found


def write(engine: Engine, count: int, streams: int = 1, depth: int = DEPTH) -> dict[str, Any]:
    return engine.ask("write", count=count, streams=streams, depth=depth)


def vocabulary(given: argparse.Namespace) -> int:
    """Ids that may stand in prompts: those of the tokenizer."""
    return int(json.loads((given.model / "config.json").read_text())["vocab_size"])


def raw_cells(row: dict[str, Any]) -> list[str]:
    cells = [f"{row['flavour']} {row['type']}", f"{row['bytes'] / 1e6:.0f}"]
    for what, digits in (("write", 1), ("read", 0)):
        cells += [f"{middle(row[name][what]):.{digits}f}" for name in ("llama", "rinsho", "server")]
        if what == "write":
            pairs = zip(row["server"]["write"], row["llama"]["write"], strict=True)
            cells.append(f"{middle([one / other for one, other in pairs]):.3f}")
    return cells


# ---- server: many at once


def streams(given: argparse.Namespace) -> tuple[dict[str, Any], list[str]]:
    path = files(given)[given.flavour, "q4_0"]
    rows = []
    most = max(STREAMS)
    options = ("--window", str(STREAM_WINDOW), "--max-waiting", str(most))
    with Engine("llama", path, given.threads) as llama:
        for slots, counts in ((most, STREAMS), (4, (most,))):
            with serve(given, path, "--slots", str(slots), *options) as server:
                Client(server.port).stream(random_ids(DEPTH, vocabulary(given)), 4)
                for count in counts:
                    own = rate(write(llama, STREAM_ANSWER, min(count, slots), STREAM_PROMPT))
                    answers, seconds = at_once(given, server.port, count)
                    rows.append({"clients": count, "slots": slots, "llama": own, **summary(answers, seconds)})
                    say(f"{count} clients, {slots} slots: {rows[-1]['rate']:.1f} tokens/s")
    header = ["clients", "slots", "answers", "tokens/s with prompts read", "writing alone, tokens/s",
              "llama.cpp writing as many", "first token, s: median", "95 %", "between tokens, ms: median", "95 %",
              "answer, s: median", "95 %"]  # fmt: skip
    cells = [
        [str(row["clients"]), str(row["slots"]), str(row["answers"]), f"{row['rate']:.1f}", f"{row['writing']:.1f}",
         f"{row['llama']:.1f}", *(f"{row[name][at]:.{digits}f}" for name, digits in
                                  (("first", 2), ("between", 0), ("whole", 1)) for at in ("median", "p95"))]
        for row in rows
    ]  # fmt: skip
    about = (
        f"{given.preset} {given.flavour} q4_0, {given.threads} threads, prompts of {STREAM_PROMPT} ids, answers of "
        f"{STREAM_ANSWER} tokens, {given.repeats} a client, one behind the other."
    )
    return {"rows": rows}, [about, "", *table(header, cells, text_columns=0)]


def at_once(given: argparse.Namespace, port: int, count: int) -> tuple[list[Timed], float]:
    """What so many clients are answered, and the seconds of all."""
    answers: list[Timed] = []
    highest = vocabulary(given)
    repeats = max(given.repeats, 2)

    def client() -> None:
        connection = Client(port)
        for _ in range(repeats):
            answers.append(connection.stream(random_ids(STREAM_PROMPT, highest), STREAM_ANSWER))

    start = time.perf_counter()
    threads = [threading.Thread(target=client) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if len(answers) != count * repeats:
        raise SystemExit("not every client was answered; see above")
    return answers, time.perf_counter() - start


def summary(answers: Sequence[Timed], seconds: float) -> dict[str, Any]:
    """Rates and percentiles. `writing`: mean rate of an answer behind its first token, times those writing at once."""
    tokens = sum(answer.tokens for answer in answers)
    gaps = [
        1000 * (two - one) for answer in answers for one, two in zip(answer.stamps, answer.stamps[1:], strict=False)
    ]
    spent = sum(answer.stamps[-1] - answer.stamps[0] for answer in answers)
    overlap = spent / (max(a.stamps[-1] for a in answers) - min(a.stamps[0] for a in answers))  # that wrote at once
    return {
        "answers": len(answers), "seconds": seconds, "rate": tokens / seconds,
        "writing": overlap * (tokens - len(answers)) / spent,
        "first": percentiles([answer.first for answer in answers]), "between": percentiles(gaps),
        "whole": percentiles([answer.seconds for answer in answers]),
    }  # fmt: skip


def percentiles(values: Sequence[float]) -> dict[str, float]:
    ordered = sorted(values)
    return {"median": middle(ordered), "p95": ordered[min(len(ordered) - 1, round(0.95 * len(ordered)))]}


# ---- beside another program


def busy(given: argparse.Namespace) -> tuple[dict[str, Any], list[str]]:
    path = files(given)[given.flavour, "q4_0"]
    ways = [(given.threads, {"GOMP_SPINCOUNT": spins}) for spins in (None, "100000", SPINS, "1000")]
    ways += [(given.threads, {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": None}), (1, {"GOMP_SPINCOUNT": SPINS})]
    rows: list[dict[str, Any]] = []
    for threads, environment in ways:
        with Engine("rinsho", path, threads, environment=environment) as engine:
            write(engine, 8)
            alone = [rate(write(engine, WRITE // 2)) for _ in range(2)]
            other = subprocess.Popen([sys.executable, "-c", "while True: pass"])
            try:
                beside = [rate(write(engine, WRITE // 8, depth=1)) for _ in range(2)]
            finally:
                other.kill()
                other.wait()
        rows.append({"threads": threads, "environment": environment, "alone": max(alone), "beside": beside})
        say(f"{threads} threads, {environment}: {max(alone):.1f}, {min(beside):.1f} to {max(beside):.1f}")
    cells = [
        [" ".join(f"{name}={value}" for name, value in row["environment"].items() if value) or "libgomp's default",
         str(row["threads"]), f"{row['alone']:.1f}", f"{min(row['beside']):.1f} to {max(row['beside']):.1f}"]
        for row in rows
    ]  # fmt: skip
    about = f"{given.preset} {given.flavour} q4_0, writing, tokens/s, alone and beside one process that never waits."
    return {"rows": rows}, [about, "", *table(["set", "threads", "alone", "beside it"], cells)]


# ---- overhead of a request


def overhead(given: argparse.Namespace) -> tuple[dict[str, Any], list[str]]:
    path = small(given)
    found: dict[str, Any] = {}
    with Engine("rinsho", path, given.threads) as rinsho, serve(given, path, "--slots", "1") as server:
        client = Client(server.port)
        for count in (1, WRITE):
            http, own = [], []
            for number in range(given.requests):
                text = f"{number}番。{TEXT}"  # no two begin alike
                start = time.perf_counter()
                tokens = client.answer(text, count)["usage"]["completion_tokens"]
                http.append(time.perf_counter() - start)
                own += rinsho.ask("text", texts=[text], count=tokens)["seconds"]  # type: ignore[arg-type]
            found[str(count)] = {"http": http[5:], "without": own[5:]}
    cells = []
    for name, row in found.items():
        one, other = 1000 * middle(row["http"]), 1000 * middle(row["without"])
        cells.append(
            [name, f"{other:.2f}", f"{one:.2f}", f"{one - other:.2f}", f"{1000 * percentiles(row['http'])['p95']:.2f}"]
        )
    header = ["tokens at most", "without HTTP, ms", "request, ms", "overhead, ms", "request, 95 %, ms"]
    about = (
        f"{SMALL} with random weights, q8_0, {given.threads} threads, medians of {given.requests - 5} requests on one "
        "kept connection."
    )
    return found, [about, "", *table(header, cells, text_columns=0)]


def small(given: argparse.Namespace) -> Path:
    """The GGUF file of a small random model, whose answers go on for as long as they are asked to."""
    return gguf_file(random_folder(given.out / "models" / SMALL, SMALL, given.model, given.seed), "llama", "q8_0")


# ---- memory


def resident(given: argparse.Namespace) -> tuple[dict[str, Any], list[str]]:
    rows: list[dict[str, Any]] = []
    for flavour in FLAVOURS:
        path = files(given)[flavour, "q4_0"]
        with serve(given, path) as server:
            start, window = memory(server.pid), json.loads(server.get("/v1/about"))["window"]
            Client(server.port).stream(random_ids(READ, vocabulary(given)), 4)
            after = memory(server.pid)
        rows.append({"flavour": flavour, "file": path.stat().st_size / 2**20, "cache": cache_size(given, 4 * window),
                     "start": start, "after": after})  # fmt: skip
    header = ["file", "size, MiB", "cache of 4 × window, MiB", "resident at the start, MiB", "after answers",
              "at most", "of it mapped file", "at most without cache"]  # fmt: skip
    cells = [
        [f"{row['flavour']} q4_0", *(f"{value:.0f}" for value in (
            row["file"], row["cache"], row["start"]["now"], row["after"]["now"], row["after"]["most"],
            row["after"]["files"], row["after"]["most"] - row["cache"]))]
        for row in rows
    ]  # fmt: skip
    about = "`rinsho serve` with its usual 4 slots of the model's window. Bound: 1.2 GiB = 1,229 MiB without cache."
    return {"rows": rows}, [about, "", *table(header, cells)]


def cache_size(given: argparse.Namespace, tokens: int) -> float:
    """MiB of keys and values."""
    config = json.loads((given.out / "models" / given.preset / "config.json").read_text())
    width = config["num_key_value_heads"] * config["hidden_size"] // config["num_attention_heads"]
    return tokens * CACHE_BYTES * int(width) * int(config["num_hidden_layers"]) / 2**20


# ---- load


def load(given: argparse.Namespace) -> tuple[dict[str, Any], list[str]]:
    from serve_load import hold

    path = small(given)
    found = hold(path, given.out / "load.log", given.seconds, given.clients, given.seed, given.threads)
    header = ["clients did", "times", "ended"]
    cells = [[kind, str(sum(ends.values())), ", ".join(f"{name} {count}" for name, count in sorted(ends.items()))]
             for kind, ends in sorted(found["ends"].items())]  # fmt: skip
    about = f"{given.clients} clients, {given.seconds:g} s; {SMALL} with random weights, q8_0, {given.threads} threads."
    before, after = found["before"], found["after"]
    left = (
        f"Faults: {len(found['faults'])}; texts in the log: {len(found['said'])}; uncounted answers: "
        f"{len(found['uncounted'])}; exit code {found['exit']}. Resident memory {before['now']:.0f} MiB before, "
        f"{after['now']:.0f} after, {after['most']:.0f} at most; files open {found['open'][0]} and {found['open'][1]}."
    )
    faults = [f"- {fault}" for fault in found["faults"][:20]]
    return found, [about, "", *table(header, cells, text_columns=3), "", left, *faults]


# ---- command line

PARTS: dict[str, Part] = {"raw": raw, "server": streams, "overhead": overhead, "memory": resident, "load": load}
EXTRA: dict[str, Part] = {"busy": busy}  # asked for by name


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=("all", *PARTS, *EXTRA), default="all")
    parser.add_argument("--model", type=Path, required=True, help="a tuned model, whose tokenizer is taken")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--preset", default="ncvc-slm-1", help="size of the random model (ncvc-slm-1)")
    parser.add_argument("--flavour", choices=FLAVOURS, default="llama", help="of the part `server` (llama)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3, help="of `raw` (3)")
    parser.add_argument("--repeats", type=int, default=2, help="answers a client in `server` (2)")
    parser.add_argument("--requests", type=int, default=105, help="of `overhead`, the first 5 uncounted (105)")
    parser.add_argument("--clients", type=int, default=64, help="of `load` (64)")
    parser.add_argument("--seconds", type=float, default=60, help="of `load` (60)")
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args()


def main() -> None:
    """Prints the tables."""
    given = parse()
    given.out.mkdir(parents=True, exist_ok=True)
    versions = ", ".join(f"{name} {version(name)}" for name in ("llama_cpp_python", "torch", "transformers"))
    about = f"Commit {commit()}, Python {platform.python_version()}, {versions}, {platform.machine()}"
    lines = [f"{about}. Load of the machine at the start: {os.getloadavg()[0]:.2f}.", ""]
    figures: dict[str, Any] = {"load": os.getloadavg()}
    for name in PARTS if given.part == "all" else (given.part,):
        start = time.perf_counter()
        figures[name], part = (PARTS | EXTRA)[name](given)
        say(f"{name}: {time.perf_counter() - start:.0f} s")
        lines += [f"## {name}", "", *part, ""]
        (given.out / "serve.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
        (given.out / "serve.md").write_text("\n".join(lines), encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
