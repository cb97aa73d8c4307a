"""Cleaning: the fused scan equals the rules one by one; idempotent, total, linear, aligned."""

import time
import unicodedata

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rinsho.text import characters, clean, clean_aligned, clean_counted
from rinsho.text.rules import one_by_one

# what rules look at, so that random text meets them
PIECES = [
    "あ", "アー", "ー", "一", "。", "、", "．", "，", "０", "3", "ａ", "B", "＠", "@", "#", "＃", "://", "http://",
    "ｈｔｔｐ：／／", "www.", ".", "..", "…", "・", "‥", "°", "℃", "Ｃ", "C", "\u3099", "゛", "ﾊ", "ﾟ", "\u0301",
    "e", "\U0001d165", "\u0327", "-", "−", "〜", "(", ")", "（", "）", " ", "　", "\n", "\r", "\r\n", "\t", "\u2028",
    "▁", "①", "❶", "⁴", "⁻", "½", "😀", "\ud800", "\udc00", "\u200b", "\ufe0f", "각", "ᄀ", "ᅡ", "090",
    "03-1234-5678", "+81", "0120", "taro@example.jp", "@hanako", "#頭痛", "〒", "123-4567", "東京都", "\U00011099",
    "\U000110ba", "〔", "≧", "Ĳ",
]  # fmt: skip
TEXTS = st.one_of(
    st.lists(st.sampled_from(PIECES), max_size=30).map("".join),
    st.text(max_size=60),
    st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=3)), max_size=20).map("".join),
)
MODES = st.sampled_from(["remove", "placeholder", "keep"])


@settings(max_examples=400, deadline=None)
@given(TEXTS)
@example("e\U0001d165\u0301")
@example("03 03-1234-5678 1234 5678")
@example("#http://x あい")
@example("℃ー０")
def test_fused_scan_equals_the_rules_one_by_one_and_is_idempotent(text: str) -> None:
    cleaned = clean(text)
    assert cleaned == one_by_one(text)
    assert clean(cleaned) == cleaned


@settings(max_examples=250, deadline=None)
@given(TEXTS, MODES)
def test_counted_and_aligned_give_the_same_text(text: str, mode: str) -> None:
    cleaned = clean(text, personal=mode)  # type: ignore[arg-type]
    assert clean(cleaned, personal=mode) == cleaned  # type: ignore[arg-type]
    assert clean_counted(text, personal=mode)[0] == cleaned  # type: ignore[arg-type]
    aligned, places = clean_aligned(text, personal=mode)  # type: ignore[arg-type]
    assert aligned == cleaned
    assert len(places) == len(cleaned) + 1
    assert places[-1] == len(text)
    assert places == sorted(places)
    assert all(0 <= place < len(text) for place in places[:-1])


@settings(max_examples=100, deadline=None)
@given(TEXTS)
def test_clean_text_is_normal_and_holds_allowed_characters_only(text: str) -> None:
    cleaned = clean(text)
    rest = cleaned.translate({ord(mark): None for mark in characters.RESTORED})
    assert unicodedata.is_normalized("NFKC", rest)
    assert "\t" not in cleaned
    assert "　" not in cleaned
    assert "  " not in cleaned
    cleaned.encode("utf-8")


def test_every_character_of_unicode_is_taken() -> None:
    for start in (*range(0, 0x20000, 0x1000), 0x2F000, 0xE0000, 0x10F000):
        text = "あ".join(map(chr, range(start, start + 0x1000)))
        assert clean(text) == one_by_one(text)


def test_joining_characters_are_all_of_unicode() -> None:
    seconds = {chr(point) for point in [*range(0x1161, 0x1176), *range(0x11A8, 0x11C3)]}
    for point in range(0x110000):
        parts = unicodedata.decomposition(chr(point)).split()
        if len(parts) == 2 and not parts[0].startswith("<"):
            seconds.add(chr(int(parts[1], 16)))
    firsts = ((point, unicodedata.normalize("NFKD", chr(point))[0]) for point in range(0x110000))
    assert characters._joining() == tuple(p for p, first in firsts if unicodedata.combining(first) or first in seconds)


