"""GGUF files: number forms, what stands in the header, the vocabulary, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from export.conftest import our_model
from rinsho.chat import CHAT_TOKENS, TEMPLATE
from rinsho.errors import UserError
from rinsho.export.gguf_file import About, write_gguf
from rinsho.export.gguf_tensors import interleaved, rope_factors
from rinsho.export.gguf_tokenizer import (
    BYTE,
    CONTROL,
    NORMAL,
    UNKNOWN,
    UNUSED,
    USER_DEFINED,
    plain_template,
    vocabulary,
)
from rinsho.export.gguf_types import form_of
from rinsho.export.weights import Weights, open_weights

gguf = pytest.importorskip("gguf")
ABOUT = About("a name", "cc-by-4.0")


def read(path: Path) -> Any:
    return gguf.GGUFReader(path)


def write(folder: Path, path: Path, flavour: Any = "llama", type_: Any = "q8_0", about: About = ABOUT) -> Any:
    write_gguf(open_weights(folder), path, flavour, type_, about)
    return read(path)


def changed(folder: Path, tmp_path: Path, **config: Any) -> Path:
    """The folder with other settings."""
    copy = tmp_path / "changed"
    shutil.copytree(folder, copy)
    settings = json.loads((folder / "config.json").read_text()) | config
    (copy / "config.json").write_text(json.dumps(settings))
    return copy


@pytest.mark.parametrize(
    ("name", "shape", "type_", "zero", "expected"),
    [
        ("blk.0.attn_norm.weight", (256,), "q4_0", False, "F32"),
        ("blk.0.attn_q.weight", (8, 256), "f16", False, "F16"),
        ("blk.0.attn_q.weight", (8, 256), "q4_0", False, "Q4_0"),
        ("blk.0.attn_q.weight", (8, 40), "q4_0", False, "F16"),  # no whole number of blocks
        ("output.weight", (8, 256), "q4_0", False, "Q8_0"),
        ("blk.0.ffn_up.weight", (8, 512), "q8_0", True, "TQ2_0"),
        ("blk.0.ffn_up.weight", (8, 320), "q8_0", True, "Q4_0"),
        ("blk.0.ffn_up.weight", (8, 512), "f16", True, "F16"),
    ],
)  # fmt: skip
def test_the_number_form_of_a_tensor(name: str, shape: Any, type_: Any, zero: bool, expected: str) -> None:
    assert form_of(name, shape, type_, zero).name == expected


def test_the_llama_flavour_has_a_gate_and_a_zero_up_matrix_of_few_bits(tmp_path: Path) -> None:
    reader = write(our_model(tmp_path / "m", hidden_size=256, steps=0), tmp_path / "a.gguf")
    tensors = {row.name: row for row in reader.tensors}
    up, gate = tensors["blk.0.ffn_up.weight"], tensors["blk.0.ffn_gate.weight"]
    assert up.tensor_type.name == "TQ2_0" and gate.tensor_type.name == "Q8_0"
    assert not gguf.quants.dequantize(up.data, up.tensor_type).any()
    assert (tensors["blk.0.ffn_up.bias"].data == 1).all()
    assert up.n_bytes * 4 < gate.n_bytes


def test_the_mimo2_flavour_has_no_gate(ours: Path, tmp_path: Path) -> None:
    reader = write(ours, tmp_path / "a.gguf", "mimo2", "f16")
    names = {row.name for row in reader.tensors}
    assert "blk.0.ffn_up.weight" in names and not any("gate" in name or "bias" in name for name in names)
    fields = {name: field.contents() for name, field in reader.fields.items()}
    assert fields["general.architecture"] == "mimo2"
    assert fields["mimo2.attention.sliding_window"] == fields["mimo2.context_length"] == 128
    assert fields["mimo2.attention.sliding_window_pattern"] == [True, False]


@pytest.mark.parametrize("type_", ["f16", "q8_0", "q4_0"])
def test_the_weights_are_those_of_the_model(ours: Path, tmp_path: Path, type_: str) -> None:
    weights = open_weights(ours)
    tensors = {row.name: row for row in write(ours, tmp_path / "a.gguf", "mimo2", type_).tensors}
    wanted = weights["model.layers.1.mlp.down_proj.weight"].numpy()
    row = tensors["blk.1.ffn_down.weight"]
    found = gguf.quants.dequantize(row.data, row.tensor_type)
    assert found.shape == wanted.shape
    assert np.abs(found - wanted).max() < {"f16": 1e-3, "q8_0": 0.01, "q4_0": 0.15}[type_] * np.abs(wanted).max()


def test_query_rows_are_turned_for_llama_cpp() -> None:
    heads = torch.arange(8.0)[:, None]  # two heads of four: halves 0 1 | 2 3
    assert interleaved(heads, 4).flatten().tolist() == [0, 2, 1, 3, 4, 6, 5, 7]
    assert interleaved(torch.arange(4.0), 4).tolist() == [0, 2, 1, 3]  # a bias


def test_the_same_model_gives_the_same_bytes(ours: Path, tmp_path: Path) -> None:
    about = About("n", "", vocabulary(ours, 400), {"bos": 1}, TEMPLATE)
    for name in ("a", "b"):
        write(ours, tmp_path / f"{name}.gguf", about=about)
    assert (tmp_path / "a.gguf").read_bytes() == (tmp_path / "b.gguf").read_bytes()


def test_matrices_are_written_some_rows_at_a_time(ours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(ours, tmp_path / "a.gguf", type_="q4_0")
    monkeypatch.setattr("rinsho.export.gguf_types.ROWS_BYTES", 1)
    write(ours, tmp_path / "b.gguf", type_="q4_0")
    assert (tmp_path / "a.gguf").read_bytes() == (tmp_path / "b.gguf").read_bytes()


def test_the_header_names_the_model(ours: Path, tmp_path: Path) -> None:
    fields = write(ours, tmp_path / "a.gguf").fields
    said = {name: fields[f"general.{name}"].contents() for name in ("architecture", "name", "license", "file_type")}
    assert said == {"architecture": "llama", "name": "a name", "license": "cc-by-4.0", "file_type": 7}
    assert fields["tokenizer.ggml.model"].contents() == "no_vocab"


def test_the_vocabulary_is_ours(ours: Path) -> None:
    rows = int(open_weights(ours).config["vocab_size"])
    found = vocabulary(ours, rows + 2)
    kinds = dict(zip(found.pieces, found.kinds, strict=True))
    assert len(kinds) == rows + 2 == len(found.scores)  # each piece is another one
    assert kinds["<unk>"] == UNKNOWN and kinds["\n"] == USER_DEFINED and kinds["<0xE3>"] == BYTE
    assert {kinds[token] for token in ("<|begin_of_text|>", "<|end_of_text|>", *CHAT_TOKENS)} == {CONTROL}
    assert found.kinds[-2:] == [UNUSED, UNUSED]
    assert kinds["患者"] == NORMAL and found.scores[found.pieces.index("患者")] < 0


def test_the_template_renders_without_marks_that_only_transformers_knows() -> None:
    assert "generation %}" in TEMPLATE and "generation %}" not in plain_template(TEMPLATE)
    assert "{% if add_generation_prompt %}" in plain_template(TEMPLATE)


def test_what_has_no_gguf_form_is_refused(ours: Path, llama: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="a Llama has a gate"):
        write(llama, tmp_path / "a.gguf", "mimo2")
    with pytest.raises(UserError, match=r"no GGUF form of the architecture gpt2.*convert_hf_to_gguf"):
        write(changed(ours, tmp_path, model_type="gpt2"), tmp_path / "a.gguf")


def test_squared_relu_is_refused(ours: Path, tmp_path: Path) -> None:
    """What llama.cpp computes for `arcee`; a model that is meant so has no form of ours."""
    with pytest.raises(UserError, match="relu2"):
        write(changed(ours, tmp_path, hidden_act="relu2"), tmp_path / "a.gguf")


def test_a_rotary_embedding_that_is_not_known_is_refused(llama: Path, tmp_path: Path) -> None:
    rope = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0}
    with pytest.raises(UserError, match="rotary embedding of the kind yarn"):
        write(changed(llama, tmp_path, rope_parameters=rope), tmp_path / "a.gguf")


def test_llama_3_rope_factors_are_those_of_transformers() -> None:
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    rope = {
        "rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }  # fmt: skip
    config = LlamaConfig(hidden_size=128, num_attention_heads=2, rope_parameters=rope, max_position_embeddings=16384)
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, "cpu")
    plain = 1 / 500000.0 ** (torch.arange(0, 64, 2) / 64)
    factors = rope_factors(Weights(Path(), config.to_dict(), {}, {}))
    assert factors is not None
    torch.testing.assert_close(plain / factors, scaled, rtol=1e-5, atol=0)
