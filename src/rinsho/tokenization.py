"""The tokenizer: raw text in, ids out, readable text back; `AutoTokenizer` knows it once this module is imported.

Text is cleaned, cut into words by MeCab and encoded word by word by a Unigram model. Both ways in, the plain call of
transformers and the cached `encode_text`, give the same ids. Importing this module loads transformers, not torch.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import transformers
from tokenizers import Tokenizer
from transformers import AddedToken, BatchEncoding, TokenizersBackend

from rinsho import chat, segmentation
from rinsho.errors import UserError
from rinsho.files import write_atomic
from rinsho.text import clean, clean_aligned

USER_DICTIONARY = "user.dic"
CACHED_CHARS = 64  # longer words do not come back
CACHED_WORDS = 200_000  # some 40 MB; a few ten thousand words cover nearly everything
REMOTE_MODULE = "tokenization_rinsho"
_REMOTE_CODE = '''"""Opens this tokenizer where the rinsho package is installed but was not imported."""

from rinsho.tokenization import RinshoTokenizer

__all__ = ["RinshoTokenizer"]
'''


class _WordIds(dict[str, tuple[int, ...]]):
    """Word -> ids, filled on first sight from the same model and the same splits as the slow path."""

    def __init__(self, tokenizer: RinshoTokenizer) -> None:
        self._tokenize = tokenizer.backend_tokenizer.model.tokenize
        alone = segmentation.alone_characters(tokenizer.split_digits)
        self._split = re.compile(f"[{alone}]|[^{alone}]+").findall
        self._first = {"\n": (tokenizer.newline_id,), "": ()}
        super().__init__(self._first)

    def __missing__(self, word: str) -> tuple[int, ...]:
        if len(self) >= CACHED_WORDS:
            self.clear()
            self.update(self._first)
        ids = tuple(token.id for part in self._split(word) for token in self._tokenize(part))
        if len(word) <= CACHED_CHARS:
            self[word] = ids
        return ids


# No __init__ here: with one, transformers rebuilds the backend from the vocabulary alone and drops the
# pre-tokenizer, the decoder and byte fallback without a word.
class RinshoTokenizer(TokenizersBackend):
    """Japanese clinical tokenizer: cleaning, MeCab and Unigram as one object.

    No call turns the characters of a special token into its id: only `apply_chat_template`, `rinsho.chat.render`
    and the packer write special ids.

    Source: N2.2-3, N2.2-4, N2.2-5, N2.2-6.
    """

    vocab_files_names = {"tokenizer_file": "tokenizer.json", "user_dic": USER_DICTIONARY}  # noqa: RUF012
    model_input_names = ["input_ids", "attention_mask"]  # noqa: RUF012

    @property
    def user_dictionary(self) -> Path | None:
        """The MeCab user dictionary this tokenizer segments with, or None."""
        given = self.init_kwargs.get("user_dic")
        return Path(given) if given else None

    @property
    def segment_form(self) -> str:
        """`strict`: MeCab at run time (the report's form); `plain`: the Unigram model alone."""
        return str(self.init_kwargs.get("segment", "strict"))

    @property
    def split_digits(self) -> bool:
        """Whether every digit is a token of its own."""
        return bool(self.init_kwargs.get("split_digits", False))

    @property
    def newline_id(self) -> int:
        """The id of a line feed."""
        return self.get_added_vocab()["\n"]

    def encode_text(self, text: str) -> list[int]:
        """The ids of an ordinary text: cleaned, segmented, no special ids added, none made from its characters."""
        return list(chain.from_iterable(map(self._word_ids().__getitem__, self._words(clean(text)).split(" "))))

    def encode_batch_text(self, texts: Iterable[str]) -> list[list[int]]:
        """`encode_text` of every text, in order."""
        return [self.encode_text(text) for text in texts]

    def encode_aligned(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """The ids of a text and, for each, the half-open range of characters of the *raw* text it came from."""
        encoded = self(text, add_special_tokens=False, return_offsets_mapping=True)
        return list(encoded["input_ids"]), [(int(start), int(end)) for start, end in encoded["offset_mapping"]]

    def apply_chat_template(  # type: ignore[override]  # noqa: PLR0917 (the signature of transformers)
        self,
        conversation: Sequence[Any],
        tools: Any = None,
        documents: Any = None,
        chat_template: str | None = None,
        add_generation_prompt: bool = False,
        continue_final_message: bool = False,
        tokenize: bool = True,
        **kwargs: Any,
    ) -> Any:
        """The conversation, or a list of them, as ids through `rinsho.chat.render`; as a string with `tokenize=False`.

        The string is for people: encoding it gives ordinary text, not a conversation (N2.2-6).
        """
        if not tokenize:
            return super().apply_chat_template(
                list(conversation),
                chat_template=chat_template,
                add_generation_prompt=add_generation_prompt,
                continue_final_message=continue_final_message,
                tokenize=False,
            )
        if tools or documents or chat_template not in (None, self.chat_template, chat.TEMPLATE):
            raise ValueError("this tokenizer has one chat template, without tools or documents")
        return _apply_by_ids(self, conversation, add_generation_prompt, continue_final_message, **kwargs)

    @classmethod
    def register_for_auto_class(cls, auto_class: str = "AutoTokenizer") -> None:
        """Nothing: `auto_map` names our module already; transformers would copy this file into saved folders."""

    def save_pretrained(self, save_directory: Any, *args: Any, **kwargs: Any) -> tuple[str, ...]:
        """Writes the whole folder, the user dictionary included; returns the file names."""
        for key in ("is_local", "local_files_only"):  # how it was loaded, not what it is
            self.init_kwargs.pop(key, None)
        saved = super().save_pretrained(save_directory, *args, **kwargs)
        folder = Path(save_directory)
        (folder / f"{REMOTE_MODULE}.py").write_text(_REMOTE_CODE, encoding="utf-8")
        saved = (*saved, str(folder / f"{REMOTE_MODULE}.py"))
        source, target = self.user_dictionary, folder / USER_DICTIONARY
        if source is not None:
            if not (target.exists() and target.samefile(source)):
                write_atomic(target, source.read_bytes())  # never in place: MeCab has the old file mapped
            saved = (*saved, str(target))
        return saved

    def _words(self, cleaned: str) -> str:
        """Cleaned text as the backend wants it: words with U+0020 between them, spaces as U+2581."""
        if self.segment_form == "plain":
            return cleaned.replace(" ", segmentation.SPACE).replace("\n", " \n ")
        self._check_segmenter()
        return segmentation.separated(cleaned, self.user_dictionary)

    def _word_ids(self) -> _WordIds:
        cache: _WordIds | None = self.__dict__.get("_cache")
        if cache is None:
            cache = self.__dict__["_cache"] = _WordIds(self)
        return cache

    def _check_segmenter(self) -> None:
        """Once per process: the dictionaries must be those of the training, else 26 % of the lines get other ids."""
        if self.__dict__.get("_segmenter_checked"):
            return
        wanted, found = self.init_kwargs.get("segmenter"), segmentation.dictionary_version()
        if wanted != found:
            raise UserError(
                f"this tokenizer was trained with {wanted}, {found} is installed",
                where=self.name_or_path,
                expected=str(wanted),
                todo="install that version",
            )
        digest = self.init_kwargs.get("user_dic_blake2b")
        path = self.user_dictionary
        if digest is not None and (path is None or not path.is_file() or _blake2b(path.read_bytes()) != digest):
            raise UserError(
                "the user dictionary is missing or not the one of the training",
                where=path or self.name_or_path,
                expected="the user.dic that was saved with tokenizer.json",
                todo="copy the whole tokenizer folder again",
            )
        self.__dict__["_segmenter_checked"] = True

    def __getstate__(self) -> dict[str, Any]:
        """What a pickle holds: no cache (the Rust model inside it cannot be pickled), and MeCab is elsewhere."""
        return {key: value for key, value in self.__dict__.items() if key not in ("_cache", "_segmenter_checked")}

    def _add_tokens(self, *args: Any, **kwargs: Any) -> int:
        self.__dict__.pop("_cache", None)
        return super()._add_tokens(*args, **kwargs)

    def _encode_without_added_tokens(self, text: str) -> list[int]:
        return self.encode_text(text)

    def _encode_plus(self, text: Any, text_pair: Any = None, **kwargs: Any) -> BatchEncoding:  # type: ignore[override]
        # Always: a special token's characters are ordinary text, whatever the caller or a config says (N2.2-6).
        kwargs["split_special_tokens"] = True
        offsets = bool(kwargs.get("return_offsets_mapping"))
        if offsets and (text_pair is not None or kwargs.get("is_split_into_words")):
            raise NotImplementedError("offsets exist for single texts and lists of texts")
        encoded = super()._encode_plus(self._prepared(text), self._prepared(text_pair), **kwargs)
        if offsets:
            self._map_offsets(text, encoded)
        return encoded

    def _prepared(self, text: Any) -> Any:
        if isinstance(text, str):
            return self._words(clean(text))
        if isinstance(text, (list, tuple)):
            return type(text)(self._prepared(part) for part in text)
        return text

    def _map_offsets(self, text: str | Sequence[str], encoded: BatchEncoding) -> None:
        """Replaces offsets into the segmented text by offsets into the raw text, in place."""
        rows = encoded["offset_mapping"]
        if isinstance(text, str):
            texts, rows = [text], [rows] if not _nested(rows) else rows
        else:
            texts = list(text)
        owner = encoded.get("overflow_to_sample_mapping", range(len(texts)))
        maps = [self._raw_positions(each) for each in texts]
        mapped = [
            [_raw_range(maps[which], start, end) if end > start else (0, 0) for start, end in row]
            for which, row in zip(owner, rows, strict=True)
        ]
        encoded["offset_mapping"] = mapped if _nested(encoded["offset_mapping"]) else mapped[0]

    def _raw_positions(self, text: str) -> list[int]:
        """For each position of the segmented text, and its end: the position in the raw text."""
        cleaned, raw = clean_aligned(text)
        positions, position = [], 0
        for char in self._words(cleaned):
            positions.append(raw[position])
            position += char != " "  # U+0020 in the segmented text only separates words
        return [*positions, raw[position]]


def load(folder: Path | str) -> RinshoTokenizer:
    """The tokenizer of a tokenizer or model folder.

    Raises:
        UserError: no tokenizer of ours lies there.
    """
    folder = Path(folder)
    try:
        config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
        ours = config.get("tokenizer_class") == "RinshoTokenizer" and (folder / "tokenizer.json").is_file()
    except (OSError, ValueError):
        ours = False
    if not ours:
        raise UserError(
            "no rinsho tokenizer in here",
            where=folder,
            expected="a folder with tokenizer.json and tokenizer_config.json written by rinsho tokenizer",
            todo="check the path, or train one with rinsho tokenizer",
        )
    tokenizer: RinshoTokenizer = RinshoTokenizer.from_pretrained(str(folder), local_files_only=True)
    return tokenizer


def wrap(
    backend: Tokenizer, user_dictionary: Path | None = None, *, segment: str = "strict", split_digits: bool = False
) -> RinshoTokenizer:
    """A tokenizer around a trained backend; see `rinsho.tokenizer.unigram.to_backend` for the backend."""
    digest = _blake2b(user_dictionary.read_bytes()) if user_dictionary else None
    return RinshoTokenizer(  # type: ignore[no-untyped-call]
        tokenizer_object=backend,
        bos_token=chat.BEGIN,
        eos_token=chat.END,
        pad_token=chat.END,
        unk_token="<unk>",  # noqa: S106
        clean_up_tokenization_spaces=False,
        chat_template=chat.TEMPLATE,
        auto_map={"AutoTokenizer": [f"{REMOTE_MODULE}.RinshoTokenizer", None]},
        segment=segment,
        split_digits=split_digits,
        segmenter=segmentation.dictionary_version(),
        user_dic=str(user_dictionary) if user_dictionary else None,
        user_dic_blake2b=digest,
    )


def segment(text: str, user_dictionary: Path | None = None) -> list[str]:
    """The words of a cleaned text, as `rinsho.segmentation.segment`."""
    return segmentation.segment(text, user_dictionary)


def add_chat_tokens(tokenizer: RinshoTokenizer) -> int:
    """Adds `<|system|>`, `<|user|>`, `<|assistant|>` at the end and the chat template; returns how many were new.

    Source: N2.4-2.
    """
    new = [token for token in chat.CHAT_TOKENS if token not in tokenizer.get_added_vocab()]
    added = [AddedToken(token, special=True, normalized=False) for token in new]
    tokenizer.add_special_tokens({"extra_special_tokens": added}, replace_extra_special_tokens=False)
    tokenizer.chat_template = chat.TEMPLATE
    return len(new)


def fingerprint(tokenizer: RinshoTokenizer | Path | str) -> str:
    """32 hex digits that are equal exactly when two tokenizers give every text the same ids.

    Chat tokens do not count (no text ever becomes one), so a base model's token files fit its instruct model.
    """
    if not isinstance(tokenizer, RinshoTokenizer):
        tokenizer = load(tokenizer)
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    parts: dict[str, Any] = {key: content[key] for key in ("model", "normalizer", "pre_tokenizer", "decoder")}
    parts["added"] = [row for row in content["added_tokens"] if row["content"] not in chat.CHAT_TOKENS]
    parts["segment"] = [tokenizer.segment_form, tokenizer.init_kwargs.get("segmenter"), tokenizer.split_digits]
    path = tokenizer.user_dictionary
    parts["user_dic"] = _blake2b(path.read_bytes()) if path is not None else None
    return _blake2b(json.dumps(parts, sort_keys=True, ensure_ascii=False).encode())


def _apply_by_ids(
    tokenizer: RinshoTokenizer,
    conversation: Sequence[Any],
    add_generation_prompt: bool,
    continue_final_message: bool,
    *,
    padding: bool | str = False,
    truncation: bool = False,
    max_length: int | None = None,
    return_tensors: str | None = None,
    return_dict: bool = True,
    return_assistant_tokens_mask: bool = False,
    **_ignored: Any,
) -> Any:
    batched = bool(conversation) and not isinstance(conversation[0], (dict, chat.Message))
    ids, masks = [], []
    for messages in conversation if batched else [conversation]:
        row, mask = chat.render(chat.messages_from(messages), tokenizer, add_generation_prompt)
        if continue_final_message and row[-1] == tokenizer.eos_token_id:
            row, mask = row[:-1], mask[:-1]
        keep = slice(None, max_length) if truncation and max_length is not None else slice(None)
        ids.append(row[keep])
        masks.append(mask[keep])
    fields: dict[str, Any] = {"input_ids": ids}
    if padding or return_tensors or not batched:
        fields = dict(tokenizer.pad(fields, padding=padding, max_length=max_length))
    else:
        fields["attention_mask"] = [[1] * len(row) for row in ids]
    if return_assistant_tokens_mask:
        left = tokenizer.padding_side == "left"
        fields["assistant_masks"] = [
            [0] * (len(row) - len(mask)) + mask if left else mask + [0] * (len(row) - len(mask))
            for row, mask in zip(fields["input_ids"], masks, strict=True)
        ]
    if not batched and not return_tensors:
        fields = {key: value[0] for key, value in fields.items()}
    return BatchEncoding(fields, tensor_type=return_tensors) if return_dict else fields["input_ids"]


def _raw_range(positions: list[int], start: int, end: int) -> tuple[int, int]:
    """Raw range of a token; where one raw character became several, each of them stands for all of it."""
    while end < len(positions) - 1 and positions[end] == positions[start]:
        end += 1
    return positions[start], positions[end]


def _nested(rows: Any) -> bool:
    return bool(rows) and isinstance(rows[0], list)


def _blake2b(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()


# AutoTokenizer looks for an unknown class name in the transformers namespace last. Its own `register` would load
# torch here (1.8 s, 220 MB for every worker that only encodes) and wants a model configuration class to hang it on.
# The name goes to the type of that namespace because transformers makes a second one when a model is first imported.
type(transformers).RinshoTokenizer = RinshoTokenizer  # type: ignore[attr-defined]
