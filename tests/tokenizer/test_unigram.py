"""rinsho.tokenizer.unigram and seeds: exact candidates, exactly as many pieces, every frequent word among them."""

import itertools
import unicodedata
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rinsho.errors import UserError
from rinsho.tokenizer import seeds, unigram
from rinsho.tokenizer.seeds import seed_pieces
from rinsho.tokenizer.unigram import Training, missing_words, most_frequent, train

TRAINING = Training(
    vocab_size=560,
    byte_fallback=True,
    shrinking_factor=0.75,
    sub_iterations=4,
    max_piece_chars=16,
    min_count=2,
    character_coverage=1.0,
    split_digits=True,
)
ORGANS = [
    "食道",
    "胃",
    "大腸",
    "肝",
    "膵",
    "腎",
    "膀胱",
    "子宮",
    "肺",
    "脳",
    "甲状腺",
    "皮膚",
    "脊髄",
    "副鼻腔",
    "網膜",
    "血管",
]
KINDS = [
    "炎",
    "癌",
    "出血",
    "潰瘍",
    "膿瘍",
    "結石",
    "梗塞",
    "肥大",
    "狭窄",
    "損傷",
    "転移",
    "浮腫",
    "線維症",
    "機能不全",
    "良性腫瘍",
]
PREFIXES = ["", "急性", "慢性", "再発性", "両側"]
OTHERS = [
    "発熱",
    "咳嗽",
    "呼吸困難",
    "胸痛",
    "頭痛",
    "症例",
    "診断",
    "治療",
    "投与",
    "アスピリン",
    "ワルファリン",
    "ので",
    "の",
    "で",
    "38",
    "3",
]
WORDS = {
    word: 4000 // (number + 1) + 2
    for number, word in enumerate(
        [*OTHERS, *(prefix + organ + kind for prefix in PREFIXES for organ in ORGANS for kind in KINDS)]
    )
}


def counter_seeds(parts: Mapping[str, int], longest: int, min_count: int, most: int) -> list[tuple[str, int]]:
    """The same by counting every substring."""
    single: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    for part, count in parts.items():
        for start in range(len(part)):
            single[part[start]] += count
            for end in range(start + 2, min(len(part), start + longest) + 1):
                counts[part[start:end]] += count
    longer = [(piece, count * len(piece)) for piece, count in counts.items() if count >= min_count]
    rows = [sorted(group, key=lambda row: (-row[1], row[0])) for group in (single.items(), longer)]
    return rows[0] + rows[1][: max(0, most - len(rows[0]))]


@settings(max_examples=150, deadline=None)
@given(
    st.dictionaries(st.text("肺炎癌性𠮷ー\ud800a\0", min_size=1, max_size=9), st.integers(1, 9), max_size=25),
    st.integers(1, 6),
    st.integers(1, 12),
    st.integers(0, 60),
    st.integers(1, 20),
)
def test_seeds_are_all_frequent_substrings(
    parts: dict[str, int], longest: int, min_count: int, most: int, bucket: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(seeds, "BUCKET_PLACES", bucket)
        found = list(seed_pieces(parts, longest, min_count, most))
    assert found == counter_seeds(parts, longest, min_count, most)
    backwards = dict(reversed(parts.items()))
    assert list(seed_pieces(backwards, longest, min_count, most)) == found


def test_seeds_of_real_words_are_exact() -> None:
    assert list(seed_pieces(WORDS, 16, 2, 10**6)) == counter_seeds(WORDS, 16, 2, 10**6)


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, float]]:
    return train(WORDS, TRAINING, tmp_path_factory.mktemp("scratch"))


def test_the_vocabulary_has_exactly_the_wanted_pieces(vocabulary: list[tuple[str, float]]) -> None:
    pieces = [piece for piece, _ in vocabulary]
    assert len(pieces) == len(set(pieces)) == 560
    assert pieces[: len(TRAINING.fixed)] == TRAINING.fixed
    assert max(map(len, pieces[4 + 256 :])) <= 16
    assert not [piece for piece, _ in vocabulary if piece not in TRAINING.fixed and odd(piece)]
    assert odd("\u3099か") and odd("a b") and not odd("肺炎")
    trained = vocabulary[len(TRAINING.fixed) :]
    scores = [score for _, score in trained]
    assert scores == sorted(scores, reverse=True)
    assert {chr(code) for code in range(0x21, 0x7F)} <= set(pieces)
    assert set("".join(WORDS)) <= set(pieces)


def test_the_order_of_the_words_does_not_matter(vocabulary: list[tuple[str, float]], tmp_path: Path) -> None:
    assert train(dict(sorted(WORDS.items(), reverse=True)), TRAINING, tmp_path) == vocabulary


@pytest.mark.parametrize(
    "changed",
    [{"shrinking_factor": 0.5}, {"sub_iterations": 1}, {"max_piece_chars": 3}, {"min_count": 40}],
    ids=lambda changed: next(iter(changed)),
)
def test_every_setting_reaches_the_trainer(
    vocabulary: list[tuple[str, float]], tmp_path: Path, changed: dict[str, float]
) -> None:
    training = replace(TRAINING, **changed)  # type: ignore[arg-type]
    other = train(WORDS, training, tmp_path)
    assert len(other) == 560
    assert other != vocabulary
    if "max_piece_chars" in changed:
        assert max(len(piece) for piece, _ in other[len(training.fixed) :]) == 3


