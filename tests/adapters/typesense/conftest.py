from __future__ import annotations

from collections.abc import Iterator

import pytest

import polyvec
from polyvec_adapters.typesense.store import TypesenseStore
from tests.servers.backends import BACKENDS


def open_typesense(url: str, **options: object) -> TypesenseStore:
    store = polyvec.connect(url, **options)
    assert isinstance(store, TypesenseStore)
    return store


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TypesenseStore]:
    """A store of a real server."""
    with (
        BACKENDS["typesense"].running(tmp_path_factory.mktemp("typesense")) as open_store,
        open_store() as store,
    ):
        assert isinstance(store, TypesenseStore)
        yield store
