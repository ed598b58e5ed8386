"""How adapters are written: the public methods, done once, over hooks that talk to one driver.

A public method checks its arguments and the backend's capabilities, cuts the work into batches, calls a hook
`_do_...`, tries again what is retryable, translates the driver's errors and puts the result in order. A hook
gets checked input of one batch, calls the driver and returns plain values; it catches nothing. The methods
are documented in `polyvec.protocol`.
"""

from __future__ import annotations

import difflib
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from numbers import Real
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple, NoReturn, Self, TypeVar, final

import numpy as np
import numpy.typing as npt

from polyvec import batches as _batches
from polyvec import spec as _spec
from polyvec.batches import Limits, check_ids, check_name, check_vectors, chunks, records_of, take
from polyvec.capabilities import Capabilities
from polyvec.errors import (
    AuthenticationError,
    BackendError,
    BackendTimeoutError,
    BackendUnavailableError,
    CollectionExistsError,
    CollectionNotFoundError,
    InvalidInputError,
    PolyvecError,
    RateLimitedError,
    RecordNotFoundError,
    SpecMismatchError,
    UnsupportedOperationError,
    shown,
)
from polyvec.filters import NEVER, Filter, check_filter, normalise
from polyvec.metadata import check_key, check_metadata
from polyvec.retry import RetryPolicy
from polyvec.types import (
    CollectionSpec,
    EmbeddingSpace,
    Explanation,
    FloatArray,
    Index,
    Match,
    Metadata,
    Metric,
    Record,
    RecordBatch,
    Vector,
    WriteFailure,
    WriteReport,
)
from polyvec.writer import send_all

if TYPE_CHECKING:
    from polyvec.config import StoreConfig
    from polyvec.protocol import FilterLike, IndexHints, Records
    from polyvec.registry import Adapter

T = TypeVar("T")

MOST_TIES: Final = 1000
"""A query fetches up to this many more matches to find all that tie with the last one."""

_WHOLE_CALL: Final = (
    AuthenticationError, BackendUnavailableError, BackendTimeoutError, RateLimitedError,
)  # fmt: skip
"""Errors that say nothing about a record: the records of the call share them."""


class Fields(NamedTuple):
    """What a read returns besides ids; what is not asked for is not sent over the wire."""

    vectors: bool
    text: bool
    metadata: bool


class Hits(NamedTuple):
    """What a query hook found for one vector, in any order.

    Attributes:
        records: n records.
        scores: Shape (n,), float64; our scores (see `polyvec.scores`).
    """

    records: RecordBatch
    scores: npt.NDArray[np.float64]


