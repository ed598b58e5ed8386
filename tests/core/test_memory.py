"""The memory store: the reference for everything else, so it must not be changed behind its back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from polyvec import (
    CollectionNotFoundError,
    F,
    FlatIndex,
    HnswIndex,
    Record,
    RecordBatch,
    UnsupportedOperationError,
    connect,
)
from polyvec.base import Fields
from polyvec_adapters.memory.store import MemoryCollection, MemoryStore, Space, Table


@pytest.fixture
def docs() -> MemoryCollection:
    made = connect("memory://").create_collection("docs", 2)
    assert isinstance(made, MemoryCollection)
    return made


def test_what_was_written_cannot_be_changed_from_outside(docs: MemoryCollection) -> None:
    vectors = np.array([[1.0, 0.0]], np.float32)
    metadata: dict[str, Any] = {"k": [1]}
    docs.upsert(RecordBatch(["a"], vectors, ["t"], [metadata]))
    vectors[0, 0] = 9
    metadata["k"].append(2)
    expected = Record("a", [1.0, 0.0], "t", {"k": [1]})
    for _ in range(2):
        [found] = docs.get(["a"])
        assert found is not None
        assert found == expected
        found.metadata["k"].append(3)
        found.vector[0] = 5  # type: ignore[index]
        next(docs.scan()).metadata["k"].append(3)
        docs.query([1, 0])[0].metadata["k"].append(3)
        docs.query([1, 0], include_vectors=True)[0].vector[0] = 7  # type: ignore[index]


def test_upsert_is_replace(docs: MemoryCollection) -> None:
    docs.upsert(Record("a", [1, 0], "old", {"old": 1}))
    docs.upsert(Record("a", [0, 1], None, {"new": 1}))
    assert docs.get(["a"]) == [Record("a", [0, 1], None, {"new": 1})]
    assert docs.count() == 1


@pytest.mark.parametrize("metric", ["cosine", "dot", "euclidean"])
def test_scores(metric: Any) -> None:
    docs = connect("memory://").create_collection("docs", 2, metric)
    docs.upsert([Record("a", [3, 4]), Record("b", [-3, 4]), Record("c", [0, 1])])
    expected = {
        "cosine": [("a", 1.0), ("c", 0.8), ("b", 0.28)],
        "dot": [("a", 25.0), ("b", 7.0), ("c", 4.0)],
        "euclidean": [("a", 0.0), ("c", -(18**0.5)), ("b", -6.0)],
    }[metric]
    found = [(match.id, match.score) for match in docs.query([3, 4])]
    assert [id for id, _ in found] == [id for id, _ in expected]
    assert [score for _, score in found] == pytest.approx([score for _, score in expected])


def test_a_filtered_query_returns_as_many_as_match(docs: MemoryCollection) -> None:
    docs.upsert([Record(f"{i}", [1, i], metadata={"k": i % 10}) for i in range(100)])
    assert len(docs.query([1, 0], limit=10, filter=F("k") == 3)) == 10
    assert docs.query([1, 0], filter=F("k") == 11) == []
    assert connect("memory://").create_collection("empty", 2).query([1, 0]) == []


def test_a_scan_is_not_disturbed_by_writes(docs: MemoryCollection) -> None:
    docs.upsert([Record(f"{i}", [1, i]) for i in range(10)])
    seen = []
    for record in docs.scan(batch_size=2):
        seen.append(record.id)
        docs.delete([record.id])
        docs.upsert(Record(f"new {record.id}", [1, 1]))
    assert seen == [f"{i}" for i in range(10)]


def test_a_handle_of_a_dropped_collection(docs: MemoryCollection) -> None:
    docs.store.drop_collection("docs")
    for call in (
        docs.count,
        docs.clear,
        lambda: docs.query([1, 0]),
        lambda: docs.upsert(Record("a", [1, 0])),
    ):
        with pytest.raises(CollectionNotFoundError, match=r"^memory: \w+\('docs'\): it was dropped$"):
            call()


def test_indexes() -> None:
    store = connect("memory://")
    store.create_collection("flat", 2, index=FlatIndex())
    with pytest.raises(UnsupportedOperationError, match="HnswIndex: the memory store is exact"):
        store.create_collection("graph", 2, index=HnswIndex())


def test_a_read_never_undoes_a_write(docs: MemoryCollection, monkeypatch: pytest.MonkeyPatch) -> None:
    """A read of a namespace that is empty yet must not put an empty one in place of what is just written."""
    table = docs.store.tables["docs"]

    class Spaces(dict[str, Space]):
        def __missing__(self, name: str) -> Space:
            raise AssertionError("a read made a namespace")

    monkeypatch.setattr(table, "spaces", Spaces())
    assert docs.count() == 0
    assert docs.query([1, 0]) == []
    assert docs.scoped("a").get(["a"]) == [None]
    docs.scoped("a").upsert(Record("a", [1, 0]))
    assert docs.scoped("a").count() == 1
    assert isinstance(table, Table)


def test_a_change_reads_and_writes_under_one_lock(
    docs: MemoryCollection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else two writers at once would lose the writes of one of them."""
    docs.upsert([Record(id, [1, 0], metadata={"k": id}) for id in "abcd"])
    log: list[str] = []

    class Lock:
        def __enter__(self) -> None:
            log.append("lock")

        def __exit__(self, *_: object) -> None:
            log.append("unlock")

    class Spaces(dict[str, Space]):
        def get(self, name: str, default: Any = None) -> Any:
            log.append("read")
            return super().get(name, default)

        def __setitem__(self, name: str, space: Space) -> None:
            log.append("write")
            super().__setitem__(name, space)

    table = docs.store.tables["docs"]
    monkeypatch.setattr(table, "spaces", Spaces(table.spaces))
    monkeypatch.setattr(MemoryStore, "lock", Lock())
    batch = RecordBatch(["e"], np.ones((1, 2), np.float32), [None], [{}])
    changes: list[Callable[[], object]] = [
        lambda: docs._do_upsert(batch, wait=True),
        lambda: docs._do_set_metadata(["a"], [{}]),
        lambda: docs._do_delete(["a"]),
        lambda: docs._do_delete_where(F("k") == "b"),
    ]
    for change in changes:
        log.clear()
        change()
        assert (log[0], log[-1]) == ("lock", "unlock"), "nothing is read before or written after"
        assert log.count("write") == 1
        assert log.index("read") < log.index("write")
    assert {record.id for record in docs.scan()} == {"c", "d", "e"}


