"""Sketches: the same n-grams and sentences as a plain reading gives, and signatures that agree as Jaccard says."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rinsho.overlap import char_ngrams
from rinsho.overlap.sketch import FEW, gram_hashes, gram_set, sentence_hashes, signature, sketch

CLEAN = st.text(alphabet="発熱咳痰。！？!?」）「肺 \n𠮷ab", max_size=60)
SETTINGS = {"size": 5, "bands": 24, "rows": 5}


def random_text(rng: np.random.Generator, chars: int) -> str:
    return "".join(map(chr, rng.integers(0x4E00, 0x4E00 + 2000, chars).tolist()))


def plain_sentences(text: str) -> list[str]:
    """Cut at line feeds and after runs of marks and closing brackets that hold a mark; without spaces."""

    def end(run: re.Match[str]) -> str:
        return run[0] + ("\n" if set(run[0]) & set("。！？!?") else "")

    return [part for part in re.sub(r"[。！？!?」』）)】〉》\]〕]+", end, text.replace(" ", "")).split("\n") if part]


@given(CLEAN, st.integers(1, 7))
def test_grams_are_those_of_the_brute_force_reference(text: str, size: int) -> None:
    """Up to the two code units of a character beyond the basic plane, and NFKC, which clean text has behind it."""
    text = text.replace("𠮷", "吉").replace("！", "!").replace("？", "?").replace("）", ")")
    plain = "".join(text.split())
    assert len(gram_hashes(text, size)) == (max(len(plain) - size + 1, 1) if plain else 0)
    assert len(gram_set(text, size)) == len(char_ngrams(text, size))


@given(CLEAN, CLEAN)
def test_equal_ngrams_have_equal_hashes_and_different_ones_do_not(one: str, other: str) -> None:
    one, other = (
        text.replace("𠮷", "吉").replace("！", "!").replace("？", "?").replace("）", ")") for text in (one, other)
    )
    shared = np.intersect1d(gram_set(one, 3), gram_set(other, 3))
    assert len(shared) == len(char_ngrams(one, 3) & char_ngrams(other, 3))


def test_hashes_never_change() -> None:
    """Written pieces are joined with pieces made on other machines and days."""
    assert gram_hashes("発熱と咳嗽", 3).tolist() == [2807558573, 391752953, 3128621283]
    assert sentence_hashes("無断転載を禁じます。", 5).tolist() == [9108962767307219815]
    keys = signature("胸部ＣＴで右下葉に浸潤影を認めた。", size=5, bands=2, rows=2)
    assert keys.tolist() == [10248673530255556365, 16091229777218121336]


@settings(max_examples=30)
@given(st.lists(CLEAN, max_size=12))
def test_many_together_are_as_each_alone(texts: list[str]) -> None:
    made = sketch(texts, size=5, bands=6, rows=2, min_chars=3)
    assert made.signatures.shape == (len(texts), 6)
    ends = np.cumsum(made.counts)
    for number, text in enumerate(texts):
        assert (made.signatures[number] == signature(text, size=5, bands=6, rows=2)).all()
        own = made.sentences[ends[number] - made.counts[number] : ends[number]]
        assert own.tolist() == sentence_hashes(text, 3).tolist()


def test_long_and_short_together_are_as_each_alone() -> None:
    rng = np.random.default_rng(3)
    texts = [random_text(rng, chars) for chars in (3, 40_000, 0, 70_000, 200, 5)] + ["あ" * 60_000]
    made = sketch(texts, **SETTINGS, min_chars=15)
    assert all((row == signature(text, **SETTINGS)).all() for row, text in zip(made.signatures, texts, strict=True))


@pytest.mark.parametrize("repeats", [10, 3000])
def test_a_signature_depends_on_the_set_of_ngrams_alone(repeats: int) -> None:
    """Also for long texts of few n-grams, where the sampled hashes leave bins empty."""
    one = "発熱と咳嗽を主訴に来院した。"
    assert (signature(one * 2, **SETTINGS) == signature(one * repeats, **SETTINGS)).all()
    assert len(one) * 3000 > 2 * FEW


@pytest.mark.parametrize("chars", [12, 40, 150, 600, 3000])
@pytest.mark.parametrize("jaccard", [0.4, 0.7])
def test_rows_agree_with_the_probability_of_the_jaccard_index(chars: int, jaccard: float) -> None:
    """Whatever the length: a text with many empty bins is as good as one with none."""
    rng = np.random.default_rng(chars)
    agree, index, rounds = 0.0, 0.0, 200 if chars < 1000 else 40
    changed = round(chars * (1 - jaccard) / (1 + jaccard))
    for _ in range(rounds):
        one = random_text(rng, chars)
        other = one[: chars - changed] + random_text(rng, changed)
        keys = [signature(text, size=2, bands=120, rows=1) for text in (one, other)]
        sets = [gram_set(text, 2) for text in (one, other)]
        agree += (keys[0] == keys[1]).mean() / rounds
        shared = len(np.intersect1d(*sets))
        index += shared / (len(sets[0]) + len(sets[1]) - shared) / rounds
    assert agree == pytest.approx(index, abs=0.03)


@given(CLEAN, st.integers(1, 8))
def test_sentences_are_those_of_a_plain_reading(text: str, min_chars: int) -> None:
    wanted = list(dict.fromkeys(part for part in plain_sentences(text) if units(part) >= min_chars))
    hashes = sentence_hashes(text, min_chars)
    assert len(hashes) == len(wanted)
    assert hashes.tolist() == [int(sentence_hashes(part, 1)[0]) for part in wanted]


def units(text: str) -> int:
    return len(text.encode("utf-16-le")) // 2


def test_sentences_are_equal_up_to_spaces_and_differ_otherwise() -> None:
    one, other = (
        sentence_hashes(text, 5) for text in ("A: 無断転載を禁じます。", "A:無断 転載を禁じます。咳が続いている。")
    )
    assert one.tolist() == other[:1].tolist()
    assert len(set(other.tolist())) == 2
