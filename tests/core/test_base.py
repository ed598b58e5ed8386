"""What the base classes do around the hooks of an adapter, seen with a fake one."""

from __future__ import annotations

import contextlib
import itertools
import math
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from polyvec import (
    AuthenticationError,
    BackendError,
    BackendUnavailableError,
    CollectionExistsError,
    CollectionNotFoundError,
    CollectionSpec,
    DimensionMismatchError,
    EmbeddingSpace,
    F,
    FlatIndex,
    HnswIndex,
    InvalidFilterError,
    InvalidInputError,
    PolyvecError,
    RateLimitedError,
    Record,
    RecordBatch,
    RecordNotFoundError,
    SpecMismatchError,
    UnsupportedFilterError,
    UnsupportedOperationError,
    WriteReport,
)
from polyvec.base import Fields
from polyvec.filters import ALWAYS, NEVER, And, Eq, Not
from polyvec.protocol import Collection, VectorStore
from tests.core.fake import DriverError, FakeCollection, FakeStore, FlushingStore, NoSleep, open_fake

X = [1.0, 0.0]
NOWHERE = F("k").is_in([])


@pytest.fixture
def store() -> FakeStore:
    return open_fake()


@pytest.fixture
def docs(store: FakeStore) -> FakeCollection:
    made = store.create_collection("docs", 2, "dot")
    assert isinstance(made, FakeCollection)
    store.calls.clear()
    return made


def records(count: int, **more: Any) -> list[Record]:
    return [Record(f"r{i:03}", [float(i + 1), 0.0], **more) for i in range(count)]


def sent(store: FakeStore) -> list[list[str]]:
    """The ids of each upsert that was sent."""
    return [call.arguments["ids"] for call in store.made("upsert")]


def report_of(caught: pytest.ExceptionInfo[PolyvecError]) -> WriteReport:
    """The report that an error of a write carries."""
    assert isinstance(caught.value.report, WriteReport)
    return caught.value.report


def test_the_fake_has_the_protocols(store: FakeStore, docs: FakeCollection) -> None:
    assert isinstance(store, VectorStore)
    assert isinstance(docs, Collection)


# Trying again ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [429, 503])
def test_what_is_retryable_is_tried_again(store: FakeStore, docs: FakeCollection, status: int) -> None:
    store.script["count"].extend([DriverError(status)] * 3)
    assert docs.count() == 0
    assert len(store.made("count")) == 4
    assert len(NoSleep.sleeps) == 3
    for pause, longest in zip(NoSleep.sleeps, [0.1, 0.2, 0.4], strict=True):
        assert longest / 2 <= pause <= longest, "it doubles, with jitter"


def test_it_ends_after_four_attempts(store: FakeStore, docs: FakeCollection) -> None:
    store.script["count"].extend(DriverError(503, f"down {i}") for i in range(1, 9))
    with pytest.raises(BackendUnavailableError, match=r"^fake: count\('docs'\): down 4$"):
        docs.count()
    assert len(store.made("count")) == 4


@pytest.mark.parametrize(
    "error", [DriverError(400), DriverError(401), ValueError("x"), InvalidInputError("x")]
)
def test_what_is_not_retryable_is_not(store: FakeStore, docs: FakeCollection, error: Exception) -> None:
    store.script["count"].append(error)
    with pytest.raises(PolyvecError):
        docs.count()
    assert len(store.made("count")) == 1
    assert NoSleep.sleeps == []


def test_retry_after_is_honoured(store: FakeStore, docs: FakeCollection) -> None:
    store.script["count"].extend([DriverError(429, retry_after_s=7.5), DriverError(429, retry_after_s=60)])
    docs.count()
    assert NoSleep.sleeps == [7.5, 60]


def test_a_retry_after_that_is_too_long_ends_it(store: FakeStore, docs: FakeCollection) -> None:
    store.script["count"].append(DriverError(429, retry_after_s=61))
    with pytest.raises(RateLimitedError) as caught:
        docs.count()
    assert caught.value.retry_after_s == 61
    assert NoSleep.sleeps == []


@pytest.mark.parametrize("hook", ["open", "create", "list", "drop", "version"])
def test_every_hook_of_a_store_is_tried_again(store: FakeStore, docs: FakeCollection, hook: str) -> None:
    store.script[hook].append(DriverError(503))
    store.create_collection("more", 2)
    store.list_collections()
    store.drop_collection("more")
    assert store.version == "1.0"
    assert len(NoSleep.sleeps) == 1


# Errors ----------------------------------------------------------------------------------------------

OPERATIONS: dict[str, tuple[str, Callable[[FakeCollection], Any]]] = {
    "upsert": ("upsert", lambda docs: docs.upsert(Record("a", X))),
    "get": ("get", lambda docs: docs.get(["a"])),
    "query": ("query", lambda docs: docs.query(X)),
    "query_many": ("query", lambda docs: docs.query_many([X])),
    "query_by_id": ("get", lambda docs: docs.query_by_id("a")),
    "count": ("count", lambda docs: docs.count()),
    "scan": ("scan", lambda docs: list(docs.scan())),
    "update_metadata": ("get", lambda docs: docs.update_metadata(["a"], set={"k": 1})),
    "delete": ("delete", lambda docs: docs.delete(["a"])),
    "clear": ("delete_where", lambda docs: docs.clear()),
    "flush": ("flush", lambda docs: docs.flush()),
}


@pytest.mark.parametrize("operation", OPERATIONS)
def test_errors_say_where_they_happened(store: FakeStore, docs: FakeCollection, operation: str) -> None:
    hook, call = OPERATIONS[operation]
    cause = DriverError(404, "404 not found")
    store.script[hook].append(cause)
    with pytest.raises(BackendError) as caught:
        call(docs)
    error = caught.value
    assert (error.backend, error.operation, error.collection) == ("fake", operation, "docs")
    assert str(error).startswith(f"fake: {operation}('docs'): ")
    assert str(error).endswith("404 not found")
    assert error.__cause__ is cause
    assert error.retryable is False


def test_an_error_that_the_adapter_does_not_know(store: FakeStore, docs: FakeCollection) -> None:
    cause = ZeroDivisionError("by zero")
    store.script["count"].append(cause)
    with pytest.raises(BackendError, match=r"^fake: count\('docs'\): ZeroDivisionError: by zero$") as caught:
        docs.count()
    assert caught.value.__cause__ is cause
    assert type(caught.value) is BackendError


def test_our_own_errors_pass_with_their_cause(store: FakeStore, docs: FakeCollection) -> None:
    cause = KeyError("x")
    error = CollectionNotFoundError("it was dropped")
    error.__cause__ = cause
    store.script["count"].append(error)
    with pytest.raises(CollectionNotFoundError, match=r"^fake: count\('docs'\): it was dropped$") as caught:
        docs.count()
    assert caught.value.__cause__ is cause


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit])
def test_interrupts_pass(store: FakeStore, docs: FakeCollection, interrupt: type[BaseException]) -> None:
    def stop() -> None:
        raise interrupt

    store.script["count"].append(stop)
    with pytest.raises(interrupt):
        docs.count()


