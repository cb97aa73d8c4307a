"""GGUF files of tiny models, written by the `gguf` package alone: what the decoder is tested with is not our export."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "user.dic", "rinsho.json", "train_documents.txt")  # fmt: skip


def our_folder(folder, seed=1, window=256, spread=6.0, chat=True):
    """A random model of ours with our tokenizer (plain form); a wide spread makes its answers vary."""
    import torch

    from rinsho.model import ModelSettings, build
    from rinsho.model_folder import save_folded
    from rinsho.tokenization import add_chat_tokens, wrap
    from tokenization.samples import vocabulary

    tokenizer = wrap(vocabulary(), segment="plain")
    if chat:
        add_chat_tokens(tokenizer)
    settings = ModelSettings(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
        max_position_embeddings=window,
    )  # fmt: skip
    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    model = build(settings, len(tokenizer), seed, pad_token_id=tokenizer.eos_token_id, **ids)
    with torch.no_grad():
        for name, matrix in model.named_parameters():
            if matrix.ndim == 2 and "embed" not in name:
                matrix.mul_(spread)
        model.lm_head.weight[4:260] *= 0.2  # bytes seldom: answers are mostly words
    save_folded(model, tokenizer, folder, {"stage": "pretrain"})
    return folder


def write_gguf(model, file, form="f32", architecture="llama", **metadata):
    """A model folder of ours, or of a Llama, as a GGUF file in the llama flavour."""
    pytest.importorskip("gguf")
    from gguf import GGMLQuantizationType, GGUFWriter, quants
    from safetensors.numpy import load_file

    config = json.loads((model / "config.json").read_text())
    weights = {}
    for shard in model.glob("*.safetensors"):
        weights |= load_file(shard)
    size, heads, layers = config["hidden_size"], config["num_attention_heads"], config["num_hidden_layers"]
    shared = config["num_key_value_heads"]
    gated = config["model_type"] == "llama"
    file.parent.mkdir(parents=True, exist_ok=True)
    writer = GGUFWriter(file, architecture)
    kind = {"f32": 0, "f16": 1, "q8_0": 7}[form]
    writer.add_file_type(kind)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(size)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(shared)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    writer.add_rope_dimension_count(size // heads)
    writer.add_vocab_size(config["vocab_size"])
    writer.add_tokenizer_model("no_vocab")
    for key, value in metadata.items():
        writer.add_string(key, value)

    def add(name, values):
        wanted = GGMLQuantizationType[form.upper()] if values.ndim == 2 else GGMLQuantizationType.F32
        writer.add_tensor(name, quants.quantize(values.astype(np.float32), wanted), raw_dtype=wanted)

    def turned(values, count):  # llama.cpp's llama has the halves of a head's rotation side by side
        return values.reshape(count, 2, -1, values.shape[1]).swapaxes(1, 2).reshape(values.shape)

    add("token_embd.weight", weights["model.embed_tokens.weight"])
    add("output.weight", weights["lm_head.weight"])
    add("output_norm.weight", weights["model.norm.weight"])
    for layer in range(layers):
        of = {name.split(f".{layer}.", 1)[1].removesuffix(".weight"): tensor for name, tensor in weights.items() if f"layers.{layer}." in name}  # fmt: skip
        here = f"blk.{layer}."
        add(here + "attn_norm.weight", of["input_layernorm"])
        add(here + "ffn_norm.weight", of["post_attention_layernorm"])
        add(here + "attn_q.weight", turned(of["self_attn.q_proj"], heads))
        add(here + "attn_k.weight", turned(of["self_attn.k_proj"], shared))
        add(here + "attn_v.weight", of["self_attn.v_proj"])
        add(here + "attn_output.weight", of["self_attn.o_proj"])
        add(here + "ffn_down.weight", of["mlp.down_proj"])
        if gated:
            add(here + "ffn_gate.weight", of["mlp.gate_proj"])
            add(here + "ffn_up.weight", of["mlp.up_proj"])
        else:  # silu(W1 x) * 1
            width = config["intermediate_size"]
            add(here + "ffn_gate.weight", of["mlp.up_proj"])
            add(here + "ffn_up.weight", np.zeros((width, size), np.float32))
            add(here + "ffn_gate.bias", np.zeros(width, np.float32))
            add(here + "ffn_up.bias", np.ones(width, np.float32))
            add(here + "ffn_down.bias", np.zeros(size, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def export(model, folder, *forms):
    """A folder as an export has it: the files, and the tokenizer's and rinsho.json beside them."""
    for form in forms or ("f32",):
        write_gguf(model, Path(folder) / f"model-{form}.gguf", form)
    for name in TOKENIZER:
        if (model / name).is_file():
            shutil.copy(model / name, folder)
    return Path(folder)
