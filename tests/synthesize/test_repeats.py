"""Which texts go as repeats: compared with an exact computation of all pairs, with the first one staying."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from rinsho.overlap import char_ngrams, jaccard, key
from rinsho.synthesize.repeats import exercise_text, repeats

WORDS = [
    "発熱",
    "咳嗽",
    "肺炎",
    "気胸",
    "喘息",
    "胃炎",
    "腸炎",
    "虫垂炎",
    "胆石",
    "膵炎",
    "腎炎",
    "貧血",
    "血栓",
    "梗塞",
    "不整脈",
    "心不全",
    "高血圧",
    "糖尿病",
    "甲状腺",
    "骨折",
]
ENDS = ["を認める。", "を疑う。", "を除外する。", "の治療を始める。", "は改善した。", "を説明する。"]


def page(draw: random.Random, sentences: int = 12) -> list[str]:
    return [draw.choice(WORDS) + "と" + draw.choice(WORDS) + draw.choice(ENDS) for _ in range(sentences)]


def given_back(texts: list[str]) -> Callable[[], Iterator[str]]:
    return lambda: iter(texts)


def by_all_pairs(texts: list[str], threshold: float) -> dict[int, int]:
    """The same decision by comparing everything: the first in order stays."""
    grams = [char_ngrams(text) for text in texts]
    kept: list[int] = []
    gone: dict[int, int] = {}
    for number in range(len(texts)):
        near = [other for other in kept if jaccard(grams[number], grams[other]) >= threshold]
        if near:
            gone[number] = max(near, key=lambda other: (key(texts[other]) == key(texts[number]), -other))
        else:
            kept.append(number)
    return gone


def made(count: int, seed: int) -> list[str]:
    draw = random.Random(seed)
    texts: list[str] = []
    for number in range(count):
        if number % 3 == 2:
            lines = texts[draw.randrange(len(texts))].split("\n")
            for _ in range(draw.randrange(4)):
                lines[draw.randrange(len(lines))] = page(draw, 1)[0]
            texts.append("\n".join(lines))
        else:
            texts.append("\n".join(page(draw)))
    return texts


def test_it_finds_what_comparing_all_pairs_finds(tmp_path: Path) -> None:
    texts = made(300, seed=4)
    for threshold in (0.6, 0.8):
        found, expected = repeats(given_back(texts), threshold, tmp_path), by_all_pairs(texts, threshold)
        assert found.keys() == expected.keys()
        assert len(found) > 40
        assert all(kept < place and kept not in found for place, kept in found.items())
        grams = {place: char_ngrams(texts[place]) for place in {*found, *found.values()}}
        assert all(jaccard(grams[place], grams[kept]) >= threshold for place, kept in found.items())
    assert not list(tmp_path.iterdir())


def test_equal_up_to_width_and_white_space_always_goes_and_zero_keeps_near_ones(tmp_path: Path) -> None:
    texts = ["ＣＴで肺炎を認める。", "CTで 肺炎を\n認める。", "CTで肺炎を認める。治療を始める。", "", "", " "]
    assert repeats(given_back(texts), 0.0, tmp_path) == {1: 0}
    assert repeats(given_back(texts), 0.4, tmp_path) == {1: 0, 2: 0}
    assert repeats(given_back([]), 0.8, tmp_path) == {}


def test_a_copy_of_a_text_that_went_points_to_the_one_that_stayed(tmp_path: Path) -> None:
    first = "\n".join(page(random.Random(1), 20))
    near = first + "経過は良好である。"
    assert repeats(given_back([first, near, near]), 0.8, tmp_path) == {1: 0, 2: 0}


def test_the_order_decides_who_stays(tmp_path: Path) -> None:
    texts = made(60, seed=9)
    there, back = repeats(given_back(texts), 0.8, tmp_path), repeats(given_back(texts[::-1]), 0.8, tmp_path)
    assert 0 not in there
    assert 0 not in back
    assert {len(texts) - 1 - place for place in back} != there.keys()


def test_an_exercise_with_shuffled_options_is_the_same(tmp_path: Path) -> None:
    question, options = "徐脈となるのはどれか。1つ選べ。", ["敗血症", "粘液水腫", "貧血", "発熱", "脱水"]
    other = "頻脈となるのはどれか。1つ選べ。"
    texts = [
        exercise_text(question, options),
        exercise_text(question + " ", options[::-1]),
        exercise_text(other, "一二三四五"),
    ]
    assert repeats(given_back(texts), 0.8, tmp_path) == {1: 0}


@given(
    texts=st.lists(st.text(alphabet="発熱と。 \n\ud800", max_size=12), max_size=12),
    threshold=st.sampled_from([0.0, 0.5, 1.0]),
)
def test_any_texts(texts: list[str], threshold: float, tmp_path_factory) -> None:
    found = repeats(given_back(texts), threshold, tmp_path_factory.mktemp("grams"))
    assert all(kept < place and kept not in found for place, kept in found.items())