def test_secrets_of_the_configuration_are_never_printed() -> None:
    store = open_fake("fake://me:hunter22@host?api_key=sk-1234")
    docs = store.create_collection("docs", 2)
    store.script["count"].append(DriverError(401, "no sk-1234 at fake://me:hunter22@host"))
    with pytest.raises(AuthenticationError) as caught:
        docs.count()
    assert str(caught.value) == "fake: count('docs'): no *** at fake://me:***@host"
    shown = repr(caught.value) + repr(store) + repr(docs) + repr(store.config) + repr(store.config.url)
    assert "hunter22" not in shown
    assert "sk-1234" not in shown


INVALID: dict[str, Callable[[FakeCollection], Any]] = {
    "upsert": lambda docs: docs.upsert([Record("a", [1.0])]),
    "get": lambda docs: docs.get("a"),
    "query": lambda docs: docs.query([1.0]),
    "query_many": lambda docs: docs.query_many([X, [1.0]]),
    "query_by_id": lambda docs: docs.query_by_id(""),
    "count": lambda docs: docs.count("k =="),
    "scan": lambda docs: docs.scan(batch_size=0),
    "update_metadata": lambda docs: docs.update_metadata(["a"], set={"": 1}),
    "delete": lambda docs: docs.delete([""]),
    "explain": lambda docs: docs.explain("k =="),
    "scoped": lambda docs: docs.scoped("a b"),
}


@pytest.mark.parametrize("operation", INVALID)
def test_mistakes_say_where_they_happened(store: FakeStore, docs: FakeCollection, operation: str) -> None:
    with pytest.raises(InvalidInputError, match=rf"^fake: {operation}\('docs'\): ") as caught:
        INVALID[operation](docs)
    error = caught.value
    assert (error.backend, error.operation, error.collection) == ("fake", operation, "docs")
    assert store.calls == [], "nothing was sent"
    assert isinstance(error, ValueError)


# Writing ---------------------------------------------------------------------------------------------


def test_upsert(store: FakeStore, docs: FakeCollection) -> None:
    report = docs.upsert(records(3, text="t", metadata={"k": 1}))
    assert (report.written, report.failures) == (3, ())
    assert docs.upsert([]).written == 0
    assert sent(store) == [["r000", "r001", "r002"]]
    assert docs.get(["r001"]) == [Record("r001", [2, 0], "t", {"k": 1})]


def test_batches_are_within_the_limits(store: FakeStore, docs: FakeCollection) -> None:
    store.limit(max_batch_records=4)
    docs.upsert(records(10))
    assert [len(ids) for ids in sent(store)] == [4, 4, 2]
    store.calls.clear()
    store.limit(max_batch_records=100, max_batch_bytes=1000)
    docs.upsert(records(10, text="x" * 200))
    assert [len(ids) for ids in sent(store)] == [2] * 5, "well below the largest request: half of it"


@pytest.mark.parametrize("wait", [True, False])
def test_wait_reaches_the_hook(store: FakeStore, docs: FakeCollection, wait: bool) -> None:
    docs.upsert(records(1), wait=wait)
    assert store.made("upsert")[0].arguments["wait"] is wait


def bad_list() -> list[Record]:
    return [*records(5), Record("bad", [1.0]), Record("after", X)]


@pytest.mark.parametrize("form", [list, tuple])
def test_of_a_list_with_a_mistake_nothing_is_sent(
    store: FakeStore, docs: FakeCollection, form: Callable[[list[Record]], Any]
) -> None:
    store.limit(max_batch_records=2)
    with pytest.raises(DimensionMismatchError, match="record 'bad': expected 2 dimensions, got 1") as caught:
        docs.upsert(form(bad_list()))
    assert store.calls == []
    assert report_of(caught) == WriteReport(0)


def test_of_a_batch_with_a_mistake_nothing_is_sent(store: FakeStore, docs: FakeCollection) -> None:
    store.limit(max_batch_records=2)
    metadatas: list[Any] = [{}] * 5 + [{"k": float("nan")}]
    with pytest.raises(InvalidInputError, match="record 'f': metadata"):
        docs.upsert(RecordBatch(list("abcdef"), np.ones((6, 2), np.float32), None, metadatas))
    assert store.calls == []


def test_of_an_iterator_with_a_mistake_the_report_counts_what_was_written(
    store: FakeStore, docs: FakeCollection
) -> None:
    store.limit(max_batch_records=2)
    with pytest.raises(DimensionMismatchError, match=r"^fake: upsert\('docs'\): record 'bad': ") as caught:
        docs.upsert(iter(bad_list()))
    assert sent(store) == [["r000", "r001"], ["r002", "r003"]]
    assert report_of(caught).written == docs.count() == 4


def test_an_iterator_is_written_in_bounded_memory(store: FakeStore, docs: FakeCollection) -> None:
    store.limit(max_batch_records=10)
    read = 0

    def rows() -> Iterator[Record]:
        nonlocal read
        for row in records(50):
            assert len(sent(store)) >= read // 10, "what was read before has been sent"
            read += 1
            yield row

    assert docs.upsert(rows()).written == 50


def test_what_a_callers_iterator_raises_passes(docs: FakeCollection) -> None:
    def rows() -> Iterator[Record]:
        yield Record("a", X)
        raise OSError("the disk")

    with pytest.raises(OSError, match="the disk"):
        docs.upsert(rows())


def test_a_refused_batch_is_bisected(store: FakeStore, docs: FakeCollection) -> None:
    store.poison = {"r003", "r040"}
    with pytest.raises(BackendError) as caught:
        docs.upsert(records(64))
    report = report_of(caught)
    assert report.written == docs.count() == 62
    assert report.failed_ids == ["r003", "r040"]
    assert [type(failure.error) for failure in report.failures] == [BackendError] * 2
    assert str(report.failures[0].error) == "fake: upsert('docs'): one of 1 is wrong"
    assert str(caught.value) == (
        "fake: upsert('docs'): 2 of 64 records were not written (error.report names them); "
        "the first, 'r003': one of 1 is wrong"
    )
    assert isinstance(caught.value.__cause__, DriverError)
    assert NoSleep.sleeps == [], "a refusal is not retryable"
    assert len(sent(store)) <= 1 + 2 * 2 * 6, "by halves, not one by one"


def test_the_halves_of_a_batch_are_written_like_the_whole(store: FakeStore, docs: FakeCollection) -> None:
    store.poison = {"r001"}
    with pytest.raises(BackendError):
        docs.upsert(records(4), wait=False)
    assert {call.arguments["wait"] for call in store.made("upsert")} == {False}


def test_other_batches_go_on_after_a_refusal(store: FakeStore, docs: FakeCollection) -> None:
    store.limit(max_batch_records=4)
    store.poison = {"r001"}
    with pytest.raises(BackendError) as caught:
        docs.upsert(records(10))
    assert report_of(caught).failed_ids == ["r001"]
    assert docs.count() == 9


def test_the_call_can_be_made_again(store: FakeStore, docs: FakeCollection) -> None:
    store.script["upsert"].extend([DriverError(400)] * 3)
    with pytest.raises(BackendError):
        docs.upsert(records(2))
    assert docs.count() == 0
    assert docs.upsert(records(2)).written == docs.count() == 2


