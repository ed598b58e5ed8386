"""The Pinecone store: each collection is an index, each namespace one of its namespaces."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar
from urllib.parse import quote

import numpy as np
import pinecone
from pinecone import Index, Pinecone, ScoredVector, ServerlessSpec
from pinecone.errors import NotFoundError
from pinecone.models.vectors.responses import FetchByMetadataResponse, ListResponse

from polyvec import scores
from polyvec.base import BaseCollection, BaseVectorStore, Fields, Hits
from polyvec.errors import ForeignCollectionError, PolyvecError
from polyvec.filters import Filter
from polyvec.scores import Floats
from polyvec.types import CollectionSpec, FloatArray, Metadata, Metric, RecordBatch
from polyvec_adapters.pinecone import PineconeConfig, errors, filters, names, records
from polyvec_adapters.pinecone.connect import Api
from polyvec_adapters.pinecone.records import Found

S = TypeVar("S")
T = TypeVar("T")

METRICS: Final[dict[Metric, str]] = {"cosine": "cosine", "dot": "dotproduct", "euclidean": "euclidean"}

CONCURRENT: Final = 8
"""Requests of one call that are under way at once, where there is no request for several things."""

MAX_ANSWER_BYTES: Final = 4_000_000
"""Of a query: https://docs.pinecone.io/reference/api/database-limits/operation-limits."""

VALUE_BYTES: Final = 22
"""Of one element of a vector in JSON, at most: a float64 in decimals."""

MAX_LISTED: Final = 100
"""Ids of one page, and records of one page of a scan: `listVectors` of
https://github.com/pinecone-io/pinecone-api/blob/main/2026-07/db_data_2026-07.oas.yaml."""

MAX_IDS_LENGTH: Final = 6000
"""Ids are fetched with a GET, and common proxies take lines of 8 KB."""

NOTHING: Final = {"counted": 0}
"""What a dry run would set: the vendor's examples of one set something."""


class PineconeStore(BaseVectorStore):
    """The indexes of a project."""

    config: PineconeConfig

    @property
    def native(self) -> Pinecone:
        """The driver's client."""
        return self.api.control

    def _do_connect(self) -> None:
        self.api = Api(self.config)
        self._pool = ThreadPoolExecutor(CONCURRENT, thread_name_prefix="polyvec-pinecone")
        try:
            self.api.control.indexes.list().to_list()
        except Exception:
            self._do_close()
            raise

    def _do_version(self) -> str:
        return f"SDK {pinecone.__version__}"  # the service tells none

    def _do_create(self, spec: CollectionSpec) -> None:
        name = names.native_name(spec.name)
        environment = self.config.byoc_environment
        self.api.control.indexes.create(
            name=name,
            dimension=spec.dimension,
            metric=METRICS[spec.metric],
            spec=ServerlessSpec(cloud=self.config.cloud, region=self.config.region)
            if environment is None
            else {"byoc": {"environment": environment}},
            tags=names.spec_tags(spec),
            timeout=-1,
        )
        self.api.wait_ready(name)

    def _do_open(self, name: str) -> CollectionSpec | None:
        found = self.api.describe(names.native_name(name))
        if found is None:
            return None
        spec = names.spec_of(found.tags)
        if spec is None:
            raise ForeignCollectionError("the index exists, but polyvec did not create it")
        return spec

    def _do_list(self) -> list[str]:
        found = self.api.control.indexes.list().to_list()
        specs = [names.spec_of(index.tags) for index in found if index.status.state != "Terminating"]
        return [spec.name for spec in specs if spec is not None]

    def _do_drop(self, name: str) -> None:
        self.api.drop(names.native_name(name))

    def _do_close(self) -> None:
        self._pool.shutdown()
        self.api.close()

    def _collection(self, spec: CollectionSpec) -> PineconeCollection:
        return PineconeCollection(self, spec)

    def _translate(self, error: Exception) -> PolyvecError | None:
        return error if isinstance(error, PolyvecError) else errors.translate(error)

    def each(self, call: Callable[[S], T], items: Iterable[S]) -> list[T]:
        """Return what a call returns for each item; several are under way, and each is tried again alone.

        Tried again together, a hundred updates would begin anew when the service refuses the next one, for it
        takes a hundred a second.
        """
        waiting = list(items)
        if len(waiting) <= 1:
            return list(map(call, waiting))
        once = functools.partial(self._once, "", None, call)
        return list(self._pool.map(lambda item: self.retry.run(lambda: once(item)), waiting))


