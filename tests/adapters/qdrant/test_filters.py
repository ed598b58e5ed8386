"""Translation of filters: its shape, the order of companions, and its meaning on Qdrant's own engine."""

from __future__ import annotations

import math
import random
import struct
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import qdrant_edge as edge
from hypothesis import HealthCheck, given, settings
from qdrant_client import models

from polyvec.encoding import sortable_pair
from polyvec.filters import (
    And,
    Contains,
    ContainsAll,
    ContainsAny,
    Eq,
    Exists,
    F,
    Filter,
    Gt,
    Gte,
    In,
    Lt,
    Lte,
    Not,
    Or,
    matches,
    normalise,
)
from polyvec.testing import filter_cases, programs
from polyvec.tokens import companion_field, element_token, exists_token, list_token, scalar_token
from polyvec_adapters.qdrant.filters import range_fields, to_native, within
from polyvec_adapters.qdrant.records import filtered, low
from tests.adapters.qdrant.engine import to_edge


def plain(filter: Filter) -> Any:
    """The translation as plain data."""
    checked = normalise(filter)
    assert checked is not None
    native = to_native(checked)
    assert isinstance(native, models.Filter | models.FieldCondition)
    return native.model_dump(exclude_none=True)


def token(value: str) -> dict[str, Any]:
    return {"key": "f.t", "match": {"value": value}}


class TestShape:
    @pytest.mark.parametrize(
        ("filter", "expected"),
        [
            (Eq("k", 1), token(scalar_token("k", 1))),
            (Eq("k", "a"), token(scalar_token("k", "a"))),
            (Contains("k", True), token(element_token("k", True))),
            (Exists("k"), token(exists_token("k"))),
            (ContainsAll("k", ()), token(list_token("k"))),
            (Not(Eq("k", 1)), {"must_not": [token(scalar_token("k", 1))]}),
            (
                In("k", (1, "a", 1.0)),
                {"key": "f.t", "match": {"any": [scalar_token("k", 1), scalar_token("k", "a")]}},
            ),
            (
                ContainsAny("k", (1, 2)),
                {"key": "f.t", "match": {"any": [element_token("k", 1), element_token("k", 2)]}},
            ),
            (
                ContainsAll("k", (1, 2)),
                {"must": [token(element_token("k", 1)), token(element_token("k", 2))]},
            ),
            (
                Or((Eq("k", 1), And((Exists("j"), Not(Exists("k")))))),
                {
                    "should": [
                        token(scalar_token("k", 1)),
                        {"must": [token(exists_token("j")), {"must_not": [token(exists_token("k"))]}]},
                    ]
                },
            ),
        ],
    )
    def test_conditions(self, filter: Filter, expected: Any) -> None:
        assert plain(filter) == expected

    def test_a_range_from_or_below_a_short_number_needs_one_half(self) -> None:
        field = f"f.{companion_field('n', 'year')}"
        high, rest = sortable_pair("n_x", 2020)
        assert rest == 0
        assert plain(F("year") >= 2020) == {"key": field, "range": {"gte": high}}
        assert plain(F("year") < 2020) == {"key": field, "range": {"lt": high}}

    @pytest.mark.parametrize(
        ("filter", "decisive", "tie"),
        [
            (Gt("x", 0.1), "gt", {"must": ["equal", ("gt", "must")]}),
            (Gte("x", 0.1), "gt", {"must": ["equal", ("gte", "must")]}),
            (Lt("x", 0.1), "lt", {"must": ["equal"], "must_not": [("gte", "must_not")]}),
            (Lte("x", 0.1), "lt", {"must": ["equal"], "must_not": [("gt", "must_not")]}),
        ],
    )
    def test_a_range_compares_the_high_half_first(self, filter: Filter, decisive: str, tie: Any) -> None:
        field = f"f.{companion_field('n', 'x')}"
        high, rest = sortable_pair("n_x", 0.1)
        assert rest > 0
        expected = {
            clause: [
                {"key": field, "range": {"gte": high, "lte": high}}
                if part == "equal"
                else {"key": low(field), "range": {part[0]: rest}}
                for part in parts
            ]
            for clause, parts in tie.items()
        }
        assert plain(filter) == {"should": [{"key": field, "range": {decisive: high}}, expected]}

    def test_inside_a_namespace(self) -> None:
        inside = {"key": "ns", "match": {"value": "a"}}
        assert within("a", None).model_dump(exclude_none=True) == {"must": [inside]}
        assert within("a", Exists("k")).model_dump(exclude_none=True) == {
            "must": [token(exists_token("k")), inside]
        }
        assert within("a", Not(Exists("k"))).model_dump(exclude_none=True) == {
            "must": [{"must_not": [token(exists_token("k"))]}, inside]
        }

    def test_nothing_of_the_callers_is_sent(self) -> None:
        sent = {
            condition.key
            for case in filter_cases.CASES
            if (checked := normalise(case.filter)) is not None
            for condition in _leaves(within("", checked))
        }
        assert len(sent) > 10
        hexadecimal = set("0123456789abcdef")
        for key in sent - {"ns", "f.t"}:
            prefix, digits = key.removesuffix("_low").split("_")
            assert prefix in ("f.n", "f.d")
            assert set(digits) <= hexadecimal

    def test_the_deepest_filter_stays_below_what_grpc_takes(self) -> None:
        deep: Filter = Gt("k", 0.1)
        for level in range(30):
            deep = Not(And((deep, Eq("j", level)))) if level % 2 else Or((deep, Eq("j", level)))
        assert _depth(within("", normalise(deep))) < 49

    def test_range_fields(self) -> None:
        n, d = companion_field("n", "x"), companion_field("d", "x")
        at = datetime(2024, 1, 1, tzinfo=UTC)
        filter = normalise(Not(Or((Gt("x", 1), And((Lt("x", at), Eq("y", 2)))))))
        assert range_fields(filter) == sorted([f"f.{n}", f"f.{n}_low", f"f.{d}", f"f.{d}_low"])
        assert range_fields(normalise(Eq("x", 1))) == []
        assert range_fields(None) == []