def test_failures_of_single_records(store: FakeStore, docs: FakeCollection) -> None:
    """Those that are not retryable are reported; of the others only they are sent again."""
    causes = {"r004": DriverError(400, "too big"), "r001": DriverError(400, "odd"), "r002": DriverError(429)}
    store.script["upsert"].append(lambda: causes)
    with pytest.raises(BackendError) as caught:
        docs.upsert(records(6))
    report = report_of(caught)
    assert sent(store) == [[f"r{i:03}" for i in range(6)], ["r002"]]
    assert report.written == docs.count() == 4
    assert report.failed_ids == ["r001", "r004"], "in the order in which they were given"
    assert [failure.error.message for failure in report.failures] == ["odd", "too big"]
    assert report.failures[0].error.__cause__ is causes["r001"]
    assert (report.failures[0].error.backend, report.failures[0].error.operation) == ("fake", "upsert")
    assert caught.value.message.endswith("the first, 'r001': odd")
    assert caught.value.__cause__ is causes["r001"]


def test_single_records_that_keep_failing(store: FakeStore, docs: FakeCollection) -> None:
    """They share the whole call's error, so that the call stops."""
    store.limit(max_batch_records=3)
    slow: Callable[[], Any] = lambda: {"r001": DriverError(429, "slow down", retry_after_s=2)}  # noqa: E731
    store.script["upsert"].extend([slow] * 4)
    with pytest.raises(RateLimitedError) as caught:
        docs.upsert(records(6))
    assert NoSleep.sleeps == [2, 2, 2]
    assert sent(store) == [["r000", "r001", "r002"], ["r001"], ["r001"], ["r001"]]
    assert report_of(caught).failed_ids == ["r001", "r003", "r004", "r005"]
    assert caught.value.retry_after_s == 2
    assert caught.value.retryable


@pytest.mark.parametrize(
    ("status", "kind", "attempts"),
    [(401, AuthenticationError, 1), (503, BackendUnavailableError, 4), (429, RateLimitedError, 4)],
)
def test_an_error_of_the_whole_call_ends_it(
    store: FakeStore, docs: FakeCollection, status: int, kind: type[BackendError], attempts: int
) -> None:
    store.limit(max_batch_records=2)
    store.script["upsert"].extend([None, *[DriverError(status, "no")] * 4])
    with pytest.raises(kind, match=r"6 of 8 records were not written .* the first, 'r002': no$") as caught:
        docs.upsert(records(8))
    assert len(sent(store)) == 1 + attempts, "neither bisected nor tried with the next batch"
    report = report_of(caught)
    assert report.written == docs.count() == 2
    assert report.failed_ids == [f"r{i:03}" for i in range(2, 8)], "the rest is in the report"
    assert all(isinstance(failure.error, kind) for failure in report.failures)


def test_an_error_of_the_whole_call_stops_an_iterator(store: FakeStore, docs: FakeCollection) -> None:
    store.limit(max_batch_records=2)
    store.script["upsert"].extend([None, DriverError(401)])
    read: list[str] = []

    def rows() -> Iterator[Record]:
        for row in records(100):
            read.append(row.id)
            yield row

    with pytest.raises(AuthenticationError) as caught:
        docs.upsert(rows())
    assert len(read) == 4
    assert report_of(caught).failed_ids == ["r002", "r003"]


def test_a_dropped_collection_ends_an_upsert(store: FakeStore, docs: FakeCollection) -> None:
    store.limit(max_batch_records=2)
    store.script["upsert"].extend([None, CollectionNotFoundError("it was dropped")])
    with pytest.raises(CollectionNotFoundError, match=r"^fake: upsert\('docs'\): it was dropped$") as caught:
        docs.upsert(records(8))
    assert len(sent(store)) == 2
    assert report_of(caught).written == 2


# Several at once -------------------------------------------------------------------------------------


def test_concurrent_batches_are_really_concurrent(store: FakeStore, docs: FakeCollection) -> None:
    store.limit(max_batch_records=1, concurrent_writes=3)
    together = threading.Barrier(3, timeout=10)

    def meet() -> None:
        together.wait()

    store.script["upsert"].extend([meet] * 6)
    assert docs.upsert(records(6)).written == 6


def test_the_last_of_equal_ids_wins_among_concurrent_batches(store: FakeStore, docs: FakeCollection) -> None:
    """The earlier batch is held up; the later one with the same id must wait for it."""
    store.limit(max_batch_records=1, concurrent_writes=4)
    order: list[str] = []
    other_done = threading.Event()

    def slow() -> None:
        assert other_done.wait(10)
        order.append("old a")

    def other() -> None:
        order.append("b")
        other_done.set()

    store.script["upsert"].extend([slow, other, lambda: order.append("new a")])
    report = docs.upsert([Record("a", X, "old"), Record("b", X), Record("a", X, "new")])
    assert report.written == 3
    assert order == ["b", "old a", "new a"]
    [found] = docs.get(["a"])
    assert found is not None
    assert found.text == "new"


def test_many_equal_ids_among_concurrent_batches(store: FakeStore, docs: FakeCollection) -> None:
    store.limit(max_batch_records=3, concurrent_writes=4)
    rows = [Record(f"id{i % 7}", X, str(i)) for i in range(200)]
    docs.upsert(rows)
    expected = {row.id: row.text for row in rows}
    assert {row.id: row.text for row in docs.scan()} == expected


def test_no_more_than_allowed_are_under_way(store: FakeStore, docs: FakeCollection) -> None:
    store.limit(max_batch_records=1, concurrent_writes=2)
    now, most, lock = 0, 0, threading.Lock()
    gate = threading.Event()

    def busy() -> None:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
            if now == 2:
                gate.set()
        assert gate.wait(10)
        with lock:
            now -= 1

    store.script["upsert"].extend([busy] * 12)
    docs.upsert(iter(records(12)))
    assert most == 2


def test_failures_of_concurrent_batches_are_in_order(store: FakeStore, docs: FakeCollection) -> None:
    store.limit(max_batch_records=2, concurrent_writes=4)
    store.refused = {id: DriverError(400, id) for id in ("r009", "r000", "r005", "r004")}
    with pytest.raises(BackendError) as caught:
        docs.upsert(records(10))
    assert report_of(caught).failed_ids == ["r000", "r004", "r005", "r009"]
    assert report_of(caught).written == docs.count() == 6


def test_after_a_fatal_error_no_further_batch_is_begun(store: FakeStore, docs: FakeCollection) -> None:
    """With two at once: when the first has failed for good, those under way end and no other begins."""
    store.limit(max_batch_records=1, concurrent_writes=2)
    second = threading.Event()

    def fail() -> None:
        assert second.wait(10)
        raise DriverError(401)

    store.script["upsert"].extend([fail, second.set])
    with pytest.raises(AuthenticationError) as caught:
        docs.upsert(records(10))
    assert len(sent(store)) == 2
    report = report_of(caught)
    assert report.written == docs.count()
    assert report.written + len(report.failures) == 10
    assert sorted(report.failed_ids) == report.failed_ids


# Making writes visible -------------------------------------------------------------------------------


@pytest.fixture
def flushing() -> FakeStore:
    store = open_fake(kind=FlushingStore)
    store.create_collection("docs", 2, "dot")
    store.limit(max_batch_records=2)
    store.calls.clear()
    return store


