"""What is sent to make and to search an index."""

from __future__ import annotations

from datetime import datetime

import pytest

from polyvec.spec import make_spec
from polyvec.tokens import companion_field
from polyvec.types import CollectionSpec, FlatIndex, HnswIndex, Index
from polyvec_adapters.redis import ADAPTER, tables
from polyvec_adapters.redis.tables import MOST_NUMERIC, Table


def table(index: Index | None = None, numeric: frozenset[str] = frozenset()) -> Table:
    return Table(CollectionSpec("docs", 3, "euclidean", index=index), "00c0ffee", numeric)


def test_names_keep_to_themselves() -> None:
    found = table()
    assert found.index == "polyvec:docs:00c0ffee"
    assert found.prefix == "polyvec{}:docs:00c0ffee:"
    assert not table().prefix.startswith(Table(CollectionSpec("doc", 3), "s:00c0ff").prefix)


def test_an_entry_is_read_back() -> None:
    spec = make_spec(
        "docs", 3, "dot", {"year": int, "at": datetime}, HnswIndex(5, 6, 7), None, ADAPTER.capabilities
    )
    entry = Table(spec, "00c0ffee").entry().encode()
    assert tables.from_entry(entry) == Table(spec, "00c0ffee")
    assert tables.from_entry(entry).is_entry(entry)
    assert not Table(spec, "00c0ff").is_entry(entry)
    assert not Table(spec, "00c0ffee").is_entry(None)
    assert tables.hinted(spec) == {companion_field("n", "year"), companion_field("d", "at")}


def test_a_graph_and_brute_force() -> None:
    graph = tables.create(table(HnswIndex(m=5, ef_construction=6), frozenset({"n_b", "n_a"})))
    at = graph.index("VECTOR")
    assert graph[at + 1 : at + 13] == [
        *("HNSW", 10, "TYPE", "FLOAT32", "DIM", 3, "DISTANCE_METRIC", "L2", "M", 5, "EF_CONSTRUCTION", 6),
    ]
    assert graph[-4:] == ["n_a", "NUMERIC", "n_b", "NUMERIC"]
    flat = tables.create(table(FlatIndex()))
    assert flat[at + 1 : at + 9] == ["FLAT", 6, "TYPE", "FLOAT32", "DIM", 3, "DISTANCE_METRIC", "L2"]


def test_no_record_is_indexed_anew() -> None:
    assert "SKIPINITIALSCAN" in tables.create(table())
    assert tables.alter(table(), ["n_a", "d_b"])[2:] == [
        *("SKIPINITIALSCAN", "SCHEMA", "ADD", "n_a", "NUMERIC", "d_b", "NUMERIC"),
    ]


@pytest.mark.parametrize(
    ("index", "condition", "exact", "query"),
    [
        (None, "*", False, "*=>[KNN 5 @vec $vector EF_RUNTIME 200 AS __score]"),
        (None, "@a:{b}", False, "(@a:{b})=>[KNN 5 @vec $vector EF_RUNTIME 200 AS __score]"),
        (None, "@a:{b}", True, "(@a:{b})=>[KNN 5 @vec $vector HYBRID_POLICY ADHOC_BF AS __score]"),
        (FlatIndex(), "*", True, "*=>[KNN 5 @vec $vector AS __score]"),
        (FlatIndex(), "@a:{b}", False, "(@a:{b})=>[KNN 5 @vec $vector AS __score]"),
    ],
)
def test_the_nearest(index: Index | None, condition: str, exact: bool, query: str) -> None:
    assert tables.nearest(table(index), condition, 5, exact=exact) == query


def test_a_search_may_take_as_long_as_the_call() -> None:
    found = tables.search(table(), "*", [], 12.5, "LIMIT", 0, 0)
    assert found == ["FT.SEARCH", "polyvec:docs:00c0ffee", "*", "LIMIT", 0, 0, "TIMEOUT", 12500, "DIALECT", 2]
    assert tables.search(table(), "*", ["p0", "1"], 0.0001)[-7:] == [2, "p0", "1", "TIMEOUT", 1, "DIALECT", 2]


def test_room_for_more_fields() -> None:
    known = frozenset(f"n_{n}" for n in range(MOST_NUMERIC - 2))
    assert tables.missing({"n_0", "n_z", "n_x", "n_y"}, known) == ["n_x", "n_y"]
    assert tables.missing({"n_z"}, known | {"n_x", "n_y"}) == []
