"""From what `upsert` takes to checked batches of columns, cut by rows and by bytes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from polyvec.errors import DimensionMismatchError, InvalidInputError, shown
from polyvec.metadata import check_metadata, utf8_length
from polyvec.types import FloatArray, Metric, Record, RecordBatch

MAX_ID_BYTES: Final = 512
_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,128}")


@dataclass(frozen=True, slots=True)
class Limits:
    """What one batch may hold: `records` rows, and about `bytes_` bytes of vectors, texts and metadata."""

    records: int
    bytes_: int


def check_name(name: object, what: str) -> str:
    """Return the name of a collection or namespace, 1 to 128 of `[A-Za-z0-9_.-]`, or raise."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InvalidInputError(f"{what} must be 1 to 128 of A-Z a-z 0-9 _ . -, not {name!r:.200}")
    return name


def check_id(id: object) -> int:
    """Return the length of an id in UTF-8 bytes, 1 to 512, or raise InvalidInputError."""
    if type(id) is not str:
        raise InvalidInputError(f"an id must be a str, not {type(id).__name__} ({shown(id)})")
    length = utf8_length(id, f"the id {shown(id)}")
    if not 1 <= length <= MAX_ID_BYTES:
        raise InvalidInputError(
            f"an id must have 1 to {MAX_ID_BYTES} UTF-8 bytes, not {length} ({shown(id)})"
        )
    if "\0" in id:
        raise InvalidInputError(f"an id must not hold NUL ({shown(id)})")
    return length


def check_ids(ids: Sequence[str]) -> list[str]:
    """Return checked ids as a list, as given."""
    if isinstance(ids, str):
        raise InvalidInputError(f"ids must be a list of ids, not one str; write [{shown(ids)}]")
    if not isinstance(ids, Iterable):
        raise InvalidInputError(f"ids must be a list of ids, not {type(ids).__name__} ({shown(ids)})")
    listed = list(ids)
    for id in listed:
        check_id(id)
    return listed


def check_vectors(
    vectors: Any,
    dimension: int,
    metric: Metric,
    label: Callable[[int], str] = "vector {}".format,
) -> FloatArray:
    """Return vectors as a C-contiguous float32 array of shape (n, dimension).

    Args:
        vectors: Shape (n, dimension).
        dimension: Of the collection.
        metric: Of the collection; cosine has no use for a zero vector.
        label: What to call the vector of a row in an error.

    Raises:
        DimensionMismatchError: A vector has another length.
        InvalidInputError: Not numbers, NaN or infinite as float32, or zero under cosine.
    """
    array = _array(vectors)
    if array.ndim == 0:
        raise InvalidInputError(f"expected vectors, shape (n, {dimension}), not {shown(vectors)}")
    if len(vectors) == 0:
        return np.empty((0, dimension), np.float32)
    if array.shape != (len(vectors), dimension) or array.dtype.kind not in "fiu" or _mixed(vectors):
        rows = [_array(vector) for vector in vectors]
        for row, one in enumerate(rows):
            if one.shape != (dimension,):
                got = len(one) if one.ndim == 1 else f"shape {one.shape}"
                raise DimensionMismatchError(f"{label(row)}: expected {dimension} dimensions, got {got}")
        odd = next((row for row, one in enumerate(rows) if one.dtype.kind not in "fiu"), 0)
        raise InvalidInputError(f"{label(odd)}: expected numbers, not {rows[odd].dtype}")
    with np.errstate(over="ignore"):
        array = np.ascontiguousarray(array, np.float32)
    # a sum is finite only where all summands are: one pass without a temporary array
    with np.errstate(invalid="ignore"):
        suspicious = not np.isfinite(array.sum(dtype=np.float64))
    if suspicious:
        row = int(np.argmin(np.isfinite(array).all(axis=1)))
        raise InvalidInputError(f"{label(row)}: NaN or infinite as float32")
    if metric == "cosine" and not (nonzero := array.any(axis=1)).all():
        row = int(np.argmin(nonzero))
        raise InvalidInputError(f"{label(row)}: a zero vector has no direction, so no cosine")
    return array


def _mixed(vectors: Any) -> bool:
    """Return whether a vector among others is one of bools, which numpy would make numbers."""
    return not isinstance(vectors, np.ndarray) and any(
        isinstance(vector, list | tuple | np.ndarray)
        and isinstance(vector[0], bool | np.bool_)
        and _array(vector).dtype == bool
        for vector in vectors
    )


def _array(values: Any) -> npt.NDArray[Any]:
    try:
        return np.asarray(values)
    except (ValueError, TypeError):  # rows of different lengths
        return np.empty(len(values), object)