class BaseCollection(ABC):
    """Base of an adapter's collection; see `polyvec.protocol.Collection` for the methods.

    Attributes:
        store: The store that it belongs to.
        spec: What it is.
        namespace: The namespace that the hooks must confine themselves to; "" is the default one.
    """

    flush_after_write: ClassVar[bool] = False
    """Whether a write with `wait=True` is made visible by `_do_flush`, called once after its last batch.

    Otherwise `_do_upsert` makes each batch visible itself. In either case `_do_delete` and
    `_do_set_metadata` are followed by `_do_flush` if this is True."""

    def __init__(self, store: BaseVectorStore, spec: CollectionSpec, namespace: str = "") -> None:
        self.store = store
        self.spec = spec
        self.namespace = namespace

    def __repr__(self) -> str:
        scope = f", namespace {self.namespace!r}" if self.namespace else ""
        return (
            f"<{self.store.name} collection {self.name!r}, {self.spec.dimension} x {self.spec.metric}{scope}>"
        )

    # Hooks -------------------------------------------------------------------------------------------

    @abstractmethod
    def _do_upsert(self, batch: RecordBatch, *, wait: bool) -> Mapping[str, Exception] | None:
        """Replace the records of one batch (distinct ids, within the capabilities' limits).

        Returns:
            The driver's error for each id that was refused, where the engine says it for each record; the
            others are written. An engine that refuses a request as a whole raises instead.
        """

    @abstractmethod
    def _do_get(self, ids: list[str], fields: Fields) -> RecordBatch:
        """Return the records of distinct ids, in any order, missing ones left out."""

    @abstractmethod
    def _do_query(
        self, vectors: FloatArray, *, limit: int, filter: Filter | None, exact: bool, fields: Fields
    ) -> list[Hits]:
        """Return the best `limit` records for each vector; shape (n, d), a normalised filter."""

    @abstractmethod
    def _do_count(self, filter: Filter | None) -> int:
        """Return the exact number of records for which a normalised filter holds."""

    @abstractmethod
    def _do_scan(
        self,
        filter: Filter | None,
        fields: Fields,
        *,
        limit: int,
        cursor: Any,
    ) -> tuple[RecordBatch, Any]:
        """Return up to `limit` records from a cursor on, and the cursor that goes on from there.

        Args:
            filter: Normalised.
            fields: What to read.
            limit: Most records; fewer do not mean the end.
            cursor: None at the start, then whatever the last call returned; None at the end.
        """

    @abstractmethod
    def _do_set_metadata(self, ids: list[str], metadatas: Sequence[Metadata]) -> None:
        """Replace the metadata of records that exist, leaving vector and text alone."""

    @abstractmethod
    def _do_delete(self, ids: list[str]) -> None:
        """Delete the records of distinct ids; unknown ones are no error."""

    @abstractmethod
    def _do_delete_where(self, filter: Filter | None) -> None:
        """Delete the records for which a normalised filter holds; None is every record of the namespace."""

    def _do_flush(self) -> None:  # noqa: B027  # nothing to do where every write is visible at once
        """Return when reads see all earlier writes."""

    @abstractmethod
    def _do_explain(self, filter: Filter | None, *, limit: int, exact: bool) -> tuple[Any, tuple[str, ...]]:
        """Return the native request of a query, and a sentence for each thing that was rewritten."""

    def _scan_limit(self) -> int:
        """Return how many records one page of a scan has where the caller does not say."""
        return min(1000, self.store.capabilities.max_batch_records)

    # Public methods ----------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def info(self) -> CollectionSpec:
        return self.spec

    @property
    def native(self) -> Any:
        return self.name

    @final
    def scoped(self, namespace: str) -> Self:
        self._checked("scoped", check_name, namespace, "a namespace")
        if self.namespace:
            raise InvalidInputError(
                f"this handle is confined to the namespace {self.namespace!r}; scope the collection instead"
            ).at(self.store.name, "scoped", self.name)
        return type(self)(self.store, self.spec, namespace)

    @final
    def upsert(self, records: Records, *, wait: bool = True) -> WriteReport:
        self.store._require_open("upsert", self.name)  # noqa: SLF001
        limits = Limits(
            self.store.capabilities.max_batch_records, self.store.capabilities.max_batch_bytes // 2
        )
        parts = _batches.batches(records, self.spec.dimension, self.spec.metric, limits)
        failures: list[WriteFailure] = []
        written = 0
        fatal: PolyvecError | None = None

        def until_fatal(parts: Iterator[RecordBatch]) -> Iterator[RecordBatch]:
            while fatal is None and (part := next(parts, None)) is not None:
                yield part

        def send(batch: RecordBatch) -> WriteReport:
            if fatal is not None:  # taken before that was known
                return WriteReport(0, tuple(WriteFailure(id, fatal) for id in batch.ids))
            return self._write(batch, wait)

        try:
            if isinstance(records, Record | RecordBatch | Sequence):
                parts = iter(list(parts))  # checked whole before anything is sent
            for report in send_all(until_fatal(parts), send, self.store.capabilities.concurrent_writes):
                failures += report.failures
                written += report.written
                fatal = fatal or next(
                    (item.error for item in report.failures if isinstance(item.error, _WHOLE_CALL)), None
                )
            if fatal is not None and isinstance(records, Record | RecordBatch | Sequence):
                failures += [WriteFailure(id, fatal) for part in parts for id in part.ids]
            if wait and self.flush_after_write and written:
                self._call("upsert", self._do_flush)
        except PolyvecError as error:
            error.report = WriteReport(written, tuple(failures))
            raise error.at(self.store.name, "upsert", self.name) from error.__cause__
        report = WriteReport(written, tuple(failures))
        if failures:
            self._raise_failures(report)
        return report

    @final
    def get(
        self,
        ids: Sequence[str],
        *,
        include_vectors: bool = True,
        include_text: bool = True,
        include_metadata: bool = True,
    ) -> list[Record | None]:
        fields = Fields(include_vectors, include_text, include_metadata)
        asked = self._checked("get", check_ids, ids)
        found: dict[str, Record] = {}
        for chunk in chunks(dict.fromkeys(asked), self.store.capabilities.max_batch_records):
            batch = self._call("get", self._do_get, chunk, fields)
            found |= {record.id: record for record in records_of(batch)}
        return [found.get(id) for id in asked]

    @final
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
        checked = self._checked("query", self._check_one, vector)
        fields = Fields(include_vectors, include_text, include_metadata)
        return self._query("query", checked, limit, filter, offset, min_score, exact, fields)[0]

    @final
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
        checked = self._checked("query_many", check_vectors, vectors, self.spec.dimension, self.spec.metric)
        fields = Fields(include_vectors, include_text, include_metadata)
        return self._query("query_many", checked, limit, filter, offset, min_score, exact, fields)

    @final
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
        operation = "query_by_id"
        self._checked(operation, check_ids, [id])
        self._filter(operation, filter)
        # all checks before the record is fetched; it takes up a place among the matches
        self._checked(operation, self._check_window, limit, offset, min_score, exact, 1)
        found = self._call(operation, self._do_get, [id], Fields(vectors=True, text=False, metadata=False))
        if not len(found) or found.vectors is None:
            raise RecordNotFoundError(f"there is no record {shown(id)}").at(
                self.store.name, operation, self.name
            )
        fields = Fields(include_vectors, include_text, include_metadata)
        return self._query(
            operation, found.vectors, limit, filter, offset, min_score, exact, fields, without=id
        )[0]

    @final
    def count(self, filter: FilterLike | None = None) -> int:
        checked = self._filter("count", filter)
        return 0 if checked is NEVER else self._call("count", self._do_count, checked)

    @final
    def scan(
        self,
        filter: FilterLike | None = None,
        *,
        include_vectors: bool = False,
        include_text: bool = True,
        include_metadata: bool = True,
        batch_size: int | None = None,
    ) -> Iterator[Record]:
        batches = self.scan_batches(
            filter,
            include_vectors=include_vectors,
            include_text=include_text,
            include_metadata=include_metadata,
            batch_size=batch_size,
        )
        return (record for batch in batches for record in records_of(batch))

    @final
    def scan_batches(
        self,
        filter: FilterLike | None = None,
        *,
        include_vectors: bool = False,
        include_text: bool = True,
        include_metadata: bool = True,
        batch_size: int | None = None,
    ) -> Iterator[RecordBatch]:
        checked = self._filter("scan", filter)
        limit = self._scan_limit()
        if batch_size is not None:
            limit = self._checked("scan", _positive, "batch_size", batch_size)
        fields = Fields(include_vectors, include_text, include_metadata)
        return iter(()) if checked is NEVER else self._pages(checked, fields, limit)

    def _pages(self, filter: Filter | None, fields: Fields, limit: int) -> Iterator[RecordBatch]:
        cursor = None
        while True:
            batch, cursor = self._call("scan", self._do_scan, filter, fields, limit=limit, cursor=cursor)
            if len(batch):
                yield batch
            if cursor is None:
                return

    @final
    def update_metadata(
        self,
        ids: Sequence[str] | None = None,
        *,
        filter: FilterLike | None = None,
        set: Metadata | None = None,
        unset: Iterable[str] = (),
    ) -> int:
        operation = "update_metadata"
        target = self._target(operation, ids, filter)
        changes, removed = self._checked(operation, _check_changes, set, unset)
        if isinstance(target, Filter):
            pages = self._pages(target, Fields(vectors=False, text=False, metadata=False), self._scan_limit())
            # all ids first: changing records while they are scanned could show one twice or never
            target = [] if target is NEVER else [id for page in pages for id in page.ids]
        changed = 0
        for chunk in chunks(target, self.store.capabilities.max_batch_records):
            changed += self._call(operation, self._update, chunk, changes, removed)
        if self.flush_after_write and changed:
            self._call(operation, self._do_flush)
        return changed

    def _update(self, ids: list[str], changes: dict[str, Any], removed: frozenset[str]) -> int:
        found = self._do_get(ids, Fields(vectors=False, text=False, metadata=True))
        new = [
            {key: value for key, value in old.items() if key not in removed} | changes
            for old in found.metadatas or ()
        ]
        if new:
            self._do_set_metadata(list(found.ids), new)
        return len(new)

    @final
    def delete(self, ids: Sequence[str] | None = None, *, filter: FilterLike | None = None) -> None:
        target = self._target("delete", ids, filter)
        if isinstance(target, Filter):
            if target is not NEVER:
                self._call("delete", self._do_delete_where, target)
        else:
            for chunk in chunks(target, self.store.capabilities.max_batch_records):
                self._call("delete", self._do_delete, chunk)
        if self.flush_after_write:
            self._call("delete", self._do_flush)

    @final
    def clear(self) -> None:
        self._call("clear", self._do_delete_where, None)
        if self.flush_after_write:
            self._call("clear", self._do_flush)

    @final
    def flush(self) -> None:
        self._call("flush", self._do_flush)

    @final
    def explain(
        self, filter: FilterLike | None = None, *, limit: int = 10, exact: bool = False
    ) -> Explanation:
        parsed = None if filter is None else self._checked("explain", check_filter, filter)
        self._checked("explain", self._check_window, limit, 0, None, exact)
        checked = normalise(parsed)
        text = None if parsed is None else str(parsed)
        if checked is NEVER:
            return Explanation(self.store.name, text, None, ("No record can match: nothing is sent.",))
        native, notes = self._call("explain", self._do_explain, checked, limit=limit, exact=exact)
        return Explanation(self.store.name, text, native, notes)

    # The steps of the public methods -----------------------------------------------------------------

    def _call(self, operation: str, hook: Callable[..., T], *args: Any, **options: Any) -> T:
        return self.store._call(operation, self.name, hook, *args, **options)  # noqa: SLF001

    def _checked(self, operation: str, check: Callable[..., T], *args: Any) -> T:
        """Run a check of the caller's arguments; its error says where it happened."""
        self.store._require_open(operation, self.name)  # noqa: SLF001
        try:
            return check(*args)
        except PolyvecError as error:
            raise error.at(self.store.name, operation, self.name) from error.__cause__

    def _check_one(self, vector: Vector) -> FloatArray:
        return check_vectors([vector], self.spec.dimension, self.spec.metric, "query vector".format)

    def _filter(self, operation: str, filter: FilterLike | None) -> Filter | None:
        """Return a normalised filter; None where it holds for every record, NEVER itself for none."""
        if filter is None:
            return None
        return normalise(self._checked(operation, check_filter, filter))

    def _target(
        self, operation: str, ids: Sequence[str] | None, filter: FilterLike | None
    ) -> list[str] | Filter:
        problem = None
        if (ids is None) == (filter is None):
            problem = "give exactly one of ids and filter"
        elif ids is not None:
            return list(dict.fromkeys(self._checked(operation, check_ids, ids)))
        elif (checked := self._filter(operation, filter)) is None:
            problem = "this filter holds for every record; if that is meant, use clear()"
        else:
            return checked
        raise InvalidInputError(problem).at(self.store.name, operation, self.name)

    def _query(
        self,
        operation: str,
        vectors: FloatArray,
        limit: int,
        filter: FilterLike | None,
        offset: int,
        min_score: float | None,
        exact: bool,  # noqa: FBT001  # positional here, a keyword in public
        fields: Fields,
        without: str | None = None,
    ) -> list[list[Match]]:
        checked = self._filter(operation, filter)
        self._checked(operation, self._check_window, limit, offset, min_score, exact)
        if checked is NEVER:
            return [[] for _ in vectors]
        window = slice(offset, offset + limit)
        wanted = offset + limit + (without is not None)
        step = self.store.capabilities.max_query_vectors
        found: list[list[Match]] = []
        for start in range(0, len(vectors), step):
            part = vectors[start : start + step]
            for hits in self._complete(operation, part, wanted, checked, exact, fields):
                matches = [match for match in _ranked(hits) if match.id != without]
                kept = [match for match in matches if min_score is None or match.score >= min_score]
                found.append(kept[window])
        return found

    def _check_window(
        self,
        limit: int,
        offset: int,
        min_score: float | None,
        exact: bool,  # noqa: FBT001
        spare: int = 0,
    ) -> None:
        _positive("limit", limit)
        if not isinstance(offset, int) or isinstance(offset, bool) or offset < 0:
            raise InvalidInputError(f"offset must be an int of at least 0, not {shown(offset)}")
        if min_score is not None and (not isinstance(min_score, Real) or math.isnan(min_score)):
            raise InvalidInputError(f"min_score must be a number, not {shown(min_score)}")
        capabilities = self.store.capabilities
        if offset + limit > (most := capabilities.max_query_limit - spare):
            raise UnsupportedOperationError(
                f"offset + limit is {offset + limit}; at most {most} here "
                "(scan() streams any number of records)"
            )
        if exact and not capabilities.exact_query:
            raise UnsupportedOperationError(f"exact=True: {capabilities.reason('exact_query')}")

    def _complete(
        self,
        operation: str,
        vectors: FloatArray,
        wanted: int,
        filter: Filter | None,
        exact: bool,  # noqa: FBT001
        fields: Fields,
    ) -> list[Hits]:
        """Fetch the best `wanted` hits, and all that tie with the last one.

        An engine orders ties as it likes, differently for each limit, so a cut within a tie would make
        pages overlap. One hit more than wanted tells whether there is such a cut.
        """
        most = self.store.capabilities.max_query_limit
        fetch = min(wanted + 1, most)
        found = self._call(
            operation, self._do_query, vectors, limit=fetch, filter=filter, exact=exact, fields=fields
        )
        while fetch < min(most, wanted + MOST_TIES):
            tied = [row for row, hits in enumerate(found) if _cut_within_tie(hits.scores, wanted, fetch)]
            if not tied:
                break
            fetch = min(4 * fetch, most, wanted + MOST_TIES)
            more = self._call(
                operation,
                self._do_query,
                vectors[tied],
                limit=fetch,
                filter=filter,
                exact=exact,
                fields=fields,
            )
            for row, hits in zip(tied, more, strict=True):
                found[row] = hits
        return found

    def _write(self, batch: RecordBatch, wait: bool) -> WriteReport:  # noqa: FBT001
        """Write one batch; find out which records are refused where the engine refuses it whole."""
        pending = batch
        failures: list[WriteFailure] = []

        def attempt() -> None:
            """Write what is pending; keep what may be tried again and raise its error."""
            nonlocal pending
            refused = self._do_upsert(pending, wait=wait) or {}
            errors = {id: self._refusal(error) for id, error in refused.items()}
            failures.extend(WriteFailure(id, error) for id, error in errors.items() if not error.retryable)
            again = [row for row, id in enumerate(pending.ids) if id in errors and errors[id].retryable]
            pending = take(pending, again)
            if again:
                raise errors[pending.ids[0]]

        try:
            self._call("upsert", attempt)
        except BackendError as error:
            if len(pending) > 1 and not isinstance(error, _WHOLE_CALL):
                middle = len(pending) // 2
                for half in (range(middle), range(middle, len(pending))):
                    failures.extend(self._write(take(pending, half), wait).failures)
            else:
                failures.extend(WriteFailure(id, error) for id in pending.ids)
        rows = {id: row for row, id in enumerate(batch.ids)}
        failures.sort(key=lambda failure: rows[failure.id])
        return WriteReport(len(batch) - len(failures), tuple(failures))

    def _refusal(self, error: Exception) -> PolyvecError:
        translated = self.store._translate_any(error)  # noqa: SLF001
        translated.__cause__ = error
        return translated.at(self.store.name, "upsert", self.name)

    def _raise_failures(self, report: WriteReport) -> NoReturn:
        first = report.failures[0].error
        total = report.written + len(report.failures)
        error = _copy(first)
        error.message = (
            f"{len(report.failures)} of {total} records were not written (error.report names them); "
            "the first, "
            f"{shown(report.failures[0].id)}: {first.message}"
        )
        error.report = report
        raise error from first.__cause__ or first


