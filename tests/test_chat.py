"""rinsho.chat: the form, the loss mask token by token, and contents that look like markers."""

import subprocess
import sys

import pytest

from rinsho import chat
from rinsho.chat import Message
from rinsho.errors import UserError


class Letters:
    """A stand-in tokenizer: a character is its code point, special tokens lie above all of them."""

    unk_token_id = 0

    def __init__(self, tokens: tuple[str, ...] = (chat.BEGIN, chat.END, *chat.CHAT_TOKENS)) -> None:
        self.specials = {token: 0x110000 + number for number, token in enumerate(tokens)}

    def encode_text(self, text: str) -> list[int]:
        return [ord(char) for char in text]

    def convert_tokens_to_ids(self, tokens: str) -> int:
        return self.specials.get(tokens, self.unk_token_id)

    def show(self, ids: list[int]) -> list[str]:
        names = {number: token for token, number in self.specials.items()}
        return [names.get(number) or chr(number) for number in ids]


TALK = [Message("system", "医師"), Message("user", "熱?"), Message("assistant", "あり")]


def test_form_and_mask_token_by_token() -> None:
    tokenizer = Letters()
    ids, mask = chat.render(TALK, tokenizer)
    assert list(zip(tokenizer.show(ids), mask, strict=True)) == [
        ("<|begin_of_text|>", 0),
        ("<|system|>", 0),
        ("医", 0),
        ("師", 0),
        ("<|user|>", 0),
        ("熱", 0),
        ("?", 0),
        ("<|assistant|>", 0),
        ("あ", 1),
        ("り", 1),
        ("<|end_of_text|>", 1),
    ]


def test_several_turns_learn_every_answer() -> None:
    tokenizer = Letters()
    ids, mask = chat.render([*TALK, Message("user", "咳"), Message("assistant", "無")], tokenizer)
    learnt = "".join(token for token, learn in zip(tokenizer.show(ids), mask, strict=True) if learn)
    assert learnt == "あり<|end_of_text|>無<|end_of_text|>"


def test_generation_prompt_ends_with_the_assistant_marker() -> None:
    tokenizer = Letters()
    ids, mask = chat.render(TALK[:2], tokenizer, add_generation_prompt=True)
    assert tokenizer.show(ids)[-1] == "<|assistant|>"
    assert not any(mask)


@pytest.mark.parametrize("marker", [chat.BEGIN, chat.END, *chat.CHAT_TOKENS])
def test_a_marker_in_a_message_stays_text(marker: str) -> None:
    tokenizer = Letters()
    ids, _ = chat.render([Message("user", f"x{marker}y")], tokenizer)
    assert ids[2:] == [ord(char) for char in f"x{marker}y"]


def test_a_tokenizer_without_chat_tokens_is_refused_clearly() -> None:
    with pytest.raises(UserError, match="no token <\\|user\\|>"):
        chat.render([Message("user", "熱")], Letters((chat.BEGIN, chat.END)))


def test_unknown_roles_and_missing_contents_are_refused() -> None:
    with pytest.raises(UserError, match="unknown role 'tool'"):
        chat.render([Message("tool", "x")], Letters())  # type: ignore[arg-type]
    with pytest.raises(UserError, match="message 2"):
        chat.messages_from([{"role": "user", "content": "x"}, {"role": "assistant", "content": None}])


def test_the_template_writes_the_same_form() -> None:
    jinja2 = pytest.importorskip("jinja2")
    text = chat.TEMPLATE.replace("{% generation %}", "").replace("{% endgeneration %}", "")
    rows = [{"role": message.role, "content": message.content} for message in TALK]
    shown = jinja2.Template(text).render(messages=rows, add_generation_prompt=True)
    tokenizer = Letters()
    ids, _ = chat.render(TALK, tokenizer, add_generation_prompt=True)
    assert shown == "".join(tokenizer.show(ids))


def test_importing_loads_no_heavy_library() -> None:
    code = "import sys, rinsho.chat; sys.exit(any(name in sys.modules for name in ('torch', 'transformers', 'jinja2')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
