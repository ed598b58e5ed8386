"""Metadata: which values are allowed, and how they are kept as one string without losing anything.

Databases change what they store: ints become floats, an empty list or a None vanishes, a date becomes
a string, a float loses its last digit. So every adapter keeps the metadata of a record as one JSON
string (`encode`), reads that back (`decode`), and lets the engine see derived values only, for filters
(`polyvec.tokens`).
"""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime, timedelta
from typing import Any

from polyvec.errors import InvalidInputError, shown
from polyvec.types import Metadata

MAX_KEY_BYTES = 128
MAX_DEPTH = 100
INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_DATETIME_TAG = "$datetime"


def microseconds(value: datetime) -> int:
    """Return the instant as microseconds since 1970-01-01 UTC; exact for every aware datetime."""
    return (value - EPOCH) // _MICROSECOND


def utf8_length(text: str, what: str) -> int:
    """Return the number of UTF-8 bytes of `text`.

    Raises:
        InvalidInputError: It holds a lone surrogate, which no database can keep.
    """
    if text.isascii():
        return len(text)
    try:
        return len(text.encode())
    except UnicodeEncodeError as error:
        raise InvalidInputError(
            f"{what} holds a lone surrogate ({text[error.start]!r} at position {error.start}); "
            "repair it with text.encode('utf-8', 'replace').decode()"
        ) from None


def check_key(key: object, what: str = "metadata key") -> int:
    """Return the UTF-8 length of a metadata key, 1 to 128 bytes, or raise InvalidInputError."""
    if type(key) is not str:
        raise InvalidInputError(f"{what} must be a str, not {type(key).__name__} ({shown(key)})")
    length = utf8_length(key, what)
    if not 1 <= length <= MAX_KEY_BYTES:
        raise InvalidInputError(f"{what} must have 1 to {MAX_KEY_BYTES} UTF-8 bytes, not {length}")
    return length


def check_metadata(metadata: object) -> int:
    """Check a record's metadata and return the rough size of its JSON in bytes.

    Raises:
        InvalidInputError: Names the key and what is wrong with its value.
    """
    if type(metadata) is not dict:
        raise InvalidInputError(f"metadata must be a dict, not {type(metadata).__name__}")
    size = 2
    for key, value in metadata.items():
        size += 4 + check_key(key) + check_value(value, key, 1)
    return size


def check_value(value: object, path: str, depth: int = 1) -> int:
    """Check one metadata value and return the rough size of its JSON in bytes.

    Only the exact types of the contract pass: a subclass (an Enum, a numpy scalar) would come back
    as something else.

    Raises:
        InvalidInputError: Names `path`, the key it stands at, and what is wrong.
    """
    match value:
        case None | bool():
            return 5
        case _ if type(value) is str:
            return utf8_length(value, f"metadata[{path!r}]") + 2
        case _ if type(value) is int:
            if not INT64_MIN <= value <= INT64_MAX:
                raise InvalidInputError(f"metadata[{path!r}] = {shown(value)} does not fit in an int64")
            return 8
        case _ if type(value) is float:
            if not math.isfinite(value):
                raise InvalidInputError(f"metadata[{path!r}] is {value}; a float must be finite")
            return 16
        case _ if type(value) is datetime:
            if value.utcoffset() is None:
                raise InvalidInputError(
                    f"metadata[{path!r}] is a datetime without a time zone ({value.isoformat()}); "
                    "add one, e.g. value.replace(tzinfo=datetime.UTC)"
                )
            return 48
        case _ if depth > MAX_DEPTH:
            raise InvalidInputError(f"metadata[{path!r}] is nested more than {MAX_DEPTH} deep")
        case _ if type(value) is list:
            return 2 + sum(1 + check_value(item, path, depth + 1) for item in value)
        case _ if type(value) is dict:
            return 2 + sum(
                3 + _nested_key(key, path) + check_value(item, path, depth + 1) for key, item in value.items()
            )
    kind = f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
    hint = "; call .item() on it" if kind.startswith("numpy.") else ""
    raise InvalidInputError(
        f"metadata[{path!r}] is a {kind}; allowed are None, bool, int, float, str, "
        f"timezone-aware datetime, and lists and dicts of these{hint}"
    )


def _nested_key(key: object, path: str) -> int:
    if type(key) is not str:
        raise InvalidInputError(f"metadata[{path!r}] holds a dict key that is not a str: {shown(key)}")
    return utf8_length(key, f"a key in metadata[{path!r}]")


def encode(metadata: Metadata) -> str:
    """Return checked metadata as a JSON string from which `decode` gives back the same values.

    A datetime becomes `{"$datetime": "2024-05-01T12:00:00+09:00"}`; a dict of the user's with a single
    key that begins with `$` gets one more `$`, so the two are never confused.
    """
    return _encode(_escape(metadata) if _needs_escape(metadata) else metadata)


def decode(blob: str) -> dict[str, Any]:
    """Return the metadata that `encode` made `blob` from."""
    return json.loads(blob, object_hook=_untag if '"$' in blob else None)  # type: ignore[no-any-return]


def _tag(value: object) -> dict[str, str]:
    if isinstance(value, datetime):
        return {_DATETIME_TAG: value.isoformat()}
    raise TypeError(type(value))


def _untag(value: dict[str, Any]) -> Any:  # a JSON value
    if len(value) == 1:
        [(key, inner)] = value.items()
        if key == _DATETIME_TAG:
            return datetime.fromisoformat(inner)
        if key.startswith("$$"):
            return {key[1:]: inner}
    return value


_encode = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, separators=(",", ":"), check_circular=False, default=_tag
).encode


def _needs_escape(metadata: Metadata) -> bool:
    return (len(metadata) == 1 and next(iter(metadata)).startswith("$")) or any(
        type(value) in (list, dict) for value in metadata.values()
    )


def _escape(value: Any) -> Any:  # a JSON value
    if type(value) is list:
        return [_escape(item) for item in value]
    if isinstance(value, dict):
        escaped = {key: _escape(item) for key, item in value.items()}
        if len(escaped) == 1:
            [(key, inner)] = escaped.items()
            if key.startswith("$"):
                return {f"${key}": inner}
        return escaped
    return value