@pytest.mark.parametrize(("byte_fallback", "split_digits"), itertools.product((True, False), repeat=2))
def test_what_is_fixed_has_its_place(tmp_path: Path, byte_fallback: bool, split_digits: bool) -> None:
    training = replace(TRAINING, byte_fallback=byte_fallback, split_digits=split_digits)
    pieces = [piece for piece, _ in train(WORDS, training, tmp_path)]
    assert pieces[:4] == ["<unk>", "<|begin_of_text|>", "<|end_of_text|>", "\n"]
    assert ("<0xE8>" in pieces) == byte_fallback
    assert ("38" in pieces) == (not split_digits)
    assert len(pieces) == len(set(pieces)) == 560


def test_frequent_words_are_pieces_unless_something_stands_in_the_way(tmp_path: Path) -> None:
    words = WORDS | {
        "の": 90_000,
        "で": 80_000,
        "ので": 900,
        "鎖": 1,
        "3分": 800,
        "A" * 17: 700,
        "彁": 600,
        "発熱彁": 500,
    }
    with pytest.MonkeyPatch.context() as patch:
        characters = unigram._characters

        def without(*arguments: object) -> tuple[set[str], bool]:
            kept, capped = characters(*arguments)  # type: ignore[arg-type]
            return kept - {"彁"}, capped

        patch.setattr(unigram, "_characters", without)
        bare = train(words, replace(TRAINING, whole_words_fraction=0), tmp_path)
        whole = train(words, TRAINING, tmp_path)
    reasons = {word: reason for word, _, reason in missing_words(words, whole, TRAINING, 60)}
    assert reasons == {
        "3分": "stands alone: 3",
        "38": "stands alone: 3 8",
        "A" * 17: "longer than 16 characters",
        "彁": "no piece for: 彁",
        "発熱彁": "no piece for: 彁",
    }
    missing = missing_words(words, bare, TRAINING, 60)
    assert [count for _, count, _ in missing] == sorted((count for _, count, _ in missing), reverse=True)
    spelt = {word: reason.removeprefix("pieces: ").split() for word, _, reason in missing if reason[:6] == "pieces"}
    assert spelt
    assert all("".join(pieces) == word and len(pieces) > 1 for word, pieces in spelt.items())
    known = {piece for piece, _ in bare}
    assert all(known.issuperset(pieces) for pieces in spelt.values())
    assert len(bare) == len(whole) == 560


def test_bringing_words_back_keeps_the_best_spelling_of_everything_else() -> None:
    pieces = [("の", -1.0), ("で", -2.0), ("す", -2.5), ("です", -3.0), ("稀少", -8.0), ("稀", -9.0), ("少", -9.5)]
    training = replace(TRAINING, whole_words_fraction=0.5)
    pieces += [("かな", -7.0), ("か", -7.5), ("な", -7.6)]
    words = {"ので": 50, "か": 30, "のです": 4, "です": 3, "稀少": 2}
    result = dict(unigram._with_whole_words(pieces, words, training))
    assert len(result) == len(pieces)
    assert "稀少" not in result  # the least likely piece longer than a character gave its place
    assert result["ので"] == pytest.approx(-3.0, abs=1e-3)
    assert result["ので"] > -3.0
    assert "のです" not in result  # one piece in two of those longer than a character, so one word
    assert {piece: result[piece] for piece in ("の", "で", "です", "稀")} == {"の": -1, "で": -2, "です": -3, "稀": -9}


def test_most_frequent_words_in_a_fixed_order() -> None:
    assert most_frequent({"い": 2, "あ": 2, "う": 3, "え": 1}, 3) == ["う", "あ", "い"]


def test_no_words_and_too_few_words(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no words"):
        train({}, TRAINING, tmp_path)
    with pytest.raises(UserError, match="no words"):
        train({"38": 5}, TRAINING, tmp_path)
    with pytest.raises(UserError, match=r"at most \d+ with this text") as caught:
        train(WORDS, replace(TRAINING, vocab_size=20_000), tmp_path)
    possible = int(str(caught.value).split("at most ")[1].split()[0])
    assert len(train(WORDS, replace(TRAINING, vocab_size=possible), tmp_path)) == possible


@pytest.mark.parametrize("changed", [{"shrinking_factor": 0.4}, {"shrinking_factor": 0.96}, {"sub_iterations": 11}])
def test_what_the_trainer_refuses_is_said_before(tmp_path: Path, changed: dict[str, float]) -> None:
    with pytest.raises(UserError, match=f"tokenizer.{next(iter(changed))}: it is"):
        train(WORDS, replace(TRAINING, **changed), tmp_path)  # type: ignore[arg-type]


def odd(piece: str) -> bool:
    """A control character, white space, half a surrogate pair, or a mark first that belongs to the character before."""
    kinds = [unicodedata.category(char) for char in piece]
    return (
        not piece
        or any(kind in ("Cc", "Cs", "Zs", "Zl", "Zp") for kind in kinds)
        or (len(piece) > 1 and kinds[0] in ("Mn", "Mc", "Me"))
    )
