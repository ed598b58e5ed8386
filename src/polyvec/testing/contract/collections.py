"""Collections: made, opened, listed and dropped, and kept in the database."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest

from polyvec.errors import (
    CollectionExistsError,
    CollectionNotFoundError,
    InvalidInputError,
    SpecMismatchError,
    UnsupportedOperationError,
)
from polyvec.filters import F, matches
from polyvec.protocol import Collection, VectorStore
from polyvec.testing import data
from polyvec.testing.compare import (
    assert_holds,
)
from polyvec.testing.contract.common import SPACE, A, B, C
from polyvec.testing.plugin import MakeCollection, OpenStore, test_name
from polyvec.types import METRICS, EmbeddingSpace, FlatIndex, HnswIndex, Metric, Record


class TestCollections:
    """Collections are kept in the database, with all that is needed to open them again."""

    def test_a_created_collection_is_empty_and_listed(
        self, store: VectorStore, collection: Collection
    ) -> None:
        assert collection.count() == 0
        assert list(collection.scan()) == []
        assert collection.query(A) == []
        assert collection.name in store.list_collections()
        assert store.list_collections() == sorted(store.list_collections())

    @pytest.mark.parametrize("metric", METRICS)
    def test_the_spec_is_read_back_by_another_connection(
        self, open_store: OpenStore, make_collection: MakeCollection, metric: Metric
    ) -> None:
        created = make_collection(
            4, metric, embedding=SPACE, indexes={"year": int, "lang": str, "at": datetime, "x.y": float}
        )
        with open_store() as other:
            info = other.collection(created.name).info
        assert info == created.info
        assert (info.name, info.dimension, info.metric) == (created.name, 4, metric)
        assert info.embedding == SPACE
        assert info.indexes == {"year": "int", "lang": "str", "at": "datetime", "x.y": "float"}
        assert info.index is None
        assert info.format_version == 1

    def test_records_are_read_by_another_connection(
        self, open_store: OpenStore, collection: Collection
    ) -> None:
        written = [Record("a", A, "text", {"n": 1}), Record("b", B)]
        collection.upsert(written)
        with open_store() as other:
            again = other.collection(collection.name)
            assert_holds(again, written)
            assert [match.id for match in again.query(A, limit=1)] == ["a"]

    def test_the_dimension_may_come_from_the_embedding_space(self, make_collection: MakeCollection) -> None:
        assert make_collection(None, embedding=SPACE).info.dimension == 4

    def test_creating_what_exists_raises(self, store: VectorStore, collection: Collection) -> None:
        with pytest.raises(CollectionExistsError, match="exist_ok"):
            store.create_collection(collection.name, 4)

    def test_exist_ok_opens_what_exists(self, store: VectorStore, collection: Collection) -> None:
        collection.upsert(Record("a", A))
        again = store.create_collection(collection.name, 4, "cosine", exist_ok=True)
        assert again.count() == 1
        assert again.info == collection.info

    @pytest.mark.parametrize(
        ("change", "both"),
        [
            ({"dimension": 5}, ("4", "5")),
            ({"metric": "dot"}, ("cosine", "dot")),
            ({"embedding": EmbeddingSpace("test", "model-2", 4)}, ("model-1", "model-2")),
            ({"indexes": {"year": str}}, ("int", "str")),
        ],
    )
    def test_exist_ok_with_another_spec_names_both_sides(
        self,
        store: VectorStore,
        make_collection: MakeCollection,
        change: dict[str, Any],
        both: tuple[str, str],
    ) -> None:
        name = make_collection(embedding=SPACE, indexes={"year": int}).name
        asked: dict[str, Any] = {"dimension": 4, "metric": "cosine"} | change
        with pytest.raises(SpecMismatchError, match=f"(?s){both[0]}.*{both[1]}"):
            store.create_collection(name, exist_ok=True, **asked)

    def test_opening_what_is_missing_raises(self, store: VectorStore, collection: Collection) -> None:
        with pytest.raises(CollectionNotFoundError, match=f"did you mean '{collection.name}'"):
            store.collection(collection.name + "x")

    def test_dropping(self, store: VectorStore, make_collection: MakeCollection) -> None:
        name = make_collection().name
        store.drop_collection(name)
        assert name not in store.list_collections()
        with pytest.raises(CollectionNotFoundError):
            store.collection(name)
        with pytest.raises(CollectionNotFoundError):
            store.drop_collection(name)
        store.drop_collection(name, missing_ok=True)

    def test_a_dropped_collection_comes_back_empty(
        self, store: VectorStore, make_collection: MakeCollection
    ) -> None:
        old = make_collection()
        old.upsert([Record("a", A, "old", {"n": 1}), Record("b", B)])
        old.scoped("tenant").upsert(Record("c", C))
        store.drop_collection(old.name)
        new = store.create_collection(old.name, 3, "dot")
        assert new.count() == 0
        assert new.scoped("tenant").count() == 0
        new.upsert(Record("a", [1, 2, 3]))
        assert_holds(new, [Record("a", [1, 2, 3])])

    @pytest.mark.parametrize(
        "call",
        [
            lambda c: c.upsert(Record("a", A)),
            lambda c: c.get(["a"]),
            lambda c: c.query(A),
            lambda c: c.count(),
            lambda c: c.count(F("n") == 1),
            lambda c: list(c.scan()),
            lambda c: c.delete(["a"]),
            lambda c: c.delete(filter=F("n") == 1),
            lambda c: c.clear(),
            lambda c: c.update_metadata(["a"], set={"n": 1}),
        ],
        ids=[
            "upsert",
            "get",
            "query",
            "count",
            "count-filter",
            "scan",
            "delete",
            "delete-filter",
            "clear",
            "update",
        ],
    )
    def test_a_handle_of_a_dropped_collection_says_so(
        self, store: VectorStore, collection: Collection, call: Any
    ) -> None:
        collection.upsert(Record("a", A))
        store.drop_collection(collection.name)
        with pytest.raises(CollectionNotFoundError) as caught:
            call(collection)
        assert caught.value.collection == collection.name
        assert caught.value.backend == store.name

    def test_names_are_case_sensitive_and_unrestricted(self, store: VectorStore) -> None:
        hexes = test_name().removeprefix("polyvec_test_")
        names = [
            f"polyvec_test_{hexes}{suffix}"
            for suffix in ("", "A", "a", "_", "__", "-", ".", "..", "a..b", "a-b", "a_b", "a.b", "x" * 80)
        ]
        try:
            for number, name in enumerate(names):
                store.create_collection(name, 2, "dot").upsert(Record(f"id{number}", [1, number]))
            assert set(names) <= set(store.list_collections())
            for number, name in enumerate(names):
                assert [record.id for record in store.collection(name).scan()] == [f"id{number}"]
        finally:
            for name in names:
                store.drop_collection(name, missing_ok=True)

    @pytest.mark.parametrize("name", ["", "a/b", "a b", "한국어", "x" * 129, "a\n", "a*", 7, None])
    def test_other_names_are_refused(self, store: VectorStore, name: Any) -> None:
        for call in (store.collection, store.drop_collection, lambda name: store.create_collection(name, 4)):
            with pytest.raises(InvalidInputError, match="name"):
                call(name)

    @pytest.mark.parametrize(
        "arguments",
        [
            {"dimension": 0},
            {"dimension": -1},
            {"dimension": 2.5},
            {"dimension": None},
            {"dimension": True},
            {"dimension": 4, "metric": "manhattan"},
            {"dimension": 4, "indexes": {"k": list}},
            {"dimension": 4, "index": "hnsw"},
            {"dimension": 5, "embedding": SPACE},
        ],
    )
    def test_wrong_specs_are_refused(self, store: VectorStore, arguments: dict[str, Any]) -> None:
        name = test_name()
        with pytest.raises(InvalidInputError):
            store.create_collection(name, **arguments)
        assert name not in store.list_collections()

    @pytest.mark.parametrize("index", [HnswIndex(m=8, ef_construction=64, ef_search=64), FlatIndex()])
    def test_an_index_is_honoured_or_refused(
        self, store: VectorStore, open_store: OpenStore, make_collection: MakeCollection, index: Any
    ) -> None:
        ability = "flat_index" if isinstance(index, FlatIndex) else "hnsw_index"
        if not getattr(store.capabilities, ability):
            with pytest.raises(UnsupportedOperationError, match=type(index).__name__):
                make_collection(index=index)
            return
        made = make_collection(index=index)
        made.upsert([Record("a", A), Record("b", B)])
        assert [match.id for match in made.query(A)] == ["a", "b"]
        with open_store() as other:
            assert other.collection(made.name).info.index == index

    def test_index_hints_never_change_an_answer(self, make_collection: MakeCollection) -> None:
        hinted = make_collection(indexes={"k": int, "j": str, "at": datetime, "flag": bool, "x": float})
        plain = make_collection()
        rows = [
            Record(f"r{number}", A, None, {"k": value, "j": value, "flag": value, "x": value, "at": value})
            for number, value in enumerate((1, 1.0, 1.5, "1", True, [1], data.DATETIMES[1], None, 2**53 + 1))
        ]
        hinted.upsert(rows)
        plain.upsert(rows)
        for key in ("k", "j", "flag", "x", "at"):
            for filter in (
                F(key) == 1, F(key) != 1, F(key) > 1, F(key) == "1", F(key) == True, F(key).contains(1),  # noqa: E712
                F(key).exists(), ~(F(key) > 1), F(key) >= data.DATETIMES[1], F(key).is_in([1, "1", True]),
            ):  # fmt: skip
                expected = {row.id for row in rows if matches(filter, row.metadata)}
                assert {record.id for record in hinted.scan(filter)} == expected, str(filter)
                assert {record.id for record in plain.scan(filter)} == expected, str(filter)

    def test_a_closed_store_says_so(self, open_store: OpenStore, collection: Collection) -> None:
        opened = open_store()
        handle = opened.collection(collection.name)
        opened.close()
        opened.close()
        for call in (opened.list_collections, handle.count, lambda: handle.upsert(Record("a", A))):
            with pytest.raises(UnsupportedOperationError, match="closed"):
                call()
        assert collection.count() == 0

    def test_the_store_describes_itself(self, store: VectorStore) -> None:
        assert store.name in repr(store)
        assert store.version
        assert store.capabilities.max_query_limit >= 1000
        assert store.native is not None
