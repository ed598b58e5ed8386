"""The Qdrant store: a server over REST or gRPC, or the driver's local mode."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, TypeVar

import grpc
import numpy as np
from qdrant_client import QdrantClient, models
from qdrant_client import grpc as messages
from qdrant_client.http.exceptions import UnexpectedResponse

from polyvec import scores, spec
from polyvec.base import BaseCollection, BaseVectorStore, Fields, Hits
from polyvec.config import StoreConfig
from polyvec.encoding import NO_RECORD_UUID, record_uuid, split_lengths
from polyvec.errors import (
    BackendError,
    CollectionNotFoundError,
    ForeignCollectionError,
    PolyvecError,
    UnsupportedOperationError,
)
from polyvec.filters import Filter
from polyvec.registry import Adapter
from polyvec.tokens import companion_field
from polyvec.types import CollectionSpec, FlatIndex, FloatArray, HnswIndex, Metadata, Metric, RecordBatch
from polyvec_adapters.qdrant import QdrantConfig, errors, filters, records
from polyvec_adapters.qdrant.connect import Local, client_options

T = TypeVar("T")

SPEC_KEY: Final = "polyvec"
"""Key of the spec in a collection's own metadata."""

OLDEST_SERVER: Final = (1, 16)
"""The first with metadata of collections, and with ACORN: https://qdrant.tech/blog/qdrant-1.16.x/."""

DEFAULT_INDEX: Final = HnswIndex()

_DISTANCES: Final[dict[Metric, models.Distance]] = {
    "cosine": models.Distance.COSINE,
    "dot": models.Distance.DOT,
    "euclidean": models.Distance.EUCLID,
}
_SCORES: Final = {
    "cosine": scores.from_cosine,
    "dot": scores.from_dot,
    "euclidean": scores.from_distance,
}
_COMPANIONS: Final = {"int": "n", "float": "n", "datetime": "d"}
_LOCAL_REASON: Final = "the driver's local mode compares with every vector; a server builds graphs"


