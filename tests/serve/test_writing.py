"""rinsho.serve.writing: text in whole characters, stop strings across pieces, and which ids belong to which text."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rinsho.generate.jobs import Token
from rinsho.generate.spans import piece_bytes
from rinsho.serve.writing import Writer, joined
from toy_models import toy_tokenizer

BYTES = [bytes([value]) for value in range(256)]


def written(vocabulary: list[bytes | None], ids: list[int], stops: tuple[str, ...] = ()) -> tuple[list[str], Writer]:
    writer = Writer(vocabulary, stops)
    pieces = []
    for index in ids:
        if piece := writer.push(index):
            pieces.append(piece)
        if writer.stopped:
            break
    if last := writer.close():
        pieces.append(last)
    return [piece.text for piece in pieces], writer


def test_characters_come_whole() -> None:
    pieces, _ = written(BYTES, list("肺a癌".encode()))
    assert pieces == ["肺", "a", "癌"]
    assert written(BYTES, list("肺癌".encode()[:-1]))[0] == ["肺", "\ufffd"]
    assert written(BYTES, [0xFF, 0x41])[0] == ["\ufffd", "A"]
    assert written([None, b"A"], [0, 1, 7])[0] == ["A"]  # special tokens and ids beyond the tokenizer write nothing


@given(st.text(max_size=30), st.lists(st.text(min_size=1, max_size=4), max_size=3), st.data())
def test_the_text_is_that_of_the_whole_up_to_the_first_stop(text: str, stops: list[str], data: Any) -> None:
    """However it comes in pieces; nothing behind the earliest stop string is ever shown."""
    raw = text.encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=6)))
    parts = [raw[a:b] for a, b in zip([0, *cuts], [*cuts, len(raw)], strict=True)]
    pieces, writer = written(list(parts), list(range(len(parts))), tuple(stops))
    ends = [place for place in (text.find(stop) for stop in stops) if place >= 0]
    shown = "".join(pieces)
    if not ends:
        assert shown == text and not writer.stopped
    else:  # a stop that is whole earlier in time may begin later in the text than one that contains it
        assert writer.stopped and text.startswith(shown) and min(ends) <= len(shown) < len(text)
        assert not any(stop in shown for stop in stops)
        assert any(text.startswith(stop, len(shown)) for stop in stops)


def test_what_may_be_a_stop_is_held_back() -> None:
    writer = Writer([b"ab", b"c", b"d"], ("bcd",))
    shown = [writer.push(0), writer.push(1), writer.push(2)]
    assert [piece and piece.text for piece in shown] == ["a", None, None]
    assert writer.stopped and writer.close() is None
    writer = Writer([b"ab", b"c", b"x"], ("bcd",))
    shown = [writer.push(0), writer.push(1), writer.push(2)]
    assert [piece and piece.text for piece in shown] == ["a", None, "bcx"] and not writer.stopped


def test_ids_come_with_the_text_that_they_begin_in() -> None:
    writer = Writer([*BYTES, b"ab"], ("bX",))
    pieces = [writer.push(index, Token(-1.0)) for index in [*"肺".encode(), 256, ord("c")]]
    assert [piece and (piece.text, [(told.index, told.start) for told in piece.told]) for piece in pieces] == [
        None,
        None,
        ("肺", [(0xE8, 0), (0x82, 0), (0xBA, 0)]),
        ("a", [(256, 1)]),
        ("bc", [(ord("c"), 3)]),
    ]
    assert joined([piece for piece in pieces if piece]).text == "肺abc"
    writer = Writer([b"a", None], ())
    assert writer.push(0, Token(-1.0)) and writer.push(1, Token(-2.0)) is None
    last = writer.close()
    assert last is not None and [told.index for told in last.told] == [1]


@pytest.mark.parametrize("word", ["発熱", "▁", "肺癌", "\n", "['"])
def test_pieces_are_what_the_tokenizer_decodes(word: str) -> None:
    tokenizer = toy_tokenizer()
    ids = [tokenizer.convert_tokens_to_ids(word), tokenizer.convert_tokens_to_ids("発熱")]
    assert "".join(written(piece_bytes(tokenizer), ids)[0]) == tokenizer.decode(ids)


def test_the_space_that_a_tokenizer_leaves_out() -> None:
    class Dropping:
        def decode(self, ids: list[int], **_: Any) -> str:
            return "あ"

    writer = Writer(["▁あ".replace("▁", " ").encode()], (), Dropping())
    first, second = writer.push(0), writer.push(0)
    assert first is not None and second is not None and (first.text, second.text) == ("あ", " あ")
