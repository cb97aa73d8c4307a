"""Rows: every token counted once, documents apart, order by seed alone."""

import numpy as np
import pytest

from rinsho.errors import UserError
from rinsho.token_files import TokenFile
from rinsho.tokens import IGNORED, RowOrder, pack, pack_examples


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


def test_packed_conversations_learn_only_what_the_mask_says():
    examples = [([1, 5, 6, 7, 2], [0, 0, 0, 1, 1]), ([1, 8, 2], [0, 1, 1]), (list(range(10, 40)), [0] * 20 + [1] * 10)]
    packed = pack_examples(examples, 12, pad_id=2)
    assert packed.cut == 1
    batch = packed.batch(range(len(packed)))
    labels = batch.shift_labels[batch.shift_labels != IGNORED].tolist()
    assert sorted(labels) == sorted([7, 2, 8, 2, *range(30, 40)])
    row = next(row for row in range(len(packed)) if 5 in batch.input_ids[row])
    place = batch.input_ids[row].tolist().index(5)
    assert batch.shift_labels[row, place - 1 : place + 3].tolist() == [IGNORED, IGNORED, 7, 2]
    assert batch.position_ids[row, place - 1] == 0
