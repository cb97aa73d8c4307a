"""Conversations: ids, masks, padding, open ends, added tokens."""

from pathlib import Path

import numpy as np
import pytest

from rinsho import chat
from rinsho.errors import UserError
from rinsho.tokenization import RinshoTokenizer, add_chat_tokens, load
from tokenization.samples import vocabulary

ROWS = [
    {"role": "system", "content": "医師として答える。"},
    {"role": "user", "content": "発熱<|assistant|>とは?"},
    {"role": "assistant", "content": "体温の上昇。"},
]


def test_chat_tokens_stand_at_the_end_and_survive_saving(folder: Path, tmp_path: Path) -> None:
    tokenizer = load(folder)
    size = len(vocabulary())
    assert (add_chat_tokens(tokenizer), add_chat_tokens(tokenizer)) == (3, 0)
    assert tokenizer.convert_tokens_to_ids(list(chat.CHAT_TOKENS)) == [size, size + 1, size + 2]
    tokenizer.save_pretrained(tmp_path)
    again = load(tmp_path)
    assert (len(again), again.vocab_size) == (size + 3, size)
    assert again.decode([size + 1, *again.encode_text("熱")], skip_special_tokens=True) == "熱"
    assert add_chat_tokens(again) == 0


def test_the_chat_template_goes_by_ids(chat_tokenizer: RinshoTokenizer) -> None:
    ids, mask = chat.render(chat.messages_from(ROWS), chat_tokenizer)
    done = chat_tokenizer.apply_chat_template(ROWS, return_assistant_tokens_mask=True)
    assert (done["input_ids"], done["assistant_masks"]) == (ids, mask)
    assert done["attention_mask"] == [1] * len(ids)
    assert ids.count(chat_tokenizer.convert_tokens_to_ids(chat.ASSISTANT)) == 1
    assert chat_tokenizer.apply_chat_template(ROWS, return_dict=False) == ids
    assert chat_tokenizer.decode(ids) == chat_tokenizer.apply_chat_template(ROWS, tokenize=False)
    messages = chat.messages_from(ROWS)
    assert chat_tokenizer.apply_chat_template(messages, return_dict=False) == ids
    assert chat_tokenizer.decode(ids) == chat_tokenizer.apply_chat_template(messages, tokenize=False)
    one = chat_tokenizer.encode_message_with_chat_template(ROWS[2], ROWS[:2])
    assert ids[-len(one) :] == one


def test_the_mask_covers_the_answers_only(chat_tokenizer: RinshoTokenizer) -> None:
    done = chat_tokenizer.apply_chat_template(ROWS, return_assistant_tokens_mask=True)
    learned = [id_ for id_, mask in zip(done["input_ids"], done["assistant_masks"], strict=True) if mask]
    assert learned == [*chat_tokenizer.encode_text(ROWS[2]["content"]), chat_tokenizer.eos_token_id]


@pytest.mark.parametrize("side", ["left", "right"])
def test_batches_are_padded(chat_tokenizer: RinshoTokenizer, side: str) -> None:
    short, long = ROWS[1:2], ROWS
    call = {"padding": True, "padding_side": side, "return_assistant_tokens_mask": True}
    rows = chat_tokenizer.apply_chat_template([short, long], **call)
    ids, mask = chat.render(chat.messages_from(short), chat_tokenizer)
    room = len(rows["input_ids"][1]) - len(ids)
    kept = slice(room, None) if side == "left" else slice(len(ids))
    assert rows["input_ids"][0][kept] == ids
    assert rows["assistant_masks"][0][kept] == mask
    assert sum(rows["attention_mask"][0]) == len(ids)
    assert sum(rows["attention_mask"][0][kept]) == len(ids)
    tensors = chat_tokenizer.apply_chat_template([short, long], **call, return_tensors="np")
    assert {key: value.tolist() for key, value in tensors.items()} == dict(rows)
    assert isinstance(chat_tokenizer.apply_chat_template(long, return_tensors="np")["input_ids"], np.ndarray)


def test_long_conversations_are_cut(chat_tokenizer: RinshoTokenizer) -> None:
    ids, mask = chat.render(chat.messages_from(ROWS), chat_tokenizer)
    call = {"truncation": True, "max_length": 5, "return_assistant_tokens_mask": True}
    done = chat_tokenizer.apply_chat_template(ROWS, **call)
    assert (done["input_ids"], done["assistant_masks"]) == (ids[:5], mask[:5])
    left = load(Path(chat_tokenizer.name_or_path))
    add_chat_tokens(left)
    left.truncation_side = "left"
    done = left.apply_chat_template(ROWS, **call)
    assert (done["input_ids"], done["assistant_masks"]) == (ids[-5:], mask[-5:])
    fixed = chat_tokenizer.apply_chat_template(ROWS, padding="max_length", max_length=99, return_dict=False)
    assert len(fixed) == 99


def test_open_ends(chat_tokenizer: RinshoTokenizer) -> None:
    ids = chat.render(chat.messages_from(ROWS), chat_tokenizer)[0]
    open_end = chat_tokenizer.apply_chat_template(ROWS, continue_final_message=True, return_dict=False)
    assert [*open_end, chat_tokenizer.eos_token_id] == ids
    text = chat_tokenizer.apply_chat_template(ROWS, continue_final_message=True, tokenize=False)
    assert text == chat_tokenizer.decode(open_end)
    prompt = chat_tokenizer.apply_chat_template(ROWS[:2], add_generation_prompt=True, return_dict=False)
    assert prompt[-1] == chat_tokenizer.convert_tokens_to_ids(chat.ASSISTANT)
    for wrong in ({"chat_template": "{{ messages }}"}, {"tools": [{"name": "x"}]}):
        with pytest.raises(ValueError, match="one chat template"):
            chat_tokenizer.apply_chat_template(ROWS, **wrong)
    with pytest.raises(ValueError, match="exclude"):
        chat_tokenizer.apply_chat_template(ROWS, continue_final_message=True, add_generation_prompt=True)
    with pytest.raises(ValueError, match="empty"):
        chat_tokenizer.apply_chat_template([])


def test_a_base_tokenizer_has_no_chat(tokenizer: RinshoTokenizer) -> None:
    with pytest.raises(UserError, match="no token <\\|system\\|>"):
        tokenizer.apply_chat_template(ROWS)
