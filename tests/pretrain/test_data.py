"""From corpora to rows: mixtures of two corpora, held-out rows by source, ids of the documents in a step."""

import math
import random
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
import toy_pretraining as toy

from rinsho.document import Document, write_documents
from rinsho.errors import UserError
from rinsho.pretrain import Recipe
from rinsho.pretrain.data import prepare
from rinsho.run import Stage
from rinsho.token_files import is_encoded
from rinsho.token_pieces import Copying
from rinsho.token_writing import encode_corpora
from rinsho.tokens import IGNORED, RowOrder

CORPORA = {"hospital": ["notes", "letters", ""], "general": ["wiki", "web"]}
REPLAY = {"hospital/*": {"weight": 0.75}, "*": {"weight": 0.25}}


@pytest.fixture(scope="module")
def corpora(tmp_path_factory):
    """Two corpora: hospital text of three sources, and five times as much general text of two."""
    folder = tmp_path_factory.mktemp("corpora")
    draw = random.Random(0)
    for corpus, sources in CORPORA.items():
        (folder / corpus).mkdir()
        rows = [
            Document("咳" * draw.randint(5, 60), f"{corpus}-{number}", {"source": sources[number % len(sources)]})
            for number in range(1500 if corpus == "general" else 300)
        ]
        with (folder / corpus / "a.jsonl.zst").open("wb") as file:
            write_documents(file, rows)
    return [folder / corpus for corpus in CORPORA]


def recipe_of(**changes):
    settings = {**toy.SETTINGS, "keep_tokens": False, "copy_fraction": 0, "max_tokens": 128 * 100, **changes}
    return Recipe.model_validate(settings)


def prepared(folder, corpora, **changes):
    stage = Stage("pretrain", folder)
    stage.partial.mkdir(parents=True, exist_ok=True)
    return prepare(recipe_of(**changes), [folder / "tokenizer", *corpora], toy.Letters(), "letters", stage)


def corpus_of(data, row):
    """The corpus of each document in a row."""
    return {name.partition("-")[0] for name in data.rows.ids(data.rows.documents_of([row]))}


def test_a_replay_share_is_kept_exactly_and_spread_evenly(corpora, tmp_path):
    data = prepared(tmp_path, corpora, mixture=REPLAY)
    rows = data.order.take(0, data.order.rows_per_pass).tolist()
    assert len(rows) == 400  # max_tokens / sequence_length
    found = [corpus_of(data, row) for row in rows]
    assert all(len(each) == 1 for each in found)  # corpora are packed apart
    assert sum(each == {"hospital"} for each in found) == 300
    assert sum(each == {"hospital"} for each in found[:256]) == 192
    passes = {row["source"]: row["passes"] for row in data.figures()["sources"]}
    hospital, general = np.diff(data.rows.groups)
    assert passes["hospital/notes"] == pytest.approx(300 / hospital, abs=1e-3)
    assert passes["general/wiki"] == pytest.approx(100 / general, abs=1e-3)
    shares = {row["source"]: row["share"] for row in data.figures()["sources"]}
    assert sum(shares.values()) == pytest.approx(1, abs=1e-3)
    assert sum(share for name, share in shares.items() if name.startswith("hospital")) == pytest.approx(0.75, abs=1e-3)


def test_encoded_corpora_are_mixed_as_the_corpora_are(corpora, tmp_path):
    encoded = []
    for corpus in corpora:
        encoded.append(tmp_path / "encoded" / corpus.name)
        how = {"validation_fraction": 0.1, "copying": Copying(0.0, 16, 1), "fingerprint": "letters"}
        encode_corpora([corpus], toy.Letters(), encoded[-1], scratch=tmp_path / "scratch", **how)
        assert is_encoded(encoded[-1])
    data = [prepared(tmp_path / name, given, mixture=REPLAY) for name, given in (("a", corpora), ("b", encoded))]
    numbers = [each.order.take(7, 50) for each in data]
    batches = [each.rows.batch(some) for each, some in zip(data, numbers, strict=True)]
    assert all((a == b).all() for a, b in zip(*batches, strict=True))
    assert data[0].figures() == data[1].figures()
    assert data[0].held_out.sources == data[1].held_out.sources


