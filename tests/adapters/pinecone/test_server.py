"""What is special to Pinecone, through the real SDK on the emulator: waiting, limits, errors, a crash."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pinecone import Index, ServerlessSpec

from polyvec.errors import (
    AuthenticationError,
    BackendError,
    BackendTimeoutError,
    BackendUnavailableError,
    CollectionNotFoundError,
    ForeignCollectionError,
    QuotaExceededError,
    RateLimitedError,
    UnsupportedOperationError,
)
from polyvec.filters import F, matches
from polyvec.testing import data, filter_cases
from polyvec.testing.compare import assert_best, assert_holds, truth
from polyvec.types import METRICS, FlatIndex, HnswIndex, Metric, Record, WriteReport
from polyvec_adapters.pinecone.connect import Transport
from polyvec_adapters.pinecone.store import PineconeCollection, PineconeStore
from tests.adapters.pinecone.conftest import KEY, open_pinecone, url_of
from tests.servers.pinecone.server import Fault, Server
from tests.servers.pinecone.start import start_pinecone
from tests.servers.process import free_port

pytestmark = pytest.mark.server


def make(
    store: PineconeStore, name: str = "docs", dimension: int = 4, metric: Metric = "cosine"
) -> PineconeCollection:
    collection = store.create_collection(name, dimension, metric)
    assert isinstance(collection, PineconeCollection)
    return collection


def numbered(ids: Sequence[int], seed: int = 1, dimension: int = 4) -> list[Record]:
    rows = data.vectors(len(ids), dimension, seed)
    return [
        Record(f"i{id}", row, f"of {seed}", {"seed": seed, "n": id})
        for id, row in zip(ids, rows, strict=True)
    ]


def fail(server: Server, path: str, status: int = 500, **fault: Any) -> None:
    server.service.faults.append(Fault(path, status, **fault))


@pytest.fixture
def paths(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The path of each request to an index."""
    seen: list[str] = []
    send = Transport.handle_request

    def sending(self: Transport, request: Any) -> Any:
        seen.append(request.url.path.split("/", 3)[3])
        return send(self, request)

    monkeypatch.setattr(Transport, "handle_request", sending)
    return seen


