"""What `tokenizer(...)` gives: batches, pairs, padding, truncation and offsets, as transformers gives them.

transformers hands this work to the backend, which knows nothing of raw text and of the word cache, and keeps padding
and truncation as state that threads share. Here the ids come from the cache; where more than ids is asked for, an
encoding is made whose ranges lie in the raw text, and the functions of `tokenizers` truncate, join and pad it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, overload

from tokenizers import Encoding, Tokenizer, models
from transformers import BatchEncoding
from transformers.tokenization_utils_base import TruncationStrategy
from transformers.utils.generic import PaddingStrategy

from rinsho.tokenization.offsets import to_encoding

if TYPE_CHECKING:
    from rinsho.tokenization.tokenizer import RinshoTokenizer

Text = str | Sequence[str]  # a raw text, or its words where the caller has split it
Row = tuple[Text, Text | None]


@dataclass(frozen=True)
class Options:
    """The arguments of a call that mean something here; names and meaning as in transformers, but the last two."""

    add_special_tokens: bool = True
    padding_strategy: PaddingStrategy = PaddingStrategy.DO_NOT_PAD
    truncation_strategy: TruncationStrategy = TruncationStrategy.DO_NOT_TRUNCATE
    max_length: int | None = None
    stride: int = 0
    is_split_into_words: bool = False
    pad_to_multiple_of: int | None = None
    padding_side: str | None = None
    return_tensors: Any = None
    return_token_type_ids: bool | None = None
    return_attention_mask: bool | None = None
    return_overflowing_tokens: bool = False
    return_special_tokens_mask: bool = False
    return_offsets_mapping: bool = False
    return_length: bool = False
    verbose: bool = True
    clean: bool | None = None
    segment: bool = True

    @classmethod
    def of(cls, given: dict[str, Any]) -> Options:
        """The options among the arguments of a call; others mean nothing here."""
        known = {option.name for option in fields(cls)}
        return cls(**{key: value for key, value in given.items() if key in known})

    @property
    def truncates(self) -> bool:
        """Whether long rows are cut."""
        return self.truncation_strategy != TruncationStrategy.DO_NOT_TRUNCATE and self.max_length is not None


class Encodings(Sequence[Encoding]):
    """Encodings made when the first one is asked for: most callers want ids only."""

    def __init__(self, make: Callable[[], list[Encoding]], count: int) -> None:
        self._make, self._count = make, count
        self._made: list[Encoding] | None = None

    def _all(self) -> list[Encoding]:
        if self._made is None:
            self._made = self._make()
        return self._made

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, place: int) -> Encoding: ...
    @overload
    def __getitem__(self, place: slice) -> list[Encoding]: ...
    def __getitem__(self, place: int | slice) -> Encoding | list[Encoding]:
        return self._all()[place]

    def __reduce__(self) -> tuple[type[list[Encoding]], tuple[list[Encoding]]]:
        return (list, (self._all(),))


def call(tokenizer: RinshoTokenizer, text: Any, text_pair: Any, options: Options) -> BatchEncoding:
    """The batch of one text, one pair, or a list of them."""
    rows, batched = _rows(text, text_pair, options.is_split_into_words)
    if options.stride and options.truncates and options.stride >= (options.max_length or 0):
        raise ValueError(f"stride={options.stride} must be smaller than max_length={options.max_length}")
    ids_suffice = _ids_suffice(tokenizer, rows, options)
    data, encodings = (_by_ids if ids_suffice else _by_encodings)(tokenizer, rows, options)
    for ids in data["input_ids"]:
        tokenizer._eventual_warn_about_too_long_sequence(ids, options.max_length, options.verbose)
    if not (batched or options.return_overflowing_tokens or options.return_tensors is not None):
        data = {key: value[0] if isinstance(value[0], list) else value for key, value in data.items()}
    # Without a number BatchEncoding would ask the first encoding for it, and so have all of them made.
    sequences = 1 if ids_suffice else None
    return BatchEncoding(data, encodings, tensor_type=options.return_tensors, n_sequences=sequences)


def _rows(text: Any, pair: Any, split: bool) -> tuple[list[Row], bool]:
    """The rows of a call as (text, text or None), and whether a list of texts was given."""
    if not isinstance(text, (str, list, tuple)):
        raise ValueError(f"a text is a str, a batch a list of str, not {type(text).__name__}")
    batched = isinstance(text, (list, tuple)) and (not split or (bool(text) and isinstance(text[0], (list, tuple))))
    if not batched:
        return [_row(text, pair, split)], False
    if pair is None:
        return [_row(*_pair_of(each, split), split) for each in text], True
    if isinstance(pair, str):
        raise TypeError("a batch of texts needs a batch of second texts of the same length")
    if len(pair) != len(text):
        raise ValueError(f"{len(text)} texts, {len(pair)} second texts")
    return [_row(first, second, split) for first, second in zip(text, pair, strict=True)], True


def _pair_of(each: Any, split: bool) -> tuple[Any, Any]:
    """A row of a batch that may hold pairs itself: (text, text), or (words, words)."""
    inner = (list, tuple) if split else str
    pair = isinstance(each, (list, tuple)) and len(each) == 2 and all(isinstance(part, inner) for part in each)
    return (each[0], each[1]) if pair else (each, None)


def _row(first: Any, second: Any, split: bool) -> Row:
    for part in (first,) if second is None else (first, second):
        words = isinstance(part, (list, tuple)) and all(isinstance(word, str) for word in part)
        if not (words if split else isinstance(part, str)):
            raise ValueError(f"expected {'a list of str' if split else 'a str'}, found {type(part).__name__}")
    return first, second


def _ids_suffice(tokenizer: RinshoTokenizer, rows: Sequence[Row], options: Options) -> bool:
    return not (
        options.is_split_into_words
        or options.return_token_type_ids
        or options.return_overflowing_tokens
        or options.return_special_tokens_mask
        or options.return_offsets_mapping
        or options.return_length
        or options.truncation_strategy == TruncationStrategy.ONLY_SECOND
        or any(second is not None for _, second in rows)
        or (options.add_special_tokens and tokenizer.num_special_tokens_to_add(False))
    )


def _by_ids(
    tokenizer: RinshoTokenizer, rows: Sequence[Row], options: Options
) -> tuple[dict[str, Any], Sequence[Encoding]]:
    """Rows whose ids are all that is asked for: straight from the word cache."""
    ids = tokenizer.encode_batch_text([str(text) for text, _ in rows], clean=options.clean, segment=options.segment)
    if options.truncates:
        ids = [shortened(row, options.max_length or 0, tokenizer.truncation_side) for row in ids]
    masks = [[1] * len(row) for row in ids]
    length = padded_length(ids, options)
    if length is not None:
        left = (options.padding_side or tokenizer.padding_side) == "left"
        masks = [filled(row, length, 0, left) for row in masks]
        ids = [filled(row, length, tokenizer.pad_token_id, left) for row in ids]
    data: dict[str, Any] = {"input_ids": ids}
    if _wants_mask(tokenizer, options):
        data["attention_mask"] = masks
    return data, Encodings(lambda: _by_encodings(tokenizer, rows, options)[1], len(rows))


def _by_encodings(
    tokenizer: RinshoTokenizer, rows: Sequence[Row], options: Options
) -> tuple[dict[str, Any], list[Encoding]]:
    """Rows as encodings with ranges in the raw text; everything else is read off them."""
    shape = Tokenizer(models.BPE())  # holds the settings of this call alone, so that threads do not meet
    shape.post_processor = tokenizer.backend_tokenizer.post_processor
    if options.truncates:
        shape.enable_truncation(
            options.max_length or 0,
            stride=options.stride,
            strategy=options.truncation_strategy.value,
            direction=tokenizer.truncation_side,
        )
    whole = []
    for first, second in rows:
        pair = None if second is None else _encoding(tokenizer, second, options)
        whole.append(shape.post_process(_encoding(tokenizer, first, options), pair, options.add_special_tokens))
    length = padded_length([row.ids for row in whole], options)
    if length is not None:
        for row in whole:
            row.pad(
                length,
                direction=options.padding_side or tokenizer.padding_side,
                pad_id=tokenizer.pad_token_id,
                pad_type_id=tokenizer.pad_token_type_id,
                pad_token=tokenizer.pad_token,
            )
    owned = [
        (number, part)
        for number, row in enumerate(whole)
        for part in ([row, *row.overflowing] if options.return_overflowing_tokens else [row])
    ]
    encodings = [part for _, part in owned]
    data: dict[str, Any] = {"input_ids": [part.ids for part in encodings]}
    if options.return_token_type_ids or (
        options.return_token_type_ids is None and "token_type_ids" in tokenizer.model_input_names
    ):
        data["token_type_ids"] = [part.type_ids for part in encodings]
    if _wants_mask(tokenizer, options):
        data["attention_mask"] = [part.attention_mask for part in encodings]
    if options.return_special_tokens_mask:
        data["special_tokens_mask"] = [part.special_tokens_mask for part in encodings]
    if options.return_offsets_mapping:
        data["offset_mapping"] = [part.offsets for part in encodings]
    if options.return_length:
        data["length"] = [len(part.ids) for part in encodings]
    if options.return_overflowing_tokens:
        data["overflow_to_sample_mapping"] = [number for number, _ in owned]
    return data, encodings


def _encoding(tokenizer: RinshoTokenizer, text: Text, options: Options) -> Encoding:
    parts = [text] if isinstance(text, str) else text
    aligned = [tokenizer._align(part, options.clean, options.segment) for part in parts]
    return to_encoding(aligned, word_numbers=options.is_split_into_words)


def _wants_mask(tokenizer: RinshoTokenizer, options: Options) -> bool:
    wanted = options.return_attention_mask
    return "attention_mask" in tokenizer.model_input_names if wanted is None else wanted


def shortened(row: list[int], max_length: int, side: str) -> list[int]:
    """A row cut to `max_length`; `side` is where tokens are taken away."""
    if len(row) <= max_length:
        return row
    return row[:max_length] if side == "right" else row[len(row) - max_length :]


def padded_length(rows: Sequence[Sequence[int]], options: Options) -> int | None:
    """The length every row is filled up to, or None."""
    if options.padding_strategy == PaddingStrategy.DO_NOT_PAD or not rows:
        return None
    fixed = options.padding_strategy == PaddingStrategy.MAX_LENGTH and options.max_length is not None
    length = (options.max_length or 0) if fixed else max(map(len, rows))
    multiple = options.pad_to_multiple_of
    return -(-length // multiple) * multiple if multiple else length


def filled(row: list[int], length: int, value: int, left: bool) -> list[int]:
    """A row with `value` added up to a length."""
    added = [value] * (length - len(row))
    return added + row if left else row + added
