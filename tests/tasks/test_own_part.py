"""A test part of one's own, and cases: nothing of what is asked stands among what is trained."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest

from real_data import real_data
from rinsho.overlap import char_ngrams, jaccard, near_duplicates, near_pairs
from rinsho.tasks import Item, Split, Splitting, TestPart, document_key, passages, read_data, read_train
from rinsho.tasks import cases as cases_module
from rinsho.tasks.cases import READ_CASES, told_cases
from rinsho.tasks.grouping import Groups, row_groups
from rinsho.tasks.jmed import pool_of, read_pools
from rinsho.tasks.splits import hash_of_tests, train_part
from tasks.toy_pools import QUOTED, report_text, text_of, toy_pools

OWN = Splitting("document", "own")


def near_test_passages(train: Iterable[Item], tests: Iterable[Item]) -> list[str]:
    """Training passages near a test passage, by the index of `near_duplicates` (not that of the splits)."""
    asked = sorted({text for item in tests for text in passages(item)})
    learned = sorted({text for item in train for text in passages(item)})
    found = near_duplicates(learned, asked, threshold=0.8, containment=2.0)
    return [text for text, place in zip(learned, found, strict=True) if place is not None]


def divided(folder: Path, splitting: Splitting) -> tuple[list[Item], list[Item]]:
    return read_train([folder], splitting)[0], read_data([folder], "test", splitting)


def test_near_pairs_are_those_of_comparing_all() -> None:
    rng = random.Random(1)
    texts = [text_of(str(number), rng.randint(3, 60)) for number in range(60)]
    for _ in range(120):
        changed = list(rng.choice(texts))
        for _ in range(rng.randint(0, 4)):
            changed[rng.randrange(len(changed))] = rng.choice("腹痛嘔吐")
        texts.append("".join(changed))
    texts += ["", "咳", "咳", " 咳"]
    grams = [char_ngrams(text) for text in texts]
    pairs = [(i, j) for j in range(len(texts)) for i in range(j) if jaccard(grams[i], grams[j]) > 0.8]
    assert sorted(near_pairs(texts)) == sorted(pairs) and len(pairs) > 30
    with pytest.raises(ValueError, match=r"0\.8"):
        list(near_pairs([], threshold=0.5))


def test_groups_join_and_have_their_smallest_name() -> None:
    groups = Groups()
    for names in (["c", "d"], ["e", "a"], ["d", "e"], ["x"]):
        groups.join(names)
    assert [groups.of(name) for name in "acdexy"] == ["a", "a", "a", "a", "x", "y"]


@pytest.mark.parametrize("split", ["document", "case"])
@pytest.mark.parametrize("test_part", ["published", "own"])
def test_no_test_passage_is_near_a_training_passage(tmp_path: Path, split: Split, test_part: TestPart) -> None:
    train, tests = divided(toy_pools(tmp_path), Splitting(split, test_part))
    assert train and tests and not near_test_passages(train, tests)
    assert near_test_passages(read_pools(tmp_path), tests)  # the check would find them


def test_own_part_asks_and_trains_every_answer(tmp_path: Path) -> None:
    train, tests = divided(toy_pools(tmp_path), OWN)
    for task in ("crade", "smdis", "rrtnm", "jcsts"):
        in_pool = {(i.tag, i.gold) for i in read_pools(tmp_path) if i.task == task}
        for part in (train, tests):
            assert {(item.tag, item.gold) for item in part if item.task == task} == in_pool, task
    assert {item.task for item in tests} == {item.task for item in train}
    assert max(Counter(item.task for item in tests).values()) <= 100


def test_at_most_a_third_of_a_pools_groups_is_tested(tmp_path: Path) -> None:
    pools = read_pools(toy_pools(tmp_path))
    tested = {item.id.removeprefix("own/") for item in read_data([tmp_path], "test", OWN)}
    held: dict[str, set[str]] = {}
    gone: dict[str, set[str]] = {}
    for item, group in zip(pools, row_groups(pools, "document"), strict=True):
        held.setdefault(pool_of(item), set()).add(group)
        if item.id in tested:
            gone.setdefault(pool_of(item), set()).add(group)
    assert all(0 < len(gone[pool]) <= len(held[pool]) / 3 for pool in held)
    assert len(gone["SMDIS"]) == 20  # new posts rather than more questions on few


def test_own_part_is_named_counted_and_drawn_by_its_seed(tmp_path: Path) -> None:
    folder = toy_pools(tmp_path)
    train, manifest = train_part(folder, OWN)
    tests = read_data([folder], "test", OWN)
    assert all(item.id.startswith("own/all/") for item in tests)
    assert not {item.id.removeprefix("own/") for item in tests} & {item.id for item in train}
    assert (manifest["split"], manifest["test_part"], manifest["seed"]) == ("document", "own", 1)
    assert manifest["test_hash"] == hash_of_tests(tests) == "a27051978edc6319"  # on every machine
    for pool, row in manifest["pools"].items():
        assert row["rows"] == row["test_rows"] + row["near_documents"] + row["same_case"] + row["left"]
        assert row["test_rows"] == sum(pool_of(item) == pool for item in tests)
    assert sum(manifest["pools"]["CRADE"]["test_answers"].values()) == manifest["pools"]["CRADE"]["test_rows"]
    assert [item.id for item in read_data([folder], "test", Splitting("document", "own", 1))] == [i.id for i in tests]
    other = read_data([folder], "test", Splitting("document", "own", 2))
    assert hash_of_tests(other) != hash_of_tests(tests)
    some = read_data([folder], "test", OWN, tasks=["smdis"])
    assert some == [item for item in tests if item.task == "smdis"]  # the draw does not depend on what is asked for


def test_own_part_by_rows_divides_documents_but_no_question(tmp_path: Path) -> None:
    train, tests = divided(toy_pools(tmp_path), Splitting("row", "own"))
    assert near_test_passages(train, tests)
    asked = {(item.tag, item.question) for item in tests}
    assert not asked & {(item.tag, item.question) for item in train}


def test_cases_read_from_reports_and_quoted_sentences(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = toy_pools(tmp_path)
    images = [document_key(text_of(f"image{n}")) for n in range(24)]
    monkeypatch.setattr(cases_module, "READ_CASE_OF", {key[:11]: n // 6 for n, key in enumerate(images)})
    told = told_cases(read_pools(folder))
    assert sorted(len(case) for case in told) == [2, 6, 6, 6, 6]
    quoted = {document_key(text) for text in (text_of("sentence3", 20), report_text(QUOTED))}
    assert any(quoted <= case for case in told)
    train, manifest = train_part(folder, Splitting("case"))  # the published test asks images 0, 1 and 2
    assert {item.document for item in train if item.task == "rrtnm"} == set(images[6:])
    assert manifest["pools"]["RRTNM"]["same_case"] == 6
    assert manifest["pools"]["RRTNM"]["cases"].startswith("24 of 24 reports are of 4 cases")
    assert manifest["pools"]["CRADE"]["cases"] == "one document is one case"
    assert document_key(report_text(QUOTED)) not in {item.document for item in train}  # the test asks its sentence
    train, tests = divided(folder, Splitting("case", "own"))
    tested = {images.index(item.document) // 6 for item in tests if item.task == "rrtnm"}
    assert len(tested) == 1 and not tested & {images.index(i.document) // 6 for i in train if i.task == "rrtnm"}


def test_every_case_told_by_reading_has_nine_reports() -> None:
    assert len(READ_CASES) == 20 and {len(case.split()) for case in READ_CASES} == {9}
    assert len(set(" ".join(READ_CASES).split())) == 180
    folder = real_data("jmed_llm")
    read = {item.document[:11] for item in read_pools(folder) if pool_of(item) in ("RRTNM", "RRNER")}
    assert read == set(" ".join(READ_CASES).split())


def test_real_own_part_trains_and_tests_crade() -> None:
    _, manifest = train_part(real_data("jmed_llm"), OWN)
    crade = manifest["pools"]["CRADE"]
    assert crade["answers"] == {"A": 904, "B": 29, "C": 47, "D": 103}
    assert crade["test_answers"] == {"A": 26, "B": 27, "C": 21, "D": 26}
    assert manifest["warnings"] == []  # every tag and answer of every task stands in both parts
    assert manifest["test_hash"] == "575bec5602ba58e0"


@pytest.mark.slow
@pytest.mark.parametrize("split", ["document", "case"])
@pytest.mark.parametrize("test_part", ["published", "own"])
def test_real_parts_share_nothing(split: Split, test_part: TestPart) -> None:
    folder = real_data("jmed_llm")
    train, tests = divided(folder, Splitting(split, test_part))
    assert not near_test_passages(train, tests)
    if split == "case":
        case_of = cases_module.READ_CASE_OF
        asked = {case_of[item.document[:11]] for item in tests if item.document[:11] in case_of}
        assert asked and not asked & {case_of.get(item.document[:11]) for item in train}
        left = Counter(map(pool_of, train))
        assert left["JCSTS"] == {"published": 3152, "own": 3312}[test_part]
        assert left["RRTNM"] == {"published": 0, "own": 216}[test_part]
