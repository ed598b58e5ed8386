"""Metadata: what is allowed, and that encoding and decoding lose nothing, not even a type."""

from __future__ import annotations

import json
import math
from collections import OrderedDict, defaultdict
from datetime import UTC, datetime, timedelta, timezone
from enum import Enum, IntEnum, StrEnum
from types import MappingProxyType
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given

from polyvec import InvalidInputError
from polyvec.metadata import (
    EPOCH,
    check_key,
    check_metadata,
    check_value,
    decode,
    encode,
    microseconds,
    utf8_length,
)
from tests.core.strategies import FIXED, HOSTILE_KEYS, HOSTILE_SCALARS, datetimes, metadatas


def exact(value: Any) -> Any:
    """What two values must share to be the same: the types, the sign of a zero, the order, the offset."""
    if isinstance(value, list):
        return [exact(item) for item in value]
    if isinstance(value, dict):
        return {key: exact(item) for key, item in value.items()}
    if isinstance(value, datetime):
        return (type(value), value.isoformat())
    if isinstance(value, float):
        return (float, value.hex())
    return (type(value), value)


def round_trip(metadata: dict[str, Any]) -> dict[str, Any]:
    check_metadata(metadata)
    text = encode(metadata)
    json.loads(text)
    text.encode()
    return decode(text)


@FIXED
@given(metadatas)
def test_round_trip(metadata: dict[str, Any]) -> None:
    assert exact(round_trip(metadata)) == exact(metadata)


@pytest.mark.parametrize("value", HOSTILE_SCALARS, ids=repr)
def test_round_trip_of_hostile_values(value: Any) -> None:
    forms: list[dict[str, Any]] = [
        {"k": value},
        {"k": [value, [value]]},
        {"k": {"$datetime": value}},
        {"$k": value},
        {"$datetime": value},
        {"k": {"$$datetime": {"$datetime": value}}},
        {"k": value, "$l": [{"$": value}]},
    ]
    for metadata in forms:
        assert exact(round_trip(metadata)) == exact(metadata)


@pytest.mark.parametrize("key", [key for key in HOSTILE_KEYS if key], ids=repr)
def test_round_trip_of_hostile_keys(key: str) -> None:
    forms: list[dict[str, Any]] = [
        {key: 1}, {key: 1, "other": [1]}, {"k": {key: 1}}, {"k": [{key: {key: [{}]}}]},
    ]  # fmt: skip
    for metadata in forms:
        assert exact(round_trip(metadata)) == exact(metadata)


MAY = datetime(2024, 5, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"k": {}},
        {"k": []},
        {"k": None},
        {"k": [None, {}, [], ""]},
        {"k": {"": None}},
        {"k": {"k" * 10_000: 1}},
        {"$datetime": "2024-05-01T00:00:00Z"},
        {"$datetime": "no date"},
        {"$datetime": None},
        {"$datetime": MAY},
        {"$datetime": {"$datetime": MAY}},
        {"$$datetime": MAY, "b": 1},
        {"$": 1},
        {"$$": {"$$$": {"$": [MAY]}}},
        {"k": {"$datetime": "2024-05-01T00:00:00Z"}},
        {"k": {"$datetime": "2024-05-01T00:00:00Z", "other": 1}},
        {"k": [{"$datetime": 1}, {"$$x": [{"$x": None}]}, MAY]},
        {"k": 'a string with "$datetime" in it', "l": MAY},
        {"a": MAY, "b": 'a "$ string'},
        {"k": "</script>\u2028\x00\x1f\x7f\ufeff\uffff🙂"},
    ],
    ids=repr,
)
def test_round_trip_of_special_cases(metadata: dict[str, Any]) -> None:
    assert exact(round_trip(metadata)) == exact(metadata)
    assert exact(round_trip({"nested": metadata})) == exact({"nested": metadata})


def test_decode_gives_new_objects() -> None:
    metadata = {"k": [1, {"a": [2]}]}
    found = decode(encode(metadata))
    found["k"][1]["a"].append(3)
    assert metadata == {"k": [1, {"a": [2]}]}