def test_epochs_and_left_out_sources(corpora, tmp_path):
    mixture = {"notes": {"epochs": 3}, "hospital/*": 0, "wiki": {"epochs": 0.5}, "*": {"epochs": 1}}
    data = prepared(tmp_path, corpora, mixture=mixture, max_tokens=None)
    rows = data.order.take(0, data.order.rows_per_pass)
    seen = np.bincount(rows, minlength=len(data.rows))
    assert [set(seen[begin:end].tolist()) for begin, end in pairwise(data.rows.groups)] == [{3}, set(), {0, 1}, {1}]
    documents = [data.tokens.sources[place] for place in data.tokens.source_of[data.rows.documents_of(rows)]]
    assert {row.name for row in documents} == {"notes", "wiki", "web"}
    passes = {row["source"]: row["passes"] for row in data.figures()["sources"]}
    assert (passes["hospital/notes"], passes["hospital"], passes["hospital/letters"]) == (3, 0, 0)
    twice = prepared(tmp_path, corpora, mixture=mixture, max_tokens=None, epochs=2.0)
    assert twice.passes == [2 * each for each in data.passes]


def test_without_a_mixture_all_documents_share_their_rows(corpora, tmp_path):
    data = prepared(tmp_path, corpora)
    assert isinstance(data.order, RowOrder)
    assert {len(corpus_of(data, row)) for row in range(0, len(data.rows), 5)} == {1, 2}
    (passes,) = data.passes
    assert passes == 400 / len(data.rows)
    assert {row["passes"] for row in data.figures()["sources"]} == {round(passes, 3)}


def test_held_out_rows_are_of_one_source_each(corpora, tmp_path):
    data = prepared(tmp_path, corpora, validation_fraction=0.2)
    held_out, tokens = data.held_out, data.held_out_tokens
    assert {source.name for source in held_out.sources} == {
        "general/web",
        "general/wiki",
        "hospital",
        "hospital/letters",
        "hospital/notes",
    }
    assert [source.tokens for source in held_out.sources] == sorted(s.tokens for s in held_out.sources)[::-1]
    assert sorted(row for source in held_out.sources for row in source.rows) == list(range(len(held_out.rows)))
    for source in held_out.sources:
        corpus, _, name = source.name.partition("/")
        numbers = held_out.rows.documents_of(source.rows)
        rows = {tokens.sources[place] for place in tokens.source_of[numbers]}
        assert {(row.corpus, row.name) for row in rows} == {(corpus, name)}
        assert (held_out.batch(source.rows).shift_labels != IGNORED).sum() == source.tokens
        assert source.characters == sum(row.characters for row in rows)
        assert source.tokens == source.characters + len(numbers)  # every letter and every end
        assert source.bits_per_character(10 * math.log(2), 5) == pytest.approx(2 * source.tokens / source.characters)
    whole = sum(source.tokens for source in held_out.sources)
    limits = [held_out.limit(source, 320) for source in held_out.sources]
    assert all(limit >= 1 for limit in limits)
    assert sum(limits) == pytest.approx(10, abs=3)
    assert [held_out.limit(source, 10**9) for source in held_out.sources] == [len(s.rows) for s in held_out.sources]
    losses = {source.name: float(place) for place, source in enumerate(held_out.sources)}
    mean = sum(place * source.tokens for place, source in enumerate(held_out.sources)) / whole
    assert held_out.mean(losses) == pytest.approx(mean)
    assert held_out.bits_per_character(math.log(2)) == whole / tokens.manifest["characters"]


def test_small_sources_beyond_twenty_are_measured_together(tmp_path):
    corpus = tmp_path / "many"
    corpus.mkdir()
    rows = [
        Document("咳" * (60 - number % 30), f"d{number}", {"source": f"s{number % 30:02d}"}) for number in range(600)
    ]
    with (corpus / "a.jsonl.zst").open("wb") as file:
        write_documents(file, rows)
    data = prepared(tmp_path, [corpus], validation_fraction=0.5)
    names = [source.name for source in data.held_out.sources]
    assert (len(names), names[-1]) == (21, "(others)")
    assert sum(source.characters for source in data.held_out.sources) == data.held_out_tokens.manifest["characters"]
    figures = data.figures()["sources"]
    assert len(figures) == 20


def test_what_is_refused_and_what_is_only_said(corpora, tmp_path):
    for mixture, text in (
        ({"clinic/*": 1, "*": 1}, "nothing is left for the pattern 'clinic/\\*'.*'hospital/notes'"),
        ({"hospital/*": 1}, "no pattern for 'general/web', 'general/wiki'"),
        ({"hospital/*": {"epochs": 1}, "*": {"epochs": 1}}, "max_tokens is given"),
        ({"hospital/*": {"epochs": 99}, "*": 1}, "max_tokens gives 400"),
    ):
        with pytest.raises(UserError, match=text):
            prepared(tmp_path, corpora, mixture=mixture)
    log = tmp_path / "log.txt"
    assert not log.exists()
    prepared(tmp_path, corpora, mixture=REPLAY, max_tokens=128 * 1000)
    assert "the text of 'hospital/*' is seen" in log.read_text()