class TestConsistency:
    def test_what_is_not_waited_for_is_not_there_yet(self, store: PineconeStore) -> None:
        """Else the contract would prove nothing about waiting."""
        collection = make(store)
        collection.upsert(Record("a", np.ones(4)), wait=False)
        assert collection.get(["a"]) == [None]
        collection.upsert(Record("b", np.ones(4)), wait=False)
        collection.flush()
        assert None not in collection.get(["a", "b"])
        assert collection.count() == 2

    def test_each_kind_of_write_is_waited_for(self, store: PineconeStore) -> None:
        collection = make(store)
        for number in range(5):
            collection.upsert(Record("a", np.ones(4), None, {"n": number}))
            assert collection.count(F("n") == number) == 1
        collection.update_metadata(["a"], set={"n": 7})
        assert [match.metadata for match in collection.query(np.ones(4))] == [{"n": 7}]
        collection.delete(["a"])
        assert collection.query(np.ones(4)) == []
        collection.upsert(numbered(range(5)))
        collection.delete(filter=F("n") < 3)
        assert sorted(record.id for record in collection.scan()) == ["i3", "i4"]
        collection.clear()
        assert collection.count() == 0

    def test_a_deletion_by_filter_finds_what_was_not_waited_for(self, store: PineconeStore) -> None:
        collection = make(store)
        collection.upsert(numbered(range(4)), wait=False)
        collection.delete(filter=F("n") == 2)
        assert sorted(record.id for record in collection.scan()) == ["i0", "i1", "i3"]

    def test_other_namespaces_are_not_waited_for(self, store: PineconeStore, paths: list[str]) -> None:
        collection = make(store)
        collection.upsert(Record("a", np.ones(4)), wait=False)
        paths.clear()
        collection.scoped("other").flush()
        collection.scoped("other").delete(["a"])
        assert paths == ["vectors/delete"]
        collection.flush()
        assert paths.count("query") == 3

    def test_waiting_has_an_end(self, serve: Callable[..., Server]) -> None:
        server = serve()
        with open_pinecone(url_of(server), timeout_s=0.3) as store:
            collection = make(store)
            server.service.engine._lag = 10**6
            collection.scoped("slow").get(["a"])
            with pytest.raises(BackendTimeoutError, match="cannot be read yet") as caught:
                collection.scoped("slow").upsert(Record("a", np.ones(4)))
            report = caught.value.report
            assert isinstance(report, WriteReport)
            assert (report.written, report.failures) == (1, ())

    def test_a_service_that_tells_no_lsn_is_not_waited_for(
        self, serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(Transport, "lsn", None)
        with open_pinecone(url_of(serve(lag=0))) as store:
            collection = make(store)
            collection.upsert(numbered(range(3)))
            assert collection.count() == 3

    def test_a_service_that_says_that_a_namespace_is_unknown(self, serve: Callable[..., Server]) -> None:
        with open_pinecone(url_of(serve(unknown_missing=True))) as store:
            collection = make(store)
            nobodys = collection.scoped("nobodys")
            assert nobodys.query(np.ones(4)) == []
            assert nobodys.query_many(np.ones((3, 4)), limit=200) == [[], [], []]
            assert nobodys.get(["a"]) == [None]
            assert list(nobodys.scan()) == list(nobodys.scan(F("n") > 1)) == []
            assert (nobodys.count(), nobodys.count(F("n") > 1)) == (0, 0)
            nobodys.clear()
            nobodys.delete(["a"])
            nobodys.delete(filter=F("n") > 1)
            assert nobodys.update_metadata(["a"], set={"n": 1}) == 0
            collection.upsert(numbered(range(3)))
            assert collection.count() == 3
            store.drop_collection("docs")
            for call in (
                collection.count,
                lambda: collection.get(["a"]),
                lambda: collection.query(np.ones(4)),
            ):
                with pytest.raises(CollectionNotFoundError):
                    call()

    def test_many_threads_at_once(self, store: PineconeStore) -> None:
        collection = make(store)

        def work(number: int) -> None:
            mine = collection.scoped(f"n{number % 3}")
            for turn in range(5):
                id = f"{number}-{turn}"
                mine.upsert(Record(id, np.ones(4), id))
                [found] = mine.get([id])
                assert found is not None
                assert found.text == id
                mine.delete([id])
                assert mine.get([id]) == [None]

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(work, range(12)))


