"""A sync store over an async one, so that the tests of the contract run on the async methods too."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Iterable, Iterator, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

import polyvec
from polyvec.capabilities import Capabilities
from polyvec.protocol import AsyncCollection, AsyncVectorStore, FilterLike, IndexHints, Records
from polyvec.types import (
    CollectionSpec,
    EmbeddingSpace,
    Explanation,
    Index,
    Match,
    Metadata,
    Metric,
    Record,
    RecordBatch,
    Vector,
    WriteReport,
)

T = TypeVar("T")


class Loop:
    """An event loop in a thread of its own, in which awaitables run on behalf of other threads."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="bridge", daemon=True)
        self._thread.start()

    def run(self, awaitable: Awaitable[T]) -> T:
        async def wait() -> T:
            return await awaitable

        return asyncio.run_coroutine_threadsafe(wait(), self._loop).result()

    def iterate(self, source: AsyncIterator[T]) -> Iterator[T]:
        end = object()

        async def step() -> T | object:
            return await anext(source, end)

        try:
            while (item := self.run(step())) is not end:
                yield item  # type: ignore[misc]  # not the end
        finally:
            self.run(source.aclose())  # type: ignore[attr-defined]  # an async generator

    def close(self) -> None:
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()


class SyncBridge:
    """A `VectorStore` whose calls go through `AsyncVectorStore`; see `open_bridge`."""

    def __init__(self, store: AsyncVectorStore, loop: Loop) -> None:
        self._store = store
        self._loop = loop

    def __repr__(self) -> str:
        return f"<sync bridge to {self._store!r}>"

    @property
    def name(self) -> str:
        return self._store.name

    @property
    def capabilities(self) -> Capabilities:
        return self._store.capabilities

    @property
    def native(self) -> Any:
        return self._store.native

    @property
    def version(self) -> str:
        return self._store.version

    def create_collection(
        self,
        name: str,
        dimension: int | None = None,
        metric: Metric = "cosine",
        *,
        indexes: IndexHints | None = None,
        index: Index | None = None,
        embedding: EmbeddingSpace | None = None,
        exist_ok: bool = False,
    ) -> BridgedCollection:
        created = self._loop.run(
            self._store.create_collection(
                name,
                dimension,
                metric,
                indexes=indexes,
                index=index,
                embedding=embedding,
                exist_ok=exist_ok,
            )
        )
        return BridgedCollection(created, self._loop)

    def collection(self, name: str) -> BridgedCollection:
        return BridgedCollection(self._loop.run(self._store.collection(name)), self._loop)

    def list_collections(self) -> list[str]:
        return self._loop.run(self._store.list_collections())

    def drop_collection(self, name: str, *, missing_ok: bool = False) -> None:
        self._loop.run(self._store.drop_collection(name, missing_ok=missing_ok))

    def close(self) -> None:
        """Close the store; the loop goes on, since calls on a closed store must raise."""
        self._loop.run(self._store.close())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class BridgedCollection:
    """A `Collection` whose calls go through `AsyncCollection`."""

    def __init__(self, collection: AsyncCollection, loop: Loop) -> None:
        self._collection = collection
        self._loop = loop

    @property
    def name(self) -> str:
        return self._collection.name

    @property
    def namespace(self) -> str:
        return self._collection.namespace

    @property
    def info(self) -> CollectionSpec:
        return self._collection.info

    @property
    def native(self) -> Any:
        return self._collection.native

    def scoped(self, namespace: str) -> BridgedCollection:
        return BridgedCollection(self._collection.scoped(namespace), self._loop)

    def upsert(self, records: Records, *, wait: bool = True) -> WriteReport:
        return self._loop.run(self._collection.upsert(records, wait=wait))

    def get(
        self,
        ids: Sequence[str],
        *,
        include_vectors: bool = True,
        include_text: bool = True,
        include_metadata: bool = True,
    ) -> list[Record | None]:
        return self._loop.run(
            self._collection.get(
                ids,
                include_vectors=include_vectors,
                include_text=include_text,
                include_metadata=include_metadata,
            )
        )

    def query(
        self,
        vector: Vector,
        *,
        limit: int = 10,
        filter: FilterLike | None = None,
        offset: int = 0,
        min_score: float | None = None,
        exact: bool = False,
        include_vectors: bool = False,
        include_text: bool = True,
        include_metadata: bool = True,
    ) -> list[Match]:
        return self._loop.run(
            self._collection.query(
                vector,
                limit=limit,
                filter=filter,
                offset=offset,
                min_score=min_score,
                exact=exact,
                include_vectors=include_vectors,
                include_text=include_text,
                include_metadata=include_metadata,
            )
        )

    def query_many(
        self,
        vectors: Sequence[Vector] | Vector,
        *,
        limit: int = 10,
        filter: FilterLike | None = None,
        offset: int = 0,
        min_score: float | None = None,
        exact: bool = False,
        include_vectors: bool = False,
        include_text: bool = True,
        include_metadata: bool = True,
    ) -> list[list[Match]]:
        return self._loop.run(
            self._collection.query_many(
                vectors,
                limit=limit,
                filter=filter,
                offset=offset,
                min_score=min_score,
                exact=exact,
                include_vectors=include_vectors,
                include_text=include_text,
                include_metadata=include_metadata,
            )
        )

    def query_by_id(
        self,
        id: str,
        *,
        limit: int = 10,
        filter: FilterLike | None = None,
        offset: int = 0,
        min_score: float | None = None,
        exact: bool = False,
        include_vectors: bool = False,
        include_text: bool = True,
        include_metadata: bool = True,
    ) -> list[Match]:
        return self._loop.run(
            self._collection.query_by_id(
                id,
                limit=limit,
                filter=filter,
                offset=offset,
                min_score=min_score,
                exact=exact,
                include_vectors=include_vectors,
                include_text=include_text,
                include_metadata=include_metadata,
            )
        )

    def count(self, filter: FilterLike | None = None) -> int:
        return self._loop.run(self._collection.count(filter))

    def scan(
        self,
        filter: FilterLike | None = None,
        *,
        include_vectors: bool = False,
        include_text: bool = True,
        include_metadata: bool = True,
        batch_size: int | None = None,
    ) -> Iterator[Record]:
        return self._loop.iterate(
            self._collection.scan(
                filter,
                include_vectors=include_vectors,
                include_text=include_text,
                include_metadata=include_metadata,
                batch_size=batch_size,
            )
        )

    def scan_batches(
        self,
        filter: FilterLike | None = None,
        *,
        include_vectors: bool = False,
        include_text: bool = True,
        include_metadata: bool = True,
        batch_size: int | None = None,
    ) -> Iterator[RecordBatch]:
        return self._loop.iterate(
            self._collection.scan_batches(
                filter,
                include_vectors=include_vectors,
                include_text=include_text,
                include_metadata=include_metadata,
                batch_size=batch_size,
            )
        )

    def update_metadata(
        self,
        ids: Sequence[str] | None = None,
        *,
        filter: FilterLike | None = None,
        set: Metadata | None = None,
        unset: Iterable[str] = (),
    ) -> int:
        return self._loop.run(self._collection.update_metadata(ids, filter=filter, set=set, unset=unset))

    def delete(self, ids: Sequence[str] | None = None, *, filter: FilterLike | None = None) -> None:
        self._loop.run(self._collection.delete(ids, filter=filter))

    def clear(self) -> None:
        self._loop.run(self._collection.clear())

    def flush(self) -> None:
        self._loop.run(self._collection.flush())

    def explain(
        self, filter: FilterLike | None = None, *, limit: int = 10, exact: bool = False
    ) -> Explanation:
        return self._loop.run(self._collection.explain(filter, limit=limit, exact=exact))


def open_bridge(target: str, loop: Loop, **options: Any) -> SyncBridge:
    """Open a store through `connect_async` in the loop, as a sync one."""
    return SyncBridge(loop.run(polyvec.connect_async(target, **options)), loop)
