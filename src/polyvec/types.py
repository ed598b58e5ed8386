"""The values that go into and come out of a store: frozen, without behaviour of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from polyvec.errors import PolyvecError

Scalar: TypeAlias = bool | int | float | str | datetime
"""What a filter can compare with."""

Value: TypeAlias = "Scalar | Sequence[Value] | Mapping[str, Value] | None"
"""A metadata value: a scalar, None, or a list or dict of values, nested freely.

int is int64; float is finite; a datetime carries its time zone."""

Metadata: TypeAlias = Mapping[str, Any]
"""`Mapping[str, Value]`; keys of 1 to 128 UTF-8 bytes."""

Vector: TypeAlias = Sequence[float] | npt.NDArray[Any]
"""One vector, shape (d,); compared and stored as float32."""

FloatArray: TypeAlias = npt.NDArray[np.float32]

Metric: TypeAlias = Literal["cosine", "dot", "euclidean"]
METRICS: tuple[Metric, ...] = ("cosine", "dot", "euclidean")


@dataclass(frozen=True, slots=True, eq=False)
class Record:
    """One record of a collection.

    Attributes:
        id: 1 to 512 UTF-8 bytes, no NUL, no lone surrogate.
        vector: Shape (d,), finite; not zero under the cosine metric. None only in a record that was
            read with `include_vectors=False`.
        text: The passage, or None.
        metadata: See `Metadata`.
    """

    id: str
    vector: Vector | None
    text: str | None = None
    metadata: Metadata = field(default_factory=dict)

    def __eq__(self, other: object) -> bool:
        """Compare ids, texts and metadata exactly, and vectors element by element as float32."""
        if not isinstance(other, Record):
            return NotImplemented
        if (self.vector is None) != (other.vector is None):
            return False
        return (self.id, self.text, self.metadata) == (other.id, other.text, other.metadata) and (
            self.vector is None
            or np.array_equal(np.asarray(self.vector, np.float32), np.asarray(other.vector, np.float32))
        )

    __hash__ = None  # type: ignore[assignment]  # holds a dict and an array


@dataclass(frozen=True, slots=True, eq=False)
class RecordBatch:
    """Records as columns of equal length n: what travels on the hot path.

    Attributes:
        ids: n ids.
        vectors: Shape (n, d), float32, C-contiguous (converted if it is not). None only in a batch that
            was read with `include_vectors=False`.
        texts: n texts or Nones; None stands for a column of Nones.
        metadatas: n metadata mappings; None stands for a column of empty ones.
    """

    ids: Sequence[str]
    vectors: FloatArray | None
    texts: Sequence[str | None] | None = None
    metadatas: Sequence[Metadata] | None = None

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, slots=True)
class Match:
    """A record that a query found.

    Attributes:
        id: The record's id.
        score: Higher is better on every metric and backend: the cosine in [-1, 1], the inner product,
            or minus the Euclidean distance. Equal to numpy's value within 1e-3.
        text: The record's text; None if it has none or `include_text=False`.
        metadata: The record's metadata; empty with `include_metadata=False`.
        vector: Shape (d,), float32; None unless `include_vectors=True`.
    """

    id: str
    score: float
    text: str | None
    metadata: dict[str, Any]
    vector: FloatArray | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class HnswIndex:
    """A graph index: approximate, the default wherever the engine has one.

    Attributes:
        m: Links per node; more is better recall and more memory.
        ef_construction: Candidates while building.
        ef_search: Candidates while searching; an engine without the setting ignores it only where the
            adapter's page says so.
    """

    m: int = 16
    ef_construction: int = 200
    ef_search: int = 200


@dataclass(frozen=True, slots=True)
class FlatIndex:
    """Brute force: exact, with a cost that grows with the number of records."""


Index: TypeAlias = HnswIndex | FlatIndex


@dataclass(frozen=True, slots=True)
class EmbeddingSpace:
    """Which model made the vectors. Vectors of different spaces must never be compared.

    Attributes:
        provider: e.g. "openai", "local".
        model: The provider's name of the model, with its version where it has one.
        dimensions: Length of the vectors.
    """

    provider: str
    model: str
    dimensions: int

    def __str__(self) -> str:
        return f"{self.provider}:{self.model} ({self.dimensions} dimensions)"


IndexKind: TypeAlias = Literal["bool", "int", "float", "str", "datetime"]


@dataclass(frozen=True, slots=True)
class CollectionSpec:
    """What a collection is; kept in the database and read back when it is opened.

    Attributes:
        name: 1 to 128 of `[A-Za-z0-9_.-]`, case-sensitive.
        dimension: Length of its vectors.
        metric: "cosine", "dot" or "euclidean".
        indexes: Metadata keys that will be filtered by often, with the kind of their values: a hint for
            speed that never changes an answer.
        index: How vectors are searched; None is the adapter's default, a graph where the engine has one.
        embedding: The space of its vectors; None if it was not said.
        format_version: Version of the layout in the database.
    """

    name: str
    dimension: int
    metric: Metric = "cosine"
    indexes: Mapping[str, IndexKind] = field(default_factory=dict)
    index: Index | None = None
    embedding: EmbeddingSpace | None = None
    format_version: int = 1


@dataclass(frozen=True, slots=True)
class WriteFailure:
    """A record that was not written, and why."""

    id: str
    error: PolyvecError


@dataclass(frozen=True, slots=True)
class WriteReport:
    """What a write did.

    Attributes:
        written: Number of records that are in the collection now (equal ids of one call count once per
            batch).
        failures: The records that are not, in the order in which they were given.
    """

    written: int
    failures: tuple[WriteFailure, ...] = ()

    @property
    def failed_ids(self) -> list[str]:
        """The ids of `failures`."""
        return [failure.id for failure in self.failures]


@dataclass(frozen=True, slots=True)
class Explanation:
    """What a query would send.

    Attributes:
        backend: Name of the adapter.
        filter: The filter as polyvec understood it, in its string notation; None if there is none.
        native: The native request, as the driver's own objects or plain data.
        notes: What was rewritten or emulated, a sentence each.
    """

    backend: str
    filter: str | None
    native: Any
    notes: tuple[str, ...] = ()
