"""The parts of the measurement: samples, word boundaries, spans, terms, and the few figures of training."""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rinsho.errors import UserError
from rinsho.text import clean
from rinsho.tokenization import load
from rinsho.tokenizer.measure import measure_texts, single_piece_fraction, table
from rinsho.tokenizer.measure.names import labels
from rinsho.tokenizer.measure.others import open_tokenizer
from rinsho.tokenizer.measure.sample import boundaries, crossing, shown_texts, take, trimmed
from rinsho.tokenizer.measure.terms import Finder, in_text

JAPANESE = st.text(st.sampled_from("患者は発熱。、肺炎彁𠮷 \n　ａ1２.<>ｶﾞ㎎") | st.characters(), max_size=40)


def test_the_sample_is_even_over_shards_and_the_small_ones_leave_their_share(write_texts: Any) -> None:
    write_texts("set", *("あ" * 100 for _ in range(20)), shard="a")
    write_texts("set", *("い" * 100 for _ in range(20)), shard="b")
    folder = write_texts("set", "う" * 10, shard="c")
    sample = take("set", folder, 0.00603)  # 6,030 bytes: c has 30, the others 3,000 each
    letters = "".join(sample.raw)
    assert [letters.count(letter) for letter in "あいう"] == [1000, 1000, 10]
    assert sample.ids[0] == "set-a0"
    assert sample.ids[-1] == "set-c0"
    assert take("set", folder, 0.00603) == sample
    cut = take("set", folder, 0.0001)
    assert sum(len(text.encode()) for text in cut.raw) <= 100
    assert len(take("set", folder, 1).raw) == 41


def test_broken_records_are_counted_and_blank_documents_left_out(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "患者"}\n{"text": "　"}\n{not json}\n', encoding="utf-8")
    sample = take("a", tmp_path, 1)
    assert (sample.raw, sample.cleaned, sample.broken, sample.sources) == (["患者"], ["患者"], 1, [""])


def test_what_the_page_shows(write_texts: Any, tmp_path: Path) -> None:
    assert shown_texts(None, 10_000)[0].raw.startswith("【現病歴】")
    (tmp_path / "note.txt").write_text("患者は発熱。", encoding="utf-8")
    (tmp_path / "note.md").write_text("\ufeff患者は発熱。", encoding="utf-8")
    for name in ("note.txt", "note.md"):
        assert [(row.name, row.raw) for row in shown_texts(tmp_path / name, 4)] == [(name, "患者は発")]
    shard = write_texts("set", "患者は", " ", "発熱。", "肺炎") / "a.jsonl.zst"
    assert [row.raw for row in shown_texts(shard, 5)] == ["患者は", "発熱"]
    (tmp_path / "sjis.txt").write_bytes("患者".encode("cp932"))
    (tmp_path / "blank.txt").write_text(" \n", encoding="utf-8")
    for name, message in (("sjis.txt", "not UTF-8"), ("blank.txt", "no text")):
        with pytest.raises(UserError, match=message):
            shown_texts(tmp_path / name, 100)


def test_boundaries_and_crossing() -> None:
    words = boundaries("患者は 発熱。\n咳", None)  # 患者|は| |発熱|。|\n|咳
    assert words.tolist() == [2, 3, 4, 6, 7, 8]
    spans = np.array([(0, 2), (1, 2), (0, 3), (3, 6), (6, 8), (3, 4), (2, 2), (5, 7)])
    assert crossing(trimmed(spans, "患者は 発熱。\n咳"), words).tolist() == [
        False, False, True, False, False, False, False, True,
    ]  # fmt: skip


@given(JAPANESE, st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), max_size=8))
@settings(max_examples=60, deadline=None)
def test_trimming_takes_white_space_only(text: str, pairs: list[tuple[int, int]]) -> None:
    text = clean(text)
    spans = np.array([sorted(min(place, len(text)) for place in pair) for pair in pairs]).reshape(-1, 2)
    for (start, end), (first, last) in zip(spans.tolist(), trimmed(spans, text).tolist(), strict=True):
        assert text[first:last] == text[start:end].strip(" \n")


@given(JAPANESE)
@settings(max_examples=60, deadline=None)
def test_the_strict_form_never_crosses_its_own_words(folders: Mapping[str, Path], text: str) -> None:
    cleaned = clean(text)
    ids, spans = _opened(folders["strict"]).aligned(cleaned)
    assert spans is not None
    assert not crossing(trimmed(spans, cleaned), boundaries(cleaned, None)).any()
    assert ids.tolist() == load(folders["strict"]).encode_text(text)


