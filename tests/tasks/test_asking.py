"""That a model is asked for the very ids that tuning teaches it, whatever its tokenizer does at the start of a text."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from evaluate.toy_oracle import ToyTokenizer
from rinsho.chat import ASSISTANT, BEGIN, END, SYSTEM, USER, Message
from rinsho.chat_template import set_form
from rinsho.tasks import Item, choice_text
from rinsho.tasks.asking import Asking, orders, turns
from rinsho.tasks.examples import group
from rinsho.tasks.item import legal_choices
from rinsho.tasks.prompts import USMLE, Wording
from toy_models import toy_tokenizer

QUESTION = "次のうち正しいものを一つ選んでください。\n発熱は？"
ITEM = Item("x/1", "jmmlu_med", "choice", "", Wording("答える。"), QUESTION, ("ある", "ない", "A 熱"), ("A",), "", "")


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
        assert asking.answer(ITEM, text) == option[:-1]


def test_a_base_model_is_asked_for_the_text_behind_its_cue() -> None:
    tokenizer = metaspace()
    asking = Asking(SimpleNamespace(tokenizer=tokenizer, window=512), "letter")  # type: ignore[arg-type]
    assert asking.options(ITEM)[0] == tokenizer.convert_tokens_to_ids(["A"])  # and not ▁A
    assert asking.answer(ITEM, "") == [tokenizer.eos_token_id]


def other(number: int, gold: str, **changes: Any) -> Item:
    return replace(ITEM, id=f"x/{number}", question=f"例題{number}。", gold=(gold,), **changes)


EXAMPLES = (other(2, "B"), other(3, "C"), other(4, "A"))


def asked(tokenizer: Any, form: Any = "letter", window: int = 2048, **changes: Any) -> Asking:
    shown = {group(ITEM): EXAMPLES}
    return Asking(SimpleNamespace(tokenizer=tokenizer, window=window), form, examples=shown, **changes)  # type: ignore[arg-type]


def test_examples_are_turns_of_a_chat_model() -> None:
    tokenizer = ToyTokenizer()
    asking = asked(tokenizer, "text_letter")
    ids, used = asking.fit(ITEM)
    special, text = tokenizer.convert_tokens_to_ids, tokenizer.encode_text
    expected = [special(BEGIN), special(SYSTEM), *text("答える。")]
    for item, answer in zip(EXAMPLES, ("ない\nB", "A 熱\nC", "ある\nA"), strict=True):
        expected += [special(USER), *text(item.prompt), special(ASSISTANT), *text(answer), special(END)]
    assert used == 3 and ids == [*expected, special(USER), *text(ITEM.prompt), special(ASSISTANT)]
    assert turns(ITEM, "short", EXAMPLES[:1])[:2] == [
        Message("user", "例題2。\nA. ある\nB. ない\nC. A 熱"), Message("assistant", "B")
    ]  # fmt: skip


def test_examples_are_plain_text_for_a_base_model() -> None:
    tokenizer = toy_tokenizer(chat=False)
    ids, used = asked(tokenizer).fit(ITEM)
    text = "".join(f"例題{n}。\n答え:{answer}\n\n" for n, answer in ((2, "B"), (3, "C"), (4, "A")))
    assert used == 3 and ids == [tokenizer.bos_token_id, *encode(tokenizer, f"{text}{QUESTION}\n答え:")]


@pytest.mark.parametrize("form", ["letter", "text_letter"])
def test_a_space_stands_between_an_english_cue_and_its_answer(form: Any) -> None:
    """`Answer: A`: vocabularies have ` A` as a piece of its own, and English text has it after a colon."""
    tokenizer = ToyTokenizer(chat=False)
    english = [replace(item, wording=USMLE) for item in (*EXAMPLES, ITEM)]
    model: Any = SimpleNamespace(tokenizer=tokenizer, window=2048)
    asking = Asking(model, form, examples={group(ITEM): english[:3]})
    ids, used = asking.fit(english[3])
    said = ["ない\nB", "A 熱\nC", "ある\nA"] if form == "text_letter" else ["B", "C", "A"]
    expected = "".join(
        f"{item.prompt.rstrip()}\nAnswer: {answer}\n\n" for item, answer in zip(english, said, strict=False)
    )
    text = tokenizer.decode(ids)
    assert used == 3 and text == f"{expected}{english[3].prompt.rstrip()}\nAnswer:"
    legal = [choice_text(ITEM, letters, form) for letters in legal_choices(ITEM)]
    assert [tokenizer.decode(option) for option in asking.options(english[3])] == [f" {text}" for text in legal]
    assert tokenizer.decode(asking.answer(english[3], "ある")) == " ある"  # likelihood
    spoken = Asking(SimpleNamespace(tokenizer=ToyTokenizer(), window=2048), form)  # type: ignore[arg-type]
    assert tokenizer.decode(spoken.answer(english[3], "ある")) == "ある"  # a chat form stands before it


def encode(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer.encode(text, add_special_tokens=False))


def joining() -> Any:
    """A byte-level vocabulary with `:A` and `:B` as pieces, as that of Llama 3 has them."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    pieces = [*sorted(pre_tokenizers.ByteLevel.alphabet()), ":A", ":B", "']", "']Ċ", "ĊĊ"]
    merges = [(":", "A"), (":", "B"), ("'", "]"), ("']", "Ċ"), ("Ċ", "Ċ")]
    backend = Tokenizer(models.BPE({piece: index for index, piece in enumerate(pieces)}, merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<e>", clean_up_tokenization_spaces=False)


@pytest.mark.parametrize("make", [metaspace, joining, lambda: toy_tokenizer(chat=False)])
def test_examples_show_the_very_ids_that_a_base_model_is_asked_for(make: Any) -> None:
    tokenizer = make()
    asking = asked(tokenizer)
    ids, _ = asking.fit(ITEM)
    place = 0
    for item, gold in zip(EXAMPLES, (1, 2, 0), strict=True):
        question = asking.prompt(item, EXAMPLES[: EXAMPLES.index(item)])
        assert ids[: len(question)] == question and place < len(question)
        answer = asking.options(item)[gold]
        assert ids[len(question) : len(question) + len(answer)] == answer
        place = len(question)
    assert ids.count(tokenizer.bos_token_id) == (tokenizer.bos_token_id is not None)


@pytest.mark.parametrize("chat", [True, False])
def test_the_first_examples_make_room(chat: bool) -> None:
    asking = asked(ToyTokenizer(chat), max_new_tokens_choice=1)
    lengths = [len(asking.prompt(ITEM, EXAMPLES[first:])) for first in range(4)]
    room = 2048 - asking.prompt_room(ITEM)
    for kept in range(4):
        for spare in (0, 1):
            tight = asked(ToyTokenizer(chat), window=lengths[3 - kept] + room + spare, max_new_tokens_choice=1)
            ids, used = tight.fit(ITEM)
            assert used == kept and ids == asking.prompt(ITEM, EXAMPLES[3 - kept :])
    none = asked(ToyTokenizer(chat), window=lengths[3] + room - 1, max_new_tokens_choice=1)
    assert none.fit(ITEM) == (asking.prompt(ITEM), 0)  # the question itself is cut by who asks it


def test_what_is_asked_in_other_orders() -> None:
    assert list(orders(ITEM, 0)) == [0] and list(orders(ITEM, 1)) == [0, 1] and list(orders(ITEM, 9)) == [0, 1, 2]
    fixed, entities = replace(ITEM, task="smdis"), replace(ITEM, kind="entities", options=())
    assert len(orders(fixed, 2)) == 3 and len(orders(fixed, 2, "short")) == 1 and len(orders(entities, 2)) == 1


def test_the_ids_that_end_a_line() -> None:
    for tokenizer, pieces in ((toy_tokenizer(chat=False), ["<0x0A>", "\n"]), (joining(), ["Ċ", "ĊĊ"])):
        assert asked(tokenizer).line_feeds == sorted(tokenizer.convert_tokens_to_ids(pieces))
