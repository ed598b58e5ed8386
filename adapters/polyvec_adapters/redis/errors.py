"""The driver's errors as ours: by type, and by text where Redis has one type for everything."""

from __future__ import annotations

from typing import Final

from redis import exceptions

from polyvec.errors import (
    AuthenticationError,
    BackendError,
    BackendTimeoutError,
    BackendUnavailableError,
    CollectionNotFoundError,
    PolyvecError,
    QuotaExceededError,
    UnsupportedOperationError,
)

NO_SEARCH: Final = (
    "the server has no search; use Redis 8, Redis Stack, or a Redis Cloud database with search "
    "(https://redis.io/docs/latest/develop/ai/search-and-query/)"
)
CLUSTER: Final = (
    "the server is a node of an open-source cluster, where the records of a collection lie on several nodes; "
    "use a single server, or the endpoint of Redis Cloud or Redis Software"
)
OVERFLOW: Final = "a score is beyond float32, in which Redis computes; scale the vectors down"

# subclasses before their bases: an AuthenticationError is a ConnectionError
_BY_TYPE: Final[tuple[tuple[type[Exception], type[PolyvecError]], ...]] = (
    (exceptions.AuthenticationError, AuthenticationError),
    (exceptions.AuthorizationError, AuthenticationError),
    (exceptions.AuthenticationWrongNumberOfArgsError, AuthenticationError),
    (exceptions.NoPermissionError, AuthenticationError),
    (exceptions.ConnectionError, BackendUnavailableError),
    (exceptions.ReadOnlyError, BackendUnavailableError),  # a replica, for as long as a failover takes
    (exceptions.ClusterDownError, BackendUnavailableError),
    (exceptions.TryAgainError, BackendUnavailableError),
    (exceptions.TimeoutError, BackendTimeoutError),
    (exceptions.OutOfMemoryError, QuotaExceededError),
)
_OF_CLUSTERS: Final = (exceptions.AskError, exceptions.ClusterCrossSlotError)  # MOVED is an AskError

# lower case; the texts of search 2.10, 8.0 to 8.6, and 8.8:
# https://github.com/RediSearch/RediSearch/blob/v8.8.0/src/query_error.h
_BY_TEXT: Final[tuple[tuple[str, type[PolyvecError]], ...]] = (
    ("no such index", CollectionNotFoundError),
    ("unknown index name", CollectionNotFoundError),
    ("index not found", CollectionNotFoundError),
    ("timeout limit was reached", BackendTimeoutError),
    ("out of memory", QuotaExceededError),
)


def translate(error: Exception) -> PolyvecError | None:
    """Return our error for one of the driver's, None for an unknown one."""
    if not isinstance(error, exceptions.RedisError):
        return None
    text = str(error)
    if isinstance(error, exceptions.TimeoutError) and "connecting" in text:
        return BackendUnavailableError(f"cannot be reached: {text}")
    if isinstance(error, _OF_CLUSTERS):
        return UnsupportedOperationError(f"{text}: {CLUSTER}")
    for kind, ours in _BY_TYPE:
        if isinstance(error, kind):
            return ours(text)
    lower = text.lower()
    if lower.startswith("unknown command") and "ft." in lower:
        return UnsupportedOperationError(NO_SEARCH)
    for part, ours in _BY_TEXT:
        if part in lower:
            return ours(text)
    return BackendError(text)


def missing_index(error: object) -> bool:
    """Return whether an answer says that the index is gone."""
    return isinstance(error, exceptions.ResponseError) and isinstance(
        translate(error), CollectionNotFoundError
    )
