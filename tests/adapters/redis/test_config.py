"""Where a URL leads; nothing is sent."""

from __future__ import annotations

import pytest

from polyvec.config import parse_url
from polyvec.errors import ConfigurationError
from polyvec_adapters.redis import EXAMPLES, RedisConfig


def config(url: str, **options: object) -> RedisConfig:
    return RedisConfig.make(parse_url(url), options)


@pytest.mark.parametrize("url", EXAMPLES)
def test_the_examples(url: str) -> None:
    assert config(url).timeout_s == 30


@pytest.mark.parametrize("url", ["redis://host", "redis://host/", "redis://host:6379/0"])
def test_the_only_database(url: str) -> None:
    assert config(url).encrypted is False


@pytest.mark.parametrize(
    ("url", "what"),
    [
        ("redis://host/1", "database 0"),
        ("redis://host/docs", "database 0"),
        ("redis:./data", "say where the server is"),
        ("redis://a,b", "one host"),
        ("rediss://host?tls=false", "rediss:// is encrypted"),
        ("redis://host?ca_certs=ca.pem", "encrypted connection"),
        ("redis://host?prot=2", "unknown option"),
    ],
)
def test_what_is_refused(url: str, what: str) -> None:
    with pytest.raises(ConfigurationError, match=what):
        config(url)


def test_encryption() -> None:
    assert config("rediss://host").encrypted
    assert config("redis://host", tls=True, ca_certs="ca.pem").ca_certs == "ca.pem"


def test_passwords_are_not_shown() -> None:
    for found in (config("redis://:sesame@host"), config("redis://me:sesame@host")):
        assert "sesame" not in repr(found)
        assert found.secrets() == ["sesame"]


def test_the_password_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDISCLI_AUTH", "from-env")
    assert config("redis://host").key == "from-env"
    assert config("redis://:given@host").key == "given"
