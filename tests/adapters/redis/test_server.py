"""What is special to Redis, on real servers."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest

from polyvec.errors import (
    AuthenticationError,
    BackendError,
    BackendTimeoutError,
    BackendUnavailableError,
    CollectionNotFoundError,
    ForeignCollectionError,
    PolyvecError,
    QuotaExceededError,
    UnsupportedOperationError,
)
from polyvec.filters import F, matches
from polyvec.types import FlatIndex, HnswIndex, Record, RecordBatch, WriteReport
from polyvec_adapters.redis import records
from polyvec_adapters.redis.store import RedisCollection, RedisStore
from polyvec_adapters.redis.tables import MOST_NUMERIC
from tests.adapters.redis.conftest import open_redis
from tests.servers.process import free_port
from tests.servers.redis import start_redis

pytestmark = pytest.mark.server

# as docs/backends/redis.md lists them
RIGHTS = (
    "~polyvec* ~{polyvec}* -@all +hello +ft._list +ft.create +ft.alter +ft.info +ft.search +ft.dropindex "
    "+hget +hset +hsetnx +hdel +hkeys +hmget +del +unlink +multi +exec +eval"
)
FAR = datetime(9999, 12, 31, 23, 59, 59, 999_900, UTC)


def batch(count: int, metadatas: list[dict[str, Any]] | None = None, dimension: int = 4) -> RecordBatch:
    vectors = np.random.default_rng(1).standard_normal((count, dimension)).astype(np.float32)
    return RecordBatch([str(n) for n in range(count)], vectors, None, metadatas)


def made(store: RedisStore, name: str = "docs", **options: Any) -> RedisCollection:
    collection = store.create_collection(name, 4, "dot", **options)
    assert isinstance(collection, RedisCollection)
    return collection


def report(error: PolyvecError) -> WriteReport:
    assert isinstance(error.report, WriteReport)
    return error.report


class TestConnecting:
    """Errors come as promised, in time, and without a password."""

    def test_the_version_names_both(self, store: RedisStore) -> None:
        engine, _, search = store.version.partition(" with search ")
        assert [len(version.split(".")) for version in (engine, search)] == [3, 3]

    def test_nobody_listens(self) -> None:
        started = time.monotonic()
        with pytest.raises(BackendUnavailableError, match="redis: connect: "):
            open_redis(f"redis://127.0.0.1:{free_port()}", timeout_s=3)
        assert time.monotonic() - started < 3

    def test_nobody_answers(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            started = time.monotonic()
            with pytest.raises(BackendTimeoutError):
                open_redis(f"redis://127.0.0.1:{listening.getsockname()[1]}", timeout_s=0.5)
            assert 0.4 < time.monotonic() - started < 3

    def test_passwords(self, tmp_path: Path) -> None:
        with start_redis(tmp_path / "data", tmp_path / "log", settings=("--requirepass", "sesame")) as url:
            address = url.removeprefix("redis://")
            for right in (f"redis://:sesame@{address}", f"redis://default:sesame@{address}"):
                with open_redis(right) as store:
                    assert store.list_collections() == []
            with open_redis(url, api_key="sesame") as store:
                store.native.acl_setuser("reader", enabled=True, passwords=["+only-reads"], keys=["*"],
                                         categories=["+@all", "-@write"])  # fmt: skip
            for wrong in (url, f"redis://:open-sesame@{address}", f"redis://nobody:sesame@{address}"):
                with pytest.raises(AuthenticationError) as caught:
                    open_redis(wrong)
                assert "sesame" not in str(caught.value)
            with (
                open_redis(f"redis://reader:only-reads@{address}") as store,
                pytest.raises(AuthenticationError, match="permission"),
            ):
                store.create_collection("docs", 4)

    def test_a_user_with_the_rights_that_are_needed(self, tmp_path: Path) -> None:
        with start_redis(tmp_path / "data", tmp_path / "log") as url:
            with open_redis(url) as store:
                store.ask(["ACL", "SETUSER", "app", "on", ">sesame", *RIGHTS.split()])
            with open_redis(url.replace("redis://", "redis://app:sesame@")) as store:
                collection = made(store)
                collection.upsert(batch(3, [{"x": n} for n in range(3)]))
                collection.update_metadata(["0"], set={"y": 1})
                assert collection.count(F("y") > 0) == 1
                assert len(collection.query([1, 0, 0, 0], filter=F("x") >= 0, exact=True)) == 3
                assert collection.get(["0"])[0] is not None
                collection.delete(["0"])
                collection.clear()
                store.drop_collection("docs")
                assert store.list_collections() == []

    def test_a_password_that_the_server_does_not_want(self, server_url: str) -> None:
        with open_redis(server_url, api_key="sesame") as store:
            assert store.list_collections() == []

    def test_no_search(self, tmp_path: Path) -> None:
        with (
            start_redis(tmp_path / "data", tmp_path / "log", search=False) as url,
            pytest.raises(UnsupportedOperationError, match="Redis 8, Redis Stack"),
        ):
            open_redis(url)

    def test_a_node_of_a_cluster(self, tmp_path: Path) -> None:
        settings = ("--cluster-enabled", "yes", "--cluster-port", str(free_port()))
        with (
            start_redis(tmp_path / "data", tmp_path / "log", settings=settings) as url,
            pytest.raises(UnsupportedOperationError, match="node of an open-source cluster"),
        ):
            open_redis(url)

    def test_a_stopped_server(self, tmp_path: Path) -> None:
        with (
            start_redis(tmp_path / "data", tmp_path / "log") as url,
            open_redis(url, timeout_s=0.5) as store,
        ):
            collection = made(store)
            process = int(store.native.info("server")["process_id"])
            os.kill(process, signal.SIGSTOP)
            try:
                started = time.monotonic()
                with pytest.raises(BackendTimeoutError):
                    collection.count()
                assert time.monotonic() - started < 3
            finally:
                os.kill(process, signal.SIGCONT)
            assert collection.count() == 0

    def test_encryption(self, server_url: str, tmp_path: Path) -> None:
        certificate = tmp_path / "cert.pem"
        if shutil.which("openssl") is None:
            pytest.skip("makes its certificate with openssl")
        subprocess.run(
            [
                *("openssl", "req", "-x509", "-nodes", "-newkey", "ec", "-pkeyopt"),
                *("ec_paramgen_curve:prime256v1", "-days", "2", "-subj", "/CN=127.0.0.1"),
                *("-addext", "subjectAltName=IP:127.0.0.1"),
                *("-keyout", str(tmp_path / "key.pem"), "-out", str(certificate)),
            ],
            check=True,
            capture_output=True,
        )
        with encrypting(server_url, certificate, tmp_path / "key.pem") as url:
            with open_redis(url, ca_certs=str(certificate), timeout_s=5) as store:
                made(store, "encrypted").upsert(batch(10))
                store.drop_collection("encrypted")
            with pytest.raises(BackendUnavailableError, match="certificate verify failed"):
                open_redis(url, timeout_s=1)


@contextmanager
def encrypting(url: str, certificate: Path, key: Path) -> Iterator[str]:
    """Run a proxy that takes TLS connections for a server that does not; give its URL."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    target = urlsplit(url)
    threads: list[threading.Thread] = []

    def forward(source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # either side may hang up at any time

    def serve(plain: socket.socket) -> None:
        try:
            client = context.wrap_socket(plain, server_side=True)
        except OSError:  # the client does not trust us
            plain.close()
            return
        with client, socket.create_connection((target.hostname or "", target.port or 0)) as server:
            back = threading.Thread(target=forward, args=(server, client))
            back.start()
            forward(client, server)
            back.join()

    def accept() -> None:
        while True:
            try:
                plain, _ = listening.accept()
            except OSError:
                return
            threads.append(threading.Thread(target=serve, args=(plain,)))
            threads[-1].start()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        accepting = threading.Thread(target=accept)
        accepting.start()
        try:
            yield f"rediss://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            for thread in (accepting, *threads):
                thread.join()


class TestCollections:
    """What stands in the database."""

    def test_an_index_of_somebody_else(self, store: RedisStore) -> None:
        store.native.execute_command("FT.CREATE", "theirs", "SCHEMA", "t", "TEXT")  # type: ignore[no-untyped-call]
        try:
            for call in (store.collection, store.drop_collection):
                with pytest.raises(ForeignCollectionError, match="did not create it"):
                    call("theirs")
            with pytest.raises(ForeignCollectionError):
                store.create_collection("theirs", 4)
            assert store.list_collections() == []
        finally:
            store.native.ft("theirs").dropindex()

    def test_nothing_is_left_of_a_dropped_one(self, store: RedisStore) -> None:
        collection = made(store)
        collection.upsert(batch(20, [{"x": n} for n in range(20)]))
        collection.scoped("tenant").upsert(batch(20))
        assert store.native.dbsize() == 41
        store.drop_collection("docs")
        assert store.native.dbsize() == 0
        assert store.ask(["FT._LIST"]) == [[]]

    def test_dropping_one_that_lost_its_index(self, store: RedisStore) -> None:
        collection = made(store)
        store.native.ft(collection.native).dropindex(delete_documents=True)
        with pytest.raises(CollectionNotFoundError):
            collection.count()
        store.drop_collection("docs")
        assert store.list_collections() == []

    def test_a_handle_of_a_dropped_one(self, store: RedisStore, server_url: str) -> None:
        collection = made(store)
        collection.upsert(batch(3, [{"x": 1}] * 3))
        with open_redis(server_url) as other:
            other.drop_collection("docs")
            new = made(other)
            new.upsert(batch(1))
            for call in (
                lambda: collection.upsert(batch(3, [{"x": 1}] * 3)),
                lambda: collection.upsert(batch(3, [{"y": 1}] * 3)),
                lambda: collection.get(["0"]),
                lambda: collection.query([1, 0, 0, 0]),
                lambda: collection.count(F("x") > 0),
                lambda: collection.delete(["0"]),
                lambda: collection.update_metadata(["0"], set={"x": 2}),
                collection.clear,
                lambda: list(collection.scan()),
            ):
                with pytest.raises(CollectionNotFoundError):
                    call()
            assert new.count() == 1
            other.drop_collection("docs")
        assert store.native.dbsize() == 0

    def test_a_scoped_handle_of_another_dimension(self, store: RedisStore) -> None:
        collection = made(store)
        store.drop_collection("docs")
        store.create_collection("docs", 5, "dot")
        with pytest.raises(CollectionNotFoundError):
            collection.scoped("a").upsert(batch(1))

    @pytest.mark.parametrize(
        ("index", "expected"),
        [
            (None, {b"algorithm": b"HNSW", b"M": 16, b"ef_construction": 200}),
            (HnswIndex(m=7, ef_construction=33, ef_search=44), {b"M": 7, b"ef_construction": 33}),
            (FlatIndex(), {b"algorithm": b"FLAT"}),
        ],
    )
    def test_the_index_is_what_was_asked_for(
        self, store: RedisStore, index: HnswIndex | FlatIndex | None, expected: dict[bytes, Any]
    ) -> None:
        collection = made(store, index=index)
        [info] = store.ask(["FT.INFO", collection.native])
        [vector] = [field for field in info[b"attributes"] if field[b"identifier"] == b"vec"]
        assert vector | expected == vector
        collection.upsert(batch(50))
        assert len(collection.query([1, 0, 0, 0], exact=True)) == 10
        native = str(collection.explain().native)
        assert ("EF_RUNTIME 44" in native) == (index == HnswIndex(m=7, ef_construction=33, ef_search=44))
        assert ("EF_RUNTIME" in native) == (index != FlatIndex())

    def test_hints_are_fields_from_the_start(self, store: RedisStore) -> None:
        collection = made(store, indexes={"year": int, "lang": str, "at": datetime})
        assert len(numeric_fields(store, collection)) == 2
        collection.upsert(batch(1, [{"year": 2020, "at": FAR - timedelta(days=365 * 8000), "other": "x"}]))
        assert len(numeric_fields(store, collection)) == 2


def numeric_fields(store: RedisStore, collection: RedisCollection) -> list[str]:
    [info] = store.ask(["FT.INFO", collection.native])
    names = [field[b"identifier"].decode() for field in info[b"attributes"]]
    return [name for name in names if name.startswith(("n_", "d_"))]


class TestWrites:
    """Redis says yes to what the index then leaves out; polyvec does not."""

    @pytest.mark.parametrize("spoiled", [b"vec", b"pos"])
    def test_a_record_that_the_engine_does_not_index(
        self, store: RedisStore, monkeypatch: pytest.MonkeyPatch, spoiled: bytes
    ) -> None:
        collection = made(store)
        encode = records.encode

        def broken(*args: Any) -> Iterator[records.Pairs]:
            for row, pairs in enumerate(encode(*args)):
                if row == 2:
                    pairs[pairs.index(spoiled.decode()) + 1] = b"oops"
                yield pairs

        monkeypatch.setattr(records, "encode", broken)
        with pytest.raises(BackendError, match="the engine did not index it") as caught:
            collection.upsert(batch(5))
        assert report(caught.value).failed_ids == ["2"]
        assert report(caught.value).written == 4
        assert collection.count() == 4
        assert collection.get(["2"]) == [None]

    def test_records_that_the_server_refuses(
        self, store: RedisStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        collection = made(store)
        encode = records.encode

        def broken(*args: Any) -> Iterator[records.Pairs]:
            for row, pairs in enumerate(encode(*args)):
                if row == 3:
                    pairs[1] = b"oops"
                yield [*pairs, "a name without a value"] if row in (1, 4) else pairs

        monkeypatch.setattr(records, "encode", broken)
        with pytest.raises(BackendError, match="wrong number of arguments") as caught:
            collection.upsert(batch(6))
        assert report(caught.value).failed_ids == ["1", "3", "4"]
        assert report(caught.value).written == 3
        assert sorted(record.id for record in collection.scan()) == ["0", "2", "5"]

    def test_a_full_memory(self, tmp_path: Path) -> None:
        with start_redis(tmp_path / "data", tmp_path / "log") as url, open_redis(url) as store:
            collection = made(store)
            collection.upsert(batch(10))
            store.native.config_set("maxmemory", "1mb")
            with pytest.raises(QuotaExceededError, match="maxmemory") as caught:
                collection.upsert(batch(2000, dimension=4))
            assert report(caught.value).written == 0
            assert len(report(caught.value).failures) == 2000
            assert collection.count() == 10
            store.native.config_set("maxmemory", "0")
            assert collection.upsert(batch(2000)).written == 2000

    def test_readers_never_miss_a_record_that_is_replaced(self, store: RedisStore, server_url: str) -> None:
        collection = made(store, index=FlatIndex())
        collection.upsert(batch(1, [{"x": 0}]))
        done = threading.Event()

        def replace() -> None:
            with open_redis(server_url) as other:
                for n in range(300):
                    other.collection("docs").upsert(batch(1, [{"x": n}]))
            done.set()

        writer = threading.Thread(target=replace)
        writer.start()
        seen = 0
        while not done.is_set():
            assert collection.get(["0"])[0] is not None
            seen += 1
        writer.join()
        assert seen

    def test_no_number_survives(self, store: RedisStore) -> None:
        collection = made(store)
        collection.upsert(batch(2, [{"x": 1, "at": FAR}] * 2))
        collection.upsert(batch(1, [{"y": 1}]))
        collection.update_metadata(["1"], set={"y": 2}, unset=["x", "at"])
        assert collection.count((F("x") > 0) | (F("at") > FAR - timedelta(days=1))) == 0
        assert sorted(record.id for record in collection.scan(F("y") > 0)) == ["0", "1"]
        fields = store.native.hkeys(collection._key("1"))
        assert len(fields) == 6  # vec, ns, pos, meta, tok, and the number

    def test_metadata_of_a_record_that_is_gone(self, store: RedisStore) -> None:
        collection = made(store)
        collection._do_set_metadata(["ghost"], [{"x": 1}])
        assert collection.count() == 0
        assert store.native.dbsize() == 1  # the table of collections

    def test_a_record_with_very_many_numbers(self, store: RedisStore) -> None:
        collection = made(store)
        collection.upsert(batch(1, [{}]))
        many = {f"key {n}": n for n in range(900)}
        collection.update_metadata(["0"], set=many)
        [record] = collection.get(["0"])
        assert record is not None
        assert record.metadata == many
        assert collection.count((F("key 899") >= 899) & (F("key 0") < 1)) == 1

    def test_killed_in_the_middle_of_an_upsert(self, tmp_path: Path) -> None:
        port, data = free_port(), tmp_path / "data"
        wanted = batch(3000, [{"n": n, "even": n % 2 == 0} for n in range(3000)])
        with (
            start_redis(data, tmp_path / "log", durable=True, port=port) as url,
            open_redis(url, timeout_s=2) as store,
        ):
            process = int(store.native.info("server")["process_id"])
            collection = made(store)

            def reading() -> Iterator[Record]:
                assert wanted.vectors is not None
                assert wanted.metadatas is not None
                for row, id in enumerate(wanted.ids):
                    if row == 1700:
                        os.kill(process, signal.SIGKILL)
                    yield Record(id, wanted.vectors[row], None, wanted.metadatas[row])

            with pytest.raises((BackendUnavailableError, BackendTimeoutError)) as caught:
                collection.upsert(reading())
            done = report(caught.value)
            assert 0 < done.written < 3000
            assert done.written % 500 == 0
            assert done.failed_ids[0] == str(done.written)
        with (
            start_redis(data, tmp_path / "log", durable=True, port=port) as url,
            open_redis(url) as store,
        ):
            collection = store.collection("docs")  # type: ignore[assignment]
            kept = collection.get([str(n) for n in range(done.written)])
            assert all(record is not None for record in kept)
            assert collection.upsert(wanted).written == 3000
            assert collection.count() == 3000
            assert collection.count((F("n") >= 100) & (F("even") == True) & (F("n") < 2900)) == 1400  # noqa: E712
            assert sorted(int(record.id) for record in collection.scan()) == list(range(3000))
            assert store.native.dbsize() == 3001
            [nearest] = collection.query(np.asarray(wanted.vectors)[7] * 100, limit=1, exact=True)
            assert nearest.metadata["n"] == int(nearest.id)


class TestFilters:
    """Ranges, which need fields that the index does not have at first."""

    def test_more_keys_than_an_index_has_fields(self, store: RedisStore) -> None:
        collection = made(store, index=FlatIndex())
        choose = np.random.default_rng(2)
        metadatas: list[dict[str, Any]] = [
            {f"k{key}": float(choose.integers(-3, 4)) for key in choose.choice(1200, 40, replace=False)}
            | {"at": FAR + timedelta(microseconds=n % 3)}
            for n in range(120)
        ]
        collection.upsert(batch(120, metadatas))
        assert len(numeric_fields(store, collection)) == MOST_NUMERIC
        for key in ("at", *(f"k{n}" for n in range(0, 1200, 7))):
            bound: Any = FAR + timedelta(microseconds=1) if key == "at" else 0.0
            for asked in (F(key) < bound, F(key) <= bound, F(key) > bound, ~(F(key) >= bound)):
                expected = {str(n) for n, metadata in enumerate(metadatas) if matches(asked, metadata)}
                assert {record.id for record in collection.scan(asked, include_metadata=False)} == expected

    def test_a_full_index_and_the_metadata_of_a_record(self, store: RedisStore) -> None:
        collection = made(store)
        collection.upsert(batch(1, [{f"k{n}": n for n in range(1100)}]))
        assert len(numeric_fields(store, collection)) == MOST_NUMERIC
        collection.update_metadata(["0"], set={"new": -0.0}, unset=[f"k{n}" for n in range(0, 1100, 2)])
        assert collection.count(F("new") >= 0) == 1
        assert [collection.count(F(f"k{n}") >= 0) for n in (2, 3, 1098, 1099)] == [0, 1, 0, 1]

    def test_writers_that_fill_the_index_do_not_disagree(self, store: RedisStore, server_url: str) -> None:
        made(store)
        with open_redis(server_url) as second, open_redis(server_url) as third:
            one, two, reader = (opened.collection("docs") for opened in (store, second, third))
            one.upsert(Record("0", [1, 0, 0, 0], None, {"at": FAR, "k0": 1}))
            assert reader.count(F("k0") > 0) == 1  # what it has seen of the index by now, it keeps
            one.upsert(Record("1", [1, 0, 0, 0], None, {f"k{n}": n for n in range(MOST_NUMERIC - 6)}))
            # there is room for 5 of these 10; `two` does not know of the other keys, nor `one` of these
            two.upsert(Record("2", [1, 0, 0, 0], None, {f"new{n}": n for n in range(10)} | {"at": FAR}))
            one.upsert(Record("3", [1, 0, 0, 0], None, {f"new{n}": n for n in range(10)} | {"k1": 1}))
            assert len(numeric_fields(store, store.collection("docs"))) == MOST_NUMERIC  # type: ignore[arg-type]
            for handle in (one, two, reader):
                assert [handle.count(F(f"new{n}") >= n) for n in range(10)] == [2] * 10
                assert handle.count(F("k1") > 0) == 2
                assert handle.count(F("at") >= FAR) == 2

    def test_far_datetimes(self, store: RedisStore) -> None:
        collection = made(store)
        instants = [FAR + timedelta(microseconds=n) for n in range(-40, 40)]
        instants += [datetime(1, 1, 1, 0, 0, 0, n, UTC) for n in range(40)]
        metadatas = [{"at": instant} for instant in instants]
        collection.upsert(batch(len(instants), metadatas))
        for bound in instants[::3]:
            for asked in (F("at") < bound, F("at") <= bound, F("at") > bound, F("at") >= bound):
                expected = sum(matches(asked, metadata) for metadata in metadatas)
                assert collection.count(asked) == expected
                assert collection.count(~asked) == len(instants) - expected

    def test_every_float_at_its_boundary(self, store: RedisStore) -> None:
        choose = np.random.default_rng(1)
        numbers = (choose.uniform(-1, 1, 200) * 10.0 ** choose.integers(-323, 308, 200)).tolist()
        numbers += [5e-324, -5e-324, 1.7976931348623157e308, 0.0, 2.0**53, 2**53 + 1, -(2**63), 2**63 - 1]
        collection = made(store)
        metadatas = [{"x": number} for number in numbers]
        collection.upsert(batch(len(numbers), metadatas))
        for bound in numbers:
            for asked in (F("x") < bound, F("x") >= bound):
                assert collection.count(asked) == sum(matches(asked, metadata) for metadata in metadatas)

    def test_a_key_that_another_client_was_first_to_write(self, store: RedisStore, server_url: str) -> None:
        collection = made(store)
        assert collection.count(F("x") > 0) == 0
        with open_redis(server_url) as other:
            other.collection("docs").upsert(batch(1, [{"x": 1}]))
            assert collection.count(F("x") > 0) == 1
            collection.upsert(batch(2, [{"y": 1}] * 2))
            assert other.collection("docs").count(~(F("y") > 1)) == 2

    def test_writers_that_meet_new_keys_at_once(self, store: RedisStore, server_url: str) -> None:
        made(store, index=FlatIndex())
        errors: list[Exception] = []
        start = threading.Barrier(4)

        def write(writer: int) -> None:
            try:
                with open_redis(server_url) as other:
                    collection = other.collection("docs")
                    start.wait(10)
                    for n in range(20):
                        metadata = {f"k{n}": n, f"k{n + writer}": n, f"own {writer} {n}": n}
                        collection.upsert(Record(f"{writer} {n}", [1, 0, 0, 0], None, metadata))
            except Exception as error:  # noqa: BLE001  # handed to the test
                errors.append(error)

        threads = [threading.Thread(target=write, args=(writer,)) for writer in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []
        collection = store.collection("docs")
        assert collection.count() == 80
        assert all(collection.count(F(f"own {w} {n}") >= n) == 1 for w in range(4) for n in range(20))
        assert collection.count(F("k5") >= 0) == 4 + 3  # all of the fifth, and k2+3, k3+2, k4+1


class TestNamespaces:
    """A search by vector leaves the condition out until it meets records of another namespace."""

    @pytest.mark.parametrize("index", [None, FlatIndex()])
    def test_one_that_another_client_adds(
        self, store: RedisStore, server_url: str, index: FlatIndex | None
    ) -> None:
        collection = made(store, index=index)
        mine = [Record(f"mine {n}", [1 + n, 1, 0, 0], None, {"n": n}) for n in range(20)]
        collection.upsert(mine)
        wanted = [f"mine {n}" for n in range(19, 14, -1)]
        assert [match.id for match in collection.query([1, 0, 0, 0], limit=5)] == wanted
        with open_redis(server_url) as other:
            tenant = other.collection("docs").scoped("tenant")
            tenant.upsert(Record(f"far {n}", [-n, 1, 0, 0], None, {"n": n}) for n in range(1000))
        assert [match.id for match in collection.query([1, 0, 0, 0], limit=5)] == wanted
        assert not collection._table.shared  # the nearest of all are the nearest of its own
        with open_redis(server_url) as other:
            other.collection("docs").scoped("tenant").upsert(Record("near", [18, 1, 0, 0], None, {"n": 18}))
        found = collection.query_many([[1, 0, 0, 0], [0, 1, 0, 0]], limit=5, filter=F("n") >= 10)
        assert [match.id for match in found[0]] == wanted
        assert len(found[1]) == 5
        assert all(match.id.startswith("mine") for match in found[1])
        assert collection._table.shared
        assert len(collection.query([1, 0, 0, 0], limit=1000)) == 20
        assert collection.count() == len(list(collection.scan())) == 20
        assert collection.scoped("nobody").query([1, 0, 0, 0]) == []

    def test_another_one_than_the_only_one(self, store: RedisStore) -> None:
        collection = made(store)
        collection.scoped("tenant").upsert(batch(5))
        assert collection.count() == 0
        assert collection.query([1, 0, 0, 0]) == []
        collection.clear()
        assert collection.scoped("tenant").count() == 5


class TestReads:
    """Scans, and searches that find too few."""

    def test_a_server_that_gives_10_000_records_at_most(self, tmp_path: Path) -> None:
        limit = ("MAXSEARCHRESULTS", "10000")  # as Redis Stack starts it
        with (
            start_redis(tmp_path / "data", tmp_path / "log", settings=limit) as url,
            open_redis(url) as store,
        ):
            collection = made(store, index=FlatIndex())
            collection.upsert(batch(10_050))
            pages = [page.ids for page in collection.scan_batches(batch_size=20_000)]
            assert sorted(int(id) for page in pages for id in page) == list(range(10_050))
            assert len(collection.query([1, 0, 0, 0], limit=10_000)) == 10_000
            assert collection.count() == 10_050
            collection.clear()
            assert collection.count() == 0

    @pytest.mark.parametrize("size", [1, 7, 100, 5000])
    def test_a_scan_meets_each_record_once(self, store: RedisStore, size: int) -> None:
        collection = made(store, index=FlatIndex())
        collection.upsert(batch(400, [{"x": n} for n in range(400)]))
        pages = list(collection.scan_batches(F("x") < 300, batch_size=size))
        assert max(map(len, pages)) <= size
        found = [id for page in pages for id in page.ids]
        assert sorted(map(int, found)) == list(range(300))

    def test_records_that_come_and_go_during_a_scan(self, store: RedisStore) -> None:
        collection = made(store, index=FlatIndex())
        collection.upsert(batch(300))
        found: list[str] = []
        for page in collection.scan_batches(batch_size=10):
            found += page.ids
            collection.delete([str(n) for n in range(100, 150)])
            collection.upsert(Record(f"new {len(found)}", [1, 0, 0, 0]))
        assert len(found) == len(set(found))
        assert {str(n) for n in range(300) if not 100 <= n < 150} <= set(found)

    def test_two_records_at_one_position(self, store: RedisStore, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(records, "position", lambda namespace, id: 5)
        collection = made(store)
        collection.upsert(batch(2))
        assert sorted(record.id for record in collection.scan(batch_size=1)) == ["0", "1"]

    def test_a_graph_that_found_too_few_is_asked_again(
        self, store: RedisStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        collection = made(store)
        collection.upsert(batch(50, [{"x": n % 2} for n in range(50)]))
        asked: list[str] = []
        ask = RedisStore.ask

        def losing(self: RedisStore, *commands: Any) -> list[Any]:
            answers = ask(self, *commands)
            if "KNN" in str(commands[0][2]):
                asked.append(commands[0][2])
                if "EF_RUNTIME" in commands[0][2]:
                    del answers[0][b"results"][1:]
            return answers

        monkeypatch.setattr(RedisStore, "ask", losing)
        assert len(collection.query([1, 0, 0, 0], filter=F("x") == 1)) == 10
        assert [("EF_RUNTIME" in query, "ADHOC_BF" in query) for query in asked] == [
            (True, False),
            (False, True),
        ]

    def test_scores_beyond_float32(self, store: RedisStore) -> None:
        collection = made(store)
        collection.upsert(Record("a", [1e30, 0, 0, 0]))
        assert collection.query([1, 0, 0, 0])[0].score == pytest.approx(1e30)
        with pytest.raises(BackendError, match="float32"):
            collection.query([1e30, 0, 0, 0])
