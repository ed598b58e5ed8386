"""From a record to Chroma's columns and back.

Chroma's `upsert` merges: a metadata key that is not sent keeps its old value, and so does a document; None
removes a key (https://github.com/chroma-core/chroma/pull/699). So a record is kept in its document and under
fixed metadata keys, all of which every write sends, and merging replaces it in one request. Only companions
(see `polyvec.tokens`) vary: `n_` and `d_` for ranges, and `s_` with the token of a scalar. The list of tokens
tells which of them are alive, so one that is left over from an older version of the record is known as such.

What is read is in the document, what is filtered by in the metadata, because Chroma reads metadata as a whole
and slowly (measured with 12 tokens: queries take half the time without). The document begins with NUL, which
ends what SQLite's trigram index takes in (https://www.sqlite.org/fts5.html#the_trigram_tokenizer): without an
index of all texts writing is faster by a fifth.
"""

from __future__ import annotations

from binascii import b2a_base64
from collections.abc import Sequence
from functools import lru_cache
from struct import Struct
from typing import Any, Final, NamedTuple, Self, TypeAlias
from zlib import crc32

import numpy as np
import numpy.typing as npt
from chromadb.api.types import Include

from polyvec import metadata as metadata_codec
from polyvec import scores
from polyvec.base import Fields
from polyvec.errors import PolyvecError, UnsupportedOperationError
from polyvec.tokens import companion_field, record_companions, record_tokens, scalar_token
from polyvec.types import CollectionSpec, FloatArray, HnswIndex, Metadata, Metric, RecordBatch, Scalar

Columns: TypeAlias = dict[str, Any]

TOKENS: Final = "t"
BUCKET: Final = "b"
"""A small number made from the id, by which large collections are scanned in parts."""
BUCKETS: Final = 1024

DEFAULT_INDEX: Final = HnswIndex(m=16, ef_construction=64, ef_search=200)
"""Recall@10 of 10,000 x 512: 1.00 for texts, 0.70 for isotropic random vectors.

With ef_construction=200 it is the same, and building takes 1.4 times as long."""

ANCHOR: Final = "\0polyvec"
"""Id of the record that polyvec adds to each native collection; no record of a user can have it.

The graph loses records that are added when all earlier ones were deleted: of 1,000 records deleted and
written again ten times, queries found between 1% and 99% (https://github.com/chroma-core/chroma/issues/7758,
chromadb 1.5.9). With one record that always stays they found all of them."""

MAX_TOKENS: Final = 5461
"""Most tokens of a record: they are written by one SQL statement with 6 variables each, of SQLite's 32,766.

Chroma checks that only after it has accepted the record, and then answers no call for that collection any
more, not even after a restart (1.5.9). So such a record must never be sent."""

MAX_LENGTH: Final = 9e18
"""Longest vector for dot and euclidean: beyond, squares do not fit in Chroma's float32."""

TOO_LONG: Final = (
    f"a vector longer than {MAX_LENGTH:g}: Chroma computes its distances in float32, which they exceed"
)

EMPTY_DOCUMENT: Final = "\0::{}"

_ROUNDING: Final = 1e-6
_FLOAT64, _INT64 = Struct("<d"), Struct("<q")

_SPACES: Final[dict[Metric, str]] = {
    # the inner product of vectors of length 1: Chroma's own cosine gives NaN for lengths beyond 1e19 and
    # wrong values below 1e-20
    "cosine": "ip",
    "dot": "ip",
    "euclidean": "l2",
}


def configuration(spec: CollectionSpec) -> Columns:
    """Return the native configuration of a collection."""
    index = spec.index if isinstance(spec.index, HnswIndex) else DEFAULT_INDEX
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
    rows, metadatas, documents = [], [], []
    lengths = _lengths(batch.vectors) if metric == "cosine" else [None] * len(batch)
    for row, (id, text, metadata, length) in enumerate(
        zip(batch.ids, batch.texts, batch.metadatas, lengths, strict=True)
    ):
        try:
            filterable = encode_filterable(metadata)
        except UnsupportedOperationError as error:
            refused[id] = error
        if id not in refused:
            rows.append(row)
            metadatas.append(filterable | {BUCKET: bucket(id)})
            documents.append(Document(length, text, metadata_codec.encode(metadata)).pack())
    vectors = encode_vectors(batch.vectors, metric)
    columns = {
        "ids": [batch.ids[row] for row in rows],
        "embeddings": vectors[rows] if refused else vectors,
        "metadatas": metadatas,
        "documents": documents,
    }
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


