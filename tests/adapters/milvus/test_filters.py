"""Filters as expressions; what they mean is in the contract."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from polyvec.filters import F, Filter, normalise
from polyvec.testing import data
from polyvec.tokens import companion_field, element_token, exists_token, list_token, scalar_token
from polyvec_adapters.milvus import filters

A, B, C = (scalar_token("k", value) for value in "abc")
NUMBER, INSTANT = companion_field("n", "k"), companion_field("d", "k")
EXISTS, LIST = exists_token("k"), list_token("k")


def native(filter: Filter) -> str:
    checked = normalise(filter)
    assert checked is not None
    return filters.to_native(checked)


@pytest.mark.parametrize(
    ("filter", "expected"),
    [
        (F("k") == "a", f'array_contains(tok, "{A}")'),
        (F("k") != "a", f'not array_contains(tok, "{A}")'),
        (F("k").is_in(["a", "b"]), f'array_contains_any(tok, ["{A}", "{B}"])'),
        (F("k").not_in(["a", "b"]), f'not array_contains_any(tok, ["{A}", "{B}"])'),
        (F("k").exists(), f'array_contains(tok, "{EXISTS}")'),
        (F("k").contains_all([]), f'array_contains(tok, "{LIST}")'),
        (F("k").contains("a"), f'array_contains(tok, "{element_token("k", "a")}")'),
        (F("k") < 5, f'num["{NUMBER}"] < 5.0'),
        (F("k") >= datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC), f'num["{INSTANT}"] >= 1000000'),
        # absent is not below: so what is negated is the token that says that there is a number
        (~(F("k") < 5), f'(not array_contains(tok, "{NUMBER}")) or (num["{NUMBER}"] >= 5.0)'),
        # many tests for tokens are one
        ((F("k") == "a") & (F("k") == "b"), f'(array_contains_all(tok, ["{A}", "{B}"]))'),
        ((F("k") == "a") | (F("k").is_in(["b", "c"])), f'(array_contains_any(tok, ["{A}", "{B}", "{C}"]))'),
        ((F("k") != "a") & (F("k") != "b"), f'(not array_contains_any(tok, ["{A}", "{B}"]))'),
        ((F("k") != "a") | (F("k") != "b"), f'(not array_contains_all(tok, ["{A}", "{B}"]))'),
        (
            (F("k") == "a") & (F("k") > 1) & (F("k") != "b"),
            f'(num["{NUMBER}"] > 1.0) and (array_contains(tok, "{A}")) and (not array_contains(tok, "{B}"))',
        ),
    ],
)
def test_expressions(filter: Filter, expected: str) -> None:
    assert native(filter) == expected


@pytest.mark.parametrize("text", data.HOSTILE_STRINGS)
def test_nothing_of_the_callers_gets_into_an_expression(text: str) -> None:
    key = text[:30] or "k"
    expression = native((F(key) == text) & (F(key) < 1) & F(key).contains(text))
    assert set(expression) <= set('0123456789abcdefghijklmnopqrstuvwxyz_ ()[]",<.')
    assert expression.count('"') == 6


def test_namespaces_and_keys() -> None:
    assert filters.within("tenant", None) == 'ns == "tenant"'
    checked = normalise(F("k") == "a")
    assert filters.within("", checked) == f'ns == "" and (array_contains(tok, "{A}"))'
    assert filters.has_key(["1", "2"]) == 'pk in ["1", "2"]'
    assert filters.after("7", "x") == 'pk > "7" and (x)'
