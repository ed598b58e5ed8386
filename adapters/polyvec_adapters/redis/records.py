"""Records as Redis hashes, and hashes as records.

The hash of a record, whatever its metadata, under the key `<prefix><namespace>:<id>`:

    vec     the vector as float32 in little-endian order; under cosine scaled to length 1
    norm    under cosine only: the length that the vector had
    text    absent where the record has none
    meta    the metadata as `polyvec.metadata` encodes it
    ns      tag: the namespace, hashed
    tok     tags: the tokens of `polyvec.tokens`
    pos     number: 48 bits of the key's hash, for `scan`
    n_...   number: the companion of a number
    d_...   number: the companion of a datetime, rounded to float64

A companion that float64 does not hold, or that the index has no field for, is among the tags of `tok` as well
or instead: see `ladder`. Tags are written in letters only, so that no query has anything to escape or to take
for a number.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, TypeAlias

import numpy as np

from polyvec import metadata as metadata_codec
from polyvec.base import Fields
from polyvec.encoding import join_lengths, namespace_token, record_key, split_lengths
from polyvec.tokens import record_companions, record_tokens
from polyvec.types import FloatArray, Metadata, Metric, RecordBatch
from polyvec_adapters.redis.ladder import rungs

Pairs: TypeAlias = list[str | bytes]
"""Names and values of a hash in turn, as HSET takes them."""

Row: TypeAlias = Mapping[bytes, bytes | None]
"""Names and values of a hash that was read; None, or left out, where it has no such field."""

VECTOR: Final = "vec"
SPACE: Final = "ns"
TOKENS: Final = "tok"
POSITION: Final = "pos"
_NORM: Final = "norm"
_TEXT: Final = "text"
_META: Final = "meta"

SET_METADATA: Final = f"""
local kept = {{'{VECTOR}', '{SPACE}', '{POSITION}', '{_TEXT}', '{_NORM}'}}
local values = redis.call('HMGET', KEYS[1], unpack(kept))
if not values[1] then return 0 end
local pairs = {{}}
for i, name in ipairs(kept) do
    if values[i] then
        pairs[#pairs + 1] = name
        pairs[#pairs + 1] = values[i]
    end
end
for i = 1, #ARGV do pairs[#pairs + 1] = ARGV[i] end
redis.call('DEL', KEYS[1])
for i = 1, #pairs, 1000 do
    redis.call('HSET', KEYS[1], unpack(pairs, i, math.min(i + 999, #pairs)))
end
return 1
"""
"""Replaces the `metadata_pairs` of a record, if there is one; numbers of keys that are gone must not stay.

Deleted and set, since the engine indexes a hash anew after each command that changes it. In parts, since a
Lua function takes 8,000 arguments.
"""

POSITIONS: Final = 2**48
EXACT: Final = 2**53
"""Below it, float64 holds every integer: microseconds for 285 years before and after 1970."""

_LETTERS: Final = str.maketrans("0123456789abcdef", "abcdefghijklmnop")


def letters(tokens: str) -> str:
    """Return tokens in hex digits as the tags that they are kept as; other characters stay."""
    return tokens.translate(_LETTERS)


def space_tag(namespace: str) -> str:
    """Return the tag of a namespace."""
    return letters(namespace_token(namespace))


def position(namespace: str, id: str) -> int:
    """Return where a scan meets a record, 0 to 2**48 - 1."""
    return int.from_bytes(record_key(namespace, id)[:6])


def rounded(field: str, number: float) -> bool:
    """Return whether this value of a companion may not be what the numeric field makes of it."""
    return field.startswith("d_") and abs(number) >= EXACT


def companions(metadata: Metadata) -> dict[str, float]:
    """Return the numbers that ranges compare, by field; microseconds exactly."""
    # a server of 8.0 to 8.4.2 dies of -0.0: https://github.com/RediSearch/RediSearch/pull/8382
    return {field: number + 0 for field, number in record_companions(metadata).items()}


def metadata_pairs(metadata: Metadata, numbers: Mapping[str, float], fields: frozenset[str]) -> Pairs:
    """Return the part of a hash that depends on the metadata.

    Args:
        metadata: Of a record.
        numbers: Its `companions`.
        fields: The numeric fields that the index has.
    """
    tokens = record_tokens(metadata)
    pairs: Pairs = [_META, metadata_codec.encode(metadata)]
    for field, number in numbers.items():
        if field in fields:
            pairs += [field, repr(float(number))]
        if field not in fields or rounded(field, number):
            tokens += rungs(field, number)
    return [*pairs, TOKENS, letters(",".join(tokens))]


def encode_vectors(vectors: FloatArray, metric: Metric) -> tuple[list[bytes], list[float] | None]:
    """Return the vectors to send and, under cosine, the lengths that they had."""
    rows, lengths = split_lengths(vectors, metric)
    return [row.tobytes() for row in rows.astype("<f4", copy=False)], lengths


def encode(
    batch: RecordBatch,
    namespace: str,
    metric: Metric,
    numbers: Sequence[Mapping[str, float]],
    fields: frozenset[str],
) -> Iterator[Pairs]:
    """Yield the hashes of a batch.

    Args:
        batch: The records.
        namespace: Theirs.
        metric: Of the collection.
        numbers: The `companions` of each.
        fields: The numeric fields that the index has.
    """
    assert batch.vectors is not None
    assert batch.texts is not None
    assert batch.metadatas is not None
    vectors, lengths = encode_vectors(batch.vectors, metric)
    tag = space_tag(namespace)
    for row, (id, text, metadata) in enumerate(zip(batch.ids, batch.texts, batch.metadatas, strict=True)):
        pairs: Pairs = [VECTOR, vectors[row], SPACE, tag, POSITION, str(position(namespace, id))]
        pairs += [_TEXT, text] if text is not None else []
        pairs += [_NORM, repr(lengths[row])] if lengths is not None else []
        yield pairs + metadata_pairs(metadata, numbers[row], fields)


def names(fields: Fields, metric: Metric) -> list[str]:
    """Return the fields of a hash that a read needs; the first is one that every record has."""
    found = [POSITION]
    found += [VECTOR] if fields.vectors else []
    found += [_NORM] if fields.vectors and metric == "cosine" else []
    found += [_TEXT] if fields.text else []
    found += [_META] if fields.metadata else []
    return found


def decode(
    ids: list[str], rows: Sequence[Row], fields: Fields, dimension: int, metric: Metric
) -> RecordBatch:
    """Return hashes as records."""
    return RecordBatch(
        ids,
        _vectors(rows, dimension, metric) if fields.vectors else None,
        [_text(row.get(_TEXT.encode())) for row in rows] if fields.text else None,
        [metadata_codec.decode(_present(row, _META).decode()) for row in rows] if fields.metadata else None,
    )


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode()


def _present(row: Row, name: str) -> bytes:
    value = row[name.encode()]
    assert value is not None
    return value


def _vectors(rows: Sequence[Row], dimension: int, metric: Metric) -> FloatArray:
    blob = b"".join(_present(row, VECTOR) for row in rows)
    found = np.frombuffer(blob, "<f4").reshape(len(rows), dimension).astype(np.float32)
    return join_lengths(found, [float(_present(row, _NORM)) for row in rows]) if metric == "cosine" else found
