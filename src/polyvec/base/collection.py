"""The public methods of a collection, over its hooks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from numbers import Real
from typing import TYPE_CHECKING, Any, Final, NoReturn, Self, TypeVar, final

from polyvec import batches as _batches
from polyvec.base.hooks import CollectionHooks, Fields, Hits
from polyvec.base.ranking import MOST_TIES, cut_within_tie, ranked
from polyvec.batches import Limits, check_ids, check_name, check_vectors, chunks, records_of, take
from polyvec.errors import (
    AuthenticationError,
    BackendError,
    BackendTimeoutError,
    BackendUnavailableError,
    InvalidInputError,
    PolyvecError,
    RateLimitedError,
    RecordNotFoundError,
    UnsupportedOperationError,
    shown,
)
from polyvec.filters import NEVER, Filter, check_filter, normalise
from polyvec.metadata import check_key, check_metadata
from polyvec.types import (
    CollectionSpec,
    Explanation,
    FloatArray,
    Match,
    Metadata,
    Record,
    RecordBatch,
    Vector,
    WriteFailure,
    WriteReport,
)
from polyvec.writer import send_all

if TYPE_CHECKING:
    from polyvec.base.store import BaseVectorStore
    from polyvec.protocol import FilterLike, Records

T = TypeVar("T")


_WHOLE_CALL: Final = (
    AuthenticationError, BackendUnavailableError, BackendTimeoutError, RateLimitedError,
)  # fmt: skip
"""Errors that say nothing about a record: the records of the call share them."""


class BaseCollection(CollectionHooks):
    """Base of an adapter's collection; see `polyvec.protocol.Collection` for the methods."""

    store: BaseVectorStore

    def __repr__(self) -> str:
        scope = f", namespace {self.namespace!r}" if self.namespace else ""
        return (
            f"<{self.store.name} collection {self.name!r}, {self.spec.dimension} x {self.spec.metric}{scope}>"
        )

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
        self._call("flush", self._do_settle)

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
                matches = [match for match in ranked(hits) if match.id != without]
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
            tied = [row for row, hits in enumerate(found) if cut_within_tie(hits.scores, wanted, fetch)]
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


def _copy(error: PolyvecError) -> PolyvecError:
    copy = type(error)(error.message).at(error.backend or "", error.operation or "", error.collection)
    if isinstance(error, RateLimitedError) and isinstance(copy, RateLimitedError):
        copy.retry_after_s = error.retry_after_s
    return copy


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
