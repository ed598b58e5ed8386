"""From a record to Chroma's columns and back.

Chroma's `upsert` merges: a metadata key that is not sent keeps its old value, and so does a document; None
removes a key (https://github.com/chroma-core/chroma/pull/699). So a record is kept under fixed keys, all of
which every write sends, and merging replaces it in one request. Only the companions (see `polyvec.tokens`)
vary; their names are in the list of tokens, so one that is left over from an older version is known as such.

The text is a metadata key as well. A document could not be removed any more, and Chroma indexes documents
for full-text search, which makes writing about 30% slower (measured, chromadb 1.5.9).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias
from zlib import crc32

import numpy as np
import numpy.typing as npt
from chromadb.api.types import Include

from polyvec import metadata as metadata_codec
from polyvec import scores
from polyvec.base import Fields
from polyvec.errors import PolyvecError, UnsupportedOperationError
from polyvec.tokens import record_companions, record_tokens
from polyvec.types import CollectionSpec, FloatArray, HnswIndex, Metadata, Metric, RecordBatch

Columns: TypeAlias = dict[str, Any]

BLOB: Final = "m"
TOKENS: Final = "t"
TEXT: Final = "x"
LENGTH: Final = "l"
"""Length of the vector under cosine; not kept where it is 1, as for most embeddings."""
BUCKET: Final = "b"
"""A small number made from the id, by which large collections are scanned in parts."""
BUCKETS: Final = 1024

ANCHOR: Final = "\0polyvec"
"""Id of the record that polyvec adds to each native collection; no record of a user can have it.

The graph loses records that are added when all earlier ones were deleted: of 1,000 records deleted and
written again ten times, queries found between 1% and 99% (https://github.com/chroma-core/chroma/issues/7758,
chromadb 1.5.9). With one record that always stays they found all of them."""

MAX_TOKENS: Final = 5461
"""Most tokens of a record: Chroma writes them in one SQL statement, 6 variables each, and SQLite takes 32,766.

Chroma checks that only after it has accepted the record, and then answers no call for that collection any
more, not even after a restart (1.5.9). So such a record must never be sent."""

MAX_LENGTH: Final = 9e18
"""Longest vector for dot and euclidean: beyond, squares do not fit in Chroma's float32."""

TOO_LONG: Final = (
    f"a vector longer than {MAX_LENGTH:g}: Chroma computes its distances in float32, which they exceed"
)

_ROUNDING: Final = 1e-6

_SPACES: Final[dict[Metric, str]] = {
    # the inner product of vectors of length 1: Chroma's own cosine gives NaN for lengths beyond 1e19 and
    # wrong values below 1e-20
    "cosine": "ip",
    "dot": "ip",
    "euclidean": "l2",
}


def configuration(spec: CollectionSpec) -> Columns:
    """Return the native configuration of a collection."""
    index = spec.index if isinstance(spec.index, HnswIndex) else HnswIndex()
    return {
        "hnsw": {
            "space": _SPACES[spec.metric],
            "max_neighbors": index.m,
            "ef_construction": index.ef_construction,
            "ef_search": index.ef_search,
        }
    }


def anchor(spec: CollectionSpec) -> Columns:
    """Return the columns of the anchor.

    It must not be close to everything, or the graph becomes a star around it: zero is far in terms of the
    inner product, but central in terms of distance.
    """
    vector = np.zeros((1, spec.dimension), np.float32)
    vector[0, 0] = 1e15 if spec.metric == "euclidean" else 0
    return {"ids": [ANCHOR], "embeddings": vector}


