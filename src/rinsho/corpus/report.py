"""The figures of a corpus run: the funnel, the sources, what cleaning changed, what personal data went."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rinsho.run import Report
from rinsho.text.personal import PLACEHOLDERS

if TYPE_CHECKING:
    from rinsho.corpus import Recipe
    from rinsho.corpus.shard import Counts
    from rinsho.corpus.work import Kept


def make_report(recipe: Recipe, counts: Counts, kept: Kept) -> Report:
    """Numbers and Markdown of a finished run. Bytes are UTF-8 text; those of dropped documents are before cleaning."""
    numbers = _numbers(counts, kept)
    return Report(numbers, _markdown(recipe, numbers))


def _numbers(counts: Counts, kept: Kept) -> dict[str, Any]:
    dropped = {
        reason: {"documents": counts.dropped[reason], "bytes": counts.dropped_bytes[reason]}
        for reason in sorted(counts.dropped, key=lambda reason: (-counts.dropped[reason], reason))
    }
    if kept.duplicates:
        dropped["duplicate"] = {"documents": kept.duplicates, "bytes": kept.duplicate_bytes}
    return {
        "documents_read": counts.read,
        "documents_not_sampled": counts.not_sampled,
        "documents_kept": kept.documents,
        "documents_dropped": sum(row["documents"] for row in dropped.values()),
        "documents_validation": kept.validation,
        "bytes_read": counts.read_bytes,
        "bytes_kept": kept.bytes,
        "characters_kept": kept.characters,
        "dropped": dropped,
        "sources": {
            source: {
                "documents_read": counts.sources_read[source],
                "bytes_read": counts.sources_read_bytes[source],
                "documents_kept": kept.sources[source],
                "bytes_kept": kept.sources_bytes[source],
                "share_of_bytes": round(kept.sources_bytes[source] / max(1, kept.bytes), 4),
            }
            for source in sorted(counts.sources_read, key=lambda source: (-kept.sources_bytes[source], source))
        },
        "cleaning": {rule: count for rule, count in sorted(counts.cleaning.items()) if rule not in PLACEHOLDERS},
        "personal": {kind: counts.cleaning[kind] for kind in PLACEHOLDERS},
        "broken": {"records": sum(counts.broken.values()), "reasons": dict(sorted(counts.broken.items()))},
    }


def _markdown(recipe: Recipe, numbers: dict[str, Any]) -> str:
    summary = f"{numbers['documents_kept']:,} of {numbers['documents_read']:,} documents kept, "
    summary += f"{_mb(numbers['bytes_kept'])} of {_mb(numbers['bytes_read'])} MB"
    if numbers["documents_validation"]:
        summary += f"; {numbers['documents_validation']:,} of them in validation/"
    if numbers["documents_not_sampled"]:
        summary += f"; {numbers['documents_not_sampled']:,} more not sampled"
    broken = numbers["broken"]
    personal = ", ".join(f"{kind} {count:,}" for kind, count in numbers["personal"].items())
    lines = [
        summary + ".",
        "",
        *_funnel(numbers),
        *_sources(numbers["sources"]),
        "| cleaning rule | places changed |",
        "|---|---:|",
        *(f"| {rule} | {count:,} |" for rule, count in numbers["cleaning"].items()),
        "",
        f"Personal data ({recipe.personal}): {personal}.",
        "",
        f"Broken records: {broken['records']:,}"
        + "".join(f", {reason} {count:,}" for reason, count in broken["reasons"].items())
        + (" (dropped/broken.jsonl)." if broken["records"] else "."),
    ]
    return "\n".join(lines) + "\n"


def _funnel(numbers: dict[str, Any]) -> list[str]:
    lines = [
        "| step | documents | MB |",
        "|---|---:|---:|",
        f"| read | {numbers['documents_read']:,} | {_mb(numbers['bytes_read'])} |",
    ]
    for reason, row in numbers["dropped"].items():
        lines.append(f"| dropped: {reason} | -{row['documents']:,} | -{_mb(row['bytes'])} |")
    kept = f"| kept, after cleaning | {numbers['documents_kept']:,} | {_mb(numbers['bytes_kept'])} |"
    return [*lines, kept, ""]


def _sources(sources: dict[str, Any]) -> list[str]:
    lines = ["| source | documents read | kept | MB kept | share |", "|---|---:|---:|---:|---:|"]
    for source, row in sources.items():
        name, share = source.replace("|", "/"), f"{row['share_of_bytes']:.1%}"
        lines.append(
            f"| {name} | {row['documents_read']:,} | {row['documents_kept']:,} | {_mb(row['bytes_kept'])} | {share} |"
        )
    return [*lines, ""]


def _mb(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:,.2f}"
