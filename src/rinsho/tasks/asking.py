"""How a question is put to a model: the benchmark's own words, or a short form for small models and small budgets.

Tuning and evaluation must ask alike, so both take the turns, the room of an answer and the legal answers from here; a
model folder says which form it was tuned with (`rinsho.json`, finetune.prompt_form).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, Protocol

from rinsho.chat import Message
from rinsho.chat_template import Renderer, has_chat, renderer
from rinsho.tasks.examples import group
from rinsho.tasks.item import AnswerForm, Item, answer_text, choice_text, labels, legal_choices, short_options
from rinsho.text import clean

PromptForm = Literal["benchmark", "short"]

# Tasks whose options are the same for every question of a tag: the short form leaves them out, tuning teaches them.
FIXED_OPTIONS = ("crade", "rrtnm", "smdis", "jcsts")

ANY_QUESTION = Message("user", "正しいものはどれですか？")


def turns(
    item: Item, form: PromptForm = "benchmark", examples: Sequence[Item] = (), answer_form: AnswerForm = "letter"
) -> list[Message]:
    """The turns before the assistant's answer; solved examples stand before the question as turns of their own.

    `benchmark` has the system prompt and the user prompt word for word. `short` has one user turn: the question, and
    its options only where they differ from question to question. Of the invented samples' tokens the short form
    leaves two fifths; scores with it are not comparable with published ones, and reports say so.

    Source: N3-1, N3-2; the short form is our choice.
    """
    solved = [
        turn
        for example in examples
        for turn in (_question(example, form), Message("assistant", answer_text(example, answer_form)))
    ]
    system = [Message("system", item.system)] if form == "benchmark" else []
    return [*system, *solved, _question(item, form)]


def orders(item: Item, rotations: int, form: PromptForm = "benchmark") -> range:
    """The rotations in which a question is asked: 0 (as printed) and at most so many more.

    Only choices are asked again, and only where the prompt shows the options: the short form leaves fixed ones out.

    Source: N3-2 (robustness to the order of the options).
    """
    if item.kind != "choice" or (form == "short" and item.task in FIXED_OPTIONS):
        return range(1)
    return range(1 + max(0, min(rotations, len(item.options) - 1)))


def _question(item: Item, form: PromptForm) -> Message:
    if form == "benchmark":
        return Message("user", item.prompt)
    if not item.options or item.task in FIXED_OPTIONS:
        return Message("user", item.question)
    options = [f"{label}. {option.strip()}" for label, option in zip(labels(item), item.options, strict=True)]
    return Message("user", "\n".join([item.question, *options]))


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
    """How questions are put: the model, its answer form, the limits of the recipe (tokens), and solved examples.

    `examples` are given by the group of the question (`rinsho.tasks.examples.group`). A chat model sees them as turns,
    a base model as plain text.
    """

    model: Answering
    form: AnswerForm
    max_new_tokens: int = 512
    max_new_tokens_choice: int = 64
    max_batch_tokens: int = 24_576
    prompt_form: PromptForm = "benchmark"
    examples: Mapping[str, Sequence[Item]] = field(default_factory=dict)
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

    def lines(self, item: Item) -> int:
        """Lines of a base model's free answer, which goes on with a next question: one, or the letter's line too."""
        return 1 + len(item.gold) if item.kind == "choice" and self.form == "text_letter" else 1

    def prompt(self, item: Item, examples: Sequence[Item] = ()) -> list[int]:
        """The question as ids behind these solved examples, ready for the answer.

        For a base model an example is its prompt, the cue, the gap and the answer, with an empty line after it. No
        token joins a cue with what follows, in the examples as little as in the question, which ends with the cue.
        """
        if self.has_chat:
            talk = turns(item, self.prompt_form, examples, self.form)
            return self.render(talk, add_generation_prompt=True)[0]
        start, plain = self.model.tokenizer.bos_token_id, [_plain(asked) for asked in (*examples, item)]
        ids = ([] if start is None else [start]) + self.encode(plain[0])
        for example, following in zip(examples, plain[1:], strict=True):
            ids += self._after(example, f"{answer_text(example, self.form)}\n\n{following}")
        return ids

    def fit(self, item: Item) -> tuple[list[int], int]:
        """The question as ids behind as many of its solved examples as there is room for, and how many these are.

        The first examples are left out first. Even without any the prompt may be longer than `prompt_room`.
        """
        examples, room = self.examples.get(group(item), ()), self.prompt_room(item)
        ids = self.prompt(item, examples)
        if len(ids) <= room or not examples:
            return ids, len(examples)
        places = range(len(examples))
        first = bisect_left(places, True, lo=1, key=lambda place: len(self.prompt(item, examples[place:])) <= room)
        return self.prompt(item, examples[first:]), len(examples) - first

    def prompt_room(self, item: Item) -> int:
        """Tokens that a prompt may have: the window less the answer's room, which takes half of it at most."""
        answer = max(self.new_tokens(item), self._room(item, item.options))
        return self.model.window - min(answer, self.model.window // 2)

    def options(self, item: Item) -> list[list[int]]:
        """The ids of every answer that `legal_choices(item)` allows, in its order, with the end of an answer."""
        texts = [choice_text(item, letters, self.form) for letters in legal_choices(item)]
        return [self._learned(text) if self.has_chat else self.answer(item, text) for text in texts]

    def answer(self, item: Item, text: str) -> list[int]:
        """The ids of an answer to the question without its end, one at least."""
        ids = self._learned(text) if self.has_chat else self._after(item, text)
        if self.has_chat:
            ids = ids[: len(ids) - 1 - ids[::-1].index(self.render.end_id)]
        return ids or [self.model.tokenizer.eos_token_id]

    @cached_property
    def line_feeds(self) -> list[int]:
        """The ids that end a line and write nothing before its end, so that stopping at them loses nothing.

        A piece such as `']` with its line feed is none of them: the answer goes on behind it and is cut as text.
        """
        tokenizer = self.model.tokenizer
        if hasattr(tokenizer, "newline_id"):
            return [tokenizer.newline_id]
        texts = tokenizer.batch_decode([[index] for index in range(len(tokenizer))])
        return [index for index, text in enumerate(texts) if "\n" in text and not text.partition("\n")[0].strip()]

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

    def _after(self, item: Item, text: str) -> list[int]:
        """The ids of a text behind the cue of a base model's prompt, its gap first (` A` behind `Answer:`).

        They are those inside the whole text, but where a token joins both (`:A` in Llama 3's vocabulary) those of the
        text by itself: the prompt has ended before it.
        """
        cue, following = item.wording.cue, item.wording.gap + text
        before, whole = self.encode(cue), self.encode(cue + following)
        return whole[len(before) :] if whole[: len(before)] == before else self.encode(following)

    def _room(self, item: Item, options: Sequence[str]) -> int:
        """Tokens of the longest answer that says these option texts and their letters, with some to spare."""
        for option in options:
            if option not in self.lengths:
                self.lengths[option] = len(self.encode(option))
        return (max((self.lengths[option] for option in options), default=0) + 3) * len(item.gold) + 2


def _plain(item: Item) -> str:
    """The prompt of a base model: the user's turn, which the cue ends."""
    cue = item.wording.cue
    return item.prompt.rstrip().removesuffix(cue.strip()).rstrip() + cue
