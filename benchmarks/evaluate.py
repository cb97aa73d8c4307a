"""The evaluation room measured: answers in batches against one by one, shared beginnings, scoring of stored answers.

    python benchmarks/evaluate.py --part speed --model MODEL --data JMED_LLM IGAKUQA --years 2021 --out FOLDER
    python benchmarks/evaluate.py --part prefix --model MODEL --data JMED_LLM IGAKUQA --out FOLDER
    python benchmarks/evaluate.py --part scoring --data JMED_LLM IGAKUQA --out FOLDER [--answers answers.jsonl]

`speed`: free answers of `rinsho.evaluate` beside those of transformers' `generate` with one prompt at a time, greedy,
with the same prompts, limits and stops, in one process; with --share N a random part of the questions. Each answer that
differs is listed with the gap between the two largest logits where it begins to differ, of a batch of one; a gap under
1e-4 is a tie. `prefix`: reading prompts with and without sharing their beginning, of zero-shot and few-shot questions
and by length of the beginning. `scoring`: the tables of 100,000 stored answers, made by repeating the questions,
bootstrap apart. Wall seconds need an idle machine; the processor's seconds stand beside them. The tables go to the
terminal and to OUT/<part>.md, all figures to OUT/<part>.json.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from finetune import commit, table

TIE = 1e-4  # gap of the two largest logits under which rounding may choose
PREFIXES, ROWS, REST = (8, 16, 32, 64, 128, 256), (2, 4, 16), 64  # ids that are shared, prompts, ids that follow
REPEATS = 3
SAID = ("{}", "正解は{}です。", "{}. と考えられる", "選択肢のうち適切なものは {} である", "わからない")  # of a letter


class Cost(NamedTuple):
    """Seconds by the clock and of the processor's cores."""

    wall: float
    processor: float


@contextmanager
def measured(into: list[Cost]) -> Iterator[None]:
    """Appends what the block cost."""
    wall, processor = time.perf_counter(), time.process_time()
    yield
    into.append(Cost(time.perf_counter() - wall, time.process_time() - processor))


# ---- the questions


def questions(given: argparse.Namespace) -> list[Any]:
    """The test questions of the data, or a random share of them."""
    from rinsho.tasks import Splitting, read_data

    years = tuple(given.years) if given.years else None
    items = read_data(given.data, "test", splitting(given) or Splitting(), given.tasks, years)
    if given.share < 1:
        chosen = set(random.Random(given.seed).sample(range(len(items)), max(1, round(given.share * len(items)))))
        items = [item for place, item in enumerate(items) if place in chosen]
    return items


def splitting(given: argparse.Namespace) -> Any:
    from rinsho.evaluate.facts import read_facts

    return read_facts(given.model).splitting if given.model else None


def asking(given: argparse.Namespace, model: Any, items: Sequence[Any] = (), few_shot: int = 0) -> Any:
    """How the model is asked: as it was tuned, else as in the benchmark."""
    from rinsho.evaluate.facts import read_facts
    from rinsho.tasks import Splitting, examples, read_train
    from rinsho.tasks.asking import Asking

    facts = read_facts(given.model)
    shown = {}
    if few_shot:
        train, _ = read_train(given.data, facts.splitting or Splitting())
        shown = examples.choose(items, train, few_shot, data=given.data, seed=given.seed)
    limits = given.max_new_tokens, given.max_new_tokens_choice
    return Asking(model, facts.form or "letter", *limits, prompt_form=facts.prompt_form, examples=shown)


def ask(given: argparse.Namespace, model: Any, items: Sequence[Any], name: str) -> list[dict[str, Any]]:
    """The free answers, as an evaluation stores them."""
    from rinsho.evaluate.ask import answer_all
    from rinsho.run import Stage

    folder = given.out / name
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "partial").mkdir(parents=True)
    path = answer_all(Stage(f"evaluate: {name}", folder), asking(given, model), items, ["free"])
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


# ---- speed


class Kept:
    """A model that answers and remembers what it said."""

    def __init__(self, generator: Any, generate: Callable[..., list[list[int]]]) -> None:
        self.tokenizer, self.window, self._generate = generator.tokenizer, generator.window, generate
        self.said: dict[tuple[int, ...], list[int]] = {}

    def generate(
        self, prompts: Sequence[Sequence[int]], max_new_tokens: int, stop_ids: Sequence[int] | None = None
    ) -> list[list[int]]:
        answers = self._generate(prompts, max_new_tokens, stop_ids=stop_ids)
        self.said |= {tuple(prompt): list(answer) for prompt, answer in zip(prompts, answers, strict=True)}
        return answers


