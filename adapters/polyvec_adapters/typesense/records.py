"""Records as Typesense documents, and documents as records.

A document, whatever its record's metadata:

    {
        "id": "k5r2...",                 a hash of the namespace and the record's id
        "vec": [0.1, ...],               the vector; under cosine with length 1, under euclidean with one more
                                         dimension, see `_stored`
        "key": "a",                      the record's id
        "slot": 1234567890,              31 bits of the hash, by which scans cut a collection into pages
        "text": "...",                   absent where the record has none
        "meta": "{...}",                 the metadata as `polyvec.metadata` encodes it
        "norm": 2.5,                     under cosine: the length that the vector had
        "tokens": ["5a1f...", ...],      what conditions look at, with one token for the namespace
        "n_3b7c...": 4611686018427387904 the companion of a number, or d_... of a datetime
    }

Companions are integers, because a `float` of the engine has 32 bits: microseconds as they are, and of a
float64 its bits, which order as the numbers do once the sign is taken into account.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias

import numpy as np
import orjson

from polyvec import metadata as metadata_codec
from polyvec.base import Fields
from polyvec.encoding import join_lengths, namespace_token, record_key, sortable_int, split_lengths
from polyvec.tokens import record_companions, record_tokens
from polyvec.types import FloatArray, Metadata, Metric, RecordBatch

Document: TypeAlias = dict[str, Any]

VECTOR: Final = "vec"
TOKENS: Final = "tokens"
SLOT: Final = "slot"
KEY: Final = "key"
TEXT: Final = "text"
META: Final = "meta"
NORM: Final = "norm"

SLOTS: Final = 2**31
"""Slots are in [0, SLOTS)."""

_LARGEST: Final = float(np.finfo(np.float32).max)
_SMALLEST: Final = np.finfo(np.float32).tiny


def schema(dimension: int, metric: Metric) -> list[Document]:
    """Return the fields of a collection.

    https://typesense.org/docs/0.24.1/api/collections.html#schema-parameters.
    """
    stored = {"index": False, "optional": True}
    return [
        {
            "name": VECTOR,
            "type": "float[]",
            "num_dim": dimension + (metric == "euclidean"),
            "vec_dist": "cosine" if metric == "cosine" else "ip",
        },
        {"name": TOKENS, "type": "string[]"},
        {"name": SLOT, "type": "int64", "sort": False},
        # made by the first document that has one
        {"name": "n_.*", "type": "int64", "optional": True, "sort": False},
        {"name": "d_.*", "type": "int64", "optional": True, "sort": False},
        {"name": KEY, "type": "string", **stored},
        {"name": TEXT, "type": "string", **stored},
        {"name": META, "type": "string", **stored},
        {"name": NORM, "type": "float", **stored},
    ]


def _name(digest: bytes) -> str:
    return base64.b32encode(digest).decode().rstrip("=").lower()


def document_id(namespace: str, id: str) -> str:
    """Return the id of a record's document: letters and digits, which neither a filter nor a URL changes."""
    return _name(record_key(namespace, id))


def presence_token(field: str) -> str:
    """Return the token of every record that has a companion; without the `_`, which the engine drops."""
    return field.replace("_", "")


def filtered(namespace: str, metadata: Metadata) -> Document:
    """Return the part of a document that depends on the metadata."""
    companions = {field: sortable_int(field, number) for field, number in record_companions(metadata).items()}
    tokens = [namespace_token(namespace), *record_tokens(metadata), *map(presence_token, companions)]
    return {META: metadata_codec.encode(metadata), TOKENS: tokens, **companions}


def change(namespace: str, id: str, old: Metadata, new: Metadata) -> bytes:
    """Return the line that replaces a record's metadata; a field that is null goes."""
    gone = dict.fromkeys(record_companions(old))
    return orjson.dumps({"id": document_id(namespace, id), **gone, **filtered(namespace, new)})


def encode(batch: RecordBatch, namespace: str, metric: Metric) -> dict[str, bytes]:
    """Return the line of JSON of each record of a batch, by its id."""
    assert batch.vectors is not None
    assert batch.texts is not None
    assert batch.metadatas is not None
    vectors, norms = _stored(batch.vectors, metric)
    lines = {}
    for row, (id, text, metadata) in enumerate(zip(batch.ids, batch.texts, batch.metadatas, strict=True)):
        digest = record_key(namespace, id)
        document = {
            "id": _name(digest),
            VECTOR: vectors[row],
            KEY: id,
            SLOT: int.from_bytes(digest[:4]) >> 1,
            **filtered(namespace, metadata),
        }
        if text is not None:
            document[TEXT] = text
        if norms is not None:
            document[NORM] = norms[row]
        # numpy's float32 as its shortest decimals: half the bytes of a Python float, and quick
        lines[id] = orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)
    return lines


def _stored(vectors: FloatArray, metric: Metric) -> tuple[FloatArray, list[float] | None]:
    """Return the vectors to send and, under cosine, the lengths that they had."""
    if metric == "euclidean":
        # with q' = (q, 1) and x' = (x, -|x|**2 / 2), the product q'x' is (|q|**2 - |q - x|**2) / 2
        squares = np.square(vectors, dtype=np.float64).sum(axis=1, keepdims=True)
        return np.hstack([vectors, np.maximum(-squares / 2, -_LARGEST).astype(np.float32)]), None
    return split_lengths(vectors, metric)


def queries(vectors: FloatArray, metric: Metric) -> list[str]:
    """Return query vectors as the engine reads them.

    Its parser refuses a number that is not normal in float32: such a one becomes 0.
    """
    rows = _stored(vectors, metric)[0] if metric == "cosine" else vectors
    if metric == "euclidean":
        rows = np.hstack([rows, np.ones((len(rows), 1), np.float32)])
    normal = np.where(np.abs(rows) < _SMALLEST, np.float32(0), rows)
    return [orjson.dumps(row, option=orjson.OPT_SERIALIZE_NUMPY).decode() for row in normal]


def fields_read(fields: Fields, metric: Metric) -> str:
    """Return the fields of documents that a read needs, as the engine takes them."""
    names = [KEY]
    names += [TEXT] if fields.text else []
    names += [META] if fields.metadata else []
    names += [VECTOR] if fields.vectors else []
    names += [NORM] if fields.vectors and metric == "cosine" else []
    return ",".join(names)


def metadata_of(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metadata of a document's record."""
    return metadata_codec.decode(document[META])


def decode(documents: Sequence[Document], fields: Fields, dimension: int, metric: Metric) -> RecordBatch:
    """Return documents as records."""
    return RecordBatch(
        [document[KEY] for document in documents],
        _vectors(documents, dimension, metric) if fields.vectors else None,
        [document.get(TEXT) for document in documents] if fields.text else None,
        list(map(metadata_of, documents)) if fields.metadata else None,
    )


def _vectors(documents: Sequence[Document], dimension: int, metric: Metric) -> FloatArray:
    rows = np.array([document[VECTOR][:dimension] for document in documents], np.float32).reshape(
        -1, dimension
    )
    return join_lengths(rows, [document[NORM] for document in documents]) if metric == "cosine" else rows
