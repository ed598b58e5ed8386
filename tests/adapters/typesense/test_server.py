"""What is special to Typesense, on real servers: one, one that is killed, and a cluster."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from polyvec.errors import (
    AuthenticationError,
    BackendError,
    BackendTimeoutError,
    BackendUnavailableError,
    ForeignCollectionError,
)
from polyvec.filters import And, ContainsAll, F, Filter, In, Or, matches
from polyvec.protocol import Collection
from polyvec.testing import data
from polyvec.testing.compare import assert_best, assert_holds, truth
from polyvec.testing.plugin import test_name
from polyvec.types import METRICS, FlatIndex, Metric, Record, WriteReport
from polyvec_adapters.typesense.connect import Api
from polyvec_adapters.typesense.store import TypesenseCollection, TypesenseStore
from tests.adapters.typesense.conftest import open_typesense
from tests.servers.process import free_port
from tests.servers.typesense import start_typesense

pytestmark = pytest.mark.server


def eventually(true: Callable[[], bool], within_s: float) -> None:
    """Wait until something is true; fail if that takes too long."""
    deadline = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.02)


@pytest.fixture
def make(server: TypesenseStore) -> Iterator[Callable[..., TypesenseCollection]]:
    made: list[str] = []

    def create(dimension: int = 8, metric: Metric = "cosine", **options: Any) -> TypesenseCollection:
        made.append(test_name())
        collection = server.create_collection(made[-1], dimension, metric, **options)
        assert isinstance(collection, TypesenseCollection)
        return collection

    yield create
    for name in made:
        server.drop_collection(name)


def numbered(ids: range, seed: int, dimension: int = 8) -> list[Record]:
    rows = data.vectors(len(ids), dimension, seed)
    return [
        Record(f"i{id}", row, f"of {seed}", {"seed": seed, "third": id % 3})
        for id, row in zip(ids, rows, strict=True)
    ]


class TestReplacing:
    """Replacing vectors in place corrupts the engine's graph, so it is never done."""

    def test_the_engine_does_corrupt_its_graph(self, make: Callable[..., TypesenseCollection]) -> None:
        """The reason for the detour; when this fails on the oldest server that is supported, it can go."""
        collection = make()
        collection.upsert(numbered(range(100), 1))
        documents = collection.api.find(collection.native, "tokens:!=[none]", "")
        rows = data.vectors(100, 8, 2)
        lines = [
            orjson.dumps({**document, "vec": row.tolist()})
            for document, row in zip(documents, rows, strict=True)
        ]
        assert all(answer["success"] for answer in collection.api.write(collection.native, "upsert", lines))
        written = {document["key"]: row for document, row in zip(documents, rows, strict=True)}
        found = [match for vector in rows[:20] for match in collection.query(vector, limit=1, exact=False)]
        scores = [
            float(row @ written[match.id] / np.linalg.norm(row) / np.linalg.norm(written[match.id]))
            for row, match in zip(rows, found, strict=False)
        ]
        assert len(found) < 20 or min(scores) < 0.99

    @pytest.mark.parametrize("metric", METRICS)
    def test_polyvec_does_not(self, make: Callable[..., TypesenseCollection], metric: Metric) -> None:
        collection = make(8, metric)
        state: dict[str, Record] = {}
        random = np.random.default_rng(5)
        hits = asked = 0
        for seed in range(12):
            start = int(random.integers(0, 1500))
            written = numbered(range(start, start + 400), seed)
            collection.upsert(written)
            state |= {record.id: record for record in written}
            gone = [f"i{id}" for id in random.integers(0, 1900, 40)]
            collection.delete(gone)
            collection.update_metadata([f"i{id}" for id in range(300, 400)], set={"third": 7})
            state = {id: record for id, record in state.items() if id not in gone}
            for id in (f"i{id}" for id in range(300, 400)):
                if id in state:
                    old = state[id]
                    state[id] = Record(id, old.vector, old.text, {**old.metadata, "third": 7})
            for vector in data.vectors(3, 8, 100 + seed):
                for filter in (None, F("third") == 7, F("seed") < 6):
                    expected = truth(state.values(), metric, vector, filter)
                    found = collection.query(vector, limit=20, filter=filter, exact=True)
                    assert_best(found, expected, limit=20)
                    found = collection.query(vector, limit=20, filter=filter)
                    for match in found:  # no record as it was, and none that is gone
                        assert match.score == pytest.approx(expected[match.id], abs=1e-4, rel=1e-4)
                    best = sorted(expected.values())[-20:]
                    hits += sum(match.score >= best[0] - 1e-4 for match in found)
                    asked += len(best)
        assert len(state) > 1000  # or no graph would be searched
        assert hits >= 0.98 * asked
        assert_holds(collection, state.values())

    def test_several_writers_of_the_same_records(
        self, server: TypesenseStore, make: Callable[..., TypesenseCollection]
    ) -> None:
        collection = make()
        errors: list[Exception] = []

        def write(seed: int) -> None:
            for turn in range(5):
                try:
                    collection.upsert(numbered(range(120), 10 * turn + seed))
                except Exception as error:  # noqa: BLE001  # shown below, in the test's thread
                    errors.append(error)

        threads = [threading.Thread(target=write, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []
        found = list(collection.scan(include_vectors=True))
        assert sorted(record.id for record in found) == sorted(f"i{id}" for id in range(120))
        for record in found:  # each as one of them wrote it
            assert record.text == f"of {record.metadata['seed']}"
        for vector in data.vectors(10, 8, 99):
            expected = truth(found, "cosine", vector)
            assert_best(collection.query(vector, limit=20), expected, limit=20)
            assert_best(collection.query(vector, limit=20, exact=True), expected, limit=20)


@pytest.fixture(scope="module")
def written() -> list[Record]:
    return [
        Record(
            f"r{row}",
            vector,
            None,
            {"n": row, "tags": [f"t{tag}" for tag in range(row % 70)], "third": row % 3},
        )
        for row, vector in enumerate(data.vectors(1300, 8, 4))
    ]


@pytest.fixture(scope="module")
def collection(server: TypesenseStore, written: list[Record]) -> Iterator[Collection]:
    name = test_name()
    collection = server.create_collection(name, 8, "dot")
    collection.upsert(written)
    yield collection
    server.drop_collection(name)


class TestLarge:
    """Filters, pages and lists beyond what one request takes."""

    @pytest.mark.parametrize(
        "filter",
        [
            In("n", tuple(range(0, 2000, 2))),
            ContainsAll("tags", tuple(f"t{tag}" for tag in range(60))),
            And((F("third") == 1, ContainsAll("tags", tuple(f"t{tag}" for tag in range(50))))),
            ~ContainsAll("tags", tuple(f"t{tag}" for tag in range(60))),
            Or(tuple(And((F("n") >= low, F("n") < low + 3)) for low in range(0, 1000, 20))),
        ],
        ids=["long", "all-of-60", "all-of-50-and", "not-all-of-60", "50-ranges"],
    )
    def test_filters(self, collection: Collection, written: list[Record], filter: Filter) -> None:
        expected = {record.id for record in written if matches(filter, record.metadata)}
        assert 0 < len(expected) < len(written)
        assert collection.count(filter) == len(expected)
        bare = collection.scan(filter, include_metadata=False, include_text=False)
        assert {record.id for record in bare} == expected
        vector = np.ones(8)
        scores = truth(written, "dot", vector, filter)
        for limit in (1, 10, 400):
            found = collection.query(vector, limit=limit, filter=filter, include_metadata=False)
            assert_best(found, scores, limit=limit)
            assert all(match.metadata == {} for match in found)

    def test_explain_says_what_is_left_for_later(self, collection: Collection) -> None:
        small = collection.explain(F("n") > 3)
        large = collection.explain(ContainsAll("tags", tuple(f"t{tag}" for tag in range(60))))
        assert not any("polyvec tests it" in note for note in small.notes)
        assert any("polyvec tests it" in note for note in large.notes)

    def test_deleting_by_a_large_filter(
        self, make: Callable[..., TypesenseCollection], written: list[Record]
    ) -> None:
        for filter in (
            In("n", tuple(range(0, 2000, 2))),
            ContainsAll("tags", tuple(f"t{tag}" for tag in range(60))),
        ):
            collection = make(8, "dot")
            collection.upsert(written)
            collection.scoped("other").upsert(written[:10])
            collection.delete(filter=filter)
            kept = [record for record in written if not matches(filter, record.metadata)]
            assert_holds(collection, kept)
            assert collection.scoped("other").count() == 10

    def test_many_matches(self, collection: Collection, written: list[Record]) -> None:
        vector = np.ones(8)
        expected = truth(written, "dot", vector)
        assert_best(collection.query(vector, limit=10_000), expected, limit=10_000)
        assert_best(collection.query(vector, limit=600, offset=300), expected, limit=600, offset=300)
        many = collection.query_many(data.vectors(60, 8, 9), limit=300)
        assert [len(found) for found in many] == [300] * 60

    def test_pages_of_a_filter(self, make: Callable[..., TypesenseCollection]) -> None:
        for count in (249, 250, 251, 600):
            made = make(2, "dot")
            made.upsert(Record(f"r{row}", [1, row]) for row in range(count))
            found = made.api.find(made.native, "tokens:!=[none]", "key")
            assert sorted(document["key"] for document in found) == sorted(f"r{row}" for row in range(count))

    def test_all_kinds_of_line_ends(self, make: Callable[..., TypesenseCollection]) -> None:
        """Documents are read as lines, of which a text must not make more."""
        text = "a\nb\rc\x0bd\x0ce\x1cf\x1dg\x1eh\x85i\u2028j\u2029k\r\n"
        collection = make(2, "dot")
        written = [Record(text, [1, 2], text, {text: text}), Record("b", [1, 3])]
        collection.upsert(written)
        assert_holds(collection, written)

    def test_a_long_list(self, make: Callable[..., TypesenseCollection]) -> None:
        collection = make()
        collection.upsert(Record("a", np.ones(8), "x" * 10**6, {"many": list(range(70_000))}))
        for value in (0, 35_000, 69_999):
            assert collection.count(F("many").contains(value)) == 1
        assert collection.count(F("many").contains(70_000)) == 0

    def test_many_keys_of_numbers(self, make: Callable[..., TypesenseCollection]) -> None:
        collection = make()
        collection.upsert(
            Record(f"r{row}", np.ones(8), None, {f"key {row}": row, "n": row}) for row in range(300)
        )
        assert collection.count(F("key 17") >= 17) == 1
        assert collection.count(F("key 17") > 17) == 0
        assert collection.count(~(F("key 17") > 17)) == 300

    def test_vectors_of_many_dimensions(self, make: Callable[..., TypesenseCollection]) -> None:
        for metric in METRICS:
            collection = make(5000, metric)
            written = [Record(f"r{row}", vector) for row, vector in enumerate(data.vectors(30, 5000, 8))]
            collection.upsert(written)
            assert_holds(collection, written)
            vector = data.vectors(1, 5000, 9)[0]
            assert_best(collection.query(vector), truth(written, metric, vector), limit=10)


class TestScores:
    """Where float32 is not enough."""

    def test_euclidean_distances_far_from_the_origin(self, make: Callable[..., TypesenseCollection]) -> None:
        """The engine's own products are off by 0.1 there, and its own distances by 0.3."""
        collection = make(8, "euclidean")
        written = [
            Record(f"r{row}", vector + np.float32(300)) for row, vector in enumerate(data.vectors(300, 8, 1))
        ]
        collection.upsert(written)
        for record in written[:20]:
            assert record.vector is not None
            best = collection.query(record.vector, limit=300)
            assert (best[0].id, best[0].score) == (record.id, 0.0)
            assert_best(best, truth(written, "euclidean", record.vector), limit=300)

    def test_numbers_that_are_not_normal(self, make: Callable[..., TypesenseCollection]) -> None:
        collection = make(3, "dot")
        collection.upsert([Record("a", [1, 1e-40, 0]), Record("b", [1e-30, 0, 1])])
        assert [match.id for match in collection.query([1, 1e-42, -1e-40])] == ["a", "b"]
        assert collection.query([1e-40, 0, 0])[0].score == 0

    def test_products_beyond_float32(self, make: Callable[..., TypesenseCollection]) -> None:
        collection = make(3, "dot")
        collection.upsert(Record("a", [1e30, 0, 0]))
        with pytest.raises(BackendError, match="beyond float32"):
            collection.query([1e30, 0, 0])

    def test_brute_force_is_what_was_asked_for(self, make: Callable[..., TypesenseCollection]) -> None:
        collection = make(64, index=FlatIndex())
        written = [Record(f"r{row}", vector) for row, vector in enumerate(data.vectors(1500, 64, 3))]
        collection.upsert(written)
        for vector in data.vectors(20, 64, 4):
            assert_best(collection.query(vector), truth(written, "cosine", vector), limit=10)


class TestCollections:
    def test_what_others_made(self, server: TypesenseStore) -> None:
        name = test_name()
        server.api.create({"name": name, "fields": [{"name": "title", "type": "string"}]})
        try:
            assert name not in server.list_collections()
            for call in (server.collection, lambda name: server.create_collection(name, 3)):
                with pytest.raises(ForeignCollectionError):
                    call(name)
            with pytest.raises(ForeignCollectionError):
                server.drop_collection(name)
        finally:
            server.api.drop(name)

    def test_the_drivers_client(
        self, server: TypesenseStore, make: Callable[..., TypesenseCollection]
    ) -> None:
        collection = make()
        collection.upsert(Record("a", np.ones(8)))
        described = {found["name"]: found for found in server.native.collections.retrieve()}
        assert described[collection.native]["num_documents"] == 1
        assert server.native is server.native

    def test_a_wrong_key(self, server: TypesenseStore) -> None:
        host = server.config.host
        assert host is not None
        with pytest.raises(AuthenticationError) as caught:
            open_typesense(f"typesense://:not-the-key@{host.name}:{host.port}")
        assert "not-the-key" not in str(caught.value)

    def test_a_handle_outlives_its_collection(self, make: Callable[..., TypesenseCollection]) -> None:
        old = make(8, "dot")
        old.upsert(Record("a", np.ones(8), None, {"n": 1}))
        old.store.drop_collection(old.name)
        old.store.create_collection(old.name, 8, "dot")
        assert old.count(F("n") > 0) == 0  # nothing there has had a number yet
        old.upsert(Record("b", np.ones(8), None, {"n": 2}))
        assert [match.id for match in old.query(np.ones(8), filter=F("n") > 0)] == ["b"]


@pytest.mark.slow
class TestKilled:
    """The server is killed in the middle of an upsert and started again on the same data."""

    @pytest.mark.parametrize("replacing", [False, True])
    def test_the_same_call_again_completes_it(self, tmp_path: Path, replacing: bool) -> None:
        port = free_port()
        first, second = numbered(range(3000), 1, 32), numbered(range(3000), 2, 32)

        def start() -> ExitStack:
            stack = ExitStack()
            started = start_typesense(tmp_path / "data", tmp_path / "log", port=port, grace_s=0)
            urls.append(stack.enter_context(started))
            return stack

        urls: list[str] = []
        running = start()
        try:
            with open_typesense(urls[0], timeout_s=20) as store:
                collection = store.create_collection("docs", 32)
                if replacing:
                    collection.upsert(first)
                seen = threading.Event()
                write = Api.write

                def killing(self: Api, *arguments: Any) -> Any:
                    answers = write(self, *arguments)
                    progress.append(1)
                    if len(progress) == 6:
                        seen.set()
                    return answers

                def kill() -> None:
                    seen.wait(30)
                    running.close()

                progress: list[int] = []
                killer = threading.Thread(target=kill)
                killer.start()
                with pytest.MonkeyPatch.context() as patch:
                    patch.setattr(Api, "write", killing)
                    with pytest.raises((BackendUnavailableError, BackendTimeoutError)) as caught:
                        collection.upsert(second)
                killer.join()
                report = caught.value.report
                assert isinstance(report, WriteReport)
                assert 0 < report.written < 3000
                assert report.written + len(report.failures) == 3000
                running = start()
                failed = set(report.failed_ids)
                there = [record for record in second if record.id not in failed]
                # the server says that it is well before it has replayed its log
                eventually(lambda: holds_all(store.collection("docs"), there), within_s=60)
                collection.upsert(second)
                assert_holds(collection, second)
                for vector in data.vectors(5, 32, 7):
                    found = collection.query(vector, exact=True)
                    assert_best(found, truth(second, "cosine", vector), limit=10)
        finally:
            running.close()


def holds_all(collection: Collection, records: list[Record]) -> bool:
    """Whether these records are there as they are."""
    found = collection.get([record.id for record in records], include_vectors=False)
    return [record and record.text for record in found] == [record.text for record in records]


@pytest.mark.slow
class TestCluster:
    """Three nodes on this machine."""

    def test_writes_are_seen_and_outlive_the_leader(self, tmp_path: Path) -> None:
        ports = [(free_port(), free_port()) for _ in range(3)]
        nodes = tmp_path / "nodes"
        nodes.write_text(",".join(f"127.0.0.1:{peering}:{port}" for peering, port in ports))
        stacks = [ExitStack() for _ in ports]

        def start(number: int) -> str:
            peering, port = ports[number]
            folder = tmp_path / str(number)
            settings = (f"--nodes={nodes}",)
            return stacks[number].enter_context(
                start_typesense(
                    folder,
                    tmp_path / f"log{number}",
                    port=port,
                    peering_port=peering,
                    grace_s=0,
                    settings=settings,
                )
            )

        try:
            with ThreadPoolExecutor(3) as pool:  # none is well before the others are there
                urls = list(pool.map(start, range(3)))
            together = "typesense://" + ",".join(url.removeprefix("typesense://") for url in urls).replace(
                urls[0].partition("@")[0].removeprefix("typesense://") + "@", ""
            )
            login = urls[0].partition("@")[0]
            with open_typesense(together.replace("typesense://", f"{login}@"), timeout_s=60) as store:
                collection = store.create_collection("docs", 4)
                for number in range(50):
                    collection.upsert(Record(f"r{number}", [1, number, 0, 0], None, {"n": number}))
                    assert collection.count() == number + 1
                    assert collection.get([f"r{number}"]) != [None]
                leader = store.api._find_leader()
                [place] = [at for at, (_, port) in enumerate(ports) if leader.endswith(f":{port}")]
                follower = urls[(place + 1) % 3]
                with pytest.raises(BackendUnavailableError, match="name all nodes"):
                    open_typesense(follower, timeout_s=1)
                stacks[place].close()
                collection.upsert(Record("after", [0, 0, 0, 1]))
                assert collection.count() == 51
                assert store.api._find_leader() != leader
        finally:
            for stack in stacks:
                stack.close()