def test_encode_never_writes_what_is_no_json() -> None:
    with pytest.raises(ValueError, match="Out of range float"):
        encode({"k": [float("nan")]})
    with pytest.raises(TypeError):
        encode({"k": {1, 2}})


def test_encode_leaves_its_argument_alone() -> None:
    metadata = {"$k": {"$datetime": 1}}
    encode(metadata)
    assert metadata == {"$k": {"$datetime": 1}}


@FIXED
@given(datetimes)
def test_datetimes(value: datetime) -> None:
    found = round_trip({"k": value})["k"]
    assert found == value
    assert found.utcoffset() == value.utcoffset()
    assert microseconds(found) == microseconds(value)
    assert EPOCH + timedelta(microseconds=0) + (value - EPOCH) == value
    assert microseconds(value) * timedelta(microseconds=1) == value - EPOCH


def test_microseconds() -> None:
    assert microseconds(EPOCH) == 0
    assert microseconds(datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)) == -1
    assert microseconds(datetime(2024, 5, 1, tzinfo=timezone(timedelta(seconds=1)))) == 1_714_521_599_000_000
    assert microseconds(datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=23)))) == -62_135_679_600_000_000
    assert (
        microseconds(datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=timezone(-timedelta(hours=23))))
        == 253_402_383_599_999_999
    )


