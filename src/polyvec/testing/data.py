"""The values, keys and ids that the contract is tried with: ordinary ones, and those that break things."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any, Final

import numpy as np

from polyvec.types import FloatArray, Record

SEOUL: Final = timezone(timedelta(hours=9))

HOSTILE_STRINGS: Final = (
    "",
    " ",
    " lead and trail ",
    "a",
    "A",
    "a b",
    "a, b (c)",
    "it's",
    'say "hi"',
    "back\\slash",
    "back`tick",
    "{curly} }",
    "$dollar",
    "$eq",
    "a|b&c",
    "*",
    "%_?",
    "-",
    "a-b",
    "C++",
    "@tag:{x}",
    "line\nbreak\ttab",
    "nul\0inside",
    "\x1f\x7f",
    "\u00e9",  # e acute, one code point
    "e\u0301",  # e acute, two code points: another string
    "한국어 텍스트",
    "日本語",
    "👩‍👩‍👧‍👦🇰🇷",
    "\u202eright to left",
    "true",
    "null",
    "1",
    "1.0",
    "2024-05-01T00:00:00Z",
    "' OR 1=1 --",
    '"] or true or ["',
    "x" * 5000,
)
"""Strings that query languages, tokenisers and normalisers change or choke on."""

NUMBERS: Final = (
    0, 1, -1, 2, 7, 42, 2**31, 2**53, 2**53 + 1, -(2**53) - 1, 2**63 - 1, -(2**63),
    0.0, -0.0, 1.0, 0.1, 0.5, -2.5, 1 / 3, 5e-324, 1.7976931348623157e308, -1.7976931348623157e308,
    1e-7, 123456789.123456789,
)  # fmt: skip

DATETIMES: Final = (
    datetime(1970, 1, 1, tzinfo=UTC),
    datetime(2024, 5, 1, 12, 30, tzinfo=UTC),
    datetime(2024, 5, 1, 21, 30, tzinfo=SEOUL),  # the same instant as the one before
    datetime(2024, 5, 1, 12, 30, 0, 1, tzinfo=UTC),
    datetime(1, 1, 1, tzinfo=UTC),
    datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
)

SCALARS: Final[tuple[Any, ...]] = (True, False, *NUMBERS, *DATETIMES, *HOSTILE_STRINGS)

KEYS: Final = (
    "year",
    "with space",
    "dotted.key",
    "a.b.c",
    'quo"te',
    "apos'trophe",
    "back\\slash",
    "back`tick",
    "}",
    "{",
    "$dollar",
    "$and",
    "#hash",
    "chroma:document",
    "_id",
    "id",
    "text",
    "vector",
    "metadata",
    "namespace",
    "k[]",
    "@at",
    "nul\0key",
    "new\nline",
    "한국어",
    "🔑",
    "UPPER",
    "upper",
    "1",
    " ",
    "k" * 128,
)
"""Metadata keys that payload paths, reserved names and query languages trip over."""

IDS: Final = (
    "plain",
    "UPPER",
    "upper",
    " lead",
    "trail ",
    "with space",
    "a/b\\c",
    "quote\"'`",
    "{braces}",
    "한국어-아이디",
    "👩‍👩‍👧",
    "*",
    "%2F",
    "line\nbreak",
    "tab\t",
    "00000000-0000-0000-0000-000000000001",
    "{00000000-0000-0000-0000-000000000001}",
    "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11",
    "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
    "1",
    "01",
    "-1",
    "18446744073709551616",
    "\u00e9",  # one code point
    "e\u0301",  # two: another id
    "null",
    ".",
    "..",
    "__x__",
    "x" * 512,
    "한" * 170,
)

METADATAS: Final[tuple[dict[str, Any], ...]] = (
    {},
    {"none": None, "true": True, "false": False, "int": 1, "float": 1.0, "str": "1"},
    {"big": 2**63 - 1, "small": -(2**63), "odd": 2**53 + 1, "tiny": 5e-324, "third": 1 / 3, "minus": -0.0},
    {"empty list": [], "empty dict": {}, "empty str": ""},
    {"list": [1, 1.0, True, None, "1", [], {}, [[]], DATETIMES[2]]},
    {"nested": {"a": {"b": [{"c": None, "d": [1, {"e": 2.0}]}]}, "": "", "$x": 1}},
    {"$datetime": "2024-05-01"},
    {"one": {"$datetime": "not a date"}, "two": {"$$datetime": 1}, "three": [{"$x": 1}]},
    {"at": DATETIMES[1], "there": DATETIMES[2], "first": DATETIMES[4], "last": DATETIMES[5]},
    {key: index for index, key in enumerate(KEYS)},
    {f"s{index}": value for index, value in enumerate(HOSTILE_STRINGS)},
    {f"n{index}": value for index, value in enumerate(NUMBERS)},
    {"many": list(range(300))},
    {f"key {index}": index for index in range(60)},
    {"deep": [[[[[[[[[[[[[[[[[[[[{"x": 1}]]]]]]]]]]]]]]]]]]]]},
)
"""Metadata that must come back equal and of the same types."""


def vectors(count: int, dimension: int, seed: int) -> FloatArray:
    """Return random vectors, shape (count, dimension), float32, normally distributed."""
    return np.random.default_rng(seed).standard_normal((count, dimension)).astype(np.float32)


def records(count: int, dimension: int, seed: int = 1) -> list[Record]:
    """Return ordinary records with a text and metadata of several kinds."""
    rows = vectors(count, dimension, seed)
    return [
        Record(
            f"r{index:05}",
            rows[index],
            f"passage number {index}" if index % 5 else None,
            {
                "n": index,
                "third": index % 3,
                "half": index / 2,
                "lang": ("en", "ko", "de")[index % 3],
                "tags": [f"t{index % 4}", f"u{index % 7}"],
                "even": index % 2 == 0,
            },
        )
        for index in range(count)
    ]