class TestErrors:
    def test_a_wrong_key(self, emulator: Server) -> None:
        with pytest.raises(AuthenticationError) as caught:
            open_pinecone(f"pinecone://:not-the-key@127.0.0.1:{emulator.server_port}")
        assert "not-the-key" not in str(caught.value)

    def test_a_key_that_is_no_longer_valid(self, emulator: Server, store: PineconeStore) -> None:
        collection = make(store)
        emulator.service.key = "rotated"
        with pytest.raises(AuthenticationError) as caught:
            collection.upsert(Record("a", np.ones(4)))
        assert KEY not in str(caught.value)
        assert KEY not in repr(store)

    def test_nobody_there(self) -> None:
        started = time.monotonic()
        with pytest.raises(BackendUnavailableError, match="cannot be reached"):
            open_pinecone(f"pinecone://:k@127.0.0.1:{free_port()}", timeout_s=1)
        assert time.monotonic() - started < 2

    def test_gone_later(self, tmp_path: Path) -> None:
        with ExitStack() as running:
            url = running.enter_context(start_pinecone(tmp_path / "log"))
            with open_pinecone(url, timeout_s=1) as store:
                collection = make(store)
                collection.upsert(numbered(range(3)))
                running.close()
                started = time.monotonic()
                with pytest.raises((BackendUnavailableError, BackendTimeoutError)):
                    collection.query(np.ones(4))
                with pytest.raises((BackendUnavailableError, BackendTimeoutError)) as caught:
                    collection.upsert(numbered(range(3)))
                assert time.monotonic() - started < 6
                report = caught.value.report
                assert isinstance(report, WriteReport)
                assert report.failed_ids == ["i0", "i1", "i2"]

    def test_no_answer_in_time(self, emulator: Server) -> None:
        with open_pinecone(url_of(emulator), timeout_s=0.3) as store:
            collection = make(store)
            fail(emulator, "/query", times=2, hang_s=1.0)
            started = time.monotonic()
            with pytest.raises(BackendTimeoutError, match="no answer in time"):
                collection.query(np.ones(4))
            assert time.monotonic() - started < 1

    def test_too_many_requests(self, emulator: Server, store: PineconeStore, paths: list[str]) -> None:
        collection = make(store)
        collection.upsert(numbered(range(3)))
        paths.clear()
        fail(emulator, "/query", 429, times=3, retry_after_s=0.01)
        assert len(collection.query(np.ones(4))) == 3
        assert paths == ["query"] * 4  # the SDK does not try again by itself
        fail(emulator, "/query", 429, times=4, retry_after_s=0.02)
        with pytest.raises(RateLimitedError) as caught:
            collection.query(np.ones(4))
        assert caught.value.retry_after_s == 0.02
        assert paths == ["query"] * 8

    def test_a_pause_that_is_asked_for_is_made(self, emulator: Server, store: PineconeStore) -> None:
        collection = make(store)
        fail(emulator, "/vectors/upsert", 429, retry_after_s=0.3)
        started = time.monotonic()
        collection.upsert(Record("a", np.ones(4)))
        assert time.monotonic() - started >= 0.3

    @pytest.mark.parametrize(
        ("status", "expected", "requests"),
        [
            (400, BackendError, 1),
            (402, QuotaExceededError, 1),
            (403, AuthenticationError, 1),
            (408, BackendTimeoutError, 4),
            (413, BackendError, 1),
            (500, BackendUnavailableError, 4),
            (502, BackendUnavailableError, 4),
            (503, BackendUnavailableError, 4),
            (504, BackendTimeoutError, 4),
        ],
    )
    def test_statuses(
        self, emulator: Server, paths: list[str], status: int, expected: type[BackendError], requests: int
    ) -> None:
        with open_pinecone(url_of(emulator)) as store:
            collection = make(store)
            paths.clear()
            fail(emulator, "/query", status, times=requests)
            with pytest.raises(expected, match="a fault that was asked for") as caught:
                collection.query(np.ones(4))
            assert type(caught.value) is expected
            assert len(paths) == requests

    def test_a_plan_that_is_used_up(self, emulator: Server, store: PineconeStore, paths: list[str]) -> None:
        collection = make(store)
        paths.clear()
        message = "You've reached your read unit limit for the current month (1000000)"
        fail(emulator, "/query", 429, message=message)
        with pytest.raises(QuotaExceededError, match="read unit limit"):
            collection.query(np.ones(4))
        assert paths == ["query"]
        fail(emulator, "/indexes", 403, message="You've reached the max quota of serverless indexes")
        with pytest.raises(QuotaExceededError, match="quota"):
            make(store, "another")

    def test_a_service_that_fails_again_and_again_is_still_tried(
        self, emulator: Server, paths: list[str]
    ) -> None:
        """The SDK's own transport gives up trying for the whole process after some 50 failures."""
        with open_pinecone(url_of(emulator)) as store:
            store.retry = type(store.retry)(first_delay_s=0.001, max_delay_s=0.001)
            collection = make(store)
            for _ in range(40):
                fail(emulator, "/query", 503, times=3)
                collection.query(np.ones(4))
            assert paths.count("query") == 160

    def test_a_failing_batch_says_what_is_written(self, emulator: Server, store: PineconeStore) -> None:
        collection = make(store, dimension=1000)
        fail(emulator, "/vectors/upsert", 400)
        records = numbered(range(300), dimension=1000)
        collection.upsert(records)  # the batch is halved, and both halves pass
        assert collection.count() == 300


