"""Filters as Milvus expressions: tokens match exactly, ranges compare companions. See `records`.

An expression holds nothing that a caller wrote: tokens and names of companions are hashes, and the name of a
namespace has only letters, digits and `_.-`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, Literal

from polyvec.filters import And, Filter, Not, Or, push_negations
from polyvec.tokens import HasAny, InRange, RangeOperator, compile_filter
from polyvec_adapters.milvus.records import KEY, NAMESPACE, NUMBERS, TOKENS

_SIGNS: Final[dict[RangeOperator, str]] = {"lt": "<", "lte": "<=", "gt": ">", "gte": ">="}
_OPPOSITES: Final[dict[RangeOperator, RangeOperator]] = {"lt": "gte", "lte": "gt", "gt": "lte", "gte": "lt"}


def to_native(filter: Filter) -> str:
    """Return the expression for a normalised filter; it says nothing about the namespace.

    Comparisons with a JSON value that is absent differ between versions of Milvus once they are negated
    (https://github.com/milvus-io/milvus/issues/47164), so only tests for tokens ever are.
    """
    return _expression(push_negations(compile_filter(filter)))


def within(namespace: str, filter: Filter | None) -> str:
    """Return the expression for a normalised filter, None for every record, inside a namespace."""
    inside = f'{NAMESPACE} == "{namespace}"'
    return inside if filter is None else f"{inside} and ({to_native(filter)})"


def has_key(keys: Iterable[str]) -> str:
    """Return the expression for the entities with one of these primary keys."""
    return f"{KEY} in {_listed(keys)}"


def after(key: str, expression: str) -> str:
    """Return the expression for the entities whose primary key comes after `key`."""
    return f'{KEY} > "{key}" and ({expression})'


def _expression(node: Filter) -> str:
    match node:
        case And(operands):
            return " and ".join(f"({part})" for part in _parts(operands, all_=True))
        case Or(operands):
            return " or ".join(f"({part})" for part in _parts(operands, all_=False))
        case HasAny(tokens):
            return _has("any", tokens)
        case Not(HasAny(tokens)):
            return f"not {_has('any', tokens)}"
        case InRange(field, operator, bound):
            return f'{NUMBERS}["{field}"] {_SIGNS[operator]} {bound!r}'
        case Not(InRange(field, operator, bound)):
            # the field's own name is a token of the records that have it
            opposite = InRange(field, _OPPOSITES[operator], bound)
            return f"({_expression(Not(HasAny((field,))))}) or ({_expression(opposite)})"
    raise TypeError(f"{type(node).__name__} is not a node of a compiled filter")


def _parts(operands: Iterable[Filter], *, all_: bool) -> list[str]:
    """Return expressions that must all hold, or any of them, for all, or any, of the operands.

    Tests for tokens become one: each `and` and `or` nests, and Milvus needs seconds to parse a thousand.
    """
    has: list[str] = []
    lacks: list[str] = []
    parts: list[str] = []
    for operand in operands:
        match operand:
            case HasAny(tokens) if len(tokens) == 1 or not all_:
                has += tokens
            case Not(HasAny(tokens)) if len(tokens) == 1 or all_:
                lacks += tokens
            case _:
                parts.append(_expression(operand))
    if has:
        parts.append(_has("all" if all_ else "any", has))
    if lacks:
        parts.append(f"not {_has('any' if all_ else 'all', lacks)}")
    return parts


def _has(which: Literal["any", "all"], tokens: Sequence[str]) -> str:
    if len(tokens) == 1:
        return f'array_contains({TOKENS}, "{tokens[0]}")'
    return f"array_contains_{which}({TOKENS}, {_listed(tokens)})"


def _listed(texts: Iterable[str]) -> str:
    return "[" + ", ".join(f'"{text}"' for text in texts) + "]"
