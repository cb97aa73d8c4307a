"""One product of the default size for all tests."""

from __future__ import annotations

import pytest

from rinsho.samples.bank import Bank, load
from samples.made import Product, make


@pytest.fixture(scope="session")
def bank() -> Bank:
    """Terms, facts and patterns."""
    return load()


@pytest.fixture(scope="session")
def product(tmp_path_factory: pytest.TempPathFactory) -> Product:
    """The product of the default recipe."""
    return make(tmp_path_factory.mktemp("samples"))
