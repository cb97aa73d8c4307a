"""Cleaning: the fused scan equals the rules one by one; idempotent, total, linear, aligned."""

import time
import unicodedata
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rinsho.text import characters, clean, clean_aligned, clean_counted, rules, steps
from rinsho.text.cleaning import KINDS
from rinsho.text.rules import one_by_one

ALL_KINDS = (*KINDS, "postal_code")

# what rules look at, so that random text meets them
PIECES = [
    "あ", "アー", "ー", "一", "。", "、", "．", "，", "０", "3", "ａ", "B", "＠", "@", "#", "＃", "://", "http://",
    "ｈｔｔｐ：／／", "www.", ".", "..", "…", "・", "‥", "°", "℃", "Ｃ", "C", "\u3099", "゛", "ﾊ", "ﾟ", "\u0301",
    "e", "\U0001d165", "\u0327", "-", "−", "〜", "(", ")", "（", "）", " ", "　", "\n", "\r", "\r\n", "\t", "\u2028",
    "▁", "①", "❶", "⁴", "⁻", "½", "😀", "\ud800", "\udc00", "\u200b", "\ufe0f", "각", "ᄀ", "ᅡ", "090",
    "03-1234-5678", "+81", "0120", "taro@example.jp", "@hanako", "#頭痛", "〒", "123-4567", "東京都", "\U00011099",
    "\U000110ba", "〔", "≧", "Ĳ", "#高血圧", "example.jp/a", "(at)", "ａ．ｊｐ／", "内線12", "郵便番号", "第", "^", "    ",
    "=====",
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


SETTINGS = st.fixed_dictionaries(
    {
        "personal": MODES,
        "kinds": st.sampled_from([KINDS, ALL_KINDS, ("phone", "postal_code")]),
        "literal_numbers": st.booleans(),
        "space": st.sampled_from([" ", "\u2581"]),
    }
)


@settings(max_examples=400, deadline=None)
@given(TEXTS, SETTINGS)
@example("123-4567\n@hanako 東京都", {"kinds": ALL_KINDS})
@example("123-4567\n123-4567\n東京都", {"kinds": ALL_KINDS})
@example("０３．１２３４．５６７８　０．４", {"literal_numbers": True})
def test_all_forms_give_the_same_text_with_all_settings(text: str, given_settings: dict[str, Any]) -> None:
    cleaned = clean(text, **given_settings)
    assert cleaned == one_by_one(text, **given_settings)
    assert clean(cleaned, **given_settings) == cleaned
    assert clean_counted(text, **given_settings)[0] == cleaned
    aligned, places = clean_aligned(text, **given_settings)
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


@pytest.mark.parametrize(
    ("rule", "raw", "expected"),
    [
        (rules.prepare, "０．４ｍｇ、１２，３００", "０.４ｍｇ、１２,３００"),
        (rules.prepare, "（１）発熱．\r\n１２．咳", "（１）発熱．\n１２.咳"),
        (rules.prepare, "ＷＢＣ１０⁴、10⁻²、½錠、2½錠", "ＷＢＣ１０^⁴、10^⁻²、½錠、2 ½錠"),
        (rules.prepare, "ｔａｒｏ＋ａ．ｂ＠ｅｘａｍｐｌｅ．ｊｐ．", "ｔａｒｏ＋ａ.ｂ＠ｅｘａｍｐｌｅ.ｊｐ．"),
        (rules.prepare, "ｆｔｐ：／／ｅｘａｍｐｌｅ．ｊｐ／ａ．次", "ｆｔｐ：／／ｅｘａｍｐｌｅ.ｊｐ／ａ．次"),
        (
            rules.prepare,
            "ｅｘａｍｐｌｅ．ｃｏ．ｊｐ／ａ，ＣＯＰＤ．ＡＣＥ／ＡＲＢ",
            "ｅｘａｍｐｌｅ.ｃｏ.ｊｐ／ａ，ＣＯＰＤ．ＡＣＥ／ＡＲＢ",
        ),
        (rules.japanese_periods, "発熱．咳，痰．0.4", "発熱。咳、痰。0.4"),
        (rules.mark_enumerators, "①５ｍｇ⑳㉑❸⓪゛", "(1)５ｍｇ(20)(21)(3)(0)\ufffd"),
        (rules.normalise, "ｶﾞｽﾀｰ２０㎎Ⅲ期㌘", "ガスター20mgIII期グラム"),
        (rules.unify_hyphens, "G‐C−S—F―", "G-C-S-F-"),
        (rules.unify_tildes, "5〜6∼7", "5~6~7"),
        (rules.unify_symbols, "“a”•≤≥⇒✕", '"a"・≦≧→×'),
        (rules.unify_white_space, "a\tb\u2581c\x0bd\u2028e", "a b c\nd\ne"),
        (rules.delete_others, "頭痛😭\ud800Привет\x00", "頭痛"),
        (rules.restore_ellipsis, "a...b....c・・・d..e", "a…b…c…d..e"),
        (rules.restore_degrees, "38.5°C 100°F 90°", "38.5℃ 100℉ 90°"),
        (rules.unify_choonpu, "03ー1234ー(5) アーA Bー1", "03-1234-(5) アーA B-1"),
        (rules.tidy_white_space, "  a   b \n\n\n\n c ", "a b\n\nc"),
        (rules.reduce_repetition, "痛いいいいい！！！！！ 00000 ----", "痛いいい！！！ 00000 ----"),
        (rules.remove_personal, "連絡 a@example.jp #頭痛 03-1234-5678", "連絡"),
        (rules.set_space, "a b", "a b"),
    ],
)
def test_each_rule(rule: Callable[[str], str], raw: str, expected: str) -> None:
    assert rule(raw) == expected
    assert rule is rules.prepare or rule(expected) == expected


def test_every_rule_is_in_the_table() -> None:
    table = next(mark for mark in test_each_rule.pytestmark if mark.name == "parametrize").args[1]
    assert {row[0] for row in table} == set(rules.RULES)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("０．４ｍｇ、１２，３００．", "0。4mg、12、300。"),
        ("１．発熱", "1。発熱"),
        ("0.4mg", "0.4mg"),
        ("ｔａｒｏ＠ｅｘａｍｐｌｅ．ｊｐ．電話０３．１２３４．５６７８", "。電話"),
    ],
)
def test_literal_rule_for_full_width_periods_and_commas(raw: str, expected: str) -> None:
    assert clean(raw, literal_numbers=True) == expected


