"""Answers in the form of OpenAI's two text interfaces, whole and in chunks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rinsho.serve.writing import Piece, Told


@dataclass(frozen=True, slots=True)
class _Form:
    """What both have.

    Attributes:
        id: of the answer.
        created: seconds since 1970.
        model: its name.
        opened: the model, for the texts of ids.
        logprobs: whether they are asked for.
    """

    id: str
    created: int
    model: str
    opened: Any
    logprobs: bool

    def _of(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model, "choices": choices}

    def _bytes(self, index: int) -> bytes:
        known = self.opened.pieces.bytes
        written = known[index] if index < len(known) else None
        if written is None:  # a special token writes nothing; its name says what it is
            return str(self.opened.tokenizer.convert_ids_to_tokens(int(index)) or "").encode("utf-8", "replace")
        return bytes(written)

    def _text(self, index: int) -> str:
        return self._bytes(index).decode("utf-8", "replace")


class ChatForm(_Form):
    """/v1/chat/completions."""

    __slots__ = ()

    def whole(self, piece: Piece, finish: str) -> dict[str, Any]:
        """The answer at once."""
        message = {"role": "assistant", "content": piece.text, "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": self._logprobs(piece), "finish_reason": finish}
        return self._of("chat.completion", [choice])

    def first(self) -> dict[str, Any] | None:
        """The chunk before the first piece of text."""
        return self._chunk({"role": "assistant", "content": "", "refusal": None})

    def chunk(self, piece: Piece) -> dict[str, Any]:
        """A piece of text."""
        return self._chunk({"content": piece.text}, self._logprobs(piece))

    def last(self, finish: str) -> dict[str, Any]:
        """The chunk that says why the answer ended."""
        return self._chunk({}, None, finish)

    def usage(self) -> dict[str, Any]:
        """The chunk that tells the tokens, if it was asked for."""
        return self._of("chat.completion.chunk", [])

    def _chunk(self, delta: dict[str, Any], logprobs: Any = None, finish: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": finish}
        return self._of("chat.completion.chunk", [choice])

    def _logprobs(self, piece: Piece) -> dict[str, Any] | None:
        if not self.logprobs:
            return None
        content = [
            self._entry(told.index, told.token.logprob)
            | {"top_logprobs": [self._entry(index, logprob) for index, logprob in told.token.top]}
            for told in piece.told
        ]
        return {"content": content, "refusal": None}

    def _entry(self, index: int, logprob: float | None) -> dict[str, Any]:
        data = self._bytes(index)
        return {"token": data.decode("utf-8", "replace"), "logprob": logprob, "bytes": list(data)}


class CompletionForm(_Form):
    """/v1/completions."""

    __slots__ = ()

    def whole(self, piece: Piece, finish: str) -> dict[str, Any]:
        """The answer at once."""
        return self._choice(piece.text, self._logprobs(piece), finish)

    def first(self) -> dict[str, Any] | None:
        """There is no chunk before the first piece."""
        return None

    def chunk(self, piece: Piece) -> dict[str, Any]:
        """A piece of text."""
        return self._choice(piece.text, self._logprobs(piece))

    def last(self, finish: str) -> dict[str, Any]:
        """The chunk that says why the answer ended."""
        return self._choice("", None, finish)

    def usage(self) -> dict[str, Any]:
        """The chunk that tells the tokens, if it was asked for."""
        return self._of("text_completion", [])

    def _choice(self, text: str, logprobs: Any = None, finish: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "text": text, "logprobs": logprobs, "finish_reason": finish}
        return self._of("text_completion", [choice])

    def _logprobs(self, piece: Piece) -> dict[str, Any] | None:
        if not self.logprobs:
            return None
        return {
            "tokens": [self._text(told.index) for told in piece.told],
            "token_logprobs": [told.token.logprob for told in piece.told],
            "top_logprobs": [self._top(told) for told in piece.told],
            "text_offset": [told.start for told in piece.told],
        }

    def _top(self, told: Told) -> dict[str, float]:
        """By text: of ids that write the same the likelier one stays."""
        found: dict[str, float] = {}
        for index, logprob in told.token.top:
            found.setdefault(self._text(index), logprob)
        return found
