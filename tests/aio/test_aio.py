"""The async facade: the same answers and errors as the sync store, in threads that it owns."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, cast

import numpy as np
import pytest

import polyvec
from polyvec import F, Record
from polyvec.aio import AsyncStore
from polyvec.protocol import AsyncCollection, AsyncVectorStore, Collection, VectorStore
from polyvec.types import RecordBatch
from tests.aio.bridge import Loop, open_bridge

COUNT = 25


def records(count: int = COUNT) -> list[Record]:
    vectors = np.random.default_rng(7).standard_normal((count, 4)).astype(np.float32)
    return [
        Record(f"r{number:02}", vector, f"text {number}", {"year": 2000 + number, "tags": [f"t{number % 3}"]})
        for number, vector in enumerate(vectors)
    ]


async def filled() -> tuple[AsyncVectorStore, AsyncCollection]:
    store = await polyvec.connect_async("memory://")
    docs = await store.create_collection("docs", 4)
    await docs.upsert(records())
    return store, docs


async def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.001)


async def answers_async() -> dict[str, Any]:
    store, docs = await filled()
    vector = [1.0, 0.5, -0.5, 0.25]
    tenant = docs.scoped("tenant")
    await tenant.upsert(Record("r01", vector))
    answers = {
        "name": (store.name, store.version, store.capabilities, docs.name, tenant.namespace, docs.info),
        "collections": await store.list_collections(),
        "get": await docs.get(["r03", "none"], include_text=False),
        "query": await docs.query(vector, limit=3, offset=1, filter=F("year") >= 2005, min_score=-0.5),
        "vectors": [match.vector for match in await docs.query(vector, limit=2, include_vectors=True)],
        "query_many": await docs.query_many([vector, vector], limit=2, exact=True, include_text=False),
        "query_by_id": await docs.query_by_id("r03", limit=2, include_metadata=False),
        "count": (await docs.count(), await docs.count('tags contains "t1"'), await tenant.count()),
        "scan": [record async for record in docs.scan(F("year") < 2010, batch_size=3)],
        "batches": [len(batch) async for batch in docs.scan_batches(batch_size=10)],
        "nothing": [record async for record in docs.scan(F("year").is_in([]))],
        "explain": await docs.explain(F("year") >= 2005, limit=3),
        "update": await docs.update_metadata(["r03", "none"], set={"new": True}, unset=["tags"]),
        "updated": await docs.get(["r03"]),
    }
    await docs.delete(["r03"])
    await docs.delete(filter=F("year") >= 2010)
    await docs.flush()
    answers["deleted"] = await docs.count()
    await docs.clear()
    answers["cleared"] = (await docs.count(), await tenant.count())
    reopened = await store.collection("docs")
    answers["reopened"] = reopened.info
    await store.drop_collection("docs")
    await store.drop_collection("docs", missing_ok=True)
    answers["dropped"] = await store.list_collections()
    await store.close()
    return answers


def answers_sync() -> dict[str, Any]:
    store = polyvec.connect("memory://")
    docs = store.create_collection("docs", 4)
    docs.upsert(records())
    vector = [1.0, 0.5, -0.5, 0.25]
    tenant = docs.scoped("tenant")
    tenant.upsert(Record("r01", vector))
    answers = {
        "name": (store.name, store.version, store.capabilities, docs.name, tenant.namespace, docs.info),
        "collections": store.list_collections(),
        "get": docs.get(["r03", "none"], include_text=False),
        "query": docs.query(vector, limit=3, offset=1, filter=F("year") >= 2005, min_score=-0.5),
        "vectors": [match.vector for match in docs.query(vector, limit=2, include_vectors=True)],
        "query_many": docs.query_many([vector, vector], limit=2, exact=True, include_text=False),
        "query_by_id": docs.query_by_id("r03", limit=2, include_metadata=False),
        "count": (docs.count(), docs.count('tags contains "t1"'), tenant.count()),
        "scan": list(docs.scan(F("year") < 2010, batch_size=3)),
        "batches": [len(batch) for batch in docs.scan_batches(batch_size=10)],
        "nothing": list(docs.scan(F("year").is_in([]))),
        "explain": docs.explain(F("year") >= 2005, limit=3),
        "update": docs.update_metadata(["r03", "none"], set={"new": True}, unset=["tags"]),
        "updated": docs.get(["r03"]),
    }
    docs.delete(["r03"])
    docs.delete(filter=F("year") >= 2010)
    docs.flush()
    answers["deleted"] = docs.count()
    docs.clear()
    answers["cleared"] = (docs.count(), tenant.count())
    answers["reopened"] = store.collection("docs").info
    store.drop_collection("docs")
    store.drop_collection("docs", missing_ok=True)
    answers["dropped"] = store.list_collections()
    store.close()
    return answers


def test_the_answers_are_those_of_the_sync_store() -> None:
    expected, got = answers_sync(), asyncio.run(answers_async())
    assert [vector.tolist() for vector in got.pop("vectors")] == [
        vector.tolist() for vector in expected.pop("vectors")
    ]
    assert got == expected
    assert expected["count"] == (25, 8, 1)
    assert expected["batches"] == [10, 10, 5]


class Recording:
    """A store and collection in one that keeps what its last call was given."""

    name = "recording"

    def __init__(self) -> None:
        self.given: dict[str, Any] = {}

    def __getattr__(self, method: str) -> Any:
        protocol = VectorStore if hasattr(VectorStore, method) else Collection
        signature = inspect.signature(getattr(protocol, method))

        def call(*arguments: Any, **options: Any) -> Any:
            self.given = signature.bind(self, *arguments, **options).arguments
            return iter(()) if method.startswith("scan") else self

        return call


METHODS = [
    (protocol, name)
    for protocol in (VectorStore, Collection)
    for name, member in vars(protocol).items()
    if not name.startswith("_") and callable(member) and name != "close"
]


@pytest.mark.parametrize(("protocol", "method"), METHODS, ids=lambda value: getattr(value, "__name__", value))
def test_every_argument_of_every_method_arrives(protocol: type, method: str) -> None:
    async def run() -> None:
        recording = Recording()
        facade: Any = AsyncStore(cast("VectorStore", recording))
        if protocol is Collection:
            facade = await facade.collection("docs")
        signature = inspect.signature(getattr(protocol, method))
        assert inspect.signature(getattr(type(facade), method)).parameters == signature.parameters
        values = {name: object() for name in list(signature.parameters)[1:]}
        by_position = {
            name: value
            for name, value in values.items()
            if signature.parameters[name].kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
        }
        by_keyword = {name: value for name, value in values.items() if name not in by_position}
        answer = getattr(facade, method)(*by_position.values(), **by_keyword)
        if method.startswith("scan"):
            assert [item async for item in answer] == []
        elif method != "scoped":
            await answer
        recording.given.pop("self")
        assert recording.given == values

    asyncio.run(run())


def test_no_method_is_missing() -> None:
    for sync, awaited in ((VectorStore, AsyncVectorStore), (Collection, AsyncCollection)):
        public = [name for name in vars(sync) if not name.startswith("_")]
        assert public == [name for name in vars(awaited) if not name.startswith("_")]


def test_as_a_context_manager_it_closes_and_ends_its_threads() -> None:
    async def run() -> VectorStore:
        store = polyvec.connect("memory://")
        async with AsyncStore(store, max_workers=2) as facade:
            await facade.create_collection("docs", 4)
            docs = await facade.collection("docs")
            scan = docs.scan()
        await facade.close()  # again: no error
        for call in (facade.list_collections(), docs.count(), anext(scan)):
            with pytest.raises(polyvec.UnsupportedOperationError, match="the store is closed"):
                await call
        return store

    store = asyncio.run(run())
    with pytest.raises(polyvec.UnsupportedOperationError, match="the store is closed"):
        store.list_collections()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("polyvec-memory")]


def test_closing_waits_for_the_calls_under_way() -> None:
    class Slow:
        def __init__(self) -> None:
            self.name = "slow"
            self.begun, self.go_on = threading.Event(), threading.Event()
            self.done: list[str] = []

        def list_collections(self) -> list[str]:
            self.begun.set()
            assert self.go_on.wait(5)
            self.done.append("call")
            return ["docs"]

        def close(self) -> None:
            self.done.append("close")

    async def run() -> None:
        slow = Slow()
        facade = AsyncStore(cast("VectorStore", slow))
        call = asyncio.ensure_future(facade.list_collections())
        await asyncio.to_thread(slow.begun.wait, 5)
        closing = asyncio.ensure_future(facade.close())
        await asyncio.sleep(0)
        slow.go_on.set()
        await closing
        assert await call == ["docs"]
        assert slow.done == ["call", "close"]

    asyncio.run(run())


def test_errors_are_those_of_the_sync_store() -> None:
    async def run() -> None:
        store, docs = await filled()
        with pytest.raises(polyvec.CollectionNotFoundError) as missing:
            await store.collection("dosc")
        assert (
            str(missing.value)
            == "memory: collection('dosc'): there is no such collection (did you mean 'docs'?)"
        )
        with pytest.raises(polyvec.DimensionMismatchError) as wrong:
            await docs.query([1.0])
        assert (wrong.value.backend, wrong.value.operation, wrong.value.collection) == (
            "memory",
            "query",
            "docs",
        )
        with pytest.raises(polyvec.InvalidInputError) as stopped:
            await docs.upsert(iter([*records(1500), Record("", [1, 1, 1, 1])]))
        assert stopped.value.report == polyvec.WriteReport(1000)
        with pytest.raises(polyvec.InvalidFilterError):
            docs.scan("year >=")  # like the sync method: at once
        await store.close()

    asyncio.run(run())
    with pytest.raises(polyvec.ConfigurationError, match="no adapter opens 'memroy' URLs"):
        asyncio.run(polyvec.connect_async("memroy://"))


@pytest.mark.parametrize("number", [0, -1, 1.5, True])
def test_a_wrong_number_of_threads_is_refused(number: int) -> None:
    with pytest.raises(polyvec.InvalidInputError, match="max_workers must be an int of at least 1"):
        asyncio.run(polyvec.connect_async("memory://", max_workers=number))
    with pytest.raises(polyvec.InvalidInputError, match="max_workers must be an int of at least 1"):
        AsyncStore(polyvec.connect("memory://"), max_workers=number)


def test_many_calls_at_once_use_no_more_threads_than_asked_for() -> None:
    class Counting:
        name = "counting"

        def __init__(self) -> None:
            self.lock = threading.Lock()
            self.running = self.most = 0
            self.full = threading.Event()

        def list_collections(self) -> list[str]:
            with self.lock:
                self.running += 1
                self.most = max(self.most, self.running)
                if self.running == 3:
                    self.full.set()
            assert self.full.wait(5)
            with self.lock:
                self.running -= 1
            return ["docs"]

        def close(self) -> None: ...

    async def run() -> None:
        counting = Counting()
        async with AsyncStore(cast("VectorStore", counting), max_workers=3) as facade:
            answers = await asyncio.gather(*(facade.list_collections() for _ in range(50)))
        assert answers == [["docs"]] * 50
        assert counting.most == 3

    asyncio.run(run())


def test_many_calls_at_once_answer_like_one_by_one() -> None:
    async def run() -> None:
        store, docs = await filled()
        written = records(200)
        await asyncio.gather(*(docs.upsert(record) for record in written))
        found = await asyncio.gather(
            *(docs.query(record.vector, limit=1) for record in written if record.vector is not None)
        )
        assert [matches[0].id for matches in found] == [record.id for record in written]
        assert await docs.count() == 200
        await store.close()

    asyncio.run(run())


def test_the_callers_context_reaches_the_thread() -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")

    class Reading:
        name = "reading"

        def list_collections(self) -> list[str]:
            return [variable.get()]

        def close(self) -> None: ...

    async def run() -> None:
        async with AsyncStore(cast("VectorStore", Reading())) as facade:
            variable.set("from the task")
            assert await facade.list_collections() == ["from the task"]

    asyncio.run(run())


class Paged:
    """A store and collection in one, whose scan says what it does and can be held up."""

    name = "paged"

    def __init__(self) -> None:
        self.fetched = 0
        self.ended = False
        self.go_on = threading.Event()
        self.go_on.set()

    def collection(self, name: str) -> Paged:
        return self

    def scan_batches(self, *args: object, **options: object) -> Iterator[RecordBatch]:
        self.pages = self.make_pages()  # kept, so that it does not end by being forgotten
        return self.pages

    def make_pages(self) -> Iterator[RecordBatch]:
        try:
            for number in range(100):
                self.fetched += 1
                assert self.go_on.wait(5)
                yield RecordBatch([f"{number}-{row}" for row in range(10)], None)
        finally:
            self.ended = True

    def close(self) -> None: ...


def on_pages(body: Callable[[Paged, AsyncCollection], Any]) -> None:
    async def run() -> None:
        paged = Paged()
        async with AsyncStore(cast("VectorStore", paged)) as facade:
            await body(paged, await facade.collection("docs"))

    asyncio.run(run())


def test_a_scan_fetches_one_page_at_a_time() -> None:
    async def body(paged: Paged, docs: AsyncCollection) -> None:
        scan = docs.scan()
        assert paged.fetched == 0
        for number in range(30):
            assert (await anext(scan)).id == f"{number // 10}-{number % 10}"
            assert paged.fetched == 1 + number // 10
        assert len([record async for record in scan]) == 970
        assert (paged.fetched, paged.ended) == (100, True)

    on_pages(body)


@pytest.mark.parametrize("method", ["scan", "scan_batches"])
def test_a_scan_that_is_left_closes(method: str) -> None:
    async def body(paged: Paged, docs: AsyncCollection) -> None:
        scan: AsyncIterator[Any] = getattr(docs, method)()
        async for _ in scan:
            break
        assert not paged.ended
        await scan.aclose()  # type: ignore[attr-defined]  # an async generator
        assert (paged.fetched, paged.ended) == (1, True)

    on_pages(body)


@pytest.mark.parametrize("method", ["scan", "scan_batches"])
def test_a_scan_that_is_cancelled_closes_when_its_page_is_there(method: str) -> None:
    async def body(paged: Paged, docs: AsyncCollection) -> None:
        async def consume() -> None:
            async for _ in getattr(docs, method)():
                paged.go_on.clear()  # the next page is held up

        task = asyncio.ensure_future(consume())
        await eventually(lambda: paged.fetched == 2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not paged.ended  # still fetching
        paged.go_on.set()
        await eventually(lambda: paged.ended)
        assert paged.fetched == 2

    on_pages(body)


def test_a_store_that_opens_after_the_cancellation_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go_on, closed = threading.Event(), threading.Event(), threading.Event()

    class Opened:
        def close(self) -> None:
            closed.set()

    def connect(target: str | None, **options: object) -> Opened:
        begun.set()
        assert go_on.wait(5)
        return Opened()

    async def run() -> None:
        monkeypatch.setattr("polyvec.aio.connect", connect)
        task = asyncio.ensure_future(polyvec.connect_async("memory://"))
        await asyncio.to_thread(begun.wait, 5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        go_on.set()
        await eventually(closed.is_set)

    asyncio.run(run())


def test_the_bridge_is_a_sync_store_again() -> None:
    loop = Loop()
    with open_bridge("memory://", loop) as store:
        assert isinstance(store, VectorStore)
        docs = store.create_collection("docs", 4)
        assert isinstance(docs, Collection)
        assert docs.upsert(records()).written == 25
        assert [record.id for record in docs.scan(batch_size=2)] == [record.id for record in records()]
        assert next(docs.scan_batches(batch_size=2)).ids == ["r00", "r01"]
        with pytest.raises(polyvec.RecordNotFoundError):
            docs.query_by_id("none")
    with pytest.raises(polyvec.UnsupportedOperationError, match="the store is closed"):
        docs.count()
    loop.close()
