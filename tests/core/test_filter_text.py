"""The JSON and the string notation of filters: round trips, the grammar, and what is refused."""

from __future__ import annotations

import contextlib
import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyvec import F, InvalidFilterError
from polyvec.filter_text import format_filter, from_json, parse, to_json
from polyvec.filters import (
    ALWAYS,
    NEVER,
    And,
    Contains,
    ContainsAll,
    ContainsAny,
    Eq,
    Exists,
    Filter,
    In,
    Ne,
    Not,
    NotIn,
    Or,
    check_filter,
)
from tests.core.strategies import FIXED, field_keys, filters, scalars, text

OPERATORS = "$eq $ne $lt $lte $gt $gte $contains $in $nin $contains_any $contains_all $exists $and $or $not"
MAY = datetime(2024, 5, 1, tzinfo=UTC)


@FIXED
@given(filters(field_keys, scalars, fewest=2))
def test_string_round_trip(filter: Filter) -> None:
    assert parse(str(filter)) == filter
    assert check_filter(str(filter)) == filter


@FIXED
@given(filters(field_keys, scalars, fewest=1))
def test_json_round_trip(filter: Filter) -> None:
    assert from_json(json.loads(json.dumps(to_json(filter)))) == filter


@FIXED
@given(
    filters(field_keys, scalars).map(str) | text,
    st.integers(0, 60),
    st.integers(0, 3),
    st.sampled_from([*"\"'`()[]<>=!\\ a1.-", "\\u", " and ", " not ", " in ", " contains ", "\0"]) | text,
)
def test_a_damaged_text_is_a_filter_or_refused(line: str, at: int, removed: int, added: str) -> None:
    with contextlib.suppress(InvalidFilterError):
        filter = parse(line[:at] + added + line[at + removed :])
        assert parse(str(filter)) == filter


def test_strings_stay_readable() -> None:
    assert str(Eq("언어", "한국어 🙂")) == '언어 == "한국어 🙂"'
    assert str(In("k", ("tab\t", True, 1, 1.0, -0.0))) == r'k in ["tab\t", true, 1, 1.0, -0.0]'


def test_a_join_of_one_is_written_as_its_operand() -> None:
    assert str(And((Eq("k", 1),))) == "k == 1"
    assert parse(str(Or((And((Eq("k", 1), Eq("k", 2))),)))) == And((Eq("k", 1), Eq("k", 2)))


YEAR = Eq("year", 2020)
PARSED: list[tuple[str, Filter]] = [
    ("year == 2020", YEAR),
    ("year = 2020", YEAR),
    ("year==2020", YEAR),
    ("  year\n==\t2020  ", YEAR),
    ("year == 2020.0", Eq("year", 2020.0)),
    ("year == 2e3", Eq("year", 2e3)),
    ("year == -5", Eq("year", -5)),
    ("year=-.5", Eq("year", -0.5)),
    ("year == +5.", Eq("year", 5.0)),
    ("year == -0.0", Eq("year", -0.0)),
    ("year == 9223372036854775807", Eq("year", 2**63 - 1)),
    ("year == -9223372036854775808", Eq("year", -(2**63))),
    ("year != 2020", Ne("year", 2020)),
    ("year <> 2020", Ne("year", 2020)),
    ("year < 1", F("year") < 1),
    ("year <= 1", F("year") <= 1),
    ("year > 1", F("year") > 1),
    ("year >= 1", F("year") >= 1),
    ("ok == true", Eq("ok", True)),
    ("ok == FALSE", Eq("ok", False)),
    ("a-b.c_1 == 1", Eq("a-b.c_1", 1)),
    ("größe == 1", Eq("größe", 1)),
    ("`a b` == 1", Eq("a b", 1)),
    ("`a``b` == 1", Eq("a`b", 1)),
    ("`not` == 1", Eq("not", 1)),
    ("`1a` == 1", Eq("1a", 1)),
    (r'lang == "a\"b\\c\n\u00e9\ud83d\ude42"', Eq("lang", 'a"b\\c\né🙂')),
    (r"lang == 'it\'s \"x\" \\'", Eq("lang", 'it\'s "x" \\')),
    ("""lang == 'say "x"'""", Eq("lang", 'say "x"')),
    ("lang == '\n'", Eq("lang", "\n")),
    ('lang == ""', Eq("lang", "")),
    ('lang == "and (not) `x`"', Eq("lang", "and (not) `x`")),
    ('at == datetime("2024-05-01T00:00:00Z")', Eq("at", MAY)),
    (
        "at > DATETIME( '2024-05-01T09:00:00+09:00' )",
        F("at") > datetime(2024, 5, 1, 9, tzinfo=timezone(timedelta(hours=9))),
    ),
    ('lang in ["ko", "en"]', In("lang", ("ko", "en"))),
    ("lang in []", In("lang", ())),
    ("lang NOT IN [1, true]", NotIn("lang", (1, True))),
    ('tags contains "x"', Contains("tags", "x")),
    ('tags contains any ["a", "b"]', ContainsAny("tags", ("a", "b"))),
    ("tags contains all []", ContainsAll("tags", ())),
    ("seen exists", Exists("seen")),
    ("not seen exists", Not(Exists("seen"))),
    ("not not seen exists", Not(Not(Exists("seen")))),
    ("true", ALWAYS),
    ("false", NEVER),
    ("((year == 2020))", YEAR),
    ("year == 2020 and a == 1 or b == 2", Or((And((YEAR, Eq("a", 1))), Eq("b", 2)))),
    ("year == 2020 and (a == 1 or b == 2)", And((YEAR, Or((Eq("a", 1), Eq("b", 2)))))),
    ("not year == 2020 and a == 1", And((Not(YEAR), Eq("a", 1)))),
    ("not (year == 2020 and a == 1)", Not(And((YEAR, Eq("a", 1))))),
    ("year == 2020 and a == 1 and b == 2", And((YEAR, Eq("a", 1), Eq("b", 2)))),
    ("year == 2020 AND true Or false", Or((And((YEAR, ALWAYS)), NEVER))),
]