def hooks(store: FakeStore) -> list[str]:
    return [call.hook for call in store.calls if call.hook != "open"]


def test_flush_is_called_once_after_the_last_batch(flushing: FakeStore) -> None:
    docs = flushing.collection("docs")
    docs.upsert(records(5))
    assert hooks(flushing) == ["upsert", "upsert", "upsert", "flush"]


def test_flush_is_not_called_where_there_is_nothing_to_wait_for(flushing: FakeStore) -> None:
    docs = flushing.collection("docs")
    docs.upsert(records(5), wait=False)
    docs.upsert([])
    docs.update_metadata(["missing"], set={"k": 1})
    assert "flush" not in hooks(flushing)


def test_flush_after_other_changes(flushing: FakeStore) -> None:
    docs = flushing.collection("docs")
    docs.upsert(records(5), wait=False)
    for change in (
        lambda: docs.update_metadata([f"r{i:03}" for i in range(5)], set={"k": 1}),
        lambda: docs.delete(["r000", "r001", "r002"]),
        lambda: docs.delete(filter=F("k") == 1),
        docs.clear,
    ):
        flushing.calls.clear()
        change()
        assert hooks(flushing).count("flush") == 1
        assert hooks(flushing)[-1] == "flush"


def test_flush_even_if_some_records_failed(flushing: FakeStore) -> None:
    flushing.script["upsert"].append(lambda: {"r000": DriverError(400)})
    with pytest.raises(BackendError):
        flushing.collection("docs").upsert(records(4))
    assert hooks(flushing) == ["upsert", "upsert", "flush"]


def test_a_flush_that_fails_reports_what_was_written(flushing: FakeStore) -> None:
    flushing.script["flush"].append(DriverError(400, "no"))
    with pytest.raises(BackendError, match=r"^fake: upsert\('docs'\): no$") as caught:
        flushing.collection("docs").upsert(records(3))
    assert report_of(caught).written == 3


def test_without_flush_after_write_only_flush_flushes(store: FakeStore, docs: FakeCollection) -> None:
    docs.upsert(records(2))
    docs.delete(["r000"])
    docs.clear()
    assert store.made("flush") == []
    docs.flush()
    assert len(store.made("flush")) == 1


# Reading ---------------------------------------------------------------------------------------------


def test_get_answers_in_the_asked_order(store: FakeStore, docs: FakeCollection) -> None:
    docs.upsert(records(5))
    store.limit(max_batch_records=2)
    store.calls.clear()
    asked = ["r003", "missing", "r000", "r003", "r004"]
    found = docs.get(asked)
    assert [row.id if row else None for row in found] == ["r003", None, "r000", "r003", "r004"]
    assert [call.arguments["ids"] for call in store.made("get")] == [["r003", "missing"], ["r000", "r004"]]
    assert docs.get([]) == []
    assert docs.get(iter(["r001"])) == docs.get(("r001",)) == [records(2)[1]]  # type: ignore[arg-type]


@pytest.mark.parametrize("wanted", list(itertools.product([True, False], repeat=3)))
def test_what_is_not_asked_for_is_not_read(
    store: FakeStore, docs: FakeCollection, wanted: tuple[bool, bool, bool]
) -> None:
    docs.upsert([Record("a", X, "t", {"k": 1}), Record("b", X)])
    vectors, text, metadata = wanted
    include: dict[str, Any] = {
        "include_vectors": vectors, "include_text": text, "include_metadata": metadata,
    }  # fmt: skip
    store.calls.clear()
    [record] = docs.get(["a"], **include)
    scanned = next(docs.scan(F("k") == 1, **include))
    matches = [
        docs.query(X, filter=F("k") == 1, **include)[0],
        docs.query_many([X], filter=F("k") == 1, **include)[0][0],
        docs.query_by_id("b", filter=F("k") == 1, **include)[0],
    ]
    fields = [call.arguments["fields"] for call in store.calls]
    own = fields.pop(4)
    assert own == Fields(vectors=True, text=False, metadata=False), (
        "the record whose neighbours are asked for"
    )
    assert fields == [Fields(*wanted)] * 5
    assert record is not None
    every: list[Any] = [record, scanned, *matches]
    for found in every:
        assert (found.vector is not None) == vectors
        assert found.text == ("t" if text else None)
        assert found.metadata == ({"k": 1} if metadata else {})


def test_scan(store: FakeStore, docs: FakeCollection) -> None:
    docs.upsert(records(10, metadata={"k": 1}))
    docs.upsert(Record("other", X))
    assert sorted(row.id for row in docs.scan(batch_size=3)) == ["other", *(f"r{i:03}" for i in range(10))]
    assert {row.id for row in docs.scan(F("k") == 1, batch_size=3)} == {f"r{i:03}" for i in range(10)}
    assert [call.arguments["limit"] for call in store.made("scan")] == [3] * 8
    store.calls.clear()
    list(docs.scan())
    assert [call.arguments["limit"] for call in store.made("scan")] == [1000]


def test_scan_batches_are_not_empty(docs: FakeCollection) -> None:
    docs.upsert(records(6))
    docs.upsert(Record("last", X, metadata={"k": 1}))
    assert [batch.ids for batch in docs.scan_batches(F("k") == 1, batch_size=2)] == [["last"]]
    assert [len(batch) for batch in docs.scan_batches(batch_size=4)] == [4, 3]
    docs.clear()
    assert list(docs.scan_batches()) == []


def test_scan_checks_at_once_and_reads_later(store: FakeStore, docs: FakeCollection) -> None:
    with pytest.raises(InvalidFilterError):
        docs.scan("k ==")
    for size in (0, -1, True, 2.0, "10"):
        with pytest.raises(InvalidInputError, match="batch_size must be an int of at least 1, not "):
            docs.scan(batch_size=size)  # type: ignore[arg-type]
    docs.scan()
    assert store.calls == []


def test_count(store: FakeStore, docs: FakeCollection) -> None:
    docs.upsert(records(3, metadata={"k": 1}))
    docs.upsert(Record("x", X))
    assert (docs.count(), docs.count(F("k") == 1), docs.count("not k exists"), docs.count({"k": 1})) == (
        4,
        3,
        1,
        3,
    )
    assert docs.count(ALWAYS) == 4
    assert store.made("count")[-1].arguments["filter"] is None


def test_filters_reach_the_hooks_normalised(store: FakeStore, docs: FakeCollection) -> None:
    filter = And((F("a") != 1, ALWAYS, ~~(F("b") == 2)))
    expected = And((Not(Eq("a", 1)), Eq("b", 2)))
    docs.query(X, filter=filter)
    docs.query_many([X], filter=filter)
    docs.count(filter)
    list(docs.scan(filter))
    docs.delete(filter=filter)
    docs.update_metadata(filter=filter, set={"k": 1})
    assert [call.arguments["filter"] for call in store.calls] == [expected] * 6


