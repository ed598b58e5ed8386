"""Translation of filters: its shape, and its meaning as the emulator understands it."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from polyvec.filters import NEVER, And, Contains, Eq, F, Filter, Gt, Lt, Lte, Ne, Not, Or, matches, normalise
from polyvec.testing import data, filter_cases, programs
from polyvec.tokens import companion_field, exists_token, scalar_token
from polyvec_adapters.pinecone.filters import EVERYTHING, compares, negates, to_native
from polyvec_adapters.pinecone.records import filtered
from tests.servers.pinecone.conditions import compile_filter
from tests.servers.pinecone.rules import check_metadata

YEAR = companion_field("n", "year")


def native(filter: Filter) -> Any:
    checked = normalise(filter)
    assert checked is not None
    return to_native(checked)


def test_conditions() -> None:
    a, b = scalar_token("k", "a"), scalar_token("k", "b")
    assert native(Eq("k", "a")) == {"tokens": {"$in": [a]}}
    assert native(Ne("k", "a")) == {"tokens": {"$nin": [a]}}
    assert native(F("k").is_in(["a", "b"])) == {"tokens": {"$in": [a, b]}}
    assert native(F("k").exists()) == {"tokens": {"$in": [exists_token("k")]}}
    assert native(Gt("year", 2020)) == {"$and": [{"tokens": {"$in": [YEAR]}}, {YEAR: {"$gt": 2020.0}}]}
    assert native(Not(Gt("year", 2020))) == {"$or": [{"tokens": {"$nin": [YEAR]}}, {YEAR: {"$lte": 2020.0}}]}


def test_dates_are_two_numbers() -> None:
    at = datetime(1970, 1, 1, 0, 0, 7, 5, tzinfo=UTC)
    field = companion_field("d", "at")
    below = f"e_{field[2:]}"
    assert native(Lte("at", at)) == {
        "$and": [
            {"tokens": {"$in": [field]}},
            {"$or": [{field: {"$lt": 7.0}}, {"$and": [{field: {"$eq": 7.0}}, {below: {"$lte": 5.0}}]}]},
        ]
    }


def test_notes() -> None:
    assert negates(Not(And((Eq("k", 1), Eq("k", 2)))))
    assert not negates(Or((Not(Eq("k", 1)), Eq("k", 2))))
    assert compares(Not(Or((Eq("k", 1), Lt("k", 2)))))
    assert not compares(And((Eq("k", 1), Not(Eq("k", 2)))))


def test_nothing_of_the_user_is_in_it() -> None:
    for text in ("$and", "tokens", '"}', "x" * 100):
        found = json.dumps(native(And((Eq(text, text), Contains(text, text), Gt(text, 1)))))
        assert text not in found.replace('"$and": [', "").replace('"tokens": ', "")


def holds(filter: Filter, metadata: dict[str, Any], *, missing_matches: bool) -> bool:
    checked = normalise(filter)
    if checked == NEVER:
        return False
    condition = compile_filter(
        EVERYTHING if checked is None else to_native(checked), missing_matches=missing_matches
    )
    return condition(check_metadata(json.loads(json.dumps(filtered(metadata)))))


@pytest.mark.parametrize("case", filter_cases.CASES, ids=lambda case: case.name)
def test_the_matrix_whatever_a_missing_field_means(case: filter_cases.FilterCase) -> None:
    for metadata in filter_cases.RECORD_METADATA:
        for missing_matches in (False, True):
            found = holds(case.filter, metadata, missing_matches=missing_matches)
            assert found == matches(case.filter, metadata)


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(programs.filters)
def test_random_filters(filter: Filter) -> None:
    for metadata in (
        {},
        {"k": 1},
        {"k": [1, "a"]},
        {"K": "a", "k": 0.5},
        {'q"\\`': -1, "k": data.DATETIMES[1]},
        {"k": data.DATETIMES[3], "$and": data.DATETIMES[4]},
    ):
        for missing_matches in (False, True):
            assert holds(filter, metadata, missing_matches=missing_matches) == matches(filter, metadata)


def test_a_number_that_an_update_left_behind_matches_nothing() -> None:
    stale = filtered({"year": 2024, "at": data.DATETIMES[1]}) | filtered({"year": "no number"})
    assert YEAR in stale
    for filter in (F("year") > 0, F("at") > data.DATETIMES[0]):
        assert not compile_filter(native(filter), missing_matches=True)(stale)
        assert compile_filter(native(~filter), missing_matches=False)(stale)
