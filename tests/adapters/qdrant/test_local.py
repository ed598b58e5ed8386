"""The options of a store, and the driver's local mode: shared in the process, one thread at a time."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest
from qdrant_client import QdrantClient, models

import polyvec
from polyvec.config import parse_url
from polyvec.errors import (
    BackendUnavailableError,
    CollectionNotFoundError,
    ConfigurationError,
    ForeignCollectionError,
    UnsupportedOperationError,
)
from polyvec.filters import F
from polyvec.protocol import Collection
from polyvec.testing import data
from polyvec.testing.compare import assert_holds
from polyvec.types import FlatIndex, HnswIndex, Record
from polyvec_adapters.qdrant import ADAPTER, QdrantConfig
from polyvec_adapters.qdrant.connect import Local, client_options
from polyvec_adapters.qdrant.store import QdrantCollection, QdrantStore

pytestmark = pytest.mark.server

A, B = [1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]


def left_out(collection: Collection) -> bool:
    """Whether requests do without the condition on the namespace."""
    assert isinstance(collection, QdrantCollection)
    with collection.store.session():
        return collection._within(None) is None


def options(url: str, **more: object) -> dict[str, object]:
    return client_options(QdrantConfig.make(parse_url(url), more))


class TestOptions:
    @pytest.mark.parametrize(
        ("url", "expected"),
        [
            ("qdrant://db", {"host": "db", "port": 6333, "https": False, "headers": {}, "prefix": None}),
            ("qdrant://db:7333/behind/", {"port": 7333, "prefix": "/behind"}),
            ("qdrant://:KEY@db", {"headers": {"api-key": "KEY"}, "https": True}),
            ("qdrant://db?api_key=KEY", {"headers": {"api-key": "KEY"}, "https": True}),
            ("qdrant://:KEY@db?tls=false", {"https": False}),
            ("qdrant://db?tls=true", {"https": True}),
            ("qdrant://:KEY@localhost", {"https": False}),
            ("qdrant://:KEY@127.0.0.9", {"https": False}),
            ("qdrant://:KEY@[::1]:7333", {"https": False, "host": "[::1]", "port": 7333}),
            ("qdrant://:KEY@localhost?tls=true", {"https": True}),
            ("qdrant://db?prefer_grpc=true&grpc_port=7334", {"prefer_grpc": True, "grpc_port": 7334}),
            ("qdrant://db", {"prefer_grpc": False, "grpc_port": 6334, "timeout": 30}),
            ("qdrant://db?timeout_s=1.2", {"timeout": 2}),
        ],
    )
    def test_of_a_server(self, url: str, expected: dict[str, object]) -> None:
        found = options(url)
        assert {name: found[name] for name in expected} == expected
        assert found["check_compatibility"] is False

    def test_the_vendors_variable(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("QDRANT_API_KEY", "FROM_ENV")
        assert options("qdrant://db")["headers"] == {"api-key": "FROM_ENV"}
        assert options("qdrant://db", api_key="GIVEN")["headers"] == {"api-key": "GIVEN"}
        assert "FROM_ENV" not in repr(QdrantConfig.make(parse_url("qdrant://db"), {}))

    @pytest.mark.parametrize(
        ("url", "message"),
        [
            ("qdrant:", r"qdrant:\./data"),
            ("qdrant://", r"qdrant:\./data"),
            ("qdrant://me:pw@db", "no users"),
            ("qdrant://a,b", "one host"),
            ("qdrant:./data?prefer_grpc=true", "needs a server"),
            ("qdrant://db?grpc=true", "did you mean"),
        ],
    )
    def test_wrong_ones(self, url: str, message: str) -> None:
        with pytest.raises(ConfigurationError, match=message) as caught:
            polyvec.connect(url)
        assert "pw" not in str(caught.value)

    def test_the_adapter_can_be_read_without_the_driver(self) -> None:
        code = "import sys, polyvec_adapters.qdrant; assert 'qdrant_client' not in sys.modules"
        subprocess.run([sys.executable, "-c", code], check=True)
        assert ADAPTER.installed
        assert ADAPTER.install_command == 'pip install "polyvec[qdrant]"'
        for url in ADAPTER.examples:
            QdrantConfig.make(parse_url(url), {})

    def test_memory_from_a_configuration_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        file = tmp_path / "polyvec.toml"
        file.write_text('[stores.m]\nurl = "qdrant::memory:"\n[stores.d]\nurl = "qdrant:./data"\n')
        monkeypatch.setenv("POLYVEC_CONFIG", str(file))
        with polyvec.connect("m") as memory, polyvec.connect("d") as directory:
            assert not memory.capabilities.persistent
            assert directory.capabilities.persistent
        assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["data"]


class TestDirectories:
    def test_records_outlive_the_store(self, tmp_path: Path) -> None:
        written = data.records(20, 4)
        with polyvec.connect(f"qdrant:{tmp_path}/d") as store:
            docs = store.create_collection("docs", 4, "euclidean", indexes={"n": int}, index=FlatIndex())
            docs.upsert(written)
            docs.scoped("tenant").upsert(Record("only here", A))
            docs.update_metadata(["r00001"], set={"n": -1})
            docs.delete(["r00000"])
            spec = docs.info
        with polyvec.connect(f"qdrant:{tmp_path}/d") as store:
            again = store.collection("docs")
            assert again.info == spec
            metadata = {**written[1].metadata, "n": -1}
            changed = Record("r00001", written[1].vector, written[1].text, metadata)
            assert_holds(again, [changed, *written[2:]])
            assert again.count(F("n") < 0) == 1
            assert_holds(again.scoped("tenant"), [Record("only here", A)])

    def test_stores_of_one_process_share_a_directory(self, tmp_path: Path) -> None:
        first = polyvec.connect(f"qdrant:{tmp_path}/d")
        second = polyvec.connect(f"qdrant:{tmp_path}/x/../d/")
        assert first.native is second.native
        first.create_collection("docs", 4).upsert(Record("a", A))
        assert second.collection("docs").count() == 1
        first.close()
        first.close()
        assert second.collection("docs").count() == 1
        with polyvec.connect(f"qdrant:{tmp_path}/e") as other:
            assert other.native is not second.native
        second.close()
        assert str(tmp_path / "d") not in Local._open

    # the driver leaves its lock file open when somebody else holds the lock
    @pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
    def test_another_process_has_it(self, tmp_path: Path) -> None:
        code = (
            "import sys, polyvec\n"
            f"with polyvec.connect('qdrant:{tmp_path}/d'):\n"
            "    print('open', flush=True)\n"
            "    sys.stdin.read()\n"
        )
        command = [sys.executable, "-c", code]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"open\n"
            with pytest.raises(BackendUnavailableError, match="another process"):
                polyvec.connect(f"qdrant:{tmp_path}/d")
            process.communicate()
        polyvec.connect(f"qdrant:{tmp_path}/d").close()

    def test_what_somebody_else_made(self, tmp_path: Path) -> None:
        client = QdrantClient(path=str(tmp_path / "d"))
        client.create_collection("theirs", models.VectorParams(size=4, distance=models.Distance.DOT))
        client.close()
        with polyvec.connect(f"qdrant:{tmp_path}/d") as store:
            assert store.list_collections() == []
            with pytest.raises(ForeignCollectionError):
                store.collection("theirs")


class TestMemory:
    def test_each_store_is_its_own(self) -> None:
        with polyvec.connect("qdrant::memory:") as one, polyvec.connect("qdrant::memory:") as other:
            one.create_collection("docs", 4)
            assert other.list_collections() == []
            assert one.version

    def test_it_has_no_graph(self) -> None:
        with polyvec.connect("qdrant::memory:") as store:
            assert not store.capabilities.hnsw_index
            with pytest.raises(UnsupportedOperationError, match="local mode"):
                store.create_collection("docs", 4, index=HnswIndex())
            assert store.create_collection("docs", 4, index=FlatIndex()).info.index == FlatIndex()

    def test_it_never_warns(self, recwarn: pytest.WarningsRecorder) -> None:
        with polyvec.connect("qdrant::memory:") as store:
            docs = store.create_collection("docs", 4, "dot", indexes={"n": int})
            docs.upsert([*data.records(30, 4), Record("large", [3e38, -3e38, 3e38, 0])])
            docs.query(A, exact=True, filter=F("n") > 1)
            docs.query([3e38, 3e38, 1, 0], limit=100)
        assert not recwarn.list

    def test_threads_lose_nothing(self) -> None:
        """The driver loses most writes of several threads; see `Local`."""
        with polyvec.connect("qdrant::memory:") as store:
            docs = store.create_collection("docs", 4)
            failures: list[BaseException] = []

            def work(number: int) -> None:
                try:
                    for step in range(20):
                        docs.upsert(
                            [Record(f"r{number}-{step}-{i}", A, None, {"n": number}) for i in range(5)]
                        )
                        assert docs.count(F("n") == number) == 5 * (step + 1)
                        docs.query(A)
                except BaseException as error:
                    failures.append(error)
                    raise

            threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert failures == []
            assert docs.count() == 800

    def test_a_record_deleted_while_it_is_changed(self) -> None:
        with polyvec.connect("qdrant::memory:") as store:
            docs = store.create_collection("docs", 4)
            docs.upsert([Record("a", A), Record("b", A)])
            docs._do_delete(["a"])  # type: ignore[attr-defined]
            docs._do_set_metadata(["a", "b"], [{"n": 2}, {"n": 2}])  # type: ignore[attr-defined]
            docs._do_set_metadata(["a"], [{"n": 2}])  # type: ignore[attr-defined]
            assert_holds(docs, [Record("b", A, None, {"n": 2})])


class TestTheLeftOutCondition:
    """Where all records are in one namespace its condition is left out, which is a matter of speed only."""

    @pytest.fixture
    def store(self, tmp_path: Path) -> QdrantStore:
        opened = polyvec.connect(f"qdrant:{tmp_path}/d")
        assert isinstance(opened, QdrantStore)
        return opened

    def test_it_is_back_when_another_namespace_is_written(self, store: QdrantStore) -> None:
        docs = store.create_collection("docs", 4)
        docs.upsert(Record("a", A))
        assert left_out(docs)
        assert docs.count() == 1
        tenant = docs.scoped("tenant")
        assert tenant.count() == 0
        assert not left_out(tenant)
        tenant.upsert(Record("b", B))
        assert not left_out(docs)
        assert (docs.count(), tenant.count()) == (1, 1)
        assert [match.id for match in docs.query(A)] == ["a"]
        store.drop_collection("docs")
        again = store.create_collection("docs", 4)
        again.scoped("tenant").upsert(Record("b", B))
        assert left_out(again.scoped("tenant"))
        assert again.count() == 0
        store.close()

    def test_it_is_found_out_when_a_directory_is_opened(self, store: QdrantStore, tmp_path: Path) -> None:
        docs = store.create_collection("docs", 4)
        docs.upsert(Record("a", A))
        docs.scoped("tenant").upsert(Record("b", B))
        store.create_collection("one", 4).upsert(Record("a", A))
        store.close()
        with polyvec.connect(f"qdrant:{tmp_path}/d") as again:
            two, one = again.collection("docs"), again.collection("one")
            one.upsert(Record("c", A))
            assert [record.id for record in two.scan()] == ["a"]
            assert two.count() == 1
            assert one.count() == 2
            assert left_out(one)
            assert not left_out(two)

    def test_a_clear_always_has_it(self, store: QdrantStore) -> None:
        docs = store.create_collection("docs", 4)
        docs.upsert(Record("a", A))
        docs.scoped("tenant").clear()
        assert docs.count() == 1
        docs.clear()
        assert docs.count() == 0
        store.drop_collection("docs")
        with pytest.raises(CollectionNotFoundError):
            docs.count()
        store.close()
