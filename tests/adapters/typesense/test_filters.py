"""Translation of filters: its shape, and its meaning as a small reader of `filter_by` understands it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from polyvec.encoding import namespace_token, sortable_int
from polyvec.filters import (
    And,
    Contains,
    ContainsAll,
    Eq,
    Exists,
    F,
    Filter,
    Gt,
    In,
    Lt,
    Ne,
    Not,
    Or,
    matches,
    normalise,
)
from polyvec.testing import data, filter_cases, programs
from polyvec.tokens import companion_field, exists_token, scalar_token
from polyvec.types import RecordBatch
from polyvec_adapters.typesense import records
from polyvec_adapters.typesense.filters import MAX_TERMS, in_slots, plan, to_native

Document = Mapping[str, Any]

NS = f"tokens:[{namespace_token('')}]"
YEAR = companion_field("n", "year")


def native(filter: Filter) -> str:
    checked = normalise(filter)
    assert checked is not None
    return to_native(checked)


def documents(metadatas: Sequence[dict[str, Any]]) -> list[Document]:
    count = len(metadatas)
    batch = RecordBatch(
        [str(row) for row in range(count)], np.ones((count, 1), np.float32), [None] * count, metadatas
    )
    return [json.loads(line) for line in records.encode(batch, "", "dot").values()]


# A reader of the language, strict about all that the engine is strict about -----------------------------

TERM = re.compile(r"&&|\|\||[()]|(?P<field>\w+):(?P<operator>:?!?=|>=|<=|>|<|)(?P<value>\[[^\]]*\]|-?\w+)")


def holds(text: str, document: Document) -> bool:
    """Whether a document passes; operators of two kinds must not stand side by side."""
    terms = map(_term, _split(text))
    passed, rest = _expression(terms, document), next(terms, None)
    assert rest is None
    return passed


def _split(text: str) -> list[str]:
    return text.replace("(", "( ").replace(")", " )").split()


def _term(part: str) -> re.Match[str]:
    found = TERM.fullmatch(part)
    assert found, f"{part!r} is no term"
    return found


def _expression(terms: Iterator[re.Match[str]], document: Document) -> bool:
    passed, joined = _operand(terms, document), None
    for operator in terms:
        if operator[0] == ")":
            break
        assert operator[0] in ("&&", "||")
        assert joined in (None, operator[0]), "which binds closer differs between versions"
        joined = operator[0]
        other = _operand(terms, document)
        passed = (passed and other) if joined == "&&" else (passed or other)
    return passed


def _operand(terms: Iterator[re.Match[str]], document: Document) -> bool:
    term = next(terms)
    if term[0] == "(":
        return _expression(terms, document)
    field, operator, value = term["field"], term["operator"], term["value"]
    if field == "tokens":
        found = not set(value.strip("[]").split(",")).isdisjoint(document["tokens"])
        return found is {"": True, "!=": False}[operator]
    if field not in document:
        return False
    if field == "slot":
        first, last = map(int, value.strip("[]").split(".."))
        return operator == "" and first <= int(document["slot"]) <= last
    left, right = int(document[field]), int(value)
    return {">": left > right, ">=": left >= right, "<": left < right, "<=": left <= right}[operator]


# Its shape -----------------------------------------------------------------------------------------------


def test_conditions() -> None:
    a, b = scalar_token("k", "a"), scalar_token("k", "b")
    assert native(Eq("k", "a")) == f"tokens:[{a}]"
    assert native(Ne("k", "a")) == f"tokens:!=[{a}]"
    assert native(In("k", ("a", "b"))) == f"tokens:[{a},{b}]"
    assert native(Exists("k")) == f"tokens:[{exists_token('k')}]"
    number = sortable_int(YEAR, 2020.0)
    assert native(Gt("year", 2020)) == f"{YEAR}:>{number}"
    assert native(Not(Gt("year", 2020))) == f"({YEAR}:<={number} || tokens:!=[{YEAR.replace('_', '')}])"
    assert native(Lt("year", -0.0)) == f"{YEAR}:<0"


def test_conditions_on_tokens_are_joined() -> None:
    a, b, c = (scalar_token("k", value) for value in "abc")
    assert native(Or((Eq("k", "a"), In("k", ("b", "a")), Eq("k", "c")))) == f"tokens:[{a},{b},{c}]"
    assert native(And((Ne("k", "a"), Ne("k", "b")))) == f"tokens:!=[{a},{b}]"
    assert native(Not(Or((Eq("k", "a"), Eq("k", "b"))))) == f"tokens:!=[{a},{b}]"
    assert native(And((Eq("k", "a"), Eq("k", "b")))) == f"(tokens:[{a}] && tokens:[{b}])"


def test_the_namespace_is_always_there() -> None:
    for filter in (None, Eq("k", 1), Or((Eq("k", 1), Gt("k", 2))), ContainsAll("k", tuple(range(1000)))):
        found = plan("", filter).native
        assert found.startswith(NS)
        assert found[len(NS) :] == "" or found[len(NS) :].startswith(" && ")
    assert plan("a", None).native != plan("A", None).native


def test_unknown_companions_hold_for_nothing() -> None:
    assert plan("", Gt("year", 1), known=[]).native == f"{NS} && tokens:[none]"
    assert plan("", Not(Gt("year", 1)), known=[]).native == f"{NS} && tokens:!=[none]"
    assert plan("", Gt("year", 1), known=[YEAR]) == plan("", Gt("year", 1))


def test_what_is_too_large_is_left_for_later() -> None:
    small = Or((Eq("k", "a"), Gt("k", 1)))
    large = ContainsAll("k", tuple(range(60)))
    assert plan("", small).rest is None
    whole = normalise(And((small, large, Ne("k", "b"))))
    found = plan("", whole)
    assert found.rest is whole
    assert found.native == f"{NS} && {native(small)} && {native(Ne('k', 'b'))}"
    assert plan("", large) == (NS, large)
    assert plan("", ContainsAll("k", tuple(range(40)))).rest is None


@pytest.mark.parametrize("count", range(40, 60))
def test_no_more_terms_than_the_engine_takes(count: int) -> None:
    for filter in (
        ContainsAll("k", tuple(range(count))),
        Or(tuple(Gt(f"k{number}", 1) for number in range(count))),
        And((F("a") == 1, Or(tuple(Not(Gt(f"k{number}", 1)) for number in range(count // 2))))),
    ):
        text = in_slots(plan("", filter).native, 0, 9)
        terms = _split(text)
        assert len(terms) <= MAX_TERMS


# Its meaning ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def matrix() -> list[Document]:
    return documents(filter_cases.RECORD_METADATA)


@pytest.mark.parametrize("case", filter_cases.CASES, ids=lambda case: case.name)
def test_the_matrix(matrix: list[Document], case: filter_cases.FilterCase) -> None:
    checked = normalise(case.filter)
    if checked is None or checked == normalise(Or(())):
        return
    found = plan("", checked)
    for metadata, document in zip(filter_cases.RECORD_METADATA, matrix, strict=True):
        passed = holds(found.native, document) and (found.rest is None or matches(found.rest, metadata))
        assert passed == matches(case.filter, metadata)


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(programs.filters)
def test_random_filters(filter: Filter) -> None:
    checked = normalise(filter)
    if checked is None or checked == normalise(Or(())):
        return
    metadatas: list[dict[str, Any]] = [
        {},
        {"k": 1},
        {"k": [1, "a"]},
        {"K": "a", "k": 0.5},
        {'q"\\`': -1, "k": data.DATETIMES[1]},
    ]
    for metadata, document in zip(metadatas, documents(metadatas), strict=True):
        assert holds(plan("", checked).native, document) == matches(filter, metadata)


def test_nothing_of_the_user_is_in_it() -> None:
    for text in ("`", "]", "x || id:!=y", "a,b", ")"):
        found = native(And((Eq(text, text), Contains(text, text), Gt(text, 1), Not(Lt(text, 1)))))
        assert re.fullmatch(r"[a-z0-9_:=!<>&|()\[\], -]*", found)
        assert len(found) < 400


def test_the_reader_tells_errors() -> None:
    [document] = documents([{"k": 1}])
    for wrong in ("tokens=[a]", "tokens:[a] && tokens:[a] || tokens:[a]", "", "tokens:=[a]"):
        with pytest.raises((AssertionError, StopIteration, KeyError)):
            holds(wrong, document)