def one_by_one(generator: Any) -> Callable[..., list[list[int]]]:
    """What transformers' `generate` says to each prompt alone, called as `Generator.generate`."""
    import torch

    def generate(
        prompts: Sequence[Sequence[int]], max_new_tokens: int, stop_ids: Sequence[int] | None = None
    ) -> list[list[int]]:
        stops = [generator.end_id] if stop_ids is None else list(stop_ids)
        answers = []
        for prompt in prompts:
            found = generator.model.generate(
                torch.tensor([list(prompt)]),
                attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
                max_new_tokens=min(max_new_tokens, generator.window - len(prompt) + 1),
                do_sample=False,
                eos_token_id=stops,
                pad_token_id=generator.end_id,
            )
            answer = found[0, len(prompt) :].tolist()
            answers.append(answer[:-1] if answer and answer[-1] in stops else answer)
        return answers

    return generate


def differences(generator: Any, ours: Kept, peer: Kept, names: dict[tuple[int, ...], str]) -> list[dict[str, Any]]:
    """What was answered otherwise, with the gap of the two largest logits at the first other id."""
    import torch

    found = []
    for prompt, answer in ours.said.items():
        other = peer.said.get(prompt)
        if other is None or other == answer:  # a second call whose first one differed has other prompts
            continue
        same = next((n for n, (a, b) in enumerate(zip(answer, other, strict=False)) if a != b), None)
        same = min(len(answer), len(other)) if same is None else same
        with torch.inference_mode():
            logits = generator.model(torch.tensor([[*prompt, *answer[:same]]]), logits_to_keep=1).logits[0, -1]
        first, second = logits.topk(2).values.tolist()
        asked = max((ids for ids in names if prompt[: len(ids)] == ids), key=len)  # a second call goes on behind it
        found.append({"id": names[asked], "token": same, "of": len(other), "gap": first - second})
    return found


def speed(given: argparse.Namespace) -> tuple[dict[str, Any], list[str]]:
    import torch

    from rinsho.evaluate.ask import by_task
    from rinsho.generate.engine import Generator

    torch.set_num_threads(given.threads)
    generator, items = Generator(given.model), questions(given)
    names = {tuple(asking(given, generator).fit(item)[0]): item.id for item in items}
    ours, peer = Kept(generator, generator.generate), Kept(generator, one_by_one(generator))
    rows: list[dict[str, Any]] = []
    for task, group in by_task(items):
        costs: list[Cost] = []
        answers = []
        for model, name in ((ours, "ours"), (peer, "one-by-one")):
            with measured(costs):
                answers.append(ask(given, model, group, f"{name}/{task}"))
        pairs = list(zip(*answers, strict=True))
        rows.append({
            "task": task, "n": len(group), "tokens": sum(row["tokens"] for row in answers[0]),
            "identical": sum(one == other for one, other in pairs), "ours": costs[0], "peer": costs[1],
        })  # fmt: skip
        print(f"{task}: {costs[0].wall:.1f} s, one by one {costs[1].wall:.1f} s", file=sys.stderr, flush=True)
    lists = differences(generator, ours, peer, names)
    whole = {"task": "all", **{key: sum(row[key] for row in rows) for key in ("n", "tokens", "identical")}}
    whole |= {side: Cost(*map(sum, zip(*(row[side] for row in rows), strict=True))) for side in ("ours", "peer")}
    rows.append(whole)
    cells = [
        [row["task"], str(row["n"]), f"{row['tokens'] / row['n']:.1f}", f"{row['ours'].wall:.1f}",
         f"{row['peer'].wall:.1f}", f"{row['peer'].wall / row['ours'].wall:.2f}×",
         f"{row['ours'].processor:.1f} / {row['peer'].processor:.1f}", f"{row['identical']} of {row['n']}"]
        for row in rows
    ]  # fmt: skip
    header = ["task", "n", "tokens an answer", "ours, s", "one by one, s", "times as fast", "processor, s", "identical"]
    lines = [f"{given.threads} threads, share {given.share:g} of the questions.", "", *table(header, cells), ""]
    lines += [f"Calls that differ: {len(lists)}; ties (gap under {TIE:g}): {sum(row['gap'] < TIE for row in lists)}."]
    lines += [f"- {row['id']}: token {row['token']} of {row['of']}, gap {row['gap']:.2e}" for row in lists]
    kept = [row | {side: row[side]._asdict() for side in ("ours", "peer")} for row in rows]
    return {"rows": kept, "differences": lists, "threads": given.threads, "share": given.share}, lines


