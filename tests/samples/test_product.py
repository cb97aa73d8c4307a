"""The product as a whole: sizes, determinism, marks, forms."""

from __future__ import annotations

import ast
import csv
import io
import json
from collections import Counter
from pathlib import Path

import pytest

from rinsho.document import read_documents, shard_paths
from rinsho.samples import Recipe, run, write
from rinsho.samples.bank import Bank
from rinsho.samples.passage import document_key
from samples.made import Product, read_csv

SMALL = {
    "text_size_mb": 0.2, "shards": 2, "test_rows": 16, "smdis_rows": 60, "rrtnm_rows": 60, "crade_rows": 60,
    "jcsts_rows": 60, "crner_rows": 60, "rrner_rows": 40, "nrner_rows": 60, "jmmlu_rows": 60, "igakuqa_problems": 24,
}  # fmt: skip
FOUR = ["optionA", "optionB", "optionC", "optionD"]
COLUMNS = {
    "jmmlu_med": ["tag", "question", *FOUR, "answer"],
    "crade": ["tag", "question", *FOUR, "answer"],
    "rrtnm": ["tag", "question", *FOUR, "optionE", "answer"],
    "smdis": ["tag", "question", "optionA", "optionB", "answer"],
    "mrner_disease": ["tag", "question", "answer"],
    "mrner_medicine": ["tag", "question", "answer"],
    "nrner": ["tag", "question", "answer"],
    "jcsts": ["question", *FOUR, "optionE", "optionF", "answer"],
}
POOLS = {
    "JMMLU-Med": "jmmlu_med", "CRADE": "crade", "RRTNM": "rrtnm", "SMDIS": "smdis", "CRNER": "nrner", "RRNER": "nrner",
    "NRNER": "nrner", "JCSTS": "jcsts",
}  # fmt: skip
ENTITY = ("mrner_disease", "mrner_medicine", "nrner")


def files(folder: Path) -> dict[str, bytes]:
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def passage(row: dict[str, str], task: str) -> str:
    if task in ("jmmlu_med", "jcsts"):
        return row["question"]
    return row["question"].partition("\n\u300c")[2].removesuffix("\u300d")


def test_two_runs_give_the_same_bytes(tmp_path: Path) -> None:
    write(Recipe(**SMALL), tmp_path / "one")
    write(Recipe(**SMALL), tmp_path / "two")
    assert files(tmp_path / "one") == files(tmp_path / "two")
    write(Recipe(**SMALL, seed=2), tmp_path / "three")
    assert files(tmp_path / "one")["README.md"] == files(tmp_path / "three")["README.md"]
    assert files(tmp_path / "one")["text/00.jsonl.zst"] != files(tmp_path / "three")["text/00.jsonl.zst"]


def test_a_document_depends_on_seed_and_id_only(tmp_path: Path, product: Product) -> None:
    sizes = {"text_size_mb": 0.2, "shards": 1, "test_rows": 240}
    write(Recipe(**SMALL | sizes), tmp_path)
    some = [document for path in shard_paths([tmp_path / "text"]) for document in read_documents(path)]
    assert some == product.documents[: len(some)]
    for pool in POOLS:
        fewer = {row["question"] for row in read_csv(tmp_path / f"tasks/jmed_llm/datasets/all/{pool}.csv")}
        assert fewer <= {row["question"] for row in product.pools[pool]}, pool


def test_enough_terms_and_patterns(bank: Bank, product: Product) -> None:
    assert len(bank.diseases) >= 300
    assert len(bank.drugs) >= 200
    assert len([term for term in bank.terms if term.kind not in ("symptom", "reaction")]) >= 150
    patterns = [p.text for sections in bank.patterns.values() for some in sections.values() for p in some]
    assert len(set(patterns)) >= 700
    kinds = Counter(row["kind"] for row in read_csv(product.folder / "lexicon" / "terms.csv"))
    assert set(kinds) == {"disease", "drug", "finding", "test"}
    assert all(row["reading"] for row in read_csv(product.folder / "lexicon" / "terms.csv"))


def test_the_table_of_knowledge_is_consistent(bank: Bank) -> None:
    assert {drug.drug_class for drug in bank.drugs} == set(bank.classes)
    for some in (bank.diseases, bank.drugs, [term for term in bank.terms if term.kind == "symptom"]):
        assert len(some) == len({one.name for one in some})


def test_enough_text_without_repetition(product: Product) -> None:
    single = [document for document in product.documents if "copy_of" not in document.meta]
    assert sum(len(document.text.encode()) for document in single) >= 5_000_000
    keys = Counter(document_key(document.text) for document in single if "(junk)" not in document.meta["source"])
    assert max(keys.values()) == 1
    copies = [document for document in product.documents if "copy_of" in document.meta]
    by_id = {document.id: document for document in product.documents}
    assert sum(by_id[str(c.meta["copy_of"])].text == c.text for c in copies) > 100
    assert len(by_id) == len(product.documents)


