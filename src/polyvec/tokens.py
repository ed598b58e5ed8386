"""Tokens and companions: how exact filters work on an engine that knows neither our types nor our rules.

A record carries one array of *tokens*, 128-bit hashes written as 32 hex digits: one for each key that
exists, one for each scalar, one for each list and one for each element of a list. A token is made from the
kind, the key and the value, so equality of tokens is equality as in `filters.Eq`: 1 and 1.0 share a token,
1, True and "1" do not. Every condition but a range then becomes "has one of these tokens", which any engine
can answer exactly for any key, without a schema, and with nothing to escape.

Ranges use *companions*: a field `n_<hash of key>` with the number as float64, or `d_<hash of key>` with the
instant in integer microseconds.

An adapter stores `record_tokens(metadata)` and `record_companions(metadata)`, and translates
`compile_filter(filter)`, which consists of `HasAny`, `InRange`, `And`, `Or` and `Not` only.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from typing import Final, Literal, TypeAlias, final

from polyvec.filters import (
    And,
    Contains,
    ContainsAll,
    ContainsAny,
    Eq,
    Exists,
    Filter,
    Gt,
    Gte,
    In,
    Key,
    Lt,
    Lte,
    is_range,
    map_leaves,
    range_key,
    scalar_key,
)
from polyvec.types import Metadata, Scalar

RangeOperator: TypeAlias = Literal["lt", "lte", "gt", "gte"]
_RANGE_OPERATORS: Final[dict[type[Filter], RangeOperator]] = {
    Lt: "lt", Lte: "lte", Gt: "gt", Gte: "gte",
}  # fmt: skip
_CACHED_LENGTH: Final = 64


@final
@dataclass(frozen=True, slots=True, eq=False)
class HasAny(Filter):
    """True where the record has at least one of the tokens (at least one is given)."""

    tokens: tuple[str, ...]


@final
@dataclass(frozen=True, slots=True, eq=False)
class InRange(Filter):
    """True where the record has the companion `field` and `companion <operator> bound` holds.

    Attributes:
        field: Name of the companion.
        operator: "lt", "lte", "gt" or "gte".
        bound: float64 for a field `n_...`, int microseconds for a field `d_...`.
    """

    field: str
    operator: RangeOperator
    bound: float


def _token(tag: str, key: str, value: object) -> str:
    """Hash one fact about a record; the length of the key keeps (key, value) unambiguous."""
    message = f"{tag}{len(key)}:{key}{value}"
    return blake2b(message.encode(), digest_size=16).hexdigest()


_cached_token = lru_cache(maxsize=65_536)(_token)


def exists_token(key: str) -> str:
    """Return the token of every record that has a value other than None at `key`."""
    return _cached_token("e", key, "")


def list_token(key: str) -> str:
    """Return the token of every record that has a list at `key`."""
    return _cached_token("l", key, "")


def _value_token(key: str, value: Key, *, element: bool) -> str:
    kind, inner = value
    tag = kind.upper() if element else kind
    # the canonical text, because 1 and True would share an entry of the cache
    text = inner if kind == "s" else repr(inner)
    make = _cached_token if len(text) <= _CACHED_LENGTH else _token
    return make(tag, key, text)


def scalar_token(key: str, value: Scalar) -> str:
    """Return the token of every record whose value at `key` is a scalar equal to `value`."""
    return _value_token(key, scalar_key(value), element=False)  # type: ignore[arg-type]  # a scalar


def element_token(key: str, value: Scalar) -> str:
    """Return the token of every record that has a list with an element equal to `value` at `key`."""
    return _value_token(key, scalar_key(value), element=True)  # type: ignore[arg-type]  # a scalar


def record_tokens(metadata: Metadata) -> list[str]:
    """Return the tokens of a record, each once."""
    tokens: dict[str, None] = {}
    for key, value in metadata.items():
        if value is None:
            continue
        tokens[exists_token(key)] = None
        if type(value) is list:
            tokens[list_token(key)] = None
            for item in value:
                if (found := scalar_key(item)) is not None:
                    tokens[_value_token(key, found, element=True)] = None
        elif (found := scalar_key(value)) is not None:
            tokens[_value_token(key, found, element=False)] = None
    return list(tokens)


@lru_cache(maxsize=4096)
def companion_field(kind: str, key: str) -> str:
    """Return the name of the companion of `key`: `n_` (numbers) or `d_` (datetimes) and 20 hex digits."""
    return f"{kind}_{blake2b(key.encode(), digest_size=10).hexdigest()}"


def record_companions(metadata: Metadata) -> dict[str, float | int]:
    """Return the companions of a record: float64 under `n_...`, int microseconds under `d_...`."""
    companions: dict[str, float | int] = {}
    for key, value in metadata.items():
        if (found := range_key(value)) is not None:
            kind, number = found
            companions[companion_field(kind, key)] = number
    return companions


def compile_filter(filter: Filter) -> Filter:
    """Return a normalised filter with its conditions replaced by `HasAny` and `InRange`."""
    return map_leaves(filter, _compile)


def _compile(node: Filter) -> Filter:
    match node:
        case Eq(key, value):
            return HasAny((scalar_token(key, value),))
        case In(key, values):
            return HasAny(_unique(scalar_token(key, value) for value in values))
        case Contains(key, value):
            return HasAny((element_token(key, value),))
        case ContainsAny(key, values):
            return HasAny(_unique(element_token(key, value) for value in values))
        case ContainsAll(key, ()):
            return HasAny((list_token(key),))
        case ContainsAll(key, values):
            tokens = _unique(element_token(key, value) for value in values)
            parts = tuple(HasAny((token,)) for token in tokens)
            return parts[0] if len(parts) == 1 else And(parts)
        case Exists(key):
            return HasAny((exists_token(key),))
    if not is_range(node):
        raise TypeError(f"{type(node).__name__} is not a node of a normalised filter")
    if (found := range_key(node.value)) is None:
        raise AssertionError("the literal of a range is a number or a datetime")
    kind, bound = found
    field = companion_field(kind, node.key)
    return InRange(field, _RANGE_OPERATORS[type(node)], bound)


def _unique(tokens: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(tokens))
