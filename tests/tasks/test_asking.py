"""That a model is asked for the very ids that tuning teaches it, whatever its tokenizer does at the start of a text."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from rinsho.chat import Message
from rinsho.chat_template import set_form
from rinsho.tasks import Item, choice_text
from rinsho.tasks.asking import Asking, turns
from rinsho.tasks.item import legal_choices
from toy_models import toy_tokenizer

QUESTION = "次のうち正しいものを一つ選んでください。\n発熱は？"
ITEM = Item("x/1", "jmmlu_med", "choice", "", "答える。", QUESTION, QUESTION, ("ある", "ない", "A 熱"), ("A",), "", "")


def metaspace() -> Any:
    """Puts ▁ before a text, as the tokenizers of SentencePiece do."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    pieces = [("<unk>", 0.0), ("<s>", 0.0), ("</s>", 0.0), *((f"<0x{byte:02X}>", -20.0) for byte in range(256))]
    pieces += [
        (piece, -3.0 - place) for place, piece in enumerate(("▁ある", "ある", "▁", "A", "▁A", "熱", "▁熱", "\n"))
    ]
    backend = Tokenizer(models.Unigram(pieces, unk_id=0, byte_fallback=True))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    backend.decoder = decoders.Metaspace(prepend_scheme="first")
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )  # fmt: skip


def bytes_with_a_space() -> Any:
    """Puts a space before a text, as some byte-level tokenizers do."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<e>"], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    backend.train_from_iterator([f"{QUESTION}\nある\nA ない\nB"], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<e>")


@pytest.mark.parametrize("prompt_form", ["short", "benchmark"])
@pytest.mark.parametrize("form", ["plain", "rinsho"])
@pytest.mark.parametrize("make", [metaspace, bytes_with_a_space, lambda: toy_tokenizer(chat=False)])
def test_asked_are_the_ids_that_were_learned(make: Any, form: str, prompt_form: Any) -> None:
    tokenizer = make()
    render = set_form(tokenizer, form, "tests")
    asking = Asking(SimpleNamespace(tokenizer=tokenizer, window=512), "text_letter", prompt_form=prompt_form)  # type: ignore[arg-type]
    texts = [choice_text(ITEM, letters, "text_letter") for letters in legal_choices(ITEM)]
    for text, option in zip(texts, asking.options(ITEM), strict=True):
        ids, mask = render([*turns(ITEM, prompt_form), Message("assistant", text)])
        assert option == [token for token, learned in zip(ids, mask, strict=True) if learned]
        assert asking.prompt(ITEM) + option == ids and option[-1] == render.end_id
        assert asking.answer(text) == option[:-1]


def test_a_base_model_is_asked_for_the_text_alone() -> None:
    tokenizer = metaspace()
    asking = Asking(SimpleNamespace(tokenizer=tokenizer, window=512), "letter")  # type: ignore[arg-type]
    assert asking.options(ITEM)[0] == tokenizer.encode("A", add_special_tokens=False)
    assert asking.answer("") == [tokenizer.eos_token_id]
