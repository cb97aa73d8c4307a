"""Frequent sentences: counted exactly in bounded memory, and taken out so that none is left."""

from __future__ import annotations

import tracemalloc
from collections import defaultdict
from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rinsho.corpus.boilerplate import Frequent, SentenceFile, frequent, strip, touched
from rinsho.overlap.sketch import sentence_hashes, sketch

NOTICES = ("無断転載を禁じます。", "ページの先頭へ戻る", "診療時間は九時から！？", "（電話で予約してください。）")
CLEAN = st.lists(
    st.sampled_from([*NOTICES, "咳が続く。", "発熱あり", "\n", "\n\n", " ", "。", "」", "𠮷野家で昼食。", "\ud83d"]),
    max_size=14,
).map("".join)


def piece(texts: list[str], order: list[int], alive: list[bool] | None = None, min_chars: int = 5) -> SentenceFile:
    made = sketch(texts, size=5, bands=1, rows=1, min_chars=min_chars)
    return SentenceFile(
        made.sentences,
        made.counts,
        np.array(alive if alive is not None else [True] * len(texts), bool),
        np.array(order, np.uint64),
    )


def known(*sentences: str, keeper: int = 0) -> Frequent:
    hashes = np.unique(np.concatenate([sentence_hashes(sentence, 1) for sentence in sentences]))
    return Frequent(hashes, np.full(len(hashes), keeper, np.uint64))


def counted(pieces: list[SentenceFile], min_documents: int) -> dict[int, int]:
    """Hash -> smallest order, by brute force."""
    found = defaultdict(list)
    for one in pieces:
        start = 0
        for count, alive, order in zip(one.counts.tolist(), one.alive.tolist(), one.order.tolist(), strict=True):
            for number in one.hashes[start : start + count].tolist():
                if alive:
                    found[number].append(order)
            start += count
    return {number: min(orders) for number, orders in found.items() if len(orders) > min_documents}


@pytest.mark.parametrize("memory_bytes", [256 << 20, 1 << 14])
@pytest.mark.parametrize("min_documents", [1, 3, 20])
def test_frequent_is_exact_for_any_memory_and_order_of_pieces(min_documents: int, memory_bytes: int) -> None:
    rng = Random(min_documents)
    pieces = []
    for _ in range(5):
        texts = [
            "\n".join(f"{int(rng.paretovariate(0.4)) % 9000}番の文である。" for _ in range(rng.randrange(30)))
            for _ in range(60)
        ]
        pieces.append(piece(texts, [rng.randrange(10**6) for _ in texts], [rng.random() < 0.8 for _ in texts]))
    wanted = counted(pieces, min_documents)
    assert len(wanted) > 5
    for given_pieces in (pieces, pieces[::-1]):
        found = frequent(given_pieces, min_documents, memory_bytes)
        assert dict(zip(found.hashes.tolist(), found.keepers.tolist(), strict=True)) == wanted
        assert (np.diff(found.hashes.astype(object)) > 0).all()


def test_more_documents_than_a_counter_holds() -> None:
    count = 70_000
    many = SentenceFile(
        np.full(count, 77, np.uint64),
        np.ones(count, np.uint32),
        np.ones(count, bool),
        np.arange(5, count + 5, dtype=np.uint64),
    )
    for least, wanted in ((20, [77]), (count - 1, [77]), (count, [])):
        assert frequent([many], least).hashes.tolist() == wanted
    assert frequent([many], 20).keepers.tolist() == [5]
    assert len(frequent([], 3)) == 0


def test_memory_does_not_grow_with_the_corpus() -> None:
    """50 MB of hashes are counted in twice the 4 MB asked for, whether the sentences are all different or few."""
    limit, documents, rng = 4 << 20, 60_000, np.random.default_rng(1)
    pieces = [
        SentenceFile(
            rng.integers(0, 2**64, documents * 10, dtype=np.uint64),
            np.full(documents, 10, np.uint32),
            np.ones(documents, bool),
            np.arange(documents, dtype=np.uint64),
        )
        for _ in range(10)
    ]
    for share in (10, 1):
        for one in pieces:
            one.hashes[::share] = np.uint64(12345 << 40)
        tracemalloc.start()
        found = frequent(pieces, 20, limit)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert found.hashes.tolist() == [12345 << 40]
        assert most < 2 * limit


@settings(max_examples=200)
@given(CLEAN, st.sets(st.sampled_from([*NOTICES, "咳が続く。", "発熱あり"]), min_size=1))
def test_strip_leaves_no_frequent_sentence_and_nothing_else_goes(text: str, sentences: set[str]) -> None:
    found = known(*sentences)
    stripped, removed, characters = strip(text, found, 1, 5)
    assert characters == len(text) - len(stripped)
    left = sentence_hashes(stripped, 5)
    assert not found.among(left).any()
    before = sentence_hashes(text, 5)
    assert left.tolist() == before[~found.among(before)].tolist()
    assert strip(stripped, found, 1, 5) == (stripped, 0, 0)
    assert bool(removed) == bool(found.among(before).any())
    if not removed:
        assert stripped == text
    else:
        assert "\n\n\n" not in stripped
        assert stripped.strip("\n") == stripped
    assert strip(text, found, 0, 5) == (text, 0, 0)


@pytest.mark.parametrize(
    ("text", "stripped"),
    [
        ("咳が続く。 無断転載を禁じます。 受診した。", "咳が続く。 受診した。"),
        ("咳が続く。 無断 転載を禁じます。", "咳が続く。"),
        ("咳が続く。\n\n無断転載を禁じます。\n\n受診した。", "咳が続く。\n\n受診した。"),
        ("無断転載を禁じます。\n\n咳が続く。\n", "咳が続く。"),
        ("無断転載を禁じます。", ""),
        ("𠮷田です。無断転載を禁じます。😭", "𠮷田です。😭"),
    ],
)
def test_strip_tidies_lines(text: str, stripped: str) -> None:
    assert strip(text, known("無断転載を禁じます。"), 1, 5)[0] == stripped


@given(st.lists(CLEAN, max_size=6))
def test_touched_says_which_documents_change(texts: list[str]) -> None:
    found = known(*NOTICES[:2])
    one = piece(texts, list(range(len(texts))))
    assert touched(one.hashes, one.counts, found).tolist() == [strip(text, found, 99, 5)[1] > 0 for text in texts]


def test_the_document_of_the_smallest_order_keeps_the_sentence() -> None:
    texts = [f"{word}が続く。無断転載を禁じます。" for word in ("咳", "熱", "痛み", "下痢")]
    order, alive = [30, 20, 10, 40], [True, True, False, True]
    found = frequent([piece(texts[:2], order[:2], alive[:2]), piece(texts[2:], order[2:], alive[2:])], 2)
    assert found.keepers.tolist() == [20]
    kept = [strip(text, found, number, 5)[0] for text, number in zip(texts, order, strict=True)]
    assert kept == ["咳が続く。", texts[1], "痛みが続く。", "下痢が続く。"]


def test_frequent_is_saved_and_read(tmp_path: Path) -> None:
    found = known(*NOTICES, keeper=7)
    found.save(tmp_path / "frequent.npy")
    read = Frequent.load(tmp_path / "frequent.npy")
    assert (read.hashes == found.hashes).all()
    assert (read.keepers == 7).all()
    assert read.among(found.hashes).all()
    Frequent(np.zeros(0, np.uint64), np.zeros(0, np.uint64)).save(tmp_path / "none.npy")
    assert strip("咳が続く。", Frequent.load(tmp_path / "none.npy"), 1, 1) == ("咳が続く。", 0, 0)