def encode(batch: RecordBatch, metric: Metric) -> tuple[Columns, dict[str, PolyvecError]]:
    """Return the arguments of a native upsert, and an error for each record that Chroma cannot keep."""
    assert batch.vectors is not None
    assert batch.texts is not None
    assert batch.metadatas is not None
    refused: dict[str, PolyvecError] = {
        batch.ids[row]: UnsupportedOperationError(TOO_LONG) for row in too_long(batch.vectors, metric)
    }
    rows, metadatas = [], []
    lengths = _lengths(batch.vectors) if metric == "cosine" else [None] * len(batch)
    for row, (id, text, metadata, length) in enumerate(
        zip(batch.ids, batch.texts, batch.metadatas, lengths, strict=True)
    ):
        if id in refused:
            continue
        try:
            kept = encode_metadata(metadata)
        except UnsupportedOperationError as error:
            refused[id] = error
            continue
        rows.append(row)
        metadatas.append(kept | {TEXT: text, LENGTH: length, BUCKET: bucket(id)})
    vectors = encode_vectors(batch.vectors, metric)
    if refused:
        vectors = vectors[rows]
    columns = {"ids": [batch.ids[row] for row in rows], "embeddings": vectors, "metadatas": metadatas}
    return columns, refused


def _lengths(vectors: FloatArray) -> list[float | None]:
    """Return the lengths that have to be kept; None where a vector has length 1 to rounding."""
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1)
    return [None if abs(length - 1) < _ROUNDING else length for length in lengths.tolist()]


def encode_vectors(vectors: FloatArray, metric: Metric) -> FloatArray:
    """Return vectors as they are stored and compared."""
    return scores.unit(vectors).astype(np.float32) if metric == "cosine" else vectors


def bucket(id: str) -> int:
    """Return the bucket of a record, 0 to 1023."""
    return crc32(id.encode()) % BUCKETS


def too_long(vectors: FloatArray, metric: Metric) -> list[int]:
    """Return the rows whose vectors are too long for the metric."""
    if metric == "cosine":
        return []
    return np.flatnonzero(np.linalg.norm(vectors.astype(np.float64), axis=1) > MAX_LENGTH).tolist()


def encode_metadata(metadata: Metadata) -> Columns:
    """Return the native metadata that stands for a record's metadata; None removes what was there.

    Raises:
        UnsupportedOperationError: It has more to filter by than Chroma can keep.
    """
    companions = record_companions(metadata)
    tokens = [*record_tokens(metadata), *companions]
    if len(tokens) > MAX_TOKENS:
        raise UnsupportedOperationError(
            f"the metadata has {len(tokens)} values, keys and list elements to filter by; Chroma keeps "
            f"{MAX_TOKENS} of a record at most"
        )
    return {BLOB: metadata_codec.encode(metadata) if metadata else None, TOKENS: tokens or None, **companions}


def include(fields: Fields, metric: Metric) -> Include:
    """Return which native columns a read needs."""
    columns: Include = []
    if fields.text or fields.metadata or (fields.vectors and metric == "cosine"):
        columns.append("metadatas")
    if fields.vectors:
        columns.append("embeddings")
    return columns


def decode(
    ids: Sequence[str],
    metadatas: Sequence[Mapping[str, Any] | None] | None,
    embeddings: npt.ArrayLike | None,
    fields: Fields,
    spec: CollectionSpec,
) -> RecordBatch:
    """Return the records of native columns; the columns that `include` names are given.

    Args:
        ids: n ids.
        metadatas: n native metadata, None for one without any.
        embeddings: Shape (n, d).
        fields: What to return.
        spec: Of the collection.
    """
    kept = [metadata or {} for metadata in metadatas or ()]
    vectors = None
    if fields.vectors:
        stored = np.asarray(embeddings, np.float64).reshape(len(ids), spec.dimension)
        if spec.metric == "cosine":
            stored = stored * np.array([metadata.get(LENGTH, 1.0) for metadata in kept]).reshape(-1, 1)
        vectors = stored.astype(np.float32)
    return RecordBatch(
        ids,
        vectors,
        [metadata.get(TEXT) for metadata in kept] if fields.text else None,
        [decode_metadata(metadata) for metadata in kept] if fields.metadata else None,
    )


def decode_metadata(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record's metadata from the native one."""
    return metadata_codec.decode(metadata[BLOB]) if BLOB in metadata else {}


def score(distances: npt.ArrayLike, metric: Metric) -> npt.NDArray[np.float64]:
    """Return our scores of native distances: 1 minus the inner product, or the squared distance."""
    found = np.asarray(distances, np.float64)
    if metric == "euclidean":
        return scores.from_squared_distance(found)
    return scores.from_cosine_distance(found) if metric == "cosine" else scores.from_dot(1.0 - found)
