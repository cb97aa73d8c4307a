"""Tokenizer folders: made from a vocabulary, opened, told apart, prepared for conversations."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import AddedToken

from rinsho import chat, segmentation
from rinsho.errors import UserError
from rinsho.files import file_hash
from rinsho.tokenization.backend import UNKNOWN, Form, to_backend
from rinsho.tokenization.tokenizer import REMOTE_MODULE, RinshoTokenizer


def load(folder: Path | str, *, clean: bool | None = None) -> RinshoTokenizer:
    """The tokenizer of a tokenizer or model folder.

    `clean=False` gives one that takes every text as clean already (its own setting otherwise); `save_pretrained`
    keeps that, and its fingerprint is another one.

    Raises:
        UserError: no tokenizer of ours lies there.
    """
    folder = Path(folder)
    try:
        config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
        ours = config.get("tokenizer_class") == "RinshoTokenizer"
        content = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8")) if ours else {}
    except (OSError, ValueError):
        ours = False
    if not ours:
        raise UserError(
            "no rinsho tokenizer in here",
            where=folder,
            expected="a folder with tokenizer.json and tokenizer_config.json written by rinsho tokenizer",
            todo="check the path, or train one with rinsho tokenizer",
        )
    if config.get("vocabulary_blake2b") != _vocabulary_hash(content) or (config.get("segment") == "plain") != bool(
        content.get("normalizer")
    ):
        raise UserError(
            "tokenizer.json and tokenizer_config.json are not of the same tokenizer",
            where=folder,
            expected="a folder as rinsho tokenizer wrote it",
            todo="copy the whole folder again",
        )
    settings: dict[str, Any] = {} if clean is None else {"clean": clean}
    tokenizer: RinshoTokenizer = RinshoTokenizer.from_pretrained(str(folder), local_files_only=True, **settings)
    return tokenizer


def wrap(
    vocabulary: Sequence[tuple[str, float]],
    user_dictionary: Path | None = None,
    *,
    segment: Form = "strict",
    split_digits: bool = True,
    byte_fallback: bool = True,
) -> RinshoTokenizer:
    """A tokenizer of a trained vocabulary, `(piece, log-probability)` in id order with `backend.CONTROLS` first.

    `strict` segments with MeCab and the user dictionary at run time, `plain` without either; its `tokenizer.json`
    gives cleaned text the same ids in any program that reads such files.
    """
    strict = segment == "strict"
    backend = to_backend(vocabulary, byte_fallback, split_digits, segment)
    return RinshoTokenizer(  # type: ignore[no-untyped-call]
        tokenizer_object=backend,
        bos_token=chat.BEGIN,
        eos_token=chat.END,
        pad_token=chat.END,
        unk_token=UNKNOWN,
        clean_up_tokenization_spaces=False,
        chat_template=chat.TEMPLATE,
        auto_map={"AutoTokenizer": [f"{REMOTE_MODULE}.RinshoTokenizer", None]},
        clean=True,
        segment=segment,
        split_digits=split_digits,
        vocabulary_blake2b=_vocabulary_hash(json.loads(backend.to_str())),
        segmenter=segmentation.dictionary_version() if strict else None,
        user_dic=str(user_dictionary) if strict and user_dictionary else None,
        user_dic_blake2b=file_hash(user_dictionary) if strict and user_dictionary else None,
    )


def _vocabulary_hash(content: Mapping[str, Any]) -> str:
    """Of the pieces and scores in a `tokenizer.json`."""
    pieces = json.dumps(content.get("model", {}).get("vocab"))
    return hashlib.blake2b(pieces.encode(), digest_size=16).hexdigest()


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
    """32 hex digits that are equal only when two tokenizers give every text the same ids.

    The form, whether texts are cleaned and the MeCab dictionaries count; not the rules of cleaning, which belong to
    the version of rinsho. Chat tokens do not count (no text ever becomes one), so a base model's token files fit its
    instruct model.
    """
    if not isinstance(tokenizer, RinshoTokenizer):
        tokenizer = load(tokenizer)
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    parts: dict[str, Any] = {key: content[key] for key in ("model", "normalizer", "pre_tokenizer", "decoder")}
    parts["added"] = [row for row in content["added_tokens"] if row["content"] not in chat.CHAT_TOKENS]
    parts["clean"] = tokenizer.cleans
    parts["segment"] = [tokenizer.segment_form, tokenizer.init_kwargs.get("segmenter"), tokenizer.split_digits]
    path = tokenizer.user_dictionary
    parts["user_dic"] = file_hash(path) if path is not None else None
    return hashlib.blake2b(json.dumps(parts, sort_keys=True, ensure_ascii=False).encode(), digest_size=16).hexdigest()
