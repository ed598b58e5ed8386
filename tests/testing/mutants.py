"""Memory stores that are wrong in one way each: what a careless adapter does. The contract must catch all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from polyvec.base import Fields, Hits
from polyvec.config import parse_url
from polyvec.filters import And, Contains, Eq, Exists, Filter, Gt, Gte, In, Lt, Lte, Not, Or, map_leaves
from polyvec.types import CollectionSpec, FloatArray, Metadata, RecordBatch
from polyvec_adapters.memory import ADAPTER
from polyvec_adapters.memory.store import MemoryCollection, MemoryStore, Row


class _Refiltering(MemoryCollection):
    """Answers another filter than the one that was asked."""

    def _change_filter(self, filter: Filter) -> Filter | None:
        raise NotImplementedError

    def _mutated(self, filter: Filter | None) -> Filter | None:
        return None if filter is None else self._change_filter(filter)

    def _do_query(self, vectors: FloatArray, *, filter: Filter | None, **options: Any) -> list[Hits]:
        return super()._do_query(vectors, filter=self._mutated(filter), **options)

    def _do_count(self, filter: Filter | None) -> int:
        return super()._do_count(self._mutated(filter))

    def _do_scan(self, filter: Filter | None, fields: Fields, **options: Any) -> tuple[RecordBatch, Any]:
        return super()._do_scan(self._mutated(filter), fields, **options)


class FilterDropped(_Refiltering):
    def _change_filter(self, filter: Filter) -> Filter | None:
        return None


class NotIgnored(_Refiltering):
    def _change_filter(self, filter: Filter) -> Filter | None:
        match filter:
            case Not(operand):
                return operand
            case And(operands) | Or(operands):
                return type(filter)(tuple(self._change_filter(part) or part for part in operands))
        return filter


class ClauseOfOrLost(_Refiltering):
    def _change_filter(self, filter: Filter) -> Filter | None:
        match filter:
            case Or(operands):
                return Or(operands[:-1])
            case And(operands):
                return And(tuple(self._change_filter(part) or part for part in operands))
        return filter


class ClauseOfAndLost(_Refiltering):
    def _change_filter(self, filter: Filter) -> Filter | None:
        return And(filter.operands[:-1]) if isinstance(filter, And) else filter


class NotNeedsTheField(_Refiltering):
    """Not, as in SQL: false where the field is missing."""

    def _change_filter(self, filter: Filter) -> Filter | None:
        match filter:
            case Not(operand) if not isinstance(operand, And | Or | Not):
                return And((filter, Exists(operand.key)))  # type: ignore[attr-defined]
            case And(operands) | Or(operands):
                return type(filter)(tuple(self._change_filter(part) or part for part in operands))
        return filter


class EqLooksInsideLists(_Refiltering):
    def _change_filter(self, filter: Filter) -> Filter | None:
        def loosen(leaf: Filter) -> Filter:
            return Or((leaf, Contains(leaf.key, leaf.value))) if isinstance(leaf, Eq) else leaf

        return map_leaves(filter, loosen)


class OrEqualLost(_Refiltering):
    def _change_filter(self, filter: Filter) -> Filter | None:
        def narrow(leaf: Filter) -> Filter:
            match leaf:
                case Lte(key, value):
                    return Lt(key, value)
                case Gte(key, value):
                    return Gt(key, value)
            return leaf

        return map_leaves(filter, narrow)


class CaseIgnored(_Refiltering):
    def _change_filter(self, filter: Filter) -> Filter | None:
        def fold(leaf: Filter) -> Filter:
            if isinstance(leaf, Eq) and isinstance(leaf.value, str) and len(leaf.value) < 100:
                return In(leaf.key, (leaf.value, leaf.value.lower(), leaf.value.upper()))
            return leaf

        return map_leaves(filter, fold)


class FilterAfterLimit(MemoryCollection):
    def _do_query(
        self, vectors: FloatArray, *, limit: int, filter: Filter | None, exact: bool, fields: Fields
    ) -> list[Hits]:
        kept = {id for id, row in self._rows.items() if _holds(filter, row.metadata)}
        found = super()._do_query(vectors, limit=limit, filter=None, exact=exact, fields=fields)
        return [_keep(hits, [row for row, id in enumerate(hits.records.ids) if id in kept]) for hits in found]


class ScoreNegated(MemoryCollection):
    def _do_query(self, vectors: FloatArray, **options: Any) -> list[Hits]:
        return [Hits(hits.records, -hits.scores) for hits in super()._do_query(vectors, **options)]


class DistanceSquared(MemoryCollection):
    def _do_query(self, vectors: FloatArray, **options: Any) -> list[Hits]:
        found = super()._do_query(vectors, **options)
        if self.spec.metric != "euclidean":
            return found
        return [Hits(hits.records, -(hits.scores**2)) for hits in found]


class OneHitShort(MemoryCollection):
    def _do_query(self, vectors: FloatArray, *, limit: int, **options: Any) -> list[Hits]:
        found = super()._do_query(vectors, limit=limit, **options)
        return [_keep(hits, range(min(len(hits.records), 7))) for hits in found]


class IntsTurnedToFloats(MemoryCollection):
    def _do_upsert(self, batch: RecordBatch, *, wait: bool) -> None:
        changed = [
            {key: float(value) if type(value) is int else value for key, value in metadata.items()}
            for metadata in batch.metadatas or []
        ]
        super()._do_upsert(RecordBatch(batch.ids, batch.vectors, batch.texts, changed), wait=wait)


class EmptyListsLost(MemoryCollection):
    def _do_upsert(self, batch: RecordBatch, *, wait: bool) -> None:
        changed = [
            {key: value for key, value in metadata.items() if value != []}
            for metadata in batch.metadatas or []
        ]
        super()._do_upsert(RecordBatch(batch.ids, batch.vectors, batch.texts, changed), wait=wait)


class UpsertMerges(MemoryCollection):
    def _do_upsert(self, batch: RecordBatch, *, wait: bool) -> None:
        rows = self._rows
        old = [rows[id].metadata if id in rows else {} for id in batch.ids]
        merged = [before | dict(new) for before, new in zip(old, batch.metadatas or [], strict=True)]
        super()._do_upsert(RecordBatch(batch.ids, batch.vectors, batch.texts, merged), wait=wait)


class OldTextStays(MemoryCollection):
    def _do_upsert(self, batch: RecordBatch, *, wait: bool) -> None:
        rows = self._rows
        texts = [
            text if text is not None or id not in rows else rows[id].text
            for id, text in zip(batch.ids, batch.texts or [], strict=True)
        ]
        super()._do_upsert(RecordBatch(batch.ids, batch.vectors, texts, batch.metadatas), wait=wait)


class FirstOfEqualIdsWins(MemoryCollection):
    def _do_upsert(self, batch: RecordBatch, *, wait: bool) -> None:
        new = [row for row, id in enumerate(batch.ids) if id not in self._rows]
        super()._do_upsert(_take(batch, new), wait=wait)


class StaleRead(MemoryCollection):
    """Sees the state before the last write."""

    def _change(self, changes: dict[str, Row], removed: Any = ()) -> None:
        with self.store.lock:
            self._table().spaces[f"{self.namespace}/before"] = self._table().spaces[self.namespace]
        super()._change(changes, removed)

    def _do_count(self, filter: Filter | None) -> int:
        before = self._table().spaces[f"{self.namespace}/before"].rows
        return sum(_holds(filter, row.metadata) for row in before.values())


class IdsSwapped(MemoryCollection):
    def _do_get(self, ids: list[str], fields: Fields) -> RecordBatch:
        found = super()._do_get(ids, fields)
        return RecordBatch(list(found.ids)[::-1], found.vectors, found.texts, found.metadatas)


class UnitVectorsReturned(MemoryCollection):
    def _do_get(self, ids: list[str], fields: Fields) -> RecordBatch:
        found = super()._do_get(ids, fields)
        if found.vectors is None or not len(found):
            return found
        lengths = (found.vectors**2).sum(axis=1, keepdims=True) ** 0.5
        return RecordBatch(found.ids, found.vectors / (lengths + 1e-30), found.texts, found.metadatas)


class NamespaceIgnored(MemoryCollection):
    def __init__(self, store: MemoryStore, spec: CollectionSpec, namespace: str = "") -> None:
        super().__init__(store, spec, namespace)
        self._table_of = namespace

    @property
    def _rows(self) -> dict[str, Row]:
        return self._table().spaces[""].rows

    def _change(self, changes: dict[str, Row], removed: Any = ()) -> None:
        namespace, self.namespace = self.namespace, ""
        super()._change(changes, removed)
        self.namespace = namespace


class ClearClearsAllNamespaces(MemoryCollection):
    def _do_delete_where(self, filter: Filter | None) -> None:
        super()._do_delete_where(filter)
        if filter is None:
            self._table().spaces.clear()


class ScanSkips(MemoryCollection):
    """Loses a record at each page but the first, as an offset that runs away does."""

    def _do_scan(
        self, filter: Filter | None, fields: Fields, *, limit: int, cursor: Any
    ) -> tuple[RecordBatch, Any]:
        if cursor is not None:
            next(cursor, None)
        return super()._do_scan(filter, fields, limit=limit, cursor=cursor)


class UpdateReplaces(MemoryCollection):
    """Sets the changed keys and loses the others."""

    def _do_set_metadata(self, ids: list[str], metadatas: Sequence[Metadata]) -> None:
        rows = self._rows
        only = [
            {key: value for key, value in new.items() if rows[id].metadata.get(key) != value}
            for id, new in zip(ids, metadatas, strict=True)
        ]
        super()._do_set_metadata(ids, only)


class DeleteIgnored(MemoryCollection):
    def _do_delete(self, ids: list[str]) -> None:
        super()._do_delete(ids[1:])


class TimeZoneLost(MemoryCollection):
    def _batch(self, rows: dict[str, Row], fields: Fields) -> RecordBatch:
        utc = {id: row._replace(blob=row.blob.replace("+09:00", "+00:00")) for id, row in rows.items()}
        return super()._batch(utc, fields)


def _holds(filter: Filter | None, metadata: Metadata) -> bool:
    from polyvec.filters import matches

    return matches(filter, metadata)


def _take(batch: RecordBatch, rows: Sequence[int]) -> RecordBatch:
    from polyvec.batches import take

    return take(batch, rows)


def _keep(hits: Hits, rows: Sequence[int]) -> Hits:
    return Hits(_take(hits.records, rows), hits.scores[list(rows)])


class SpecForgotten(MemoryStore):
    def _do_open(self, name: str) -> CollectionSpec | None:
        spec = super()._do_open(name)
        return None if spec is None else CollectionSpec(spec.name, spec.dimension, "cosine")


class NamesFolded(MemoryStore):
    def _do_open(self, name: str) -> CollectionSpec | None:
        return super()._do_open(name.lower())


MUTANTS: dict[str, type[MemoryStore] | type[MemoryCollection]] = {
    kind.__name__: kind
    for kind in (
        FilterDropped, NotIgnored, ClauseOfOrLost, ClauseOfAndLost, NotNeedsTheField, EqLooksInsideLists,
        OrEqualLost, CaseIgnored, FilterAfterLimit, ScoreNegated, DistanceSquared, OneHitShort,
        IntsTurnedToFloats, EmptyListsLost, UpsertMerges, OldTextStays, FirstOfEqualIdsWins, StaleRead,
        IdsSwapped, UnitVectorsReturned, NamespaceIgnored, ClearClearsAllNamespaces, ScanSkips,
        UpdateReplaces, DeleteIgnored, TimeZoneLost, SpecForgotten, NamesFolded,
    )
}  # fmt: skip


def open_mutant(name: str, database: str) -> MemoryStore:
    """Open a store with one defect, on a named memory database."""
    kind = MUTANTS[name]
    config = ADAPTER.config.make(parse_url(f"memory://{database}"), {})
    if issubclass(kind, MemoryStore):
        return kind.open(ADAPTER, config)
    collection_class = kind

    class Store(MemoryStore):
        def _collection(self, spec: CollectionSpec) -> MemoryCollection:
            return collection_class(self, spec)

    return Store.open(ADAPTER, config)
