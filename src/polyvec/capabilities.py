"""What a backend can do, as data: the guard in `base`, the contract suite and the support table read it.

The contract's semantics are not listed here, since no backend may lack them. Listed are limits, what is
done natively and what polyvec emulates, and the few abilities that an engine may not have.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from polyvec.types import METRICS, Metric


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """The abilities and limits of one backend.

    Attributes:
        metrics: The metrics it can search by.
        exact_query: `query(exact=True)` gives a brute-force answer.
        hnsw_index: `index=HnswIndex(...)` is honoured.
        flat_index: `index=FlatIndex()` is honoured.
        native_namespaces: Namespaces are a notion of the engine, rather than folded into keys and filters.
        native_filters: Conditions are the engine's own, rather than tests on tokens.
        persistent: Records outlive the process.
        max_dimension: Longest vector.
        max_query_limit: Most matches of a query, offset included.
        max_query_vectors: Most vectors of one request; `query_many` sends more in several.
        max_batch_records: Most records of one request.
        max_batch_bytes: Largest request; batches are cut well below it.
        concurrent_writes: Batches of one upsert that may be under way at once.
        reasons: For each ability that is off, why, in a sentence; shown to users and by skipped tests.
        emulated: For each promise of the contract that polyvec keeps in the engine's place (e.g.
            "filters", "replace"), how, in a sentence.
    """

    metrics: tuple[Metric, ...] = METRICS
    exact_query: bool = False
    hnsw_index: bool = False
    flat_index: bool = False
    native_namespaces: bool = False
    native_filters: bool = False
    persistent: bool = True
    max_dimension: int = 65_536
    max_query_limit: int = 10_000
    max_query_vectors: int = 100
    max_batch_records: int = 1_000
    max_batch_bytes: int = 8 * 2**20
    concurrent_writes: int = 1
    reasons: Mapping[str, str] = field(default_factory=dict)
    emulated: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        known = {item.name for item in fields(self)}
        for name in self.reasons:
            if name not in known:
                raise ValueError(f"there is no capability {name!r}")

    def reason(self, name: str) -> str:
        """Return why an ability is off."""
        return self.reasons.get(name, "the engine does not have it")

    def as_dict(self) -> dict[str, Any]:
        """Return the capabilities as plain JSON data."""
        data = {item.name: getattr(self, item.name) for item in fields(self)}
        return data | {
            "metrics": list(self.metrics),
            "reasons": dict(self.reasons),
            "emulated": dict(self.emulated),
        }
