"""Records as Milvus entities, and entities as records.

Every collection has these fields, whatever its records' metadata:

    pk      VARCHAR          primary key: a hash of the namespace and the id
    id, ns  VARCHAR          the record's id and namespace
    vector  FLOAT_VECTOR     under cosine with length 1
    norm    DOUBLE           under cosine: the length that the vector had
    text    ARRAY<VARCHAR>   the text in pieces; empty where the record has none
    meta    ARRAY<VARCHAR>   the metadata in pieces, as `polyvec.metadata` encodes it
    tok     ARRAY<VARCHAR>   what filters look for: tokens, and the names of the companions
    num     JSON             what ranges compare: the companions

Text and metadata are cut since a VARCHAR holds 65,535 bytes at most
(https://milvus.io/docs/v2.3.x/limitations.md), and an ARRAY up to 4,096 of them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np
from pymilvus.grpc_gen import schema_pb2 as proto

from polyvec import metadata as metadata_codec
from polyvec.base import Fields
from polyvec.encoding import join_lengths, packed_floats, record_key, split_lengths
from polyvec.tokens import record_companions, record_tokens
from polyvec.types import FloatArray, Metadata, Metric, RecordBatch

KEY: Final = "pk"
ID: Final = "id"
NAMESPACE: Final = "ns"
VECTOR: Final = "vector"
NORM: Final = "norm"
TEXT: Final = "text"
METADATA: Final = "meta"
TOKENS: Final = "tok"
NUMBERS: Final = "num"

MAX_TOKENS: Final = 4096
"""The largest capacity of an ARRAY: https://milvus.io/docs/v2.3.x/array_data_type.md."""

_MAX_VARCHAR: Final = 65_535
_PIECE: Final = _MAX_VARCHAR // 4
"""Characters that fit into a VARCHAR, whatever they are."""


def primary_key(namespace: str, id: str) -> str:
    """Return the primary key of a record, 32 hex digits."""
    return record_key(namespace, id).hex()


def schema(name: str, description: str, dimension: int, metric: Metric) -> proto.CollectionSchema:
    """Return the fields of a collection."""
    fields = [
        _field(KEY, proto.VarChar, is_primary_key=True, max_length=32),
        _field(ID, proto.VarChar, max_length=512),
        _field(NAMESPACE, proto.VarChar, max_length=128),
        _field(VECTOR, proto.FloatVector, dim=dimension),
        _field(TEXT, proto.Array, proto.VarChar, max_length=_MAX_VARCHAR, max_capacity=4096),
        _field(METADATA, proto.Array, proto.VarChar, max_length=_MAX_VARCHAR, max_capacity=4096),
        _field(TOKENS, proto.Array, proto.VarChar, max_length=32, max_capacity=MAX_TOKENS),
        _field(NUMBERS, proto.JSON),
    ]
    if metric == "cosine":
        fields.append(_field(NORM, proto.Double))
    return proto.CollectionSchema(name=name, description=description, fields=fields)


def _field(
    name: str, kind: Any, element: Any = None, *, is_primary_key: bool = False, **parameters: int
) -> proto.FieldSchema:
    pairs = [{"key": key, "value": str(value)} for key, value in parameters.items()]
    return proto.FieldSchema(
        name=name,
        data_type=kind,
        element_type=element,
        is_primary_key=is_primary_key,
        type_params=pairs,
    )


def pieces(text: str | None) -> list[str]:
    """Return a text in pieces that each fit into a VARCHAR; none for None."""
    if text is None:
        return []
    return [text[start : start + _PIECE] for start in range(0, len(text), _PIECE)] or [""]


def tokens(metadata: Metadata) -> list[str]:
    """Return what filters look for: tokens, and the names of the companions."""
    return [*record_tokens(metadata), *record_companions(metadata)]


def encode(batch: RecordBatch, namespace: str, metric: Metric) -> list[proto.FieldData]:
    """Return the entities of a batch, column by column."""
    assert batch.vectors is not None
    assert batch.texts is not None
    assert batch.metadatas is not None
    vectors, lengths = split_lengths(batch.vectors, metric)
    texts = [pieces(text) for text in batch.texts]
    return [
        *_identity(namespace, batch.ids),
        _vectors(vectors),
        *([] if lengths is None else [_norms(lengths)]),
        _arrays(TEXT, texts),
        *_of_metadata(batch.metadatas),
    ]


def with_metadata(
    columns: Iterable[proto.FieldData], namespace: str, metadatas: Sequence[Metadata]
) -> list[proto.FieldData]:
    """Return entities as they were read, without their metadata, to be written with other metadata."""
    found = {column.field_name: column for column in columns}
    return [
        *_identity(namespace, strings(found, ID)),
        *(found[name] for name in (VECTOR, NORM) if name in found),
        # not as it was read, where an empty array has no type, on which a server of 2.3 crashes
        _arrays(TEXT, _rows(found, TEXT)),
        *_of_metadata(metadatas),
    ]