@pytest.mark.parametrize(("line", "expected"), PARSED)
def test_grammar(line: str, expected: Filter) -> None:
    assert parse(line) == expected
    assert parse(str(expected)) == expected


REFUSED: list[tuple[str, str]] = [
    ("", "the filter is empty: leave it out to match everything"),
    ("  \n ", "the filter is empty"),
    ("year", "expected == != < <= > >= in, not in, contains or exists at position 4"),
    ("year 2020", "expected == .* at position 5"),
    ("year ==", "expected a value at position 7"),
    ("year == ko", 'expected a value; put text in quotes: "ko" at position 8'),
    ("year == 1 a == 2", "expected `and`, `or` or the end at position 10"),
    ("year == 1 xor a == 2", "expected `and`, `or` or the end at position 10"),
    ("year == 1 and", r"expected a metadata key \(put an unusual one in `backticks`\) at position 13"),
    ("and == 1", "expected a metadata key .* at position 0"),
    ("5 == year", "expected a metadata key"),
    ("'year' == 1", "expected a metadata key"),
    ("(year == 1", r"expected '\)' at position 10"),
    ("year == 1)", "expected `and`, `or` or the end at position 9"),
    ("year in 1", r"expected '\[' at position 8"),
    ("year in [1 2]", "expected ',' at position 11"),
    ("year in [1,", "expected a value at position 11"),
    ("year in [1,]", "expected a value"),
    ("year in [[1]]", "expected a value"),
    ("year == $5", "unexpected character at position 8"),
    ("year == 1x", "unexpected character at position 8"),
    ("year == 1.5.2", "unexpected character"),
    ("year == 1; drop", "unexpected character at position 9"),
    ('lang == "abc', "a quote that is never closed at position 8"),
    ("lang == 'abc\\'", "a quote that is never closed at position 8"),
    ("`lang == 1", "a quote that is never closed at position 0"),
    (r'lang == "\q"', "a string with an unknown escape at position 8"),
    (r'lang == "\ud800"', "the value for 'lang' holds a lone surrogate"),
    ("lang == null", "expected a value"),
    ('year > "2020"', r"a range on 'year' needs a number or a datetime, not str \('2020'\)"),
    ("year > true", "a range on 'year' needs a number or a datetime, not bool"),
    ("year == 9223372036854775808", "'year': 9223372036854775808 does not fit in an int64"),
    (f"year == {'9' * 5000}", "a number that does not fit in an int64 at position 8"),
    ("year == 1e400", "'year': inf is not finite"),
    ("year == nan", 'put text in quotes: "nan"'),
    ('at == datetime("2024-05-01T00:00:00")', "the datetime 2024-05-01T00:00:00 has no time zone"),
    ('at == datetime("May")', "'May' is no ISO 8601 date and time, e.g. 2024-05-01T00:00:00Z"),
    (
        "at == datetime(2024)",
        r'expected a quoted date, e.g. datetime\("2024-05-01T00:00:00Z"\) at position 15',
    ),
    ("`` == 1", "filter key must have 1 to 128 UTF-8 bytes, not 0"),
    (f"{'k' * 129} == 1", "filter key must have 1 to 128 UTF-8 bytes, not 129"),
    (f"year in [{', '.join(['1'] * 1001)}]", "In on 'year' has 1001 values; at most 1000"),
    ("(" * 10_000 + "year == 1" + ")" * 10_000, "nested more than 32 deep at position"),
    ("not " * 10_000 + "year == 1", "nested more than 32 deep at position"),
    ("not " * 32 + "year == 1", "a filter may nest 32 deep at most"),
]


