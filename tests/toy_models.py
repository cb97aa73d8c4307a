"""A tiny tokenizer and tiny random models for tests that need no trained ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rinsho.chat import BEGIN, CHAT_TOKENS, END

WORDS = [
    "肺癌", "発熱", "咳嗽", "急性", "心筋梗塞", "の", "は", "を", "患者", "認め", "疑い", "なし", "。", "、",
    "「", "」", "次", "文章", "肺", "癌", "発", "熱", "咳", "急", "性", "心", "筋", "症", "あり",
    "['", "',", "']", "[", "]", "'", '"', ",", "▁", "\n", "A", "B",
]  # fmt: skip


def toy_tokenizer(chat: bool = True) -> Any:
    """A Unigram tokenizer with byte fallback of about 300 pieces; `encode_text` as ours has it."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers
    from transformers import PreTrainedTokenizerFast

    pieces = [("<unk>", 0.0), (BEGIN, 0.0), (END, 0.0)]
    pieces += [(f"<0x{byte:02X}>", -20.0) for byte in range(256)]
    pieces += [(word, -3.0 - 0.01 * place - 2.0 / len(word)) for place, word in enumerate(WORDS)]
    backend = Tokenizer(models.Unigram(pieces, unk_id=0, byte_fallback=True))
    backend.normalizer = normalizers.Replace(" ", "▁")
    backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=BEGIN,
        eos_token=END,
        pad_token=END,
        unk_token="<unk>",
        clean_up_tokenization_spaces=False,
    )
    if chat:
        tokenizer.add_special_tokens(
            {"additional_special_tokens": [AddedToken(token, special=True) for token in CHAT_TOKENS]}
        )
    return tokenizer


def toy_model(vocab_size: int, seed: int = 1, window: int = 256, spread: float = 0.3) -> Any:
    """A random two-layer Llama-shaped model; a wide spread makes its answers vary."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=window,
        initializer_range=spread,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
        tie_word_embeddings=False,
    )
    return LlamaForCausalLM(config).eval()


def toy_folder(folder: Path, seed: int = 1, window: int = 256, chat: bool = True) -> Path:
    """A model folder with both."""
    tokenizer = toy_tokenizer(chat)
    model = toy_model(len(tokenizer), seed, window)
    model.lm_head.weight.data[3:259] *= 0.2  # bytes seldom: answers are mostly words
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
