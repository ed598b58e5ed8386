from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

import polyvec
from polyvec_adapters.pinecone.store import PineconeStore
from tests.servers.pinecone.server import Server

KEY = "the-key-of-the-tests"


def url_of(server: Server) -> str:
    """Return the URL of an emulator."""
    return f"pinecone://:{KEY}@127.0.0.1:{server.server_port}"


def open_pinecone(url: str, **options: object) -> PineconeStore:
    store = polyvec.connect(url, **options)
    assert isinstance(store, PineconeStore)
    return store


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    """A function that starts an emulator in this process; all end with the test."""
    with ExitStack() as running:
        yield lambda **options: running.enter_context(Server(KEY, **options))


@pytest.fixture
def emulator(serve: Callable[..., Server]) -> Server:
    """An emulator as the contract runs on it."""
    return serve()


@pytest.fixture
def store(emulator: Server) -> Iterator[PineconeStore]:
    """A store of that emulator."""
    with open_pinecone(url_of(emulator)) as opened:
        yield opened
