"""What callers may rely on, on every backend: `VectorStore`, `Collection` and their async twins."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Protocol, Self, TypeAlias, runtime_checkable

from polyvec.capabilities import Capabilities
from polyvec.filters import Filter
from polyvec.types import (
    CollectionSpec,
    EmbeddingSpace,
    Explanation,
    Index,
    IndexKind,
    Match,
    Metadata,
    Metric,
    Record,
    RecordBatch,
    Vector,
    WriteReport,
)

Records: TypeAlias = Record | RecordBatch | Iterable[Record | RecordBatch]
"""What `upsert` takes: a record, a batch of columns, or any iterable of either, of any length."""

FilterLike: TypeAlias = Filter | str | Mapping[str, Any]
"""A filter in any notation: nodes (`F("year") >= 2020`), a string, or a JSON object."""

IndexHints: TypeAlias = Mapping[str, type | IndexKind]
"""Metadata keys that will be filtered by often: `{"year": int, "lang": str}`."""


@runtime_checkable
class Collection(Protocol):
    """Records of one dimension and metric, in one namespace of one collection of a store.

    Every method may also raise `CollectionNotFoundError` (it was dropped), `BackendError` and its
    subclasses. Thread-safe.
    """

    @property
    def name(self) -> str:
        """The collection's name."""

    @property
    def namespace(self) -> str:
        """The namespace that this handle is confined to; "" is the default one."""

    @property
    def info(self) -> CollectionSpec:
        """What the collection is, as read from the database when it was opened."""

    @property
    def native(self) -> Any:  # the driver's own object
        """The driver's own object for the collection, for what polyvec does not cover."""

    def scoped(self, namespace: str) -> Collection:
        """Return a handle whose every call is confined to a namespace.

        The same id may live in several namespaces. A collection that was not scoped is the namespace "",
        one among the others: it does not see into them. No id, filter or name reaches outside; only
        `drop_collection` ends all of them.

        Args:
            namespace: 1 to 128 of `[A-Za-z0-9_.-]`.

        Raises:
            InvalidInputError: A wrong name, or the handle is scoped already.
        """

    def upsert(self, records: Records, *, wait: bool = True) -> WriteReport:
        """Write records, replacing those of the same id entirely.

        Afterwards a record is exactly what was sent: no older metadata key, text or vector survives. The
        last of several equal ids wins. A list or a batch is checked whole before anything is sent; an
        iterator of unknown length is checked and sent in batches, in bounded memory.

        Args:
            records: A record, a batch, or an iterable of either, of any length.
            wait: When it returns, every read sees the write. False is for bulk loads: `flush` catches up.

        Returns:
            How many records were written. It has no failures: see Raises.

        Raises:
            DimensionMismatchError: A vector of another length.
            InvalidInputError: A record breaks a rule of `Record`. Of a list or a batch nothing was sent;
                of an iterator, `error.report` counts what had been written before.
            BackendError: Some records could not be written, also not by trying again;
                `error.report` names each with its reason. The rest was written where that was possible.
                The call can be made again.
        """

    def get(
        self,
        ids: Sequence[str],
        *,
        include_vectors: bool = True,
        include_text: bool = True,
        include_metadata: bool = True,
    ) -> list[Record | None]:
        """Return the records of these ids, in this order; None where there is none.

        Args:
            ids: Any number of ids; the same one may occur again.
            include_vectors: Read the vectors, equal to what was written to rtol 1e-5.
            include_text: Read the texts.
            include_metadata: Read the metadata, equal and of the same types as written.

        Raises:
            InvalidInputError: An id that no record can have.
        """

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
        """Return the records nearest to `vector`, best first.

        Args:
            vector: Shape (d,), d the collection's dimension; compared as float32. Not zero under cosine.
            limit: Most matches to return, at least 1.
            filter: Only records for which `filters.matches` holds; applied before the limit.
            offset: Skip this many of the best; offset + limit at most `capabilities.max_query_limit`.
            min_score: Only matches of at least this score (inclusive).
            exact: Ask for a brute-force answer.
            include_vectors: Return vectors.
            include_text: Return texts.
            include_metadata: Return metadata.

        Returns:
            Up to `limit` matches, scores descending, equal scores by id. Exactly `limit` if that many
            records match the filter (and `min_score` is None).

        Raises:
            DimensionMismatchError: `len(vector) != d`; nothing was sent.
            InvalidInputError: A wrong limit, offset, vector or filter; nothing was sent.
            UnsupportedFilterError: The backend cannot answer the filter exactly; nothing was sent.
            UnsupportedOperationError: `exact` on a backend without it, or offset + limit beyond its limit.
        """

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
        """Answer many vectors, shape (n, d), in as few requests as the backend allows; see `query`.

        Returns:
            A list of matches for each vector, in the order of the vectors.
        """

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
        """Return the records nearest to a record of the collection, without that record; see `query`.

        Raises:
            RecordNotFoundError: There is no such record.
        """

    def count(self, filter: FilterLike | None = None) -> int:
        """Return the exact number of records, or of those that the filter holds for."""

    def scan(
        self,
        filter: FilterLike | None = None,
        *,
        include_vectors: bool = False,
        include_text: bool = True,
        include_metadata: bool = True,
        batch_size: int | None = None,
    ) -> Iterator[Record]:
        """Stream every record once, in any order, in bounded memory, also past the engine's page limits.

        Records written or deleted meanwhile may be seen or not.

        Args:
            filter: Only records that it holds for.
            include_vectors: Read vectors; else `vector` is None.
            include_text: Read texts.
            include_metadata: Read metadata.
            batch_size: Records of one request, at least 1; None is the adapter's default.
        """

    def scan_batches(
        self,
        filter: FilterLike | None = None,
        *,
        include_vectors: bool = False,
        include_text: bool = True,
        include_metadata: bool = True,
        batch_size: int | None = None,
    ) -> Iterator[RecordBatch]:
        """Like `scan`, in columns: one batch for each request, none of them empty."""

    def update_metadata(
        self,
        ids: Sequence[str] | None = None,
        *,
        filter: FilterLike | None = None,
        set: Metadata | None = None,
        unset: Iterable[str] = (),
    ) -> int:
        """Change metadata keys of some records; their vectors and texts stay.

        Give exactly one of `ids` and `filter`. Ids without a record are no error.

        Args:
            ids: The records to change.
            filter: Change every record that it holds for; a filter that holds for all is refused.
            set: Keys to set.
            unset: Keys to remove.

        Returns:
            How many records were changed.

        Raises:
            InvalidInputError: Both or none of ids and filter; a wrong value; a key both set and unset.
        """

    def delete(self, ids: Sequence[str] | None = None, *, filter: FilterLike | None = None) -> None:
        """Delete records; when it returns, no read sees them.

        Give exactly one of `ids` and `filter`. Ids without a record are no error.

        Raises:
            InvalidInputError: Both or none of the two, or a filter that holds for all (that is `clear`).
        """

    def clear(self) -> None:
        """Delete every record of this namespace; the collection stays."""

    def flush(self) -> None:
        """Return when every read sees all that was written with `wait=False`.

        Good after a bulk load in any case: an engine that keeps new records apart from its index is told to
        index them.
        """

    def explain(
        self, filter: FilterLike | None = None, *, limit: int = 10, exact: bool = False
    ) -> Explanation:
        """Return the request that a query with this filter would send; nothing is sent.

        Raises:
            UnsupportedFilterError: As `query` would.
        """


