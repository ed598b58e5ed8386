"""Where a URL leads; nothing is sent."""

from __future__ import annotations

import pytest

from polyvec.config import parse_url
from polyvec.errors import ConfigurationError
from polyvec_adapters.typesense import EXAMPLES, TypesenseConfig
from polyvec_adapters.typesense.connect import node_urls


def config(url: str, **options: object) -> TypesenseConfig:
    return TypesenseConfig.make(parse_url(url), options)


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TYPESENSE_API_KEY", raising=False)


@pytest.mark.parametrize("url", EXAMPLES)
def test_the_examples(url: str) -> None:
    assert config(url).key == "KEY"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("typesense://:k@127.0.0.1", ["http://127.0.0.1:8108"]),
        ("typesense://:k@localhost:9000", ["http://localhost:9000"]),
        ("typesense://:k@[::1]:9000", ["http://[::1]:9000"]),
        ("typesense://:k@host", ["https://host:8108"]),
        ("typesense://:k@host?tls=false", ["http://host:8108"]),
        ("typesense://:k@127.0.0.1?tls=true", ["https://127.0.0.1:8108"]),
        ("typesense://:k@a.b:443/search/", ["https://a.b:443/search"]),
        ("typesense://:k@a,b:1,c?tls=false", ["http://a:8108", "http://b:1", "http://c:8108"]),
    ],
)
def test_nodes(url: str, expected: list[str]) -> None:
    assert node_urls(config(url)) == expected


def test_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    assert config("typesense://host", api_key="given").key == "given"
    monkeypatch.setenv("TYPESENSE_API_KEY", "of-the-environment")
    assert config("typesense://host").key == "of-the-environment"
    assert config("typesense://:of-the-url@host").key == "of-the-url"
    found = config("typesense://host", api_key="given-secret")
    assert found.key == "given-secret"
    assert "secret" not in repr(found)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("typesense://host", "TYPESENSE_API_KEY"),
        ("typesense:./data", "say where the server is"),
        ("typesense://user:k@host", "there are no users"),
        ("typesense://:k@host?grpc_port=1", "unknown option 'grpc_port'"),
    ],
)
def test_what_is_refused(url: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        config(url)
