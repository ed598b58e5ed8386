"""A store over plain dicts that fails on demand and answers as awkwardly as its hooks may."""

from __future__ import annotations

import threading
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, TypeVar

import numpy as np

from polyvec import (
    Adapter,
    AuthenticationError,
    BackendError,
    BackendUnavailableError,
    Capabilities,
    CollectionSpec,
    PolyvecError,
    RateLimitedError,
    RecordBatch,
    UnsupportedFilterError,
)
from polyvec.base import BaseCollection, BaseVectorStore, Fields, Hits
from polyvec.batches import take
from polyvec.config import StoreConfig, parse_url
from polyvec.filters import Filter, matches
from polyvec.retry import RetryPolicy
from polyvec.scores import exact
from polyvec.types import FloatArray, Metadata

T = TypeVar("T")


class DriverError(Exception):
    """What the driver of the fake raises; its status says which of our errors it is."""

    def __init__(self, status: int, text: str = "", retry_after_s: float | None = None) -> None:
        super().__init__(text or str(status))
        self.status = status
        self.retry_after_s = retry_after_s


ADAPTER = Adapter(
    name="fake",
    title="Fake",
    schemes=("fake",),
    capabilities=Capabilities(
        exact_query=True,
        hnsw_index=True,
        flat_index=True,
        max_query_limit=10_000,
        reasons={"exact_query": "it guesses"},
    ),
    config=StoreConfig,
    store="tests.core.fake:FakeStore",
    examples={"fake://": "a store of its own"},
)

Step = Exception | Callable[[], Any] | None
"""What one call of a hook does first: raise, run something (whose result it returns unless None), nothing."""


class NoSleep(RetryPolicy):
    """The policy, with pauses that are noted and not slept."""

    sleeps: ClassVar[list[float]] = []

    def run(self, call: Callable[[], T], sleep: Callable[[float], None] | None = None) -> T:
        return super().run(call, self.sleeps.append)


@dataclass
class Call:
    """A call of a hook as it was made."""

    hook: str
    namespace: str
    arguments: dict[str, Any] = field(default_factory=dict)


class FakeStore(BaseVectorStore):
    def _do_connect(self) -> None:
        NoSleep.sleeps.clear()
        self.retry = NoSleep(budget_s=self.config.timeout_s)
        self.specs: dict[str, CollectionSpec] = {}
        self.rows: dict[tuple[str, str], dict[str, tuple[Any, str | None, Metadata]]] = defaultdict(dict)
        self.script: dict[str, deque[Step]] = defaultdict(deque)
        self.calls: list[Call] = []
        self.lock = threading.Lock()
        self.tie_seed = 0
        self.poison: set[str] = set()  # a request with one of these ids is refused as a whole
        self.refused: dict[str, Exception] = {}  # these records are refused, the others written

    def step(self, hook: str, namespace: str = "", **arguments: Any) -> Any:
        """Note a call, and do what the script says for it."""
        with self.lock:
            self.calls.append(Call(hook, namespace, arguments))
            step = self.script[hook].popleft() if self.script[hook] else None
        if isinstance(step, Exception):
            raise step
        return step() if step is not None else None

    def made(self, hook: str) -> list[Call]:
        """The calls of one hook."""
        return [call for call in self.calls if call.hook == hook]

    def limit(self, **limits: Any) -> None:
        """Change the capabilities."""
        self.capabilities = replace(self.capabilities, **limits)

    def _do_version(self) -> str:
        return str(self.step("version") or "1.0")

    def _do_create(self, spec: CollectionSpec) -> None:
        self.step("create")
        self.specs[spec.name] = spec

    def _do_open(self, name: str) -> CollectionSpec | None:
        return self.step("open") or self.specs.get(name)

    def _do_list(self) -> list[str]:
        self.step("list")
        return list(self.specs)

    def _do_drop(self, name: str) -> None:
        self.step("drop")
        del self.specs[name]

    def _do_close(self) -> None:
        self.step("close")

    def _collection(self, spec: CollectionSpec) -> FakeCollection:
        return FakeCollection(self, spec)

    def _translate(self, error: Exception) -> PolyvecError | None:
        if not isinstance(error, DriverError):
            return None
        match error.status:
            case 401:
                return AuthenticationError(str(error))
            case 429:
                return RateLimitedError(str(error), retry_after_s=error.retry_after_s)
            case 503:
                return BackendUnavailableError(str(error))
        return BackendError(str(error))

    @property
    def native(self) -> dict[str, CollectionSpec]:
        return self.specs


