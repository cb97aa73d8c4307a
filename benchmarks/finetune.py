"""The fine-tuning room measured: methods beside each other, what the split of the data does, TRL as a peer.

    python benchmarks/finetune.py --part variants --model MODEL --meadow FILE.json --data JMED_LLM --out FOLDER
    python benchmarks/finetune.py --part splits --model MODEL --data JMED_LLM --out FOLDER [--own] [--lexicon FILE]
    python benchmarks/finetune.py --part peer --model MODEL --data JMED_LLM --out FOLDER    # pip install trl accelerate

`variants`: full tuning, LoRA, LoRA on LLM.int8, QLoRA and 8-bit optimizer states on the same rows for --steps steps.
`splits`: the same recipe and number of steps on the training parts `row` and `document` (with --own also with a test
part drawn anew), and the scores of all tasks side by side. Both go through the command line, a process for each run,
and read every figure from the files the runs wrote; started again, they go on where they were. `peer`: see
`finetune_peer.py`. The tables go to the terminal and to OUT/<part>.md.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

LAST = 10  # steps whose mean loss stands in the table
SCORED = ("smdis", "rrtnm", "jcsts")  # tasks whose scores stand beside the variants
LORA = {"method": "lora", "rank": 8, "alpha": 16}  # M-3
QUERY_VALUE = {**LORA, "target_modules": ["q_proj", "v_proj"]}  # M-3
ALL_LINEAR = {**LORA, "target_modules": "all-linear"}  # arXiv 2305.14314: as many layers as QLoRA adapts


class Variant(NamedTuple):
    """A row of the table; `beside`: the variant whose loss it is compared with."""

    name: str
    settings: dict[str, Any]
    beside: str | None = None


VARIANTS = (
    Variant("full", {}),
    Variant("full, 8-bit AdamW", {"optimizer": "adamw_8bit"}, "full"),
    Variant("LoRA q, v", {"adapter": QUERY_VALUE}),
    Variant("LoRA q, v on LLM.int8", {"adapter": QUERY_VALUE, "quantization": "int8"}, "LoRA q, v"),
    Variant("LoRA q, v on NF4", {"adapter": QUERY_VALUE, "quantization": "nf4"}, "LoRA q, v"),
    Variant("LoRA all-linear", {"adapter": ALL_LINEAR}),
    Variant("QLoRA: all-linear on NF4", {"adapter": ALL_LINEAR, "quantization": "nf4"}, "LoRA all-linear"),
)
# As recipes/real-small.yaml; --steps times batch_tokens is the budget, 15 % of it for the copying warm-up.
SPLIT_SETTINGS = {
    "prompt_form": "short",
    "answer_form": "letter",
    "task_weights": {"smdis": 0.1},
    "sequence_length": 1024,
    "batch_tokens": 2048,
    "save_every_steps": 50,
}
COPY_SHARE = 0.15
TRIVIAL = {"naive_bayes": "n-gram Bayes", "copy_lexicon": "copy lexicon"}


# ---- running


def rinsho(*words: object, log: Path) -> str:
    """What a command of rinsho prints; a process of its own, whose messages go to `log`.

    Raises:
        CalledProcessError: it failed; the log says why.
    """
    command = [sys.executable, "-m", "rinsho", *map(str, words)]
    with log.open("a", encoding="utf-8") as file:
        file.write(f"$ {shlex.join(command[1:])}\n")
        file.flush()
        return subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=file, text=True).stdout


def settings(section: str, values: dict[str, Any]) -> list[str]:
    """Settings as words of a command line."""
    words: list[str] = []
    for key, value in values.items():
        words += ["--set", f"{section}.{key}={json.dumps(value)}"]
    return words


def tune(given: argparse.Namespace, data: Sequence[Path], values: dict[str, Any], out: Path) -> dict[str, Any]:
    """Tunes into `out` unless that is done; returns the report's numbers."""
    common = {"device": given.device, "dtype": given.dtype, "log_every_steps": 1, "seed": given.seed}
    if given.threads:
        common["threads"] = given.threads
    out.parent.mkdir(parents=True, exist_ok=True)
    words = [*settings("finetune", {**common, **values}), "--out", out]
    rinsho("finetune", given.model, *data, *words, log=out.parent / "log.txt")
    return numbers(out)


