"""The Chroma store: one native collection for each namespace, beside an entry that keeps the spec.

Layout: `names` says which native collections there are, `records` what is in them.
"""

from __future__ import annotations

import heapq
import threading
from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

import httpx
import numpy as np
from chromadb.api.client import Client
from chromadb.api.models.Collection import Collection
from chromadb.auth import UserIdentity
from chromadb.config import DEFAULT_DATABASE, DEFAULT_TENANT, Settings
from chromadb.errors import (
    AuthorizationError,
    ChromaAuthError,
    ChromaError,
    NotFoundError,
    RateLimitError,
    UniqueConstraintError,
)

from polyvec import scores
from polyvec import spec as spec_codec
from polyvec.base import BaseCollection, BaseVectorStore, Fields, Hits
from polyvec.batches import chunks, take
from polyvec.errors import (
    AuthenticationError,
    BackendTimeoutError,
    BackendUnavailableError,
    CollectionExistsError,
    CollectionNotFoundError,
    ConfigurationError,
    ForeignCollectionError,
    PolyvecError,
    RateLimitedError,
    UnsupportedOperationError,
)
from polyvec.filters import Filter, matches
from polyvec.types import CollectionSpec, FloatArray, Metadata, RecordBatch
from polyvec_adapters.chroma import ChromaConfig
from polyvec_adapters.chroma.filters import Where, in_buckets, to_native
from polyvec_adapters.chroma.names import entry_name, space_name, space_prefix
from polyvec_adapters.chroma.records import (
    ANCHOR,
    BUCKETS,
    EMPTY_DOCUMENT,
    TOO_LONG,
    anchor,
    configuration,
    decode,
    encode,
    encode_filterable,
    encode_vectors,
    include,
    replace_metadata,
    score,
    too_long,
)

T = TypeVar("T")

SPEC: Final = "polyvec"
"""Metadata key of the spec in the entry of a collection."""

MOST_ROWS: Final = 30_000
"""Most records whose metadata one query reads: Chroma selects them by id, with one SQL variable each."""

MOST_IDS: Final = 50_000
"""A scan holds about this many ids."""

SMALL_RECORDS: Final = 1000
SMALL_FLOATS: Final = 20_000
"""A namespace with no more records and no more numbers in their vectors is searched by brute force."""

_VECTORS: Final = Fields(vectors=True, text=False, metadata=False)

_OPENING: Final = threading.Lock()
"""Chroma counts who uses a directory without a lock around opening it."""


class Cursor(NamedTuple):
    """Where a scan goes on: with the rest of `ids`, then with the records of these groups of buckets."""

    ids: list[str]
    start: int
    groups: list[list[int]]


def settings(config: ChromaConfig) -> Settings:
    """Return the native settings; neither the environment nor a file `.env` changes them."""
    # https://docs.pydantic.dev/latest/concepts/pydantic_settings/: only construction reads those
    if config.host is None:
        return Settings.model_construct(
            anonymized_telemetry=False,
            is_persistent=True,
            persist_directory=str(Path(config.url.path).resolve()),  # one engine for all names of a directory
        )
    host = f"[{config.host.name}]" if ":" in config.host.name else config.host.name
    return Settings.model_construct(
        anonymized_telemetry=False,
        chroma_api_impl="chromadb.api.fastapi.FastAPI",
        chroma_server_host=host,
        chroma_server_http_port=config.port,
        chroma_server_ssl_enabled=config.encrypted,
        chroma_server_headers=headers(config),
        # the key says which tenant and database, where the user does not
        chroma_overwrite_singleton_tenant_database_access_from_auth=config.cloud,
    )


def headers(config: ChromaConfig) -> dict[str, str]:
    """Return the headers that authenticate: a server has no authentication, the proxy before it may."""
    if config.user is not None:
        login = f"{config.user}:{config.password or ''}"
        return {"Authorization": f"Basic {b64encode(login.encode()).decode()}"}
    return {"x-chroma-token": config.key} if config.key else {}


