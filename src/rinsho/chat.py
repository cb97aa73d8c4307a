"""The one chat form and its loss mask, built from ids so that no message can smuggle in a special token."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, cast

from rinsho.errors import UserError

BEGIN = "<|begin_of_text|>"
END = "<|end_of_text|>"
SYSTEM = "<|system|>"
USER = "<|user|>"
ASSISTANT = "<|assistant|>"

Role = Literal["system", "user", "assistant"]
MARKERS: dict[Role, str] = {"system": SYSTEM, "user": USER, "assistant": ASSISTANT}
CHAT_TOKENS = (SYSTEM, USER, ASSISTANT)  # their order is their id order (N2.4-2: 32768, 32769, 32770)

# What other programs see in the tokenizer folder. Ours renders by ids (`render`), because a template is text:
# rendered and then parsed, a message that contains "<|assistant|>" would become a turn of its own (N2.2-6).
TEMPLATE = (
    f"{{{{ '{BEGIN}' }}}}"
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}"
    f"{{{{ '{ASSISTANT}' }}}}"
    f"{{% generation %}}{{{{ message['content'] + '{END}' }}}}{{% endgeneration %}}"
    "{% else %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] }}"
    "{% endif %}"
    "{% endfor %}"
    f"{{% if add_generation_prompt %}}{{{{ '{ASSISTANT}' }}}}{{% endif %}}"
)


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: str


class TextEncoder(Protocol):
    """What `render` needs of a tokenizer: ordinary text to ids, and the id of a special token."""

    def encode_text(self, text: str) -> list[int]:
        """Ids of ordinary text."""
        ...

    def convert_tokens_to_ids(self, tokens: str) -> Any:
        """Id of one token."""
        ...


def render(
    messages: Sequence[Message], tokenizer: TextEncoder, add_generation_prompt: bool = False
) -> tuple[list[int], list[int]]:
    """The conversation as ids, and its loss mask of equal length.

    The form is `<|begin_of_text|><|system|>…<|user|>…<|assistant|>…<|end_of_text|>`. The mask is 1 from after
    `<|assistant|>` up to and including `<|end_of_text|>`, 0 elsewhere. Contents are encoded as ordinary text: the
    characters of a special token inside them never become its id.

    Args:
        messages: the turns, in order.
        tokenizer: one that has the chat tokens.
        add_generation_prompt: end with `<|assistant|>`, so that a model answers next.

    Raises:
        UserError: a role is unknown, or the tokenizer lacks the chat tokens.

    Source: N2.2-6, N2.4-2.
    """
    end = token_id(tokenizer, END)
    ids, mask = [token_id(tokenizer, BEGIN)], [0]
    for message in messages:
        marker = MARKERS.get(message.role)
        if marker is None:
            raise UserError(
                f"unknown role {message.role!r}", where="chat message", expected="one of " + ", ".join(MARKERS)
            )
        content = tokenizer.encode_text(message.content)
        learn = 1 if message.role == "assistant" else 0
        ids += [token_id(tokenizer, marker), *content]
        mask += [0, *[learn] * len(content)]
        if learn:
            ids.append(end)
            mask.append(1)
    if add_generation_prompt:
        ids.append(token_id(tokenizer, ASSISTANT))
        mask.append(0)
    return ids, mask


def token_id(tokenizer: TextEncoder, token: str) -> int:
    """The id of a special token.

    Raises:
        UserError: the tokenizer does not have it.
    """
    found = tokenizer.convert_tokens_to_ids(token)
    if found is None or found == getattr(tokenizer, "unk_token_id", None):
        raise UserError(
            f"the tokenizer has no token {token}",
            where="chat",
            expected="a tokenizer with the chat tokens",
            todo="use the folder of an instruct model, or call rinsho.tokenization.add_chat_tokens first",
        )
    return int(found)


def messages_from(rows: Iterable[Message | Mapping[str, Any]]) -> list[Message]:
    """Messages from the usual dictionaries (`role`, `content`), with `Message` objects passed through.

    >>> messages_from([{"role": "user", "content": "発熱がある。"}])
    [Message(role='user', content='発熱がある。')]

    Raises:
        UserError: a key is missing, a role is unknown or a content is not text.
    """
    result = []
    for number, row in enumerate(rows, 1):
        if isinstance(row, Message):
            result.append(row)
            continue
        role, content = row.get("role"), row.get("content")
        if role not in MARKERS or not isinstance(content, str):
            raise UserError(
                f"not a chat message (role {role!r}, content of type {type(content).__name__})",
                where=f"message {number}",
                expected="role " + ", ".join(MARKERS) + " and content as text",
            )
        result.append(Message(cast(Role, role), content))
    return result