def evaluate(given: argparse.Namespace, model: Path, values: dict[str, Any], out: Path) -> dict[str, Any]:
    """Scores of a model folder in constrained form; returns the report's numbers."""
    if given.threads:
        values = {**values, "threads": given.threads}
    lexicon = [given.lexicon] if given.lexicon else []
    words = [*settings("evaluate", {"modes": ["constrained"], **values}), "--out", out]
    if given.lexicon and given.lexicon_column:
        words += settings("evaluate", {"lexicon_column": given.lexicon_column})
    rinsho("evaluate", model, *given.data, *lexicon, *words, log=out.parent / "log.txt")
    return numbers(out)


def numbers(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "report.json").read_text(encoding="utf-8"))["numbers"]
    return found


def about(folder: Path) -> str:
    """Machine, versions and commit of a run, from its manifest."""
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    machine, names = manifest["machine"], ("torch", "transformers", "peft", "bitsandbytes")
    versions = [f"{name} {manifest['packages'].get(name) or version(name)}" for name in names]
    python, commit = f"Python {machine['python']}", str(manifest.get("commit"))[:7]
    return ", ".join([f"Commit {commit}", f"{machine['system']}", f"{machine['cores']} cores", python, *versions])


def commit() -> str:
    """Of the checkout this script lies in."""
    words = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    try:
        return subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def version(name: str) -> str:
    from importlib import metadata

    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


def table(header: Sequence[str], rows: Iterable[Sequence[str]], text_columns: int = 1) -> list[str]:
    """Markdown; the columns after the first ones are numbers."""
    lines = ["| " + " | ".join(header) + " |"]
    lines.append("| --- " * text_columns + "| ---: " * (len(header) - text_columns) + "|")
    return lines + ["| " + " | ".join(row) + " |" for row in rows]


# ---- variants