class ChromaClient(Client):
    """Chroma's client, with a timeout and with the status of errors.

    The driver (1.5.9, api/fastapi.py) waits forever, and turns an answer that is not its server's own into a
    bare `Exception`; nor does it close its connections. It sends requests while it is constructed, so its two
    sessions are prepared before the first request of each.
    """

    def __init__(self, config: ChromaConfig) -> None:
        self._timeout_s = config.timeout_s
        self._sessions: list[httpx.Client] = []
        tenant, database = (None, None) if config.cloud else (DEFAULT_TENANT, DEFAULT_DATABASE)
        try:
            super().__init__(config.tenant or tenant, config.database or database, settings(config))
        except BaseException:
            self._close_sessions()
            raise

    def close(self) -> None:
        """Release the directory, or close the connections."""
        super().close()
        self._close_sessions()

    def _close_sessions(self) -> None:
        for session in self._sessions:
            session.close()

    def _prepare(self, server: Any) -> None:  # ServerAPI, of a directory or over HTTP
        if (session := getattr(server, "_session", None)) is not None:
            session.timeout = httpx.Timeout(self._timeout_s)
            session.event_hooks = {"response": [_raise_status]}
            self._sessions.append(session)

    def get_user_identity(self) -> UserIdentity:
        """Ask whose key it is: the first request of the constructor."""
        self._prepare(self._server)
        return super().get_user_identity()

    def _validate_tenant_database(self, tenant: str, database: str) -> None:
        self._prepare(self._admin_client._server)  # type: ignore[attr-defined]  # noqa: SLF001
        try:
            super()._validate_tenant_database(tenant, database)
        except NotFoundError as error:
            raise ConfigurationError(f"there is no database {database!r} of tenant {tenant!r}") from error


def _raise_status(response: httpx.Response) -> None:
    if response.status_code in _STATUSES:
        response.read()
        response.raise_for_status()


_STATUSES: Final[dict[int, type[PolyvecError]]] = {
    401: AuthenticationError,
    403: AuthenticationError,
    429: RateLimitedError,
    502: BackendUnavailableError,
    503: BackendUnavailableError,
    504: BackendTimeoutError,
}
"""What a proxy or the cloud answers in place of the server, whose own errors say what they are."""

_ERRORS: Final[tuple[tuple[type[Exception], str, type[PolyvecError]], ...]] = (
    (httpx.ConnectTimeout, "", BackendUnavailableError),
    (httpx.TimeoutException, "", BackendTimeoutError),
    (httpx.TransportError, "", BackendUnavailableError),
    (NotFoundError, "", CollectionNotFoundError),
    (UniqueConstraintError, "", CollectionExistsError),
    # an InternalError from a directory, a bare ChromaError from a server
    (ChromaError, "already exists", CollectionExistsError),
    (ChromaAuthError, "", AuthenticationError),
    (AuthorizationError, "", AuthenticationError),
    (RateLimitError, "", RateLimitedError),
    # another call was changing the record: the next attempt sees it before or after
    (ChromaError, "Error finding id", BackendUnavailableError),
)
"""The driver's error, a text that tells it from others of its type, and ours. The first that fits counts."""


def translate(error: BaseException) -> PolyvecError | None:
    """Return our error for a driver's, or for the one that it hides; None where none is known."""
    if isinstance(error, PolyvecError):  # of a record that was refused before it was sent
        return type(error)(error.message)
    hidden: BaseException | None = error
    while hidden is not None:
        if isinstance(hidden, httpx.HTTPStatusError):
            return _from_response(hidden.response)
        for kind, text, ours in _ERRORS:
            if isinstance(hidden, kind) and text in str(hidden):
                return ours(f"{type(hidden).__name__}: {hidden}")
        hidden = hidden.__cause__ or hidden.__context__
    return None


def _from_response(response: httpx.Response) -> PolyvecError:
    message = f"{response.status_code} {response.reason_phrase}: {response.text:.200}"
    if response.status_code == 429:  # noqa: PLR2004
        after = response.headers.get("Retry-After", "")
        return RateLimitedError(message, retry_after_s=float(after) if after.isdigit() else None)
    return _STATUSES[response.status_code](message)


