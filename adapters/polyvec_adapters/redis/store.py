"""The Redis store: a hash for each record and a search index for each collection.

Layout: `tables` says how a collection lies in Redis, `records` what is in the hash of a record.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import redis
from redis.backoff import NoBackoff
from redis.exceptions import ResponseError
from redis.retry import Retry

from polyvec import scores
from polyvec.base import BaseCollection, BaseVectorStore, Fields, Hits
from polyvec.errors import (
    BackendError,
    CollectionExistsError,
    CollectionNotFoundError,
    ForeignCollectionError,
    PolyvecError,
)
from polyvec.filters import Filter
from polyvec.types import CollectionSpec, FloatArray, Metadata, RecordBatch
from polyvec_adapters.redis import RedisConfig, errors, filters, records, replies, tables
from polyvec_adapters.redis.filters import Condition
from polyvec_adapters.redis.tables import COLLECTIONS, SCORE, Command, Table

MOST_ROWS: Final = 9_999
"""Most records of one page of a scan, for which one more is asked: some servers allow 10,000
(https://redis.io/docs/latest/develop/ai/search-and-query/administration/: MAXSEARCHRESULTS)."""

DROPPED: Final = "dropped"
"""The generation of a collection that is gone; no other is called so."""

_DISTANCES: Final[dict[str, Callable[[Any], scores.Floats]]] = {
    "cosine": scores.from_cosine_distance,
    "dot": lambda distance: scores.from_dot(1.0 - distance),  # "IP" is 1 - the inner product
    "euclidean": scores.from_squared_distance,  # "L2" is squared
}


class RedisStore(BaseVectorStore):
    """Collections of a Redis server."""

    config: RedisConfig

    def _do_connect(self) -> None:
        config = self.config
        assert config.host is not None
        self._tables: dict[str, Table] = {}
        self._client = redis.Redis(
            host=config.host.name,
            port=config.host.port or 6379,
            username=config.user,
            password=config.api_key or config.password,
            protocol=3,  # of the two, the one in which a search says that it did not get through
            socket_timeout=config.timeout_s,
            socket_connect_timeout=config.timeout_s,
            retry=Retry(NoBackoff(), 0),  # the core tries again
            ssl=config.encrypted,
            ssl_ca_certs=config.ca_certs,
        )
        with contextlib.ExitStack() as cleanup:
            cleanup.callback(self._client.close)
            hello, _ = self.ask(["HELLO", 3], ["FT._LIST"])
            replies.check_server(hello)
            cleanup.pop_all()

    def _do_version(self) -> str:
        hello = self.ask(["HELLO", 3])[0]
        version: str = hello[b"version"].decode()
        search = replies.search_version(hello)
        return f"{version} with search {'.'.join(map(str, search))}" if search else version

    def _do_create(self, spec: CollectionSpec) -> None:
        table = Table(spec, secrets.token_hex(4), tables.hinted(spec))
        self.ask(tables.create(table))
        [made] = self.ask(["HSETNX", COLLECTIONS, spec.name, table.entry()])
        if not made:
            self.ask(["FT.DROPINDEX", table.index])
            raise CollectionExistsError("it exists already")
        self._tables[spec.name] = table

    def _do_open(self, name: str) -> CollectionSpec | None:
        [entry] = self.ask(["HGET", COLLECTIONS, name])
        known = self._tables.get(name)
        if entry is None:
            if name.encode() in self.ask(["FT._LIST"])[0]:
                raise ForeignCollectionError("an index has this name, but polyvec did not create it")
            return None
        table = known if known is not None and known.is_entry(entry) else tables.from_entry(entry)
        self._tables[name] = table
        return table.spec

    def _do_list(self) -> list[str]:
        return [name.decode() for name in self.ask(["HKEYS", COLLECTIONS])[0]]

    def _do_drop(self, name: str) -> None:
        [entry] = self.ask(["HGET", COLLECTIONS, name])
        if entry is None:
            return
        table = tables.from_entry(entry)
        # the index first: were it left behind, there would be no name to drop it by
        [dropped] = self.send(["FT.DROPINDEX", table.index, "DD"])
        if isinstance(dropped, Exception) and not errors.missing_index(dropped):
            raise dropped
        self.ask(["HDEL", COLLECTIONS, name])

    def _do_close(self) -> None:
        self._client.close()

    def _collection(self, spec: CollectionSpec) -> RedisCollection:
        return RedisCollection(self, spec)

    def _translate(self, error: Exception) -> PolyvecError | None:
        return errors.translate(error)

    @property
    def native(self) -> redis.Redis:
        """The driver's client."""
        return self._client

    def table(self, spec: CollectionSpec) -> Table:
        """Return the table of a collection that was created or opened here; nothing is sent."""
        table = self._tables.get(spec.name)
        return table if table is not None and table.spec == spec else Table(spec, DROPPED)

    def send(self, *commands: Command) -> list[Any]:
        """Send commands in one go and return the answers, errors among them."""
        with self._client.pipeline(transaction=False) as pipeline:
            for command in commands:
                pipeline.execute_command(*command)  # type: ignore[no-untyped-call]
            return pipeline.execute(raise_on_error=False)

    def ask(self, *commands: Command) -> list[Any]:
        """Send commands in one go and return the answers; raise the first error among them."""
        if len(commands) == 1:
            return [self._client.execute_command(*commands[0])]  # type: ignore[no-untyped-call]
        answers = self.send(*commands)
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
        return answers


class RedisCollection(BaseCollection):
    """One namespace of a Redis collection."""

    store: RedisStore

    def __init__(self, store: BaseVectorStore, spec: CollectionSpec, namespace: str = "") -> None:
        super().__init__(store, spec, namespace)
        self._table = self.store.table(spec)

    @property
    def native(self) -> str:
        """Name of the search index."""
        return self._table.index

    def _do_upsert(self, batch: RecordBatch, *, wait: bool) -> Mapping[str, Exception]:
        keys = [self._key(id) for id in batch.ids]
        assert batch.metadatas is not None
        numbers = [records.companions(metadata) for metadata in batch.metadatas]
        fields = self._learn(numbers)
        rows = records.encode(batch, self.namespace, self.spec.metric, numbers, fields)
        commands: list[Command] = []
        for key, pairs in zip(keys, rows, strict=True):
            commands += (["MULTI"], ["DEL", key], ["HSET", key, *pairs], ["EXEC"])
        *answers, indexed = self.store.send(*commands, self._indexed(keys))
        refused = {
            id: error
            for row, id in enumerate(batch.ids)
            if (error := replies.first_error(answers[4 * row : 4 * row + 4])) is not None
        }
        if errors.missing_index(indexed):  # dropped meanwhile, so nobody else will ever see these
            self.store.ask(*(["UNLINK", key] for key in keys))
        if replies.total(indexed) < len(keys) - len(refused):
            refused |= self._not_indexed([id for id in batch.ids if id not in refused])
        return refused

    def _do_get(self, ids: list[str], fields: Fields) -> RecordBatch:
        names = records.names(fields, self.spec.metric)
        found = self._ask_records(["HMGET", self._key(id), *names] for id in ids)
        columns = [name.encode() for name in names]
        rows = {
            id: dict(zip(columns, row, strict=True)) for id, row in zip(ids, found, strict=True) if row[0]
        }
        return self._decode(list(rows), list(rows.values()), fields)

    def _do_query(
        self, vectors: FloatArray, *, limit: int, filter: Filter | None, exact: bool, fields: Fields
    ) -> list[Hits]:
        condition = self._native(filter)
        rows = records.encode_vectors(vectors, self.spec.metric)[0]
        found = self._nearest(rows, limit, condition, fields, exact=exact)
        # a search ends where the part of the graph that it is in does: see whether there is really no more
        short = [row for row, hits in enumerate(found) if len(hits.records) < limit]
        if short and not exact and self._table.graph is not None:
            again = self._nearest([rows[row] for row in short], limit, condition, fields, exact=True)
            for row, hits in zip(short, again, strict=True):
                found[row] = hits
        return found

    def _nearest(
        self, vectors: list[bytes], limit: int, condition: Condition, fields: Fields, *, exact: bool
    ) -> list[Hits]:
        """Search with each vector, by the graph or by brute force.

        A condition on the namespace slows a search by the graph down to half. If the nearest of all records
        are of this namespace, they are its nearest, so the condition is left out as long as that is so.
        """
        table = self._table
        names = [SCORE, *records.names(fields, self.spec.metric)]
        options = ("SORTBY", SCORE, "ASC", "LIMIT", 0, limit, "RETURN", len(names), *names)

        def ask(namespace: str | None) -> list[Any]:
            wanted = filters.query(namespace, condition.text)
            query = tables.nearest(table, wanted, limit, exact=exact)
            parameters = condition.parameters
            return self.store.ask(
                *(self._search(query, ["vector", vector, *parameters], *options) for vector in vectors)
            )

        found = ask(self.namespace if exact or table.shared else None)
        if not all(replies.within(self._key(""), answer) for answer in found):
            table.shared = True
            found = ask(self.namespace)
        return [self._hits(answer, fields) for answer in found]

    def _do_count(self, filter: Filter | None) -> int:
        condition = self._native(filter)
        query = filters.query(self.namespace, condition.text)
        return replies.total(*self.store.ask(self._search(query, condition.parameters, "LIMIT", 0, 0)))

    def _do_scan(
        self, filter: Filter | None, fields: Fields, *, limit: int, cursor: Any
    ) -> tuple[RecordBatch, Any]:
        condition = self._native(filter)
        limit = min(limit, MOST_ROWS)
        names = records.names(fields, self.spec.metric)
        # one more, in case that two records have the same position
        options = ("LIMIT", 0, limit + 1, "RETURN", len(names), *names)
        start, width = cursor or (0, records.POSITIONS)
        while True:
            stop = min(start + width, records.POSITIONS)
            positions = f"@{records.POSITION}:[{start} ({stop}]"
            query = filters.query(self.namespace, condition.text, positions)
            [found] = self.store.ask(self._search(query, condition.parameters, *options))
            total = replies.total(found)
            if total <= limit or width == 1:
                break
            width = max(1, width * limit * 4 // (total * 5))
        wider = 2 * width if 2 * total < limit else width
        page = self._decode(*replies.rows(found, self._key("")), fields)
        return page, (stop, wider) if stop < records.POSITIONS else None

    def _do_set_metadata(self, ids: list[str], metadatas: Sequence[Metadata]) -> None:
        numbers = [records.companions(metadata) for metadata in metadatas]
        fields = self._learn(numbers)
        self._ask_records(
            [
                *("EVAL", records.SET_METADATA, 1, self._key(id)),
                *records.metadata_pairs(metadata, companions, fields),
            ]
            for id, metadata, companions in zip(ids, metadatas, numbers, strict=True)
        )

    def _do_delete(self, ids: list[str]) -> None:
        self._ask_records(["UNLINK", self._key(id)] for id in ids)

    def _do_delete_where(self, filter: Filter | None) -> None:
        nothing = Fields(vectors=False, text=False, metadata=False)
        cursor = None
        while True:
            batch, cursor = self._do_scan(filter, nothing, limit=self._scan_limit(), cursor=cursor)
            self._do_delete(list(batch.ids))
            if cursor is None:
                return

    def _do_explain(self, filter: Filter | None, *, limit: int, exact: bool) -> tuple[Any, tuple[str, ...]]:
        condition = self._native(filter)
        query = filters.query(self.namespace, condition.text)
        native = self._search(
            tables.nearest(self._table, query, limit, exact=exact),
            ["vector", "...", *condition.parameters],
            *("SORTBY", SCORE, "ASC", "LIMIT", 0, limit),
        )
        notes = ["The namespace is a tag in 'ns', left out until a search meets records of another one."]
        if filter is not None:
            notes.append("Equality, membership and existence are tests for hashed tokens in 'tok'.")
        if filter is not None and filters.range_fields(filter):
            notes.append(
                "A range compares a numeric field of its key; where there is none, hashed intervals."
            )
        return native, tuple(notes)

    # What the hooks share -----------------------------------------------------------------------------

    def _key(self, id: str) -> str:
        return f"{self._table.prefix}{self.namespace}:{id}"

    def _search(self, query: str, parameters: Sequence[str | bytes], *options: Any) -> Command:
        return tables.search(self._table, query, parameters, self.store.config.timeout_s, *options)

    def _ask_records(self, commands: Iterable[Command]) -> list[Any]:
        """Send commands about single records, and see that the collection is still there."""
        *answers, entry = self.store.ask(*commands, ["HGET", COLLECTIONS, self.name])
        if not self._table.is_entry(entry):
            raise CollectionNotFoundError("it was dropped")
        return answers

    def _native(self, filter: Filter | None) -> Condition:
        if filter is None:
            return Condition("")
        known = self._table.numeric
        if not known >= filters.range_fields(filter):
            known = tables.numeric_of(self.store.ask(["FT.INFO", self._table.index])[0])
            self._table.numeric = known
        return filters.to_native(filter, known)

    def _learn(self, numbers: Iterable[Mapping[str, float]]) -> frozenset[str]:
        """Add the fields of these companions to the index, as far as there is room; return all that it has.

        Another thread may set the table's back to what it saw earlier: writers go by what this returns.
        """
        fields = {field for each in numbers for field in each}
        known = self._table.numeric
        while missing := tables.missing(fields, known):
            added, info = self.store.send(tables.alter(self._table, missing), ["FT.INFO", self._table.index])
            if isinstance(info, Exception):
                raise info
            found = tables.numeric_of(info)
            # one field that is there already is an error for all; then somebody else was faster
            if isinstance(added, Exception) and found == known:
                raise added
            self._table.numeric = known = found
        return known

    def _indexed(self, keys: Sequence[str], *options: Any) -> Command:
        return self._search("*", [], "INKEYS", len(keys), *keys, "NOCONTENT", *(options or ("LIMIT", 0, 0)))

    def _not_indexed(self, ids: list[str]) -> dict[str, Exception]:
        """Return an error for each record that was written but not indexed, and delete it.

        The engine leaves out a hash with a field that it cannot read, and says so only in FT.INFO.
        """
        keys = {self._key(id): id for id in ids}
        found, info = self.store.ask(
            self._indexed(list(keys), "LIMIT", 0, len(keys)), ["FT.INFO", self._table.index]
        )
        there = {row[b"id"].decode() for row in found[b"results"]}
        left = [key for key in keys if key not in there]
        existing = self.store.ask(*(["UNLINK", key] for key in left))  # 0 where somebody deleted it
        reason = info.get(b"Index Errors", {}).get(b"last indexing error", b"").decode(errors="replace")
        return {
            keys[key]: ResponseError(f"the engine did not index it: {reason}")
            for key, existed in zip(left, existing, strict=True)
            if existed
        }

    def _hits(self, answer: Any, fields: Fields) -> Hits:
        ids, rows = replies.rows(answer, self._key(""))
        distances = np.array([float(row[SCORE.encode()] or b"nan") for row in rows])
        found = _DISTANCES[self.spec.metric](distances)
        if not np.isfinite(found).all():
            raise BackendError(errors.OVERFLOW)
        return Hits(self._decode(ids, rows, fields), found)

    def _decode(self, ids: list[str], rows: Sequence[records.Row], fields: Fields) -> RecordBatch:
        return records.decode(ids, rows, fields, self.spec.dimension, self.spec.metric)
