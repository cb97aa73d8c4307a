"""Token folders: every document's ids, pieces continued after a kill, damage and other tokenizers refused."""

import json
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rinsho import token_writing
from rinsho.document import Document, write_documents
from rinsho.errors import UserError
from rinsho.token_files import (
    FILES,
    SourceRow,
    check_broken,
    is_encoded,
    open_encoded,
    open_tokens,
    verify_tokens,
)
from rinsho.token_pieces import COPIES, NO_COPIES, Copying, Selection
from rinsho.token_writing import encode_corpora, write_tokens
from rinsho.tokens import pack


class Letters:
    """A stand-in tokenizer: one id a character."""

    bos_token_id, eos_token_id, newline_id = 1, 2, 3

    def __init__(self, size=60_000):
        self.size = size
        self.texts = 0

    def __len__(self):
        return self.size

    def encode_text(self, text):
        self.texts += 1
        return [4 + ord(letter) % (self.size - 4) for letter in text]


def shard(path, texts, start=0, **meta):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        write_documents(file, [Document(text, f"d{start + place}", meta) for place, text in enumerate(texts)])
    return path


def written(folder, shards, tokenizer=None, **given):
    return write_tokens(shards, tokenizer or Letters(), folder / "tokens", scratch=folder / "scratch", **given)


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def made(tmp_path):
    """A token folder of three documents."""
    shards = [
        shard(tmp_path / "a.jsonl.zst", ["肺癌", "発熱\nあり"], source="case"),
        shard(tmp_path / "b.jsonl.zst", ["咳"], 2),
    ]
    written(tmp_path, shards, fingerprint="abc")
    return tmp_path / "tokens"


def test_it_holds_begin_text_and_end_of_every_document(made):
    opened = open_tokens(made)
    assert opened.offsets.tolist() == [0, 4, 11, 14]
    assert opened.tokens[:4].tolist() == [1, *Letters().encode_text("肺癌"), 2]
    assert opened.tokens[:].dtype == np.uint16
    manifest = opened.manifest
    assert (manifest["tokenizer"], manifest["vocab_size"], manifest["dtype"]) == ("abc", 60_000, "uint16")
    sums = {"documents": 3, "tokens": 14, "characters": 8, "text_bytes": 22, "broken_records": 0}
    assert {key: manifest[key] for key in sums} == sums
    assert [(row["shard"], row["documents"], row["tokens"]) for row in manifest["shards"]] == [
        ("a.jsonl.zst", 2, 11),
        ("b.jsonl.zst", 1, 3),
    ]
    assert opened.sources == [
        SourceRow("case", 2, 11, 7, licenses=(("", 2),), synthetic=()),
        SourceRow("", 1, 3, 1, licenses=(("", 1),), synthetic=()),
    ]
    assert opened.source_of.tolist() == [0, 0, 1]
    assert opened.ids([2, 0, 2]) == ["d0", "d2"]
    assert manifest["files"].keys() == set(FILES)
    assert str(made.parent) not in (made / "tokens.json").read_text()
    assert not (made.parent / "scratch").exists()


@given(st.lists(st.lists(st.text(st.characters(exclude_characters="\r"), max_size=30), max_size=6), max_size=4))
@settings(max_examples=20, deadline=None)
def test_any_documents_in_any_shards_come_out_in_order(tmp_path_factory, texts):
    folder = tmp_path_factory.mktemp("any")
    shards = [shard(folder / f"{place}.jsonl.zst", each) for place, each in enumerate(texts)]
    opened = written(folder, shards, Letters(2_000_000))
    found = [opened.tokens[start:end].tolist() for start, end in pairwise(opened.offsets)]
    assert found == [[1, *Letters(2_000_000).encode_text(text), 2] for each in texts for text in each]


def test_large_vocabularies_take_four_bytes(tmp_path):
    opened = written(tmp_path, [shard(tmp_path / "a.jsonl.zst", ["\U000207b7"])], Letters(1 << 20))
    assert (opened.manifest["dtype"], opened.tokens[1]) == ("uint32", 4 + 0x207B7)
    assert (tmp_path / "tokens" / "tokens.bin").stat().st_size == 3 * 4
    last = written(tmp_path / "b", [shard(tmp_path / "b.jsonl", [])], Letters(1 << 16))
    assert last.manifest["dtype"] == "uint16"


