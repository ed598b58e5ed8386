"""Async stores: every method of `polyvec.protocol`, awaited, over the same store in threads.

A call runs in one of `max_workers` threads that belong to the store; further calls wait for a free one. A
call under way cannot be cancelled: when the task that awaits it is cancelled, the await ends at once, but the
call goes on to its end in its thread, and a write may have happened. A call that still waits for a thread
is not made.

The iterables that are passed to `upsert` are read in the thread, not in the event loop.

asyncio is imported by those who await: it is a quarter of the time of `import polyvec`.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, ParamSpec, Self, TypeVar

from polyvec.batches import records_of
from polyvec.capabilities import Capabilities
from polyvec.errors import InvalidInputError, UnsupportedOperationError
from polyvec.protocol import (
    AsyncVectorStore,
    Collection,
    FilterLike,
    IndexHints,
    Records,
    VectorStore,
)
from polyvec.registry import connect
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

if TYPE_CHECKING:
    import asyncio

P = ParamSpec("P")
T = TypeVar("T")

MAX_WORKERS: Final = 8


async def connect_async(
    target: str | None = None,
    *,
    max_workers: int = MAX_WORKERS,
    **options: Any,  # see StoreConfig
) -> AsyncVectorStore:
    """Open a store whose methods are awaited; see `polyvec.connect` for the arguments and errors.

    Args:
        target: A URL or the name of a store in the configuration; None is the configuration's default.
        max_workers: Most calls that are under way at once; further ones wait.
        **options: Options of the adapter.

    Raises:
        InvalidInputError: A wrong `max_workers`.
    """
    import asyncio

    _check_max_workers(max_workers)
    opening = asyncio.ensure_future(asyncio.to_thread(connect, target, **options))
    try:
        return AsyncStore(await asyncio.shield(opening), max_workers=max_workers)
    except asyncio.CancelledError:
        opening.add_done_callback(_close_unused)
        raise


def _check_max_workers(number: object) -> None:
    if not isinstance(number, int) or isinstance(number, bool) or number < 1:
        raise InvalidInputError(f"max_workers must be an int of at least 1, not {number!r}")


def _close_unused(opening: asyncio.Future[VectorStore]) -> None:
    """Close a store that nobody waits for any more."""
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()


class _Threads:
    """The threads of one store."""

    def __init__(self, store: VectorStore, max_workers: int) -> None:
        self._store = store
        self._pool = ThreadPoolExecutor(max_workers, thread_name_prefix=f"polyvec-{store.name}")
        self._closed = False

    def submit(self, call: Callable[P, T], *args: P.args, **options: P.kwargs) -> Future[T]:
        """Begin a call, in the caller's context as `asyncio.to_thread` does."""
        if self._closed:
            raise UnsupportedOperationError("the store is closed").at(self._store.name, call.__name__, None)
        bound = functools.partial(call, *args, **options)
        return self._pool.submit(contextvars.copy_context().run, bound)

    async def run(self, call: Callable[P, T], *args: P.args, **options: P.kwargs) -> T:
        """Make a call and wait for its answer."""
        import asyncio

        return await asyncio.wrap_future(self.submit(call, *args, **options))

    async def pages(self, source: Iterator[T]) -> AsyncGenerator[T, None]:
        """Yield what a sync iterator yields, each item fetched when it is asked for."""
        import asyncio

        def scan() -> T | None:
            return next(source, None)

        step: Future[T | None] | None = None
        try:
            while True:
                step = self.submit(scan)
                page = await asyncio.wrap_future(step)
                if page is None:
                    return
                yield page
        finally:
            if step is not None and isinstance(source, Generator):
                # a cancelled scan may still be fetching a page, and what runs cannot be closed
                step.add_done_callback(lambda _: source.close())

    async def close(self) -> None:
        """Wait for the calls under way, then close the store and end the threads."""
        import asyncio

        self._closed = True

        def close() -> None:
            self._pool.shutdown()
            self._store.close()

        await asyncio.to_thread(close)


async def _each_record(batches: AsyncGenerator[RecordBatch, None]) -> AsyncIterator[Record]:
    async with contextlib.aclosing(batches):
        async for batch in batches:
            for record in records_of(batch):
                yield record


