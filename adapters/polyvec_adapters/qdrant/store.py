"""The Qdrant store: a server over REST or gRPC, or the driver's local mode."""

from __future__ import annotations

import contextlib
import dataclasses
import ipaddress
import json
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import grpc
import httpx
import numpy as np
from qdrant_client import QdrantClient, models
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from polyvec import scores, spec
from polyvec.base import BaseCollection, BaseVectorStore, Fields, Hits
from polyvec.config import StoreConfig
from polyvec.errors import (
    AuthenticationError,
    BackendError,
    BackendTimeoutError,
    BackendUnavailableError,
    CollectionExistsError,
    CollectionNotFoundError,
    ForeignCollectionError,
    PolyvecError,
    RateLimitedError,
    UnsupportedOperationError,
)
from polyvec.filters import Filter
from polyvec.registry import Adapter
from polyvec.tokens import companion_field
from polyvec.types import CollectionSpec, FlatIndex, FloatArray, HnswIndex, Metadata, Metric, RecordBatch
from polyvec_adapters.qdrant import QdrantConfig, filters, records

T = TypeVar("T")

SPEC_KEY: Final = "polyvec"
"""Key of the spec in a collection's own metadata."""

OLDEST_SERVER: Final = (1, 16)
"""The first with collection metadata: https://github.com/qdrant/qdrant/releases/tag/v1.16.0."""

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


