"""Where a URL leads; nothing is sent."""

from __future__ import annotations

import pytest

from polyvec.config import parse_url
from polyvec.errors import ConfigurationError
from polyvec_adapters.milvus import EXAMPLES, MilvusConfig


def config(url: str, **options: object) -> MilvusConfig:
    return MilvusConfig.make(parse_url(url), options)


@pytest.mark.parametrize("url", EXAMPLES)
def test_the_examples(url: str) -> None:
    assert config(url).timeout_s == 30


@pytest.mark.parametrize(
    ("url", "database"),
    [
        ("milvus://host", ""),
        ("milvus://host/", ""),
        ("milvus://host/books", "books"),
        ("milvus://host?database=books", "books"),
        ("milvus://host/books?database=books", "books"),
        ("milvus:./data.db", ""),
    ],
)
def test_databases(url: str, database: str) -> None:
    assert config(url).database_name == database


@pytest.mark.parametrize(
    ("url", "what"),
    [
        ("milvus://a,b", "one host"),
        ("milvus://host/books?database=films", "two databases, 'books' in the URL and 'films'"),
        ("milvus:./data", "say where the store is"),
        ("milvus://host?tokn=x", "unknown option"),
    ],
)
def test_what_is_refused(url: str, what: str) -> None:
    with pytest.raises(ConfigurationError, match=what):
        config(url)


@pytest.mark.parametrize(
    ("url", "token"),
    [
        ("milvus://host", None),
        ("milvus://me:sesame@host", "me:sesame"),
        ("milvus://me@host", "me:"),
        ("milvus://:KEY@host", "KEY"),
    ],
)
def test_tokens(url: str, token: str | None) -> None:
    assert config(url).token == token


def test_the_token_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MILVUS_TOKEN", "from:env")
    tokens = [config(url).token for url in ("milvus://host", "milvus://me:given@host")]
    assert tokens == ["from:env", "me:given"]


def test_passwords_are_not_shown() -> None:
    for found in (config("milvus://me:sesame@host"), config("milvus://host", api_key="sesame")):
        assert "sesame" not in repr(found)
        assert "sesame" in found.secrets()
