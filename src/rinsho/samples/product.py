"""The files of the product, written whole or not at all: text shards, lexicon, tables, papers and a README."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from rinsho.document import Document, compress
from rinsho.files import write_atomic
from rinsho.samples.bank import Bank, load
from rinsho.samples.forms import COLUMNS, TESTS
from rinsho.samples.rows import Fresh
from rinsho.samples.running import documents
from rinsho.samples.tables import Tables, build, cases_bytes, table_bytes
from rinsho.tasks.licenses import LICENSES_FILE

if TYPE_CHECKING:
    from rinsho.samples import Recipe

LICENSES = "task,license\n*,invented\n"  # without it the data would be taken for the published benchmarks
KATAKANA = {code: code + 0x60 for code in range(0x3041, 0x3097)}


def write(recipe: Recipe, folder: Path) -> dict[str, int]:
    """Writes every file below `folder`; gives counts for the report.

    A file that an interrupted run left is written again with the same bytes.
    """
    bank = load()
    tables = build(bank, recipe)
    numbers = _write_text(bank, recipe, tables, folder / "text")
    write_atomic(folder / "lexicon" / "terms.csv", _lexicon(bank))
    jmed = folder / "tasks" / "jmed_llm"
    for name in TESTS:
        rows = tables.tests[name]
        write_atomic(jmed / "datasets" / f"{name}.csv", table_bytes(rows[0].pool, rows))
        numbers[f"{name} test rows"] = len(rows)
    for pool in COLUMNS:
        rows = tables.pool(pool, recipe.seed)
        write_atomic(jmed / "datasets" / "all" / f"{pool}.csv", table_bytes(pool, rows))
        numbers[f"{pool} training rows"] = len(tables.train[pool])
    write_atomic(jmed / "cases.csv", cases_bytes(tables.tests))
    write_atomic(jmed / LICENSES_FILE, LICENSES)
    for paper in tables.papers:
        place = folder / "tasks" / "igakuqa" / "data" / paper.year
        write_atomic(place / f"{paper.name}.jsonl", paper.lines())
        write_atomic(place / f"{paper.name}_metadata.jsonl", paper.metadata())
    if tables.papers:
        write_atomic(folder / "tasks" / "igakuqa" / LICENSES_FILE, LICENSES)
    numbers["IgakuQA-like problems"] = sum(len(paper.problems) for paper in tables.papers)
    write_atomic(folder / "README.md", README)
    return numbers


def _write_text(bank: Bank, recipe: Recipe, tables: Tables, folder: Path) -> dict[str, int]:
    forbidden = tables.test_keys()
    wanted = int(recipe.text_size_mb * 1e6)
    shards: list[list[Document]] = [[] for _ in range(recipe.shards)]
    size = counted = 0
    for made in documents(bank, recipe.seed, Fresh(forbidden), forbidden):
        length = len(made.document.text.encode())
        size += length
        counted += length if made.counts else 0
        shards[min(recipe.shards - 1, counted * recipe.shards // wanted)].append(made.document)
        if counted >= wanted:
            break
    for number, shard in enumerate(shards):
        write_atomic(folder / f"{number:02d}.jsonl.zst", compress(shard))
    return {"documents": sum(map(len, shards)), "text_bytes": size, "text_bytes_without_mess": counted}


def _lexicon(bank: Bank) -> bytes:
    rows: Iterable[tuple[str, str, str]] = (
        *((d.name, d.reading, "disease") for d in bank.diseases if not d.unseen),
        *((d.name, "", "drug") for d in bank.drugs if not d.unseen),
        *((t.name, t.reading, "test" if t.kind == "test" else "finding") for t in bank.terms if not t.unseen),
    )
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(("surface", "reading", "kind"))
    seen: set[str] = set()
    for surface, reading, kind in rows:
        if surface not in seen:
            seen.add(surface)
            writer.writerow((surface, (reading or surface).translate(KATAKANA), kind))
    return out.getvalue().encode()


README = """# Invented sample data

Everything in this folder is invented: no real patient, no real record, no copied passage. Names of diseases, drugs
and findings are ordinary medical vocabulary; what is said about them is simplified and is **not medical advice**.
People, telephone numbers, mail addresses and web addresses are made up (example domains).

| where | what |
|---|---|
| `text/*.jsonl.zst` | running text with the mess of a web crawl: id, text, source, license (`invented`), copy_of |
| `lexicon/terms.csv` | the terms that training may know: surface, reading, kind |
| `tasks/jmed_llm/datasets/*.csv` | test tables in the form of JMED-LLM |
| `tasks/jmed_llm/datasets/all/*.csv` | the pools; every test row stands in its pool too, as in the benchmark |
| `tasks/jmed_llm/cases.csv` | the named hard cases of the test rows (row 0 is the first after the header) |
| `tasks/*/licenses.csv` | that everything here is invented, for model cards |
| `tasks/igakuqa/data/<year>/*.jsonl` | an invented national examination in IgakuQA's form |

Made by `rinsho samples`; the same settings give the same bytes. Part of the terms and of the sentence patterns stand
in test documents only (cases `unseen_term`, `unseen_pattern`).
"""
