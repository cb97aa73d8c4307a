"""Tiny tokenizers of both forms, made from invented text without any training."""

from pathlib import Path

import pytest

from rinsho.tokenization import RinshoTokenizer, add_chat_tokens, load, wrap
from tokenization.samples import TERMS, vocabulary


@pytest.fixture(scope="session")
def user_dictionary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A MeCab user dictionary of the terms."""
    import fugashi
    import ipadic

    folder = tmp_path_factory.mktemp("dictionary")
    rows = "".join(f"{term},1285,1285,1000,名詞,一般,*,*,*,*,{term},*,*\n" for term in TERMS)
    (folder / "terms.csv").write_text(rows, encoding="utf-8")
    system, target = ipadic.DICDIR, folder / "user.dic"
    fugashi.build_dictionary(f'x -f utf8 -t utf8 -d "{system}" -u "{target}" "{folder / "terms.csv"}"')
    return target


@pytest.fixture(scope="session")
def strict_folder(tmp_path_factory: pytest.TempPathFactory, user_dictionary: Path) -> Path:
    """A saved tokenizer of the strict form."""
    folder = tmp_path_factory.mktemp("strict") / "tokenizer"
    wrap(vocabulary(), user_dictionary, segment="strict").save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def plain_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved tokenizer of the plain form, same vocabulary."""
    folder = tmp_path_factory.mktemp("plain") / "tokenizer"
    wrap(vocabulary(), segment="plain").save_pretrained(folder)
    return folder


@pytest.fixture(scope="session", params=["strict", "plain"])
def folder(request: pytest.FixtureRequest, strict_folder: Path, plain_folder: Path) -> Path:
    """The folder of either form."""
    return strict_folder if request.param == "strict" else plain_folder


@pytest.fixture(scope="session")
def tokenizer(folder: Path) -> RinshoTokenizer:
    """The tokenizer of either form."""
    return load(folder)


@pytest.fixture(scope="session")
def strict(strict_folder: Path) -> RinshoTokenizer:
    """The tokenizer of the strict form."""
    return load(strict_folder)


@pytest.fixture(scope="session")
def plain(plain_folder: Path) -> RinshoTokenizer:
    """The tokenizer of the plain form."""
    return load(plain_folder)


@pytest.fixture(scope="session")
def chat_tokenizer(folder: Path) -> RinshoTokenizer:
    """The tokenizer of either form, with the chat tokens."""
    tokenizer = load(folder)
    add_chat_tokens(tokenizer)
    return tokenizer
