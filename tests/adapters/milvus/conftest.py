from __future__ import annotations

from collections.abc import Iterator

import pytest

import polyvec
from polyvec_adapters.milvus.store import MilvusStore
from tests.servers.milvus import ROOT_USER, start_milvus


def open_milvus(url: str, **options: object) -> MilvusStore:
    store = polyvec.connect(url, **options)
    assert isinstance(store, MilvusStore)
    return store


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MILVUS_TOKEN", "ZILLIZ_API_KEY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Host and port of a real server with authentication, whose answers have 2 MB at most."""
    folder = tmp_path_factory.mktemp("milvus")
    settings = {"QUOTAANDLIMITS_LIMITS_MAXOUTPUTSIZE": "2000000"}
    with start_milvus(folder / "data", folder / "log", authorization=True, settings=settings) as url:
        yield url.removeprefix("milvus://")


@pytest.fixture
def store(address: str) -> Iterator[MilvusStore]:
    """A store of that server, emptied."""
    with open_milvus(f"milvus://{ROOT_USER}@{address}") as opened:
        for name in opened.list_collections():
            opened.drop_collection(name)
        yield opened
