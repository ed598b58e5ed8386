"""Zilliz Cloud: where a URL leads, and the adapter on a server with authentication; the rest is Milvus."""

from __future__ import annotations

from pathlib import Path

import pytest

import polyvec
from polyvec.config import parse_url
from polyvec.errors import AuthenticationError, ConfigurationError, UnsupportedOperationError
from polyvec.types import FlatIndex, HnswIndex, Record
from polyvec_adapters.zilliz import ADAPTER, EXAMPLES, ZillizConfig
from polyvec_adapters.zilliz.store import ZillizStore
from tests.servers.milvus import ROOT_USER, start_milvus


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ZILLIZ_API_KEY", raising=False)


def config(url: str, **options: object) -> ZillizConfig:
    return ZillizConfig.make(parse_url(url), options)


@pytest.mark.parametrize("url", EXAMPLES)
def test_the_examples(url: str) -> None:
    assert config(url).level == 6


@pytest.mark.parametrize(
    ("url", "what"),
    [
        ("zilliz://abc.zillizcloud.com", "give an API key"),
        ("zilliz:./data.db", "say where the cluster is"),
        ("zilliz://:KEY@host?level=11", "level must be 1 to 10, not 11"),
        ("zilliz://:KEY@a,b", "one host"),
    ],
)
def test_what_is_refused(url: str, what: str) -> None:
    with pytest.raises(ConfigurationError, match=what):
        config(url)


def test_keys() -> None:
    found = [
        config("zilliz://:KEY@host"),
        config("zilliz://me:sesame@host"),
        config("zilliz://h", api_key="KEY"),
    ]
    assert [each.token for each in found] == ["KEY", "me:sesame", "KEY"]


def test_the_key_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZILLIZ_API_KEY", "from-env")
    found = config("zilliz://host")
    assert (found.token, "from-env" in repr(found)) == ("from-env", False)


@pytest.mark.parametrize("name", ["hnsw_index", "flat_index"])
def test_the_index_is_the_clouds(name: str) -> None:
    assert not getattr(ADAPTER.capabilities, name)
    assert "AUTOINDEX" in ADAPTER.capabilities.reason(name)


@pytest.mark.server
def test_a_server_with_authentication(tmp_path: Path) -> None:
    with start_milvus(tmp_path / "data", tmp_path / "log", authorization=True) as url:
        address = url.removeprefix("milvus://")
        with pytest.raises(AuthenticationError) as caught:
            polyvec.connect(f"zilliz://:sesame@{address}?tls=false")
        assert "sesame" not in str(caught.value)
        with polyvec.connect(f"zilliz://{ROOT_USER}@{address}?tls=false") as store:
            assert isinstance(store, ZillizStore)
            for index in (HnswIndex(), FlatIndex()):
                with pytest.raises(UnsupportedOperationError, match="AUTOINDEX"):
                    store.create_collection("docs", 4, "cosine", index=index)
            collection = store.create_collection("docs", 4, "cosine")
            collection.upsert([Record("a", [1, 0, 0, 0]), Record("b", [0, 1, 0, 0])])
            assert [match.id for match in collection.query([1, 0, 0, 0])] == ["a", "b"]
            assert store.native.describe_index("docs", "vector")["index_type"] == "AUTOINDEX"
