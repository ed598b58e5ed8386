"""From a filter to Chroma's `where`: tests on the list of tokens, and on the companions.

Chroma merges metadata, so a record may still have the companion of a key that it has lost. The list of tokens
is replaced as a whole by every write, and tells whether a companion is alive. A `strict` condition on a
companion asks for both; it is exact, but Chroma then collects every record with that key first (measured with
10,000 records: 2.7 times the time). A loose one does not, and may match too many records, never too few.

Syntax: https://docs.trychroma.com/docs/querying-collections/metadata-filtering, chromadb 1.5.9.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, final

from polyvec.errors import UnsupportedFilterError
from polyvec.filters import And, Filter, In, Not, Or, map_leaves, push_negations
from polyvec.tokens import (
    HasAny,
    InRange,
    RangeOperator,
    companion_field,
    compile_filter,
    exists_token,
    scalar_token,
)
from polyvec_adapters.chroma.records import BUCKET, TOKENS, short_token, sortable

Where: TypeAlias = dict[str, Any]

WIDTH: Final = 8
"""Most operands of one native `$and` or `$or`; more are nested.

The engine makes a chain of them, and SQLite refuses expressions more than 1,000 deep
(https://www.sqlite.org/limits.html)."""

MAX_DEPTH: Final = 60
"""Most `$and` and `$or` inside each other: 63 are answered with "Invalid where clause" (tried, 1.5.9)."""

MAX_VARIABLES: Final = 32_000
"""Most SQL variables, of SQLite's 32,766; a test on a token needs 2, a range 4, one of many values 1 each."""

_INVERSE: Final[dict[RangeOperator, RangeOperator]] = {"lt": "gte", "gte": "lt", "gt": "lte", "lte": "gt"}


def to_native(filter: Filter, *, strict: bool = True) -> Where:
    """Return the `where` of a normalised filter.

    Args:
        filter: Normalised.
        strict: False for one that is faster and may match more records; equal where there is no such one.

    Raises:
        UnsupportedFilterError: It is larger than what the engine takes.
    """
    where = _translate(push_negations(map_leaves(filter, _compile)), strict=strict)
    depth, variables = _size(where)
    if depth > MAX_DEPTH or variables > MAX_VARIABLES:
        raise UnsupportedFilterError(
            f"the filter is too large for Chroma: nested {depth} deep ({MAX_DEPTH} at most) with {variables} "
            f"SQL variables ({MAX_VARIABLES} at most); use fewer values in its lists"
        )
    return where


def in_buckets(buckets: Sequence[int], where: Where | None) -> Where:
    """Return a `where` for the records of some buckets for which `where` holds too."""
    within: Where = {BUCKET: {"$in": list(buckets)}}
    return within if where is None else {"$and": [within, where]}


@final
@dataclass(frozen=True, slots=True, eq=False)
class OneOf(Filter):
    """True where the record has the companion `field` and it is one of many tokens.

    An `$or` of as many tests on the list of tokens would cost one look-up for each record and value.

    Attributes:
        field: Name of the companion, which every record that has the key has too, unless it is no scalar.
        exists: Token of every record that has the key.
        tokens: In the form of `scalar_token`.
    """

    field: str
    exists: str
    tokens: tuple[str, ...]


def _compile(node: Filter) -> Filter:
    if isinstance(node, In) and len(node.values) > WIDTH:
        tokens = dict.fromkeys(short_token(scalar_token(node.key, value)) for value in node.values)
        return OneOf(companion_field("s", node.key), short_token(exists_token(node.key)), tuple(tokens))
    return compile_filter(node)


def _translate(node: Filter, *, strict: bool) -> Where:
    match node:
        case And(operands):
            return _join("$and", [_translate(operand, strict=strict) for operand in operands])
        case Or(operands):
            return _join("$or", [_translate(operand, strict=strict) for operand in operands])
        case HasAny(tokens):
            return _join("$or", [_has(short_token(token)) for token in tokens])
        case Not(HasAny(tokens)):
            return _join("$and", [_lacks(short_token(token)) for token in tokens])
        case OneOf(field, exists, tokens):
            within: Where = {field: {"$in": list(tokens)}}
            return {"$and": [_has(exists), within]} if strict else within
        case Not(OneOf(field, exists, tokens)):
            return {"$or": [_lacks(exists), {field: {"$nin": list(tokens)}}]}
        case InRange(field, operator, bound):
            within = {field: {f"${operator}": sortable(bound)}}
            return {"$and": [_has(field), within]} if strict else within
        case Not(InRange(field, operator, bound)):
            return {"$or": [_lacks(field), {field: {f"${_INVERSE[operator]}": sortable(bound)}}]}
    raise TypeError(f"{type(node).__name__} is not a node of a compiled filter")


def _has(token: str) -> Where:
    return {TOKENS: {"$contains": token}}


def _lacks(token: str) -> Where:
    return {TOKENS: {"$not_contains": token}}


def _join(operator: str, parts: list[Where]) -> Where:
    while len(parts) > WIDTH:
        parts = [_join(operator, parts[start : start + WIDTH]) for start in range(0, len(parts), WIDTH)]
    return parts[0] if len(parts) == 1 else {operator: parts}


def _size(where: Where) -> tuple[int, int]:
    """Return how deep `$and` and `$or` nest, and about how many SQL variables there will be."""
    [(key, value)] = where.items()
    if isinstance(value, list):
        sizes = [_size(part) for part in value]
        return 1 + max(depth for depth, _ in sizes), sum(variables for _, variables in sizes)
    [bound] = value.values()
    if isinstance(bound, list):
        return 0, 1 + len(bound)
    return 0, 2 if key == TOKENS else 4
