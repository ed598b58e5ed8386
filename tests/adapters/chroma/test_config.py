"""Where a URL leads; nothing is sent."""

from __future__ import annotations

from pathlib import Path

import pytest

from polyvec.config import parse_url
from polyvec.errors import ConfigurationError
from polyvec_adapters.chroma import ADAPTER, EXAMPLES, ChromaConfig
from polyvec_adapters.chroma.store import settings

CLOUD = "chroma://api.trychroma.com"


def config(url: str, **options: object) -> ChromaConfig:
    return ChromaConfig.make(parse_url(url), options)


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CHROMA_API_KEY", "CHROMA_TENANT", "CHROMA_DATABASE"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("url", EXAMPLES)
def test_the_examples(url: str) -> None:
    assert config(url, api_key="key" if CLOUD in url else None).timeout_s == 30


def test_the_cloud() -> None:
    found = config(f"{CLOUD}?tenant=T&database=D", api_key="secret")
    native = settings(found)
    assert (found.tenant, found.database, found.cloud) == ("T", "D", True)
    assert native.chroma_api_impl == "chromadb.api.fastapi.FastAPI"
    assert native.chroma_server_host == "api.trychroma.com"
    assert native.chroma_server_http_port == 443
    assert native.chroma_server_ssl_enabled is True
    assert native.chroma_server_headers == {"x-chroma-token": "secret"}
    assert native.chroma_overwrite_singleton_tenant_database_access_from_auth is True
    assert native.anonymized_telemetry is False
    assert "secret" not in repr(found)


def test_the_cloud_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match="CHROMA_API_KEY"):
        config(CLOUD)
    monkeypatch.setenv("CHROMA_API_KEY", "from-env")
    monkeypatch.setenv("CHROMA_TENANT", "T")
    monkeypatch.setenv("CHROMA_DATABASE", "D")
    found = config(CLOUD, database="given")
    assert (found.key, found.tenant, found.database) == ("from-env", "T", "given")


@pytest.mark.parametrize(
    "url", ["chroma://db.example.com", "chroma:./data", "chroma://trychroma.com.evil.org"]
)
def test_the_keys_of_the_cloud_reach_nobody_else(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHROMA_API_KEY", "from-env")
    monkeypatch.setenv("CHROMA_TENANT", "T")
    found = config(url)
    assert isinstance(found, ChromaConfig)
    assert (found.key, found.tenant, found.database) == (None, None, None)
    assert "from-env" not in repr(settings(found).model_dump())


def test_a_server() -> None:
    native = settings(config("chroma://localhost"))
    assert (native.chroma_server_host, native.chroma_server_http_port) == ("localhost", 8000)
    assert native.chroma_server_ssl_enabled is False
    assert native.chroma_server_headers == {}
    assert settings(config("chroma://host:1234")).chroma_server_http_port == 1234
    assert settings(config("chroma://[::1]:1234")).chroma_server_host == "[::1]"


def test_a_server_behind_a_proxy() -> None:
    native = settings(config("chroma://user:pass%2Fword@host?tls=true"))
    assert native.chroma_server_http_port == 443
    assert native.chroma_server_ssl_enabled is True
    assert native.chroma_server_headers == {"Authorization": "Basic dXNlcjpwYXNzL3dvcmQ="}
    assert settings(config("chroma://:KEY@host")).chroma_server_headers == {"x-chroma-token": "KEY"}


def test_a_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    native = settings(config("chroma:./data"))
    assert native.is_persistent
    assert native.persist_directory == str(tmp_path / "data")
    assert native == settings(config(f"chroma:{tmp_path}/x/../data")) != settings(config("chroma:./other"))


def test_neither_the_environment_nor_a_dot_env_file_leaks_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = settings(config("chroma://host:1"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text(
        "CHROMA_SERVER_HOST=evil\nALLOW_RESET=true\nCHROMA_SERVER_SSL_VERIFY=false\n"
    )
    monkeypatch.setenv("CHROMA_SERVER_HTTP_PORT", "9")
    monkeypatch.setenv("IS_PERSISTENT", "true")
    assert settings(config("chroma://host:1")) == before


@pytest.mark.parametrize(
    ("url", "options", "message"),
    [
        ("chroma:", {}, "chroma:./data"),
        ("chroma://", {}, "chroma:./data"),
        ("chroma://a,b", {}, "one host"),
        ("chroma://host/db", {}, "database=NAME"),
        ("chroma:./data", {"api_key": "x"}, "a directory has no api_key"),
        ("chroma:./data", {"tls": True}, "a directory has no tls"),
        ("chroma://host?tennant=x", {}, "did you mean 'tenant'"),
    ],
)
def test_what_makes_no_sense_is_refused(url: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        config(url, **options)


def test_every_ability_that_is_off_has_a_reason() -> None:
    capabilities = ADAPTER.capabilities
    for name in ("exact_query", "flat_index", "native_filters", "native_namespaces"):
        assert not getattr(capabilities, name)
        assert name in capabilities.reasons
    assert "https://github.com/chroma-core/chroma/issues/" in capabilities.reason("exact_query")
