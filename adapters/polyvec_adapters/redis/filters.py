"""Filters in the query language of Redis, dialect 2: tags match tokens, numeric ranges compare companions.

Nothing of the caller's gets into a query: tokens are letters, fields are hashes, numbers are parameters.
"""

from __future__ import annotations

from collections.abc import Iterable, Set
from typing import Final, NamedTuple

from polyvec.filters import And, Filter, Not, Or
from polyvec.tokens import HasAny, InRange, RangeOperator, compile_filter
from polyvec_adapters.redis.ladder import cover
from polyvec_adapters.redis.records import EXACT, SPACE, TOKENS, letters, rounded, space_tag


class Condition(NamedTuple):
    """A condition of a query.

    Attributes:
        text: In the query language.
        numbers: The parameters that it names `$p0`, `$p1`, ...
    """

    text: str
    numbers: tuple[str, ...] = ()

    @property
    def parameters(self) -> list[str]:
        """Names and values in turn, as PARAMS takes them."""
        return [part for index, number in enumerate(self.numbers) for part in (f"p{index}", number)]


EVERYTHING: Final = "*"
"""The query for all records; it joins with no other."""


def query(namespace: str | None, *conditions: str) -> str:
    """Return the query for all these conditions in a namespace; None is the one that there is."""
    inside = () if namespace is None else (f"@{SPACE}:{{{space_tag(namespace)}}}",)
    return " ".join((*inside, *filter(None, conditions))) or EVERYTHING


def to_native(filter: Filter, numeric: Set[str]) -> Condition:
    """Return the condition for a normalised filter; it says nothing about the namespace.

    Args:
        filter: Normalised.
        numeric: The numeric fields of the index.
    """
    numbers: list[str] = []
    text = _text(compile_filter(filter), numeric, numbers)
    return Condition(text, tuple(numbers))


def range_fields(filter: Filter) -> set[str]:
    """Return the numeric fields that the ranges of a normalised filter compare."""
    return _fields(compile_filter(filter))


def _fields(node: Filter) -> set[str]:
    match node:
        case And(operands) | Or(operands):
            return set().union(*map(_fields, operands))
        case Not(operand):
            return _fields(operand)
        case InRange(field):
            return {field}
    return set()


def _text(node: Filter, numeric: Set[str], numbers: list[str]) -> str:
    match node:
        case And(operands):
            return f"({' '.join(_text(operand, numeric, numbers) for operand in operands)})"
        case Or(operands):
            return f"({'|'.join(_text(operand, numeric, numbers) for operand in operands)})"
        case Not(operand):
            return f"(-{_text(operand, numeric, numbers)})"
        case HasAny(tokens):
            return _has_any(tokens)
        case InRange(field, operator, bound):
            return _in_range(field, operator, bound, numeric, numbers)
    raise TypeError(f"{type(node).__name__} is not a node of a compiled filter")


def _has_any(tokens: Iterable[str]) -> str:
    return f"@{TOKENS}:{{{letters('|'.join(tokens))}}}"


def _in_range(
    field: str, operator: RangeOperator, bound: float, numeric: Set[str], numbers: list[str]
) -> str:
    """Compare the numeric field as far as float64 goes, and beyond it, or where there is none, tokens."""
    far = rounded(field, bound)
    if field in numeric and not far:
        return _range(field, operator, float(bound), numbers)
    beyond = _has_any(cover(field, operator, bound))
    # a bound far away leaves all that float64 holds on one side
    if field in numeric and operator in ("lt", "lte") and bound > 0:
        return f"({_range(field, 'lt', EXACT, numbers)}|{beyond})"
    if field in numeric and operator in ("gt", "gte") and bound < 0:
        return f"({_range(field, 'gt', -EXACT, numbers)}|{beyond})"
    return beyond


def _range(field: str, operator: RangeOperator, bound: float, numbers: list[str]) -> str:
    name = f"$p{len(numbers)}"
    numbers.append(repr(bound))
    limits = {"lt": f"-inf ({name}", "lte": f"-inf {name}", "gt": f"({name} +inf", "gte": f"{name} +inf"}
    return f"@{field}:[{limits[operator]}]"
