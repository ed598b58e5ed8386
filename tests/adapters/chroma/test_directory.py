"""What is special to Chroma, on its engine in this process."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from polyvec.errors import (
    BackendError,
    BackendUnavailableError,
    CollectionNotFoundError,
    ConfigurationError,
    ForeignCollectionError,
    UnsupportedOperationError,
)
from polyvec.filters import F, Filter, matches
from polyvec.testing import data, filter_cases
from polyvec.testing.compare import assert_best, assert_holds, assert_same_record, truth
from polyvec.types import METRICS, HnswIndex, Metric, Record, RecordBatch, WriteReport
from polyvec_adapters.chroma import store as store_module
from polyvec_adapters.chroma.names import entry_name
from polyvec_adapters.chroma.records import ANCHOR, MAX_TOKENS
from polyvec_adapters.chroma.store import ChromaCollection, ChromaStore
from tests.adapters.chroma.conftest import open_chroma

pytestmark = pytest.mark.server

A, B = [1.0, 0.0], [0.0, 1.0]


def make(
    store: ChromaStore, dimension: int = 2, metric: Metric = "dot", **options: object
) -> ChromaCollection:
    made = store.create_collection("docs", dimension, metric, **options)  # type: ignore[arg-type]
    assert isinstance(made, ChromaCollection)
    return made


class TestReplace:
    """Chroma merges; polyvec replaces, in one request."""

    @pytest.mark.parametrize("small", [0, 1000])
    def test_companions_that_are_left_over_change_no_answer(
        self, store: ChromaStore, monkeypatch: pytest.MonkeyPatch, small: int
    ) -> None:
        monkeypatch.setattr(store_module, "SMALL_RECORDS", small)
        collection = make(store)
        collection.upsert(Record("a", A, "old", {"year": 2024, "lang": "en", "at": data.DATETIMES[1]}))
        collection.upsert(Record("a", A, None, {"other": 1}))
        collection.upsert(Record("b", B, None, {"year": 2024, "lang": "en"}))
        native = collection.native
        assert native is not None
        kept = native.get(["a"], include=["metadatas"])["metadatas"]
        assert kept is not None
        assert len(kept[0]) > 4, "nothing is left over: the test proves nothing"
        many = ["en", *map(str, range(20))]
        filters: tuple[tuple[Filter, str], ...] = (
            (F("year") > 0, "b"),
            (~(F("year") > 0), "a"),
            (F("lang").is_in(many), "b"),
            (F("lang").not_in(many), "a"),
            ((F("year") > 0) | (F("other") == 1), "ab"),
            ((F("year") > 0) & ~F("other").exists(), "b"),
            (F("at") > data.DATETIMES[0], ""),
        )
        for filter, expected in filters:
            assert "".join(sorted(match.id for match in collection.query(A, filter=filter))) == expected, (
                filter
            )
            assert "".join(sorted(record.id for record in collection.scan(filter))) == expected, filter
            assert collection.count(filter) == len(expected), filter

    def test_a_query_is_repeated_only_if_something_is_left_over(
        self, store: ChromaStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(store_module, "SMALL_RECORDS", 0)
        collection = make(store)
        collection.upsert([Record("a", A, None, {"n": 1}), Record("b", B, None, {"n": 2})])
        asked: list[object] = []
        search = ChromaCollection._search

        def counting(
            self: ChromaCollection, native: object, vectors: object, limit: int, where: object, fields: object
        ) -> object:
            asked.append(where)
            return search(self, native, vectors, limit, where, fields)  # type: ignore[arg-type]

        monkeypatch.setattr(ChromaCollection, "_search", counting)
        assert len(collection.query(A, limit=1, filter=F("n") > 0)) == 1
        assert len(asked) == 1
        collection.upsert(Record("a", A))
        assert [match.id for match in collection.query(A, limit=1, filter=F("n") > 0)] == ["b"]
        assert len(asked) == 3

    def test_changing_metadata_keeps_text_and_length(self, store: ChromaStore) -> None:
        collection = make(store, 2, "cosine")
        collection.upsert([Record("a", [30.0, 40.0], "text: {}", {"k": 1}), Record("b", [1.0, 0.0])])
        collection.update_metadata(["a", "b"], set={"k": "new"})
        assert_holds(
            collection,
            [
                Record("a", [30.0, 40.0], "text: {}", {"k": "new"}),
                Record("b", [1.0, 0.0], None, {"k": "new"}),
            ],
        )


class TestNames:
    """Where collections are kept."""

    def test_a_collection_of_somebody_else_is_left_alone(self, store: ChromaStore) -> None:
        foreign = store.native.create_collection("docs", embedding_function=None)
        foreign.add(["x"], embeddings=np.ones((1, 3), np.float32))
        assert store.list_collections() == []
        for call in (
            lambda: store.collection("docs"),
            lambda: store.create_collection("docs", 2),
            lambda: store.create_collection("docs", 2, exist_ok=True),
            lambda: store.drop_collection("docs"),
        ):
            with pytest.raises(ForeignCollectionError, match="did not create"):
                call()
        assert foreign.count() == 1

    def test_the_engine_takes_every_native_name(self, store: ChromaStore) -> None:
        names = [
            "a",
            "..",
            ".",
            "a..b",
            "1.2.3.4",
            "1.2.3.4.5",
            "1.1",
            "111",
            "polyvec-x",
            "-",
            "x" * 128,
            "Ab",
            "ab",
        ]
        for number, name in enumerate(names):
            made = store.create_collection(name, 2, "dot")
            made.upsert(Record(f"id{number}", A))
            made.scoped(name).upsert(Record(f"scoped{number}", B))
        assert store.list_collections() == sorted(names)
        for number, name in enumerate(names):
            opened = store.collection(name)
            assert [record.id for record in opened.scan()] == [f"id{number}"]
            assert [record.id for record in opened.scoped(name).scan()] == [f"scoped{number}"]

    def test_dropping_leaves_no_native_collection(self, store: ChromaStore) -> None:
        store.create_collection("doc", 2, "dot").upsert(Record("other", A))
        before = sorted(one.name for one in store.native.list_collections())
        collection = make(store)
        for name in ("a", "b", ".."):
            collection.scoped(name).upsert(Record("x", A))
        store.drop_collection("docs")
        assert sorted(one.name for one in store.native.list_collections()) == before
        assert store.collection("doc").count() == 1

    def test_a_half_dropped_collection_can_be_dropped_again(self, store: ChromaStore) -> None:
        collection = make(store)
        collection.upsert(Record("x", A))
        native = collection.native
        assert native is not None
        store.native.delete_collection(native.name)
        assert store.list_collections() == ["docs"]
        assert collection.count() == 0
        store.drop_collection("docs")
        assert store.list_collections() == []

    def test_what_a_drop_left_behind_is_never_seen_again(self, store: ChromaStore) -> None:
        make(store).upsert(Record("old", A))
        store.native.delete_collection(entry_name("docs"))  # as if the process had died here
        again = make(store)
        assert again.count() == 0
        again.upsert(Record("new", A))
        assert [record.id for record in again.scan()] == ["new"]

    def test_a_handle_outlives_a_collection_of_the_same_spec_only(self, store: ChromaStore) -> None:
        old = make(store)
        old.upsert(Record("old", A))
        store.drop_collection("docs")
        make(store).upsert(Record("new", A))
        assert [record.id for record in old.scan()] == ["new"]
        store.drop_collection("docs")
        make(store, 3)
        with pytest.raises(CollectionNotFoundError, match="dropped"):
            old.upsert(Record("x", A))

    def test_clearing_makes_way_for_writes_of_other_handles(self, store: ChromaStore) -> None:
        one = make(store)
        one.upsert(Record("a", A))
        other = store.collection("docs")
        assert other.count() == 1
        one.clear()
        assert other.count() == 0
        other.upsert(Record("b", B))
        assert [record.id for record in one.scan()] == ["b"]


class TestGraph:
    """What a graph loses, polyvec finds."""

    @pytest.fixture(autouse=True)
    def no_brute_force(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(store_module, "SMALL_RECORDS", 0)

    @pytest.mark.parametrize("metric", METRICS)
    @pytest.mark.parametrize(
        "filter", [None, F("third") == 1, ~(F("n") >= 10), F("n").is_in(range(0, 300, 3))]
    )
    def test_the_graph_finds_the_best(
        self, store: ChromaStore, metric: Metric, filter: Filter | None
    ) -> None:
        collection = make(store, 16, metric)
        written = data.records(300, 16)
        collection.upsert(written)
        many = data.vectors(5, 16, seed=4)
        for vector, found in zip(
            many, collection.query_many(many, filter=filter, include_vectors=True), strict=True
        ):
            assert_best(found, truth(written, metric, vector, filter), limit=10)
            for match in found:
                assert_same_record(
                    Record(match.id, match.vector, match.text, match.metadata), written[int(match.id[1:])]
                )

    def test_every_kind_of_filter_in_a_search(self, store: ChromaStore) -> None:
        collection = make(store, 3, "cosine")
        written = [
            Record(f"m{number}", [1.0, number / 100, 0.5], None, metadata)
            for number, metadata in enumerate(filter_cases.RECORD_METADATA)
        ]
        collection.upsert(written)
        for case in filter_cases.CASES[::5]:
            expected = truth(written, "cosine", [1, 0.2, 0.4], case.filter)
            found = collection.query([1, 0.2, 0.4], limit=1000, filter=case.filter, include_text=False)
            assert {match.id for match in found} == expected.keys(), case.name

    @pytest.mark.parametrize("metric", METRICS)
    def test_a_collection_that_was_emptied_by_delete_finds_what_is_written_next(
        self, store: ChromaStore, metric: Metric
    ) -> None:
        count = 400
        collection = make(store, 32, metric)
        ids = [f"r{number}" for number in range(count)]
        for seed in range(7):
            rows = data.vectors(count, 32, seed)
            collection.upsert(RecordBatch(ids, rows))
            if seed < 6:
                collection.delete(ids)
                assert collection.count() == 0
                assert collection.query(rows[0]) == []
        written = [Record(id, row) for id, row in zip(ids, rows, strict=True)]
        native = collection.native
        assert native is not None
        for vector in data.vectors(20, 32, seed=99):
            best = truth(written, metric, vector)
            expected = sorted(best, key=lambda id: -best[id])[:10]
            found = {match.id for match in collection.query(vector, limit=10)}
            assert len(found & set(expected)) >= 9

    def test_records_that_no_path_leads_to_are_found_where_all_are_asked_for(
        self, store: ChromaStore
    ) -> None:
        collection = make(store, 64, "dot")
        count = 1000
        rows = data.vectors(count, 64, seed=1) + 3
        written = [Record(f"r{n}", row, None, {"odd": n % 2 == 1}) for n, row in enumerate(rows)]
        collection.upsert(written)
        native = collection.native
        assert native is not None
        query = data.vectors(1, 64, seed=2)[0] + 3
        reached = native.query([query.tolist()], n_results=count + 1)["ids"][0]
        assert len(reached) < count, "the graph reaches all: the test proves nothing"
        for filter in (None, F("odd") == True):  # noqa: E712
            assert_best(
                collection.query(query, limit=count, filter=filter),
                truth(written, "dot", query, filter),
                limit=count,
            )
        [found] = collection.query_many([query], limit=count, include_vectors=True, include_text=False)
        assert found[-1].vector is not None
        np.testing.assert_array_equal(found[-1].vector, rows[int(found[-1].id[1:])])

    def test_the_anchor_is_never_shown(self, store: ChromaStore) -> None:
        for metric in METRICS:
            collection = store.create_collection(metric, 2, metric)
            written = [Record("a", [-1.0, 0.0]), Record("b", [-0.9, 0.1])]
            collection.upsert(written)
            assert collection.native.count() == 3
            assert_holds(collection, written)
            assert [match.id for match in collection.query([1.0, 0.0], limit=5)] == ["b", "a"]
            assert [match.id for match in collection.query([1.0, 0.0], filter=~F("x").exists())] == ["b", "a"]
            assert collection.count(~F("x").exists()) == 2
            collection.delete(filter=~F("x").exists())
            assert collection.count() == 0
            assert collection.native.get()["ids"] == [ANCHOR]

    def test_an_index_of_ones_own(self, store: ChromaStore) -> None:
        collection = make(store, index=HnswIndex(m=8, ef_construction=50, ef_search=70))
        collection.upsert(Record("a", A))
        native = collection.native
        assert native is not None
        hnsw = native.configuration_json["hnsw"]
        assert (hnsw["max_neighbors"], hnsw["ef_construction"], hnsw["ef_search"]) == (8, 50, 70)

    def test_many_vectors_with_a_large_limit_fit_in_sql(
        self, store: ChromaStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        collection = make(store, 4, "cosine")
        written = data.records(60, 4)
        collection.upsert(written)
        monkeypatch.setattr(store_module, "MOST_ROWS", 100)
        vectors = data.vectors(7, 4, seed=3)
        for vector, found in zip(vectors, collection.query_many(vectors, limit=40), strict=True):
            assert_best(found, truth(written, "cosine", vector), limit=40)


class TestSmall:
    """Where there are few records, all are compared."""

    def test_records_that_no_path_leads_to_are_found(self, store: ChromaStore) -> None:
        collection = make(store, 3, "dot")
        written = [Record(f"r{n:03}", [n // 20, 1, 0], None, {"third": n % 3}) for n in range(150)]
        collection.upsert(written)
        native = collection.native
        assert native is not None
        reached = native.query(np.array([[-1, 0, 0]], np.float32), n_results=151)["ids"][0]
        assert len(reached) < 151, "the graph reaches all: the test proves nothing"
        for filter in (None, F("third") == 0):
            best = truth(written, "dot", [-1, 0, 0], filter)
            found = [match.id for match in collection.query([-1, 0, 0], limit=30, filter=filter)]
            assert found == sorted(best, key=lambda id: (-best[id], id))[:30]

    def test_the_graph_is_searched_once_there_are_more(
        self, store: ChromaStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(store_module, "SMALL_FLOATS", 100)
        collection = make(store, 4)
        collection.upsert(data.records(20, 4))
        assert collection.query([1, 0, 0, 0])
        assert not collection._large
        collection.upsert(data.records(30, 4))
        assert collection.query([1, 0, 0, 0])
        assert collection._large


class TestScan:
    """Everything once, in bounded memory."""

    @pytest.fixture
    def written(self, store: ChromaStore, monkeypatch: pytest.MonkeyPatch) -> list[Record]:
        monkeypatch.setattr(store_module, "MOST_IDS", 100)
        written = data.records(1000, 4)
        make(store, 4).upsert(written)
        return written

    @pytest.mark.parametrize(
        "filter", [None, F("third") == 1, F("n") >= 200, ~F("missing").exists()], ids=str
    )
    def test_in_groups_of_buckets(
        self, store: ChromaStore, written: list[Record], filter: Filter | None
    ) -> None:
        expected = [record.id for record in written if matches(filter, record.metadata)]
        collection = store.collection("docs")
        for size in (7, 1000):
            batches = list(collection.scan_batches(filter, batch_size=size))
            assert sorted(id for batch in batches for id in batch.ids) == expected
            assert max(map(len, batches)) <= min(size, 100)

    def test_records_deleted_meanwhile_make_none_of_the_others_vanish(
        self, store: ChromaStore, written: list[Record]
    ) -> None:
        collection = store.collection("docs")
        seen: list[str] = []
        for batch in collection.scan_batches(batch_size=20):
            seen += batch.ids
            collection.delete(batch.ids)
        assert sorted(seen) == [record.id for record in written]
        assert collection.count() == 0


class TestLimits:
    """What the engine cannot keep is refused, and nothing breaks."""

    def test_a_record_with_too_much_to_filter_by(self, store: ChromaStore) -> None:
        collection = make(store)
        fits = Record("fits", A, None, {"k": list(range(MAX_TOKENS - 2))})
        collection.upsert(fits)
        assert collection.count(F("k").contains(MAX_TOKENS - 3)) == 1
        too_much = Record("too much", A, None, {"k": list(range(MAX_TOKENS))})
        with pytest.raises(UnsupportedOperationError, match=f"{MAX_TOKENS} of a record") as caught:
            collection.upsert([Record("a", A), too_much, Record("b", B)])
        assert isinstance(caught.value.report, WriteReport)
        assert (caught.value.report.written, caught.value.report.failed_ids) == (2, ["too much"])
        assert {record.id for record in collection.scan()} == {"fits", "a", "b"}

    @pytest.mark.parametrize("metric", ["dot", "euclidean"])
    def test_vectors_beyond_float32(self, store: ChromaStore, metric: Metric) -> None:
        collection = make(store, 2, metric)
        far = [Record("plus", [6e18, 0]), Record("minus", [-6e18, 0])]
        collection.upsert(far)
        assert_best(collection.query([6e18, 0]), truth(far, metric, [6e18, 0]), limit=10)
        with pytest.raises(UnsupportedOperationError, match="float32"):
            collection.upsert(Record("x", [1e19, 0]))
        with pytest.raises(UnsupportedOperationError, match="float32"):
            collection.query([1e30, 0])
        assert_holds(collection, far)


class TestDirectory:
    """Several stores, threads and processes."""

    def test_two_stores_of_one_directory_see_each_other(self, store: ChromaStore, tmp_path: Path) -> None:
        collection = make(store)
        collection.upsert(Record("a", A))
        with open_chroma(f"chroma:{tmp_path}/./x/../data", timeout_s=5) as other:
            again = other.collection("docs")
            again.upsert(Record("b", B))
            assert [match.id for match in again.query(B)] == ["b", "a"]
        assert [match.id for match in collection.query(B)] == ["b", "a"]

    def test_another_process_reads_what_was_written_before_closing(self, tmp_path: Path) -> None:
        url = f"chroma:{tmp_path / 'data'}"
        with open_chroma(url) as store:
            make(store, 4).upsert(data.records(50, 4))
        program = (
            "import sys, polyvec\n"
            "with polyvec.connect(sys.argv[1]) as store:\n"
            "    docs = store.collection('docs')\n"
            "    print(docs.count(), docs.query([1, 0, 0, 0], limit=1)[0].id)\n"
            "    docs.upsert(polyvec.Record('new', [1, 2, 3, 4], 'from outside'))\n"
        )
        ran = subprocess.run([sys.executable, "-c", program, url], capture_output=True, text=True, check=True)
        with open_chroma(url) as store:
            collection = store.collection("docs")
            best = truth(data.records(50, 4), "dot", [1, 0, 0, 0])
            assert ran.stdout.split() == ["50", max(best, key=lambda id: best[id])]
            [got] = collection.get(["new"])
            assert got is not None
            assert got.text == "from outside"

    def test_opening_at_once_in_many_threads(self, tmp_path: Path) -> None:
        url = f"chroma:{tmp_path / 'data'}"
        stores: list[ChromaStore] = []
        threads = [threading.Thread(target=lambda: stores.append(open_chroma(url))) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(stores) == 8
        make(stores[0]).upsert(Record("a", A))
        assert [store.collection("docs").count() for store in stores] == [1] * 8
        for store in stores:
            store.close()

    def test_a_missing_database_is_a_wrong_configuration(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigurationError, match="there is no database 'nope'"):
            open_chroma(f"chroma:{tmp_path / 'data'}?database=nope")
        with open_chroma(f"chroma:{tmp_path / 'data'}") as store:
            assert store.list_collections() == []

    def test_a_place_that_is_no_directory(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("x")
        with pytest.raises(BackendError):
            open_chroma(f"chroma:{tmp_path / 'file' / 'data'}")

    def test_reading_filtering_and_changing_at_once(self, store: ChromaStore) -> None:
        """A read that meets a change of its record is made again: the engine then says "Error finding id"."""
        collection = make(store, 4)
        written = data.records(200, 4)
        collection.upsert(written)
        errors: list[BaseException] = []

        def run(seed: int) -> None:
            choose = np.random.default_rng(seed)
            try:
                for _ in range(30):
                    start = int(choose.integers(0, 150))
                    if seed == 0:
                        collection.upsert(written[start : start + 20])
                    elif seed == 1:
                        collection.delete([record.id for record in written[start : start + 10]])
                    elif seed == 2:
                        collection.update_metadata(
                            [record.id for record in written[start : start + 5]], set={"x": 1}
                        )
                    else:
                        for match in collection.query(
                            [1, 0, 0, 0], filter=F("third") == 1, include_vectors=True
                        ):
                            assert match.metadata["third"] == 1
                        collection.get([record.id for record in written[start : start + 20]])
            except BaseException as error:  # noqa: BLE001  # shown below, in the test's thread
                errors.append(error)

        threads = [threading.Thread(target=run, args=(seed,)) for seed in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []
        collection.upsert(written)
        assert_holds(collection, written)

    def test_the_error_of_a_read_that_met_a_change_can_be_tried_again(self, store: ChromaStore) -> None:
        collection = make(store)
        collection.upsert(Record("a", A))
        native = collection.native
        assert native is not None
        with pytest.raises(Exception, match="Error finding id") as caught:
            native.query(np.ones((1, 2), np.float32), ids=["missing"])
        assert isinstance(store._translate(caught.value), BackendUnavailableError)


def test_explain(store: ChromaStore) -> None:
    collection = make(store)
    plain, filtered = collection.explain(), collection.explain(F("n") > 1, limit=5)
    assert plain.native == {"n_results": 11, "where": None}
    assert filtered.native["n_results"] == 6
    assert len(filtered.native["where"]) == 1
    assert any("stricter" in note for note in filtered.notes)
    assert not any("stricter" in note for note in collection.explain(F("n") == 1).notes)
