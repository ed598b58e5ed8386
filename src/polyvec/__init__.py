"""polyvec: one VectorStore protocol, many vector databases, the same answers."""

from polyvec.capabilities import Capabilities
from polyvec.errors import (
    AuthenticationError,
    BackendError,
    BackendTimeoutError,
    BackendUnavailableError,
    CollectionExistsError,
    CollectionNotFoundError,
    ConfigurationError,
    DimensionMismatchError,
    EmbeddingSpaceError,
    ForeignCollectionError,
    InvalidFilterError,
    InvalidInputError,
    MissingDriverError,
    PolyvecError,
    RateLimitedError,
    RecordNotFoundError,
    SpecMismatchError,
    UnsupportedFilterError,
    UnsupportedOperationError,
)
from polyvec.filters import F, Filter
from polyvec.protocol import AsyncCollection, AsyncVectorStore, Collection, VectorStore
from polyvec.registry import Adapter, adapters, connect
from polyvec.types import (
    CollectionSpec,
    EmbeddingSpace,
    Explanation,
    FlatIndex,
    HnswIndex,
    Match,
    Record,
    RecordBatch,
    WriteFailure,
    WriteReport,
)