def _leaves(condition: Any) -> Iterator[models.FieldCondition]:
    if isinstance(condition, models.FieldCondition):
        yield condition
        return
    for part in (condition.must, condition.should, condition.must_not):
        for inner in part or ():
            yield from _leaves(inner)


def _depth(condition: Any) -> int:
    if not isinstance(condition, models.Filter):
        return 0
    parts = (condition.must, condition.should, condition.must_not)
    return 1 + max((_depth(inner) for part in parts for inner in part or ()), default=0)


BOUNDARIES: tuple[float, ...] = tuple(
    neighbour
    for number in (0.1, 1 / 3, -0.1, 123456789.123456789, 1e300, -1e-300, 5e-324, 2.0**53, 2.0**31)
    for neighbour in (math.nextafter(number, -math.inf), number, math.nextafter(number, math.inf))
)
INSTANTS = tuple(
    datetime(year, 5, 1, tzinfo=UTC) + timedelta(microseconds=step)
    for year in (1, 1969, 2024, 9998)
    for step in (-1, 0, 1, 999_999)
)
_random = random.Random(3)  # noqa: S311  # test data, not a secret
DOUBLES: tuple[float, ...] = tuple(
    number
    for number in (struct.unpack("<d", _random.randbytes(8))[0] for _ in range(60))
    if math.isfinite(number)
)
METADATA: tuple[dict[str, Any], ...] = (
    *filter_cases.RECORD_METADATA,
    *({"k": number} for number in (*BOUNDARIES, *DOUBLES)),
    *({"k": instant} for instant in INSTANTS),
    *({"k": value, 'q"\\`': value} for value in programs.SCALARS),
    *({"k": [value], "a.b": [value, None]} for value in programs.SCALARS),
    *({"k[]": value, "한\n": [value]} for value in programs.SCALARS),
)

Found = Callable[[Filter], set[int]]


@pytest.fixture(scope="module", params=["unindexed", "indexed"])
def found(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Found]:
    """Ask Qdrant's engine, without and with indexes on all that filters look at: they may change answers."""
    shard = edge.EdgeShard.create(
        str(tmp_path_factory.mktemp("shard") / "s"),
        edge.EdgeConfig(vectors=edge.EdgeVectorParams(1, edge.Distance.Dot), wal_enabled=False),
    )
    payloads = [{"ns": "", "f": filtered(metadata)} for metadata in METADATA]
    if request.param == "indexed":
        for key in programs.KEYS:
            for field in (companion_field("n", key), companion_field("d", key)):
                for path in (f"f.{field}", f"f.{low(field)}"):
                    shard.update(edge.UpdateOperation.create_field_index(path, edge.PayloadSchemaType.Float))
        shard.update(edge.UpdateOperation.create_field_index("f.t", edge.PayloadSchemaType.Keyword))
        tenant = edge.KeywordIndexParams(is_tenant=True)
        shard.update(edge.UpdateOperation.create_field_index("ns", tenant))
    points = [edge.Point(row + 1, [1.0], payload) for row, payload in enumerate(payloads)]
    shard.update(edge.UpdateOperation.upsert_points(points))

    def ask(filter: Filter) -> set[int]:
        native = to_edge(within("", normalise(filter)))
        page, following = shard.scroll(edge.ScrollRequest(limit=len(METADATA) + 1, filter=native))
        assert following is None
        assert shard.count(edge.CountRequest(filter=native)) == len(page)
        return {_number(record.id) - 1 for record in page}

    yield ask
    shard.close()


def _number(id: int | uuid.UUID | str) -> int:
    assert isinstance(id, int)
    return id


@pytest.mark.server
class TestMeaning:
    """On the Rust engine a filter holds for the records for which `filters.matches` holds."""

    def _check(self, found: Found, filter: Filter) -> None:
        assert found(filter) == {row for row, metadata in enumerate(METADATA) if matches(filter, metadata)}, (
            str(filter)
        )

    def test_the_matrix(self, found: Found) -> None:
        checked = 0
        for case in filter_cases.CASES:
            if normalise(case.filter) not in (None, Or(())):
                self._check(found, case.filter)
                checked += 1
        assert checked > 300

    def test_ranges_are_exact_to_the_last_bit(self, found: Found) -> None:
        bounds: tuple[float | datetime, ...] = (*BOUNDARIES, *DOUBLES, *INSTANTS)
        for bound in bounds:
            for kind in (Lt, Lte, Gt, Gte):
                self._check(found, kind("k", bound))
                self._check(found, Not(kind("k", bound)))

    @settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(programs.filters)
    def test_random_filters(self, found: Found, filter: Filter) -> None:
        if normalise(filter) not in (None, Or(())):
            self._check(found, filter)
