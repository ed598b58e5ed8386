"""The driver's errors as ours. Three families: REST, gRPC, and the plain exceptions of local mode."""

from __future__ import annotations

import json
from typing import Final

import grpc
import httpx
from pydantic import ValidationError
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from polyvec.errors import (
    AuthenticationError,
    BackendError,
    BackendTimeoutError,
    BackendUnavailableError,
    CollectionExistsError,
    CollectionNotFoundError,
    PolyvecError,
    RateLimitedError,
)

OVERFLOW: Final = "a score is beyond float32, in which Qdrant computes; scale the vectors down"

_BY_STATUS: Final[dict[int, type[BackendError]]] = {
    401: AuthenticationError,
    403: AuthenticationError,
    408: BackendTimeoutError,
    429: RateLimitedError,
    502: BackendUnavailableError,
    503: BackendUnavailableError,
    504: BackendTimeoutError,
}
_BY_CODE: Final[dict[grpc.StatusCode, int]] = {
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.ALREADY_EXISTS: 409,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
}


def translate(error: Exception) -> PolyvecError | None:
    """Return our error for one of the driver's, None for an unknown one."""
    match error:
        case ResourceExhaustedResponse():
            return RateLimitedError(error.message, retry_after_s=error.retry_after_s)
        case UnexpectedResponse():
            return _by_status(error.status_code or 0, reason(error))
        case ResponseHandlingException():
            return _by_source(error.source)
        case grpc.RpcError():
            return _by_status(_status(error), reason(error))
        case ValueError() | RuntimeError():
            return _by_text(str(error))  # local mode has no types of its own
    return None


def _status(error: grpc.RpcError) -> int:
    if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:  # also a full disk, or a message that is too large
        return 429 if "rate limit" in (error.details() or "").lower() else 507
    return _BY_CODE.get(error.code(), 500)


def reason(error: Exception) -> str:
    """Return what the server said."""
    if isinstance(error, grpc.RpcError):
        return f"{error.code().name}: {error.details()}"
    if not isinstance(error, UnexpectedResponse):
        return str(error)
    text = error.content.decode(errors="replace")
    try:
        text = json.loads(text)["status"]["error"]
    except (ValueError, TypeError, LookupError):
        text = text[:300]  # of a proxy, or the plain text of a 401
    return f"{error.status_code}: {text}"


def _by_status(status: int, text: str) -> PolyvecError:
    if status == 404 and "ollection" in text:  # noqa: PLR2004  # else it is not Qdrant that answers
        return CollectionNotFoundError(text)
    if status == 409:  # noqa: PLR2004
        return CollectionExistsError(text)
    if "Timeout error" in text:  # the server's own limit for a read, a 500
        return BackendTimeoutError(text)
    return _BY_STATUS.get(status, BackendError)(text)


def _by_source(source: Exception | str) -> PolyvecError:
    match source:
        case httpx.ConnectError() | httpx.ConnectTimeout():
            return BackendUnavailableError(f"cannot be reached: {source}")
        case httpx.TimeoutException():
            return BackendTimeoutError(f"no answer in time: {type(source).__name__}")
        case ValidationError() if any("score" in item["loc"] for item in source.errors()):
            return BackendError(OVERFLOW)  # JSON has no infinity, so the server sends null
        case httpx.TransportError():
            return BackendUnavailableError(f"{type(source).__name__}: {source}")
    return BackendError(f"the answer makes no sense: {source}")


def _by_text(text: str) -> PolyvecError | None:
    if "already accessed" in text:
        return BackendUnavailableError("another process has the directory open; use a server to share it")
    if text.startswith("Collection "):
        if text.endswith(" not found"):
            return CollectionNotFoundError("there is no such collection")
        if text.endswith(" already exists"):
            return CollectionExistsError("it exists already")
    return None
