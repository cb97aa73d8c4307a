"""Tiny tokenizers whose figures can be worked out by hand, and texts for them."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from rinsho.document import Document, write_documents
from rinsho.segmentation import alone_characters
from rinsho.tokenization import wrap
from rinsho.tokenization.backend import CONTROLS

# 患者 は 発熱 。 are words of MeCab; は発熱 is what only the plain form can use
PIECES = {"患者": -1.0, "は": -1.0, "発熱": -1.0, "。": -1.0, "肺炎": -1.0, "は発熱": -1.5, "熱": -9.0, "発": -9.0}

Folders = Mapping[str, Path]
WriteTexts = Callable[..., Path]


def _vocabulary() -> list[tuple[str, float]]:
    fixed = [*CONTROLS, *(f"<0x{byte:02X}>" for byte in range(256)), *alone_characters(True)]
    return [(piece, 0.0) for piece in fixed] + list(PIECES.items())


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    """Tokenizer folders: ours in both forms, and stock ones of Hugging Face; `bert` is slow, without offsets."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    root = tmp_path_factory.mktemp("tokenizers")
    wrap(_vocabulary(), segment="strict").save_pretrained(root / "strict")
    wrap(_vocabulary(), segment="plain").save_pretrained(root / "strict" / "plain")

    words = Tokenizer(models.WordLevel({"[UNK]": 0, "患者は": 1, "発熱": 2, "肺炎": 3}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]").save_pretrained(root / "words")

    pairs = Tokenizer(models.BPE(unk_token="[UNK]"))
    pairs.train_from_iterator(["患者は発熱。"] * 9, trainers.BpeTrainer(vocab_size=40, special_tokens=["[UNK]"]))
    PreTrainedTokenizerFast(tokenizer_object=pairs, unk_token="[UNK]").save_pretrained(root / "pairs")

    letters = Tokenizer(models.BPE())
    letters.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    letters.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    letters.train_from_iterator(["患者"] * 9, trainers.BpeTrainer(vocab_size=262, initial_alphabet=alphabet))
    (root / "letters").mkdir()
    letters.save(str(root / "letters" / "tokenizer.json"))  # and nothing else

    (root / "bert").mkdir()
    (root / "bert" / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *PIECES]))
    slow = {"tokenizer_class": "BertJapaneseTokenizer", "mecab_kwargs": {"mecab_dic": "ipadic"}}
    config = json.dumps(slow | {"word_tokenizer_type": "mecab"})
    (root / "bert" / "tokenizer_config.json").write_text(config)
    return {
        "strict": root / "strict",
        "plain": root / "strict" / "plain",
        "words": root / "words",
        "pairs": root / "pairs",
        "letters": root / "letters",
        "bert": root / "bert",
    }


@pytest.fixture
def write_texts(tmp_path: Path) -> WriteTexts:
    """Writes texts as one shard of a text set; gives its folder."""

    def write(name: str, *texts: str, shard: str = "a", sources: tuple[str, ...] = ()) -> Path:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        rows = [
            Document(text, f"{name}-{shard}{place}", {"source": sources[place]} if sources else {})
            for place, text in enumerate(texts)
        ]
        with (folder / f"{shard}.jsonl.zst").open("wb") as file:
            write_documents(file, rows)
        return folder

    return write
