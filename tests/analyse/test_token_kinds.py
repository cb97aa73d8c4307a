"""Kinds of tokens, and whether those of one kind lie together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rinsho.analyse.embeddings import Embeddings
from rinsho.analyse.projection import neighbours
from rinsho.analyse.token_kinds import Kinds, asked, is_function_word, is_symbol, kinds_of, read_words, together
from rinsho.errors import UserError

pytest.importorskip("fugashi")


def embeddings(tokens: list[str], forms: list[str] | None = None) -> Embeddings:
    return Embeddings(np.zeros((len(tokens), 2), "f4"), tuple(tokens), tuple(forms or ["text"] * len(tokens)))  # type: ignore[arg-type]


def named(found: Kinds) -> list[str]:
    return ["" if place < 0 else found.names[place] for place in found.of]


def test_every_kind_of_token() -> None:
    tokens = [
        "<unk>",
        "<0xE3>",
        "を",
        "ました",
        "しかし",
        "、",
        "120",
        "肺炎",
        "アスピリン",
        " ＣＴ",
        "患者",
        "ネ",
        "",
        " ",
    ]
    forms = ["special", "byte", *["text"] * 10, "unused", "text"]
    words = {"肺炎": "disease", "アスピリン": "drug", "CT": "examination"}
    found = kinds_of(embeddings(tokens, forms), words)
    assert named(found) == [
        "special", "byte", "function word", "function word", "function word", "symbol, number", "symbol, number",
        "disease", "drug", "examination", "other", "other", "", "symbol, number",
    ]  # fmt: skip
    assert found.names[0] == "special" and found.names[-1] == "other"
    assert sum(found.counts().values()) == 13


def test_particles_and_auxiliaries_are_function_words_whatever_else_they_can_be() -> None:
    function = [
        "は",
        "の",
        "が",
        "に",
        "と",
        "し",
        "ない",
        "なかっ",
        "です",
        "られ",
        "について",
        "または",
        "及び",
        "この",
        "ている",
    ]
    assert [word for word in function if not is_function_word(word)] == []
    content = ["肺炎", "投与", "する", "高い", "患者", "mg", "こと", "ワ", "the", "ゆっくり", "、", "7"]
    assert [word for word in content if is_function_word(word)] == []


def test_symbols_have_no_letters() -> None:
    assert all(map(is_symbol, ["%", "→", "(", "十二", "2.5", "\n", "①"]))
    assert not any(map(is_symbol, ["%値", "a", "ー", "三角", "β"]))


def test_rare_kinds_of_lists_share_one_name_and_own_names_are_not_taken() -> None:
    kinds = ["byte", "a", "b", "c", "d", "e", "f"]
    words = {f"{kind}語{number}": kind for place, kind in enumerate(kinds) for number in range(9 - place)}
    found = kinds_of(embeddings(list(words)), words)
    assert found.names == ("byte (list)", "a", "b", "c", "d", "other term")
    assert found.counts()["other term"] == 4 + 3


def test_word_lists_of_several_forms_the_earliest_decides(tmp_path: Path) -> None:
    lexicon = tmp_path / "lexicon"
    lexicon.mkdir()
    (lexicon / "terms.tsv").write_text(
        'surface\treading\tkind\tsource\n肺炎\tはいえん\tdisease\tx\n5"管\t\tdevice\tx\n'
    )
    (tmp_path / "drugs.csv").write_text("\ufeffID,名称\r\n1,アスピリン\r\n2,肺炎\r\n3\r\n4,ＣＴ\r\n", "utf-8")
    words = read_words([lexicon, tmp_path / "drugs.csv"])
    assert words == {"肺炎": "disease", '5"管': "device", "アスピリン": "drugs", "CT": "drugs"}


def test_a_list_without_terms_is_told_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("code,price\n1,2\n")
    with pytest.raises(UserError, match=r"x\.csv:1: no column with terms"):
        read_words([tmp_path / "x.csv"])
    (tmp_path / "y.csv").write_bytes("病名\n肺炎\n".encode("cp932"))
    with pytest.raises(UserError, match=r"y\.csv: the word list cannot be read"):
        read_words([tmp_path / "y.csv"])


def test_a_kind_that_lies_together_stands_out_and_a_scattered_one_does_not() -> None:
    draw = np.random.default_rng(1)
    points = draw.normal(size=(400, 8)).astype("f4")
    points[:60] += 4  # the first kind lies apart
    labels = np.array([0] * 60 + [1] * 140 + [2] * 199 + [3], np.int16)
    labels[60:] = draw.permutation(labels[60:])
    found = Kinds(("apart", "scattered", "rest", "single"), labels)
    rows = together(found, neighbours(points, 15).places, np.arange(400), 199, 1)
    assert [row["kind"] for row in rows] == ["apart", "scattered", "rest"]
    apart, scattered, _ = rows
    assert apart["share"] > 0.95 and apart["p_value"] == 1 / 200
    assert apart["chance"] == pytest.approx(59 / 399)
    for row in rows:
        low, high = row["chance_interval"]
        assert low < row["chance"] < high
    low, high = scattered["chance_interval"]
    assert scattered["share"] < high + 0.1  # its neighbours are scattered and rest only
    assert together(found, neighbours(points, 15).places, np.arange(400), 199, 1) == rows


def test_the_share_is_counted_as_one_would_by_hand() -> None:
    places = np.array([[1, 2], [0, 2], [0, 3], [2, 1]], np.int32)
    found = Kinds(("a", "b"), np.array([0, 0, 1, 1, -1], np.int16))
    a, b = together(found, places, np.arange(4), 99, 1)
    assert a["share"] == pytest.approx((1 / 2 + 1 / 2) / 2)
    assert b["share"] == pytest.approx((1 / 2 + 1 / 2) / 2)
    assert a["chance"] == pytest.approx(1 / 3)


def test_range_and_p_are_those_of_the_shuffles_and_ties_count() -> None:
    draw = np.random.default_rng(3)
    labels = np.array([0] * 9 + [1] * 21, np.int16)
    places = np.array([draw.permutation(np.delete(np.arange(30), own))[:3] for own in range(30)], np.int32)
    found = Kinds(("a", "b"), labels)
    (row, _), again = together(found, places, np.arange(30), 199, 5), np.random.default_rng([5, 1])
    shares = []
    for shuffled in [labels, *(again.permutation(labels) for _ in range(199))]:
        own = shuffled == 0
        shares.append(own[places[own]].mean())
    low, high = np.quantile(shares[1:], [0.025, 0.975])
    assert row["chance_interval"] == pytest.approx([low, high])
    assert row["share"] == pytest.approx(shares[0])
    ties = np.isclose(shares[1:], shares[0])
    assert ties.sum() > 5
    assert row["p_value"] == pytest.approx((1 + (ties | (np.array(shares[1:]) > shares[0])).sum()) / 200)


def test_small_kinds_are_asked_whole_and_large_ones_in_part() -> None:
    labels = np.repeat(np.array([0, 1, 2], np.int16), [5, 300, 695])
    assert asked(labels, 1000, 1).tolist() == list(range(1000))
    some = asked(labels, 205, 1)
    assert np.bincount(labels[some]).tolist() == [5, 100, 100] and (np.diff(some) > 0).all()
    assert not np.array_equal(some, asked(labels, 205, 2))
    points = np.random.default_rng(1).normal(size=(1000, 6)).astype("f4")
    points[labels == 1] += 2
    kinds, tokens = Kinds(("a", "b", "c"), labels), np.arange(1000)
    every = together(kinds, neighbours(points, 15).places, tokens, 99, 1)
    part = together(kinds, neighbours(points, 15, of=some).places, tokens, 99, 1, some)
    for one, other in zip(every, part, strict=True):
        assert (one["tokens"], one["chance"]) == (other["tokens"], other["chance"])
        assert one["share"] == pytest.approx(other["share"], abs=0.05)
    assert every[0]["share"] == pytest.approx(part[0]["share"])