@pytest.mark.parametrize(
    "never", [NOWHERE, NEVER, NOWHERE | NOWHERE, "false", {"$or": []}, {"k": {"$in": []}}]
)
def test_nothing_is_sent_for_a_filter_that_never_holds(
    store: FakeStore, docs: FakeCollection, never: Any
) -> None:
    docs.upsert(Record("a", X))
    store.calls.clear()
    assert docs.query(X, filter=never) == []
    assert docs.query_many([X, X], filter=never) == [[], []]
    assert docs.count(never) == 0
    assert list(docs.scan(never)) == list(docs.scan_batches(never)) == []
    docs.delete(filter=never)
    assert docs.update_metadata(filter=never, set={"k": 1}) == 0
    explained = docs.explain(never)
    assert (explained.native, explained.notes) == (None, ("No record can match: nothing is sent.",))
    assert store.calls == []


# Querying --------------------------------------------------------------------------------------------


def test_query(docs: FakeCollection) -> None:
    docs.upsert(records(5, text="t", metadata={"k": 1}))
    best, second = docs.query(X, limit=2)
    assert (best.id, best.score, best.text, best.metadata) == ("r004", 5.0, "t", {"k": 1})
    assert (second.id, second.score) == ("r003", 4.0)
    assert best.vector is None
    assert [match.id for match in docs.query([-1.0, 0.0], limit=2)] == ["r000", "r001"]
    assert type(best.score) is float


def test_offset(docs: FakeCollection) -> None:
    docs.upsert(records(5))
    assert [match.id for match in docs.query(X, limit=2, offset=2)] == ["r002", "r001"]
    assert [match.id for match in docs.query(X, limit=2, offset=4)] == ["r000"]
    assert docs.query(X, limit=2, offset=5) == []


def test_min_score_is_inclusive(docs: FakeCollection) -> None:
    docs.upsert(records(5))
    assert [match.id for match in docs.query(X, min_score=3.0)] == ["r004", "r003", "r002"]
    assert [match.id for match in docs.query(X, min_score=3.0000001)] == ["r004", "r003"]
    assert [match.id for match in docs.query(X, min_score=3, offset=2)] == ["r002"]
    assert docs.query(X, min_score=math.inf) == []
    assert len(docs.query(X, min_score=-math.inf)) == 5
    assert len(docs.query(X, min_score=np.float32(3))) == 3  # type: ignore[arg-type]  # a number all the same
    assert [m.id for m in docs.query_by_id("r004", min_score=20.0)] == ["r003"]
    assert [[m.id for m in found] for found in docs.query_many([X, [2.0, 0]], min_score=6)] == [
        [],
        ["r004", "r003", "r002"],
    ]


WINDOWS: list[tuple[dict[str, Any], type[PolyvecError], str]] = [
    ({"limit": 0}, InvalidInputError, "limit must be an int of at least 1, not 0"),
    ({"limit": -1}, InvalidInputError, "limit must be an int of at least 1, not -1"),
    ({"limit": True}, InvalidInputError, "limit must be an int of at least 1, not True"),
    ({"limit": 1.0}, InvalidInputError, "limit must be an int of at least 1, not 1.0"),
    ({"limit": None}, InvalidInputError, "limit must be an int of at least 1, not None"),
    ({"offset": -1}, InvalidInputError, "offset must be an int of at least 0, not -1"),
    ({"offset": False}, InvalidInputError, "offset must be an int of at least 0, not False"),
    ({"offset": "1"}, InvalidInputError, "offset must be an int of at least 0, not '1'"),
    ({"min_score": math.nan}, InvalidInputError, "min_score must be a number, not nan"),
    ({"min_score": "1"}, InvalidInputError, "min_score must be a number, not '1'"),
    ({"filter": "k =="}, InvalidFilterError, "expected a value"),
    ({"filter": 5}, InvalidFilterError, "expected a filter, not int"),
    ({"filter": {}}, InvalidFilterError, "an empty object is no filter"),
    ({"filter": ""}, InvalidFilterError, "the filter is empty"),
    (
        {"limit": 50, "offset": 51},
        UnsupportedOperationError,
        r"offset \+ limit is 101; at most (100|99) here \(scan\(\) streams any number of records\)",
    ),
    ({"exact": True}, UnsupportedOperationError, "exact=True: it guesses"),
]


@pytest.mark.parametrize(("options", "kind", "message"), WINDOWS)
def test_wrong_queries(
    store: FakeStore,
    docs: FakeCollection,
    options: dict[str, Any],
    kind: type[PolyvecError],
    message: str,
) -> None:
    """Refused before anything is sent, also by query_by_id, whose record is not even there."""
    store.limit(max_query_limit=100, exact_query=False)
    for call in (
        lambda: docs.query(X, **options),
        lambda: docs.query_many([X], **options),
        lambda: docs.query_many([], **options),
        lambda: docs.query_by_id("missing", **options),
    ):
        with pytest.raises(kind, match=message) as caught:
            call()
        assert caught.value.collection == "docs"
        assert caught.value.backend == "fake"
    assert store.calls == []


def test_the_largest_window(store: FakeStore, docs: FakeCollection) -> None:
    docs.upsert(records(30))
    store.limit(max_query_limit=10)
    assert len(docs.query(X, limit=10)) == 10
    assert len(docs.query(X, limit=4, offset=6)) == 4
    assert max(call.arguments["limit"] for call in store.made("query")) == 10, "never more than it can"
    assert len(docs.query_by_id("r029", limit=9)) == 9
    with pytest.raises(UnsupportedOperationError, match=r"offset \+ limit is 10; at most 9 here"):
        docs.query_by_id("r029", limit=10)  # the tenth could be the record itself


def test_exact_reaches_the_hook(store: FakeStore, docs: FakeCollection) -> None:
    docs.query(X, exact=True)
    docs.query(X)
    assert [call.arguments["exact"] for call in store.made("query")] == [True, False]


WRONG_VECTORS: list[tuple[Any, str]] = [
    ([1.0], "query vector: expected 2 dimensions, got 1"),
    ([1.0] * 3, "query vector: expected 2 dimensions, got 3"),
    ([X], r"query vector: expected 2 dimensions, got shape \(1, 2\)"),
    (None, r"query vector: expected 2 dimensions, got shape \(\)"),
    ("ab", r"query vector: expected 2 dimensions, got shape \(\)"),
    ([1.0, math.nan], "query vector: NaN or infinite as float32"),
    ([1e39, 0.0], "query vector: NaN or infinite as float32"),
    (["a", "b"], "query vector: expected numbers, not <U1"),
    ([True, False], "query vector: expected numbers, not bool"),
    ([[1], [1, 2]], "query vector: expected numbers, not object"),
]


@pytest.mark.parametrize(("vector", "message"), WRONG_VECTORS)
def test_wrong_query_vectors(store: FakeStore, docs: FakeCollection, vector: Any, message: str) -> None:
    with pytest.raises(InvalidInputError, match=rf"^fake: query\('docs'\): {message}"):
        docs.query(vector)
    with pytest.raises(InvalidInputError, match=r"^fake: query_many\('docs'\): vector 1: "):
        docs.query_many([X, vector])
    assert store.calls == []


def test_zero_query_vectors(store: FakeStore, docs: FakeCollection) -> None:
    docs.query([0.0, 0.0])
    cosine = store.create_collection("cosine", 2)
    with pytest.raises(InvalidInputError, match="query vector: a zero vector has no direction"):
        cosine.query([0.0, 0.0])


