"""The truth table of filters, written out by hand; what is refused; what normalising preserves."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from enum import Enum
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given

from polyvec import F, InvalidFilterError
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
    Gt,
    Gte,
    In,
    Lt,
    Lte,
    Ne,
    Not,
    NotIn,
    Or,
    check_filter,
    depth,
    is_range,
    map_leaves,
    matches,
    normalise,
    push_negations,
    range_key,
    scalar_key,
)
from tests.core.strategies import FIXED, few_filters, few_metadatas

MAY = datetime(2024, 5, 1, tzinfo=UTC)
MAY_IN_SEOUL = datetime(2024, 5, 1, 9, tzinfo=timezone(timedelta(hours=9)))
MAY_LATER = MAY + timedelta(microseconds=1)

# name of a record -> its metadata
RECORDS: dict[str, dict[str, Any]] = {
    "no field": {},
    "other field": {"K": 1, "k2": "a"},
    "None": {"k": None},
    "True": {"k": True},
    "False": {"k": False},
    "0": {"k": 0},
    "-0.0": {"k": -0.0},
    "0.5": {"k": 0.5},
    "1": {"k": 1},
    "1.0": {"k": 1.0},
    "2": {"k": 2},
    "2**53": {"k": 2**53},
    "2**53+1": {"k": 2**53 + 1},
    "2.0**53": {"k": 2.0**53},
    "empty str": {"k": ""},
    "str 1": {"k": "1"},
    "str True": {"k": "True"},
    "a": {"k": "a"},
    "A": {"k": "A"},
    "a and a space": {"k": "a "},
    "é": {"k": "\u00e9"},
    "e and an accent": {"k": "e\u0301"},
    "May": {"k": MAY},
    "May in Seoul": {"k": MAY_IN_SEOUL},
    "May later": {"k": MAY_LATER},
    "str May": {"k": "2024-05-01T00:00:00+00:00"},
    "[]": {"k": []},
    "[None]": {"k": [None]},
    "[1]": {"k": [1]},
    "[1.0, 'a']": {"k": [1.0, "a"]},
    "[True, '1']": {"k": [True, "1"]},
    "[['a']]": {"k": [["a"]]},
    "['a', 'b', 'a']": {"k": ["a", "b", "a"]},
    "[May in Seoul]": {"k": [MAY_IN_SEOUL]},
    "{}": {"k": {}},
    "{a: 1}": {"k": {"a": 1}},
}
LISTS = {
    "[]", "[None]", "[1]", "[1.0, 'a']", "[True, '1']", "[['a']]", "['a', 'b', 'a']", "[May in Seoul]",
}  # fmt: skip

K = F("k")
TRUTH: list[tuple[Filter, set[str]]] = [
    (K == 1, {"1", "1.0"}),
    (K == 1.0, {"1", "1.0"}),
    (K == True, {"True"}),  # noqa: E712  # a literal of a filter
    (K == False, {"False"}),  # noqa: E712  # a literal of a filter
    (K == 0, {"0", "-0.0"}),
    (K == -0.0, {"0", "-0.0"}),
    (K == 0.5, {"0.5"}),
    (K == 2**53, {"2**53", "2.0**53"}),
    (K == 2**53 + 1, {"2**53+1"}),
    (K == "1", {"str 1"}),
    (K == "True", {"str True"}),
    (K == "", {"empty str"}),
    (K == "a", {"a"}),
    (K == "A", {"A"}),
    (K == "a ", {"a and a space"}),
    (K == "\u00e9", {"é"}),
    (K == "e\u0301", {"e and an accent"}),
    (K == MAY, {"May", "May in Seoul"}),
    (K == MAY_IN_SEOUL, {"May", "May in Seoul"}),
    (K == MAY_LATER, {"May later"}),
    (K == "2024-05-01T00:00:00+00:00", {"str May"}),
    (F("K") == 1, {"other field"}),
    (F("absent") == 1, set()),
    (K < 1, {"0", "-0.0", "0.5"}),
    (K <= 1, {"0", "-0.0", "0.5", "1", "1.0"}),
    (K <= 0, {"0", "-0.0"}),
    (K > 0, {"0.5", "1", "1.0", "2", "2**53", "2**53+1", "2.0**53"}),
    (K > 1, {"2", "2**53", "2**53+1", "2.0**53"}),
    (K >= 1.0, {"1", "1.0", "2", "2**53", "2**53+1", "2.0**53"}),
    # as float64, in which 2**53 + 1 is 2**53
    (K > 2**53, set()),
    (K >= 2**53 + 1, {"2**53", "2**53+1", "2.0**53"}),
    (K < MAY, set()),
    (K <= MAY, {"May", "May in Seoul"}),
    (K > MAY, {"May later"}),
    (K >= MAY_IN_SEOUL, {"May", "May in Seoul", "May later"}),
    (K < MAY_LATER, {"May", "May in Seoul"}),
    (K.is_in([]), set()),
    (K.is_in([1, "a", MAY]), {"1", "1.0", "a", "May", "May in Seoul"}),
    (K.is_in([True]), {"True"}),
    (K.contains("a"), {"[1.0, 'a']", "['a', 'b', 'a']"}),
    (K.contains(1), {"[1]", "[1.0, 'a']"}),
    (K.contains(True), {"[True, '1']"}),
    (K.contains("1"), {"[True, '1']"}),
    (K.contains(MAY), {"[May in Seoul]"}),
    (K.contains("c"), set()),
    (K.contains_any([]), set()),
    (K.contains_any(["b", 1.0]), {"[1]", "[1.0, 'a']", "['a', 'b', 'a']"}),
    (K.contains_all([]), LISTS),
    (K.contains_all(["a"]), {"[1.0, 'a']", "['a', 'b', 'a']"}),
    (K.contains_all(["a", "b"]), {"['a', 'b', 'a']"}),
    (K.contains_all(["a", 1]), {"[1.0, 'a']"}),
    (K.contains_all(["1", 1]), set()),
    (K.exists(), set(RECORDS) - {"no field", "other field", "None"}),
    (ALWAYS, set(RECORDS)),
    (NEVER, set()),
    ((K == "a") | (K == "A"), {"a", "A"}),
    ((K >= 1) & (K < 2), {"1", "1.0"}),
    (~K.exists(), {"no field", "other field", "None"}),
    ((K != "a") & K.exists() & ~K.contains_all([]) & ~(K > 0) & ~(K <= 0) & (K != "1") & ~(K >= MAY), {
        "True", "False", "empty str", "str True", "A", "a and a space", "é", "e and an accent", "str May",
        "{}", "{a: 1}",
    }),
]  # fmt: skip


def shown(value: object) -> str:
    """Return an id for a parameter; sets have no order of their own."""
    return f"{len(value)} records" if isinstance(value, set) else str(value)[:60]


@pytest.mark.parametrize(("filter", "expected"), TRUTH, ids=shown)
def test_truth_table(filter: Filter, expected: set[str]) -> None:
    assert {name for name, metadata in RECORDS.items() if matches(filter, metadata)} == expected


@pytest.mark.parametrize(("filter", "expected"), TRUTH, ids=shown)
def test_complements(filter: Filter, expected: set[str]) -> None:
    """Ne, NotIn and Not hold exactly where their operand does not, missing fields included."""
    complements: list[Filter] = [~filter, Not(~~filter)]
    if isinstance(filter, Eq):
        complements.append(Ne(filter.key, filter.value))
    if isinstance(filter, In):
        complements.append(NotIn(filter.key, filter.values))
    for complement in complements:
        found = {name for name, metadata in RECORDS.items() if matches(complement, metadata)}
        assert found == set(RECORDS) - expected


def test_no_filter_holds_for_all() -> None:
    assert all(matches(None, metadata) for metadata in RECORDS.values())


def test_python_notation() -> None:
    assert (K == 1) == Eq("k", 1)
    assert (K != 1) == Ne("k", 1)
    assert [K < 1, K <= 1, K > 1, K >= 1] == [Lt("k", 1), Lte("k", 1), Gt("k", 1), Gte("k", 1)]
    assert (1 < K) == Gt("k", 1)  # noqa: SIM300  # the mirrored comparison
    assert K.is_in(value for value in (1, 2)) == In("k", (1, 2))
    assert K.not_in([1]) == NotIn("k", (1,))
    assert K.contains_any(["a"]) == ContainsAny("k", ("a",))
    assert K.contains_all(["a"]) == ContainsAll("k", ("a",))
    assert K.contains("a") == Contains("k", "a")
    assert K.exists() == Exists("k")
    a, b, c = K == 1, K == 2, K == 3
    assert (a & b & c) == And((a, b, c))
    assert (a | (b | c)) == Or((a, b, c))
    assert (a & (b | c)) == And((a, Or((b, c))))
    assert ~a == Not(a)


def test_filters_are_equal_only_with_literals_of_one_type() -> None:
    nodes: list[Filter] = [
        Eq("k", 1), Eq("k", 1.0), Eq("k", True), Eq("k", "1"), Ne("k", 1), Eq("K", 1), In("k", (1,)),
        Lt("k", 1), Not(Eq("k", 1)), And((Eq("k", 1),)), Or((Eq("k", 1),)), Exists("k"),
    ]  # fmt: skip
    for i, node in enumerate(nodes):
        assert [other == node for other in nodes] == [j == i for j in range(len(nodes))]
        assert hash(node) == hash(copy.deepcopy(node))
    assert len(set(nodes)) == len(nodes)
    assert Eq("k", 1) != 1


@pytest.mark.parametrize("filter", [filter for filter, _ in TRUTH], ids=lambda value: str(value)[:60])
def test_filters_can_be_pickled(filter: Filter) -> None:
    assert pickle.loads(pickle.dumps(filter)) == filter  # noqa: S301  # our own


def test_a_named_zone_becomes_its_offset() -> None:
    """JSON and strings have only the offset, and what is read back from them must be equal."""
    seoul = datetime(2024, 5, 1, 9, tzinfo=ZoneInfo("Asia/Seoul"))
    assert Eq("k", seoul) == Eq("k", MAY_IN_SEOUL) != Eq("k", MAY)
    assert In("k", (seoul,)) == In("k", (MAY_IN_SEOUL,))
    berlin = ZoneInfo("Europe/Berlin")
    first, second = (datetime(2024, 10, 27, 2, 30, tzinfo=berlin, fold=fold) for fold in (0, 1))
    assert matches(Eq("k", first), {"k": datetime(2024, 10, 27, 0, 30, tzinfo=UTC)})
    assert matches(Eq("k", second), {"k": datetime(2024, 10, 27, 1, 30, tzinfo=UTC)})


class Word(str):
    __slots__ = ()


class Number(int):
    pass


class Real(float):
    pass


class Day(datetime):
    pass


class Colour(Enum):
    RED = 1


class Unprintable:
    def __repr__(self) -> str:
        raise RuntimeError("no")


def nested_list(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


REFUSED_LITERALS: list[tuple[Any, str]] = [
    (None, r"'k': None is treated as missing; use ~F\('k'\)\.exists\(\) \(or `not k exists`\)"),
    (float("nan"), "'k': nan is not finite"),
    (float("inf"), "'k': inf is not finite"),
    (-float("inf"), "'k': -inf is not finite"),
    (2**63, "'k': 9223372036854775808 does not fit in an int64"),
    (-(2**63) - 1, "'k': -9223372036854775809 does not fit in an int64"),
    (10**5000, "'k': .* does not fit in an int64"),
    (datetime(2024, 5, 1), r"'k': the datetime 2024-05-01T00:00:00 has no time zone; add one, e.g. value\."),  # noqa: DTZ001
    ("\ud800", r"the value for 'k' holds a lone surrogate \('\\ud800' at position 0\)"),
    ("ok\udfff", "lone surrogate .* at position 2"),
    ([1], r"'k': a filter compares with bool, int, float, str or datetime, not list \(\[1\]\)"),
    ((1,), "not tuple"),
    ({"a": 1}, "not dict"),
    (b"a", "not bytes"),
    (MAY.date(), "not date"),
    (1j, "not complex"),
    (Word("a"), "not Word"),
    (Number(1), "not Number"),
    (Real(1), "not Real"),
    (Day(2024, 5, 1, tzinfo=UTC), "not Day"),
    (Colour.RED, "not Colour"),
    (np.float64(1), "not float64"),
    (np.int64(1), "not int64"),
    (np.bool_(True), "not bool"),
    (np.str_("a"), "not str_"),
    (F("other"), r"not F \(F\('other'\)\)"),
    (Unprintable(), "not Unprintable"),
    (nested_list(10_000), "not list"),
]


@pytest.mark.parametrize(("value", "message"), REFUSED_LITERALS, ids=lambda value: type(value).__name__)
def test_refused_literals(value: Any, message: str) -> None:
    for kind in (Eq, Ne, Contains, Lt, Lte, Gt, Gte):
        with pytest.raises(InvalidFilterError, match=message):
            kind("k", value)
    for several in (In, NotIn, ContainsAny, ContainsAll):
        with pytest.raises(InvalidFilterError, match=message):
            several("k", (1, value))


@pytest.mark.parametrize("kind", [Lt, Lte, Gt, Gte])
def test_ranges_on_strings_and_bools_are_refused(kind: type[Lt]) -> None:
    with pytest.raises(
        InvalidFilterError, match=r"a range on 'k' needs a number or a datetime, not str \('a'\)"
    ):
        kind("k", "a")
    with pytest.raises(InvalidFilterError, match=r"not bool \(True\)"):
        kind("k", True)


@pytest.mark.parametrize("kind", [In, NotIn, ContainsAny, ContainsAll])
def test_lists_of_values(kind: type[In]) -> None:
    assert len(kind("k", tuple(range(1000))).values) == 1000
    with pytest.raises(InvalidFilterError, match=f"{kind.__name__} on 'k' has 1001 values; at most 1000"):
        kind("k", tuple(range(1001)))
    for value in ("ab", b"ab", 5, None):
        with pytest.raises(InvalidFilterError, match=f"{kind.__name__} on 'k' needs a list of values, not "):
            kind("k", value)  # type: ignore[arg-type]  # that is the point


REFUSED_KEYS: list[tuple[Any, str]] = [
    ("", "filter key must have 1 to 128 UTF-8 bytes, not 0"),
    ("k" * 129, "filter key must have 1 to 128 UTF-8 bytes, not 129"),
    ("é" * 65, "not 130"),
    ("k\ud800", "filter key holds a lone surrogate"),
    (5, r"filter key must be a str, not int \(5\)"),
    (None, "must be a str, not NoneType"),
    (Word("k"), "must be a str, not Word"),
]


@pytest.mark.parametrize(("key", "message"), REFUSED_KEYS)
def test_refused_keys(key: Any, message: str) -> None:
    makers: list[Callable[[Any], object]] = [
        F,
        Exists,
        lambda key: Eq(key, 1),
        lambda key: Gt(key, 1),
        lambda key: In(key, (1,)),
    ]
    for make in makers:
        with pytest.raises(InvalidFilterError, match=message):
            make(key)


def test_the_longest_keys_are_taken() -> None:
    assert F("k" * 128).key == "k" * 128
    assert matches(F("é" * 64) == 1, {"é" * 64: 1})


def test_a_filter_has_no_truth_value() -> None:
    """`and`, `or`, `not` and chained comparisons would silently lose a clause."""
    clauses: list[Callable[[], object]] = [
        lambda: (K == 1) and (K < 2),
        lambda: (K == 1) or (K < 2),
        lambda: not (K < 1),
        lambda: 1 < K < 5,
        lambda: 1 if K == 1 else 2,
    ]
    for clause in clauses:
        with pytest.raises(
            InvalidFilterError, match=r"join filters with & \| ~ instead of and, or, not, and "
        ):
            clause()
    with pytest.raises(InvalidFilterError, match=r"F\('k'\) is no filter yet: compare it with something"):
        bool(K)


@pytest.mark.parametrize("other", [True, None, "k == 1", {"k": 1}, K, 5, Unprintable()])
def test_only_filters_can_be_joined(other: Any) -> None:
    message = f"expected a filter, not {type(other).__name__}"
    for join in (
        lambda: (K == 1) & other,
        lambda: (K == 1) | other,
        lambda: And((K == 1, other)),
        lambda: Or((other,)),
        lambda: Not(other),
    ):
        with pytest.raises(InvalidFilterError, match=message):
            join()


def nest(levels: int) -> Filter:
    """A filter of the given depth, of And, Or and Not in turn."""
    filter: Filter = K == 1
    for level in range(levels - 1):
        filter = [Not(filter), And((filter, K == 2)), Or((filter, K == 3))][level % 3]
    return filter


def test_depth() -> None:
    assert depth(K == 1) == 1
    assert depth(ALWAYS) == 1
    assert depth(nest(5)) == 5
    assert check_filter(nest(32)) == nest(32)
    with pytest.raises(InvalidFilterError, match="a filter may nest 32 deep at most"):
        check_filter(nest(33))


@pytest.mark.parametrize("kind", [Not, lambda inner: And((inner,))])
def test_very_deep_filters_are_refused_not_crashed(kind: Any) -> None:
    filter: Filter = K == 1
    for _ in range(10_000):
        filter = kind(filter)
    with pytest.raises(InvalidFilterError, match="a filter may nest 32 deep at most"):
        check_filter(filter)


@pytest.mark.parametrize("value", [None, 5, True, [], K, ["k == 1"], Unprintable()])
def test_check_filter_refuses_what_is_no_filter(value: Any) -> None:
    with pytest.raises(InvalidFilterError, match=f"expected a filter, not {type(value).__name__}"):
        check_filter(value)


def test_check_filter_parses() -> None:
    expected = And((Gte("year", 2020), In("lang", ("ko", "en"))))
    assert check_filter('year >= 2020 and lang in ["ko", "en"]') == expected
    assert check_filter({"year": {"$gte": 2020}, "lang": {"$in": ["ko", "en"]}}) == expected


def test_matches_refuses_a_node_it_does_not_know() -> None:
    with pytest.raises(InvalidFilterError, match="unknown filter node Odd"):
        matches(type("Odd", (Filter,), {})(), {})


def test_scalar_keys() -> None:
    assert scalar_key(True) == ("b", True)
    values: list[Any] = [True, "1", None, [1], {}]
    assert scalar_key(1) == scalar_key(1.0) == ("n", 1)
    assert scalar_key(-0.0) == ("n", 0)
    assert scalar_key(2**53 + 1) != scalar_key(2.0**53)
    assert scalar_key("1") == ("s", "1")
    assert scalar_key(MAY) == scalar_key(MAY_IN_SEOUL) == ("d", 1_714_521_600_000_000)
    assert [scalar_key(value) for value in values[2:]] == [None] * 3
    assert range_key(2**53 + 1) == ("n", 2.0**53)
    assert type(range_key(1)[1]) is float  # type: ignore[index]  # it is a number
    assert range_key(MAY_LATER) == ("d", 1_714_521_600_000_001)
    assert [range_key(value) for value in values] == [None] * 5


# Normalising -----------------------------------------------------------------------------------------


def nodes(filter: Filter) -> list[Filter]:
    match filter:
        case And(operands) | Or(operands):
            return [filter, *(node for operand in operands for node in nodes(operand))]
        case Not(operand):
            return [filter, *nodes(operand)]
    return [filter]


@FIXED
@given(few_filters, few_metadatas)
def test_normalise_preserves_the_meaning(filter: Filter, metadata: dict[str, Any]) -> None:
    assert matches(normalise(filter), metadata) == matches(filter, metadata)


@FIXED
@given(few_filters)
def test_normalise_leaves_fewer_kinds_of_node(filter: Filter) -> None:
    result = normalise(filter)
    if result is None or result is NEVER:
        return
    for node in nodes(result):
        assert not isinstance(node, Ne | NotIn)
        match node:
            case And(operands) | Or(operands):
                assert len(operands) >= 2, "constants and joins of one are folded"
                assert not any(type(operand) is type(node) for operand in operands), "joins are flat"
            case Not(operand):
                assert not isinstance(operand, Not)
            case In(_, values) | ContainsAny(_, values):
                assert values
    assert normalise(result) == result


@FIXED
@given(few_filters, few_metadatas)
def test_push_negations_preserves_the_meaning(filter: Filter, metadata: dict[str, Any]) -> None:
    normal = normalise(filter)
    if normal is None:
        return
    pushed = push_negations(normal)
    assert matches(pushed, metadata) == matches(filter, metadata)
    for node in nodes(pushed):
        if isinstance(node, Not):
            assert not isinstance(node.operand, And | Or | Not)


X, Y, Z = F("x") == 1, F("y") == 1, F("z") == 1


@pytest.mark.parametrize(
    ("filter", "expected"),
    [
        (None, None),
        (ALWAYS, None),
        (And(()), None),
        (Or(()), NEVER),
        (~ALWAYS, NEVER),
        (~NEVER, None),
        (F("x").is_in([]), NEVER),
        (F("x").contains_any([]), NEVER),
        (F("x").not_in([]), None),
        (F("x").is_in([]) | F("y").is_in([]), NEVER),
        (F("x").not_in([]) & F("y").not_in([]), None),
        (F("x").contains_all([]), ContainsAll("x", ())),
        (F("x") != 1, Not(Eq("x", 1))),
        (F("x").not_in([1]), Not(In("x", (1,)))),
        (~(F("x") != 1), X),
        (~~X, X),
        (~~~X, Not(X)),
        (And((X,)), X),
        (Or((Or((X,)),)), X),
        (X & ALWAYS & Y, And((X, Y))),
        (X & NEVER & Y, NEVER),
        (X | NEVER, X),
        (X | Y | ALWAYS, None),
        (X & And((Y, And((Z,)))), And((X, Y, Z))),
        (And((X, Or((Y, Or((Z, NEVER)))))), And((X, Or((Y, Z))))),
        (And((X, Not(Or((Y, ALWAYS))))), NEVER),
        (Or((X, Not(And((Y, Not(Z)))))), Or((X, Not(And((Y, Not(Z))))))),
    ],
    ids=str,
)
def test_normalise(filter: Filter | None, expected: Filter | None) -> None:
    result = normalise(filter)
    assert result == expected
    if expected is NEVER:
        assert result is NEVER, "callers compare with `is`"


def test_push_negations() -> None:
    assert push_negations(Not(And((X, Not(Y))))) == Or((Not(X), Y))
    assert push_negations(Not(Or((X, And((Y, Z)))))) == And((Not(X), Or((Not(Y), Not(Z)))))
    assert push_negations(And((Not(X), Y))) == And((Not(X), Y))


def test_map_leaves_and_is_range() -> None:
    assert map_leaves(Or((X, Not(And((Y, Z))))), Not) == Or((Not(X), Not(And((Not(Y), Not(Z))))))
    assert [is_range(node) for node in (K < 1, K <= 1, K > 1, K >= 1)] == [True] * 4
    assert [is_range(node) for node in (K == 1, K.is_in([1]), K.exists(), Not(K < 1))] == [False] * 4
