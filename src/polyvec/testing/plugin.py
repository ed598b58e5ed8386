"""The pytest side of the contract: fixtures, the marker `requires`, known issues.

An adapter's tests need two files. `conftest.py`:

    import pytest, polyvec
    pytest_plugins = ["polyvec.testing.plugin"]

    @pytest.fixture(scope="session")
    def open_store():
        return lambda: polyvec.connect("foo://127.0.0.1:1234")

and `test_foo.py`:

    from polyvec.testing.contract import *  # noqa: F403

`open_store()` must give a new connection to the same, empty or shared, database each time. The tests make and
drop only collections named `polyvec_test_<hex>`.
"""

from __future__ import annotations

import uuid
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator
from dataclasses import fields
from typing import TypeAlias

import pytest

from polyvec.capabilities import Capabilities
from polyvec.protocol import Collection, VectorStore
from polyvec.testing import filter_cases
from polyvec.types import Record

OpenStore: TypeAlias = Callable[[], VectorStore]
MakeCollection: TypeAlias = Callable[..., Collection]


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker."""
    config.addinivalue_line(
        "markers",
        "requires(*capabilities): skip, with the reason, on a backend that lacks one of these capabilities",
    )


@pytest.fixture(scope="session")
def open_store() -> OpenStore:
    """Return a function that opens a new connection; to be overridden by the adapter's tests."""
    raise pytest.UsageError("define a session fixture open_store; see polyvec.testing.plugin")


@pytest.fixture(scope="session")
def store(open_store: OpenStore) -> Iterator[VectorStore]:
    """The store under test."""
    with open_store() as opened:
        yield opened


def test_name() -> str:
    """Return a new name for a collection of a test."""
    return f"polyvec_test_{uuid.uuid4().hex}"


test_name.__test__ = False  # type: ignore[attr-defined]  # a helper, whatever pytest thinks of its name


@pytest.fixture(autouse=True)
def check_requirements(request: pytest.FixtureRequest) -> None:
    """Skip a test marked `requires(...)` where the store lacks the capability, and say why."""
    marker = request.node.get_closest_marker("requires")
    if marker is None:
        return
    known = {field.name for field in fields(Capabilities)}
    store: VectorStore = request.getfixturevalue("store")
    for name in marker.args:
        if name not in known:
            raise pytest.UsageError(f"there is no capability {name!r}")
        if not getattr(store.capabilities, name):
            pytest.skip(f"{store.name}: {name}: {store.capabilities.reason(name)}")


@pytest.fixture(scope="session")
def collections_ahead() -> int:
    """How many collections of a kind are made ahead of need; to be overridden where they take long.

    Some servers need seconds until a new collection can be read; those made ahead are ready by then.
    """
    return 0


class Supply:
    """Makes collections of new names, those of a kind that is asked for again and again ahead of need."""

    def __init__(self, store: VectorStore, ahead: int) -> None:
        self._store = store
        self._ahead = ahead
        self._asked: Counter[str] = Counter()
        self._ready: dict[str, deque[Collection]] = defaultdict(deque)

    def take(self, *args: object, **options: object) -> Collection:
        """Return a collection that nobody has used."""
        kind = repr((args, sorted(options.items())))
        ready = self._ready[kind]
        taken = ready.popleft() if ready else self._make(*args, **options)
        while len(ready) < min(self._ahead, self._asked[kind]):
            ready.append(self._make(*args, **options))
        self._asked[kind] += 1
        return taken

    def _make(self, *args: object, **options: object) -> Collection:
        return self._store.create_collection(test_name(), *args, **options)  # type: ignore[arg-type]

    def drop(self) -> None:
        """Drop the collections that nobody has taken."""
        for ready in self._ready.values():
            for collection in ready:
                self._store.drop_collection(collection.name)


@pytest.fixture(scope="session")
def supply(store: VectorStore, collections_ahead: int) -> Iterator[Supply]:
    """Where new collections come from."""
    made = Supply(store, collections_ahead)
    yield made
    made.drop()


@pytest.fixture
def make_collection(store: VectorStore, supply: Supply) -> Iterator[MakeCollection]:
    """A function that gives an empty collection of a new name; all are dropped when the test ends."""
    made: list[str] = []

    def make(dimension: int | None = 4, metric: str = "cosine", **options: object) -> Collection:
        collection = supply.take(dimension, metric, **options)
        made.append(collection.name)
        return collection

    yield make
    for name in made:
        store.drop_collection(name, missing_ok=True)


@pytest.fixture
def collection(make_collection: MakeCollection) -> Collection:
    """An empty collection, 4 dimensions, cosine."""
    return make_collection()


@pytest.fixture(scope="session")
def matrix_records() -> list[Record]:
    """The records of the filter matrix; do not change them."""
    return [
        Record(f"m{index:03}", [1.0, index / 100, 0.5], f"text {index}", metadata)
        for index, metadata in enumerate(filter_cases.RECORD_METADATA)
    ]


@pytest.fixture(scope="session")
def matrix(store: VectorStore, matrix_records: list[Record]) -> Iterator[Collection]:
    """A collection with the records of the filter matrix; the tests only read it."""
    name = test_name()
    collection = store.create_collection(name, 3, "cosine")
    collection.upsert(matrix_records)
    yield collection
    store.drop_collection(name)


def known_issue(request: pytest.FixtureRequest, backend: str, url: str) -> None:
    """Mark the running test as one that must fail on a backend, with the vendor's link; strict."""
    store: VectorStore = request.getfixturevalue("store")
    if store.name == backend:
        request.applymarker(pytest.mark.xfail(reason=f"{backend}: {url}", strict=True))
