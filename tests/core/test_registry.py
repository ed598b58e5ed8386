"""Adapters are found by entry points, opened by URL or name; a broken or missing one says so."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType

import pytest

import polyvec
from polyvec import (
    ConfigurationError,
    MissingDriverError,
    UnsupportedOperationError,
    adapters,
    connect,
)
from polyvec import registry as registry_module
from polyvec.config import StoreConfig, parse_url
from polyvec.registry import adapter_for
from polyvec_adapters.memory.store import MemoryStore
from tests.core.fake import ADAPTER, FakeStore


@pytest.fixture
def clean_cache() -> Iterator[None]:
    adapters.cache_clear()
    yield
    adapters.cache_clear()


@pytest.fixture
def entries(monkeypatch: pytest.MonkeyPatch, clean_cache: None) -> list[EntryPoint]:
    """The entry points that are found; the fake adapter is one."""
    found = [
        EntryPoint("memory", "polyvec_adapters.memory:ADAPTER", "polyvec.adapters"),
        EntryPoint("fake", "tests.core.fake:ADAPTER", "polyvec.adapters"),
    ]

    def entry_points(*, group: str) -> list[EntryPoint]:
        assert group == "polyvec.adapters"
        return found

    monkeypatch.setattr(registry_module, "entry_points", entry_points)
    return found


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("POLYVEC_CONFIG", raising=False)
    return tmp_path


def test_every_adapter_of_the_wheel_can_be_loaded(
    caplog: pytest.LogCaptureFixture, clean_cache: None
) -> None:
    found = adapters()
    assert "memory" in found
    assert list(found) == sorted(found)
    for name, adapter in found.items():
        assert adapter.name == name
        assert re.fullmatch(r'pip install "polyvec(\[[a-z]+\])?"', adapter.install_command)
        for example in adapter.examples:
            assert parse_url(example).scheme in adapter.schemes
            assert adapter_for(parse_url(example).scheme) is adapter
        json_safe = adapter.capabilities.as_dict()
        assert json_safe["metrics"]


def test_a_broken_adapter_does_not_break_the_others(
    entries: list[EntryPoint], caplog: pytest.LogCaptureFixture
) -> None:
    entries += [
        EntryPoint("gone", "no_such_package:ADAPTER", "polyvec.adapters"),
        EntryPoint("attribute", "tests.core.fake:NO_SUCH", "polyvec.adapters"),
        EntryPoint("wrong", "tests.core.fake:FakeStore", "polyvec.adapters"),
        EntryPoint("other-name", "tests.core.fake:ADAPTER", "polyvec.adapters"),
    ]
    with caplog.at_level(logging.WARNING, "polyvec.registry"):
        assert list(adapters()) == ["fake", "memory"]
        adapters()
    assert [record.getMessage() for record in caplog.records] == [
        "the adapter 'gone' (no_such_package:ADAPTER) cannot be used",
        "the adapter 'attribute' (tests.core.fake:NO_SUCH) cannot be used",
        "the adapter 'wrong' (tests.core.fake:FakeStore) cannot be used",
        "the adapter 'other-name' (tests.core.fake:ADAPTER) cannot be used",
    ]
    assert "ModuleNotFoundError: No module named 'no_such_package'" in caplog.text
    assert connect("fake://").name == "fake"


def test_schemes(entries: list[EntryPoint]) -> None:
    assert adapter_for("fake") is ADAPTER
    with pytest.raises(
        ConfigurationError,
        match=r"no adapter opens 'memry' URLs \(did you mean 'memory'\?\); known are fake, memory",
    ):
        connect("memry://")


def test_connect_by_url(entries: list[EntryPoint]) -> None:
    store = connect("FAKE://host?timeout_s=3", tls=True)
    assert isinstance(store, FakeStore)
    assert (store.config.timeout_s, store.config.tls) == (3, True)
    assert store.retry.budget_s == 3
    assert store.native == {}


def test_connect_by_name(entries: list[EntryPoint], project: Path) -> None:
    (project / "polyvec.toml").write_text(
        """
        [stores.docs]
        url = "fake://host?timeout_s=3"
        timeout_s = 4
        tls = true
        [defaults]
        store = "docs"
        """
    )
    for target, options, expected in [("docs", {}, 4), (None, {}, 4), ("docs", {"timeout_s": 5}, 5)]:
        store = connect(target, **options)
        assert isinstance(store, FakeStore)
        assert (store.config.timeout_s, store.config.tls) == (expected, True), "the call, the file, the URL"
    with pytest.raises(ConfigurationError, match=r"there is no store 'doc' \(did you mean 'docs'\?\)"):
        connect("doc")


def test_connect_without_a_target(entries: list[EntryPoint], project: Path) -> None:
    with pytest.raises(
        ConfigurationError, match=r"say which store: a URL such as chroma:./data, a name from "
    ):
        connect()
    (project / "polyvec.toml").write_text("[defaults]\nstore = 'nowhere'\n")
    with pytest.raises(ConfigurationError, match="there is no store 'nowhere'"):
        connect()


def test_unknown_options_at_every_level(entries: list[EntryPoint], project: Path) -> None:
    (project / "polyvec.toml").write_text('[stores.docs]\nurl = "fake://h"\ntimeout = 4\n')
    calls: list[Callable[[], object]] = [
        lambda: connect("docs"),
        lambda: connect("fake://h?timeout=4"),
        lambda: connect("fake://h", timeout=4),
    ]
    for call in calls:
        with pytest.raises(
            ConfigurationError,
            match=r"fake: unknown option 'timeout' \(did you mean 'timeout_s'\?\); options are",
        ):
            call()


def test_a_missing_driver_prints_the_line_that_installs_it(entries: list[EntryPoint]) -> None:
    adapter = replace(
        ADAPTER, name="qdrant", title="Qdrant", driver=("json", "no_such_driver"), requires="polyvec[qdrant]"
    )
    assert not adapter.installed
    with pytest.raises(MissingDriverError) as caught:
        adapter.open(StoreConfig(url=parse_url("qdrant://host")))
    assert str(caught.value) == (
        'qdrant: the driver of Qdrant is not installed; run: pip install "polyvec[qdrant]"'
    )


@pytest.mark.parametrize("module", ["no_such_parent.driver", "json.no_such_module"])
def test_a_driver_may_be_a_module_in_a_package(module: str) -> None:
    assert not replace(ADAPTER, driver=(module,)).installed
    assert replace(ADAPTER, driver=("json.decoder", "sys")).installed


def test_a_driver_that_cannot_be_imported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It is there, but too old for the adapter: a name is missing from it."""
    monkeypatch.setitem(sys.modules, "a_driver", ModuleType("a_driver"))
    folder = tmp_path / "an_adapter_of_tomorrow.py"
    folder.write_text("from a_driver import AsyncClient\n")
    monkeypatch.syspath_prepend(tmp_path)
    adapter = replace(ADAPTER, store="an_adapter_of_tomorrow:Store", requires="polyvec[fake]")
    with pytest.raises(MissingDriverError) as caught:
        adapter.open(StoreConfig(url=parse_url("fake://")))
    assert str(caught.value) == (
        "fake: the driver of Fake cannot be imported (cannot import name 'AsyncClient' from 'a_driver' "
        '(unknown location)); run: pip install "polyvec[fake]"'
    )
    assert isinstance(caught.value.__cause__, ImportError)


