"""A tiny model of ours as a folder and as a GGUF file; a foreign one likewise."""

import pytest

from generate_many.toy_gguf import export, our_folder
from toy_models import toy_folder


@pytest.fixture(scope="session")
def ours(tmp_path_factory):
    return our_folder(tmp_path_factory.mktemp("toy") / "ours")


@pytest.fixture(scope="session")
def ours_gguf(ours):
    """A folder with one f32 file."""
    pytest.importorskip("llama_cpp")
    return export(ours, ours.parent / "gguf")


@pytest.fixture(scope="session")
def foreign(tmp_path_factory):
    return toy_folder(tmp_path_factory.mktemp("toy") / "foreign")


@pytest.fixture(scope="session")
def foreign_gguf(foreign):
    pytest.importorskip("llama_cpp")
    return export(foreign, foreign.parent / "gguf")
