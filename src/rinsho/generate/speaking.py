"""What a model's tokenizer makes of texts and conversations, whatever runs the model."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from rinsho.chat import Message
from rinsho.chat_template import Renderer, has_chat, renderer


class Speaking:
    """Part of every model that answers; it has the tokenizer, and where the model lies."""

    tokenizer: Any
    where: Path | str

    def encode(self, text: str) -> list[int]:
        """Ordinary text as ids: no special token is added, none can come out of the text (N2.2-6)."""
        if hasattr(self.tokenizer, "encode_text"):
            return list(self.tokenizer.encode_text(text))
        return list(self.tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True))

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """A conversation as ids, ready for the assistant's next turn; other tokenizers use their own template.

        Raises:
            UserError: the model has no chat tokens, or no template.
        """
        return self.render(messages, add_generation_prompt=True)[0]

    @cached_property
    def render(self) -> Renderer:
        """What renders the model's conversations."""
        return renderer(self.tokenizer, self.where)

    @cached_property
    def end_id(self) -> int:
        """The id that ends an answer: of the model's chat form, or of a text for a base model."""
        return self.render.end_id if has_chat(self.tokenizer) else self.tokenizer.eos_token_id
