"""Readers for the files of one product."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

from rinsho.document import Document, read_documents, shard_paths
from rinsho.samples import Recipe, write

Rows = list[dict[str, str]]


@dataclass(frozen=True)
class Product:
    """The files of one product, read once."""

    folder: Path
    numbers: dict[str, int]
    documents: list[Document]
    tests: dict[str, Rows]
    pools: dict[str, Rows]
    cases: dict[tuple[str, str], list[int]]  # (task, case) -> rows

    def train(self, pool: str) -> Rows:
        """The pool minus the test rows of all tasks."""
        asked = {(row.get("tag"), row["question"], row["answer"]) for rows in self.tests.values() for row in rows}
        return [row for row in self.pools[pool] if (row.get("tag"), row["question"], row["answer"]) not in asked]


def read_csv(path: Path) -> Rows:
    """The rows of a CSV file."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def make(folder: Path) -> Product:
    """Writes the product of the default recipe and reads it."""
    numbers = write(Recipe(), folder)
    data = folder / "tasks" / "jmed_llm"
    cases: dict[tuple[str, str], list[int]] = {}
    for row in read_csv(data / "cases.csv"):
        cases.setdefault((row["task"], row["case"]), []).append(int(row["row"]))
    documents = [document for path in shard_paths([folder / "text"]) for document in read_documents(path)]
    tests = {path.stem: read_csv(path) for path in sorted((data / "datasets").glob("*.csv"))}
    pools = {path.stem: read_csv(path) for path in sorted((data / "datasets" / "all").glob("*.csv"))}
    return Product(folder, numbers, documents, tests, pools, cases)
