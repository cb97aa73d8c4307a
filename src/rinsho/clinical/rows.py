"""The tokens of a text with their places, and rows for `rinsho finetune` made from corrected entities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rinsho.clinical.entities import MAX_NEW_TOKENS, passages
from rinsho.clinical.questions import QUESTIONS, Question, asking_of
from rinsho.errors import UserError
from rinsho.tasks import answer_text
from rinsho.tasks.asking import turns

if TYPE_CHECKING:
    from rinsho.generate.opening import Opened


def tokens(opened: Opened, text: str) -> list[dict[str, Any]]:
    """The tokens that the model reads of a text: `id`, `piece`, and `start` and `end` in the raw text.

    A piece that is no whole character is shown as its bytes (<0xE8>). What cleaning removes lies in no token.
    """
    tokenizer = opened.tokenizer
    if hasattr(tokenizer, "encode_aligned"):
        ids, ranges = tokenizer.encode_aligned(text)
    else:
        made = tokenizer(
            text, add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=True, verbose=False
        )
        ids, ranges = made["input_ids"], made["offset_mapping"]
    spelt = opened.pieces.bytes
    return [
        {"id": int(index), "piece": _shown(spelt[index] if index < len(spelt) else None, tokenizer, index),
         "start": int(start), "end": int(end)}
        for index, (start, end) in zip(ids, ranges, strict=True)
    ]  # fmt: skip


def training_row(opened: Opened, text: str, kind: str | Question, entities: Sequence[str]) -> dict[str, Any]:
    """A conversation for `rinsho finetune`: this text asked exactly as extraction asks it, and the right answer.

    For texts that extraction cuts into passages `training_rows` has a row for each.

    Raises:
        UserError: a kind that no model is asked for, an entity that does not stand in the text, or a base model.
    """
    question = _question(kind)
    _check(text, entities)
    asking = asking_of(opened, MAX_NEW_TOKENS)
    item = question.item(text, gold=tuple(dict.fromkeys(entities)))
    messages = [{"role": turn.role, "content": turn.content} for turn in turns(item, asking.prompt_form)]
    return {"messages": [*messages, {"role": "assistant", "content": answer_text(item)}]}


def training_rows(opened: Opened, text: str, kind: str | Question, entities: Sequence[str]) -> list[dict[str, Any]]:
    """A row for each passage of a text, with those of the entities that stand in it.

    Raises:
        UserError: as `training_row`.
    """
    question = _question(kind)
    _check(text, entities)
    asking = asking_of(opened, MAX_NEW_TOKENS)
    parts = [text[start:end] for start, end in passages(asking, question, text)]
    if len(parts) == 1:
        return [training_row(opened, text, question, entities)]
    return [training_row(opened, part, question, [entity for entity in entities if entity in part]) for part in parts]


def _question(kind: str | Question) -> Question:
    if isinstance(kind, Question):
        return kind
    if kind not in QUESTIONS:  # values are found by rule: there is nothing to learn
        raise UserError("unknown kind of entity", where="kind", expected="one of " + ", ".join(QUESTIONS))
    return QUESTIONS[kind]


def _check(text: str, entities: Sequence[str]) -> None:
    """A model that learns words which are not there learns to make them up."""
    for place, entity in enumerate(entities):
        if entity not in text:  # named by its place: errors hold no text of documents
            raise UserError(f"entities[{place}] is not in the text", expected="words as they stand in the text")


def _shown(piece: bytes | None, tokenizer: Any, index: int) -> str:
    if piece is None:
        return str(tokenizer.convert_ids_to_tokens(index))
    try:
        return piece.decode("utf-8")
    except UnicodeDecodeError:
        return "".join(f"<0x{byte:02X}>" for byte in piece)
