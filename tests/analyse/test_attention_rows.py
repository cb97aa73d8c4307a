"""Rows of documents for attention: marks, borders, positions, which documents are taken."""

import json
from itertools import islice

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rinsho.analyse.attention_rows import corpus_documents, encoded, invented_documents, rows_of
from rinsho.document import Document
from rinsho.errors import UserError
from toy_models import toy_tokenizer

BEGIN, END = 1, 2


@given(
    st.lists(st.lists(st.integers(3, 99), min_size=1, max_size=12), min_size=2, max_size=30),
    st.integers(16, 40),
    st.integers(1, 3),
    st.sampled_from([BEGIN, None]),
)
def test_rows_hold_documents_side_by_side(texts, size, rows, begin):
    taken = [(str(number), text) for number, text in enumerate(texts)]
    found = rows_of(taken, size, rows, (begin, END))
    assert 1 <= len(found) <= rows
    for row in found:
        assert len(row.ids) == size or len(found) == 1
        assert len(row.starts) == len(row.names) and row.starts[0] == 0
        assert len(row.ends) in (len(row.starts), len(row.starts) - 1)
        for place, name in enumerate(row.names):
            stop = row.starts[place + 1] if place + 1 < len(row.starts) else len(row.ids)
            whole = [*([BEGIN] if begin else []), *texts[int(name)], END]
            piece = row.ids[row.starts[place] : stop].tolist()
            assert piece == whole[: len(piece)]
            assert piece == whole or place == len(row.names) - 1
            assert (row.owner[row.starts[place] : stop] == place).all()
        assert (row.ids[row.ends] == END).all()
        bounded = row.positions(True)
        assert (np.flatnonzero(bounded == 0) == row.starts).all()
        assert (np.diff(bounded)[bounded[1:] > 0] == 1).all()
        assert (row.positions(False) == np.arange(len(row.ids))).all()


def test_a_single_document_is_not_enough():
    for documents in ([], [("a", [5] * 10)], [("a", [5] * 99)]):
        with pytest.raises(UserError, match="too few documents"):
            rows_of(documents, 20, 2, (BEGIN, END))


def test_no_more_documents_are_taken_than_needed():
    endless = ((str(number), [5] * 8) for number in iter(int, 1))
    assert len(rows_of(endless, 30, 3, (BEGIN, END))) == 3


def test_short_documents_first_then_cut_ones():
    tokenizer = toy_tokenizer()
    texts = [Document("肺癌" * count, str(count)) for count in (100, 3, 9, 5, 0, 8)]
    found = list(encoded(texts, tokenizer, 8))
    assert [name for name, _ in found] == ["3", "5", "8", "100", "9"]
    assert [len(ids) for _, ids in found] == [3, 5, 8, 8, 8]


def write(folder, names, lines=60):
    folder.mkdir(parents=True)
    for name in names:
        rows = [json.dumps({"id": f"{name}-{n}", "text": f"本文{n}"}) for n in range(lines)]
        (folder / f"{name}.jsonl").write_text("\n".join([*rows, "{broken"]), encoding="utf-8")


def test_documents_of_a_corpus_come_in_a_drawn_order_from_several_shards(tmp_path):
    write(tmp_path / "shards", "abc")
    (tmp_path / "validation").mkdir()
    first, again, other = ([d.id for d in corpus_documents([tmp_path], seed)] for seed in (1, 1, 2))
    assert first == again != other
    assert sorted(first) == sorted(other) and len(first) == 180
    assert {name[0] for name in first[:30]} == set("abc")


def test_token_files_and_empty_folders_are_refused(tmp_path):
    (tmp_path / "encoded" / "train").mkdir(parents=True)
    (tmp_path / "encoded" / "train" / "tokens.json").write_text("{}")
    with pytest.raises(UserError, match="token files, not texts"):
        list(corpus_documents([tmp_path / "encoded"], 1))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no documents in here"):
        list(corpus_documents([tmp_path / "empty"], 1))


@pytest.mark.slow
def test_invented_documents_depend_on_the_seed():
    first, again, other = ([d.text for d in islice(invented_documents(seed), 20)] for seed in (1, 1, 2))
    assert first == again != other
