"""The figures as Markdown tables for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rinsho.tokenizer.measure.figures import FAILED_IDS

MOST_SOURCES = 20
NONE = "–"


def markdown(numbers: Mapping[str, Any]) -> str:
    """The whole report. Ids and counts only."""
    parts = ["# Tokenizers compared\n"]
    for name, text in numbers["texts"].items():
        parts.append(_text_set(name, text, numbers["fit"][name]))
    parts += [_vocabularies(numbers), _lexicon(numbers), *_sources(numbers), _failures(numbers), _how(numbers)]
    return "\n".join(part for part in parts if part)


def percent(share: float | None) -> str:
    """A share for people; what is there is never 0 %.

    >>> percent(0.12345), percent(0.00001), percent(0.0), percent(None)
    ('12.35 %', '<0.01 %', '0 %', '–')
    """
    if share is None:
        return NONE
    if share == 0:
        return "0 %"
    return "<0.01 %" if share < 0.00005 else f"{100 * share:.2f} %"


def figure(value: float | None, digits: int = 3) -> str:
    """A number for people.

    >>> figure(1.62649), figure(12345.6, 0), figure(None)
    ('1.626', '12,346', '–')
    """
    return NONE if value is None else f"{value:,.{digits}f}"


def with_interval(value: float | None, interval: Sequence[float] | None, digits: int = 3) -> str:
    """A number with its 95 % interval.

    >>> with_interval(1.62649, (1.6, 1.65)), with_interval(1.5, None)
    ('1.626 [1.600, 1.650]', '1.500')
    """
    if value is None or interval is None:
        return figure(value, digits)
    return f"{value:.{digits}f} [{interval[0]:.{digits}f}, {interval[1]:.{digits}f}]"


def change(row: Mapping[str, Any]) -> str:
    """How much more or less text than the first tokenizer's a token holds, with its interval."""
    value, interval = row.get("ratio_to_first"), row.get("ratio_to_first_interval")
    if value is None:
        return NONE
    shown = f"{100 * (value - 1):+.1f} %"
    if interval is None:
        return shown
    return f"{shown} [{100 * (interval[0] - 1):+.1f}, {100 * (interval[1] - 1):+.1f}]"


def exact(row: Mapping[str, Any]) -> str:
    """How many documents come back exactly."""
    failures, documents = row["round_trip_failures"], row["documents"]
    shown = f"{documents - failures:,} of {documents:,}"
    spaces = row["round_trip_failures_in_white_space"]
    return f"{shown} ({spaces:,} but for spaces)" if spaces else shown


