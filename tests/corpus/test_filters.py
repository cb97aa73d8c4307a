"""Each filter on either side of its threshold; all of them on anything: total, linear, the same answer every time."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rinsho.corpus import filters
from rinsho.corpus.filters import Drop, Filter, shares
from rinsho.corpus.filters.wordlists import WordLists, built_in, read_words
from rinsho.document import Document
from rinsho.errors import UserError
from rinsho.text import clean

CASE = (
    "患者は六十八歳の男性で、発熱と咳嗽を主訴に来院した。胸部写真で右下葉に浸潤影を認め、肺炎と診断した。"
    "抗菌薬を七日間投与し、第五病日に解熱した。既往に高血圧があり、降圧薬を内服している。"
)
NOTE = (
    "痰がからんで息がしづらい\n"
    "湿性咳嗽あり 呼吸困難感なし 口腔内に痰の貯留あり 自分では喀出しにくく吸引の介助を行っている\n"
    "窒息と誤嚥を防ぐため排痰の援助と口腔ケアを続けていく 主治医に報告し指示を受けるところである"
)
MENU = "ホーム\n病気を調べる\n呼吸器内科の一覧\n人気の記事ランキング\n文字の大きさを変える\nお知らせ"


def verdict(rule: Filter, text: str) -> Drop | None:
    return rule(Document(text, "id"))


def recipe(**changed: Any) -> Any:
    """A recipe as the filters see it."""
    values: dict[str, Any] = {
        "min_chars": 20,
        "max_chars": 1_000_000,
        "min_japanese_fraction": 0.3,
        "max_symbol_fraction": 0.25,
        "max_repetition_fraction": 0.6,
        "drop_incomplete_sentences": True,
        "min_complete_fraction": 0.3,
        "drop_copyright": True,
        "adult_words": None,
        "max_adult_words": 1,
        "ad_words": None,
        "max_ad_words": 2,
        "word_lists": {},
        "max_listed_words": 0,
        "filters": (),
    }
    return SimpleNamespace(**(values | changed))


def first(made: list[Filter], text: str) -> Drop | None:
    return next((drop for rule in made if (drop := verdict(rule, text))), None)


DEFAULT, AGAIN = filters.from_recipe(recipe()), filters.from_recipe(recipe())

BOTH_SIDES = [
    (filters.length(5, 9), "発熱と咳。", None),
    (filters.length(6, 9), "発熱と咳。", Drop("too_short", 5)),
    (filters.length(1, 4), "発熱と咳。", Drop("too_long", 5)),
    # Japanese: 10 of 20 letters; white space does not count
    (filters.japanese(0.5), "発熱咳嗽頭痛腹痛嘔吐 \n" + "a" * 10, None),
    (filters.japanese(0.51), "発熱咳嗽頭痛腹痛嘔吐 \n" + "a" * 10, Drop("not_japanese", 0.5)),
    (filters.japanese(0.3), "Fever and cough. 咳。", Drop("not_japanese", 0.062)),
    (filters.japanese(0.3), "𠮷野" + "a" * 4, None),  # a kanji of two code units is one character: 2 of 6
    (filters.japanese(0.34), "𠮷野" + "a" * 4, Drop("not_japanese", 0.333)),
    # Chinese: short with simplified or other unusual kanji, long without kana
    (filters.japanese(0.3), "患者发热咳嗽三天,没有头痛,也没有其他疾病。建议进一步检查。", Drop("not_japanese", 0.0)),
    (filters.japanese(0.3), "既往歴:高血圧症、脂質異常症、慢性腎臓病、変形性膝関節症、白内障手術後", None),
    (filters.japanese(0.3), "高血圧症糖尿病肺炎喘息" * 18 + "肝", None),  # 199 kanji
    (filters.japanese(0.3), "高血圧症糖尿病肺炎喘息" * 18 + "肝腎", Drop("not_japanese", 0.0)),
    (filters.japanese(0.3), "高血圧症糖尿病肺炎喘息" * 20 + "である" * 4, None),  # 12 kana to 220 kanji
    # wrongly decoded text is full of kanji that nobody uses
    (
        filters.japanese(0.3),
        "閿欒浜嗙殑缂栫爜鏂囧瓧锛岀梾鍘嗚褰曠湅涓嶆竻妤氫簡であるがよめない",
        Drop("not_japanese", 0.242),
    ),
    (filters.symbols(0.5), "★★痛み", None),
    (filters.symbols(0.49), "★★痛み", Drop("symbols", 0.5)),
    (filters.symbols(0.0), "「体温38.5℃」", Drop("symbols", 0.111)),
    (filters.symbols(0.0), "痛い!(とても)、本当に?『はい』…3/5・50%。", None),
    # repetition: 29 windows of 16 characters, of which 18 stood before
    (filters.repetition(0.62), "今日も一日頑張ります。" * 4, Drop("repetition", 0.621)),
    (filters.repetition(0.63), "今日も一日頑張ります。" * 4, None),
    (filters.repetition(0.0), CASE, None),
    (filters.repetition(0.3), CASE * 2, Drop("repetition", 0.456)),
    (filters.repetition(0.0), "痛い。" * 5, None),  # shorter than a window
    # sentences
    (filters.incomplete(0.3), CASE, None),
    (filters.incomplete(0.3), MENU, Drop("incomplete", 0.0)),
    (filters.incomplete(0.3), NOTE, None),
    (filters.incomplete(0.3), MENU + "\n診察の結果は肺炎でした。", Drop("incomplete", 0.226)),
    (filters.incomplete(0.2), MENU + "\n診察の結果は肺炎でした。", None),
    (filters.incomplete(0.3), "精神発達の遅れを特徴とする.\n症例は七人である.", None),
    (filters.incomplete(0.3), "第1.2版\n図3.4\n表5.a\n" + MENU, Drop("incomplete", 0.0)),
    (filters.incomplete(0.9), "「痛みますか」\n「いいえ、もう少しも」\n彼は笑った。", None),
    (filters.incomplete(0.9), "本当ですか!\nどこが痛みますか?", None),
    (filters.incomplete(0.3), "今日は頭が痛いので休みます", None),  # one line, a post
    (filters.incomplete(0.3), "頭痛薬" * 50, Drop("incomplete", 0.0)),  # one line, but too long for a post
    (filters.incomplete(0.3), CASE + "\n続きを読む", Drop("incomplete", "cut")),
    (filters.incomplete(0.3), CASE + "続きを読むとよい。", None),
    # words: different ones, more of them in longer texts
    (filters.words("own", ["発熱", "咳嗽"], 1), CASE, Drop("own", 2)),
    (filters.words("own", ["発熱", "咳嗽"], 2), CASE, None),
    (filters.words("own", ["発熱"], 0), "発熱。発熱。", Drop("own", 1)),
    (filters.words("own", ["発熱"], 1), "発熱。" * 9, None),
    (filters.words("own", ["発熱", "咳嗽"], 1), "発熱と咳嗽" + "。" * 3994, Drop("own", 2)),
    (filters.words("own", ["発熱", "咳嗽"], 1), "発熱と咳嗽" + "。" * 3995, None),
]


@pytest.mark.parametrize(("rule", "text", "expected"), BOTH_SIDES)
def test_both_sides_of_each_threshold(rule: Filter, text: str, expected: Drop | None) -> None:
    assert verdict(rule, text) == expected


@pytest.mark.parametrize(
    "notice",
    [
        "© 2024 見本クリニック", "Copyright (C) 2024 見本", "copyright: © 見本", "COPYRIGHT 2020 Sample", "(C)2019 見本", "Copyright2020 見本", "(c) 1999 Sample",
        "All Rights Reserved.", "無断転載を禁じます", "無断での複製・使用はお断りします", "禁無断転載",
        "転載はご遠慮ください", "当サイトに掲載された文章の著作権は見本社にあります",
    ],
)  # fmt: skip
def test_copyright_notices(notice: str) -> None:
    text = clean(f"{CASE}\n{notice}")
    assert verdict(filters.copyright_notice, text) == first(DEFAULT, text)
    assert (first(DEFAULT, text) or Drop("", 0)).reason == "copyright"


@pytest.mark.parametrize(
    "no_notice",
    [
        "無断で外出した。", "論文に図を転載した。", "症例(c)1.理学的所見を示す。", "著作権法の改正が行われた。", "DNAの複製を禁じる酵素。",
        "無断欠勤が続いた。農地の転用を禁止する。", "選択肢は(A)(B)(C)である。", "copyrightという語の意味。", "不許可の処分。",
    ],
)  # fmt: skip
def test_no_copyright_notice(no_notice: str) -> None:
    assert first(DEFAULT, CASE + no_notice) is None


@pytest.mark.parametrize(
    ("listed", "text", "count"),
    [
        (["人妻", "美人妻"], "美人妻", 2),  # both stand there
        (["人妻"], "団地の人妻たち", 1),
        (["送料無料", "無料"], "送料無料", 2),
        (["ローン"], "クローン病の治療", 0),
        (["ローン"], "即日ローンの案内", 1),
        (["ローン"], "車・ローン・保険", 1),
        (["ローン", "カードローン"], "カードローン", 1),
        (["av"], "javascriptの解説", 0),
        (["AV"], "新作av入荷", 1),
        (["ＡＶ女優"], "人気のAV女優", 1),  # lists are cleaned as the text is
        (["18禁"], "118禁止条項", 0),
        (["18禁"], "これは18禁です", 1),
        (["カテゴリー:"], "カテゴリー:健康", 1),
        (["É"], "éÉ", 1),
        (["  ", "😭", ""], "咳", 0),  # nothing of them is left
        (["咳", "咳", "ｾｷ", "セキ"], "咳とセキ", 2),
    ],
)
def test_which_words_count(listed: list[str], text: str, count: int) -> None:
    assert WordLists({"own": listed}).count(text) == {"own": count}


def test_clinical_text_keeps_the_words_it_needs() -> None:
    text = (
        "性交後出血を主訴に受診。射精障害と勃起不全があり、陰茎の硬結を触れる。自慰は可能。セックスの頻度は月一回。"
        "売春の経験はない。人妻であり、夫からの暴力を訴える。クローン病でフォローする。授乳はおっぱいのみである。"
    )
    assert first(DEFAULT, text) is None


def test_order_decides_the_reason_and_lists_are_the_users() -> None:
    spam = "無修正のアダルト動画と出会い系。送料無料!今すぐクリックして激安サプリをカートに入れる。© 2024"
    assert first(DEFAULT, spam) == Drop("adult", 3)
    without = filters.from_recipe(recipe(adult_words=()))
    assert first(without, spam) == Drop("advert", 4)
    assert (first(filters.from_recipe(recipe(adult_words=(), ad_words=())), spam) or Drop("", 0)).reason == "copyright"
    off = recipe(adult_words=(), ad_words=(), drop_copyright=False)
    assert first(filters.from_recipe(off), spam) is None
    assert first(filters.from_recipe(recipe(), trusted=True), spam) is None
    assert first(filters.from_recipe(recipe(), trusted=True), "短い。") == Drop("too_short", 3)


def test_own_word_lists(tmp_path: Path) -> None:
    path = tmp_path / "company.txt"
    path.write_text("﻿# our company\n見本製薬\n\n  ＳＡＭＰＬＥ社  \r\n", encoding="utf-8")
    assert read_words(path) == ("見本製薬", "ＳＡＭＰＬＥ社")
    made = filters.from_recipe(recipe(word_lists={"company": path}))
    assert first(made, CASE + "sample社の見本製薬の薬。") == Drop("company", 2)
    assert first(made, CASE) is None
    made = filters.from_recipe(recipe(word_lists={"company": path}, max_listed_words=1))
    assert first(made, CASE + "見本製薬の薬。") is None
    added = filters.from_recipe(recipe(word_lists={"adult": path}))  # more words for a list that comes with us
    assert first(added, CASE + "見本製薬の無修正の資料。") == Drop("adult", 2)


@pytest.mark.parametrize("content", [None, b"# nothing\n", "発熱\n".encode("cp932"), "😭\n".encode()])
def test_word_list_that_cannot_be_used(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "words.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match="not a word list"):
        filters.from_recipe(recipe(word_lists={"own": path}))


@pytest.mark.parametrize("name", ["adult", "advert"])
def test_built_in_lists_match_clean_text(name: str) -> None:
    listed = built_in(name)
    assert len(listed) == len(set(listed)) > 200
    assert all(len(word) > 1 for word in listed)
    for word in listed:
        assert WordLists({"own": [word]}).count(clean(f"、{word}。"))["own"] == 1, word


TEXTS = st.one_of(
    st.text(st.characters(codec=None, exclude_categories=()), max_size=200),  # lone surrogates included
    st.lists(
        st.sampled_from(["発熱", "人妻", "無修正", "©", "。", ".", "」", "\n", "ア", "a", "𠮷", "\ud800", "续", "★"])
    ).map("".join),
    st.tuples(st.text(min_size=1, max_size=30), st.integers(1, 100)).map(lambda pair: pair[0] * pair[1]),
)


@settings(max_examples=150, deadline=None)
@given(TEXTS)
def test_total_on_any_text_and_always_the_same(text: str) -> None:
    for mine, again in zip(DEFAULT, AGAIN, strict=True):
        drop = verdict(mine, text)
        assert drop == verdict(again, text)
        if drop and isinstance(drop.value, float):
            assert 0 <= drop.value <= 1


@settings(max_examples=100, deadline=None)
@given(TEXTS)
def test_counts_are_those_of_the_characters(text: str) -> None:
    count = shares.counts(text)
    assert sum(count) == len(text.encode("utf-16-le", "surrogatepass")) // 2
    assert count[shares.LINE_FEED] == text.count("\n")
    assert count[shares.HIRAGANA] == sum("ぁ" <= c <= "ゖ" or c in "ゝゞ" for c in text)
    assert count[shares.STOP] == sum(c in "。!?" for c in text)


def repeated(text: str) -> float:
    windows = [text[place : place + 16] for place in range(len(text) - 15)]
    return 1 - len(set(windows)) / len(windows)


@pytest.mark.parametrize("copies", [1, 2, 3, 9])
def test_repetition_is_the_share_of_repeated_windows(copies: int) -> None:
    rng = np.random.default_rng(copies)
    sentence = "".join(chr(point) for point in rng.integers(0x4E00, 0x9000, 3000))
    text = sentence * copies + "".join(chr(point) for point in rng.integers(0x3041, 0x3097, 3000))
    drop = verdict(filters.repetition(-1), text)
    assert drop is not None
    assert abs(float(drop.value) - repeated(text)) < 0.01


HOSTILE: dict[str, Callable[[int], str]] = {
    "one character": lambda n: "咳" * n,
    "empty lines": lambda n: "\n" * n,
    "short lines": lambda n: "咳痰\n" * (n // 3),
    "points": lambda n: "あ." * (n // 2),
    "marks": lambda n: "©(c" * (n // 3),
    "almost notices": lambda n: "無断転載" * (n // 4),
    "almost notices 2": lambda n: "本サイト" * (n // 4),
    "words": lambda n: "無修正動画" * (n // 5),
    "rejected words": lambda n: "カードローンa" * (n // 7),
    "cut": lambda n: "続きを読む" * (n // 5),
    "surrogates": lambda n: "\ud800" * n,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_linear_on_a_megabyte(name: str) -> None:
    def seconds(size: int) -> float:
        document = Document(HOSTILE[name](size), "id")
        times = []
        for _ in range(2):
            start = time.process_time()
            for rule in DEFAULT:
                rule(document)
            times.append(time.process_time() - start)
        return min(times)

    small, large = seconds(40_000), seconds(320_000)
    assert large < 40 * small + 0.1  # 8 times the text: quadratic work would take 64 times as long
