"""The Milvus store: a server, or Milvus Lite in this process."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import grpc
import numpy as np
from pymilvus import MilvusClient
from pymilvus.exceptions import MilvusException
from pymilvus.grpc_gen import common_pb2 as common
from pymilvus.grpc_gen import milvus_pb2 as messages

from polyvec import scores, spec
from polyvec.base import BaseCollection, BaseVectorStore, Fields, Hits
from polyvec.batches import chunks, take
from polyvec.encoding import split_lengths
from polyvec.errors import (
    BackendError,
    BackendTimeoutError,
    ForeignCollectionError,
    PolyvecError,
    UnsupportedOperationError,
)
from polyvec.filters import Filter
from polyvec.types import CollectionSpec, FlatIndex, FloatArray, HnswIndex, Metadata, Metric, RecordBatch
from polyvec_adapters.milvus import MilvusConfig, errors, filters, records, requests
from polyvec_adapters.milvus.connect import Connection, LiteConnection
from polyvec_adapters.milvus.errors import AnswerTooLargeError
from polyvec_adapters.milvus.names import SPEC_PREFIX, SPEC_PROPERTY, native_name, public_name, spec_text

NO_FIELDS: Final = Fields(vectors=False, text=False, metadata=False)
"""What to read where only ids are wanted."""

OLDEST_SERVER: Final = (2, 3)
"""The first with arrays and upsert: https://milvus.io/docs/v2.3.x/release_notes.md."""

DEFAULT_INDEX: Final = HnswIndex()

_METRICS: Final[dict[Metric, str]] = {"cosine": "COSINE", "dot": "IP", "euclidean": "L2"}
_SCORES: Final = {
    "cosine": scores.from_cosine,
    "dot": scores.from_dot,
    "euclidean": scores.from_squared_distance,
}
SMALL_LOAD: Final = 4_000
"""Records that need no index: a server compares up to some 5,000 new ones.

More are searched by a coarse index in memory until their segment is sealed, by a flush or after ten minutes:
recall@10 of 10,000 is 0.90 before and 0.999 after that (2.3.5, whose `interimIndex` has 128 lists of at least
39 records: https://milvus.io/docs/v2.3.x/configure_querynode.md)."""

_COUNT: Final = "count(*)"
_POLL_S: Final = 0.02


