"""The Typesense store: collections of a server or a cluster."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import functools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
from typesense import Client

from polyvec import scores, spec
from polyvec.base import BaseCollection, BaseVectorStore, Fields, Hits
from polyvec.config import StoreConfig
from polyvec.errors import (
    BackendError,
    CollectionNotFoundError,
    ForeignCollectionError,
    PolyvecError,
    UnsupportedOperationError,
)
from polyvec.filters import Filter, matches
from polyvec.registry import Adapter
from polyvec.types import CollectionSpec, FlatIndex, FloatArray, HnswIndex, Metadata, RecordBatch
from polyvec_adapters.typesense import TypesenseConfig, errors, filters, records
from polyvec_adapters.typesense.connect import MAX_PAGE, MAX_URL_FILTER, Api
from polyvec_adapters.typesense.errors import CONFLICT, MISSING, RefusedError
from polyvec_adapters.typesense.filters import Plan, in_slots
from polyvec_adapters.typesense.records import SLOTS, Document, document_id

T = TypeVar("T")

SPEC_PREFIX: Final = "polyvec_"
"""The spec is the name of a field that no document has: what else a collection may keep came with 27.0
(`metadata`: https://typesense.org/docs/27.0/api/collections.html)."""

OLDEST_SERVER: Final = (0, 24)
"""The first with vectors: https://typesense.org/docs/0.24.0/api/vector-search.html."""

HNSW_SERVER: Final = (26,)
"""The first that takes `hnsw_params`: https://typesense.org/docs/26.0/api/vector-search.html."""

DEFAULT_INDEX: Final = HnswIndex(ef_search=300)
"""With 200, which is 0.4 ms quicker, recall@10 on isotropic vectors (10,000 x 512) is 0.72 instead of 0.83,
and on servers before 26 nobody can change it; on text embeddings it is 1.00 either way."""

FLAT_BELOW: Final = 5
"""Fewer documents than this times the candidates are compared one by one: no slower than the graph (run with
512 dimensions), and exact."""

ALL: Final = 2**31 - 1
"""As the number of candidates: always compare one by one."""

READ_AT_ONCE: Final = 200
"""Documents of a page of a scan, on average."""

DELETED_AT_ONCE: Final = 2000

ELECTION_ATTEMPTS: Final = 9
"""With the pauses between them, some 10 to 15 s."""

_WRITES: Final = 5
_TEXT_READ: Final = Fields(vectors=False, text=False, metadata=True)


class Cursor(NamedTuple):
    """Where a scan goes on: what it has read and not yet shown, and the slots that it has not read."""

    waiting: list[Document]
    slot: int
    width: int


class TypesenseStore(BaseVectorStore):
    """Collections of a Typesense server or cluster."""

    config: TypesenseConfig

    @functools.cached_property
    def native(self) -> Client:
        """A client of the driver's, over the connections of the store."""
        return self.api.client()

    def __init__(self, adapter: Adapter, config: StoreConfig) -> None:
        super().__init__(adapter, config)
        if len(config.url.hosts) > 1:
            # long enough for a new leader to be elected
            self.retry = dataclasses.replace(self.retry, attempts=ELECTION_ATTEMPTS)

    def _do_connect(self) -> None:
        with contextlib.ExitStack() as cleanup:
            self.api = Api(self.config)
            cleanup.callback(self.api.close)
            version = _numbers(self.api.version())
            if version and version < OLDEST_SERVER:
                raise UnsupportedOperationError("the server is older than 0.24, and knows no vectors")
            if version < HNSW_SERVER:
                self.capabilities = dataclasses.replace(
                    self.capabilities,
                    hnsw_index=False,
                    reasons={
                        **self.capabilities.reasons,
                        "hnsw_index": "Typesense before 26.0 always builds m=16, ef_construction=200",
                    },
                )
            cleanup.pop_all()

    def _do_version(self) -> str:
        return self.api.version()

    def _do_create(self, spec_: CollectionSpec) -> None:
        fields = records.schema(spec_.dimension, spec_.metric)
        if isinstance(spec_.index, HnswIndex):
            fields[0]["hnsw_params"] = {"M": spec_.index.m, "ef_construction": spec_.index.ef_construction}
        fields.append({"name": _spec_field(spec_), "type": "bool", "index": False, "optional": True})
        self.api.create({"name": native_name(spec_.name), "fields": fields})

    def _do_open(self, name: str) -> CollectionSpec | None:
        try:
            found = self.api.describe(native_name(name))
        except RefusedError as error:
            if isinstance(errors.translate(error), CollectionNotFoundError):
                return None
            raise
        spec_ = _spec_of(found)
        if spec_ is None:
            raise ForeignCollectionError("the collection exists, but polyvec did not create it")
        # it may have been opened through an alias
        return dataclasses.replace(spec_, name=name)

    def _do_list(self) -> list[str]:
        return [public_name(item["name"]) for item in self.api.describe_all() if _spec_text(item) is not None]

    def _do_drop(self, name: str) -> None:
        self.api.drop(native_name(name))

    def _do_close(self) -> None:
        self.api.close()

    def _collection(self, spec: CollectionSpec) -> TypesenseCollection:
        return TypesenseCollection(self, spec)

    def _translate(self, error: Exception) -> PolyvecError | None:
        return errors.translate(error)


class TypesenseCollection(BaseCollection):
    """One namespace of a Typesense collection."""

    store: TypesenseStore

    @property
    def native(self) -> str:
        """The collection's name in Typesense."""
        return native_name(self.name)

    @property
    def api(self) -> Api:
        """The requests that the store makes."""
        return self.store.api

    def _do_upsert(self, batch: RecordBatch, *, wait: bool) -> Mapping[str, Exception]:
        """Create documents; delete those that exist first, and never replace one.

        0.24.1 corrupts its graph where a request replaces the vectors of several documents, and now and then
        of one, after others were deleted: old vectors stay findable (see the adapter's tests). It seems to
        reuse the place of any deleted vector for one whose document keeps its number, and to lose track of
        both. A document that is created has a number that no other ever had.
        """
        pending = records.encode(batch, self.namespace, self.spec.metric)
        refused: dict[str, Exception] = {}
        for _ in range(_WRITES):
            answers = self.api.write(self.native, "create", list(pending.values()))
            failed = {
                id: _refusal(answer) for id, answer in zip(pending, answers, strict=True) if "error" in answer
            }
            there = [id for id, error in failed.items() if error.status == CONFLICT]
            refused.update((id, error) for id, error in failed.items() if error.status != CONFLICT)
            if not there:
                return refused
            self._do_delete(there)
            pending = {id: pending[id] for id in there}
        return refused | {id: failed[id] for id in there}  # another writer is always faster

    def _do_get(self, ids: list[str], fields: Fields) -> RecordBatch:
        found = self.api.export(self.native, filters.with_ids(self._documents(ids)), self._include(fields))
        return self._decode(found, fields)

    def _do_query(
        self, vectors: FloatArray, *, limit: int, filter: Filter | None, exact: bool, fields: Fields
    ) -> list[Hits]:
        # euclidean scores are computed from the vectors
        read = fields._replace(vectors=fields.vectors or self.spec.metric == "euclidean")
        queries = records.queries(vectors, self.spec.metric)
        flat = exact or self._always_flat()

        def ask(plan: Plan) -> list[list[Document]]:
            if plan.rest is not None:
                return [self._sift(query, limit, plan.native, plan.rest, read) for query in queries]
            found = self._search(queries, limit, plan.native, read, flat=flat)
            # a graph may fall apart, and a search ends where its part does: see whether there is no more
            short = [row for row, hits in enumerate(found) if len(hits) < limit]
            if short and not flat:
                again = self._search([queries[row] for row in short], limit, plan.native, read, flat=True)
                for row, hits in zip(short, again, strict=True):
                    found[row] = hits
            return found

        return [
            self._hits(hits, row, read) for hits, row in zip(self._ask(filter, ask), vectors, strict=True)
        ]

    def _search(
        self, queries: list[str], limit: int, native: str, fields: Fields, *, flat: bool
    ) -> list[list[Document]]:
        shared = self._shared(native, limit, fields)
        pages = range(1, 1 + -(-limit // MAX_PAGE))
        answers = self.api.search(
            [
                {**shared, "vector_query": self._vector_query(query, limit, flat=flat), "page": page}
                for query in queries
                for page in pages
            ]
        )
        return [[hit for _ in pages for hit in next(answers)["hits"]][:limit] for _ in queries]

    def _sift(self, query: str, limit: int, native: str, rest: Filter, fields: Fields) -> list[Document]:
        """Search for more and more until `limit` of the hits pass what the engine cannot test."""
        read = fields._replace(metadata=True)
        size = 4 * limit
        while True:
            [hits] = self._search([query], size, native, read, flat=True)
            passed = [hit for hit in hits if matches(rest, records.metadata_of(hit["document"]))]
            if len(passed) >= limit or len(hits) < size:
                return passed[:limit]
            size *= 4

    def _do_count(self, filter: Filter | None) -> int:
        def ask(plan: Plan) -> int:
            if plan.rest is None:
                return self.api.count(self.native, plan.native)
            pages = self._pages_of(plan, Fields(vectors=False, text=False, metadata=False))
            return sum(map(len, pages))

        return self._ask(filter, ask)

    def _do_scan(
        self, filter: Filter | None, fields: Fields, *, limit: int, cursor: Any
    ) -> tuple[RecordBatch, Any]:
        def ask(plan: Plan) -> Cursor:
            at = cursor or Cursor([], 0, self._slots(plan, READ_AT_ONCE))
            if at.waiting:
                return at
            return Cursor(self._read(plan, at.slot, at.width, fields), at.slot + at.width, at.width)

        at: Cursor = self._ask(filter, ask)
        rest = at._replace(waiting=at.waiting[limit:])
        done = not rest.waiting and rest.slot >= SLOTS
        return self._decode(at.waiting[:limit], fields), None if done else rest

    def _do_set_metadata(self, ids: list[str], metadatas: Sequence[Metadata]) -> None:
        documents = self._documents(ids)
        # companions that go must be named, so what the records have now must be known
        found = self.api.export(self.native, filters.with_ids(documents), self._include(_TEXT_READ))
        old = {document[records.KEY]: records.metadata_of(document) for document in found}
        lines = [
            records.change(self.namespace, id, old[id], metadata)
            for id, metadata in zip(ids, metadatas, strict=True)
            if id in old
        ]
        # without a vector in it, an update leaves the graph alone
        answers = self.api.write(self.native, "update", lines) if lines else []
        refused = [_refusal(answer) for answer in answers if "error" in answer]
        for error in refused:
            if error.status != MISSING:  # gone by now
                raise error

    def _do_delete(self, ids: list[str]) -> None:
        self.api.delete_ids(self.native, self._documents(ids))

    def _do_delete_where(self, filter: Filter | None) -> None:
        def ask(plan: Plan) -> None:
            if plan.rest is None and len(plan.native) <= MAX_URL_FILTER:
                width = self._slots(plan, DELETED_AT_ONCE)
                for first in range(0, SLOTS, width):
                    self.api.delete(self.native, in_slots(plan.native, first, first + width - 1))
                return
            for page in self._pages_of(plan, Fields(vectors=False, text=False, metadata=False)):
                for start in range(0, len(page), MAX_PAGE):
                    self._do_delete([document[records.KEY] for document in page[start : start + MAX_PAGE]])

        self._ask(filter, ask)

    def _do_explain(self, filter: Filter | None, *, limit: int, exact: bool) -> tuple[Any, tuple[str, ...]]:
        plan = filters.plan(self.namespace, filter)
        flat = exact or self._always_flat() or plan.rest is not None
        request = {
            **self._shared(plan.native, limit, Fields(vectors=False, text=True, metadata=True)),
            "vector_query": self._vector_query("[...]", limit, flat=flat),
        }
        notes = ["The namespace is a token in `tokens`, as are equality, membership and existence."]
        if any(f"{kind}_" in plan.native for kind in "nd"):
            notes.append("A range compares an integer that orders as the numbers or datetimes do.")
        if plan.rest is not None:
            notes.append(
                "The filter has too many conditions for the engine: polyvec tests it on the records."
            )
        if self.spec.metric == "euclidean":
            notes.append("The distance is computed from inner products, by brute force.")
        return request, tuple(notes)

    # What the hooks share -----------------------------------------------------------------------------

    def _ask(self, filter: Filter | None, request: Callable[[Plan], T]) -> T:
        """Make requests with a filter; where a companion has never been written, with it replaced."""
        try:
            return request(filters.plan(self.namespace, filter))
        except RefusedError as error:
            if not errors.lacks_field(error):
                raise
        known = {field["name"] for field in self.api.describe(self.native)["fields"]}
        return request(filters.plan(self.namespace, filter, known))

    def _read(self, plan: Plan, first: int, width: int, fields: Fields) -> list[Document]:
        """Return the documents of some slots, of which there are few."""
        native = in_slots(plan.native, first, first + width - 1)
        read = fields if plan.rest is None else fields._replace(metadata=True)
        get = self.api.export if len(native) <= MAX_URL_FILTER else self.api.find
        found = get(self.native, native, self._include(read))
        if plan.rest is None:
            return found
        return [document for document in found if matches(plan.rest, records.metadata_of(document))]

    def _pages_of(self, plan: Plan, fields: Fields) -> Iterator[list[Document]]:
        width = self._slots(plan, READ_AT_ONCE)
        for first in range(0, SLOTS, width):
            yield self._read(plan, first, width, fields)

    def _slots(self, plan: Plan, size: int) -> int:
        """Return how many slots hold about `size` of the documents that the engine finds."""
        return SLOTS * size // max(self.api.count(self.native, plan.native), size)

    def _shared(self, native: str, limit: int, fields: Fields) -> Document:
        return {
            "collection": self.native,
            "q": "*",
            "filter_by": native,
            "include_fields": self._include(fields),
            "per_page": min(limit, MAX_PAGE),
        }

    def _vector_query(self, vector: str, limit: int, *, flat: bool) -> str:
        """Return a search for the nearest; `k` is also how many candidates the graph keeps.

        https://typesense.org/docs/0.24.1/api/vector-search.html: with fewer documents left by the filter than
        `flat_search_cutoff`, all of them are compared.
        """
        if flat:
            return f"{records.VECTOR}:({vector}, k:{limit}, flat_search_cutoff:{ALL})"
        index = self.spec.index or DEFAULT_INDEX
        assert isinstance(index, HnswIndex)
        candidates = max(index.ef_search, 2 * limit)  # more than the last page ends with
        cutoff = min(FLAT_BELOW * candidates, ALL)
        return f"{records.VECTOR}:({vector}, k:{candidates}, flat_search_cutoff:{cutoff})"

    def _always_flat(self) -> bool:
        # the graph is built from inner products, of which no neighbourhood is a Euclidean one
        return isinstance(self.spec.index, FlatIndex) or self.spec.metric == "euclidean"

    def _documents(self, ids: list[str]) -> list[str]:
        return [document_id(self.namespace, id) for id in ids]

    def _include(self, fields: Fields) -> str:
        return records.fields_read(fields, self.spec.metric)

    def _decode(self, documents: Sequence[Document], fields: Fields) -> RecordBatch:
        return records.decode(documents, fields, self.spec.dimension, self.spec.metric)

    def _hits(self, hits: Sequence[Document], query: FloatArray, fields: Fields) -> Hits:
        batch = self._decode([hit["document"] for hit in hits], fields)
        return Hits(batch, self._scores(hits, query, batch))

    def _scores(
        self, hits: Sequence[Document], query: FloatArray, batch: RecordBatch
    ) -> npt.NDArray[np.float64]:
        if self.spec.metric == "euclidean":
            # the difference of products in float32 is nothing to take a root of
            assert batch.vectors is not None
            found: npt.NDArray[np.float64] = scores.exact("euclidean", query[None], batch.vectors)[0]
            return found
        distances = [hit["vector_distance"] for hit in hits]
        if None in distances:  # JSON has no infinity
            raise BackendError(errors.OVERFLOW)
        if self.spec.metric == "cosine":
            return scores.from_cosine_distance(distances)
        return scores.from_dot(1.0 - np.array(distances, np.float64))


def _refusal(answer: Document) -> RefusedError:
    return RefusedError(answer.get("code", 0), answer["error"])


def _numbers(version: str) -> tuple[int, ...]:
    """Return the numbers that a version begins with: none where it is that of a nightly build."""
    found = re.match(r"v?(\d+(?:\.\d+)*)", version)
    return tuple(map(int, found[1].split("."))) if found else ()


def _spec_field(spec_: CollectionSpec) -> str:
    encoded = base64.b32encode(spec.to_json(spec_).encode()).decode()
    return SPEC_PREFIX + encoded.rstrip("=").lower()


def _spec_text(description: Document) -> str | None:
    names = [field["name"] for field in description["fields"] if field["name"].startswith(SPEC_PREFIX)]
    if len(names) != 1:
        return None
    encoded = names[0].removeprefix(SPEC_PREFIX).upper()
    return base64.b32decode(encoded + "=" * (-len(encoded) % 8)).decode()


def _spec_of(description: Document) -> CollectionSpec | None:
    text = _spec_text(description)
    return None if text is None else spec.from_json(text)


def native_name(name: str) -> str:
    """Return the collection's name in Typesense; in a URL "." and ".." are places in the path."""
    return f"~{name}" if name in (".", "..") else name


def public_name(name: str) -> str:
    """Return the name that `native_name` made this of; no name of ours begins with a tilde."""
    return name.removeprefix("~")
