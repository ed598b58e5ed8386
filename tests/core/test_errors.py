"""The tree of errors, their messages, and what they carry."""

from __future__ import annotations

import inspect
import pickle
import re

import pytest

import polyvec
from polyvec import errors
from polyvec.errors import (
    BackendError,
    BackendTimeoutError,
    BackendUnavailableError,
    ConfigurationError,
    InvalidInputError,
    MissingDriverError,
    PolyvecError,
    RateLimitedError,
    UnsupportedOperationError,
    shown,
)

KINDS = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, PolyvecError)]


def test_the_tree_is_the_one_that_is_drawn() -> None:
    drawn: dict[str, str] = {}
    path: list[str] = []
    for indent, name in re.findall(r"^    ([│├└─ ]*)(\w+Error)", errors.__doc__ or "", re.MULTILINE):
        level = len(indent) // 4
        path[level:] = [name]
        drawn[name] = path[level - 1] if level else "Exception"
    assert drawn == {kind.__name__: kind.__bases__[0].__name__ for kind in KINDS}


def test_they_are_all_public() -> None:
    for kind in KINDS:
        assert getattr(polyvec, kind.__name__) is kind
        assert kind.__doc__


def test_what_is_retryable() -> None:
    retryable = {kind for kind in KINDS if kind.retryable}
    assert retryable == {RateLimitedError, BackendUnavailableError, BackendTimeoutError}


def test_invalid_input_is_a_value_error() -> None:
    assert [kind.__name__ for kind in KINDS if issubclass(kind, ValueError)] == [
        "DimensionMismatchError", "InvalidFilterError", "InvalidInputError",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("adapter", "operation", "collection", "expected"),
    [
        (None, None, None, "404 not found"),
        ("qdrant", "query", "docs", "qdrant: query('docs'): 404 not found"),
        ("qdrant", "close", None, "qdrant: close: 404 not found"),
        ("qdrant", None, None, "qdrant: 404 not found"),
        (None, "query", "docs", "query('docs'): 404 not found"),
        ("qdrant", "query", "it's", """qdrant: query("it's"): 404 not found"""),
        ("qdrant", "query", "", "qdrant: query(''): 404 not found"),
    ],
)
def test_messages(adapter: str | None, operation: str | None, collection: str | None, expected: str) -> None:
    error = BackendError("404 not found", backend=adapter, operation=operation, collection=collection)
    assert str(error) == expected
    assert (error.message, error.report) == ("404 not found", None)


def test_at_fills_in_only_what_is_missing() -> None:
    error = InvalidInputError("no")
    assert error.at("memory", "query", "docs") is error
    assert str(error) == "memory: query('docs'): no"
    assert InvalidInputError("no", collection="").at("memory", "query", "docs").collection == ""
    assert str(error.at("qdrant", "count", "other")) == "memory: query('docs'): no"
    assert (
        str(ConfigurationError("no", backend="redis").at("qdrant", "connect", None)) == "redis: connect: no"
    )


@pytest.mark.parametrize("kind", KINDS)
def test_they_survive_pickling(kind: type[PolyvecError]) -> None:
    """A pool of processes hands errors over like this."""
    error = kind("no").at("memory", "query", "docs")
    found = pickle.loads(pickle.dumps(error))  # noqa: S301  # our own
    assert type(found) is kind
    assert str(found) == "memory: query('docs'): no"


def test_rate_limits() -> None:
    assert RateLimitedError("slow").retry_after_s is None
    assert RateLimitedError("slow", retry_after_s=1.5).retry_after_s == 1.5


def test_catching_by_kind() -> None:
    assert issubclass(MissingDriverError, ConfigurationError)
    assert not issubclass(UnsupportedOperationError, BackendError)
    with pytest.raises(PolyvecError):
        raise RateLimitedError("slow")


class Unprintable:
    def __repr__(self) -> str:
        raise RuntimeError("no")


def test_shown() -> None:
    deep: list[object] = []
    for _ in range(10_000):
        deep = [deep]
    assert shown("it's") == '"it\'s"'
    assert shown(None) == "None"
    assert shown("x" * 1000) == "'" + "x" * 79
    assert shown("\ud800\n") == r"'\ud800\n'"
    assert shown(deep) == "<list>"
    assert shown(10**5000) == "<int>"
    assert shown(Unprintable()) == "<Unprintable>"
