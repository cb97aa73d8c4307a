"""Sources and ids of token folders: every document's own, also joined, interrupted, and with names of any kind."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rinsho.document import Document, printable_name, write_documents
from rinsho.token_files import SourceRow, open_encoded, open_tokens, verify_tokens
from rinsho.token_pieces import NO_COPIES
from rinsho.token_writing import _merge, encode_corpora, write_tokens
from rinsho.tokenizer.encode import _sources
from test_token_files import Letters, content

NAMES = st.text(st.characters(codec=None), max_size=5)  # lone surrogates and line breaks too
DOCUMENTS = st.lists(st.lists(st.tuples(NAMES, NAMES, st.sampled_from(["咳", "肺癌", ""])), max_size=6), max_size=4)


def shard(path, rows):
    """A shard of (id, source, text)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        write_documents(file, [Document(text, name, {"source": source}) for name, source, text in rows])
    return path


def encode(folder, *corpora, **given):
    return encode_corpora(corpora, Letters(), folder, scratch=folder / "scratch", copying=NO_COPIES, **given)


@given(DOCUMENTS)
@settings(max_examples=20, deadline=None)
def test_any_ids_and_sources_come_back_document_by_document(tmp_path_factory, shards):
    folder = tmp_path_factory.mktemp("any")
    paths = [shard(folder / f"{place}.jsonl.zst", rows) for place, rows in enumerate(shards)]
    corpora = ["甲" if place % 2 else "乙" for place in range(len(shards))]
    made = write_tokens(paths, Letters(), folder / "tokens", scratch=folder / "scratch", corpora=corpora)
    verify_tokens(folder / "tokens")
    wanted = [(corpus, *row) for corpus, rows in zip(corpora, shards, strict=True) for row in rows]
    everything = made.ids(range(len(wanted)))
    # A document without an id gets the place of its line.
    assert [name for name, row in zip(everything, wanted, strict=True) if row[1]] == [
        printable_name(name) for _, name, _, _ in wanted if name
    ]
    assert made.ids(range(0, len(wanted), 3)) == everything[::3]
    found = [made.sources[place] for place in made.source_of]
    assert [(row.corpus, row.name) for row in found] == [(c, printable_name(source)) for c, _, source, _ in wanted]
    for row in made.sources:
        mine = [text for c, _, source, text in wanted if (c, printable_name(source)) == (row.corpus, row.name)]
        counts = len(mine), sum(len(text) + 2 for text in mine), sum(map(len, mine))
        assert (row.documents, row.tokens, row.characters) == counts


def test_interrupted_encoding_gives_the_same_files(tmp_path):
    rows = [
        [(f"{place}-{number}", f"s{number % (2 + place)}", "咳" * number) for number in range(5)] for place in (0, 1)
    ]
    for place, each in enumerate(rows):
        shard(tmp_path / "corpus" / f"{place}.jsonl.zst", each)

    class Killed(Letters):
        def encode_text(self, text):
            if self.texts == 7:
                raise KeyboardInterrupt
            return super().encode_text(text)

    made = {"scratch": tmp_path / "scratch", "copying": NO_COPIES}
    with pytest.raises(KeyboardInterrupt):
        encode_corpora([tmp_path / "corpus"], Killed(), tmp_path / "out", **made)
    encode_corpora([tmp_path / "corpus"], Letters(), tmp_path / "out", **made)
    encode(tmp_path / "whole", tmp_path / "corpus")
    assert content(tmp_path / "out" / "train") == content(tmp_path / "whole" / "train")
    sources = json.loads((tmp_path / "out" / "train" / "sources.json").read_text())
    assert [(row["corpus"], row["source"], row["documents"]) for row in sources] == [
        ("corpus", "s0", 5),
        ("corpus", "s1", 4),
        ("corpus", "s2", 1),
    ]


def test_encoded_corpora_keep_the_names_of_corpus_and_folder(tmp_path):
    for name, source in (("hospital", ""), ("general", "wiki")):
        shard(tmp_path / name / "a.jsonl.zst", [(f"{name}{number}", source, "咳嗽") for number in range(20)])
        encode(tmp_path / f"{name}-tokens", tmp_path / name, validation_fraction=0.3)
    training, held_out = open_encoded([tmp_path / "hospital-tokens", tmp_path / "general-tokens"])
    few = training.sources[0].documents
    assert training.sources == [
        SourceRow("", few, 4 * few, 2 * few, "hospital", "hospital-tokens", (("", few),), ()),
        SourceRow(
            "wiki", *training.sources[1][1:4], "general", "general-tokens", (("", training.sources[1].documents),), ()
        ),
    ]
    assert np.bincount(training.source_of).tolist() == [row.documents for row in training.sources]
    assert training.ids([few - 1, few])[1].startswith("general")
    assert {row.corpus for row in held_out.sources} == {"hospital", "general"}
    assert len(held_out.ids(range(100))) == held_out.manifest["documents"]


