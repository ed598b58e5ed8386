"""Filters: one truth table for every backend.

A filter is true or false for a record, never unknown. None is treated as missing. `Ne`, `NotIn` and
`Not` are exact complements, so they match records that lack the field. A scalar test never looks inside
a list and a list test never matches a scalar. Numbers compare by value (1 == 1.0), bool is not a number,
strings compare by code points. Ranges compare as float64, or as integer microseconds for datetimes.

Three notations give the same frozen nodes:

    (F("year") >= 2020) & F("lang").is_in(["ko", "en"])                       # Python
    {"year": {"$gte": 2020}, "lang": {"$in": ["ko", "en"]}}                   # JSON: from_json, to_json
    year >= 2020 and lang in ["ko", "en"]                                     # a string: parse, str()

`matches(filter, metadata)` is the meaning of a filter: the oracle that every backend is compared with.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any, ClassVar, Final, TypeAlias, TypeGuard, final

from polyvec.errors import InvalidFilterError, InvalidInputError, shown
from polyvec.metadata import INT64_MAX, INT64_MIN, check_key, microseconds, utf8_length
from polyvec.types import Metadata, Scalar

MAX_VALUES: Final = 1000
MAX_DEPTH: Final = 32

Key: TypeAlias = tuple[str, Any]
"""A scalar as (kind, canonical value): two scalars are equal exactly where their keys are."""


class Filter:
    """A condition on the metadata of a record. Join with `&`, `|` and `~`."""

    __slots__ = ()

    def __and__(self, other: Filter) -> And:
        return And((*_operands(And, self), *_operands(And, _checked(other))))

    def __or__(self, other: Filter) -> Or:
        return Or((*_operands(Or, self), *_operands(Or, _checked(other))))

    def __invert__(self) -> Not:
        return Not(self)

    def __eq__(self, other: object) -> bool:
        """Whether both are the same node with literals of the same type (1, 1.0 and True differ)."""
        if not isinstance(other, Filter):
            return NotImplemented
        return type(self) is type(other) and repr(self) == repr(other)

    def __hash__(self) -> int:
        return hash(repr(self))

    def __bool__(self) -> bool:
        """Refuse: `a and b` and `1 < F("x") < 5` would silently lose a clause."""
        raise InvalidFilterError(
            "a filter has no truth value of its own: join filters with & | ~ instead of and, or, not, "
            'and write a chained comparison as (F("x") > 1) & (F("x") < 5)'
        )

    def __str__(self) -> str:
        from polyvec.filter_text import format_filter

        return format_filter(self)


def _checked(other: object) -> Filter:
    if not isinstance(other, Filter):
        raise InvalidFilterError(f"expected a filter, not {type(other).__name__} ({shown(other)})")
    return other


def _operands(kind: type[And | Or], node: Filter) -> tuple[Filter, ...]:
    return node.operands if isinstance(node, kind) else (node,)


@dataclass(frozen=True, slots=True, eq=False)
class _OneValue(Filter):
    key: str
    value: Scalar

    def __post_init__(self) -> None:
        _check_field(self.key)
        object.__setattr__(self, "value", _literal(self.value, self.key))


@dataclass(frozen=True, slots=True, eq=False)
class _ManyValues(Filter):
    key: str
    values: tuple[Scalar, ...]

    def __post_init__(self) -> None:
        _check_field(self.key)
        if isinstance(self.values, str | bytes) or not isinstance(self.values, Iterable):
            raise InvalidFilterError(
                f"{type(self).__name__} on {self.key!r} needs a list of values, not {shown(self.values)}"
            )
        values = tuple(self.values)
        if len(values) > MAX_VALUES:
            raise InvalidFilterError(
                f"{type(self).__name__} on {self.key!r} has {len(values)} values; at most {MAX_VALUES}"
            )
        object.__setattr__(self, "values", tuple(_literal(value, self.key) for value in values))


@final
class Eq(_OneValue):
    """True where the value at `key` is a scalar of the same kind as `value` and equal."""

    __slots__ = ()


@final
class Ne(_OneValue):
    """The complement of `Eq`: true also where the field is missing."""

    __slots__ = ()


class _Range(_OneValue):
    __slots__ = ()
    compare: ClassVar[Callable[[Any, Any], bool]]

    def __post_init__(self) -> None:
        _OneValue.__post_init__(self)
        if isinstance(self.value, bool | str):
            raise InvalidFilterError(
                f"a range on {self.key!r} needs a number or a datetime, not "
                f"{type(self.value).__name__} ({shown(self.value)})"
            )


@final
class Lt(_Range):
    """True where both are numbers, or both datetimes, and the value at `key` is less."""

    __slots__ = ()
    compare = operator.lt


@final
class Lte(_Range):
    """Like `Lt`, or equal."""

    __slots__ = ()
    compare = operator.le


@final
class Gt(_Range):
    """Like `Lt`, the other way round."""

    __slots__ = ()
    compare = operator.gt


@final
class Gte(_Range):
    """Like `Gt`, or equal."""

    __slots__ = ()
    compare = operator.ge


@final
class In(_ManyValues):
    """True where `Eq` holds for one of up to 1,000 values; never for none."""

    __slots__ = ()


@final
class NotIn(_ManyValues):
    """The complement of `In`."""

    __slots__ = ()


@final
class Contains(_OneValue):
    """True where the value at `key` is a list with an element equal to `value` as in `Eq`."""

    __slots__ = ()


@final
class ContainsAny(_ManyValues):
    """True where `Contains` holds for one of the values; never for none."""

    __slots__ = ()


@final
class ContainsAll(_ManyValues):
    """True where the value at `key` is a list and `Contains` holds for every value."""

    __slots__ = ()


@final
@dataclass(frozen=True, slots=True, eq=False)
class Exists(Filter):
    """True where `key` is present and its value is not None (`[]`, "", 0 and False exist)."""

    key: str

    def __post_init__(self) -> None:
        _check_field(self.key)


@dataclass(frozen=True, slots=True, eq=False)
class _Joined(Filter):
    operands: tuple[Filter, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "operands", tuple(self.operands))
        for operand in self.operands:
            _checked(operand)


@final
class And(_Joined):
    """True where every operand is; `And(())` is true for every record."""

    __slots__ = ()


@final
class Or(_Joined):
    """True where an operand is; `Or(())` is true for no record."""

    __slots__ = ()


@final
@dataclass(frozen=True, slots=True, eq=False)
class Not(Filter):
    """The complement of its operand."""

    operand: Filter

    def __post_init__(self) -> None:
        _checked(self.operand)


ALWAYS: Final = And(())
NEVER: Final = Or(())


@final
class F:
    """A metadata key, to write filters with: `F("year") >= 2020`, `F("tags").contains("x")`."""

    __slots__ = ("key",)

    def __init__(self, key: str) -> None:
        _check_field(key)
        self.key = key

    __hash__ = None  # type: ignore[assignment]  # == makes a filter

    def __eq__(self, value: object) -> Eq:  # type: ignore[override]  # makes a filter
        return Eq(self.key, value)  # type: ignore[arg-type]  # checked by Eq

    def __ne__(self, value: object) -> Ne:  # type: ignore[override]  # makes a filter
        return Ne(self.key, value)  # type: ignore[arg-type]  # checked by Ne

    def __lt__(self, value: float | datetime) -> Lt:
        return Lt(self.key, value)

    def __le__(self, value: float | datetime) -> Lte:
        return Lte(self.key, value)

    def __gt__(self, value: float | datetime) -> Gt:
        return Gt(self.key, value)

    def __ge__(self, value: float | datetime) -> Gte:
        return Gte(self.key, value)

    def is_in(self, values: Iterable[Scalar]) -> In:
        """Equal to one of `values`."""
        return In(self.key, values)  # type: ignore[arg-type]  # made a tuple by In

    def not_in(self, values: Iterable[Scalar]) -> NotIn:
        """Equal to none of `values`; true also where the field is missing."""
        return NotIn(self.key, values)  # type: ignore[arg-type]  # made a tuple by NotIn

    def contains(self, value: Scalar) -> Contains:
        """A list with an element equal to `value`."""
        return Contains(self.key, value)

    def contains_any(self, values: Iterable[Scalar]) -> ContainsAny:
        """A list with an element equal to one of `values`."""
        return ContainsAny(self.key, values)  # type: ignore[arg-type]  # made a tuple by ContainsAny

    def contains_all(self, values: Iterable[Scalar]) -> ContainsAll:
        """A list with an element equal to each of `values`."""
        return ContainsAll(self.key, values)  # type: ignore[arg-type]  # made a tuple by ContainsAll

    def exists(self) -> Exists:
        """Present and not None."""
        return Exists(self.key)

    def __bool__(self) -> bool:
        raise InvalidFilterError(f"F({self.key!r}) is no filter yet: compare it with something")

    def __repr__(self) -> str:
        return f"F({self.key!r})"


def _check_field(key: object) -> None:
    try:
        check_key(key, "filter key")
    except InvalidInputError as error:
        raise InvalidFilterError(error.message) from None


def _literal(value: object, key: str) -> Any:  # a Scalar
    """Return a checked literal; a datetime with its offset in place of its named zone.

    So a filter equals what is read back from its JSON or its string, where there is only the offset.
    """
    match value:
        case bool():
            return value
        case _ if type(value) is str:
            try:
                utf8_length(value, f"the value for {key!r}")
            except InvalidInputError as error:
                raise InvalidFilterError(error.message) from None
            return value
        case _ if type(value) is int:
            if INT64_MIN <= value <= INT64_MAX:
                return value
            raise InvalidFilterError(f"{key!r}: {shown(value)} does not fit in an int64")
        case _ if type(value) is float:
            if math.isfinite(value):
                return value
            raise InvalidFilterError(f"{key!r}: {value} is not finite")
        case _ if type(value) is datetime:
            if value.utcoffset() is not None:
                return datetime.fromisoformat(value.isoformat())
            raise InvalidFilterError(
                f"{key!r}: the datetime {value.isoformat()} has no time zone; "
                "add one, e.g. value.replace(tzinfo=datetime.UTC)"
            )
        case None:
            raise InvalidFilterError(
                f"{key!r}: None is treated as missing; use ~F({key!r}).exists() (or `not {key} exists`)"
            )
    raise InvalidFilterError(
        f"{key!r}: a filter compares with bool, int, float, str or datetime, "
        f"not {type(value).__name__} ({shown(value)})"
    )


def scalar_key(value: object) -> Key | None:
    """Return the kind and canonical value of a scalar; None for None, a list or a dict.

    Kinds: "b" bool, "n" number, "s" str, "d" datetime. A whole float is its int, so 1 and 1.0 are one
    key while 2**53 + 1 and 2.0**53 are two.
    """
    match value:
        case bool():
            return ("b", value)
        case str():
            return ("s", value)
        case int():
            return ("n", value)
        case float():
            return ("n", int(value) if value.is_integer() else value)
        case datetime():
            return ("d", microseconds(value))
    return None


def matches(filter: Filter | None, metadata: Metadata) -> bool:
    """Return whether `filter` holds for a record with this metadata: the reference meaning.

    Args:
        filter: None holds for every record.
        metadata: A record's metadata.
    """
    match filter:
        case None:
            return True
        case And(operands):
            return all(matches(operand, metadata) for operand in operands)
        case Or(operands):
            return any(matches(operand, metadata) for operand in operands)
        case Not(operand):
            return not matches(operand, metadata)
        case Exists(key):
            return metadata.get(key) is not None
        case Eq(key, value):
            return scalar_key(metadata.get(key)) == scalar_key(value)
        case Ne(key, value):
            return scalar_key(metadata.get(key)) != scalar_key(value)
        case In(key, values):
            return scalar_key(metadata.get(key)) in _keys(values)
        case NotIn(key, values):
            return scalar_key(metadata.get(key)) not in _keys(values)
        case Contains(key, value):
            return scalar_key(value) in _elements(metadata.get(key))
        case ContainsAny(key, values):
            return not _keys(values).isdisjoint(_elements(metadata.get(key)))
        case ContainsAll(key, values):
            found = metadata.get(key)
            return isinstance(found, list) and _keys(values).issubset(_elements(found))
        case _Range(key, value):
            left, right = range_key(metadata.get(key)), range_key(value)
            return (
                left is not None
                and right is not None
                and (left[0] == right[0] and type(filter).compare(left[1], right[1]))
            )
    raise InvalidFilterError(f"unknown filter node {type(filter).__name__}")


def range_key(value: object) -> tuple[str, float] | None:
    """Return what a range compares: ("n", float64) or ("d", microseconds); None for anything else."""
    key = scalar_key(value)
    if key is None or key[0] not in "nd":
        return None
    return (key[0], float(key[1]) if key[0] == "n" else key[1])


@lru_cache(maxsize=64)
def _keys_of(values: tuple[Scalar, ...], _types: tuple[type, ...]) -> frozenset[Key | None]:
    return frozenset(map(scalar_key, values))


def _keys(values: tuple[Scalar, ...]) -> frozenset[Key | None]:
    """Return the keys of a condition's values, made once for the many records that it is tried on."""
    # the types too, because 1, 1.0 and True would share an entry of the cache
    return _keys_of(values, tuple(map(type, values)))