class BaseVectorStore(ABC):
    """Base of an adapter's store; see `polyvec.protocol.VectorStore` for the methods.

    Attributes:
        adapter: The adapter that it belongs to.
        config: How it was opened.
        capabilities: The adapter's, narrowed in the constructor to what this server can do.
    """

    def __init__(self, adapter: Adapter, config: StoreConfig) -> None:
        self.adapter = adapter
        self.config = config
        self.capabilities: Capabilities = adapter.capabilities
        self.retry = RetryPolicy(budget_s=config.timeout_s)
        self._closed = False

    def __repr__(self) -> str:
        url = self.config.url
        place = ",".join(f"{host}:{port}" if port else host for host, port in url.hosts)
        return f"<{self.name} store {place}{url.path}>"

    # Hooks -------------------------------------------------------------------------------------------

    @abstractmethod
    def _do_connect(self) -> None:
        """Open the connection and find out that it works: the first call of a store's life."""

    @abstractmethod
    def _do_version(self) -> str:
        """Return the version of the engine."""

    @abstractmethod
    def _do_create(self, spec: CollectionSpec) -> None:
        """Create a collection and keep its spec; raise CollectionExistsError where there is one."""

    @abstractmethod
    def _do_open(self, name: str) -> CollectionSpec | None:
        """Return the spec of a collection, None where there is none.

        Raises:
            ForeignCollectionError: There is one of that name, without a spec.
        """

    @abstractmethod
    def _do_list(self) -> list[str]:
        """Return the names of all collections that polyvec created, in any order."""

    @abstractmethod
    def _do_drop(self, name: str) -> None:
        """Delete a collection that exists, with all its namespaces."""

    @abstractmethod
    def _do_close(self) -> None:
        """Release the connection."""

    @abstractmethod
    def _collection(self, spec: CollectionSpec) -> BaseCollection:
        """Return the adapter's collection object; nothing is sent."""

    @abstractmethod
    def _translate(self, error: Exception) -> PolyvecError | None:
        """Return our error for a driver's; None for one that the adapter does not know."""

    # Public methods ----------------------------------------------------------------------------------

    @classmethod
    @final
    def open(cls, adapter: Adapter, config: StoreConfig) -> Self:
        """Return a connected store; see `polyvec.connect`."""
        store = cls(adapter, config)
        store._call("connect", None, store._do_connect)
        return store

    @property
    def name(self) -> str:
        return self.adapter.name

    @property
    @abstractmethod
    def native(self) -> Any:
        """The driver's own client, for what polyvec does not cover."""

    @property
    @final
    def version(self) -> str:
        return self._call("version", None, self._do_version)

    @final
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
    ) -> BaseCollection:
        operation = "create_collection"
        try:
            spec = _spec.make_spec(name, dimension, metric, indexes, index, embedding, self.capabilities)
        except PolyvecError as error:
            raise error.at(self.name, operation, str(name)) from None
        existing = self._call(operation, name, self._do_open, name)
        if existing is None:
            try:
                self._call(operation, name, self._do_create, spec)
                return self._collection(spec)
            except CollectionExistsError:  # somebody else was faster
                existing = self._call(operation, name, self._do_open, name)
                if existing is None:
                    raise
        if not exist_ok:
            raise CollectionExistsError("it exists already; pass exist_ok=True to open it").at(
                self.name, operation, name
            )
        if differences := _spec.differences(existing, spec):
            raise SpecMismatchError(f"it exists and differs: {'; '.join(differences)}").at(
                self.name, operation, name
            )
        return self._collection(existing)

    @final
    def collection(self, name: str) -> BaseCollection:
        try:
            check_name(name, "a collection's name")
        except InvalidInputError as error:
            raise error.at(self.name, "collection", str(name)) from None
        spec = self._call("collection", name, self._do_open, name)
        if spec is None:
            raise self._missing("collection", name)
        return self._collection(spec)

    @final
    def list_collections(self) -> list[str]:
        return sorted(self._call("list_collections", None, self._do_list))

    @final
    def drop_collection(self, name: str, *, missing_ok: bool = False) -> None:
        try:
            check_name(name, "a collection's name")
        except InvalidInputError as error:
            raise error.at(self.name, "drop_collection", str(name)) from None
        if self._call("drop_collection", name, self._do_open, name) is not None:
            self._call("drop_collection", name, self._do_drop, name)
        elif not missing_ok:
            raise self._missing("drop_collection", name)

    @final
    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._once("close", None, self._do_close)

    @final
    def __enter__(self) -> Self:
        return self

    @final
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    # The steps of the public methods -----------------------------------------------------------------

    def _require_open(self, operation: str, collection: str | None) -> None:
        if self._closed:
            raise UnsupportedOperationError("the store is closed").at(self.name, operation, collection)

    def _missing(self, operation: str, name: str) -> PolyvecError:
        close = difflib.get_close_matches(name, self.list_collections(), n=1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        return CollectionNotFoundError(f"there is no such collection{hint}").at(self.name, operation, name)

    def _call(
        self,
        operation: str,
        collection: str | None,
        hook: Callable[..., T],
        *args: Any,
        **options: Any,
    ) -> T:
        """Call a hook: translate its errors and try again what is retryable."""
        self._require_open(operation, collection)
        return self.retry.run(lambda: self._once(operation, collection, hook, *args, **options))

    def _once(
        self,
        operation: str,
        collection: str | None,
        hook: Callable[..., T],
        *args: Any,
        **options: Any,
    ) -> T:
        try:
            return hook(*args, **options)
        except PolyvecError as error:
            raise error.at(self.name, operation, collection) from error.__cause__
        except Exception as error:
            raise self._translate_any(error).at(self.name, operation, collection) from error

    def _translate_any(self, error: Exception) -> PolyvecError:
        """Return our error for a driver's, with a secret that the driver quotes replaced by `***`."""
        translated = self._translate(error) or BackendError(f"{type(error).__name__}: {error}")
        for secret in self.config.secrets():
            translated.message = translated.message.replace(secret, "***")
        translated.args = (translated.message,)
        return translated


def _copy(error: PolyvecError) -> PolyvecError:
    copy = type(error)(error.message).at(error.backend or "", error.operation or "", error.collection)
    if isinstance(error, RateLimitedError) and isinstance(copy, RateLimitedError):
        copy.retry_after_s = error.retry_after_s
    return copy


def _cut_within_tie(scores: npt.NDArray[np.float64], wanted: int, fetched: int) -> bool:
    if len(scores) < fetched or wanted >= fetched:
        return False
    ordered = np.sort(scores)[::-1]
    return bool(ordered[wanted - 1] == ordered[-1])


def _ranked(hits: Hits) -> list[Match]:
    """Return the hits as matches, scores descending, equal scores by id."""
    records = hits.records
    scores = hits.scores.tolist()
    order = sorted(range(len(records)), key=lambda row: (-scores[row], records.ids[row]))
    return [
        Match(
            records.ids[row],
            scores[row],
            records.texts[row] if records.texts is not None else None,
            dict(records.metadatas[row]) if records.metadatas is not None else {},
            records.vectors[row] if records.vectors is not None else None,
        )
        for row in order
    ]


def _positive(what: str, number: object) -> int:
    if not isinstance(number, int) or isinstance(number, bool) or number < 1:
        raise InvalidInputError(f"{what} must be an int of at least 1, not {shown(number)}")
    return number


def _check_changes(set_: Metadata | None, unset: Iterable[str]) -> tuple[dict[str, Any], frozenset[str]]:
    if not isinstance(set_, Mapping | None):
        raise InvalidInputError(f"set must be a dict, not {type(set_).__name__} ({shown(set_)})")
    changes = dict(set_ or {})
    check_metadata(changes)
    if isinstance(unset, str):
        raise InvalidInputError(f"unset must be a list of keys, not one str; write [{shown(unset)}]")
    if not isinstance(unset, Iterable):
        raise InvalidInputError(f"unset must be a list of keys, not {type(unset).__name__} ({shown(unset)})")
    keys = list(unset)
    for key in keys:
        check_key(key)
    removed = frozenset(keys)
    if both := sorted(removed & changes.keys()):
        raise InvalidInputError(f"both set and unset: {', '.join(both)}")
    if not changes and not removed:
        raise InvalidInputError("nothing to change: give set or unset")
    return changes, removed
