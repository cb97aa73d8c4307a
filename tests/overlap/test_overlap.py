"""Near-duplicates, and passages in documents, by the index are those that comparing everything gives."""

import pickle
import random
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rinsho.overlap import char_ngrams, jaccard, key, near_duplicates, passages, windows
from rinsho.overlap.codes import compact
from rinsho.overlap.passages import Passages


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


SMALL = st.text(alphabet="あいう", max_size=40)


def places(text: str, document: str, chars: int) -> set[int]:
    """Places of the text in windows that the document holds, by brute force."""
    starts = [at for at in range(len(text) - chars + 1) if text[at : at + chars] in document]
    return {place for at in starts for place in range(at, at + chars)}


@pytest.mark.parametrize("pairs", [3, 20_000])
def test_passages_are_covered_as_comparing_every_window_says(pairs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many places are compared at a time, and with the repeated ones left out."""
    monkeypatch.setattr(passages, "PAIRS", pairs)

    @settings(max_examples=100, deadline=None)
    @given(st.lists(SMALL, min_size=1, max_size=5), SMALL, st.integers(8, 16), st.integers(0, 20), st.integers(1, 4))
    def compare(texts: list[str], other: str, chars: int, start: int, times: int) -> None:
        texts = [text for text in dict.fromkeys(texts) if len(text) >= chars]
        document = (other + "".join(text[start : start + 30] for text in texts)) * times
        known = Passages.of([compact(text) for text in texts], chars)
        found, sums = known.covered(compact(document))
        expected = {number: len(places(text, document, chars)) for number, text in enumerate(texts)}
        assert dict(zip(found.tolist(), sums.tolist(), strict=True)) == {
            n: size for n, size in expected.items() if size
        }
        for number, text in enumerate(texts):
            assert known.stands(number, compact(document)) == (text in document)

    compare()


def test_a_passage_between_two_code_units_does_not_stand_there() -> None:
    known = Passages.of([compact("\u3044" * 9)], 8)
    assert not known.stands(0, np.full(10, 0x4430, np.uint16))  # the same bytes, one further on
    assert known.stands(0, compact("咳" + "い" * 9))


def test_an_index_of_passages_travels_and_refuses_what_it_cannot_find() -> None:
    text = compact("発熱と咳嗽を主訴に来院した。")
    known = pickle.loads(pickle.dumps(Passages.of([text], 8)))
    assert len(known) == 1 and known.covered(text)[1].tolist() == [len(text)]
    assert len(Passages.of([], 8)) == 0 and len(Passages.of([], 8).covered(text)[0]) == 0
    for chars in (7, 30):
        with pytest.raises(ValueError, match="at least 8"):
            Passages.of([text], chars)