def _elements(value: object) -> list[Key | None]:
    return [key for key in map(scalar_key, value) if key is not None] if isinstance(value, list) else []


def depth(filter: Filter) -> int:
    """Return how deep the filter nests; a single condition is 1 deep."""
    match filter:
        case And(operands) | Or(operands):
            return 1 + max(map(depth, operands), default=0)
        case Not(operand):
            return 1 + depth(operand)
    return 1


def check_filter(filter: object) -> Filter:
    """Return `filter` if it is one and nests at most 32 deep, else raise InvalidFilterError.

    A filter in JSON or string notation is parsed.
    """
    from polyvec import filter_text

    if isinstance(filter, str):
        filter = filter_text.parse(filter)
    elif isinstance(filter, Mapping):
        filter = filter_text.from_json(filter)
    checked = _checked(filter)
    try:
        too_deep = depth(checked) > MAX_DEPTH
    except RecursionError:
        too_deep = True
    if too_deep:
        raise InvalidFilterError(f"a filter may nest {MAX_DEPTH} deep at most")
    return checked


# What adapters build on ------------------------------------------------------------------------------


def normalise(filter: Filter | None) -> Filter | None:
    """Return the same condition in fewer kinds of node, so that an adapter translates less.

    `Ne` and `NotIn` become `Not` of `Eq` and `In`; double `Not` goes; an `And` or `Or` has at least two
    operands; tests for an empty list of values are decided.

    Returns:
        None if it holds for every record, `NEVER` itself if for none; these two never occur deeper inside.
    """
    result = _normalise(filter) if filter is not None else ALWAYS
    return None if _is_empty(And, result) else result


