"""The spec of a collection: checked, compared, and the same after a stay in the database."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import pytest

from polyvec import (
    Capabilities,
    CollectionSpec,
    EmbeddingSpace,
    FlatIndex,
    HnswIndex,
    InvalidInputError,
    PolyvecError,
    UnsupportedOperationError,
)
from polyvec.spec import differences, from_json, make_spec, to_json

ALL = Capabilities(hnsw_index=True, flat_index=True, max_dimension=4096)
SPACE = EmbeddingSpace("openai", "text-embedding-3-small", 512)


def make(capabilities: Capabilities = ALL, **arguments: Any) -> CollectionSpec:
    defaults: dict[str, Any] = {
        "name": "docs", "dimension": 512, "metric": "cosine", "indexes": None, "index": None,
        "embedding": None,
    }  # fmt: skip
    return make_spec(**(defaults | arguments), capabilities=capabilities)


SPECS = [
    make(),
    make(name="A.b-c_1", dimension=1, metric="euclidean"),
    make(index=HnswIndex(8, 9, 10)),
    make(index=FlatIndex()),
    make(embedding=SPACE),
    make(indexes={"a": bool, "b": int, "c": float, "d": str, "e": datetime, "$f ü": "int"}),
    make(
        embedding=EmbeddingSpace("local", 'quote " and 🙂', 512), index=HnswIndex(), indexes={"k": "datetime"}
    ),
]


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_round_trip(spec: CollectionSpec) -> None:
    text = to_json(spec)
    assert "\n" not in text
    found = from_json(text)
    assert found == spec
    assert type(found.index) is type(spec.index)
    assert differences(found, spec) == []


def test_the_json_stays_what_it_is() -> None:
    """It is kept in databases, so every later version must read it."""
    text = (
        '{"name": "docs", "dimension": 512, "metric": "dot", "indexes": {"year": "int"}, '
        '"index": {"kind": "hnsw", "m": 8, "ef_construction": 100, "ef_search": 50}, '
        '"embedding": {"provider": "openai", "model": "text-embedding-3-small", "dimensions": 512}, '
        '"format_version": 1}'
    )
    spec = make(metric="dot", indexes={"year": int}, index=HnswIndex(8, 100, 50), embedding=SPACE)
    assert to_json(spec) == text
    assert from_json(text) == spec


def test_a_newer_format_is_refused() -> None:
    data = json.loads(to_json(make()))
    data["format_version"] = 2
    data["something"] = "that this version does not know"
    with pytest.raises(
        PolyvecError, match="it has format 2, this polyvec knows up to 1: pip install -U polyvec"
    ) as caught:
        from_json(json.dumps(data))
    assert not caught.value.retryable


def test_hints() -> None:
    assert make(indexes={"a": int, "b": "float", "c": datetime}).indexes == {
        "a": "int", "b": "float", "c": "datetime",
    }  # fmt: skip
    assert make().indexes == {}


def test_the_embedding_says_the_dimension() -> None:
    assert make(dimension=None, embedding=SPACE).dimension == 512


WRONG: list[tuple[dict[str, Any], type[PolyvecError], str]] = [
    (
        {"name": "a b"},
        InvalidInputError,
        "a collection's name must be 1 to 128 of A-Z a-z 0-9 _ . -, not 'a b'",
    ),
    ({"name": None}, InvalidInputError, "a collection's name must be"),
    ({"dimension": None}, InvalidInputError, r"dimension is missing \(or give embedding, which says it\)"),
    ({"dimension": 0}, InvalidInputError, "dimension must be an int of at least 1, not 0"),
    ({"dimension": -1}, InvalidInputError, "dimension must be an int of at least 1, not -1"),
    ({"dimension": True}, InvalidInputError, "not True"),
    ({"dimension": 3.0}, InvalidInputError, "not 3.0"),
    ({"dimension": "3"}, InvalidInputError, "not '3'"),
    ({"dimension": 4097}, UnsupportedOperationError, "dimension 4097; at most 4096 here"),
    (
        {"dimension": 3, "embedding": SPACE},
        InvalidInputError,
        r"dimension is 3, but openai:text-embedding-3-small \(512 dimensions\) was given as embedding",
    ),
    ({"embedding": "openai"}, InvalidInputError, "embedding must be an EmbeddingSpace, not 'openai'"),
    ({"metric": "l2"}, InvalidInputError, "metric must be one of cosine, dot, euclidean, not 'l2'"),
    ({"metric": "Cosine"}, InvalidInputError, "metric must be one of"),
    ({"metric": None}, InvalidInputError, "metric must be one of"),
    ({"metric": ["dot"]}, InvalidInputError, "metric must be one of"),
    ({"index": "hnsw"}, InvalidInputError, r"index must be HnswIndex\(...\) or FlatIndex\(\), not 'hnsw'"),
    ({"index": HnswIndex}, InvalidInputError, "index must be HnswIndex"),
    ({"index": HnswIndex(m=0)}, InvalidInputError, "m must be an int of at least 1, not 0"),
    ({"index": HnswIndex(ef_search=-5)}, InvalidInputError, "ef_search must be an int of at least 1, not -5"),
    ({"index": HnswIndex(ef_construction=1.5)}, InvalidInputError, "ef_construction must be an int"),  # type: ignore[arg-type]
    ({"index": HnswIndex(m=True)}, InvalidInputError, "m must be an int of at least 1, not True"),
    (
        {"indexes": ["year"]},
        InvalidInputError,
        r'indexes must be a dict such as \{"year": int\}, not \[\'year\'\]',
    ),
    ({"indexes": "year"}, InvalidInputError, "indexes must be a dict"),
    (
        {"indexes": {"year": list}},
        InvalidInputError,
        r"indexes\['year'\] must be one of bool, int, float, str, dat",
    ),
    (
        {"indexes": {"year": "integer"}},
        InvalidInputError,
        "must be one of bool, int, float, str, datetime, not 'inte",
    ),
    ({"indexes": {"year": None}}, InvalidInputError, "must be one of"),
    ({"indexes": {"year": [int]}}, InvalidInputError, "must be one of"),
    ({"indexes": {"": int}}, InvalidInputError, "a key of indexes must have 1 to 128 UTF-8 bytes, not 0"),
    ({"indexes": {5: int}}, InvalidInputError, "a key of indexes must be a str, not int"),
]


@pytest.mark.parametrize(("arguments", "kind", "message"), WRONG, ids=str)
def test_wrong_arguments(arguments: dict[str, Any], kind: type[PolyvecError], message: str) -> None:
    with pytest.raises(kind, match=message):
        make(**arguments)


def test_what_the_backend_lacks_is_refused_with_the_reason() -> None:
    bare = Capabilities(metrics=("cosine",), reasons={"hnsw_index": "it is exact", "metrics": "one only"})
    with pytest.raises(UnsupportedOperationError, match=r"^metric dot: one only$"):
        make(bare, metric="dot")
    with pytest.raises(UnsupportedOperationError, match=r"^HnswIndex: it is exact$"):
        make(bare, index=HnswIndex())
    with pytest.raises(UnsupportedOperationError, match=r"^FlatIndex: the engine does not have it$"):
        make(bare, index=FlatIndex())
    assert make(bare).index is None


def test_differences_name_both_sides() -> None:
    existing = make(index=HnswIndex(m=8), embedding=SPACE, indexes={"year": int})
    asked = make(
        dimension=3,
        metric="dot",
        index=FlatIndex(),
        embedding=EmbeddingSpace("local", "m", 3),
        indexes={"year": float},
    )
    assert differences(existing, asked) == [
        "dimension is 512, asked for 3",
        "metric is cosine, asked for dot",
        "indexes is {'year': 'int'}, asked for {'year': 'float'}",
        "index is HnswIndex(m=8, ef_construction=200, ef_search=200), asked for FlatIndex()",
        "embedding is openai:text-embedding-3-small (512 dimensions), asked for local:m (3 dimensions)",
    ]
    assert differences(make(), make(embedding=SPACE)) == [
        "embedding is None, asked for openai:text-embedding-3-small (512 dimensions)"
    ]
    same_size = EmbeddingSpace("openai", "text-embedding-3-large", 512)
    assert len(differences(make(embedding=SPACE), make(embedding=same_size))) == 1


def test_what_is_left_out_differs_from_nothing() -> None:
    existing = make(index=FlatIndex(), embedding=SPACE, indexes={"year": int})
    assert differences(existing, make()) == []
    assert differences(existing, make(indexes={"year": int})) == []
