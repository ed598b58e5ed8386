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

import struct
import uuid
from collections.abc import Iterable, Sequence
from typing import Any, Final, TypeAlias

import numpy as np
from qdrant_client import grpc, models
from qdrant_client.conversions.conversion import payload_to_grpc

from polyvec import metadata as metadata_codec
from polyvec.base import Fields
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

_IDS: Final = uuid.UUID("0d7e8a3c-52f1-5c46-9b1e-8f2a6c4d7b90")
"""The namespace of all point ids. Another one would lose every record that was ever written."""

NO_POINT: Final = str(uuid.uuid5(_IDS, ""))
"""The id of no record's point, since `point_id` always hashes a NUL."""

_DOUBLE: Final = struct.Struct("<d")
_INT64: Final = struct.Struct("<q")
_LARGEST: Final = float(np.finfo(np.float32).max)


def point_id(namespace: str, id: str) -> str:
    """Return the id of a record's point; ids hold no NUL, so no two records share one."""
    return str(uuid.uuid5(_IDS, f"{namespace}\0{id}"))


def low(field: str) -> str:
    """Return the name of the second half of a companion, which is absent where it is 0."""
    return f"{field}_low"


def halves(field: str, number: float) -> tuple[int, int]:
    """Return the value of a companion as (high, low), both exact as float64; pairs order as the values do.

    Args:
        field: `n_...` for a float64, `d_...` for microseconds.
        number: The value.

    Returns:
        For microseconds, seconds and the rest. For a float64, the two halves of its bits, which order as
        numbers do once the sign is taken into account; low is 0 for short ones such as 7 or 0.5.
    """
    if field.startswith("d_"):
        return divmod(int(number), 1_000_000)
    magnitude: int
    [magnitude] = _INT64.unpack(_DOUBLE.pack(abs(number)))
    return divmod(magnitude if number >= 0 else -magnitude, 2**32)


def filtered(metadata: Metadata) -> Payload:
    """Return what filters look at."""
    found: Payload = {"t": record_tokens(metadata)}
    for field, number in record_companions(metadata).items():
        found[field], rest = halves(field, number)
        if rest:
            found[low(field)] = rest
    return found


def metadata_payload(metadata: Metadata) -> Payload:
    """Return the part of a payload that depends on the metadata."""
    return {_META: metadata_codec.encode(metadata), FILTERED: filtered(metadata)}


def encode_vectors(vectors: FloatArray, metric: Metric) -> tuple[FloatArray, list[float] | None]:
    """Return the vectors to send and, under cosine, the lengths that they had.

    The engine scales vectors to length 1 in float32 itself, but not very short ones, and it makes zeros of
    very long ones (`cosine_preprocess`: https://github.com/qdrant/qdrant, lib/segment/src/spaces, 1.19).
    """
    if metric != "cosine":
        return vectors, None
    rows = vectors.astype(np.float64)
    lengths = np.linalg.norm(rows, axis=1)
    return (rows / lengths[:, None]).astype(np.float32), lengths.tolist()


def encode(batch: RecordBatch, namespace: str, metric: Metric) -> tuple[list[str], FloatArray, list[Payload]]:
    """Return the ids, vectors and payloads of a batch's points."""
    assert batch.vectors is not None
    assert batch.texts is not None
    assert batch.metadatas is not None
    vectors, lengths = encode_vectors(batch.vectors, metric)
    payloads = []
    for id, text, metadata in zip(batch.ids, batch.texts, batch.metadatas, strict=True):
        payload = {ID: id, NAMESPACE: namespace, **metadata_payload(metadata)}
        if text is not None:
            payload[_TEXT] = text
        payloads.append(payload)
    for payload, length in zip(payloads, lengths or (), strict=lengths is not None):
        payload[_NORM] = length
    return [point_id(namespace, id) for id in batch.ids], vectors, payloads


def rest_points(ids: list[str], vectors: FloatArray, payloads: list[Payload]) -> models.Batch:
    """Return points as REST sends them; the driver would check each float once more."""
    return models.Batch.model_construct(ids=ids, vectors=vectors.tolist(), payloads=payloads)


def grpc_points(ids: list[str], vectors: FloatArray, payloads: list[Payload]) -> list[grpc.PointStruct]:
    """Return points as gRPC sends them, vectors as the bytes that they are on the wire.

    A packed `repeated float` is its bytes in little-endian order behind a tag and a length
    (https://protobuf.dev/programming-guides/encoding/#packed); giving protobuf a list is twice as slow.
    """
    rows = vectors.astype("<f4", copy=False)
    head = b"\x0a" + _varint(rows.itemsize * rows.shape[1])  # field 1 of DenseVector, length-delimited
    points = []
    for id, row, payload in zip(ids, rows, payloads, strict=True):
        point = grpc.PointStruct(id=grpc.PointId(uuid=id), payload=payload_to_grpc(payload))
        point.vectors.vector.dense.MergeFromString(head + row.tobytes())
        points.append(point)
    return points


def _varint(number: int) -> bytes:
    found = bytearray()
    while number > 0x7F:  # noqa: PLR2004  # 7 bits in a byte
        found.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes((*found, number))


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
    rows = np.array(list(found), np.float64).reshape(len(payloads), dimension)
    if metric == "cosine":
        rows *= np.array([payload[_NORM] for payload in payloads]).reshape(-1, 1)
        # the largest float32 times its rounded length may be a little more than itself
        np.clip(rows, -_LARGEST, _LARGEST, out=rows)
    return rows.astype(np.float32)