def _normalise(node: Filter) -> Filter:
    match node:
        case Ne(key, value):
            return Not(Eq(key, value))
        case NotIn(key, values):
            return Not(In(key, values)) if values else ALWAYS
        case In(_, ()) | ContainsAny(_, ()):
            return NEVER
        case Not(operand):
            return _negate(_normalise(operand))
        case And(operands):
            return _join(And, NEVER, operands)
        case Or(operands):
            return _join(Or, ALWAYS, operands)
    return node


def _negate(node: Filter) -> Filter:
    if isinstance(node, Not):
        return node.operand
    if _is_empty(And, node):
        return NEVER
    return ALWAYS if _is_empty(Or, node) else Not(node)


def _is_empty(kind: type[And | Or], node: Filter) -> bool:
    return isinstance(node, kind) and not node.operands


def _join(kind: type[And | Or], absorbing: And | Or, operands: Iterable[Filter]) -> Filter:
    flat: list[Filter] = []
    for operand in operands:
        for part in _operands(kind, _normalise(operand)):
            if _is_empty(type(absorbing), part):
                return absorbing
            flat.append(part)
    if not flat:
        return ALWAYS if kind is And else NEVER
    return flat[0] if len(flat) == 1 else kind(tuple(flat))


def push_negations(filter: Filter) -> Filter:
    """Return a normalised filter with every `Not` directly over a single condition (De Morgan).

    For engines that have negated conditions but no general negation.
    """
    match filter:
        case And(operands):
            return And(tuple(map(push_negations, operands)))
        case Or(operands):
            return Or(tuple(map(push_negations, operands)))
        case Not(And(operands)):
            return Or(tuple(push_negations(_negate(operand)) for operand in operands))
        case Not(Or(operands)):
            return And(tuple(push_negations(_negate(operand)) for operand in operands))
    return filter


def map_leaves(filter: Filter, change: Callable[[Filter], Filter]) -> Filter:
    """Return the filter with each single condition replaced by `change(condition)`."""
    match filter:
        case And(operands):
            return And(tuple(map_leaves(operand, change) for operand in operands))
        case Or(operands):
            return Or(tuple(map_leaves(operand, change) for operand in operands))
        case Not(operand):
            return Not(map_leaves(operand, change))
    return change(filter)


def is_range(filter: Filter) -> TypeGuard[Lt | Lte | Gt | Gte]:
    """Return whether the node is one of `Lt`, `Lte`, `Gt`, `Gte`."""
    return isinstance(filter, _Range)
