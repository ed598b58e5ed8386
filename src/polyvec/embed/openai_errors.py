"""What goes wrong at OpenAI, in our own errors.

Codes of errors as seen in https://github.com/langchain-ai/langchain/issues/31227 (a request too large) and
https://github.com/langchain-ai/langchain/issues/33668 (an input too long). Other servers say 413 to either.
"""

from __future__ import annotations

import email.utils
import re
import time
from collections.abc import Callable, Mapping
from typing import Final

from polyvec.embed.limits import limit_of
from polyvec.errors import (
    AuthenticationError,
    BackendError,
    BackendTimeoutError,
    BackendUnavailableError,
    ConfigurationError,
    PolyvecError,
    QuotaExceededError,
    RateLimitedError,
)

_TOO_LARGE: Final = frozenset({"max_tokens_per_request", "context_length_exceeded"})
_TOO_LONG: Final = re.compile(r"maximum (context|input) length", re.IGNORECASE)
"""OpenAI's newer message, and vLLM's; they have no code."""


class TooLargeError(BackendError):
    """The request, or an input of it, is larger than the server takes; half of it may be fine."""


def translate(error: Exception, tokens: int, redact: Callable[[str], str], timeout_s: float) -> PolyvecError:
    """Return our error for one of the SDK.

    Args:
        error: Whatever was raised.
        tokens: Tokens of the request.
        redact: Removes secrets from a message.
        timeout_s: For the message.
    """
    import openai

    found: PolyvecError
    message = redact(str(error))
    if isinstance(error, PolyvecError):
        found = error
    # what breaks off in the middle of a body comes as it is from httpx, or httpx2 since openai 3
    elif isinstance(error, openai.APITimeoutError) or _is(error, "TimeoutException"):
        found = BackendTimeoutError(f"no answer within {timeout_s:g} s")
    elif isinstance(error, openai.APIConnectionError) or _is(error, "TransportError"):
        found = BackendUnavailableError(f"{message} {redact(str(error.__cause__ or ''))}".strip())
    elif isinstance(error, openai.APIStatusError):
        found = from_status(error.status_code, error.code, message, error.response.headers, tokens)
    else:
        found = BackendError(f"{type(error).__name__}: {message}")
    return found.at("openai", "embed", None)


def _is(error: Exception, name: str) -> bool:
    return any(kind.__name__ == name for kind in type(error).__mro__)


def from_status(
    status: int, code: str | None, message: str, headers: Mapping[str, str], tokens: int = 0
) -> PolyvecError:
    """Return our error for an HTTP status and OpenAI's error code."""
    if code in _TOO_LARGE or status == 413 or (status == 400 and _TOO_LONG.search(message)):  # noqa: PLR2004
        return TooLargeError(message)
    if code == "insufficient_quota":
        return QuotaExceededError(message)
    pause = retry_after_s(headers)
    if status == 429 or (status == 503 and pause is not None):  # noqa: PLR2004  # try again later
        if tokens > (limit_of(headers) or float("inf")):
            return TooLargeError(message)  # later would be too large, too
        return RateLimitedError(message, retry_after_s=pause)
    if status in (401, 403):
        return AuthenticationError(message)
    if status == 404:  # noqa: PLR2004  # no such model, or not the path of such a server
        return ConfigurationError(message)
    if status == 408:  # noqa: PLR2004  # request timeout
        return BackendTimeoutError(message)
    if status == 409 or status >= 500:  # noqa: PLR2004  # which the SDK tries again, too
        return BackendUnavailableError(message)
    return BackendError(message)


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Return how long a server asks to wait, from `retry-after-ms` or `retry-after` (seconds or a date)."""
    for name, factor in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        value = headers.get(name, "")
        try:
            return max(0.0, float(value) * factor)
        except ValueError:
            pass
        if (date := email.utils.parsedate_tz(value)) is not None:
            return max(0.0, email.utils.mktime_tz(date) - time.time())
    return None