class ChromaStore(BaseVectorStore):
    """A directory or a server of Chroma."""

    config: ChromaConfig
    client: ChromaClient

    @property
    def native(self) -> ChromaClient:
        """The `chromadb` client."""
        return self.client

    def _do_connect(self) -> None:
        # a change of metadata reads the document that it changes, and must not undo a write in between
        self.writing = threading.Lock()
        with _OPENING:
            self.client = ChromaClient(self.config)

    def _do_version(self) -> str:
        return self.client.get_version()

    def _do_create(self, spec: CollectionSpec) -> None:
        self.client.create_collection(
            entry_name(spec.name), embedding_function=None, metadata={SPEC: spec_codec.to_json(spec)}
        )

    def _do_open(self, name: str) -> CollectionSpec | None:
        entry = self.find(entry_name(name))
        return None if entry is None else spec_of(entry)

    def _do_list(self) -> list[str]:
        return [
            spec_of(entry).name for entry in self.client.list_collections() if SPEC in (entry.metadata or {})
        ]

    def _do_drop(self, name: str) -> None:
        entry = self.client.get_collection(entry_name(name), embedding_function=None)
        # the entry last: an interrupted drop can be made again
        for other in self.client.list_collections():
            if other.name.startswith(space_prefix(entry.id)):
                self.client.delete_collection(other.name)
        self.client.delete_collection(entry.name)

    def _do_close(self) -> None:
        with _OPENING:
            self.client.close()

    def _collection(self, spec: CollectionSpec) -> ChromaCollection:
        return ChromaCollection(self, spec)

    def _translate(self, error: Exception) -> PolyvecError | None:
        return translate(error)

    def find(self, native_name: str) -> Collection | None:
        """Return a native collection, None where there is none."""
        try:
            return self.client.get_collection(native_name, embedding_function=None)
        except NotFoundError:
            return None


def spec_of(entry: Collection) -> CollectionSpec:
    """Return the spec that an entry keeps."""
    text = (entry.metadata or {}).get(SPEC)
    if text is None:
        raise ForeignCollectionError("Chroma has a collection of this name that polyvec did not create")
    return spec_codec.from_json(str(text))


