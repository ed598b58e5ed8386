"""The hooks: what an adapter fills in."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from polyvec.capabilities import Capabilities
from polyvec.errors import (
    PolyvecError,
)
from polyvec.filters import Filter
from polyvec.retry import RetryPolicy
from polyvec.types import (
    CollectionSpec,
    FloatArray,
    Metadata,
    RecordBatch,
)

if TYPE_CHECKING:
    from polyvec.base.collection import BaseCollection
    from polyvec.base.store import BaseVectorStore
    from polyvec.config import StoreConfig
    from polyvec.registry import Adapter

T = TypeVar("T")


class Fields(NamedTuple):
    """What a read returns besides ids; what is not asked for is not sent over the wire."""

    vectors: bool
    text: bool
    metadata: bool


class Hits(NamedTuple):
    """What a query hook found for one vector, in any order.

    Attributes:
        records: n records.
        scores: Shape (n,), float64; our scores (see `polyvec.scores`).
    """

    records: RecordBatch
    scores: npt.NDArray[np.float64]


class CollectionHooks(ABC):
    """What an adapter's collection fills in; the methods that call it are in `BaseCollection`.

    Attributes:
        store: The store that it belongs to.
        spec: What it is.
        namespace: The namespace that the hooks must confine themselves to; "" is the default one.
    """

    flush_after_write: ClassVar[bool] = False
    """Whether a write with `wait=True` is made visible by `_do_flush`, called once after its last batch.

    Otherwise `_do_upsert` makes each batch visible itself. In either case `_do_delete` and
    `_do_set_metadata` are followed by `_do_flush` if this is True."""

    def __init__(self, store: BaseVectorStore, spec: CollectionSpec, namespace: str = "") -> None:
        self.store = store
        self.spec = spec
        self.namespace = namespace

    @abstractmethod
    def _do_upsert(self, batch: RecordBatch, *, wait: bool) -> Mapping[str, Exception] | None:
        """Replace the records of one batch (distinct ids, within the capabilities' limits).

        Returns:
            The driver's error for each id that was refused, where the engine says it for each record; the
            others are written. An engine that refuses a request as a whole raises instead.
        """

    @abstractmethod
    def _do_get(self, ids: list[str], fields: Fields) -> RecordBatch:
        """Return the records of distinct ids, in any order, missing ones left out."""

    @abstractmethod
    def _do_query(
        self, vectors: FloatArray, *, limit: int, filter: Filter | None, exact: bool, fields: Fields
    ) -> list[Hits]:
        """Return the best `limit` records for each vector; shape (n, d), a normalised filter."""

    @abstractmethod
    def _do_count(self, filter: Filter | None) -> int:
        """Return the exact number of records for which a normalised filter holds."""

    @abstractmethod
    def _do_scan(
        self,
        filter: Filter | None,
        fields: Fields,
        *,
        limit: int,
        cursor: Any,
    ) -> tuple[RecordBatch, Any]:
        """Return up to `limit` records from a cursor on, and the cursor that goes on from there.

        Args:
            filter: Normalised.
            fields: What to read.
            limit: Most records; fewer do not mean the end.
            cursor: None at the start, then whatever the last call returned; None at the end.
        """

    @abstractmethod
    def _do_set_metadata(self, ids: list[str], metadatas: Sequence[Metadata]) -> None:
        """Replace the metadata of records that exist, leaving vector and text alone."""

    @abstractmethod
    def _do_delete(self, ids: list[str]) -> None:
        """Delete the records of distinct ids; unknown ones are no error."""

    @abstractmethod
    def _do_delete_where(self, filter: Filter | None) -> None:
        """Delete the records for which a normalised filter holds; None is every record of the namespace."""

    def _do_flush(self) -> None:  # noqa: B027  # nothing to do where every write is visible at once
        """Return when reads see all earlier writes."""

    def _do_settle(self) -> None:  # noqa: B027  # nothing to do where new records are indexed like old ones
        """Have new records indexed like old ones; called by `flush`, after `_do_flush`, and by nothing else.

        For engines that search new records in another way than old ones, slower or less exactly, until they
        are told that a load is complete. It may give up waiting: what is found is right in either case.
        """

    @abstractmethod
    def _do_explain(self, filter: Filter | None, *, limit: int, exact: bool) -> tuple[Any, tuple[str, ...]]:
        """Return the native request of a query, and a sentence for each thing that was rewritten."""

    def _scan_limit(self) -> int:
        """Return how many records one page of a scan has where the caller does not say."""
        return min(1000, self.store.capabilities.max_batch_records)


class StoreHooks(ABC):
    """What an adapter's store fills in; the methods that call it are in `BaseVectorStore`.

    Attributes:
        adapter: The adapter that it belongs to.
        config: How it was opened.
        capabilities: The adapter's, narrowed in the constructor to what this server can do.
    """

    def __init__(self, adapter: Adapter, config: StoreConfig) -> None:
        self.adapter = adapter
        self.config = config
        self.capabilities: Capabilities = adapter.capabilities
        self.retry = RetryPolicy(budget_s=config.timeout_s)
        self._closed = False

    @abstractmethod
    def _do_connect(self) -> None:
        """Open the connection and find out that it works: the first call of a store's life."""

    @abstractmethod
    def _do_version(self) -> str:
        """Return the version of the engine."""

    @abstractmethod
    def _do_create(self, spec: CollectionSpec) -> None:
        """Create a collection and keep its spec; raise CollectionExistsError where there is one."""

    @abstractmethod
    def _do_open(self, name: str) -> CollectionSpec | None:
        """Return the spec of a collection, None where there is none.

        Raises:
            ForeignCollectionError: There is one of that name, without a spec.
        """

    @abstractmethod
    def _do_list(self) -> list[str]:
        """Return the names of all collections that polyvec created, in any order."""

    @abstractmethod
    def _do_drop(self, name: str) -> None:
        """Delete a collection that exists, with all its namespaces."""

    @abstractmethod
    def _do_close(self) -> None:
        """Release the connection."""

    @abstractmethod
    def _collection(self, spec: CollectionSpec) -> BaseCollection:
        """Return the adapter's collection object; nothing is sent."""

    @abstractmethod
    def _translate(self, error: Exception) -> PolyvecError | None:
        """Return our error for a driver's; None for one that the adapter does not know."""
