"""A stand-in for `rinsho.generate.Generator`: reads the prompt like a person and answers by a rule."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from rinsho.chat import ASSISTANT, BEGIN, END, SYSTEM, USER

SPECIAL = [BEGIN, END, SYSTEM, USER, ASSISTANT]
FIRST = 10  # id of the character U+0000


class ToyTokenizer:
    """One id per character; cleaning is left out, as the prompts of these tests are clean."""

    bos_token_id, eos_token_id, unk_token_id = 0, 1, 9
    newline_id = FIRST + ord("\n")

    def __init__(self, chat: bool = True) -> None:
        self.special = SPECIAL if chat else SPECIAL[:2]

    def encode_text(self, text: str) -> list[int]:
        return [FIRST + ord(character) for character in text]

    def convert_tokens_to_ids(self, token: str) -> int:
        return self.special.index(token) if token in self.special else self.unk_token_id

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        return "".join(chr(index - FIRST) for index in ids if index >= FIRST)


class Oracle:
    """Answers free questions with `say(prompt)`, prefers the option texts that `likes(prompt, text)` rates highest."""

    window = 4096

    def __init__(
        self,
        say: Callable[[str], str] = lambda prompt: "A",
        likes: Callable[[str, str], float] = lambda prompt, text: -float(len(text)),
        chat: bool = True,
        stop_after: int | None = None,
        on_stop: Callable[[], None] | None = None,
    ) -> None:
        self.tokenizer = ToyTokenizer(chat)
        self.say, self.likes, self.stop_after, self.on_stop = say, likes, stop_after, on_stop
        self.calls = 0
        self.prompts: list[str] = []
        self.stops: list[object] = []

    def generate(self, prompts, max_new_tokens, stop_ids=None):
        self._count(prompts)
        self.stops.append(stop_ids)
        return [self.tokenizer.encode_text(self.say(self._text(prompt)))[:max_new_tokens] for prompt in prompts]

    def choose(self, prompts, options):
        self._count(prompts)
        decode = self.tokenizer.decode
        return [[self.likes(self._text(p), decode(o)) for o in row] for p, row in zip(prompts, options, strict=True)]

    def spans(self, prompts, passages, max_new_tokens):
        self._count(prompts)
        return [re.findall("発熱|咳嗽|5mg", passage) for passage in passages]

    def _text(self, prompt: Sequence[int]) -> str:
        return "".join(chr(index - FIRST) if index >= FIRST else self.tokenizer.special[index] for index in prompt)

    def _count(self, prompts) -> None:
        if self.calls == self.stop_after and self.on_stop:
            self.on_stop()
        self.calls += 1
        self.prompts += [self._text(prompt) for prompt in prompts]