class TestLimits:
    def test_a_large_upsert_is_cut(self, store: PineconeStore, paths: list[str]) -> None:
        collection = make(store, dimension=1536)
        written = numbered(range(500), dimension=1536)
        collection.upsert(written)
        assert 4 < paths.count("vectors/upsert") < 12
        assert_holds(collection, written)

    def test_records_full_of_metadata(self, store: PineconeStore) -> None:
        collection = make(store)
        text = np.random.default_rng(1).integers(0x23, 0x5B, 30_000).astype(np.uint8).tobytes().decode()
        written = [Record(f"r{row}", vector, text) for row, vector in enumerate(data.vectors(300, 4, 1))]
        collection.upsert(written)
        assert_holds(collection, written)
        expected = truth(written, "cosine", np.ones(4))
        found = collection.query(np.ones(4), limit=300, include_vectors=True)
        assert_best(found, expected, limit=300)
        assert all(match.text == text for match in found)
        assert len(collection.query_many(data.vectors(20, 4, 2), limit=150)) == 20

    def test_a_record_that_is_too_large(self, store: PineconeStore) -> None:
        collection = make(store)
        noise = np.random.default_rng(1).integers(0x23, 0x7E, 60_000).astype(np.uint8).tobytes().decode()
        records = [Record("a", np.ones(4)), Record("big", np.ones(4), noise), Record("c", np.ones(4))]
        with pytest.raises(UnsupportedOperationError, match="keeps at most 40960") as caught:
            collection.upsert(records)
        report = caught.value.report
        assert isinstance(report, WriteReport)
        assert (report.written, report.failed_ids) == (2, ["big"])
        assert collection.count() == 2

    def test_a_limit_of_ten_thousand(self, store: PineconeStore) -> None:
        collection = make(store, metric="dot")
        ids = [
            f"long id of a record, number {number}" if number % 50 else f"é{number}" for number in range(3000)
        ]
        written = [
            Record(id, row, "t", {"n": 1}) for id, row in zip(ids, data.vectors(3000, 4, 1), strict=True)
        ]
        collection.upsert(written)
        expected = truth(written, "dot", np.ones(4))
        assert_best(collection.query(np.ones(4), limit=10_000), expected, limit=10_000)
        bare = collection.query(np.ones(4), limit=10_000, include_text=False, include_metadata=False)
        assert_best(bare, expected, limit=10_000)
        with pytest.raises(UnsupportedOperationError, match="10000"):
            collection.query(np.ones(4), limit=10_000, offset=1)

    def test_ids_that_make_long_urls(self, store: PineconeStore) -> None:
        collection = make(store)
        ids = [("%" * 505) + f"{number:03}" for number in range(40)] + ["é" * 250 + str(n) for n in range(40)]
        collection.upsert([Record(id, np.ones(4)) for id in ids])
        assert [record and record.id for record in collection.get(ids)] == ids

    def test_vectors_of_twenty_thousand_dimensions(self, store: PineconeStore) -> None:
        collection = make(store, dimension=20_000)
        written = numbered(range(12), dimension=20_000)
        collection.upsert(written)
        assert_holds(collection, written)
        found = collection.query(written[0].vector, limit=12, include_vectors=True)  # type: ignore[arg-type]
        assert found[0].id == "i0"
        with pytest.raises(UnsupportedOperationError, match="20000"):
            make(store, "more", dimension=20_001)

    def test_the_rates_of_the_service(self, serve: Callable[..., Server]) -> None:
        with open_pinecone(url_of(serve(lag=0, rates=True))) as store:
            collection = make(store)
            collection.upsert(numbered(range(150)))
            assert collection.update_metadata(filter=F("seed") == 1, set={"new": True}) == 150
            assert collection.count(F("new") == True) == 150  # noqa: E712  # builds a filter

    def test_what_the_service_does_not_offer(self, store: PineconeStore) -> None:
        for index in (FlatIndex(), HnswIndex()):
            with pytest.raises(UnsupportedOperationError, match="chooses its index itself"):
                store.create_collection("docs", 4, index=index)
        with pytest.raises(UnsupportedOperationError, match="no brute-force search"):
            make(store).query(np.ones(4), exact=True)