def test_two_connections_to_one_name_share_the_lock() -> None:
    one, two = connect("memory://core-memory"), connect("memory://core-memory")
    assert isinstance(one, MemoryStore)
    assert isinstance(two, MemoryStore)
    assert one.tables is two.tables
    assert one.lock is two.lock


def test_replacing_metadata_of_a_record_that_is_gone(docs: MemoryCollection) -> None:
    """It was deleted between the read and the write of an update."""
    docs.upsert(Record("a", [1, 0]))
    docs._do_set_metadata(["gone", "a"], [{"k": 1}, {"k": 2}])
    assert [(record.id, record.metadata) for record in docs.scan()] == [("a", {"k": 2})]


def test_a_hook_returns_no_more_than_it_was_asked_for(docs: MemoryCollection) -> None:
    """The base class asks for one more than its caller, so only a hook shows it."""
    docs.upsert([Record(f"{i}", [1, i]) for i in range(5)])
    fields = Fields(vectors=False, text=False, metadata=False)
    vectors = np.array([[1, 0], [0, 1]], np.float32)
    first, second = docs._do_query(vectors, limit=3, filter=None, exact=True, fields=fields)
    assert (first.records.ids, second.records.ids) == (["0", "1", "2"], ["4", "3", "2"])
    page, cursor = docs._do_scan(None, fields, limit=3, cursor=None)
    rest, end = docs._do_scan(None, fields, limit=3, cursor=cursor)
    assert (page.ids, rest.ids, end) == (["0", "1", "2"], ["3", "4"], None)


def test_opening_and_closing() -> None:
    store = connect("memory://?timeout_s=3")
    assert isinstance(store, MemoryStore)
    assert store.retry.budget_s == 3, "a call with its retries takes no longer than its timeout"
    store.create_collection("docs", 2)
    store.close()
    assert store.native == {}, "the memory is free again"


def test_explain(docs: MemoryCollection) -> None:
    found = docs.explain(F("k") == 1, limit=3)
    assert (found.backend, found.filter, found.notes) == (
        "memory",
        "k == 1",
        ("Compares with every record.",),
    )
