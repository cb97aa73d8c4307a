"""Conversations to ids, padded and cut, with the mask of the assistant's tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from transformers import BatchEncoding

from rinsho import chat
from rinsho.tokenization.calling import Options, filled, padded_length, shortened

if TYPE_CHECKING:
    from rinsho.tokenization.tokenizer import RinshoTokenizer


def is_batch(conversation: Sequence[Any]) -> bool:
    """Whether a list of conversations was given."""
    if len(conversation) == 0:
        raise ValueError("an empty conversation: give at least one message")
    return isinstance(conversation[0], (list, tuple))


def apply(
    tokenizer: RinshoTokenizer,
    conversation: Sequence[Any],
    add_generation_prompt: bool,
    continue_final_message: bool | str,
    *,
    padding: Any = False,
    truncation: Any = False,
    max_length: int | None = None,
    pad_to_multiple_of: int | None = None,
    padding_side: str | None = None,
    return_tensors: Any = None,
    return_dict: bool = True,
    return_assistant_tokens_mask: bool = False,
    **_ignored: Any,
) -> Any:
    """The conversation, or a list of them, as `rinsho.chat.render` writes it; arguments as in transformers."""
    if continue_final_message and add_generation_prompt:
        raise ValueError("continue_final_message and add_generation_prompt exclude each other")
    if return_assistant_tokens_mask and not return_dict:
        raise ValueError("return_assistant_tokens_mask needs return_dict=True")
    batched = is_batch(conversation)
    padding_strategy, truncation_strategy, max_length, _ = tokenizer._get_padding_truncation_strategies(  # type: ignore[no-untyped-call]
        padding=padding, truncation=truncation, max_length=max_length, pad_to_multiple_of=pad_to_multiple_of
    )
    options = Options(
        padding_strategy=padding_strategy,
        truncation_strategy=truncation_strategy,
        max_length=max_length,
        pad_to_multiple_of=pad_to_multiple_of,
    )
    rows = []
    for messages in conversation if batched else [conversation]:
        ids, mask = chat.render(chat.messages_from(messages), tokenizer, add_generation_prompt)
        if continue_final_message and ids[-1] == tokenizer.eos_token_id:
            ids, mask = ids[:-1], mask[:-1]
        if options.truncates:
            side = tokenizer.truncation_side
            ids, mask = (shortened(row, max_length or 0, side) for row in (ids, mask))
        rows.append((ids, mask))
    length, left = padded_length([ids for ids, _ in rows], options), (padding_side or tokenizer.padding_side) == "left"
    fields: dict[str, Any] = {"input_ids": [], "attention_mask": []}
    if return_assistant_tokens_mask:
        fields["assistant_masks"] = []
    for ids, mask in rows:
        wanted = len(ids) if length is None else max(length, len(ids))
        fields["input_ids"].append(filled(ids, wanted, tokenizer.pad_token_id, left))
        fields["attention_mask"].append(filled([1] * len(ids), wanted, 0, left))
        if return_assistant_tokens_mask:
            fields["assistant_masks"].append(filled(mask, wanted, 0, left))
    if not batched and not return_tensors:
        fields = {key: value[0] for key, value in fields.items()}
    encoded = BatchEncoding(fields, tensor_type=return_tensors)
    return encoded if return_dict else encoded["input_ids"]
