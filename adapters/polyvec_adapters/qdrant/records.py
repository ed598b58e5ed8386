"""Records as Qdrant points, and points as records.

The payload of a point, whatever its record's metadata:

    {
        "id": "a", "ns": "",                     the record's id and namespace
        "text": "...",                           absent where the record has none
        "meta": "{...}",                         the metadata as `polyvec.metadata` encodes it
        "norm": 2.5,                             under cosine: the length that the vector had
        "f": {                                   what filters look at; replaced as a whole
            "t": ["5a1f...", ...],               tokens
            "n_3b7c...": 7, "n_3b7c..._low": 9   the companion of a number, or d_... of a datetime
        },
    }

Companions are two integers instead of one number because a payload's float may come back changed in its last
digit (the server's JSON parser does not round correctly: of random doubles, 1 in 8 is stored as its
neighbour; run on 1.19.0), and because ranges compare as float64, which cannot hold the microseconds of every
datetime. Integers below 2**53 survive both.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final, TypeAlias

import numpy as np
from qdrant_client import grpc, models
from qdrant_client.conversions.conversion import payload_to_grpc

from polyvec import metadata as metadata_codec
from polyvec.base import Fields
from polyvec.encoding import join_lengths, packed_floats, record_uuid, sortable_pair, split_lengths
from polyvec.tokens import record_companions, record_tokens
from polyvec.types import FloatArray, Metadata, Metric, RecordBatch

Payload: TypeAlias = dict[str, Any]

ID: Final = "id"
NAMESPACE: Final = "ns"
FILTERED: Final = "f"
TOKENS: Final = "f.t"
_TEXT: Final = "text"
_META: Final = "meta"
_NORM: Final = "norm"


def low(field: str) -> str:
    """Return the name of the second half of a companion, which is absent where it is 0."""
    return f"{field}_low"


def filtered(metadata: Metadata) -> Payload:
    """Return what filters look at."""
    found: Payload = {"t": record_tokens(metadata)}
    for field, number in record_companions(metadata).items():
        found[field], rest = sortable_pair(field, number)
        if rest:
            found[low(field)] = rest
    return found


def metadata_payload(metadata: Metadata) -> Payload:
    """Return the part of a payload that depends on the metadata."""
    return {_META: metadata_codec.encode(metadata), FILTERED: filtered(metadata)}


def encode(batch: RecordBatch, namespace: str, metric: Metric) -> tuple[list[str], FloatArray, list[Payload]]:
    """Return the ids, vectors and payloads of a batch's points."""
    assert batch.vectors is not None
    assert batch.texts is not None
    assert batch.metadatas is not None
    vectors, lengths = split_lengths(batch.vectors, metric)
    payloads = []
    for id, text, metadata in zip(batch.ids, batch.texts, batch.metadatas, strict=True):
        payload = {ID: id, NAMESPACE: namespace, **metadata_payload(metadata)}
        if text is not None:
            payload[_TEXT] = text
        payloads.append(payload)
    for payload, length in zip(payloads, lengths or (), strict=lengths is not None):
        payload[_NORM] = length
    return [record_uuid(namespace, id) for id in batch.ids], vectors, payloads


def rest_points(ids: list[str], vectors: FloatArray, payloads: list[Payload]) -> models.Batch:
    """Return points as REST sends them; the driver would check each float once more."""
    return models.Batch.model_construct(ids=ids, vectors=vectors.tolist(), payloads=payloads)


def grpc_points(ids: list[str], vectors: FloatArray, payloads: list[Payload]) -> list[grpc.PointStruct]:
    """Return points as gRPC sends them, vectors as the bytes that they are on the wire."""
    points = []
    for id, row, payload in zip(ids, vectors, payloads, strict=True):
        point = grpc.PointStruct(id=grpc.PointId(uuid=id), payload=payload_to_grpc(payload))
        point.vectors.vector.dense.MergeFromString(packed_floats(row))
        points.append(point)
    return points


def payload_keys(fields: Fields, metric: Metric) -> list[str]:
    """Return the keys of the payload that a read needs."""
    keys = [ID]
    keys += [_TEXT] if fields.text else []
    keys += [_META] if fields.metadata else []
    keys += [_NORM] if fields.vectors and metric == "cosine" else []
    return keys


def decode(
    points: Sequence[models.Record] | Sequence[models.ScoredPoint],
    fields: Fields,
    dimension: int,
    metric: Metric,
) -> RecordBatch:
    """Return points as records."""
    payloads: list[Payload] = [point.payload or {} for point in points]
    return RecordBatch(
        [payload[ID] for payload in payloads],
        _vectors((point.vector for point in points), payloads, dimension, metric) if fields.vectors else None,
        [payload.get(_TEXT) for payload in payloads] if fields.text else None,
        [metadata_codec.decode(payload[_META]) for payload in payloads] if fields.metadata else None,
    )


def _vectors(found: Iterable[Any], payloads: list[Payload], dimension: int, metric: Metric) -> FloatArray:
    rows = np.array(list(found), np.float32).reshape(len(payloads), dimension)
    return join_lengths(rows, [payload[_NORM] for payload in payloads]) if metric == "cosine" else rows