class MilvusStore(BaseVectorStore):
    """Collections of one database."""

    config: MilvusConfig

    @property
    def native(self) -> MilvusClient:
        """The driver's client, connected like the store."""
        return self.connection.client

    @property
    def lite(self) -> bool:
        """Whether the engine is Milvus Lite."""
        return self.config.host is None

    def _do_connect(self) -> None:
        with contextlib.ExitStack() as cleanup:
            self.connection = self._connection()
            cleanup.callback(self.connection.close)
            version = self._do_version()
            found = re.search(r"(\d+)\.(\d+)", version)
            if found and tuple(map(int, found.groups())) < OLDEST_SERVER:
                oldest = ".".join(map(str, OLDEST_SERVER))
                raise UnsupportedOperationError(f"the server is {version}, too old: {oldest} is needed")
            self._names()  # the version is told without a user, and without a database
            cleanup.pop_all()

    def _connection(self) -> Connection:
        if self.config.host is None:
            return LiteConnection(self.config)
        return Connection(self.config, port=19530, encrypted=bool(self.config.tls))

    def _do_version(self) -> str:
        version: str = self.connection.call("GetVersion", messages.GetVersionRequest()).version
        return version.removeprefix("v").removeprefix("milvus_lite-")

    def _do_create(self, spec_: CollectionSpec) -> None:
        name = native_name(spec_.name)
        text = spec.to_json(spec_)
        properties = {SPEC_PROPERTY: text} if self.lite else {}
        schema = records.schema(name, SPEC_PREFIX + text, spec_.dimension, spec_.metric)
        with contextlib.ExitStack() as undo:
            self.connection.call("CreateCollection", requests.create(schema, properties))
            undo.callback(self._do_drop, spec_.name)
            index = requests.create_index(name, _METRICS[spec_.metric], *self.index(spec_))
            self.connection.call("CreateIndex", index)
            # not waited for: a server takes a second or two, and the first read may be later
            self.connection.call("LoadCollection", messages.LoadCollectionRequest(collection_name=name))
            undo.pop_all()

    def index(self, spec_: CollectionSpec) -> tuple[str, dict[str, int]]:
        """Return the type of a collection's index, and its parameters."""
        index = spec_.index or DEFAULT_INDEX
        if isinstance(index, FlatIndex):
            return "FLAT", {}
        return "HNSW", {"M": index.m, "efConstruction": index.ef_construction}

    def search_parameters(self, spec_: CollectionSpec, limit: int) -> dict[str, int]:
        """Return the parameters of a search; ef must be at least the limit."""
        index = spec_.index or DEFAULT_INDEX
        return {"ef": max(index.ef_search, limit)} if isinstance(index, HnswIndex) else {}

    def load(self, name: str) -> None:
        """Load a collection into memory, and wait for that."""
        self.connection.call("LoadCollection", messages.LoadCollectionRequest(collection_name=name))
        deadline = time.monotonic() + self.config.timeout_s
        request = messages.GetLoadStateRequest(collection_name=name)
        while self.connection.call("GetLoadState", request).state != common.LoadState.LoadStateLoaded:
            if time.monotonic() > deadline:
                raise BackendTimeoutError("the collection is still being loaded")
            time.sleep(_POLL_S)

    def _do_open(self, name: str) -> CollectionSpec | None:
        answer = self._describe(native_name(name))
        if answer is None:
            return None
        text = spec_text(answer)
        if text is None:
            raise ForeignCollectionError("the collection exists, but polyvec did not create it")
        # it may have been renamed, or be known by an alias
        return dataclasses.replace(spec.from_json(text), name=name)

    def _describe(self, name: str) -> messages.DescribeCollectionResponse | None:
        request = messages.DescribeCollectionRequest(collection_name=name)
        try:
            answer: messages.DescribeCollectionResponse = self.connection.call("DescribeCollection", request)
        except MilvusException as error:
            if error.code == errors.COLLECTION_NOT_FOUND:
                return None
            raise
        return answer

    def _names(self) -> list[str]:
        return list(
            self.connection.call("ShowCollections", messages.ShowCollectionsRequest()).collection_names
        )

    def _do_list(self) -> list[str]:
        answers = [(name, self._describe(name)) for name in self._names()]
        texts = [(name, spec_text(answer)) for name, answer in answers if answer is not None]
        return [public_name(name, spec.from_json(text).name) for name, text in texts if text is not None]

    def _do_drop(self, name: str) -> None:
        request = messages.DropCollectionRequest(collection_name=native_name(name))
        self.connection.call("DropCollection", request)

    def _do_close(self) -> None:
        self.connection.close()

    def _collection(self, spec: CollectionSpec) -> MilvusCollection:
        return (LiteCollection if self.lite else MilvusCollection)(self, spec)

    def _translate(self, error: Exception) -> PolyvecError | None:
        return errors.translate(error)


