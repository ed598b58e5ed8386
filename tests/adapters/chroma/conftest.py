from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import polyvec
from polyvec_adapters.chroma.store import ChromaStore
from tests.servers.chroma import start_chroma


def open_chroma(url: str, **options: object) -> ChromaStore:
    store = polyvec.connect(url, **options)
    assert isinstance(store, ChromaStore)
    return store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ChromaStore]:
    """A store in a new directory."""
    with open_chroma(f"chroma:{tmp_path / 'data'}") as opened:
        yield opened


@pytest.fixture(scope="session")
def server_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a server of the installed chromadb."""
    folder = tmp_path_factory.mktemp("chroma")
    with start_chroma(folder / "data", folder / "log") as url:
        yield url
