"""Filters as SQL conditions on the column `key` of the table of records."""

from __future__ import annotations

from typing import Any

from polyvec.filters import And, Filter, Not, Or
from polyvec.tokens import HasAny, InRange, compile_filter

_OPERATORS = {"lt": "<", "lte": "<=", "gt": ">", "gte": ">="}


def to_native(filter: Filter | None) -> tuple[str, list[Any]]:
    """Return the SQL for a normalised filter, and its parameters; no value is ever part of the SQL."""
    return ("1", []) if filter is None else _condition(compile_filter(filter))


def _condition(node: Filter) -> tuple[str, list[Any]]:
    match node:
        case And(operands) | Or(operands):
            # two halves at a time: SQLite allows no expression deeper than 1,000
            middle = len(operands) // 2
            if not middle:
                return _condition(operands[0])
            left, left_values = _condition(type(node)(operands[:middle]))
            right, right_values = _condition(type(node)(operands[middle:]))
            word = "AND" if isinstance(node, And) else "OR"
            return f"({left} {word} {right})", left_values + right_values
        case Not(operand):
            sql, values = _condition(operand)
            return f"(NOT {sql})", values
        case HasAny(tokens):
            marks = ", ".join("?" * len(tokens))
            return f"key IN (SELECT record FROM tokens WHERE token IN ({marks}))", list(tokens)
        case InRange(field, operator, bound):
            compare = f"value {_OPERATORS[operator]} ?"
            return f"key IN (SELECT record FROM numbers WHERE field = ? AND {compare})", [field, bound]
    raise TypeError(f"{type(node).__name__} is not a node of a compiled filter")