def test_tables_give_allowed_characters() -> None:
    for table in (characters.AFTER, characters.ENUMERATORS, characters.PERIODS):
        for replacement in table.values():
            assert (
                clean("あ" + replacement + "あ", personal="keep").strip("あ") == replacement.strip(" \n")
                or replacement in " \n"
            )


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("０．４ｍｇ／ｋｇを投与した．次に，", "0.4mg/kgを投与した。次に、"),
        ("ＷＢＣ　１２，３００／μＬ，ＣＲＰ　１６．４５", "WBC 12,300/μL、CRP 16.45"),
        ("血小板１５×１０⁴／μＬ、2½錠、体表面積1.73m²", "血小板15×10^4/μL、2 1/2錠、体表面積1.73m2"),
        ("①５ｍｇ、②１０ｍｇ", "(1)5mg、(2)10mg"),
        ("体温は38.5°Cでした...", "体温は38.5℃でした…"),
        ("………", "…"),
        ("１．発熱\n１２．咳．\n投与量は５．", "1.発熱\n12.咳。\n投与量は5。"),
        ("#1 高血圧\n#2．糖尿病\n＃３脂質異常症", "#1 高血圧\n#2.糖尿病\n#3脂質異常症"),
        (
            "ロキソニン60mg＠疼痛時、フロモックス3T@毎食後、O2 3L@NC、ＮＡＤ＠３ｍｌ／ｈ",
            "ロキソニン60mg@疼痛時、フロモックス3T@毎食後、O2 3L@NC、NAD@3ml/h",
        ),
        ("頭が痛い #頭痛 ＃つらい @hanako_01", "頭が痛い"),
        ("連絡先：ｔａｒｏ．ｙ＠ｅｘａｍｐｌｅ．ｃｏ．ｊｐまで．", "連絡先: まで。"),
        ("詳細はｈｔｔｐｓ：／／ｗｗｗ．ｅｘａｍｐｌｅ．ｃｏｍ／ａ？ｂ＝１を参照", "詳細は を参照"),
        ("電話：０３ー１２３４ー５６７８．", "電話: 。"),
        ("ｶﾞｽﾀｰ20mg ﾊﾟｰｷﾝｿﾝ病", "ガスター20mg パーキンソン病"),
        ("か\u3099んと\u3099", "がんど"),
        ("1行目\r\n2行目\r3行目\u20284行目", "1行目\n2行目\n3行目\n4行目"),
        ("  字下げ　　あり  \n　次", "字下げ あり\n次"),
        ("痛いーーーーーーー！！！！！！ 1000000単位", "痛いーーー!!! 1000000単位"),
        ("Sjögren症候群、Guillain–Barré症候群", "Sjögren症候群、Guillain-Barré症候群"),
        ("SpO₂ ≥ 94％ ⇒ 酸素なし", "SpO2 ≧ 94% → 酸素なし"),
        ("\ud83d壊れた\udc00文字\x00です", "壊れた文字です"),
        ("▁主訴▁発熱", "主訴 発熱"),
        ("<|assistant|>は普通の文字", "<|assistant|>は普通の文字"),
        ("♂ ♀ □なし ■あり ※注", "♂ ♀ □なし ■あり ※注"),
        ("", ""),
    ],
)
def test_rules(raw: str, expected: str) -> None:
    assert clean(raw) == expected


def test_counts() -> None:
    cleaned, counts = clean_counted(
        "ＣＲＰ．①😭 〜‐ taro@example.jp http://a.jp 090-1234-5678 #頭痛 @hanako ああああああ…………"
    )
    assert cleaned == "CRP。(1) ~- あああ…"
    assert counts["width"] == 3
    for rule in (
        "periods",
        "enumerators",
        "not_allowed",
        "tildes",
        "hyphens",
        "email",
        "url",
        "phone",
        "tag",
        "account",
    ):
        assert counts[rule] == 1, rule
    assert counts["repetition"] == 1


def test_modes() -> None:
    text = "電話03-1234-5678、taro@example.jp #頭痛"
    assert clean(text, personal="placeholder") == "電話[電話番号]、[メールアドレス]"
    assert clean(text, personal="keep") == text


def test_alignment_gives_the_raw_form() -> None:
    raw = "患者は　ﾌﾟﾚﾄﾞﾆｿﾞﾛﾝ５．５ｍｇ😭を㎎で……"
    cleaned, places = clean_aligned(raw)
    start = cleaned.index("プレドニゾロン5.5mg")
    end = start + len("プレドニゾロン5.5mg")
    assert raw[places[start] : places[end]] == "ﾌﾟﾚﾄﾞﾆｿﾞﾛﾝ５．５ｍｇ😭"


HOSTILE = {
    "one letter": "a", "one kana": "あ", "full-width": "ａ", "zeros": "0", "at": "@", "near address": "a@",
    "dots": "a.", "marks": "．，", "near phone": "03-", "open": "(0", "plus": "+81", "url": "http://(",
    "slashes": "://", "tags": "#a", "hash": "#", "spaces": " \n", "accents": "\u0301",
    "kana accents": "か\u3099\u3099", "wide address": "ａ．", "wide at": "ａ＠", "combining run": "e\u0327\u0301",
    "dashes": "ー-", "dots only": ".", "middle dots": "・.", "nested": "03 03-1234-5678 ", "emoji": "😭",
    "brackets": "「", "digits": "0312", "colon": "ｈｔｔｐ：", "www": "www.", "a.b": "a@b.", "jamo": "각",
    "mailto": "mailto:",
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_linear_time(name: str) -> None:
    piece = HOSTILE[name]
    seconds = []
    for size in (100_000, 1_000_000):
        text = piece * (size // len(piece))
        started = time.process_time()
        once = clean(text)
        seconds.append(time.process_time() - started)
    assert clean(once) == once
    # ten times the text: a quadratic rule would take a hundred times as long
    assert seconds[1] < max(30 * seconds[0], 2)


def test_deeply_nested_addresses_come_to_an_end() -> None:
    text = "あ。"
    for _ in range(3000):
        text = f"03 {text} 1234 5678 @{text[:2]}#"
        text = text.replace("あ", "03-1234-5678", 1) if len(text) < 100 else text
    once = clean(text)
    assert clean(once) == once
    nested = "090 1234 " * 5_000 + " 5678" * 5_000
    once = clean(nested)
    assert clean(once) == once
    assert once == one_by_one(nested)
