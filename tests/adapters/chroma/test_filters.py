"""The native `where` of each kind of condition; nothing is sent."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from polyvec.errors import UnsupportedFilterError
from polyvec.filters import F, Filter, Or, normalise
from polyvec.tokens import companion_field, element_token, exists_token, list_token, scalar_token
from polyvec_adapters.chroma.filters import MAX_DEPTH, WIDTH, Where, in_buckets, to_native
from polyvec_adapters.chroma.records import short_token, sortable

FIVE = sortable(5.0)
YEAR, SCALAR = companion_field("n", "year"), companion_field("s", "lang")


def native(filter: Filter, *, strict: bool = True) -> Where:
    checked = normalise(filter)
    assert checked is not None
    return to_native(checked, strict=strict)


def has(token: str) -> Where:
    return {"t": {"$contains": token}}


def lacks(token: str) -> Where:
    return {"t": {"$not_contains": token}}


def token(key: str, value: Any) -> str:
    return short_token(scalar_token(key, value))


def element(key: str, value: Any) -> str:
    return short_token(element_token(key, value))


A, B, C = token("k", "a"), token("k", "b"), token("j", 1)
EXISTS, LIST = short_token(exists_token("k")), short_token(list_token("k"))


@pytest.mark.parametrize(
    ("filter", "expected"),
    [
        (F("k") == "a", has(A)),
        (F("k") != "a", lacks(A)),
        (F("k").is_in(["a", "b"]), {"$or": [has(A), has(B)]}),
        (F("k").not_in(["a", "b"]), {"$and": [lacks(A), lacks(B)]}),
        (F("k").is_in(["a"]), has(A)),
        (F("k").exists(), has(EXISTS)),
        (~F("k").exists(), lacks(EXISTS)),
        (F("k").contains(5), has(element("k", 5))),
        (F("k").contains_all([1, 2]), {"$and": [has(element("k", 1)), has(element("k", 2))]}),
        (F("k").contains_all([]), has(LIST)),
        (~(F("k").contains_any([1, 2])), {"$and": [lacks(element("k", 1)), lacks(element("k", 2))]}),
        ((F("k") == "a") & (F("j") == 1), {"$and": [has(A), has(C)]}),
        (~((F("k") == "a") & (F("j") == 1)), {"$or": [lacks(A), lacks(C)]}),
        (~((F("k") == "a") | ~(F("j") == 1)), {"$and": [lacks(A), has(C)]}),
    ],
    ids=str,
)
def test_tests_on_tokens(filter: Filter, expected: Where) -> None:
    assert native(filter) == expected
    assert native(filter, strict=False) == expected


@pytest.mark.parametrize(
    ("filter", "operator", "inverse"),
    [
        (F("year") < 5, "$lt", "$gte"),
        (F("year") <= 5, "$lte", "$gt"),
        (F("year") > 5, "$gt", "$lte"),
        (F("year") >= 5, "$gte", "$lt"),
    ],
)
def test_ranges(filter: Filter, operator: str, inverse: str) -> None:
    assert native(filter) == {"$and": [has(YEAR), {YEAR: {operator: FIVE}}]}
    assert native(filter, strict=False) == {YEAR: {operator: FIVE}}
    negated = {"$or": [lacks(YEAR), {YEAR: {inverse: FIVE}}]}
    assert native(~filter) == negated
    assert native(~filter, strict=False) == negated


def test_a_bound_on_numbers_is_an_int_because_a_server_changes_floats() -> None:
    assert native(F("year") >= 2, strict=False) == {YEAR: {"$gte": 0x4000_0000_0000_0000}}
    assert native(F("year") >= 2.0, strict=False) == native(F("year") >= 2, strict=False)


def test_a_bound_on_datetimes_is_their_microseconds() -> None:
    at = datetime(2024, 5, 1, 12, 30, 0, 1, tzinfo=UTC)
    field = companion_field("d", "at")
    where = native(F("at") < at, strict=False)
    assert where == {field: {"$lt": 1714566600000001}}
    assert type(where[field]["$lt"]) is int


def test_many_values_are_one_condition_on_the_scalar() -> None:
    values = [f"v{number}" for number in range(WIDTH + 1)]
    tokens = [token("lang", value) for value in values]
    alive = short_token(exists_token("lang"))
    many = F("lang").is_in([*values, "v0"])
    assert native(many) == {"$and": [has(alive), {SCALAR: {"$in": tokens}}]}
    assert native(many, strict=False) == {SCALAR: {"$in": tokens}}
    assert native(~many) == {"$or": [lacks(alive), {SCALAR: {"$nin": tokens}}]}
    assert "$or" in native(F("lang").is_in(values[:WIDTH]))


def test_a_wide_filter_is_nested_and_loses_nothing() -> None:
    filter = Or(tuple(F("k") == number for number in range(1000)))
    where = native(filter)

    def leaves(part: Where) -> list[Where]:
        return [leaf for one in part["$or"] for leaf in leaves(one)] if "$or" in part else [part]

    def widest(part: Where) -> int:
        return max(len(part["$or"]), *map(widest, part["$or"])) if "$or" in part else 0

    assert leaves(where) == [has(token("k", number)) for number in range(1000)]
    assert widest(where) == WIDTH


def test_no_operator_has_a_single_operand() -> None:
    for width in range(2, 70):
        pending = [native(Or(tuple(F("k") == number for number in range(width))))]
        while pending:
            part = pending.pop()
            if "$or" in part:
                assert len(part["$or"]) > 1
                pending += part["$or"]


def test_what_is_too_large_for_the_engine_is_refused_and_said_so() -> None:
    deep: Filter = F("k") == 0
    for level in range(15):
        wide = [F("k") == f"{level} {number}" for number in range(600)]
        deep = (deep & (F("j") != level)) | Or(tuple(wide))
    with pytest.raises(UnsupportedFilterError, match=f"{MAX_DEPTH} at most"):
        native(deep)
    thousand = [f"{number}" for number in range(1000)]
    many = Or(tuple(F("k").contains_any([f"{part} {value}" for value in thousand]) for part in range(17)))
    with pytest.raises(UnsupportedFilterError, match="34000 SQL variables"):
        native(many)
    native(Or(many.operands[:15]))


def test_buckets_are_joined_with_a_filter() -> None:
    assert in_buckets([1, 2], None) == {"b": {"$in": [1, 2]}}
    assert in_buckets([1], has(A)) == {"$and": [{"b": {"$in": [1]}}, has(A)]}


def test_nothing_of_the_users_stands_in_the_request() -> None:
    hostile = 'x"} $or #chroma:document'
    filter = (
        (F(hostile) == hostile) | (F(hostile) > 5) | F(hostile).is_in([hostile + str(n) for n in range(20)])
    )
    assert hostile not in repr(native(filter | ~filter))
