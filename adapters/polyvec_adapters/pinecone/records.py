"""Records as Pinecone's vectors, and those as records.

    id          the record's; where that is not ASCII, or begins with "~", a "~" and its hash
    values      the vector; under cosine with length 1
    metadata    {
                    "meta": "{...}",             the metadata as `polyvec.metadata` encodes it
                    "text": "...",               absent where the record has none; this and "meta" are
                                                 compressed where all would be more than 40 KB
                    "id": "é",                   the record's id, where it was hashed
                    "norm": 2.5,                 what the values are to be multiplied with, see `usable`
                    "tokens": ["*", ...],        what conditions look at; never empty
                    "n_3b7c...": 2024.0,         the companion of a number
                    "d_91aa...": 1714521600.0,   of a datetime: seconds, and
                    "e_91aa...": 250000.0        the microseconds of that second
                }

A number of the service's metadata is a float64, in which microseconds are exact only to the year 2255:
https://docs.pinecone.io/guides/index-data/indexing-overview#metadata.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import orjson
from pinecone import ScoredVector, Vector

from polyvec import metadata as metadata_codec
from polyvec.base import Fields
from polyvec.encoding import join_lengths, record_key, sortable_pair, split_lengths
from polyvec.errors import UnsupportedOperationError
from polyvec.tokens import record_companions, record_tokens
from polyvec.types import FloatArray, Metadata, Metric, RecordBatch

Found: TypeAlias = Vector | ScoredVector
Kept: TypeAlias = dict[str, Any]

META: Final = "meta"
TEXT: Final = "text"
ID: Final = "id"
NORM: Final = "norm"
TOKENS: Final = "tokens"
ANY: Final = "*"
"""The token of every record."""

HASHED: Final = "~"
DEFAULT_NAMESPACE: Final = "__default__"

MAX_METADATA_BYTES: Final = 40_960
"""40 KB: https://docs.pinecone.io/reference/api/database-limits/operation-limits."""

MAX_REQUEST_BYTES: Final = 1_950_000
"""Below the 2 MB of an upsert: https://docs.pinecone.io/reference/api/database-limits/operation-limits."""

_SMALLEST: Final = 1e-8
"""A vector whose elements are all smaller is refused as zero: the schema `Vector` of
https://github.com/pinecone-io/pinecone-api/blob/main/2026-07/db_data_2026-07.oas.yaml."""

_LIFTED: Final = 2e-8

_PACKED: Final = "\0zlib:"
"""How a compressed string begins; one of the user's that does so is compressed too."""


class Sized(NamedTuple):
    """A vector to send, and how long its JSON is at most."""

    vector: Vector
    length: int


def native_id(id: str) -> str:
    """Return the id of a record's vector; only ASCII is taken (`Vector.id`, see above)."""
    return id if id.isascii() and not id.startswith(HASHED) else HASHED + record_key("", id).hex()


def native_namespace(name: str) -> str:
    """Return a namespace's name in Pinecone, in which the default one has a name too."""
    return HASHED + name if name == DEFAULT_NAMESPACE else name


def is_date(field: str) -> bool:
    """Return whether a companion is of a datetime."""
    return field.startswith("d_")


def low(field: str) -> str:
    """Return the field of a datetime's microseconds, beside that of its seconds."""
    return f"e_{field.removeprefix('d_')}"


def pair(field: str, number: float) -> tuple[float, float]:
    """Return a datetime's seconds and the microseconds of that second."""
    seconds, rest = sortable_pair(field, number)
    return float(seconds), float(rest)


def filtered(metadata: Metadata) -> Kept:
    """Return the part of a vector's metadata that depends on the record's."""
    kept: Kept = {META: metadata_codec.encode(metadata)}
    companions = record_companions(metadata)
    for field, number in companions.items():
        if is_date(field):
            kept[field], kept[low(field)] = pair(field, number)
        else:
            kept[field] = float(number)
    # a number that an update could not remove has no token any more
    kept[TOKENS] = [ANY, *record_tokens(metadata), *companions]
    return kept


def usable(vectors: FloatArray, metric: Metric) -> tuple[FloatArray, list[float | None]]:
    """Return vectors that the service takes, and what each is to be multiplied with to be itself again.

    It refuses vectors of zeros and nearly so, which dot and euclidean have a use for. Such are enlarged to
    2e-8, which changes a score by no more than that times the length of the query.

    Args:
        vectors: Shape (n, d).
        metric: The collection's.

    Returns:
        Shape (n, d), and n factors: under cosine the lengths, else None where nothing was changed.
    """
    units, lengths = split_lengths(vectors, metric)
    if lengths is not None:
        return units, list(lengths)
    largest = np.abs(vectors).max(axis=1).astype(np.float64)
    small = np.flatnonzero(largest < _SMALLEST)
    factors: list[float | None] = [None] * len(vectors)
    if len(small):
        vectors = vectors.copy()
        for row in small:
            factors[row] = factor = float(largest[row]) / _LIFTED
            if factor:
                vectors[row] = (vectors[row].astype(np.float64) / factor).astype(np.float32)
            else:
                vectors[row, 0] = _LIFTED
    return vectors, factors