def variants(given: argparse.Namespace) -> str:
    """The variants on each data set, and their table."""
    sets: dict[str, tuple[list[Path], dict[str, Any]]] = {}
    if given.meadow:  # M-3: 256 tokens, the loss on the whole text
        sets["Medical Meadow"] = ([given.meadow], {"prompt_template": "alpaca", "learn": "all", "sequence_length": 256})
    if given.data:
        sets["JMED-LLM"] = (given.data, {**SPLIT_SETTINGS, "sequence_length": 512})
    lines: list[str] = []
    for name, (data, values) in sets.items():
        budget = {"batch_tokens": 2048, "max_tokens": 2048 * given.steps, "warmup_steps": min(20, given.steps // 5)}
        shared = {**values, **budget, "save_every_steps": given.steps}
        wanted = [variant for variant in VARIANTS if not given.only or variant.name in given.only]
        rows = [one_variant(given, name, data, shared, variant) for variant in wanted]
        lines += ["", f"### {name}, {given.steps} steps of 2,048 tokens", "", *variant_tables(rows)]
    found = next(iter(sorted(given.out.glob("variants/*/*/finetune/manifest.json"))), None)
    return "\n".join([about(found.parent) + ".", *lines] if found else ["No variant ran to its end.", *lines]) + "\n"


def one_variant(
    given: argparse.Namespace, name: str, data: Sequence[Path], shared: dict[str, Any], variant: Variant
) -> dict[str, Any]:
    """Tuning, merging and scoring of a variant; a failure is a result, too."""
    folder = given.out / "variants" / slug(name) / slug(variant.name)
    folder.mkdir(parents=True, exist_ok=True)
    row: dict[str, Any] = {"variant": variant}
    adapter = "adapter" in variant.settings
    rate = given.adapter_rate if adapter else given.rate
    values = {"optimizer": "adamw", "learning_rate": rate, **shared, **variant.settings}
    try:
        row |= figures(tune(given, data, values, folder / "finetune"), folder / "finetune")
        if adapter:
            row |= merge_changes(folder)
        if given.evaluate and name == "JMED-LLM":
            few = {"max_items": given.evaluate, "tasks": list(SCORED)}
            row["scores"] = evaluate(given, folder / "finetune", few, folder / "evaluate")["scores"]
    except subprocess.CalledProcessError as problem:
        said = [line for line in (folder / "log.txt").read_text(encoding="utf-8").splitlines() if line.strip()]
        row["error"] = f"exit status {problem.returncode}: {said[-1][:200]}"
    except Exception as problem:  # a variant that cannot be read must not end the others
        row["error"] = f"{type(problem).__name__}: {str(problem)[:200]}"
    print(f"{name}, {variant.name}: {row.get('error') or round(row['loss'], 4)}", file=sys.stderr, flush=True)
    return row


def figures(report: dict[str, Any], folder: Path) -> dict[str, Any]:
    """What the table needs of a tuning."""
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    steps = [row for row in map(json.loads, lines) if "loss" in row]
    return {
        "trained": report["trained_parameters"],
        "parameters": report["parameters"],
        "last_loss": steps[-1]["loss"],
        "loss": statistics.mean(row["loss"] for row in steps[-LAST:]),
        "predicted": report["predicted_memory_gib"],
        "measured": report["measured_memory_gib"],
        "seconds": report["seconds_per_step"],
        "speed": statistics.median(row["tokens_per_second"] for row in steps),
    }


def merge_changes(folder: Path) -> dict[str, float]:
    """The largest changes of a logit by merging, as the command says them; asked once, the merged folder is not kept.

    `merge`: full precision before and after; `as_trained`: the merged model against the base as it was trained on.
    """
    kept = folder / "merge.md"
    if not kept.is_file():
        said = rinsho("adapter", "merge", folder / "finetune", "--out", folder / "merged", log=folder / "log.txt")
        shutil.rmtree(folder / "merged")
        kept.write_text(said, encoding="utf-8")
    rows = re.findall(r"^\| (.+?) \| (\d\.\d+e[+-]\d+) \|", kept.read_text(encoding="utf-8"), re.MULTILINE)
    found = {("as_trained" if "as trained" in name else "merge"): float(value) for name, value in rows}
    return {"merge": found["merge"], **found}


def variant_tables(rows: Sequence[dict[str, Any]]) -> list[str]:
    done = {row["variant"].name: row for row in rows if "error" not in row}
    cells, scored = [], []
    for name, row in done.items():
        beside = done.get(row["variant"].beside or "")
        gap = f"{row['loss'] / beside['loss'] - 1:+.2%}" if beside else ""
        seconds = "-" if row["seconds"] is None else f"{row['seconds']:.2f}"
        cells.append([
            name, f"{row['trained']:,}", f"{row['trained'] / row['parameters']:.2%}", f"{row['last_loss']:.4f}",
            f"{row['loss']:.4f}", gap, f"{row['predicted']:.2f} / {row['measured']:.2f}", seconds,
            f"{row['speed']:,.0f}", " / ".join(f"{row[key]:.1e}" for key in ("merge", "as_trained") if key in row),
        ])  # fmt: skip
        parts = [f"{score['score']:.3f} {interval(score)}" for score in row.get("scores", ())]
        if parts:
            scored.append([name, *parts])
    header = ["variant", "trained", "share", "last loss", f"mean of last {LAST}", "gap", "GiB, predicted / measured"]
    lines = table([*header, "s a step", "tokens/s, median step", "largest logit change by merging"], cells)
    notes = [
        f"- {name} is compared with {row['variant'].beside}" for name, row in done.items() if row["variant"].beside
    ]
    lines += [
        "",
        "Gap: of the mean loss, relative. Logit change: merged in full precision / against the base as trained on.",
        "",
        *notes,
    ]
    if scored:
        first = next(row["scores"] for row in done.values() if "scores" in row)
        heads = [f"{row['task']} (n {row['n']}, chance {row['chance']:.3f})" for row in first]
        lines += ["", *table(["variant", *heads], scored)]
    failed = [f"- {row['variant'].name}: {row['error']}" for row in rows if "error" in row]
    return lines + (["", "Not measured:", "", *failed] if failed else [])


def interval(score: dict[str, Any]) -> str:
    low, high = score["interval"]
    return f"({low:.3f}–{high:.3f})"


def slug(name: str) -> str:
    return re.sub(r"\W+", "-", name.lower()).strip("-")


# ---- splits


def splits(given: argparse.Namespace) -> str:
    """The same tuning on each training part, and all scores side by side."""
    parts: dict[str, dict[str, Any]] = {"row": {"split": "row"}, "document": {"split": "document"}}
    if given.own:
        parts["own"] = {"split": "document", "test_part": "own"}
    budget = SPLIT_SETTINGS["batch_tokens"] * given.steps
    shared = {**SPLIT_SETTINGS, "max_tokens": budget, "copy_tokens": int(COPY_SHARE * budget)}
    tuned, scored = {}, {}
    for name, values in parts.items():
        folder = given.out / "splits" / name
        tuned[name] = tune(given, given.data, {**shared, **values}, folder / "finetune")
        few = {"max_items": given.evaluate} if given.evaluate else {}
        scored[name] = evaluate(given, folder / "finetune", few, folder / "evaluate")
        print(f"{name}: done", file=sys.stderr, flush=True)
    lines = [about(given.out / "splits" / "row" / "finetune") + ".", ""]
    cells = [
        [name, f"{row['steps']:,}", f"{row['seen_tokens']:,}", f"{row['train_documents']:,}", f"{row['epochs']:.2f}",
         f"{row['loss']:.4f}", "-" if row["seconds_per_step"] is None else f"{row['seconds_per_step']:.2f}"]
        for name, row in tuned.items()
    ]  # fmt: skip
    header = ["training part", "steps", "tokens seen", "documents", "epochs", "last loss", "s a step"]
    return "\n".join([*lines, *table(header, cells), "", *split_table(scored)]) + "\n"


def split_table(scored: dict[str, dict[str, Any]]) -> list[str]:
    """One row a task: chance and trivial baselines, then each training part with the share of known test passages."""
    names = list(scored)
    rows = {name: {row["task"]: row for row in found["scores"]} for name, found in scored.items()}
    known = {name: {row["task"]: row["share"] for row in found["leakage"]} for name, found in scored.items()}
    cells = []
    for task in dict.fromkeys(task for found in rows.values() for task in found):
        first = next(found[task] for found in rows.values() if task in found)
        line = [task, first["metric"], str(first["n"]), number(first["chance"])]
        for name in names:
            row = rows[name].get(task)
            if row is None:
                line += ["", "", "", ""]
                continue
            trivial = ", ".join(f"{TRIVIAL.get(key, key)} {number(value)}" for key, value in row["baselines"].items())
            score = f"{number(row['score'])} {interval(row)}"
            score = f"**{score}**" if row["above_chance"] else score
            if (row["n"], row["chance"]) != (first["n"], first["chance"]):  # a test part of its own
                score += f", n {row['n']}, chance {number(row['chance'])}"
            share = f"{known[name][task]:.0%}" if task in known[name] else "?"
            apart = " / ".join(number((row[part] or {}).get("score")) for part in ("leaked", "clean"))
            line += [trivial, score, share, apart]
        cells.append(line)
    header = ["task", "metric", "n", "chance"]
    for name in names:
        header += [f"{name}: trivial", f"{name}: score (95 %)", "passages known", "score on known / other"]
    note = "**Bold**: the whole interval is above chance. Constrained answers, short prompts: not comparable with"
    return [*table(header, cells, text_columns=2), "", f"{note} published scores."]


def number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


# ---- command line


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=("variants", "splits", "peer"), required=True)
    parser.add_argument("--model", type=Path, required=True, help="the base, a model folder")
    parser.add_argument("--data", type=Path, nargs="+", default=[], help="folders of JMED-LLM")
    parser.add_argument("--meadow", type=Path, help="a file of Medical Meadow, for variants and peer")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=100, help="of 2,048 tokens (100)")
    parser.add_argument("--evaluate", type=int, metavar="N", help="questions a task (variants: none, splits: all)")
    parser.add_argument("--own", action="store_true", help="splits: also a test part drawn anew")
    parser.add_argument("--lexicon", type=Path, help="splits: word list of the copy-the-lexicon baseline")
    parser.add_argument("--lexicon-column", help="its column of terms")
    names = [variant.name for variant in VARIANTS]
    parser.add_argument("--only", nargs="+", choices=names, metavar="NAME", default=[], help="variants: these alone")
    parser.add_argument("--rate", type=float, default=0.001, help="variants: peak rate of full tuning")
    parser.add_argument("--adapter-rate", type=float, default=0.004, help="variants and peer: of adapters")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--dtype", default="auto", choices=("auto", "bf16", "fp32"))
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--pairs", type=int, default=3, help="peer: measurements of each side")
    parser.add_argument("--full", action="store_true", help="peer: the whole model instead of LoRA")
    parser.add_argument("--side", choices=("rinsho", "trl"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if not given.data and (given.part == "splits" or not given.meadow):
        parser.error("--data is missing")
    return given


def main() -> None:
    """Prints the tables."""
    given = parse()
    given.out.mkdir(parents=True, exist_ok=True)
    if given.part == "peer":
        import finetune_peer

        if given.side:
            print(json.dumps(finetune_peer.measure(given)))
            return
        lines = finetune_peer.compare(given)
    else:
        try:
            lines = {"variants": variants, "splits": splits}[given.part](given)
        except subprocess.CalledProcessError as problem:
            sys.exit(f"exit status {problem.returncode} of {shlex.join(problem.cmd[1:])}: log.txt under --out says why")
    (given.out / f"{given.part}.md").write_text(lines, encoding="utf-8")
    print(lines)


if __name__ == "__main__":
    main()
