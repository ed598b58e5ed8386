"""Where a URL leads, and how collections are named there; nothing is sent."""

from __future__ import annotations

import re
from hashlib import blake2b

import pytest

from polyvec.config import parse_url
from polyvec.errors import ConfigurationError, UnsupportedOperationError
from polyvec.types import CollectionSpec, EmbeddingSpace
from polyvec_adapters.pinecone import ADAPTER, EXAMPLES, PineconeConfig
from polyvec_adapters.pinecone.names import native_name, spec_of, spec_tags


def config(url: str, **options: object) -> PineconeConfig:
    return PineconeConfig.make(parse_url(url), options)


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PINECONE_API_KEY", raising=False)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("pinecone://:k@", "https://api.pinecone.io"),
        ("pinecone://127.0.0.1:5080", "http://127.0.0.1:5080"),
        ("pinecone://localhost:5080", "http://localhost:5080"),
        ("pinecone://[::1]:5080", "http://[::1]:5080"),
        ("pinecone://127.0.0.1?tls=true", "https://127.0.0.1"),
        ("pinecone://:k@10.0.0.7:5080?tls=false", "http://10.0.0.7:5080"),
        ("pinecone://:k@api.example.com", "https://api.example.com"),
    ],
)
def test_addresses(url: str, expected: str) -> None:
    assert config(url).control_url == expected


def test_the_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PINECONE_API_KEY", "k")
    for url in EXAMPLES:
        assert config(url).control_url
    assert (config("pinecone://?cloud=gcp&region=us-central1").cloud) == "gcp"


def test_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    assert config("pinecone://127.0.0.1").key is None  # an emulator asks for none
    monkeypatch.setenv("PINECONE_API_KEY", "of-the-environment")
    assert config("pinecone://").key == "of-the-environment"
    assert config("pinecone://:of-the-url@").key == "of-the-url"
    found = config("pinecone://", api_key="given-secret")
    assert found.key == "given-secret"
    assert "secret" not in repr(found)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("pinecone://", "PINECONE_API_KEY"),
        ("pinecone://api.pinecone.io", "PINECONE_API_KEY"),
        ("pinecone://user:k@", "there are no users"),
        ("pinecone://:k@a,b", "one host"),
        ("pinecone://:k@host/index", "each collection is an index"),
        ("pinecone://:k@?regoin=x", "did you mean 'region'"),
        ("pinecone://:k@?create_timeout_s=0", "create_timeout_s"),
    ],
)
def test_what_is_wrong(url: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(message)):
        config(url)


def test_the_support_table_says_that_it_is_an_emulator() -> None:
    assert "emulator" in ADAPTER.tested
    assert "neither the cloud nor Pinecone Local was run" in ADAPTER.tested


def test_names_of_indexes() -> None:
    names = [
        "docs",
        "a-b-0",
        "x" * 45,
        "Docs",
        "x" * 46,
        "a_b",
        "a.b",
        ".",
        "-a",
        "a-",
        "polyvec-x",
        "X" * 128,
    ]
    found = [native_name(name) for name in names]
    assert found[:3] == names[:3]
    assert len(set(found)) == len(names)
    for name in found:
        assert re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,43}[a-z0-9])?", name)
    assert native_name("Docs") == "polyvec-tk2dcwdmwqt64pkfbfqrlcw4"


def test_specs_are_kept_in_tags() -> None:
    spec = CollectionSpec(
        "Docs", 512, "dot", {"é": "int", "x" * 128: "datetime"}, None, EmbeddingSpace("local", "m", 512)
    )
    tags = spec_tags(spec)
    assert spec_of(tags | {"team": "search"}) == spec
    assert spec_of({"team": "search"}) is None
    assert spec_of(None) is None
    for key, value in tags.items():
        assert re.fullmatch(r"[A-Za-z0-9_-]{1,80}", key)
        assert re.fullmatch(r"[A-Za-z0-9;@_.+ -]{1,120}", value)


def test_a_spec_that_is_too_long() -> None:
    hints = {blake2b(bytes([number])).hexdigest(): "int" for number in range(40)}
    with pytest.raises(UnsupportedOperationError, match="leave out `indexes`"):
        spec_tags(CollectionSpec("docs", 3, "dot", hints))  # type: ignore[arg-type]  # of str