def test_bytes_stand_at_their_own_character_and_an_opening_mark_at_none(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    pieces = [("<unk>", 0.0), *((f"<0x{byte:02X}>", 0.0) for byte in range(256)), ("▁", -1.0), ("患者", -1.0)]
    backend = Tokenizer(models.Unigram(pieces, unk_id=0, byte_fallback=True))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()])
    PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>").save_pretrained(tmp_path / "sp")
    opened = open_tokenizer(tmp_path / "sp", "sp")
    ids, spans = opened.aligned("患者彁𠮷")
    assert opened.pieces(ids)[:3] == ["▁", "患者", "<0xE5>"]
    assert spans is not None
    assert spans.tolist() == [[0, 0], [0, 2], *[[2, 3]] * 3, *[[3, 4]] * 4]
    counts, known = opened.term_pieces(["患者", "彁"])
    assert (counts.tolist(), known.tolist()) == ([1, 3], [True, True])


def test_terms_are_found_longest_first_and_not_inside_one_another() -> None:
    finder = Finder(["肺炎", "間質性肺炎", "発熱"])
    assert finder.find("間質性肺炎で発熱").tolist() == [[0, 5], [6, 8]]
    assert Finder([]).find("肺炎").tolist() == []
    text = "a 肺炎球菌"
    spans = np.array([(0, 1), (1, 4), (4, 6)])  # "▁肺炎" is the term, white space does not count
    known = np.ones(3, dtype=bool)
    assert in_text(Finder(["肺炎"]).find(text), spans, known, text).single == 1
    assert in_text(Finder(["肺炎球"]).find(text), spans, known, text).pieces == 2
    assert in_text(Finder(["肺炎"]).find(text), spans, ~known, text).single == 0
    assert in_text(Finder(["肺炎球菌"]).find(text), np.array([(0, 1), (1, 6)]), known[:2], text).single == 1
    assert in_text(Finder(["肺炎"]).find(text), np.array([(0, 1), (1, 6)]), known[:2], text).single == 0


def test_labels_tell_folders_apart(tmp_path: Path) -> None:
    assert labels([tmp_path / "a" / "x", tmp_path / "b" / "x", tmp_path / "c"]) == ["a/x", "b/x", "c"]
    assert labels([tmp_path / "plain"]) == ["plain"]


def test_a_slow_tokenizer_tells_no_offsets(folders: Mapping[str, Path]) -> None:
    opened = open_tokenizer(folders["bert"], "bert")
    ids, spans = opened.aligned("患者は発熱。咳")
    assert spans is None
    assert opened.pieces(ids) == ["患者", "は", "発熱", "。", "[UNK]"]
    assert (opened.kind, opened.unknown[ids].tolist()) == ("BertJapaneseTokenizer", [False] * 4 + [True])


def test_what_training_reports(folders: Mapping[str, Path]) -> None:
    strict = load(folders["strict"])
    fit = measure_texts(strict, [("a", "患者は発熱。"), ("b", "　肺炎。彁")])
    assert (fit.documents, fit.characters, fit.tokens, fit.round_trip_failures) == (2, 10, 9, 0)
    assert fit.characters_per_token == pytest.approx(10 / 9)
    assert fit.byte_fallback_fraction == pytest.approx(3 / 9)
    assert fit.unknown_fraction == 0
    assert single_piece_fraction(strict, ["患者", "患者は"]) == 0.5
    assert single_piece_fraction(strict, []) is None
    assert table({"vocab_size": 32768, "unknown_fraction": 0.5, "lexicon_single_fraction": None}).splitlines()[2:] == [
        "| pieces in the vocabulary | 32,768 |",
        "| unknown tokens, held-out text | 50.00 % |",
        "| word-list terms that are one piece, however rare | – |",
    ]


def test_importing_the_package_is_light() -> None:
    code = (
        "import sys, rinsho.tokenizer.measure; sys.exit(bool({'numpy', 'transformers', 'jinja2'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def _opened(folder: Path, known: dict[Path, Any] = {}) -> Any:  # noqa: B006 (opened once for all examples)
    if folder not in known:
        known[folder] = open_tokenizer(folder, folder.name)
    return known[folder]
