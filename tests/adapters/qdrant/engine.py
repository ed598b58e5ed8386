"""What a Qdrant server does with a request, as far as polyvec goes, on Qdrant's own engine in this process.

`qdrant_edge` is the segment engine of the server, compiled from the same Rust code: it stores, filters and
searches what it is given as a segment of a server does. Around it this module does what a server does around
its segments: collections by name, the spec in their metadata, strict mode, refusals. It is no server:
sharding, consensus, optimisers in the background, limits and timeouts are not here.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import qdrant_edge as edge
from qdrant_client import models

_DISTANCES = {
    models.Distance.COSINE: edge.Distance.Cosine,
    models.Distance.DOT: edge.Distance.Dot,
    models.Distance.EUCLID: edge.Distance.Euclid,
}
_SCHEMAS = {
    models.PayloadSchemaType.KEYWORD: edge.PayloadSchemaType.Keyword,
    models.PayloadSchemaType.FLOAT: edge.PayloadSchemaType.Float,
}


class RefusedError(Exception):
    """The server's refusal: an HTTP status and its message."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


def to_edge(condition: models.Condition) -> Any:  # the stubs call the parts of a filter differently
    """Return a condition of the driver as one of the engine."""
    match condition:
        case models.Filter():
            return edge.Filter(
                must=_all(condition.must), should=_all(condition.should), must_not=_all(condition.must_not)
            )
        case models.HasIdCondition():
            return edge.HasIdCondition({str(id) for id in condition.has_id})
        case models.FieldCondition(key=key, match=models.MatchValue(value=value)):
            return edge.FieldCondition(key=key, match=edge.MatchValue(value))
        case models.FieldCondition(key=key, match=models.MatchAny(any=values)):
            return edge.FieldCondition(key=key, match=edge.MatchAny(values))
        case models.FieldCondition(key=key, range=models.Range() as range_):
            return edge.FieldCondition(key=key, range=edge.RangeFloat(**range_.model_dump()))
    raise RefusedError(400, f"the stand-in does not know {condition!r}")


def _all(conditions: Any) -> list[Any] | None:
    return None if conditions is None else [to_edge(condition) for condition in conditions]


def fields_of(condition: models.Condition) -> Iterator[tuple[str, str]]:
    """Yield each payload field of a condition with the kind of index that strict mode wants for it."""
    if isinstance(condition, models.FieldCondition):
        yield condition.key, "keyword" if condition.match is not None else "float"
    elif isinstance(condition, models.Filter):
        for part in (condition.must, condition.should, condition.must_not):
            assert part is None or isinstance(part, list)
            for inner in part or ():
                yield from fields_of(inner)


@dataclass
class Kept:
    """A collection."""

    config: models.CreateCollection
    shard: edge.EdgeShard
    indexed: dict[str, str] = field(default_factory=dict)

    @property
    def vectors(self) -> models.VectorParams:
        assert isinstance(self.config.vectors, models.VectorParams)
        return self.config.vectors


