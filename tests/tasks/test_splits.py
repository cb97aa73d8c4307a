"""What may train under which split: on invented pools, and against the measured table on the real ones."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from real_data import real_data
from rinsho.errors import UserError
from rinsho.tasks import Item, Splitting, document_key, documents, prompts, read_data, read_jmed, read_train
from rinsho.tasks.grouping import near_groups
from rinsho.tasks.jmed import pool_of, read_pools
from rinsho.tasks.splits import OFFER, train_part
from tasks.toy_jmed import toy_jmed

ROWS = Splitting("row")
RECORD = Item("x", "nrner", "entities", "d", prompts.ENTITIES, "", (), ("発熱",), "", "")


def test_row_split_subtracts_the_test_rows_of_all_tasks(tmp_path: Path) -> None:
    kept, manifest = train_part(toy_jmed(tmp_path), ROWS)
    counts = {"rows": 7, "test_rows": 2, "near_documents": 0, "same_case": 0, "left": 5}
    assert manifest["pools"]["CRNER"] == {**counts, "answers": {}, "test_answers": {}}
    assert manifest["pools"]["SMDIS"]["answers"] == {"A": 1, "B": 2}
    assert manifest["pools"]["JCSTS"]["left"] == 2
    tests = {item.question for item in read_jmed(tmp_path, "test")}
    assert not tests & {item.question for item in kept}
    only = read_data([tmp_path], "train", ROWS, tasks=["mrner_disease"])
    assert {item.task for item in only} == {"mrner_disease"} and len(only) == 3


def test_document_split_drops_every_row_on_a_test_passage(tmp_path: Path) -> None:
    kept, manifest = train_part(toy_jmed(tmp_path))
    seen = {key for item in read_jmed(tmp_path, "test") for key in documents(item)}
    assert not seen & {key for item in kept for key in documents(item)}
    # reports 0 and 1 are test passages of two different tasks; neither may train the other task
    assert manifest["pools"]["CRNER"]["left"] == 3
    assert manifest["pools"]["SMDIS"]["near_documents"] == 1  # other question, same post but for a space
    assert manifest["pools"]["JCSTS"]["near_documents"] == 1  # shares one sentence
    assert manifest["split"] == "document"


def test_warnings_name_what_cannot_be_trained(tmp_path: Path) -> None:
    _, manifest = train_part(toy_jmed(tmp_path))
    assert "jcsts: all 1 training rows have the answer C: it cannot be learned" in manifest["warnings"]
    assert "smdis: no training row has the tag 咳" in manifest["warnings"]
    assert manifest["warnings"][-1] == OFFER


def test_nothing_left_is_an_error(tmp_path: Path) -> None:
    folder = toy_jmed(tmp_path)
    (folder / "datasets/all/SMDIS.csv").write_bytes((folder / "datasets/smdis.csv").read_bytes())
    with pytest.raises(UserError, match=r"no training row is left.*test_part: own"):
        train_part(folder, ROWS, ["smdis"])


def near(one: str, other: str) -> bool:
    groups = near_groups([replace(RECORD, passage=text) for text in (one, other)])
    return groups.of(document_key(one)) == groups.of(document_key(other))


def test_near_is_by_five_grams_on_normalised_text() -> None:
    text = "".join(chr(0x4E00 + n) for n in range(100))
    assert near(text[:50] + "あ" + text[51:], text)
    assert not near(text[:60] + "あ" * 40, text)
    assert near("ＣＴ で", "CTで")
    assert not near(text[:20], text)  # a part is not the document


ROW = {"JMMLU-Med": 581, "CRADE": 1530, "RRTNM": 224, "SMDIS": 15260, "CRNER": 115, "RRNER": 22, "NRNER": 1439,
       "JCSTS": 3570}  # fmt: skip
DOCUMENT = {"JMMLU-Med": 577, "CRADE": 370, "RRTNM": 96, "SMDIS": 14568, "CRNER": 43, "RRNER": 22, "NRNER": 1348}


def test_real_row_split_has_the_reports_sizes() -> None:
    kept, _ = train_part(real_data("jmed_llm"), ROWS)
    assert Counter(map(pool_of, kept)) == ROW
    assert not [item for item in kept if item.task == "rrtnm" and item.tag == "T" and item.gold == ("A",)]
    assert not [item for item in kept if item.tag == "m-val" and pool_of(item) == "CRNER"]


@pytest.mark.slow
def test_real_document_split_has_the_measured_sizes() -> None:
    kept, manifest = train_part(real_data("jmed_llm"))
    counts = Counter(map(pool_of, kept))
    assert {pool: counts[pool] for pool in DOCUMENT} == DOCUMENT
    assert manifest["pools"]["CRADE"]["answers"] == {"A": 370}
    assert "crade: all 370 training rows have the answer A: it cannot be learned" in manifest["warnings"]


def test_real_files_read_as_measured() -> None:
    folder = real_data("jmed_llm")
    tests = read_jmed(folder, "test")
    assert set(Counter(item.task for item in tests).values()) == {100}
    lists = [item for item in [*tests, *read_pools(folder)] if item.kind == "entities"]
    assert sum(len(item.gold) for item in lists[:300]) == 1322
    assert all(entity in item.passage for item in lists for entity in item.gold)
    assert len({item.document for item in tests if item.task == "rrtnm"}) == 76
    assert len({key for item in tests if item.task == "jcsts" for key in documents(item)}) in (189, 190)


def test_read_train_gives_manifests(tmp_path: Path) -> None:
    toy_jmed(tmp_path / "jmed_llm")
    items, manifests = read_train([tmp_path], ROWS)
    assert len(manifests) == 1 and sum(row["left"] for row in manifests[0]["pools"].values()) == len(items)