def test_query_many(store: FakeStore, docs: FakeCollection) -> None:
    docs.upsert(records(5))
    store.limit(max_query_vectors=2)
    vectors = np.array([[1, 0], [-1, 0], [1, 0], [-1, 0], [2, 0]], np.float64)
    found = docs.query_many(vectors, limit=1)
    assert [[(match.id, match.score) for match in matches] for matches in found] == [
        [("r004", 5.0)], [("r000", -1.0)], [("r004", 5.0)], [("r000", -1.0)], [("r004", 10.0)],
    ]  # fmt: skip
    assert [call.arguments["rows"] for call in store.made("query")] == [2, 2, 1]
    assert docs.query_many(vectors.tolist(), limit=1) == found
    assert docs.query_many([]) == docs.query_many(np.empty((0, 2))) == []


def test_query_many_of_what_is_no_list(docs: FakeCollection) -> None:
    for value in (None, 5, "ab", {"a": X}, iter([X])):
        with pytest.raises(InvalidInputError, match=r"expected vectors, shape \(n, 2\), not "):
            docs.query_many(value)  # type: ignore[arg-type]
    with pytest.raises(DimensionMismatchError, match=r"vector 0: expected 2 dimensions, got shape \(\)"):
        docs.query_many(X)  # one vector is not many


# Ties ------------------------------------------------------------------------------------------------


def tied(count: int, **more: Any) -> list[Record]:
    """Records with one and the same vector, written in an order that is not that of their ids."""
    ids = [f"t{i:04}" for i in range(count)]
    return [Record(id, X, **more) for id in [*ids[1::2], *ids[::2]]]


def test_pages_through_ties_are_disjoint_and_complete(docs: FakeCollection) -> None:
    """The fake chooses other ones among equals each time, as engines do."""
    docs.upsert([Record("best", [9.0, 0.0]), *tied(100), Record("worst", [0.5, 0.0])])
    for size in (1, 7, 10, 33):
        pages = [docs.query(X, limit=size, offset=offset) for offset in range(0, 102, size)]
        ids = [match.id for page in pages for match in page]
        assert ids == ["best", *(f"t{i:04}" for i in range(100)), "worst"]


def test_ties_are_asked_for_only_where_the_cut_goes_through_one(
    store: FakeStore, docs: FakeCollection
) -> None:
    docs.upsert([Record("a", [3.0, 0]), Record("b", [2.0, 0]), Record("c", [1.0, 0]), Record("d", [1.0, 0])])
    for limit, requests in [(1, [2]), (2, [3]), (3, [4, 16]), (4, [5]), (10, [11])]:
        store.calls.clear()
        docs.query(X, limit=limit)
        assert [call.arguments["limit"] for call in store.made("query")] == requests


def test_ties_of_many_queries(store: FakeStore, docs: FakeCollection) -> None:
    """Only the queries that need it are sent again."""
    docs.upsert([*tied(40), *records(20)])
    found = docs.query_many([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]], limit=5)
    assert [[match.id for match in matches] for matches in found] == [
        ["r019", "r018", "r017", "r016", "r015"],
        ["r000", "r001", "r002", "r003", "r004"],  # all are at a right angle
        ["r000", "t0000", "t0001", "t0002", "t0003"],  # r000 has the same vector
    ]
    first, *more = [call.arguments["rows"] for call in store.made("query")]
    assert first == 3
    assert more
    assert max(more) <= 2


def test_ties_have_an_end(store: FakeStore, docs: FakeCollection) -> None:
    docs.upsert(tied(3000))
    found = docs.query(X, limit=10)
    assert len({match.id for match in found}) == 10
    assert max(call.arguments["limit"] for call in store.made("query")) == 1010


def test_ties_at_the_limit_of_the_engine(store: FakeStore, docs: FakeCollection) -> None:
    docs.upsert(tied(100))
    store.limit(max_query_limit=50)
    assert len({match.id for match in docs.query(X, limit=50)}) == 50
    assert [match.id for match in docs.query(X, limit=3)] != []
    assert max(call.arguments["limit"] for call in store.made("query")) == 50


def test_query_by_id_leaves_the_record_out(docs: FakeCollection) -> None:
    docs.upsert(records(5))
    assert [match.id for match in docs.query_by_id("r004", limit=2)] == ["r003", "r002"]
    assert [match.id for match in docs.query_by_id("r000", limit=4)] == ["r004", "r003", "r002", "r001"]
    assert len(docs.query_by_id("r000", limit=10)) == 4
    assert [match.id for match in docs.query_by_id("r002", limit=1, offset=1)] == ["r003"]


def test_query_by_id_among_ties(docs: FakeCollection) -> None:
    """Wherever the record itself stands among its equals, the others are complete and in order."""
    docs.upsert([*tied(30), Record("worst", [0.5, 0.0])])
    everyone = [f"t{i:04}" for i in range(30)]
    for id in ("t0000", "t0003", "t0029"):
        others = [*(other for other in everyone if other != id), "worst"]
        pages = [docs.query_by_id(id, limit=7, offset=offset) for offset in range(0, 30, 7)]
        assert [match.id for page in pages for match in page] == others
    before = docs.query_by_id("worst", limit=5)
    docs.upsert(Record("best", [9.0, 0.0]))
    assert [match.id for match in docs.query_by_id("best", limit=5)] == everyone[:5]
    assert [match.id for match in docs.query_by_id("best", limit=1)] == everyone[:1]
    assert [match.id for match in docs.query_by_id("worst", limit=5)] == ["best", *everyone[:4]]
    assert [match.id for match in before] == everyone[:5]


def test_query_by_id_with_a_filter(docs: FakeCollection) -> None:
    docs.upsert(records(3, metadata={"k": 1}))
    docs.upsert(Record("x", [9.0, 0.0]))
    assert [match.id for match in docs.query_by_id("x", filter=F("k") == 1, limit=2)] == ["r002", "r001"]
    assert [match.id for match in docs.query_by_id("r000", filter=F("k") == 1)] == ["r002", "r001"]


def test_query_by_id_of_nothing(docs: FakeCollection) -> None:
    with pytest.raises(RecordNotFoundError, match=r"^fake: query_by_id\('docs'\): there is no record 'x'$"):
        docs.query_by_id("x")
    for id in (None, 5, "", "a\0", ["a"]):
        with pytest.raises(InvalidInputError):
            docs.query_by_id(id)  # type: ignore[arg-type]


# Changing and deleting -------------------------------------------------------------------------------


def metadata_of(docs: FakeCollection) -> dict[str, Any]:
    return {row.id: dict(row.metadata) for row in docs.scan()}


def test_update_metadata_by_ids(store: FakeStore, docs: FakeCollection) -> None:
    docs.upsert([Record(id, X, "text", {"old": 1, "gone": 2}) for id in "abc"])
    store.limit(max_batch_records=2)
    assert docs.update_metadata(["a", "missing", "c", "a"], set={"new": [1]}, unset=["gone", "absent"]) == 2
    assert metadata_of(docs) == {
        "a": {"old": 1, "new": [1]}, "b": {"old": 1, "gone": 2}, "c": {"old": 1, "new": [1]},
    }  # fmt: skip
    assert docs.get(["a"]) == [Record("a", X, "text", {"old": 1, "new": [1]})]
    assert docs.update_metadata(["missing"], set={"k": 1}) == docs.update_metadata([], set={"k": 1}) == 0
    assert docs.update_metadata(("b",), unset=("old", "gone")) == 1
    assert metadata_of(docs)["b"] == {}