class AsyncStore:
    """An `AsyncVectorStore` over any sync store, which it closes.

    Args:
        store: The store.
        max_workers: Most calls that are under way at once; further ones wait.
    """

    def __init__(self, store: VectorStore, *, max_workers: int = MAX_WORKERS) -> None:
        _check_max_workers(max_workers)
        self._store = store
        self._threads = _Threads(store, max_workers)

    def __repr__(self) -> str:
        return f"<async {self._store!r}>"

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

    async def create_collection(
        self,
        name: str,
        dimension: int | None = None,
        metric: Metric = "cosine",
        *,
        indexes: IndexHints | None = None,
        index: Index | None = None,
        embedding: EmbeddingSpace | None = None,
        exist_ok: bool = False,
    ) -> AsyncStoreCollection:
        created = await self._threads.run(
            self._store.create_collection,
            name,
            dimension,
            metric,
            indexes=indexes,
            index=index,
            embedding=embedding,
            exist_ok=exist_ok,
        )
        return AsyncStoreCollection(created, self._threads)

    async def collection(self, name: str) -> AsyncStoreCollection:
        return AsyncStoreCollection(await self._threads.run(self._store.collection, name), self._threads)

    async def list_collections(self) -> list[str]:
        return await self._threads.run(self._store.list_collections)

    async def drop_collection(self, name: str, *, missing_ok: bool = False) -> None:
        await self._threads.run(self._store.drop_collection, name, missing_ok=missing_ok)

    async def close(self) -> None:
        """Wait for the calls under way, then close the store and end its threads."""
        await self._threads.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()


class AsyncStoreCollection:
    """An `AsyncCollection` over a collection of an `AsyncStore`, which makes it."""

    def __init__(self, collection: Collection, threads: _Threads) -> None:
        self._collection = collection
        self._threads = threads

    def __repr__(self) -> str:
        return f"<async {self._collection!r}>"

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

    def scoped(self, namespace: str) -> AsyncStoreCollection:
        return AsyncStoreCollection(self._collection.scoped(namespace), self._threads)

    async def upsert(self, records: Records, *, wait: bool = True) -> WriteReport:
        return await self._threads.run(self._collection.upsert, records, wait=wait)

    async def get(
        self,
        ids: Sequence[str],
        *,
        include_vectors: bool = True,
        include_text: bool = True,
        include_metadata: bool = True,
    ) -> list[Record | None]:
        return await self._threads.run(
            self._collection.get,
            ids,
            include_vectors=include_vectors,
            include_text=include_text,
            include_metadata=include_metadata,
        )

    async def query(
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
        return await self._threads.run(
            self._collection.query,
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

    async def query_many(
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
        return await self._threads.run(
            self._collection.query_many,
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

    async def query_by_id(
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
        return await self._threads.run(
            self._collection.query_by_id,
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

    async def count(self, filter: FilterLike | None = None) -> int:
        return await self._threads.run(self._collection.count, filter)

    def scan(
        self,
        filter: FilterLike | None = None,
        *,
        include_vectors: bool = False,
        include_text: bool = True,
        include_metadata: bool = True,
        batch_size: int | None = None,
    ) -> AsyncIterator[Record]:
        batches = self.scan_batches(
            filter,
            include_vectors=include_vectors,
            include_text=include_text,
            include_metadata=include_metadata,
            batch_size=batch_size,
        )
        return _each_record(batches)

    def scan_batches(
        self,
        filter: FilterLike | None = None,
        *,
        include_vectors: bool = False,
        include_text: bool = True,
        include_metadata: bool = True,
        batch_size: int | None = None,
    ) -> AsyncGenerator[RecordBatch, None]:
        batches = self._collection.scan_batches(
            filter,
            include_vectors=include_vectors,
            include_text=include_text,
            include_metadata=include_metadata,
            batch_size=batch_size,
        )
        return self._threads.pages(batches)

    async def update_metadata(
        self,
        ids: Sequence[str] | None = None,
        *,
        filter: FilterLike | None = None,
        set: Metadata | None = None,
        unset: Iterable[str] = (),
    ) -> int:
        return await self._threads.run(
            self._collection.update_metadata, ids, filter=filter, set=set, unset=unset
        )

    async def delete(self, ids: Sequence[str] | None = None, *, filter: FilterLike | None = None) -> None:
        await self._threads.run(self._collection.delete, ids, filter=filter)

    async def clear(self) -> None:
        await self._threads.run(self._collection.clear)

    async def flush(self) -> None:
        await self._threads.run(self._collection.flush)

    async def explain(
        self, filter: FilterLike | None = None, *, limit: int = 10, exact: bool = False
    ) -> Explanation:
        return await self._threads.run(self._collection.explain, filter, limit=limit, exact=exact)
