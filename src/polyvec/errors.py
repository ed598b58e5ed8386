"""The errors of polyvec: one tree, the same error for the same mistake on every backend.

    PolyvecError
    ├── ConfigurationError              a setting, URL or file is wrong; says which and what would be right
    │   └── MissingDriverError          prints the exact `pip install` line
    ├── InvalidInputError (ValueError)  the caller's data is wrong; nothing was sent
    │   ├── DimensionMismatchError
    │   └── InvalidFilterError
    ├── UnsupportedOperationError       this backend cannot do it; says why; nothing was sent
    │   └── UnsupportedFilterError
    ├── CollectionNotFoundError
    ├── RecordNotFoundError             only where an operation needs the record (query_by_id)
    ├── CollectionExistsError
    ├── ForeignCollectionError          the collection exists but polyvec did not create it
    ├── SpecMismatchError               it exists with another dimension, metric, index, ...
    ├── EmbeddingSpaceError             its vectors were made by another embedding model
    └── BackendError                    the backend refused or failed; the driver's exception is chained
        ├── AuthenticationError
        ├── RateLimitedError            `.retry_after_s`
        │   └── QuotaExceededError      waiting does not help: the account has nothing left
        ├── BackendUnavailableError
        └── BackendTimeoutError

Each has `.backend`, `.operation`, `.collection` (None where unknown) and `.retryable`; its message
reads `qdrant: query('docs'): 404 not found`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from polyvec.reports import IngestReport
    from polyvec.types import WriteReport


def shown(value: object) -> str:
    """Return the first 80 characters of the `repr` of a caller's value, whatever it is.

    A list nested 10,000 deep, an int of 10,000 digits and a broken `__repr__` have none.
    """
    try:
        return f"{value!r:.80}"
    except Exception:  # noqa: BLE001  # the caller's code may raise anything; the error being made matters more
        return f"<{type(value).__name__}>"


class PolyvecError(Exception):
    """The base of every error that polyvec raises on purpose.

    Attributes:
        backend: Name of the adapter, e.g. "qdrant".
        operation: Name of the public method, e.g. "upsert".
        collection: Name of the collection.
        report: What a write, or the ingestion of documents, had done when it stopped; else None.
    """

    retryable: ClassVar[bool] = False
    """Whether the same call may succeed when it is made again a little later."""

    def __init__(
        self,
        message: str,
        *,
        backend: str | None = None,
        operation: str | None = None,
        collection: str | None = None,
        report: WriteReport | IngestReport | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.backend = backend
        self.operation = operation
        self.collection = collection
        self.report = report

    def __str__(self) -> str:
        where = self.operation or ""
        if self.collection is not None:
            where += f"({self.collection!r})"
        return ": ".join(part for part in (self.backend, where, self.message) if part)

    def at(self, backend: str, operation: str, collection: str | None) -> PolyvecError:
        """Fill in the place where it is not known yet, and return the error itself."""
        self.backend = self.backend or backend
        self.operation = self.operation or operation
        self.collection = self.collection if self.collection is not None else collection
        return self


class ConfigurationError(PolyvecError):
    """A setting, a URL or a configuration file is wrong."""


class MissingDriverError(ConfigurationError):
    """The database driver of an adapter is not installed."""


class InvalidInputError(PolyvecError, ValueError):
    """The caller's data breaks a rule of the contract; nothing of it was sent."""


class DimensionMismatchError(InvalidInputError):
    """A vector has another length than the collection's dimension."""


class InvalidFilterError(InvalidInputError):
    """A filter breaks a rule: unknown operator, wrong kind of literal, too deep, too long."""


class UnsupportedOperationError(PolyvecError):
    """The backend cannot do this; the message says why."""


class UnsupportedFilterError(UnsupportedOperationError):
    """The backend cannot answer this filter exactly, so it is not sent at all."""


class CollectionNotFoundError(PolyvecError):
    """There is no collection of that name."""


class RecordNotFoundError(PolyvecError):
    """There is no record of that id, and the operation cannot do without it."""


class CollectionExistsError(PolyvecError):
    """There is a collection of that name already."""


class ForeignCollectionError(PolyvecError):
    """The database has a collection of that name, but polyvec did not create it."""


class SpecMismatchError(PolyvecError):
    """The collection exists and differs from what was asked for."""


class EmbeddingSpaceError(PolyvecError):
    """The vectors of the collection were made by another embedding model."""


class BackendError(PolyvecError):
    """The backend refused the request or failed; the driver's exception is the `__cause__`."""


class AuthenticationError(BackendError):
    """The key, the user or the password is missing, wrong, or not allowed to do this."""


class RateLimitedError(BackendError):
    """The backend asked for fewer requests.

    Attributes:
        retry_after_s: Seconds that the backend asked to wait; None where it did not say.
    """

    retryable = True

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class QuotaExceededError(RateLimitedError):
    """The account has used up what it may use; trying again a little later is of no use."""

    retryable = False


class BackendUnavailableError(BackendError):
    """The backend cannot be reached, or says that it cannot serve now."""

    retryable = True


class BackendTimeoutError(BackendError):
    """The backend did not answer within the timeout."""

    retryable = True
