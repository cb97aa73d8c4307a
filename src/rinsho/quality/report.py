"""What a quality run tells: costs, yield and how good the classifier is, with intervals and the trivial baseline."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from rinsho.progress import duration
from rinsho.run import Report
from rinsho.tasks.intervals import wilson

if TYPE_CHECKING:
    from rinsho.quality import Recipe
    from rinsho.quality.labels import Labels
    from rinsho.quality.passing import Judged
    from rinsho.quality.sample import Corpus

DRAWS = 500
REFERENCE = (
    "For comparison: in the NCVC-slm-1 report 94 % of 100,000 labels were 高 and about 1 % of the data was dropped; "
    "its authors doubt that this is worth its cost."
)
ROWS = (
    ("accuracy", "accuracy", "majority_accuracy"),
    ("balanced accuracy", "balanced_accuracy", "majority_balanced_accuracy"),
    ("area under the ROC curve", "auc", None),
    ("precision of 低", "precision_low", None),
    ("recall of 低", "recall_low", None),
    ("share called 低", "called_low", None),
)


def full(recipe: Recipe, given: Labels, figures: dict[str, Any], counts: Judged, seconds: dict[str, float]) -> Report:
    """The report of a whole run. `seconds` are those of all runs of the folder, by step."""
    documents, size = counts.kept + counts.dropped, counts.kept_bytes + counts.dropped_bytes
    numbers: dict[str, Any] = {
        "documents_read": documents,
        "documents_kept": counts.kept,
        "documents_dropped": counts.dropped,
        "documents_validation": counts.validation,
        "bytes_read": size,
        "bytes_kept": counts.kept_bytes,
        "dropped": {"low_quality": {"documents": counts.dropped, "bytes": counts.dropped_bytes}},
        "dropped_fraction": {"documents": counts.dropped / documents, "bytes": counts.dropped_bytes / max(1, size)},
        "labels": _labels(recipe, given),
        "cross_validation": figures,
        "probability_counts": counts.by_probability,
        "examples": {"low_quality": [list(row) for row in counts.examples]},
        "seconds": seconds,
    }
    share = numbers["dropped_fraction"]
    lines = [
        f"{counts.dropped:,} of {documents:,} documents dropped as of low quality ({share['documents']:.2%}), "
        f"{counts.dropped_bytes / 1e6:,.2f} of {size / 1e6:,.2f} MB ({share['bytes']:.2%}). "
        f"This took {duration(sum(seconds.values()))}{_paid(given)}.",
        "",
        REFERENCE,
        "",
        *_label_lines(numbers["labels"]),
        *_figure_lines(figures),
        *_verdict(figures),
        *_threshold_lines(recipe, counts),
        "| step | time |",
        "|---|---:|",
        *(f"| {name} | {duration(value)} |" for name, value in seconds.items()),
    ]
    return Report(numbers, "\n".join(lines) + "\n")


def preview(
    recipe: Recipe, corpus: Corpus, given: Labels, measured: dict[str, Any], seconds: dict[str, float]
) -> Report:
    """What the full run would cost and drop, from a small sample."""
    cost = _cost(recipe, corpus, given, measured)
    numbers: dict[str, Any] = {
        "preview": True,
        "corpus": {"documents": corpus.documents, "bytes": corpus.size_bytes},
        "labels": _labels(recipe, given),
        "cost": cost,
        "expected_dropped": measured.get("dropped"),
        "cross_validation": measured.get("figures"),
        "no_forest": measured.get("no_forest"),
        "seconds": seconds,
    }
    lines = [f"Preview: {corpus.documents:,} documents, {corpus.size_bytes / 1e6:,.2f} MB. Nothing was dropped.", ""]
    lines += ["| the full run would cost | |", "|---|---:|"]
    if not recipe.labels:
        lines += [
            f"| further label requests, at most | {cost['label_requests']:,} |",
            f"| prompt tokens ({_or(cost['prompt_tokens_per_request'], '.0f')} a request) "
            f"| {_or(cost['prompt_tokens'], ',.0f')} |",
            f"| time for labels ({_or(cost['requests_per_second'], '.3g')} requests/s) "
            f"| {_time(cost['label_hours'])} |",
        ]
    lines += [
        f"| time for vectors and verdicts ({cost['documents_per_second']:,.0f} documents/s, "
        f"{cost['processes']} at once; without reading and writing) | {_time(cost['pass_hours'])} |",
        f"| time for the forest (about) | {_time(cost['forest_hours'])} |",
        "",
    ]
    dropped = measured.get("dropped")
    if dropped:
        for name, of in (("documents", corpus.documents), ("bytes", corpus.size_bytes)):
            row = dropped[name]
            low, high = row["interval"]
            amount = (
                f"{row['value'] * of:,.0f} documents" if name == "documents" else f"{row['value'] * of / 1e6:,.2f} MB"
            )
            lines.append(f"- expected to be dropped: {row['value']:.2%} of {name} ({low:.2%} to {high:.2%}), {amount}")
        lines += [
            f"- measured on {dropped['sample']:,} random documents; the forest learned from "
            f"{measured['figures']['documents']:,} labels",
            "",
        ]
    else:
        lines += [f"No forest could be trained: {measured['no_forest']}.", ""]
    lines += [REFERENCE, "", *_label_lines(numbers["labels"])]
    if measured.get("figures"):
        lines += [*_figure_lines(measured["figures"]), *_verdict(measured["figures"])]
    return Report(numbers, "\n".join(lines) + "\n")


def expected(dropped: npt.NDArray[np.bool_], sizes: npt.NDArray[np.int64], seed: int) -> dict[str, Any]:
    """Share of documents (Wilson) and of bytes (bootstrap over documents) that go, with 95 % intervals."""
    n, gone = len(dropped), int(dropped.sum())
    draw = np.random.default_rng(seed)
    shares = []
    for _ in range(DRAWS):
        rows = draw.integers(n, size=n)
        shares.append(sizes[rows][dropped[rows]].sum() / max(1, sizes[rows].sum()))
    interval = wilson(gone, n) or (0.0, 1.0)
    low, high = np.percentile(shares, [2.5, 97.5])
    if gone < 5:  # too few for a bootstrap, which would give an interval of no width
        low, high = min(low, interval[0]), max(high, interval[1])
    value = float(sizes[dropped].sum() / max(1, sizes.sum()))
    return {
        "sample": n,
        "documents": {"value": gone / n, "interval": list(interval)},
        "bytes": {"value": value, "interval": [float(low), float(high)]},
    }


def _cost(recipe: Recipe, corpus: Corpus, given: Labels, measured: dict[str, Any]) -> dict[str, Any]:
    from rinsho.quality.passing import processes

    labelled = len(given.given)
    wanted = labelled if recipe.labels else min(recipe.label_documents, corpus.documents)
    left = 0 if recipe.labels else wanted - min(given.requests, wanted)
    answered = given.answered
    tokens = given.prompt_tokens / answered if answered else None
    rate = given.requests_per_second(recipe.endpoint.max_concurrent_requests) if given.requests else None
    at_once = processes(recipe, 1 << 30)
    seconds = measured["seconds_per_document"]
    forest = measured.get("forest_seconds")
    return {
        "label_requests": left,
        "prompt_tokens_per_request": tokens,
        "prompt_tokens": None if tokens is None else round(tokens * left),
        "requests_per_second": rate,
        "label_hours": left / rate / 3600 if rate else None,
        "documents_per_second": at_once / seconds,
        "processes": at_once,
        "pass_hours": (corpus.documents / at_once + (0 if recipe.labels else wanted)) * seconds / 3600,
        "forest_hours": None if forest is None else forest * wanted / max(1, labelled) / 3600,
    }


def _labels(recipe: Recipe, given: Labels) -> dict[str, Any]:
    n = len(given.given)
    return {
        "from": "file" if recipe.labels else recipe.endpoint.model,
        "labelled": n,
        "high": n - given.low,
        "low": given.low,
        "low_fraction": given.low / n if n else None,
        "low_interval": list(wilson(given.low, n) or ()) or None,
        "left_out": dict(sorted(given.failed.items())),
        "requests": given.requests,
        "cached": given.cached,
        "attempts": given.attempts,
        "retries": given.retries,
        "prompt_tokens": given.prompt_tokens,
        "completion_tokens": given.completion_tokens,
    }


def _paid(given: Labels) -> str:
    if not given.requests:
        return ""
    tokens = f"{given.prompt_tokens:,} prompt tokens"
    return f" and {given.requests:,} label requests of {tokens} ({given.cached:,} from the cache)"


def _label_lines(row: dict[str, Any]) -> list[str]:
    left_out = "".join(f", {kind} {count:,}" for kind, count in row["left_out"].items())
    between = (
        f" (95 % interval {row['low_interval'][0]:.1%} to {row['low_interval'][1]:.1%})" if row["labelled"] else ""
    )
    lines = [
        f"Labels ({row['from']}): {row['labelled']:,}, of these 高 {row['high']:,} and 低 {row['low']:,}{between}. "
        f"Left out: {sum(row['left_out'].values()):,}{left_out}.",
    ]
    if row["requests"]:
        lines.append(f"Requests: {row['requests']:,}, from the cache {row['cached']:,}, retries {row['retries']:,}.")
    return [*lines, ""]


def _figure_lines(figures: dict[str, Any]) -> list[str]:
    lines = [
        f"Cross-validated on {figures['documents']:,} labels, 低 above {figures['threshold']}:",
        "",
        "| figure | value | 95 % interval | always the majority |",
        "|---|---:|---:|---:|",
    ]
    for name, key, baseline in ROWS:
        row = figures[key]
        between = f"{row['interval'][0]:.3f} to {row['interval'][1]:.3f}" if row["interval"] else "-"
        base = f"{figures[baseline]:.3f}" if baseline else "-"
        lines.append(f"| {name} | {_or(row['value'], '.3f')} | {between} | {base} |")
    return [*lines, ""]


def _verdict(figures: dict[str, Any]) -> list[str]:
    if figures["auc"]["interval"][0] <= 0.5:
        return ["The classifier does not tell the labels apart better than chance (area's interval reaches 0.5).", ""]
    if figures["accuracy"]["value"] <= figures["majority_accuracy"]:
        return ["Its accuracy is not above that of always saying the more frequent label.", ""]
    return []


def _threshold_lines(recipe: Recipe, counts: Judged) -> list[str]:
    total, bins = sum(counts.by_probability), len(counts.by_probability)
    lines = ["| max_low_probability | documents above |", "|---:|---:|"]
    for place in range(2, bins, 2):
        above = sum(counts.by_probability[place:])
        lines.append(f"| {place / bins:.1f} | {above:,} ({above / max(1, total):.2%}) |")
    return [*lines, "", f"The limit was {recipe.max_low_probability}; counts at a bin's edge may differ by ties.", ""]


def _or(value: float | None, form: str) -> str:
    return "unknown" if value is None else format(value, form)


def _time(hours: float | None) -> str:
    return "unknown" if hours is None else duration(hours * 3600)
