"""`tokenizer(...)`: batches, pairs, padding, truncation, and what a BatchEncoding says of the raw text."""

import itertools
import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rinsho.text import clean
from rinsho.tokenization import RinshoTokenizer
from tokenization.samples import JAPANESE, SENTENCES, TEXTS

PHONE = "電話090-1234-5678、発熱😭あり。"


def test_padding_truncation_and_batches(tokenizer: RinshoTokenizer) -> None:
    rows = tokenizer(["発熱。", SENTENCES[0]], padding=True, truncation=True, max_length=4)
    assert [len(row) for row in rows["input_ids"]] == [4, 4]
    assert rows["input_ids"][0][-1] == tokenizer.pad_token_id
    assert rows["attention_mask"][0][-1] == 0
    left = tokenizer(["発熱。", SENTENCES[0]], padding=True, padding_side="left", return_tensors="np")
    assert left["input_ids"][0][0] == tokenizer.pad_token_id
    assert left["attention_mask"].shape == left["input_ids"].shape
    assert dict(tokenizer([])) == {"input_ids": [], "attention_mask": []}
    with pytest.raises(ValueError, match="str"):
        tokenizer([None])
    with pytest.raises(ValueError, match="stride"):
        tokenizer(SENTENCES[0], truncation=True, max_length=4, stride=4, return_overflowing_tokens=True)


CALLS = st.fixed_dictionaries(
    {},
    optional={
        "padding": st.sampled_from([True, "max_length"]),
        "truncation": st.sampled_from([True, "only_first"]),
        "max_length": st.sampled_from([4, 8, 16]),
        "pad_to_multiple_of": st.just(4),
        "padding_side": st.sampled_from(["left", "right"]),
        "return_attention_mask": st.booleans(),
    },
)


@given(st.lists(st.sampled_from(TEXTS) | JAPANESE, min_size=1, max_size=3), CALLS, st.sampled_from(["left", "right"]))
@settings(max_examples=150, deadline=None)
@pytest.mark.filterwarnings("ignore:`max_length` is ignored")
def test_the_quick_way_gives_what_the_whole_way_gives(
    tokenizer: RinshoTokenizer, texts: list[str], call: dict, side: str
) -> None:
    tokenizer.truncation_side = side
    try:
        quick, whole = tokenizer(texts, **call), tokenizer(texts, **call, return_offsets_mapping=True)
        lazy = [encoding.ids for encoding in quick.encodings]
        single = tokenizer(texts[0], **call)["input_ids"]
        assert single == tokenizer(texts[0], **call, return_offsets_mapping=True)["input_ids"]
    finally:
        tokenizer.truncation_side = "right"
    offsets = whole.pop("offset_mapping")
    assert dict(quick) == dict(whole)
    assert lazy == quick["input_ids"]
    assert [len(row) for row in offsets] == [len(row) for row in lazy]


@given(JAPANESE)
@settings(max_examples=200, deadline=None)
def test_ranges_cover_what_the_tokens_say(tokenizer: RinshoTokenizer, text: str) -> None:
    ids, ranges = tokenizer.encode_aligned(text)
    assert len(ids) == len(ranges)
    assert all(0 <= start < end <= len(text) for start, end in ranges)
    for (start, end), (later, last) in itertools.pairwise(ranges):
        assert end <= later or start <= later < end <= last
    encoded = tokenizer(text)
    for place, range_ in enumerate(ranges):
        assert tuple(encoded.token_to_chars(place)) == range_
        found = encoded.char_to_token(range_[0])
        assert ranges[found][0] <= range_[0] < ranges[found][1]


@pytest.mark.parametrize("text", SENTENCES)
def test_ranges_of_text_that_is_clean_spell_it(tokenizer: RinshoTokenizer, text: str) -> None:
    ids, ranges = tokenizer.encode_aligned(text)
    assert [tokenizer.decode([id_]) for id_ in ids] == [text[start:end] for start, end in ranges]
    assert "".join(text[start:end] for start, end in ranges) == text


@pytest.mark.parametrize(
    ("raw", "part", "wanted"),
    [
        ("発熱　３８．５℃", "38.5", "３８．５"),
        ("ﾌﾟﾚﾄﾞﾆｿﾞﾛﾝ30mg", "プレドニゾロン", "ﾌﾟﾚﾄﾞﾆｿﾞﾛﾝ"),
        ("か\u3099んを認めた", "がん", "か\u3099ん"),
        (PHONE, "電話", "電話"),
        (PHONE, "発熱", "発熱"),
        ("患者　　　発熱", " ", "　　　"),
        ("𠮷野家", "𠮷", "𠮷"),
        ("彁𠮷彁", "𠮷", "𠮷"),
        ("1㎎", "mg", "㎎"),
        ("😭発熱😭", "発熱", "発熱"),
        ("a\r\nb", "\n", "\r\n"),
        ("疑い...咳", "…", "..."),
    ],
)
def test_the_raw_form_of_a_part(tokenizer: RinshoTokenizer, raw: str, part: str, wanted: str) -> None:
    _, ranges = tokenizer.encode_aligned(raw)
    at = clean(raw).index(part)
    inside = [  # the tokens of the part in the clean text, where places are known
        place
        for place, (start, end) in enumerate(tokenizer.encode_aligned(clean(raw), clean=False)[1])
        if at <= start and end <= at + len(part)
    ]
    assert raw[ranges[inside[0]][0] : ranges[inside[-1]][1]] == wanted