class FakeCollection(BaseCollection):
    store: FakeStore

    @property
    def _mine(self) -> dict[str, tuple[Any, str | None, Metadata]]:
        return self.store.rows[self.name, self.namespace]

    def _step(self, hook: str, **arguments: Any) -> Any:
        return self.store.step(hook, self.namespace, **arguments)

    def _batch(self, ids: Sequence[str], fields: Fields) -> RecordBatch:
        rows = [self._mine[id] for id in ids]
        shape = (len(ids), self.spec.dimension)
        return RecordBatch(
            list(ids),
            np.array([row[0] for row in rows], np.float32).reshape(shape) if fields.vectors else None,
            [row[1] for row in rows] if fields.text else None,
            [dict(row[2]) for row in rows] if fields.metadata else None,
        )

    def _do_upsert(self, batch: RecordBatch, *, wait: bool) -> Mapping[str, Exception] | None:
        refused: dict[str, Exception] = self._step("upsert", ids=list(batch.ids), wait=wait) or {}
        refused |= {id: error for id, error in self.store.refused.items() if id in batch.ids}
        if self.store.poison & set(batch.ids):
            raise DriverError(400, f"one of {len(batch)} is wrong")
        assert batch.vectors is not None
        assert batch.texts is not None
        assert batch.metadatas is not None
        with self.store.lock:
            for id, vector, text, metadata in zip(
                batch.ids, batch.vectors, batch.texts, batch.metadatas, strict=True
            ):
                if id not in refused:
                    self._mine[id] = (vector.copy(), text, dict(metadata))
        return refused

    def _do_get(self, ids: list[str], fields: Fields) -> RecordBatch:
        self._step("get", ids=list(ids), fields=fields)
        assert len(set(ids)) == len(ids)
        return self._batch([id for id in reversed(ids) if id in self._mine], fields)

    def _do_query(
        self, vectors: FloatArray, *, limit: int, filter: Filter | None, exact: bool, fields: Fields
    ) -> list[Hits]:
        self._step("query", rows=len(vectors), limit=limit, filter=filter, exact=exact, fields=fields)
        return [self._hits(vector, limit, filter, fields) for vector in vectors]

    def _hits(self, vector: FloatArray, limit: int, filter: Filter | None, fields: Fields) -> Hits:
        """The best `limit`, which of several equal ones is another choice in each call, in any order."""
        ids = [id for id, row in self._mine.items() if matches(filter, row[2])]
        if not ids:
            return Hits(RecordBatch([], np.empty((0, self.spec.dimension), np.float32), [], []), np.empty(0))
        self.store.tie_seed += 1
        random = np.random.default_rng(self.store.tie_seed)
        scores = exact(self.spec.metric, [vector], [self._mine[id][0] for id in ids])[0]
        best = np.lexsort((random.random(len(ids)), -scores))[:limit]
        random.shuffle(best)
        return Hits(take(self._batch(ids, fields), best.tolist()), scores[best])

    def _do_count(self, filter: Filter | None) -> int:
        self._step("count", filter=filter)
        return sum(matches(filter, row[2]) for row in self._mine.values())

    def _do_scan(
        self, filter: Filter | None, fields: Fields, *, limit: int, cursor: Any
    ) -> tuple[RecordBatch, Any]:
        self._step("scan", filter=filter, fields=fields, limit=limit, cursor=cursor)
        ids = list(self._mine)[cursor or 0 :][:limit]
        following = (cursor or 0) + limit
        kept = [id for id in ids if matches(filter, self._mine[id][2])]
        return self._batch(kept, fields), following if following < len(self._mine) else None

    def _do_set_metadata(self, ids: list[str], metadatas: Sequence[Metadata]) -> None:
        self._step("set_metadata", ids=list(ids))
        for id, metadata in zip(ids, metadatas, strict=True):
            self._mine[id] = (*self._mine[id][:2], dict(metadata))

    def _do_delete(self, ids: list[str]) -> None:
        self._step("delete", ids=list(ids))
        for id in ids:
            self._mine.pop(id, None)

    def _do_delete_where(self, filter: Filter | None) -> None:
        self._step("delete_where", filter=filter)
        for id in [id for id, row in self._mine.items() if matches(filter, row[2])]:
            del self._mine[id]

    def _do_flush(self) -> None:
        self._step("flush")

    def _do_explain(self, filter: Filter | None, *, limit: int, exact: bool) -> tuple[Any, tuple[str, ...]]:
        if filter is not None and "unsupported" in str(filter):
            raise UnsupportedFilterError("== on 'unsupported': it cannot")
        return {"filter": filter, "limit": limit, "exact": exact}, ("A note.",)


class FlushingCollection(FakeCollection):
    flush_after_write = True


class FlushingStore(FakeStore):
    def _collection(self, spec: CollectionSpec) -> FlushingCollection:
        return FlushingCollection(self, spec)


def open_fake(url: str = "fake://", kind: type[FakeStore] = FakeStore) -> FakeStore:
    """Return an open fake."""
    return kind.open(ADAPTER, StoreConfig.make(parse_url(url), {}))
