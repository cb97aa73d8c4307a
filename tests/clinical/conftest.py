"""A model without weights, base and chat, and one of ours with random weights."""

import pytest

from clinical.toy_opened import opened, our_tokenizer
from generate_many.toy_gguf import our_folder


@pytest.fixture(scope="session")
def tokenizer():
    return our_tokenizer()


@pytest.fixture(scope="session")
def base():
    return opened(our_tokenizer(chat=False))


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    """A folder with random weights."""
    return our_folder(tmp_path_factory.mktemp("toy") / "model", window=512)
