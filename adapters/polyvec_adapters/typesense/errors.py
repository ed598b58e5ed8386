"""What goes wrong on the way to the server and in it, as our errors."""

from __future__ import annotations

import ssl
from typing import Final

import httpx
import orjson

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

OVERFLOW: Final = "a score is beyond float32, in which Typesense computes; scale the vectors down"

UNAUTHORIZED: Final = 401
FORBIDDEN: Final = 403
MISSING: Final = 404
CONFLICT: Final = 409

# https://typesense.org/docs/0.24.1/api/api-keys.html#sample-actions
_RIGHTS: Final = "a key with limited rights needs debug:list, collections:* and documents:*"

_BY_STATUS: Final[dict[int, type[BackendError]]] = {
    408: BackendTimeoutError,
    429: RateLimitedError,
    502: BackendUnavailableError,
    503: BackendUnavailableError,
    504: BackendTimeoutError,
}


class ConflictError(BackendError):
    """Somebody else keeps writing the same records at the same time."""

    retryable = True


class RefusedError(Exception):
    """The server says no: to a request, to one search of several, or to one document.

    Attributes:
        status: As of HTTP.
        text: What the server says.
    """

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"{status}: {text}")
        self.status = status
        self.text = text

    @classmethod
    def of(cls, response: httpx.Response) -> RefusedError:
        """Return the error of an answer that is none of success."""
        try:
            text = str(orjson.loads(response.content)["message"])
        except (ValueError, TypeError, LookupError):
            text = response.text[:300]  # of a proxy
        return cls(response.status_code, text)


def translate(error: Exception) -> PolyvecError | None:
    """Return our error for one of these, None for an unknown one."""
    match error:
        case RefusedError():
            return _by_status(error)
        case httpx.ConnectError() | httpx.ConnectTimeout():
            hint = "; tls=false if the server does not encrypt" if _is_tls(error) else ""
            return BackendUnavailableError(f"cannot be reached: {str(error) or type(error).__name__}{hint}")
        case httpx.TimeoutException():
            return BackendTimeoutError(f"no answer in time: {type(error).__name__}")
        case httpx.TransportError():
            return BackendUnavailableError(f"{type(error).__name__}: {error}")
        case orjson.JSONDecodeError():
            return BackendError(f"the answer makes no sense: {error}")
    return None


def lacks_field(error: RefusedError) -> bool:
    """Return whether a filter was refused because no document has had a field of its yet."""
    return error.status == MISSING and "Could not find a filter field" in error.text


def _by_status(error: RefusedError) -> PolyvecError:
    status, text, said = error.status, error.text, str(error)
    # documents that are missing are no error anywhere, so this is about the collection
    if status == MISSING and ("not found" in text.lower() or "No collection" in text):
        return CollectionNotFoundError(said)
    if status == CONFLICT:
        return CollectionExistsError(said) if "collection" in text else ConflictError(said)
    if status in (UNAUTHORIZED, FORBIDDEN):
        return AuthenticationError(f"{said} ({_RIGHTS})")
    return _BY_STATUS.get(status, BackendError)(said)


def _is_tls(error: BaseException) -> bool:
    causes = []
    cause: BaseException | None = error
    while cause is not None and cause not in causes:
        causes.append(cause)
        cause = cause.__cause__ or cause.__context__
    return any(isinstance(cause, ssl.SSLError) for cause in causes)