def test_byte_tokens_stand_for_their_character(tokenizer: RinshoTokenizer) -> None:
    ids, ranges = tokenizer.encode_aligned("彁𠮷a")
    assert ranges == [(0, 1)] * 3 + [(1, 2)] * 4 + [(2, 3)]
    assert tokenizer.decode(ids[3:7]) == "𠮷"


def test_words_of_the_text(strict: RinshoTokenizer, plain: RinshoTokenizer) -> None:
    text = "急性骨髄性白血病　３０ｍｇ"
    encoded = strict(text)
    words = [encoded.token_to_word(place) for place in range(len(encoded["input_ids"]))]
    assert words == encoded.word_ids()
    assert [text[slice(*encoded.word_to_chars(word))] for word in sorted(set(words))] == [
        "急性骨髄性白血病",
        "　",
        "３０",
        "ｍｇ",
    ]
    assert encoded.tokens() == strict.tokenize(text)
    lines = plain("発熱\n咳嗽 3")  # without MeCab a word ends where the model may not go on
    assert [lines.word_to_chars(word) for word in range(5)] == [(0, 2), (2, 3), (3, 5), (5, 6), (6, 7)]


def test_words_the_caller_has_split(tokenizer: RinshoTokenizer) -> None:
    words = ["ＣＲＰ", "１２．５", "", "発熱\n", "間質性肺炎"]
    encoded = tokenizer(words, is_split_into_words=True, return_offsets_mapping=True)
    rows = [tokenizer.encode_aligned(word) for word in words]
    assert encoded["input_ids"] == [id_ for ids, _ in rows for id_ in ids]
    assert encoded["offset_mapping"] == [range_ for _, ranges in rows for range_ in ranges]
    assert encoded.word_ids() == [number for number, (ids, _) in enumerate(rows) for _ in ids]
    batch = tokenizer([words, ["発熱"]], is_split_into_words=True, padding=True)
    assert batch["input_ids"][0] == encoded["input_ids"]
    assert batch.word_ids(1)[-1] is None


def test_overflowing_tokens(tokenizer: RinshoTokenizer) -> None:
    text = "　".join(SENTENCES[:4])
    ids, ranges = tokenizer.encode_aligned(text)
    call = {"truncation": True, "max_length": 10, "stride": 3, "padding": True}
    encoded = tokenizer(["発熱", text], return_overflowing_tokens=True, return_offsets_mapping=True, **call)
    assert encoded["overflow_to_sample_mapping"] == [0] + [1] * (len(encoded["input_ids"]) - 1)
    assert {len(row) for row in encoded["input_ids"]} == {10}
    seen: dict[tuple[int, int], int] = {}
    for place in range(1, len(encoded["input_ids"])):
        used = sum(encoded["attention_mask"][place])
        seen |= dict(zip(encoded["offset_mapping"][place][:used], encoded["input_ids"][place][:used], strict=True))
    assert seen == dict(zip(ranges, ids, strict=True))
    assert encoded["offset_mapping"][0][-1] == (0, 0)
    single = tokenizer(text, return_overflowing_tokens=True, **call)
    assert single["input_ids"] == encoded["input_ids"][1:]


def test_pairs(tokenizer: RinshoTokenizer) -> None:
    first, second = "発熱は　３日", PHONE
    one, two = tokenizer.encode_aligned(first), tokenizer.encode_aligned(second)
    encoded = tokenizer(first, second, return_offsets_mapping=True, return_token_type_ids=True)
    assert encoded["input_ids"] == one[0] + two[0] == tokenizer([first], [second])["input_ids"][0]
    assert encoded["offset_mapping"] == one[1] + two[1]
    assert encoded["token_type_ids"] == [0] * len(one[0]) + [1] * len(two[0]) == encoded.sequence_ids()
    place = encoded.char_to_token(second.index("熱"), sequence_index=1)
    assert encoded["offset_mapping"][place][0] <= second.index("熱") < encoded["offset_mapping"][place][1]
    assert place >= len(one[0])
    assert tokenizer([(first, second)])["input_ids"][0] == encoded["input_ids"]
    short = tokenizer(first, second, truncation="only_second", max_length=len(one[0]) + 2)
    assert short["input_ids"] == one[0] + two[0][:2]
    longest = tokenizer([first] * 2, [second] * 2, truncation=True, max_length=6, padding=True, return_tensors="np")
    assert longest["input_ids"].shape == (2, 6)


def test_a_begin_mark_can_be_asked_for(tokenizer: RinshoTokenizer) -> None:
    marked = pickle.loads(pickle.dumps(tokenizer))
    marked.add_bos_token = True
    ids = tokenizer.encode_text(SENTENCES[0])
    encoded = marked(SENTENCES[0], return_special_tokens_mask=True)
    assert encoded["input_ids"] == [marked.bos_token_id, *ids] == marked.encode(SENTENCES[0])
    assert encoded["special_tokens_mask"][:2] == [1, 0]
    assert marked(SENTENCES[0], add_special_tokens=False)["input_ids"] == ids == marked.encode_text(SENTENCES[0])
    assert marked(SENTENCES[0], truncation=True, max_length=3)["input_ids"] == encoded["input_ids"][:3]


def test_a_batch_can_be_pickled(tokenizer: RinshoTokenizer) -> None:
    again = pickle.loads(pickle.dumps(tokenizer(SENTENCES)))
    assert again["input_ids"] == tokenizer(SENTENCES)["input_ids"]
    assert again.tokens(1) == tokenizer.tokenize(SENTENCES[1])
