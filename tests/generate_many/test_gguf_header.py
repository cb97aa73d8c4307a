"""Headers that were written by hand: none makes anything but a number that is known, or an error that says what."""

import struct

import pytest

from rinsho.errors import UserError
from rinsho.generate import llama
from rinsho.gguf_header import read_header
from rinsho.memory import needs, settle

NUMBER, FLOAT, TEXT, ARRAY = 4, 6, 8, 9


def text(value):
    data = value if isinstance(value, bytes) else value.encode()
    return struct.pack("<Q", len(data)) + data


def texts(*values):
    return struct.pack("<IQ", TEXT, len(values)) + b"".join(map(text, values))


def number(value):
    return struct.pack("<I", value)


def real(value):
    return struct.pack("<f", value)


def header(folder, *entries, tensors=b"", count=0):
    """A file with these (key, type, bytes) behind the name of the architecture, and no weights."""
    entries = (("general.architecture", TEXT, text("llama")), *entries)
    written = b"".join(text(key) + number(kind) + value for key, kind, value in entries)
    file = folder / "toy.gguf"
    file.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, count, len(entries)) + written + tensors + bytes(64))
    return file


NESTED = struct.pack("<IQ", ARRAY, 1) * 3_000 + struct.pack("<IQ", 0, 0)
DAMAGED = [
    ("array of arrays", "a", ARRAY, NESTED),
    ("split.count", "split.count", TEXT, text("2")),
    ("context_length", "llama.context_length", TEXT, text("x")),
    ("context_length", "llama.context_length", FLOAT, real(float("nan"))),
    ("context_length", "llama.context_length", ARRAY, struct.pack("<IQI", NUMBER, 1, 9)),
    ("context_length", "llama.context_length", 5, struct.pack("<i", -1)),
    ("block_count", "llama.block_count", TEXT, text("x")),
    ("head_count_kv", "llama.attention.head_count_kv", ARRAY, texts("x")),
]


@pytest.mark.parametrize(("what", "key", "kind", "value"), DAMAGED)
def test_entries_of_another_type_are_told(what, key, kind, value, tmp_path):
    with pytest.raises(UserError, match=rf"damaged: .*{what}"):
        settle(header(tmp_path, (key, kind, value)))


def test_layers_may_have_numbers_of_their_own(tmp_path):
    file = header(
        tmp_path, ("llama.context_length", NUMBER, number(256)), ("llama.block_count", NUMBER, number(3)),
        ("llama.embedding_length", NUMBER, number(64)), ("llama.attention.head_count", NUMBER, number(4)),
        ("llama.attention.head_count_kv", ARRAY, struct.pack("<IQ3I", NUMBER, 3, 1, 2, 1)),
    )  # fmt: skip
    assert needs(file)[0].cache_bytes == 256 * (1 + 2 + 1) * (16 + 16) * 2


def test_tensors_of_no_and_of_many_dimensions(tmp_path):
    rest = struct.pack("<IQ", 0, 0)
    settle(header(tmp_path, tensors=text("token_embd.weight") + number(0) + rest, count=1))
    many = text("token_embd.weight") + number(9) + struct.pack("<9Q", *[1] * 9) + rest
    with pytest.raises(UserError, match="9 dimensions"):
        settle(header(tmp_path, tensors=many, count=1))


EPSILON = "llama.attention.layer_norm_rms_epsilon"


@pytest.mark.parametrize(
    ("what", "key", "kind", "value"),
    [
        ("0 layers", "llama.block_count", NUMBER, number(0)),
        ("513 layers", "llama.block_count", NUMBER, number(513)),
        ("rms_epsilon is nan", EPSILON, FLOAT, real(float("nan"))),
        ("rms_epsilon is inf", EPSILON, FLOAT, real(float("inf"))),
        ("rms_epsilon is -1.0", EPSILON, FLOAT, real(-1)),
        ("rms_epsilon is x", EPSILON, TEXT, text("x")),
        ("there twice", "tokenizer.ggml.tokens", ARRAY, texts("a", "b", "a")),
        ("there twice", "tokenizer.ggml.tokens", ARRAY, texts("a", b"a\0b")),
        ("no texts", "tokenizer.ggml.tokens", ARRAY, struct.pack("<IQI", NUMBER, 1, 9)),
    ],
)
def test_what_llama_cpp_ends_the_process_over_is_refused(what, key, kind, value, tmp_path, monkeypatch):
    monkeypatch.setattr(llama, "_library", lambda: pytest.fail("llama.cpp would have seen it"))
    with pytest.raises(UserError, match=f"damaged: .*{what}"):
        llama.LlamaDecoder(header(tmp_path, (key, kind, value)))


def test_tokens_that_differ_in_bytes_alone_and_empty_ones_are_not_twice(tmp_path):
    entries = ("tokenizer.ggml.tokens", ARRAY, texts("", "", "a", b"\xff", b"\xfe", "\0"))
    assert not llama._deadly(read_header(header(tmp_path, entries)))


def test_threads_that_are_no_number_are_not_counted(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    for told, wanted in (("1", 1), ("²", llama._threads()), ("0", llama._threads())):
        monkeypatch.setenv("OMP_NUM_THREADS", told)
        assert llama._threads() == wanted