@pytest.mark.parametrize(("line", "message"), REFUSED, ids=lambda value: value[:50])
def test_refused_strings(line: str, message: str) -> None:
    with pytest.raises(InvalidFilterError, match=message):
        check_filter(line)


def test_an_error_shows_the_place() -> None:
    with pytest.raises(InvalidFilterError) as caught:
        parse("year >= 2020 and lang is 'ko' and seen exists")
    assert str(caught.value) == (
        "expected == != < <= > >= in, not in, contains or exists at position 22\n"
        "  year >= 2020 and lang is 'ko' and seen exists\n"
        "                        ^"
    )


def test_an_error_shows_a_part_of_a_long_text() -> None:
    with pytest.raises(InvalidFilterError) as caught:
        parse(" or ".join(["year == 2020"] * 100) + " or ? or " + " or ".join(["year == 2020"] * 100))
    _, shown, caret = str(caught.value).split("\n")
    assert len(shown) < 90
    assert shown[caret.index("^")] == "?"


def test_32_deep_is_taken_in_every_notation() -> None:
    filter: Filter = YEAR
    for _ in range(31):
        filter = Not(filter)
    assert check_filter(str(filter)) == check_filter(to_json(filter)) == filter
    joined: Filter = YEAR
    for level in range(31):
        joined = (And if level % 2 else Or)((joined, YEAR))
    assert check_filter(str(joined)) == check_filter(to_json(joined)) == joined


# JSON ------------------------------------------------------------------------------------------------

FROM_JSON: list[tuple[dict[str, Any], Filter]] = [
    ({"lang": "en"}, Eq("lang", "en")),
    ({"lang": {"$eq": "en"}}, Eq("lang", "en")),
    ({"lang": {"$ne": "en"}}, Ne("lang", "en")),
    ({"year": {"$gte": 2020, "$lt": 2024}}, And((F("year") >= 2020, F("year") < 2024))),
    ({"year": {"$lte": 2020}, "lang": "en"}, And((F("year") <= 2020, Eq("lang", "en")))),
    ({"year": {"$gt": 1.5}}, F("year") > 1.5),
    ({"lang": {"$in": ["a", 1]}}, In("lang", ("a", 1))),
    ({"lang": {"$in": []}}, In("lang", ())),
    ({"lang": {"$nin": ["a"]}}, NotIn("lang", ("a",))),
    ({"tags": {"$contains": "x"}}, Contains("tags", "x")),
    ({"tags": {"$contains_any": ["x"]}}, ContainsAny("tags", ("x",))),
    ({"tags": {"$contains_all": ["x"]}}, ContainsAll("tags", ("x",))),
    ({"seen": {"$exists": True}}, Exists("seen")),
    ({"seen": {"$exists": False}}, Not(Exists("seen"))),
    ({"at": {"$datetime": "2024-05-01T00:00:00Z"}}, Eq("at", MAY)),
    ({"at": {"$gt": {"$datetime": "2024-05-01T00:00:00Z"}}}, F("at") > MAY),
    ({"at": {"$in": [{"$datetime": "2024-05-01T00:00:00Z"}, 1]}}, In("at", (MAY, 1))),
    ({"$or": [{"lang": "ko"}, {"tags": {"$contains": "x"}}]}, Or((Eq("lang", "ko"), Contains("tags", "x")))),
    ({"$and": [{"a": 1, "b": 2}]}, And((And((Eq("a", 1), Eq("b", 2))),))),
    ({"$and": []}, ALWAYS),
    ({"$or": []}, NEVER),
    ({"$not": {"a": 1}}, Not(Eq("a", 1))),
    ({"$eq": ["$odd key", 1]}, Eq("$odd key", 1)),
    ({"$in": ["$odd key", [1, 2]]}, In("$odd key", (1, 2))),
    ({"$exists": ["$odd key", True]}, Exists("$odd key")),
    ({"a b": True}, Eq("a b", True)),
]


