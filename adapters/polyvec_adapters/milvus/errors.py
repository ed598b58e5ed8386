"""The driver's errors as ours: Milvus' own codes, and those of gRPC.

The codes are those of https://github.com/milvus-io/milvus/blob/master/pkg/util/merr/errors.go (Milvus 2.3 to
2.5); Milvus Lite has some of its own, which mean the same or are told by their text.
"""

from __future__ import annotations

from typing import Final

import grpc
from pymilvus.exceptions import MilvusException

from polyvec.errors import (
    AuthenticationError,
    BackendError,
    BackendTimeoutError,
    BackendUnavailableError,
    CollectionExistsError,
    CollectionNotFoundError,
    ConfigurationError,
    PolyvecError,
    QuotaExceededError,
    RateLimitedError,
)

COLLECTION_NOT_FOUND: Final = 100
NOT_LOADED: Final = frozenset({101, 103, 106, 201, 202})
"""The collection cannot be read since it is not loaded, or not yet."""

OVERFLOW: Final = "a score is beyond float32, in which Milvus computes; scale the vectors down"

_BY_CODE: Final[dict[int, type[PolyvecError]]] = {
    1: BackendError,  # in Lite anything; in a server "not ready", which then says so
    2: BackendUnavailableError,
    4: RateLimitedError,
    7: QuotaExceededError,
    8: RateLimitedError,
    9: QuotaExceededError,
    COLLECTION_NOT_FOUND: CollectionNotFoundError,
    **dict.fromkeys(NOT_LOADED, BackendUnavailableError),
    102: QuotaExceededError,
    503: BackendUnavailableError,
    800: ConfigurationError,
    1400: AuthenticationError,
    1401: AuthenticationError,
    1807: RateLimitedError,
}
_BY_STATUS: Final[dict[grpc.StatusCode, type[PolyvecError]]] = {
    grpc.StatusCode.UNAUTHENTICATED: AuthenticationError,
    grpc.StatusCode.PERMISSION_DENIED: AuthenticationError,
    grpc.StatusCode.UNAVAILABLE: BackendUnavailableError,
    grpc.StatusCode.CANCELLED: BackendUnavailableError,
    grpc.StatusCode.DEADLINE_EXCEEDED: BackendTimeoutError,
}


class AnswerTooLargeError(BackendError):
    """The answer is larger than a server sends; ask for less at once."""


def is_too_large(error: MilvusException | grpc.RpcError) -> bool:
    """Return whether an answer is too large for the server, or for the message that it would be.

    Both limits are settings of a server, and neither has a code of its own: "limit size" is of 2.3,
    `maxOutputSize` of later ones (https://milvus.io/docs/configure_quotaandlimits.md), 100 MB by default.
    """
    if isinstance(error, MilvusException):
        text = str(error.message)
        return "exceed" in text and ("limit size" in text or "maxOutputSize" in text)
    return error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in (error.details() or "")


def translate(error: Exception) -> PolyvecError | None:
    """Return our error for one of the driver's, None for an unknown one."""
    match error:
        case MilvusException(message=text) if "duplicate collection" in text or "already exist" in text:
            return CollectionExistsError("somebody else has created it")
        case MilvusException():
            return _BY_CODE.get(error.code, BackendError)(f"{error.code}: {error.message}")
        case grpc.RpcError():
            return _by_status(error.code(), error.details() or "")
    return None


def _by_status(code: grpc.StatusCode, details: str) -> PolyvecError:
    text = f"{code.name}: {details}"
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED:  # also a message that is too large
        return (RateLimitedError if "rate" in details.lower() else BackendError)(text)
    return _BY_STATUS.get(code, BackendError)(text)