def test_space_of_the_tokenizer() -> None:
    raw = "主訴　発熱\t38.5℃\n 経過▁良好 "
    assert clean(raw, space="\u2581") == "主訴▁発熱▁38.5℃\n経過▁良好"
    assert clean_counted(raw, space="\u2581")[0] == clean(raw, space="\u2581")
    cleaned, places = clean_aligned(raw, space="\u2581")
    assert raw[places[cleaned.index("▁")]] == "　"
    with pytest.raises(ValueError, match="U\\+2581"):
        clean(raw, space="")


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("#高血圧\n#2型糖尿病\n#心不全 BNP上昇", "#高血圧\n#2型糖尿病\n#心不全 BNP上昇"),  # one at the start of a line
        ("# 高血圧\n#1 肺炎 #2 喘息\n＃３．咳\n#1-2\n# 1.", "# 高血圧\n#1 肺炎 #2 喘息\n#3.咳\n#1-2\n# 1."),
        ("##　Ｔ　糖尿病　＃＃　Ｔ　貧血\n縦隔リンパ節#4R", "## T 糖尿病 ## T 貧血\n縦隔リンパ節#4R"),
        ("#頭痛 #つらい", "#頭痛 #つらい"),
        ("【プロブレム】#心不全 #CKD", "【プロブレム】#心不全 #CKD"),
        ("#DM,#HT\n現病歴", "#DM,#HT\n現病歴"),
        ("頭が痛い #頭痛\n痛い日#禁酒 #節酒", "頭が痛い\n痛い日"),
        ("@hanako 疲れた #頭痛", "疲れた"),
        ("詳細 https://example.jp/a #頭痛", "詳細"),
        ("#頭痛 がひどい(#1参照)", "#頭痛 がひどい(#1参照)"),
    ],
)
def test_problem_lists_and_hashtags(raw: str, expected: str) -> None:
    assert clean(raw) == expected


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="aaあああ00 \n-\u3042𠮷😭\ud800é", max_size=60))
def test_short_repetition_is_found_as_by_its_pattern(text: str) -> None:
    assert steps.shorten_repetition(text) == steps.REPETITION.pattern.subn(r"\1\1\1", text)


@settings(max_examples=200, deadline=None)
@given(TEXTS)
def test_address_periods_are_found_as_by_their_pattern(text: str) -> None:
    step = next(step for step in steps.PREPARATION if step.name == "addresses")
    text = text.replace("@", "＠").replace("/", "／")
    by_pattern = step.pattern.sub(step.replacement, text)
    by_line = steps.apply((step,), text, None)
    decimal = next(step for step in steps.PREPARATION if step.name == "decimal_points")
    assert decimal(by_line) == decimal(by_pattern)


# 1 MB of each takes no longer than this many times the same amount of a dense clinical note
TIMES = 12
NOTE = "患者は67歳男性。主訴は発熱と咳嗽である。CRP 0.03 mg/dL、プレドニゾロン5mg @朝食後。\n"
HOSTILE = [
    " ", "\n ", "@", "#", ".", "0", "a", "w", "〒", "ｗ", "/", "(", "ー", "…", "．", "½", "\r", "\u0301", "\u3099", "゛", "ᅡ", "각",
    "あ", "\ud800", "😭", "▁",  # one character
    "．，", "@#", "@.", "ー-", "・.", "{[(", "か\u3099\u3099", "e\u0327\u0301", "\u0301e", "。@ab", "あ \n",  # alternating marks
    "a@", "a@a.", "a@a.a@a.", "@a@", "..@", "'a'", "ａ＠", "ａ．", "ａ．１", "．ｃｏｍ／", "a.com/", "a(at)",  # near-addresses
    "http://", "http://(", "http://a[", "://", "x://a@", "www.", "ｈｔｔｐ：／／", "mailto:", "wiki/", "#a", "#あ\n",
    "090-", "090-090-", "+81", "(03)", "0120", "0312", "0123456789", "03 03-1234-5678 ", "TEL0312345678", "内線1 ",
    "〒123-", "123-4567\n", "郵便番号",
]  # fmt: skip


def _seconds(piece: str) -> float:
    text = piece * (1_000_000 // len(piece.encode("utf-8", "surrogatepass")))
    started = time.process_time()
    clean(text, kinds=ALL_KINDS)
    return time.process_time() - started


@pytest.fixture(scope="module")
def seconds_of_a_note() -> float:
    return max(_seconds(NOTE) for _ in range(3))


@pytest.mark.parametrize("piece", HOSTILE)
def test_linear_time(piece: str, seconds_of_a_note: float) -> None:
    # characters of one byte: three times as many of them
    limit = TIMES * seconds_of_a_note * (3 if piece.isascii() else 1)
    assert _seconds(piece) <= limit or _seconds(piece) <= limit  # a busy machine gets a second chance
    once = clean(piece * 300)
    assert clean(once) == once


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
