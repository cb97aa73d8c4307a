"""The same model, the same questions: lm-evaluation-harness on our exported tasks beside `rinsho evaluate`.

    pip install lm_eval                                   # in an environment of its own, beside rinsho
    python benchmarks/evaluate_harness.py MODEL DATA... [--tasks smdis igakuqa] [--years 2018]

For every question with choices: our constrained answer and its log-probabilities, theirs, and the difference. MODEL is
a base model, or a chat model with --chat. No network is used.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

TIE = 1e-3  # nats; below it the order of two letters is rounding


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the table; 1 where an answer differs by more than rounding."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("data", type=Path, nargs="+")
    parser.add_argument("--tasks", nargs="+")
    parser.add_argument("--years", nargs="+", type=int)
    parser.add_argument("--chat", action="store_true")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--no-begin", action="store_true", help="leave the begin token to their use of the tokenizer")
    parser.add_argument("--json", type=Path, help="where all rows go")
    given = parser.parse_args(arguments)
    rows = compare(given.model, given.data, given.tasks, given.years,
                   chat=given.chat, batch_size=given.batch_size, given_begin=not given.no_begin)  # fmt: skip
    print(table(rows))
    if given.json:
        given.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    return int(any(row["differs"] for row in rows))


def compare(
    model: Path, data: Sequence[Path], tasks: Sequence[str] | None, years: Sequence[int] | None, *,
    chat: bool = False, batch_size: int = 8, given_begin: bool = True,
) -> list[dict[str, Any]]:  # fmt: skip
    """One row a question with choices: `task`, `id`, `ours`, `theirs`, `gap` (of our best two), `largest` (difference
    of a log-probability), `differs`, and whether the prompt was `shortened`."""
    os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
    from rinsho.evaluate import Recipe, harness, run
    from rinsho.generate.loading import load_tokenizer

    with tempfile.TemporaryDirectory() as folder:
        exported, answered = Path(folder, "tasks"), Path(folder, "answers")
        harness.write(data, exported, tasks=tasks, years=years)
        recipe = Recipe(
            tasks=None if tasks is None else tuple(tasks), years=None if years is None else tuple(years),
            modes=("constrained",), bootstrap_samples=10, plot=False, test_part="published", split="document",
        )  # fmt: skip
        run(recipe, [model, *data], answered)
        lines = (answered / "answers.jsonl").read_text(encoding="utf-8").split("\n")
        ours = {row["id"]: row for row in map(json.loads, filter(None, lines)) if row["logprobs"]}
        begin = load_tokenizer(model).bos_token_id if given_begin else None
        return [
            _row(task, doc, sums, ours[doc["id"]])
            for task, samples in _theirs(model, exported, chat, batch_size, begin).items()
            for doc, sums in samples
        ]


def _theirs(
    model: Path, exported: Path, chat: bool, batch_size: int, begin: int | None
) -> dict[str, list[tuple[Any, list[float]]]]:
    """Task -> (question, log-probability of every choice), from lm-evaluation-harness."""
    import lm_eval
    import torch
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    import rinsho.tokenization  # noqa: F401  AutoTokenizer knows our tokenizer from here on

    class Begun(HFLM):
        """Puts the begin token before a plain prompt where the tokenizer by itself does not and we do."""

        def tok_encode(self, string: str, add_special_tokens: bool | None = None, **rest: Any) -> list[int]:
            ids = list(super().tok_encode(string, add_special_tokens=add_special_tokens, **rest))
            missing = add_special_tokens is not False and not chat and begin is not None and ids[:1] != [begin]
            return [begin, *ids] if missing else ids  # type: ignore[list-item]

    names = json.loads((exported / "rinsho-tasks.json").read_text(encoding="utf-8"))["tasks"]
    ending = "_chat" if chat else ""
    names = [f"{name}{ending}" for name in names if "multiple_choice" in (exported / f"{name}.yaml").read_text()]
    device = "cuda" if torch.cuda.is_available() else "cpu"
    lm = Begun(pretrained=str(model), dtype="float32", device=device, trust_remote_code=False, batch_size=batch_size)
    found: Any = lm_eval.simple_evaluate(
        model=lm, tasks=names, task_manager=TaskManager(include_path=str(exported), include_defaults=False),
        apply_chat_template=chat, log_samples=True, bootstrap_iters=0,
    )  # fmt: skip
    for name in names:
        figures = {key: value for key, value in found["results"][name].items() if "," in key and "_stderr" not in key}
        print(name, figures, file=sys.stderr)
    return {
        name: [(row["doc"], [float(answer[0]) for answer in row["filtered_resps"]]) for row in found["samples"][name]]
        for name in names
    }


def _row(task: str, doc: dict[str, Any], sums: Sequence[float], answer: dict[str, Any]) -> dict[str, Any]:
    theirs = doc["letters"][max(range(len(sums)), key=sums.__getitem__)]
    values = answer["logprobs"]
    best = sorted(values, reverse=True)
    gap = best[0] - best[1]
    return {
        "task": task, "id": doc["id"], "ours": answer["answer"], "theirs": theirs, "gap": gap,
        "largest": max(abs(first - second) for first, second in zip(values, sums, strict=True)),
        "right": [answer["answer"] in doc["accepted"], theirs in doc["accepted"]],
        "differs": answer["answer"] != theirs and gap > TIE and not answer["shortened"],
        "shortened": bool(answer["shortened"]),
    }  # fmt: skip


def table(rows: Sequence[dict[str, Any]]) -> str:
    """One line a task. The largest difference of a log-probability is that of prompts that fit the model's window."""
    lines = ["| task | questions | same answer | other: rounding | other: too long | other | ours | theirs "
             "| largest difference |", "|---|---:|---:|---:|---:|---:|---:|---:|---:|"]  # fmt: skip
    for task in dict.fromkeys(row["task"] for row in rows):
        part = [row for row in rows if row["task"] == task]
        others = [row for row in part if row["ours"] != row["theirs"]]
        long, other = (sum(row[name] for row in others) for name in ("shortened", "differs"))
        ours, theirs = (sum(row["right"][side] for row in part) / len(part) for side in (0, 1))
        largest = max((row["largest"] for row in part if not row["shortened"]), default=0.0)
        lines.append(
            f"| {task} | {len(part)} | {len(part) - len(others)} | {len(others) - long - other} | {long} | {other} "
            f"| {ours:.3f} | {theirs:.3f} | {largest:.1e} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