class Engine:
    """Collections by name.

    Attributes:
        version: What it says that it is.
        strict: Refuse conditions on fields without an index, as Qdrant Cloud does.
        threshold_kb: Up to so many kilobytes of vectors it compares with each instead of using a graph; a
            server's default. For collections that are created afterwards.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.version = "1.19.0"
        self.strict = False
        self.threshold_kb = 10_000
        self.collections: dict[str, Kept] = {}
        self.lock = threading.RLock()

    def close(self) -> None:
        for kept in self.collections.values():
            kept.shard.close()

    def names(self) -> list[str]:
        return list(self.collections)

    def _kept(self, name: str) -> Kept:
        if name in (".", ".."):  # over gRPC the server would take it for a directory
            raise RefusedError(500, "Service internal error: Directory not empty")
        if name not in self.collections:
            raise RefusedError(404, f"Not found: Collection `{name}` doesn't exist!")
        return self.collections[name]

    def create(self, name: str, config: models.CreateCollection) -> None:
        if name in self.collections:
            raise RefusedError(409, f"Wrong input: Collection `{name}` already exists!")
        params = config.vectors
        assert isinstance(params, models.VectorParams)
        hnsw = config.hnsw_config or models.HnswConfigDiff()
        shard = edge.EdgeShard.create(
            str(self.folder / uuid.uuid4().hex),
            edge.EdgeConfig(
                vectors=edge.EdgeVectorParams(params.size, _DISTANCES[params.distance]),
                hnsw_config=edge.HnswIndexConfig(
                    m=16 if hnsw.m is None else hnsw.m,
                    ef_construct=hnsw.ef_construct or 100,
                    full_scan_threshold=self.threshold_kb,
                ),
                optimizers=edge.EdgeOptimizersConfig(indexing_threshold=self.threshold_kb),
                wal_enabled=False,
            ),
        )
        self.collections[name] = Kept(config, shard)

    def optimize(self, name: str) -> int:
        """Build the graphs, as a server does in the background; return how many vectors are in one."""
        shard = self._kept(name).shard
        shard.optimize()
        return shard.info().indexed_vectors_count

    def drop(self, name: str) -> bool:
        kept = self.collections.pop(name, None)
        if kept is None:
            return False
        kept.shard.close()
        return True

    def info(self, name: str) -> models.CollectionInfo:
        kept = self._kept(name)
        hnsw = kept.config.hnsw_config or models.HnswConfigDiff()
        return models.CollectionInfo(
            status=models.CollectionStatus.GREEN,
            optimizer_status=models.OptimizersStatusOneOf.OK,
            segments_count=1,
            points_count=kept.shard.count(edge.CountRequest()),
            payload_schema={
                key: models.PayloadIndexInfo(data_type=models.PayloadSchemaType(kind), points=0)
                for key, kind in kept.indexed.items()
            },
            config=models.CollectionConfig(
                params=models.CollectionParams(vectors=kept.vectors),
                hnsw_config=models.HnswConfig(
                    m=16 if hnsw.m is None else hnsw.m,
                    ef_construct=hnsw.ef_construct or 100,
                    full_scan_threshold=10_000,
                ),
                wal_config=models.WalConfig(wal_capacity_mb=32, wal_segments_ahead=0),
                optimizer_config=models.OptimizersConfig(
                    deleted_threshold=0.2,
                    vacuum_min_vector_number=1000,
                    default_segment_number=0,
                    flush_interval_sec=5,
                ),
                metadata=kept.config.metadata,
            ),
        )

    def index(self, name: str, key: str, schema: Any) -> None:
        kept = self._kept(name)
        if isinstance(schema, models.KeywordIndexParams):
            native: Any = edge.KeywordIndexParams(is_tenant=schema.is_tenant)
            kept.indexed[key] = "keyword"
        else:
            native = _SCHEMAS[models.PayloadSchemaType(schema)]
            kept.indexed[key] = models.PayloadSchemaType(schema).value
        kept.shard.update(edge.UpdateOperation.create_field_index(key, native))

    def _filter(self, kept: Kept, filter: models.Filter | None) -> Any:
        if filter is None:
            return None
        for key, kind in fields_of(filter) if self.strict else ():
            if kept.indexed.get(key) != kind:
                raise RefusedError(
                    400,
                    f'Bad request: Index required but not found for "{key}" of one of the following types: '
                    f"[{kind}]. Help: Create an index for this key or use a different filter.",
                )
        return to_edge(filter)

    def upsert(self, name: str, points: Sequence[models.PointStruct]) -> None:
        kept = self._kept(name)
        for point in points:
            assert isinstance(point.vector, list)
            if len(point.vector) != kept.vectors.size:
                raise RefusedError(
                    400,
                    f"Wrong input: Vector dimension error: expected dim: {kept.vectors.size}, "
                    f"got {len(point.vector)}",
                )
        kept.shard.update(
            edge.UpdateOperation.upsert_points(
                [edge.Point(str(p.id), p.vector, p.payload or {}) for p in points]  # type: ignore[arg-type]
            )
        )

    def retrieve(
        self, name: str, ids: Sequence[Any], with_payload: Any, with_vectors: Any
    ) -> list[models.Record]:
        found = self._kept(name).shard.retrieve(_ids(ids), with_payload, bool(with_vectors))
        return [_record(point) for point in found]

    def query(self, name: str, request: models.QueryRequest) -> list[models.ScoredPoint]:
        kept = self._kept(name)
        query = request.query
        vector = query.nearest if isinstance(query, models.NearestQuery) else query
        assert isinstance(vector, list)
        params = request.params or models.SearchParams()
        found = kept.shard.query(
            edge.QueryRequest(
                limit=request.limit or 10,
                query=edge.Query.Nearest(vector),
                filter=self._filter(kept, request.filter),
                params=edge.SearchParams(hnsw_ef=params.hnsw_ef, exact=bool(params.exact)),
                with_payload=request.with_payload,  # type: ignore[arg-type]  # a list of keys
                with_vector=bool(request.with_vector),
            )
        )
        return [
            models.ScoredPoint.model_construct(
                id=str(p.id), version=p.version, score=p.score, payload=p.payload, vector=p.vector
            )
            for p in found
        ]

    def scroll(
        self,
        name: str,
        filter: models.Filter | None,
        limit: int,
        offset: Any,
        with_payload: Any,
        vectors: Any,
    ) -> tuple[list[models.Record], str | None]:
        kept = self._kept(name)
        found, following = kept.shard.scroll(
            edge.ScrollRequest(
                offset=None if offset is None else str(offset),
                limit=limit,
                filter=self._filter(kept, filter),
                with_payload=with_payload,
                with_vector=bool(vectors),
            )
        )
        return [_record(point) for point in found], None if following is None else str(following)

    def count(self, name: str, filter: models.Filter | None) -> int:
        kept = self._kept(name)
        return kept.shard.count(edge.CountRequest(filter=self._filter(kept, filter)))

    def delete(self, name: str, selector: models.PointsSelector) -> None:
        kept = self._kept(name)
        operation = (
            edge.UpdateOperation.delete_points(_ids(selector.points))
            if isinstance(selector, models.PointIdsList)
            else edge.UpdateOperation.delete_points_by_filter(self._filter(kept, selector.filter))
        )
        kept.shard.update(operation)

    def set_payload(self, name: str, change: models.SetPayload) -> None:
        kept = self._kept(name)
        if change.filter is not None:
            native = self._filter(kept, change.filter)
            kept.shard.update(edge.UpdateOperation.set_payload_by_filter(native, change.payload))
            return
        ids = _ids(change.points or ())
        there = {str(point.id) for point in kept.shard.retrieve(ids)}
        for id in ids:
            if id not in there:
                raise RefusedError(404, f"Not found: No point with id {id} found")
        kept.shard.update(edge.UpdateOperation.set_payload(ids, change.payload))


def _ids(ids: Sequence[Any]) -> list[edge.PointId]:
    return [str(id) for id in ids]


def _record(point: edge.Record) -> models.Record:
    return models.Record.model_construct(id=str(point.id), payload=point.payload, vector=point.vector)