class MilvusCollection(BaseCollection):
    """One namespace of a Milvus collection."""

    store: MilvusStore
    # a write is seen by reads of any level once one strongly consistent read has waited for it
    flush_after_write = True
    _written: int = 0

    @property
    def native(self) -> str:
        """The collection's name in Milvus."""
        return native_name(self.name)

    def _do_upsert(self, batch: RecordBatch, *, wait: bool) -> None:
        self._put(records.encode(batch, self.namespace, self.spec.metric), len(batch))
        self._written += len(batch)

    def _put(self, columns: list[Any], count: int) -> None:
        request = messages.UpsertRequest(collection_name=self.native, fields_data=columns, num_rows=count)
        self.store.connection.call("Upsert", request)

    def _do_get(self, ids: list[str], fields: Fields) -> RecordBatch:
        keys = [records.primary_key(self.namespace, id) for id in ids]
        wanted = records.output_fields(fields, self.spec.metric)
        request = requests.query(self.native, filters.has_key(keys), wanted)
        try:
            return self._decode(self._read("Query", request).fields_data, fields)
        except AnswerTooLargeError:
            if len(ids) == 1:
                raise
            return records.joined([self._do_get(half, fields) for half in chunks(ids, -(-len(ids) // 2))])

    def _do_query(
        self, vectors: FloatArray, *, limit: int, filter: Filter | None, exact: bool, fields: Fields
    ) -> list[Hits]:
        graph = not isinstance(self.spec.index, FlatIndex)
        if exact and graph:
            return self._compare(vectors, limit, filter, fields)
        try:
            found = self._search(vectors, limit, filter, fields)
        except AnswerTooLargeError:
            found = self._filled(self._search(vectors, limit, filter, NO_FIELDS), fields)
        # a graph may not lead to all (https://github.com/milvus-io/milvus/issues/28603), and the fewer
        # records a filter leaves the less so: see whether there is really no more
        short = [row for row, hits in enumerate(found) if len(hits.scores) < limit] if graph else []
        if short:
            there = min(limit, self._do_count(filter))
            short = [row for row in short if len(found[row].scores) < there]
        if short:
            again = self._compare(vectors[short], limit, filter, fields)
            for row, hits in zip(short, again, strict=True):
                found[row] = hits
        return found

    def _search(self, vectors: FloatArray, limit: int, filter: Filter | None, fields: Fields) -> list[Hits]:
        request = requests.search(
            self.native,
            split_lengths(vectors, self.spec.metric)[0],
            filters.within(self.namespace, filter),
            records.output_fields(fields, self.spec.metric),
            limit=limit,
            parameters=self.store.search_parameters(self.spec, limit),
        )
        results = self._read("Search", request).results
        batch = self._decode(results.fields_data, fields)
        found = _SCORES[self.spec.metric](list(results.scores))
        if not np.isfinite(found).all():
            raise BackendError(errors.OVERFLOW)
        ends = np.cumsum(results.topks).tolist() or [0] * len(vectors)
        rows = [range(start, end) for start, end in zip([0, *ends], ends, strict=False)]
        return [Hits(take(batch, row), found[row.start : row.stop]) for row in rows]

    def _compare(self, vectors: FloatArray, limit: int, filter: Filter | None, fields: Fields) -> list[Hits]:
        """Read all vectors that the filter leaves, and compare them here."""
        ids = np.empty((len(vectors), 0), object)
        found = np.empty((len(vectors), 0))
        for page in self._all_vectors(filter):
            assert page.vectors is not None
            new = np.broadcast_to(np.array(page.ids, object), (len(vectors), len(page)))
            ids = np.concatenate([ids, new], axis=1)
            found = np.concatenate([found, scores.exact(self.spec.metric, vectors, page.vectors)], axis=1)
            best = np.argsort(-found, axis=1, kind="stable")[:, :limit]
            ids, found = np.take_along_axis(ids, best, 1), np.take_along_axis(found, best, 1)
        bare = [
            Hits(RecordBatch(line, None, None, None), row)
            for line, row in zip(ids.tolist(), found, strict=True)
        ]
        return self._filled(bare, fields)

    def _filled(self, hits: list[Hits], fields: Fields) -> list[Hits]:
        """Return hits of which only the ids are known, with all that was asked for."""
        batch = self._fetch(dict.fromkeys(id for found in hits for id in found.records.ids), fields)
        rows = {id: row for row, id in enumerate(batch.ids)}
        filled = []
        for found in hits:
            there = [place for place, id in enumerate(found.records.ids) if id in rows]  # it may be gone
            kept = take(batch, [rows[found.records.ids[place]] for place in there])
            filled.append(Hits(kept, found.scores[there]))
        return filled

    def _all_vectors(self, filter: Filter | None) -> Iterator[RecordBatch]:
        cursor: str | None = None
        while True:
            page, cursor = self._do_scan(
                filter, NO_FIELDS._replace(vectors=True), limit=self._scan_limit(), cursor=cursor
            )
            yield page
            if cursor is None:
                return

    def _fetch(self, ids: Iterable[str], fields: Fields) -> RecordBatch:
        """Return any number of records."""
        parts = [self._do_get(part, fields) for part in chunks(ids, self._scan_limit())]
        return records.joined(parts) if parts else self._decode([], fields)

    def _do_count(self, filter: Filter | None) -> int:
        request = requests.query(self.native, filters.within(self.namespace, filter), [_COUNT])
        return int(self._read("Query", request).fields_data[0].scalars.long_data.data[0])

    def _do_scan(
        self, filter: Filter | None, fields: Fields, *, limit: int, cursor: Any
    ) -> tuple[RecordBatch, Any]:
        expression = filters.within(self.namespace, filter)
        wanted = [records.KEY, *records.output_fields(fields, self.spec.metric)]
        request = requests.query(
            self.native,
            expression if cursor is None else filters.after(cursor, expression),
            wanted,
            limit=min(limit, requests.MAX_ROWS),
            sorted_=True,
        )
        try:
            columns = self._read("Query", request).fields_data
        except AnswerTooLargeError:
            if limit == 1:
                raise
            return self._do_scan(filter, fields, limit=limit // 2, cursor=cursor)
        keys = records.strings({column.field_name: column for column in columns}, records.KEY)
        # a page may be short where entities were replaced; only an empty one is the last
        return self._decode(columns, fields), max(keys, default=None)

    def _do_set_metadata(self, ids: list[str], metadatas: Sequence[Metadata]) -> None:
        keys = [records.primary_key(self.namespace, id) for id in ids]
        kept = records.output_fields(Fields(vectors=True, text=True, metadata=False), self.spec.metric)
        request = requests.query(self.native, filters.has_key(keys), kept)
        try:
            columns = self._read("Query", request).fields_data
        except AnswerTooLargeError:
            if len(ids) == 1:
                raise
            for part in (slice(len(ids) // 2), slice(len(ids) // 2, None)):
                self._do_set_metadata(ids[part], metadatas[part])
            return
        found = records.strings({column.field_name: column for column in columns}, records.ID)
        if found:
            new = dict(zip(ids, metadatas, strict=True))
            self._put(records.with_metadata(columns, self.namespace, [new[id] for id in found]), len(found))

    def _do_delete(self, ids: list[str]) -> None:
        self._remove(filters.has_key(records.primary_key(self.namespace, id) for id in ids))

    def _do_delete_where(self, filter: Filter | None) -> None:
        self._remove(filters.within(self.namespace, filter))

    def _remove(self, expression: str) -> None:
        self._read("Delete", messages.DeleteRequest(collection_name=self.native, expr=expression))

    def _do_flush(self) -> None:
        nothing = filters.has_key([""])
        self._read("Query", requests.query(self.native, nothing, [records.KEY], strong=True))

    def _do_settle(self) -> None:
        if self._written < SMALL_LOAD:
            return
        self._written = 0
        answer = self._seal()
        left = set(answer.coll_segIDs[self.native].data)
        deadline = time.monotonic() + self.store.config.timeout_s
        asked = messages.GetQuerySegmentInfoRequest(collectionName=self.native)
        while left and time.monotonic() < deadline:
            left -= {info.segmentID for info in self._read("GetQuerySegmentInfo", asked).infos}
            time.sleep(_POLL_S)

    def _seal(self) -> messages.FlushResponse:
        answer: messages.FlushResponse = self.store.connection.call(
            "Flush", messages.FlushRequest(collection_names=[self.native])
        )
        return answer

    def _do_explain(self, filter: Filter | None, *, limit: int, exact: bool) -> tuple[Any, tuple[str, ...]]:
        notes = ["The namespace is a condition on the field 'ns'."]
        if filter is not None:
            notes.append("Equality, membership and existence are tests for hashed tokens in 'tok'.")
        if exact and not isinstance(self.spec.index, FlatIndex):
            notes.append("All vectors for which the filter holds are read, and compared by polyvec.")
        request = {
            "collection_name": self.native,
            "filter": filters.within(self.namespace, filter),
            "limit": limit,
            "anns_field": records.VECTOR,
            "search_params": {"params": self.store.search_parameters(self.spec, limit)},
        }
        return request, tuple(notes)

    # What the hooks share -----------------------------------------------------------------------------

    def _read(self, method: str, request: Any) -> Any:
        """Make a request that needs the collection in memory; load it first where it is not."""
        if self.store.config.strong_reads and method != "Delete":
            request.consistency_level = common.ConsistencyLevel.Strong
        try:
            return self.store.connection.call(method, request)
        except (MilvusException, grpc.RpcError) as error:
            if errors.is_too_large(error):
                raise AnswerTooLargeError(f"the answer is too large: {error}") from error
            if not (isinstance(error, MilvusException) and error.code in errors.NOT_LOADED):
                raise
        self.store.load(self.native)
        return self.store.connection.call(method, request)

    def _decode(self, columns: Iterable[Any], fields: Fields) -> RecordBatch:
        return records.decode(columns, fields, self.spec.dimension, self.spec.metric)


class LiteCollection(MilvusCollection):
    """One namespace of a collection of Milvus Lite, which sees its writes at once."""

    flush_after_write = False

    def _do_settle(self) -> None:
        # what is not in a segment yet is searched row by row, in Python: five times as slow (3.2.2)
        self._seal()