def _identity(namespace: str, ids: Sequence[str]) -> list[proto.FieldData]:
    return [
        _strings(KEY, [primary_key(namespace, id) for id in ids]),
        _strings(ID, ids),
        _strings(NAMESPACE, [namespace] * len(ids)),
    ]


def _of_metadata(metadatas: Sequence[Metadata]) -> list[proto.FieldData]:
    numbers = [json.dumps(record_companions(metadata)).encode() for metadata in metadatas]
    return [
        _arrays(METADATA, [pieces(metadata_codec.encode(metadata)) for metadata in metadatas]),
        _arrays(TOKENS, [tokens(metadata) for metadata in metadatas]),
        proto.FieldData(
            field_name=NUMBERS,
            type=proto.JSON,
            scalars=proto.ScalarField(json_data=proto.JSONArray(data=numbers)),
        ),
    ]


def _strings(name: str, texts: Sequence[str]) -> proto.FieldData:
    return proto.FieldData(
        field_name=name,
        type=proto.VarChar,
        scalars=proto.ScalarField(string_data=proto.StringArray(data=texts)),
    )


def _arrays(name: str, rows: Iterable[Sequence[str]]) -> proto.FieldData:
    arrays = [proto.ScalarField(string_data=proto.StringArray(data=row)) for row in rows]
    return proto.FieldData(
        field_name=name,
        type=proto.Array,
        scalars=proto.ScalarField(array_data=proto.ArrayArray(data=arrays, element_type=proto.VarChar)),
    )


def _norms(lengths: list[float]) -> proto.FieldData:
    return proto.FieldData(
        field_name=NORM,
        type=proto.Double,
        scalars=proto.ScalarField(double_data=proto.DoubleArray(data=lengths)),
    )


def _vectors(vectors: FloatArray) -> proto.FieldData:
    found = proto.FieldData(field_name=VECTOR, type=proto.FloatVector)
    found.vectors.dim = vectors.shape[1]
    found.vectors.float_vector.MergeFromString(packed_floats(vectors))
    return found


def output_fields(fields: Fields, metric: Metric) -> list[str]:
    """Return the fields of an entity that a read needs."""
    return [
        ID,
        *([TEXT] if fields.text else []),
        *([METADATA] if fields.metadata else []),
        *([VECTOR] if fields.vectors else []),
        *([NORM] if fields.vectors and metric == "cosine" else []),
    ]


def decode(columns: Iterable[proto.FieldData], fields: Fields, dimension: int, metric: Metric) -> RecordBatch:
    """Return entities as records, in their order."""
    found = {column.field_name: column for column in columns}
    ids = strings(found, ID)
    return RecordBatch(
        ids,
        _decode_vectors(found, len(ids), dimension, metric) if fields.vectors else None,
        [_joined(row) for row in _rows(found, TEXT)] if fields.text else None,
        [metadata_codec.decode("".join(row)) for row in _rows(found, METADATA)] if fields.metadata else None,
    )


def joined(parts: Sequence[RecordBatch]) -> RecordBatch:
    """Return batches that were read alike as one."""
    first = parts[0]
    return RecordBatch(
        [id for part in parts for id in part.ids],
        None if first.vectors is None else np.concatenate([part.vectors for part in parts]),
        None if first.texts is None else [text for part in parts for text in part.texts or ()],
        None if first.metadatas is None else [item for part in parts for item in part.metadatas or ()],
    )


def strings(columns: dict[str, proto.FieldData], name: str) -> list[str]:
    """Return a column of strings; empty where there are no entities, and so no columns."""
    return list(columns[name].scalars.string_data.data) if name in columns else []


def _rows(columns: dict[str, proto.FieldData], name: str) -> list[Sequence[str]]:
    if name not in columns:
        return []
    return [row.string_data.data for row in columns[name].scalars.array_data.data]


def _joined(row: Sequence[str]) -> str | None:
    return "".join(row) if len(row) else None


def _decode_vectors(
    columns: dict[str, proto.FieldData], count: int, dimension: int, metric: Metric
) -> FloatArray:
    if count == 0:
        return np.empty((0, dimension), np.float32)
    packed = columns[VECTOR].vectors.float_vector.SerializeToString()
    size = 4 * count * dimension
    vectors = np.frombuffer(packed[-size:], "<f4").reshape(count, dimension)
    if metric != "cosine":
        return vectors.astype(np.float32)
    return join_lengths(vectors, columns[NORM].scalars.double_data.data)
