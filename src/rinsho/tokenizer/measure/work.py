"""The comparison step by step: samples, reference words, one count per tokenizer and text set, report, chart, page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rinsho import segmentation
from rinsho.files import file_hash
from rinsho.progress import Progress
from rinsho.run import Report, Stage, write_atomic
from rinsho.tokenizer.measure import chart, figures, page, report, terms
from rinsho.tokenizer.measure.command import Inputs, MeasureRecipe
from rinsho.tokenizer.measure.figures import Counts
from rinsho.tokenizer.measure.fit import ratio
from rinsho.tokenizer.measure.others import Opened, open_tokenizer
from rinsho.tokenizer.measure.sample import Sample, shown_texts, take
from rinsho.tokenizer.measure.terms import Finder, Yardsticks


@dataclass(frozen=True)
class Reference:
    """Where words end, the same for all tokenizers: MeCab with ipadic and at most one user dictionary."""

    user_dictionary: Path | None
    name: str


@dataclass(frozen=True)
class Measured:
    """One sample and what was counted on it, by tokenizer."""

    sample: Sample
    counts: Mapping[str, Counts]


def work(recipe: MeasureRecipe, given: Inputs, stage: Stage) -> Report:
    """Measures and writes the products; see `rinsho.tokenizer.measure.measure`."""
    tokenizers = [open_tokenizer(path, name) for path, name in zip(given.tokenizers, recipe.tokenizers, strict=True)]
    reference = _reference(tokenizers)
    shown = shown_texts(given.show, recipe.show_chars)
    surfaces = terms.read(given.lexicon) if given.lexicon else []
    yardsticks = Yardsticks(reference.user_dictionary, Finder(surfaces))
    stage.log(
        f"{len(tokenizers)} tokenizers, {len(given.texts)} text sets, {len(surfaces)} terms; words by {reference.name}"
    )
    counted: dict[str, dict[str, Counts]] = {}
    samples: list[Sample] = []
    with stage.progress("encode", len(tokenizers) * len(given.texts), "passes") as progress:
        for name, folder in given.texts.items():
            samples.append(take(name, folder, recipe.limit_mb))
            kept = stage.partial / f"counts-{len(samples)}"
            counted[name] = _counts(samples[-1], tokenizers, yardsticks, kept, progress)
    measured = [Measured(sample, counted[sample.name]) for sample in samples]
    numbers = _numbers(recipe, tokenizers, measured, surfaces, reference)
    picture = chart.characters_per_token(numbers)
    write_atomic(stage.out / "characters_per_token.svg", chart.standalone(picture))
    write_atomic(stage.out / "page.html", page.render(numbers, picture, shown, tokenizers, yardsticks))
    return Report(numbers, report.markdown(numbers))


def _reference(tokenizers: Sequence[Opened]) -> Reference:
    """The words of the first strict tokenizer, or of ipadic alone: one segmentation for all rows."""
    version = segmentation.dictionary_version()
    for tokenizer in tokenizers:
        if tokenizer.own is not None and tokenizer.own.segment_form == "strict":
            dictionary = tokenizer.own.user_dictionary
            return Reference(
                dictionary,
                f"MeCab with {version}"
                + (f" and the user dictionary of {tokenizer.label}" if dictionary else ", no user dictionary"),
            )
    return Reference(None, f"MeCab with {version}, no user dictionary")


def _counts(
    sample: Sample, tokenizers: Sequence[Opened], yardsticks: Yardsticks, kept: Path, progress: Progress
) -> dict[str, Counts]:
    """The counts of every tokenizer on one sample; each is kept in files at `kept`, so an interrupted run continues."""
    words = [yardsticks.words(text) for text in sample.cleaned]
    found = [yardsticks.terms(text) for text in sample.cleaned]
    rows = {}
    for place, tokenizer in enumerate(tokenizers):
        piece = kept.with_name(f"{kept.name}-{place}.json")
        if piece.exists():
            rows[tokenizer.label] = Counts(**json.loads(piece.read_text(encoding="utf-8")))
        else:
            rows[tokenizer.label] = figures.count(tokenizer, sample, words, found)
            write_atomic(piece, json.dumps(asdict(rows[tokenizer.label])))
        progress.update()
    return rows


def _numbers(
    recipe: MeasureRecipe,
    tokenizers: Sequence[Opened],
    measured: Sequence[Measured],
    surfaces: Sequence[str],
    reference: Reference,
) -> dict[str, Any]:
    """Everything the report, the chart and the page say; names as keys, in the order they were given."""
    fits, sources = {}, {}
    for sample, counts in ((row.sample, row.counts) for row in measured):
        compared, sources[sample.name] = figures.compressions(sample, counts, recipe.resamples, recipe.seed)
        fits[sample.name] = {
            each.label: compared[each.label] | figures.summary(counts[each.label], sample, each.vocab_size)
            for each in tokenizers
        }
    return {
        "reference": reference.name,
        "reference_user_dictionary": file_hash(reference.user_dictionary) if reference.user_dictionary else None,
        "limit_mb": recipe.limit_mb,
        "resamples": recipe.resamples,
        "texts": {row.sample.name: _told(row.sample) for row in measured},
        "tokenizers": {
            each.label: {
                "kind": each.kind,
                "vocab_size": each.vocab_size,
                "vocabulary_used_fraction": _used(each, [row.counts[each.label] for row in measured]),
            }
            for each in tokenizers
        },
        "lexicon_terms": len(surfaces),
        "lexicon": {
            each.label: _lexicon(each, surfaces, [row.counts[each.label] for row in measured])
            for each in (tokenizers if surfaces else ())
        },
        "fit": fits,
        "sources": sources,
    }


def _told(sample: Sample) -> dict[str, int]:
    return {
        "documents": len(sample.ids),
        "characters": int(sample.characters.sum()),
        "bytes": int(sample.size_bytes.sum()),
        "broken_records": sample.broken,
    }


def _used(tokenizer: Opened, counts: Sequence[Counts]) -> float | None:
    return ratio(len(set().union(*(row.used for row in counts))), tokenizer.vocab_size)


def _lexicon(tokenizer: Opened, surfaces: Sequence[str], counts: Sequence[Counts]) -> dict[str, Any]:
    """The terms alone, and where they stand in all texts; the latter None where the tokenizer tells no offsets."""
    pieces, known = tokenizer.term_pieces(surfaces)
    row: dict[str, Any] = {
        "single_fraction": ratio(int(((pieces == 1) & known).sum()), len(pieces)),
        "pieces_per_term": ratio(int(pieces.sum()), len(pieces)),
        "unknown_fraction": ratio(int((~known).sum()), len(pieces)),
        "occurrences": None,
        "single_occurrences_fraction": None,
        "pieces_per_occurrence": None,
    }
    found = [count.terms for count in counts if count.terms is not None]
    if len(found) == len(counts):
        occurrences = sum(each["occurrences"] for each in found)
        row["occurrences"] = occurrences
        row["single_occurrences_fraction"] = ratio(sum(each["single"] for each in found), occurrences)
        row["pieces_per_occurrence"] = ratio(sum(each["pieces"] for each in found), occurrences)
    return row
