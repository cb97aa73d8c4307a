"""All tables of one product: test rows first, then training rows of other documents, in JMED-LLM's form."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rinsho.samples import adverse, entities, exams, national, pairs, posts, tnm
from rinsho.samples.bank import Bank
from rinsho.samples.forms import COLUMNS, TESTS
from rinsho.samples.passage import document_key, numbered
from rinsho.samples.rows import Fresh, Row, first

if TYPE_CHECKING:
    from rinsho.samples import Recipe

Source = Callable[[Bank, int, Fresh], Iterator["Row | None"]]
ALL_TAGS = ("d", "m-key", "m-val")


@dataclass
class Tables:
    """Every row: test rows per test file, training rows per pool, and the papers of the national examination."""

    tests: dict[str, list[Row]] = field(default_factory=dict)
    train: dict[str, list[Row]] = field(default_factory=dict)
    papers: list[national.Paper] = field(default_factory=list)

    def test_keys(self) -> frozenset[str]:
        """The document keys of everything that is asked in a test."""
        rows = (row.passage for rows in self.tests.values() for row in rows)
        texts = (str(problem["problem_text"]) for paper in self.papers for problem in paper.problems)
        return frozenset(document_key(text) for some in (rows, texts) for text in some)

    def pool(self, name: str, seed: int) -> list[Row]:
        """A pool as the benchmark has it: training rows and the test rows of all tasks, in a fixed mixed order."""
        rows = [row for rows in self.tests.values() for row in rows if row.pool == name]
        rows += self.train[name]
        numbered(seed, f"pool-{name}").shuffle(rows)
        return rows


def build(bank: Bank, recipe: Recipe) -> Tables:
    """All tables. Test rows are made first; a training row never has the passage of a test row."""
    seed = recipe.seed
    fresh = Fresh()
    tables = Tables()
    for name, source, count in _tests(recipe):
        tables.tests.setdefault(name, []).extend(first(source(bank, seed, fresh), count))
    tables.papers = national.papers(bank, seed, recipe.igakuqa_problems, fresh)
    for pool, source, count in _pools(recipe):
        tables.train[pool] = first(source(bank, seed, fresh), count)
    return tables


def table_bytes(pool: str, rows: list[Row]) -> bytes:
    """The rows as CSV in the form of the pool (cells quoted only where needed, line feeds inside cells kept)."""
    columns = COLUMNS[pool]
    out = io.StringIO()
    writer = csv.writer(out, quoting=csv.QUOTE_MINIMAL, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        cells = {"tag": row.tag, "question": row.question, "answer": row.answer}
        cells |= {f"option{'ABCDEF'[place]}": text for place, text in enumerate(row.options)}
        writer.writerow([cells.get(column, "") for column in columns])
    return out.getvalue().encode()


def cases_bytes(tests: dict[str, list[Row]]) -> bytes:
    """The named hard cases of the test rows: task, row (from 0), case."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(("task", "row", "case"))
    for task in TESTS:
        for number, row in enumerate(tests[task]):
            writer.writerows((task, number, case) for case in row.cases)
    return out.getvalue().encode()


def _tests(recipe: Recipe) -> list[tuple[str, Source, int]]:
    count = recipe.test_rows
    return [
        ("smdis", posts.test_rows, count),
        ("rrtnm", tnm.test_rows, count),
        ("crade", adverse.test_rows, count),
        ("jcsts", pairs.test_rows, count * 3 // 2),
        ("mrner_disease", _entities("CRNER", ("d",)), count // 2),
        ("mrner_disease", _entities("RRNER", ("d",)), count - count // 2),
        ("mrner_medicine", _entities("CRNER", ("m-key", "m-key", "m-val")), count),
        ("nrner", _entities("NRNER", ("d", "d", "m-key", "m-val")), count),
        ("jmmlu_med", exams.test_rows, count),
    ]


def _pools(recipe: Recipe) -> list[tuple[str, Source, int]]:
    return [
        ("SMDIS", posts.train_rows, recipe.smdis_rows),
        ("RRTNM", tnm.train_rows, recipe.rrtnm_rows),
        ("CRADE", adverse.train_rows, recipe.crade_rows),
        ("JCSTS", pairs.train_rows, recipe.jcsts_rows),
        ("CRNER", _training("CRNER", ALL_TAGS), recipe.crner_rows),
        ("RRNER", _training("RRNER", ("d",)), recipe.rrner_rows),
        ("NRNER", _training("NRNER", ALL_TAGS), recipe.nrner_rows),
        ("JMMLU-Med", exams.train_rows, recipe.jmmlu_rows),
    ]


def _entities(pool: str, tags: tuple[str, ...]) -> Source:
    return lambda bank, seed, fresh: entities.test_rows(bank, seed, fresh, pool=pool, tags=tags)


def _training(pool: str, tags: tuple[str, ...]) -> Source:
    return lambda bank, seed, fresh: entities.train_rows(bank, seed, fresh, pool=pool, tags=tags)
