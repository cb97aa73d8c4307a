"""Near-duplicates by the index equal those by comparing every pair."""

import random
import time

import pytest

from rinsho.overlap import char_ngrams, jaccard, key, near_duplicates, windows


def brute(texts: list[str], given: list[str]) -> list[int | None]:
    found: list[int | None] = []
    grams = [char_ngrams(text) for text in given]
    for text in texts:
        items = char_ngrams(text)
        near = [
            number
            for number, other in enumerate(grams)
            if jaccard(items, other) > 0.8 or len(items & other) >= max(0.9 * min(len(items), len(other)), 1)
        ]
        found.append(near[0] if near else None)
    return found


def text_of(rng: random.Random, length: int) -> str:
    return "".join(
        rng.choice("患者は発熱と咳嗽を主訴に来院した胸部写真で浸潤影肺炎抗菌薬投与。、") for _ in range(length)
    )


def test_index_equals_comparing_all_pairs() -> None:
    rng = random.Random(1)
    given = [text_of(rng, rng.randint(3, 80)) for _ in range(40)]
    texts = []
    for number in range(300):
        base = list(rng.choice(given))
        for _ in range(rng.randint(0, 6)):
            base[rng.randrange(len(base))] = rng.choice("腹痛嘔吐")
        text = "".join(base)
        texts.append((text, text_of(rng, 60) + text, text[: len(text) // 2], text_of(rng, 50))[number % 4])
    texts += ["", "　", "咳", given[0] + " "]
    assert near_duplicates(texts, given) == brute(texts, given)
    assert sum(number is not None for number in near_duplicates(texts, given)) > 50


def test_width_and_white_space_do_not_matter() -> None:
    assert key("ＣＴ　肺炎\n") == key("CT肺炎")
    assert near_duplicates(["ＣＴで 肺炎像を認めた"], ["CTで肺炎像を認めた"]) == [0]


def test_thresholds_below_what_the_index_can_find_are_refused() -> None:
    with pytest.raises(ValueError, match=r"0\.8"):
        near_duplicates([], [], threshold=0.5)


def test_windows() -> None:
    assert list(windows("あ い\nう", size=2)) == ["あい"]
    assert list(windows("短い", size=24)) == []


def test_many_texts_take_seconds() -> None:
    rng = random.Random(2)
    given = [text_of(rng, 200) for _ in range(400)]
    texts = [text_of(rng, 200) for _ in range(4000)] + given
    started = time.process_time()
    found = near_duplicates(texts, given)
    assert time.process_time() - started < 8
    assert found[4000:] == list(range(400))
    assert not any(number is not None for number in found[:4000])
