"""ROUGE-L on characters, and whether the index finds what comparing every pair finds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rinsho.synthesize.novelty import Novelty, rouge_l

texts = st.text("発熱と咳ABab１1。 ー\U00020089", max_size=25)


def naive(one, other):
    """The textbook recurrence, on what counts: letters and digits, NFKC, small."""
    import unicodedata

    a, b = ([c for c in unicodedata.normalize("NFKC", text).casefold() if c.isalnum()] for text in (one, other))
    table = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            table[i + 1][j + 1] = table[i][j] + 1 if x == y else max(table[i][j + 1], table[i + 1][j])
    return 2 * table[-1][-1] / (len(a) + len(b)) if a and b else 0.0


@given(texts, texts)
def test_rouge_l_is_that_of_the_textbook(one, other):
    assert rouge_l(one, other) == pytest.approx(naive(one, other))
    assert rouge_l(one, other) == rouge_l(other, one)


@given(st.lists(texts, max_size=12), texts, st.sampled_from([0.3, 0.5, 0.7, 1.0]))
def test_no_near_text_is_missed_and_none_is_made_up(known, text, limit):
    novelty = Novelty(limit)
    for number, other in enumerate(known):
        novelty.add(str(number), other)
    best = max((rouge_l(text, other) for other in known), default=0.0)
    found = novelty.near(text)
    assert (found is not None) == (best >= limit)
    if found:
        assert found[0] == rouge_l(text, known[int(found[1])]) >= limit


def test_many_known_texts_and_long_ones():
    novelty = Novelty(0.7)
    for number in range(3000):  # more than fit at first
        novelty.add(str(number), f"{number}番の患者について説明してください。" + "あ" * (number == 17) * 300)
    assert len(novelty) == 3000
    assert novelty.near("2999番の患者について、説明してください") == (1.0, "2999")
    assert novelty.near("あ" * 310)[1] == "17"
    assert novelty.near("肺炎の治療を三つ挙げる") is None
