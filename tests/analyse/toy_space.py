"""A model folder whose embedding holds planted analogies; made without torch."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from rinsho.analyse.analogy_space import Space, space
from rinsho.analyse.embeddings import Embeddings
from toy_models import toy_tokenizer

WIDTH = 24
# word: the axes it is the sum of. 肺癌 is to 肺 as 心筋梗塞 is to 心, and as 咳嗽 is to 咳.
PLANTED = {
    "肺": (0,), "肺癌": (0, 3), "心": (1,), "心筋梗塞": (1, 3), "咳": (2,), "咳嗽": (2, 3),
    "熱": (4,), "発熱": (4, 3), "急": (5,), "急性": (5, 3), "癌": (6,), "筋": (7,),
}  # fmt: skip


def planted(tokens: list[str]) -> np.ndarray:
    """(tokens, WIDTH) float32: planted words, small noise for the others."""
    rng = np.random.default_rng(5)
    vectors = rng.normal(size=(len(tokens), WIDTH)).astype(np.float32)
    vectors[:, :8] = 0.01 * vectors[:, :8]
    for word, axes in PLANTED.items():
        vectors[tokens.index(word)] = 0
        vectors[tokens.index(word), list(axes)] = 1
    return vectors


def toy_embeddings() -> Embeddings:
    """Of the toy tokenizer."""
    tokenizer = toy_tokenizer()
    names = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    special = set(tokenizer.all_special_ids)
    forms = [
        "special" if id_ in special else "byte" if name.startswith("<0x") else "text" for id_, name in enumerate(names)
    ]
    tokens = [name.replace("▁", " ") for name in names]
    return Embeddings(planted(tokens), tuple(tokens), tuple(forms))


def toy_space(**options: object) -> Space:
    """Not centred where not asked for: so cosines follow from PLANTED by hand."""
    return space(toy_embeddings(), toy_tokenizer(), **{"centred": False, **options})


def toy_folder(folder: Path) -> Path:
    """The same as a model folder."""
    folder.mkdir(parents=True, exist_ok=True)
    vectors = toy_embeddings().vectors
    toy_tokenizer().save_pretrained(folder)
    shape = {"vocab_size": len(vectors), "hidden_size": WIDTH, "num_attention_heads": 4, "num_key_value_heads": 4}
    config = {"model_type": "llama", **shape, "tie_word_embeddings": True}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    save_file({"model.embed_tokens.weight": vectors}, folder / "model.safetensors")
    return folder