@pytest.mark.parametrize(("document", "expected"), FROM_JSON, ids=str)
def test_from_json(document: dict[str, Any], expected: Filter) -> None:
    assert from_json(document) == expected
    assert from_json(json.loads(json.dumps(to_json(expected)))) == expected


def test_to_json() -> None:
    filter = (F("year") >= 2020) & (F("at") == MAY) & ~F("$x").is_in([1, "a"]) & F("tags").exists()
    assert to_json(filter) == {
        "$and": [
            {"year": {"$gte": 2020}},
            {"at": {"$eq": {"$datetime": "2024-05-01T00:00:00+00:00"}}},
            {"$not": {"$in": ["$x", [1, "a"]]}},
            {"tags": {"$exists": True}},
        ]
    }


def deep_json(levels: int, key: str = "$not") -> dict[str, Any]:
    document: dict[str, Any] = {"a": 1}
    for _ in range(levels):
        document = {key: document if key == "$not" else [document]}
    return document


def deep_list(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


REFUSED_JSON: list[tuple[Any, str]] = [
    ({}, "an empty object is no filter: leave the filter out to match everything"),
    ({"$not": {}}, "an empty object is no filter"),
    ({"$and": [{}]}, "an empty object is no filter"),
    ({"$and": {"a": 1}}, r"\$and needs a list of objects, not \{'a': 1\}"),
    ({"$or": None}, r"\$or needs a list of objects, not None"),
    ({"$and": [5]}, "expected a JSON object, not 5"),
    ({"$not": [{"a": 1}]}, r"expected a JSON object, not \[\{'a': 1\}\]"),
    (
        {"a": {"$foo": 1}},
        rf"unknown operator '\$foo' on 'a'; operators are {OPERATORS}".replace(" $", r" \$"),
    ),
    ({"a": {"foo": 1}}, r"unknown operator 'foo' on 'a'; operators are \$eq"),
    ({"a": {"$not": {"$gt": 1}}}, r"unknown operator '\$not' on 'a'"),
    ({"$foo": ["a", 1]}, r"unknown operator '\$foo' on 'a'"),
    ({"$eq": 1}, r"'\$eq' at this place needs a pair \[key, value\]; operators are \$eq .* \$not"),
    ({"$eq": ["a", 1, 2]}, "needs a pair"),
    ({"$odd key": 1}, "needs a pair"),
    ({"$eq": [["a"], 1]}, "filter key must be a str, not list"),
    ({"a": {"$in": "ko"}}, r"\$in on 'a' needs a list, not 'ko'"),
    ({"a": {"$contains_all": {"x": 1}}}, r"\$contains_all on 'a' needs a list, not"),
    ({"a": {"$exists": 1}}, r"\$exists on 'a' needs true or false, not 1"),
    ({"a": None}, "'a': None is treated as missing"),
    ({"a": [1, 2]}, "'a': a filter compares with .*, not list"),
    ({"a": {}}, "not dict"),
    ({"a": {"$eq": {"$datetime": "x", "more": 1}}}, "not dict"),
    ({"a": {"$datetime": "2024-05-01T00:00:00"}}, "has no time zone"),
    ({"a": {"$datetime": 5}}, "5 is no ISO 8601 date and time"),
    ({"a": {"$gt": "x"}}, "a range on 'a' needs a number or a datetime, not str"),
    ({"a": float("nan")}, "'a': nan is not finite"),
    ({5: 1}, r"filter key must be a str, not int \(5\)"),
    ({"": 1}, "filter key must have 1 to 128 UTF-8 bytes, not 0"),
    ({"a": {"$in": list(range(1001))}}, "has 1001 values; at most 1000"),
    (deep_json(10_000), "a filter may nest 32 deep at most"),
    (deep_json(10_000, "$and"), "a filter may nest 32 deep at most"),
    (deep_json(32), "a filter may nest 32 deep at most"),
    ({"$and": deep_list(10_000)}, "expected a JSON object, not "),
    ({"a": deep_list(10_000)}, "a filter compares with .*, not list"),
    ({"a": {"$in": [deep_list(10_000)]}}, "a filter compares with .*, not list"),
    ({"a": {"$exists": deep_list(10_000)}}, "needs true or false, not "),
]


@pytest.mark.parametrize(
    ("document", "message"), REFUSED_JSON, ids=[str(i) for i in range(len(REFUSED_JSON))]
)
def test_refused_json(document: Any, message: str) -> None:
    with pytest.raises(InvalidFilterError, match=message):
        check_filter(document)


def test_nodes_without_a_notation_have_their_repr() -> None:
    assert format_filter(type("Odd", (Filter,), {"__repr__": lambda self: "<odd>"})()) == "<odd>"