class TestWhatIsSent:
    def test_nothing_that_was_not_asked_for(self, store: PineconeStore, paths: list[str]) -> None:
        collection = make(store)
        collection.upsert(numbered(range(20)))
        paths.clear()
        found = collection.query(np.ones(4), include_text=False, include_metadata=False)
        assert paths == ["query"]
        assert all(match.metadata == {} and match.text is None for match in found)
        paths.clear()
        assert len(list(collection.scan(include_text=False, include_metadata=False))) == 20
        assert paths == ["vectors/list"]

    def test_hashed_ids_are_looked_up(self, store: PineconeStore, paths: list[str]) -> None:
        collection = make(store)
        collection.upsert([Record(id, np.ones(4)) for id in ("a", "é", "~b")])
        paths.clear()
        found = collection.query(np.ones(4), include_text=False, include_metadata=False)
        assert {match.id for match in found} == {"a", "é", "~b"}
        assert paths == ["query", "vectors/fetch"]

    @pytest.mark.parametrize("metric", METRICS)
    def test_scores_of_vectors_near_zero(self, store: PineconeStore, metric: Metric) -> None:
        collection = make(store, metric=metric, dimension=2)
        written = [Record("tiny", [1e-12, 0]), Record("less", [1e-30, 1e-31]), Record("a", [3, 4])]
        written += [] if metric == "cosine" else [Record("zero", [0, 0])]
        collection.upsert(written)
        assert_holds(collection, written)
        for vector in ([1, 2], [1e-10, 0], [1e-20, 1e-20]):
            assert_best(
                collection.query(vector), truth(written, metric, np.array(vector, np.float32)), limit=10
            )
        if metric == "dot":
            assert [match.score for match in collection.query([0, 0])] == [0, 0, 0, 0]

    def test_the_matrix_where_negations_match_missing_fields(self, serve: Callable[..., Server]) -> None:
        with open_pinecone(url_of(serve(lag=0, missing_matches=True))) as store:
            collection = make(store, dimension=2)
            metadatas = list(enumerate(filter_cases.RECORD_METADATA))
            collection.upsert([Record(str(row), [1, row], None, found) for row, found in metadatas])
            for case in filter_cases.CASES[::7]:
                expected = sum(matches(case.filter, metadata) for _, metadata in metadatas)
                assert collection.count(case.filter) == expected, case.name

    def test_explain(self, store: PineconeStore) -> None:
        found = make(store).scoped("t").explain(~((F("n") > 3) | (F("s") == "x")), limit=5)
        assert found.native["namespace"] == "t"
        assert found.native["top_k"] == 5
        assert set(found.native["filter"]) == {"$and"}
        assert len(found.notes) == 3


class TestCollections:
    def test_what_others_made(self, store: PineconeStore) -> None:
        spec = ServerlessSpec(cloud="aws", region="us-east-1")
        store.native.indexes.create(
            name="theirs", dimension=3, metric="cosine", spec=spec, tags={"team": "a"}, timeout=-1
        )
        assert store.list_collections() == []
        for call in (store.collection, lambda name: store.create_collection(name, 3), store.drop_collection):
            with pytest.raises(ForeignCollectionError):
                call("theirs")
        assert store.native.indexes.exists("theirs")

    def test_names(self, store: PineconeStore) -> None:
        names = ["docs", "Docs", "do.cs", "d_s", "x" * 128]
        for name in names:
            make(store, name)
        assert store.list_collections() == sorted(names)
        assert sorted(index.name for index in store.native.indexes.list())[0] == "docs"
        for name in names:
            assert store.collection(name).info.name == name

    def test_an_index_elsewhere_is_found_again(self, emulator: Server, store: PineconeStore) -> None:
        old = make(store)
        old.upsert(Record("a", np.ones(4)))
        with open_pinecone(url_of(emulator)) as other:
            other.drop_collection("docs")
            with pytest.raises(CollectionNotFoundError):
                old.query(np.ones(4))
            make(other).upsert(Record("b", np.ones(4)))
            assert [match.id for match in old.query(np.ones(4))] == ["b"]
            old.upsert(Record("c", np.ones(4)))
            assert old.count() == 2
            other.drop_collection("docs")
            make(other)
        for call in (old.count, old.clear, lambda: old.delete(["a"])):
            call()
        assert list(old.scan()) == []

    def test_one_that_is_not_quite_gone_is_gone(self, emulator: Server, store: PineconeStore) -> None:
        make(store)
        emulator.service.engine._lag = 10**6
        store.native.indexes.delete("docs", timeout=-1)
        assert store.list_collections() == []
        with pytest.raises(CollectionNotFoundError):
            store.collection("docs")

    def test_an_index_that_does_not_get_ready(self, serve: Callable[..., Server]) -> None:
        url = f"{url_of(serve(lag=10**6))}?create_timeout_s=0.2"
        with open_pinecone(url) as store, pytest.raises(BackendTimeoutError, match="is not ready yet"):
            make(store)

    def test_the_namespace_with_the_default_ones_name(self, store: PineconeStore) -> None:
        collection = make(store)
        collection.upsert(Record("a", np.ones(4)))
        assert collection.scoped("__default__").count() == 0
        collection.scoped("__default__").upsert(Record("b", np.ones(4)))
        assert [record.id for record in collection.scan()] == ["a"]

    def test_where_new_indexes_are_made(self, emulator: Server) -> None:
        for options, expected in (
            ("", {"deployment_type": "managed", "cloud": "aws", "region": "us-east-1"}),
            ("cloud=gcp&region=x", {"deployment_type": "managed", "cloud": "gcp", "region": "x"}),
            ("byoc_environment=mine", {"deployment_type": "byoc", "environment": "mine"}),
        ):
            with open_pinecone(f"{url_of(emulator)}?{options}") as store:
                make(store)
                assert emulator.service.engine.describe("docs").deployment == expected
                store.drop_collection("docs")

    def test_the_drivers_clients(self, store: PineconeStore) -> None:
        collection = make(store)
        collection.upsert(Record("a", np.ones(4)))
        index = store.native.index(collection.native)
        assert index.describe_index_stats().total_vector_count == 1
        index.close()


