"""Count-based vectors of a vocabulary, made of texts: pairs of near tokens, PPMI, SVD; for `analyse.py`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

WINDOW, SMOOTHING, BLOCK = 5, 0.75, 2_000_000  # tokens to each side (weight 1 / distance), of contexts, counted at once
DOCUMENT_CHARS = 40_000


def texts(folder: Path) -> Iterator[str]:
    """Documents' beginnings, each time of the group of files (before the first "-") that gave the fewest characters."""
    from rinsho.document import read_documents, shard_paths

    groups: dict[str, list[Path]] = {}
    for path in shard_paths([folder]):
        groups.setdefault(path.name.split("-")[0].split(".")[0], []).append(path)
    streams = {name: (one for path in paths for one in read_documents(path)) for name, paths in groups.items()}
    given = dict.fromkeys(streams, 0)
    while given:
        name = min(given, key=lambda each: given[each])
        document = next(streams[name], None)
        if document is None:
            del given[name]
            continue
        given[name] += len(document.text[:DOCUMENT_CHARS])
        yield document.text[:DOCUMENT_CHARS]


def count_pairs(documents: Iterator[str], tokenizer: Any, size: int, most: int) -> tuple[Any, int]:
    """How often tokens stand within WINDOW of each other, (size, size) sparse; and of how many tokens."""
    from scipy.sparse import csr_array

    counts, total, block, held = csr_array((size, size), dtype=np.float32), 0, [], 0
    gap = np.full(WINDOW, -1, np.int32)  # no pairs across documents

    def counted() -> Any:
        ids = np.concatenate([*block, gap])
        found = csr_array((size, size), dtype=np.float32)
        for distance in range(1, WINDOW + 1):
            one, other = ids[:-distance], ids[distance:]
            both = (one >= 0) & (other >= 0)
            weight = np.full(int(both.sum()), 1 / distance, np.float32)
            found = found + csr_array((weight, (one[both], other[both])), shape=(size, size))
        return counts + found

    for ids in tokenizer.encode_batch_arrays(documents):
        block += [ids.astype(np.int32), gap]
        total, held = total + len(ids), held + len(ids)
        if held >= BLOCK or total >= most:
            counts, block, held = counted(), [], 0
            print(f"{total:,} tokens counted", file=sys.stderr, flush=True)
        if total >= most:
            break
    counts = counted() if block else counts
    return counts + counts.T, total


def factored(counts: Any, width: int) -> Any:
    """Positive pointwise mutual information (contexts smoothed) brought to `width` columns, (size, width) float32.

    Source: Levy, Goldberg and Dagan 2015 (singular values to the power of 1/2).
    """
    from scipy.sparse import csr_array
    from scipy.sparse.linalg import svds

    pairs = counts.tocoo()
    sums = np.asarray(counts.sum(1)).ravel()
    contexts = sums**SMOOTHING / (sums**SMOOTHING).sum()
    information = np.log(pairs.data / (sums[pairs.row] * contexts[pairs.col]))
    kept = information > 0
    places = pairs.row[kept], pairs.col[kept]
    matrix = csr_array((information[kept].astype(np.float32), places), shape=counts.shape)
    left, values, _ = svds(matrix, k=width, v0=np.ones(counts.shape[0], np.float32))
    return (left * np.sqrt(values)).astype(np.float32)
