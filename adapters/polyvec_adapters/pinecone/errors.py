"""What the driver raises, as our errors."""

from __future__ import annotations

from typing import Final

import httpx
from pinecone import errors

from polyvec.errors import (
    AuthenticationError,
    BackendError,
    BackendTimeoutError,
    BackendUnavailableError,
    CollectionExistsError,
    CollectionNotFoundError,
    PolyvecError,
    QuotaExceededError,
    RateLimitedError,
)

# https://docs.pinecone.io/reference/api/errors: 500 is transient, 502 to 504 come from the gateway
_BY_STATUS: Final[dict[int, type[PolyvecError]]] = {
    401: AuthenticationError,
    402: QuotaExceededError,
    403: AuthenticationError,
    404: CollectionNotFoundError,
    408: BackendTimeoutError,
    409: CollectionExistsError,
    500: BackendUnavailableError,
    502: BackendUnavailableError,
    503: BackendUnavailableError,
    504: BackendTimeoutError,
}

# read and write units of a plan: https://docs.pinecone.io/reference/api/database-limits#rate-limits
_USED_UP: Final = "for the current month"


class NotYetError(BackendTimeoutError):
    """The service has taken a request and not yet done what it asks; the same again would be no quicker."""

    retryable = False


def translate(error: Exception) -> PolyvecError | None:
    """Return our error for one of the driver's, None for an unknown one."""
    match error:
        case errors.RateLimitError():
            if _USED_UP in error.message:
                return QuotaExceededError(str(error))
            return RateLimitedError(str(error), retry_after_s=error.retry_after)
        case errors.ForbiddenError() if "quota" in f"{error.error_code} {error.message}".lower():
            return QuotaExceededError(str(error))
        case errors.ApiError():
            return _BY_STATUS.get(error.status_code, BackendError)(str(error))
        case errors.PineconeTimeoutError() if not isinstance(error.__cause__, httpx.ConnectTimeout):
            return BackendTimeoutError(f"no answer in time: {error}")
        case errors.PineconeTimeoutError() | errors.PineconeConnectionError():
            return BackendUnavailableError(f"cannot be reached: {error}")
        case errors.ResponseParsingError():
            return BackendError(f"the answer makes no sense: {error}")
    return None
