"""The driver's errors as ours, and what a server says besides."""

from __future__ import annotations

from typing import Any

import pytest
from redis import exceptions as e

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
from polyvec_adapters.redis import errors, replies


@pytest.mark.parametrize(
    ("error", "ours"),
    [
        (e.AuthenticationError("invalid username-password pair or user is disabled."), AuthenticationError),
        (e.NoPermissionError("this user has no permissions to run 'ft.search'"), AuthenticationError),
        (e.ConnectionError("Error 111 connecting to 127.0.0.1:1. Refused."), BackendUnavailableError),
        (e.BusyLoadingError("Redis is loading the dataset in memory"), BackendUnavailableError),
        (e.TimeoutError("Timeout connecting to server"), BackendUnavailableError),
        (e.TimeoutError("Timeout reading from socket"), BackendTimeoutError),
        (e.ReadOnlyError("You can't write against a read only replica."), BackendUnavailableError),
        (e.ClusterDownError("The cluster is down"), BackendUnavailableError),
        (e.OutOfMemoryError("command not allowed when used memory > 'maxmemory'."), QuotaExceededError),
        (e.MovedError("3999 127.0.0.1:6381"), UnsupportedOperationError),
        (e.ClusterCrossSlotError("Keys in request don't hash to the same slot"), UnsupportedOperationError),
        (
            e.ResponseError("unknown command 'FT._LIST', with args beginning with: "),
            UnsupportedOperationError,
        ),
        (e.ResponseError("unknown command 'EVAL', with args beginning with: "), BackendError),
        # search 2.10, 8.2 and 8.8
        (e.ResponseError("polyvec:docs:0: no such index"), CollectionNotFoundError),
        (e.ResponseError("No such index polyvec:docs:0"), CollectionNotFoundError),
        (e.ResponseError("SEARCH_INDEX_NOT_FOUND Index not found: polyvec"), CollectionNotFoundError),
        (e.ResponseError("Unknown Index name"), CollectionNotFoundError),
        (e.ResponseError("Timeout limit was reached"), BackendTimeoutError),
        (e.ResponseError("Syntax error at offset 1"), BackendError),
        (e.DataError("Invalid input"), BackendError),
    ],
)
def test_the_table(error: Exception, ours: type[PolyvecError]) -> None:
    assert type(errors.translate(error)) is ours


def test_somebody_elses_error() -> None:
    assert errors.translate(ValueError("no")) is None


def test_an_index_that_is_gone() -> None:
    assert errors.missing_index(e.ResponseError("Unknown index name"))
    assert not errors.missing_index(e.ResponseError("Syntax error"))
    assert not errors.missing_index({b"total_results": 0})


def hello(search: int | None = 21005, mode: bytes = b"standalone") -> dict[bytes, Any]:
    modules = [{b"name": b"vectorset", b"ver": 1}]
    modules += [{b"name": b"search", b"ver": search}] if search else []
    return {b"version": b"8.2.3", b"mode": mode, b"modules": modules}


def test_servers_that_are_fine() -> None:
    replies.check_server(hello())
    replies.check_server(hello(80_203))
    replies.check_server(hello(None))  # a service that does not say what it is made of
    assert replies.search_version(hello(80_203)) == (8, 2, 3)


@pytest.mark.parametrize(
    ("answer", "what"), [(hello(20_810), "2.8.10, too old: 2.10"), (hello(mode=b"cluster"), "cluster")]
)
def test_servers_that_are_not(answer: dict[bytes, Any], what: str) -> None:
    with pytest.raises(UnsupportedOperationError, match=what):
        replies.check_server(answer)


def test_a_search_that_did_not_get_through() -> None:
    answer = {b"total_results": 3, b"warning": [b"Timeout limit was reached"], b"results": []}
    with pytest.raises(BackendTimeoutError, match="not all was searched"):
        replies.total(answer)
    with pytest.raises(BackendTimeoutError):
        replies.rows(answer, "")
    with pytest.raises(BackendError, match="insufficient memory"):
        replies.total(answer | {b"warning": [b"Index contains partial data: insufficient memory"]})
    assert replies.total(answer | {b"warning": []}) == 3


def test_a_record_that_is_gone_when_it_is_read() -> None:
    results = [
        {b"id": b"p:a", b"extra_attributes": {b"pos": b"1", b"text": b"t"}},
        {b"id": b"p:b", b"extra_attributes": {b"__score": b"1"}},
        {b"id": b"p:c", b"extra_attributes": None},
        {b"id": b"p:d"},
    ]
    answer = {b"total_results": 4, b"warning": [], b"results": results}
    assert replies.rows(answer, "p:") == (["a"], [{b"pos": b"1", b"text": b"t"}])


def test_the_first_error_of_a_transaction() -> None:
    memory = e.OutOfMemoryError("no")
    assert replies.first_error([b"OK", b"QUEUED", b"QUEUED", [1, 8]]) is None
    assert replies.first_error([b"OK", b"QUEUED", memory, e.ExecAbortError("aborted")]) is memory
    assert replies.first_error([b"OK", b"QUEUED", b"QUEUED", [1, memory]]) is memory
