"""The embeddings of a model folder, out of its files, against what transformers opens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rinsho.analyse.embeddings import read, read_matrix, read_tokens, readable
from rinsho.errors import UserError
from toy_models import WORDS, toy_folder, toy_model, toy_tokenizer

torch = pytest.importorskip("torch")


def folder_of(folder: Path, model: Any, dtype: str = "float32", **saving: Any) -> Path:
    model.to(getattr(torch, dtype)).save_pretrained(folder, **saving)
    toy_tokenizer().save_pretrained(folder)
    return folder


def test_both_matrices_and_every_token_as_transformers_has_them(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = toy_folder(tmp_path / "m")
    found, head = read(folder), read(folder, "output")
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    assert np.array_equal(found.vectors, model.get_input_embeddings().weight.detach().numpy())
    assert np.array_equal(head.vectors, model.get_output_embeddings().weight.detach().numpy())
    assert not np.array_equal(found.vectors, head.vectors)
    assert found.vectors.dtype == np.float32 and len(found) == len(tokenizer)
    for id_, (token, form) in enumerate(zip(found.tokens, found.forms, strict=True)):
        if form == "text":
            assert token == tokenizer.decode([id_])
        assert (form == "special") == (id_ in tokenizer.all_special_ids)
    assert found.forms.count("byte") == 256 and found.tokens[3] == "<0x00>"
    assert set(found.tokens) >= {word.replace("▁", " ") for word in WORDS}


def test_bfloat16_and_shards_give_the_rounded_numbers(tmp_path: Path) -> None:
    model = toy_model(300)
    wanted = model.get_input_embeddings().weight.detach().to(torch.bfloat16).float().numpy()
    folder = folder_of(tmp_path / "m", model, "bfloat16", max_shard_size="20KB")
    assert len(list(folder.glob("*.safetensors"))) > 1
    assert np.array_equal(read_matrix(folder), wanted)


def test_a_tied_head_is_the_input_embedding_and_rows_without_token_are_unused(tmp_path: Path) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    size = len(toy_tokenizer()) + 7
    folder = folder_of(tmp_path / "m", GPT2LMHeadModel(GPT2Config(vocab_size=size, n_embd=16, n_layer=1, n_head=2)))
    found = read(folder, "output")
    assert found.vectors.shape == (size, 16)
    assert found.forms[-7:] == ("unused",) * 7 and found.tokens[-1] == ""
    assert np.array_equal(found.vectors, read(folder).vectors)


def test_an_adapter_has_the_embeddings_of_its_base(tmp_path: Path) -> None:
    base = toy_folder(tmp_path / "base")
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "../base"}))
    (adapter / "adapter_model.safetensors").write_bytes(b"")
    assert np.array_equal(read(adapter).vectors, read(base).vectors)


def test_pieces_of_a_byte_level_vocabulary_are_text_or_bytes(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(), decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<s>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer.train_from_iterator(["肺炎 肺炎 of the lung of the"] * 9, trainer)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    rows = tokenizer.get_vocab_size()
    tokens, forms = read_tokens(tmp_path, rows)
    assert forms[0] == "special" and "byte" in forms
    assert {" 肺炎", " of", " the", " "} <= set(tokens)
    for id_ in range(1, rows):
        if forms[id_] == "text":
            assert tokens[id_] == tokenizer.decode([id_])
        else:
            assert tokens[id_].startswith("<0x")


def test_what_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no model in here"):
        read(tmp_path)
    folder = toy_folder(tmp_path / "m")
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 3])
    with pytest.raises(UserError, match="weights cannot be read"):
        read(folder)
    weights.write_bytes(whole[:4])
    with pytest.raises(UserError, match="weights cannot be read"):
        read(folder)
    weights.unlink()
    with pytest.raises(UserError, match="no weights as safetensors"):
        read(folder)
    weights.write_bytes(whole)
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(UserError, match="no tokenizer"):
        read(folder)


def test_a_quantised_embedding_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    (tmp_path / "config.json").write_text('{"vocab_size": 8}')
    save_file({"model.embed_tokens.weight": torch.zeros((8, 4), dtype=torch.int8)}, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match="number form I8"):
        read_matrix(tmp_path)


def test_embeddings_of_a_diverged_model_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    (tmp_path / "config.json").write_text('{"vocab_size": 8}')
    broken = torch.zeros((8, 4), dtype=torch.bfloat16)
    broken[3, 2] = float("nan")
    save_file({"model.embed_tokens.weight": broken}, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match="no numbers"):
        read_matrix(tmp_path)


def test_readable_shows_what_cannot_be_seen() -> None:
    assert readable("\t \u3000\x07\u200b") == "⇥␣□<U+0007><U+200B>"