class QdrantStore(BaseVectorStore):
    """Collections of a Qdrant server or of local mode."""

    config: QdrantConfig
    local: Local | None = None

    def __init__(self, adapter: Adapter, config: StoreConfig) -> None:
        super().__init__(adapter, config)
        if config.host is None:
            self.capabilities = dataclasses.replace(
                self.capabilities,
                hnsw_index=False,
                concurrent_writes=1,
                persistent=config.url.path != ":memory:",
                reasons={
                    **self.capabilities.reasons,
                    "hnsw_index": _LOCAL_REASON,
                    "persistent": "the records live in this process",
                },
            )

    @property
    def native(self) -> QdrantClient:
        """The driver's client. In local mode nothing else may use the store at the same time."""
        return self._client

    @contextlib.contextmanager
    def session(self) -> Iterator[QdrantClient]:
        """Give the client to one call, or sequence of calls: in local mode to one thread at a time."""
        if self.local is None:
            yield self._client
            return
        with self.local.lock:
            yield self._client

    def _do_connect(self) -> None:
        if self.config.host is None:
            self.local = Local.open(self.config.url.path)
            self._client = self.local.client
            return
        with contextlib.ExitStack() as cleanup:
            self._client = QdrantClient(**client_options(self.config))
            cleanup.callback(self._client.close)
            version = self._do_version()
            if tuple(map(int, version.split(".")[:2])) < OLDEST_SERVER:
                oldest = ".".join(map(str, OLDEST_SERVER))
                raise UnsupportedOperationError(f"the server is {version}, too old: {oldest} is needed")
            self._client.get_collections()  # the version is told without a key
            cleanup.pop_all()

    def _do_version(self) -> str:
        with self.session() as client:
            return client.info().version

    def _do_create(self, spec_: CollectionSpec) -> None:
        name = native_name(spec_.name)
        index = spec_.index or DEFAULT_INDEX
        with self.session() as client:
            client.create_collection(
                name,
                models.VectorParams(size=spec_.dimension, distance=_DISTANCES[spec_.metric]),
                # no links means no graph: https://qdrant.tech/documentation/concepts/indexing/#vector-index
                hnsw_config=models.HnswConfigDiff(m=0)
                if isinstance(index, FlatIndex)
                else models.HnswConfigDiff(m=index.m, ef_construct=index.ef_construction),
                metadata={SPEC_KEY: spec.to_json(spec_)},
            )
        self.create_indexes(name, range_indexes(spec_))

    def create_indexes(self, name: str, ranges: Iterable[str]) -> None:
        """Index the payload fields that every filter uses, and these that ranges use.

        FLOAT compares like an unindexed field does, INTEGER does not
        (https://qdrant.tech/documentation/concepts/indexing/#payload-index).
        """
        if self.local is not None:
            return  # it has none, and warns
        schemas: dict[str, Any] = {
            records.NAMESPACE: models.KeywordIndexParams(
                type=models.KeywordIndexType.KEYWORD, is_tenant=True
            ),
            records.TOKENS: models.PayloadSchemaType.KEYWORD,
            **dict.fromkeys(ranges, models.PayloadSchemaType.FLOAT),
        }
        with self.session() as client:
            for field, schema in schemas.items():
                client.create_payload_index(name, field, schema)

    def _do_open(self, name: str) -> CollectionSpec | None:
        info = self._info(native_name(name))
        if info is None:
            return None
        text = (info.config.metadata or {}).get(SPEC_KEY)
        if not isinstance(text, str):
            raise ForeignCollectionError("the collection exists, but polyvec did not create it")
        # a snapshot may have been recovered, or an alias made, under another name
        return dataclasses.replace(spec.from_json(text), name=name)

    def _info(self, name: str) -> models.CollectionInfo | None:
        try:
            with self.session() as client:
                return client.get_collection(name)
        except Exception as error:
            if isinstance(self._translate(error), CollectionNotFoundError):
                return None
            raise

    def _do_list(self) -> list[str]:
        with self.session() as client:
            names = [item.name for item in client.get_collections().collections]
        infos = ((name, self._info(name)) for name in names)
        return [
            public_name(name) for name, info in infos if info and SPEC_KEY in (info.config.metadata or {})
        ]

    def _do_drop(self, name: str) -> None:
        with self.session() as client:
            client.delete_collection(native_name(name))
            if self.local is not None:
                self.local.namespaces.pop(native_name(name), None)

    def _do_close(self) -> None:
        if self.local is not None:
            self.local.close()
        else:
            self._client.close()

    def _collection(self, spec: CollectionSpec) -> QdrantCollection:
        return QdrantCollection(self, spec)

    def _translate(self, error: Exception) -> PolyvecError | None:
        return errors.translate(error)


