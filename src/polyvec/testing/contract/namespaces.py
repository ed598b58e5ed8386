"""Namespaces: a scoped handle sees and touches nothing outside."""

from __future__ import annotations

from typing import Any

import pytest

from polyvec.errors import (
    InvalidInputError,
    RecordNotFoundError,
)
from polyvec.filters import F
from polyvec.protocol import Collection, VectorStore
from polyvec.testing.compare import (
    assert_holds,
)
from polyvec.testing.contract.common import A, B
from polyvec.testing.plugin import OpenStore
from polyvec.types import Record


class TestNamespaces:
    """A scoped handle never sees or touches anything outside its namespace."""

    @pytest.fixture
    def handles(self, collection: Collection) -> dict[str, Collection]:
        names = ("", "a", "A", "b", "a.b", "a-b", "a_b", ".", "..", "x" * 128)
        return {name: collection.scoped(name) if name else collection for name in names}

    @pytest.fixture
    def written(self, handles: dict[str, Collection]) -> dict[str, list[Record]]:
        written = {
            name: [
                Record("same", A, f"text of {name}", {"space": name, "n": 1}),
                Record(f"only-{number}", [1, number, 0, 0], None, {"n": number}),
            ]
            for number, name in enumerate(handles)
        }
        for name, handle in handles.items():
            handle.upsert(written[name])
        return written

    def _unchanged(
        self, handles: dict[str, Collection], written: dict[str, list[Record]], but: str = "none"
    ) -> None:
        for name, handle in handles.items():
            if name != but:
                assert_holds(handle, written[name])

    def test_the_same_id_lives_in_many(
        self, handles: dict[str, Collection], written: dict[str, list[Record]]
    ) -> None:
        self._unchanged(handles, written)
        for name, handle in handles.items():
            assert handle.namespace == name
            assert {match.id for match in handle.query(A, limit=100)} == {
                record.id for record in written[name]
            }
            assert handle.query(A, filter=F("space") == name)[0].text == f"text of {name}"
            assert handle.count(F("space").exists()) == 1
            assert handle.query(A, filter=F("space").exists() & (F("space") != name)) == []
            assert [record.id for record in handle.scan(F("space") == name)] == ["same"]
            other = next(iter(set(written) - {name}))
            assert handle.get([written[other][1].id]) == [None]
            assert [match.id for match in handle.query_by_id("same", limit=9)] == [written[name][1].id]

    def test_no_filter_reaches_outside(
        self, handles: dict[str, Collection], written: dict[str, list[Record]]
    ) -> None:
        for name in ("", "a"):
            for filter in (
                ~(F("space") == name),
                (F("space") == "b") | (F("space") == "A") | (F("n") >= 0),
                "not nothing exists or true",
                ~((F("n") == 1) & (F("n") == 2)),
            ):
                assert handles[name].count(filter) <= 2
                assert {record.id for record in handles[name].scan(filter)} <= {r.id for r in written[name]}
                assert {m.id for m in handles[name].query(A, limit=50, filter=filter)} <= {
                    record.id for record in written[name]
                }

    @pytest.mark.parametrize("name", ["", "a", ".."])
    def test_writes_and_deletes_stay_inside(
        self, handles: dict[str, Collection], written: dict[str, list[Record]], name: str
    ) -> None:
        handle = handles[name]
        handle.upsert(Record("same", B, "changed", {"n": 9}))
        self._unchanged(handles, written, but=name)
        assert handle.update_metadata(filter=F("n").exists(), set={"n": -1}) == 2
        self._unchanged(handles, written, but=name)
        handle.delete(
            [record.id for records in written.values() for record in records if record.id != "same"]
        )
        self._unchanged(handles, written, but=name)
        assert handle.count() == 1
        handle.delete(filter=F("n") == -1)
        self._unchanged(handles, written, but=name)
        assert handle.count() == 0
        handle.upsert(written[name])
        handle.clear()
        self._unchanged(handles, written, but=name)
        assert_holds(handle, [])

    def test_a_namespace_nobody_wrote_to_is_empty(self, collection: Collection) -> None:
        empty = collection.scoped("nobody")
        assert empty.count() == 0
        assert empty.count(F("n") == 1) == 0
        assert empty.get(["a"]) == [None]
        assert list(empty.scan()) == []
        assert empty.query(A) == []
        assert empty.query_many([A, B]) == [[], []]
        empty.delete(["a"])
        empty.delete(filter=F("n") == 1)
        assert empty.update_metadata(["a"], set={"n": 1}) == 0
        empty.clear()
        empty.flush()
        with pytest.raises(RecordNotFoundError):
            empty.query_by_id("a")

    def test_another_connection_sees_the_same_namespaces(
        self, open_store: OpenStore, collection: Collection
    ) -> None:
        collection.scoped("a").upsert(Record("x", A))
        with open_store() as other:
            again = other.collection(collection.name)
            assert again.count() == 0
            assert again.scoped("a").count() == 1
            again.scoped("a").upsert(Record("y", B))
        assert collection.scoped("a").count() == 2

    @pytest.mark.parametrize("name", ["", "a/b", "x" * 129, "한", 7, None, "a\0"])
    def test_wrong_names_are_refused(self, collection: Collection, name: Any) -> None:
        with pytest.raises(InvalidInputError, match="namespace"):
            collection.scoped(name)

    def test_a_scoped_handle_cannot_be_scoped_again(self, collection: Collection) -> None:
        with pytest.raises(InvalidInputError, match="confined"):
            collection.scoped("a").scoped("b")

    def test_namespaces_are_no_collections(self, store: VectorStore, collection: Collection) -> None:
        before = store.list_collections()
        collection.scoped("a").upsert(Record("x", A))
        assert store.list_collections() == before