# ---- prefix


def prefix(given: argparse.Namespace) -> tuple[dict[str, Any], list[str]]:
    import torch

    from rinsho.evaluate.ask import by_task
    from rinsho.generate.engine import Generator
    from rinsho.tasks.examples import group as examples_of

    torch.set_num_threads(given.threads)
    generator = Generator(given.model)
    items = [item for item in questions(given) if item.kind == "choice"]
    found: dict[str, Any] = {"tasks": [], "lengths": []}
    for few_shot in (0, given.few_shot):
        asked = asking(given, generator, items, few_shot)
        for task, group in by_task(items):
            parts: dict[str, list[list[int]]] = {}
            for item in group:
                ids = asked.fit(item)[0]
                if len(ids) < generator.window:
                    parts.setdefault(examples_of(item), []).append(ids)
            prompts = list(parts.values())
            lengths = [len(ids) for part in prompts for ids in part]
            row = {"task": task, "few_shot": few_shot, "n": len(lengths), "tokens": statistics.mean(lengths)}
            found["tasks"].append(row | read_costs(generator, prompts))
    draw = random.Random(given.seed)
    for shared in PREFIXES:
        for rows in ROWS:
            start = [draw.randrange(3, generator.model.config.vocab_size) for _ in range(shared)]
            rests = [[draw.randrange(3, generator.model.config.vocab_size) for _ in range(REST)] for _ in range(rows)]
            costs = read_costs(generator, [[[*start, *rest] for rest in rests]], always=True)
            found["lengths"].append({"shared": shared, "rows": rows, **costs})
    cells = [
        [f"{row['task']}, {row['few_shot']} examples", str(row["n"]), f"{row['tokens']:.0f}", f"{row['whole']:.2f}",
         f"{row['shared_seconds']:.2f}", f"{row['whole'] / row['shared_seconds']:.2f}×", f"{row['largest']:.1e}"]
        for row in found["tasks"]
    ]  # fmt: skip
    header = ["task", "n", "tokens a prompt", "read whole, processor s", "shared", "times as fast", "largest change"]
    lines = [f"{given.threads} threads; the change is that of a log-probability.", "", *table(header, cells), ""]
    cells = [
        [str(row["shared"]), str(row["rows"]), f"{row['whole'] * 1e3:.1f}", f"{row['shared_seconds'] * 1e3:.1f}",
         f"{row['whole'] / row['shared_seconds']:.2f}×"]
        for row in found["lengths"]
    ]  # fmt: skip
    header = ["ids shared", "prompts", f"read whole with {REST} more, processor ms", "shared", "times as fast"]
    return found, [*lines, *table(header, cells, text_columns=0)]


def read_costs(generator: Any, parts: Sequence[Sequence[Sequence[int]]], always: bool = False) -> dict[str, float]:
    """Processor seconds of reading parts of prompts whole and with what a batch shares read once, the best of a few.

    With `always` it is shared where it does not pay, too.
    """
    from rinsho.generate import cache

    usual = cache.SHARED_TOKENS, cache.SAVED_TOKENS
    seconds: dict[str, float] = {}
    values: dict[str, list[float]] = {}
    try:
        for name, limits in (("whole", (1 << 30, 0)), ("shared_seconds", (1, 0) if always else usual)):
            cache.SHARED_TOKENS, cache.SAVED_TOKENS = limits
            costs: list[Cost] = []
            for _ in range(REPEATS):
                generator._reader.prefix = None
                with measured(costs):
                    sums = [generator.choose(part, [[[5], [6]]] * len(part)) for part in parts]
            seconds[name] = min(cost.processor for cost in costs)
            values[name] = [value for part in sums for row in part for value in row]
    finally:
        cache.SHARED_TOKENS, cache.SAVED_TOKENS = usual
    pairs = zip(values["whole"], values["shared_seconds"], strict=True)
    return {**seconds, "largest": max(abs(one - other) for one, other in pairs)}


