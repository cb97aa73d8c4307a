"""The tokenizer class; the work is done by the modules beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray
from transformers import AddedToken, BatchEncoding, TokenizersBackend

from rinsho import chat, segmentation
from rinsho.errors import UserError
from rinsho.files import file_hash, write_atomic
from rinsho.text import clean as clean_text
from rinsho.tokenization import chat_ids
from rinsho.tokenization.calling import Options, call
from rinsho.tokenization.offsets import Aligned, align
from rinsho.tokenization.words import Words, token_dtype

USER_DICTIONARY = "user.dic"
BATCH_TEXTS = 256
BATCH_CHARACTERS = 1_000_000
REMOTE_MODULE = "tokenization_rinsho"
_REMOTE_CODE = '''"""Opens this tokenizer where the rinsho package is installed but was not imported."""

from rinsho.tokenization import RinshoTokenizer

__all__ = ["RinshoTokenizer"]
'''


# Not in the tokenizer itself: the Rust model in it cannot be pickled, and what is cached must not show in a copy or in
# the hash by which `datasets` knows a tokenizer again.
_CACHES: WeakKeyDictionary[RinshoTokenizer, Words] = WeakKeyDictionary()


# No __init__ here: with one, transformers rebuilds the backend from the vocabulary alone and drops the
# pre-tokenizer, the decoder and byte fallback without a word.
class RinshoTokenizer(TokenizersBackend):
    """Japanese clinical tokenizer: cleaning, words and Unigram as one object.

    No call turns the characters of a special token into its id: only `apply_chat_template`, `rinsho.chat.render`
    and the packer write special ids.

    Every call that takes a text takes two switches. `clean=False`: the text is clean already (`rinsho.text.clean`
    would not change it); its ids are the same, sooner. `segment=False`: the text is words already, separated by one
    U+0020 each, spaces as U+2581, line feeds as words, as `rinsho.segmentation.separated` gives it; nothing is
    cleaned. Text that does not keep that promise is still encoded, but may not come back exactly.

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
    def cleans(self) -> bool:
        """Whether a text is cleaned where the call does not say."""
        return bool(self.init_kwargs.get("clean", True))

    @property
    def split_digits(self) -> bool:
        """Whether every digit is a token of its own."""
        return bool(self.init_kwargs.get("split_digits", False))

    @property
    def newline_id(self) -> int:
        """The id of a line feed."""
        return int(self.get_added_vocab()["\n"])

    @property
    def token_dtype(self) -> np.dtype[Any]:
        """uint16 where every id fits, those of the chat tokens included, else uint32."""
        return token_dtype(self)

    def encode_array(self, text: str, *, clean: bool | None = None, segment: bool = True) -> NDArray[Any]:
        """The ids of an ordinary text as a read-only array of `token_dtype`.

        Cleaned and segmented (see the class for the switches), no special ids added, none made from its characters.
        """
        return self._word_cache().encode(self._prepared(text, clean, segment))

    def encode_text(self, text: str, *, clean: bool | None = None, segment: bool = True) -> list[int]:
        """The ids of an ordinary text, as `encode_array`."""
        ids: list[int] = self.encode_array(text, clean=clean, segment=segment).tolist()
        return ids

    def encode_batch_arrays(
        self, texts: Iterable[str], *, clean: bool | None = None, segment: bool = True
    ) -> Iterator[NDArray[Any]]:
        """`encode_array` of every text, in order, a tenth faster.

        MeCab and the word cache push each other out of the processor's cache, so they take turns over many texts.
        """
        encode = self._word_cache().encode
        cleans = self._check_clean(clean, segment)
        for batch in _batches(texts):
            cleaned = list(map(clean_text, batch)) if cleans else batch
            yield from map(encode, list(map(self._separator(), cleaned)) if segment else cleaned)

    def encode_batch_text(
        self, texts: Iterable[str], *, clean: bool | None = None, segment: bool = True
    ) -> list[list[int]]:
        """`encode_text` of every text, in order."""
        return [ids.tolist() for ids in self.encode_batch_arrays(texts, clean=clean, segment=segment)]

    def encode_aligned(
        self, text: str, *, clean: bool | None = None, segment: bool = True
    ) -> tuple[list[int], list[tuple[int, int]]]:
        """The ids of a text and, for each, the half-open range of characters of the *raw* text it came from.

        Ranges never fall, and overlap only in a raw character that became several (㎎) or is spelt in bytes: every
        token with a part of it has all of it. What cleaning removed lies in no range.
        """
        aligned = self._align(text, clean, segment)
        return aligned.ids, aligned.ranges

    def apply_chat_template(  # type: ignore[override]  # noqa: PLR0917 (the signature of transformers)
        self,
        conversation: Sequence[Any],
        tools: Any = None,
        documents: Any = None,
        chat_template: str | None = None,
        add_generation_prompt: bool = False,
        continue_final_message: bool | str = False,
        tokenize: bool = True,
        **kwargs: Any,
    ) -> Any:
        """The conversation, or a list of them, as ids through `rinsho.chat.render`; as a string with `tokenize=False`.

        The string is for people: encoding it gives ordinary text, not a conversation (N2.2-6).
        """
        if not tokenize:
            return super().apply_chat_template(
                _as_dictionaries(conversation),
                chat_template=chat_template,
                add_generation_prompt=add_generation_prompt,
                continue_final_message=continue_final_message,
                tokenize=False,
            )
        if tools or documents or chat_template not in (None, self.chat_template, chat.TEMPLATE):
            raise ValueError("this tokenizer has one chat template, without tools or documents")
        options = kwargs | (kwargs.pop("tokenizer_kwargs", None) or {})
        return chat_ids.apply(self, conversation, add_generation_prompt, continue_final_message, **options)

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

    def _word_cache(self) -> Words:
        words = _CACHES.get(self)
        if words is None:
            words = _CACHES[self] = Words(self)
        return words

    def _prepared(self, text: str, clean: bool | None, segment: bool) -> str:
        """A text as the word cache wants it, see `_separated`."""
        if self._check_clean(clean, segment):
            text = clean_text(text)
        return self._separated(text) if segment else text

    def _separated(self, cleaned: str) -> str:
        """Cleaned text with U+0020 between words, its spaces as U+2581."""
        return self._separator()(cleaned)

    def _separator(self) -> Callable[[str], str]:
        """`_separated`, its dictionaries found and checked."""
        words = self._word_cache()
        if words.separate is None:
            self._check_segmenter()
            words.separate = segmentation.separator(self.user_dictionary)
        return words.separate

    def _align(self, text: str, clean: bool | None, segment: bool) -> Aligned:
        separated = self._separated if self.segment_form == "strict" else None
        return align(text, self._word_cache(), separated, self._check_clean(clean, segment), segment)

    def _check_clean(self, clean: bool | None, segment: bool) -> bool:
        """Whether to clean."""
        if clean and not segment:
            raise ValueError("clean=True needs segment=True: cleaning takes away what separates the words")
        return segment and (self.cleans if clean is None else clean)

    def _check_segmenter(self) -> None:
        """Once per process: the dictionaries must be those of the training, else 26 % of the lines get other ids."""
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
        if digest is not None and (path is None or not path.is_file() or file_hash(path) != digest):
            raise UserError(
                "the user dictionary is missing or not the one of the training",
                where=path or self.name_or_path,
                expected="the user.dic that was saved with tokenizer.json",
                todo="copy the whole tokenizer folder again",
            )

    def _add_tokens(self, new_tokens: Any, special_tokens: bool = False) -> int:
        known = self.get_added_vocab()
        for token in new_tokens:
            special = special_tokens or (isinstance(token, AddedToken) and token.special)
            if not special and str(token) not in known:
                raise ValueError(
                    "this tokenizer takes no added words: no text would ever become one; "
                    "put the word into a word list and train, or add it as a special token"
                )
        return int(super()._add_tokens(new_tokens, special_tokens=special_tokens))

    def _encode_without_added_tokens(self, text: str) -> list[int]:
        return self.encode_text(text)

    def _encode_plus(self, text: Any, text_pair: Any = None, **kwargs: Any) -> BatchEncoding:  # type: ignore[override]
        # Whatever the caller or a config says of special tokens: their characters are ordinary text (N2.2-6).
        return call(self, text, text_pair, Options.of(kwargs))


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    characters = 0
    for text in texts:
        batch.append(text)
        characters += len(text)
        if len(batch) == BATCH_TEXTS or characters >= BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _as_dictionaries(conversation: Sequence[Any]) -> list[Any]:
    if chat_ids.is_batch(conversation):
        return [_as_dictionaries(each) for each in conversation]
    return [{"role": m.role, "content": m.content} for m in chat.messages_from(conversation)]
