"""One tokenizer on one text sample: what is counted, document by document, and what follows with its interval."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from rinsho.tokenizer.measure.fit import ratio
from rinsho.tokenizer.measure.others import Opened, one_thread
from rinsho.tokenizer.measure.sample import Places, Sample, by_source, crossing, trimmed
from rinsho.tokenizer.measure.terms import Occurrences, in_text

CHUNK = 4_000_000  # resampled documents held at once
CONFIDENCE = 0.95
FAILED_IDS = 10
Floats = npt.NDArray[np.float64]
Interval = tuple[float, float]


@dataclass
class Counts:
    """Counts of one tokenizer on one sample; plain values, so that an interrupted run can keep them."""

    tokens: list[int] = field(default_factory=list)  # of each document
    partial: int = 0
    unknown: int = 0
    crossing: int | None = 0  # None where the tokenizer tells no offsets
    failed: list[int] = field(default_factory=list)  # places of the documents that do not come back
    failed_in_white_space: int = 0  # of those, the ones that only lose or gain white space
    used: list[int] = field(default_factory=list)  # distinct ids
    terms: dict[str, int] | None = None  # pieces of the terms in the text
    cpu_seconds: float = 0.0


def count(tokenizer: Opened, sample: Sample, words: Sequence[Places], terms: Sequence[Places]) -> Counts:
    """Encodes every document once for the counts and once more, warm and in one thread, for the speed.

    Args:
        tokenizer: the one that encodes.
        sample: the documents.
        words: word boundaries of each document by the reference.
        terms: places of the terms in each document.
    """
    counts = Counts()
    used = np.zeros(len(tokenizer.partial), dtype=bool)
    occurrences = Occurrences()
    for place, (raw, cleaned) in enumerate(zip(sample.raw, sample.cleaned, strict=True)):
        ids = tokenizer.ids(raw, cleaned)
        counts.tokens.append(len(ids))
        used[ids] = True
        counts.partial += int(tokenizer.partial[ids].sum())
        counts.unknown += int(tokenizer.unknown[ids].sum())
        _check_back(counts, place, tokenizer.decode(ids), cleaned)
        aligned, spans = tokenizer.aligned(cleaned)
        if spans is None:
            counts.crossing = None
            continue
        assert counts.crossing is not None
        counts.crossing += int(crossing(trimmed(spans, cleaned), words[place]).sum())
        occurrences += in_text(terms[place], spans, ~tokenizer.unknown[aligned], cleaned)
    counts.used = [int(id_) for id_ in np.flatnonzero(used)]
    counts.terms = None if counts.crossing is None else asdict(occurrences)
    counts.cpu_seconds = _seconds(tokenizer, sample)
    return counts


def summary(counts: Counts, sample: Sample, vocab_size: int) -> dict[str, Any]:
    """The figures of one tokenizer on one sample that need no resampling. Fractions are of all tokens."""
    tokens, documents = sum(counts.tokens), len(sample.ids)
    size_bytes = int(sample.size_bytes.sum())
    return {
        "tokens": tokens,
        "tokens_per_document": ratio(tokens, documents),
        "byte_fallback_fraction": ratio(counts.partial, tokens),
        "unknown_fraction": ratio(counts.unknown, tokens),
        "crossing_fraction": None if counts.crossing is None else ratio(counts.crossing, tokens),
        "round_trip_failures": len(counts.failed),
        "round_trip_failures_in_white_space": counts.failed_in_white_space,
        "failed_ids": [sample.ids[place] for place in counts.failed[:FAILED_IDS]],
        "vocabulary_used_fraction": ratio(len(counts.used), vocab_size),
        "tokens_per_second": ratio(tokens, counts.cpu_seconds),
        "mb_per_second": ratio(size_bytes / 1e6, counts.cpu_seconds),
    }


def compressions(
    sample: Sample, counts: Mapping[str, Counts], resamples: int, seed: int
) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, dict[str, Any]]]]:
    """Characters and bytes per token with their intervals, and how they compare with the first tokenizer's.

    The documents are drawn again with replacement, the same draws for every tokenizer, so that the interval of a
    comparison is that of pairs.

    Returns:
        (label -> figures, source -> label -> figures), the sources with most text first.
    """
    sources = by_source(sample)
    weights = _weights(len(sample.ids), resamples, seed) if len(sample.ids) > 1 else iter(())
    groups = {"": np.ones(len(sample.ids), dtype=bool), **sources}
    columns = [sample.characters, sample.size_bytes, *(np.array(row.tokens) for row in counts.values())]
    table = np.stack([column * group for group in groups.values() for column in columns], axis=1).astype(np.float64)
    drawn = [chunk @ table for chunk in weights]
    sums = np.concatenate([table.sum(axis=0)[None], *drawn]).reshape(-1, len(groups), len(columns))
    rows = {
        name: _compared(sums[:, place], list(counts), int(group.sum()))
        for place, (name, group) in enumerate(groups.items())
    }
    return rows.pop(""), rows


def _compared(sums: Floats, names: Sequence[str], documents: int) -> dict[str, dict[str, Any]]:
    """Figures of each tokenizer from sums (1 + draws, characters | bytes | tokens each); the first row is the value."""
    rows = {}
    with np.errstate(divide="ignore", invalid="ignore"):
        for place, name in enumerate(names):
            tokens = sums[:, 2 + place]
            row: dict[str, Any] = {"documents": documents, "characters": int(sums[0, 0]), "tokens": int(tokens[0])}
            figures = [("characters_per_token", sums[:, 0] / tokens), ("bytes_per_token", sums[:, 1] / tokens)]
            if place:
                figures.append(("ratio_to_first", sums[:, 2] / tokens))
            for key, values in figures:
                row[key] = float(values[0]) if np.isfinite(values[0]) else None
                row[f"{key}_interval"] = _interval(values[1:]) if documents > 1 else None
            rows[name] = row
    return rows


def _interval(values: Floats) -> Interval | None:
    known = values[np.isfinite(values)]
    if not len(known):
        return None
    low, high = np.quantile(known, [0.5 - CONFIDENCE / 2, 0.5 + CONFIDENCE / 2])
    return float(low), float(high)


def _weights(number: int, resamples: int, seed: int) -> Iterator[Floats]:
    """How often each document is drawn: float64 (draws, documents) in chunks that fit the memory."""
    rng = np.random.default_rng(seed)
    rows = max(1, CHUNK // number)
    for start in range(0, resamples, rows):
        size = min(rows, resamples - start)
        drawn = rng.integers(0, number, size=(size, number)) + (np.arange(size) * number)[:, None]
        yield np.bincount(drawn.ravel(), minlength=size * number).reshape(size, number).astype(np.float64)


def _check_back(counts: Counts, place: int, back: str, cleaned: str) -> None:
    if back != cleaned:
        counts.failed.append(place)
        counts.failed_in_white_space += "".join(back.split()) == "".join(cleaned.split())


def _seconds(tokenizer: Opened, sample: Sample) -> float:
    """CPU seconds of this process for encoding the whole sample; the counting before has warmed everything."""
    with one_thread():
        started = time.process_time()
        tokenizer.encode_all(sample.raw, sample.cleaned)
        return time.process_time() - started
