"""Hypothesis strategies for filters and metadata: hostile keys, values that look alike, odd time zones."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st

from polyvec.filters import (
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
)
from polyvec.metadata import INT64_MAX, INT64_MIN

FIXED = settings(derandomize=True, database=None, deadline=None, max_examples=60)
"""The same examples in every run, and no files."""

HOSTILE_KEYS = [
    "a", "A", "b", "1:a", "2:ab", "a:1", "", "$eq", "$datetime", "$$datetime", "$and", "not", "TRUE", "in",
    "datetime", "a b", "a.b", "a-b", "`", "``", "'", '"', "\\", "\n", "\0", "e1:a", "s1:a", "年", "🙂", "é",
    "e\u0301", "k" * 128, "1a", "x or y",
]  # fmt: skip

HOSTILE_SCALARS: list[Any] = [
    True, False, 0, 1, -1, 0.0, -0.0, 1.0, 0.5, 1.5, 2**53, 2**53 + 1, float(2**53), INT64_MIN, INT64_MAX,
    float(2**63), 1e308, 5e-324, 0.1 + 0.2, 0.3,
    "", "1", "1.0", "True", "true", "a", "A", "a ", "é", "e\u0301", "\0", "🙂", "'", '"', "`", "\\", "\u2028",
    "%_*?", "1:a", "a" * 200,
    datetime(2024, 5, 1, tzinfo=UTC),
    datetime(2024, 5, 1, 9, tzinfo=timezone(timedelta(hours=9))),
    datetime(2024, 5, 1, 0, 0, 0, 1, tzinfo=UTC),
    datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=14))),
    datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=timezone(-timedelta(hours=14, seconds=1))),
]  # fmt: skip

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
offsets = st.builds(
    timezone,
    st.timedeltas(timedelta(hours=-24, microseconds=1), timedelta(hours=24, microseconds=-1))
    | st.just(timedelta(0)),
)
datetimes = st.datetimes(timezones=offsets)
floats = st.floats(allow_nan=False, allow_infinity=False)
ints = st.integers(INT64_MIN, INT64_MAX)
scalars = st.sampled_from(HOSTILE_SCALARS) | st.booleans() | ints | floats | text | datetimes
orderable = (
    ints
    | floats
    | datetimes
    | st.sampled_from([value for value in HOSTILE_SCALARS if not isinstance(value, bool | str)])
)

field_keys = st.sampled_from([key for key in HOSTILE_KEYS if key]) | text.filter(
    lambda key: 1 <= len(key.encode()) <= 128
)
nested_keys = st.sampled_from(HOSTILE_KEYS) | text
values = st.recursive(
    st.none() | scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(nested_keys, inner, max_size=3),
    max_leaves=10,
)
metadatas = st.dictionaries(field_keys, values, max_size=5)


def leaves(keys: st.SearchStrategy[str], literals: st.SearchStrategy[Any]) -> st.SearchStrategy[Filter]:
    """Single conditions of every kind."""
    many = st.lists(literals, max_size=4).map(tuple)
    numbers = literals.filter(lambda value: not isinstance(value, bool | str))
    conditions: list[st.SearchStrategy[Filter]] = [st.builds(Exists, keys)]
    conditions += [st.builds(kind, keys, literals) for kind in (Eq, Ne, Contains)]
    conditions += [st.builds(kind, keys, numbers) for kind in (Lt, Lte, Gt, Gte)]
    conditions += [st.builds(kind, keys, many) for kind in (In, NotIn, ContainsAny, ContainsAll)]
    return st.one_of(conditions)


def filters(
    keys: st.SearchStrategy[str], literals: st.SearchStrategy[Any], *, fewest: int = 2
) -> st.SearchStrategy[Filter]:
    """Filters of every shape, with constants anywhere; And and Or have none or at least `fewest` operands."""

    def join(inner: st.SearchStrategy[Filter]) -> st.SearchStrategy[Filter]:
        several = st.lists(inner, min_size=fewest, max_size=4).map(tuple)
        return st.builds(And, several) | st.builds(Or, several) | st.builds(Not, inner)

    constants = st.sampled_from([And(()), Or(())])
    return st.recursive(leaves(keys, literals) | constants, join, max_leaves=8)


few_keys = st.sampled_from(["a", "b", "1:a", "🙂"])
few_scalars = st.sampled_from(
    [
        True, 1, 1.0, "1", "a", 2, 2**53, 2**53 + 1, float(2**53), 0.5, -0.0, 0,
        datetime(2024, 5, 1, tzinfo=UTC), datetime(2024, 5, 1, 9, tzinfo=timezone(timedelta(hours=9))),
    ]
)  # fmt: skip
few_metadatas = st.dictionaries(
    few_keys, st.none() | few_scalars | st.lists(st.none() | few_scalars, max_size=3), max_size=4
)
"""Metadata of few keys and values, so that a filter of `few_filters` often holds."""
few_filters = filters(few_keys, few_scalars, fewest=1)