def test_memory_stores() -> None:
    alone, other = connect("memory://"), connect("memory:")
    alone.create_collection("docs", 2)
    assert other.list_collections() == []
    one, two = connect("memory://core-registry"), connect("memory://core-registry")
    one.create_collection("docs", 2).upsert(polyvec.Record("a", [1.0, 0.0]))
    assert two.collection("docs").count() == 1
    one.close()
    assert two.list_collections() == ["docs"]
    with pytest.raises(UnsupportedOperationError, match="the store is closed"):
        one.list_collections()
    two.drop_collection("docs")
    assert isinstance(alone, MemoryStore)
    assert alone.version.startswith("numpy ")


@pytest.mark.parametrize("url", ["memory:name", "memory://a/b", "memory:///a", "memory://a,b"])
def test_wrong_memory_urls(url: str) -> None:
    with pytest.raises(
        ConfigurationError, match=r"^memory: connect: write memory:// \(a store of its own\) or m"
    ):
        connect(url)


def test_every_public_name_is_importable() -> None:
    assert len(polyvec.__all__) == len(set(polyvec.__all__))
    for name in polyvec.__all__:
        assert getattr(polyvec, name) is not None
    assert {"F", "Record", "RecordBatch", "VectorStore", "Collection", "connect", "PolyvecError"} <= {
        *polyvec.__all__
    }