class ChromaCollection(BaseCollection):
    """One namespace of a collection; its native collection is made by the first write."""

    store: ChromaStore
    _native: Collection | None = None
    _large: bool = False

    @property
    def native(self) -> Collection | None:
        """The `chromadb` collection with the records of this namespace; None before the first write."""
        return self._native or self._open(create=False)

    def _open(self, *, create: bool) -> Collection | None:
        entry = self.store.find(entry_name(self.name))
        if entry is None or spec_of(entry) != self.spec:
            raise CollectionNotFoundError("it was dropped")
        name = space_name(entry.id, self.namespace)
        if create:
            self._native = self.store.client.get_or_create_collection(
                name,
                embedding_function=None,
                configuration=configuration(self.spec),  # type: ignore[arg-type]  # a TypedDict
                metadata={"polyvec_collection": self.name, "polyvec_namespace": self.namespace},
            )
            self._native.add(**anchor(self.spec))  # ignored where it is there already
        else:
            self._native = self.store.find(name)
        return self._native

    def _run(self, call: Callable[[Collection], T], *, create: bool = False) -> T | None:
        """Call with the native collection; None where there is none.

        A native collection is gone for good after `clear` and `drop_collection` of any handle, which may have
        made way for a new one.
        """
        native = self._native or self._open(create=create)
        try:
            return None if native is None else call(native)
        except NotFoundError:
            native = self._open(create=create)
            return None if native is None else call(native)

    def _do_upsert(self, batch: RecordBatch, *, wait: bool) -> dict[str, PolyvecError]:
        columns, refused = encode(batch, self.spec.metric)
        if columns["ids"]:
            with self.store.writing:
                self._run(lambda native: native.upsert(**columns), create=True)
        return refused

    def _do_get(self, ids: list[str], fields: Fields) -> RecordBatch:
        return self._run(lambda native: self._fetch(native, ids, fields)) or self._nothing(fields)

    def _do_query(
        self, vectors: FloatArray, *, limit: int, filter: Filter | None, exact: bool, fields: Fields
    ) -> list[Hits]:
        if too_long(vectors, self.spec.metric):
            raise UnsupportedOperationError(TOO_LONG)
        found = self._run(lambda native: self._ask(native, vectors, limit, filter, fields))
        return found or [Hits(self._nothing(fields), np.empty(0)) for _ in vectors]

    def _do_count(self, filter: Filter | None) -> int:
        return self._run(lambda native: self._matching(native, filter)) or 0

    def _do_scan(
        self, filter: Filter | None, fields: Fields, *, limit: int, cursor: Any
    ) -> tuple[RecordBatch, Any]:
        where = None if filter is None else to_native(filter)
        page = self._run(lambda native: self._page(native, where, fields, limit, cursor))
        return page or (self._nothing(fields), None)

    def _do_set_metadata(self, ids: list[str], metadatas: Sequence[Metadata]) -> None:
        new = dict(zip(ids, metadatas, strict=True))

        def update(native: Collection) -> None:
            got = native.get(ids, include=["documents"])
            documents = [
                replace_metadata(document or EMPTY_DOCUMENT, new[id])
                for id, document in zip(got["ids"], got["documents"] or (), strict=True)
            ]
            if documents:
                # not Collection.update, which would have a model make new vectors for the documents (1.5.9)
                native._client._update(  # noqa: SLF001
                    native.id,
                    got["ids"],
                    metadatas=[encode_filterable(new[id]) for id in got["ids"]],
                    documents=documents,
                    tenant=native.tenant,
                    database=native.database,
                )

        with self.store.writing:
            self._run(update)

    def _do_delete(self, ids: list[str]) -> None:
        self._run(lambda native: native.delete(ids))

    def _do_delete_where(self, filter: Filter | None) -> None:
        if filter is None:
            self._run(lambda native: self.store.client.delete_collection(native.name))
            return
        where = to_native(filter)
        ids = self._run(lambda native: _ids(native, where)) or []
        for chunk in chunks(ids, self.store.capabilities.max_batch_records):
            self._do_delete(chunk)

    def _do_explain(self, filter: Filter | None, *, limit: int, exact: bool) -> tuple[Any, tuple[str, ...]]:
        request: dict[str, Any] = {"n_results": limit + 1, "where": None}
        notes = ["One more than the limit, because polyvec keeps a record of its own in the collection."]
        if filter is not None:
            where = request["where"] = to_native(filter, strict=False)
            notes.append("Conditions are tests on tokens: hashes of kind, key and value.")
            if where != to_native(filter):
                notes.append(
                    "What is found is checked; if an outdated number was found, a stricter query follows."
                )
        return request, tuple(notes)

    # What the hooks are made of ----------------------------------------------------------------------

    def _nothing(self, fields: Fields) -> RecordBatch:
        return decode([], [], np.empty((0, self.spec.dimension)), fields, self.spec)

    def _fetch(self, native: Collection, ids: list[str], fields: Fields) -> RecordBatch:
        if not ids:
            return self._nothing(fields)
        got = native.get(ids, include=include(fields, self.spec.metric))
        return decode(got["ids"], got["documents"], got["embeddings"], fields, self.spec)

    def _matching(self, native: Collection, filter: Filter | None) -> int:
        if filter is not None:
            return len(_ids(native, to_native(filter)))
        return max(0, native.count() - 1)  # without the anchor, if another process has written it already

    def _ask(
        self, native: Collection, vectors: FloatArray, limit: int, filter: Filter | None, fields: Fields
    ) -> list[Hits]:
        where = None if filter is None else to_native(filter)
        if self._is_small(native):
            return self._compare(native, [self._read(native, where)], vectors, limit, fields)
        found: list[Hits] = []
        step = max(1, MOST_ROWS // (limit + 1))
        for start in range(0, len(vectors), step):
            found += self._nearest(native, vectors[start : start + step], limit, filter, fields)
        if any(len(hits.scores) < limit for hits in found):
            most = min(limit, self._matching(native, filter))
            # a graph may have records that no path leads to
            short = [row for row, hits in enumerate(found) if len(hits.scores) < most]
            if short:
                again = self._compare(native, self._chunks(native, where), vectors[short], limit, fields)
                for row, hits in zip(short, again, strict=True):
                    found[row] = hits
        return found

    def _is_small(self, native: Collection) -> bool:
        """Return whether comparing with every record takes about as long as a search; never again if not.

        In small graphs many records are beyond reach: of 150 with 8 different vectors, a fifth under `dot`.
        """
        if not self._large:
            count = native.count()
            self._large = count > SMALL_RECORDS or count * self.spec.dimension > SMALL_FLOATS
        return not self._large

    def _nearest(
        self, native: Collection, vectors: FloatArray, limit: int, filter: Filter | None, fields: Fields
    ) -> list[Hits]:
        """Return what the graph finds."""
        if filter is None:
            return self._search(native, vectors, limit, None, fields)
        loose, strict = to_native(filter, strict=False), to_native(filter)
        if loose == strict:
            return self._search(native, vectors, limit, strict, fields)
        found = self._search(native, vectors, limit, loose, fields._replace(metadata=True))
        if all(matches(filter, metadata) for hits in found for metadata in hits.records.metadatas or ()):
            return found
        return self._search(native, vectors, limit, strict, fields)

    def _search(
        self, native: Collection, vectors: FloatArray, limit: int, where: Where | None, fields: Fields
    ) -> list[Hits]:
        metric = self.spec.metric
        got: Any = native.query(
            encode_vectors(vectors, metric),
            n_results=limit + 1,  # one may be the anchor
            where=where,
            include=["distances", *include(fields, metric)],
        )
        found = []
        for row, ids in enumerate(got["ids"]):
            kept = [place for place, id in enumerate(ids) if id != ANCHOR][:limit]

            columns = {
                name: None if got[name] is None else [got[name][row][place] for place in kept]
                for name in ("documents", "embeddings", "distances")
            }
            records = decode(
                [ids[place] for place in kept], columns["documents"], columns["embeddings"], fields, self.spec
            )
            found.append(Hits(records, score(columns["distances"] or [], metric)))
        return found

    def _compare(
        self,
        native: Collection,
        batches: Iterable[RecordBatch],
        vectors: FloatArray,
        limit: int,
        fields: Fields,
    ) -> list[Hits]:
        """Return the best records of batches for each vector, by brute force."""
        best: list[list[tuple[float, str]]] = [[] for _ in vectors]
        for batch in batches:
            assert batch.vectors is not None
            lines = scores.exact(self.spec.metric, vectors, batch.vectors).tolist()
            best = [
                heapq.nlargest(limit, [*old, *zip(line, batch.ids, strict=True)])
                for old, line in zip(best, lines, strict=True)
            ]
        found = []
        for pairs in best:
            by_id = {id: score for score, id in pairs}
            records = self._fetch(native, list(by_id), fields)
            found.append(Hits(records, np.array([by_id[id] for id in records.ids])))
        return found

    def _read(self, native: Collection, where: Where | None) -> RecordBatch:
        """Return the ids and vectors of all records that match."""
        got = native.get(where=where, include=include(_VECTORS, self.spec.metric))
        rows = [row for row, id in enumerate(got["ids"]) if id != ANCHOR]
        batch = decode(got["ids"], got["documents"], got["embeddings"], _VECTORS, self.spec)
        return take(batch, rows)

    def _chunks(self, native: Collection, where: Where | None) -> Iterator[RecordBatch]:
        """Yield the same in batches."""
        for chunk in chunks(_ids(native, where), self.store.capabilities.max_batch_records):
            yield self._fetch(native, chunk, _VECTORS)

    def _page(
        self, native: Collection, where: Where | None, fields: Fields, limit: int, cursor: Cursor | None
    ) -> tuple[RecordBatch, Cursor | None]:
        """Return one page of a scan.

        Ids first, records by id: a page by offset would skip records when others are deleted meanwhile.
        """
        if cursor is None:
            ids = _ids(native, where, limit=MOST_IDS + 2)  # the anchor, and one too many
            cursor = Cursor(ids, 0, []) if len(ids) <= MOST_IDS else Cursor([], 0, _groups(native.count()))
        if cursor.start >= len(cursor.ids) and cursor.groups:
            cursor = Cursor(_ids(native, in_buckets(cursor.groups[0], where)), 0, cursor.groups[1:])
        stop = cursor.start + limit
        page = self._fetch(native, cursor.ids[cursor.start : stop], fields)
        more = stop < len(cursor.ids) or cursor.groups
        return page, cursor._replace(start=stop) if more else None


def _ids(native: Collection, where: Where | None, limit: int | None = None) -> list[str]:
    """Return the ids of the records that match; Chroma counts and deletes no other way."""
    return [id for id in native.get(where=where, include=[], limit=limit)["ids"] if id != ANCHOR]


def _groups(count: int) -> list[list[int]]:
    """Return all buckets in groups that hold about half of `MOST_IDS` records each."""
    size = max(1, BUCKETS * MOST_IDS // 2 // count)
    return [list(range(start, min(start + size, BUCKETS))) for start in range(0, BUCKETS, size)]
