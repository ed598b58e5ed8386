"""The spec of a collection: checked, compared, and kept in the database as one JSON string."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, get_args

from polyvec.batches import check_name
from polyvec.capabilities import Capabilities
from polyvec.errors import InvalidInputError, PolyvecError, UnsupportedOperationError, shown
from polyvec.metadata import check_key
from polyvec.types import (
    METRICS,
    CollectionSpec,
    EmbeddingSpace,
    FlatIndex,
    HnswIndex,
    Index,
    IndexKind,
    Metric,
)

if TYPE_CHECKING:
    from polyvec.protocol import IndexHints

FORMAT_VERSION: Final = 1
_KINDS: Final[dict[type, IndexKind]] = {
    bool: "bool", int: "int", float: "float", str: "str", datetime: "datetime",
}  # fmt: skip
_INDEXES: Final[dict[str, type[Index]]] = {"hnsw": HnswIndex, "flat": FlatIndex}


def make_spec(
    name: str,
    dimension: int | None,
    metric: Metric,
    indexes: IndexHints | None,
    index: Index | None,
    embedding: EmbeddingSpace | None,
    capabilities: Capabilities,
) -> CollectionSpec:
    """Check the arguments of `create_collection`.

    Raises:
        InvalidInputError: One of them is wrong.
        UnsupportedOperationError: The backend lacks the metric or the index.
    """
    check_name(name, "a collection's name")
    if not isinstance(embedding, EmbeddingSpace | None):
        raise InvalidInputError(f"embedding must be an EmbeddingSpace, not {shown(embedding)}")
    if dimension is None:
        if embedding is None:
            raise InvalidInputError("dimension is missing (or give embedding, which says it)")
        dimension = embedding.dimensions
    if not isinstance(dimension, int) or isinstance(dimension, bool) or dimension < 1:
        raise InvalidInputError(f"dimension must be an int of at least 1, not {shown(dimension)}")
    if dimension > capabilities.max_dimension:
        raise UnsupportedOperationError(f"dimension {dimension}; at most {capabilities.max_dimension} here")
    if embedding is not None and embedding.dimensions != dimension:
        raise InvalidInputError(f"dimension is {dimension}, but {embedding} was given as embedding")
    if metric not in METRICS:
        raise InvalidInputError(f"metric must be one of {', '.join(METRICS)}, not {shown(metric)}")
    if metric not in capabilities.metrics:
        raise UnsupportedOperationError(f"metric {metric}: {capabilities.reason('metrics')}")
    if index is not None and not isinstance(index, HnswIndex | FlatIndex):
        raise InvalidInputError(f"index must be HnswIndex(...) or FlatIndex(), not {shown(index)}")
    for setting in fields(index) if index is not None else ():
        if type(number := getattr(index, setting.name)) is not int or number < 1:
            raise InvalidInputError(f"{setting.name} must be an int of at least 1, not {shown(number)}")
    ability = "flat_index" if isinstance(index, FlatIndex) else "hnsw_index"
    if index is not None and not getattr(capabilities, ability):
        raise UnsupportedOperationError(f"{type(index).__name__}: {capabilities.reason(ability)}")
    return CollectionSpec(
        name, dimension, metric, _index_hints(indexes or {}), index, embedding, FORMAT_VERSION
    )


def _index_hints(indexes: IndexHints) -> Mapping[str, IndexKind]:
    if not isinstance(indexes, Mapping):
        raise InvalidInputError(f'indexes must be a dict such as {{"year": int}}, not {shown(indexes)}')
    hints: dict[str, IndexKind] = {}
    for key, kind in indexes.items():
        check_key(key, "a key of indexes")
        name = _KINDS.get(kind) if isinstance(kind, type) else kind
        if name is None or name not in get_args(IndexKind):
            raise InvalidInputError(
                f"indexes[{key!r}] must be one of bool, int, float, str, datetime, not {shown(kind)}"
            )
        hints[key] = name
    return hints


def differences(existing: CollectionSpec, asked: CollectionSpec) -> list[str]:
    """Return what differs, both sides named; what was left out of `asked` differs from nothing."""
    found = []
    for field in ("dimension", "metric", "indexes", "index", "embedding"):
        has, wants = getattr(existing, field), getattr(asked, field)
        if wants not in (None, {}) and has != wants:
            found.append(f"{field} is {_show(has)}, asked for {_show(wants)}")
    return found


def _show(value: object) -> str:
    return str(value) if isinstance(value, str | int | EmbeddingSpace) else repr(value)


def to_json(spec: CollectionSpec) -> str:
    """Return the spec as one line of JSON, for the adapter to keep in the database."""
    data = asdict(spec)
    if spec.index is not None:
        kind = next(name for name, kind in _INDEXES.items() if isinstance(spec.index, kind))
        data["index"] = {"kind": kind} | data["index"]
    return json.dumps(data)


def from_json(text: str) -> CollectionSpec:
    """Return the spec that `to_json` wrote.

    Raises:
        PolyvecError: It was written by a newer version of polyvec.
    """
    data: dict[str, Any] = json.loads(text)
    version = data["format_version"]
    if version > FORMAT_VERSION:
        raise PolyvecError(
            f"it has format {version}, this polyvec knows up to {FORMAT_VERSION}: pip install -U polyvec"
        )
    if data["index"] is not None:
        kind = data["index"].pop("kind")
        data["index"] = _INDEXES[kind](**data["index"])
    if data["embedding"] is not None:
        data["embedding"] = EmbeddingSpace(**data["embedding"])
    return CollectionSpec(**data)
