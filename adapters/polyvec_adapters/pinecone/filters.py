"""Filters as Pinecone's: tokens match exactly, ranges compare numbers. See `records`.

    {"tokens": {"$in": ["5a1f...", "77c0..."]}}     has at least one of the tokens
    {"tokens": {"$nin": ["5a1f..."]}}               has none of them

Every record has tokens, so nothing depends on what `$nin` means for a missing field, which no page of the
vendor says (https://docs.pinecone.io/guides/search/filter-by-metadata) and which has changed
(https://github.com/deepset-ai/haystack-core-integrations/issues/590). There is no general negation. An update
of metadata cannot remove a number, so a range looks for the token of the number too.
"""

from __future__ import annotations

from typing import Any, Final, TypeAlias

from polyvec.filters import And, Filter, Not, Or, is_range, push_negations
from polyvec.tokens import HasAny, InRange, RangeOperator, compile_filter
from polyvec_adapters.pinecone.records import ANY, TOKENS, is_date, low, pair

Native: TypeAlias = dict[str, Any]

EVERYTHING: Final[Native] = {TOKENS: {"$in": [ANY]}}
"""Holds for every record; the service refuses an empty filter where it asks for one."""

_INVERSE: Final[dict[RangeOperator, RangeOperator]] = {"lt": "gte", "lte": "gt", "gt": "lte", "gte": "lt"}
_STRICT: Final[dict[RangeOperator, RangeOperator]] = {"lt": "lt", "lte": "lt", "gt": "gt", "gte": "gt"}


def to_native(filter: Filter) -> Native:
    """Return the condition for a normalised filter."""
    return _native(push_negations(compile_filter(filter)))


def negates(filter: Filter) -> bool:
    """Return whether a normalised filter has a negation of more than one condition."""
    match filter:
        case And(operands) | Or(operands):
            return any(map(negates, operands))
        case Not(operand):
            return isinstance(operand, And | Or)
    return False


def compares(filter: Filter) -> bool:
    """Return whether a normalised filter has a range."""
    match filter:
        case And(operands) | Or(operands):
            return any(map(compares, operands))
        case Not(operand):
            return compares(operand)
    return is_range(filter)


def _native(node: Filter) -> Native:
    match node:
        case And(operands):
            return {"$and": list(map(_native, operands))}
        case Or(operands):
            return {"$or": list(map(_native, operands))}
        case HasAny(tokens):
            return {TOKENS: {"$in": list(tokens)}}
        case Not(HasAny(tokens)):
            return {TOKENS: {"$nin": list(tokens)}}
        case InRange(field):
            return {"$and": [{TOKENS: {"$in": [field]}}, _compare(node)]}
        case Not(InRange(field, operator, bound)):
            return {"$or": [{TOKENS: {"$nin": [field]}}, _compare(InRange(field, _INVERSE[operator], bound))]}
    raise TypeError(f"{type(node).__name__} is not a node of a compiled filter")


def _compare(node: InRange) -> Native:
    """Compare a number; of a date, the microseconds where the seconds are equal."""
    field, operator, bound = node.field, node.operator, node.bound
    if not is_date(field):
        return {field: {f"${operator}": float(bound)}}
    seconds, rest = pair(field, bound)
    tie = {"$and": [{field: {"$eq": seconds}}, {low(field): {f"${operator}": rest}}]}
    return {"$or": [{field: {f"${_STRICT[operator]}": seconds}}, tie]}