def test_licences_of_documents_are_counted(tmp_path):
    said = ["CC-BY-4.0", "CC-BY-NC-4.0", None, "CC-BY-4.0"]
    for place in (0, 1):  # the counts of two shards add up
        with (tmp_path / f"{place}.jsonl.zst").open("wb") as file:
            rows = [{"source": "records"} | ({"license": each} if each else {}) for each in said]
            write_documents(file, [Document("咳", f"{place}-{n}", meta) for n, meta in enumerate(rows)])
    shards = [tmp_path / f"{place}.jsonl.zst" for place in (0, 1)]
    write_tokens(shards, Letters(), tmp_path / "tokens", scratch=tmp_path / "scratch")
    (row,) = open_tokens(tmp_path / "tokens").sources
    assert dict(row.licenses) == {"CC-BY-4.0": 4, "CC-BY-NC-4.0": 2, "": 2}


def test_documents_that_a_model_wrote_are_counted(tmp_path):
    said = [{"synthetic": True, "model": "some-70b"}, {"synthetic": "true"}, {"model": "some-70b"}, {}]
    for place in (0, 1):
        with (tmp_path / f"{place}.jsonl.zst").open("wb") as file:
            rows = [Document("咳" * (n + 1), f"{place}-{n}", {"source": "s", **meta}) for n, meta in enumerate(said)]
            write_documents(file, rows)
    shards = [tmp_path / f"{place}.jsonl.zst" for place in (0, 1)]
    write_tokens(shards, Letters(), tmp_path / "tokens", scratch=tmp_path / "scratch")
    (row,) = open_tokens(tmp_path / "tokens").sources
    assert dict(row.synthetic) == {"some-70b": 2, "": 2}
    assert (row.documents, row.tokens, row.synthetic_tokens) == (8, 2 * (3 + 4 + 5 + 6), 2 * (3 + 4))


def test_pieces_of_earlier_versions_make_what_they_do_not_tell_not_recorded():
    sources = {}
    new = ["s", 2, 9, 5, {"MIT": 2}, {"some-70b": 1}, 4]
    for rows in ([new], [["s", 1, 5, 3, {"MIT": 1}], new], [["t", 1, 5, 3]], [new]):
        _merge(sources, "c", rows)
    assert sources == {
        ("c", "s"): [0, 7, 32, 18, {"MIT": 7}, None, 12],
        ("c", "t"): [1, 1, 5, 3, {"": 1}, None, 0],
    }


def test_token_files_from_before_licences_were_recorded_open(tmp_path):
    shard(tmp_path / "a.jsonl.zst", [("a", "records", "咳")])
    write_tokens([tmp_path / "a.jsonl.zst"], Letters(), tmp_path / "tokens", scratch=tmp_path / "scratch")
    about = json.loads((tmp_path / "tokens" / "tokens.json").read_text())
    rows = json.loads((tmp_path / "tokens" / "sources.json").read_text())
    new = ("licenses", "synthetic", "synthetic_tokens")
    old = json.dumps([{key: row[key] for key in row if key not in new} for row in rows])
    (tmp_path / "tokens" / "sources.json").write_text(old)
    about["files"]["sources.json"]["bytes"] = len(old)
    (tmp_path / "tokens" / "tokens.json").write_text(json.dumps(about))
    (row,) = open_tokens(tmp_path / "tokens").sources
    assert (row.licenses, row.synthetic, row.synthetic_tokens) == (None, None, 0)


def test_the_report_of_encoding_lists_the_largest_sources():
    rows = [SourceRow(f"s{number:03d}", 1, 3 + number % 3, 1 + number % 3, "c") for number in range(150)]
    listed = _sources(rows)
    assert len(listed) == 101
    assert listed[0] == {"source": "s002", "corpus": "c", "documents": 1, "tokens": 5, "characters": 3}
    assert listed[-1] == {"source": "(50 others)", "corpus": "", "documents": 50, "tokens": 150, "characters": 50}
