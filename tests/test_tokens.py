"""Rows: every token counted once, documents apart, order by seed alone."""

from hashlib import blake2b
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rinsho.errors import UserError
from rinsho.packing import fair_counts
from rinsho.token_files import TokenFile
from rinsho.tokens import BLOCK_ROWS, IGNORED, MixedOrder, RowOrder, pack, pack_examples


def token_file(lengths, seed=0):
    rng = np.random.default_rng(seed)
    documents = [np.r_[1, rng.integers(10, 1000, length - 2), 2] for length in lengths]
    offsets = np.cumsum([0, *lengths]).astype(np.int64)
    return TokenFile(np.concatenate(documents).astype(np.uint16), offsets, {})


@pytest.mark.parametrize("how", ["cut", "best_fit"])
@pytest.mark.parametrize("size", [8, 16, 50])
def test_every_token_but_the_first_of_a_document_is_predicted_exactly_once(how, size):
    lengths = [3, 17, 2, 40, 9, 16, 8, 33, 2, 5, 128]
    source = token_file(lengths)
    rows = pack(source, size, how=how, seed=1)
    batch = rows.batch(range(len(rows)))
    assert batch.input_ids.shape == (len(rows), size)
    assert batch.targets == sum(lengths) - len(lengths) == rows.inputs
    wanted = np.concatenate(
        [source.tokens[a + 1 : b] for a, b in zip(source.offsets, source.offsets[1:], strict=False)]
    )
    labels = batch.shift_labels[batch.shift_labels != IGNORED]
    assert sorted(labels.tolist()) == sorted(wanted.tolist())


@pytest.mark.parametrize("how", ["cut", "best_fit"])
def test_a_row_is_made_of_runs_of_documents_with_positions_of_their_own(how):
    source = token_file([3, 17, 2, 40, 9, 16, 8, 33])
    batch = pack(source, 16, how=how, seed=1).batch(range(5))
    for ids, positions, labels in zip(*batch, strict=True):
        for place in range(1, 16):
            if positions[place] == 0:
                continue
            assert positions[place] == positions[place - 1] + 1
            if labels[place - 1] != IGNORED:
                assert labels[place - 1] == ids[place]  # inside a run, the label is the next input


def test_best_fit_keeps_short_documents_whole_and_fills_better_than_first_come():
    lengths = np.random.default_rng(1).integers(2, 60, 400).tolist()
    rows = pack(token_file(lengths), 64, how="best_fit")
    batch = rows.batch(range(len(rows)))
    assert (batch.position_ids == 0).sum() - len(rows) <= 400  # runs: documents, and padding at most once a row
    assert ((batch.shift_labels == 2).sum()) == 400
    assert rows.inputs / (len(rows) * 64) > 0.97


def test_without_bounds_the_rows_are_one_stream():
    source = token_file([7, 30, 11, 25])
    rows = pack(source, 16, how="cut", document_bounds=False, seed=3)
    batch = rows.batch(range(len(rows)))
    assert len(rows) == 73 // 16
    assert (batch.position_ids == np.arange(16)).all()
    assert (batch.shift_labels[:, :-1] == batch.input_ids[:, 1:]).all()
    assert (batch.shift_labels[:-1, -1] == batch.input_ids[1:, 0]).all()
    with pytest.raises(UserError, match="document_bounds"):
        pack(source, 16, how="best_fit", document_bounds=False)


def test_packing_and_order_depend_on_the_seed_alone():
    source = token_file([9] * 50)
    first, second, other = (pack(source, 16, how="cut", seed=seed) for seed in (1, 1, 2))
    assert (first.batch(range(5)).input_ids == second.batch(range(5)).input_ids).all()
    assert (first.batch(range(5)).input_ids != other.batch(range(5)).input_ids).any()


def test_the_order_visits_every_row_once_an_epoch_and_a_position_is_enough_to_continue():
    whole = RowOrder(10, seed=1).take(0, 30)
    for epoch in range(3):
        assert sorted(whole[epoch * 10 : epoch * 10 + 10]) == list(range(10))
    assert whole[:10].tolist() != whole[10:20].tolist()
    for position, count in ((0, 7), (7, 7), (3, 25)):
        assert RowOrder(10, seed=1).take(position, count).tolist() == whole[position : position + count].tolist()
    assert RowOrder(10, seed=2).take(0, 10).tolist() != whole[:10].tolist()


@pytest.mark.parametrize(
    ("how", "bounds", "wanted"),
    [
        ("best_fit", True, "ca405c5174cb62bd"),
        ("cut", True, "cd7be532344e9050"),
        ("cut", False, "c5154a382314c758"),
    ],
)
def test_rows_are_those_of_the_first_version(how, bounds, wanted):
    source = token_file([3, 17, 2, 40, 9, 16, 8, 33, 2, 5, 128, 21, 21, 64])
    rows = pack(source, 16, how=how, document_bounds=bounds, seed=5, pad_id=2)
    arrays = rows.batch(range(len(rows)))
    assert {array.dtype for array in arrays} == {np.dtype(np.int64)}
    assert blake2b(b"".join(array.tobytes() for array in arrays), digest_size=8).hexdigest() == wanted


def test_no_rows_are_a_batch_too():
    rows = pack(token_file([5, 9]), 8)
    assert [array.shape for array in rows.batch([])] == [(0, 8)] * 3
    assert rows.documents_of([]).tolist() == []


# Groups of documents packed apart

LENGTHS = st.lists(st.tuples(st.integers(2, 40), st.integers(-1, 2)), min_size=1, max_size=30)


