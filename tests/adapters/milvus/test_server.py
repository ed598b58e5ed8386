"""What is special to Milvus, on real engines."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pymilvus import MilvusClient

from polyvec.errors import (
    AuthenticationError,
    BackendTimeoutError,
    BackendUnavailableError,
    CollectionNotFoundError,
    ConfigurationError,
    ForeignCollectionError,
    PolyvecError,
)
from polyvec.filters import F
from polyvec.types import FlatIndex, HnswIndex, Record, RecordBatch, WriteReport
from polyvec_adapters.milvus.store import MilvusCollection, MilvusStore
from tests.adapters.milvus.conftest import open_milvus
from tests.servers.milvus import ROOT_USER, start_milvus
from tests.servers.process import free_port

pytestmark = pytest.mark.server


def batch(count: int, metadatas: list[dict[str, Any]] | None = None, text: str | None = None) -> RecordBatch:
    vectors = np.random.default_rng(1).standard_normal((count, 4)).astype(np.float32)
    return RecordBatch([str(n) for n in range(count)], vectors, text and [text] * count, metadatas)


def made(store: MilvusStore, name: str = "docs", **options: Any) -> MilvusCollection:
    collection = store.create_collection(name, 4, "dot", **options)
    assert isinstance(collection, MilvusCollection)
    return collection


def report(error: PolyvecError) -> WriteReport:
    assert isinstance(error.report, WriteReport)
    return error.report


class TestConnecting:
    """Errors come as promised, in time, and without a password."""

    def test_nobody_listens(self) -> None:
        started = time.monotonic()
        with pytest.raises(BackendUnavailableError, match="milvus: connect: "):
            open_milvus(f"milvus://127.0.0.1:{free_port()}", timeout_s=3)
        assert time.monotonic() - started < 4

    def test_nobody_answers(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            started = time.monotonic()
            with pytest.raises((BackendTimeoutError, BackendUnavailableError)):
                open_milvus(f"milvus://127.0.0.1:{listening.getsockname()[1]}", timeout_s=1)
            assert time.monotonic() - started < 4

    @pytest.mark.parametrize("user", ["", "root:sesame@", "nobody:sesame@", ":sesame@"])
    def test_a_wrong_password(self, address: str, user: str) -> None:
        with pytest.raises(AuthenticationError) as caught:
            open_milvus(f"milvus://{user}{address}")
        assert "sesame" not in str(caught.value)

    def test_a_token(self, address: str) -> None:
        with open_milvus(f"milvus://{address}", api_key=ROOT_USER) as store:
            assert store.list_collections() == []

    def test_databases(self, store: MilvusStore, address: str) -> None:
        with pytest.raises(ConfigurationError, match="database"):
            open_milvus(f"milvus://{ROOT_USER}@{address}/books")
        store.native.create_database("books")
        with open_milvus(f"milvus://{ROOT_USER}@{address}/books") as books:
            made(books).upsert(batch(3))
            assert books.list_collections() == ["docs"]
            assert store.list_collections() == []
            assert books.native.list_collections() == ["docs"]
            books.drop_collection("docs")
        store.native.drop_database("books")


class TestCollections:
    def test_one_of_somebody_else(self, store: MilvusStore) -> None:
        store.native.create_collection("theirs", dimension=4)
        with pytest.raises(ForeignCollectionError):
            store.collection("theirs")
        assert store.list_collections() == []
        store.native.drop_collection("theirs")

    @pytest.mark.parametrize(
        ("index", "kind", "parameters"),
        [
            (None, "HNSW", {"M": 16, "efConstruction": 200}),
            (HnswIndex(m=8, ef_construction=50), "HNSW", {"M": 8, "efConstruction": 50}),
            (FlatIndex(), "FLAT", {}),
        ],
    )
    def test_the_index_is_what_was_asked_for(
        self, store: MilvusStore, index: Any, kind: str, parameters: dict[str, int]
    ) -> None:
        collection = made(store, index=index)
        found = store.native.describe_index(collection.native, "vector")
        assert (found["index_type"], found["metric_type"]) == (kind, "IP")
        assert found["params"] == parameters

    def test_one_that_was_released_is_loaded_again(self, store: MilvusStore) -> None:
        collection = made(store)
        collection.upsert(batch(10))
        store.native.release_collection(collection.native)
        assert collection.count() == 10
        assert len(collection.query([1, 0, 0, 0], limit=3)) == 3

    def test_an_alias_and_another_name(self, store: MilvusStore) -> None:
        made(store).upsert(batch(3))
        store.native.create_alias("docs", "current")
        assert store.collection("current").count() == 3
        store.native.drop_alias("current")
        store.native.rename_collection("docs", "renamed")
        assert store.list_collections() == ["renamed"]
        assert store.collection("renamed").count() == 3

    def test_a_handle_of_a_dropped_one(self, store: MilvusStore) -> None:
        collection = made(store)
        store.drop_collection("docs")
        for call in (collection.count, lambda: collection.upsert(batch(1)), lambda: collection.get(["1"])):
            with pytest.raises(CollectionNotFoundError):
                call()


class TestReads:
    def test_beyond_the_rows_of_one_answer(self, store: MilvusStore) -> None:
        collection = made(store, index=FlatIndex())
        count = 17_000
        collection.upsert(batch(count, [{"n": n} for n in range(count)]))
        assert collection.count() == count
        seen = [int(record.id) for record in collection.scan(include_metadata=False)]
        assert sorted(seen) == list(range(count))
        assert sorted(int(record.id) for record in collection.scan(F("n") >= 300)) == list(range(300, count))
        collection.delete(filter=F("n") >= 100)
        assert collection.count() == 100

    def test_answers_beyond_what_the_server_sends(self, store: MilvusStore) -> None:
        collection = made(store)
        text = "x" * 100_000
        collection.upsert(batch(50, [{"n": n} for n in range(50)], text))
        ids = [str(n) for n in range(50)]
        assert [record.text for record in collection.get(ids) if record] == [text] * 50
        assert [record.text for record in collection.scan()] == [text] * 50
        assert [match.text for match in collection.query([1, 0, 0, 0], limit=50)] == [text] * 50
        collection.update_metadata(ids, set={"m": 1})
        assert collection.count((F("m") == 1) & (F("n") >= 0)) == 50

    def test_writes_are_seen_by_other_clients(self, store: MilvusStore, address: str) -> None:
        collection = made(store)
        with open_milvus(f"milvus://{ROOT_USER}@{address}", strong_reads=True) as other:
            theirs = other.collection("docs")
            for n in range(1, 11):
                collection.upsert([Record(str(n), [n, 0, 0, 1], None, {"n": n})])
                assert theirs.count() == n
                assert theirs.query([1, 0, 0, 0], limit=1)[0].id == str(n)

    def test_the_drivers_client_reads_the_same(self, store: MilvusStore) -> None:
        collection = made(store)
        collection.upsert(batch(5, [{"n": n} for n in range(5)]))
        client: MilvusClient = store.native
        rows = client.query(collection.native, 'id == "3"', output_fields=["id", "ns", "meta"])
        assert [(row["id"], row["ns"], list(row["meta"])) for row in rows] == [("3", "", ['{"n":3}'])]


def test_killed_in_the_middle_of_an_upsert(tmp_path: Path) -> None:
    port, data = free_port(), tmp_path / "data"
    wanted = batch(6000, [{"n": n, "even": n % 2 == 0} for n in range(6000)])
    server = ExitStack()
    url = server.enter_context(start_milvus(data, tmp_path / "log", port=port, grace_s=0))
    with server, open_milvus(url, timeout_s=5) as store:
        collection = made(store)

        def reading() -> Iterator[Record]:
            for row, id in enumerate(wanted.ids):
                if row == 4500:
                    server.close()
                yield Record(id, np.asarray(wanted.vectors)[row], None, (wanted.metadatas or [])[row])

        with pytest.raises((BackendUnavailableError, BackendTimeoutError)) as caught:
            collection.upsert(reading())
    done = report(caught.value)
    assert 0 < done.written < 6000
    assert done.failed_ids[0] == str(done.written)
    with start_milvus(data, tmp_path / "log", port=port) as url, open_milvus(url, timeout_s=60) as store:
        again = store.collection("docs")
        kept = again.get([str(n) for n in range(done.written)])
        assert all(record is not None for record in kept)
        assert again.upsert(wanted).written == 6000
        assert again.count() == 6000
        assert again.count((F("n") >= 100) & (F("even") == True) & (F("n") < 5900)) == 2900  # noqa: E712
        assert sorted(int(record.id) for record in again.scan()) == list(range(6000))


class TestLite:
    """The engine in this process."""

    def test_stores_share_a_directory(self, tmp_path: Path) -> None:
        url = f"milvus:{tmp_path}/a/data.db"
        with open_milvus(url) as one, open_milvus(url) as other:
            made(one).upsert(batch(10))
            assert other.collection("docs").count() == 10
        with open_milvus(url) as later:
            assert later.collection("docs").count() == 10

    def test_threads_write_at_once(self, tmp_path: Path) -> None:
        with open_milvus(f"milvus:{tmp_path}/data.db") as store:
            collection = made(store)

            def write(first: int) -> None:
                for n in range(first, first + 20):
                    collection.upsert([Record(str(n), [n, 1, 0, 0])])

            threads = [threading.Thread(target=write, args=(20 * n,)) for n in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert sorted(int(record.id) for record in collection.scan()) == list(range(80))