class QdrantCollection(BaseCollection):
    """One namespace of a Qdrant collection."""

    store: QdrantStore

    @property
    def native(self) -> str:
        """The collection's name in Qdrant."""
        return native_name(self.name)

    def _do_upsert(self, batch: RecordBatch, *, wait: bool) -> None:
        points = records.encode(batch, self.namespace, self.spec.metric)
        with self.store.session() as client:
            if self.store.config.prefer_grpc:
                request = messages.UpsertPoints(
                    collection_name=self.native, wait=wait, points=records.grpc_points(*points)
                )
                # the client's own upsert takes only points that it turns into these ones more slowly
                client.grpc_points.Upsert(request, timeout=self.store.config.timeout_s)
                return
            if self.store.local is not None:
                self.store.local.wrote(self.native, self.namespace)
            client.upsert(self.native, records.rest_points(*points), wait=wait)

    def _do_get(self, ids: list[str], fields: Fields) -> RecordBatch:
        with self.store.session() as client:
            found = client.retrieve(
                self.native,
                [record_uuid(self.namespace, id) for id in ids],
                with_payload=self._payload(fields),
                with_vectors=fields.vectors,
            )
        return self._decode(found, fields)

    def _do_query(
        self, vectors: FloatArray, *, limit: int, filter: Filter | None, exact: bool, fields: Fields
    ) -> list[Hits]:
        rows = split_lengths(vectors, self.spec.metric)[0].tolist()
        found = self._search(rows, limit, filter, fields, exact=exact)
        # under a filter the graph may fall apart, and a search ends where its part does
        # (https://github.com/qdrant/qdrant/issues/3094): see whether there is really no more
        short = [row for row, points in enumerate(found) if len(points) < limit]
        if short and filter is not None and self._searches_graph(exact=exact):
            again = self._search([rows[row] for row in short], limit, filter, fields, exact=True)
            for row, points in zip(short, again, strict=True):
                found[row] = points
        return [self._hits(points, fields) for points in found]

    def _search(
        self, rows: list[list[float]], limit: int, filter: Filter | None, fields: Fields, *, exact: bool
    ) -> list[list[models.ScoredPoint]]:
        def ask(client: QdrantClient) -> list[models.QueryResponse]:
            shared: dict[str, Any] = {
                "filter": self._within(filter),
                "params": self._params(filter, exact=exact),
                "limit": limit,
                "with_payload": self._payload(fields),
                "with_vector": fields.vectors,
            }
            # constructed, since the driver would check each float of the vector
            requests = [models.QueryRequest.model_construct(query=row, **shared) for row in rows]
            return client.query_batch_points(self.native, requests)

        return [answer.points for answer in self._ask(filter, ask)]

    def _do_count(self, filter: Filter | None) -> int:
        return self._ask(
            filter,
            lambda client: client.count(self.native, count_filter=self._within(filter), exact=True).count,
        )

    def _do_scan(
        self, filter: Filter | None, fields: Fields, *, limit: int, cursor: Any
    ) -> tuple[RecordBatch, Any]:
        found, following = self._ask(
            filter,
            lambda client: client.scroll(
                self.native,
                scroll_filter=self._within(filter),
                limit=limit,
                offset=cursor,
                with_payload=self._payload(fields),
                with_vectors=fields.vectors,
            ),
        )
        return self._decode(found, fields), following

    def _do_set_metadata(self, ids: list[str], metadatas: Sequence[Metadata]) -> None:
        points = (record_uuid(self.namespace, id) for id in ids)
        payloads = dict(zip(points, map(records.metadata_payload, metadatas), strict=True))
        with self.store.session() as client:
            # a record may be gone by now, and to set the payload of a point that is not there is an error,
            # unless a filter chooses it; but in local mode a filter looks at every point
            if self.store.local is None:
                operations = [_set(payload, filter=_has_id(point)) for point, payload in payloads.items()]
            else:
                there = client.retrieve(self.native, list(payloads), with_payload=False)
                operations = [_set(payloads[str(point.id)], points=[point.id]) for point in there]
            if operations:
                client.batch_update_points(self.native, operations, wait=True)

    def _do_delete(self, ids: list[str]) -> None:
        points: list[models.ExtendedPointId] = [record_uuid(self.namespace, id) for id in ids]
        with self.store.session() as client:
            client.delete(self.native, models.PointIdsList(points=points), wait=True)

    def _do_delete_where(self, filter: Filter | None) -> None:
        selector = models.FilterSelector(filter=filters.within(self.namespace, filter))
        self._ask(filter, lambda client: client.delete(self.native, selector, wait=True))

    def _do_flush(self) -> None:
        # operations are applied in their order, so a write that is waited for ends all earlier ones
        with self.store.session() as client:
            client.delete(self.native, models.PointIdsList(points=[NO_RECORD_UUID]), wait=True)

    def _do_explain(self, filter: Filter | None, *, limit: int, exact: bool) -> tuple[Any, tuple[str, ...]]:
        request = models.QueryRequest(
            filter=filters.within(self.namespace, filter),
            params=self._params(filter, exact=exact),
            limit=limit,
        )
        notes = ["The namespace is a condition on the payload field 'ns'."]
        if filter is not None:
            notes.append("Equality, membership and existence are tests for hashed tokens in 'f.t'.")
        if filters.range_fields(filter):
            notes.append("A range compares the two halves of the number, of which the second is 0 if absent.")
        return request.model_dump(mode="json", exclude_none=True), tuple(notes)

    # What the hooks share -----------------------------------------------------------------------------

    def _within(self, filter: Filter | None) -> models.Filter | None:
        local = self.store.local
        if local is not None and local.only(self.native, self.namespace):
            return None if filter is None else models.Filter(must=[filters.to_native(filter)])
        return filters.within(self.namespace, filter)

    def _ask(self, filter: Filter | None, request: Callable[[QdrantClient], T]) -> T:
        """Make a request with a filter; on a server in strict mode, index first what the filter uses.

        Such a server, as all of Qdrant Cloud, refuses conditions on payload fields without an index
        (https://qdrant.tech/documentation/guides/administration/#strict-mode).
        """
        try:
            with self.store.session() as client:
                return request(client)
        except (UnexpectedResponse, grpc.RpcError) as error:
            if "Index required but not found" not in errors.reason(error):
                raise
        self.store.create_indexes(self.native, filters.range_fields(filter))
        with self.store.session() as client:
            return request(client)

    def _searches_graph(self, *, exact: bool) -> bool:
        return not exact and self.store.local is None and not isinstance(self.spec.index, FlatIndex)

    def _params(self, filter: Filter | None, *, exact: bool) -> models.SearchParams | None:
        if self.store.local is not None:
            return None  # it is always exact, and warns
        if not self._searches_graph(exact=exact):
            return models.SearchParams(exact=True)
        index = self.spec.index or DEFAULT_INDEX
        assert isinstance(index, HnswIndex)
        return models.SearchParams(
            hnsw_ef=index.ef_search, acorn=None if filter is None else self._acorn(filter)
        )

    def _acorn(self, filter: Filter) -> models.AcornSearchParams:
        """Let the search step over records that the filter leaves out, where it leaves out many.

        Else two joined conditions that each hold for a fifth of the records find one of a hundred of the
        right ones (https://qdrant.tech/blog/qdrant-1.16.x/; run on qdrant-edge 0.9). How many a filter
        leaves out the engine does not know where a range has no index, so then the answer is: always.
        """
        indexed = set(range_indexes(self.spec))
        known = indexed.issuperset(filters.range_fields(filter))
        return models.AcornSearchParams(enable=True, max_selectivity=None if known else 1.0)

    def _payload(self, fields: Fields) -> list[str]:
        return records.payload_keys(fields, self.spec.metric)

    def _decode(
        self, points: Sequence[models.Record] | Sequence[models.ScoredPoint], fields: Fields
    ) -> RecordBatch:
        return records.decode(points, fields, self.spec.dimension, self.spec.metric)

    def _hits(self, points: Sequence[models.ScoredPoint], fields: Fields) -> Hits:
        found = _SCORES[self.spec.metric]([point.score for point in points])
        if not np.isfinite(found).all():
            raise BackendError(errors.OVERFLOW)
        return Hits(self._decode(points, fields), found)


def range_indexes(spec: CollectionSpec) -> list[str]:
    """Return the payload fields that the hints of a collection say to index; tokens are anyway."""
    return [
        field
        for key, kind in spec.indexes.items()
        if kind in _COMPANIONS
        for field in filters.companion_fields(companion_field(_COMPANIONS[kind], key))
    ]


def _set(payload: records.Payload, **target: Any) -> models.UpdateOperation:  # points or filter
    return models.SetPayloadOperation(set_payload=models.SetPayload(payload=payload, **target))


def _has_id(point: str) -> models.Filter:
    return models.Filter(must=[models.HasIdCondition(has_id=[point])])


def native_name(name: str) -> str:
    """Return the collection's name in Qdrant; over gRPC its server takes "." and ".." for directories."""
    return f"~{name}" if name in (".", "..") else name


def public_name(name: str) -> str:
    """Return the name that `native_name` made this of; no name of ours begins with a tilde."""
    return name.removeprefix("~")