@given(LENGTHS, st.sampled_from([("best_fit", True), ("cut", True), ("cut", False)]))
@settings(max_examples=60, deadline=None)
def test_a_group_is_packed_as_a_text_by_itself_would_be(documents, way):
    how, bounds = way
    lengths, group_of = ([each[place] for each in documents] for place in (0, 1))
    source, group_of = token_file(lengths), np.array(group_of)
    rows = pack(source, 8, how=how, document_bounds=bounds, group_of=group_of, groups=3)
    assert rows.groups[-1] == len(rows)
    for group in range(3):
        mine = range(rows.groups[group], rows.groups[group + 1])
        batch, members = rows.batch(mine), np.flatnonzero(group_of == group)
        inputs = sum(length - bounds for length in np.array(lengths)[members])
        assert len(mine) == (-(-inputs // 8) if how == "cut" and bounds else len(mine))
        if bounds:
            wanted = [source.tokens[source.offsets[each] + 1 : source.offsets[each + 1]] for each in members]
            found = batch.shift_labels[batch.shift_labels != IGNORED]
            assert sorted(found) == sorted(np.concatenate([[], *wanted]))
        else:
            assert len(mine) == max(0, inputs - 1) // 8
            assert (batch.shift_labels[:-1, -1] == batch.input_ids[1:, 0]).all()
        found = rows.documents_of(mine)
        assert set(found.tolist()) <= set(members.tolist())
        if bounds:
            assert found.tolist() == members.tolist()


def test_the_documents_of_some_rows():
    source = token_file([9, 9, 9, 30])
    rows = pack(source, 8, how="cut", seed=1)
    for row in range(len(rows)):
        ids = set(rows.batch([row]).input_ids[0].tolist()) - {1, 2}
        inside = [n for n in range(4) if ids & set(source.tokens[source.offsets[n] : source.offsets[n + 1]].tolist())]
        assert set(rows.documents_of([row]).tolist()) <= set(inside)
    assert rows.documents_of(range(len(rows))).tolist() == [0, 1, 2, 3]
    assert rows.ids([2, 0]) == ["0", "2"]


# Mixed order

COUNTS = st.lists(st.integers(0, 700), min_size=1, max_size=6).filter(any)


@given(COUNTS, st.integers(1, 300))
def test_every_block_ends_with_every_share_to_within_one(counts, block):
    found, total = fair_counts(counts, block), sum(counts)
    places = [*range(0, total, block), total]
    assert found.sum(axis=1).tolist() == places
    assert (np.diff(found, axis=0) >= 0).all()
    fair = np.outer(places, counts) / total
    assert (abs(found - fair) < 1).all()
    assert found[-1].tolist() == counts


@given(st.lists(st.tuples(st.integers(1, 90), st.integers(0, 400)), min_size=1, max_size=5), st.data())
@settings(max_examples=60, deadline=None)
def test_a_mixed_order_taken_in_any_parts_is_the_same(groups, data):
    borders = np.cumsum([0, *(rows for rows, _ in groups)])
    draws = [drawn for _, drawn in groups[:-1]] + [groups[-1][1] + 1]
    total = sum(draws)
    whole = MixedOrder(borders, draws, seed=3).take(0, 2 * total + 7)
    cuts = sorted({0, len(whole), *data.draw(st.lists(st.integers(0, len(whole)), max_size=6))})
    order = MixedOrder(borders, draws, seed=3)
    parts = [order.take(start, stop - start) for start, stop in pairwise(cuts)]
    assert np.concatenate(parts).tolist() == whole.tolist()
    group_of = np.searchsorted(borders, whole, side="right") - 1
    assert np.bincount(group_of[:total], minlength=len(groups)).tolist() == draws
    for end in range(0, total, BLOCK_ROWS):
        seen = np.bincount(group_of[:end], minlength=len(groups))
        assert (abs(seen - end * np.array(draws) / total) < 1).all()
    for group, (rows, _) in enumerate(groups):  # every row once before any is seen twice
        mine = whole[group_of == group] - borders[group]
        for start in range(0, len(mine), rows):
            some = mine[start : start + rows]
            assert len(set(some.tolist())) == len(some)


def test_a_mixed_order_is_shuffled_by_the_seed():
    borders = np.array([0, 500, 1000])
    first, again, other = (MixedOrder(borders, [300, 900], seed).take(0, 1200).tolist() for seed in (1, 1, 2))
    assert first == again != other
    labels = [row >= 500 for row in first[:BLOCK_ROWS]]
    assert sum(labels) == BLOCK_ROWS * 3 // 4
    assert 40 < sum(one != two for one, two in pairwise(labels)) < 150  # 96 on average


def test_packed_conversations_learn_only_what_the_mask_says():
    examples = [([1, 5, 6, 7, 2], [0, 0, 0, 1, 1]), ([1, 8, 2], [0, 1, 1]), (list(range(10, 40)), [0] * 20 + [1] * 10)]
    packed = pack_examples(examples, 12, pad_id=2)
    assert packed.cut == 1
    batch = packed.rows
    labels = batch.shift_labels[batch.shift_labels != IGNORED].tolist()
    assert sorted(labels) == sorted([7, 2, 8, 2, *range(30, 40)])
    row = next(row for row in range(len(batch.input_ids)) if 5 in batch.input_ids[row])
    place = batch.input_ids[row].tolist().index(5)
    assert batch.shift_labels[row, place - 1 : place + 3].tolist() == [IGNORED, IGNORED, 7, 2]
    assert batch.position_ids[row, place - 1] == 0
