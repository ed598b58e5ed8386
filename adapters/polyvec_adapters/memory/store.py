"""The memory store: brute force with numpy, filters by `filters.matches`."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from typing import Any, ClassVar, NamedTuple

import numpy as np

from polyvec import metadata as metadata_codec
from polyvec import scores
from polyvec.base import BaseCollection, BaseVectorStore, Fields, Hits
from polyvec.errors import CollectionExistsError, CollectionNotFoundError, ConfigurationError, PolyvecError
from polyvec.filters import Filter, matches
from polyvec.types import CollectionSpec, FloatArray, Metadata, RecordBatch


class Row(NamedTuple):
    """A record as it is kept: the metadata as a string too, so that no caller can change it."""

    vector: FloatArray
    text: str | None
    blob: str
    metadata: dict[str, Any]


class Space:
    """The records of one namespace; a new object after each write, so that reads need no lock."""

    def __init__(self, rows: dict[str, Row]) -> None:
        self.rows = rows

    @cached_property
    def matrix(self) -> FloatArray:
        """All vectors, shape (n, d), in the order of `rows`."""
        return np.stack([row.vector for row in self.rows.values()])


@dataclass
class Table:
    """A collection: its spec and its namespaces."""

    spec: CollectionSpec
    spaces: dict[str, Space] = field(default_factory=lambda: defaultdict(lambda: Space({})))


class MemoryStore(BaseVectorStore):
    """All records in this process."""

    _shared: ClassVar[dict[str, dict[str, Table]]] = {}
    lock: ClassVar = threading.RLock()
    """Held while a namespace is changed; one for all, because two stores may share their tables."""

    def _do_connect(self) -> None:
        url = self.config.url
        if url.path or len(url.hosts) > 1:
            raise ConfigurationError("write memory:// (a store of its own) or memory://name (shared)")
        name = url.hosts[0].name if url.hosts else None
        self.tables = {} if name is None else self._shared.setdefault(name, {})

    def _do_version(self) -> str:
        return f"numpy {np.__version__}"

    def _do_create(self, spec: CollectionSpec) -> None:
        if self.tables.setdefault(spec.name, table := Table(spec)) is not table:
            raise CollectionExistsError("it exists already")

    def _do_open(self, name: str) -> CollectionSpec | None:
        return self.tables[name].spec if name in self.tables else None

    def _do_list(self) -> list[str]:
        return list(self.tables)

    def _do_drop(self, name: str) -> None:
        self.tables.pop(name, None)

    def _do_close(self) -> None:
        self.tables = {}

    def _collection(self, spec: CollectionSpec) -> MemoryCollection:
        return MemoryCollection(self, spec)

    def _translate(self, error: Exception) -> PolyvecError | None:
        return None

    @property
    def native(self) -> dict[str, Table]:
        """The tables by name."""
        return self.tables


class MemoryCollection(BaseCollection):
    """One namespace of a table."""

    store: MemoryStore

    def _table(self) -> Table:
        try:
            return self.store.tables[self.name]
        except KeyError:
            raise CollectionNotFoundError("it was dropped") from None

    @property
    def _space(self) -> Space:
        # not [...], which would write: a read could put an empty namespace over one that is just written
        return self._table().spaces.get(self.namespace) or Space({})

    @property
    def _rows(self) -> dict[str, Row]:
        return self._space.rows

    def _change(self, changes: dict[str, Row], removed: Iterable[str] = ()) -> None:
        with self.store.lock:
            rows = self._rows | changes
            for id in removed:
                rows.pop(id, None)
            self._table().spaces[self.namespace] = Space(rows)

    def _do_upsert(self, batch: RecordBatch, *, wait: bool) -> None:
        assert batch.vectors is not None
        assert batch.texts is not None
        assert batch.metadatas is not None
        blobs = map(metadata_codec.encode, batch.metadatas)
        self._change(
            {
                id: Row(vector.copy(), text, blob, metadata_codec.decode(blob))
                for id, vector, text, blob in zip(batch.ids, batch.vectors, batch.texts, blobs, strict=True)
            }
        )

    def _do_get(self, ids: list[str], fields: Fields) -> RecordBatch:
        rows = self._rows
        return self._batch({id: rows[id] for id in ids if id in rows}, fields)

    def _do_query(
        self, vectors: FloatArray, *, limit: int, filter: Filter | None, exact: bool, fields: Fields
    ) -> list[Hits]:
        space = self._space
        rows = list(space.rows.items())
        kept = np.array([i for i, (_, row) in enumerate(rows) if matches(filter, row.metadata)], np.intp)
        if not len(kept):
            return [Hits(self._batch({}, fields), np.empty(0)) for _ in vectors]
        found = scores.exact(self.spec.metric, vectors, space.matrix[kept])
        hits = []
        for line in found:
            best = np.argsort(-line, kind="stable")[:limit]
            hits.append(Hits(self._batch(dict(rows[kept[i]] for i in best), fields), line[best]))
        return hits

    def _do_count(self, filter: Filter | None) -> int:
        return sum(matches(filter, row.metadata) for row in self._rows.values())

    def _do_scan(
        self, filter: Filter | None, fields: Fields, *, limit: int, cursor: Any
    ) -> tuple[RecordBatch, Any]:
        rows = cursor or iter(self._rows.items())
        page = dict(islice(((id, row) for id, row in rows if matches(filter, row.metadata)), limit))
        return self._batch(page, fields), rows if len(page) == limit else None

    def _do_set_metadata(self, ids: list[str], metadatas: Sequence[Metadata]) -> None:
        blobs = dict(zip(ids, map(metadata_codec.encode, metadatas), strict=True))
        with self.store.lock:
            rows = self._rows
            self._change(
                {
                    id: rows[id]._replace(blob=blob, metadata=metadata_codec.decode(blob))
                    for id, blob in blobs.items()
                    if id in rows
                }
            )

    def _do_delete(self, ids: list[str]) -> None:
        self._change({}, ids)

    def _do_delete_where(self, filter: Filter | None) -> None:
        with self.store.lock:
            self._change({}, [id for id, row in self._rows.items() if matches(filter, row.metadata)])

    def _do_explain(self, filter: Filter | None, *, limit: int, exact: bool) -> tuple[Any, tuple[str, ...]]:
        return {"filter": filter, "limit": limit}, ("Compares with every record.",)

    def _batch(self, rows: dict[str, Row], fields: Fields) -> RecordBatch:
        found = rows.values()
        dimension = self.spec.dimension
        vectors = np.array([row.vector for row in found], np.float32).reshape(len(rows), dimension)
        return RecordBatch(
            list(rows),
            vectors if fields.vectors else None,
            [row.text for row in found] if fields.text else None,
            [metadata_codec.decode(row.blob) for row in found] if fields.metadata else None,
        )
