"""Expressions, how words come to their vectors, and neighbours."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analyse.toy_space import toy_embeddings, toy_space
from rinsho.analyse.analogy_space import Term, find, neighbours, parse, space, written
from rinsho.errors import UserError


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("脳出血 - 脳 + 消化管", "+脳出血 -脳 +消化管"),
        ("脳出血－脳＋消化管", "+脳出血 -脳 +消化管"),
        ("脳出血-脳+消化管", "+脳出血 -脳 +消化管"),
        ("脳出血 −脳　＋　消化管", "+脳出血 -脳 +消化管"),
        ("- 脳 + 心臓", "-脳 +心臓"),
        ("+脳", "+脳"),
        ("糖尿病", "+糖尿病"),
        ("IL-6 + CA19-9", "+IL-6 +CA19-9"),
        ("β-遮断薬 - X-線", "+β-遮断薬 -X-線"),
        ("Na+ - K+", "+Na+ -K+"),
        ("インターフェロン - データ", "+インターフェロン -データ"),
        ("HbA1c+糖尿病", "+HbA1c+糖尿病"),
    ],
)
def test_signs_stand_after_spaces_or_between_japanese_characters(text: str, terms: str) -> None:
    assert parse(text) == tuple(Term(1 if term[0] == "+" else -1, term[1:]) for term in terms.split(" "))


@pytest.mark.parametrize("text", ["", "   ", "脳 - ", "脳 - - 肺", "+", "脳 + ＋ 肺"])
def test_a_sign_without_a_word_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="expected words with"):
        parse(text)


WORDS = st.from_regex(r"[脳肺ー]{0,3}[A-Z0-9]([-+]?[A-Z0-9]){0,4}[脳肺]{0,2}|[脳肺癌ア]{1,4}", fullmatch=True)


@given(st.lists(st.tuples(st.sampled_from([1, -1]), WORDS), min_size=1, max_size=5))
def test_what_is_written_is_read_again(terms: list[tuple[int, str]]) -> None:
    expected = tuple(Term(*term) for term in terms)
    assert parse(written(expected)) == expected


@given(st.text("脳A- +＋－−1", max_size=20))
def test_any_text_is_terms_or_one_error(text: str) -> None:
    try:
        terms = parse(text)
    except UserError:
        return
    assert terms
    assert all(term.word.strip() == term.word != "" for term in terms)


def test_the_planted_answer_is_nearest_and_its_cosine_right() -> None:
    answer = neighbours(toy_space(), "肺癌 - 肺 + 心", 3)
    assert answer.rows[0].token == "心筋梗塞"
    assert len(answer.rows) == 3
    assert set(answer.left_out) == {"肺癌", "肺", "心"}
    assert [word.how for word in answer.words] == ["one token"] * 3
    made = toy_embeddings()
    rows = {token: row / np.linalg.norm(row) for token, row in zip(made.tokens, made.vectors, strict=True)}
    total = rows["肺癌"] - rows["肺"] + rows["心"]
    for row in answer.rows:
        expected = total @ rows[row.token] / np.linalg.norm(total)
        assert row.cosine == pytest.approx(expected, abs=1e-5)
        assert made.tokens[row.id] == row.token


def test_own_words_are_answers_only_where_asked_for() -> None:
    own = neighbours(toy_space(keep_own=True), "肺癌 - 肺 + 心", 40)
    assert own.left_out == ()
    assert {"肺癌", "心"} <= {row.token for row in own.rows}


def test_a_word_of_several_tokens_is_their_mean_and_its_tokens_are_left_out() -> None:
    made = toy_embeddings()
    vectors = made.vectors.copy()
    vectors[made.tokens.index("急性")] *= 10  # counts no more than the others
    there = space(replace(made, vectors=vectors), toy_space().tokenizer, centred=False)
    word = find(there, "急性咳嗽")
    assert word.how == "mean of its tokens 急性|咳嗽"
    answer = neighbours(there, "急性咳嗽", 50)
    assert set(answer.left_out) == {"急性", "咳嗽"}
    rows = {token: row / np.linalg.norm(row) for token, row in zip(there.tokens, there.vectors, strict=True)}
    mean = (rows["急性"] + rows["咳嗽"]) / 2
    found = {row.token: row.cosine for row in answer.rows}
    assert found["発熱"] == pytest.approx(float(mean @ rows["発熱"] / np.linalg.norm(mean)), abs=1e-5)


@pytest.mark.parametrize("word", ["𠮷", "肺𠮷", "腦"])
def test_words_outside_the_vocabulary_are_told(word: str) -> None:
    answer = neighbours(toy_space(), f"肺癌 - {word}")
    assert answer.rows == ()
    assert answer.problem == f"not representable: {word}"
    assert "bytes or unknown" in answer.words[1].how


def test_a_word_that_is_a_token_is_that_token_even_where_the_tokenizer_cuts_it() -> None:
    class Cutting:
        cleans = True  # as ours does: full width becomes half width

        def encode_text(self, text: str) -> list[int]:
            return [toy_embeddings().tokens.index(char) for char in text]

    there = replace(toy_space(), tokenizer=Cutting())
    assert find(there, "肺癌").how == "one token"
    assert find(there, "癌肺").how == "mean of its tokens 癌|肺"
    assert find(there, "Ａ").tokens == ("A",)


def test_nothing_left_of_a_sum_is_told() -> None:
    assert neighbours(toy_space(), "肺 - 肺").problem == "nothing is left of the sum"
    assert neighbours(toy_space(unit_length=False), "肺癌 - 肺癌").problem == "nothing is left of the sum"


def test_length_counts_only_where_it_is_asked_for() -> None:
    made = toy_embeddings()
    vectors = made.vectors.copy()
    vectors[made.tokens.index("心")] *= 100  # drowns the others in a sum of vectors as they are
    made = replace(made, vectors=vectors)
    tokenizer = toy_space().tokenizer
    even, long = (
        neighbours(space(made, tokenizer, unit_length=kind, centred=False), "肺癌 - 肺 + 心", 1).rows[0]
        for kind in (True, False)
    )
    assert even.token == long.token == "心筋梗塞"
    assert even.cosine > 0.9
    assert long.cosine == pytest.approx(np.sqrt(0.5), abs=0.01)  # the cosine of 心筋梗塞 with 心 alone


@pytest.mark.parametrize("unit_length", [True, False])
def test_centred_vectors_have_lost_the_mean_of_the_candidates(unit_length: bool) -> None:
    made = toy_embeddings()
    there = space(replace(made, vectors=made.vectors + 3), toy_space().tokenizer, unit_length=unit_length)
    rows = made.vectors.astype(np.float64) + 3
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True) if unit_length else rows
    rows -= rows[there.candidates].mean(0)
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True) if unit_length else rows
    total = sum(sign * rows[made.tokens.index(word)] for sign, word in ((1, "肺癌"), (-1, "肺"), (1, "心")))
    answer = neighbours(there, "肺癌 - 肺 + 心", 5)
    assert answer.rows[0].token == "心筋梗塞"
    for row in answer.rows:
        expected = total @ rows[row.id] / np.linalg.norm(total) / np.linalg.norm(rows[row.id])
        assert row.cosine == pytest.approx(expected, abs=1e-4)


def test_what_all_tokens_share_makes_them_near_unless_it_is_taken_away() -> None:
    made = toy_embeddings()
    shared = replace(made, vectors=made.vectors + 3)
    tokenizer = toy_space().tokenizer
    as_is, centred = (neighbours(space(shared, tokenizer, centred=kind), "肺癌 - 肺 + 心") for kind in (False, True))
    assert as_is.median > 0.8
    assert abs(centred.median) < 0.2
    assert centred.rows[0].cosine > centred.high > centred.median


def test_the_cosines_of_all_candidates_are_told() -> None:
    there = toy_space(keep_own=True)
    answer = neighbours(there, "肺癌 - 肺 + 心", len(there.candidates))
    cosines = [row.cosine for row in answer.rows]
    assert len(cosines) == len(there.candidates)
    assert (answer.median, answer.high) == pytest.approx(np.quantile(cosines, [0.5, 0.95]), abs=1e-6)


def test_candidates_are_words_one_for_each_spelling() -> None:
    made = toy_embeddings()
    tokens, forms = list(made.tokens), list(made.forms)
    tokens[-1], forms[-1] = " 肺", "text"  # the same word after a space
    unused = tokens.index("次")
    tokens[unused], forms[unused] = "", "unused"
    made = replace(made, tokens=tuple(tokens), forms=tuple(forms))
    words = space(made, None)
    names = [words.tokens[id_] for id_ in words.candidates.tolist()]
    assert "肺" in names
    assert not {" 肺", "。", "", " ", "<0xE3>", "<unk>"} & set(names)
    assert len(set(names)) == len(names)
    every = space(made, None, candidates="all")
    assert "。" in [every.tokens[id_] for id_ in every.candidates.tolist()]


def test_a_vocabulary_without_words_is_refused() -> None:
    made = toy_embeddings()
    with pytest.raises(UserError, match="no token of this vocabulary is a word"):
        space(replace(made, forms=("byte",) * len(made)), None)


def test_equal_and_zero_vectors_do_no_harm() -> None:
    made = toy_embeddings()
    vectors = np.zeros_like(made.vectors)
    there = space(replace(made, vectors=vectors), toy_space().tokenizer)
    assert neighbours(there, "肺癌 - 肺 + 心").problem == "nothing is left of the sum"
    vectors = made.vectors.copy()
    vectors[made.tokens.index("筋")] = 0
    answer = neighbours(space(replace(made, vectors=vectors), there.tokenizer), "肺癌 - 肺 + 心", 100)
    assert all(np.isfinite(row.cosine) for row in answer.rows)
