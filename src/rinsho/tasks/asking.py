"""How a question is put to a model: the benchmark's own words, or a short form for small models and small budgets.

Tuning and evaluation must ask alike, so both take the turns, the room of an answer and the legal answers from here; a
model folder says which form it was tuned with (`rinsho.json`, finetune.prompt_form).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, Protocol

from rinsho.chat import Message
from rinsho.chat_template import Renderer, has_chat, renderer
from rinsho.tasks.item import AnswerForm, Item, choice_text, labels, legal_choices, short_options
from rinsho.tasks.prompts import BASE_CUE
from rinsho.text import clean

PromptForm = Literal["benchmark", "short"]

# Tasks whose options are the same for every question of a tag: the short form leaves them out, tuning teaches them.
FIXED_OPTIONS = ("crade", "rrtnm", "smdis", "jcsts")

ANY_QUESTION = Message("user", "正しいものはどれですか？")


def turns(item: Item, form: PromptForm = "benchmark") -> list[Message]:
    """The turns before the assistant's answer.

    `benchmark` has the system prompt and the user prompt word for word. `short` has one user turn: the question, and
    its options only where they differ from question to question. Of the invented samples' tokens the short form
    leaves two fifths; scores with it are not comparable with published ones, and reports say so.

    Source: N3-1, N3-2; the short form is our choice.
    """
    if form == "benchmark":
        return [Message("system", item.system), Message("user", item.prompt)]
    if not item.options or item.task in FIXED_OPTIONS:
        return [Message("user", item.question)]
    options = [f"{label}. {option.strip()}" for label, option in zip(labels(item), item.options, strict=True)]
    return [Message("user", "\n".join([item.question, *options]))]


class Answering(Protocol):
    """A model that answers; `rinsho.generate.Generator` is one."""

    tokenizer: Any
    window: int

    def generate(
        self, prompts: Sequence[Sequence[int]], max_new_tokens: int, stop_ids: Sequence[int] | None = None
    ) -> list[list[int]]:
        """The ids that follow each prompt."""
        ...

    def choose(self, prompts: Sequence[Sequence[int]], options: Sequence[Sequence[Sequence[int]]]) -> list[list[float]]:
        """The summed log-probability of each option after its prompt."""
        ...

    def spans(self, prompts: Sequence[Sequence[int]], passages: Sequence[str], max_new_tokens: int) -> list[list[str]]:
        """A list of spans of each passage."""
        ...


@dataclass(frozen=True)
class Asking:
    """How questions are put: the model, its answer form, and the limits of the recipe (tokens)."""

    model: Answering
    form: AnswerForm
    max_new_tokens: int = 512
    max_new_tokens_choice: int = 64
    batch_tokens: int = 24_576
    prompt_form: PromptForm = "benchmark"
    lengths: dict[str, int] = field(default_factory=dict, compare=False)  # tokens of option texts, remembered
    learned: dict[str, list[int]] = field(default_factory=dict, compare=False)  # ids of answers, remembered

    @property
    def ours(self) -> bool:
        """Whether the tokenizer is ours, which cleans what it encodes."""
        return hasattr(self.model.tokenizer, "encode_text")

    @property
    def has_chat(self) -> bool:
        """Whether the model knows a chat form; a base model is asked in plain text."""
        return has_chat(self.model.tokenizer)

    @cached_property
    def render(self) -> Renderer:
        """What renders the model's conversations."""
        return renderer(self.model.tokenizer, "the model that is asked")

    def encode(self, text: str) -> list[int]:
        """Ordinary text as ids, without special tokens."""
        if self.ours:
            return list(self.model.tokenizer.encode_text(text))
        return list(self.model.tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True))

    def new_tokens(self, item: Item) -> int:
        """The room for a free answer: a choice can always be said in the model's form, whatever the recipe's limit."""
        if item.kind == "entities":
            return self.max_new_tokens
        if self.form == "letter":
            return self.max_new_tokens_choice
        return max(self.max_new_tokens_choice, self._room(item, short_options(item)))

    def prompt(self, item: Item) -> list[int]:
        """The question as ids, ready for the answer."""
        if self.has_chat:
            return self.render(turns(item, self.prompt_form), add_generation_prompt=True)[0]
        start = self.model.tokenizer.bos_token_id
        plain = self.encode(item.prompt.rstrip().removesuffix(BASE_CUE.strip()).rstrip() + BASE_CUE)
        return plain if start is None else [start, *plain]

    def prompt_room(self, item: Item) -> int:
        """Tokens that a prompt may have: the window less the answer's room, which takes half of it at most."""
        answer = max(self.new_tokens(item), self._room(item, item.options))
        return self.model.window - min(answer, self.model.window // 2)

    def options(self, item: Item) -> list[list[int]]:
        """The ids of every answer that `legal_choices(item)` allows, in its order, with the end of an answer."""
        texts = [choice_text(item, letters, self.form) for letters in legal_choices(item)]
        return [self._learned(text) if self.has_chat else self.answer(text) for text in texts]

    def answer(self, text: str) -> list[int]:
        """The ids of an answer without its end, one at least."""
        if not self.has_chat:
            return self.encode(text) or [self.model.tokenizer.eos_token_id]
        ids = self._learned(text)
        return ids[: len(ids) - 1 - ids[::-1].index(self.render.end_id)] or [self.model.tokenizer.eos_token_id]

    def passage(self, item: Item) -> str:
        """The passage as the model sees it, whose spans are the legal entities."""
        return clean(item.passage) if self.ours else item.passage

    def _learned(self, text: str) -> list[int]:
        """The ids of an answer as tuning learns them, its end included.

        They are those inside a conversation: by itself a text can begin with other pieces (SentencePiece's ▁). What is
        asked does not change them, because every question has the same text of the chat form between it and its answer.
        """
        if text not in self.learned:
            ids, mask = self.render([ANY_QUESTION, Message("assistant", text)])
            found = [token for token, learned in zip(ids, mask, strict=True) if learned]
            self.learned[text] = found if self.render.end_id in found else [*found, self.render.end_id]
        return self.learned[text]

    def _room(self, item: Item, options: Sequence[str]) -> int:
        """Tokens of the longest answer that says these option texts and their letters, with some to spare."""
        for option in options:
            if option not in self.lengths:
                self.lengths[option] = len(self.encode(option))
        return (max((self.lengths[option] for option in options), default=0) + 3) * len(item.gold) + 2
