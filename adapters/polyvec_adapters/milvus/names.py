"""What polyvec keeps in a collection's description: its name, which Milvus may not take, and its spec."""

from __future__ import annotations

import re
from hashlib import blake2b
from typing import Final

from pymilvus.grpc_gen import milvus_pb2 as messages

SPEC_PREFIX: Final = "polyvec "
"""What the description of a collection begins with; its spec follows."""

SPEC_PROPERTY: Final = "polyvec"
"""Key of the spec in a collection's properties, where Milvus Lite keeps it: it keeps no description."""

_HASHED: Final = "pv_"


def spec_text(answer: messages.DescribeCollectionResponse) -> str | None:
    """Return the spec that a collection was created with; None if polyvec did not create it."""
    for pair in answer.properties:
        if pair.key == SPEC_PROPERTY:
            return str(pair.value)
    text: str = answer.schema.description
    return text.removeprefix(SPEC_PREFIX) if text.startswith(SPEC_PREFIX) else None


def native_name(name: str) -> str:
    """Return a collection's name in Milvus: itself, or a hash where Milvus does not take it.

    Letters, digits and underscores, no digit first (https://milvus.io/docs/v2.3.x/limitations.md).
    """
    if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) and not name.startswith(_HASHED):
        return name
    legible = re.sub(r"[^A-Za-z0-9_]", "_", name)
    return f"{_HASHED}{blake2b(name.encode(), digest_size=16).hexdigest()}_{legible}"


def public_name(native: str, name: str) -> str:
    """Return the name of a collection from its name in Milvus, and the one it was created with."""
    return name if native.startswith(_HASHED) else native
