from __future__ import annotations

import itertools
import re
from uuid import UUID

import pytest

from polyvec_adapters.chroma.names import entry_name, space_name, space_prefix

ENTRY, OTHER = UUID(int=1), UUID(int=2)
NATIVE = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9._-]{1,510}[a-zA-Z0-9]")
SHORT = ["".join(part) for length in (1, 2, 3) for part in itertools.product("aA1._-", repeat=length)]
LONG = [
    "x" * 128,
    "." * 128,
    "_" * 128,
    "x" * 127 + ".",
    "1.2.3.4",
    "255.255.255.255",
    "1.2.3.4.5",
    "polyvec-",
]


def is_native(name: str) -> bool:
    return bool(NATIVE.fullmatch(name)) and ".." not in name and not re.fullmatch(r"(\d+\.){3}\d+", name)


def test_every_name_becomes_a_native_one_of_its_own() -> None:
    names = [*SHORT, *LONG, *map(entry_name, SHORT), *map(entry_name, LONG)]
    names = list(dict.fromkeys(name for name in names if len(name) <= 128))
    natives = [entry_name(name) for name in names]
    assert all(map(is_native, natives))
    assert len(set(natives)) == len(names)


@pytest.mark.parametrize("name", ["docs", "Docs", "a.b-c_d", "x" * 128, "111", "1.2.3", "1.2.3.4.5"])
def test_what_fits_stands_for_itself(name: str) -> None:
    assert entry_name(name) == name


@pytest.mark.parametrize("name", ["a", "ab", ".ab", "ab.", "a..b", "_ab", "1.2.3.4", "polyvec-x", "..", "-"])
def test_what_does_not_fit_is_encoded(name: str) -> None:
    assert entry_name(name).startswith("polyvec-")


def test_every_namespace_has_a_native_name_of_its_own() -> None:
    natives = [space_name(entry, name) for entry in (ENTRY, OTHER) for name in ("", *SHORT, *LONG)]
    assert all(map(is_native, natives))
    assert len(set(natives)) == len(natives)
    assert all(name.startswith(space_prefix(ENTRY)) for name in natives[: len(natives) // 2])
    assert not any(name.startswith(space_prefix(ENTRY)) for name in natives[len(natives) // 2 :])


def test_no_collection_has_the_native_name_of_a_namespace() -> None:
    name = space_name(ENTRY, "tenant")
    assert entry_name(name) != name
    assert not entry_name(name).startswith(space_prefix(ENTRY))