def check_batch(batch: RecordBatch, dimension: int, metric: Metric, limits: Limits) -> Iterator[RecordBatch]:
    """Check a batch of any size and yield it in parts within the limits, equal ids within a part joined."""
    for what in ("ids", "vectors", "texts", "metadatas"):
        column = getattr(batch, what)
        if what != "ids" and column is None:
            continue
        if isinstance(column, str | bytes | Mapping) or not hasattr(column, "__len__"):
            raise InvalidInputError(
                f"{what} must be a list, one for each record, not {type(column).__name__}"
            )
    count = len(batch.ids)
    texts: Sequence[str | None] = [None] * count if batch.texts is None else batch.texts
    metadatas: Sequence[Any] = [{}] * count if batch.metadatas is None else batch.metadatas
    if batch.vectors is None:
        raise InvalidInputError("a batch to write needs vectors")
    if not len(batch.vectors) == len(texts) == len(metadatas) == count:
        raise InvalidInputError(
            f"the columns differ in length: {count} ids, {len(batch.vectors)} vectors, {len(texts)} texts, "
            f"{len(metadatas)} metadatas"
        )
    if count == 0:
        return
    vectors = check_vectors(batch.vectors, dimension, metric, lambda row: f"record {shown(batch.ids[row])}")
    start, size = 0, 0
    for row in range(count):
        row_bytes = 4 * dimension + _check_row(batch.ids[row], texts[row], metadatas[row])
        if row > start and (row - start == limits.records or size + row_bytes > limits.bytes_):
            yield _part(batch.ids, vectors, texts, metadatas, start, row)
            start, size = row, 0
        size += row_bytes
    yield _part(batch.ids, vectors, texts, metadatas, start, count)


def _check_row(id: object, text: object, metadata: object) -> int:
    try:
        size = check_id(id) + check_metadata(metadata)
        if text is None:
            return size
        if type(text) is not str:
            what = f"text must be a str or None, not {type(text).__name__}"
            raise InvalidInputError(what)  # noqa: TRY301  # named like the errors above
        return size + utf8_length(text, "text")
    except InvalidInputError as error:
        raise InvalidInputError(f"record {shown(id)}: {error.message}") from None


def _part(
    ids: Sequence[str],
    vectors: FloatArray,
    texts: Sequence[str | None],
    metadatas: Sequence[Any],
    start: int,
    stop: int,
) -> RecordBatch:
    part = RecordBatch(
        list(ids[start:stop]), vectors[start:stop], list(texts[start:stop]), list(metadatas[start:stop])
    )
    last = {id: row for row, id in enumerate(part.ids)}  # the last of equal ids wins
    return part if len(last) == len(part) else take(part, sorted(last.values()))


def take(batch: RecordBatch, rows: Sequence[int]) -> RecordBatch:
    """Return some rows of a batch, in the given order."""
    return RecordBatch(
        [batch.ids[row] for row in rows],
        None if batch.vectors is None else batch.vectors[list(rows)],
        None if batch.texts is None else [batch.texts[row] for row in rows],
        None if batch.metadatas is None else [batch.metadatas[row] for row in rows],
    )


def batches(
    records: Record | RecordBatch | Iterable[Record | RecordBatch],
    dimension: int,
    metric: Metric,
    limits: Limits,
) -> Iterator[RecordBatch]:
    """Yield checked batches within the limits, reading no further ahead than one of them.

    Raises:
        InvalidInputError: Names the record and the rule it breaks. Batches yielded before are sound.
    """
    for batch in _columns(records, limits.records):
        yield from check_batch(batch, dimension, metric, limits)


def _columns(records: Any, size: int) -> Iterator[RecordBatch]:  # the caller's, unchecked
    if isinstance(records, RecordBatch):
        yield records
        return
    if isinstance(records, Record):
        records = [records]
    if isinstance(records, str | bytes | Mapping) or not isinstance(records, Iterable):
        raise InvalidInputError(f"expected records, not {type(records).__name__} ({shown(records)})")
    rows: list[Record] = []
    for item in records:
        if isinstance(item, RecordBatch):
            if rows:
                yield _gather(rows)
                rows = []
            yield item
        elif isinstance(item, Record):
            rows.append(item)
            if len(rows) == size:
                yield _gather(rows)
                rows = []
        else:
            raise InvalidInputError(
                f"expected Record or RecordBatch, not {type(item).__name__} ({shown(item)})"
            )
    if rows:
        yield _gather(rows)


def _gather(rows: list[Record]) -> RecordBatch:
    for row in rows:
        if row.vector is None:
            raise InvalidInputError(f"the record {shown(row.id)} has no vector")
    return RecordBatch(
        [row.id for row in rows],
        [row.vector for row in rows],  # type: ignore[arg-type]  # made an array by check_vectors
        [row.text for row in rows],
        [row.metadata for row in rows],
    )


def records_of(batch: RecordBatch) -> Iterator[Record]:
    """Yield the records of a batch that was read."""
    for row, id in enumerate(batch.ids):
        yield Record(
            id,
            batch.vectors[row] if batch.vectors is not None else None,
            batch.texts[row] if batch.texts is not None else None,
            batch.metadatas[row] if batch.metadatas is not None else {},
        )


def chunks(ids: Iterable[str], size: int) -> Iterator[list[str]]:
    """Yield lists of up to `size` ids."""
    iterator = iter(ids)
    while chunk := list(islice(iterator, size)):
        yield chunk