def test_update_metadata_by_filter(store: FakeStore, docs: FakeCollection) -> None:
    """The change makes the filter false; each record is changed once all the same."""
    docs.upsert([Record(f"{i}", X, metadata={"k": i % 2}) for i in range(10)])
    store.limit(max_batch_records=2)
    assert docs.update_metadata(filter=F("k") == 1, set={"k": 0, "changed": True}) == 5
    assert docs.count(F("k") == 1) == 0
    assert docs.count(F("changed") == True) == 5  # noqa: E712  # a literal of a filter
    assert docs.update_metadata(filter="k == 7", set={"k": 1}) == 0


def test_update_metadata_reads_only_metadata(store: FakeStore, docs: FakeCollection) -> None:
    docs.upsert([Record("a", X)])
    docs.update_metadata(filter=~F("k").exists(), set={"k": None})
    assert [call.arguments["fields"] for call in store.made("scan") + store.made("get")] == [
        Fields(vectors=False, text=False, metadata=False),
        Fields(vectors=False, text=False, metadata=True),
    ]
    assert metadata_of(docs) == {"a": {"k": None}}


WRONG_CHANGES: list[tuple[dict[str, Any], str]] = [
    ({}, "nothing to change: give set or unset"),
    ({"set": {}, "unset": []}, "nothing to change"),
    ({"set": {"a": 1}, "unset": ["a", "b"]}, "both set and unset: a"),
    ({"set": {"": 1}}, "metadata key must have 1 to 128 UTF-8 bytes, not 0"),
    ({"set": {"k": (1,)}}, r"metadata\['k'\] is a tuple"),
    ({"set": 5}, r"set must be a dict, not int \(5\)"),
    ({"set": ["k"]}, "set must be a dict, not list"),
    ({"set": "k"}, "set must be a dict, not str"),
    ({"unset": "abc"}, r"unset must be a list of keys, not one str; write \['abc'\]"),
    ({"unset": 5}, r"unset must be a list of keys, not int \(5\)"),
    ({"unset": [5]}, "metadata key must be a str, not int"),
    ({"unset": [["a"]]}, "metadata key must be a str, not list"),
    ({"unset": [""]}, "metadata key must have 1 to 128 UTF-8 bytes, not 0"),
]


@pytest.mark.parametrize(("changes", "message"), WRONG_CHANGES)
def test_wrong_changes(store: FakeStore, docs: FakeCollection, changes: dict[str, Any], message: str) -> None:
    calls: list[Callable[[], Any]] = [
        lambda: docs.update_metadata(["a"], **changes),
        lambda: docs.update_metadata(filter=F("k") == 1, **changes),
    ]
    for call in calls:
        with pytest.raises(InvalidInputError, match=rf"^fake: update_metadata\('docs'\): {message}"):
            call()
    assert store.calls == []


def test_delete(store: FakeStore, docs: FakeCollection) -> None:
    docs.upsert([Record(id, X, metadata={"k": id}) for id in "abcdef"])
    store.limit(max_batch_records=2)
    docs.delete(["a", "missing", "b", "a"])
    assert [call.arguments["ids"] for call in store.made("delete")] == [["a", "missing"], ["b"]]
    docs.delete(filter=F("k").is_in(["c", "x"]))
    docs.delete(filter='k == "d"')
    assert sorted(row.id for row in docs.scan()) == ["e", "f"]
    docs.delete([])
    docs.delete(iter(["e"]))  # type: ignore[arg-type]
    docs.clear()
    assert docs.count() == 0


WRONG_TARGETS: list[tuple[dict[str, Any], str]] = [
    ({}, "give exactly one of ids and filter"),
    ({"ids": ["a"], "filter": F("k") == 1}, "give exactly one of ids and filter"),
    ({"ids": [], "filter": NOWHERE}, "give exactly one of ids and filter"),
    ({"ids": "abc"}, "ids must be a list of ids, not one str"),
    ({"ids": 5}, "ids must be a list of ids, not int"),
    ({"ids": [5]}, "an id must be a str, not int"),
    ({"ids": ["a", ""]}, "an id must have 1 to 512 UTF-8 bytes, not 0"),
    ({"filter": {}}, "an empty object is no filter"),
    ({"filter": ""}, "the filter is empty"),
    ({"filter": " "}, "the filter is empty"),
    ({"filter": ALWAYS}, r"this filter holds for every record; if that is meant, use clear\(\)"),
    ({"filter": "true"}, "this filter holds for every record"),
    ({"filter": {"$and": []}}, "this filter holds for every record"),
    ({"filter": F("k").not_in([])}, "this filter holds for every record"),
    ({"filter": ~NOWHERE}, "this filter holds for every record"),
    ({"filter": (F("k") == 1) | ALWAYS}, "this filter holds for every record"),
]


@pytest.mark.parametrize(("target", "message"), WRONG_TARGETS, ids=str)
def test_wrong_targets(store: FakeStore, docs: FakeCollection, target: dict[str, Any], message: str) -> None:
    docs.upsert(Record("a", X))
    store.calls.clear()
    with pytest.raises(InvalidInputError, match=rf"^fake: delete\('docs'\): {message}"):
        docs.delete(**target)
    with pytest.raises(InvalidInputError, match=rf"^fake: update_metadata\('docs'\): {message}"):
        docs.update_metadata(**target, set={"k": 1})
    assert store.calls == []


# Explaining ------------------------------------------------------------------------------------------


def test_explain(store: FakeStore, docs: FakeCollection) -> None:
    found = docs.explain("not year != 2020 and true", limit=3)
    assert found.backend == "fake"
    assert found.filter == "not year != 2020 and true"
    assert found.native == {"filter": Eq("year", 2020), "limit": 3, "exact": False}
    assert found.notes == ("A note.",)
    bare = docs.explain(exact=True)
    assert (bare.filter, bare.native) == (None, {"filter": None, "limit": 10, "exact": True})
    assert docs.explain(ALWAYS).native["filter"] is None
    assert store.calls == [], "nothing is sent"


def test_explain_refuses_what_query_refuses(store: FakeStore, docs: FakeCollection) -> None:
    with pytest.raises(
        UnsupportedFilterError, match=r"^fake: explain\('docs'\): == on 'unsupported': it cannot$"
    ):
        docs.explain("unsupported == 1")
    store.limit(max_query_limit=100, exact_query=False)
    for options, kind, message in WINDOWS:
        if not options.keys() & {"offset", "min_score"}:
            with pytest.raises(kind, match=message):
                docs.explain(**options)
    with pytest.raises(UnsupportedOperationError, match="at most 100 here"):
        docs.explain(limit=101)


# Namespaces ------------------------------------------------------------------------------------------