class PineconeCollection(BaseCollection):
    """One namespace of an index."""

    store: PineconeStore
    flush_after_write = True

    @property
    def native(self) -> str:
        """The name of the index."""
        return names.native_name(self.name)

    @property
    def _space(self) -> str:
        return records.native_namespace(self.namespace)

    def _do_upsert(self, batch: RecordBatch, *, wait: bool) -> Mapping[str, Exception]:
        sized, refused = records.encode(batch, self.spec.metric)
        for part in records.requests(sized):
            self._send(functools.partial(Index.upsert, vectors=part))
        return refused

    def _do_get(self, ids: list[str], fields: Fields) -> RecordBatch:
        return self._decode(list(self._fetch(map(records.native_id, ids)).values()), fields)

    def _do_query(
        self, vectors: FloatArray, *, limit: int, filter: Filter | None, exact: bool, fields: Fields
    ) -> list[Hits]:
        rows, scale = records.queries(vectors, self.spec.metric)
        # what might be too large for one answer is fetched after it
        whole = any(fields) and limit <= self._most(vectors=fields.vectors)
        search = functools.partial(
            Index.query,
            top_k=limit,
            filter=None if filter is None else filters.to_native(filter),
            include_metadata=whole,
            include_values=whole and fields.vectors,
        )
        answers = self.store.each(lambda row: self._read(functools.partial(search, vector=row)), rows)
        found = [[] if answer is None else answer.matches for answer in answers]
        known = self._completed([match for matches in found for match in matches], fields)
        return [
            self._hits([match for match in matches if match.id in known], known, fields, factor)
            for matches, factor in zip(found, scale, strict=True)
        ]

    def _do_count(self, filter: Filter | None) -> int:
        native = filters.EVERYTHING if filter is None else filters.to_native(filter)
        counted = self._change(
            functools.partial(Index.update, filter=native, set_metadata=NOTHING, dry_run=True)
        )
        return 0 if counted is None else counted.matched_records or 0

    def _do_scan(
        self, filter: Filter | None, fields: Fields, *, limit: int, cursor: Any
    ) -> tuple[RecordBatch, Any]:
        page: ListResponse | FetchByMetadataResponse | None
        if filter is None:
            size = min(limit, MAX_LISTED)
            page = self._read(functools.partial(Index.list_paginated, limit=size, pagination_token=cursor))
            items = [] if page is None else page.vectors
            listed = [ScoredVector(id=item.id or "", score=0.0) for item in items]
            found = list(self._completed(listed, fields).values())
        else:
            size = min(limit, self._most(vectors=True))
            native = filters.to_native(filter)
            fetch = functools.partial(
                Index.fetch_by_metadata, filter=native, limit=size, pagination_token=cursor
            )
            page = self._read(fetch)
            found = [] if page is None else list(page.vectors.values())
        return self._decode(found, fields), page.pagination.next if page and page.pagination else None

    def _do_set_metadata(self, ids: list[str], metadatas: Sequence[Metadata]) -> None:
        def change(item: tuple[str, Metadata]) -> None:
            id, metadata = item
            kept, _ = records.fitting(records.filtered(metadata))
            self._change(functools.partial(Index.update, id=records.native_id(id), set_metadata=kept))

        self.store.each(change, zip(ids, metadatas, strict=True))

    def _do_delete(self, ids: list[str]) -> None:
        self._change(functools.partial(Index.delete, ids=list(map(records.native_id, ids))))

    def _do_delete_where(self, filter: Filter | None) -> None:
        if filter is None:
            self._change(functools.partial(Index.delete, delete_all=True))
            return
        self._do_flush()  # else a record that was just written might not be found
        self._change(functools.partial(Index.delete, filter=filters.to_native(filter)))

    def _do_flush(self) -> None:
        self.store.api.wait(self.native, self._space, self.spec.dimension)

    def _do_explain(self, filter: Filter | None, *, limit: int, exact: bool) -> tuple[Any, tuple[str, ...]]:
        request = {
            "top_k": limit,
            "namespace": self._space,
            "include_metadata": True,
            "include_values": False,
        }
        notes = []
        if filter is not None:
            request["filter"] = filters.to_native(filter)
            notes.append("Equality, membership and existence are tokens in `tokens`.")
            if filters.negates(filter):
                notes.append("There is no general negation: it stands at each single condition.")
            if filters.compares(filter):
                notes.append("A range compares a number kept for it, and looks for the token of that number.")
        return request, tuple(notes)

    # What the hooks share -----------------------------------------------------------------------------

    # None where there is no such namespace, which some requests say and others do not; that there is no such
    # index is another error

    def _read(self, request: Callable[..., T]) -> T | None:
        with contextlib.suppress(NotFoundError):
            return self.store.api.call(self.native, functools.partial(request, namespace=self._space))
        return None

    def _change(self, request: Callable[..., T]) -> T | None:
        with contextlib.suppress(NotFoundError):
            return self._send(request)
        return None

    def _send(self, request: Callable[..., T]) -> T:
        return self.store.api.write(
            self.native, self._space, functools.partial(request, namespace=self._space)
        )

    def _fetch(self, ids: Iterable[str]) -> dict[str, Found]:
        """Return the vectors of distinct ids of the service, missing ones left out."""
        found: dict[str, Found] = {}
        parts = self._parts(ids)
        for answer in self.store.each(
            lambda part: self._read(functools.partial(Index.fetch, ids=part)), parts
        ):
            found |= answer.vectors if answer is not None else {}
        return found

    def _parts(self, ids: Iterable[str]) -> Iterator[list[str]]:
        """Yield ids in lists that one request and its answer have room for."""
        most = self._most(vectors=True)
        part: list[str] = []
        length = 0
        for id in ids:
            size = len(quote(id, safe="")) + len("ids=&")
            if part and (len(part) == most or length + size > MAX_IDS_LENGTH):
                yield part
                part, length = [], 0
            part.append(id)
            length += size
        if part:
            yield part

    def _most(self, *, vectors: bool) -> int:
        """Return how many records fit into one answer, however large they are."""
        size = records.MAX_METADATA_BYTES + 1000 + VALUE_BYTES * self.spec.dimension * vectors
        return max(1, MAX_ANSWER_BYTES // size)

    def _completed(self, found: Sequence[ScoredVector], fields: Fields) -> dict[str, Found]:
        """Return vectors by id, with what they lack fetched; those that are gone by then left out."""
        known: dict[str, Found] = {match.id: match for match in found}
        lacking = [id for id, match in known.items() if not records.complete(match, fields)]
        fetched = self._fetch(lacking)
        for id in lacking:
            del known[id]
        return known | fetched

    def _decode(self, found: Sequence[Found], fields: Fields) -> RecordBatch:
        return records.decode(found, fields, self.spec.dimension)

    def _hits(
        self, matches: Sequence[ScoredVector], known: Mapping[str, Found], fields: Fields, factor: float
    ) -> Hits:
        batch = self._decode([known[match.id] for match in matches], fields)
        native = np.array([match.score for match in matches], np.float64)
        return Hits(batch, _SCORES[self.spec.metric](native) * factor)


# euclidean is the squared distance: https://docs.pinecone.io/guides/index-data/indexing-overview#distance-metrics
_SCORES: Final[dict[Metric, Callable[[Floats], Floats]]] = {
    "cosine": scores.from_cosine,
    "dot": scores.from_dot,
    "euclidean": scores.from_squared_distance,
}
