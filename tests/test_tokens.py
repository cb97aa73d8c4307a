"""Token files and packing: every token counted once, order by seed alone, pieces continued after a kill."""

from itertools import pairwise

import numpy as np
import pytest

from rinsho.document import Document, write_documents
from rinsho.errors import UserError
from rinsho.tokens import (
    COPIES,
    IGNORED,
    RowOrder,
    Selection,
    TokenFile,
    open_tokens,
    pack,
    pack_examples,
    write_tokens,
)


class Letters:
    """A stand-in tokenizer: one id a character."""

    bos_token_id, eos_token_id, newline_id = 1, 2, 3

    def __init__(self, size=60_000):
        self.size = size
        self.calls = 0

    def __len__(self):
        return self.size

    def encode_text(self, text):
        return [4 + ord(letter) % (self.size - 4) for letter in text]

    def encode_batch_text(self, texts):
        self.calls += 1
        return [self.encode_text(text) for text in texts]


def token_file(lengths, seed=0):
    rng = np.random.default_rng(seed)
    documents = [np.r_[1, rng.integers(10, 1000, length - 2), 2] for length in lengths]
    offsets = np.cumsum([0, *lengths]).astype(np.int64)
    return TokenFile(np.concatenate(documents).astype(np.uint16), offsets, {})


def shard(path, texts, start=0):
    with path.open("wb") as file:
        write_documents(file, [Document(text, f"d{start + place}") for place, text in enumerate(texts)])
    return path


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


def test_a_token_folder_holds_begin_text_and_end_of_every_document(tmp_path):
    tokenizer = Letters()
    shards = [shard(tmp_path / "a.jsonl.zst", ["肺癌", "発熱\nあり"]), shard(tmp_path / "b.jsonl.zst", ["咳"], 2)]
    made = write_tokens(shards, tokenizer, tmp_path / "tokens", scratch=tmp_path / "scratch", tokenizer_hash="abc")
    assert made.offsets.tolist() == [0, 4, 11, 14]
    assert made.tokens[:4].tolist() == [1, *tokenizer.encode_text("肺癌"), 2]
    assert made.tokens.dtype == np.uint16
    assert made.manifest["characters"] == 8
    assert [row["documents"] for row in made.manifest["shards"]] == [2, 1]
    assert str(tmp_path) not in (tmp_path / "tokens" / "manifest.json").read_text()
    assert open_tokens(tmp_path / "tokens").tokens.tolist() == made.tokens.tolist()


def test_large_vocabularies_take_four_bytes(tmp_path):
    shards = [shard(tmp_path / "a.jsonl.zst", ["肺"])]
    made = write_tokens(shards, Letters(70_000), tmp_path / "tokens", scratch=tmp_path / "scratch")
    assert made.tokens.dtype == np.uint32


def test_an_interrupted_token_folder_continues_with_the_missing_shards(tmp_path):
    shards = [shard(tmp_path / f"{name}.jsonl.zst", [name * 20], place) for place, name in enumerate("abc")]
    whole = write_tokens(shards, Letters(), tmp_path / "whole", scratch=tmp_path / "one")

    class Killed(Letters):
        def encode_batch_text(self, texts):
            if self.calls == 2:
                raise KeyboardInterrupt
            return super().encode_batch_text(texts)

    with pytest.raises(KeyboardInterrupt):
        write_tokens(shards, Killed(), tmp_path / "again", scratch=tmp_path / "two")
    rest = Letters()
    write_tokens(shards, rest, tmp_path / "again", scratch=tmp_path / "two")
    assert rest.calls == 1
    for name in ("tokens.bin", "documents.npy", "manifest.json"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert whole.manifest["documents"] == 3


def test_broken_records_are_set_aside_by_line_and_reason(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes('{"id": "x", "text": "肺癌"}\nno json\n'.encode())
    made = write_tokens([path], Letters(), tmp_path / "tokens", scratch=tmp_path / "scratch")
    assert made.manifest["broken"] == [{"where": "a.jsonl:2", "reason": "invalid_json"}]
    assert made.manifest["documents"] == 1


def test_copies_are_spans_of_the_same_document_for_a_share_of_them(tmp_path):
    texts = ["".join(chr(0x4E00 + (place * 97 + letter) % 5000) for letter in range(80)) for place in range(60)]
    shards = [shard(tmp_path / "a.jsonl.zst", texts)]
    made = write_tokens(shards, Letters(), tmp_path / "t", scratch=tmp_path / "s", copy_fraction=0.5, copy_window=40)
    lengths = np.diff(made.offsets)
    copied = int((lengths > 82).sum())
    assert 15 < copied < 45
    for start, end in pairwise(made.offsets):
        ids = made.tokens[start:end].tolist()
        if len(ids) == 82:
            continue
        original, *spans = "".join(map(chr, ids[1:-1])).split("\x03")
        assert len(original) == 80
        assert len(spans) == COPIES
        assert all(span[2:] in original[40:] for span in spans)


def test_the_held_out_share_and_the_rest_are_disjoint_and_whole(tmp_path):
    shards = [shard(tmp_path / "a.jsonl.zst", [f"文書{number}" for number in range(400)])]
    parts = [
        write_tokens(shards, Letters(), tmp_path / str(inside), scratch=tmp_path / f"s{inside}", selection=selection)
        for inside in (True, False)
        for selection in [Selection(0.1, inside, seed=1)]
    ]
    held, rest = (part.manifest["documents"] for part in parts)
    assert held + rest == 400
    assert 20 < held < 65


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