def test_everything_is_marked_as_invented(product: Product) -> None:
    assert "invented" in (product.folder / "README.md").read_text(encoding="utf-8")
    for document in product.documents:
        assert document.id.startswith("sample-")
        assert document.meta["license"] == "invented"
        assert str(document.meta["source"]).startswith("rinsho samples")


def test_the_web_mess_is_there(product: Product) -> None:
    text = "\n".join(document.text for document in product.documents)
    for sign in ("@example", "https://", "Copyright", "03-0000-", "#", "@sample", "\uff11", "\uff76", "\r\n"):
        assert sign in text, sign


@pytest.mark.parametrize("task", COLUMNS)
def test_tables_have_the_form_of_the_benchmark(product: Product, task: str) -> None:
    raw = (product.folder / f"tasks/jmed_llm/datasets/{task}.csv").read_bytes().decode("utf-8")
    assert not raw.startswith("\ufeff")
    assert "\r" not in raw
    rows = list(csv.reader(io.StringIO(raw, newline="")))
    assert rows[0] == COLUMNS[task]
    again = io.StringIO()
    csv.writer(again, quoting=csv.QUOTE_MINIMAL, lineterminator="\n").writerows(rows)
    assert again.getvalue() == raw
    for row in product.tests[task]:
        assert all(cell is not None for cell in row.values())
        if task not in ("jmmlu_med", "jcsts"):
            assert row["question"].count("\n\u300c") >= 1
            assert row["question"].endswith("\u300d")


@pytest.mark.parametrize("pool", POOLS)
def test_pools_have_the_same_columns(product: Product, pool: str) -> None:
    assert list(product.pools[pool][0]) == COLUMNS[POOLS[pool]]


def test_gold_stands_verbatim_in_order(product: Product) -> None:
    tables = [(task, product.tests[task]) for task in ENTITY]
    tables += [(pool, product.pools[pool]) for pool in ("CRNER", "RRNER", "NRNER")]
    for name, rows in tables:
        for row in rows:
            gold = ast.literal_eval(row["answer"])
            text = passage(row, "nrner")
            assert gold, name
            assert len(set(gold)) == len(gold)
            assert all(entity in text for entity in gold)
            assert [text.index(entity) for entity in gold] == sorted(text.index(entity) for entity in gold)


def test_every_test_row_stands_in_its_pool_and_no_test_document_in_training(product: Product) -> None:
    pooled = Counter(
        (row.get("tag"), row["question"], row["answer"]) for rows in product.pools.values() for row in rows
    )
    tested: set[str] = set()
    for task, rows in product.tests.items():
        assert all(pooled[row.get("tag"), row["question"], row["answer"]] == 1 for row in rows), task
        tested |= {document_key(passage(row, task)) for row in rows}
    for pool, task in POOLS.items():
        assert tested.isdisjoint(document_key(passage(row, task)) for row in product.train(pool)), pool
    assert tested.isdisjoint(document_key(document.text) for document in product.documents)
    lines = {document_key(line) for document in product.documents for line in document.text.split("\n")}
    assert tested.isdisjoint(lines)


def test_the_examination_has_the_form_of_igakuqa(product: Product) -> None:
    folder = product.folder / "tasks" / "igakuqa" / "data"
    assert len(list(folder.iterdir())) >= 2
    problems = []
    for path in sorted(p for p in folder.rglob("*.jsonl") if "_metadata" not in p.name):
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        extra = path.with_name(path.stem + "_metadata.jsonl").read_text(encoding="utf-8").splitlines()
        assert [json.loads(line)["problem_id"] for line in extra] == [row["problem_id"] for row in rows]
        exam, _, section = path.stem.partition("-")
        assert [row["problem_id"] for row in rows] == [f"{exam}{section}{n}" for n in range(1, len(rows) + 1)]
        problems += rows
    for row in problems:
        assert list(row) == ["problem_id", "problem_text", "choices", "text_only", "answer", "points"]
        if row["choices"]:
            assert len(set(row["choices"])) == 5
            assert set(row["answer"]) <= set("abcde")
        else:
            assert row["answer"][0].isdigit()
    assert {row["points"] for row in problems} == {"1", "3"}
    assert {len(row["answer"]) for row in problems} == {1, 2}
    assert {row["text_only"] for row in problems} == {True, False}
    assert sum(not row["choices"] for row in problems) >= 4


def test_it_runs_as_a_stage(tmp_path: Path) -> None:
    report = run(Recipe(**SMALL), [], tmp_path / "out")
    assert report.numbers["documents"] > 100
    assert (tmp_path / "out" / "DONE").exists()
    assert run(Recipe(**SMALL), [], tmp_path / "out").numbers == report.numbers
