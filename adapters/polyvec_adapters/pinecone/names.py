"""Names and specs of collections, as names and tags of indexes.

Both rules: https://github.com/pinecone-io/pinecone-api/blob/main/2026-07/db_control_2026-07.oas.yaml
(`CreateIndexRequest.name`, `IndexTags`).
"""

from __future__ import annotations

import base64
import re
import zlib
from collections.abc import Mapping
from hashlib import blake2b
from typing import Final

from polyvec import spec
from polyvec.errors import UnsupportedOperationError
from polyvec.types import CollectionSpec

_PREFIX: Final = "polyvec-"
_PLAIN: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,43}[a-z0-9])?")
_TAG: Final = "polyvec_"
_TAGS: Final = 16
"""Of the 20 that the driver allows; the rest is the user's."""

_TAG_LENGTH: Final = 120


def native_name(name: str) -> str:
    """Return the name of a collection's index: its own where Pinecone takes it, else a hash."""
    if _PLAIN.fullmatch(name) and not name.startswith(_PREFIX):
        return name
    digest = blake2b(name.encode(), digest_size=15).digest()
    return _PREFIX + base64.b32encode(digest).decode().lower()


def spec_tags(spec_: CollectionSpec) -> dict[str, str]:
    """Return the tags that keep a spec.

    Raises:
        UnsupportedOperationError: It is too long.
    """
    text = base64.urlsafe_b64encode(zlib.compress(spec.to_json(spec_).encode(), 9)).decode().rstrip("=")
    parts = [text[start : start + _TAG_LENGTH] for start in range(0, len(text), _TAG_LENGTH)]
    if len(parts) > _TAGS:
        raise UnsupportedOperationError(
            f"what the collection is takes {len(parts)} tags of the index, at most {_TAGS} are kept for it; "
            "leave out `indexes`, which changes nothing on Pinecone"
        )
    return {f"{_TAG}{number}": part for number, part in enumerate(parts)}


def spec_of(tags: Mapping[str, str] | None) -> CollectionSpec | None:
    """Return the spec that the tags of an index keep; None where there is none."""
    found = tags or {}
    parts: list[str] = []
    while (part := found.get(f"{_TAG}{len(parts)}")) is not None:
        parts.append(part)
    if not parts:
        return None
    text = "".join(parts)
    packed = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    return spec.from_json(zlib.decompress(packed).decode())
