from __future__ import annotations

from collections.abc import Iterator

import pytest

import polyvec
from polyvec_adapters.redis.store import RedisStore
from tests.servers.redis import start_redis


def open_redis(url: str, **options: object) -> RedisStore:
    store = polyvec.connect(url, **options)
    assert isinstance(store, RedisStore)
    return store


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REDISCLI_AUTH", raising=False)


@pytest.fixture(scope="session")
def server_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a real server that all tests share."""
    folder = tmp_path_factory.mktemp("redis")
    with start_redis(folder / "data", folder / "log") as url:
        yield url


@pytest.fixture
def store(server_url: str) -> Iterator[RedisStore]:
    """A store of that server, emptied."""
    with open_redis(server_url) as opened:
        for name in opened.list_collections():
            opened.drop_collection(name)
        yield opened
