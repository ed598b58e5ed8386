"""The requests of Milvus' protocol, and what their answers hold."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from pymilvus.grpc_gen import common_pb2 as common
from pymilvus.grpc_gen import milvus_pb2 as messages
from pymilvus.grpc_gen import schema_pb2 as proto

from polyvec.types import FloatArray
from polyvec_adapters.milvus.records import VECTOR

MAX_ROWS: Final = 16_384
"""Most rows of an answer: https://milvus.io/docs/v2.3.x/limitations.md."""

_BOUNDED: Final = common.ConsistencyLevel.Bounded
_STRONG: Final = common.ConsistencyLevel.Strong


def create(schema: proto.CollectionSchema, properties: Mapping[str, str]) -> messages.CreateCollectionRequest:
    """Return the request that creates a collection."""
    return messages.CreateCollectionRequest(
        collection_name=schema.name,
        schema=schema.SerializeToString(),
        consistency_level=_BOUNDED,
        properties=_pairs(properties),
    )


def create_index(
    collection: str, metric: str, kind: str, parameters: Mapping[str, int]
) -> messages.CreateIndexRequest:
    """Return the request that says how vectors are searched."""
    options = {"index_type": kind, "metric_type": metric, "params": json.dumps(parameters)}
    return messages.CreateIndexRequest(
        collection_name=collection, field_name=VECTOR, index_name=VECTOR, extra_params=_pairs(options)
    )


def query(
    collection: str,
    expression: str,
    fields: Sequence[str],
    *,
    limit: int | None = None,
    sorted_: bool = False,
    strong: bool = False,
) -> messages.QueryRequest:
    """Return the request for the entities for which an expression holds.

    Args:
        collection: Its name.
        expression: Not empty.
        fields: What to return of each.
        limit: Most entities; None for all, up to the server's own limit.
        sorted_: Return the first ones by primary key, as the driver's `query_iterator` does.
        strong: See all writes so far, rather than what the server has at hand.
    """
    options = {} if limit is None else {"limit": str(limit)}
    if sorted_:
        options |= {"iterator": "True", "reduce_stop_for_best": "True"}
    return messages.QueryRequest(
        collection_name=collection,
        expr=expression,
        output_fields=fields,
        query_params=_pairs(options),
        consistency_level=_STRONG if strong else _BOUNDED,
    )


def search(
    collection: str,
    vectors: FloatArray,
    expression: str,
    fields: Sequence[str],
    *,
    limit: int,
    parameters: Mapping[str, int],
) -> messages.SearchRequest:
    """Return the request for the entities nearest to each of some vectors."""
    placeholder = common.PlaceholderValue(
        tag="$0",
        type=common.PlaceholderType.FloatVector,
        values=[row.tobytes() for row in vectors.astype("<f4", copy=False)],
    )
    options = {
        "anns_field": VECTOR,
        "topk": str(limit),
        "round_decimal": "-1",
        "params": json.dumps(parameters),
    }
    return messages.SearchRequest(
        collection_name=collection,
        dsl=expression,
        dsl_type=common.DslType.BoolExprV1,
        placeholder_group=common.PlaceholderGroup(placeholders=[placeholder]).SerializeToString(),
        output_fields=fields,
        search_params=_pairs(options),
        nq=len(vectors),
        consistency_level=_BOUNDED,
    )


def _pairs(options: Mapping[str, str]) -> list[Any]:
    return [common.KeyValuePair(key=key, value=value) for key, value in options.items()]