# ---- scoring


def scoring(given: argparse.Namespace) -> tuple[dict[str, Any], list[str]]:
    from rinsho.evaluate.inputs import read_answers
    from rinsho.evaluate.scoring import Baselines, Scoring

    items = questions(given)
    stored = read_answers(given.answers) if given.answers else {}
    draw = random.Random(given.seed)
    repeated = [
        (replace(items[n % len(items)], id=f"{items[n % len(items)].id}/{n}"), items[n % len(items)])
        for n in range(given.count)
    ]
    file = given.out / "stored.jsonl"
    with file.open("w", encoding="utf-8") as out:
        for copy, item in repeated:
            row = stored.get((item.id, "free", 0), {"answer": made_up(item, draw)})
            out.write(json.dumps({"id": copy.id, "mode": "free", **{"answer": row["answer"]}}) + "\n")
    copies = [copy for copy, _ in repeated]
    costs: list[Cost] = []
    with measured(costs):
        answers = read_answers(file)
    for samples in (1, given.samples):
        with measured(costs):
            Scoring(answers, Baselines(), samples, given.seed, None).tables(copies, ["free"])
    reading, tables, whole = costs
    found = {
        "answers": given.count, "reading": reading.wall, "tables": tables.wall,
        "bootstrap": whole.wall - tables.wall, "samples": given.samples,
        "processor": {"reading": reading.processor, "tables": tables.processor, "whole": whole.processor},
    }  # fmt: skip
    cells = [[f"{given.count:,}", f"{reading.wall:.2f}", f"{tables.wall:.2f}",
              f"{reading.wall + tables.wall:.2f} ({reading.processor + tables.processor:.2f})",
              f"{whole.wall - tables.wall:.2f}"]]  # fmt: skip
    header = ["answers", "reading, s", "scoring, s", "both, s (processor)", f"bootstrap of {given.samples}, s"]
    return found, table(header, cells, text_columns=0)


def made_up(item: Any, draw: random.Random) -> str:
    """An answer as models give them: the right one, a wrong one, or one in prose."""
    if item.kind == "entities":
        starts = [draw.randrange(max(1, len(item.passage))) for _ in range(draw.randrange(6))]
        spans = [item.passage[start : start + draw.randrange(1, 9)] for start in starts]
        return repr(draw.choice([list(item.gold), spans]))
    if item.kind == "number":
        return str(draw.randrange(100))
    letter = draw.choice([*item.gold, *"ABCDE"[: max(2, len(item.options))]])
    return draw.choice(
        ["{}", "正解は{}です。", "{}. と考えられる", "選択肢のうち適切なものは {} である", "わからない"]
    ).format(letter)


# ---- command line


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=("speed", "prefix", "scoring"), required=True)
    parser.add_argument("--model", type=Path, help="a model folder, for speed and prefix")
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="folders of benchmarks")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--years", type=int, nargs="+", help="of IgakuQA (all)")
    parser.add_argument("--tasks", nargs="+", help="these alone (all)")
    parser.add_argument("--share", type=float, default=1.0, help="of the questions, drawn by the seed (1)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--few-shot", type=int, default=3, help="prefix: solved examples (3)")
    parser.add_argument("--max-new-tokens", type=int, default=512, help="of an entity answer (512)")
    parser.add_argument("--max-new-tokens-choice", type=int, default=64, help="of a choice (64)")
    parser.add_argument("--answers", type=Path, help="scoring: answers.jsonl whose texts are repeated, else made up")
    parser.add_argument("--count", type=int, default=100_000, help="scoring: answers (100,000)")
    parser.add_argument("--samples", type=int, default=1000, help="scoring: draws of the bootstrap (1000)")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    if not given.model and given.part != "scoring":
        parser.error("--model is missing")
    return given


def main() -> None:
    """Prints the tables."""
    given = parse()
    given.out.mkdir(parents=True, exist_ok=True)
    found, lines = {"speed": speed, "prefix": prefix, "scoring": scoring}[given.part](given)
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("torch", "transformers"))
    about = f"Commit {commit()}, Python {platform.python_version()}, {versions}, {platform.machine()}"
    text = "\n".join([f"{about}.", "", *lines]) + "\n"
    (given.out / f"{given.part}.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    (given.out / f"{given.part}.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