class TestTheDriver:
    def test_its_transport_can_be_replaced(self) -> None:
        """Fails where a new SDK keeps it elsewhere; see `Transport`."""
        index = Index(host="http://127.0.0.1:1", api_key="k")
        transport = Transport.of(index)
        assert index._http._client._transport is transport
        index.close()


@pytest.mark.slow
class TestKilled:
    """The emulator is killed in the middle of an upsert and started again on the same data."""

    @pytest.fixture
    def start(self, tmp_path: Path) -> Iterator[Callable[[], tuple[str, ExitStack]]]:
        port = free_port()
        with ExitStack() as running:

            def begin() -> tuple[str, ExitStack]:
                stack = running.enter_context(ExitStack())
                started = start_pinecone(tmp_path / "log", data=tmp_path / "data", port=port, grace_s=0)
                return stack.enter_context(started), stack

            yield begin

    @pytest.mark.parametrize("replacing", [False, True])
    def test_the_same_call_again_completes_it(
        self, start: Callable[[], tuple[str, ExitStack]], replacing: bool
    ) -> None:
        url, running = start()
        first, second = numbered(range(3000), 1, 512), numbered(range(3000), 2, 512)
        with open_pinecone(url, timeout_s=3) as store:
            collection = make(store, dimension=512)
            if replacing:
                collection.upsert(first)
            answered = 0
            send = Transport.handle_request

            def sending(self: Transport, request: Any) -> Any:
                """After the third answer the emulator is gone, whatever else is under way."""
                nonlocal answered
                response = send(self, request)
                with lock:
                    answered += request.url.path.endswith("/upsert")
                    if answered == 3:
                        running.close()
                return response

            lock = threading.Lock()
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(Transport, "handle_request", sending)
                with pytest.raises((BackendUnavailableError, BackendTimeoutError)) as caught:
                    collection.upsert(second)
            report = caught.value.report
            assert isinstance(report, WriteReport)
            assert 0 < report.written < 3000
            assert report.written + len(report.failures) == 3000
            start()
            failed = set(report.failed_ids)
            assert_same_texts(collection, [record for record in second if record.id not in failed])
            assert collection.upsert(second).written == 3000
            assert_holds(collection, second)
            for vector in data.vectors(5, 512, 7):
                assert_best(collection.query(vector), truth(second, "cosine", vector), limit=10)


def assert_same_texts(collection: PineconeCollection, records: list[Record]) -> None:
    found = collection.get([record.id for record in records], include_vectors=False)
    assert [record and record.text for record in found] == [record.text for record in records]


def test_the_program_takes_the_same_faults(tmp_path: Path) -> None:
    """Over HTTP too, for the one that runs as a process."""
    with start_pinecone(tmp_path / "log") as url:
        connection = http.client.HTTPConnection("127.0.0.1", int(url.rpartition(":")[2]))
        connection.request("POST", "/_faults", json.dumps({"path": "/indexes", "status": 503, "times": 4}))
        connection.getresponse().read()
        connection.close()
        with pytest.raises(BackendUnavailableError):
            open_pinecone(url)
        open_pinecone(url).close()