def test_scoped(store: FakeStore, docs: FakeCollection) -> None:
    tenant = docs.scoped("tenant-a")
    assert (docs.namespace, tenant.namespace, tenant.name) == ("", "tenant-a", "docs")
    assert type(tenant) is type(docs)
    tenant.upsert(Record("a", X, "theirs"))
    docs.upsert(Record("a", X, "ours"))
    [ours], [theirs] = docs.get(["a"]), tenant.get(["a"])
    assert (ours.text, theirs.text) == ("ours", "theirs")  # type: ignore[union-attr]  # both are there
    tenant.clear()
    assert (docs.count(), tenant.count()) == (1, 0)
    assert {call.namespace for call in store.made("upsert")} == {"", "tenant-a"}


@pytest.mark.parametrize("name", ["", "a b", "a/b", "x" * 129, None, 5, "é"])
def test_wrong_namespaces(docs: FakeCollection, name: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"^fake: scoped\('docs'\): a namespace must be 1 to 128 of "):
        docs.scoped(name)


def test_a_scoped_handle_cannot_leave_its_namespace(docs: FakeCollection) -> None:
    with pytest.raises(
        InvalidInputError, match="this handle is confined to the namespace 'a'; scope the coll"
    ):
        docs.scoped("a").scoped("b")


# The store -------------------------------------------------------------------------------------------


def test_create_open_list_drop(store: FakeStore) -> None:
    space = EmbeddingSpace("local", "m", 3)
    made = store.create_collection(
        "b", embedding=space, metric="dot", indexes={"k": int}, index=HnswIndex(m=8)
    )
    assert (made.name, made.info.dimension, made.info.metric, made.info.embedding) == ("b", 3, "dot", space)
    assert made.info.indexes == {"k": "int"}
    store.create_collection("A", 2)
    assert store.list_collections() == ["A", "b"]
    assert store.collection("b").info == made.info
    store.drop_collection("b")
    assert store.list_collections() == ["A"]
    store.drop_collection("b", missing_ok=True)


def test_creating_what_exists(store: FakeStore) -> None:
    made = store.create_collection("docs", 2, "dot", index=FlatIndex())
    with pytest.raises(
        CollectionExistsError, match=r"^fake: create_collection\('docs'\): it exists already; pass"
    ):
        store.create_collection("docs", 2, "dot")
    again = store.create_collection("docs", 2, "dot", exist_ok=True)
    assert again.info == made.info, "what is left out differs from nothing"
    with pytest.raises(
        SpecMismatchError,
        match=r"^fake: create_collection\('docs'\): it exists and differs: dimension is 2, asked for 3; "
        r"metric is dot, asked for cosine; index is FlatIndex\(\), asked for HnswIndex\(m=16, ",
    ):
        store.create_collection("docs", 3, index=HnswIndex(), exist_ok=True)
    assert len(store.made("create")) == 1


def test_somebody_else_was_faster(store: FakeStore) -> None:
    """The collection is there between the look and the creation."""
    made = store.create_collection("docs", 2).info

    def race() -> None:
        store.specs["docs"] = made
        raise CollectionExistsError("there")

    def create(dimension: int, *, exist_ok: bool) -> CollectionSpec:
        store.specs.clear()
        store.script["create"].append(race)
        return store.create_collection("docs", dimension, exist_ok=exist_ok).info

    assert create(2, exist_ok=True) == made
    with pytest.raises(SpecMismatchError):
        create(3, exist_ok=True)
    with pytest.raises(CollectionExistsError, match="pass exist_ok=True"):
        create(2, exist_ok=False)


def test_missing_collections(store: FakeStore) -> None:
    store.create_collection("handbook", 2)
    calls: list[tuple[str, Callable[[str], Any]]] = [
        ("collection", store.collection),
        ("drop_collection", store.drop_collection),
    ]
    for operation, call in calls:
        with pytest.raises(CollectionNotFoundError) as caught:
            call("handbok")
        assert str(caught.value) == (
            f"fake: {operation}('handbok'): there is no such collection (did you mean 'handbook'?)"
        )
        with pytest.raises(CollectionNotFoundError, match=r"\('zzz'\): there is no such collection$"):
            call("zzz")


@pytest.mark.parametrize("name", ["", "a b", "a/b", "x" * 129, "é", None, 5])
def test_wrong_names(store: FakeStore, name: Any) -> None:
    calls: list[tuple[str, Callable[[], Any]]] = [
        ("create_collection", lambda: store.create_collection(name, 2)),
        ("collection", lambda: store.collection(name)),
        ("drop_collection", lambda: store.drop_collection(name)),
        ("drop_collection", lambda: store.drop_collection(name, missing_ok=True)),
    ]
    for operation, call in calls:
        with pytest.raises(InvalidInputError, match="a collection's name must be 1 to 128 of") as caught:
            call()
        assert (caught.value.backend, caught.value.operation) == ("fake", operation)
    assert store.calls == []


def test_repr(store: FakeStore, docs: FakeCollection) -> None:
    assert repr(docs) == "<fake collection 'docs', 2 x dot>"
    assert repr(docs.scoped("a")) == "<fake collection 'docs', 2 x dot, namespace 'a'>"
    assert repr(open_fake("fake://me:secret@h1:1,h2/p?api_key=k")) == "<fake store h1:1,h2/p>"


def test_close(store: FakeStore, docs: FakeCollection) -> None:
    with store as same:
        assert same is store
    store.close()
    assert len(store.made("close")) == 1, "again is no error, and does nothing"
    store.calls.clear()
    calls: dict[str, Callable[[FakeCollection], Any]] = {
        **{name: call for name, (_, call) in OPERATIONS.items()},
        **{f"invalid {name}": call for name, call in INVALID.items()},
        "upsert nothing": lambda docs: docs.upsert([]),
        "get nothing": lambda docs: docs.get([]),
        "query_many nothing": lambda docs: docs.query_many([]),
        "count never": lambda docs: docs.count(NEVER),
        "scan never": lambda docs: docs.scan(NEVER),
        "delete nothing": lambda docs: docs.delete([]),
        "delete never": lambda docs: docs.delete(filter=NEVER),
        "explain": lambda docs: docs.explain(),
        "explain never": lambda docs: docs.explain(NEVER),
        "create": lambda _: store.create_collection("more", 2),
        "open": lambda _: store.collection("docs"),
        "list": lambda _: store.list_collections(),
        "drop": lambda _: store.drop_collection("docs"),
        "version": lambda _: store.version,
    }
    refused = {}
    for name, call in calls.items():
        with contextlib.suppress(UnsupportedOperationError):
            call(docs)
            refused[name] = "went through"
    assert refused == {}
    with pytest.raises(UnsupportedOperationError, match=r"^fake: count\('docs'\): the store is closed$"):
        docs.count()
    assert store.calls == []


def test_an_error_while_closing(store: FakeStore) -> None:
    cause = DriverError(400, "stuck")
    store.script["close"].append(cause)
    with pytest.raises(BackendError, match=r"^fake: close: stuck$") as caught:
        store.close()
    assert caught.value.__cause__ is cause
    store.close()


def test_a_store_that_cannot_be_reached() -> None:
    class Unreachable(FakeStore):
        def _do_connect(self) -> None:
            super()._do_connect()
            raise DriverError(401, "who are you")

    with pytest.raises(AuthenticationError, match=r"^fake: connect: who are you$"):
        open_fake(kind=Unreachable)
