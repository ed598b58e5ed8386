"""Errors of the driver and of gRPC as ours."""

from __future__ import annotations

import grpc
import pytest
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
from polyvec_adapters.milvus import errors


class Failed(grpc.RpcError):
    """As grpc raises it: with a status and a text."""

    def __init__(self, code: grpc.StatusCode, details: str = "") -> None:
        self._code = code
        self._details = details

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return self._details


@pytest.mark.parametrize(
    ("error", "ours"),
    [
        (MilvusException(100, "can't find collection[collection=docs]"), CollectionNotFoundError),
        (MilvusException(101, "collection not loaded"), BackendUnavailableError),
        (MilvusException(8, "request is rejected by grpc RateLimiter middleware"), RateLimitedError),
        (MilvusException(9, "quota exceeded[reason=disk quota exceeded]"), QuotaExceededError),
        (MilvusException(800, "database not found[database=books]"), ConfigurationError),
        (MilvusException(1400, "auth check failure"), AuthenticationError),
        (MilvusException(65535, "create duplicate collection with"), CollectionExistsError),
        (MilvusException(1100, "invalid parameter"), BackendError),
        (Failed(grpc.StatusCode.UNAUTHENTICATED), AuthenticationError),
        (Failed(grpc.StatusCode.UNAVAILABLE), BackendUnavailableError),
        (Failed(grpc.StatusCode.DEADLINE_EXCEEDED), BackendTimeoutError),
        (Failed(grpc.StatusCode.RESOURCE_EXHAUSTED, "rate limit exceeded"), RateLimitedError),
        (Failed(grpc.StatusCode.RESOURCE_EXHAUSTED, "message larger than max"), BackendError),
        (Failed(grpc.StatusCode.INTERNAL), BackendError),
    ],
)  # fmt: skip
def test_the_table(error: Exception, ours: type[PolyvecError]) -> None:
    assert type(errors.translate(error)) is ours


def test_somebody_elses_error() -> None:
    assert errors.translate(ValueError("no")) is None


@pytest.mark.parametrize(
    ("error", "too_large"),
    [
        (MilvusException(65535, "query results exceed the maxOutputSize Limit 104857600"), True),
        (MilvusException(65535, "the response size exceeds the limit size 104857600"), True),
        (MilvusException(65535, "no such field"), False),
        (Failed(grpc.StatusCode.RESOURCE_EXHAUSTED, "Received message larger than max (9 vs. 8)"), True),
        (Failed(grpc.StatusCode.RESOURCE_EXHAUSTED, "rate limit exceeded"), False),
    ],
)
def test_answers_that_are_too_large(error: MilvusException | grpc.RpcError, too_large: bool) -> None:
    assert errors.is_too_large(error) is too_large