def table(header: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """A Markdown table; the first `left` columns are text, the others numbers."""
    lines = [header, ["---"] * left + ["---:"] * (len(header) - left), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines) + "\n"


def _text_set(name: str, text: Mapping[str, Any], fits: Mapping[str, Any]) -> str:
    head = (
        f"## {_cell(name)}\n\n{text['documents']:,} documents, {text['characters']:,} characters, "
        f"{text['bytes'] / 1e6:.2f} MB after cleaning.\n"
    )
    if text["broken_records"]:
        head += f"{text['broken_records']:,} broken records were passed over.\n"
    rows = [
        [
            label,
            with_interval(row["characters_per_token"], row["characters_per_token_interval"]),
            change(row),
            with_interval(row["bytes_per_token"], row["bytes_per_token_interval"]),
            figure(row["tokens_per_document"], 1),
            percent(row["byte_fallback_fraction"]),
            percent(row["unknown_fraction"]),
            percent(row["crossing_fraction"]),
            exact(row),
            figure(row["mb_per_second"], 2),
            figure(row["tokens_per_second"], 0),
        ]
        for label, row in fits.items()
    ]
    header = [
        "tokenizer", "characters per token [95 %]", "against the first", "bytes per token [95 %]",
        "tokens per document", "parts of characters", "unknown", "across words", "exact round trips",
        "MB/s", "tokens/s",
    ]  # fmt: skip
    return head + "\n" + table(header, rows)


def _vocabularies(numbers: Mapping[str, Any]) -> str:
    rows = [
        [label, row["kind"], f"{row['vocab_size']:,}", percent(row["vocabulary_used_fraction"])]
        for label, row in numbers["tokenizers"].items()
    ]
    header = ["tokenizer", "kind", "vocabulary", "used in these texts"]
    return "## Vocabularies\n\n" + table(header, rows, left=2)


def _lexicon(numbers: Mapping[str, Any]) -> str:
    if not numbers["lexicon"]:
        return ""
    rows = [
        [
            label,
            percent(row["single_fraction"]),
            figure(row["pieces_per_term"], 2),
            percent(row["unknown_fraction"]),
            percent(row["single_occurrences_fraction"]),
            figure(row["pieces_per_occurrence"], 2),
        ]
        for label, row in numbers["lexicon"].items()
    ]
    header = [
        "tokenizer", "terms that are one piece", "pieces per term", "terms with unknown parts",
        "occurrences that are one piece", "pieces per occurrence",
    ]  # fmt: skip
    found = max((row["occurrences"] or 0 for row in numbers["lexicon"].values()), default=0)
    head = f"## Word-list terms\n\n{numbers['lexicon_terms']:,} terms; {found:,} occurrences in the texts.\n\n"
    return head + table(header, rows)


def _sources(numbers: Mapping[str, Any]) -> list[str]:
    parts = []
    for name, sources in numbers["sources"].items():
        if len(sources) < 2:
            continue
        labels = list(numbers["tokenizers"])
        rows = []
        for source, row in list(sources.items())[:MOST_SOURCES]:
            first = row[labels[0]]
            cells = [
                with_interval(row[label]["characters_per_token"], row[label]["characters_per_token_interval"], 2)
                for label in labels
            ]
            rows.append([source, f"{first['documents']:,}", f"{first['characters']:,}", *cells])
        head = f"## {_cell(name)} by source: characters per token [95 %]\n\n"
        more = len(sources) - MOST_SOURCES
        tail = f"\n{more:,} smaller sources are in report.json.\n" if more > 0 else ""
        parts.append(head + table(["source", "documents", "characters", *labels], rows) + tail)
    return parts


def _failures(numbers: Mapping[str, Any]) -> str:
    lines = []
    for name, fits in numbers["fit"].items():
        for label, row in fits.items():
            if row["round_trip_failures"]:
                ids = ", ".join(_cell(each) for each in row["failed_ids"])
                more = ", ..." if row["round_trip_failures"] > FAILED_IDS else ""
                lines.append(f"- {_cell(name)}, {_cell(label)}: {ids}{more}")
    return "## Documents that do not come back exactly\n\n" + "\n".join(lines) + "\n" if lines else ""


def _how(numbers: Mapping[str, Any]) -> str:
    return f"""## How this was measured

- Every tokenizer reads the same text: the cleaned form of up to {numbers["limit_mb"]:g} MB of each text set, from the
  beginning of every shard. Characters and bytes are those of this text; special tokens are not added.
- Intervals: 95 %, percentiles of {numbers["resamples"]:,} draws of whole documents with replacement, the same draws for
  all tokenizers; "against the first" compares characters per token in each draw.
- Unknown tokens swallow text: where they are many, characters per token say little.
- Parts of characters: tokens that are one byte of a character (byte fallback), or bytes that make no whole character.
- Across words: tokens with a word boundary inside, spaces at their ends left out. Words are those of
  {_cell(numbers["reference"])}, for all rows. {NONE}: the tokenizer tells no offsets.
- Exact round trips: ours, decode(encode(x)) equals the cleaned x; others, decode(encode(x)) equals x, the cleaned text.
- Terms: alone, and where they stand in the texts, the longest at each place. A term with unknown parts is not one
  piece.
- Speed: CPU time of one thread on the second pass over the same text; ours with cleaning and MeCab, others without.
"""


def _cell(text: str) -> str:
    """Text from outside as one harmless cell of a Markdown table."""
    shown = "".join(char if char.isprintable() else "\ufffd" for char in " ".join(str(text).split()))
    shown = shown if len(shown) <= 80 else shown[:79] + "…"
    return shown.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")
