"""Cleaned text to words: MeCab with ipadic and a user dictionary of clinical terms. Loads no transformers."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

from rinsho.errors import UserError

SPACE = "▁"  # U+2581: what a space is while words are separated by spaces (N2.2-1)
SENTENCE_CHARS = 512  # MeCab's own limit lies above 500,000 characters, where it ends the process

# A sentence at a time, so that the words of one do not depend on its neighbours, nor a prompt's on its length.
SENTENCES = re.compile(rf"[^。\n]{{1,{SENTENCE_CHARS}}}。?|[。\n]")


def alone_characters(split_digits: bool) -> str:
    """The characters that stand alone inside a word, ready for the brackets of a regular expression.

    A space stands alone because MeCab glues it to symbols. `<` stands alone so that no text, with or without MeCab,
    can ever match a piece such as `<|assistant|>`, `<unk>` or the byte piece `<0x0A>` (N2.2-6).
    """
    return f"{SPACE}<0123456789" if split_digits else f"{SPACE}<"


def segment(text: str, user_dictionary: Path | None = None) -> list[str]:
    r"""The words of a cleaned text; spaces come out as U+2581, line feeds as words of their own.

    >>> segment("急性肺炎と診断した。\n熱は 38.5")
    ['急性', '肺炎', 'と', '診断', 'し', 'た', '。', '\n', '熱', 'は', '▁', '38', '.', '5']

    Source: N2.2-3.
    """
    return [word for word in separated(text, user_dictionary).split(" ") if word]


def separated(text: str, user_dictionary: Path | None = None) -> str:
    """The words of a cleaned text with U+0020 between them, as the fast path wants them."""
    return separator(user_dictionary)(text)


def separator(user_dictionary: Path | None = None) -> Callable[[str], str]:
    """`separated` for many texts: the dictionary is looked for once."""
    parse = tagger(*_key(user_dictionary)).parse
    find = SENTENCES.findall

    def separate(text: str) -> str:
        if len(text) <= SENTENCE_CHARS and "\n" not in text and text.find("。") in (-1, len(text) - 1):
            return str(parse(text.replace(" ", SPACE))) if text else ""  # one sentence
        return " ".join([parse(s) if s != "\n" else s for s in find(text.replace(" ", SPACE))])

    return separate


@lru_cache(maxsize=8)
def tagger(user_dictionary: str | None = None, changed: int = 0, form: str = "-Owakati") -> Any:  # noqa: ARG001
    """A MeCab tagger, made once per process and dictionary (a fork inherits it, a pickle never contains it).

    Args:
        user_dictionary: path of the compiled dictionary.
        changed: its time of change, so that a new file at the same path gets a new tagger.
        form: MeCab's output options.

    Raises:
        UserError: the user dictionary cannot be opened.
    """
    import fugashi
    import ipadic

    arguments = f"{ipadic.MECAB_ARGS} {form}"
    if user_dictionary is not None:
        _check_dictionary(user_dictionary)
        arguments += f' -u "{user_dictionary}"'
    try:
        return fugashi.GenericTagger(arguments)
    except RuntimeError:
        raise UserError(
            "MeCab cannot open this user dictionary",
            where=user_dictionary,
            expected="a user.dic written by rinsho tokenizer",
            todo="train the tokenizer again",
        ) from None


def dictionary_version() -> str:
    """Name and version of the system dictionary: another one gives other words, so folders record it."""
    from importlib.metadata import version

    return f"ipadic-{version('ipadic')}"


def _key(user_dictionary: Path | None) -> tuple[str | None, int]:
    if user_dictionary is None:
        return None, 0
    try:
        return str(user_dictionary), user_dictionary.stat().st_mtime_ns
    except OSError:
        return str(user_dictionary), 0


def _check_dictionary(path: str) -> None:
    if not Path(path).is_file():
        raise UserError(
            "the user dictionary is not there",
            where=path,
            expected="user.dic beside tokenizer.json",
            todo="copy the whole tokenizer folder",
        )
    check_path(path)


def check_path(path: str) -> None:
    """Raises a `UserError` for a path at which MeCab opens no dictionary: it reads a comma as a list of files."""
    if any(char in path for char in ',"\\'):
        raise UserError(
            "MeCab cannot open a dictionary at such a path",
            where=path,
            expected="a path without comma, quotation mark or backslash",
            todo="move the folder or choose another --out",
        )
