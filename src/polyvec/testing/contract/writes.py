"""Writing: what comes back is what was sent, upsert is replace, bad input writes nothing."""

from __future__ import annotations

import threading
from datetime import datetime
from typing import Any

import numpy as np
import pytest

from polyvec.errors import (
    DimensionMismatchError,
    InvalidInputError,
    PolyvecError,
)
from polyvec.filters import F
from polyvec.protocol import Collection, VectorStore
from polyvec.testing import data
from polyvec.testing.compare import (
    assert_holds,
    assert_same_metadata,
    assert_same_record,
    assert_same_vector,
)
from polyvec.testing.contract.common import A, B, C, vector_of
from polyvec.testing.plugin import MakeCollection
from polyvec.types import METRICS, Metric, Record, RecordBatch


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
            assert record.id in [match.id for match in collection.query(vector_of(record), limit=3)]

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
