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
import struct
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import Any, Final, TypeAlias

import numpy as np
import orjson

from polyvec import metadata as metadata_codec
from polyvec.base import Fields
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

_DOUBLE: Final = struct.Struct("<d")
_INT64: Final = struct.Struct("<q")
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


def _digest(namespace: str, id: str) -> bytes:
    # ids hold no NUL, so no two records share a message
    return blake2b(f"{namespace}\0{id}".encode(), digest_size=16).digest()


def _name(digest: bytes) -> str:
    return base64.b32encode(digest).decode().rstrip("=").lower()


def document_id(namespace: str, id: str) -> str:
    """Return the id of a record's document: letters and digits, which neither a filter nor a URL changes."""
    return _name(_digest(namespace, id))


@lru_cache(maxsize=1024)
def namespace_token(namespace: str) -> str:
    """Return the token of every record of a namespace; it equals no token of `polyvec.tokens`."""
    return "s" + blake2b(namespace.encode(), digest_size=16).hexdigest()


def presence_token(field: str) -> str:
    """Return the token of every record that has a companion; without the `_`, which the engine drops."""
    return field.replace("_", "")


def sortable(field: str, number: float) -> int:
    """Return the value of a companion: an int64 that orders as the numbers do.

    Args:
        field: `n_...` for a float64, `d_...` for microseconds.
        number: The value.
    """
    if field.startswith("d_"):
        return int(number)
    magnitude: int
    [magnitude] = _INT64.unpack(_DOUBLE.pack(abs(number)))
    return magnitude if number >= 0 else -magnitude


def filtered(namespace: str, metadata: Metadata) -> Document:
    """Return the part of a document that depends on the metadata."""
    companions = {field: sortable(field, number) for field, number in record_companions(metadata).items()}
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
        digest = _digest(namespace, id)
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
    """Return the vectors to send and, under cosine, the lengths that they had.

    The engine scales vectors to length 1 itself, but in float32, in which the squares of small and large
    elements are 0 and infinite.
    """
    if metric == "cosine":
        rows = vectors.astype(np.float64)
        lengths = np.linalg.norm(rows, axis=1)
        return (rows / lengths[:, None]).astype(np.float32), lengths.tolist()
    if metric == "euclidean":
        # with q' = (q, 1) and x' = (x, -|x|**2 / 2), the product q'x' is (|q|**2 - |q - x|**2) / 2
        squares = np.square(vectors, dtype=np.float64).sum(axis=1, keepdims=True)
        return np.hstack([vectors, np.maximum(-squares / 2, -_LARGEST).astype(np.float32)]), None
    return vectors, None


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


def _vectors(documents: Iterable[Document], dimension: int, metric: Metric) -> FloatArray:
    rows = np.array([document[VECTOR][:dimension] for document in documents], np.float64)
    if metric == "cosine":
        rows = rows.reshape(-1, dimension) * np.array([[document[NORM]] for document in documents]).reshape(
            -1, 1
        )
        # the largest float32 times its rounded length may be a little more than itself
        np.clip(rows, -_LARGEST, _LARGEST, out=rows)
    return rows.reshape(-1, dimension).astype(np.float32)