def encode(batch: RecordBatch, metric: Metric) -> tuple[list[Sized], dict[str, Exception]]:
    """Return the vectors of a batch, and the error of each record that is too large to be one."""
    assert batch.vectors is not None
    assert batch.texts is not None
    assert batch.metadatas is not None
    vectors, factors = usable(batch.vectors, metric)
    sized, refused = [], {}
    for row, (id, text, metadata) in enumerate(zip(batch.ids, batch.texts, batch.metadatas, strict=True)):
        kept = filtered(metadata)
        if text is not None:
            kept[TEXT] = pack(text)
        if (factor := factors[row]) is not None:
            kept[NORM] = factor
        name = native_id(id)
        if name != id:
            kept[ID] = id
        kept, size = fitting(kept)
        if size > MAX_METADATA_BYTES:
            refused[id] = _too_large(size)
            continue
        # numpy's float32 as its shortest decimals: half the bytes of the float64 that it becomes
        values = orjson.dumps(vectors[row], option=orjson.OPT_SERIALIZE_NUMPY)
        length = len(values) + size + 6 * len(name) + 40
        sized.append(Sized(Vector(name, orjson.loads(values), None, kept), length))
    return sized, refused


def fitting(kept: Kept) -> tuple[Kept, int]:
    """Return a vector's metadata, with its long strings packed if that is too much as it is, and its size."""
    size = len(orjson.dumps(kept))
    if size <= MAX_METADATA_BYTES:
        return kept, size
    packed = kept | {key: pack(kept[key], always=True) for key in (TEXT, META) if key in kept}
    return packed, len(orjson.dumps(packed))


def pack(text: str, *, always: bool = False) -> str:
    """Return a string as it is kept: itself, or compressed."""
    if not always and not text.startswith(_PACKED):
        return text
    return _PACKED + base64.b85encode(zlib.compress(text.encode(), 9)).decode()


def unpack(kept: str) -> str:
    """Return the string that `pack` was given."""
    if not kept.startswith(_PACKED):
        return kept
    return zlib.decompress(base64.b85decode(kept.removeprefix(_PACKED))).decode()


def _too_large(size: int) -> Exception:
    return UnsupportedOperationError(
        f"its text, its metadata and what filters need take {size} bytes, and Pinecone keeps at most "
        f"{MAX_METADATA_BYTES} of a record; split the text"
    )


def requests(sized: Iterable[Sized]) -> list[list[Vector]]:
    """Return vectors in parts that one request can take each."""
    parts: list[list[Vector]] = []
    room = 0
    for vector, length in sized:
        if length > room:
            parts.append([])
            room = MAX_REQUEST_BYTES
        parts[-1].append(vector)
        room -= length
    return parts


def queries(vectors: FloatArray, metric: Metric) -> tuple[list[list[float]], npt.NDArray[np.float64]]:
    """Return query vectors as the service takes them, and what their scores are to be multiplied with."""
    rows, factors = usable(vectors, metric)
    scale = [1.0 if metric != "dot" or factor is None else factor for factor in factors]
    return orjson.loads(orjson.dumps(rows, option=orjson.OPT_SERIALIZE_NUMPY)), np.array(scale)


def complete(vector: Found, fields: Fields) -> bool:
    """Return whether a vector that a query found has what a read asks for."""
    return vector.metadata is not None or not (any(fields) or vector.id.startswith(HASHED))


def record_id(vector: Found) -> str:
    """Return the id of a vector's record."""
    return str(vector.metadata[ID]) if vector.metadata and ID in vector.metadata else vector.id


def decode(found: Sequence[Found], fields: Fields, dimension: int) -> RecordBatch:
    """Return vectors as records."""
    kept = [vector.metadata or {} for vector in found]
    return RecordBatch(
        list(map(record_id, found)),
        _vectors(found, dimension) if fields.vectors else None,
        [unpack(item[TEXT]) if TEXT in item else None for item in kept] if fields.text else None,
        [metadata_codec.decode(unpack(item[META])) for item in kept] if fields.metadata else None,
    )


def _vectors(found: Sequence[Found], dimension: int) -> FloatArray:
    rows = np.array([vector.values for vector in found], np.float32).reshape(-1, dimension)
    return join_lengths(rows, [(vector.metadata or {}).get(NORM, 1.0) for vector in found])