def test_an_array_of_ids_is_taken_where_the_tokenizer_gives_one(tmp_path):
    class Arrays(Letters):
        def encode_batch_arrays(self, texts):
            return (np.array(self.encode_text(text)[::-1], np.uint16) for text in texts)

    opened = written(tmp_path, [shard(tmp_path / "a.jsonl.zst", ["肺癌"])], Arrays())
    assert opened.tokens[:].tolist() == [1, *Letters().encode_text("癌肺"), 2]


def test_an_interrupted_folder_continues_with_the_missing_shards(tmp_path):
    shards = [shard(tmp_path / f"{name}.jsonl.zst", [name * 20], place) for place, name in enumerate("abc")]
    written(tmp_path / "whole", shards)

    class Killed(Letters):
        def encode_text(self, text):
            if self.texts == 2:
                raise KeyboardInterrupt
            return super().encode_text(text)

    with pytest.raises(KeyboardInterrupt):
        written(tmp_path, shards, Killed())
    assert not (tmp_path / "tokens").exists()
    rest = Letters()
    written(tmp_path, shards, rest)
    assert rest.texts == 1
    assert content(tmp_path / "tokens") == content(tmp_path / "whole" / "tokens")


def test_pieces_that_a_kill_left_behind_a_finished_folder_go(tmp_path, monkeypatch):
    shards = [shard(tmp_path / "a.jsonl.zst", ["肺癌"])]
    with monkeypatch.context() as patch:
        patch.setattr(token_writing.shutil, "rmtree", lambda *_, **__: None)
        before = content(written(tmp_path, shards) and tmp_path / "tokens")
    assert list((tmp_path / "scratch").glob("*/00000"))
    written(tmp_path, shards)
    assert content(tmp_path / "tokens") == before
    assert not (tmp_path / "scratch").exists()


def test_what_else_lies_in_the_scratch_folder_stays(tmp_path):
    (tmp_path / "scratch").mkdir()
    (tmp_path / "scratch" / "notes.txt").write_text("mine")
    written(tmp_path, [shard(tmp_path / "a.jsonl.zst", ["肺癌"])])
    assert [path.name for path in (tmp_path / "scratch").iterdir()] == ["notes.txt"]


def test_a_finished_folder_is_taken_over_only_with_the_same_settings(made):
    shards, tokenizer = sorted(made.parent.glob("*.zst")), Letters()
    written(made.parent, shards, tokenizer, fingerprint="abc")
    assert tokenizer.texts == 0
    for changed in ({"fingerprint": "xyz"}, {"fingerprint": "abc", "copying": Copying(0.5, 40, 1)}):
        with pytest.raises(UserError, match="made in another way"):
            written(made.parent, shards, **changed)