def test_a_named_zone_comes_back_as_its_offset() -> None:
    value = datetime(2024, 10, 27, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"), fold=1)
    found = round_trip({"k": value})["k"]
    assert microseconds(found) == microseconds(value)
    assert found.utcoffset() == value.utcoffset() == timedelta(hours=1)


class Word(str):
    __slots__ = ()


class Number(int):
    pass


class Real(float):
    pass


class Day(datetime):
    pass


class Names(StrEnum):
    A = "a"


class Numbers(IntEnum):
    ONE = 1


class Colour(Enum):
    RED = 1


class Unprintable:
    def __repr__(self) -> str:
        raise RuntimeError("no")


ALLOWED = "allowed are None, bool, int, float, str, timezone-aware datetime, and lists and dicts of these"
REFUSED: list[tuple[Any, str]] = [
    (Word("a"), f"is a .*Word; {ALLOWED}"),
    (Number(1), "is a .*Number; allowed"),
    (Real(1), "is a .*Real; allowed"),
    (Day(2024, 5, 1, tzinfo=UTC), "is a .*Day; allowed"),
    (Names.A, "is a .*Names"),
    (Numbers.ONE, "is a .*Numbers"),
    (Colour.RED, "is a .*Colour"),
    (np.float64(1), f"is a numpy.float64; {ALLOWED}; call .item\\(\\) on it"),
    (np.int64(1), "is a numpy.int64; .*item"),
    (np.bool_(True), "is a numpy.bool.*item"),
    (np.str_("a"), "is a numpy.str_.*item"),
    (np.zeros(2), "is a numpy.ndarray"),
    ((1, 2), f"is a tuple; {ALLOWED}$"),
    ({1, 2}, "is a set"),
    (frozenset(), "is a frozenset"),
    (b"a", "is a bytes"),
    (1j, "is a complex"),
    (object(), "is a object"),
    (Unprintable(), "is a .*Unprintable"),
    (MAY.date(), "is a datetime.date"),
    (timedelta(1), "is a datetime.timedelta"),
    (OrderedDict(a=1), "is a collections.OrderedDict"),
    (defaultdict(int), "is a collections.defaultdict"),
    (MappingProxyType({}), "is a mappingproxy"),
    (float("nan"), "is nan; a float must be finite"),
    (float("inf"), "is inf; a float must be finite"),
    (-math.inf, "is -inf; a float must be finite"),
    (2**63, "= 9223372036854775808 does not fit in an int64"),
    (-(2**63) - 1, "= -9223372036854775809 does not fit in an int64"),
    (10**5000, "does not fit in an int64"),
    (
        datetime(2024, 5, 1),  # noqa: DTZ001  # that is the point
        r"is a datetime without a time zone \(2024-05-01T00:00:00\); add one, e.g. value.replace",
    ),
    ("\ud800", r"holds a lone surrogate \('\\ud800' at position 0\); repair it with text.encode"),
    ({1: 2}, "holds a dict key that is not a str: 1"),
    ({None: 2}, "holds a dict key that is not a str: None"),
    ({Word("a"): 2}, "holds a dict key that is not a str: 'a'"),
    ({"ok": {"\udfff": 1}}, r"a key in metadata\['k'\] holds a lone surrogate"),
]


@pytest.mark.parametrize(("value", "message"), REFUSED, ids=lambda value: type(value).__name__)
def test_refused_values(value: Any, message: str) -> None:
    for wrapped in (value, [value], {"a": value}, [1, {"a": ["x", value]}]):
        with pytest.raises(InvalidInputError, match=message) as caught:
            check_metadata({"fine": 1, "k": wrapped})
        assert "metadata['k']" in str(caught.value), "the error names the key"


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("", "metadata key must have 1 to 128 UTF-8 bytes, not 0"),
        ("k" * 129, "metadata key must have 1 to 128 UTF-8 bytes, not 129"),
        ("é" * 65, "metadata key must have 1 to 128 UTF-8 bytes, not 130"),
        ("a\ud800", "metadata key holds a lone surrogate .* at position 1"),
        (1, r"metadata key must be a str, not int \(1\)"),
        (None, "metadata key must be a str, not NoneType"),
        (Word("a"), "metadata key must be a str, not Word"),
        (Names.A, "metadata key must be a str, not Names"),
    ],
)
def test_refused_keys(key: Any, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        check_metadata({"fine": 1, key: 1})


def test_keys_at_the_limits() -> None:
    assert check_key("k") == 1
    assert check_key("k" * 128) == check_key("é" * 64) == check_key("🙂" * 32) == 128


@pytest.mark.parametrize(
    "metadata", [None, [], "a", 5, OrderedDict(), MappingProxyType({"a": 1}), [("a", 1)]], ids=repr
)
def test_metadata_must_be_a_dict(metadata: Any) -> None:
    with pytest.raises(InvalidInputError, match=f"metadata must be a dict, not {type(metadata).__name__}"):
        check_metadata(metadata)


@pytest.mark.parametrize("wrap", [lambda value: [value], lambda value: {"": value}])
def test_depth(wrap: Any) -> None:
    value: Any = 1
    for _ in range(100):
        value = wrap(value)
    assert exact(round_trip({"k": value})) == exact({"k": value})
    with pytest.raises(InvalidInputError, match=r"metadata\['k'\] is nested more than 100 deep"):
        check_metadata({"k": wrap(value)})
    for _ in range(100_000):
        value = wrap(value)
    with pytest.raises(InvalidInputError, match="nested more than 100 deep"):
        check_metadata({"k": value})
    while isinstance(value, list | dict):  # taken apart, since its own destructor would recurse
        value = value.pop("") if isinstance(value, dict) else value.pop()


def test_a_list_within_itself_is_refused() -> None:
    value: list[Any] = []
    value += [value, value]
    with pytest.raises(InvalidInputError, match="nested more than 100 deep"):
        check_metadata({"k": value})


@FIXED
@given(metadatas)
def test_the_size_is_about_that_of_the_json(metadata: dict[str, Any]) -> None:
    """Batches are cut by it, so it must not be far below the truth; escapes are not counted."""
    plain = json.dumps(json.loads(encode(metadata)), ensure_ascii=False, separators=(",", ":"))
    escapes = plain.count("\\") * 5
    assert check_metadata(metadata) >= (len(plain.encode()) - escapes) / 3


def test_sizes() -> None:
    assert check_metadata({}) == 2
    assert check_value("é" * 10, "k") == 22
    assert check_value(["a" * 100] * 10, "k") > 1000
    assert check_value({"a" * 100: None}, "k") > 100
    assert utf8_length("aé🙂", "text") == 7