@runtime_checkable
class VectorStore(Protocol):
    """A vector database: named collections, kept in it with all that is needed to open them again.

    Every method may also raise `BackendError` and its subclasses. Thread-safe. A context manager that
    closes it.
    """

    @property
    def name(self) -> str:
        """Name of the adapter, e.g. "qdrant"."""

    @property
    def capabilities(self) -> Capabilities:
        """What this store can do, as data."""

    @property
    def native(self) -> Any:  # the driver's own object
        """The driver's own client, for what polyvec does not cover."""

    @property
    def version(self) -> str:
        """Version of the engine that answers, e.g. "1.19.0"."""

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
    ) -> Collection:
        """Create a collection and return it.

        Args:
            name: 1 to 128 of `[A-Za-z0-9_.-]`, case-sensitive.
            dimension: Length of the vectors; may be left out where `embedding` says it.
            metric: "cosine", "dot" or "euclidean".
            indexes: Metadata keys to speed up filters on; never changes an answer.
            index: How vectors are searched; None is the adapter's default.
            embedding: The space of the vectors, if they come from a model.
            exist_ok: Return the collection that exists, if what is asked for does not differ from it.
                A left-out `indexes`, `index` or `embedding` differs from nothing; the metric always counts.

        Raises:
            CollectionExistsError: It exists, and `exist_ok` is False.
            SpecMismatchError: It exists and differs; both sides are named.
            ForeignCollectionError: The database has one of that name that polyvec did not create.
            InvalidInputError: A wrong argument.
            UnsupportedOperationError: A metric or an index that this backend does not have.
        """

    def collection(self, name: str) -> Collection:
        """Open a collection.

        Raises:
            CollectionNotFoundError: There is none; close names are suggested.
            ForeignCollectionError: polyvec did not create it.
        """

    def list_collections(self) -> list[str]:
        """Return the names of polyvec's collections, sorted."""

    def drop_collection(self, name: str, *, missing_ok: bool = False) -> None:
        """Delete a collection with all its records and namespaces.

        Raises:
            CollectionNotFoundError: There is none, and `missing_ok` is False.
            ForeignCollectionError: polyvec did not create it.
        """

    def close(self) -> None:
        """Release the connection; calling it again is no error. Other calls then raise."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...


class AsyncCollection(Protocol):
    """`Collection` with every method awaited; see there."""

    @property
    def name(self) -> str:
        """See `Collection.name`."""

    @property
    def namespace(self) -> str:
        """See `Collection.namespace`."""

    @property
    def info(self) -> CollectionSpec:
        """See `Collection.info`."""

    @property
    def native(self) -> Any:  # the driver's own object
        """See `Collection.native`."""

    def scoped(self, namespace: str) -> AsyncCollection:
        """See `Collection.scoped`; not awaited, since nothing is sent."""

    async def upsert(self, records: Records, *, wait: bool = True) -> WriteReport:
        """See `Collection.upsert`."""

    async def get(
        self,
        ids: Sequence[str],
        *,
        include_vectors: bool = True,
        include_text: bool = True,
        include_metadata: bool = True,
    ) -> list[Record | None]:
        """See `Collection.get`."""

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
        """See `Collection.query`."""

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
        """See `Collection.query_many`."""

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
        """See `Collection.query_by_id`."""

    async def count(self, filter: FilterLike | None = None) -> int:
        """See `Collection.count`."""

    def scan(
        self,
        filter: FilterLike | None = None,
        *,
        include_vectors: bool = False,
        include_text: bool = True,
        include_metadata: bool = True,
        batch_size: int | None = None,
    ) -> AsyncIterator[Record]:
        """See `Collection.scan`; use it with `async for`."""

    def scan_batches(
        self,
        filter: FilterLike | None = None,
        *,
        include_vectors: bool = False,
        include_text: bool = True,
        include_metadata: bool = True,
        batch_size: int | None = None,
    ) -> AsyncIterator[RecordBatch]:
        """See `Collection.scan_batches`; use it with `async for`."""

    async def update_metadata(
        self,
        ids: Sequence[str] | None = None,
        *,
        filter: FilterLike | None = None,
        set: Metadata | None = None,
        unset: Iterable[str] = (),
    ) -> int:
        """See `Collection.update_metadata`."""

    async def delete(self, ids: Sequence[str] | None = None, *, filter: FilterLike | None = None) -> None:
        """See `Collection.delete`."""

    async def clear(self) -> None:
        """See `Collection.clear`."""

    async def flush(self) -> None:
        """See `Collection.flush`."""

    async def explain(
        self, filter: FilterLike | None = None, *, limit: int = 10, exact: bool = False
    ) -> Explanation:
        """See `Collection.explain`."""


class AsyncVectorStore(Protocol):
    """`VectorStore` with every method awaited; see there. An async context manager."""

    @property
    def name(self) -> str:
        """See `VectorStore.name`."""

    @property
    def capabilities(self) -> Capabilities:
        """See `VectorStore.capabilities`."""

    @property
    def native(self) -> Any:  # the driver's own object
        """See `VectorStore.native`."""

    @property
    def version(self) -> str:
        """See `VectorStore.version`."""

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
    ) -> AsyncCollection:
        """See `VectorStore.create_collection`."""

    async def collection(self, name: str) -> AsyncCollection:
        """See `VectorStore.collection`."""

    async def list_collections(self) -> list[str]:
        """See `VectorStore.list_collections`."""

    async def drop_collection(self, name: str, *, missing_ok: bool = False) -> None:
        """See `VectorStore.drop_collection`."""

    async def close(self) -> None:
        """See `VectorStore.close`."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...