def test_broken_records_are_set_aside_by_line_and_reason(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.jsonl").write_bytes('{"id": "x", "text": "肺癌"}\nno json\n{"id": "y"}\n'.encode())
    (folder / "b.txt").write_bytes(b"\xff")
    opened = written(tmp_path, sorted(folder.iterdir()))
    assert opened.manifest["broken"] == [
        {"where": "a.jsonl:2", "reason": "invalid_json"},
        {"where": "a.jsonl:3", "reason": "no_text"},
        {"where": "b.txt", "reason": "invalid_utf8"},
    ]
    assert [row["broken_records"] for row in opened.manifest["shards"]] == [2, 1]
    assert (opened.manifest["broken_records"], opened.manifest["documents"]) == (3, 1)
    check_broken(opened, 0.75, folder)
    with pytest.raises(UserError, match=r"3 of 4 documents cannot be read \(first: a.jsonl:2, invalid_json\)"):
        check_broken(opened, 0.7, folder)


def test_a_shard_that_is_cut_off_is_refused(tmp_path):
    path = shard(tmp_path / "a.jsonl.zst", ["肺癌" * 500])
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(UserError, match=r"a.jsonl.zst: the file is cut off"):
        written(tmp_path, [path])
    assert not (tmp_path / "tokens").exists()


def test_empty_shards_and_empty_folders_can_be_opened(tmp_path):
    shards = [shard(tmp_path / f"{place}.jsonl.zst", texts) for place, texts in enumerate([[], ["咳"], []])]
    assert written(tmp_path / "some", shards).offsets.tolist() == [0, 3]
    empty = written(tmp_path / "none", shards[:1])
    assert (len(empty.tokens), empty.offsets.tolist()) == (0, [0])
    assert (empty.sources, len(empty.source_of), empty.ids([])) == ([], 0, [])
    verify_tokens(tmp_path / "none" / "tokens")


def test_copies_are_spans_of_the_same_document_for_a_share_of_them(tmp_path):
    texts = ["".join(chr(0x4E00 + (place * 97 + letter) % 5000) for letter in range(80)) for place in range(60)]
    opened = written(tmp_path, [shard(tmp_path / "a.jsonl.zst", texts)], copying=Copying(0.5, 40, 1))
    copied = int((np.diff(opened.offsets) > 82).sum())
    assert 15 < copied < 45
    for start, end in pairwise(opened.offsets):
        ids = opened.tokens[start:end].tolist()
        if len(ids) == 82:
            continue
        original, *spans = "".join(map(chr, ids[1:-1])).split("\x03")
        assert len(original) == 80
        assert len(spans) == COPIES
        assert all(span[2:] in original[40:] for span in spans)
    assert opened.manifest["copying"] == {"fraction": 0.5, "window": 40, "seed": 1}


def test_the_held_out_share_and_the_rest_are_disjoint_and_whole(tmp_path):
    shards = [shard(tmp_path / "a.jsonl.zst", [f"文書{number}" for number in range(400)])]
    parts = [written(tmp_path / str(inside), shards, selection=Selection(0.1, inside, 1)) for inside in (True, False)]
    held, rest = (part.manifest["documents"] for part in parts)
    assert held + rest == 400
    assert 20 < held < 65


# Corpora


def encoded(folder, *corpora, **given):
    given = {"copying": NO_COPIES, "fingerprint": "abc", **given}
    return encode_corpora(corpora, Letters(), folder, scratch=folder / "scratch", **given)


def test_held_out_is_the_corpus_own_part_and_nothing_of_it_is_trained_on(tmp_path):
    for corpus in (tmp_path / "plain", tmp_path / "run" / "shards"):
        shard(corpus / "a.jsonl.zst", ["訓練"] * 30)
    for corpus in (tmp_path / "plain", tmp_path / "run"):
        shard(corpus / "validation" / "v.jsonl.zst", ["検証用"])
        training, held_out = encoded(corpus.with_suffix(".out"), corpus, validation_fraction=0.5)
        assert (training.manifest["documents"], held_out.manifest["documents"]) == (30, 1)
        assert training.manifest["characters"] == 60
    assert encoded(tmp_path / "none", tmp_path / "plain" / "a.jsonl.zst").validation is None


def test_the_held_out_share_is_chosen_by_the_seed_and_never_copied(tmp_path):
    texts = [chr(0x4E00 + number) * 30 for number in range(200)]
    shard(tmp_path / "corpus" / "a.jsonl.zst", texts)
    found = []
    for seed in (1, 2):
        folder = tmp_path / f"out{seed}"
        parts = encoded(folder, tmp_path / "corpus", validation_fraction=0.2, copying=Copying(1.0, 30, seed))
        assert set(np.diff(parts.validation.offsets)) == {32}
        assert (np.diff(parts.training.offsets) > 32).all()
        assert parts.training.manifest["documents"] + parts.validation.manifest["documents"] == 200
        found.append(parts.validation.tokens[:].tolist())
    assert found[0] != found[1]


def test_several_encoded_corpora_are_as_one(tmp_path):
    for place, name in enumerate("abc"):
        texts = [f"{name}文書{number}" * (1 + number % 7) for number in range(0 if name == "b" else 60)]
        shard(tmp_path / name / "x.jsonl.zst", texts, 100 * place)
        encoded(tmp_path / f"{name}.out", tmp_path / name, validation_fraction=0.2)
    one = encoded(tmp_path / "one", *(tmp_path / name for name in "abc"), validation_fraction=0.2)
    several = open_encoded([tmp_path / f"{name}.out" for name in "abc"], "abc")
    for mine, wanted in zip(several, one, strict=True):
        assert mine.offsets.tolist() == wanted.offsets.tolist()
        assert len(mine.tokens) == len(wanted.tokens)
        assert mine.ids(range(len(mine.source_of))) == wanted.ids(range(len(wanted.source_of)))
        assert [mine.sources[place].corpus for place in mine.source_of] == [
            wanted.sources[place].corpus for place in wanted.source_of
        ]
        for key in ("documents", "tokens", "characters", "text_bytes", "broken_records"):
            assert mine.manifest[key] == wanted.manifest[key]
        for how, bounds in (("best_fit", True), ("cut", True), ("cut", False)):
            rows = [pack(source, 16, how=how, document_bounds=bounds) for source in (mine, wanted)]
            batches = [each.batch(range(len(each))) for each in rows]
            assert all((a == b).all() for a, b in zip(*batches, strict=True))


def test_what_is_an_encoded_corpus(made, tmp_path):
    shard(tmp_path / "corpus" / "a.jsonl.zst", ["咳"])
    encoded(tmp_path / "out", tmp_path / "corpus")
    assert [is_encoded(path) for path in (made, tmp_path / "out", tmp_path / "corpus")] == [True, True, False]
    assert open_encoded([made]).validation is None


# What is refused


def test_another_tokenizer_is_refused_by_both_fingerprints(made):
    assert open_tokens(made, "abc").manifest["documents"] == 3
    with pytest.raises(UserError, match=r"made with the tokenizer abc; expected xyz"):
        open_tokens(made, "xyz")
    with pytest.raises(UserError, match=r"made with the tokenizer abc; expected xyz"):
        open_encoded([made], "xyz")


def test_folders_of_different_tokenizers_or_number_forms_are_refused(made, tmp_path):
    shards = sorted(tmp_path.glob("*.zst"))
    written(tmp_path / "other", shards, fingerprint="xyz")
    written(tmp_path / "large", shards, Letters(70_000), fingerprint="abc")
    with pytest.raises(UserError, match=r"different tokenizers were given \(xyz here, abc in "):
        open_encoded([made, tmp_path / "other" / "tokens"])
    with pytest.raises(UserError, match=r"different number forms were given \(uint32 here, uint16 in "):
        open_encoded([made, tmp_path / "large" / "tokens"])


@pytest.mark.parametrize("name", [*FILES, "tokens.json"])
@pytest.mark.parametrize("left", [0, 1, -1])
def test_a_file_that_is_cut_off_or_missing_is_refused(made, name, left):
    path = made / name
    path.write_bytes(path.read_bytes()[:left] if left else b"")
    if (name, left) == ("tokens.json", -1):
        path.write_bytes(path.read_bytes()[:-1])  # without its line feed it is still whole: cut the bracket, too
    with pytest.raises(UserError, match="expected the files as they were written"):
        open_tokens(made)
    path.unlink()
    with pytest.raises(UserError, match=r"no token files in here|is missing"):
        open_tokens(made)


def test_offsets_of_another_folder_are_refused(made, tmp_path):
    other = written(tmp_path / "other", [shard(tmp_path / "c.jsonl.zst", ["咳嗽と発熱", "咳", "熱"])])
    assert other.manifest["documents"] == 3
    (made / "documents.npy").write_bytes((tmp_path / "other" / "tokens" / "documents.npy").read_bytes())
    with pytest.raises(UserError, match=r"documents.npy does not fit"):
        open_tokens(made)


@pytest.mark.parametrize("name", FILES)
def test_a_changed_byte_is_found_when_the_content_is_verified(made, name):
    verify_tokens(made)
    data = bytearray((made / name).read_bytes())
    data[-5 if name == "sources.json" else -10] ^= 1  # there it is the last count
    (made / name).write_bytes(data)
    open_tokens(made)  # sizes alone do not tell
    with pytest.raises(UserError, match=f"{name} was changed"):
        verify_tokens(made)


def test_the_form_before_sources_and_ids_is_refused(made):
    manifest = json.loads((made / "tokens.json").read_text())
    (made / "tokens.json").write_text(json.dumps(manifest | {"format": 1}))
    with pytest.raises(UserError, match=r"another form; expected format 2 in tokens.json; encode the corpus again"):
        open_tokens(made)
