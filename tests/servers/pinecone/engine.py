"""Indexes and namespaces: a log of writes each, and what reads see of it."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import orjson

from tests.servers.pinecone.conditions import Condition, FilterError, compile_filter
from tests.servers.pinecone.rules import (
    DEFAULT_NAMESPACE,
    MAX_ANSWER_BYTES,
    MAX_FILTER_PAGE,
    MAX_IDS,
    MAX_PAGE,
    MAX_TOP_K,
    MAX_UPSERT,
    MAX_UPSERT_BYTES,
    Body,
    RefusedError,
    Values,
    check_id,
    check_index,
    check_limit,
    check_metadata,
    check_size,
    check_values,
    fields,
    namespace_of,
    require,
)


class Stored(NamedTuple):
    """A record."""

    values: Values
    metadata: Body


class Answer(NamedTuple):
    """What a request gets: a body, and LSNs for the headers.

    `kept` is what a write comes to in the log, where that is not the request itself.
    """

    body: Any
    written_lsn: int | None = None
    indexed_lsn: int | None = None
    status: int = 200
    kept: tuple[str, Body] | None = None


class Namespace:
    """A log, and the records as of the last write that is indexed.

    Attributes:
        committed: LSN of the last write.
        indexed: LSN of the last write that reads see.
        records: What they see.
    """

    def __init__(self, lag: int) -> None:
        self._lag = lag
        self._pending: deque[tuple[int, Callable[[dict[str, Stored]], None]]] = deque()
        self._reads = 0
        self._matrix: Values | None = None
        self._masks: dict[bytes, Any] = {}
        self.committed = 0
        self.indexed = 0
        self.records: dict[str, Stored] = {}

    def write(self, change: Callable[[dict[str, Stored]], None]) -> int:
        """Append to the log and return the LSN."""
        self.committed += 1
        self._pending.append((self._reads + self._lag, change))
        if not self._lag:
            self.index_all()
        return self.committed

    def read(self) -> None:
        """Take note of a read, before it is answered: some writes become visible."""
        while self._pending and self._pending[0][0] <= self._reads:
            self._apply()
        self._reads += 1

    def index_all(self) -> None:
        """Make all writes visible."""
        while self._pending:
            self._apply()

    def _apply(self) -> None:
        _, change = self._pending.popleft()
        change(self.records)
        self.indexed += 1
        self._matrix = None
        self._masks.clear()

    def matrix(self) -> Values:
        """Return all vectors, in the order of `records`."""
        if self._matrix is None:
            self._matrix = np.stack([record.values for record in self.records.values()])
        return self._matrix

    def mask(self, filter: Body, condition: Condition) -> Any:
        """Return for which records a filter holds, as an engine that indexes metadata knows at once."""
        key = orjson.dumps(filter)
        if key not in self._masks:
            self._masks[key] = np.array(
                [condition(record.metadata) for record in self.records.values()], bool
            )
        return self._masks[key]


@dataclass
class Index:
    """A classic dense index."""

    name: str
    serial: int
    dimension: int
    metric: str
    deployment: Body
    tags: Body
    protected: bool
    namespaces: dict[str, Namespace] = field(default_factory=dict)
    looks: int = 0
    """How often it must still be described before it is ready, or gone."""
    terminating: bool = False


class Engine:
    """A project. Every public method is one request, and holds the lock."""

    def __init__(
        self, data: Path | None, *, lag: int, missing_matches: bool = False, unknown_missing: bool = False
    ) -> None:
        self.lock = threading.RLock()
        self._lag = lag
        self._missing_matches = missing_matches
        self._unknown_missing = unknown_missing
        self._indexes: dict[str, Index] = {}
        self._serial = 0
        self._log: BinaryIO | None = None
        if data is not None:
            data.mkdir(parents=True, exist_ok=True)
            self._replay(data / "log")
            self._log = (data / "log").open("ab")

    def close(self) -> None:
        """Close the log."""
        if self._log is not None:
            self._log.close()

    # Durability: every change is a line in a file before it is answered --------------------------------

    def _keep(self, *entry: Any) -> None:
        if self._log is not None:
            self._log.write(orjson.dumps(entry) + b"\n")
            self._log.flush()

    def _replay(self, path: Path) -> None:
        if not path.exists():
            return
        whole = path.read_bytes()
        complete = whole[: whole.rfind(b"\n") + 1]  # a line may have been cut by a crash
        path.write_bytes(complete)
        for line in complete.splitlines():
            match orjson.loads(line):
                case ["create", body]:
                    self.create(body)
                case ["drop", name]:
                    del self._indexes[name]
                case [operation, name, body]:
                    WRITES[operation](self, self._indexes[name], body)
        for index in self._indexes.values():
            index.looks = 0
            for namespace in index.namespaces.values():
                namespace.index_all()

    # Control plane ------------------------------------------------------------------------------------

    def create(self, body: Any) -> Index:
        """Make an index."""
        name, dimension, metric, deployment, tags = check_index(body)
        require(name not in self._indexes, "Resource already exists.", 409)
        self._keep("create", body)
        self._serial += 1
        protected = body.get("deletion_protection") == "enabled"
        index = Index(name, self._serial, dimension, metric, deployment, tags, protected, looks=self._lag)
        self._indexes[name] = index
        return index

    def describe(self, name: str) -> Index:
        """Return an index, a step nearer to what it is becoming."""
        index = self._find(name)
        if index.looks == 0 and index.terminating:
            del self._indexes[name]
            return self._find(name)
        index.looks = max(0, index.looks - 1)
        return index

    def list_indexes(self) -> list[Index]:
        """Return all indexes."""
        return list(self._indexes.values())

    def drop(self, name: str) -> None:
        """Begin to delete an index."""
        index = self._find(name)
        require(not index.protected, "Deletion protection is enabled for this index.", 403)
        if not index.terminating:
            self._keep("drop", name)
            index.terminating, index.looks = True, self._lag

    def _find(self, name: str) -> Index:
        require(name in self._indexes, f"Resource {name} not found", 404)
        return self._indexes[name]

    def at(self, host: str) -> Index:
        """Return the index that has this address: one that is not on its way out."""
        name, _, serial = host.rpartition("-")
        index = self._indexes.get(name)
        if index is None or str(index.serial) != serial or index.terminating:
            raise RefusedError(404, "no index has this address")
        return index

    # Data plane: writes -------------------------------------------------------------------------------

    def write(self, operation: str, index: Index, body: Any) -> Answer:
        """Do what a request says, and keep it."""
        answer = WRITES[operation](self, index, body)
        if answer.written_lsn is not None:
            operation, body = answer.kept or (operation, body)
            self._keep(operation, index.name, body)
        return answer

    def _upsert(self, index: Index, body: Any) -> Answer:
        found = fields(body, {"vectors": list}, {"namespace": str})
        vectors = found["vectors"]
        require(1 <= len(vectors) <= MAX_UPSERT, f"an upsert takes 1 to {MAX_UPSERT} vectors")
        namespace = namespace_of(found.get("namespace", ""))
        new: dict[str, Stored] = {}
        for vector in vectors:
            fields(vector, {"id": str, "values": list}, {"metadata": dict})
            check_id(vector["id"])
            require(vector["id"] not in new, "the same id stands twice in one request")
            metadata = check_metadata(vector.get("metadata", {}))
            check_size(metadata)
            new[vector["id"]] = Stored(check_values(vector["values"], index.dimension), metadata)
        space = index.namespaces.setdefault(namespace, Namespace(self._lag))
        return Answer({"upsertedCount": len(new)}, space.write(lambda records: records.update(new)))

    def _update(self, index: Index, body: Any) -> Answer:
        found = fields(
            body,
            {},
            {
                "id": str,
                "values": list,
                "setMetadata": dict,
                "namespace": str,
                "filter": dict,
                "dryRun": bool,
            },
        )
        require(("id" in found) != ("filter" in found), "exactly one of id and filter")
        change = check_metadata(found.get("setMetadata", {}))
        space = self._existing(index, found)
        if "filter" in found:
            require(
                "values" not in found, "Update by metadata request does not support updating vector values"
            )
            holds = self._condition(found["filter"], "Update with empty metadata filter is not allowed")
            space.read()
            matched = sum(holds(record.metadata) for record in space.records.values())
            if found.get("dryRun"):
                return Answer({"matchedRecords": matched})
            for record in space.records.values():
                if holds(record.metadata):
                    check_size(record.metadata | change)
            return Answer({"matchedRecords": matched}, space.write(_change_where(holds, change)))
        require(not found.get("dryRun"), "dryRun needs a filter")
        check_id(found["id"])
        values = check_values(found["values"], index.dimension) if "values" in found else None
        if (old := space.records.get(found["id"])) is not None:
            check_size(old.metadata | change)
        return Answer({}, space.write(_change_one(found["id"], values, change)))

    def _delete(self, index: Index, body: Any) -> Answer:
        found = fields(body, {}, {"ids": list, "deleteAll": bool, "filter": dict, "namespace": str})
        given = [name for name in ("ids", "deleteAll", "filter") if found.get(name)]
        require(found.get("filter", 1), "Delete with empty metadata filter is not allowed")
        require(len(given) == 1, "exactly one of ids, deleteAll and filter")
        space = self._existing(index, found)
        if "ids" in given:
            ids = found["ids"]
            require(len(ids) <= MAX_IDS, f"at most {MAX_IDS} ids")
            for id in ids:
                check_id(id)
            return self._remove(index, found)
        if "filter" in given:
            holds = self._condition(found["filter"], "")
            space.read()  # only what is indexed is found
            ids = [id for id, record in space.records.items() if holds(record.metadata)]
            removal = {"ids": ids, "namespace": found.get("namespace", "")}
            return self._remove(index, removal)._replace(kept=("remove", removal))
        return Answer({}, space.write(lambda records: records.clear()))

    def _remove(self, index: Index, body: Body) -> Answer:
        """Delete any number of records by id."""

        def apply(records: dict[str, Stored]) -> None:
            for id in body["ids"]:
                records.pop(id, None)

        return Answer({}, self._existing(index, body).write(apply))

    def _existing(self, index: Index, body: Body) -> Namespace:
        name = namespace_of(body.get("namespace", ""))
        require(name in index.namespaces, "Namespace not found", 404)
        return index.namespaces[name]

    def _condition(self, filter: Any, empty: str) -> Condition:
        require(filter, empty)
        try:
            return compile_filter(filter, missing_matches=self._missing_matches)
        except FilterError as error:
            raise RefusedError(400, f"Invalid filter: {error}") from None

    # Data plane: reads --------------------------------------------------------------------------------

    def query(self, index: Index, body: Any) -> Answer:
        """Return the nearest records."""
        found = fields(
            body,
            {"topK": int},
            {
                "namespace": str,
                "filter": dict,
                "includeValues": bool,
                "includeMetadata": bool,
                "vector": list,
                "id": str,
            },
        )
        require(1 <= found["topK"] <= MAX_TOP_K, f"topK must be 1 to {MAX_TOP_K}")
        require(("vector" in found) != ("id" in found), "exactly one of vector and id")
        namespace = namespace_of(found.get("namespace", ""))
        condition = self._condition(found["filter"], "the filter is empty") if "filter" in found else None
        space = self._reading(index, namespace)
        if "id" in found:
            check_id(found["id"])
            require(found["id"] in space.records, f"Vector {found['id']} not found", 404)
            vector = space.records[found["id"]].values
        else:
            vector = check_values(found["vector"], index.dimension)
        matches = []
        for id, record, score in _nearest(
            index, space, vector, found.get("filter"), condition, found["topK"]
        ):
            match: Body = {"id": id, "score": score, "values": []}
            if found.get("includeValues"):
                match["values"] = record.values
            if found.get("includeMetadata"):
                match["metadata"] = record.metadata
            matches.append(match)
        body = {"results": [], "matches": matches, "namespace": namespace, "usage": {"readUnits": 1}}
        return _limited(Answer(body, indexed_lsn=space.indexed or None))

    def fetch(self, index: Index, ids: list[str], namespace: str) -> Answer:
        """Return records by id."""
        require(1 <= len(ids) <= MAX_IDS, f"1 to {MAX_IDS} ids")
        for id in ids:
            check_id(id)
        space = self._reading(index, namespace)
        found = {id: space.records[id] for id in ids if id in space.records}
        return _limited(Answer(_records(found.items(), namespace)))

    def fetch_by_metadata(self, index: Index, body: Any) -> Answer:
        """Return a page of the records that a filter holds for."""
        found = fields(body, {"filter": dict}, {"namespace": str, "limit": int, "paginationToken": str})
        limit = check_limit(found.get("limit", 100), MAX_FILTER_PAGE)
        holds = self._condition(found["filter"], "Empty filter provided for fetch by metadata request")
        space = self._reading(index, found.get("namespace", ""))
        after = found.get("paginationToken", "")
        rows = sorted(item for item in space.records.items() if item[0] > after and holds(item[1].metadata))
        body = _records(rows[:limit], found.get("namespace", ""))
        if len(rows) > limit:
            body["pagination"] = {"next": rows[limit - 1][0]}
        return _limited(Answer(body))

    def list_ids(self, index: Index, namespace: str, prefix: str, limit: int, token: str) -> Answer:
        """Return a page of the ids."""
        check_limit(limit, MAX_PAGE)
        space = self._reading(index, namespace)
        ids = sorted(id for id in space.records if id > token and id.startswith(prefix))
        body: Body = {"vectors": [{"id": id} for id in ids[:limit]], "namespace": namespace}
        body["usage"] = {"readUnits": 1}
        if len(ids) > limit:
            body["pagination"] = {"next": ids[limit - 1]}
        return Answer(body)

    def stats(self, index: Index, body: Any) -> Answer:
        """Return how many records there are."""
        found = fields(body, {}, {"filter": dict})
        require("filter" not in found, "Serverless indexes do not support describing stats with a filter")
        counts = {}
        for name, space in index.namespaces.items():
            space.read()
            counts[name] = {"vectorCount": len(space.records)}
        return Answer(
            {
                "namespaces": counts,
                "dimension": index.dimension,
                "indexFullness": 0,
                "totalVectorCount": sum(count["vectorCount"] for count in counts.values()),
                "metric": index.metric,
                "vectorType": "dense",
            }
        )

    def _reading(self, index: Index, name: str) -> Namespace:
        space = index.namespaces.get(namespace_of(name)) or Namespace(0)
        space.read()
        require(space.indexed or not self._unknown_missing, "Namespace not found", 404)
        return space


WRITES: dict[str, Callable[[Engine, Index, Any], Answer]] = {
    "upsert": Engine._upsert,
    "update": Engine._update,
    "delete": Engine._delete,
    "remove": Engine._remove,
}


def _change_where(holds: Condition, change: Body) -> Callable[[dict[str, Stored]], None]:
    def apply(records: dict[str, Stored]) -> None:
        for id, record in records.items():
            if holds(record.metadata):
                records[id] = record._replace(metadata=record.metadata | change)

    return apply


def _change_one(id: str, values: Values | None, change: Body) -> Callable[[dict[str, Stored]], None]:
    def apply(records: dict[str, Stored]) -> None:
        if (old := records.get(id)) is not None:
            records[id] = Stored(old.values if values is None else values, old.metadata | change)

    return apply


def _nearest(
    index: Index, space: Namespace, vector: Values, filter: Any, condition: Condition | None, limit: int
) -> Iterator[tuple[str, Stored, float | None]]:
    """Yield the best records, by brute force in float32 as the service's scores are."""
    if not space.records:
        return
    matrix = space.matrix()
    with np.errstate(all="ignore"):
        match index.metric:
            case "dotproduct":
                scores = matrix @ vector
            case "cosine":
                scores = (matrix @ vector) / (np.linalg.norm(matrix, axis=1) * np.linalg.norm(vector))
            case _:  # the squared distance, and the smallest is the best
                scores = np.square(matrix - vector).sum(axis=1)
        order = scores if index.metric == "euclidean" else -scores
        rows = np.arange(len(scores))
        if condition is not None:
            rows = rows[space.mask(filter, condition)]
        if len(rows) > limit:
            rows = rows[np.argpartition(order[rows], limit - 1)[:limit]]
        rows = rows[np.argsort(order[rows], kind="stable")]
    ids, records = list(space.records), list(space.records.values())
    for row in rows.tolist():
        score = float(scores[row])
        yield ids[row], records[row], score if np.isfinite(score) else None


def _records(found: Iterable[tuple[str, Stored]], namespace: str) -> Body:
    vectors = {id: {"id": id, "values": record.values, "metadata": record.metadata} for id, record in found}
    return {"vectors": vectors, "namespace": namespace, "usage": {"readUnits": 1}}


def _limited(answer: Answer) -> Answer:
    """Refuse what is larger than an answer may be; give back its JSON."""
    text = orjson.dumps(answer.body, option=orjson.OPT_SERIALIZE_NUMPY)
    require(len(text) <= MAX_ANSWER_BYTES, f"the result is larger than {MAX_ANSWER_BYTES} bytes")
    return answer._replace(body=text)


def check_upsert_size(length: int) -> None:
    """Refuse an upsert of more than 2 MB."""
    require(
        length <= MAX_UPSERT_BYTES,
        f"Request size {length} bytes exceeds the maximum supported size of {MAX_UPSERT_BYTES} bytes",
        413,
    )


__all__ = ["DEFAULT_NAMESPACE", "Answer", "Engine", "Index", "check_upsert_size"]
