"""Filters as queries; what they find on a server is in the contract and in test_server."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import pytest

from polyvec.filters import F, Filter, Gt, Gte, Lt, Lte, normalise
from polyvec.metadata import microseconds
from polyvec.tokens import RangeOperator, companion_field, element_token, scalar_token
from polyvec_adapters.redis import filters
from polyvec_adapters.redis.filters import Condition
from polyvec_adapters.redis.ladder import cover
from polyvec_adapters.redis.records import letters

YEAR = companion_field("n", "year")
AT = companion_field("d", "at")
NUMERIC = frozenset({YEAR, AT})
BEGINNING = datetime(1, 1, 1, tzinfo=UTC)
END = datetime(9999, 12, 31, 23, 59, 59, 999_999, UTC)


def native(filter: Filter, numeric: frozenset[str] = NUMERIC) -> Condition:
    checked = normalise(filter)
    assert checked is not None
    return filters.to_native(checked, numeric)


def tag(key: str, value: str | int) -> str:
    return f"@tok:{{{letters(scalar_token(key, value))}}}"


def test_equality_is_a_token() -> None:
    assert native(F("a") == "x").text == tag("a", "x")
    assert native(F("a").is_in(["x", 1])).text == tag("a", "x").replace(
        "}", f"|{letters(scalar_token('a', 1))}}}"
    )
    assert native(F("a").contains("x")).text == f"@tok:{{{letters(element_token('a', 'x'))}}}"


def test_every_group_has_parentheses() -> None:
    found = native(((F("a") == 1) & ~(F("b") == 2)) | (F("c") != 3)).text
    assert found == f"(({tag('a', 1)} (-{tag('b', 2)}))|(-{tag('c', 3)}))"


@pytest.mark.parametrize(
    ("filter", "limits"),
    [
        (F("year") < 2020, "-inf ($p0"),
        (F("year") <= 2020, "-inf $p0"),
        (F("year") > 2020, "($p0 +inf"),
        (F("year") >= 2020, "$p0 +inf"),
    ],
)
def test_a_range_is_a_numeric_field(filter: Filter, limits: str) -> None:
    found = native(filter)
    assert found == Condition(f"@{YEAR}:[{limits}]", ("2020.0",))
    assert found.parameters == ["p0", "2020.0"]


def tags(field: str, operator: RangeOperator, bound: float) -> str:
    return f"@tok:{{{letters('|'.join(cover(field, operator, bound)))}}}"


def test_a_key_without_a_field_is_compared_by_tokens() -> None:
    expected = tags(companion_field("n", "other"), "lt", 1.0)
    assert native(F("other") < 1) == Condition(expected)
    assert native(~(F("other") < 1)) == Condition(f"(-{expected})")


def test_near_datetimes_are_one_number() -> None:
    found = native(F("at") > datetime(2024, 5, 1, tzinfo=UTC))
    assert found == Condition(f"@{AT}:[($p0 +inf]", ("1714521600000000.0",))


@pytest.mark.parametrize(
    ("operator", "bound", "near"),
    [
        ("lt", END, "-inf ($p0"),
        ("lte", END, "-inf ($p0"),
        ("gt", END, None),
        ("gte", END, None),
        ("lt", BEGINNING, None),
        ("lte", BEGINNING, None),
        ("gt", BEGINNING, "($p0 +inf"),
        ("gte", BEGINNING, "($p0 +inf"),
    ],
)
def test_far_datetimes_are_compared_by_tokens(
    operator: RangeOperator, bound: datetime, near: str | None
) -> None:
    nodes: dict[str, type[Lt | Lte | Gt | Gte]] = {"lt": Lt, "lte": Lte, "gt": Gt, "gte": Gte}
    found = native(nodes[operator]("at", bound))
    far = tags(AT, operator, microseconds(bound))
    assert found.text == (far if near is None else f"(@{AT}:[{near}]|{far})")
    sign = "" if bound == END else "-"
    assert found.numbers == (() if near is None else (f"{sign}9007199254740992",))


def test_which_fields_a_filter_compares() -> None:
    asked = normalise((F("year") < 1) & (~(F("at") > END) | (F("a") == 1)))
    assert asked is not None
    assert filters.range_fields(asked) == {YEAR, AT}


@pytest.mark.parametrize(
    "hostile", ["}", "*", '"})=>[KNN 9 @vec $v]', "$p0", "a|b", "\\", " @ns:{*}", "한\n"]
)
def test_nothing_of_the_callers_is_in_a_query(hostile: str) -> None:
    asked = (F(hostile) == hostile) | F(hostile).contains_any([hostile, 1]) | (F(hostile) > 5)
    text = native(asked, frozenset({companion_field("n", hostile)})).text
    assert re.fullmatch(r"[a-p0-9@_:{}|()\[\]$+infntokd ]+", text)
    assert re.fullmatch(r"@ns:{s[a-p]{32}} ", filters.query("A.b-c", text).removesuffix(text))


def test_joining_conditions() -> None:
    assert filters.query(None) == "*"
    assert filters.query(None, "", "@pos:[0 1]") == "@pos:[0 1]"
    assert re.fullmatch(r"@ns:{s[a-p]{32}}", filters.query("", ""))
    assert filters.query("a") != filters.query("A")
