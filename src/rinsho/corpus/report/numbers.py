"""The figures of a corpus run as one JSON-able dict: what report.json holds and the report renders."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rinsho.corpus.piece import LENGTH_EDGES
from rinsho.text.personal import PLACEHOLDERS

if TYPE_CHECKING:
    from rinsho.corpus import Recipe
    from rinsho.corpus.finish import Kept
    from rinsho.corpus.piece import Counts


def report_numbers(recipe: Recipe, counts: Counts, kept: Kept, figures: dict[str, Any]) -> dict[str, Any]:
    """All numbers of a finished run. Bytes are UTF-8 text; those of dropped documents are before cleaning."""
    dropped: dict[str, dict[str, int]] = {}
    for part in (counts, kept):
        for reason in sorted(part.dropped, key=lambda reason: (-part.dropped[reason], reason)):
            row = dropped.setdefault(reason, {"documents": 0, "bytes": 0})
            row["documents"] += part.dropped[reason]
            row["bytes"] += part.dropped_bytes[reason]
    removed = {
        "removed": kept.sentences_removed,
        "removed_bytes": kept.sentences_bytes,
        "documents_changed": kept.documents_changed,
    }
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
        "sources": _sources(counts, kept),
        "synthetic": _synthetic(counts, kept),
        "lengths": {
            "edges": list(LENGTH_EDGES),
            "read": [counts.lengths[str(edge)] for edge in LENGTH_EDGES],
            "kept": [kept.lengths[str(edge)] for edge in LENGTH_EDGES],
        },
        "cleaning": {rule: count for rule, count in sorted(counts.cleaning.items()) if rule not in PLACEHOLDERS},
        "personal": {kind: counts.cleaning[kind] for kind in PLACEHOLDERS},
        "near": figures["near"],
        "sentences": figures["sentences"] | removed,
        "contamination": (
            {"mode": recipe.decontamination, "documents": counts.contaminated} if recipe.decontaminate else {}
        ),
        "broken": {"records": sum(counts.broken.values()), "reasons": dict(sorted(counts.broken.items()))},
        "examples": counts.examples | kept.examples,
    }


def _synthetic(counts: Counts, kept: Kept) -> dict[str, Any]:
    """How much of what was read and of what is kept a model wrote; shares of all that is kept."""
    documents, size_bytes = kept.synthetic.total(), kept.synthetic_bytes.total()
    return {
        "documents_read": counts.synthetic_read,
        "documents_kept": documents,
        "documents_validation": kept.synthetic_validation,
        "bytes_kept": size_bytes,
        "characters_kept": kept.synthetic_characters,
        "share_of_documents": round(documents / max(1, kept.documents), 4),
        "share_of_bytes": round(size_bytes / max(1, kept.bytes), 4),
        "share_of_characters": round(kept.synthetic_characters / max(1, kept.characters), 4),
    }


def _sources(counts: Counts, kept: Kept) -> dict[str, Any]:
    return {
        source: {
            "documents_read": counts.sources_read[source],
            "bytes_read": counts.sources_read_bytes[source],
            "documents_kept": kept.sources[source],
            "bytes_kept": kept.sources_bytes[source],
            "share_of_bytes": round(kept.sources_bytes[source] / max(1, kept.bytes), 4),
            "synthetic_documents": kept.synthetic[source],
            "synthetic_bytes": kept.synthetic_bytes[source],
        }
        for source in sorted(counts.sources_read, key=lambda source: (-kept.sources_bytes[source], source))
    }
