"""Sentences: brackets hold together, nothing is lost, linear time."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rinsho.text import sentences


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("発熱あり。咳なし。", ["発熱あり。", "咳なし。"]),
        ("「痛い。帰る。」と言った。次。", ["「痛い。帰る。」と言った。", "次。"]),
        ("（前医では肺炎。詳細不明。）と診断。", ["（前医では肺炎。詳細不明。）と診断。"]),
        ("痛い！？本当！そう", ["痛い！？", "本当！", "そう"]),
        ("発熱あり（38℃。咳あり。", ["発熱あり（38℃。", "咳あり。"]),
        ("閉じだけ」。次。", ["閉じだけ」。", "次。"]),
        ("a?b=c と !=。", ["a?b=c と !=。"]),
        ("一行目\n\n 二行目 \n", ["一行目", "二行目"]),
        ("0.4mgを投与。SpO2 96%", ["0.4mgを投与。", "SpO2 96%"]),
        ("", []),
    ],
)
def test_examples(text: str, expected: list[str]) -> None:
    assert sentences(text) == expected


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="あ。！？!?「」（）()\n a=", max_size=40))
def test_nothing_is_lost(text: str) -> None:
    assert "".join("".join(sentences(text)).split()) == "".join(text.split())


@pytest.mark.parametrize("piece", ["「", "。", "あ。", "「あ。」", "!", "あ", "」"])
def test_linear_time(piece: str) -> None:
    started = time.process_time()
    sentences(piece * (1_000_000 // len(piece)))
    assert time.process_time() - started < 3
