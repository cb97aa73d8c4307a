"""A small finished corpus run written by hand, with invented documents."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from rinsho.document import Document, write_documents


def write_run(
    run: Path,
    kept: Sequence[Sequence[Document]],
    dropped: Sequence[Sequence[Document]] = (),
    *,
    settings: Mapping[str, Any] | None = None,
    numbers: Mapping[str, Any] | None = None,
) -> Path:
    """A folder as `rinsho corpus` leaves it; one shard for every list of documents."""
    products = {}
    for folder, shards in (("shards", kept), ("dropped", dropped)):
        for number, documents in enumerate(shards):
            path = run / folder / f"{number:05d}-000.jsonl.zst"
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as file:
                write_documents(file, documents)
            products[f"{folder}/{path.name}"] = {
                "hash": hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest(),
                "size_bytes": path.stat().st_size,
            }
    (run / "manifest.json").write_text(json.dumps({"stage": "corpus", "identity": "x", "seconds": 75}))
    (run / "recipe.resolved.yaml").write_text(yaml.safe_dump(dict(settings or {}), allow_unicode=True))
    figures = {
        **_numbers([d for shard in kept for d in shard], [d for shard in dropped for d in shard]),
        **(numbers or {}),
    }
    (run / "report.json").write_text(json.dumps({"numbers": figures, "markdown": ""}, ensure_ascii=False))
    (run / "DONE").write_text(json.dumps({"identity": "x", "products": products}))
    return run


def _numbers(kept: Sequence[Document], dropped: Sequence[Document]) -> dict[str, Any]:
    reasons: dict[str, dict[str, int]] = {}
    for document in dropped:
        row = reasons.setdefault(document.meta["reason"], {"documents": 0, "bytes": 0})
        row["documents"] += 1
        row["bytes"] += _size(document)
    sources: dict[str, dict[str, Any]] = {}
    for document in [*kept, *dropped]:
        stays = "reason" not in document.meta
        row = sources.setdefault(
            document.meta["source"], {"documents_read": 0, "bytes_read": 0, "documents_kept": 0, "bytes_kept": 0}
        )
        row["documents_read"] += 1
        row["bytes_read"] += _size(document)
        row["documents_kept"] += stays
        row["bytes_kept"] += _size(document) if stays else 0
    return {
        "documents_read": len(kept) + len(dropped),
        "documents_kept": len(kept),
        "bytes_read": sum(map(_size, [*kept, *dropped])),
        "bytes_kept": sum(map(_size, kept)),
        "characters_kept": sum(len(document.text) for document in kept),
        "dropped": reasons,
        "sources": sources,
    }


def _size(document: Document) -> int:
    return len(document.text.encode("utf-8", "surrogatepass"))
