"""Names of native collections: a collection's own entry, and one collection for each of its namespaces.

Chroma takes 3 to 512 of `[a-zA-Z0-9._-]`, a letter or digit at both ends, no `..` and no IPv4 address
(https://docs.trychroma.com/docs/collections/manage-collections). Every name that fits stands for itself, so
that a collection which polyvec did not make is found in its place; every other one is encoded.
"""

from __future__ import annotations

import re
from base64 import b32encode
from typing import Final
from uuid import UUID

_PREFIX: Final = "polyvec-"
_FITTING: Final = re.compile(r"(?!.*\.\.)(?!\d+\.\d+\.\d+\.\d+$)[a-zA-Z0-9][a-zA-Z0-9._-]+[a-zA-Z0-9]")


def entry_name(collection: str) -> str:
    """Return the native name of a collection's entry; no two collections share one."""
    if _FITTING.fullmatch(collection) and not collection.startswith(_PREFIX):
        return collection
    return _PREFIX + _encode(collection)


def space_prefix(entry: UUID) -> str:
    """Return how the names of the native collections of all namespaces of an entry begin."""
    return f"{_PREFIX}{entry.hex}-"


def space_name(entry: UUID, namespace: str) -> str:
    """Return the native name of the collection that holds the records of a namespace.

    The id of the entry is new whenever a collection is created, so that no namespace of a dropped
    collection of the same name can be seen, whatever interrupted the drop.
    """
    return f"{space_prefix(entry)}n{_encode(namespace)}"


def _encode(text: str) -> str:
    # lower-case letters and digits only, 205 for 128
    return b32encode(text.encode()).decode().rstrip("=").lower()
