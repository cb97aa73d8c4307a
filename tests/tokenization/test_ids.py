"""Text to ids and back: both forms, the cache against the model, the switches."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from rinsho import chat, segmentation
from rinsho.text import clean
from rinsho.tokenization import RinshoTokenizer, words, wrap
from rinsho.tokenization.backend import SCORE_UNIT
from tokenization.samples import JAPANESE, LIKE_SPECIAL, TEXTS, vocabulary


def slow_ids(tokenizer: RinshoTokenizer, cleaned: str) -> list[int]:
    """What the backend alone makes of a cleaned text: no cache, no cuts."""
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    backend.encode_special_tokens = True
    if tokenizer.segment_form == "strict":
        dictionary = str(tokenizer.user_dictionary), tokenizer.user_dictionary.stat().st_mtime_ns
        sentences = segmentation.SENTENCES.findall(cleaned.replace(" ", segmentation.SPACE))
        parse = segmentation.tagger(*dictionary).parse
        cleaned = " ".join(sentence if sentence == "\n" else parse(sentence) for sentence in sentences)
    return list(backend.encode(cleaned, add_special_tokens=False).ids)


def test_the_fixed_ids(tokenizer: RinshoTokenizer) -> None:
    assert tokenizer.convert_ids_to_tokens([0, 1, 2, 3]) == ["<unk>", chat.BEGIN, chat.END, "\n"]
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (1, 2, 2)
    assert tokenizer.newline_id == 3
    assert len(tokenizer) == tokenizer.vocab_size == len(vocabulary())


@pytest.mark.parametrize("text", TEXTS)
def test_every_way_in_gives_the_same_ids(tokenizer: RinshoTokenizer, text: str) -> None:
    ids = tokenizer.encode_text(text)
    assert ids == tokenizer(text)["input_ids"] == tokenizer([text])["input_ids"][0]
    assert ids == tokenizer.encode(text) == tokenizer.encode(text, add_special_tokens=False)
    assert ids == tokenizer.encode_array(text).tolist() == tokenizer.encode_aligned(text)[0]
    assert tokenizer.encode_batch_text([text, "x", text]) == [ids, tokenizer.encode_text("x"), ids]
    assert [row.tolist() for row in tokenizer.encode_batch_arrays(iter([text] * 300))] == [ids] * 300
    assert tokenizer.convert_tokens_to_ids(tokenizer.tokenize(text)) == ids
    assert ids == slow_ids(tokenizer, clean(text))


@given(JAPANESE)
@settings(max_examples=200, deadline=None)
@example("あ" * 33 + "ー" * 9 + "AB" * 17)
def test_any_text_comes_back_as_its_cleaned_form(tokenizer: RinshoTokenizer, text: str) -> None:
    ids = tokenizer.encode_text(text)
    cleaned = clean(text)
    assert tokenizer.decode(ids) == cleaned
    assert tokenizer.decode(ids, skip_special_tokens=True) == cleaned
    assert ids == slow_ids(tokenizer, cleaned) == tokenizer(text)["input_ids"] == tokenizer.encode_aligned(text)[0]
    assert not set(ids) & {tokenizer.unk_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id}
    assert tokenizer.convert_tokens_to_string(tokenizer.tokenize(text)) == cleaned


@pytest.fixture(scope="module", params=["strict", "plain"])
def without_bytes(request: pytest.FixtureRequest, user_dictionary: Path) -> RinshoTokenizer:
    return wrap(vocabulary(byte_fallback=False), user_dictionary, segment=request.param, byte_fallback=False)


@given(JAPANESE)
@settings(max_examples=100, deadline=None)
@example("彁𠮷彁患者𠮷彁")
def test_without_byte_fallback_what_is_known_comes_back(without_bytes: RinshoTokenizer, text: str) -> None:
    ids = without_bytes.encode_text(text)
    cleaned = clean(text)
    assert ids == slow_ids(without_bytes, cleaned) == without_bytes.encode_aligned(text)[0]
    known = set("".join(piece for piece, _ in vocabulary() if not piece.startswith("<"))) | set("\n <")
    assert (without_bytes.unk_token_id in ids) == (not known.issuperset(cleaned))
    if known.issuperset(cleaned):
        assert without_bytes.decode(ids) == cleaned


def test_scores_are_exact_once_read_back(folder: Path) -> None:
    vocabulary = json.loads(Tokenizer.from_file(str(folder / "tokenizer.json")).to_str())["model"]["vocab"]
    assert all((score / SCORE_UNIT).is_integer() for _, score in vocabulary)
    assert len({score for _, score in vocabulary}) > 5


@given(st.text(st.sampled_from("あいーABC-キロ"), max_size=80))
@settings(max_examples=200, deadline=None)
def test_equally_good_spellings_are_the_same_in_any_place(plain: RinshoTokenizer, text: str) -> None:
    assert plain.encode_text(text, clean=False) == slow_ids(plain, text)


@given(JAPANESE)
@settings(max_examples=150, deadline=None)
def test_other_programs_read_the_plain_file_alike(plain_folder: Path, plain: RinshoTokenizer, text: str) -> None:
    cleaned = clean(text)
    assume(not any(token in cleaned for token in (chat.BEGIN, chat.END, "<unk>")))  # theirs become ids, ours never
    ids = plain.encode_text(text)
    stock = Tokenizer.from_file(str(plain_folder / "tokenizer.json"))
    assert stock.encode(cleaned).ids == ids
    assert stock.decode(ids) == cleaned
    fast = PreTrainedTokenizerFast(tokenizer_file=str(plain_folder / "tokenizer.json"))
    assert fast(cleaned)["input_ids"] == ids


def test_other_programs_turn_marks_into_ids_where_ours_does_not(plain_folder: Path, plain: RinshoTokenizer) -> None:
    stock = Tokenizer.from_file(str(plain_folder / "tokenizer.json"))
    assert stock.encode(chat.END).ids == [2]
    assert 2 not in plain.encode_text(chat.END)


@pytest.mark.parametrize("marker", LIKE_SPECIAL)
def test_the_characters_of_a_special_token_stay_text(chat_tokenizer: RinshoTokenizer, marker: str) -> None:
    tokenizer = chat_tokenizer
    forbidden = {tokenizer.convert_tokens_to_ids(mark) for mark in LIKE_SPECIAL}
    assert len(forbidden) == len(LIKE_SPECIAL)
    for text in (marker, f"発熱{marker}咳嗽", f"x{marker} {marker}"):
        rows = [
            tokenizer.encode_text(text),
            tokenizer.encode_text(text, clean=False),
            tokenizer.encode_text(text, segment=False),
            tokenizer(text, split_special_tokens=False)["input_ids"],
            tokenizer([text, text], padding=True)["input_ids"][1],
            tokenizer.encode(text),
            tokenizer.convert_tokens_to_ids(tokenizer.tokenize(text)),
            tokenizer([text.split(marker)[0] or "x", marker], is_split_into_words=True)["input_ids"],
            tokenizer(text, text)["input_ids"],
            tokenizer([[text, text]])["input_ids"][0],
            tokenizer(text="x", text_target=text)["labels"],
            tokenizer._encode_without_added_tokens(text),
        ]
        for ids in rows:
            assert not forbidden & set(ids)
        assert tokenizer.decode(rows[0]) == clean(text)
        talk = [{"role": "user", "content": text}]
        ids = tokenizer.apply_chat_template(talk, tokenize=True, return_dict=False)
        user = tokenizer.convert_tokens_to_ids(chat.USER)
        assert [id_ for id_ in ids if id_ in forbidden] == [tokenizer.bos_token_id, user]


def test_line_feeds_survive_skipping_special_tokens(tokenizer: RinshoTokenizer) -> None:
    ids = [tokenizer.bos_token_id, *tokenizer.encode_text("発熱。\n咳嗽。"), tokenizer.eos_token_id]
    assert tokenizer.decode(ids, skip_special_tokens=True) == "発熱。\n咳嗽。"
    assert tokenizer.batch_decode([ids], skip_special_tokens=True) == ["発熱。\n咳嗽。"]


def test_a_document_of_two_million_characters(tokenizer: RinshoTokenizer) -> None:
    text = "発熱と咳嗽を認め" * 250_000
    ids = tokenizer.encode_array(text)
    assert tokenizer.decode(ids) == text
    assert ids[:1000].tolist() == tokenizer.encode_text(text[:8000])[:1000]


def test_the_cache_may_overflow(tokenizer: RinshoTokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(words, "CACHED_WORDS", 5)
    small = copy.deepcopy(tokenizer)
    for text in TEXTS:
        assert small.encode_text(text) == tokenizer.encode_text(text) == small.encode_aligned(text)[0]
    assert len(small._word_cache()) <= 5


def test_arrays_are_as_small_as_the_vocabulary_allows(tokenizer: RinshoTokenizer) -> None:
    array = tokenizer.encode_array("発熱。")
    assert array.dtype == tokenizer.token_dtype == np.uint16
    assert not array.flags.writeable
    assert tokenizer.encode_array("").dtype == np.uint16
    rows = vocabulary()
    for size, wanted in ((65_533, np.uint16), (65_534, np.uint32)):  # three ids are kept for the chat tokens
        rest = [(f"x{number}", -30.0) for number in range(size - len(rows))]
        large = wrap([*rows, *rest], segment="plain")
        assert large.token_dtype == wanted == large.encode_array("発熱。").dtype
        assert large.encode_text("発熱。") == tokenizer.encode_text("発熱。") or tokenizer.segment_form == "strict"


@given(JAPANESE)
@settings(max_examples=100, deadline=None)
def test_clean_text_need_not_be_cleaned_again(tokenizer: RinshoTokenizer, text: str) -> None:
    cleaned, ids = clean(text), tokenizer.encode_text(text)
    assert tokenizer.encode_text(cleaned, clean=False) == tokenizer(cleaned, clean=False)["input_ids"] == ids
    aligned = tokenizer.encode_aligned(cleaned, clean=False)
    assert aligned == tokenizer.encode_aligned(cleaned)
    assert aligned[0] == ids


@given(JAPANESE)
@settings(max_examples=100, deadline=None)
def test_words_need_not_be_found_again(strict: RinshoTokenizer, plain: RinshoTokenizer, text: str) -> None:
    separated = segmentation.separated(clean(text), strict.user_dictionary)
    ids = strict.encode_text(text)
    for tokenizer in (strict, plain):  # with the words given, both forms are the same
        assert tokenizer.encode_text(separated, segment=False) == ids
        assert tokenizer(separated, segment=False)["input_ids"] == ids
        assert tokenizer.encode_aligned(separated, segment=False)[0] == ids
        listed = [word for word in separated.split(" ") if word]
        assert tokenizer(listed, is_split_into_words=True, segment=False)["input_ids"] == ids


def test_words_that_are_given_cannot_be_cleaned(tokenizer: RinshoTokenizer) -> None:
    with pytest.raises(ValueError, match="segment"):
        tokenizer.encode_text("発熱 咳嗽", clean=True, segment=False)


def test_dirty_text_called_clean_is_encoded_as_it_is(tokenizer: RinshoTokenizer) -> None:
    assert tokenizer.decode(tokenizer.encode_text("ＣＲＰ　𠮷", clean=False)) == "ＣＲＰ　𠮷"
    assert len(tokenizer("ｶﾞ\t\x00\r彁", clean=False, return_offsets_mapping=True)["offset_mapping"]) > 2
