"""How records are written where an engine offers less than we promise: one way for all databases.

- `record_key`, `record_uuid`: an id of fixed size and harmless characters, from the namespace and the id.
- `namespace_token`: the namespace as one more token among those of `polyvec.tokens`.
- `sortable_int`, `sortable_pair`: a companion's number as integers, for engines whose floats have 32 bits, or
  come back changed, and whose integers are exact.
- `split_lengths`, `join_lengths`: under cosine, vectors of length 1 and the lengths that they had.
- `packed_floats`: vectors as protobuf has them on the wire.

What these functions return is written to databases: it must never change.
"""

from __future__ import annotations

import uuid
from functools import lru_cache
from hashlib import blake2b
from struct import Struct
from typing import Final

import numpy as np
import numpy.typing as npt

from polyvec.scores import Floats
from polyvec.types import FloatArray, Metric

_IDS: Final = uuid.UUID("0d7e8a3c-52f1-5c46-9b1e-8f2a6c4d7b90")
_DOUBLE: Final = Struct("<d")
_INT64: Final = Struct("<q")
_LARGEST: Final = float(np.finfo(np.float32).max)
_MICROSECONDS: Final = 1_000_000


def record_key(namespace: str, id: str) -> bytes:
    """Return 16 bytes that no other record has."""
    # ids hold no NUL, so no two records share a message
    return blake2b(f"{namespace}\0{id}".encode(), digest_size=16).digest()


def record_uuid(namespace: str, id: str) -> str:
    """Return a UUID (version 5) that no other record has, for engines that take no other ids."""
    return str(uuid.uuid5(_IDS, f"{namespace}\0{id}"))


NO_RECORD_UUID: Final = str(uuid.uuid5(_IDS, ""))
"""The UUID of no record, since `record_uuid` always hashes a NUL."""


@lru_cache(maxsize=1024)
def namespace_token(namespace: str) -> str:
    """Return the token of a namespace's records, "s" and 32 hex digits; it equals no token of metadata."""
    return "s" + blake2b(namespace.encode(), digest_size=16).hexdigest()


def sortable_int(field: str, number: float) -> int:
    """Return the value of a companion as an int64 that orders as the values do.

    Args:
        field: `n_...` for a float64, `d_...` for microseconds.
        number: The value.

    Returns:
        Microseconds as they are. For a float64 its bits, which order as the numbers do once the sign is taken
        into account; 0 for 0.0 and -0.0.
    """
    if field.startswith("d_"):
        return int(number)
    magnitude: int
    [magnitude] = _INT64.unpack(_DOUBLE.pack(abs(number)))
    return magnitude if number >= 0 else -magnitude


def sortable_pair(field: str, number: float) -> tuple[int, int]:
    """Return the value of a companion as (high, low), both exact as float64; pairs order as the values do.

    Args:
        field: `n_...` for a float64, `d_...` for microseconds.
        number: The value.

    Returns:
        For microseconds, seconds and the rest. For a float64, the two halves of `sortable_int`; low is 0 for
        short ones such as 7 or 0.5.
    """
    return divmod(sortable_int(field, number), _MICROSECONDS if field.startswith("d_") else 2**32)


def split_lengths(vectors: FloatArray, metric: Metric) -> tuple[FloatArray, list[float] | None]:
    """Return vectors as engines can compare them and, under cosine, the lengths that they had.

    Engines that scale vectors to length 1 do it in float32, in which the squares of small and of large
    elements are 0 and infinite; and they keep no length to give the vector back with.

    Args:
        vectors: Shape (n, d), no zero rows under cosine.
        metric: The collection's.

    Returns:
        Shape (n, d), of length 1 to float32 under cosine, and n lengths; the same vectors and None otherwise.
    """
    if metric != "cosine":
        return vectors, None
    rows = vectors.astype(np.float64)
    lengths: Floats = np.linalg.norm(rows, axis=1)
    return (rows / lengths[:, None]).astype(np.float32), lengths.tolist()


def join_lengths(vectors: npt.ArrayLike, lengths: npt.ArrayLike) -> FloatArray:
    """Return vectors, shape (n, d), with these lengths, shape (n,), instead of length 1."""
    rows = np.asarray(vectors, np.float64) * np.asarray(lengths, np.float64)[:, None]
    # the largest float32 times its rounded length may be a little more than itself
    return np.clip(rows, -_LARGEST, _LARGEST, out=rows).astype(np.float32)


def packed_floats(vectors: FloatArray) -> bytes:
    """Return vectors, end to end, as a protobuf message with `repeated float` as its field 1.

    A packed field is its bytes in little-endian order behind a tag and a length
    (https://protobuf.dev/programming-guides/encoding/#packed); to give protobuf a list is many times slower.
    """
    packed = vectors.astype("<f4", copy=False).tobytes()
    return b"\x0a" + _varint(len(packed)) + packed


def _varint(number: int) -> bytes:
    found = bytearray()
    while number > 0x7F:  # noqa: PLR2004  # 7 bits in a byte
        found.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes((*found, number))
