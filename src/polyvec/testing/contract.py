"""The contract: each promise a test, each test on every backend.

Import everything from here into a test module; see `polyvec.testing.plugin` for the fixtures. No test names
a database: what an engine may lack is a capability, and then its refusal is tested.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import numpy as np
import pytest

from polyvec.errors import (
    CollectionExistsError,
    CollectionNotFoundError,
    DimensionMismatchError,
    InvalidFilterError,
    InvalidInputError,
    PolyvecError,
    RecordNotFoundError,
    SpecMismatchError,
    UnsupportedOperationError,
)
from polyvec.filters import F, matches
from polyvec.protocol import Collection, VectorStore
from polyvec.testing import data, filter_cases
from polyvec.testing.compare import (
    assert_best,
    assert_holds,
    assert_same_metadata,
    assert_same_record,
    assert_same_vector,
    truth,
)
from polyvec.testing.filter_cases import FilterCase
from polyvec.testing.plugin import MakeCollection, OpenStore, test_name
from polyvec.testing.programs import play
from polyvec.types import METRICS, EmbeddingSpace, FlatIndex, HnswIndex, Metric, Record, RecordBatch, Vector

__all__ = [  # noqa: RUF022  # the order in which they run: what fails first tells most
    "TestCollections",
    "TestRoundTrip",
    "TestWrites",
    "TestReads",
    "TestQueries",
    "TestUpdateAndDelete",
    "TestNamespaces",
    "TestFilterMatrix",
    "TestPrograms",
]

A, B, C = [1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0.5, 0.5, 0.0, 0.0]
SPACE = EmbeddingSpace("test", "model-1", 4)


def _vector(record: Record) -> Vector:
    assert record.vector is not None
    return record.vector


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


class TestRoundTrip:
    """What was written comes back equal and of the same types."""

    @pytest.mark.parametrize(
        "metadata", data.METADATAS, ids=lambda metadata: ascii(next(iter(metadata), ""))[:20]
    )
    def test_metadata(self, collection: Collection, metadata: dict[str, Any]) -> None:
        collection.upsert(Record("a", A, "text", metadata))
        [got] = collection.get(["a"])
        assert got is not None
        assert_same_metadata(got.metadata, metadata)
        assert_same_metadata(next(collection.scan()).metadata, metadata)
        assert_same_metadata(collection.query(A)[0].metadata, metadata)

    def test_texts(self, collection: Collection) -> None:
        texts = [None, *data.HOSTILE_STRINGS, "long " * 20_000]
        written = [Record(f"t{number}", A, text) for number, text in enumerate(texts)]
        collection.upsert(written)
        assert_holds(collection, written)
        assert {match.id: match.text for match in collection.query(A, limit=100)} == {
            record.id: record.text for record in written
        }

    def test_ids(self, collection: Collection) -> None:
        written = [Record(id, [1, number / 10, 0, 0], id) for number, id in enumerate(data.IDS)]
        collection.upsert(written)
        assert_holds(collection, written)
        found = collection.query(A, limit=100)
        assert {match.id: match.text for match in found} == {id: id for id in data.IDS}
        for id in data.IDS:
            assert [match.id for match in collection.query_by_id(id, limit=100) if match.id == id] == []
        collection.delete(list(data.IDS[::2]))
        assert_holds(collection, written[1::2])

    @pytest.mark.parametrize("metric", METRICS)
    def test_vectors(self, make_collection: MakeCollection, metric: Metric) -> None:
        collection = make_collection(8, metric)
        rows = data.vectors(50, 8, seed=3)
        scale = np.float32(10.0) ** np.linspace(-6, 6, 50, dtype=np.float32)
        written = [Record(f"v{number}", row) for number, row in enumerate(rows * scale[:, None])]
        collection.upsert(written)
        assert_holds(collection, written)

    def test_vectors_of_every_float32_magnitude(self, make_collection: MakeCollection) -> None:
        collection = make_collection(4, "cosine")
        written = [
            Record(f"e{exponent}", np.float32(10.0) ** exponent * np.array([3, 4, 0, -1], np.float32))
            for exponent in (-37, -30, -20, -10, 0, 10, 20, 30, 37)
        ]
        collection.upsert(written)
        assert_holds(collection, written)
        found = collection.query([3, 4, 0, -1])
        assert len(found) == len(written)
        assert all(match.score == pytest.approx(1, abs=1e-4) for match in found)
        assert collection.query([-3e30, -4e30, 0, 1e30])[0].score == pytest.approx(-1, abs=1e-4)

    @pytest.mark.parametrize("kind", [np.float64, np.float32, np.float16, np.int32, list, tuple])
    def test_any_kind_of_numbers_is_a_vector(self, collection: Collection, kind: Any) -> None:
        vector = [1, 2, 0, -3]
        given = kind(vector) if kind in (list, tuple) else np.array(vector, kind)
        collection.upsert(Record("a", given))
        [got] = collection.get(["a"])
        assert got is not None
        assert_same_vector(got.vector, vector, "vector")
        assert collection.query(given)[0].score == pytest.approx(1, abs=1e-4)


class TestWrites:
    """Upsert is replace; bad input writes nothing."""

    def test_upsert_replaces_everything(self, collection: Collection) -> None:
        collection.upsert(Record("a", A, "old text", {"old": 1, "both": "old", "list": [1, 2], "n": 5.5}))
        new = Record("a", B, None, {"both": ["new"]})
        collection.upsert(new)
        assert_holds(collection, [new])
        assert collection.count(F("old").exists()) == 0
        assert collection.count(F("old") == 1) == 0
        assert collection.count(F("n") > 0) == 0
        assert collection.count(F("both") == "old") == 0
        assert collection.count(F("both").contains("new")) == 1
        assert collection.query(B)[0].score == pytest.approx(1, abs=1e-4)
        assert collection.query(A)[0].score == pytest.approx(0, abs=1e-4)

    def test_upsert_replaces_with_nothing(self, collection: Collection) -> None:
        collection.upsert(Record("a", A, "text", {"k": 1, "l": [1]}))
        collection.upsert(Record("a", A))
        assert_holds(collection, [Record("a", A)])
        assert collection.count(F("k").exists() | F("l").exists()) == 0

    def test_many_at_once_replace_many(self, collection: Collection) -> None:
        old = data.records(300, 4, seed=1)
        collection.upsert(old)
        new = [
            Record(record.id, record.vector, None, {"new": True}) for record in data.records(200, 4, seed=2)
        ]
        collection.upsert(new)
        assert_holds(collection, [*new, *old[200:]])
        assert collection.count(F("new") == True) == 200  # noqa: E712
        assert collection.count(F("n").exists()) == 100

    def test_the_last_of_equal_ids_wins(self, collection: Collection) -> None:
        collection.upsert([Record("a", A, "1", {"x": 1}), Record("b", B), Record("a", C, "2", {"y": 2})])
        assert_holds(collection, [Record("a", C, "2", {"y": 2}), Record("b", B)])

    def test_the_last_of_equal_ids_wins_across_batches(
        self, store: VectorStore, collection: Collection
    ) -> None:
        many = min(2 * store.capabilities.max_batch_records + 50, 4000)
        rows = (Record(f"r{number % 100}", A, str(number)) for number in range(many))
        collection.upsert(rows)
        assert {record.id: record.text for record in collection.scan()} == {
            f"r{number % 100}": str(number) for number in range(many - 100, many)
        }

    def test_the_report_counts(self, collection: Collection) -> None:
        report = collection.upsert([Record("a", A), Record("b", B)])
        assert (report.written, report.failures, report.failed_ids) == (2, (), [])
        assert collection.upsert([]).written == 0

    def test_records_batches_and_iterables_of_both(self, collection: Collection) -> None:
        batch = RecordBatch(["b", "c"], np.array([B, C], np.float32), ["t", None], [{"n": 1}, {}])
        collection.upsert(Record("a", A))
        collection.upsert(batch)
        mixed: list[Record | RecordBatch] = [Record("d", A), RecordBatch(["e"], np.array([B], np.float32))]
        collection.upsert(iter([*mixed, batch]))
        assert_holds(
            collection,
            [
                Record("a", A), Record("b", B, "t", {"n": 1}), Record("c", C), Record("d", A), Record("e", B),
            ],
        )  # fmt: skip

    def test_more_than_one_batch(self, store: VectorStore, collection: Collection) -> None:
        count = min(2 * store.capabilities.max_batch_records + 7, 2507)
        written = data.records(count, 4)
        assert collection.upsert(iter(written)).written == count
        assert_holds(collection, written)
        assert collection.count(F("third") == 0) == len(range(0, count, 3))

    def test_wait_false_is_seen_after_flush(self, collection: Collection) -> None:
        written = data.records(50, 4)
        collection.upsert(written[:25], wait=False)
        collection.upsert(written[25:], wait=False)
        collection.flush()
        assert_holds(collection, written)
        collection.upsert(Record(written[0].id, A), wait=False)
        collection.delete([written[1].id])
        collection.flush()
        assert_holds(collection, [Record(written[0].id, A), *written[2:]])

    def test_a_write_is_seen_at_once(self, collection: Collection) -> None:
        for number in range(20):
            record = Record(f"r{number}", [1, number, 0, 0], None, {"n": number})
            collection.upsert(record)
            assert collection.count() == number + 1
            assert collection.count(F("n") == number) == 1
            assert_same_record(collection.get([record.id])[0], record)
            assert record.id in [match.id for match in collection.query(_vector(record), limit=3)]

    @pytest.mark.parametrize(
        ("bad", "error", "message"),
        [
            (Record("b", [1.0, 0.0, 0.0]), DimensionMismatchError, "4 dimensions, got 3"),
            (Record("b", [[1.0, 0.0, 0.0, 0.0]]), DimensionMismatchError, "4 dimensions"),  # type: ignore[list-item]
            (Record("b", [1.0, float("nan"), 0.0, 0.0]), InvalidInputError, "NaN"),
            (Record("b", [1.0, float("-inf"), 0.0, 0.0]), InvalidInputError, "infinite"),
            (Record("b", [1e39, 0.0, 0.0, 0.0]), InvalidInputError, "infinite as float32"),
            (Record("b", [0.0, 0.0, 0.0, 0.0]), InvalidInputError, "zero vector"),
            (Record("b", ["1", "0", "0", "0"]), InvalidInputError, "numbers"),  # type: ignore[list-item]
            (Record("b", None), InvalidInputError, "vector"),
            (Record("", A), InvalidInputError, "1 to 512"),
            (Record("x" * 513, A), InvalidInputError, "1 to 512"),
            (Record("한" * 171, A), InvalidInputError, "1 to 512"),
            (Record("a\0b", A), InvalidInputError, "NUL"),
            (Record("a\ud800", A), InvalidInputError, "surrogate"),
            (Record(7, A), InvalidInputError, "must be a str"),  # type: ignore[arg-type]
            (Record("b", A, "a\udfff"), InvalidInputError, "surrogate"),
            (Record("b", A, 7), InvalidInputError, "text"),  # type: ignore[arg-type]
            (Record("b", A, None, {"k": float("nan")}), InvalidInputError, "finite"),
            (Record("b", A, None, {"k": [float("inf")]}), InvalidInputError, "finite"),
            (Record("b", A, None, {"k": 2**63}), InvalidInputError, "int64"),
            (Record("b", A, None, {"k": {"x": -(2**63) - 1}}), InvalidInputError, "int64"),
            (Record("b", A, None, {"k": datetime(2024, 1, 1)}), InvalidInputError, "time zone"),  # noqa: DTZ001
            (Record("b", A, None, {"k": "a\ud800"}), InvalidInputError, "surrogate"),
            (Record("b", A, None, {"a\ud800": 1}), InvalidInputError, "surrogate"),
            (Record("b", A, None, {"": 1}), InvalidInputError, "1 to 128"),
            (Record("b", A, None, {"k" * 129: 1}), InvalidInputError, "1 to 128"),
            (Record("b", A, None, {1: 1}), InvalidInputError, "must be a str"),  # type: ignore[dict-item]
            (Record("b", A, None, {"k": {1: 1}}), InvalidInputError, "str"),
            (Record("b", A, None, {"k": (1, 2)}), InvalidInputError, "tuple"),
            (Record("b", A, None, {"k": np.int64(1)}), InvalidInputError, "item"),
            (Record("b", A, None, {"k": b"x"}), InvalidInputError, "bytes"),
            (Record("b", A, None, None), InvalidInputError, "dict"),  # type: ignore[arg-type]
            ({"id": "b"}, InvalidInputError, "expected"),
            ("b", InvalidInputError, "expected"),
            (None, InvalidInputError, "expected"),
        ],
    )
    def test_bad_input_writes_nothing(
        self, collection: Collection, bad: Any, error: type[PolyvecError], message: str
    ) -> None:
        with pytest.raises(error, match=message) as caught:
            collection.upsert([Record("a", A), bad, Record("c", C)])
        assert str(caught.value).startswith(f"{caught.value.backend}: upsert({collection.name!r}): ")
        assert collection.count() == 0

    def test_bad_columns_write_nothing(self, collection: Collection) -> None:
        good = np.array([A, B], np.float32)
        for batch in (
            RecordBatch(["a"], good),
            RecordBatch(["a", "b"], good, ["t"]),
            RecordBatch(["a", "b"], good, None, [{}]),
            RecordBatch(["a", "b"], good[:, :3]),
            RecordBatch(["a", "b"], None),
            RecordBatch(["a", ""], good),
        ):
            with pytest.raises(InvalidInputError):
                collection.upsert(batch)
        assert collection.count() == 0

    def test_a_zero_vector_is_fine_unless_cosine(self, make_collection: MakeCollection) -> None:
        for metric in ("dot", "euclidean"):
            collection = make_collection(4, metric)
            collection.upsert([Record("zero", [0, 0, 0, 0]), Record("a", A)])
            assert_holds(collection, [Record("zero", [0, 0, 0, 0]), Record("a", A)])
            scores = {match.id: match.score for match in collection.query([0, 0, 0, 0])}
            assert scores == pytest.approx({"zero": 0, "a": 0 if metric == "dot" else -1}, abs=1e-4)

    def test_several_threads_may_write(self, collection: Collection) -> None:
        written = data.records(200, 4)
        errors: list[BaseException] = []

        def write(part: list[Record]) -> None:
            try:
                for start in range(0, len(part), 10):
                    collection.upsert(part[start : start + 10])
                    collection.query(A)
            except BaseException as error:  # noqa: BLE001  # shown below, in the test's thread
                errors.append(error)

        threads = [threading.Thread(target=write, args=(written[start::4],)) for start in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []
        assert_holds(collection, written)


class TestReads:
    """Get, count and scan."""

    @pytest.fixture
    def written(self, collection: Collection) -> list[Record]:
        written = data.records(120, 4)
        collection.upsert(written)
        return written

    def test_get_keeps_the_order_and_says_what_is_missing(
        self, collection: Collection, written: list[Record]
    ) -> None:
        asked = ["r00007", "missing", "r00003", "r00007", "r00119"]
        got = collection.get(asked)
        expected = [written[7], None, written[3], written[7], written[119]]
        for one, other in zip(got, expected, strict=True):
            assert_same_record(one, other)
        assert collection.get([]) == []
        assert collection.get(["missing"]) == [None]

    def test_get_more_than_one_batch(self, store: VectorStore, collection: Collection) -> None:
        count = min(store.capabilities.max_batch_records + 5, 1500)
        written = data.records(count, 4)
        collection.upsert(written)
        got = collection.get([record.id for record in reversed(written)])
        assert [record.id if record else None for record in got] == [
            record.id for record in reversed(written)
        ]

    def test_what_is_not_asked_for_is_not_returned(
        self, collection: Collection, written: list[Record]
    ) -> None:
        [bare] = collection.get(["r00001"], include_vectors=False, include_text=False, include_metadata=False)
        assert bare == Record("r00001", None)
        [text] = collection.get(["r00001"], include_vectors=False, include_metadata=False)
        assert text == Record("r00001", None, "passage number 1")
        [meta] = collection.get(["r00001"], include_vectors=False, include_text=False)
        assert meta == Record("r00001", None, None, written[1].metadata)
        [match] = collection.query(_vector(written[1]), limit=1, include_text=False, include_metadata=False)
        assert (match.id, match.text, match.metadata, match.vector) == ("r00001", None, {}, None)
        [match] = collection.query(_vector(written[1]), limit=1, include_vectors=True)
        assert (match.text, match.metadata) == (written[1].text, written[1].metadata)
        assert_same_vector(match.vector, written[1].vector, "match.vector")
        for record in collection.scan():
            assert record.vector is None
        for record in collection.scan(include_text=False, include_metadata=False, include_vectors=True):
            assert (record.text, record.metadata) == (None, {})
            assert_same_vector(record.vector, written[int(record.id[1:])].vector, record.id)

    @pytest.mark.parametrize("ids", ["r00001", [""], [7], ["x" * 513]])
    def test_wrong_ids_are_refused(self, collection: Collection, ids: Any) -> None:
        with pytest.raises(InvalidInputError, match="id"):
            collection.get(ids)
        with pytest.raises(InvalidInputError, match="id"):
            collection.delete(ids)

    @pytest.mark.parametrize("batch_size", [None, 1, 7, 1000])
    def test_scan_shows_everything_once(
        self, collection: Collection, written: list[Record], batch_size: int | None
    ) -> None:
        found = list(collection.scan(batch_size=batch_size, include_vectors=True))
        assert sorted(record.id for record in found) == [record.id for record in written]
        for record in found:
            assert_same_record(record, written[int(record.id[1:])])

    def test_scan_with_a_filter(self, collection: Collection, written: list[Record]) -> None:
        filter = (F("third") == 1) & ~(F("tags").contains("t1"))
        expected = {record.id for record in written if matches(filter, record.metadata)}
        assert 0 < len(expected) < len(written)
        for batch_size in (None, 1, 5):
            assert {record.id for record in collection.scan(filter, batch_size=batch_size)} == expected
        assert list(collection.scan(F("n") < 0)) == []

    def test_scan_batches_are_columns(self, collection: Collection, written: list[Record]) -> None:
        batches = list(collection.scan_batches(include_vectors=True, batch_size=50))
        assert sum(map(len, batches)) == len(written)
        for batch in batches:
            assert 0 < len(batch) <= 50
            assert batch.vectors is not None
            assert batch.vectors.shape == (len(batch), 4)
            assert batch.vectors.dtype == np.float32

    def test_scan_goes_past_the_page_limits(self, make_collection: MakeCollection) -> None:
        count = 12_000
        collection = make_collection(2, "dot")
        ids = [f"{number:05}" for number in range(count)]
        rows = np.column_stack([np.arange(count), np.ones(count)]).astype(np.float32)
        meta = [{"even": number % 2 == 0} for number in range(count)]
        collection.upsert(RecordBatch(ids, rows, None, meta))
        assert sorted(record.id for record in collection.scan()) == ids
        assert sorted(r.id for r in collection.scan("even == true", include_metadata=False)) == ids[::2]
        assert collection.count() == count
        assert collection.count(F("even") == False) == count // 2  # noqa: E712

    def test_a_scan_may_be_left_early(self, collection: Collection, written: list[Record]) -> None:
        scan: Iterator[Record] = collection.scan(batch_size=5)
        assert next(scan).id in {record.id for record in written}
        del scan
        assert collection.count() == len(written)

    def test_wrong_batch_sizes_are_refused(self, collection: Collection) -> None:
        for size in (0, -1, 2.5, True):
            with pytest.raises(InvalidInputError, match="batch_size"):
                collection.scan(batch_size=size)  # type: ignore[arg-type]

    def test_count_is_exact(self, collection: Collection, written: list[Record]) -> None:
        assert collection.count() == 120
        for filter in (F("even") == True, F("n") >= 100, F("lang").is_in(["ko", "de"]), ~F("n").exists()):  # noqa: E712
            assert collection.count(filter) == sum(matches(filter, record.metadata) for record in written)
        collection.upsert(written[:50])
        collection.delete([record.id for record in written[:10]])
        assert collection.count() == 110
        assert collection.count(F("n") < 20) == 10

    def test_filters_in_every_notation(self, collection: Collection, written: list[Record]) -> None:
        expected = sum(record.metadata["n"] >= 10 and record.metadata["lang"] == "ko" for record in written)
        assert expected
        for filter in (
            (F("n") >= 10) & (F("lang") == "ko"),
            'n >= 10 and lang == "ko"',
            {"n": {"$gte": 10}, "lang": "ko"},
        ):
            assert collection.count(filter) == expected
        for bad in ("n >=", {"n": {"$near": 1}}, 7, "", {}):
            with pytest.raises(InvalidFilterError):
                collection.count(bad)  # type: ignore[arg-type]


class TestQueries:
    """The right records, the right scores, in the right order."""

    @pytest.mark.parametrize("metric", METRICS)
    def test_scores_equal_numpy(self, make_collection: MakeCollection, metric: Metric) -> None:
        collection = make_collection(16, metric)
        written = data.records(300, 16)
        collection.upsert(written)
        for vector in data.vectors(10, 16, seed=5):
            expected = truth(written, metric, vector)
            for limit in (1, 10, 300, 1000):
                assert_best(collection.query(vector, limit=limit), expected, limit=limit)

    @pytest.mark.parametrize("metric", METRICS)
    def test_filters_apply_before_the_limit(self, make_collection: MakeCollection, metric: Metric) -> None:
        collection = make_collection(8, metric)
        written = data.records(300, 8)
        collection.upsert(written)
        for filter in (
            F("n") >= 290,
            F("n") < 290,
            F("n") == 17,
            F("tags").contains_all(["t1", "u1"]),
            F("lang").not_in(["en", "de"]) & (F("even") == True),  # noqa: E712
            ~F("missing").exists(),
        ):
            for vector in data.vectors(3, 8, seed=6):
                expected = truth(written, metric, vector, filter)
                assert expected
                for limit in (1, 10, 300):
                    assert_best(collection.query(vector, limit=limit, filter=filter), expected, limit=limit)
        assert collection.query(np.ones(8), filter=F("n") < 0) == []

    def test_queries_after_many_changes(self, make_collection: MakeCollection) -> None:
        """An index full of replaced and deleted records still finds all that is there."""
        collection = make_collection(8, "cosine")
        state: dict[str, Record] = {}
        for seed in range(8):
            rows = data.records(100, 8, seed=seed)
            collection.upsert(rows)
            state |= {record.id: record for record in rows}
            gone = [record.id for record in rows if record.metadata["n"] % 8 == seed]
            collection.delete(gone)
            for id in gone:
                del state[id]
        vector = np.ones(8)
        for filter in (None, F("third") == 0, F("n") >= 95):
            expected = truth(state.values(), "cosine", vector, filter)
            for limit in (5, 100):
                assert_best(collection.query(vector, limit=limit, filter=filter), expected, limit=limit)
        assert_holds(collection, state.values())

    def test_equal_scores_are_ordered_by_id(self, collection: Collection) -> None:
        ids = [f"{number * 7919 % 100:02}" for number in range(40)]
        collection.upsert(Record(id, A) for id in ids)
        found = collection.query(A, limit=40)
        assert [match.id for match in found] == sorted(ids)
        assert len({match.score for match in found}) == 1

    @pytest.mark.parametrize("filter", [None, F("third") == 0])
    def test_pages_are_disjoint_and_complete(self, make_collection: MakeCollection, filter: Any) -> None:
        """Also within a tie, which an engine may order differently from call to call."""
        collection = make_collection(3, "dot")
        written = [
            Record(f"r{number:03}", [number // 20, 1, 0], None, {"third": number % 3})
            for number in range(150)
        ]
        collection.upsert(written)
        expected = truth(written, "dot", [1, 0, 0], filter)
        found: list[str] = []
        for offset in range(0, 160, 10):
            page = collection.query([1, 0, 0], limit=10, offset=offset, filter=filter)
            found += [match.id for match in page]
        assert found == sorted(expected, key=lambda id: (-expected[id], id))

    def test_limit_and_offset(self, store: VectorStore, collection: Collection) -> None:
        written = data.records(30, 4)
        collection.upsert(written)
        full = [match.id for match in collection.query(A, limit=30)]
        assert len(full) == 30
        assert [match.id for match in collection.query(A, limit=5, offset=3)] == full[3:8]
        assert [match.id for match in collection.query(A, limit=50, offset=28)] == full[28:]
        assert collection.query(A, offset=30) == []
        assert len(collection.query(A, limit=store.capabilities.max_query_limit)) == 30
        with pytest.raises(UnsupportedOperationError, match="offset"):
            collection.query(A, limit=store.capabilities.max_query_limit, offset=1)

    @pytest.mark.parametrize(
        "arguments",
        [{"limit": 0}, {"limit": -1}, {"limit": 2.5}, {"limit": True}, {"offset": -1}, {"offset": 1.5}],
    )
    def test_wrong_windows_are_refused(self, collection: Collection, arguments: dict[str, Any]) -> None:
        with pytest.raises(InvalidInputError, match=next(iter(arguments))):
            collection.query(A, **arguments)

    @pytest.mark.parametrize("metric", METRICS)
    def test_min_score(self, make_collection: MakeCollection, metric: Metric) -> None:
        collection = make_collection(4, metric)
        written = data.records(60, 4)
        collection.upsert(written)
        expected = truth(written, metric, A)
        middle = sorted(expected.values())[30] - 5e-3
        found = collection.query(A, limit=60, min_score=middle)
        assert 0 < len(found) < 60
        assert_best(found, expected, limit=60, min_score=middle)
        assert collection.query(A, min_score=1e9) == []
        best = collection.query(A, limit=60)
        assert len(collection.query(A, limit=60, min_score=best[29].score)) >= 30  # inclusive

    def test_query_many_equals_query(self, store: VectorStore, make_collection: MakeCollection) -> None:
        collection = make_collection(8, "euclidean")
        written = data.records(80, 8)
        collection.upsert(written)
        many = data.vectors(min(store.capabilities.max_query_vectors + 3, 120), 8, seed=9)
        filter = F("third") != 0
        found = collection.query_many(many, limit=7, filter=filter, offset=2)
        assert len(found) == len(many)
        for vector, matched in zip(many, found, strict=True):
            assert_best(matched, truth(written, "euclidean", vector, filter), limit=7, offset=2)
        assert collection.query_many([]) == []
        assert collection.query_many([many[0]], limit=3) == [collection.query(many[0], limit=3)]

    def test_query_by_id(self, collection: Collection) -> None:
        written = [*data.records(40, 4), Record("twin", data.records(1, 4)[0].vector, None, {"third": 0})]
        collection.upsert(written)
        for limit in (1, 5, 40, 41):
            expected = truth(written, "cosine", _vector(written[0]))
            del expected["r00000"]
            found = collection.query_by_id("r00000", limit=limit)
            assert_best(found, expected, limit=limit)
            assert found[0].id == "twin"
        filtered = collection.query_by_id("r00000", filter=F("third") == 0, limit=100)
        assert {match.id for match in filtered} == {
            record.id for record in written[1:] if record.metadata["third"] == 0
        }
        with pytest.raises(RecordNotFoundError, match="missing"):
            collection.query_by_id("missing")

    def test_exact(self, store: VectorStore, make_collection: MakeCollection) -> None:
        collection = make_collection(8, "dot")
        written = data.records(200, 8)
        collection.upsert(written)
        if not store.capabilities.exact_query:
            with pytest.raises(UnsupportedOperationError, match="exact"):
                collection.query(np.ones(8), exact=True)
            return
        for filter in (None, F("third") == 1):
            expected = truth(written, "dot", np.ones(8), filter)
            assert_best(collection.query(np.ones(8), exact=True, filter=filter, limit=20), expected, limit=20)

    @pytest.mark.parametrize(
        ("vector", "error"),
        [
            ([1, 2, 3], DimensionMismatchError),
            ([[1, 2, 3, 4]], InvalidInputError),
            ([1, 2, 3, float("nan")], InvalidInputError),
            ([0, 0, 0, 0], InvalidInputError),
            ("abcd", InvalidInputError),
            (None, InvalidInputError),
        ],
    )
    def test_wrong_vectors_are_refused(
        self, collection: Collection, vector: Any, error: type[PolyvecError]
    ) -> None:
        with pytest.raises(error):
            collection.query(vector)

    def test_explain_sends_nothing_and_shows_the_request(
        self, store: VectorStore, collection: Collection
    ) -> None:
        explained = collection.explain((F("n") >= 3) & ~F("tags").contains("x"), limit=5)
        assert explained.backend == store.name
        assert explained.filter == 'n >= 3 and not tags contains "x"'
        assert explained.native is not None
        assert all(isinstance(note, str) for note in explained.notes)
        assert collection.explain().filter is None
        assert collection.explain("false").native is None
        with pytest.raises(InvalidFilterError):
            collection.explain("n >=")


class TestFilterMatrix:
    """Every node with every kind of literal on every kind of value: as `filters.matches` says."""

    @pytest.mark.parametrize("case", filter_cases.CASES, ids=lambda case: case.name)
    def test_case(self, matrix: Collection, matrix_records: list[Record], case: FilterCase) -> None:
        expected = {record.id for record in matrix_records if matches(case.filter, record.metadata)}
        assert case.vacuous == (len(expected) in (0, len(matrix_records))), "the case proves nothing"
        assert matrix.count(case.filter) == len(expected)
        found = matrix.scan(case.filter, include_text=False, include_metadata=False)
        assert {record.id for record in found} == expected

    @pytest.mark.parametrize("case", filter_cases.CASES[::7], ids=lambda case: case.name)
    def test_query(self, matrix: Collection, matrix_records: list[Record], case: FilterCase) -> None:
        vector = [1, 0.2, 0.4]
        expected = truth(matrix_records, "cosine", vector, case.filter)
        for limit in (3, 1000):
            assert_best(matrix.query(vector, limit=limit, filter=case.filter), expected, limit=limit)

    @pytest.mark.parametrize(
        "case", [case for case in filter_cases.CASES if not case.vacuous][::40], ids=lambda case: case.name
    )
    def test_delete(
        self, make_collection: MakeCollection, matrix_records: list[Record], case: FilterCase
    ) -> None:
        collection = make_collection(3)
        collection.upsert(matrix_records)
        collection.delete(filter=case.filter)
        assert {record.id for record in collection.scan(include_metadata=False)} == {
            record.id for record in matrix_records if not matches(case.filter, record.metadata)
        }


class TestUpdateAndDelete:
    """Metadata changes and deletes touch what they should, and nothing else."""

    @pytest.fixture
    def written(self, collection: Collection) -> list[Record]:
        written = data.records(60, 4)
        collection.upsert(written)
        return written

    def test_update_by_ids(self, collection: Collection, written: list[Record]) -> None:
        changed = collection.update_metadata(
            ["r00001", "r00002", "missing"], set={"n": "one", "new": [1, {"x": None}]}, unset=["half", "nope"]
        )
        assert changed == 2
        expected = {record.id: record for record in written}
        for id in ("r00001", "r00002"):
            old = expected[id]
            metadata = {key: value for key, value in old.metadata.items() if key != "half"}
            metadata |= {"n": "one", "new": [1, {"x": None}]}
            expected[id] = Record(id, old.vector, old.text, metadata)
        assert_holds(collection, expected.values())
        assert collection.count(F("n") == "one") == 2
        assert collection.count(F("n") == 1) == 0
        assert collection.count((F("n") > 0) & (F("n") < 3)) == 0
        assert collection.count(F("half").exists()) == 58
        assert collection.count(F("half") >= 0) == 58
        assert collection.count(F("new").contains(1)) == 2

    def test_update_by_filter(self, collection: Collection, written: list[Record]) -> None:
        assert collection.update_metadata(filter=F("third") == 1, set={"third": 7, "n": None}) == 20
        assert collection.count(F("third") == 7) == 20
        assert collection.count(F("third") == 1) == 0
        assert collection.count(F("n").exists()) == 40
        assert collection.update_metadata(filter=F("third") == 99, set={"x": 1}) == 0
        assert collection.count(F("x").exists()) == 0
        assert_same_vector(collection.get(["r00001"])[0].vector, written[1].vector, "vector")  # type: ignore[union-attr]

    def test_update_to_nothing(self, collection: Collection, written: list[Record]) -> None:
        keys = list(written[0].metadata)
        assert collection.update_metadata(["r00003"], unset=keys) == 1
        [got] = collection.get(["r00003"])
        assert_same_record(got, Record("r00003", written[3].vector, written[3].text, {}))
        assert collection.count(~F("n").exists()) == 1

    @pytest.mark.parametrize(
        "arguments",
        [
            {"set": {"a": 1}},
            {"ids": ["a"], "filter": "a == 1", "set": {"a": 1}},
            {"ids": ["a"]},
            {"ids": ["a"], "set": {"a": 1}, "unset": ["a"]},
            {"ids": ["a"], "set": {"a": float("nan")}},
            {"ids": ["a"], "unset": "abc"},
            {"ids": ["a"], "unset": [""]},
            {"filter": "true", "set": {"a": 1}},
            {"ids": "a", "set": {"a": 1}},
        ],
    )
    def test_wrong_updates_are_refused(self, collection: Collection, arguments: dict[str, Any]) -> None:
        with pytest.raises(InvalidInputError):
            collection.update_metadata(**arguments)

    def test_delete_by_ids(self, collection: Collection, written: list[Record]) -> None:
        collection.delete(["r00000", "missing", "r00059", "r00000"])
        assert_holds(collection, written[1:59])
        collection.delete([])
        assert collection.count() == 58
        assert "r00000" not in [match.id for match in collection.query(_vector(written[0]), limit=60)]
        collection.upsert(written[0])
        assert_holds(collection, written[:59])

    def test_delete_by_filter(self, collection: Collection, written: list[Record]) -> None:
        filter = (F("lang") == "ko") | (F("n") >= 50)
        collection.delete(filter=filter)
        left = [record for record in written if not matches(filter, record.metadata)]
        assert 0 < len(left) < len(written)
        assert_holds(collection, left)
        collection.delete(filter=F("n") < 0)
        assert collection.count() == len(left)

    def test_delete_refuses_what_is_ambiguous(self, collection: Collection, written: list[Record]) -> None:
        everything = (F("n") == 1) | ~F("n").is_in([])
        with pytest.raises(InvalidInputError, match="exactly one"):
            collection.delete()
        with pytest.raises(InvalidInputError, match="exactly one"):
            collection.delete(["r00000"], filter="n == 0")
        refused: list[Any] = ["true", {}, "", F("n").not_in([]), everything]
        for filter in refused:
            with pytest.raises(InvalidInputError):
                collection.delete(filter=filter)
        assert collection.count() == len(written)

    def test_clear(self, collection: Collection, written: list[Record]) -> None:
        collection.clear()
        assert_holds(collection, [])
        assert collection.query(A) == []
        collection.clear()
        collection.upsert(written[:3])
        assert_holds(collection, written[:3])


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


class TestPrograms:
    """Random programs give the same answers as the memory store; see `polyvec.testing.programs`."""

    def test_random_programs(self, store: VectorStore) -> None:
        played, steps = play(store, 40, seed=1)
        assert played >= 30
        assert steps >= 100