def encode_filterable(metadata: Metadata) -> Columns:
    """Return the native metadata that a record is filtered by; None removes what was there.

    Raises:
        UnsupportedOperationError: It is more than Chroma can keep.
    """
    companions = {field: sortable(number) for field, number in record_companions(metadata).items()}
    tokens = [*map(short_token, record_tokens(metadata)), *companions]
    scalars = {companion_field("s", key): _scalar(key, value) for key, value in metadata.items()}
    if len(tokens) > MAX_TOKENS:
        raise UnsupportedOperationError(
            f"the metadata has {len(tokens)} values, keys and list elements to filter by; Chroma keeps "
            f"{MAX_TOKENS} of a record at most"
        )
    return {TOKENS: tokens or None, **companions, **scalars}


def sortable(number: float) -> int:
    """Return an int64 for a companion: in the order of the floats for a float, and for an int itself.

    A server changes the last digit of one float in eleven that it reads from JSON (tried, 1.5.9), so that a
    comparison at the boundary would go wrong; ints arrive as they are.
    """
    if isinstance(number, int):
        return number
    [bits] = _INT64.unpack(_FLOAT64.pack(number))
    return bits if bits >= 0 else -(bits & 2**63 - 1)  # type: ignore[no-any-return]  # struct is untyped


def _scalar(key: str, value: object) -> str | None:
    return short_token(scalar_token(key, value)) if isinstance(value, Scalar) else None


@lru_cache(maxsize=65_536)
def short_token(token: str) -> str:
    """Return a token in 22 characters instead of 32: less to write and to index."""
    return b2a_base64(bytes.fromhex(token), newline=False)[:22].decode()


class Document(NamedTuple):
    """What is kept in the document of a record.

    Attributes:
        length: Of the vector, under cosine; None where it is 1, as for most embeddings.
        text: The record's text.
        blob: The record's metadata, encoded.
    """

    length: float | None
    text: str | None
    blob: str

    def pack(self) -> str:
        """Return it as one string."""
        length = "" if self.length is None else repr(self.length)
        characters = "" if self.text is None else len(self.text)
        return f"\0{length}:{characters}:{self.text or ''}{self.blob}"

    @classmethod
    def unpack(cls, document: str) -> Self:
        """Return what `pack` made the string from."""
        length, characters, rest = document[1:].split(":", 2)
        stop = int(characters or 0)
        return cls(float(length) if length else None, rest[:stop] if characters else None, rest[stop:])


def replace_metadata(document: str, metadata: Metadata) -> str:
    """Return the document with other metadata."""
    return Document.unpack(document)._replace(blob=metadata_codec.encode(metadata)).pack()


def include(fields: Fields, metric: Metric) -> Include:
    """Return which native columns a read needs."""
    columns: Include = []
    if fields.text or fields.metadata or (fields.vectors and metric == "cosine"):
        columns.append("documents")
    if fields.vectors:
        columns.append("embeddings")
    return columns


def decode(
    ids: Sequence[str],
    documents: Sequence[str | None] | None,
    embeddings: npt.ArrayLike | None,
    fields: Fields,
    spec: CollectionSpec,
) -> RecordBatch:
    """Return the records of native columns; those that `include` names are given.

    Args:
        ids: n ids.
        documents: n documents.
        embeddings: Shape (n, d).
        fields: What to return.
        spec: Of the collection.
    """
    kept = [Document.unpack(document or EMPTY_DOCUMENT) for document in documents or ()]
    vectors = None
    if fields.vectors:
        stored = np.asarray(embeddings, np.float64).reshape(len(ids), spec.dimension)
        if spec.metric == "cosine":
            stored = stored * np.array([document.length or 1.0 for document in kept]).reshape(-1, 1)
        vectors = stored.astype(np.float32)
    return RecordBatch(
        ids,
        vectors,
        [document.text for document in kept] if fields.text else None,
        [metadata_codec.decode(document.blob) for document in kept] if fields.metadata else None,
    )


def score(distances: npt.ArrayLike, metric: Metric) -> npt.NDArray[np.float64]:
    """Return our scores of native distances: 1 minus the inner product, or the squared distance."""
    found = np.asarray(distances, np.float64)
    if metric == "euclidean":
        return scores.from_squared_distance(found)
    return scores.from_cosine_distance(found) if metric == "cosine" else scores.from_dot(1.0 - found)
