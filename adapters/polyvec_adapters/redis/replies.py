"""What a server answers, in RESP3, made out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from polyvec.errors import BackendError, BackendTimeoutError, UnsupportedOperationError
from polyvec_adapters.redis.errors import CLUSTER
from polyvec_adapters.redis.records import POSITION, Row

OLDEST_SEARCH: Final = (2, 10)
"""The search of Redis Stack 7.4; what earlier ones do was not looked at."""


def check_server(hello: Mapping[bytes, Any]) -> None:
    """Refuse a server on which answers would be wrong.

    Args:
        hello: The answer to HELLO (https://redis.io/docs/latest/commands/hello/).
    """
    if hello.get(b"mode") == b"cluster":
        raise UnsupportedOperationError(CLUSTER)
    search = search_version(hello)
    if search and search < OLDEST_SEARCH:
        found, oldest = (".".join(map(str, version)) for version in (search, OLDEST_SEARCH))
        raise UnsupportedOperationError(f"the server's search is {found}, too old: {oldest} is needed")


def search_version(hello: Mapping[bytes, Any]) -> tuple[int, ...]:
    """Return the version of the search module, e.g. (2, 10, 5); () where the server does not say."""
    for module in hello.get(b"modules", ()):
        if module[b"name"] == b"search":
            number: int = module[b"ver"]
            return number // 10_000, number // 100 % 100, number % 100
    return ()


def total(answer: Any) -> int:
    """Return how many records a search found.

    Raises:
        BackendTimeoutError: It did not get through all of them.
        Exception: The answer itself, if it is an error.
    """
    if isinstance(answer, Exception):
        raise answer
    if warnings := answer.get(b"warning"):
        text = "; ".join(warning.decode(errors="replace") for warning in warnings)
        raise (BackendTimeoutError if "imeout" in text else BackendError)(f"not all was searched: {text}")
    found: int = answer[b"total_results"]
    return found


def within(prefix: str, answer: Any) -> bool:
    """Return whether the keys of all records that a search found begin with this."""
    start = prefix.encode()
    return all(row[b"id"].startswith(start) for row in answer[b"results"])


def rows(answer: Any, prefix: str) -> tuple[list[str], list[Row]]:
    """Return the ids and hashes of the records that a search found and that are still there.

    Args:
        answer: To a search that returns `records.names`.
        prefix: What their keys begin with.
    """
    total(answer)
    start = len(prefix.encode())
    found = {
        row[b"id"][start:].decode(): fields
        for row in answer[b"results"]
        if (fields := row.get(b"extra_attributes")) and POSITION.encode() in fields
    }
    return list(found), list(found.values())


def first_error(answers: Iterable[Any]) -> Exception | None:
    """Return the first error among the answers of a transaction, and in what EXEC answered."""
    for answer in answers:
        if isinstance(answer, Exception):
            return answer
        if isinstance(answer, list) and (inner := first_error(answer)) is not None:
            return inner
    return None
