"""Filters as Qdrant conditions: tokens match exactly, ranges compare companions. See `records`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from qdrant_client import models

from polyvec.encoding import sortable_pair
from polyvec.filters import And, Filter, Not, Or
from polyvec.tokens import HasAny, InRange, RangeOperator, compile_filter
from polyvec_adapters.qdrant.records import FILTERED, NAMESPACE, TOKENS, low

_STRICT: Final[dict[RangeOperator, RangeOperator]] = {"lt": "lt", "lte": "lt", "gt": "gt", "gte": "gt"}
_BEYOND: Final[dict[RangeOperator, RangeOperator]] = {"lt": "gte", "lte": "gt", "gt": "gt", "gte": "gte"}


def to_native(filter: Filter) -> models.Condition:
    """Return the condition for a normalised filter; it says nothing about the namespace."""
    return _condition(compile_filter(filter))


def within(namespace: str, filter: Filter | None) -> models.Filter:
    """Return the condition for a normalised filter, None for every record, inside a namespace."""
    inside = models.FieldCondition(key=NAMESPACE, match=models.MatchValue(value=namespace))
    # local mode evaluates from left to right, and the namespace is what most records are in
    return models.Filter(must=[inside] if filter is None else [to_native(filter), inside])


def range_fields(filter: Filter | None) -> list[str]:
    """Return the payload fields that the ranges of a normalised filter compare."""
    return [] if filter is None else sorted(set(_fields(compile_filter(filter))))


def companion_fields(field: str) -> list[str]:
    """Return the payload fields of a companion."""
    return [f"{FILTERED}.{field}", f"{FILTERED}.{low(field)}"]


def _fields(node: Filter) -> Iterator[str]:
    match node:
        case And(operands) | Or(operands):
            for operand in operands:
                yield from _fields(operand)
        case Not(operand):
            yield from _fields(operand)
        case InRange(field):
            yield from companion_fields(field)


def _condition(node: Filter) -> models.Condition:
    match node:
        case And(operands):
            return models.Filter(must=[_condition(operand) for operand in operands])
        case Or(operands):
            return models.Filter(should=[_condition(operand) for operand in operands])
        case Not(operand):
            return models.Filter(must_not=[_condition(operand)])
        case HasAny(tokens):
            return _has_any(tokens)
        case InRange(field, operator, bound):
            return _in_range(field, operator, bound)
    raise TypeError(f"{type(node).__name__} is not a node of a compiled filter")


def _has_any(tokens: tuple[str, ...]) -> models.FieldCondition:
    # an array matches where one of its elements does:
    # https://qdrant.tech/documentation/concepts/filtering/#match
    if len(tokens) == 1:
        return models.FieldCondition(key=TOKENS, match=models.MatchValue(value=tokens[0]))
    return models.FieldCondition(key=TOKENS, match=models.MatchAny(any=list(tokens)))


def _in_range(field: str, operator: RangeOperator, bound: float) -> models.Condition:
    """Compare pairs: the high half decides, the low half (0 where absent) where that is equal."""
    first, second = companion_fields(field)
    high, rest = sortable_pair(field, bound)
    if rest == 0 and operator in ("lt", "gte"):
        return _range(first, operator, high)  # no low half is less than 0
    equal = models.FieldCondition(key=first, range=models.Range(gte=high, lte=high))
    beyond = _range(second, _BEYOND[operator], rest)
    tie = (
        models.Filter(must=[equal, beyond])
        if operator in ("gt", "gte")
        else models.Filter(must=[equal], must_not=[beyond])
    )
    return models.Filter(should=[_range(first, _STRICT[operator], high), tie])


def _range(field: str, operator: RangeOperator, bound: int) -> models.FieldCondition:
    return models.FieldCondition(key=field, range=models.Range(**{operator: bound}))