class Local:
    """The driver's local mode in one directory, or in memory.

    It is not safe for threads (https://github.com/qdrant/qdrant-client/issues/367), and only one client may
    open a directory, so the stores of a process share one and take turns.

    Attributes:
        client: The driver's client.
        lock: Held during every call of it.
        namespaces: For each collection that was read, the namespaces that it may hold. Evaluating a
            condition takes Python ten times as long as the search itself, so one that holds for every
            record is better left out.
    """

    _open: Final[dict[str, Local]] = {}
    _guard: Final = threading.Lock()

    def __init__(self, path: str | None) -> None:
        self.path = path
        self.users = 1
        self.lock = threading.RLock()
        self.namespaces: dict[str, set[str]] = {}
        self.client = (
            QdrantClient(":memory:")
            if path is None
            else QdrantClient(path=path, force_disable_check_same_thread=True)
        )

    @classmethod
    def open(cls, path: str) -> Local:
        """Return the one of this directory, or a new one for `:memory:`."""
        if path == ":memory:":
            return cls(None)
        key = str(Path(path).resolve())
        with cls._guard:
            if key in cls._open:
                cls._open[key].users += 1
            else:
                cls._open[key] = cls(key)
            return cls._open[key]

    def close(self) -> None:
        """Close the client once its last user is gone."""
        with self._guard, self.lock:
            self.users -= 1
            if self.users == 0:
                self.client.close()
                if self.path is not None:
                    del self._open[self.path]

    def only(self, collection: str, namespace: str) -> bool:
        """Return whether every record of the collection is in this namespace."""
        if collection not in self.namespaces:
            found = self.client.facet(collection, records.NAMESPACE, limit=2)
            self.namespaces[collection] = {str(hit.value) for hit in found.hits}
        return self.namespaces[collection] <= {namespace}

    def wrote(self, collection: str, namespace: str) -> None:
        """Take note of a write."""
        if collection in self.namespaces:
            self.namespaces[collection].add(namespace)


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
                reasons={"hnsw_index": _LOCAL_REASON, "persistent": "the records live in this process"},
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
        # local mode computes with numpy, which warns where a score overflows; that is found out later
        with self.local.lock, np.errstate(over="ignore", invalid="ignore"):
            yield self._client

    def _do_connect(self) -> None:
        if self.config.host is None:
            self.local = Local.open(self.config.url.path)
            self._client = self.local.client
            return
        with contextlib.ExitStack() as cleanup:
            self._client = _connect(self.config)
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
            if self.local is not None:
                self.local.namespaces[name] = set()
        hinted = [
            field
            for key, kind in spec_.indexes.items()
            if kind in _COMPANIONS
            for field in filters.companion_fields(companion_field(_COMPANIONS[kind], key))
        ]
        self.create_indexes(name, hinted)

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
        return translate(error)


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
            if self.store.local is not None:
                self.store.local.wrote(self.native, self.namespace)
            client.upsert(
                self.native,
                records.grpc_points(*points)
                if self.store.config.prefer_grpc
                else records.rest_points(*points),
                wait=wait,
            )

    def _do_get(self, ids: list[str], fields: Fields) -> RecordBatch:
        with self.store.session() as client:
            found = client.retrieve(
                self.native,
                [records.point_id(self.namespace, id) for id in ids],
                with_payload=self._payload(fields),
                with_vectors=fields.vectors,
            )
        return self._decode(found, fields)

    def _do_query(
        self, vectors: FloatArray, *, limit: int, filter: Filter | None, exact: bool, fields: Fields
    ) -> list[Hits]:
        rows, _ = records.encode_vectors(vectors, self.spec.metric)

        def ask(client: QdrantClient) -> list[models.QueryResponse]:
            within = self._within(filter)
            requests = [
                models.QueryRequest.model_construct(
                    query=row,
                    filter=within,
                    params=self._params(exact=exact),
                    limit=limit,
                    with_payload=self._payload(fields),
                    with_vector=fields.vectors,
                )
                for row in rows.tolist()
            ]
            return client.query_batch_points(self.native, requests)

        return [self._hits(answer.points, fields) for answer in self._ask(filter, ask)]

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
        points = [records.point_id(self.namespace, id) for id in ids]
        with self.store.session() as client:
            # a record may have been deleted meanwhile, and setting the payload of a point that is not there
            # is an error, unless a filter chooses it; which in local mode looks at every point, so ask first
            if self.store.local is not None:
                there = {point.id for point in client.retrieve(self.native, points, with_payload=False)}
            operations = [
                models.SetPayloadOperation(
                    set_payload=models.SetPayload(
                        payload=records.metadata_payload(metadata), filter=_has_id(point)
                    )
                    if self.store.local is None
                    else models.SetPayload(payload=records.metadata_payload(metadata), points=[point])
                )
                for point, metadata in zip(points, metadatas, strict=True)
                if self.store.local is None or point in there
            ]
            if operations:
                client.batch_update_points(self.native, operations, wait=True)

    def _do_delete(self, ids: list[str]) -> None:
        points: list[models.ExtendedPointId] = [records.point_id(self.namespace, id) for id in ids]
        with self.store.session() as client:
            client.delete(self.native, models.PointIdsList(points=points), wait=True)

    def _do_delete_where(self, filter: Filter | None) -> None:
        selector = models.FilterSelector(filter=filters.within(self.namespace, filter))
        self._ask(filter, lambda client: client.delete(self.native, selector, wait=True))

    def _do_flush(self) -> None:
        # operations are applied in their order, so a write that is waited for ends all earlier ones
        with self.store.session() as client:
            client.delete(self.native, models.PointIdsList(points=[records.NO_POINT]), wait=True)

    def _do_explain(self, filter: Filter | None, *, limit: int, exact: bool) -> tuple[Any, tuple[str, ...]]:
        request = models.QueryRequest(
            filter=filters.within(self.namespace, filter), params=self._params(exact=exact), limit=limit
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
            if "Index required but not found" not in reason(error):
                raise
        self.store.create_indexes(self.native, filters.range_fields(filter))
        with self.store.session() as client:
            return request(client)

    def _params(self, *, exact: bool) -> models.SearchParams | None:
        index = self.spec.index or DEFAULT_INDEX
        if self.store.local is not None:
            return None  # it is always exact, and warns
        if isinstance(index, FlatIndex):
            return models.SearchParams(exact=True)
        return models.SearchParams(hnsw_ef=index.ef_search, exact=exact)

    def _payload(self, fields: Fields) -> list[str]:
        return records.payload_keys(fields, self.spec.metric)

    def _decode(
        self, points: Sequence[models.Record] | Sequence[models.ScoredPoint], fields: Fields
    ) -> RecordBatch:
        return records.decode(points, fields, self.spec.dimension, self.spec.metric)

    def _hits(self, points: list[models.ScoredPoint], fields: Fields) -> Hits:
        found = _SCORES[self.spec.metric]([point.score for point in points])
        if not np.isfinite(found).all():
            raise BackendError(OVERFLOW)
        return Hits(self._decode(points, fields), found)


OVERFLOW: Final = "a score is beyond float32, in which Qdrant computes; scale the vectors down"


def _has_id(point: str) -> models.Filter:
    return models.Filter(must=[models.HasIdCondition(has_id=[point])])


def native_name(name: str) -> str:
    """Return the collection's name in Qdrant; over gRPC its server takes "." and ".." for directories."""
    return f"~{name}" if name in (".", "..") else name


def public_name(name: str) -> str:
    """Return the name that `native_name` made this of; no name of ours begins with a tilde."""
    return name.removeprefix("~")


# Connecting ---------------------------------------------------------------------------------------------


def _connect(config: QdrantConfig) -> QdrantClient:
    host = config.host
    assert host is not None
    headers = {} if config.key is None else {"api-key": config.key}
    return QdrantClient(
        host=f"[{host.name}]" if ":" in host.name else host.name,
        port=host.port or 6333,
        grpc_port=config.grpc_port,
        prefer_grpc=config.prefer_grpc,
        https=config.tls if config.tls is not None else config.key is not None and not loopback(host.name),
        prefix=config.url.path.rstrip("/") or None,
        # not as api_key, with which the driver warns about an unencrypted connection, wanted or not
        headers=headers,
        timeout=max(1, round(config.timeout_s)),
        check_compatibility=False,
    )


def loopback(host: str) -> bool:
    """Return whether the host is this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


# Errors -------------------------------------------------------------------------------------------------

_BY_STATUS: Final[dict[int, type[BackendError]]] = {
    401: AuthenticationError,
    403: AuthenticationError,
    408: BackendTimeoutError,
    429: RateLimitedError,
    502: BackendUnavailableError,
    503: BackendUnavailableError,
    504: BackendTimeoutError,
}
_BY_CODE: Final[dict[grpc.StatusCode, int]] = {
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.ALREADY_EXISTS: 409,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
}


def translate(error: Exception) -> PolyvecError | None:
    """Return our error for one of the driver's, None for an unknown one."""
    match error:
        case ResourceExhaustedResponse():
            return RateLimitedError(error.message, retry_after_s=error.retry_after_s)
        case UnexpectedResponse():
            return _by_status(error.status_code or 0, reason(error))
        case ResponseHandlingException():
            return _by_source(error.source)
        case grpc.RpcError():
            return _by_status(_BY_CODE.get(error.code(), 0), reason(error))
        case ValueError() | RuntimeError():
            return _by_text(str(error))  # local mode has no types of its own
    return None


def reason(error: Exception) -> str:
    """Return what the server said."""
    if isinstance(error, grpc.RpcError):
        return f"{error.code().name}: {error.details()}"
    if not isinstance(error, UnexpectedResponse):
        return str(error)
    text = error.content.decode(errors="replace")
    try:
        text = json.loads(text)["status"]["error"]
    except (ValueError, TypeError, LookupError):
        text = text[:300]  # of a proxy, or the plain text of a 401
    return f"{error.status_code}: {text}"


def _by_status(status: int, text: str) -> PolyvecError:
    if status == 404 and "ollection" in text:  # noqa: PLR2004  # else it is not Qdrant that answers
        return CollectionNotFoundError(text)
    if status == 409:  # noqa: PLR2004
        return CollectionExistsError(text)
    if "Timeout error" in text:  # the server's own limit for a read, a 500
        return BackendTimeoutError(text)
    return _BY_STATUS.get(status, BackendError)(text)


def _by_source(source: Exception | str) -> PolyvecError:
    match source:
        case httpx.ConnectError() | httpx.ConnectTimeout():
            return BackendUnavailableError(f"cannot be reached: {source}")
        case httpx.TimeoutException():
            return BackendTimeoutError(f"no answer in time: {type(source).__name__}")
        case httpx.TransportError():
            return BackendUnavailableError(f"{type(source).__name__}: {source}")
    if "score" in str(source):  # JSON has no infinity, so the server sends null
        return BackendError(OVERFLOW)
    return BackendError(f"the answer makes no sense: {source}")


def _by_text(text: str) -> PolyvecError | None:
    if "already accessed" in text:
        return BackendUnavailableError("another process has the directory open; use a server to share it")
    if text.startswith("Collection "):
        if text.endswith(" not found"):
            return CollectionNotFoundError("there is no such collection")
        if text.endswith(" already exists"):
            return CollectionExistsError("it exists already")
    return None
