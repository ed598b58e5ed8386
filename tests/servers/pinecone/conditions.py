"""The filter language: https://docs.pinecone.io/guides/search/filter-by-metadata.

A filter is compiled to a function of a record's metadata. Values are as they are stored: strings, booleans,
floats and lists of strings.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, Final, TypeAlias

Condition: TypeAlias = Callable[[dict[str, Any]], bool]

MAX_LIST: Final = 10_000
"""Values of `$in` and `$nin`: https://docs.pinecone.io/reference/api/database-limits/operation-limits."""

_COMPARISONS: Final[dict[str, Callable[[float, float], bool]]] = {
    "$gt": operator.gt,
    "$gte": operator.ge,
    "$lt": operator.lt,
    "$lte": operator.le,
}


class FilterError(ValueError):
    """The filter cannot be compiled."""


def compile_filter(filter: object, *, missing_matches: bool) -> Condition:
    """Return the meaning of a filter.

    Args:
        filter: As it was sent.
        missing_matches: Whether `$ne` and `$nin` hold for records that lack the field.
    """
    if not isinstance(filter, dict) or not filter:
        raise FilterError("a filter must be an object with at least one condition")
    return _every([_entry(key, value, missing_matches) for key, value in filter.items()])


def _every(parts: list[Condition]) -> Condition:
    return parts[0] if len(parts) == 1 else lambda metadata: all(part(metadata) for part in parts)


def _entry(key: str, value: object, missing_matches: bool) -> Condition:
    if key in ("$and", "$or"):
        if not isinstance(value, list) or not value:
            raise FilterError(f"{key} needs a list of at least one filter")
        parts = [compile_filter(item, missing_matches=missing_matches) for item in value]
        return _every(parts) if key == "$and" else lambda metadata: any(part(metadata) for part in parts)
    if key.startswith("$"):
        raise FilterError(f"only $and and $or may stand where a field does, not {key}")
    if not isinstance(value, dict):
        return _test(key, "$eq", value, missing_matches)
    if not value:
        raise FilterError(f"the field {key!r} has no operator")
    return _every([_test(key, name, operand, missing_matches) for name, operand in value.items()])


def _test(key: str, name: str, operand: object, missing_matches: bool) -> Condition:
    if name in _COMPARISONS:
        if not _is_number(operand):
            raise FilterError(f"{name} needs a number")
        compare, bound = _COMPARISONS[name], float(operand)  # type: ignore[arg-type]  # checked
        return lambda metadata: type(found := metadata.get(key)) is float and compare(found, bound)
    match name:
        case "$eq" | "$ne":
            if not isinstance(operand, str | bool) and not _is_number(operand):
                raise FilterError(f"{name} needs a string, a number or a boolean")
            wanted = frozenset([_tagged(operand)])
        case "$in" | "$nin":
            if not isinstance(operand, list) or not operand or len(operand) > MAX_LIST:
                raise FilterError(f"{name} needs a list of 1 to {MAX_LIST} values")
            if not all(isinstance(item, str) or _is_number(item) for item in operand):
                raise FilterError(f"{name} needs strings and numbers")
            wanted = frozenset(map(_tagged, operand))
        case "$exists":
            if not isinstance(operand, bool):
                raise FilterError("$exists needs true or false")
            return lambda metadata: (key in metadata) is operand
        case _:
            raise FilterError(f"there is no operator {name}")

    def holds(metadata: dict[str, Any]) -> bool:
        found = metadata.get(key)
        if type(found) is list:  # matches with any of its strings
            return any((str, item) in wanted for item in found)
        return _tagged(found) in wanted

    if name in ("$eq", "$in"):
        return holds
    return lambda metadata: not holds(metadata) if key in metadata else missing_matches


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _tagged(value: object) -> tuple[type, object]:
    """Return a value that equals only those of its own type; numbers are floats."""
    return (float, float(value)) if _is_number(value) else (type(value), value)  # type: ignore[arg-type]
